"""What a sweep examines: the calendar, the possible changes, the labels and the units."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from labelguard_analytics.changes.cells import Ints
from labelguard_analytics.changes.panel import Panel

BY = ("annotator", "label", "source", "cohort")
MOST_LABELS = 50
"""So many labels, the most used ones, are looked at; as a consensus, the others count as one."""
_COARSE = 0.4
"""Possible changes lie at most this part of the way back apart from each other."""

Unit = tuple[Any, Any, Any]
"""Annotator, source and cohort; None where they are taken together."""


@dataclass(frozen=True)
class Plan:
    """What is the same in every look of a sweep."""

    by: frozenset[str]
    level: float
    min_judgments: int
    min_days: int
    days: Ints
    """The calendar: days since 1970 on which anybody judged."""
    labels: Ints
    """The labels looked at, as places among the panel's."""
    units: tuple[Unit, ...]
    unit_of: Ints
    """The unit of each of the panel's combinations of annotator, source and cohort."""
    annotator_of: Ints
    """Their annotators, numbered."""
    only_change: int | None = None
    """The only possible change, in days since 1970; None for all."""

    @classmethod
    def of(
        cls,
        panel: Panel,
        by: frozenset[str],
        level: float,
        min_judgments: int,
        min_days: int,
        only_change: int | None = None,
    ) -> Plan:
        """Look at everybody in a panel; with ``only_change``, a day since 1970, only for a change at that day."""
        names = [_unit(one, by) for one in panel.who]
        units = tuple(dict.fromkeys(names))
        place = {unit: number for number, unit in enumerate(units)}
        people = {who: number for number, who in enumerate(dict.fromkeys(one[0] for one in panel.who))}
        uses = panel.said.uses(len(panel.labels) + 1)[1:]
        often = np.argsort(-uses, kind="stable")[:MOST_LABELS]
        return cls(
            by,
            level,
            min_judgments,
            min_days,
            panel.judged.days(),
            np.sort(often[uses[often] > 0]),
            units,
            np.array([place[name] for name in names], dtype=np.int64),
            np.array([people[one[0]] for one in panel.who], dtype=np.int64),
            only_change,
        )

    @cached_property
    def starts(self) -> Ints:
        """The first days of the periods, in days since 1970: close together lately, further apart long ago.

        Days are multiples of powers of two, and which power depends on how long ago they are. So from one night to
        the next a period stays as it is or becomes one with its neighbour, and what was summed by period still counts.
        """
        if self.only_change is not None:
            return np.array([0, self.only_change])
        first, last = (int(self.days[0]), int(self.days[-1])) if len(self.days) else (0, 0)
        day = np.arange(first, last + 1)
        size = 2 ** np.floor(np.log2(np.maximum(_COARSE * (last + 1 - day), 1.0))).astype(np.int64)
        return np.concatenate([[0], day[day % size == 0]])

    @cached_property
    def candidates(self) -> Ints:
        """Possible changes, as places in the calendar: the first days of periods with enough days on both sides."""
        places = np.unique(np.searchsorted(self.days, self.starts))
        least = 1 if self.only_change is not None else self.min_days
        return places[(places >= least) & (places <= len(self.days) - least)]

    @cached_property
    def segment_of(self) -> Ints:
        """The segment of each day: how many of the candidates lie at or before it."""
        return np.searchsorted(self.candidates, np.arange(len(self.days)), side="right")


def _unit(one: Unit, by: frozenset[str]) -> Unit:
    annotator, source, cohort = one
    return (
        annotator if "annotator" in by else None,
        source if "source" in by else None,
        cohort if "cohort" in by else None,
    )
