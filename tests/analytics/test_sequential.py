"""Tests that may be looked at after every value keep their promise and do not bank a good record."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats

from labelguard_analytics import AccuracyTest, LabelShareTest, ShareTest
from labelguard_analytics.streams.many import first_rejections


def test_the_simulation_is_the_class() -> None:
    """The fast simulation flags at the same look as the class itself."""
    values = (np.random.default_rng(1).random((20, 300)) < 0.7).astype(np.float64)
    expected = []
    for row in values:
        test = AccuracyTest(0.85, 0.05)
        looks = (n for n, x in enumerate(row, start=1) if test.update(x).detected)
        expected.append(next(looks, 0))
    assert first_rejections(values).tolist() == expected


@pytest.mark.slow
@pytest.mark.parametrize("accuracy", [0.85, 0.90, 0.95])
def test_false_alarms_stay_below_the_promise_at_ten_thousand_looks(accuracy: float) -> None:
    """At the target or above, at most 5% are ever flagged, even after 10,000 looks."""
    values = (np.random.default_rng(11).random((2000, 10_000), dtype=np.float32) < accuracy).astype(np.float64)
    alarms = int((first_rejections(values) > 0).sum())
    # A one-sided exact interval: 5% or less is not contradicted.
    assert stats.binomtest(alarms, 2000, 0.05, alternative="greater").pvalue > 0.01
    if accuracy > 0.85:
        assert alarms / 2000 < 0.01


def test_partial_scores_keep_the_promise() -> None:
    """Scores between 0 and 1 with their mean at the target are judged by their mean, too."""
    values = np.random.default_rng(12).beta(8.5, 1.5, (1000, 2000))
    assert (first_rejections(values) > 0).mean() < 0.05


def test_a_drop_is_detected_soon_also_after_a_thousand_good_values() -> None:
    """Accuracy .70 is noticed after about 40 values (median); after 1,000 at .93, about 125 later."""
    rng = np.random.default_rng(13)
    at_once = first_rejections(rng.random((1000, 600)) < 0.70)
    accuracy = np.where(np.arange(1600) < 1000, 0.93, 0.70)
    later = first_rejections(rng.random((1000, 1600)) < accuracy)
    assert (at_once > 0).all()
    assert np.median(at_once) <= 45
    assert np.median(later[later > 1000]) - 1000 <= 140


def test_the_exact_values_stay_what_they_are() -> None:
    """Changing the bet changes everybody's evidence, so the values for a seeded stream are frozen."""
    test = AccuracyTest(0.85, 0.05)
    for x in np.random.default_rng(7).random(120) < np.where(np.arange(120) < 60, 0.95, 0.6):
        test.update(float(x))
    assert (test.n, test.detected, test.since) == (120, True, 59)
    assert test.evidence == pytest.approx(299.8658999836873)
    share = ShareTest(0.5, 0.05)
    for x in np.random.default_rng(8).random(30) < 0.9:
        share.update(float(x))
    assert (share.n, share.detected, share.since) == (30, True, 3)
    assert share.evidence == pytest.approx(117834.59337699167)


def test_each_bet_is_fair_at_the_null() -> None:
    """At the null the mean of every factor is 1, checked against the binomial distribution of one value."""
    for p in (0.0, 0.03, 0.5, 0.85):
        chances = np.asarray(stats.binom.pmf([0, 1], 1, p))
        outcomes = [ShareTest(p).update(x).evidence for x in (0, 1)]
        assert float(chances @ outcomes) == pytest.approx(1.0)
    outcomes = [AccuracyTest(0.85).update(x).evidence for x in (0, 1)]
    assert 0.15 * outcomes[0] + 0.85 * outcomes[1] == pytest.approx(1.0)


def test_an_expected_share_of_one_is_no_evidence() -> None:
    """Doing what everybody does says nothing, however often."""
    test = ShareTest(false_alarm=0.05)
    for _ in range(500):
        test.update(1, expected=1.0)
    assert test.evidence == pytest.approx(1.0)
    assert not test.detected


def test_detected_stays_detected() -> None:
    """A later good stretch takes the evidence away but not the detection, nor since when."""
    test = AccuracyTest(0.85)
    for _ in range(6):
        test.update(0)
    since = test.since
    for _ in range(300):
        test.update(1)
    assert test.detected
    assert test.since == since == 1
    assert test.evidence < 1 < test.threshold <= test.peak


@pytest.mark.parametrize("test", [AccuracyTest(0.8, 0.1), ShareTest(0.3, 0.01)])
def test_the_state_goes_through_json_exactly(test: AccuracyTest | ShareTest) -> None:
    """Stopped, kept as JSON and gone on is the same as never stopped, to the last bit."""
    kept = type(test).from_json(test.to_json())
    for x in (np.random.default_rng(3).random(200) < 0.6).astype(float):
        test.update(x)
        kept = type(test).from_json(kept.update(x).to_json())
    assert kept.to_state() == test.to_state()
    assert len(test.to_json()) < 1000
    assert json.loads(test.to_json()) == test.to_state()


def test_a_state_of_an_earlier_version_goes_on() -> None:
    """Other odds ratios and start weights were in use then, and no directions: what was gained by then counts.

    What was still held back may be less now, never more, so nobody comes nearer to being flagged by an upgrade.
    """
    state = {
        "target": 0.85,
        "false_alarm": 0.05,
        "n": 3,
        "since": None,
        "peak": 2.1,
        "capital": [0.7, 1.4, 2.0, 3.1, 3.3],
        "best": [1.4, 2.2, 3.2, 5.0, 6.9],
        "start": [2, 2, 2, 2, 2],
    }
    earlier = 2.1 + 0.4 / (1.0 + 2 / 500)
    test = AccuracyTest.from_state(state)

    assert test.direction == "down"
    assert 2.1 < test.evidence <= earlier
    for _ in range(4):
        test.update(0)
    assert (test.n, test.detected, test.since) == (7, True, 2)


@pytest.mark.parametrize("direction", ["up", "both"])
def test_the_other_directions_keep_the_promise_and_find(direction: str) -> None:
    """Somebody above a target is found where that is asked for, and at most 5% of those at it ever are."""
    rng = np.random.default_rng(14)
    alarms = [
        AccuracyTest(0.7, direction=direction).update_many(rng.random(1000) < 0.7).detected  # type: ignore[arg-type]
        for _ in range(200)
    ]
    better = AccuracyTest(0.7, direction=direction).update_many(rng.random(400) < 0.9)  # type: ignore[arg-type]

    assert stats.binomtest(sum(alarms), 200, 0.05, alternative="greater").pvalue > 0.01
    assert better.detected


def test_no_label_used_as_expected_is_named() -> None:
    """Of streams in which one label is overused, at most 5% ever name another; the overused one is found."""
    rng = np.random.default_rng(15)
    expected = {"a": 0.5, "b": 0.3, "c": 0.15, "d": 0.05}
    wrong = 0
    for _ in range(100):
        labels = rng.choice(list(expected), 600, p=(0.4, 0.24, 0.32, 0.04)).tolist()
        found = LabelShareTest(expected, direction="up").update_many(labels).found
        wrong += set(found) > {"c"}
        assert "c" in found
    assert wrong <= 9  # 5 by promise, and chance


@pytest.mark.parametrize("x", [-0.1, 1.1, float("nan")])
def test_values_outside_zero_to_one_are_refused(x: float) -> None:
    """The bet is only fair between 0 and 1, so anything else is an error and changes nothing."""
    test = AccuracyTest()
    with pytest.raises(ValueError, match="must lie between 0 and 1"):
        test.update(x)
    assert test.n == 0


def test_a_state_of_another_test_is_refused() -> None:
    """States are not mixed up silently."""
    state = {**ShareTest().to_state(), "target": 0.85}
    with pytest.raises(ValueError, match="does not belong to a AccuracyTest"):
        AccuracyTest.from_state(state)
