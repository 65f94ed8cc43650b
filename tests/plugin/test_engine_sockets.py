"""The door of the engine's process: what comes over its sockets, in which order it is judged."""

from __future__ import annotations

import gc
import json
import socket
from collections.abc import Callable
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from databases import database_url
from deliveries import PROJECT, annotation, created
from guarded import guarded
from labelguard.engine import wire
from labelguard.engine.process import Sockets
from labelguard.engine.worker import Worker
from labelguard.events import Event
from labelguard.inbox import Delivery
from labelguard.processing import Processor
from labelguard.store import Store, schema


def request(number: int) -> bytes:
    """A request to take in an annotation."""
    body = json.dumps(created(annotation(number, "spam", task=number))).encode()
    return wire.HEAD.pack(wire.DELIVERY, len(body), PROJECT, b"0123456789abcdef") + body


def read_of_deliveries() -> list[object]:
    """Everything in the heap that was read of a delivery."""
    return [each for each in gc.get_objects() if isinstance(each, (Delivery, Event))]


class Watched(Sockets):
    """A door at which something happens, once, when the engine looks at what it asks for first."""

    happening: Callable[[], None] = staticmethod(lambda: None)

    def oldest(self, most: int) -> list[Delivery]:
        """What was in the inbox before it happened."""
        found = super().oldest(most)
        happening, self.happening = self.happening, lambda: None
        happening()
        return found


@pytest.mark.parametrize("moment", ["while it takes one in", "after it has looked"])
@pytest.mark.parametrize("told", ["in a word", "among words", "not at all"])
def test_what_another_process_kept_before_is_judged_before(tmp_path: Path, moment: str, told: str) -> None:
    """Its sender was answered, and has saved again, while the engine is in the midst of its work.

    A process on another machine does not tell of it.
    """
    ours, theirs = socket.socketpair()
    store = Store.open(database_url(tmp_path), durable=False, single=True)
    with guarded(tmp_path) as web, ours, theirs, ExitStack() as stack:
        happened = False

        def connect() -> socket.socket:
            here, there = socket.socketpair()
            with there:
                socket.send_fds(ours, [wire.WORD.pack(wire.CONNECTION, 0)], [there.fileno()])
            return stack.enter_context(here)

        def happen() -> None:
            if told == "among words":
                # They come one after the other, and none of them hides the next.
                connect()
            web.engine.receive(PROJECT, Event.from_delivery({}, created(annotation(2, "spam", task=2))))
            if told != "not at all":
                ours.sendall(wire.WORD.pack(wire.LOOK, 0))
            second.sendall(request(3))

        def clock() -> datetime:
            nonlocal happened
            if moment == "while it takes one in" and not happened:
                happened = True
                happen()
            return web.clock()

        door = Watched(theirs, store, clock)
        if moment == "after it has looked":
            door.happening = happen
        worker = Worker(store, Processor(store, web.clock), door, web.clock, among_others=True, found=lambda: None)
        first, second = connect(), connect()
        for _ in range(2):
            door.listen(0)
        first.sendall(request(1))
        assert worker.process_pending() == 3
        for connection in (first, second):
            (size,) = wire.SIZE.unpack(connection.recv(4))
            answer = wire.read_answer(connection.recv(size))
            assert answer.outcome == "taken"
            assert answer.processed
        with store.read() as conn:
            order = conn.scalars(sa.select(schema.annotations.c.id).order_by(schema.annotations.c.row)).all()
        # That of the inbox, where the first is put once it has been taken in.
        assert order == ([2, 1, 3] if moment == "while it takes one in" else [1, 2, 3])
        ours.close()
        door.listen(10)
        door.close()
    store.close()


def test_what_was_answered_does_not_wait_for_the_collector(tmp_path: Path) -> None:
    """Nothing that was read of a delivery stays behind: a busy hour would gather a lot of it between two rounds."""
    ours, theirs = socket.socketpair()
    connection, there = socket.socketpair()
    store = Store.open(database_url(tmp_path), durable=False, single=True)
    with guarded(tmp_path) as web, ours, theirs, connection:
        door = Sockets(theirs, store, web.clock)
        worker = Worker(store, Processor(store, web.clock), door, web.clock, among_others=True, found=lambda: None)
        with there:
            socket.send_fds(ours, [wire.WORD.pack(wire.CONNECTION, 0)], [there.fileno()])
        door.listen(0)
        # What other tests left in the heap is theirs: it is gone, or is held here so that it can be told apart.
        gc.collect()
        gc.disable()
        try:
            before = read_of_deliveries()
            for number in range(1, 6):
                connection.sendall(request(number))
                assert worker.process_pending() == 1
            left = [each for each in read_of_deliveries() if not any(each is other for other in before)]
        finally:
            gc.enable()
        door.close()
    store.close()
    assert left == []


def test_it_is_told_when_the_other_end_is_gone(tmp_path: Path) -> None:
    """So it ends with the process that it works for."""
    ours, theirs = socket.socketpair()
    store = Store.open(database_url(tmp_path), durable=False, single=True)
    ended = []
    with theirs:
        door = Sockets(theirs, store, lambda: datetime.now().astimezone())
        door.on_end = lambda: ended.append(True)
        ours.close()
        door.listen(10)
        door.close()
    store.close()
    assert ended == [True]
