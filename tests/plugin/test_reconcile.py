"""Reconciliation asks for tasks by the hundred, and what is not listed is believed only where it is confirmed."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from deliveries import PROJECT, annotation, at, bulk, updated
from fakestudio import FakeStudio
from guarded import Guarded, guarded
from labelguard.connectors import TaskRecord
from labelguard.events import Annotation
from labelguard.reconcile import ASKED, BATCH, CONFIRMED, ReconcileReport, audit, reconcile
from labelguard.store import records

MANY = 3 * BATCH


@dataclass
class Counting(FakeStudio):
    """A Label Studio that counts what is asked of it, and whose listings may come back short."""

    by_name: list[int] = field(default_factory=list)
    """How many tasks each request asked for by name."""
    one_by_one: int = 0
    """Requests that asked for a single task or annotation."""
    hidden: frozenset[int] = frozenset()
    """Tasks that no listing shows."""

    def stamp(self, moment: datetime) -> None:
        """Something was saved or deleted in every task."""
        self.tasks = {number: replace(about, updated_at=moment) for number, about in self.tasks.items()}

    def task(self, task: int) -> TaskRecord:
        """Counted."""
        self.one_by_one += 1
        return super().task(task)

    def annotation(self, annotation: int) -> Annotation:
        """Counted."""
        self.one_by_one += 1
        return super().annotation(annotation)

    def tasks_changed(
        self, project: int, since: datetime | None, *, after_id: int = 0, page_size: int = 100
    ) -> Iterator[TaskRecord]:
        """Those changed since then that are not hidden."""
        for number, about in sorted(self.tasks.items()):
            if number not in self.hidden and (since is None or about.updated_at is None or about.updated_at >= since):
                yield super().task(number)

    def tasks_named(self, project: int, tasks: Collection[int], *, page_size: int = 100) -> Iterator[TaskRecord]:
        """Counted."""
        self.by_name.append(len(tasks))
        for number in sorted({*tasks} & ({*self.tasks} - self.hidden)):
            yield super().task(number)


@pytest.fixture
def guard(tmp_path: Path) -> Iterator[Guarded]:
    """A labelguard with a project and a policy."""
    with guarded(tmp_path) as made:
        yield made


@pytest.fixture
def studio(guard: Guarded) -> Counting:
    """A Label Studio with hundreds of annotated tasks, all of which deliveries told of and a look confirmed."""
    made = Counting()
    body = bulk([annotation(number, "spam", task=number) for number in range(1, MANY + 1)])
    made.hold(body)
    guard.take(body)
    guard.clock.now = at(30)
    run(guard, made)
    made.by_name.clear()
    made.one_by_one = 0
    return made


def run(guard: Guarded, studio: Counting) -> ReconcileReport:
    """Reconcile once."""
    return reconcile(guard.store, guard.engine, studio, PROJECT, clock=guard.clock)


def run_audit(guard: Guarded, studio: Counting) -> ReconcileReport:
    """Compare everything once."""
    return audit(guard.store, guard.engine, studio, PROJECT, clock=guard.clock)


def live_tasks(guard: Guarded) -> set[int]:
    """The tasks that the store takes to be there."""
    with guard.store.read() as conn:
        return records.live_task_ids(conn, PROJECT)


def tasks_deleted(*numbers: int) -> dict[str, Any]:
    """Tasks went."""
    return {"action": "TASKS_DELETED", "tasks": [{"id": n} for n in numbers], "project": {"id": PROJECT}}


@pytest.mark.parametrize("edited", [False, True], ids=["saved once", "edited"])
def test_annotations_deleted_in_bulk_cost_one_more_request_for_each_page(
    guard: Guarded, studio: Counting, edited: bool
) -> None:
    """Each of their tasks is looked at a second time, a page at a time, and none of them by itself."""
    if edited:
        for number in range(1, BATCH + 1):
            body = updated(annotation(number, "refund", task=number, saved=at(31)))
            studio.hold(body)
            guard.take(body)
        studio.stamp(at(31))
        guard.clock.now = at(60)
        run(guard, studio)
        guard.clock.now = at(90)
    studio.by_name.clear()
    studio.annotations.clear()
    studio.stamp(at(61))
    report = run(guard, studio)
    assert (report.deleted, report.refuted) == (MANY, 0)
    assert guard.annotations() == []
    assert studio.by_name == [BATCH] * (MANY // BATCH)
    assert studio.one_by_one == 0


def test_tasks_deleted_in_bulk_are_confirmed_by_a_sample(guard: Guarded, studio: Counting) -> None:
    """No listing shows them, and none of the few that are asked for one by one is there."""
    studio.tasks.clear()
    studio.annotations.clear()
    report = run_audit(guard, studio)
    assert (report.tasks_deleted, report.deleted, report.unchecked) == (MANY, MANY, 0)
    assert live_tasks(guard) == set()
    assert studio.one_by_one == CONFIRMED


def test_a_forged_deletion_among_genuine_ones_deletes_nothing(guard: Guarded, studio: Counting) -> None:
    """Those that are there are found among hundreds that are gone, whatever a sample of them would have shown."""
    there = {2, MANY - 1}
    for number in set(studio.tasks) - there:
        del studio.tasks[number], studio.annotations[number]
    guard.take(tasks_deleted(*range(1, MANY + 1)))
    guard.clock.now = at(60)
    studio.tasks = {number: about for number, about in studio.tasks.items() if number in there}
    report = run(guard, studio)
    assert live_tasks(guard) == there
    assert {row["task"] for row in guard.annotations()} == there
    assert report.unchecked == 0


@pytest.mark.parametrize("look", [run, run_audit])
def test_a_listing_that_comes_back_short_empties_nothing(guard: Guarded, studio: Counting, look: Any) -> None:
    """Where Label Studio has a task that it does not list, each of them is asked for."""
    studio.hidden = frozenset(studio.tasks)
    guard.take(tasks_deleted(*studio.tasks))
    guard.clock.now = at(60)
    report = look(guard, studio)
    assert (report.restored, report.tasks_deleted, report.unchecked) == (MANY, 0, 0)
    assert live_tasks(guard) == set(studio.tasks)
    assert len(guard.annotations()) == MANY
    assert studio.one_by_one >= MANY


def test_what_is_not_listed_is_not_asked_for_one_by_one_without_end(
    guard: Guarded, studio: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What there was no room for stays as it is, is told of, and is looked at by the audit."""
    monkeypatch.setattr("labelguard.reconcile.look.ONE_BY_ONE", CONFIRMED + 20)
    studio.hidden = frozenset(studio.tasks)
    report = run_audit(guard, studio)
    assert (report.deleted, report.tasks_deleted, report.unchecked) == (0, 0, MANY - CONFIRMED - 20)
    assert studio.one_by_one == CONFIRMED + 20
    assert live_tasks(guard) == set(studio.tasks)
    studio.hidden = frozenset()
    assert run_audit(guard, studio).unchecked == 0


def test_no_delivery_has_label_studio_asked_for_more_than_so_many(guard: Guarded, studio: Counting) -> None:
    """Whoever forges may name a million tasks; what was not asked for stays for the audit."""
    guard.take(tasks_deleted(*range(10**6, 10**6 + ASKED + 7)))
    guard.clock.now = at(60)
    report = run(guard, studio)
    assert sum(studio.by_name) == ASKED
    assert studio.one_by_one == CONFIRMED
    assert report.unchecked == 7
    assert live_tasks(guard) == set(studio.tasks)
