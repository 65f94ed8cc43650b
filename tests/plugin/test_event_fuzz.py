"""Whatever is posted: an event that can be stored, or one sentence."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from hypothesis import given, settings, strategies as st

from labelguard.events import KNOWN_ACTIONS, BadDelivery, Event
from labelguard.judgments import judgments_of

BODIES = [json.loads(path.read_text("utf-8")) for path in sorted((Path(__file__).parent / "deliveries").glob("*.json"))]

_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**30), 10**30)
    | st.floats()
    | st.text(st.characters(codec=None), max_size=8)
)
_JSON = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["id", "task", "project", "result", "user_id", "value", "type", "annotations"])
            | st.text(st.characters(codec=None), max_size=4),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)


def take(body: bytes | str | dict[str, Any]) -> None:
    """Parse a body and use everything that came out of it, as the service would."""
    try:
        event = Event.from_delivery({"Content-Type": "application/json"}, body)
    except BadDelivery as refused:
        sentence = str(refused)
        assert sentence.endswith(".")
        assert sentence.isprintable()
        assert len(sentence) < 400
        return
    stored = json.dumps(event.body, ensure_ascii=False, allow_nan=False)
    assert b"\x00" not in stored.encode()
    assert len(event.digest) == 64
    ids = [task.id for task in event.tasks] + list(event.deleted)
    for annotation in event.annotations:
        ids += [annotation.id, annotation.task, annotation.project]
        ids += [user for user in (annotation.completed_by, annotation.updated_by) if user is not None]
        assert annotation.project == (event.project.id if event.project else None)
        assert len(annotation.content_hash) == 64
        judgments_of(annotation.result)
        event.task_of(annotation)
    assert all(type(number) is int and 0 <= number < 2**63 for number in ids)
    # What was stored is what arrives again: a replay gives the same event.
    assert Event.from_delivery({}, stored) == event


@settings(max_examples=150, deadline=None)
@given(st.binary() | st.text(st.characters(codec=None)))
def test_any_bytes_and_any_text_are_answered(body: bytes | str) -> None:
    """Noise never gets further than the door."""
    take(body)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(sorted(KNOWN_ACTIONS)) | st.text(max_size=5),
    st.dictionaries(st.sampled_from(["annotation", "annotations", "task", "tasks", "project", "x"]), _JSON),
)
def test_any_json_under_any_action_is_answered(action: str, body: dict[str, Any]) -> None:
    """Every action's reader meets every shape."""
    take({"action": action, **body})
    take(json.dumps({"action": action, **body}))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_real_delivery_with_one_field_changed_is_answered(data: st.DataObject) -> None:
    """One field anywhere in a captured body is replaced or taken away."""
    body = copy.deepcopy(data.draw(st.sampled_from(BODIES)))
    place: Any = body
    while True:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        inner = place[key]
        if not isinstance(inner, (dict, list)) or not inner or data.draw(st.booleans()):
            break
        place = inner
    if data.draw(st.booleans()):
        place[key] = data.draw(_JSON)
    else:
        del place[key]
    take(json.dumps(body))


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(BODIES), st.data())
def test_a_real_delivery_cut_short_or_with_a_flipped_byte_is_answered(
    body: dict[str, Any], data: st.DataObject
) -> None:
    """What a broken connection or a broken disk makes of a body."""
    raw = bytearray(json.dumps(body).encode())
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    take(bytes(raw))
    take(bytes(raw[:at]))
