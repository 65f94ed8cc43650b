"""Whatever is thrown at a public function gives one clear sentence, or a right answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from labelguard_analytics import (
    BadJudgments,
    BadResult,
    Counts,
    Recalibration,
    ability_difficulty,
    agreement_by_label,
    agreement_by_task,
    calibration,
    cohen_kappa,
    confidence_weighted,
    confusing_items,
    confusion,
    consensus_regions,
    dawid_skene,
    fleiss_kappa,
    gwet_ac1,
    gwet_ac2,
    hierarchical_dawid_skene,
    infer_truth,
    krippendorff_alpha,
    majority_vote,
    multi_label_truth,
    numeric_truth,
    one_coin,
    ordinal_truth,
    pairwise_agreement,
    percent_agreement,
    recalibrate,
    similarity,
)
from labelguard_analytics.similarities import TAGS

Judging = Callable[..., Any]

LABELS: list[Judging] = [
    percent_agreement,
    fleiss_kappa,
    gwet_ac1,
    krippendorff_alpha,
    cohen_kappa,
    pairwise_agreement,
    agreement_by_task,
    agreement_by_label,
    majority_vote,
    dawid_skene,
    hierarchical_dawid_skene,
    one_coin,
    ability_difficulty,
    infer_truth,
    confusion,
    calibration,
    recalibrate,
    confidence_weighted,
    Counts.of,
]
"""What takes one label for each judgment."""


def judged(**columns: Any) -> pd.DataFrame:
    """Four tasks judged by three annotators, with every column; rows are called r0 to r11."""
    rng = np.random.default_rng(5)
    given = {
        "task": np.repeat(np.arange(4), 3),
        "annotator": list("abc") * 4,
        "value": list("xxyyyxxyxxxx"),
        "confidence": rng.uniform(0.3, 1, 12),
        "source": ["s", "t", "s"] * 4,
        "gold": ["x"] * 3 + [None] * 9,
        "at": pd.date_range("2025-01-01", periods=12, freq="h"),
    }
    return pd.DataFrame({**given, **columns}, index=[f"r{row}" for row in range(12)])


def numbers(**columns: Any) -> pd.DataFrame:
    """The same with numbers."""
    return judged(value=np.arange(12.0) % 5, gold=np.nan, **columns)


def sets() -> pd.DataFrame:
    """The same with lists of labels."""
    return judged(value=[["x"], ["x", "y"], []] * 4).drop(columns="gold")


def with_one(column: str, value: Any) -> pd.DataFrame:
    """One cell, in row r4, is something else."""
    frame = judged()
    cells = frame[column].astype(object).tolist()
    cells[4] = value
    return frame.assign(**{column: pd.Series(cells, index=frame.index, dtype=object)})


ODD_CELLS = [
    *((column, value) for column in ("task", "annotator", "value") for value in (None, np.inf, [1], {"a": 1}, {1})),
    ("value", ("x", 1)),
    ("value", 1),
    ("confidence", "high"),
    ("confidence", np.inf),
    ("confidence", -0.1),
    ("gold", 3),
    ("gold", ["x"]),
]


@pytest.mark.parametrize(("column", "value"), ODD_CELLS)
@pytest.mark.parametrize("function", LABELS)
def test_an_odd_cell_is_named_with_its_column_and_row(function: Judging, column: str, value: Any) -> None:
    """Wherever it is, by every function."""
    with pytest.raises(BadJudgments, match=rf"column '{column}' .*'r\d") as caught:
        function(with_one(column, value))
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("function", LABELS)
@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (judged(task=np.arange(12) * 1j), r"'task' holds complex numbers \(row 'r0'\)"),
        (judged(value=pd.Categorical(["x", 1] * 6)), "'value' mixes types"),
        (judged(value=pd.Categorical([1.0, np.inf] * 6), gold=None), "'value' is infinite in row 'r1'"),
        (judged(task=pd.Categorical([(row, 1) for row in range(12)])), "'task' holds a tuple in row 'r0'"),
        (judged(value=[True, False] * 6, gold=1.0), "'gold' holds 1.0 in row 'r0', which is of another type"),
        (pd.concat([judged(), judged()[["value"]]], axis=1), "two columns called 'value'"),
        (judged().iloc[:0], "no judgments"),
        (None, "must be a pandas DataFrame .* not a NoneType"),
    ],
)
def test_an_odd_frame_is_refused_by_every_function(function: Judging, frame: Any, says: str) -> None:
    """Whole columns that make no sense."""
    with pytest.raises(BadJudgments, match=says):
        function(frame)


@pytest.mark.parametrize(
    "change",
    [
        lambda frame: frame.assign(task=frame["task"].to_numpy().astype(np.uint64) + np.uint64(2**63)),
        lambda frame: frame.assign(annotator=frame["annotator"].astype("string[pyarrow]")),
        lambda frame: frame.convert_dtypes(dtype_backend="pyarrow"),
        lambda frame: frame.assign(
            value=pd.Series(pd.arrays.ArrowExtensionArray(pa.array(frame["value"]).dictionary_encode()), frame.index)
        ),
        lambda frame: frame.assign(at=frame["at"].dt.tz_localize("Europe/Berlin")),
        lambda frame: frame.assign(source=None),
        lambda frame: frame.set_axis([0] * 12),
    ],
)
def test_unusual_columns_give_the_usual_answer(change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    """Arrow's types, time zones, large numbers, missing sources and repeated row names."""
    usual, other = judged(), change(judged())

    assert krippendorff_alpha(other).value == pytest.approx(krippendorff_alpha(usual).value)
    assert infer_truth(other).labels.tolist() == infer_truth(usual).labels.tolist()
    by_week = confusion(other, by=["source", "week"])
    assert by_week.table["count"].sum() == confusion(usual).table["count"].sum()
    assert by_week.pairs["count"].sum() == confusion(usual).pairs["count"].sum()
    assert Counts.of(other, by=["source", "day"]).n_judgments == 12


def test_lists_in_arrow_are_lists() -> None:
    """As they come out of a Parquet file."""
    lists = pd.Series(pd.arrays.ArrowExtensionArray(pa.array(sets()["value"].tolist())), index=sets().index)

    assert infer_truth(sets().assign(value=lists)).labels.tolist() == infer_truth(sets()).labels.tolist()


def test_the_latest_counts_across_time_zones_and_missing_times() -> None:
    """A time that is missing in another row does not disturb the order."""
    frame = judged(task=[0, 0, *range(2, 12)], annotator=["a", "a", *"bcabcabcab"])
    times = frame["at"].dt.tz_localize("Europe/Berlin")
    times.iloc[[0, 1, 5, 7]] = [times.iloc[9], times.iloc[2], pd.NaT, pd.NaT]
    values = Counts.of(frame.assign(at=times, value=["late", "early", *"xyxyxyxyxy"], gold=None)).categories

    assert "late" in values
    assert "early" not in values


def test_numbers_whose_squares_are_none_are_refused() -> None:
    """Instead of an answer that is infinite."""
    huge = numbers().assign(value=[1.0] * 11 + [1e200])
    for function in (numeric_truth, lambda frame: krippendorff_alpha(frame, "interval")):
        with pytest.raises(BadJudgments, match=r"'value' must hold numbers up to 1e\+100, but row 'r11' holds 1e\+200"):
            function(huge)


OPTIONS: list[tuple[Callable[[Any], Any], Any, str]] = [
    *(
        (lambda one, f=f: f(judged(), interval=one), [1], "interval must be 'analytic' or 'bootstrap'")
        for f in LABELS[:4]
    ),
    (lambda one: percent_agreement(judged(), repetitions=one), 1.5, "repetitions must be a whole number"),
    (lambda one: percent_agreement(judged(), seed=one), -1, "seed must be at least 0"),
    (lambda one: fleiss_kappa(judged(), weights=one), object(), "weights must be a symmetric matrix of 2 x 2"),
    (lambda one: gwet_ac2(numbers(), weights=one), [["a"]], "weights must be a symmetric matrix"),
    (lambda one: pairwise_agreement(judged(), weights=one), np.full((2, 2), np.nan), "weights must be a symmetric"),
    (lambda one: pairwise_agreement(judged(), weights=one), "cubic", "weights must be 'linear', 'quadratic' or"),
    (lambda one: krippendorff_alpha(judged(), one), pd.Series([1]), "The metric must be a name"),
    (lambda one: majority_vote(judged(), use_gold=one), "no", "use_gold must be True or False, but it is 'no'"),
    (lambda one: majority_vote(judged(), repeats=one), ["count"], "repeats must be 'count' or 'share'"),
    (lambda one: dawid_skene(judged(), tolerance=one), "small", "tolerance must be a number"),
    (lambda one: hierarchical_dawid_skene(judged(), strength=one), np.inf, "strength must be above 0"),
    (lambda one: one_coin(judged(), class_shares=one), None, "class_shares, .* must be a number"),
    (lambda one: infer_truth(judged(), values=one), ["label"], "values must be 'label', 'number', 'set' or"),
    (lambda one: numeric_truth(numbers(), iterations=one), 0, "iterations must be at least 1, but it is 0"),
    (lambda one: numeric_truth(numbers(), tolerance=one), np.nan, "tolerance must be finite, but it is nan"),
    (lambda one: numeric_truth(numbers(), use_gold=one), None, "use_gold must be True or False"),
    (lambda one: ordinal_truth(numbers(), use_gold=one), 1, "use_gold must be True or False"),
    (lambda one: multi_label_truth(sets(), iterations=one), 0, "iterations must be at least 1"),
    (lambda one: consensus_regions(judged(value=[[]] * 12), one), "Map", "no control tag 'Map'"),
    (lambda one: consensus_regions(judged(value=[[]] * 12), one), "Choices", "Choices marks no regions"),
    (lambda one: consensus_regions(judged(value=[[]] * 12), "Labels", least=one), 2, "least must be from 0 to 1"),
    (lambda one: confusion(judged(), by=one), 5, "by must be a name or a list of names, but it is 5"),
    (lambda one: confusion(judged(), by=one), ["value"], "What by names must be 'annotator', .* but it is 'value'"),
    (lambda one: confusion(judged(), by=one), ["week", "week"], "by names a column twice"),
    (lambda one: confusion(judged(), one), pd.Series([["x"]]), "'truth' holds a list in row 0"),
    (lambda one: confusion(judged(), one), pd.Series(["x", "y"], index=[0, 0]), "truth has the task 0 twice"),
    (lambda one: confusion(judged(), one), pd.DataFrame({"x": ["a"]}), "must hold probabilities from 0 to 1"),
    (lambda one: confusion(judged(), one), pd.DataFrame({"x": [-1.0]}), "must hold probabilities from 0 to 1"),
    (lambda one: confusion(judged(), one), pd.DataFrame({"z": [1.0]}), "truth has the label 'z'"),
    (lambda one: confusion(judged(), one), [1], "truth must be labels indexed by task"),
    (lambda one: calibration(judged(), bins=one), "ten", "bins must be a whole number, but it is 'ten'"),
    (lambda one: calibration(judged(), bins=one), [0, np.nan, 1], "edges of bins must be numbers that rise"),
    (lambda one: calibration(judged(), bins=one), ["a"], "edges of bins must be numbers that rise"),
    (lambda one: calibration(judged(), repetitions=one), -1, "repetitions must be at least 0"),
    (lambda one: recalibrate(judged(), method=one), ["platt"], "method must be 'platt' or 'isotonic'"),
    (lambda one: recalibrate(judged(), strength=one), -1, "strength must be at least 0"),
    (lambda one: recalibrate(judged()).apply(one), judged().drop(columns="confidence"), "'confidence' is missing"),
    (lambda one: recalibrate(judged()).apply(one), with_one("confidence", 7), "'confidence' must be from 0 to 1"),
    (lambda one: confusing_items(judged(), text=one), pd.Series(["a"] * 5, index=[0, 0, 1, 2, 3]), "Task 0 has two"),
    (lambda one: Counts.of(judged(), by=one), ["annotator"], "What by names must be 'source', 'cohort', 'day'"),
    (lambda one: Counts.of(judged()).krippendorff_alpha(one), ["ordinal"], "The metric must be 'nominal', 'ordinal'"),
    (lambda one: Counts.of(judged()).cohen_kappa("a", one), ["b"], r"no annotator \['b'\] in these counts"),
    (lambda one: Counts.of(judged()).between("a", one), "z", "no annotator 'z' in these counts"),
    (lambda one: Counts.of(judged()).cube(one), ("s",), r"no group \('s',\) in these counts"),
    (lambda one: Counts.of(judged()).m_step(one), "a", "smoothing must be a number from 0"),
    (lambda one: Counts.of(judged()).m_step(one), -1, "smoothing must be a number from 0"),
    (Counts.from_bytes, "abc", "Counts are read from bytes, not from a str"),
    (
        lambda one: Counts.of(judged(annotator=one)).to_bytes(),
        pd.arrays.IntervalArray.from_breaks(range(13)),
        "Arrow cannot keep values such as Interval",
    ),
]


@pytest.mark.parametrize(("call", "option", "says"), OPTIONS)
def test_an_odd_option_is_named(call: Callable[[Any], Any], option: Any, says: str) -> None:
    """With what it must be and what it is, in one line."""
    with pytest.raises((ValueError, TypeError), match=says) as caught:
        call(option)
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


def test_a_recalibration_knows_what_is_missing() -> None:
    """No confidence, no worth; nobody known, everybody's."""
    learned: Recalibration = recalibrate(judged())
    worth = learned.apply(pd.DataFrame({"annotator": ["a", "new"], "confidence": [None, 0.5]}))

    assert np.isnan(worth[0])
    assert 0 < worth[1] < 1


def test_no_more_groups_are_made_than_there_are_different_items() -> None:
    """Where texts repeat, or more groups are asked for than there are tasks."""
    texts = pd.Series(["red bus", "old boat", "red bus", "old boat"])

    assert len(confusing_items(judged(gold=None), text=texts, groups=9).clusters) == 2


# --- Results of Label Studio -----------------------------------------------------------------------------------

PLACED = {
    "Labels": "labels",
    "HyperTextLabels": "hypertextlabels",
    "ParagraphLabels": "paragraphlabels",
    "TimeSeriesLabels": "timeserieslabels",
    "TimelineLabels": "timelinelabels",
    "Rectangle": "rectangle",
    "RectangleLabels": "rectanglelabels",
    "PolygonLabels": "polygonlabels",
    "EllipseLabels": "ellipselabels",
    "KeyPointLabels": "keypointlabels",
    "VectorLabels": "vectorlabels",
    "BrushLabels": "brushlabels",
    "BitmaskLabels": "bitmasklabels",
    "VideoRectangle": "videorectangle",
}


def item(kind: str, value: Any, **more: Any) -> dict[str, Any]:
    """A result item on a picture of 10 x 10."""
    frame = {"id": "r", "from_name": "f", "to_name": "t", "original_width": 10, "original_height": 10}
    return {**frame, "type": kind, "value": value, **more}


def box(**value: Any) -> list[dict[str, Any]]:
    """One box with a label."""
    whole = {"x": 1, "y": 1, "width": 5, "height": 5, "rotation": 0, "rectanglelabels": ["A"], **value}
    return [item("rectanglelabels", whole)]


@pytest.mark.parametrize("other", [False, True])
@pytest.mark.parametrize("value", [{}, {"x": 1}, None, 5])
@pytest.mark.parametrize(("tag", "kind"), PLACED.items())
def test_a_region_without_a_place_is_an_error(tag: str, kind: str, value: Any, other: bool) -> None:
    """Beside another one and alone: it must not count as a region that nobody else drew."""
    broken = [item(kind, value)]
    for one, two in ((broken, broken if other else []), ([] if not other else broken, broken)):
        with pytest.raises(BadResult, match=f"^An? {kind} item (must|needs)"):
            similarity(tag, one, two)


@pytest.mark.parametrize(
    ("tag", "broken", "says"),
    [
        ("RectangleLabels", box(x=1e300), r"finite number as its 'x' \(up to 1e\+100\), but it is 1e\+300"),
        ("RectangleLabels", box(x=10**400), "finite number as its 'x'"),
        ("RectangleLabels", [{**box()[0], "original_width": "wide"}], "finite number as its 'original_width'"),
        ("RectangleLabels", [{**box()[0], "original_width": np.nan}], "finite number as its 'original_width'"),
        ("RectangleLabels", [{**box()[0], "original_height": -3}], "number above 0 as its 'original_height'"),
        ("RectangleLabels", [{**box()[0], "to_name": ["t"]}], "a text or a whole number as its 'to_name'"),
        ("RectangleLabels", [{**box()[0], "id": {"a": 1}}], "a text or a whole number as its 'id'"),
        ("PolygonLabels", [item("polygonlabels", {"points": []})], "list of points of two finite numbers"),
        ("PolygonLabels", [item("polygonlabels", {"points": [[0, 0], [1, 10**400]]})], "points of two finite numbers"),
        ("ParagraphLabels", [item("paragraphlabels", {"start": "0", "end": "1", "startOffset": 2})], "'endOffset'"),
        ("TimeSeriesLabels", [item("timeserieslabels", {"start": "soon", "end": 3})], "'soon' as its 'start'"),
        ("TimeSeriesLabels", [item("timeserieslabels", {"start": "", "end": 3})], "'' as its 'start'"),
        ("DateTime", [item("datetime", {"datetime": ""})], "'', which is no date or time"),
        ("BrushLabels", [item("brushlabels", {"rle": 5})], "a list of bytes as its 'rle'"),
        ("BrushLabels", [item("brushlabels", {"rle": [0, 0, 0, 9]})], "A mask has 9 values"),
        ("BrushLabels", [item("brushlabels", {"rle": []}, original_width=10**5, original_height=10**5)], "pixels that"),
        ("VideoRectangle", [item("videorectangle", {"sequence": [], "framesCount": np.nan})], "its 'framesCount'"),
        ("VideoRectangle", [item("videorectangle", {"sequence": [], "framesCount": 10**9})], "at most 5,000,000"),
        ("Relations", [{"type": "relation", "from_id": "a", "to_id": "b", "labels": 5}], "a list as its 'labels'"),
    ],
)
def test_a_broken_item_is_an_error_about_it(tag: str, broken: Any, says: str) -> None:
    """Numbers out of range, sides of pictures, names, runs, frames and times."""
    with pytest.raises(BadResult, match=says):
        similarity(tag, broken, broken)


@pytest.mark.parametrize("result", [None, 5, "text", {"type": "choices"}, {1, 2}, [None], [[]], [{"type": 5}]])
@pytest.mark.parametrize("tag", sorted(TAGS))
def test_what_is_no_result_is_an_error(tag: str, result: Any) -> None:
    """For every tag, on either side."""
    for one, other in ((result, []), ([], result)):
        with pytest.raises(BadResult, match="result must be"):
            similarity(tag, one, other)


@pytest.mark.parametrize(
    ("tag", "option", "value", "says"),
    [
        ("RectangleLabels", "threshold", "half", "threshold must be a number, but it is 'half'"),
        ("RectangleLabels", "threshold", 0, "threshold must be above 0 and at most 1, but it is 0"),
        ("RectangleLabels", "labels", ["exact"], "labels must be 'jaccard', 'exact', 'f1', 'masi' or 'ignore'"),
        ("KeyPointLabels", "spread", 10**400, "spread must be above 0"),
        ("BrushLabels", "merge", "no", "merge must be True or False"),
        ("BrushLabels", "measure", None, "measure must be 'iou' or 'dice', but it is None"),
        ("TimeSeriesLabels", "tolerance", -1, "tolerance must be at least 0"),
        ("DateTime", "tolerance", "soon", "tolerance must be seconds or a text such as '2h', but it is 'soon'"),
        ("DateTime", "tolerance", pd.Timedelta("-1h"), "tolerance must be at least 0"),
        ("Rating", "scale", 5, "scale must be a pair of a lower and a higher number, but it is 5"),
        ("Rating", "scale", (1, np.nan), "Each end of scale must be finite"),
        ("Ranker", "p", 0, "p must be above 0 and at most 1"),
        ("Relations", "least", 2, "least must be from 0 to 1"),
        ("TextArea", "ignore_case", 1, "ignore_case must be True or False"),
    ],
)
def test_an_odd_option_of_a_tag_is_named_even_for_empty_results(tag: str, option: str, value: Any, says: str) -> None:
    """A mistake must not wait for the first result that is not empty."""
    with pytest.raises((ValueError, TypeError), match=says):
        similarity(tag, [], [], **{option: value})


@pytest.mark.parametrize(
    ("tag", "one", "other", "expected"),
    [
        ("RectangleLabels", box(width=0), box(width=0), 1.0),
        ("RectangleLabels", box(width=0), box(width=0, x=3), 0.0),
        ("RectangleLabels", box(width=0, height=0), box(), 0.0),
        # Two triangles that meet in the middle: half of the square they cross.
        (
            "PolygonLabels",
            [item("polygonlabels", {"points": [[0, 0], [10, 10], [10, 0], [0, 10]], "polygonlabels": ["A"]})],
            [item("polygonlabels", {"points": [[0, 0], [10, 0], [10, 10], [0, 10]], "polygonlabels": ["A"]})],
            0.5,
        ),
        (
            "KeyPointLabels",
            [item("keypointlabels", {"x": 1e100, "y": 0, "keypointlabels": ["A"]})],
            [item("keypointlabels", {"x": 0, "y": 0, "keypointlabels": ["A"]})],
            0.0,
        ),
    ],
)
def test_shapes_without_an_area_and_crossing_themselves_have_an_answer(
    tag: str, one: Any, other: Any, expected: float
) -> None:
    """Zero-area boxes are alike where they are the same; a ring that crosses itself encloses what it encloses."""
    assert similarity(tag, one, other) == pytest.approx(expected)
    assert similarity(tag, other, one) == pytest.approx(expected)
