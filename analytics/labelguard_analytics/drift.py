"""Whose labels drift: each annotator against peers on the same tasks, and against their own earlier work.

**What is compared.** For each judgment, the consensus of the *other* annotators of the task (leave-one-out,
so that nobody is their own reference), and whether they agree, put it into a stratum. Two questions are asked
for every label:

- *change*: within the same strata, does the annotator use the label more or less often in the recent days
  than before? Every annotator has an own learning slope (in the logarithm of experience, for tasks where the
  label is the consensus and for those where it is not), because getting better is not drifting.
- *level*: over all days, does the annotator use the label more or less often than the others do in the same
  strata, by more than a margin that honest people may differ?

**How sure.** Judgments of one day resemble each other, so a day is one observation: the score of each day,
and a t statistic over days. With days as clusters, strata and slopes the nominal false discovery rate holds
in simulations with strong case mix and learning; without any one of them it does not. Somebody who drifts
also moves the consensus that colleagues are compared with, so everybody is looked at once more without the
judgments of those found, and only who is found both times is named.

**What is discovered** is an annotator: shares of labels sum to one, so the labels of one person rise and fall
together. The p-values of a person's labels are combined (Bonferroni), Benjamini-Hochberg goes over persons,
and then, at the level left by the number of persons found, over the labels of each of them (Benjamini and
Bogomolov 2014).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from labelguard_analytics.fdr import fdr

_Floats = npt.NDArray[np.float64]
_Ints = npt.NDArray[np.int64]

_LAGS = 4
"""Working days that may resemble each other: the rest of a week."""


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
    used = [tuple(sorted(set(one))) for one in labels]
    counting = [True] * len(used) if trusted is None else list(trusted)
    counts: dict[int, Counter[str]] = {}
    sizes: Counter[int] = Counter()
    for number, own, counted in zip(task.tolist(), used, counting, strict=True):
        if counted:
            counts.setdefault(number, Counter()).update(own)
            sizes[number] += 1
    found: list[tuple[str, bool] | None] = []
    for number, own, counted in zip(task.tolist(), used, counting, strict=True):
        others = {label: n - (counted and label in own) for label, n in counts.get(number, {}).items()}
        best = max(sorted(others), key=others.__getitem__, default="")
        votes = others.get(best, 0)
        found.append((best, votes == sizes[number] - counted) if votes else None)
    return found


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

    Args:
        judgments: columns ``task``, ``annotator``, ``at`` (timezone-aware) and ``value`` (an iterable of
            labels), one row for each annotator's first judgment of a task.
        now: the moment of the sweep; later judgments are ignored.
        recent_days: the length of the recent period.
        level: false discovery rate over annotators, for one sweep.
        margin: how far the share of a label may lie from the peers' before it counts as a level shift.
        min_judgments: judgments with a consensus that both periods need.
        min_days: days with such judgments that both periods need.

    Returns:
        One entry for each annotator, in the order of their ids.
    """
    frame = judgments.loc[judgments["at"] <= now].sort_values("at", kind="stable")
    if frame.empty:
        return []
    first = _discover(_look(frame, frozenset(), now, recent_days, margin, min_judgments, min_days), level)
    suspects = frozenset(drift.annotator for drift in first if drift.discovered)
    if not suspects:
        return first
    again = _discover(_look(frame, suspects, now, recent_days, margin, min_judgments, min_days), level)
    confirmed = {drift.annotator for drift in again if drift.discovered}
    # What the first look saw is told: the second one has fewer judgments to compare with.
    return [drift if not drift.discovered or drift.annotator in confirmed else _cleared(drift) for drift in first]


def _cleared(drift: AnnotatorDrift) -> AnnotatorDrift:
    shifts = tuple(replace(shift, discovered=False) for shift in drift.shifts)
    return replace(drift, discovered=False, shifts=shifts)


def _look(
    frame: pd.DataFrame,
    untrusted: frozenset[int],
    now: pd.Timestamp,
    recent_days: int,
    margin: float,
    min_judgments: int,
    min_days: int,
) -> list[_Looked]:
    """Every annotator's shifts, with a consensus that leaves out the judgments of ``untrusted`` ones."""
    values = [tuple(value) for value in frame["value"]]
    everyone = frame["annotator"].to_numpy(dtype=np.int64)
    trusted = [who not in untrusted for who in everyone.tolist()]
    consensus = consensus_of_others(frame["task"].to_numpy(dtype=np.int64), values, trusted)
    kept = np.array([c is not None for c in consensus], dtype=bool)
    strata = [c for c in consensus if c is not None]
    used = [v for v, k in zip(values, kept.tolist(), strict=True) if k]
    labels = sorted({label for v in used for label in v} | {label for label, _ in strata})
    names = {label: i for i, label in enumerate(labels)}
    table = np.zeros((len(used), len(labels)))
    for row, own in enumerate(used):
        for label in own:
            table[row, names[label]] = 1.0
    start = now - pd.Timedelta(days=recent_days)
    # Experience counts every judgment, also those without a consensus.
    experience = np.log1p(frame.groupby("annotator").cumcount().to_numpy(dtype=np.float64))
    data = _Data(
        table,
        np.array([2 * names[label] + agreed for label, agreed in strata], dtype=np.int64),
        experience[kept],
        (frame["at"] >= start).to_numpy()[kept],
        pd.DatetimeIndex(frame["at"].dt.floor("D")[kept]),
        labels,
    )
    who = everyone[kept]
    counted = np.array(trusted, dtype=bool)[kept]
    sums, sizes = _totals(data, np.flatnonzero(counted))

    looked: list[_Looked] = []
    for annotator in sorted(set(everyone.tolist())):
        mine = np.flatnonzero(who == annotator)
        shifts: list[LabelShift] = []
        why = _too_little(data, mine, data.recent[mine], min_judgments, min_days)
        if not why:
            shifts += _changes(annotator, data, mine)
        if _enough(data, mine, min_judgments, min_days):
            own_sums, own_sizes = _totals(data, mine[counted[mine]])
            shifts += _levels(annotator, data, mine, sums - own_sums, sizes - own_sizes, margin)
        shifts.sort(key=lambda s: (s.p, s.label, s.kind))
        looked.append((annotator, shifts, len(mine), "" if shifts else why))
    return looked


_Looked = tuple[int, list[LabelShift], int, str]
"""An annotator, the shifts, the number of judgments compared and why there is nothing to say."""


@dataclass(frozen=True)
class _Data:
    """The judgments that have a consensus of others."""

    table: _Floats
    """1 where a judgment has a label: judgments x labels."""
    stratum: _Ints
    """Twice the consensus' number in ``labels``, plus 1 where the others agree."""
    experience: _Floats
    recent: npt.NDArray[np.bool_]
    day: pd.DatetimeIndex
    labels: list[str]


def _totals(data: _Data, rows: _Ints) -> tuple[_Floats, _Floats]:
    """Uses of each label by stratum, and judgments by stratum."""
    strata = 2 * len(data.labels)
    sums = np.zeros((strata, len(data.labels)))
    np.add.at(sums, data.stratum[rows], data.table[rows])
    return sums, np.bincount(data.stratum[rows], minlength=strata).astype(np.float64)


def _enough(data: _Data, rows: _Ints, min_judgments: int, min_days: int) -> bool:
    return len(rows) >= min_judgments and data.day[rows].nunique() >= min_days


def _too_little(data: _Data, mine: _Ints, recent: npt.NDArray[np.bool_], min_judgments: int, min_days: int) -> str:
    for rows, period in ((mine[recent], "recent"), (mine[~recent], "earlier")):
        if not _enough(data, rows, min_judgments, min_days):
            return (
                f"Too little data: {len(rows)} {period} judgments that others made too, on "
                f"{data.day[rows].nunique()} days, where {min_judgments} on {min_days} days are needed."
            )
    return ""


def _by_day(values: _Floats, day: pd.DatetimeIndex) -> tuple[_Floats, pd.DatetimeIndex]:
    codes, days = pd.factorize(day, sort=True)
    sums = np.bincount(codes, weights=values, minlength=len(days)).astype(np.float64)
    return sums, pd.DatetimeIndex(days)


def _changes(annotator: int, data: _Data, mine: _Ints) -> list[LabelShift]:
    recent = data.recent[mine].astype(np.float64)
    stratum, day = data.stratum[mine], data.day[mine]
    present, codes = np.unique(stratum, return_inverse=True)
    dummies = np.eye(len(present))[codes]
    experience = data.experience[mine] - data.experience[mine].mean()
    found = []
    for number, label in enumerate(data.labels):
        x = data.table[mine, number]
        if not 0 < x.sum() < len(x):
            continue
        right = (stratum // 2 == number).astype(np.float64)
        design = np.column_stack([dummies, experience * right, experience * (1 - right)])
        basis = _basis(design)
        h = recent - basis @ (basis.T @ recent)
        weight = float(h @ h)
        if weight < 1e-6 * len(x):
            continue  # the recent period cannot be told from learning
        residual = x - basis @ (basis.T @ x)
        effect = float(h @ residual) / weight
        # The score under "no change" decides, which keeps its level better than a Wald test; the interval
        # needs the residuals with the change taken out.
        df = _days_that_count(_by_day(h * h, day)[0])
        scores, days = _by_day(h * (residual - effect * h), day)
        null = _spread(_by_day(h * residual, day)[0])
        p = _two_sided(effect * weight, float(np.hypot(null, _carried_over(scores))), df)
        half = _half_width(scores, df) / weight
        now_share, before = float(x[recent > 0].mean()), float(x[recent == 0].mean())
        found.append(
            LabelShift(
                annotator,
                label,
                "change",
                before,
                now_share,
                now_share - effect,
                effect,
                effect - half,
                effect + half,
                p,
                int(recent.sum()),
                len(days),
                _likely_start(x - dummies @ _means(dummies, x), day, effect),
            )
        )
    return found


def _levels(annotator: int, data: _Data, mine: _Ints, sums: _Floats, sizes: _Floats, margin: float) -> list[LabelShift]:
    found = []
    stratum = data.stratum[mine]
    known = sizes[stratum] > 0
    rows = mine[known]
    if not len(rows):
        return []
    expected = sums[stratum[known]] / sizes[stratum[known], None]
    for number, label in enumerate(data.labels):
        x = data.table[rows, number]
        difference = x - expected[:, number]
        effect = float(difference.mean())
        centred, days = _by_day(difference - effect, data.day[rows])
        if not np.any(centred):
            continue
        df = _days_that_count(_by_day(np.ones(len(rows)), data.day[rows])[0])
        half = _half_width(centred, df) / len(rows)
        # How far beyond the margin, in the direction seen.
        beyond = (abs(effect) - margin) * len(rows)
        p = min(1.0, 2.0 * float(stats.t.sf(beyond / _spread(centred), df)))
        found.append(
            LabelShift(
                annotator,
                label,
                "level",
                float(x.mean()),
                float(x.mean()),
                float(x.mean()) - effect,
                effect,
                effect - half,
                effect + half,
                p,
                len(rows),
                len(days),
                None,
            )
        )
    return found


def _basis(design: _Floats) -> _Floats:
    """Orthonormal columns spanning the design, whatever of it is redundant."""
    u, s, _ = np.linalg.svd(design, full_matrices=False)
    return np.asarray(u[:, s > 1e-9 * s[0]], dtype=np.float64)


def _means(dummies: _Floats, x: _Floats) -> _Floats:
    return np.asarray(dummies.T @ x / dummies.sum(axis=0), dtype=np.float64)


def _spread(scores: _Floats) -> float:
    days = len(scores)
    return float(np.sqrt(days / (days - 1) * np.sum(scores**2)))


def _carried_over(scores: _Floats) -> float:
    """What days add to the standard error because neighbouring ones are alike (Newey and West 1987).

    People often get one mix of cases for a week, and a mix moves what a consensus is worth.
    """
    lagged = sum(
        (1 - lag / (_LAGS + 1)) * float(scores[lag:] @ scores[:-lag])
        for lag in range(1, min(_LAGS, len(scores) - 1) + 1)
    )
    return float(np.sqrt(max(0.0, 2 * lagged)))


def _two_sided(total: float, spread: float, df: float) -> float:
    return 1.0 if spread == 0 else float(2 * stats.t.sf(abs(total) / spread, df))


def _half_width(scores: _Floats, df: float) -> float:
    return float(stats.t.ppf(0.975, df)) * _spread(scores)


def _days_that_count(weights: _Floats) -> float:
    """Degrees of freedom, from the days weighted as Satterthwaite does.

    Half of them, because the days of one week often share a case mix and so are not quite independent.
    """
    return max(1.0, float(weights.sum()) ** 2 / float(np.sum(weights**2)) / 2 - 1.0)


def _likely_start(residual: _Floats, day: pd.DatetimeIndex, effect: float) -> pd.Timestamp:
    """The day from which the rest of the residuals lies furthest on the side of the effect."""
    sums, days = _by_day(residual, day)
    after = np.cumsum((sums if effect > 0 else -sums)[::-1])[::-1]
    return pd.Timestamp(days[int(np.argmax(after))])


def _discover(looked: Sequence[tuple[int, list[LabelShift], int, str]], level: float) -> list[AnnotatorDrift]:
    combined = [min([1.0, *(s.p * len(shifts) for s in shifts)]) for _, shifts, _, _ in looked]
    told = [i for i, (_, shifts, _, _) in enumerate(looked) if shifts]
    result = fdr([combined[i] for i in told], level)
    q = dict(zip(told, result.adjusted.tolist(), strict=True))
    hit = {i for i, m in zip(told, result.mask.tolist(), strict=True) if m}
    within = level * len(hit) / max(1, len(told))
    found = []
    for i, (annotator, shifts, count, why) in enumerate(looked):
        marked = shifts
        if i in hit:
            mask = fdr([s.p for s in shifts], within).mask.tolist()
            marked = [replace(s, discovered=m) for s, m in zip(shifts, mask, strict=True)]
        found.append(AnnotatorDrift(annotator, combined[i], q.get(i, 1.0), i in hit, tuple(marked), count, why))
    return found
