"""Truth inference where an answer is a set of labels: each label is a question of its own, yes or no."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from labelguard_analytics.frames import Coded, from_codes, gold_sets, read
from labelguard_analytics.options import check_flag, check_whole
from labelguard_analytics.truth.average import fit_average
from labelguard_analytics.truth.result import Truth
from labelguard_analytics.truth.votes import Floats, Ints, Votes

Judgments = pd.DataFrame | Coded


def multi_label_truth(judgments: Judgments, *, iterations: int = 60, use_gold: bool = True) -> Truth:
    """For each label of each task, the probability that it belongs there.

    Every label is inferred by itself with the default model for two answers, so an annotator may be good at one
    label and bad at another. The consensus of a task is the tuple of labels with a probability above one half.

    >>> votes = pd.DataFrame(
    ...     {"task": [1, 1, 1], "annotator": ["a", "b", "c"], "value": [["cat"], ["cat", "dog"], ["cat"]]}
    ... )
    >>> multi_label_truth(votes).labels.to_dict()
    {1: ('cat',)}

    Args:
        judgments: columns ``task``, ``annotator``, ``value`` (lists of labels), optionally ``gold`` (lists).
        iterations: the most steps.
        use_gold: whether known answers are taken as they are.

    Raises:
        BadJudgments: the frame is not what it must be.
    """
    check_whole("iterations", iterations, 1)
    check_flag("use_gold", use_gold)
    coded = read(judgments, kind="set", least=1, repeats=True)
    member = coded.membership()
    gold = gold_sets(coded) if use_gold else np.full((len(coded.tasks), len(coded.categories)), -1)
    labels, tasks = len(coded.categories), len(coded.tasks)
    posterior = np.zeros((tasks, labels))
    right = np.zeros((coded.n, labels))
    iterated, converged = 0, True
    for label in range(labels):
        said = member[coded.value, label].astype(np.int64)
        one = from_codes(coded.task, coded.annotator, said, 2)
        votes = Votes(one, gold=gold[:, label])
        fitted = fit_average(votes, iterations=iterations, tolerance=1e-3)
        posterior[:, label] = fitted.posterior[:, 1]
        right[votes.order, label] = fitted.chances
        iterated, converged = max(iterated, fitted.iterations), converged and fitted.converged
    index = coded.tasks.rename("task")
    columns = pd.Index(coded.categories, name="label")
    chosen = [tuple(columns[row]) for row in posterior > 0.5]
    return Truth(
        pd.Series(chosen, index=index, name="label", dtype=object),
        pd.DataFrame(posterior, index=index, columns=columns),
        _set_people(coded, member, posterior, right),
        _set_tasks(coded, posterior, gold, index),
        _suspicious_sets(coded, member, gold, index),
        "multi_label_truth",
        iterated,
        converged,
    )


def _set_people(coded: Coded, member: npt.NDArray[np.bool_], posterior: Floats, right: Floats) -> pd.DataFrame:
    """Accuracy over single yes-or-no decisions; a judgment is one observation, its decisions are not independent."""
    people = len(coded.annotators)
    given = np.bincount(coded.annotator, minlength=people)
    share = right.mean(axis=1) if right.shape[1] else np.ones(len(right))
    mean = np.bincount(coded.annotator, share, people) / given
    spread = np.bincount(coded.annotator, (share - mean[coded.annotator]) ** 2, people) / np.maximum(given - 1, 1)
    spread = np.maximum(spread, mean * (1 - mean) / max(right.shape[1], 1) / 4)
    half = stats.t.ppf(0.975, np.maximum(given - 1, 1)) * np.sqrt(spread / given)
    said = member[coded.value]
    truth = posterior[coded.task]
    both = np.bincount(coded.annotator, (said * truth).sum(axis=1), people)
    used = np.bincount(coded.annotator, said.sum(axis=1), people)
    there = np.bincount(coded.annotator, truth.sum(axis=1), people)
    shared = coded.sizes[coded.task] > 1
    others = np.bincount(coded.annotator, shared, people) > 0
    enough = others & (given >= 3)
    reason = np.where(enough, "", "Fewer than 3 judgments are too few for an interval.")
    reason = np.where(others, reason, "Nobody else judged any of these tasks.")
    with np.errstate(invalid="ignore", divide="ignore"):
        return pd.DataFrame(
            {
                "judgments": given,
                "accuracy": np.where(others, mean, np.nan),
                "low": np.where(enough, np.clip(mean - half, 0, 1), np.nan),
                "high": np.where(enough, np.clip(mean + half, 0, 1), np.nan),
                "precision": np.where(used > 0, both / used, 1.0),
                "recall": np.where(there > 0, both / there, 1.0),
                "reason": reason,
            },
            index=coded.annotators.rename("annotator"),
        )


def _set_tasks(coded: Coded, posterior: Floats, gold: Ints, index: pd.Index[Any]) -> pd.DataFrame:
    sure = np.maximum(posterior, 1 - posterior)
    least = sure.min(axis=1) if sure.shape[1] else np.ones(len(index))
    known = (gold >= 0).all(axis=1) & (gold.shape[1] > 0)
    verdict = np.where(least >= 0.8, "settled", "ambiguous task").astype(object)
    verdict[(coded.sizes < 2) & (least < 0.8)] = "too few judgments"
    verdict[known] = "known"
    tied = (np.abs(posterior - 0.5) < 1e-9).any(axis=1)
    return pd.DataFrame(
        {"judgments": coded.sizes, "probability": least, "tied": tied, "gold": known, "verdict": verdict}, index=index
    )


def _suspicious_sets(coded: Coded, member: npt.NDArray[np.bool_], gold: Ints, index: pd.Index[Any]) -> pd.DataFrame:
    """Known sets in which two people or more, and at least nine in ten, say otherwise for the same label."""
    tasks, labels = gold.shape
    said = np.zeros((tasks, labels))
    np.add.at(said, coded.task, member[coded.value])
    share = said / coded.sizes[:, None]
    against = np.where(gold == 1, 1 - share, share)
    wrong = (gold >= 0) & (against >= 0.9) & (coded.sizes[:, None] >= 2)
    rows, columns = np.nonzero(wrong)
    answer = np.where(gold[rows, columns] == 1, "without ", "with ")
    return pd.DataFrame(
        {
            "gold": [tuple(coded.categories[gold[row] == 1]) for row in rows],
            "said": [f"{how}{coded.categories[column]}" for how, column in zip(answer, columns, strict=True)],
            "probability": against[rows, columns],
            "judgments": coded.sizes[rows],
        },
        index=index[rows],
    )
