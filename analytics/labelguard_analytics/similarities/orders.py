"""How alike two rankings are: Ranker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Literal

from labelguard_analytics.similarities.items import BadResult, Item, of_type, value_of

RankMeasure = Literal["tau", "rbo"]


def ranker(a: Sequence[Item], b: Sequence[Item], *, measure: RankMeasure = "tau", p: float = 0.9) -> float:
    """Ranker: whether items are in the same order and in the same buckets.

    ``tau``: the share of pairs of items that stand in the same relation: in one bucket, which comes first; else,
    which bucket each is in. For one bucket with the same items this is ``(1 + tau) / 2`` of Kendall (1938). An
    item that only one ranking has stands in no relation there.
    ``rbo``: rank-biased overlap, extrapolated (Webber, Moffat and Zobel 2010), which weighs the top most:
    ``p`` near 0 looks at the first item only; buckets are averaged by the number of their items.
    """
    one, other = _buckets(a), _buckets(b)
    if measure == "rbo":
        return _mean_overlap(one, other, p)
    first, second = _places(one), _places(other)
    items = sorted(first.keys() | second.keys())
    if len(items) < 2:
        return float(one == other)
    pairs = list(combinations(items, 2))
    alike = sum(_relation(first, i, j) == _relation(second, i, j) != None for i, j in pairs)  # noqa: E711
    return alike / len(pairs)


def _buckets(result: Sequence[Item]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for item in of_type(result, "ranker"):
        buckets = value_of(item).get("ranker")
        if isinstance(buckets, Sequence) and not isinstance(buckets, str):
            buckets = {"": buckets}
        if not isinstance(buckets, Mapping) or not all(isinstance(ids, Sequence) for ids in buckets.values()):
            raise BadResult("A ranker item must hold lists of item ids by bucket.")
        for bucket, ids in buckets.items():
            if ids:
                found.setdefault(str(bucket), []).extend(str(one) for one in ids)
    everything = [one for ids in found.values() for one in ids]
    if len(set(everything)) < len(everything):
        raise BadResult("A ranker item must hold every item id once.")
    return found


def _places(buckets: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, int]]:
    return {one: (bucket, place) for bucket, ids in buckets.items() for place, one in enumerate(ids)}


def _relation(places: Mapping[str, tuple[str, int]], i: str, j: str) -> tuple[str, str, bool] | None:
    if i not in places or j not in places:
        return None
    (bucket_i, place_i), (bucket_j, place_j) = places[i], places[j]
    return bucket_i, bucket_j, bucket_i == bucket_j and place_i < place_j


def _mean_overlap(one: Mapping[str, Sequence[str]], other: Mapping[str, Sequence[str]], p: float) -> float:
    names = sorted(one.keys() | other.keys())
    sizes = [len(one.get(name, ())) + len(other.get(name, ())) for name in names]
    if not sum(sizes):
        return 1.0
    found = [rank_biased_overlap(one.get(name, ()), other.get(name, ()), p) for name in names]
    return sum(size * score for size, score in zip(sizes, found, strict=True)) / sum(sizes)


def rank_biased_overlap(one: Sequence[str], other: Sequence[str], p: float = 0.9) -> float:
    """Extrapolated rank-biased overlap of two rankings without ties, of any lengths (Webber et al. 2010, eq. 32).

    >>> rank_biased_overlap("abc", "abc"), round(rank_biased_overlap("abc", "bac"), 3)
    (1.0, 0.9)
    """
    short, long = sorted((one, other), key=len)
    s, total = len(short), len(long)
    if not s:
        return float(not total)
    overlap = [0]
    seen_short: set[str] = set()
    seen_long: set[str] = set()
    for depth in range(total):
        seen_long.add(long[depth])
        if depth < s:
            seen_short.add(short[depth])
        overlap.append(len(seen_short & seen_long))
    at_s, at_end = overlap[s], overlap[total]
    score = sum(overlap[d] / d * p**d for d in range(1, total + 1))
    score += sum(at_s * (d - s) / (s * d) * p**d for d in range(s + 1, total + 1))
    score *= (1 - p) / p
    return min(1.0, score + ((at_end - at_s) / total + at_s / s) * p**total)
