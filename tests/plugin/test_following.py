"""One delivery can be followed through the log of a running service, from its receipt to its effect."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from databases import SQLITE, database_url
from deliveries import PROJECT, annotation, created
from guarded import guarded, policy
from labelguard.prompts import Prompts
from labelguard.store import records
from labelguard.studio.launch import free_port
from labelguard.tokens import hash_token
from webservice import Service, service, submission

WRONG = ("spam", "important")


class _Chat(BaseHTTPRequestHandler):
    """Takes messages, the second time that it is asked."""

    sent: list[bytes]
    troubles: int

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        _Chat.troubles -= 1
        if _Chat.troubles < 0:
            _Chat.sent.append(body)
        self.send_response(200 if _Chat.troubles < 0 else 503)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class' name
        """Say nothing."""


@pytest.fixture
def chat() -> Iterator[str]:
    """The address of a chat."""
    _Chat.sent, _Chat.troubles = [], 0
    server = HTTPServer(("127.0.0.1", 0), _Chat)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"json://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()
    thread.join()


def soon(reached: Callable[[], bool], seconds: float = 60) -> bool:
    """Whether something comes to hold."""
    deadline = time.monotonic() + seconds
    while not reached():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.store(SQLITE)
def test_a_delivery_is_followed_from_receipt_to_effect_by_its_number(tmp_path: Path, chat: str) -> None:
    """Every line is JSON; those about one delivery carry its number, and lead to its finding and its action."""
    with guarded(tmp_path, policy(actions="[{notify: lead}]", people="{lead: [ops]}")) as world:
        token, now = hash_token("a-token"), datetime.now(UTC)
        world.store.write(
            lambda conn: records.set_connection(
                conn, PROJECT, connected_at=now, webhook_id=1, webhook_url=None, token_hash=token
            )
        )
    port = free_port()
    mine = {name: value for name, value in os.environ.items() if not name.startswith("LABELGUARD_")}
    environment = {
        **mine,
        "LABELGUARD_DATABASE_URL": database_url(tmp_path),
        "LABELGUARD_PORT": str(port),
        "LABELGUARD_NOTIFY_OPS": chat,
        "LABELGUARD_ALLOW_PRIVATE_TARGETS": "127.0.0.1",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    command = [sys.executable, "-c", "from labelguard.cli import main; main()", "serve"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"

    def up() -> bool:
        try:
            return requests.get(f"{url}/healthz", timeout=10).ok
        except requests.RequestException:
            return process.poll() is not None

    numbers = []
    try:
        assert soon(up)
        for number, labels in ((11, ("spam",)), (12, WRONG), (13, ("spam",))):
            moment = datetime.now(UTC)
            body = created(annotation(number, *labels, task=number, created=moment))
            answer = requests.post(
                f"{url}/webhook/{PROJECT}", json=body, headers={"X-Labelguard-Token": "a-token"}, timeout=20
            )
            numbers.append(answer.json()["delivery"])
        assert soon(lambda: len(_Chat.sent) == 1)
        assert soon(lambda: "action_done" in (tmp_path / "log").read_text("utf-8"))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    lines = [json.loads(line) for line in (tmp_path / "log").read_text("utf-8").splitlines()]
    about = {number: [line for line in lines if line.get("delivery") == number] for number in numbers}
    fine, wrong, fine_too = numbers

    assert [line["event"].split(":")[0] for line in about[fine]] == ["A delivery was taken in"]
    assert [line["event"].split(":")[0] for line in about[fine_too]] == ["A delivery was taken in"]
    steps = {line["event"].split(":")[0]: line for line in about[wrong]}
    assert set(steps) == {"A delivery was taken in", "finding_made", "action_done"}
    assert steps["finding_made"]["finding"] == steps["action_done"]["finding"] == 1
    assert (steps["action_done"]["kind"], steps["action_done"]["action"]) == ("notify", 1)


def test_a_note_is_followed_to_the_annotator_who_sees_it(tmp_path: Path) -> None:
    """Its finding carries the delivery, in the API too."""
    with service(tmp_path) as web:
        web.deliver(submission("spam"))
        delivery = web.deliver(submission(*WRONG, annotation=12, task=8)).json["delivery"]
        prompts = Prompts(web.store, web.engine, None, web.clock)
        (prompt,) = prompts.waiting(PROJECT, 101, 12)
        with capture_logs(processors=[merge_contextvars]) as said:
            prompts.seen(prompt.finding, 101)
            prompts.seen(prompt.finding, 101)
        found = finding(web, prompt.finding)

    assert found["delivery"] == delivery
    (shown,) = [line for line in said if line["event"] == "action_shown"]
    assert (shown["delivery"], shown["finding"]) == (delivery, prompt.finding)


def finding(web: Service, number: int) -> dict[str, Any]:
    """A finding as the API tells it."""
    answer: dict[str, Any] = web.api("GET", f"/findings/{number}").json
    return answer
