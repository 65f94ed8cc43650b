"""What an annotation says for each control, in every shape Label Studio writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from labelguard.judgments import RAW, Judgment, from_json, judgments_of, to_json

DELIVERIES = Path(__file__).parent / "deliveries"


def captured() -> list[dict[str, Any]]:
    """A real result with fifteen items of twelve controls."""
    body = json.loads((DELIVERIES / "annotation-created.json").read_text("utf-8"))
    result: list[dict[str, Any]] = body["annotation"]["result"]
    return result


def item(kind: str, value: Any, **more: Any) -> dict[str, Any]:
    """A result item of the control ``c``."""
    return {"id": "i1", "from_name": "c", "to_name": "t", "type": kind, "value": value, **more}


def test_a_real_result_becomes_one_judgment_for_each_control() -> None:
    """All kinds of one captured annotation, with values, labels and regions."""
    found = {j.control: (j.kind, j.labels, j.region) for j in judgments_of(captured())}
    assert found == {
        "sentiment": ("choices", ("positive",), ""),
        "topics": ("choices", ("billing", "refund"), ""),
        "area": ("taxonomy", ("EU / DE", "US"), ""),
        "confidence": ("rating", ("4",), ""),
        "count": ("number", (), ""),
        "when": ("datetime", (), ""),
        "comment": ("textarea", (), ""),
        "ner": ("labels", ("PER", "Token"), ""),
        "certain": ("choices", ("yes",), "r1"),
        "": ("relation", ("owns",), ""),
        "box": ("rectanglelabels", ("Car",), ""),
        "poly": ("polygonlabels", ("Lake",), ""),
        "ell": ("ellipselabels", ("Sun",), ""),
        "kp": ("keypointlabels", ("Eye",), ""),
    }
    values = {j.control: j.value for j in judgments_of(captured())}
    assert values["topics"] == ("refund", "billing")
    assert values["confidence"] == 4.0
    assert values["when"] == "2026-03-01"
    assert values["comment"] == ("naïve", "über")
    assert [region["id"] for region in values["ner"]] == ["r1", "r2"]


@pytest.mark.parametrize(
    ("kind", "value", "read", "labels"),
    [
        ("choices", {"choices": ["b", "a", "b"]}, ("b", "a"), ("a", "b")),
        ("choices", {"choices": [["x", "y"], ["z"]]}, ("x / y", "z"), ("x / y", "z")),
        ("choices", {"choices": []}, (), ()),
        ("taxonomy", {"taxonomy": [["a"], ["a", "b"]]}, ("a", "a / b"), ("a", "a / b")),
        ("rating", {"rating": 5}, 5.0, ("5",)),
        ("rating", {"rating": 2.5}, 2.5, ("2.5",)),
        ("number", {"number": -3}, -3.0, ()),
        ("datetime", {"datetime": "2026-01-01T10:00"}, "2026-01-01T10:00", ()),
        ("textarea", {"text": ["one", "one"]}, ("one", "one"), ()),
        ("textarea", {"text": "bare"}, ("bare",), ()),
        ("pairwise", {"selected": "left"}, "left", ("left",)),
        ("ranker", {"ranker": {"best": ["2", "1"]}}, {"best": ("2", "1")}, ()),
    ],
)
def test_each_classification_is_read_into_its_value(kind: str, value: Any, read: Any, labels: tuple[str, ...]) -> None:
    """The value has the type its kind promises."""
    assert judgments_of([item(kind, value)]) == (Judgment("c", kind, read, labels),)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("choices", {"choices": "a"}),
        ("choices", {"choices": [1]}),
        ("choices", {}),
        ("choices", None),
        ("taxonomy", {"taxonomy": ["a"]}),
        ("rating", {"rating": "5"}),
        ("rating", {"rating": True}),
        ("number", {"number": 10**400}),
        ("datetime", {"datetime": 5}),
        ("textarea", {"text": [None]}),
        ("pairwise", {"selected": "middle"}),
        ("pairwise", {"selected": ["left"]}),
        ("ranker", {"ranker": ["1", "2"]}),
        ("ranker", {"ranker": {"best": "1"}}),
    ],
)
def test_a_broken_classification_is_kept_raw_and_nothing_is_guessed(kind: str, value: Any) -> None:
    """Rules that look for the kind must not meet a value of another shape."""
    broken = item(kind, value)
    assert judgments_of([broken]) == (Judgment("c", RAW, (broken,)),)


@pytest.mark.parametrize("broken", [None, 3, "x", [], {}, {"type": "choices"}, {"from_name": "c"}, {"type": []}])
def test_anything_else_in_a_result_is_kept_raw(broken: Any) -> None:
    """Never raises, never drops."""
    (judgment,) = judgments_of([broken])
    assert judgment.kind == RAW
    assert judgment.value == (broken,)


def test_two_answers_where_one_is_possible_are_kept_raw() -> None:
    """Neither of two ratings is more right than the other."""
    (judgment,) = judgments_of([item("rating", {"rating": 1}), item("rating", {"rating": 5})])
    assert judgment.kind == RAW


def test_texts_of_one_control_add_up() -> None:
    """A text area may write one item for each text."""
    (judgment,) = judgments_of([item("textarea", {"text": ["a"]}), item("textarea", {"text": ["b"]}, id="i2")])
    assert judgment.value == ("a", "b")


def test_a_classification_belongs_to_a_region_by_shared_id() -> None:
    """A region and its choice share the id; the choice about the whole task does not."""
    result = [
        item("rectanglelabels", {"x": 1, "rectanglelabels": ["Car"]}, id="r1", from_name="box"),
        item("choices", {"choices": ["blurred"]}, id="r1"),
        item("choices", {"choices": ["day"]}, id="other"),
    ]
    assert [(j.region, j.labels) for j in judgments_of(result) if j.kind == "choices"] == [
        ("r1", ("blurred",)),
        ("", ("day",)),
    ]


def test_a_classification_with_geometry_belongs_to_a_region() -> None:
    """A transcription of a box carries the box, even where the box itself has no item of its own."""
    (judgment,) = judgments_of([item("textarea", {"x": 1, "y": 2, "width": 3, "height": 4, "text": ["word"]})])
    assert (judgment.region, judgment.value) == ("i1", ("word",))


def test_answers_per_image_of_a_list_stay_apart() -> None:
    """`perItem` controls write an `item_index`."""
    found = judgments_of([item("choices", {"choices": [label]}, item_index=n) for n, label in enumerate("ab")])
    assert [(j.region, j.labels) for j in found] == [("item:0", ("a",)), ("item:1", ("b",))]


@pytest.mark.parametrize(
    ("kind", "value", "labels"),
    [
        ("hypertextlabels", {"start": "/p[1]/text()[1]", "hypertextlabels": ["B", "A"]}, ("A", "B")),
        ("paragraphlabels", {"start": "0", "end": "0", "paragraphlabels": ["A"]}, ("A",)),
        ("timeserieslabels", {"start": 1, "end": 2, "instant": False, "timeserieslabels": ["A"]}, ("A",)),
        ("brushlabels", {"format": "rle", "rle": [0, 1], "brushlabels": ["A"]}, ("A",)),
        ("bitmasklabels", {"imageDataURL": "data:", "bitmasklabels": ["A"]}, ("A",)),
        ("videorectangle", {"sequence": [], "labels": ["A"]}, ("A",)),
        ("timelinelabels", {"ranges": [{"start": 1, "end": 2}], "timelinelabels": ["A"]}, ("A",)),
        ("vectorlabels", {"vertices": [], "vectorlabels": ["A"]}, ("A",)),
        ("rectangle", {"x": 1}, ()),
        ("somethingnew", {"somethingnew": "A"}, ()),
        ("somethingnew", 7, ()),
    ],
)
def test_regions_and_unknown_tags_are_kept_with_their_labels(kind: str, value: Any, labels: tuple[str, ...]) -> None:
    """The raw items are the value, so that nothing is lost."""
    region = item(kind, value)
    assert judgments_of([region]) == (Judgment("c", kind, (region,), labels),)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
_KINDS = st.sampled_from(
    [
        "choices",
        "taxonomy",
        "rating",
        "number",
        "datetime",
        "textarea",
        "pairwise",
        "ranker",
        "labels",
        "relation",
    ]
)
_PATHS = st.lists(st.lists(st.text(max_size=3), max_size=3), max_size=3)
_VALUES = st.one_of(
    st.fixed_dictionaries({"choices": st.lists(st.text(max_size=3), max_size=3) | _PATHS}),
    st.fixed_dictionaries({"taxonomy": _PATHS}),
    st.fixed_dictionaries({"text": st.lists(st.text(max_size=3), max_size=3) | st.text(max_size=3)}),
    st.fixed_dictionaries({"rating": st.integers(0, 10)}),
    st.fixed_dictionaries({"number": st.floats(allow_nan=False, allow_infinity=False)}),
    st.fixed_dictionaries({"datetime": st.text(max_size=5)}),
    st.fixed_dictionaries({"selected": st.sampled_from(["left", "right", "both"])}),
    st.fixed_dictionaries({"ranker": st.dictionaries(st.text(max_size=3), st.lists(st.text(max_size=3), max_size=3))}),
    st.fixed_dictionaries({"start": st.integers(), "labels": st.lists(st.text(max_size=3), max_size=3)}),
    _JSON,
)
_ITEMS = st.fixed_dictionaries(
    {},
    optional={
        "id": st.sampled_from(["a", "b"]) | _JSON,
        "from_name": st.sampled_from(["c", "d"]) | _JSON,
        "type": _KINDS | _JSON,
        "value": _VALUES,
        "item_index": st.integers(0, 1) | _JSON,
    },
)


@settings(max_examples=150, deadline=None)
@given(st.lists(_ITEMS | _JSON, max_size=5))
def test_any_result_is_read_and_survives_the_way_through_json(result: list[Any]) -> None:
    """Whatever stands in a result becomes judgments, and the store gives back what it was given."""
    found = judgments_of(result)
    assert bool(found) == bool(result)
    for judgment in found:
        assert list(judgment.labels) == sorted(set(judgment.labels))
        assert from_json(json.loads(json.dumps(to_json(judgment)))) == judgment
