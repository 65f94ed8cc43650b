"""Bringing the store in step with Label Studio."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import sqlalchemy as sa

from labelguard.connectors import Studio
from labelguard.engine import Clock, Engine
from labelguard.inbox import Origin
from labelguard.memory import rebuild
from labelguard.reconcile.bodies import BATCH
from labelguard.reconcile.comparing import SLACK
from labelguard.reconcile.look import Look, batches
from labelguard.reconcile.position import GRACE, Position, cursor_name, cursor_of, position_of, set_position
from labelguard.reconcile.report import ReconcileReport
from labelguard.store import Store, records

MARGIN = timedelta(minutes=10)
"""How far behind its newest known change each listing begins; also how far apart the clocks of Label Studio's own
machines may be. Our clock has no part in it."""

AGREE = timedelta(seconds=2)
"""Clocks that differ by less agree: Label Studio tells its own to the second."""

Progress = Callable[[int, int | None], None]
"""Told how many tasks have been looked at so far, and of how many, where that is known."""


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
        cursor = cursor_of(conn, project)
        position = position_of(conn, project)
        newest_delivery = records.newest_delivery(conn, project, began)
        settled = {age: records.newest_delivery(conn, project, began - age) for age in (SLACK, GRACE)}
        known_tasks = records.live_task_ids(conn, project) if full else set()
        if full:
            known_tasks |= records.annotated_task_ids(conn, project)
    note_clock(store, studio, clock)
    info = studio.project(project)
    look = Look(store, engine, studio, info, position.at, clock, origin)
    look.count(project_changed=look.project())
    since = None if full or cursor is None else cursor - MARGIN
    newest = cursor
    seen: set[int] = set()
    for batch in batches(studio.tasks_changed(project, since, page_size=BATCH)):
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
            records.set_cursor(conn, cursor_name(project), value, clock())
        if reached != position.delivery or at != position.at:
            set_position(conn, project, Position(reached, at), clock())

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
        position = position_of(conn, project)
    look = Look(store, engine, studio, studio.project(project), position.at, clock, "reconcile")
    look.take([studio.task(task)])
    return look.report
