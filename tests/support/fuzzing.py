"""Hostile requests against the whole service: made from a seed, sent to the real application, watched.

A case is one request. What must never come of one: an answer of 5xx (but for a 503 that says which part is
missing), an exception, an error in the log, an answer without the protecting headers, memory or log that grow
with the number of cases.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import logging
import os
import re
import resource
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, TypeVar
from urllib.parse import quote, unquote_to_bytes, urlencode

import sqlalchemy as sa
from pydantic import SecretStr

from fakestudio import FakeStudio
from labelguard.connectors import User
from labelguard.engine import Engine
from labelguard.events import Event
from labelguard.logs import formatter, through_logging
from labelguard.outbox import Outbox
from labelguard.settings import Settings
from labelguard.store import Store, records, schema
from labelguard.tokens import hash_token
from labelguard.web.app import create_app
from mutations import DELIVERIES, Mutator

T = TypeVar("T")

PROJECT = 1
TOKEN = "the-token-of-the-fuzzed-project"
API_TOKEN = "the-api-token-of-the-fuzzed-service"
START = datetime(2026, 11, 23, 21, 0, tzinfo=UTC)
KEEP_REJECTED = 200
MAX_BODY = 256 * 1024

POLICY = f"""\
project: {PROJECT}
people: {{leads: [chat]}}
confidence: {{control: confidence, scale: [1, 5]}}
source: data.source
rules:
  - rule: label-constraints
    control: topics
    mode: enforce
    block: true
    options: {{exclusive: [[refund, billing]], requires: {{refund: [billing]}}, max_labels: 1, required: true}}
    actions: [prompt, rework]
  - rule: label-constraints
    mode: recommend
    options: {{max_labels: 2}}
    actions: [prompt, replace, second-opinion, {{notify: leads}}]
  - rule: gold-check
    mode: enforce
    options: {{target_accuracy: 0.9, false_alarm: 0.2, match: jaccard, tolerance: 0.5, remind_after: 1}}
    actions: [prompt]
  - rule: single-label-overuse
    mode: enforce
    options: {{false_alarm: 0.2, tolerance: 1, observe_after: 10, observe_share: 0.5, remind_after: 1}}
    actions: [prompt]
"""

SAID_ON_PURPOSE = (
    "labelguard has no token for Label Studio",
    "Label Studio did not say who is signed in",
)
"""Sentences of a 503 that are an answer and no accident; `/readyz` may say 503 too."""

_TABLES = (
    "actions",
    "reviews",
    "findings",
    "judgments",
    "annotation_versions",
    "annotations",
    "inbox",
    "rejected",
    "gold",
    "tasks",
    "annotators",
    "rule_states",
    "job_runs",
    "cursors",
    "guidelines",
)
_PATHS = (
    "/",
    "/healthz",
    "/readyz",
    "/metrics",
    "/page.js",
    "/status.css",
    "/favicon.svg",
    "/sign-in",
    "/sign-out",
    "/switch/stop",
    "/switch/start",
    "/api/v1/findings",
    "/api/v1/findings/1",
    "/api/v1/findings/1/uphold",
    "/api/v1/actions",
    "/api/v1/actions/1",
    "/api/v1/actions/1/undo",
    "/api/v1/policies",
    "/api/v1/policies/1",
    "/api/v1/status",
    "/page/v1/session",
    "/page/v1/prompts",
    "/page/v1/check",
    "/page/v1/prompts/x/seen",
    "/webhook/1",
    "/webhook/2",
    "/findings/1/dismiss",
    "/actions/1/approve",
)
_ROUTES = (
    "/ (the page)",
    "/webhook",
    "/page/v1/session",
    "/page/v1/prompts",
    "/page/v1/check",
    "/page.js",
    "/api/v1/findings",
    "/api/v1/actions",
    "/api/v1/policies",
    "/api/v1/status",
    "/sign-in",
    "/sign-out",
    "/switch",
    "/findings",
    "/actions",
    "/healthz",
    "/readyz",
    "/metrics",
    "/status.css",
    "/favicon.svg",
)
_FILTERS = (
    "project",
    "rule",
    "annotator",
    "annotation",
    "state",
    "after",
    "limit",
    "kind",
    "finding",
    "version",
    "done",
    "saved",
    "task",
)
_HEADERS = (
    "Accept",
    "Accept-Language",
    "Accept-Encoding",
    "Cookie",
    "Host",
    "Origin",
    "Sec-Fetch-Site",
    "Referer",
    "Forwarded",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-Forwarded-Prefix",
    "Content-Type",
    "Content-Encoding",
    "If-None-Match",
    "If-Modified-Since",
    "Range",
    "If-Range",
    "Authorization",
    "X-Labelguard-Token",
    "X-Labelguard-Session",
    "User-Agent",
    "Content-Length",
    "Transfer-Encoding",
    "X-HTTP-Method-Override",
    "Expect",
    "Upgrade",
    "Connection",
    "Content-MD5",
    "Date",
    "Cache-Control",
)
_HEADER_VALUES = (
    "",
    "*",
    "a, b;q=2",
    ";;;,,,",
    "q=nan",
    "text/html",
    "application/json",
    "text/html;q=0.1, */*;q=1e9",
    "http://[",
    "http://a:99999999",
    "null",
    "same-origin",
    "cross-site",
    "bytes=0-",
    "bytes=9-1",
    "bytes=a-b,c",
    'W/"',
    '"a"',
    "Thu, 99 Foo 20266 99:99:99 GMT",
    'for="[::1]:x";host=evil.example',
    "evil.example",
    "127.0.0.1, ::1",
    "999999999999999999999999",
    "-1",
    "1e3",
    "chunked",
    "gzip",
    "br",
    "identity;q=0",
    "Bearer",
    "Bearer ",
    "Basic Og==",
    "Basic \xff",
    "multipart/form-data",
    "multipart/form-data; boundary=",
    "multipart/form-data; boundary=x",
    "application/x-www-form-urlencoded; charset=utf-16",
    "application/json; charset=nonsense",
    "text/plain; charset=x-\xe9",
    "labelguard_session=a.b",
    "sessionid=user-3",
    "sessionid=\x7f; ;=;a",
    "100-continue",
    "websocket",
    "\xe9\xff\x80",
    "en;q=x",
)


@dataclass(frozen=True)
class Case:
    """One request; ``@name@`` in a header, path or form stands for what the service gave out before."""

    method: str
    path: str
    query: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    def dump(self) -> dict[str, Any]:
        """As JSON knows it."""
        return {
            "method": self.method,
            "path": self.path,
            "query": self.query,
            "headers": [list(header) for header in self.headers],
            "body": base64.b64encode(self.body).decode(),
        }

    @classmethod
    def load(cls, found: dict[str, Any]) -> Case:
        """The case that :meth:`dump` wrote."""
        headers = tuple((name, value) for name, value in found["headers"])
        return cls(found["method"], found["path"], found["query"], headers, base64.b64decode(found["body"]))


def make_case(seed: int, number: int) -> Case:
    """The case with this number."""
    random = Random(f"{seed}:{number}")
    make = random.choices(
        (_delivered, _strange_delivery, _checked, _prompted, _asked_api, _clicked, _anything),
        weights=(62, 5, 9, 8, 7, 5, 4),
    )[0]
    return make(random, Mutator(random))


def _delivered(random: Random, mutator: Mutator) -> Case:
    headers = (("X-Labelguard-Token", TOKEN), ("Content-Type", "application/json"))
    return Case("POST", f"/webhook/{PROJECT}", "", headers, mutator.body(mutator.delivery(PROJECT)))


def _strange_delivery(random: Random, mutator: Mutator) -> Case:
    token = random.choice((TOKEN, "", "wrong", "\xff" * 40, "x" * 5000, API_TOKEN))
    number = random.choice(
        ("1", "2", "0", "-1", str(2**63), "9" * 4000, "9" * 5000, "1.0", "%00", "1%0d%0aa", "١", "1/")
    )
    value = mutator.value() if random.random() < 0.5 else mutator.delivery(random.choice((1, 2)))
    body = mutator.body(value)
    if random.random() < 0.05:
        body = b" " * (MAX_BODY + random.choice((-1, 0, 1, 5)))
    return Case("POST", f"/webhook/{number}", "", (("X-Labelguard-Token", token), *_strange_headers(random)), body)


def _strange_headers(random: Random) -> tuple[tuple[str, str], ...]:
    names = random.sample(_HEADERS, random.choice((0, 1, 1, 2, 4)))
    return tuple((name, random.choice(_HEADER_VALUES)) for name in names)


def _session(random: Random) -> tuple[tuple[str, str], ...]:
    chance = random.random()
    value = "@session@" if chance < 0.85 else random.choice(("", "a.b", "@session@x", "\xff", "null", "@cookie@"))
    return (("X-Labelguard-Session", value), ("Content-Type", "application/json"))


def _checked(random: Random, mutator: Mutator) -> Case:
    delivery = mutator.delivery(PROJECT)
    annotation = delivery.get("annotation") if isinstance(delivery, dict) else None
    result = annotation.get("result", []) if isinstance(annotation, dict) else mutator.value()
    body = {"project": PROJECT, "task": random.randrange(1, 40), "result": result}
    for _ in range(random.choice((0, 0, 1))):
        mutator.change(body)
    return Case("POST", "/page/v1/check", "", (*_session(random), *_maybe_strange(random)), mutator.body(body))


def _maybe_strange(random: Random) -> tuple[tuple[str, str], ...]:
    return _strange_headers(random) if random.random() < 0.15 else ()


def _prompted(random: Random, mutator: Mutator) -> Case:
    headers = (*_session(random), *_maybe_strange(random))
    step = random.choice(("session", "prompts", "prompts", "seen", "acknowledge", "dispute", "dispute"))
    if step == "session":
        cookie = random.choice(
            ("sessionid=user-3", "sessionid=user-7", "", "sessionid=\xff", "a=b; sessionid=user-2", "x" * 9000)
        )
        origin = random.choice((("Sec-Fetch-Site", "same-origin"), ("Origin", random.choice(_HEADER_VALUES))))
        body = mutator.body({"project": random.choice((1, 1, "1", mutator.scalar()))})
        return Case("POST", "/page/v1/session", "", (*headers, ("Cookie", cookie), origin), body)
    if step == "prompts":
        query = {"project": "1", "annotation": str(random.randrange(1, 200))}
        if random.random() < 0.5:
            query["saved"] = random.choice(("2026-11-23T01:00:00Z", mutator.text(), str(mutator.scalar())))
        if random.random() < 0.3:
            query[random.choice(_FILTERS)] = mutator.text()
        return Case("GET", "/page/v1/prompts", _query(query), headers)
    prompt = random.choice(
        ("@prompt@", "@prompt@", "x", "@session@", quote(mutator.text()[:300], safe="", errors="surrogatepass"))
    )
    body = mutator.body({"words": random.choice(("wrong", mutator.text(), mutator.value()))})
    return Case("POST", f"/page/v1/prompts/{prompt}/{step}", "", headers, body)


def _query(values: dict[str, str]) -> str:
    return urlencode(values, errors="surrogatepass")


def _asked_api(random: Random, mutator: Mutator) -> Case:
    token = API_TOKEN if random.random() < 0.97 else random.choice(("wrong", "\xff", "", API_TOKEN + "x"))
    headers = (("Authorization", f"Bearer {token}"), *_maybe_strange(random))
    number = random.choice(("1", "2", "17", "0", str(2**63), "9" * 5000, "x"))
    step = random.randrange(8)
    if step < 3:
        what = random.choice(("findings", "actions", "policies", "status", f"findings/{number}", f"actions/{number}"))
        query = {
            random.choice(_FILTERS): random.choice(("1", "open", mutator.text(), "9" * 4400))
            for _ in range(random.randrange(3))
        }
        return Case("GET", f"/api/v1/{what}", _query(query), headers)
    if step == 3:
        text = random.choice(
            (POLICY, f"project: 1\nrules: []\n# {mutator.text()}", mutator.text(), "[" * 300, "a: &a [*a]")
        )
        at = random.randrange(len(text) + 1)
        text = text[:at] + random.choice(("", mutator.text(), "\t", ": ", "- ")) + text[at:]
        # Of a project without deliveries: what is judged here shall be judged by the policy above.
        return Case("PUT", "/api/v1/policies/2", "", headers, text.encode("utf-8", "surrogatepass"))
    what, verb = random.choice(
        (
            ("findings", "uphold"),
            ("findings", "dismiss"),
            ("actions", "approve"),
            ("actions", "reject"),
            ("actions", "undo"),
        )
    )
    body = b"" if random.random() < 0.3 else mutator.body({"note": random.choice(("fine", mutator.value()))})
    number = random.choice((number, "@finding@"))
    return Case("POST", f"/api/v1/{what}/{number}/{verb}", "", (*headers, ("Content-Type", "application/json")), body)


def _clicked(random: Random, mutator: Mutator) -> Case:
    signed_in = (
        (
            "Cookie",
            "labelguard_session=" + random.choice(("@cookie@", "@cookie@", "@cookie@", "", "a.b", "\xff", "@session@")),
        ),
    )
    form = (("Content-Type", "application/x-www-form-urlencoded"),)
    step = random.randrange(5)
    if step == 0:
        query = {random.choice(_FILTERS): random.choice(("1", "approved", mutator.text()))}
        return Case("GET", "/", _query(query), (*signed_in, *_strange_headers(random)))
    if step == 1:
        values = {"token": random.choice((API_TOKEN, "x", mutator.text())), "name": mutator.text(), mutator.text(): "x"}
        body = _query(values).encode()
        return Case(
            "POST", "/sign-in", "", (*form, *_maybe_strange(random)), body if random.random() < 0.9 else mutator.body(1)
        )
    number = random.choice(("1", "@finding@", "9" * 30))
    path = random.choice(
        (
            f"/findings/{number}/uphold",
            f"/findings/{number}/dismiss",
            f"/actions/{number}/approve",
            f"/actions/{number}/reject",
            f"/actions/{number}/undo",
            "/switch/stop",
            "/switch/start",
            "/switch/start",
            "/sign-out" if random.random() < 0.05 else "/switch/start",
        )
    )
    body = _query({"csrf": "@csrf@", "note": mutator.text()}).replace("%40", "@").encode()
    return Case(
        "POST", path, _query({"project": mutator.text()[:50]}), (*signed_in, *form, *_maybe_strange(random)), body
    )


def _anything(random: Random, mutator: Mutator) -> Case:
    method = random.choice(
        ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT", "get", "\x7f", "PROPFIND")
    )
    path = random.choice(_PATHS)
    if random.random() < 0.5:
        at = random.randrange(len(path) + 1)
        path = (
            path[:at]
            + random.choice(("%00", "%ff", "//", "/../", "%2e%2e/", "\\", "%0d%0a", ";a", "?", "é", "%", "9" * 5000))
            + path[at:]
        )
    if random.random() < 0.1:
        path = random.choice(
            (
                "//evil.example/",
                "http://evil.example/",
                "*",
                "",
                "/static/../../etc/passwd",
                "/status.css/../base.html",
                "/" * 3000,
            )
        )
    body = mutator.body(mutator.value()) if random.random() < 0.5 else b""
    if random.random() < 0.1:
        body = (
            b'--x\r\nContent-Disposition: form-data; name="'
            + mutator.text().encode("utf-8", "surrogatepass")
            + b'"\r\n\r\na\r\n--x--'
        )
    query = quote(mutator.text()[:2000], errors="surrogatepass") if random.random() < 0.5 else ""
    return Case(method, path, query, _strange_headers(random), body)


class _Studio(FakeStudio):
    """Tells whose browser it is by the cookie."""

    def whoami(self, cookie: str) -> User | None:
        """``user-3`` is user 3."""
        number = cookie.rpartition("sessionid=user-")[2]
        return (
            User(int(number), f"u{number}@example.com", f"User {number}")
            if number.isdecimal() and len(number) < 4
            else None
        )


class Watch(logging.Handler):
    """The log as it would be written, counted; keeps what must not be in it."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.setFormatter(formatter(json=True))
        self.bytes = 0
        self.longest = 0
        self.bad: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Count one line."""
        line = self.format(record)
        self.bytes += len(line) + 1
        self.longest = max(self.longest, len(line))
        if record.levelno >= logging.ERROR or record.exc_info:
            self.bad.append(line)
        elif "\n" in line or not line.isprintable():
            self.bad.append(f"not one printable line: {line!r}")


class World:
    """The whole service, one project with several rules, and what it gave out so far."""

    def __init__(self, database_url: str, *, at_once: bool = False) -> None:
        """With ``at_once`` writes happen in the calling thread: for volume, where waiting costs more than working."""
        self.now = START
        self.settings = Settings(
            database_url=database_url,
            api_token=SecretStr(API_TOKEN),
            secret_key=SecretStr("a key for the fuzzed service"),
            inline_deadline=0,
            max_body_bytes=MAX_BODY,
            keep_rejected=KEEP_REJECTED,
        )
        self.store = Store.open(database_url, durable=False, single=at_once)
        self.studio = _Studio()
        self.engine = Engine(self.store, self._clock, own_user=9, keep_rejected=KEEP_REJECTED)
        self.outbox = Outbox(self.store, self.engine, self.studio, _Notifier(), self._clock, jitter=lambda: 0.5)
        self.app = create_app(
            self.store, self.engine, self.outbox, self.studio, self.settings, self._clock, patience=0.0
        )
        self.given: dict[str, str] = {}
        self.watch = Watch()
        self.count = 0
        self._root = logging.getLogger()
        self._before = (self._root.handlers[:], self._root.level)
        self._root.handlers[:] = [self.watch]
        self._root.setLevel(logging.INFO)
        through_logging()
        self.store.write(self._connect)
        self.renew()

    def _clock(self) -> datetime:
        return self.now

    def _connect(self, conn: sa.Connection) -> None:
        about = next(json.loads(text) for text in DELIVERIES if "label_config" in text)
        for number, token in ((PROJECT, TOKEN), (2, "another-token")):
            project = Event.from_delivery(
                {}, {"action": "PROJECT_UPDATED", "project": {**about["project"], "id": number}}
            ).project
            assert project is not None
            records.save_project(conn, project, self.now)
            records.set_connection(
                conn,
                number,
                connected_at=self.now - timedelta(days=1),
                webhook_id=number,
                webhook_url="http://localhost",
                token_hash=hash_token(token),
            )
        records.add_policy(conn, PROJECT, POLICY, self.now)

    def renew(self) -> None:
        """Empty the store, so that a long run does not only grow it, and sign in anew."""

        def job(conn: sa.Connection) -> None:
            for name in _TABLES:
                conn.execute(sa.delete(schema.metadata.tables[name]))
            conn.execute(sa.delete(schema.policies).where(schema.policies.c.project != PROJECT))
            records.set_actions_enabled(conn, True, by="", now=self.now)
            answer = json.loads(next(text for text in DELIVERIES if '"ANNOTATION_CREATED"' in text))["annotation"][
                "result"
            ]
            for task in range(1, 6):
                records.add_gold(conn, PROJECT, task, answer, "file", self.now)

        self.store.write(job)
        self.studio.effects.clear()
        # From another address than the cases': theirs may be throttled.
        signed = self._plain("POST", "/sign-in", {"token": API_TOKEN, "name": "Ada"})
        cookie = signed[1].get("Set-Cookie", "").partition("=")[2].partition(";")[0]
        page = self._plain("GET", "/", None, ("Cookie", f"labelguard_session={cookie}"))[2].decode()
        csrf = page.partition('name="csrf" value="')[2].partition('"')[0]
        headers = (
            ("Cookie", "sessionid=user-3"),
            ("Sec-Fetch-Site", "same-origin"),
            ("Content-Type", "application/json"),
        )
        opened = self.send(Case("POST", "/page/v1/session", "", headers, b'{"project": 1}'), address="192.0.2.7")
        if not (cookie and csrf and opened[0] == 200):
            raise AssertionError(f"could not sign in: {signed[0]}, {opened[0]}, {opened[2]!r}")
        self.given = {
            "cookie": cookie,
            "csrf": csrf,
            "session": json.loads(opened[2])["token"],
            "prompt": "none",
            "finding": "1",
        }

    def _plain(self, method: str, path: str, form: dict[str, str] | None, *headers: tuple[str, str]) -> Any:
        body = _query(form).encode() if form else b""
        given = (*headers, ("Content-Type", "application/x-www-form-urlencoded"))
        return self.send(Case(method, path, "", given, body), address="192.0.2.7")

    def send(self, case: Case, *, address: str = "198.51.100.1") -> tuple[int, dict[str, str], bytes]:
        """Hand a request to the application as the server does."""
        # What waitress itself refuses never gets to the application.
        headers = {name: self._filled(value) for name, value in case.headers}
        body = case.body
        if b"@csrf@" in body:
            body = body.replace(b"@csrf@", self.given["csrf"].encode())
        environ: dict[str, Any] = {
            "REQUEST_METHOD": case.method,
            "SCRIPT_NAME": "",
            "PATH_INFO": unquote_to_bytes(self._filled(case.path)).decode("latin-1"),
            "QUERY_STRING": case.query,
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "8090",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": address,
            "HTTP_HOST": "localhost:8090",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(body),
            "wsgi.errors": io.StringIO(),
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
            "wsgi.input_terminated": True,
            "CONTENT_LENGTH": str(len(body)),
        }
        for name, value in headers.items():
            key = name.upper().replace("-", "_")
            if key == "CONTENT_LENGTH":
                continue
            environ[key if key == "CONTENT_TYPE" else f"HTTP_{key}"] = value
        started: list[tuple[str, list[tuple[str, str]]]] = []

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            started[:] = [(status, headers)]

        answer = self.app.wsgi_app(environ, start_response)
        try:
            content = b"".join(answer)
        finally:
            close = getattr(answer, "close", None)
            if close is not None:
                close()
        status, found = started[0]
        return int(status[:3]), dict(found), content

    def _filled(self, text: str) -> str:
        if "@" in text:
            for name, value in self.given.items():
                text = text.replace(f"@{name}@", value)
        return text

    def run(self, case: Case) -> tuple[int, str]:
        """Send a case; returns the status and what was wrong, empty where nothing was."""
        self.count += 1
        self.now += timedelta(seconds=0.1)
        try:
            # Many addresses: the limit on wrong tokens is for each.
            status, headers, content = self.send(case, address=f"198.51.100.{self.count % 50}")
            if status == 200 and case.path.startswith("/webhook/"):
                # As the worker does, so that a case has its consequences at once.
                self.engine.process_pending()
            if self.count % 200 == 0:
                self.outbox.deliver_due()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what is looked for
            return 0, f"{type(error).__name__}: {error}"
        self._learn(case, status, content)
        if self.watch.bad:
            bad, self.watch.bad = self.watch.bad, []
            return status, f"logged: {bad[0]}"
        return status, _wrong(case, status, headers, content)

    def _learn(self, case: Case, status: int, content: bytes) -> None:
        if (
            content
            and status == 200
            and case.path == "/page/v1/prompts"
            and (prompts := json.loads(content)["prompts"])
        ):
            self.given["prompt"] = prompts[-1]["id"]
        elif (
            content and status == 200 and case.path == "/api/v1/findings" and (found := json.loads(content)["findings"])
        ):
            self.given["finding"] = str(found[-1]["id"])

    def rejected(self) -> int:
        """How many refused deliveries are kept."""
        with self.store.read() as conn:
            return conn.scalar(sa.select(sa.func.count()).select_from(schema.rejected)) or 0

    def close(self) -> None:
        """Let go of everything."""
        self._root.handlers[:], level = self._before
        self._root.setLevel(level)
        self.store.close()


class _Notifier:
    name = "notify"

    def notify(self, target: str, title: str, body: str) -> None:
        """Takes everything."""


def _wrong(case: Case, status: int, headers: dict[str, str], content: bytes) -> str:
    if status >= 500:
        text = content.decode("utf-8", "replace")
        # Flask takes several slashes for one.
        ready = re.sub("/+", "/", case.path) == "/readyz"
        if status == 503 and (ready or any(sentence in text for sentence in SAID_ON_PURPOSE)):
            return ""
        return f"answered {status}: {text[:300]}"
    if "default-src 'none'" not in headers.get("Content-Security-Policy", ""):
        return "has no strict Content-Security-Policy"
    if headers.get("X-Content-Type-Options") != "nosniff":
        return "has no nosniff"
    for name, value in headers.items():
        if not (name + value).isprintable():
            return f"has the header {name!r}: {value!r}"
    return ""


@contextlib.contextmanager
def world(database_url: str, *, at_once: bool = False) -> Iterator[World]:
    """A :class:`World`, closed in the end."""
    made = World(database_url, at_once=at_once)
    try:
        yield made
    finally:
        made.close()


@dataclass
class Totals:
    """What came of a run."""

    cases: int = 0
    seconds: float = 0.0
    statuses: Counter[str] = field(default_factory=Counter)
    deliveries: Counter[str] = field(default_factory=Counter)
    findings: int = 0
    log_bytes: int = 0
    longest_line: int = 0
    slowest: float = 0.0
    slowest_of: int = -1
    largest_jump: int = 0
    """By how many bytes one case alone raised the most memory ever held, and which."""
    largest_jump_of: int = -1
    memory_warm: int = 0
    memory_end: int = 0
    memory_peak: int = 0
    wrong: int = 0
    problems: list[dict[str, Any]] = field(default_factory=list)
    """The first of each kind."""

    @property
    def growth(self) -> int:
        """Bytes of memory that came after the warm-up and stayed."""
        return self.memory_end - self.memory_warm

    @property
    def log_per_case(self) -> float:
        """Bytes of log for each case."""
        return self.log_bytes / max(1, self.cases)


RENEW_EVERY = 10_000
MOST_PROBLEMS = 10
"""How many different ones end a run."""


def fuzz(made: World, seed: int, numbers: Sequence[int], *, seconds: float = 0, progress: Any = None) -> Totals:
    """Run the cases with these numbers; ends early after a few problems, or after so many seconds (0: never)."""
    totals = Totals()
    before: deque[Case] = deque(maxlen=30)
    kinds: set[str] = set()
    began = time.monotonic()
    warm = min(len(numbers), 2 * RENEW_EVERY)
    for done, number in enumerate(numbers, start=1):
        case = make_case(seed, number)
        at = time.monotonic()
        peak = _peak()
        status, wrong = made.run(case)
        took = time.monotonic() - at
        if (jump := _peak() - peak) > totals.largest_jump:
            totals.largest_jump, totals.largest_jump_of = jump, number
        if took > totals.slowest:
            totals.slowest, totals.slowest_of = took, number
        totals.statuses[f"{_route(case)} {status}"] += 1
        if wrong:
            totals.wrong += 1
            if (kind := _kind(wrong)) not in kinds:
                kinds.add(kind)
                earlier = [each.dump() for each in before]
                totals.problems.append(
                    {"seed": seed, "number": number, "wrong": wrong, "case": case.dump(), "before": earlier}
                )
            if len(kinds) >= MOST_PROBLEMS:
                break
        before.append(case)
        totals.cases = done
        if done % RENEW_EVERY == 0:
            _count(made, totals)
            made.renew()
        if done == warm:
            totals.memory_warm = memory()
        if progress is not None and done % 100 == 0:
            progress(done)
        if seconds and done % 100 == 0 and time.monotonic() - began > seconds:
            break
    _count(made, totals)
    totals.seconds = time.monotonic() - began
    totals.log_bytes, totals.longest_line = made.watch.bytes, made.watch.longest
    totals.memory_end = memory()
    totals.memory_warm = totals.memory_warm or totals.memory_end
    totals.memory_peak = _peak()
    return totals


def _count(made: World, totals: Totals) -> None:
    with made.store.read() as conn:
        states = sa.select(schema.inbox.c.state, sa.func.count()).group_by(schema.inbox.c.state)
        for state, count in conn.execute(states):
            totals.deliveries[state] += count
        totals.findings += conn.scalar(sa.select(sa.func.count()).select_from(schema.findings)) or 0
    if made.rejected() > KEEP_REJECTED:
        totals.problems.append({"wrong": f"{made.rejected()} refused deliveries are kept, not {KEEP_REJECTED}"})


def _kind(wrong: str) -> str:
    """What two problems of the same cause have in common: where a traceback ends, without its numbers."""
    try:
        line = json.loads(wrong.removeprefix("logged: "))
        wrong = (line.get("exception") or line["event"]).strip().split("\n")[-1]
    except ValueError:
        pass
    return re.sub(r"\d+", "0", wrong)[:150]


def _route(case: Case) -> str:
    path = _filled_path(case.path)
    for route in _ROUTES:
        if path == route or path.startswith(f"{route}/"):
            return route
    return "other"


def _filled_path(path: str) -> str:
    return path if path != "/" else "/ (the page)"


def memory() -> int:
    """The bytes of memory this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
