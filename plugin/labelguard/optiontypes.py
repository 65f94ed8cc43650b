"""The options of rules: from the annotations of dataclass fields to checks, and to JSON Schema.

An option's type is what its author wrote in Python. YAML knows fewer types, so lists become tuples or sets
and whole numbers become numbers or text where the option wants them; nothing else is guessed.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import math
import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from labelguard.wording import listed


@dataclass(frozen=True, slots=True)
class OptionType:
    """What one option takes."""

    annotation: Any
    minimum: float | None = None
    maximum: float | None = None


_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
# Whole numbers are read as text where text is wanted, so the schema takes both.
_SCHEMAS: dict[Any, dict[str, Any]] = {
    str: {"type": ["string", "integer"]},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
}


class BadOption(ValueError):
    """A value an option cannot take."""

    def __init__(self, expected: str, found: Any, path: tuple[str | int, ...] = (), hint: str = "") -> None:
        super().__init__(expected)
        self.expected = expected
        """What it must be, as a noun phrase."""
        self.found = found
        self.path = path
        """Where inside the option's value."""
        self.hint = hint
        """One more sentence, with a space before it, or nothing."""


def option_types(rule: type) -> Mapping[str, OptionType]:
    """Every option of a rule class by its name."""
    hints = get_type_hints(rule)
    return {
        f.name: OptionType(hints[f.name], f.metadata.get("minimum"), f.metadata.get("maximum"))
        for f in dataclasses.fields(rule)
        if f.init
    }


def convert(option: OptionType, value: Any) -> Any:
    """The value as the option's type.

    Raises:
        BadOption: the value is of another type or outside the option's limits.
    """
    converted = _convert(option.annotation, value)
    if isinstance(converted, (int, float)) and not isinstance(converted, bool):
        low, high = option.minimum, option.maximum
        if (low is not None and converted < low) or (high is not None and converted > high):
            raise BadOption(_range(low, high), value)
    return converted


def option_schema(rule: type, name: str) -> dict[str, Any]:
    """The JSON Schema of an option, with its help and default."""
    option = option_types(rule)[name]
    (field,) = (f for f in dataclasses.fields(rule) if f.name == name)
    schema = dict(_schema(option.annotation))
    if "help" in field.metadata:
        schema["description"] = field.metadata["help"]
    if option.minimum is not None:
        schema["minimum"] = option.minimum
    if option.maximum is not None:
        schema["maximum"] = option.maximum
    default = default_of(field)
    if default is not dataclasses.MISSING:
        schema["default"] = plain(default)
    return schema


def default_of(field: dataclasses.Field[Any]) -> Any:
    """A field's default, or ``dataclasses.MISSING``."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def plain(value: Any) -> Any:
    """A value with lists instead of tuples and sets, as JSON has it."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted((plain(v) for v in value), key=repr)
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value


def in_words(annotation: Any) -> str:
    """A type as a noun phrase: ``a list of text``."""
    origin, args = get_origin(annotation), get_args(annotation)
    if _is_union(origin):
        inner = [in_words(a) for a in args if a is not type(None)]
        return listed(inner)
    if origin is Literal:
        return listed(str(a) for a in args)
    if _is_mapping(annotation, origin):
        return f"`key: value` lines ({in_words(args[1])} each)" if args else "`key: value` lines"
    if _is_list(annotation, origin):
        fixed = _fixed_tuple(origin, args)
        if fixed:
            return f"a list of {len(fixed)} values ({listed((in_words(a) for a in fixed), 'and')})"
        return f"a list ({in_words(args[0])} each)" if args and args[0] is not Any else "a list"
    return _WORDS.get(annotation, "a value")


def _convert(annotation: Any, value: Any) -> Any:
    origin, args = get_origin(annotation), get_args(annotation)
    if annotation is Any or annotation is object:
        return value
    if _is_union(origin):
        return _convert_union(annotation, args, value)
    if origin is Literal:
        return _convert_literal(annotation, args, value)
    if annotation is bool:
        return _expect(isinstance(value, bool), annotation, value)
    if annotation is int:
        return _expect(isinstance(value, int) and not isinstance(value, bool), annotation, value)
    if annotation is float:
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        return float(_expect(number, annotation, value))
    if annotation is str:
        return _convert_text(value)
    if _is_mapping(annotation, origin):
        _expect(isinstance(value, Mapping), annotation, value)
        key_type, value_type = args or (Any, Any)
        return {_inside(k, key_type, k): _inside(k, value_type, v) for k, v in value.items()}
    if _is_list(annotation, origin):
        return _convert_list(annotation, origin, args, value)
    raise TypeError(f"options cannot be of type {annotation}")


def _convert_text(value: Any) -> str:
    # A label of digits is text, and whole numbers are always written back as they were.
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    hint = " Put it in quotes." if isinstance(value, (bool, float)) else ""
    if not isinstance(value, str):
        raise BadOption("text", value, hint=hint)
    return value


def _convert_union(annotation: Any, args: tuple[Any, ...], value: Any) -> Any:
    if value is None and type(None) in args:
        return None
    members = [a for a in args if a is not type(None)]
    mistakes = []
    for member in members:
        try:
            return _convert(member, value)
        except BadOption as error:
            mistakes.append(error)
    if len(mistakes) == 1:
        raise mistakes[0]
    raise BadOption(in_words(annotation), value)


def _convert_literal(annotation: Any, args: tuple[Any, ...], value: Any) -> Any:
    for choice in args:
        if value == choice and isinstance(value, bool) == isinstance(choice, bool):
            return choice
    raise BadOption(in_words(annotation), value)


def _convert_list(annotation: Any, origin: Any, args: tuple[Any, ...], value: Any) -> Any:
    _expect(isinstance(value, (list, tuple, set, frozenset)), annotation, value)
    items = list(value)
    fixed = _fixed_tuple(origin, args)
    if fixed:
        _expect(len(items) == len(fixed), annotation, value)
        return tuple(_inside(i, a, v) for i, (a, v) in enumerate(zip(fixed, items, strict=True)))
    member = args[0] if args else Any
    converted = [_inside(i, member, v) for i, v in enumerate(items)]
    kind = origin or annotation
    if kind is tuple:
        return tuple(converted)
    if kind in (set, frozenset):
        return kind(converted)
    return converted


def _inside(part: Any, annotation: Any, value: Any) -> Any:
    try:
        return _convert(annotation, value)
    except BadOption as error:
        step = part if isinstance(part, int) else str(part)
        raise BadOption(error.expected, error.found, (step, *error.path), error.hint) from None


def _expect(holds: bool, annotation: Any, value: Any) -> Any:
    if not holds:
        raise BadOption(in_words(annotation), value)
    return value


def _is_union(origin: Any) -> bool:
    return origin is Union or origin is types.UnionType


def _is_mapping(annotation: Any, origin: Any) -> bool:
    return (origin or annotation) in (dict, collections.abc.Mapping)


def _is_list(annotation: Any, origin: Any) -> bool:
    return (origin or annotation) in (list, tuple, set, frozenset, collections.abc.Sequence)


def _fixed_tuple(origin: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return args if origin is tuple and args and args[-1] is not Ellipsis else ()


def _range(low: float | None, high: float | None) -> str:
    if low is not None and high is not None:
        return f"from {low:g} to {high:g}"
    return f"at least {low:g}" if low is not None else f"at most {high:g}"


def _schema(annotation: Any) -> dict[str, Any]:
    origin, args = get_origin(annotation), get_args(annotation)
    if _is_union(origin):
        return {"anyOf": [{"type": "null"} if a is type(None) else _schema(a) for a in args]}
    if origin is Literal:
        return {"enum": list(args)}
    if _is_mapping(annotation, origin):
        return {"type": "object", **({"additionalProperties": _schema(args[1])} if args else {})}
    if _is_list(annotation, origin):
        fixed = _fixed_tuple(origin, args)
        if fixed:
            each = [_schema(a) for a in fixed]
            return {"type": "array", "prefixItems": each, "minItems": len(fixed), "maxItems": len(fixed)}
        return {"type": "array", **({"items": _schema(args[0])} if args else {})}
    return _SCHEMAS.get(annotation, {})
