"""Consensus of regions: which boxes, spans or polygons several annotators mean, and which one stands for them."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from labelguard_analytics.frames import Coded, read
from labelguard_analytics.options import check_number
from labelguard_analytics.similarities import TAGS, similarity
from labelguard_analytics.similarities.options import parameters

_COLUMNS = ["task", "region", "label", "votes", "asked", "support", "similarity", "annotators", "item"]


def consensus_regions(
    judgments: pd.DataFrame | Coded, tag: str, *, threshold: float = 0.5, least: float = 0.5, **options: Any
) -> pd.DataFrame:
    """Group the regions of a task that are alike, at most one of each annotator, and keep those that enough drew.

    Pairs of regions of different annotators are joined from the most alike on, as long as the mean similarity
    between the groups is at least ``threshold``; of two groups with a region of the same annotator each, none is
    joined. A group stands for a region where at least the share ``least`` of the task's annotators has one in it.
    Its place is that of the region most like the others of its group, its label the one most of them give.

    >>> def box(x, label):
    ...     value = {"x": x, "y": 10, "width": 20, "height": 20, "rotation": 0, "rectanglelabels": [label]}
    ...     return {"from_name": "b", "to_name": "i", "type": "rectanglelabels", "value": value}
    >>> frame = pd.DataFrame({"task": [1, 1, 1], "annotator": ["a", "b", "c"]})
    >>> frame["value"] = [[box(10, "cat"), box(70, "dog")], [box(11, "cat")], [box(12, "dog")]]
    >>> found = consensus_regions(frame, "RectangleLabels")
    >>> found[["label", "votes", "asked"]].to_numpy().tolist()
    [['cat', 3, 3]]

    Args:
        judgments: ``value`` holds lists of Label Studio result items, one for each region.
        tag: Label Studio's tag name, as for :func:`similarity`.
        threshold: the least mean similarity of regions that mean the same.
        least: the least share of the task's annotators.
        options: for :func:`similarity`; ``labels`` is ``"ignore"`` unless given, so that places are grouped and labels
            voted on.

    Returns:
        A row for each region: ``task``, ``region`` (number), ``label``, ``votes`` of ``asked`` annotators, ``support``
        (their share), ``similarity`` (mean within the group; 1 for a single region), ``annotators`` and ``item``.

    Raises:
        BadJudgments: the frame is not what it must be.
        ValueError: a share is not from 0 to 1, or there is no such tag or option.
    """
    check_number("threshold", threshold, above=0, most=1)
    check_number("least", least, 0, 1)
    options = {"labels": "ignore", **options}
    if isinstance(tag, str) and tag in TAGS and "labels" not in parameters(TAGS[tag]):
        raise ValueError(f"{tag} marks no regions, so there is no consensus of them.")
    similarity(tag, [], [], **options)  # refuses what it does not know
    coded = read(judgments, kind="result", least=1, repeats=True)
    order = np.argsort(coded.task, kind="stable")
    bounds = np.concatenate([[0], np.cumsum(coded.sizes)])
    rows: list[tuple[Any, ...]] = []
    for task in range(len(coded.tasks)):
        mine = order[bounds[task] : bounds[task + 1]]
        drawn = [(int(coded.annotator[row]), item) for row in mine for item in coded.value[row]]
        asked = len(set(coded.annotator[mine].tolist()))
        alike = _similarities(drawn, tag, options)
        kept = [group for group in _groups(drawn, alike, threshold) if len(group) >= max(least * asked, 1)]
        for number, group in enumerate(kept):
            inner = alike[np.ix_(group, group)]
            centre = group[int(inner.sum(axis=1).argmax())]
            pairs = len(group) * (len(group) - 1)
            rows.append(
                (
                    coded.tasks[task],
                    number,
                    _label([drawn[one][1] for one in group]),
                    len(group),
                    asked,
                    len(group) / asked,
                    float(inner.sum() / pairs) if pairs else 1.0,
                    [coded.annotators[drawn[one][0]] for one in group],
                    drawn[centre][1],
                )
            )
    return pd.DataFrame(rows, columns=_COLUMNS)


def _similarities(drawn: list[tuple[int, Any]], tag: str, options: dict[str, Any]) -> np.ndarray[Any, Any]:
    alike = np.zeros((len(drawn), len(drawn)))
    for one, other in combinations(range(len(drawn)), 2):
        if drawn[one][0] != drawn[other][0]:
            alike[one, other] = alike[other, one] = similarity(tag, [drawn[one][1]], [drawn[other][1]], **options)
    return alike


def _groups(drawn: list[tuple[int, Any]], alike: np.ndarray[Any, Any], threshold: float) -> list[list[int]]:
    """Average linkage with at most one region of each annotator in a group; larger groups first."""
    groups = [[one] for one in range(len(drawn))]
    while True:
        best, pair = threshold, None
        for one, other in combinations(range(len(groups)), 2):
            people = {drawn[region][0] for region in groups[one]} & {drawn[region][0] for region in groups[other]}
            mean = 0.0 if people else float(alike[np.ix_(groups[one], groups[other])].mean())
            if mean >= best and (pair is None or mean > best):
                best, pair = mean, (one, other)
        if pair is None:
            return sorted(groups, key=lambda group: (-len(group), group[0]))
        groups[pair[0]] = groups[pair[0]] + groups[pair[1]]
        del groups[pair[1]]


def _label(items: list[Any]) -> str:
    """The label most items give, the first in sorted order among equals; empty where they have none."""
    votes: Counter[str] = Counter()
    for item in items:
        value = item.get("value", {})
        for key, labels in value.items():
            if key.endswith("labels") and isinstance(labels, list):
                votes.update(map(str, labels))
    return min(votes, key=lambda label: (-votes[label], label)) if votes else ""
