"""Judgments: what one annotation says for one control tag, the unit of all statistics."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from labelguard.events import ResultItem


@dataclass(frozen=True, slots=True)
class Judgment:
    """What an annotation says for one control tag.

    ``value`` by ``kind`` (Label Studio's result ``type``): ``choices`` and ``taxonomy`` a tuple of labels
    (a taxonomy path joined by `` / ``), ``rating``, ``number`` a float, ``datetime`` an ISO string,
    ``textarea`` a tuple of texts, ``pairwise`` ``"left"`` or ``"right"``, ``ranker`` a mapping of bucket to
    item ids; for regions and for tags labelguard does not know, the raw result items.
    """

    control: str
    """The control tag's name (``from_name``)."""
    kind: str
    """Label Studio's result ``type``."""
    value: Any
    labels: tuple[str, ...] = ()
    """Every label used, sorted, without repeats: choices, taxonomy paths, region labels, a rating as text."""
    region: str = ""
    """The region's id for a judgment made per region; empty for one about the whole task."""


def judgments_of(result: Iterable[ResultItem]) -> tuple[Judgment, ...]:
    """Read a result into judgments, one for each control (and region, for per-region controls).

    Never raises: a result item of an unknown or broken shape becomes a judgment whose value is the raw
    item, so that nothing is lost and nothing is guessed.
    """
    raise NotImplementedError
