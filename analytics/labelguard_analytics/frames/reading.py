"""From a frame to codes."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pandas as pd

from labelguard_analytics.frames.checks import check_columns, check_needs, check_optional, last_of_each, too_few
from labelguard_analytics.frames.coded import Coded
from labelguard_analytics.frames.columns import (
    encode,
    is_ordered,
    numbers_of,
    objects_of,
    results_of,
    sets_of,
    without_arrow,
)
from labelguard_analytics.frames.errors import BadJudgments
from labelguard_analytics.frames.gold import with_gold
from labelguard_analytics.frames.terms import SETS, Kind


def read(
    judgments: pd.DataFrame | Coded,
    *,
    kind: Kind = "nominal",
    needs: Collection[str] = (),
    extra: Collection[str] = (),
    least: int = 2,
    repeats: bool = False,
) -> Coded:
    """Read a frame of judgments into integer codes.

    A million rows take some 0.03 s when task, annotator and value are integers or categoricals.

    >>> read(pd.DataFrame({"task": [1], "annotator": ["ann"], "vlaue": ["x"]}))
    Traceback (most recent call last):
    ...
    labelguard_analytics.frames.errors.BadJudgments: The column 'value' is missing; did you mean it by 'vlaue'?

    Args:
        judgments: the frame, or what an earlier call made of it.
        kind: what the values must be.
        needs: optional columns that this use cannot do without.
        extra: further columns that are welcome; any other unknown column is taken for a mistake.
        least: how many rows there must be.
        repeats: whether an annotator may have judged a task more than once, so that all of it counts.

    Raises:
        BadJudgments: the frame is not what it must be.
    """
    if isinstance(judgments, Coded):
        if judgments.kind != kind:
            raise BadJudgments(f"These judgments were read as {judgments.kind!r}, but {kind!r} is needed.")
        check_needs(judgments.frame, needs)
        return judgments
    check_columns(judgments, needs, extra)
    judgments = without_arrow(judgments)
    if len(judgments) < max(least, 1) and least:
        raise BadJudgments(too_few(judgments, least))
    task, tasks = encode(judgments["task"], "task")
    annotator, annotators = encode(judgments["annotator"], "annotator")
    check_optional(judgments)
    frame = judgments
    keep = None if repeats and "at" not in frame.columns else last_of_each(frame, task, annotator, len(annotators))
    if keep is not None:
        frame = judgments.iloc[keep]
        task, annotator = task[keep], annotator[keep]
    column = frame["value"]
    empty: pd.Index[Any] = pd.Index([])
    if kind == "number":
        return Coded(kind, task, annotator, numbers_of(column, "value"), tasks, annotators, empty, frame=frame)
    if kind == "result":
        return Coded(kind, task, annotator, results_of(column), tasks, annotators, empty, frame=frame)
    if kind == "any":
        return Coded(kind, task, annotator, objects_of(column), tasks, annotators, empty, frame=frame)
    if kind == "set":
        # Known answers may have labels that nobody gave; what gold holds is checked where it is used.
        answers = [value for value in frame.get("gold", ()) if isinstance(value, SETS)]
        codes, sets, labels = sets_of(column, answers)
        return Coded(kind, task, annotator, codes, tasks, annotators, labels, sets, frame=frame)
    codes, labels = encode(column, "value", keep_unused=True)
    if "gold" in frame.columns:
        codes, labels = with_gold(column, frame["gold"], codes, labels)
    return Coded("nominal", task, annotator, codes, tasks, annotators, labels, (), is_ordered(column), frame)


def kind_of(judgments: pd.DataFrame) -> Kind:
    """What the values of a frame are, from their first row: lists of items, lists of labels, numbers or labels.

    Whole numbers are labels here (a class is often a number); floating ones are numbers.

    >>> kind_of(pd.DataFrame({"task": [1, 1], "annotator": [1, 2], "value": [["a"], ["a", "b"]]}))
    'set'
    """
    check_columns(judgments, (), judgments.columns if isinstance(judgments, pd.DataFrame) else ())
    if judgments.empty:
        raise BadJudgments(too_few(judgments, 1))
    column = without_arrow(judgments[["value"]])["value"]
    if column.dtype != object:
        return "number" if column.dtype.kind == "f" else "nominal"
    lists = [value for value in column.head(1000) if isinstance(value, SETS)]
    if lists:
        return "result" if any(isinstance(item, dict) for value in lists for item in value) else "set"
    return "number" if pd.api.types.infer_dtype(column, skipna=True) == "floating" else "nominal"
