"""Percent agreement, Fleiss' kappa and Gwet's AC1 and AC2: coefficients that treat annotators alike."""

from __future__ import annotations

from typing import Literal

import pandas as pd

from labelguard_analytics.agreement.weights import Weights, credit
from labelguard_analytics.estimate import Estimate, unknown
from labelguard_analytics.frames import Coded, Floats, read
from labelguard_analytics.units import (
    Chance,
    Interval,
    Units,
    estimate,
)

ONE_LABEL = "Every judgment is the same, so agreement cannot be told from chance."


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


def nothing_to_compare(units: Units) -> str:
    """Why there is nothing to compare, as a sentence; empty where there is something."""
    if units.largest < 2:
        return "No task was judged by two annotators, so there is nothing to compare."
    return ""
