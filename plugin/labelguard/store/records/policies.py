"""Policies."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert  # its conflict clauses are SQLite's too

from labelguard.store.records.rows import Row, first_row
from labelguard.store.schema import policies
from labelguard.store.statements import Statement

_NEWEST_POLICY = Statement(
    sa.select(sa.func.max(policies.c.version)).where(policies.c.project == sa.bindparam("wanted"))
)


def add_policy(conn: sa.Connection, project: int, text: str, now: datetime, by: str = "") -> int:
    """Store a policy version and return its number; the same text as the newest adds nothing."""
    newest = get_policy(conn, project)
    if newest is not None and newest["text"] == text:
        return int(newest["version"])
    version = int(newest["version"]) + 1 if newest else 1
    conn.execute(insert(policies).values(project=project, version=version, text=text, applied_at=now, applied_by=by))
    return version


def get_policy(conn: sa.Connection, project: int, version: int | None = None) -> Row | None:
    """A policy version, the newest without ``version``."""
    query = sa.select(policies).where(policies.c.project == project)
    if version is not None:
        query = query.where(policies.c.version == version)
    return first_row(conn, query.order_by(policies.c.version.desc()).limit(1))


def newest_policy_version(conn: sa.Connection, project: int) -> int | None:
    """The number of a project's newest policy, or None without one."""
    ((newest,),) = _NEWEST_POLICY.rows(conn, wanted=project)
    return None if newest is None else int(newest)
