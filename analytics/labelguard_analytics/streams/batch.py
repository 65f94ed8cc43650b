"""Many values for one side of a detector at once.

Only some moments matter: values between 0 and 1, the ends of runs of 0, and ends of blocks. Between them evidence
rises and falls in straight lines, so it is enough to know it there, and a running minimum gives all of it at once.
What is learnt at the end of a block depends on the evidence there, which depends on what was learnt before. Nearly
always the evidence is small and blocks are learnt; so this is taken for granted for many blocks ahead, and what
comes after the first end for which it was wrong is done again.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

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
    side.rest()
    if not side.left:
        side.end_block()
    return len(values)


class _Blocks:
    """What is learnt at the end of each block if every block is learnt that need not wait."""

    def __init__(self, side: Side, missing: list[float]) -> None:
        self.marks = [side.block_mark, *missing]
        """What was missing when each block began."""
        self.blocks = side.waiting + np.diff(self.marks).tolist()
        """What was missing in each block that waits or ends."""
        learnt, size, first = side.learnt, side.size, 0
        self.known = [(learnt, size, first)]
        """In each block: what is learnt, from how many values, and the first block that waits."""
        for i in range(len(missing)):
            last = len(side.waiting) + i + 1 - learning.waiting_blocks(side.block_end + i * learning.BLOCK)
            while first < last:
                learnt, size = learning.joined(learnt, size, self.blocks[first])
                first += 1
            self.known.append((learnt, size, first))
        known = np.array(self.known)
        self.joins = np.diff(known[:, 2]) > 0.0
        """Whether a block joins at the end of each."""
        self.indices: Whole = learning.learnt_indices(known[:, 0], known[:, 1]) if missing else np.array([side.index])
        """The row of the level in each block."""
        self.indices[0] = side.index


def _stretch(side: Side, values: Array, blocks: int) -> tuple[int, bool]:
    """Take values up to a detection or a block that is not learnt; how many, and whether all went as expected."""
    below = np.flatnonzero(values < 1.0)
    ends = side.left + learning.BLOCK * np.arange(blocks)
    if not len(below) and not blocks:
        side.take_run(len(values), 0, 0)
        return len(values), True

    # The moments in order: ends of blocks, values between 0 and 1, and runs of 0 in a block. `before` values come
    # before each, and `after` values when it is over.
    place = np.searchsorted(below, ends)
    before: Whole = np.insert(below, place, ends)
    is_end: npt.NDArray[np.bool_] = np.zeros(len(before), dtype=bool)
    is_end[place + np.arange(blocks)] = True
    value = np.where(is_end, 1.0, values[np.where(is_end, 0, before)])
    zero = value == 0.0
    first = np.flatnonzero(np.concatenate(([True], ~(zero[1:] & zero[:-1] & (np.diff(before) == 1)))))
    count = np.diff(np.concatenate((first, [len(before)])))
    before, is_end, value = before[first], is_end[first], value[first]
    after = before + np.where(is_end, 0, count)
    block: Whole = np.cumsum(is_end) - is_end
    missing = np.cumsum(np.concatenate(([side.missing], count * shortfall(value))))

    plan = _Blocks(side, missing[1:][is_end].tolist())
    index = plan.indices[block]
    calm = before - np.concatenate(([0], after[:-1]))
    gains = count[:, None] * side.odds.gains[index]
    gains[is_end] = 0.0
    partial = np.flatnonzero((value > 0.0) & (value < 1.0))
    if len(partial):
        gains[partial] = partial_gains(value[partial], index[partial])

    # Before each moment: the sum of all steps above its lowest point so far.
    steps = -calm[:, None] * side.odds.losses[index]
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
    found = _detection(logs[: stop + 1], gains, count, log_thresholds)
    if found is not None:
        stop, taken = found
        then[stop] = logs[stop] + gains[stop] * taken / count[stop]
        missing[stop + 1] = missing[stop] + taken * shortfall(value[stop])
        after[stop] = before[stop] + taken
    _commit(side, stop, logs, then, before, after, missing, plan, int(block[stop]))
    if found is not None:
        side.found = side.n
        side.rest()
    elif is_end[stop]:
        side.end_block()
    if found is not None or not expected:
        return int(after[stop]), expected
    side.take_run(len(values) - int(after[stop]), 0, 0)
    return len(values), True


def _detection(logs: Array, gains: Array, count: Whole, log_thresholds: Array) -> tuple[int, int] | None:
    """The first moment with a detection, and the value in it."""
    likely = (logs + gains[: len(logs)]).max(axis=1) >= log_thresholds[: len(logs)]
    for i in np.flatnonzero(likely).tolist():
        threshold = math.exp(float(log_thresholds[i]))
        for taken in range(1, int(count[i]) + 1):
            if evidence((logs[i] + gains[i] * taken / count[i]).tolist()) >= threshold:
                return i, taken
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
            side.starts[i] = n + int(before[last]), float(missing[last])
    side.logs = then[stop].tolist()
    side.n = n + int(after[stop])
    side.missing = float(missing[stop + 1])
    side.learnt, side.size, first = plan.known[block]
    side.waiting = plan.blocks[first : len(side.waiting) + block]
    side.block_mark = plan.marks[block]
    side.block_end += learning.BLOCK * block
    side.use(int(plan.indices[block]))
