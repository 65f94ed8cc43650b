"""Has the level of a stream of values changed?"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Self

from labelguard_analytics.streams import learning, thresholds
from labelguard_analytics.streams.batch import take_many
from labelguard_analytics.streams.odds import HIGHEST, LOWEST
from labelguard_analytics.streams.side import Side, runs_of
from labelguard_analytics.streams.state import Resumable
from labelguard_analytics.streams.values import Direction, direction_of, unit, units

_MOST = 1024
"""Values that are counted at most, so that what is kept stays small."""


def run_length_of(value: Any, sides: int = 1) -> float:
    """A run length that thresholds are calibrated for, also if it is shared by so many sides.

    Raises:
        ValueError: it is none.
    """
    longest = thresholds.LONGEST // sides
    if isinstance(value, bool | str) or not thresholds.SHORTEST <= value <= longest:
        raise ValueError(f"run_length must lie between {thresholds.SHORTEST:,} and {longest:,}, but it is {value!r}.")
    return float(value)


class ChangeDetector(Resumable):
    """Has the level, the mean of values between 0 and 1, changed?

    Guarantee, for independent values without a change: the **mean run length**, the number of values until a
    false alarm, is at least ``run_length``, and the probability of an alarm in the first ``run_length / 5``
    values is at most .19 (1,000 values with the default). Where the level is learnt, this counts from the end of
    the 200 values it is first learnt from. The thresholds are calibrated on values of 0 and 1; scores in between
    with the same mean vary less and alarm later. With direction "down" values above the level alarm later still.

    This is not the promise of :class:`~labelguard_analytics.AccuracyTest`, whose false alarms *ever* are bounded:
    a detector watched long enough gives a false alarm some time, and detects a change much sooner in exchange.

    Method: a mixture of CUSUM statistics over four odds ratios (e-detectors: Shin, Ramdas and Rinaldo, 2024). A
    level of None is learnt, and goes on being learnt in blocks of 50 values while there is little evidence of a
    change, so that somebody who gets better is held against the new level after a while, and a decline is not
    taken for normal. Learning is not drift: direction "down" never alarms because of an improvement.

    Args:
        level: the usual level, between .01 and .99; None to learn it.
        direction: "down", "up" or "both".
        run_length: between 1,000 and 1,000,000 (half of it for "both").

    Raises:
        ValueError: an argument is outside of what the thresholds are calibrated for.

    >>> detector = ChangeDetector(level=0.9)
    >>> for x in [1] * 40 + [0, 1, 0, 0, 0, 1, 0, 0, 0, 0]:
    ...     _ = detector.update(x)
    >>> detector.detected, detector.since
    (True, 41)
    >>> print(detector.explain())
    Since value 41 the mean is about 0.22 (9 values), while 0.90 is usual. Look at what changed ...
    """

    def __init__(self, level: float | None = None, direction: Direction = "down", run_length: float = 5000) -> None:
        self.level = None if level is None else unit(level, "level")
        if self.level is not None and not LOWEST <= self.level <= HIGHEST:
            raise ValueError(f"level must lie between {LOWEST} and {HIGHEST}, but it is {level!r}.")
        self.direction: Direction = direction_of(direction)
        directions = ("down", "up") if direction == "both" else (self.direction,)
        self.run_length = run_length_of(run_length, len(directions))
        length = self.run_length * len(directions)
        self._each = {
            name: Side(self.level if name == "down" or self.level is None else 1.0 - self.level, length)
            for name in directions
        }
        self._down, self._up = self._each.get("down"), self._each.get("up")
        # Values of 1 and 0 are only counted, and the places of the zeros kept, until they might make a difference.
        self._run = 0
        self._zeros: list[int] = []
        self._limit()

    def __repr__(self) -> str:
        return f"ChangeDetector(level={self.level!r}, direction={self.direction!r}, run_length={self.run_length:g})"

    def update(self, x: float) -> Self:
        """Take one value between 0 and 1.

        Raises:
            ValueError: it is not; the detector stays as it was.
        """
        if x == 1:
            self._run = run = self._run + 1
            if run == self._room:
                self._settle()
            return self
        if x == 0:
            self._run = run = self._run + 1
            self._zeros.append(run)
            if run == self._room or len(self._zeros) == self._zeros_room:
                self._settle()
            return self
        x = unit(x, "A value")
        for name, side in self._sides.items():
            side.take(x if name == "down" else 1.0 - x)
        self._limit()
        return self

    def _limit(self) -> None:
        """Work out how many values may be counted in all, and how many of 0 among them."""
        room = zeros_room = _MOST
        if self._down is not None:
            if self._down.left < room:
                room = self._down.left
            zeros_room = self._down.calm
        if self._up is not None:
            if self._up.left < room:
                room = self._up.left
            if self._up.calm < room:
                room = self._up.calm
        self._room, self._zeros_room = room, zeros_room

    def _settle(self) -> None:
        """Hand over what was counted. Only the last value can be a detection."""
        runs = runs_of(self._zeros, self._run)
        if self._down is not None:
            self._down.take_runs(runs, self._run, len(self._zeros))
        if self._up is not None:
            self._up.take_mirrored_runs(runs, self._run, self._run - len(self._zeros))
        self._run = 0
        self._zeros.clear()
        self._limit()

    @property
    def _sides(self) -> dict[str, Side]:
        """The directions with everything that has come."""
        if self._run:
            self._settle()
        return self._each

    def update_many(self, values: Iterable[float]) -> Self:
        """Take many values between 0 and 1; the state is exactly the same as after taking one by one.

        >>> ChangeDetector(level=0.9).update_many([1, 1, 0, 0.5]).n
        4

        Raises:
            ValueError: a value is none; the detector stays as it was.
        """
        array = units(values, "A value")
        self._settle()
        take_many(self._down, self._up, array)
        self._limit()
        return self

    @property
    def n(self) -> int:
        """How many values have been seen."""
        return next(iter(self._each.values())).n + self._run

    @property
    def detected(self) -> bool:
        """Whether a change has been detected; it stays True. Go on with a new detector once it is dealt with."""
        return any(side.found is not None for side in self._each.values())

    @property
    def changed(self) -> str | None:
        """The direction of the change detected, "down" or "up"."""
        return self._foremost if self.detected else None

    @property
    def detected_at(self) -> int | None:
        """The value with which the change was detected, counted from 1."""
        return self._sides[self._foremost].found

    @property
    def since(self) -> int | None:
        """The likely first changed value, counted from 1; None until something is detected."""
        return self._sides[self._foremost].start + 1 if self.detected else None

    @property
    def evidence(self) -> float:
        """How many times better a change explains the latest values than the level does; 1 for not at all."""
        return self._sides[self._foremost].evidence

    @property
    def threshold(self) -> float:
        """The evidence at which a change counts as detected; it depends on the level."""
        return self._sides[self._foremost].threshold

    @property
    def usual(self) -> float | None:
        """The level as it is known so far; None while the first 200 values teach it."""
        name, side = next(iter(self._sides.items()))
        return self.level if self.level is not None or side.usual is None else _mirrored(side.usual, name)

    @property
    def now(self) -> float | None:
        """The mean since the likely change, up to its detection; None until something is detected."""
        return _mirrored(self._sides[self._foremost].since, self._foremost) if self.detected else None

    @property
    def _foremost(self) -> str:
        """The side that detected first, or is closest to it."""

        def place(name: str) -> tuple[float, float]:
            side = self._sides[name]
            return math.inf if side.found is None else side.found, -side.evidence / side.threshold

        return min(self._sides, key=place)

    def explain(self) -> str:
        """What is known, in two sentences to act on.

        >>> ChangeDetector().explain()
        'The level is being learnt from the first 200 values, of which 0 have come. Nothing is said until then.'
        """
        name, usual = self._foremost, self.usual
        side = self._sides[name]
        if usual is None:
            return (
                f"The level is being learnt from the first {learning.WARM_UP} values, of which {self.n} have come. "
                "Nothing is said until then."
            )
        if not self.detected:
            return (
                f"No change so far: the usual mean is {usual:.2f}, after {self.n:,} values. The evidence of a "
                f"change is {self.evidence:.3g}, and {self.threshold:.3g} would count."
            )
        return (
            f"Since value {side.start + 1:,} the mean is about {self.now:.2f} "
            f"({(side.found or 0) - side.start:,} values), while {usual:.2f} is usual. Look at what changed then; "
            f"without a change a false alarm comes once in {self.run_length:,.0f} values or more."
        )

    def to_state(self) -> dict[str, Any]:
        """Everything as plain JSON values; :meth:`from_state` goes on exactly where this stopped."""
        return {
            "level": self.level,
            "direction": self.direction,
            "run_length": self.run_length,
            "sides": {name: side.to_state() for name, side in self._sides.items()},
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """The detector that :meth:`to_state` described.

        Raises:
            ValueError: the state is of something else.
        """
        if state.keys() != {"level", "direction", "run_length", "sides"}:
            raise ValueError("This state does not belong to a ChangeDetector.")
        detector = cls(state["level"], state["direction"], state["run_length"])
        for name, side in detector._sides.items():
            side.resume(state["sides"][name])
        detector._limit()
        return detector


def _mirrored(level: float, direction: str) -> float:
    return level if direction == "down" else 1.0 - level
