"""How well annotators agree, beyond chance where that can be said, and how sure that is.

Every function takes a frame of judgments (see :mod:`labelguard_analytics.frames`) in which any judgment may be
missing, and gives an :class:`~labelguard_analytics.Estimate`. Where somebody judged a task several times, the latest
by ``at`` counts; without ``at`` say which one does, as ``drop_duplicates(["task", "annotator"], keep="last")`` would.

**What the intervals mean.** They are over tasks: had other tasks of the same kind been judged **by the same
annotators**, the value would lie in the interval in 95 of 100 cases. The annotators count as fixed, so nothing is
said about other annotators. Intervals come from the jackknife over tasks, corrected for bias, heavy tails and
skewness (:func:`labelguard_analytics.units.jackknife_interval`) and are checked by simulation to cover in 93 to 97% of
cases where at least 200 tasks have a second most frequent label of at least 5%. Below 100 tasks, or where nearly
all tasks have the same label, no method keeps such a promise, and the estimate says "too little data" instead.
``interval="bootstrap"`` gives the percentile bootstrap over tasks.

**Which coefficient.** Percent agreement ignores chance. Cohen's kappa compares two annotators with their own
habits; Fleiss' kappa and Krippendorff's alpha treat annotators alike; alpha alone knows ranks, numbers, sets and
regions. Kappa and alpha are small where one label is nearly always right, however good the annotators are: there
Gwet's AC1 is a second opinion.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from labelguard_analytics.estimate import Estimate, unknown
from labelguard_analytics.frames import BadJudgments, Coded, Codes, Floats, Kind, read, row_of, shown
from labelguard_analytics.options import short
from labelguard_analytics.similarities import TAGS, BadResult, set_similarity, similarity
from labelguard_analytics.units import (
    FEW,
    NEEDED_FREEDOM,
    NEEDED_MINORITY,
    NEEDED_TASKS,
    Alpha,
    Chance,
    Interval,
    NumberAlpha,
    Units,
    ends,
    estimate,
)

Weights: TypeAlias = Literal["linear", "quadratic"] | npt.ArrayLike | None
Metric: TypeAlias = str | Callable[[Any, Any], float]

SET_METRICS = ("jaccard", "masi", "f1")
NUMBER_METRICS = ("interval", "ratio")
_SHARED = 50
"""The mean kappa of many pairs needs so many shared tasks of a typical pair, or the kappas themselves are guesses."""
_MATRIX = 3000
"""Up to so many distinct values, the distances of all pairs are kept."""


def percent_agreement(
    judgments: pd.DataFrame | Coded, *, interval: Interval = "analytic", repetitions: int = 1000, seed: int = 0
) -> Estimate:
    """The share of agreeing pairs of judgments of a task, averaged over tasks with two judgments or more.

    Not corrected for chance: two annotators who guess between two labels agree in half of the cases.

    >>> frame = pd.DataFrame({"task": [1, 1, 2, 2], "annotator": [1, 2, 1, 2], "value": list("aaab")})
    >>> percent_agreement(frame).value
    0.5

    Args:
        judgments: one label for each judgment; n judgments of t tasks.
        interval: ``analytic`` or ``bootstrap``, both over tasks.
        repetitions: samples of the bootstrap.
        seed: seed of the bootstrap.

    Returns:
        A value from 0 to 1.

    Raises:
        BadJudgments: the frame is not what it must be.
    """
    return _chance(read(judgments), "percent", None, interval, repetitions, seed)


def fleiss_kappa(
    judgments: pd.DataFrame | Coded,
    *,
    weights: Weights = None,
    interval: Interval = "analytic",
    repetitions: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Fleiss' kappa (Fleiss 1971) for any number of annotators, who need not be the same for each task.

    Where tasks have different numbers of judgments, agreement is averaged over tasks with two or more, and label
    shares over all tasks (Gwet 2014, "Handbook of Inter-Rater Reliability", section 2.5), which is Fleiss' own
    definition where the numbers are equal.

    >>> frame = pd.DataFrame({"task": [1, 1, 2, 2, 3, 3], "annotator": [1, 2] * 3, "value": list("aabbab")})
    >>> round(fleiss_kappa(frame).value, 3)
    0.333

    Args:
        judgments: one label for each judgment.
        weights: credit for pairs of different labels: ``linear`` or ``quadratic`` in the distance of ordered
            labels, or a symmetric matrix (labels x labels) with 1 on the diagonal; None gives none.
        interval: ``analytic`` or ``bootstrap``, both over tasks.
        repetitions: samples of the bootstrap.
        seed: seed of the bootstrap.

    Returns:
        1 for full agreement, 0 for what chance gives, below 0 for less.

    Raises:
        BadJudgments: the frame is not what it must be, or weights are asked for labels without an order.
    """
    coded = read(judgments)
    return _chance(
        coded, "fleiss", credit(coded.categories, weights, ordered=coded.ordered), interval, repetitions, seed
    )


def gwet_ac1(
    judgments: pd.DataFrame | Coded,
    *,
    interval: Interval = "analytic",
    repetitions: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Gwet's AC1 (Gwet 2008), which stays high where nearly all tasks rightly have the same label.

    Chance agreement grows with the number of labels, so labels that nobody used count if a categorical column
    names them.

    >>> frame = pd.DataFrame({"task": [1, 1, 2, 2, 3, 3], "annotator": [1, 2] * 3, "value": list("aaaaab")})
    >>> round(gwet_ac1(frame).value, 3), round(fleiss_kappa(frame).value, 3)
    (0.538, -0.2)

    Args:
        judgments: one label for each judgment; any may be missing.
        interval: ``analytic`` or ``bootstrap``, both over tasks.
        repetitions: samples of the bootstrap.
        seed: seed of the bootstrap.

    Returns:
        1 for full agreement, 0 for what chance gives, below 0 for less.

    Raises:
        BadJudgments: the frame is not what it must be.
    """
    return _chance(read(judgments), "gwet", None, interval, repetitions, seed)


def gwet_ac2(
    judgments: pd.DataFrame | Coded,
    *,
    weights: Weights = "quadratic",
    interval: Interval = "analytic",
    repetitions: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Gwet's AC2: AC1 with credit for labels that are close (Gwet 2014, chapter 4).

    >>> frame = pd.DataFrame({"task": [1, 1, 2, 2, 3, 3], "annotator": [1, 2] * 3, "value": [1, 1, 2, 3, 5, 5]})
    >>> round(gwet_ac2(frame).value, 3)
    0.931

    Args:
        judgments: one label for each judgment, numbers or an ordered categorical column.
        weights: ``linear``, ``quadratic`` or a symmetric matrix (labels x labels) with 1 on the diagonal.
        interval: ``analytic`` or ``bootstrap``, both over tasks.
        repetitions: samples of the bootstrap.
        seed: seed of the bootstrap.

    Returns:
        1 for full agreement, 0 for what chance gives, below 0 for less.

    Raises:
        BadJudgments: the frame is not what it must be, or its labels have no order.
    """
    coded = read(judgments)
    return _chance(coded, "gwet", credit(coded.categories, weights, ordered=coded.ordered), interval, repetitions, seed)


def _chance(
    coded: Coded,
    expected: Literal["percent", "fleiss", "gwet"],
    weights: Floats | None,
    interval: Interval,
    repetitions: int,
    seed: int,
) -> Estimate:
    return chance_estimate(Units.of(coded), expected, weights, interval, repetitions, seed)


def chance_estimate(
    units: Units,
    expected: Literal["percent", "fleiss", "gwet"],
    weights: Floats | None = None,
    interval: Interval = "analytic",
    repetitions: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Percent agreement, Fleiss' kappa or Gwet's AC of units; what the functions above do with a frame."""
    why = nothing_to_compare(units)
    if why:
        return unknown(why, units.tasks, units.judgments)
    if expected == "gwet" and units.categories < 2:
        return unknown(ONE_LABEL, units.tasks, units.judgments)
    return estimate(
        Chance(units, expected, weights),
        interval=interval,
        repetitions=repetitions,
        seed=seed,
        labels=expected != "percent",
        reason=ONE_LABEL,
    )


ONE_LABEL = "Every judgment is the same, so agreement cannot be told from chance."


def nothing_to_compare(units: Units) -> str:
    """Why there is nothing to compare, as a sentence; empty where there is something."""
    if units.largest < 2:
        return "No task was judged by two annotators, so there is nothing to compare."
    return ""


def credit(categories: pd.Index[Any], weights: Weights, *, ordered: bool) -> Floats | None:
    """Weights as a matrix of labels x labels; None for none."""
    if weights is None:
        return None
    size = len(categories)
    if not isinstance(weights, str):
        try:
            matrix = np.asarray(weights, dtype=np.float64)
        except (TypeError, ValueError):
            matrix = np.empty(0)
        if matrix.shape != (size, size) or not np.allclose(matrix, matrix.T) or not np.allclose(np.diag(matrix), 1.0):
            raise ValueError(
                f"weights must be a symmetric matrix of {size} x {size} with 1 on its diagonal, one row for each label."
            )
        return matrix
    if weights not in ("linear", "quadratic"):
        raise ValueError(f"weights must be 'linear', 'quadratic' or a matrix, but they are {short(weights)}.")
    check_ordered(categories, ordered=ordered, what=f"{weights} weights")
    # Labels that are numbers lie as far apart as the numbers do, others one step each.
    numeric = categories.dtype.kind in "iuf"
    place = categories.to_numpy(dtype=np.float64) if numeric else np.arange(size, dtype=np.float64)
    widest = float(np.ptp(place)) if size > 1 else 1.0
    apart = np.abs(place[:, None] - place[None, :]) / widest
    return np.asarray(1.0 - (apart if weights == "linear" else apart**2), dtype=np.float64)


def check_ordered(categories: pd.Index[Any], *, ordered: bool, what: str) -> None:
    """Refuse labels without an order, unless there are too few for it to matter.

    Raises:
        BadJudgments: the labels have none.
    """
    if not ordered and len(categories) > 2:
        raise BadJudgments(
            f"The column 'value' holds labels without an order, such as {shown(categories[0])}, but {what} need one; "
            "make it an ordered categorical column or numbers."
        )


def krippendorff_alpha(
    judgments: pd.DataFrame | Coded,
    metric: Metric = "nominal",
    *,
    interval: Interval = "analytic",
    repetitions: int = 1000,
    seed: int = 0,
    **options: Any,
) -> Estimate:
    """Krippendorff's alpha: 1 minus the observed disagreement over the one expected by chance.

    Any judgment may be missing; tasks with one judgment do not count (Krippendorff 2011, "Computing
    Krippendorff's Alpha-Reliability"). The disagreement of two values is, by ``metric``:

    - ``nominal``: 1 if they differ; ``ordinal``: the squared difference of their mid-ranks; ``interval``:
      ``(a - b)**2``; ``ratio``: ``((a - b) / (a + b))**2``;
    - ``jaccard``, ``masi`` (Passonneau 2006), ``f1``: 1 minus that similarity of two sets of labels;
    - a Label Studio tag such as ``RectangleLabels``: 1 minus :func:`~labelguard_analytics.similarities` of two lists
      of result items; ``options`` go there;
    - a function of two values: 1 minus the similarity from 0 to 1 that it returns.

    For tags and functions the expected disagreement is the mean over seeded random pairs of judgments of different
    tasks, within the same ``source`` where the frame has that column, so that boxes on one kind of picture are not
    compared with boxes on another.

    >>> frame = pd.DataFrame({"task": [1, 1, 2, 2, 3, 3], "annotator": [1, 2] * 3, "value": list("aabbab")})
    >>> print(krippendorff_alpha(frame))
    0.444 (3 tasks, 6 judgments). Too little data for an interval: 3 tasks, where at least 100 are needed.

    Args:
        judgments: one value for each judgment; n judgments of t tasks.
        metric: what two values disagree by.
        interval: ``analytic`` or ``bootstrap``, both over tasks and for fixed annotators.
        repetitions: samples of the bootstrap.
        seed: seed of the bootstrap and of the random pairs.
        options: for a tag, what :func:`~labelguard_analytics.similarities` takes.

    Returns:
        1 for full agreement, 0 for what chance gives, below 0 for less.

    Raises:
        BadJudgments: the frame is not what it must be, or its values do not fit the metric.
        ValueError: there is no such metric.
    """
    if not callable(metric) and not isinstance(metric, str):
        raise TypeError(f"The metric must be a name, a function or a Label Studio tag, but it is {short(metric)}.")
    if callable(metric):
        return _similarity_alpha(read(judgments, kind="any"), metric, interval, repetitions, seed)
    if metric in TAGS:
        coded = read(judgments, kind="result")
        compare = _of_tag(metric, options)
        try:
            return _similarity_alpha(coded, compare, interval, repetitions, seed)
        except BadResult as bad:
            raise _in_row(coded, compare, bad) from None
    if options:
        raise TypeError(f"The metric {metric!r} takes no option {next(iter(options))!r}.")
    if metric in SET_METRICS:
        return _set_alpha(read(judgments, kind="set"), metric, interval, repetitions, seed)
    if metric in NUMBER_METRICS:
        coded = read(judgments, kind="number") if _has_numbers(judgments) else read(judgments)
        return _number_alpha(coded, metric, interval, repetitions, seed)
    if metric not in ("nominal", "ordinal"):
        known = ["nominal", "ordinal", *NUMBER_METRICS, *SET_METRICS]
        raise ValueError(
            f"There is no metric {metric!r}: it must be one of {', '.join(known)}, a function, or a Label Studio tag "
            f"({', '.join(sorted(TAGS))})."
        )
    coded = read(judgments)
    if metric == "ordinal":
        check_ordered(coded.categories, ordered=coded.ordered, what="ranks")
    return alpha_estimate(Units.of(coded, 2), metric, None, interval, repetitions, seed)


def alpha_estimate(
    units: Units,
    metric: str,
    distance: Floats | None = None,
    interval: Interval = "analytic",
    repetitions: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Krippendorff's alpha of units of two judgments or more; what :func:`krippendorff_alpha` does with a frame.

    ``distance`` is the matrix of a metric between labels, None for ``nominal``, ``ordinal`` and ``interval``.
    """
    why = nothing_to_compare(units)
    if why:
        return unknown(why, units.tasks, units.judgments)
    coefficient = (
        NumberAlpha(units, ranked=metric == "ordinal") if metric in ("ordinal", "interval") else Alpha(units, distance)
    )
    return estimate(
        coefficient,
        interval=interval,
        repetitions=repetitions,
        seed=seed,
        labels=metric in ("nominal", "ordinal"),
        reason=ONE_LABEL,
    )


def _has_numbers(judgments: Any) -> bool:
    return not isinstance(judgments, Coded) or judgments.kind == "number"


def _number_alpha(coded: Coded, metric: str, interval: Interval, repetitions: int, seed: int) -> Estimate:
    units = Units.of(coded, 2)
    if coded.kind == "nominal":
        units = Units(category_numbers(coded.categories)[units.values], units.unit, units.sizes, units.weight, 0)
    if metric == "interval":
        return alpha_estimate(units, metric, None, interval, repetitions, seed)
    values, codes = np.unique(units.values, return_inverse=True)
    if len(values) and float(values[0]) < 0:
        where = int(np.flatnonzero(np.asarray(coded.frame["value"], dtype=np.float64) < 0)[0])
        raise BadJudgments(
            f"The column 'value' is negative in row {row_of(coded.frame, where)}, where the ratio metric needs "
            "numbers from 0."
        )
    units = Units(codes.astype(np.int32), units.unit, units.sizes, units.weight, len(values))
    if len(values) > 4 * _MATRIX:
        raise ValueError(
            f"The ratio metric compares every two of {len(values):,} different values; round them to at most "
            f"{4 * _MATRIX:,}, or use the interval metric on their logarithms."
        )
    return alpha_estimate(units, metric, ratio_distance(values), interval, repetitions, seed)


def category_numbers(categories: pd.Index[Any]) -> Floats:
    """The labels as numbers.

    Raises:
        BadJudgments: they are no numbers.
    """
    if categories.dtype.kind not in "iuf":
        raise BadJudgments("The column 'value' must hold numbers for this metric.")
    return categories.to_numpy(dtype=np.float64)


def ratio_distance(values: Floats) -> Floats:
    """The ratio metric between any two numbers from 0."""
    total = values[:, None] + values[None, :]
    apart = values[:, None] - values[None, :]
    return np.asarray((apart / np.where(total > 0, total, 1.0)) ** 2, dtype=np.float64)


def _of_tag(tag: str, options: dict[str, Any]) -> Callable[[Any, Any], float]:
    def compare(one: Any, other: Any) -> float:
        return similarity(tag, one, other, **options)

    return compare


def _in_row(coded: Coded, compare: Callable[[Any, Any], float], bad: BadResult) -> BadJudgments:
    """What is wrong with a result, and in which row it is."""
    for row, value in zip(coded.frame.index, coded.value, strict=True):
        try:
            compare(value, value)
        except BadResult as own:
            return BadJudgments(f"The column 'value' cannot be compared in row {shown(row)}: {own}")
    return BadJudgments(f"The column 'value' holds results that cannot be compared: {bad}")


def _set_alpha(coded: Coded, metric: str, interval: Interval, repetitions: int, seed: int) -> Estimate:
    units = Units.of(coded, 2)
    members = coded.membership()
    units = Units(units.values, units.unit, units.sizes, units.weight, len(members))
    if len(members) <= _MATRIX:
        distance = (
            1.0 - set_similarity(members[:, None, :], members[None, :, :], metric)
            if len(members) < 200
            else (np.stack([1.0 - set_similarity(row[None, :], members, metric) for row in members]))
        )
        return alpha_estimate(units, metric, distance, interval, repetitions, seed)

    def score(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> Floats:
        return np.concatenate(
            [
                set_similarity(members[one[part]], members[other[part]], metric)
                for part in np.array_split(np.arange(len(one)), max(1, len(one) // 100_000))
            ]
        )

    return _sampled(units, score, coded, interval, repetitions, seed)


def _similarity_alpha(
    coded: Coded, compare: Callable[[Any, Any], float], interval: Interval, repetitions: int, seed: int
) -> Estimate:
    def score(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> Floats:
        found = np.array([float(compare(a, b)) for a, b in zip(one, other, strict=True)], dtype=np.float64)
        outside = ~((found >= 0) & (found <= 1))  # also NaN
        if outside.any():
            raise ValueError(f"A similarity must lie from 0 to 1, but the metric returned {shown(found[outside][0])}.")
        return found

    return _sampled(Units.of(coded, 2), score, coded, interval, repetitions, seed)


def _sampled(
    units: Units,
    score: Callable[[npt.NDArray[Any], npt.NDArray[Any]], Floats],
    coded: Coded,
    interval: Interval,
    repetitions: int,
    seed: int,
) -> Estimate:
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


def agreement_by_task(judgments: pd.DataFrame | Coded, metric: Metric = "nominal", **options: Any) -> pd.DataFrame:
    """How well the annotators of each task agree: which tasks are hard or ambiguous.

    >>> frame = pd.DataFrame({"task": [1, 1, 2, 2, 3], "annotator": [1, 2, 1, 2, 1], "value": list("aaaba")})
    >>> agreement_by_task(frame)[["agreement", "n_judgments"]].to_dict("index")
    {1: {'agreement': 1.0, 'n_judgments': 2}, 2: {'agreement': 0.0, 'n_judgments': 2}}

    Args:
        judgments: one value for each judgment.
        metric: ``nominal``, a set metric, a tag or a function as for :func:`krippendorff_alpha`.
        options: for a tag, what :func:`~labelguard_analytics.similarities` takes.

    Returns:
        A row for each task with two judgments or more, in the order of the tasks: ``agreement`` (the mean
        similarity of its pairs, 0 to 1), ``low`` and ``high`` (Jeffreys' 95% interval for another set of annotators,
        counting only pairs that share nobody, so wide for few judgments) and ``n_judgments``.

    Raises:
        BadJudgments: the frame is not what it must be.
        ValueError: the metric cannot compare two values by themselves.
    """
    kind, compare = _pair_score(metric, options)
    coded = read(judgments, kind=kind)
    units = Units.of(coded, 2)
    tasks = coded.tasks[coded.sizes >= 2]
    if kind == "set":
        members = coded.membership()
        name = str(metric)

        def score(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> Floats:
            return set_similarity(members[one], members[other], name)

        total = units.pair_sums(score)
    elif compare is None:
        total = units.equal_pairs()
    else:
        function = compare
        total = units.pair_sums(lambda a, b: np.array([float(function(x, y)) for x, y in zip(a, b, strict=True)]))
    agreement = total / np.maximum(units.sizes * (units.sizes - 1.0), 1.0)
    trials = units.sizes // 2
    share = stats.beta(agreement * trials + 0.5, (1.0 - agreement) * trials + 0.5)
    return pd.DataFrame(
        {
            "agreement": agreement,
            "low": np.minimum(share.ppf(0.025), agreement),
            "high": np.maximum(share.ppf(0.975), agreement),
            "n_judgments": units.sizes,
        },
        index=pd.Index(tasks, name="task"),
    )


def _pair_score(metric: Metric, options: dict[str, Any]) -> tuple[Kind, Callable[[Any, Any], float] | None]:
    if not callable(metric) and not isinstance(metric, str):
        raise TypeError(f"The metric must be a name, a function or a Label Studio tag, but it is {short(metric)}.")
    if callable(metric):
        return "any", metric
    if metric in TAGS:
        return "result", _of_tag(metric, options)
    if metric in SET_METRICS:
        return "set", None
    if metric == "nominal":
        return "nominal", None
    raise ValueError(f"The metric {metric!r} has no similarity of two values; use 'nominal', a set metric or a tag.")


def agreement_by_label(
    judgments: pd.DataFrame | Coded,
    *,
    interval: Interval = "analytic",
    repetitions: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Krippendorff's alpha of each label against all others: which labels are understood alike.

    Values may be single labels or lists of labels.

    >>> frame = pd.DataFrame({"task": [1, 1, 2, 2, 3, 3], "annotator": [1, 2] * 3, "value": list("aabbbc")})
    >>> agreement_by_label(frame)["value"].round(2).to_dict()
    {'a': 1.0, 'b': 0.44, 'c': 0.0}

    Args:
        judgments: one label, or a list of labels, for each judgment.
        interval: ``analytic`` or ``bootstrap``, both over tasks.
        repetitions: samples of the bootstrap.
        seed: seed of the bootstrap.

    Returns:
        A row for each label: ``value``, ``low``, ``high``, ``n_tasks``, ``n_judgments``, ``used`` (judgments with
        the label) and ``reason`` as in :class:`~labelguard_analytics.Estimate`.

    Raises:
        BadJudgments: the frame is not what it must be.
    """
    coded = judgments if isinstance(judgments, Coded) else read(judgments, kind=_labels_or_sets(judgments))
    units = Units.of(coded, 2)
    table = coded.membership().T if coded.kind == "set" else np.eye(len(coded.categories), dtype=bool)
    rows = []
    for has in table:
        binary = Units(has[units.values].astype(np.int32), units.unit, units.sizes, units.weight, 2)
        found = alpha_estimate(binary, "nominal", None, interval, repetitions, seed)
        rows.append((*_row(found), int(binary.values.sum())))
    frame = pd.DataFrame(rows, index=pd.Index(coded.categories, name="label"), columns=[*_COLUMNS, "used"])
    return frame[["value", "low", "high", "n_tasks", "n_judgments", "used", "reason"]]


_COLUMNS = ["value", "low", "high", "n_tasks", "n_judgments", "reason"]


def _row(found: Estimate) -> tuple[Any, ...]:
    return found.value, found.low, found.high, found.n_tasks, found.n_judgments, found.reason


def _labels_or_sets(judgments: Any) -> Kind:
    """What the first value is; a frame that cannot be read is left for the reader to refuse."""
    if isinstance(judgments, pd.DataFrame) and list(judgments.columns).count("value") == 1:
        first = next(iter(judgments["value"]), None)
        if isinstance(first, (list, tuple, set, frozenset)):
            return "set"
    return "nominal"


@dataclass(frozen=True)
class Pairwise:
    """Agreement of every two annotators who share a task.

    The tables have a row and a column for each annotator. A number is NaN on the diagonal, for two who share no task
    (``n_tasks`` is 0), and where ``pairs`` has a reason.
    """

    kappa: pd.DataFrame
    """Cohen's kappa."""
    low: pd.DataFrame
    """Lower end of its 95% interval over the shared tasks."""
    high: pd.DataFrame
    """Upper end of its 95% interval."""
    percent: pd.DataFrame
    """The share of shared tasks with the same label."""
    n_tasks: pd.DataFrame
    """Tasks that both judged."""
    pairs: pd.DataFrame
    """The same as one row for each pair that shares a task, with ``a``, ``b``, ``n_tasks``, ``percent``, ``kappa``,
    ``low``, ``high`` and ``reason`` (why a number is missing; empty where none is)."""


def pairwise_agreement(judgments: pd.DataFrame | Coded, *, weights: Weights = None) -> Pairwise:
    """Percent agreement and Cohen's kappa of every two annotators, over the tasks that both judged.

    The interval is analytic, for fixed annotators, over tasks (the jackknife). A pair that shares fewer than 100 tasks
    gets none, and the reason.

    >>> frame = pd.DataFrame({"task": [1, 1, 2, 2, 3, 3], "annotator": [1, 2] * 3, "value": list("aabbab")})
    >>> found = pairwise_agreement(frame)
    >>> round(float(found.kappa.loc[1, 2]), 2), int(found.n_tasks.loc[1, 2])
    (0.4, 3)

    Args:
        judgments: one label for each judgment, of a annotators.
        weights: as for :func:`cohen_kappa`.

    Returns:
        Tables of a x a, and the pairs as rows.

    Raises:
        BadJudgments: the frame is not what it must be.
    """
    coded = read(judgments)
    return pairwise_of(
        pair_cells(coded), coded.annotators, coded.categories, credit(coded.categories, weights, ordered=coded.ordered)
    )


@dataclass(frozen=True)
class PairCells:
    """How often annotators a and b (a < b) gave labels k and l to the same task; entries that are 0 are left out."""

    a: Codes
    b: Codes
    k: Codes
    l: Codes  # noqa: E741 - the second label
    count: Floats


def pair_cells(coded: Coded) -> PairCells:
    """The common tables of every two annotators, over all tasks."""
    annotators, labels = max(len(coded.annotators), 1), max(len(coded.categories), 1)
    task, value = coded.in_order
    who = coded.annotator if coded.order is None else coded.annotator[coded.order]
    cells = (annotators * labels) ** 2
    judged = who.astype(np.int64) * labels + value
    dense = cells <= 64 * max(coded.n, 10_000)
    total = np.zeros(cells if dense else 0, dtype=np.int64)
    keys = []
    largest = int(coded.sizes.max()) if coded.n else 0
    for apart in range(1, largest):
        same = task[apart:] == task[:-apart]
        one, other = judged[:-apart][same], judged[apart:][same]
        first, second = np.minimum(one, other), np.maximum(one, other)
        key = first * (annotators * labels) + second
        if dense:
            total += np.bincount(key, minlength=cells)
        else:
            keys.append(key)
    if dense:
        found = np.flatnonzero(total)
        count = total[found]
    else:
        found, count = np.unique(np.concatenate(keys) if keys else np.zeros(0, dtype=np.int64), return_counts=True)
    return cells_of(found, count.astype(np.float64), annotators, labels)


def cells_of(key: npt.NDArray[np.int64], count: Floats, annotators: int, labels: int) -> PairCells:
    """Cells from their combined keys ``(a * labels + k) * annotators * labels + b * labels + l``."""
    first, second = np.divmod(key, annotators * labels)
    (a, k), (b, other) = np.divmod(first, labels), np.divmod(second, labels)
    return PairCells(a.astype(np.int32), b.astype(np.int32), k.astype(np.int32), other.astype(np.int32), count)


def pairwise_of(
    cells: PairCells, annotators: pd.Index[Any], categories: pd.Index[Any], weights: Floats | None
) -> Pairwise:
    """Kappas of every two annotators from their common tables."""
    found = _kappas(cells, len(annotators), len(categories), weights)
    size = len(annotators)
    index = pd.Index(annotators, name="annotator")

    def table(values: npt.NDArray[Any], fill: float) -> pd.DataFrame:
        square = np.full((size, size), fill, dtype=values.dtype)
        square[found.a, found.b] = square[found.b, found.a] = values
        return pd.DataFrame(square, index=index, columns=index)

    pairs = pd.DataFrame(
        {
            "a": annotators.take(found.a),
            "b": annotators.take(found.b),
            "n_tasks": found.n.astype(np.int64),
            "percent": found.percent,
            "kappa": found.kappa,
            "low": found.low,
            "high": found.high,
            "reason": found.reasons,
        }
    )
    return Pairwise(
        table(found.kappa, math.nan),
        table(found.low, math.nan),
        table(found.high, math.nan),
        table(found.percent, math.nan),
        table(found.n.astype(np.int64), 0),
        pairs,
    )


@dataclass(frozen=True)
class _Kappas:
    a: npt.NDArray[np.intp]
    b: npt.NDArray[np.intp]
    n: Floats
    percent: Floats
    kappa: Floats
    low: Floats
    high: Floats
    reasons: npt.NDArray[Any]


def _kappas(cells: PairCells, annotators: int, labels: int, weights: Floats | None) -> _Kappas:
    pair, inverse = _distinct(cells.a.astype(np.int64) * annotators + cells.b, annotators * annotators)
    size, count = len(pair), cells.count
    n = _sums(inverse, count, size)
    own = np.bincount(inverse * labels + cells.k, count, size * labels).reshape(size, labels) / n[:, None]
    peer = np.bincount(inverse * labels + cells.l, count, size * labels).reshape(size, labels) / n[:, None]
    same: Floats = _sums(inverse, count * (cells.k == cells.l), size) / n
    if weights is None:
        apart = (cells.k != cells.l).astype(np.float64)
        mine, theirs = 1.0 - peer, 1.0 - own  # the expected disagreement of a label with the other's labels
    else:
        distance = 1.0 - weights
        apart = distance[cells.k, cells.l]
        mine, theirs = peer @ distance.T, own @ distance
    observed = np.bincount(inverse, count * apart, size) / n
    expected = np.einsum("pk,pk->p", own, mine)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(expected > 1e-12, observed / expected, np.nan)
        # The disagreement of the pair without one task of each cell, as labelguard_analytics.units has it.
        m = n[inverse]
        chance = m * m * expected[inverse] - m * (mine[inverse, cells.k] + theirs[inverse, cells.l]) + apart
        left_out = (m - 1.0) * (m * observed[inverse] - apart) / chance
        said = np.isfinite(left_out)
        off = np.where(said, left_out - ratio[inverse], 0.0)
        mean = _sums(inverse, count * off, size) / n
        off -= mean[inverse]
        heavy = count * off
        sums = []
        for _ in range(3):
            heavy *= off
            sums.append(_sums(inverse, heavy, size))
        biased = np.bincount(inverse[~said], minlength=size) == 0
        low, high, freedom = ends(ratio, n, np.where(biased, mean, 0.0), *sums)
        low, high = np.fmin(low, 1.0 - ratio), np.fmax(high, 1.0 - ratio)
    disagreeing = _sums(inverse, count * (apart > 0), size)
    few = (disagreeing < FEW) & np.isfinite(ratio)
    if few.any():
        share = stats.beta(disagreeing[few] + 0.5, n[few] - disagreeing[few] + 0.5)
        each = np.where(disagreeing[few] > 0, ratio[few] * n[few] / np.maximum(disagreeing[few], 1), 1 / expected[few])
        low[few] = np.fmin(low[few], 1.0 - share.ppf(0.975) * each)
        high[few] = np.fmax(high[few], 1.0 - share.ppf(0.025) * each * (disagreeing[few] > 0))
    top = (own + peer).argmax(axis=1)[inverse]
    minority = _sums(inverse, count * ((cells.k != top) & (cells.l != top)), size)
    reasons = _pair_reasons(n, ratio, minority, freedom, few)
    missing = reasons != ""
    low[missing], high[missing] = np.nan, np.nan
    a, b = np.divmod(pair, annotators)
    return _Kappas(a, b, n, same, 1.0 - ratio, low, high, reasons)


def _sums(places: npt.NDArray[Any], x: Floats, size: int) -> Floats:
    return np.bincount(places, x, size).astype(np.float64, copy=False)


def _distinct(key: npt.NDArray[np.int64], cells: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Distinct keys and the place of each, by a table where there are few possible ones."""
    if cells > 50_000_000:
        found, inverse = np.unique(key, return_inverse=True)
        return found, inverse
    present = np.zeros(cells, dtype=bool)
    present[key] = True
    return np.flatnonzero(present), (np.cumsum(present) - 1)[key]


def _pair_reasons(n: Floats, ratio: Floats, minority: Floats, freedom: Floats, few: npt.NDArray[np.bool_]) -> Any:
    reasons = np.full(len(n), "", dtype=object)
    little = "Too little data for an interval: "
    for rows, text in (
        (~few & (freedom < NEEDED_FREEDOM), little + "a handful of tasks decides how uncertain the value is."),
        (minority < NEEDED_MINORITY, little + "both gave nearly always the same label."),
        (n < NEEDED_TASKS, little + f"fewer than {NEEDED_TASKS} shared tasks."),
        (np.isnan(ratio), "Both gave every shared task the same label, so agreement cannot be told from chance."),
    ):
        reasons[rows] = text
    return reasons


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
        n = _sums(self.pair, count, pairs)
        full = np.maximum(n, 1e-300)
        own = _sums(self.pair * self.labels + self.k, count, pairs * self.labels).reshape(pairs, -1)
        peer = _sums(self.pair * self.labels + self.other, count, pairs * self.labels).reshape(pairs, -1)
        own, peer = own / full[:, None], peer / full[:, None]
        mine, theirs = peer @ self.distance.T, own @ self.distance
        observed = np.asarray(_sums(self.pair, count * self.apart, pairs) / full)
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
    _, pair = _distinct(who[one].astype(np.int64) * annotators + who[other], annotators * annotators)
    in_pairs = used[task]
    units = Units(value[in_pairs], number[task[in_pairs]].astype(np.int32), sizes[used], np.ones(shared), labels)
    distance = 1.0 - (np.eye(labels) if weights is None else weights)
    coefficient = _Kappa(units, pair, number[task[one]], value[one], value[other], labels, distance)
    each = np.bincount(pair).astype(np.float64)
    typical = float(each @ each / each.sum())
    if typical < _SHARED:
        found = coefficient.disagreement()
        reason = (
            f"Too little data for an interval: two annotators share only {typical:.0f} of the tasks, where at least "
            f"{_SHARED} are needed."
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
