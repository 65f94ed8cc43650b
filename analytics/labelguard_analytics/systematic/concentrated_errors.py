"""Somebody whose errors are concentrated in one confusion."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from labelguard_analytics.frames import Coded, read
from labelguard_analytics.systematic.exchange import Ints, Marked, Mask, Options, examine, fit, options, references
from labelguard_analytics.systematic.findings import Findings, check_arguments, conclude, too_little


def concentrated_errors(
    judgments: pd.DataFrame | Coded, *, tolerance: float = 1.5, level: float = 0.1, min_errors: int = 10
) -> Findings:
    """Find annotators who take one label for a certain other one, where others would err in many ways.

    An error is a judgment that differs from the task's known answer (``gold``), or, where there is none, from what
    most annotators of the task say. Some confusions are common to everybody, so an error is compared with those of
    the other annotators of the same task, and only with how often this annotator errs in other ways
    (:mod:`.exchange`). Every confusion of a truth and a label is looked at, and ``p`` counts them all.

    >>> rng = np.random.default_rng(4)
    >>> labels = np.array(["ham", "news", "spam"])
    >>> frame = pd.DataFrame({"task": np.repeat(np.arange(600), 3), "annotator": ["ann", "bob", "eve"] * 600})
    >>> right = np.repeat(rng.choice(labels, 600), 3)
    >>> frame["value"] = np.where(rng.random(1800) < 0.8, right, rng.choice(labels, 1800))
    >>> confused = (frame["annotator"] == "eve") & (right == "news") & (rng.random(1800) < 0.4)
    >>> frame.loc[confused, "value"] = "spam"
    >>> found = concentrated_errors(frame)
    >>> found.table.loc[0, ["annotator", "truth", "label"]].tolist()
    ['eve', 'news', 'spam']

    Args:
        judgments: columns ``task``, ``annotator``, ``value`` (a label), optionally ``gold``.
        tolerance: the odds ratio by which honest people may prefer one confusion.
        level: the false discovery rate over annotators.
        min_errors: errors on tasks on which people differ that an annotator needs.

    Returns:
        A row for each annotator, about the most striking confusion: ``truth``, ``label``, ``errors``, ``in_cell``
        (those in this confusion), ``share`` with its 95% interval ``low`` to ``high`` (Clopper and Pearson),
        ``expected_share`` (without a preference), ``odds_ratio``, and what :class:`Findings` says.

    Raises:
        BadJudgments: the frame is not what it must be.
        ValueError: an argument is not what it must be.
    """
    check_arguments(level, tolerance, min_errors)
    coded = read(judgments)
    chosen = options(coded, references(coded, coded.gold()))
    labels = len(coded.categories)
    who = chosen.who[chosen.row]
    cell = (who * labels + chosen.reference) * labels + chosen.label
    cells, place = np.unique(np.where(_wrong(chosen), cell, -1), return_inverse=True)
    skipped = int(len(cells) > 0 and cells[0] < 0)
    cells, mark = cells[skipped:], place - skipped
    member = np.where(chosen.deviates, who, -1)
    family = cells // labels**2
    result = examine(fit(chosen), mark, family, member, chosen.people, tolerance, together=True)
    return conclude(
        _table(coded, chosen, result, cells, min_errors),
        ["annotator"],
        level,
        lambda row: (
            f"{row['in_cell']:.0f} of {row['errors']:.0f} errors of {row['annotator']} ({row['share']:.0%}, 95% "
            f"interval {row['low']:.0%} to {row['high']:.0%}) take {row['truth']!r} for {row['label']!r}, where "
            f"{row['expected_share']:.0%} would be expected from others on the same tasks"
        ),
        what="annotators",
        nothing=f"none has errors concentrated in one confusion by more than {tolerance:g} times the odds of others",
        advice="Explain the difference between these two labels to them; elsewhere they err no more than others.",
    )


def _wrong(chosen: Options) -> Mask:
    """The options that are errors; where a task has neither a known answer nor a majority, none is."""
    return chosen.deviates & (chosen.reference >= 0)


def _table(coded: Coded, chosen: Options, result: Marked, cells: Ints, least: int) -> pd.DataFrame:
    people, labels = len(coded.annotators), len(coded.categories)
    owner = cells // labels**2
    order = np.lexsort((-result.effect, result.p, owner))
    best = np.full(people, -1, dtype=np.int64)
    best[owner[order][::-1]] = order[::-1]  # the first of each owner is written last
    looked = np.bincount(owner, minlength=people)
    wrong = chosen.chosen & _wrong(chosen)
    errors = np.bincount(chosen.who[chosen.row[wrong]], minlength=people)
    enough = (errors >= least) & (best >= 0)
    at = np.maximum(best, 0)
    empty = not len(cells)
    in_cell = np.zeros(people) if empty else result.observed[at]
    known = [np.full(people, np.nan) if empty else part[at] for part in (result.p, result.effect, result.expected)]
    p, effect, expected = (np.where(enough, part, np.nan) for part in known)
    rest = np.maximum(errors - in_cell, 0)
    low = np.where(in_cell > 0, stats.beta.ppf(0.025, np.maximum(in_cell, 1), rest + 1), 0.0)
    high = np.where(rest > 0, stats.beta.ppf(0.975, in_cell + 1, np.maximum(rest, 1)), 1.0)
    cell = np.zeros(people, dtype=np.int64) if empty else cells[at]
    names = pd.Index([None]) if not labels else coded.categories
    return pd.DataFrame(
        {
            "annotator": coded.annotators,
            "truth": pd.Series(names.take(cell // labels % labels), dtype=object).where(enough, None),
            "label": pd.Series(names.take(cell % labels), dtype=object).where(enough, None),
            "errors": errors,
            "in_cell": in_cell,
            "share": np.where(enough, in_cell / np.maximum(errors, 1), np.nan),
            "low": np.where(enough, low, np.nan),
            "high": np.where(enough, high, np.nan),
            "expected_share": np.minimum(1.0, expected / np.maximum(errors, 1)),
            "odds_ratio": np.exp(effect),
            "p": np.minimum(1.0, p * np.maximum(looked, 1)),
            "reason": [
                "" if fine else too_little(int(n), "error on tasks on which people differ", least)
                for fine, n in zip(enough, errors, strict=True)
            ],
        }
    )
