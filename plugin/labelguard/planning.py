"""From a finding to the actions its policy asks for, decided up front and written with the finding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from labelguard.policy import ActionSpec, Limits, RuleSpec
from labelguard.rules import Finding
from labelguard.store import records
from labelguard.store.schema import actions

TO_ANNOTATOR = frozenset({"prompt", "rework", "pause"})
"""Actions that need to know whom."""

STANDING = ("proposed", "approved", "delivering", "done")
"""States of actions that have, or may yet have, an effect."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What a finding is about, as far as actions need to know."""

    project: int
    annotator: int | None
    task: int | None
    annotation: int | None
    """Label Studio's id; None where a finding is not about one annotation."""
    version: Mapping[str, Any] = field(default_factory=dict)
    """``content_hash`` and ``updated_at`` (ISO) of the annotation judged: what is verified before acting."""
    overlap: int = 1
    at: datetime | None = None
    hindrance: str | None = None
    """Why nothing may be done about it, whatever its time."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to write for one finding."""

    rows: tuple[dict[str, Any], ...] = ()
    not_done: tuple[str, ...] = ()
    """Why an action that the policy names was not planned: sentences for the finding's evidence."""


def may_act(
    finding: Finding,
    spec: RuleSpec,
    limits: Limits,
    subject: Subject,
    *,
    connected_at: datetime | None,
    now: datetime,
) -> str | None:
    """Why no action may follow from a finding at all, or None when it may."""
    if spec.mode == "observe" or not spec.actions:
        return ""
    if finding.observe_only:
        return "the rule only observes here"
    if connected_at is None:
        return "the project is not connected"
    if subject.hindrance is not None:
        return subject.hindrance
    if subject.at is None or subject.at < connected_at:
        return "it happened before the project was connected"
    if now - subject.at > timedelta(seconds=limits.max_action_age):
        return "it is older than max_action_age"
    return None


def plan(
    conn: sa.Connection, finding_id: int, spec: RuleSpec, limits: Limits, subject: Subject, *, now: datetime
) -> Plan:
    """The rows of the actions that a rule's policy asks for."""
    rows: list[dict[str, Any]] = []
    not_done: list[str] = []
    for action in spec.actions:
        row = _row(conn, finding_id, action, spec, limits, subject)
        if isinstance(row, str):
            not_done.append(f"{action.kind}: {row}")
            continue
        if (earlier := _asked_by(conn, row["key"])) is None:
            rows.append({**row, "created_at": now, "updated_at": now})
            continue
        not_done.append(f"{action.kind}: finding {earlier} already asks for it")
        if action.kind == "rework" and not any(other.kind == "prompt" for other in spec.actions):
            # The annotation goes back once, but each reason is told.
            told = _row(conn, finding_id, ActionSpec(kind="prompt"), spec, limits, subject)
            if not isinstance(told, str):
                rows.append({**told, "created_at": now, "updated_at": now})
    return Plan(tuple(rows), tuple(not_done))


def _asked_by(conn: sa.Connection, key: str) -> int | None:
    """The finding that planned the same action before."""
    found: int | None = conn.scalar(sa.select(actions.c.finding).where(actions.c.key == key))
    return found


def _row(
    conn: sa.Connection, finding_id: int, action: ActionSpec, spec: RuleSpec, limits: Limits, subject: Subject
) -> dict[str, Any] | str:
    """One action's row, or why there is none."""
    kind = action.kind
    if kind in TO_ANNOTATOR and subject.annotator is None:
        return "nobody is known to tell"
    if kind in {"rework", "replace"} and subject.annotation is None:
        return "it is not about one annotation"
    if kind == "second-opinion" and subject.task is None:
        return "it is not about one task"
    target: dict[str, Any] = dict(subject.version)
    key = f"{kind}:{finding_id}"
    if kind == "rework":
        done = records.list_actions(
            conn,
            project=subject.project,
            kind="rework",
            annotator=subject.annotator,
            task=subject.task,
            states=STANDING,
        )
        if len(done) >= limits.reworks_per_task:
            return f"the task was already sent back {len(done)} times"
        # Several rules may want the same version back: it goes back once.
        key = f"rework:{subject.annotation}:{subject.version.get('updated_at')}"
    elif kind == "replace":
        target["was_cancelled"] = True
        key = f"replace:{subject.annotation}:{subject.version.get('updated_at')}"
    elif kind == "second-opinion":
        if records.list_actions(
            conn, project=subject.project, kind="second-opinion", task=subject.task, states=STANDING
        ):
            return "a second opinion was already asked for"
        there = records.current_annotations(conn, subject.project, task=subject.task)
        # A skip is nobody's opinion: Label Studio does not count it towards the overlap either.
        people = len({a["completed_by"] for a in there if not a["was_cancelled"]})
        wanted = max(subject.overlap, people, 1) + 1
        if wanted > limits.max_overlap:
            return f"the task would need an overlap of {wanted}, above max_overlap"
        target |= {"overlap": wanted, "is_labeled": False}
    elif kind in {"notify", "escalate"}:
        target["to"] = action.target
        key = f"{kind}:{finding_id}:{action.target}"
    # Against a person nothing happens before a person approves.
    approved = spec.mode == "enforce" and kind != "pause"
    return {
        "key": f"{subject.project}:{key}",
        "project": subject.project,
        "finding": finding_id,
        "kind": kind,
        "task": subject.task,
        "annotation": subject.annotation,
        "annotator": subject.annotator,
        "target": target,
        "state": "approved" if approved else "proposed",
    }


def insert_actions(conn: sa.Connection, rows: tuple[dict[str, Any], ...]) -> None:
    """Write planned actions; one whose key is there already is the same action."""
    for row in rows:
        conn.execute(insert(actions).values(**row).on_conflict_do_nothing(index_elements=["key"]))
