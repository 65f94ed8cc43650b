"""What commands print: JSON for programs on stdout, tables for people, sentences about trouble on stderr."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
ProjectOption = Annotated[int, typer.Option("--project", "-p", help="The Label Studio project's id.", min=1)]
AnyProject = Annotated[int | None, typer.Option("--project", "-p", help="Only this Label Studio project.", min=1)]


class Failed(Exception):
    """The command cannot do what was asked; the message is a sentence."""


def say(sentence: str) -> None:
    """Tell the person at the terminal, beside what is printed for programs."""
    typer.echo("\n".join(_printable(line) for line in sentence.split("\n")), err=True)


def plain(value: Any) -> Any:
    """A value as JSON has it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(v) for v in value]
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Path):
        return str(value)
    return value


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    typer.echo(json.dumps(plain(value), ensure_ascii=False, indent=2))


def print_rows(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], empty: str) -> None:
    """Print rows as a table: ``columns`` are the headings by key; ``empty`` is said when there are none."""
    if not rows:
        typer.echo(empty)
        return
    cells = [list(columns.values())]
    cells += [[_cell(row.get(key)) for key in columns] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    for line in cells:
        text = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        typer.echo(text.rstrip())


def print_pairs(values: Mapping[str, Any]) -> None:
    """Print names with their values, one a line."""
    width = max((len(name) for name in values), default=0)
    for name, value in values.items():
        typer.echo(f"{name.ljust(width)}  {_cell(plain(value))}".rstrip())


def read_text(file: Path) -> str:
    """A file's text, or standard input where it is ``-``."""
    if str(file) == "-":
        return sys.stdin.read()
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise Failed(f"{file} is not UTF-8 text.") from error


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    if isinstance(value, (dict, list, tuple)):
        return json.dumps(plain(value), ensure_ascii=False)
    return _printable(str(value))


def _printable(text: str) -> str:
    # What is written by annotators may hold control characters, which a terminal would obey.
    return "".join(c if c.isprintable() else " " for c in text)
