"""A Label Studio Enterprise made from the SDK's own code, over real HTTP.

No Enterprise can be had here, so this is the contract as the installed SDK tells it: which paths there are, with
which methods, parameters and bodies, and what they answer, is read out of the SDK's generated clients and types,
and held to the letter. A path, a parameter or a field that the SDK does not know is a *breach*, on our side or on
this server's, and fails the test; a release of the SDK that changes one of them is noticed.

What a server does with what it is told (who may do what, what is kept) is written here by hand.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import socket
import textwrap
import threading
import time
import types
import typing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import cache
from importlib import import_module
from typing import Any

import pydantic
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

CLIENTS = {
    "versions": "versions.raw_client.RawVersionsClient",
    "users": "users.raw_client.RawUsersClient",
    "projects": "projects.raw_client.RawProjectsClient",
    "projects.roles": "projects.roles.raw_client.RawRolesClient",
    "projects.assignments": "projects.assignments.raw_client.RawAssignmentsClient",
    "projects.pauses": "projects.pauses.raw_client.RawPausesClient",
    "tasks": "tasks.raw_client.RawTasksClient",
    "annotations": "annotations.raw_client.RawAnnotationsClient",
    "annotation_reviews": "annotation_reviews.raw_client.RawAnnotationReviewsClient",
    "comments": "comments.raw_client.RawCommentsClient",
    "webhooks": "webhooks.raw_client.RawWebhooksClient",
}
"""The SDK's clients that are read."""

EXTRA_QUERY: dict[str, dict[str, Any]] = {
    "tasks.list": {"query": str, "fields": str, "resolve_uri": bool},
    "tasks.get": {"resolve_uri": bool},
}
"""What Label Studio takes and the SDK's typed calls lack; the live tests send it to a real server."""

ENTERPRISE_ONLY = ("comments.", "projects.assignments.", "projects.pauses.", "projects.roles.", "annotation_reviews.")

SERVERS_NOW = datetime(2031, 5, 1, 12, tzinfo=UTC)
"""What the server's clock says, always."""

COOKIE = "sessionid=a-cookie-that-nobody-may-see"
PAGE = "<!doctype html><html><body>" + "Page not found. " * 100 + "</body></html>"


class Breach(AssertionError):
    """Somebody did not keep to the SDK's contract."""


# Reading the SDK


@dataclass(frozen=True)
class Operation:
    """One call of the SDK, as its own code makes it."""

    name: str
    """``comments.create``"""
    method: str
    path: str
    """With ``{names}`` of parameters."""
    pattern: re.Pattern[str]
    path_types: dict[str, Any]
    query: dict[str, Any]
    body: Any
    """A model of the body, or None where there is none."""
    answer: Any
    """What the SDK makes of the answer, or None where there is nothing."""


@cache
def operations() -> dict[str, Operation]:
    """Every plain JSON call of the clients above, by name."""
    found: dict[str, Operation] = {}
    for client, where in CLIENTS.items():
        module, _, cls = where.rpartition(".")
        raw = getattr(import_module(f"label_studio_sdk.{module}"), cls)
        for name, function in inspect.getmembers(raw, inspect.isfunction):
            if name.startswith("_"):
                continue
            operation = _operation(f"{client}.{name}", function)
            if operation is not None:
                found[operation.name] = operation
    return found


def _operation(name: str, function: Callable[..., Any]) -> Operation | None:
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    call = next((n for n in ast.walk(tree) if isinstance(n, ast.Call) and _called(n) == "request"), None)
    if call is None:  # a stream
        return None
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    path, parameters = _path(call.args[0])
    method = ast.literal_eval(given["method"])
    if "data" in given or "files" in given:
        return None
    hints = typing.get_type_hints(function)
    signature = inspect.signature(function)

    def fields(of: ast.expr | None) -> dict[str, tuple[Any, bool]]:
        """Type, and whether it must be given, by the name on the wire."""
        if not isinstance(of, ast.Dict):
            return {}
        out = {}
        for key, value in zip(of.keys, of.values, strict=True):
            parameter = _parameter(value, set(signature.parameters))
            if key is not None and parameter is not None:
                needed = signature.parameters[parameter].default is inspect.Parameter.empty
                out[ast.literal_eval(key)] = (hints[parameter], needed)
        return out

    body = None
    if isinstance(given.get("json"), ast.Dict):
        sent = {
            key: (strict(kind), ...) if needed else (strict(kind), None)
            for key, (kind, needed) in fields(given["json"]).items()
        }
        body = _model(f"{name} body", sent)
    return Operation(
        name=name,
        method=method,
        path=path,
        pattern=re.compile("/" + re.sub(r"\\?\{(\w+)\\?\}", r"(?P<\1>[^/]+)", path) + "$"),
        path_types={parameter: hints[parameter] for parameter in parameters},
        query={key: kind for key, (kind, _) in fields(given.get("params")).items()} | EXTRA_QUERY.get(name, {}),
        body=body,
        answer=_answer(hints["return"]),
    )


def _called(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else ""


def _path(node: ast.expr) -> tuple[str, list[str]]:
    if isinstance(node, ast.Constant):
        return str(node.value), []
    if not isinstance(node, ast.JoinedStr):
        raise Breach(f"A path of the SDK is not a text: {ast.dump(node)}.")
    text, names = "", []
    for part in node.values:
        if isinstance(part, ast.Constant):
            text += str(part.value)
        else:
            name = next(n.id for n in ast.walk(part) if isinstance(n, ast.Name) and n.id != "encode_path_param")
            names.append(name)
            text += f"{{{name}}}"
    return text, names


def _parameter(node: ast.expr, parameters: set[str]) -> str | None:
    return next((n.id for n in ast.walk(node) if isinstance(n, ast.Name) and n.id in parameters), None)


def _answer(kind: Any) -> Any:
    """What is inside ``HttpResponse[...]``; a pager answers with pages that nobody describes."""
    if "HttpResponse" not in str(typing.get_origin(kind)):
        return Any
    (inside,) = typing.get_args(kind)
    found: Any = inside
    return None if found is type(None) else strict(found)


@cache
def strict(kind: Any) -> Any:
    """A type of the SDK without its leniency: its models take any field, its enumerations any value."""
    if inspect.isclass(kind) and issubclass(kind, pydantic.BaseModel):
        fields: dict[str, Any] = {}
        for name, about in kind.model_fields.items():
            default = ... if about.is_required() else None
            annotation: Any = about.annotation
            fields[name] = (strict(annotation), pydantic.Field(default, alias=about.alias or name))
        return _model(kind.__name__, fields)
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if origin in {typing.Union, types.UnionType}:
        literal = [each for each in inside if typing.get_origin(each) is typing.Literal]
        chosen = [each for each in inside if each is not Any] if literal else inside
        return typing.Union[tuple(strict(each) for each in chosen)]  # noqa: UP007 - made at run time
    if origin is None or not inside or origin is typing.Literal:
        return kind
    if origin is typing.Annotated:
        return strict(inside[0])
    if origin in {list, dict, tuple, set}:
        return origin[tuple(strict(each) for each in inside)]
    return list[strict(inside[0])] if len(inside) == 1 else kind  # type: ignore[misc] # a Sequence is a list in JSON


def _model(name: str, fields: dict[str, Any]) -> Any:
    config = pydantic.ConfigDict(extra="forbid", protected_namespaces=())
    made: Any = pydantic.create_model(name, __config__=config, **fields)
    return made


def complete(kind: Any, **known: Any) -> dict[str, Any]:
    """An answer with every field that the SDK's model has; what is not said is null.

    A field that the SDK does not have (any more) is a breach.
    """
    names = {about.alias or name for name, about in kind.model_fields.items()}
    if unknown := set(known) - names:
        raise Breach(f"The SDK's {kind.__name__} has no {', '.join(sorted(unknown))}.")
    return {name: known.get(name) for name in sorted(names)}


# The server


@dataclass
class Person:
    """A user."""

    id: int
    email: str
    role: str = "AN"
    """``OW``, ``AD``, ``MA``, ``RE`` or ``AN``: in the organization."""
    token: str = ""


@dataclass
class Failure:
    """What the next request of an operation meets."""

    kind: str
    """``before``: an answer in place of the effect. ``after``: the effect, then that answer. ``lost``: the effect,
    then nothing. ``slow``: the effect, then an answer that comes too late."""
    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""


@dataclass(frozen=True)
class Asked:
    """One request that came in."""

    operation: str
    method: str
    path: str
    query: dict[str, Any]
    body: dict[str, Any] | None


class _Refused(Exception):
    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Enterprise:
    """The server's state, and what was asked of it."""

    def __init__(self) -> None:
        self.edition = "Enterprise"
        self.off: set[str] = set()
        """Prefixes of operations whose endpoints are missing (``"comments."``)."""
        self.assign_replaces = False
        """Whether assigning puts annotators in the place of those there, or adds them; nothing says which."""
        self.longest_page = 1000
        """How many tasks are listed at a time, whatever is asked for."""
        self.people: dict[int, Person] = {}
        self.project_roles: dict[tuple[int, int], str] = {}
        self.tasks: dict[int, dict[str, Any]] = {}
        self.annotations: dict[int, dict[str, Any]] = {}
        self.comments: dict[int, dict[str, Any]] = {}
        self.assignments: list[dict[str, Any]] = []
        self.pauses: dict[int, dict[str, Any]] = {}
        self.reviews: dict[int, dict[str, Any]] = {}
        self.webhooks: dict[int, dict[str, Any]] = {}
        self.asked: list[Asked] = []
        self.breaches: list[str] = []
        self.failures: dict[str, list[Failure]] = {}
        self.url = ""
        self.delay = 1.0
        self._numbers = iter(range(1001, 10**6))
        self._now = datetime(2026, 11, 24, 9, tzinfo=UTC)
        self._lock = threading.RLock()

    # What tests say and ask

    def person(self, number: int, role: str = "AN") -> Person:
        """Have a user."""
        made = Person(number, f"user{number}@example.com", role, token=f"{number:04d}" + "f" * 36)
        self.people[number] = made
        return made

    def task(self, number: int, project: int = 3) -> None:
        """Have a task."""
        self.tasks[number] = {"id": number, "project": project, "data": {"text": "x"}, "overlap": 1}

    def hold(self, body: dict[str, Any]) -> None:
        """Have what a delivery tells."""
        task, annotation = body["task"], body["annotation"]
        self.tasks[task["id"]] = {key: task[key] for key in ("id", "project", "data", "meta", "overlap")}
        self.annotations[annotation["id"]] = dict(annotation)

    def annotation(self, number: int, task: int, by: int) -> None:
        """Have an annotation."""
        project = self.tasks[task]["project"]
        self.annotations[number] = {
            "id": number, "task": task, "project": project, "result": [], "completed_by": by, "updated_by": by,
            "created_at": self._tick(), "updated_at": self._tick(), "was_cancelled": False, "ground_truth": False,
        }  # fmt: skip

    def fail(self, operation: str, *failures: Failure) -> None:
        """Have the next requests of an operation fail, one by one; ``"*"`` is any."""
        self.failures.setdefault(operation, []).extend(failures)

    def did(self, *operations: str) -> list[str]:
        """The operations asked for, in order: all, or only these."""
        return [each.operation for each in self.asked if not operations or each.operation in operations]

    def writes(self) -> list[str]:
        """The operations that change something."""
        return [each.operation for each in self.asked if each.method != "GET"]

    def annotators_of(self, task: int) -> list[int]:
        """Whom a task is assigned to."""
        return sorted(a["assignee"] for a in self.assignments if a["task"] == task and a["type"] == "AN")

    def assigned(self, task: int, user: int, kind: str = "AN") -> None:
        """Have an assignment."""
        self.assignments.append(
            self._made(
                "TaskAssignment", id=next(self._numbers), task=task, assignee=user, type=kind, created_at=self._tick()
            )
        )

    def paused(self, user: int, by: int, reason: str = "MANUAL", project: int = 3, words: str = "") -> int:
        """Have a pause."""
        number = next(self._numbers)
        self.pauses[number] = self._made(
            "Pause", id=number, project=project, user=user, reason=reason, verbose_reason=words,
            paused_by=self._simple(by), created_at=self._tick(), updated_at=self._tick(),
        )  # fmt: skip
        return number

    def standing(self, user: int) -> list[int]:
        """The pauses of a user that are not lifted."""
        return [p["id"] for p in self.pauses.values() if p["user"] == user and p["deleted_at"] is None]

    def commented(self, annotation: int, by: int, text: str) -> int:
        """Have a comment."""
        number = next(self._numbers)
        self.comments[number] = self._made(
            "Comment", id=number, annotation=annotation, created_by=by, text=text, is_resolved=False,
            created_at=self._tick(), updated_at=self._tick(),
        )  # fmt: skip
        return number

    def texts(self, annotation: int) -> list[str]:
        """The comments on an annotation."""
        return [c["text"] for c in self.comments.values() if c["annotation"] == annotation]

    def reviewed(self, annotation: int, by: int, *, accepted: bool, fixed: bool = False) -> dict[str, Any]:
        """Have a review, and return it."""
        number = next(self._numbers)
        self.reviews[number] = self._made(
            "AnnotationReview", id=number, annotation=annotation, created_by=by, accepted=accepted,
            fixed_annotation_history=next(self._numbers) if fixed else None, created_at=self._tick(),
        )  # fmt: skip
        return self.reviews[number]

    # Requests

    def __call__(self, environ: Any, start: Any) -> Any:
        """Answer one request (WSGI)."""
        request = Request(environ)
        with self._lock:
            response, failure = self._handled(request)
        if failure is not None and failure.kind == "slow":
            time.sleep(self.delay)
        if failure is not None and failure.kind == "lost":
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        response.headers["Set-Cookie"] = COOKIE
        return response(environ, start)

    def _handled(self, request: Request) -> tuple[Response, Failure | None]:
        if request.path == "/health":  # of every edition, and not of the API
            return Response('{"status": "UP"}', mimetype="application/json"), None
        try:
            operation, where = self._route(request)
            query, body = _read(operation, request)
        except Breach as breach:
            self.breaches.append(str(breach))
            return Response(PAGE, 404, mimetype="text/html"), None
        name = operation.name
        self.asked.append(Asked(name, request.method, request.path, query, body))
        failure = next((self.failures[k].pop(0) for k in (name, "*") if self.failures.get(k)), None)
        if failure is not None and failure.kind == "before":
            return self._failing(failure), failure
        missing = self.edition == "Community" and name.startswith(ENTERPRISE_ONLY)
        if missing or any(name.startswith(each) for each in self.off):
            return Response(PAGE, 404, mimetype="text/html"), failure
        try:
            me = self._who(request)
            answer = getattr(self, "_" + name.replace(".", "_"))(me, **where, **query, **(body or {}))
            response = _written(operation, answer)
        except _Refused as refused:
            response = Response(json.dumps({"detail": str(refused)}), refused.status, mimetype="application/json")
        except Breach as breach:
            self.breaches.append(str(breach))
            response = Response("A breach of the contract.", 500)
        if failure is not None and failure.kind == "after":
            return self._failing(failure), failure
        return response, failure

    def _route(self, request: Request) -> tuple[Operation, dict[str, Any]]:
        for operation in operations().values():
            found = operation.pattern.match(request.path)
            if found and operation.method == request.method:
                try:
                    return operation, {
                        key: pydantic.TypeAdapter(operation.path_types[key]).validate_strings(value)
                        for key, value in found.groupdict().items()
                    }
                except pydantic.ValidationError:
                    continue  # `members/paginated` is not a user
        raise Breach(f"The SDK knows no {request.method} {request.path}.")

    @staticmethod
    def _failing(failure: Failure) -> Response:
        kind = "application/json" if failure.body.startswith("{") else "text/html"
        return Response(failure.body, failure.status, headers=failure.headers, mimetype=kind)

    def _who(self, request: Request) -> Person:
        token = request.headers.get("Authorization", "").removeprefix("Token ")
        found = next((p for p in self.people.values() if p.token == token), None)
        if found is None:
            raise _Refused(401, "Invalid token.")
        return found

    def _allowed(self, person: Person, project: int | None, *roles: str) -> None:
        role = self.project_roles.get((project or 0, person.id), person.role)
        if role not in roles:
            raise _Refused(403, "You do not have permission to perform this action.")

    def _tick(self) -> str:
        self._now += timedelta(seconds=1)
        return self._now.isoformat()

    @staticmethod
    def _made(kind: str, **known: Any) -> dict[str, Any]:
        from label_studio_sdk import types as sdk

        return complete(getattr(sdk, kind), **known)

    def _simple(self, number: int) -> dict[str, Any]:
        email = self.people[number].email
        return self._made("UserSimple", id=number, email=email, username=email, first_name="", last_name="")

    # What each operation does

    def _versions_get(self, me: Person) -> Any:
        known = {"edition": self.edition, "release": "2.30.0", "backend": {}, "lsf": {}, "dm2": {}}
        return self._made("VersionResponse", **known)

    def _users_whoami(self, me: Person) -> Any:
        member = self._made("OrganizationMembership", role=me.role, organization_id=1, active=True)
        enterprise = {"organization_membership": member} if self.edition == "Enterprise" else {}
        return self._made("WhoAmIUser", id=me.id, email=me.email, username=me.email, **enterprise)

    def _users_list(self, me: Person) -> Any:
        return [self._made("LseUserApi", id=p.id, email=p.email, username=p.email) for p in self.people.values()]

    def _projects_roles_list(self, me: Person, ids: Any = None) -> Any:
        return [
            self._made("ProjectRole", id=1, project=project, user=user, role=role)
            for (project, user), role in self.project_roles.items()
            if user == me.id and str(project) in str(ids).split(",")
        ]

    def _tasks_list(self, me: Person, project: int, query: str, page: int, page_size: int, **_: Any) -> Any:
        if page != 1:
            raise Breach("A second page is counted from the start of a list that changes.")
        asked = json.loads(query)
        if "selectedItems" in asked:
            chosen = [t for t in sorted(self.tasks) if t in asked["selectedItems"]["included"]]
        else:
            after = next(f["value"] for f in asked["filters"]["items"] if f["filter"] == "filter:tasks:id")
            chosen = [t for t in sorted(self.tasks) if t > after]
        wanted = [t for t in chosen if self.tasks[t]["project"] == project]
        return [self._task(number) for number in wanted[: min(page_size, self.longest_page)]]

    def _tasks_get(self, me: Person, id: str, resolve_uri: bool = True) -> Any:  # noqa: A002 - the SDK's name
        if int(id) not in self.tasks:
            raise _Refused(404, "Not found.")
        return self._task(int(id))

    def _task(self, number: int) -> dict[str, Any]:
        own = [a for a in self.annotations.values() if a["task"] == number]
        made = self._made("LseTask", **self.tasks[number], annotations=own, is_labeled=bool(own))
        return {key: value for key, value in made.items() if value is not None}

    def _tasks_update(self, me: Person, id: str, **changed: Any) -> Any:  # noqa: A002
        self.tasks[int(id)].update({key: value for key, value in changed.items() if key != "is_labeled"})
        return self._task(int(id))

    def _annotations_get(self, me: Person, id: int) -> Any:  # noqa: A002
        if id not in self.annotations:
            raise _Refused(404, "Not found.")
        return self._made("Annotation", **self.annotations[id])

    def _annotations_update(self, me: Person, id: int, **changed: Any) -> Any:  # noqa: A002
        self.annotations[id].update(changed, updated_by=me.id, updated_at=self._tick())
        return self._annotations_get(me, id)

    def _projects_update(self, me: Person, id: int, **_: Any) -> Any:  # noqa: A002
        raise _Refused(404, "Not found.")

    def _comments_list(self, me: Person, annotation: int | None = None, **_: Any) -> Any:
        return [c for c in self.comments.values() if annotation is None or c["annotation"] == annotation]

    def _comments_create(self, me: Person, annotation: int, text: str, **_: Any) -> Any:
        if annotation not in self.annotations:
            raise _Refused(404, "Not found.")
        self._allowed(me, self.annotations[annotation]["project"], "AN", "RE", "MA", "AD", "OW")
        return self.comments[self.commented(annotation, me.id, text)]

    def _own_comment(self, me: Person, number: int) -> dict[str, Any]:
        if number not in self.comments:
            raise _Refused(404, "Not found.")
        if self.comments[number]["created_by"] != me.id:
            raise _Refused(403, "You do not have permission to perform this action.")
        return self.comments[number]

    def _comments_update(self, me: Person, id: int, is_resolved: bool, **_: Any) -> Any:  # noqa: A002
        self._own_comment(me, id).update(is_resolved=is_resolved, resolved_at=self._tick())
        return self.comments[id]

    def _comments_delete(self, me: Person, id: int) -> None:  # noqa: A002
        self._own_comment(me, id)
        del self.comments[id]

    def _projects_assignments_list(self, me: Person, id: int, task_pk: int) -> Any:  # noqa: A002
        self._allowed(me, id, "RE", "MA", "AD", "OW")
        return [a for a in self.assignments if a["task"] == task_pk]

    def _projects_assignments_assign(self, me: Person, id: int, task_pk: int, type: str, users: list[int]) -> Any:  # noqa: A002
        self._allowed(me, id, "RE", "MA", "AD", "OW")
        if self.assign_replaces:
            self._unassign(task_pk, type, None)
        for user in users:
            if user not in self.annotators_of(task_pk):
                self.assigned(task_pk, user, type)
        return self.assignments[-1]

    def _projects_assignments_delete(
        self,
        me: Person,
        id: int,  # noqa: A002
        task_pk: int,
        type: str | None = None,  # noqa: A002
        users: str | None = None,
    ) -> None:
        self._allowed(me, id, "RE", "MA", "AD", "OW")
        self._unassign(task_pk, type, None if users is None else [int(user) for user in users.split(",")])

    def _unassign(self, task: int, kind: str | None, users: list[int] | None) -> None:
        self.assignments = [
            a
            for a in self.assignments
            if a["task"] != task or (kind and a["type"] != kind) or (users is not None and a["assignee"] not in users)
        ]

    def _projects_pauses_list(
        self, me: Person, project_pk: int, user_pk: int, include_deleted: bool = False, **_: Any
    ) -> Any:
        self._allowed(me, project_pk, "MA", "AD", "OW")
        own = [p for p in self.pauses.values() if (p["project"], p["user"]) == (project_pk, user_pk)]
        return [p for p in own if include_deleted or p["deleted_at"] is None]

    def _projects_pauses_create(
        self, me: Person, project_pk: int, user_pk: int, reason: str, verbose_reason: str | None = None
    ) -> Any:
        self._allowed(me, project_pk, "MA", "AD", "OW")
        return self.pauses[self.paused(user_pk, me.id, reason, project_pk, verbose_reason or "")]

    def _projects_pauses_delete(self, me: Person, project_pk: int, user_pk: int, id: int) -> None:  # noqa: A002
        self._allowed(me, project_pk, "MA", "AD", "OW")
        if id not in self.pauses or self.pauses[id]["deleted_at"] is not None:
            raise _Refused(404, "Not found.")
        self.pauses[id].update(deleted_at=self._tick(), deleted_by=me.id)

    def _annotation_reviews_list(self, me: Person, annotation: int | None = None, **_: Any) -> Any:
        self._allowed(me, None, "RE", "MA", "AD", "OW")
        return [r for r in self.reviews.values() if annotation is None or r["annotation"] == annotation]

    def _annotation_reviews_get(self, me: Person, id: int) -> Any:  # noqa: A002
        self._allowed(me, None, "RE", "MA", "AD", "OW")
        if id not in self.reviews:
            raise _Refused(404, "Not found.")
        return self.reviews[id]

    def _webhooks_list(self, me: Person, project: str | None = None) -> Any:
        return [w for w in self.webhooks.values() if project is None or w["project"] == int(project)]

    def _webhooks_create(self, me: Person, **said: Any) -> Any:
        number = next(self._numbers)
        self.webhooks[number] = self._made("Webhook", id=number, **said)
        return self.webhooks[number]

    def _webhooks_update(self, me: Person, id: int, **said: Any) -> Any:  # noqa: A002
        if id not in self.webhooks:
            raise _Refused(404, "Not found.")
        self.webhooks[id].update(said)
        return self._made("WebhookSerializerForUpdate", **self.webhooks[id])

    def _webhooks_delete(self, me: Person, id: int) -> None:  # noqa: A002
        if self.webhooks.pop(id, None) is None:
            raise _Refused(404, "Not found.")


def _read(operation: Operation, request: Request) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The query and the body, held to the SDK's types."""
    query: dict[str, Any] = {}
    for key, value in request.args.items():
        if key not in operation.query:
            raise Breach(f"{operation.name} takes no parameter {key!r}.")
        try:
            query[key] = pydantic.TypeAdapter(strict(operation.query[key])).validate_strings(value)
        except pydantic.ValidationError as error:
            raise Breach(f"{operation.name} was sent {key}={value!r}: {error.errors()[0]['msg']}.") from error
    sent = request.get_data()
    if operation.body is None:
        if sent:
            raise Breach(f"{operation.name} takes no body.")
        return query, None
    try:
        body = operation.body.model_validate_json(sent, strict=True)
    except pydantic.ValidationError as error:
        raise Breach(f"{operation.name} was sent a wrong body: {error}") from error
    return query, body.model_dump(exclude_unset=True)


def _written(operation: Operation, answer: Any) -> Response:
    """The answer, held to the SDK's types as well."""
    if operation.answer is None:
        if answer is not None:
            raise Breach(f"{operation.name} answers nothing, and not {answer!r}.")
        return Response(status=204)
    text = json.dumps(answer)
    try:
        pydantic.TypeAdapter(operation.answer).validate_json(text, strict=True)
    except pydantic.ValidationError as error:
        raise Breach(f"This is not what {operation.name} answers: {error}") from error
    return Response(text, 201 if operation.method == "POST" else 200, mimetype="application/json")


class _Quiet(WSGIRequestHandler):
    def date_time_string(self, timestamp: float | None = None) -> str:
        """The Date header: a clock that is not ours."""
        return format_datetime(SERVERS_NOW, usegmt=True)

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


@contextmanager
def enterprise() -> Iterator[Enterprise]:
    """A running server; breaches of the contract fail the test in the end."""
    state = Enterprise()
    server = make_server("127.0.0.1", 0, state, threaded=True, request_handler=_Quiet)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert not state.breaches, state.breaches
