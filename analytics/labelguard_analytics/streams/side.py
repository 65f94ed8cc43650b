"""One direction of a detector: is the level of these values falling?

Values of 1 are the usual case and cost next to nothing: they are only counted, and what they take away is
settled at the next value below 1, the only kind that can raise the evidence. Single values and batches go
through the same arithmetic, which is exact (:mod:`~labelguard_analytics.streams.odds`), so both end in the same
state; a batch does it for many values at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from labelguard_analytics.streams import batch, learning
from labelguard_analytics.streams.learning import FOREVER
from labelguard_analytics.streams.odds import GRID, RATIOS, Array, evidence, index_of, odds, partial_gain

_KEPT = (
    "run",
    "settled",
    "missing",
    "found",
    "logs",
    "starts",
    "marks",
    "learnt",
    "size",
    "waiting",
    "block_end",
    "block_mark",
    "index",
)


class Side:
    """Watches values between 0 and 1 for a fall of their level, which is known, or learnt where it is None."""

    __slots__ = (*_KEPT, "gains", "log_threshold", "losses", "odds", "room")

    def __init__(self, level: float | None, run_length: float) -> None:
        self.odds = odds(float(run_length), level is None)
        self.run = 0
        """Values of 1 since the last value below 1 or the end of a block: seen, but not settled yet."""
        self.settled = 0
        """All values before those."""
        self.missing = 0.0
        """What the settled values were short of being all 1."""
        self.found: int | None = None
        """The value at which a fall was detected."""
        self.logs = [0.0] * len(RATIOS)
        """The logarithm of the evidence for each odds ratio, at least 0 (a CUSUM)."""
        self.starts = [0] * len(RATIOS)
        """The last value at which each was 0."""
        self.marks = [0.0] * len(RATIOS)
        """What was missing then."""
        self.learnt = 0.0
        """What the values learnt from were short of being all 1."""
        self.size = 0.0
        """How many values the level is learnt from; 0 during the warm-up and where it is known."""
        self.waiting: list[float] = []
        """What was missing in each of the blocks that wait to join."""
        self.block_end = learning.WARM_UP if level is None else FOREVER
        """The value with which the block ends."""
        self.block_mark = 0.0
        """What was missing when the block began."""
        self.index = 0 if level is None else index_of(level)
        """The row of the level in use."""
        self.use(self.index)
        self.room = self.block_end
        """How long ``run`` may become until the block ends."""

    def use(self, index: int) -> None:
        """Watch the level of a row from now on."""
        self.index = index
        self.losses, self.gains, self.log_threshold = self.odds.row(index)

    @property
    def n(self) -> int:
        """How many values have been seen."""
        return self.settled + self.run

    @property
    def warming_up(self) -> bool:
        """Whether values only teach so far."""
        return self.block_end == learning.WARM_UP

    @property
    def threshold(self) -> float:
        """The evidence at which a fall counts as detected."""
        return math.exp(self.log_threshold)

    @property
    def evidence(self) -> float:
        """The evidence now; that at the detection once there was one."""
        if self.found is not None or self.warming_up:
            return evidence(self.logs)
        return evidence([max(0.0, log - self.run * loss) for log, loss in zip(self.logs, self.losses, strict=True)])

    @property
    def usual(self) -> float | None:
        """The level as it is known so far: the best estimate, without the caution of :mod:`learning`."""
        if self.size:
            return 1.0 - self.learnt / self.size
        return None if self.block_end < FOREVER else self.index / GRID

    @property
    def start(self) -> int:
        """The last value before the likely fall."""
        return self.starts[self._leading]

    @property
    def since(self) -> float:
        """The mean of the values from the likely fall to the detection."""
        at = self.settled if self.found is None else self.found
        return 1.0 - (self.missing - self.marks[self._leading]) / max(1, at - self.start)

    @property
    def _leading(self) -> int:
        return max(range(len(RATIOS)), key=self.logs.__getitem__)

    def take(self, x: float) -> None:
        """Take one value."""
        if x == 1.0:
            self.run += 1
            if self.run == self.room:
                self.end_block()
        elif x == 0.0:
            self.take_zero()
        elif self.found is None and not self.warming_up:
            self._take_below(1.0 - x, partial_gain(x, self.index))
            for i, log in enumerate(self.logs):
                if log <= 0.0:  # above the level: it took evidence away
                    self.logs[i], self.starts[i], self.marks[i] = 0.0, self.n, self.missing
        else:
            self._count(1.0 - x)

    def take_zero(self) -> None:
        """Take a value of 0: the quick way for it."""
        if self.found is None and self.block_end != learning.WARM_UP:
            self._take_below(1.0, self.gains)
        else:
            self._count(1.0)

    def _count(self, short: float) -> None:
        """Take a value below 1 that is not held against anything."""
        if self.found is not None:
            self.settled += 1
            return
        self.settled += self.run + 1
        self.run = 0
        self.missing += short
        self.room = self.block_end - self.settled
        if self.room == 0:
            self.end_block()

    def _take_below(self, short: float, gains: list[float]) -> None:
        logs, run, missing = self.logs, self.run, self.missing
        n = self.settled + run
        highest = 0.0
        i = 0
        for loss, gain in zip(self.losses, gains):  # noqa: B905 - strict costs a tenth of the speed
            log = logs[i] - run * loss
            if log <= 0.0:
                self.starts[i], self.marks[i] = n, missing
                log = 0.0
            log += gain
            logs[i] = log
            if log > highest:
                highest = log
            i += 1  # noqa: SIM113 - as above
        self.run = 0
        self.settled = n + 1
        self.missing = missing + short
        if highest >= self.log_threshold and evidence(logs) >= self.threshold:
            self.found = self.settled
            self.room = FOREVER
            return
        self.room = self.block_end - self.settled
        if self.room == 0:
            self.end_block()

    def settle(self) -> None:
        """Take away what the run of ones takes."""
        n = self.settled = self.settled + self.run
        for i, loss in enumerate(self.losses):
            log = self.logs[i] - self.run * loss
            if log <= 0.0:
                self.logs[i], self.starts[i], self.marks[i] = 0.0, n, self.missing
            else:
                self.logs[i] = log
        self.run = 0

    def end_block(self) -> None:
        """Learn what may be learnt now."""
        if self.found is not None:
            return
        if self.warming_up:
            self.settled += self.run
            self.run = 0
            self.learnt, self.size = self.missing, float(learning.WARM_UP)
            self.starts = [self.settled] * len(RATIOS)
            self.marks = [self.missing] * len(RATIOS)
        else:
            self.settle()
            self.waiting.append(self.missing - self.block_mark)
            if len(self.waiting) > learning.waiting_blocks(self.settled):
                block = self.waiting.pop(0)
                if evidence(self.logs) < math.exp(learning.GUARD * self.log_threshold):
                    self.learnt, self.size = learning.joined(self.learnt, self.size, block)
        self.block_mark = self.missing
        self.block_end += learning.BLOCK
        self.room = learning.BLOCK
        self.use(learning.learnt_index(self.learnt, self.size))

    def take_many(self, values: Array) -> None:
        """Take many values; the state is the same as after taking them one by one."""
        batch.take_many(self, values)

    def to_state(self) -> dict[str, Any]:
        """Everything as plain JSON values."""
        state = {name: getattr(self, name) for name in _KEPT}
        if self.found is not None:
            state |= {"settled": self.n, "run": 0}
        return {name: list(value) if isinstance(value, list) else value for name, value in state.items()}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on from a state of :meth:`to_state`.

        Raises:
            ValueError: the state is of another kind or version.
        """
        if state.keys() != set(_KEPT) or len(state["logs"]) != len(RATIOS):
            raise ValueError(f"This state does not belong to a detector with {len(RATIOS)} odds ratios.")
        for name in _KEPT:
            value = state[name]
            setattr(self, name, list(value) if isinstance(value, list) else value)
        self.use(self.index)
        self.room = FOREVER if self.found is not None else self.block_end - self.settled
