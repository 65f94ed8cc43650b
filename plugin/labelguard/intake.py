"""The door's side of the inbox: deliveries made durable, as many as wait with one statement, and handed on."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from datetime import datetime
from functools import partial

import sqlalchemy as sa

from labelguard import inbox
from labelguard.inbox import Delivery
from labelguard.store import Store
from labelguard.store.core import Writing


class _Group:
    """Deliveries that one write makes durable."""

    __slots__ = ("deliveries", "writing")

    def __init__(self, first: Delivery) -> None:
        self.deliveries = [first]
        self.writing: Writing[None]

    def kept(self, failure: BaseException | None) -> None:
        for delivery in self.deliveries:
            delivery.keep(failure)


class Intake:
    """Takes deliveries in from any number of threads, for one engine.

    A delivery that is at hand is in the inbox as one to be processed, and the engine of this process has it in
    memory besides: it can judge it while the disk is still being waited for. Whatever is not written of it when
    the process ends is done again from the inbox.
    """

    def __init__(self, store: Store, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._clock = clock
        # A store may run what it is given at once, in the thread that gives it.
        self._lock = threading.RLock()
        self._coming: _Group | None = None
        self._at_hand: deque[Delivery] = deque()

    def keep(self, delivery: Delivery, *, at_hand: Callable[[], None] | None = None, wait: float = 0.0) -> None:
        """Make a delivery durable, and return when it is.

        With ``at_hand`` it is handed on first, and that is called; then it is waited for to be judged, too, for at
        most so many seconds.

        Raises:
            StoreError: it was not kept.
        """
        # In one go: what the engine writes of a delivery comes after the write that puts it into the inbox.
        with self._lock:
            group = self._coming
            # One that failed before it began is done with, and nobody took it away.
            if group is not None and not group.writing.done.is_set():
                group.deliveries.append(delivery)
            else:
                group = _Group(delivery)
                group.writing = self._store.submit(partial(self._put, group=group), group.kept)
                self._coming = group
            if at_hand is not None:
                self._at_hand.append(delivery)
        if at_hand is not None:
            at_hand()
            delivery.answerable.wait(wait)
        if not delivery.answerable.is_set():
            group.writing.wait()
        if (error := delivery.failure or group.writing.error) is not None:
            raise error

    def _put(self, conn: sa.Connection, *, group: _Group) -> None:
        with self._lock:
            # Whoever comes from here on waits for the next write.
            if self._coming is group:
                self._coming = None
        inbox.put_pending(conn, group.deliveries)

    def take(self, most: int) -> list[Delivery]:
        """The next deliveries that are at hand, in the order in which they came."""
        taken: list[Delivery] = []
        while self._at_hand and len(taken) < most:
            taken.append(self._at_hand.popleft())
        return taken

    def __bool__(self) -> bool:
        """Whether any are at hand."""
        return bool(self._at_hand)

    def oldest(self, most: int) -> list[Delivery]:
        """The oldest deliveries of the inbox that are to be processed, in order; without bodies if not at hand here.

        An annotator's next submission must not be judged before the last, whichever of the two is at hand.
        """
        with self._store.read() as conn:
            pending = inbox.pending(conn, most)
        if not pending:
            return []
        with self._lock:
            # What that snapshot saw in the inbox was at hand before it was there.
            here = {each.id: each for each in self._at_hand if each.id is not None and not each.duplicate}
            found = [here.get(each.id or 0, each) for each in pending]
            taken = {id(each) for each in found}
            self._at_hand = deque(each for each in self._at_hand if id(each) not in taken)
        return found
