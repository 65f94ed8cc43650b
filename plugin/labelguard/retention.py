"""How long things are kept: what was delivered goes as it came, what was made of it stays.

Gone after ``raw_days`` are the bodies of deliveries that are done with, the data of tasks that were deleted in
Label Studio, what rules remembered of those, refused deliveries and old records of jobs. What stays of a
delivery is its digest, so that a redelivery is still known. Judgments, versions, findings and actions stay.

Everything goes in small transactions, so that no delivery waits for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from labelguard.store import Store, records
from labelguard.store.schema import inbox, job_runs, rejected, rule_states, tasks

BATCH = 500
"""Rows of one transaction."""

JOB_RUNS = timedelta(days=90)
"""How long records of jobs are kept, but for the last success of each."""

_CURSOR = "prune:inbox"
_MOST_LEFT = 10_000
"""How many older deliveries that could not be processed are remembered one by one."""

GONE: Mapping[str, Any] = {}
"""What stands in place of a body, or of a task's data."""


@dataclass(frozen=True, slots=True)
class Pruned:
    """What went."""

    bodies: int = 0
    tasks: int = 0
    memories: int = 0
    """What rules remembered of tasks that were deleted."""
    rejected: int = 0
    runs: int = 0


def prune(store: Store, raw_days: int, *, clock: Callable[[], datetime]) -> Pruned:
    """Let go of what is older than ``raw_days``. Running it twice, or after a crash in the middle, does no harm.

    Raises:
        StoreError: the store cannot be written; what already went stays gone.
    """
    before = clock() - timedelta(days=raw_days)
    done = Pruned(bodies=_bodies(store, before, clock))
    done = _tasks(store, before, done)
    return replace(
        done,
        rejected=_in_batches(store, rejected, rejected.c.received_at < before),
        runs=_runs(store, clock() - JOB_RUNS),
    )


def _bodies(store: Store, before: datetime, clock: Callable[[], datetime]) -> int:
    """Walk on from where the last run came to; what could not go then is looked at again."""
    count, first = 0, True
    while True:
        with store.read() as conn:
            at = records.get_cursor(conn, _CURSOR) or {"after": 0, "left": []}
            query = sa.select(inbox.c.id, inbox.c.state, inbox.c.received_at).where(inbox.c.id > at["after"])
            found = conn.execute(query.order_by(inbox.c.id).limit(BATCH)).all()
            again = _states(conn, at["left"]) if first else {}
            first = False
        old = [row for row in found if row.received_at < before]
        states = {row.id: row.state for row in old} | again
        ready = sorted(delivery for delivery, state in states.items() if state in ("done", "ignored"))
        left = sorted({*at["left"]} - {*again} | {*states} - {*ready})
        # Nobody looks after more than that: then the walk waits here until somebody did.
        full = len(left) > _MOST_LEFT
        value = {"after": at["after"] if full or not old else old[-1].id, "left": left[:_MOST_LEFT]}

        def job(conn: sa.Connection, ready: list[int] = ready, value: Mapping[str, Any] = value) -> None:
            for some in records.portions(ready):
                conn.execute(sa.update(inbox).where(inbox.c.id.in_(some)).values(body=dict(GONE)))
            records.set_cursor(conn, _CURSOR, value, clock())

        if ready or value != at:
            store.write(job)
        count += len(ready)
        if full or len(old) < BATCH:
            return count


def _states(conn: sa.Connection, deliveries: list[int]) -> dict[int, str]:
    found: dict[int, str] = {}
    for some in records.portions(deliveries):
        query = sa.select(inbox.c.id, inbox.c.state).where(inbox.c.id.in_(some))
        found |= {row.id: row.state for row in conn.execute(query)}
    return found


def _tasks(store: Store, before: datetime, done: Pruned) -> Pruned:
    """Empty tasks that were deleted; with their data goes what rules remembered of them."""
    after = 0
    while True:
        deleted = sa.select(tasks.c.id, tasks.c.project, tasks.c.data, tasks.c.meta).where(
            tasks.c.deleted_at.is_not(None), tasks.c.deleted_at < before, tasks.c.id > after
        )
        with store.read() as conn:
            rows = conn.execute(deleted.order_by(tasks.c.id).limit(BATCH)).all()
            full = [row for row in rows if row.data or row.meta]
            states = [key for project in {row.project for row in full} for key in _task_states(conn, project)]
        gone = {(row.project, str(row.id)) for row in full}
        keys = [key for key in states if (key[0], key[2].split(":")[1]) in gone]

        def job(conn: sa.Connection, full: Any = full, keys: Any = keys) -> None:
            for row in full:
                conn.execute(sa.update(tasks).where(tasks.c.id == row.id).values(data=dict(GONE), meta=dict(GONE)))
            for project, rule, subject in keys:
                about = (rule_states.c.project == project, rule_states.c.rule == rule)
                conn.execute(sa.delete(rule_states).where(*about, rule_states.c.subject == subject))

        if full:
            store.write(job)
        done = replace(done, tasks=done.tasks + len(full), memories=done.memories + len(keys))
        if len(rows) < BATCH:
            return done
        after = rows[-1].id


def _task_states(conn: sa.Connection, project: int) -> list[tuple[int, str, str]]:
    """Keys of what rules remember about tasks: subjects such as ``task:7`` and ``task:7:topics``."""
    key = rule_states.c
    query = sa.select(key.project, key.rule, key.subject).where(
        key.project == project, key.subject.startswith("task:", autoescape=True)
    )
    return [(row.project, row.rule, row.subject) for row in conn.execute(query)]


def _runs(store: Store, before: datetime) -> int:
    """Old records of jobs, but for the last success of each job in each project: monitoring asks for it."""
    same = job_runs.alias()
    newer = (
        sa.select(same.c.id)
        .where(
            same.c.job == job_runs.c.job,
            same.c.project.is_not_distinct_from(job_runs.c.project),
            same.c.state == "done",
            same.c.started_at > job_runs.c.started_at,
        )
        .exists()
    )
    return _in_batches(
        store, job_runs, sa.and_(job_runs.c.started_at < before, sa.or_(job_runs.c.state != "done", newer))
    )


def _in_batches(store: Store, table: sa.Table, condition: sa.ColumnElement[bool]) -> int:
    count = 0
    while True:
        some = sa.select(table.c.id).where(condition).limit(BATCH)
        with store.read() as conn:
            ids = list(conn.scalars(some))
        if ids:
            count += store.write(
                lambda conn, ids=ids: conn.execute(sa.delete(table).where(table.c.id.in_(ids))).rowcount  # type: ignore[misc]
            )
        if len(ids) < BATCH:
            return count
