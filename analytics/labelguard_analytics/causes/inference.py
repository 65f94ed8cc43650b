"""The effect of one regressor of a panel, and how sure it is where annotators and weeks are few.

Array code on many outcomes at once: ``y`` is cells x worlds, since what is costly depends on the design alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse, stats

from labelguard_analytics.frames import Floats

Ints = npt.NDArray[np.integer[Any]]
LEVEL = 0.05
_LESS = 0.2
"""By how much of the variance over annotators the one over weeks may lower the sum. Of a difference of estimates that
may be negative, all of it makes intervals too narrow and none of it too wide; a fifth was chosen by simulation."""
MOST_ASSIGNMENTS = 1999
"""So many assignments are tried; of more, so many random ones."""
_AT_ONCE = 2**22
"""So many numbers of a design are held unpacked at a time."""
_TOLD = 1e-8
"""A regressor of which the others leave less than this share is none of its own."""


@dataclass(frozen=True)
class Effects:
    """The effect in each world, with its 95% interval and the p-value of no effect."""

    value: Floats
    low: Floats
    high: Floats
    p: Floats
    freedom: Floats
    """Degrees of freedom; NaN for randomisation."""


class Regression:
    """Weighted least squares of a panel on a treatment and on whatever else explains the outcome.

    Args:
        treatment: one value for each cell.
        nuisance: cells x columns, which may depend on each other.
        weight: of each cell, such as its judgments.
    """

    def __init__(self, treatment: Floats, nuisance: sparse.csr_array, weight: Floats) -> None:
        self._root = np.sqrt(weight)
        scaled = sparse.csr_array(nuisance.multiply(self._root[:, None]))
        # Columns of one length, so that what is redundant can be told from what is only small.
        length = np.sqrt(np.asarray(scaled.multiply(scaled).sum(axis=0)).ravel())
        self._scaled = sparse.csr_array(scaled.multiply(1 / np.where(length > 0, length, 1.0)))
        self._inverse = np.linalg.pinv((self._scaled.T @ self._scaled).toarray(), rcond=1e-9, hermitian=True)
        own = treatment * self._root
        self._left = self._without(own)
        self._size = float(self._left @ self._left)
        self.told = self._size > _TOLD * max(float(own @ own), 1e-300)
        """Whether the data tell the effect at all."""

    def _without(self, scaled: Floats) -> Floats:
        """What the nuisance leaves of columns that are scaled already."""
        return np.asarray(scaled - self._scaled @ (self._inverse @ (self._scaled.T @ scaled)))

    def effect(self, y: Floats) -> Floats:
        """The coefficient in each world."""
        return np.asarray(self._left @ (y * self._root[:, None]) / self._size)

    def errors(self, y: Floats) -> Floats:
        """Residuals of the whole model, times the root of the weights."""
        rest = self._without(y * self._root[:, None])
        return np.asarray(rest - np.outer(self._left, self._left @ rest / self._size))

    def scores(self, clusters: Ints) -> sparse.csr_array:
        """Clusters x cells: what errors are multiplied with, so that squared sums are the variance (CR2).

        The adjustment takes out the bias that residuals have because each cluster had a part in the fit (Bell and
        McCaffrey 2002; with effects that a cluster has for itself, Pustejovsky and Tipton 2018).
        """
        codes = np.unique(clusters, return_inverse=True)[1]
        order = np.argsort(codes, kind="stable")
        sizes = np.bincount(codes)
        starts = np.cumsum(sizes) - sizes
        values = np.empty(len(codes))
        # Clusters of one size are worked on together, some at a time so that memory stays small.
        for size in np.unique(sizes).tolist():
            alike = order[starts[sizes == size, None] + np.arange(size)]
            for rows in np.array_split(alike, 1 + alike.size * len(self._inverse) // _AT_ONCE):
                here = self._scaled[rows.ravel()].toarray().reshape(*rows.shape, -1)
                left = self._left[rows][:, :, None]
                hat = (here @ self._inverse) @ here.mT + left @ left.mT / self._size
                roots, vectors = np.linalg.eigh(np.eye(size) - hat)
                shrunk = np.where(roots > 1e-8, 1 / np.sqrt(np.maximum(roots, 1e-8)), 0.0)
                values[rows] = (vectors @ (shrunk[:, :, None] * (vectors.mT @ left)))[:, :, 0]
        return sparse.csr_array((values / self._size, (codes, np.arange(len(codes)))))

    def freedom(self, scores: sparse.csr_array) -> float:
        """The degrees of freedom of a variance by these scores, by Satterthwaite, were errors independent."""
        fitted = (scores @ self._scaled).toarray()
        left = scores @ self._left
        # What is left of a projection is one too, so scores need not be projected to know their products.
        gram = (scores @ scores.T).toarray() - fitted @ self._inverse @ fitted.T - np.outer(left, left) / self._size
        return float(np.trace(gram) ** 2 / max(float((gram**2).sum()), 1e-300))

    def randomised(self, y: Floats, assignments: Floats) -> Effects:
        """The effect with p-value and interval by randomisation: what other assignments would have found.

        The statistic is the effect over its standard error under equal variances. An effect belongs to the interval
        if, with it taken out, more than 5% of the assignments find as much as the real one; the ends are exact.

        Args:
            y: cells x worlds.
            assignments: cells x assignments, the real one first.
        """
        left = self._without(assignments * self._root[:, None])
        length = np.sqrt((left**2).sum(axis=0))
        left = left[:, length > 1e-9] / length[length > 1e-9]
        found = left.T @ (y * self._root[:, None])
        alike = (left.T @ left[:, 0])[:, None]
        real = found[:1]
        with np.errstate(divide="ignore", invalid="ignore"):
            ends = np.stack([(real - found) / (1 - alike), (real + found) / (1 + alike)])
        # An assignment that is the real one, or its mirror, finds as much whatever the effect.
        same = np.abs(alike)[:, 0] > 1 - 1e-9
        low, high = ends.min(axis=0), ends.max(axis=0)
        low[same], high[same] = -np.inf, np.inf
        place = int(LEVEL * len(found) + 1e-9)
        unit = float(np.sqrt(self._size))
        return Effects(
            real[0] / unit,
            np.partition(low, place, axis=0)[place] / unit,
            -np.partition(-high, place, axis=0)[place] / unit,
            np.asarray((np.abs(found) >= np.abs(real) * (1 - 1e-9)).mean(axis=0)),
            np.full(y.shape[1], np.nan),
        )


def by_annotator(regression: Regression, annotator: Ints, y: Floats) -> Effects:
    """With errors clustered by annotator: CR2 and Satterthwaite's degrees of freedom."""
    scores = regression.scores(annotator)
    variance = _squares(scores, regression.errors(y))
    return _effects(regression.effect(y), variance, np.full(y.shape[1], regression.freedom(scores)))


def two_way(regression: Regression, annotator: Ints, week: Ints, y: Floats) -> Effects:
    """With errors clustered by annotator and by week: people go on being themselves, and weeks hit everybody.

    The variance over annotators and that over weeks less that over single cells (Cameron, Gelbach and Miller 2011),
    each bias-reduced (CR2). The degrees of freedom are Satterthwaite's of that sum, and at least those of the part
    that has fewer: 16 weeks with an event in the middle have 14.
    """
    cell = annotator.astype(np.int64) * (int(week.max()) - int(week.min()) + 1) + week - int(week.min())
    errors = regression.errors(y)
    people, weeks = regression.scores(annotator), regression.scores(week)
    own, shared = _squares(people, errors), _squares(weeks, errors)
    beyond = shared - _squares(regression.scores(cell), errors)
    each = regression.freedom(people), regression.freedom(weeks)
    # Where weeks may lower it no further, the variance is a multiple of that over annotators, with its freedom.
    least = beyond <= -_LESS * own
    variance = np.where(least, (1 - _LESS) * own, own + beyond)
    doubt = np.where(least, variance, own) ** 2 / each[0] + np.where(beyond > 0, shared, 0.0) ** 2 / each[1]
    freedom = np.maximum(variance**2 / np.maximum(doubt, 1e-300), min(each))
    return _effects(regression.effect(y), variance, freedom)


def assignments(affected: npt.NDArray[np.bool_], rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Every way to affect as many annotators, or many random ones (assignments x annotators); the real one first.

    >>> assignments(np.array([True, False, False]), np.random.default_rng(0)).astype(int).tolist()
    [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    """
    size, count = len(affected), int(affected.sum())
    if comb(size, count) <= MOST_ASSIGNMENTS:
        chosen = np.array(list(combinations(range(size), count)), dtype=np.intp)
    else:
        chosen = np.argsort(rng.random((MOST_ASSIGNMENTS, size)), axis=1)[:, :count]
    table = np.zeros((len(chosen), size), dtype=bool)
    np.put_along_axis(table, chosen, True, axis=1)
    return np.vstack([affected, table[(table != affected).any(axis=1)]])


def _squares(scores: sparse.csr_array, errors: Floats) -> Floats:
    return np.asarray(((scores @ errors) ** 2).sum(axis=0))


def _effects(value: Floats, variance: Floats, freedom: Floats) -> Effects:
    error = np.sqrt(variance)
    half = stats.t.ppf(1 - LEVEL / 2, freedom) * error
    with np.errstate(divide="ignore", invalid="ignore"):
        p = 2 * stats.t.sf(np.abs(value) / error, freedom)
    return Effects(value, value - half, value + half, np.where(error > 0, p, np.where(value == 0, 1.0, 0.0)), freedom)
