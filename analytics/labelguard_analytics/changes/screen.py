"""Everybody's scores at once, without looking at days: an upper bound for each test, which is nearly always enough.

What :mod:`~labelguard_analytics.changes.scores` computes for one series from its days is computed here for all series
of all parts from sums over the segments between two possible changes. The scores are the same; their variance is that
of independent judgments, which the variance used in the end is never below. So whatever is not significant here is
not significant there, and only the rest has to be looked at closely.

Nearly all of it are sums over strata of something times what is the same in every segment. So they are matrix
products, and what lies after a change is added up only where there is one number for each series.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from labelguard_analytics.changes.parts import Data, Rows, total
from labelguard_analytics.changes.periods import Table
from labelguard_analytics.changes.scores import Ints, slopes
from labelguard_analytics.frames import Floats

_CELLS = 4_000_000
"""So many numbers are held in one array."""


@dataclass(frozen=True)
class Scores:
    """Of every part, possible change and series."""

    score: Floats
    info: Floats
    model: Floats


class Adder:
    """Adds up the rows of the parts from ``first`` up to ``last``.

    Strata are sorted by label, then source and cohort, then whether the others agree: those of a label lie side by
    side.
    """

    def __init__(self, data: Data, first: int, last: int) -> None:
        self.data, self.first, self.last = data, first, last
        mine = (data.part_of >= first) & (data.part_of < last)
        self.parts, self.segments = last - first, len(data.plan.candidates) + 1
        self.copies = 1 + int(data.rank[mine].max())
        self.strata = self.copies * data.strata
        label, agreed = np.divmod(np.arange(data.strata), 2)
        self._place = 2 * self.copies * label + agreed

    def _within(self, rows: Rows) -> Rows:
        """The rows of these parts."""
        if self.first == 0 and self.last == len(self.data.units):
            return rows
        return rows.some(np.flatnonzero((rows.part >= self.first) & (rows.part < self.last)))

    @cached_property
    def _rows(self) -> list[Rows]:
        return [self._within(some) for some in self.data.sizes]

    def _keys(self, rows: Rows, segments: int) -> Ints:
        """The place of each row in a table of parts, so many segments and strata."""
        wide = segments * self.strata
        key = np.take((self.data.part_of - self.first) * wide + 2 * self.data.rank, rows.who)
        key += np.take(self._place, rows.stratum)
        if segments > 1:
            key += np.take(np.arange(segments) * self.strata, rows.at)
        return key

    @cached_property
    def _strata(self) -> list[Ints]:
        return [self._keys(rows, 1) for rows in self._rows]

    @cached_property
    def _cells(self) -> list[Ints]:
        return [self._keys(rows, self.segments) for rows in self._rows]

    def by_stratum(self, column: int) -> Floats:
        """One of the sums of the measure (parts x strata)."""
        size = self.parts * self.strata
        return total(self._strata, (rows.sums[column] for rows in self._rows), size).reshape(self.parts, -1)

    def by_segment(self, column: int) -> Floats:
        """One of the sums of the measure (parts x segments x strata)."""
        shape = self.parts, self.segments, self.strata
        size = shape[0] * shape[1] * shape[2]
        return total(self._cells, (rows.sums[column] for rows in self._rows), size).reshape(shape)

    @property
    def table(self) -> Table:
        """Judgments; made once for all measures that have the same ones, as those have that every judgment has."""
        tables = self.data.periods.tables.setdefault((self.first, self.last), [])
        for rows, table in tables:
            if all(_same(*pair) for pair in zip(rows, self._rows, strict=True)):
                return table
        tables.append((self._rows, self._made()))
        return tables[-1][1]

    def _made(self) -> Table:
        n, *moved = (self.by_segment(column) for column in range(3))
        sizes = n.sum(axis=1)
        some = np.maximum(sizes, 1.0)
        a, b = means = np.stack([one.sum(axis=1) / some for one in moved])
        centred = np.empty((self.parts, 2, self.segments, self.strata))
        for curve in (0, 1):
            np.multiply(n, means[curve][:, None], out=centred[:, curve])
            np.subtract(moved[curve], centred[:, curve], out=centred[:, curve])
        squares = np.stack([a * a, a * b, b * b], axis=1)
        moments = np.stack([self.by_stratum(column) for column in range(3, 6)], axis=1)
        moments -= sizes[:, None] * squares
        doubled = _after(n)
        doubled *= doubled
        doubled /= some[:, None]
        return Table(n, centred, sizes, means, moments, doubled)

    def said(self) -> tuple[Floats, list[Floats], Floats]:
        """For shares: what was said (parts x strata x series), its products with the curves, and weighted sums of it
        (parts x segments x series)."""
        rows, width = [self._within(some) for some in self.data.said], self.data.series
        shape = self.parts, self.strata, width
        size = shape[0] * shape[1] * shape[2]
        keys = [self._keys(some, 1) * width + some.label for some in rows]
        sums, *products = (
            total(keys, (some.sums[column] for some in rows), size).reshape(shape) for column in range(3)
        )
        weight = self.data.weight.ravel()
        weighted = (some.sums[0] * np.take(weight, some.stratum * width + some.label) for some in rows)
        keys = [((some.part - self.first) * self.segments + some.at) * width + some.label for some in rows]
        seen = total(keys, weighted, self.parts * self.segments * width).reshape(self.parts, self.segments, width)
        return np.asarray(sums), list[Floats](products), np.asarray(seen)


@dataclass(frozen=True)
class Group:
    """Strata with a learning curve of their own, and sums over them for every series."""

    moments: Floats
    """Weighted squares and products of the curves (parts x 3 x series)."""
    twice: Floats
    """The same with the variance in place of the weight."""
    judged: Floats
    """Weighted judgments (parts x series)."""
    across: Sequence[Floats]
    """Weighted products of what is examined with each curve (parts x series)."""
    lean: Floats
    """Weighted products of the curves with the judgments of each segment (parts x 2 x segments x series)."""
    leant: Floats
    """The same with the variance in place of the weight."""


class Batch:
    """Some parts together; arrays are parts x segments x strata, or x series.

    Shares have a weight for each stratum and label. For other measures a stratum bears on its label and on all labels
    together, so their sums over strata are sums over those of each label.
    """

    def __init__(self, data: Data, first: int, last: int) -> None:
        self.data, self.first, self.last = data, first, last
        self.shares = bool(data.said)
        adder = Adder(data, first, last)
        self.parts, self.segments, self.copies, self.strata = adder.parts, adder.segments, adder.copies, adder.strata
        self.table = table = adder.table
        self.weight, upper, mean, scatter = (
            self._each(array if self.shares else array[:, :1])
            for array in (data.weight, data.upper, data.pool.mean, data.pool.variance)
        )
        if self.shares:
            sums, products, seen = adder.said()
            squares: Floats = np.zeros((1, 1, 1))
        else:
            sums, *products, squares = (adder.by_stratum(column)[:, :, None] for column in range(6, 10))
            seen = self._own(adder.by_segment(6), self.weight)[0]
        number = table.sizes[:, :, None]
        pace = data.pace(sums, number, mean, upper)
        level = sums / np.maximum(number, 1.0)
        spread = np.asarray(self.weight**2 * data.variance(sums, squares, number, mean, scatter))
        over = self._every if self.shares else self._own
        expected, scale, noise = over(table.n, self.weight * level, self.weight, spread)
        self.scale: Floats = scale
        self.noise: Floats = noise
        curbed, damped = over(table.doubled, self.weight, spread)
        self.rest = seen - expected
        self.info, self.model = _after(self.scale) - curbed, _after(self.noise) - damped
        centred = [
            product - number * one[:, :, None] * level for product, one in zip(products, table.means, strict=True)
        ]
        self.learning = [self._learnt(group) for group in self._groups(upper, pace, spread, centred)]
        if self.shares:
            self.judged = np.repeat(table.n.sum(axis=2)[:, :, None], data.series, axis=2)
            self.uses = sums.sum(axis=1) + self._own(table.sizes[:, None], np.ones((1, self.strata, 1)))[0, :, 0]
        else:
            self.judged = self._own(table.n, np.ones((1, self.strata, 1)))[0]
            self.uses = self.judged.sum(axis=1)

    def _each(self, values: Floats) -> Floats:
        """What is known of the strata of one source and cohort, for those of all (1 x strata x ...)."""
        labels = values.reshape(-1, 1, 2, values.shape[1])
        return np.repeat(labels, self.copies, axis=1).reshape(1, self.strata, -1)

    def _every(self, values: Floats, *factors: Floats) -> list[Floats]:
        """Sums over all strata, each times a factor (each parts x strata x series).

        Args:
            values: parts x rows x strata.
            factors: what to multiply with.

        Returns:
            For each factor parts x rows x series.
        """
        return [values @ factor for factor in factors]

    def _own(self, values: Floats, *factors: Floats) -> Floats:
        """Sums over the strata of each label (and of all together), each times a factor (each parts x strata x 1).

        Returns:
            Factors x parts x rows x series.
        """
        series, wide = self.data.series, 2 * self.copies
        every = np.concatenate(np.broadcast_arrays(*factors), axis=2)
        labels = values.reshape(*values.shape[:2], self.strata // wide, wide).swapaxes(1, 2)
        sums = (labels @ every.reshape(len(every), -1, wide, len(factors))).transpose(3, 0, 2, 1)
        if self.shares:
            return np.ascontiguousarray(sums[..., :series])
        found = np.empty((*sums.shape[:-1], series))
        found[..., 0] = sums.sum(axis=-1)
        found[..., 1:] = sums[..., : series - 1]
        return found

    def _diagonal(self, values: Floats) -> Floats:
        """Of every stratum the value for its own label (parts x strata x 1)."""
        label = np.minimum(np.arange(self.strata) // (2 * self.copies), self.data.series - 1)
        return np.asarray(values[:, np.arange(self.strata), label][..., None])

    def _groups(self, upper: Floats, pace: Floats, spread: Floats, products: Sequence[Floats]) -> list[Group]:
        """Both groups, from how strongly learning shows, squared weight times variance, and what is examined."""
        weights, spreads = [self.weight * (1 - upper), self.weight * upper], [spread * (1 - upper), spread * upper]
        if not self.shares:
            return self._alone(weights, pace, spreads, products)
        table, paced, scaled = self.table, weights[0] * pace, spreads[0] * pace
        moments, twice = self._every(table.moments, paced * pace, scaled * pace)
        moves = self._every(table.moved.reshape(self.parts, -1, self.strata), paced, scaled)
        lean, leant = (one.reshape(self.parts, 2, self.segments, -1) for one in moves)
        across = [np.einsum("psk,psk->pk", paced, one) for one in products]
        rest = Group(moments, twice, self._every(table.sizes[:, None], weights[0])[0][:, 0], across, lean, leant)
        own = [self._diagonal(one) for one in (weights[1], pace, spreads[1], *products)]
        return [rest, *self._alone([own[0]], own[1], [own[2]], own[3:])]

    def _alone(
        self, weights: Sequence[Floats], pace: Floats, spreads: Sequence[Floats], products: Sequence[Floats]
    ) -> list[Group]:
        """Groups of strata that bear on their own label alone, from their weights and the rest of what groups need."""
        table, groups = self.table, len(weights)
        paced, scaled = [one * pace for one in weights], [one * pace for one in spreads]
        rows = np.concatenate([table.moments, table.sizes[:, None], *(one.swapaxes(1, 2) for one in products)], axis=1)
        sums = self._own(rows, *(one * pace for one in (*paced, *scaled)), *paced, *weights)
        moves = self._own(table.moved.reshape(self.parts, -1, self.strata), *paced, *scaled)
        moves = moves.reshape(2 * groups, self.parts, 2, self.segments, -1)
        found = []
        for number in range(groups):
            moments, twice, across, judged = sums[number::groups]
            every = moments[:, :3], twice[:, :3], judged[:, 3], [across[:, 4], across[:, 5]]
            found.append(Group(*every, *moves[number::groups]))
        return found

    def _learnt(self, group: Group) -> tuple[Floats, Floats]:
        """Take out of everything what the strata of a group explain by learning.

        Returns:
            The group's ``lean``, curves first, and the slopes of each change on them.
        """
        moments, lean = group.moments.swapaxes(0, 1), group.lean.swapaxes(0, 1)
        for slope, part in zip(slopes(moments, group.judged, *group.across), lean, strict=True):
            self.rest -= part * slope[:, None]
        first, second = _after(lean)
        kappa = one, two = slopes(moments, group.judged, first, second)
        self.info -= one * first + two * second
        a, b, c = group.twice.swapaxes(0, 1)[:, :, None]
        first, second = _after(group.leant.swapaxes(0, 1))
        self.model += one * (one * a + 2 * (two * b - first)) + two * (two * c - 2 * second)
        return lean, kappa

    def _fixed(self, shock: Floats) -> Floats:
        """What the levels take of a common shock (parts x changes x series)."""
        n = self.table.n
        each = self.weight / np.maximum(self.table.sizes[:, :, None], 1.0)
        if self.shares:
            return _after(self._every(n, each * (n.swapaxes(1, 2) @ shock))[0])
        labels = n.reshape(self.parts, self.segments, -1, 2 * self.copies)
        own = np.minimum(np.arange(labels.shape[2]) + 1, self.data.series - 1)
        felt = labels.transpose(0, 2, 3, 1) @ shock[:, :, own].transpose(0, 2, 1)[..., None]
        whole, alone = self._own(n, each * (n.swapaxes(1, 2) @ shock[:, :, :1]), each * felt.reshape(self.parts, -1, 1))
        whole[..., 1:] = alone[..., 1:]
        return _after(whole)

    def scores(self, shock: Floats | None) -> Scores:
        """Scores at the beginning of each segment but the first.

        Args:
            shock: what happened to everybody else (parts x segments x series).
        """
        score = _after(self.rest)
        if shock is not None:
            score += self._fixed(shock) - _after(self.scale * shock)
            for lean, kappa in self.learning:
                for part, one in zip(lean, kappa, strict=True):
                    score += one * np.sum(part * shock, axis=1)[:, None]
        return Scores(score, self.info, self.model)


def batches(data: Data) -> list[Batch]:
    """All parts, so many at a time that no array becomes too large."""
    copies = int(data.rank.max(initial=0)) + 1
    size = copies * data.strata * max(data.series, len(data.plan.candidates) + 1)
    step = max(1, _CELLS // size)
    edges = np.flatnonzero(np.diff(data.present, prepend=False, append=False))  # runs of parts that have judgments
    return [
        Batch(data, first, min(first + step, int(end)))
        for start, end in zip(edges[::2], edges[1::2], strict=True)
        for first in range(int(start), int(end), step)
    ]


def _same(one: Rows, other: Rows) -> bool:
    """Whether two have the same judgments, whatever else was measured of them."""
    if len(one.who) != len(other.who):
        return False
    codes = ((one.who, other.who), (one.at, other.at), (one.stratum, other.stratum))
    return all(np.array_equal(*pair) for pair in codes) and np.array_equal(one.sums[:6], other.sums[:6])


def _after(values: Floats) -> Floats:
    """Sums over the segments from each one on, without the first (... x segments x anything)."""
    segments = values.shape[-2]
    return np.asarray(np.triu(np.ones((segments - 1, segments)), 1) @ values)
