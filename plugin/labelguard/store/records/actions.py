"""Actions, and the switch that stops all of them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert  # its conflict clauses are SQLite's too

from labelguard.store.records.rows import Row, all_rows, first_row, listed
from labelguard.store.schema import actions, switches


def get_action(conn: sa.Connection, action: int) -> Row | None:
    """One action."""
    return first_row(conn, sa.select(actions).where(actions.c.id == action))


def list_actions(
    conn: sa.Connection,
    *,
    project: int | None = None,
    finding: int | None = None,
    kind: str | None = None,
    annotator: int | None = None,
    annotation: int | None = None,
    task: int | None = None,
    states: Sequence[str] | None = None,
    after: int = 0,
    limit: int | None = None,
    newest_first: bool = False,
) -> list[Row]:
    """Actions by id, each after ``after``."""
    wanted = {"finding": finding, "kind": kind, "annotation": annotation, "task": task}
    broad = {"project": project, "annotator": annotator}
    query = sa.select(actions).where(actions.c.id > after)
    if annotation is not None or task is not None:
        # As sums: SQLite would rather look through all that a project or annotator has ever had.
        query = query.where(*(actions.c[name] + 0 == value for name, value in broad.items() if value is not None))
    else:
        wanted |= broad
    if states is not None:
        query = query.where(actions.c.state.in_(states))
    return all_rows(conn, listed(query, actions, wanted, limit=limit, newest_first=newest_first))


def count_shown(conn: sa.Connection, project: int, annotator: int, kinds: Sequence[str], *, since: datetime) -> int:
    """How many findings an annotator was shown since then, by actions of these kinds.

    Counted by the database: the page asks with every task, and an annotator's history grows.
    """
    shown = actions.c.target["shown_at"].as_string()
    query = sa.select(sa.func.count(sa.distinct(actions.c.finding))).where(
        actions.c.project == project,
        actions.c.annotator == annotator,
        actions.c.kind.in_(kinds),
        actions.c.state.in_(("delivering", "done")),
        # Being shown is a change: of what has not changed since, nothing need be looked into.
        actions.c.updated_at > since,
        shown > since.astimezone(UTC).isoformat(),
    )
    return conn.scalar(query) or 0


def update_action(conn: sa.Connection, action: int, now: datetime, **values: Any) -> None:
    """Set columns of an action."""
    conn.execute(sa.update(actions).where(actions.c.id == action).values(**values, updated_at=now))


_ACTIONS = "actions"


def actions_enabled(conn: sa.Connection) -> bool:
    """Whether actions may run: the kill switch is off."""
    found = conn.scalar(sa.select(switches.c.on).where(switches.c.name == _ACTIONS))
    return found is None or bool(found)


def set_actions_enabled(conn: sa.Connection, enabled: bool, *, by: str, now: datetime) -> None:
    """Throw or release the kill switch."""
    values = {"on": enabled, "changed_at": now, "changed_by": by}
    conn.execute(
        insert(switches).values(name=_ACTIONS, **values).on_conflict_do_update(index_elements=["name"], set_=values)
    )
