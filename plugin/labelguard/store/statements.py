"""Statements that run for every delivery, compiled once and run on the driver itself.

SQLAlchemy takes several times longer to prepare the execution of a small statement than the database takes
to run it. Here a Core statement is compiled once for each kind of database; its columns' types still convert
what goes in and what comes out, so nothing has to be known about either database.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import Insert, insert  # its conflict clauses are SQLite's too
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler

from labelguard.store.backend import storable_text

Convert = Callable[[Any], Any]

_ROWS = 32
"""Rows of one insert at most, a power of two: SQLite limits the values of a statement to 32,766."""

_JSON_TYPES = frozenset({"JSON", "JSONB"})

_NAMED = re.compile(r"%\((\w+)\)s")


class JsonText(sa.TypeDecorator[str]):
    """A JSON column whose values are handed over as JSON text that was made already."""

    impl = sa.JSON
    cache_ok = True

    def bind_processor(self, dialect: Dialect) -> None:
        """Hand the text over as it is."""
        return

    def result_processor(self, dialect: Dialect, coltype: object) -> Convert:
        """Such values are written, never read: what comes back depends on the driver."""
        raise NotImplementedError("select the column as text: sa.cast(column, sa.Text)")


def adding(table: sa.Table, but: Collection[str] = ()) -> Insert:
    """An insert with a named value for every column ``but`` some; JSON is handed over as text."""
    return insert(table).values(
        {
            column.name: sa.bindparam(column.name, type_=JsonText() if isinstance(column.type, sa.JSON) else None)
            for column in table.c
            if column.name not in but
        }
    )


class _List(sa.types.UserDefinedType[Sequence[Any]]):
    """Several values as one: an array for PostgreSQL, JSON text for SQLite."""

    cache_ok = True

    def bind_processor(self, dialect: Dialect) -> Convert:
        if dialect.name == "postgresql":
            return list
        return lambda values: msgspec.json.encode(list(values)).decode()


class among(sa.ColumnElement[bool]):  # noqa: N801 - reads like SQLAlchemy's own `between`
    """Whether a column is one of the values of a parameter: an ``IN`` whose text does not grow with them."""

    inherit_cache = False
    # Not a boolean to SQLAlchemy, which would have SQLite compare it with 1 and then find no index for it.
    type: sa.types.TypeEngine[Any] = sa.types.NullType()

    def __init__(self, column: sa.ColumnElement[Any], name: str) -> None:
        self.column = column
        self.values = sa.bindparam(name, type_=_List())


@compiles(among, "sqlite")
def _among_sqlite(element: among, compiler: SQLCompiler, **kw: Any) -> str:
    column, values = compiler.process(element.column, **kw), compiler.process(element.values, **kw)
    return f"{column} IN (SELECT value FROM json_each({values}))"  # noqa: S608 - both are made by SQLAlchemy


@compiles(among, "postgresql")
def _among_postgresql(element: among, compiler: SQLCompiler, **kw: Any) -> str:
    of = compiler.dialect.type_compiler_instance.process(element.column.type)
    return f"{compiler.process(element.column, **kw)} = ANY({compiler.process(element.values, **kw)}::{of}[])"


def command(conn: sa.Connection, text: str) -> None:
    """Run a command that has no values and no result, such as ``SAVEPOINT job``."""
    _run(conn, text, ())


def _run(conn: sa.Connection, text: str, values: Sequence[Any]) -> Any:
    """Run a statement on the driver, whose errors are raised as SQLAlchemy would have raised them; its cursor."""
    driver: Any = conn.connection.driver_connection
    try:
        return driver.execute(text, values)
    except conn.dialect.loaded_dbapi.Error as error:
        raise _as_raised(conn.dialect, text, error) from error


def _fetched(conn: sa.Connection, text: str, cursor: Any) -> list[Sequence[Any]]:
    try:
        rows: list[Sequence[Any]] = cursor.fetchall()
    except conn.dialect.loaded_dbapi.Error as error:
        raise _as_raised(conn.dialect, text, error) from error
    return rows


def _as_raised(dialect: Dialect, text: str, error: Exception) -> BaseException:
    kind = dialect.loaded_dbapi.Error
    return sa.exc.DBAPIError.instance(text, None, error, kind, hide_parameters=True, dialect=dialect)


class _Prepared:
    """A statement for one kind of database."""

    def __init__(self, statement: sa.sql.expression.ClauseElement, dialect: Dialect, *, numbered: bool) -> None:
        compiled = statement.compile(dialect=dialect)
        if not isinstance(compiled, SQLCompiler):
            raise TypeError("only statements can be prepared")
        self.text = compiled.string
        names: Sequence[str] = compiled.positiontup or []
        if compiled.positiontup is None:
            # Parameters by position on both, so that rows can be put behind one another.
            names = _NAMED.findall(self.text)
            self.text = _NAMED.sub("%s", self.text)
        convert = {
            # What is true or false both drivers take as it is.
            name: None
            if isinstance(bound.type, sa.Boolean)
            else bound.type.dialect_impl(dialect).bind_processor(dialect)
            for name, bound in compiled.binds.items()
        }
        self._taken = _taker(names)
        self._converted = [(place, each) for place, name in enumerate(names) if (each := convert[name]) is not None]
        self.fixed = {name: bound.effective_value for name, bound in compiled.binds.items() if bound.value is not None}
        types: list[Any] = []
        if isinstance(statement, sa.Select):
            types = [column.type for column in statement.selected_columns]
        elif isinstance(statement, sa.sql.dml.UpdateBase):
            types = [column["type"] for column in statement.returning_column_descriptions]
        self.results = [each.dialect_impl(dialect).result_processor(dialect, None) for each in types]
        self.converts = any(each is not None for each in self.results)
        self.returned: list[str] | None = None
        if numbered and dialect.name == "sqlite":
            # Rows that one insert makes have ids that follow one another, and each row that it returns is one more
            # time that a thread lets go of the interpreter and has to get it back.
            self.text = self.text.partition(" RETURNING ")[0]
            self.returned = [column["name"] for column in statement.returning_column_descriptions[1:]]  # type: ignore[attr-defined]
        self._many: dict[int, str] = {}
        self._columns: dict[str, str] = {}
        if dialect.name == "postgresql" and isinstance(statement, sa.sql.dml.Insert):
            types_of = dialect.type_compiler_instance
            self._columns = {
                f"v{place}": types_of.process(compiled.binds[name].type.dialect_impl(dialect))
                for place, name in enumerate(names)
            }

    def values(self, given: Mapping[str, Any]) -> list[Any]:
        if self.fixed:
            given = {**self.fixed, **given}
        values = list(self._taken(given))
        for place, convert in self._converted:
            values[place] = convert(values[place])
        return values

    def converted(self, rows: Iterable[Sequence[Any]]) -> list[tuple[Any, ...]]:
        if not self.converts:
            return [tuple(row) for row in rows]
        return [
            tuple(
                [value if convert is None else convert(value) for value, convert in zip(row, self.results, strict=True)]
            )
            for row in rows
        ]

    def at_once(self, rows: int) -> int:
        """How many of so many rows the next insert takes: a power of two where each number is another statement.

        SQLite keeps statements ready on each connection; of one insert with every number up to fifty, 1.7 MiB.
        """
        return min(_ROWS, rows if self._columns else 1 << rows.bit_length() - 1)

    def many(self, given: Sequence[Mapping[str, Any]]) -> tuple[str, list[Any]]:
        """The text of an insert for several rows, and its values."""
        if self._columns:
            # One value whatever the number of rows: PostgreSQL would plan each number anew, and take half a
            # millisecond to read the values of sixteen rows.
            rows = [dict(zip(self._columns, map(_in_json, self.values(each)), strict=True)) for each in given]
            return self._text_of(1), [msgspec.json.encode(rows).decode()]
        return self._text_of(len(given)), [value for each in given for value in self.values(each)]

    def _text_of(self, rows: int) -> str:
        text = self._many.get(rows)
        if text is None:
            before, found, rest = self.text.partition(" VALUES (")
            group, closed, after = rest.partition(")")
            if not found or not closed or "(" in group or "%s" in after:
                raise TypeError(f"this is no insert of plain values: {self.text}")
            if self._columns:
                text = f"{before} {_from_json(self._columns)}{after}"
            else:
                text = f"{before} VALUES {', '.join([f'({group})'] * rows)}{after}"
            self._many[rows] = text
        return text


def _taker(names: Sequence[str]) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
    """What takes the values of these names out of a mapping, in one call."""
    if len(names) > 1:
        return itemgetter(*names)
    return lambda given: tuple(given[name] for name in names)


def _from_json(columns: Mapping[str, str]) -> str:
    """PostgreSQL's select of rows that one parameter brings as JSON, by the types of their columns."""
    # JSON inside of it is text, which must not be taken for a JSON string.
    taken = [f"{name}::{of}" if of in _JSON_TYPES else name for name, of in columns.items()]
    typed = [f"{name} {'TEXT' if of in _JSON_TYPES else of}" for name, of in columns.items()]
    return f"SELECT {', '.join(taken)} FROM json_to_recordset(%s::JSON) AS given({', '.join(typed)})"  # noqa: S608


def _in_json(value: Any) -> Any:
    return storable_text(value) if type(value) is str else value


class Statement:
    """A Core statement (a select, or an insert, update or upsert with named values), run on the driver."""

    def __init__(self, statement: sa.sql.expression.ClauseElement, *, numbered: bool = False) -> None:
        """``numbered``: an insert that meets no conflict, and returns the id it gave and then values it was given."""
        self._statement = statement
        self._numbered = numbered
        self._prepared: dict[str, _Prepared] = {}

    def rows(self, conn: sa.Connection, **given: Any) -> list[tuple[Any, ...]]:
        """The rows of a select (or what an update returns), as tuples of its columns' Python values."""
        prepared = self._ready(conn)
        cursor = _run(conn, prepared.text, prepared.values(given))
        return prepared.converted(_fetched(conn, prepared.text, cursor))

    def first(self, conn: sa.Connection, **given: Any) -> tuple[Any, ...] | None:
        """The first row of a select, or None."""
        found = self.rows(conn, **given)
        return found[0] if found else None

    def insert(self, conn: sa.Connection, given: Iterable[Mapping[str, Any]]) -> list[tuple[Any, ...]]:
        """Run an insert for each of these values, many with one statement; what it returns, in any order.

        An upsert must not get the same row twice.
        """
        prepared, returned = self._ready(conn), list[tuple[Any, ...]]()
        left = list(given)
        while left:
            some = left[: prepared.at_once(len(left))]
            del left[: len(some)]
            text, values = prepared.many(some)
            cursor = _run(conn, text, values)
            if prepared.returned is not None:
                first = cursor.lastrowid - len(some) + 1
                returned += [(first + n, *(row[name] for name in prepared.returned)) for n, row in enumerate(some)]
            elif prepared.results:
                returned += prepared.converted(_fetched(conn, text, cursor))
        return returned

    def count(self, conn: sa.Connection, **given: Any) -> int:
        """Run an update; how many rows it changed."""
        prepared = self._ready(conn)
        return int(_run(conn, prepared.text, prepared.values(given)).rowcount)

    def _ready(self, conn: sa.Connection) -> _Prepared:
        dialect = conn.dialect
        prepared = self._prepared.get(dialect.name)
        if prepared is None:
            prepared = self._prepared[dialect.name] = _Prepared(self._statement, dialect, numbered=self._numbered)
        if not conn.in_transaction():
            # SQLAlchemy begins by itself only for what goes through it.
            conn.begin()
        return prepared
