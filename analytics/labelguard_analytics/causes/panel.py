"""Judgments as a panel: the mean of each annotator and week, and the designs in which an event has an effect."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import sparse

from labelguard_analytics.causes.components import dummies
from labelguard_analytics.causes.inference import Effects, Ints, Regression, assignments, by_annotator, two_way
from labelguard_analytics.frames import Floats

Learning: TypeAlias = Literal["experience", "trend", "both", "none"]
Inference: TypeAlias = Literal["two-way", "annotator", "randomisation"]


@dataclass(frozen=True)
class Panel:
    """Cells of an annotator, a week and, where annotators judge both, affected or unaffected items."""

    annotator: Ints
    week: Ints
    """Counted from the event: 0 is the first week after it."""
    affected: npt.NDArray[np.bool_]
    """All true where there is nothing to compare with: an interrupted time series."""
    weight: Floats
    """The judgments of each cell."""
    experience: Floats
    """The mean logarithm of the judgments that the annotator had made, over those of the week."""
    y: Floats
    """Cells x worlds; there is one world but in simulations."""

    @classmethod
    def of(
        cls,
        annotator: Ints,
        week: Ints,
        affected: npt.NDArray[np.bool_],
        experience: Floats,
        y: Floats,
    ) -> Panel:
        """The panel of single judgments."""
        first = int(week.min())
        span = int(week.max()) - first + 1
        key = (annotator.astype(np.int64) * span + week - first) * 2 + affected
        cells, place = np.unique(key, return_inverse=True)
        size = np.bincount(place).astype(np.float64)
        rest, late = np.divmod(cells, 2)
        # Of all of the week's judgments, so that it does not differ between affected and unaffected items.
        _, when = np.unique(key // 2, return_inverse=True)
        skill = np.empty(len(cells))
        skill[place] = (np.bincount(when, experience) / np.bincount(when))[when]
        return cls(
            rest // span,
            rest % span + first,
            late.astype(bool),
            size,
            skill,
            (np.bincount(place, y) / size)[:, None],
        )

    def keep(self, rows: npt.NDArray[np.bool_]) -> Panel:
        """Some of the cells."""
        return Panel(
            self.annotator[rows],
            self.week[rows],
            self.affected[rows],
            self.weight[rows],
            self.experience[rows],
            self.y[rows],
        )

    def moved(self, weeks: int) -> Panel:
        """The same cells with the event so many weeks later."""
        return replace(self, week=self.week - weeks)

    @cached_property
    def compares(self) -> bool:
        """Whether there is something unaffected."""
        return not bool(self.affected.all())

    @cached_property
    def people(self) -> npt.NDArray[np.bool_] | None:
        """Which annotators are affected, where each is either affected or not; by place in the sorted annotators."""
        both = np.unique(np.stack([self.annotator, self.affected]), axis=1)
        if not self.compares or len(np.unique(both[0])) < both.shape[1]:
            return None
        return np.asarray(both[1].astype(bool))

    def nuisance(self, learning: Learning) -> sparse.csr_array:
        """What explains the outcome without the event.

        Each annotator (on affected and on unaffected items) has a level, and where there is something to compare with
        each week has one too. Learning is a slope on the logarithm of experience, common to all, and a trend by week
        of everybody, or of what is affected beyond the rest.
        """
        unit = np.unique(self.annotator.astype(np.int64) * 2 + self.affected, return_inverse=True)[1]
        columns = [dummies(unit, int(unit.max()) + 1)]
        if self.compares:
            week = np.unique(self.week, return_inverse=True)[1]
            columns.append(dummies(week, int(week.max()) + 1))
        if learning in ("experience", "both"):
            columns.append(_column(self.experience))
        if learning in ("trend", "both"):
            columns.append(_column(np.where(self.affected, self.week, 0).astype(np.float64)))
        return sparse.csr_array(sparse.hstack(columns, format="csr"))

    def regression(self, learning: Learning, treatment: npt.NDArray[np.bool_] | None = None) -> Regression:
        """The regression of the event's effect on what is affected, or of another treatment's."""
        treated = self.affected & (self.week >= 0) if treatment is None else treatment
        return Regression(treated.astype(np.float64), self.nuisance(learning), self.weight)

    def effects(self, learning: Learning, inference: Inference, rng: np.random.Generator) -> Effects | None:
        """The effect of the event in each world; None where the data do not tell it."""
        regression = self.regression(learning)
        if not regression.told:
            return None
        if inference == "two-way":
            return two_way(regression, self.annotator, self.week, self.y)
        if inference == "annotator":
            return by_annotator(regression, self.annotator, self.y)
        assert self.people is not None  # noqa: S101 - whoever asks for randomisation has looked
        place = np.unique(self.annotator, return_inverse=True)[1]
        others = assignments(self.people, rng)[:, place].T & (self.week >= 0)[:, None]
        return regression.randomised(self.y, others.astype(np.float64))

    def by_week(self, learning: Learning) -> list[tuple[int, float, Effects | None]]:
        """For each week, its judgments and how far what is affected lies from the weeks before the event.

        A week before the event is compared with the others before it. Errors are clustered by annotator: one week
        does not tell how much weeks vary.
        """
        found = []
        for week in np.unique(self.week).tolist():
            part = self.keep((self.week < 0) | (self.week == week))
            regression = part.regression(learning, part.affected & (part.week == week))
            told = by_annotator(regression, part.annotator, part.y) if regression.told else None
            found.append((int(week), float(self.weight[(self.week == week) & self.affected].sum()), told))
        return found


def _column(values: Floats) -> sparse.csr_array:
    return sparse.csr_array(values[:, None])
