"""The outbox: planned actions, what people decide about them, and their delivery."""

from __future__ import annotations

from labelguard.connectors import Notifier, Studio
from labelguard.engine import Clock, Engine
from labelguard.store import Store


class Refused(ValueError):
    """An action cannot take this step; the message is a sentence."""


class Outbox:
    """Delivers due actions and lets people decide about proposed ones."""

    def __init__(
        self, store: Store, engine: Engine, studio: Studio | None, notifier: Notifier | None, clock: Clock
    ) -> None:
        raise NotImplementedError

    def deliver_due(self) -> int:
        """Deliver every action that is due; returns how many took effect. Nothing while the kill switch is on."""
        raise NotImplementedError

    def approve(self, action: int, by: str) -> None:
        """Approve a proposed action."""
        raise NotImplementedError

    def reject(self, action: int, by: str) -> None:
        """Reject a proposed action for good."""
        raise NotImplementedError

    def undo(self, action: int, by: str) -> None:
        """Take an action's effect back (now)."""
        raise NotImplementedError

    def undo_all(self, project: int, by: str) -> int:
        """Take back every standing effect in a project (``disconnect``); returns how many."""
        raise NotImplementedError
