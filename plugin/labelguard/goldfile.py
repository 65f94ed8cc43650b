"""Answers for the gold vault, read from a file that a person wrote or exported.

Three shapes, each line or item one answer: ``{"task": 7, "result": [...]}`` (Label Studio's result, as an
annotation has it), ``{"task": 7, "control": "digit", "value": "1"}``, and the tasks of Label Studio's JSON
export, of which the annotations marked as ground truth are taken. A CSV file has the columns ``task``,
``control`` and ``value``, where several labels are separated by ``;``.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from labelguard.labelconfig import LabelConfig
from labelguard.wording import instead, listed, quoted

# https://labelstud.io/guide/export: which key of `value` holds what a tag of this kind says.
_NUMBERS = {"Rating": ("rating", int), "Number": ("number", float)}
_TEXTS = {"TextArea": "textarea", "DateTime": "datetime", "Pairwise": "pairwise"}


class BadGold(ValueError):
    """Answers that cannot be used; the message has every mistake, one a line."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(problems))


class _Mistake(Exception):
    """What is wrong with one answer, as a sentence."""


@dataclass(slots=True)
class Answer:
    """What the right result of a task is."""

    task: int
    result: list[dict[str, Any]] = field(default_factory=list)


def read_gold(text: str, where: str, config: LabelConfig | None = None) -> list[Answer]:
    """Read answers, in the file's order; several controls of one task become one answer.

    With the project's ``config``, controls and labels that it does not have are mistakes, and a value is
    read as its control says; without, values are read as choices.

    Raises:
        BadGold: with every mistake, each with its line (or item).
    """
    problems: list[str] = []
    answers: dict[int, Answer] = {}
    for place, item in _items(text, where, problems):
        try:
            for answer in _answers(item, config):
                merged = answers.setdefault(answer.task, Answer(answer.task))
                _merge(merged, answer)
        except _Mistake as error:
            problems.append(f"{place}: {error}")
    if problems:
        raise BadGold(problems)
    return list(answers.values())


def _items(text: str, where: str, problems: list[str]) -> Iterator[tuple[str, Any]]:
    text = text.removeprefix("\ufeff")
    if where.casefold().endswith(".csv"):
        yield from _csv_rows(text, where, problems)
        return
    if text.lstrip().startswith("["):
        try:
            items = json.loads(text)
        except ValueError as error:
            problems.append(f"{where}: This is not JSON: {error}.")
            return
        yield from ((f"{where}, item {i}", item) for i, item in enumerate(items, start=1))
        return
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            yield f"{where}, line {number}", json.loads(line)
        except ValueError as error:
            problems.append(f"{where}, line {number}: This is not JSON: {error}.")


def _csv_rows(text: str, where: str, problems: list[str]) -> Iterator[tuple[str, Any]]:
    rows = csv.DictReader(io.StringIO(text, newline=""))
    missing = {"task", "control", "value"} - set(rows.fieldnames or ())
    if missing:
        names = listed(sorted(missing), "and")
        problems.append(f"{where}, line 1: The columns task, control and value are needed, but there is no {names}.")
        return
    for row in rows:
        place = f"{where}, line {rows.line_num}"
        labels = [part.strip() for part in (row["value"] or "").split(";")]
        value: Any = labels if len(labels) > 1 else labels[0]
        task = (row["task"] or "").strip()
        yield (
            place,
            {"task": int(task) if task.isdecimal() else task, "control": row["control"], "value": value},
        )


def _answers(item: Any, config: LabelConfig | None) -> Iterator[Answer]:
    if not isinstance(item, Mapping):
        raise _Mistake(f"An answer is an object with `task` and `result`, not {quoted(item)}.")
    if "annotations" in item and "task" not in item:
        yield from _exported(item)
        return
    task = item.get("task")
    if not isinstance(task, int) or isinstance(task, bool) or task < 1:
        raise _Mistake(f"`task` must be a task's id, not {quoted(task)}.")
    if "result" in item:
        yield Answer(task, _result(item["result"], config))
    elif "control" in item and "value" in item:
        yield Answer(task, [_from_value(item["control"], item["value"], config)])
    else:
        raise _Mistake("An answer has `result`, or `control` and `value`.")


def _exported(item: Mapping[str, Any]) -> Iterator[Answer]:
    task = item.get("id")
    if not isinstance(task, int) or not isinstance(item["annotations"], list):
        raise _Mistake("A task of an export has an `id` and a list of `annotations`.")
    for annotation in item["annotations"]:
        if isinstance(annotation, Mapping) and annotation.get("ground_truth") is True:
            yield Answer(task, _result(annotation.get("result"), None))


def _result(result: Any, config: LabelConfig | None) -> list[dict[str, Any]]:
    if not isinstance(result, list) or not result:
        raise _Mistake(f"`result` must be a list with at least one item, not {quoted(result)}.")
    for item in result:
        if not isinstance(item, dict) or not isinstance(item.get("value"), dict) or "type" not in item:
            raise _Mistake("Each item of `result` needs `from_name`, `type` and `value`.")
        _known_control(item.get("from_name"), config)
    return result


def _from_value(control: Any, value: Any, config: LabelConfig | None) -> dict[str, Any]:
    _known_control(control, config)
    known = config.control(control) if config else None
    tag = known.tag if known else "Choices"
    to_name = known.to_name[0] if known and known.to_name else ""
    if tag in _NUMBERS:
        kind, number = _NUMBERS[tag]
        try:
            inner: Any = number(value)
        except (TypeError, ValueError):
            raise _Mistake(f"`value` for {control} must be a number, not {quoted(value)}.") from None
    elif tag in _TEXTS:
        kind = _TEXTS[tag]
        inner = [str(value)] if kind == "textarea" else str(value)
    elif tag in {"Choices", "Taxonomy"}:
        kind = tag.lower()
        labels = [str(label) for label in (value if isinstance(value, list) else [value])]
        for label in labels:
            if known and known.labels and label not in known.labels:
                raise _Mistake(f"{control} has no label {quoted(label)}; {instead(label, known.labels)}")
        inner = [label.split(" / ") for label in labels] if kind == "taxonomy" else labels
    else:
        raise _Mistake(f"{control} is a {tag}, whose answers need the whole `result`.")
    return {"from_name": control, "to_name": to_name, "type": kind, "value": {kind: inner}}


def _known_control(name: Any, config: LabelConfig | None) -> None:
    if not isinstance(name, str) or not name:
        raise _Mistake(f"The control must be a control tag's name, not {quoted(name)}.")
    if config and config.controls and config.control(name) is None:
        names = [control.name for control in config.controls]
        raise _Mistake(f"The labeling interface has no control {quoted(name)}; {instead(name, names)}")


def _merge(into: Answer, answer: Answer) -> None:
    for item in answer.result:
        same = [
            other
            for other in into.result
            if other.get("from_name") == item.get("from_name") and other not in answer.result
        ]
        if any(other != item for other in same):
            raise _Mistake(f"Task {answer.task} has another answer for {item.get('from_name')} above; keep one.")
        if not same:
            into.result.append(item)
