"""Processing one delivery: versions and judgments, then the project's rules, then findings and actions.

For each annotation, everything is read from one snapshot and written in one transaction. Whether a version
is known decides whether rules run, so a delivery that is processed again after a crash finds nothing twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
import structlog

from labelguard.context import Memory, StoreContext, project_from_row
from labelguard.events import Annotation, Event, Project, Task
from labelguard.judgments import judgments_of
from labelguard.keeping import Judged, LoadedPolicy, Made, described, keep_judged, storable
from labelguard.labelconfig import LabelConfig
from labelguard.policy import ActiveRule, BadPolicy, build_rules, load_policy
from labelguard.registry import BrokenRegistry
from labelguard.rules import Finding, Guardrail, Submission
from labelguard.store import Store, records
from labelguard.store.schema import (
    annotation_versions,
    annotations as annotations_table,
    inbox,
)

log = structlog.get_logger(__name__)

Row = dict[str, Any]

_SAME_SAVE = timedelta(seconds=5)
"""Label Studio stamps created_at and updated_at of one save milliseconds apart; what is further apart was edited."""

# Built once: putting a statement together takes longer than SQLite takes to run it.
_SAME = sa.select(annotations_table).where(
    annotations_table.c.id == sa.bindparam("annotation"), annotations_table.c.created_at == sa.bindparam("created")
)
_FINISH = (
    sa.update(inbox)
    .where(inbox.c.id == sa.bindparam("delivery"))
    .values({name: sa.bindparam(name) for name in ("state", "processed_at", "error")})
)

parse_config = lru_cache(maxsize=256)(LabelConfig.parse)


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
            # Whoever has one project's token says nothing about another's annotations.
            foreign = judged.existing is not None and judged.existing["project"] != delivery["project"]
            judge = judge and judged.wanted and self._is_judged(judged) and not foreign
            if judge and unusable is None:
                self._judge(conn, delivery, event, judged)
            # What says something asks for the rest.
            loaded = self.policy(conn, delivery["project"]) if judged.made else None
            project = records.get_project(conn, delivery["project"]) if judged.made else None
        connected_at = project["connected_at"] if project else None

        def keep(conn: sa.Connection) -> None:
            if not foreign:
                complete = unusable is None or not judge
                keep_judged(conn, delivery, judged, loaded, connected_at, now=self._clock(), complete=complete)
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
            about=submission.task,
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
        annotation_versions.c.refuted_at.is_(None),
        sa.or_(annotation_versions.c.first, annotation_versions.c.updated_at <= at),
    )
    return conn.execute(known.limit(1)).first() is None


def _ever_submitted(conn: sa.Connection, row: int) -> bool:
    query = sa.select(annotation_versions.c.id).where(
        annotation_versions.c.annotation_row == row,
        annotation_versions.c.refuted_at.is_(None),
        sa.not_(annotation_versions.c.was_cancelled),
    )
    return conn.execute(query.limit(1)).first() is not None


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
