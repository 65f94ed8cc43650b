"""What rules may ask, answered from the store."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from labelguard.events import Project, Task
from labelguard.judgments import Judgment, judgments_of
from labelguard.policy import Policy
from labelguard.rules import GoldAnswer, TaskJudgment
from labelguard.store import Store, records
from labelguard.store.schema import annotations as annotations_table, judgments, tasks

if TYPE_CHECKING:
    import pandas as pd


_TASK_JUDGMENTS = (
    sa.select(
        judgments.c.annotator,
        judgments.c.annotation,
        judgments.c.kind,
        judgments.c.value,
        judgments.c.labels,
        judgments.c.at,
    )
    .join(annotations_table, annotations_table.c.row == judgments.c.annotation_row)
    .where(
        judgments.c.task == sa.bindparam("of_task"),
        judgments.c.control == sa.bindparam("of_control"),
        judgments.c.project == sa.bindparam("of_project"),
        judgments.c.region == "",
        judgments.c.first,
        judgments.c.annotation != sa.bindparam("annotation"),
        judgments.c.version_id < sa.bindparam("before"),
        annotations_table.c.created_at >= sa.bindparam("since", type_=annotations_table.c.created_at.type),
        judgments.c.annotator.is_not(None),
        annotations_table.c.deleted_at.is_(None),
        sa.not_(annotations_table.c.was_cancelled),
        sa.not_(annotations_table.c.ground_truth),
    )
    .order_by(judgments.c.at, judgments.c.id)
)


_NEVER = 2**63 - 1
"""Before a version that never comes: every judgment counts."""

_ALWAYS = datetime(1970, 1, 1, tzinfo=UTC)
"""Of a task of which it is not known when it was made, every judgment counts."""


class Memory:
    """Rules' memories as read and changed while one submission is looked at."""

    def __init__(self, conn: sa.Connection, project: int) -> None:
        self._conn = conn
        self._project = project
        self._states: dict[tuple[str, str], tuple[str, dict[str, Any]]] = {}

    def of(self, rule: str, subject: str) -> dict[str, Any]:
        """The memory of a rule about a subject, to be changed in place."""
        known = self._states.get((rule, subject))
        if known is None:
            state = records.get_rule_state(self._conn, self._project, rule, subject)
            known = self._states[(rule, subject)] = (json.dumps(state), state)
        return known[1]

    def forget(self, rule: str) -> None:
        """Drop what a rule changed: it raised half-way."""
        self._states = {key: value for key, value in self._states.items() if key[0] != rule}

    def check(self, rule: str) -> None:
        """Raise TypeError or ValueError where a rule put something into its memory that cannot be kept."""
        for (owner, _), (_, state) in self._states.items():
            if owner == rule:
                json.dumps(state, allow_nan=False, ensure_ascii=False).encode()

    def changes(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """(rule, subject, state) of every memory that differs from what was read."""
        for (rule, subject), (before, state) in self._states.items():
            if json.dumps(state) != before:
                yield rule, subject, state


class StoreContext:
    """A guardrail's :class:`~labelguard.rules.Context` over one snapshot of the store."""

    def __init__(
        self,
        conn: sa.Connection,
        *,
        project: int,
        rule: str,
        memory: Memory,
        annotation: int,
        own_user: int | None,
        about: Task | None = None,
        before: int | None = None,
    ) -> None:
        """``annotation`` is the one under judgment, of the task ``about``; ``own_user``'s annotations are nobody's
        opinion. With ``before``, judgments of this version (its row's id) and later ones are not there yet.
        """
        self._conn = conn
        self._project = project
        self._rule = rule
        self._memory = memory
        self._annotation = annotation
        self._own_user = own_user
        self._about = about
        self._before = before

    def task_judgments(self, task: int, control: str) -> Sequence[TaskJudgment]:
        """See :meth:`labelguard.rules.Context.task_judgments`."""
        wanted = {
            "of_task": task,
            "of_control": control,
            "of_project": self._project,
            "annotation": self._annotation,
            "before": _NEVER if self._before is None else self._before,
            "since": self._created(task) or _ALWAYS,
        }
        earliest: dict[int, TaskJudgment] = {}
        for annotator, annotation, kind, value, labels, at in self._conn.execute(_TASK_JUDGMENTS, wanted):
            if annotator != self._own_user and annotator not in earliest:
                judgment = Judgment.from_row(control, kind, "", value, labels)
                earliest[annotator] = TaskJudgment(annotator, annotation, judgment, at)
        return list(earliest.values())

    def gold(self, task: int) -> GoldAnswer | None:
        """See :meth:`labelguard.rules.Context.gold`."""
        row = records.get_gold(self._conn, self._project, task)
        if row is None or not self._is_of(task, row["task_created_at"]):
            return None
        return GoldAnswer(task, judgments_of(row["result"]), row["version"])

    def state(self, subject: str) -> MutableMapping[str, Any]:
        """See :meth:`labelguard.rules.Context.state`."""
        return self._memory.of(self._rule, self._one_task(subject))

    def _one_task(self, subject: str) -> str:
        """What is remembered of a task belongs to that task alone: on SQLite Label Studio gives ids out again."""
        about = self._about
        if about is None or about.created_at is None:
            return subject
        name = f"task:{about.id}"
        if subject != name and not subject.startswith(f"{name}:"):
            return subject
        return f"{name}@{about.created_at.isoformat()}{subject.removeprefix(name)}"

    def _is_of(self, task: int, created_at: datetime | None) -> bool:
        """Whether an answer was given for this very task, and not for an earlier one with its id."""
        known = self._created(task)
        return created_at is None or known is None or created_at == known

    def _created(self, task: int) -> datetime | None:
        """When the task was made, where that is the one under judgment."""
        return self._about.created_at if self._about is not None and self._about.id == task else None


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
