"""Everybody's scores at once, without looking at days: an upper bound for each test, which is nearly always enough.

What :mod:`~labelguard_analytics.changes.scores` computes for one series from its days is computed here for all series
of all parts from sums over the segments between two possible changes. The scores are the same; their variance is that
of independent judgments, which the variance used in the end is never below. So whatever is not significant here is
not significant there, and only the rest has to be looked at closely.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from labelguard_analytics.changes.parts import Data, Rows, total
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


@dataclass(frozen=True)
class Group:
    """Strata with a learning curve of their own, for every series."""

    weight: Floats
    """Strata x series; or strata x 1 where a stratum bears on its own label (and on all labels together) alone."""
    paced: Floats
    """The same times how strongly learning shows (parts x strata x ...)."""
    learnt: Floats
    """Times that again."""
    scaled: Floats
    """Squared weight times variance and how strongly learning shows."""
    twice: Floats
    """Times that again."""
    alone: bool
    """Whether strata bear on their own label alone."""


class Batch:
    """Some parts together; arrays are parts x segments x strata, or x series.

    Shares have a weight for each stratum and label. For other measures a stratum bears on its label and on all labels
    together, so their sums over strata need no matrices.
    """

    def __init__(self, data: Data, first: int, last: int) -> None:
        self.data, self.first, self.last = data, first, last
        self.parts, self.segments = last - first, len(data.plan.candidates) + 1
        rows = [_between(some, first, last, len(data.units)) for some in data.sizes]
        self.copies = 1 + max(int(data.rank[some.who].max(initial=0)) for some in rows)
        self.strata = self.copies * data.strata
        self.shares = bool(data.said)
        strata, cells = [self._stratum(some) for some in rows], [self._cell(some) for some in rows]
        shape = self.parts, self.segments, self.strata

        def by_segment(column: int) -> Floats:
            size = shape[0] * shape[1] * shape[2]
            return total(cells, (some.sums[column] for some in rows), size).reshape(shape)

        def by_stratum(column: int) -> Floats:
            return total(strata, (some.sums[column] for some in rows), shape[0] * shape[2]).reshape(shape[0], -1)

        key = "agreement" if self.shares else data.measure.name, first, last
        if key not in data.periods.frames:
            data.periods.frames[key] = (
                [by_segment(column) for column in range(3)],
                [by_stratum(column) for column in range(3, 6)],
            )
        (self.n, *moved), raw = data.periods.frames[key]
        self.sizes = self.n.sum(axis=1)
        means = [one.sum(axis=1) / np.maximum(self.sizes, 1.0) for one in moved]
        self.moved = np.stack([one - self.n * mean[:, None, :] for one, mean in zip(moved, means, strict=True)], 1)
        a, b = means
        self.moments = np.stack(raw, axis=1) - self.sizes[:, None] * np.stack([a * a, a * b, b * b], axis=1)
        weight, upper, mean, scatter = (
            np.tile(array if self.shares else array[:, :1], (self.copies, 1))
            for array in (data.weight, data.upper, data.pool.mean, data.pool.variance)
        )
        sizes = self.sizes[:, :, None]
        if self.shares:
            sums, products, found = self._said()
            squares: Floats = np.zeros((1, 1, 1))
        else:
            sums, *products, squares = (by_stratum(column)[:, :, None] for column in range(6, 10))
            found = self._fold(by_segment(6) * weight[:, 0])
        pace = data.pace(sums, sizes, mean, upper)
        self.weight = weight
        self.inner = np.asarray(weight**2 * data.variance(sums, squares, sizes, mean, scatter))
        self.groups = self._groups(weight, upper, pace)
        level = sums / np.maximum(sizes, 1.0)
        rest = found - self._over(self.n, weight * level, alone=not self.shares)
        centred = [product - sizes * mean[:, :, None] * level for product, mean in zip(products, means, strict=True)]
        self.learning = []
        for group in self.groups:
            moment = self._over(self.moments, group.learnt, alone=group.alone).transpose(1, 0, 2)
            judged = self._over(self.sizes[:, None], group.weight, alone=group.alone)[:, 0]
            lean = self._moved_over(group.paced, alone=group.alone)
            slope = slopes(moment, judged, *(self._across(one, group) for one in centred))
            for one, part in zip(slope, lean, strict=True):
                rest -= part * one[:, None, :]
            self.learning.append((moment, judged, lean))
        self.rest = rest
        if self.shares:
            self.judged = np.repeat(self.n.sum(axis=2)[:, :, None], data.series, axis=2)
            self.uses = sums.sum(axis=1) + self._fold(self.sizes)
        else:
            self.judged = self._fold(self.n)
            self.uses = self.judged.sum(axis=1)

    def _stratum(self, rows: Rows) -> Ints:
        place = self.data.rank[rows.who] * self.data.strata + rows.stratum
        return np.asarray((rows.part - self.first) * self.strata + place)

    def _cell(self, rows: Rows) -> Ints:
        return self._stratum(rows) + ((rows.part - self.first) * (self.segments - 1) + rows.at) * self.strata

    def _said(self) -> tuple[Floats, list[Floats], Floats]:
        """Sums by stratum and series, their products with the curves, and weighted sums by segment."""
        said = [_between(some, self.first, self.last, len(self.data.units)) for some in self.data.said]
        width = self.data.series
        shape = self.parts, self.strata, width
        keys = [self._stratum(some) * width + some.label for some in said]
        sums, *products = (
            total(keys, (some.sums[column] for some in said), shape[0] * shape[1] * shape[2]).reshape(shape)
            for column in range(3)
        )
        weight = self.data.weight.ravel()
        weighted = (some.sums[0] * np.take(weight, some.stratum * width + some.label) for some in said)
        keys = [((some.part - self.first) * self.segments + some.at) * width + some.label for some in said]
        found = total(keys, weighted, self.parts * self.segments * width).reshape(self.parts, self.segments, width)
        return np.asarray(sums), list[Floats](products), np.asarray(found)

    def _groups(self, weight: Floats, upper: Floats, pace: Floats) -> list[Group]:
        found = []
        for mask, alone in ((1 - upper, not self.shares), (upper, True)):
            some, near, inner = weight * mask, pace, np.where(mask > 0, self.inner, 0.0)
            if self.shares and alone:
                some, near, inner = (self._diagonal(array) for array in (some, pace, inner))
            found.append(Group(some, some * near, some * near**2, inner * near, inner * near**2, alone))
        return found

    def _diagonal(self, values: Floats) -> Floats:
        """Of every stratum the value for its own label (... x strata x 1)."""
        label = np.minimum(np.arange(self.strata) % self.data.strata // 2, self.data.series - 1)
        return np.asarray(values[..., np.arange(self.strata), label][..., None])

    def _fold(self, values: Floats) -> Floats:
        """Sums over the strata of each label, and of all where they are looked at together (... x series)."""
        pairs = values[..., ::2] + values[..., 1::2]
        sums = pairs.reshape(*pairs.shape[:-1], self.copies, self.data.strata // 2).sum(axis=-2)
        if self.shares:
            return np.asarray(sums[..., : self.data.series])
        return np.concatenate([sums.sum(axis=-1, keepdims=True), sums[..., : self.data.series - 1]], axis=-1)

    def _over(self, values: Floats, factor: Floats, *, alone: bool) -> Floats:
        """Sums over strata, each times a factor for every series (parts x ... x series)."""
        if not alone:
            return np.asarray(values @ factor)
        return self._fold(values * (factor[:, 0] if factor.ndim == 2 else factor[:, None, :, 0]))

    def _moved_over(self, factor: Floats, *, alone: bool) -> Floats:
        """The same of both curves (2 x parts x segments x series)."""
        both = self._over(self.moved.reshape(self.parts, -1, self.strata), factor, alone=alone)
        return both.reshape(self.parts, 2, self.segments, -1).transpose(1, 0, 2, 3)

    def _across(self, values: Floats, group: Group) -> Floats:
        """Sums over the strata of a group of what is known for every series (parts x series)."""
        if not group.alone:
            return np.asarray(np.sum(group.paced * values, axis=1))
        return self._fold((group.paced * (self._diagonal(values) if self.shares else values))[:, :, 0])

    def _weighted(self, values: Floats) -> Floats:
        """Weighted sums over strata."""
        if not self.shares:
            return self._fold(values * self.weight[:, 0])
        together = values.reshape(*values.shape[:-1], self.copies, self.data.strata).sum(axis=-2)
        return np.asarray(together @ self.data.weight)

    @cached_property
    def scale(self) -> Floats:
        """Weighted judgments (parts x segments x series)."""
        return self._weighted(self.n)

    @cached_property
    def noise(self) -> Floats:
        """The variance of ``rest``, were judgments independent."""
        return self._over(self.n, self.inner, alone=not self.shares)

    def _fixed(self, share: Floats, shock: Floats) -> Floats:
        """What the levels take of a common shock (parts x changes x series)."""
        if self.shares:
            return np.asarray(share @ (self.weight * (self.n.transpose(0, 2, 1) @ shock)))
        label = np.minimum(np.arange(self.strata) % self.data.strata // 2 + 1, self.data.series - 1)
        whole, own = (
            self._fold(share * (self.weight[:, 0] * np.sum(self.n * one, axis=1))[:, None, :])
            for one in (shock[:, :, :1], shock[:, :, label])
        )
        return np.concatenate([whole[..., :1], own[..., 1:]], axis=-1)

    def scores(self, shock: Floats | None) -> Scores:
        """Scores at the beginning of each segment but the first.

        Args:
            shock: what happened to everybody else (parts x segments x series).
        """
        part = _after(self.n)
        share = part / np.maximum(self.sizes, 1.0)[:, None, :]
        plain = part * (1 - share)
        score, info = _after(self.rest), self._weighted(plain)
        model = self._over(plain, self.inner, alone=not self.shares)
        if shock is not None:
            score = score - _after(self.scale * shock) + self._fixed(share, shock)
        for group, (moment, judged, lean) in zip(self.groups, self.learning, strict=True):
            found = [_after(one) for one in lean]
            one, two = slopes(moment, judged, *found)
            info = info - one * found[0] - two * found[1]
            a, b, c = self._over(self.moments, group.twice, alone=group.alone).transpose(1, 0, 2)[:, :, None, :]
            scaled = [_after(one) for one in self._moved_over(group.scaled, alone=group.alone)]
            model = model - 2 * (one * scaled[0] + two * scaled[1])
            model = model + one**2 * a + 2 * one * two * b + two**2 * c
            if shock is not None:
                first, second = (np.sum(part * shock, axis=1)[:, None, :] for part in lean)
                score = score + one * first + two * second
        return Scores(score, info, model)


def batches(data: Data) -> list[Batch]:
    """All parts, so many at a time that no array becomes too large."""
    copies = int(data.rank.max(initial=0)) + 1
    size = copies * data.strata * max(data.series, len(data.plan.candidates) + 1)
    step = max(1, _CELLS // size)
    present = np.zeros(len(data.units) + 1, dtype=bool)
    for rows in data.sizes:
        present[rows.part] = True
    edges = np.flatnonzero(np.diff(present, prepend=False))  # runs of parts that have judgments
    return [
        Batch(data, first, min(first + step, int(end)))
        for start, end in zip(edges[::2], edges[1::2], strict=True)
        for first in range(int(start), int(end), step)
    ]


def _between(rows: Rows, first: int, last: int, parts: int) -> Rows:
    """The rows of some of the parts."""
    if first == 0 and last == parts:
        return rows
    return rows.some(np.flatnonzero((rows.part >= first) & (rows.part < last)))


def _after(values: Floats) -> Floats:
    """Sums over the segments from each one on, without the first."""
    return np.asarray(np.cumsum(values[:, ::-1], axis=1)[:, ::-1][:, 1:])
