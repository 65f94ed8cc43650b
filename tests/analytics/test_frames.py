"""Frames of judgments are read into codes, and what is wrong with one is said in one sentence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from labelguard_analytics import BadJudgments, fleiss_kappa, krippendorff_alpha
from labelguard_analytics.frames import Kind, from_codes, kind_of, read


def frame(**columns: Any) -> pd.DataFrame:
    """Three judgments of two tasks, with other columns or values on request; rows are called r1 to r3."""
    given = {"task": [1, 1, 2], "annotator": ["ann", "bob", "ann"], "value": ["x", "y", "x"], **columns}
    return pd.DataFrame(given, index=["r1", "r2", "r3"])


BAD = [
    ({"task": None}, "nominal", r"column 'task' is empty in row 'r1'"),
    ({"label": ["a", "b", "c"]}, "nominal", r"column 'label' is unknown"),
    ({"value": ["x", 1, "x"]}, "nominal", r"column 'value' mixes types: row 'r1' holds a str, row 'r2' an int"),
    ({"value": ["x", None, "x"]}, "nominal", r"column 'value' is empty in row 'r2'"),
    ({"value": ["x", pd.NA, "x"]}, "nominal", r"column 'value' is empty in row 'r2'"),
    ({"value": [1.0, np.nan, 2.0]}, "nominal", r"column 'value' is empty in row 'r2'"),
    ({"value": [1.0, np.inf, 2.0]}, "nominal", r"column 'value' is infinite in row 'r2'"),
    ({"value": [1.0, 2.0, -np.inf]}, "number", r"column 'value' is infinite in row 'r3'"),
    ({"value": [1.0, 2.0, np.nan]}, "number", r"column 'value' is empty in row 'r3'"),
    ({"value": [1.0, "2", 3.0]}, "number", r"column 'value' must hold numbers, but row 'r2' holds '2'"),
    ({"value": [["x"], ["y"], ["x"]]}, "nominal", r"column 'value' holds a list in row 'r1', where one plain value"),
    ({"value": ["x", ["y"], "x"]}, "nominal", r"column 'value' holds a list in row 'r2'"),
    ({"task": [1, [1], 2]}, "nominal", r"column 'task' holds a list in row 'r2'"),
    ({"value": [["x"], "y", ["x"]]}, "set", r"must hold lists of labels, but row 'r2' holds 'y'"),
    ({"value": [["x"], [1], ["x"]]}, "set", r"column 'value' mixes types or has an empty label in row 'r2'"),
    ({"value": [["x"], [{}], ["x"]]}, "set", r"row 'r2' holds a list of dict"),
    ({"value": [[{}], ["y"], [{}]]}, "result", r"lists of Label Studio result items, but row 'r2' holds \['y'\]"),
    ({"task": [1, 1, 1]}, "nominal", r"same judgment in rows 'r1' and 'r3' \(task 1, annotator ann\)"),
    ({"confidence": [0.5, 1.2, 0.1]}, "nominal", r"column 'confidence' must be from 0 to 1, but row 'r2' holds 1.2"),
    ({"duration": [5, -1, 1]}, "nominal", r"column 'duration' must be at least 0, but row 'r2' holds -1"),
    ({"duration": [5, np.inf, 1]}, "nominal", r"column 'duration' is infinite in row 'r2'"),
    ({"at": ["2025-01-01"] * 3}, "nominal", r"column 'at' must hold datetimes"),
    ({"gold": [1, 1, 1]}, "nominal", r"column 'gold' holds 1 in row 'r1', which is of another type"),
]


@pytest.mark.parametrize(("columns", "kind", "says"), BAD)
def test_what_is_wrong_is_said_with_column_and_row(columns: dict[str, Any], kind: Kind, says: str) -> None:
    """One sentence that names the column and the row by its index label."""
    with pytest.raises(BadJudgments, match=says) as caught:
        read(frame(**columns), kind=kind)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("judgments", "says"),
    [
        ([1, 2], "must be a pandas DataFrame .* not a list"),
        (frame().iloc[:0], "no judgments: the columns 'task', 'annotator' and 'value' have no row"),
        (frame().iloc[:1], r"have 1 row \(row 'r1'\), and at least 2 are needed"),
        (frame().drop(columns="value"), "column 'value' is missing"),
        (frame().rename(columns={"annotator": "anotator"}), "'annotator' is missing; did you mean it by 'anotator'"),
        (frame(gold=1), "'gold' holds 1"),
    ],
)
def test_bad_frames_are_refused_by_every_function(judgments: Any, says: str) -> None:
    """The functions pass on what reading says."""
    for function in (krippendorff_alpha, fleiss_kappa):
        with pytest.raises(BadJudgments, match=says):
            function(judgments)


@pytest.mark.parametrize(
    "make",
    [
        lambda values: values,
        pd.Categorical,
        lambda values: pd.Series(values, dtype="string").array,
        lambda values: pd.Series(values, dtype=object).array,
    ],
)
def test_all_kinds_of_columns_give_the_same_codes(make: Any) -> None:
    """Plain, categorical, string and object columns are read alike."""
    coded = read(frame(task=make(["b", "b", "a"]), annotator=make(["z", "y", "z"]), value=make(["q", "p", "q"])))

    assert coded.task.tolist() == [1, 1, 0]
    assert coded.annotator.tolist() == [1, 0, 1]
    assert coded.value.tolist() == [1, 0, 1]
    assert list(coded.tasks) == ["a", "b"]
    assert list(coded.categories) == ["p", "q"]


@pytest.mark.parametrize("values", [[7, 7, -3], [10**12, 10**12, 5], [True, True, False]])
def test_whole_numbers_are_coded_in_their_order(values: list[Any]) -> None:
    """Dense, sparse and negative integers and booleans."""
    coded = read(frame(task=values))

    assert coded.task.tolist() == [1, 1, 0]
    assert sorted(set(values)) == list(coded.tasks)


def test_a_repeated_judgment_is_refused_with_its_rows_and_what_to_do() -> None:
    """Without times nobody knows which one counts; the step that is named makes the frame readable."""
    twice = frame(task=[1, 1, 1], annotator=["ann", "ann", "ann"])
    for function in (krippendorff_alpha, fleiss_kappa):
        with pytest.raises(
            BadJudgments, match=r"in rows 'r1' and 'r2' \(task 1, annotator ann\), and 1 more row rep.*"
        ):
            function(twice)

    assert read(twice.drop_duplicates(["task", "annotator"], keep="last"), least=1).n == 1


def test_the_latest_judgment_of_a_task_counts() -> None:
    """Where an annotator judged a task again, `at` decides."""
    times = pd.to_datetime(["2025-01-02", "2025-01-01", "2025-01-01"])
    coded = read(frame(task=[1, 1, 1], annotator=["ann", "ann", "bob"], at=times))

    assert coded.frame["value"].tolist() == ["x", "x"]
    assert coded.n == 2


def test_unused_categories_stay_labels() -> None:
    """A categorical column says which labels there are, and their order."""
    coded = read(frame(value=pd.Categorical(["low", "high", "low"], ["low", "middle", "high"], ordered=True)))

    assert list(coded.categories) == ["low", "middle", "high"]
    assert coded.ordered


def test_labels_only_gold_has_are_labels() -> None:
    """Gold may know a label that nobody gave."""
    coded = read(frame(gold=["w", "w", None]))

    assert list(coded.categories) == ["w", "x", "y"]
    assert coded.gold().tolist() == [0, -1]


def test_different_gold_for_one_task_is_refused() -> None:
    """A task has one right answer."""
    with pytest.raises(BadJudgments, match=r"different answers for task 1 \(row 'r[12]'\)"):
        read(frame(gold=["x", "y", "x"])).gold()


def test_needed_columns_are_asked_for() -> None:
    """A use that needs a column says so."""
    with pytest.raises(BadJudgments, match="column 'at' is missing, which is needed here"):
        read(frame(), needs=["at"])


def test_kinds_are_told_from_values() -> None:
    """Lists of labels, lists of items, numbers and labels."""
    values: dict[Kind, list[Any]] = {
        "set": [[], ["a"], ["b"]],
        "result": [[], [{"type": "choices"}], []],
        "number": [0.5, 1.0, 2.0],
        "nominal": [1, 2, 3],
    }
    for kind, column in values.items():
        assert kind == kind_of(frame(value=column))


@pytest.mark.parametrize(
    ("codes", "says"),
    [
        (([0.5], [0], [0]), "task must be a one-dimensional array of integer codes"),
        (([0], [-1], [0]), "annotator has a negative code at position 0"),
        (([0, 1], [0], [0]), "same length"),
        (([0], [0], [5]), "value has the code 5, but there are only 3 categories"),
    ],
)
def test_ready_codes_are_checked(codes: Any, says: str) -> None:
    """Arrays of codes are taken as they are, if they are codes."""
    with pytest.raises(BadJudgments, match=says):
        from_codes(codes[0], codes[1], codes[2], 3)


def test_ready_codes_give_what_a_frame_gives() -> None:
    """Codes skip reading, and nothing else."""
    rng = np.random.default_rng(4)
    codes = np.repeat(np.arange(200), 3), np.tile(np.arange(3), 200), rng.integers(0, 3, 600)
    judgments = pd.DataFrame(dict(zip(("task", "annotator", "value"), codes, strict=True)))

    assert krippendorff_alpha(judgments) == krippendorff_alpha(from_codes(*codes))
