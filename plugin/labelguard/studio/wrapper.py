"""Label Studio's own command with another last step: it is served with labelguard's page script in it.

This file is run by the Python of Label Studio's environment, where labelguard is not installed: it must not
import anything but the standard library, Django and Label Studio. Arguments are those of ``label-studio``.

``LABELGUARD_UPSTREAM`` is labelguard's address; without it, pages are served untouched.
"""

from __future__ import annotations

import http.client
import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]
Headers = list[tuple[str, str]]

PREFIX = "/labelguard"
# `async`, not `defer`: deferred scripts run in order, so ours could hold up Label Studio's while labelguard
# does not answer.
SCRIPT_TAG = b'<script src="/labelguard/page.js" async></script>'

MAX_PAGE_BYTES = 4 * 1024 * 1024
MAX_REQUEST_BYTES = 2 * 1024 * 1024
MAX_ANSWER_BYTES = 1024 * 1024

# Where Label Studio serves what people uploaded, and what is never a page: HTML found there is data.
_NOT_PAGES = (
    "/api/",
    "/data/",
    "/static/",
    "/storage-data/",
    "/tasks/",
    "/react-app/",
    "/label-studio-frontend/",
)
# What the page script needs of its request; everything else (Authorization, hop-by-hop headers) stays here.
_PASSED_ON = (
    "Accept",
    "Accept-Language",
    "Content-Type",
    "If-None-Match",
    "Origin",
    "Sec-Fetch-Site",
    "User-Agent",
    "X-Labelguard-Session",
)
_PASSED_BACK = (
    "Cache-Control",
    "Content-Language",
    "ETag",
    "Retry-After",
    "Vary",
)
# The answer comes from Label Studio's own origin, where a page of ours could do whatever the annotator may. So
# what may be served is one script and JSON, and how browsers take it is said here, not by what is passed on.
_SCRIPT = "/page.js"
_PROTECTING = (
    ("Content-Security-Policy", "default-src 'none'; base-uri 'none'; frame-ancestors 'none'; sandbox"),
    ("X-Content-Type-Options", "nosniff"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
)
# The only address that needs to know whose browser it is.
_WITH_COOKIE = "/page/v1/session"


class PageScript:
    """WSGI middleware: puts the page script into Label Studio's pages and passes its requests on.

    Nothing that labelguard does, or fails to do, reaches Label Studio's own answers: pages are only given a
    script tag, and requests under ``/labelguard/`` are answered within ``timeout`` seconds, by a 503 where
    labelguard did not.
    """

    def __init__(self, application: Application, upstream: str, *, timeout: float = 1.5) -> None:
        """``upstream`` is labelguard's address; ``timeout`` the seconds a whole exchange with it may take."""
        parts = urlsplit(upstream)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"LABELGUARD_UPSTREAM is {upstream!r}; it must be an address like http://127.0.0.1:8090.")
        self._application = application
        self._secure = parts.scheme == "https"
        self._host = parts.hostname
        self._port = parts.port
        self._base = parts.path.rstrip("/")
        self._timeout = timeout

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request."""
        path = str(environ.get("PATH_INFO") or "/")
        if path == PREFIX or path.startswith(f"{PREFIX}/"):
            return self._pass_on(environ, start_response, path[len(PREFIX) :])
        if environ.get("REQUEST_METHOD") != "GET" or path.startswith(_NOT_PAGES):
            return self._application(environ, start_response)
        return self._with_script(environ, start_response)

    # Pages

    def _with_script(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        # A compressed page could not be changed.
        environ.pop("HTTP_ACCEPT_ENCODING", None)
        started: list[tuple[str, Headers, Any]] = []
        written: list[bytes] = []

        def hold(status: str, headers: Headers, exc_info: Any = None) -> Callable[[bytes], object]:
            started[:] = [(status, headers, exc_info)]
            return written.append

        answer = self._application(environ, hold)
        if not started or written:
            # Started late or written in the old way: no page of Label Studio's, but possible in WSGI.
            return _replay(started, written, answer, start_response)
        status, headers, exc_info = started[0]
        # Django's answers are lists of bytes inside; the streaming ones must not be waited for.
        if not _is_page(status, headers) or getattr(answer, "streaming", False):
            start_response(status, headers, *([exc_info] if exc_info else []))
            return answer
        try:
            body = b"".join(answer)
        finally:
            close = getattr(answer, "close", None)
            if close is not None:
                close()
        at = body.find(b"</head>")
        if at >= 0 and SCRIPT_TAG not in body and len(body) <= MAX_PAGE_BYTES:
            body = body[:at] + SCRIPT_TAG + body[at:]
            headers = [(name, value) for name, value in headers if name.lower() not in ("content-length", "etag")]
            headers.append(("Content-Length", str(len(body))))
        start_response(status, headers, *([exc_info] if exc_info else []))
        return [body]

    # The page script's requests

    def _pass_on(self, environ: Environ, start_response: StartResponse, path: str) -> Iterable[bytes]:
        method = str(environ.get("REQUEST_METHOD", "GET"))
        # Only what annotators need: labelguard's webhook, API, metrics and status page stay unreachable here.
        if not (path == _SCRIPT or path.startswith("/page/")) or {".", ".."} & set(path.split("/")):
            return _say(start_response, "404 Not Found", "There is nothing at this address.")
        if method not in ("GET", "HEAD", "POST"):
            return _say(start_response, "405 Method Not Allowed", f"{method} is not possible here.")
        try:
            length = int(environ.get("CONTENT_LENGTH") or 0)
        except ValueError:
            length = -1
        if length < 0 or "HTTP_TRANSFER_ENCODING" in environ:
            return _say(start_response, "411 Length Required", "The request does not say how long it is.")
        if length > MAX_REQUEST_BYTES:
            return _say(
                start_response,
                "413 Content Too Large",
                f"Requests may have {MAX_REQUEST_BYTES} bytes at most.",
            )
        body = environ["wsgi.input"].read(length) if length else b""
        try:
            status, headers, answer = self._ask(environ, method, path, body)
        except (OSError, http.client.HTTPException, ValueError):
            return _say(start_response, "503 Service Unavailable", "labelguard does not answer at the moment.")
        start_response(status, headers)
        return [answer]

    def _ask(self, environ: Environ, method: str, path: str, body: bytes) -> tuple[str, Headers, bytes]:
        """One exchange with labelguard.

        Raises OSError, HTTPException or ValueError when it fails, takes too long or makes no sense.
        """
        deadline = time.monotonic() + self._timeout
        target = self._base + quote(path.encode("latin-1", "replace"), safe="/-._~")
        if environ.get("QUERY_STRING"):
            target += "?" + str(environ["QUERY_STRING"])
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=self._timeout)
        try:
            connection.request(method, target, body or None, self._headers(environ, path))
            response = connection.getresponse()
            answer = b""
            # The socket's timeout is for each read: a server that drips bytes must not hold a thread.
            while chunk := response.read1(65_536):
                answer += chunk
                if len(answer) > MAX_ANSWER_BYTES or time.monotonic() > deadline:
                    raise ValueError("too much or too slow")
            if not (response.status in (200, 304) or 400 <= response.status <= 599):
                raise ValueError("not an answer of labelguard's page interface")
            content_type = (response.getheader("Content-Type") or "").partition(";")[0].strip().lower()
            # A script only where the page asks for one: what JSON carries is what annotators wrote.
            expected = "text/javascript" if path == _SCRIPT and response.status == 200 else "application/json"
            if response.status != 304 and content_type != expected:
                raise ValueError("not an answer of labelguard's page interface")
            headers = [(name, value) for name in _PASSED_BACK if (value := response.getheader(name))]
            headers += _PROTECTING
            headers.append(("Content-Type", f"{expected}; charset=utf-8"))
            if response.status != 304:
                headers.append(("Content-Length", str(len(answer))))
            return f"{response.status} {response.reason or 'Answer'}", headers, answer
        finally:
            connection.close()

    def _headers(self, environ: Environ, path: str) -> dict[str, str]:
        headers = {}
        for name in _PASSED_ON:
            key = name.upper().replace("-", "_")
            value = environ.get(key if key == "CONTENT_TYPE" else f"HTTP_{key}")
            if value:
                headers[name] = str(value)
        if path == _WITH_COOKIE and environ.get("HTTP_COOKIE"):
            headers["Cookie"] = str(environ["HTTP_COOKIE"])
        # The address in the browser, as a reverse proxy would keep it: labelguard compares it with `Origin`.
        headers["Host"] = str(environ.get("HTTP_HOST") or self._host)
        headers["X-Forwarded-For"] = str(environ.get("REMOTE_ADDR", ""))
        headers["X-Forwarded-Proto"] = str(environ.get("wsgi.url_scheme", "http"))
        headers["Connection"] = "close"
        return headers


def _is_page(status: str, headers: Headers) -> bool:
    """Whether an answer is a whole HTML page that can be changed."""
    if not status.startswith("200"):
        return False
    found = {name.lower(): value for name, value in headers}
    if not found.get("content-type", "").lower().startswith("text/html"):
        return False
    if "content-encoding" in found or "content-disposition" in found:
        return False
    length = found.get("content-length", "0")
    return not length.isdecimal() or int(length) <= MAX_PAGE_BYTES


def _replay(
    started: list[tuple[str, Headers, Any]],
    written: list[bytes],
    answer: Iterable[bytes],
    start_response: StartResponse,
) -> Iterable[bytes]:
    """Pass an unusual answer on as it comes."""
    sent = False
    try:
        for chunk in answer:
            if not sent and started:
                status, headers, exc_info = started[0]
                start_response(status, headers, *([exc_info] if exc_info else []))
                sent = True
                yield b"".join(written)
            yield chunk
        if not sent and started:
            status, headers, exc_info = started[0]
            start_response(status, headers, *([exc_info] if exc_info else []))
            yield b"".join(written)
    finally:
        close = getattr(answer, "close", None)
        if close is not None:
            close()


def _say(start_response: StartResponse, status: str, sentence: str) -> Iterable[bytes]:
    """An error of our own."""
    body = json.dumps({"error": sentence}).encode()
    start_response(
        status,
        [
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            *_PROTECTING,
        ],
    )
    return [body]


def main() -> None:
    """Run Label Studio's command line."""
    # This script's folder is first on sys.path and would shadow modules of the same names.
    here = str(Path(__file__).parent)
    sys.path[:] = [p for p in sys.path if p != here]
    import label_studio.server as server  # type: ignore[import-not-found]

    def serve(host: str, port: object) -> None:
        from wsgiref.simple_server import make_server

        # Django's own pair speaks HTTP/1.1 with connections kept open, which wsgiref's does not.
        from django.core.servers.basehttp import (  # type: ignore[import-not-found]
            ThreadedWSGIServer,
            WSGIRequestHandler,
        )
        from django.core.wsgi import get_wsgi_application  # type: ignore[import-not-found]

        class QuietHandler(WSGIRequestHandler):  # type: ignore[misc]
            def log_message(self, *_: object) -> None:
                """Log no requests: their addresses can carry tokens."""

        application = get_wsgi_application()
        upstream = os.environ.get("LABELGUARD_UPSTREAM", "")
        if upstream:
            application = PageScript(application, upstream)
        with make_server(host or "127.0.0.1", int(str(port)), application, ThreadedWSGIServer, QuietHandler) as httpd:
            sys.stdout.write(f"Label Studio is ready on port {port}\n")
            sys.stdout.flush()
            httpd.serve_forever()

    # The step of its command line that serves; there is no public way to replace it.
    server._app_run = serve  # noqa: SLF001
    server.main()


if __name__ == "__main__":
    main()
