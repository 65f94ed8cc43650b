"""What the other rooms build on: rows as dicts, upserts, ids in portions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from labelguard.store.statements import Statement, adding

Row = dict[str, Any]

_IDS_AT_ONCE = 512
"""SQLite limits the variables of one statement; older builds to 999."""

LABELGUARD = "labelguard"
"""Who decided where no person did."""


def upsert(table: sa.Table, key: Sequence[str], *, but: Sequence[str] = (), same: str | None = None) -> Statement:
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


def first_row(conn: sa.Connection, query: sa.Select[Any], **wanted: Any) -> Row | None:
    """The first row of a query with these parameters, or None."""
    found = conn.execute(query, wanted).mappings().first()
    return dict(found) if found is not None else None


def all_rows(conn: sa.Connection, query: sa.Select[Any]) -> list[Row]:
    """All rows of a query."""
    return [dict(row) for row in conn.execute(query).mappings()]


def listed(
    query: sa.Select[Any], table: sa.Table, wanted: Mapping[str, Any], *, limit: int | None, newest_first: bool
) -> sa.Select[Any]:
    """The query for rows with what is wanted (None: whatever it is), by id."""
    query = query.where(*(table.c[name] == value for name, value in wanted.items() if value is not None))
    return query.order_by(table.c.id.desc() if newest_first else table.c.id).limit(limit)


def portions(ids: Iterable[int]) -> Iterable[list[int]]:
    """Ids in lists that an ``IN`` takes, of few different lengths: the last id is there as often as it takes.

    Each length is another statement, and each of SQLite's connections keeps the last 128 ready: of some hundred
    ids, some ten KiB each.
    """
    ordered = list(ids)
    for start in range(0, len(ordered), _IDS_AT_ONCE):
        some = ordered[start : start + _IDS_AT_ONCE]
        yield some + some[-1:] * ((1 << (len(some) - 1).bit_length()) - len(some))
