"""Made-up crews of honest people who are unlike each other, and of people with one systematic error."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

LABELS = np.array(["news", "spam", "ham", "ads", "other", "poem", "law", "code"])
SOURCES = np.array(["mail", "web", "chat"])
MONDAY = pd.Timestamp("2026-01-05", tz="UTC")


@dataclass(frozen=True)
class Crew:
    """Judgments with what is true about them."""

    frame: pd.DataFrame
    truth: npt.NDArray[np.intp]
    """Of each judgment."""
    value: npt.NDArray[np.intp]
    """What was said, as a place in ``names``."""
    labels: int
    names: npt.NDArray[Any] = field(default_factory=lambda: LABELS)

    def said(self, value: npt.NDArray[np.intp]) -> pd.DataFrame:
        """The frame with other answers."""
        return self.frame.assign(value=self.names[value])

    def of(self, annotator: int) -> npt.NDArray[np.bool_]:
        """Whose judgments they are."""
        return (self.frame["annotator"] == annotator).to_numpy()


def crew(
    seed: int,
    *,
    annotators: int = 20,
    tasks: int = 1500,
    per_task: int = 3,
    labels: int = 4,
    order: str = "sorted",
) -> Crew:
    """Honest people of unequal accuracy who learn, with a case mix, volume and confusions of their own.

    Three sources with class shares and difficulties of their own, which people get in unequal parts. Errors follow a
    confusion that everybody shares, a little changed by everybody. On 15% of the tasks a certain wrong label looks
    right: whoever sees them says it in 45% of cases, however good they are. ``order`` is ``sorted`` (everybody works
    through the tasks by source and truth) or ``mixed``. The frame has the columns task, annotator, value, at, source
    and prediction (a model right in about 80% of cases, which falls for the same hard tasks).
    """
    rng = np.random.default_rng([seed, 77])
    source = rng.integers(0, 3, tasks)
    shares = rng.dirichlet(np.full(labels, 2.0), 3)
    truth = (rng.random(tasks)[:, None] > np.cumsum(shares[source], axis=1)).sum(axis=1).clip(0, labels - 1)
    hard = rng.random(tasks) < np.array([0.05, 0.15, 0.3])[source]
    lure = (truth + rng.integers(1, labels, tasks)) % labels
    start, end = rng.uniform(0.55, 0.9, annotators), rng.uniform(0.85, 0.95, annotators)
    pace = rng.uniform(30, 150, annotators)
    shared = rng.dirichlet(np.full(labels, 2.0), labels) + 0.02
    own = np.stack([[rng.dirichlet(15 * row / row.sum()) for row in shared] for _ in range(annotators)])
    own[:, np.arange(labels), np.arange(labels)] = 0
    own /= own.sum(axis=2, keepdims=True)
    place = np.lexsort((truth, source)) if order == "sorted" else rng.permutation(tasks)
    source, truth, hard, lure = source[place], truth[place], hard[place], lure[place]
    # Who judges what: everybody has a weight for each source.
    weight = rng.gamma(4.0, 1.0, (annotators, 1)) * rng.dirichlet(np.ones(3), annotators)
    luck = rng.gumbel(size=(tasks, annotators)) + np.log(weight[:, source].T + 1e-9)
    who = np.argsort(-luck, axis=1)[:, :per_task]
    task = np.repeat(np.arange(tasks), per_task)
    people = who.ravel()
    frame = pd.DataFrame({"task": task, "annotator": people})
    done = frame.groupby("annotator").cumcount().to_numpy()
    accuracy = end[people] - np.maximum(end - start, 0)[people] * np.exp(-done / pace[people])
    cumulated = np.cumsum(own, axis=2)[people, truth[task]]
    wrong = (rng.random(len(task))[:, None] > cumulated).sum(axis=1).clip(0, labels - 1)
    value = np.where(rng.random(len(task)) < accuracy, truth[task], wrong)
    value = np.where(hard[task] & (rng.random(len(task)) < 0.45), lure[task], value)
    by_model = np.where(
        rng.random(tasks) < 0.85, truth, (rng.random(tasks)[:, None] > np.cumsum(shared, 1)[truth]).sum(1)
    )
    by_model = np.where(hard & (rng.random(tasks) < 0.5), lure, by_model).clip(0, labels - 1)
    minutes = (done // 60) * 24 * 60 + (done % 60) + rng.random(len(task))
    frame = frame.assign(
        value=LABELS[value],
        at=MONDAY + pd.to_timedelta(minutes, unit="min"),
        source=SOURCES[source[task]],
        prediction=LABELS[by_model[task]],
    )
    return Crew(frame, truth[task], value, labels)


@dataclass(frozen=True)
class Plant:
    """A systematic error put into the judgments of an honest crew."""

    frame: pd.DataFrame
    guilty: object
    """What should be found: an annotator, a pair, or an annotator with a source."""


def _suspect(made: Crew) -> tuple[int, npt.NDArray[np.bool_]]:
    """The annotator with the fourth most judgments, and which these are."""
    who = int(made.frame["annotator"].value_counts().index[3])
    return who, made.of(who)


def overusing(made: Crew, seed: int, share: float = 0.25) -> Plant:
    """A share of somebody's judgments is replaced by one label."""
    rng, (who, mine) = np.random.default_rng([seed, 1]), _suspect(made)
    return Plant(made.said(np.where(mine & (rng.random(len(mine)) < share), 1, made.value)), who)


def biased(made: Crew, seed: int, points: float = 0.15) -> Plant:
    """In somebody's main source a label is said this much more often (their second source if they hardly have two)."""
    rng, (who, mine) = np.random.default_rng([seed, 2]), _suspect(made)
    counts = made.frame[mine]["source"].value_counts()
    source = str(counts.index[0] if counts.iloc[0] < 0.8 * mine.sum() else counts.index[1])
    there = mine & (made.frame["source"] == source).to_numpy()
    chance = points / (1 - (made.value[there] == 1).mean())
    return Plant(made.said(np.where(there & (rng.random(len(mine)) < chance), 1, made.value)), (who, source))


def copying_predictions(made: Crew, seed: int, share: float = 0.4) -> Plant:
    """Somebody accepts this share of the wrong predictions, whatever they think, in a tenth of the usual time."""
    rng, (who, mine) = np.random.default_rng([seed, 3]), _suspect(made)
    predicted = pd.Index(made.names).get_indexer(made.frame["prediction"])
    copied = mine & (predicted != made.truth) & (rng.random(len(mine)) < share)
    seconds = np.where(copied, 2.0, 20.0) * np.exp(rng.normal(0, 0.3, len(mine)))
    return Plant(made.said(np.where(copied, predicted, made.value)).assign(duration=seconds), who)


def cycling(made: Crew, seed: int, share: float = 0.3) -> Plant:
    """For this share of somebody's work their labels go round in a circle of three (of two where there are two)."""
    rng, (who, mine) = np.random.default_rng([seed, 4]), _suspect(made)
    rows = np.flatnonzero(mine)
    length = int(share * len(rows))
    start = int(rng.integers(0, len(rows) - length))
    value = made.value.copy()
    value[rows[start : start + length]] = np.arange(length) % min(3, made.labels)
    return Plant(made.said(value), who)


def copying_each_other(made: Crew, seed: int, share: float = 0.3) -> Plant:
    """Whoever shares most tasks with somebody takes this share of the answers from them."""
    rng, (who, mine) = np.random.default_rng([seed, 5]), _suspect(made)
    answers = pd.Series(made.value[mine], index=made.frame["task"][mine])
    common = made.frame["task"].isin(answers.index)
    other = int(made.frame[common & ~mine]["annotator"].value_counts().index[0])
    copied = made.of(other) & common.to_numpy() & (rng.random(len(mine)) < share)
    value = made.value.copy()
    value[copied] = answers.reindex(made.frame["task"][copied]).to_numpy()
    return Plant(made.said(value), (min(who, other), max(who, other)))


def confusing(made: Crew, seed: int, share: float = 0.7) -> Plant:
    """This share of somebody's errors, as many as before, takes their most frequent truth for a certain label."""
    rng, (who, mine) = np.random.default_rng([seed, 6]), _suspect(made)
    truth = int(np.bincount(made.truth[mine]).argmax())
    value = made.value.copy()
    wrong = rng.permutation(np.flatnonzero(mine & (value != made.truth)))
    number = int(share * len(wrong))
    value[wrong[:number]] = made.truth[wrong[:number]]
    right = rng.permutation(np.flatnonzero(mine & (made.truth == truth) & (value == truth)))
    value[right[:number]] = (truth + 1) % made.labels
    return Plant(made.said(value), who)
