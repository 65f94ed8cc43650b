"""JSON bodies of people's browsers and programs: read without trust, safe to judge and to store."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from flask import Request

MAX_DEPTH = 200
"""Levels of nesting accepted, as in deliveries; real ones stay below 20."""

# PostgreSQL refuses NUL in a text, UTF-8 refuses lone surrogates.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def json_object(request: Request) -> dict[str, Any] | None:
    """The body's JSON object, without what no database takes; None where the body is anything else."""
    if not request.is_json:
        return None
    try:
        found = _clean(json.loads(request.get_data(cache=False)), 0)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def storable_text(text: str) -> str:
    """A text that any database and encoder takes."""
    return _UNSTORABLE.sub("\ufffd", text)


def _clean(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return storable_text(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("numbers must be finite")
    if not isinstance(value, (dict, list)):
        return value
    if depth >= MAX_DEPTH:
        raise ValueError("nested too deeply")
    if isinstance(value, dict):
        return {storable_text(key): _clean(inner, depth + 1) for key, inner in value.items()}
    return [_clean(inner, depth + 1) for inner in value]
