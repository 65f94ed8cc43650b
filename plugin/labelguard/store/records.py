"""Reading and writing records: plain functions on a connection, grouped by what they are about.

Functions that write are called inside :meth:`Store.write`; the caller owns the transaction. Rows come back
as plain dicts with the columns of :mod:`labelguard.store.schema`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert  # its conflict clauses are SQLite's too

from labelguard.connectors import User
from labelguard.events import Project, Task
from labelguard.store.core import inserted_id
from labelguard.store.schema import (
    actions,
    annotation_versions,
    annotations as annotations_table,
    annotators,
    cursors,
    doubts,
    erasures,
    findings,
    gold,
    guidelines,
    inbox,
    job_runs,
    judgments,
    policies,
    projects,
    rejected,
    rule_states,
    switches,
    tasks,
)
from labelguard.store.statements import Statement, adding, among

Row = dict[str, Any]

_IDS_AT_ONCE = 500
"""SQLite limits the variables of one statement; older builds to 999."""

LABELGUARD = "labelguard"
"""Who decided where no person did."""

FINDING_STEPS = {
    "open": {"acknowledged", "disputed", "upheld", "dismissed"},
    "acknowledged": {"disputed", "upheld", "dismissed"},
    "disputed": {"upheld", "dismissed"},
    # People may change their minds about a verdict.
    "upheld": {"dismissed"},
    "dismissed": {"upheld"},
}
"""A finding's life: from each state, where it may go."""


# Asked for each delivery, so built once: putting a statement together takes longer than SQLite takes to run it.
_PROJECT = sa.select(projects).where(projects.c.id == sa.bindparam("wanted"))
_PROJECT_NOW = Statement(_PROJECT)
_TASK = sa.select(tasks).where(tasks.c.id == sa.bindparam("wanted"))
_TASK_TIMES = Statement(
    sa.select(tasks.c.id, tasks.c.created_at, tasks.c.updated_at, tasks.c.deleted_at).where(among(tasks.c.id, "wanted"))
)
_NEWEST_POLICY = Statement(
    sa.select(sa.func.max(policies.c.version)).where(policies.c.project == sa.bindparam("wanted"))
)
_NOTE_ANNOTATOR = Statement(
    insert(annotators)
    .values(id=sa.bindparam("id"), email="", name="", active=True)
    .on_conflict_do_nothing(index_elements=["id"])
)


def _upsert(table: sa.Table, key: Sequence[str], *, but: Sequence[str] = (), same: str | None = None) -> Statement:
    """An insert of every column ``but`` some (JSON as text) that updates the row with the same key.

    Where that row has another value in ``same``, it stays as it is.
    """
    added = adding(table, but)
    return Statement(
        added.on_conflict_do_update(
            index_elements=list(key),
            set_={name: added.excluded[name] for name in table.c.keys() if name not in (*key, *but)},  # noqa: SIM118
            where=None if same is None else table.c[same] == added.excluded[same],
        )
    )


# A task never moves: only Label Studio itself can say that its id was given out again, in another project.
_PUT_TASK = _upsert(tasks, ["id"], but=["confirmed_at"], same="project")
_PUT_RULE_STATE = _upsert(rule_states, ["project", "rule", "subject"])


def _row(conn: sa.Connection, query: sa.Select[Any], **wanted: Any) -> Row | None:
    found = conn.execute(query, wanted).mappings().first()
    return dict(found) if found is not None else None


def _rows(conn: sa.Connection, query: sa.Select[Any]) -> list[Row]:
    return [dict(row) for row in conn.execute(query).mappings()]


def _listed(
    query: sa.Select[Any], table: sa.Table, wanted: Mapping[str, Any], *, limit: int | None, newest_first: bool
) -> sa.Select[Any]:
    """The query for rows with what is wanted (None: whatever it is), by id."""
    query = query.where(*(table.c[name] == value for name, value in wanted.items() if value is not None))
    return query.order_by(table.c.id.desc() if newest_first else table.c.id).limit(limit)


def _chunks(ids: Iterable[int]) -> Iterable[list[int]]:
    ordered = list(ids)
    for start in range(0, len(ordered), _IDS_AT_ONCE):
        yield ordered[start : start + _IDS_AT_ONCE]


# Projects and connections


def save_project(conn: sa.Connection, project: Project, now: datetime, *, listed: bool = False) -> None:
    """Insert or update a project; a changed guideline or label config becomes a new guideline version.

    An older description than the one in the store (by Label Studio's ``updated_at``) changes nothing, unless
    Label Studio itself has ``listed`` it: then it is confirmed, whatever a delivery said before.
    """
    values = {
        "title": project.title,
        "label_config": project.label_config,
        "guideline": project.guideline,
        "maximum_annotations": project.maximum_annotations,
        "skip_queue": project.skip_queue,
        "updated_at": project.updated_at,
    }
    known = get_project(conn, project.id)
    if listed and known is not None and project.updated_at is None:
        values["updated_at"] = known["updated_at"]
    if known is None:
        conn.execute(insert(projects).values(id=project.id, **values))
    elif not listed and project.updated_at and known["updated_at"] and project.updated_at < known["updated_at"]:
        return
    elif any(known[key] != value for key, value in values.items()):
        conn.execute(sa.update(projects).where(projects.c.id == project.id).values(values))
    if known is None or (known["guideline"], known["label_config"]) != (
        project.guideline,
        project.label_config,
    ):
        _add_guideline(conn, project, now)
    if listed:
        _confirm_guideline(conn, project, now)


def forget_project_time(conn: sa.Connection, project: int) -> None:
    """When the project was changed last is not known: a delivery made it up."""
    conn.execute(sa.update(projects).where(projects.c.id == project).values(updated_at=None))


def _confirm_guideline(conn: sa.Connection, project: Project, now: datetime) -> None:
    """The newest version is what Label Studio itself has."""
    newest = sa.select(sa.func.max(guidelines.c.version)).where(guidelines.c.project == project.id).scalar_subquery()
    conn.execute(
        sa.update(guidelines)
        .where(
            guidelines.c.project == project.id,
            guidelines.c.version == newest,
            guidelines.c.confirmed_at.is_(None),
        )
        .values(confirmed_at=now)
    )


def _add_guideline(conn: sa.Connection, project: Project, now: datetime) -> None:
    content = hashlib.sha256(f"{project.guideline}\0{project.label_config}".encode()).hexdigest()
    newest = _row(
        conn,
        sa.select(guidelines).where(guidelines.c.project == project.id).order_by(guidelines.c.version.desc()).limit(1),
    )
    if newest is not None and newest["content_hash"] == content:
        return
    conn.execute(
        insert(guidelines).values(
            project=project.id,
            version=newest["version"] + 1 if newest else 1,
            content_hash=content,
            guideline=project.guideline,
            label_config=project.label_config,
            seen_at=now,
        )
    )


def list_guidelines(conn: sa.Connection, project: int) -> list[Row]:
    """A project's guideline versions, oldest first."""
    return _rows(conn, sa.select(guidelines).where(guidelines.c.project == project).order_by(guidelines.c.version))


def get_project(conn: sa.Connection, project: int) -> Row | None:
    """One project's row."""
    return _row(conn, _PROJECT, wanted=project)


def project_now(conn: sa.Connection, project: int) -> Row | None:
    """One project's row, for what asks with every delivery."""
    found = _PROJECT_NOW.first(conn, wanted=project)
    return None if found is None else dict(zip(projects.c.keys(), found, strict=True))


def list_projects(conn: sa.Connection, *, connected: bool | None = None) -> list[Row]:
    """Projects, by id."""
    query = sa.select(projects).order_by(projects.c.id)
    if connected is not None:
        query = query.where(projects.c.connected_at.is_not(None) if connected else projects.c.connected_at.is_(None))
    return _rows(conn, query)


def set_connection(
    conn: sa.Connection,
    project: int,
    *,
    connected_at: datetime | None,
    webhook_id: int | None,
    webhook_url: str | None,
    token_hash: str | None,
) -> None:
    """Remember (or with Nones forget) how a project is connected."""
    values = {
        "connected_at": connected_at,
        "webhook_id": webhook_id,
        "webhook_url": webhook_url,
        "token_hash": token_hash,
    }
    conn.execute(
        insert(projects).values(id=project, **values).on_conflict_do_update(index_elements=["id"], set_=values)
    )


# Annotators


def save_annotators(conn: sa.Connection, users: Sequence[User]) -> None:
    """Insert or update annotators; not those who were erased and have not annotated since."""
    erased = set(conn.scalars(sa.select(erasures.c.annotator)))
    erased -= set(conn.scalars(sa.select(annotators.c.id))) if erased else set()
    for user in users:
        if user.id in erased:
            continue
        values = {"email": user.email, "name": user.name, "active": user.active}
        conn.execute(
            insert(annotators).values(id=user.id, **values).on_conflict_do_update(index_elements=["id"], set_=values)
        )


def note_annotators(conn: sa.Connection, ids: Sequence[int]) -> None:
    """Make sure that people whose work arrived are known, by number until Label Studio tells the names."""
    _NOTE_ANNOTATOR.insert(conn, [{"id": annotator} for annotator in ids])


def get_annotator(conn: sa.Connection, annotator: int) -> Row | None:
    """One annotator's row."""
    return _row(conn, sa.select(annotators).where(annotators.c.id == annotator))


def list_annotators(conn: sa.Connection) -> list[Row]:
    """All annotators, by id."""
    return _rows(conn, sa.select(annotators).order_by(annotators.c.id))


# Tasks and annotations


def save_task(conn: sa.Connection, task: Task, now: datetime, *, listed: bool = False) -> None:
    """Insert or update a task; an older description than the one in the store changes nothing.

    A deleted task comes back only where Label Studio itself has ``listed`` it: deliveries may overtake each
    other. One with the id of a deleted task but another ``created_at`` is another task (on SQLite Label
    Studio gives ids out again), whose answer the vault does not have.
    """
    values = {
        "project": task.project,
        "data": dict(task.data),
        "meta": dict(task.meta),
        "overlap": task.overlap,
        "is_labeled": task.is_labeled,
        "created_at": task.created_at,
        "updated_at": task.updated_at,
        "deleted_at": None,
    }
    known = get_task(conn, task.id)
    if known is None:
        conn.execute(insert(tasks).values(id=task.id, **values))
        return
    if known["project"] != task.project and not listed:
        return  # a task never moves: only Label Studio itself can say that the id was given out again
    if task.updated_at and known["updated_at"] and task.updated_at < known["updated_at"]:
        return
    another = bool(task.created_at and known["created_at"] and task.created_at != known["created_at"])
    if another:
        # What a delivery alone says of it retires no answer: it is merely not used for another task.
        if listed:
            retire_gold(conn, known["project"], [task.id], now)
        _forget_earlier(conn, task, now)
    elif not listed:
        values["deleted_at"] = known["deleted_at"]
    if any(known[key] != value for key, value in values.items()):
        conn.execute(sa.update(tasks).where(tasks.c.id == task.id).values(values))


def _forget_earlier(conn: sa.Connection, task: Task, now: datetime) -> None:
    """What was annotated in an earlier task with the same id is gone with it."""
    a = annotations_table.c
    earlier = sa.and_(a.project == task.project, a.task == task.id, a.created_at < task.created_at)
    conn.execute(sa.update(annotations_table).where(earlier, a.deleted_at.is_(None)).values(deleted_at=now))


def get_task(conn: sa.Connection, task: int) -> Row | None:
    """One task's row."""
    return _row(conn, _TASK, wanted=task)


@dataclass(frozen=True, slots=True)
class TaskTimes:
    """When a task was made, changed and deleted."""

    created_at: datetime | None
    updated_at: datetime | None
    deleted_at: datetime | None


def task_times(conn: sa.Connection, ids: Collection[int]) -> dict[int, TaskTimes]:
    """The times of those of these tasks that are known."""
    return {task: TaskTimes(*times) for task, *times in _TASK_TIMES.rows(conn, wanted=ids)}


def put_tasks(conn: sa.Connection, described: Iterable[tuple[Task, datetime | None]]) -> None:
    """Insert or update tasks, each with its time of deletion, if any, whatever the store says of them now."""
    _PUT_TASK.insert(
        conn,
        [
            {
                "id": task.id,
                "project": task.project,
                "data": msgspec.json.encode(task.data).decode(),
                "meta": msgspec.json.encode(task.meta).decode(),
                "overlap": task.overlap,
                "is_labeled": task.is_labeled,
                "created_at": task.created_at,
                "updated_at": task.updated_at,
                "deleted_at": deleted_at,
            }
            for task, deleted_at in described
        ],
    )


def live_task_ids(conn: sa.Connection, project: int) -> set[int]:
    """Ids of tasks that are not deleted."""
    query = sa.select(tasks.c.id).where(tasks.c.project == project, tasks.c.deleted_at.is_(None))
    return set(conn.scalars(query))


def current_annotations(conn: sa.Connection, project: int, *, task: int | None = None) -> list[Row]:
    """Live annotations of a project (or of one task), by id."""
    query = sa.select(annotations_table).where(
        annotations_table.c.project == project, annotations_table.c.deleted_at.is_(None)
    )
    if task is not None:
        query = query.where(annotations_table.c.task == task)
    return _rows(conn, query.order_by(annotations_table.c.id))


def get_annotation(conn: sa.Connection, annotation: int) -> Row | None:
    """The newest annotation with that Label Studio id, deleted or not."""
    query = (
        sa.select(annotations_table)
        .where(annotations_table.c.id == annotation)
        .order_by(annotations_table.c.row.desc())
    )
    return _row(conn, query.limit(1))


def mark_deleted(conn: sa.Connection, project: int, annotation_ids: Sequence[int], now: datetime) -> int:
    """Mark live annotations deleted; returns how many were."""
    return sum(
        conn.execute(
            sa.update(annotations_table)
            .where(
                annotations_table.c.project == project,
                annotations_table.c.id.in_(some),
                annotations_table.c.deleted_at.is_(None),
            )
            .values(deleted_at=now)
        ).rowcount
        for some in _chunks(annotation_ids)
    )


def mark_tasks_deleted(conn: sa.Connection, project: int, task_ids: Sequence[int], now: datetime) -> int:
    """Mark tasks and their annotations deleted; returns how many tasks were."""
    count = 0
    for some in _chunks(task_ids):
        count += conn.execute(
            sa.update(tasks)
            .where(tasks.c.project == project, tasks.c.id.in_(some), tasks.c.deleted_at.is_(None))
            .values(deleted_at=now)
        ).rowcount
        conn.execute(
            sa.update(annotations_table)
            .where(
                annotations_table.c.project == project,
                annotations_table.c.task.in_(some),
                annotations_table.c.deleted_at.is_(None),
            )
            .values(deleted_at=now)
        )
    return count


def keep_as_listed(conn: sa.Connection, task: Task, now: datetime) -> None:
    """Keep a task exactly as Label Studio itself has it, whatever deliveries said of it."""
    known = get_task(conn, task.id)
    if known is not None and (task.created_at != known["created_at"] or task.project != known["project"]):
        retire_gold(conn, known["project"], [task.id], now)
    values: Row = {
        "project": task.project,
        "data": dict(task.data),
        "meta": dict(task.meta),
        "overlap": task.overlap,
        "is_labeled": task.is_labeled,
        "created_at": task.created_at,
        "updated_at": task.updated_at,
        "deleted_at": None,
        "confirmed_at": now,
    }
    conn.execute(insert(tasks).values(id=task.id, **values).on_conflict_do_update(index_elements=["id"], set_=values))


def tasks_by_id(conn: sa.Connection, task_ids: Sequence[int]) -> dict[int, Row]:
    """Tasks, deleted ones included, by their ids."""
    return {
        row["id"]: row
        for some in _chunks(task_ids)
        for row in _rows(conn, sa.select(tasks).where(tasks.c.id.in_(some)))
    }


def annotations_about(conn: sa.Connection, task_ids: Sequence[int], annotation_ids: Sequence[int]) -> list[Row]:
    """Annotations of these tasks or with these ids, deleted ones included, by row."""
    c = annotations_table.c
    found = {
        row["row"]: row
        for column, ids in ((c.task, task_ids), (c.id, annotation_ids))
        for some in _chunks(ids)
        for row in _rows(conn, sa.select(annotations_table).where(column.in_(some)))
    }
    return [found[row] for row in sorted(found)]


def annotated_task_ids(conn: sa.Connection, project: int) -> set[int]:
    """Ids of the tasks of live annotations."""
    c = annotations_table.c
    return set(conn.scalars(sa.select(c.task).where(c.project == project, c.deleted_at.is_(None)).distinct()))


def versions_of(conn: sa.Connection, annotation_row: int) -> list[Row]:
    """All versions of an annotation in the order in which they came, refuted ones included."""
    c = annotation_versions.c
    return _rows(conn, sa.select(annotation_versions).where(c.annotation_row == annotation_row).order_by(c.id))


def refute_versions(conn: sa.Connection, version_ids: Sequence[int], note: str, now: datetime) -> None:
    """Label Studio does not have these versions: they are no evidence, and what was found in them is dismissed."""
    for some in _chunks(version_ids):
        conn.execute(sa.update(annotation_versions).where(annotation_versions.c.id.in_(some)).values(refuted_at=now))
        conn.execute(sa.update(judgments).where(judgments.c.version_id.in_(some)).values(first=False))
    dismiss_findings_of(conn, version_ids, note, now)


def dismiss_findings_of(conn: sa.Connection, version_ids: Sequence[int], note: str, now: datetime) -> list[int]:
    """Dismiss what was found in these versions, and give up what has not been done about it; returns their ids."""
    found = [
        row
        for some in _chunks(version_ids)
        for row in _rows(conn, sa.select(findings).where(findings.c.version_id.in_(some)))
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


def unrefute_version(conn: sa.Connection, version: int) -> None:
    """Label Studio has it after all: it counts again, and the rules have yet to look at it."""
    c = annotation_versions.c
    conn.execute(sa.update(annotation_versions).where(c.id == version).values(refuted_at=None, judged=False))
    conn.execute(
        sa.update(judgments)
        .where(judgments.c.version_id == version)
        .values(first=sa.select(c.first).where(c.id == version).scalar_subquery())
    )


def rename_author(conn: sa.Connection, version: int, *, project: int, editor: int | None, author: int | None) -> None:
    """A version is by others than a delivery said: who is right now, and the rules have yet to look at it."""
    c = annotation_versions.c
    conn.execute(sa.update(annotation_versions).where(c.id == version).values(editor=editor, judged=False))
    values = {"project": project, "annotator": author}
    conn.execute(sa.update(judgments).where(judgments.c.version_id == version).values(values))


def set_annotation(conn: sa.Connection, row: int, **values: Any) -> None:
    """Set columns of an annotation."""
    conn.execute(sa.update(annotations_table).where(annotations_table.c.row == row).values(**values))


def unknown_counts(conn: sa.Connection, project: int) -> dict[str, int]:
    """What cannot be known of a project's history, in numbers.

    ``gaps``: versions found by looking before which others may have been that no delivery brought.
    ``unjudged``: versions that were replaced while the policy could not be used; they stay unjudged.
    ``refuted``: versions that deliveries told of and Label Studio does not have.
    """
    v, a = annotation_versions.c, annotations_table.c

    def count(*where: sa.ColumnElement[bool]) -> int:
        query = (
            sa.select(sa.func.count())
            .select_from(annotation_versions.join(annotations_table, a.row == v.annotation_row))
            .where(a.project == project, *where)
        )
        return conn.scalar(query) or 0

    edited = sa.and_(sa.not_(v.first), sa.not_(v.was_cancelled), sa.not_(v.ground_truth))
    return {
        "gaps": count(v.origin != "webhook", sa.or_(v.number > 1, edited)),
        "unjudged": count(sa.not_(v.judged), v.updated_at < a.updated_at, v.refuted_at.is_(None)),
        "refuted": count(v.refuted_at.is_not(None)),
    }


# Policies


def add_policy(conn: sa.Connection, project: int, text: str, now: datetime, by: str = "") -> int:
    """Store a policy version and return its number; the same text as the newest adds nothing."""
    newest = get_policy(conn, project)
    if newest is not None and newest["text"] == text:
        return int(newest["version"])
    version = int(newest["version"]) + 1 if newest else 1
    conn.execute(insert(policies).values(project=project, version=version, text=text, applied_at=now, applied_by=by))
    return version


def get_policy(conn: sa.Connection, project: int, version: int | None = None) -> Row | None:
    """A policy version, the newest without ``version``."""
    query = sa.select(policies).where(policies.c.project == project)
    if version is not None:
        query = query.where(policies.c.version == version)
    return _row(conn, query.order_by(policies.c.version.desc()).limit(1))


def newest_policy_version(conn: sa.Connection, project: int) -> int | None:
    """The number of a project's newest policy, or None without one."""
    ((newest,),) = _NEWEST_POLICY.rows(conn, wanted=project)
    return None if newest is None else int(newest)


# Gold vault


def add_gold(
    conn: sa.Connection,
    project: int,
    task: int,
    result: Sequence[Mapping[str, Any]],
    origin: str,
    now: datetime,
) -> int:
    """Put an answer into the vault (a changed answer is a new version) and return its version."""
    answer = [dict(item) for item in result]
    about = get_task(conn, task)
    created = about["created_at"] if about is not None and about["project"] == project else None
    active = get_gold(conn, project, task)
    if active is not None and active["result"] == answer and active["task_created_at"] in (None, created):
        return int(active["version"])
    retire_gold(conn, project, [task], now)
    newest = conn.scalar(sa.select(sa.func.max(gold.c.version)).where(gold.c.project == project, gold.c.task == task))
    version = int(newest or 0) + 1
    conn.execute(
        insert(gold).values(
            project=project,
            task=task,
            version=version,
            result=answer,
            origin=origin,
            added_at=now,
            task_created_at=created,
        )
    )
    return version


def get_gold(conn: sa.Connection, project: int, task: int) -> Row | None:
    """The active answer of a task."""
    query = sa.select(gold).where(gold.c.project == project, gold.c.task == task, gold.c.retired_at.is_(None))
    return _row(conn, query.order_by(gold.c.version.desc()).limit(1))


def list_gold(conn: sa.Connection, project: int, *, retired: bool = False) -> list[Row]:
    """The vault's active (or with ``retired`` all) answers, by task and version."""
    query = sa.select(gold).where(gold.c.project == project)
    if not retired:
        query = query.where(gold.c.retired_at.is_(None))
    return _rows(conn, query.order_by(gold.c.task, gold.c.version))


def retire_gold(conn: sa.Connection, project: int, tasks: Sequence[int], now: datetime) -> int:
    """Retire answers; returns how many."""
    return sum(
        conn.execute(
            sa.update(gold)
            .where(gold.c.project == project, gold.c.task.in_(some), gold.c.retired_at.is_(None))
            .values(retired_at=now)
        ).rowcount
        for some in _chunks(tasks)
    )


# Findings


def get_finding(conn: sa.Connection, finding: int) -> Row | None:
    """One finding."""
    return _row(conn, sa.select(findings).where(findings.c.id == finding))


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
    return _rows(conn, _listed(query, findings, wanted, limit=limit, newest_first=newest_first))


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


# Actions


def get_action(conn: sa.Connection, action: int) -> Row | None:
    """One action."""
    return _row(conn, sa.select(actions).where(actions.c.id == action))


def list_actions(
    conn: sa.Connection,
    *,
    project: int | None = None,
    finding: int | None = None,
    kind: str | None = None,
    annotator: int | None = None,
    annotation: int | None = None,
    task: int | None = None,
    states: Sequence[str] | None = None,
    after: int = 0,
    limit: int | None = None,
    newest_first: bool = False,
) -> list[Row]:
    """Actions by id, each after ``after``."""
    wanted = {
        "project": project,
        "finding": finding,
        "kind": kind,
        "annotator": annotator,
        "annotation": annotation,
        "task": task,
    }
    query = sa.select(actions).where(actions.c.id > after)
    if states is not None:
        query = query.where(actions.c.state.in_(states))
    return _rows(conn, _listed(query, actions, wanted, limit=limit, newest_first=newest_first))


def update_action(conn: sa.Connection, action: int, now: datetime, **values: Any) -> None:
    """Set columns of an action."""
    conn.execute(sa.update(actions).where(actions.c.id == action).values(**values, updated_at=now))


# Inbox, jobs, cursors, switches


def list_rejected(conn: sa.Connection, limit: int = 100, *, project: int | None = None) -> list[Row]:
    """Refused deliveries, newest first."""
    return _rows(conn, _listed(sa.select(rejected), rejected, {"project": project}, limit=limit, newest_first=True))


def failed_deliveries(conn: sa.Connection, limit: int = 100, *, project: int | None = None) -> list[Row]:
    """Deliveries that labelguard could not process, newest first, without their bodies."""
    query = sa.select(inbox.c.id, inbox.c.project, inbox.c.action, inbox.c.received_at, inbox.c.error)
    wanted = {"project": project, "state": "failed"}
    return _rows(conn, _listed(query, inbox, wanted, limit=limit, newest_first=True))


def inbox_counts(conn: sa.Connection) -> dict[tuple[str, str], int]:
    """Deliveries by (action, state)."""
    query = sa.select(inbox.c.action, inbox.c.state, sa.func.count()).group_by(inbox.c.action, inbox.c.state)
    return {(action, state): count for action, state, count in conn.execute(query)}


def newest_delivery(conn: sa.Connection, project: int, before: datetime) -> int:
    """The id up to which a project's deliveries that came before a moment are all processed."""
    # By id from the end: only the newest ones are younger than the moment, and nothing indexes the time.
    mine = sa.select(inbox.c.id).where(inbox.c.project == project)
    newest = conn.scalar(mine.where(inbox.c.received_at <= before).order_by(inbox.c.id.desc()).limit(1)) or 0
    pending = conn.scalar(mine.where(inbox.c.state == "pending").order_by(inbox.c.id).limit(1))
    return newest if pending is None else min(newest, pending - 1)


def said_by_webhook(conn: sa.Connection, project: int, after: int, upto: int, limit: int) -> list[Row]:
    """What deliveries with ids after ``after`` spoke about, by id.

    The usual ones are not read whole: ``task``, ``of_task``, ``annotation``, ``completed_by``, ``updated_by``
    and ``ground_truth`` are theirs. Of others ``body`` is there.
    """
    body = inbox.c.body
    usual = inbox.c.action.in_(("ANNOTATION_CREATED", "ANNOTATION_UPDATED"))
    query = (
        sa.select(
            inbox.c.id,
            inbox.c.action,
            inbox.c.received_at,
            body["task", "id"].as_integer().label("task"),
            body["annotation", "task"].as_integer().label("of_task"),
            body["annotation", "id"].as_integer().label("annotation"),
            body["annotation", "completed_by"].as_string().label("completed_by"),
            body["annotation", "updated_by"].as_string().label("updated_by"),
            body["annotation", "ground_truth"].as_boolean().label("ground_truth"),
        )
        .where(inbox.c.project == project, inbox.c.id > after, inbox.c.id <= upto, inbox.c.origin == "webhook", usual)
        .order_by(inbox.c.id)
        .limit(limit)
    )
    others = (
        sa.select(inbox.c.id, inbox.c.action, inbox.c.received_at, inbox.c.body)
        .where(
            inbox.c.project == project,
            inbox.c.id > after,
            inbox.c.id <= upto,
            inbox.c.origin == "webhook",
            sa.not_(usual),
        )
        .order_by(inbox.c.id)
        .limit(limit)
    )
    found = sorted([*_rows(conn, query), *_rows(conn, others)], key=lambda row: int(row["id"]))
    return found[:limit]


def doubt(conn: sa.Connection, project: int, kind: str, count: int, example: str, now: datetime) -> None:
    """Note that Label Studio did not confirm something, so many times."""
    adding = insert(doubts).values(
        project=project, kind=kind, count=count, since=now, last_at=now, example=example[:500]
    )
    conn.execute(
        adding.on_conflict_do_update(
            index_elements=["project", "kind"],
            set_={
                "count": doubts.c.count + adding.excluded.count,
                "last_at": adding.excluded.last_at,
                "example": adding.excluded.example,
            },
        )
    )


def list_doubts(conn: sa.Connection, project: int | None = None) -> list[Row]:
    """What Label Studio did not confirm, by project and kind."""
    query = sa.select(doubts).order_by(doubts.c.project, doubts.c.kind)
    return _rows(conn, query if project is None else query.where(doubts.c.project == project))


def doubts_told(conn: sa.Connection, project: int, now: datetime) -> None:
    """The admin has been told."""
    conn.execute(sa.update(doubts).where(doubts.c.project == project).values(told_at=now))


def forget_doubts(conn: sa.Connection, project: int) -> None:
    """Begin to count afresh: the webhook has a new token."""
    conn.execute(sa.delete(doubts).where(doubts.c.project == project))


def forget_rule_states(conn: sa.Connection, project: int) -> None:
    """Forget everything that rules remember about a project."""
    conn.execute(sa.delete(rule_states).where(rule_states.c.project == project))


def confirmed_at(conn: sa.Connection, project: int) -> datetime | None:
    """Up to when deliveries have been compared with Label Studio, by our clock; None before the first time."""
    value = get_cursor(conn, f"confirmed:{project}")
    return None if value is None else datetime.fromisoformat(value["at"])


def refuted_since(conn: sa.Connection, project: int, moment: datetime) -> bool:
    """Whether a version that was there at a moment has been refuted since."""
    v, a = annotation_versions.c, annotations_table.c
    query = (
        sa.select(v.id)
        .join(annotations_table, a.row == v.annotation_row)
        .where(a.project == project, v.refuted_at >= moment, v.recorded_at <= moment)
    )
    return conn.execute(query.limit(1)).first() is not None


def clock_skew(conn: sa.Connection) -> timedelta:
    """How far Label Studio's clock is ahead of ours, as last seen; nothing where they agree to the second."""
    return timedelta(seconds=get_cursor(conn, _SKEW) or 0.0)


def set_clock_skew(conn: sa.Connection, skew: timedelta, now: datetime) -> None:
    """Remember how far Label Studio's clock is ahead of ours."""
    set_cursor(conn, _SKEW, skew.total_seconds(), now)


_SKEW = "clock-skew"


def suspect_memory(conn: sa.Connection, project: int, version: int | None, now: datetime) -> None:
    """Note that rules may remember a refuted version; with None, that they do not any more."""
    known = suspect_version(conn, project)
    if version is None or known is None or version < known:
        set_cursor(conn, f"suspect:{project}", version, now)


def suspect_version(conn: sa.Connection, project: int) -> int | None:
    """The earliest refuted version that rules may remember."""
    found = get_cursor(conn, f"suspect:{project}")
    return None if found is None else int(found)


def start_job(conn: sa.Connection, job: str, project: int | None, now: datetime) -> int:
    """Record that a scheduled job began; returns its run id."""
    values: Row = {"job": job, "project": project, "started_at": now, "state": "running", "summary": {}}
    return inserted_id(conn.execute(insert(job_runs).values(values)))


def finish_job(
    conn: sa.Connection,
    run: int,
    now: datetime,
    *,
    summary: Mapping[str, Any] | None = None,
    error: str | None = None,
) -> None:
    """Record how a run ended."""
    conn.execute(
        sa.update(job_runs)
        .where(job_runs.c.id == run)
        .values(finished_at=now, state="failed" if error else "done", summary=dict(summary or {}), error=error)
    )


def end_lost_jobs(conn: sa.Connection) -> int:
    """Say of runs whose process was killed that they failed; returns how many.

    They stay without an end, which nobody saw, and so count as missed.
    """
    done = conn.execute(
        sa.update(job_runs)
        .where(job_runs.c.state == "running")
        .values(state="failed", error="It ended without a word: its process was killed, or its machine stopped.")
    )
    return done.rowcount


def last_runs(conn: sa.Connection, job: str, project: int | None = None, limit: int = 1) -> list[Row]:
    """The newest finished runs of a job, newest first; ``project`` None means runs without one."""
    query = sa.select(job_runs).where(
        job_runs.c.job == job,
        job_runs.c.project.is_not_distinct_from(project),
        job_runs.c.finished_at.is_not(None),
    )
    return _rows(conn, query.order_by(job_runs.c.id.desc()).limit(limit))


def recent_jobs(conn: sa.Connection, limit: int = 50) -> list[Row]:
    """The newest runs of all jobs, newest first."""
    return _rows(conn, sa.select(job_runs).order_by(job_runs.c.id.desc()).limit(limit))


def get_cursor(conn: sa.Connection, name: str) -> Any:
    """A cursor's JSON value, or None."""
    return conn.scalar(sa.select(cursors.c.value).where(cursors.c.name == name))


def set_cursor(conn: sa.Connection, name: str, value: Any, now: datetime) -> None:
    """Set a cursor."""
    values = {"value": value, "updated_at": now}
    conn.execute(
        insert(cursors).values(name=name, **values).on_conflict_do_update(index_elements=["name"], set_=values)
    )


def put_rule_states(conn: sa.Connection, project: int, changes: Iterable[tuple[str, str, str]], now: datetime) -> None:
    """Keep rules' memories: (rule, subject, JSON text) each."""
    _PUT_RULE_STATE.insert(
        conn,
        [
            {"project": project, "rule": rule, "subject": subject, "state": text, "updated_at": now}
            for rule, subject, text in changes
        ],
    )


_ACTIONS = "actions"


def actions_enabled(conn: sa.Connection) -> bool:
    """Whether actions may run: the kill switch is off."""
    found = conn.scalar(sa.select(switches.c.on).where(switches.c.name == _ACTIONS))
    return found is None or bool(found)


def set_actions_enabled(conn: sa.Connection, enabled: bool, *, by: str, now: datetime) -> None:
    """Throw or release the kill switch."""
    values = {"on": enabled, "changed_at": now, "changed_by": by}
    conn.execute(
        insert(switches).values(name=_ACTIONS, **values).on_conflict_do_update(index_elements=["name"], set_=values)
    )
