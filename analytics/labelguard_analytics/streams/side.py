"""One direction of a detector: is the level of these values falling?

A detector counts values of 1 and 0 for as long as they cannot make any difference by themselves, and hands over
runs of them. Single values, runs and batches go through the same arithmetic, which is exact
(:mod:`~labelguard_analytics.streams.odds`), so all end in the same state.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from labelguard_analytics.streams import batch, learning
from labelguard_analytics.streams.learning import FOREVER
from labelguard_analytics.streams.odds import GRID, RATIOS, Array, evidence, index_of, odds, partial_gain, shortfall

_KEPT = ("n", "missing", "found", "logs", "starts", "marks", "learnt", "size", "waiting", "block_end", "block_mark", "index")


class Side:
    """Watches values between 0 and 1 for a fall of their level, which is known, or learnt where it is None."""

    __slots__ = (*_KEPT, "calm", "log_threshold", "odds", "steps")

    def __init__(self, level: float | None, run_length: float) -> None:
        self.odds = odds(float(run_length), level is None)
        self.n = 0
        """How many values have been seen."""
        self.missing = 0.0
        """What they were short of being all 1."""
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
        self.index = 0
        """The row of the level in use."""
        self.use(0 if level is None else index_of(level))

    def use(self, index: int) -> None:
        """Watch the level of a row from now on."""
        self.index = index
        self.steps, self.log_threshold = self.odds.row(index)
        self.calm = self._calm(max(self.logs))
        """The most values of 0 among which only the last may be a detection."""

    def _calm(self, highest: float) -> int:
        gain = self.steps[-1][1]  # the largest
        if not self.watching or not gain:
            return FOREVER
        calm = int((self.log_threshold - highest) / gain)
        return calm if calm > 1 else 1

    @property
    def watching(self) -> bool:
        """Whether values are held against the level: not before it is learnt, nor after a detection."""
        return self.found is None and self.block_end != learning.WARM_UP

    @property
    def left(self) -> int:
        """How many values are left until the block ends."""
        return FOREVER if self.found is not None else self.block_end - self.n

    @property
    def threshold(self) -> float:
        """The evidence at which a fall counts as detected."""
        return math.exp(self.log_threshold)

    @property
    def evidence(self) -> float:
        """The evidence now; that at the detection once there was one."""
        return evidence(self.logs)

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
        at = self.n if self.found is None else self.found
        return 1.0 - (self.missing - self.marks[self._leading]) / max(1, at - self.start)

    @property
    def _leading(self) -> int:
        return max(range(len(RATIOS)), key=self.logs.__getitem__)

    def take_run(self, before: int, zeros: int, after: int) -> None:
        """Take values of 1, then of 0, then of 1.

        There are at most ``calm`` of 0, fewer if any come after them, and at most ``left`` in all.
        """
        if self.found is not None:
            self.n += before + zeros + after
            return
        logs, starts, marks, missing = self.logs, self.starts, self.marks, self.missing
        n = self.n + before
        self.n = end = n + zeros + after
        self.missing = short = missing + zeros
        if self.block_end != learning.WARM_UP:
            highest = 0.0
            i = 0
            for loss, gain in self.steps:
                log = logs[i] - before * loss
                if log <= 0.0:
                    starts[i], marks[i] = n, missing
                    log = 0.0
                log += zeros * gain - after * loss
                if log <= 0.0:
                    starts[i], marks[i] = end, short
                    log = 0.0
                elif log > highest:
                    highest = log
                logs[i] = log
                i += 1  # noqa: SIM113 - enumerate costs a tenth of the speed
            self._look(highest)
        if end == self.block_end:
            self.end_block()

    def take(self, x: float) -> None:
        """Take one value between 0 and 1."""
        if x in (0.0, 1.0):
            self.take_run(int(x), 1 - int(x), 0)
            return
        self.n += 1
        if self.found is not None:
            return
        n, missing = self.n, self.missing
        self.missing += shortfall(x)
        if self.watching:
            for i, gain in enumerate(partial_gain(x, self.index)):
                if self.logs[i] == 0.0:
                    self.starts[i], self.marks[i] = n - 1, missing
                self.logs[i] += gain
                if self.logs[i] <= 0.0:  # above the level: it took evidence away
                    self.logs[i], self.starts[i], self.marks[i] = 0.0, n, self.missing
            self._look(max(self.logs))
        if n == self.block_end:
            self.end_block()

    def _look(self, highest: float) -> None:
        """Is it a detection now?"""
        if highest >= self.log_threshold and evidence(self.logs) >= self.threshold:
            self.found = self.n
        self.calm = self._calm(highest)

    def end_block(self) -> None:
        """Learn what may be learnt now."""
        if self.found is not None:
            return
        if not self.watching:
            self.learnt, self.size = self.missing, float(learning.WARM_UP)
            self.starts = [self.n] * len(RATIOS)
            self.marks = [self.missing] * len(RATIOS)
        else:
            self.waiting.append(self.missing - self.block_mark)
            if evidence(self.logs) < math.exp(learning.GUARD * self.log_threshold):
                while len(self.waiting) > learning.waiting_blocks(self.n):
                    self.learnt, self.size = learning.joined(self.learnt, self.size, self.waiting.pop(0))
        self.block_mark = self.missing
        self.block_end += learning.BLOCK
        self.use(learning.learnt_index(self.learnt, self.size))

    def take_many(self, values: Array) -> None:
        """Take many values; the state is the same as after taking them one by one."""
        batch.take_many(self, values)

    def to_state(self) -> dict[str, Any]:
        """Everything as plain JSON values."""
        state = {name: getattr(self, name) for name in _KEPT}
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
