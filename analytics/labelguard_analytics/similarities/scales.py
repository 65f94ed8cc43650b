"""How alike two numbers, ratings or moments are: Rating, Number, DateTime."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from labelguard_analytics.options import short
from labelguard_analytics.similarities.items import BadResult, Item, moment, number, of_type, strings


def rating(a: Sequence[Item], b: Sequence[Item], *, scale: tuple[float, float] = (1.0, 5.0)) -> float:
    """Rating: 1 minus the distance over the length of the scale (lowest and highest rating); never below 0."""
    return _on_scale(_one(a, "rating"), _one(b, "rating"), scale)


def numbers(
    a: Sequence[Item],
    b: Sequence[Item],
    *,
    scale: tuple[float, float] | None = None,
    tolerance: float | None = None,
) -> float:
    """Number: 1 minus the distance over the length of the ``scale``, or over the ``tolerance``; never below 0.

    With neither, the distance is relative: over the larger of both magnitudes.
    """
    one, other = _one(a, "number"), _one(b, "number")
    if scale is not None and tolerance is not None:
        raise ValueError("Give a scale or a tolerance, not both.")
    if one is None or other is None:
        return float(one is other)
    if tolerance is not None:
        return _within(abs(one - other), tolerance)
    if scale is not None:
        return _on_scale(one, other, scale)
    largest = max(abs(one), abs(other))
    return max(0.0, 1.0 - abs(one - other) / largest) if largest else 1.0


def moments(a: Sequence[Item], b: Sequence[Item], *, tolerance: float | str | pd.Timedelta = "1D") -> float:
    """DateTime: 1 minus the time between both over the ``tolerance`` (seconds or a text as "2h"); never below 0.

    Moments without a time zone are taken as UTC. A tolerance of 0 asks for equality.
    """
    one, other = _moment(a), _moment(b)
    if one is None or other is None:
        return float(one is other)
    allowed = tolerance if isinstance(tolerance, (int, float)) else pd.Timedelta(tolerance).total_seconds()
    return _within(abs((one - other).total_seconds()), float(allowed))


def _within(apart: float, tolerance: float) -> float:
    if not tolerance:
        return float(apart == 0)
    return max(0.0, 1.0 - apart / tolerance)


def _on_scale(one: float | None, other: float | None, scale: tuple[float, float]) -> float:
    low, high = scale
    if one is None or other is None:
        return float(one is other)
    return max(0.0, 1.0 - abs(one - other) / (high - low))


def _one(result: Sequence[Item], kind: str) -> float | None:
    found = [number(item, kind) for item in of_type(result, kind)]
    if len(found) > 1:
        raise BadResult(f"A result must have one {kind}, but it has {len(found)}.")
    return found[0] if found else None


def _moment(result: Sequence[Item]) -> pd.Timestamp | None:
    found = [text for item in of_type(result, "datetime") for text in strings(item, "datetime")]
    if len(found) > 1:
        raise BadResult(f"A result must have one datetime, but it has {len(found)}.")
    if not found:
        return None
    read = moment(found[0])
    if read is None:
        raise BadResult(f"A datetime item holds {short(found[0])}, which is no date or time.")
    return read.tz_localize("UTC") if read.tzinfo is None else read.tz_convert("UTC")
