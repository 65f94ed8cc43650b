"""How errors name columns, rows and values."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd


class BadJudgments(ValueError):
    """What is wrong with a frame of judgments, as one sentence that names the column and the row."""


def row_of(column: pd.Series[Any] | pd.DataFrame, position: int) -> str:
    """The index label of a row, as errors name it."""
    return shown(column.index[position])


def shown(value: Any) -> str:
    """A value as errors show it: as Python writes it, numpy's numbers as plain ones."""
    return repr(_plain(value))


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_plain, value))
    return value.item() if isinstance(value, np.generic) else value


def first_of(mask: npt.NDArray[Any]) -> int:
    """The position of the first True."""
    return int(np.flatnonzero(mask)[0])


def a_type(kind: type[Any]) -> str:
    """The name of a type with its article."""
    return f"{'an' if kind.__name__[0].lower() in 'aeiou' else 'a'} {kind.__name__}"


def brief(value: Any) -> str:
    """A value as errors show it, cut where it is long."""
    text = shown(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
