"""Nonsense in Label Studio's place: reconciliation takes in what it can, or says so in a sentence.

What is answered is drawn anew in each round, so that nothing in it depends on how much was asked before; and some
rounds leave no room for chance. In one of five the server is honest again, in one nothing that it lists can be read.
"""

from __future__ import annotations

import copy
import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import parse_qs

import pytest
import sqlalchemy as sa

from guarded import Guarded, guarded
from labelguard.connectors import ConnectorError
from labelguard.reconcile import reconcile
from labelguard.store import records, schema
from labelguard_connectors import LabelStudio
from mutations import DELIVERIES, LISTING, Mutator

SEED = 20261124
ROUNDS = 150
PROJECT = 3
OWN = {"id": 9, "email": "g@example.com"}


class Nonsense(ThreadingHTTPServer):
    """Answers as Label Studio does, with things changed."""

    def __init__(self) -> None:
        self.random = Random(SEED)
        self.mutator = Mutator(self.random)
        self.about = next(json.loads(text)["project"] for text in DELIVERIES if "label_config" in text)
        self.round = 0
        self.tasks: list[Any] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def honest(self) -> bool:
        """Whether everything is answered as Label Studio would."""
        return self.round % 5 == 0

    @property
    def broken(self) -> bool:
        """Whether no listing can be read."""
        return self.round % 5 == 1

    def begin(self, number: int) -> None:
        """Another round: the same tasks, with annotations of other ids."""
        self.round = number
        self.random.seed(f"{SEED} {number}")
        self.tasks = json.loads(LISTING)
        for number, task in enumerate(self.tasks, start=1):
            task["id"], task["project"] = number, PROJECT
            for made in task["annotations"]:
                made["task"], made["project"] = number, PROJECT
                made["id"] = self.random.randrange(1, 60)

    def answer(self, url: str) -> tuple[int, bytes]:
        """What stands at an address this time: the status and the body."""
        path, _, query = url.partition("?")
        if path.startswith(("/api/version", "/api/current-user")):
            return 200, json.dumps({"release": "1.23.2", "edition": "Community", **OWN}).encode()
        if self.broken and path == "/api/tasks/":
            return self.random.choice(((200, b"<html>"), (500, b"{}"), (200, b'{"tasks": 3}'), (403, b"[]")))
        value = self._true(path, parse_qs(query))
        if self.honest:
            return (404, b"{}") if value is None else (200, json.dumps(value).encode())
        if path.startswith("/api/projects/"):
            value = self._changed(value) if self.random.random() < 0.2 else value
        elif value != []:
            value = self._changed(value)
        status = self.random.choice((200,) * 30 + (500, 404))
        return status, self.mutator.body(value) if self.random.random() < 0.2 else _written(value)

    def _true(self, path: str, query: dict[str, list[str]]) -> Any:
        """The answer of an honest server; None where there is nothing."""
        kind, _, number = path.removeprefix("/api/").strip("/").partition("/")
        if kind == "projects":
            return {**copy.deepcopy(self.about), "id": PROJECT}
        tasks = copy.deepcopy(self.tasks)
        if kind == "annotations":
            return next((made for task in tasks for made in task["annotations"] if str(made["id"]) == number), None)
        if kind == "tasks" and number:
            return next((task for task in tasks if str(task["id"]) == number), None)
        if kind != "tasks":
            return None
        asked = json.loads(query["query"][0])
        if "selectedItems" in asked:
            return [task for task in tasks if task["id"] in asked["selectedItems"]["included"]]
        after = next(item["value"] for item in asked["filters"]["items"] if item["filter"] == "filter:tasks:id")
        return [task for task in tasks if task["id"] > after]

    def _changed(self, value: Any) -> Any:
        for _ in range(self.random.choice((0, 1, 1, 2, 4))):
            self.mutator.change(value)
        return value if self.random.random() < 0.95 else self.mutator.value()


def _written(value: Any) -> bytes:
    """The value as JSON, as far as it can be."""
    return json.dumps(value, default=str).encode()


class _Handler(BaseHTTPRequestHandler):
    server: Nonsense

    def do_GET(self) -> None:
        status, body = self.server.answer(self.path)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def nonsense() -> Iterator[Nonsense]:
    """A running server."""
    with Nonsense() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def guard(tmp_path: Path) -> Iterator[Guarded]:
    """A labelguard with a project and a policy."""
    with guarded(tmp_path) as made:
        yield made


def test_nonsense_in_a_listing_is_a_sentence_or_taken_in(
    nonsense: Nonsense, guard: Guarded, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing but a ConnectorError comes out, nothing is logged as an error, and nothing is left unjudged.

    Whatever was taken in before, an honest server is taken in whole.
    """
    said: dict[int, str] = {}
    whole = []
    with LabelStudio(f"http://127.0.0.1:{nonsense.server_port}", "a" * 40) as studio, caplog.at_level(logging.ERROR):
        for number in range(ROUNDS):
            nonsense.begin(number)
            try:
                report = reconcile(guard.store, guard.engine, studio, PROJECT, clock=guard.clock, full=number % 3 == 0)
            except ConnectorError as error:
                said[number] = str(error)
                continue
            if nonsense.honest:
                assert report.tasks >= len(nonsense.tasks)
                whole.append(number)
                with guard.store.read() as conn:
                    there = records.live_task_ids(conn, PROJECT)
                assert there >= {task["id"] for task in nonsense.tasks}
    assert whole == [*range(0, ROUNDS, 5)]
    assert {*range(1, ROUNDS, 5)} <= {*said}
    # Of the others about one in four is taken in; none would be if what is drawn did not get past the first check.
    assert ROUNDS - len(said) - len(whole) >= 5
    for sentence in said.values():
        assert sentence.isprintable()
        assert len(sentence) < 1000
    assert caplog.text == ""
    with guard.store.read() as conn:
        states = set(conn.scalars(sa.select(schema.inbox.c.state).distinct()))
    assert states <= {"done", "ignored"}
