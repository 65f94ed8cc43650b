"""What somebody would have said, given all that was said about the same task: the engine of several tests.

If the annotators of a task were alike, the labels it got could be theirs in any order: of ``n`` annotators of whom
``m`` used a label, each is one of the ``m`` with probability ``m/n``. This holds whatever the task is, how hard it is
and who got which mix of tasks, so none of that has to be modelled (conditional logistic regression, Breslow and Day
1980, chapter 7). People are not alike, so everybody has an odds of being the one who deviates from the task's reference
(its known answer, else its majority), and habits of deviating to certain labels; both are estimated, drawn to the
common value where data is scarce, and used for the colleagues somebody is compared with.

A **mark** is a kind of deviation that is asked about ("to this label", "to the prediction", "to this label in this
source"). Its test is a score test (Rao 1948): how often the mark occurs, against what the annotator's other deviations
lead to expect, where the odds may already be ``tolerance`` times as large, because honest people differ. The score's
distribution is taken with its skewness (Pearson's type III), because rare deviations are few.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from labelguard_analytics.frames import Coded, Floats

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

ROUNDS = 6
CAUTION = 0.25
"""Precision of the prior of an annotator's log odds of deviating."""
HABIT = 4.0
"""Precision of the prior of a habit: half of them within a third of the odds."""
WIDE = 5.0
"""Log odds ratios are not followed further than this."""
Z95 = 1.959964


@dataclass(frozen=True)
class Options:
    """Every judgment of a task on which people differ, with every label that was said there.

    The first group of arrays has an entry for each such judgment, the second for each of its options.
    """

    judgment: Ints
    """The row of the coded judgments."""
    who: Ints

    row: Ints
    """The option's judgment, counted in the first group; does not decrease."""
    label: Ints
    count: Floats
    """How many of the task's annotators said the label, this one included."""
    chosen: Mask
    """Whether this judgment said it."""
    deviates: Mask
    """Whether the label is not the reference of the task; where there is none, every label deviates."""
    cell: Ints
    """The number of the task and label."""
    reference: Ints
    """The reference of the option's task."""
    people: int
    labels: int

    @property
    def rows(self) -> int:
        """The number of judgments."""
        return len(self.who)

    def by_row(self, values: Floats) -> Floats:
        """Sums of the options of each judgment."""
        return np.bincount(self.row, values, self.rows).astype(np.float64)


@dataclass(frozen=True)
class Fitted:
    """How likely each option was, from the annotators' odds of deviating."""

    options: Options
    offset: Floats
    """Log of the option's count over the colleagues' mean weight for it."""
    deviating: Floats
    """Each annotator's log odds of deviating, relative to colleagues."""
    habit: Floats
    """Log odds ratio of each annotator for deviating to each label (annotators x labels)."""

    def chance(self, *, habits: bool = False) -> Floats:
        """The probability of each option."""
        o = self.options
        who = o.who[o.row]
        tilt = self.deviating[who] + (self.habit[who, o.label] if habits else 0.0)
        weight = np.exp(self.offset + np.where(o.deviates, tilt, 0.0))
        return np.asarray(weight / o.by_row(weight)[o.row], dtype=np.float64)


@dataclass(frozen=True)
class Marked:
    """The result of the test of each mark."""

    seen: Floats
    """How often the mark could have occurred."""
    observed: Floats
    expected: Floats
    """From the annotator's other deviations alone, were there no preference."""
    effect: Floats
    """Log odds ratio of the mark."""
    error: Floats
    """Its standard error."""
    p: Floats
    """Of the hypothesis that the odds ratio is at most the tolerance."""
    other: Floats
    """Log odds ratio of the annotator's deviations without this preference, against all of them."""

    @property
    def ratio(self) -> tuple[Floats, Floats, Floats]:
        """The odds ratio with its 95% interval."""
        half = Z95 * self.error
        return np.exp(self.effect), np.exp(self.effect - half), np.exp(self.effect + half)


def references(coded: Coded, gold: npt.NDArray[np.integer[Any]] | None = None) -> Ints:
    """The reference of each task: its known answer, else its most frequent label, else -1.

    Where two people differ, it is the label that is more common over all tasks: that does not depend on who is who.
    Where three or more are tied there is none: everybody deviates, which tells nothing about how often anybody does.
    """
    labels = len(coded.categories)
    overall = np.bincount(coded.value, minlength=labels).astype(np.float64)
    cells, counts = _cells(coded.task.astype(np.int64) * labels + coded.value)
    rank = counts + overall[cells % labels] / (overall.sum() + 1.0)
    order = np.lexsort((rank, cells // labels))
    found: Ints = np.full(len(coded.tasks), -1, dtype=np.int64)
    task, count = (cells // labels)[order], counts[order]
    found[task] = (cells % labels)[order]
    last = np.concatenate([task[1:] != task[:-1], [True]])[: len(task)]
    tied = np.concatenate([[False], (task[1:] == task[:-1]) & (count[1:] == count[:-1])])[: len(task)]
    crowd = np.bincount(coded.task, minlength=len(coded.tasks))
    unclear = task[last & tied]
    found[unclear[crowd[unclear] > 2]] = -1
    if gold is not None:
        found = np.where(gold >= 0, gold, found).astype(np.int64)
    return found


def options(coded: Coded, reference: Ints, compared: Mask | None = None) -> Options:
    """The options of every judgment on a disputed task.

    Args:
        coded: one label for each judgment, each annotator once for each task.
        reference: of each task.
        compared: judgments that others are compared with; everybody is also compared with themselves. None takes all.
    """
    labels = len(coded.categories)
    task, value = coded.task.astype(np.int64), coded.value.astype(np.int64)
    key = task * labels + value
    cells, place = np.unique(key, return_inverse=True)
    counts = np.bincount(place, None if compared is None else compared.astype(np.float64), len(cells))
    number = np.bincount(cells // labels, minlength=len(coded.tasks))
    first = np.concatenate([[0], np.cumsum(number)])
    judged = np.flatnonzero(number[task] > 1)
    size = number[task[judged]]
    row = np.repeat(np.arange(len(judged)), size)
    within = np.arange(len(row)) - np.repeat(np.cumsum(size) - size, size)
    cell = first[task[judged]][row] + within
    chosen = cell == place[judged][row]
    count = counts[cell].astype(np.float64)
    if compared is not None:
        count += chosen & ~compared[judged][row]
    label = cells[cell] % labels
    of_task = reference[task[judged]][row]
    found = Options(
        judged,
        coded.annotator[judged].astype(np.int64),
        row,
        label,
        count,
        chosen,
        label != of_task,
        cell,
        of_task,
        len(coded.annotators),
        labels,
    )
    return found if compared is None else _only(found, count > 0)


def _only(o: Options, keep: Mask) -> Options:
    """The options that are possible, of the judgments that keep more than one."""
    keep = keep & (o.by_row(keep.astype(np.float64)) > 1)[o.row]
    kept = np.flatnonzero(np.bincount(o.row[keep], minlength=o.rows))
    places = np.full(o.rows, -1, dtype=np.int64)
    places[kept] = np.arange(len(kept))
    names = ("label", "count", "chosen", "deviates", "cell", "reference")
    parts: dict[str, Any] = {name: getattr(o, name)[keep] for name in names}
    return replace(o, judgment=o.judgment[kept], who=o.who[kept], row=places[o.row[keep]], **parts)


def fit(o: Options) -> Fitted:
    """Everybody's odds of deviating and habits, each against those of the colleagues on the same tasks."""
    who, base = o.who[o.row], np.log(o.count)
    deviating: Floats = np.zeros(o.people)
    habit: Floats = np.zeros((o.people, o.labels))
    fitted = Fitted(o, base, deviating, habit)
    pair = who * o.labels + o.label
    cells = int(o.cell.max(initial=-1)) + 1
    ones = np.bincount(o.cell, minlength=cells)
    said = o.chosen.astype(np.float64)
    for _ in range(ROUNDS):
        weight = np.exp(np.clip(deviating[who] + habit[who, o.label], -WIDE, WIDE))
        others = (np.bincount(o.cell, weight, cells)[o.cell] - weight) / np.maximum(ones[o.cell] - 1, 1)
        lone = (ones[o.cell] < 2) | ~o.deviates  # nobody to weigh: the colleagues count as they are
        offset = base - np.where(lone, 0.0, np.log(np.maximum(others, 1e-6)))
        fitted = replace(fitted, offset=offset)
        chance = fitted.chance(habits=True)
        out = o.by_row(np.where(o.deviates, chance, 0.0))
        did = o.by_row(np.where(o.deviates, said, 0.0))
        score = np.bincount(o.who, did - out, o.people) - CAUTION * deviating
        deviating = deviating + score / (np.bincount(o.who, out * (1 - out), o.people) + CAUTION)
        deviating = np.clip(deviating, -WIDE, WIDE)
        fitted = replace(fitted, deviating=deviating)
        chance = fitted.chance(habits=True)
        gap = np.where(o.deviates, said - chance, 0.0)
        info = np.where(o.deviates, chance * (1 - chance), 0.0)
        score = np.bincount(pair, gap, habit.size).reshape(habit.shape) - HABIT * habit
        habit = habit + score / (np.bincount(pair, info, habit.size).reshape(habit.shape) + HABIT)
        habit = np.clip(habit, -WIDE, WIDE)
        fitted = replace(fitted, habit=habit)
    return fitted


def examine(
    fitted: Fitted,
    mark: Ints,
    family: Ints,
    member: Ints,
    families: int,
    tolerance: float,
    *,
    together: bool,
    caution: float = CAUTION,
    centre: Floats | None = None,
) -> Marked:
    """Test every mark against the rest of its family: the kind of deviation whose frequency is taken as it is.

    Args:
        fitted: the chances of the options.
        mark: of each option, which must deviate; -1 for none. A judgment has at most one option of a mark.
        family: of each mark.
        member: the family of each option, -1 for none; an option with a mark belongs to the mark's family.
        families: how many there are.
        tolerance: the odds ratio that is still honest.
        together: whether the options of a judgment that have a family have the same one; else they have different ones.
        caution: precision of the prior of a family's log odds, which starts from how often the annotator deviates.
        centre: the mean of that prior for each mark; None for 0.
    """
    o = fitted.options
    chance = fitted.chance()
    said = o.chosen.astype(np.float64)
    lead = member >= 0
    whole, did = chance, said
    if together:
        whole, did = (o.by_row(np.where(lead, values, 0.0))[o.row] for values in (chance, said))
        lead = _first_of_row(o.row, lead)
    gap = np.bincount(member[lead], (did - whole)[lead], families)
    told = np.bincount(member[lead], (whole * (1 - whole))[lead], families)
    use = np.flatnonzero(mark >= 0)
    test = _Test(
        mark[use],
        len(family),
        chance[use],
        whole[use],
        said[use],
        did[use],
        caution,
        np.zeros(len(family)) if centre is None else centre,
    )
    rest_gap = gap[family] - test.sum(test.did - test.whole)
    rest_told = np.maximum(told[family] - test.sum(test.whole * (1 - test.whole)), 0.0)
    return test.run(rest_gap, rest_told, float(np.log(tolerance)))


def _first_of_row(row: Ints, inside: Mask) -> Mask:
    place = np.flatnonzero(inside)
    first = np.concatenate([[True], np.diff(row[place]) > 0])[: len(place)]
    found = np.zeros(len(inside), dtype=bool)
    found[place[first]] = True
    return found


@dataclass(frozen=True)
class _Test:
    """The options with a mark."""

    q: Ints
    """The mark."""
    marks: int
    chance: Floats
    whole: Floats
    """The chance of the family in the same judgment."""
    said: Floats
    did: Floats
    """Whether the judgment is in the family."""
    caution: float
    centre: Floats

    def sum(self, values: Floats) -> Floats:
        return np.bincount(self.q, values, self.marks).astype(np.float64)

    def tilted(self, gamma: Floats, delta: Floats) -> tuple[Floats, Floats]:
        """Chances of the mark and of its family when their odds are multiplied."""
        up = np.exp(delta[self.q])
        marked = self.chance * np.exp(gamma[self.q]) * up
        family = marked + (self.whole - self.chance) * up
        total = 1.0 - self.whole + family
        return marked / total, family / total

    def run(self, rest_gap: Floats, rest_told: Floats, limit: float) -> Marked:
        zero = np.zeros(self.marks)
        observed = self.sum(self.said)
        at_limit = np.full(self.marks, limit)
        delta = self._family(at_limit, zero, rest_gap, rest_told)
        p, f = self.tilted(at_limit, delta)
        own, both = self.sum(p * (1 - p)), self.sum(p * (1 - f))
        info = self.sum(f * (1 - f)) + rest_told + self.caution
        variance = np.maximum(own - both**2 / info, 0.0)
        third = self.sum(p * (1 - p) * (1 - 2 * p)) * (variance / np.maximum(own, 1e-12)) ** 1.5
        value = upper_tail(observed - self.sum(p) - 0.5, variance, third)
        effect, delta, error = self._effect(delta, at_limit, observed, rest_gap, rest_told)
        expected = self.sum(self.tilted(zero, delta)[0])
        seen = np.bincount(self.q, minlength=self.marks).astype(np.float64)
        return Marked(seen, observed, expected, effect, error, value, delta)

    def _family(self, gamma: Floats, delta: Floats, rest_gap: Floats, rest_told: Floats) -> Floats:
        """The family's own odds, for a given odds ratio of the mark."""
        for _ in range(6):
            _, f = self.tilted(gamma, delta)
            info = self.sum(f * (1 - f)) + rest_told + self.caution
            score = self.sum(self.did - f) + rest_gap - rest_told * delta - self.caution * (delta - self.centre)
            delta = np.clip(delta + score / info, -WIDE, WIDE)
        return delta

    def _effect(
        self, delta: Floats, gamma: Floats, observed: Floats, rest_gap: Floats, rest_told: Floats
    ) -> tuple[Floats, Floats, Floats]:
        """The likeliest odds ratio, with a weak prior, the family's odds without the mark, and the standard error."""
        variance: Floats = np.ones(self.marks)
        for _ in range(10):
            p, f = self.tilted(gamma, delta)
            own = self.sum(p * (1 - p)) + 0.05
            both = self.sum(p * (1 - f))
            info = self.sum(f * (1 - f)) + rest_told + self.caution
            score = observed - self.sum(p) - 0.05 * gamma
            other = self.sum(self.did - f) + rest_gap - rest_told * delta - self.caution * (delta - self.centre)
            variance = np.maximum(own - both**2 / info, 1e-3)
            gamma = gamma + np.clip((score - both / info * other) / variance, -1, 1)
            gamma = np.clip(gamma, -WIDE, WIDE)
            delta = np.clip(delta + other / info, -WIDE, WIDE)
        return gamma, delta, 1.0 / np.sqrt(variance)


def upper_tail(excess: Floats, variance: Floats, third: Floats) -> Floats:
    """The probability of so much more than expected, by a gamma distribution with three right moments."""
    known = variance > 1e-9
    unit = np.sqrt(np.where(known, variance, 1.0))
    skew = np.clip(third / unit**3, -2.0, 6.0)
    return np.asarray(np.where(known, stats.pearson3.sf(excess / unit, np.where(known, skew, 0.0)), 1.0), dtype=float)


def _cells(key: Ints) -> tuple[Ints, Ints]:
    found, counts = np.unique(key, return_counts=True)
    return found, counts
