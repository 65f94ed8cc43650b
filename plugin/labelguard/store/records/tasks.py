"""Tasks, and what goes when they do."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert  # its conflict clauses are SQLite's too

from labelguard.events import Task
from labelguard.store.records.annotations import mark_gone
from labelguard.store.records.gold import retire_gold
from labelguard.store.records.rows import Row, all_rows, first_row, portions, upsert
from labelguard.store.schema import annotations as annotations_table, tasks
from labelguard.store.statements import Statement, among

_TASK = sa.select(tasks).where(tasks.c.id == sa.bindparam("wanted"))
_TASK_TIMES = Statement(
    sa.select(tasks.c.id, tasks.c.created_at, tasks.c.updated_at, tasks.c.deleted_at).where(among(tasks.c.id, "wanted"))
)
# A task never moves: only Label Studio itself can say that its id was given out again, in another project.
_PUT_TASK = upsert(tasks, ["id"], but=["confirmed_at"], same="project")


def save_task(conn: sa.Connection, task: Task, now: datetime, *, listed: bool = False) -> None:
    """Insert or update a task; an older description than the one in the store changes nothing.

    A deleted task comes back only where Label Studio itself has ``listed`` it: deliveries may overtake each
    other. One with the id of a deleted task but another ``created_at`` is another task (on SQLite Label
    Studio gives ids out again), whose answer the vault does not have.
    """
    values = _alive(task)
    known = get_task(conn, task.id)
    if known is None:
        conn.execute(insert(tasks).values(id=task.id, **values))
        return
    if known["project"] != task.project and not listed:
        return  # a task never moves: only Label Studio itself can say that the id was given out again
    if task.updated_at and known["updated_at"] and task.updated_at < known["updated_at"]:
        return
    another = bool(task.created_at and known["created_at"] and task.created_at != known["created_at"])
    if another:
        # What a delivery alone says of it retires no answer: it is merely not used for another task.
        if listed:
            retire_gold(conn, known["project"], [task.id], now)
        _forget_earlier(conn, task, now)
    elif not listed:
        values["deleted_at"] = known["deleted_at"]
    if any(known[key] != value for key, value in values.items()):
        conn.execute(sa.update(tasks).where(tasks.c.id == task.id).values(values))


def _alive(task: Task) -> Row:
    """The columns of a task that is there."""
    return {
        "project": task.project,
        "data": dict(task.data),
        "meta": dict(task.meta),
        "overlap": task.overlap,
        "is_labeled": task.is_labeled,
        "created_at": task.created_at,
        "updated_at": task.updated_at,
        "deleted_at": None,
    }


def _forget_earlier(conn: sa.Connection, task: Task, now: datetime) -> None:
    """What was annotated in an earlier task with the same id is gone with it."""
    a = annotations_table.c
    mark_gone(conn, now, a.project == task.project, a.task == task.id, a.created_at < task.created_at)


def get_task(conn: sa.Connection, task: int) -> Row | None:
    """One task's row."""
    return first_row(conn, _TASK, wanted=task)


@dataclass(frozen=True, slots=True)
class TaskTimes:
    """When a task was made, changed and deleted."""

    created_at: datetime | None
    updated_at: datetime | None
    deleted_at: datetime | None


def task_times(conn: sa.Connection, ids: Collection[int]) -> dict[int, TaskTimes]:
    """The times of those of these tasks that are known."""
    return {task: TaskTimes(*times) for task, *times in _TASK_TIMES.rows(conn, wanted=ids)}


def put_tasks(conn: sa.Connection, described: Iterable[tuple[Task, datetime | None]]) -> None:
    """Insert or update tasks, each with its time of deletion, if any, whatever the store says of them now."""
    _PUT_TASK.insert(
        conn,
        [
            {
                "id": task.id,
                "project": task.project,
                "data": msgspec.json.encode(task.data).decode(),
                "meta": msgspec.json.encode(task.meta).decode(),
                "overlap": task.overlap,
                "is_labeled": task.is_labeled,
                "created_at": task.created_at,
                "updated_at": task.updated_at,
                "deleted_at": deleted_at,
            }
            for task, deleted_at in described
        ],
    )


def live_task_ids(conn: sa.Connection, project: int) -> set[int]:
    """Ids of tasks that are not deleted."""
    query = sa.select(tasks.c.id).where(tasks.c.project == project, tasks.c.deleted_at.is_(None))
    return set(conn.scalars(query))


def mark_tasks_deleted(conn: sa.Connection, project: int, task_ids: Sequence[int], now: datetime) -> int:
    """Mark tasks and their annotations deleted; returns how many tasks were."""
    count = 0
    for some in portions(task_ids):
        count += conn.execute(
            sa.update(tasks)
            .where(tasks.c.project == project, tasks.c.id.in_(some), tasks.c.deleted_at.is_(None))
            .values(deleted_at=now)
        ).rowcount
        mark_gone(conn, now, annotations_table.c.project == project, annotations_table.c.task.in_(some))
    return count


def keep_as_listed(conn: sa.Connection, task: Task, now: datetime) -> None:
    """Keep a task exactly as Label Studio itself has it, whatever deliveries said of it."""
    known = get_task(conn, task.id)
    if known is not None and (task.created_at != known["created_at"] or task.project != known["project"]):
        retire_gold(conn, known["project"], [task.id], now)
    values = {**_alive(task), "confirmed_at": now}
    conn.execute(insert(tasks).values(id=task.id, **values).on_conflict_do_update(index_elements=["id"], set_=values))


def tasks_by_id(conn: sa.Connection, task_ids: Sequence[int]) -> dict[int, Row]:
    """Tasks, deleted ones included, by their ids."""
    return {
        row["id"]: row
        for some in portions(task_ids)
        for row in all_rows(conn, sa.select(tasks).where(tasks.c.id.in_(some)))
    }


def annotated_task_ids(conn: sa.Connection, project: int) -> set[int]:
    """Ids of the tasks of live annotations."""
    c = annotations_table.c
    return set(conn.scalars(sa.select(c.task).where(c.project == project, c.deleted_at.is_(None)).distinct()))
