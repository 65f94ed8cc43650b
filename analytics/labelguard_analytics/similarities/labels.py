"""How alike two sets of labels, two places in a hierarchy, or two sides are: Choices, Taxonomy, Pairwise."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from labelguard_analytics.similarities.items import PATH, BadResult, Item, of_type, strings, texts, value_of
from labelguard_analytics.similarities.matching import matched

SetMeasure = Literal["exact", "jaccard", "f1", "masi"]


def sets_alike(one: Collection[str], other: Collection[str], measure: str = "jaccard") -> float:
    """The similarity of two sets of labels; two empty ones are alike.

    ``exact``: 1 if equal; ``jaccard``: shared over all labels (Jaccard 1901); ``f1``: twice the shared over the
    sum of both sizes (Dice 1945); ``masi``: Jaccard times 1 for equal sets, 2/3 where one holds the other, 1/3
    where they overlap, 0 where not (Passonneau 2006).

    >>> sets_alike({"a", "b"}, {"a"}), round(sets_alike({"a", "b"}, {"a"}, "masi"), 3)
    (0.5, 0.333)
    """
    a, b = set(one), set(other)
    if a == b:
        return 1.0
    shared = len(a & b)
    if measure == "exact":
        return 0.0
    if measure == "jaccard":
        return shared / len(a | b)
    if measure == "f1":
        return 2.0 * shared / (len(a) + len(b))
    if measure == "masi":
        return shared / len(a | b) * (2 / 3 if a < b or b < a else 1 / 3)
    raise ValueError(f"measure must be exact, jaccard, f1 or masi, but it is {measure!r}.")


def set_similarity(one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_], measure: str) -> npt.NDArray[np.float64]:
    """:func:`sets_alike` for many pairs at once: arrays of pairs x labels, True where a set has the label."""
    shared = (one & other).sum(axis=-1).astype(np.float64)
    both = (one | other).sum(axis=-1).astype(np.float64)
    jaccard = np.where(both > 0, shared / np.maximum(both, 1.0), 1.0)
    if measure == "jaccard":
        return np.asarray(jaccard)
    if measure == "f1":
        return np.asarray(2.0 * jaccard / (1.0 + jaccard))
    first, second = one.sum(axis=-1), other.sum(axis=-1)
    factor = np.where(shared == both, 1.0, np.where((shared == first) | (shared == second), 2 / 3, 1 / 3))
    return np.asarray(jaccard * factor)


def choices(a: Sequence[Item], b: Sequence[Item], *, measure: SetMeasure = "jaccard") -> float:
    """Choices: the similarity of the chosen sets, which for single choices is 1 or 0; see :func:`sets_alike`."""
    return sets_alike(texts(a, "choices", "choices"), texts(b, "choices", "choices"), measure)


def pairwise(a: Sequence[Item], b: Sequence[Item]) -> float:
    """Pairwise: 1 if the same side was selected."""
    return float(_side(a) == _side(b))


def _side(result: Sequence[Item]) -> str:
    sides = [side for item in of_type(result, "pairwise") for side in strings(item, "selected")]
    if len(sides) > 1:
        raise BadResult(f"A result must select one side, but it selects {len(sides)}.")
    return sides[0] if sides else ""


TaxonomyMeasure = Literal["hierarchical-f1", "jaccard", "path", "exact"]


def taxonomy(a: Sequence[Item], b: Sequence[Item], *, measure: TaxonomyMeasure = "hierarchical-f1") -> float:
    """Taxonomy: how much of the chosen paths is shared; all ancestors count.

    ``hierarchical-f1``: F1 of the sets of nodes with their ancestors (Kiritchenko, Matwin, Nock and Famili 2006);
    ``jaccard``: Jaccard of the same sets; ``path``: paths are matched optimally, and a pair counts by its common
    beginning over the longer path; ``exact``: 1 if the chosen paths are equal.
    """
    one, other = _paths(a), _paths(b)
    if measure == "exact":
        return float(set(one) == set(other))
    if measure == "path":
        return matched([[_common(p, q) for q in other] for p in one], len(one), len(other))
    return sets_alike(_nodes(one), _nodes(other), "f1" if measure == "hierarchical-f1" else "jaccard")


def _paths(result: Sequence[Item]) -> list[tuple[str, ...]]:
    found: dict[tuple[str, ...], None] = {}
    for item in of_type(result, "taxonomy"):
        raw: Any = value_of(item).get("taxonomy")
        flat = isinstance(raw, Sequence) and not isinstance(raw, str) and all(isinstance(step, str) for step in raw)
        # A single path is sometimes written without its outer list.
        paths = [PATH.join(raw)] if flat and raw else strings(item, "taxonomy")
        found.update((tuple(path.split(PATH)), None) for path in paths)
    return list(found)


def _nodes(paths: Sequence[tuple[str, ...]]) -> set[str]:
    return {PATH.join(path[: depth + 1]) for path in paths for depth in range(len(path))}


def _common(one: tuple[str, ...], other: tuple[str, ...]) -> float:
    shared = 0
    for p, q in zip(one, other, strict=False):
        if p != q:
            break
        shared += 1
    return shared / max(len(one), len(other))
