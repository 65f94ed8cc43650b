"""The engine: deliveries in, findings and planned actions out, in one transaction each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from labelguard.events import Event
from labelguard.rules import Finding
from labelguard.store import Store

Origin = Literal["webhook", "reconcile", "backfill"]
Clock = Callable[[], datetime]


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a delivery at the door."""

    delivery: int
    """The inbox id."""
    duplicate: bool = False
    processed: bool = False
    """Whether the rules had looked at it when the receiver answered."""


class Engine:
    """Takes deliveries, judges them, keeps what was found."""

    def __init__(self, store: Store, clock: Clock, *, own_user: int | None = None, keep_rejected: int = 1000) -> None:
        """``own_user`` is labelguard's Label Studio user: what it saves is never judged."""
        raise NotImplementedError

    def start(self) -> None:
        """Start the worker thread that processes pending deliveries."""
        raise NotImplementedError

    def stop(self) -> None:
        """Finish the delivery in hand and stop."""
        raise NotImplementedError

    def receive(self, project: int, event: Event, origin: Origin = "webhook", *, wait: float = 0.0) -> Receipt:
        """Make a delivery durable, then wait at most ``wait`` seconds for it to be processed."""
        raise NotImplementedError

    def reject(self, project: int | None, reason: str, size: int) -> None:
        """Keep a refused delivery's reason for the admin."""
        raise NotImplementedError

    def process_pending(self) -> int:
        """Process everything pending in order, in this thread; returns how many deliveries."""
        raise NotImplementedError

    def check(self, project: int, task: int, annotator: int, result: list[dict[str, Any]]) -> list[Mapping[str, Any]]:
        """What the policy's blocking rules say of an unsaved result: dicts with ``rule``, ``text``."""
        raise NotImplementedError

    def add_sweep_findings(
        self, project: int, rule_key: str, findings: list[Finding], *, now: datetime
    ) -> list[int]:
        """Keep a sweep's findings (with the actions its policy wants); returns their ids."""
        raise NotImplementedError
