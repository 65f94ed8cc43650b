"""One look at Label Studio: tasks compared with the store, and what differs put right."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import islice

import sqlalchemy as sa

from labelguard.connectors import NotFound, Studio, TaskRecord
from labelguard.engine import Clock, Engine
from labelguard.events import Annotation, Event, Project, Task
from labelguard.inbox import Origin
from labelguard.processing import author_of
from labelguard.reconcile.bodies import BATCH, feed
from labelguard.reconcile.comparing import (
    SLACK,
    contradicts,
    differs,
    is_false,
    is_it,
    of_version,
    other_person,
    was_edited,
    was_never,
)
from labelguard.reconcile.position import GRACE
from labelguard.reconcile.report import ReconcileReport
from labelguard.store import Store, records
from labelguard.store.records import Row

CONFIRMED = 50
"""How many tasks that are not listed are asked for one by one before all of them are believed to be gone."""

ONE_BY_ONE = 1000
"""How many tasks are asked for one by one in a run, where Label Studio has what it does not list."""

ASKED = 10_000
"""How many tasks of deliveries that the listing does not confirm are asked for in a run; the audit does the rest."""

_NOT_THERE = "Label Studio does not have what a delivery said here, so nothing follows from it."

_NOT_BY_THEM = "Label Studio says that somebody else saved this, so nothing follows from it."


class Look:
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
        if wrong and was_never(described, info):
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
        feed(self._engine, self._info, new, changed, origin=self._origin, at=self._clock())
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
        for batch in batches(self._studio.tasks_named(self._info.id, tasks, page_size=BATCH)):
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
            elif row["deleted_at"] is not None or contradicts(row, annotation):
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
                    self.count(unknown=was_edited(annotation), lost=was_edited(annotation))
                    continue
                row, again = self._healed(conn, row_known, annotation)
                if again or differs(row, annotation):
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
        contradicted = contradicts(row, annotation)
        elsewhere = row["project"] != self._info.id or row["task"] != annotation.task
        if not (deleted or contradicted or elsewhere or row["updated_at"] != annotation.updated_at):
            return row, False
        now, versions = self._clock(), records.versions_of(conn, row["row"])
        false = [v for v in versions if v["refuted_at"] is None and is_false(v, annotation)]
        if any(v["recorded_at"] > now - GRACE for v in false):
            self.count(young=1)
            return row, False
        same = next((v for v in versions if is_it(v, annotation)), None)
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
        by_others = contradicted and not false
        taken = row["project"] != self._info.id
        again = same is not None and (same["refuted_at"] is not None or by_others or taken)
        if same is not None and again:
            self._writes.append(lambda conn: self._right_version(conn, same, annotation, now))
            if by_others:
                self._doubt("people", f"annotation {row['id']} of task {annotation.task}.")
        values = {**of_version(base, row), "project": self._info.id, "task": annotation.task, "deleted_at": None}
        if base is not None:
            values |= {
                column: now if other_person(row[column], now) else row[column]
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


def batches(found: Iterator[TaskRecord]) -> Iterator[list[TaskRecord]]:
    """Tasks as they are listed, so many at a time."""
    while batch := list(islice(found, BATCH)):
        yield batch
