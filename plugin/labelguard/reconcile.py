"""Reconciliation: what the webhook missed is found by asking Label Studio, and what it invented too.

``task.updated_at`` is bumped by every annotation that is made, edited, skipped or deleted, alone or in bulk
(checked on Label Studio 1.23 by the live tests), so listing the tasks changed since the last time finds
them all. Bulk actions stamp thousands of tasks with one time and imports become visible minutes after theirs:
each listing therefore begins a margin before the newest change seen, and what is already known costs one
comparison. Deleted tasks leave no trace, only the full audit finds them.

Deliveries may be forged, so each is confirmed once: the tasks that deliveries since the last time spoke about
and that the listing did not show are asked for by name, a hundred at a time. Genuine ones are in the listing,
so this costs nothing as long as nobody lies. What Label Studio says stands, whatever times a delivery claimed:
versions that it does not have are *refuted* (kept, but no evidence and in no statistics), and noted as doubts
(:mod:`labelguard.distrust`).

What cannot be known is not guessed: a version that only looking found may have had others before it, which no
delivery brought, and counts as ``unknown``; an annotation that was made and deleted between two looks cannot be
told from one that never was.
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
from labelguard.events import Annotation, Event, Project, Task
from labelguard.inbox import Origin
from labelguard.memory import rebuild
from labelguard.processing import author_of
from labelguard.store import Store, records
from labelguard.store.records import Row

MARGIN = timedelta(minutes=10)
"""How far behind its newest known change each listing begins; also how far apart the clocks of Label Studio's own
machines may be. Our clock has no part in it."""

BATCH = 100
"""Tasks listed, compared, and fed to the engine, at a time."""

SAME_SAVE = timedelta(seconds=5)
"""Label Studio stamps created_at and updated_at of one save milliseconds apart."""

CONFIRMED = 50
"""How many tasks that are not listed are asked for one by one before all of them are believed to be gone."""

ONE_BY_ONE = 1000
"""How many tasks are asked for one by one in a run, where Label Studio has what it does not list."""

ASKED = 10_000
"""How many tasks of deliveries that the listing does not confirm are asked for in a run; the audit does the rest."""

GRACE = timedelta(seconds=60)
"""A delivery may come before Label Studio has committed what it tells of: younger ones are confirmed next time."""

AGREE = timedelta(seconds=2)
"""Clocks that differ by less agree: Label Studio tells its own to the second."""

SLACK = timedelta(seconds=5)
"""Label Studio stamps an annotation and its task within one save."""

_NOT_THERE = "Label Studio does not have what a delivery said here, so nothing follows from it."
_NOT_BY_THEM = "Label Studio says that somebody else saved this, so nothing follows from it."

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
    tasks_changed: int = 0
    """Tasks that the store did not have, or had otherwise."""
    restored: int = 0
    """Annotations that are there although a delivery said that they, or their tasks, were deleted."""
    refuted: int = 0
    """Versions that deliveries told of and Label Studio does not have."""
    unknown: int = 0
    """Annotations found changed by looking: versions in between may be missing, and nobody can tell."""
    young: int = 0
    """Annotations that Label Studio does not confirm yet: they are looked at again next time."""
    unchecked: int = 0
    """Tasks that were not asked for, because there were too many, and stay as they are: the audit will."""

    @property
    def missed(self) -> int:
        """How much the webhook had missed."""
        return self.new + self.changed + self.deleted + self.tasks_deleted + self.project_changed + self.restored

    @property
    def repaired(self) -> int:
        """How much of the store was not as Label Studio has it."""
        return self.missed + self.refuted

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
            "tasks_changed": self.tasks_changed,
            "restored": self.restored,
            "refuted": self.refuted,
            "repaired": self.repaired,
            "unknown": self.unknown,
            "young": self.young,
            "unchecked": self.unchecked,
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
    Running it twice, or after a crash in the middle, does no harm: the cursors move last.

    Raises:
        ConnectorError: Label Studio did not answer; what was already fed stays.
    """
    if engine.own_user is None:
        engine.own_user = studio.server().user.id
    engine.process_pending()
    began = clock()
    with store.read() as conn:
        cursor = _cursor(conn, project)
        position = _position(conn, project)
        newest_delivery = records.newest_delivery(conn, project, began)
        settled = {age: records.newest_delivery(conn, project, began - age) for age in (SLACK, GRACE)}
        known_tasks = records.live_task_ids(conn, project) if full else set()
        if full:
            known_tasks |= records.annotated_task_ids(conn, project)
    note_clock(store, studio, clock)
    info = studio.project(project)
    look = _Look(store, engine, studio, info, position.at, clock, origin)
    look.count(project_changed=look.project())
    since = None if full or cursor is None else cursor - MARGIN
    newest = cursor
    seen: set[int] = set()
    for batch in _batches(studio.tasks_changed(project, since, page_size=BATCH)):
        look.take(batch)
        for record in batch:
            seen.add(record.task.id)
            if record.task.updated_at and (newest is None or record.task.updated_at > newest):
                newest = record.task.updated_at
        if progress is not None:
            progress(look.report.tasks, None)
    if full:
        look.report = replace(look.report, full=True)
        look.ask(known_tasks - seen)
    reached = look.confirm(position.delivery, newest_delivery, seen)
    # Ids are given out before they are committed, so the newest are looked at again; and so is what may yet come.
    age = GRACE if look.report.young else SLACK
    at = began - age if reached >= settled[age] else position.at
    reached = max(position.delivery, min(reached, settled[age]))
    value = newest.isoformat() if newest is not None else None

    def keep(conn: sa.Connection) -> None:
        if newest != cursor:
            records.set_cursor(conn, _cursor_name(project), value, clock())
        if reached != position.delivery or at != position.at:
            _set_position(conn, project, _Position(reached, at), clock())

    store.write(keep)
    if full:
        rebuild(store, engine, project, clock=clock)
    return look.report


def note_clock(store: Store, studio: Studio, clock: Clock) -> timedelta:
    """Remember how far Label Studio's clock is ahead of ours: times of annotations are by Label Studio's."""
    asked = clock()
    theirs = studio.time()
    answered = clock()
    with store.read() as conn:
        known = records.clock_skew(conn)
    if theirs is None:
        return known
    skew = theirs - (asked + (answered - asked) / 2)
    if abs(skew) < AGREE:
        skew = timedelta(0)
    if abs(skew - known) >= AGREE or (not skew and known):
        store.write(lambda conn: records.set_clock_skew(conn, skew, answered))
        return skew
    return known


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
    with store.read() as conn:
        position = _position(conn, project)
    look = _Look(store, engine, studio, studio.project(project), position.at, clock, "reconcile")
    look.take([studio.task(task)])
    return look.report


@dataclass(frozen=True, slots=True)
class _Position:
    """Up to where deliveries have been compared with Label Studio."""

    delivery: int = 0
    at: datetime | None = None
    """What was recorded before this was there when Label Studio was asked; by our clock, as ``recorded_at`` is."""


class _Look:
    """One look at Label Studio: compares, keeps what it has, and feeds the difference to the engine."""

    def __init__(
        self,
        store: Store,
        engine: Engine,
        studio: Studio,
        info: Project,
        confirmed: datetime | None,
        clock: Clock,
        origin: Origin,
    ) -> None:
        self._store = store
        self._engine = engine
        self._studio = studio
        self._info = info
        self._confirmed = confirmed
        self._clock = clock
        self._origin = origin
        self._asked = 0
        self._strays: set[int] = set()
        self._writes: list[Callable[[sa.Connection], object]] = []
        self.report = ReconcileReport(info.id)

    def count(self, **more: int) -> None:
        """Add to the report."""
        self.report = replace(self.report, **{name: getattr(self.report, name) + n for name, n in more.items()})

    # The project

    def project(self) -> bool:
        """Keep the project as it is; returns whether the store had it otherwise."""
        info, now = self._info, self._clock()
        with self._store.read() as conn:
            row = records.get_project(conn, info.id)
            described = records.list_guidelines(conn, info.id)
        columns = ("title", "label_config", "guideline", "maximum_annotations", "skip_queue")
        wrong = [column for column in columns if row is not None and row[column] != getattr(info, column)]
        if wrong and _was_never(described, info):
            self._doubt("project", f"its {' and '.join(wrong)}.")
            # Nor is the time true that it came with.
            self._writes.append(lambda conn: records.forget_project_time(conn, info.id))
        self._writes.append(lambda conn: records.save_project(conn, info, now, listed=True))
        self._flush()
        return row is None or bool(wrong)

    # Tasks and their annotations

    def take(self, batch: Sequence[TaskRecord]) -> None:
        """Compare tasks with the store, keep them, and feed what is new or different."""
        known = self._known(batch)
        new: list[tuple[TaskRecord, Annotation]] = []
        changed: list[tuple[TaskRecord, Annotation]] = []
        # A webhook may have brought something after these tasks were listed: only what a second look, later than
        # our reading of the store, does not show either is gone, or never was.
        odd = [record.task.id for record in batch if self._is_odd(*known[record.task.id], record)]
        again, gone, unsure = self._look_up(odd)
        passed = {*gone, *unsure}
        for record in batch:
            if record.task.id in passed:
                continue
            task_row, rows = known[record.task.id]
            now = again.get(record.task.id, record)
            self._keep_task(task_row, now)
            self._compare(now, rows, new, changed)
        self._flush()
        if gone:
            self.forget(gone)
        _feed(self._engine, self._info, new, changed, origin=self._origin, at=self._clock())
        self.count(tasks=len(batch), new=len(new), changed=len(changed), unchecked=len(unsure))
        strays, self._strays = self._strays, set()
        if strays:
            self.ask(strays)

    def forget(self, gone: Sequence[int]) -> None:
        """Tasks that Label Studio does not have (any more): they and their annotations are gone."""
        project, now = self._info.id, self._clock()
        with self._store.read() as conn:
            tasks = records.tasks_by_id(conn, gone)
            rows = [row for row in records.annotations_about(conn, gone, ()) if row["project"] == project]
            for row in rows:
                self._missing(conn, row, None, seen=(tasks.get(row["task"]) or {}).get("confirmed_at") is not None)
        live = [task for task, row in tasks.items() if row["project"] == project and row["deleted_at"] is None]
        if live:
            self._writes.append(lambda conn: records.mark_tasks_deleted(conn, project, live, now))
        self._flush()
        self.count(tasks_deleted=len(live))

    def ask(self, tasks: Collection[int]) -> None:
        """Ask by name for tasks that no listing showed; those that Label Studio does not have are gone."""
        there: set[int] = set()
        for batch in _batches(self._studio.tasks_named(self._info.id, tasks, page_size=BATCH)):
            there |= {record.task.id for record in batch}
            self.take(batch)
        found, gone, unsure = self._one_by_one(sorted({*tasks} - there))
        if found:
            self.take([*found.values()])
        if gone:
            self.forget(gone)
        self.count(unchecked=len(unsure))

    def _look_up(self, tasks: Sequence[int]) -> tuple[dict[int, TaskRecord], list[int], list[int]]:
        """Tasks as they are now, those that are gone, and those of which that is not sure."""
        if not tasks:
            return {}, [], []
        there = {record.task.id: record for record in self._studio.tasks_named(self._info.id, tasks, page_size=BATCH)}
        found, gone, unsure = self._one_by_one([task for task in tasks if task not in there])
        return there | found, gone, unsure

    def _one_by_one(self, missing: Sequence[int]) -> tuple[dict[int, TaskRecord], list[int], list[int]]:
        """Make sure that tasks which are not listed are gone: found, gone, and not sure.

        Of many, a sample is asked for first: when none of it is there, all are believed to be gone. A listing that
        came back short (a lost permission, say) must not empty the store: then each is asked for, while there is
        room.
        """
        sample = missing[:: max(1, -(-len(missing) // CONFIRMED))]
        rest = sorted({*missing} - {*sample})
        found, gone = self._each(sample)
        if not found:
            return found, gone + rest, []
        few = rest[: max(0, ONE_BY_ONE - self._asked)]
        also_found, also_gone = self._each(few)
        return found | also_found, gone + also_gone, rest[len(few) :]

    def _each(self, tasks: Sequence[int]) -> tuple[dict[int, TaskRecord], list[int]]:
        """Ask for tasks one by one: those that the project has, and those that it has not."""
        found: dict[int, TaskRecord] = {}
        gone = []
        for task in tasks:
            self._asked += 1
            try:
                record = self._studio.task(task)
            except NotFound:
                gone.append(task)
                continue
            if record.task.project == self._info.id:
                found[task] = record
            else:
                self._doubt("elsewhere", f"task {task}, which is in project {record.task.project}.")
                gone.append(task)
        return found, gone

    # What deliveries said

    def confirm(self, after: int, upto: int, seen: set[int]) -> int:
        """Ask for what deliveries spoke about and no listing showed; returns the delivery that was reached."""
        reached, room = after, ASKED
        while reached < upto and room > 0:
            with self._store.read() as conn:
                said = records.said_by_webhook(conn, self._info.id, reached, upto, BATCH)
                spoken = {task for row in said for task in self._spoken(conn, row)} - seen
            if not said:
                return upto
            seen |= spoken
            asked = sorted(spoken)[:room]
            self.ask(asked)
            self._flush()
            room -= len(asked)
            self.count(unchecked=len(spoken) - len(asked))
            reached = int(said[-1]["id"])
        return reached

    def _spoken(self, conn: sa.Connection, row: Row) -> set[int]:
        """The tasks that a delivery spoke about."""
        if "body" not in row:
            by = row["completed_by"]
            own = by == row["updated_by"] and by != str(self._engine.own_user)
            if row["action"] == "ANNOTATION_CREATED" and row["ground_truth"] and own:
                self._doubt("own-ground-truth", f"annotation {row['annotation']} by user {by}.")
            return {task for task in (row["task"], row["of_task"]) if task is not None}
        event = Event.from_delivery({}, row["body"])
        tasks = {task.id for task in event.tasks} | {annotation.task for annotation in event.annotations}
        if event.action == "TASKS_DELETED":
            tasks |= {*event.deleted}
        elif event.action == "ANNOTATIONS_DELETED":
            rows = records.annotations_about(conn, (), event.deleted)
            tasks |= {found["task"] for found in rows if found["project"] == self._info.id}
        return tasks

    # Comparing

    def _known(self, batch: Sequence[TaskRecord]) -> dict[int, tuple[Row | None, list[Row]]]:
        """What the store has about tasks: the row of each, and its annotations, deleted ones included."""
        ids = [record.task.id for record in batch]
        of_task = {(a.id, a.created_at): record.task.id for record in batch for a in record.annotations}
        with self._store.read() as conn:
            tasks = records.tasks_by_id(conn, ids)
            rows = records.annotations_about(conn, ids, [annotation for annotation, _ in of_task])
        known: dict[int, tuple[Row | None, list[Row]]] = {task: (tasks.get(task), []) for task in ids}
        for row in rows:
            # A delivery may have put an annotation into another task than Label Studio has it in.
            task = of_task.get((row["id"], row["created_at"]), row["task"])
            if task in known:
                known[task][1].append(row)
        return known

    def _is_odd(self, task_row: Row | None, rows: Sequence[Row], record: TaskRecord) -> bool:
        """Whether the store has what the listing has not, or later than the listing has it."""
        claimed = task_row["updated_at"] if task_row is not None else None
        if claimed and record.task.updated_at and claimed > record.task.updated_at:
            return True
        there = {(annotation.id, annotation.created_at): annotation for annotation in record.annotations}
        for row in rows:
            annotation = there.get((row["id"], row["created_at"]))
            if annotation is None:
                if self._may_be_missing(row, record.task.id):
                    return True
            elif row["deleted_at"] is not None or _contradicts(row, annotation):
                return True
        return False

    def _may_be_missing(self, row: Row, task: int) -> bool:
        """Whether an annotation that Label Studio does not list is news: one long deleted is none."""
        if row["project"] != self._info.id or row["task"] != task:
            return False
        lately = self._confirmed is not None and row["deleted_at"] is not None
        return row["deleted_at"] is None or (lately and row["deleted_at"] >= self._confirmed)

    def _keep_task(self, row: Row | None, record: TaskRecord) -> None:
        task, now = record.task, self._clock()
        if row is not None and row["updated_at"] and task.updated_at and row["updated_at"] > task.updated_at + SLACK:
            self._doubt("task", f"task {task.id} as of {row['updated_at']:%Y-%m-%d %H:%M:%S} UTC.")
        same = row is not None and row["confirmed_at"] is not None and row["deleted_at"] is None
        columns = ("project", "data", "meta", "overlap", "is_labeled", "created_at", "updated_at")
        if row is None or not same or any(row[column] != getattr(task, column) for column in columns):
            self._writes.append(lambda conn: records.keep_as_listed(conn, task, now))
            self.count(tasks_changed=1)

    def _compare(
        self,
        record: TaskRecord,
        rows: Sequence[Row],
        new: list[tuple[TaskRecord, Annotation]],
        changed: list[tuple[TaskRecord, Annotation]],
    ) -> None:
        there = {(annotation.id, annotation.created_at): annotation for annotation in record.annotations}
        known = {(row["id"], row["created_at"]): row for row in rows}
        strays: list[int] = []
        with self._store.read() as conn:
            for key, row in known.items():
                if key not in there and self._may_be_missing(row, record.task.id):
                    if (elsewhere := self._home(conn, row)) is not None:
                        strays.append(elsewhere)
                    else:
                        self._missing(conn, row, record.task)
            for key, annotation in there.items():
                row_known = known.get(key)
                if row_known is None:
                    new.append((record, annotation))
                    self.count(unknown=_was_edited(annotation), lost=_was_edited(annotation))
                    continue
                row, again = self._healed(conn, row_known, annotation)
                if again or _differs(row, annotation):
                    changed.append((record, annotation))
                    self.count(unknown=annotation.updated_at != row["updated_at"])
        self._strays.update(strays)

    def _home(self, conn: sa.Connection, row: Row) -> int | None:
        """The task in which Label Studio has an annotation that a delivery put into another one."""
        if row["versions"] < 2:
            return None
        if self._confirmed is not None:
            # Annotations do not move: what was confirmed before is in the task in which it was found then.
            newest = max(version["recorded_at"] for version in records.versions_of(conn, row["row"]))
            if newest < self._confirmed:
                return None
        try:
            found = self._studio.annotation(row["id"])
        except NotFound:
            return None
        return found.task if found.created_at == row["created_at"] and found.task != row["task"] else None

    def _missing(self, conn: sa.Connection, row: Row, task: Task | None, *, seen: bool = True) -> None:
        """An annotation that Label Studio does not have: deleted, or never there.

        It is refuted where it was never seen in Label Studio, or where it says that it was saved after anything
        was saved in its task: each save stamps the task. ``seen`` is whether the task itself, now gone, was
        ever seen.
        """
        now, live = self._clock(), row["deleted_at"] is None
        versions = [v for v in records.versions_of(conn, row["row"]) if v["refuted_at"] is None]
        unseen = self._confirmed is not None and all(
            v["origin"] == "webhook" and v["recorded_at"] >= self._confirmed for v in versions
        )
        late = bool(task is not None and task.updated_at and row["updated_at"] > task.updated_at + SLACK)
        young = any(v["recorded_at"] > now - GRACE for v in versions)
        if versions and (unseen or late) and not young:
            ids = [v["id"] for v in versions]
            self._refute(ids)
            kind = "annotation" if late or (live and not seen) else "unconfirmed"
            self._doubt(kind, f"annotation {row['id']} of task {row['task']}.")
        elif live:
            self.count(deleted=1)
        if versions and unseen and young:
            self.count(young=1)
        if live:
            self._writes.append(lambda conn: records.set_annotation(conn, row["row"], deleted_at=now))

    def _healed(self, conn: sa.Connection, row: Row, annotation: Annotation) -> tuple[Row, bool]:
        """The row once nothing in it is left that Label Studio denies, and whether it must be judged again."""
        deleted = row["deleted_at"] is not None
        contradicts = _contradicts(row, annotation)
        elsewhere = row["project"] != self._info.id or row["task"] != annotation.task
        if not (deleted or contradicts or elsewhere or row["updated_at"] != annotation.updated_at):
            return row, False
        now, versions = self._clock(), records.versions_of(conn, row["row"])
        false = [v for v in versions if v["refuted_at"] is None and _is_false(v, annotation)]
        if any(v["recorded_at"] > now - GRACE for v in false):
            self.count(young=1)
            return row, False
        same = next((v for v in versions if _is_it(v, annotation)), None)
        standing = [v for v in versions if v["refuted_at"] is None and v not in false]
        base = same or max(standing, key=lambda v: (v["updated_at"], v["id"]), default=None)
        if false:
            ids = [v["id"] for v in false]
            self._refute(ids)
            claimed = f"{false[-1]['updated_at']:%Y-%m-%d %H:%M:%S} UTC"
            self._doubt("version", f"annotation {row['id']} of task {annotation.task} as of {claimed}.")
        if deleted:
            self._doubt("deletion", f"annotation {row['id']} of task {annotation.task}.")
            self.count(restored=1)
        if elsewhere:
            self._doubt("elsewhere", f"annotation {row['id']}, which is in task {annotation.task}.")
        by_others = contradicts and not false
        taken = row["project"] != self._info.id
        again = same is not None and (same["refuted_at"] is not None or by_others or taken)
        if same is not None and again:
            self._writes.append(lambda conn: self._right_version(conn, same, annotation, now))
            if by_others:
                self._doubt("people", f"annotation {row['id']} of task {annotation.task}.")
        values = {**_of_version(base, row), "project": self._info.id, "task": annotation.task, "deleted_at": None}
        if base is not None:
            values |= {
                column: now if _other_person(row[column], now) else row[column]
                for column, now in (("completed_by", annotation.completed_by), ("updated_by", annotation.updated_by))
            }
        self._writes.append(lambda conn: records.set_annotation(conn, row["row"], **values))
        return {**row, **values}, again

    def _right_version(self, conn: sa.Connection, version: Row, annotation: Annotation, now: datetime) -> None:
        """The version is there, but by others than a delivery said, or it was refuted too soon."""
        if version["refuted_at"] is not None:
            records.unrefute_version(conn, version["id"])
        else:
            records.dismiss_findings_of(conn, [version["id"]], _NOT_BY_THEM, now)
            records.suspect_memory(conn, self._info.id, version["id"], now)
        author = annotation.completed_by or author_of(annotation)
        records.rename_author(
            conn,
            version["id"],
            project=self._info.id,
            editor=annotation.updated_by or annotation.completed_by,
            author=author,
        )

    def _refute(self, versions: Sequence[int]) -> None:
        project, now = self._info.id, self._clock()

        def write(conn: sa.Connection) -> None:
            records.refute_versions(conn, versions, _NOT_THERE, now)
            records.suspect_memory(conn, project, min(versions), now)

        self._writes.append(write)
        self.count(refuted=len(versions))

    def _doubt(self, kind: str, example: str) -> None:
        project, now = self._info.id, self._clock()
        self._writes.append(lambda conn: records.doubt(conn, project, kind, 1, example, now))

    def _flush(self) -> None:
        """Write what was decided, in one transaction."""
        writes, self._writes = self._writes, []
        if writes:
            self._store.write(lambda conn: [write(conn) for write in writes])


def _feed(
    engine: Engine,
    info: Project,
    new: Sequence[tuple[TaskRecord, Annotation]],
    changed: Sequence[tuple[TaskRecord, Annotation]],
    *,
    origin: Origin,
    at: datetime,
) -> None:
    """Hand differences over as the deliveries that should have told of them."""
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
    if new or changed:
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


def _was_never(described: Sequence[Row], info: Project) -> bool:
    """Whether a delivery described the project in a way in which Label Studio never had it.

    It was confirmed before, and is now exactly as it was then: nobody changes a guideline and changes it back
    between two looks. (Label Studio's API does not tell when a project was changed.)
    """
    if not described or described[-1]["confirmed_at"] is not None:
        return False
    confirmed = [each for each in described if each["confirmed_at"] is not None]
    return bool(
        confirmed and (confirmed[-1]["guideline"], confirmed[-1]["label_config"]) == (info.guideline, info.label_config)
    )


def _contradicts(row: Row, annotation: Annotation) -> bool:
    """Whether Label Studio cannot have had what the row says, unless the row is newer than the listing."""
    if annotation.updated_at is None or row["updated_at"] < annotation.updated_at:
        return False
    if row["updated_at"] > annotation.updated_at or row["content_hash"] != annotation.content_hash:
        return True
    # Nobody's name, where the user was deleted since.
    return any(
        now is not None and row[column] is not None and _other_person(row[column], now)
        for column, now in (("completed_by", annotation.completed_by), ("updated_by", annotation.updated_by))
    )


def _is_false(version: Row, annotation: Annotation) -> bool:
    """Whether Label Studio, which has this version now, never had that one."""
    if annotation.updated_at is None or version["updated_at"] < annotation.updated_at:
        return False
    return bool(version["updated_at"] > annotation.updated_at or version["content_hash"] != annotation.content_hash)


def _is_it(version: Row, annotation: Annotation) -> bool:
    return bool(version["updated_at"] == annotation.updated_at and version["content_hash"] == annotation.content_hash)


def _of_version(version: Row | None, row: Row) -> Row:
    """The columns of an annotation's row as one of its versions has them; before any version, nothing."""
    if version is None:
        return {"updated_at": row["created_at"], "content_hash": "", "result": [], "was_cancelled": False}
    columns = ("updated_at", "content_hash", "result", "was_cancelled", "ground_truth", "lead_time")
    return {column: version[column] for column in columns}


def _was_edited(annotation: Annotation) -> bool:
    """Whether it was saved again after it was made: how it was then, nobody can tell any more."""
    made, saved = annotation.created_at, annotation.updated_at
    return made is not None and saved is not None and saved - made > SLACK


def _cursor_name(project: int) -> str:
    return f"reconcile:{project}"


def _cursor(conn: sa.Connection, project: int) -> datetime | None:
    """The newest change seen, by Label Studio's own clock: ours may be ahead of it."""
    value = records.get_cursor(conn, _cursor_name(project))
    return datetime.fromisoformat(value) if value else None


def _position_name(project: int) -> str:
    return f"confirmed:{project}"


def _position(conn: sa.Connection, project: int) -> _Position:
    value = records.get_cursor(conn, _position_name(project))
    return _Position(value["delivery"], datetime.fromisoformat(value["at"])) if value else _Position()


def _set_position(conn: sa.Connection, project: int, position: _Position, now: datetime) -> None:
    if position.at is not None:
        value = {"delivery": position.delivery, "at": position.at.isoformat()}
        records.set_cursor(conn, _position_name(project), value, now)


def _batches(found: Iterator[TaskRecord]) -> Iterator[list[TaskRecord]]:
    while batch := list(islice(found, BATCH)):
        yield batch
