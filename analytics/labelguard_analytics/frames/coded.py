"""Judgments as integer codes."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import coo_array

from labelguard_analytics.frames.columns import (
    encode,
    numbers_of,
)
from labelguard_analytics.frames.errors import BadJudgments
from labelguard_analytics.frames.gold import gold_codes
from labelguard_analytics.frames.terms import Codes, Floats, Kind


@dataclass(frozen=True)
class Coded:
    """Judgments as integer codes; row ``i`` of every array is the same judgment.

    >>> from labelguard_analytics.frames import read
    >>> frame = pd.DataFrame({"task": [7, 7, 9], "annotator": ["ann", "bob", "ann"], "value": ["x", "y", "y"]})
    >>> coded = read(frame)
    >>> coded.task.tolist(), coded.annotator.tolist(), coded.value.tolist()
    ([0, 0, 1], [0, 1, 0], [0, 1, 1])
    >>> list(coded.tasks), list(coded.annotators), list(coded.categories)
    ([7, 9], ['ann', 'bob'], ['x', 'y'])
    """

    kind: Kind
    task: Codes
    """Each judgment's place in ``tasks``."""
    annotator: Codes
    """Each judgment's place in ``annotators``."""
    value: npt.NDArray[Any]
    """``nominal``: int32 places in ``categories``; ``set``: int32 places in ``sets``; ``number``: float64;
    ``result``: an object array of lists of result items; ``any``: an object array."""
    tasks: pd.Index[Any]
    """Every task once, sorted."""
    annotators: pd.Index[Any]
    """Every annotator once, sorted."""
    categories: pd.Index[Any]
    """The labels of ``value`` and ``gold``, sorted, or in the order of a categorical column, which also names
    labels that nobody used; empty for ``number`` and ``result``."""
    sets: tuple[tuple[int, ...], ...] = ()
    """For ``set``: every distinct set of labels, as sorted places in ``categories``."""
    ordered: bool = False
    """Whether the order of ``categories`` means something: numbers, and ordered categorical columns."""
    frame: pd.DataFrame = field(default_factory=pd.DataFrame, repr=False)
    """The rows that count, in the order of the arrays; without columns when made from ready codes."""

    @property
    def n(self) -> int:
        """The number of judgments."""
        return len(self.task)

    @cached_property
    def order(self) -> Codes | None:
        """The rows sorted by task (stable); None where they are already."""
        if bool(np.all(self.task[1:] >= self.task[:-1])):
            return None
        # A sparse matrix is sorted by counting, which takes a tenth of the time of an argsort.
        rows = np.arange(self.n, dtype=np.int32)
        table = coo_array((rows, (self.task, rows)), shape=(len(self.tasks), self.n))
        return np.asarray(table.tocsr().indices, dtype=np.int32)

    @cached_property
    def in_order(self) -> tuple[Codes, npt.NDArray[Any]]:
        """Tasks and values, the judgments of a task next to each other."""
        return (self.task, self.value) if self.order is None else (self.task[self.order], self.value[self.order])

    @cached_property
    def sizes(self) -> npt.NDArray[np.intp]:
        """The number of judgments of each task."""
        return np.bincount(self.task, minlength=len(self.tasks))

    @cached_property
    def starts(self) -> npt.NDArray[np.intp]:
        """Where each task begins in ``order``; one more entry than tasks."""
        return np.concatenate([[0], np.cumsum(self.sizes)])

    def membership(self) -> npt.NDArray[np.bool_]:
        """For ``set``: which labels each distinct set holds (distinct sets x categories)."""
        table = np.zeros((len(self.sets), len(self.categories)), dtype=bool)
        for row, members in enumerate(self.sets):
            table[row, list(members)] = True
        return table

    def group(self, column: str) -> tuple[Codes, pd.Index[Any]]:
        """Codes of another column and what they stand for; -1 where a row has none."""
        return encode(self.frame[column], column, missing=True)

    def numbers(self, column: str) -> Floats:
        """Another column as numbers; NaN where a row has none."""
        return numbers_of(self.frame[column], column, missing=True)

    def gold(self) -> Codes:
        """For ``nominal``: each task's known answer as its place in ``categories``, -1 where there is none.

        Raises:
            BadJudgments: two rows of a task have different gold.
        """
        return gold_codes(self)


def from_codes(
    task: npt.ArrayLike, annotator: npt.ArrayLike, value: npt.ArrayLike, categories: int | None = None
) -> Coded:
    """Judgments from arrays of ready integer codes, each from 0 without holes; nothing but their range is checked.

    >>> from_codes([0, 0, 1], [0, 1, 0], [1, 1, 0]).n
    3

    Args:
        task: a code for each judgment.
        annotator: a code for each judgment.
        value: a code for each judgment.
        categories: how many labels there are, where some may be unused.

    Raises:
        BadJudgments: the arrays differ in length, are no integers, or a code is negative or too large.
    """
    arrays: list[Codes] = []
    for name, codes in (("task", task), ("annotator", annotator), ("value", value)):
        array = np.asarray(codes)
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise BadJudgments(f"{name} must be a one-dimensional array of integer codes, not {array.dtype}.")
        if array.size and int(array.min()) < 0:
            raise BadJudgments(f"{name} has a negative code at position {int(array.argmin())}.")
        arrays.append(array.astype(np.int32, copy=False))
    if len({len(array) for array in arrays}) != 1:
        raise BadJudgments("task, annotator and value must have the same length.")
    tasks, annotators, labels = (int(array.max()) + 1 if array.size else 0 for array in arrays)
    if categories is not None and labels > categories:
        raise BadJudgments(f"value has the code {labels - 1}, but there are only {categories} categories.")
    return Coded(
        "nominal",
        arrays[0],
        arrays[1],
        arrays[2],
        pd.RangeIndex(tasks),
        pd.RangeIndex(annotators),
        pd.RangeIndex(labels if categories is None else categories),
        ordered=True,
    )
