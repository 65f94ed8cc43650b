"""Two periods of a frame of judgments, told by a date, by two spans of time or by masks."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from labelguard_analytics.frames import BadJudgments

Period: TypeAlias = Any
"""A mask (one truth value for each row), or a pair of dates: from the first on, up to but without the second."""

Mask: TypeAlias = npt.NDArray[np.bool_]


def split(judgments: pd.DataFrame, at: Any, before: Period, after: Period) -> tuple[Mask, Mask]:
    """The rows of the two periods.

    Raises:
        BadJudgments: the column ``at`` is missing or empty where it is needed, or a mask does not fit.
        ValueError: the periods are not told, or told twice, or overlap, or one has no judgment.
    """
    if (at is None) == (before is None and after is None):
        raise ValueError("Say what is compared: either a date at=, or both before= and after=.")
    if at is not None:
        when = moments(judgments)
        later = np.asarray(when >= moment(at, when, "at"))
        masks = ~later, later
    elif before is None or after is None:
        raise ValueError(f"{'before' if before is None else 'after'}= is missing: both periods must be told.")
    else:
        masks = _rows(judgments, before, "before"), _rows(judgments, after, "after")
    both = masks[0] & masks[1]
    if both.any():
        row = judgments.index[int(np.flatnonzero(both)[0])]
        raise ValueError(f"The periods overlap: row {row!r} belongs to both.")
    for mask, name in zip(masks, ("before", "after"), strict=True):
        if not mask.any():
            raise ValueError(f"There is no judgment in the period {name!r}.")
    return masks


def moments(judgments: pd.DataFrame) -> pd.Series[Any]:
    """The column ``at``, without gaps.

    Raises:
        BadJudgments: it is missing, holds no datetimes or has a gap.
    """
    if not isinstance(judgments, pd.DataFrame):
        raise BadJudgments(f"Judgments must be a pandas DataFrame, not a {type(judgments).__name__}.")
    if "at" not in judgments.columns:
        raise BadJudgments("The column 'at' is missing, which is needed to compare by time.")
    when = judgments["at"]
    if not pd.api.types.is_datetime64_any_dtype(when.dtype):
        raise BadJudgments(
            f"The column 'at' must hold datetimes, but it holds {when.dtype}; pandas.to_datetime makes them."
        )
    absent = when.isna().to_numpy()
    if absent.any():
        raise BadJudgments(f"The column 'at' is empty in row {judgments.index[int(absent.argmax())]!r}.")
    return when


def moment(value: Any, when: pd.Series[Any], name: str) -> pd.Timestamp:
    """A date as it can be compared with the column ``at``.

    Raises:
        ValueError: it is no date, or only one of the two has a time zone.
    """
    try:
        found = pd.Timestamp(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name}={value!r} is not a date.") from None
    if pd.isna(found):
        raise ValueError(f"{name}={value!r} is not a date.")
    zone = getattr(when.dtype, "tz", None)
    if zone is not None and found.tzinfo is None:
        return found.tz_localize(zone)
    if zone is None and found.tzinfo is not None:
        raise ValueError(f"{name}={value!r} has a time zone, but the column 'at' has none; give both or neither one.")
    return found


def _rows(judgments: pd.DataFrame, period: Period, name: str) -> Mask:
    if isinstance(period, tuple) and len(period) == 2:
        when = moments(judgments)
        first, last = (moment(one, when, name) for one in period)
        return np.asarray((when >= first) & (when < last))
    return mask(judgments, period, name)


def mask(judgments: pd.DataFrame, rows: Any, name: str) -> Mask:
    """A truth value for each row.

    Raises:
        BadJudgments: there are not as many as rows, or they are no truth values.
    """
    if not isinstance(judgments, pd.DataFrame):
        raise BadJudgments(f"Judgments must be a pandas DataFrame, not a {type(judgments).__name__}.")
    if isinstance(rows, pd.Series) and not rows.index.equals(judgments.index):
        raise BadJudgments(f"The mask {name}= has another index than the judgments.")
    found = np.asarray(rows)
    if found.dtype != np.bool_ or found.shape != (len(judgments),):
        raise BadJudgments(
            f"The mask {name}= must hold one truth value for each of the {len(judgments):,} rows, "
            f"but it has the shape {found.shape} and holds {found.dtype}."
        )
    return found
