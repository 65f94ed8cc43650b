"""Stores of every released version: brought up to date, they hold what they held."""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from databases import POSTGRESQL, SQLITE, postgres
from labelguard.store import migrations, schema
from labelguard.store.migrations import upgrade

STORES = Path(__file__).parent / "stores"
VERSIONS = Path(migrations.__file__).parent / "versions"
RELEASED = {
    "0001_first_schema.py": "939d352e801706d58adf0af6a73a4c6ca3ed205a96db94a13a5e7b89fe6c4891",
}
"""The migrations that somebody's store has run, with the SHA-256 of what they ran."""

every_release = pytest.mark.parametrize("release", sorted(path.stem for path in STORES.glob("*.sql")))
every_database = pytest.mark.parametrize("kind", [SQLITE, POSTGRESQL])
Rows = dict[str, list[dict[str, Any]]]


@contextmanager
def database(kind: str, folder: Path) -> Iterator[sa.Connection]:
    """An empty database of that kind, in a transaction."""
    url, name = f"sqlite:///{folder / 'store.sqlite3'}", f"empty_{kind}"
    if kind == POSTGRESQL:
        url = postgres().create(name).replace("postgresql://", "postgresql+psycopg://")
    engine = sa.create_engine(url)
    try:
        with engine.begin() as conn:
            yield conn
    finally:
        engine.dispose()
        if kind == POSTGRESQL:
            postgres().drop(name)


def released(release: str) -> Iterator[tuple[sa.Table, list[dict[str, Any]]]]:
    """The tables of a released store and their rows, parents before children."""
    with closing(sqlite3.connect(":memory:")) as raw:
        raw.executescript((STORES / f"{release}.sql").read_text("utf-8"))
        engine = sa.create_engine("sqlite://", creator=lambda: raw, poolclass=sa.StaticPool)
        with engine.connect() as conn:
            there = sa.inspect(conn)
            names = set(there.get_table_names())
            for table in schema.metadata.sorted_tables:
                if table.name not in names:
                    continue
                columns = {column["name"] for column in there.get_columns(table.name)}
                # With today's types, which read JSON and times alike on both databases.
                query = sa.select(*(column for column in table.c if column.name in columns))
                yield table, [dict(row) for row in conn.execute(query).mappings()]


def fill(conn: sa.Connection, release: str) -> Rows:
    """Make a released store; returns what it holds."""
    upgrade(conn, to=release)
    kept: Rows = {}
    for table, rows in released(release):
        assert rows, f"the store of {release} shows nothing about {table.name}"
        old = sa.table(table.name, *(sa.column(name, table.c[name].type) for name in rows[0]))
        conn.execute(sa.insert(old), rows)
        kept[table.name] = rows
    return kept


def by_key(table: sa.Table, rows: list[dict[str, Any]]) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Rows by their primary key."""
    return {tuple(row[column.name] for column in table.primary_key): row for row in rows}


def _renamed(table: str, row: dict[str, Any], before: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """A row as it is to be: since 0002 what rules remember of a task says which of those with its id."""
    if table != "rule_states" or not (found := re.fullmatch(r"task:(\d+)(.*)", row["subject"])):
        return row
    made = {task["id"]: task["created_at"] for task in before["tasks"]}.get(int(found[1]))
    return row if made is None else {**row, "subject": f"task:{found[1]}@{made.isoformat()}{found[2]}"}


@every_database
@every_release
def test_a_released_store_is_brought_up_to_date_with_every_row(release: str, kind: str, tmp_path: Path) -> None:
    """Each row keeps each value, and the schema ends as the one of a new store."""
    with database(kind, tmp_path) as conn:
        before = fill(conn, release)
        upgrade(conn)

        for name, rows in before.items():
            table = schema.metadata.tables[name]
            now = by_key(table, [dict(row) for row in conn.execute(sa.select(table)).mappings()])
            assert len(now) == len(rows), name
            for key, row in by_key(table, [_renamed(name, row, before) for row in rows]).items():
                assert {column: now[key][column] for column in row} == row, (name, key)
        context = MigrationContext.configure(conn, opts={"compare_type": True})
        assert compare_metadata(context, schema.metadata) == []


@every_database
def test_the_migrations_make_exactly_the_schema(kind: str, tmp_path: Path) -> None:
    """Tables, columns, types and indexes; a partial index by its condition too."""
    with database(kind, tmp_path) as conn:
        upgrade(conn)
        context = MigrationContext.configure(conn, opts={"compare_type": True})
        assert compare_metadata(context, schema.metadata) == []
        made = conditions(conn)
    (tmp_path / "other").mkdir()
    with database(kind, tmp_path / "other") as conn:
        schema.metadata.create_all(conn)
        assert conditions(conn) == made
    assert made


def conditions(conn: sa.Connection) -> dict[str, str]:
    """The conditions of partial indexes, which Alembic does not compare."""
    if conn.dialect.name == "sqlite":
        query = "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
    else:
        query = "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'"
    found = {}
    for name, text in conn.exec_driver_sql(query):
        _, where, condition = re.sub(r"\s+", " ", text).partition(" WHERE ")
        if where:
            found[name] = condition
    return found


def test_a_released_migration_never_changes() -> None:
    """Stores that ran it would differ from stores that run it now; what is new goes into a migration of its own."""
    found = {name: hashlib.sha256((VERSIONS / name).read_bytes()).hexdigest() for name in RELEASED}

    assert found == RELEASED


def test_every_released_schema_has_a_store_to_upgrade() -> None:
    """``scripts/released_store.py`` makes one."""
    assert {path.stem for path in STORES.glob("*.sql")} == {name.split("_")[0] for name in RELEASED}
