"""A number together with how sure it is, and with the reason where it cannot be known."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Estimate:
    """A statistic with its 95% interval and what it rests on.

    A number is NaN only where ``reason`` says why, so a NaN never has to be guessed at. Where the value is
    known but there is too little data for an interval that keeps its promise, ``value`` is there, ``low`` and
    ``high`` are NaN and ``reason`` says how much data there is and how much is needed.

    >>> print(Estimate(0.7123, 0.6512, 0.7641, 400, 1200))
    0.712 (95% interval 0.651 to 0.764; 400 tasks, 1,200 judgments)
    >>> print(Estimate(0.7, math.nan, math.nan, 12, 40, "Too little data for an interval: 12 tasks."))
    0.700 (12 tasks, 40 judgments). Too little data for an interval: 12 tasks.

    Raises:
        ValueError: a number is NaN without a reason, or the interval is upside down.
    """

    value: float
    """The statistic itself."""
    low: float
    """Lower end of the 95% interval."""
    high: float
    """Upper end of the 95% interval."""
    n_tasks: int
    """The tasks it rests on."""
    n_judgments: int
    """The judgments it rests on."""
    reason: str = ""
    """Why a number is missing, as a sentence; empty where none is."""

    def __post_init__(self) -> None:
        if not self.reason and any(map(math.isnan, (self.value, self.low, self.high))):
            raise ValueError("A number that is missing needs a reason.")
        if self.low > self.high:
            raise ValueError(f"The interval's lower end {self.low!r} lies above its upper end {self.high!r}.")

    @property
    def known(self) -> bool:
        """Whether there is a value at all."""
        return not math.isnan(self.value)

    @property
    def has_interval(self) -> bool:
        """Whether there is enough data for an interval."""
        return not math.isnan(self.low)

    def explain(self) -> str:
        """The estimate as a sentence for people.

        >>> Estimate(0.9, 0.8, 0.95, 300, 900).explain()
        '0.900 (95% interval 0.800 to 0.950; 300 tasks, 900 judgments)'
        """
        if not self.known:
            return self.reason
        size = f"{_count(self.n_tasks, 'task')}, {_count(self.n_judgments, 'judgment')}"
        if self.has_interval:
            size = f"95% interval {self.low:.3f} to {self.high:.3f}; {size}"
        text = f"{self.value:.3f} ({size})"
        return f"{text}. {self.reason}" if self.reason else text

    def __str__(self) -> str:
        return self.explain()


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def unknown(reason: str, n_tasks: int = 0, n_judgments: int = 0) -> Estimate:
    """An estimate that cannot be made, and why.

    >>> unknown("No two annotators share a task.").known
    False
    """
    return Estimate(math.nan, math.nan, math.nan, n_tasks, n_judgments, reason)
