"""Label Studio's labeling configuration (XML), read for what rules and policies need."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass

PATH_SEPARATOR = " / "
"""What joins the parts of a path through a Taxonomy or nested Choices."""

_DECLARATION = re.compile(r"<!\s*(DOCTYPE|ENTITY)", re.IGNORECASE)
MAX_DEPTH = 100
"""Levels of nested options that are read; paths through more would fill the memory."""

_OPTION_TAGS = frozenset({"choice", "label", "bucket"})

_NOT_CONTROLS = frozenset({"filter"})
"""Tags with ``name`` and ``toName`` that make no result: a Filter only searches through labels."""

_SELF_REFERRING = frozenset({"chat", "reactcode"})
"""Tags that show data and make results about themselves, so they have no ``toName``."""


@dataclass(frozen=True, slots=True)
class Control:
    """One control tag."""

    name: str
    tag: str
    """The tag's name as written, such as ``Choices`` or ``RectangleLabels``."""
    to_name: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    """The labels it offers, in order, as they stand in results (an alias replaces its value).

    For a Taxonomy and for nested Choices full paths joined by `` / ``; for a Ranker its buckets; empty for
    tags that offer none, such as Rating.
    """
    multiple: bool = False
    """Whether several labels may be chosen at once (in a region control: for one region)."""
    per_region: bool = False
    required: bool = False
    dynamic: bool = False
    """Whether more labels come from each task's data (``value="$options"``) or from a URL (``apiUrl``), so
    that ``labels`` is not all of them."""


@dataclass(frozen=True, slots=True)
class LabelConfig:
    """The controls of one labeling configuration."""

    controls: tuple[Control, ...] = ()
    problem: str = ""
    """Why the configuration could not be read, as a sentence; empty when it could."""

    def control(self, name: str) -> Control | None:
        """The control of that name, or None."""
        return next((control for control in self.controls if control.name == name), None)

    @classmethod
    def parse(cls, xml: str) -> LabelConfig:
        """Read a configuration; never raises and never resolves XML entities (see ``problem``)."""
        if not xml.strip():
            return cls(problem="The labeling configuration is empty.")
        if _DECLARATION.search(xml):
            # Entities can blow a small document up to gigabytes; Label Studio's own configurations have none.
            return cls(problem="The labeling configuration declares a DOCTYPE or ENTITY, which is not read.")
        try:
            root = ET.fromstring(xml)  # noqa: S314 - no DTD gets here, so there are no entities to expand
        except (ET.ParseError, ValueError, LookupError) as error:
            why = ascii(str(error))[1:-1]
            return cls(problem=f"The labeling configuration is not well-formed XML: {why}.")
        try:
            return cls(tuple(_controls(root)))
        except _TooDeepError:
            return cls(problem=f"The labeling configuration nests options more than {MAX_DEPTH} levels deep.")


class _TooDeepError(Exception):
    """Options stand inside each other too deeply."""


def _controls(root: ET.Element) -> Iterator[Control]:
    for element in root.iter():
        tag = element.tag.lower()
        name = element.get("name", "")
        to_name = tuple(part.strip() for part in element.get("toName", "").split(",") if part.strip())
        if tag in _SELF_REFERRING:
            to_name = to_name or (name,)
        if not name or not to_name or tag in _NOT_CONTROLS:
            continue
        nested = tag == "taxonomy" or _is_true(element, "allowNested")
        yield Control(
            name=name,
            tag=element.tag,
            to_name=to_name,
            labels=tuple(dict.fromkeys(_labels(element, nested=nested))),
            multiple=_takes_several(element, tag),
            per_region=_is_true(element, "perRegion"),
            required=_is_true(element, "required"),
            dynamic=_is_dynamic(element, tag),
        )


def _labels(control: ET.Element, *, nested: bool) -> Iterator[str]:
    """Labels in document order; below a nested control's options as paths. A loop, for any depth."""
    waiting = [(child, "", 1) for child in reversed(control)]
    while waiting:
        element, path, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise _TooDeepError
        if element.tag.lower() in _OPTION_TAGS:
            # A Bucket of a Ranker is known by its name, Choice and Label by alias or value.
            own = element.get("alias") or element.get("value") or element.get("name") or ""
            if own:
                label = f"{path}{PATH_SEPARATOR}{own}" if path and nested else own
                yield label
                path = label
        waiting.extend((child, path, depth + 1) for child in reversed(element))


def _takes_several(element: ET.Element, tag: str) -> bool:
    if tag == "taxonomy":
        return element.get("maxUsages", "").strip() != "1"
    return element.get("choice", "").strip().lower() == "multiple"


def _is_dynamic(element: ET.Element, tag: str) -> bool:
    if "apiUrl" in element.attrib:
        return True
    # On other tags `value` is something else: on a TextArea the text to begin with.
    offers = tag in {"choices", "taxonomy"} or tag.endswith("labels")
    return offers and element.get("value", "").strip().startswith("$")


def _is_true(element: ET.Element, attribute: str) -> bool:
    return element.get(attribute, "").strip().lower() == "true"
