"""Percent agreement and Cohen's kappa of every two annotators at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from labelguard_analytics.agreement.weights import Weights, credit
from labelguard_analytics.frames import Coded, Codes, Floats, read
from labelguard_analytics.units import (
    FEW,
    NEEDED_FREEDOM,
    NEEDED_MINORITY,
    NEEDED_TASKS,
    ends,
)


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
    pair, inverse = distinct(cells.a.astype(np.int64) * annotators + cells.b, annotators * annotators)
    size, count = len(pair), cells.count
    n = sums_of(inverse, count, size)
    own = np.bincount(inverse * labels + cells.k, count, size * labels).reshape(size, labels) / n[:, None]
    peer = np.bincount(inverse * labels + cells.l, count, size * labels).reshape(size, labels) / n[:, None]
    same: Floats = sums_of(inverse, count * (cells.k == cells.l), size) / n
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
        mean = sums_of(inverse, count * off, size) / n
        off -= mean[inverse]
        heavy = count * off
        sums = []
        for _ in range(3):
            heavy *= off
            sums.append(sums_of(inverse, heavy, size))
        biased = np.bincount(inverse[~said], minlength=size) == 0
        low, high, freedom = ends(ratio, n, np.where(biased, mean, 0.0), *sums)
        low, high = np.fmin(low, 1.0 - ratio), np.fmax(high, 1.0 - ratio)
    disagreeing = sums_of(inverse, count * (apart > 0), size)
    few = (disagreeing < FEW) & np.isfinite(ratio)
    if few.any():
        share = stats.beta(disagreeing[few] + 0.5, n[few] - disagreeing[few] + 0.5)
        each = np.where(disagreeing[few] > 0, ratio[few] * n[few] / np.maximum(disagreeing[few], 1), 1 / expected[few])
        low[few] = np.fmin(low[few], 1.0 - share.ppf(0.975) * each)
        high[few] = np.fmax(high[few], 1.0 - share.ppf(0.025) * each * (disagreeing[few] > 0))
    top = (own + peer).argmax(axis=1)[inverse]
    minority = sums_of(inverse, count * ((cells.k != top) & (cells.l != top)), size)
    reasons = _pair_reasons(n, ratio, minority, freedom, few)
    missing = reasons != ""
    low[missing], high[missing] = np.nan, np.nan
    a, b = np.divmod(pair, annotators)
    return _Kappas(a, b, n, same, 1.0 - ratio, low, high, reasons)


def sums_of(places: npt.NDArray[Any], x: Floats, size: int) -> Floats:
    """Sums of numbers by place, as floats."""
    return np.bincount(places, x, size).astype(np.float64, copy=False)


def distinct(key: npt.NDArray[np.int64], cells: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
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
