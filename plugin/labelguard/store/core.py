"""Opening the store, reading from it, and the single group-committing writer."""

from __future__ import annotations

import fcntl
import json
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from labelguard.instruments import Instruments
from labelguard.store.migrations import UnknownRevision, upgrade

T = TypeVar("T")

_GROUP = 256
"""How many waiting jobs one commit takes at most: bounds how long the first of them waits."""

_LOCK_SECONDS = 10.0
"""How long another process (a command, a backup) may hold the file until we say that it cannot be used."""

_JOBS_OWN = frozenset(
    {
        sqlite3.SQLITE_ERROR,
        sqlite3.SQLITE_TOOBIG,
        sqlite3.SQLITE_CONSTRAINT,
        sqlite3.SQLITE_MISMATCH,
        sqlite3.SQLITE_RANGE,
    }
)
"""SQLite's result codes for a statement that is wrong; the others are about the file or the disk.
See https://www.sqlite.org/rescode.html."""


class StoreError(Exception):
    """The store cannot be used; the message says why and what to do."""


@dataclass(slots=True)
class _Job:
    run: Callable[[sa.Connection], Any]
    done: threading.Event = field(default_factory=threading.Event)
    result: Any = None
    error: BaseException | None = None

    def finish(self, error: BaseException | None = None) -> None:
        self.error = error
        self.done.set()


class Store:
    """The operational store.

    All writes of a process go through one writer thread which commits several waiting jobs at once: SQLite
    does not queue its writers, and a second one ruins the slowest answers.
    """

    def __init__(self, url: str, *, durable: bool = True) -> None:
        """Use :meth:`open`. ``durable=False`` never waits for the disk: for stores that are thrown away."""
        self.url = _checked(url)
        self.path = Path(self.url.database or "")
        self.instruments = Instruments()
        self._reader = _engine(self.url, begin="BEGIN", durable=durable, read_only=True)
        # Its own engine: IMMEDIATE takes the write lock up front, where waiting for it is still harmless.
        self._writer = _engine(self.url, begin="BEGIN IMMEDIATE", durable=durable)
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._closed = False
        # What is put in line after the writer's end would wait for ever.
        self._closing = threading.Lock()
        self._thread = threading.Thread(target=self._write_loop, name="store-writer", daemon=True)

    @classmethod
    def open(cls, url: str, *, durable: bool = True) -> Store:
        """Open a store and bring its schema up to date.

        Raises:
            StoreError: it cannot be opened, or was written by a newer labelguard.
        """
        store = cls(url, durable=durable)
        try:
            store.path.parent.mkdir(parents=True, exist_ok=True)
            with store._writer.begin() as conn:
                upgrade(conn)
        except UnknownRevision as error:
            store._dispose()
            raise StoreError(
                f"The store {store.path} was written by a newer labelguard (schema {error.revision}). "
                "Install that version, or restore the backup made before the upgrade."
            ) from None
        except (SQLAlchemyError, OSError) as error:
            store._dispose()
            raise StoreError(f"The store {store.path} cannot be opened: {_reason(error)}") from None
        store._thread.start()
        return store

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A connection with one consistent snapshot, read only.

        Raises:
            StoreError: the store cannot be read.
        """
        try:
            conn = self._reader.connect()
        except SQLAlchemyError as error:
            raise StoreError(f"The store {self.path} cannot be read: {_reason(error)}") from None
        try:
            yield conn
        except sa.exc.DBAPIError as error:
            raise StoreError(f"The store {self.path} cannot be read: {_reason(error)}") from None
        finally:
            conn.close()

    def write(self, job: Callable[[sa.Connection], T]) -> T:
        """Run a job on the writer, wait until it is committed, and return what it returned.

        A job that raises is rolled back alone; the others of its group are committed.

        Raises:
            StoreError: nothing was written because the store cannot be.
        """
        if threading.current_thread() is self._thread:
            raise RuntimeError("a write job must not wait for another write job")
        waiting = _Job(job)
        with self._closing:
            if self._closed:
                raise StoreError("The store is closed.")
            self._jobs.put(waiting)
        waiting.done.wait()
        if waiting.error is not None:
            raise waiting.error
        result: T = waiting.result
        return result

    @contextmanager
    def exclusive(self, role: str) -> Iterator[None]:
        """Hold a role that only one process (and one thread of it) may have at a time, such as the engine's.

        The lock dies with its process, so nothing needs cleaning up after a crash.

        Raises:
            StoreError: the lock's file, beside the store's, cannot be opened.
        """
        path = self.path.with_name(f"{self.path.name}-{role}.lock")
        try:
            handle = path.open("a")
        except OSError as error:
            raise StoreError(f"The lock {path} cannot be taken: {_reason(error)}") from None
        with handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def close(self) -> None:
        """Finish what is waiting and let go of the file."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
            self._jobs.put(None)
        self._thread.join()
        self._dispose()

    def _dispose(self) -> None:
        self._reader.dispose()
        self._writer.dispose()

    def _write_loop(self) -> None:
        while True:
            group = self._next_group()
            if jobs := [job for job in group if job is not None]:
                self._commit(jobs)
            if None in group:
                return

    def _next_group(self) -> list[_Job | None]:
        group = [self._jobs.get()]
        while len(group) < _GROUP and group[-1] is not None:
            try:
                group.append(self._jobs.get_nowait())
            except queue.Empty:
                break
        return group

    def _commit(self, jobs: list[_Job]) -> None:
        try:
            with self.instruments.commit(len(jobs)), self._writer.begin() as conn:
                for job in jobs:
                    self._run(conn, job)
        except Exception as error:  # noqa: BLE001 - this thread must live, and nobody may wait for ever
            why = StoreError(f"The store {self.path} cannot be written: {_reason(error)}")
            for job in jobs:
                if not job.done.is_set():
                    job.finish(why)
        else:
            for job in jobs:
                if not job.done.is_set():
                    job.finish()

    @staticmethod
    def _run(conn: sa.Connection, job: _Job) -> None:
        """Run one job of a group; what it raises is its caller's, unless it is about the file or the disk."""
        cause: BaseException | None = None
        try:
            with conn.begin_nested():
                try:
                    job.result = job.run(conn)
                except BaseException as error:
                    cause = error
                    raise
        except BaseException as error:  # noqa: BLE001 - it belongs to the caller, who gets it
            # On a full disk SQLite rolls everything back by itself, and going back to the savepoint fails in
            # its turn, which hides what happened: https://www.sqlite.org/lang_transaction.html
            why = cause or error
            if _is_about_the_store(why):
                # Nobody in this group can be told "committed".
                raise why from None
            job.finish(why)


def inserted_id(done: sa.CursorResult[Any]) -> int:
    """The id that an insert of one row gave it."""
    key = done.inserted_primary_key
    if key is None:
        raise RuntimeError("the statement inserted no single row")
    return int(key[0])


def _checked(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise StoreError(
            "LABELGUARD_DATABASE_URL is not a database address; it looks like sqlite:////var/lib/labelguard.sqlite3"
        ) from None
    if parsed.get_backend_name() != "sqlite":
        raise StoreError(
            f"LABELGUARD_DATABASE_URL names {parsed.get_backend_name()!r}; this version keeps its store in "
            "SQLite: sqlite:////var/lib/labelguard.sqlite3"
        )
    if not parsed.database or parsed.database == ":memory:":
        raise StoreError("LABELGUARD_DATABASE_URL must name a file: sqlite:////var/lib/labelguard.sqlite3")
    return parsed


def _engine(url: URL, *, begin: str, durable: bool, read_only: bool = False) -> sa.Engine:
    engine = sa.create_engine(
        url,
        json_serializer=lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":")),
        pool_size=16,
        max_overflow=48,
        connect_args={"timeout": _LOCK_SECONDS, "check_same_thread": False},
    )

    @sa.event.listens_for(engine, "connect")
    def _connect(connection: sqlite3.Connection, _record: object) -> None:
        # SQLAlchemy's pysqlite notes: transactions work as written only without the driver's own BEGIN.
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.execute(f"PRAGMA synchronous={'FULL' if durable else 'OFF'}")
        if read_only:
            cursor.execute("PRAGMA query_only=ON")
        cursor.close()

    @sa.event.listens_for(engine, "begin")
    def _begin(conn: sa.Connection) -> None:
        conn.exec_driver_sql(begin)

    return engine


def _is_about_the_store(error: BaseException) -> bool:
    code = getattr(getattr(error, "orig", None), "sqlite_errorcode", None)
    # Extended codes keep the primary one in their lowest byte. Python's own complaints (a value it cannot
    # bind) have no code.
    return code is not None and code & 0xFF not in _JOBS_OWN


def _reason(error: Exception) -> str:
    """The database's own words; SQLAlchemy's would repeat the statement with its values."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(getattr(error, "orig", None) or error)
