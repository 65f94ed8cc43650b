"""Confusion: against scikit-learn and hand counts, coverage of its intervals, and what it says of pairs and items."""

# To the stubs of pandas a cell of a frame may be of any type.
# mypy: disable-error-code="operator,call-overload,arg-type,index,union-attr"

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import confusion_matrix

from labelguard_analytics import BadJudgments, Counts, confusing_items, confusion, infer_truth


def made(seed: int, tasks: int = 150, per_task: int = 4) -> pd.DataFrame:
    """Four labels; ``c`` is taken for ``d`` in three of ten cases, everything else rarely."""
    rng = np.random.default_rng(seed)
    names = np.array(list("abcd"))
    rates = np.array([[0.91, 0.03, 0.03, 0.03], [0.03, 0.91, 0.03, 0.03], [0.02, 0.02, 0.66, 0.3], [0.02] * 3 + [0.94]])
    truth = rng.integers(0, 4, tasks)
    task = np.repeat(np.arange(tasks), per_task)
    said = np.array([rng.choice(4, p=rates[truth[one]] / rates[truth[one]].sum()) for one in task])
    return pd.DataFrame(
        {
            "task": task,
            "annotator": np.tile(np.arange(per_task), tasks),
            "value": names[said],
            "gold": names[truth[task]],
            "cohort": np.where(np.arange(len(task)) % per_task < 2, "old", "new"),
            "at": pd.Timestamp("2026-01-05") + pd.to_timedelta(task // 10, unit="D"),
        }
    )


def test_counts_are_those_of_scikit_learn_and_of_added_shards() -> None:
    """The matrix is the usual one, and the same as from additive counts."""
    frame = made(1)
    found = confusion(frame)
    shards = Counts.of(frame[frame["task"] < 70]) + Counts.of(frame[frame["task"] >= 70])

    assert found.matrix.to_numpy() == pytest.approx(confusion_matrix(frame["gold"], frame["value"]))
    assert found.matrix.to_numpy() == pytest.approx(shards.cube().sum(axis=0))
    assert found.n_judgments == 600


def test_the_planted_confusion_comes_first_with_lift_and_direction() -> None:
    """``c`` for ``d`` is the top pair, several times the chance rate, and one way."""
    top = confusion(made(2)).pairs.iloc[0]

    assert (top["truth"], top["label"], top["direction"]) == ("c", "d", "one way")
    assert top["low"] < 0.3 < top["high"]
    assert top["lift_low"] > 3
    assert top["q"] < 0.001
    assert top["reverse"] < 0.1


def test_groups_add_up_to_the_whole() -> None:
    """By cohort, annotator and week, counts sum to those of all judgments."""
    frame = made(3)
    whole = confusion(frame).matrix.to_numpy().sum()
    for by in ("cohort", "annotator", "week", ["cohort", "week"]):
        found = confusion(frame, by=by)

        assert found.table["count"].sum() == pytest.approx(whole)
        assert found.table.columns[0] == (by if isinstance(by, str) else by[0])


def test_truth_may_be_labels_a_posterior_or_inferred() -> None:
    """A certain posterior gives what labels give; an inferred truth is close to the known one."""
    frame = made(4)
    gold = frame.drop_duplicates("task").set_index("task")["gold"]
    plain = frame.drop(columns="gold")
    posterior = pd.get_dummies(gold).astype(float)
    known = confusion(plain, gold).table

    assert confusion(plain, posterior).table["rate"].to_numpy() == pytest.approx(known["rate"].to_numpy())
    inferred = confusion(plain, infer_truth(plain)).table
    assert np.abs(inferred["rate"] - known["rate"]).max() < 0.2


def test_between_annotators_each_pair_of_judgments_is_counted_from_both_sides() -> None:
    """Without gold: a hand count over ordered pairs, each judgment worth one."""
    frame = made(5, tasks=40).drop(columns="gold")
    expected = pd.DataFrame(0.0, index=list("abcd"), columns=list("abcd"))
    for _, part in frame.groupby("task"):
        values = part["value"].tolist()
        for place, here in enumerate(values):
            for other in values[:place] + values[place + 1 :]:
                expected.loc[other, here] += 1 / (len(values) - 1)
    found = confusion(frame)

    assert found.reference == "other annotators"
    assert found.matrix.to_numpy() == pytest.approx(expected.to_numpy())
    assert found.matrix.to_numpy() == pytest.approx(found.matrix.to_numpy().T)


def test_few_tasks_give_no_interval_but_a_reason() -> None:
    """Rates from three tasks stand without an interval, and say why."""
    found = confusion(made(6, tasks=6))
    few = found.table[found.table["low"].isna()]

    assert len(few)
    assert few["reason"].str.contains("Too few tasks|No judgment has this truth").all()
    assert found.table[found.table["reason"] == ""][["rate", "low", "high"]].notna().all(axis=None)


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (pd.DataFrame({"task": [1, 2], "annotator": [1, 2], "value": ["a", "b"]}), "No task has two judgments"),
        (pd.DataFrame({"task": [1], "annotator": [1], "value": ["a"]}), "No task has two judgments"),
    ],
)
def test_nothing_to_compare_is_said(frame: pd.DataFrame, says: str) -> None:
    """No overlap and no gold is an empty result with a reason."""
    found = confusion(frame)

    assert found.explain().startswith(says)
    assert found.table.empty


def test_all_right_is_no_confusion() -> None:
    """Full agreement with two labels has no pairs to name."""
    frame = pd.DataFrame({"task": range(20), "annotator": [1] * 20, "value": list("ab") * 10, "gold": list("ab") * 10})
    found = confusion(frame)

    assert found.explain().endswith("No label is taken for another.")
    assert (found.pairs["reason"] != "").all()


def test_it_explains_itself_with_numbers() -> None:
    """The top pair, its rate and interval are in the sentences."""
    words = confusion(made(7)).explain()

    assert "Of 600 judgments on 150 tasks" in words
    assert "Most often 'c' is taken for 'd'" in words
    assert "95% interval" in words


@pytest.mark.slow
def test_intervals_of_rates_cover_where_judgments_of_a_task_are_alike() -> None:
    """2,000 simulations with task effects: the 95% interval covers the rate in 93 to 98% of them."""
    rng = np.random.default_rng(20260105)
    hits, looked = 0, 0
    for _ in range(2000):
        chance = rng.beta(2, 6, 80)
        wrong = rng.random((80, 4)) < chance[:, None]
        frame = pd.DataFrame(
            {
                "task": np.repeat(np.arange(80), 4),
                "annotator": np.tile(np.arange(4), 80),
                "value": np.where(wrong.ravel(), 1, 0),
                "gold": 0,
            }
        )
        row = confusion(frame).table.iloc[1]
        hits += bool(row["low"] <= 0.25 <= row["high"])
        looked += 1

    assert 0.93 <= hits / looked <= 0.98


def test_confusing_items_are_grouped_and_described_by_their_words() -> None:
    """Texts about boats are confusing; the group says so, with its words, an interval and examples."""
    rng = np.random.default_rng(8)
    boats, cats = ["boat sail harbour wind", "sail mast boat sea"], ["cat fur whisker", "cat purr paw fur"]
    rows, texts = [], {}
    for task in range(120):
        about_boats = task % 3 == 0
        texts[task] = str(rng.choice(boats if about_boats else cats))
        for who in range(4):
            wrong = rng.random() < (0.45 if about_boats else 0.04)
            rows.append((task, who, "b" if wrong else "a", "a"))
    frame = pd.DataFrame(rows, columns=["task", "annotator", "value", "gold"])
    found = confusing_items(frame, text=pd.Series(texts), groups=4)
    top = found.clusters.iloc[0]

    assert len(found.clusters) == 4
    assert {"boat", "sail"} & set(top["words"])
    assert top["low"] > top["elsewhere"]
    assert top["q"] < 0.01
    assert all(task % 3 == 0 for task in top["examples"])
    assert "most telling words" in found.explain()


def test_items_may_be_grouped_by_features() -> None:
    """Numbers instead of texts: the feature that differs is named."""
    frame = made(9).assign(gold=None)
    dark = pd.DataFrame({"brightness": np.where(np.arange(150) < 75, 0.0, 10.0), "noise": 1.0}, index=range(150))
    found = confusing_items(frame.drop(columns="gold"), features=dark, groups=2)

    assert found.clusters["words"].iloc[0][0].startswith("brightness")
    with pytest.raises(BadJudgments, match="no text"):
        confusing_items(frame.drop(columns="gold"), text=pd.Series({0: "a"}))
    with pytest.raises(ValueError, match="either text or features"):
        confusing_items(frame.drop(columns="gold"))
