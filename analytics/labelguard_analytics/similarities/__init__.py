"""How alike two results of one task are, for every control tag of Label Studio, from 0 to 1.

Every measure is symmetric, 1 for equal results, and 1 where both are empty. Regions are matched optimally
(:func:`~labelguard_analytics.similarities.matching.matched`), and a missing region costs as much as a wrong one.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

from labelguard_analytics.options import short
from labelguard_analytics.similarities import labels, orders, scales, words
from labelguard_analytics.similarities.items import BadResult, Item, check
from labelguard_analytics.similarities.labels import set_similarity, sets_alike
from labelguard_analytics.similarities.options import check_options
from labelguard_analytics.similarities.regions import LabelUse, marks, painted, per_region, tagged_units
from labelguard_analytics.similarities.relations import relations

__all__ = ["TAGS", "BadResult", "set_similarity", "sets_alike", "similarity"]

_Measure = Callable[..., float]


def _answer(compare: _Measure, kind: str) -> _Measure:
    """A measure of one answer for a task, or, where answers belong to regions, of each region's answer."""

    def measure(a: Sequence[Item], b: Sequence[Item], **options: Any) -> float:
        found = per_region(partial(compare, **options), kind, a, b)
        return compare(a, b, **options) if found is None else found

    measure.__signature__ = inspect.signature(compare, eval_str=True)  # type: ignore[attr-defined]
    return measure


def _shapes(*kinds: str) -> _Measure:
    def measure(
        a: Sequence[Item], b: Sequence[Item], *, threshold: float | None = None, labels: LabelUse = "jaccard"
    ) -> float:
        return marks(kinds, a, b, threshold=threshold, labels=labels)

    return measure


def _points(*kinds: str) -> _Measure:
    def measure(
        a: Sequence[Item],
        b: Sequence[Item],
        *,
        spread: float = 0.05,
        threshold: float | None = None,
        labels: LabelUse = "jaccard",
    ) -> float:
        return marks(kinds, a, b, threshold=threshold, labels=labels, spread=spread)

    return measure


def _stretches(*kinds: str) -> _Measure:
    def measure(
        a: Sequence[Item],
        b: Sequence[Item],
        *,
        measure: Literal["iou", "exact", "bio"] = "iou",
        threshold: float | None = None,
        labels: LabelUse = "jaccard",
        tolerance: float = 0.0,
    ) -> float:
        if measure == "bio":
            return tagged_units(kinds, a, b)
        return marks(
            kinds, a, b, threshold=1.0 if measure == "exact" else threshold, labels=labels, tolerance=tolerance
        )

    return measure


def _masks(*kinds: str) -> _Measure:
    def measure(
        a: Sequence[Item],
        b: Sequence[Item],
        *,
        measure: Literal["iou", "dice"] = "iou",
        merge: bool = True,
        threshold: float | None = None,
        labels: LabelUse = "jaccard",
    ) -> float:
        return painted(kinds, a, b, measure=measure, merge=merge, threshold=threshold, labels=labels)

    return measure


TAGS: dict[str, _Measure] = {
    "Choices": _answer(labels.choices, "choices"),
    "Taxonomy": _answer(labels.taxonomy, "taxonomy"),
    "Pairwise": labels.pairwise,
    "Rating": _answer(scales.rating, "rating"),
    "Number": _answer(scales.numbers, "number"),
    "DateTime": _answer(scales.moments, "datetime"),
    "TextArea": _answer(words.text_area, "textarea"),
    "Ranker": orders.ranker,
    "Labels": _stretches("labels"),
    "ParagraphLabels": _stretches("paragraphlabels"),
    "Paragraphs": _stretches("paragraphs"),
    "HyperTextLabels": _stretches("hypertextlabels"),
    "TimeSeriesLabels": _stretches("timeserieslabels"),
    "TimelineLabels": _stretches("timelinelabels"),
    "Rectangle": _shapes("rectangle"),
    "RectangleLabels": _shapes("rectanglelabels"),
    "Polygon": _shapes("polygon"),
    "PolygonLabels": _shapes("polygonlabels"),
    "Ellipse": _shapes("ellipse"),
    "EllipseLabels": _shapes("ellipselabels"),
    "KeyPoint": _points("keypoint"),
    "KeyPointLabels": _points("keypointlabels"),
    "Vector": _points("vector"),
    "VectorLabels": _points("vectorlabels"),
    "Brush": _masks("brush"),
    "BrushLabels": _masks("brushlabels"),
    "Bitmask": _masks("bitmask"),
    "BitmaskLabels": _masks("bitmasklabels"),
    "VideoRectangle": _shapes("videorectangle"),
    "Relations": relations,
}
"""Each tag with its measure; what a measure takes besides two results is its options."""


def similarity(tag: str, result_a: Sequence[Item], result_b: Sequence[Item], **options: Any) -> float:
    """How alike two results of one task are for a control tag.

    Items of other types are left out, except that regions lend their place to answers given for them and to
    relations, and labels to regions of the same id. What a tag's measure is and where it comes from:

    - ``Choices``: ``measure`` of the chosen sets: ``jaccard`` (default), ``f1``, ``masi``, ``exact``.
    - ``Taxonomy``: ``measure`` ``hierarchical-f1`` (default), ``jaccard``, ``path``, ``exact``.
    - ``Pairwise``: equal sides. ``Ranker``: ``measure`` ``tau`` (default) or ``rbo`` with ``p``.
    - ``Rating``: ``scale=(1, 5)``. ``Number``: ``scale`` or ``tolerance``, else relative. ``DateTime``:
      ``tolerance="1D"``.
    - ``TextArea``: ``measure`` ``characters`` (default), ``words``, ``chrf``, ``exact``; ``ignore_case``.
    - ``Labels``, ``ParagraphLabels``, ``HyperTextLabels``, ``TimeSeriesLabels``, ``TimelineLabels``: ``measure``
      ``iou`` (default), ``exact`` (same ends and labels), ``bio`` (F1 of tagged characters);
      ``tolerance`` for instants.
    - ``Rectangle``, ``Polygon``, ``Ellipse`` (and with ``Labels``): intersection over union, with rotation;
      ``VideoRectangle``: of areas summed over frames.
    - ``KeyPoint``, ``Vector`` (and with ``Labels``): normalised distance with ``spread``; closed vectors by area.
    - ``Brush``, ``Bitmask`` (and with ``Labels``): ``measure`` ``iou`` (default) or ``dice``; ``merge`` strokes.
    - ``Relations``: F1 of edges after matching the regions, with ``least``.

    Tags of regions also take ``threshold`` (count pairs from that similarity on) and ``labels`` (``jaccard``,
    ``exact``, ``f1``, ``masi``, or ``ignore`` to look at places alone). ``Choices``, ``Taxonomy``, ``Rating``,
    ``Number``, ``DateTime`` and ``TextArea`` given for regions compare the answers of matched regions.

    >>> one = [{"type": "rectanglelabels", "id": "a", "value":
    ...     {"x": 0, "y": 0, "width": 10, "height": 10, "rectanglelabels": ["Car"]}}]
    >>> other = [{"type": "rectanglelabels", "id": "b", "value":
    ...     {"x": 5, "y": 0, "width": 10, "height": 10, "rectanglelabels": ["Car"]}}]
    >>> round(similarity("RectangleLabels", one, other), 3)
    0.333

    Args:
        tag: Label Studio's name of the control tag.
        result_a: a list of Label Studio result items.
        result_b: another one of the same task.
        options: see above.

    Returns:
        From 0 to 1; 1 for two empty results, 0 where one is empty.

    Raises:
        ValueError: there is no such tag or option, or an option is out of range.
        TypeError: an option is of another type.
        BadResult: a result is not what Label Studio writes (a ``ValueError``, too).
    """
    measure = TAGS.get(tag) if isinstance(tag, str) else None
    if measure is None:
        near = difflib.get_close_matches(str(tag), TAGS, 1, 0.5)
        hint = f"; did you mean {near[0]!r}?" if near else f": there are {', '.join(sorted(TAGS))}."
        raise ValueError(f"There is no control tag {short(tag)} to compare{hint}")
    check_options(tag, measure, options)
    return float(measure(check(result_a), check(result_b), **options))
