"""Self-reported confidence: is it right, whose is not, and what does it tell about single judgments?

Confidence is *calibrated* when of the judgments given with confidence .8, 80% are right. Judgments of the same task
resemble each other, so tasks are the observations of every interval here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats
from scipy.special import expit, logit

from labelguard_analytics.confusion import Known, group_judgments, known_truth
from labelguard_analytics.counts import PERIODS, slices
from labelguard_analytics.frames import BadJudgments, Coded, Floats, confidences, read
from labelguard_analytics.options import check_choice, check_flag, check_number, check_whole, short
from labelguard_analytics.truth import Truth, infer_truth
from labelguard_analytics.truth.models import Fitted
from labelguard_analytics.truth.result import make_truth
from labelguard_analytics.truth.votes import Votes

_FEW = 10
"""Tasks below which no interval is given."""
_HIGH, _LOW = 0.8, 0.5
"""Confidence from which on, and up to which, a judgment counts as sure and as unsure."""
_EDGE = 1e-3
"""Nobody is taken to be surer than .999."""


@dataclass(frozen=True)
class Calibration:
    """How well confidence matches being right."""

    table: pd.DataFrame
    """A row for each group: ``judgments``, ``tasks``, ``accuracy`` and ``confidence`` (means), ``gap`` = confidence -
    accuracy with its 95% interval ``gap_low`` to ``gap_high``, ``verdict`` (overconfident, underconfident, or no
    difference shown), ``ece`` (expected calibration error without the part that noise adds) with ``ece_low`` to
    ``ece_high``, ``ece_raw`` (the usual one), ``brier`` with ``brier_low`` to ``brier_high``, and its parts:
    ``brier`` = ``reliability`` - ``resolution`` + ``uncertainty`` + ``within`` (differences inside bins);
    ``reason``."""
    bins: pd.DataFrame
    """The reliability table: for each group and bin, its ``edge_low`` and ``edge_high``, ``judgments``,
    ``confidence`` and ``accuracy`` (means), and the accuracy's 95% interval ``low`` to ``high``; ``reason``."""
    disagreements: pd.DataFrame
    """Sure judgments (confidence of at least .8) that are wrong with a probability of at least .8, surest first."""
    doubtful: pd.DataFrame
    """Tasks on which all annotators agree without being sure (mean confidence of at most .5), least sure first."""
    by: tuple[str, ...]
    reference: str
    """What right means: ``truth``, or ``inferred truth``."""
    reason: str = ""
    """Why nothing can be said, as a sentence; empty when something can."""

    def explain(self) -> str:
        """The result in two plain sentences."""
        if self.reason:
            return self.reason
        total = self.table["judgments"].sum()
        confidence = float((self.table["confidence"] * self.table["judgments"]).sum() / total)
        accuracy = float((self.table["accuracy"] * self.table["judgments"]).sum() / total)
        first = (
            f"Annotators are {confidence:.0%} sure of {total:,} judgments and right in {accuracy:.0%} of them "
            f"({self.reference})"
        )
        if len(self.table) == 1:
            row = self.table.iloc[0]
            if np.isnan(row["gap_low"]):
                return f"{first}. {row['reason']}"
            first += f": a gap of {row['gap']:+.3f} (95% interval {row['gap_low']:+.3f} to {row['gap_high']:+.3f})."
            return f"{first} The expected calibration error is {row['ece']:.3f}; {row['verdict']}."
        over = int((self.table["verdict"] == "overconfident").sum())
        under = int((self.table["verdict"] == "underconfident").sum())
        return f"{first}. Of {len(self.table):,} groups, {over} are overconfident and {under} underconfident."


def calibration(
    judgments: pd.DataFrame | Coded,
    truth: Known = None,
    by: str | Sequence[str] | None = None,
    bins: int | Sequence[float] = 10,
    *,
    repetitions: int = 200,
    seed: int = 0,
) -> Calibration:
    """Compare confidence with being right, for each annotator, label, cohort or whatever else ``by`` names.

    The bias-corrected calibration error takes from each bin's squared difference what chance alone adds (its
    variance; Kumar et al. 2019), so it is near 0 where confidence is right, whatever the number of judgments. Its
    interval comes from a Poisson bootstrap of tasks.

    >>> rng = np.random.default_rng(0)
    >>> sure = rng.uniform(0.5, 1, 400)
    >>> frame = pd.DataFrame({"task": np.arange(400) // 2, "annotator": np.arange(400) % 2, "confidence": sure})
    >>> frame["gold"] = "yes"
    >>> frame["value"] = np.where(rng.random(400) < sure - 0.2, "yes", "no")
    >>> found = calibration(frame, bins=5)
    >>> found.table["verdict"].tolist(), found.bins.shape[0]
    (['overconfident'], 5)

    Args:
        judgments: one label for each judgment, and ``confidence`` (0 to 1); rows without one are left out.
        truth: as for :func:`confusion`. None takes the column ``gold``, and where there is none infers the truth; an
            inferred truth makes everybody look somewhat better than they are, where errors are alike.
        by: columns by which to keep the judgments apart: ``annotator``, ``label``, ``source``, ``cohort``, or
            ``day``, ``week``, ``month`` of ``at``.
        bins: how many bins with equally many judgments, or the edges of fixed bins from 0 to 1.
        repetitions: of the bootstrap; 0 for no interval of the calibration error.
        seed: for the bootstrap.

    Raises:
        BadJudgments: the frame is not what it must be, or the truth does not fit it.
        ValueError: the bins are none.
    """
    columns = slices(by, ("annotator", "label"))
    check_whole("repetitions", repetitions, 0)
    check_whole("seed", seed, 0)
    stated = _Stated.of(judgments, truth, columns)
    edges = _edges(bins, stated.confidence)
    if not len(stated.confidence):
        return _no_calibration(columns, stated)
    place = np.clip(np.searchsorted(edges, stated.confidence, side="right") - 1, 0, len(edges) - 2)
    groups, size = len(stated.groups), len(edges) - 1
    sums = _Sums.of(stated, stated.group * size + place, groups * size)
    table = _summary(stated, sums, groups, size)
    _add_ece_interval(table, stated, place, groups, size, repetitions, seed)
    names = pd.DataFrame(list(stated.groups), columns=list(columns), index=range(groups))
    table = pd.concat([names, table], axis=1)
    reliability = _reliability(sums, edges, groups)
    reliability = pd.concat([names.loc[np.repeat(np.arange(groups), size)].reset_index(drop=True), reliability], axis=1)
    reliability = reliability[reliability["judgments"] > 0].reset_index(drop=True)
    return Calibration(
        table[table["judgments"] > 0].reset_index(drop=True),
        reliability,
        _sure_and_wrong(stated),
        _agreed_and_unsure(stated),
        columns,
        stated.reference,
    )


@dataclass(frozen=True)
class _Stated:
    """The judgments with a confidence and a task of which something is known."""

    coded: Coded
    rows: npt.NDArray[np.intp]
    task: npt.NDArray[np.int32]
    confidence: Floats
    right: Floats
    """The probability that each is right."""
    group: npt.NDArray[np.int32]
    groups: tuple[tuple[Any, ...], ...]
    reference: str

    @classmethod
    def of(cls, judgments: pd.DataFrame | Coded, truth: Known, by: tuple[str, ...]) -> _Stated:
        """Read judgments, and find out or infer what is right."""
        own = [name for name in by if name not in ("annotator", "label")]
        needs = ["confidence", *("at" if name in PERIODS else name for name in own)]
        coded = read(judgments, needs=needs, least=1, repeats=True)
        target, reference = known_truth(coded, truth), "truth"
        if target is None:
            if truth is not None:
                raise BadJudgments("The truth knows none of these tasks.")
            target, reference = infer_truth(coded).posterior.to_numpy(), "inferred truth"
        group, groups = group_judgments(coded, by)
        confidence = coded.numbers("confidence")
        known = target.sum(axis=1) > 0
        rows = np.flatnonzero(~np.isnan(confidence) & known[coded.task])
        right = target[coded.task[rows], coded.value[rows]]
        return cls(coded, rows, coded.task[rows], confidence[rows], right, group[rows], groups, reference)


def _edges(bins: int | Sequence[float], confidence: Floats) -> Floats:
    if not isinstance(bins, (Sequence, np.ndarray)) or isinstance(bins, str):
        check_whole("bins", bins, 1)
        if not len(confidence):
            return np.array([0.0, 1.0])
        edges: Floats = np.unique(np.quantile(confidence, np.linspace(0, 1, bins + 1))).astype(np.float64)
        # The same confidence must not fall into two bins, and the outermost ones reach to the ends.
        if len(edges) < 2:
            return np.array([0.0, 1.0])
        edges[0], edges[-1] = 0.0, max(1.0, edges[-1])
        return edges
    try:
        edges = np.asarray(bins, dtype=np.float64)
    except (TypeError, ValueError):
        edges = np.empty(0)
    if edges.ndim != 1 or len(edges) < 2 or not (np.diff(edges) > 0).all() or edges[0] > 0 or edges[-1] < 1:
        raise ValueError(f"The edges of bins must be numbers that rise from 0 to 1, but they are {short(bins)}.")
    return edges


@dataclass(frozen=True)
class _Sums:
    """Sums by cell (group and bin)."""

    number: Floats
    right: Floats
    confidence: Floats
    noise: Floats
    """Variance of the mean of right - confidence over tasks."""
    tasks: Floats
    """Kish's number of equally large tasks."""

    @classmethod
    def of(cls, stated: _Stated, cell: npt.NDArray[Any], cells: int) -> _Sums:
        """Add up the judgments of each cell."""
        c, r = stated.confidence, stated.right
        number = np.bincount(cell, minlength=cells).astype(np.float64)
        noise, tasks = _clustered(r - c, stated.task, cell, cells, number)
        return cls(number, _added(cell, r, cells), _added(cell, c, cells), noise, tasks)


def _added(cell: npt.NDArray[Any], values: Floats, cells: int) -> Floats:
    return np.bincount(cell, values, cells).astype(np.float64, copy=False)


def _clustered(
    values: Floats, task: npt.NDArray[Any], cell: npt.NDArray[Any], cells: int, number: Floats
) -> tuple[Floats, Floats]:
    """Variance of the mean of values in each cell with tasks as observations, and the number of tasks (Kish)."""
    mean = np.bincount(cell, values, cells) / np.maximum(number, 1)
    key = cell.astype(np.int64) * (int(task.max(initial=0)) + 1) + task
    found, inverse = np.unique(key, return_inverse=True)
    owner = found // (int(task.max(initial=0)) + 1)
    apart = np.bincount(inverse, values - mean[cell], len(found))
    size = np.bincount(inverse, minlength=len(found)).astype(np.float64)
    tasks = number**2 / np.maximum(np.bincount(owner, size**2, cells), 1)
    noise = np.bincount(owner, apart**2, cells) / np.maximum(number, 1) ** 2
    return noise * tasks / np.maximum(tasks - 1, 1), tasks


def _debiased(number: Floats, gap: Floats, noise: Floats) -> tuple[Floats, Floats]:
    """The calibration error of each row (groups x bins) without and with what noise adds."""
    weight = number / np.maximum(number.sum(axis=1, keepdims=True), 1)
    raw = (weight * np.abs(gap)).sum(axis=1)
    return (weight * np.sqrt(np.maximum(gap**2 - noise, 0))).sum(axis=1), raw


def _summary(stated: _Stated, sums: _Sums, groups: int, size: int) -> pd.DataFrame:
    shape = groups, size
    number = sums.number.reshape(shape)
    total = np.maximum(number.sum(axis=1), 1)
    right, confidence = sums.right.reshape(shape), sums.confidence.reshape(shape)
    safe = np.maximum(number, 1)
    gap = (confidence - right) / safe
    ece, raw = _debiased(number, gap, sums.noise.reshape(shape))
    accuracy, mean = right.sum(axis=1) / total, confidence.sum(axis=1) / total
    score = stated.confidence**2 - 2 * stated.confidence * stated.right + stated.right
    brier = np.bincount(stated.group, score, groups) / total
    given = np.bincount(stated.group, minlength=groups).astype(np.float64)
    gap_noise, tasks = _clustered(stated.confidence - stated.right, stated.task, stated.group, groups, given)
    brier_noise, _ = _clustered(score, stated.task, stated.group, groups, given)
    reach = stats.t.ppf(0.975, np.maximum(tasks - 1, 1))
    overall = accuracy[:, None]
    reliability = (number * gap**2).sum(axis=1) / total
    resolution = (number * (right / safe - overall) ** 2).sum(axis=1) / total
    uncertainty = accuracy * (1 - accuracy)
    enough = tasks >= _FEW
    half = reach * np.sqrt(gap_noise)
    low, high = mean - accuracy - half, mean - accuracy + half
    verdict = np.where(low > 0, "overconfident", np.where(high < 0, "underconfident", "no difference shown"))
    reasons = [
        "" if good else f"Too few tasks for an interval: {count:.0f}, and {_FEW} are needed."
        for good, count in zip(enough, tasks, strict=True)
    ]
    return pd.DataFrame(
        {
            "judgments": given.astype(np.int64),
            "tasks": np.bincount(
                np.unique(np.stack([stated.group, stated.task], axis=1), axis=0)[:, 0], minlength=groups
            ),
            "accuracy": accuracy,
            "confidence": mean,
            "gap": mean - accuracy,
            "gap_low": np.where(enough, low, np.nan),
            "gap_high": np.where(enough, high, np.nan),
            "verdict": np.where(enough, verdict, "too little data"),
            "ece": ece,
            "ece_raw": raw,
            "brier": brier,
            "brier_low": np.where(enough, np.maximum(brier - reach * np.sqrt(brier_noise), 0), np.nan),
            "brier_high": np.where(enough, np.minimum(brier + reach * np.sqrt(brier_noise), 1), np.nan),
            "reliability": reliability,
            "resolution": resolution,
            "uncertainty": uncertainty,
            "within": brier - (reliability - resolution + uncertainty),
            "reason": reasons,
        }
    )


def _add_ece_interval(
    table: pd.DataFrame,
    stated: _Stated,
    place: npt.NDArray[Any],
    groups: int,
    size: int,
    repetitions: int,
    seed: int,
) -> None:
    """Percentiles of the corrected error over resampled tasks, moved to where its own estimate lies."""
    low: Floats = np.full(groups, np.nan)
    high: Floats = np.full(groups, np.nan)
    if repetitions:
        rng = np.random.default_rng(seed)
        cell = stated.group * size + place
        apart = stated.right - stated.confidence
        number = np.bincount(cell, minlength=groups * size).astype(np.float64)
        noise = _clustered(apart, stated.task, cell, groups * size, number)[0]
        tasks = int(stated.task.max()) + 1
        drawn = np.empty((repetitions, groups))
        for turn in range(repetitions):
            weight = rng.poisson(1.0, tasks)[stated.task].astype(np.float64)
            number = _added(cell, weight, groups * size).reshape(groups, size)
            gap = _added(cell, weight * apart, groups * size).reshape(groups, size) / np.maximum(number, 1)
            # A resample is noisy twice: as the data are, and by being drawn.
            drawn[turn] = _debiased(number, gap, 2 * noise.reshape(groups, size))[0]
        low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
        ece = table["ece"].to_numpy()
        low, high = np.minimum(low, ece), np.maximum(high, ece)
        few = table["verdict"].to_numpy() == "too little data"
        low, high = np.where(few, np.nan, low), np.where(few, np.nan, high)
    where = int(table.columns.get_indexer(pd.Index(["ece"]))[0]) + 1
    table.insert(where, "ece_low", pd.Series(low))
    table.insert(where + 1, "ece_high", pd.Series(high))


def _reliability(sums: _Sums, edges: Floats, groups: int) -> pd.DataFrame:
    number = np.maximum(sums.number, 1)
    accuracy = sums.right / number
    plain = accuracy * (1 - accuracy) / number
    effect = np.maximum(number / np.maximum(sums.tasks, 1), 1.0)
    # Judgments of one task in one bin are taken to be alike: as many observations as tasks.
    size = number / effect
    z = stats.t.ppf(0.975, np.maximum(sums.tasks - 1, 1))
    middle = (accuracy + z**2 / (2 * size)) / (1 + z**2 / size)
    half = z / (1 + z**2 / size) * np.sqrt(plain * effect + z**2 / (4 * size**2))
    enough = sums.tasks >= 2
    return pd.DataFrame(
        {
            "edge_low": np.tile(edges[:-1], groups),
            "edge_high": np.tile(edges[1:], groups),
            "judgments": sums.number.astype(np.int64),
            "confidence": sums.confidence / number,
            "accuracy": accuracy,
            "low": np.where(enough, np.maximum(middle - half, 0), np.nan),
            "high": np.where(enough, np.minimum(middle + half, 1), np.nan),
            "reason": np.where(enough, "", "One task only, which is too few for an interval."),
        }
    )


def _sure_and_wrong(stated: _Stated) -> pd.DataFrame:
    found = np.flatnonzero((stated.confidence >= _HIGH) & (stated.right <= 1 - _HIGH))
    coded, rows = stated.coded, stated.rows[found]
    frame = pd.DataFrame(
        {
            "task": coded.tasks.take(coded.task[rows]),
            "annotator": coded.annotators.take(coded.annotator[rows]),
            "label": coded.categories.take(coded.value[rows]),
            "confidence": stated.confidence[found],
            "probability": stated.right[found],
        }
    )
    return frame.sort_values(["confidence", "probability"], ascending=[False, True], kind="stable", ignore_index=True)


def _agreed_and_unsure(stated: _Stated) -> pd.DataFrame:
    coded = stated.coded
    tasks = len(coded.tasks)
    low, high = np.full(tasks, len(coded.categories)), np.full(tasks, -1)
    np.minimum.at(low, coded.task, coded.value)
    np.maximum.at(high, coded.task, coded.value)
    number = np.bincount(stated.task, minlength=tasks)
    mean = np.bincount(stated.task, stated.confidence, tasks) / np.maximum(number, 1)
    found = np.flatnonzero((low == high) & (number >= 2) & (mean <= _LOW))
    frame = pd.DataFrame(
        {
            "task": coded.tasks.take(found),
            "label": coded.categories.take(high[found]),
            "judgments": number[found],
            "confidence": mean[found],
        }
    )
    return frame.sort_values("confidence", kind="stable", ignore_index=True)


def _no_calibration(by: tuple[str, ...], stated: _Stated) -> Calibration:
    reason = "No judgment has both a confidence and a task whose answer is known."
    empty = pd.DataFrame({name: [] for name in by})
    return Calibration(empty, empty, _sure_and_wrong(stated), _agreed_and_unsure(stated), by, stated.reference, reason)


# --- Recalibration ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recalibration:
    """What stated confidences are worth, for everybody and for each annotator."""

    method: Literal["platt", "isotonic"]
    annotators: pd.DataFrame
    """Indexed by annotator: ``judgments``, and for ``platt`` the ``shift`` of their log-odds against everybody's."""
    intercept: float
    slope: float
    curve: tuple[Floats, Floats]
    """For ``isotonic``: confidences, and what they are worth for everybody."""
    curves: dict[Any, tuple[Floats, Floats, float]]
    """For ``isotonic``: the same for each annotator, and how much their own curve counts (0 to 1)."""

    def apply(self, judgments: pd.DataFrame) -> pd.Series[Any]:
        """The probability that each judgment is right, given its confidence and who made it; NaN without one.

        Raises:
            BadJudgments: the frame has no column ``annotator`` or ``confidence``, or no numbers from 0 to 1 there.
        """
        confidence = confidences(judgments)
        known = ~np.isnan(confidence)
        worth = np.full(len(confidence), np.nan)
        who = judgments["annotator"]
        if self.method == "platt":
            shift = who.map(self.annotators["shift"]).fillna(0.0).to_numpy(dtype=np.float64)
            odds = logit(np.clip(confidence[known], _EDGE, 1 - _EDGE))
            worth[known] = expit(self.intercept + self.slope * odds + shift[known])
        else:
            worth[known] = np.interp(confidence[known], *self.curve)
            for name, rows in pd.Series(np.flatnonzero(known)).groupby(who[known].to_numpy()):
                if name in self.curves:
                    x, y, share = self.curves[name]
                    place = rows.to_numpy()
                    worth[place] = share * np.interp(confidence[place], x, y) + (1 - share) * worth[place]
        return pd.Series(worth, index=judgments.index, name="confidence")

    def explain(self) -> str:
        """The result in two plain sentences."""
        if self.method == "isotonic":
            x, y = self.curve
            return (
                f"A stated confidence of {x[0]:.2f} is worth {y[0]:.2f}, and one of {x[-1]:.2f} is worth {y[-1]:.2f}. "
                f"{len(self.curves)} annotators have a curve of their own, drawn towards everybody's."
            )
        worth = expit(self.intercept + self.slope * logit(0.9))
        shift = self.annotators["shift"]
        return (
            f"A stated confidence of .90 is worth {worth:.2f}. Annotators differ from that by {shift.min():+.2f} to "
            f"{shift.max():+.2f} in log-odds."
        )


def recalibrate(
    judgments: pd.DataFrame,
    truth: Known = None,
    *,
    method: Literal["platt", "isotonic"] = "platt",
    strength: float = 20.0,
) -> Recalibration:
    """Learn what a stated confidence is worth.

    ``platt`` (Platt 1999) fits a line through the log-odds of everybody, and a shift for each annotator that is
    drawn to zero; ``isotonic`` fits a rising curve, and one for each annotator that is drawn to everybody's. Both
    need ``strength`` judgments before somebody's own data count as much as everybody's.

    >>> rng = np.random.default_rng(0)
    >>> sure = rng.uniform(0.5, 1, 2000)
    >>> frame = pd.DataFrame({"task": np.arange(2000) // 2, "annotator": np.arange(2000) % 2, "confidence": sure})
    >>> frame["gold"] = "yes"
    >>> frame["value"] = np.where(rng.random(2000) < sure - 0.2, "yes", "no")
    >>> found = recalibrate(frame, method="isotonic")
    >>> bool(abs((found.apply(frame) - (sure - 0.2)).mean()) < 0.02)
    True

    Args:
        judgments: one label for each judgment, and ``confidence``.
        truth: as for :func:`calibration`.
        method: ``platt`` or ``isotonic``.
        strength: pseudo-judgments of everybody in each annotator's own.

    Raises:
        BadJudgments: the frame is not what it must be, or no judgment can be compared.
    """
    check_choice("method", method, ("platt", "isotonic"))
    check_number("strength", strength, 0)
    stated = _Stated.of(judgments, truth, ())
    if not len(stated.rows):
        raise BadJudgments("No judgment has both a value in the column 'confidence' and a task whose answer is known.")
    coded = stated.coded
    who = coded.annotator[stated.rows]
    people = len(coded.annotators)
    given = np.bincount(who, minlength=people)
    table = pd.DataFrame({"judgments": given}, index=coded.annotators.rename("annotator"))
    if method == "isotonic":
        everybody = _isotonic(stated.confidence, stated.right)
        curves = {}
        for person in np.flatnonzero(given >= 2).tolist():
            own = who == person
            x, y = _isotonic(stated.confidence[own], stated.right[own])
            curves[coded.annotators[person]] = x, y, float(given[person] / (given[person] + strength))
        return Recalibration(method, table, 0.0, 1.0, everybody, curves)
    odds = logit(np.clip(stated.confidence, _EDGE, 1 - _EDGE))
    intercept, slope, shift = _platt(odds, stated.right, who, people, strength)
    flat: Floats = np.array([0.0, 1.0])
    return Recalibration(method, table.assign(shift=shift), intercept, slope, (flat, flat), {})


def _isotonic(confidence: Floats, right: Floats) -> tuple[Floats, Floats]:
    from sklearn.isotonic import IsotonicRegression

    found = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(confidence, right)
    return np.asarray(found.X_thresholds_, dtype=np.float64), np.asarray(found.y_thresholds_, dtype=np.float64)


def _platt(
    odds: Floats, right: Floats, who: npt.NDArray[Any], people: int, strength: float
) -> tuple[float, float, Floats]:
    """A logistic regression with one shift for each annotator, by Newton's method in turns."""
    intercept, slope = 0.0, 1.0
    shift: Floats = np.zeros(people)
    # A judgment is worth about .25 in the curvature, so this is the precision of `strength` judgments.
    ridge = max(strength, 1e-9) * 0.25
    for _ in range(100):
        before = intercept, slope
        chance = expit(intercept + slope * odds + shift[who])
        weight = chance * (1 - chance) + 1e-9
        left = right - chance
        # A weak prior keeps the line finite where everything is right.
        hessian = np.array(
            [
                [weight.sum() + 0.1, (weight * odds).sum()],
                [(weight * odds).sum(), (weight * odds**2).sum() + 0.1],
            ]
        )
        gradient = np.array([left.sum() - 0.1 * intercept, (left * odds).sum() - 0.1 * (slope - 1)])
        step = np.clip(np.linalg.solve(hessian, gradient), -1, 1)
        intercept, slope = intercept + float(step[0]), slope + float(step[1])
        chance = expit(intercept + slope * odds + shift[who])
        pull = np.bincount(who, right - chance, people) - ridge * shift
        bend = np.bincount(who, chance * (1 - chance), people) + ridge
        shift = shift + np.clip(pull / bend, -1, 1)
        if abs(intercept - before[0]) + abs(slope - before[1]) < 1e-8:
            break
    return intercept, slope, shift


def confidence_weighted(judgments: pd.DataFrame, *, use_gold: bool = True, strength: float = 20.0) -> Truth:
    """The consensus in which a judgment counts by what its confidence is worth.

    The truth is inferred without confidences, then confidences are recalibrated against it for each annotator, and
    each vote counts with the log-odds of its recalibrated confidence. Judgments without a confidence count with
    their annotator's mean. Worth it where confidence tells right from wrong; otherwise it is the accuracy of each
    annotator that remains.

    >>> frame = pd.DataFrame({"task": [1, 1, 2, 2], "annotator": [1, 2] * 2, "value": list("aabb")})
    >>> confidence_weighted(frame.assign(confidence=[0.9, 0.8, 0.9, 0.6])).labels.to_dict()
    {1: 'a', 2: 'b'}

    Args:
        judgments: one label for each judgment, and ``confidence``.
        use_gold: whether known answers are taken as they are.
        strength: as for :func:`recalibrate`.

    Raises:
        BadJudgments: the frame is not what it must be.
    """
    check_flag("use_gold", use_gold)
    check_number("strength", strength, 0)
    coded = read(judgments, needs=["confidence"], least=1, repeats=True)
    first = infer_truth(coded, use_gold=use_gold)
    worth: Floats = recalibrate(judgments, first, strength=strength).apply(coded.frame).to_numpy()
    absent = np.isnan(worth)
    if absent.any():
        people = len(coded.annotators)
        number = np.bincount(coded.annotator[~absent], minlength=people)
        mean = np.bincount(coded.annotator[~absent], worth[~absent], people) / np.maximum(number, 1)
        own = first.annotators["accuracy"].fillna(0.5).to_numpy()
        worth = np.where(absent, np.where(number > 0, mean, own)[coded.annotator], worth)
    labels = max(len(coded.categories), 2)
    worth = np.clip(worth, 0.5 / labels, 0.99)
    votes = Votes(coded, gold=coded.gold() if use_gold else None, repeats="count")
    weight = np.log(worth * (labels - 1) / (1 - worth))
    key = coded.task.astype(np.int64) * len(coded.categories) + coded.value
    scores = np.bincount(key, weight, len(coded.tasks) * len(coded.categories)).reshape(len(coded.tasks), -1)
    shares = first.posterior.to_numpy().mean(axis=0)
    scores += 0.5 * np.log(np.maximum(shares, 1e-10))
    scores -= scores.max(axis=1, keepdims=True)
    posterior = np.exp(scores)
    posterior /= posterior.sum(axis=1, keepdims=True)
    known = np.flatnonzero(votes.gold >= 0)
    posterior[known] = 0.0
    posterior[known, votes.gold[known]] = 1.0
    fitted = Fitted(posterior, shares, 1, True, chances=first.chances)
    return make_truth(coded, votes, fitted, "confidence_weighted")
