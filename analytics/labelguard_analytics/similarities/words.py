"""How alike two texts are: TextArea."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal

from rapidfuzz.distance import Levenshtein

from labelguard_analytics.similarities.items import Item, texts
from labelguard_analytics.similarities.matching import matched

TextMeasure = Literal["characters", "words", "chrf", "exact"]


def text_area(
    a: Sequence[Item], b: Sequence[Item], *, measure: TextMeasure = "characters", ignore_case: bool = False
) -> float:
    """TextArea: the similarity of the texts; several texts are matched optimally.

    ``characters``: 1 minus the edit distance over the length of the longer text (Levenshtein 1966); ``words``: the
    same counted in words, which is 1 minus a word error rate made symmetric; ``chrf``: F1 of character n-grams up to
    6, spaces left out (Popovic 2015, with precision and recall weighed alike, so that it is symmetric); ``exact``.
    White space at the ends and repeated inside does not count.
    """
    compare = _MEASURES[measure]
    one, other = (_normal(texts(result, "textarea", "text"), ignore_case) for result in (a, b))
    return matched([[compare(p, q) for q in other] for p in one], len(one), len(other))


def _normal(found: Sequence[str], ignore_case: bool) -> list[str]:
    tidy = [" ".join(text.split()) for text in found]
    return [text.casefold() for text in tidy] if ignore_case else tidy


def _words(one: str, other: str) -> float:
    return Levenshtein.normalized_similarity(one.split(), other.split())


def chrf(one: str, other: str, longest: int = 6) -> float:
    """F1 of character n-grams, averaged over n from 1 to ``longest`` where either text has any.

    >>> chrf("a cat", "a cat"), round(chrf("a cat", "a car"), 2)
    (1.0, 0.48)
    """
    a, b = one.replace(" ", ""), other.replace(" ", "")
    if not a or not b:
        return float(a == b)
    scores = []
    for n in range(1, min(longest, max(len(a), len(b))) + 1):
        first = Counter(a[i : i + n] for i in range(len(a) - n + 1))
        second = Counter(b[i : i + n] for i in range(len(b) - n + 1))
        scores.append(2.0 * (first & second).total() / (first.total() + second.total()))
    return sum(scores) / len(scores)


_MEASURES: dict[str, Callable[[str, str], float]] = {
    "characters": Levenshtein.normalized_similarity,
    "words": _words,
    "chrf": chrf,
    "exact": lambda one, other: float(one == other),
}
