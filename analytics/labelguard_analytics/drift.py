"""Whose labels drift: each annotator against peers on the same tasks, and against their own earlier work.

**What is compared.** For each judgment, the consensus of the *other* annotators of the task (leave-one-out,
so that nobody is their own reference), and whether they agree, put it into a stratum. Two questions are asked
for every label:

- *change*: within the same strata, does the annotator use the label more or less often in the recent days
  than before? Every annotator has an own learning slope (in the logarithm of experience, for tasks where the
  label is the consensus and for those where it is not), because getting better is not drifting.
- *level*: over all days, does the annotator use the label more or less often than the others do in the same
  strata, by more than a margin that honest people may differ?

The first question is that of :func:`labelguard_analytics.detect_changes` for label shares, with one possible day
of the change instead of all, and everything is computed there.

**How sure.** Judgments of one day resemble each other, so a day is one observation. With days as clusters, strata
and slopes the nominal false discovery rate holds in simulations with strong case mix and learning; without any one
of them it does not. Somebody who drifts
also moves the consensus that colleagues are compared with, so everybody is looked at once more without the
judgments of those found, and only who is found both times is named.

**What is discovered** is an annotator: shares of labels sum to one, so the labels of one person rise and fall
together. The p-values of a person's labels are combined (Bonferroni), Benjamini-Hochberg goes over persons,
and then, at the level left by the number of persons found, over the labels of each of them (Benjamini and
Bogomolov 2014).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from labelguard_analytics.changes.consensus import Votes, of_others
from labelguard_analytics.changes.discover import hierarchical
from labelguard_analytics.changes.look import Sight, look, sums_of
from labelguard_analytics.changes.measures import MEASURES
from labelguard_analytics.changes.panel import Panel
from labelguard_analytics.changes.parts import Data, Pool, total
from labelguard_analytics.changes.periods import Periods
from labelguard_analytics.changes.plan import Plan
from labelguard_analytics.changes.points import locate
from labelguard_analytics.frames import Floats

_Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class LabelShift:
    """One label of one annotator: what was seen, compared with what, and how sure that is."""

    annotator: int
    label: str
    kind: Literal["change", "level"]
    """Against the own earlier work (``change``) or against peers (``level``)."""
    before: float
    """The label's share before the recent days; for ``level`` over all days."""
    now: float
    """The label's share in the recent days; for ``level`` over all days."""
    expected: float
    """The share to be expected given the tasks: for ``change`` the recent share without the effect, for
    ``level`` what peers would have had on the same tasks."""
    effect: float
    """How much more often than expected, as a difference of shares."""
    low: float
    """Lower end of the 95% interval of ``effect`` (one interval, not corrected for the number of looks)."""
    high: float
    """Upper end of the 95% interval of ``effect``."""
    p: float
    judgments: int
    """The judgments compared: the recent ones for ``change``, all of them for ``level``."""
    days: int
    """Days with judgments, which is what the certainty rests on."""
    since: pd.Timestamp | None
    """The likely first day of a change; None for a level."""
    discovered: bool = False

    @property
    def direction(self) -> Literal["more", "less"]:
        """Whether the label is used more or less often than expected."""
        return "more" if self.effect > 0 else "less"


@dataclass(frozen=True)
class AnnotatorDrift:
    """One annotator in a sweep."""

    annotator: int
    p: float
    """Combined over labels and both questions; 1 where there is too little data."""
    q: float
    """The level at which the annotator would be just discovered."""
    discovered: bool
    shifts: tuple[LabelShift, ...]
    """Every label looked at, strongest evidence first."""
    judgments: int
    """Judgments with a consensus of others to compare with."""
    too_little: str = ""
    """Why nothing can be said, as a sentence; empty when something can."""


def consensus_of_others(
    task: _Ints, labels: Sequence[Iterable[str]], trusted: Sequence[bool] | None = None
) -> list[tuple[str, bool] | None]:
    """For each judgment, the label most others gave the task, and whether all of them gave it.

    None where there are no others or none of them used a label. Ties go to the first label in sorted order,
    so that the result does not depend on the order of judgments. Judgments that are not ``trusted`` get a
    consensus but do not count for anybody else's.
    """
    used = [sorted(set(one)) for one in labels]
    names = sorted({label for one in used for label in one})
    place = {label: number for number, label in enumerate(names)}
    row = np.repeat(np.arange(len(used)), [len(one) for one in used])
    label = np.array([place[each] for one in used for each in one], dtype=np.int64)
    tasks, number = np.unique(task, return_inverse=True)
    votes = Votes(number.astype(np.int64), row, label, len(tasks), len(names))
    found, agreed = of_others(votes, None if trusted is None else np.asarray(trusted, dtype=bool))
    return [
        None if one < 0 else (names[one], alike) for one, alike in zip(found.tolist(), agreed.tolist(), strict=True)
    ]


def label_drift(
    judgments: pd.DataFrame,
    *,
    now: pd.Timestamp,
    recent_days: int = 28,
    level: float = 0.1,
    margin: float = 0.1,
    min_judgments: int = 50,
    min_days: int = 5,
) -> list[AnnotatorDrift]:
    """Look at every annotator of one control.

    >>> rng = np.random.default_rng(2)
    >>> task, who = np.repeat(np.arange(1800), 4), np.tile([1, 2, 3, 4], 1800)
    >>> spam = (rng.random(1800)[task] < 0.3) ^ (rng.random(7200) < 0.05)
    >>> spam |= (who == 3) & (task > 1000) & (rng.random(7200) < 0.6)  # from a day on, much more of it
    >>> at = pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(task // 30, "D")
    >>> frame = pd.DataFrame({"task": task, "annotator": who, "value": np.where(spam, "spam", "mail"), "at": at})
    >>> [(one.annotator, one.shifts[0].direction) for one in label_drift(frame, now=at.max()) if one.discovered]
    [(3, 'more')]

    Args:
        judgments: columns ``task``, ``annotator``, ``at`` (timezone-aware) and ``value`` (a label, or an iterable
            of labels), one row for each annotator's first judgment of a task.
        now: the moment of the sweep; later judgments are ignored.
        recent_days: the length of the recent period.
        level: false discovery rate over annotators, for one sweep.
        margin: how far the share of a label may lie from the peers' before it counts as a level shift.
        min_judgments: judgments with a consensus that both periods need.
        min_days: days with such judgments that both periods need.

    Returns:
        One entry for each annotator, in the order of their ids.
    """
    frame = judgments.loc[judgments["at"] <= now, ["task", "annotator", "at", "value"]]
    if frame.empty:
        return []
    panel = Panel.of(
        frame.assign(value=pd.Series([_labels(value) for value in frame["value"]], frame.index, dtype=object))
    )
    start = (now - pd.Timedelta(days=recent_days)).ceil("D").tz_convert("UTC").tz_localize(None)
    by = frozenset({"annotator", "label"})
    plan = Plan.of(panel, by, level, min_judgments, min_days, (start - pd.Timestamp(0)).days)
    first = _look(panel, plan, margin)
    drifts = _discover(plan, first, level)
    suspects = {drift.annotator for drift in drifts if drift.discovered}
    if not suspects:
        return drifts
    again = first | _look(panel.without(suspects), plan, margin, first=panel, suspects=frozenset(suspects))
    confirmed = {drift.annotator for drift in _discover(plan, again, level) if drift.discovered}
    # What the first look saw is told: the second one has fewer judgments to compare with.
    return [drift if not drift.discovered or drift.annotator in confirmed else _cleared(drift) for drift in drifts]


def _labels(value: str | Iterable[str]) -> list[str]:
    """A text is one label, not its letters."""
    return [value] if isinstance(value, str) else list(value)


@dataclass(frozen=True)
class _Looked:
    """What a look saw of one annotator."""

    shifts: tuple[LabelShift, ...]
    judgments: int
    too_little: str


def _cleared(drift: AnnotatorDrift) -> AnnotatorDrift:
    shifts = tuple(replace(shift, discovered=False) for shift in drift.shifts)
    return replace(drift, discovered=False, shifts=shifts)


def _look(
    panel: Panel, plan: Plan, margin: float, *, first: Panel | None = None, suspects: frozenset[int] = frozenset()
) -> dict[int, _Looked]:
    """Every annotator's shifts; with ``first``, those of the suspects alone, compared with all others in it."""
    share, names = MEASURES["share"], sums_of([MEASURES["share"]])
    periods = Periods.of(panel, plan, names)
    whole = panel if first is None else first
    everybody = Data.of(whole, plan, share, periods if first is None else Periods.of(first, plan, names))
    peers = _peers(everybody, [plan.units[unit][0] in suspects for unit in everybody.units.tolist()])
    pool = None if first is None else everybody.pool
    sight = look(panel, plan, share, periods, pool=pool, alone=first is not None)
    labels = [str(label) for label in panel.labels[plan.labels]]
    found: dict[int, _Looked] = {}
    for unit, (annotator, _, _) in enumerate(plan.units):
        if first is not None and annotator not in suspects:
            continue
        numbers = sight.parts_of(unit)
        if not numbers or not len(sight.data.frame_of(numbers[0]).rows.part):
            found[annotator] = _Looked((), 0, _too_little(plan, sight, unit))
            continue
        work = sight.data.frame_of(numbers[0]).work
        told = np.flatnonzero(~np.isnan(sight.bound[unit])).tolist()
        shifts = [_change(sight, annotator, labels[series], unit, series) for series in told]
        judgments = round(float(work.n.sum()))
        if judgments >= plan.min_judgments and len(work.day) >= plan.min_days:
            shifts += _levels(sight.data, annotator, labels, numbers[0], peers, margin, own=first is None)
        shifts.sort(key=lambda s: (s.p, s.label, s.kind))
        found[annotator] = _Looked(tuple(shifts), judgments, "" if shifts else _too_little(plan, sight, unit))
    return found


def _too_little(plan: Plan, sight: Sight, unit: int) -> str:
    judgments, days = np.zeros(len(plan.days)), np.zeros(len(plan.days), dtype=bool)
    for number in sight.parts_of(unit):
        work = sight.data.frame_of(number).work
        judgments[work.day] += work.n.sum(axis=1)
        days[work.day] = True
    start = int(np.searchsorted(plan.days, plan.only_change or 0))
    for period, side in (("recent", slice(start, None)), ("earlier", slice(start))):
        if judgments[side].sum() < plan.min_judgments or days[side].sum() < plan.min_days:
            return (
                f"Too little data: {round(float(judgments[side].sum()))} {period} judgments that others made too, on "
                f"{int(days[side].sum())} days, where {plan.min_judgments} on {plan.min_days} days are needed."
            )
    return ""


def _change(sight: Sight, annotator: int, label: str, unit: int, series: int) -> LabelShift:
    """The recent days against those before."""
    p, place = sight.settle(unit, series)
    point = locate(sight, unit, series, place, exact=False)
    since = locate(sight, unit, series, place, exact=True).since if p <= sight.plan.level else place
    return LabelShift(
        annotator,
        label,
        "change",
        point.before,
        point.after,
        point.after - point.size,
        point.size,
        point.low,
        point.high,
        p,
        point.judgments,
        point.days,
        pd.Timestamp(int(sight.plan.days[since]), unit="D", tz="UTC"),
    )


def _peers(data: Data, left_out: Sequence[bool]) -> Pool:
    """Uses of each label, and judgments, by stratum, of those who are not left out."""
    out = np.asarray(left_out, dtype=bool)
    sizes, said = ([rows.some(np.flatnonzero(~out[rows.part])) for rows in some] for some in (data.sizes, data.said))
    judgments = total([rows.stratum for rows in sizes], (rows.sums[0] for rows in sizes), data.strata)
    keys = [rows.stratum * data.series + rows.label for rows in said]
    uses = total(keys, (rows.sums[0] for rows in said), data.strata * data.series)
    return Pool(uses.reshape(data.strata, -1), judgments[:, None])


def _levels(
    data: Data, annotator: int, names: Sequence[str], number: int, peers: Pool, margin: float, *, own: bool
) -> list[LabelShift]:
    """All days against what peers would have said in the same strata; ``own`` where they contain the annotator."""
    frame = data.frame_of(number)
    base = np.flatnonzero(frame.strata >= 0) % data.strata
    n = frame.work.n
    found = []
    for series, label in enumerate(names):
        y = data.part(number, series).y
        others = peers.mean[base, series] - (y.sum(axis=0) if own else 0.0)
        sizes = peers.variance[base, 0] - (n.sum(axis=0) if own else 0.0)
        known = sizes > 0
        judged, used = n[:, known].sum(axis=1), y[:, known].sum(axis=1)
        total = float(judged.sum())
        if not total:
            continue
        expected = n[:, known] @ (others[known] / sizes[known])
        effect = float((used - expected).sum()) / total
        centred = (used - expected - effect * judged)[judged > 0]
        if not np.any(np.abs(centred) > 1e-12) or len(centred) < 2:
            continue
        df = _days_that_count(judged)
        half = float(stats.t.ppf(0.975, df)) * _spread(centred) / total
        # How far beyond the margin, in the direction seen.
        beyond = (abs(effect) - margin) * total
        p = float(min(1.0, 2.0 * stats.t.sf(beyond / _spread(centred), df)))
        share = float(used.sum()) / total
        found.append(
            LabelShift(
                annotator,
                label,
                "level",
                share,
                share,
                share - effect,
                effect,
                effect - half,
                effect + half,
                p,
                round(total),
                len(centred),
                None,
            )
        )
    return found


def _spread(scores: Floats) -> float:
    days = len(scores)
    return float(np.sqrt(days / (days - 1) * np.sum(scores**2)))


def _days_that_count(weights: Floats) -> float:
    """Degrees of freedom, from the days weighted as Satterthwaite does.

    Half of them, because the days of one week often share a case mix and so are not quite independent.
    """
    return max(1.0, float(weights.sum()) ** 2 / float(np.sum(weights**2)) / 2 - 1.0)


def _discover(plan: Plan, looked: Mapping[int, _Looked], level: float) -> list[AnnotatorDrift]:
    everybody = [annotator for annotator, _, _ in plan.units]
    told = [annotator for annotator in everybody if looked[annotator].shifts]
    groups = []
    for annotator in told:
        shifts = looked[annotator].shifts
        groups.append(([shift.p for shift in shifts], [1 / len(shifts)] * len(shifts)))
    verdicts = dict(zip(told, hierarchical(groups, level), strict=True))
    found = []
    for annotator in everybody:
        one, verdict = looked[annotator], verdicts.get(annotator)
        if verdict is None:
            found.append(AnnotatorDrift(annotator, 1.0, 1.0, False, (), one.judgments, one.too_little))
            continue
        shifts = tuple(replace(s, discovered=hit) for s, hit in zip(one.shifts, verdict.discovered, strict=True))
        named = verdict.q <= level
        found.append(AnnotatorDrift(annotator, verdict.p, verdict.q, named, shifts, one.judgments, one.too_little))
    return found
