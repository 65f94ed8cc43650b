"""One annotator's part in what is examined: days, strata, weights and residuals for one measure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from labelguard_analytics.changes.cells import Cells, Ints
from labelguard_analytics.changes.measures import Measure
from labelguard_analytics.changes.panel import Panel
from labelguard_analytics.changes.plan import Plan
from labelguard_analytics.changes.scores import Values, Work, experience, residuals, summed
from labelguard_analytics.frames import Floats

_PRIOR = 5.0
"""An annotator's variance in a stratum leans on everybody's as if that were so many judgments."""
_FLOOR = 0.03
"""Keeps the weight of a stratum finite in which nothing varies."""


@dataclass(frozen=True)
class Part:
    """One annotator's part in a unit, for one measure."""

    unit: int
    work: Work
    values: Values
    weight: Floats
    """Strata x series; 0 where a stratum does not belong to a series."""
    upper: Floats
    variance: Floats
    rest: Floats
    """Weighted residuals (days x series)."""
    scale: Floats
    """Weighted judgments (days x series)."""
    counted: Floats
    """Judgments that bear on a series (days x series)."""
    noise: Floats
    """The variance of ``rest``, were judgments independent."""


@dataclass(frozen=True)
class Pool:
    """What everybody does in each stratum (strata x labels, or strata x 1): how much varies there."""

    mean: Floats
    variance: Floats


@dataclass(frozen=True)
class _Rows:
    """A measure's sums with the codes of a plan."""

    who: Ints
    day: Ints
    stratum: Ints
    label: Ints
    sums: Floats


def _strata(plan: Plan, panel: Panel, stratum: Ints) -> Ints:
    """Strata with rare labels taken together: two for each label looked at, two for others, two without consensus."""
    place = np.full(len(panel.labels) + 1, len(plan.labels), dtype=np.int64)
    place[0] = len(plan.labels) + 1
    place[plan.labels + 1] = np.arange(len(plan.labels))
    return np.asarray(2 * place[stratum // 2] + stratum % 2)


def _rows(panel: Panel, plan: Plan, cells: Cells, *, without_consensus: bool) -> _Rows:
    who, day, stratum, label = cells.unpacked()
    sums = cells.sums
    if not without_consensus and len(stratum) and int(stratum.min()) < 2:
        some = stratum >= 2
        who, day, stratum, label, sums = who[some], day[some], stratum[some], label[some], sums[some]
    calendar = np.zeros((int(plan.days[-1]) if len(plan.days) else 0) + 1, dtype=np.int64)
    calendar[plan.days] = np.arange(len(plan.days))
    return _Rows(who, calendar[day], _strata(plan, panel, stratum), label, sums)


def _sizes_and_pool(panel: Panel, plan: Plan, measure: Measure) -> tuple[_Rows, _Rows | None, Pool]:
    strata = 2 * len(plan.labels) + 4
    cells = panel.measured["agreement" if measure.name == "share" else measure.name]
    sizes = _rows(panel, plan, cells, without_consensus=measure.name not in ("agreement", "share"))
    number = summed(sizes.stratum, sizes.sums[:, 0], strata)[:, None]
    some = np.maximum(number, 1.0)
    if measure.name != "share":
        total, squares = (summed(sizes.stratum, sizes.sums[:, column], strata)[:, None] for column in (1, 2))
        mean = total / some
        return sizes, None, Pool(mean, np.maximum(squares / some - mean**2, 0.0))
    said = _rows(panel, plan, panel.said, without_consensus=False)
    place = np.full(len(panel.labels) + 1, -1, dtype=np.int64)
    place[plan.labels + 1] = np.arange(len(plan.labels))
    label = place[said.label]
    kept = label >= 0
    said = _Rows(said.who[kept], said.day[kept], said.stratum[kept], label[kept], said.sums[kept])
    key = said.stratum * len(plan.labels) + said.label
    uses = summed(key, said.sums[:, 0], strata * len(plan.labels))
    mean = uses.reshape(strata, len(plan.labels)) / some
    return sizes, said, Pool(mean, mean * (1 - mean))


def _in_parts(plan: Plan, rows: _Rows) -> tuple[_Rows, Ints, Ints]:
    """Rows sorted by unit and annotator, the number of the part of each, and the unit of each part."""
    people = int(plan.annotator_of.max(initial=0)) + 1
    part_of = plan.unit_of * people + plan.annotator_of
    part = part_of[rows.who]
    if bool(np.all(part[1:] >= part[:-1])):
        return rows, part, part_of
    order = np.argsort(part, kind="stable")
    sorted_rows = _Rows(rows.who[order], rows.day[order], rows.stratum[order], rows.label[order], rows.sums[order])
    return sorted_rows, part[order], part_of


def parts_of(panel: Panel, plan: Plan, measure: Measure, only: frozenset[int] = frozenset()) -> Iterator[Part]:
    """Every annotator's part in every unit; of some units, where ``only`` names them."""
    sizes, said, pool = _sizes_and_pool(panel, plan, measure)
    strata = 2 * len(plan.labels) + 4
    sizes, part, part_of = _in_parts(plan, sizes)
    # Each combination of source and cohort within a part has strata of its own.
    rank = np.zeros(len(part_of), dtype=np.int64)
    for code in np.unique(part_of).tolist():
        alike = np.flatnonzero(part_of == code)
        rank[alike] = np.arange(len(alike))
    people = int(plan.annotator_of.max(initial=0)) + 1
    history = _Histories(panel, plan)
    if said is not None:
        said, said_part, _ = _in_parts(plan, said)
    bounds = np.flatnonzero(np.diff(part, prepend=-1, append=-2))
    for start, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        code = int(part[start])
        unit, annotator = divmod(code, people)
        if only and unit not in only:
            continue
        mine = slice(start, end)
        wide = rank[sizes.who[mine]] * strata + sizes.stratum[mine]
        present = np.zeros(int(wide.max()) + 1, dtype=bool)
        present[wide] = True
        compact = np.cumsum(present) - 1
        base = np.flatnonzero(present) % strata
        judged = np.zeros(len(plan.days), dtype=bool)
        judged[sizes.day[mine]] = True
        day, place = np.flatnonzero(judged), np.cumsum(judged) - 1
        shape = len(day), len(base)
        cell = place[sizes.day[mine]] * shape[1] + compact[wide]
        count = sizes.sums[mine, 0]
        n = summed(cell, count, shape[0] * shape[1]).reshape(shape)
        work = Work(day, n, history.curves(annotator, day))
        if said is None:
            values = Values(place[sizes.day[mine]], compact[wide], None, sizes.sums[mine, 1], 1, shape)
            squares = summed(compact[wide], sizes.sums[mine, 2], shape[1])
        else:
            first, last = np.searchsorted(said_part, [code, code + 1])
            own = slice(int(first), int(last))
            stratum = compact[rank[said.who[own]] * strata + said.stratum[own]]
            values = Values(place[said.day[own]], stratum, said.label[own], said.sums[own, 0], len(plan.labels), shape)
            squares = np.zeros(shape[1])
        yield _part(unit, plan, measure, work, values, squares, base, pool)


def _part(
    unit: int, plan: Plan, measure: Measure, work: Work, values: Values, squares: Floats, base: Ints, pool: Pool
) -> Part:
    labels, size = len(plan.labels), work.sizes[:, None]
    mean, scatter = pool.mean[base], pool.variance[base]
    if measure.binary:
        leaning = (values.sums + _PRIOR * mean) / (size + _PRIOR)
        variance = leaning * (1 - leaning)
    else:
        own = squares[:, None] - values.sums**2 / size
        variance = (np.maximum(own, 0.0) + _PRIOR * scatter) / (size + _PRIOR)
    weight = 1 / (scatter + _FLOOR)
    of = base // 2
    if measure.name == "share":
        upper = (of[:, None] == np.arange(labels)).astype(np.float64)
        counted = np.repeat(work.n.sum(axis=1)[:, None], labels, axis=1)
    else:
        belongs = np.ones((len(base), 1))
        if "label" in plan.by:
            belongs = np.concatenate([belongs, of[:, None] == np.arange(labels)], axis=1)
        upper = np.repeat((base % 2)[:, None], belongs.shape[1], axis=1).astype(np.float64)
        weight, variance = weight * belongs, np.repeat(variance, belongs.shape[1], axis=1)
        counted = work.n @ belongs
    rest = residuals(work, values, weight, upper)
    return Part(
        unit,
        work,
        values,
        weight,
        upper,
        variance,
        rest,
        work.n @ weight,
        counted,
        work.n @ (weight**2 * variance),
    )


class _Histories:
    """How many judgments every annotator had made before each day."""

    def __init__(self, panel: Panel, plan: Plan) -> None:
        cells = panel.measured["agreement"]
        who, day, _, _ = cells.unpacked()
        calendar = np.zeros((int(plan.days[-1]) if len(plan.days) else 0) + 1, dtype=np.int64)
        calendar[plan.days] = np.arange(len(plan.days))
        people = int(plan.annotator_of.max(initial=0)) + 1
        key = plan.annotator_of[who] * len(plan.days) + calendar[day]
        made = summed(key, cells.sums[:, 0], people * len(plan.days))
        self._made = made.reshape(people, -1)
        self._before = np.cumsum(self._made, axis=1) - self._made

    def curves(self, annotator: int, day: Ints) -> Floats:
        return experience(self._before[annotator, day], self._made[annotator, day])
