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

from labelguard_analytics.changes.cells import Cells, Ints, Pile
from labelguard_analytics.changes.panel import Panel, Who
from labelguard_analytics.changes.plan import Plan
from labelguard_analytics.changes.scores import experience, summed
from labelguard_analytics.frames import Floats

Flags = npt.NDArray[np.bool_]

_FEW = 4
"""So many times as many rows are in the old run as in the new one."""
_DENSE = 4
"""So many times the rows may be the cells of a table in which they are added up without sorting."""


@dataclass(frozen=True)
class Run:
    """Sums by period, who, stratum and label, in that order, each combination once."""

    start: Ints
    """First days of periods."""
    who: Ints
    stratum: Ints
    label: Ints
    columns: Floats
    """Sums x rows. Of measures: judgments, their products with both curves of experience, with the squares and the
    product of those, the sum, its products with both curves, and the sum of squares. Of labels that were given: their
    number and its products with both curves."""

    def before(self, day: int, who: Ints) -> Run:
        """What lies before a day, with other codes, which are in the same order."""
        rows = slice(int(np.searchsorted(self.start, day)))
        mine = self.who[rows]
        same = len(who) == 0 or int(who[-1]) == len(who) - 1
        return Run(
            self.start[rows],
            mine if same else who[mine],
            self.stratum[rows],
            self.label[rows],
            self.columns[:, rows],
        )

    @classmethod
    def of(cls, start: Ints, who: Ints, stratum: Ints, label: Ints, starts: Ints, columns: Floats) -> Run:
        """Add up what is in the same period, of which ``starts`` are the first days."""
        period = np.searchsorted(starts, start, side="right") - 1
        dims = tuple(int(code.max(initial=0)) + 1 for code in (who, stratum, label))
        flat = ((period * dims[0] + who) * dims[1] + stratum) * dims[2] + label
        size = len(starts) * dims[0] * dims[1] * dims[2]
        if size <= _DENSE * len(flat):
            there = np.flatnonzero(np.bincount(flat, minlength=size))
            sums = np.stack([summed(flat, column, size)[there] for column in columns])
        else:
            order = np.argsort(flat, kind="stable")
            ordered = flat[order]
            first = np.flatnonzero(np.diff(ordered, prepend=-1))
            there = ordered[first]
            sums = np.stack([np.add.reduceat(column[order], first) for column in columns])
        rest, label = np.divmod(there, dims[2])
        rest, stratum = np.divmod(rest, dims[1])
        period, who = np.divmod(rest, dims[0])
        return cls(starts[period], who, stratum, label, sums)


@dataclass(frozen=True)
class Sums:
    """Two runs, so that what comes new is not sorted into all that was there."""

    old: Run
    new: Run

    @property
    def runs(self) -> tuple[Run, Run]:
        """Both."""
        return self.old, self.new

    def then(self, day: int, who: Ints, later: Run, starts: Ints) -> Sums:
        """What lies before a day, with other codes, and what came later."""
        old, new = (run.before(day, who) for run in self.runs)
        recent = _joined(new, later, starts)
        if _FEW * len(recent.who) <= len(old.who):
            return Sums(old, recent)
        whole = _joined(old, recent, starts)
        return Sums(whole, whole.before(0, who))


def _joined(one: Run, other: Run, starts: Ints) -> Run:
    start, who, stratum, label = (
        np.concatenate([getattr(one, name), getattr(other, name)]) for name in ("start", "who", "stratum", "label")
    )
    return Run.of(start, who, stratum, label, starts, np.concatenate([one.columns, other.columns], axis=1))


@dataclass(frozen=True)
class Table:
    """Judgments of some parts by stratum, and what everybody's scores need of them."""

    n: Floats
    """Their number (parts x segments x strata)."""
    moved: Floats
    """Centred products with both curves of experience (parts x 2 x segments x strata)."""
    sizes: Floats
    """Their number in all segments (parts x strata)."""
    means: Floats
    """Mean experience (2 x parts x strata)."""
    moments: Floats
    """Centred squares and products of the curves (parts x 3 x strata)."""
    doubled: Floats
    """The squared number after each change, divided by that in all segments (parts x changes x strata)."""


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
    tables: dict[tuple[int, int], list[tuple[list[Any], Table]]] = field(default_factory=dict, repr=False)
    """What looks for several measures have in common, with the rows it was made of, by parts."""

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
            pile = panel.said if name == "said" else panel.measured[name]
            recent = _later(pile, panel, known.day)
            if name in ("said", "agreement"):
                kept = (recent.key >> 14) & ((1 << 15) - 1) >= 2
                recent = recent if kept.all() else Cells(recent.key[kept], recent.sums[kept])
            later = _summed(recent, plan, curves)
            if known.periods is None:
                sums[name] = Sums(later, later.before(0, known.who))
            else:
                sums[name] = known.periods.sums[name].then(known.day, known.who, later, plan.starts)
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


def _later(pile: Pile, panel: Panel, day: int) -> Cells:
    return pile.of_whom(np.arange(len(panel.who)), day) if day else pile.whole


def _summed(cells: Cells, plan: Plan, curves: Floats) -> Run:
    who, day, stratum, label = cells.unpacked()
    place = plan.annotator_of[who] * len(plan.days) + np.searchsorted(plan.days, day)
    slow, fast = (np.take(curve.ravel(), place) for curve in curves)
    number = cells.sums[:, 0]
    columns = [number, number * slow, number * fast]
    if cells.sums.shape[1] > 1:
        total, squares = cells.sums[:, 1], cells.sums[:, 2]
        columns += [columns[1] * slow, columns[1] * fast, columns[2] * fast]
        columns += [total, total * slow, total * fast, squares]
    return Run.of(day, who, stratum, label, plan.starts, np.stack(columns))


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
