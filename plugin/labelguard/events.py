"""What Label Studio says happened: one webhook request, parsed at the edge into frozen objects.

Nothing here does I/O. :meth:`Event.from_delivery` is the only place that knows the shape of a webhook body;
rules, store and connectors see the objects below. The shapes were observed on Label Studio 1.23 and are
described at https://labelstud.io/guide/webhook_reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

ResultItem = dict[str, Any]
"""One item of an annotation's ``result``: ``{"id", "from_name", "to_name", "type", "value", ...}``."""


class BadDelivery(ValueError):
    """A webhook request that cannot be understood; the message is a sentence for the sender's admin."""


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

    @property
    def content_hash(self) -> str:
        """A hex SHA-256 of what the annotation says (``result`` and ``was_cancelled``), blind to key order."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Event:
    """One delivery, parsed."""

    action: str
    """Label Studio's name, such as ``ANNOTATION_CREATED``. Not an enum: new ones must not break us."""
    project: Project | None
    tasks: tuple[Task, ...] = ()
    annotations: tuple[Annotation, ...] = ()
    deleted: tuple[int, ...] = ()
    """Ids of deleted annotations (``ANNOTATIONS_DELETED``) or deleted tasks (``TASKS_DELETED``)."""
    body: Mapping[str, Any] = field(default_factory=dict)
    """The body with every secret cut out: what the store keeps."""

    @property
    def known(self) -> bool:
        """Whether labelguard knows this action; unknown ones are accepted, kept and counted."""
        raise NotImplementedError

    @property
    def digest(self) -> str:
        """A hex SHA-256 of the secret-free body, blind to key order: the same delivery twice is one."""
        raise NotImplementedError

    def task_of(self, annotation: Annotation) -> Task | None:
        """The delivered task an annotation belongs to, or None where the delivery did not bring it."""
        raise NotImplementedError

    @classmethod
    def from_delivery(cls, headers: Mapping[str, str], body: bytes | str | Mapping[str, Any]) -> Event:
        """Parse one webhook request.

        Unknown fields are ignored and unknown actions accepted. ``TASKS_CREATED`` brings the annotations
        inside its tasks too. Single (``annotation``, ``task`` objects) and bulk (lists) forms are the same.

        Raises:
            BadDelivery: the body is not JSON, not an object, has no ``action``, or a field that labelguard
                needs has the wrong shape; the message names the field and what was found there.
        """
        raise NotImplementedError
