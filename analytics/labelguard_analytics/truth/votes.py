"""Judgments in the form in which truth is inferred from them: shards of whole tasks with sparse counts.

The E-step needs all votes of a task together and nothing of any other task, so tasks are cut into shards whose
tables stay small whatever the number of judgments, and what the M-step needs is added up over shards.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
from scipy import sparse

from labelguard_analytics.frames import Coded

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.integer[Any]]
Repeats = Literal["share", "count"]
"""What several judgments of one annotator on one task are worth: one vote shared, or one vote each."""

SHARD_CELLS = 200_000
"""Tasks times labels in a shard: a table of 1.6 MB, which stays in the cache."""

_Out = TypeVar("_Out")


@dataclass(frozen=True)
class Shard:
    """The votes of some whole tasks, sorted by task and label."""

    first: int
    """The first task."""
    last: int
    """The task after the last."""
    annotator: Ints
    label: Ints
    task: Ints
    """Counted from the shard's first task."""
    weight: Floats
    cell: Ints
    """For each vote, its distinct pair of task and label."""
    cell_task: Ints
    cell_label: Ints
    gold: Ints
    """Each task's known label, -1 where it is not known."""
    most: int
    """The judgments of the task that has most."""

    @property
    def tasks(self) -> int:
        """The number of tasks."""
        return self.last - self.first

    def matrix(self, rows: Ints, columns: Ints, shape: tuple[int, int]) -> sparse.csr_matrix:
        """A sparse matrix with the weights of the votes; rows must not decrease."""
        pointers = np.searchsorted(rows, np.arange(shape[0] + 1)).astype(np.int32)
        return sparse.csr_matrix((self.weight, columns.astype(np.int32), pointers), shape=shape)

    def shares(self, labels: int) -> Floats:
        """Each label's share of each task's votes, with known answers in place of votes (tasks x labels)."""
        counts = np.bincount(self.task * labels + self.label, self.weight, self.tasks * labels)
        table: Floats = counts.astype(np.float64).reshape(self.tasks, labels)
        table /= table.sum(axis=1, keepdims=True)
        set_known(table, self.gold)
        return table


def set_known(table: Floats, gold: Ints) -> None:
    """Give known answers the probability 1, in place."""
    known = np.flatnonzero(gold >= 0)
    if len(known):
        table[known] = 0.0
        table[known, gold[known]] = 1.0


class Votes:
    """All votes, cut into shards of whole tasks."""

    def __init__(self, coded: Coded, *, gold: Ints | None = None, repeats: Repeats = "share", threads: int = 1) -> None:
        self.tasks = len(coded.tasks)
        self.annotators = len(coded.annotators)
        self.labels = max(len(coded.categories), 1)
        self.threads = threads
        task, annotator, label = (array.astype(np.int64) for array in (coded.task, coded.annotator, coded.value))
        weight = np.ones(len(task)) if repeats == "count" else voices(task, annotator, self.annotators)
        order = np.argsort(task * self.labels + label, kind="stable")
        task, annotator, label, weight = task[order], annotator[order], label[order], weight[order]
        known = np.full(self.tasks, -1, dtype=np.int64) if gold is None else gold.astype(np.int64)
        self.order = order
        """Row of the frame of each vote, over all shards."""
        self.gold = known
        self.given = np.bincount(annotator, weight, self.annotators)
        """Each annotator's votes."""
        self.used = np.bincount(annotator * self.labels + label, minlength=self.annotators * self.labels) > 0
        self.used = self.used.reshape(self.annotators, self.labels)
        """Which labels each annotator used (annotators x labels)."""
        step = max(1, SHARD_CELLS // self.labels)
        self.shards: list[Shard] = []
        for first in range(0, self.tasks, step):
            last = min(first + step, self.tasks)
            low, high = np.searchsorted(task, [first, last])
            own, labels = task[low:high] - first, label[low:high]
            cell_of, cell_first = cells(own * self.labels + labels)
            self.shards.append(
                Shard(
                    first,
                    last,
                    annotator[low:high],
                    labels,
                    own,
                    weight[low:high],
                    cell_of,
                    own[cell_first],
                    labels[cell_first],
                    known[first:last],
                    int(np.bincount(own).max(initial=0)),
                )
            )

    @property
    def majority(self) -> Floats:
        """Each label's share of the votes of each task (tasks x labels), known answers included."""
        return np.concatenate([shard.shares(self.labels) for shard in self.shards])

    def total(self, work: Callable[[int], tuple[Any, ...]]) -> list[Any]:
        """The sums over all shards of what ``work`` gives for each, without keeping what is summed."""

        def part(numbers: range) -> list[Any]:
            sums = list(work(numbers[0]))
            for number in numbers[1:]:
                for place, value in enumerate(work(number)):
                    sums[place] += value
            return sums

        threads = min(self.threads, len(self.shards))
        if threads == 1:
            return part(range(len(self.shards)))
        with ThreadPoolExecutor(threads) as pool:
            parts = list(pool.map(part, [range(first, len(self.shards), threads) for first in range(threads)]))
        return [sum(values[1:], values[0]) for values in zip(*parts, strict=True)]

    def each(self, work: Callable[[int], _Out]) -> list[_Out]:
        """Do something for every shard, in as many threads as were asked for."""
        numbers = range(len(self.shards))
        if self.threads > 1 and len(self.shards) > 1:
            with ThreadPoolExecutor(self.threads) as pool:
                return list(pool.map(work, numbers))
        return [work(number) for number in numbers]


def voices(task: Ints, annotator: Ints, annotators: int) -> Floats:
    """One vote for each annotator on each task, shared by the judgments they made on it."""
    key = task * max(annotators, 1) + annotator
    ordered = np.sort(key)
    if not bool(np.any(ordered[1:] == ordered[:-1])):
        return np.ones(len(key))
    _, place, times = np.unique(key, return_inverse=True, return_counts=True)
    share: Floats = 1.0 / times[place]
    return share


def cells(key: Ints) -> tuple[Ints, Ints]:
    """For sorted keys, the number of each one's group, and where groups begin."""
    if not len(key):
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    new = np.concatenate([[True], key[1:] != key[:-1]])
    return np.cumsum(new) - 1, np.flatnonzero(new)
