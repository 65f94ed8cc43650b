"""Judgments: what one annotation says for one control tag, the unit of all statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from labelguard.events import ResultItem
from labelguard.labelconfig import PATH_SEPARATOR

RAW = "raw"
"""The ``kind`` of judgments made of items whose shape is broken; their value is the items as they came."""


@dataclass(frozen=True, slots=True)
class Judgment:
    """What an annotation says for one control tag.

    ``value`` by ``kind`` (Label Studio's result ``type``): ``choices`` and ``taxonomy`` a tuple of labels
    (a taxonomy path joined by `` / ``), ``rating``, ``number`` a float, ``datetime`` an ISO string,
    ``textarea`` a tuple of texts, ``pairwise`` ``"left"`` or ``"right"``, ``ranker`` a mapping of bucket to
    a tuple of item ids; for regions, relations, tags labelguard does not know and ``raw`` (broken items) a
    tuple of the raw result items.
    """

    control: str
    """The control tag's name (``from_name``); empty for relations, which belong to none."""
    kind: str
    """Label Studio's result ``type``, or ``raw`` where an item is not what its type promises."""
    value: Any
    labels: tuple[str, ...] = ()
    """Every label used, sorted, without repeats: choices, taxonomy paths, region labels, a rating as text,
    the side of a pairwise comparison."""
    region: str = ""
    """The region's id for a judgment made per region, ``item:<index>`` for one made per item of a list of
    images; empty for one about the whole task."""

    def value_json(self) -> Any:
        """The value as JSON knows it, with lists for tuples; :meth:`from_row` reads it back."""
        if self.kind == "ranker":
            return {bucket: list(items) for bucket, items in self.value.items()}
        return list(self.value) if isinstance(self.value, tuple) else self.value

    @classmethod
    def from_row(cls, control: str, kind: str, region: str, value: Any, labels: Sequence[str]) -> Judgment:
        """The judgment that gave this :meth:`value_json`, after a way through JSON."""
        if kind == "ranker":
            value = {bucket: tuple(items) for bucket, items in value.items()}
        elif kind in {"rating", "number"}:
            value = float(value)
        elif kind not in {"datetime", "pairwise"}:
            value = tuple(value)
        return cls(control, kind, value, tuple(labels), region)


def to_json(judgment: Judgment) -> dict[str, Any]:
    """A judgment as a JSON object."""
    return {
        "control": judgment.control,
        "kind": judgment.kind,
        "region": judgment.region,
        "value": judgment.value_json(),
        "labels": list(judgment.labels),
    }


def from_json(row: Mapping[str, Any]) -> Judgment:
    """The judgment that :func:`to_json` wrote."""
    return Judgment.from_row(row["control"], row["kind"], row["region"], row["value"], row["labels"])


def judgments_of(result: Iterable[ResultItem]) -> tuple[Judgment, ...]:
    """Read a result into judgments, one for each control (and region, for per-region controls).

    A classification (choices, rating, text, ...) is per region when it shares its id with a region of the
    same result or carries a region's geometry beside its own value, which is how Label Studio writes it.
    All regions of one control make one judgment. Judgments come in the order in which their controls first
    appear.

    Never raises: a result item of an unknown or broken shape becomes a judgment whose value is the raw
    item, so that nothing is lost and nothing is guessed.
    """
    items = list(result)
    regions = {item["id"] for item in items if _is_region(item)}
    groups: dict[tuple[str, str, str], list[Any]] = {}
    for item in items:
        groups.setdefault(_place(item, regions), []).append(item)
    return tuple(_judgment(*place, members) for place, members in groups.items())


def _place(item: Any, regions: set[str]) -> tuple[str, str, str]:
    """What an item is grouped by: control, kind and region."""
    if not isinstance(item, dict):
        return "", RAW, ""
    control, kind = item.get("from_name"), item.get("type")
    if kind == "relation":
        return "", kind, ""
    if not isinstance(control, str) or not isinstance(kind, str):
        return control if isinstance(control, str) else "", RAW, ""
    if kind not in _READERS:
        return control, kind, ""
    own, value = item.get("id"), item.get("value")
    on_region = own in regions if isinstance(own, str) else False
    if isinstance(own, str) and (on_region or (isinstance(value, dict) and not _GEOMETRY.isdisjoint(value))):
        return control, kind, own
    index = item.get("item_index")
    if isinstance(index, int) and not isinstance(index, bool):
        return control, kind, f"item:{index}"
    return control, kind, ""


def _judgment(control: str, kind: str, region: str, items: list[Any]) -> Judgment:
    reader = _READERS.get(kind)
    if reader is None:
        labels = {label for item in items for label in _labels_of(item, kind)} if kind != RAW else set()
        return Judgment(control, kind, tuple(items), tuple(sorted(labels)), region)
    key, read, merges = reader
    try:
        values = [read(item["value"][key]) for item in items]
    except (KeyError, TypeError, OverflowError, _BrokenError):
        return Judgment(control, RAW, tuple(items), (), region)
    if merges:
        value = tuple(part for read_value in values for part in read_value)
        if kind != "textarea":
            value = tuple(dict.fromkeys(value))
    elif len(values) == 1:
        value = values[0]
    else:
        # Two answers where Label Studio's editor leaves room for one: neither is more right.
        return Judgment(control, RAW, tuple(items), (), region)
    return Judgment(control, kind, value, _used(kind, value), region)


class _BrokenError(Exception):
    """A value that is not what its item's type promises."""


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise _BrokenError
    return tuple(value)


def _text_or_texts(value: Any) -> tuple[str, ...]:
    # Regions of a picture with a transcription carry a bare text, everything else a list.
    return (value,) if isinstance(value, str) else _texts(value)


def _choices(value: Any) -> tuple[str, ...]:
    # With `allowNested` each choice is a path, as in a taxonomy.
    if not isinstance(value, list):
        raise _BrokenError
    return tuple(choice if isinstance(choice, str) else _path(choice) for choice in value)


def _paths(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise _BrokenError
    return tuple(_path(path) for path in value)


def _path(value: Any) -> str:
    return PATH_SEPARATOR.join(_texts(value))


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _BrokenError
    return float(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise _BrokenError
    return value


def _side(value: Any) -> str:
    if value not in ("left", "right"):
        raise _BrokenError
    return str(value)


def _buckets(value: Any) -> dict[str, tuple[str, ...]]:
    if not isinstance(value, dict):
        raise _BrokenError
    return {bucket: _texts(items) for bucket, items in value.items()}


_READERS: dict[str, tuple[str, Callable[[Any], Any], bool]] = {
    "choices": ("choices", _choices, True),
    "taxonomy": ("taxonomy", _paths, True),
    "textarea": ("text", _text_or_texts, True),
    "rating": ("rating", _number, False),
    "number": ("number", _number, False),
    "datetime": ("datetime", _text, False),
    "pairwise": ("selected", _side, False),
    "ranker": ("ranker", _buckets, False),
}
"""For each kind: the key of ``value``, how to read it, and whether several items of a control add up."""

_GEOMETRY = frozenset(
    {"x", "y", "width", "height", "radiusX", "points", "vertices", "rle", "imageDataURL"}
    | {"start", "end", "startOffset", "endOffset", "globalOffsets", "channel", "ranges", "sequence"}
)
"""Keys of ``value`` that only regions have."""


def _is_region(item: Any) -> bool:
    return (
        isinstance(item, dict)
        and isinstance(item.get("id"), str)
        and isinstance(item.get("type"), str)
        and item["type"] not in _READERS
        and item["type"] != "relation"
    )


def _labels_of(item: Any, kind: str) -> tuple[str, ...]:
    """The labels of a region (under its own type, for a video rectangle under ``labels``) or relation."""
    holder = item if kind == "relation" else item.get("value")
    if not isinstance(holder, dict):
        return ()
    found = holder.get(kind, holder.get("labels"))
    if not isinstance(found, list) or not all(isinstance(label, str) for label in found):
        return ()
    return tuple(found)


def _used(kind: str, value: Any) -> tuple[str, ...]:
    if kind in {"choices", "taxonomy"}:
        return tuple(sorted(value))
    if kind == "rating":
        return (f"{value:g}",)
    return (value,) if kind == "pairwise" else ()
