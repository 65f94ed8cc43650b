"""What is carried from one nightly sweep to the next, so that false discoveries do not add up over the nights."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

Key = tuple[Any, ...]


@dataclass(frozen=True)
class Nights:
    """The false discovery rate of all sweeps together, and what of it is spent.

    **Guarantee.** Of everybody named in any number of sweeps, on average at most the share ``level`` is named by
    chance, under the condition that Benjamini and Hochberg's rule itself needs (p-values that are independent or rise
    and fall together), whatever the sweeps have in common: the ``k``-th sweep is allowed the part
    ``half / ((half + k - 1) * (half + k))`` of the level, and those parts add up to 1 over infinitely many. Half of the
    level is spent after ``half`` sweeps. Why it holds: the false share of all names is at most the sum over sweeps of
    the new false names, each divided by the names of its sweep.

    >>> nights = Nights(level=0.1, half=26)
    >>> round(nights.allowed, 5), round(nights.after([("ann",)]).allowed, 5)
    (0.0037, 0.00344)
    >>> Nights.from_json(nights.after([("ann",)]).to_json()).named
    (('ann',),)

    Raises:
        ValueError: the level does not lie between 0 and 1, or ``half`` is below 1.
    """

    level: float = 0.1
    half: int = 26
    """The number of sweeps after which half of the level is spent."""
    sweeps: int = 0
    """Sweeps made so far."""
    named: tuple[Key, ...] = ()
    """Who was named, and is neither looked at closely nor named again until :meth:`reopened`."""

    def __post_init__(self) -> None:
        if not 0 < self.level < 1:
            raise ValueError(f"level must lie between 0 and 1, but it is {self.level!r}.")
        if self.half < 1:
            raise ValueError(f"half must be at least 1 sweep, but it is {self.half!r}.")

    @property
    def allowed(self) -> float:
        """The part of the level that the next sweep may spend."""
        return self.level * self.half / ((self.half + self.sweeps) * (self.half + self.sweeps + 1))

    def after(self, named: Iterable[Key]) -> Nights:
        """The state after a sweep that named these for the first time."""
        return replace(self, sweeps=self.sweeps + 1, named=(*self.named, *named))

    def reopened(self, annotator: Any) -> Nights:
        """The state in which somebody may be named again, as after a talk; give later sweeps only work done since.

        Raises:
            ValueError: nobody of that name was named.
        """
        kept = tuple(key for key in self.named if key != (annotator,))
        if len(kept) == len(self.named):
            raise ValueError(f"{annotator!r} was not named, so there is nothing to reopen.")
        return replace(self, named=kept)

    def to_json(self) -> str:
        """The state as JSON text; names must be text, numbers, true, false or None."""
        return json.dumps(
            {
                "level": self.level,
                "half": self.half,
                "sweeps": self.sweeps,
                "named": [list(key) for key in self.named],
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Nights:
        """The state that :meth:`to_json` wrote.

        Raises:
            ValueError: the text is something else.
        """
        try:
            state = json.loads(text)
            named = tuple(tuple(key) for key in state["named"])
            return cls(state["level"], state["half"], state["sweeps"], named)
        except (KeyError, TypeError, json.JSONDecodeError):
            raise ValueError("This text is no state of nightly sweeps.") from None
