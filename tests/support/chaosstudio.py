"""A Label Studio over HTTP that keeps what is done to it, counts every effect, and misbehaves by a plan.

It answers the routes that labelguard's connector uses with the shapes of Label Studio 1.23 (and, for
Enterprise, of its published API), as far as the connector reads them. It lives in the process of the test,
where no SIGKILL meant for labelguard reaches it. After applying an effect it can have the process that asked
for it killed before the answer is sent: the moment between a call and its recording, without any hook.

Alerts arrive here as well: ``json://`` addresses of apprise.
"""

from __future__ import annotations

import json
import random
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from chaosfleet import STARTED

Raw = dict[str, Any]
Answer = tuple[int, Any]

TOKEN = "c0ffee" * 6 + "c0ff"
ADMIN, OWN = 1, 9

LABEL_CONFIG = """<View>
  <Text name="text" value="$text"/>
  <Choices name="topics" toName="text" choice="multiple">
    <Choice value="spam"/><Choice value="important"/><Choice value="refund"/><Choice value="billing"/>
  </Choices>
</View>"""

SENDER = "X-Sender"
"""The header with which an alert says which process sent it."""

AFTER_APPLYING = frozenset({"fail-after", "drop-after", "late", "kill-after"})
"""Faults with which an effect has happened, and whoever asked for it does not know."""


@dataclass(frozen=True, slots=True)
class Effect:
    """Something that was done to Label Studio, or an alert that arrived."""

    kind: str
    about: tuple[Any, ...]
    content: Any
    fault: str | None
    at: float
    """``time.monotonic()``."""
    sender: str = ""
    """Which process sent an alert."""


@dataclass
class Plan:
    """What goes wrong, drawn from a seed; nothing until it is armed."""

    seed: int
    rates: Mapping[str, float] = field(
        default_factory=lambda: {
            "fail-before": 0.05,
            "fail-after": 0.05,
            "drop-before": 0.03,
            "drop-after": 0.04,
            "busy": 0.03,
            "late": 0.015,
            "kill-after": 0.06,
            "kill-before": 0.03,
        }
    )
    """How likely each fault is for a request that changes something."""
    reading: Mapping[str, float] = field(
        default_factory=lambda: {"fail-before": 0.01, "drop-before": 0.005, "busy": 0.005}
    )
    """How likely each is for a request that only asks."""
    armed: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def draw(self, *, changes: bool) -> str | None:
        """The next request's fault."""
        with self._lock:
            if not self.armed:
                return None
            at = self._random.random()
        for fault, rate in (self.rates if changes else self.reading).items():
            at -= rate
            if at < 0:
                return fault
        return None


@dataclass
class ChaosStudio:
    """What Label Studio holds, and what was done to it."""

    enterprise: bool = False
    plan: Plan = field(default_factory=lambda: Plan(0))
    late: float = 1.5
    """Seconds until a late answer comes: beyond the client's patience."""
    kill: Callable[[int], bool] = lambda _port: False
    """Kills the process that owns a local port; whether there was one."""
    saved: Callable[[Raw], None] = lambda _annotation: None
    """Told of an annotation that labelguard changed: Label Studio sends a webhook for it."""
    projects: dict[int, Raw] = field(default_factory=dict)
    tasks: dict[int, Raw] = field(default_factory=dict)
    annotations: dict[int, Raw] = field(default_factory=dict)
    webhooks: dict[int, Raw] = field(default_factory=dict)
    comments: list[Raw] = field(default_factory=list)
    assigned: dict[int, set[int]] = field(default_factory=dict)
    pauses: list[Raw] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
    port: int = 0
    lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def alerts_to(self, name: str) -> str:
        """The apprise address of an alert target that is received here."""
        return f"json://127.0.0.1:{self.port}/alerts/{name}?+{SENDER}={STARTED}"

    @contextmanager
    def running(self) -> Iterator[ChaosStudio]:
        """Answer on a free port until the end."""
        server = _Server(("127.0.0.1", 0), _handler(self))
        self.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="chaos-studio", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            thread.join()
            server.server_close()

    # What people do

    def add_project(self, number: int, **more: Any) -> None:
        """A project."""
        self.projects[number] = {
            "id": number,
            "title": f"Mail {number}",
            "label_config": LABEL_CONFIG,
            "expert_instruction": "",
            "maximum_annotations": 1,
            "skip_queue": "REQUEUE_FOR_OTHERS",
            "updated_at": stamp(),
            **more,
        }

    def add_task(self, number: int, project: int, data: Mapping[str, Any], **more: Any) -> None:
        """A task."""
        moment = stamp()
        with self.lock:
            self.tasks[number] = {
                "id": number,
                "project": project,
                "data": dict(data),
                "meta": {},
                "overlap": 1,
                "is_labeled": False,
                "created_at": moment,
                "updated_at": moment,
                **more,
            }

    def save(self, number: int, task: int, by: int, result: list[Raw], **fields: Any) -> Raw:
        """Somebody submits an annotation or saves it again; returns it as it is now."""
        with self.lock:
            now = datetime.now(UTC)
            known = self.annotations.get(number)
            if known is None:
                known = {
                    "id": number,
                    "task": task,
                    "project": self.tasks[task]["project"],
                    "completed_by": by,
                    "created_at": stamp(now),
                    "lead_time": 4.2,
                    "was_cancelled": False,
                    "ground_truth": False,
                    "draft_created_at": None,
                    "parent_prediction": None,
                    "parent_annotation": None,
                    "import_id": None,
                    "last_action": None,
                    "bulk_created": False,
                }
                now += timedelta(milliseconds=3)
            self.annotations[number] = {
                **known,
                "result": result,
                "updated_by": by,
                "updated_at": stamp(now),
                **fields,
            }
            self._touched(task, now)
            return dict(self.annotations[number])

    def delete(self, number: int) -> None:
        """Somebody deletes an annotation."""
        with self.lock:
            gone = self.annotations.pop(number)
            self._touched(gone["task"], datetime.now(UTC))

    def _touched(self, task: int, now: datetime) -> None:
        raw = self.tasks[task]
        people = {a["completed_by"] for a in self.annotations.values() if a["task"] == task and not a["was_cancelled"]}
        self.tasks[task] = {**raw, "is_labeled": len(people) >= raw["overlap"], "updated_at": stamp(now)}

    # What labelguard asks for

    def _done(self, kind: str, *about: Any, content: Any = None, fault: str | None = None, sender: str = "") -> None:
        self.effects.append(Effect(kind, about, content, fault, time.monotonic(), sender))

    def of_task(self, task: int) -> list[Raw]:
        """A task's annotations, in their order."""
        return [a for _, a in sorted(self.annotations.items()) if a["task"] == task]

    def listed(self, task: int) -> Raw:
        """A task as the Data Manager lists it."""
        return {
            **self.tasks[task],
            "predictions": [],
            "drafts": [],
            "annotations": self.of_task(task),
            "updated_by": [],
            "annotators": [],
        }

    def answer(self, method: str, path: str, query: Mapping[str, str], body: Any, fault: str | None) -> Answer:
        """Answer one request; what it changes is counted."""
        if _ENTERPRISE.search(path) and not self.enterprise:
            return _NO_SUCH_PAGE
        for wanted, pattern, work in _ROUTES:
            if wanted == method and (match := pattern.fullmatch(path)):
                with self.lock:
                    return work(self, [int(n) for n in match.groups()], query, body, fault)
        return _NO_SUCH_PAGE


def stamp(moment: datetime | None = None) -> str:
    """A time as Label Studio writes it."""
    return (moment or datetime.now(UTC)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


_NO_SUCH_PAGE: Answer = (404, "<html><body><h1>Page not found</h1></body></html>")
_TAKEN: Answer = (200, {})
_MISSING: Answer = (404, {"status_code": 404, "detail": "Not found.", "version": "1.23.2"})


def _version(studio: ChaosStudio, _ids: list[int], _query: Any, _body: Any, _fault: str | None) -> Answer:
    edition = "Enterprise" if studio.enterprise else "Community"
    parts: Raw = {key: {} for key in ("backend", "dm2", "lsf", "label-studio-converter", "label-studio-frontend")}
    return 200, {"release": "1.23.2", "edition": edition, **parts, "label-studio-os-package": {"version": "1.23.2"}}


def _user(number: int) -> Raw:
    name = {ADMIN: "admin", OWN: "labelguard"}.get(number, f"annotator{number}")
    return {
        "id": number,
        "email": f"{name}@example.com",
        "username": name,
        "first_name": name.title(),
        "last_name": "",
        "is_active": True,
        "role": "OW",
    }


def _whoami(studio: ChaosStudio, _ids: list[int], _query: Any, _body: Any, _fault: str | None) -> Answer:
    return 200, _user(OWN)


def _users(studio: ChaosStudio, _ids: list[int], _query: Any, _body: Any, _fault: str | None) -> Answer:
    people = {a["completed_by"] for a in studio.annotations.values()}
    return 200, [_user(number) for number in sorted({ADMIN, OWN, *people})]


def _project(studio: ChaosStudio, ids: list[int], _query: Any, _body: Any, _fault: str | None) -> Answer:
    return (200, studio.projects[ids[0]]) if ids[0] in studio.projects else _MISSING


def _annotation(studio: ChaosStudio, ids: list[int], _query: Any, _body: Any, _fault: str | None) -> Answer:
    return (200, studio.annotations[ids[0]]) if ids[0] in studio.annotations else _MISSING


def _change_annotation(studio: ChaosStudio, ids: list[int], _query: Any, body: Any, fault: str | None) -> Answer:
    number = ids[0]
    if number not in studio.annotations:
        return _MISSING
    known = studio.annotations[number]
    studio._done("cancel", number, content=body["was_cancelled"], fault=fault)
    made = studio.save(number, known["task"], OWN, known["result"], was_cancelled=body["was_cancelled"])
    studio.saved(made)
    return 200, made


def _task(studio: ChaosStudio, ids: list[int], _query: Any, _body: Any, _fault: str | None) -> Answer:
    if ids[0] not in studio.tasks:
        return _MISSING
    shown = [{**a, "completed_by": _user(a["completed_by"])} for a in studio.of_task(ids[0])]
    return 200, {**studio.tasks[ids[0]], "predictions": [], "annotations": shown}


def _change_task(studio: ChaosStudio, ids: list[int], _query: Any, body: Any, fault: str | None) -> Answer:
    number = ids[0]
    if number not in studio.tasks:
        return _MISSING
    if "overlap" in body:
        studio._done("overlap", number, content=(body["overlap"], body["is_labeled"]), fault=fault)
    if "data" in body:
        before = studio.tasks[number]["data"]
        for key in sorted({*before, *body["data"]}):
            if before.get(key) != body["data"].get(key):
                studio._done("note", number, key, content=body["data"].get(key), fault=fault)
    studio.tasks[number] = {**studio.tasks[number], **body, "updated_at": stamp()}
    return 200, studio.tasks[number]


def _listing(studio: ChaosStudio, _ids: list[int], query: Mapping[str, str], _body: Any, _fault: str | None) -> Answer:
    after, since = 0, ""
    asked = json.loads(query["query"])
    for item in asked.get("filters", {}).get("items", ()):
        if item["filter"] == "filter:tasks:id":
            after = item["value"]
        else:
            since = item["value"]
    project, chosen = int(query["project"]), asked.get("selectedItems", {"all": True})
    found = [
        number
        for number, raw in sorted(studio.tasks.items())
        if raw["project"] == project and number > after and raw["updated_at"] >= since
        if chosen["all"] or number in chosen["included"]
    ]
    return 200, {"tasks": [studio.listed(number) for number in found[: int(query["page_size"])]], "total": len(found)}


def _webhooks(studio: ChaosStudio, _ids: list[int], query: Mapping[str, str], _body: Any, _fault: str | None) -> Answer:
    return 200, [raw for raw in studio.webhooks.values() if raw["project"] == int(query["project"])]


def _add_webhook(studio: ChaosStudio, _ids: list[int], _query: Any, body: Any, _fault: str | None) -> Answer:
    number = len(studio.webhooks) + 1
    studio.webhooks[number] = {"id": number, **body}
    return 201, studio.webhooks[number]


def _change_webhook(studio: ChaosStudio, ids: list[int], _query: Any, body: Any, _fault: str | None) -> Answer:
    studio.webhooks[ids[0]] |= body
    return 200, studio.webhooks[ids[0]]


def _comments(studio: ChaosStudio, _ids: list[int], query: Mapping[str, str], _body: Any, _fault: str | None) -> Answer:
    return 200, [raw for raw in studio.comments if raw["annotation"] == int(query["annotation"])]


def _change_comment(studio: ChaosStudio, ids: list[int], _query: Any, body: Any, fault: str | None) -> Answer:
    made = next((raw for raw in studio.comments if raw["id"] == ids[0]), None)
    if made is None:
        return _MISSING
    made |= body
    studio._done("resolve", made["annotation"], content=made["text"], fault=fault)
    return 200, made


def _add_comment(studio: ChaosStudio, _ids: list[int], _query: Any, body: Any, fault: str | None) -> Answer:
    if body["annotation"] not in studio.annotations:
        return 400, {"annotation": [f'Invalid pk "{body["annotation"]}" - object does not exist.']}
    made = {"id": len(studio.comments) + 1, "created_by": OWN, "is_resolved": False, **body}
    studio.comments.append(made)
    studio._done("comment", body["annotation"], content=body["text"], fault=fault)
    return 201, made


def _assignees(studio: ChaosStudio, ids: list[int], _query: Any, _body: Any, _fault: str | None) -> Answer:
    return 200, [_assignment(ids[1], user) for user in sorted(studio.assigned.get(ids[1], ()))]


def _assignment(task: int, user: int) -> Raw:
    return {"id": task * 1000 + user, "task": task, "assignee": user, "type": "AN", "created_at": stamp()}


def _assign(studio: ChaosStudio, ids: list[int], _query: Any, body: Any, fault: str | None) -> Answer:
    studio.assigned.setdefault(ids[1], set()).update(body["users"])
    studio._done("assign", ids[1], content=tuple(body["users"]), fault=fault)
    return 201, _assignment(ids[1], body["users"][0])


def _unassign(studio: ChaosStudio, ids: list[int], query: Mapping[str, str], _body: Any, fault: str | None) -> Answer:
    users = {int(user) for user in query["users"].split(",")}
    studio.assigned[ids[1]] -= users
    studio._done("unassign", ids[1], content=tuple(sorted(users)), fault=fault)
    return 204, None


def _pauses(studio: ChaosStudio, ids: list[int], _query: Any, _body: Any, _fault: str | None) -> Answer:
    return 200, [raw for raw in studio.pauses if (raw["project"], raw["user"]) == (ids[0], ids[1])]


def _pause(studio: ChaosStudio, ids: list[int], _query: Any, body: Any, fault: str | None) -> Answer:
    made = {
        "id": len(studio.pauses) + 1,
        "project": ids[0],
        "user": ids[1],
        "paused_by": _user(OWN),
        "deleted_at": None,
        "created_at": stamp(),
        **body,
    }
    studio.pauses.append(made)
    studio._done("pause", ids[0], ids[1], content=body["verbose_reason"], fault=fault)
    return 201, made


_ENTERPRISE = re.compile("/comments/|/assignees|/members/")
"""Routes that Community does not have."""

Work = Callable[[ChaosStudio, list[int], Mapping[str, str], Any, str | None], Answer]

_ROUTES: tuple[tuple[str, re.Pattern[str], Work], ...] = tuple(
    (method, re.compile(pattern), work)
    for method, pattern, work in (
        ("GET", r"/api/version/?", _version),
        ("GET", r"/api/current-user/whoami", _whoami),
        ("GET", r"/api/users/", _users),
        ("GET", r"/api/projects/(\d+)/", _project),
        ("GET", r"/api/annotations/(\d+)/", _annotation),
        ("PATCH", r"/api/annotations/(\d+)/", _change_annotation),
        ("GET", r"/api/tasks/(\d+)/", _task),
        ("PATCH", r"/api/tasks/(\d+)/", _change_task),
        ("GET", r"/api/tasks/", _listing),
        ("GET", r"/api/webhooks/", _webhooks),
        ("POST", r"/api/webhooks/", _add_webhook),
        ("PATCH", r"/api/webhooks/(\d+)/", _change_webhook),
        ("GET", r"/api/comments/", _comments),
        ("POST", r"/api/comments/", _add_comment),
        ("PATCH", r"/api/comments/(\d+)/", _change_comment),
        ("GET", r"/api/projects/(\d+)/tasks/(\d+)/assignees", _assignees),
        ("POST", r"/api/projects/(\d+)/tasks/(\d+)/assignees", _assign),
        ("DELETE", r"/api/projects/(\d+)/tasks/(\d+)/assignees", _unassign),
        ("GET", r"/api/projects/(\d+)/members/(\d+)/pauses/", _pauses),
        ("POST", r"/api/projects/(\d+)/members/(\d+)/pauses/", _pause),
    )
)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever was killed does not wait for an answer; say nothing about it."""


def _handler(studio: ChaosStudio) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """One connection."""

        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
            """Say nothing about each request."""

        def _answered(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = urlsplit(self.path)
            changes = self.command != "GET" and not parts.path.startswith("/api/webhooks/")
            alert = parts.path.startswith("/alerts/")
            if not alert and self.headers.get("Authorization") != f"Token {TOKEN}":
                self._send(401, {"detail": "Invalid token."})
                return
            fault = studio.plan.draw(changes=changes)
            if fault == "kill-before":
                studio.kill(self.client_address[1])
            if fault == "fail-before":
                self._send(500, {"detail": "Server error."})
            elif fault == "busy":
                self._send(429, {"detail": "Request was throttled."}, {"Retry-After": "1"})
            elif fault in ("drop-before", "kill-before"):
                self._drop()
            else:
                self._apply(parts.path, parse_qs(parts.query), json.loads(raw) if raw else None, fault, alert=alert)

        def _apply(self, path: str, query: dict[str, list[str]], body: Any, fault: str | None, *, alert: bool) -> None:
            if alert:
                said = (body["title"], body["message"])
                studio._done("alert", path.rsplit("/", 1)[1], content=said, fault=fault, sender=self.headers[SENDER])
                status, answer = _TAKEN
            else:
                flat = {key: values[0] for key, values in query.items()}
                status, answer = studio.answer(self.command, path, flat, body, fault)
            if fault == "kill-after":
                studio.kill(self.client_address[1])
            if fault in ("kill-after", "drop-after"):
                self._drop()
                return
            if fault == "late":
                time.sleep(studio.late)
            if fault == "fail-after":
                self._send(502, "<html>Bad gateway</html>")
            else:
                self._send(status, answer)

        def _drop(self) -> None:
            self.close_connection = True
            with suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

        def _send(self, status: int, answer: Any, headers: Mapping[str, str] | None = None) -> None:
            page = isinstance(answer, str)
            text = b"" if answer is None else answer.encode() if page else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/html" if page else "application/json")
            self.send_header("Content-Length", str(len(text)))
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PATCH = do_DELETE = _answered  # noqa: N815 - the base class's names

    return Handler
