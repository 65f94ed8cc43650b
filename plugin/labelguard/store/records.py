"""Reading and writing records: plain functions on a connection, grouped by what they are about.

Functions that write are called inside :meth:`Store.write`; the caller owns the transaction. Rows come back
as plain dicts with the columns of :mod:`labelguard.store.schema`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from labelguard.connectors import User
from labelguard.events import Project

Row = dict[str, Any]


# Projects and connections


def save_project(conn: sa.Connection, project: Project, now: datetime) -> None:
    """Insert or update a project; a changed guideline or label config becomes a new guideline version."""
    raise NotImplementedError


def get_project(conn: sa.Connection, project: int) -> Row | None:
    """One project's row."""
    raise NotImplementedError


def list_projects(conn: sa.Connection, *, connected: bool | None = None) -> list[Row]:
    """Projects, by id."""
    raise NotImplementedError


def set_connection(
    conn: sa.Connection, project: int, *, connected_at: datetime | None, webhook_id: int | None,
    webhook_url: str | None, token_hash: str | None,
) -> None:
    """Remember (or with Nones forget) how a project is connected."""
    raise NotImplementedError


# Annotators


def save_annotators(conn: sa.Connection, users: Sequence[User]) -> None:
    """Insert or update annotators."""
    raise NotImplementedError


def get_annotator(conn: sa.Connection, annotator: int) -> Row | None:
    """One annotator's row."""
    raise NotImplementedError


def list_annotators(conn: sa.Connection) -> list[Row]:
    """All annotators, by id."""
    raise NotImplementedError


# Annotations


def current_annotations(conn: sa.Connection, project: int, *, task: int | None = None) -> list[Row]:
    """Live annotations of a project (or of one task), by id."""
    raise NotImplementedError


def get_annotation(conn: sa.Connection, annotation: int) -> Row | None:
    """The newest annotation with that Label Studio id, deleted or not."""
    raise NotImplementedError


def mark_deleted(conn: sa.Connection, project: int, annotation_ids: Sequence[int], now: datetime) -> int:
    """Mark live annotations deleted; returns how many were."""
    raise NotImplementedError


def mark_tasks_deleted(conn: sa.Connection, project: int, task_ids: Sequence[int], now: datetime) -> int:
    """Mark tasks and their annotations deleted; returns how many tasks were."""
    raise NotImplementedError


def live_task_ids(conn: sa.Connection, project: int) -> set[int]:
    """Ids of tasks that are not deleted."""
    raise NotImplementedError


# Policies


def add_policy(conn: sa.Connection, project: int, text: str, now: datetime, by: str = "") -> int:
    """Store a policy version and return its number; the same text as the newest adds nothing."""
    raise NotImplementedError


def get_policy(conn: sa.Connection, project: int, version: int | None = None) -> Row | None:
    """A policy version, the newest without ``version``."""
    raise NotImplementedError


# Gold vault


def add_gold(
    conn: sa.Connection, project: int, task: int, result: Sequence[Mapping[str, Any]], origin: str, now: datetime
) -> int:
    """Put an answer into the vault (a changed answer is a new version) and return its version."""
    raise NotImplementedError


def get_gold(conn: sa.Connection, project: int, task: int) -> Row | None:
    """The active answer of a task."""
    raise NotImplementedError


def list_gold(conn: sa.Connection, project: int, *, retired: bool = False) -> list[Row]:
    """The vault's active (or with ``retired`` all) answers, by task and version."""
    raise NotImplementedError


def retire_gold(conn: sa.Connection, project: int, tasks: Sequence[int], now: datetime) -> int:
    """Retire answers; returns how many."""
    raise NotImplementedError


# Findings


def get_finding(conn: sa.Connection, finding: int) -> Row | None:
    """One finding."""
    raise NotImplementedError


def list_findings(
    conn: sa.Connection, *, project: int | None = None, rule: str | None = None, annotator: int | None = None,
    annotation: int | None = None, state: str | None = None, after: int = 0, limit: int | None = None,
    newest_first: bool = False,
) -> list[Row]:
    """Findings by id, each after ``after``."""
    raise NotImplementedError


def set_finding_state(
    conn: sa.Connection, finding: int, state: str, *, by: str, note: str = "", now: datetime
) -> None:
    """Move a finding through its life; raises ValueError with a sentence for a step that cannot be."""
    raise NotImplementedError


# Actions


def get_action(conn: sa.Connection, action: int) -> Row | None:
    """One action."""
    raise NotImplementedError


def list_actions(
    conn: sa.Connection, *, project: int | None = None, finding: int | None = None, kind: str | None = None,
    annotator: int | None = None, annotation: int | None = None, task: int | None = None,
    states: Sequence[str] | None = None, after: int = 0, limit: int | None = None, newest_first: bool = False,
) -> list[Row]:
    """Actions by id, each after ``after``."""
    raise NotImplementedError


def update_action(conn: sa.Connection, action: int, now: datetime, **values: Any) -> None:
    """Set columns of an action."""
    raise NotImplementedError


# Inbox, jobs, cursors, switches


def list_rejected(conn: sa.Connection, limit: int = 100) -> list[Row]:
    """Refused deliveries, newest first."""
    raise NotImplementedError


def inbox_counts(conn: sa.Connection) -> dict[tuple[str, str], int]:
    """Deliveries by (action, state)."""
    raise NotImplementedError


def start_job(conn: sa.Connection, job: str, project: int | None, now: datetime) -> int:
    """Record that a scheduled job began; returns its run id."""
    raise NotImplementedError


def finish_job(
    conn: sa.Connection, run: int, now: datetime, *, summary: Mapping[str, Any] | None = None, error: str | None = None
) -> None:
    """Record how a run ended."""
    raise NotImplementedError


def last_runs(conn: sa.Connection, job: str, project: int | None = None, limit: int = 1) -> list[Row]:
    """The newest finished runs of a job, newest first."""
    raise NotImplementedError


def get_cursor(conn: sa.Connection, name: str) -> Any:
    """A cursor's JSON value, or None."""
    raise NotImplementedError


def set_cursor(conn: sa.Connection, name: str, value: Any, now: datetime) -> None:
    """Set a cursor."""
    raise NotImplementedError


def actions_enabled(conn: sa.Connection) -> bool:
    """Whether actions may run: the kill switch is off."""
    raise NotImplementedError


def set_actions_enabled(conn: sa.Connection, enabled: bool, *, by: str, now: datetime) -> None:
    """Throw or release the kill switch."""
    raise NotImplementedError
