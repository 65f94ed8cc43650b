"""How far labels and numbers lie apart: the credit that different ones get, and their distances."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from labelguard_analytics.frames import BadJudgments, Floats, shown
from labelguard_analytics.options import short

Weights: TypeAlias = Literal["linear", "quadratic"] | npt.ArrayLike | None


def credit(categories: pd.Index[Any], weights: Weights, *, ordered: bool) -> Floats | None:
    """Weights as a matrix of labels x labels; None for none."""
    if weights is None:
        return None
    size = len(categories)
    if not isinstance(weights, str):
        try:
            matrix = np.asarray(weights, dtype=np.float64)
        except (TypeError, ValueError):
            matrix = np.empty(0)
        if matrix.shape != (size, size) or not np.allclose(matrix, matrix.T) or not np.allclose(np.diag(matrix), 1.0):
            raise ValueError(
                f"weights must be a symmetric matrix of {size} x {size} with 1 on its diagonal, one row for each label."
            )
        return matrix
    if weights not in ("linear", "quadratic"):
        raise ValueError(f"weights must be 'linear', 'quadratic' or a matrix, but they are {short(weights)}.")
    check_ordered(categories, ordered=ordered, what=f"{weights} weights")
    # Labels that are numbers lie as far apart as the numbers do, others one step each.
    numeric = categories.dtype.kind in "iuf"
    place = categories.to_numpy(dtype=np.float64) if numeric else np.arange(size, dtype=np.float64)
    widest = float(np.ptp(place)) if size > 1 else 1.0
    apart = np.abs(place[:, None] - place[None, :]) / widest
    return np.asarray(1.0 - (apart if weights == "linear" else apart**2), dtype=np.float64)


def check_ordered(categories: pd.Index[Any], *, ordered: bool, what: str) -> None:
    """Refuse labels without an order, unless there are too few for it to matter.

    Raises:
        BadJudgments: the labels have none.
    """
    if not ordered and len(categories) > 2:
        raise BadJudgments(
            f"The column 'value' holds labels without an order, such as {shown(categories[0])}, but {what} need one; "
            "make it an ordered categorical column or numbers."
        )


def category_numbers(categories: pd.Index[Any]) -> Floats:
    """The labels as numbers.

    Raises:
        BadJudgments: they are no numbers.
    """
    if categories.dtype.kind not in "iuf":
        raise BadJudgments("The column 'value' must hold numbers for this metric.")
    return categories.to_numpy(dtype=np.float64)


def ratio_distance(values: Floats) -> Floats:
    """The ratio metric between any two numbers from 0."""
    total = values[:, None] + values[None, :]
    apart = values[:, None] - values[None, :]
    return np.asarray((apart / np.where(total > 0, total, 1.0)) ** 2, dtype=np.float64)
