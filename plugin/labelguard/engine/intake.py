"""The door for threads: deliveries made durable, as many as wait with one statement, and handed on."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from functools import partial

import sqlalchemy as sa

from labelguard import inbox
from labelguard.inbox import Delivery
from labelguard.store import Store
from labelguard.store.core import Writing

_PARSED = 64
"""How many parsed deliveries wait in memory for the worker; the others are parsed again from the store. Few,
since one may be megabytes."""


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
    """Takes deliveries in from any number of threads, for one worker.

    A delivery that is at hand is in the inbox as one to be processed, and the worker of this process has it in
    memory besides: it can judge it while the disk is still being waited for. Whatever is not written of it when
    the process ends is done again from the inbox.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        # A store may run what it is given at once, in the thread that gives it.
        self._lock = threading.RLock()
        self._coming: _Group | None = None
        self._at_hand: deque[Delivery] = deque()
        self._parsed: OrderedDict[int, Delivery] = OrderedDict()
        self._bell = threading.Event()
        self.left = 0
        """How many were left in the inbox for later."""
        self.asked = False
        """Whether somebody waits for everything to be written that was looked at."""
        self._written = threading.Event()

    # For those who deliver

    def keep(self, delivery: Delivery, *, at_hand: bool = False, wait: float = 0.0) -> None:
        """Make a delivery durable, and return when it is.

        One ``at_hand`` is handed on first, and then waited for to be judged, too, for at most so many seconds.

        Raises:
            StoreError: it was not kept.
        """
        answerable = delivery.answerable = threading.Event()
        # In one go: what the worker writes of a delivery comes after the write that puts it into the inbox.
        with self._lock:
            group = self._coming
            # One that failed before it began is done with, and nobody took it away.
            if group is not None and not group.writing.done.is_set():
                group.deliveries.append(delivery)
            else:
                group = _Group(delivery)
                group.writing = self._store.submit(partial(self._put, group=group), group.kept)
                self._coming = group
            if at_hand:
                self._at_hand.append(delivery)
        if at_hand:
            self._bell.set()
            answerable.wait(wait)
        if not answerable.is_set():
            group.writing.wait()
        if (error := delivery.failure or group.writing.error) is not None:
            raise error

    def _put(self, conn: sa.Connection, *, group: _Group) -> None:
        with self._lock:
            # Whoever comes from here on waits for the next write.
            if self._coming is group:
                self._coming = None
        inbox.put_pending(conn, group.deliveries)

    def leave(self, delivery: Delivery) -> None:
        """Leave a delivery that is in the inbox to whoever looks there next."""
        # After the commit: a look before it has not seen this one, and its annotator's next must not overtake it.
        with self._lock:
            if not delivery.duplicate and delivery.id is not None:
                self._parsed[delivery.id] = delivery
                while len(self._parsed) > _PARSED:
                    self._parsed.popitem(last=False)
            self.left += 1
        self._bell.set()

    def ring(self) -> None:
        """Have the worker look whether there is something to do."""
        self._bell.set()

    def ask(self, patience: float) -> None:
        """Have everything written that was looked at, waiting at most so many seconds for it."""
        self._written.clear()
        self.asked = True
        self._bell.set()
        self._written.wait(patience)

    # For the worker

    def take(self, most: int) -> list[Delivery]:
        """The next deliveries that are at hand, in the order in which they came."""
        taken: list[Delivery] = []
        while self._at_hand and len(taken) < most:
            taken.append(self._at_hand.popleft())
        return taken

    def __len__(self) -> int:
        """How many are at hand."""
        return len(self._at_hand)

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
            found = [here.get(each.id or 0) or self._parsed.pop(each.id or 0, each) for each in pending]
            taken = {id(each) for each in found}
            self._at_hand = deque(each for each in self._at_hand if id(each) not in taken)
        return found

    def listen(self, seconds: float) -> bool:
        """Wait at most so long for something to do; whether there may be some."""
        return self._bell.wait(seconds)

    def hush(self) -> None:
        """What there is to do is looked for now: who rings from here on does so for something else."""
        self._bell.clear()

    def written(self) -> None:
        """Everything that was looked at is written."""
        if self.asked:
            self.asked = False
            self._written.set()
