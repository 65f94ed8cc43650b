"""What rules may ask, answered from the store."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, MutableMapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec
import sqlalchemy as sa

from labelguard.events import Project, Task
from labelguard.judgments import Judgment, judgments_of
from labelguard.policy import Policy
from labelguard.rules import GoldAnswer, TaskJudgment
from labelguard.store import Store, records
from labelguard.store.schema import annotations as annotations_table, gold, judgments, rule_states, tasks
from labelguard.store.statements import Statement, among

if TYPE_CHECKING:
    import pandas as pd


_OPINIONS = Statement(
    sa.select(
        judgments.c.task,
        judgments.c.control,
        judgments.c.annotator,
        judgments.c.annotation,
        judgments.c.kind,
        judgments.c.value,
        judgments.c.labels,
        judgments.c.at,
    )
    .join(annotations_table, annotations_table.c.row == judgments.c.annotation_row)
    .where(
        among(judgments.c.task, "tasks"),
        judgments.c.region == "",
        judgments.c.first,
        judgments.c.annotator.is_not(None),
        annotations_table.c.deleted_at.is_(None),
        sa.not_(annotations_table.c.was_cancelled),
        sa.not_(annotations_table.c.ground_truth),
    )
    .order_by(judgments.c.at, judgments.c.id)
)
_GOLD = Statement(
    sa.select(gold.c.task, gold.c.result, gold.c.version, gold.c.task_created_at)
    .where(gold.c.project == sa.bindparam("of_project"), among(gold.c.task, "tasks"), gold.c.retired_at.is_(None))
    .order_by(gold.c.version)
)
_STATES = Statement(
    sa.select(rule_states.c.rule, rule_states.c.subject, sa.cast(rule_states.c.state, sa.Text)).where(
        rule_states.c.project == sa.bindparam("of_project"),
        among(rule_states.c.rule, "rules"),
        among(rule_states.c.subject, "subjects"),
    )
)


class _Memory:
    """A rule's memory about one subject."""

    __slots__ = ("changed", "text", "value")

    def __init__(self, text: str | None) -> None:
        self.text = text
        """What it was read from, or last kept as; None where the store has none."""
        self.changed = False
        """Whether that is not what the store has."""
        self.value: dict[str, Any] = {} if text is None else msgspec.json.decode(text)
        """What rules change in place."""

    def keep(self) -> None:
        """Take in what was changed; raises TypeError or ValueError for what cannot be kept."""
        text = msgspec.json.encode(self.value)
        if text.decode() == (self.text or "{}"):
            return
        if msgspec.json.decode(text) != self.value:
            # JSON knows fewer things than Python. This says which one cannot be kept, or makes it one that can.
            text = json.dumps(self.value, allow_nan=False, ensure_ascii=False).encode()
            self.value = msgspec.json.decode(text)
        self.text, self.changed = text.decode(), True

    def forget(self) -> None:
        """Drop what was changed."""
        self.value = {} if self.text is None else msgspec.json.decode(self.text)


class Memories:
    """Rules' memories as read and changed while a batch of submissions is looked at."""

    def __init__(self, conn: sa.Connection, project: int) -> None:
        self._conn = conn
        self._project = project
        self._read: dict[str, set[str]] = {}
        """For each rule, the subjects that were asked for."""
        self._texts: dict[tuple[str, str], str] = {}
        """Of these, what the store has."""
        self._used: dict[tuple[str, str], _Memory] = {}
        self._touched: dict[str, dict[str, _Memory]] = {}
        """For each rule, what it looked into since its last :meth:`keep`, by subject."""

    def read(self, rules: Collection[str], subjects: Collection[str]) -> None:
        """Read all of these memories at once."""
        # Read for all rules or for none: what a rule asks for by itself is asked for again at most once.
        known = set.intersection(*(self._read.get(rule, set()) for rule in rules)) if rules else set(subjects)
        new = set(subjects) - known
        if not new:
            return
        for rule, subject, text in _STATES.rows(self._conn, of_project=self._project, rules=rules, subjects=new):
            self._texts[rule, subject] = text
        for rule in rules:
            self._read.setdefault(rule, set()).update(new)

    def of(self, rule: str, subject: str) -> dict[str, Any]:
        """The memory of a rule about a subject, to be changed in place."""
        memory = self._used.get((rule, subject))
        if memory is None:
            if subject not in self._read.get(rule, ()):
                self.read([rule], [subject])
            memory = self._used[rule, subject] = _Memory(self._texts.get((rule, subject)))
        self._touched.setdefault(rule, {})[subject] = memory
        return memory.value

    def asked(self) -> Iterator[tuple[str, str]]:
        """(rule, subject) of every memory that a rule looked into."""
        return iter(self._used)

    def keep(self, rule: str) -> None:
        """Take in what a rule changed since the last :meth:`keep` or :meth:`forget`.

        Raises:
            TypeError, ValueError: it put something into its memory that cannot be kept.
        """
        for memory in self._touched.get(rule, {}).values():
            memory.keep()
        self._touched.pop(rule, None)

    def forget(self, rule: str) -> None:
        """Drop what a rule changed since then: it raised half-way."""
        for memory in self._touched.pop(rule, {}).values():
            memory.forget()

    def changes(self) -> Iterator[tuple[str, str, str]]:
        """(rule, subject, JSON text) of every memory that is not what it was when it was read."""
        for (rule, subject), memory in self._used.items():
            if memory.changed and memory.text is not None:
                yield rule, subject, memory.text


class View:
    """What rules may know of a project: one snapshot of the store, and on top what a batch adds to it."""

    def __init__(self, conn: sa.Connection, project: int) -> None:
        self.conn = conn
        self.memories = Memories(conn, project)
        self._project = project
        self._times: dict[int, records.TaskTimes | None] = {}
        self._gold: dict[int, tuple[GoldAnswer, datetime | None] | None] = {}
        self._opinions: dict[int, dict[str, list[TaskJudgment]]] = {}

    def read(self, tasks: Collection[int]) -> None:
        """Read all there is to know of these tasks at once: what follows will ask for it."""
        tasks = [task for task in tasks if task not in self._times]
        if not tasks:
            return
        times = records.task_times(self.conn, tasks)
        self._times |= {task: times.get(task) for task in tasks}
        self._gold |= dict.fromkeys(tasks)
        for task, result, version, made in _GOLD.rows(self.conn, of_project=self._project, tasks=tasks):
            self._gold[task] = GoldAnswer(task, judgments_of(result), version), made
        self._opinions |= {task: {} for task in tasks}
        for task, control, annotator, annotation, kind, value, labels, at in _OPINIONS.rows(self.conn, tasks=tasks):
            said = Judgment.from_row(control, kind, "", value, labels)
            self._opinions[task].setdefault(control, []).append(TaskJudgment(annotator, annotation, said, at))

    def task_times(self, task: int) -> records.TaskTimes | None:
        """When a task was made, changed and deleted; None where it is not known."""
        if task not in self._times:
            self.read([task])
        return self._times[task]

    def gold(self, task: int) -> tuple[GoldAnswer, datetime | None] | None:
        """The vault's active answer for a task, and when that task was made, where known; or None."""
        if task not in self._gold:
            self.read([task])
        return self._gold[task]

    def opinions(self, task: int, control: str) -> list[TaskJudgment]:
        """First submissions of a task for a control, oldest first, by whomever and however many."""
        if task not in self._opinions:
            self.read([task])
        return self._opinions[task].setdefault(control, [])

    def add_opinion(self, task: int, opinion: TaskJudgment) -> None:
        """Let the submissions that follow in the batch know of this one."""
        known = self.opinions(task, opinion.judgment.control)
        known.append(opinion)
        known.sort(key=lambda each: each.at)


class StoreContext:
    """A guardrail's :class:`~labelguard.rules.Context` over a :class:`View`."""

    __slots__ = ("_about", "_annotation", "_own_user", "_rule", "_view")

    def __init__(self, view: View, *, rule: str, annotation: int, own_user: int | None, about: Task) -> None:
        """``annotation`` is the one under judgment, in the task ``about``; ``own_user``'s annotations are nobody's
        opinion.
        """
        self._view = view
        self._rule = rule
        self._annotation = annotation
        self._own_user = own_user
        self._about = about

    def task_judgments(self, task: int, control: str) -> Sequence[TaskJudgment]:
        """See :meth:`labelguard.rules.Context.task_judgments`."""
        earliest: dict[int, TaskJudgment] = {}
        for opinion in self._view.opinions(task, control):
            if opinion.annotation != self._annotation and opinion.annotator != self._own_user:
                earliest.setdefault(opinion.annotator, opinion)
        return list(earliest.values())

    def gold(self, task: int) -> GoldAnswer | None:
        """See :meth:`labelguard.rules.Context.gold`."""
        found = self._view.gold(task)
        if found is None:
            return None
        answer, of = found
        # On SQLite Label Studio gives ids out again: an earlier task's answer is not this one's.
        another = task == self._about.id and None not in (of, self._about.created_at) and of != self._about.created_at
        return None if another else answer

    def state(self, subject: str) -> MutableMapping[str, Any]:
        """See :meth:`labelguard.rules.Context.state`."""
        return self._view.memories.of(self._rule, self._one_task(subject))

    def _one_task(self, subject: str) -> str:
        """What is remembered of a task belongs to that very task, not to the next one with its id."""
        name = f"task:{self._about.id}"
        if subject != name and not subject.startswith(f"{name}:"):
            return subject
        return subject_of_task(self._about) + subject.removeprefix(name)


def subject_of_task(task: Task) -> str:
    """What memories of a task are kept under, in place of ``task:<id>``: ids are given out again."""
    return f"task:{task.id}" if task.created_at is None else f"task:{task.id}@{task.created_at.isoformat()}"


class StoreSweepContext:
    """A sweep's :class:`~labelguard.rules.SweepContext` over the store."""

    def __init__(self, store: Store, policy: Policy, *, now: datetime, own_user: int | None = None) -> None:
        self._store = store
        self._policy = policy
        self._now = now
        self._own_user = own_user
        with store.read() as conn:
            row = records.get_project(conn, policy.project)
            self._names = {a["id"]: a["name"] or a["email"] for a in records.list_annotators(conn)}
            self._cohorts = _cohort_of(policy, records.list_annotators(conn))
        self._project = project_from_row(row) if row else Project(policy.project)

    @property
    def project(self) -> Project:
        """The project as last seen."""
        return self._project

    @property
    def now(self) -> datetime:
        """The sweep's moment."""
        return self._now

    def annotator_name(self, annotator: int) -> str:
        """A name, or ``annotator 7`` where none is known."""
        return self._names.get(annotator) or f"annotator {annotator}"

    def judgments(self, control: str | None = None) -> pd.DataFrame:
        """See :meth:`labelguard.rules.SweepContext.judgments`."""
        import pandas as pd

        query = (
            sa.select(
                judgments.c.task,
                judgments.c.annotator,
                judgments.c.annotation,
                judgments.c.control,
                judgments.c.kind,
                judgments.c.region,
                judgments.c.value,
                judgments.c.labels,
                judgments.c.at,
                annotations_table.c.lead_time,
                tasks.c.data,
            )
            .join(annotations_table, annotations_table.c.row == judgments.c.annotation_row)
            # A delivery need not bring the task.
            .outerjoin(tasks, tasks.c.id == judgments.c.task)
            .where(
                judgments.c.project == self._policy.project,
                judgments.c.first,
                judgments.c.annotator.is_not(None),
                annotations_table.c.deleted_at.is_(None),
                tasks.c.deleted_at.is_(None),
                sa.not_(annotations_table.c.was_cancelled),
                sa.not_(annotations_table.c.ground_truth),
            )
            .order_by(judgments.c.at, judgments.c.id)
        )
        if control is not None:
            query = query.where(judgments.c.control == control)
        if self._own_user is not None:
            query = query.where(judgments.c.annotator != self._own_user)
        source = (self._policy.source or "").removeprefix("data.")
        with self._store.read() as conn:
            rows = [
                (
                    row.task,
                    row.annotator,
                    row.annotation,
                    row.control,
                    row.kind,
                    row.region,
                    Judgment.from_row(row.control, row.kind, row.region, row.value, row.labels).value,
                    row.at,
                    row.lead_time,
                    _source(row.data, source),
                    self._cohorts.get(row.annotator),
                )
                for row in conn.execute(query)
            ]
        columns = [
            "task",
            "annotator",
            "annotation",
            "control",
            "kind",
            "region",
            "value",
            "at",
            "duration",
            "source",
            "cohort",
        ]
        frame = pd.DataFrame.from_records(rows, columns=columns)
        frame["at"] = pd.to_datetime(frame["at"], utc=True)
        frame["duration"] = frame["duration"].astype("float64")
        return frame


def project_from_row(row: Mapping[str, Any]) -> Project:
    """The project as last seen, from its row."""
    return Project(
        id=row["id"],
        title=row["title"],
        label_config=row["label_config"],
        guideline=row["guideline"],
        maximum_annotations=row["maximum_annotations"],
        skip_queue=row["skip_queue"],
        updated_at=row["updated_at"],
    )


def _source(data: Any, key: str) -> str | None:
    value = data.get(key) if key and isinstance(data, Mapping) else None
    return None if value is None else str(value)


def _cohort_of(policy: Policy, people: Sequence[Mapping[str, Any]]) -> dict[int, str]:
    """Annotator id to cohort; policies name annotators by email or by id."""
    ids = {str(p["id"]): p["id"] for p in people} | {p["email"].lower(): p["id"] for p in people if p["email"]}
    return {
        ids[name.lower()]: cohort
        for cohort, members in policy.cohorts.items()
        for name in members
        if name.lower() in ids
    }
