"""Half an hour at a hundred deliveries a second: does anything grow that should not?

A real ``labelguard serve`` (its own process, its own store) takes deliveries at a steady pace, with annotators'
pages asking for their notes beside them and a Label Studio of few lines behind it in which its actions take
effect. Everything that could grow is looked at every few seconds: memory, open files, threads, the queues and
how old the oldest in each of them is. The pace does not wait for the answers, and a latency counts from the
moment at which the delivery was due, so that a service that stalls looks as slow as it is. While it warms up, the
deliveries of a whole second come at once in the midst of each minute: connections and whatever else is bounded has
been as many as it can be before anything is measured, and what rises from there rises without bound.

Exits with 1 where memory, open files or threads rise, a delivery is not taken in, or a queue is not empty in
the end. Memory counts as flat when its slope after the warm-up (Theil and Sen's: the median of all slopes, which
single jumps do not move) stays below ``--flat`` MiB a minute.
"""

from __future__ import annotations

import argparse
import bisect
import http.client
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import psutil
from rich.console import Console
from rich.table import Table
from scipy.stats import theilslopes

from labelguard.events import Project
from labelguard.manifest import load_manifest
from labelguard.store import Store, records
from labelguard.studio.launch import free_port
from labelguard.tokens import TOKEN_HEADER, hash_token

PROJECT = 3
OWN_USER = 9
TOKEN = "the-token-of-the-soak"  # noqa: S105 - it opens a store that is thrown away
LABELS = ("spam", "important", "refund", "billing")
CONFIG = """<View><Text name="text" value="$text"/><Choices name="topics" toName="text" choice="multiple">
<Choice value="spam"/><Choice value="important"/><Choice value="refund"/><Choice value="billing"/></Choices></View>"""
POLICY = f"""\
project: {PROJECT}
people: {{lead: [ops]}}
limits: {{prompts_per_hour: 100000}}
rules:
  - rule: label-constraints
    control: topics
    options: {{exclusive: [[spam, important]]}}
    mode: enforce
    actions: [prompt, second-opinion, {{notify: lead}}]
  - rule: gold-check
    control: topics
    mode: recommend
    actions: [prompt]
  - rule: single-label-overuse
    control: topics
    mode: recommend
    actions: [prompt]
"""
ANNOTATORS = 8
PER_TASK = 3
WRONG_EVERY = 100
"""Of so many deliveries one breaks a rule, and so causes a note, a second opinion and a message."""
SAMPLE_SECONDS = 5.0
BURST_EVERY = 60.0
"""Seconds between two bursts while it warms up."""
STREAMS = 16
DRAIN_SECONDS = 120.0


# What is annotated: everything follows from an annotation's number, so that nobody has to remember it.


@dataclass(frozen=True, slots=True)
class World:
    """The annotations of one run."""

    began: datetime
    rate: float
    warm: float
    """Minutes for which it warms up."""

    def due(self, number: int) -> float:
        """After how many seconds a delivery is sent."""
        at = number / self.rate
        minute, second = divmod(at, BURST_EVERY)
        burst = BURST_EVERY / 2
        return minute * BURST_EVERY + burst if burst <= second < burst + 1 and at < 60 * self.warm else at

    def at(self, number: int) -> str:
        """When an annotation was saved."""
        return (self.began + timedelta(seconds=number / self.rate)).isoformat()

    def annotator(self, number: int) -> int:
        """Who saved it: another one for each annotation of a task."""
        task, turn = divmod(number, PER_TASK)
        return 101 + (task + turn) % ANNOTATORS

    def annotation(self, number: int) -> dict[str, Any]:
        """One annotation."""
        task = number // PER_TASK
        said = ["spam", "important"] if wrong(number) else [LABELS[(task * 7 + number % 11 // 10) % len(LABELS)]]
        user, at = self.annotator(number), self.at(number)
        return {
            "id": number + 1,
            "task": task + 1,
            "project": PROJECT,
            "result": [
                {
                    "id": f"r{number}",
                    "from_name": "topics",
                    "to_name": "text",
                    "type": "choices",
                    "origin": "manual",
                    "value": {"choices": said},
                }
            ],
            "completed_by": user,
            "updated_by": user,
            "created_at": at,
            "updated_at": at,
            "lead_time": 5.5,
            "was_cancelled": False,
            "ground_truth": False,
        }

    def task(self, number: int) -> dict[str, Any]:
        """The task of an annotation."""
        task = number // PER_TASK
        return {
            "id": task + 1,
            "project": PROJECT,
            "data": {"text": "It came late, but it works. " * 20},
            "overlap": PER_TASK,
            "created_at": self.at(task * PER_TASK),
            "updated_at": self.at(number),
        }

    def delivery(self, number: int) -> bytes:
        """What Label Studio sends when it is saved, about 3 KB."""
        body = {"action": "ANNOTATION_CREATED", "annotation": self.annotation(number), "task": self.task(number)}
        return json.dumps({**body, "project": project()}).encode()


def wrong(number: int) -> bool:
    """Whether an annotation breaks a rule."""
    return number % WRONG_EVERY == 7


def project() -> dict[str, Any]:
    """The project as deliveries carry it."""
    return {
        "id": PROJECT,
        "title": "Mail",
        "label_config": CONFIG,
        "expert_instruction": "Judge what the customer wants. " * 40,
        "maximum_annotations": PER_TASK,
        "skip_queue": "REQUEUE_FOR_OTHERS",
    }


# A Label Studio of few lines


class _Studio(BaseHTTPRequestHandler):
    """Answers what labelguard asks, and counts what it changes."""

    protocol_version = "HTTP/1.1"
    # Headers and body leave in one packet, or the other side's delayed acknowledgement costs 40 ms.
    wbufsize = -1
    disable_nagle_algorithm = True
    world: World
    public_url: str
    overlaps: dict[int, dict[str, Any]]

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class' name
        """Say nothing."""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0].rstrip("/")
        if path == "/api/version":
            self._answer({"release": "1.23.2", "edition": "Community"})
        elif path == "/api/current-user/whoami":
            found = re.search(r"sessionid=user(\d+)", self.headers.get("Cookie") or "")
            self._answer(_person(int(found.group(1)) if found else OWN_USER))
        elif path == "/api/users":
            self._answer([_person(user) for user in (OWN_USER, *range(101, 101 + ANNOTATORS))])
        elif path == f"/api/projects/{PROJECT}":
            self._answer(project())
        elif path == "/api/tasks":
            # Nothing that no delivery told of; what is asked for by name is there.
            asked = json.loads(parse_qs(self.path.partition("?")[2])["query"][0])
            chosen = asked.get("selectedItems", {}).get("included", ())
            self._answer({"tasks": [self._task(task) for task in chosen], "total": len(chosen)})
        elif path == "/api/webhooks":
            self._answer([self._webhook()])
        elif found := re.fullmatch(r"/api/annotations/(\d+)", path):
            self._answer(self.world.annotation(int(found.group(1)) - 1))
        elif found := re.fullmatch(r"/api/tasks/(\d+)", path):
            self._answer(self._task(int(found.group(1))))
        else:
            self._answer({"detail": "Not found."}, 404)

    def do_PATCH(self) -> None:
        body = self._body()
        found = re.fullmatch(r"/api/tasks/(\d+)/?", self.path)
        if found:
            task = int(found.group(1))
            self.overlaps[task] = {**body, "since": time.monotonic()}
            self._answer(self._task(task))
        else:
            self._answer(self._webhook())

    def do_POST(self) -> None:
        self._body()
        self._answer({})

    def _task(self, task: int) -> dict[str, Any]:
        numbers = range((task - 1) * PER_TASK, task * PER_TASK)
        said = [self.world.annotation(number) for number in numbers]
        changed = dict(self.overlaps.get(task, {}))
        # The second opinion comes a minute after it was asked for.
        if time.monotonic() - changed.pop("since", time.monotonic()) > 60:
            said.append({**said[0], "id": 10_000_000 + task, "completed_by": 150, "updated_by": 150})
        return {**self.world.task(numbers[0]), "is_labeled": True, **changed, "annotations": said}

    def _webhook(self) -> dict[str, Any]:
        return {
            "id": 1,
            "organization": 1,
            "project": PROJECT,
            "url": f"{self.public_url}/webhook/{PROJECT}",
            "is_active": True,
            "send_payload": True,
            "send_for_all_actions": False,
            "actions": load_manifest()["events"],
            "headers": {TOKEN_HEADER: TOKEN},
        }

    def _body(self) -> dict[str, Any]:
        text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        found = json.loads(text) if text else {}
        return found if isinstance(found, dict) else {}

    def _answer(self, value: Any, status: int = 200) -> None:
        text = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


def _person(user: int) -> dict[str, Any]:
    return {"id": user, "email": f"user{user}@example.com", "first_name": "User", "last_name": str(user)}


def serve_studio(world: World, public_url: str, pipe: Connection) -> None:
    """Serve it in a process of its own; tells its port through the pipe, and ends with whoever has its other end."""
    _Studio.world, _Studio.public_url, _Studio.overlaps = world, public_url, {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Studio)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    pipe.send(server.server_port)
    with suppress(EOFError):
        pipe.recv()


@contextmanager
def studio(world: World, public_url: str) -> Iterator[str]:
    """The address of a Label Studio."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=serve_studio, args=(world, public_url, theirs), daemon=True
    )
    process.start()
    try:
        if not ours.poll(60):
            raise SystemExit("The stand-in for Label Studio did not start within a minute.")
        yield f"http://127.0.0.1:{ours.recv()}"
    finally:
        process.terminate()
        process.join(10)


# The service


def prepare(database_url: str, began: datetime) -> None:
    """A store with one connected project and its policy."""
    store = Store.open(database_url)

    def connect(conn: Any) -> None:
        about = Project(PROJECT, "Mail", CONFIG, project()["expert_instruction"], PER_TASK)
        records.save_project(conn, about, began)
        records.set_connection(
            conn, PROJECT, connected_at=began, webhook_id=1, webhook_url=None, token_hash=hash_token(TOKEN)
        )
        records.add_policy(conn, PROJECT, POLICY, began)
        for task in range(1, 20_000, 10):
            right = {"from_name": "topics", "to_name": "text", "type": "choices"}
            value = {"choices": [LABELS[(task - 1) * 7 % len(LABELS)]]}
            records.add_gold(conn, PROJECT, task, [{**right, "value": value}], "import:soak", began)

    store.write(connect)
    store.close()


@contextmanager
def service(folder: Path, port: int, database_url: str, studio_url: str) -> Iterator[psutil.Process]:
    """A running ``labelguard serve``."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith("LABELGUARD_")}
    environment = {
        **mine,
        "LABELGUARD_DATABASE_URL": database_url,
        "LABELGUARD_PORT": str(port),
        "LABELGUARD_PUBLIC_URL": f"http://127.0.0.1:{port}",
        "LABELGUARD_STUDIO_URL": studio_url,
        "LABELGUARD_STUDIO_API_KEY": "0" * 40,
        "LABELGUARD_API_TOKEN": "the-api-token-of-the-soak",
        "LABELGUARD_SECRET_KEY": "the key of the soak",
        "LABELGUARD_NOTIFY_OPS": studio_url.replace("http://", "json://") + "/notify",
    }
    command = [sys.executable, "-c", "from labelguard.cli import main; main()", "serve"]
    with (folder / "service.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)
    try:
        for _ in range(600):
            if process.poll() is not None:
                raise SystemExit((folder / "service.log").read_text()[-2000:])
            try:
                ask(port, "/healthz")
                break
            except OSError:
                time.sleep(0.1)
        yield psutil.Process(process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()


def ask(port: int, path: str) -> str:
    """GET something from the service."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    finally:
        connection.close()


# The load


@dataclass
class Load:
    """What was sent and answered so far."""

    sent: int = 0
    taken: int = 0
    shown: int = 0
    pages: int = 0
    refused: list[str] = field(default_factory=list)
    minute: list[float] = field(default_factory=list)
    """Latencies since the last row of the table, in seconds from when each was due."""
    all: list[float] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def next(self) -> int:
        """The number of the next delivery."""
        with self.lock:
            self.sent += 1
            return self.sent - 1

    def answered(self, status: int, said: bytes, seconds: float) -> None:
        """Note one answer."""
        with self.lock:
            self.minute.append(seconds)
            bisect.insort(self.all, round(seconds, 4))
            if status == 200:
                self.taken += 1
            else:
                self.refused.append(f"{status}: {said[:200]!r}")


def deliver(load: Load, world: World, port: int, start: float, count: int) -> None:
    """Send deliveries at their times over one connection, as many of these threads do.

    When the time is over, what could not be sent is not sent any more.
    """
    end = start + count / world.rate
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {TOKEN_HEADER: TOKEN, "Content-Type": "application/json"}
    while time.monotonic() < end and (number := load.next()) < count:
        due = start + world.due(number)
        body = world.delivery(number)
        time.sleep(max(0.0, due - time.monotonic()))
        try:
            connection.request("POST", f"/webhook/{PROJECT}", body, headers)
            answer = connection.getresponse()
            said = answer.read()
            load.answered(answer.status, said, time.monotonic() - due)
        except (OSError, http.client.HTTPException) as error:
            load.answered(0, repr(error).encode(), time.monotonic() - due)
            connection.close()
    connection.close()


def read_notes(load: Load, world: World, port: int, stopping: threading.Event) -> None:
    """Be the annotators' pages: ask for the notes of what was just saved, and answer them."""
    sessions: dict[int, str] = {}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def call(method: str, path: str, headers: dict[str, str], body: Any = None) -> Any:
        text = json.dumps(body).encode() if body is not None else None
        connection.request(method, path, text, {**headers, "Content-Type": "application/json"})
        answer = connection.getresponse()
        said = json.loads(answer.read() or b"{}")
        if answer.status != 200:
            raise OSError(f"{path} answered {answer.status}: {said}")
        return said

    asked = -1
    while not stopping.wait(0.1):
        # The newest that broke a rule, and otherwise just the newest but a few.
        newest = load.sent - 20
        broken = newest - (newest - 7) % WRONG_EVERY
        number = broken if broken > asked else newest
        if number < 0:
            continue
        asked = max(asked, broken)
        user = world.annotator(number)
        try:
            if user not in sessions:
                cookie = {"Cookie": f"sessionid=user{user}", "Sec-Fetch-Site": "same-origin"}
                sessions[user] = call("POST", "/page/v1/session", cookie, {"project": PROJECT})["token"]
            mine = {"X-Labelguard-Session": sessions[user]}
            query = f"project={PROJECT}&annotation={number + 1}"
            for prompt in call("GET", f"/page/v1/prompts?{query}", mine)["prompts"]:
                call("POST", f"/page/v1/prompts/{prompt['id']}/seen", mine, {})
                call("POST", f"/page/v1/prompts/{prompt['id']}/acknowledge", mine, {})
                load.shown += 1
            load.pages += 1
        except (OSError, http.client.HTTPException, KeyError, ValueError) as error:
            load.refused.append(f"page: {error!r}")
            connection.close()
    connection.close()


# The look at it


@dataclass(frozen=True, slots=True)
class Sample:
    """What could grow, at one moment."""

    minutes: float
    memory: float
    files: int
    threads: int
    store: float
    pending: float
    oldest: float
    due: float
    effects: float


def whole(process: psutil.Process) -> list[psutil.Process]:
    """The service's processes: the one that speaks HTTP, and its engine's."""
    return [process, *process.children(recursive=True)]


def processor_time(process: psutil.Process) -> float:
    """Seconds of a core that the service has taken."""
    return sum(sum(each.cpu_times()[:2]) for each in whole(process))


def look(process: psutil.Process, port: int, store: Path | None, minutes: float) -> Sample:
    """Take one sample."""
    found: dict[str, float] = {}
    for line in ask(port, "/metrics").splitlines():
        if not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            found[name] = float(value)
    stored = found.get("labelguard_store_bytes", 0.0)
    if store is not None:
        stored += sum(file.stat().st_size for file in store.parent.glob(store.name + "-wal"))
    return Sample(
        minutes,
        memory=sum(each.memory_info().rss for each in whole(process)) / 2**20,
        files=sum(each.num_fds() for each in whole(process)),
        threads=sum(each.num_threads() for each in whole(process)),
        store=stored / 2**20,
        pending=found["labelguard_pending"],
        oldest=found["labelguard_pending_oldest_seconds"],
        due=max((v for k, v in found.items() if k.startswith("labelguard_outbox_oldest_seconds")), default=0.0),
        effects=sum(v for k, v in found.items() if k.startswith("labelguard_effect_seconds_count")),
    )


COLUMNS = (
    "minute", "taken", "p50 ms", "p99 ms", "max ms", "notes", "effects", "pending", "oldest s", "due s", "RSS MiB",
    "files", "threads", "store MiB", "CPU %",
)  # fmt: skip


def row(load: Load, sample: Sample, cpu: float) -> list[str]:
    """One minute of the table."""
    with load.lock:
        latencies, load.minute = sorted(load.minute), []

    def quantile(share: float) -> str:
        return f"{1000 * latencies[min(len(latencies) - 1, int(share * len(latencies)))]:.1f}" if latencies else "-"

    return [
        f"{sample.minutes:.1f}", f"{load.taken:,}", quantile(0.5), quantile(0.99), quantile(1), f"{load.shown:,}",
        f"{sample.effects:,.0f}", f"{sample.pending:,.0f}", f"{sample.oldest:.1f}", f"{sample.due:.1f}",
        f"{sample.memory:.1f}", str(sample.files), str(sample.threads), f"{sample.store:.1f}", f"{cpu:.0f}",
    ]  # fmt: skip


def verdict(samples: list[Sample], load: Load, received: float, planned: int, warm: float, flat: float) -> list[str]:
    """What is wrong, as sentences; says what was measured."""
    after = [sample for sample in samples if sample.minutes >= warm]
    problems = []
    if len(after) < 10:
        return ["The run was too short to tell anything."]
    times = [sample.minutes for sample in after]
    slope, _, low, high = theilslopes([sample.memory for sample in after], times)
    print(
        f"Memory after {warm:.1f} minutes: {after[0].memory:.1f} MiB, in the end {after[-1].memory:.1f} MiB; "
        f"{slope:+.3f} MiB a minute (95%: {low:+.3f} to {high:+.3f}), allowed {flat:+.3f}."
    )
    if slope > flat:
        problems.append(f"Memory grows by {slope:.3f} MiB a minute.")
    for name in ("files", "threads"):
        rise, *_ = theilslopes([getattr(sample, name) for sample in after], times)
        most = max(getattr(sample, name) for sample in after)
        print(f"Open {name}: at most {most}, {rise:+.3f} a minute.")
        if rise > 0.1:
            problems.append(f"The number of {name} grows by {rise:.2f} a minute.")
    if load.taken < 0.99 * planned:
        problems.append(f"Only {load.taken:,} of {planned:,} deliveries could be sent in time.")
    print(f"Received {received:,.0f}, answered with 200 {load.taken:,}, pages answered {load.pages:,}.")
    if load.refused:
        problems.append(f"{len(load.refused)} requests were not answered with 200, the first: {load.refused[0]}")
    if received < load.taken:
        problems.append(f"{load.taken - received:,.0f} deliveries that were answered are not in the store.")
    last = samples[-1]
    if last.pending or last.due > DRAIN_SECONDS:
        problems.append(f"In the end {last.pending:,.0f} deliveries wait, and an action since {last.due:.0f} s.")
    return problems


def run(minutes: float, rate: float, database_url: str | None, flat: float, keep: Path | None) -> list[str]:
    """The whole run; returns what is wrong."""
    with ExitStack() as stack:
        folder = keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="labelguard-soak-")))
        folder.mkdir(parents=True, exist_ok=True)
        store = folder / "labelguard.sqlite3" if database_url is None else None
        url = database_url or f"sqlite:///{store}"
        world = World(datetime.now(UTC), rate, warm=min(10.0, 0.3 * minutes))
        prepare(url, world.began)
        port = free_port()
        process = stack.enter_context(
            service(folder, port, url, stack.enter_context(studio(world, f"http://127.0.0.1:{port}")))
        )
        load, stopping, count = Load(), threading.Event(), int(60 * minutes * rate)
        start = time.monotonic() + 1
        threads = [
            threading.Thread(target=deliver, args=(load, world, port, start, count), daemon=True)
            for _ in range(STREAMS)
        ]
        page = threading.Thread(target=read_notes, args=(load, world, port, stopping), daemon=True)
        for thread in (*threads, page):
            thread.start()
        samples: list[Sample] = []
        table = Table(*COLUMNS)
        used, at = processor_time(process), time.monotonic()
        print(" | ".join(COLUMNS), flush=True)

        def note() -> None:
            nonlocal used, at
            before, began = used, at
            used, at = processor_time(process), time.monotonic()
            cells = row(load, samples[-1], 100 * (used - before) / (at - began))
            table.add_row(*cells)
            print(" | ".join(cells), flush=True)

        while any(thread.is_alive() for thread in threads):
            time.sleep(SAMPLE_SECONDS)
            samples.append(look(process, port, store, (time.monotonic() - start) / 60))
            if samples[-1].minutes >= len(table.rows) + 1:
                note()
        stopping.set()
        page.join()
        ended = time.monotonic()
        while time.monotonic() - ended < DRAIN_SECONDS:
            samples.append(look(process, port, store, (time.monotonic() - start) / 60))
            if not samples[-1].pending and samples[-1].due < SAMPLE_SECONDS:
                break
            time.sleep(1)
        note()
        found = re.search(r"^labelguard_received_total (\S+)", ask(port, "/metrics"), re.MULTILINE)
        received = float(found.group(1)) if found else 0.0
        Console(width=150).print(table)
        quantiles = [1000 * load.all[int(share * (len(load.all) - 1))] for share in (0.5, 0.9, 0.99, 0.999, 1)]
        print("Latency from when due, p50/p90/p99/p99.9/max in ms: " + " / ".join(f"{q:.1f}" for q in quantiles))
        return verdict(samples, load, received, count, world.warm, flat)


def main() -> None:
    """Run, print, and exit with 1 where something grew."""
    parser = argparse.ArgumentParser(description="Soak a labelguard: a steady load, and nothing may grow.")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--rate", type=float, default=100, help="deliveries a second")
    parser.add_argument("--database-url", help="an empty store elsewhere, such as a PostgreSQL's")
    parser.add_argument("--flat", type=float, default=0.25, help="MiB a minute that memory may seem to rise")
    parser.add_argument("--keep", type=Path, help="put store and log into this folder and leave them there")
    given = parser.parse_args()
    problems = run(given.minutes, given.rate, given.database_url, given.flat, given.keep)
    for problem in problems:
        print(problem)
    print("Not flat." if problems else "Flat.")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
