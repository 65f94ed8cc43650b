"""A change is taken apart into items, annotators and behaviour, exactly and with honest intervals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from causeworlds import TwoPeriods
from labelguard_analytics import BadJudgments, decompose_change
from labelguard_analytics.causes.components import shapley

AT = "2026-02-01"


def drawn(seed: int = 1, **options: Any) -> pd.DataFrame:
    """One project of two periods."""
    return TwoPeriods(**options).draw(np.random.default_rng(seed))


@pytest.mark.parametrize("measure", ["shares", "agreement"])
@pytest.mark.parametrize("columns", [["gold", "source"], ["source"], []])
def test_the_parts_add_up_to_the_change(measure: Any, columns: list[str]) -> None:
    """Whatever the basis, to the last digit, for every label and both kinds of agreement."""
    frame = drawn(items=True, annotators=True, behaviour=-0.1)
    frame = frame[["task", "annotator", "value", "at", *columns]]

    found = decompose_change(frame, at=AT, measure=measure)

    assert np.allclose(found.parts.groupby("of")["value"].sum(), found.change["change"].sort_index(), atol=1e-12)
    assert np.allclose(found.change["after"] - found.change["before"], found.change["change"])


def test_shares_are_those_of_the_frame() -> None:
    """Before and after are what anybody would count."""
    frame = drawn(items=True)
    late = frame["at"] >= AT

    found = decompose_change(frame, before=~late, after=late)

    expected = frame.loc[late, "value"].value_counts(normalize=True)
    assert np.allclose(found.change["after"], expected[found.change.index])


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"items": True}, "items"),
        ({"annotators": True, "people": 24}, "annotators"),
        ({"behaviour": -0.15}, "behaviour"),
    ],
)
def test_a_change_of_agreement_is_put_down_to_what_changed(options: dict[str, Any], part: str) -> None:
    """The interval of what changed excludes zero, those of the others do not, and most of the change is its."""
    found = decompose_change(drawn(8, tasks=1000, **options), at=AT, measure="agreement")

    for name in ("items", "annotators", "behaviour"):
        estimate = found.estimate(name, "agreement")
        assert (estimate.low <= 0 <= estimate.high) == (name != part), name
    total = float(found.change["change"].to_numpy()[0])
    assert found.estimate(part, "agreement").value / total > 0.6


def test_das_gupta_and_least_squares_agree_where_everybody_judges_everything() -> None:
    """With one factor the parts are Kitagawa's: differences of one weighted by averages of the other."""
    rates = {("web", 0): 0.2, ("web", 1): 0.4, ("mail", 0): 0.8, ("mail", 1): 0.5}
    sizes = {("web", 0): 100, ("web", 1): 180, ("mail", 0): 100, ("mail", 1): 20}
    rows: list[tuple[int, int, str, str, bool]] = []
    task = 0
    for (source, period), size in sizes.items():
        for number in range(size):
            task += 1
            value = "spam" if number < round(rates[source, period] * size) else "fine"
            rows += [(task, who, value, source, bool(period)) for who in range(4)]
    frame = pd.DataFrame(rows, columns=["task", "annotator", "value", "source", "late"])
    late = frame.pop("late")

    found = decompose_change(frame, before=~late, after=late)

    web, mail = (0.9 - 0.5), (0.1 - 0.5)
    assert found.estimate("items", "spam").value == pytest.approx(web * 0.3 + mail * 0.65)
    assert found.estimate("behaviour", "spam").value == pytest.approx(0.7 * 0.2 + 0.3 * -0.3)
    assert found.estimate("annotators", "spam").value == pytest.approx(0)


def test_shapley_shares_an_interaction_equally() -> None:
    """Three switches that only work together have a third each."""
    worth = np.zeros((2, 2, 2))
    worth[1, 1, 1] = 6.0

    assert shapley(worth).tolist() == pytest.approx([2, 2, 2])


def test_consensus_alone_does_not_tell_items_from_behaviour() -> None:
    """Nothing is chosen: the two are one part, and the reason says what would help."""
    frame = drawn(behaviour=-0.2)[["task", "annotator", "value", "at"]]

    found = decompose_change(frame, at=AT, measure="agreement")

    assert not found.identified
    assert set(found.parts["part"]) == {"items or behaviour", "annotators"}
    assert found.reason == (
        "Different items cannot be told from a change that everybody made: known answers (column 'gold'), tasks "
        "judged in both periods or the items' 'source' would tell, with at least 50 judgments in each period."
    )
    behaviour = found.estimate("behaviour", "agreement")
    assert not behaviour.known
    assert behaviour.reason == found.reason
    assert found.estimate("items or behaviour", "agreement").high < 0


def test_tasks_judged_in_both_periods_tell_items_from_behaviour() -> None:
    """Anchors need no known answers: the same task is judged differently."""
    columns = ["task", "annotator", "value", "at"]
    easier = decompose_change(drawn(items=True, anchors=100)[columns], at=AT, measure="agreement")
    worse = decompose_change(drawn(behaviour=-0.25, anchors=100)[columns], at=AT, measure="agreement")

    assert easier.identified
    assert easier.basis == ("task",)
    assert easier.estimate("behaviour", "agreement").low <= 0 <= easier.estimate("behaviour", "agreement").high
    assert worse.estimate("behaviour", "agreement").high < 0


def test_new_annotators_cannot_be_told_from_changed_ones() -> None:
    """Where nobody judged in both periods, mix and behaviour are one part, and items are still told."""
    frame = drawn(items=True)
    frame["annotator"] += 100 * (frame["at"] >= AT)

    found = decompose_change(frame, at=AT)

    assert not found.identified
    assert set(found.parts["part"]) == {"items", "annotators or behaviour"}
    assert found.reason == (
        "Other annotators cannot be told from annotators behaving differently: 0 judged comparable items in both "
        "periods, and 3 are needed."
    )


def test_annotators_with_items_of_their_own_are_not_told_from_items() -> None:
    """Where each source has its own people, a change of sources is a change of people."""
    frame = drawn(items=True).drop(columns="gold")
    frame["annotator"] = frame["annotator"].astype(str) + " " + frame["source"].astype(str)

    found = decompose_change(frame, at=AT)

    assert not found.identified
    assert set(found.parts["part"]) == {"items or annotators", "behaviour"}
    assert found.reason == "The data cannot tell items or annotators: one goes with the other too closely."


def test_sets_of_labels_have_shares_too() -> None:
    """A judgment of two labels counts for both."""
    frame = drawn(items=True)
    frame["value"] = [[one, "seen"] for one in frame["value"]]

    found = decompose_change(frame, at=AT)

    assert found.change.loc["seen", "change"] == 0
    assert found.estimate("items", "ham").high < 0


def test_the_explanation_has_the_numbers_in_it() -> None:
    """Whole sentences, with points and intervals."""
    text = decompose_change(drawn(items=True), at=AT).explain("spam")

    assert text.startswith("The share of 'spam' rose by ")
    assert " points, from 0." in text
    assert "different items make +" in text
    assert "the same annotators behaving differently make " in text
    assert "which may be chance)" in text


def test_few_tasks_have_no_intervals() -> None:
    """The parts are told, and why they have no interval."""
    frame = drawn(items=True)

    found = decompose_change(frame[(frame["task"] < 19) | (frame["task"] >= 300)], at=AT, items="source")

    estimate = found.estimate("items", "spam")
    assert estimate.known
    assert not estimate.has_interval
    assert found.too_little.startswith("Too little data for intervals: 19 tasks and ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "Say what is compared: either a date at=, or both before= and after=."),
        ({"at": "soon"}, "at='soon' is not a date."),
        ({"at": "2027-01-01"}, "There is no judgment in the period 'after'."),
        ({"at": AT, "measure": "speed"}, "measure='speed' is unknown; there are 'shares' and 'agreement'."),
        (
            {"at": AT, "items": "value"},
            "items='value' says nothing about the items: it is what may have changed itself.",
        ),
        ({"at": AT, "items": "sort"}, "The column 'sort' is missing, which items= names."),
        ({"before": ("2026-01-01", AT)}, "after= is missing: both periods must be told."),
        (
            {"before": [True], "after": [False]},
            (
                "The mask before= must hold one truth value for each of the 1,800 rows, but it has the shape (1,) "
                "and holds bool."
            ),
        ),
        (
            {"before": ("2026-01-01", "2026-03-01"), "after": (AT, "2026-03-01")},
            "The periods overlap: row 900 belongs to both.",
        ),
    ],
)
def test_what_is_wrong_is_said(options: dict[str, Any], message: str) -> None:
    """One sentence that names the argument."""
    with pytest.raises(ValueError, match=r".") as error:
        decompose_change(drawn(), **options)

    assert str(error.value) == message


def test_a_column_that_is_missing_or_empty_is_named() -> None:
    """With the row."""
    frame = drawn()
    with pytest.raises(BadJudgments, match="The column 'at' is missing, which is needed to compare by time"):
        decompose_change(frame.drop(columns="at"), at=AT)
    frame.loc[7, "at"] = pd.NaT
    with pytest.raises(BadJudgments, match="The column 'at' is empty in row 7"):
        decompose_change(frame, at=AT)
    frame = drawn()
    frame["value"] = 0.5
    with pytest.raises(BadJudgments, match="cut numbers into classes first"):
        decompose_change(frame.drop(columns="gold"), at=AT)


@pytest.mark.slow
@pytest.mark.parametrize("measure", ["shares", "agreement"])
@pytest.mark.parametrize(
    ("options", "unchanged"),
    [
        ({"items": True}, ("annotators", "behaviour")),
        ({"behaviour": -0.06}, ("items", "annotators")),
        ({"annotators": True}, ("items", "behaviour")),
    ],
)
def test_what_did_not_change_is_covered(measure: Any, options: dict[str, Any], unchanged: tuple[str, ...]) -> None:
    """Of 120 projects with 12 annotators, the intervals of what did not change hold zero in at least 90%."""
    rng = np.random.default_rng(70)
    held = dict.fromkeys(unchanged, 0)
    for _ in range(120):
        found = decompose_change(TwoPeriods(**options).draw(rng), at=AT, measure=measure)
        for part in unchanged:
            estimate = found.estimate(part, "agreement" if measure == "agreement" else "ham")
            held[part] += estimate.low <= 0 <= estimate.high

    assert all(count >= 108 for count in held.values()), held
