"""What a sweep looks at: each measure, the column it needs, and the words for its two directions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Direction = Literal["decline", "improvement", "more", "less", "faster", "slower"]

EXTRA = ("disputed", "corrected")
"""Columns that sweeps know beside those of :mod:`labelguard_analytics.frames`; both true or false."""


@dataclass(frozen=True)
class Measure:
    """One thing that may change."""

    name: str
    column: str
    """The optional column it needs; empty for none."""
    binary: bool
    """Whether each judgment counts 0 or 1, so that the number of judgments says how much it varies."""
    up: Direction
    down: Direction
    noun: str
    """What it is, as the subject of a sentence."""
    reference: str
    """What each judgment is compared with, for people."""

    def direction(self, size: float) -> Direction:
        """What a change of this size is called."""
        return self.up if size > 0 else self.down


_OTHERS = "earlier work on tasks that others judged alike"
MEASURES = {
    measure.name: measure
    for measure in (
        Measure("agreement", "", True, "improvement", "decline", "agreement with the others", _OTHERS),
        Measure("accuracy", "gold", True, "improvement", "decline", "accuracy on known answers", "earlier known tasks"),
        Measure("share", "", True, "more", "less", "use of the label", _OTHERS),
        Measure("disputed", "disputed", True, "decline", "improvement", "share of disputed judgments", _OTHERS),
        Measure("corrected", "corrected", True, "decline", "improvement", "share of corrected judgments", _OTHERS),
        Measure("duration", "duration", False, "slower", "faster", "time for a judgment", _OTHERS),
        Measure("confidence", "confidence", False, "more", "less", "stated confidence", _OTHERS),
    )
}
"""Every measure by name, the most telling first."""
