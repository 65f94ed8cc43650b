"""What truth inference hands back: labels with probabilities, annotators with intervals, tasks with reasons."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from labelguard_analytics.frames import Coded
from labelguard_analytics.truth.models import TINY, Fitted
from labelguard_analytics.truth.votes import Floats, Ints, Votes

SURE = 0.8
"""From this probability on a label counts as settled."""
GRID = (np.arange(1024) + 0.5) / 1024
BINS = np.linspace(-14, 14, 57)


@dataclass(frozen=True)
class Truth:
    """The most likely answers, how sure they are, and how good everybody is.

    Every number that is missing has its reason in words in the column ``reason`` of its row.
    """

    labels: pd.Series[Any]
    """The most likely answer of each task, indexed by task."""
    posterior: pd.DataFrame
    """The probability of each label (columns) for each task (rows). For numbers: mean, sd, low and high."""
    annotators: pd.DataFrame
    """Indexed by annotator: ``judgments``, ``accuracy`` with its 95% interval ``low`` to ``high``, ``reason``. For
    numbers: ``bias`` and ``sd`` with their intervals."""
    tasks: pd.DataFrame
    """Indexed by task: ``judgments``, ``probability`` of the label, ``second`` likeliest label (missing where no
    other has a probability above 0), ``tied``,
    ``difficulty`` (probability that a typical annotator errs, where the model knows it), ``gold`` (whether it was
    known), and ``verdict``: settled, ambiguous task, weak annotators, too few judgments or known."""
    suspicious_gold: pd.DataFrame
    """Known answers that good annotators contradict: ``gold``, ``said`` instead, its ``probability`` by the votes
    alone, ``judgments``."""
    method: str
    iterations: int = 0
    converged: bool = True
    confusions: Floats | None = field(default=None, repr=False)
    """Expected counts, annotators x true labels x labels said; their orders are those of ``annotators`` and of
    the columns of ``posterior``. None where there are too many to keep."""
    chances: Floats | None = field(default=None, repr=False)
    """For each vote, in order of task and label, the probability that it is right as far as others tell."""

    @property
    def ties(self) -> pd.Index[Any]:
        """The tasks in which two or more labels are equally likely."""
        return self.tasks.index[self.tasks["tied"].to_numpy(dtype=bool)]

    def confusion_of(self, annotator: Any) -> pd.DataFrame:
        """One annotator's confusion rates: a row for each true label and label said.

        Columns: ``truth``, ``said``, ``count`` (expected), ``rate`` (of the judgments with that truth) with its
        95% interval ``low`` to ``high`` (Jeffreys, on the expected counts), and ``reason`` where there is none.

        Raises:
            KeyError: there is no such annotator.
            ValueError: the matrices were not kept, because there are too many of them.
        """
        if self.confusions is None:
            raise ValueError("The confusion matrices were not kept: annotators x labels x labels is too many.")
        counts = self.confusions[self.annotators.index.get_loc(annotator)]
        given = np.repeat(counts.sum(axis=1), counts.shape[1])
        flat = counts.ravel()
        labels = self.posterior.columns
        known = given > 0
        with np.errstate(invalid="ignore", divide="ignore"):
            rate = np.where(known, flat / given, np.nan)
        low = stats.beta.ppf(0.025, flat + 0.5, given - flat + 0.5)
        high = stats.beta.ppf(0.975, flat + 0.5, given - flat + 0.5)
        low, high = np.where(flat < 1e-9, 0.0, low), np.where(given - flat < 1e-9, 1.0, high)
        return pd.DataFrame(
            {
                "truth": np.repeat(np.asarray(labels), len(labels)),
                "said": np.tile(np.asarray(labels), len(labels)),
                "count": flat,
                "rate": rate,
                "low": np.where(known, low, np.nan),
                "high": np.where(known, high, np.nan),
                "reason": np.where(known, "", "No task of theirs is likely to have this truth."),
            }
        )

    def explain(self) -> str:
        """The result in two plain sentences."""
        if "bias" in self.annotators:
            return self._explain_numbers()
        tasks, people = len(self.tasks), len(self.annotators)
        verdicts = self.tasks["verdict"].value_counts()
        unsettled = [
            f"{int(verdicts[name]):,} {words}"
            for name, words in (
                ("ambiguous task", "divide good annotators"),
                ("weak annotators", "rest on weak annotators"),
                ("too few judgments", "have too few judgments"),
            )
            if name in verdicts
        ]
        settled = int(verdicts.get("settled", 0)) + int(verdicts.get("known", 0))
        first = f"{settled:,} of {_many(tasks, 'task')} {'is' if settled == 1 else 'are'} settled"
        first += f"; {_and(unsettled)}." if unsettled else "."
        accuracy = self.annotators["accuracy"].dropna()
        if accuracy.empty:
            return f"{first} Nothing can be said of {_many(people, 'annotator')}: {self.annotators['reason'].iloc[0]}"
        weak = int((self.annotators["high"] < accuracy.median()).sum())
        second = f"The accuracy of {_many(len(accuracy), 'annotator')} runs from {accuracy.min():.2f} to "
        second += f"{accuracy.max():.2f} with a median of {accuracy.median():.2f}, and {weak} "
        return f"{first} {second}{'is' if weak == 1 else 'are'} surely below that median."

    def _explain_numbers(self) -> str:
        tasks, bias = len(self.tasks), self.annotators["bias"].abs()
        if self.method == "ordinal_truth":
            sure = int((self.tasks["probability"] >= SURE).sum())
            first = (
                f"{sure:,} of {_many(tasks, 'task')} {'has' if sure == 1 else 'have'} a label of probability {SURE} "
            )
            first += "or more."
        else:
            half = (self.posterior["high"] - self.posterior["low"]).median() / 2
            first = f"{_many(tasks, 'task')} {'has' if tasks == 1 else 'have'} a consensus known to within {half:.3g} "
            first += "(median)."
        if bias.dropna().empty:
            return f"{first} Nothing can be said of the annotators: {self.annotators['reason'].iloc[0]}"
        surely = int(((self.annotators["bias_low"] > 0) | (self.annotators["bias_high"] < 0)).sum())
        return (
            f"{first} The largest bias of {_many(len(bias), 'annotator')} is {bias.max():.3g}, and {surely} "
            f"{'is' if surely == 1 else 'are'} surely biased."
        )


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def _and(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


MOST_CELLS = 20_000_000


def make_truth(coded: Coded, votes: Votes, fitted: Fitted, method: str) -> Truth:
    """Labels, annotators and tasks from a model's posterior."""
    posterior = fitted.posterior
    best = _best(posterior, votes)
    labels = pd.Series(coded.categories.take(best), index=_named(coded.tasks, "task"), name="label")
    accuracies = _annotators(coded, votes, fitted)
    tasks = _tasks(coded, votes, fitted, best, accuracies["accuracy"].to_numpy())
    counts = None
    if votes.annotators * votes.labels**2 <= MOST_CELLS:
        counts = confusion_counts(votes, posterior)
    return Truth(
        labels,
        pd.DataFrame(posterior, index=labels.index, columns=pd.Index(coded.categories, name="label"), copy=False),
        accuracies,
        tasks,
        _suspicious(coded, votes, accuracies["accuracy"].to_numpy()),
        method,
        fitted.iterations,
        fitted.converged,
        counts,
        fitted.chances,
    )


def _named(index: pd.Index[Any], name: str) -> pd.Index[Any]:
    return index.rename(name)


def _best(posterior: Floats, votes: Votes) -> Ints:
    """The likeliest label; among equally likely ones the one more common in all votes, then the first."""
    best: Ints = posterior.argmax(axis=1)
    top = posterior[np.arange(len(posterior)), best]
    equal = np.flatnonzero((posterior >= top[:, None] - 1e-9).sum(axis=1) > 1)
    if len(equal):
        common = np.zeros(votes.labels)
        for shard in votes.shards:
            common += np.bincount(shard.label, shard.weight, votes.labels)
        tied = posterior[equal] >= top[equal, None] - 1e-9
        best[equal] = np.where(tied, common, -1.0).argmax(axis=1)
    return best


def confusion_counts(votes: Votes, posterior: Floats) -> Floats:
    """Expected counts (annotators x true labels x labels said)."""
    labels = votes.labels
    counts = np.zeros((votes.annotators * labels, labels))
    for shard in votes.shards:
        said = shard.matrix(shard.task, shard.annotator * labels + shard.label, (shard.tasks, len(counts)))
        counts += said.T @ posterior[shard.first : shard.last]
    return counts.reshape(votes.annotators, labels, labels).transpose(0, 2, 1)


def chances_by_others(votes: Votes, posterior: Floats, confusion: Floats) -> Floats:
    """For each vote, the probability that its label is right as far as others tell.

    A vote must not confirm itself: what the annotator's confusion matrix made of it is divided out.
    """
    chances = []
    for shard in votes.shards:
        table = posterior[shard.first : shard.last][shard.task]
        table = table / np.maximum(confusion[shard.annotator, :, shard.label], TINY)
        chance = table[np.arange(len(table)), shard.label] / np.maximum(table.sum(axis=1), TINY)
        known = shard.gold[shard.task]
        chances.append(np.where(known >= 0, (known == shard.label).astype(np.float64), chance))
    return np.concatenate(chances)


def _annotators(coded: Coded, votes: Votes, fitted: Fitted) -> pd.DataFrame:
    """Accuracy of each annotator: the posterior mean and 95% interval given what others say of their tasks.

    Each vote is right with the probability that others give its label. The likelihood of an accuracy ``x`` is the
    product of ``q x + (1 - q)(1 - x) / (labels - 1)`` over the votes, and the prior is Jeffreys'. So doubt about
    the truth widens the interval, and where nobody else says anything nothing is claimed.
    """
    index = _named(coded.annotators, "annotator")
    frame = pd.DataFrame({"judgments": np.bincount(coded.annotator, minlength=len(index))}, index=index)
    if votes.labels < 2:
        one_label = "There is only one label, so nothing tells right from wrong."
        return frame.assign(accuracy=np.nan, low=np.nan, high=np.nan, reason=one_label)
    chances = fitted.chances
    if chances is None:
        assert fitted.confusion is not None  # noqa: S101 - a model has one or the other
        chances = chances_by_others(votes, fitted.posterior, fitted.confusion)
    people = np.concatenate([shard.annotator for shard in votes.shards])
    value, low, high = accuracy_intervals(people, chances, votes.annotators, votes.labels)
    others = _have_others(votes)
    reason = np.where(others, "", "Nobody else judged any of these tasks and none has a known answer.")
    return frame.assign(
        accuracy=np.where(others, value, np.nan),
        low=np.where(others, low, np.nan),
        high=np.where(others, high, np.nan),
        reason=reason,
    )


def accuracy_intervals(people: Ints, chances: Floats, annotators: int, labels: int) -> tuple[Floats, Floats, Floats]:
    """Mean, 2.5% and 97.5% points of the accuracy of each annotator; votes are binned by their log-odds."""
    odds = np.log(np.maximum(chances, TINY)) - np.log(np.maximum(1 - chances, TINY))
    width = BINS[1] - BINS[0]
    place = np.clip(np.rint((odds - BINS[0]) / width), 0, len(BINS) - 1).astype(np.int64)
    counts = np.bincount(people * len(BINS) + place, minlength=annotators * len(BINS)).reshape(annotators, len(BINS))
    # A bin stands for the mean of what is in it.
    sums = np.bincount(place, chances, len(BINS))
    number = np.bincount(place, minlength=len(BINS))
    chance = np.where(number > 0, sums / np.maximum(number, 1), 0.5)
    table = np.log(chance[:, None] * GRID + (1 - chance[:, None]) * (1 - GRID) / (labels - 1))
    value, low, high = np.empty(annotators), np.empty(annotators), np.empty(annotators)
    prior = -0.5 * np.log(GRID * (1 - GRID))
    edges = np.concatenate([[0.0], (np.arange(len(GRID)) + 1) / len(GRID)])
    for first in range(0, annotators, 512):
        part = slice(first, min(first + 512, annotators))
        density = counts[part] @ table + prior
        density = np.exp(density - density.max(axis=1, keepdims=True))
        density /= density.sum(axis=1, keepdims=True)
        value[part] = density @ GRID
        below = np.concatenate([np.zeros((len(density), 1)), np.cumsum(density, axis=1)], axis=1)
        for row, curve in enumerate(below, start=first):
            low[row], high[row] = np.interp((0.025, 0.975), curve, edges)
    return value, low, high


def _have_others(votes: Votes) -> npt.NDArray[np.bool_]:
    """Which annotators share a task with somebody else or with a known answer."""
    found = np.zeros(votes.annotators, dtype=bool)
    for shard in votes.shards:
        lowest = np.full(shard.tasks, votes.annotators)
        highest = np.full(shard.tasks, -1)
        np.minimum.at(lowest, shard.task, shard.annotator)
        np.maximum.at(highest, shard.task, shard.annotator)
        shared = (lowest != highest) | (shard.gold >= 0)
        found[shard.annotator[shared[shard.task]]] = True
    return found


def _tasks(coded: Coded, votes: Votes, fitted: Fitted, best: Ints, accuracy: Floats) -> pd.DataFrame:
    posterior = fitted.posterior
    rows = np.arange(votes.tasks)
    top = posterior[rows, best]
    kept = posterior[rows, best].copy()
    posterior[rows, best] = -1.0
    second = posterior.argmax(axis=1)
    runner = posterior[rows, second]
    posterior[rows, best] = kept
    tied = (top - runner <= 1e-9) & (votes.labels > 1)
    known = votes.gold >= 0
    frame = pd.DataFrame(
        {
            "judgments": coded.sizes,
            "probability": top,
            "second": coded.categories.take(second).where(runner > 0) if votes.labels > 1 else None,
            "tied": tied,
            "difficulty": np.nan if fitted.difficulty is None else fitted.difficulty,
            "gold": known,
            "verdict": _verdicts(coded, votes, top, accuracy),
        },
        index=_named(coded.tasks, "task"),
    )
    return frame.drop(columns="difficulty") if fitted.difficulty is None else frame


def _verdicts(coded: Coded, votes: Votes, top: Floats, accuracy: Floats) -> npt.NDArray[np.object_]:
    """Why a task is unsettled: had its annotators agreed, would that have settled it?"""
    labels = max(votes.labels, 2)
    rate = np.clip(np.where(np.isnan(accuracy), 0.5, accuracy), 0.01, 0.99)
    weight = np.log(rate * (labels - 1) / (1 - rate))
    agreed = np.bincount(coded.task, np.maximum(weight, 0)[coded.annotator], votes.tasks)
    would_be = 1 / (1 + (labels - 1) * np.exp(-agreed))
    verdict = np.where(would_be >= 0.9, "ambiguous task", "weak annotators").astype(object)
    verdict[coded.sizes < 2] = "too few judgments"
    verdict[top >= SURE] = "settled"
    verdict[votes.gold >= 0] = "known"
    return verdict


def _suspicious(coded: Coded, votes: Votes, accuracy: Floats) -> pd.DataFrame:
    """Known answers that the votes alone contradict with a probability of at least .95, by two people or more."""
    columns = ["gold", "said", "probability", "judgments"]
    index = _named(coded.tasks, "task")
    checked = np.flatnonzero(votes.gold >= 0)
    if not len(checked) or votes.labels < 2:
        return pd.DataFrame({name: [] for name in columns}, index=index[:0])
    place = np.full(votes.tasks, -1)
    place[checked] = np.arange(len(checked))
    rows = np.flatnonzero(place[coded.task] >= 0)
    rate = np.clip(np.where(np.isnan(accuracy), 0.5, accuracy), 0.01, 0.99)
    weight = np.log(rate * (votes.labels - 1) / (1 - rate))
    key = place[coded.task[rows]] * votes.labels + coded.value[rows]
    scores = np.bincount(key, weight[coded.annotator[rows]], len(checked) * votes.labels).reshape(len(checked), -1)
    scores -= scores.max(axis=1, keepdims=True)
    chance = np.exp(scores)
    chance /= chance.sum(axis=1, keepdims=True)
    said = chance.argmax(axis=1)
    probability = chance[np.arange(len(checked)), said]
    supporters = np.bincount(key, minlength=len(checked) * votes.labels).reshape(len(checked), -1)
    wrong = (said != votes.gold[checked]) & (probability >= 0.95) & (supporters[np.arange(len(checked)), said] >= 2)
    found = checked[wrong]
    return pd.DataFrame(
        {
            "gold": coded.categories.take(votes.gold[found]),
            "said": coded.categories.take(said[wrong]),
            "probability": probability[wrong],
            "judgments": coded.sizes[found],
        },
        index=index[found],
    ).sort_values("probability", ascending=False, kind="stable")
