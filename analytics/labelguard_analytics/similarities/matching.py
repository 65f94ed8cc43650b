"""Matching the parts of two results, so that the parts that are most alike face each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

Table = npt.NDArray[np.float64]


def matched(table: Table | Sequence[Sequence[float]], first: int, second: int, threshold: float | None = None) -> float:
    """F1 of an optimal one-to-one matching, from the similarities of every two parts.

    Parts are matched so that the sum of similarities is largest (Kuhn 1955; never greedily: a greedy match may
    take a part away from the only one it resembles). The result is twice that sum over the number of parts on both
    sides, so that a missing or an extra part costs as much as a wrong one. With a ``threshold``, a matched pair
    counts 1 from that similarity on and 0 below, and as many pairs as possible are matched.

    >>> matched([[0.9, 0.8], [0.8, 0.0]], 2, 2)
    0.8

    Args:
        table: similarities from 0 to 1 (first x second).
        first: the number of parts on one side.
        second: the number of parts on the other side.
        threshold: from which similarity on a pair counts as found; None counts similarities themselves.

    Returns:
        From 0 to 1; 1 where both sides have no parts, 0 where one has none.
    """
    if not first or not second:
        return float(first == second)
    scores: Table = np.asarray(table, dtype=np.float64).reshape(first, second)
    if threshold is not None:
        scores = (scores >= threshold - 1e-12).astype(np.float64)
    rows, columns = linear_sum_assignment(scores, maximize=True)
    return min(1.0, 2.0 * float(scores[rows, columns].sum()) / (first + second))


def best_pairs(table: Table, least: float) -> dict[int, int]:
    """The optimal matching as row to column, leaving out pairs less alike than ``least``."""
    if not table.size:
        return {}
    rows, columns = linear_sum_assignment(table, maximize=True)
    return {int(row): int(column) for row, column in zip(rows, columns, strict=True) if table[row, column] >= least}
