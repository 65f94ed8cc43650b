"""Processing one delivery: versions and judgments, then the project's rules, then findings and actions.

For each annotation, everything is read from one snapshot and written in one transaction. Whether a version
is known decides whether rules run, so a delivery that is processed again after a crash finds nothing twice.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
import structlog
from sqlalchemy.dialects.sqlite import insert

from labelguard import planning
from labelguard.context import Memory, StoreContext, project_from_row
from labelguard.events import Annotation, Event, Project, Task
from labelguard.judgments import Judgment, judgments_of
from labelguard.labelconfig import LabelConfig
from labelguard.policy import ActiveRule, BadPolicy, Policy, build_rules, load_policy
from labelguard.registry import BrokenRegistry
from labelguard.rules import SEVERITIES, Finding, Guardrail, Submission
from labelguard.store import Store, records
from labelguard.store.core import inserted_id
from labelguard.store.schema import (
    annotation_versions,
    annotations as annotations_table,
    findings,
    inbox,
    judgments,
)

log = structlog.get_logger(__name__)

Row = dict[str, Any]

_SAME_SAVE = timedelta(seconds=5)
"""Label Studio stamps created_at and updated_at of one save milliseconds apart; what is further apart was edited."""

# Built once: putting a statement together takes longer than SQLite takes to run it.
_ADD_ANNOTATION = insert(annotations_table)
_ADD_VERSION = insert(annotation_versions)
_ADD_JUDGMENT = insert(judgments)
_SAME = sa.select(annotations_table).where(
    annotations_table.c.id == sa.bindparam("annotation"), annotations_table.c.created_at == sa.bindparam("created")
)
_FINISH = (
    sa.update(inbox)
    .where(inbox.c.id == sa.bindparam("delivery"))
    .values({name: sa.bindparam(name) for name in ("state", "processed_at", "error")})
)

parse_config = lru_cache(maxsize=256)(LabelConfig.parse)


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
    memory: Memory | None = None
    unjudged: int | None = None
    """The id of this version where the store has it, but no policy could be used when it came."""

    @property
    def wanted(self) -> bool:
        """Whether the rules have yet to look at it."""
        return self.fresh or self.unjudged is not None


class Processor:
    """Processes deliveries, one at a time."""

    def __init__(self, store: Store, clock: Callable[[], datetime], own_user: int | None = None) -> None:
        self._store = store
        self._clock = clock
        self.own_user = own_user
        self._policies: dict[int, LoadedPolicy] = {}
        self._crashes: dict[tuple[str, str], datetime] = {}

    # Policies

    def policy(self, conn: sa.Connection, project: int) -> LoadedPolicy | None:
        """The project's newest policy, built; None without one."""
        version = records.newest_policy_version(conn, project)
        if version is None:
            return None
        known = self._policies.get(project)
        if known is None or known.version != version:
            row = records.get_policy(conn, project, version)
            policy = load_policy(row["text"] if row else "", f"policy of project {project}, version {version}")
            known = self._policies[project] = LoadedPolicy(version, policy, build_rules(policy))
        return known

    # Deliveries

    def process(self, delivery: Row, event: Event) -> None:
        """Process one inbox row and mark it done, all or (for each annotation) nothing."""
        now = self._clock()
        if not event.known:
            self._store.write(lambda conn: _finish(conn, delivery["id"], "ignored", now))
            return
        self._store.write(lambda conn: self._surroundings(conn, delivery, event, now))
        judge = event.action != "TASKS_CREATED" or delivery["origin"] != "webhook"
        unusable = self._unusable(delivery["project"]) if event.annotations else None
        for number, annotation in enumerate(event.annotations, start=1):
            # With the last one: most deliveries have one annotation, and a commit waits for the disk.
            last = number == len(event.annotations)
            self._one(delivery, event, annotation, judge=judge, unusable=unusable, last=last)
        if not event.annotations:
            self._store.write(lambda conn: _finish(conn, delivery["id"], "done", now))

    def _surroundings(self, conn: sa.Connection, delivery: Row, event: Event, now: datetime) -> None:
        project: int = delivery["project"]
        if event.project is not None and event.project.id == project and event.project.label_config:
            records.save_project(conn, event.project, now)
        for task in event.tasks:
            records.save_task(conn, task, now, listed=delivery["origin"] != "webhook")
        if event.action == "ANNOTATIONS_DELETED":
            records.mark_deleted(conn, project, event.deleted, now)
        elif event.action == "TASKS_DELETED":
            records.mark_tasks_deleted(conn, project, event.deleted, now)

    def _unusable(self, project: int) -> str | None:
        """Why the project's policy cannot be used (a rule was uninstalled, say), or None."""
        with self._store.read() as conn:
            try:
                self.policy(conn, project)
            except (BadPolicy, BrokenRegistry) as error:
                log.error("policy_unusable", reason=str(error))  # noqa: TRY400 - the sentence says it all
                return f"Kept, but not judged, because the policy cannot be used: {error}"[:500]
        return None

    def _one(
        self, delivery: Row, event: Event, annotation: Annotation, *, judge: bool, unusable: str | None, last: bool
    ) -> None:
        with self._store.read() as conn:
            judged = self._compare(conn, delivery, event, annotation)
            judge = judge and judged.wanted and self._is_judged(judged)
            if judge and unusable is None:
                self._judge(conn, delivery, event, judged)
            # What says something asks for the rest.
            loaded = self.policy(conn, delivery["project"]) if judged.made else None
            project = records.get_project(conn, delivery["project"]) if judged.made else None
        connected_at = project["connected_at"] if project else None

        def keep(conn: sa.Connection) -> None:
            self._keep(conn, delivery, judged, loaded, connected_at, complete=unusable is None or not judge)
            if last:
                state = "done" if unusable is None else "failed"
                _finish(conn, delivery["id"], state, self._clock(), unusable)

        self._store.write(keep)

    def _compare(self, conn: sa.Connection, delivery: Row, event: Event, annotation: Annotation) -> Judged:
        at = annotation.updated_at or annotation.created_at or delivery["received_at"]
        existing = _existing(conn, annotation)
        judged = Judged(annotation, existing, at, fresh=True)
        judged.author = author_of(annotation)
        if existing is not None:
            version = _version(conn, existing["row"], at, annotation)
            judged.late = at < existing["updated_at"]
            judged.fresh = version is None and (not judged.late or _overtaken(conn, event, existing["row"], at))
            if version is not None and not version["judged"] and at == existing["updated_at"]:
                judged.unjudged = version["id"]
                judged.first = version["first"]
            # A deletion is final unless Label Studio itself lists the annotation again.
            if existing["deleted_at"] is not None and delivery["origin"] == "webhook":
                judged.fresh = False
        if judged.fresh:
            judged.first = self._is_first(conn, delivery, event, judged)
        judged.judgments = judgments_of(annotation.result) if judged.wanted else ()
        return judged

    def _is_first(self, conn: sa.Connection, delivery: Row, event: Event, judged: Judged) -> bool:
        annotation = judged.annotation
        if annotation.was_cancelled or annotation.ground_truth or judged.author is None:
            return False
        if judged.late:
            return True
        if judged.existing is not None:
            # A skip that becomes a submission later is a first submission then.
            return not _ever_submitted(conn, judged.existing["row"])
        if delivery["origin"] == "webhook":
            return event.action != "ANNOTATION_UPDATED"
        # Found by looking: what it was before an edit that no webhook brought cannot be known.
        return annotation.created_at is None or judged.at - annotation.created_at <= _SAME_SAVE

    def _is_judged(self, judged: Judged) -> bool:
        annotation = judged.annotation
        foreign = annotation.updated_by not in (None, annotation.completed_by) and annotation.completed_by is not None
        return not (
            annotation.was_cancelled
            or annotation.ground_truth
            or foreign
            or (self.own_user is not None and self.own_user in (annotation.completed_by, annotation.updated_by))
        )

    # Rules

    def _judge(self, conn: sa.Connection, delivery: Row, event: Event, judged: Judged) -> None:
        loaded = self.policy(conn, delivery["project"])
        if loaded is None:
            return
        submission = self._submission(conn, delivery["project"], event, judged)
        judged.memory = Memory(conn, delivery["project"])
        for active in loaded.rules:
            if isinstance(active.rule, Guardrail):
                found = self._run(conn, active, active.rule, submission, judged)
                judged.made.extend(found)
                if active.rule.stateless and not found:
                    judged.quiet.add(active.name)
        judged.quiet -= {made.active.name for made in judged.made}

    def _submission(self, conn: sa.Connection, project_id: int, event: Event, judged: Judged) -> Submission:
        annotation = judged.annotation
        task = event.task_of(annotation)
        if task is None and (row := records.get_task(conn, annotation.task)) is not None:
            task = _task_from_row(row)
        row = records.get_project(conn, project_id)
        project = project_from_row(row) if row else event.project or Project(project_id)
        return Submission(
            annotation=annotation,
            task=task or Task(annotation.task, project_id),
            project=project,
            config=parse_config(project.label_config),
            judgments=judged.judgments,
            author=judged.author,
            first=judged.first,
            at=judged.at,
        )

    def _run(
        self, conn: sa.Connection, active: ActiveRule, rule: Guardrail, submission: Submission, judged: Judged
    ) -> list[Made]:
        memory = judged.memory
        if memory is None:
            raise RuntimeError("a rule runs with a memory")
        context = StoreContext(
            conn,
            project=submission.project.id,
            rule=active.key,
            memory=memory,
            annotation=submission.annotation.id,
            own_user=self.own_user,
        )
        try:
            found = [Made(active, storable(finding)) for finding in rule.check(submission, context)]
            memory.check(active.key)
        except Exception as error:
            memory.forget(active.key)
            log.exception("rule_failed", rule=active.name, annotation=submission.annotation.id)
            return self._crash(active, error, submission)
        return found

    def _crash(self, active: ActiveRule, error: Exception, submission: Submission) -> list[Made]:
        """A finding about the rule itself, at most one an hour for the same kind of error."""
        what = described(error)
        now = self._clock()
        # By kind of error: the words of one may hold a task's id, and differ each time.
        same = (active.key, type(error).__name__)
        before = self._crashes.get(same)
        if before is not None and now - before < timedelta(hours=1):
            return []
        self._crashes[same] = now
        finding = Finding(
            message=f"The rule {active.name} failed on annotation {submission.annotation.id} ({what}). "
            "The other rules ran; nothing was concluded about the annotation.",
            evidence={"error": what},
            severity="error",
            observe_only=True,
        )
        return [Made(active, finding, crash=True)]

    # Writing

    def _keep(
        self,
        conn: sa.Connection,
        delivery: Row,
        judged: Judged,
        loaded: LoadedPolicy | None,
        connected_at: datetime | None,
        *,
        complete: bool,
    ) -> None:
        """Write what is new. ``complete`` is False where the rules could not look: they will, later."""
        now = self._clock()
        annotation = judged.annotation
        if judged.existing is not None and not judged.fresh:
            _refresh(conn, delivery, judged)
            if judged.unjudged is None or not complete:
                return
            row, number, version = judged.existing["row"], judged.existing["versions"], judged.unjudged
            conn.execute(sa.update(annotation_versions).where(annotation_versions.c.id == version).values(judged=True))
        else:
            row, number = _save_annotation(conn, delivery["project"], judged)
            version = _save_version(conn, row, number, delivery["origin"], judged, now, complete=complete)
            _save_judgments(conn, delivery["project"], row, version, judged)
        for person in {annotation.completed_by, annotation.updated_by} - {None}:
            records.note_annotator(conn, int(person))  # type: ignore[arg-type] # None was taken out
        if judged.memory is not None:
            for rule, subject, state in judged.memory.changes():
                records.set_rule_state(conn, delivery["project"], rule, subject, state, now)
        if number > 1 and not judged.late and judged.author is not None:
            _saved_again(conn, row, judged, now)
        elif number > 1 and not judged.late:
            _saved_by_another(conn, row, judged, now)
        if loaded is not None and judged.made:
            task = records.get_task(conn, annotation.task)
            for made in judged.made:
                about = _subject(conn, delivery, judged, made, task)
                keep_finding(conn, made, loaded, about, version_id=version, connected_at=connected_at, now=now)


def keep_finding(
    conn: sa.Connection,
    made: Made,
    loaded: LoadedPolicy,
    subject: planning.Subject,
    *,
    version_id: int | None,
    connected_at: datetime | None,
    now: datetime,
) -> int:
    """Write a finding with the actions that its policy asks for; returns its id."""
    finding, spec = made.finding, made.active.spec
    refusal = planning.may_act(finding, spec, loaded.policy.limits, subject, connected_at=connected_at, now=now)
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


def described(error: Exception) -> str:
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


def author_of(annotation: Annotation) -> int | None:
    """Whom a version is held against: the annotator it is by, provided that they saved it themselves.

    ``completed_by`` is whatever a client claims; the server itself sets only ``updated_by``.
    """
    if annotation.updated_by is None or annotation.completed_by is None:
        return annotation.completed_by or annotation.updated_by
    return annotation.completed_by if annotation.updated_by == annotation.completed_by else None


def _existing(conn: sa.Connection, annotation: Annotation) -> Row | None:
    if annotation.created_at is None:
        return records.get_annotation(conn, annotation.id)
    found = conn.execute(_SAME, {"annotation": annotation.id, "created": annotation.created_at}).mappings().first()
    return dict(found) if found is not None else None


def _version(conn: sa.Connection, row: int, at: datetime, annotation: Annotation) -> Row | None:
    v = annotation_versions.c
    query = sa.select(v.id, v.first, v.judged).where(
        v.annotation_row == row, v.updated_at == at, v.content_hash == annotation.content_hash
    )
    found = conn.execute(query.limit(1)).mappings().first()
    return dict(found) if found is not None else None


def _overtaken(conn: sa.Connection, event: Event, row: int, at: datetime) -> bool:
    """Whether a first version only now comes in: with Redis Label Studio's deliveries overtake each other."""
    if event.action not in ("ANNOTATION_CREATED", "ANNOTATIONS_CREATED"):
        return False
    known = sa.select(annotation_versions.c.id).where(
        annotation_versions.c.annotation_row == row,
        sa.or_(annotation_versions.c.first, annotation_versions.c.updated_at <= at),
    )
    return conn.execute(known.limit(1)).first() is None


def _ever_submitted(conn: sa.Connection, row: int) -> bool:
    query = sa.select(annotation_versions.c.id).where(
        annotation_versions.c.annotation_row == row, sa.not_(annotation_versions.c.was_cancelled)
    )
    return conn.execute(query.limit(1)).first() is not None


def _refresh(conn: sa.Connection, delivery: Row, judged: Judged) -> None:
    """Take what Label Studio changes without a new version: ground truth moves, deletions taken back."""
    existing, annotation = judged.existing, judged.annotation
    if existing is None or judged.at != existing["updated_at"]:
        return
    values: Row = {"ground_truth": annotation.ground_truth, "completed_by": annotation.completed_by}
    if delivery["origin"] != "webhook":
        values["deleted_at"] = None
    if any(existing[key] != value for key, value in values.items()):
        conn.execute(sa.update(annotations_table).where(annotations_table.c.row == existing["row"]).values(values))


def _save_annotation(conn: sa.Connection, project: int, judged: Judged) -> tuple[int, int]:
    """Insert or update the annotation; returns its row and its new version's number."""
    annotation = judged.annotation
    values: Row = {
        "project": project,
        "task": annotation.task,
        "completed_by": annotation.completed_by,
        "updated_by": annotation.updated_by,
        "updated_at": judged.at,
        "content_hash": annotation.content_hash,
        "result": list(annotation.result),
        "was_cancelled": annotation.was_cancelled,
        "ground_truth": annotation.ground_truth,
        "lead_time": annotation.lead_time,
        "parent_prediction": annotation.parent_prediction,
        "deleted_at": None,
    }
    if judged.existing is None:
        created = annotation.created_at or judged.at
        made = {"id": annotation.id, "created_at": created, "versions": 1, **values}
        return inserted_id(conn.execute(_ADD_ANNOTATION, made)), 1
    row, number = int(judged.existing["row"]), int(judged.existing["versions"]) + 1
    if judged.late:
        values = {}
    conn.execute(sa.update(annotations_table).where(annotations_table.c.row == row).values(versions=number, **values))
    return row, number


def _save_version(
    conn: sa.Connection, row: int, number: int, origin: str, judged: Judged, now: datetime, *, complete: bool
) -> int:
    annotation = judged.annotation
    values = {
        "annotation_row": row,
        "number": number,
        "updated_at": judged.at,
        "content_hash": annotation.content_hash,
        "editor": annotation.updated_by or annotation.completed_by,
        "first": judged.first,
        "origin": origin,
        "result": list(annotation.result),
        "was_cancelled": annotation.was_cancelled,
        "ground_truth": annotation.ground_truth,
        "lead_time": annotation.lead_time,
        "recorded_at": now,
        "judged": complete,
    }
    return inserted_id(conn.execute(_ADD_VERSION, values))


def _save_judgments(conn: sa.Connection, project: int, row: int, version: int, judged: Judged) -> None:
    annotation = judged.annotation
    rows = [
        {
            "version_id": version,
            "annotation_row": row,
            "project": project,
            "task": annotation.task,
            "annotation": annotation.id,
            "annotator": annotation.completed_by or judged.author,
            "control": judgment.control,
            "kind": judgment.kind,
            "region": judgment.region,
            "value": judgment.value_json(),
            "labels": list(judgment.labels),
            "first": judged.first,
            "at": judged.at,
        }
        for judgment in judged.judgments
    ]
    if rows:
        conn.execute(_ADD_JUDGMENT, rows)


def _saved_again(conn: sa.Connection, row: int, judged: Judged, now: datetime) -> None:
    """The annotator saved again: what was asked of them is done, what is right now is no longer open.

    Where a rule speaks of the new version too, its new finding takes the place of the old one.
    """
    by = f"annotator {judged.author}"
    for rework in _standing(conn, row, judged, "rework"):
        records.update_action(conn, rework["id"], now, state="done", decided_by=by)
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
                records.update_action(conn, action["id"], now, state="done", decided_by=by)


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


def _subject(conn: sa.Connection, delivery: Row, judged: Judged, made: Made, task: Row | None) -> planning.Subject:
    """What a guardrail's finding is about: the submission, unless the rule names somebody else's work."""
    finding, annotation = made.finding, judged.annotation
    project, hindrance = delivery["project"], None
    if delivery["origin"] == "backfill":
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


def _task_from_row(row: Row) -> Task:
    columns: Iterable[str] = (
        "id",
        "project",
        "data",
        "meta",
        "overlap",
        "is_labeled",
        "created_at",
        "updated_at",
    )
    return Task(**{column: row[column] for column in columns})


def _finish(conn: sa.Connection, delivery: int, state: str, now: datetime, error: str | None = None) -> None:
    conn.execute(_FINISH, {"delivery": delivery, "state": state, "processed_at": now, "error": error})


def fail_delivery(conn: sa.Connection, delivery: int, now: datetime, error: str) -> None:
    """Set a delivery aside that cannot be processed; its body stays for a person to look at."""
    _finish(conn, delivery, "failed", now, error)
