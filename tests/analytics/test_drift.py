"""The label drift sweep: case mix and learning are not drift, drift is found, peers are left out of it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from histories import end_of, history
from labelguard_analytics import label_drift
from labelguard_analytics.drift import consensus_of_others


@pytest.mark.slow
def test_false_discoveries_stay_below_the_level_and_drift_is_found() -> None:
    """With strong case mix and learning at most 10% of those named are innocent; half the drifters are named.

    They drift in a quarter of their last four weeks' judgments, which is hard to see on sixteen weeks.
    """
    nothing_planted, false_share, found = [], [], []
    for seed in range(16):
        frame = history(4000 + seed, annotators=21, weeks=16)
        named = [drift.annotator for drift in label_drift(frame, now=end_of(frame)) if drift.discovered]
        nothing_planted.append(bool(named))
        frame = history(5000 + seed, annotators=21, weeks=16, drifting=(3, 8))
        hits = {drift.annotator for drift in label_drift(frame, now=end_of(frame)) if drift.discovered}
        false_share.append(len(hits - {3, 8}) / max(1, len(hits)))
        found.append(len(hits & {3, 8}) / 2)
    assert np.mean(nothing_planted) <= 0.1
    assert np.mean(false_share) <= 0.1
    assert np.mean(found) >= 0.5


def test_a_drifting_annotator_is_described() -> None:
    """The finding names the label, the direction, the shares, an interval around the effect and the start."""
    frame = history(31, annotators=12, weeks=14, drifting=(5,), drift=0.5)
    named = [drift for drift in label_drift(frame, now=end_of(frame)) if drift.discovered]
    assert [drift.annotator for drift in named] == [5]
    assert named[0].q <= 0.1
    shift = next(s for s in named[0].shifts if s.kind == "change" and s.label == "a")
    assert shift.discovered
    assert shift.direction == "more"
    assert shift.now > shift.before
    assert shift.low < shift.effect < shift.high
    assert 0.2 < shift.effect < 0.6
    assert shift.expected == pytest.approx(shift.now - shift.effect)
    begun = frame["at"].min() + pd.Timedelta(days=70)
    assert shift.since is not None
    assert abs(shift.since - begun) < pd.Timedelta(days=14)


def test_somebody_always_unlike_the_others_is_a_level_shift() -> None:
    """Who has used a label too often from the start shows no change, but differs from the peers."""
    frame = history(32, annotators=12, weeks=14, drifting=(4,), drift_weeks=14, drift=0.5)
    named = {drift.annotator: drift for drift in label_drift(frame, now=end_of(frame)) if drift.discovered}
    assert 4 in named
    best = named[4].shifts[0]
    assert (best.kind, best.label, best.direction, best.since) == ("level", "a", "more", None)


def test_the_order_of_rows_does_not_matter() -> None:
    """Rows may come in any order: times decide, not places."""
    frame = history(33, annotators=6, weeks=8)
    mixed = frame.sample(frac=1, random_state=1)
    first, second = label_drift(frame, now=end_of(frame)), label_drift(mixed, now=end_of(frame))
    assert [d.p for d in first] == pytest.approx([d.p for d in second])


def test_too_little_data_is_said_in_a_sentence() -> None:
    """Nobody is judged on a handful of judgments, and the reason is told with the numbers."""
    frame = history(34, annotators=6, weeks=1, a_day=3)
    for drift in label_drift(frame, now=end_of(frame)):
        assert not drift.discovered
        assert drift.too_little.startswith("Too little data: ")
        assert drift.too_little.endswith(" are needed.")


def test_tasks_of_one_annotator_have_no_consensus() -> None:
    """Without others there is nobody to be compared with, so nothing is said."""
    frame = history(35, annotators=6, weeks=8).drop_duplicates("task")
    assert all(d.judgments == 0 and not d.discovered for d in label_drift(frame, now=end_of(frame)))
    assert label_drift(frame.iloc[:0], now=end_of(frame)) == []


def test_the_consensus_leaves_out_oneself_and_the_untrusted() -> None:
    """Nobody is their own reference; ties go to the first label; somebody under suspicion does not count."""
    task = np.array([1, 1, 1, 2])
    said = [("b",), ("a",), ("a",), ("c",)]
    assert consensus_of_others(task, said) == [("a", True), ("a", False), ("a", False), None]
    trusted = [True, True, False, True]
    assert consensus_of_others(task, said, trusted) == [("a", True), ("b", True), ("a", False), None]
