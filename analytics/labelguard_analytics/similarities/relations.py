"""How alike the relations between regions are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from labelguard_analytics.similarities.items import BadResult, Item, of_type, strings
from labelguard_analytics.similarities.labels import sets_alike
from labelguard_analytics.similarities.matching import best_pairs, matched
from labelguard_analytics.similarities.regions import LabelUse, geometry, labels_alike, regions_of

_DIRECTIONS = ("right", "left", "bi")


def relations(a: Sequence[Item], b: Sequence[Item], *, least: float = 0.5, labels: LabelUse = "jaccard") -> float:
    """Relations: F1 of the edges, after the regions of both results were matched optimally.

    An edge is found again where both its ends are, in the same direction; it counts the similarity of the labels.

    Args:
        a: a result with its regions and relations.
        b: another result of the same task.
        least: regions less alike than this (places times labels) are not the same region.
        labels: how the labels of regions and relations compare; ``ignore`` leaves them out.
    """
    one, other = regions_of(a), regions_of(b)
    table = geometry(one, other) * labels_alike(one, other, labels)
    same = {one[i].id: other[j].id for i, j in best_pairs(table, least).items()}
    if not one and not other:
        # Relations alone: regions can only be the same where their ids are.
        same = {end: end for item in of_type(a, "relation") for end in _ends(item)[0]}
    edges, wanted = ([_edge(item) for item in of_type(side, "relation")] for side in (a, b))
    scores = np.zeros((len(edges), len(wanted)))
    for i, (start, end, both_ways, names) in enumerate(edges):
        mapped = same.get(start), same.get(end)
        for j, (start_too, end_too, both_ways_too, names_too) in enumerate(wanted):
            found = mapped == (start_too, end_too) or (both_ways and mapped == (end_too, start_too))
            if found and both_ways == both_ways_too:
                scores[i, j] = 1.0 if labels == "ignore" else sets_alike(names, names_too, labels)
    return matched(scores, len(edges), len(wanted))


def _ends(item: Item) -> tuple[tuple[str, str], str]:
    ends = item.get("from_id"), item.get("to_id")
    direction = "right" if item.get("direction") is None else item["direction"]
    if not all(isinstance(one, str) for one in (*ends, direction)) or direction not in _DIRECTIONS:
        raise BadResult("A relation must have a from_id, a to_id and a direction of right, left or bi.")
    return (str(ends[0]), str(ends[1])), direction


def _edge(item: Item) -> tuple[str, str, bool, frozenset[str]]:
    (start, end), direction = _ends(item)
    if direction == "left":
        start, end = end, start
    names = strings({**item, "value": item}, "labels") if item.get("labels") is not None else ()
    return start, end, direction == "bi", frozenset(names)
