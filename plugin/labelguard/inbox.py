"""The inbox: deliveries, durable from the moment they are answered."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol

import sqlalchemy as sa

from labelguard.events import Event
from labelguard.store.schema import inbox
from labelguard.store.statements import Statement, adding, among

Origin = Literal["webhook", "reconcile", "backfill"]
State = Literal["pending", "done", "ignored", "failed"]

_PUT = Statement(
    adding(inbox, but=["id"]).on_conflict_do_nothing().returning(inbox.c.id, inbox.c.project, inbox.c.digest)
)
_FINISH = Statement(
    sa.update(inbox)
    .where(among(inbox.c.id, "deliveries"))
    .values({name: sa.bindparam(name) for name in ("state", "processed_at", "error")})
)
_SAME = Statement(
    sa.select(inbox.c.id, inbox.c.state).where(
        inbox.c.project == sa.bindparam("of_project"), inbox.c.digest == sa.bindparam("of_digest")
    )
)
_PENDING = Statement(
    # Without the bodies: a hundred large ones would fill the memory.
    sa.select(inbox.c.id, inbox.c.project, inbox.c.action, inbox.c.digest, inbox.c.origin, inbox.c.received_at)
    # The literal, not a parameter: SQLite uses the partial index only when it sees the same words.
    .where(inbox.c.state == sa.literal_column("'pending'"))
    .order_by(inbox.c.id)
    .limit(sa.bindparam("most", type_=sa.Integer))
)
_DONE_WITH = Statement(
    sa.select(inbox.c.id).where(among(inbox.c.id, "deliveries"), inbox.c.state != sa.literal_column("'pending'"))
)
_BODY = Statement(sa.select(inbox.c.body).where(inbox.c.id == sa.bindparam("delivery")))


class Answerable(Protocol):
    """Told when the sender of a delivery can be answered."""

    def set(self) -> None:
        """It can be answered now; told any number of times."""
        ...

    def is_set(self) -> bool:
        """Whether that was told."""
        ...


class _Unasked:
    """Nobody waits for an answer."""

    __slots__ = ("_told",)

    def __init__(self) -> None:
        self._told = False

    def set(self) -> None:
        self._told = True

    def is_set(self) -> bool:
        return self._told


@dataclass(slots=True, eq=False)
class Delivery:
    """One delivery on its way through labelguard."""

    project: int
    action: str
    digest: str
    origin: Origin
    received_at: datetime
    event: Event | None = None
    """Parsed; None where only the store has it so far."""
    id: int | None = None
    """The inbox id; None until it was put there, which may not be committed yet."""
    state: State = "pending"
    error: str | None = None
    before: State | None = None
    """The state in which the inbox had the same delivery already; None where it is new."""
    kept: bool = False
    """Whether it is in the inbox for certain."""
    failure: BaseException | None = None
    """Why it could not be put there."""
    judged: bool = False
    """Whether the rules have looked, and whatever they found is committed."""
    settled: bool = False
    """Whether all that became of it is committed."""
    found: bool = False
    """Whether it led to a finding, and so perhaps to actions."""
    answerable: Answerable = field(default_factory=_Unasked)
    """Set when it is kept and judged, or could not be kept: there is nothing to wait for any more."""

    @property
    def duplicate(self) -> bool:
        """Whether the inbox had the same delivery before."""
        return self.before is not None

    def keep(self, failure: BaseException | None) -> None:
        """It is in the inbox now, or could not be put there."""
        if failure is not None:
            # Its id was never given out: whoever gets it next is another delivery.
            self.id, self.failure = None, failure
            self.answerable.set()
            return
        self.kept = True
        if self.judged or self.duplicate:
            self.answerable.set()

    def judge(self, *, settled: bool) -> None:
        """The rules have looked at it now; ``settled`` is whether everything is committed."""
        self.judged = True
        self.settled = self.settled or settled
        # Whoever of the two comes second sees the other's mark.
        if self.kept:
            self.answerable.set()

    @classmethod
    def of(
        cls, project: int, event: Event, origin: Origin, received_at: datetime, *, salt: str | None = None
    ) -> Delivery:
        """A delivery that just came in; with the same ``salt``, and saying the same, it is the same one."""
        # Two genuine deletions can look the same, since Label Studio reuses ids on SQLite.
        digest = f"{event.digest}:{salt or new_salt()}" if event.idempotent else event.digest
        return cls(project, event.action, digest, origin, received_at, event)


def new_salt() -> str:
    """What tells one request from another that says the same: 16 characters."""
    return secrets.token_hex(8)


def put_pending(conn: sa.Connection, deliveries: Sequence[Delivery]) -> None:
    """Make new deliveries durable as ones to be processed, however far somebody is with them.

    What their processing leads to is committed by itself: a delivery that is done before that commit would be
    lost where it never comes. Each gets its id; one that the inbox has already, that one's.
    """
    made = _PUT.insert(conn, [_values(delivery) for delivery in deliveries])
    ids = {(project, digest): number for number, project, digest in made}
    for delivery in deliveries:
        delivery.id = ids.pop((delivery.project, delivery.digest), None)
        if delivery.id is None and (known := same(conn, delivery)) is not None:
            delivery.id, delivery.before = known


class NotKept(Exception):
    """A delivery turned out not to be in the inbox: its sender was told so, and nothing may follow from it."""


def check_kept(deliveries: Sequence[Delivery]) -> None:
    """Make sure, on the writer, that deliveries are in the inbox by now.

    Raises:
        NotKept: one is not.
    """
    if any(delivery.failure is not None or delivery.id is None for delivery in deliveries):
        raise NotKept


def finish(conn: sa.Connection, deliveries: Sequence[Delivery], now: datetime) -> None:
    """Bring the rows of deliveries that were processed, and are in the inbox for certain, up to date."""
    alike: dict[tuple[State, str | None], list[int]] = {}
    for delivery in deliveries:
        # A redelivery says nothing of what became of the first.
        if delivery.before in (None, "pending") and delivery.id is not None:
            alike.setdefault((delivery.state, delivery.error), []).append(delivery.id)
    for (state, error), ids in alike.items():
        _FINISH.count(conn, deliveries=ids, state=state, processed_at=now, error=error)


def done_with(conn: sa.Connection, deliveries: Sequence[Delivery]) -> set[int]:
    """Ids of those that the inbox has, and that are not to be processed any more."""
    ids = [delivery.id for delivery in deliveries if delivery.id is not None]
    return {number for (number,) in _DONE_WITH.rows(conn, deliveries=ids)}


def same(conn: sa.Connection, delivery: Delivery) -> tuple[int, State] | None:
    """The id and the state of the same delivery in the inbox, where it has been there before."""
    found = _SAME.first(conn, of_project=delivery.project, of_digest=delivery.digest)
    return None if found is None else (found[0], found[1])


def pending(conn: sa.Connection, most: int) -> list[Delivery]:
    """The oldest deliveries that are not processed yet, without their bodies."""
    return [
        Delivery(project, action, digest, origin, received_at, id=number)
        for number, project, action, digest, origin, received_at in _PENDING.rows(conn, most=most)
    ]


def body(conn: sa.Connection, delivery: int) -> Mapping[str, Any]:
    """The body of a delivery."""
    found = _BODY.first(conn, delivery=delivery)
    if found is None:
        raise LookupError(f"there is no delivery {delivery}")
    kept: Mapping[str, Any] = found[0]
    return kept


def _values(delivery: Delivery) -> dict[str, Any]:
    if delivery.event is None:
        raise RuntimeError("a delivery without its event is in the inbox already")
    return {
        "project": delivery.project,
        "action": delivery.action,
        "digest": delivery.digest,
        "origin": delivery.origin,
        "body": delivery.event.encoded.decode(),
        "received_at": delivery.received_at,
        "state": "pending",
        "processed_at": None,
        "error": None,
    }
