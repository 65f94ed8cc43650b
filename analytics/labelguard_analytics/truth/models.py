"""The models behind truth inference, on shards of votes; ``labelguard_analytics.truth`` has the public functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from scipy import sparse
from scipy.special import expit

from labelguard_analytics.truth.votes import Floats, Shard, Votes, set_known

TINY = 1e-10
"""The least probability: what never happened must not be impossible."""
LOWEST = {np.dtype(np.float64): -650.0, np.dtype(np.float32): -80.0}
"""The exponential of this is still a number; where scores may be lower, the largest is taken off first."""
MANY_VOTES = 200_000
"""From so many votes on, steps are made with single precision, which takes less than half the time; sums over shards
and the posterior have double precision always."""


@dataclass(frozen=True)
class Fitted:
    """What a model found."""

    posterior: Floats
    """Each label's probability for each task (tasks x labels)."""
    shares: Floats
    """Each label's probability before any vote."""
    iterations: int
    converged: bool
    confusion: Floats | None = None
    """Annotators x true labels x labels said."""
    difficulty: Floats | None = None
    """Each task's probability that a typical annotator errs on it."""
    chances: Floats | None = None
    """For each vote, the probability that its label is right as far as *others* tell."""
    log_likelihood: float = float("nan")


# --- Dawid and Skene -------------------------------------------------------------------------------------------


def fit_dawid_skene(votes: Votes, *, iterations: int, tolerance: float, strength: float, prior: str) -> Fitted:
    """Confusion matrices by expectation-maximisation, drawn towards one accuracy per annotator by ``strength``."""
    labels, annotators = votes.labels, votes.annotators
    precision = np.float32 if len(votes.order) > MANY_VOTES else np.float64
    said = [
        shard.matrix(shard.task, shard.annotator * labels + shard.label, (shard.tasks, annotators * labels))
        for shard in votes.shards
    ]
    quick = [matrix.astype(precision) for matrix in said] if precision is np.float32 else said
    turned = [matrix.T for matrix in quick]

    def start(number: int) -> tuple[Floats, Floats, float]:
        table = votes.shards[number].shares(labels)
        return said[number].T @ table, table.sum(axis=0), 0.0

    counts, shares, _ = votes.total(start)
    majority = shares / votes.tasks
    previous, done, converged = -np.inf, 0, False
    for done in range(1, iterations + 1):  # noqa: B007 - told afterwards
        confusion = _rates(counts, votes, strength)
        table = np.log(np.maximum(confusion, TINY)).transpose(0, 2, 1).reshape(annotators * labels, labels)
        before = np.log(np.maximum(majority if prior == "majority" else shares / shares.sum(), TINY))

        def step(number: int, table: Floats = table, before: Floats = before) -> tuple[Floats, Floats, float]:
            posterior, likelihood = _posterior(quick[number], table, before, votes.shards[number])
            added = np.asarray(turned[number] @ posterior, dtype=np.float64)
            return added, posterior.T.dot(np.ones(len(posterior), dtype=posterior.dtype)).astype(np.float64), likelihood

        counts, shares, likelihood = votes.total(step)
        if likelihood - previous < tolerance * max(1.0, votes.given.sum()):
            converged = True
            break
        previous = likelihood
    posterior = np.empty((votes.tasks, labels))

    def keep(number: int) -> None:
        shard = votes.shards[number]
        posterior[shard.first : shard.last] = _posterior(said[number], table, before, shard)[0]

    votes.each(keep)
    confusion = _rates(counts, votes, strength)
    return Fitted(
        posterior, shares / shares.sum(), done, converged, confusion=confusion, log_likelihood=float(likelihood)
    )


def _posterior(said: sparse.csr_matrix, table: Floats, before: Floats, shard: Shard) -> tuple[Floats, float]:
    scores: Floats = said @ table.astype(said.dtype, copy=False)
    scores += before.astype(said.dtype, copy=False)
    lifted = 0.0
    if shard.most * float(table.min()) + float(before.min()) < LOWEST[scores.dtype]:
        highest = scores.max(axis=1, keepdims=True)
        scores -= highest
        lifted = float(highest.sum(dtype=np.float64))
    np.exp(scores, out=scores)
    total = scores @ np.ones(scores.shape[1], dtype=scores.dtype)
    likelihood = lifted + float(np.log(total).sum(dtype=np.float64))
    np.divide(1.0, total, out=total)
    scores *= total[:, None]
    set_known(scores, shard.gold)
    return scores, likelihood


def _rates(counts: Floats, votes: Votes, strength: float) -> Floats:
    """Confusion matrices (annotators x true x said) from expected counts (annotator-said x true)."""
    labels = votes.labels
    table = counts.reshape(votes.annotators, labels, labels).transpose(0, 2, 1).copy()
    if strength > 0:
        right = np.einsum("akk->a", table)
        accuracy = (right + 4) / (votes.given + 6)
        table += strength * same_for_all_labels(accuracy, labels)
    else:
        # A label that somebody never used says nothing about classes they never met.
        table[np.broadcast_to(votes.used[:, None, :], table.shape) & (table < TINY)] = TINY
    table /= table.sum(axis=2, keepdims=True)
    return table


def same_for_all_labels(accuracy: Floats, labels: int) -> Floats:
    """Confusion matrices of annotators who are right equally often whatever the truth, and err evenly."""
    table = np.empty((len(accuracy), labels, labels))
    table[:] = ((1 - accuracy) / max(labels - 1, 1))[:, None, None]
    diagonal = np.arange(labels)
    table[:, diagonal, diagonal] = accuracy[:, None]
    return table


# --- Ability and difficulty ------------------------------------------------------------------------------------

SPREAD = 1.0
"""Standard deviation of the logarithm of easiness over tasks."""
TYPICAL = 1.2
"""Prior mean of an annotator's ability: .77 right between two labels on a task of average difficulty."""
SLIPS = 5.0
"""Pseudo-errors for each pair of labels in the shared profile of errors."""

Power = float | Literal["majority"]
"""How far class shares are believed: the power of the estimated shares, or the majority's shares as they are."""


class _Parts(NamedTuple):
    """What one shard adds to the M-step."""

    right: Floats
    given: Floats
    shares: Floats
    errors: Floats
    likelihood: float


class AbilityModel:
    """P(right) = 1 / (1 + exp(-ability x easiness)), and one profile of errors shared by all annotators.

    With ``nodes`` of 1 all tasks are equally easy; otherwise easiness is log-normal and integrated out, so a task
    is never believed to be hard or easy without doubt. Which wrong label an error falls on depends on the truth
    and is the same for everybody, which is estimated well even where annotators have few judgments each.
    """

    def __init__(self, votes: Votes, *, nodes: int = 5, profile: bool = True, beta: tuple[float, float] | None = None):
        points, weights = np.polynomial.hermite_e.hermegauss(nodes)
        self.easiness = np.exp(SPREAD * points)
        self.log_weight = np.log(weights / weights.sum())
        self.votes = votes
        self.profile = profile and votes.labels > 2
        self.beta = beta
        """Pseudo-counts of right and wrong: accuracies are then estimated directly (nodes must be 1)."""
        labels, annotators = votes.labels, votes.annotators
        self.by_task = [s.matrix(s.task, s.annotator, (s.tasks, annotators)) for s in votes.shards]
        self.by_cell = [s.matrix(s.cell, s.annotator, (len(s.cell_task), annotators)) for s in votes.shards]
        self.by_label = [s.matrix(s.task, s.label, (s.tasks, labels)) for s in votes.shards]
        self.majority = votes.each(lambda number: votes.shards[number].shares(labels).sum(axis=0))
        self.majority_shares: Floats = np.sum(self.majority, axis=0) / votes.tasks

    def fit(self, power: Power, *, iterations: int, tolerance: float) -> Fitted:
        """Expectation-maximisation from the majority vote."""
        votes, nodes = self.votes, len(self.easiness)
        ability: Floats = np.full(votes.annotators, TYPICAL)
        total = _Parts(*votes.total(self._start))
        done, converged = 0, False
        for done in range(1, iterations + 1):
            before = ability
            ability = self._abilities(ability, total)
            moved = float(np.abs(ability - before).max(initial=0.0))
            errors = self._errors(total.errors)
            shares = self._shares(total.shares, power)
            if done > 1 and moved < tolerance:
                converged = True
                break
            right, wrong = self._log_rates(ability)

            def step(number: int, right: Floats = right, wrong: Floats = wrong) -> _Parts:
                return self._expect(number, right, wrong, errors, shares)[0]  # noqa: B023 - used within the loop

            total = _Parts(*votes.total(step))
        right, wrong = self._log_rates(ability)
        posterior = np.empty((votes.tasks, votes.labels))
        easiness = np.empty((votes.tasks, nodes))

        def keep(number: int) -> Floats:
            shard = votes.shards[number]
            _, table, easy, cell = self._expect(number, right, wrong, errors, shares)
            posterior[shard.first : shard.last] = table
            easiness[shard.first : shard.last] = easy
            return self._by_others(shard, easy, cell, right, wrong)

        chances = np.concatenate(votes.each(keep))
        typical = float(np.average(ability, weights=votes.given))
        return Fitted(
            posterior,
            np.exp(shares),
            done,
            converged,
            chances=chances,
            difficulty=easiness @ expit(-typical * self.easiness),
            log_likelihood=float(total.likelihood),
        )

    def _start(self, number: int) -> _Parts:
        shard, nodes = self.votes.shards[number], len(self.easiness)
        table = shard.shares(self.votes.labels)
        weight = np.exp(self.log_weight)
        right = self.by_cell[number].T @ table[shard.cell_task, shard.cell_label]
        given = np.bincount(shard.annotator, shard.weight, self.votes.annotators)
        return _Parts(
            right[:, None] * weight,
            np.repeat(given[:, None], nodes, axis=1) * weight,
            table.sum(axis=0),
            self.by_label[number].T @ table,
            0.0,
        )

    def _log_rates(self, ability: Floats) -> tuple[Floats, Floats]:
        reach = ability[:, None] * self.easiness
        return -np.logaddexp(0, -reach), -np.logaddexp(0, reach)

    def _abilities(self, ability: Floats, total: _Parts) -> Floats:
        if self.beta is not None:
            good, bad = self.beta
            rate = (total.right[:, 0] + good) / (total.given[:, 0] + good + bad)
            rate = np.clip(rate, TINY, 1 - TINY)
            logit: Floats = np.log(rate) - np.log1p(-rate)
            return logit
        # Newton's method on each annotator's concave log-posterior.
        for _ in range(4):
            rate = expit(ability[:, None] * self.easiness)
            slope = ((total.right - total.given * rate) * self.easiness).sum(axis=1) - (ability - TYPICAL)
            bend = (total.given * rate * (1 - rate) * self.easiness**2).sum(axis=1) + 1
            ability = np.clip(ability + np.clip(slope / bend, -1, 1), -3, 8)
        return ability

    def _errors(self, counts: Floats) -> Floats:
        """Log-probabilities of what is said (columns) given the truth (rows) and that it is an error; 0 if right."""
        labels = self.votes.labels
        table: Floats = np.full((labels, labels), 1 / max(labels - 1, 1))
        if self.profile:
            table = counts.T + SLIPS
            np.fill_diagonal(table, 0)
            table /= table.sum(axis=1, keepdims=True)
        np.fill_diagonal(table, 1)
        np.log(table, out=table)
        return table

    def _shares(self, sums: Floats, power: Power) -> Floats:
        if power == "majority":
            shares: Floats = np.log(np.maximum(self.majority_shares, TINY))
            return shares
        estimated = (sums + 1) / (sums.sum() + len(sums))
        shares = power * np.log(estimated)
        shares -= np.log(np.exp(shares).sum())
        return shares

    def _expect(
        self, number: int, right: Floats, wrong: Floats, errors: Floats, shares: Floats
    ) -> tuple[_Parts, Floats, Floats, Floats]:
        """The E-step of a shard: sums for the M-step, posteriors of labels, of easiness, and of both where voted.

        Only the labels that somebody voted for need a table of their own over easiness; for all others it is the
        same up to a factor. That is what keeps many labels cheap.
        """
        shard = self.votes.shards[number]
        base = self.by_task[number] @ wrong + self.log_weight
        cell = self.by_cell[number] @ (right - wrong) + base[shard.cell_task]
        if self.profile:
            odds = self.by_label[number] @ errors.T + shares
        else:
            count = np.bincount(shard.task, shard.weight, shard.tasks)
            odds = (count[:, None] - self.by_label[number].toarray()) * errors.min() + shares
        peak = odds.max(axis=1, keepdims=True)
        odds -= peak
        np.exp(odds, out=odds)
        # A known answer leaves no other label.
        set_known(odds, shard.gold)
        starts = np.searchsorted(shard.cell_task, np.arange(shard.tasks))
        highest = np.maximum(base.max(axis=1), np.maximum.reduceat(cell.max(axis=1), starts))
        base = np.exp(base - highest[:, None])
        cell = np.exp(cell - highest[shard.cell_task, None])
        own = odds[shard.cell_task, shard.cell_label]
        cell *= own[:, None]
        others = np.maximum(odds.sum(axis=1) - np.add.reduceat(own, starts), 0.0)
        easy = base * others[:, None] + np.add.reduceat(cell, starts, axis=0)
        total = easy.sum(axis=1)
        easy /= total[:, None]
        cell /= total[shard.cell_task, None]
        odds *= (base.sum(axis=1) / total)[:, None]
        odds[shard.cell_task, shard.cell_label] = cell.sum(axis=1)
        parts = _Parts(
            self.by_cell[number].T @ cell,
            self.by_task[number].T @ easy,
            odds.sum(axis=0),
            self.by_label[number].T @ odds,
            float(np.log(total).sum() + highest.sum() + peak.sum()),
        )
        return parts, odds, easy, cell

    def _by_others(self, shard: Shard, easy: Floats, cell: Floats, right: Floats, wrong: Floats) -> Floats:
        """For each vote, the probability that it is right with its own contribution divided out."""
        own = cell[shard.cell]
        rest = np.maximum(easy[shard.task] - own, 0.0)
        good = (own * np.exp(-right[shard.annotator])).sum(axis=1)
        bad = (rest * np.exp(-wrong[shard.annotator])).sum(axis=1) * max(self.votes.labels - 1, 1)
        chance = good / np.maximum(good + bad, TINY)
        known = shard.gold[shard.task]
        return np.where(known >= 0, (known == shard.label).astype(np.float64), chance)


COIN = (4.0, 2.0)
"""Pseudo-judgments right and wrong with which the one-coin model starts for everybody."""
