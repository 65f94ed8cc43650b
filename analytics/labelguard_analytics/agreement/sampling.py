"""Krippendorff's alpha of what only compares pair by pair: expected disagreement from random pairs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from labelguard_analytics.agreement.coefficients import ONE_LABEL, nothing_to_compare
from labelguard_analytics.estimate import Estimate, unknown
from labelguard_analytics.frames import Coded, Codes, Floats
from labelguard_analytics.units import (
    Interval,
    Units,
    estimate,
)


def sampled_alpha(
    units: Units,
    score: Callable[[npt.NDArray[Any], npt.NDArray[Any]], Floats],
    coded: Coded,
    interval: Interval,
    repetitions: int,
    seed: int,
) -> Estimate:
    """Alpha with the expected disagreement of random pairs, or why there is none."""
    why = nothing_to_compare(units)
    if not why and len(units.sizes) < 2:
        why = "Only one task was judged by two annotators, so chance agreement cannot be told."
    if why:
        return unknown(why, units.tasks, units.judgments)
    stratum = _strata(coded, units)
    coefficient = _SampledAlpha.of(units, score, stratum, seed)
    return estimate(coefficient, interval=interval, repetitions=repetitions, seed=seed, labels=False, reason=ONE_LABEL)


def _strata(coded: Coded, units: Units) -> Codes:
    """Which units may be compared with each other: those of one source."""
    if "source" not in coded.frame.columns:
        return np.zeros(len(units.sizes), dtype=np.int32)
    codes, _ = coded.group("source")
    of_task = np.full(len(coded.tasks), -1, dtype=np.int32)
    of_task[coded.task] = codes
    return of_task[coded.sizes >= 2]


@dataclass(frozen=True)
class _SampledAlpha:
    """Alpha whose expected disagreement is that of random pairs of judgments of different tasks."""

    units: Units
    in_disagreement: Floats
    """Each unit's disagreement: the distances of its ordered pairs over its size less one."""
    one: Codes
    """The unit of the first judgment of each random pair."""
    other: Codes
    distance: Floats
    """The distance of each random pair."""
    exact = False

    @classmethod
    def of(
        cls,
        units: Units,
        score: Callable[[npt.NDArray[Any], npt.NDArray[Any]], Floats],
        stratum: Codes,
        seed: int,
    ) -> _SampledAlpha:
        observed = units.pair_sums(lambda a, b: 1.0 - score(a, b)) / (units.sizes - 1.0)
        one, other = _pairs_across(units, stratum, np.random.default_rng(seed))
        distance = 1.0 - score(units.values[one], units.values[other])
        return cls(units, observed, units.unit[one], units.unit[other], distance)

    @cached_property
    def of_one(self) -> float:
        """What one deviating judgment would add: two ordered pairs at the mean distance of random pairs."""
        return 2.0 / float(self.units.weight @ self.units.sizes)

    def disagreement(self, weight: Floats | None = None) -> float:
        """1 minus alpha."""
        units = self.units
        heavy = units.weight if weight is None else weight
        pairs = heavy[self.one] * heavy[self.other]
        total = float(pairs.sum())
        expected = float(pairs @ self.distance) / total if total else 0.0
        observed = float(heavy @ self.in_disagreement) / float(heavy @ units.sizes)
        return observed / expected if expected > 1e-12 else math.nan

    def left_out(self) -> Floats:
        """1 minus alpha without one task of each unit."""
        units, size = self.units, len(self.units.sizes)
        own = np.bincount(self.one, self.distance, size) + np.bincount(self.other, self.distance, size)
        number = np.bincount(self.one, minlength=size) + np.bincount(self.other, minlength=size)
        expected = (self.distance.sum() - own) / np.maximum(len(self.distance) - number, 1)
        observed = (self.in_disagreement.sum() - self.in_disagreement) / (units.sizes.sum() - units.sizes)
        return np.asarray(np.where(expected > 1e-12, observed / np.maximum(expected, 1e-12), np.nan))


def _pairs_across(
    units: Units, stratum: Codes, rng: np.random.Generator
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Random pairs of judgments of different tasks of the same stratum, every judgment about equally often."""
    of_row = stratum[units.unit]
    found = []
    wanted = int(np.clip(4 * len(units.values), 4000, 100_000))
    for number in np.unique(stratum):
        rows = np.flatnonzero(of_row == number)
        rounds = max(1, round(wanted / len(units.values)))
        found += [np.stack([rows, rng.permutation(rows)]) for _ in range(rounds)]
    one, other = np.concatenate(found, axis=1)
    apart = units.unit[one] != units.unit[other]
    if not apart.any():
        # Every source has a single task: compare across sources rather than not at all.
        one, other = np.arange(len(units.values)), rng.permutation(len(units.values))
        apart = units.unit[one] != units.unit[other]
    return one[apart], other[apart]
