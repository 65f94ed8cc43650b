"""Many values for one side of a detector at once.

Only two kinds of moments matter: values below 1, and ends of blocks. Between them evidence falls in straight
lines, so it is enough to know it there, and a running minimum gives all of it at once. What is learnt at the end
of a block depends on the evidence there, which depends on what was learnt before. Nearly always a block is
learnt; so this is taken for granted for many blocks ahead, and what comes after the first block for which it was
wrong is done again.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from labelguard_analytics.streams import learning
from labelguard_analytics.streams.learning import FOREVER
from labelguard_analytics.streams.odds import Array, Whole, evidence, partial_gains, reaches

if TYPE_CHECKING:
    from labelguard_analytics.streams.side import Side

_AHEAD = 256
"""Blocks that are taken for granted at most."""
_AT_ONCE = 1 << 16
"""Values at once where there are no blocks; it also keeps sums of logarithms small enough to be exact."""


def take_many(side: Side, values: Array) -> None:
    """Take the values."""
    at, ahead = 0, _AHEAD
    while at < len(values):
        rest = values[at:]
        if side.found is not None:
            side.settled += len(rest)
            return
        if side.warming_up:
            at += _warm_up(side, rest)
            continue
        until = side.block_end - side.n
        blocks = min(ahead, max(0, (len(rest) - until) // learning.BLOCK + 1))
        length = _AT_ONCE if until > _AT_ONCE else until + (blocks - 1) * learning.BLOCK if blocks else len(rest)
        taken, as_expected = _stretch(side, rest[:length], until, blocks)
        ahead = min(_AHEAD, 4 * ahead) if as_expected else 1
        at += taken


def _warm_up(side: Side, values: Array) -> int:
    part = values[: side.block_end - side.n]
    below = np.flatnonzero(part < 1.0)
    if len(below):
        last = int(below[-1]) + 1
        side.missing = float(np.add.accumulate(np.concatenate(([side.missing], 1.0 - part[below])))[-1])
        side.settled += side.run + last
        side.run = len(part) - last
        side.room = side.block_end - side.settled
    else:
        side.run += len(part)
    if side.run == side.room:
        side.end_block()
    return len(part)


class _Blocks:
    """What is learnt at the end of each block if every block is learnt."""

    def __init__(self, side: Side, missing: list[float]) -> None:
        learnt, size, waiting, mark = side.learnt, side.size, list(side.waiting), side.block_mark
        self.indices = [side.index]
        """The row of the level in each block."""
        self.before = [(learnt, size, list(waiting), mark)]
        """What is known before each block ends."""
        self.joins: list[bool] = []
        """Whether a block joins at the end of each."""
        for i, total in enumerate(missing):
            waiting.append(total - mark)
            mark = total
            self.joins.append(len(waiting) > learning.waiting_blocks(side.block_end + i * learning.BLOCK))
            if self.joins[-1]:
                learnt, size = learning.joined(learnt, size, waiting.pop(0))
            self.before.append((learnt, size, list(waiting), mark))
            self.indices.append(learning.learnt_index(learnt, size))


def _stretch(side: Side, values: Array, until: int, blocks: int) -> tuple[int, bool]:
    """Take values up to a detection or a block that is not learnt; how many, and whether all went as expected."""
    below = np.flatnonzero(values < 1.0)
    ends = until + learning.BLOCK * np.arange(blocks)
    if not len(below) and not blocks:
        side.run += len(values)
        return len(values), True

    # The moments in order. `before` values come before each, and `after` values when it is over.
    place = np.searchsorted(below, ends)
    before = np.insert(below, place, ends)
    is_end = np.zeros(len(before), dtype=bool)
    is_end[place + np.arange(blocks)] = True
    after = np.where(is_end, before, before + 1)
    block = np.cumsum(is_end) - is_end
    short = np.where(is_end, 0.0, 1.0 - values[np.where(is_end, 0, before)])
    missing = np.add.accumulate(np.concatenate(([side.missing], short)))

    plan = _Blocks(side, missing[1:][is_end].tolist())
    index = np.array(plan.indices)[block]
    calm = before - np.concatenate(([-side.run], after[:-1]))
    losses = calm[:, None] * side.odds.losses[index]
    gains = side.odds.gains[index]
    gains[is_end] = 0.0
    partial = np.flatnonzero((short > 0.0) & (short < 1.0))
    if len(partial):
        gains[partial] = partial_gains(values[before[partial]], index[partial])

    # Before each moment: the sum of all steps above its lowest point so far.
    steps = -losses
    steps[1:] += gains[:-1]
    sums = np.array(side.logs) + np.cumsum(steps, axis=0)
    logs = sums - np.minimum(np.minimum.accumulate(sums, axis=0), 0.0)
    then = np.maximum(logs + gains, 0.0)

    log_thresholds = side.odds.log_thresholds[index]
    stop, expected = len(before) - 1, True
    unlearnt = np.flatnonzero(is_end)[plan.joins]
    unlearnt = unlearnt[reaches(logs[unlearnt], learning.GUARD * log_thresholds[unlearnt])]
    if len(unlearnt):
        stop, expected = int(unlearnt[0]), False
    found = _detection(then, log_thresholds, is_end, stop)
    stop = stop if found is None else found
    _commit(side, stop, logs, then, before, after, missing, plan, int(block[stop]), 0.0 < short[stop] < 1.0)
    if found is not None:
        side.found = side.settled
        side.room = FOREVER
    elif is_end[stop]:
        side.end_block()
    if found is not None or not expected:
        return int(after[stop]), expected
    side.run = len(values) - int(after[stop])
    return len(values), True


def _detection(
    then: Array, log_thresholds: Array, is_end: np.ndarray[tuple[int], np.dtype[np.bool_]], stop: int
) -> int | None:
    likely = (then[: stop + 1].max(axis=1) >= log_thresholds[: stop + 1]) & ~is_end[: stop + 1]
    for i in np.flatnonzero(likely).tolist():
        if evidence(then[i].tolist()) >= math.exp(float(log_thresholds[i])):
            return int(i)
    return None


def _commit(
    side: Side,
    stop: int,
    logs: Array,
    then: Array,
    before: Whole,
    after: Whole,
    missing: Array,
    plan: _Blocks,
    block: int,
    partial: bool,
) -> None:
    """Bring the side to its state at one of the moments."""
    n = side.n
    for i in range(logs.shape[1]):
        none = np.flatnonzero(logs[: stop + 1, i] == 0.0)
        if len(none):
            last = int(none[-1])
            side.starts[i], side.marks[i] = n + int(before[last]), float(missing[last])
        if then[stop, i] == 0.0 and partial:
            side.starts[i], side.marks[i] = n + int(after[stop]), float(missing[stop + 1])
    side.logs = then[stop].tolist()
    side.settled, side.run = n + int(after[stop]), 0
    side.missing = float(missing[stop + 1])
    side.learnt, side.size, waiting, side.block_mark = plan.before[block]
    side.waiting = list(waiting)
    side.block_end += learning.BLOCK * block
    side.room = side.block_end - side.settled
    side.use(plan.indices[block])
