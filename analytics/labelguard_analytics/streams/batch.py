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
from labelguard_analytics.streams.odds import Array, Whole, evidence, partial_gains, reaches, shortfall

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
            side.n += len(rest)
            return
        if not side.watching:
            at += _warm_up(side, rest[: side.left])
            continue
        blocks = min(ahead, max(0, (len(rest) - side.left) // learning.BLOCK + 1))
        whole = side.left + (blocks - 1) * learning.BLOCK
        length = _AT_ONCE if side.left > _AT_ONCE else whole if blocks else len(rest)
        taken, as_expected = _stretch(side, rest[:length], blocks)
        ahead = min(_AHEAD, 4 * ahead) if as_expected else 1
        at += taken


def _warm_up(side: Side, values: Array) -> int:
    side.missing += float(shortfall(values).sum())
    side.n += len(values)
    if not side.left:
        side.end_block()
    return len(values)


class _Blocks:
    """What is learnt at the end of each block if every block is learnt."""

    def __init__(self, side: Side, missing: list[float]) -> None:
        learnt, size, mark, first = side.learnt, side.size, side.block_mark, 0
        self.blocks = list(side.waiting)
        """What was missing in each block that waits or ends."""
        self.before = []
        """What is known before each block ends: what is learnt, from how many, the mark, and which blocks wait."""
        self.joins: list[bool] = []
        """Whether a block joins at the end of each."""
        for i, total in enumerate(missing):
            self.before.append((learnt, size, mark, slice(first, len(self.blocks))))
            self.blocks.append(total - mark)
            mark = total
            until = len(self.blocks) - learning.waiting_blocks(side.block_end + i * learning.BLOCK)
            self.joins.append(first < until)
            while first < until:
                learnt, size = learning.joined(learnt, size, self.blocks[first])
                first += 1
        self.before.append((learnt, size, mark, slice(first, len(self.blocks))))
        sizes = np.array([known[:2] for known in self.before[1:]]).reshape(-1, 2)
        self.indices = np.concatenate(([side.index], learning.learnt_indices(sizes[:, 0], sizes[:, 1])))
        """The row of the level in each block."""


def _stretch(side: Side, values: Array, blocks: int) -> tuple[int, bool]:
    """Take values up to a detection or a block that is not learnt; how many, and whether all went as expected."""
    below = np.flatnonzero(values < 1.0)
    ends = side.left + learning.BLOCK * np.arange(blocks)
    if not len(below) and not blocks:
        side.take_run(len(values), 0, 0)
        return len(values), True

    # The moments in order. `before` values come before each, and `after` values when it is over.
    place = np.searchsorted(below, ends)
    before = np.insert(below, place, ends)
    is_end = np.zeros(len(before), dtype=bool)
    is_end[place + np.arange(blocks)] = True
    after = np.where(is_end, before, before + 1)
    block = np.cumsum(is_end) - is_end
    value = np.where(is_end, 1.0, values[np.where(is_end, 0, before)])
    missing = np.cumsum(np.concatenate(([side.missing], shortfall(value))))

    plan = _Blocks(side, missing[1:][is_end].tolist())
    index = plan.indices[block]
    calm = before - np.concatenate(([0], after[:-1]))
    losses = calm[:, None] * side.odds.losses[index]
    gains = side.odds.gains[index]
    gains[is_end] = 0.0
    partial = np.flatnonzero((value > 0.0) & (value < 1.0))
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
    _commit(side, stop, logs, then, before, after, missing, plan, int(block[stop]))
    if found is not None:
        side.found = side.n
    elif is_end[stop]:
        side.end_block()
    if found is not None or not expected:
        return int(after[stop]), expected
    side.take_run(len(values) - int(after[stop]), 0, 0)
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
) -> None:
    """Bring the side to its state at one of the moments."""
    n = side.n
    for i in range(logs.shape[1]):
        none = np.flatnonzero(logs[: stop + 1, i] == 0.0)
        if len(none):
            last = int(none[-1])
            side.starts[i], side.marks[i] = n + int(before[last]), float(missing[last])
        if then[stop, i] == 0.0:
            side.starts[i], side.marks[i] = n + int(after[stop]), float(missing[stop + 1])
    side.logs = then[stop].tolist()
    side.n = n + int(after[stop])
    side.missing = float(missing[stop + 1])
    side.learnt, side.size, side.block_mark, waiting = plan.before[block]
    side.waiting = plan.blocks[waiting]
    side.block_end += learning.BLOCK * block
    side.use(int(plan.indices[block]))
