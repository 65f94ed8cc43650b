"""Label Studio through its own SDK.

What the server does beyond its documentation was observed on Label Studio Community 1.23.2 with
label-studio-sdk 2.1 and is checked again by the live tests. The SDK is imported on first use: it takes
about two seconds, which no ``labelguard --help`` should pay for.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import requests
import structlog

from labelguard.connectors import ConnectorError, NotFound, Review, Server, Stopping, TaskRecord, User, Webhook
from labelguard.events import Annotation, Project
from labelguard.reviews import review_from
from labelguard_connectors.answers import (
    as_delivered,
    author_id,
    filters_ignored,
    json_or_text,
    nonsense,
    objects_of,
    parsed,
    record_from,
    refusal,
    user_from,
    webhook_from,
)

if TYPE_CHECKING:
    from label_studio_sdk.client import LabelStudio as Client

T = TypeVar("T")

log = structlog.get_logger(__name__)

SESSION_COOKIE = "sessionid"
"""The name of Label Studio's session cookie (Django's default, which it keeps)."""

WHOAMI_TIMEOUT = 2.0
"""Seconds a browser waits at most for us to ask Label Studio who it is."""

# Label Studio's own filter parser accepts exactly this.
_TIME_FORMAT = "%Y-%m-%dT%H:%M:%S.%fZ"

# Django's signed session values; anything else in there is not a session and is not passed on.
_SESSION_VALUE = re.compile(r"[A-Za-z0-9_:.=\-]{1,4096}")

CAPABILITIES = ("comments", "assignments", "pauses", "reviews")
"""What Label Studio Enterprise offers beyond Community, as far as labelguard uses it."""

CAPABILITIES_FOR = 600.0
"""Seconds for which edition and capabilities are believed: an upgrade is noticed without a restart."""

PATIENCE = 120.0
"""Seconds that one page of a long listing waits in all for Label Studio to answer again."""

# From the table of roles in Label Studio Enterprise's documentation.
_ROLES_FOR = {
    "comments": ("any role, with access to the project", ("AN", "RE", "MA", "AD", "OW")),
    "assignments": ("the role Reviewer or a higher one", ("RE", "MA", "AD", "OW")),
    "pauses": ("the role Manager or a higher one", ("MA", "AD", "OW")),
    "reviews": ("the role Reviewer or a higher one", ("RE", "MA", "AD", "OW")),
}
_ROLES = {
    "OW": "Owner",
    "AD": "Administrator",
    "MA": "Manager",
    "RE": "Reviewer",
    "AN": "Annotator",
    "DI": "Deactivated",
    "NO": "Not activated",
}

_PAUSE_REASON = "CUSTOM_SCRIPT"
_ANNOTATE = "AN"


class LabelStudio:
    """The ``Studio`` protocol on a real server."""

    name: ClassVar[str] = "studio"

    def __init__(
        self,
        url: str,
        api_key: str,
        timeout: float = 10.0,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        """``api_key`` is a legacy token or a personal access token; ``timeout`` is in seconds per request.

        ``clock`` counts seconds; ``sleep`` waits for so many of them, by default until :meth:`close` at most.
        """
        self.url = url.rstrip("/")
        self.timeout = timeout
        self._api_key = api_key
        self._clock = clock
        self._closed = threading.Event()
        self._silent = False
        self._sleep = sleep or self._closed.wait
        self._lock = threading.Lock()
        self._made: Client | None = None
        self._server: Server | None = None
        self._server_until = 0.0
        self._quiet_until = 0.0

    def __repr__(self) -> str:
        return f"LabelStudio({self.url!r})"

    def __enter__(self) -> LabelStudio:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connections; the next request opens new ones."""
        self._closed.set()
        with self._lock:
            made, self._made = self._made, None
        if made is not None:
            made._client_wrapper.httpx_client.httpx_client.close()  # noqa: SLF001 - the SDK has no close()

    @contextmanager
    def silence(self) -> Iterator[None]:
        """While it lasts, ask nothing, and let nobody wait to ask again; a request in hand has its timeout still."""
        self._silent = True
        self._closed.set()
        try:
            yield
        finally:
            self._closed.clear()
            self._silent = False

    def server(self) -> Server:
        """Edition, version, own user and capabilities (remembered for some minutes, then asked again).

        While Label Studio does not answer, what was known stays true.
        """
        with self._lock:
            known, fresh = self._server, self._clock() < self._server_until
        if known is not None and fresh:
            return known
        try:
            server = self._asked()
        except ConnectorError as error:
            if known is None or error.permanent:
                raise
            with self._lock:
                self._server_until = self._clock() + CAPABILITIES_FOR / 10
            return known
        with self._lock:
            self._server = server
            self._server_until = self._clock() + CAPABILITIES_FOR
        return server

    def time(self) -> datetime | None:
        """Label Studio's own clock now, to the second; None where it does not say."""
        try:
            answer = requests.get(f"{self.url}/health", timeout=WHOAMI_TIMEOUT, allow_redirects=False)
            told = parsedate_to_datetime(answer.headers["Date"])
        except (requests.RequestException, KeyError, ValueError):
            return None
        return told if told.tzinfo is not None else told.replace(tzinfo=UTC)

    def _asked(self) -> Server:
        about = self._call("asking for its version", self._client.versions.get)

        def who() -> tuple[User, str]:
            me = self._client.users.whoami().dict()
            member = me.get("organization_membership") or next(iter(me.get("org_membership") or ()), None) or {}
            return user_from(me), str(member.get("role") or "")

        user, role = self._call("asking who labelguard is", who)
        edition = str(getattr(about, "edition", None) or "Community")
        able = dict.fromkeys(CAPABILITIES, edition != "Community")
        return Server(edition=edition, version=str(getattr(about, "release", None) or ""), user=user, role=role, **able)

    def refusals(self, project: int) -> Mapping[str, str]:
        """Enterprise: what labelguard's user may not do in a project, by capability, each as a sentence.

        Only reads are tried; whether a role may write as well is told from Label Studio's table of roles.
        """
        server, client = self.server(), self._client
        task = next(iter(self.tasks_changed(project, None, page_size=1)), None)
        tries: dict[str, Callable[[], object]] = {
            "comments": lambda: client.comments.list(annotation=0, projects=str(project)),
            "pauses": lambda: client.projects.pauses.list(project, server.user.id),
            "reviews": lambda: client.annotation_reviews.list(annotation=0, annotation_task_project=project),
        }
        if task is not None:
            tries["assignments"] = lambda: client.projects.assignments.list(project, task.task.id)
        role = self._role_in(project) or server.role
        found: dict[str, str] = {}
        for capability in CAPABILITIES:
            needed, roles = _ROLES_FOR[capability]
            if not getattr(self.server(), capability):
                found[capability] = f"This Label Studio has no {capability}."
                continue
            try:
                if capability in tries:
                    self._enterprise(capability, f"looking for {capability} of project {project}", tries[capability])
            except ConnectorError as error:
                found[capability] = str(error)
                continue
            if role and role not in roles:
                called = _ROLES.get(role, role)
                found[capability] = f"labelguard's user has the role {called}; {capability} need {needed}."
        return found

    def _role_in(self, project: int) -> str:
        """The own user's role in a project, where it differs from that in the organization."""
        me = self.server().user.id
        if self.server().edition == "Community":
            return ""
        try:
            roles = self._call(
                f"reading the roles of project {project}",
                lambda: objects_of(self._client.projects.roles.list(ids=project)),
            )
        except ConnectorError:
            return ""
        return next((str(each.role) for each in roles if each.user == me and each.project == project), "")

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
            raise refusal("asking who is signed in", answer.status_code, answer.headers, None)
        try:
            return user_from(answer.json())
        except (ValueError, KeyError, TypeError):
            raise nonsense("asking who is signed in") from None

    def users(self) -> Sequence[User]:
        """All users that can be seen."""
        return self._call(
            "listing users", lambda: [user_from(each.dict()) for each in objects_of(self._client.users.list())]
        )

    def project(self, project: int) -> Project:
        """One project."""
        doing = f"reading project {project}"
        raw = self._read(f"api/projects/{project}/", doing)
        return parsed(doing, {"action": "PROJECT_UPDATED", "project": raw}, lambda event: event.project)

    def annotation(self, annotation: int) -> Annotation:
        """One annotation as it is now; raises :class:`NotFound` when it is gone."""
        doing = f"reading annotation {annotation}"
        raw = self._read(f"api/annotations/{annotation}/", doing)
        if not isinstance(raw, dict) or "project" not in raw:
            raise nonsense(doing)
        body = {
            "action": "ANNOTATION_UPDATED",
            "annotation": as_delivered(raw, []),
            "project": {"id": raw["project"]},
        }
        return parsed(doing, body, lambda event: event.annotations[0])

    def task(self, task: int) -> TaskRecord:
        """One task with its annotations as they are now."""
        doing = f"reading task {task}"
        return record_from(self._read(f"api/tasks/{task}/", doing, {"resolve_uri": "false"}), doing)

    def tasks_changed(
        self, project: int, since: datetime | None, *, after_id: int = 0, page_size: int = 100
    ) -> Iterator[TaskRecord]:
        """Tasks updated at or after ``since`` (all where None), by id, keyset-paged (never page 2).

        A second page would be counted from the start of a list that changes while it is read. Label Studio
        accepts filters it does not understand and then answers with everything, so the order is checked.
        Where it asks for a pause, the listing waits (:data:`PATIENCE` for each page) and goes on.
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
            items = self._listed(project, {"filters": {"conjunction": "and", "items": filters}}, page_size, doing)
            if not items:
                return
            for item in items:
                record = record_from(item, doing)
                if record.task.id <= after_id:
                    raise filters_ignored(doing)
                after_id = record.task.id
                yield record

    def tasks_named(self, project: int, tasks: Collection[int], *, page_size: int = 100) -> Iterator[TaskRecord]:
        """Those of these tasks that a project has, as they are now, by id; asked for ``page_size`` at a time.

        They are asked for as the Data Manager's selected items. Where Label Studio does not know these, it answers
        with everything, so nothing but what was asked for is taken; and a page is at its end only when nothing
        more of it comes, however few tasks the server may list at a time.
        """
        doing = f"looking for tasks of project {project}"
        left = sorted({*tasks})
        while left:
            page, left = left[:page_size], left[page_size:]
            while page:
                chosen = {"selectedItems": {"all": False, "included": page}}
                items = self._listed(project, chosen, page_size, doing)
                if not items:
                    break
                for item in items:
                    record = record_from(item, doing)
                    if record.task.id not in page:
                        raise filters_ignored(doing)
                    page = [task for task in page if task > record.task.id]
                    yield record

    def _listed(self, project: int, chosen: Mapping[str, Any], page_size: int, doing: str) -> list[Any]:
        """The first page of a listing by id, as it came."""
        params = {
            "project": project,
            "fields": "all",
            "resolve_uri": "false",
            "page": 1,
            "page_size": page_size,
            "query": json.dumps({**chosen, "ordering": ["tasks:id"]}),
        }
        answer = self._patiently(partial(self._read, "api/tasks/", doing, params))
        items = answer.get("tasks") if isinstance(answer, dict) else answer
        if not isinstance(items, list):
            raise nonsense(doing)
        return items

    def webhooks(self, project: int) -> Sequence[Webhook]:
        """The project's webhooks."""
        return self._call(
            f"listing the webhooks of project {project}",
            lambda: [
                webhook_from(each.dict()) for each in objects_of(self._client.webhooks.list(project=str(project)))
            ],
        )

    def create_webhook(self, project: int, url: str, actions: Sequence[str], headers: dict[str, str]) -> Webhook:
        """Create an active webhook that carries payloads."""

        def create() -> Webhook:
            made = self._client.webhooks.create(
                project=project,
                url=url,
                actions=list(actions),
                headers=headers,
                is_active=True,
                send_payload=True,
                send_for_all_actions=False,
            )
            return webhook_from(made.dict())

        return self._call(f"creating a webhook in project {project}", create)

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
        """Enterprise: comment on an annotation unless labelguard has, with this marker."""
        doing = f"commenting on annotation {annotation}"
        if self._our_comments(annotation, marker, doing):
            return
        words = _with_marker(text, marker)
        self._enterprise("comments", doing, lambda: self._client.comments.create(annotation=annotation, text=words))

    def resolve_comment(self, annotation: int, marker: str) -> None:
        """Enterprise: mark our comment with this marker as resolved; one that is gone is fine."""
        doing = f"resolving a comment on annotation {annotation}"
        for comment in self._our_comments(annotation, marker, doing):
            if not comment.is_resolved:
                self._unless_gone(doing, partial(self._client.comments.update, comment.id, is_resolved=True))

    def delete_comment(self, annotation: int, marker: str) -> None:
        """Enterprise: delete our comment with this marker; one that is gone is fine."""
        doing = f"deleting a comment on annotation {annotation}"
        for comment in self._our_comments(annotation, marker, doing):
            self._unless_gone(doing, partial(self._client.comments.delete, comment.id))

    def _our_comments(self, annotation: int, marker: str, doing: str) -> list[Any]:
        """Comments by labelguard's own user with a marker: others may quote it."""
        self._need("comments")
        me = self.server().user.id

        def ours() -> list[Any]:
            there = objects_of(self._client.comments.list(annotation=annotation))
            return [each for each in there if author_id(each.created_by) == me and _marked(each.text, marker)]

        return self._enterprise("comments", doing, ours)

    def _unless_gone(self, doing: str, call: Callable[[], object]) -> None:
        with suppress(NotFound):
            self._enterprise("comments", doing, call)

    def review(self, review: int) -> Review | None:
        """Enterprise: a review as it is now, or None where it holds no verdict; raises :class:`NotFound`."""
        self._need("reviews")
        return self._enterprise(
            "reviews",
            f"reading review {review}",
            lambda: review_from(self._client.annotation_reviews.get(review).dict()),
        )

    def assignees(self, project: int, task: int) -> Sequence[int]:
        """Enterprise: the annotators that a task is assigned to."""
        self._need("assignments")

        def assigned() -> list[int]:
            there = objects_of(self._client.projects.assignments.list(project, task))
            # Reviewers are assigned through the same list and are none of our business.
            return sorted({each.assignee for each in there if each.type in {None, _ANNOTATE}})

        return self._enterprise("assignments", f"reading who task {task} is assigned to", assigned)

    def assign(self, project: int, task: int, users: Sequence[int]) -> None:
        """Enterprise: assign a task to exactly these annotators.

        Whether a server adds those it is sent or puts them in the place of the others is written nowhere: it is
        sent all of them, and read back.
        """
        wanted, now = set(users), set(self.assignees(project, task))
        assignments, doing = self._client.projects.assignments, f"assigning task {task}"
        if wanted - now:
            everybody = sorted(wanted)
            self._enterprise(
                "assignments", doing, lambda: assignments.assign(project, task, type=_ANNOTATE, users=everybody)
            )
        if now - wanted:
            leaving = ",".join(map(str, sorted(now - wanted)))
            self._enterprise(
                "assignments", doing, lambda: assignments.delete(project, task, type=_ANNOTATE, users=leaving)
            )
        if wanted != now and set(self.assignees(project, task)) != wanted:
            raise ConnectorError(
                f"Label Studio accepted that task {task} is assigned to other annotators, but it is not. "
                "Check that they are members of the project."
            )

    def pause(self, project: int, user: int, reason: str, marker: str) -> None:
        """Enterprise: pause an annotator with a reason that they can read, unless they are paused.

        A pause with this marker that somebody has lifted is not made again.
        """
        pauses = self._pauses(project, user, lifted=True)
        if any(pause.deleted_at is None or self._is_ours(pause, marker) for pause in pauses):
            return
        words = _with_marker(reason, marker)
        self._enterprise(
            "pauses",
            f"pausing user {user}",
            lambda: self._client.projects.pauses.create(project, user, reason=_PAUSE_REASON, verbose_reason=words),
        )

    def unpause(self, project: int, user: int, marker: str) -> None:
        """Enterprise: lift our pause with this marker; anybody else's stays."""
        delete = self._client.projects.pauses.delete
        for pause in self._pauses(project, user, lifted=False):
            if pause.deleted_at is None and self._is_ours(pause, marker):
                with suppress(NotFound):
                    doing = f"lifting the pause of user {user}"
                    self._enterprise("pauses", doing, partial(delete, project, user, pause.id))

    def _pauses(self, project: int, user: int, *, lifted: bool) -> list[Any]:
        self._need("pauses")
        return self._enterprise(
            "pauses",
            f"reading the pauses of user {user}",
            lambda: objects_of(self._client.projects.pauses.list(project, user, include_deleted=lifted)),
        )

    def _is_ours(self, pause: Any, marker: str) -> bool:
        by = author_id(pause.paused_by)
        return pause.reason == _PAUSE_REASON and by == self.server().user.id and _marked(pause.verbose_reason, marker)

    @property
    def _client(self) -> Client:
        with self._lock:
            if self._made is None:
                self._made = self._guarded("looking at its token", self._connected)
                self._closed.clear()
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
                raise ApiError(
                    status_code=answer.status_code, headers=dict(answer.headers), body=json_or_text(answer.text)
                )
            return answer.json()

        return self._call(doing, get)

    def _patiently(self, read: Callable[[], T]) -> T:
        """Make a request that nobody waits for again when Label Studio asked for a pause, within a bound."""
        waited = 0.0
        while True:
            try:
                return read()
            except ConnectorError as error:
                pause = error.retry_after
                if pause is None or waited + pause > PATIENCE or self._closed.is_set():
                    raise
                pause = max(1.0, pause)
                waited += pause
                log.info("waiting_for_label_studio", seconds=round(pause), reason=str(error))
                self._sleep(pause)

    def _call(self, doing: str, call: Callable[[], T]) -> T:
        """Make one request, unless Label Studio asked for a pause that is not over, or labelguard is stopping."""
        if self._silent:
            raise Stopping
        with self._lock:
            left = self._quiet_until - self._clock()
        if left > 0:
            raise ConnectorError(
                f"Label Studio asked labelguard to slow down; {doing} waits for {left:.0f} seconds.", retry_after=left
            )
        try:
            return self._guarded(doing, call)
        except ConnectorError as error:
            if error.retry_after:
                with self._lock:
                    self._quiet_until = max(self._quiet_until, self._clock() + error.retry_after)
            raise

    def _guarded(self, doing: str, call: Callable[[], T]) -> T:
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
            raise nonsense(doing) from None
        except ApiError as error:
            if 200 <= (error.status_code or 0) < 300:
                raise nonsense(doing) from None
            raise refusal(doing, error.status_code or 0, error.headers or {}, error.body) from None
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
        except (ValueError, TypeError, AttributeError, LookupError, RecursionError, pydantic.ValidationError):
            # The SDK hands out what it cannot read as it came, so reading an answer may fail anywhere.
            raise nonsense(doing) from None

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
                    raise self._without(capability, doing) from None
                if error.status_code == 403:
                    raise ConnectorError(
                        f"Label Studio does not allow labelguard's user this: {doing}. "
                        f"That user needs {_ROLES_FOR[capability][0]}.",
                        permanent=True,
                    ) from None
                raise

        return self._call(doing, checked)

    def _without(self, capability: str, doing: str) -> ConnectorError:
        """The error for a missing endpoint, which is remembered for a while if it is Label Studio that lacks it.

        Whatever stands before it answers with such a page, too, while Label Studio is replaced.
        """
        try:
            self._guarded("asking for its version", self._client.versions.get)
        except ConnectorError:
            return nonsense(doing)
        log.warning("capability_missing", capability=capability, seconds=round(CAPABILITIES_FOR))
        with self._lock:
            if self._server is not None:
                lost: dict[str, Any] = {capability: False}
                self._server = replace(self._server, **lost)
        return ConnectorError(f"This Label Studio has no {capability}.", permanent=True)


def _with_marker(text: str, marker: str) -> str:
    return text if _marked(text, marker) else f"{text}\n\n{marker}"


def _marked(text: str | None, marker: str) -> bool:
    """Whether a text has the marker: ``labelguard 1`` is not in ``labelguard 12``."""
    return re.search(rf"(?<!\w){re.escape(marker)}(?!\w)", text or "") is not None


def _session_of(cookie: str) -> str | None:
    """The session cookie alone: whatever else the browser sends is not for Label Studio's API."""
    for part in cookie.split(";"):
        name, _, value = part.strip().partition("=")
        if name == SESSION_COOKIE:
            value = value.strip('"')
            return value if _SESSION_VALUE.fullmatch(value) else None
    return None


def _filter(column: str, operator: str, value: str | int, kind: str) -> dict[str, Any]:
    return {"filter": f"filter:tasks:{column}", "operator": operator, "value": value, "type": kind}
