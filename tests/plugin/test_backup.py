"""Backups that are made while the service writes, and what happens after one is put back."""

from __future__ import annotations

import io
import json
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from databases import POSTGRESQL, SQLITE, database_url, postgres
from deliveries import ADMIN, LABELGUARD, PROJECT, annotation, at, created
from fakestudio import FakeNotifier, FakeStudio
from guarded import Guarded, guarded, policy
from labelguard.backup import back_up, restore, verify
from labelguard.cli import run_command
from labelguard.engine import Engine
from labelguard.events import Event
from labelguard.outbox import Outbox
from labelguard.reconcile import reconcile
from labelguard.store import Store, records, schema

WRONG = ("spam", "important")
on_sqlite = pytest.mark.store(SQLITE)
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Guarded]:
    """A labelguard that gives wrong annotations to another annotator and tells the lead."""
    asked = "[prompt, second-opinion, {notify: lead}]"
    with guarded(tmp_path, policy(actions=asked, people="{lead: [ops]}")) as made:
        yield made


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command on the world's store; gives exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    monkeypatch.setenv("LABELGUARD_DATABASE_URL", database_url(tmp_path))

    def run_it(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = run_command(arguments)
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return run_it


def damage(file: Path) -> None:
    """Overwrite a page in the middle."""
    with file.open("r+b") as handle:
        handle.seek(file.stat().st_size // 2 // 4096 * 4096)
        handle.write(b"\xff" * 4096)


@on_sqlite
def test_a_backup_holds_the_store_as_it_was_at_one_moment(world: Guarded, tmp_path: Path) -> None:
    """While others write: each annotation in it is there with its version, its judgment and its delivery."""
    stop, begun = threading.Event(), threading.Event()

    def work() -> None:
        number = 100
        while not stop.is_set():
            number += 1
            world.take(created(annotation(number, "spam", task=number)))
            begun.set()

    worker = threading.Thread(target=work)
    worker.start()
    assert begun.wait(30)
    try:
        copies = [back_up(world.store.path, tmp_path / f"backup-{n}.sqlite3") for n in range(3)]
    finally:
        stop.set()
        worker.join()

    for copy in copies:
        assert verify(copy.file) == copy
        rows = [copy.rows[name] for name in ("annotations", "annotation_versions", "judgments")]
        assert len(set(rows)) == 1
        # One may be waiting to be judged.
        assert copy.rows["inbox"] - rows[0] in (0, 1)
    assert copies[0].rows["inbox"] <= copies[-1].rows["inbox"]
    assert copies[-1].rows["policies"] == 1
    assert copies[-1].until == world.clock()
    assert list(tmp_path.glob(".*")) == []


@on_sqlite
def test_a_backup_is_one_file_that_only_its_owner_reads(world: Guarded, tmp_path: Path) -> None:
    """It holds names and the gold vault."""
    world.take(created(annotation(11, "spam")))
    back_up(world.store.path, tmp_path / "backup.sqlite3")
    beside = sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("backup"))

    assert beside == ["backup.sqlite3"]
    assert stat.S_IMODE((tmp_path / "backup.sqlite3").stat().st_mode) == 0o600


@on_sqlite
def test_the_command_says_what_is_in_a_backup(world: Guarded, run: Run, tmp_path: Path) -> None:
    """For people in a line, for scripts as JSON."""
    world.take(created(annotation(11, *WRONG)))
    code, out, _ = run("backup", "backup.sqlite3")
    assert code == 0
    assert out.startswith("backup.sqlite3: ")
    assert out.endswith("1 deliveries and 1 findings, until 2026-11-23 12:00:00 UTC.\n")

    code, out, _ = run("backup", "other.sqlite3", "--json")
    assert (code, json.loads(out)["rows"]["inbox"], json.loads(out)["until"]) == (0, 1, "2026-11-23T12:00:00+00:00")


@on_sqlite
def test_a_backup_overwrites_nothing(world: Guarded, run: Run, tmp_path: Path) -> None:
    """Neither an older backup nor the store."""
    (tmp_path / "backup.sqlite3").write_text("mine")
    assert run("backup", "backup.sqlite3") == (
        1,
        "",
        "backup.sqlite3 exists; a backup never overwrites one. Name another file.\n",
    )
    assert (tmp_path / "backup.sqlite3").read_text() == "mine"
    assert run("backup", str(world.store.path))[0] == 1


@on_sqlite
def test_what_cannot_be_backed_up_is_said(run: Run, tmp_path: Path) -> None:
    """No store, no folder, a damaged store."""
    assert run("backup", "a")[2] == f"There is no store at {tmp_path}/labelguard.sqlite3.\n"
    with guarded(tmp_path) as world:
        for number in range(40):
            world.take(created(annotation(100 + number, "spam", task=number + 1)))
    assert run("backup", "nowhere/a")[2] == "The folder nowhere does not exist.\n"
    damage(tmp_path / "labelguard.sqlite3")
    code, _, err = run("backup", "a")
    assert (code, (tmp_path / "a").exists()) == (1, False)
    assert "damaged" in err or "malformed" in err


@on_sqlite
@pytest.mark.parametrize("what", ["damaged", "something else", "cut short", "missing"])
def test_only_a_sound_backup_is_put_back(world: Guarded, run: Run, tmp_path: Path, what: str) -> None:
    """The store stays as it is."""
    file = tmp_path / "backup.sqlite3"
    for number in range(40):
        world.take(created(annotation(100 + number, "spam", task=number + 1)))
    back_up(world.store.path, file)
    world.store.close()
    if what == "damaged":
        damage(file)
    elif what == "cut short":
        os.truncate(file, file.stat().st_size // 2)
    else:
        file.unlink()
    if what == "something else":
        with closing(sqlite3.connect(file)) as conn:
            conn.execute("CREATE TABLE inbox (id INTEGER)")
    before = world.store.path.read_bytes()
    code, out, err = run("restore", "backup.sqlite3", "--yes")

    assert (code, out) == (1, "")
    assert err.startswith(("backup.sqlite3 is", "There is no file backup.sqlite3"))
    assert world.store.path.read_bytes() == before


@on_sqlite
def test_a_store_in_use_is_not_replaced(world: Guarded, run: Run, tmp_path: Path) -> None:
    """Also by a service that has nothing to do at the moment."""
    world.take(created(annotation(11, "spam")))
    back_up(world.store.path, tmp_path / "backup.sqlite3")
    sentence = f"A service uses the store {world.store.path}. Stop labelguard first, and try again.\n"

    assert run("restore", "backup.sqlite3", "--yes") == (1, "", sentence)
    # What works on the store holds one of its roles, whatever else it has open.
    world.store.close()
    hold = (
        "import sys; from labelguard.store import Store\n"
        "store = Store.open(sys.argv[1])\n"
        "with store.exclusive('outbox'):\n    print('held', flush=True); sys.stdin.read()\n"
        "store.close()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", hold, f"sqlite:///{world.store.path}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert other.stdout is not None
    assert other.stdout.readline() == b"held\n"
    assert run("restore", "backup.sqlite3", "--yes") == (1, "", sentence)
    other.communicate()
    assert run("restore", "backup.sqlite3", "--yes")[0] == 0


@on_sqlite
def test_a_person_is_asked_before_the_store_is_replaced(world: Guarded, run: Run, tmp_path: Path) -> None:
    """Nobody to ask is a no."""
    back_up(world.store.path, tmp_path / "backup.sqlite3")
    world.store.close()
    before = world.store.path.read_bytes()
    code, _, err = run("restore", "backup.sqlite3")

    assert code == 1
    assert "Put backup.sqlite3" in err
    assert world.store.path.read_bytes() == before


@on_sqlite
def test_a_damaged_store_gives_way_to_its_backup(run: Run, tmp_path: Path) -> None:
    """What backups are for; what was there is kept beside."""
    with guarded(tmp_path) as world:
        world.take(created(annotation(11, "spam")))
        back_up(world.store.path, tmp_path / "backup.sqlite3")
    store = tmp_path / "labelguard.sqlite3"
    store.write_bytes(b"no database at all" * 1000)
    code, out, _ = run("restore", "backup.sqlite3", "--yes")
    (aside,) = tmp_path.glob("labelguard.sqlite3.replaced-*")

    assert code == 0
    assert f"The store that was there is {aside}.\n" in out
    assert aside.read_bytes().startswith(b"no database at all")
    assert verify(store).rows["annotations"] == 1


@on_sqlite
def test_after_a_restore_nothing_is_done_twice_and_nothing_is_lost(world: Guarded, run: Run, tmp_path: Path) -> None:
    """Reconciling brings what came after the backup, as findings; what was done then is not done again."""
    studio, notifier = FakeStudio(), FakeNotifier()
    outbox = Outbox(world.store, world.engine, studio, notifier, world.clock)
    first, second = created(annotation(11, *WRONG)), created(annotation(12, *WRONG, task=8))
    third = created(annotation(13, *WRONG, task=9))
    studio.hold(first)
    world.take(first)
    outbox.deliver_due()
    studio.hold(second)
    world.take(second)  # in the backup, but not yet acted on
    back_up(world.store.path, tmp_path / "backup.sqlite3")
    world.clock.move(minutes=5)
    outbox.deliver_due()
    studio.hold(third)
    world.take(third)
    outbox.deliver_due()
    effects, sent = list(studio.effects), list(notifier.sent)
    assert [effect[0] for effect in effects] == ["set_overlap"] * 3
    assert len(sent) == 3
    world.store.close()

    code, out, _ = run("restore", "backup.sqlite3", "--yes", "--json")
    assert (code, json.loads(out)["messages_to_decide"]) == (0, 1)
    # Both effects of the second finding, and both of the third.
    assert json.loads(out)["actions_forgotten"] == 4
    with closing_store(tmp_path) as store:
        engine = Engine(store, world.clock, own_user=LABELGUARD)
        outbox = Outbox(store, engine, studio, notifier, world.clock)
        with store.read() as conn:
            restored_at = (records.get_project(conn, PROJECT) or {})["connected_at"]
        world.clock.now = restored_at + timedelta(minutes=5)
        report = reconcile(store, engine, studio, PROJECT, clock=world.clock, full=True)
        assert outbox.deliver_due() == 0
        with store.read() as conn:
            assert records.actions_enabled(conn) is False
            found = records.list_findings(conn)
            assert sorted(finding["annotation"] for finding in found) == [11, 12, 13]
            assert records.list_actions(conn, finding=found[-1]["id"]) == []
            (message,) = records.list_actions(conn, kind="notify", states=("proposed",))
        assert report.new == 1
        # Whoever looked at it lets actions happen again.
        assert run("actions", "resume")[0] == 0
        outbox.deliver_due()
        assert studio.effects == effects
        assert notifier.sent == sent
        assert message["error"] == (
            "It was waiting when the backup was made, and may have been sent since: approve it to send it (again), "
            "or reject it."
        )
        # What happens from now on is acted on as ever.
        world.clock.move(minutes=1)
        fourth = created(annotation(14, *WRONG, task=10, created=world.clock(), by=ADMIN + 100))
        studio.hold(fourth)
        engine.receive(PROJECT, Event.from_delivery({}, fourth))
        engine.process_pending()
        outbox.deliver_due()
        assert len(studio.effects) == len(effects) + 1


def closing_store(folder: Path) -> closing[Store]:
    """The store, closed in the end."""
    return closing(Store.open(f"sqlite:///{folder / 'labelguard.sqlite3'}", durable=False))


@on_sqlite
def test_a_backup_of_an_older_version_is_brought_up_to_date(run: Run, tmp_path: Path) -> None:
    """Every released version's."""
    for number, released in enumerate(sorted((Path(__file__).parent / "stores").glob("*.sql"))):
        file, store = tmp_path / f"{number}.sqlite3", tmp_path / f"store-{number}" / "labelguard.sqlite3"
        with closing(sqlite3.connect(file)) as conn:
            conn.executescript(released.read_text("utf-8"))
        done = restore(file, store, now=at(1500), by="Ada")
        with closing(Store.open(f"sqlite:///{store}")) as opened, opened.read() as conn:
            assert conn.scalar(sa.select(sa.func.count()).select_from(schema.inbox)) == done.contents.rows["inbox"]
            assert done.replaced is None


@pytest.mark.store(POSTGRESQL)
def test_postgresql_is_restored_with_its_own_tools(world: Guarded, run: Run, tmp_path: Path) -> None:
    """As docs/operations.md says: dump, restore, and tell labelguard."""
    url, binaries = database_url(tmp_path), postgres().binaries
    studio, notifier = FakeStudio(), FakeNotifier()
    body = created(annotation(11, *WRONG))
    studio.hold(body)
    world.take(body)
    dump = ["--format=custom", f"--file={tmp_path / 'labelguard.dump'}", url]
    subprocess.run([binaries / "pg_dump", *dump], check=True)
    Outbox(world.store, world.engine, studio, notifier, world.clock).deliver_due()
    later = created(annotation(12, *WRONG, task=8))
    studio.hold(later)
    world.take(later)
    effects = list(studio.effects)
    world.store.close()

    back = ["--clean", "--if-exists", "--single-transaction", f"--dbname={url}", str(tmp_path / "labelguard.dump")]
    subprocess.run([binaries / "pg_restore", *back], check=True)
    assert run("restored", "--json") == (0, '{\n  "messages_to_decide": 1\n}\n', "")
    with closing(Store.open(url, durable=False)) as store:
        engine = Engine(store, world.clock, own_user=LABELGUARD)
        outbox = Outbox(store, engine, studio, notifier, world.clock)
        report = reconcile(store, engine, studio, PROJECT, clock=world.clock, full=True)
        assert (report.new, outbox.deliver_due()) == (1, 0)
        assert run("actions", "resume")[0] == 0
        outbox.deliver_due()
    assert studio.effects == effects
    assert len(notifier.sent) == 1


@pytest.mark.store(POSTGRESQL)
def test_a_store_that_is_worked_on_is_not_declared_restored(world: Guarded, run: Run) -> None:
    """Its actions are under way."""
    with world.store.exclusive("outbox"):
        code, _, err = run("restored")

    assert code == 1
    assert err == f"A service works on the store {world.store.where}. Stop labelguard first.\n"


@on_sqlite
def test_postgresql_has_its_own_commands(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours say which."""
    monkeypatch.setenv("LABELGUARD_DATABASE_URL", "postgresql://localhost/labelguard")
    sentence = "This is for stores in SQLite; use PostgreSQL's own {}, see docs/operations.md.\n"

    assert run("backup", "a") == (1, "", sentence.format("pg_dump"))
    assert run("restore", "a") == (1, "", sentence.format("pg_restore"))
