"""Reading what a stream is given: one value, or many at once, between 0 and 1."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

Direction = Literal["down", "up", "both"]
"""Which changes count."""


def unit(value: Any, name: str) -> float:
    """A number between 0 and 1.

    Raises:
        ValueError: it is anything else.
    """
    try:
        number = math.nan if isinstance(value, str | bytes) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0.0 <= number <= 1.0:  # also refuses NaN
        raise ValueError(f"{name} must lie between 0 and 1, but it is {value!r}.")
    return number


def units(values: Iterable[Any], name: str) -> npt.NDArray[np.float64]:
    """Numbers between 0 and 1 as an array.

    Raises:
        ValueError: one is anything else; the sentence says which.
    """
    given = values if isinstance(values, np.ndarray) else list(values)
    try:
        raw = np.asarray(given)
    except ValueError:  # rows of different lengths
        raw = np.asarray(given, dtype=object)
    array: npt.NDArray[np.float64]
    if raw.dtype.kind in "fiub":
        array = raw.astype(np.float64)
    else:
        array = np.array([unit(value, f"{name} (place {i})") for i, value in enumerate(given, start=1)], dtype=float)
    if array.ndim != 1:
        raise ValueError(f"{name}s for a stream must be one row of numbers, but they have {array.ndim} dimensions.")
    if len(array) and not (array.min() >= 0.0 and array.max() <= 1.0):  # also where there is a NaN
        first = int(np.flatnonzero(~((array >= 0.0) & (array <= 1.0)))[0])
        raise ValueError(f"{name} must lie between 0 and 1, but at place {first + 1} it is {array[first].item()!r}.")
    return array


def direction_of(value: Any) -> Direction:
    """A direction.

    Raises:
        ValueError: it is none.
    """
    if value not in get_args(Direction):
        raise ValueError(f"direction must be 'down', 'up' or 'both', but it is {value!r}.")
    found: Direction = value
    return found
