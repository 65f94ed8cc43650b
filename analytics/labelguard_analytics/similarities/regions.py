"""How alike two sets of regions are: every tag that marks places, and answers given for places."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from labelguard_analytics.similarities import masks, shapes, spans, video
from labelguard_analytics.similarities.items import BadResult, Item, number, strings, value_of
from labelguard_analytics.similarities.labels import sets_alike
from labelguard_analytics.similarities.matching import matched

Table = npt.NDArray[np.float64]
LabelUse = Literal["jaccard", "exact", "f1", "masi", "ignore"]

_SHAPES = (
    ("sequence", "video"),
    ("rle", "mask"),
    ("imageDataURL", "mask"),
    ("vertices", "vector"),
    ("points", "polygon"),
    ("radiusX", "ellipse"),
    ("height", "box"),
    ("ranges", "span"),
    ("startOffset", "span"),
    ("globalOffsets", "span"),
    ("start", "span"),
    ("x", "point"),
)
"""What a key of a region's value says about its shape; the first that fits decides."""


@dataclass(frozen=True)
class Region:
    """A place with its labels."""

    item: Item
    shape: str
    labels: frozenset[str]

    @property
    def id(self) -> str:
        """Label Studio's id of the region; empty where it has none."""
        return str(self.item.get("id") or "")

    @property
    def where(self) -> tuple[Any, ...]:
        """Regions compare only on the same object, and picture of a list of pictures."""
        return self.shape, self.item.get("to_name"), self.item.get("item_index")


_OWN_SHAPES = {
    "rectangle": "box",
    "polygon": "polygon",
    "ellipse": "ellipse",
    "keypoint": "point",
    "vector": "vector",
    "brush": "mask",
    "bitmask": "mask",
    "videorectangle": "video",
}
"""The shape that items of a type have, with or without ``labels`` at its end; all others are spans or anything."""


def shape_of(item: Item) -> str:
    """What kind of place an item marks; empty where it marks none."""
    value = item.get("value")
    if not isinstance(value, Mapping):
        return ""
    return next((shape for key, shape in _SHAPES if key in value), "")


def regions_of(result: Sequence[Item], kinds: Sequence[str] | None = None) -> list[Region]:
    """The regions of some types, or all; a region without labels has those of the ``labels`` item of its id.

    An item of one of the types is a region whatever its value has, so that reading its place tells what is missing.
    """
    named: dict[str, set[str]] = {}
    for item in result:
        if item["type"].endswith("labels") and item.get("id"):
            named.setdefault(str(item["id"]), set()).update(_labels(item))
    found: list[Region] = []
    seen: set[str] = set()
    for item in result:
        own = str(item.get("id") or "")
        if kinds is None:
            shape = shape_of(item)
            if not shape or (own in seen and own != ""):
                continue
        elif item["type"] in kinds:
            shape = _OWN_SHAPES.get(item["type"].removesuffix("labels")) or shape_of(item) or "span"
        else:
            continue
        seen.add(own)
        found.append(Region(item, shape, frozenset(named.get(own, set()) | set(_labels(item)))))
    return found


def _labels(item: Item) -> list[str]:
    value = value_of(item)
    key = item["type"] if item["type"] in value else "labels"
    return strings(item, key) if key in value and (key == "labels" or key.endswith("labels")) else []


def geometry(one: Sequence[Region], other: Sequence[Region], *, spread: float = 0.05, tolerance: float = 0.0) -> Table:
    """The similarity of every two places; 0 where they are of different kinds or on different objects."""
    table = np.zeros((len(one), len(other)))
    for where in {region.where for region in (*one, *other)}:
        rows = [i for i, region in enumerate(one) if region.where == where]
        columns = [j for j, region in enumerate(other) if region.where == where]
        sides = [one[i].item for i in rows], [other[j].item for j in columns]
        if rows and columns:
            table[np.ix_(rows, columns)] = _compare(where[0], *sides, spread, tolerance)
        else:
            # A place that faces none must be one, too.
            alone = sides[0] or sides[1]
            _compare(where[0], alone, alone[:1], spread, tolerance)
    return table


def _compare(shape: str, one: Sequence[Item], other: Sequence[Item], spread: float, tolerance: float) -> Any:
    together = [*one, *other]
    if shape == "mask":
        return masks.masks_overlap([masks.mask_of(item) for item in one], [masks.mask_of(item) for item in other])
    if shape == "span":
        width = spans.paragraph_width(together) if _several_paragraphs(together) else None
        a, b = ([spans.ranges_of(item, width) for item in side] for side in (one, other))
        return [[spans.overlap(p[1], q[1], tolerance) if p[0] == q[0] else 0.0 for q in b] for p in a]
    size = shapes.size_of(together)
    if shape == "video":
        frames = video.frames_of(together)
        tracks = [[video.track(item, frames) for item in side] for side in (one, other)]
        return [[video.tracks_overlap(p, q, size) for q in tracks[1]] for p in tracks[0]]
    if shape == "point":
        here, there = (np.array([_point(item, size) for item in side]) for side in (one, other))
        return shapes.points_near(here, there, size, spread)
    if shape == "vector":
        return _vectors(one, other, size, spread)
    read = _RINGS[shape]
    return shapes.areas_overlap([read(item, size) for item in one], [read(item, size) for item in other])


_RINGS: dict[str, Callable[[Item, tuple[float, float]], shapes.Points]] = {
    "box": shapes.box,
    "ellipse": shapes.ellipse,
    "polygon": shapes.polygon,
}


def _several_paragraphs(items: Sequence[Item]) -> bool:
    """Whether the spans number paragraphs, which paragraph tags do and HyperText does not."""
    return all(str(value_of(item).get(key, "")).isdigit() for item in items for key in ("start", "end"))


def _point(item: Item, size: tuple[float, float]) -> shapes.Points:
    values = [number(item, key) for key in ("x", "y")]
    return np.array(values) * size / 100.0


def _vectors(one: Sequence[Item], other: Sequence[Item], size: tuple[float, float], spread: float) -> Table:
    """Closed vectors compare by area, open ones as lines, one of each kind not at all."""
    a, b = ([(shapes.vector(item, size), bool(value_of(item).get("closed"))) for item in side] for side in (one, other))
    table = np.zeros((len(a), len(b)))
    for i, (first, closed) in enumerate(a):
        for j, (second, closed_too) in enumerate(b):
            if min(len(first), len(second)) == 0:
                table[i, j] = float(len(first) == len(second))
            elif closed and closed_too:
                table[i, j] = shapes.areas_overlap([first], [second])[0, 0]
            elif closed == closed_too:
                table[i, j] = shapes.lines_near(first, second, size, spread)
    return table


def labels_alike(one: Sequence[Region], other: Sequence[Region], labels: LabelUse) -> Table:
    """The similarity of the labels of every two regions; 1 throughout where they are to be ignored."""
    if labels == "ignore":
        return np.ones((len(one), len(other)))
    return np.array([[sets_alike(p.labels, q.labels, labels) for q in other] for p in one]).reshape(
        len(one), len(other)
    )


def marks(
    kinds: Sequence[str],
    a: Sequence[Item],
    b: Sequence[Item],
    *,
    threshold: float | None = None,
    labels: LabelUse = "jaccard",
    spread: float = 0.05,
    tolerance: float = 0.0,
) -> float:
    """F1 of optimally matched regions, a pair counting the similarity of its places times that of its labels.

    Args:
        kinds: Label Studio's result types of the tag.
        a: a result.
        b: another result of the same task.
        threshold: count a pair 1 from this similarity on and 0 below; None counts similarities.
        labels: how label sets compare; ``ignore`` looks at places alone, which tells whether people find the same
            things, while labels tell whether they name them alike.
        spread: for points and open lines, the distance in diagonals of the picture at which similarity is 0.61.
        tolerance: for instants, the distance at which similarity is 0.
    """
    one, other = regions_of(a, kinds), regions_of(b, kinds)
    table = geometry(one, other, spread=spread, tolerance=tolerance) * labels_alike(one, other, labels)
    return matched(table, len(one), len(other), threshold)


def painted(
    kinds: Sequence[str],
    a: Sequence[Item],
    b: Sequence[Item],
    *,
    measure: Literal["iou", "dice"] = "iou",
    merge: bool = True,
    threshold: float | None = None,
    labels: LabelUse = "jaccard",
) -> float:
    """Brush strokes and bitmasks: F1 of optimally matched masks, by intersection over union or Dice.

    Args:
        kinds: Label Studio's result types of the tag.
        a: a result.
        b: another result of the same task.
        measure: ``iou``, or ``dice`` (twice the shared over the sum of both areas).
        merge: join all strokes with the same labels into one mask, as it is of no matter how many strokes were
            needed; False keeps every region on its own.
        threshold: count a pair 1 from this similarity on and 0 below; None counts similarities.
        labels: how label sets compare; ``ignore`` looks at places alone.
    """
    one, other = (_masks(regions_of(side, kinds), merge, ignore=labels == "ignore") for side in (a, b))
    table = np.zeros((len(one), len(other)))
    for i, (where, mask, names) in enumerate(one):
        for j, (where_too, mask_too, names_too) in enumerate(other):
            if where == where_too:
                found = float(masks.masks_overlap([mask], [mask_too])[0, 0])
                found = found if measure == "iou" else 2.0 * found / (1.0 + found)
                table[i, j] = found if labels == "ignore" else found * sets_alike(names, names_too, labels)
    return matched(table, len(one), len(other), threshold)


def _masks(regions: Sequence[Region], merge: bool, *, ignore: bool) -> list[tuple[Any, masks.Mask, frozenset[str]]]:
    if not merge:
        return [(region.where, masks.mask_of(region.item), region.labels) for region in regions]
    groups: dict[Any, list[Region]] = {}
    for region in regions:
        names = frozenset[str]() if ignore else region.labels
        groups.setdefault((region.where, names), []).append(region)
    return [
        (where, masks.union([masks.mask_of(region.item) for region in group]), names)
        for (where, names), group in groups.items()
    ]


def tagged_units(kinds: Sequence[str], a: Sequence[Item], b: Sequence[Item]) -> float:
    """F1 of characters tagged B (first of a span) or I (inside) with a label; spans need whole numbers."""
    one, other = (_units(regions_of(side, kinds)) for side in (a, b))
    return 2.0 * len(one & other) / (len(one) + len(other)) if one or other else 1.0


def _units(regions: Sequence[Region]) -> set[tuple[Any, ...]]:
    width = spans.paragraph_width([r.item for r in regions])
    paragraphs = _several_paragraphs([r.item for r in regions]) if regions else False
    found: set[tuple[Any, ...]] = set()
    for region in regions:
        track, ranges = spans.ranges_of(region.item, width if paragraphs else None)
        for start, end in ranges:
            if start % 1 or end % 1:
                raise BadResult("Tagging units needs spans of whole numbers (characters or frames).")
            for place in range(int(start), int(end)):
                found |= {(region.where, track, place, label, place == start) for label in region.labels or {""}}
    return found


def per_region(
    compare: Callable[[Sequence[Item], Sequence[Item]], float],
    kind: str,
    a: Sequence[Item],
    b: Sequence[Item],
    *,
    threshold: float | None = None,
) -> float | None:
    """An answer given for each region: F1 of optimally matched regions, places times answers.

    None where neither result gives answers for regions.
    """
    one, other = (_answers(side, kind) for side in (a, b))
    if not one and not other:
        return None
    places = geometry([region for region, _ in one], [region for region, _ in other])
    answers = np.zeros_like(places)
    for i, j in np.argwhere(places > 0):
        answers[i, j] = compare([one[i][1]], [other[j][1]])
    return matched(places * answers, len(one), len(other), threshold)


def _answers(result: Sequence[Item], kind: str) -> list[tuple[Region, Item]]:
    """The items of a type that belong to a region, each with its region."""
    found = []
    places = {region.id: region for region in regions_of(result) if region.id}
    for item in result:
        if item["type"] != kind:
            continue
        own = places.get(str(item.get("id") or ""))
        shape = shape_of(item)
        if own is not None and own.shape:
            found.append((own, item))
        elif shape:
            found.append((Region(item, shape, frozenset()), item))
    return found
