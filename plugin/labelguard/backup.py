"""Backups of a SQLite store while the service writes to it, and putting one in its place.

For PostgreSQL there are ``pg_dump`` and ``pg_restore``; docs/operations.md says how. After either, what
labelguard did since the backup is not known to it any more: :func:`after_restore` sees to it that nothing is
done a second time.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from labelguard.store import Store, records
from labelguard.store.schema import actions, metadata, projects

ROLES = ("engine", "outbox")
"""What a running service does with a store, each under a lock of its own (:meth:`Store.exclusive`)."""

TELLS = ("notify", "escalate")
"""Actions that send a message. The others have a target that is read first, and find their work done."""

_ASK_AGAIN = (
    "It was waiting when the backup was made, and may have been sent since: approve it to send it (again), "
    "or reject it."
)


class CannotBackUp(Exception):
    """There is no backup, or none can be put in place; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What a store or backup holds."""

    file: Path
    schema: str
    rows: Mapping[str, int]
    until: datetime | None
    """When the newest delivery in it came."""

    @property
    def total(self) -> int:
        """All rows."""
        return sum(self.rows.values())


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore did."""

    contents: Contents
    replaced: Path | None
    """Where the store that was there is now."""
    to_decide: int
    """Messages that a person must decide about before they are sent."""
    forgotten: int | None
    """Actions of the replaced store that took effect after the backup; None where it cannot be read."""


def back_up(store: Path, file: Path) -> Contents:
    """Copy a SQLite store to a new file, consistent although others write, and verify the copy.

    Raises:
        CannotBackUp: the file exists, the store does not, or the copy is not sound.
    """
    if file.exists():
        raise CannotBackUp(f"{file} exists; a backup never overwrites one. Name another file.")
    if not store.exists():
        raise CannotBackUp(f"There is no store at {store}.")
    if not file.parent.is_dir():
        raise CannotBackUp(f"The folder {file.parent} does not exist.")
    with _beside(file) as copy:
        try:
            with closing(_opened(store, "ro")) as source, closing(_opened(copy, "rwc")) as target:
                # In one step: while others write, a backup in several would begin anew with each of them.
                source.backup(target)
                # A file that stands for itself, without a log beside it.
                target.execute("PRAGMA journal_mode=DELETE")
            found = verify(copy)
        except sqlite3.Error as error:
            raise CannotBackUp(f"The store {store} cannot be copied: {error}.") from None
        _to_disk(copy)
        try:
            # Unlike a rename, a link never replaces what came there meanwhile.
            os.link(copy, file)
        except FileExistsError:
            raise CannotBackUp(f"{file} exists; a backup never overwrites one. Name another file.") from None
        _to_disk(file.parent)
    return Contents(file, found.schema, found.rows, found.until)


def verify(file: Path) -> Contents:
    """Check a backup, and count what it holds.

    Raises:
        CannotBackUp: it is not there, damaged, or no store of labelguard's.
    """
    if not file.exists():
        raise CannotBackUp(f"There is no file {file}.")
    try:
        with closing(_opened(file, "ro")) as conn:
            (sound,) = conn.execute("PRAGMA integrity_check(1)").fetchone()
            if sound != "ok":
                raise CannotBackUp(f"{file} is damaged: {sound}.")
            tables = {name for (name,) in conn.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if not {"alembic_version", "inbox", "findings", "actions"} <= tables:
                raise CannotBackUp(f"{file} is no store of labelguard's.")
            (schema,) = conn.execute("SELECT version_num FROM alembic_version").fetchone()
            rows = {
                table.name: conn.execute(f'SELECT count(*) FROM "{table.name}"').fetchone()[0]  # noqa: S608 - ours
                for table in metadata.sorted_tables
                if table.name in tables
            }
            (until,) = conn.execute("SELECT max(received_at) FROM inbox").fetchone()
    except sqlite3.DatabaseError as error:
        raise CannotBackUp(f"{file} is no sound store: {error}.") from None
    return Contents(file, schema, rows, datetime.fromisoformat(until).replace(tzinfo=UTC) if until else None)


def restore(file: Path, store: Path, *, now: datetime, by: str) -> Restored:
    """Put a backup in a store's place, with actions stopped; the store that was there is kept beside.

    Raises:
        CannotBackUp: the backup is not sound, or a service uses the store.
    """
    contents = verify(file)
    store.parent.mkdir(parents=True, exist_ok=True)
    with _beside(store) as copy, ExitStack() as stack:
        held = _alone(store, stack)
        forgotten = _done_since(held, contents) if held else None
        shutil.copyfile(file, copy)
        made = Store.open(f"sqlite:///{copy}")
        try:
            waiting = made.write(lambda conn: after_restore(conn, now=now, by=by))
        finally:
            made.close()
        with closing(_opened(copy, "rw")) as conn:
            # A service would find nothing in a log that lies beside another file.
            conn.execute("PRAGMA journal_mode=DELETE")
        _to_disk(copy)
        replaced = _set_aside(store, now)
        copy.replace(store)
        _to_disk(store.parent)
    return Restored(contents, replaced, waiting, forgotten)


def after_restore(conn: sa.Connection, *, now: datetime, by: str) -> int:
    """Make a restored store safe to work with; returns how many messages a person must decide about.

    What labelguard did since the backup was made is not in it. So all actions are stopped until somebody
    releases them; for everything annotated before this moment there will be findings and no actions, as before
    a first connect; and messages that were waiting to be sent ask a person, since nobody can read back whether
    they were.
    """
    records.set_actions_enabled(conn, False, by=f"{by}, after a restore", now=now)
    conn.execute(sa.update(projects).where(projects.c.connected_at.is_not(None)).values(connected_at=now))
    waiting = sa.update(actions).where(actions.c.kind.in_(TELLS), actions.c.state.in_(("approved", "delivering")))
    return conn.execute(waiting.values(state="proposed", next_at=None, error=_ASK_AGAIN, updated_at=now)).rowcount


def compact(store: Path) -> int:
    """Give what was freed in a SQLite store back to the disk; returns how many bytes.

    Raises:
        CannotBackUp: a service uses the store, or the disk has no room for a second one.
    """
    before = store.stat().st_size
    with ExitStack() as stack:
        conn = _alone(store, stack)
        try:
            if conn is not None:
                conn.execute("ROLLBACK")
                conn.execute("VACUUM")
        except sqlite3.OperationalError as error:
            raise CannotBackUp(f"The store {store} cannot be made smaller: {error}.") from None
    return before - store.stat().st_size


def _done_since(conn: sqlite3.Connection, contents: Contents) -> int | None:
    """How many actions took effect after the backup; None where the store does not say any more."""
    since = f"{contents.until:%Y-%m-%d %H:%M:%S.%f}" if contents.until else ""
    query = "SELECT count(*) FROM actions WHERE state IN ('done', 'undone') AND updated_at > ?"
    try:
        return int(conn.execute(query, (since,)).fetchone()[0])
    except sqlite3.Error:
        return None


def _opened(file: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(f"{file.resolve().as_uri()}?mode={mode}", uri=True, timeout=1, isolation_level=None)


@contextmanager
def _beside(file: Path) -> Iterator[Path]:
    """A name in the same folder for a file in the making, readable by its owner alone; gone in the end."""
    made = file.with_name(f".{file.name}.{os.getpid()}.part")
    made.unlink(missing_ok=True)
    os.close(os.open(made, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    try:
        yield made
    finally:
        for leftover in made.parent.glob(made.name + "*"):
            leftover.unlink(missing_ok=True)


def _alone(store: Path, stack: ExitStack) -> sqlite3.Connection | None:
    """Make sure that no service uses the store, and that none begins to while this lasts.

    Returns the connection that holds it, in an exclusive transaction; None where there is no sound store.

    Raises:
        CannotBackUp: one does.
    """
    _locked(store, stack)
    if not store.exists():
        return None
    conn = stack.enter_context(closing(_opened(store, "rw")))
    try:
        # Leaving the write-ahead log needs the file for oneself: a service holds it open, at work or not.
        (mode,) = conn.execute("PRAGMA journal_mode=DELETE").fetchone()
        if mode != "delete":
            raise _busy(store)
        conn.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise _busy(store) from None
        return None
    except sqlite3.DatabaseError:
        return None  # a damaged store is what a backup is for
    return conn


def _locked(store: Path, stack: ExitStack) -> None:
    """Take the roles of a running service."""
    for role in ROLES:
        handle = stack.enter_context(store.with_name(f"{store.name}-{role}.lock").open("a"))
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _busy(store) from None


def _busy(store: Path) -> CannotBackUp:
    return CannotBackUp(f"A service uses the store {store}. Stop labelguard first, and try again.")


def _set_aside(store: Path, now: datetime) -> Path | None:
    """Give the store that is there another name too, with what may lie beside a damaged one."""
    if not store.exists():
        return None
    aside = store.with_name(f"{store.name}.replaced-{now:%Y%m%dT%H%M%SZ}")
    if aside.exists():
        raise CannotBackUp(f"{aside} exists; try again in a second.")
    os.link(store, aside)
    for end in ("-wal", "-shm"):
        beside = store.with_name(store.name + end)
        if beside.exists():
            beside.rename(aside.with_name(aside.name + end))
    return aside


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def described(contents: Contents) -> dict[str, Any]:
    """Contents as JSON values."""
    until = contents.until.isoformat() if contents.until else None
    return {"file": str(contents.file), "schema": contents.schema, "until": until, "rows": dict(contents.rows)}
