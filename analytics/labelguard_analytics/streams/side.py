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

_KEPT = ("n", "missing", "found", "logs", "starts", "learnt", "size", "waiting", "block_end", "block_mark", "index")


class Side:
    """Watches values between 0 and 1 for a fall of their level, which is known, or learnt where it is None."""

    __slots__ = (*_KEPT, "calm", "left", "log_threshold", "odds", "per_gain", "steps", "watching")

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
        self.starts = [(0, 0.0)] * len(RATIOS)
        """For each that is not 0 the last value at which it was, and what was missing then."""
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
        self.steps, self.log_threshold, self.per_gain = self.odds.row(index)
        self.rest()

    def rest(self) -> None:
        """Work out how many values may come before something has to be looked at."""
        self.watching = self.found is None and self.block_end != learning.WARM_UP
        """Whether values are held against the level: not before it is learnt, nor after a detection."""
        self.left = FOREVER if self.found is not None else self.block_end - self.n
        """How many values are left until the block ends."""
        self.calm = max(1, int((self.log_threshold - max(self.logs)) * self.per_gain)) if self.watching else FOREVER
        """The most values of 0 among which only the last may be a detection."""

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
        return self._start[0]

    @property
    def since(self) -> float:
        """The mean of the values from the likely fall to the detection."""
        start, mark = self._start
        return 1.0 - (self.missing - mark) / max(1, (self.n if self.found is None else self.found) - start)

    @property
    def _start(self) -> tuple[int, float]:
        leading = max(range(len(RATIOS)), key=self.logs.__getitem__)
        return self.starts[leading] if self.logs[leading] else (self.n, self.missing)

    def take_run(self, before: int, zeros: int, after: int) -> None:
        """Take values of 1, then of 0, then of 1.

        There are at most ``calm`` of 0, fewer if any come after them, and at most ``left`` in all.
        """
        n = self.n + before
        self.n = n + zeros + after
        start = n, self.missing
        if self.watching:
            logs = self.logs
            highest = 0.0
            i = 0
            for loss, gain in self.steps:
                log = logs[i] - before * loss
                if log > 0.0:
                    log += zeros * gain - after * loss
                else:
                    log = zeros * gain - after * loss
                    if log > 0.0:
                        self.starts[i] = start
                if log > highest:
                    highest = log
                logs[i] = log if log > 0.0 else 0.0
                i += 1  # noqa: SIM113 - enumerate costs a tenth of the speed
            self.missing += zeros
            if highest >= self.log_threshold and self._look():
                return
            calm = int((self.log_threshold - highest) * self.per_gain)
            self.calm = calm if calm > 1 else 1
        elif self.found is None:
            self.missing += zeros
        self.left -= before + zeros + after
        if not self.left:
            self.end_block()

    def take(self, x: float) -> None:
        """Take one value between 0 and 1."""
        if x in (0.0, 1.0):
            self.take_run(int(x), 1 - int(x), 0)
            return
        self.n += 1
        if self.found is not None:
            return
        start = self.n - 1, self.missing
        self.missing += shortfall(x)
        if self.watching:
            for i, gain in enumerate(partial_gain(x, self.index)):
                if self.logs[i] == 0.0:
                    self.starts[i] = start
                self.logs[i] = max(0.0, self.logs[i] + gain)  # above the level it takes evidence away
            if self._look():
                return
        self.rest()
        if not self.left:
            self.end_block()

    def _look(self) -> bool:
        """Is it a detection now?"""
        if evidence(self.logs) < self.threshold:
            return False
        self.found = self.n
        self.rest()
        return True

    def end_block(self) -> None:
        """Learn what may be learnt now."""
        if not self.watching:
            self.learnt, self.size = self.missing, float(learning.WARM_UP)
        else:
            self.waiting.append(self.missing - self.block_mark)
            limit = learning.GUARD * self.log_threshold
            if max(self.logs) < limit or evidence(self.logs) < math.exp(limit):
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
        now = self.n, self.missing
        starts = [start if log else now for log, start in zip(self.logs, self.starts, strict=True)]
        return {name: getattr(self, name) for name in _KEPT} | {
            "logs": list(self.logs),
            "starts": [list(start) for start in starts],
            "waiting": list(self.waiting),
        }

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
        self.starts = [(start, mark) for start, mark in state["starts"]]
        self.use(self.index)
