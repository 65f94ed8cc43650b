"""Writing what one submission led to: the annotation, its version, judgments, findings and actions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from labelguard import planning
from labelguard.events import Annotation
from labelguard.inbox import Delivery
from labelguard.judgments import Judgment
from labelguard.policy import ActiveRule, Policy
from labelguard.rules import SEVERITIES, Finding
from labelguard.store import records
from labelguard.store.core import inserted_id
from labelguard.store.schema import annotation_versions, annotations as annotations_table, findings, judgments
from labelguard.store.statements import Statement, adding

Row = dict[str, Any]

_a, _v = annotations_table.c, annotation_versions.c
_ADD_ANNOTATION = Statement(
    adding(annotations_table, but=["row", "deleted_at"]).returning(_a.row, _a.id), numbered=True
)
_ADD_VERSION = Statement(
    adding(annotation_versions, but=["id", "refuted_at"]).returning(_v.id, _v.annotation_row), numbered=True
)
_ADD_JUDGMENT = Statement(adding(judgments, but=["id"]))


@dataclass(frozen=True, slots=True)
class LoadedPolicy:
    """A stored policy version, built."""

    version: int
    policy: Policy
    rules: tuple[ActiveRule, ...]


@dataclass(slots=True)
class Made:
    """A finding on its way into the store."""

    active: ActiveRule
    finding: Finding
    crash: bool = False


@dataclass(slots=True)
class Judged:
    """One annotation of a delivery, compared with the store and looked at by the rules."""

    delivery: Delivery
    annotation: Annotation
    existing: Row | None
    at: datetime
    fresh: bool
    """Whether this version is new to the store."""
    late: bool = False
    """Whether a later version overtook it: it is history, and not what the annotation says now."""
    first: bool = False
    author: int | None = None
    judgments: tuple[Judgment, ...] = ()
    made: list[Made] = field(default_factory=list)
    quiet: set[str] = field(default_factory=set)
    """Names of stateless rules that looked and had nothing to say."""
    complete: bool = True
    """False where the rules could not look: they will, later."""
    unjudged: int | None = None
    """The id of this version where the store has it, but no policy could be used when it came."""

    @property
    def wanted(self) -> bool:
        """Whether the rules have yet to look at it."""
        return self.fresh or self.unjudged is not None


def keep_judged(
    conn: sa.Connection,
    judged: Sequence[Judged],
    loaded: LoadedPolicy | None,
    connected_at: datetime | None,
    now: datetime,
) -> list[tuple[Judged, int]]:
    """Write what is new of a batch, with the findings and actions that it led to; returns the findings' ids."""
    known = [one for one in judged if _is_kept(conn, one)]
    kept = [*_keep_new(conn, [one for one in judged if one.existing is None], now), *_keep_again(conn, known, now)]
    people = (person for one, *_ in kept for person in (one.annotation.completed_by, one.annotation.updated_by))
    records.note_annotators(conn, sorted({person for person in people if person is not None}))
    found: list[tuple[Judged, int]] = []
    for one, row, number, version in kept:
        if number > 1 and not one.late and one.author is not None:
            _saved_again(conn, row, one, now)
        elif number > 1 and not one.late:
            _saved_by_another(conn, row, one, now)
        if loaded is not None and one.made:
            task = records.get_task(conn, one.annotation.task)
            for made in one.made:
                finding = keep_finding(
                    conn,
                    made,
                    loaded,
                    _subject(conn, one, made, task),
                    version_id=version,
                    delivery=one.delivery.id,
                    connected_at=connected_at,
                    now=now,
                )
                found.append((one, finding))
    return found


_Kept = tuple[Judged, int, int, int]
"""What was written: the annotation's row, its version's number and its version's id."""


def _is_kept(conn: sa.Connection, judged: Judged) -> bool:
    """Whether there is anything to write of an annotation that the store has."""
    if judged.existing is None:
        return False
    if not judged.fresh:
        _refresh(conn, judged)
    return judged.fresh or (judged.unjudged is not None and judged.complete)


def _keep_new(conn: sa.Connection, judged: Sequence[Judged], now: datetime) -> list[_Kept]:
    """Write annotations that the store does not have, all with one statement for each table."""
    encoded = {one.annotation.id: msgspec.json.encode(one.annotation.result).decode() for one in judged}
    made = _ADD_ANNOTATION.insert(
        conn,
        [
            {
                "id": one.annotation.id,
                "created_at": one.annotation.created_at or one.at,
                "versions": 1,
                **_annotation_values(one, encoded[one.annotation.id]),
            }
            for one in judged
        ],
    )
    rows = {number: row for row, number in made}
    versions = _ADD_VERSION.insert(
        conn,
        [_version_values(one, rows[one.annotation.id], 1, encoded[one.annotation.id], now) for one in judged],
    )
    ids = {row: version for version, row in versions}
    kept = [(one, (row := rows[one.annotation.id]), 1, ids[row]) for one in judged]
    _ADD_JUDGMENT.insert(
        conn, [values for one, row, _, version in kept for values in _judgment_values(one, row, version)]
    )
    return kept


def _keep_again(conn: sa.Connection, judged: Sequence[Judged], now: datetime) -> list[_Kept]:
    """Write further versions, and that what no rule could look at has been looked at."""
    kept: list[_Kept] = []
    for one in judged:
        existing = one.existing or {}
        row, number = int(existing["row"]), int(existing["versions"])
        if not one.fresh:
            version = int(one.unjudged or 0)
            conn.execute(sa.update(annotation_versions).where(annotation_versions.c.id == version).values(judged=True))
            kept.append((one, row, number, version))
            continue
        number += 1
        result = msgspec.json.encode(one.annotation.result).decode()
        values: Row = {}
        if not one.late:
            # Saved again, so it is there.
            told = {"result": list(one.annotation.result), "deleted_at": None}
            values = {**_annotation_values(one, result), **told}
        conn.execute(
            sa.update(annotations_table).where(annotations_table.c.row == row).values(versions=number, **values)
        )
        ((version, _),) = _ADD_VERSION.insert(conn, [_version_values(one, row, number, result, now)])
        _ADD_JUDGMENT.insert(conn, _judgment_values(one, row, version))
        kept.append((one, row, number, version))
    return kept


def keep_finding(
    conn: sa.Connection,
    made: Made,
    loaded: LoadedPolicy,
    subject: planning.Subject,
    *,
    version_id: int | None,
    delivery: int | None = None,
    connected_at: datetime | None,
    now: datetime,
) -> int:
    """Write a finding with the actions that its policy asks for; returns its id."""
    finding, spec = made.finding, made.active.spec
    # When something was saved, and since when a project is connected, are told by Label Studio's clock.
    skew = records.clock_skew(conn)
    if version_id is None and subject.at is not None:
        subject = replace(subject, at=subject.at + skew)
    refusal = planning.may_act(finding, spec, loaded.policy.limits, subject, connected_at=connected_at, now=now + skew)
    finding_id = inserted_id(
        conn.execute(
            insert(findings).values(
                project=subject.project,
                rule=made.active.name,
                policy_version=loaded.version,
                version_id=version_id,
                task=subject.task,
                annotation=subject.annotation,
                annotator=None if made.crash else subject.annotator,
                control=finding.control or spec.control,
                labels=list(finding.labels),
                severity=finding.severity if made.crash else spec.severity or finding.severity,
                mode="observe" if finding.observe_only else spec.mode,
                message=finding.message,
                evidence={**finding.evidence},
                feedback={**finding.feedback},
                at=subject.at or now,
                created_at=now,
                state="open",
                note="",
                delivery=delivery,
            )
        )
    )
    not_done: tuple[str, ...] = (f"no action: {refusal}",) if refusal else ()
    if refusal is None:
        plan = planning.plan(conn, finding_id, spec, loaded.policy.limits, subject, now=now)
        planning.insert_actions(conn, plan.rows)
        not_done = plan.not_done
    if not_done:
        evidence = {**finding.evidence, "not_done": list(not_done)}
        conn.execute(sa.update(findings).where(findings.c.id == finding_id).values(evidence=evidence))
    return finding_id


def described(error: BaseException) -> str:
    """What was raised, as text that can be kept."""
    return f"{type(error).__name__}: {error}"[:300].encode("utf-8", "replace").decode()


def storable(finding: Finding) -> Finding:
    """The finding, provided that it can be kept: a rule may yield anything, and is then the one that failed.

    Raises:
        TypeError, ValueError: it is no finding, or holds what JSON or the store cannot.
    """
    if not isinstance(finding, Finding):
        raise TypeError(f"a rule yields findings, not {type(finding).__name__}")
    if finding.severity not in SEVERITIES:
        raise ValueError(f"the severity {finding.severity!r} is none of {', '.join(SEVERITIES)}")
    for about in (finding.annotator, finding.task, finding.annotation):
        if about is not None and type(about) is not int:
            raise TypeError(f"a finding names its subject by whole numbers, not by {type(about).__name__}")
    kept = [finding.message, finding.control, list(finding.labels), {**finding.evidence}, {**finding.feedback}]
    json.dumps(kept, allow_nan=False, ensure_ascii=False).encode()
    return finding


def _refresh(conn: sa.Connection, judged: Judged) -> None:
    """Take what Label Studio changes without a new version: ground truth moves, deletions taken back."""
    existing, annotation = judged.existing, judged.annotation
    if existing is None or judged.at != existing["updated_at"]:
        return
    values: Row = {"ground_truth": annotation.ground_truth}
    if existing["completed_by"] is None or existing["completed_by"] >= 0:  # below are those who were erased
        values["completed_by"] = annotation.completed_by
    if judged.delivery.origin != "webhook":
        values["deleted_at"] = None
    if any(existing[key] != value for key, value in values.items()):
        conn.execute(sa.update(annotations_table).where(annotations_table.c.row == existing["row"]).values(values))


def _annotation_values(judged: Judged, result: str) -> Row:
    annotation = judged.annotation
    return {
        "project": judged.delivery.project,
        "task": annotation.task,
        "completed_by": annotation.completed_by,
        "updated_by": annotation.updated_by,
        "updated_at": judged.at,
        "content_hash": annotation.content_hash,
        "result": result,
        "was_cancelled": annotation.was_cancelled,
        "ground_truth": annotation.ground_truth,
        "lead_time": annotation.lead_time,
        "parent_prediction": annotation.parent_prediction,
    }


def _version_values(judged: Judged, row: int, number: int, result: str, now: datetime) -> Row:
    annotation = judged.annotation
    return {
        "annotation_row": row,
        "number": number,
        "updated_at": judged.at,
        "content_hash": annotation.content_hash,
        "editor": annotation.updated_by or annotation.completed_by,
        "first": judged.first,
        "origin": judged.delivery.origin,
        "result": result,
        "was_cancelled": annotation.was_cancelled,
        "ground_truth": annotation.ground_truth,
        "lead_time": annotation.lead_time,
        "recorded_at": now,
        "judged": judged.complete,
    }


def _judgment_values(judged: Judged, row: int, version: int) -> list[Row]:
    annotation = judged.annotation
    return [
        {
            "version_id": version,
            "annotation_row": row,
            "project": judged.delivery.project,
            "task": annotation.task,
            "annotation": annotation.id,
            "annotator": annotation.completed_by or judged.author,
            "control": judgment.control,
            "kind": judgment.kind,
            "region": judgment.region,
            "value": msgspec.json.encode(judgment.value_json()).decode(),
            "labels": msgspec.json.encode(judgment.labels).decode(),
            "first": judged.first,
            "at": judged.at,
        }
        for judgment in judged.judgments
    ]


def _saved_again(conn: sa.Connection, row: int, judged: Judged, now: datetime) -> None:
    """The annotator saved again: what was asked of them is done, what is right now is no longer open.

    Where a rule speaks of the new version too, its new finding takes the place of the old one.
    """
    by = f"annotator {judged.author}"
    for rework in _standing(conn, row, judged, "rework"):
        records.update_action(conn, rework["id"], now, state="done", decided_by=by, error=None)
    again = {made.active.name for made in judged.made if made.active.rule.stateless}
    for finding in _open_findings(conn, row, judged.quiet | again):
        spoke = finding["rule"] in again
        note = (
            "The annotator saved again, and the rule spoke again." if spoke else "The annotator changed the annotation."
        )
        records.set_finding_state(conn, finding["id"], "acknowledged", by=by, note=note, now=now)
        for action in records.list_actions(conn, finding=finding["id"], states=("proposed", *_APPROVED)):
            if action["state"] == "proposed":
                why = "The annotator saved again first." if spoke else "The annotator corrected it first."
                records.update_action(conn, action["id"], now, state="rejected", decided_by=by, error=why)
            elif action["kind"] == "prompt" and action["annotator"] == judged.author:
                records.update_action(conn, action["id"], now, state="done", decided_by=by, error=None)


def _saved_by_another(conn: sa.Connection, row: int, judged: Judged, now: datetime) -> None:
    """Somebody else saved it: nothing of it is the annotator's to do over."""
    for rework in _standing(conn, row, judged, "rework"):
        why = "Somebody else changed the annotation first."
        records.update_action(conn, rework["id"], now, state="rejected", error=why)


_APPROVED = ("approved", "delivering")


def _standing(conn: sa.Connection, row: int, judged: Judged, kind: str) -> list[Row]:
    """Actions in the page about this very annotation: ids are given out again, rows are not."""
    annotation = judged.annotation
    found = records.list_actions(conn, kind=kind, annotation=annotation.id, states=_APPROVED)
    about = {f["id"] for f in _findings_of(conn, row)} if found else set()
    return [a for a in found if a["finding"] in about and a["annotator"] in (judged.author, annotation.completed_by)]


def _open_findings(conn: sa.Connection, row: int, rules: set[str]) -> list[Row]:
    return [f for f in _findings_of(conn, row) if f["state"] == "open" and f["rule"] in rules] if rules else []


def _findings_of(conn: sa.Connection, row: int) -> list[Row]:
    query = (
        sa.select(findings.c.id, findings.c.rule, findings.c.state)
        .join(annotation_versions, annotation_versions.c.id == findings.c.version_id)
        .where(annotation_versions.c.annotation_row == row, findings.c.annotation.is_not(None))
    )
    return [dict(found) for found in conn.execute(query).mappings()]


def _subject(conn: sa.Connection, judged: Judged, made: Made, task: Row | None) -> planning.Subject:
    """What a guardrail's finding is about: the submission, unless the rule names somebody else's work."""
    finding, annotation = made.finding, judged.annotation
    project, hindrance = judged.delivery.project, None
    if judged.delivery.origin == "backfill":
        hindrance = "it came with what was annotated before"
    elif judged.late:
        hindrance = "the annotation was saved again since"
    elsewhere = finding.task is not None and finding.task != annotation.task
    other = finding.annotation is not None and finding.annotation != annotation.id
    about_person = finding.annotator is not None and finding.annotator != judged.author
    if elsewhere or other or about_person:
        own_task = None if elsewhere else annotation.task
        return subject_of(conn, project, finding, task=own_task, at=judged.at, hindrance=hindrance)
    return planning.Subject(
        project=project,
        annotator=judged.author,
        task=annotation.task,
        annotation=annotation.id,
        version={"content_hash": annotation.content_hash, "updated_at": judged.at.isoformat()},
        overlap=task["overlap"] if task else 1,
        at=judged.at,
        hindrance=hindrance,
    )


def subject_of(
    conn: sa.Connection,
    project: int,
    finding: Finding,
    *,
    at: datetime,
    task: int | None = None,
    hindrance: str | None = None,
) -> planning.Subject:
    """What a finding is about that names its subject itself, as the store knows it."""
    known = records.get_annotation(conn, finding.annotation) if finding.annotation is not None else None
    if finding.task is not None:
        task = finding.task
    elif known is not None:
        task = known["task"]
    row = records.get_task(conn, task) if task is not None else None
    annotator = finding.annotator
    if annotator is None and known is not None and known["updated_by"] in (None, known["completed_by"]):
        annotator = known["completed_by"]
    version = {"content_hash": known["content_hash"], "updated_at": known["updated_at"].isoformat()} if known else {}
    return planning.Subject(
        project=project,
        annotator=annotator,
        task=task,
        annotation=finding.annotation,
        version=version,
        overlap=row["overlap"] if row else 1,
        at=at,
        hindrance=hindrance,
    )
