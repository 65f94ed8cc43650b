"""How much the receiver costs beyond what any durable receiver costs.

Two services run behind the same server (waitress, one process) and answer the same deliveries:

* **floor**: bare Flask that parses the body and commits it in one insert, with the durability of the store
  (SQLite, WAL, synchronous=FULL). No token, no rules: what cannot be avoided.
* **labelguard**: the shipped receiver with three rules judging each delivery before it is answered.

Both run in one invocation, one after the other, so that their ratio says something on any machine; absolute
numbers do not. The load comes from a process of its own on the same machine and is bounded in requests.
"""

from __future__ import annotations

import argparse
import http.client
import json
import logging
import multiprocessing
import random
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from flask import Flask, request
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from labelguard.engine import Engine
from labelguard.events import Project
from labelguard.outbox import Outbox
from labelguard.settings import Settings
from labelguard.store import Store, records
from labelguard.tokens import hash_token
from labelguard.web.app import create_app
from labelguard.web.server import make_server

PROJECT = 3
TOKEN = "the-token-of-the-benchmark"  # noqa: S105 - it opens a store that is thrown away
START = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
LABELS = ("positive", "negative", "neutral")
CONFIG = """<View><Text name="text" value="$text"/><Choices name="sentiment" toName="text">
<Choice value="positive"/><Choice value="negative"/><Choice value="neutral"/></Choices></View>"""
POLICY = f"""\
project: {PROJECT}
rules:
  - rule: label-constraints
    control: sentiment
    options: {{max_labels: 1, required: true}}
    mode: enforce
    actions: [prompt]
  - rule: gold-check
    control: sentiment
    mode: recommend
    actions: [prompt]
  - rule: single-label-overuse
    control: sentiment
    mode: enforce
    actions: [prompt]
"""
ANNOTATORS = 8
PER_TASK = 3
# Every tenth task has an answer in the vault.
GOLD_EVERY = 10


@dataclass(frozen=True, slots=True)
class Measured:
    """One run: all latencies in seconds, ascending, and how long it took in all."""

    latencies: tuple[float, ...]
    seconds: float

    @property
    def rate(self) -> float:
        """Requests per second."""
        return len(self.latencies) / self.seconds

    def quantile(self, share: float) -> float:
        """The latency that this share of the requests stayed within, in milliseconds."""
        return 1000 * self.latencies[min(len(self.latencies) - 1, int(share * len(self.latencies)))]


def bodies(seed: int, count: int, first: int) -> Iterator[bytes]:
    """Deliveries of honest annotators, about 3 KB each like Label Studio's."""
    draw = random.Random(seed)
    for number in range(first, first + count):
        task, turn = divmod(number, PER_TASK)
        right = LABELS[task % len(LABELS)]
        said = right if draw.random() < 0.9 else draw.choice(LABELS)
        user = 101 + (task + turn) % ANNOTATORS
        at = (START + timedelta(seconds=number)).isoformat()
        yield json.dumps(
            {
                "action": "ANNOTATION_CREATED",
                "annotation": {
                    "id": number + 1,
                    "task": task + 1,
                    "project": PROJECT,
                    "result": [
                        {
                            "id": f"r{number}",
                            "from_name": "sentiment",
                            "to_name": "text",
                            "type": "choices",
                            "origin": "manual",
                            "value": {"choices": [said]},
                        }
                    ],
                    "completed_by": user,
                    "updated_by": user,
                    "created_at": at,
                    "updated_at": at,
                    "lead_time": 5.5,
                    "was_cancelled": False,
                    "ground_truth": False,
                },
                "task": {
                    "id": task + 1,
                    "project": PROJECT,
                    "data": {"text": "It came late, but it works. " * 20},
                    "overlap": PER_TASK,
                    "created_at": at,
                    "updated_at": at,
                },
                "project": {
                    "id": PROJECT,
                    "title": "Reviews",
                    "label_config": CONFIG,
                    "expert_instruction": "Judge what the customer feels. " * 40,
                    "maximum_annotations": PER_TASK,
                },
            }
        ).encode()


def floor_app(folder: Path) -> Flask:
    """Parse, insert, commit, answer."""
    app = Flask("floor")
    db = sqlite3.connect(folder / "floor.sqlite3", check_same_thread=False, isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    db.execute("CREATE TABLE inbox (id INTEGER PRIMARY KEY, action TEXT, body TEXT)")
    # SQLite has one writer; waiting in a lock is kinder than its own busy loop.
    lock = threading.Lock()

    @app.post(f"/webhook/{PROJECT}")
    def receive() -> dict[str, int]:
        text = request.get_data(cache=False, as_text=True)
        action = json.loads(text)["action"]
        with lock:
            done = db.execute("INSERT INTO inbox (action, body) VALUES (?, ?)", (action, text))
        return {"delivery": done.lastrowid or 0}

    return app


def labelguard_app(folder: Path) -> Flask:
    """The shipped receiver on a project with three rules and a gold vault."""
    settings = Settings(
        database_url=f"sqlite:///{folder / 'labelguard.sqlite3'}", api_token=SecretStr("unused"), inline_deadline=5
    )

    def clock() -> datetime:
        return datetime.now(UTC)

    store = Store.open(settings.database_url)
    project = Project(id=PROJECT, title="Reviews", label_config=CONFIG)

    def prepare(conn: Any) -> None:
        records.save_project(conn, project, clock())
        records.set_connection(
            conn, PROJECT, connected_at=START, webhook_id=1, webhook_url="", token_hash=hash_token(TOKEN)
        )
        records.add_policy(conn, PROJECT, POLICY, clock())
        for task in range(0, 2000, GOLD_EVERY):
            result = {
                "from_name": "sentiment",
                "to_name": "text",
                "type": "choices",
                "value": {"choices": [LABELS[task % len(LABELS)]]},
            }
            records.add_gold(conn, PROJECT, task + 1, [result], "import:benchmark", clock())

    store.write(prepare)
    engine = Engine(store, clock)
    engine.start()
    return create_app(store, engine, Outbox(store, engine, None, None, clock), None, settings, clock)


APPS: dict[str, Callable[[Path], Flask]] = {"floor": floor_app, "labelguard": labelguard_app}


def serve(name: str, folder: str, pipe: Connection) -> None:
    """Serve one of the two in a process of its own; tells its port through the pipe."""
    # It warns of every request that waits for a thread, which is what sixteen clients are for.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    server = make_server(APPS[name](Path(folder)), Settings(), port=0)
    pipe.send(server.effective_port)
    server.run()


def load(port: int, clients: int, work: list[list[bytes]]) -> Measured:
    """Send each client's deliveries over one kept-alive connection, all clients at once."""
    latencies: list[list[float]] = [[] for _ in range(clients)]
    failures: list[str] = []
    start = threading.Barrier(clients + 1)

    def client(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        headers = {"X-Labelguard-Token": TOKEN, "Content-Type": "application/json"}
        connection.connect()
        start.wait()
        for body in work[number]:
            began = time.perf_counter()
            connection.request("POST", f"/webhook/{PROJECT}", body, headers)
            answer = connection.getresponse()
            said = answer.read()
            latencies[number].append(time.perf_counter() - began)
            if answer.status != 200:
                failures.append(f"{answer.status}: {said[:200]!r}")
        connection.close()

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    start.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - began
    if failures:
        raise SystemExit(f"{len(failures)} deliveries were not taken in; the first was answered {failures[0]}")
    return Measured(tuple(sorted(latency for each in latencies for latency in each)), seconds)


def measure(name: str, clients: int, requests: int) -> Measured:
    """Run one service, warm it up, and measure it."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.get_context("spawn").Process(target=serve, args=(name, folder, theirs), daemon=True)
        process.start()
        stack.callback(process.join, 10)
        stack.callback(process.terminate)
        if not ours.poll(60):
            raise SystemExit(f"The service {name} did not start within a minute.")
        port = ours.recv()
        warm = 50
        load(port, 1, [list(bodies(1, warm, 0))])
        work = list(bodies(2, requests, warm))
        return load(port, clients, [work[number::clients] for number in range(clients)])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Measure the receiver against a bare durable one.")
    parser.add_argument("--requests", type=int, default=1600, help="deliveries for each cell of the table")
    requests = parser.parse_args().requests
    table = Table("service", "clients", "req/s", "p50 ms", "p99 ms", "max ms", "req/s of floor", "p50 of floor")
    for clients in (1, 16):
        found = {name: measure(name, clients, requests) for name in APPS}
        floor = found["floor"]
        for name, run in found.items():
            table.add_row(
                name,
                str(clients),
                f"{run.rate:,.0f}",
                f"{run.quantile(0.5):.2f}",
                f"{run.quantile(0.99):.2f}",
                f"{run.quantile(1):.2f}",
                f"{run.rate / floor.rate:.2f}×",
                f"{run.quantile(0.5) / floor.quantile(0.5):.2f}×",
            )
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
