"""The additive model of log time, fitted by backfitting with redescending weights.

Log seconds are a sum: a common level and slopes, an annotator's level and slopes, a task's level, and noise.
Annotators and tasks are random effects, so that whoever has little data is drawn to the common value (Henderson
1975); their variances are estimated by expectation-maximisation on the way. Judgments far off count little, and very
far off not at all (Tukey's biweight, Beaton and Tukey 1974), each on the scale of its annotator. The blocks are
solved in turn (Buja, Hastie and Tibshirani 1989); the common slopes together with the tasks, because a covariate such
as length is a property of tasks and would be learnt slowly otherwise. Every step is a handful of sums over judgments.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from labelguard_analytics.frames import Floats

Ints = npt.NDArray[np.int64]

STEPS = 40
CLOSE = 2e-4
"""Stop when no fitted value of the last step moved by more than this (in log seconds), on average."""
TUKEY = 4.685
"""Where the biweight ends, in standard deviations: 95% efficiency for normal noise."""
POOL = 20.0
"""An annotator's own spread counts as much as the common one from this many judgments on."""
PRIOR, USUAL = 5.0, 0.0025
"""How slopes are thought to vary before any data: by 5 points, worth so many annotators. Few annotators alone often
seem not to differ at all, and everybody's interval would then be far too narrow."""
NORMAL = 0.7275
"""The mean distance of standard normal values weighted so."""
MANY = 8
"""From so many sessions on an annotator's intervals take sessions as observations."""


@dataclass(frozen=True)
class Design:
    """What the model is fitted to; one row for each judgment."""

    y: Floats
    """Log seconds."""
    annotator: Ints
    task: Ints
    session: Ints
    common: Floats
    """Columns with a common slope, the first all ones (judgments x columns)."""
    own: Floats
    """Columns with a slope for each annotator, the first all ones, the others centred for each annotator."""
    annotators: int
    tasks: int


@dataclass(frozen=True)
class Fit:
    """The fitted parts."""

    common: Floats
    common_error: Floats
    annotator: Floats
    """Deviations from the common level and slopes (annotators x own columns)."""
    annotator_cov: Floats
    """Their covariances (annotators x columns x columns)."""
    task: Floats
    task_variance: Floats
    """Of the estimate of each task's level."""
    spread: Floats
    """The standard deviation of the noise of each annotator."""
    tau_annotator: Floats
    """Variances of annotators' deviations (one for each own column)."""
    tau_task: float
    tau_session: float
    """Variance of sessions of one annotator around what the model says."""
    expected: Floats
    """Log seconds expected for each judgment, had it not been there itself."""
    z: Floats
    """Distance from it in standard deviations, the uncertainty of the expectation included."""
    steps: int


def fit(design: Design) -> Fit:
    """Fit the model; a million judgments take a few seconds."""
    who, task = design.annotator, design.task
    people, tasks = design.annotators, design.tasks
    own, common = list(np.ascontiguousarray(design.own.T)), list(np.ascontiguousarray(design.common.T))
    width, shift = len(own), len(common) - len(own)
    beta: Floats = np.zeros(len(common))
    beta[0] = float(np.median(design.y))
    spread: Floats = np.full(people, float(np.median(np.abs(design.y - beta[0]))) / 0.6745 or 1e-3)
    tau_a, tau_t = np.concatenate([[0.1], np.full(width - 1, 0.01)]), 0.1
    part_a: Floats = np.zeros(len(who))
    fitted: Floats = np.full(len(who), beta[0])
    a: Floats = np.zeros((people, width))
    followed = 0.0
    for steps in range(1, STEPS + 1):
        residual = design.y - fitted
        # Residuals are smaller than the noise, because the parts followed it.
        spread = _spread(residual / np.sqrt(1.0 - followed), who, people, spread)
        w = _weights(residual / spread[who], redescend=steps > 3) / spread[who] ** 2
        # Tasks and common slopes are solved for together: what a column tells is what its task's level leaves of it.
        sum_t = np.bincount(task, w, tasks)
        shrunk = 1.0 / (sum_t + 1.0 / tau_t)
        followed = min(0.8, (float(sum_t @ shrunk) + min(width * people, len(who) // 4)) / len(who))
        target = design.y - part_a
        columns, by_task = _eliminate(common, w, task, tasks)
        goal = np.bincount(task, w * target, tasks)
        left = columns - (by_task * shrunk) @ by_task.T
        right = np.array([c @ (w * target) for c in common]) - (by_task * shrunk) @ goal
        beta = np.asarray(np.linalg.lstsq(left, right, rcond=None)[0], dtype=np.float64)
        t = (goal - beta @ by_task) * shrunk
        tau_t = float(np.clip(np.mean(t**2 + shrunk), 1e-5, 10.0))
        rest = design.y - design.common @ beta - t[task]
        score = np.column_stack([np.bincount(who, w * rest * z, people) for z in own])
        cov = np.linalg.inv(_grams(own, w, who, people) + np.diag(1.0 / tau_a))
        a = np.einsum("aij,aj->ai", cov, score).astype(np.float64)
        found = np.sum(a**2 + np.einsum("aii->ai", cov), axis=0)
        tau_a = np.clip((found + PRIOR * USUAL) / (people - 1 + PRIOR), 1e-6, 10.0)
        # Deviations have mean 0; without this the common slope would follow them one small step at a time.
        mean = a.mean(axis=0)
        a -= mean
        beta[0] += mean[0]
        beta[1 + shift :] += mean[1:]
        part_a = np.einsum("ij,ij->i", design.own, a[who])
        new = design.common @ beta + part_a + t[task]
        moved = float(np.mean(np.abs(new - fitted)))
        fitted = new
        if steps > 5 and moved < CLOSE:
            break
    parts = Parts(beta, a, tau_a, t, tau_t, spread, followed)
    return _finish(design, fitted, w, parts, steps)


@dataclass(frozen=True)
class Parts:
    """Where the iteration ended."""

    beta: Floats
    a: Floats
    tau_a: Floats
    t: Floats
    tau_t: float
    spread: Floats
    followed: float
    """The share of the noise that the parts followed."""


def _eliminate(common: list[Floats], w: Floats, task: Ints, tasks: int) -> tuple[Floats, Floats]:
    """Weighted products of the common columns, and their weighted sums by task."""
    by_task: Floats = np.stack([np.bincount(task, w * c, tasks).astype(np.float64) for c in common])
    return np.array([[c @ (w * d) for d in common] for c in common]), by_task


def _finish(design: Design, fitted: Floats, w: Floats, parts: Parts, steps: int) -> Fit:
    who, task = design.annotator, design.task
    residual = design.y - fitted
    sum_t = np.bincount(task, w, design.tasks)
    shrunk = 1.0 / (sum_t + 1.0 / parts.tau_t)
    # What a judgment tells about its annotator is less where it is also needed to know its task.
    cost = _cost(residual / np.sqrt(1.0 - parts.followed) / parts.spread[who])
    told = w * (1.0 - w * shrunk[task]) / cost
    gram = _grams(list(np.ascontiguousarray(design.own.T)), told, who, design.annotators)
    cov: Floats = np.linalg.inv(gram + np.diag(1.0 / parts.tau_a)).astype(np.float64)
    variance_t = 1.0 / (sum_t / cost + 1.0 / parts.tau_t)
    variance_a = np.einsum("ij,ijk,ik->i", design.own, cov[who], design.own, optimize=True)
    # What a judgment adds to its own expectation is taken away again: nobody is their own yardstick.
    pull = np.minimum(w * (shrunk[task] + variance_a), 0.95)
    expected = design.y - residual / (1.0 - pull)
    doubt = (variance_t[task] + variance_a) / (1.0 - pull)
    z = (design.y - expected) / np.sqrt(parts.spread[who] ** 2 + doubt)
    robust = _clustered(design, w * residual, cov)
    common_error = _common_errors(design, w, residual, gram, parts)
    # Somebody's slope is the common one and a deviation; the common one is not sure either.
    shift = design.common.shape[1] - design.own.shape[1]
    share = np.einsum("aii->ai", cov) / parts.tau_a
    for j in range(1, design.own.shape[1]):
        robust[:, j, j] += (share[:, j] * common_error[shift + j]) ** 2
    return Fit(
        parts.beta,
        common_error,
        parts.a,
        robust,
        parts.t,
        variance_t,
        parts.spread,
        parts.tau_a,
        parts.tau_t,
        _between_sessions(design, residual, parts.spread),
        expected,
        z,
        steps,
    )


def _cost(z: Floats) -> float:
    """By how much more a mean with these weights varies than the sum of the weights says (Huber 1981, 3.2)."""
    inside = np.clip(1.0 - (z / TUKEY) ** 2, 0.0, None)
    psi = z * inside**2
    slope = inside * (1.0 - 5.0 * (z / TUKEY) ** 2)
    return max(1.0, float(np.mean(inside**2) * np.mean(psi**2) / max(float(np.mean(slope)), 0.1) ** 2))


def _between_sessions(design: Design, residual: Floats, spread: Floats) -> float:
    """The mean product of two residuals of one session."""
    cut = np.clip(residual, -3.0 * spread[design.annotator], 3.0 * spread[design.annotator])
    sums, size = np.bincount(design.session, cut), np.bincount(design.session)
    pairs = float(np.sum(size * (size - 1.0)))
    return max(0.0, (float(sums @ sums) - float(cut @ cut)) / pairs) if pairs else 0.0


def _clustered(design: Design, scores: Floats, cov: Floats) -> Floats:
    """Covariances of annotators' effects; with sessions as observations where that says more."""
    who = design.annotator
    sessions = int(design.session.max()) + 1
    person = np.empty(sessions, dtype=np.int64)
    person[design.session] = who
    g = [np.bincount(design.session, scores * z, sessions) for z in design.own.T]
    meat = np.empty_like(cov)
    for i, first in enumerate(g):
        for j, second in enumerate(g):
            meat[:, i, j] = np.bincount(person, first * second, design.annotators)
    number = np.bincount(person, minlength=design.annotators)
    factor = np.where(number >= MANY, number / np.maximum(number - 1, 1), 0.0)
    sandwich = np.einsum("aij,ajk,akl->ail", cov, meat, cov) * factor[:, None, None]
    robust = cov.copy()
    for i in range(design.own.shape[1]):
        robust[:, i, i] = np.maximum(sandwich[:, i, i], cov[:, i, i])
    return robust


def _common_errors(design: Design, w: Floats, residual: Floats, gram: Floats, parts: Parts) -> Floats:
    """Standard errors of the common slopes: tasks are the observations for covariates, annotators for the others."""
    common = list(np.ascontiguousarray(design.common.T))
    shrunk = 1.0 / (np.bincount(design.task, w, design.tasks) + 1.0 / parts.tau_t)
    columns, by_task = _eliminate(common, w, design.task, design.tasks)
    bread = np.linalg.pinv(columns - (by_task * shrunk) @ by_task.T)
    # With the task's level put back, the residual is what the slope has to explain.
    whole = residual + parts.t[design.task]
    scores = np.stack([np.bincount(design.task, w * whole * c, design.tasks) for c in common])
    scores -= by_task * shrunk * np.bincount(design.task, w * whole, design.tasks)
    variance = np.diag(bread @ (scores @ scores.T) @ bread.T).copy()
    shift = design.common.shape[1] - design.own.shape[1]
    known = np.einsum("aii->ai", np.linalg.pinv(gram))
    for j in range(design.own.shape[1]):
        # Everybody has a slope of their own, so the common one is also a mean over people (DerSimonian and Laird 1986).
        varies = np.einsum("aii->ai", gram)[:, j] > 0
        if varies.any():
            own = known[varies, j]
            variance[0 if j == 0 else shift + j] += 1.0 / np.sum(1.0 / (parts.tau_a[j] + own)) - 1.0 / np.sum(1.0 / own)
    return np.asarray(np.sqrt(variance), dtype=np.float64)


def _weights(z: Floats, *, redescend: bool) -> Floats:
    if redescend:
        inside = np.clip(1.0 - (z / TUKEY) ** 2, 0.0, None)
        return np.asarray(inside**2, dtype=np.float64)
    return np.asarray(1.345 / np.maximum(np.abs(z), 1.345), dtype=np.float64)


def _spread(residual: Floats, who: Ints, people: int, before: Floats) -> Floats:
    """Each annotator's standard deviation from weighted mean distances, drawn to the common one.

    Weights end at a multiple of the scale that is halfway to the common one: somebody who rushes every fifth
    judgment should not seem to be just irregular.
    """
    distance = np.abs(residual)
    scale = np.sqrt(before * np.median(before))
    w = _weights(distance / scale[who], redescend=True)
    sums, size = np.bincount(who, w * distance, people), np.bincount(who, w, people)
    together = float(sums.sum()) / max(float(size.sum()), 1e-9)
    return np.asarray(np.maximum((sums + POOL * together) / (size + POOL) / NORMAL, 1e-3), dtype=np.float64)


def _grams(own: list[Floats], w: Floats, who: Ints, people: int) -> Floats:
    width = len(own)
    table = np.empty((people, width, width))
    for i in range(width):
        for j in range(i, width):
            table[:, i, j] = table[:, j, i] = np.bincount(who, w * own[i] * own[j], people)
    return table
