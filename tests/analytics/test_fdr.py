"""Control of false discoveries, against textbook definitions written out independently."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from labelguard_analytics import ebh, fdr


def step_up(p: list[float], level: float, *, any_dependence: bool) -> set[int]:
    """The procedures as their papers write them: the largest k with p(k) <= k level / (m c)."""
    m = len(p)
    c = sum(1 / i for i in range(1, m + 1)) if any_dependence else 1.0
    ordered = sorted(range(m), key=p.__getitem__)
    k = max((k for k in range(1, m + 1) if p[ordered[k - 1]] <= k * level / (m * c)), default=0)
    return set(ordered[:k])


@pytest.mark.parametrize("method", ["bh", "by"])
@pytest.mark.parametrize("seed", range(20))
def test_it_rejects_as_the_papers_say(method: str, seed: int) -> None:
    """The mask is the step-up procedure, and the adjusted values are SciPy's."""
    rng = np.random.default_rng(seed)
    p = np.concatenate([rng.random(40), rng.random(10) * 0.01])
    found = fdr(p, 0.1, "by" if method == "by" else "bh")
    assert set(np.flatnonzero(found.mask).tolist()) == step_up(p.tolist(), 0.1, any_dependence=method == "by")
    assert found.adjusted == pytest.approx(stats.false_discovery_control(p, method="by" if method == "by" else "bh"))


def test_nothing_to_test_is_nothing_found() -> None:
    """An empty sweep is not an error."""
    assert fdr([]).mask.tolist() == []
    assert ebh([]).tolist() == []


def test_missing_p_values_are_refused() -> None:
    """A missing p-value must not pass as a small one."""
    with pytest.raises(ValueError, match="none may be missing"):
        fdr([0.01, float("nan")])


def test_e_values_are_rejected_from_the_largest() -> None:
    """With 4 hypotheses at level .1 the largest must reach 40, two together 20 each."""
    assert ebh([39.0, 1, 1, 1]).tolist() == [False] * 4
    assert ebh([40.0, 1, 1, 1]).tolist() == [True, False, False, False]
    assert ebh([1.0, 20, 20, 1]).tolist() == [False, True, True, False]


def test_ebh_controls_false_discoveries_of_betting_evidence() -> None:
    """Among 50 fair bets of which 5 are against a false null, at most 10% of the discoveries are false."""
    rng = np.random.default_rng(5)
    wrong = []
    for _ in range(300):
        z = rng.normal(size=50)
        z[:5] += 4
        found = np.flatnonzero(ebh(np.exp(3 * z - 4.5)))
        wrong.append(float((found >= 5).mean()) if len(found) else 0.0)
    assert np.mean(wrong) <= 0.1
