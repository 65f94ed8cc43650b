"""The disk is full, the store is read only, or its database is gone: 503 with a sentence, nothing half-written,
and afterwards everything goes on by itself."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from chaosload import Delivery
from chaosworld import World, start, world
from databases import POSTGRESQL, SQLITE, Postgres
from live import until

pytestmark = [pytest.mark.crash, pytest.mark.slow]

REFUSED = "labelguard cannot use its store right now. Nothing was taken in; try again shortly."
NOT_WRITABLE = "The store cannot be written: look at the disk's free space and the file's permissions."


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A disk of its own, a small one."""
    place = folder / "disk"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], capture_output=True)
    if done.returncode:
        pytest.skip(f"A disk of its own can be mounted by root only: {done.stderr.decode().strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def ready(made: World) -> tuple[int, dict[str, Any]]:
    """What the receiver says about itself."""
    answer = requests.get(f"http://127.0.0.1:{made.load.ports[0]}/readyz", timeout=30)
    return answer.status_code, answer.json()["checks"]


def refused(made: World, work: Iterator[Delivery], most: int) -> list[Delivery]:
    """Let annotators save until ten deliveries were refused; returns those."""
    found = []
    for delivery, _ in zip(work, range(most), strict=False):
        status, said = made.load.post(delivery, made.load.ports[0])
        if status == 200:
            delivery.receipts.append(said)
            continue
        assert (status, said) == (503, {"error": REFUSED})
        delivery.refused.append(status)
        found.append(delivery)
        if len(found) == 10:
            break
    return found


def endured(made: World, kind: str, break_it: Callable[[], None], mend_it: Callable[[], None], most: int) -> None:
    """Work, break the store, work on, mend it: nothing is lost, and nobody has to do anything."""
    start(made, kind)
    work = made.load.pieces(most + 60)
    assert not refused(made, work, 20)
    break_it()
    turned_away = refused(made, work, most)
    assert len(turned_away) == 10
    assert until(lambda: ready(made)[0] == 503, 20)
    assert requests.get(f"http://127.0.0.1:{made.load.ports[0]}/healthz", timeout=30).ok
    checks = ready(made)[1]
    assert not checks["store_writable"]["ok"]
    assert checks["store_writable"]["problem"] == NOT_WRITABLE
    mend_it()
    assert until(lambda: ready(made)[0] == 200, 60)
    # Some are sent again; the others labelguard finds by itself.
    for delivery in turned_away[::2]:
        assert made.load.send(delivery)
    assert not refused(made, work, 20)
    made.recover(90)
    assert len(made.fleet.members) == sum(member.starts for member in made.fleet.members.values())
    made.fleet.stop()
    problems, _ = made.proved()
    assert problems == []


def on_sqlite(folder: Path, place: Path) -> Any:
    """A world whose store is in a folder."""
    return world(folder, f"sqlite:///{place / 'store.sqlite3'}", seed=1, enterprise=False, reconcile_minutes=0.05)


@pytest.mark.store(SQLITE)
def test_a_full_disk(tmp_path: Path) -> None:
    """What somebody else filled and empties again."""
    with small_disk(tmp_path, "32m") as disk, on_sqlite(tmp_path, disk) as made:
        ballast = disk / "ballast"

        def fill() -> None:
            file = os.open(ballast, os.O_WRONLY | os.O_CREAT)
            with suppress(OSError):
                while os.write(file, b"\0" * 4096):
                    pass
            os.close(file)

        endured(made, SQLITE, fill, ballast.unlink, 2000)


@pytest.mark.store(SQLITE)
def test_a_quota(tmp_path: Path) -> None:
    """A file that must not become larger fails in its own way."""
    with on_sqlite(tmp_path, tmp_path) as made:

        def limit(size: int) -> None:
            pid = made.fleet.members["serve"].pid
            assert pid is not None
            for each in (pid, *(beside.pid for beside in psutil.Process(pid).children(recursive=True))):
                resource.prlimit(each, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

        size = (tmp_path / "store.sqlite3-wal").stat
        endured(made, SQLITE, lambda: limit(size().st_size), lambda: limit(resource.RLIM_INFINITY), 2000)


@pytest.mark.store(SQLITE)
def test_a_store_made_read_only(tmp_path: Path) -> None:
    """As a file system that found an error in itself makes it."""
    with on_sqlite(tmp_path, tmp_path) as made:

        def change(flag: str) -> None:
            # Not SQLite's shared memory (-shm): who writes into a mapped file that may not be written gets SIGBUS,
            # now or never, depending on whether the system has just written the page.
            files = [file for file in tmp_path.glob("store.sqlite3*") if file.suffix != ".sqlite3-shm"]
            subprocess.run(["chattr", flag, *files], check=True)

        try:
            endured(made, SQLITE, lambda: change("+i"), lambda: change("-i"), 40)
        finally:
            change("-i")


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    """A PostgreSQL of the test's own, which keeps what it said it kept."""
    server = Postgres({})
    try:
        yield server
    finally:
        server.remove()


def on_postgres(folder: Path, server: Postgres) -> Any:
    """A world whose store is on a server."""
    url = server.create("labelguard")
    return world(folder, url, seed=2, enterprise=False, reconcile_minutes=0.05)


@pytest.mark.store(POSTGRESQL)
def test_a_database_made_read_only(tmp_path: Path, own_postgres: Postgres) -> None:
    """As a server is that was made a standby, or whose admin wants quiet."""
    with on_postgres(tmp_path, own_postgres) as made:

        def read_only(state: str) -> None:
            with own_postgres.admin() as conn:
                conn.execute(f"ALTER SYSTEM SET default_transaction_read_only = {state}")
                conn.execute("SELECT pg_reload_conf()")

        endured(made, POSTGRESQL, lambda: read_only("on"), lambda: read_only("off"), 40)


@pytest.mark.store(POSTGRESQL)
@pytest.mark.parametrize("power_cut", [False, True], ids=["stopped", "power-cut"])
def test_a_database_that_is_gone_for_a_while(tmp_path: Path, own_postgres: Postgres, power_cut: bool) -> None:
    """What was answered 2xx before is there afterwards."""
    with on_postgres(tmp_path, own_postgres) as made:
        endured(made, POSTGRESQL, lambda: own_postgres.stop(power_cut=power_cut), own_postgres.start, 40)
