"""The arithmetic of a decomposition: one linear model of both periods, its components and their influences.

A judgment of annotator ``a`` on an item of stratum ``s`` has the expected outcome ``alpha[a] + beta[s]``, and
``delta[s]`` more in the second period. Least squares reproduce the mean of each period exactly, so the change of the
mean is exactly the sum of

- items: how the strata's shares changed, times ``beta + delta / 2``,
- annotators: how the annotators' shares of the judgments changed, times ``alpha``,
- behaviour: the mean of ``delta`` over the average of both mixes of items,

which is what the average over all orders of switching the three gives (Shapley; Das Gupta 1993; for linear models
Oaxaca 1973 and Blinder 1973). A stratum that only one period has says nothing about ``delta`` and counts with the
average of the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import permutations
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import sparse

from labelguard_analytics.frames import Codes, Floats

PARTS = ("items", "annotators", "behaviour")
_OWN = 20
"""A stratum with so many judgments in both periods has a change of its own; smaller ones share one."""
_TOLD = 1e-6
"""A contrast that no combination of judgments reproduces to this share of its size cannot be told from the data."""

_LIGHT = 1_000_000
"""Matrices with at most so many entries are kept with their zeros: making a sparse one takes longer than using it."""

_Matrix: TypeAlias = "sparse.csr_array | Floats"
_Coefficients: TypeAlias = tuple[Floats, Floats, Floats]
"""Of annotators, of strata and of their changes."""


@dataclass(frozen=True)
class Influence:
    """How much each judgment moves each component: components x judgments."""

    of_judgment: Floats
    of_annotator: Floats
    """With what the others of the task owe to its annotator, and without what it owes to them (Aronow, Samii and
    Assenova 2015, for outcomes of pairs); the same where the outcome is the annotator's alone."""

    def plus(self, other: Influence) -> Influence:
        """The influences on sums of components."""
        return Influence(self.of_judgment + other.of_judgment, self.of_annotator + other.of_annotator)

    def mixed(self, weights: Floats) -> Influence:
        """The influences on weighted sums of the components, one for each row of weights."""
        return Influence(weights @ self.of_judgment, weights @ self.of_annotator)


@dataclass(frozen=True)
class Mixture:
    """Who judged what in two periods, without the outcomes."""

    after: npt.NDArray[np.bool_]
    annotator: Codes
    stratum: Codes
    comparable: npt.NDArray[np.bool_]
    """For each stratum, whether it stands for the same items, or items of the same kind, in both periods."""
    task: Codes
    others: sparse.csr_array | None = None
    """For each judgment the mean of the other annotators of its task (judgments x annotators), where the outcome
    depends on them as much as on the annotator's own, as agreement does."""
    by_annotator: bool = True
    """Whether annotators have levels of their own; else their mix counts as behaviour."""

    @cached_property
    def people(self) -> Floats:
        """Each annotator's share of the judgments: a row before and a row after."""
        return _mix(self.annotator, self.after, int(self.annotator.max()) + 1)

    @cached_property
    def items(self) -> Floats:
        """Each stratum's share of the judgments: a row before and a row after."""
        return _mix(self.stratum, self.after, len(self.comparable))

    @property
    def told(self) -> tuple[bool, ...]:
        """Which of the components the data tell from the others."""
        return self._plain.told

    def fit(self, outcome: Floats) -> tuple[Floats, Influence]:
        """The three components of one outcome, and how much each judgment moves them."""
        if self.others is None or not self.by_annotator:
            return self._plain.fit(outcome)
        # Two who are often right agree more often than the sum of both tells (Tukey's one degree of freedom).
        level = self._plain.model.coefficients(outcome)[0]
        level = level - self.people.mean(axis=0) @ level
        both = level[self.annotator] * (self.others @ level)
        wider = _Fit(self, _side_by_side(self._who, both[:, None]))
        return (wider if wider.told == self.told else self._plain).fit(outcome)

    def spread(self, influence: Influence) -> tuple[Floats, Floats]:
        """Standard errors of components, clustered by annotator and by task, and their degrees of freedom.

        The variance over tasks, and what that over annotators has beyond that over judgments (Cameron, Gelbach and
        Miller 2011). The difference is corrected for few annotators as a whole, because with one of its terms
        corrected it would lie above nought where annotators make no difference. Kept at nought or above it would do so
        too, so it may lie below by as much as the variance over tasks is itself uncertain (one standard error, at most
        half of it). The freedom of the sum is Satterthwaite's.
        """
        by_annotator, people = _squares(influence.of_annotator, self.annotator)
        by_task, tasks = _squares(influence.of_judgment, self.task)
        # Residuals of few annotators are too small, because each had a part in the fit; as a jackknife has it.
        few = people / max(people - 1, 1)
        beyond = few * (by_annotator - (influence.of_annotator**2).sum(axis=1))
        beyond = np.maximum(beyond, -np.sqrt(2 / max(tasks - 1, 8)) * by_task)
        variance = by_task + beyond
        doubt = by_task**2 / max(tasks - 1, 1)
        doubt += np.where(beyond > 0, few * by_annotator, 0.0) ** 2 / max(people - 1, 1)
        return np.sqrt(variance), np.maximum(variance**2 / np.maximum(doubt, 1e-300), 1.0)

    @cached_property
    def _who(self) -> _Matrix:
        if not self.by_annotator:
            return _light(sparse.csr_array((len(self.after), self.people.shape[1])))
        own = dummies(self.annotator, self.people.shape[1])
        return _light(own if self.others is None else sparse.csr_array(own + self.others))

    @cached_property
    def _plain(self) -> _Fit:
        return _Fit(self, self._who)


class _Fit:
    """Least squares of a mixture whose annotators are described by ``who`` (judgments x columns)."""

    def __init__(self, mixture: Mixture, who: _Matrix) -> None:
        self.mixture, self.who = mixture, who
        after, stratum, comparable = mixture.after, mixture.stratum, mixture.comparable
        self._period = after.astype(np.intp)
        self._size = np.bincount(self._period, minlength=2).astype(np.float64)
        self._mixes = np.asarray(who.T @ np.stack([~after, after], axis=1).astype(np.float64)).T / self._size[:, None]
        self._moved = mixture.items[1] - mixture.items[0]
        weight = np.where(comparable, mixture.items.mean(axis=0), 0.0)
        self._covered = float(weight.sum())
        self._alone = float(np.abs(self._moved[~comparable]).sum() / 2)
        self._own = self._changes()
        self._mean = np.bincount(self._own, weight) / self._covered
        change = np.where(after & comparable[stratum], self._own[stratum], -1)
        self.model = _Model(who, stratum, change, (len(comparable), len(self._mean)))
        half = np.bincount(self._own, np.where(comparable, self._moved, 0.0)) / 2
        nobody, nothing, none = np.zeros(who.shape[1]), np.zeros(len(comparable)), np.zeros(len(half))
        self._contrasts: tuple[_Coefficients, ...] = (
            (nobody, self._moved, half - self._alone * self._mean),
            (self._mixes[1] - self._mixes[0], nothing, none),
            (nobody, nothing, self._mean),
        )
        self._solved = [self.model.solve(contrast) for contrast in self._contrasts]
        self.told = tuple(told for _, told in self._solved)

    def _changes(self) -> npt.NDArray[np.intp]:
        """The number of each stratum's change; 0 too, but without meaning, for those not comparable."""
        stratum, comparable = self.mixture.stratum, self.mixture.comparable
        counts = [np.bincount(stratum[self._period == p], minlength=len(comparable)) for p in (0, 1)]
        large = comparable & (np.minimum(*counts) >= _OWN)
        shared = int((comparable & ~large).any())
        columns = np.zeros(len(large), dtype=np.intp)
        columns[large] = np.arange(shared, shared + int(large.sum()))
        return columns

    def fit(self, outcome: Floats) -> tuple[Floats, Influence]:
        """The three components, and how much each judgment moves them."""
        solution = self.model.coefficients(outcome)
        alpha, beta, delta = solution
        residual = outcome - self.model.predict(solution)
        values = np.array([sum(float(c @ b) for c, b in zip(one, solution, strict=True)) for one in self._contrasts])
        error = np.stack([self.model.predict(weights) for weights, _ in self._solved]) * residual
        # The mixes are as much a draw as the outcomes are.
        mixture, period, people = self.mixture, self._period, self.mixture.people.shape[1]
        comparable, stratum, items = mixture.comparable, mixture.stratum, mixture.items
        size = 1.0 / self._size[period]
        sign = np.where(mixture.after, size, -size)
        mean = float(self._mean @ delta)
        own = np.where(comparable, delta[self._own], mean)
        level = (beta + np.where(comparable, own, -np.sign(self._moved) * mean) / 2)[stratum]
        excess = np.where(comparable, own - mean, 0.0) / (2 * self._covered)
        moved = size * (excess[stratum] - (items @ excess)[period])
        pairs = self.who @ np.concatenate([np.zeros(people), alpha[people:]])
        voices = 1.0 if mixture.others is None else 2.0
        own_error = float(residual @ residual) / len(residual) ** 2
        task_error = float(np.sum(np.bincount(mixture.task, residual) ** 2)) / len(residual) ** 2
        drawn = np.stack(
            [
                sign * self._drawn(level, task_error * (len(beta) - 1)) - self._alone * moved,
                sign * self._drawn(voices * alpha[mixture.annotator] + pairs, voices**2 * own_error * (people - 1)),
                moved,
            ]
        )
        # Annotators have levels of their own, so the fit leaves next to no error to all judgments of one there, and
        # counting it for both of a pair would only be taken off again.
        return values, Influence(error + drawn, np.array([[voices], [1.0], [voices]]) * error + drawn)

    def _drawn(self, level: Floats, noise: float) -> Floats:
        """Levels less the mean of their period, shrunk until their variance no longer has the noise of estimates in it.

        Else the variance of a product of two estimates, a mix and a level, is overstated (Goodman 1960).
        """
        means = np.bincount(self._period, level) / self._size
        centred = level - means[self._period]
        variance = float(np.mean(centred**2))
        return np.asarray(centred * np.sqrt(max(0.0, 1.0 - noise / variance)) if variance > 0 else centred)


class _Model:
    """Least squares on annotators, strata and changes, by normal equations from which the strata are taken out first.

    There may be as many strata as tasks, so what is solved stays as small as the annotators are few.
    """

    def __init__(self, who: _Matrix, stratum: Codes, change: npt.NDArray[np.intp], sizes: tuple[int, int]) -> None:
        self._people = who.shape[1]
        self._rest = _side_by_side(who, dummies(change, sizes[1]))
        self._stratum = stratum
        self._count = np.maximum(np.bincount(stratum, minlength=sizes[0]), 1).astype(np.float64)
        cross = dummies(stratum, sizes[0]).T @ self._rest
        self._cross: _Matrix = cross if isinstance(cross, np.ndarray) else sparse.csr_array(cross)
        place = np.arange(sizes[0] + 1)
        share = sparse.csr_array((1 / self._count, place[:-1], place), shape=(sizes[0], sizes[0]))
        within = self._cross.T @ (share @ self._cross)
        square = self._rest.T @ self._rest - within
        self._square: Floats = square if isinstance(square, np.ndarray) else square.toarray()
        self._inverse = np.linalg.pinv(self._square, rcond=1e-10, hermitian=True)

    def solve(self, right: _Coefficients) -> tuple[_Coefficients, bool]:
        """The coefficients whose normal equations have this right side, and whether there are any."""
        people, strata, changes = right
        left = np.concatenate([people, changes]) - self._cross.T @ (strata / self._count)
        rest = self._inverse @ left
        size = max(float(np.abs(part).max(initial=0.0)) for part in right)
        told = bool(np.abs(self._square @ rest - left).max(initial=0.0) <= _TOLD * max(size, 1e-6))
        first = (strata - self._cross @ rest) / self._count
        return (rest[: self._people], first, rest[self._people :]), told

    def coefficients(self, outcome: Floats) -> _Coefficients:
        """The least squares of an outcome."""
        rest = np.asarray(self._rest.T @ outcome)
        strata = np.bincount(self._stratum, outcome, minlength=len(self._count)).astype(np.float64)
        return self.solve((rest[: self._people], strata, rest[self._people :]))[0]

    def predict(self, coefficients: _Coefficients) -> Floats:
        """What the coefficients say of each judgment."""
        people, strata, changes = coefficients
        return np.asarray(self._rest @ np.concatenate([people, changes]) + strata[self._stratum])


def shapley(worth: Floats) -> Floats:
    """Each of three switches' part in a value, averaged over the orders of switching them.

    Args:
        worth: the value with the switches off (0) or on (1), 2 x 2 x 2, and perhaps more axes behind.
    """
    parts = np.zeros((3, *worth.shape[3:]))
    orders = list(permutations(range(3)))
    for order in orders:
        state = [0, 0, 0]
        for switch in order:
            without = worth[tuple(state)]
            state[switch] = 1
            parts[switch] += (worth[tuple(state)] - without) / len(orders)
    return parts


def dummies(codes: npt.NDArray[np.integer], columns: int) -> sparse.csr_array:
    """One column for each code; an empty row for -1."""
    there = codes >= 0
    ends = np.concatenate([[0], np.cumsum(there)])
    return sparse.csr_array((np.ones(int(ends[-1])), codes[there], ends), shape=(len(codes), columns))


def _light(matrix: sparse.csr_array) -> _Matrix:
    return matrix.toarray() if matrix.shape[0] * matrix.shape[1] <= _LIGHT else matrix


def _side_by_side(one: _Matrix, other: _Matrix) -> _Matrix:
    if isinstance(one, np.ndarray):
        return np.hstack([one, other if isinstance(other, np.ndarray) else other.toarray()])
    return sparse.csr_array(sparse.hstack([one, sparse.csr_array(other)], format="csr"))


def _mix(codes: Codes, after: npt.NDArray[np.bool_], size: int) -> Floats:
    counts = np.stack([np.bincount(codes[after == p], minlength=size) for p in (False, True)])
    return np.asarray(counts / counts.sum(axis=1, keepdims=True), dtype=np.float64)


def _squares(influence: Floats, codes: Codes) -> tuple[Floats, int]:
    """The squared sums of clusters, with the usual correction for their number, and that number."""
    sums = np.stack([np.bincount(codes, row) for row in influence])
    clusters = int(np.count_nonzero(np.bincount(codes)))
    return np.asarray((sums**2).sum(axis=1) * clusters / max(clusters - 1, 1)), clusters
