"""The effect of a dated event: a new guideline, another label config, a tool's release, a new cohort."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from labelguard_analytics.causes.inference import LEVEL, Effects
from labelguard_analytics.causes.measures import agreement_with_others, label_of_others
from labelguard_analytics.causes.panel import Inference, Learning, Panel
from labelguard_analytics.causes.periods import mask, moment, moments
from labelguard_analytics.estimate import Estimate, unknown
from labelguard_analytics.frames import BadJudgments, Coded, Floats, read

Outcome: TypeAlias = Literal["agreement", "accuracy", "share", "duration", "confidence"]
Design: TypeAlias = Literal["difference in differences", "interrupted time series"]

LEAST = 4
"""The annotators, and the weeks before and after the event, that are needed."""
FEW = 6
"""Where fewer annotators than this are affected, or unaffected, the default is randomisation."""
_CHOICES = 20
"""Randomisation at 5% needs so many ways to choose the affected annotators."""
_SIDE = 3
"""The weeks that a placebo date needs before and behind it."""
_WORDS = {
    "agreement": "agreement with the others",
    "accuracy": "accuracy",
    "share": "the share of {label!r}",
    "duration": "the time for a judgment",
    "confidence": "confidence",
}


@dataclass(frozen=True)
class Attribution:
    """What a dated event did to a measure.

    Numbers are differences of the measure (0.1 is ten points), and for ``duration`` of the logarithm of the time.
    """

    effect: Estimate
    """The effect with its 95% interval."""
    p: float
    """The p-value of no effect; NaN where there is no interval."""
    weeks: pd.DataFrame
    """A row for each week, counted from the event (0 is the first after it): ``week``, ``start``, ``judgments`` of
    what is affected, and how far it lies from the other weeks before the event beyond what is unaffected: ``effect``
    with ``low`` and ``high``. Intervals are for single weeks and hold how annotators vary, not how weeks do. Look
    whether the weeks before the event lie around zero; that they do proves nothing (Roth 2022), so nothing hangs on it.
    """
    placebos: pd.DataFrame
    """The effect at dates before the event, where nothing happened, from the judgments before the event alone:
    ``week``, ``date``, ``effect``, ``low``, ``high``, ``p``."""
    measure: Outcome
    design: Design
    inference: Inference
    learning: Learning
    event: pd.Timestamp
    annotators: int
    affected_annotators: int
    label: Any = None
    """The label whose share was measured."""

    @property
    def rejected(self) -> float:
        """The share of placebo dates at which an effect was found at the 5% level; NaN where there are none."""
        return float((self.placebos["p"] < LEVEL).mean()) if len(self.placebos) else float("nan")

    def explain(self) -> str:
        """The result in plain sentences."""
        what = _WORDS[self.measure].format(label=self.label)
        date = f"{self.event.day} {self.event:%B %Y}"
        if not self.effect.has_interval:
            return f"What the event of {date} did to {what} cannot be said. {self.effect.reason}"
        value, low, high = (self._shown(one) for one in (self.effect.value, self.effect.low, self.effect.high))
        unit = "%" if self.measure == "duration" else " points"
        chance = ", which may be chance" if self.effect.low <= 0 <= self.effect.high else ""
        against = (
            "compared with what the event did not affect"
            if self.design == "difference in differences"
            else "compared with how it went before, and whatever else happened at that time is in it"
        )
        first = f"From {date} on, {what} changed by {value}{unit} (95% interval {low} to {high}){chance}, {against}."
        tried, found = len(self.placebos), int((self.placebos["p"] < LEVEL).sum())
        if not tried:
            return f"{first} There are too few weeks before it to try other dates."
        dates = "1 earlier date" if tried == 1 else f"{tried} earlier dates"
        if found <= max(1.0, 2 * LEVEL * tried):
            trust = "which chance alone may find" if found else "as it should be"
        else:
            trust = "so something else was going on, which this effect may be too"
        effects = f"{found or 'no'} effect{'' if found == 1 else 's'}"
        return f"{first} At {dates}, where nothing happened, the same look found {effects}, {trust}."

    def _shown(self, value: float) -> str:
        return f"{(np.expm1(value) if self.measure == 'duration' else value) * 100:+.1f}"


def attribute_change(
    judgments: pd.DataFrame,
    event: Any,
    *,
    measure: Outcome = "agreement",
    label: Any = None,
    affected: Any = None,
    inference: Inference | None = None,
    learning: Learning | None = None,
    seed: int = 0,
) -> Attribution:
    """The effect of a dated event on a measure, from the means of annotators and weeks.

    With ``affected`` it is a difference in differences: what is affected, after the event against before, beyond what
    is not affected. Without, it is an interrupted time series, which cannot tell the event from anything else that
    happened at that time. Cells count by their judgments, and annotators may be missing in weeks.

    Annotators and weeks are both few, so errors are clustered by both, bias-reduced, with Satterthwaite's degrees of
    freedom. Where fewer than six annotators are affected (or not), the effect is compared with what every other choice
    of affected annotators would have found. Learning is not the event's: a slope on the logarithm of experience is
    part of the model, and in an interrupted time series a trend by week is too.

    >>> rng = np.random.default_rng(7)
    >>> rows = [(week * 40 + n, who, week, n % 2) for week in range(16) for n in range(40) for who in range(8)]
    >>> frame = pd.DataFrame(rows, columns=["task", "annotator", "week", "source"])
    >>> frame["at"] = pd.Timestamp("2026-01-05") + pd.to_timedelta(7 * frame.pop("week") + 1, unit="D")
    >>> better = (frame["at"] >= "2026-03-02") & (frame["source"] == 1)
    >>> frame["value"] = np.where(rng.random(len(frame)) < 0.8 + 0.1 * better, "right", "wrong")
    >>> frame["gold"] = "right"
    >>> found = attribute_change(frame, "2026-03-02", measure="accuracy", affected={"source": 1})
    >>> round(found.effect.value, 2), found.design
    (0.09, 'difference in differences')

    Args:
        judgments: one label for each judgment, with ``at``.
        event: the date from which on it has its effect.
        measure: ``agreement`` with the others of the task on the same side of the event; ``accuracy`` against
            ``gold``; ``share`` of a label; ``duration`` (its logarithm); ``confidence``.
        label: the label whose share is measured.
        affected: what the event affects: a mask, or one column with a value or a list of values, such as
            ``{"project": 3}``, ``{"source": ["web"]}``, ``{"cohort": "new"}``, ``{"annotator": [4, 7]}``. The column
            ``label`` stands for what the items are: gold, or else what most of the others said.
        inference: ``two-way``, ``annotator`` (clusters of annotators alone; weeks' shocks are ignored) or
            ``randomisation`` (where each annotator is affected or not); chosen if left out.
        learning: ``experience``, ``trend`` (by week; of what is affected beyond the rest, where there is a rest),
            ``both`` or ``none``; by default ``experience``, and ``both`` in an interrupted time series.
        seed: of the random choice of assignments, where there are too many to try all.

    Raises:
        BadJudgments: the frame is not what it must be.
        ValueError: the options are not what they must be.
    """
    _check(measure, label, inference, learning)
    when = moments(judgments)
    date = moment(event, when, "event")
    data = _read(judgments, measure, affected)
    after = np.asarray(data.frame["at"] >= date)
    hit = _hit(data, affected, after)
    y = _outcome(data, measure, label, after)
    experience = _experience(data)
    rows = np.flatnonzero(np.isfinite(y))
    days = (data.frame["at"] - date).to_numpy() / np.timedelta64(7, "D")
    week = np.floor(days).astype(np.int64)
    if not len(rows):
        raise BadJudgments(_NOTHING[measure])
    panel = Panel.of(data.annotator[rows], week[rows], hit[rows], experience[rows], y[rows])
    design: Design = "difference in differences" if affected is not None else "interrupted time series"
    learns: Learning = learning or ("experience" if affected is not None else "both")
    people = panel.people
    few = people is not None and min(int(people.sum()), int((~people).sum())) < FEW
    by = inference or ("randomisation" if few else "two-way")
    if by == "randomisation" and people is None:
        raise ValueError(
            "inference='randomisation' needs annotators of whom each is affected or not, but here "
            + ("nothing is unaffected." if affected is None else "some judged both kinds of items.")
        )
    reason = _too_little(panel)
    rng = np.random.default_rng(seed)
    effects = None if reason else panel.effects(learns, by, rng)
    if effects is None and not reason:
        reason = (
            f"The effect cannot be told from {'the weeks and ' if panel.compares else ''}learning "
            f"(learning={learns!r}): what is affected never differs from them."
        )
    counts = len(np.unique(data.task[rows])), len(rows)
    if reason:
        effect, p = unknown(reason, *counts), float("nan")
    else:
        assert effects is not None  # noqa: S101 - else there is a reason
        effect, p = _estimate(effects, *counts), float(effects.p[0])
    return Attribution(
        effect,
        p,
        _weeks(panel, learns, date) if not reason else _weeks_of([]),
        _placebos(panel, learns, by, date, rng) if not reason else _placebos_of([]),
        measure,
        design,
        by,
        learns,
        date,
        len(np.unique(panel.annotator)),
        len(np.unique(panel.annotator[panel.affected])),
        label,
    )


_NOTHING = {
    "agreement": "No task has two judgments on one side of the event, so there is no agreement to measure.",
    "accuracy": "The column 'gold' is empty in every row, so there is no accuracy to measure.",
    "share": "There is nothing to have a share of.",
    "duration": "The column 'duration' is empty or zero in every row.",
    "confidence": "The column 'confidence' is empty in every row.",
}


def _check(measure: Outcome, label: Any, inference: Inference | None, learning: Learning | None) -> None:
    for name, value, known in (
        ("measure", measure, tuple(_WORDS)),
        ("inference", inference, (None, "two-way", "annotator", "randomisation")),
        ("learning", learning, (None, "experience", "trend", "both", "none")),
    ):
        if value not in known:
            options = ", ".join(repr(one) for one in known if one)
            raise ValueError(f"{name}={value!r} is unknown; there are {options}.")
    if (measure == "share") != (label is not None):
        raise ValueError("label= names the label whose share is measured: give it with measure='share', and only then.")


def _read(judgments: pd.DataFrame, measure: Outcome, affected: Any) -> Coded:
    needs = {"accuracy": ("gold",), "duration": ("duration",), "confidence": ("confidence",)}.get(measure, ())
    extra = ["project"]
    frame = judgments
    if isinstance(affected, Mapping):
        if len(affected) != 1:
            raise ValueError(f"affected= must name one column with its values, not {len(affected)}.")
        column = next(iter(affected))
        if column != "label" and column not in judgments.columns:
            raise BadJudgments(f"The column {column!r} is missing, which affected= names.")
        extra += [column] if column != "label" else []
    elif affected is not None:
        frame = judgments.assign(affected=mask(judgments, affected, "affected"))
        extra += ["affected"]
    return read(frame, needs=needs, extra=extra)


def _hit(data: Coded, affected: Any, after: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Whether each judgment is affected."""
    hit: npt.NDArray[np.bool_]
    if affected is None:
        return np.ones(data.n, dtype=bool)
    if not isinstance(affected, Mapping):
        hit = np.asarray(data.frame["affected"], dtype=bool)
    else:
        column, values = next(iter(affected.items()))
        wanted = list(values) if isinstance(values, (list, tuple, set, frozenset, np.ndarray, pd.Index)) else [values]
        if column == "label":
            places = data.categories.get_indexer(pd.Index(wanted))
            if (places < 0).any():
                raise ValueError(f"affected= names the label {wanted[int(places.argmin())]!r}, which nobody used.")
            kinds = data.gold()[data.task] if "gold" in data.frame.columns else np.full(data.n, -1)
            others = label_of_others(_side(data, after), data.value)
            hit = np.asarray(np.isin(np.where(kinds >= 0, kinds, others), places))
        else:
            hit = np.asarray(data.frame[column].isin(wanted), dtype=bool)
    for some, name in ((hit, "affected"), (~hit, "unaffected")):
        if not some.any():
            raise ValueError(f"affected= leaves nothing {name}: there would be nothing to compare.")
    return hit


def _side(data: Coded, after: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Whose judgments are compared: those of a task on one side of the event."""
    return np.unique(data.task.astype(np.int64) * 2 + after, return_inverse=True)[1].astype(np.int64)


def _outcome(data: Coded, measure: Outcome, label: Any, after: npt.NDArray[np.bool_]) -> Floats:
    """The measure of each judgment; NaN where it has none."""
    if measure == "agreement":
        return agreement_with_others(_side(data, after), data.value)
    if measure == "accuracy":
        gold = data.gold()[data.task]
        return np.asarray(np.where(gold >= 0, gold == data.value, np.nan), dtype=np.float64)
    if measure == "share":
        place = int(data.categories.get_indexer(pd.Index([label]))[0])
        if place < 0:
            raise ValueError(f"label={label!r} was used by nobody; there are {list(data.categories)}.")
        return np.asarray(data.value == place, dtype=np.float64)
    numbers = data.numbers(measure)
    if measure == "confidence":
        return numbers
    return np.asarray(np.log(np.where(numbers > 0, numbers, np.nan)))


def _experience(data: Coded) -> Floats:
    """The logarithm of one plus the judgments that the annotator had made before each."""
    order = np.lexsort((data.frame["at"].to_numpy(), data.annotator))
    people = data.annotator[order]
    first = np.flatnonzero(np.diff(people, prepend=-1))
    found = np.empty(data.n)
    found[order] = np.log1p(np.arange(data.n) - np.repeat(first, np.diff(np.append(first, data.n))))
    return found


def _too_little(panel: Panel) -> str:
    sides: list[tuple[str, npt.NDArray[np.bool_]]] = [("", np.ones(len(panel.week), dtype=bool))]
    if panel.compares:
        sides += [("affected judgments in ", panel.affected), ("unaffected judgments in ", ~panel.affected)]
    for name, rows in sides:
        before, after = (len(np.unique(panel.week[rows & side])) for side in (panel.week < 0, panel.week >= 0))
        if min(before, after) < LEAST:
            return (
                f"Too little data: {name}{before} weeks before the event and {after} after it, where {LEAST} are "
                "needed on each side."
            )
    people = np.intersect1d(panel.annotator[panel.week < 0], panel.annotator[panel.week >= 0])
    if len(people) < LEAST:
        return (
            f"Too little data: {len(people)} annotators with judgments before the event and after it, where {LEAST} "
            "are needed."
        )
    split = panel.people
    if split is not None:
        chosen = np.unique(panel.annotator)[split]
        counts = int(np.isin(people, chosen).sum()), int((~np.isin(people, chosen)).sum())
        if min(counts) < 2:
            return (
                f"Too little data: {counts[0]} affected and {counts[1]} unaffected annotators with judgments before "
                "the event and after it, where 2 of each are needed."
            )
    return ""


def _estimate(effects: Effects, tasks: int, judgments: int) -> Estimate:
    value, low, high = (float(one[0]) for one in (effects.value, effects.low, effects.high))
    if np.isfinite(low) and np.isfinite(high):
        return Estimate(value, low, high, tasks, judgments)
    reason = (
        f"Too little data for an interval: there are fewer than {_CHOICES} ways to choose as many affected annotators."
    )
    return Estimate(value, np.nan, np.nan, tasks, judgments, reason)


def _weeks_of(rows: list[tuple[Any, ...]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["week", "start", "judgments", "effect", "low", "high"])


def _weeks(panel: Panel, learning: Learning, date: pd.Timestamp) -> pd.DataFrame:
    rows: list[tuple[Any, ...]] = []
    for week, judgments, effects in panel.by_week(learning):
        told = (
            (np.nan,) * 3 if effects is None else tuple(float(x[0]) for x in (effects.value, effects.low, effects.high))
        )
        rows.append((week, date + pd.Timedelta(weeks=week), int(judgments), *told))
    return _weeks_of(rows)


def _placebos_of(rows: list[tuple[Any, ...]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["week", "date", "effect", "low", "high", "p"])


def _placebos(
    panel: Panel, learning: Learning, by: Inference, date: pd.Timestamp, rng: np.random.Generator
) -> pd.DataFrame:
    earlier = panel.keep(panel.week < 0)
    weeks = np.unique(earlier.week)
    rows: list[tuple[Any, ...]] = []
    for week in weeks[_SIDE : len(weeks) - _SIDE + 1].tolist():
        moved = earlier.moved(week)
        if by == "randomisation" and moved.people is None:
            continue
        effects = moved.effects(learning, by, rng)
        if effects is not None:
            told = (float(x[0]) for x in (effects.value, effects.low, effects.high, effects.p))
            rows.append((week, date + pd.Timedelta(weeks=week), *told))
    return _placebos_of(rows)
