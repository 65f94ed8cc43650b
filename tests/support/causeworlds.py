"""Made-up projects in which it is known what changed, for the tests and benchmarks of causes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from labelguard_analytics.causes.panel import Panel

LABELS = pd.Index(["ham", "offer", "spam"])
SOURCES = pd.Index(["web", "mail", "chat"])
_TRUTH = np.array([[0.7, 0.2, 0.1], [0.3, 0.4, 0.3], [0.1, 0.3, 0.6]])
"""How likely an item of each source is of each class."""
_HARDER = np.array([0.0, 0.0, 0.12])
"""How much less often an item of each source is judged rightly."""


@dataclass(frozen=True)
class TwoPeriods:
    """What differs between two periods of a project; by default nothing."""

    items: bool = False
    """The sources trade places."""
    annotators: bool = False
    """The weaker annotators take over."""
    behaviour: float = 0.0
    """By how much everybody's accuracy changes."""
    own: float = 0.0
    """Standard deviation of what each annotator's accuracy changes beyond that."""
    people: int = 12
    tasks: int = 300
    """In each period."""
    per_task: int = 3
    leaning: float = 0.0
    """By how much everybody's readiness to say 'spam' in place of another wrong label changes."""
    anchors: int = 0
    """So many tasks of the first period are judged again in the second."""

    def draw(self, rng: np.random.Generator) -> pd.DataFrame:
        """The judgments, with gold and source; the second period begins on 1 February 2026."""
        late, task, who, label, source, truth = self.arrays(rng)
        return pd.DataFrame(
            {
                "task": task,
                "annotator": who,
                "value": pd.Categorical(LABELS[label]),
                "at": pd.Timestamp("2026-01-05") + pd.to_timedelta(30 * late, unit="D"),
                "source": pd.Categorical(SOURCES[source]),
                "gold": pd.Categorical(LABELS[truth]),
            }
        )

    def arrays(self, rng: np.random.Generator) -> npt.NDArray[np.int32]:
        """The judgments as rows of codes: period, task, annotator, label, source and gold."""
        accuracy = np.clip(rng.normal(0.78, 0.08, self.people), 0.5, 0.9)
        work = rng.dirichlet(np.full(self.people, 6.0), 2)
        if self.annotators:
            work[1] = work[0] * np.exp(-14 * (accuracy - 0.78))
        own = rng.normal(0, self.own, self.people) if self.own else np.zeros(self.people)
        parts = []
        kept = None
        for late, mix in enumerate(((0.5, 0.3, 0.2), (0.2, 0.3, 0.5) if self.items else (0.5, 0.3, 0.2))):
            source = rng.choice(3, self.tasks, p=mix)
            truth = (rng.random(self.tasks)[:, None] > np.cumsum(_TRUTH[source], axis=1)).sum(axis=1)
            hard = rng.normal(0, 0.08, self.tasks) - _HARDER[source]
            task = np.arange(self.tasks) + late * self.tasks
            if kept is None:
                kept = source, truth, hard, task
            elif self.anchors:
                for array, old in zip((source, truth, hard, task), kept, strict=True):
                    array[: self.anchors] = old[: self.anchors]
            luck = np.log(work[late]) + rng.gumbel(size=(self.tasks, self.people))
            who = np.argsort(-luck, axis=1)[:, : self.per_task]
            chance = accuracy[who] + late * (own[who] + self.behaviour) + hard[:, None]
            right = rng.random(who.shape) < np.clip(chance, 0.05, 1)
            step = 1 + (rng.random(who.shape) < 0.5)
            wrong = (truth[:, None] + step) % 3
            leans = (rng.random(who.shape) < late * self.leaning) & (truth[:, None] != 2)
            label = np.where(right, truth[:, None], np.where(leans, 2, wrong))
            each = [np.repeat(one, self.per_task) for one in (task, source, truth)]
            period = np.full(who.size, late)
            parts.append(np.stack([period, each[0], who.ravel(), label.ravel(), each[1], each[2]]))
        return np.asarray(np.concatenate(parts, axis=1), dtype=np.int32)


Curve: TypeAlias = Literal["log", "exponential", "weeks"]
WEEKS = 16
"""Of a project with an event: 8 before it and 8 after it."""


@dataclass(frozen=True)
class Event:
    """Annotators of unequal volume who miss a tenth of the weeks, and whose errors last for weeks (AR(1))."""

    people: int = 20
    kind: Literal["labels", "annotators", "series"] = "labels"
    """What the event affects: one kind of labels, some annotators, or everything."""
    treated: int = 3
    """The annotators that it affects, where it affects some."""
    shock: float = 0.0
    """Standard deviation of what all annotators share in a week, for affected and for other labels by itself."""
    lasting: float = 0.4
    """The correlation of an annotator's error with that of the week before."""
    own: float = 0.02
    """Standard deviation of the effect over annotators, around zero."""
    learning: float = 0.0
    """The mean slope of learning; annotators differ in it by half of that."""
    curve: Curve = "log"

    def draw(self, rng: np.random.Generator, worlds: int) -> Panel:
        """A panel of as many worlds, all with the same cells; the event has no effect on average."""
        volume = rng.gamma(4, 5, self.people) + 4
        grid = np.indices((self.people, 2, WEEKS)).reshape(3, -1)
        missed = np.broadcast_to(rng.random((self.people, 1, WEEKS)) < 0.1, (self.people, 2, WEEKS)).ravel()
        who, side, week = grid[:, ~missed & ((grid[1] == 1) | (self.kind == "labels"))]
        size = np.maximum(rng.poisson(volume[who]), 2).astype(np.float64)
        affected = {"labels": side == 1, "annotators": who < self.treated, "series": side == 1}[self.kind]
        made = (week + 0.5) * volume[who] * (2 if self.kind == "labels" else 1)
        lasting = rng.normal(0, 0.05, (WEEKS, self.people, 2, worlds))
        for late in range(1, WEEKS):
            lasting[late] = self.lasting * lasting[late - 1] + np.sqrt(1 - self.lasting**2) * lasting[late]
        y = rng.normal(0, 0.05, (self.people, 2, worlds))[who, side] + lasting[week, who, side]
        y += self.shock * rng.normal(0, 1, (WEEKS, 2, worlds))[week, side]
        y += rng.normal(0, 0.4, y.shape) / np.sqrt(size)[:, None]
        y += (affected & (week >= 8))[:, None] * rng.normal(0, self.own, (self.people, worlds))[who]
        skill = {"log": np.log1p(made), "exponential": 3 - 3 * np.exp(-made / volume[who] / 5), "weeks": week / 4}
        slope = np.maximum(rng.normal(self.learning, self.learning / 2, (self.people, worlds)), 0)[who]
        y += skill[self.curve][:, None] * slope
        return Panel(who, week - 8, affected, size, np.log1p(made), y)
