"""Several processes over one store in PostgreSQL: they share the work, and one keeps the schedule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import requests

from databases import database_url
from deliveries import PROJECT, annotation, created
from guarded import guarded
from labelguard.studio.launch import free_port
from processes import soon, start

WRONG = ("spam", "important")


def deliver(url: str, number: int) -> bool:
    """Deliver a wrong annotation; whether it was taken in."""
    try:
        return requests.post(
            f"{url}/webhook/{PROJECT}",
            json=created(annotation(number, *WRONG, task=number)),
            headers={"X-Labelguard-Token": "a-token"},
            timeout=20,
        ).ok
    except requests.RequestException:
        return False


def ready(url: str) -> bool:
    """Whether a process can work."""
    try:
        return requests.get(f"{url}/readyz", timeout=10).ok
    except requests.RequestException:
        return False


@pytest.mark.slow
@pytest.mark.store("postgresql")
def test_webs_and_workers_share_the_work_and_lose_nothing_when_some_are_killed(tmp_path: Path) -> None:
    """What one took in and could not judge any more, another judges; nothing is judged twice."""
    shared: dict[str, Any] = {"database_url": database_url(tmp_path), "secret_key": "the same for all"}
    with guarded(tmp_path) as world:
        world.let_in("a-token")
        # All at once: only one of them can bring the schema up to date, the others wait for it.
        webs = [start("web", tmp_path, wait=False, **shared) for _ in range(2)]
        worker = start("worker", tmp_path, wait=False, **shared)
        running = [*webs, worker]
        try:
            assert all(soon(lambda web=web: deliver(web.url, 1), 240) for web in webs)  # type: ignore[misc]
            taken = [n for n in range(2, 30) if deliver(webs[n % 2].url, n)]
            assert len(taken) == 28
            assert soon(lambda: ready(worker.url), 240)
            webs[0].kill()
            worker.kill()
            taken += [n for n in range(30, 40) if deliver(webs[1].url, n)]

            def found() -> list[int]:
                return sorted(finding["annotation"] for finding in world.findings())

            assert soon(lambda: len(found()) >= 1 + len(taken), 240)
            assert found() == [1, *taken]
            assert webs[1].stop() == 0, webs[1].said()
        finally:
            for process in running:
                process.kill()


@pytest.mark.slow
@pytest.mark.store("postgresql")
def test_when_the_worker_with_the_schedule_is_killed_another_takes_it_over(tmp_path: Path) -> None:
    """Nothing has to be done by hand; the jobs it was at are marked as lost."""
    shared: dict[str, Any] = {
        "database_url": database_url(tmp_path),
        "studio_url": f"http://127.0.0.1:{free_port()}",
        "studio_api_key": "of nobody",
        "election_seconds": 0.5,
    }
    with guarded(tmp_path):
        workers = [start("worker", tmp_path, **shared)]
        try:
            assert soon(lambda: "schedule_taken" in workers[0].said(), 240)
            workers.append(start("worker", tmp_path, **shared))
            workers[0].kill()
            assert soon(lambda: "schedule_taken" in workers[1].said(), 240)
            assert workers[1].stop() == 0, workers[1].said()
        finally:
            for process in workers:
                process.kill()


@pytest.mark.store("sqlite")
@pytest.mark.parametrize("kind", ["web", "worker"])
def test_a_store_in_sqlite_is_for_one_process(tmp_path: Path, kind: str) -> None:
    """The sentence says what to run instead."""
    process = start(kind, tmp_path, wait=False, database_url=database_url(tmp_path), secret_key="k")
    assert process.process.wait(240) == 2
    assert process.said() == (
        f"`labelguard {kind}` works side by side with other processes, which a store in SQLite cannot: run "
        "`labelguard serve`, which does everything by itself, or set LABELGUARD_DATABASE_URL to a PostgreSQL "
        "database.\n"
    )


@pytest.mark.store("postgresql")
def test_webs_need_a_common_key(tmp_path: Path) -> None:
    """Made at random, each would have another, and a session would hold on one of them only."""
    process = start("web", tmp_path, wait=False, database_url=database_url(tmp_path))
    assert process.process.wait(240) == 2
    assert process.said() == (
        "Set LABELGUARD_SECRET_KEY to the same long random text for every `labelguard web`: what one signs, the "
        "others must be able to read.\n"
    )
