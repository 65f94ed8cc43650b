"""What Label Studio says happened: one webhook request, parsed at the edge into frozen objects.

Nothing here does I/O. :meth:`Event.from_delivery` is the only place that knows the shape of a webhook body;
rules, store and connectors see the objects below. The shapes were observed on Label Studio 1.23 and are
described at https://labelstud.io/guide/webhook_reference.

Everything that comes out can be stored anywhere: numbers are finite, ids fit a signed 64-bit column, and
text holds neither NUL (PostgreSQL refuses it) nor lone surrogates (UTF-8 refuses them); both are replaced by
U+FFFD.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar, Literal, NoReturn

import msgspec

from labelguard.redact import redact

ResultItem = dict[str, Any]
"""One item of an annotation's ``result``: ``{"id", "from_name", "to_name", "type", "value", ...}``."""

ANNOTATION_ACTIONS = frozenset({"ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_CREATED"})
"""Actions that bring annotations, each with its task."""

DELETION_ACTIONS = frozenset(
    {"ANNOTATIONS_DELETED", "TASKS_DELETED", "PROJECT_DELETED", "LABEL_LINK_DELETED", "REVIEWS_DELETED"}
)
"""Actions whose body names what is gone by nothing but its id."""

KNOWN_ACTIONS = (
    ANNOTATION_ACTIONS
    | DELETION_ACTIONS
    | {"TASKS_CREATED", "PROJECT_CREATED", "PROJECT_UPDATED", "LABEL_LINK_CREATED", "LABEL_LINK_UPDATED"}
    | {"REVIEW_CREATED", "REVIEW_UPDATED"}
)
"""Every action of Label Studio 1.23 and the review actions of Label Studio Enterprise."""

MAX_DEPTH = 200
"""Levels of nesting accepted in a body; real ones stay below 20."""

_MAX_ACTION = 128  # characters; Label Studio's own column is as long
_MAX_ID = 2**63 - 1
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_NUL = re.compile(rb"\\u0000")
_MISSING = object()


class BadDelivery(ValueError):
    """A webhook request that cannot be understood; the message is a sentence for the sender's admin."""

    kind: ClassVar[Literal["malformed", "other_project"]] = "malformed"
    """What monitoring counts it as."""


class OtherProject(BadDelivery):
    """A webhook request that came to the address of a project that it is not about."""

    kind = "other_project"


@dataclass(frozen=True, slots=True)
class Project:
    """The project as Label Studio describes it inside a delivery, without its secrets."""

    id: int
    title: str = ""
    label_config: str = ""
    """The labeling interface as XML; empty where the delivery did not carry it."""
    guideline: str = ""
    """Label Studio's ``expert_instruction``."""
    maximum_annotations: int = 1
    skip_queue: str = "REQUEUE_FOR_OTHERS"
    updated_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """A task; ``data`` and ``meta`` are what the project's admin imported."""

    id: int
    project: int
    data: Mapping[str, Any] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)
    overlap: int = 1
    is_labeled: bool = False
    created_at: datetime | None = None
    updated_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Annotation:
    """One version of an annotation as Label Studio described it at one moment."""

    id: int
    task: int
    project: int
    result: tuple[ResultItem, ...] = ()
    completed_by: int | None = None
    """The user the annotation is said to be by. Any client can claim anything here."""
    updated_by: int | None = None
    """The user who saved last, the only author field that Label Studio's server sets by itself."""
    created_at: datetime | None = None
    updated_at: datetime | None = None
    was_cancelled: bool = False
    """True for a skip."""
    ground_truth: bool = False
    lead_time: float | None = None
    """Seconds, adding up over updates."""
    parent_prediction: int | None = None
    prediction: tuple[ResultItem, ...] = ()
    """The result of the pre-annotation shown when the work began, where the delivery carries it."""
    draft_created_at: datetime | None = None
    unique_id: str = ""
    _hash: list[str] = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def content_hash(self) -> str:
        """A hex SHA-256 of what it says (``result`` and ``was_cancelled``), blind to key order."""
        if not self._hash:
            self._hash.append(_sha256(_encoded({"result": self.result, "was_cancelled": self.was_cancelled})))
        return self._hash[0]


@dataclass(frozen=True, slots=True)
class Event:
    """One delivery, parsed."""

    action: str
    """Label Studio's name, such as ``ANNOTATION_CREATED``. Not an enum: new ones must not break us."""
    project: Project | None
    tasks: tuple[Task, ...] = ()
    annotations: tuple[Annotation, ...] = ()
    deleted: tuple[int, ...] = ()
    """Ids of deleted annotations (``ANNOTATIONS_DELETED``) or deleted tasks (``TASKS_DELETED``).

    Empty when the body names none, as Label Studio's code does where it looks rows up after deleting them:
    something is gone then, and only reconciliation can tell what.
    """
    body: Mapping[str, Any] = field(default_factory=dict)
    """The body with every secret cut out: what the store keeps."""
    encoded: bytes = field(init=False, repr=False, compare=False)
    """The body as JSON text, its keys in order: the same body gives the same bytes."""
    _task_by_id: Mapping[int, Task] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "encoded", _encoded(self.body))
        # An import delivers thousands of tasks and annotations at once: looking through all of them for
        # each annotation would take seconds.
        object.__setattr__(self, "_task_by_id", {task.id: task for task in self.tasks})

    @property
    def known(self) -> bool:
        """Whether labelguard knows this action; unknown ones are accepted, kept and counted."""
        return self.action in KNOWN_ACTIONS

    @property
    def digest(self) -> str:
        """A hex SHA-256 of the secret-free body, blind to key order: the same delivery twice is one.

        Except for deletions, see :attr:`idempotent`.
        """
        return _sha256(self.encoded)

    @property
    def idempotent(self) -> bool:
        """Whether taking this event in twice does no harm: true for deletions, which need no deduplication.

        And must have none: a deletion's body is an id and the project. On SQLite Label Studio gives the ids
        of deleted rows out again, so two equal bodies may be two deletions of two different annotations.
        All other events carry a time or content that tells two of them apart.
        """
        return self.action in DELETION_ACTIONS

    def task_of(self, annotation: Annotation) -> Task | None:
        """The delivered task an annotation belongs to, or None where the delivery did not bring it."""
        return self._task_by_id.get(annotation.task)

    @classmethod
    def from_delivery(cls, headers: Mapping[str, str], body: bytes | str | Mapping[str, Any]) -> Event:
        """Parse one webhook request.

        Unknown fields are ignored and unknown actions accepted. ``TASKS_CREATED`` brings the annotations
        inside its tasks too: Label Studio's API listings have them, its own deliveries only count them.
        Single (``annotation``, ``task`` objects) and bulk (lists) forms are the same.
        ``headers`` say nothing yet: Label Studio sends no delivery id, signature or version in them.

        Raises:
            BadDelivery: the body is not JSON, not an object, has no ``action``, or a field that labelguard
                needs has the wrong shape; the message names the field and what was found there.
        """
        del headers
        try:
            clean = _read(body)
            if not isinstance(clean, dict):
                raise BadDelivery(f"The body must be a JSON object, but is {_found(clean)}.")
            # Parsing reads the redacted body: nothing of what follows can hold a secret.
            return _event(redact(clean))
        except RecursionError:
            raise _too_deep() from None


def read_for(project: int, body: bytes) -> Event:
    """Parse one webhook request that came to a project's address.

    Raises:
        BadDelivery: it cannot be understood.
        OtherProject: it is about another project.
    """
    event = Event.from_delivery({}, body)
    if event.project is not None and event.project.id != project:
        raise OtherProject(
            f"The delivery is about project {event.project.id}, but came to project {project}'s address."
        )
    return event


def _event(body: dict[str, Any]) -> Event:
    action = body.get("action", _MISSING)
    if not isinstance(action, str) or not action:
        raise BadDelivery(f"`action` must be the name of a Label Studio event, but is {_found(action)}.")
    if len(action) > _MAX_ACTION:
        raise BadDelivery(f"`action` must have at most {_MAX_ACTION} characters, but has {len(action)}.")
    if action in ANNOTATION_ACTIONS:
        return _annotation_event(action, body)
    if action == "TASKS_CREATED":
        return _tasks_event(action, body)
    if action in {"ANNOTATIONS_DELETED", "TASKS_DELETED"}:
        key = "annotations" if action == "ANNOTATIONS_DELETED" else "tasks"
        items = _objects(body.get(key), key)
        deleted = tuple(_id(item.get("id", _MISSING), f"{where}.id") for where, item in items)
        return Event(action, _optional_project(body), deleted=deleted, body=body)
    if action.startswith("PROJECT_") and action in KNOWN_ACTIONS:
        return Event(action, _needed_project(action, body), body=body)
    return Event(action, _guessed_project(body), body=body)


def _annotation_event(action: str, body: dict[str, Any]) -> Event:
    items = _objects(_payload(action, body, "annotation"), "annotation")
    project = _optional_project(body) or _named_project(action, items + _objects(body.get("task"), "task"))
    task_items = _objects(body.get("task"), "task")
    tasks = tuple(_task(item, where, project.id) for where, item in task_items)
    # Label Studio lists the tasks of bulk annotations in the annotations' order, repeating them as needed.
    aligned = len(tasks) == len(items)
    annotations = tuple(
        _annotation(item, where, project.id, tasks[number].id if aligned else None)
        for number, (where, item) in enumerate(items)
    )
    return Event(action, project, tasks, annotations, body=body)


def _tasks_event(action: str, body: dict[str, Any]) -> Event:
    items = _objects(_payload(action, body, "tasks"), "tasks")
    project = _optional_project(body)
    if project is None:
        project = _named_project(action, items)
    tasks: list[Task] = []
    annotations: list[Annotation] = []
    for where, item in items:
        task = _task(item, where, project.id)
        tasks.append(task)
        for inner, made in _objects(item.get("annotations"), f"{where}.annotations"):
            annotation = _annotation(made, inner, project.id, task.id)
            if annotation.task != task.id:
                raise BadDelivery(f"`{inner}.task` must be {task.id}, the task it stands in, but is {annotation.task}.")
            annotations.append(annotation)
    return Event(action, project, tuple(tasks), tuple(annotations), body=body)


def _project(value: Mapping[str, Any], where: str) -> Project:
    return Project(
        id=_id(value.get("id", _MISSING), f"{where}.id"),
        title=_text(value, "title", where),
        label_config=_text(value, "label_config", where),
        guideline=_text(value, "expert_instruction", where),
        maximum_annotations=_count(value, "maximum_annotations", where),
        skip_queue=_text(value, "skip_queue", where) or "REQUEUE_FOR_OTHERS",
        updated_at=_time(value, "updated_at", where),
    )


def _needed_project(action: str, body: Mapping[str, Any]) -> Project:
    project = _optional_project(body)
    if project is None:
        raise BadDelivery(
            f'The {action} delivery has no `project`. Switch on "Send payload" for the webhook in Label Studio.'
        )
    return project


def _named_project(action: str, items: list[tuple[str, dict[str, Any]]]) -> Project:
    """The project that annotations and tasks name, where a delivery does not describe it."""
    for where, item in items:
        if (named := _reference(item.get("project"), f"{where}.project")) is not None:
            return Project(named)
    raise BadDelivery(
        f"The {action} delivery does not say which project it is about. "
        'Switch on "Send payload" for the webhook in Label Studio.'
    )


def _optional_project(body: Mapping[str, Any]) -> Project | None:
    value = body.get("project")
    return None if value is None else _project(_object(value, "project"), "project")


def _guessed_project(body: Mapping[str, Any]) -> Project | None:
    """The project of an event whose shape nobody promised: refusing such an event would lose it."""
    try:
        return _optional_project(body)
    except BadDelivery:
        return None


def _task(value: Mapping[str, Any], where: str, project: int) -> Task:
    return Task(
        id=_id(value.get("id", _MISSING), f"{where}.id"),
        project=_same_project(value, where, project),
        data=_mapping(value, "data", where),
        meta=_mapping(value, "meta", where),
        overlap=_count(value, "overlap", where),
        is_labeled=_flag(value, "is_labeled", where),
        created_at=_time(value, "created_at", where),
        updated_at=_time(value, "updated_at", where),
    )


def _annotation(value: Mapping[str, Any], where: str, project: int, task: int | None) -> Annotation:
    of_task = _reference(value.get("task"), f"{where}.task")
    if of_task is None:
        of_task = task
    if of_task is None:
        found = _found(value.get("task", _MISSING))
        raise BadDelivery(f"`{where}.task` must be the id of its task, but is {found}.")
    return Annotation(
        id=_id(value.get("id", _MISSING), f"{where}.id"),
        task=of_task,
        project=_same_project(value, where, project),
        result=_result(value.get("result"), f"{where}.result"),
        completed_by=_reference(value.get("completed_by"), f"{where}.completed_by"),
        updated_by=_last_editor(value.get("updated_by"), f"{where}.updated_by"),
        created_at=_time(value, "created_at", where),
        updated_at=_time(value, "updated_at", where),
        was_cancelled=_flag(value, "was_cancelled", where),
        ground_truth=_flag(value, "ground_truth", where),
        lead_time=_seconds(value, "lead_time", where),
        parent_prediction=_reference(value.get("parent_prediction"), f"{where}.parent_prediction"),
        prediction=_shown_prediction(value.get("prediction")),
        draft_created_at=_time(value, "draft_created_at", where),
        unique_id=_text(value, "unique_id", where),
    )


def _result(value: Any, where: str) -> tuple[ResultItem, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise BadDelivery(f"`{where}` must be a list of result items, but is {_found(value)}.")
    for number, item in enumerate(value):
        if not isinstance(item, dict):
            raise BadDelivery(f"`{where}[{number}]` must be an object, but is {_found(item)}.")
    return tuple(value)


def _shown_prediction(value: Any) -> tuple[ResultItem, ...]:
    # Label Studio keeps here whatever the client sent, so nothing can be promised about it, and nothing
    # depends on it enough to refuse the annotation.
    result = value.get("result") if isinstance(value, dict) else value
    if not isinstance(result, list):
        return ()
    return tuple(item for item in result if isinstance(item, dict))


def _last_editor(value: Any, where: str) -> int | None:
    """``updated_by`` is an id in deliveries and a list of ``{"user_id": 1}`` in API listings."""
    if not isinstance(value, list):
        return _reference(value, where)
    if not value:
        return None
    last = _object(value[-1], f"{where}[{len(value) - 1}]")
    return _id(last.get("user_id", _MISSING), f"{where}[{len(value) - 1}].user_id")


def _reference(value: Any, where: str) -> int | None:
    """An id, an object with an ``id``, or nothing."""
    if value is None:
        return None
    if isinstance(value, dict):
        return _id(value.get("id", _MISSING), f"{where}.id")
    return _id(value, where)


def _same_project(value: Mapping[str, Any], where: str, project: int) -> int:
    own = _reference(value.get("project"), f"{where}.project")
    if own is not None and own != project:
        raise BadDelivery(f"`{where}.project` must be {project}, the project of the delivery, but is {own}.")
    return project


def _payload(action: str, body: Mapping[str, Any], key: str) -> Any:
    if body.get(key) is None:
        raise BadDelivery(
            f'The {action} delivery has no `{key}`. Switch on "Send payload" for the webhook in Label Studio.'
        )
    return body[key]


def _objects(value: Any, where: str) -> list[tuple[str, dict[str, Any]]]:
    """The objects of a single or bulk form, each with its name for messages."""
    if value is None:
        return []
    if isinstance(value, list):
        return [(f"{where}[{i}]", _object(item, f"{where}[{i}]")) for i, item in enumerate(value)]
    return [(where, _object(value, where))]


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadDelivery(f"`{where}` must be an object, but is {_found(value)}.")
    return value


def _id(value: Any, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadDelivery(f"`{where}` must be a whole number, but is {_found(value)}.")
    if not 0 <= value <= _MAX_ID:
        raise BadDelivery(f"`{where}` must be between 0 and {_MAX_ID}, but is {_found(value)}.")
    return value


def _count(value: Mapping[str, Any], key: str, where: str) -> int:
    return 1 if value.get(key) is None else _id(value[key], f"{where}.{key}")


def _text(value: Mapping[str, Any], key: str, where: str) -> str:
    text = value.get(key)
    if text is None:
        return ""
    if not isinstance(text, str):
        raise BadDelivery(f"`{where}.{key}` must be text, but is {_found(text)}.")
    return text


def _flag(value: Mapping[str, Any], key: str, where: str) -> bool:
    flag = value.get(key)
    if flag is None:
        return False
    if not isinstance(flag, bool):
        raise BadDelivery(f"`{where}.{key}` must be true or false, but is {_found(flag)}.")
    return flag


def _mapping(value: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    found = value.get(key)
    return {} if found is None else _object(found, f"{where}.{key}")


def _seconds(value: Mapping[str, Any], key: str, where: str) -> float | None:
    seconds = value.get(key)
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise BadDelivery(f"`{where}.{key}` must be a number of seconds, but is {_found(seconds)}.")
    try:
        return float(seconds)
    except OverflowError:
        raise BadDelivery(f"`{where}.{key}` must be a number of seconds, but is {_found(seconds)}.") from None


def _time(value: Mapping[str, Any], key: str, where: str) -> datetime | None:
    text = value.get(key)
    if text is None:
        return None
    if isinstance(text, str):
        try:
            time = datetime.fromisoformat(text)
            # A time without a zone is Label Studio's own: its servers run on UTC.
            return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
        except (ValueError, OverflowError):
            pass
    raise BadDelivery(f"`{where}.{key}` must be an ISO 8601 date and time, but is {_found(text)}.")


def _read(body: bytes | str | Mapping[str, Any]) -> Any:
    """The body as clean JSON values: the strict decoder lets pass what needs no cleaning, and is far faster."""
    if isinstance(body, bytes) and not _NUL.search(body) and body.count(b"{") + body.count(b"[") <= MAX_DEPTH:
        try:
            return msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass  # what is wrong with it is said below
    return _clean(_decoded(body), 0)


def _decoded(body: bytes | str | Mapping[str, Any]) -> Any:
    if isinstance(body, Mapping):
        return body
    try:
        text = body if isinstance(body, str) else body.decode("utf-8-sig")
        return json.loads(text, parse_constant=_not_finite, parse_float=_finite)
    except UnicodeDecodeError as error:
        raise BadDelivery(f"The body is not UTF-8 text: byte {error.start} cannot be read.") from None
    except json.JSONDecodeError as error:
        raise BadDelivery(f"The body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}.") from None
    except BadDelivery:
        raise
    except ValueError:
        # Python refuses to read whole numbers of more than 4,300 digits: it would take too long.
        raise BadDelivery("The body holds a whole number with thousands of digits.") from None


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _not_finite(text)


def _not_finite(text: str) -> NoReturn:
    raise BadDelivery(f"The body holds the number {_shortened(text)}; numbers must be finite.")


def _clean(value: Any, depth: int) -> Any:
    """A copy that any database and encoder takes; see the module's docstring."""
    kind = type(value)
    # The most frequent first: a large annotation has some 200,000 values, and the annotator is waiting.
    if kind is str:
        return value if value.isascii() and "\0" not in value else _UNSTORABLE.sub("\ufffd", value)
    if kind is int or kind is bool or value is None:
        return value
    if kind is float:
        return value if math.isfinite(value) else _not_finite(str(value))
    if depth >= MAX_DEPTH:
        raise _too_deep()
    below = depth + 1
    if isinstance(value, Mapping):
        return {
            (key if type(key) is str and key.isascii() and "\0" not in key else _clean_key(key)): _clean(inner, below)
            for key, inner in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_clean(inner, below) for inner in value]
    raise BadDelivery(f"The body holds a {kind.__name__}, which is not a JSON value.")


def _clean_key(key: Any) -> str:
    if not isinstance(key, str):
        raise BadDelivery(f"The keys of a JSON object must be text, but one is {_found(key)}.")
    return _UNSTORABLE.sub("\ufffd", key)


def _too_deep() -> BadDelivery:
    return BadDelivery(f"The body is nested more than {MAX_DEPTH} levels deep.")


def _found(value: Any) -> str:
    """A value as messages show it: short, printable, without what is inside lists and objects."""
    if value is _MISSING:
        return "missing"
    if value is None:
        return "null"
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, (list, tuple)):
        return "a list"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"the text {_shortened(value)}"
    if isinstance(value, int):
        # A number of thousands of digits cannot even be printed.
        return f"the number {value}" if abs(value) < 10**30 else "a very large number"
    if isinstance(value, float):
        return f"the number {value}"
    return f"a {type(value).__name__}"


def _shortened(text: str) -> str:
    return ascii(text if len(text) <= 40 else text[:37] + "...")


def _encoded(value: Any) -> bytes:
    return msgspec.json.encode(value, order="deterministic")


def _sha256(encoded: bytes) -> str:
    return hashlib.sha256(encoded).hexdigest()
