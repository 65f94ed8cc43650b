"""The score of a change: how far what is seen after a day lies from what earlier work lets expect.

For one annotator and one measure, let ``y`` be summed by day ``d`` and stratum ``s`` (``n[d, s]`` judgments). Without
a change,

    E y[d, s] = n[d, s] * (level[s] + pace[s] * slopes[group of s] . experience[d]),

every stratum with a level of its own, and every annotator with a learning curve of their own, which shows where there
is something to learn: ``pace`` is the share of errors of the stratum. A change at day ``c``
adds ``size`` to every judgment from then on. Its score is the sum of residuals after ``c``, weighted by ``weight[s]``
(strata in which little varies tell more); what the levels and the learning curve explain of the step is taken out of
it (Frisch and Waugh), so that neither a mix of tasks nor learning looks like a change. The sums of one day are one
observation.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

from labelguard_analytics.frames import Floats

Ints = npt.NDArray[np.int64]

EARLY = 150.0
"""So many judgments is the scale of fast early learning."""
_RIDGE = 1e-9
LAGS = 4
"""Working days that may resemble each other: the rest of a week."""


def experience(before: Floats, today: Floats) -> Floats:
    """What a typical judgment of a day builds on (two curves x days).

    The first curve is the logarithm of the judgments made before, for slow learning without end; the second falls off
    within some hundred judgments, for people who learn fast and then stay where they are. Both together follow
    exponential learning curves of any pace to within a point after the first hundred judgments.

    Args:
        before: judgments made before each day.
        today: judgments made on each day; at least 1.
    """
    after = before + today
    slow = (gammaln(after + 1) - gammaln(before + 1)) / today
    fast = np.exp(-before / EARLY) * -np.expm1(-today / EARLY) / (-np.expm1(-1 / EARLY) * today)
    return np.stack([slow / 3, fast])


def summed(key: Ints, values: Floats, size: int) -> Floats:
    """Sums of what has the same key, from 0 up to ``size``."""
    return np.bincount(key, weights=values, minlength=size).astype(np.float64, copy=False)


def slopes(moment: Floats, judgments: Floats | float, first: Floats, second: Floats) -> Floats:
    """Slopes on the two curves by least squares (2 x ...), of what has the products ``first`` and ``second`` with them.

    Args:
        moment: weighted squares, cross products and squares of the curves (3 x ...).
        judgments: their weighted number.
        first: the weighted products with the first curve; may have one more axis than a moment, before the last.
        second: those with the second curve.
    """
    a, b, c = moment
    # Next to nothing where the curves can be told apart; where they cannot, both stay finite.
    ridge = _RIDGE * judgments + 1e-12
    a, c = a + ridge, c + ridge
    if 0 < np.ndim(a) < first.ndim:
        a, b, c = a[..., None, :], b[..., None, :], c[..., None, :]
    determinant = a * c - b * b
    return np.stack([(c * first - b * second) / determinant, (a * second - b * first) / determinant])


@dataclass(frozen=True)
class Work:
    """One annotator's days and strata, and how they may be weighted."""

    day: Ints
    """Places of the days in the calendar of the sweep, ascending."""
    n: Floats
    """Judgments (days x strata)."""
    curves: Floats
    """Experience (2 x days)."""
    known: dict[bytes, tuple[Floats, list[Floats]]] = field(default_factory=dict, repr=False)
    """What :meth:`steps` worked out."""

    def of(self, strata: Ints) -> Work:
        """The same for some strata."""
        return Work(self.day, self.n[:, strata], self.curves)

    @cached_property
    def sizes(self) -> Floats:
        """Judgments of each stratum."""
        return np.asarray(self.n.sum(axis=0))

    @cached_property
    def means(self) -> Floats:
        """Mean experience in each stratum (2 x strata)."""
        return np.asarray(self.curves @ self.n / self.sizes)

    @cached_property
    def moments(self) -> Floats:
        """Centred squares and products of the curves in each stratum (3 x strata)."""
        slow, fast = self.curves
        raw = np.stack([slow * slow, slow * fast, fast * fast]) @ self.n
        a, b = self.means
        return np.asarray(raw - self.sizes * np.stack([a * a, a * b, b * b]))

    def steps(self, places: Ints) -> tuple[Floats, list[Floats]]:
        """The share of each stratum after each place, and its centred products with the curves (places x strata)."""
        key = places.tobytes()
        if key not in self.known:
            share = self.after(self.n, places) / self.sizes
            products = [
                self.after(self.n * curve[:, None], places) - self.sizes * share * mean
                for curve, mean in zip(self.curves, self.means, strict=True)
            ]
            self.known[key] = share, products
        return self.known[key]

    def after(self, values: Floats, places: Ints) -> Floats:
        """Sums of rows of ``values`` from each place on (places x columns)."""
        parts = np.zeros((len(places), values.shape[1]))
        inside = places < len(values)
        if inside.any():
            bounds = places[inside]
            sums = np.add.reduceat(values, bounds, axis=0)
            sums[:-1][bounds[1:] == bounds[:-1]] = 0.0  # no day lies between two changes
            parts[inside] = sums
        return np.asarray(np.cumsum(parts[::-1], axis=0)[::-1])


@dataclass(frozen=True)
class Profile:
    """One series at a number of possible changes; scores, their scales and their parts by day (days x changes)."""

    score: Floats
    step: Floats
    """The weighted step that is left after levels and learning: what a common shock of a day adds to the score."""
    info: Floats
    """What a change of size 1 adds to the score."""
    model: Floats
    """The variance of the score, were judgments independent (changes)."""
    residual: Floats
    """The weighted residuals (days)."""
    noise: Floats
    """Their variance, were judgments independent (days)."""

    def on(self, day: Ints, days: int) -> Profile:
        """The same on a calendar of so many days, in which ``day`` are the places of these."""

        def wide(values: Floats) -> Floats:
            found = np.zeros((days, *values.shape[1:]))
            found[day] = values
            return found

        return Profile(
            wide(self.score), wide(self.step), wide(self.info), self.model, wide(self.residual), wide(self.noise)
        )

    def plus(self, other: Profile) -> Profile:
        """Two annotators' together, on the same days."""
        return Profile(
            self.score + other.score,
            self.step + other.step,
            self.info + other.info,
            self.model + other.model,
            self.residual + other.residual,
            self.noise + other.noise,
        )


def profile(
    work: Work,
    y: Floats,
    weight: Floats,
    upper: Floats,
    pace: Floats,
    variance: Floats,
    places: Ints,
    shock: Floats | None = None,
) -> Profile:
    """The scores of one series at changes before each of ``places`` (places in ``work.day``).

    Args:
        work: the annotator's days.
        y: sums (days x strata).
        weight: of each stratum.
        upper: 1 for strata whose learning curve is that of the second group, else 0.
        pace: how strongly learning shows in each stratum, next to others of its group.
        variance: of a single judgment in each stratum.
        places: where the changes begin.
        shock: what happened to everybody else on each day, per weighted judgment; taken away.
    """
    bears = np.flatnonzero(weight > 0)
    if len(bears) < len(weight):
        return profile(
            work.of(bears), y[:, bears], weight[bears], upper[bears], pace[bears], variance[bears], places, shock
        )
    n, curves, means = work.n, work.curves, work.means
    level = y.sum(axis=0) / work.sizes
    values = curves @ y - work.sizes * level * means
    share, steps = work.steps(places)
    after = (np.arange(len(n))[:, None] >= places[None, :]).astype(np.float64)
    residual = y - n * level
    fixed = share.copy()  # with what is learnt, what levels and learning explain of the step (changes x strata)
    spread = weight**2 * variance
    model = (work.sizes * share * (1 - share)) @ spread
    learnt = []
    for group in (np.flatnonzero(upper <= 0), np.flatnonzero(upper > 0)):
        if not len(group):
            continue
        near, paced = pace[group], weight[group] * pace[group]
        moments = work.moments[:, group]
        moment, judged = moments @ (paced * near), float(work.sizes[group] @ weight[group])
        slope = slopes(moment, judged, *(values[:, group] @ paced))
        residual[:, group] -= n[:, group] * near * ((curves.T @ slope)[:, None] - slope @ means[:, group])
        products = [step[:, group] for step in steps]
        kappa = slopes(moment, judged, *(product @ paced for product in products))
        fixed[:, group] -= (kappa.T @ means[:, group]) * near
        one, two = kappa
        scaled = spread[group] * near
        a, b, c = moments @ (scaled * near)
        model += one**2 * a + 2 * one * two * b + two**2 * c
        model -= 2 * (one * (products[0] @ scaled) + two * (products[1] @ scaled))
        learnt.append((group, paced, curves.T @ kappa))
    score = after * (residual @ weight)[:, None] - residual @ (weight * fixed).T
    lying = n @ (weight * fixed).T
    step = after * (n @ weight)[:, None] - lying
    info = after * ((n @ weight)[:, None] - 2 * lying) + n @ (weight * fixed**2).T
    for group, paced, curve in learnt:
        some = n[:, group]
        plain = some @ paced
        score -= curve * (residual[:, group] @ paced)[:, None]
        step -= curve * plain[:, None]
        info += curve**2 * (some @ (paced * pace[group]))[:, None]
        info -= 2 * curve * (after * plain[:, None] - some @ (paced * fixed[:, group]).T)
    rest = residual @ weight
    if shock is not None:
        score -= step * shock[:, None]
        rest = rest - (n @ weight) * shock
    return Profile(score, step, info, model, rest, n @ spread)


@dataclass(frozen=True)
class Tests:
    """A series at every possible change."""

    size: Floats
    error: Floats
    """Standard error of the size."""
    t: Floats
    df: Floats


def significance(found: Profile, places: Ints) -> Tests:
    """How far each score lies from nought.

    Its variance is the larger of two: that of independent judgments times how much more the residuals of all days
    vary than that (and carry over to the next days), and that of the very days of the score around the change. The
    first is steady, the second knows a wild week.
    """
    total, info = found.score.sum(axis=0), found.info.sum(axis=0)
    size = np.divide(total, info, out=np.zeros_like(total), where=info > 0)
    days = len(found.residual)
    left = found.residual[:, None] - size * found.step
    spread = _long_run(left) / max(float(found.noise.sum()), 1e-12)
    own = found.score - size * found.info
    after = np.arange(days)[:, None] >= places[None, :]
    number = after.sum(axis=0)
    clustered = np.zeros(len(places))
    for side, count in ((after, number), (~after, days - number)):
        clustered += np.sum(own**2 * side, axis=0) * count / np.maximum(count - 1, 1)
    variance = np.maximum(found.model * np.maximum(spread, 1.0), clustered + _carried(own))
    error = np.sqrt(np.divide(variance, info**2, out=np.full_like(variance, np.inf), where=info > 0))
    t = np.divide(size, error, out=np.zeros_like(size), where=np.isfinite(error) & (error > 0))
    return Tests(size, error, t, np.full(len(places), max(days / 2, 2.0)))


def _long_run(values: Floats) -> Floats:
    return np.asarray(np.sum(values**2, axis=0) + _carried(values))


def _carried(values: Floats) -> Floats:
    """What neighbouring days that are alike add to a variance (Newey and West 1987); nothing where they are not."""
    lagged = np.zeros(values.shape[1])
    for lag in range(1, min(LAGS, len(values) - 1) + 1):
        lagged += 2 * (1 - lag / (LAGS + 1)) * np.sum(values[lag:] * values[:-lag], axis=0)
    return np.maximum(lagged, 0.0)
