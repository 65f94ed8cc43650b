"""Reading Label Studio result items."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import pandas as pd

from labelguard_analytics.options import short

Item: TypeAlias = Mapping[str, Any]

LARGEST = 1e100
"""Numbers beyond it are refused: their squares are none."""
PATH = " / "
"""Joins the parts of a path of a taxonomy or of nested choices."""


class BadResult(ValueError):
    """A result is not what Label Studio writes for its tag, as one sentence."""


def check(result: Any) -> list[Item]:
    """The items of a result.

    Raises:
        BadResult: it is no list of objects with a type.
    """
    if isinstance(result, Mapping) or not isinstance(result, Sequence) or isinstance(result, str):
        raise BadResult(f"A result must be a list of Label Studio result items, not a {type(result).__name__}.")
    for number, item in enumerate(result):
        if not isinstance(item, Mapping) or not isinstance(item.get("type"), str):
            raise BadResult(f"Item {number} of a result must be an object with a type, but it is {short(item)}.")
        for key in ("id", "to_name", "item_index"):
            if not isinstance(item.get(key), (str, int, type(None))):
                raise BadResult(
                    f"{an(item)} item must have a text or a whole number as its {key!r}, but it is {short(item[key])}."
                )
    return list(result)


def an(item: Item) -> str:
    """The type of an item with its article, as errors begin."""
    return f"{'An' if item['type'][:1] in 'aeiou' else 'A'} {item['type']}"


def value_of(item: Item) -> Mapping[str, Any]:
    """An item's value.

    Raises:
        BadResult: it has none.
    """
    value = item.get("value")
    if not isinstance(value, Mapping):
        raise BadResult(f"{an(item)} item must have an object as its value, but it is {short(value)}.")
    return value


def of_type(result: Sequence[Item], *kinds: str) -> Iterator[Item]:
    """The items of some types, in their order."""
    return (item for item in result if item["type"] in kinds)


def number(item: Item, key: str, default: float | None = None) -> float:
    """A finite number of an item's value.

    Raises:
        BadResult: it is missing, no finite number or beyond :data:`LARGEST`.
    """
    return finite(item, key, value_of(item).get(key, default))


def finite(item: Item, key: str, found: Any) -> float:
    """A finite number that was found under a key of an item.

    Raises:
        BadResult: it is no finite number or beyond :data:`LARGEST`.
    """
    try:
        read = math.nan if isinstance(found, bool) else float(found)
    except (TypeError, ValueError, OverflowError):
        read = math.nan
    if not abs(read) <= LARGEST:
        raise BadResult(
            f"{an(item)} item must have a finite number as its {key!r} (up to {LARGEST:g}), but it is {short(found)}."
        )
    return read


def moment(text: str) -> pd.Timestamp | None:
    """A date or time as it is written; None where it is none."""
    try:
        found = pd.Timestamp(text)
    except ValueError:
        return None
    return None if pd.isna(found) else found


def strings(item: Item, key: str) -> list[str]:
    """A list of texts of an item's value; nested lists are paths, joined.

    Raises:
        BadResult: it is no such list.
    """
    found = value_of(item).get(key)
    if isinstance(found, str):
        return [found]
    if not isinstance(found, Sequence):
        raise BadResult(f"{an(item)} item must have a list as its {key!r}, but it is {short(found)}.")
    read = []
    for part in found:
        path = [part] if isinstance(part, str) else part
        if not isinstance(path, Sequence) or not all(isinstance(step, str) for step in path):
            raise BadResult(f"{an(item)} item must have texts in its {key!r}, but it has {short(part)}.")
        read.append(PATH.join(path))
    return read


def texts(result: Sequence[Item], kind: str, key: str) -> list[str]:
    """The texts of all items of a type."""
    return [text for item in of_type(result, kind) for text in strings(item, key)]
