"""How alike two shapes on a picture are: boxes, ellipses, polygons, key points, vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import shapely

from labelguard_analytics.options import short
from labelguard_analytics.similarities.items import LARGEST, BadResult, Item, an, finite, number, value_of

Points: TypeAlias = npt.NDArray[np.float64]

_CORNERS = 72
"""Corners of the polygon that stands for an ellipse; its area is made the ellipse's own."""


def size_of(items: Sequence[Item]) -> tuple[float, float]:
    """Width and height of the picture, which turn percentages into lengths; a square where no item says."""
    sizes = [[_side(item, key) for key in ("original_width", "original_height")] for item in items]
    known = [(w, h) for w, h in sizes if w and h]
    return max((w for w, _ in known), default=100.0), max((h for _, h in known), default=100.0)


def _side(item: Item, key: str) -> float:
    """The length of a side of the picture; 0 where it is not known."""
    found = item.get(key)
    side = 0.0 if found is None else finite(item, key, found)
    if side < 0:
        raise BadResult(f"{an(item)} item must have a number above 0 as its {key!r}, but it is {short(found)}.")
    return side


def box(item: Item, size: tuple[float, float]) -> Points:
    """The corners of a rectangle, which Label Studio turns clockwise around its upper left corner."""
    x, y, width, height = (number(item, key) for key in ("x", "y", "width", "height"))
    corners = np.array([(0, 0), (width, 0), (width, height), (0, height)]) * size / 100.0
    return _turned(corners, number(item, "rotation", 0.0)) + np.array([x, y]) * size / 100.0


def ellipse(item: Item, size: tuple[float, float]) -> Points:
    """An ellipse around its centre, as a polygon of the same area."""
    x, y, across, down = (number(item, key) for key in ("x", "y", "radiusX", "radiusY"))
    angle = np.arange(_CORNERS) * 2.0 * math.pi / _CORNERS
    grow = math.sqrt(2.0 * math.pi / (_CORNERS * math.sin(2.0 * math.pi / _CORNERS)))
    round_ = np.stack([across * np.cos(angle), down * np.sin(angle)], axis=1) * grow * size / 100.0
    return _turned(round_, number(item, "rotation", 0.0)) + np.array([x, y]) * size / 100.0


def _turned(points: Points, degrees: float) -> Points:
    if not degrees:
        return points
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turn: Points = np.array([[cos, sin], [-sin, cos]])
    return np.asarray(points @ turn, dtype=np.float64)


def polygon(item: Item, size: tuple[float, float]) -> Points:
    """The points of a polygon."""
    return _points(item, value_of(item).get("points")) * size / 100.0


def vector(item: Item, size: tuple[float, float]) -> Points:
    """The vertices of a vector, in their order; the handles of curves do not count."""
    vertices = value_of(item).get("vertices")
    vertices = vertices if isinstance(vertices, (list, tuple)) else ()
    pairs = [(one.get("x"), one.get("y")) if isinstance(one, dict) else one for one in vertices]
    return _points(item, pairs) * size / 100.0


def _points(item: Item, found: Any) -> Points:
    try:
        points = np.asarray(found, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        points = np.empty(0)
    if points.ndim != 2 or points.shape[1] != 2 or not (np.abs(points) <= LARGEST).all():
        raise BadResult(f"{an(item)} item must have a list of points of two finite numbers (up to {LARGEST:g}).")
    return points


def area(points: Points) -> shapely.Geometry:
    """The area inside a ring of points; where the ring crosses itself, what it encloses (shapely's make_valid)."""
    if len(points) < 3:
        return shapely.linestrings(points) if len(points) == 2 else shapely.points(points[0])
    found = shapely.polygons(points)
    return found if shapely.is_valid(found) else shapely.make_valid(found)


def areas_overlap(one: Sequence[Points], other: Sequence[Points]) -> npt.NDArray[np.float64]:
    """Intersection over union of every two areas given by their rings."""
    upright = [_upright(points) for points in (*one, *other)]
    if all(corners is not None for corners in upright):
        boxes = np.array(upright, dtype=np.float64)
        found = _boxes_overlap(boxes[: len(one)], boxes[len(one) :])
    else:
        a, b = (np.array([area(points) for points in side], dtype=object) for side in (one, other))
        found = _shapes_overlap(a, b)
    for i, j in np.argwhere(np.isnan(found)):
        # Both without an area: alike only if they are the same.
        found[i, j] = float(one[i].shape == other[j].shape and np.allclose(one[i], other[j]))
    return np.clip(found, 0.0, 1.0)


def _upright(points: Points) -> tuple[float, float, float, float] | None:
    """The bounds of a rectangle that is not turned; None for anything else."""
    if len(points) != 4:
        return None
    (left, top), (right, bottom) = points[0], points[2]
    same = points[1][0] == right and points[1][1] == top and points[3][0] == left and points[3][1] == bottom
    return (min(left, right), min(top, bottom), max(left, right), max(top, bottom)) if same else None


def _boxes_overlap(a: Points, b: Points) -> npt.NDArray[np.float64]:
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.prod(np.clip(high - low, 0.0, None), axis=-1)
    size_a, size_b = np.prod(a[:, 2:] - a[:, :2], axis=-1), np.prod(b[:, 2:] - b[:, :2], axis=-1)
    return _over(shared, size_a[:, None] + size_b[None, :] - shared)


def _shapes_overlap(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    shared = np.zeros((len(a), len(b)))
    size_a, size_b = shapely.area(a), shapely.area(b)
    one, other = shapely.bounds(a), shapely.bounds(b)
    near = np.all((one[:, None, :2] <= other[None, :, 2:]) & (other[None, :, :2] <= one[:, None, 2:]), axis=-1)
    rows, columns = np.nonzero(near)
    shared[rows, columns] = shapely.area(shapely.intersection(a[rows], b[columns]))
    return _over(shared, size_a[:, None] + size_b[None, :] - shared)


def _over(shared: Any, union: Any) -> npt.NDArray[np.float64]:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(union > 0, shared / union, np.nan), dtype=np.float64)


def points_near(one: Points, other: Points, size: tuple[float, float], spread: float) -> npt.NDArray[np.float64]:
    """Similarity of every two points: ``exp(-d**2 / (2 * spread**2))``, d in diagonals of the picture.

    The form of COCO's object keypoint similarity, with the picture's diagonal as the size of the object.
    """
    apart = np.hypot(*(one[:, None, axis] - other[None, :, axis] for axis in (0, 1))) / math.hypot(*size)
    return np.asarray(_near(apart, spread), dtype=np.float64)


def _near(apart: Any, spread: float) -> Any:
    # Compared first, so that neither the quotient nor its square can overflow.
    steps = np.where(apart < 40.0 * spread, apart, np.inf) / spread
    return np.exp(-(steps**2) / 2.0)


def lines_near(one: Points, other: Points, size: tuple[float, float], spread: float) -> float:
    """Similarity of two lines from their Fréchet distance in either direction, as for points."""
    if min(len(one), len(other)) < 2:
        one, other = (points if len(points) > 1 else np.repeat(points, 2, axis=0) for points in (one, other))
    first, second, back = (shapely.linestrings(points) for points in (one, other, other[::-1]))
    apart = min(shapely.frechet_distance(first, second), shapely.frechet_distance(first, back)) / math.hypot(*size)
    return float(_near(apart, spread))
