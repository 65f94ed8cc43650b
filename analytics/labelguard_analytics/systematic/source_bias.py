"""A source of data that somebody judges differently from other sources."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from labelguard_analytics.frames import Coded, read
from labelguard_analytics.systematic.everybody import by_everybody
from labelguard_analytics.systematic.exchange import HABIT, Ints, Marked, Options, examine, fit, options, references
from labelguard_analytics.systematic.findings import Findings, check_arguments, conclude, too_little


def source_bias(
    judgments: pd.DataFrame | Coded, *, tolerance: float = 1.5, level: float = 0.1, min_judgments: int = 20
) -> Findings:
    """Find annotators who prefer a label in one source, beyond what they do elsewhere and what the tasks call for.

    A source may have other classes and harder items, and an annotator may like a label everywhere; none of this is a
    bias by source. So each judgment is compared with what was said about the very same task, and the annotator's own
    habit of using the label against others is taken as it is; the question is whether they do so in this source
    more than in the others (:mod:`.exchange`).

    What everybody does together in a source cannot be seen by comparing people with each other. Where there are
    known answers (``gold``), a row for each source with ``None`` for the annotator tells whether all errors together
    go to a label more often than in other sources; ``odds_ratio`` is then the ratio of the two numbers of errors.

    >>> rng = np.random.default_rng(3)
    >>> frame = pd.DataFrame({"task": np.repeat(np.arange(600), 3), "annotator": ["ann", "bob", "eve"] * 600})
    >>> right = np.repeat(rng.choice(["ham", "spam", "news"], 600), 3)
    >>> frame["source"] = np.repeat(rng.choice(["mail", "web"], 600), 3)
    >>> frame["value"] = np.where(rng.random(1800) < 0.9, right, rng.choice(["ham", "spam", "news"], 1800))
    >>> biased = (frame["annotator"] == "eve") & (frame["source"] == "web") & (rng.random(1800) < 0.3)
    >>> frame.loc[biased, "value"] = "spam"
    >>> source_bias(frame).discovered
    (('eve', 'web'),)

    Args:
        judgments: columns ``task``, ``annotator``, ``value`` (a label), ``source``, optionally ``gold``.
        tolerance: the odds ratio by which honest people may prefer a label in a source.
        level: the false discovery rate over annotators and sources.
        min_judgments: judgments of tasks on which people differ that an annotator needs in the source and outside.

    Returns:
        A row for each annotator and source, about the label most preferred there: ``label``, ``used`` against the
        reference of the task, ``expected``, ``odds_ratio`` with ``low`` to ``high``, ``points`` (by how many percentage
        points more often the label is used in the source's tasks than expected), ``judgments``, ``disputed`` (those on
        which people differ), and what :class:`Findings` says. ``p`` counts all labels that were looked at.

    Raises:
        BadJudgments: the frame is not what it must be.
        ValueError: an argument is not what it must be.
    """
    check_arguments(level, tolerance, min_judgments)
    coded = read(judgments, needs=["source"])
    source, sources = coded.group("source")
    chosen = options(coded, references(coded, coded.gold()))
    labels, number = len(coded.categories), max(len(sources), 1)
    where = source[chosen.judgment].astype(np.int64)[chosen.row]
    pair = chosen.who[chosen.row] * labels + chosen.label
    marks = chosen.people * labels * number
    mark = np.where(chosen.deviates & (where >= 0), pair * number + where, -1)
    fitted = fit(chosen)
    member = np.where(chosen.deviates, chosen.who[chosen.row], -1)
    by_person = np.repeat(np.arange(chosen.people), labels * number)
    # How often they deviate when the preference in question is left out; the habit of using the label is near that.
    rest = examine(fitted, mark, by_person, member, chosen.people, tolerance, together=True).other
    family = np.repeat(np.arange(chosen.people * labels), number)
    member = np.where(chosen.deviates, pair, -1)
    result = examine(
        fitted, mark, family, member, len(family) // number, tolerance, together=False, caution=HABIT, centre=rest
    )
    shape = (chosen.people, labels, number)
    order = np.arange(marks).reshape(shape).transpose(0, 2, 1).reshape(-1, labels)
    table = _table(coded, chosen, source.astype(np.int64), sources, result, order, min_judgments)
    together = by_everybody(coded, source.astype(np.int64), sources, tolerance)
    if len(together):
        table = pd.concat([table, together], ignore_index=True)
    return conclude(
        table,
        ["annotator", "source"],
        level,
        _describe,
        what="annotators with a source",
        nothing=f"none prefers a label in one source by more than {tolerance:g} times the odds",
        advice="Look at this source's tasks with them: do they know something about the source, or presume it?",
    )


def _describe(row: pd.Series[Any]) -> str:
    if row["annotator"] is None:
        return (
            f"All annotators together wrongly said {row['label']!r} in {row['source']!r} {row['used']:.0f} times, "
            f"where {row['expected']:.0f} would be expected from their errors in other sources "
            f"({row['odds_ratio']:.1f} times as many, 95% interval {row['low']:.1f} to {row['high']:.1f})"
        )
    return (
        f"{row['annotator']} said {row['label']!r} in {row['source']!r} {row['used']:.0f} times against the others "
        f"on the same tasks, where {row['expected']:.0f} would be expected from their work in other sources "
        f"(odds {row['odds_ratio']:.1f} times as large, 95% interval {row['low']:.1f} to {row['high']:.1f}; "
        f"{row['points']:+.0%} of their judgments there)"
    )


def _table(
    coded: Coded,
    chosen: Options,
    source: Ints,
    sources: pd.Index[Any],
    result: Marked,
    order: Ints,
    least: int,
) -> pd.DataFrame:
    people, number = chosen.people, max(len(sources), 1)
    known = source >= 0
    made = np.bincount(coded.annotator[known] * number + source[known], minlength=people * number)
    there = source[chosen.judgment]
    inside = np.bincount((chosen.who * number + there)[there >= 0], minlength=people * number)
    outside = np.repeat(np.bincount(chosen.who, minlength=people), number) - inside
    seen, p = result.seen[order] > 0, np.where(result.seen > 0, result.p, 1.0)[order]
    best = np.lexsort((-result.effect[order], p), axis=1)[:, 0]
    at = order[np.arange(len(order)), best]
    fewest = np.minimum(inside, outside)
    enough = (fewest >= least) & seen.any(axis=1)
    blank = ~enough
    ratio, low, high = (np.where(blank, np.nan, part[at]) for part in result.ratio)
    expected = np.where(blank, np.nan, result.expected[at])
    table = pd.DataFrame(
        {
            "annotator": pd.Series(coded.annotators.repeat(number), dtype=object),
            "source": list(sources) * people if len(sources) else [None] * people,
            "label": pd.Series(coded.categories.take(best), dtype=object).where(enough, None),
            "used": result.observed[at],
            "expected": expected,
            "odds_ratio": ratio,
            "low": low,
            "high": high,
            "points": (result.observed[at] - expected) / np.maximum(made, 1),
            "p": np.where(blank, np.nan, np.minimum(1.0, p.min(axis=1) * np.maximum(seen.sum(axis=1), 1))),
            "judgments": made,
            "disputed": inside,
            "reason": [
                ""
                if fine
                else too_little(int(n), "judgment on which people differ, in the source or outside it", least)
                for fine, n in zip(enough, fewest, strict=True)
            ],
        }
    )
    return table[made > 0].reset_index(drop=True)
