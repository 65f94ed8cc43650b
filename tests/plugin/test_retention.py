"""How long things are kept: raw deliveries go, what was made of them stays."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from databases import SQLITE
from deliveries import NOW, PROJECT, annotation, created
from fakestudio import FakeStudio
from guarded import Guarded, guarded
from labelguard import retention
from labelguard.cli import run_command
from labelguard.events import Event
from labelguard.outbox import Outbox
from labelguard.retention import Pruned, prune
from labelguard.schedule import Jobs
from labelguard.settings import Settings
from labelguard.store import records, schema

WRONG = ("spam", "important")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Guarded]:
    """A labelguard with a policy."""
    with guarded(tmp_path) as made:
        yield made


def let_go(world: Guarded, days: int = 30) -> Pruned:
    """Prune now."""
    return prune(world.store, days, clock=world.clock)


def rows(world: Guarded, table: sa.Table, *columns: str) -> list[Any]:
    """Columns of all rows."""
    with world.store.read() as conn:
        query = sa.select(*(table.c[name] for name in columns)).order_by(*table.primary_key)
        return [row[0] if len(columns) == 1 else tuple(row) for row in conn.execute(query)]


def bodies(world: Guarded) -> list[bool]:
    """Which deliveries have a body, in their order."""
    return [bool(body) for body in rows(world, schema.inbox, "body")]


def test_old_bodies_go_and_all_that_was_made_of_them_stays(world: Guarded) -> None:
    """Judgments, versions and findings can still be explained and counted."""
    tables = (schema.annotation_versions, schema.judgments, schema.findings, schema.actions, schema.annotations)
    world.take(created(annotation(11, *WRONG)))
    world.clock.move(days=20)
    world.take(created(annotation(12, *WRONG, task=8, created=world.clock())))
    before = [rows(world, table, *table.c.keys()) for table in tables]
    world.clock.move(days=11)
    done = let_go(world)

    assert done == Pruned(bodies=1)
    assert bodies(world) == [False, True]
    assert [rows(world, table, *table.c.keys()) for table in tables] == before
    assert let_go(world) == Pruned()


def test_a_redelivery_is_still_known_after_its_body_went(world: Guarded) -> None:
    """The digest stays."""
    first = world.take(created(annotation(11, *WRONG)))
    world.clock.move(days=31)
    let_go(world)
    again = world.take(created(annotation(11, *WRONG)))

    assert (again.duplicate, again.delivery) == (True, first.delivery)
    assert len(world.findings()) == 1


def test_what_could_not_be_processed_keeps_its_body_until_it_is(world: Guarded) -> None:
    """However old it is; then it goes too."""
    for number in (11, 12, 13):
        world.take(created(annotation(number, "spam", task=number)))
    failed = schema.inbox.c.id == 2
    world.store.write(lambda conn: conn.execute(sa.update(schema.inbox).where(failed).values(state="failed")))
    world.clock.move(days=31)
    assert let_go(world).bodies == 2
    assert bodies(world) == [False, True, False]

    world.engine.retry_failed()
    world.engine.process_pending()
    assert let_go(world).bodies == 1
    assert bodies(world) == [False, False, False]


def test_pruning_walks_on_in_small_steps(world: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backlog larger than one transaction takes, and a crash after the first of them."""
    monkeypatch.setattr(retention, "BATCH", 3)
    for number in range(1, 11):
        world.take(created(annotation(number, "spam", task=number)))
    world.clock.move(days=31)
    world.take(created(annotation(11, "spam", task=11, created=world.clock())))
    writes: list[object] = []
    write = world.store.write

    def crash(job: Any) -> Any:
        writes.append(job)
        if len(writes) == 3:
            raise KeyboardInterrupt
        return write(job)

    with monkeypatch.context() as patched:
        patched.setattr(world.store, "write", crash)
        with pytest.raises(KeyboardInterrupt):
            let_go(world)
    assert bodies(world).count(False) == 6
    assert let_go(world).bodies == 4
    assert bodies(world) == [False] * 10 + [True]


def test_tasks_that_were_deleted_lose_their_data_and_what_rules_remembered(world: Guarded) -> None:
    """Others of the same project keep both, one deleted lately too."""

    def remember(conn: sa.Connection) -> None:
        for subject in ("task:7", "task:7:topics", "task:8:topics", "task:77", "annotator:7", "task:9"):
            values = {"project": PROJECT, "rule": "a", "subject": subject, "state": {"n": 1}, "updated_at": NOW}
            conn.execute(sa.insert(schema.rule_states).values(values))

    for number in (7, 8, 9):
        world.take(created(annotation(number, "spam", task=number)))
    world.store.write(remember)
    world.store.write(lambda conn: records.mark_tasks_deleted(conn, PROJECT, [7], NOW))
    world.clock.move(days=31)
    world.store.write(lambda conn: records.mark_tasks_deleted(conn, PROJECT, [9], world.clock()))
    done = let_go(world)

    assert (done.tasks, done.memories) == (1, 2)
    assert [bool(data) for data in rows(world, schema.tasks, "data")] == [False, True, True]
    subjects = sorted(subject for rule, subject in rows(world, schema.rule_states, "rule", "subject") if rule == "a")
    assert subjects == ["annotator:7", "task:77", "task:8:topics", "task:9"]
    assert let_go(world).tasks == 0


def test_old_refusals_and_records_of_jobs_go(world: Guarded) -> None:
    """But for the last success of each job, which monitoring asks for."""

    def run(at: datetime, job: str, project: int | None, error: str | None = None) -> None:
        def job_run(conn: sa.Connection) -> None:
            records.finish_job(conn, records.start_job(conn, job, project, at), at, error=error)

        world.store.write(job_run)

    for day in range(3):
        run(NOW + timedelta(days=day), "audit", PROJECT)
        run(NOW + timedelta(days=day), "prune", None)
    run(NOW + timedelta(days=4), "audit", PROJECT, "Label Studio did not answer.")
    run(NOW, "sweeps", PROJECT)
    world.engine.reject(PROJECT, "too odd", 3)
    world.clock.move(days=100)
    world.engine.reject(PROJECT, "odd again", 3)
    done = let_go(world)

    assert (done.rejected, done.runs) == (1, 5)
    assert rows(world, schema.rejected, "reason") == ["odd again"]
    assert sorted(rows(world, schema.job_runs, "job", "state")) == [
        ("audit", "done"), ("prune", "done"), ("sweeps", "done"),
    ]  # fmt: skip


def test_the_schedule_prunes_for_the_whole_store(world: Guarded) -> None:
    """Recorded like every job, and without a project."""
    world.take(created(annotation(11, "spam")))
    world.clock.move(days=31)
    studio = FakeStudio()
    outbox = Outbox(world.store, world.engine, studio, None, world.clock)
    jobs = Jobs(world.store, world.engine, outbox, studio, None, Settings(raw_days=30), world.clock)

    assert jobs.run("prune", None) == {"bodies": 1, "tasks": 0, "memories": 0, "rejected": 0, "runs": 0}
    with world.store.read() as conn:
        (ran,) = records.last_runs(conn, "prune")
    assert (ran["state"], ran["project"]) == ("done", None)


@pytest.mark.store(SQLITE)
def test_the_command_prunes_and_gives_the_space_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Space inside the file is used again; on the disk it comes back where the service is stopped."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LABELGUARD_DATABASE_URL", f"sqlite:///{tmp_path / 'labelguard.sqlite3'}")
    with guarded(tmp_path) as world:
        for number in range(1, 41):
            body = created(annotation(number, "spam", task=number))
            body["task"]["data"]["text"] = f"{number} " * 4000
            world.engine.receive(PROJECT, Event.from_delivery({}, body))
        world.engine.process_pending()
        assert run_command(["prune", "--compact"]) == 1
        assert "Stop labelguard first" in capfd.readouterr().err
    with closing(sqlite3.connect(tmp_path / "labelguard.sqlite3")) as conn:
        conn.execute("UPDATE inbox SET received_at = '2020-01-01 00:00:00.000000'")
        conn.execute("DELETE FROM cursors WHERE name LIKE 'prune:%'")
        conn.commit()
    before = (tmp_path / "labelguard.sqlite3").stat().st_size

    assert run_command(["prune", "--compact"]) == 0
    assert capfd.readouterr().out.startswith("bodies            40\n")
    assert (tmp_path / "labelguard.sqlite3").stat().st_size < 0.8 * before
