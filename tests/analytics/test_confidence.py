"""Confidence, simulated because no public set has self-reported ones: is over-confidence found, and only that?"""

# To the stubs of pandas a cell of a frame may be of any type.
# mypy: disable-error-code="operator,call-overload,arg-type,index,union-attr"

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import brier_score_loss

from labelguard_analytics import (
    BadJudgments,
    Counts,
    calibration,
    confidence_weighted,
    infer_truth,
    recalibrate,
)


def made(seed: int, *, tasks: int = 300, per_task: int = 4, over: float = 0.0) -> pd.DataFrame:
    """Annotators who are right with a probability of their confidence less ``over``."""
    rng = np.random.default_rng(seed)
    n = tasks * per_task
    task, who = np.repeat(np.arange(tasks), per_task), np.tile(np.arange(per_task), tasks)
    confidence = rng.uniform(0.55, 1.0, n)
    truth = rng.integers(0, 3, tasks)
    right = rng.random(n) < confidence - over
    value = np.where(right, truth[task], (truth[task] + rng.integers(1, 3, n)) % 3)
    return pd.DataFrame({"task": task, "annotator": who, "value": value, "confidence": confidence, "gold": truth[task]})


def test_the_brier_score_is_that_of_scikit_learn_and_its_parts_sum_to_it() -> None:
    """Reliability - resolution + uncertainty + within is the score exactly."""
    frame = made(1, over=0.1)
    row = calibration(frame).table.iloc[0]

    assert row["brier"] == pytest.approx(brier_score_loss(frame["value"] == frame["gold"], frame["confidence"]))
    assert row["brier"] == pytest.approx(row["reliability"] - row["resolution"] + row["uncertainty"] + row["within"])


def test_fixed_bins_give_what_added_shards_give() -> None:
    """Judgments and right ones of each bin are the sums of the counts of shards."""
    frame = made(2)
    shards = Counts.of(frame[frame["task"] < 100]) + Counts.of(frame[frame["task"] >= 100])
    sums = shards.confidence_table().groupby("bin")[["n", "correct", "confidence"]].sum()
    found = calibration(frame, bins=np.linspace(0, 1, 11).tolist()).bins

    assert found["judgments"].tolist() == sums["n"].tolist()
    assert (found["accuracy"] * found["judgments"]).to_numpy() == pytest.approx(sums["correct"].to_numpy())


def test_the_corrected_error_is_near_zero_where_confidence_is_right() -> None:
    """The usual calibration error is far from 0 by noise alone; the corrected one is less than half of it."""
    rows = [calibration(made(seed + 10, tasks=60), repetitions=0).table.iloc[0] for seed in range(20)]
    corrected, raw = np.mean([row["ece"] for row in rows]), np.mean([row["ece_raw"] for row in rows])

    assert corrected < 0.55 * raw


def test_over_and_underconfidence_are_told_with_an_interval() -> None:
    """A gap of .15 is found either way, and none where there is none."""
    over, right, under = (calibration(made(3, over=gap)).table.iloc[0] for gap in (0.15, 0.0, -0.1))

    assert over["verdict"] == "overconfident"
    assert over["gap_low"] < 0.15 < over["gap_high"]
    assert over["ece_low"] <= over["ece"] <= over["ece_high"]
    assert right["verdict"] == "no difference shown"
    assert under["verdict"] == "underconfident"


def test_annotators_labels_and_cohorts_are_kept_apart() -> None:
    """The one overconfident annotator is named among four."""
    other = made(5, over=0.3).query("annotator == 0").assign(annotator=9, task=lambda rows: rows["task"] + 1000)
    frame = pd.concat([made(4), other])
    frame["cohort"] = np.where(frame["annotator"] == 9, "new", "old")
    people = calibration(frame, by="annotator").table.set_index("annotator")

    assert people["verdict"].eq("overconfident").loc[9]
    assert people["verdict"].drop(9).ne("overconfident").all()
    assert calibration(frame, by="cohort").table["cohort"].tolist() == ["new", "old"]
    assert calibration(frame, by="label").table["judgments"].sum() == len(frame)
    assert "Of 5 groups, 1 are overconfident" in calibration(frame, by="annotator").explain()


def test_sure_and_wrong_judgments_and_doubtful_agreement_are_listed() -> None:
    """Each list holds what was planted, and nothing else."""
    frame = pd.DataFrame(
        {
            "task": [1, 1, 2, 2, 3, 3],
            "annotator": [1, 2] * 3,
            "value": list("aabbba"),
            "confidence": [0.3, 0.4, 0.9, 0.9, 0.95, 0.6],
            "gold": list("aabbaa"),
        }
    )
    found = calibration(frame)

    assert found.disagreements[["task", "annotator"]].to_numpy().tolist() == [[3, 1]]
    assert found.doubtful["task"].tolist() == [1]
    assert found.table.loc[0, "reason"].startswith("Too few tasks for an interval")


def test_without_gold_the_truth_is_inferred_and_that_is_said() -> None:
    """The gap is found against the consensus too."""
    frame = made(6, over=0.15).drop(columns="gold")
    found = calibration(frame)

    assert found.reference == "inferred truth"
    assert found.table.loc[0, "verdict"] == "overconfident"
    assert "inferred truth" in found.explain()


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_recalibration_makes_confidence_right(method: str) -> None:
    """Learnt on some tasks, it takes most of the gap and some of the Brier score from others."""
    frame = made(7, tasks=800, over=0.2)
    learn, test = frame[frame["task"] < 400], frame[frame["task"] >= 400]
    found = recalibrate(learn, method="platt" if method == "platt" else "isotonic")
    corrected = test.assign(confidence=found.apply(test))

    assert abs(calibration(corrected).table.loc[0, "gap"]) < 0.4 * calibration(test).table.loc[0, "gap"]
    assert calibration(corrected).table.loc[0, "brier"] < calibration(test).table.loc[0, "brier"]
    assert "is worth" in found.explain()


def test_few_judgments_of_somebody_are_drawn_to_everybody() -> None:
    """Three wrong answers in a row shift an annotator less than a hundred do."""
    frame = made(8)
    few = pd.DataFrame({"task": range(3), "annotator": 77, "value": 9, "confidence": 0.8, "gold": 1})
    many = pd.DataFrame({"task": range(100), "annotator": 88, "value": 9, "confidence": 0.8, "gold": 1})
    gold = frame.drop_duplicates("task").set_index("task")["gold"]
    shifts = recalibrate(
        pd.concat([frame, few, many]).drop(columns="gold").assign(value=lambda x: x["value"]),
        pd.Series(pd.Categorical(gold, categories=[0, 1, 2, 9]), index=gold.index),
    ).annotators["shift"]

    assert shifts[88] < shifts[77] < 0


def test_votes_weighted_by_confidence_beat_votes_where_confidence_tells() -> None:
    """Annotators who know what they do not know are worth asking how sure they are."""
    gain = []
    for seed in range(4):
        rng = np.random.default_rng(seed + 30)
        truth = rng.integers(0, 3, 300)
        task, who = np.repeat(np.arange(300), 3), np.tile(np.arange(3), 300)
        sure = rng.random(900) < 0.5
        right = rng.random(900) < np.where(sure, 0.95, 0.4)
        value = np.where(right, truth[task], (truth[task] + rng.integers(1, 3, 900)) % 3)
        confidence = np.where(sure, 0.9, 0.5)
        frame = pd.DataFrame({"task": task, "annotator": who, "value": value, "confidence": confidence})
        weighted = (confidence_weighted(frame).labels.to_numpy() == truth).mean()
        gain.append(weighted - (infer_truth(frame).labels.to_numpy() == truth).mean())

    assert np.mean(gain) > 0.02


def test_missing_confidences_are_left_out_and_none_at_all_is_said() -> None:
    """Rows without a confidence do not count; a frame without the column is refused."""
    frame = made(9)
    frame.loc[frame["annotator"] == 0, "confidence"] = np.nan
    assert calibration(frame).table.loc[0, "judgments"] == 900

    frame["confidence"] = np.nan
    assert calibration(frame).explain().startswith("No judgment has both a confidence")
    with pytest.raises(BadJudgments, match="'confidence' is missing"):
        calibration(frame.drop(columns="confidence"))
    with pytest.raises(ValueError, match="rise from 0 to 1"):
        calibration(made(1), bins=[0.2, 0.1, 1.0])


@pytest.mark.slow
def test_intervals_of_the_gap_cover_where_judgments_of_a_task_are_alike() -> None:
    """1,500 simulations with shared task effects: the 95% interval covers the gap in 93 to 97% of them."""
    rng = np.random.default_rng(20260106)
    hits = 0
    for _ in range(1500):
        ease = rng.beta(6, 2, 60)
        right = rng.random((60, 5)) < ease[:, None]
        frame = pd.DataFrame(
            {
                "task": np.repeat(np.arange(60), 5),
                "annotator": np.tile(np.arange(5), 60),
                "value": np.where(right.ravel(), 0, 1),
                "gold": 0,
                "confidence": rng.uniform(0.6, 1.0, 300),
            }
        )
        row = calibration(frame, repetitions=0).table.iloc[0]
        hits += bool(row["gap_low"] <= 0.8 - 0.75 <= row["gap_high"])

    assert 0.93 <= hits / 1500 <= 0.97
