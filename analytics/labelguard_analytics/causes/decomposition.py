"""How much of a change comes from other items, from other annotators, and from annotators who behave differently."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from labelguard_analytics.causes.components import PARTS, Influence, Mixture, shapley
from labelguard_analytics.causes.measures import agreement_with_others, mean_of_others
from labelguard_analytics.causes.periods import Period, split
from labelguard_analytics.estimate import Estimate
from labelguard_analytics.frames import BadJudgments, Codes, Floats, encode, kind_of, read

Measure: TypeAlias = Literal["shares", "agreement"]

ENOUGH = 50
"""The judgments of comparable items that each period needs for a basis to be chosen."""
_ANNOTATORS = 3
"""The annotators who judged comparable items in both periods that behaviour needs."""
_TASKS = 20
"""The tasks that each period needs for intervals."""
AGREEMENT, CORRECTED = "agreement", "chance-corrected agreement"


@dataclass(frozen=True)
class Decomposition:
    """A change between two periods and its parts, which add up to it exactly.

    All numbers are differences of shares: 0.1 is ten points. Intervals are 95%.
    """

    change: pd.DataFrame
    """Indexed by what changed (labels, or kinds of agreement): ``before``, ``after``, ``change``, ``low``, ``high``."""
    parts: pd.DataFrame
    """A row for each part of each change: ``of``, ``part``, ``value``, ``low``, ``high``, ``p`` (two-sided, against
    no part at all), ``reason`` where there is no interval. Parts that the data cannot tell apart are one row, such as
    'items or behaviour'."""
    items: pd.DataFrame
    """The kinds of items that ``basis`` tells: their share of the judgments ``before`` and ``after``."""
    identified: bool
    """Whether the data tell items, annotators and behaviour apart."""
    reason: str
    """Why not, and what would help; empty where they do."""
    basis: tuple[str, ...]
    """What says that items of both periods are alike: columns, or ``task``; empty where nothing does."""
    measure: Measure
    """What was decomposed."""
    n_tasks: int
    n_judgments: int
    too_little: str = ""
    """Why there are no intervals, as a sentence; empty where there are."""

    def estimate(self, part: str, of: Any) -> Estimate:
        """One part with its interval; without a value where it cannot be told from another.

        Args:
            part: 'items', 'annotators', 'behaviour', or a name in ``parts``.
            of: a label, or the kind of agreement.

        Raises:
            KeyError: there is no such part, or nothing of that name changed.
        """
        if of not in self.change.index:
            raise KeyError(f"There is no change of {of!r}; there are {list(self.change.index)}.")
        rows = self.parts[(self.parts["of"] == of) & (self.parts["part"] == part)]
        if rows.empty:
            if part not in PARTS:
                raise KeyError(f"There is no part {part!r}; there are {list(dict.fromkeys(self.parts['part']))}.")
            return Estimate(np.nan, np.nan, np.nan, self.n_tasks, self.n_judgments, self.reason)
        row = rows.iloc[0]
        low, high = float(row["low"]), float(row["high"])
        return Estimate(float(row["value"]), low, high, self.n_tasks, self.n_judgments, str(row["reason"]))

    def explain(self, of: Any = None) -> str:
        """The result in two or three plain sentences.

        Args:
            of: the label or kind of agreement to tell; what changed most if left out.
        """
        moves = self.change["change"].to_numpy(dtype=np.float64)
        name = self.change.index.tolist()[int(np.abs(moves).argmax())] if of is None else of
        start, end, move = (float(one) for one in self.change.loc[name].to_numpy()[:3])
        what = str(name) if self.measure == "agreement" else f"the share of {name!r}"
        moved = f"rose by {move * 100:.1f} points" if move > 0 else f"fell by {-move * 100:.1f} points"
        first = f"{what[0].upper()}{what[1:]} {moved if move else 'stayed'}, from {start:.3f} to {end:.3f}."
        told = [
            f"{_SAYS.get(part, part)} {value * 100:+.1f} points{_interval(low, high)}"
            for part, value, low, high in self.parts.loc[
                self.parts["of"] == name, ["part", "value", "low", "high"]
            ].itertuples(index=False)
        ]
        second = f"Of this, {', '.join(told[:-1])} and {told[-1]}." if len(told) > 1 else f"{told[0].capitalize()}."
        return " ".join(text for text in (first, second, self.reason, self.too_little) if text)


_SAYS = {
    "items": "different items make",
    "annotators": "a different mix of annotators makes",
    "behaviour": "the same annotators behaving differently make",
}


def _interval(low: float, high: float) -> str:
    if np.isnan(low):
        return ""
    chance = ", which may be chance" if low <= 0 <= high else ""
    return f" ({low * 100:+.1f} to {high * 100:+.1f}{chance})"


def decompose_change(
    judgments: pd.DataFrame,
    *,
    at: Any = None,
    before: Period = None,
    after: Period = None,
    measure: Measure = "shares",
    items: str | Sequence[str] | None = None,
) -> Decomposition:
    """How much of a change comes from different items, from a different mix of annotators, and from behaviour.

    What is told from what rests on items that are alike in both periods. Known answers, tasks that were judged in
    both periods and the source of the items can say so; what the annotators themselves answered cannot, because a
    change that everybody makes looks like a change of the items. Where nothing says so, the two are one part, and
    ``reason`` tells what would help. Likewise nobody's behaviour can be followed where nobody judged in both periods.

    Judgments are explained by annotator, kind of item and period (see ``components``); the parts are Shapley's, and
    add up to the change exactly. Intervals take the tasks and the annotators for draws, and so clusters.

    >>> import itertools
    >>> frame = pd.DataFrame(itertools.product(range(200), ["ann", "bob", "cat", "dan"]), columns=["task", "annotator"])
    >>> frame["source"] = frame["task"].map(lambda task: "web" if task < 50 or 100 <= task < 180 else "mail")
    >>> frame["value"] = frame["source"].map({"web": "spam", "mail": "fine"})
    >>> found = decompose_change(frame, before=frame["task"] < 100, after=frame["task"] >= 100)
    >>> print(found.estimate("items", "spam"))
    0.300 (95% interval 0.180 to 0.420; 200 tasks, 800 judgments)
    >>> found.identified, found.basis
    (True, ('source',))
    >>> print(found.explain("spam"))
    The share of 'spam' rose by 30.0 points, ...

    Args:
        judgments: one label, or one list of labels, for each judgment.
        at: the date that separates the periods; needs the column ``at``.
        before: instead of ``at``, the first period: a mask, or a pair of dates (the second is not in it).
        after: and the second period.
        measure: ``shares`` of all labels, or ``agreement`` with the others of the task in the same period (the mean
            over judgments), plain and corrected for chance as Scott's pi is.
        items: what says that items are alike: columns such as ``gold`` or ``source``, also columns of your own, or
            ``task`` for tasks judged in both periods. Left out, the first of these that has enough judgments: gold
            (with source), task, source.

    Raises:
        BadJudgments: the frame is not what it must be.
        ValueError: the periods or the options are not what they must be.
    """
    if measure not in ("shares", "agreement"):
        raise ValueError(f"measure={measure!r} is unknown; there are 'shares' and 'agreement'.")
    columns = _columns(judgments, items)
    data = _read(judgments, split(judgments, at, before, after), columns)
    if measure == "agreement":
        data, outcomes, names = _agreement(data)
    else:
        outcomes, names = _labels(data), list(data.categories)
    stratum, comparable, kinds, basis = _basis(data, columns)
    return _decompose(data, measure, outcomes, names, _Items(stratum, comparable, kinds, basis))


@dataclass(frozen=True)
class _Data:
    """Judgments of both periods as codes; an annotator may have judged a task once in each."""

    after: npt.NDArray[np.bool_]
    task: Codes
    annotator: Codes
    value: Codes
    categories: pd.Index[Any]
    """The labels."""
    members: npt.NDArray[np.bool_]
    """Which labels each value holds: values x labels."""
    frame: pd.DataFrame

    def keep(self, rows: npt.NDArray[np.bool_]) -> _Data:
        """Some of the judgments."""
        return _Data(
            self.after[rows],
            _dense(self.task[rows]),
            _dense(self.annotator[rows]),
            self.value[rows],
            self.categories,
            self.members,
            self.frame[rows],
        )


@dataclass(frozen=True)
class _Items:
    """Kinds of items."""

    stratum: Codes
    comparable: npt.NDArray[np.bool_]
    kinds: list[str]
    basis: tuple[str, ...]


def _columns(judgments: pd.DataFrame, items: str | Sequence[str] | None) -> tuple[str, ...] | None:
    if items is None:
        return None
    columns = (items,) if isinstance(items, str) else tuple(items)
    if not columns:
        raise ValueError("items= names no column; leave it out to have one chosen.")
    for column in columns:
        if column in ("value", "annotator", "at"):
            raise ValueError(f"items={column!r} says nothing about the items: it is what may have changed itself.")
        if isinstance(judgments, pd.DataFrame) and column not in judgments.columns:
            raise BadJudgments(f"The column {column!r} is missing, which items= names.")
    return columns


def _read(judgments: pd.DataFrame, masks: tuple[npt.NDArray[np.bool_], ...], columns: tuple[str, ...] | None) -> _Data:
    kind = kind_of(judgments)
    if kind not in ("nominal", "set"):
        raise BadJudgments(
            "The column 'value' must hold labels or lists of labels to have shares; cut numbers into classes first."
        )
    parts = [read(judgments[mask], kind=kind, extra=("project", *(columns or ())), least=1) for mask in masks]
    frame = pd.concat([part.frame for part in parts])
    after = np.repeat([False, True], [part.n for part in parts])
    task, annotator = (encode(frame[column], column)[0] for column in ("task", "annotator"))
    categories = parts[0].categories.union(parts[1].categories, sort=None)
    if kind == "nominal":
        value = np.concatenate([categories.get_indexer(part.categories)[part.value] for part in parts])
        return _Data(
            after, task, annotator, value.astype(np.int32), categories, np.eye(len(categories), dtype=bool), frame
        )
    known: dict[frozenset[int], int] = {}
    places = []
    for part in parts:
        of = categories.get_indexer(part.categories)
        numbers = [known.setdefault(frozenset(of[list(one)].tolist()), len(known)) for one in part.sets]
        places.append(np.array(numbers, dtype=np.int32)[part.value])
    members = np.zeros((len(known), len(categories)), dtype=bool)
    for labels, row in known.items():
        members[row, list(labels)] = True
    return _Data(after, task, annotator, np.concatenate(places), categories, members, frame)


def _labels(data: _Data) -> list[Floats]:
    return [data.members[data.value, label].astype(np.float64) for label in range(len(data.categories))]


def _unit(data: _Data) -> npt.NDArray[np.int64]:
    """Whose judgments are compared: those of a task in one period."""
    return data.task.astype(np.int64) * 2 + data.after


def _agreement(data: _Data) -> tuple[_Data, list[Floats], list[Any]]:
    agreed = agreement_with_others(_unit(data), data.value)
    for late, name in ((False, "before"), (True, "after")):
        if not np.isfinite(agreed[data.after == late]).any():
            raise ValueError(f"No task has two judgments in the period {name!r}, so there is no agreement to compare.")
    there = np.isfinite(agreed)
    kept = data.keep(there)
    shares = [(kept.value == value).astype(np.float64) for value in range(len(data.members))]
    return kept, [agreed[there], *shares], [AGREEMENT, CORRECTED]


def _basis(
    data: _Data, columns: tuple[str, ...] | None
) -> tuple[Codes, npt.NDArray[np.bool_], list[str], tuple[str, ...]]:
    """The kinds of items, which of them are comparable, what they are called, and the columns that tell them."""
    there = [column for column in ("gold", "source") if column in data.frame.columns]
    options = (
        [columns] if columns else [tuple(there)] * ("gold" in there) + [("task",)] + [("source",)] * ("source" in there)
    )
    for option in options:
        stratum, comparable, kinds = _strata(data, option)
        alike = comparable[stratum]
        if min(int((alike & (data.after == late)).sum()) for late in (False, True)) >= ENOUGH:
            return stratum, comparable, kinds, option
    return np.zeros(len(data.after), dtype=np.int32), np.ones(1, dtype=bool), ["all items"], ()


def _strata(data: _Data, columns: tuple[str, ...]) -> tuple[Codes, npt.NDArray[np.bool_], list[str]]:
    code: npt.NDArray[np.integer[Any]] = np.zeros(len(data.after), dtype=np.int64)
    known = np.ones(len(code), dtype=bool)
    names = [""]
    for column in columns:
        own, values = encode(data.frame[column], column, missing=True)
        known &= own >= 0
        used, code = np.unique(code * len(values) + np.maximum(own, 0), return_inverse=True)
        pairs = [divmod(int(one), len(values)) for one in used]
        names = [f"{names[first]}, {values[second]}".removeprefix(", ") for first, second in pairs]
    sizes = [np.bincount(code[known & (data.after == late)], minlength=len(names)) for late in (False, True)]
    both = np.minimum(*sizes) > 0
    alone = known & ~both[code] & ("task" not in columns)
    # Items of one period alone stay kinds of their own, but for single tasks, and those of which nothing is known.
    rest = len(names) + data.after
    code = np.where(known & (both[code] | alone), code, rest)
    names += ["other items before", "other items after"]
    used = np.unique(code)
    comparable = np.append(both, [False, False])[used]
    return _dense(code), comparable, [names[one] for one in used.tolist()]


def _dense(codes: npt.NDArray[Any]) -> Codes:
    return np.asarray(np.unique(codes, return_inverse=True)[1], dtype=np.int32)


def _told(data: _Data, items: _Items) -> tuple[bool, bool, str]:
    """Whether items and annotators can be told from behaviour, and why not."""
    alike = items.comparable[items.stratum]
    people = [set(data.annotator[alike & (data.after == late)].tolist()) for late in (False, True)]
    stayed = len(people[0] & people[1])
    why = []
    if not items.basis:
        why.append(
            "Different items cannot be told from a change that everybody made: known answers (column 'gold'), "
            "tasks judged in both periods or the items' 'source' would tell, with at least "
            f"{ENOUGH} judgments in each period."
        )
    if stayed < _ANNOTATORS:
        why.append(
            f"Other annotators cannot be told from annotators behaving differently: {stayed} judged comparable items "
            f"in both periods, and {_ANNOTATORS} are needed."
        )
    return bool(items.basis), stayed >= _ANNOTATORS, " ".join(why)


def _decompose(data: _Data, measure: Measure, outcomes: list[Floats], names: list[Any], items: _Items) -> Decomposition:
    items_told, people_told, reason = _told(data, items)
    mixture = Mixture(data.after, data.annotator, items.stratum, items.comparable, data.task, None, people_told)
    of_pairs = mixture
    if measure == "agreement":
        others = mean_of_others(_unit(data), data.annotator, int(data.annotator.max()) + 1)
        of_pairs = replace(mixture, others=others)
    apart = np.array([items_told, people_told, items_told and people_told])
    if not (apart <= np.array(mixture.told)).all():
        apart &= np.array(mixture.told)
        untold = " or ".join(PARTS[part] for part in np.flatnonzero(~apart))
        reason = " ".join(
            filter(None, (reason, f"The data cannot tell {untold}: one goes with the other too closely."))
        )
    together = np.flatnonzero(~apart)
    merge = np.eye(3)
    if len(together):
        merge[:, together] = 0.0
        merge[together[-1], together] = 1.0
    shown = {int(part): PARTS[part] for part in np.flatnonzero(apart)}
    shown |= {int(part): " or ".join(PARTS[one] for one in together) for part in together[-1:]}
    fitted = [(mixture if number else of_pairs).fit(outcome) for number, outcome in enumerate(outcomes)]
    values = [merge @ value for value, _ in fitted]
    influences = [influence.mixed(merge) for _, influence in fitted]
    first = [float(outcome[~data.after].mean()) for outcome in outcomes]
    last = [float(outcome[data.after].mean()) for outcome in outcomes]
    if measure == "agreement":
        corrected = _Corrected(np.array(first), np.array(values))
        start = _start(data.after, outcomes)
        values = [values[0], corrected.parts]
        influences = [influences[0], corrected.influence(start, influences)]
        first, last = [first[0], corrected.before], [last[0], corrected.after]
    too_little = _too_little(data)
    changes, rows = [], []
    for name, value, influence, start_value, end in zip(names, values, influences, first, last, strict=True):
        every = influence.mixed(np.vstack([np.eye(3), np.ones((1, 3))]))
        error, freedom = mixture.spread(every)
        half = np.full(4, np.nan) if too_little else stats.t.ppf(0.975, freedom) * error
        total = end - start_value
        changes.append((start_value, end, total, total - half[3], total + half[3]))
        for part, label in sorted(shown.items()):
            low, high = value[part] - half[part], value[part] + half[part]
            p = np.nan if too_little else _p(value[part], error[part], freedom[part])
            rows.append((name, label, value[part], low, high, p, too_little))
    return Decomposition(
        pd.DataFrame(changes, index=pd.Index(names), columns=["before", "after", "change", "low", "high"]),
        pd.DataFrame(rows, columns=["of", "part", "value", "low", "high", "p", "reason"]),
        pd.DataFrame({"before": mixture.items[0], "after": mixture.items[1]}, index=pd.Index(items.kinds, name="kind")),
        bool(apart.all()),
        reason,
        items.basis,
        measure,
        int(data.task.max()) + 1,
        len(data.task),
        too_little,
    )


def _p(value: float, error: float, freedom: float) -> float:
    if error == 0:
        return 1.0 if value == 0 else 0.0
    return float(2 * stats.t.sf(abs(value) / error, freedom))


def _too_little(data: _Data) -> str:
    for late, name in ((False, "before"), (True, "after")):
        tasks = len(np.unique(data.task[data.after == late]))
        people = len(np.unique(data.annotator[data.after == late]))
        if tasks < _TASKS or people < _ANNOTATORS:
            return (
                f"Too little data for intervals: {tasks} tasks and {people} annotators {name}, where {_TASKS} and "
                f"{_ANNOTATORS} are needed."
            )
    return ""


def _start(after: npt.NDArray[np.bool_], outcomes: list[Floats]) -> list[Influence]:
    """How much each judgment moves the means of the first period; the first outcome is one of pairs."""
    found = []
    for number, outcome in enumerate(outcomes):
        own = np.where(after, 0.0, outcome - outcome[~after].mean())[None] / (~after).sum()
        found.append(Influence(own, own * (1.0 if number else 2.0)))
    return found


class _Corrected:
    """The parts of chance-corrected agreement: Shapley over the parts of agreement and of every share."""

    def __init__(self, first: Floats, parts: Floats) -> None:
        self._at = np.concatenate([first[None], parts.T])
        self.before = self._pi(first)
        self.after = self._pi(first + parts.sum(axis=1))
        self.parts = self._shapley(self._at)

    @staticmethod
    def _pi(means: Floats) -> float:
        chance = float(means[1:] @ means[1:])
        return float((means[0] - chance) / (1 - chance)) if chance < 1 else 1.0

    def _shapley(self, at: Floats) -> Floats:
        worth = np.zeros((2, 2, 2))
        for state in np.ndindex(2, 2, 2):
            worth[state] = self._pi(at[0] + np.array(state) @ at[1:])
        return shapley(worth)

    def influence(self, start: list[Influence], parts: list[Influence]) -> Influence:
        """By the delta method, with numerical derivatives by each mean and each of its parts."""
        total = None
        for outcome, (first, own) in enumerate(zip(start, parts, strict=True)):
            slopes = np.zeros((3, 4))
            for row in range(4):
                step = np.zeros_like(self._at)
                step[row, outcome] = 1e-5
                slopes[:, row] = (self._shapley(self._at + step) - self._shapley(self._at - step)) / 2e-5
            added = first.mixed(slopes[:, :1]).plus(own.mixed(slopes[:, 1:]))
            total = added if total is None else total.plus(added)
        assert total is not None  # noqa: S101 - agreement itself is the first outcome
        return total
