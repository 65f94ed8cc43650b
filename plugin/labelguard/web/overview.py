"""What is going on, read in one snapshot: the content of the status page and of ``/api/v1/status``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from labelguard import distrust
from labelguard.reviews import agreement
from labelguard.store import records, schema
from labelguard.store.records import Row

FINDING_STATES = ("open", "acknowledged", "disputed", "upheld", "dismissed")
ACTION_STATES = ("proposed", "approved", "delivering", "done", "failed", "undone", "rejected")

# The page is looked at, not searched: whoever needs more asks the API or the command line.
_NEWEST = 15
_MOST_ANNOTATORS = 12
_LAG_OVER = 500


def overview(conn: sa.Connection, now: datetime, project: int | None = None) -> dict[str, Any]:
    """Everything the status page shows, about one project or about all."""
    return {
        "at": now,
        "project": project,
        "projects": _projects(conn),
        "actions_enabled": records.actions_enabled(conn),
        "switch": _switch(conn),
        "deliveries": _deliveries(conn, now, project),
        "findings": _findings(conn, project),
        "actions": _actions(conn, project),
        "reviews": agreement(conn, project),
        "needs_a_person": _needs_a_person(conn, project, now),
        "jobs": _jobs(conn, project),
    }


def list_actions(
    conn: sa.Connection,
    *,
    project: int | None = None,
    rule: str | None = None,
    annotator: int | None = None,
    kind: str | None = None,
    finding: int | None = None,
    states: Sequence[str] | None = None,
    after: int = 0,
    limit: int | None = None,
    newest_first: bool = False,
) -> list[Row]:
    """Actions by id, each after ``after``, with ``rule``, ``message`` and ``evidence`` of their findings."""
    actions, findings = schema.actions.c, schema.findings.c
    query = (
        sa.select(schema.actions, findings.rule, findings.message, findings.evidence)
        .join(schema.findings, actions.finding == findings.id)
        .where(actions.id > after)
        .order_by(actions.id.desc() if newest_first else actions.id)
        .limit(limit)
    )
    wanted = {
        actions.project: project,
        findings.rule: rule,
        actions.annotator: annotator,
        actions.kind: kind,
        actions.finding: finding,
    }
    for column, value in wanted.items():
        if value is not None:
            query = query.where(column == value)
    if states is not None:
        query = query.where(actions.state.in_(states))
    return _rows(conn, query)


def names(conn: sa.Connection) -> dict[int, str]:
    """What to call each annotator on a page for admins: the name, else the email, else the number."""
    return {
        row["id"]: row["name"].strip() or row["email"] or f"annotator {row['id']}"
        for row in records.list_annotators(conn)
    }


def with_note(finding: Mapping[str, Any], by: str, note: str) -> str:
    """A finding's note with the words of who decided after the annotator's own."""
    return "\n".join(filter(None, [finding["note"], f"{by}: {note}" if note else ""]))


def _projects(conn: sa.Connection) -> list[Row]:
    policies = schema.policies.c
    newest = sa.select(policies.project, sa.func.max(policies.version)).group_by(policies.project)
    versions: dict[int, int] = {row[0]: row[1] for row in conn.execute(newest)}
    return [
        {
            "id": row["id"],
            "title": row["title"],
            "connected_at": row["connected_at"],
            "policy_version": versions.get(row["id"]),
        }
        for row in records.list_projects(conn)
    ]


def _switch(conn: sa.Connection) -> Row | None:
    """Who changed the kill switch last, and when; None where nobody ever has."""
    found = _rows(conn, sa.select(schema.switches).where(schema.switches.c.name == "actions"))
    return {"changed_at": found[0]["changed_at"], "changed_by": found[0]["changed_by"]} if found else None


def _deliveries(conn: sa.Connection, now: datetime, project: int | None) -> Row:
    inbox = schema.inbox.c

    def count(*where: sa.ColumnElement[bool]) -> int:
        query = sa.select(sa.func.count()).select_from(schema.inbox).where(*where)
        return conn.scalar(_of(query, inbox.project, project)) or 0

    oldest = conn.scalar(
        _of(sa.select(sa.func.min(inbox.received_at)).where(inbox.state == "pending"), inbox.project, project)
    )
    # Lag is told of what came in by webhook: a back-fill waits its turn by intention.
    recent = _of(
        sa.select(inbox.received_at, inbox.processed_at)
        .where(inbox.processed_at.is_not(None), inbox.origin == "webhook")
        .order_by(inbox.id.desc())
        .limit(_LAG_OVER),
        inbox.project,
        project,
    )
    lags = sorted(max(0.0, (done - came).total_seconds()) for came, done in conn.execute(recent))
    return {
        "last_hour": count(inbox.received_at > now - timedelta(hours=1)),
        "last_day": count(inbox.received_at > now - timedelta(days=1)),
        "total": count(),
        "newest_at": conn.scalar(_of(sa.select(sa.func.max(inbox.received_at)), inbox.project, project)),
        "pending": count(inbox.state == "pending"),
        "pending_oldest_seconds": (now - oldest).total_seconds() if oldest else None,
        "lag_p50_seconds": _quantile(lags, 0.5),
        "lag_p99_seconds": _quantile(lags, 0.99),
    }


def _findings(conn: sa.Connection, project: int | None) -> Row:
    table, c = schema.findings, schema.findings.c
    by_rule: dict[str, dict[str, int]] = {}
    grouped = _of(sa.select(c.rule, c.state, sa.func.count()).group_by(c.rule, c.state), c.project, project)
    for rule, state, number in conn.execute(grouped):
        by_rule.setdefault(rule, dict.fromkeys(FINDING_STATES, 0))[state] = number
    about = _of(
        sa.select(
            c.annotator,
            sa.func.count(),
            sa.func.count(sa.case((c.state == "disputed", 1))),
            sa.func.count(sa.distinct(c.rule)),
        )
        .where(c.annotator.is_not(None))
        .group_by(c.annotator)
        .order_by(sa.func.count().desc(), c.annotator)
        .limit(_MOST_ANNOTATORS),
        c.project,
        project,
    )
    called = names(conn)
    newest = _rows(conn, _of(sa.select(table).order_by(c.id.desc()).limit(_NEWEST), c.project, project))
    return {
        "by_rule": [
            {"rule": rule, "total": sum(states.values()), **states}
            for rule, states in sorted(by_rule.items(), key=lambda item: -sum(item[1].values()))
        ],
        "by_annotator": [
            {
                "annotator": annotator,
                "name": called.get(annotator, f"annotator {annotator}"),
                "total": total,
                "disputed": disputed,
                "rules": rules,
            }
            for annotator, total, disputed, rules in conn.execute(about)
        ],
        "newest": _named(newest, called),
    }


def _actions(conn: sa.Connection, project: int | None) -> Row:
    c = schema.actions.c
    by_kind: dict[str, dict[str, int]] = {}
    grouped = _of(sa.select(c.kind, c.state, sa.func.count()).group_by(c.kind, c.state), c.project, project)
    for kind, state, number in conn.execute(grouped):
        by_kind.setdefault(kind, dict.fromkeys(ACTION_STATES, 0))[state] = number
    newest = list_actions(conn, project=project, limit=_NEWEST, newest_first=True)
    return {
        "by_kind": [
            {"kind": kind, "total": sum(states.values()), **states} for kind, states in sorted(by_kind.items())
        ],
        "newest": _named(newest, names(conn)),
    }


def _needs_a_person(conn: sa.Connection, project: int | None, now: datetime) -> Row:
    called = names(conn)
    disputes = records.list_findings(conn, project=project, state="disputed", limit=_NEWEST)
    return {
        "proposed": _named(list_actions(conn, project=project, states=["proposed"], limit=_NEWEST), called),
        "disputed": _named(disputes, called),
        "failed_actions": _named(
            list_actions(conn, project=project, states=["failed"], limit=_NEWEST, newest_first=True), called
        ),
        "failed_deliveries": records.failed_deliveries(conn, _NEWEST, project=project),
        "failed_jobs": [run for run in _jobs(conn, project) if run["state"] == "failed"],
        "webhook_problems": _webhook_problems(conn, project, now),
        "unconfirmed": _unconfirmed(conn, project),
        "rejected": records.list_rejected(conn, 5, project=project),
    }


def _unconfirmed(conn: sa.Connection, project: int | None) -> list[Row]:
    """What deliveries said and Label Studio does not confirm, a sentence and an advice for each project."""
    found: dict[int, list[Row]] = {}
    for doubt in records.list_doubts(conn, project):
        found.setdefault(doubt["project"], []).append(doubt)
    return [
        {"project": about, "message": distrust.sentence(doubts), "advice": distrust.advice(about)}
        for about, doubts in found.items()
        if distrust.contradictions(doubts)
    ]


def _webhook_problems(conn: sa.Connection, project: int | None, now: datetime) -> list[Row]:
    """What the watchdog found wrong within a day: somebody, or something, switches the webhook off."""
    c = schema.job_runs.c
    query = (
        sa.select(c.project, c.started_at, c.summary)
        .where(c.job == "watchdog", c.started_at > now - timedelta(days=1))
        .order_by(c.id.desc())
    )
    return [row for row in _rows(conn, _of(query, c.project, project)) if row["summary"].get("problems")][:_NEWEST]


def _jobs(conn: sa.Connection, project: int | None) -> list[Row]:
    """The newest run of each job and project."""
    c = schema.job_runs.c
    newest = sa.select(sa.func.max(c.id)).group_by(c.job, c.project)
    query = sa.select(schema.job_runs).where(c.id.in_(newest)).order_by(c.job, c.project)
    return _rows(conn, _of(query, c.project, project))


def _of(query: sa.Select[Any], column: sa.Column[int], project: int | None) -> sa.Select[Any]:
    return query if project is None else query.where(column == project)


def _named(rows: Sequence[Row], called: dict[int, str]) -> list[Row]:
    def name(annotator: int | None) -> str | None:
        return None if annotator is None else called.get(annotator, f"annotator {annotator}")

    return [{**row, "annotator_name": name(row["annotator"])} for row in rows]


def _rows(conn: sa.Connection, query: sa.Select[Any]) -> list[Row]:
    return [dict(row) for row in conn.execute(query).mappings()]


def _quantile(ordered: Sequence[float], share: float) -> float | None:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None
