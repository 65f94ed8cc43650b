"""The engine's own process: what it judges, and that nothing depends on it."""

from __future__ import annotations

import json
import re
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from databases import database_url
from deliveries import PROJECT, annotation, created
from guarded import Guarded, guarded
from processes import Process, soon, start

pytestmark = pytest.mark.slow

WRONG = ("spam", "important")
TOKEN = "a-token"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Guarded]:
    """A store with a connected project, beside the process that serves it."""
    with guarded(tmp_path) as made:
        made.let_in(TOKEN)
        yield made


@contextmanager
def serving(folder: Path, **settings: Any) -> Iterator[Process]:
    """A running ``labelguard serve`` whose engine's process takes requests."""
    # The first delivery finds everything cold, on a busy machine for longer than an annotator is kept waiting.
    process = start("serve", folder, database_url=database_url(folder), **{"inline_deadline": 5, **settings})
    try:
        assert soon(lambda: numbers(process).get("labelguard_engine_process_up") == 1, 120), process.said()
        yield process
    finally:
        process.kill()


def numbers(process: Process) -> dict[str, float]:
    """What ``/metrics`` tells."""
    text = requests.get(f"{process.url}/metrics", timeout=20).text
    lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


def engine_of(process: Process) -> psutil.Process:
    """The process in which deliveries are judged: it has no children of its own."""
    (found,) = [each for each in psutil.Process(process.process.pid).children(recursive=True) if not each.children()]
    return found


def post(process: Process, body: bytes | str, project: int = PROJECT) -> requests.Response:
    """Deliver a body."""
    return requests.post(
        f"{process.url}/webhook/{project}", data=body, headers={"X-Labelguard-Token": TOKEN}, timeout=30
    )


def deliver(process: Process, number: int, *labels: str) -> requests.Response:
    """Deliver an annotation."""
    return post(process, json.dumps(created(annotation(number, *labels, task=number))))


def judged(process: Process) -> float:
    """How many deliveries the rules were done with, in whichever process."""
    return numbers(process).get('labelguard_judgment_seconds_count{outcome="done"}', 0.0)


def test_a_delivery_is_judged_there_before_it_is_answered(world: Guarded, tmp_path: Path) -> None:
    """The finding is there with the answer, and the numbers of both processes are told as one."""
    with serving(tmp_path) as process:
        answer = deliver(process, 1, *WRONG)
        assert answer.status_code == 200
        assert answer.json() == {"delivery": 1, "duplicate": False, "processed": True}
        assert [finding["annotation"] for finding in world.findings()] == [1]
        assert deliver(process, 1, *WRONG).json() == {"delivery": 1, "duplicate": True, "processed": True}
        told = numbers(process)
        assert told['labelguard_judgment_seconds_count{outcome="done"}'] == 1
        assert told['labelguard_deliveries_total{action="ANNOTATION_CREATED",judged="inline"}'] == 1
        assert told["labelguard_engine_process_resident_memory_bytes"] > 10e6
        # What it says of the log is what the web's process would have said.
        assert "finding_made" in process.said()
        assert process.stop() == 0, process.said()


def test_who_reads_finds_what_was_answered(world: Guarded, tmp_path: Path) -> None:
    """A delivery that leads to nothing is written after its answer, and before anybody looks."""
    with serving(tmp_path) as process:
        for number in range(1, 30):
            assert deliver(process, number, "spam").json()["processed"]
            assert numbers(process)["labelguard_pending"] == 0
    assert len(world.annotations()) == 29


def test_what_is_wrong_is_answered_and_counted_as_without_it(world: Guarded, tmp_path: Path) -> None:
    """The sentences are the same, and the connection that brought it is of use afterwards."""
    with serving(tmp_path) as process:
        malformed = post(process, "{")
        assert malformed.status_code == 400
        assert malformed.json()["error"].startswith("The body is not JSON")
        elsewhere = {"action": "PROJECT_UPDATED", "project": {"id": PROJECT + 1, "title": "Mail"}}
        answer = post(process, json.dumps(elsewhere))
        assert answer.status_code == 400
        assert answer.json()["error"] == (
            f"The delivery is about project {PROJECT + 1}, but came to project {PROJECT}'s address."
        )
        told = numbers(process)
        assert told['labelguard_refused_total{reason="malformed"}'] == 1
        assert told['labelguard_refused_total{reason="other_project"}'] == 1
        assert told["labelguard_rejected_total"] == 2
        large = created(annotation(2, *WRONG, task=2))
        large["task"]["data"]["text"] = "x" * 3_000_000
        assert post(process, json.dumps(large)).json()["processed"] in (True, False)
        assert soon(lambda: [finding["annotation"] for finding in world.findings()] == [2])


@pytest.mark.crash
def test_nothing_is_lost_and_nothing_judged_twice_when_it_is_killed(world: Guarded, tmp_path: Path) -> None:
    """The web's process judges meanwhile, says that it is slower, and has the next one within seconds."""
    with serving(tmp_path) as process:
        over = threading.Event()
        counts: list[float] = []

        def watch() -> None:
            while not over.wait(0.05):
                counts.append(judged(process))

        watching = threading.Thread(target=watch)
        watching.start()
        with ThreadPoolExecutor(4) as pool:
            answers = pool.map(lambda n: deliver(process, n, *WRONG).status_code, range(1, 241))
            for _ in range(3):
                assert soon(lambda: numbers(process).get("labelguard_engine_process_up") == 1, 60)
                engine_of(process).kill()
                assert soon(lambda: numbers(process)["labelguard_engine_process_up"] == 0)
                assert requests.get(f"{process.url}/readyz", timeout=20).json()["degraded"]
            assert list(answers) == [200] * 240
        assert soon(lambda: numbers(process)["labelguard_pending"] == 0)
        assert soon(lambda: numbers(process).get("labelguard_engine_process_up") == 1)
        over.set()
        watching.join()
        assert sorted(finding["annotation"] for finding in world.findings(limit=1000)) == list(range(1, 241))
        assert {state for _, state in world.inbox()} == {"done"}
        assert counts == sorted(counts), "a counter went back"
        assert len(re.findall("engine_process_ended", process.said())) == 3
        assert "Traceback" not in process.said()
        assert process.stop() == 0, process.said()


@pytest.mark.crash
def test_a_process_that_hangs_holds_nobody_up(world: Guarded, tmp_path: Path) -> None:
    """What it does not answer in time is kept without it, and judged once, by whoever comes to it first."""
    with serving(tmp_path, inline_deadline=0.3) as process:
        assert deliver(process, 1, *WRONG).json()["processed"]
        engine = engine_of(process)
        engine.suspend()
        for number in range(2, 6):
            answer = deliver(process, number, *WRONG)
            assert answer.status_code == 200
            assert not answer.json()["duplicate"]
            assert answer.elapsed.total_seconds() < 5
        engine.resume()
        assert soon(lambda: len(world.findings()) == 5)
        assert sorted(finding["annotation"] for finding in world.findings()) == [1, 2, 3, 4, 5]
        assert soon(lambda: {state for _, state in world.inbox()} == {"done"})
        assert len(world.inbox()) == 5


@pytest.mark.crash
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_it_ends_with_the_process_that_started_it(world: Guarded, tmp_path: Path, how: signal.Signals) -> None:
    """However that ends; what was answered is there for the next one."""
    with serving(tmp_path) as process:
        assert deliver(process, 1, "spam").json()["processed"]
        beside = psutil.Process(process.process.pid).children(recursive=True)
        assert len(beside) == 2
        process.process.send_signal(how)
        process.process.wait(60)
        assert psutil.wait_procs(beside, 30)[1] == []
    world.engine.process_pending()
    assert world.inbox() == [("ANNOTATION_CREATED", "done")]
    assert len(world.annotations()) == 1


@pytest.mark.crash
def test_without_whoever_starts_it_again_the_service_goes_on(world: Guarded, tmp_path: Path) -> None:
    """Both processes beside the web's are killed: everything is judged in the web's, and it says so."""
    with serving(tmp_path) as process:
        for each in psutil.Process(process.process.pid).children(recursive=True):
            each.kill()
        assert soon(lambda: numbers(process)["labelguard_engine_process_up"] == 0)
        assert deliver(process, 1, *WRONG).json()["processed"]
        assert [finding["annotation"] for finding in world.findings()] == [1]
        said = requests.get(f"{process.url}/readyz", timeout=20)
        assert said.status_code == 200
        assert said.json()["checks"]["engine_process"]["problem"].startswith("The engine's own process is not there")
        assert process.stop() == 0, process.said()


def test_it_can_be_done_without(world: Guarded, tmp_path: Path) -> None:
    """A setting says so, for a machine that is short of memory."""
    process = start("serve", tmp_path, database_url=database_url(tmp_path), inline_deadline=5, engine_process="false")
    try:
        assert deliver(process, 1, *WRONG).json()["processed"]
        assert psutil.Process(process.process.pid).children() == []
        assert numbers(process)["labelguard_engine_process_up"] == 1
        assert "labelguard_engine_process_resident_memory_bytes" not in numbers(process)
        assert process.stop() == 0, process.said()
    finally:
        process.kill()
