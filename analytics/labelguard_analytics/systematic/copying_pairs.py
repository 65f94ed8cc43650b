"""Annotators who copy from each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from labelguard_analytics.duration.sessions import minutes_of
from labelguard_analytics.frames import Coded, Floats, read
from labelguard_analytics.systematic.exchange import Z95, fit, options, references, upper_tail
from labelguard_analytics.systematic.findings import Findings, conclude, too_little

Ints = npt.NDArray[np.int64]
RAREST = 10.0
"""A shared label counts by how rare it is on the task, up to this."""
CLOSER = 0.25
"""Pairs whose equal answers are this much closer in time than their unequal ones are told so."""


def copying_pairs(
    judgments: pd.DataFrame | Coded, *, tolerance: float = 0.01, level: float = 0.1, min_tasks: int = 20
) -> Findings:
    """Find pairs of annotators who say the same more often than two independent people would.

    Right answers are the same without copying, and on hard tasks so are wrong ones. Therefore only tasks on which
    people differ count, and what a pair has in common is compared with how often any two annotators of the same task
    say the same, corrected for how often the two deviate and to which labels (:mod:`.exchange`). A shared answer
    counts the more the rarer it is on the task. All pairs with enough tasks are looked at, and the false discovery
    rate is over all of them. Who copies from whom cannot be told from answers; with ``at`` the table shows who came
    later.

    >>> rng = np.random.default_rng(7)
    >>> labels = np.array(["ham", "news", "spam"])
    >>> names = ["ann", "bob", "dan", "eve", "kim"]
    >>> frame = pd.DataFrame({"task": np.repeat(np.arange(300), 5), "annotator": names * 300})
    >>> right = np.repeat(rng.choice(labels, 300), 5)
    >>> frame["value"] = np.where(rng.random(1500) < 0.7, right, rng.choice(labels, 1500))
    >>> copied = np.flatnonzero((frame["annotator"] == "kim") & (rng.random(1500) < 0.4))
    >>> frame.loc[copied, "value"] = frame["value"].to_numpy()[copied - 1]
    >>> copying_pairs(frame).discovered
    (('eve', 'kim'),)

    Args:
        judgments: columns ``task``, ``annotator``, ``value`` (a label), optionally ``at`` and ``gold``.
        tolerance: the share of answers that two honest people may have in common beyond chance.
        level: the false discovery rate over pairs.
        min_tasks: tasks on which people differ that a pair must both have judged.

    Returns:
        A row for each pair that shares a disputed task: ``first`` and ``second``, ``tasks`` (disputed ones of both and
        a third), ``same`` (equal answers there), ``expected``, ``copied`` (the share of answers that looks copied; at
        least, since copies also move what is expected) with ``low`` to ``high``, ``second_later`` (share of equal
        answers in which the second came later), ``same_minutes`` and ``differ_minutes`` (median time between equal and
        unequal answers), and what :class:`Findings` says.

    Raises:
        BadJudgments: the frame is not what it must be.
        ValueError: an argument is not what it must be.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, but it is {level!r}.")
    if not 0 <= tolerance < 1:
        raise ValueError(f"tolerance must be at least 0 and below 1, but it is {tolerance!r}.")
    if min_tasks < 1:
        raise ValueError(f"min_tasks must be at least 1, but it is {min_tasks!r}.")
    coded = read(judgments)
    return conclude(
        _table(coded, _meetings(coded), tolerance, min_tasks),
        ["first", "second"],
        level,
        _describe,
        what="pairs",
        nothing="none has more answers in common than independent people would",
        advice="Ask both how they work, and do not give the two the same tasks: their agreement proves nothing.",
        apart=lambda table: _explained(coded, table, tolerance),
    )


@dataclass(frozen=True)
class _Meetings:
    """Two judgments of one disputed task; an entry for each."""

    pair: Ints
    """The pair's place among ``pairs``."""
    pairs: Ints
    """First annotator times the number of annotators, plus the second."""
    one: Ints
    """The row of the first annotator's judgment."""
    two: Ints
    same: npt.NDArray[np.bool_]
    chance: Floats
    """That both say the same, were they independent."""
    score: Floats
    """What is in common beyond chance, weighted by rarity."""
    variance: Floats
    third: Floats
    gain: Floats
    """What the score would be if one copied from the other."""


def _meetings(coded: Coded) -> _Meetings:
    o = options(coded, references(coded, coded.gold()))
    chance = fit(o).chance(habits=True)
    task = coded.task[o.judgment].astype(np.int64)
    order = np.lexsort((o.who, task))
    sorted_task = task[order]
    parts = []
    most = int(np.bincount(task).max(initial=0))
    for step in range(1, most):
        at = np.flatnonzero(sorted_task[step:] == sorted_task[:-step])
        parts.append((order[at], order[at + step]))
    one = np.concatenate([first for first, _ in parts]) if parts else np.zeros(0, dtype=np.int64)
    two = np.concatenate([second for _, second in parts]) if parts else np.zeros(0, dtype=np.int64)
    size = np.bincount(o.row, minlength=o.rows)
    start = np.cumsum(size) - size
    # Both have the options of their task, in the same order.
    width = size[one]
    meeting = np.repeat(np.arange(len(one)), width)
    within = np.arange(len(meeting)) - np.repeat(np.cumsum(width) - width, width)
    left, right = start[one][meeting] + within, start[two][meeting] + within
    many = o.by_row(o.count)[one]
    crowd = (many / np.maximum(many - 1, 1))[meeting]
    m, out = o.count[left], o.deviates[left]
    a, b = chance[left], chance[right]

    def total(values: Floats) -> Floats:
        return np.bincount(meeting, values, len(one)).astype(np.float64)

    both = np.where(out, a * b * (m - 1) / m * crowd, 0.0)
    away_a, away_b, deviating = (total(np.where(out, part, 0.0)) for part in (a, b, m))
    crossed = away_a * away_b * (deviating - 1) / np.maximum(deviating, 1) * many / np.maximum(many - 1, 1)
    stay = np.clip(1.0 - away_a - away_b + np.maximum(crossed, 0.0), 0.0, 1.0)
    both = np.clip(np.where(out, both, np.where(m > 1, stay[meeting], 0.0)), 0.0, 1.0)
    weight = np.minimum(many[meeting] / m, RAREST)
    agree = o.chosen[left] & o.chosen[right]
    mean = total(weight * both)
    square, cube = total(weight**2 * both), total(weight**3 * both)
    who_a, who_b = o.who[one], o.who[two]
    variance = square - mean**2
    # Where the only two annotators of a task differ, nothing else could have been.
    free = variance > 1e-9
    pairs, pair = np.unique((who_a * o.people + who_b)[free], return_inverse=True)
    return _Meetings(
        pair,
        pairs,
        o.judgment[one][free],
        o.judgment[two][free],
        (total(agree.astype(np.float64)) > 0)[free],
        total(both)[free],
        (total(weight * agree) - mean)[free],
        variance[free],
        (cube - 3 * mean * square + 2 * mean**3)[free],
        np.maximum(total(weight * (a + b) / 2) - mean, 0.0)[free],
    )


def _table(coded: Coded, met: _Meetings, tolerance: float, least: int) -> pd.DataFrame:
    number = len(met.pairs)

    def total(values: npt.NDArray[Any]) -> Floats:
        return np.bincount(met.pair, values, number).astype(np.float64)

    tasks = np.bincount(met.pair, minlength=number)
    score, variance, gain = total(met.score), total(met.variance), np.maximum(total(met.gain), 1e-9)
    p = upper_tail(score - tolerance * gain, variance, total(met.third))
    enough = tasks >= least
    copied, half = score / gain, Z95 * np.sqrt(variance) / gain
    people = max(len(coded.annotators), 1)
    table = {
        "first": coded.annotators.take(met.pairs // people),
        "second": coded.annotators.take(met.pairs % people),
        "tasks": tasks,
        "same": total(met.same).astype(np.int64),
        "expected": np.where(enough, total(met.chance), np.nan),
        "copied": np.where(enough, copied, np.nan),
        "low": np.where(enough, copied - half, np.nan),
        "high": np.where(enough, copied + half, np.nan),
        "p": np.where(enough, p, np.nan),
        **_times(coded, met, number),
        "reason": [
            "" if fine else too_little(int(n), "task of both and a third on which people differ", least)
            for fine, n in zip(enough, tasks, strict=True)
        ],
    }
    return pd.DataFrame(table)


def _explained(coded: Coded, table: pd.DataFrame, tolerance: float) -> npt.NDArray[np.bool_]:
    """Which pairs found agree only because another pair copies.

    Where two of four copy, the other two often stand together against them. So every pair is looked at once more
    without one annotator of each pair with stronger evidence.
    """
    kept_back = np.zeros(len(table), dtype=bool)
    found = np.flatnonzero(table["discovered"].to_numpy())
    found = found[np.argsort(table["p"].to_numpy()[found], kind="stable")]
    limit = float(table["p"].iloc[found].max())
    places = [coded.annotators.get_indexer(pd.Index(table[name])) for name in ("first", "second")]
    stronger: list[tuple[int, int]] = []
    for place in found.tolist():
        pair = (int(places[0][place]), int(places[1][place]))
        if stronger and not _stands(coded, pair, stronger, tolerance, limit):
            kept_back[place] = True
            table.loc[table.index[place], "reason"] = (
                "Another pair on the same tasks explains why these two agree so often."
            )
            continue
        stronger.append(pair)
    return kept_back


def _stands(
    coded: Coded, pair: tuple[int, int], stronger: list[tuple[int, int]], tolerance: float, limit: float
) -> bool:
    people = len(coded.annotators)
    both = _together(coded, pair)[coded.task]
    leave = np.zeros(coded.n, dtype=bool)
    for one, two in stronger:
        out = next((who for who in (two, one) if who not in pair), None)
        if out is not None:
            leave |= (coded.annotator == out) & _together(coded, (one, two))[coded.task]
    keep = both & ~leave
    if not (leave & both).any():
        return True
    tasks, task = np.unique(coded.task[keep], return_inverse=True)
    part = Coded(
        "nominal",
        task.astype(np.int32),
        coded.annotator[keep],
        coded.value[keep],
        coded.tasks[tasks],
        coded.annotators,
        coded.categories,
        frame=coded.frame[keep],
    )
    met = _meetings(part)
    mine = np.flatnonzero(met.pairs == pair[0] * people + pair[1])
    if not len(mine):
        return False
    own = met.pair == mine[0]
    score, gain, variance, third = (float(v[own].sum()) for v in (met.score, met.gain, met.variance, met.third))
    return bool(upper_tail(*(np.array([v]) for v in (score - tolerance * gain, variance, third)))[0] <= limit)


def _together(coded: Coded, pair: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """The tasks that both have judged."""
    counts = [np.bincount(coded.task[coded.annotator == who], minlength=len(coded.tasks)) for who in pair]
    return (counts[0] > 0) & (counts[1] > 0)


def _times(coded: Coded, met: _Meetings, number: int) -> dict[str, Floats]:
    """Who came later, and how far apart in time answers are."""
    none = np.full(number, np.nan)
    if "at" not in coded.frame.columns:
        return {"second_later": none, "same_minutes": none, "differ_minutes": none}
    minutes = minutes_of(coded.frame["at"])
    gap = minutes[met.two] - minutes[met.one]
    every = pd.RangeIndex(number)
    later = pd.Series(gap[met.same] > 0).groupby(met.pair[met.same]).mean().reindex(every)
    apart = [
        pd.Series(np.abs(gap[part])).groupby(met.pair[part]).median().reindex(every).to_numpy(dtype=np.float64)
        for part in (met.same, ~met.same)
    ]
    return {
        "second_later": later.to_numpy(dtype=np.float64),
        "same_minutes": apart[0],
        "differ_minutes": apart[1],
    }


def _describe(row: pd.Series[Any]) -> str:
    text = (
        f"{row['first']} and {row['second']} say the same on {row['same']:,} of {row['tasks']:,} tasks on which people "
        f"differ, where {row['expected']:.0f} would be expected of independent people (at least {row['copied']:.0%} "
        f"copied, 95% interval {row['low']:.0%} to {row['high']:.0%})"
    )
    if row["same_minutes"] < CLOSER * row["differ_minutes"]:
        text += f", {row['same_minutes']:.3g} minutes apart when equal and {row['differ_minutes']:.3g} otherwise"
    return text
