"""Detectors alarm as rarely as they promise, soon after a change, and never because somebody got better."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from labelguard_analytics import ChangeDetector, LabelShareDetector
from labelguard_analytics.streams import thresholds
from labelguard_analytics.streams.many import first_alarms
from labelguard_analytics.streams.odds import odds

Bools = npt.NDArray[np.bool_]
Whole = npt.NDArray[np.int64]
WARM_UP = 200


def steady(seed: int, streams: int, level: float, length: int) -> Bools:
    """Streams without a change."""
    rng = np.random.default_rng([seed, round(1000 * level)])
    return np.array([rng.random(length, dtype=np.float32) < level for _ in range(streams)])


def promised(alarms: Whole, length: int, run_length: float) -> tuple[float, float]:
    """The mean run length and the share of streams with an alarm in the first fifth of the one promised.

    Both as parts of what is promised: the first should be at least 1, the second at most 1.
    """
    mean = np.where(alarms == 0, length, alarms).sum() / max(1, (alarms > 0).sum())
    early = ((alarms > 0) & (alarms <= run_length / 5)).mean()
    return float(mean / run_length), float(early / 0.19)


@pytest.mark.parametrize("level", [None, 0.85])
def test_the_simulation_is_the_class(level: float | None) -> None:
    """Many streams at once are detected at the same values as in the class, scores between 0 and 1 too."""
    values = np.concatenate([steady(1, 30, 0.85, 800), steady(2, 30, 0.7, 700)], axis=1).astype(float)
    values[::3] = np.where(steady(3, 10, 0.3, 1500), 0.6, values[::3])
    expected = [ChangeDetector(level).update_many(row).detected_at or 0 for row in values]

    assert first_alarms(values, odds(5000, level is None), level).tolist() == expected
    assert sum(at > 0 for at in expected) > 20


@pytest.mark.slow
@pytest.mark.parametrize("learnt", [False, True])
@pytest.mark.parametrize("level", [0.6, 0.88, 0.96])
def test_false_alarms_are_as_rare_as_promised(level: float, learnt: bool) -> None:
    """At levels between those of the calibration, with 1,000 as the run length; 5% are left to chance."""
    start = WARM_UP if learnt else 0
    alarms = first_alarms(steady(4, 2500, level, start + 2000), odds(1000, learnt), None if learnt else level)
    mean, early = promised(np.where(alarms > 0, alarms - start, 0), 2000, 1000)

    assert mean > 0.95
    assert early < 1.1


@pytest.mark.slow
@pytest.mark.parametrize("level", [None, 0.9])
def test_the_promise_holds_at_the_usual_run_length(level: float | None) -> None:
    """The mean run length is 5,000 and at most 19% of streams have an alarm in the first 1,000."""
    start = WARM_UP if level is None else 0
    alarms = first_alarms(steady(5, 800, 0.9, start + 5000), odds(5000, level is None), level)
    mean, early = promised(np.where(alarms > 0, alarms - start, 0), 5000, 5000)

    assert mean > 0.92
    assert early < 1.15


def test_values_better_than_the_level_alarm_less() -> None:
    """A level that is too low is the safe side."""
    alarms = first_alarms(steady(6, 300, 0.9, 3000), odds(1000, False), 0.85)

    assert (alarms > 0).mean() < 0.25 < (first_alarms(steady(6, 300, 0.85, 3000), odds(1000, False), 0.85) > 0).mean()


def test_scores_alarm_less_than_right_and_wrong_with_the_same_mean() -> None:
    """Values between 0 and 1 vary less, so the thresholds for 0 and 1 are on the safe side."""
    scores = np.random.default_rng(7).beta(6.8, 1.2, (150, 1500))
    binary = steady(7, 600, 0.85, 1500)

    assert (first_alarms(scores, odds(1000, False), 0.85) > 0).mean() < 0.5 * (
        first_alarms(binary, odds(1000, False), 0.85) > 0
    ).mean()


def delays(level: float | None, before: float, after: float, position: int, streams: int = 400) -> float:
    """The mean delay of streams without an alarm before the change."""
    start = WARM_UP + position
    values = np.concatenate([steady(8, streams, before, start), steady(9, streams, after, 1000)], axis=1)
    alarms = first_alarms(values, odds(5000, level is None), level)
    late = alarms[(alarms == 0) | (alarms > start)]
    return float(np.where(late == 0, 1000, late - start).mean())


@pytest.mark.parametrize(
    ("before", "after", "known", "learnt"), [(0.95, 0.85, 66, 80), (0.9, 0.75, 54, 64), (0.85, 0.6, 33, 38)]
)
def test_a_drop_is_detected_soon(before: float, after: float, known: float, learnt: float) -> None:
    """Within a few dozen values on average, after 500 values at the level that it knows or learnt."""
    assert delays(before, before, after, 300) < known
    assert delays(None, before, after, 300) < learnt


def test_a_slow_slide_is_not_learnt_as_normal() -> None:
    """From .9 to .75 over 1,000 values, detected in the middle of it on average."""
    level = np.concatenate([np.full(700, 0.9), np.linspace(0.9, 0.75, 1000), np.full(500, 0.75)])
    values = np.random.default_rng(10).random((300, len(level))) < level
    alarms = first_alarms(values, odds(5000, True))
    late = alarms[(alarms == 0) | (alarms > 700)]

    assert (late > 0).all()
    assert late.mean() - 700 < 480


def test_getting_better_is_no_drift() -> None:
    """The level rises from .75 to .95: direction "down" alarms no more often than promised, "up" nearly always."""
    level = np.concatenate([np.full(400, 0.75), np.linspace(0.75, 0.95, 1000), np.full(1000, 0.95)])
    values = np.random.default_rng(11).random((300, len(level))) < level

    assert (first_alarms(values, odds(5000, True)) > 0).mean() < 0.1
    found = [ChangeDetector(direction="up").update_many(row.astype(float)).detected for row in values[:40]]
    assert np.mean(found) > 0.95


def test_the_level_learnt_follows_improvement() -> None:
    """Held against the better level reached, a fall back to the old one is a decline."""
    alarms_before = 0
    since: list[int] = []
    now: list[float] = []
    for seed in range(20):
        rng = np.random.default_rng([12, seed])
        detector = ChangeDetector().update_many((rng.random(600) < 0.7).astype(float))
        detector.update_many((rng.random(4000) < 0.95).astype(float))
        alarms_before += detector.detected
        if detector.detected:
            continue
        assert detector.usual == pytest.approx(0.92, abs=0.03)
        detector.update_many((rng.random(200) < 0.7).astype(float))
        assert detector.changed == "down"
        since.append(detector.since or 0)
        now.append(detector.now or 0.0)
    assert alarms_before <= 5  # of 20, about 2 by chance in the first 400 values
    assert np.median(since) == pytest.approx(4601, abs=10)
    assert np.median(now) == pytest.approx(0.7, abs=0.15)


def test_a_decline_is_not_learnt() -> None:
    """While there is evidence of a decline, the level stays what it was; what was only chance is learnt later."""
    values = [1, 1, 1, 1, 0] * 60
    detector = ChangeDetector(run_length=1_000_000).update_many(values)
    assert detector.usual == pytest.approx(0.8)

    bad = [0, 1] * 25
    detector.update_many(bad)
    assert not detector.detected
    assert detector.evidence > detector.threshold**0.6
    assert detector.usual == pytest.approx(0.8)

    good = [1] * 150
    detector.update_many(good)
    assert detector.evidence == pytest.approx(1)
    assert detector.usual == pytest.approx(np.mean(values + bad + good))


@pytest.mark.parametrize("level", [None, 0.8])
@pytest.mark.parametrize(("direction", "after"), [("down", 0.5), ("up", 0.97), ("both", 0.5), ("both", 0.97)])
def test_a_detection_is_seen_at_once(level: float | None, direction: str, after: float) -> None:
    """Right after the value that it says it was detected at, whoever looks only then or after every value."""
    rng = np.random.default_rng(17)
    values = np.concatenate([rng.random(400) < 0.8, rng.random(600) < after]).astype(int).tolist()
    detector = ChangeDetector(level, direction)  # type: ignore[arg-type]
    seen = next(n for n, x in enumerate(values, start=1) if detector.update(x).detected)

    assert seen == detector.detected_at == detector.n
    assert seen > 400
    assert ChangeDetector(level, direction).update_many(values).detected_at == seen  # type: ignore[arg-type]


@pytest.mark.parametrize(("direction", "after"), [("up", 0.3), ("both", 0.3), ("both", 0.02)])
def test_every_direction_is_found(direction: str, after: float) -> None:
    """A share of .12 that rises or falls, and which of the two it was."""
    rng = np.random.default_rng(13)
    values = np.concatenate([rng.random(700) < 0.12, rng.random(900) < after]).astype(float)
    detector = ChangeDetector(direction=direction).update_many(values)  # type: ignore[arg-type]

    assert detector.detected
    assert detector.changed == ("up" if after > 0.12 else "down")
    assert detector.since == pytest.approx(701, abs=30)
    assert detector.now == pytest.approx(after, abs=0.2)


def test_up_is_the_mirror_of_down() -> None:
    """Shares of errors are watched exactly as shares of right answers are."""
    values = steady(14, 1, 0.9, 2000)[0].astype(float)
    down, up = ChangeDetector(0.75), ChangeDetector(0.25, "up")
    for x in values:
        assert down.update(x).evidence == up.update(1 - x).evidence
    assert down.threshold == up.threshold


@pytest.mark.parametrize("labels", [{"cat": 0.6, "dog": 0.3, "fish": 0.1}, ("cat", "dog", "fish")])
def test_labels_that_change_are_found_and_named(labels: dict[str, float] | tuple[str, ...]) -> None:
    """A label that takes over from another, with the shares known and learnt; alarms before that are rare."""
    alarms_before = 0
    since: list[int] = []
    named: list[bool] = []
    for seed in range(20):
        rng = np.random.default_rng([15, seed])
        detector = LabelShareDetector(labels)
        detector.update_many(rng.choice(["cat", "dog", "fish"], 700, p=(0.6, 0.3, 0.1)).tolist())
        alarms_before += detector.detected
        if detector.detected:
            continue
        detector.update_many(rng.choice(["cat", "dog", "fish"], 300, p=(0.6, 0.1, 0.3)).tolist())
        assert detector.detected
        since.append(detector.since or 0)
        named.append((detector.label, detector.changed) in {("dog", "down"), ("fish", "up")})
    assert alarms_before <= 6  # of 20, about 2 by chance
    assert np.mean(named) >= 0.8
    assert np.median(since) == pytest.approx(701, abs=10)


@pytest.mark.slow
def test_several_labels_keep_one_promise() -> None:
    """Four labels in both directions together give no more false alarms than promised."""
    rng = np.random.default_rng(16)
    shares = {"a": 0.5, "b": 0.3, "c": 0.15, "d": 0.05}
    early = late = 0
    for _ in range(150):
        labels = rng.choice(list(shares), 1000, p=list(shares.values())).tolist()
        found = [d.detected_at for d in LabelShareDetector(shares).update_many(labels)._detectors.values()]
        early += any(found)
        late += not any(found)

    assert early / (early + late) < 0.19 + 0.06


def test_thresholds_grow_with_the_run_length() -> None:
    """Everywhere, and where the level is learnt they are at least about those for a known one."""
    for level in np.linspace(0.01, 0.99, 25).tolist():
        for learnt in (False, True):
            found = [thresholds.log_threshold(level, n, learnt=learnt) for n in (1e3, 3e3, 1e4, 3e4, 1e5, 1e6)]
            assert all(np.diff(found) > 0)
