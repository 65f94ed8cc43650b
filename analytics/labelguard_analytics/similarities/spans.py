"""How alike two stretches of text, sound or time are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from labelguard_analytics.options import short
from labelguard_analytics.similarities.items import BadResult, Item, an, finite, moment, number, value_of

Ranges: TypeAlias = list[tuple[float, float]]
"""Disjoint stretches, ascending; a point has the same start and end."""


def ranges_of(item: Item, paragraph: float | None = None) -> tuple[str, Ranges]:
    """Where a span is, and on which track: stretches on different tracks do not overlap.

    Spans of text and sound have ``start`` and ``end`` (characters or seconds; the end does not belong to them),
    and a track for each ``channel``; HyperText has ``globalOffsets``, without which only spans inside one element
    compare by their offsets; paragraphs have a number and an offset, and a place is the number times
    ``paragraph`` characters plus the offset; timelines have ``ranges`` of frames, whose ends belong to them.
    """
    value = value_of(item)
    if "ranges" in value:
        ranges = value["ranges"]
        if not isinstance(ranges, (list, tuple)):
            raise BadResult(f"{an(item)} item must have a list as its 'ranges', but it is {short(ranges)}.")
        return "", _merged([_frames(item, one) for one in ranges])
    if isinstance(value.get("globalOffsets"), dict):
        offsets = value["globalOffsets"]
        return "", _ordered(*(number({**item, "value": offsets}, key) for key in ("start", "end")))
    if "startOffset" in value or "endOffset" in value:
        start, end = str(value.get("start")), str(value.get("end"))
        first, last = number(item, "startOffset"), number(item, "endOffset")
        if paragraph is not None and start.isdigit() and end.isdigit():
            places = (number(item, key) * paragraph for key in ("start", "end"))
            return "", _ordered(next(places) + first, next(places) + last)
        if start == end:
            return start, _ordered(first, last)
        return f"{start}:{first}-{end}:{last}", [(0.0, 1.0)]
    channel = value.get("channel")
    return "" if channel is None else f"channel {channel}", _ordered(_time(item, "start"), _time(item, "end"))


def paragraph_width(items: Sequence[Item]) -> float:
    """Characters to allow for each paragraph: more than any offset."""
    offsets = [
        number(item, key)
        for item in items
        if isinstance(value := item.get("value"), dict)
        for key in ("startOffset", "endOffset")
        if isinstance(value.get(key), (int, float))
    ]
    return max(offsets, default=0.0) + 1.0


def _time(item: Item, key: str) -> float:
    """A number, or a moment (time series may have dates) as seconds."""
    found = value_of(item).get(key)
    if isinstance(found, str):
        try:
            return finite(item, key, float(found))
        except ValueError:
            read = moment(found)
        if read is None:
            raise BadResult(f"{an(item)} item has {short(found)} as its {key!r}, which is no number or time.")
        return read.timestamp()
    return number(item, key)


def _frames(item: Item, one: object) -> tuple[float, float]:
    if not isinstance(one, dict):
        raise BadResult(f"{an(item)} item must have ranges with a start and an end.")
    start, end = (number({**item, "value": one}, key) for key in ("start", "end"))
    return min(start, end), max(start, end) + 1.0


def _ordered(start: float, end: float) -> Ranges:
    return [(min(start, end), max(start, end))]


def _merged(ranges: Ranges) -> Ranges:
    found: Ranges = []
    for start, end in sorted(ranges):
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], end)
        else:
            found.append((start, end))
    return found


def overlap(one: Ranges, other: Ranges, tolerance: float = 0.0) -> float:
    """Intersection over union of two sets of stretches.

    Where both are points, 1 minus their distance over the ``tolerance``, and for a tolerance of 0 whether they are
    equal.
    """
    total = sum(end - start for start, end in one), sum(end - start for start, end in other)
    if not any(total):
        apart = abs(one[0][0] - other[0][0]) if one and other else float(one != other)
        return max(0.0, 1.0 - apart / tolerance) if tolerance > 0 else float(apart == 0)
    shared = sum(
        max(0.0, min(a_end, b_end) - max(a_start, b_start)) for a_start, a_end in one for b_start, b_end in other
    )
    return shared / (total[0] + total[1] - shared)
