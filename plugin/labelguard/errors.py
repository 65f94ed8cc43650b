"""The one shape in which errors leave over HTTP: ``{"error": sentence}``, with ``problems`` for several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flask import Response, jsonify


def json_error(
    status: int,
    sentence: str,
    *,
    problems: Sequence[Mapping[str, str]] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """An error answer. ``problems`` are the single mistakes, each with at least a ``message``."""
    response = jsonify({"error": sentence, **({"problems": list(problems)} if problems else {})})
    response.status_code = status
    response.headers.update(headers or {})
    return response
