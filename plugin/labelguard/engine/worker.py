"""The worker: lets the rules look at what comes through a door, and writes what they find."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from itertools import groupby
from typing import Protocol

import structlog

from labelguard import inbox
from labelguard.events import Event
from labelguard.inbox import Delivery
from labelguard.keeping import described
from labelguard.processing import Batch, Processor
from labelguard.store import Store
from labelguard.store.core import Role, StoreError

log = structlog.get_logger(__name__)

_BATCH = 100

_TURN = 0.05
"""Seconds for which the worker of one process keeps its role while there is work and another waits for it."""

_LINGER = 0.003
"""Seconds within that time in which a further delivery is waited for before what was looked at is written."""

_TOGETHER = 16
"""Deliveries that one transaction writes at most, unless more came at once: it holds up the other writers."""

_LOOK_EVERY = 0.5
"""Seconds within which deliveries that wait in the inbox are found, however many more arrive."""

_LOOK_ON = 0.5
"""Seconds for which each batch is looked for in the inbox, too, after others were seen to put something there."""


class Door(Protocol):
    """Where a worker gets deliveries from, and who wants something of it."""

    left: int
    """How many were left in the inbox for later."""

    @property
    def asked(self) -> bool:
        """Whether somebody waits for everything to be written that was looked at."""
        ...

    def __len__(self) -> int:
        """How many deliveries are at hand."""
        ...

    def take(self, most: int) -> list[Delivery]:
        """The next deliveries that are at hand, in the order in which they came."""
        ...

    def oldest(self, most: int) -> list[Delivery]:
        """The oldest deliveries of the inbox that are to be processed, in order."""
        ...

    def listen(self, seconds: float) -> bool:
        """Wait at most so long for something to do; whether there may be some."""
        ...

    def hush(self) -> None:
        """What there is to do is looked for now."""
        ...

    def written(self) -> None:
        """Everything that was looked at is written."""
        ...


@dataclass(slots=True)
class _Hand:
    """What the worker has in hand of a project."""

    batch: Batch
    deliveries: list[Delivery] = field(default_factory=list)
    """Those that are not settled yet."""


class Worker:
    """Judges deliveries, in a thread of its own or in whichever asks it to."""

    def __init__(
        self,
        store: Store,
        processor: Processor,
        door: Door,
        clock: Callable[[], datetime],
        *,
        among_others: bool,
        found: Callable[[], None],
    ) -> None:
        """``among_others`` is whether other processes judge too; ``found`` is called after what led to findings."""
        self._store = store
        self._processor = processor
        self._door = door
        self._clock = clock
        self._among_others = among_others
        self._found = found
        self._looked = 0.0
        # How many were left in the inbox for later that were there at the last look.
        self._seen = 0
        self._to_look = self._to_compare = True
        self._looking_until = 0.0
        # There are more than one look shows.
        self._behind = False
        # The highest number in the inbox that is known in this turn of the role.
        self._newest: int | None = None
        self.stopping = threading.Event()
        """Set to end the loop, once what is in hand is written."""
        self.elsewhere: Callable[[], bool] = lambda: False
        """Whether a process beside this one looks into the inbox by itself."""
        self._thread: threading.Thread | None = None
        # By project; only who holds the engine's role works with them.
        self._hands: dict[int, _Hand] = {}
        self._holder: threading.Thread | None = None
        # Something that was in hand was let go of: it is in the inbox.
        self._dropped = False

    def start(self) -> None:
        """Start a thread that judges what comes."""
        self.stopping.clear()
        self._thread = threading.Thread(target=self.run, name="engine", daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Wait for that thread to end, which was told to."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    @property
    def running(self) -> bool:
        """Whether there is a thread that judges what comes."""
        return self._thread is not None and self._thread.is_alive()

    def run(self) -> None:
        """Judge what comes, in this thread, until told to stop."""
        self._thread = threading.current_thread()
        while not self.stopping.is_set():
            # Another process (a reconcile by hand) may have left deliveries too: look once a second.
            called = self._door.listen(1.0)
            self._door.hush()
            if not called and self.elsewhere():
                continue
            try:
                self.process_pending()
            except StoreError as error:
                log.error("store_unavailable", reason=str(error))  # noqa: TRY400 - the sentence says it all
                self.stopping.wait(1.0)
            except Exception:
                # Without this thread nothing is judged any more, and nobody would notice.
                log.exception("engine_failed")
                self.stopping.wait(1.0)

    @property
    def holds(self) -> bool:
        """Whether this thread is the one that is judging."""
        return threading.current_thread() is self._holder

    @property
    def unwritten(self) -> bool:
        """Whether a sender was answered of whose delivery something is not written yet."""
        return any(hand.batch.answered is not None for hand in list(self._hands.values()))

    def process_pending(self) -> int:
        """Process everything there is in order, in this thread; returns how many deliveries."""
        count = 0
        while not self._ends:
            with self._store.exclusive("engine") as role:
                done = self._process_while_held(role)
            count += done
            if not done:
                break
        return count

    @property
    def _ends(self) -> bool:
        return self.stopping.is_set() and self._thread is not None

    def _process_while_held(self, role: Role) -> int:
        """Process deliveries until there are none, or another has waited for the role for a turn."""
        count, until = 0, time.monotonic() + _TURN
        self._holder = threading.current_thread()
        # Another process may have held the role meanwhile: it left some, or did what is at hand here.
        self._to_look, self._to_compare = self._among_others or self._dropped, True
        self._dropped, self._newest = False, None
        try:
            while batch := self._next_batch():
                self._process(batch)
                count += len(batch)
                if self._ends:
                    break
                if time.monotonic() >= until:
                    if role.wanted():
                        break
                    until = time.monotonic() + _TURN
            self._write()
        finally:
            self._drop()
            self._holder = None
        return count

    def _next_batch(self) -> list[Delivery]:
        """The next deliveries: those at hand, and those of the inbox that may have come before them."""
        # Before looking: what arrives from here on rings again.
        self._door.hush()
        if self._door.asked:
            self._write()
        # Counted before it is asked whether to look: with what comes later, word of something before it may have come.
        here = len(self._door) if self._must_look() else self._arrivals()
        taken = self._still_to_do(self._door.take(0 if self._behind else min(here, _BATCH)))
        if not taken or self._others_put(taken) or self._must_look():
            return self._with_those_waiting(taken)
        return taken

    def _with_those_waiting(self, taken: list[Delivery]) -> list[Delivery]:
        """The oldest deliveries of the inbox in their order, and those that were taken where they belong among them.

        What was taken is there before the look, or soon will be: whatever is there besides, and was before it, is seen.
        """
        left = self._door.left
        held = [each for hand in self._hands.values() for each in hand.deliveries]
        waiting = self._door.oldest(_BATCH + len(held))
        self._behind = len(waiting) == _BATCH + len(held)
        # After the look: what it saw has its number by now.
        in_hand = {each.id for each in held}
        mine = {each.id: each for each in taken if not each.duplicate}
        found = [mine.get(each.id, each) for each in waiting if each.id not in in_hand]
        # Where more are waiting than can be judged now, the rest is among them, and its senders do not wait for long.
        if not self._behind:
            found += [each for each in taken if each not in found]
            self._looked, self._seen, self._to_look = time.monotonic(), left, False
        self._newest = max((each.id for each in found if each.id is not None), default=self._newest)
        return found

    def _others_put(self, taken: Sequence[Delivery]) -> bool:
        """Whether others may have put something into the inbox before the last of these: numbers are missing."""
        ids = [each.id for each in taken if each.id is not None]
        if len(ids) < len(taken):
            # These have no numbers yet. This machine's processes tell of what they leave there; others do not.
            return self._store.shared
        newest, self._newest = self._newest, max(ids)
        if newest is None:
            return True
        missing = self._newest - newest != len(ids)
        if missing:
            # Some may have their number, and not be there for others yet.
            self._looking_until = time.monotonic() + _LOOK_ON
        return missing

    def _still_to_do(self, deliveries: list[Delivery]) -> list[Delivery]:
        """Leave out what need not be processed: redeliveries, and what another process found in the inbox."""
        done: set[int] = set()
        if self._to_compare and deliveries:
            self._to_compare = False
            with self._store.read() as conn:
                done = inbox.done_with(conn, deliveries)
        left = []
        for delivery in deliveries:
            if delivery.duplicate or delivery.failure is not None or delivery.id in done:
                delivery.judge(settled=True)
            else:
                left.append(delivery)
        return left

    def _must_look(self) -> bool:
        """Whether there may be deliveries in the inbox that came before those at hand.

        While one process takes them in one after the other there is hardly ever anything else.
        """
        now = time.monotonic()
        late = now < self._looking_until or now - self._looked >= _LOOK_EVERY
        return self._to_look or self._door.left != self._seen or late

    def _arrivals(self) -> int:
        """How many deliveries are at hand, waiting a moment for one if need be."""
        if self._thread is threading.current_thread() and not self._door:
            # Taking the role again, and looking in the store, take longer than the next one may be away.
            self._door.listen(_LINGER)
            self._door.hush()
        return len(self._door)

    def _process(self, deliveries: Sequence[Delivery]) -> None:
        """Let the rules look at deliveries, and write what must not wait."""
        for project, some in groupby(deliveries, key=lambda delivery: delivery.project):
            together = [delivery for delivery in some if self._is_read(delivery)]
            if project not in self._hands:
                self._hands[project] = _Hand(Batch(self._processor, project))
            hand = self._hands[project]
            hand.deliveries += together
            with structlog.contextvars.bound_contextvars(project=project):
                self._carefully(hand, partial(Batch.look, deliveries=together))
                if hand.batch.presses or len(hand.batch) >= _TOGETHER:
                    self._carefully(hand, Batch.write)

    def _write(self) -> None:
        """Write everything that was looked at."""
        for project, hand in self._hands.items():
            with structlog.contextvars.bound_contextvars(project=project):
                self._carefully(hand, Batch.write)
        self._door.written()

    def _carefully(self, hand: _Hand, step: Callable[[Batch], None]) -> None:
        """Go a step further with what is in hand; where that fails, with each delivery by itself.

        So it is, too, where one was not kept after all: what its neighbours led to was judged knowing of it.
        """
        try:
            step(hand.batch)
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001 - one of them, or something in their meeting; told where it happens again
            log.warning("batch_failed", reason=described(error), deliveries=len(hand.deliveries))
            hand.batch.close()
            hand.batch = Batch(self._processor, hand.batch.project)
            for delivery in hand.deliveries:
                if not delivery.settled:
                    self._process_alone(delivery)
        settled = [delivery for delivery in hand.deliveries if delivery.settled]
        if settled:
            hand.deliveries = [delivery for delivery in hand.deliveries if not delivery.settled]
            self._count(settled)

    def _process_alone(self, delivery: Delivery) -> None:
        try:
            self._processor.process([delivery])
        except StoreError:
            raise
        except inbox.NotKept:
            delivery.judge(settled=True)
        except Exception as error:
            log.exception("delivery_failed", delivery=delivery.id, action=delivery.action)
            self._set_aside(delivery, described(error))

    def _count(self, settled: Sequence[Delivery]) -> None:
        now = self._clock()
        for delivery in settled:
            if not delivery.duplicate:
                self._store.instruments.judged(delivery.state, (now - delivery.received_at).total_seconds())
        if any(delivery.found for delivery in settled):
            self._found()

    def _drop(self) -> None:
        """Let go of what is in hand; what could not be written of it is in the inbox as before."""
        self._dropped = any(hand.deliveries for hand in self._hands.values())
        for hand in self._hands.values():
            hand.batch.close()
        self._hands.clear()

    def _is_read(self, delivery: Delivery) -> bool:
        """Whether a delivery has its event now; one whose body cannot be read any more is set aside."""
        if delivery.event is None and delivery.id is not None:
            try:
                with self._store.read() as conn:
                    body = inbox.body(conn, delivery.id)
                delivery.event = Event.from_delivery({}, body)
            except StoreError:
                raise
            except Exception as error:
                log.exception("delivery_failed", delivery=delivery.id, action=delivery.action)
                self._set_aside(delivery, described(error))
        return delivery.event is not None

    def _set_aside(self, delivery: Delivery, error: str) -> None:
        """Keep a delivery that cannot be processed for a person to look at."""
        delivery.state, delivery.error = "failed", error
        self._store.write(lambda conn: inbox.finish(conn, [delivery], self._clock()))
        delivery.judge(settled=True)
