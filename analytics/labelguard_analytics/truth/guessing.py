"""The model behind truth inference in which somebody knows the answer or guesses."""

from __future__ import annotations

import numpy as np

from labelguard_analytics.truth.models import TINY, Fitted
from labelguard_analytics.truth.votes import Floats, Shard, Votes, set_known

KNOWS = (3.0, 2.0)
"""Pseudo-judgments known and guessed with which everybody starts."""
HABIT = 2.0
"""Pseudo-guesses for each label with which everybody starts: no label is anybody's habit until it shows."""
FIRST = 0.6
"""The share of judgments that somebody knows, before anything was seen."""


class GuessingModel:
    """An annotator knows the answer with a probability of their own, or else guesses by a habit of their own.

    The model of MACE (Hovy et al. 2013), with priors on both and class shares that are estimated. It sees what a
    single ability cannot: who says one label whatever the task shows, and so is seldom wrong where that label is
    common and worth nothing where it is rare.
    """

    def __init__(self, votes: Votes) -> None:
        self.votes = votes
        self.said = [shard.annotator * votes.labels + shard.label for shard in votes.shards]
        """For each vote, the place of its annotator and label in a table of guesses."""

    def fit(self, *, iterations: int, tolerance: float) -> Fitted:
        """Expectation-maximisation from the majority vote."""
        votes = self.votes
        knows: Floats = np.full(votes.annotators, FIRST)
        guess: Floats = np.full(votes.annotators * votes.labels, (1 - FIRST) / votes.labels)

        def start(number: int) -> tuple[Floats, Floats]:
            shard = votes.shards[number]
            table = shard.shares(votes.labels)
            return self._guessed(number, table, knows[shard.annotator], guess), table.sum(axis=0)

        guessed, shares = votes.total(start)
        done, converged = 0, False
        for done in range(1, iterations + 1):
            before = knows
            knows, guess = self._maximise(guessed)
            # Every label keeps a little, so that one nobody is sure of does not become impossible.
            expected = np.log((shares + 1) / (votes.tasks + votes.labels))

            def step(
                number: int, knows: Floats = knows, guess: Floats = guess, expected: Floats = expected
            ) -> tuple[Floats, Floats]:
                table = self._posterior(number, knows, guess, expected)
                own = knows[votes.shards[number].annotator]
                return self._guessed(number, table, own, guess), table.sum(axis=0)

            guessed, shares = votes.total(step)
            if done > 1 and float(np.abs(knows - before).max(initial=0.0)) < tolerance:
                converged = True
                break
        posterior = np.concatenate(votes.each(lambda number: self._posterior(number, knows, guess, expected)))
        return Fitted(posterior, np.exp(expected), done, converged)

    def _maximise(self, guessed: Floats) -> tuple[Floats, Floats]:
        """Each annotator's chance to know, and to guess each label (annotators x labels, flat)."""
        table = guessed.reshape(self.votes.annotators, self.votes.labels)
        known = self.votes.given - table.sum(axis=1)
        knows: Floats = (known + KNOWS[0]) / (self.votes.given + sum(KNOWS))
        habit = table + HABIT
        habit /= habit.sum(axis=1, keepdims=True)
        return knows, np.maximum((1 - knows)[:, None] * habit, TINY).ravel()

    def _guessed(self, number: int, posterior: Floats, knows: Floats, guess: Floats) -> Floats:
        """How often each annotator is expected to have guessed each label in a shard (annotators x labels, flat)."""
        shard, said = self.votes.shards[number], self.said[number]
        chance = guess[said]
        known = posterior[shard.task, shard.label] * knows / (knows + chance)
        return np.bincount(said, shard.weight * (1 - known), len(guess)).astype(np.float64, copy=False)

    def _posterior(self, number: int, knows: Floats, guess: Floats, expected: Floats) -> Floats:
        """Each label's probability for each task of a shard (tasks x labels)."""
        shard: Shard = self.votes.shards[number]
        # Guessing is as likely whatever the truth is; only the label that was said can also have been known.
        lift = shard.weight * np.log1p(knows[shard.annotator] / guess[self.said[number]])
        cells = shard.task * self.votes.labels + shard.label
        counts = np.bincount(cells, lift, shard.tasks * self.votes.labels).astype(np.float64, copy=False)
        table: Floats = counts.reshape(shard.tasks, -1)
        table += expected
        table -= table.max(axis=1, keepdims=True)
        np.exp(table, out=table)
        table /= table.sum(axis=1, keepdims=True)
        set_known(table, shard.gold)
        return table
