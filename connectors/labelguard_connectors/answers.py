"""What Label Studio's answers say: its records as ours, and its refusals as sentences."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from labelguard.connectors import ConnectorError, NotFound, TaskRecord, User, Webhook
from labelguard.events import BadDelivery, Event

T = TypeVar("T")

SSRF_REFUSED = (
    "Label Studio refuses webhooks to private and loopback addresses, and labelguard's is one. "
    "Start Label Studio with SSRF_PROTECTION_ENABLED=false or USE_DEFAULT_BANNED_SUBNETS=false, "
    "or give labelguard a public address (LABELGUARD_PUBLIC_URL)."
)

SHORTEST_WAIT = 5.0
"""Seconds waited where Label Studio asks for a pause without saying how long."""

LONGEST_WAIT = 3600.0
"""Seconds waited at most where Label Studio asks for a pause, whatever it says."""

_TRY_AGAIN = frozenset({408, 425, 429})
_ASKED_TO_WAIT = frozenset({429, 503})

_TASK_FIELDS = ("id", "project", "data", "meta", "overlap", "is_labeled", "created_at", "updated_at")

# Words of the moment ("3 minutes ago") that would make the same annotation look different at each reading.
_ANNOTATION_NOISE = frozenset({"created_ago", "created_username", "last_action", "import_id", "bulk_created"})


def json_or_text(text: str) -> Any:
    """What an answer holds, as JSON where it is any."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def nonsense(doing: str) -> ConnectorError:
    """The error for an answer that no Label Studio gives."""
    return ConnectorError(
        f"What answered while labelguard was {doing} is not Label Studio's API. Check LABELGUARD_STUDIO_URL."
    )


def filters_ignored(doing: str) -> ConnectorError:
    """The error for a listing that holds more than was asked for."""
    return ConnectorError(
        f"Label Studio ignored the filters while labelguard was {doing}; "
        "this version of Label Studio is not one labelguard can reconcile with.",
        permanent=True,
    )


def refusal(doing: str, status: int, headers: Mapping[str, str], body: Any) -> ConnectorError:
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
    asked = _retry_after(headers) if status in _ASKED_TO_WAIT else None
    if status == 429:
        asked = asked or SHORTEST_WAIT
    return ConnectorError(sentence, permanent=permanent, retry_after=asked)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds from a Retry-After header, which holds seconds or a date (RFC 9110, 10.2.3).

    At most :data:`LONGEST_WAIT`; what is past, or makes no sense, is None.
    """
    value = next((v for k, v in headers.items() if k.lower() == "retry-after"), "").strip()
    seconds = float(value[:9]) if value.isascii() and value.isdigit() else _seconds_until(value, headers)
    return min(seconds, LONGEST_WAIT) if seconds is not None and seconds > 0 else None


def _seconds_until(date: str, headers: Mapping[str, str]) -> float | None:
    try:
        until = parsedate_to_datetime(date)
    except (ValueError, TypeError, OverflowError):
        return None
    sent = next((v for k, v in headers.items() if k.lower() == "date"), "")
    try:
        # The server's own clock where it tells it: ours may differ.
        now = parsedate_to_datetime(sent) if sent else datetime.now(UTC)
    except (ValueError, TypeError, OverflowError):
        now = datetime.now(UTC)
    if now.tzinfo is None:  # a proxy has added a second one
        now = datetime.now(UTC)
    if until.tzinfo is None:
        return None
    return (until - now).total_seconds()


def objects_of(found: Any) -> list[Any]:
    """A list of the SDK's objects; it hands out any other answer as it came."""
    import pydantic

    if not isinstance(found, list) or not all(isinstance(each, pydantic.BaseModel) for each in found):
        raise TypeError("not a list of objects")
    return found


def author_id(user: Any) -> int | None:
    """A user's id, where the API gives the id or the user."""
    found = user if user is None or isinstance(user, int) else user.id
    return None if found is None else int(found)


def user_from(raw: Mapping[str, Any]) -> User:
    """A user of the API."""
    name = f"{raw.get('first_name') or ''} {raw.get('last_name') or ''}".strip()
    return User(
        id=int(raw["id"]),
        email=str(raw.get("email") or ""),
        name=name or str(raw.get("username") or ""),
        active=raw.get("is_active") is not False,
    )


def webhook_from(raw: Mapping[str, Any]) -> Webhook:
    """A webhook of the API."""
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


def parsed(doing: str, body: Mapping[str, Any], pick: Callable[[Event], T | None]) -> T:
    """Let the one place that knows Label Studio's shapes read an answer of its API."""
    try:
        found = pick(Event.from_delivery({}, body))
    except (BadDelivery, IndexError):
        raise nonsense(doing) from None
    if found is None:
        raise nonsense(doing)
    return found


def record_from(raw: Any, doing: str) -> TaskRecord:
    """A task of the API with its annotations."""
    if not isinstance(raw, dict) or "project" not in raw:
        raise nonsense(doing)
    predictions, annotations = raw.get("predictions") or [], raw.get("annotations") or []
    if not _are_objects(predictions) or not _are_objects(annotations):
        raise nonsense(doing)
    item = {key: value for key, value in raw.items() if key in _TASK_FIELDS}
    item["annotations"] = [
        as_delivered({**each, "task": raw.get("id"), "project": raw["project"]}, predictions) for each in annotations
    ]
    body = {"action": "TASKS_CREATED", "project": {"id": raw["project"]}, "tasks": [item]}
    return parsed(doing, body, lambda event: TaskRecord(event.tasks[0], event.annotations, item))


def _are_objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def as_delivered(raw: Mapping[str, Any], predictions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
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
