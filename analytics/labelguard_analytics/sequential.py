"""Tests that may be looked at after every value.

The classes here bet against a null hypothesis about a stream of values. The capital of the bet is a
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

A state kept by an earlier version goes on under this one, also where odds ratios or start weights were others:
any bet that is fair may follow on any other, and what an earlier version still held back beyond ``waiting`` is
given up, so the promise holds all along.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Self

import numpy as np

from labelguard_analytics.streams.state import Resumable
from labelguard_analytics.streams.values import Direction, direction_of, unit, units

FIRST = 0.75
"""The part of the capital staked on trouble right from the first value."""
HALF = 500.0
"""After this many values half of the waiting capital is staked."""
CEILING = 1e100
"""Capital is cut here: cutting keeps the guarantee and keeps numbers finite."""


def waiting(n: int) -> float:
    """The part of the capital not yet staked after ``n`` values; 1 at the start, falling towards 0.

    The staked parts are the weights of the possible starts: ``FIRST`` for the first value, then a slowly
    falling weight, so that a start after a thousand good values still has about 1 part in 20,000.
    """
    return 1.0 if n <= 0 else (1.0 - FIRST) / (1.0 + (n - 1) / HALF)


class _Bet(Resumable):
    """The bet both tests share: capital for each odds ratio, staked at every possible start."""

    RATIOS: ClassVar[tuple[float, ...]]
    NULL: ClassVar[str]
    """The argument that says what the mean is held against."""
    WORDS: ClassVar[tuple[str, str, str]]
    """What a value, the mean and what it is held against are called in sentences."""
    USUAL: ClassVar[Direction]

    def __init__(self, null: float, false_alarm: float, direction: Direction) -> None:
        alarm = unit(false_alarm, "false_alarm")
        if not 0 < alarm < 1:
            raise ValueError(f"false_alarm must lie between 0 and 1, but it is {false_alarm!r}.")
        self.false_alarm = alarm
        self.direction: Direction = direction_of(direction)
        self.n = 0
        """How many values have been seen."""
        self.since: int | None = None
        """The likely first bad value, counted from 1; None until something is detected."""
        self.peak = 1.0
        """The largest evidence so far."""
        self._null = null
        down, up = [1 / r for r in self.RATIOS], list(self.RATIOS)
        # By how much the odds of a 1 are multiplied by what each bet is on, less 1.
        self._shifts = [r - 1.0 for r in {"down": down, "up": up, "both": down + up}[direction]]
        self._capital = [0.0] * len(self._shifts)
        # The best single start for each ratio (a CUSUM): only to say since when, not part of the guarantee.
        self._best = [1.0] * len(self._shifts)
        self._start = [1] * len(self._shifts)

    def __repr__(self) -> str:
        null = f"{self.NULL}={self._null!r}"
        return f"{type(self).__name__}({null}, false_alarm={self.false_alarm!r}, direction={self.direction!r})"

    @property
    def evidence(self) -> float:
        """The capital now: 1 at the start; by chance at least ``c`` at most once in ``c`` streams."""
        return sum(self._capital) / len(self._capital) + waiting(self.n)

    @property
    def threshold(self) -> float:
        """The evidence at which something counts as detected."""
        return 1.0 / self.false_alarm

    @property
    def detected(self) -> bool:
        """Whether the evidence ever reached the threshold; it stays True."""
        return self.since is not None

    def _update(self, x: float, null: float | None) -> Self:
        x = unit(x, self.WORDS[0])
        p = self._null if null is None else unit(null, f"The {self.WORDS[2]}")
        self._bet([(1.0 + x * shift) / (1.0 + p * shift) for shift in self._shifts])
        return self

    def _update_many(self, values: Iterable[float], nulls: Iterable[float] | None) -> Self:
        x = units(values, self.WORDS[0])
        p = np.full(len(x), self._null) if nulls is None else units(nulls, f"The {self.WORDS[2]}")
        if len(p) != len(x):
            raise ValueError(f"There are {len(x)} values, but {len(p)} of the {self.WORDS[2]}.")
        shift = np.array(self._shifts)
        for factors in ((1.0 + x[:, None] * shift) / (1.0 + p[:, None] * shift)).tolist():
            self._bet(factors)
        return self

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

    def explain(self) -> str:
        """What is known, in two sentences to act on."""
        where = {"down": "below", "up": "above", "both": "away from"}[self.direction]
        against = f"{where} the {self.WORDS[2]} of {self._null:.2f}"
        if not self.detected:
            return (
                f"After {self.n:,} values nothing says that the {self.WORDS[1]} is {against}. "
                f"The evidence is {self.evidence:.3g}, and {self.threshold:.3g} would count."
            )
        return (
            f"The {self.WORDS[1]} is {against}, probably since value {self.since:,} of {self.n:,}. If it were not, "
            f"there would be a chance of at most {self.false_alarm:.3g} to ever say so, however often one looks."
        )

    def to_state(self) -> dict[str, Any]:
        """Everything as plain JSON values; :meth:`from_state` goes on exactly where this stopped."""
        return {
            self.NULL: self._null,
            "false_alarm": self.false_alarm,
            "direction": self.direction,
            "n": self.n,
            "since": self.since,
            "peak": self.peak,
            "capital": list(self._capital),
            "best": list(self._best),
            "start": list(self._start),
        }

    def resume(self, state: Mapping[str, Any]) -> Self:
        """Go on from a state of :meth:`to_state`; what this test saw itself is forgotten.

        Raises:
            ValueError: the state is of another kind of test.
        """
        size = len(self._shifts)
        if any(len(state.get(key, ())) != size for key in ("capital", "best", "start")):
            raise ValueError(f"This state does not belong to a {type(self).__name__} with {size} odds ratios.")
        self.n = int(state["n"])
        self.since = None if state["since"] is None else int(state["since"])
        self.peak = float(state["peak"])
        self._capital = [float(x) for x in state["capital"]]
        self._best = [float(x) for x in state["best"]]
        self._start = [int(x) for x in state["start"]]
        return self

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """The test that :meth:`to_state` described; also that of a version that knew no directions.

        Raises:
            ValueError: the state is of another kind of test.
        """
        if cls.NULL not in state:
            raise ValueError(f"This state does not belong to a {cls.__name__}: it has no {cls.NULL}.")
        test = cls(state[cls.NULL], state["false_alarm"], state.get("direction", cls.USUAL))
        return test.resume(state)


class AccuracyTest(_Bet):
    """Is somebody's accuracy below ``target``?

    Guarantee: if every value's mean given the past is at least ``target``, the probability that ``detected``
    **ever** becomes True is at most ``false_alarm``, however often one looks. Values may be 0 or 1, or any
    score in between (the bet is linear in the value, so only its mean matters). ``direction`` "up" asks whether
    it is above the target instead, "both" whether it is anything else.

    >>> test = AccuracyTest(target=0.85)
    >>> for right in [1, 0, 1, 0, 0, 1, 0, 0, 0, 0]:
    ...     _ = test.update(right)
    >>> test.detected, test.since
    (True, 2)
    >>> print(test.explain())
    The accuracy is below the target of 0.85, probably since value 2 of 10. If it were not, there would be ...
    """

    # More around 2 to 3, the odds between the usual target of .85 and the .65 to .74 one wants to notice soon.
    RATIOS: ClassVar[tuple[float, ...]] = (1.4, 2.0, 2.5, 3.0, 5.0)
    NULL: ClassVar[str] = "target"
    WORDS: ClassVar[tuple[str, str, str]] = ("An accuracy value", "accuracy", "target")
    USUAL: ClassVar[Direction] = "down"

    def __init__(self, target: float = 0.85, false_alarm: float = 0.05, direction: Direction = "down") -> None:
        self.target = unit(target, "target")
        if not 0 < self.target < 1:
            raise ValueError(f"target must lie between 0 and 1, but it is {target!r}.")
        super().__init__(self.target, false_alarm, direction)

    def update(self, x: float, target: float | None = None) -> Self:
        """Take one value between 0 (wrong) and 1 (right); ``target`` replaces the target for this value."""
        return self._update(x, target)

    def update_many(self, values: Iterable[float], targets: Iterable[float] | None = None) -> Self:
        """Take many values; the state is exactly the same as after taking one by one."""
        return self._update_many(values, targets)


class ShareTest(_Bet):
    """Does something happen more often than expected?

    Guarantee: if every value's mean given the past is at most its expected share, the probability that
    ``detected`` **ever** becomes True is at most ``false_alarm``, however often one looks. The expected share
    may differ from value to value: that is how a label's use is judged given the very items seen. ``direction``
    "down" asks whether it happens less often instead, "both" whether it is either.

    >>> test = ShareTest(expected=0.5)
    >>> for _ in range(8):
    ...     _ = test.update(1)
    >>> test.detected, test.since
    (True, 1)
    """

    RATIOS: ClassVar[tuple[float, ...]] = (1.3, 1.6, 2.0, 3.0, 6.0, 20.0)
    NULL: ClassVar[str] = "expected"
    WORDS: ClassVar[tuple[str, str, str]] = ("A share value", "share", "expected share")
    USUAL: ClassVar[Direction] = "up"

    def __init__(self, expected: float = 0.5, false_alarm: float = 0.05, direction: Direction = "up") -> None:
        self.expected = unit(expected, "The expected share")
        super().__init__(self.expected, false_alarm, direction)

    def update(self, x: float, expected: float | None = None) -> Self:
        """Take one value between 0 and 1; ``expected`` replaces the expected share for this value."""
        return self._update(x, expected)

    def update_many(self, values: Iterable[float], expected: Iterable[float] | None = None) -> Self:
        """Take many values; the state is exactly the same as after taking one by one."""
        return self._update_many(values, expected)
