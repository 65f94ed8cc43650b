"""A whole sweep: look, discover, look again without the suspects, and describe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from labelguard_analytics.changes.discover import Family, Tested, discover, families, settled
from labelguard_analytics.changes.look import Sight, look, measures_of
from labelguard_analytics.changes.measures import MEASURES
from labelguard_analytics.changes.nights import Nights
from labelguard_analytics.changes.panel import Panel
from labelguard_analytics.changes.plan import Plan, Unit
from labelguard_analytics.changes.points import Point, locate
from labelguard_analytics.changes.results import Change, Changes, TooLittle

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
    plan = Plan.of(panel, frozenset(by), level, min_judgments, min_days)
    sights = [look(panel, plan, measure) for measure in measures_of(panel, plan, measures)]
    allowed = level if nights is None else nights.allowed
    known = frozenset(() if nights is None else nights.named)
    named = 0 if nights is None else len(nights.named) + nights.closed
    grouped = families(plan, sights)
    room = min(1.0, max(level, allowed * (1 + named / max(len(grouped), 1))))
    grouped = {family: settled(tested, room) for family, tested in grouped.items()}
    found = discover(grouped, allowed, known=known, named=named)
    suspects = {family for family, tested in found.items() if any(one.discovered for one in tested)}
    if suspects and "annotator" in plan.by:
        again = _again(panel, plan, sights, found, {family[0] for family in suspects})
        second = discover(again, allowed, known=known, named=named, again=True)
        # What the first look saw is told: the second one has fewer judgments to compare with.
        for family in suspects:
            if not any(one.discovered for one in second[family]):
                found[family] = [replace(one, discovered=False) for one in found[family]]
                suspects = suspects - {family}
    looked = [_described(panel, plan, one) for tested in found.values() for one in tested]
    looked.sort(key=lambda one: (not one.discovered, one.p, one.measure, str(one.annotator), str(one.label)))
    return Changes(
        tuple(looked),
        tuple(_too_little(plan, sights)),
        _not_looked(panel, plan, measures),
        tuple(by),
        allowed,
        len({one.unit for tested in found.values() for one in tested}),
        len(plan.days),
        None if nights is None else nights.after(sorted(suspects, key=str)),
    )


def _again(
    panel: Panel,
    plan: Plan,
    sights: Sequence[Sight],
    found: Mapping[Family, Sequence[Tested]],
    suspects: set[Any],
) -> dict[Family, list[Tested]]:
    """The suspects' p-values with a consensus that leaves the other suspects out, and without looking at others."""
    theirs = panel.without(suspects)
    seen = {
        sight.measure.name: look(theirs, plan, sight.measure, pool=sight.data.pool, alone=True)
        for sight in sights
        if sight.measure.name in _BY_CONSENSUS
    }

    def second(one: Tested) -> Tested:
        sight = seen.get(one.sight.measure.name)
        if sight is None or plan.units[one.unit][0] not in suspects:
            return one
        bound = sight.bound[one.unit, one.series]
        p = 1.0 if one.p > plan.level or not bound <= plan.level else sight.settle(one.unit, one.series)[0]
        return replace(one, again=p)

    return {family: [second(one) for one in tested] for family, tested in found.items()}


def _described(panel: Panel, plan: Plan, one: Tested) -> Change:
    annotator, source, cohort = plan.units[one.unit]
    label = one.sight.label_of(one.series)
    measure = one.sight.measure
    point = None if one.change < 0 else locate(one.sight, one.unit, one.series, one.change, exact=one.discovered)
    if point is None:
        return Change(annotator, _label(panel, plan, label), source, cohort, measure.name, p=one.p, q=one.q)
    shown = _seconds(point) if measure.name == "duration" else point
    return Change(
        annotator=annotator,
        label=_label(panel, plan, label),
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


def _label(panel: Panel, plan: Plan, label: int | None) -> Any:
    return None if label is None else _plain(panel.labels[int(plan.labels[label])])


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
