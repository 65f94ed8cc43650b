"""A label that somebody uses more often than the tasks call for."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from labelguard_analytics.frames import Coded, read
from labelguard_analytics.systematic.exchange import Marked, Options, examine, fit, options, references
from labelguard_analytics.systematic.findings import Findings, check_arguments, conclude, too_little

ONE_PEER = 2 / 3
"""The part of an excess that may come from disagreeing with one single peer, as in the guardrail of this name."""


def label_overuse(
    judgments: pd.DataFrame | Coded, *, tolerance: float = 1.5, level: float = 0.1, min_judgments: int = 20
) -> Findings:
    """Find annotators who use one label far more often than others do on the same tasks.

    Whoever gets the spam queue says "spam" more often than anybody else, and should. So each use is compared with
    what was said about that very task: only tasks on which people differ count, and of ``n`` annotators of whom ``m``
    used the label, everybody is expected to be one of them with a share of ``m/n``, corrected for how often they
    deviate at all (:mod:`.exchange`). Somebody who errs more than others errs towards every label; somebody who
    overuses a label errs towards that one.

    Where most of an excess comes from disagreeing with one single peer, it may be the peer who avoids the label:
    nobody is named, and ``reason`` says so. Known answers (``gold``) cure that, and count as one more opinion.

    >>> rng = np.random.default_rng(3)
    >>> frame = pd.DataFrame({"task": np.repeat(np.arange(300), 3), "annotator": ["ann", "bob", "eve"] * 300})
    >>> right = np.repeat(rng.choice(["ham", "spam", "news"], 300), 3)
    >>> frame["value"] = np.where(rng.random(900) < 0.9, right, rng.choice(["ham", "spam", "news"], 900))
    >>> frame.loc[(frame["annotator"] == "eve") & (rng.random(900) < 0.3), "value"] = "spam"
    >>> found = label_overuse(frame)
    >>> found.discovered
    ('eve',)

    Args:
        judgments: columns ``task``, ``annotator``, ``value`` (a label), optionally ``gold``.
        tolerance: the odds ratio by which honest people may prefer a label.
        level: the false discovery rate over annotators.
        min_judgments: judgments of tasks on which people differ that an annotator needs.

    Returns:
        A row for each annotator, about the label most overused: ``label``, ``used`` against the task's reference (known
        answer or majority), ``expected``, ``odds_ratio`` with ``low`` to ``high``, ``judgments`` (on which people
        differ), and what :class:`Findings` says. ``p`` counts all labels that were looked at.

    Raises:
        BadJudgments: the frame is not what it must be.
        ValueError: an argument is not what it must be.
    """
    check_arguments(level, tolerance, min_judgments)
    coded = read(judgments)
    chosen = options(coded, references(coded, coded.gold()))
    labels = len(coded.categories)
    who = chosen.who[chosen.row]
    mark = np.where(chosen.deviates, who * labels + chosen.label, -1)
    family = np.repeat(np.arange(chosen.people), labels)
    member = np.where(chosen.deviates, who, -1)
    result = examine(fit(chosen), mark, family, member, chosen.people, tolerance, together=True)
    table = _table(coded, chosen, result, min_judgments)

    def one_peer(found: pd.DataFrame) -> npt.NDArray[np.bool_]:
        kept_back = np.zeros(len(found), dtype=bool)
        for place in np.flatnonzero(found["discovered"].to_numpy()):
            name = _mostly_against(coded, chosen, int(place), found["label"].iloc[place])
            if name is not None:
                kept_back[place] = True
                found.loc[found.index[place], "reason"] = (
                    f"Most of the excess comes from disagreeing with {name}, who may be the one who avoids the label."
                )
        return kept_back

    return conclude(
        table,
        ["annotator"],
        level,
        lambda row: (
            f"{row['annotator']} said {row['label']!r} against the others on the same tasks {row['used']:.0f} times, "
            f"where {row['expected']:.0f} would be expected (odds {row['odds_ratio']:.1f} times as large, 95% interval "
            f"{row['low']:.1f} to {row['high']:.1f})"
        ),
        what="annotators",
        nothing=f"none prefers a label by more than {tolerance:g} times the odds of others on the same tasks",
        advice="Go through some of these tasks together and make clear in the guideline where this label ends.",
        apart=one_peer,
    )


def _table(coded: Coded, chosen: Options, result: Marked, least: int) -> pd.DataFrame:
    people, labels = len(coded.annotators), len(coded.categories)
    judged = np.bincount(chosen.who, minlength=people)
    p = np.where(result.seen > 0, result.p, 1.0).reshape(people, labels)
    # Where two labels are equally certain, the larger effect is told.
    best = np.lexsort((-result.effect.reshape(people, labels), p), axis=1)[:, 0]
    at = np.arange(people) * labels + best
    looked = (result.seen.reshape(people, labels) > 0).sum(axis=1)
    enough = (judged >= least) & (looked > 0)
    ratio, low, high = (part[at] for part in result.ratio)
    blank = ~enough
    return pd.DataFrame(
        {
            "annotator": coded.annotators,
            "label": pd.Series(coded.categories.take(best), dtype=object).where(enough, None),
            "used": result.observed[at],
            "expected": np.where(blank, np.nan, result.expected[at]),
            "odds_ratio": np.where(blank, np.nan, ratio),
            "low": np.where(blank, np.nan, low),
            "high": np.where(blank, np.nan, high),
            "p": np.where(blank, np.nan, np.minimum(1.0, p[np.arange(people), best] * np.maximum(looked, 1))),
            "judgments": judged,
            "reason": [
                "" if fine else too_little(int(n), "judgment on which people differ", least)
                for fine, n in zip(enough, judged, strict=True)
            ],
        }
    )


def _mostly_against(coded: Coded, chosen: Options, annotator: int, label: Any) -> Any:
    """The peer with whom most of the disagreement about a label is, where there is such a one."""
    number = coded.categories.get_loc(label)
    used = chosen.row[
        chosen.chosen & chosen.deviates & (chosen.label == number) & (chosen.who[chosen.row] == annotator)
    ]
    tasks = np.zeros(len(coded.tasks), dtype=bool)
    tasks[coded.task[chosen.judgment[used]]] = True
    if "gold" in coded.frame.columns:
        tasks &= coded.gold() < 0  # a known answer is nobody's opinion
    there = tasks[coded.task] & (coded.annotator != annotator) & (coded.value != number)
    against = np.bincount(coded.annotator[there], minlength=len(coded.annotators))
    weight = 1.0 / np.maximum(np.bincount(coded.task[there], minlength=len(coded.tasks))[coded.task[there]], 1)
    share = np.bincount(coded.annotator[there], weight, len(coded.annotators))
    if not against.any() or share.max() <= ONE_PEER * share.sum():
        return None
    return coded.annotators[int(share.argmax())]
