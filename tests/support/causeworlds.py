"""Made-up projects in which it is known what changed, for the tests and benchmarks of causes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

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
            parts.append(
                pd.DataFrame(
                    {
                        "task": np.repeat(task, self.per_task),
                        "annotator": who.ravel(),
                        "value": pd.Categorical(LABELS[label.ravel()]),
                        "at": pd.Timestamp("2026-01-05") + pd.Timedelta(days=30 * late),
                        "source": pd.Categorical(SOURCES[np.repeat(source, self.per_task)]),
                        "gold": pd.Categorical(LABELS[np.repeat(truth, self.per_task)]),
                    }
                )
            )
        return pd.concat(parts, ignore_index=True)
