"""Counts of shards add up to what is computed from all judgments at once."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

from labelguard_analytics import (
    Counts,
    Estimate,
    cohen_kappa,
    fleiss_kappa,
    gwet_ac1,
    gwet_ac2,
    krippendorff_alpha,
    pairwise_agreement,
    percent_agreement,
)


def judgments(seed: int, tasks: int, annotators: int = 5, labels: int = 4, missing: float = 0.4) -> pd.DataFrame:
    """Annotators who are right in 70% of cases, each task judged by some, with every optional column."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, labels, tasks)
    right = rng.random((tasks, annotators)) < 0.7
    label = np.where(right, truth[:, None], rng.integers(0, labels, (tasks, annotators)))
    seen = rng.random((tasks, annotators)) > missing
    seen[:, 0] |= ~seen.any(axis=1)
    task, who = np.nonzero(seen)
    return pd.DataFrame(
        {
            "task": task + 10,
            "annotator": [f"person {n}" for n in who],
            "value": label[task, who] + 1,
            "gold": np.where(task % 3 == 0, truth[task] + 1, np.nan),
            "confidence": rng.random(len(task)),
            "source": rng.choice(["web", "mail"], len(task)),
            "at": pd.Timestamp("2025-01-01", tz="UTC") + pd.to_timedelta(rng.integers(0, 60, len(task)), unit="D"),
        }
    )


def by_hand(frame: pd.DataFrame) -> dict[tuple[Any, ...], int]:
    """The confusion with gold, counted with nothing but pandas."""
    known = frame[frame["gold"].notna()]
    counts: dict[Any, int] = known.groupby(["source", "annotator", "gold", "value"]).size().to_dict()
    return counts


def same(one: Estimate, other: Estimate) -> bool:
    """Whether two estimates agree in every number."""
    pairs = [(one.value, other.value), (one.low, other.low), (one.high, other.high)]
    close = all(math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9) or (math.isnan(a) and math.isnan(b)) for a, b in pairs)
    return close and (one.n_tasks, one.n_judgments) == (other.n_tasks, other.n_judgments)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), tasks=st.integers(3, 300), shards=st.integers(1, 4))
def test_shards_add_up_to_the_whole(seed: int, tasks: int, shards: int) -> None:
    """Agreement with its interval, confusion and calibration are the same from shards and from everything."""
    frame = judgments(seed, tasks)
    parts = [frame[frame["task"] % shards == number] for number in range(shards)]
    counts = [Counts.of(part, by=["source"]) for part in parts if len(part)]
    total = counts[0]
    for one in counts[1:]:
        total = total + Counts.from_bytes(one.to_bytes())

    plain = frame.drop(columns="gold")
    plain["value"] = pd.Categorical(plain["value"], categories=list(total.categories), ordered=True)
    assert same(percent_agreement(plain), total.percent_agreement())
    assert same(fleiss_kappa(plain), total.fleiss_kappa())
    assert same(gwet_ac1(plain), total.gwet_ac1())
    assert same(gwet_ac2(plain), total.gwet_ac2())
    for metric in ("nominal", "ordinal", "interval", "ratio"):
        assert same(krippendorff_alpha(frame, metric), total.krippendorff_alpha(metric)), metric
    direct, summed = pairwise_agreement(plain).pairs, total.pairwise_agreement().pairs
    pd.testing.assert_frame_equal(direct, summed, check_dtype=False)
    table = total.confusion_table()
    found = {tuple(row[:-1]): row[-1] for row in table.itertuples(index=False)}
    assert by_hand(frame) == found


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), tasks=st.integers(4, 80))
def test_a_shard_can_be_taken_away_again(seed: int, tasks: int) -> None:
    """What remains after taking a shard away is what was there before."""
    frame = judgments(seed, tasks)
    first, second = (Counts.of(frame[frame["task"] % 2 == n], by=["source", "month"]) for n in (0, 1))
    left = (first + second) - second

    assert (first.n_tasks, first.n_judgments) == (left.n_tasks, left.n_judgments)
    assert same(first.krippendorff_alpha(), left.krippendorff_alpha())
    pd.testing.assert_frame_equal(first.confusion_table(), left.confusion_table(), check_dtype=False)
    pd.testing.assert_frame_equal(first.confidence_table(), left.confidence_table(), check_dtype=False)


def test_bytes_keep_everything() -> None:
    """What is read back writes the same bytes again."""
    counts = Counts.of(judgments(1, 50), by=["source", "week"])
    kept = counts.to_bytes()

    assert kept == Counts.from_bytes(kept).to_bytes()


def test_what_was_never_in_cannot_be_taken_away() -> None:
    """Taking away a stranger is an error, not negative counts."""
    one, other = Counts.of(judgments(1, 30)), Counts.of(judgments(2, 60))

    with pytest.raises(ValueError, match="never part"):
        one - other


def test_other_bytes_are_refused() -> None:
    """Bytes of something else are refused with a sentence."""
    with pytest.raises(ValueError, match="no counts"):
        Counts.from_bytes(b"nothing")


def test_counts_by_different_columns_do_not_add_up() -> None:
    """Counts that keep different things apart are refused with both named."""
    frame = judgments(1, 30)

    with pytest.raises(ValueError, match="by nothing with 10 bins and by"):
        Counts.of(frame) + Counts.of(frame, by=["source"])


def test_named_kappa_is_that_of_all_judgments() -> None:
    """Kappa of two annotators, with its interval, from counts as from the frame."""
    frame = judgments(5, 900, annotators=3)
    found = Counts.of(frame).cohen_kappa("person 2", "person 0")
    wanted = cohen_kappa(frame, "person 0", "person 2")

    assert found.has_interval
    assert wanted.value == pytest.approx(found.value)
    assert (wanted.low, wanted.high) == pytest.approx((found.low, found.high), rel=1e-6)


def test_the_brier_score_follows_from_the_sums() -> None:
    """Fixed bins keep what calibration needs, exactly."""
    frame = judgments(7, 200)
    known = frame[frame["gold"].notna()]
    right = (known["gold"] == known["value"]).astype(float)
    sums = Counts.of(frame).confidence_table().sum(numeric_only=True)

    brier = (sums["confidence_squared"] - 2 * sums["confidence_correct"] + sums["correct"]) / sums["n"]
    assert ((known["confidence"] - right) ** 2).mean() == pytest.approx(brier)
    assert len(known) == sums["n"]


def test_a_posterior_counts_with_its_probabilities() -> None:
    """The M-step from summed shards is the one computed from all judgments and posteriors at once."""
    frame = judgments(9, 120)
    tasks = np.unique(frame["task"])
    labels = np.unique(frame["value"])
    chances = np.random.default_rng(3).dirichlet(np.ones(len(labels)), len(tasks))
    posterior = pd.DataFrame(chances, index=tasks, columns=labels)
    parts = [Counts.of(frame[frame["task"] % 3 == n], truth=posterior) for n in range(3)]
    shares, tables = (parts[0] + parts[1] + parts[2]).m_step(0.5)

    wanted = np.full((5, len(labels), len(labels)), 0.5)
    people = sorted(frame["annotator"].unique())
    for task, who, value in frame[["task", "annotator", "value"]].itertuples(index=False):
        wanted[people.index(who), :, list(labels).index(value)] += posterior.loc[task].to_numpy()
    np.testing.assert_allclose(wanted / wanted.sum(axis=2, keepdims=True), tables)
    np.testing.assert_allclose(chances.mean(axis=0), shares)


def test_labels_between_two_annotators() -> None:
    """The table of two annotators, turned round when they are named the other way."""
    frame = pd.DataFrame({"task": [1, 1, 2, 2], "annotator": ["a", "b"] * 2, "value": ["x", "y", "x", "x"]})
    counts = Counts.of(frame)

    assert counts.between("a", "b").to_numpy().tolist() == [[1, 1], [0, 0]]
    assert counts.between("b", "a").to_numpy().tolist() == [[1, 0], [1, 0]]
