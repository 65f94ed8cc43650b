"""Runs of scheduled jobs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert  # its conflict clauses are SQLite's too

from labelguard.store.core import inserted_id
from labelguard.store.records.rows import Row, all_rows
from labelguard.store.schema import job_runs


def start_job(conn: sa.Connection, job: str, project: int | None, now: datetime) -> int:
    """Record that a scheduled job began; returns its run id."""
    values: Row = {"job": job, "project": project, "started_at": now, "state": "running", "summary": {}}
    return inserted_id(conn.execute(insert(job_runs).values(values)))


def finish_job(
    conn: sa.Connection,
    run: int,
    now: datetime,
    *,
    summary: Mapping[str, Any] | None = None,
    error: str | None = None,
) -> None:
    """Record how a run ended."""
    conn.execute(
        sa.update(job_runs)
        .where(job_runs.c.id == run)
        .values(finished_at=now, state="failed" if error else "done", summary=dict(summary or {}), error=error)
    )


def interrupt_job(conn: sa.Connection, run: int, *, error: str) -> None:
    """Say of a run that it did not come to its end; without an end, it counts as missed."""
    conn.execute(sa.update(job_runs).where(job_runs.c.id == run).values(state="failed", error=error))


def end_lost_jobs(conn: sa.Connection) -> int:
    """Say of runs whose process was killed that they failed; returns how many.

    They stay without an end, which nobody saw, and so count as missed.
    """
    done = conn.execute(
        sa.update(job_runs)
        .where(job_runs.c.state == "running")
        .values(state="failed", error="It ended without a word: its process was killed, or its machine stopped.")
    )
    return done.rowcount


def last_runs(conn: sa.Connection, job: str, project: int | None = None, limit: int = 1) -> list[Row]:
    """The newest finished runs of a job, newest first; ``project`` None means runs without one."""
    query = sa.select(job_runs).where(
        job_runs.c.job == job,
        job_runs.c.project.is_not_distinct_from(project),
        job_runs.c.finished_at.is_not(None),
    )
    return all_rows(conn, query.order_by(job_runs.c.id.desc()).limit(limit))


def recent_jobs(conn: sa.Connection, limit: int = 50) -> list[Row]:
    """The newest runs of all jobs, newest first."""
    return all_rows(conn, sa.select(job_runs).order_by(job_runs.c.id.desc()).limit(limit))
