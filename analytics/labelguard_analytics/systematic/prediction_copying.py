"""Pre-annotations that are accepted where they are wrong."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from labelguard_analytics.frames import BadJudgments, Coded, Floats, encode, read
from labelguard_analytics.systematic.exchange import Marked, Options, examine, fit, options, references
from labelguard_analytics.systematic.findings import Findings, check_arguments, conclude, too_little

Ints = npt.NDArray[np.int64]
COLUMNS = ("prediction", "prediction_shown")
FIXED = 1e4
"""Precision of a prior that data does not move."""
FAST = 0.5
"""Acceptances whose median time is below this part of the annotator's median are called fast."""


def prediction_copying(
    judgments: pd.DataFrame | Coded,
    predictions: pd.Series[Any] | None = None,
    *,
    tolerance: float = 1.25,
    level: float = 0.1,
    min_judgments: int = 20,
) -> Findings:
    """Find annotators who accept wrong pre-annotations more often than they would make these errors by themselves.

        A wrong prediction is often a mistake that people make too, because the item is hard. So an acceptance is
    compared with what others said about the very same task: with those to whom the prediction was not shown, where
    the column ``prediction_shown`` says that there are any, else with all colleagues; and with how often the
    annotator deviates in other ways (:mod:`.exchange`), where nobody is expected to be better than colleagues, since
    good annotators may fall for hard tasks like anybody. Agreeing with right predictions is no evidence of copying.
    Where the prediction was shown to everybody and everybody copies alike, no comparison of people can show it:
    show it to some and not to others. Known answers (``gold``) find most: a copied error may else be the majority.

    >>> rng = np.random.default_rng(5)
        >>> labels = np.array(["ham", "news", "spam"])
        >>> frame = pd.DataFrame({"task": np.repeat(np.arange(400), 3), "annotator": ["ann", "bob", "eve"] * 400})
        >>> right = np.repeat(rng.choice(labels, 400), 3)
        >>> predicted = np.where(rng.random(400) < 0.7, right[::3], rng.choice(labels, 400))
        >>> frame["value"] = np.where(rng.random(1200) < 0.9, right, rng.choice(labels, 1200))
        >>> copied = (frame["annotator"] == "eve") & (rng.random(1200) < 0.5)
        >>> frame.loc[copied, "value"] = np.repeat(predicted, 3)[copied]
        >>> prediction_copying(frame, pd.Series(predicted)).discovered
        ('eve',)

        Args:
            judgments: columns ``task``, ``annotator``, ``value`` (a label), optionally ``prediction`` (a label),
                ``prediction_shown`` (true or false), ``duration`` and ``gold``.
            predictions: the predicted label of each task, indexed by task, in place of the column.
            tolerance: the odds ratio by which honest people may prefer a wrong prediction to other errors.
            level: the false discovery rate over annotators.
            min_judgments: judgments of tasks with a wrong prediction on which people differ that an annotator needs.

        Returns:
            A row for each annotator: ``accepted`` (predictions that are wrong by the task's known answer or majority),
            ``expected``, ``odds_ratio`` with ``low`` to ``high``, ``judgments`` (of disputed tasks with a wrong
            prediction), ``accept_seconds`` and ``other_seconds`` (median durations of those acceptances and of all
            else), and what :class:`Findings` says.

        Raises:
            BadJudgments: the frame is not what it must be, or there are no predictions.
            ValueError: an argument is not what it must be.
    """
    check_arguments(level, tolerance, min_judgments)
    coded = read(judgments, extra=COLUMNS)
    predicted = _predicted(coded, predictions)
    shown = _shown(coded)
    controls = (predicted >= 0) & ~shown
    reference = references(coded, coded.gold())
    chosen = options(coded, reference, controls if controls.any() else None)
    exposed = shown[chosen.judgment] & (predicted[chosen.judgment] >= 0)
    hit = (
        chosen.deviates
        & (chosen.reference >= 0)
        & (chosen.label == predicted[chosen.judgment][chosen.row])
        & exposed[chosen.row]
    )
    who = chosen.who[chosen.row]
    mark, member = np.where(hit, who, -1), np.where(chosen.deviates, who, -1)
    result = _test(chosen, mark, member, tolerance)
    enough = result.seen >= min_judgments
    ratio, low, high = (np.where(enough, part, np.nan) for part in result.ratio)
    accept, other = _seconds(coded, chosen, hit)
    table = pd.DataFrame(
        {
            "annotator": coded.annotators,
            "accepted": result.observed,
            "expected": np.where(enough, result.expected, np.nan),
            "odds_ratio": ratio,
            "low": low,
            "high": high,
            "p": np.where(enough, result.p, np.nan),
            "judgments": result.seen.astype(np.int64),
            "accept_seconds": accept,
            "other_seconds": other,
            "reason": [
                "" if fine else too_little(int(n), "judgment on disputed tasks with a wrong prediction", min_judgments)
                for fine, n in zip(enough, result.seen, strict=True)
            ],
        }
    )
    compared = "others who did not see it" if controls.any() else "others"
    return conclude(
        table,
        ["annotator"],
        level,
        lambda row: _describe(row, compared),
        what="annotators",
        nothing=f"none accepts wrong predictions by more than {tolerance:g} times the odds of others on the same tasks",
        advice="Give them tasks without predictions for a while, and compare how often they are right.",
    )


def _test(chosen: Options, mark: Ints, member: Ints, tolerance: float) -> Marked:
    """Acceptances against everybody's other deviations, but nobody is expected to be better than colleagues.

    Predictions are wrong on hard tasks, and there good annotators may err as often as anybody.
    """
    fitted = fit(chosen)
    everybody = np.arange(chosen.people)
    usual = examine(fitted, mark, everybody, member, chosen.people, tolerance, together=True)
    better = fitted.deviating + usual.other < 0
    equal = examine(
        fitted,
        mark,
        everybody,
        member,
        chosen.people,
        tolerance,
        together=True,
        caution=FIXED,
        centre=-fitted.deviating,
    )
    parts = {one.name: np.where(better, getattr(equal, one.name), getattr(usual, one.name)) for one in fields(Marked)}
    return Marked(**parts)


def _describe(row: pd.Series[Any], compared: str) -> str:
    text = (
        f"{row['annotator']} accepted {row['accepted']:.0f} of {row['judgments']} wrong predictions on which people "
        f"differ, where {row['expected']:.0f} would be expected from {compared} on the same tasks (odds "
        f"{row['odds_ratio']:.1f} times as large, 95% interval {row['low']:.1f} to {row['high']:.1f})"
    )
    if row["accept_seconds"] < FAST * row["other_seconds"]:
        text += f", and took {row['accept_seconds']:.3g} s for them against {row['other_seconds']:.3g} s otherwise"
    return text


def _predicted(coded: Coded, predictions: pd.Series[Any] | None) -> Ints:
    """The place of each judgment's prediction among the labels; -1 where there is none, -2 where nobody said it."""
    if predictions is not None:
        if not isinstance(predictions, pd.Series):
            raise BadJudgments(
                f"predictions must be a Series of labels indexed by task, not a {type(predictions).__name__}."
            )
        if predictions.index.has_duplicates:
            twice = predictions.index[predictions.index.duplicated()][0]
            raise BadJudgments(f"predictions has two entries for task {twice}.")
        of_task = predictions.reindex(coded.tasks)
        codes, names = encode(of_task, "predictions", missing=True)
        codes = codes[coded.task]
    elif "prediction" in coded.frame.columns:
        codes, names = coded.group("prediction")
    else:
        raise BadJudgments(
            "The column 'prediction' is missing, which is needed here; or give the argument predictions."
        )
    if not (codes >= 0).any():
        raise BadJudgments("There is no prediction: the column 'prediction' is empty in every row.")
    places = coded.categories.get_indexer(names)
    return np.where(codes >= 0, np.where(places >= 0, places, -2)[codes], -1).astype(np.int64)


def _shown(coded: Coded) -> npt.NDArray[np.bool_]:
    if "prediction_shown" not in coded.frame.columns:
        return np.ones(coded.n, dtype=bool)
    column = coded.frame["prediction_shown"]
    for position, value in enumerate(column.drop_duplicates()):
        if not isinstance(value, (bool, np.bool_)):
            row = column.drop_duplicates().index[position]
            raise BadJudgments(
                f"The column 'prediction_shown' must hold True or False, but row {row!r} holds {value!r}."
            )
    return column.to_numpy(dtype=bool)


def _seconds(coded: Coded, chosen: Options, hit: npt.NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Median durations of each annotator's acceptances of wrong predictions, and of everything else."""
    people = len(coded.annotators)
    if "duration" not in coded.frame.columns:
        return np.full(people, np.nan), np.full(people, np.nan)
    accepted = np.zeros(coded.n, dtype=bool)
    accepted[chosen.judgment[chosen.row[hit & chosen.chosen]]] = True
    seconds = pd.Series(coded.numbers("duration"))
    who = pd.RangeIndex(people)
    parts = [seconds[part].groupby(coded.annotator[part]).median().reindex(who) for part in (accepted, ~accepted)]
    return parts[0].to_numpy(dtype=np.float64), parts[1].to_numpy(dtype=np.float64)
