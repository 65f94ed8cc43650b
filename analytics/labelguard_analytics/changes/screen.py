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

from labelguard_analytics.changes.parts import Data, Rows
from labelguard_analytics.changes.scores import Ints, slopes, summed
from labelguard_analytics.frames import Floats

_CELLS = 4_000_000
"""So many numbers are held in one array."""


@dataclass(frozen=True)
class Scores:
    """Of every part, possible change and series."""

    score: Floats
    info: Floats
    model: Floats


class Batch:
    """Some parts together; arrays are parts x segments x strata, or x series."""

    def __init__(self, data: Data, first: int, last: int) -> None:
        self.data, self.first, self.last = data, first, last
        self.parts, self.segments = last - first, len(data.plan.candidates) + 1
        self.sizes_rows = _between(data.sizes, first, last)
        rank = data.rank[self.sizes_rows.who]
        self.copies = int(rank.max(initial=0)) + 1
        self.strata = self.copies * data.strata
        self.weight, self.upper = (np.tile(array, (self.copies, 1)) for array in (data.weight, data.upper))
        stratum = self._stratum(self.sizes_rows)
        sums = self.sizes_rows.sums
        self.n = self._by_segment(self.sizes_rows, sums[0])
        self.moved = [self._by_segment(self.sizes_rows, column) for column in sums[1:3]]
        self.sizes = self.n.sum(axis=1)
        some = np.maximum(self.sizes, 1.0)
        self.means = [moved.sum(axis=1) / some for moved in self.moved]
        a, b = self.means
        raw = [self._by_stratum(stratum, column) for column in sums[3:6]]
        self.moments = np.stack(raw) - self.sizes * np.stack([a * a, a * b, b * b])

    def _stratum(self, rows: Rows) -> Ints:
        return (rows.part - self.first) * self.strata + self.data.rank[rows.who] * self.data.strata + rows.stratum

    def _by_segment(self, rows: Rows, values: Floats) -> Floats:
        shape = self.parts, self.segments, self.strata
        stratum = self.data.rank[rows.who] * self.data.strata + rows.stratum
        cell = ((rows.part - self.first) * self.segments + rows.at) * self.strata + stratum
        return summed(cell, values, shape[0] * shape[1] * shape[2]).reshape(shape)

    def _by_stratum(self, stratum: Ints, values: Floats) -> Floats:
        return summed(stratum, values, self.parts * self.strata).reshape(self.parts, self.strata)

    @cached_property
    def _sums(self) -> tuple[Floats, list[Floats], Floats, Floats]:
        """Sums by stratum and series, their products with the curves, weighted sums by segment, and squares."""
        rows = self.sizes_rows
        if self.data.said is None:
            stratum = self._stratum(rows)
            sums, *products, squares = (self._by_stratum(stratum, one)[:, :, None] for one in rows.sums[6:10])
            return sums, products, self._by_segment(rows, rows.sums[6]) @ self.weight, squares
        said, width = _between(self.data.said, self.first, self.last), self.data.series
        shape = self.parts, self.strata, width
        key = self._stratum(said) * width + said.label
        size = shape[0] * shape[1] * shape[2]
        sums, *products = (summed(key, one, size).reshape(shape) for one in said.sums)
        weighted = said.sums[0] * np.take(self.data.weight.ravel(), said.stratum * width + said.label)
        key = ((said.part - self.first) * self.segments + said.at) * width + said.label
        found = summed(key, weighted, self.parts * self.segments * width).reshape(self.parts, self.segments, width)
        return sums, products, found, np.zeros((1, 1, 1))

    @property
    def uses(self) -> Floats:
        """How many judgments could show a change of each series (parts x series)."""
        if self.data.said is None:
            return np.asarray(self.judged.sum(axis=1))
        return np.asarray(self._sums[0].sum(axis=1) + self.sizes @ self.upper)

    @cached_property
    def judged(self) -> Floats:
        """Judgments that bear on each series (parts x segments x series)."""
        return np.asarray(self.n @ np.tile(self.data.belongs, (self.copies, 1)))

    @cached_property
    def inner(self) -> Floats:
        """Squared weight times the variance of a single judgment (parts x strata x series)."""
        sums, _, _, squares = self._sums
        pool = self.data.pool
        mean, scatter = (np.tile(array, (self.copies, 1)) for array in (pool.mean, pool.variance))
        variance = self.data.variance(sums, squares, self.sizes[:, :, None], mean, scatter)
        return np.asarray(self.weight**2 * variance)

    @cached_property
    def pace(self) -> Floats:
        """How strongly learning shows (parts x strata x series)."""
        mean = np.tile(self.data.pool.mean, (self.copies, 1))
        return self.data.pace(self._sums[0], self.sizes[:, :, None], mean, self.upper)

    @cached_property
    def groups(self) -> list[tuple[Floats, Floats]]:
        """The weights of each learning group, and the same times the pace."""
        return [(mask, mask * self.pace) for mask in (self.weight * (1 - self.upper), self.weight * self.upper)]

    @cached_property
    def rest(self) -> Floats:
        """Weighted residuals (parts x segments x series)."""
        sums, products, found, _ = self._sums
        sizes = self.sizes[:, :, None]
        level = sums / np.maximum(sizes, 1.0)
        centred = [
            product - sizes * mean[:, :, None] * level for product, mean in zip(products, self.means, strict=True)
        ]
        fitted = self.weight * level
        for mask, paced in self.groups:
            moment = np.einsum("bps,psk->bpk", self.moments, paced * self.pace)
            slope = slopes(moment, self.sizes @ mask, *(np.sum(paced * one, axis=1) for one in centred))
            for one, mean, moved in zip(slope, self.means, self.moved, strict=True):
                fitted = fitted - paced * (mean[:, :, None] * one[:, None, :])
                found = found - (moved @ paced) * one[:, None, :]
        return np.asarray(found - self.n @ fitted)

    @cached_property
    def scale(self) -> Floats:
        """Weighted judgments (parts x segments x series)."""
        return np.asarray(self.n @ self.weight)

    @cached_property
    def noise(self) -> Floats:
        """The variance of ``rest``, were judgments independent."""
        return np.asarray(self.n @ self.inner)

    def scores(self, shock: Floats | None) -> Scores:
        """Scores at the beginning of each segment but the first.

        Args:
            shock: what happened to everybody else (parts x segments x series).
        """
        part = _after(self.n)
        share = part / np.maximum(self.sizes, 1.0)[:, None, :]
        plain = part * (1 - share)
        steps = [_after(moved) - part * mean[:, None, :] for moved, mean in zip(self.moved, self.means, strict=True)]
        score, info, model = _after(self.rest), plain @ self.weight, plain @ self.inner
        if shock is not None:
            ahead = self.n.transpose(0, 2, 1) @ shock  # parts x strata x series
            moved_by = [
                moved.transpose(0, 2, 1) @ shock - mean[:, :, None] * ahead
                for moved, mean in zip(self.moved, self.means, strict=True)
            ]
            score = score - _after(self.scale * shock) + share @ (self.weight * ahead)
        for mask, paced in self.groups:
            found = [step @ paced for step in steps]
            moment = np.einsum("bps,psk->bpk", self.moments, paced * self.pace)
            one, two = slopes(moment, self.sizes @ mask, *found)
            info = info - one * found[0] - two * found[1]
            scaled = np.where(mask > 0, self.inner * self.pace, 0.0)
            a, b, c = np.einsum("bps,psk->bpk", self.moments, scaled * self.pace)[:, :, None, :]
            model = model - 2 * (one * (steps[0] @ scaled) + two * (steps[1] @ scaled))
            model = model + one**2 * a + 2 * one * two * b + two**2 * c
            if shock is not None:
                first, second = (np.sum(paced * moved, axis=1)[:, None, :] for moved in moved_by)
                score = score + one * first + two * second
        return Scores(score, info, model)


def batches(data: Data) -> list[Batch]:
    """All parts, so many at a time that no array becomes too large."""
    copies = int(data.rank.max(initial=0)) + 1
    size = copies * data.strata * max(data.series, len(data.plan.candidates) + 1)
    step = max(1, _CELLS // size)
    present = np.zeros(len(data.units) + 1, dtype=bool)
    present[data.sizes.part] = True
    edges = np.flatnonzero(np.diff(present, prepend=False))  # runs of parts that have judgments
    return [
        Batch(data, first, min(first + step, int(end)))
        for start, end in zip(edges[::2], edges[1::2], strict=True)
        for first in range(int(start), int(end), step)
    ]


def _between(rows: Rows, first: int, last: int) -> Rows:
    start, end = np.searchsorted(rows.part, [first, last])
    return rows.some(slice(int(start), int(end)))


def _after(values: Floats) -> Floats:
    """Sums over the segments from each one on, without the first."""
    return np.asarray(np.cumsum(values[:, ::-1], axis=1)[:, ::-1][:, 1:])
