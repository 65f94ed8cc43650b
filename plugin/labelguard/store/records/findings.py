"""Findings and their life."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from labelguard.store.records.actions import list_actions, update_action
from labelguard.store.records.rows import LABELGUARD, Row, all_rows, first_row, listed, portions
from labelguard.store.schema import findings

FINDING_STEPS = {
    "open": {"acknowledged", "disputed", "upheld", "dismissed"},
    "acknowledged": {"disputed", "upheld", "dismissed"},
    "disputed": {"upheld", "dismissed"},
    # People may change their minds about a verdict.
    "upheld": {"dismissed"},
    "dismissed": {"upheld"},
}
"""A finding's life: from each state, where it may go."""


def dismiss_findings_of(conn: sa.Connection, version_ids: Sequence[int], note: str, now: datetime) -> list[int]:
    """Dismiss what was found in these versions, and give up what has not been done about it; returns their ids."""
    found = [
        row
        for some in portions(version_ids)
        for row in all_rows(conn, sa.select(findings).where(findings.c.version_id.in_(some)))
        if row["state"] != "dismissed"
    ]
    for row in found:
        dismiss_finding(conn, row, note, now)
    return [row["id"] for row in found]


def dismiss_finding(conn: sa.Connection, finding: Mapping[str, Any], note: str, now: datetime) -> None:
    """Dismiss a finding that rests on nothing, whoever decided what about it before."""
    words = "\n".join(filter(None, [finding["note"], note]))
    set_finding_state(conn, finding["id"], "dismissed", by=LABELGUARD, note=words, now=now)
    for action in list_actions(conn, finding=finding["id"], states=("proposed", "approved", "delivering")):
        update_action(conn, action["id"], now, state="rejected", next_at=None, error=note)


def get_finding(conn: sa.Connection, finding: int) -> Row | None:
    """One finding."""
    return first_row(conn, sa.select(findings).where(findings.c.id == finding))


def list_findings(
    conn: sa.Connection,
    *,
    project: int | None = None,
    rule: str | None = None,
    annotator: int | None = None,
    annotation: int | None = None,
    state: str | None = None,
    after: int = 0,
    limit: int | None = None,
    newest_first: bool = False,
) -> list[Row]:
    """Findings by id, each after ``after``."""
    wanted = {"project": project, "rule": rule, "annotator": annotator, "annotation": annotation, "state": state}
    query = sa.select(findings).where(findings.c.id > after)
    return all_rows(conn, listed(query, findings, wanted, limit=limit, newest_first=newest_first))


def set_finding_state(conn: sa.Connection, finding: int, state: str, *, by: str, note: str = "", now: datetime) -> None:
    """Move a finding through its life; raises ValueError with a sentence for a step that cannot be."""
    known = get_finding(conn, finding)
    if known is None:
        raise ValueError(f"There is no finding {finding}.")
    if known["state"] == state and not note:
        return
    if state != known["state"] and state not in FINDING_STEPS[known["state"]]:
        raise ValueError(f"Finding {finding} is {known['state']} and cannot become {state}.")
    conn.execute(
        sa.update(findings)
        .where(findings.c.id == finding)
        .values(state=state, state_at=now, state_by=by, note=note or known["note"])
    )
