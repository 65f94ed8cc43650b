"""Which of all the changes that were looked at are discoveries: annotators first, then what changed in them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from labelguard_analytics.changes.cells import Ints
from labelguard_analytics.changes.look import Sight
from labelguard_analytics.changes.plan import Plan
from labelguard_analytics.fdr import fdr
from labelguard_analytics.frames import Floats

Family = tuple[Hashable, ...]
"""What is discovered or not: an annotator; without annotators in ``by``, a unit and label."""


@dataclass(slots=True)
class Tested:
    """One series that is looked at closely, and what becomes of it."""

    sight: Sight
    unit: int
    series: int
    weight: float
    """Its part of the error that its family may make; sums to 1 over a family."""
    p: float
    change: int
    """The strongest change, as a place in the calendar."""
    again: float | None = None
    """The p-value of the look without suspects; None where it was not looked at again."""
    q: float = 1.0
    """The level at which its family would be just discovered."""
    discovered: bool = False


@dataclass(frozen=True)
class Quiet:
    """Series of a measure of which a bound is enough to see that nothing can be found."""

    sight: Sight
    unit: Ints
    series: Ints


def look_closely(
    plan: Plan, sights: Sequence[Sight], level: float, known: frozenset[Family]
) -> tuple[dict[Family, list[Tested]], list[Quiet], int]:
    """Every series by family: what has to be looked at closely for discoveries at ``level``, and all others.

    A family has weights: measures count alike, and half of a measure is all labels together. So a family with many
    labels is not held back where all of its work declined, and many measures do not drown one.

    Returns:
        The series that were looked at, by family; the others; and the number of families, without those ``known``.
    """
    names, codes = _families(plan, sights)
    open_to = np.array([name not in known for name in names], dtype=bool)
    weights = _weights(plan, sights, codes, len(names))
    near: set[int] = set()
    seen: dict[tuple[int, int, int], tuple[float, int]] = {}
    for every in (False, True):
        for number, (sight, code, weight) in enumerate(zip(sights, codes, weights, strict=True)):
            bound = np.where(np.isnan(sight.bound), np.inf, sight.bound)
            close = bound <= (level if every else level * weight)
            close &= open_to[code] & (np.isin(code, list(near)) if every else True)
            for unit, series in np.argwhere(close).tolist():
                if (number, unit, series) not in seen:
                    seen[number, unit, series] = sight.settle(unit, series)
                if seen[number, unit, series][0] <= level * weight[unit, series]:
                    near.add(int(code[unit, series]))
    grouped: dict[Family, list[Tested]] = {}
    for (number, unit, series), (p, change) in sorted(seen.items()):
        one = Tested(sights[number], unit, series, float(weights[number][unit, series]), p, change)
        grouped.setdefault(names[int(codes[number][unit, series])], []).append(one)
    quiet, there = [], np.zeros(len(names), dtype=bool)
    for number, (sight, code) in enumerate(zip(sights, codes, strict=True)):
        tested = ~np.isnan(sight.bound) & open_to[code]
        there[code[tested]] = True
        for place, unit, series in seen:
            if place == number:
                tested[unit, series] = False
        quiet.append(Quiet(sight, *np.nonzero(tested)))
    return grouped, quiet, int(there.sum())


def _families(plan: Plan, sights: Sequence[Sight]) -> tuple[list[Family], list[Ints]]:
    """Names of the families, and for each measure the family of every series (units x series)."""
    if "annotator" in plan.by:
        place = {annotator: number for number, annotator in enumerate(dict.fromkeys(unit[0] for unit in plan.units))}
        of_unit = np.array([place[unit[0]] for unit in plan.units], dtype=np.int64)
        return [(one,) for one in place], [np.repeat(of_unit[:, None], one.bound.shape[1], axis=1) for one in sights]
    labels = len(plan.labels) + 1
    names: list[Family] = [(*unit, label) for unit in plan.units for label in (None, *range(labels - 1))]
    found = []
    for sight in sights:
        label = [sight.label_of(series) for series in range(sight.bound.shape[1])]
        column = np.array([0 if one is None else 1 + one for one in label], dtype=np.int64)
        found.append(np.arange(len(plan.units))[:, None] * labels + column)
    return names, found


def _weights(plan: Plan, sights: Sequence[Sight], codes: Sequence[Ints], families: int) -> list[Floats]:
    """For each measure the weight of every series in its family: by measure, unit within it, and series within that."""
    shares, units = [], np.zeros((len(sights), families))
    for number, (sight, code) in enumerate(zip(sights, codes, strict=True)):
        tested = ~np.isnan(sight.bound)
        share = np.ones(tested.shape)
        if "annotator" in plan.by:
            first = 0 if sight.measure.name == "share" else 1
            parts = tested[:, first:].sum(axis=1)
            both = tested[:, :first].any(axis=1) & (parts > 0)
            share *= np.where(both, 0.5, 1.0)[:, None]
            share[:, first:] /= np.maximum(parts, 1)[:, None]
            units[number] = np.bincount(code[tested.any(axis=1), 0], minlength=families)
        else:
            units[number] = np.bincount(code[tested], minlength=families)
        shares.append(share)
    measures = np.maximum((units > 0).sum(axis=0), 1)
    return [
        share / np.maximum(units[number], 1)[code] / measures[code]
        for number, (share, code) in enumerate(zip(shares, codes, strict=True))
    ]


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
    grouped: Mapping[Family, Sequence[Tested]], families: int, level: float, *, again: bool = False
) -> set[Family]:
    """The families that are discovered, as :func:`hierarchical` says; what is discovered in them is marked.

    Args:
        grouped: the families' series that were looked at closely.
        families: how many families there are.
        level: false discovery rate.
        again: go by the look without suspects, and mark nothing.
    """
    groups: list[tuple[list[float], list[float]]] = []
    for tested in grouped.values():
        p = [one.again if again and one.again is not None else one.p for one in tested]
        groups.append((p, [one.weight for one in tested]))
    groups += [([1.0], [1.0])] * (families - len(groups))
    found = set()
    for family, verdict in zip(grouped, hierarchical(groups, level), strict=False):
        if verdict.q <= level:
            found.add(family)
        if not again:
            for one, hit in zip(grouped[family], verdict.discovered, strict=True):
                one.q, one.discovered = verdict.q, hit
    return found
