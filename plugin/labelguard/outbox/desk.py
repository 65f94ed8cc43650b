"""What all of the outbox works with: an action in hand, how it is kept, and what can go wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from labelguard.connectors import ConnectorError, Notifier, Studio, TaskRecord
from labelguard.engine import Clock, Engine
from labelguard.policy import Policy
from labelguard.store import Store, records
from labelguard.store.backend import Role

Row = dict[str, Any]

IN_PAGE = frozenset({"prompt", "rework"})
"""Actions that the page shows; their life after approval is in :mod:`labelguard.prompts`."""

IN_FLIGHT = 30.0
"""Seconds within which an effect that was begun is over: our requests end before, and what Label Studio makes of
a request whose sender is gone, it makes by then."""


class Refused(ValueError):
    """An action cannot take this step; the message is a sentence."""


class Impossible(Exception):
    """The effect cannot be had, now or later; the message is a sentence."""


class NotOurs(Exception):
    """The action is somebody else's to deliver by now; nothing was done."""


class Unsure(ConnectorError):
    """An effect was asked for, and whether it happens is not known."""


@dataclass(frozen=True, slots=True)
class Job:
    """An action with what delivering it needs."""

    action: Row
    finding: Row
    policy: Policy | None
    project: Row
    role: Role

    @property
    def target(self) -> dict[str, Any]:
        """What the action is to come to, as it was planned."""
        return dict(self.action["target"])


@dataclass(frozen=True, slots=True)
class Desk:
    """The store with the actions, and whom they are about and for."""

    store: Store
    engine: Engine
    studio: Studio | None
    notifier: Notifier | None
    clock: Clock

    def need_studio(self) -> Studio:
        """Label Studio, which is not configured everywhere.

        Raises:
            ConnectorError: it is not.
        """
        if self.studio is None:
            raise ConnectorError("labelguard is not configured for a Label Studio: set LABELGUARD_STUDIO_API_KEY.")
        return self.studio

    def update(self, action: Row, known: Mapping[str, Any] | None = None, **values: Any) -> None:
        """Set columns and add what became known to the target, to which the page writes as well.

        What came to its end meanwhile stays as the page or a person left it, and what another deliverer
        claimed meanwhile is its to write.
        """

        def job(conn: sa.Connection) -> None:
            row = records.get_action(conn, action["id"])
            if row is None:
                return
            same = row["state"] == action["state"] and row["attempts"] == action["attempts"]
            new = {**values} if same else {}
            if known:
                new["target"] = {**(row["target"] or {}), **known}
            if new:
                records.update_action(conn, action["id"], self.clock(), **new)

        self.store.write(job)


def still_held(role: Role) -> None:
    """Raise where the role was lost with its connection: somebody else may be at the same thing by now."""
    if not role.held():
        raise ConnectorError("The store was lost in between; nothing was changed. Try again.")


def marker(action: Row) -> str:
    """What tells ours from everybody else's in Label Studio, by the finding's number."""
    return f"labelguard {action['finding']}"


def count_opinions(record: TaskRecord) -> int:
    """How many people have said something; a skip says nothing."""
    return len({a.completed_by for a in record.annotations if not a.was_cancelled})


def planned(conn: sa.Connection, action: int) -> Row:
    """An action, or a sentence where there is none of that number."""
    row = records.get_action(conn, action)
    if row is None:
        raise Refused(f"There is no action {action}.")
    return row
