"""Refuse frames that lack columns or have too few rows, and find the judgments that count."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from labelguard_analytics.frames.columns import (
    numbers_of,
)
from labelguard_analytics.frames.errors import BadJudgments, first_of, row_of
from labelguard_analytics.frames.terms import OPTIONAL, REQUIRED, Codes, Floats


def too_few(judgments: pd.DataFrame, least: int) -> str:
    """What to say of a frame with too few rows."""
    if judgments.empty:
        return "There are no judgments: the columns 'task', 'annotator' and 'value' have no row."
    return (
        f"There is too little to compare: the columns 'task', 'annotator' and 'value' have {len(judgments)} row"
        f"{'s' if len(judgments) > 1 else ''} (row {row_of(judgments, 0)}), and at least {least} are needed."
    )


def check_columns(judgments: Any, needs: Collection[str], extra: Iterable[Any]) -> None:
    """Refuse a frame that lacks a column, or has a strange one or one twice."""
    if not isinstance(judgments, pd.DataFrame):
        raise BadJudgments(
            f"Judgments must be a pandas DataFrame with the columns 'task', 'annotator' and 'value', "
            f"not a {type(judgments).__name__}."
        )
    known = {*REQUIRED, *OPTIONAL, *extra}
    strange = [column for column in judgments.columns if column not in known]
    for column in REQUIRED:
        if column not in judgments.columns:
            others = [str(one) for one in judgments.columns if one not in (*REQUIRED, *OPTIONAL)]
            near = difflib.get_close_matches(column, others, 1)
            hint = f"; did you mean it by {near[0]!r}?" if near else _has(judgments.columns)
            raise BadJudgments(f"The column {column!r} is missing{hint}")
    if strange:
        raise BadJudgments(
            f"The column {strange[0]!r} is unknown: judgments have the columns {', '.join(REQUIRED)} and may have "
            f"{', '.join(OPTIONAL)}; rename it or leave it out."
        )
    twice = judgments.columns[judgments.columns.duplicated()]
    if len(twice):
        raise BadJudgments(f"There are two columns called {twice[0]!r}.")
    check_needs(judgments, needs)


def _has(columns: Sequence[Any] | pd.Index[Any]) -> str:
    return f"; there are {', '.join(repr(column) for column in columns)}." if len(columns) else "; there are none."


def check_needs(frame: pd.DataFrame, needs: Collection[str]) -> None:
    """Refuse a frame without a column that is needed."""
    for column in needs:
        if column not in frame.columns:
            raise BadJudgments(f"The column {column!r} is missing, which is needed here.")


def confidences(frame: pd.DataFrame) -> Floats:
    """The confidence of each row of a frame that may lack other columns than ``annotator``; NaN where it has none.

    Raises:
        BadJudgments: a column is missing, or holds no numbers from 0 to 1.
    """
    if not isinstance(frame, pd.DataFrame):
        raise BadJudgments(f"Judgments must be a pandas DataFrame, not a {type(frame).__name__}.")
    check_needs(frame, ("annotator", "confidence"))
    check_range(frame, "confidence", 1.0)
    return numbers_of(frame["confidence"], "confidence", missing=True)


def check_optional(frame: pd.DataFrame) -> None:
    """The optional columns that are there hold what they must."""
    if "at" in frame.columns:
        at = frame["at"]
        if not pd.api.types.is_datetime64_any_dtype(at.dtype):
            raise BadJudgments(
                f"The column 'at' must hold datetimes, but it holds {at.dtype} (row {row_of(frame, 0)}); "
                "pandas.to_datetime makes them."
            )
    for column, high in (("duration", np.inf), ("confidence", 1.0)):
        if column in frame.columns:
            check_range(frame, column, high)


def check_range(frame: pd.DataFrame, column: str, high: float) -> None:
    """Refuse numbers below 0 or above the highest one."""
    values = numbers_of(frame[column], column, missing=True)
    outside = (values < 0) | (values > high)
    if outside.any():
        where = first_of(outside)
        limits = "at least 0" if np.isinf(high) else "from 0 to 1"
        raise BadJudgments(
            f"The column {column!r} must be {limits}, but row {row_of(frame, where)} holds {values[where]:g}."
        )


def last_of_each(frame: pd.DataFrame, task: Codes, annotator: Codes, annotators: int) -> npt.NDArray[np.intp] | None:
    """The rows that count where somebody judged a task more than once; None where nobody did."""
    key = task.astype(np.int64) * annotators + annotator
    if _all_different(key):
        return None
    repeated = pd.Series(key).duplicated(keep=False).to_numpy()
    if "at" not in frame.columns:
        first, second = np.flatnonzero(key == key[first_of(repeated)])[:2]
        raise BadJudgments(
            f"The columns 'task' and 'annotator' name the same judgment in rows {row_of(frame, first)} and "
            f"{row_of(frame, second)} (task {frame['task'].iloc[first]}, annotator {frame['annotator'].iloc[first]})"
            f"{_others(int(pd.Series(key).duplicated().sum()) - 1)}; keep one of them, as "
            "judgments.drop_duplicates(['task', 'annotator'], keep='last') does, or add a column 'at' so that the "
            "later one counts."
        )
    at = frame["at"]
    absent = at.isna().to_numpy() & repeated
    if absent.any():
        raise BadJudgments(
            f"The column 'at' is empty in row {row_of(frame, first_of(absent))}, whose task the annotator judged more "
            "than once, so the later judgment cannot be told."
        )
    by_time = np.argsort(pd.DatetimeIndex(at).asi8, kind="stable")
    last = ~pd.Series(key[by_time]).duplicated(keep="last").to_numpy()
    return np.sort(by_time[last])


def _others(more: int) -> str:
    return f", and {more} more row{'s repeat' if more > 1 else ' repeats'} one" if more else ""


def _all_different(key: npt.NDArray[np.int64]) -> bool:
    if not key.size or bool(np.all(key[1:] > key[:-1])):
        return True
    cells = int(key.max()) + 1
    if cells <= 64 * key.size + 1_000_000:
        # A table of what occurs is several times quicker than sorting.
        present = np.zeros(cells, dtype=bool)
        present[key] = True
        return int(np.count_nonzero(present)) == key.size
    ordered = np.sort(key)
    return not bool(np.any(ordered[1:] == ordered[:-1]))
