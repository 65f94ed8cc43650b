"""What is computed from the labels of each task, whoever gave them: the common ground of the agreement coefficients.

A *unit* is a task with its judgments. Coefficients that treat annotators alike (percent, Fleiss, Gwet,
Krippendorff) depend on a task only through the multiset of its labels, so equal tasks may be kept once with
their number: that is how :class:`~labelguard_analytics.Counts` keeps them, and why both ways give the same.

Every coefficient here is 1 minus observed over expected disagreement. The expected one is a quadratic form in
sums over tasks, so leaving out one task (the jackknife) has a closed form, and the whole costs a few passes over
the judgments.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import stats

from labelguard_analytics.estimate import Estimate, unknown
from labelguard_analytics.frames import Coded, Codes, Floats
from labelguard_analytics.options import check_choice, check_whole

Interval: TypeAlias = Literal["analytic", "bootstrap"]

NEEDED_TASKS = 100
"""Fewer tasks give no interval that keeps its promise."""
NEEDED_MINORITY = 5
"""Nor do fewer tasks for which most annotators chose another label than the most frequent one."""
NEEDED_FREEDOM = 5.0
"""Nor does a standard error that a handful of tasks decide: its degrees of freedom."""
FEW = 10
"""With fewer tasks in disagreement, their number itself is what is uncertain."""


@dataclass(frozen=True)
class Units:
    """Tasks with their labels, the judgments of a task next to each other."""

    values: npt.NDArray[Any]
    """Label codes (int32) or numbers, one for each judgment."""
    unit: Codes
    """The unit of each judgment, ascending."""
    sizes: npt.NDArray[np.intp]
    """Judgments of each unit."""
    weight: Floats
    """How many tasks each unit stands for."""
    categories: int
    """How many labels there are; 0 for numbers."""

    @classmethod
    def of(cls, coded: Coded, least: int = 1) -> Units:
        """The tasks with at least ``least`` judgments; others are left out."""
        task, values = coded.in_order
        sizes = coded.sizes
        if len(sizes) and int(sizes.min()) < least:
            kept = sizes >= least
            rows = kept[task]
            number = np.cumsum(kept, dtype=np.int32) - np.int32(1)
            task, values, sizes = number[task[rows]], values[rows], sizes[kept]
        return cls(values, task, sizes, np.ones(len(sizes)), len(coded.categories))

    @property
    def tasks(self) -> int:
        """The number of tasks."""
        return round(float(self.weight.sum()))

    @property
    def judgments(self) -> int:
        """The number of judgments."""
        return round(float(self.weight @ self.sizes))

    @cached_property
    def largest(self) -> int:
        """The most judgments that a unit has."""
        return int(self.sizes.max()) if len(self.sizes) else 0

    @cached_property
    def regular(self) -> int:
        """The number of judgments of every unit, or 0 where they differ."""
        return self.largest if len(self.sizes) and int(self.sizes.min()) == self.largest else 0

    def at_least(self, least: int) -> Units:
        """Only the units with at least ``least`` judgments."""
        if not len(self.sizes) or int(self.sizes.min()) >= least:
            return self
        kept = self.sizes >= least
        rows = kept[self.unit]
        number = np.cumsum(kept, dtype=np.int32) - np.int32(1)
        return Units(self.values[rows], number[self.unit[rows]], self.sizes[kept], self.weight[kept], self.categories)

    def sums(self, x: npt.NDArray[Any]) -> Floats:
        """The sum over each unit's judgments of a number for each judgment."""
        if self.regular:
            table = x.reshape(-1, self.regular)
            total: Floats = table[:, 0].astype(np.float64)
            for column in range(1, self.regular):
                total += table[:, column]
            return total
        return np.bincount(self.unit, weights=x, minlength=len(self.sizes)).astype(np.float64, copy=False)

    @cached_property
    def plain(self) -> bool:
        """Whether every unit stands for one task."""
        return bool(np.all(self.weight == 1.0))

    @cached_property
    def counts(self) -> Floats:
        """How often each label was given."""
        if self.plain:
            return np.bincount(self.values, minlength=self.categories).astype(np.float64)
        return self.totals(self.weight)

    def totals(self, weight: Floats | None = None, each: Floats | None = None) -> Floats:
        """How often each label was given, a unit counting ``weight`` times and its judgments ``each``."""
        heavy = self.weight if weight is None else weight
        if each is not None:
            heavy = heavy * each
        found = np.bincount(self.values, weights=heavy[self.unit], minlength=self.categories)
        return found.astype(np.float64, copy=False)

    def pair_sums(self, score: Callable[[npt.NDArray[Any], npt.NDArray[Any]], npt.NDArray[Any]]) -> Floats:
        """For each unit the sum of a symmetric score over its ordered pairs of different judgments."""
        total = np.zeros(len(self.sizes))
        if self.regular:
            columns = np.ascontiguousarray(self.values.reshape(-1, self.regular).T)
            for one in range(self.regular):
                for other in range(one + 1, self.regular):
                    total += score(columns[one], columns[other])
        else:
            for apart in range(1, self.largest):
                same = np.flatnonzero(self.unit[apart:] == self.unit[:-apart])
                found = score(self.values[same], self.values[same + apart])
                total += np.bincount(self.unit[same], weights=found, minlength=len(self.sizes))
        return 2.0 * total

    def equal_pairs(self) -> Floats:
        """For each unit the number of ordered pairs of different judgments with the same label."""
        cells = len(self.sizes) * self.categories
        # Pair by pair while there are few judgments per task, else from a table of units by labels.
        if self.largest <= 6 or cells > 40 * max(len(self.values), 1):
            return self.pair_sums(np.equal)
        table = np.bincount(self.unit * np.int64(self.categories) + self.values, minlength=cells)
        counts = table.reshape(len(self.sizes), self.categories).astype(np.float64)
        return np.asarray(np.einsum("ij,ij->i", counts, counts) - self.sizes, dtype=np.float64)


class Coefficient(Protocol):
    """Something that can be computed with every unit counted some number of times."""

    @property
    def units(self) -> Units:
        """The tasks."""

    @property
    def exact(self) -> bool:
        """Whether ``left_out`` is exact, not only to first order."""

    @property
    def in_disagreement(self) -> Floats:
        """Each unit's disagreement, 0 where its judgments are all alike."""

    @property
    def of_one(self) -> float:
        """What one task in disagreement would add to ``disagreement``, where no task is."""

    def disagreement(self, weight: Floats | None = None) -> float:
        """1 minus the coefficient; NaN where it is undefined."""

    def left_out(self) -> Floats:
        """1 minus the coefficient without one task of each unit."""


@dataclass(frozen=True)
class Alpha:
    """Krippendorff's alpha for labels with a distance between any two of them.

    ``distance`` is None for nominal labels, else a symmetric matrix with a zero diagonal.
    """

    units: Units
    distance: Floats | None = None
    exact = True

    @cached_property
    def observed(self) -> Floats:
        """Each unit's disagreement: the distances of its ordered pairs over its size less one."""
        sizes = self.units.sizes
        if self.distance is None:
            return np.asarray(sizes - self.units.equal_pairs() / (sizes - 1.0), dtype=np.float64)
        distance = self.distance
        return self.units.pair_sums(lambda one, other: distance[one, other]) / (sizes - 1.0)

    @property
    def in_disagreement(self) -> Floats:
        """Each unit's disagreement."""
        return self.observed

    @property
    def of_one(self) -> float:
        """What one deviating judgment would add: two ordered pairs at the mean distance of different labels."""
        counts = self.units.counts
        n = counts.sum()
        return float(2.0 * (n - 1.0) / (n * n - counts @ counts))

    def _against(self, counts: Floats) -> Floats:
        found = counts.sum() - counts if self.distance is None else self.distance @ counts
        return np.asarray(found, dtype=np.float64)

    def disagreement(self, weight: Floats | None = None) -> float:
        """1 minus alpha."""
        heavy = self.units.weight if weight is None else weight
        counts = self.units.counts if weight is None else self.units.totals(weight)
        n = counts.sum()
        expected = float(counts @ self._against(counts))
        return float((n - 1.0) * (heavy @ self.observed) / expected) if expected > 0 else math.nan

    def left_out(self) -> Floats:
        """1 minus alpha without one task of each unit."""
        units, sizes = self.units, self.units.sizes
        counts = units.counts
        against = self._against(counts)
        n, expected, observed = counts.sum(), counts @ against, units.weight @ self.observed
        without = units.sums(against[units.values])
        without *= -2.0
        without += expected
        without += (sizes - 1.0) * self.observed
        found = observed - self.observed
        found *= n - sizes - 1.0
        if float(without.min(initial=1.0)) > 0:
            found /= without
            return found
        return _ratio(found, without)


@dataclass(frozen=True)
class NumberAlpha:
    """Krippendorff's alpha with squared differences: of numbers (interval), or of ranks (ordinal).

    ``ranked``: the values are label codes whose order counts, and the numbers are their mid-ranks among all
    judgments, which themselves change when a task is left out.
    """

    units: Units
    ranked: bool = False

    @property
    def exact(self) -> bool:
        """Ranks move only to first order."""
        return not self.ranked

    def _numbers(self, counts: Floats | None) -> Floats:
        if counts is None:
            values = np.asarray(self.units.values, dtype=np.float64)
            return np.asarray(values - values.mean(), dtype=np.float64) if len(values) else values
        ranks: Floats = np.cumsum(counts) - counts / 2.0
        # Centred: alpha does not change, and sums of squares stay exact.
        found: Floats = ranks[self.units.values]
        return np.asarray(found - found.mean(), dtype=np.float64)

    def _observed(self, x: Floats) -> Floats:
        sizes = self.units.sizes
        sums = self.units.sums(x)
        # Rounding must not turn equal values into a tiny negative disagreement.
        spread = np.maximum(sizes * self.units.sums(x * x) - sums * sums, 0.0)
        spread[spread < 1e-12 * sizes * sizes * float(np.max(x * x, initial=0.0))] = 0.0
        return 2.0 * spread / (sizes - 1.0)

    @cached_property
    def in_disagreement(self) -> Floats:
        """Each unit's disagreement."""
        return self._observed(self._numbers(self.units.counts if self.ranked else None))

    @property
    def of_one(self) -> float:
        """What one deviating judgment would add: two ordered pairs at the mean distance of two judgments."""
        return 2.0 / float(self.units.weight @ self.units.sizes)

    def disagreement(self, weight: Floats | None = None) -> float:
        """1 minus alpha."""
        units = self.units
        heavy = units.weight if weight is None else weight
        x = self._numbers(units.totals(heavy) if self.ranked else None)
        n = float(heavy @ units.sizes)
        first, second = float(heavy @ units.sums(x)), float(heavy @ units.sums(x * x))
        expected = 2.0 * (n * second - first * first)
        if expected <= 1e-12 * n * n * float(np.max(x * x, initial=0.0)):
            return math.nan
        return float((n - 1.0) * (heavy @ self._observed(x)) / expected)

    def left_out(self) -> Floats:
        """1 minus alpha without one task of each unit."""
        units, sizes = self.units, self.units.sizes
        counts = units.counts if self.ranked else None
        x = self._numbers(counts)
        observed = self._observed(x)
        own, own_squares = units.sums(x), units.sums(x * x)
        n, first, second = float(units.weight @ sizes), float(units.weight @ own), float(units.weight @ own_squares)
        total = float(units.weight @ observed)
        expected = 2.0 * ((n - sizes) * (second - own_squares) - (first - own) ** 2)
        found = _ratio((n - sizes - 1.0) * (total - observed), expected)
        if counts is None:
            return found
        # Ranks move, too: to first order, by what each judgment adds to the ranks above its own.
        each = units.weight[units.unit]
        pull = 4.0 * each / (sizes[units.unit] - 1.0) * (sizes[units.unit] * x - own[units.unit]) / max(total, 1e-300)
        pull -= 4.0 * each * (n * x - first) / (2.0 * (n * second - first * first))
        slope = np.bincount(units.values, weights=pull, minlength=units.categories)
        above = np.cumsum(slope[::-1])[::-1] - slope / 2.0
        return np.asarray(found * np.exp(-units.sums(above[units.values])), dtype=np.float64)


@dataclass(frozen=True)
class Chance:
    """Fleiss' kappa, Gwet's AC1 and AC2, and percent agreement, with any number of judgments per task.

    ``observed`` averages over the tasks with two judgments or more, label shares over all tasks (Gwet 2014).
    ``weights`` says how much credit a pair of labels gets (1 on the diagonal); None is the identity.
    """

    units: Units
    expected: Literal["percent", "fleiss", "gwet"]
    weights: Floats | None = None
    exact = True

    @cached_property
    def credit(self) -> Floats:
        """Each unit's share of agreeing ordered pairs; 0 for a unit of one judgment."""
        sizes = self.units.sizes
        if self.weights is None:
            pairs = self.units.equal_pairs()
        else:
            weights = self.weights
            pairs = self.units.pair_sums(lambda one, other: weights[one, other])
        return np.asarray(pairs / np.maximum(sizes * (sizes - 1.0), 1.0), dtype=np.float64)

    @cached_property
    def paired(self) -> Floats:
        """1 for each unit with two judgments or more."""
        return (self.units.sizes > 1).astype(np.float64)

    @cached_property
    def in_disagreement(self) -> Floats:
        """Each unit's share of pairs in disagreement."""
        return (1.0 - self.credit) * self.paired

    @property
    def of_one(self) -> float:
        """What one deviating judgment would add in a task of mean size."""
        heavy = self.units.weight * self.paired
        pairs = float(heavy.sum())
        shares = self.units.totals(None, 1.0 / self.units.sizes) / float(self.units.weight.sum())
        left = 1.0 - float(self._chance(float(shares @ self._form(shares))))
        return 2.0 * pairs / float(heavy @ self.units.sizes) / (pairs * left)

    def _chance(self, square: Any) -> Any:
        """The expected agreement, from the sum of squared (for weights: weighted products of) label shares."""
        if self.expected == "percent":
            return 0.0 * square
        if self.expected == "fleiss":
            return square
        q = self.units.categories
        total = float(q if self.weights is None else self.weights.sum())
        return total / (q * (q - 1.0)) * (1.0 - square)

    def _form(self, shares: Floats) -> Floats:
        # Gwet's chance agreement uses plain squares whatever the weights.
        return shares if self.weights is None or self.expected == "gwet" else self.weights @ shares

    def disagreement(self, weight: Floats | None = None) -> float:
        """1 minus the coefficient."""
        units = self.units
        heavy = units.weight if weight is None else weight
        pairs = float(heavy @ self.paired)
        if not pairs:
            return math.nan
        shares = units.totals(heavy, 1.0 / units.sizes) / float(heavy.sum())
        chance = float(self._chance(float(shares @ self._form(shares))))
        left = 1.0 - chance
        return (1.0 - float(heavy @ self.credit) / pairs) / left if left > 1e-12 else math.nan

    def left_out(self) -> Floats:
        """1 minus the coefficient without one task of each unit."""
        units, sizes = self.units, self.units.sizes
        n, pairs = units.weight.sum(), units.weight @ self.paired
        found = 1.0 - _ratio(units.weight @ self.credit - self.credit, pairs - self.paired)
        if self.expected == "percent":
            return np.asarray(found, dtype=np.float64)
        shares = units.totals(None, 1.0 / sizes)
        form = self._form(shares)
        cross = units.sums(form[units.values]) / sizes
        if self.weights is None or self.expected == "gwet":
            same = self.credit if self.weights is None else _equal_share(units)
            own = (same * (sizes - 1.0) + 1.0) / sizes
        else:
            own = (self.credit * (sizes - 1.0) + 1.0) / sizes
        square = (float(shares @ form) - 2.0 * cross + own) / (n - 1.0) ** 2
        return _ratio(found, 1.0 - self._chance(square))


def _equal_share(units: Units) -> Floats:
    return np.asarray(units.equal_pairs() / np.maximum(units.sizes * (units.sizes - 1.0), 1.0), dtype=np.float64)


def _ratio(above: Any, below: Any) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(np.asarray(below) > 1e-300, above / below, np.nan), dtype=np.float64)


def estimate(
    coefficient: Coefficient,
    *,
    interval: Interval = "analytic",
    repetitions: int = 1000,
    seed: int = 0,
    labels: bool = True,
    reason: str = "",
) -> Estimate:
    """A coefficient with its 95% interval over tasks, or with the reason why there is none.

    Args:
        coefficient: what to estimate.
        interval: ``analytic`` (see :func:`jackknife_interval`) or ``bootstrap`` (percentiles over tasks).
        repetitions: samples of the bootstrap.
        seed: seed of the bootstrap.
        labels: whether the values are labels, of which one may be too rare.
        reason: what to say where the coefficient is undefined.
    """
    check_choice("interval", interval, ("analytic", "bootstrap"))
    check_whole("repetitions", repetitions, 1)
    check_whole("seed", seed, 0)
    units = coefficient.units
    tasks, judgments = units.tasks, units.judgments
    found = coefficient.disagreement()
    if math.isnan(found):
        return unknown(reason, tasks, judgments)
    value = 1.0 - found
    too_little = _too_little(units, labels)
    if too_little:
        return Estimate(value, math.nan, math.nan, tasks, judgments, too_little)
    if interval == "bootstrap":
        low, high = bootstrap_interval(coefficient, repetitions, seed)
        return Estimate(value, min(low, value), max(high, value), tasks, judgments)
    low, high, freedom = jackknife_interval(found, coefficient.left_out(), units.weight, exact=coefficient.exact)
    low, high = min(low, value), max(high, value)
    disagreeing = round(float(units.weight @ (coefficient.in_disagreement > 0)))
    if disagreeing < FEW:
        fewest, most = _few_interval(coefficient, found, disagreeing, tasks)
        low, high = min(low, fewest), max(high, most)
    elif freedom < NEEDED_FREEDOM:
        return Estimate(value, math.nan, math.nan, tasks, judgments, _decided_by_few(tasks, freedom))
    return Estimate(value, low, high, tasks, judgments)


def _too_little(units: Units, labels: bool) -> str:
    tasks = units.tasks
    if tasks < NEEDED_TASKS:
        many = "1 task" if tasks == 1 else f"{tasks} tasks"
        return f"Too little data for an interval: {many}, where at least {NEEDED_TASKS} are needed."
    if not labels:
        return ""
    top = int(units.counts.argmax())
    others = 2.0 * units.sums(units.values != top) > units.sizes
    minority = round(float(units.weight @ others))
    if minority < NEEDED_MINORITY:
        return (
            f"Too little data for an interval: only {minority} of {tasks} tasks have mostly other labels than the "
            f"most frequent one, where at least {NEEDED_MINORITY} are needed."
        )
    return ""


def _decided_by_few(tasks: int, freedom: float) -> str:
    return (
        f"Too little data for an interval: a handful of the {tasks} tasks decides how uncertain the value is "
        f"({freedom:.1f} degrees of freedom, where at least {NEEDED_FREEDOM:g} are needed)."
    )


def _few_interval(coefficient: Coefficient, found: float, disagreeing: int, tasks: int) -> tuple[float, float]:
    """Jeffreys' interval of the share of tasks in disagreement, carried over to the coefficient."""
    share = stats.beta(disagreeing + 0.5, tasks - disagreeing + 0.5)
    fewest, most = float(share.ppf(0.025)), float(share.ppf(0.975))
    if not disagreeing:
        return 1.0 - most * tasks * coefficient.of_one, 1.0
    scale = found * tasks / disagreeing
    return 1.0 - most * scale, 1.0 - fewest * scale


def jackknife_interval(
    disagreement: float, left_out: Floats, weight: Floats, *, exact: bool = True
) -> tuple[float, float, float]:
    """A 95% interval of ``1 - disagreement`` from the jackknife over tasks.

    Bias and standard error are the jackknife's (Quenouille 1956, Efron and Stein 1981). Where few tasks bear a rare
    label, they decide the standard error, which is then itself uncertain and goes along with the value. So the
    quantile is Student's with the degrees of freedom of a variance whose parts have heavy tails (Satterthwaite 1946,
    from their kurtosis), and the interval is shifted for their skewness (Johnson 1978).

    Args:
        disagreement: 1 minus the coefficient.
        left_out: the same without one task of each unit; NaN where it is undefined.
        weight: the tasks that each unit stands for.
        exact: whether ``left_out`` is exact, without which it tells nothing about bias.

    Returns:
        The lower and upper end, at most 1, and the degrees of freedom.
    """
    n = float(weight.sum())
    value = 1.0 - disagreement
    off = left_out - disagreement
    total = _total(weight, off)
    if math.isnan(total):
        exact = False
        off[np.isnan(off)] = 0.0
        total = _total(weight, off)
    mean = total / n
    off -= mean
    squared = off * off
    squares = _total(weight, squared)
    if squares <= 0:
        return value, value, math.inf
    off *= squared
    cubes = _total(weight, off)
    squared *= squared
    low, high, freedom = ends(disagreement, n, mean if exact else 0.0, squares, cubes, _total(weight, squared))
    return float(low), float(high), float(freedom)


def _total(weight: Floats, x: Floats) -> float:
    """The weighted sum; not by BLAS, whose threads cost more than they save on sums as short as these."""
    return float(np.einsum("i,i->", weight, x))


def ends(value: Any, n: Any, mean: Any, squares: Any, cubes: Any, fourth: Any) -> tuple[Any, Any, Any]:
    """The interval of 1 minus a jackknifed disagreement, from sums over tasks; for numbers or arrays of them.

    Args:
        value: the disagreement.
        n: the number of tasks.
        mean: the mean of what leaving out a task changes; 0 where it is not to count as bias.
        squares: the sum of the squares of these changes around their mean.
        cubes: the sum of their cubes.
        fourth: the sum of their fourth powers.

    Returns:
        The lower and upper end, at most 1, and the degrees of freedom.
    """
    kurtosis = n * fourth / squares**2
    freedom = np.clip(2.0 * n / np.maximum(kurtosis - 1.0, 1e-9), 1.0, np.maximum(n - 1.0, 1.0))
    error = np.sqrt((n - 1.0) / n * squares)
    # Leaving out a task changes the value against its influence, hence the sign.
    skewness = -cubes / squares**1.5
    shift = np.clip(skewness * (2.0 * _NORMAL**2 + 1.0) / 6.0, -_FARTHEST, _FARTHEST) * error
    centre = value - (n - 1.0) * mean + shift
    half = stats.t.ppf(0.975, freedom) * error
    return 1.0 - centre - half, np.minimum(1.0 - centre + half, 1.0), freedom


_NORMAL = 1.959964
_FARTHEST = 0.6
"""The largest shift, in standard errors: beyond it the skewness itself is a guess."""


def bootstrap_interval(coefficient: Coefficient, repetitions: int, seed: int) -> tuple[float, float]:
    """The percentile interval over tasks drawn with replacement."""
    rng = np.random.default_rng(seed)
    weight = coefficient.units.weight
    tasks = coefficient.units.tasks
    found = [
        coefficient.disagreement(rng.multinomial(tasks, weight / weight.sum()).astype(np.float64))
        for _ in range(repetitions)
    ]
    low, high = np.nanpercentile(1.0 - np.array(found), [2.5, 97.5])
    return float(low), float(high)
