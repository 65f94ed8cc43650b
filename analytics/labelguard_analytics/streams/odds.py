"""What a detector wins or loses with one value, for every level it may watch.

A detector watches for a fall: values between 0 and 1 whose mean, the *level*, may become lower. It holds the
level against several lower ones, told by how many times the odds fall (``RATIOS``). With odds ratio ``r`` and
level ``p`` a value ``x`` multiplies the evidence by ``(r + x (1 - r)) / (p + r (1 - p))``, whose mean is 1 at
the level and at most 1 above it, for 0 and 1 as for any score in between (Waudby-Smith and Ramdas, "Estimating
means of bounded random variables by betting", 2024).

Evidence is kept as logarithms that are whole multiples of 2**-30, rounded to the detector's disadvantage. Sums
of such numbers are exact, so a batch comes to the very same state as value after value does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from operator import mul
from typing import Any

import numpy as np
import numpy.typing as npt

from labelguard_analytics.streams import thresholds

Array = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]
Row = tuple[tuple[tuple[float, float], ...], float, float]

RATIOS = (1.3, 1.6, 2.0, 3.0)
"""How many times the odds of a 1 may have fallen. One of 1.6 is a level of .90 that became .85."""
WEIGHTS = (0.4, 0.2, 0.2, 0.2)
"""The part of the evidence that rests on each; more on the smallest, because it also serves slow slides."""
GRID = 4096
"""Levels are rounded down to multiples of one 4096th, so that everything below is computed once for each."""
LOWEST, HIGHEST = 0.01, 0.99
"""The levels thresholds are calibrated for. A higher level is watched as if it were the highest."""
_FLOOR = math.floor(LOWEST * GRID)
_UNIT = 2.0**30
_SHORT = 2.0**24


@dataclass(frozen=True)
class Odds:
    """Steps and thresholds for every level of the grid; a row for each, a column for each odds ratio."""

    losses: Array
    """What a value of 1 takes away, as positive numbers."""
    gains: Array
    """What a value of 0 adds."""
    log_thresholds: Array
    """The logarithm of the evidence at which a fall counts as detected, one for each level."""

    rows: dict[int, Row] = field(default_factory=dict)
    """Rows in use as plain numbers, which are quicker for single values."""

    @cached_property
    def steps(self) -> Array:
        """For each odds ratio what a value of 1 and what one of 0 adds at every level, one after the other."""
        return np.stack((-self.losses.T, self.gains.T), axis=2).reshape(len(RATIOS), -1)

    def row(self, index: int) -> Row:
        """Loss and gain for each odds ratio at one level, the logarithm of its threshold, 1 by the largest gain."""
        found = self.rows.get(index)
        if found is None:
            losses, gains = self.losses[index].tolist(), self.gains[index].tolist()
            per_gain = 1.0 / gains[-1] if gains[-1] else float(1 << 50)
            found = tuple(zip(losses, gains, strict=True)), float(self.log_thresholds[index]), per_gain
            self.rows[index] = found
        return found


@lru_cache(maxsize=64)
def odds(run_length: float, learnt: bool) -> Odds:
    """The steps for a run length, with the level known or learnt."""
    levels = np.arange(GRID + 1) / GRID
    thresholds_ = np.array([thresholds.log_threshold(p, run_length, learnt=learnt) for p in watched(levels).tolist()])
    return steps(thresholds_)


def steps(log_thresholds: Array) -> Odds:
    """The steps with these thresholds, one for each level of the grid."""
    level = watched(np.arange(GRID + 1) / GRID)[:, None]
    ratio = np.array(RATIOS)
    denominator = level + ratio * (1.0 - level)
    losses = np.ceil(np.log(denominator) * _UNIT) / _UNIT
    gains = np.floor(np.log(ratio / denominator) * _UNIT) / _UNIT
    # What is hardly ever 1 cannot fall noticeably, and below the lowest level nothing is calibrated.
    gains[:_FLOOR] = 0.0
    return Odds(losses, gains, log_thresholds)


def watched(level: Any) -> Any:
    """A level, or an array of them, brought into the calibrated range."""
    return np.clip(level, LOWEST, HIGHEST)


def index_of(level: float) -> int:
    """The row of a level."""
    return math.floor(level * GRID)


def shortfall(x: Any) -> Any:
    """What a value, or each of an array, is short of 1, in multiples whose sums are exact."""
    return (1.0 - x) * _SHORT // 1.0 / _SHORT


def partial_gain(x: float, index: int) -> list[float]:
    """What a value between 0 and 1 adds at the level of a row, for each odds ratio; negative for a loss."""
    if index < _FLOOR:
        return [0.0] * len(RATIOS)
    level = min(max(index / GRID, LOWEST), HIGHEST)
    return [math.floor(math.log((r + x * (1.0 - r)) / (level + r * (1.0 - level))) * _UNIT) / _UNIT for r in RATIOS]


def partial_gains(x: Array, index: Whole) -> Array:
    """:func:`partial_gain` of many values, a row for each, the same to the last bit."""
    level = watched(index / GRID)[:, None]
    ratio = np.array(RATIOS)
    scaled = np.log((ratio + x[:, None] * (1.0 - ratio)) / (level + ratio * (1.0 - level))) * _UNIT
    found: Array = np.floor(scaled)
    # Logarithms of arrays and of single numbers may differ in the last bit: near a step the latter decides.
    close = np.abs(scaled - np.rint(scaled)) < 1e-4
    found /= _UNIT
    for i in np.flatnonzero(close.any(axis=1)).tolist():
        found[i] = partial_gain(float(x[i]), int(index[i]))
    found[index < _FLOOR] = 0.0
    return found


def evidence(logs: list[float]) -> float:
    """The evidence of a row of logarithms; 1 where there is none."""
    return float(sum(map(mul, WEIGHTS, map(math.exp, logs))))
