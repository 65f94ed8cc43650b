"""What looking found, in the shape of deliveries: the engine takes it in like any other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from labelguard.connectors import TaskRecord
from labelguard.engine import Engine
from labelguard.events import Annotation, Event, Project
from labelguard.inbox import Origin

BATCH = 100
"""Tasks listed, compared, and fed to the engine, at a time."""


def feed(
    engine: Engine,
    info: Project,
    new: Sequence[tuple[TaskRecord, Annotation]],
    changed: Sequence[tuple[TaskRecord, Annotation]],
    *,
    origin: Origin,
    at: datetime,
) -> None:
    """Hand differences over as the deliveries that should have told of them."""
    if new:
        body: dict[str, Any] = {
            "action": "ANNOTATIONS_CREATED",
            "annotation": [_raw_annotation(record, annotation) for record, annotation in new],
            "task": [_bare_task(record) for record, _ in new],
        }
        _receive(engine, info, body, origin, at)
    for record, annotation in changed:
        body = {
            "action": "ANNOTATION_UPDATED",
            "annotation": _raw_annotation(record, annotation),
            "task": _bare_task(record),
        }
        _receive(engine, info, body, origin, at)
    if new or changed:
        engine.process_pending()


def _receive(engine: Engine, info: Project, body: dict[str, Any], origin: Origin, at: datetime) -> None:
    # The time makes each body its own: the inbox keeps equal ones once, and a state that comes back (ground
    # truth moved away and back again) is not the same news.
    body |= {"project": _project_body(info), "reconciled_at": at.isoformat()}
    engine.receive(info.id, Event.from_delivery({}, body), origin)


def _raw_annotation(record: TaskRecord, annotation: Annotation) -> Mapping[str, Any]:
    """An annotation as Label Studio gave it."""
    found: Mapping[str, Any] = next(a for a in record.raw["annotations"] if a["id"] == annotation.id)
    return found


def _bare_task(record: TaskRecord) -> dict[str, Any]:
    """A task as Label Studio gave it, without its annotations."""
    return {key: value for key, value in record.raw.items() if key != "annotations"}


def _project_body(info: Project) -> dict[str, Any]:
    """A project as a delivery describes it."""
    return {
        "id": info.id,
        "title": info.title,
        "label_config": info.label_config,
        "expert_instruction": info.guideline,
        "maximum_annotations": info.maximum_annotations,
        "skip_queue": info.skip_queue,
        "updated_at": info.updated_at.isoformat() if info.updated_at else None,
    }
