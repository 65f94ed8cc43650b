"""The WSGI middleware that puts the page script into Label Studio's pages and passes its requests on."""

from __future__ import annotations

import io
import json
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest

from labelguard.studio.wrapper import MAX_PAGE_BYTES, MAX_REQUEST_BYTES, SCRIPT_TAG, PageScript

PAGE = b"<!doctype html><html><head><title>Label Studio</title></head><body>work</body></html>"
NOWHERE = "http://127.0.0.1:9"


@dataclass
class Asked:
    """One request as labelguard got it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Labelguard:
    """A server in labelguard's place: keeps what it was asked and answers as it is told."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})
    body: bytes = b'{"ok": true}'
    drip: float = 0.0
    """Seconds between the bytes of the body."""
    asked: list[Asked] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def labelguard() -> Iterator[Labelguard]:
    """A running server in labelguard's place."""
    state = Labelguard()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            state.asked.append(Asked(self.command, self.path, dict(self.headers), body))
            self.send_response(state.status)
            for name, value in state.headers.items():
                self.send_header(name, value)
            if state.status != 304:
                self.send_header("Content-Length", str(len(state.body)))
            self.end_headers()
            for at in range(len(state.body)) if state.drip else ():
                time.sleep(state.drip)
                self.wfile.write(state.body[at : at + 1])
                self.wfile.flush()
            if not state.drip and state.status != 304:
                self.wfile.write(state.body)

        do_GET = do_POST = do_PATCH = _answer  # noqa: N815

        def handle(self) -> None:
            try:
                super().handle()
            except OSError:
                return

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


@dataclass
class Answer:
    """What a client of the middleware got."""

    status: int
    headers: dict[str, str]
    body: bytes


class Studio:
    """An application in Label Studio's place: answers everything the same way and keeps its environ."""

    def __init__(
        self,
        body: bytes | Iterable[bytes] = PAGE,
        status: str = "200 OK",
        content_type: str = "text/html; charset=utf-8",
        **headers: str,
    ) -> None:
        self.body = body
        self.status = status
        self.headers = [("Content-Type", content_type)]
        self.headers += [(name.replace("_", "-"), value) for name, value in headers.items()]
        self.environ: dict[str, Any] = {}

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer."""
        self.environ = environ
        if isinstance(self.body, bytes):
            start_response(self.status, [*self.headers, ("Content-Length", str(len(self.body)))])
            return [self.body]
        start_response(self.status, self.headers)
        return self.body


def get(app: PageScript, path: str, method: str = "GET", body: bytes = b"", **environ: Any) -> Answer:
    """One request to the middleware."""
    full: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "wsgi.input": io.BytesIO(body),
        "CONTENT_LENGTH": str(len(body)) if body else "",
        "HTTP_HOST": "studio.example",
        "REMOTE_ADDR": "192.0.2.7",
        **environ,
    }
    setup_testing_defaults(full)
    got: dict[str, Any] = {}

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], None]:
        got.update(status=int(status[:3]), headers={name.lower(): value for name, value in headers})
        return lambda _: None

    content = b"".join(app(full, start_response))
    return Answer(got["status"], got["headers"], content)


def test_a_page_gets_the_script_once_with_the_right_length() -> None:
    """The script tag stands before </head>, Content-Length is that of the changed page."""
    answer = get(PageScript(Studio(), NOWHERE), "/projects/1/data")
    assert answer.body == PAGE.replace(b"</head>", SCRIPT_TAG + b"</head>")
    assert answer.headers["content-length"] == str(len(answer.body))


def test_a_page_that_has_the_script_already_is_not_given_it_again() -> None:
    """A reverse proxy may have inserted it as well."""
    page = PAGE.replace(b"</head>", SCRIPT_TAG + b"</head>")
    assert get(PageScript(Studio(page), NOWHERE), "/").body == page


def test_the_script_cannot_hold_up_label_studios_own_scripts() -> None:
    """It is async: deferred scripts run in order, and one that does not load would delay the rest."""
    assert b" async" in SCRIPT_TAG


def test_pages_are_asked_for_uncompressed_and_nothing_else_is() -> None:
    """Accept-Encoding is dropped for what may become a page and kept for the API and static files."""
    application = Studio()
    get(PageScript(application, NOWHERE), "/projects/", HTTP_ACCEPT_ENCODING="gzip, br")
    assert "HTTP_ACCEPT_ENCODING" not in application.environ
    get(PageScript(application, NOWHERE), "/api/tasks", HTTP_ACCEPT_ENCODING="gzip, br")
    assert application.environ["HTTP_ACCEPT_ENCODING"] == "gzip, br"


@pytest.mark.parametrize(
    ("path", "application"),
    [
        ("/data/upload/1/page.html", Studio()),
        ("/data/local-files/", Studio()),
        ("/storage-data/uploaded/", Studio()),
        ("/tasks/4/resolve/", Studio()),
        ("/static/help.html", Studio()),
        ("/api/projects/1/", Studio()),
        ("/projects/", Studio(status="404 Not Found")),
        ("/projects/", Studio(content_type="text/plain")),
        ("/projects/", Studio(Content_Encoding="gzip")),
        ("/projects/", Studio(Content_Disposition="attachment; filename=x.html")),
        ("/projects/", Studio(PAGE + b" " * MAX_PAGE_BYTES)),
    ],
    ids=[
        "upload",
        "local",
        "storage",
        "resolve",
        "static",
        "api",
        "404",
        "text",
        "gzip",
        "download",
        "large",
    ],
)
def test_what_is_not_a_page_of_label_studio_is_untouched(path: str, application: Studio) -> None:
    """Task files are data even when they are HTML; errors, downloads and large answers stay as they are."""
    assert get(PageScript(application, NOWHERE), path).body == application.body


def test_streamed_answers_are_passed_on_as_they_come() -> None:
    """An export must not be collected in memory first."""

    class Stream:
        streaming = True

        def __iter__(self) -> Iterator[bytes]:
            yield b"<html><head></head>"
            raise AssertionError("read ahead")

    environ: dict[str, Any] = {"PATH_INFO": "/export"}
    setup_testing_defaults(environ)
    answer = iter(PageScript(Studio(Stream()), NOWHERE)(environ, lambda *_: lambda _: None))
    assert next(answer) == b"<html><head></head>"


@pytest.mark.parametrize(
    "path",
    [
        "/labelguard",
        "/labelguard/",
        "/labelguard/webhook/1",
        "/labelguard/api/v1/findings",
        "/labelguard/metrics",
        "/labelguard/page",
        "/labelguard/page.json",
        "/labelguard/page/../webhook/1",
        "/labelguard/page/v1/../../api/v1/status",
        "/labelguard/./page.js",
    ],
)
def test_only_the_page_interface_is_reachable(labelguard: Labelguard, path: str) -> None:
    """Label Studio's visitors cannot reach labelguard's webhook, API, metrics or status page through it."""
    answer = get(PageScript(Studio(), labelguard.url), path)
    assert (answer.status, labelguard.asked) == (404, [])


def test_a_request_is_passed_on_with_what_it_needs_and_no_more(labelguard: Labelguard) -> None:
    """Session, origin and content go on; authorization and, but for the exchange, cookies stay."""
    sent = {
        "HTTP_COOKIE": "sessionid=secret",
        "HTTP_AUTHORIZATION": "Token secret",
        "HTTP_CONNECTION": "keep-alive, X-Other",
        "HTTP_UPGRADE": "websocket",
        "HTTP_ORIGIN": "http://studio.example",
        "HTTP_X_LABELGUARD_SESSION": "abc",
        "HTTP_X_FORWARDED_FOR": "203.0.113.1",
        "CONTENT_TYPE": "application/json",
        "QUERY_STRING": "project=1&saved=a%20b",
    }
    app = PageScript(Studio(), f"{labelguard.url}/behind/")
    answer = get(app, "/labelguard/page/v1/check", "POST", b'{"a": 1}', **sent)
    get(app, "/labelguard/page/v1/session", "POST", b"{}", **sent)
    check, session = labelguard.asked
    assert (answer.status, json.loads(answer.body)) == (200, {"ok": True})
    assert (check.method, check.path) == ("POST", "/behind/page/v1/check?project=1&saved=a%20b")
    assert check.body == b'{"a": 1}'
    assert check.headers["X-Labelguard-Session"] == "abc"
    assert check.headers["X-Forwarded-For"] == "192.0.2.7"
    assert check.headers["Host"] == "studio.example"
    assert not {"Cookie", "Authorization", "Upgrade"} & set(check.headers)
    assert session.headers["Cookie"] == "sessionid=secret"


def test_labelguard_cannot_set_cookies_for_label_studio(labelguard: Labelguard) -> None:
    """Its answers come from Label Studio's origin: a cookie set there would be Label Studio's."""
    labelguard.headers |= {"Set-Cookie": "sessionid=evil", "Keep-Alive": "timeout=5", "ETag": '"v1"'}
    labelguard.headers["Content-Type"] = "text/javascript"
    answer = get(PageScript(Studio(), labelguard.url), "/labelguard/page.js")
    assert not {"set-cookie", "keep-alive", "connection", "server"} & set(answer.headers)
    assert answer.headers["etag"] == '"v1"'
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_an_unchanged_script_is_answered_without_a_body(labelguard: Labelguard) -> None:
    """A 304 passes through."""
    labelguard.status, labelguard.body = 304, b""
    answer = get(PageScript(Studio(), labelguard.url), "/labelguard/page.js", HTTP_IF_NONE_MATCH='"v1"')
    assert (answer.status, answer.body) == (304, b"")
    assert labelguard.asked[0].headers["If-None-Match"] == '"v1"'


def test_an_error_of_labelguards_is_passed_back_as_it_is(labelguard: Labelguard) -> None:
    """The page script reads the status."""
    labelguard.status, labelguard.body = 401, b'{"error": "The session has ended; ask for a new one."}'
    answer = get(PageScript(Studio(), labelguard.url), "/labelguard/page/v1/prompts")
    assert (answer.status, answer.body) == (401, labelguard.body)


@pytest.mark.parametrize(
    "nonsense",
    [
        {"headers": {"Content-Type": "text/html"}, "body": b"<script>alert(1)</script>"},
        {
            "status": 302,
            "headers": {"Location": "https://elsewhere.example/", "Content-Type": "application/json"},
        },
        {"body": b" " * 2_000_000},
    ],
    ids=["page", "redirect", "huge"],
)
def test_nonsense_in_labelguards_place_is_a_503(labelguard: Labelguard, nonsense: dict[str, Any]) -> None:
    """HTML from there would run with the annotator's rights, a redirect would lead them away."""
    for name, value in nonsense.items():
        setattr(labelguard, name, value)
    assert_gone(get(PageScript(Studio(), labelguard.url), "/labelguard/page/v1/prompts"))


def test_labelguard_that_is_gone_is_a_503_at_once() -> None:
    """Label Studio itself is as before."""
    app = PageScript(Studio(), NOWHERE)
    assert_gone(get(app, "/labelguard/page.js"))
    assert get(app, "/projects/").status == 200


def test_labelguard_that_never_answers_is_a_503_in_time() -> None:
    """A socket that accepts and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        app = PageScript(Studio(), f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=0.2)
        assert_gone(get(app, "/labelguard/page/v1/prompts"))


def test_labelguard_that_answers_byte_by_byte_is_a_503_in_time(labelguard: Labelguard) -> None:
    """Every byte comes within the socket's timeout, the answer would not."""
    labelguard.drip, labelguard.body = 0.05, b'{"prompts": [' + b" " * 100 + b"]}"
    assert_gone(get(PageScript(Studio(), labelguard.url, timeout=0.3), "/labelguard/page/v1/prompts"))


def test_a_request_that_is_too_large_is_refused_unread(labelguard: Labelguard) -> None:
    """The limit is on what is declared; nothing is read or passed on."""
    app = PageScript(Studio(), labelguard.url)
    answer = get(app, "/labelguard/page/v1/check", "POST", CONTENT_LENGTH=str(MAX_REQUEST_BYTES + 1))
    assert (answer.status, labelguard.asked) == (413, [])
    assert json.loads(answer.body)["error"] == "Requests may have 2097152 bytes at most."


@pytest.mark.parametrize(
    ("method", "environ", "status"),
    [
        ("DELETE", {}, 405),
        ("POST", {"CONTENT_LENGTH": "many"}, 411),
        ("POST", {"HTTP_TRANSFER_ENCODING": "chunked"}, 411),
    ],
)
def test_requests_of_other_shapes_are_refused(
    labelguard: Labelguard, method: str, environ: dict[str, str], status: int
) -> None:
    """Other methods, and bodies whose length is not said."""
    answer = get(PageScript(Studio(), labelguard.url), "/labelguard/page/v1/check", method, b"", **environ)
    assert (answer.status, labelguard.asked) == (status, [])


def test_a_wrong_upstream_address_stops_the_start_with_a_sentence() -> None:
    """It says the variable, the value and the shape."""
    with pytest.raises(ValueError, match="LABELGUARD_UPSTREAM is 'localhost:8090'; it must be an address like"):
        PageScript(Studio(), "localhost:8090")


def assert_gone(answer: Answer) -> None:
    """The page script's sign that labelguard is not there."""
    assert answer.status == 503
    assert json.loads(answer.body) == {"error": "labelguard does not answer at the moment."}
