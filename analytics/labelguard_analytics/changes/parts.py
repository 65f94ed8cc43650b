"""A measure's sums, sorted by who is examined, with the strata and weights they are compared in."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from labelguard_analytics.changes.cells import Cells, Ints
from labelguard_analytics.changes.measures import Measure
from labelguard_analytics.changes.panel import Panel
from labelguard_analytics.changes.plan import Plan
from labelguard_analytics.changes.scores import Work, experience, summed
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
    day: Ints
    """Places in the calendar."""
    stratum: Ints
    label: Ints
    """Places in ``Plan.labels``; 0 where there is none."""
    sums: Floats

    def some(self, kept: Ints | slice) -> Rows:
        """Some of the rows."""
        return Rows(
            self.who[kept], self.part[kept], self.day[kept], self.stratum[kept], self.label[kept], self.sums[kept]
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

    plan: Plan
    measure: Measure
    sizes: Rows
    """Judgments; and for all but shares, sums and sums of squares."""
    said: Rows | None
    """For shares: how often which label was given."""
    pool: Pool
    units: Ints
    """The unit of each part."""
    annotators: Ints
    """The annotator of each part."""
    rank: Ints
    """Of each combination of annotator, source and cohort: its number within its part; each has strata of its own."""
    made: Floats
    """Judgments of any kind (annotators x calendar)."""
    frames: dict[int, Frame] = field(default_factory=dict)
    """What was worked out by :meth:`frame_of`."""

    @classmethod
    def of(cls, panel: Panel, plan: Plan, measure: Measure, pool: Pool | None = None) -> Data:
        """A measure of a panel, weighted as ``pool`` says, where it is given."""
        cells = panel.measured["agreement" if measure.name == "share" else measure.name]
        sizes = _rows(panel, plan, cells, without_consensus=measure.name not in ("agreement", "share"))
        said = _rows(panel, plan, panel.said, without_consensus=False) if measure.name == "share" else None
        if said is not None:
            place = np.full(len(panel.labels) + 1, -1, dtype=np.int64)
            place[plan.labels + 1] = np.arange(len(plan.labels))
            said = replace(said, label=place[said.label])
            if (said.label < 0).any():
                said = said.some(np.flatnonzero(said.label >= 0))
        people = int(plan.annotator_of.max(initial=0)) + 1
        part_of = plan.unit_of * people + plan.annotator_of
        codes, place = np.unique(part_of, return_inverse=True)
        part_of = place.astype(np.int64)
        order = np.argsort(part_of, kind="stable")
        first = np.searchsorted(part_of[order], np.arange(len(codes)))
        rank = np.empty(len(order), dtype=np.int64)
        rank[order] = np.arange(len(order)) - first[part_of[order]]
        made = _rows(panel, plan, panel.measured["agreement"], without_consensus=True)
        key = plan.annotator_of[made.who] * len(plan.days) + made.day
        return cls(
            plan,
            measure,
            _by_part(sizes, part_of),
            None if said is None else _by_part(said, part_of),
            _pool(plan, sizes, said) if pool is None else pool,
            codes // people,
            codes % people,
            rank,
            summed(key, made.sums[:, 0], people * len(plan.days)).reshape(people, -1),
        )

    @property
    def series(self) -> int:
        """How many series there are: every label; or all labels together, and then every label."""
        labels = len(self.plan.labels)
        return labels if self.said is not None else 1 + labels * ("label" in self.plan.by)

    @property
    def strata(self) -> int:
        """Strata of one source and cohort."""
        return 2 * len(self.plan.labels) + 4

    @cached_property
    def belongs(self) -> Floats:
        """Which strata bear on which series (strata x series)."""
        if self.said is not None:
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
        if self.said is not None:
            return np.asarray(place[:, None] // 2 == np.arange(self.series), dtype=np.float64)
        return np.repeat((place % 2)[:, None], self.series, axis=1).astype(np.float64)

    @cached_property
    def curves(self) -> Floats:
        """Experience (2 x annotators x calendar)."""
        before = np.cumsum(self.made, axis=1) - self.made
        return experience(before, np.maximum(self.made, 1.0))

    def pace(self, sums: Floats, sizes: Floats, mean: Floats, upper: Floats) -> Floats:
        """How strongly learning shows in a stratum: errors shrink in proportion, so it is the share of errors."""
        if not self.measure.binary:
            return np.ones(np.broadcast_shapes(sums.shape, upper.shape))
        level = (sums + _PRIOR * mean) / (sizes + _PRIOR)
        if self.said is not None:
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
            rows = self.sizes.some(_slice(self.sizes, number))
            wide = self.rank[rows.who] * self.strata + rows.stratum
            strata, stratum = _places(wide, int(wide.max(initial=0)) + 1)
            days, day = _places(rows.day, len(self.plan.days))
            shape = int(days.max(initial=-1)) + 1, int(strata.max(initial=-1)) + 1
            cell = day * shape[1] + stratum
            n = summed(cell, rows.sums[:, 0], shape[0] * shape[1]).reshape(shape)
            on = np.flatnonzero(days >= 0)
            work = Work(on, n, self.curves[:, self.annotators[number], on])
            self.frames[number] = Frame(work, days, strata, cell, rows)
        return self.frames[number]

    def part(self, number: int, series: int) -> Part:
        """One series of one part in full."""
        frame = self.frame_of(number)
        work, shape = frame.work, frame.work.n.shape
        squares: Floats = np.zeros(shape[1])
        if self.said is None:
            y = summed(frame.cell, frame.rows.sums[:, 1], shape[0] * shape[1]).reshape(shape)
            squares = summed(frame.cell % shape[1], frame.rows.sums[:, 2], shape[1])
        else:
            given = self.said.some(_slice(self.said, number))
            given = given.some(np.flatnonzero(given.label == series))
            place = frame.strata[self.rank[given.who] * self.strata + given.stratum]
            key = frame.days[given.day] * shape[1] + place
            y = summed(key, given.sums[:, 0], shape[0] * shape[1]).reshape(shape)
        base = np.flatnonzero(frame.strata >= 0) % self.strata
        column = series if self.said is not None else 0
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


def _slice(rows: Rows, part: int) -> slice:
    first, last = np.searchsorted(rows.part, [part, part + 1])
    return slice(int(first), int(last))


def _by_part(rows: Rows, part_of: Ints) -> Rows:
    rows = replace(rows, part=part_of[rows.who])
    if bool(np.all(rows.part[1:] >= rows.part[:-1])):
        return rows
    return rows.some(np.argsort(rows.part, kind="stable"))


def _strata(plan: Plan, panel: Panel, stratum: Ints) -> Ints:
    """Strata with rare labels taken together: two for each label looked at, two for others, two without consensus."""
    place = np.full(len(panel.labels) + 1, len(plan.labels), dtype=np.int64)
    place[0] = len(plan.labels) + 1
    place[plan.labels + 1] = np.arange(len(plan.labels))
    every = np.repeat(2 * place, 2) + np.tile([0, 1], len(place))
    return np.asarray(every[stratum])


def _rows(panel: Panel, plan: Plan, cells: Cells, *, without_consensus: bool) -> Rows:
    who, day, stratum, label = cells.unpacked()
    sums = cells.sums
    if not without_consensus and len(stratum) and int(stratum.min()) < 2:
        some = np.flatnonzero(stratum >= 2)
        who, day, stratum, label, sums = who[some], day[some], stratum[some], label[some], sums[some]
    calendar = np.zeros((int(plan.days[-1]) if len(plan.days) else 0) + 1, dtype=np.int64)
    calendar[plan.days] = np.arange(len(plan.days))
    return Rows(who, who, calendar[day], _strata(plan, panel, stratum), label, sums)


def _pool(plan: Plan, sizes: Rows, said: Rows | None) -> Pool:
    strata = 2 * len(plan.labels) + 4
    some = np.maximum(summed(sizes.stratum, sizes.sums[:, 0], strata)[:, None], 1.0)
    if said is None:
        total, squares = (summed(sizes.stratum, sizes.sums[:, column], strata)[:, None] for column in (1, 2))
        mean = total / some
        return Pool(mean, np.maximum(squares / some - mean**2, 0.0))
    key = said.stratum * len(plan.labels) + said.label
    mean = summed(key, said.sums[:, 0], strata * len(plan.labels)).reshape(strata, -1) / some
    return Pool(mean, mean * (1 - mean))
