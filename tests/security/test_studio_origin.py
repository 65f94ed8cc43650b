"""Threat: what labelguard serves on Label Studio's own address does there what only Label Studio may.

Whatever is served there as a page or a script acts as the signed-in annotator. So the middleware lets two things
through, one script and JSON, says itself how browsers must take them, and believes nothing that labelguard (or
whoever answers in its place) says about that.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest

from labelguard.studio.wrapper import SCRIPT_TAG, PageScript
from webservice import Service

# What is reviewed here lies above the store; the fuzzers run on both.
pytestmark = pytest.mark.store("sqlite")

EVIL = b"<html><script>alert(document.cookie)</script></html>"


class Impostor(ThreadingHTTPServer):
    """Somebody in labelguard's place."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.status = 200
        self.asked: list[tuple[str, dict[str, str]]] = []
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: Impostor

    def _answer(self) -> None:
        self.server.asked.append((self.path, dict(self.headers)))
        self.send_response(self.server.status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(EVIL)))
        self.end_headers()
        self.wfile.write(EVIL)

    do_GET = do_POST = do_HEAD = _answer  # noqa: N815

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def impostor() -> Iterator[Impostor]:
    """A server that answers what it likes."""
    with Impostor() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def get(application: Any, path: str, method: str = "GET", **more: Any) -> tuple[int, dict[str, str], bytes]:
    """Ask a WSGI application."""
    environ: dict[str, Any] = {}
    setup_testing_defaults(environ)
    environ |= {"PATH_INFO": path, "REQUEST_METHOD": method, "CONTENT_LENGTH": "0", **more}
    started: list[tuple[str, list[tuple[str, str]]]] = []
    body = b"".join(application(environ, lambda status, headers: started.append((status, headers))))
    status, headers = started[0]
    return int(status[:3]), {name.lower(): value for name, value in headers}, body


def studio(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Label Studio: a page of its own."""
    start_response("200 OK", [("Content-Type", "text/html")])
    return [b"<html><head></head></html>"]


def through(impostor: Impostor) -> PageScript:
    """Label Studio's server with the middleware."""
    return PageScript(studio, f"http://127.0.0.1:{impostor.server_port}")


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("/labelguard/page/v1/prompts", "text/html"),
        ("/labelguard/page/v1/prompts", "text/javascript"),
        ("/labelguard/page/v1/prompts", "application/xhtml+xml"),
        ("/labelguard/page/v1/prompts", "image/svg+xml"),
        ("/labelguard/page/v1/prompts", "application/json, text/html"),
        ("/labelguard/page/x.html", ""),
        ("/labelguard/page.js", "text/html"),
        ("/labelguard/page.js", "application/json"),
    ],
)
def test_nothing_but_one_script_and_json_gets_through(impostor: Impostor, path: str, content_type: str) -> None:
    """A page or a script under any other address would act as the annotator."""
    impostor.headers = {"Content-Type": content_type}
    status, headers, body = get(through(impostor), path)
    assert status == 503
    assert EVIL not in body
    assert headers["content-type"] == "application/json"


@pytest.mark.parametrize("path", ["/labelguard/page.js", "/labelguard/page/v1/prompts"])
def test_how_browsers_take_it_is_not_for_labelguard_to_say(impostor: Impostor, path: str) -> None:
    """Policies, types and cookies of the answer are the middleware's."""
    expected = "text/javascript" if path.endswith(".js") else "application/json"
    impostor.headers = {
        "Content-Type": f'{expected}; charset="utf-7"',
        "Content-Security-Policy": "default-src *",
        "Set-Cookie": "sessionid=evil; Path=/",
        "Access-Control-Allow-Origin": "*",
        "Location": "https://evil.example",
        "Refresh": "0; url=https://evil.example",
        "Service-Worker-Allowed": "/",
        "Link": "<https://evil.example>; rel=preload",
        "Clear-Site-Data": '"cookies"',
        "X-Content-Type-Options": "no",
        "Strict-Transport-Security": "max-age=1",
    }
    status, headers, _ = get(through(impostor), path)
    assert status == 200
    assert headers["content-type"] == f"{expected}; charset=utf-8"
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert "sandbox" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert set(headers) == {
        "content-type",
        "content-length",
        "content-security-policy",
        "x-content-type-options",
        "cross-origin-resource-policy",
        "referrer-policy",
    }


def test_a_service_worker_cannot_be_put_there(impostor: Impostor) -> None:
    """It would see every request of Label Studio's pages: its scope needs a header that does not get through."""
    impostor.headers = {"Content-Type": "text/javascript", "Service-Worker-Allowed": "/"}
    _, headers, _ = get(through(impostor), "/labelguard/page.js", HTTP_SERVICE_WORKER="script")
    assert "service-worker-allowed" not in headers


@pytest.mark.parametrize("status", [301, 302, 307, 308, 101, 206])
def test_no_redirect_gets_through(impostor: Impostor, status: int) -> None:
    """Label Studio's address sends nobody elsewhere on labelguard's word."""
    impostor.status, impostor.headers = status, {"Content-Type": "application/json", "Location": "https://evil.example"}
    answered, headers, _ = get(through(impostor), "/labelguard/page/v1/prompts")
    assert answered == 503
    assert "location" not in headers


@pytest.mark.parametrize(
    "path",
    [
        "/labelguard",
        "/labelguard/",
        "/labelguard/api/v1/findings",
        "/labelguard/webhook/3",
        "/labelguard/metrics",
        "/labelguard/sign-in",
        "/labelguard/page/../api/v1/status",
        "/labelguard/page/./../status.css",
        "/labelguard/page.js/x",
        "/labelguard/page.jsx",
        "/labelguard//page.js",
        "/labelguard/page",
    ],
)
def test_only_the_page_interface_is_reachable_there(impostor: Impostor, path: str) -> None:
    """Annotators have no way to the webhook, the API, the metrics or the status page through Label Studio."""
    status, _, _ = get(through(impostor), path)
    assert status == 404
    assert impostor.asked == []


@pytest.mark.parametrize(
    "path", ["/labelguard/page/%0d%0aX: y", "/labelguard/page/a\r\nX-Evil: 1", "/labelguard/page/\x00"]
)
@pytest.mark.parametrize("query", ["a=b\r\nX-Evil: 1", "a b HTTP/1.1\r\n\r\nGET /api", ""])
def test_one_request_stays_one_request(impostor: Impostor, path: str, query: str) -> None:
    """Ends of lines in a path or query do not make a second request or a header."""
    impostor.headers = {"Content-Type": "application/json"}
    get(through(impostor), path, QUERY_STRING=query, HTTP_X_LABELGUARD_SESSION="a\r\nX-Evil: 1")
    for _, headers in impostor.asked:
        assert "X-Evil" not in headers
    assert len(impostor.asked) <= 1


def test_the_tag_in_label_studios_pages_is_this_and_nothing_else(impostor: Impostor) -> None:
    """No inline code, no address of elsewhere: it runs under a policy of ``script-src 'self'``."""
    _, _, body = get(through(impostor), "/projects/1/")
    assert SCRIPT_TAG == b'<script src="/labelguard/page.js" async></script>'
    assert body == b"<html><head>" + SCRIPT_TAG + b"</head></html>"


def test_labelguard_itself_serves_no_page_there(web: Service) -> None:
    """Also behind a proxy that passes everything on: JSON and one script, whatever is asked for."""
    for path in ("/page", "/page/", "/page/x.html", "/page/v1/session", "/page/v1/prompts/x/seen", "/page.jsx"):
        for method in ("GET", "POST", "PUT", "DELETE"):
            answer = web.client.open(path, method=method, headers={"Accept": "text/html"})
            assert answer.content_type.startswith("application/json"), (method, path)
            assert "sandbox" in answer.headers["Content-Security-Policy"]
    assert web.client.get("/page.js").content_type.startswith("text/javascript")
