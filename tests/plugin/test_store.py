"""The store: its schema, its one writer, and what it says when it cannot be used."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from databases import database_url, tamper
from labelguard.events import Project, Task
from labelguard.store import Store, postgresql, records, schema, sqlite
from labelguard.store.core import StoreError
from labelguard.store.line import Line
from labelguard.store.records.rows import portions
from labelguard.store.statements import Statement, adding
from processes import soon

EXAMPLES = "it looks like sqlite:////var/lib/labelguard.sqlite3 or postgresql://labelguard:password@host/labelguard"
LOCKED = {"sqlite": "database is locked", "postgresql": "canceling statement due to lock timeout"}
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store as the service opens it."""
    made = Store.open(database_url(tmp_path))
    yield made
    made.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Store]:
    """A store that waits a tenth of a second for other processes, instead of ten."""
    monkeypatch.setattr(sqlite, "LOCK_SECONDS", 0.1)
    monkeypatch.setattr(postgresql, "LOCK_SECONDS", 0.1)
    made = Store.open(database_url(tmp_path))
    yield made
    made.close()


def note(store: Store, annotator: int) -> None:
    """Write something small."""
    store.write(lambda conn: records.note_annotators(conn, [annotator]))


def noted(store: Store) -> list[int]:
    """What was written."""
    with store.read() as conn:
        return [row["id"] for row in records.list_annotators(conn)]


# Schema


def test_the_migrations_make_exactly_the_schema(store: Store) -> None:
    """A column added to one of the two only is found here."""
    with store.read() as conn:
        context = MigrationContext.configure(conn, opts={"compare_type": True})
        assert compare_metadata(context, schema.metadata) == []


def test_a_store_of_a_newer_labelguard_is_left_alone(tmp_path: Path) -> None:
    """It says what to do."""
    store = Store.open(database_url(tmp_path))
    store.close()
    tamper(tmp_path, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StoreError) as caught:
        Store.open(database_url(tmp_path))
    assert str(caught.value) == (
        f"The store {store.where} was written by a newer labelguard (schema 9999). "
        "Install that version, or restore the backup made before the upgrade."
    )


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("nonsense", f"LABELGUARD_DATABASE_URL is not a database address; {EXAMPLES}"),
        (
            "mysql://labelguard:secret@localhost/labelguard",
            f"LABELGUARD_DATABASE_URL names 'mysql', which cannot hold the store; {EXAMPLES}",
        ),
        (
            "postgresql+asyncpg://localhost/labelguard",
            f"LABELGUARD_DATABASE_URL names 'postgresql+asyncpg', which cannot hold the store; {EXAMPLES}",
        ),
        ("sqlite://", "LABELGUARD_DATABASE_URL must name a file: sqlite:////var/lib/labelguard.sqlite3"),
    ],
)
def test_an_address_that_is_no_store_is_refused_with_an_example(url: str, sentence: str) -> None:
    """Also the one that would keep everything in memory."""
    with pytest.raises(StoreError) as caught:
        Store.open(url)
    assert str(caught.value) == sentence


@pytest.mark.store("sqlite")
@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("file/labelguard.sqlite3", "cannot be opened: File exists"),
        ("folder", "cannot be opened: unable to open database file"),
        ("file", "cannot be opened: file is not a database"),
    ],
)
def test_what_cannot_be_opened_is_said_in_a_sentence(tmp_path: Path, place: str, reason: str) -> None:
    """Where a folder should be is a file, where a file should be is a folder, or something else's file."""
    (tmp_path / "file").write_text("This is no database, but it is long enough to be taken for one." * 20)
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreError) as caught:
        Store.open(f"sqlite:///{tmp_path / place}")
    assert str(caught.value) == f"The store {tmp_path / place} {reason}"


# The writer


def test_a_job_that_raises_is_rolled_back_alone(store: Store, store_on: str) -> None:
    """The others of its commit are kept, whether it raised by itself or its statement was wrong."""
    begun, go = threading.Event(), threading.Event()

    def hold(conn: sa.Connection) -> None:
        begun.set()
        go.wait(10)

    def raises(conn: sa.Connection) -> None:
        records.note_annotators(conn, [1])
        raise ValueError("mine")

    def misspells(conn: sa.Connection) -> None:
        records.note_annotators(conn, [2])
        conn.exec_driver_sql("SELECT * FROM no_such_table")

    def repeats(conn: sa.Connection) -> None:
        conn.execute(sa.insert(schema.annotators).values(id=3))
        conn.execute(sa.insert(schema.annotators).values(id=3))

    caught: dict[str, BaseException] = {}

    def attempt(name: str, job: object) -> None:
        try:
            store.write(job)  # type: ignore[arg-type]
        except BaseException as error:  # noqa: BLE001 - looked at below
            caught[name] = error

    jobs = {"raises": raises, "misspells": misspells, "repeats": repeats}
    threads = [threading.Thread(target=attempt, args=("hold", hold))]
    threads[0].start()
    assert begun.wait(10)
    threads += [threading.Thread(target=attempt, args=item) for item in jobs.items()]
    threads += [threading.Thread(target=note, args=(store, number)) for number in (10, 11)]
    for thread in threads[1:]:
        thread.start()
    go.set()
    for thread in threads:
        thread.join(10)
    assert {name: type(error) for name, error in caught.items()} == {
        "raises": ValueError,
        "misspells": sa.exc.OperationalError if store_on == "sqlite" else sa.exc.ProgrammingError,
        "repeats": sa.exc.IntegrityError,
    }
    assert noted(store) == [10, 11]


def test_many_threads_write_and_lose_nothing(store: Store) -> None:
    """They read while they write."""

    def work(offset: int) -> None:
        for n in range(50):
            note(store, offset * 50 + n)
            assert offset * 50 + n in noted(store)

    threads = [threading.Thread(target=work, args=(offset,)) for offset in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert noted(store) == list(range(300))


def test_while_another_process_writes_the_writer_says_so_and_recovers(
    impatient: Store, tmp_path: Path, store_on: str
) -> None:
    """A backup that takes too long, say; nothing has to be started anew afterwards."""
    begun, go = threading.Event(), threading.Event()
    other = Store.open(database_url(tmp_path))

    def hold(_: sa.Connection) -> None:
        begun.set()
        go.wait(30)

    holding = threading.Thread(target=other.write, args=(hold,))
    holding.start()
    assert begun.wait(10)
    with pytest.raises(StoreError) as caught:
        note(impatient, 1)
    assert str(caught.value) == f"The store {impatient.where} cannot be written: {LOCKED[store_on]}"
    assert noted(impatient) == []
    go.set()
    holding.join()
    other.close()
    note(impatient, 2)
    assert noted(impatient) == [2]


@pytest.mark.store("sqlite")
def test_a_full_disk_is_everybodys_trouble_and_passes(store: Store) -> None:
    """SQLite's own limit on the size of its file stands in for the disk's."""

    def limit(pages: int) -> None:
        store.write(lambda conn: conn.exec_driver_sql(f"PRAGMA max_page_count = {pages}"))

    def fill(conn: sa.Connection) -> None:
        records.note_annotators(conn, [1])
        records.save_project(conn, Project(3, label_config="x" * 1_000_000), NOW)

    limit(1)
    with pytest.raises(StoreError) as caught:
        store.write(fill)
    assert str(caught.value) == f"The store {store.path} cannot be written: database or disk is full"
    assert noted(store) == []
    limit(1_000_000)
    store.write(fill)
    assert noted(store) == [1]


def test_what_is_written_while_it_closes_is_kept_or_refused(tmp_path: Path) -> None:
    """Nobody waits for ever."""
    store = Store.open(database_url(tmp_path))
    refused: set[str] = set()
    kept: list[int] = []
    going = threading.Barrier(9)

    def work(number: int) -> None:
        going.wait()
        for n in range(200):
            try:
                note(store, number * 1000 + n)
            except StoreError as error:
                refused.add(str(error))
                return
            kept.append(number * 1000 + n)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    going.wait()
    store.close()
    store.close()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert refused <= {"The store is closed."}
    again = Store.open(database_url(tmp_path))
    assert noted(again) == sorted(kept)
    again.close()


def test_readers_cannot_write(store: Store) -> None:
    """What is written past the one writer would ruin its pace."""
    said = "attempt to write a readonly database|cannot execute INSERT in a read-only transaction"
    with pytest.raises(StoreError, match=said), store.read() as conn:
        records.note_annotators(conn, [1])


def test_a_write_inside_a_write_is_a_mistake_of_ours(store: Store) -> None:
    """It would wait for itself."""
    with pytest.raises(RuntimeError, match="must not wait for another"):
        store.write(lambda _: note(store, 1))


def test_a_role_has_one_holder(store: Store) -> None:
    """Another thread waits its turn."""
    order: list[str] = []

    def second() -> None:
        with store.exclusive("engine"):
            order.append("second")

    with store.exclusive("engine"):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.2)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


def test_who_does_not_wait_for_a_role_is_told_at_once_that_it_is_taken(store: Store, tmp_path: Path) -> None:
    """By another thread or by another process; other roles are free."""
    other = Store.open(database_url(tmp_path))
    try:
        with store.exclusive("engine") as held:
            assert held.held()
            for asking in (store, other):
                with asking.try_exclusive("engine") as got:
                    assert got is None
                with asking.try_exclusive("outbox") as got:
                    assert got is not None
                    assert got.held()
        with other.try_exclusive("engine") as got:
            assert got is not None
    finally:
        other.close()


def test_who_holds_a_role_sees_that_another_waits_for_it(store: Store, tmp_path: Path) -> None:
    """So it can keep the role while nobody does; who gives it away and wants it back comes second."""
    other = Store.open(database_url(tmp_path))
    order = []

    def second() -> None:
        with other.exclusive("engine"):
            order.append("other")

    try:
        with store.exclusive("engine") as held:
            assert not held.wanted()
            thread = threading.Thread(target=second)
            thread.start()
            assert soon(held.wanted)
            with store.try_exclusive("outbox") as another:
                assert another is not None
                assert not another.wanted()
        with store.exclusive("engine"):
            order.append("again")
        thread.join(30)
        assert order == ["other", "again"]
    finally:
        other.close()


@pytest.mark.store("sqlite")
def test_a_process_that_always_writes_does_not_shut_the_others_out(tmp_path: Path) -> None:
    """Its next transaction comes after the one that another process waits to begin."""
    busy, other = Line(tmp_path / "store"), Line(tmp_path / "store")
    over = threading.Event()
    written, waited_for = 0, []

    def write_on() -> None:
        nonlocal written
        while not over.is_set():
            with busy.turn(10):
                time.sleep(0.001)
                written += 1

    thread = threading.Thread(target=write_on)
    thread.start()
    try:
        for _ in range(40):
            before = written
            with other.turn(10):
                waited_for.append(written - before)
    finally:
        over.set()
        thread.join(30)
        busy.close()
        other.close()
    # The one that is being written, and at worst the one that began while we were on our way.
    assert statistics.median(waited_for) <= 2
    assert max(waited_for) <= 10


def test_a_process_of_one_thread_writes_by_itself(store: Store, tmp_path: Path) -> None:
    """What it writes is there for the others when it goes on, and what cannot be written is said to it."""
    single = Store.open(database_url(tmp_path), single=True)
    threads = threading.active_count()
    try:
        note(single, 7)
        assert noted(store) == [7]
        with pytest.raises(ZeroDivisionError):
            single.write(lambda _conn: 1 // 0)
        note(single, 8)
        assert noted(store) == [7, 8]
        assert threading.active_count() == threads
    finally:
        single.close()
    with pytest.raises(StoreError, match="closed"):
        note(single, 9)


def test_what_is_done_again_after_a_power_cut_does_not_wait_for_the_disk(store: Store) -> None:
    """And everything else does, whatever was written before it, and whatever is written with it."""

    def waits(conn: sa.Connection) -> bool:
        if conn.dialect.name == "sqlite":
            # https://www.sqlite.org/pragma.html#pragma_synchronous: 1 is NORMAL, 2 is FULL.
            return bool(conn.exec_driver_sql("PRAGMA synchronous").scalar_one() == 2)
        return bool(conn.exec_driver_sql("SHOW synchronous_commit").scalar_one() == "on")

    assert store.write(waits)
    assert not store.write(waits, lazily=True)
    assert store.write(waits)
    assert not store.write(waits, lazily=True)
    begun, go_on = threading.Event(), threading.Event()

    def hold(_conn: sa.Connection) -> None:
        begun.set()
        assert go_on.wait(30)

    first = store.submit(hold)
    assert begun.wait(30)
    together = [store.submit(waits, lazily=True), store.submit(waits)]
    go_on.set()
    first.wait()
    assert [each.wait() for each in together] == [True, True]


@pytest.mark.store("sqlite")
def test_a_lock_file_that_cannot_be_opened_is_said(store: Store) -> None:
    """A folder stands in its place."""
    store.path.with_name(f"{store.path.name}-other.lock").mkdir()
    with pytest.raises(StoreError, match=r"^The lock .*-other.lock cannot be taken: Is a directory$"):  # noqa: SIM117
        with store.exclusive("other"):
            pass


# Values


def test_times_come_back_in_utc_and_naive_ones_are_refused(store: Store) -> None:
    """Whatever zone they were given in."""
    vienna = datetime(2026, 11, 23, 13, 0, tzinfo=timezone(timedelta(hours=1)))
    store.write(lambda conn: records.set_cursor(conn, "a", 1, vienna))
    with store.read() as conn:
        (found,) = conn.scalars(sa.select(schema.cursors.c.updated_at))
    assert (found, found.tzinfo) == (NOW, UTC)
    with pytest.raises(sa.exc.StatementError, match="has no timezone; the store keeps UTC times only"):
        store.write(lambda conn: records.set_cursor(conn, "b", 1, NOW.replace(tzinfo=None)))


@pytest.mark.parametrize("microsecond", [0, 1, 100_000, 123_456, 999_999])
@pytest.mark.parametrize("year", [1, 999, 2026, 9999])
def test_a_moment_comes_back_to_the_microsecond(store: Store, year: int, microsecond: int) -> None:
    """And is found by what it is, whichever way it was written."""
    moment = datetime(year, 6, 1, 2, 3, 4, microsecond, tzinfo=UTC)
    store.write(lambda conn: records.put_tasks(conn, [(Task(7, 3, created_at=moment), None)]))
    tasks = schema.tasks.c
    with store.read() as conn:
        assert conn.scalar(sa.select(tasks.created_at)) == moment
        assert conn.scalar(sa.select(tasks.id).where(tasks.created_at == moment)) == 7


def test_rows_that_are_written_together_come_back_as_they_were(store: Store) -> None:
    """More than one statement takes, with everything that JSON and text may hold; and again, changed."""
    strange: dict[str, object] = {
        "text": 'a "quoted" \\ %s {} ’ 🙂\n',
        "nothing": None,
        "yes": True,
        "large": 2**62,
        "part": 0.1 + 0.2,
        "in": [[]],
    }

    def write(overlap: int) -> None:
        told = [
            (Task(n, 3, strange | {"n": n}, {}, overlap, n % 2 == 0, NOW), NOW if n == 60 else None)
            for n in range(1, 121)
        ]
        store.write(lambda conn: records.put_tasks(conn, told))

    for overlap in (1, 2):
        write(overlap)
        with store.read() as conn:
            rows = conn.execute(sa.select(schema.tasks).order_by(schema.tasks.c.id)).mappings().all()
        assert [row["id"] for row in rows] == list(range(1, 121))
        assert all(row["data"] == strange | {"n": row["id"]} and row["meta"] == {} for row in rows)
        assert all((row["overlap"], row["is_labeled"]) == (overlap, row["id"] % 2 == 0) for row in rows)
        assert all((row["created_at"], row["updated_at"]) == (NOW, None) for row in rows)
        assert [row["id"] for row in rows if row["deleted_at"] == NOW] == [60]


def test_however_many_rows_are_written_together_each_has_the_number_that_the_insert_says(store: Store) -> None:
    """One insert takes several rows, and hundreds of rows take several inserts."""
    add = Statement(
        adding(schema.rejected, but=["id"]).returning(schema.rejected.c.id, schema.rejected.c.size), numbered=True
    )
    said: list[tuple[Any, ...]] = []

    def write(many: int) -> None:
        sizes = range(len(said), len(said) + many)
        rows = [{"project": 3, "received_at": NOW, "reason": "None.", "size": size} for size in sizes]
        said.extend(store.write(lambda conn: add.insert(conn, rows)))

    for many in (*range(70), 333):
        write(many)
    with store.read() as conn:
        kept = conn.execute(sa.select(schema.rejected.c.id, schema.rejected.c.size)).all()

    assert sorted(said) == sorted(tuple(row) for row in kept)
    assert sorted(size for _, size in said) == list(range(sum(range(70)) + 333))


@pytest.mark.store("postgresql")
def test_text_that_postgresql_does_not_take_fails_no_row(store: Store) -> None:
    """Neither NUL nor half a character, of which a rule may make a subject."""
    store.write(lambda conn: records.put_rule_states(conn, 3, [("rule", "a\0b\ud800c", "{}")], NOW))
    with store.read() as conn:
        assert conn.scalar(sa.select(schema.rule_states.c.subject)) == "a\ufffdb\ufffdc"


def test_an_older_description_of_a_task_changes_nothing(store: Store) -> None:
    """A newer one does, and one without a time is believed."""

    def save(text: str, minutes: int | None) -> None:
        time = None if minutes is None else NOW + timedelta(minutes=minutes)
        task = Task(7, 3, {"text": text}, created_at=NOW, updated_at=time)
        store.write(lambda conn: records.save_task(conn, task, NOW))

    def text() -> str:
        with store.read() as conn:
            row = records.get_task(conn, 7)
        assert row is not None
        return str(row["data"]["text"])

    seen = []
    for said, minutes in (("new", 2), ("old", 1), ("newer", 3), ("timeless", None)):
        save(said, minutes)
        seen.append(text())
    assert seen == ["new", "new", "newer", "timeless"]


def test_lists_of_ids_have_few_lengths_and_miss_none() -> None:
    """Every length is another statement that each connection to SQLite keeps."""
    lengths = set()
    for many in range(1, 1200):
        lists = list(portions(range(many)))
        lengths |= {len(some) for some in lists}
        assert {one for some in lists for one in some} == set(range(many))

    assert lengths == {2**power for power in range(10)}
    assert list(portions([])) == []


def test_more_ids_than_one_statement_takes_are_marked_deleted(store: Store) -> None:
    """SQLite limits the variables of a statement."""
    for number in range(1, 1203):
        store.write(lambda conn, n=number: records.save_task(conn, Task(n, 3), NOW))  # type: ignore[misc]
    gone = list(range(1, 5001))
    assert store.write(lambda conn: records.mark_tasks_deleted(conn, 3, gone, NOW)) == 1202
