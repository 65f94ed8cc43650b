"""The store in one SQLite file: one machine, no server."""

from __future__ import annotations

import fcntl
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from pathlib import Path
from typing import IO

import sqlalchemy as sa
from sqlalchemy.engine import URL

from labelguard.store.backend import Role, StoreError, as_json
from labelguard.store.line import Line
from labelguard.store.statements import command

LOCK_SECONDS = 10.0
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


_CHECKPOINT_SECONDS = 0.5
_CHECKPOINT_PAGES = 4000
"""Pages of the write-ahead log after which the writer itself empties it: by then next to nothing is left to do."""

_LAZILY = "lazily"
"""What a connection's notes call whether its transactions end without waiting for the disk."""

_KEPT = 4
"""Connections that are kept while nobody uses them. Opening one takes less than a millisecond; kept ones would be
as many as ever were needed at once, each with its pages and statements."""

_AT_ONCE = 64

_READER_CACHE = 512
"""KiB of pages that each of the many readers keeps: what it leaves out, the system's own cache has."""


class Sqlite:
    """A store file with its lock files beside it."""

    def __init__(self, url: URL, *, durable: bool) -> None:
        """``durable=False`` never waits for the disk."""
        if not url.database or url.database == ":memory:":
            raise StoreError("LABELGUARD_DATABASE_URL must name a file: sqlite:////var/lib/labelguard.sqlite3")
        self.path = Path(url.database)
        self.where = str(self.path)
        self.reader = _engine(url, begin="BEGIN", durable=durable, read_only=True)
        # Its own engine: IMMEDIATE takes the write lock up front, where waiting for it is still harmless.
        self.writer = _engine(url, begin="BEGIN IMMEDIATE", durable=durable)
        self._durable = durable
        self._line = Line(self.path)
        self._closed = threading.Event()
        self._checkpointer: threading.Thread | None = None

    def opened(self) -> None:
        """Begin to copy the write-ahead log into the file beside the writer, whom it would hold up."""
        self._checkpointer = threading.Thread(target=self._checkpoint, name="store-checkpoints", daemon=True)
        self._checkpointer.start()

    def _checkpoint(self) -> None:
        done = 0
        with closing(sqlite3.connect(self.path, timeout=0, isolation_level=None)) as connection:
            while not self._closed.wait(_CHECKPOINT_SECONDS):
                # What cannot be done now (the disk is full, a backup is being restored) is done later, or by the
                # writer, who has to say what is wrong.
                with suppress(sqlite3.Error, OSError):
                    size = self.path.with_name(self.path.name + "-wal").stat().st_size
                    if size != done:
                        connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
                        done = size

    def exists(self) -> bool:
        """Whether the file is there."""
        return self.path.exists()

    def upgrading(self) -> AbstractContextManager[sa.Connection]:
        """A writing transaction; the file's folder is made first."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return self.writer.begin()

    def is_about_the_store(self, error: BaseException) -> bool:
        """Whether an error is about the file or the disk."""
        code = getattr(getattr(error, "orig", None), "sqlite_errorcode", None)
        # Extended codes keep the primary one in their lowest byte. Python's own complaints (a value it cannot
        # bind) have no code.
        return code is not None and code & 0xFF not in _JOBS_OWN

    def turn(self) -> AbstractContextManager[None]:
        """Around one writing transaction: waits until it is this process' turn."""
        return self._line.turn(LOCK_SECONDS)

    def prepare(self, conn: sa.Connection, *, lazily: bool) -> None:
        """Before a writing transaction: whether its end waits for the disk.

        Where it does not, the next one that does takes it along: https://www.sqlite.org/pragma.html#pragma_synchronous
        """
        if self._durable and conn.info.get(_LAZILY, False) != lazily:
            command(conn, f"PRAGMA synchronous={'NORMAL' if lazily else 'FULL'}")
            conn.info[_LAZILY] = lazily

    @contextmanager
    def exclusive(self, role: str, *, wait: bool) -> Iterator[Role | None]:
        """Hold a role by locking a file beside the store's.

        Who waits for it keeps another locked meanwhile: that shows, and who gives the role away and wants it back
        has to wait behind.
        """
        with self._lock(role) as handle, self._lock(f"next-{role}") as turnstile:
            try:
                if wait:
                    fcntl.flock(turnstile, fcntl.LOCK_EX)
                fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield None
            else:
                fcntl.flock(turnstile, fcntl.LOCK_UN)
                yield _FileRole(turnstile)

    def _lock(self, name: str) -> IO[str]:
        path = self.path.with_name(f"{self.path.name}-{name}.lock")
        try:
            return path.open("a")
        except OSError as error:
            raise StoreError(f"The lock {path} cannot be taken: {error.strerror or error}") from None

    def close(self) -> None:
        """Let go of the file."""
        self._closed.set()
        if self._checkpointer is not None:
            self._checkpointer.join()
        self.reader.dispose()
        self.writer.dispose()
        self._line.close()


class _FileRole:
    def __init__(self, turnstile: IO[str]) -> None:
        self._turnstile = turnstile

    def held(self) -> bool:
        """The lock ends with its process, never before."""
        return True

    def wanted(self) -> bool:
        """Whether somebody waits for it."""
        try:
            fcntl.flock(self._turnstile, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(self._turnstile, fcntl.LOCK_UN)
        return False


def _engine(url: URL, *, begin: str, durable: bool, read_only: bool = False) -> sa.Engine:
    engine = sa.create_engine(
        url,
        json_serializer=as_json,
        pool_size=_KEPT,
        max_overflow=_AT_ONCE - _KEPT,
        # The last one again: its pages are the newest.
        pool_use_lifo=True,
        connect_args={"timeout": LOCK_SECONDS, "check_same_thread": False},
    )

    @sa.event.listens_for(engine, "connect")
    def _connect(connection: sqlite3.Connection, _record: object) -> None:
        # SQLAlchemy's pysqlite notes: transactions work as written only without the driver's own BEGIN.
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute(f"PRAGMA wal_autocheckpoint={_CHECKPOINT_PAGES}")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.execute(f"PRAGMA synchronous={'FULL' if durable else 'OFF'}")
        if read_only:
            cursor.execute("PRAGMA query_only=ON")
            cursor.execute(f"PRAGMA cache_size=-{_READER_CACHE}")
        cursor.close()

    @sa.event.listens_for(engine, "begin")
    def _begin(conn: sa.Connection) -> None:
        command(conn, begin)

    return engine
