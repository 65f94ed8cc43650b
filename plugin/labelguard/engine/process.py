"""The process that judges deliveries: one thread, and the sockets over which it is asked."""

from __future__ import annotations

import os
import selectors
import signal
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime

import sqlalchemy as sa
import structlog

from labelguard import inbox
from labelguard.engine import wire
from labelguard.engine.core import receipt_of
from labelguard.engine.worker import Worker
from labelguard.events import BadDelivery, read_for
from labelguard.heap import keep_what_is_there
from labelguard.inbox import Delivery
from labelguard.keeping import described
from labelguard.processing import Processor
from labelguard.store import Store
from labelguard.store.core import StoreError

log = structlog.get_logger(__name__)

_PAUSE = 1.0
"""Seconds before another engine is started after one ended that should not have."""

_DESCRIPTOR = struct.Struct("@i")
"""The one file descriptor that a word may bring."""

_READ_AT_ONCE = 32 * 1024
"""Bytes: several times what a delivery takes, and a place for so many is made for each."""


def keep_running(control: socket.socket, url: str, clock: Callable[[], datetime]) -> int:
    """Keep an engine running over a store until the process at the other end of ``control`` is gone.

    What runs here has no threads and no store, so that each engine is a fork of it. Returns an exit code.
    """
    # Whoever stops a group of processes means the web's, which ends this one when it has no use for it any more.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    first = True
    while _is_wanted(control, wait=first):
        first = False
        engine = os.fork()
        if engine == 0:
            code = 70
            try:
                code = _be_an_engine(control, url, clock)
            except Exception:
                log.exception("engine_process_failed")
            finally:
                os._exit(code)
        _, status = os.waitpid(engine, 0)
        if os.waitstatus_to_exitcode(status) == 0:
            return 0
        with suppress(OSError):
            control.send(wire.DOWN)
        time.sleep(_PAUSE)
    return 0


def _is_wanted(control: socket.socket, *, wait: bool) -> bool:
    """Whether the process at the other end is there, and (waiting for it) has said a first word."""
    try:
        return bool(control.recv(1, socket.MSG_PEEK | (0 if wait else socket.MSG_DONTWAIT)))
    except BlockingIOError:
        return True
    except OSError:
        return False


def _be_an_engine(control: socket.socket, url: str, clock: Callable[[], datetime]) -> int:
    try:
        store = Store.open(url, single=True)
    except StoreError as error:
        log.error("store_unavailable", reason=str(error))  # noqa: TRY400 - the sentence says it all
        return 1
    processor = Processor(store, clock)
    door = Sockets(control, store, clock)
    worker = Worker(store, processor, door, clock, among_others=True, found=door.tell_found)
    door.on_end = worker.stopping.set

    def know(user: int | None) -> None:
        processor.own_user = user

    door.on_own_user = know
    processor.warm_up()
    keep_what_is_there()
    door.tell(wire.UP)
    worker.run()
    door.close()
    store.close()
    return 0


class _Caller:
    """One connection, over which one request comes at a time."""

    __slots__ = ("came", "socket")

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.came = bytearray()

    def answer(self, payload: bytes) -> None:
        """Send an answer; who does not wait for it any more has closed the connection."""
        with suppress(OSError):
            self.socket.sendall(wire.SIZE.pack(len(payload)) + payload)


class _Answering:
    """Answers a delivery's sender as soon as it can be answered."""

    __slots__ = ("_caller", "_delivery")

    def __init__(self, caller: _Caller, delivery: Delivery) -> None:
        self._caller = caller
        self._delivery: Delivery | None = delivery

    def set(self) -> None:
        # Let go of: the two hold each other, and all that was read of a delivery would wait for the collector.
        delivery, self._delivery = self._delivery, None
        if delivery is not None:
            self._caller.answer(wire.answer_to(_answer(delivery)))

    def is_set(self) -> bool:
        return self._delivery is None


class Sockets:
    """The door for the web's process: what comes over its connections."""

    def __init__(self, control: socket.socket, store: Store, clock: Callable[[], datetime]) -> None:
        self._control = control
        self._store = store
        self._clock = clock
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ)
        self._waiting: deque[tuple[_Caller, int, bytes, str]] = deque()
        self._asking: list[_Caller] = []
        self.left = 0
        """How often something was left in the inbox by others, as far as they told."""
        self.on_end: Callable[[], None] = lambda: None
        self.on_own_user: Callable[[int | None], None] = lambda _user: None

    # For the worker

    @property
    def asked(self) -> bool:
        """Whether somebody waits for everything to be written that was looked at."""
        return bool(self._asking)

    def __len__(self) -> int:
        """How many deliveries are at hand."""
        if not self._waiting:
            self._poll(0)
        return len(self._waiting)

    def take(self, most: int) -> list[Delivery]:
        """The next deliveries, made durable."""
        taken: list[Delivery] = []
        while self._waiting and len(taken) < most:
            caller, project, body, salt = self._waiting.popleft()
            try:
                event = read_for(project, body)
            except BadDelivery as error:
                caller.answer(wire.answer_to(wire.Answer(error.kind, str(error))))
                continue
            delivery = Delivery.of(project, event, "webhook", self._clock(), salt=salt)
            delivery.answerable = _Answering(caller, delivery)
            taken.append(delivery)
        if taken:
            self._put(taken)
        return taken

    def _put(self, deliveries: list[Delivery]) -> None:
        def job(conn: sa.Connection) -> None:
            inbox.put_pending(conn, deliveries)

        try:
            self._store.write(job)
        except StoreError as error:
            for delivery in deliveries:
                delivery.keep(error)
        except Exception as error:
            if len(deliveries) > 1:
                # One of them cannot be written.
                for delivery in deliveries:
                    self._put([delivery])
                return
            log.exception("delivery_not_kept", action=deliveries[0].action)
            deliveries[0].keep(error)
        else:
            for delivery in deliveries:
                delivery.keep(None)

    def oldest(self, most: int) -> list[Delivery]:
        """The oldest deliveries of the inbox that are to be processed: what others left there."""
        with self._store.read() as conn:
            return inbox.pending(conn, most)

    def listen(self, seconds: float) -> bool:
        """Wait at most so long for something to do; whether there may be some."""
        left = self.left
        if not (self._waiting or self._asking):
            self._poll(seconds)
        return bool(self._waiting or self._asking or self.left != left)

    def hush(self) -> None:
        """Nobody rings: what there is to do is seen by looking."""

    def written(self) -> None:
        """Everything that was looked at is written."""
        while self._asking:
            self._asking.pop().answer(b"\0")

    def close(self) -> None:
        """Close all connections."""
        for key in list(self._selector.get_map().values()):
            if key.data is not None:
                key.data.socket.close()
        self._selector.close()

    # For the web's process

    def tell(self, word: bytes) -> None:
        """Say something that nobody asked for."""
        with suppress(OSError):
            self._control.send(word)

    def tell_found(self) -> None:
        """There may be actions to deliver."""
        self.tell(wire.FOUND)

    def _poll(self, seconds: float) -> None:
        for key, _ in self._selector.select(seconds):
            if key.data is None:
                # All of them: what was said before a request came must be known when it is taken.
                while self._hear():
                    pass
            else:
                self._read(key.data)

    def _hear(self) -> bool:
        """Read one word of the web's process, which is gone when it says nothing; whether there may be another."""
        try:
            # Not recv_fds(), which waits whatever flags it is given.
            word, extra, _, _ = self._control.recvmsg(
                wire.WORD.size, socket.CMSG_LEN(_DESCRIPTOR.size), socket.MSG_DONTWAIT
            )
        except BlockingIOError:
            return False
        except OSError:
            word, extra = b"", []
        for _, _, data in extra:
            connection = socket.socket(fileno=_DESCRIPTOR.unpack(data)[0])
            self._selector.register(connection, selectors.EVENT_READ, _Caller(connection))
        if len(word) < wire.WORD.size:
            self._selector.unregister(self._control)
            self.on_end()
            return False
        what, value = wire.WORD.unpack(word)
        if what == wire.OWN_USER:
            self.on_own_user(value or None)
        elif what == wire.LOOK:
            self.left += 1
        return True

    def _read(self, caller: _Caller) -> None:
        try:
            part = caller.socket.recv(_READ_AT_ONCE)
        except OSError:
            part = b""
        if not part:
            self._selector.unregister(caller.socket)
            caller.socket.close()
            return
        came = caller.came
        came += part
        if len(came) < wire.HEAD.size:
            return
        what, size, project, salt = wire.HEAD.unpack_from(came)
        if len(came) < wire.HEAD.size + size:
            return
        body = bytes(came[wire.HEAD.size :])
        caller.came = bytearray()
        if what == wire.DELIVERY:
            self._waiting.append((caller, project, body, salt.decode()))
        elif what == wire.WRITE:
            self._asking.append(caller)
        else:
            caller.answer(wire.answer_to(self._measured()))

    def _measured(self) -> list[wire.Sample]:
        found = []
        for family in self._store.instruments.registry.collect():
            counts = family.name.startswith("labelguard_") and family.type in ("counter", "histogram")
            if counts or family.name.startswith("process_"):
                found += [
                    wire.Sample(sample.name, tuple(sorted(sample.labels.items())), sample.value)
                    for sample in family.samples
                    if not sample.name.endswith("_created")
                ]
        return found


def _answer(delivery: Delivery) -> wire.Answer:
    if isinstance(delivery.failure, StoreError):
        return wire.Answer("store", str(delivery.failure))
    if delivery.failure is not None:
        return wire.Answer("broken", f"A delivery could not be kept: {described(delivery.failure)}")
    receipt = receipt_of(delivery)
    return wire.Answer(
        "taken", delivery.action, receipt.delivery, receipt.duplicate, receipt.processed, delivery.settled
    )
