"""What rules remember, and whether it can be trusted."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import sqlalchemy as sa

from labelguard.store.records.cursors import get_cursor, set_cursor
from labelguard.store.records.rows import upsert
from labelguard.store.schema import rule_states

_PUT_RULE_STATE = upsert(rule_states, ["project", "rule", "subject"])


def forget_rule_states(conn: sa.Connection, project: int) -> None:
    """Forget everything that rules remember about a project."""
    conn.execute(sa.delete(rule_states).where(rule_states.c.project == project))


def suspect_memory(conn: sa.Connection, project: int, version: int | None, now: datetime) -> None:
    """Note that rules may remember a refuted version; with None, that they do not any more."""
    known = suspect_version(conn, project)
    if version is None or known is None or version < known:
        set_cursor(conn, f"suspect:{project}", version, now)


def suspect_version(conn: sa.Connection, project: int) -> int | None:
    """The earliest refuted version that rules may remember."""
    found = get_cursor(conn, f"suspect:{project}")
    return None if found is None else int(found)


def put_rule_states(conn: sa.Connection, project: int, changes: Iterable[tuple[str, str, str]], now: datetime) -> None:
    """Keep rules' memories: (rule, subject, JSON text) each."""
    _PUT_RULE_STATE.insert(
        conn,
        [
            {"project": project, "rule": rule, "subject": subject, "state": text, "updated_at": now}
            for rule, subject, text in changes
        ],
    )
