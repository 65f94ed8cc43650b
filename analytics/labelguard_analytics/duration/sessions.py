"""Working sessions: stretches of an annotator's judgments without a long pause in between."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from labelguard_analytics.frames import BadJudgments, Coded, Floats

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Sessions:
    """Where each judgment stands in the work of its annotator; every array has one entry for each judgment."""

    order: Ints
    """The rows sorted by annotator and then by time; in the order of the frame where there are no times."""
    place: Ints
    """How many judgments the annotator had made before."""
    session: Ints
    """The number of the session, over all annotators."""
    hours: Floats
    """Hours since the first judgment of the session; zeros where there are no times."""
    timed: bool
    """Whether the frame has times; otherwise all judgments of an annotator are one session."""


def find_sessions(coded: Coded, gap: float) -> Sessions:
    """Cut everybody's judgments where more than ``gap`` minutes passed.

    Raises:
        BadJudgments: the column ``at`` is empty in a row.
        ValueError: the gap is not above 0.
    """
    if not gap > 0:
        raise ValueError(f"session_gap must be a number of minutes above 0, but it is {gap!r}.")
    who = coded.annotator.astype(np.int64)
    timed = "at" in coded.frame.columns
    if timed:
        minutes = minutes_of(coded.frame["at"])
        order = np.lexsort((minutes, who))
    else:
        minutes = np.zeros(coded.n)
        order = np.argsort(who, kind="stable")
    own = who[order]
    new = np.concatenate([[True], own[1:] != own[:-1]])
    rank = np.arange(coded.n)
    place = np.empty(coded.n, dtype=np.int64)
    place[order] = rank - np.maximum.accumulate(np.where(new, rank, 0))
    when = minutes[order]
    begins = new | np.concatenate([[True], np.diff(when) > gap])
    session = np.empty(coded.n, dtype=np.int64)
    session[order] = np.cumsum(begins) - 1
    hours = np.empty(coded.n)
    hours[order] = (when - when[np.maximum.accumulate(np.where(begins, rank, 0))]) / 60.0
    return Sessions(order, place, session, hours, timed)


def minutes_of(at: pd.Series[Any]) -> Floats:
    """Times as minutes.

    Raises:
        BadJudgments: one is missing.
    """
    absent = at.isna().to_numpy()
    if absent.any():
        row = at.index[int(absent.argmax())]
        raise BadJudgments(
            f"The column 'at' is empty in row {row!r}, so its place in the annotator's work is unknown; "
            "fill it in or leave the row out."
        )
    stamps = at.to_numpy(dtype="datetime64[ns]") if at.dt.tz is None else at.dt.tz_convert("UTC").to_numpy("M8[ns]")
    return np.asarray(stamps.astype(np.int64) / 6e10, dtype=np.float64)
