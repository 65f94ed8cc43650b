"""Reconciliation: what the webhook missed is found by asking Label Studio.

``task.updated_at`` is bumped by every annotation that is made, edited, skipped or deleted, alone or in bulk
(checked on Label Studio 1.23 by the live tests), so listing the tasks changed since the last time finds
them all. Bulk actions stamp thousands of tasks with one time and imports become visible minutes after theirs:
each listing therefore begins a margin before the newest change seen, and what is already known costs one
comparison. Deleted tasks leave no trace, only the full audit finds them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

import sqlalchemy as sa

from labelguard.connectors import NotFound, Studio, TaskRecord
from labelguard.engine import Clock, Engine
from labelguard.events import Annotation, Event, Project
from labelguard.inbox import Origin
from labelguard.store import Store, records
from labelguard.store.records import Row

MARGIN = timedelta(minutes=10)
"""How far behind its newest known change each listing begins."""

BATCH = 100
"""Tasks compared, and fed to the engine, at a time."""

SAME_SAVE = timedelta(seconds=5)
"""Label Studio stamps created_at and updated_at of one save milliseconds apart."""

CONFIRMED = 50
"""How many vanished tasks an audit asks for one by one before it believes its listing."""

Progress = Callable[[int, int | None], None]
"""Told how many tasks have been looked at so far, and of how many, where that is known."""


@dataclass(frozen=True, slots=True)
class ReconcileReport:
    """What a reconciliation found."""

    project: int
    full: bool = False
    tasks: int = 0
    """Tasks looked at."""
    new: int = 0
    """Annotations the store did not have."""
    changed: int = 0
    """Annotations that differed."""
    deleted: int = 0
    """Annotations that are gone, those of deleted tasks included."""
    tasks_deleted: int = 0
    lost: int = 0
    """New annotations that were edited before anybody told of them: nobody knows what they said at first."""
    project_changed: bool = False
    """Whether the guideline, the labeling interface or a setting had changed."""

    @property
    def missed(self) -> int:
        """How much the webhook had missed."""
        return self.new + self.changed + self.deleted + self.tasks_deleted + self.project_changed

    def summary(self) -> dict[str, Any]:
        """The report as JSON values, for the job's record."""
        return {
            "full": self.full,
            "tasks": self.tasks,
            "new": self.new,
            "changed": self.changed,
            "deleted": self.deleted,
            "tasks_deleted": self.tasks_deleted,
            "lost": self.lost,
            "project_changed": self.project_changed,
        }


def reconcile(
    store: Store,
    engine: Engine,
    studio: Studio,
    project: int,
    *,
    clock: Clock,
    full: bool = False,
    origin: Origin = "reconcile",
    progress: Progress | None = None,
) -> ReconcileReport:
    """Bring the store in step with Label Studio; what is new or different goes through the engine.

    ``full`` lists every task, and so finds deleted tasks and ground truth that moved without a trace.
    Running it twice, or after a crash in the middle, does no harm: the cursor moves last.

    Raises:
        ConnectorError: Label Studio did not answer; what was already fed stays.
    """
    if engine.own_user is None:
        engine.own_user = studio.server().user.id
    engine.process_pending()
    with store.read() as conn:
        cursor = _cursor(conn, project)
        known_tasks = records.live_task_ids(conn, project) if full else set()
    info = studio.project(project)
    report = ReconcileReport(project, full=full, project_changed=_save_project(store, info, clock()))
    since = None if full or cursor is None else cursor - MARGIN
    newest = cursor
    seen: set[int] = set()
    for batch in _batches(studio.tasks_changed(project, since, page_size=BATCH)):
        report = _take(store, engine, studio, info, batch, report, clock=clock, origin=origin)
        for record in batch:
            seen.add(record.task.id)
            if record.task.updated_at and (newest is None or record.task.updated_at > newest):
                newest = record.task.updated_at
        if progress is not None:
            progress(report.tasks, None)
    if full:
        gone = _confirmed_gone(studio, sorted(known_tasks - seen))
        report = _forget_tasks(store, project, gone, report, clock())
    if newest is not None and newest != cursor:
        value = newest.isoformat()
        store.write(lambda conn: records.set_cursor(conn, _cursor_name(project), value, clock()))
    return report


def audit(
    store: Store,
    engine: Engine,
    studio: Studio,
    project: int,
    *,
    clock: Clock,
    progress: Progress | None = None,
) -> ReconcileReport:
    """Compare everything: the nightly form of :func:`reconcile`."""
    return reconcile(store, engine, studio, project, clock=clock, full=True, progress=progress)


def refresh_task(
    store: Store, engine: Engine, studio: Studio, project: int, task: int, *, clock: Clock
) -> ReconcileReport:
    """Bring one task in step: what an action found changed is judged again as it is now.

    Raises:
        ConnectorError: Label Studio did not answer.
    """
    info = studio.project(project)
    report = ReconcileReport(project)
    return _take(store, engine, studio, info, [studio.task(task)], report, clock=clock, origin="reconcile")


def _take(
    store: Store,
    engine: Engine,
    studio: Studio,
    info: Project,
    batch: Sequence[TaskRecord],
    report: ReconcileReport,
    *,
    clock: Clock,
    origin: Origin,
) -> ReconcileReport:
    """Compare a batch of tasks with the store, and feed the difference to the engine."""
    new: list[tuple[TaskRecord, Annotation]] = []
    changed: list[tuple[TaskRecord, Annotation]] = []
    touched: list[TaskRecord] = []
    deleted = tasks_deleted = 0
    for record in batch:
        with store.read() as conn:
            stored = records.current_annotations(conn, info.id, task=record.task.id)
            task_row = records.get_task(conn, record.task.id)
        now = record
        if _missing(stored, record):
            # A webhook may have brought an annotation after this task was listed: only what a second look,
            # later than our reading of the store, does not show either is gone.
            try:
                now = studio.task(record.task.id)
            except NotFound:
                deleted += len(stored)
                tasks_deleted += _mark_tasks(store, info.id, [record.task.id], clock())
                continue
            lost = {row["id"] for row in _missing(stored, now)}
            deleted += _mark_deleted(store, info.id, lost, clock())
            stored = [row for row in stored if row["id"] not in lost]
        known = {(row["id"], row["created_at"]): row for row in stored}
        for annotation in now.annotations:
            row = known.get((annotation.id, annotation.created_at))
            if row is None:
                new.append((now, annotation))
            elif _differs(row, annotation):
                changed.append((now, annotation))
        if task_row is not None and (
            task_row["data"] != dict(now.task.data)
            or task_row["meta"] != dict(now.task.meta)
            or task_row["overlap"] != now.task.overlap
        ):
            touched.append(now)
    _feed(engine, info, new, changed, touched, origin=origin, at=clock())
    return replace(
        report,
        tasks=report.tasks + len(batch),
        new=report.new + len(new),
        changed=report.changed + len(changed),
        deleted=report.deleted + deleted,
        tasks_deleted=report.tasks_deleted + tasks_deleted,
        lost=report.lost + sum(_edited(annotation) for _, annotation in new),
    )


def _feed(
    engine: Engine,
    info: Project,
    new: Sequence[tuple[TaskRecord, Annotation]],
    changed: Sequence[tuple[TaskRecord, Annotation]],
    touched: Sequence[TaskRecord],
    *,
    origin: Origin,
    at: datetime,
) -> None:
    """Hand differences over as the deliveries that should have told of them."""
    if touched:
        tasks = [{**record.raw, "annotations": []} for record in touched]
        _receive(engine, info, {"action": "TASKS_CREATED", "tasks": tasks}, origin, at)
    if new:
        body: dict[str, Any] = {
            "action": "ANNOTATIONS_CREATED",
            "annotation": [_raw(record, annotation) for record, annotation in new],
            "task": [_bare(record) for record, _ in new],
        }
        _receive(engine, info, body, origin, at)
    for record, annotation in changed:
        body = {"action": "ANNOTATION_UPDATED", "annotation": _raw(record, annotation), "task": _bare(record)}
        _receive(engine, info, body, origin, at)
    engine.process_pending()


def _receive(engine: Engine, info: Project, body: dict[str, Any], origin: Origin, at: datetime) -> None:
    # The time makes each body its own: the inbox keeps equal ones once, and a state that comes back (ground
    # truth moved away and back again) is not the same news.
    body |= {"project": _project_body(info), "reconciled_at": at.isoformat()}
    engine.receive(info.id, Event.from_delivery({}, body), origin)


def _raw(record: TaskRecord, annotation: Annotation) -> Mapping[str, Any]:
    found: Mapping[str, Any] = next(a for a in record.raw["annotations"] if a["id"] == annotation.id)
    return found


def _bare(record: TaskRecord) -> dict[str, Any]:
    return {key: value for key, value in record.raw.items() if key != "annotations"}


def _project_body(info: Project) -> dict[str, Any]:
    return {
        "id": info.id,
        "title": info.title,
        "label_config": info.label_config,
        "expert_instruction": info.guideline,
        "maximum_annotations": info.maximum_annotations,
        "skip_queue": info.skip_queue,
        "updated_at": info.updated_at.isoformat() if info.updated_at else None,
    }


def _missing(stored: Sequence[Row], record: TaskRecord) -> list[Row]:
    there = {(annotation.id, annotation.created_at) for annotation in record.annotations}
    return [row for row in stored if (row["id"], row["created_at"]) not in there]


def _differs(row: Row, annotation: Annotation) -> bool:
    """Whether Label Studio's version is another one than the store's, and not an older one.

    A webhook may have overtaken the listing. Ground truth that moves to another annotation changes neither
    time nor content, so flags are compared as well.
    """
    if annotation.updated_at is not None and annotation.updated_at < row["updated_at"]:
        return False
    return bool(
        annotation.updated_at != row["updated_at"]
        or annotation.content_hash != row["content_hash"]
        or annotation.was_cancelled != row["was_cancelled"]
        or annotation.ground_truth != row["ground_truth"]
        or _other_person(row["completed_by"], annotation.completed_by)
        or _other_person(row["updated_by"], annotation.updated_by)
    )


def _other_person(ours: int | None, theirs: int | None) -> bool:
    """Whether Label Studio names somebody else; whom we erased we do not know any more."""
    return ours != theirs and (ours is None or ours >= 0)


def _edited(annotation: Annotation) -> bool:
    """Whether an annotation was saved again after it was made."""
    made, saved = annotation.created_at, annotation.updated_at
    return made is not None and saved is not None and saved - made > SAME_SAVE


def _mark_deleted(store: Store, project: int, ids: Collection[int], now: datetime) -> int:
    return store.write(lambda conn: records.mark_deleted(conn, project, sorted(ids), now)) if ids else 0


def _mark_tasks(store: Store, project: int, tasks: Sequence[int], now: datetime) -> int:
    return store.write(lambda conn: records.mark_tasks_deleted(conn, project, tasks, now)) if tasks else 0


def _confirmed_gone(studio: Studio, missing: Sequence[int]) -> list[int]:
    """Of the tasks an audit did not list, those that are really gone.

    A listing that came back short (a lost permission, say) must not empty the store: the first ones are asked
    for by name, and the rest is believed when none of them is there.
    """
    gone = []
    for task in missing[:CONFIRMED]:
        try:
            studio.task(task)
        except NotFound:
            gone.append(task)
    believed = len(gone) == len(missing[:CONFIRMED])
    return gone + list(missing[CONFIRMED:] if believed else [])


def _forget_tasks(
    store: Store, project: int, gone: Sequence[int], report: ReconcileReport, now: datetime
) -> ReconcileReport:
    if not gone:
        return report
    lost = set(gone)
    with store.read() as conn:
        annotations = sum(row["task"] in lost for row in records.current_annotations(conn, project))
    tasks = _mark_tasks(store, project, gone, now)
    return replace(report, deleted=report.deleted + annotations, tasks_deleted=report.tasks_deleted + tasks)


def _save_project(store: Store, info: Project, now: datetime) -> bool:
    with store.read() as conn:
        row = records.get_project(conn, info.id)
    same = row is not None and all(
        row[column] == getattr(info, column)
        for column in ("title", "label_config", "guideline", "maximum_annotations", "skip_queue")
    )
    if not same:
        store.write(lambda conn: records.save_project(conn, info, now))
    return not same


def _cursor_name(project: int) -> str:
    return f"reconcile:{project}"


def _cursor(conn: sa.Connection, project: int) -> datetime | None:
    """The newest change seen, by Label Studio's own clock: ours may be ahead of it."""
    value = records.get_cursor(conn, _cursor_name(project))
    return datetime.fromisoformat(value) if value else None


def _batches(found: Iterator[TaskRecord]) -> Iterator[list[TaskRecord]]:
    while batch := list(islice(found, BATCH)):
        yield batch
