"""Processing deliveries: versions and judgments, then the project's rules, then findings and actions.

Deliveries of a project are taken in batches: what a batch needs is read from one snapshot, and all that it
led to is written in one transaction, together with the deliveries' own rows. Whether a version is known
decides whether rules run, so a delivery that is processed again after a crash finds nothing twice.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import ExitStack
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import product
from typing import Any

import sqlalchemy as sa
import structlog

from labelguard import inbox
from labelguard.context import StoreContext, View, project_from_row, subject_of_task
from labelguard.events import ANNOTATION_ACTIONS, Annotation, Event, Project, Task
from labelguard.inbox import Delivery
from labelguard.judgments import judgments_of
from labelguard.keeping import Judged, LoadedPolicy, Made, described, keep_judged, storable
from labelguard.labelconfig import LabelConfig
from labelguard.policy import ActiveRule, BadPolicy, build_rules, load_policy
from labelguard.registry import BrokenRegistry, load_rules
from labelguard.reviews import REVIEW_ACTIONS, keep_review
from labelguard.rules import Finding, Guardrail, Submission, TaskJudgment
from labelguard.store import Store, records
from labelguard.store.schema import annotation_versions, annotations as annotations_table
from labelguard.store.statements import Statement, among

log = structlog.get_logger(__name__)

Row = dict[str, Any]

_SAME_SAVE = timedelta(seconds=5)
"""Label Studio stamps created_at and updated_at of one save milliseconds apart; what is further apart was edited."""

_AT_ONCE = 200
"""Annotations that are read and written together: an import brings thousands."""

_HELD_BACK = 0.01
"""Seconds for which senders are not answered one by one: each would want the interpreter while the others wait."""

_LESSONS, _SUBJECTS = 100, 50
"""Batches from which is learned how rules name their subjects, and how many ways are remembered."""

_KNOWN = Statement(
    sa.select(annotations_table.c.id, annotations_table.c.created_at).where(among(annotations_table.c.id, "ids"))
)

_SAME = sa.select(annotations_table).where(
    annotations_table.c.id == sa.bindparam("annotation"), annotations_table.c.created_at == sa.bindparam("created")
)

parse_config = lru_cache(maxsize=256)(LabelConfig.parse)


class Processor:
    """Processes deliveries, one batch at a time."""

    def __init__(self, store: Store, clock: Callable[[], datetime], own_user: int | None = None) -> None:
        self.store = store
        self.clock = clock
        self.own_user = own_user
        self._policies: dict[int, LoadedPolicy] = {}
        self._crashes: dict[tuple[str, str], datetime] = {}
        self._subjects: set[tuple[bool, str]] = set()
        self._lessons = 0

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

    def warm_up(self) -> None:
        """Load rules and policies now: the first annotator to submit should not wait for imports."""
        load_rules()
        with self.store.read() as conn:
            for project in records.list_projects(conn, connected=True):
                try:
                    self.policy(conn, project["id"])
                except BadPolicy as error:
                    log.error("policy_unusable", project=project["id"], reason=str(error))  # noqa: TRY400

    # Deliveries

    def process(self, deliveries: Sequence[Delivery]) -> None:
        """Process deliveries of one project in their order; each is in the inbox as done, or nothing of it is.

        Raises:
            StoreError: the store could not be read or written; what was not :attr:`Delivery.settled` was not
                processed.
        """
        batch = Batch(self, deliveries[0].project)
        try:
            batch.look(deliveries)
            batch.write()
        finally:
            batch.close()

    # Rules

    def likely_subjects(self, people: Collection[str], tasks: Collection[str]) -> list[str]:
        """Subjects that rules will look up memories of when these people have submitted these tasks."""
        return [name + rest for of_person, rest in self._subjects for name in (people if of_person else tasks)]

    def learn(self, view: View, people: Collection[str], tasks: Collection[str]) -> None:
        """Notice how rules name their subjects, so that memories can be read at once for the next batch."""
        if self._lessons >= _LESSONS or len(self._subjects) >= _SUBJECTS:
            return
        self._lessons += 1
        for (_rule, subject), (of_person, names) in product(view.memories.asked(), ((True, people), (False, tasks))):
            for name in names:
                if subject == name or subject.startswith(f"{name}:"):
                    self._subjects.add((of_person, subject.removeprefix(name)))

    def judge(self, view: View, loaded: LoadedPolicy, judged: Judged, submission: Submission) -> None:
        """Let the rules look at a submission."""
        for active in loaded.rules:
            if isinstance(active.rule, Guardrail):
                found = self._run(view, active, active.rule, submission)
                judged.made.extend(found)
                if active.rule.stateless and not found:
                    judged.quiet.add(active.name)
        judged.quiet -= {made.active.name for made in judged.made}

    def _run(self, view: View, active: ActiveRule, rule: Guardrail, submission: Submission) -> list[Made]:
        context = StoreContext(
            view,
            rule=active.key,
            annotation=submission.annotation.id,
            own_user=self.own_user,
            about=submission.task,
        )
        try:
            found = [Made(active, storable(finding)) for finding in rule.check(submission, context)]
            view.memories.keep(active.key)
        except Exception as error:
            view.memories.forget(active.key)
            log.exception("rule_failed", rule=active.name, annotation=submission.annotation.id)
            return self._crash(active, error, submission)
        return found

    def _crash(self, active: ActiveRule, error: Exception, submission: Submission) -> list[Made]:
        """A finding about the rule itself, at most one an hour for the same kind of error."""
        what = described(error)
        now = self.clock()
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


class Batch:
    """Deliveries of one project that are looked at as they come, from one snapshot, and written together."""

    def __init__(self, processor: Processor, project: int) -> None:
        self._processor = processor
        self._store = processor.store
        self.project = project
        self._coming: deque[Delivery] = deque()
        self._snapshot = ExitStack()
        self._view: View | None = None
        self._begin()

    def _begin(self) -> None:
        self.answered: Delivery | None = None
        """The last whose sender need not wait any longer although nothing of it is written yet."""
        self._finished: list[Delivery] = []
        self._projects: list[Project] = []
        self._tasks: dict[int, tuple[Task, datetime | None]] = {}
        self._judged: list[Judged] = []
        self._new: set[int] = set()
        self._known: set[tuple[Any, ...]] = set()
        self._looked_up: set[int] = set()
        self._loaded: LoadedPolicy | None = None
        self._described: Project | None = None
        self._connected_at: datetime | None = None
        self._unusable: str | None = None

    # Reading

    def _opened(self) -> View:
        """The snapshot that the batch reads, with the project and its policy as they are in it."""
        if self._view is not None:
            return self._view
        conn = self._snapshot.enter_context(self._store.read())
        view = self._view = View(conn, self.project)
        row = records.project_now(conn, self.project)
        if row is not None:
            self._described, self._connected_at = project_from_row(row), row["connected_at"]
        try:
            self._loaded = self._processor.policy(conn, self.project)
        except (BadPolicy, BrokenRegistry) as error:
            log.error("policy_unusable", reason=str(error))  # noqa: TRY400 - the sentence says it all
            self._unusable = f"Kept, but not judged, because the policy cannot be used: {error}"[:500]
        self._read_ahead(view)
        return view

    def close(self) -> None:
        """Let go of the snapshot."""
        self._view = None
        self._snapshot.close()

    def _read_ahead(self, view: View) -> None:
        """Ask once for what the annotations that come next will ask for one by one."""
        coming: list[Annotation] = []
        for delivery in self._coming:
            coming += delivery.event.annotations[: _AT_ONCE - len(coming)] if delivery.event is not None else ()
        new = {annotation.id for annotation in coming} - self._looked_up
        if new:
            self._known.update(_KNOWN.rows(view.conn, ids=new))
            self._looked_up |= new
        view.read({annotation.task for annotation in coming})
        people = {f"annotator:{person}" for a in coming if (person := a.completed_by or a.updated_by) is not None}
        named = {subject_of_task(task) for delivery in self._coming if delivery.event for task in delivery.event.tasks}
        if subjects := self._processor.likely_subjects(people, named):
            rules = [active.key for active in self._loaded.rules] if self._loaded is not None else []
            view.memories.read(rules, subjects)

    # Taking deliveries

    def __len__(self) -> int:
        """How many deliveries were looked at and are not written yet."""
        return len(self._finished)

    @property
    def presses(self) -> bool:
        """Whether something was found: it has to be written before its sender is answered."""
        return any(judged.made for judged in self._judged)

    def look(self, deliveries: Sequence[Delivery]) -> None:
        """Let the rules look at further deliveries; senders whose delivery led to nothing need not wait longer."""
        self._coming.extend(deliveries)
        if self._view is not None:
            self._read_ahead(self._view)
        until, quiet = time.monotonic() + _HELD_BACK, list[Delivery]()
        try:
            while self._coming:
                delivery, before = self._coming[0], self._judged
                count = len(before)
                self._take(delivery)
                self._coming.popleft()
                # Where something was written meanwhile, what is there now is all of this delivery.
                if not any(judged.made for judged in self._judged[count if self._judged is before else 0 :]):
                    quiet.append(delivery)
                if time.monotonic() >= until:
                    self._let_go(quiet)
        finally:
            self._let_go(quiet)

    def _let_go(self, quiet: list[Delivery]) -> None:
        """Let senders be answered whose delivery led to nothing."""
        for delivery in quiet:
            if not delivery.settled:
                self.answered = delivery
            delivery.judge(settled=False)
        quiet.clear()

    def _take(self, delivery: Delivery) -> None:
        """Take the next delivery into the batch, writing what came before where it must be read first."""
        event = delivery.event
        if event is None:
            raise RuntimeError("a delivery is processed with its event")
        if not event.known:
            self._finish(delivery, "ignored")
            return
        alone = False
        if event.action not in ANNOTATION_ACTIONS or not self._note(delivery, event):
            self.write()
            if not self._changed(delivery, event):
                return
        for number, annotation in enumerate(event.annotations, start=1):
            if annotation.created_at is None or self._is_known(annotation):
                alone = self._again(delivery, event, annotation)
            else:
                alone = self._first_time(delivery, event, annotation)
            if number < len(event.annotations) and (alone or len(self._judged) >= _AT_ONCE):
                self.write()
        self._finish(delivery, "failed" if delivery.error else "done")
        if alone:
            self.write()

    def _finish(self, delivery: Delivery, state: inbox.State) -> None:
        delivery.state = state
        self._finished.append(delivery)

    def _note(self, delivery: Delivery, event: Event) -> bool:
        """Remember what an event says of its project and tasks; False where that changes what rules would read."""
        view = self._opened()
        known = {task.id: view.task_times(task.id) for task in event.tasks}
        for task in event.tasks:
            before = known[task.id]
            if before is not None and task.created_at and before.created_at and task.created_at != before.created_at:
                return False  # another task has got its id
        told = event.project
        if told is not None and told.id == self.project and told.label_config and told != self._described:
            now = self._described.updated_at if self._described is not None else None
            if not (told.updated_at and now and told.updated_at < now):
                self._projects.append(told)
                self._described = told
        for task in event.tasks:
            noted, before = self._tasks.get(task.id), known[task.id]
            updated = noted[0].updated_at if noted is not None else before.updated_at if before is not None else None
            if not (task.updated_at and updated and task.updated_at < updated):
                deleted = before.deleted_at if before is not None and delivery.origin == "webhook" else None
                self._tasks[task.id] = (task, deleted)
        return True

    def _changed(self, delivery: Delivery, event: Event) -> bool:
        """Write at once what an event says of its project and tasks; False where nothing of it is left to do."""
        more = bool(event.annotations)
        now = self._processor.clock()

        def job(conn: sa.Connection) -> bool:
            # Its row was put there before this job came into the writer's line: by now it is known.
            inbox.check_kept([delivery])
            if delivery.duplicate:
                return False
            _keep_surroundings(conn, delivery, event, now)
            if not more:
                inbox.finish(conn, [delivery], now)
            return more

        delivery.state = "pending" if more else "done"
        if self._store.write(job):
            return True
        delivery.judge(settled=True)
        return False

    def _is_known(self, annotation: Annotation) -> bool:
        view = self._opened()
        if annotation.id not in self._looked_up:
            self._known |= set(_KNOWN.rows(view.conn, ids=[annotation.id]))
            self._looked_up.add(annotation.id)
        return annotation.id in self._new or (annotation.id, annotation.created_at) in self._known

    def _first_time(self, delivery: Delivery, event: Event, annotation: Annotation) -> bool:
        """Look at an annotation that the store does not have yet; others may follow in the same batch."""
        at = annotation.updated_at or annotation.created_at or delivery.received_at
        judged = Judged(delivery, annotation, None, at, fresh=True, author=author_of(annotation))
        judged.first = self._is_first(delivery, event, judged)
        self._look(delivery, event, judged)
        self._new.add(annotation.id)
        if judged.first:
            view, annotator = self._opened(), annotation.completed_by or judged.author
            for judgment in judged.judgments:
                if annotator is not None and not judgment.region:
                    opinion = TaskJudgment(annotator, annotation.id, judgment, at)
                    view.add_opinion(annotation.task, opinion)
        return False

    def _again(self, delivery: Delivery, event: Event, annotation: Annotation) -> bool:
        """Look at an annotation that the store, or this batch, has: by itself, since what it was must be read."""
        self.write()
        conn = self._opened().conn
        if (before := inbox.same(conn, delivery)) is not None and before[1] != "pending":
            return False  # a redelivery
        at = annotation.updated_at or annotation.created_at or delivery.received_at
        existing = _existing(conn, annotation)
        if existing is not None and existing["project"] != delivery.project:
            return False  # whoever has one project's token says nothing about another's annotations
        judged = Judged(delivery, annotation, existing, at, fresh=True, author=author_of(annotation))
        if existing is not None:
            version = _version(conn, existing["row"], at, annotation)
            judged.late = at < existing["updated_at"]
            judged.fresh = version is None and (not judged.late or _overtaken(conn, event, existing["row"], at))
            if version is not None and not version["judged"] and at == existing["updated_at"]:
                judged.unjudged = version["id"]
                judged.first = version["first"]
            # A deletion is final unless Label Studio itself lists the annotation again.
            if existing["deleted_at"] is not None and delivery.origin == "webhook":
                judged.fresh = False
        if judged.fresh:
            judged.first = self._is_first(delivery, event, judged)
        self._look(delivery, event, judged)
        return True

    def _look(self, delivery: Delivery, event: Event, judged: Judged) -> None:
        """Read what an annotation says and let the rules look at it, where they are to."""
        judged.judgments = judgments_of(judged.annotation.result) if judged.wanted else ()
        judge = event.action != "TASKS_CREATED" or delivery.origin != "webhook"
        judge = judge and judged.wanted and self._is_judged(judged)
        delivery.error = self._unusable
        judged.complete = self._unusable is None or not judge
        if judge and self._unusable is None and self._loaded is not None:
            self._processor.judge(self._opened(), self._loaded, judged, self._submission(event, judged))
        self._judged.append(judged)

    def _is_first(self, delivery: Delivery, event: Event, judged: Judged) -> bool:
        annotation = judged.annotation
        if annotation.was_cancelled or annotation.ground_truth or judged.author is None:
            return False
        if judged.late:
            return True
        if judged.existing is not None:
            # A skip that becomes a submission later is a first submission then.
            return not _ever_submitted(self._opened().conn, judged.existing["row"])
        if delivery.origin == "webhook":
            return event.action != "ANNOTATION_UPDATED"
        # Found by looking: what it was before an edit that no webhook brought cannot be known.
        return annotation.created_at is None or judged.at - annotation.created_at <= _SAME_SAVE

    def _is_judged(self, judged: Judged) -> bool:
        annotation, own = judged.annotation, self._processor.own_user
        foreign = annotation.updated_by not in (None, annotation.completed_by) and annotation.completed_by is not None
        return not (
            annotation.was_cancelled
            or annotation.ground_truth
            or foreign
            or (own is not None and own in (annotation.completed_by, annotation.updated_by))
        )

    def _submission(self, event: Event, judged: Judged) -> Submission:
        annotation = judged.annotation
        task = event.task_of(annotation)
        if task is None and (row := records.get_task(self._opened().conn, annotation.task)) is not None:
            task = _task_from_row(row)
        project = self._described or event.project or Project(self.project)
        return Submission(
            annotation=annotation,
            task=task or Task(annotation.task, self.project),
            project=project,
            config=parse_config(project.label_config),
            judgments=judged.judgments,
            author=judged.author,
            first=judged.first,
            at=judged.at,
        )

    # Writing

    def write(self) -> None:
        """Write everything that was looked at so far."""
        if not (self._finished or self._judged):
            return
        finished, judged, view = self._finished, self._judged, self._view
        now = self._processor.clock()

        def job(conn: sa.Connection) -> list[tuple[Judged, int]]:
            inbox.check_kept([*finished, *(one.delivery for one in judged)])
            for project in self._projects:
                records.save_project(conn, project, now)
            records.put_tasks(conn, self._tasks.values())
            found = keep_judged(conn, judged, self._loaded, self._connected_at, now)
            if view is not None:
                records.put_rule_states(conn, self.project, view.memories.changes(), now)
            inbox.finish(conn, finished, now)
            return found

        self.close()
        if view is not None:
            # Before the write, where it would keep every other writer waiting.
            people = {f"annotator:{one.author}" for one in judged}
            self._processor.learn(view, people, {subject_of_task(task) for task, _deleted in self._tasks.values()})
        # What a power cut takes back of it stands in the inbox as to be processed; nothing was done about it yet.
        for one, finding in self._store.write(job, lazily=not self.presses):
            one.delivery.found = True
            log.info("finding_made", delivery=one.delivery.id, finding=finding, annotation=one.annotation.id)
        self._begin()
        for delivery in finished:
            delivery.judge(settled=True)


def _keep_surroundings(conn: sa.Connection, delivery: Delivery, event: Event, now: datetime) -> None:
    """Keep what an event says of its project and tasks, and of what is gone."""
    project = delivery.project
    if event.project is not None and event.project.id == project and event.project.label_config:
        records.save_project(conn, event.project, now)
    for task in event.tasks:
        records.save_task(conn, task, now, listed=delivery.origin != "webhook")
    if event.action == "ANNOTATIONS_DELETED":
        records.mark_deleted(conn, project, event.deleted, now)
    elif event.action == "TASKS_DELETED":
        records.mark_tasks_deleted(conn, project, event.deleted, now)
    elif event.action in REVIEW_ACTIONS:
        keep_review(conn, project, event, now)


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
