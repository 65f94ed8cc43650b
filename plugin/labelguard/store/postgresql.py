"""The store in PostgreSQL: any number of processes on any number of machines.

What SQLite gives by its file is given here by advisory locks: writing transactions take one, so that they follow
one another and each sees what the last one committed, and a role is one that a session holds. Sessions that do
not move let go of what they hold within seconds, whether their process hangs or their machine is gone.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

from labelguard.store.backend import Role, StoreError, as_json, storable_text

LOCK_SECONDS = 10.0
"""How long the writer waits for those of other processes until we say that the store cannot be used."""

_HANGING_SECONDS = 6.0
"""How long a writing transaction may stand still before PostgreSQL ends it: shorter than the others wait."""

_ROLE_SECONDS = 60.0
"""How long to wait for a role before saying that it cannot be had."""

_SILENT_SECONDS = 20.0
"""How long the holder of a role may be silent before PostgreSQL gives the role away."""

_PING_SECONDS = 4.0

_CONNECT = {
    "connect_timeout": 5,
    "application_name": "labelguard",
    # A machine that vanished does not say so: notice it within half a minute from this side...
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
_SESSION = {
    # ...and from the other.
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "20s",
    "client_connection_check_interval": "10s",
    "timezone": "UTC",
}

# By class of SQLSTATE: https://www.postgresql.org/docs/current/errcodes-appendix.html
_JOBS_OWN = frozenset({"0A", "20", "21", "22", "23", "34", "42", "44", "54", "P0"})
_NOT_ALLOWED = "42501"
_LOCKED = "55P03"

# Keys are the database's own; a store in a schema of its own has locks of its own.
_KEY = "hashtextextended('labelguard:' || coalesce(current_schema(), '') || ':{}', 0)"
_TAKE_WRITER = f"SELECT pg_advisory_xact_lock({_KEY.format('writer')})"
_TAKE_WRITER_LAZILY = _TAKE_WRITER.replace("SELECT ", "SELECT set_config('synchronous_commit', 'off', true), ", 1)
# A key of 64 bits is kept in two halves: https://www.postgresql.org/docs/current/view-pg-locks.html
_WAITING = """SELECT EXISTS (
    SELECT FROM pg_locks JOIN pg_database ON pg_locks.database = pg_database.oid
    WHERE datname = current_database() AND locktype = 'advisory' AND objsubid = 1 AND NOT granted
    AND (classid::bigint << 32) | objid::bigint = {}
)"""

_PATIENT = "labelguard_patient"
_LAZILY = "labelguard_lazily"


class Postgresql:
    """A database, or a schema of one, with its connections."""

    def __init__(self, url: URL, *, durable: bool) -> None:
        """``durable=False`` never waits for the disk."""
        try:
            import psycopg  # noqa: F401 - an extra
        except ImportError:
            raise StoreError(
                "LABELGUARD_DATABASE_URL names PostgreSQL, whose driver is not installed: "
                "pip install 'labelguard[postgresql]'"
            ) from None
        url = url.set(drivername="postgresql+psycopg")
        # Built from what it may say, so that no password can be in it.
        self.where = URL.create("postgresql", host=url.host, port=url.port, database=url.database).render_as_string()
        commit = {"synchronous_commit": "on" if durable else "off"}
        self.reader = _engine(
            url,
            {**_SESSION, "statement_timeout": "5min", "idle_in_transaction_session_timeout": "10min"},
            size=5,
            overflow=10,
        )
        self.writer = _engine(
            url,
            {
                **_SESSION,
                **commit,
                "statement_timeout": "1min",
                "lock_timeout": f"{LOCK_SECONDS:g}s",
                "idle_in_transaction_session_timeout": f"{_HANGING_SECONDS:g}s",
            },
            size=1,
            overflow=1,
        )
        self._roles = _engine(url, {**_SESSION, "lock_timeout": "5s"}, size=3, overflow=20)
        self._holding: set[_SessionRole] = set()
        self._lock = threading.Lock()
        self._keeper: threading.Thread | None = None
        self._closed = threading.Event()

        @sa.event.listens_for(self.reader, "connect")
        def _read_only(connection: Any, _record: object) -> None:
            from psycopg import IsolationLevel

            connection.isolation_level = IsolationLevel.REPEATABLE_READ
            connection.read_only = True

        for engine in (self.reader, self.writer, self._roles):
            # What is in use while the store is closed has no pool to go back to.
            @sa.event.listens_for(engine, "checkin")
            def _gone(_connection: Any, record: ConnectionPoolEntry) -> None:
                if self._closed.is_set():
                    record.close()

        @sa.event.listens_for(self._roles, "connect")
        def _no_transactions(connection: Any, _record: object) -> None:
            connection.autocommit = True

        @sa.event.listens_for(self.writer, "begin")
        def _begin(conn: sa.Connection) -> None:
            if conn.get_execution_options().get(_PATIENT):
                conn.exec_driver_sql("SET LOCAL lock_timeout = 0")
                conn.exec_driver_sql("SET LOCAL statement_timeout = 0")
                conn.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = '10min'")
            conn.exec_driver_sql(_TAKE_WRITER_LAZILY if conn.get_execution_options().get(_LAZILY) else _TAKE_WRITER)

    def exists(self) -> bool:
        """Whether the database has our tables."""
        with self.reader.connect() as conn:
            return sa.inspect(conn).has_table("alembic_version")

    @contextmanager
    def upgrading(self) -> Iterator[sa.Connection]:
        """A writing transaction that waits for the migrations of another process, however long they take."""
        with self.writer.connect() as conn:
            patient = conn.execution_options(**{_PATIENT: True})
            with patient.begin():
                yield patient

    def opened(self) -> None:
        """The server looks after itself."""

    def is_about_the_store(self, error: BaseException) -> bool:
        """Whether an error is about the connection, the server or its disk."""
        if not isinstance(error, sa.exc.DBAPIError):
            return False
        state = getattr(error.orig, "sqlstate", None)
        if state is None:
            # The driver's own complaints: a connection that is gone, or a value that it cannot send.
            return error.connection_invalidated or isinstance(error, (sa.exc.OperationalError, sa.exc.InterfaceError))
        return state == _NOT_ALLOWED or state[:2] not in _JOBS_OWN

    # Roles

    def turn(self) -> AbstractContextManager[None]:
        """Around one writing transaction: the lock that it begins with has a line."""
        return nullcontext()

    def prepare(self, conn: sa.Connection, *, lazily: bool) -> None:
        """Before a writing transaction: whether its end waits for the disk.

        Where it does not, the next one that does takes it along: https://www.postgresql.org/docs/current/wal-async-commit.html
        """
        if conn.get_execution_options().get(_LAZILY, False) != lazily:
            conn.execution_options(**{_LAZILY: lazily})

    @contextmanager
    def exclusive(self, role: str, *, wait: bool) -> Iterator[Role | None]:
        """Hold a role by an advisory lock of a session of its own."""
        key = _KEY.format(role.replace("'", "''"))
        raw = self._taken(role, key, wait=wait)
        if raw is None:
            yield None
            return
        held = _SessionRole(raw, key)
        with self._lock:
            self._holding.add(held)
            if self._keeper is None:
                self._keeper = threading.Thread(target=self._keep, name="store-roles", daemon=True)
                self._keeper.start()
        try:
            yield held
        finally:
            with self._lock:
                self._holding.discard(held)
            held.release()

    def _taken(self, role: str, key: str, *, wait: bool) -> PoolProxiedConnection | None:
        """A session that has the lock; None where another has it and we do not wait."""
        began = time.monotonic()
        while True:
            if self._closed.is_set():
                raise StoreError("The store is closed.")
            raw = None
            try:
                raw = self._roles.raw_connection()
                # Two statements in one: the engine takes its role for every turn.
                take = f"SET idle_session_timeout = '{_SILENT_SECONDS:g}s'; SELECT {{}}({key})"
                done = _driver(raw).execute(take.format("pg_advisory_lock" if wait else "pg_try_advisory_lock"))
                done.nextset()
                # Who waited has it; the function that waits returns nothing.
                if done.fetchone()[0] is not False:
                    return raw
                _driver(raw).execute("SET idle_session_timeout = 0")
            except Exception as error:  # noqa: BLE001 - the session is of no use any more
                if raw is not None:
                    raw.invalidate()
                taken = getattr(error, "sqlstate", None) == _LOCKED
                if not taken or time.monotonic() - began >= _ROLE_SECONDS:
                    raise StoreError(
                        f"The role {role!r} of the store {self.where} cannot be taken: {reason(error)}"
                    ) from None
            else:
                raw.close()
                return None

    def _keep(self) -> None:
        """Say on each session that holds a role that its process is well."""
        while not self._closed.wait(_PING_SECONDS):
            with self._lock:
                holding = list(self._holding)
            for each in holding:
                each.held()

    def close(self) -> None:
        """Let go of every connection."""
        self._closed.set()
        if self._keeper is not None:
            self._keeper.join()
        for engine in (self.reader, self.writer, self._roles):
            engine.dispose()


class _SessionRole:
    """A role that a session holds; when the session ends, so does the role."""

    def __init__(self, raw: PoolProxiedConnection, key: str) -> None:
        self._raw = raw
        self._key = key
        self._session = _driver(raw)
        self._lost = False

    def held(self) -> bool:
        """Whether the session is there still: one that lives has what it took."""
        if not self._lost:
            try:
                # The driver lets threads take turns.
                self._session.execute("SELECT 1")
            except Exception:  # noqa: BLE001 - whatever it is, this session is of no use any more
                self._lost = True
        return not self._lost

    def wanted(self) -> bool:
        """Whether somebody waits for it, or may have it since the session ended."""
        try:
            return bool(self._session.execute(_WAITING.format(self._key)).fetchone()[0])
        except Exception:  # noqa: BLE001 - whatever it is, this session is of no use any more
            self._lost = True
            return True

    def release(self) -> None:
        """Give the role back, and the session to the pool."""
        try:
            self._session.execute(f"SELECT pg_advisory_unlock({self._key}); SET idle_session_timeout = 0")
        except Exception:  # noqa: BLE001 - it ends with the session
            self._raw.invalidate()
        else:
            self._raw.close()


def _driver(raw: PoolProxiedConnection) -> Any:
    connection: Any = raw.driver_connection
    return connection


def _engine(url: URL, session: dict[str, str], *, size: int, overflow: int) -> sa.Engine:
    engine = sa.create_engine(
        url,
        json_serializer=as_json,
        pool_size=size,
        max_overflow=overflow,
        pool_timeout=LOCK_SECONDS,
        # The last one again: each has a process of the server with its own memory.
        pool_use_lifo=True,
        # A server that was started again is found without hand work.
        pool_pre_ping=True,
        # What the address itself says, counts.
        connect_args={name: value for name, value in _CONNECT.items() if name not in url.query},
    )
    settings = "; ".join(f"SET {name} = '{value}'" for name, value in session.items())
    text = _text_dumper()

    @sa.event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: object) -> None:
        connection.autocommit = True
        connection.execute(settings)
        connection.autocommit = False
        connection.adapters.register_dumper(str, text)

    return engine


def _text_dumper() -> Any:
    """What hands text to the driver, so that no character of it can make a statement fail."""
    from psycopg.types.string import StrDumperUnknown

    class Text(StrDumperUnknown):
        def dump(self, obj: str) -> Any:
            return super().dump(storable_text(obj))

    return Text


def reason(error: BaseException) -> str:
    """The database's own words on one line, without the values that its details would tell."""
    original = getattr(error, "orig", None) or error
    primary = getattr(getattr(original, "diag", None), "message_primary", None)
    return primary or " ".join(str(original).split())
