"""Labeling configurations, read safely."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from labelguard.labelconfig import Control, LabelConfig

DELIVERIES = Path(__file__).parent / "deliveries"


def only(inner: str) -> Control:
    """The one control of a configuration."""
    config = LabelConfig.parse(f'<View><Text name="t" value="$t"/>{inner}</View>')
    assert config.problem == ""
    (control,) = config.controls
    return control


def test_the_configuration_of_a_real_project_is_read_whole() -> None:
    """All controls in order, the labels as they stand in results."""
    body = json.loads((DELIVERIES / "project-updated.json").read_text("utf-8"))
    config = LabelConfig.parse(body["project"]["label_config"])
    assert config.problem == ""
    names = "sentiment topics area confidence count when comment ner certain box poly ell kp"
    assert [control.name for control in config.controls] == names.split()
    assert config.control("sentiment") == Control("sentiment", "Choices", ("text",), ("positive", "neg"), required=True)
    assert config.control("topics") == Control("topics", "Choices", ("text",), ("billing", "refund"), multiple=True)
    assert config.control("certain") == Control("certain", "Choices", ("text",), ("yes", "no"), per_region=True)
    assert config.control("area") == Control("area", "Taxonomy", ("text",), ("EU", "EU / DE", "US"), multiple=True)
    assert config.control("box") == Control("box", "RectangleLabels", ("img",), ("Car", "Tree"))
    assert config.control("nobody") is None


@pytest.mark.parametrize(
    ("inner", "control"),
    [
        ('<Rating name="c" toName="t" maxRating="10"/>', Control("c", "Rating", ("t",))),
        ('<Number name="c" toName="t" required="True"/>', Control("c", "Number", ("t",), required=True)),
        ('<DateTime name="c" toName="t"/>', Control("c", "DateTime", ("t",))),
        (
            '<TextArea name="c" toName="t" perRegion="true"/>',
            Control("c", "TextArea", ("t",), per_region=True),
        ),
        ('<Pairwise name="c" toName="a, b"/>', Control("c", "Pairwise", ("a", "b"))),
        ('<Brush name="c" toName="t"/>', Control("c", "Brush", ("t",))),
        (
            '<Labels name="c" toName="t" choice="multiple"><Label value="A"/><Label alias="b"/></Labels>',
            Control("c", "Labels", ("t",), ("A", "b"), multiple=True),
        ),
        (
            '<Choices name="c" toName="t"><View><Choice value="A"/></View><Choice value="A"/></Choices>',
            Control("c", "Choices", ("t",), ("A",)),
        ),
        (
            (
                '<Choices name="c" toName="x" allowNested="true">'
                '<Choice value="A"><Choice value="B"/></Choice></Choices>'
            ),
            Control("c", "Choices", ("x",), ("A", "A / B")),
        ),
        (
            '<Choices name="c" toName="t" value="$options"><Choice value="other"/></Choices>',
            Control("c", "Choices", ("t",), ("other",), dynamic=True),
        ),
        (
            '<Taxonomy name="c" toName="t" maxUsages="1"><Choice value="A"/></Taxonomy>',
            Control("c", "Taxonomy", ("t",), ("A",)),
        ),
        (
            '<Ranker name="c" toName="l"><Bucket name="best"/><Bucket name="rest"/></Ranker>',
            Control("c", "Ranker", ("l",), ("best", "rest")),
        ),
        (
            '<Taxonomy name="c" toName="t" apiUrl="$u"/>',
            Control("c", "Taxonomy", ("t",), (), True, dynamic=True),
        ),
        ('<TextArea name="c" toName="t" value="$guess"/>', Control("c", "TextArea", ("t",))),
        ('<Chat name="c" value="$chat"/>', Control("c", "Chat", ("c",))),
    ],
)
def test_each_control_tag_is_read(inner: str, control: Control) -> None:
    """Attributes, aliases, nesting and dynamic labels."""
    assert only(inner) == control


@pytest.mark.parametrize("inner", ['<Filter name="f" toName="c"/>', "<Relations/>", '<Header value="x"/>', "<Style/>"])
def test_tags_that_make_no_result_are_no_controls(inner: str) -> None:
    """A filter has a name and a target, and still says nothing."""
    assert LabelConfig.parse(f"<View>{inner}</View>") == LabelConfig()


@pytest.mark.parametrize(
    ("xml", "problem"),
    [
        ("", "The labeling configuration is empty."),
        (
            "<View>",
            "The labeling configuration is not well-formed XML: no element found: line 1, column 6.",
        ),
        (
            '<!DOCTYPE x [<!ENTITY a "b">]><View>&a;</View>',
            "The labeling configuration declares a DOCTYPE or ENTITY, which is not read.",
        ),
        (
            "<View>&a;</View>",
            "The labeling configuration is not well-formed XML: undefined entity: line 1, column 6.",
        ),
    ],
)
def test_what_cannot_be_read_is_said_in_a_sentence(xml: str, problem: str) -> None:
    """Nothing is raised: the rules that need the configuration see that there is none."""
    assert LabelConfig.parse(xml) == LabelConfig(problem=problem)


@pytest.mark.parametrize(
    ("depth", "problem"),
    [
        (100, ""),
        (101, "The labeling configuration nests options more than 100 levels deep."),
        (100_000, "The labeling configuration nests options more than 100 levels deep."),
    ],
)
def test_depth_neither_stops_us_nor_fills_the_memory(depth: int, problem: str) -> None:
    """A taxonomy as deep as anybody wants is read; one made to hurt is refused."""
    choices = '<Choice value="a">' * depth + "</Choice>" * depth
    config = LabelConfig.parse(f'<View><Taxonomy name="c" toName="t">{choices}</Taxonomy></View>')
    assert config.problem == problem
    assert [len(control.labels) for control in config.controls] == ([] if problem else [depth])


_TAGS = st.sampled_from(["View", "Choices", "Choice", "Labels", "Label", "Taxonomy", "Rating", "Chat", "Ranker", "x"])
_ATTRIBUTES = st.dictionaries(
    st.sampled_from(["name", "toName", "value", "alias", "required", "choice", "perRegion", "allowNested"]),
    st.text("ab,$ true", max_size=6),
    max_size=4,
)


def _written(tag: str, attributes: dict[str, str], inner: list[str]) -> str:
    return f"<{tag} " + " ".join(f'{k}="{v}"' for k, v in attributes.items()) + ">" + "".join(inner) + f"</{tag}>"


_XML = st.recursive(
    st.builds(_written, _TAGS, _ATTRIBUTES, st.just([])),
    lambda inner: st.builds(_written, _TAGS, _ATTRIBUTES, st.lists(inner, max_size=4)),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(_XML | st.text(st.characters(codec=None)))
def test_no_text_makes_it_raise(xml: str) -> None:
    """Every control that is found has a name and a target; everything else is a problem in words."""
    config = LabelConfig.parse(xml)
    assert not (config.controls and config.problem)
    assert all(control.name and control.to_name for control in config.controls)
    assert "\n" not in config.problem
