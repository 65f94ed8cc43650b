"""YAML as people write it, with the line of every value and without YAML's surprises.

Only plain data: no tags, no aliases (an "alias bomb" of a few lines fills the memory), no repeated keys.
Words are read as YAML 1.2's core schema reads them (https://yaml.org/spec/1.2.2/#103-core-schema): labels
named ``yes``, ``no``, ``on`` or ``2024-01-01`` stay text, which PyYAML's YAML 1.1 would not leave them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from labelguard.wording import quoted

LARGEST = 200_000
"""Characters; a file written by a person is far below."""

Path = tuple[str | int, ...]
"""Where a value stands: keys and list positions from the top."""

_TAG = "tag:yaml.org,2002:"
_KINDS = frozenset({"str", "bool", "int", "float", "null", "seq", "map"})
# Deliberately narrow: 007, 1_000 and 12:30 are text, so that a whole number is always written back the same.
_RESOLVERS = (
    ("bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), "tTfF"),
    ("int", re.compile(r"^[-+]?(?:0|[1-9][0-9]*)$"), "-+0123456789"),
    (
        "float",
        re.compile(
            r"^(?:[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
            r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
        ),
        "-+.0123456789",
    ),
    ("null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
)


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a file."""

    where: str
    """File and line: ``policy.yaml, line 12``."""
    key: str
    """The key it is about, such as ``rules[0].mode``; empty for the file as a whole."""
    message: str
    """A sentence with the value found and the likely fix."""

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"


@dataclass(slots=True)
class Document:
    """A file's data with the line of each key, and what was wrong with it as YAML."""

    where: str
    data: Any = None
    problems: list[Problem] = field(default_factory=list)
    lines: dict[Path, int] = field(default_factory=dict)

    def at(self, path: Path) -> str:
        """``policy.yaml, line 12`` for a value, or for the nearest thing around it that has a line."""
        for length in range(len(path), -1, -1):
            line = self.lines.get(path[:length])
            if line is not None:
                return f"{self.where}, line {line}"
        return self.where

    def add(self, path: Path, message: str) -> None:
        """Note a mistake at a path, once."""
        problem = Problem(self.at(path), written(path), message)
        if problem not in self.problems:
            self.problems.append(problem)

    def in_order(self) -> list[Problem]:
        """The mistakes in the file's order."""
        return sorted(self.problems, key=lambda p: int((re.findall(r", line (\d+)$", p.where) or [0])[0]))


class _Alias(yaml.MarkedYAMLError):
    """The file uses an alias."""


class _Loader(yaml.SafeLoader):
    """Composes nodes with the words of YAML 1.2, refusing aliases."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own attribute

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event: Any = self.peek_event()  # type: ignore[no-untyped-call]
            raise _Alias(problem_mark=event.start_mark)
        return super().compose_node(parent, index)


class _Dumper(yaml.SafeDumper):
    """Quotes exactly what :class:`_Loader` would not read back as text."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own attribute

    def ignore_aliases(self, data: Any) -> bool:
        return True


for _name, _pattern, _first in _RESOLVERS:
    _Loader.add_implicit_resolver(_TAG + _name, _pattern, list(_first))
    _Dumper.add_implicit_resolver(_TAG + _name, _pattern, list(_first))


def written(path: Path) -> str:
    """A path as a person writes it: ``rules[0].mode``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def read_yaml(text: str, where: str) -> Document:
    """Read a file; never raises: what is wrong with it as YAML is in ``problems``."""
    document = Document(where)
    if len(text) > LARGEST:
        document.add((), f"The file has {len(text):,} characters, and at most {LARGEST:,} are read.")
        return document
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is not None:
            document.data = _plain(node, (), document)
    except RecursionError:
        document.add((), "The lists and keys are nested too deeply.")
    except _Alias as error:
        _note(document, error, "Anchors and aliases (& and *) are not read here; write the value out again.")
    except yaml.MarkedYAMLError as error:
        _note(document, error, f"This is not YAML: {_said(error)}.")
    except yaml.YAMLError as error:
        document.add((), f"This is not YAML: {str(error).splitlines()[0]}.")
    finally:
        if loader is not None:
            loader.dispose()
    return document


def write_yaml(data: Any) -> str:
    """Plain data as YAML that :func:`read_yaml` reads back unchanged."""
    return str(yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100))


def _note(document: Document, error: yaml.MarkedYAMLError, message: str) -> None:
    mark = error.problem_mark or error.context_mark
    where = f"{document.where}, line {mark.line + 1}" if mark else document.where
    document.problems.append(Problem(where, "", message))


def _said(error: yaml.MarkedYAMLError) -> str:
    return ", ".join(part for part in (error.context, error.problem) if part)


def _plain(node: yaml.Node, path: Path, document: Document) -> Any:
    document.lines.setdefault(path, node.start_mark.line + 1)
    # Only an explicit tag can be anything else: the resolvers above know no others.
    if not node.tag.startswith(_TAG) or node.tag[len(_TAG) :] not in _KINDS:
        tag = node.tag.replace(_TAG, "!!")
        document.add(path, f"YAML tags such as {tag} are not read here; write plain values.")
        return None
    if isinstance(node, yaml.MappingNode):
        return dict(_pairs(node, path, document))
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, (*path, i), document) for i, item in enumerate(node.value)]
    try:
        return _scalar(node.tag[len(_TAG) :], node.value)
    except ValueError:  # an explicit !!int before a word, or a number of thousands of digits
        document.add(path, f"{quoted(node.value)} is not a number that can be read.")
        return None


def _pairs(node: yaml.MappingNode, path: Path, document: Document) -> Iterator[tuple[str, Any]]:
    seen: dict[str, int] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            where = f"{document.where}, line {line}"
            document.problems.append(Problem(where, written(path), "A key must be one word or text."))
            continue
        # Keys are names, also where they look like numbers: the labels of a digit project are 0 to 9.
        key = key_node.value
        here = (*path, key)
        if key in seen:
            document.problems.append(
                Problem(
                    f"{document.where}, line {line}",
                    written(here),
                    f"`{written(here)}` is written twice, first in line {seen[key]}; keep one of them.",
                )
            )
            continue
        seen[key] = line
        document.lines[here] = line
        yield key, _plain(value_node, here, document)


def _scalar(kind: str, text: str) -> Any:
    if kind == "bool":
        return text.lower() == "true"
    if kind == "null":
        return None
    if kind == "int":
        return int(text)
    if kind == "float":
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text
