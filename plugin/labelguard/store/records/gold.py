"""The gold vault."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert  # its conflict clauses are SQLite's too

from labelguard.store.records.rows import Row, all_rows, first_row, portions
from labelguard.store.schema import gold, tasks


def add_gold(
    conn: sa.Connection,
    project: int,
    task: int,
    result: Sequence[Mapping[str, Any]],
    origin: str,
    now: datetime,
) -> int:
    """Put an answer into the vault (a changed answer is a new version) and return its version."""
    answer = [dict(item) for item in result]
    created = conn.scalar(sa.select(tasks.c.created_at).where(tasks.c.id == task, tasks.c.project == project))
    active = get_gold(conn, project, task)
    if active is not None and active["result"] == answer and active["task_created_at"] in (None, created):
        return int(active["version"])
    retire_gold(conn, project, [task], now)
    newest = conn.scalar(sa.select(sa.func.max(gold.c.version)).where(gold.c.project == project, gold.c.task == task))
    version = int(newest or 0) + 1
    conn.execute(
        insert(gold).values(
            project=project,
            task=task,
            version=version,
            result=answer,
            origin=origin,
            added_at=now,
            task_created_at=created,
        )
    )
    return version


def get_gold(conn: sa.Connection, project: int, task: int) -> Row | None:
    """The active answer of a task."""
    query = sa.select(gold).where(gold.c.project == project, gold.c.task == task, gold.c.retired_at.is_(None))
    return first_row(conn, query.order_by(gold.c.version.desc()).limit(1))


def list_gold(conn: sa.Connection, project: int, *, retired: bool = False) -> list[Row]:
    """The vault's active (or with ``retired`` all) answers, by task and version."""
    query = sa.select(gold).where(gold.c.project == project)
    if not retired:
        query = query.where(gold.c.retired_at.is_(None))
    return all_rows(conn, query.order_by(gold.c.task, gold.c.version))


def retire_gold(conn: sa.Connection, project: int, of_tasks: Sequence[int], now: datetime) -> int:
    """Retire answers; returns how many."""
    return sum(
        conn.execute(
            sa.update(gold)
            .where(gold.c.project == project, gold.c.task.in_(some), gold.c.retired_at.is_(None))
            .values(retired_at=now)
        ).rowcount
        for some in portions(of_tasks)
    )
