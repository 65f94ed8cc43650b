"""Streams of labels: is any used more or less often than expected, and have the shares changed?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import numpy as np

from labelguard_analytics.sequential import ShareTest
from labelguard_analytics.streams.detector import ChangeDetector, run_length_of
from labelguard_analytics.streams.odds import watched
from labelguard_analytics.streams.state import Resumable
from labelguard_analytics.streams.values import Direction, direction_of, unit


def _shares(shares: Mapping[str, float], labels: Sequence[str] | None = None) -> dict[str, float]:
    """Shares of labels that are together 1, in the order of ``labels``."""
    if not isinstance(shares, Mapping) or len(shares) < 2:
        raise ValueError(f"The shares must be a mapping of at least two labels to numbers, but they are {shares!r}.")
    found = {label: unit(share, f"The share of {label}") for label, share in shares.items()}
    if labels is not None and found.keys() != set(labels):
        raise ValueError(f"The shares must be of the labels {', '.join(labels)}, but they are of {', '.join(found)}.")
    total = sum(found.values())
    if abs(total - 1.0) > 1e-6:
        raise ValueError(f"The shares of all labels must add up to 1, but they add up to {total:.6g}.")
    return {label: found[label] for label in labels or found}


def _known(label: Any, labels: Iterable[str], place: str = "") -> str:
    if not isinstance(label, str) or label not in labels:
        raise ValueError(f"A label must be one of {', '.join(labels)}, but{place} it is {label!r}.")
    return label


class LabelShareTest(Resumable):
    """Is any label used more often than expected?

    Guarantee: the probability that a label used at most as often as expected is **ever** named is at most
    ``false_alarm``, for all labels together, however often one looks and whatever the other labels do. Each label
    has an equal part of ``false_alarm`` and a :class:`~labelguard_analytics.ShareTest` of its own.

    Args:
        expected: the share of each label, together 1. ``update`` also takes the shares expected for one item.
        false_alarm: the probability of ever naming any label wrongly.
        direction: "up" for used too often, "down" for too seldom, "both" for either.

    Raises:
        ValueError: an argument is no such thing.

    >>> test = LabelShareTest({"spam": 0.2, "ham": 0.5, "unsure": 0.3})
    >>> for label in ["spam", "ham", *["spam"] * 6]:
    ...     _ = test.update(label)
    >>> test.found, test.since
    (('spam',), 3)
    """

    def __init__(self, expected: Mapping[str, float], false_alarm: float = 0.05, direction: Direction = "up") -> None:
        self.expected = _shares(expected)
        self.direction: Direction = direction_of(direction)
        part = unit(false_alarm, "false_alarm") / len(self.expected)
        self._tests = {label: ShareTest(share, part, direction) for label, share in self.expected.items()}
        self.false_alarm = float(false_alarm)
        self.found: tuple[str, ...] = ()
        """The labels detected so far, in the order of their detection."""

    def __repr__(self) -> str:
        return f"LabelShareTest({self.expected!r}, false_alarm={self.false_alarm!r}, direction={self.direction!r})"

    def update(self, label: str, expected: Mapping[str, float] | None = None) -> Self:
        """Take one label; ``expected`` replaces the expected shares for this item.

        Raises:
            ValueError: the label or a share is no such thing; the test stays as it was.
        """
        _known(label, self._tests)
        shares = self.expected if expected is None else _shares(expected, tuple(self._tests))
        for each, test in self._tests.items():
            test.update(float(each == label), shares[each])
            if test.detected and each not in self.found:
                self.found += (each,)
        return self

    def update_many(self, labels: Sequence[str], expected: Sequence[Mapping[str, float]] | None = None) -> Self:
        """Take many labels; the state is exactly the same as after taking one by one."""
        if expected is not None and len(expected) != len(labels):
            raise ValueError(f"There are {len(labels)} labels, but {len(expected)} mappings of expected shares.")
        for i, label in enumerate(labels, start=1):
            _known(label, self._tests, f" at place {i}")
        shares = (
            [self.expected] * len(labels) if expected is None else [_shares(e, tuple(self._tests)) for e in expected]
        )
        for label, share in zip(labels, shares, strict=True):
            self.update(label, share)
        return self

    @property
    def n(self) -> int:
        """How many labels have been seen."""
        return next(iter(self._tests.values())).n

    @property
    def detected(self) -> bool:
        """Whether any label was ever detected; it stays True."""
        return bool(self.found)

    @property
    def evidence(self) -> float:
        """The evidence about the most suspicious label, after its part of ``false_alarm``; 1 would be chance."""
        return max(test.evidence for test in self._tests.values()) / len(self._tests)

    @property
    def threshold(self) -> float:
        """The evidence at which a label counts as detected."""
        return 1.0 / self.false_alarm

    @property
    def since(self) -> int | None:
        """The likely first unusual label of the first one detected, counted from 1; None until then."""
        return self._tests[self.found[0]].since if self.found else None

    def explain(self) -> str:
        """What is known, in two sentences to act on."""
        often = {"down": "less often than", "up": "more often than", "both": "not as often as"}[self.direction]
        if not self.found:
            return (
                f"After {self.n:,} labels nothing says that any is used {often} expected. "
                f"The evidence is {self.evidence:.3g}, and {self.threshold:.3g} would count."
            )
        return (
            f"Used {often} expected: {', '.join(self.found)}, probably since label {self.since:,} of {self.n:,}. "
            f"The chance to ever name any label wrongly is at most {self.false_alarm:.3g}, however often one looks."
        )

    def to_state(self) -> dict[str, Any]:
        """Everything as plain JSON values; :meth:`from_state` goes on exactly where this stopped."""
        return {
            "expected": dict(self.expected),
            "false_alarm": self.false_alarm,
            "direction": self.direction,
            "found": list(self.found),
            "tests": {label: test.to_state() for label, test in self._tests.items()},
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """The test that :meth:`to_state` described.

        Raises:
            ValueError: the state is of something else.
        """
        if state.keys() != {"expected", "false_alarm", "direction", "found", "tests"}:
            raise ValueError("This state does not belong to a LabelShareTest.")
        test = cls(state["expected"], state["false_alarm"], state["direction"])
        test.found = tuple(state["found"])
        for label, one in test._tests.items():
            one.resume(state["tests"][label])
        return test


class LabelShareDetector(Resumable):
    """Have the shares of labels in a stream changed?

    Guarantee, for independent labels without a change: the mean run length until a false alarm about any label is
    at least ``run_length``, and the probability of an alarm in the first 1,000 labels is at most
    ``950 / run_length`` (.19 with the default); where the shares are learnt, counted from the end of the 200
    labels they are first learnt from. Each label has a :class:`~labelguard_analytics.ChangeDetector` of its own,
    with as many times the run length as there are labels.

    A change of the labels seen may come from the items as well as from the person. Where there is something to
    expect for each item, :class:`LabelShareTest` is the better question.

    Args:
        labels: the labels, or the usual share of each, together 1. Without shares they are learnt.
        direction: "up" for labels that become more frequent, "down" for less, "both" for either.
        run_length: as for a ``ChangeDetector``; times the number of labels (twice for "both") at most 1,000,000.

    Raises:
        ValueError: an argument is no such thing.

    >>> detector = LabelShareDetector({"cat": 0.6, "dog": 0.3, "fish": 0.1})
    >>> usual = ["cat", "dog", "cat", "cat", "dog", "cat", "fish", "cat", "dog", "cat"]
    >>> _ = detector.update_many(usual * 10 + ["dog"] * 20)
    >>> detector.detected, detector.label, detector.since
    (True, 'dog', 99)
    """

    def __init__(
        self,
        labels: Sequence[str] | Mapping[str, float],
        direction: Direction = "both",
        run_length: float = 5000,
    ) -> None:
        self.shares = _shares(labels) if isinstance(labels, Mapping) else None
        self.labels = tuple(labels)
        if len(self.labels) < 2 or len(set(self.labels)) < len(self.labels) or isinstance(labels, str):
            raise ValueError(f"labels must be at least two different labels, but they are {labels!r}.")
        self.direction: Direction = direction_of(direction)
        self.run_length = run_length_of(run_length, len(self.labels) * (2 if direction == "both" else 1))
        self._detectors = {
            label: ChangeDetector(
                # A rarer or more frequent label is watched from the nearest level there are thresholds for.
                None if self.shares is None else float(watched(self.shares[label])),
                direction,
                self.run_length * len(self.labels),
            )
            for label in self.labels
        }

    def __repr__(self) -> str:
        labels = self.labels if self.shares is None else self.shares
        return f"LabelShareDetector({labels!r}, direction={self.direction!r}, run_length={self.run_length:g})"

    def update(self, label: str) -> Self:
        """Take one label.

        Raises:
            ValueError: it is none of the labels; the detector stays as it was.
        """
        _known(label, self._detectors)
        for each, detector in self._detectors.items():
            detector.update(1.0 if each == label else 0.0)
        return self

    def update_many(self, labels: Sequence[str]) -> Self:
        """Take many labels; the state is exactly the same as after taking one by one.

        Raises:
            ValueError: one is none of the labels; the detector stays as it was.
        """
        place = {label: i for i, label in enumerate(self.labels)}
        for i, label in enumerate(labels, start=1):
            _known(label, place, f" at place {i}")
        codes = np.array([place[label] for label in labels], dtype=np.int64)
        for i, detector in enumerate(self._detectors.values()):
            detector.update_many((codes == i).astype(np.float64))
        return self

    @property
    def n(self) -> int:
        """How many labels have been seen."""
        return self._detectors[self.labels[0]].n

    @property
    def detected(self) -> bool:
        """Whether a change has been detected; it stays True. Go on with a new detector once it is dealt with."""
        return any(detector.detected for detector in self._detectors.values())

    @property
    def label(self) -> str | None:
        """The label whose share changed first; None until something is detected."""
        return self._foremost if self.detected else None

    @property
    def changed(self) -> str | None:
        """Whether that label became more frequent, "up", or less, "down"."""
        return self._detectors[self._foremost].changed

    @property
    def since(self) -> int | None:
        """The likely first changed label, counted from 1; None until something is detected."""
        return self._detectors[self._foremost].since

    @property
    def evidence(self) -> float:
        """The evidence about the most suspicious label; 1 for none."""
        return self._detectors[self._foremost].evidence

    @property
    def threshold(self) -> float:
        """The evidence about it at which a change counts as detected."""
        return self._detectors[self._foremost].threshold

    @property
    def _foremost(self) -> str:
        def place(label: str) -> tuple[float, float]:
            detector = self._detectors[label]
            at = detector.detected_at
            return float("inf") if at is None else at, -detector.evidence / detector.threshold

        return min(self.labels, key=place)

    def explain(self) -> str:
        """What is known, in two sentences to act on."""
        label, detector = self._foremost, self._detectors[self._foremost]
        if detector.detected:
            now, usual = detector.now, detector.usual or 0.0
            return (
                f"Since label {self.since:,} the share of {label} is about {now:.2f}, while {usual:.2f} is usual. Look "
                "at what changed then, also in the items; without a change a false alarm comes once in "
                f"{self.run_length:,.0f} labels or more."
            )
        if detector.usual is None:
            return detector.explain()
        return (
            f"No change so far after {self.n:,} labels. The most suspicious label is {label}: the evidence is "
            f"{self.evidence:.3g}, and {self.threshold:.3g} would count."
        )

    def to_state(self) -> dict[str, Any]:
        """Everything as plain JSON values; :meth:`from_state` goes on exactly where this stopped."""
        return {
            "labels": list(self.labels) if self.shares is None else dict(self.shares),
            "direction": self.direction,
            "run_length": self.run_length,
            "detectors": {label: detector.to_state() for label, detector in self._detectors.items()},
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """The detector that :meth:`to_state` described.

        Raises:
            ValueError: the state is of something else.
        """
        if state.keys() != {"labels", "direction", "run_length", "detectors"}:
            raise ValueError("This state does not belong to a LabelShareDetector.")
        detector = cls(state["labels"], state["direction"], state["run_length"])
        for label in detector.labels:
            detector._detectors[label] = ChangeDetector.from_state(state["detectors"][label])
        return detector
