"""The inbox: deliveries, durable from the moment they are answered."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa

from labelguard.events import Event
from labelguard.store.schema import inbox
from labelguard.store.statements import Statement, adding

Origin = Literal["webhook", "reconcile", "backfill"]
State = Literal["pending", "done", "ignored", "failed"]

_PUT = Statement(
    adding(inbox, but=["id"]).on_conflict_do_nothing().returning(inbox.c.id, inbox.c.project, inbox.c.digest)
)
_FINISH = Statement(
    # With the digest: an id that was given out in a commit that failed may be another delivery's by now.
    sa.update(inbox)
    .where(inbox.c.id == sa.bindparam("delivery"), inbox.c.digest == sa.bindparam("of_digest"))
    .values({name: sa.bindparam(name) for name in ("state", "processed_at", "error")})
    .returning(inbox.c.id)
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
_BODY = Statement(sa.select(inbox.c.body).where(inbox.c.id == sa.bindparam("delivery")))


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
    kept: bool = False
    """Whether it is in the inbox for certain, whatever becomes of the transaction that processes it."""
    state: State = "pending"
    error: str | None = None
    duplicate: bool = False
    """Whether the inbox had the same delivery before."""
    settled: threading.Event = field(default_factory=threading.Event)
    """Set when what became of it is committed."""
    failure: BaseException | None = None
    """Why it could not be made durable."""

    @classmethod
    def of(cls, project: int, event: Event, origin: Origin, received_at: datetime) -> Delivery:
        """A delivery that just came in."""
        # Two genuine deletions can look the same, since Label Studio reuses ids on SQLite.
        digest = f"{event.digest}:{secrets.token_hex(8)}" if event.idempotent else event.digest
        return cls(project, event.action, digest, origin, received_at, event)


def put(conn: sa.Connection, deliveries: Sequence[Delivery], now: datetime) -> None:
    """Make deliveries durable in the state that they have now; gives ids to those without.

    One that the inbox already has keeps its row, which takes the new state where it was still pending.
    """
    new = [delivery for delivery in deliveries if delivery.id is None or not _finish(conn, delivery, now)]
    made = _PUT.insert(conn, [_values(delivery, now) for delivery in new])
    ids = {(project, digest): number for number, project, digest in made}
    for delivery in new:
        delivery.id = ids.pop((delivery.project, delivery.digest), None)
        if delivery.id is None and (known := same(conn, delivery)) is not None:
            delivery.id, state = known
            if state == "pending" and delivery.state != "pending":
                _finish(conn, delivery, now)
            else:
                delivery.duplicate, delivery.state = True, state


def put_pending(conn: sa.Connection, delivery: Delivery, now: datetime) -> None:
    """Make a delivery durable as one to be processed, however far somebody is with it.

    What its processing leads to is committed by itself: a delivery that is done before that commit would be
    lost where it never comes.
    """
    kept = replace(delivery, state="pending", error=None)
    put(conn, [kept], now)
    delivery.id, delivery.duplicate = kept.id, kept.duplicate
    if kept.duplicate:
        delivery.state = kept.state


def same(conn: sa.Connection, delivery: Delivery) -> tuple[int, State] | None:
    """The id and the state of the same delivery in the inbox, where it has been there before."""
    found = _SAME.first(conn, of_project=delivery.project, of_digest=delivery.digest)
    return None if found is None else (found[0], found[1])


def pending(conn: sa.Connection, most: int) -> list[Delivery]:
    """The oldest deliveries that are not processed yet, without their bodies."""
    return [
        Delivery(project, action, digest, origin, received_at, id=number, kept=True)
        for number, project, action, digest, origin, received_at in _PENDING.rows(conn, most=most)
    ]


def body(conn: sa.Connection, delivery: int) -> Mapping[str, Any]:
    """The body of a delivery."""
    found = _BODY.first(conn, delivery=delivery)
    if found is None:
        raise LookupError(f"there is no delivery {delivery}")
    kept: Mapping[str, Any] = found[0]
    return kept


def _finish(conn: sa.Connection, delivery: Delivery, now: datetime) -> bool:
    """Bring a delivery's row up to date; False where there is none."""
    if delivery.state == "pending":
        # Its id alone does not say that it is there: the commit that gave it out may have failed.
        there = same(conn, delivery)
        return there is not None and there[0] == delivery.id
    values = {"state": delivery.state, "processed_at": now, "error": delivery.error}
    return bool(_FINISH.rows(conn, delivery=delivery.id, of_digest=delivery.digest, **values))


def _values(delivery: Delivery, now: datetime) -> dict[str, Any]:
    if delivery.event is None:
        raise RuntimeError("a delivery without its event is in the inbox already")
    return {
        "project": delivery.project,
        "action": delivery.action,
        "digest": delivery.digest,
        "origin": delivery.origin,
        "body": delivery.event.encoded.decode(),
        "received_at": delivery.received_at,
        "state": delivery.state,
        "processed_at": None if delivery.state == "pending" else now,
        "error": delivery.error,
    }
