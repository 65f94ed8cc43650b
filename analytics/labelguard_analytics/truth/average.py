"""The default for one label per task: an average over models that err in different ways."""

from __future__ import annotations

import numpy as np

from labelguard_analytics.truth.guessing import GuessingModel
from labelguard_analytics.truth.models import COIN, AbilityModel, Fitted
from labelguard_analytics.truth.votes import Votes

BELIEFS: tuple[tuple[float, float], ...] = ((0.0, 1.0), (0.5, 2.0), (1.0, 1.0))
"""How far class shares are believed, and the weight of the ability model that does: the trapezoidal rule."""
GUESSING = 1.0
"""The weight of the model in which people know or guess: as much as one end of the scale of belief."""


def fit_average(votes: Votes, *, iterations: int, tolerance: float) -> Fitted:
    """The average over abilities with class shares believed not, half and fully, and over knowing or guessing.

    What others say of each vote comes from the one-coin model, whose intervals for accuracies hold in simulations;
    those of a model that believes in difficulties are too narrow where tasks are all alike.
    """
    abilities = AbilityModel(votes)
    members = [(abilities.fit(power, iterations=iterations, tolerance=tolerance), part) for power, part in BELIEFS]
    members.append((GuessingModel(votes).fit(iterations=iterations, tolerance=tolerance), GUESSING))
    # The last model knows nothing of difficulties.
    difficult = [(found.difficulty, part) for found, part in members if found.difficulty is not None]
    total = sum(part for _, part in members)
    coin = AbilityModel(votes, nodes=1, profile=False, beta=COIN).fit("majority", iterations=50, tolerance=1e-3)
    return Fitted(
        np.sum([part * found.posterior for found, part in members], axis=0) / total,
        np.sum([part * found.shares for found, part in members], axis=0) / total,
        max(found.iterations for found, _ in members),
        all(found.converged for found, _ in members),
        difficulty=np.sum([part * table for table, part in difficult], axis=0) / sum(part for _, part in difficult),
        chances=coin.chances,
    )
