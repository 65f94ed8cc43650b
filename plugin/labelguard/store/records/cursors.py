"""Places reached, by name."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert  # its conflict clauses are SQLite's too

from labelguard.store.schema import cursors

_SKEW = "clock-skew"


def clock_skew(conn: sa.Connection) -> timedelta:
    """How far Label Studio's clock is ahead of ours, as last seen; nothing where they agree to the second."""
    return timedelta(seconds=get_cursor(conn, _SKEW) or 0.0)


def set_clock_skew(conn: sa.Connection, skew: timedelta, now: datetime) -> None:
    """Remember how far Label Studio's clock is ahead of ours."""
    set_cursor(conn, _SKEW, skew.total_seconds(), now)


def get_cursor(conn: sa.Connection, name: str) -> Any:
    """A cursor's JSON value, or None."""
    return conn.scalar(sa.select(cursors.c.value).where(cursors.c.name == name))


def set_cursor(conn: sa.Connection, name: str, value: Any, now: datetime) -> None:
    """Set a cursor."""
    values = {"value": value, "updated_at": now}
    conn.execute(
        insert(cursors).values(name=name, **values).on_conflict_do_update(index_elements=["name"], set_=values)
    )
