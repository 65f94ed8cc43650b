"""Sums by period: what a look at everybody reads, brought up to date from night to night at the cost of what changed.

Experience on a day follows from the days before it, and the periods of a plan only ever become one with their
neighbours. So of what last night summed, everything before the first day with another judgment still counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from labelguard_analytics.changes.cells import DAYS, WHO_SHIFT, Cells, Ints
from labelguard_analytics.changes.panel import Panel, Who
from labelguard_analytics.changes.plan import Plan
from labelguard_analytics.changes.scores import experience, summed
from labelguard_analytics.frames import Floats

Flags = npt.NDArray[np.bool_]

_DAY = DAYS - 1
_DENSE = 4
"""So many times the rows may be the cells of a table in which they are added up without sorting."""


@dataclass(frozen=True)
class Sums:
    """Rows with a key of who, stratum, label and first day of the period packed into one; sorted, each key once."""

    key: Ints
    columns: Floats
    """Sums x rows. Of measures: judgments, their products with both curves of experience, with the squares and the
    product of those, the sum, its products with both curves, and the sum of squares. Of labels that were given: their
    number and its products with both curves."""

    def unpacked(self) -> tuple[Ints, Ints, Ints, Ints]:
        """Who, first day, stratum and label of each row."""
        return (
            self.key >> WHO_SHIFT,
            self.key & _DAY,
            (self.key >> 29) & ((1 << 15) - 1),
            (self.key >> 15) & ((1 << 14) - 1),
        )

    def and_later(self, later: Sums) -> Sums:
        """Together with later periods."""
        key = np.concatenate([self.key, later.key])
        order = np.argsort(key, kind="stable")  # two sorted runs, which this sort merges
        return Sums(key[order], np.concatenate([self.columns, later.columns], axis=1)[:, order])


@dataclass(frozen=True)
class Periods:
    """Everything that a look at everybody reads."""

    plan: Plan
    who: tuple[Who, ...]
    labels: pd.Index[Any]
    made: Floats
    """Judgments of any kind (annotators x calendar)."""
    curves: Floats
    """Experience (2 x annotators x calendar)."""
    sums: Mapping[str, Sums]
    """By measure; ``said`` is what was said."""
    seen: Mapping[str, Flags]
    """By measure, the days with judgments (units x calendar x labels looked at, and last any)."""

    @classmethod
    def of(cls, panel: Panel, plan: Plan, names: Iterable[str]) -> Periods:
        """The sums of some measures (and ``said``), from those of an earlier night where the panel remembers them."""
        past = Past.of(panel, plan)
        shape = int(plan.annotator_of.max(initial=-1)) + 1, len(plan.days)
        recent = _later(panel.judged, panel, past.day)
        who, day, _, _ = recent.unpacked()
        key = plan.annotator_of[who] * shape[1] + np.searchsorted(plan.days, day)
        made = summed(key, recent.sums[:, 0], shape[0] * shape[1]).reshape(shape)
        past.fill(made, plan.annotator_of, "made")
        curves = experience(np.cumsum(made, axis=1) - made, np.maximum(made, 1.0))
        sums, seen = {}, {}
        for name in names:
            known = past if past.has(name) else Past()
            cells = panel.said if name == "said" else panel.measured[name]
            recent = _later(cells, panel, known.day)
            if name in ("said", "agreement"):
                kept = (recent.key >> 14) & ((1 << 15) - 1) >= 2
                recent = recent if kept.all() else Cells(recent.key[kept], recent.sums[kept])
            later = _summed(recent, plan, curves)
            sums[name] = later if known.periods is None else known.sums(name, plan).and_later(later)
            if name != "said":
                seen[name] = _seen(recent, panel, plan)
                known.fill(seen[name], plan.unit_of, name)
        return cls(plan, panel.who, panel.labels, made, curves, sums, seen)


@dataclass(frozen=True)
class Past:
    """What of an earlier night still counts."""

    periods: Periods | None = None
    day: int = 0
    """What lies before this day."""
    who: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """Today's code of each of that night's combinations of annotator, source and cohort."""

    @classmethod
    def of(cls, panel: Panel, plan: Plan) -> Past:
        """What a panel remembers, as far as it fits a plan."""
        old, changed = panel.memory.get(plan.by, (None, 0))
        if (
            not isinstance(old, Periods)
            or not old.labels.equals(panel.labels)
            or not np.array_equal(old.plan.labels, plan.labels)
            or not set(old.who) <= set(panel.who)
        ):
            return cls()
        # Up to the last first day at which both nights begin a period, if they begin none but such before.
        same = np.isin(plan.starts, old.plan.starts) | (plan.starts > int(old.plan.days.max(initial=0)))
        fits = plan.starts[np.logical_and.accumulate(same) & (plan.starts <= changed)]
        place = {one: number for number, one in enumerate(panel.who)}
        who = np.array([place[one] for one in old.who], dtype=np.int64)
        return cls(old, int(fits.max(initial=0)), who)

    def has(self, name: str) -> bool:
        """Whether that night looked at a measure."""
        return self.periods is not None and name in self.periods.sums

    def fill(self, values: npt.NDArray[Any], codes: Ints, name: str) -> None:
        """Write the earlier days of an array whose first axis is a code of who, and whose second is the calendar."""
        if self.periods is None:
            return
        old, plan = self.periods, self.periods.plan
        theirs, before = (plan.annotator_of, old.made) if name == "made" else (plan.unit_of, old.seen[name])
        days = int(np.searchsorted(plan.days, self.day))
        values[codes[self.who], :days] = before[theirs, :days]

    def sums(self, name: str, plan: Plan) -> Sums:
        """The earlier periods, each of which is now one of the plan's or a part of one."""
        if self.periods is None:
            raise KeyError(name)
        old = self.periods.sums[name]
        start = old.key & _DAY
        kept = np.flatnonzero(start < self.day)
        key, start, columns = old.key[kept], start[kept], old.columns[:, kept]
        who = key >> WHO_SHIFT
        now = plan.starts[np.searchsorted(plan.starts, start, side="right") - 1]
        key = key + (now - start) + ((self.who[who] - who) << WHO_SHIFT)
        first = np.flatnonzero(np.diff(key, prepend=-1))
        if len(first) < len(key):
            key, columns = key[first], np.add.reduceat(columns, first, axis=1)
        return Sums(key, columns)


def _later(cells: Cells, panel: Panel, day: int) -> Cells:
    return cells.of_whom(np.arange(len(panel.who)), day) if day else cells


def _summed(cells: Cells, plan: Plan, curves: Floats) -> Sums:
    who, day, stratum, label = cells.unpacked()
    place = plan.annotator_of[who] * len(plan.days) + np.searchsorted(plan.days, day)
    slow, fast = (np.take(curve.ravel(), place) for curve in curves)
    number = cells.sums[:, 0]
    columns = [number, number * slow, number * fast]
    if cells.sums.shape[1] > 1:
        total, squares = cells.sums[:, 1], cells.sums[:, 2]
        columns += [columns[1] * slow, columns[1] * fast, columns[2] * fast]
        columns += [total, total * slow, total * fast, squares]
    period = np.searchsorted(plan.starts, day, side="right") - 1
    dims = int(stratum.max(initial=0)) + 1, int(label.max(initial=0)) + 1, len(plan.starts)
    flat = ((who * dims[0] + stratum) * dims[1] + label) * dims[2] + period
    size = (int(who.max(initial=-1)) + 1) * dims[0] * dims[1] * dims[2]
    if size <= _DENSE * len(flat):
        flat_there = np.flatnonzero(np.bincount(flat, minlength=size))
        kept = np.stack([summed(flat, column, size)[flat_there] for column in columns])
    else:
        order = np.argsort(flat, kind="stable")
        ordered = flat[order]
        first = np.flatnonzero(np.diff(ordered, prepend=-1))
        flat_there = ordered[first]
        kept = np.stack([np.add.reduceat(column[order], first) for column in columns])
    rest, period = np.divmod(flat_there, dims[2])
    rest, label = np.divmod(rest, dims[1])
    who, stratum = np.divmod(rest, dims[0])
    return Sums((who << WHO_SHIFT) | (stratum << 29) | (label << 15) | plan.starts[period], kept)


def _seen(cells: Cells, panel: Panel, plan: Plan) -> Flags:
    width = len(plan.labels) * ("label" in plan.by) + 1
    seen = np.zeros((len(plan.units), len(plan.days), width), dtype=bool)
    who, day, stratum, _ = cells.unpacked()
    cell = (plan.unit_of[who] * len(plan.days) + np.searchsorted(plan.days, day)) * width
    flat = seen.ravel()
    flat[cell + width - 1] = True
    if width > 1:
        label = strata_of(plan, panel)[stratum] // 2
        kept = label < width - 1
        flat[cell[kept] + label[kept]] = True
    return seen


def strata_of(plan: Plan, panel: Panel) -> Ints:
    """For each of a panel's strata its place with rare labels taken together.

    Two for each label looked at, two for others, two without consensus.
    """
    place = np.full(len(panel.labels) + 1, len(plan.labels), dtype=np.int64)
    place[0] = len(plan.labels) + 1
    place[plan.labels + 1] = np.arange(len(plan.labels))
    return np.asarray(np.repeat(2 * place, 2) + np.tile([0, 1], len(place)))
