"""Webhook bodies as Label Studio 1.23 sends them, built piece by piece."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
PROJECT = 3
ANN, BEN, ADMIN, LABELGUARD = 101, 102, 1, 9

LABEL_CONFIG = """
<View>
  <Text name="text" value="$text"/>
  <Choices name="topics" toName="text" choice="multiple">
    <Choice value="spam"/><Choice value="important"/><Choice value="refund"/><Choice value="billing"/>
  </Choices>
</View>
"""


def at(minutes: float) -> datetime:
    """So many minutes after the beginning of the test's day."""
    return NOW + timedelta(minutes=minutes)


def topics(*labels: str) -> list[dict[str, Any]]:
    """The result of choosing topics."""
    return [
        {
            "id": "r1",
            "from_name": "topics",
            "to_name": "text",
            "type": "choices",
            "origin": "manual",
            "value": {"choices": list(labels)},
        }
    ]


def annotation(
    number: int = 11,
    *labels: str,
    task: int = 7,
    by: int = ANN,
    created: datetime = NOW,
    saved: datetime | None = None,
    **fields: Any,
) -> dict[str, Any]:
    """One annotation; ``saved`` is when it was saved last, when it was made unless told otherwise."""
    return {
        "id": number,
        "task": task,
        "project": PROJECT,
        "result": topics(*labels),
        "completed_by": by,
        "updated_by": by,
        "created_at": created.isoformat(),
        "updated_at": (saved or created).isoformat(),
        "lead_time": 4.2,
        "was_cancelled": False,
        "ground_truth": False,
        **fields,
    }


def task(number: int = 7, **fields: Any) -> dict[str, Any]:
    """One task."""
    return {
        "id": number,
        "project": PROJECT,
        "data": {"text": "Where is my money?"},
        "meta": {},
        "overlap": 1,
        "is_labeled": False,
        "created_at": at(-600).isoformat(),
        "updated_at": NOW.isoformat(),
        **fields,
    }


def project(**fields: Any) -> dict[str, Any]:
    """The project as every delivery carries it."""
    return {
        "id": PROJECT,
        "title": "Mail",
        "label_config": LABEL_CONFIG,
        "expert_instruction": "",
        "updated_at": at(-600).isoformat(),
        **fields,
    }


def created(made: dict[str, Any], **about: Any) -> dict[str, Any]:
    """Somebody submitted."""
    return _one("ANNOTATION_CREATED", made, about)


def updated(made: dict[str, Any], **about: Any) -> dict[str, Any]:
    """Somebody saved again."""
    return _one("ANNOTATION_UPDATED", made, about)


def _one(action: str, made: dict[str, Any], about: dict[str, Any]) -> dict[str, Any]:
    return {"action": action, "annotation": made, "task": task(made["task"]), "project": project(), **about}


def bulk(made: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Many annotations in one delivery."""
    return {
        "action": "ANNOTATIONS_CREATED",
        "annotation": list(made),
        "task": [task(each["task"]) for each in made],
        "project": project(),
    }


def deleted(*numbers: int) -> dict[str, Any]:
    """Annotations went."""
    return {"action": "ANNOTATIONS_DELETED", "annotations": [{"id": n} for n in numbers], "project": project()}
