"""Detectors and tests on many streams at once, value after value: what calibration, tests and benchmarks run.

They share steps, thresholds and learning with :class:`~labelguard_analytics.ChangeDetector`, and odds ratios and
start weights with :class:`~labelguard_analytics.AccuracyTest`, and detect at the very same values.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from labelguard_analytics.sequential import AccuracyTest, waiting
from labelguard_analytics.streams import learning
from labelguard_analytics.streams.odds import WEIGHTS, Array, Odds, Whole, index_of, partial_gains, shortfall


def first_alarms(values: Array | npt.NDArray[np.bool_], odds: Odds, level: float | None = None) -> Whole:
    """The value, counted from 1, at which a fall of each stream (row) is detected; 0 for never.

    ``values`` lie between 0 and 1. Without a ``level`` it is learnt, as in a detector.
    """
    streams, length = values.shape
    found = np.zeros(streams, dtype=np.int64)
    alive: Whole = np.arange(streams)
    exact = values.dtype == bool or bool(np.isin(values, (0.0, 1.0)).all())
    logs: Array = np.zeros((streams, len(WEIGHTS)))
    start = 0 if level is not None else min(learning.WARM_UP, length)
    missing: Array = np.asarray(shortfall(values[:, :start].astype(np.float64)).sum(axis=1))
    size: Array = np.full(streams, float(start))
    waiting: list[tuple[Array, npt.NDArray[np.bool_]]] = []  # each block, and for which streams it still waits
    block: Array = np.zeros(streams)
    index: Whole = learning.learnt_indices(missing, size) if level is None else np.full(streams, index_of(level))
    losses, gains = odds.losses[index], odds.gains[index]
    bounds: Array = np.exp(odds.log_thresholds[index])
    weights = np.array(WEIGHTS)
    for at in range(start, length):
        x: npt.NDArray[Any] = values[alive, at]
        if exact:
            step = np.where((x == 1.0)[:, None], -losses, gains)
        else:
            step = partial_gains(x, index)
            step[x == 1.0], step[x == 0.0] = -losses[x == 1.0], gains[x == 0.0]
        logs = np.maximum(logs + step, 0.0)
        evidence: Array = np.exp(logs) @ weights
        hit = evidence >= bounds
        if hit.any():
            found[alive[hit]] = at + 1
            stay = ~hit
            alive, logs, evidence, bounds = alive[stay], logs[stay], evidence[stay], bounds[stay]
            missing, size, block, x = missing[stay], size[stay], block[stay], x[stay]
            waiting = [(each[stay], waits[stay]) for each, waits in waiting]
            index, losses, gains = index[stay], losses[stay], gains[stay]
            if not len(alive):
                break
        if level is not None:
            continue
        block += shortfall(x.astype(np.float64))
        if (at + 1 - start) % learning.BLOCK == 0:
            waiting.append((block, np.ones(len(alive), dtype=bool)))
            block = np.zeros(len(alive))
            small = evidence < bounds**learning.GUARD
            for each, waits in waiting[: max(0, len(waiting) - learning.waiting_blocks(at + 1))]:
                joins = small & waits
                missing[joins], size[joins] = missing[joins] + each[joins], size[joins] + learning.BLOCK
                old = size > learning.MEMORY
                missing[old], size[old] = missing[old] * (learning.MEMORY / size[old]), learning.MEMORY
                waits[small] = False
            while waiting and not waiting[0][1].any():
                del waiting[0]
            index = learning.learnt_indices(missing, size)
            losses, gains, bounds = odds.losses[index], odds.gains[index], np.exp(odds.log_thresholds[index])
    return found


def first_rejections(values: Array | npt.NDArray[np.bool_], target: float = 0.85, false_alarm: float = 0.05) -> Whole:
    """The value, counted from 1, at which an :class:`AccuracyTest` of each stream (row) detects; 0 for never."""
    streams, length = values.shape
    shifts = 1.0 / np.array(AccuracyTest.RATIOS)[:, None] - 1.0
    capital: Array = np.zeros((len(shifts), streams))
    found = np.zeros(streams, dtype=np.int64)
    for at in range(length):
        staked = waiting(at) - waiting(at + 1)
        capital = (capital + staked) * ((1.0 + values[:, at] * shifts) / (1.0 + target * shifts))
        evidence = capital.mean(axis=0) + waiting(at + 1)
        found[(evidence >= 1.0 / false_alarm) & (found == 0)] = at + 1
    return found
