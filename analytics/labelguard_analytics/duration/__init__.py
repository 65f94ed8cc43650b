"""How long a judgment should take: the annotator's pace, the task's difficulty, learning and fatigue.

:func:`duration_model` fits log time as a sum, so that all effects are factors of time. What is left over tells which
judgments were too fast or too slow for this annotator on this task.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from labelguard_analytics.duration.fit import Design, Fit, fit
from labelguard_analytics.duration.sessions import Sessions, find_sessions
from labelguard_analytics.frames import BadJudgments, Coded, Floats, read

LEAST = 30
"""Judgments with a duration below which nothing is fitted."""
FEW = 10
"""Judgments below which an annotator gets no intervals."""
MOST_RATE = 0.25
Z95 = 1.959964


@dataclass(frozen=True)
class DurationModel:
    """Paces, difficulties and what is out of the ordinary."""

    annotators: pd.DataFrame
    """Indexed by annotator: ``judgments``; ``speed`` (time as a multiple of what is typical on the same tasks: 0.5 is
    twice as fast), ``learning`` (change of time for each doubling of experience, -0.1 is 10% faster), ``fatigue``
    (change of time for each hour within a session), each with its 95% interval ``..._low`` to ``..._high``;
    ``spread`` (a typical judgment lies within this factor of the expected time); ``too_fast`` and ``too_slow``
    (judgments) and ``too_fast_share``; ``reason`` why numbers are missing, ``fatigue_reason`` why
    fatigue is."""
    tasks: pd.DataFrame
    """Indexed by task: ``judgments``, ``difficulty`` (time as a multiple of the typical task's, for equal covariates)
    with its 95% interval ``low`` to ``high``. Drawn to 1 where a task has few judgments."""
    judgments: pd.DataFrame
    """The rows of the frame that have a duration: ``seconds``, ``expected`` (had the judgment not been there itself),
    ``z`` (distance on the log scale in standard deviations), ``too_fast``, ``too_slow``."""
    effects: pd.DataFrame
    """Indexed by covariate, and ``learning`` and ``fatigue`` on average over annotators: ``factor`` of time for one
    unit (a doubling of experience; an hour) with its 95% interval ``low`` to ``high``."""
    error_rate: float
    """The share of honest judgments that may be called too fast; the same for too slow."""
    limits: tuple[float, float]
    """Below the first ``z`` a judgment is too fast, above the second too slow."""
    reason: str = ""
    """Why nothing can be said, as a sentence; empty when something can."""
    _state: _State | None = field(default=None, repr=False)

    def expect(self, judgments: pd.DataFrame) -> pd.DataFrame:
        """What the next judgments of these annotators should take.

        They are taken to come after all that the model knows, at the start of a session. An annotator or a task
        that the model does not know is a typical one, with a wider range. The range also allows for how
        one session of an annotator differs from another.

        Args:
            judgments: columns ``task``, ``annotator`` and the covariates, and optionally ``duration``.

        Returns:
            Indexed as the frame: ``expected`` seconds and the limits ``low`` and ``high``; where there is a
            duration also ``z``, ``too_fast`` and ``too_slow``.

        Raises:
            BadJudgments: a column is missing or holds what it must not.
            ValueError: the model has too little data.
        """
        if self._state is None:
            raise ValueError(self.reason)
        return _expect(self._state, self.limits, judgments)

    def explain(self) -> str:
        """The result in two plain sentences."""
        if self.reason:
            return self.reason
        known = self.annotators[self.annotators["reason"] == ""]
        fast, slow = int(self.judgments["too_fast"].sum()), int(self.judgments["too_slow"].sum())
        first = (
            f"{len(self.judgments):,} judgments took {self.judgments['seconds'].median():.3g} s in the middle; on the "
            f"same tasks "
        )
        if len(known) > 1:
            ordered = known.sort_values("speed")
            first += (
                f"the fastest annotator, {ordered.index[0]}, takes {ordered['speed'].iloc[0]:.2f} times as long as is "
                f"typical and the slowest, {ordered.index[-1]}, {ordered['speed'].iloc[-1]:.2f} times"
            )
        else:
            first += "too few annotators can be compared"
        learning = self.effects.loc["learning"] if "learning" in self.effects.index else None
        if learning is not None:
            first += f", and each doubling of experience changes the time by {learning['factor'] - 1:+.1%}"
        second = (
            f"{fast:,} judgments were too fast and {slow:,} too slow for their annotator and task, where at most "
            f"{self.error_rate:.1%} each are expected of honest work"
        )
        flagged, made = self.annotators["too_fast"].to_numpy(), self.annotators["judgments"].to_numpy()
        # Named is whose share is surely above the rate (Clopper and Pearson 1934).
        sure = np.where(flagged > 0, stats.beta.ppf(0.025, np.maximum(flagged, 1), made - flagged + 1), 0.0)
        if sure.max() > self.error_rate:
            most = int(np.where(sure > self.error_rate, flagged / np.maximum(made, 1), 0.0).argmax())
            second += (
                f"; look first at {self.annotators.index[most]}, with {flagged[most]} too fast ones of {made[most]} "
                f"({flagged[most] / made[most]:.0%})"
            )
        return f"{first}. {second}."


@dataclass(frozen=True)
class _State:
    """What :meth:`DurationModel.expect` needs."""

    fitted: Fit
    tasks: pd.Index[Any]
    annotators: pd.Index[Any]
    covariates: tuple[str, ...]
    centre: Floats
    scale: Floats
    ahead: Floats
    """The own columns of everybody's next judgment (annotators x columns)."""
    floor: float


def duration_model(
    judgments: pd.DataFrame | Coded,
    *,
    covariates: Sequence[str] = (),
    session_gap: float = 30.0,
    error_rate: float = 0.01,
) -> DurationModel:
    """Explain how long judgments take, and tell which were too fast or too slow.

    Log time is a sum of the annotator's pace, the task's difficulty, the covariates, the annotator's learning (the
    logarithm of how much they did before) and fatigue (hours since a session began). Annotators and tasks are drawn
    to the typical one as far as they have little data, and single odd times count little or nothing.

    A judgment is too fast when its distance from what is expected, in standard deviations of its annotator, lies
    among the lowest ``error_rate`` of all judgments. So of honest judgments at most that share is flagged, whatever
    the distribution looks like, and rushing shows as a share above it.

    Without a column ``at`` the order of the frame is taken for the order of work, and fatigue is unknown. A time of
    0 counts as half the shortest other time. One million judgments take a few seconds.

    >>> rng = np.random.default_rng(1)
    >>> frame = pd.DataFrame({"task": np.repeat(np.arange(100), 3), "annotator": ["ann", "bob", "eve"] * 100})
    >>> pace = frame["annotator"].map({"ann": 20.0, "bob": 40.0, "eve": 40.0})
    >>> frame = frame.assign(value="x", duration=pace * np.exp(rng.normal(0, 0.2, 300)))
    >>> frame.loc[17, "duration"] = 1.0
    >>> model = duration_model(frame)
    >>> model.annotators["judgments"].to_dict(), model.annotators["speed"].idxmin()
    ({'ann': 100, 'bob': 100, 'eve': 100}, 'ann')
    >>> bool(model.judgments.loc[17, "too_fast"])
    True
    >>> model.expect(pd.DataFrame({"task": [3], "annotator": ["bob"]}))["expected"].round(-1).tolist()
    [40.0]

    Args:
        judgments: columns ``task``, ``annotator``, ``value`` (anything), ``duration`` in seconds, optionally ``at``
            (the end of each judgment), and the covariates. Rows without a duration only count as experience.
        covariates: numeric columns with a slope on log time, such as the length of the item or its logarithm.
        session_gap: minutes without a judgment after which a new session begins.
        error_rate: the share of honest judgments that may be called too fast, and too slow; at most 0.25.

    Raises:
        BadJudgments: the frame is not what it must be.
        ValueError: an argument is not what it must be.
    """
    if not 0 < error_rate <= MOST_RATE:
        raise ValueError(f"error_rate must lie above 0 and be at most {MOST_RATE}, but it is {error_rate!r}.")
    names = (covariates,) if isinstance(covariates, str) else tuple(covariates)
    coded = _read(judgments, names)
    sessions = find_sessions(coded, session_gap)
    seconds = coded.numbers("duration")
    rows = np.flatnonzero(~np.isnan(seconds))
    if len(rows) < LEAST:
        return _nothing(error_rate, len(rows))
    positive = seconds[rows][seconds[rows] > 0]
    if not len(positive):
        raise BadJudgments("The column 'duration' holds nothing but 0; it must be in seconds.")
    floor = float(positive.min()) / 2
    extra = np.column_stack([np.zeros((len(rows), 0)), *(_covariate(coded, name, rows)[:, None] for name in names)])
    centre, scale = extra.mean(axis=0), extra.std(axis=0)
    for name, one in zip(names, scale, strict=True):
        if one == 0:
            raise BadJudgments(f"The column {name!r} is the same in every row, so it explains nothing; leave it out.")
    design, ahead = _design(coded, sessions, rows, np.log(np.maximum(seconds[rows], floor)), (extra - centre) / scale)
    fitted = fit(design)
    limits = _limits(fitted.z, error_rate)
    judged = pd.DataFrame(
        {
            "seconds": seconds[rows],
            "expected": np.exp(fitted.expected),
            "z": fitted.z,
            "too_fast": fitted.z < limits[0],
            "too_slow": fitted.z > limits[1],
        },
        index=coded.frame.index[rows],
    )
    state = _State(fitted, coded.tasks, coded.annotators, names, centre, scale, ahead, floor)
    return DurationModel(
        _annotators(coded, design, fitted, judged, timed=sessions.timed),
        _tasks(coded, design, fitted),
        judged,
        _effects(fitted, names, scale, timed=sessions.timed),
        error_rate,
        limits,
        "",
        state,
    )


def _read(judgments: pd.DataFrame | Coded, names: tuple[str, ...]) -> Coded:
    if isinstance(judgments, Coded):
        return read(judgments, kind=judgments.kind, needs=["duration", *names])
    return read(judgments, kind="any", needs=["duration", *names], extra=names, least=1)


def _covariate(coded: Coded, name: str, rows: npt.NDArray[np.intp]) -> Floats:
    values = coded.numbers(name)[rows]
    absent = np.isnan(values)
    if absent.any():
        row = coded.frame.index[rows[int(absent.argmax())]]
        raise BadJudgments(f"The column {name!r} is empty in row {row!r}; a covariate is needed for every judgment.")
    return values


def _design(
    coded: Coded, sessions: Sessions, rows: npt.NDArray[np.intp], y: Floats, extra: Floats
) -> tuple[Design, Floats]:
    who = coded.annotator[rows].astype(np.int64)
    people = len(coded.annotators)
    size = np.maximum(np.bincount(who, minlength=people), 1)
    made = np.bincount(coded.annotator, minlength=people)
    columns = [np.log2(1.0 + sessions.place[rows])]
    coming = [np.log2(1.0 + made)]
    if sessions.timed:
        columns.append(sessions.hours[rows])
        coming.append(np.zeros(people))
    own, ahead = [np.ones(len(rows))], [np.ones(people)]
    for column, new in zip(columns, coming, strict=True):
        mean = np.bincount(who, column, people) / size
        own.append(column - mean[who])
        ahead.append(new - mean)
    table = np.column_stack(own)
    common = np.column_stack([np.ones(len(rows)), extra, table[:, 1:]])
    _, session = np.unique(sessions.session[rows], return_inverse=True)
    task = coded.task[rows].astype(np.int64)
    design = Design(y, who, task, session, common, table, people, len(coded.tasks))
    return design, np.column_stack(ahead)


def _limits(z: Floats, rate: float) -> tuple[float, float]:
    """The order statistics beyond which a further value falls with at most this probability."""
    ordered = np.sort(z)
    beyond = int(rate * (len(z) + 1))
    if beyond == 0:
        return -np.inf, np.inf
    return float(ordered[beyond - 1]), float(ordered[-beyond])


def _annotators(coded: Coded, design: Design, fitted: Fit, judged: pd.DataFrame, *, timed: bool) -> pd.DataFrame:
    people = design.annotators
    count = np.bincount(design.annotator, minlength=people)
    enough = count >= FEW
    slopes = design.common.shape[1] - design.own.shape[1] + 1
    error = np.sqrt(np.einsum("aii->ai", fitted.annotator_cov))
    table: dict[str, npt.NDArray[Any]] = {"judgments": count}
    for place, name in enumerate(("speed", "learning", "fatigue")):
        if place < design.own.shape[1]:
            shared = 0.0 if place == 0 else fitted.common[slopes + place - 1]
            value = fitted.annotator[:, place] + shared
            factors = [np.exp(value + side * Z95 * error[:, place]) for side in (0, -1, 1)]
        else:
            factors = [np.full(people, np.nan)] * 3
        for ending, factor in zip(("", "_low", "_high"), factors, strict=True):
            table[name + ending] = np.where(enough, factor - (0.0 if name == "speed" else 1.0), np.nan)
    table["spread"] = np.exp(fitted.spread)
    for name in ("too_fast", "too_slow"):
        table[name] = np.bincount(design.annotator, judged[name].to_numpy(), people).astype(np.int64)
    table["too_fast_share"] = table["too_fast"] / np.maximum(count, 1)
    few = [f"Too little data: {n} judgment{'' if n == 1 else 's'} where {FEW} are needed." for n in count.tolist()]
    untimed = "" if timed else "Fatigue is unknown without the column 'at'."
    table["reason"] = np.where(enough, "", few)
    frame = pd.DataFrame(table, index=pd.Index(coded.annotators, name="annotator"))
    return frame.assign(fatigue_reason=untimed)


def _tasks(coded: Coded, design: Design, fitted: Fit) -> pd.DataFrame:
    half = Z95 * np.sqrt(fitted.task_variance)
    return pd.DataFrame(
        {
            "judgments": np.bincount(design.task, minlength=design.tasks),
            "difficulty": np.exp(fitted.task),
            "low": np.exp(fitted.task - half),
            "high": np.exp(fitted.task + half),
        },
        index=pd.Index(coded.tasks, name="task"),
    )


def _effects(fitted: Fit, names: tuple[str, ...], scale: Floats, *, timed: bool) -> pd.DataFrame:
    units = np.concatenate([scale, np.ones(1 + timed)])
    value, half = fitted.common[1:] / units, Z95 * fitted.common_error[1:] / units
    index = pd.Index([*names, "learning", *(["fatigue"] if timed else [])], name="effect")
    return pd.DataFrame(
        {"factor": np.exp(value), "low": np.exp(value - half), "high": np.exp(value + half)}, index=index
    )


def _expect(state: _State, limits: tuple[float, float], new: pd.DataFrame) -> pd.DataFrame:
    for column in ("task", "annotator", *state.covariates):
        if column not in new.columns:
            raise BadJudgments(f"The column {column!r} is missing, which is needed here.")
    fitted = state.fitted
    # A column for something else than a judgment so far: there is no value yet.
    judged = read(
        new[[c for c in ("task", "annotator", "duration", *state.covariates) if c in new.columns]].assign(value=0),
        extra=state.covariates,
        least=1,
        repeats=True,
    )
    task = state.tasks.get_indexer(judged.tasks)[judged.task]
    who = state.annotators.get_indexer(judged.annotators)[judged.annotator]
    extra = np.column_stack(
        [
            np.zeros((len(new), 0)),
            *(_covariate(judged, name, np.arange(len(new)))[:, None] for name in state.covariates),
        ]
    )
    width = state.ahead.shape[1]
    own = np.where((who >= 0)[:, None], state.ahead[who], np.eye(1, width))
    common = np.column_stack([np.ones(len(new)), (extra - state.centre) / state.scale, own[:, 1:]])
    deviation = np.where(who >= 0, np.einsum("ij,ij->i", own, fitted.annotator[who]), 0.0)
    level = common @ fitted.common + deviation + np.where(task >= 0, fitted.task[task], 0.0)
    doubt = np.where(
        who >= 0,
        np.einsum("ij,ijk,ik->i", own, fitted.annotator_cov[who], own),
        (own**2) @ fitted.tau_annotator,
    ) + np.where(task >= 0, fitted.task_variance[task], fitted.tau_task)
    spread = np.where(who >= 0, fitted.spread[who], float(np.median(fitted.spread)))
    unit = np.sqrt(spread**2 + doubt + fitted.tau_session)
    table = pd.DataFrame(
        {
            "expected": np.exp(level),
            "low": np.exp(level + limits[0] * unit),
            "high": np.exp(level + limits[1] * unit),
        },
        index=new.index,
    )
    if "duration" in new.columns:
        z = (np.log(np.maximum(judged.numbers("duration"), state.floor)) - level) / unit
        table = table.assign(z=z, too_fast=z < limits[0], too_slow=z > limits[1])
    return table


def _nothing(rate: float, count: int) -> DurationModel:
    reason = f"Too little data: {count} judgment{'' if count == 1 else 's'} with a duration, where {LEAST} are needed."
    empty = pd.DataFrame()
    judged = pd.DataFrame({name: [] for name in ("seconds", "expected", "z", "too_fast", "too_slow")})
    return DurationModel(empty, empty, judged, empty, rate, (-np.inf, np.inf), reason)
