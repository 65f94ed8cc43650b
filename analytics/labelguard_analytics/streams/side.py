"""One direction of a detector: is the level of these values falling?

A detector counts values of 1 and 0 for as long as they cannot make any difference by themselves, and hands over
runs of them. Single values, runs and batches go through the same arithmetic, which is exact
(:mod:`~labelguard_analytics.streams.odds`), so all end in the same state.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from labelguard_analytics.streams import learning
from labelguard_analytics.streams.learning import FOREVER
from labelguard_analytics.streams.odds import GRID, RATIOS, evidence, index_of, odds, partial_gain, shortfall

_KEPT = ("n", "missing", "found", "logs", "starts", "learnt", "size", "waiting", "block_end", "block_mark", "index")


Run = tuple[float, float, tuple[int, int, int, int]]
"""So many values of 1 and then so many of 0, after so many values; the last are four counts: of the values before its
zeros, and the zeros among them, of the values before its ones, and the ones among them. What is multiplied is a
float, because that is quicker."""


def run_of(right: int, wrong: int) -> Run:
    """A run with nothing before it."""
    return float(right), float(wrong), (right, 0, 0, 0)


def runs_of(zeros: list[int], n: int) -> list[Run]:
    """The runs in ``n`` values of 1 and 0, from the places of the zeros, counted from 1."""
    runs: list[Run] = []
    begin = right = gone = last = 0  # of the run that goes on: where it begins, its ones, and the zeros before it
    for at in zeros:
        if at - last > 1:
            wrong = last - begin - right
            if wrong:
                runs.append((right + 0.0, wrong + 0.0, (begin + right, gone, begin, begin - gone)))
                begin = last
                gone += wrong
            right = at - last - 1
        last = at
    if last:
        wrong = last - begin - right
        runs.append((right + 0.0, wrong + 0.0, (begin + right, gone, begin, begin - gone)))
        gone += wrong
    if last < n:
        runs.append((n - last + 0.0, 0.0, (n, gone, last, last - gone)))
    return runs


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
        self.calm = FOREVER
        """The most values of 0 among which only the last may be a detection."""
        if self.watching:
            self._rest_from(max(self.logs))

    def _rest_from(self, highest: float) -> None:
        """Work out ``calm`` from the highest logarithm."""
        calm = int((self.log_threshold - highest) * self.per_gain)
        self.calm = calm if calm > 1 else 1

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

    def take_runs(self, runs: list[Run], n: int, zeros: int) -> None:
        """Take runs of together ``n`` values with so many of 0.

        There are at most ``calm`` of 0, fewer if any of 1 come after them, and at most ``left`` in all.
        """
        if self.watching:
            logs, starts = self.logs, self.starts
            i = 0
            for loss, gain in self.steps:
                log = logs[i]
                start = None
                for right, wrong, places in runs:
                    log -= right * loss
                    if log > 0.0:
                        log += wrong * gain
                    else:
                        log = wrong * gain
                        start = places
                logs[i] = log
                if start is not None:
                    starts[i] = self.n + start[0], self.missing + start[1]
                i += 1  # noqa: SIM113 - enumerate costs a tenth of the speed
        self._go_on(n, zeros)

    def take_mirrored_runs(self, runs: list[Run], n: int, ones: int) -> None:
        """:meth:`take_runs` with 1 for 0 and 0 for 1."""
        if self.watching:
            logs, starts = self.logs, self.starts
            i = 0
            for loss, gain in self.steps:
                log = logs[i]
                start = None
                for wrong, right, places in runs:
                    if log > 0.0:
                        log += wrong * gain - right * loss
                    else:
                        log = wrong * gain - right * loss
                        start = places
                logs[i] = log if log > 0.0 else 0.0
                if start is not None:
                    starts[i] = self.n + start[2], self.missing + start[3]
                i += 1  # noqa: SIM113 - enumerate costs a tenth of the speed
        self._go_on(n, ones)

    def _go_on(self, n: int, missing: int) -> None:
        """Look at the evidence after so many values, of which so many were wrong, and at the end of the block."""
        self.n += n
        self.left -= n
        if self.found is None:
            self.missing += missing
        if not self.watching:
            if not self.left:
                self.end_block()
            return
        highest = max(self.logs)
        if highest >= self.log_threshold and self._look():
            return
        if self.left:
            self._rest_from(highest)
        else:
            self.end_block()

    def take(self, x: float) -> None:
        """Take one value between 0 and 1."""
        if x in (0.0, 1.0):
            self.take_runs([run_of(int(x), int(1 - x))], 1, int(1 - x))
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
        highest = max(self.logs)
        if not self.watching:
            self.learnt, self.size = self.missing, float(learning.WARM_UP)
            self.watching = True
        else:
            waiting = self.waiting
            waiting.append(self.missing - self.block_mark)
            limit = learning.GUARD * self.log_threshold
            if highest < limit or evidence(self.logs) < math.exp(limit):
                waits = learning.waiting_blocks(self.n)
                while len(waiting) > waits:
                    self.learnt, self.size = learning.joined(self.learnt, self.size, waiting.pop(0))
        self.block_mark = self.missing
        self.block_end += learning.BLOCK
        self.left = learning.BLOCK
        self.index = index = learning.learnt_index(self.learnt, self.size)
        self.steps, self.log_threshold, self.per_gain = self.odds.row(index)
        self._rest_from(highest)

    def warm_up(self, n: int, missing: float) -> None:
        """Take so many values, at most ``left``, that only teach, and are together so much short of being all 1."""
        self.n += n
        self.missing += missing
        self.rest()
        if not self.left:
            self.end_block()

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
