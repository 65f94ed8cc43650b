"""A measure's sums, sorted by who is examined, with the strata and weights they are compared in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from labelguard_analytics.changes.cells import Ints, Pile
from labelguard_analytics.changes.measures import Measure
from labelguard_analytics.changes.panel import Panel
from labelguard_analytics.changes.periods import Periods, Sums, strata_of
from labelguard_analytics.changes.plan import Plan
from labelguard_analytics.changes.scores import Work, summed
from labelguard_analytics.frames import Floats

_PRIOR = 5.0
"""An annotator's variance in a stratum leans on everybody's as if that were so many judgments."""
_FLOOR = 0.03
"""Keeps the weight of a stratum finite in which nothing varies."""
_LEAST_PACE = 0.02
"""Where hardly anything is wrong, so much may still be learnt."""


@dataclass(frozen=True)
class Pool:
    """What everybody does in each stratum (strata x labels, or strata x 1): how much varies there."""

    mean: Floats
    variance: Floats


@dataclass(frozen=True)
class Rows:
    """Sums with the codes of a plan, sorted by part: an annotator's part in a unit."""

    who: Ints
    part: Ints
    at: Ints
    """Places in the calendar, or segments of it."""
    stratum: Ints
    label: Ints
    """Places in ``Plan.labels``; 0 where there is none."""
    sums: Floats
    """Sums x rows."""

    def some(self, kept: Ints | slice) -> Rows:
        """Some of the rows."""
        return Rows(
            self.who[kept], self.part[kept], self.at[kept], self.stratum[kept], self.label[kept], self.sums[:, kept]
        )


@dataclass(frozen=True)
class Part:
    """One annotator's part in a unit, in full: for the series that are looked at closely."""

    work: Work
    y: Floats
    """Sums of the series (days x strata)."""
    weight: Floats
    upper: Floats
    pace: Floats
    variance: Floats


@dataclass(frozen=True)
class Frame:
    """The days and strata of a part, for all of its series."""

    work: Work
    days: Ints
    """The place of each day of the calendar among those of the part."""
    strata: Ints
    """The place of each stratum among those of the part."""
    cell: Ints
    """Where each of ``rows`` is in a table of days and strata."""
    rows: Rows


@dataclass(frozen=True)
class Data:
    """Everything about one measure."""

    panel: Panel
    periods: Periods
    plan: Plan
    measure: Measure
    sizes: tuple[Rows, ...]
    """Judgments by segment, with all the sums of ``Periods``."""
    said: tuple[Rows, ...]
    """For shares: how often which label was given, by segment."""
    pool: Pool
    units: Ints
    """The unit of each part."""
    annotators: Ints
    """The annotator of each part."""
    rank: Ints
    """Of each combination of annotator, source and cohort: its number within its part; each has strata of its own."""
    part_of: Ints
    """Of each combination: its part."""
    frames: dict[int, Frame] = field(default_factory=dict)
    """What was worked out by :meth:`frame_of`."""
    given: dict[int, Rows] = field(default_factory=dict)
    """What was said, by part and day, where it was needed."""

    @classmethod
    def of(cls, panel: Panel, plan: Plan, measure: Measure, periods: Periods, pool: Pool | None = None) -> Data:
        """A measure of a panel, weighted as ``pool`` says, where it is given."""
        name = "agreement" if measure.name == "share" else measure.name
        people = int(plan.annotator_of.max(initial=0)) + 1
        part_of = plan.unit_of * people + plan.annotator_of
        codes, place = np.unique(part_of, return_inverse=True)
        part_of = place.astype(np.int64)
        order = np.argsort(part_of, kind="stable")
        first = np.searchsorted(part_of[order], np.arange(len(codes)))
        rank = np.empty(len(order), dtype=np.int64)
        rank[order] = np.arange(len(order)) - first[part_of[order]]
        sizes = _by_segment(panel, plan, periods.sums[name], part_of)
        said = _by_segment(panel, plan, periods.sums["said"], part_of) if measure.name == "share" else ()
        return cls(
            panel,
            periods,
            plan,
            measure,
            sizes,
            said,
            _pool(plan, sizes, said) if pool is None else pool,
            codes // people,
            codes % people,
            rank,
            part_of,
        )

    @property
    def series(self) -> int:
        """How many series there are: every label; or all labels together, and then every label."""
        labels = len(self.plan.labels)
        return labels if self.said else 1 + labels * ("label" in self.plan.by)

    @property
    def strata(self) -> int:
        """Strata of one source and cohort."""
        return 2 * len(self.plan.labels) + 4

    @cached_property
    def present(self) -> npt.NDArray[np.bool_]:
        """Which parts have judgments."""
        counts = [np.bincount(rows.who, minlength=len(self.part_of)) for rows in self.sizes]
        found = np.zeros(len(self.units), dtype=bool)
        found[self.part_of[np.sum(counts, axis=0) > 0]] = True
        return found

    @cached_property
    def belongs(self) -> Floats:
        """Which strata bear on which series (strata x series)."""
        if self.said:
            return np.ones((self.strata, self.series))
        label = np.arange(self.strata) // 2
        whole = np.ones((self.strata, 1))
        return np.concatenate([whole, label[:, None] == np.arange(self.series - 1)], axis=1)

    @cached_property
    def weight(self) -> Floats:
        """Strata in which little varies tell more (strata x series)."""
        return np.asarray(self.belongs / (self.pool.variance + _FLOOR))

    @cached_property
    def upper(self) -> Floats:
        """Strata with a learning curve of their own: those of the label, or where the others agree."""
        place = np.arange(self.strata)
        if self.said:
            return np.asarray(place[:, None] // 2 == np.arange(self.series), dtype=np.float64)
        return np.repeat((place % 2)[:, None], self.series, axis=1).astype(np.float64)

    def pace(self, sums: Floats, sizes: Floats, mean: Floats, upper: Floats) -> Floats:
        """How strongly learning shows in a stratum: errors shrink in proportion, so it is the share of errors."""
        if not self.measure.binary:
            return np.ones(np.broadcast_shapes(sums.shape, upper.shape))
        level = (sums + _PRIOR * mean) / (sizes + _PRIOR)
        if self.said:
            level = np.where(upper > 0, 1 - level, level)
        elif self.measure.up == "improvement":
            level = 1 - level
        return np.maximum(level, _LEAST_PACE)

    def variance(self, sums: Floats, squares: Floats, sizes: Floats, mean: Floats, scatter: Floats) -> Floats:
        """Of a single judgment in a stratum, leaning on what everybody does there."""
        if self.measure.binary:
            leaning = (sums + _PRIOR * mean) / (sizes + _PRIOR)
            return np.asarray(leaning * (1 - leaning))
        own = squares - sums**2 / np.maximum(sizes, 1.0)
        return np.asarray((np.maximum(own, 0.0) + _PRIOR * scatter) / (sizes + _PRIOR))

    def frame_of(self, number: int) -> Frame:
        """The days and strata of a part, worked out once."""
        if number not in self.frames:
            name = "agreement" if self.said else self.measure.name
            rows = self._days(self.panel.measured[name], number, without_consensus=name != "agreement")
            wide = self.rank[rows.who] * self.strata + rows.stratum
            strata, stratum = _places(wide, int(wide.max(initial=0)) + 1)
            days, day = _places(rows.at, len(self.plan.days))
            shape = int(days.max(initial=-1)) + 1, int(strata.max(initial=-1)) + 1
            cell = day * shape[1] + stratum
            n = summed(cell, rows.sums[0], shape[0] * shape[1]).reshape(shape)
            on = np.flatnonzero(days >= 0)
            work = Work(on, n, self.periods.curves[:, self.annotators[number], on])
            self.frames[number] = Frame(work, days, strata, cell, rows)
        return self.frames[number]

    def _days(self, pile: Pile, number: int, *, without_consensus: bool) -> Rows:
        """The rows of a part by day."""
        cells = pile.of_whom(np.flatnonzero(self.part_of == number))
        who, day, stratum, label = cells.unpacked()
        place = np.searchsorted(self.plan.days, day)
        rows = Rows(
            who, np.full(len(who), number), place, strata_of(self.plan, self.panel)[stratum], label, cells.sums.T
        )
        if not without_consensus:
            rows = rows.some(np.flatnonzero(stratum >= 2))
        return _labelled(rows, self.panel, self.plan)

    def part(self, number: int, series: int) -> Part:
        """One series of one part in full."""
        frame = self.frame_of(number)
        work, shape = frame.work, frame.work.n.shape
        squares: Floats = np.zeros(shape[1])
        if not self.said:
            y = summed(frame.cell, frame.rows.sums[1], shape[0] * shape[1]).reshape(shape)
            squares = summed(frame.cell % shape[1], frame.rows.sums[2], shape[1])
        else:
            if number not in self.given:
                self.given[number] = self._days(self.panel.said, number, without_consensus=False)
            given = self.given[number]
            given = given.some(np.flatnonzero(given.label == series))
            place = frame.strata[self.rank[given.who] * self.strata + given.stratum]
            key = frame.days[given.at] * shape[1] + place
            y = summed(key, given.sums[0], shape[0] * shape[1]).reshape(shape)
        base = np.flatnonzero(frame.strata >= 0) % self.strata
        column = series if self.said else 0
        mean, scatter = self.pool.mean[base, column], self.pool.variance[base, column]
        variance = self.variance(y.sum(axis=0), squares, work.sizes, mean, scatter)
        upper = self.upper[base, series]
        pace = self.pace(y.sum(axis=0), work.sizes, mean, upper)
        return Part(work, y, self.weight[base, series], upper, pace, variance)


def _places(codes: Ints, size: int) -> tuple[Ints, Ints]:
    """For every code its place among those that occur, -1 where it does not; and the places of the codes given."""
    present = np.zeros(size, dtype=bool)
    present[codes] = True
    places = np.where(present, np.cumsum(present) - 1, -1)
    return places, places[codes]


def _by_segment(panel: Panel, plan: Plan, sums: Sums, part_of: Ints) -> tuple[Rows, ...]:
    starts = np.minimum(np.searchsorted(plan.days, np.arange(int(plan.starts[-1]) + 1)), max(len(plan.days) - 1, 0))
    segment = plan.segment_of[starts]
    strata = strata_of(plan, panel)
    return tuple(
        _labelled(
            Rows(run.who, part_of[run.who], segment[run.start], strata[run.stratum], run.label, run.columns),
            panel,
            plan,
        )
        for run in sums.runs
    )


def _labelled(rows: Rows, panel: Panel, plan: Plan) -> Rows:
    """With labels as places in ``Plan.labels``, and without other labels."""
    if not rows.label.any():
        return rows
    place = np.full(len(panel.labels) + 1, -1, dtype=np.int64)
    place[plan.labels + 1] = np.arange(len(plan.labels))
    rows = replace(rows, label=place[rows.label])
    return rows if rows.label.min() >= 0 else rows.some(np.flatnonzero(rows.label >= 0))


def total(keys: Sequence[Ints], values: Iterable[Floats], size: int) -> Floats:
    """Sums of what has the same key, over several runs."""
    found = np.zeros(size)
    for key, some in zip(keys, values, strict=True):
        if len(key):
            found += summed(key, some, size)
    return found


def _pool(plan: Plan, sizes: Sequence[Rows], said: Sequence[Rows]) -> Pool:
    strata, labels = 2 * len(plan.labels) + 4, len(plan.labels)
    keys = [rows.stratum for rows in sizes]
    number, *sums = (total(keys, (rows.sums[column] for rows in sizes), strata)[:, None] for column in (0, 6, 9))
    some = np.maximum(number, 1.0)
    if not said:
        mean = sums[0] / some
        return Pool(mean, np.maximum(sums[1] / some - mean**2, 0.0))
    keys = [rows.stratum * labels + rows.label for rows in said]
    uses = total(keys, (rows.sums[0] for rows in said), strata * labels)
    mean = uses.reshape(strata, -1) / some
    return Pool(mean, mean * (1 - mean))
