"""Annotations, their versions, and what Label Studio says against them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from labelguard.store.records.findings import dismiss_findings_of
from labelguard.store.records.rows import Row, all_rows, first_row, portions
from labelguard.store.schema import annotation_versions, annotations as annotations_table, judgments


def current_annotations(conn: sa.Connection, project: int, *, task: int | None = None) -> list[Row]:
    """Live annotations of a project (or of one task), by id."""
    live = sa.select(annotations_table).where(annotations_table.c.deleted_at.is_(None))
    if task is not None:
        # Asked for the project, or for an order, SQLite would rather read all that the project has.
        found = all_rows(conn, live.where(annotations_table.c.task == task))
        return sorted((row for row in found if row["project"] == project), key=lambda row: row["id"])
    return all_rows(conn, live.where(annotations_table.c.project == project).order_by(annotations_table.c.id))


def get_annotation(conn: sa.Connection, annotation: int) -> Row | None:
    """The newest annotation with that Label Studio id, deleted or not."""
    query = (
        sa.select(annotations_table)
        .where(annotations_table.c.id == annotation)
        .order_by(annotations_table.c.row.desc())
    )
    return first_row(conn, query.limit(1))


def mark_deleted(conn: sa.Connection, project: int, annotation_ids: Sequence[int], now: datetime) -> int:
    """Mark live annotations deleted; returns how many were."""
    c = annotations_table.c
    return sum(mark_gone(conn, now, c.project == project, c.id.in_(some)) for some in portions(annotation_ids))


def mark_gone(conn: sa.Connection, now: datetime, *which: sa.ColumnElement[bool]) -> int:
    """Mark the live ones among some annotations deleted; returns how many were."""
    live = sa.update(annotations_table).where(*which, annotations_table.c.deleted_at.is_(None))
    return conn.execute(live.values(deleted_at=now)).rowcount


def annotations_about(conn: sa.Connection, task_ids: Sequence[int], annotation_ids: Sequence[int]) -> list[Row]:
    """Annotations of these tasks or with these ids, deleted ones included, by row."""
    c = annotations_table.c
    found = {
        row["row"]: row
        for column, ids in ((c.task, task_ids), (c.id, annotation_ids))
        for some in portions(ids)
        for row in all_rows(conn, sa.select(annotations_table).where(column.in_(some)))
    }
    return [found[row] for row in sorted(found)]


def versions_of(conn: sa.Connection, annotation_row: int) -> list[Row]:
    """All versions of an annotation in the order in which they came, refuted ones included."""
    c = annotation_versions.c
    return all_rows(conn, sa.select(annotation_versions).where(c.annotation_row == annotation_row).order_by(c.id))


def refute_versions(conn: sa.Connection, version_ids: Sequence[int], note: str, now: datetime) -> None:
    """Label Studio does not have these versions: they are no evidence, and what was found in them is dismissed."""
    for some in portions(version_ids):
        conn.execute(sa.update(annotation_versions).where(annotation_versions.c.id.in_(some)).values(refuted_at=now))
        conn.execute(sa.update(judgments).where(judgments.c.version_id.in_(some)).values(first=False))
    dismiss_findings_of(conn, version_ids, note, now)


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


def refuted_since(conn: sa.Connection, project: int, moment: datetime) -> bool:
    """Whether a version that was there at a moment has been refuted since."""
    v, a = annotation_versions.c, annotations_table.c
    query = (
        sa.select(v.id)
        .join(annotations_table, a.row == v.annotation_row)
        .where(a.project == project, v.refuted_at >= moment, v.recorded_at <= moment)
    )
    return conn.execute(query.limit(1)).first() is not None
