"""How alike two tracks of boxes through a video are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely

from labelguard_analytics.similarities.items import BadResult, Item, an, number, value_of

MOST_FRAMES = 5_000_000
"""A day at 60 frames a second has fewer."""
_KEYS = ("x", "y", "width", "height", "rotation")


@dataclass(frozen=True)
class Track:
    """The box of each frame from ``first`` on; rows of NaN where it is not there."""

    first: int
    boxes: npt.NDArray[np.float64]
    """Frames x (x, y, width, height in percent, rotation in degrees)."""


def frames_of(items: Sequence[Item]) -> int:
    """The number of frames of the video, as far as the items tell."""
    return max(
        (_frame(item, "framesCount") for item in items if value_of(item).get("framesCount") is not None), default=0
    )


def _frame(item: Item, key: str) -> int:
    found = int(number(item, key))
    if abs(found) > MOST_FRAMES:
        raise BadResult(f"{an(item)} item has {found} as its {key!r}, where at most {MOST_FRAMES:,} can be compared.")
    return found


def track(item: Item, frames: int) -> Track:
    """A track from its key frames.

    Between two key frames the box moves evenly. A key frame with ``enabled`` false is the last frame that shows
    it, until the next key frame; after a last key frame that is enabled it stays until the end of the video.
    """
    sequence = value_of(item).get("sequence")
    if not isinstance(sequence, Sequence) or not all(isinstance(key, dict) for key in sequence):
        raise BadResult(f"{an(item)} item must have a list of key frames as its 'sequence'.")
    keys = sorted(sequence, key=lambda key: number({**item, "value": key}, "frame"))
    if not keys:
        return Track(1, np.empty((0, 5)))
    places = np.array(
        [[number({**item, "value": key}, name, 0.0 if name == "rotation" else None) for name in _KEYS] for key in keys]
    )
    at = np.array([_frame({**item, "value": key}, "frame") for key in keys])
    first, last = int(at[0]), max(int(at[-1]), frames if keys[-1].get("enabled", True) else 0)
    every = np.arange(first, last + 1)
    boxes = np.stack([np.interp(every, at, column) for column in places.T], axis=1)
    for key, start, end in zip(keys, at, [*at[1:], last + 1], strict=True):
        if not key.get("enabled", True):
            boxes[start + 1 - first : end - first] = np.nan
    return Track(first, boxes)


def tracks_overlap(one: Track, other: Track, size: tuple[float, float]) -> float:
    """Shared over joint area, both summed over all frames (spatio-temporal intersection over union)."""
    first = min(one.first, other.first)
    frames = max(one.first + len(one.boxes), other.first + len(other.boxes)) - first
    a, b = (np.full((frames, 5), np.nan) for _ in range(2))
    a[one.first - first : one.first - first + len(one.boxes)] = one.boxes
    b[other.first - first : other.first - first + len(other.boxes)] = other.boxes
    there_a, there_b = ~np.isnan(a[:, 0]), ~np.isnan(b[:, 0])
    areas = np.nansum(a[:, 2] * a[:, 3]) + np.nansum(b[:, 2] * b[:, 3])
    if areas <= 0:
        return 1.0 if np.array_equal(a, b, equal_nan=True) else 0.0
    shared = _shared(a[there_a & there_b], b[there_a & there_b], size)
    return min(1.0, float(shared / (areas - shared)))


def _shared(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64], size: tuple[float, float]) -> float:
    """The shared area in square percent, summed over frames."""
    if not (a[:, 4].any() or b[:, 4].any()):
        low = np.maximum(a[:, :2], b[:, :2])
        high = np.minimum(a[:, :2] + a[:, 2:4], b[:, :2] + b[:, 2:4])
        return float(np.prod(np.clip(high - low, 0.0, None), axis=1).sum())
    rings = [shapely.polygons(_corners(boxes, size)) for boxes in (a, b)]
    square = size[0] * size[1] / 100.0**2
    return float(shapely.area(shapely.intersection(*rings)).sum()) / square


def _corners(boxes: npt.NDArray[np.float64], size: tuple[float, float]) -> npt.NDArray[np.float64]:
    """The corners of many boxes in pixels (boxes x 4 x 2), turned clockwise around their upper left ones."""
    scale = np.array(size) / 100.0
    unit = np.array([(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)])
    flat = unit[None, :, :] * (boxes[:, None, 2:4] * scale)
    cos, sin = np.cos(np.radians(boxes[:, 4])), np.sin(np.radians(boxes[:, 4]))
    turn = np.stack([np.stack([cos, sin], axis=1), np.stack([-sin, cos], axis=1)], axis=1)
    return np.asarray(flat @ turn + boxes[:, None, :2] * scale, dtype=np.float64)
