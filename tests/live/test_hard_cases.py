"""Reconciling the hard cases on a real server: afterwards the store says exactly what Label Studio says.

Each test brings a case about with the webhook out of reach, looks, and compares everything on two ways that
share nothing (:mod:`equal`).
"""

from __future__ import annotations

import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from equal import differences
from labelguard.connectors import ConnectorError, TaskRecord
from labelguard.doctor import diagnose
from labelguard.manifest import EVENTS
from labelguard.reconcile import BATCH, MARGIN, ReconcileReport, audit, reconcile
from labelguard.rules import Guardrail
from labelguard.store import records, schema
from labelguard.studio.launch import Account
from labelguard_connectors import LabelStudio
from live import LiveProject, Receiver, StudioServer, choice, now, receiver, until

MANY = 5000
IMPORTED = 3000

GOLD_CHECK = """
project: {project}
rules:
  - rule: gold-check
    mode: enforce
    actions: [prompt]
"""


def run(labelguard: Receiver, project: LiveProject, studio: LabelStudio | None = None) -> ReconcileReport:
    """Reconcile once."""
    return reconcile(
        labelguard.store, labelguard.engine, studio or labelguard.studio, project.id, clock=labelguard.clock
    )


def run_audit(labelguard: Receiver, project: LiveProject) -> ReconcileReport:
    """Compare everything once."""
    return audit(labelguard.store, labelguard.engine, labelguard.studio, project.id, clock=labelguard.clock)


def bulk(project: LiveProject, action: str, tasks: list[int] | None = None) -> None:
    """A Data Manager action on some tasks, or all."""
    chosen = {"all": True, "excluded": []} if tasks is None else {"all": False, "included": tasks}
    project.api.call("POST", f"/api/dm/actions?id={action}&project={project.id}", json={"selectedItems": chosen})


def annotated(count: int, *labels: str) -> list[dict[str, Any]]:
    """Tasks to import, each with an annotation that is no ground truth."""
    made = {"result": choice(*labels), "ground_truth": False}
    return [{"data": {"text": f"text {i}"}, "annotations": [made]} for i in range(count)]


class Interrupted(LabelStudio):
    """The connector, with somebody at work in Label Studio while it pages through a listing."""

    def __init__(self, real: LabelStudio, after: int, work: Callable[[], None]) -> None:
        super().__init__(real.url, real._api_key, real.timeout)
        self._after = after
        self._work = work

    def tasks_changed(
        self, project: int, since: datetime | None, *, after_id: int = 0, page_size: int = 100
    ) -> Iterator[TaskRecord]:
        """The listing; after so many tasks, somebody works."""
        found = super().tasks_changed(project, since, after_id=after_id, page_size=page_size)
        for number, record in enumerate(found, start=1):
            yield record
            if number == self._after:
                self._work()


def test_bulk_actions_on_thousands_with_edits_while_paging(
    labelguard: Receiver, studio: StudioServer, ana: Account, ben: Account
) -> None:
    """Thousands of ties in ``updated_at``, pages of 100, and work on pages already read and still to come."""
    project = studio.project("Thousands")
    project.import_tasks(annotated(MANY, "cat"))
    labelguard.connect(project)
    assert len(labelguard.annotations(project.id)) == MANY
    labelguard.stop()

    bulk(project, "delete_tasks_annotations", project.tasks[: MANY - 100])
    stamped = [task["updated_at"] for task in project.api.call("GET", _listing(project))["tasks"]]
    assert max(Counter(stamped).values()) > 1000 > BATCH

    def work() -> None:
        project.submit(ana, project.tasks[3], choice("dog"))
        project.submit(ben, project.tasks[2 * BATCH + 7], choice("cat"))
        bulk(project, "delete_tasks_annotations", project.tasks[-50:-40])

    with Interrupted(labelguard.studio, BATCH + 50, work) as interrupted:
        during = run(labelguard, project, interrupted)
    after = run(labelguard, project)
    assert during.deleted + after.deleted == MANY - 100 + 10
    assert during.new + after.new == 2
    assert differences(labelguard.store, project) == []

    bulk(project, "delete_tasks")
    report = run_audit(labelguard, project)
    assert (report.tasks_deleted, report.deleted) == (MANY, 92)
    assert differences(labelguard.store, project) == []


def _listing(project: LiveProject) -> str:
    return f"/api/tasks/?project={project.id}&page_size=100000&fields=task_only"


def test_an_import_that_commits_during_the_sweep_is_not_lost(
    labelguard: Receiver, studio: StudioServer, record_property: Callable[[str, object], None]
) -> None:
    """Its tasks bear times from before they can be seen; the margin is longer than that."""
    project = studio.project("Slow import", tasks=3)
    labelguard.connect(project)
    labelguard.stop()
    tasks = annotated(IMPORTED, "cat")
    importing = threading.Thread(
        target=project.api.call, args=("POST", f"/api/projects/{project.id}/import"), kwargs={"json": tasks}
    )
    importing.start()
    looks = looked_meanwhile = 0
    while importing.is_alive():
        run(labelguard, project)
        looks += 1
        looked_meanwhile += importing.is_alive()
        # Something else changes, so that the next look begins later. On SQLite it waits for the import, or fails.
        with suppress(ConnectorError):
            labelguard.studio.set_task_note(project.tasks[looks % 3], "note", str(looks))
    importing.join()
    committed = now()
    run(labelguard, project)
    times = {
        task["id"]: datetime.fromisoformat(task["updated_at"])
        for task in project.api.call("GET", _listing(project))["tasks"]
    }
    assert len(times) == IMPORTED + 3
    late = committed - min(at for task, at in times.items() if task not in project.tasks)
    record_property(f"seconds that an import of {IMPORTED} tasks committed after its times", late)
    assert late < MARGIN
    assert looked_meanwhile
    assert differences(labelguard.store, project) == []


@pytest.mark.parametrize(
    ("behind", "found"), [(MARGIN - timedelta(minutes=2), True), (timedelta(hours=1), False)], ids=["within", "beyond"]
)
def test_what_commits_after_its_time_is_found_within_the_margin_and_by_the_audit(
    labelguard: Receiver, studio: StudioServer, ana: Account, behind: timedelta, found: bool
) -> None:
    """A transaction may stay open while others commit, and for longer than any margin."""
    project = studio.project("Very slow import", tasks=3)
    labelguard.connect(project)
    project.submit(ana, project.tasks[0], choice("cat"))
    assert until(lambda: len(labelguard.annotations(project.id)) == 1)
    labelguard.stop()
    run(labelguard, project)
    late = project.import_tasks(annotated(5, "dog"))
    # What an import looks like that began that long ago and commits now: SQLite has one writer at a time, so that
    # nothing of Label Studio's own can be saved and seen meanwhile.
    (database,) = studio.process.data_dir.rglob("label_studio.sqlite3")
    began = (datetime.now(UTC) - behind).strftime("%Y-%m-%d %H:%M:%S.%f")
    with sqlite3.connect(database, timeout=30) as connection:
        connection.executemany("UPDATE task SET updated_at = ? WHERE id = ?", [(began, task) for task in late])
    connection.close()
    assert run(labelguard, project).new == (5 if found else 0)
    assert len(differences(labelguard.store, project)) == (0 if found else 10)
    assert run_audit(labelguard, project).new == (0 if found else 5)
    assert differences(labelguard.store, project) == []


def test_ids_that_are_given_out_again_are_other_tasks_and_annotations(
    labelguard: Receiver, studio: StudioServer, ana: Account
) -> None:
    """Neither the vault's answer nor what a rule remembers of the old task speaks about the new one."""
    project = studio.project("Reused ids", tasks=2)
    labelguard.connect(project)
    text = GOLD_CHECK.format(project=project.id)
    labelguard.store.write(lambda conn: records.add_policy(conn, project.id, text, now()))
    task = project.tasks[-1]
    _known(labelguard, project, task, "cat")
    project.submit(ana, task, choice("dog"))
    assert until(lambda: _answered(labelguard, project, ana) == 1)

    project.api.call("DELETE", f"/api/tasks/{task}/")
    (again,) = project.import_tasks([{"data": {"text": "quite another"}}])
    second = project.submit(ana, again, choice("dog"))
    assert again == task, "this database does not give ids out again"
    assert until(lambda: len(labelguard.annotations(project.id)) == 1)
    assert _answered(labelguard, project, ana) == 1

    run(labelguard, project)
    assert differences(labelguard.store, project) == []
    _known(labelguard, project, again, "cat")
    project.api.call("DELETE", f"/api/annotations/{second}/")
    project.submit(ana, again, choice("dog"))
    assert until(lambda: _answered(labelguard, project, ana) == 2)
    run(labelguard, project)
    assert differences(labelguard.store, project) == []


def _known(labelguard: Receiver, project: LiveProject, task: int, label: str) -> None:
    labelguard.store.write(lambda conn: records.add_gold(conn, project.id, task, choice(label), "import:test", now()))


def _answered(labelguard: Receiver, project: LiveProject, account: Account) -> int:
    """How many known tasks gold-check remembers of an annotator."""
    with labelguard.store.read() as conn:
        loaded = labelguard.engine.processor.policy(conn, project.id)
        assert loaded is not None
        (active,) = [active for active in loaded.rules if isinstance(active.rule, Guardrail)]
        c = schema.rule_states.c
        query = sa.select(c.state).where(c.rule == active.key, c.subject == f"annotator:{account.id}")
        state = conn.scalar(query.where(c.project == project.id)) or {}
    return len(state.get("latest", ()))


def test_ground_truth_that_moved_without_an_event_or_a_time(
    labelguard: Receiver, studio: StudioServer, ana: Account, ben: Account
) -> None:
    """Marking one annotation clears the task's other; nothing but comparing shows it."""
    project = studio.project("Ground truth", tasks=2)
    labelguard.connect(project)
    project.submit(ana, project.tasks[0], choice("cat"), ground_truth=True)
    second = project.submit(ben, project.tasks[0], choice("dog"))
    assert until(lambda: len(labelguard.annotations(project.id)) == 2)
    labelguard.stop()
    project.api.call("PATCH", f"/api/annotations/{second}/", json={"ground_truth": True})
    assert len(differences(labelguard.store, project)) > 1
    run(labelguard, project)
    assert differences(labelguard.store, project) == []


def test_a_second_opinion_that_an_import_undid_is_asked_for_again(
    labelguard: Receiver, studio: StudioServer, ana: Account
) -> None:
    """With an overlap for a part of the tasks, Label Studio deals overlaps out anew at each import."""
    project = studio.project("Overlap", tasks=4)
    settings = {"maximum_annotations": 2, "overlap_cohort_percentage": 50}
    project.api.call("PATCH", f"/api/projects/{project.id}/", json=settings)
    labelguard.connect(project)
    policy = (
        f"project: {project.id}\nrules:\n  - rule: label-constraints\n    control: label\n    mode: enforce\n"
        "    options: {exclusive: [[cat, dog]]}\n    actions: [second-opinion]\n"
    )
    labelguard.store.write(lambda conn: records.add_policy(conn, project.id, policy, now()))
    task = next(task for task in project.tasks if _task(project, task)["overlap"] == 2)
    project.submit(ana, task, choice("cat", "dog"))
    assert until(lambda: _task(project, task)["overlap"] == 3)
    assert until(lambda: _opinion_is_done(labelguard, project))
    project.import_texts(4, start=100)
    assert _task(project, task)["overlap"] < 3, "this Label Studio leaves overlaps alone"
    summary = labelguard.jobs().run("reconcile", project.id)
    assert summary is not None
    assert summary["second_opinions_renewed"] == 1
    assert _task(project, task)["overlap"] == 3
    labelguard.jobs().run("reconcile", project.id)
    assert differences(labelguard.store, project) == []


def _task(project: LiveProject, task: int) -> Any:
    return project.api.call("GET", f"/api/tasks/{task}/")


def _opinion_is_done(labelguard: Receiver, project: LiveProject) -> bool:
    with labelguard.store.read() as conn:
        return [a["state"] for a in records.list_actions(conn, project=project.id)] == ["done"]


def test_versions_that_nobody_told_of_are_said_to_be_unknown(
    labelguard: Receiver, studio: StudioServer, ana: Account, ben: Account
) -> None:
    """Saved three times, seen once: the last is kept, is no first submission, and the gap is told of."""
    project = studio.project("Unknown", tasks=3)
    labelguard.connect(project)
    known = project.submit(ana, project.tasks[0], choice("cat"))
    assert until(lambda: len(labelguard.annotations(project.id)) == 1)
    labelguard.stop()
    project.update(ana, known, choice("dog"))
    project.update(ana, known, choice("cat"))
    project.submit(ben, project.tasks[1], choice("cat"))
    report = run(labelguard, project)
    assert (report.new, report.changed, report.repaired, report.unknown) == (1, 1, 2, 1)
    assert differences(labelguard.store, project) == []
    v = schema.annotation_versions
    with labelguard.store.read() as conn:
        unknown = records.unknown_counts(conn, project.id)
        found = conn.execute(sa.select(v.c.number, v.c.first, v.c.origin).order_by(v.c.id)).all()
    assert unknown == {"gaps": 1, "unjudged": 0, "refuted": 0}
    assert sorted(tuple(row) for row in found) == [
        (1, True, "reconcile"),
        (1, True, "webhook"),
        (2, False, "reconcile"),
    ]
    checks = diagnose(labelguard.settings, labelguard.store, labelguard.studio, project.id, clock=now, events=EVENTS)
    (told,) = [check for check in checks if check.name.endswith(": history")]
    assert (told.ok, told.message) == (
        None,
        "1 version was found by looking, and others before it may be missing.",
    )


@pytest.mark.parametrize("hours", [-3, 3], ids=["behind", "ahead"])
def test_clocks_that_disagree_change_nothing(studio: StudioServer, ana: Account, tmp_path: Path, hours: int) -> None:
    """What is the past, what is too old, and where to go on looking, all go by Label Studio's clock."""

    def clock() -> datetime:
        return now() + timedelta(hours=hours)

    project = studio.project("Skew", tasks=4)
    before = project.submit(ana, project.tasks[0], choice("cat", "dog"))
    with receiver(tmp_path, studio, clock=clock) as labelguard:
        labelguard.connect(project)
        policy = (
            f"project: {project.id}\nlimits: {{max_action_age: 3600}}\nrules:\n  - rule: label-constraints\n"
            "    control: label\n    mode: enforce\n    options: {exclusive: [[cat, dog]]}\n    actions: [prompt]\n"
        )
        labelguard.store.write(lambda conn: records.add_policy(conn, project.id, policy, clock()))
        project.submit(ana, project.tasks[1], choice("cat", "dog"))
        assert until(lambda: len(labelguard.annotations(project.id)) == 2)
        labelguard.stop()
        project.submit(ana, project.tasks[2], choice("cat", "dog"))
        project.update(ana, before, choice("dog", "cat"))
        assert run(labelguard, project).missed == 2
        project.submit(ana, project.tasks[3], choice("cat", "dog"))
        assert run(labelguard, project).missed == 1
        assert differences(labelguard.store, project) == []
        with labelguard.store.read() as conn:
            prompts = records.list_actions(conn, project=project.id, kind="prompt")
            row = records.get_project(conn, project.id)
            cursor = datetime.fromisoformat(records.get_cursor(conn, f"reconcile:{project.id}"))
        assert {prompt["task"] for prompt in prompts} == {*project.tasks}
        assert row is not None
        assert abs(row["connected_at"] - now()) < timedelta(minutes=10)
        assert cursor <= now()


def test_the_comparison_can_fail(labelguard: Receiver, studio: StudioServer, ana: Account, ben: Account) -> None:
    """Whatever is damaged in the store is told, by name."""
    project = studio.project("Damaged", tasks=3)
    labelguard.connect(project)
    for task in project.tasks[:2]:
        project.submit(ana, task, choice("cat"))
    assert until(lambda: len(labelguard.annotations(project.id)) == 2)
    run(labelguard, project)
    assert differences(labelguard.store, project) == []
    a, t, p = schema.annotations, schema.tasks, schema.projects
    for table, column, value in (
        (a, "result", choice("dog")),
        (a, "completed_by", ben.id),
        (a, "updated_by", ben.id),
        (a, "was_cancelled", True),
        (a, "ground_truth", True),
        (a, "updated_at", now()),
        (a, "created_at", now()),
        (a, "deleted_at", now()),
        (a, "task", project.tasks[2]),
        (a, "lead_time", 99.0),
        (t, "overlap", 7),
        (t, "data", {"text": "forged"}),
        (t, "meta", {"a": 1}),
        (t, "is_labeled", None),
        (t, "updated_at", now()),
        (t, "deleted_at", now()),
        (p, "guideline", "forged"),
        (p, "skip_queue", "IGNORE_SKIPPED"),
    ):
        key = table.c.row if table is a else table.c.id
        with labelguard.store.read() as conn:
            of_project = table.c.id == project.id if table is p else table.c.project == project.id
            (kept,) = conn.execute(sa.select(table).where(of_project).order_by(key).limit(1)).mappings()
        number, before = kept[key.name], kept[column]
        new = not before if value is None else value
        _set(labelguard, key == number, column, new)
        told = differences(labelguard.store, project)
        assert told, f"{table.name}.{column}"
        assert any(word in " ".join(told) for word in (column, "not on the server", "not in the store"))
        _set(labelguard, key == number, column, before)
    assert differences(labelguard.store, project) == []


def _set(labelguard: Receiver, where: sa.ColumnElement[bool], column: str, value: Any) -> None:
    (table,) = {bound.table for bound in sa.sql.visitors.iterate(where) if isinstance(bound, sa.Column)}
    statement = sa.update(table).where(where).values({column: value})
    labelguard.store.write(lambda conn: conn.execute(statement))
