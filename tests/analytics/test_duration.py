"""How long judgments take: paces, difficulty, learning and fatigue are found, and so is rushing."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from labelguard_analytics import BadJudgments, duration_model

MONDAY = pd.Timestamp("2026-01-05", tz="UTC")


def timed(
    seed: int, *, annotators: int = 20, tasks: int = 800, heavy: bool = True
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Judgments of three for each task in sessions of forty, and what is true of each annotator."""
    rng = np.random.default_rng(seed)
    task = np.repeat(np.arange(tasks), 3)
    step = annotators // 3
    who = ((rng.integers(0, annotators, tasks)[:, None] + step * np.arange(3)) % annotators).ravel()
    length, difficulty = rng.gamma(2.0, 1.0, tasks), rng.normal(0, 0.3, tasks)
    people = pd.DataFrame(
        {
            "pace": rng.normal(0, 0.5, annotators),
            "learning": rng.normal(-0.05, 0.03, annotators),
            "fatigue": rng.normal(0.05, 0.03, annotators),
        }
    )
    frame = pd.DataFrame({"task": task, "annotator": who, "value": "x", "length": length[task]})
    place = frame.groupby("annotator").cumcount().to_numpy()
    hours, doublings = (place % 40) * 2 / 60, np.log2(1 + place)
    noise = rng.standard_t(3, len(task)) * 0.3 if heavy else rng.normal(0, 0.4, len(task))
    own = people.iloc[who]
    level = own["pace"].to_numpy() + own["learning"].to_numpy() * doublings + own["fatigue"].to_numpy() * hours
    frame["duration"] = np.exp(3 + level + difficulty[task] + 0.2 * length[task] + noise)
    frame["at"] = MONDAY + pd.to_timedelta((place // 40) * 24 * 60 + (place % 40) * 2, unit="min")
    people["typical"] = pd.Series(level).groupby(who).mean()
    return frame, people


def timed_sets() -> Iterator[tuple[str, pd.DataFrame, tuple[str, ...]]]:
    """The public sets that have times, with the covariates they have; skips the test where there are none."""
    folder = os.environ.get("LABELGUARD_CROWD_DATA")
    root = Path(folder) if folder else Path(__file__).parents[3] / "shared" / "data"
    crowd, sound = root / "active-crowd-timed" / "judgments.csv.gz", root / "vu-sound" / "keywords.csv.gz"
    if not crowd.exists() or not sound.exists():
        pytest.skip(f"The crowd data is not in {root}; set LABELGUARD_CROWD_DATA to the folder that has it.")
    names = {"item_id": "task", "label": "value", "labels": "value", "duration_s": "duration", "created_at": "at"}
    jobs = pd.read_csv(crowd).rename(columns=names).dropna(subset="duration")
    for job, frame in jobs.groupby("job"):
        once = frame.drop_duplicates(["task", "annotator"])
        yield str(job), once[["task", "annotator", "value", "duration"]].reset_index(drop=True), ()
    clips = pd.read_csv(sound).rename(columns=names)
    clips = clips.assign(at=pd.to_datetime(clips["at"]), value="words", length=np.log(0.1 + clips["clip_s"]))
    columns = ["task", "annotator", "value", "duration", "at", "length"]
    yield (
        "vu-sound",
        clips[columns].drop_duplicates(["task", "annotator"]).sort_values("at", ignore_index=True),
        ("length",),
    )


def test_paces_slopes_and_covariates_are_found_with_honest_intervals() -> None:
    """With heavy tails, 95% intervals of annotators' paces, learning and fatigue hold the truth in 90 to 99%."""
    held: dict[str, list[float]] = {"speed": [], "learning": [], "fatigue": []}
    slopes: list[float] = []
    for seed in range(12):
        frame, people = timed(900 + seed)
        model = duration_model(frame, covariates=["length"])
        truth = {
            "speed": np.exp(people["typical"] - people["typical"].mean()),
            "learning": np.expm1(people["learning"]),
            "fatigue": np.expm1(people["fatigue"]),
        }
        for name, right in truth.items():
            low, high = model.annotators[f"{name}_low"], model.annotators[f"{name}_high"]
            held[name].append(((low <= right) & (right <= high)).mean())
        slopes.append(float(model.effects["factor"].to_dict()["length"]))
    for name, shares in held.items():
        assert 0.88 <= np.mean(shares) <= 0.99, name
    assert np.mean(slopes) == pytest.approx(np.exp(0.2), rel=0.02)


def test_a_rushing_annotator_is_found_and_named_and_others_are_left_alone() -> None:
    """Who cuts a fifth of the times to a fifth is found in most cases and named in the sentence."""
    frame, _ = timed(921, heavy=False)
    rng = np.random.default_rng(1)
    rushed = ((frame["annotator"] == 4) & (rng.random(len(frame)) < 0.2)).to_numpy()
    frame.loc[rushed, "duration"] /= 5
    model = duration_model(frame, covariates=["length"], error_rate=0.02)
    flagged = model.judgments["too_fast"].to_numpy()
    assert flagged[rushed].mean() >= 0.8
    assert flagged[~rushed].mean() <= 0.02
    assert "look first at 4, with" in model.explain()


def test_of_honest_judgments_at_most_the_stated_share_is_flagged() -> None:
    """In sample never more than the rate, and about the rate of judgments that come later."""
    frame, _ = timed(931, tasks=3000)
    later = frame.groupby("annotator").cumcount() >= 320
    model = duration_model(frame[~later], covariates=["length"], error_rate=0.05)
    assert model.judgments["too_fast"].mean() <= 0.05
    assert model.judgments["too_slow"].mean() <= 0.05
    coming = model.expect(frame[later][["task", "annotator", "length", "duration"]])
    assert 0.025 <= coming["too_fast"].mean() <= 0.075
    assert 0.025 <= coming["too_slow"].mean() <= 0.075
    assert (coming["low"] < coming["expected"]).all()
    assert (coming["expected"] < coming["high"]).all()


def test_strangers_get_the_typical_time_and_a_wider_range() -> None:
    """Neither a new annotator nor a new task is an error; less is known about them."""
    frame, _ = timed(941)
    model = duration_model(frame, covariates=["length"])
    new = pd.DataFrame({"task": [3, 9999], "annotator": [4, 777], "length": [2.0, 2.0]})
    found = model.expect(new)
    width = np.log(found["high"].to_numpy() / found["low"].to_numpy())
    assert width[1] > width[0]
    assert found["expected"].iloc[1] == pytest.approx(np.exp(3 + 0.4), rel=0.5)


def test_real_judgments_that_come_later_are_flagged_at_about_the_nominal_rate() -> None:
    """The last fifth of everybody's work in the five public sets: 5% nominal; planted rushing is found."""
    rates, found = [], []
    for name, frame, covariates in timed_sets():
        place = frame.groupby("annotator").cumcount()
        size = frame.groupby("annotator")["task"].transform("size")
        later = (place >= 0.8 * size) & (size >= 10)
        model = duration_model(frame[~later], covariates=covariates, error_rate=0.05)
        rates.append(model.expect(frame[later].drop(columns="value"))["too_fast"].mean())
        rng = np.random.default_rng(5)
        chosen = rng.choice(frame.loc[size >= 50, "annotator"].unique(), 3, replace=False)
        rushed = (frame["annotator"].isin(chosen) & (rng.random(len(frame)) < 0.2)).to_numpy()
        planted = frame.assign(duration=frame["duration"].where(~rushed, frame["duration"] / 5))
        flagged = duration_model(planted, covariates=covariates, error_rate=0.05).judgments["too_fast"].to_numpy()
        found.append(flagged[rushed].mean())
        sys.stdout.write(f"{name}: {rates[-1]:.1%} of later judgments flagged, {found[-1]:.0%} of rushed ones found\n")
    assert max(rates) <= 0.1
    assert 0.03 <= np.mean(rates) <= 0.07
    assert np.mean(found) >= 0.5


def test_without_times_of_day_fatigue_is_unknown_and_the_reason_is_told() -> None:
    """The order of the frame then stands for the order of work."""
    frame, _ = timed(951)
    model = duration_model(frame.drop(columns=["at", "length"]))
    assert model.annotators["fatigue"].isna().all()
    assert set(model.annotators["fatigue_reason"]) == {"Fatigue is unknown without the column 'at'."}
    assert list(model.effects.index) == ["learning"]


def test_missing_and_zero_durations_are_no_errors() -> None:
    """A row without a duration only counts as experience; 0 seconds is very fast."""
    frame, _ = timed(961)
    frame.loc[5, "duration"], frame.loc[6, "duration"] = np.nan, 0.0
    model = duration_model(frame, covariates=["length"])
    assert 5 not in model.judgments.index
    assert model.judgments.loc[6, "too_fast"]
    assert np.isfinite(model.judgments["z"]).all()


def test_too_little_data_is_said_with_the_numbers() -> None:
    """Ten judgments give no model, and somebody with three judgments no interval."""
    frame, _ = timed(971)
    few = duration_model(frame.head(10).drop(columns="length"))
    assert few.explain() == "Too little data: 10 judgments with a duration, where 30 are needed."
    with pytest.raises(ValueError, match="10 judgments"):
        few.expect(frame.head(1))
    frame.loc[[0, 3, 6], "annotator"] = 99
    one = duration_model(frame.drop(columns="length")).annotators.loc[99]
    assert one["reason"] == "Too little data: 3 judgments where 10 are needed."
    assert np.isnan(one["speed"])


def test_bad_input_is_told_in_one_sentence() -> None:
    """The sentence names the column and the row."""
    frame, _ = timed(981)
    with pytest.raises(BadJudgments, match="The column 'duration' is missing"):
        duration_model(frame.drop(columns=["duration", "length"]))
    with pytest.raises(BadJudgments, match="The column 'length' is missing"):
        duration_model(frame.drop(columns="length"), covariates=["length"])
    with pytest.raises(BadJudgments, match="The column 'length' is empty in row 7"):
        duration_model(frame.assign(length=frame["length"].where(frame.index != 7)), covariates=["length"])
    with pytest.raises(BadJudgments, match="The column 'length' is the same in every row"):
        duration_model(frame.assign(length=1.0), covariates=["length"])
    with pytest.raises(BadJudgments, match="The column 'at' is empty in row 7"):
        duration_model(frame.assign(at=frame["at"].where(frame.index != 7)), covariates=["length"])
    with pytest.raises(ValueError, match="error_rate must lie above 0 and be at most"):
        duration_model(frame, error_rate=0.5)
    with pytest.raises(ValueError, match="session_gap must be a number of minutes above 0, but it is 0"):
        duration_model(frame, covariates=["length"], session_gap=0)
    model = duration_model(frame, covariates=["length"])
    with pytest.raises(BadJudgments, match="The column 'length' is missing"):
        model.expect(frame[["task", "annotator"]])
