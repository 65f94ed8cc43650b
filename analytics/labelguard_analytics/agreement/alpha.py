"""Krippendorff's alpha of labels, ranks, numbers, sets and results of Label Studio."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from labelguard_analytics.agreement.coefficients import ONE_LABEL, nothing_to_compare
from labelguard_analytics.agreement.sampling import sampled_alpha
from labelguard_analytics.agreement.weights import category_numbers, check_ordered, ratio_distance
from labelguard_analytics.estimate import Estimate, unknown
from labelguard_analytics.frames import BadJudgments, Coded, Floats, read, row_of, shown
from labelguard_analytics.options import short
from labelguard_analytics.similarities import TAGS, BadResult, set_similarity, similarity
from labelguard_analytics.units import (
    Alpha,
    Interval,
    NumberAlpha,
    Units,
    estimate,
)

Metric: TypeAlias = str | Callable[[Any, Any], float]

SET_METRICS = ("jaccard", "masi", "f1")

NUMBER_METRICS = ("interval", "ratio")

MATRIX = 3000
"""Up to so many distinct values, the distances of all pairs are kept."""


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
        compare = compare_by_tag(metric, options)
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
    if len(values) > 4 * MATRIX:
        raise ValueError(
            f"The ratio metric compares every two of {len(values):,} different values; round them to at most "
            f"{4 * MATRIX:,}, or use the interval metric on their logarithms."
        )
    return alpha_estimate(units, metric, ratio_distance(values), interval, repetitions, seed)


def compare_by_tag(tag: str, options: dict[str, Any]) -> Callable[[Any, Any], float]:
    """The similarity of a tag with its options, as a function of two results."""

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
    if len(members) <= MATRIX:
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

    return sampled_alpha(units, score, coded, interval, repetitions, seed)


def _similarity_alpha(
    coded: Coded, compare: Callable[[Any, Any], float], interval: Interval, repetitions: int, seed: int
) -> Estimate:
    def score(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> Floats:
        found = np.array([float(compare(a, b)) for a, b in zip(one, other, strict=True)], dtype=np.float64)
        outside = ~((found >= 0) & (found <= 1))  # also NaN
        if outside.any():
            raise ValueError(f"A similarity must lie from 0 to 1, but the metric returned {shown(found[outside][0])}.")
        return found

    return sampled_alpha(Units.of(coded, 2), score, coded, interval, repetitions, seed)
