"""Where a change is, and how large: each with an interval."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from labelguard_analytics.changes.look import Found, Sight

_DROP = 7.35
"""A likelihood ratio of a change's place that is exceeded in 5% of cases (Hansen 2000, table 1)."""


@dataclass(frozen=True)
class Point:
    """A change in the unit of its measure (shares; logarithms for durations)."""

    since: int
    """The first day of the change, as a place in the calendar."""
    earliest: int
    latest: int
    size: float
    low: float
    high: float
    before: float
    after: float
    judgments: int
    """Judgments after the change."""
    days: int
    """Days with judgments in all."""


def locate(sight: Sight, found: Found, *, exact: bool) -> Point:
    """Place and size of a change.

    The place is the day with the strongest score, and its interval holds every day whose score is nearly as strong.
    The size takes each judgment alike, at that place; as the place was chosen for a strong score, it is on average
    somewhat too large where the evidence is weak.

    Args:
        sight: the look.
        found: the series.
        exact: look at every day; otherwise the candidate stays and is its own interval.
    """
    since, earliest, latest = found.change, found.change, found.change
    if exact:
        days = np.arange(1, len(sight.plan.days))
        possible = sight.possible(found.unit, days)[0][:, found.series]
        # Only days on which the unit judged: a change between two of them is said of the later one.
        every = days[possible & np.isin(days, sight.days_of(found.unit))]
        strength = sight.test(found.unit, found.series, every).t ** 2
        best = int(np.argmax(strength))
        near = every[strength >= strength[best] - _DROP]
        since, earliest, latest = int(every[best]), int(near[0]), int(near[-1])
    tested = sight.test(found.unit, found.series, np.array([since]), even=True)
    half = float(stats.t.ppf(0.975, tested.df[0]) * tested.error[0])
    size = float(tested.size[0])
    before, after, judgments, judged = _means(sight, found, since)
    return Point(since, earliest, latest, size, size - half, size + half, before, after, judgments, judged)


def _means(sight: Sight, found: Found, since: int) -> tuple[float, float, int, int]:
    """What was seen before and after, the judgments after, and the days."""
    total = np.zeros(2)
    judgments = np.zeros(2)
    days: set[int] = set()
    for part in sight.by_unit[found.unit]:
        belongs = part.weight[:, found.series] > 0
        sums = (part.values.of(found.series) @ belongs)[:, None]
        number = (part.work.n @ belongs)[:, None]
        after = (part.work.day >= since)[:, None]
        side = np.concatenate([~after, after], axis=1)
        total += (sums * side).sum(axis=0)
        judgments += (number * side).sum(axis=0)
        days.update(part.work.day[number[:, 0] > 0].tolist())
    means = total / np.maximum(judgments, 1)
    return float(means[0]), float(means[1]), round(float(judgments[1])), len(days)
