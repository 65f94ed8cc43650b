"""Sums by annotator, day, stratum and label, in a form that is added and subtracted at the cost of the smaller part."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from labelguard_analytics.frames import Floats

Ints = npt.NDArray[np.int64]

LABELS = 16_000
"""So many labels fit into a key."""
DAYS = 1 << 15
"""Days after 1970 that fit into a key: until the year 2059."""
WHO_SHIFT, DAY_SHIFT = 44, 29
WHO = 1 << 18
"""Combinations of annotator, source and cohort that fit into a key."""


_FEW = 8
"""So many times as many rows lie below as on top of a pile."""


@dataclass(frozen=True)
class Cells:
    """Rows of sums, each with a key of four small numbers packed into one; sorted, each key once."""

    key: Ints
    sums: Floats
    """Rows x sums; the first is the number of judgments."""

    @classmethod
    def of(cls, who: Ints, day: Ints, stratum: Ints, label: Ints, values: list[Floats]) -> Cells:
        """Add up single judgments: their number, then each of ``values``."""
        key = pack(who, day, stratum, label)
        order = np.argsort(key)
        ordered = key[order]
        first = np.flatnonzero(np.diff(ordered, prepend=-1))
        number = np.diff(first, append=len(ordered)).astype(np.float64)
        columns = [np.add.reduceat(value[order], first) if len(first) else np.zeros(0) for value in values]
        return cls(ordered[first], np.stack([number, *columns], axis=1))

    @classmethod
    def empty(cls, sums: int) -> Cells:
        """No rows."""
        return cls(np.zeros(0, dtype=np.int64), np.zeros((0, sums)))

    def unpacked(self) -> tuple[Ints, Ints, Ints, Ints]:
        """Who, day, stratum and label of each row."""
        return (
            self.key >> WHO_SHIFT,
            (self.key >> DAY_SHIFT) & (DAYS - 1),
            (self.key >> 14) & ((1 << 15) - 1),
            self.key & ((1 << 14) - 1),
        )

    def plus(self, other: Cells, sign: float) -> Cells:
        """The sum, or for a ``sign`` of -1 the difference; rows without judgments are left out."""
        if len(other.key) > len(self.key):
            turned = Cells(other.key, sign * other.sums)
            return (turned.plus(self, 1.0) if len(self.key) else turned).with_judgments()
        if not len(other.key):
            return self
        at = np.searchsorted(self.key, other.key)
        known = np.zeros(len(at), dtype=bool)
        inside = at < len(self.key)
        known[inside] = self.key[at[inside]] == other.key[inside]
        sums = self.sums
        if known.any():
            sums = sums.copy()
            sums[at[known]] += sign * other.sums[known]
        key = np.insert(self.key, at[~known], other.key[~known])
        sums = np.insert(sums, at[~known], sign * other.sums[~known], axis=0)
        return Cells(key, sums) if sign > 0 else Cells(key, sums).with_judgments()

    def with_judgments(self) -> Cells:
        """Without the rows that hold no judgments any more."""
        kept = self.sums[:, 0] != 0
        return self if kept.all() else Cells(self.key[kept], self.sums[kept])

    @cached_property
    def days(self) -> Ints:
        """Days with judgments."""
        return np.flatnonzero(np.bincount((self.key >> DAY_SHIFT) & (DAYS - 1)))

    @cached_property
    def _uses(self) -> Floats:
        return np.asarray(np.bincount(self.key & ((1 << 14) - 1), weights=self.sums[:, 0]), dtype=np.float64)

    def uses(self, labels: int) -> Floats:
        """Judgments with each label, of which there are so many."""
        return np.concatenate([self._uses, np.zeros(labels - len(self._uses))])

    def of_whom(self, who: Ints, since: int = 0) -> Cells:
        """The rows of some, from a day on."""
        first = np.searchsorted(self.key, (who << WHO_SHIFT) | (since << DAY_SHIFT))
        number = np.searchsorted(self.key, (who + 1) << WHO_SHIFT) - first
        rows = np.repeat(first - (np.cumsum(number) - number), number) + np.arange(int(number.sum()))
        return self if len(rows) == len(self.key) else Cells(self.key[rows], self.sums[rows])

    def renumbered(self, who: Ints, label: Ints) -> Cells:
        """The same with new codes of annotators and labels."""
        old_who, day, old_stratum, old_label = self.unpacked()
        codes = np.concatenate([[0], label + 1])
        stratum = 2 * codes[old_stratum // 2] + old_stratum % 2
        key = pack(who[old_who], day, stratum, codes[old_label])
        order = np.argsort(key)
        return Cells(key[order], self.sums[order])


@dataclass(frozen=True)
class Pile:
    """Cells and a few more on top, which are sorted in when they are many: adding costs what is added."""

    base: Cells
    top: Cells

    @classmethod
    def of(cls, cells: Cells) -> Pile:
        """Nothing on top."""
        return cls(cells, Cells.empty(cells.sums.shape[1]))

    @cached_property
    def whole(self) -> Cells:
        """All sorted in."""
        return self.base.plus(self.top, 1.0) if len(self.top.key) else self.base

    def plus(self, other: Pile, sign: float) -> Pile:
        """The sum, or for a ``sign`` of -1 the difference."""
        if sign > 0 and len(other.base.key) > len(self.base.key):
            return other.plus(self, sign)
        if sign > 0 and _FEW * len(other.base.key) <= len(self.base.key):
            top = self.top.plus(other.whole, sign)
            if _FEW * len(top.key) <= len(self.base.key):
                return Pile(self.base, top)
        return Pile.of(self.whole.plus(other.whole, sign))

    def of_whom(self, who: Ints, since: int = 0) -> Cells:
        """The rows of some, from a day on."""
        return self.base.of_whom(who, since).plus(self.top.of_whom(who, since), 1.0)

    def renumbered(self, who: Ints, label: Ints) -> Pile:
        """The same with new codes of annotators and labels."""
        return Pile(self.base.renumbered(who, label), self.top.renumbered(who, label))

    def number(self) -> float:
        """Judgments."""
        return float(self.base.sums[:, 0].sum() + self.top.sums[:, 0].sum())

    def uses(self, labels: int) -> Floats:
        """Judgments with each label."""
        return self.base.uses(labels) + self.top.uses(labels)

    def days(self) -> Ints:
        """Days with judgments."""
        return np.union1d(self.base.days, self.top.days)


def pack(who: Ints, day: Ints, stratum: Ints, label: Ints) -> Ints:
    """One number that sorts by annotator, then day, stratum and label."""
    return ((who << WHO_SHIFT) | (day << DAY_SHIFT)) | ((stratum << 14) | label)


def stratum_of(label: Ints, agreed: npt.NDArray[np.bool_] | bool) -> Ints:
    """The stratum of a consensus label, contested or not; 0 and 1 where there is none (label -1)."""
    return np.asarray(2 * (label + 1) + agreed, dtype=np.int64)
