"""Rules' memories without what Label Studio does not confirm.

What a rule remembers adds up over many submissions, so a refuted one cannot be taken out of it: the memories
of a project are made again from the versions that stand, in the order in which they came. What a rule said
because of refuted ones is dismissed; what it would have said without them is a finding, and leads to nothing.

This reads a project's whole history, so it is put off: a refuted version only makes the memory *suspect*. It is
made again by the nightly audit, and before an action that rests on it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
import structlog

from labelguard.context import Memories, StoreContext, View, project_from_row
from labelguard.engine import Clock, Engine
from labelguard.events import Annotation, BadDelivery, Event, Project, ResultItem, Task
from labelguard.judgments import Judgment, judgments_of
from labelguard.keeping import LoadedPolicy, Made, keep_finding, storable
from labelguard.planning import Subject
from labelguard.policy import ActiveRule, BadPolicy, build_rules, load_policy
from labelguard.processing import parse_config
from labelguard.registry import BrokenRegistry
from labelguard.rules import Guardrail, Submission, TaskJudgment
from labelguard.store import Store, records
from labelguard.store.records import Row
from labelguard.store.schema import (
    annotation_versions,
    annotations as annotations_table,
    findings,
    inbox,
    judgments,
    policies,
)

log = structlog.get_logger(__name__)

_WITHOUT = "Without the deliveries that Label Studio does not confirm, the rule does not say this."
_AFTERWARDS = "it was found only when unconfirmed deliveries were taken out"
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
_AT_ONCE = 1000
"""Versions read at a time."""


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What making the memories again came to."""

    versions: int = 0
    """Versions that the rules looked at once more."""
    dismissed: int = 0
    """Findings that do not stand without the refuted versions."""
    found: int = 0
    """Findings that refuted versions had hidden."""


def is_suspect(store: Store, project: int) -> bool:
    """Whether rules may remember something that Label Studio does not confirm."""
    with store.read() as conn:
        return records.suspect_version(conn, project) is not None


def rebuild(store: Store, engine: Engine, project: int, *, clock: Clock) -> Rebuilt:
    """Make the memories of a project's rules again where they are suspect.

    Deliveries go on being taken in meanwhile; they are judged afterwards.
    """
    with store.exclusive("engine") as role:
        with store.read() as conn:
            suspect = records.suspect_version(conn, project)
            if suspect is None:
                return Rebuilt()
            try:
                loaded = engine.processor.policy(conn, project)
            except (BadPolicy, BrokenRegistry):
                return Rebuilt()  # looked at again once the policy can be used
            replay = _Replay(conn, project, loaded, engine.own_user, suspect)
            replay.run()
        if not role.held():
            return Rebuilt()  # suspect still: the next one does it
        now = clock()

        def job(conn: sa.Connection) -> tuple[int, int]:
            records.forget_rule_states(conn, project)
            records.put_rule_states(conn, project, replay.memories.changes(), now)
            records.suspect_memory(conn, project, None, now)
            return replay.settle(conn, now)

        dismissed, found = store.write(job)
    log.info("memory_rebuilt", project=project, versions=replay.versions, dismissed=dismissed, found=found)
    return Rebuilt(replay.versions, dismissed, found)


class _Afresh(Memories):
    """Memories that begin empty, whatever the store has."""

    def read(self, rules: Collection[str], subjects: Collection[str]) -> None:
        """Read nothing."""


class _AsOf(View):
    """What rules could know when a version came."""

    def __init__(self, conn: sa.Connection, project: int) -> None:
        super().__init__(conn, project)
        self.memories = _Afresh(conn, project)
        self._of_project = project
        self.version = 0
        self.moment = _BEGINNING

    def opinions(self, task: int, control: str) -> list[TaskJudgment]:
        j, a = judgments.c, annotations_table.c
        query = (
            sa.select(j.annotator, j.annotation, j.kind, j.value, j.labels, j.at)
            .join(annotations_table, a.row == j.annotation_row)
            .where(
                j.task == task,
                j.control == control,
                j.project == self._of_project,
                j.region == "",
                j.first,
                j.version_id < self.version,
                j.annotator.is_not(None),
                sa.or_(a.deleted_at.is_(None), a.deleted_at > self.moment),
                sa.not_(a.was_cancelled),
                sa.not_(a.ground_truth),
            )
            .order_by(j.at, j.id)
        )
        return [
            TaskJudgment(annotator, annotation, Judgment.from_row(control, kind, "", value, labels), at)
            for annotator, annotation, kind, value, labels, at in self.conn.execute(query)
        ]


_Said = tuple[str, int, int | None, tuple[str, ...]]
"""A finding as it can be found again: rule, version, annotator, labels."""


class _Replay:
    """The rules of a project, looking at its history once more."""

    def __init__(
        self, conn: sa.Connection, project: int, loaded: LoadedPolicy | None, own_user: int | None, suspect: int
    ) -> None:
        self._conn = conn
        self._project = project
        self._loaded = loaded
        self._own_user = own_user
        self._suspect = suspect
        self._view = _AsOf(conn, project)
        self._since = _since(conn, project, loaded)
        row = records.get_project(conn, project)
        self._described = project_from_row(row) if row else Project(project)
        self._connected_at = row["connected_at"] if row else None
        self._shown: dict[tuple[int, datetime], tuple[ResultItem, ...]] | None = None
        self._said: dict[_Said, tuple[Made, Subject]] = {}
        self.versions = 0

    @property
    def memories(self) -> Memories:
        """What the rules remember now."""
        return self._view.memories

    def run(self) -> None:
        """Let the rules that remember look at every version that stands."""
        if not self._since:
            return
        for row in self._standing(min(self._since.values())):
            author = row["completed_by"] or row["editor"]
            if row["editor"] not in (None, author) or (self._own_user is not None and author == self._own_user):
                continue
            self.versions += 1
            self._view.version, self._view.moment = row["id"], row["recorded_at"]
            submission = self._submission(row, author)
            for active in self._loaded.rules if self._loaded else ():
                began = self._since.get(active.key)
                if began is not None and row["recorded_at"] >= began and isinstance(active.rule, Guardrail):
                    self._look(active, active.rule, submission, row)

    def _standing(self, since: datetime) -> Iterator[Row]:
        v, a = annotation_versions.c, annotations_table.c
        columns = [column for column in v if column.name != "annotation_row"]
        last = 0
        while True:
            query = (
                sa.select(*columns, a.completed_by, a.task, a.created_at, a.parent_prediction, a.id.label("annotation"))
                .join(annotations_table, a.row == v.annotation_row)
                .where(
                    a.project == self._project,
                    v.id > last,
                    v.recorded_at >= since,
                    v.judged,
                    v.refuted_at.is_(None),
                    sa.not_(v.was_cancelled),
                    sa.not_(v.ground_truth),
                )
                .order_by(v.id)
                .limit(_AT_ONCE)
            )
            rows = [dict(row) for row in self._conn.execute(query).mappings()]
            yield from rows
            if len(rows) < _AT_ONCE:
                return
            last = rows[-1]["id"]

    def _submission(self, row: Row, author: int | None) -> Submission:
        task = records.get_task(self._conn, row["task"])
        names = ("id", "project", "data", "meta", "overlap", "is_labeled", "created_at", "updated_at")
        return Submission(
            annotation=Annotation(
                id=row["annotation"],
                task=row["task"],
                project=self._project,
                result=tuple(row["result"]),
                completed_by=author,
                updated_by=row["editor"],
                created_at=row["created_at"],
                updated_at=row["updated_at"],
                lead_time=row["lead_time"],
                parent_prediction=row["parent_prediction"],
                prediction=self._prediction(row),
            ),
            task=Task(**{name: task[name] for name in names}) if task else Task(row["task"], self._project),
            project=self._described,
            config=parse_config(self._described.label_config),
            judgments=judgments_of(row["result"]),
            author=author,
            first=row["first"],
            at=row["updated_at"],
        )

    def _prediction(self, row: Row) -> tuple[ResultItem, ...]:
        """The pre-annotation that was shown: only the deliveries have it."""
        if row["parent_prediction"] is None:
            return ()
        if self._shown is None:
            self._shown = {}
            bodies = sa.select(inbox.c.body).where(inbox.c.project == self._project).order_by(inbox.c.id)
            for body in self._conn.scalars(bodies.execution_options(yield_per=100)):
                for annotation in _annotations(body):
                    if annotation.prediction and annotation.created_at is not None:
                        self._shown.setdefault((annotation.id, annotation.created_at), annotation.prediction)
        return self._shown.get((row["annotation"], row["created_at"]), ())

    def _look(self, active: ActiveRule, rule: Guardrail, submission: Submission, row: Row) -> None:
        annotation, author = submission.annotation, submission.author
        context = StoreContext(
            self._view, rule=active.key, annotation=annotation.id, own_user=self._own_user, about=submission.task
        )
        try:
            found = [storable(finding) for finding in rule.check(submission, context)]
            self.memories.keep(active.key)
        except Exception:
            # It failed when the version came as well, and said so then.
            log.exception("rule_failed", rule=active.name, annotation=annotation.id)
            self.memories.forget(active.key)
            return
        for finding in found:
            about = Subject(
                project=self._project,
                annotator=finding.annotator or author,
                task=finding.task or annotation.task,
                annotation=finding.annotation or annotation.id,
                at=submission.at,
                hindrance=_AFTERWARDS,
            )
            self._said[(active.name, row["id"], about.annotator, tuple(finding.labels))] = (
                Made(active, finding),
                about,
            )

    def settle(self, conn: sa.Connection, now: datetime) -> tuple[int, int]:
        """Dismiss findings that do not stand any more, and keep those that were hidden; how many of each."""
        if self._loaded is None:
            return 0, 0
        since = {active.name: self._since[active.key] for active in self._loaded.rules if active.key in self._since}
        known: set[_Said] = set()
        dismissed = 0
        query = sa.select(findings).where(
            findings.c.project == self._project,
            findings.c.version_id >= self._suspect,
            findings.c.rule.in_(list(since)),
        )
        for finding in [dict(row) for row in conn.execute(query).mappings()]:
            if "error" in finding["evidence"] or finding["created_at"] < since[finding["rule"]]:
                continue  # about the rule itself, or made with other options
            said = (finding["rule"], finding["version_id"], finding["annotator"], tuple(finding["labels"]))
            known.add(said)
            if said not in self._said and finding["state"] != "dismissed":
                records.dismiss_finding(conn, finding, _WITHOUT, now)
                dismissed += 1
        hidden = [said for said in self._said if said[1] >= self._suspect and said not in known]
        for said in hidden:
            made, about = self._said[said]
            keep_finding(conn, made, self._loaded, about, version_id=said[1], connected_at=self._connected_at, now=now)
        return dismissed, len(hidden)


def _since(conn: sa.Connection, project: int, loaded: LoadedPolicy | None) -> dict[str, datetime]:
    """Since when each rule that remembers has been in the policy, with the options that it has now."""
    rules = loaded.rules if loaded is not None else ()
    wanted = {active.key for active in rules if isinstance(active.rule, Guardrail) and not active.rule.stateless}
    since: dict[str, datetime] = {}
    query = sa.select(policies).where(policies.c.project == project).order_by(policies.c.version.desc())
    for row in conn.execute(query).mappings():
        try:
            wanted &= {active.key for active in build_rules(load_policy(row["text"]))}
        except (BadPolicy, BrokenRegistry):
            break
        if not wanted:
            break
        since.update(dict.fromkeys(wanted, row["applied_at"]))
    return since


def _annotations(body: Mapping[str, Any]) -> tuple[Annotation, ...]:
    try:
        return Event.from_delivery({}, body).annotations
    except BadDelivery:
        return ()
