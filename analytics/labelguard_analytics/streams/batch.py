"""Many values at once, for one direction of a detector or for both.

Values are taken in runs: equal values up to the end of a block, and each value between 0 and 1 by itself. Within a
run evidence rises or falls in a straight line, so it is enough to know it after each, and a running minimum gives
all of it at once. The runs are the same in both directions.

What is learnt at the end of a block depends on the evidence there, which depends on what was learnt before. Nearly
always the evidence is small and blocks are learnt; so this is taken for granted for many blocks ahead, and what
comes after the first end for which it was wrong is done again.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from labelguard_analytics.streams import learning
from labelguard_analytics.streams.odds import Array, Whole, evidence, partial_gains, shortfall

if TYPE_CHECKING:
    from labelguard_analytics.streams.side import Side

_AT_ONCE = 1 << 14
"""Values at once: few enough to stay in the cache, and for sums of logarithms to be exact."""


def take_many(down: Side | None, up: Side | None, values: Array) -> None:
    """Take the values in one direction, or in both at the same value; the state is as after one by one."""
    sides = [side for side in (down, up) if side is not None]
    at = 0
    while at < len(values):
        watched = [side for side in sides if side.found is None]
        # Blocks end at the same values in both directions.
        left, warm = (watched[0].left, not watched[0].watching) if watched else (0, False)
        part = values[at : at + min(left, _AT_ONCE) if warm else at + _AT_ONCE]
        runs = _Runs(part, left) if watched and not warm else None
        for side in sides:
            if side.found is not None:
                side.n += len(part)
            elif runs is None:
                side.warm_up(len(part), float(shortfall(1.0 - part if side is up else part).sum()))
            else:
                _take(side, runs, 1.0 - runs.value if side is up else runs.value)
        at += len(part)


class _Runs:
    """The runs of some values, the first of whose blocks ends after so many."""

    def __init__(self, values: Array, left: int) -> None:
        cut = np.ones(len(values), dtype=bool)
        np.not_equal(values[1:], values[:-1], out=cut[1:])
        cut[(values > 0.0) & (values < 1.0)] = True
        cut[left :: learning.BLOCK] = True
        begin: Whole = np.flatnonzero(cut)
        self.value = values[begin]
        self.before: Whole = np.append(begin, len(values))
        """How many values come before each run, and all."""
        self.count = np.diff(self.before)
        """How many values are in each."""
        self.ends: Whole = np.searchsorted(begin, np.arange(left, len(values) + 1, learning.BLOCK))
        """For each block that ends, how many runs come before its end."""


class _Plan:
    """What is learnt at the end of each block if every block is learnt that need not wait."""

    def __init__(self, side: Side, missing: list[float]) -> None:
        ends = len(missing)
        self.marks = [side.block_mark, *missing]
        """What was missing when each block began."""
        self.blocks = side.waiting + np.diff(self.marks).tolist()
        """What was missing in each block that waits or ends."""
        over = side.block_end + learning.BLOCK * np.arange(ends)
        may = len(side.waiting) + np.arange(1, ends + 1) - learning.waiting_blocks(over)
        self.first = np.maximum.accumulate(np.concatenate(([0], may)))
        """In each block, the first one that waits."""
        self.joins = np.diff(self.first) > 0
        """Whether a block joins at the end of each."""
        learnt, size = learning.joined_in_turn(side.learnt, side.size, self.blocks[: self.first[-1]])
        self.learnt: Array = np.array(learnt)[self.first]
        """What is learnt in each block,"""
        self.size = size[self.first]
        """and from how many values."""
        self.indices: Whole = np.array([side.index])
        """The row of the level in each block."""
        if ends:
            self.indices = learning.learnt_indices(self.learnt, self.size)
            self.indices[0] = side.index


def _take(side: Side, runs: _Runs, value: Array) -> None:
    """Take runs of values that are watched."""
    n, end = side.n, side.n + int(runs.before[-1])
    missing: Array = side.missing + np.cumsum(np.concatenate(([0.0], runs.count * shortfall(value))))
    run, ahead = 0, len(runs.ends)
    while run < len(value) and side.found is None:
        block = int(np.searchsorted(runs.ends, run, side="right"))
        ends = runs.ends[block : block + ahead]
        stop = int(ends[-1]) if block + len(ends) < len(runs.ends) else len(value)
        stretch = _Stretch(side, runs, value, missing, run, stop, ends)
        as_planned = stretch.take(side, n)
        ahead = 8 * ahead if as_planned else 1
        run = int(np.searchsorted(runs.before, side.n - n))
    if side.found is not None:
        side.n = end


class _Stretch:
    """What becomes of runs if all blocks are learnt as planned, and nothing is detected."""

    def __init__(self, side: Side, runs: _Runs, value: Array, missing: Array, run: int, stop: int, ends: Whole) -> None:
        self.before, self.missing = runs.before[run : stop + 1], missing[run : stop + 1]
        self.value, self.count = value[run:stop], runs.count[run:stop]
        self.plan = _Plan(side, missing[ends].tolist())
        self.last = ends - run - 1
        """The last run of each block that ends."""
        self.block = np.repeat(np.arange(len(ends) + 1), np.diff(np.concatenate(([run], ends, [stop]))))
        index = self.plan.indices[self.block]
        self.steps = side.odds.steps.take(2 * index + (self.value < 1.0), axis=1)
        self.steps *= self.count
        partial = np.flatnonzero((self.value > 0.0) & (self.value < 1.0))
        if len(partial):
            self.steps[:, partial] = partial_gains(self.value[partial], index[partial]).T
        # After each run: the sum of all steps above its lowest point so far.
        self.logs = np.cumsum(self.steps, axis=1)
        self.logs += np.array(side.logs)[:, None]
        self.logs -= np.minimum(np.minimum.accumulate(self.logs, axis=1), 0.0)
        self.highest: Array = self.logs.max(axis=0)
        self.log_thresholds = side.odds.log_thresholds[self.plan.indices]

    def take(self, side: Side, n: int) -> bool:
        """Take the runs up to a detection or the end of a block that is not learnt; whether there is neither."""
        unlearnt = self._unlearnt()
        run = len(self.value) - 1 if unlearnt is None else int(self.last[unlearnt])
        found = self._detection(side, run)
        if found is not None:
            run, taken = found
            self._commit(side, n, run, taken, int(self.block[run]))
            side.found = side.n
            side.rest()
        elif unlearnt is not None:
            self._commit(side, n, run, int(self.count[run]), unlearnt)
            side.end_block()
        else:
            self._commit(side, n, run, int(self.count[run]), len(self.last))
        return found is None and unlearnt is None

    def _unlearnt(self) -> int | None:
        """The first block that is not learnt against what was planned."""
        log_bounds = learning.GUARD * self.log_thresholds[:-1]
        for i in np.flatnonzero(self.plan.joins & (self.highest[self.last] >= log_bounds)).tolist():
            if evidence(self.logs[:, self.last[i]].tolist()) >= math.exp(log_bounds[i]):
                return int(i)
        return None

    def _detection(self, side: Side, upto: int) -> tuple[int, int] | None:
        """The first run up to one with a detection, and the value in it."""
        highest = self.highest[: upto + 1]
        if highest.max() < self.log_thresholds.min():
            return None
        log_thresholds = self.log_thresholds[self.block[: upto + 1]]
        for run in np.flatnonzero((highest >= log_thresholds) & (self.value[: upto + 1] < 1.0)).tolist():
            threshold = math.exp(log_thresholds[run])
            for taken in range(1, int(self.count[run]) + 1):
                if evidence(self._logs(side, run, taken)) >= threshold:
                    return run, taken
        return None

    def _logs(self, side: Side, run: int, taken: int) -> list[float]:
        """The logarithms after so many values of a run."""
        count = int(self.count[run])
        if taken == count:
            found: list[float] = self.logs[:, run].tolist()
        else:
            before = self.logs[:, run - 1] if run else np.array(side.logs)
            found = (before + self.steps[:, run] * taken / count).tolist()
        return found

    def _commit(self, side: Side, n: int, run: int, taken: int, block: int) -> None:
        """Bring the side to its state after so many values of a run, in a block."""
        logs = self._logs(side, run, taken)
        for i, log in enumerate(side.logs):
            none = np.flatnonzero(self.logs[i, : run + 1] == 0.0)
            if len(none):
                last = int(none[-1]) + 1
                side.starts[i] = n + int(self.before[last]), float(self.missing[last])
            elif log == 0.0:
                side.starts[i] = n + int(self.before[0]), float(self.missing[0])
        side.logs = logs
        side.n = n + int(self.before[run]) + taken
        side.missing = float(self.missing[run] + taken * shortfall(self.value[run]))
        plan = self.plan
        side.learnt, side.size = float(plan.learnt[block]), float(plan.size[block])
        side.waiting = plan.blocks[plan.first[block] : len(side.waiting) + block]
        side.block_mark = plan.marks[block]
        side.block_end += learning.BLOCK * block
        side.use(int(plan.indices[block]))
