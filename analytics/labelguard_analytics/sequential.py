"""Tests that may be looked at after every value.

Both classes here bet against a null hypothesis about a stream of values. The capital of the bet is a
non-negative supermartingale starting at 1 while the null holds, so by Ville's inequality it ever reaches
``1 / false_alarm`` with probability at most ``false_alarm``, **whatever the number of looks** and whether or
not one stops in between (Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting",
2024; start weights as in Shin, Ramdas and Rinaldo, "E-detectors", 2024).

Two mixtures make the bet strong without tuning:

- over odds ratios between the null and what may really be going on, all on the bad side only, so that
  somebody better than the target is never accused;
- over the moment the trouble starts. A bet running since the first value would lose capital all through a
  good time and let a long good record hide a later decline. Here a share of the capital waits and is staked
  bit by bit (see :func:`waiting`), which needs one number for each odds ratio, not one for each start.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar, Self

FIRST = 0.6
"""The part of the capital staked on trouble right from the first value."""
HALF = 500.0
"""After this many values half of the waiting capital is staked."""
CEILING = 1e100
"""Capital is cut here: cutting keeps the guarantee and keeps numbers finite."""


def waiting(n: int) -> float:
    """The part of the capital not yet staked after ``n`` values; 1 at the start, falling towards 0.

    The staked parts are the weights of the possible starts: ``FIRST`` for the first value, then a slowly
    falling weight, so that a start after a thousand good values still has about 1 part in 10,000.
    """
    return 1.0 if n <= 0 else (1.0 - FIRST) / (1.0 + (n - 1) / HALF)


class _OneSidedBet:
    """The bet both tests share: capital for each odds ratio, staked at every possible start."""

    RATIOS: ClassVar[tuple[float, ...]]

    def __init__(self, false_alarm: float) -> None:
        if not 0 < false_alarm < 1:
            raise ValueError(f"false_alarm must lie between 0 and 1, but it is {false_alarm!r}.")
        self.false_alarm = float(false_alarm)
        self.n = 0
        """How many values have been seen."""
        self.since: int | None = None
        """The likely first bad value, counted from 1; None until something is detected."""
        self.peak = 1.0
        """The largest evidence so far."""
        self._capital = [0.0] * len(self.RATIOS)
        # The best single start for each ratio (a CUSUM): only to say since when, not part of the guarantee.
        self._best = [1.0] * len(self.RATIOS)
        self._start = [1] * len(self.RATIOS)

    @property
    def evidence(self) -> float:
        """The capital now: 1 at the start; by chance at least ``c`` at most once in ``c`` streams."""
        return sum(self._capital) / len(self.RATIOS) + waiting(self.n)

    @property
    def threshold(self) -> float:
        """The evidence at which something counts as detected."""
        return 1.0 / self.false_alarm

    @property
    def detected(self) -> bool:
        """Whether the evidence ever reached the threshold; it stays True."""
        return self.since is not None

    def _bet(self, factors: list[float]) -> None:
        self.n += 1
        staked = waiting(self.n - 1) - waiting(self.n)
        for i, factor in enumerate(factors):
            self._capital[i] = min((self._capital[i] + staked) * factor, CEILING)
            if self._best[i] <= 1.0:
                self._best[i], self._start[i] = 1.0, self.n
            self._best[i] = min(self._best[i] * factor, CEILING)
        evidence = self.evidence
        self.peak = max(self.peak, evidence)
        if self.since is None and evidence >= self.threshold:
            self.since = self._start[max(range(len(factors)), key=self._best.__getitem__)]

    def to_state(self) -> dict[str, Any]:
        """Everything as plain JSON values; :meth:`from_state` goes on exactly where this stopped."""
        return {
            "false_alarm": self.false_alarm,
            "n": self.n,
            "since": self.since,
            "peak": self.peak,
            "capital": list(self._capital),
            "best": list(self._best),
            "start": list(self._start),
        }

    def to_json(self) -> str:
        """The state as JSON text."""
        return json.dumps(self.to_state())

    def resume(self, state: Mapping[str, Any]) -> Self:
        """Go on from a state of :meth:`to_state`; what this test saw itself is forgotten.

        Raises:
            ValueError: the state is of another kind of test.
        """
        size = len(self.RATIOS)
        if any(len(state[key]) != size for key in ("capital", "best", "start")):
            raise ValueError(f"This state does not belong to a {type(self).__name__} with {size} odds ratios.")
        self.n = int(state["n"])
        self.since = None if state["since"] is None else int(state["since"])
        self.peak = float(state["peak"])
        self._capital = [float(x) for x in state["capital"]]
        self._best = [float(x) for x in state["best"]]
        self._start = [int(x) for x in state["start"]]
        return self


def _unit(value: float, name: str) -> float:
    number = float(value)
    if not 0.0 <= number <= 1.0:  # also refuses NaN
        raise ValueError(f"{name} must lie between 0 and 1, but it is {value!r}.")
    return number


class AccuracyTest(_OneSidedBet):
    """Is somebody's accuracy below ``target``?

    Guarantee: if every value's mean given the past is at least ``target``, the probability that ``detected``
    **ever** becomes True is at most ``false_alarm``, however often one looks. Values may be 0 or 1, or any
    score in between (the bet is linear in the value, so only its mean matters).

    >>> test = AccuracyTest(target=0.85)
    >>> for right in [1, 0, 1, 0, 0, 1, 0, 0, 0, 0]:
    ...     _ = test.update(right)
    >>> test.detected, test.since
    (True, 2)
    """

    RATIOS: ClassVar[tuple[float, ...]] = (1.3, 1.6, 2.0, 3.0, 6.0)

    def __init__(self, target: float = 0.85, false_alarm: float = 0.05) -> None:
        super().__init__(false_alarm)
        if not 0 < target < 1:
            raise ValueError(f"target must lie between 0 and 1, but it is {target!r}.")
        self.target = float(target)

    def update(self, x: float, target: float | None = None) -> Self:
        """Take one value between 0 (wrong) and 1 (right); ``target`` replaces the target for this value."""
        x = _unit(x, "An accuracy value")
        p = self.target if target is None else _unit(target, "The target")
        self._bet([(r + x * (1.0 - r)) / (p + r * (1.0 - p)) for r in self.RATIOS])
        return self

    def to_state(self) -> dict[str, Any]:
        """Everything as plain JSON values; :meth:`from_state` goes on exactly where this stopped."""
        return {"target": self.target, **super().to_state()}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """The test that :meth:`to_state` described."""
        return cls(state["target"], state["false_alarm"]).resume(state)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The test that :meth:`to_json` described."""
        return cls.from_state(json.loads(text))


class ShareTest(_OneSidedBet):
    """Does something happen more often than expected?

    Guarantee: if every value's mean given the past is at most its expected share, the probability that
    ``detected`` **ever** becomes True is at most ``false_alarm``, however often one looks. The expected share
    may differ from value to value: that is how a label's use is judged given the very items seen.

    >>> test = ShareTest(expected=0.5)
    >>> for _ in range(8):
    ...     _ = test.update(1)
    >>> test.detected, test.since
    (True, 1)
    """

    RATIOS: ClassVar[tuple[float, ...]] = (1.3, 1.6, 2.0, 3.0, 6.0, 20.0)

    def __init__(self, expected: float = 0.5, false_alarm: float = 0.05) -> None:
        super().__init__(false_alarm)
        self.expected = _unit(expected, "The expected share")

    def update(self, x: float, expected: float | None = None) -> Self:
        """Take one value between 0 and 1; ``expected`` replaces the expected share for this value."""
        x = _unit(x, "A share value")
        p = self.expected if expected is None else _unit(expected, "The expected share")
        self._bet([(1.0 + x * (r - 1.0)) / (1.0 - p + r * p) for r in self.RATIOS])
        return self

    def to_state(self) -> dict[str, Any]:
        """Everything as plain JSON values; :meth:`from_state` goes on exactly where this stopped."""
        return {"expected": self.expected, **super().to_state()}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """The test that :meth:`to_state` described."""
        return cls(state["expected"], state["false_alarm"]).resume(state)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The test that :meth:`to_json` described."""
        return cls.from_state(json.loads(text))
