"""What the inbox holds, what was refused at the door, and what Label Studio did not confirm."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert  # its conflict clauses are SQLite's too

from labelguard.store.records.rows import Row, all_rows, listed
from labelguard.store.schema import doubts, inbox, rejected


def list_rejected(conn: sa.Connection, limit: int = 100, *, project: int | None = None) -> list[Row]:
    """Refused deliveries, newest first."""
    return all_rows(conn, listed(sa.select(rejected), rejected, {"project": project}, limit=limit, newest_first=True))


def failed_deliveries(conn: sa.Connection, limit: int = 100, *, project: int | None = None) -> list[Row]:
    """Deliveries that labelguard could not process, newest first, without their bodies."""
    query = sa.select(inbox.c.id, inbox.c.project, inbox.c.action, inbox.c.received_at, inbox.c.error)
    wanted = {"project": project, "state": "failed"}
    return all_rows(conn, listed(query, inbox, wanted, limit=limit, newest_first=True))


def inbox_counts(conn: sa.Connection) -> dict[tuple[str, str], int]:
    """Deliveries by (action, state)."""
    query = sa.select(inbox.c.action, inbox.c.state, sa.func.count()).group_by(inbox.c.action, inbox.c.state)
    return {(action, state): count for action, state, count in conn.execute(query)}


def newest_delivery(conn: sa.Connection, project: int, before: datetime) -> int:
    """The id up to which a project's deliveries that came before a moment are all processed."""
    # By id from the end: only the newest ones are younger than the moment, and nothing indexes the time.
    mine = sa.select(inbox.c.id).where(inbox.c.project == project)
    newest = conn.scalar(mine.where(inbox.c.received_at <= before).order_by(inbox.c.id.desc()).limit(1)) or 0
    pending = conn.scalar(mine.where(inbox.c.state == "pending").order_by(inbox.c.id).limit(1))
    return newest if pending is None else min(newest, pending - 1)


def said_by_webhook(conn: sa.Connection, project: int, after: int, upto: int, limit: int) -> list[Row]:
    """What deliveries with ids after ``after`` spoke about, by id.

    The usual ones are not read whole: ``task``, ``of_task``, ``annotation``, ``completed_by``, ``updated_by``
    and ``ground_truth`` are theirs. Of others ``body`` is there.
    """
    body = inbox.c.body
    usual = inbox.c.action.in_(("ANNOTATION_CREATED", "ANNOTATION_UPDATED"))
    query = (
        sa.select(
            inbox.c.id,
            inbox.c.action,
            inbox.c.received_at,
            body["task", "id"].as_integer().label("task"),
            body["annotation", "task"].as_integer().label("of_task"),
            body["annotation", "id"].as_integer().label("annotation"),
            body["annotation", "completed_by"].as_string().label("completed_by"),
            body["annotation", "updated_by"].as_string().label("updated_by"),
            body["annotation", "ground_truth"].as_boolean().label("ground_truth"),
        )
        .where(inbox.c.project == project, inbox.c.id > after, inbox.c.id <= upto, inbox.c.origin == "webhook", usual)
        .order_by(inbox.c.id)
        .limit(limit)
    )
    others = (
        sa.select(inbox.c.id, inbox.c.action, inbox.c.received_at, inbox.c.body)
        .where(
            inbox.c.project == project,
            inbox.c.id > after,
            inbox.c.id <= upto,
            inbox.c.origin == "webhook",
            sa.not_(usual),
        )
        .order_by(inbox.c.id)
        .limit(limit)
    )
    found = sorted([*all_rows(conn, query), *all_rows(conn, others)], key=lambda row: int(row["id"]))
    return found[:limit]


def doubt(conn: sa.Connection, project: int, kind: str, count: int, example: str, now: datetime) -> None:
    """Note that Label Studio did not confirm something, so many times."""
    adding = insert(doubts).values(
        project=project, kind=kind, count=count, since=now, last_at=now, example=example[:500]
    )
    conn.execute(
        adding.on_conflict_do_update(
            index_elements=["project", "kind"],
            set_={
                "count": doubts.c.count + adding.excluded.count,
                "last_at": adding.excluded.last_at,
                "example": adding.excluded.example,
            },
        )
    )


def list_doubts(conn: sa.Connection, project: int | None = None) -> list[Row]:
    """What Label Studio did not confirm, by project and kind."""
    query = sa.select(doubts).order_by(doubts.c.project, doubts.c.kind)
    return all_rows(conn, query if project is None else query.where(doubts.c.project == project))


def doubts_told(conn: sa.Connection, project: int, now: datetime) -> None:
    """The admin has been told."""
    conn.execute(sa.update(doubts).where(doubts.c.project == project).values(told_at=now))


def forget_doubts(conn: sa.Connection, project: int) -> None:
    """Begin to count afresh: the webhook has a new token."""
    conn.execute(sa.delete(doubts).where(doubts.c.project == project))
