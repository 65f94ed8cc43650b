"""What is measured of each judgment."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from labelguard_analytics.frames import Floats

Ints = npt.NDArray[np.integer[Any]]


def agreement_with_others(unit: Ints, value: Ints) -> Floats:
    """For each judgment the share of the other judgments of its unit that have its value; NaN where there are none.

    >>> agreement_with_others(np.array([0, 0, 0, 1]), np.array([1, 1, 2, 0])).tolist()
    [0.5, 0.5, 0.0, nan]

    Args:
        unit: whose judgments are compared, such as the task: codes from 0.
        value: codes from 0.
    """
    same = _counts(unit.astype(np.int64) * (int(value.max(initial=0)) + 1) + value) - 1
    others = _counts(unit) - 1
    return np.asarray(np.where(others > 0, same / np.maximum(others, 1), np.nan))


def mean_of_others(unit: Ints, annotator: Ints, annotators: int) -> sparse.csr_array:
    """For each judgment the shares of the annotators in the other judgments of its unit (judgments x annotators)."""
    size = len(unit)
    rows = np.arange(size)
    own = sparse.csr_array((np.ones(size), (rows, annotator)), shape=(size, annotators))
    units = sparse.csr_array((np.ones(size), (rows, unit)), shape=(size, int(unit.max(initial=0)) + 1))
    others = sparse.csr_array(units @ (units.T @ own) - own)
    return sparse.csr_array(others.multiply(1.0 / np.maximum(_counts(unit) - 1, 1)[:, None]))


def label_of_others(unit: Ints, value: Ints) -> Ints:
    """For each judgment the value that most others gave its unit, -1 where there are none or the most are tied.

    >>> label_of_others(np.array([0, 0, 0, 1]), np.array([1, 1, 2, 0])).tolist()
    [-1, -1, 1, -1]
    """
    labels = int(value.max(initial=0)) + 1
    cells, place, counts = np.unique(unit.astype(np.int64) * labels + value, return_inverse=True, return_counts=True)
    units, labels_of = cells // labels, cells % labels
    order = np.lexsort((-counts, units))
    first = np.flatnonzero(np.diff(units[order], prepend=-1))
    # Without one's own vote the most frequent value is one of the three most frequent ones.
    best = np.full((int(unit.max(initial=0)) + 1, 3), -1, dtype=np.int64)
    votes = np.zeros(best.shape, dtype=np.int64)
    ends = np.append(first[1:], len(order))
    for rank in range(3):
        there = first + rank < ends
        chosen = order[(first + rank)[there]]
        best[units[chosen], rank], votes[units[chosen], rank] = labels_of[chosen], counts[chosen]
    left = votes[unit] - (best[unit] == labels_of[place][:, None])
    top = left.max(axis=1)
    clear = (left == top[:, None]).sum(axis=1) == 1
    return np.asarray(np.where((top > 0) & clear, best[unit, left.argmax(axis=1)], -1))


def _counts(codes: Ints) -> Ints:
    """How often each judgment's code occurs."""
    _, place, counts = np.unique(codes, return_inverse=True, return_counts=True)
    return np.asarray(counts[place])
