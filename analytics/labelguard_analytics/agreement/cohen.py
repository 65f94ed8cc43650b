"""Cohen's kappa of two annotators, or the mean over all pairs, with one interval."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from labelguard_analytics.agreement.pairwise import distinct, sums_of
from labelguard_analytics.agreement.weights import Weights, credit
from labelguard_analytics.estimate import Estimate, unknown
from labelguard_analytics.frames import Coded, Codes, Floats, read, shown
from labelguard_analytics.options import short
from labelguard_analytics.units import (
    Interval,
    Units,
    estimate,
)

SHARED = 50
"""The mean kappa of many pairs needs so many shared tasks of a typical pair, or the kappas themselves are guesses."""


def cohen_kappa(
    judgments: pd.DataFrame | Coded,
    a: Any = None,
    b: Any = None,
    *,
    weights: Weights = None,
    interval: Interval = "analytic",
    repetitions: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Cohen's kappa of two annotators over the tasks that both judged (Cohen 1960; weighted: Cohen 1968).

    With more than two annotators in the frame and none named, the mean over all pairs that share a task, each
    weighing as many tasks as it shares (Light 1971 weighs them equally).

    >>> frame = pd.DataFrame({"task": [1, 1, 2, 2, 3, 3], "annotator": [1, 2] * 3, "value": list("aabbab")})
    >>> round(cohen_kappa(frame).value, 3)
    0.4

    Args:
        judgments: one label for each judgment.
        a: an annotator; None where the frame has two, or for the mean over all pairs.
        b: another annotator.
        weights: credit for different labels: ``linear`` or ``quadratic`` in the distance of ordered labels, or
            a symmetric matrix (labels x labels) with 1 on the diagonal; None gives none.
        interval: ``analytic`` or ``bootstrap``, both over tasks.
        repetitions: samples of the bootstrap.
        seed: seed of the bootstrap.

    Returns:
        1 for full agreement, 0 for what chance gives, below 0 for less.

    Raises:
        BadJudgments: the frame is not what it must be.
        ValueError: only one annotator is named, or one who is not in the frame.
    """
    coded = read(judgments)
    weighed = credit(coded.categories, weights, ordered=coded.ordered)
    if (a is None) != (b is None):
        raise ValueError("Name both annotators or none.")
    wanted: tuple[int, int] | None = None
    if a is not None:
        if not pd.api.types.is_scalar(a) or not pd.api.types.is_scalar(b):
            raise TypeError(f"a and b must each name one annotator, but they are {short(a)} and {short(b)}.")
        places = [coded.annotators.get_indexer(pd.Index([name], dtype=object))[0] for name in (a, b)]
        for name, place in zip((a, b), places, strict=True):
            if place < 0:
                raise ValueError(f"There is no annotator {name!r} in these judgments.")
        if a == b:
            raise ValueError(f"Kappa compares two annotators, but both are {a!r}.")
        wanted = int(places[0]), int(places[1])
    return _kappa(coded, wanted, weighed, interval, repetitions, seed)


@dataclass(frozen=True)
class _Kappa:
    """The mean kappa of pairs of annotators, each weighing the tasks that it shares."""

    units: Units
    """Tasks with a pair in them."""
    pair: npt.NDArray[np.intp]
    """For each pair of judgments: whose it is."""
    unit: npt.NDArray[np.intp]
    """For each pair of judgments: its task."""
    k: Codes
    other: Codes
    labels: int
    distance: Floats
    exact = True

    @cached_property
    def apart(self) -> Floats:
        """The distance of each pair of judgments."""
        return np.asarray(self.distance[self.k, self.other], dtype=np.float64)

    @cached_property
    def in_disagreement(self) -> Floats:
        """Each task's distances summed."""
        return np.bincount(self.unit, self.apart, len(self.units.sizes)).astype(np.float64, copy=False)

    @cached_property
    def of_one(self) -> float:
        """What one task in disagreement would add: one pair of judgments."""
        n, _, expected, _, _ = self._tables(np.ones(len(self.k)))
        heavy = n / n.sum()
        known = expected > 1e-12
        return float((heavy[known] / expected[known] / n[known]).max(initial=0.0)) if known.any() else 0.0

    def _tables(self, count: Floats) -> tuple[Floats, Floats, Floats, Floats, Floats]:
        """For each pair: shared tasks, observed and expected disagreement; what each label expects of the other."""
        pairs = int(self.pair.max()) + 1
        n = sums_of(self.pair, count, pairs)
        full = np.maximum(n, 1e-300)
        own = sums_of(self.pair * self.labels + self.k, count, pairs * self.labels).reshape(pairs, -1)
        peer = sums_of(self.pair * self.labels + self.other, count, pairs * self.labels).reshape(pairs, -1)
        own, peer = own / full[:, None], peer / full[:, None]
        mine, theirs = peer @ self.distance.T, own @ self.distance
        observed = np.asarray(sums_of(self.pair, count * self.apart, pairs) / full)
        return n, observed, np.einsum("pk,pk->p", own, mine), mine, theirs

    def disagreement(self, weight: Floats | None = None) -> float:
        """1 minus the mean kappa; pairs whose kappa is undefined are left out."""
        count = np.ones(len(self.k)) if weight is None else weight[self.unit]
        n, observed, expected, _, _ = self._tables(count)
        known = (n > 0) & (expected > 1e-12)
        if not known.any():
            return math.nan
        return float((n[known] @ (observed[known] / expected[known])) / n[known].sum())

    def left_out(self) -> Floats:
        """1 minus the mean kappa without each task: all its pairs lose one of their shared tasks."""
        n, observed, expected, mine, theirs = self._tables(np.ones(len(self.k)))
        pair, size = self.pair, len(self.units.sizes)
        known = (n > 0) & (expected > 1e-12)
        full = np.where(known, n * observed / np.where(known, expected, 1.0), 0.0)  # shared tasks times 1 - kappa
        m = n[pair]
        # The expected disagreement in numbers of pairs of labels, without the row's own two.
        chance = m * m * expected[pair] - m * (mine[pair, self.k] + theirs[pair, self.other]) + self.apart
        own = (m - 1.0) ** 2 * _ratio((m * observed[pair] - self.apart), chance)
        left = np.where(known[pair] & np.isfinite(own), own - full[pair], 0.0)
        lost = np.bincount(self.unit, known[pair].astype(np.float64), size)
        total = float(n[known].sum())
        return np.asarray((full.sum() + np.bincount(self.unit, left, size)) / (total - lost), dtype=np.float64)


def _ratio(above: Floats, below: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(below > 1e-9, above / below, np.nan), dtype=np.float64)


def _kappa(
    coded: Coded,
    wanted: tuple[int, int] | None,
    weights: Floats | None,
    interval: Interval,
    repetitions: int,
    seed: int,
) -> Estimate:
    labels, annotators = len(coded.categories), len(coded.annotators)
    task, value = coded.in_order
    who = coded.annotator if coded.order is None else coded.annotator[coded.order]
    if wanted is not None:
        rows = np.isin(who, wanted)
        task, value, who = task[rows], value[rows], who[rows]
    parts = []
    sizes = np.bincount(task, minlength=1)
    for apart in range(1, int(sizes.max())):
        one = np.flatnonzero(task[apart:] == task[:-apart])
        other = one + apart
        swap = who[one] > who[other]
        parts.append((np.where(swap, other, one), np.where(swap, one, other)))
    shared = int((sizes > 1).sum())
    if not parts or not shared:
        return unknown(
            f"Only one annotator, {shown(coded.annotators[0])}, is there, so there is nothing to compare."
            if annotators == 1
            else "No two annotators share a task, so there is nothing to compare."
        )
    one, other = (np.concatenate(side) for side in zip(*parts, strict=True))
    used = sizes > 1
    number = np.cumsum(used) - 1
    _, pair = distinct(who[one].astype(np.int64) * annotators + who[other], annotators * annotators)
    in_pairs = used[task]
    units = Units(value[in_pairs], number[task[in_pairs]].astype(np.int32), sizes[used], np.ones(shared), labels)
    distance = 1.0 - (np.eye(labels) if weights is None else weights)
    coefficient = _Kappa(units, pair, number[task[one]], value[one], value[other], labels, distance)
    each = np.bincount(pair).astype(np.float64)
    typical = float(each @ each / each.sum())
    if typical < SHARED:
        found = coefficient.disagreement()
        reason = (
            f"Too little data for an interval: two annotators share only {typical:.0f} of the tasks, where at least "
            f"{SHARED} are needed."
        )
        if not math.isnan(found):
            return Estimate(1.0 - found, math.nan, math.nan, shared, units.judgments, reason)
    return estimate(
        coefficient,
        interval=interval,
        repetitions=repetitions,
        seed=seed,
        reason="Every two annotators gave all their shared tasks the same label, so agreement cannot be told from "
        "chance.",
    )
