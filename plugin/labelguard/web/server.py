"""The WSGI server: one process with threads, the fit for SQLite's single writer."""

from __future__ import annotations

from typing import Any

import waitress
from flask import Flask
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser, ParsingError

from labelguard.settings import Settings

# Some may wait for the rules or for a page's long poll while others answer.
_THREADS = 16

# Beyond the application's own limit, so that the answer is our sentence. A body the server itself refuses is
# cut off while it is still being sent, and many clients then never read the answer. What waits to be
# refused lies in a temporary file: waitress keeps half a megabyte of it in memory.
_REFUSED_BY_SERVER = 8


class _Parser(HTTPRequestParser):  # type: ignore[misc]
    """Refuses requests that say twice how long they are.

    A proxy in front that believes the length, where the server behind believes the chunks, takes two requests
    for one: https://www.rfc-editor.org/rfc/rfc9112#section-6.3.
    """

    def parse_header(self, header_plus: bytes) -> None:
        super().parse_header(header_plus)
        if self.chunked and "CONTENT_LENGTH" in self.headers:
            raise ParsingError("Content-Length and Transfer-Encoding exclude each other")


class _Channel(HTTPChannel):  # type: ignore[misc]
    parser_class = _Parser


def make_server(app: Flask, settings: Settings, *, host: str | None = None, port: int | None = None) -> Any:
    """A waitress server bound to the configured address (``port`` 0 takes a free one).

    ``run()`` serves until interrupted, ``effective_port`` is where it listens. ``close()`` from another thread
    stops it too, but may end ``run()`` with an OSError about the closed socket.
    """
    server = waitress.create_server(
        app,
        host=host or settings.host,
        port=settings.port if port is None else port,
        threads=_THREADS,
        max_request_body_size=settings.max_body_bytes * _REFUSED_BY_SERVER,
        channel_timeout=60,
        # The application takes them off itself, and believes those of configured proxies (web.forwarded).
        clear_untrusted_proxy_headers=False,
        ident="",
    )
    # With several addresses of one name it holds a server for each.
    for each in [server, *(getattr(server, "map", None) or {}).values()]:
        each.channel_class = _Channel
    return server
