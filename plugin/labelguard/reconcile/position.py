"""Up to where a project has been compared with Label Studio."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from labelguard.store import records

GRACE = timedelta(seconds=60)
"""A delivery may come before Label Studio has committed what it tells of: younger ones are confirmed next time."""


@dataclass(frozen=True, slots=True)
class Position:
    """Up to where deliveries have been compared with Label Studio."""

    delivery: int = 0
    at: datetime | None = None
    """What was recorded before this was there when Label Studio was asked; by our clock, as ``recorded_at`` is."""


def cursor_name(project: int) -> str:
    """Under which the newest change seen is kept."""
    return f"reconcile:{project}"


def cursor_of(conn: sa.Connection, project: int) -> datetime | None:
    """The newest change seen, by Label Studio's own clock: ours may be ahead of it."""
    value = records.get_cursor(conn, cursor_name(project))
    return datetime.fromisoformat(value) if value else None


def _position_name(project: int) -> str:
    return f"confirmed:{project}"


def position_of(conn: sa.Connection, project: int) -> Position:
    """Up to where a project's deliveries have been compared."""
    value = records.get_cursor(conn, _position_name(project))
    return Position(value["delivery"], datetime.fromisoformat(value["at"])) if value else Position()


def set_position(conn: sa.Connection, project: int, position: Position, now: datetime) -> None:
    """Remember up to where a project's deliveries have been compared."""
    if position.at is not None:
        value = {"delivery": position.delivery, "at": position.at.isoformat()}
        records.set_cursor(conn, _position_name(project), value, now)
