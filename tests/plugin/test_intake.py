"""Deliveries made durable: together where several wait, each told what became of it, none twice."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from deliveries import NOW, PROJECT, annotation, created
from guarded import Guarded, guarded
from labelguard import inbox
from labelguard.engine.intake import Intake
from labelguard.engine.worker import Worker
from labelguard.events import Event
from labelguard.inbox import Delivery
from labelguard.processing import Processor
from labelguard.store.core import StoreError


@pytest.fixture
def guard(tmp_path: Path) -> Iterator[Guarded]:
    """A labelguard whose engine does not run."""
    with guarded(tmp_path) as made:
        yield made


def delivery(number: int) -> Delivery:
    """A delivery that just came in."""
    return Delivery.of(PROJECT, Event.from_delivery({}, created(annotation(number, "spam"))), "webhook", NOW)


@contextmanager
def busy(guard: Guarded) -> Iterator[None]:
    """The writer has something else to do."""
    begun, go_on = threading.Event(), threading.Event()

    def job(_conn: sa.Connection) -> None:
        begun.set()
        assert go_on.wait(30)

    writing = guard.store.submit(job)
    assert begun.wait(30)
    try:
        yield
    finally:
        go_on.set()
    writing.wait()


def waiting(intake: Intake, count: int) -> None:
    """Until so many deliveries wait for the writer."""
    for _ in range(3000):
        group = intake._coming
        if group is not None and len(group.deliveries) == count:
            return
        threading.Event().wait(0.01)
    raise AssertionError(f"{count} deliveries never waited together")


def test_what_comes_while_the_writer_is_busy_is_written_together(
    guard: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One statement for all that wait, and each gets its own row."""
    sizes: list[int] = []
    original = inbox.put_pending

    def put(conn: sa.Connection, deliveries: list[Delivery]) -> None:
        sizes.append(len(deliveries))
        original(conn, deliveries)

    monkeypatch.setattr(inbox, "put_pending", put)
    intake, all_of_them = Intake(guard.store), [delivery(n) for n in range(1, 9)]
    with ThreadPoolExecutor(8) as pool:
        with busy(guard):
            kept = [pool.submit(intake.keep, each) for each in all_of_them]
            waiting(intake, 8)
        for each in kept:
            each.result(30)

    assert sizes == [8]
    assert sorted(each.id or 0 for each in all_of_them) == list(range(1, 9))
    assert guard.inbox() == [("ANNOTATION_CREATED", "pending")] * 8


def test_everybody_who_waited_is_told_when_the_store_fails(guard: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody takes a failed commit for a receipt, and the next delivery is not held up by it."""
    intake = Intake(guard.store)

    def fails(conn: sa.Connection, deliveries: Any) -> None:
        raise sa.exc.OperationalError("INSERT", {}, FullDisk("database or disk is full"))

    lost = [delivery(n) for n in range(1, 4)]
    with monkeypatch.context() as broken, ThreadPoolExecutor(3) as pool:
        broken.setattr(inbox, "put_pending", fails)
        with busy(guard):
            kept = [pool.submit(intake.keep, each) for each in lost]
            waiting(intake, 3)
        for each in kept:
            with pytest.raises(StoreError, match="database or disk is full"):
                each.result(30)
    assert [each.id for each in lost] == [None] * 3
    found = delivery(4)
    intake.keep(found)
    assert (found.id, found.duplicate) == (1, False)


class FullDisk(Exception):
    """The databases' own words."""

    sqlite_errorcode = 13
    sqlstate = "53100"


def test_the_same_delivery_twice_at_once_is_one_row(guard: Guarded) -> None:
    """A sender that repeats itself before it is answered changes nothing."""
    intake, first, second = Intake(guard.store), delivery(1), delivery(1)
    with ThreadPoolExecutor(2) as pool:
        with busy(guard):
            kept = [pool.submit(intake.keep, first)]
            waiting(intake, 1)
            kept.append(pool.submit(intake.keep, second))
            waiting(intake, 2)
        for each in kept:
            each.result(30)

    assert (first.duplicate, second.duplicate, second.before) == (False, True, "pending")
    assert first.id == second.id == 1
    assert guard.inbox() == [("ANNOTATION_CREATED", "pending")]


def test_deliveries_come_out_in_the_order_in_which_they_came(guard: Guarded) -> None:
    """Whether they are at hand or only in the inbox; each once, and one at hand as what it is."""
    intake = Intake(guard.store)
    first, second, third, again = delivery(1), delivery(2), delivery(3), delivery(3)
    intake.keep(first)
    intake.keep(second, at_hand=True)
    intake.keep(third, at_hand=True)
    intake.keep(again, at_hand=True)

    found = intake.oldest(10)
    assert [each.id for each in found] == [first.id, second.id, third.id]
    assert [each.event is None for each in found] == [True, False, False]
    assert found[1:] == [second, third]
    # What is left is the redelivery, of which the engine only has to take note.
    assert intake.take(10) == [again]
    assert not intake


def test_what_is_done_leaves_the_memory_by_itself(guard: Guarded) -> None:
    """A delivery may be megabytes: none waits for a collector that comes once in a long while."""
    guard.engine.start()
    gc.collect()
    gc.disable()
    try:
        for number in range(1, 41):
            event = Event.from_delivery({}, created(annotation(number, "spam", task=number)))
            assert guard.engine.receive(PROJECT, event, wait=10).processed
        guard.engine.stop()
        assert sum(isinstance(each, Delivery) for each in gc.get_objects()) < 5
    finally:
        gc.enable()


def test_what_gets_its_number_late_is_judged_once(guard: Guarded) -> None:
    """It was judged while the disk was waited for, and is found in the inbox before all of it is written."""
    stack, looks = ExitStack(), 0
    sender: threading.Thread

    class Late(Intake):
        def oldest(self, most: int) -> list[Delivery]:
            nonlocal looks
            looks += 1
            if looks == 2:
                stack.close()
                sender.join()
            return super().oldest(most)

    intake, coming = Late(guard.store), delivery(1)
    worker = Worker(
        guard.store, Processor(guard.store, guard.clock), intake, guard.clock, among_others=True, found=lambda: None
    )
    with stack:
        stack.enter_context(busy(guard))
        sender = threading.Thread(target=intake.keep, args=[coming], kwargs={"at_hand": True})
        sender.start()
        waiting(intake, 1)
        assert worker.process_pending() == 1
    assert looks >= 2
    assert coming.settled


def test_a_closed_store_takes_nothing_in(guard: Guarded) -> None:
    """And says so, however often it is asked."""
    intake = Intake(guard.store)
    guard.store.close()
    for number in (1, 2):
        with pytest.raises(StoreError, match="is closed"):
            intake.keep(delivery(number))
