"""What the other annotators of a task said: the leave-one-out consensus that everybody is compared with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Votes:
    """Judgments as the labels they hold: ``label[i]`` is one label of judgment ``row[i]``.

    A judgment with one label has one entry, one with a set of labels has an entry for each, and an empty set none.
    """

    task: Ints
    """Each judgment's task, from 0 without holes."""
    row: Ints
    """Each entry's judgment, ascending."""
    label: Ints
    """Each entry's label; a judgment holds a label at most once."""
    tasks: int
    labels: int

    @property
    def single(self) -> bool:
        """Whether every judgment has exactly one label."""
        return len(self.row) == len(self.task) and bool(np.all(np.diff(self.row) == 1))


def of_others(votes: Votes, trusted: Flags | None = None) -> tuple[Ints, Flags]:
    """For each judgment, the label that most others gave its task, and whether all of them gave it.

    Ties go to the first label, so that the result does not depend on the order of judgments. Where there are no
    others, or none of them gave a label, the label is -1. Judgments that are not ``trusted`` get a consensus, but
    do not count for anybody else's.

    >>> votes = Votes(np.array([0, 0, 0, 1]), np.arange(4), np.array([1, 0, 0, 2]), tasks=2, labels=3)
    >>> label, agreed = of_others(votes)
    >>> label.tolist(), agreed.tolist()
    ([0, 0, 0, -1], [True, False, False, False])
    """
    judgments = len(votes.task)
    counted = np.ones(judgments, dtype=bool) if trusted is None else trusted
    voters = np.bincount(votes.task[counted], minlength=votes.tasks)
    entry_counts = counted[votes.row]
    key = votes.task[votes.row[entry_counts]] * votes.labels + votes.label[entry_counts]
    task, label, count = _tallies(key, votes.labels)
    start = np.searchsorted(task, np.arange(votes.tasks + 1))
    # Taking away the own labels can at most bring up the next one after as many as one has given.
    own = np.bincount(votes.row, minlength=judgments)
    width = np.minimum(np.where(counted, own, 0) + 1, np.diff(start)[votes.task])
    judged = np.repeat(np.arange(judgments), width)
    within = np.arange(len(judged)) - np.repeat(np.cumsum(width) - width, width)
    entry = start[votes.task[judged]] + within
    left = count[entry] - (counted[judged] & _holds(votes, judged, label[entry]))
    # The most votes first, then the first label.
    rank = left * votes.labels + (votes.labels - 1 - label[entry])
    best = np.full(judgments, -1, dtype=np.int64)
    some = width > 0
    if some.any():
        best[some] = np.maximum.reduceat(rank, (np.cumsum(width) - width)[some])
    got = best // max(votes.labels, 1)
    found = np.where(got > 0, votes.labels - 1 - best % max(votes.labels, 1), -1)
    return found, (got > 0) & (got == voters[votes.task] - counted)


def _tallies(key: Ints, labels: int) -> tuple[Ints, Ints, Ints]:
    """Task, label and number of votes, by task, with the most votes first and then the first label."""
    ordered = np.sort(key)
    first = np.flatnonzero(np.diff(ordered, prepend=-1))
    count = np.diff(first, append=len(ordered))
    task, label = np.divmod(ordered[first], max(labels, 1))
    most = int(count.max(initial=0))
    packed = np.sort((task * (most + 1) + (most - count)) * max(labels, 1) + label)
    rest, label = np.divmod(packed, max(labels, 1))
    task, missing = np.divmod(rest, most + 1)
    return task, label, most - missing


def _holds(votes: Votes, judged: Ints, label: Ints) -> Flags:
    """Whether the judgment holds the label."""
    if votes.single:
        return np.asarray(votes.label[judged] == label)
    return np.isin(judged * votes.labels + label, votes.row * votes.labels + votes.label)
