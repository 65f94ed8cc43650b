"""Known answers: the labels that only they have, and what they say of each task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from labelguard_analytics.frames.columns import (
    encode,
    is_empty,
)
from labelguard_analytics.frames.errors import BadJudgments, brief, first_of, row_of, shown
from labelguard_analytics.frames.terms import SETS, Codes

if TYPE_CHECKING:
    from labelguard_analytics.frames.coded import Coded


def with_gold(
    column: pd.Series[Any], gold: pd.Series[Any], codes: Codes, labels: pd.Index[Any]
) -> tuple[Codes, pd.Index[Any]]:
    """The categories with those that only gold has."""
    known, answers = encode(gold, "gold", missing=True)
    if not len(answers):
        return codes, labels
    if _family(answers) != _family(labels):
        where = first_of(known >= 0)
        raise BadJudgments(
            f"The column 'gold' holds {shown(answers[known[where]])} in row {row_of(gold, where)}, which is of another "
            "type than the values of the column 'value'."
        )
    new = answers.difference(labels, sort=False)
    if not len(new):
        return codes, labels
    if isinstance(column.dtype, pd.CategoricalDtype):
        return codes, labels.append(new)
    together = labels.append(new)
    if not together.is_unique:
        raise BadJudgments(
            "The columns 'value' and 'gold' hold whole numbers too large to be told apart beside missing ones; make "
            "both of them texts."
        )
    order = sorted(range(len(together)), key=together.__getitem__)
    places = np.empty(len(order), dtype=np.int32)
    places[order] = np.arange(len(order), dtype=np.int32)
    return places[codes], together[order]


def _family(values: pd.Index[Any]) -> str:
    """What values can be compared with: whole numbers are like other numbers, and truth values like nothing else."""
    kind = pd.api.types.infer_dtype(values)
    return "number" if kind in {"integer", "floating", "mixed-integer-float"} else kind


def gold_sets(coded: Coded) -> npt.NDArray[np.int64]:
    """For ``set``: for each task and label, 1 if gold says it belongs there, 0 if not, -1 where nothing is known.

    Raises:
        BadJudgments: gold is no list of labels like the values, or two rows of a task have different gold.
    """
    known = np.full((len(coded.tasks), len(coded.categories)), -1, dtype=np.int64)
    if "gold" not in coded.frame.columns:
        return known
    gold = coded.frame["gold"]
    told = np.zeros(len(coded.tasks), dtype=bool)
    for position, (task, answer) in enumerate(zip(coded.task, gold, strict=True)):
        if is_empty(answer):
            continue
        places = (
            coded.categories.get_indexer(pd.Index(list(answer), dtype=object)) if isinstance(answer, SETS) else [-1]
        )
        if (np.asarray(places) < 0).any():
            raise BadJudgments(
                f"The column 'gold' must hold lists of labels like 'value', but row {row_of(gold, position)} holds "
                f"{brief(answer)}."
            )
        own = np.zeros(len(coded.categories), dtype=np.int64)
        own[places] = 1
        if told[task] and not np.array_equal(known[task], own):
            raise BadJudgments(
                f"The column 'gold' holds different answers for task {coded.tasks[task]} "
                f"(row {row_of(gold, position)})."
            )
        known[task], told[task] = own, True
    return known


def gold_codes(coded: Coded) -> Codes:
    """Each task's known answer as a place in the categories, -1 where there is none."""
    answers = np.full(len(coded.tasks), -1, dtype=np.int32)
    if "gold" not in coded.frame.columns:
        return answers
    codes, values = encode(coded.frame["gold"], "gold", missing=True)
    known = codes >= 0
    if not known.any():
        return answers
    gold = coded.categories.get_indexer(values).astype(np.int32)[codes[known]]
    answers[coded.task[known]] = gold
    differs = answers[coded.task[known]] != gold
    if differs.any():
        where = int(np.flatnonzero(known)[first_of(differs)])
        raise BadJudgments(
            f"The column 'gold' holds different answers for task {coded.tasks[coded.task[where]]} "
            f"(row {row_of(coded.frame, where)})."
        )
    return answers
