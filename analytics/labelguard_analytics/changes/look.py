"""One look at a panel for one measure: everybody's scores, and how sure each possible change is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy import stats

from labelguard_analytics.changes.cells import Ints
from labelguard_analytics.changes.measures import MEASURES, Measure
from labelguard_analytics.changes.panel import Panel
from labelguard_analytics.changes.parts import Part, parts_of
from labelguard_analytics.changes.plan import Plan
from labelguard_analytics.changes.scores import Profile, Tests, profile, screen, tests
from labelguard_analytics.frames import Floats

Flags = npt.NDArray[np.bool_]

_LEAST_USES = 10
"""Judgments that must have a label, or have it as their consensus, for its share to be looked at."""


@dataclass(frozen=True)
class Found:
    """One series of one unit in one measure."""

    unit: int
    series: int
    """For shares a place in ``Plan.labels``; else 0 for all labels, and from 1 on those places."""
    p: float
    change: int
    """The most likely change among the candidates, as a place in the calendar."""
    screened_out: bool
    """Whether a bound was enough to see that nothing can be found, so that ``p`` is 1."""


@dataclass
class Sight:
    """One measure in a look."""

    measure: Measure
    plan: Plan
    parts: list[Part] = field(default_factory=list)
    shock: tuple[Floats, Floats] | None = None
    """Weighted residuals and weighted judgments of everybody (calendar x series), for what all share."""
    share: Floats | None = None
    """How much of what all share on a day is more than noise, for each series."""
    found: dict[tuple[int, int], Found] = field(default_factory=dict)
    too_little: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Units with too little data: judgments and days in the smaller of the best two periods."""

    @cached_property
    def by_unit(self) -> Mapping[int, list[Part]]:
        """The parts of each unit."""
        grouped: dict[int, list[Part]] = {}
        for part in self.parts:
            grouped.setdefault(part.unit, []).append(part)
        return grouped

    def label_of(self, series: int) -> int | None:
        """The label of a series, as a place in ``Plan.labels``; None for all labels together."""
        if self.measure.name == "share":
            return series
        return series - 1 if series else None

    def shock_for(self, part: Part) -> Floats | None:
        """What happened to the others on the days of a part."""
        if self.shock is None or self.share is None:
            return None
        rest, scale = self.shock[0][part.work.day] - part.rest, self.shock[1][part.work.day] - part.scale
        few = scale <= 1e-9
        return np.where(few, 0.0, rest / np.where(few, 1.0, scale)) * self.share

    def profile(self, unit: int, series: int, places: Ints, *, even: bool = False) -> Profile:
        """One series of one unit on the whole calendar; ``even`` weighs every judgment alike."""
        together: Profile | None = None
        for part in self.by_unit[unit]:
            weight = part.weight[:, series]
            if even:
                weight = (weight > 0).astype(np.float64)
            shock = self.shock_for(part)
            local = np.searchsorted(part.work.day, places)
            one = profile(
                part.work,
                part.values.of(series),
                weight,
                part.upper[:, series],
                part.variance[:, series],
                local,
                None if shock is None else shock[:, series],
            )
            if len(self.by_unit[unit]) == 1:
                return one
            wide = _on(self.plan, part.work.day, one)
            together = wide if together is None else together.plus(wide)
        if together is None:
            raise KeyError(unit)
        return together

    def days_of(self, unit: int) -> Ints:
        """The days of :meth:`profile`, as places in the calendar."""
        parts = self.by_unit[unit]
        return parts[0].work.day if len(parts) == 1 else np.arange(len(self.plan.days))

    def test(self, unit: int, series: int, places: Ints, *, even: bool = False) -> Tests:
        """The tests of a series at changes before each of ``places`` (in the calendar)."""
        found = self.profile(unit, series, places, even=even)
        return tests(found, np.searchsorted(self.days_of(unit), places))

    def possible(self, unit: int, places: Ints) -> tuple[Flags, Floats, Floats]:
        """Where enough lies before and after (places x series); the smaller number of judgments, and of days."""
        parts = self.by_unit[unit]
        judged = np.sum([_spread(self.plan, part.work.day, part.counted) for part in parts], axis=0)
        after = np.cumsum(judged[::-1], axis=0)[::-1]
        days = np.cumsum((judged > 0)[::-1], axis=0)[::-1]
        at = np.append(after, np.zeros((1, after.shape[1])), axis=0)[places]
        on = np.append(days, np.zeros((1, days.shape[1]), dtype=days.dtype), axis=0)[places]
        least, fewest = np.minimum(at, after[0] - at), np.minimum(on, days[0] - on).astype(np.float64)
        return (least >= self.plan.min_judgments) & (fewest >= self.plan.min_days), least, fewest


def _spread(plan: Plan, day: Ints, values: Floats) -> Floats:
    wide = np.zeros((len(plan.days), *values.shape[1:]))
    wide[day] = values
    return wide


def _on(plan: Plan, day: Ints, one: Profile) -> Profile:
    return Profile(
        _spread(plan, day, one.score),
        _spread(plan, day, one.step),
        _spread(plan, day, one.info),
        one.model,
        _spread(plan, day, one.residual),
        _spread(plan, day, one.noise),
    )


def measures_of(panel: Panel, plan: Plan, wanted: Sequence[str]) -> list[Measure]:
    """The measures that can be looked at, in the order of :data:`MEASURES`."""
    return [
        measure
        for name, measure in MEASURES.items()
        if name in wanted and (name in panel.measured or (name == "share" and "label" in plan.by))
    ]


def look(
    panel: Panel,
    plan: Plan,
    measure: Measure,
    *,
    only: frozenset[int] = frozenset(),
) -> Sight:
    """Examine every unit for one measure.

    Args:
        panel: what is looked at.
        plan: how.
        measure: what for.
        only: the units to examine, by themselves; all, where it is empty, less what happened to everybody.
    """
    sight = Sight(measure, plan)
    sight.parts.extend(parts_of(panel, plan, measure, only))
    if "annotator" in plan.by and not only:
        _share_of_shocks(sight)
    for unit in sight.by_unit:
        _examine(sight, unit)
    return sight


def _share_of_shocks(sight: Sight) -> None:
    """What everybody's residuals of a day have in common, as far as it is more than noise."""
    parts = sight.parts
    if not parts:
        return
    shape = len(sight.plan.days), parts[0].rest.shape[1]
    rest, scale, noise = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for part in parts:
        rest[part.work.day] += part.rest
        scale[part.work.day] += part.scale
        noise[part.work.day] += part.noise
    seen = np.sum(rest**2, axis=0)
    sight.shock = rest, scale
    sight.share = np.clip(1 - np.sum(noise, axis=0) / np.maximum(seen, 1e-12), 0.0, 1.0)


def _examine(sight: Sight, unit: int) -> None:
    """Test every series of a unit, exactly only where a bound does not already say that there is nothing."""
    places = sight.plan.candidates
    parts = sight.by_unit[unit]
    possible, least, fewest = sight.possible(unit, places)
    if not possible[:, 0].any():
        filled = np.minimum(least[:, 0] / sight.plan.min_judgments, fewest[:, 0] / sight.plan.min_days)
        at = int(np.argmax(filled)) if len(places) else -1
        sight.too_little[unit] = (0, 0) if at < 0 else (int(least[at, 0]), int(fewest[at, 0]))
    if not len(places):
        return
    screened = [
        screen(
            part.work,
            part.rest,
            part.weight,
            part.upper,
            part.variance,
            np.searchsorted(part.work.day, places),
            sight.shock_for(part),
        )
        for part in parts
    ]
    score, info, model = (
        np.sum([getattr(one, name) for one in screened], axis=0) for name in ("score", "info", "model")
    )
    uses = np.sum([_uses(sight, part) for part in parts], axis=0)
    possible &= (info > 1e-6) & (model > 0)
    bound = np.abs(score) / np.sqrt(np.where(possible, model, 1.0))
    days = len(sight.days_of(unit))
    df = max(days / 2, 2.0)
    p = np.asarray(2 * stats.t.sf(np.where(possible, bound, 0.0), df))
    for series in np.flatnonzero(possible.any(axis=0) & (uses >= _LEAST_USES)).tolist():
        real = possible[:, series]
        best = int(np.argmax(np.where(real, bound[:, series], -1.0)))
        if combined(p[real, series]) >= sight.plan.level:
            sight.found[unit, series] = Found(unit, series, 1.0, int(places[best]), True)
            continue
        tested = sight.test(unit, series, places[real])
        each = np.asarray(2 * stats.t.sf(np.abs(tested.t), tested.df))
        best = int(np.argmin(each))
        sight.found[unit, series] = Found(unit, series, combined(each), int(places[real][best]), False)


def _uses(sight: Sight, part: Part) -> Floats:
    """How many judgments could show a change of each series."""
    if sight.measure.name != "share":
        return np.asarray(part.counted.sum(axis=0))
    return np.asarray(part.values.sums.sum(axis=0) + part.work.sizes @ part.upper)


def combined(p: Floats) -> float:
    """One p-value for the strongest of several that depend on each other (Cauchy combination, Liu and Xie 2020)."""
    kept = np.minimum(p, 0.99)
    if not len(kept):
        return 1.0
    small = kept < 1e-12
    angles = np.where(small, 1 / (np.maximum(kept, 1e-300) * np.pi), np.tan((0.5 - np.where(small, 0.5, kept)) * np.pi))
    return float(min(1.0, stats.cauchy.sf(np.mean(angles))))
