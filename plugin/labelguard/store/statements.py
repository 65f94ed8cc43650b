"""Statements that run for every delivery, compiled once and run on the driver itself.

SQLAlchemy takes several times longer to prepare the execution of a small statement than the database takes
to run it. Here a Core statement is compiled once for each kind of database; its columns' types still convert
what goes in and what comes out, so nothing has to be known about either database.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.sql.compiler import SQLCompiler

Convert = Callable[[Any], Any]


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


class _Prepared:
    """A statement for one kind of database."""

    def __init__(self, statement: sa.sql.expression.ClauseElement, columns: Sequence[str] | None, dialect: Dialect):
        options: dict[str, Any] = {} if columns is None else {"column_keys": list(columns)}
        compiled = statement.compile(dialect=dialect, **options)
        if not isinstance(compiled, SQLCompiler):
            raise TypeError("only statements can be prepared")
        self.text = compiled.string
        processors = {
            name: bound.type.dialect_impl(dialect).bind_processor(dialect) for name, bound in compiled.binds.items()
        }
        self.fixed = {name: bound.effective_value for name, bound in compiled.binds.items() if bound.value is not None}
        names = compiled.positiontup
        self.positions = None if names is None else [(name, processors[name]) for name in names]
        self.names = list(processors.items())
        self.results: list[Convert | None] = []
        if isinstance(statement, sa.Select):
            self.results = [
                column.type.dialect_impl(dialect).result_processor(dialect, None)
                for column in statement.selected_columns
            ]

    def parameters(self, given: Mapping[str, Any]) -> Any:
        values = {**self.fixed, **given} if self.fixed else given
        if self.positions is not None:
            return [values[name] if convert is None else convert(values[name]) for name, convert in self.positions]
        return {name: values[name] if convert is None else convert(values[name]) for name, convert in self.names}

    def converted(self, row: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(
            [value if convert is None else convert(value) for value, convert in zip(row, self.results, strict=True)]
        )


class Statement:
    """A Core statement (a select, or an insert, update or upsert with named values), run on the driver."""

    def __init__(self, statement: sa.sql.expression.ClauseElement, columns: Sequence[str] | None = None) -> None:
        """``columns`` names the values of an insert."""
        self._statement = statement
        self._columns = columns
        self._prepared: dict[str, _Prepared] = {}

    def rows(self, conn: sa.Connection, **given: Any) -> list[tuple[Any, ...]]:
        """The rows of a select, as tuples of its columns' Python values."""
        prepared, cursor = self._ready(conn)
        try:
            cursor.execute(prepared.text, prepared.parameters(given))
            return [prepared.converted(row) for row in cursor.fetchall()]
        except conn.dialect.loaded_dbapi.Error as error:
            raise self._wrapped(conn, prepared, error) from error
        finally:
            cursor.close()

    def first(self, conn: sa.Connection, **given: Any) -> tuple[Any, ...] | None:
        """The first row of a select, or None."""
        found = self.rows(conn, **given)
        return found[0] if found else None

    def run(self, conn: sa.Connection, given: Sequence[Mapping[str, Any]]) -> None:
        """Run the statement with each of these values."""
        if not given:
            return
        prepared, cursor = self._ready(conn)
        try:
            if len(given) == 1:
                cursor.execute(prepared.text, prepared.parameters(given[0]))
            else:
                cursor.executemany(prepared.text, [prepared.parameters(each) for each in given])
        except conn.dialect.loaded_dbapi.Error as error:
            raise self._wrapped(conn, prepared, error) from error
        finally:
            cursor.close()

    def ids(self, conn: sa.Connection, given: Iterable[Mapping[str, Any]]) -> list[int | None]:
        """Run an insert that returns one integer with each of these values; None where it inserted nothing."""
        prepared, cursor = self._ready(conn)
        parameters = [prepared.parameters(each) for each in given]
        found: list[int | None] = []
        try:
            if conn.dialect.name == "postgresql" and len(parameters) > 1:
                # One round trip for all of them.
                cursor.executemany(prepared.text, parameters, returning=True)
                while True:
                    row = cursor.fetchone()
                    found.append(None if row is None else int(row[0]))
                    if not cursor.nextset():
                        break
            else:
                for each in parameters:
                    cursor.execute(prepared.text, each)
                    row = cursor.fetchone()
                    found.append(None if row is None else int(row[0]))
        except conn.dialect.loaded_dbapi.Error as error:
            raise self._wrapped(conn, prepared, error) from error
        finally:
            cursor.close()
        return found

    def _ready(self, conn: sa.Connection) -> tuple[_Prepared, Any]:
        dialect = conn.dialect
        prepared = self._prepared.get(dialect.name)
        if prepared is None:
            prepared = self._prepared[dialect.name] = _Prepared(self._statement, self._columns, dialect)
        if not conn.in_transaction():
            # SQLAlchemy begins by itself only for what goes through it.
            conn.begin()
        driver: Any = conn.connection.driver_connection
        return prepared, driver.cursor()

    def _wrapped(self, conn: sa.Connection, prepared: _Prepared, error: Exception) -> BaseException:
        """The driver's error as SQLAlchemy would have raised it."""
        return sa.exc.DBAPIError.instance(
            prepared.text, None, error, conn.dialect.loaded_dbapi.Error, hide_parameters=True, dialect=conn.dialect
        )
