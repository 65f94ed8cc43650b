"""The store on PostgreSQL: what a server, a network and other processes can do to it."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from databases import Postgres, database_url, end_sessions, postgres, tamper
from labelguard.store import Store, postgresql, records, schema
from labelguard.store.core import StoreError
from labelguard.studio.launch import free_port
from processes import environment, soon

pytestmark = pytest.mark.store("postgresql")

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store as the service opens it."""
    made = Store.open(database_url(tmp_path))
    yield made
    made.close()


@pytest.fixture
def own_server() -> Iterator[Postgres]:
    """A server that may be stopped, and that keeps what it promised."""
    made = Postgres({})
    yield made
    made.remove()


def note(store: Store, annotator: int) -> None:
    """Write something small."""
    store.write(lambda conn: records.note_annotators(conn, [annotator]))


def noted(store: Store) -> list[int]:
    """What was written."""
    with store.read() as conn:
        return [row["id"] for row in records.list_annotators(conn)]


# The server


def test_a_server_that_is_started_again_is_found_again(own_server: Postgres) -> None:
    """Meanwhile there are sentences, without the password; what was committed is there after a power cut."""
    store = Store.open(own_server.create("labelguard").replace("postgres@", "postgres:a-secret@"))
    try:
        for number, power_cut in enumerate((False, True)):
            note(store, number)
            own_server.stop(power_cut=power_cut)
            said = []
            for attempt in (lambda: note(store, 100), lambda: noted(store), lambda: taken(store)):
                with pytest.raises(StoreError) as caught:
                    attempt()
                said.append(str(caught.value))
            assert all(text.startswith(("The store postgresql:///labelguard cannot be ", "The role ")) for text in said)
            assert not any("a-secret" in text or "\n" in text for text in said)
            own_server.start()
            note(store, 10 + number)
            assert taken(store)
        assert noted(store) == [0, 1, 10, 11]
    finally:
        store.close()


def taken(store: Store, role: str = "engine") -> bool:
    """Take a role for a moment."""
    with store.try_exclusive(role) as held:
        return held is not None and held.held()


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("postgresql://labelguard:a-secret@127.0.0.1:{free}/labelguard", "Connection refused"),
        ("postgresql://postgres:a-secret@127.0.0.1:{port}/nowhere", 'database "nowhere" does not exist'),
        ("postgres://nobody:a-secret@127.0.0.1:{port}/postgres", 'role "nobody" does not exist'),
    ],
)
def test_a_server_that_cannot_be_used_is_said_without_the_password(address: str, reason: str) -> None:
    """Where it is, and the server's own words."""
    with pytest.raises(StoreError) as caught:
        Store.open(address.format(free=free_port(), port=postgres().port))
    said = str(caught.value)
    assert said.startswith("The store postgresql://127.0.0.1:")
    assert reason in said
    assert "a-secret" not in said


def test_without_its_driver_the_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver is an extra: a store in SQLite needs none."""
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StoreError, match=r"whose driver is not installed: pip install 'labelguard\[postgresql\]'$"):
        Store.open("postgresql://localhost/labelguard")


def test_processes_that_start_at_once_bring_the_schema_up_to_date_once() -> None:
    """The first does, and the others wait for it."""
    address = postgres().create("started_at_once")
    opened: list[Store] = []
    going = threading.Barrier(5)

    def start() -> None:
        going.wait()
        opened.append(Store.open(address))

    threads = [threading.Thread(target=start) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 5
    for store in opened:
        store.close()
    postgres().drop("started_at_once")


def test_an_error_of_the_server_is_everybodys_trouble_and_passes(store: Store) -> None:
    """A full disk, say: nobody of the commit is told that it was kept, and the next one is."""

    def fill(conn: sa.Connection) -> None:
        records.note_annotators(conn, [1])
        conn.exec_driver_sql("DO $$ BEGIN RAISE EXCEPTION 'No space left on device' USING ERRCODE = '53100'; END $$")

    with pytest.raises(StoreError, match=r"cannot be written: No space left on device$"):
        store.write(fill)
    assert noted(store) == []
    note(store, 2)
    assert noted(store) == [2]


# Several writers


def test_writers_of_several_processes_follow_one_another(store: Store, tmp_path: Path) -> None:
    """What one reads in a writing transaction, no other has changed before it is committed."""
    others = [Store.open(database_url(tmp_path)) for _ in range(3)]

    def count(conn: sa.Connection) -> None:
        value = records.get_cursor(conn, "count") or 0
        records.set_cursor(conn, "count", value + 1, NOW)

    def work(mine: Store) -> None:
        for _ in range(50):
            mine.write(count)

    threads = [threading.Thread(target=work, args=(each,)) for each in (store, *others)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with store.read() as conn:
        assert records.get_cursor(conn, "count") == 200
    for each in others:
        each.close()


def test_a_reader_sees_one_moment(store: Store) -> None:
    """Whatever is committed while it reads."""
    note(store, 1)
    with store.read() as conn:
        before = [row["id"] for row in records.list_annotators(conn)]
        note(store, 2)
        assert [row["id"] for row in records.list_annotators(conn)] == before == [1]
    assert noted(store) == [1, 2]


HANGS = """
import signal, sys, threading
from labelguard.store import Store, postgresql, records
postgresql._HANGING_SECONDS = 2.0
postgresql._SILENT_SECONDS, postgresql._PING_SECONDS = 5.0, 0.5
store = Store.open(sys.argv[1])

def stop():
    print("now", flush=True)
    # Sent to the process, it would be taken by any thread, and the one that writes could commit meanwhile.
    signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)

def job(conn):
    records.note_annotators(conn, [1])
    stop()
    return "committed"

if sys.argv[2] == "writer":
    try:
        print(store.write(job), flush=True)
    except Exception as error:
        print(type(error).__name__, flush=True)
else:
    with store.exclusive("engine") as role:
        stop()
        print("held" if role.held() else "lost", flush=True)
"""


@pytest.fixture
def hanging(tmp_path: Path) -> Iterator[Any]:
    """Start a process that stops itself while it writes, or while it holds a role."""
    running: list[subprocess.Popen[str]] = []

    def start(what: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", HANGS, database_url(tmp_path), what]
        process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True)
        running.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "now\n"
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_a_process_that_hangs_while_it_writes_holds_nobody_up_for_long(store: Store, hanging: Any) -> None:
    """Its transaction is rolled back, and it is told so when it goes on."""
    process = hanging("writer")
    note(store, 2)
    assert noted(store) == [2]
    process.send_signal(signal.SIGCONT)
    assert process.stdout.readline() == "StoreError\n"


@pytest.mark.slow
def test_a_process_that_hangs_loses_its_role_and_knows_it(store: Store, hanging: Any) -> None:
    """Somebody else takes it over meanwhile."""
    process = hanging("role")
    assert not taken(store)
    assert soon(lambda: taken(store), 30)
    process.send_signal(signal.SIGCONT)
    assert process.stdout.readline() == "lost\n"


# Roles


def test_a_role_ends_with_its_connection_and_the_holder_can_notice(store: Store) -> None:
    """A new connection is made by itself when it is taken next."""
    with store.exclusive("engine") as role:
        assert role.held()
        end_sessions(store.where.rpartition("/")[2])
        assert not role.held()
        assert taken(store)
    assert taken(store)
    with store.exclusive("engine") as role:
        assert role.held()


def test_a_role_that_is_held_for_long_is_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The holder need not say anything itself for the server to know that it is alive."""
    monkeypatch.setattr(postgresql, "_SILENT_SECONDS", 1.0)
    monkeypatch.setattr(postgresql, "_PING_SECONDS", 0.2)
    with store.exclusive("engine") as role:
        assert not soon(lambda: taken(store), 3)
        assert role.held()


@pytest.mark.slow
def test_who_waits_for_a_role_in_vain_is_told(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for ever."""
    monkeypatch.setattr(postgresql, "_ROLE_SECONDS", 0.0)
    said: list[str] = []

    def wait() -> None:
        try:
            with store.exclusive("engine"):
                pass
        except StoreError as error:
            said.append(str(error))

    with store.exclusive("engine"):
        thread = threading.Thread(target=wait)
        thread.start()
        thread.join(30)
    assert said == [
        f"The role 'engine' of the store {store.where} cannot be taken: canceling statement due to lock timeout"
    ]


def test_roles_of_stores_in_other_schemas_of_a_database_are_others(tmp_path: Path) -> None:
    """Two installations may share a database."""
    address = database_url(tmp_path)
    tamper(tmp_path, "CREATE SCHEMA other")
    first = Store.open(address)
    second = Store.open(f"{address}&options=-csearch_path%3Dother")
    try:
        note(first, 1)
        assert noted(second) == []
        with first.exclusive("engine"):
            assert taken(second)
    finally:
        first.close()
        second.close()


# Values


def test_what_postgresql_cannot_hold_is_replaced_and_nothing_else(store: Store) -> None:
    """NUL and lone surrogates become U+FFFD, numbers that JSON does not have become text."""
    value = {"a\0": ["b\ud800", "\\u0000", "Ωmega 😀", float("nan"), float("-inf"), 10**40, 1.5, None, True]}
    store.write(lambda conn: records.set_cursor(conn, "name\0", value, NOW))
    with store.read() as conn:
        name, kept = conn.execute(sa.select(schema.cursors.c.name, schema.cursors.c.value)).one()
        assert records.get_cursor(conn, "name\0") == kept
    assert name == "name�"
    assert kept == {"a�": ["b�", "\\u0000", "Ωmega 😀", "nan", "-inf", 10**40, 1.5, None, True]}


def test_large_numbers_fit(store: Store) -> None:
    """Whatever Label Studio may have set."""
    from labelguard.events import Project, Task

    store.write(lambda conn: records.save_project(conn, Project(3, maximum_annotations=2**40), NOW))
    store.write(lambda conn: records.save_task(conn, Task(7, 3, overlap=2**62), NOW))
    with store.read() as conn:
        task, project = records.get_task(conn, 7), records.get_project(conn, 3)
    assert task is not None
    assert project is not None
    assert (task["overlap"], project["maximum_annotations"]) == (2**62, 2**40)
