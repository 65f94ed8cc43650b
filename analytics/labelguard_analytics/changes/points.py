"""Where a change is, and how large: each with an interval."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from labelguard_analytics.changes.cells import Ints
from labelguard_analytics.changes.look import Flags, Sight
from labelguard_analytics.frames import Floats

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


def locate(sight: Sight, unit: int, series: int, change: int, *, exact: bool) -> Point:
    """Place and size of a change.

    The place is the day with the strongest score, and its interval holds every day whose score is nearly as strong.
    The size takes each judgment alike, at that place; as the place was chosen for a strong score, it is on average
    somewhat too large where the evidence is weak.

    Args:
        sight: the look.
        unit: the unit.
        series: the series.
        change: the strongest of the candidates.
        exact: look at every day; otherwise the candidate stays and is its own interval.
    """
    since, earliest, latest = change, change, change
    if exact:
        days = np.arange(1, len(sight.plan.days))
        possible = _possible(sight, unit, series, days)
        # Only days on which the unit judged: a change between two of them is said of the later one.
        every = days[possible & np.isin(days, sight.days_of(unit))]
        strength = sight.test(unit, series, every).t ** 2
        best = int(np.argmax(strength))
        near = every[strength >= strength[best] - _DROP]
        since, earliest, latest = int(every[best]), int(near[0]), int(near[-1])
    tested = sight.test(unit, series, np.array([since]), even=True)
    half = float(stats.t.ppf(0.975, tested.df[0]) * tested.error[0])
    size = float(tested.size[0])
    before, after, judgments, judged = _means(sight, unit, series, since)
    return Point(since, earliest, latest, size, size - half, size + half, before, after, judgments, judged)


def _judged(sight: Sight, unit: int, series: int) -> tuple[Floats, Floats]:
    """Sums and judgments of a series on each day of the calendar."""
    sums, judgments = np.zeros(len(sight.plan.days)), np.zeros(len(sight.plan.days))
    for number in sight.parts_of(unit):
        part = sight.data.part(number, series)
        belongs = part.weight > 0
        sums[part.work.day] += part.y @ belongs
        judgments[part.work.day] += part.work.n @ belongs
    return sums, judgments


def _possible(sight: Sight, unit: int, series: int, places: Ints) -> Flags:
    """Where enough lies before and after."""
    _, judgments = _judged(sight, unit, series)
    plan = sight.plan
    enough = np.ones(len(places), dtype=bool)
    for values, least in ((judgments, plan.min_judgments), ((judgments > 0).astype(np.float64), plan.min_days)):
        after = np.cumsum(values[::-1])[::-1][places]
        enough &= (after >= least) & (values.sum() - after >= least)
    return enough


def _means(sight: Sight, unit: int, series: int, since: int) -> tuple[float, float, int, int]:
    """What was seen before and after, the judgments after, and the days."""
    sums, judgments = _judged(sight, unit, series)
    before, after = (
        float(sums[side].sum() / max(float(judgments[side].sum()), 1.0)) for side in (slice(since), slice(since, None))
    )
    return before, after, round(float(judgments[since:].sum())), int(np.sum(judgments > 0))
