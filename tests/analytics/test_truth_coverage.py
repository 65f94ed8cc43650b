"""Intervals for the accuracy of annotators, where the truth itself has to be inferred: do they hold?"""

# To the stubs of pandas a cell of a frame may be of any type.
# mypy: disable-error-code="operator,call-overload,arg-type,index,union-attr"

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from labelguard_analytics import Truth, hierarchical_dawid_skene, infer_truth, one_coin
from labelguard_analytics.frames import from_codes


def covered(method: Callable[..., Truth], repetitions: int, seed: int, *, labels: int, per_task: int) -> float:
    """How often the 95% interval holds the accuracy: 20 annotators, 300 tasks, accuracies from .6 to .95."""
    rng = np.random.default_rng(seed)
    hits, looked = 0, 0
    for _ in range(repetitions):
        accuracy = rng.uniform(0.6, 0.95, 20)
        truth = rng.integers(0, labels, 300)
        task = np.repeat(np.arange(300), per_task)
        who = rng.random((300, 20)).argsort(axis=1)[:, :per_task].ravel()
        right = rng.random(len(task)) < accuracy[who]
        value = np.where(right, truth[task], (truth[task] + rng.integers(1, labels, len(task))) % labels)
        found = method(from_codes(task, who, value, labels)).annotators
        hits += int(((found["low"] <= accuracy) & (accuracy <= found["high"])).sum())
        looked += 20
    return hits / looked


@pytest.mark.slow
@pytest.mark.parametrize(("labels", "per_task"), [(2, 5), (3, 3), (4, 5)])
def test_intervals_of_accuracy_hold_without_known_answers(labels: int, per_task: int) -> None:
    """1,000 simulated jobs of 20 annotators: the one-coin model's 95% intervals cover in 92 to 97%."""
    assert 0.92 <= covered(one_coin, 1000, 20260107, labels=labels, per_task=per_task) <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("method", [infer_truth, hierarchical_dawid_skene])
def test_intervals_of_the_default_and_the_hierarchical_model_hold_too(method: Callable[..., Truth]) -> None:
    """100 simulated jobs, 2,000 intervals: 91.5 to 97.5%."""
    assert 0.915 <= covered(method, 100, 20260108, labels=3, per_task=5) <= 0.975
