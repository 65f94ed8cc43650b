"""Label Studio through its own SDK.

What the server does beyond its documentation was observed on Label Studio Community 1.23.2 with
label-studio-sdk 2.1 and is checked again by the live tests. The SDK is imported on first use: it takes
about two seconds, which no ``labelguard --help`` should pay for.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import requests

from labelguard.connectors import ConnectorError, NotFound, Server, TaskRecord, User, Webhook
from labelguard.events import Annotation, BadDelivery, Event, Project

if TYPE_CHECKING:
    from label_studio_sdk.client import LabelStudio as Client

T = TypeVar("T")

SESSION_COOKIE = "sessionid"
"""The name of Label Studio's session cookie (Django's default, which it keeps)."""

WHOAMI_TIMEOUT = 2.0
"""Seconds a browser waits at most for us to ask Label Studio who it is."""

SSRF_REFUSED = (
    "Label Studio refuses webhooks to private and loopback addresses, and labelguard's is one. "
    "Start Label Studio with SSRF_PROTECTION_ENABLED=false or USE_DEFAULT_BANNED_SUBNETS=false, "
    "or give labelguard a public address (LABELGUARD_PUBLIC_URL)."
)

# Label Studio's own filter parser accepts exactly this.
_TIME_FORMAT = "%Y-%m-%dT%H:%M:%S.%fZ"

# Django's signed session values; anything else in there is not a session and is not passed on.
_SESSION_VALUE = re.compile(r"[A-Za-z0-9_:.=\-]{1,4096}")

_PAUSE_REASON = "CUSTOM_SCRIPT"
_TRY_AGAIN = frozenset({408, 425, 429})


class LabelStudio:
    """The ``Studio`` protocol on a real server."""

    name: ClassVar[str] = "studio"

    def __init__(self, url: str, api_key: str, timeout: float = 10.0) -> None:
        """``api_key`` is a legacy token or a personal access token; ``timeout`` is in seconds per request."""
        self.url = url.rstrip("/")
        self.timeout = timeout
        self._api_key = api_key
        self._lock = threading.Lock()
        self._made: Client | None = None
        self._server: Server | None = None

    def __repr__(self) -> str:
        return f"LabelStudio({self.url!r})"

    def __enter__(self) -> LabelStudio:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connections; the next request opens new ones."""
        with self._lock:
            made, self._made = self._made, None
        if made is not None:
            made._client_wrapper.httpx_client.httpx_client.close()  # noqa: SLF001 - the SDK has no close()

    def server(self) -> Server:
        """Edition, version, own user and capabilities (asked once, then remembered)."""
        with self._lock:
            if self._server is not None:
                return self._server
        about = self._call("asking for its version", self._client.versions.get)
        me = self._call("asking who labelguard is", self._client.users.whoami)
        edition = str(about.edition or "Community")
        enterprise = edition != "Community"
        server = Server(
            edition=edition,
            version=str(about.release or ""),
            user=_user(me.dict()),
            comments=enterprise,
            assignments=enterprise,
            pauses=enterprise,
        )
        with self._lock:
            self._server = server
        return server

    def time(self) -> datetime | None:
        """Label Studio's own clock now, to the second; None where it does not say."""
        try:
            answer = requests.get(f"{self.url}/health", timeout=WHOAMI_TIMEOUT, allow_redirects=False)
            told = parsedate_to_datetime(answer.headers["Date"])
        except (requests.RequestException, KeyError, ValueError):
            return None
        return told if told.tzinfo is not None else told.replace(tzinfo=UTC)

    def link(self, project: int, task: int, annotation: int | None = None) -> str:
        """Where a person sees a task (and annotation) in Label Studio."""
        chosen = f"&annotation={annotation}" if annotation is not None else ""
        return f"{self.url}/projects/{project}/data?task={task}{chosen}"

    def whoami(self, cookie: str) -> User | None:
        """The user a browser's Cookie header belongs to, or None. Set-Cookie answers are dropped."""
        session = _session_of(cookie)
        if session is None:
            return None
        # Not through the SDK: its session would add labelguard's own token and be told of labelguard.
        # The do-nothing `auth` keeps requests from adding one out of a .netrc.
        try:
            answer = requests.get(
                f"{self.url}/api/current-user/whoami",
                headers={"Cookie": f"{SESSION_COOKIE}={session}", "Accept": "application/json"},
                auth=lambda request: request,
                timeout=WHOAMI_TIMEOUT,
                allow_redirects=False,
            )
        except requests.RequestException:
            raise ConnectorError("Label Studio did not answer who is signed in.") from None
        if answer.status_code in {301, 302, 303, 307, 308, 401, 403}:
            return None
        if answer.status_code != 200:
            raise _refusal("asking who is signed in", answer.status_code, answer.headers, None)
        try:
            return _user(answer.json())
        except (ValueError, KeyError, TypeError):
            raise _nonsense("asking who is signed in") from None

    def users(self) -> Sequence[User]:
        """All users that can be seen."""
        found = self._call("listing users", self._client.users.list)
        return [_user(user.dict()) for user in found]

    def project(self, project: int) -> Project:
        """One project."""
        doing = f"reading project {project}"
        raw = self._read(f"api/projects/{project}/", doing)
        return _parsed(doing, {"action": "PROJECT_UPDATED", "project": raw}, lambda event: event.project)

    def annotation(self, annotation: int) -> Annotation:
        """One annotation as it is now; raises :class:`NotFound` when it is gone."""
        doing = f"reading annotation {annotation}"
        raw = self._read(f"api/annotations/{annotation}/", doing)
        if not isinstance(raw, dict) or "project" not in raw:
            raise _nonsense(doing)
        body = {
            "action": "ANNOTATION_UPDATED",
            "annotation": _annotation(raw, []),
            "project": {"id": raw["project"]},
        }
        return _parsed(doing, body, lambda event: event.annotations[0])

    def task(self, task: int) -> TaskRecord:
        """One task with its annotations as they are now."""
        doing = f"reading task {task}"
        return _record(self._read(f"api/tasks/{task}/", doing, {"resolve_uri": "false"}), doing)

    def tasks_changed(
        self, project: int, since: datetime | None, *, after_id: int = 0, page_size: int = 100
    ) -> Iterator[TaskRecord]:
        """Tasks updated at or after ``since`` (all where None), by id, keyset-paged (never page 2).

        A second page would be counted from the start of a list that changes while it is read. Label Studio
        accepts filters it does not understand and then answers with everything, so the order is checked.
        """
        doing = f"listing the tasks of project {project}"
        while True:
            filters = [_filter("id", "greater", after_id, "Number")]
            if since is not None:
                filters.append(
                    _filter(
                        "updated_at",
                        "greater_or_equal",
                        since.astimezone(UTC).strftime(_TIME_FORMAT),
                        "Datetime",
                    )
                )
            query = {"filters": {"conjunction": "and", "items": filters}, "ordering": ["tasks:id"]}
            answer = self._read(
                "api/tasks/",
                doing,
                {
                    "project": project,
                    "fields": "all",
                    "resolve_uri": "false",
                    "page": 1,
                    "page_size": page_size,
                    "query": json.dumps(query),
                },
            )
            items = answer.get("tasks") if isinstance(answer, dict) else answer
            if not isinstance(items, list):
                raise _nonsense(doing)
            if not items:
                return
            for item in items:
                record = _record(item, doing)
                if record.task.id <= after_id:
                    raise ConnectorError(
                        f"Label Studio ignored the filters while labelguard was {doing}; "
                        "this version of Label Studio is not one labelguard can reconcile with.",
                        permanent=True,
                    )
                after_id = record.task.id
                yield record

    def webhooks(self, project: int) -> Sequence[Webhook]:
        """The project's webhooks."""
        found = self._call(
            f"listing the webhooks of project {project}",
            lambda: self._client.webhooks.list(project=str(project)),
        )
        return [_webhook(webhook.dict()) for webhook in found]

    def create_webhook(self, project: int, url: str, actions: Sequence[str], headers: dict[str, str]) -> Webhook:
        """Create an active webhook that carries payloads."""
        made = self._call(
            f"creating a webhook in project {project}",
            lambda: self._client.webhooks.create(
                project=project,
                url=url,
                actions=list(actions),
                headers=headers,
                is_active=True,
                send_payload=True,
                send_for_all_actions=False,
            ),
        )
        return _webhook(made.dict())

    def update_webhook(
        self, webhook: int, *, url: str, active: bool, actions: Sequence[str], headers: dict[str, str]
    ) -> None:
        """Set a webhook to exactly this."""
        self._call(
            f"changing webhook {webhook}",
            lambda: self._client.webhooks.update(
                webhook,
                url=url,
                is_active=active,
                actions=list(actions),
                headers=headers,
                send_payload=True,
                send_for_all_actions=False,
            ),
        )

    def delete_webhook(self, webhook: int) -> None:
        """Delete a webhook; one that is already gone is fine."""
        try:
            self._call(f"deleting webhook {webhook}", lambda: self._client.webhooks.delete(webhook))
        except NotFound:
            return

    def set_cancelled(self, annotation: int, cancelled: bool) -> None:
        """Set ``was_cancelled`` (``replace`` and its undo)."""
        self._call(
            f"changing annotation {annotation}",
            lambda: self._client.annotations.update(annotation, was_cancelled=cancelled),
        )

    def set_overlap(self, task: int, overlap: int, is_labeled: bool) -> None:
        """Set a task's overlap and ``is_labeled`` in one call (``second-opinion`` and its undo)."""
        self._call(
            f"changing task {task}",
            lambda: self._client.tasks.update(str(task), overlap=overlap, is_labeled=is_labeled),
        )

    def set_task_note(self, task: int, key: str, text: str) -> None:
        """Write one key of ``task.data``, reading with ``resolve_uri=false`` so that no link is lost.

        An empty text takes the key away again.
        """
        data = dict(self.task(task).task.data)
        if data.get(key, "") == text:
            return
        if text:
            data[key] = text
        else:
            del data[key]
        self._call(f"writing the note of task {task}", lambda: self._client.tasks.update(str(task), data=data))

    def set_label_config(self, project: int, label_config: str) -> None:
        """Replace a project's labeling interface."""
        self._call(
            f"changing the labeling interface of project {project}",
            lambda: self._client.projects.update(project, label_config=label_config),
        )

    def comment(self, annotation: int, text: str, marker: str) -> None:
        """Enterprise: comment on an annotation unless one with this marker is there already."""
        self._need("comments")
        doing = f"commenting on annotation {annotation}"
        there = self._enterprise("comments", doing, lambda: self._client.comments.list(annotation=annotation))
        if any(marker in (comment.text or "") for comment in there):
            return
        words = text if marker in text else f"{text}\n\n{marker}"
        self._enterprise("comments", doing, lambda: self._client.comments.create(annotation=annotation, text=words))

    def assign(self, project: int, task: int, users: Sequence[int]) -> None:
        """Enterprise: assign a task to exactly these annotators."""
        self._need("assignments")
        doing = f"assigning task {task}"
        assignments = self._client.projects.assignments
        there = self._enterprise("assignments", doing, lambda: assignments.list(project, task))
        # Reviewers are assigned through the same list and are none of our business.
        now = {each.assignee for each in there if each.type in {None, "AN"}}
        missing = [user for user in users if user not in now]
        surplus = sorted(now - set(users))
        if missing:
            self._enterprise("assignments", doing, lambda: assignments.assign(project, task, type="AN", users=missing))
        if surplus:
            leaving = ",".join(map(str, surplus))
            self._enterprise("assignments", doing, lambda: assignments.delete(project, task, type="AN", users=leaving))

    def pause(self, project: int, user: int, reason: str) -> None:
        """Enterprise: pause an annotator with a reason that they can read."""
        self._need("pauses")
        if self._our_pauses(project, user):
            return
        self._enterprise(
            "pauses",
            f"pausing user {user}",
            lambda: self._client.projects.pauses.create(project, user, reason=_PAUSE_REASON, verbose_reason=reason),
        )

    def unpause(self, project: int, user: int) -> None:
        """Enterprise: lift our pause."""
        self._need("pauses")
        for pause in self._our_pauses(project, user):
            try:
                self._enterprise(
                    "pauses",
                    f"lifting the pause of user {user}",
                    lambda pause=pause: self._client.projects.pauses.delete(project, user, pause),  # type: ignore[misc]
                )
            except NotFound:
                continue

    def _our_pauses(self, project: int, user: int) -> list[int]:
        """Standing pauses that labelguard's own user set; a manager's pause stays the manager's."""
        me = self.server().user.id
        found = self._enterprise(
            "pauses",
            f"reading the pauses of user {user}",
            lambda: self._client.projects.pauses.list(project, user, include_deleted=False),
        )
        return [
            pause.id
            for pause in found
            if pause.id is not None
            and pause.reason == _PAUSE_REASON
            and pause.deleted_at is None
            and pause.paused_by is not None
            and pause.paused_by.id == me
        ]

    @property
    def _client(self) -> Client:
        with self._lock:
            if self._made is None:
                self._made = self._call("looking at its token", self._connected)
            return self._made

    def _connected(self) -> Client:
        import httpx
        from label_studio_sdk.client import LabelStudio as Client

        return Client(  # type: ignore[no-untyped-call]
            base_url=self.url + "/",  # the SDK's token refresh cuts the last part of a path otherwise
            api_key=self._api_key,
            timeout=self.timeout,
            max_retries=0,  # its retries repeat POSTs
            httpx_client=httpx.Client(
                timeout=self.timeout,
                follow_redirects=False,  # a redirected POST becomes a GET and seems to have worked
                # Label Studio opens a session with every answer; kept, it would stand in for the token.
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            ),
        )

    def _read(self, path: str, doing: str, params: Mapping[str, Any] | None = None) -> Any:
        """GET plain JSON through the SDK's session.

        The SDK's typed calls lack ``query``, ``fields`` and ``resolve_uri`` for tasks, and rebuild every
        region of every result as an object; the store compares results as Label Studio wrote them.
        """
        from label_studio_sdk.core.api_error import ApiError

        def get() -> Any:
            wrapper = self._client._client_wrapper  # noqa: SLF001 - the SDK has no public door for a plain request
            answer = wrapper.httpx_client.request(path, method="GET", params=dict(params or {}))
            if answer.status_code != 200:
                raise ApiError(status_code=answer.status_code, headers=dict(answer.headers), body=_json(answer.text))
            return answer.json()

        return self._call(doing, get)

    def _call(self, doing: str, call: Callable[[], T]) -> T:
        """Make one request; every way in which it can fail becomes a sentence.

        The causes are cut off (``from None``): an ``ApiError`` prints cookies and whole bodies, and httpx
        prints addresses.
        """
        import httpx
        import pydantic
        from label_studio_sdk.core.api_error import ApiError
        from label_studio_sdk.core.parse_error import ParsingError

        try:
            return call()
        except ParsingError:
            raise _nonsense(doing) from None
        except ApiError as error:
            raise _refusal(doing, error.status_code or 0, error.headers or {}, error.body) from None
        except httpx.TimeoutException:
            raise ConnectorError(
                f"Label Studio did not answer within {self.timeout:g} seconds while labelguard was {doing}."
            ) from None
        except httpx.ConnectError:
            raise ConnectorError(
                f"Label Studio cannot be reached while {doing}. "
                "Check that it runs and that LABELGUARD_STUDIO_URL is its address."
            ) from None
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError):
            raise ConnectorError(
                "LABELGUARD_STUDIO_URL or LABELGUARD_STUDIO_API_KEY cannot be used: the address must "
                "look like https://studio.example.com, and the token must be copied whole.",
                permanent=True,
            ) from None
        except httpx.HTTPError:
            raise ConnectorError(f"The connection to Label Studio broke while labelguard was {doing}.") from None
        except (ValueError, pydantic.ValidationError):
            raise _nonsense(doing) from None

    def _need(self, capability: str) -> None:
        server = self.server()
        if not getattr(server, capability):
            raise ConnectorError(
                f"This Label Studio ({server.edition} {server.version}) has no {capability}.", permanent=True
            )

    def _enterprise(self, capability: str, doing: str, call: Callable[[], T]) -> T:
        """Make an Enterprise call; where the endpoint itself is missing, remember that."""
        from label_studio_sdk.core.api_error import ApiError

        def checked() -> T:
            try:
                return call()
            except ApiError as error:
                # A missing thing is told in JSON, a missing endpoint with a page.
                if error.status_code == 404 and not isinstance(error.body, dict):
                    with self._lock:
                        if self._server is not None:
                            self._server = _without(self._server, capability)
                    raise ConnectorError(f"This Label Studio has no {capability}.", permanent=True) from None
                raise

        return self._call(doing, checked)


def _without(server: Server, capability: str) -> Server:
    return replace(
        server,
        comments=server.comments and capability != "comments",
        assignments=server.assignments and capability != "assignments",
        pauses=server.pauses and capability != "pauses",
    )


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _nonsense(doing: str) -> ConnectorError:
    return ConnectorError(
        f"What answered while labelguard was {doing} is not Label Studio's API. Check LABELGUARD_STUDIO_URL."
    )


def _refusal(doing: str, status: int, headers: Mapping[str, str], body: Any) -> ConnectorError:
    """A refused request as a sentence. The body is looked at and never quoted."""
    if status == 404:
        return NotFound(f"Label Studio found nothing while labelguard was {doing}: it is gone, or was never there.")
    if status == 401:
        return ConnectorError(
            f"Label Studio refused labelguard's token while {doing}. Check LABELGUARD_STUDIO_API_KEY; "
            "a legacy token works only where Label Studio's organization settings allow legacy tokens.",
            permanent=True,
        )
    if status == 403 and "reserved network address" in json.dumps(body, default=str):
        return ConnectorError(SSRF_REFUSED, permanent=True)
    if status == 403:
        return ConnectorError(
            f"Label Studio does not allow labelguard's user this: {doing}. Give that user a role that may.",
            permanent=True,
        )
    if 300 <= status < 400:
        return ConnectorError(
            f"Label Studio sent labelguard elsewhere while {doing}. LABELGUARD_STUDIO_URL must be the "
            "address in its final form, with https where Label Studio has it.",
            permanent=True,
        )
    errors = body.get("validation_errors") if isinstance(body, dict) else None
    if status == 400 and isinstance(errors, dict) and "url" in errors:
        return ConnectorError(
            "Label Studio does not accept LABELGUARD_PUBLIC_URL as a webhook's address: its host must be "
            "`localhost`, an IP address, or a name with a dot in it.",
            permanent=True,
        )
    permanent = 400 <= status < 500 and status not in _TRY_AGAIN
    if status == 429:
        sentence = f"Label Studio asked labelguard to slow down while {doing}."
    elif permanent:
        sentence = f"Label Studio refused a request (HTTP {status}) while labelguard was {doing}."
    else:
        sentence = f"Label Studio failed (HTTP {status}) while labelguard was {doing}."
    return ConnectorError(sentence, permanent=permanent, retry_after=_retry_after(headers))


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds from a Retry-After header, which holds seconds or a date (RFC 9110, 10.2.3)."""
    value = next((v for k, v in headers.items() if k.lower() == "retry-after"), "").strip()
    if not value:
        return None
    if value.isdigit():
        return float(value)
    try:
        until = parsedate_to_datetime(value)
    except ValueError:
        return None
    sent = next((v for k, v in headers.items() if k.lower() == "date"), "")
    try:
        # The server's own clock where it tells it: ours may differ.
        now = parsedate_to_datetime(sent) if sent else datetime.now(UTC)
    except ValueError:
        now = datetime.now(UTC)
    if until.tzinfo is None or now.tzinfo is None:
        return None
    return max(0.0, (until - now).total_seconds())


def _session_of(cookie: str) -> str | None:
    """The session cookie alone: whatever else the browser sends is not for Label Studio's API."""
    for part in cookie.split(";"):
        name, _, value = part.strip().partition("=")
        if name == SESSION_COOKIE:
            value = value.strip('"')
            return value if _SESSION_VALUE.fullmatch(value) else None
    return None


def _user(raw: Mapping[str, Any]) -> User:
    name = f"{raw.get('first_name') or ''} {raw.get('last_name') or ''}".strip()
    return User(
        id=int(raw["id"]),
        email=str(raw.get("email") or ""),
        name=name or str(raw.get("username") or ""),
        active=raw.get("is_active") is not False,
    )


def _webhook(raw: Mapping[str, Any]) -> Webhook:
    return Webhook(
        id=int(raw["id"]),
        project=raw.get("project"),
        url=str(raw.get("url") or ""),
        active=raw.get("is_active") is not False,
        actions=tuple(sorted(map(str, raw.get("actions") or ()))),
        headers=tuple(sorted(map(str, raw.get("headers") or ()))),
        all_actions=raw.get("send_for_all_actions") is not False,
        payload=raw.get("send_payload") is not False,
    )


def _filter(column: str, operator: str, value: str | int, kind: str) -> dict[str, Any]:
    return {"filter": f"filter:tasks:{column}", "operator": operator, "value": value, "type": kind}


def _parsed(doing: str, body: Mapping[str, Any], pick: Callable[[Event], T | None]) -> T:
    """Let the one place that knows Label Studio's shapes read an answer of its API."""
    try:
        found = pick(Event.from_delivery({}, body))
    except (BadDelivery, IndexError):
        raise _nonsense(doing) from None
    if found is None:
        raise _nonsense(doing)
    return found


def _record(raw: Any, doing: str) -> TaskRecord:
    if not isinstance(raw, dict) or "project" not in raw:
        raise _nonsense(doing)
    predictions = raw.get("predictions") or []
    item = {key: value for key, value in raw.items() if key in _TASK_FIELDS}
    item["annotations"] = [
        _annotation({**each, "task": raw.get("id"), "project": raw["project"]}, predictions)
        for each in raw.get("annotations") or []
    ]
    body = {"action": "TASKS_CREATED", "project": {"id": raw["project"]}, "tasks": [item]}
    return _parsed(doing, body, lambda event: TaskRecord(event.tasks[0], event.annotations, item))


_TASK_FIELDS = ("id", "project", "data", "meta", "overlap", "is_labeled", "created_at", "updated_at")

# Words of the moment ("3 minutes ago") that would make the same annotation look different at each reading.
_ANNOTATION_NOISE = frozenset({"created_ago", "created_username", "last_action", "import_id", "bulk_created"})


def _annotation(raw: Mapping[str, Any], predictions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """An annotation of the API in the shape of a delivery.

    The task endpoint expands ``completed_by`` to an object. A listing has the pre-annotation beside the
    annotations; a delivery has it inside.
    """
    item = {key: value for key, value in raw.items() if key not in _ANNOTATION_NOISE}
    author = item.get("completed_by")
    if isinstance(author, dict):
        item["completed_by"] = author.get("id")
    shown = item.get("parent_prediction")
    if shown is not None and not item.get("prediction"):
        found = next((p for p in predictions if p.get("id") == shown), None)
        if found is not None:
            item["prediction"] = {"id": shown, "result": found.get("result") or []}
    return item
