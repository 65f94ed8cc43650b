"""Consensus of numbers: what annotators agree on once biases and spreads are taken into account."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from labelguard_analytics.frames import BadJudgments, Coded, read, row_of
from labelguard_analytics.options import check_flag, check_number, check_whole
from labelguard_analytics.truth.result import Truth
from labelguard_analytics.truth.votes import Floats, Ints

Judgments = pd.DataFrame | Coded
PRIOR_WEIGHT = 4.0
"""Pseudo-judgments with which an annotator's variance is drawn to everybody's."""


@dataclass(frozen=True)
class _Numbers:
    mean: Floats
    variance: Floats
    bias: Floats
    bias_variance: Floats
    spread: Floats
    iterations: int
    converged: bool


def numeric_truth(
    judgments: Judgments, *, iterations: int = 200, tolerance: float = 1e-6, use_gold: bool = True
) -> Truth:
    """Precision-weighted consensus of numbers: each annotator has a bias and a spread of their own.

    ``value = truth + bias + noise`` with normal noise. Biases are drawn to zero and spreads to everybody's, the
    more the fewer judgments there are (expectation-maximisation of the hierarchical model). Biases can only be
    told against each other: without known answers their mean is taken to be zero.

    >>> ratings = pd.DataFrame(
    ...     {"task": [1, 1, 2, 2, 3, 3], "annotator": list("abababab")[:6], "value": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]}
    ... )
    >>> numeric_truth(ratings).labels.round(2).tolist()
    [1.5, 3.5, 5.5]

    Args:
        judgments: columns ``task``, ``annotator``, ``value`` (a number), optionally ``gold`` (a number).
        iterations: the most steps.
        tolerance: stop when no consensus moves by more than this share of the values' standard deviation.
        use_gold: whether known answers are taken as they are.

    Raises:
        BadJudgments: the frame is not what it must be.
    """
    check_whole("iterations", iterations, 1)
    check_number("tolerance", tolerance)
    check_flag("use_gold", use_gold)
    coded = read(judgments, kind="number", least=1, repeats=True)
    known = _known(coded) if use_gold else np.full(len(coded.tasks), np.nan)
    found = _fit(coded, known, iterations, tolerance)
    index = coded.tasks.rename("task")
    sd = np.sqrt(found.variance)
    posterior = pd.DataFrame(
        {"mean": found.mean, "sd": sd, "low": found.mean - 1.96 * sd, "high": found.mean + 1.96 * sd}, index=index
    )
    return Truth(
        pd.Series(found.mean, index=index, name="label"),
        posterior,
        _people(coded, found),
        _number_tasks(coded, found, known, index),
        _suspicious_numbers(coded, found, known, index),
        "numeric_truth",
        found.iterations,
        found.converged,
    )


def _known(coded: Coded) -> Floats:
    known = np.full(len(coded.tasks), np.nan)
    if "gold" in coded.frame.columns:
        gold = coded.numbers("gold")
        there = ~np.isnan(gold)
        known[coded.task[there]] = gold[there]
        differs = known[coded.task[there]] != gold[there]
        if differs.any():
            row = int(np.flatnonzero(there)[np.flatnonzero(differs)[0]])
            raise BadJudgments(
                f"The column 'gold' holds different answers for task {coded.tasks[coded.task[row]]} "
                f"(row {row_of(coded.frame, row)})."
            )
    return known


def _fit(coded: Coded, known: Floats, iterations: int, tolerance: float) -> _Numbers:
    task, annotator, value = coded.task, coded.annotator, coded.value
    tasks, people = len(coded.tasks), len(coded.annotators)
    given = np.bincount(annotator, minlength=people)
    scale = float(value.std()) or 1.0
    is_known = ~np.isnan(known)
    mean = np.bincount(task, value, tasks) / coded.sizes
    mean = np.where(is_known, known, mean)
    bias = np.zeros(people)
    inner = value - mean[task]
    pooled = max(float((inner**2).sum()) / max(len(value) - tasks, 1), (1e-6 * scale) ** 2)
    spread = np.full(people, pooled)
    among, wide = pooled, float(value.var()) or pooled
    done, converged = 0, False
    for done in range(1, iterations + 1):  # noqa: B007 - told afterwards
        precision = 1 / spread[annotator]
        weight = np.bincount(task, precision, tasks) + 1 / wide
        level = float(mean.mean())
        new = (np.bincount(task, precision * (value - bias[annotator]), tasks) + level / wide) / weight
        variance = np.where(is_known, 0.0, 1 / weight)
        new = np.where(is_known, known, new)
        residual = value - new[task]
        bias_precision = given / spread + 1 / among
        bias = np.bincount(annotator, residual, people) / spread / bias_precision
        bias_variance = 1 / bias_precision
        if not is_known.any():
            bias -= bias.mean()
        left = (residual - bias[annotator]) ** 2 + variance[task] + bias_variance[annotator]
        total = np.bincount(annotator, left, people)
        spread = (total + PRIOR_WEIGHT * pooled) / (given + PRIOR_WEIGHT)
        spread = np.maximum(spread, (1e-6 * scale) ** 2)
        # The typical variance, so that one careless annotator does not make everybody else look careless.
        typical = float(np.average(np.log(spread), weights=np.minimum(given, 20)))
        pooled = max(float(np.exp(typical)), (1e-6 * scale) ** 2)
        among = max(float((bias**2 + bias_variance).mean()), (1e-6 * scale) ** 2)
        moved = float(np.abs(new - mean).max()) / scale
        mean = new
        wide = max(float(((mean - mean.mean()) ** 2 + variance).mean()), (1e-6 * scale) ** 2)
        if moved < tolerance:
            converged = True
            break
    return _Numbers(mean, variance, bias, bias_variance, spread, done, converged)


def _people(coded: Coded, found: _Numbers) -> pd.DataFrame:
    """Bias and spread with 95% intervals: t and chi-squared with the annotator's own judgments."""
    people = len(coded.annotators)
    given = np.bincount(coded.annotator, minlength=people)
    enough = given >= 3
    freedom = np.maximum(given - 1, 1)
    sd = np.sqrt(found.spread)
    doubt = np.sqrt(found.bias_variance + np.bincount(coded.annotator, found.variance[coded.task], people) / given**2)
    half = stats.t.ppf(0.975, freedom) * doubt
    frame = pd.DataFrame(
        {
            "judgments": given,
            "bias": found.bias,
            "bias_low": found.bias - half,
            "bias_high": found.bias + half,
            "sd": sd,
            "sd_low": sd * np.sqrt(freedom / stats.chi2.ppf(0.975, freedom)),
            "sd_high": sd * np.sqrt(freedom / stats.chi2.ppf(0.025, freedom)),
            "reason": np.where(enough, "", "Fewer than 3 judgments are too few for an interval."),
        },
        index=coded.annotators.rename("annotator"),
    )
    frame.loc[~enough, ["bias_low", "bias_high", "sd_low", "sd_high"]] = np.nan
    if people == 1:
        frame[["bias", "bias_low", "bias_high", "sd", "sd_low", "sd_high"]] = np.nan
        frame["reason"] = "There is only one annotator, so nothing tells bias from truth."
    return frame


def _number_tasks(coded: Coded, found: _Numbers, known: Floats, index: pd.Index[Any]) -> pd.DataFrame:
    """A task is ambiguous where its annotators differ far more than their spreads explain (p below .01)."""
    sizes = coded.sizes
    residual = (coded.value - found.bias[coded.annotator] - found.mean[coded.task]) ** 2
    excess = np.bincount(coded.task, residual / found.spread[coded.annotator], len(sizes))
    chance = stats.chi2.sf(excess, np.maximum(sizes - 1, 1))
    verdict = np.where(chance < 0.01, "ambiguous task", "settled").astype(object)
    verdict[sizes < 2] = "too few judgments"
    verdict[~np.isnan(known)] = "known"
    return pd.DataFrame(
        {
            "judgments": sizes,
            "excess": excess,
            "p": chance,
            "tied": False,
            "gold": ~np.isnan(known),
            "verdict": verdict,
        },
        index=index,
    )


def _suspicious_numbers(coded: Coded, found: _Numbers, known: Floats, index: pd.Index[Any]) -> pd.DataFrame:
    """Known answers that lie outside what the votes alone allow (p below .001), by two people or more."""
    checked = ~np.isnan(known) & (coded.sizes >= 2)
    precision = 1 / found.spread[coded.annotator]
    weight = np.bincount(coded.task, precision, len(index))
    said = np.bincount(coded.task, precision * (coded.value - found.bias[coded.annotator]), len(index)) / weight
    with np.errstate(invalid="ignore"):
        chance = 2 * stats.norm.sf(np.abs(said - known) * np.sqrt(weight))
    wrong = checked & (chance < 0.001)
    return pd.DataFrame(
        {"gold": known[wrong], "said": said[wrong], "probability": 1 - chance[wrong], "judgments": coded.sizes[wrong]},
        index=index[wrong],
    ).sort_values("probability", ascending=False, kind="stable")


def ordinal_truth(judgments: Judgments, *, use_gold: bool = True) -> Truth:
    """Consensus of ordered labels: numbers 0, 1, 2, ... with biases and spreads, read back as labels.

    A label's probability is that of the consensus lying nearest to it. The order is that of the values (numbers,
    or the order of an ordered categorical column).

    >>> ratings = pd.DataFrame({"task": [1, 1, 1, 2, 2, 2], "annotator": list("abcabc"), "value": [1, 2, 2, 4, 4, 5]})
    >>> ordinal_truth(ratings).labels.to_dict()
    {1: 2, 2: 4}

    Args:
        judgments: columns ``task``, ``annotator``, ``value`` (ordered), optionally ``gold``.
        use_gold: whether known answers are taken as they are.

    Raises:
        BadJudgments: the frame is not what it must be, or its labels have no order.
    """
    check_flag("use_gold", use_gold)
    coded = read(judgments, least=1, repeats=True)
    if not coded.ordered:
        raise BadJudgments(
            "The column 'value' has no order: use numbers or an ordered categorical column, or infer_truth for "
            "labels without order."
        )
    gold = coded.gold() if use_gold else np.full(len(coded.tasks), -1)
    numbers = Coded(
        "number",
        coded.task,
        coded.annotator,
        coded.value.astype(np.float64),
        coded.tasks,
        coded.annotators,
        pd.Index([]),
        frame=_with_codes(coded, gold),
    )
    found = numeric_truth(numbers, use_gold=use_gold)
    edges = np.arange(len(coded.categories) - 1) + 0.5
    sd = np.maximum(found.posterior["sd"].to_numpy(), 1e-9)
    below = stats.norm.cdf((edges - found.posterior["mean"].to_numpy()[:, None]) / sd[:, None])
    padded = np.concatenate([np.zeros((len(sd), 1)), below, np.ones((len(sd), 1))], axis=1)
    chances = np.diff(padded, axis=1)
    best: Ints = chances.argmax(axis=1)
    index = found.labels.index
    tasks = found.tasks.assign(probability=chances[np.arange(len(best)), best])
    return Truth(
        pd.Series(coded.categories.take(best), index=index, name="label"),
        pd.DataFrame(chances, index=index, columns=pd.Index(coded.categories, name="label")),
        found.annotators,
        tasks,
        found.suspicious_gold,
        "ordinal_truth",
        found.iterations,
        found.converged,
    )


def _with_codes(coded: Coded, gold: Ints) -> pd.DataFrame:
    known = gold[coded.task]
    return pd.DataFrame({"gold": np.where(known >= 0, known, np.nan).astype(np.float64)})
