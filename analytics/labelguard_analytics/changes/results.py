"""What a sweep found, as objects, as a table and in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from labelguard_analytics.changes.measures import MEASURES, Direction
from labelguard_analytics.changes.nights import Nights

_ACT = {
    "decline": "Look at a few of these tasks together with whoever judged them, and check whether the guideline is "
    "clear there.",
    "improvement": "This is for the better and no reason to step in; what helped here may help others too.",
    "faster": "Speed alone is no fault: step in only where agreement or accuracy fell at the same time.",
    "slower": "Ask what has become harder: the tasks, the tool or the guideline.",
}
_MOVED = "Look at a few of these tasks together with whoever judged them; it is drift only if they are wrong."


@dataclass(frozen=True)
class Change:
    """One thing that was looked at, and what became of it."""

    annotator: Any
    """None where annotators are taken together; so with ``label``, ``source`` and ``cohort``."""
    label: Any
    """The label whose share it is; for other measures the label that the others gave (for accuracy, the known
    answer)."""
    source: Any
    cohort: Any
    measure: str
    direction: Direction | None = None
    """``decline`` or ``improvement``; where neither side is good, ``more`` or ``less``, ``faster`` or ``slower``; None
    where nothing comes near a change, and what follows is missing."""
    since: pd.Timestamp | None = None
    """The likely first day (of UTC, where times have a zone)."""
    since_low: pd.Timestamp | None = None
    """The earliest day that the data allow for at 95%; for what is not discovered, ``since``."""
    since_high: pd.Timestamp | None = None
    """The latest such day."""
    before: float = math.nan
    """What was seen before; a share, or typical seconds for ``duration``."""
    after: float = math.nan
    """What was seen from ``since`` on."""
    expected: float = math.nan
    """What would have been seen then without the change, given the tasks and what was learnt."""
    size: float = math.nan
    """``after`` less ``expected``; for ``duration`` as a share of ``expected``."""
    low: float = math.nan
    """Lower end of the 95% interval of ``size`` (one interval, not corrected for the number of looks)."""
    high: float = math.nan
    """Upper end of it."""
    p: float = 1.0
    """Of this series over all possible days; 1 where a bound was enough to see that nothing can be found, with
    ``nights`` at tonight's part of the level."""
    q: float = 1.0
    """The false discovery rate at which the annotator would be just named."""
    discovered: bool = False
    judgments: int = 0
    """Judgments from ``since`` on."""
    days: int = 0
    """Days with judgments in all, which is what the certainty rests on."""

    def explain(self) -> str:
        """Two sentences: what changed since when and by how much, and what to do.

        >>> day = pd.Timestamp("2026-03-02")
        >>> change = Change("ann", None, None, None, "agreement", "decline", day, day, day + pd.Timedelta(days=4),
        ...                 0.9, 0.7, 0.88, -0.18, -0.25, -0.11, 1e-7, 1e-5, True, 210, 130)
        >>> change.explain().partition(". ")[0]  # doctest: +NORMALIZE_WHITESPACE
        'ann has agreed with the others less often since 2 March 2026 (95% interval 2 March 2026 to 6 March 2026): on
        70% of 210 judgments, where 88% would be expected from earlier work on tasks that others judged alike
        (18 points less; 95% interval 11 to 25 less)'
        """
        if self.since is None or self.since_low is None or self.since_high is None:
            noun = MEASURES[self.measure].noun
            about = "" if self.label is None else f" ({self.label!r})"
            return f"Nothing comes near a change of the {noun}{about} of {self._who()}. Nothing needs to be done."
        since = f"{self._who()} {self._did()} since {_day(self.since)}"
        if self.since_low < self.since_high:
            since += f" (95% interval {_day(self.since_low)} to {_day(self.since_high)})"
        if not self.discovered:
            return f"{since}: {self._numbers()}. This may well be chance, so nothing needs to be done."
        return f"{since}: {self._numbers()}. {self._act()}"

    def _who(self) -> str:
        who = "Everybody" if self.annotator is None else str(self.annotator)
        if self.cohort is not None:
            who = f"Cohort {self.cohort}" if self.annotator is None else f"{who} (cohort {self.cohort})"
        return who if self.source is None else f"{who}, on source {self.source},"

    def _did(self) -> str:
        up = self.size > 0
        about = "" if self.label is None or self.measure == "share" else f" on tasks labelled {self.label!r} by others"
        often = "more often" if up else "less often"
        if self.measure == "share":
            return f"has used {self.label!r} {often}"
        if self.measure == "agreement":
            return f"has agreed with the others {often}{about}"
        if self.measure == "accuracy":
            about = "" if self.label is None else f" where {self.label!r} is right"
            return f"has given the known answer {often}{about}"
        if self.measure == "duration":
            return f"has taken {'more' if up else 'less'} time for a judgment{about}"
        if self.measure == "confidence":
            return f"has been {'more' if up else 'less'} sure{about}"
        return f"has been {self.measure} {often}{about}"

    def _numbers(self) -> str:
        reference = MEASURES[self.measure].reference
        word, back = ("more", "less") if self.size > 0 else ("less", "more")
        # Both ends as seen in the direction of the change.
        ends = (self.low, self.high) if self.size > 0 else (-self.high, -self.low)
        least = f"{100 * ends[0]:.0f}" if ends[0] >= 0 else f"{-100 * ends[0]:.0f} {back}"
        interval = f"95% interval {least} to {100 * ends[1]:.0f} {word}"
        if self.measure == "duration":
            by = f"{100 * abs(self.size):.0f}% {word}"
            return (
                f"{self.after:.3g} seconds for a typical one of {self.judgments:,} judgments, where "
                f"{self.expected:.3g} would be expected from {reference} ({by}; {interval})"
            )
        seen = f"a mean of {self.after:.0%} over" if self.measure == "confidence" else f"on {self.after:.0%} of"
        return (
            f"{seen} {self.judgments:,} judgments, where {min(max(self.expected, 0.0), 1.0):.0%} would be expected "
            f"from {reference} ({100 * abs(self.size):.0f} points {word}; {interval})"
        )

    def _act(self) -> str:
        return _ACT.get(str(self.direction), _MOVED)


@dataclass(frozen=True)
class TooLittle:
    """Something about which nothing can be said."""

    annotator: Any
    source: Any
    cohort: Any
    measure: str
    judgments: int
    """In the shorter of the two periods before and after the best possible day."""
    days: int
    reason: str

    def explain(self) -> str:
        """The reason, as a sentence with the numbers."""
        return self.reason


@dataclass(frozen=True, eq=False)
class Quietly:
    """Series of a measure of which a bound was enough to see that nothing can be found."""

    measure: str
    units: tuple[tuple[Any, Any, Any], ...]
    """Annotator, source and cohort of each unit."""
    labels: tuple[Any, ...]
    """The label of each series."""
    unit: npt.NDArray[np.int64]
    series: npt.NDArray[np.int64]

    def changes(self) -> list[Change]:
        """One for each."""
        found = []
        for unit, series in zip(self.unit.tolist(), self.series.tolist(), strict=True):
            annotator, source, cohort = self.units[unit]
            found.append(Change(annotator, self.labels[series], source, cohort, self.measure))
        return found


@dataclass(frozen=True)
class Changes:
    """Everything that a sweep looked at; what it found comes first."""

    near: tuple[Change, ...]
    """What was looked at closely, discoveries first, then by p-value."""
    quiet: tuple[Quietly, ...] = field(repr=False)
    """All others, in short."""
    too_little: tuple[TooLittle, ...]
    """Whom and what there is too little data for."""
    not_looked: Mapping[str, str]
    """Measures that were not looked at, and why."""
    by: tuple[str, ...]
    level: float
    """The false discovery rate of this sweep; with ``nights``, the part of it that this sweep was allowed."""
    units: int
    """How many annotators could be judged; without annotators, how many groups, every label of one counting."""
    days: int
    """Days with judgments."""
    nights: Nights | None = None
    """What to give to the next sweep; None where none was given to this one."""

    @cached_property
    def looked(self) -> tuple[Change, ...]:
        """Every series tested, discoveries first, then by p-value."""
        levels = {one.annotator: one.q for one in self.near} if "annotator" in self.by else {}
        rest = [change for quiet in self.quiet for change in quiet.changes()]
        return (
            *self.near,
            *(replace(one, q=levels[one.annotator]) if one.annotator in levels else one for one in rest),
        )

    @property
    def changes(self) -> tuple[Change, ...]:
        """What was discovered, strongest first."""
        return tuple(change for change in self.near if change.discovered)

    @property
    def annotators(self) -> tuple[Any, ...]:
        """The annotators who were named, each once, in the order of the evidence."""
        return tuple(dict.fromkeys(one.annotator for one in self.changes if one.annotator is not None))

    @property
    def table(self) -> pd.DataFrame:
        """Everything that was looked at, one row for each, with the columns of :class:`Change`."""
        names = [field.name for field in fields(Change)]
        found = pd.DataFrame(
            [[getattr(one, name) for name in names] for one in self.looked], columns=names, dtype=object
        )
        days, numbers = names[6:9], [*names[9:17]]
        return found.astype(
            dict.fromkeys(days, "datetime64[s]")
            | dict.fromkeys(numbers, float)
            | {"measure": "str", "discovered": bool, "judgments": int, "days": int}
        )

    def explain(self) -> str:
        """Two sentences: how many changed, and the strongest change or what could not be judged."""
        who = "annotator" if "annotator" in self.by else "group"
        judged = f"{self.units} {who}{'' if self.units == 1 else 's'} could be judged over {self.days} days"
        short = len({(one.annotator, one.source, one.cohort) for one in self.too_little})
        if not self.changes:
            rest = f"; for {short} there is too little data for at least one measure" if short else ""
            return f"{judged}, and none of them is found to have changed{rest}. Nothing needs to be done."
        named = {_key(one, who) for one in self.changes}
        worse = len({_key(one, who) for one in self.changes if one.direction == "decline"})
        better = len({_key(one, who) for one in self.changes if one.direction == "improvement"})
        kinds = [f"{worse} for the worse" if worse else "", f"{better} for the better" if better else ""]
        told = " and ".join(kind for kind in kinds if kind)
        first = self.changes[0].explain().partition(". ")[0]
        over = f"{100 * self.level:.3g}%" if self.nights is None else f"{100 * self.nights.level:.3g}% over all nights"
        return (
            f"{judged}, and {len(named)} changed{f' ({told})' if told else ''}; of those named, on average at most "
            f"{over} are named by chance. The strongest: {first}."
        )


def _key(change: Change, who: str) -> Any:
    return change.annotator if who == "annotator" else (change.source, change.cohort, change.label)


def _day(day: pd.Timestamp) -> str:
    return f"{day.day} {day:%B %Y}"
