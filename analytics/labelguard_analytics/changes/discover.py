"""Which of all the changes that were looked at are discoveries: annotators first, then what changed in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from labelguard_analytics.changes.look import Sight
from labelguard_analytics.changes.plan import Plan
from labelguard_analytics.fdr import fdr

Family = tuple[Hashable, ...]
"""What is discovered or not: an annotator; without annotators in ``by``, a unit and label."""


@dataclass(slots=True)
class Tested:
    """One series with its place in the hierarchy, and what becomes of it."""

    sight: Sight
    unit: int
    series: int
    bound: float
    """A lower bound of the p-value."""
    weight: float
    """Its part of the error that its family may make; sums to 1 over a family."""
    p: float = 1.0
    """1 where the bound is enough to see that nothing can be found."""
    change: int = -1
    """The strongest change, as a place in the calendar; -1 where it was not looked for."""
    again: float | None = None
    """The p-value of the look without suspects; None where it was not looked at again."""
    q: float = 1.0
    """The level at which its family would be just discovered."""
    discovered: bool = False

    def settle(self) -> None:
        """Look for the p-value itself."""
        if self.change < 0:
            self.p, self.change = self.sight.settle(self.unit, self.series)


def families(plan: Plan, sights: Sequence[Sight]) -> dict[Family, list[Tested]]:
    """Every series by family, with weights: measures count alike, and half of a measure is all labels together.

    So a family with many labels is not held back where all of its work declined, and many measures do not drown one.
    """
    places: dict[Family, list[tuple[Sight, int, int]]] = {}
    for sight in sights:
        for unit, series in np.argwhere(~np.isnan(sight.bound)).tolist():
            places.setdefault(_family(plan, sight, unit, series), []).append((sight, unit, series))
    return {family: _weighted(members) for family, members in places.items()}


def _family(plan: Plan, sight: Sight, number: int, series: int) -> Family:
    unit = plan.units[number]
    if "annotator" in plan.by:
        return (unit[0],)
    label = sight.label_of(series)
    return (*unit, None if label is None else label)


def _weighted(members: Sequence[tuple[Sight, int, int]]) -> list[Tested]:
    """Weights by measure, by unit within it, and by series within that."""
    groups: dict[tuple[int, int], list[bool]] = {}
    for sight, unit, series in members:
        groups.setdefault((id(sight), unit), []).append(sight.label_of(series) is None)
    units = Counter(sight for sight, _ in groups)
    found = []
    for sight, unit, series in members:
        group = groups[id(sight), unit]
        whole, parts = sum(group), len(group) - sum(group)
        half = 0.5 if whole and parts else 1.0
        share = half if sight.label_of(series) is None else half / parts
        weight = share / units[id(sight)] / len(units)
        found.append(Tested(sight, unit, series, float(sight.bound[unit, series]), weight))
    return found


def settle(tested: Sequence[Tested], level: float) -> None:
    """Look for the p-values of a family, but only where bounds leave room for its discovery at ``level``."""
    for one in tested:
        if one.bound <= level * one.weight:
            one.settle()
    if min(one.p / one.weight for one in tested) <= level:
        for one in tested:
            if one.bound <= level:
                one.settle()


@dataclass(frozen=True)
class Verdict:
    """What became of a family."""

    p: float
    """Combined over its series (weighted Bonferroni)."""
    q: float
    """The level at which it would be just discovered."""
    discovered: tuple[bool, ...]
    """Which of its series are discovered."""


def hierarchical(groups: Sequence[tuple[Sequence[float], Sequence[float]]], level: float) -> list[Verdict]:
    """Families first, then series within those discovered.

    Families by their combined p-values (Benjamini and Hochberg); within those discovered, series at the level that is
    left by how many there are (Benjamini and Bogomolov 2014), weighted (Genovese, Roeder and Wasserman 2006).

    >>> one, other = hierarchical([([0.001, 0.8], [0.5, 0.5]), ([0.4], [1.0])], 0.1)
    >>> one.discovered, other.discovered
    ((True, False), (False,))

    Args:
        groups: the p-values of each family's series, and their weights, which sum to 1.
        level: false discovery rate over families, and on average over what is named within those discovered.
    """
    combined = np.array([min(1.0, *(p / w for p, w in zip(*group, strict=True)), 1.0) for group in groups])
    over = fdr(combined, level)
    number = int(over.mask.sum())
    found = []
    for (p, weight), one, q in zip(groups, combined.tolist(), over.adjusted.tolist(), strict=True):
        hits = [False] * len(p)
        if q <= level:
            scaled = [min(1.0, each / (w * len(p))) for each, w in zip(p, weight, strict=True)]
            hits = fdr(scaled, level * number / len(groups)).mask.tolist()
        found.append(Verdict(one, q, tuple(hits)))
    return found


def discover(
    grouped: Mapping[Family, Sequence[Tested]], level: float, *, again: bool = False
) -> set[Family]:
    """The families that are discovered, as :func:`hierarchical` says; what is discovered in them is marked.

    Args:
        grouped: the families' series.
        level: false discovery rate.
        again: go by the look without suspects, and mark nothing.
    """
    groups = [
        (
            [one.again if again and one.again is not None else one.p for one in grouped[f]],
            [one.weight for one in grouped[f]],
        )
        for f in grouped
    ]
    found = set()
    for family, verdict in zip(grouped, hierarchical(groups, level), strict=True):
        if verdict.q <= level:
            found.add(family)
        if not again:
            for one, hit in zip(grouped[family], verdict.discovered, strict=True):
                one.q, one.discovered = verdict.q, hit
    return found
