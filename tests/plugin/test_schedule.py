"""The schedule: what was missed is caught up, what fails is recorded and reported once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from bundles import install
from databases import end_sessions
from deliveries import BEN, NOW, PROJECT, annotation, at, created
from fakestudio import FakeNotifier, FakeStudio
from guarded import Guarded, guarded, policy
from labelguard import registry
from labelguard.connectors import ConnectorError
from labelguard.events import Project
from labelguard.outbox import Outbox
from labelguard.schedule import ElectedSchedule, Jobs, Schedule, UnknownSweep, last_occurrence, nightly_time, run_sweeps
from labelguard.settings import Settings
from labelguard.store import records, schema
from processes import soon

OTHER = 4

SWEEPS = '''
    from dataclasses import dataclass
    from labelguard import Finding, Sweep, option

    @dataclass(frozen=True)
    class Everybody(Sweep):
        """A finding about everybody who said anything, and one about every task."""

        name = "everybody"

        def sweep(self, context):
            frame = context.judgments()
            for annotator in sorted(set(frame["annotator"])):
                yield Finding(f"{context.annotator_name(annotator)} was here.", annotator=int(annotator))
            for task in sorted(set(frame["task"])):
                yield Finding(f"Task {task}.", task=int(task))

    @dataclass(frozen=True)
    class Fails(Sweep):
        """Raises half-way."""

        name = "fails"

        def sweep(self, context):
            yield Finding("Never kept, since the rest is not known.")
            raise ZeroDivisionError("no data")

    RULES = (Everybody, Fails)
'''
TEXT = policy("  - rule: fails\n", "  - rule: everybody\n    mode: enforce\n    actions: [prompt]\n")


@dataclass
class World:
    """A labelguard with the scheduled jobs over a Label Studio that fails on demand."""

    guard: Guarded
    studio: FakeStudio
    notifier: FakeNotifier
    jobs: Jobs

    def runs(self) -> list[tuple[str, int, str]]:
        """(job, project, state) of every run, oldest first."""
        with self.guard.store.read() as conn:
            return [(r["job"], r["project"], r["state"]) for r in reversed(records.recent_jobs(conn, 100))]

    def sweep(self) -> dict[str, list[int]]:
        """Run the sweeps now."""
        return run_sweeps(self.guard.store, self.guard.engine, PROJECT, now=self.guard.clock())


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[World]:
    """Two submissions by two people, under a policy with two sweeps."""
    install(monkeypatch, tmp_path / "bundle", SWEEPS, name="test-rules")
    with guarded(tmp_path, TEXT) as guard:
        studio, notifier = FakeStudio(), FakeNotifier()
        for number, body in enumerate(
            (created(annotation(11, "spam")), created(annotation(12, "spam", task=8, by=BEN)))
        ):
            studio.hold(body)
            guard.take(body)
            assert len(guard.annotations()) == number + 1
        outbox = Outbox(guard.store, guard.engine, studio, notifier, guard.clock)
        settings = Settings(notify={"admin": SecretStr("json://localhost")}, nightly_at="03:00")
        jobs = Jobs(guard.store, guard.engine, outbox, studio, notifier, settings, guard.clock)
        yield World(guard, studio, notifier, jobs)
    registry.forget()


def connect(world: World, project: int, connected_at: datetime) -> None:
    """Connect a project at a time."""

    def job(conn: sa.Connection) -> None:
        records.save_project(conn, Project(project, f"Project {project}"), NOW)
        records.set_connection(
            conn, project, connected_at=connected_at, webhook_id=None, webhook_url=None, token_hash=None
        )

    world.guard.store.write(job)


# Sweeps


def test_a_sweep_that_fails_is_a_finding_about_it_and_the_others_run(world: World) -> None:
    """What it said before it failed is not kept."""
    found = world.sweep()
    assert {name: len(ids) for name, ids in found.items()} == {"fails": 1, "everybody": 4}
    (crash,) = world.guard.findings(rule="fails")
    assert crash["message"] == "The sweep fails failed (ZeroDivisionError: no data). The other sweeps ran."
    assert (crash["severity"], crash["mode"], crash["annotator"]) == ("error", "observe", None)
    assert len(world.guard.actions()) == 2


def test_a_nightly_sweep_does_not_repeat_itself(world: World) -> None:
    """Not for a week, whatever people decided; then it does, and what is new is new at once."""
    world.sweep()
    one = world.guard.findings(rule="everybody")[0]["id"]
    world.guard.store.write(lambda conn: records.set_finding_state(conn, one, "dismissed", by="Ada", now=NOW))
    world.guard.clock.move(days=1)
    assert [ids for ids in world.sweep().values() if ids] == []
    world.guard.take(created(annotation(13, "spam", task=9, by=BEN, created=at(60))))
    assert {name: len(ids) for name, ids in world.sweep().items()} == {"fails": 0, "everybody": 1}
    world.guard.clock.move(days=6, minutes=1)
    assert {name: len(ids) for name, ids in world.sweep().items()} == {"fails": 1, "everybody": 4}


def test_one_sweep_can_be_asked_for_by_name(world: World) -> None:
    """One that the policy does not have is said to be missing."""
    found = run_sweeps(world.guard.store, world.guard.engine, PROJECT, now=NOW, only="everybody")
    assert set(found) == {"everybody"}
    with pytest.raises(UnknownSweep) as caught:
        run_sweeps(world.guard.store, world.guard.engine, PROJECT, now=NOW, only="gold-check")
    assert str(caught.value) == "The policy of project 3 has no sweep named 'gold-check'."


# Jobs


def test_a_job_that_begins_to_fail_is_reported_once(world: World) -> None:
    """Not at each of its attempts; when it fails anew after having worked, again."""
    world.studio.down = True
    for _ in range(3):
        assert world.jobs.run("reconcile", PROJECT) is None
    assert world.notifier.told() == ["admin"]
    with world.guard.store.read() as conn:
        (last,) = records.last_runs(conn, "reconcile", PROJECT)
    assert (last["state"], last["error"]) == ("failed", "Label Studio did not answer.")
    world.studio.down = False
    assert world.jobs.run("reconcile", PROJECT) is not None
    world.studio.down = True
    world.jobs.run("reconcile", PROJECT)
    assert world.notifier.told() == ["admin", "admin"]


def test_an_admin_who_cannot_be_reached_stops_nothing(world: World) -> None:
    """The failure is recorded all the same."""
    world.studio.down = True
    world.notifier.unreachable["admin"] = ConnectorError("The chat did not answer.")
    assert world.jobs.run("audit", PROJECT) is None
    assert world.runs() == [("audit", PROJECT, "failed")]


def test_an_audit_tries_failed_deliveries_again(world: World) -> None:
    """After an upgrade, say."""
    world.guard.store.write(lambda conn: conn.execute(sa.update(schema.inbox).values(state="failed")))
    assert world.jobs.run("audit", PROJECT) is not None
    assert {state for _, state in world.guard.inbox()} == {"done"}


# By the clock


def start(world: World) -> None:
    """Start the schedule, and stop it when everything is done that was due."""

    def watched() -> int:
        return [job for job, _, state in world.runs() if state != "running"].count("watchdog")

    with world.guard.store.read() as conn:
        projects = len(records.list_projects(conn, connected=True))
    before = watched()
    schedule = Schedule(world.jobs)
    schedule.start()
    try:
        # By its name the last of what is due at a start.
        assert soon(lambda: watched() == before + projects)
    finally:
        schedule.stop()


def nightly(world: World) -> list[tuple[str, int, str]]:
    """The runs of nightly jobs, by name."""
    return sorted(run for run in world.runs() if run[0] in ("audit", "sweeps"))


def test_nightly_runs_that_were_missed_are_caught_up_at_the_start(world: World) -> None:
    """Only where they were missed: not in a project connected since, nor where the last one was made."""
    world.guard.clock.now = at(60 * 24 * 2)
    connect(world, OTHER, world.guard.clock() - timedelta(hours=1))
    start(world)
    assert nightly(world) == [("audit", PROJECT, "done"), ("sweeps", PROJECT, "done")]
    world.guard.clock.move(hours=1)
    start(world)
    assert len(nightly(world)) == 2
    world.guard.clock.move(days=1)
    start(world)
    assert len(nightly(world)) == 6


def test_a_nightly_run_that_was_killed_counts_as_missed(world: World) -> None:
    """It began, and its end was never recorded."""
    world.guard.clock.now = at(60 * 24 * 2)
    world.guard.store.write(lambda conn: records.start_job(conn, "sweeps", PROJECT, world.guard.clock()))
    start(world)
    assert [state for job, _, state in world.runs() if job == "sweeps"] == ["running", "done"]


def test_what_a_stop_interrupts_is_caught_up(world: World) -> None:
    """Label Studio is not asked any more, no other sweep begins, and nobody is told of trouble."""
    world.guard.clock.now = at(60 * 24 * 2)
    world.jobs.stopping.set()
    with world.studio.silence():
        for job in ("audit", "sweeps"):
            assert world.jobs.run(job, PROJECT) is None
    with world.guard.store.read() as conn:
        runs = records.recent_jobs(conn)
    assert [(run["state"], run["finished_at"]) for run in runs] == [("failed", None)] * 2
    assert {run["error"] for run in runs} == {"labelguard is stopping; what was in hand goes on at its next start."}
    assert world.notifier.told() == []
    assert world.guard.findings() == []
    world.jobs.stopping.clear()
    start(world)
    assert [run[2] for run in nightly(world)] == ["done", "failed"] * 2


def test_a_stop_waits_for_the_job_in_hand_and_for_no_other(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many projects are due: a machine that is switched off does not wait for them."""
    connect(world, OTHER, NOW)
    asked, answer = threading.Event(), threading.Event()
    found = world.studio.project

    def slow(project: int) -> Project:
        asked.set()
        assert answer.wait(30)
        return found(project)

    monkeypatch.setattr(world.studio, "project", slow)
    schedule = Schedule(world.jobs)
    schedule.start()
    assert asked.wait(30)
    stopping = threading.Thread(target=schedule.stop)
    stopping.start()
    stopping.join(0.2)
    assert stopping.is_alive()
    answer.set()
    stopping.join(30)
    assert not stopping.is_alive()
    assert [run for run in world.runs() if run[0] != "prune"] == [("reconcile", PROJECT, "done")]


# Elections


def stand(world: World) -> ElectedSchedule:
    """Another process that would keep the schedule."""
    settings = world.jobs.settings.model_copy(update={"election_seconds": 0.05})
    standing = ElectedSchedule(replace(world.jobs, settings=settings, stopping=threading.Event()))
    standing.start()
    return standing


def reconciled(world: World) -> int:
    """How often the project was reconciled, which whoever takes the schedule does at once."""
    return [job for job, _, state in world.runs() if state == "done"].count("reconcile")


def test_of_several_one_keeps_the_schedule_and_another_takes_over(world: World) -> None:
    """While it is kept, the others do nothing."""
    first = stand(world)
    assert soon(lambda: reconciled(world) == 1)
    second = stand(world)
    try:
        assert not soon(lambda: reconciled(world) > 1, 0.5)
        first.stop()
        assert soon(lambda: reconciled(world) == 2)
    finally:
        second.stop()


@pytest.mark.store("postgresql")
def test_who_loses_the_connection_gives_the_schedule_up(world: World) -> None:
    """It is taken again, by whoever comes first; the service's own connections come back by themselves."""
    standing = stand(world)
    try:
        assert soon(lambda: reconciled(world) == 1)
        end_sessions(world.guard.store.where.rpartition("/")[2])
        assert soon(lambda: reconciled(world) == 2)
    finally:
        standing.stop()


def test_runs_whose_process_was_killed_are_told_from_those_at_work(world: World) -> None:
    """Whoever takes the schedule says so; they count as missed."""
    world.guard.clock.now = at(60 * 24 * 2)
    lost = world.guard.store.write(lambda conn: records.start_job(conn, "sweeps", PROJECT, world.guard.clock()))
    standing = stand(world)
    try:
        assert soon(lambda: ("sweeps", PROJECT, "done") in world.runs())
    finally:
        standing.stop()
    with world.guard.store.read() as conn:
        (run,) = [row for row in records.recent_jobs(conn, 100) if row["id"] == lost]
    assert (run["state"], run["finished_at"]) == ("failed", None)
    assert run["error"] == "It ended without a word: its process was killed, or its machine stopped."


def test_one_projects_failure_does_not_stop_the_others(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Project 3 is gone in Label Studio; project 4 is looked after."""
    connect(world, OTHER, NOW)
    found = world.studio.project

    def gone(project: int) -> Project:
        if project == PROJECT:
            raise ConnectorError("There is no project 3.", permanent=True)
        return replace(found(project), title="Other")

    monkeypatch.setattr(world.studio, "project", gone)
    monkeypatch.setattr(world.studio, "tasks_changed", lambda *_a, **_k: iter(()))
    start(world)
    states = {(job, project): state for job, project, state in world.runs() if job == "reconcile"}
    assert states == {("reconcile", PROJECT): "failed", ("reconcile", OTHER): "done"}


@pytest.mark.parametrize(
    ("now", "last"),
    [
        (NOW, NOW.replace(hour=3)),
        (NOW.replace(hour=3), NOW.replace(hour=3)),
        (NOW.replace(hour=2, minute=59), NOW.replace(hour=3) - timedelta(days=1)),
    ],
)
def test_the_last_night_is_the_newest_that_is_over(now: datetime, last: Any) -> None:
    """In UTC, wherever the server stands."""
    assert last_occurrence(now, nightly_time("03:00")) == last
