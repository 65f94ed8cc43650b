"""Nonsense in Label Studio's place: reconciliation takes in what it can, or says so in a sentence."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from typing import Any

import pytest
import sqlalchemy as sa

from guarded import Guarded, guarded
from labelguard.connectors import ConnectorError
from labelguard.reconcile import reconcile
from labelguard.store import schema
from labelguard_connectors import LabelStudio
from mutations import DELIVERIES, LISTING, Mutator

SEED = 20261124
ROUNDS = 150
PROJECT = 3


class Nonsense(ThreadingHTTPServer):
    """Answers as Label Studio does, with things changed."""

    def __init__(self) -> None:
        self.random = Random(SEED)
        self.mutator = Mutator(self.random)
        self.about = next(json.loads(text)["project"] for text in DELIVERIES if "label_config" in text)
        super().__init__(("127.0.0.1", 0), _Handler)

    def answer(self, path: str) -> Any:
        """What stands at a path this time."""
        if path.startswith("/api/projects/"):
            value: Any = {**self.about, "id": PROJECT}
            return self._changed(value) if self.random.random() < 0.2 else value
        tasks = json.loads(LISTING)
        for number, task in enumerate(tasks, start=1):
            task["id"], task["project"] = number, PROJECT
            for made in task["annotations"]:
                made["task"] = number
                made["id"] = self.random.randrange(1, 60)
        if path.startswith("/api/tasks/?"):
            if "greater%22%2C+%22value%22%3A+0" not in path and '"value": 0' not in path and self.random.random() < 0.9:
                return []
            return self._changed(tasks)
        return self._changed(tasks[0])

    def _changed(self, value: Any) -> Any:
        for _ in range(self.random.choice((0, 1, 1, 2, 4))):
            self.mutator.change(value)
        return value if self.random.random() < 0.95 else self.mutator.value()


class _Handler(BaseHTTPRequestHandler):
    server: Nonsense

    def do_GET(self) -> None:
        body = self.server.mutator.body(self.server.answer(self.path))
        if self.path.startswith(("/api/version", "/api/current-user")):
            body = json.dumps({"release": "1.23.2", "edition": "Community", "id": 9, "email": "g@example.com"}).encode()
        self.send_response(self.server.random.choice((200,) * 30 + (500, 404)))
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
    """Nothing but a ConnectorError comes out, nothing is logged as an error, and nothing is left unjudged."""
    said: list[str] = []
    taken = 0
    with LabelStudio(f"http://127.0.0.1:{nonsense.server_port}", "a" * 40) as studio, caplog.at_level(logging.ERROR):
        for number in range(ROUNDS):
            try:
                taken += reconcile(
                    guard.store, guard.engine, studio, PROJECT, clock=guard.clock, full=number % 3 == 0
                ).tasks
            except ConnectorError as error:
                said.append(str(error))
    assert taken > 20
    assert len(said) > 20
    for sentence in said:
        assert sentence.isprintable()
        assert len(sentence) < 1000
    assert caplog.text == ""
    with guard.store.read() as conn:
        states = set(conn.scalars(sa.select(schema.inbox.c.state).distinct()))
    assert states <= {"done", "ignored"}
