"""Patterns in the order of somebody's labels that the order of the items does not explain."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from labelguard_analytics.duration.sessions import find_sessions
from labelguard_analytics.frames import Coded, read
from labelguard_analytics.systematic.exchange import Z95, upper_tail
from labelguard_analytics.systematic.findings import Findings, conclude, too_little

Ints = npt.NDArray[np.int64]
LAGS = 6
BLOCK = 200
"""Judgments within which an annotator's answers to alike items may stand in any order."""

NEARLY = 0.8
"""A shorter period is told if it explains this part of what the best one does."""
AROUND = 3
"""Judgments before and after that tell whether items are sorted."""


def order_patterns(
    judgments: pd.DataFrame | Coded,
    *,
    tolerance: float = 0.05,
    level: float = 0.1,
    min_judgments: int = 50,
    session_gap: float = 30.0,
) -> Findings:
    """Find annotators whose labels repeat, alternate or cycle (a-b-c-a-b-c) whatever the items are.

    Items may be sorted, so that the same label is right many times in a row. Therefore only the order **within** alike
    items is looked at: within 200 judgments of an annotator, those with the same consensus of others (or known answer)
    and with the same consensus on most of the six judgments around. If labels follow from items, the labels given to
    such a group could stand in any order. Each label is compared with the one given 1 to 6 judgments before in the same
    session, against how often they would be equal in a random order; the sum of the differences is a martingale, whose
    variance is known. Slow changes (learning, other items) stay within the 200 and within ``tolerance``.

    Without the column ``at``, the order of the frame is taken for the order of work.

    >>> rng = np.random.default_rng(6)
    >>> labels = np.array(["ham", "news", "spam"])
    >>> frame = pd.DataFrame({"task": np.repeat(np.arange(300), 3), "annotator": ["ann", "bob", "eve"] * 300})
    >>> right = np.repeat(np.sort(rng.choice(labels, 300)), 3)
    >>> frame["value"] = np.where(rng.random(900) < 0.85, right, rng.choice(labels, 900))
    >>> cycled = (frame["annotator"] == "eve") & (frame["task"] < 90)
    >>> frame.loc[cycled, "value"] = np.tile(labels, 30)
    >>> found = order_patterns(frame)
    >>> found.discovered, found.table.loc[0, "pattern"]
    (('eve',), "'ham' - 'news' - 'spam'")

    Args:
        judgments: columns ``task``, ``annotator``, ``value`` (a label), optionally ``at`` and ``gold``.
        tolerance: the share of judgments by which equal labels may be too many (or too few) in honest work.
        level: the false discovery rate over annotators.
        min_judgments: judgments with a consensus of others that an annotator needs.
        session_gap: minutes without a judgment after which a new session begins.

    Returns:
        A row for each annotator: ``kind`` (runs, alternation or cycle), ``lag``, ``pattern`` (the labels that are
        repeated most), ``longest`` (judgments in the longest stretch of it), ``effect`` (equal labels beyond
        expectation, as a share of the pairs compared) with ``low`` to ``high``, ``expected`` (share of equal labels),
        ``judgments`` (pairs compared), and what :class:`Findings` says. ``p`` counts all lags and both directions.

    Raises:
        BadJudgments: the frame is not what it must be.
        ValueError: an argument is not what it must be.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, but it is {level!r}.")
    if not 0 <= tolerance < 1:
        raise ValueError(f"tolerance must be at least 0 and below 1, but it is {tolerance!r}.")
    if min_judgments < 1:
        raise ValueError(f"min_judgments must be at least 1, but it is {min_judgments!r}.")
    coded = read(judgments)
    sessions = find_sessions(coded, session_gap)
    order = sessions.order
    line = _Line(
        coded.annotator[order].astype(np.int64),
        sessions.session[order],
        sessions.place[order],
        coded.value[order].astype(np.int64),
        _consensus(coded)[order],
        len(coded.annotators),
        max(len(coded.categories), 1),
    )
    return conclude(
        _table(coded, line, tolerance, min_judgments),
        ["annotator"],
        level,
        _describe,
        what="annotators",
        nothing="none has labels whose order the items do not explain",
        advice="Look at this stretch with them, and take its judgments again before they are used.",
    )


@dataclass(frozen=True)
class _Line:
    """Judgments sorted by annotator and time."""

    who: Ints
    session: Ints
    place: Ints
    value: Ints
    consensus: Ints
    """-1 where there is none."""
    people: int
    labels: int

    def groups(self) -> Ints:
        """Alike judgments of one annotator within a block, numbered; -1 where there is no consensus."""
        near = self._near()
        # The label that at least half of the neighbours have.
        votes = np.where(near < 0, 0, (near[:, None] == near[None]).sum(axis=1))
        lead = votes.argmax(axis=0)[None]
        most, label = (np.take_along_axis(table, lead, axis=0)[0] for table in (votes, near))
        around = np.where(most >= AROUND, label, self.labels)
        key = (self.who * (int(self.place.max(initial=0)) // BLOCK + 1) + self.place // BLOCK) * self.labels
        key = (key + self.consensus) * (self.labels + 1) + around
        _, codes = np.unique(key, return_inverse=True)
        return np.where(self.consensus >= 0, codes, -1)

    def _near(self) -> Ints:
        """The consensus of the three judgments before and after in the session; -1 where there is none."""
        near = np.full((2 * AROUND, len(self.who)), -1)
        for step in range(1, AROUND + 1):
            same = self.session[step:] == self.session[:-step]
            near[step - 1, step:][same] = self.consensus[:-step][same]
            near[AROUND + step - 1, :-step][same] = self.consensus[step:][same]
        return near


def _consensus(coded: Coded) -> Ints:
    """The known answer, else the label that most others gave the task; -1 where others give none or a tie."""
    labels = max(len(coded.categories), 1)
    task, value = coded.task.astype(np.int64), coded.value.astype(np.int64)
    cells, counts = np.unique(task * labels + value, return_counts=True)
    of_task = cells // labels
    order = np.lexsort((-counts, of_task))
    first = np.searchsorted(of_task[order], np.arange(len(coded.tasks) + 1))
    number = np.diff(first)
    best, votes = np.full((3, len(number)), -1), np.zeros((3, len(number)), dtype=np.int64)
    for rank in range(3):
        there = number > rank
        at = order[first[:-1][there] + rank]
        best[rank, there], votes[rank, there] = cells[at] % labels, counts[at]
    left = votes[:, task] - (best[:, task] == value)
    lead = left.argmax(axis=0)
    most = left[lead, np.arange(coded.n)]
    tied = (left == most).sum(axis=0) > 1
    found = np.where((most > 0) & ~tied, best[lead, task], -1)
    gold = coded.gold().astype(np.int64)[coded.task]
    return np.where(gold >= 0, gold, found)


def _table(coded: Coded, line: _Line, tolerance: float, least: int) -> pd.DataFrame:
    group = line.groups()
    known = group >= 0
    size = np.bincount(group[known])
    cells, counts = np.unique(group[known] * line.labels + line.value[known], return_counts=True)
    people = line.people
    n, total, variance, third, even = (np.zeros((LAGS, people)) for _ in range(5))
    for lag in range(1, LAGS + 1):
        at = np.flatnonzero(known[lag:] & (line.session[lag:] == line.session[:-lag])) + lag
        earlier = line.value[at - lag]
        same = (group[at] == group[at - lag]).astype(np.int64)
        others = size[group[at]] - same
        use = others > 0
        at, earlier, same, others = at[use], earlier[use], same[use], others[use]
        key = group[at] * line.labels + earlier
        spot = np.minimum(np.searchsorted(cells, key), max(len(cells) - 1, 0))
        there = np.where(cells[spot] == key, counts[spot], 0) if len(cells) else np.zeros(0)
        p = np.maximum(there - same, 0) / others
        equal = (line.value[at] == earlier).astype(np.float64)
        who = line.who[at]
        sums = (None, equal - p, p * (1 - p), p * (1 - p) * (1 - 2 * p), p)
        n[lag - 1], total[lag - 1], variance[lag - 1], third[lag - 1], even[lag - 1] = (
            np.bincount(who, values, people) for values in sums
        )
    spread = np.sqrt(variance)
    # More equal labels at each lag, or fewer at lag 1: seven tests.
    p = np.vstack(
        [
            upper_tail(total - tolerance * n - 0.5, variance, third),
            upper_tail(-total[:1] - tolerance * n[:1] - 0.5, variance[:1], -third[:1]),
        ]
    )
    best = p.argmin(axis=0)
    chosen = _shortest(np.where(best == LAGS, 0, best), total / np.maximum(n, 1))
    place = (chosen, np.arange(people))
    judged = n[0]
    enough = judged >= least
    pairs = np.maximum(n[place], 1)
    effect, half = total[place] / pairs, Z95 * spread[place] / pairs
    kind = np.where(best == LAGS, "alternation", np.where(chosen == 0, "runs", "cycle"))
    starts = np.searchsorted(line.who, np.arange(people + 1))
    patterns = [
        _pattern(coded, line.value[starts[i] : starts[i + 1]], int(chosen[i]) + 1, str(kind[i]))
        if enough[i] and p[best[i], i] < 0.01
        else ("", 0)
        for i in range(people)
    ]
    return pd.DataFrame(
        {
            "annotator": coded.annotators,
            "kind": np.where(enough, kind, ""),
            "lag": chosen + 1,
            "pattern": [text for text, _ in patterns],
            "longest": [length for _, length in patterns],
            "effect": np.where(enough, effect, np.nan),
            "low": np.where(enough, effect - half, np.nan),
            "high": np.where(enough, effect + half, np.nan),
            "expected": np.where(enough, even[place] / pairs, np.nan),
            "p": np.where(enough, np.minimum(1.0, p.min(axis=0) * len(p)), np.nan),
            "judgments": np.where(enough, n[place], judged).astype(np.int64),
            "reason": [
                "" if fine else too_little(int(count), "judgment with a consensus of others", least)
                for fine, count in zip(enough, judged, strict=True)
            ],
        }
    )


def _shortest(lag: Ints, effect: npt.NDArray[np.float64]) -> Ints:
    """A cycle of three is one of six too: the shortest that explains nearly as much."""
    found = lag.copy()
    for shorter in range(LAGS - 1, -1, -1):
        fits = ((lag + 1) % (shorter + 1) == 0) & (effect[shorter] >= NEARLY * effect[lag, np.arange(len(lag))])
        found[fits] = shorter
    return found


def _pattern(coded: Coded, said: Ints, lag: int, kind: str) -> tuple[str, int]:
    """The labels repeated most, and the length of the longest stretch of the pattern."""
    fits = said[lag:] != said[:-lag] if kind == "alternation" else said[lag:] == said[:-lag]
    longest = _longest(fits)
    if kind == "alternation":
        return "", longest + 1 if longest else 0
    # Cut into stretches of one period, of which each repeats the one before; rotations are the same cycle.
    seen: Counter[tuple[int, ...]] = Counter()
    for start in range(len(said) - 2 * lag + 1):
        if fits[start : start + lag].all():
            turn = said[start : start + lag].tolist()
            seen[min(tuple(turn[i:] + turn[:i]) for i in range(lag))] += 1
    varied = [(many, turn) for turn, many in seen.items() if lag == 1 or len(set(turn)) > 1]
    if not varied:
        return "", longest + lag if longest else 0
    _, turn = max(varied, key=lambda pair: (pair[0], pair[1]))
    return " - ".join(repr(_plain(coded.categories[label])) for label in turn), longest + lag


def _plain(label: Any) -> Any:
    return label.item() if isinstance(label, np.generic) else label


def _longest(fits: npt.NDArray[np.bool_]) -> int:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], fits.astype(np.int8), [0]])))
    return int((edges[1::2] - edges[::2]).max(initial=0))


def _describe(row: pd.Series[Any]) -> str:
    what = {
        "runs": "repeats the label before",
        "alternation": "changes the label",
        "cycle": f"repeats the label {row['lag']} judgments before",
    }[row["kind"]]
    text = (
        f"{row['annotator']} {what} in {abs(row['effect']):.0%} more of {row['judgments']:,} judgments than the items "
        f"explain (95% interval {min(abs(row['low']), abs(row['high'])):.0%} to "
        f"{max(abs(row['low']), abs(row['high'])):.0%})"
    )
    if row["pattern"]:
        text += f", most often {row['pattern']}"
    return f"{text}, in a stretch of up to {row['longest']} judgments"
