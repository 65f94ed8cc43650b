"""A whole sweep: look, discover, look again without the suspects, and describe."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from labelguard_analytics.changes.cells import DAYS
from labelguard_analytics.changes.discover import Family, Quiet, Tested, discover, look_closely
from labelguard_analytics.changes.look import Sight, look, measures_of, sums_of
from labelguard_analytics.changes.measures import MEASURES
from labelguard_analytics.changes.nights import Nights
from labelguard_analytics.changes.panel import Panel
from labelguard_analytics.changes.periods import Periods
from labelguard_analytics.changes.plan import Plan, Unit
from labelguard_analytics.changes.points import Point, locate
from labelguard_analytics.changes.results import Change, Changes, Quietly, TooLittle

_BY_CONSENSUS = ("agreement", "share")
"""Measures that somebody else's drift moves."""


def sweep(
    panel: Panel,
    by: Sequence[str],
    measures: Sequence[str],
    level: float,
    nights: Nights | None,
    min_judgments: int,
    min_days: int,
) -> Changes:
    """Look at a panel, as :func:`labelguard_analytics.detect_changes` describes."""
    allowed = level if nights is None else nights.allowed
    plan = Plan.of(panel, frozenset(by), allowed, min_judgments, min_days)
    looked_for = measures_of(panel, plan, measures)
    periods = Periods.of(panel, plan, sums_of(looked_for))
    panel.memory[plan.by] = periods, DAYS
    sights = [look(panel, plan, measure, periods) for measure in looked_for]
    known = frozenset(() if nights is None else nights.named)
    grouped, quiet, families = look_closely(plan, sights, allowed, known)
    suspects = discover(grouped, families, allowed)
    if suspects and "annotator" in plan.by:
        _look_again(panel, plan, sights, [one for family in suspects for one in grouped[family]], known)
        confirmed = discover(grouped, families, allowed, again=True)
        # What the first look saw is told: the second one has fewer judgments to compare with.
        for one in (one for family in suspects - confirmed for one in grouped[family]):
            one.discovered = False
        suspects &= confirmed
    names = [_plain(panel.labels[label]) for label in plan.labels.tolist()]
    near = [_described(plan, names, one) for tested in grouped.values() for one in tested]
    near.sort(key=lambda one: (not one.discovered, one.p, one.measure, str(one.annotator), str(one.label)))
    return Changes(
        tuple(near),
        tuple(_listed(plan, names, one) for one in quiet),
        tuple(_too_little(plan, sights)),
        _not_looked(panel, plan, measures),
        tuple(by),
        allowed,
        families,
        len(plan.days),
        None if nights is None else nights.after(sorted(suspects, key=str)),
    )


def _look_again(
    panel: Panel, plan: Plan, sights: Sequence[Sight], suspected: Sequence[Tested], known: Iterable[Family]
) -> None:
    """The suspects' p-values with a consensus that leaves out the other suspects and those whom earlier nights named.

    Nobody else is looked at.
    """
    theirs = panel.without({plan.units[one.unit][0] for one in suspected}, {family[0] for family in known})
    moved = [sight for sight in sights if sight.measure.name in _BY_CONSENSUS]
    periods = Periods.of(theirs, plan, sums_of([sight.measure for sight in moved]))
    seen = {
        sight.measure.name: look(theirs, plan, sight.measure, periods, pool=sight.data.pool, alone=True)
        for sight in moved
    }
    for one in suspected:
        sight = seen.get(one.sight.measure.name)
        if sight is not None:
            possible = one.p <= plan.level and sight.bound[one.unit, one.series] <= plan.level
            one.again = sight.settle(one.unit, one.series)[0] if possible else 1.0


def _described(plan: Plan, names: Sequence[Any], one: Tested) -> Change:
    annotator, source, cohort = plan.units[one.unit]
    place = one.sight.label_of(one.series)
    label = None if place is None else names[place]
    measure = one.sight.measure
    if one.p > plan.level:
        return Change(annotator, label, source, cohort, measure.name, p=one.p, q=one.q)
    point = locate(one.sight, one.unit, one.series, one.change, exact=one.discovered)
    shown = _seconds(point) if measure.name == "duration" else point
    return Change(
        annotator=annotator,
        label=label,
        source=source,
        cohort=cohort,
        measure=measure.name,
        direction=measure.direction(point.size),
        since=_day(plan, point.since),
        since_low=_day(plan, point.earliest),
        since_high=_day(plan, point.latest),
        before=shown.before,
        after=shown.after,
        expected=shown.after / (1 + shown.size) if measure.name == "duration" else shown.after - shown.size,
        size=shown.size,
        low=shown.low,
        high=shown.high,
        p=one.p,
        q=one.q,
        discovered=one.discovered,
        judgments=point.judgments,
        days=point.days,
    )


def _listed(plan: Plan, names: Sequence[Any], one: Quiet) -> Quietly:
    labels = [one.sight.label_of(series) for series in range(one.sight.bound.shape[1])]
    return Quietly(
        one.sight.measure.name,
        plan.units,
        tuple(None if label is None else names[label] for label in labels),
        one.unit,
        one.series,
    )


def _seconds(point: Point) -> Point:
    """Logarithms as seconds, and their differences as shares."""
    return replace(
        point,
        before=float(np.exp(point.before)),
        after=float(np.exp(point.after)),
        size=float(np.expm1(point.size)),
        low=float(np.expm1(point.low)),
        high=float(np.expm1(point.high)),
    )


def _day(plan: Plan, place: int) -> pd.Timestamp:
    return pd.Timestamp(int(plan.days[place]), unit="D")


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _too_little(plan: Plan, sights: Sequence[Sight]) -> list[TooLittle]:
    found = []
    for sight in sights:
        for unit, (judgments, days) in sorted(sight.too_little.items()):
            what = "known answers" if sight.measure.name == "accuracy" else "judgments that others made too"
            what = what if sight.measure.name in (*_BY_CONSENSUS, "accuracy") else "judgments"
            reason = (
                f"Too little data on {_said(plan.units[unit])} for {sight.measure.noun}: at best {judgments} {what} on "
                f"{days} days before or after a change, where {plan.min_judgments} on {plan.min_days} days are needed."
            )
            found.append(TooLittle(*plan.units[unit], sight.measure.name, judgments, days, reason))
    return found


def _said(unit: Unit) -> str:
    parts = [
        f"{name} {part}" for part, name in zip(unit, ("annotator", "source", "cohort"), strict=True) if part is not None
    ]
    return ", ".join(parts) or "everybody"


def _not_looked(panel: Panel, plan: Plan, measures: Sequence[str]) -> dict[str, str]:
    found = {}
    for name in measures:
        measure = MEASURES[name]
        if name == "share" and "label" not in plan.by:
            found[name] = "Label shares are looked at only where 'by' names 'label'."
        elif measure.column and name not in panel.measured:
            found[name] = f"There is no column {measure.column!r}, so the {measure.noun} is not looked at."
    return found
