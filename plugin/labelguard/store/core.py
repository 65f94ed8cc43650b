"""Opening the store, reading from it, and the single group-committing writer."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from labelguard.instruments import Instruments
from labelguard.store.backend import Backend, Role, StoreError
from labelguard.store.migrations import UnknownRevision, upgrade
from labelguard.store.postgresql import Postgresql, reason
from labelguard.store.sqlite import Sqlite
from labelguard.store.statements import command

__all__ = ["Role", "Store", "StoreError", "Writing", "inserted_id"]

T = TypeVar("T")

_GROUP = 256
"""How many waiting jobs one commit takes at most: bounds how long the first of them waits."""

_EXAMPLES = "it looks like sqlite:////var/lib/labelguard.sqlite3 or postgresql://labelguard:password@host/labelguard"


def _done(_conn: sa.Connection) -> Any:
    raise RuntimeError("a job is run once")


@dataclass(slots=True)
class Writing(Generic[T]):
    """A job in the writer's line."""

    run: Callable[[sa.Connection], T]
    lazily: bool = False
    """Whether it need not be on the disk when it is done."""
    then: Callable[[BaseException | None], None] | None = None
    """Told when it is done: for what waits otherwise than by :meth:`wait`."""
    done: threading.Event = field(default_factory=threading.Event)
    result: Any = None
    error: BaseException | None = None

    def finish(self, error: BaseException | None = None) -> None:
        """The writer is done with it: it is committed, or there is an ``error``."""
        self.error = error
        # What a job holds (a whole delivery) often holds the job in turn: let go, and it is gone without the collector.
        then, self.then, self.run = self.then, None, _done
        self.done.set()
        if then is not None:
            then(error)

    def wait(self) -> T:
        """Wait until the job is committed, and return what it returned.

        Raises:
            StoreError: nothing was written because the store cannot be.
        """
        self.done.wait()
        if self.error is not None:
            raise self.error
        result: T = self.result
        return result


class _RolledBack(Exception):
    """The only job of its group failed, and knows why."""


class Store:
    """The operational store.

    All writes of a process go through one writer thread which commits several waiting jobs at once: SQLite
    does not queue its writers, and a second one ruins the slowest answers. On both databases a writing
    transaction begins by taking the one lock of all writers, so what it reads is the newest there is.
    """

    def __init__(self, url: str, *, durable: bool = True, single: bool = False) -> None:
        """Use :meth:`open`. ``durable=False`` never waits for the disk: for stores that are thrown away.

        ``single`` is for a process of one thread, beside one that keeps the file in order: it writes by itself.
        """
        self._backend = _backend(url, durable=durable)
        self.where = self._backend.where
        """What messages call the store; without a password."""
        self.instruments = Instruments()
        self._jobs: queue.SimpleQueue[Writing[Any] | None] = queue.SimpleQueue()
        self._conn: sa.Connection | None = None
        self.before_reading: Callable[[], None] = _nothing
        """Called before each read: who answers before everything is written has it written now."""
        self._closed = False
        self._single = single
        # What is put in line after the writer's end would wait for ever.
        self._closing = threading.Lock()
        self._thread = threading.Thread(target=self._write_loop, name="store-writer", daemon=True)

    @property
    def path(self) -> Path:
        """The file of a store on SQLite."""
        if not isinstance(self._backend, Sqlite):
            raise TypeError("only a store on SQLite is a file")
        return self._backend.path

    @property
    def shared(self) -> bool:
        """Whether processes on several machines may work on it."""
        return isinstance(self._backend, Postgresql)

    @classmethod
    def open(cls, url: str, *, durable: bool = True, single: bool = False) -> Store:
        """Open a store and bring its schema up to date.

        Raises:
            StoreError: it cannot be opened, or was written by a newer labelguard.
        """
        store = cls(url, durable=durable, single=single)
        try:
            with store._backend.upgrading() as conn:
                upgrade(conn)
        except UnknownRevision as error:
            store._backend.close()
            raise StoreError(
                f"The store {store.where} was written by a newer labelguard (schema {error.revision}). "
                "Install that version, or restore the backup made before the upgrade."
            ) from None
        except (SQLAlchemyError, OSError) as error:
            store._backend.close()
            raise StoreError(f"The store {store.where} cannot be opened: {_reason(error)}") from None
        if not single:
            store._backend.opened()
            store._thread.start()
        return store

    @staticmethod
    def exists(url: str) -> bool:
        """Whether there is a store at an address, of any version; it is neither made nor changed.

        Raises:
            StoreError: the address is none of a store.
        """
        backend = _backend(url, durable=True)
        try:
            return backend.exists()
        except SQLAlchemyError:
            return False
        finally:
            backend.close()

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A connection with one consistent snapshot, read only.

        Raises:
            StoreError: the store cannot be read.
        """
        if self._closed:
            raise StoreError("The store is closed.")
        self.before_reading()
        try:
            conn = self._backend.reader.connect()
        except SQLAlchemyError as error:
            raise StoreError(f"The store {self.where} cannot be read: {_reason(error)}") from None
        try:
            yield conn
        except sa.exc.DBAPIError as error:
            raise StoreError(f"The store {self.where} cannot be read: {_reason(error)}") from None
        finally:
            conn.close()

    def write(self, job: Callable[[sa.Connection], T], *, lazily: bool = False) -> T:
        """Run a job on the writer, wait until it is committed, and return what it returned.

        A job that raises is rolled back alone; the others of its group are committed. What is written ``lazily``
        is there for everybody and outlives this process, but a power cut may take it back until something else
        is written: for what is done again then.

        Raises:
            StoreError: nothing was written because the store cannot be.
        """
        if threading.current_thread() is self._thread:
            raise RuntimeError("a write job must not wait for another write job")
        return self.submit(job, lazily=lazily).wait()

    def submit(
        self,
        job: Callable[[sa.Connection], T],
        then: Callable[[BaseException | None], None] | None = None,
        *,
        lazily: bool = False,
    ) -> Writing[T]:
        """Put a job in the writer's line, where jobs are run in the order in which they came.

        ``then`` is called on the writer's thread when it is committed, or with the error: it must be quick.

        Raises:
            StoreError: the store is closed.
        """
        writing = Writing(job, lazily, then)
        with self._closing:
            if self._closed:
                raise StoreError("The store is closed.")
            if not self._single:
                self._jobs.put(writing)
                return writing
        self._commit([writing])
        return writing

    @contextmanager
    def exclusive(self, role: str) -> Iterator[Role]:
        """Hold a role that only one process (and one thread of it) may have at a time, such as the engine's.

        The lock dies with its process, so nothing needs cleaning up after a crash. On PostgreSQL it dies with
        its connection too: who works long looks at :meth:`Role.held`.

        Raises:
            StoreError: the lock cannot be had.
        """
        with self._backend.exclusive(role, wait=True) as held:
            if held is None:
                raise RuntimeError("who waits for a role gets it")
            yield held

    @contextmanager
    def try_exclusive(self, role: str) -> Iterator[Role | None]:
        """Hold a role like :meth:`exclusive`, or None, at once, where somebody else has it.

        Raises:
            StoreError: whether somebody has it cannot be known.
        """
        with self._backend.exclusive(role, wait=False) as held:
            yield held

    def close(self) -> None:
        """Finish what is waiting and let go of the database."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
            self._jobs.put(None)
        if not self._single:
            self._thread.join()
        self._let_go()
        self._backend.close()

    def _write_loop(self) -> None:
        while True:
            group = self._next_group()
            if jobs := [job for job in group if job is not None]:
                self._commit(jobs)
            if None in group:
                return

    def _next_group(self) -> list[Writing[Any] | None]:
        group = [self._jobs.get()]
        while len(group) < _GROUP and group[-1] is not None:
            try:
                group.append(self._jobs.get_nowait())
            except queue.Empty:
                break
        return group

    def _commit(self, jobs: list[Writing[Any]]) -> None:
        try:
            lazily = all(job.lazily for job in jobs)
            with self.instruments.commit(len(jobs)), self._backend.turn(), self._begun(lazily) as conn:
                for job in jobs:
                    self._run(conn, job, alone=len(jobs) == 1)
        except _RolledBack:
            return
        except Exception as error:  # noqa: BLE001 - this thread must live, and nobody may wait for ever
            self._let_go()
            why = StoreError(f"The store {self.where} cannot be written: {_reason(error)}")
            for job in jobs:
                if not job.done.is_set():
                    job.finish(why)
        else:
            for job in jobs:
                if not job.done.is_set():
                    job.finish()

    @contextmanager
    def _begun(self, lazily: bool = False) -> Iterator[sa.Connection]:
        """A writing transaction, on a connection that is kept: getting one takes longer than many a job."""
        fresh = self._conn is None
        if self._conn is None:
            self._conn = self._backend.writer.connect()
        self._backend.prepare(self._conn, lazily=lazily)
        try:
            transaction = self._conn.begin()
        except sa.exc.DBAPIError as error:
            if fresh or not error.connection_invalidated:
                raise
            # The server was started again meanwhile, and nothing was done yet.
            self._let_go()
            self._conn = self._backend.writer.connect()
            self._backend.prepare(self._conn, lazily=lazily)
            transaction = self._conn.begin()
        with transaction:
            yield self._conn

    def _let_go(self) -> None:
        """Give the writer's connection back: the pool finds out whether it is of any use."""
        conn, self._conn = self._conn, None
        if conn is not None:
            with suppress(SQLAlchemyError):
                conn.close()

    def _run(self, conn: sa.Connection, job: Writing[Any], *, alone: bool) -> None:
        """Run one job of a group; what it raises is its caller's, unless it is about the store."""
        if not alone:
            command(conn, "SAVEPOINT job")
        try:
            job.result = job.run(conn)
        except BaseException as error:
            if self._backend.is_about_the_store(error):
                # Nobody in this group can be told "committed".
                raise
            if not alone:
                # On a full disk SQLite rolls everything back by itself, and going back to the savepoint fails in
                # its turn: https://www.sqlite.org/lang_transaction.html
                command(conn, "ROLLBACK TO SAVEPOINT job")
                command(conn, "RELEASE SAVEPOINT job")
            job.finish(error)
            if alone:
                raise _RolledBack from error
        else:
            if not alone:
                command(conn, "RELEASE SAVEPOINT job")


def _nothing() -> None:
    """Everything is written."""


def inserted_id(done: sa.CursorResult[Any]) -> int:
    """The id that an insert of one row gave it."""
    key = done.inserted_primary_key
    if key is None:
        raise RuntimeError("the statement inserted no single row")
    return int(key[0])


def _backend(url: str, *, durable: bool) -> Backend:
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise StoreError(f"LABELGUARD_DATABASE_URL is not a database address; {_EXAMPLES}") from None
    if parsed.drivername in ("sqlite", "sqlite+pysqlite"):
        return Sqlite(parsed, durable=durable)
    if parsed.drivername in ("postgresql", "postgres", "postgresql+psycopg"):
        return Postgresql(parsed, durable=durable)
    raise StoreError(f"LABELGUARD_DATABASE_URL names {parsed.drivername!r}, which cannot hold the store; {_EXAMPLES}")


def _reason(error: Exception) -> str:
    """The database's own words; SQLAlchemy's would repeat the statement with its values."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return reason(error)
