"""The engine's process as the web's process sees it: started beside it, asked over sockets, missed when it is gone."""

from __future__ import annotations

import errno
import os
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime

import structlog

from labelguard.engine import wire
from labelguard.engine.core import Receipt
from labelguard.events import BadDelivery, OtherProject
from labelguard.store.core import StoreError

log = structlog.get_logger(__name__)

_ENDS_WITHIN = 15.0
"""Seconds for which the process is waited for in the end."""

_READ_AT_ONCE = 4096
"""Bytes: answers are short, and each thread that waits for one has a place for so many."""

_MEASURED_WITHIN = 0.25
"""Seconds for which its numbers are waited for."""


class EngineProcess:
    """A process that judges deliveries while this one speaks HTTP: each has an interpreter, and a core, to itself.

    Nothing depends on it. A delivery that it does not answer, because it is gone, starting or busy, is taken in by
    this process' own engine. It ends when this process does, however that ends.
    """

    def __init__(self, url: str, clock: Callable[[], datetime]) -> None:
        """Start it, waiting for :meth:`start`; to be called before this process has threads or a store.

        It is a copy of this process: what was imported is there, and starting it anew takes no time.
        """
        from labelguard.engine.process import keep_running

        self._control, theirs = socket.socketpair()
        self._pid = os.fork()
        if self._pid == 0:
            code = 70
            try:
                self._control.close()
                code = keep_running(theirs, url, clock)
            finally:
                os._exit(code)
        theirs.close()
        self.on_finding: Callable[[], None] = lambda: None
        """Called after something was found."""
        self._speaking = threading.Lock()
        self._free: deque[socket.socket] = deque()
        self._up = threading.Event()
        self._listener: threading.Thread | None = None
        self._stopped = False
        self._own_user = 0
        # Of the answers that told of something not written yet: how many came, and how many of these are written.
        self._answered = self._written = 0
        # What earlier ones, and the present one when it was last asked, had counted.
        self._before: dict[wire.Key, float] = {}
        self._latest: Sequence[wire.Sample] = ()

    def start(self, own_user: int | None) -> None:
        """Have it begin: the store is open now."""
        self._listener = threading.Thread(target=self._listen, name="engine-listener", daemon=True)
        self._listener.start()
        self.tell_own_user(own_user or 0)

    def stop(self) -> None:
        """Have it write what it has in hand, and end; nothing happens the second time."""
        if self._stopped:
            return
        self._stopped = True
        with suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)
        if self._listener is not None:
            self._listener.join()
        self._control.close()
        self._forget()
        until = time.monotonic() + _ENDS_WITHIN
        with suppress(ChildProcessError):
            while os.waitpid(self._pid, os.WNOHANG) == (0, 0):
                if time.monotonic() > until:
                    log.warning("engine_process_killed", pid=self._pid)
                    os.kill(self._pid, signal.SIGKILL)
                    os.waitpid(self._pid, 0)
                    break
                time.sleep(0.005)

    def is_there(self) -> bool:
        """Whether it takes requests."""
        return self._up.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait until it takes requests."""
        return self._up.wait(seconds)

    def tell_own_user(self, user: int) -> None:
        """Tell it labelguard's Label Studio user."""
        self._own_user = user
        self._say(wire.OWN_USER, user)

    def tell_to_look(self) -> None:
        """Tell it that something is in the inbox which comes before whatever is handed over next."""
        if self.is_there():
            self._say(wire.LOOK)

    def _say(self, word: bytes, value: int = 0) -> None:
        with self._speaking, suppress(OSError):
            self._control.sendall(wire.WORD.pack(word, value))

    def hand_over(self, project: int, body: bytes, salt: str, wait: float) -> tuple[Receipt, str] | None:
        """Have a webhook's request taken in and judged: the receipt and the action; None where it does not say.

        Raises:
            BadDelivery: it cannot be understood, or is about another project.
            StoreError: it was not kept.
        """
        told = self._ask(wire.DELIVERY, wait, project, body, salt.encode())
        if told is None:
            return None
        answer = wire.read_answer(told)
        if answer.outcome == "taken":
            if not answer.written:
                with self._speaking:
                    self._answered += 1
            return Receipt(answer.delivery, answer.duplicate, answer.processed), answer.text
        if answer.outcome == "store":
            raise StoreError(answer.text)
        if answer.outcome == "broken":
            raise RuntimeError(answer.text)
        raise (OtherProject if answer.outcome == "other_project" else BadDelivery)(answer.text)

    def catch_up(self, patience: float) -> None:
        """Have everything written whose sender was answered, waiting at most so many seconds for it."""
        answered = self._answered
        if self._written < answered and self.is_there():
            self._ask(wire.WRITE, patience)
            with self._speaking:
                self._written = max(self._written, answered)

    def measured(self) -> dict[wire.Key, float]:
        """What it, and others before it, counted so far, and what it takes."""
        told = self._ask(wire.MEASURED, _MEASURED_WITHIN)
        if told is not None:
            self._latest = wire.read_samples(told)
        total = dict(self._before)
        for sample in self._latest:
            key = (sample.name, sample.labels)
            total[key] = total.get(key, 0.0) + sample.value
        return total

    def _ask(
        self, what: bytes, wait: float, project: int = 0, body: bytes = b"", salt: bytes = b""
    ) -> bytes | bytearray | None:
        """One request and its answer; None where there is none in time."""
        if not self.is_there():
            return None
        until = time.monotonic() + wait
        try:
            connection = self._free.pop() if self._free else self._connected()
        except (OSError, IndexError):
            return None
        try:
            connection.settimeout(wait)
            connection.sendall(wire.HEAD.pack(what, len(body), project, salt) + body)
            connection.settimeout(max(0.001, until - time.monotonic()))
            answer = _received(connection)
        except OSError:
            # Whatever it says later is not waited for any more.
            connection.close()
            return None
        self._free.append(connection)
        return answer

    def _connected(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        with theirs, self._speaking:
            try:
                socket.send_fds(self._control, [wire.WORD.pack(wire.CONNECTION, 0)], [theirs.fileno()])
            except OSError:
                ours.close()
                raise
        return ours

    def _listen(self) -> None:
        """Hear what it says by itself, until there is nobody any more."""
        while True:
            try:
                words = self._control.recv(64)
            except OSError:
                words = b""
            if not words:
                break
            for number in words:
                word = bytes([number])
                if word == wire.FOUND:
                    self.on_finding()
                elif word == wire.UP:
                    self._up.set()
                elif word == wire.DOWN:
                    self._ended()
        self._up.clear()

    def _ended(self) -> None:
        """One has ended, and another is to come: what was answered by it is in the inbox if it is not written."""
        self._up.clear()
        log.error("engine_process_ended", hint="Deliveries are judged in the web's own process until it is back.")
        self._forget()
        with self._speaking:
            self._written = self._answered
        for sample in self._latest:
            # What it was itself, its memory, goes with it.
            if sample.name.startswith("labelguard_"):
                key = (sample.name, sample.labels)
                self._before[key] = self._before.get(key, 0.0) + sample.value
        self._latest = ()
        # The next one knows nothing yet.
        self.tell_own_user(self._own_user)

    def _forget(self) -> None:
        while self._free:
            with suppress(IndexError):
                self._free.pop().close()


def _received(connection: socket.socket) -> bytes | bytearray:
    """One whole answer."""
    part = connection.recv(_READ_AT_ONCE)
    if len(part) >= wire.SIZE.size and len(part) == wire.SIZE.size + wire.SIZE.unpack_from(part)[0]:
        return part[wire.SIZE.size :]
    got = bytearray(part)
    while len(got) < wire.SIZE.size or len(got) < wire.SIZE.size + wire.SIZE.unpack_from(got)[0]:
        if not part:
            raise OSError(errno.EPIPE, "the engine's process is gone")
        part = connection.recv(_READ_AT_ONCE)
        got += part
    return got[wire.SIZE.size :]
