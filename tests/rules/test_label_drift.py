"""The label-drift sweep as the scheduler runs it, on a made-up history."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pandas as pd

from histories import end_of, history
from labelguard.events import Project
from labelguard_rules.label_drift import LabelDrift


class History:
    """A sweep's context over a frame in memory."""

    project = Project(1)

    def __init__(
        self, frame: pd.DataFrame, kind: str = "choices", now: datetime | None = None, region: str = ""
    ) -> None:
        self._frame = frame.assign(control="topic", kind=kind, region=region)
        self.now = now or end_of(frame).to_pydatetime()

    def judgments(self, control: str | None = None) -> pd.DataFrame:
        """The judgments of a control."""
        return self._frame if control is None else self._frame[self._frame["control"] == control]

    def annotator_name(self, annotator: int) -> str:
        """A made-up name."""
        return f"Annotator {annotator}"


def test_it_names_who_drifted_with_numbers_and_what_to_do() -> None:
    """The admin reads who, which label, how much against what, since when, and what to do next."""
    found = list(LabelDrift().sweep(History(history(31, annotators=12, weeks=14, drifting=(5,), drift=0.5))))
    assert [(f.annotator, f.control) for f in found] == [(5, "topic")]
    message = found[0].message
    assert message.startswith("Annotator 5 now uses a on ")
    assert "would be expected from earlier work and what others say about the same tasks" in message
    assert message.endswith("check whether the guideline is clear there.")
    assert "a" in found[0].labels
    assert found[0].evidence["shifts"][0]["interval"][0] > 0
    json.dumps(found[0].evidence, allow_nan=False)


def test_learning_and_case_mix_alone_are_not_named() -> None:
    """Twelve people who only learn, with a case mix that changes every week, give no finding."""
    assert list(LabelDrift().sweep(History(history(40, annotators=12, weeks=14)))) == []


def test_ratings_count_as_labels_and_other_kinds_do_not() -> None:
    """Stars are labels with an order; texts have no shares, and a region of one's own has no counterpart."""
    frame = history(31, annotators=12, weeks=14, drifting=(5,), drift=0.5)
    stars = frame.assign(value=[float("abcde".index(value[0]) + 1) for value in frame["value"]])
    assert [f.labels[0] for f in LabelDrift().sweep(History(stars, "rating"))] == ["1"]
    assert list(LabelDrift().sweep(History(frame, "textarea"))) == []
    assert list(LabelDrift().sweep(History(frame, region="r1"))) == []


def test_a_project_without_judgments_is_quiet() -> None:
    """The first nightly sweep of a new project has nothing to say."""
    empty = History(history(1, annotators=3, weeks=1).iloc[:0], now=datetime(2026, 1, 1, tzinfo=UTC))
    assert list(LabelDrift().sweep(empty)) == []
