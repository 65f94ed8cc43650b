"""The headers that tell a browser what nothing of ours ever needs, on everything served.

WSGI middleware, because there the headers of a finished answer are a plain list: going through Flask's for each
of a hundred deliveries a second took longer than parsing them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

_EVERYWHERE = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_OURS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    **_EVERYWHERE,
}
_IN_STUDIO = {
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; sandbox",
    **_EVERYWHERE,
}
"""For everything on Label Studio's own address."""

_FOR_A_YEAR = ("Strict-Transport-Security", "max-age=31536000")

Header = tuple[str, str]


class Protected:
    """Adds the headers to every answer; one that the application set itself stays as it is."""

    def __init__(self, application: Any) -> None:
        self._application = application

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer a request."""
        in_studio = is_in_studio(environ.get("PATH_INFO", ""))
        ours = _IN_STUDIO if in_studio else _OURS

        def start(status: str, headers: list[Header], exc_info: Any = None) -> Any:
            there = {name.lower() for name, _ in headers}
            added = [(name, value) for name, value in ours.items() if name.lower() not in there]
            # Not for what is served on Label Studio's own address: whether that is reached with TLS is not ours
            # to say.
            if environ["wsgi.url_scheme"] == "https" and not in_studio:
                added.append(_FOR_A_YEAR)
            return start_response(status, headers + added, exc_info)

        answer: Iterable[bytes] = self._application(environ, start)
        return answer


def is_in_studio(path: str) -> bool:
    """Whether a path is served on Label Studio's own address, where no page of ours may be."""
    return path.startswith("/page")
