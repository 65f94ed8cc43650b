"""A delivery whose processing has begun and is not committed, made durable by its impatient receiver."""

from __future__ import annotations

from pathlib import Path

from deliveries import NOW, PROJECT, annotation, created
from guarded import guarded
from labelguard.events import Event
from labelguard.inbox import Delivery


def test_what_is_in_hand_is_kept_as_pending(tmp_path: Path) -> None:
    """As done it would be lost if the process were killed before what it led to is committed."""
    with guarded(tmp_path) as guard:
        event = Event.from_delivery({}, created(annotation(11, "spam", "important")))
        delivery = Delivery.of(PROJECT, event, "webhook", NOW)
        # As the worker leaves it between looking at it and writing what it led to.
        delivery.state = "done"
        guard.engine._keep(delivery)
        assert guard.inbox() == [("ANNOTATION_CREATED", "pending")]
        guard.engine.process_pending()
        assert guard.inbox() == [("ANNOTATION_CREATED", "done")]
        assert len(guard.findings()) == 1
