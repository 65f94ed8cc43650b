"""One look at a panel for one measure: everybody's scores, and how sure each possible change is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.special import stdtr

from labelguard_analytics.changes.cells import Ints
from labelguard_analytics.changes.measures import MEASURES, Measure
from labelguard_analytics.changes.panel import Panel
from labelguard_analytics.changes.parts import Data, Pool
from labelguard_analytics.changes.periods import Periods
from labelguard_analytics.changes.plan import Plan
from labelguard_analytics.changes.scores import Profile, Tests, profile, significance
from labelguard_analytics.changes.screen import batches
from labelguard_analytics.frames import Floats

Flags = npt.NDArray[np.bool_]

_LEAST_USES = 10
"""Judgments that must have a label, or have it as their consensus, for its share to be looked at."""


_FEW = 3.0
"""With so many colleagues, what they have in common is not taken for everybody's; with more, ever more so."""


@dataclass
class Sight:
    """One measure in a look."""

    measure: Measure
    plan: Plan
    data: Data
    shock: tuple[Floats, Floats] | None = None
    """Weighted residuals and weighted judgments of everybody (segments x series), where they are compared with it."""
    share: Floats = field(default_factory=lambda: np.zeros(0))
    """How much of what all share is more than noise, for each series."""
    own: tuple[Floats, Floats] | None = None
    """Each part's weighted residuals and judgments (parts x segments x series)."""
    possible: Flags = field(default_factory=lambda: np.zeros((0, 0, 0), dtype=bool))
    """Whether enough lies before and after (units x changes x series)."""
    bound: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    """A lower bound of each p-value (units x series); NaN where there is too little data for any."""
    strongest: Ints = field(default_factory=lambda: np.zeros((0, 0), dtype=np.int64))
    """The strongest change for the bound, as a place among the candidates."""
    too_little: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Units with too little data: judgments and days in the smaller of the best two periods."""

    def label_of(self, series: int) -> int | None:
        """The label of a series, as a place in ``Plan.labels``; None for all labels together."""
        if self.measure.name == "share":
            return series
        return series - 1 if series else None

    def parts_of(self, unit: int) -> list[int]:
        """The parts of a unit: one for each annotator."""
        return [int(part) for part in np.flatnonzero(self.data.units == unit)]

    def _shock_for(self, part: int, series: int, day: Ints) -> Floats | None:
        if self.shock is None or self.own is None:
            return None
        rest = self.shock[0][:, series] - self.own[0][part, :, series]
        scale = self.shock[1][:, series] - self.own[1][part, :, series]
        return _common(rest, scale, self.share[series])[self.plan.segment_of[day]]

    def profile(self, unit: int, series: int, places: Ints, *, even: bool = False) -> Profile:
        """One series of one unit; ``even`` weighs every judgment alike."""
        together: Profile | None = None
        numbers = self.parts_of(unit)
        for number in numbers:
            part = self.data.part(number, series)
            weight = (part.weight > 0).astype(np.float64) if even else part.weight
            local = np.searchsorted(part.work.day, places)
            shock = self._shock_for(number, series, part.work.day)
            one = profile(part.work, part.y, weight, part.upper, part.pace, part.variance, local, shock)
            if len(numbers) == 1:
                return one
            wide = one.on(part.work.day, len(self.plan.days))
            together = wide if together is None else together.plus(wide)
        if together is None:
            raise KeyError(unit)
        return together

    def days_of(self, unit: int) -> Ints:
        """The days of :meth:`profile`, as places in the calendar."""
        numbers = self.parts_of(unit)
        if len(numbers) > 1:
            return np.arange(len(self.plan.days))
        return self.data.frame_of(numbers[0]).work.day

    def test(self, unit: int, series: int, places: Ints, *, even: bool = False) -> Tests:
        """The tests of a series at changes before each of ``places`` (in the calendar)."""
        found = self.profile(unit, series, places, even=even)
        return significance(found, np.searchsorted(self.days_of(unit), places))

    def settle(self, unit: int, series: int) -> tuple[float, int]:
        """The p-value of a series over all possible changes, and the strongest, as a place in the calendar."""
        places = self.plan.candidates[self.possible[unit, :, series]]
        tested = self.test(unit, series, places)
        each = two_sided(tested.t, tested.df)
        return float(combined(each, np.ones(len(each), dtype=bool))), int(places[int(np.argmin(each))])


def measures_of(panel: Panel, plan: Plan, wanted: Sequence[str]) -> list[Measure]:
    """The measures that can be looked at, in the order of :data:`MEASURES`."""
    return [
        measure
        for name, measure in MEASURES.items()
        if name in wanted and (name in panel.measured or (name == "share" and "label" in plan.by))
    ]


def sums_of(measures: Sequence[Measure]) -> list[str]:
    """The sums by period that looks for these measures read."""
    by_consensus = ["agreement", "said"] if any(measure.name == "share" for measure in measures) else []
    return list(dict.fromkeys([*by_consensus, *(measure.name for measure in measures if measure.name != "share")]))


def look(
    panel: Panel, plan: Plan, measure: Measure, periods: Periods, *, pool: Pool | None = None, alone: bool = False
) -> Sight:
    """Examine every unit of a panel for one measure.

    Args:
        panel: what is looked at.
        plan: how.
        measure: what for.
        periods: the panel's sums by period.
        pool: what an earlier look saw everybody do.
        alone: do not compare with what happened to everybody.
    """
    data = Data.of(panel, plan, measure, periods, pool)
    sight = Sight(measure, plan, data)
    every = batches(data)
    units = len(plan.units)
    shape = units, len(plan.candidates), data.series
    if every and "annotator" in plan.by and not alone:
        wide = len(data.units), *every[0].rest.shape[1:]
        rest, scale, noise = np.zeros(wide), np.zeros(wide), np.zeros(wide)
        for batch in every:
            mine = slice(batch.first, batch.last)
            rest[mine], scale[mine], noise[mine] = batch.rest, batch.scale, batch.noise
        sight.shock, sight.own = (rest.sum(axis=0), scale.sum(axis=0)), (rest, scale)
        # What two or three colleagues have in common may be the doing of one.
        few = max(0.0, 1 - _FEW / max(len(data.units) - 1, 1))
        sight.share = few * _share(sight.shock[0], noise.sum(axis=0))
    score, info, model = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    judged, uses = np.zeros((units, len(plan.candidates) + 1, data.series)), np.zeros((units, data.series))
    alike = np.bincount(data.units, minlength=units) > 1
    several = bool(alike.any())
    for batch in every:
        unit = data.units[batch.first : batch.last]
        found = batch.scores(_shocks(sight, batch.first, batch.last))
        for total, part in (
            (score, found.score),
            (info, found.info),
            (model, found.model),
            (judged, batch.judged),
            (uses, batch.uses),
        ):
            if several:
                np.add.at(total, unit, part)
            else:
                total[unit] = part
    days = _days(data)
    sight.possible, least, fewest = _possible(plan, judged, days)
    _say_too_little(sight, least[:, :, 0], fewest[:, :, 0])
    sight.possible &= ((info > 1e-6) & (model > 0)) & (uses >= _LEAST_USES)[:, None, :]
    t = np.where(sight.possible, np.abs(score) / np.sqrt(np.where(sight.possible, model, 1.0)), 0.0)
    df = np.maximum(np.where(alike, len(plan.days), days.sum(axis=1)[:, -1]) / 2, 2.0)
    some = sight.possible.any(axis=1)
    # No combination is below the smallest of its p-values, which is nearly always enough.
    sight.bound = np.where(some, two_sided(t.max(axis=1, initial=0.0), df[:, None]), np.nan)
    unit, series = np.nonzero(sight.bound <= plan.level)
    each = two_sided(t[unit, :, series], df[unit, None])
    sight.bound[unit, series] = combined(each, sight.possible[unit, :, series], axis=1)
    sight.strongest = np.argmax(t, axis=1) if len(plan.candidates) else np.zeros(some.shape, dtype=np.int64)
    return sight


def _days(data: Data) -> Floats:
    """Days with judgments (units x segments x series); the last series of all counts any judgment."""
    plan, starts = data.plan, np.concatenate([[0], data.plan.candidates])
    seen = data.periods.seen["agreement" if data.said else data.measure.name]
    if data.said:
        seen = seen[:, :, -1:]
    if not len(plan.days):
        return np.zeros((len(plan.units), 1, data.series + 1))
    days = np.add.reduceat(seen.view(np.uint8), starts, axis=1, dtype=np.int32).astype(np.float64)
    if data.said:
        return np.repeat(days, data.series + 1, axis=2)
    return np.concatenate([days[:, :, -1:], days[:, :, :-1], days[:, :, -1:]], axis=2)


def _possible(plan: Plan, judged: Floats, days: Floats) -> tuple[Flags, Floats, Floats]:
    """Where enough lies before and after a change, and the smaller numbers of judgments and days."""
    least, fewest = (
        np.minimum(after := np.cumsum(values[:, ::-1], axis=1)[:, ::-1][:, 1:], values.sum(axis=1)[:, None] - after)
        for values in (judged, days[:, :, :-1])
    )
    return (least >= plan.min_judgments) & (fewest >= plan.min_days), least, fewest


def _say_too_little(sight: Sight, least: Floats, fewest: Floats) -> None:
    plan = sight.plan
    present = np.zeros(len(plan.units), dtype=bool)
    present[sight.data.units[sight.data.present]] = True
    short: Flags = np.ones(len(plan.units), dtype=bool)
    if least.shape[1]:
        filled = np.minimum(least / plan.min_judgments, fewest / plan.min_days)
        short = np.asarray(~(filled >= 1).any(axis=1))
    for unit in np.flatnonzero(short).tolist():
        best = int(np.argmax(filled[unit])) if least.shape[1] and present[unit] else -1
        sight.too_little[unit] = (0, 0) if best < 0 else (int(least[unit, best]), int(fewest[unit, best]))


def _share(rest: Floats, noise: Floats) -> Floats:
    """How much of everybody's residuals is more than noise."""
    seen = np.mean(np.divide(rest**2, noise, out=np.zeros_like(rest), where=noise > 0), axis=0)
    return np.asarray(np.clip(1 - 1 / np.maximum(seen, 1.0), 0.0, 1.0))


def _shocks(sight: Sight, first: int, last: int) -> Floats | None:
    if sight.shock is None or sight.own is None:
        return None
    rest, scale = (every - own[first:last] for every, own in zip(sight.shock, sight.own, strict=True))
    return _common(rest, scale, sight.share)


def _common(rest: Floats, scale: Floats, share: Floats | float) -> Floats:
    few = scale <= 1e-9
    return np.asarray(np.where(few, 0.0, rest / np.where(few, 1.0, scale)) * share)


def two_sided(t: Floats, df: Floats) -> Floats:
    """Two-sided p-values of t statistics."""
    return np.asarray(2 * stdtr(df, -np.abs(t)))


def combined(p: Floats, kept: Flags, axis: int = 0) -> Floats:
    """One p-value for the strongest of several that depend on each other (Cauchy combination, Liu and Xie 2020).

    >>> alike = np.array([0.01, 0.01]), np.array([True, True])
    >>> float(combined(*alike).round(6))
    0.01
    """
    # The cotangent of p: 1 / tan(pi p), which stays exact for the smallest p.
    angle = 1 / np.tan(np.pi * np.clip(p, 1e-300, 0.99))
    number = np.maximum(kept.sum(axis=axis), 1)
    mean = np.sum(np.where(kept, angle, 0.0), axis=axis) / number
    return np.asarray(np.arctan2(1.0, mean) / np.pi)
