"""Annotators."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert  # its conflict clauses are SQLite's too

from labelguard.connectors import User
from labelguard.store.records.rows import Row, all_rows, first_row
from labelguard.store.schema import annotators, erasures
from labelguard.store.statements import Statement

_NOTE_ANNOTATOR = Statement(
    insert(annotators)
    .values(id=sa.bindparam("id"), email="", name="", active=True)
    .on_conflict_do_nothing(index_elements=["id"])
)


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
    return first_row(conn, sa.select(annotators).where(annotators.c.id == annotator))


def list_annotators(conn: sa.Connection) -> list[Row]:
    """All annotators, by id."""
    return all_rows(conn, sa.select(annotators).order_by(annotators.c.id))
