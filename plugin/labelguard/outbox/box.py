"""Delivering due actions one after the other, and what people decide about them."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from datetime import timedelta

import sqlalchemy as sa
import structlog

from labelguard.connectors import ConnectorError, Notifier, Stopping, Studio
from labelguard.engine import Clock, Engine
from labelguard.keeping import described
from labelguard.outbox.desk import IN_FLIGHT, IN_PAGE, Desk, Impossible, Job, NotOurs, Refused, Row, Unsure, planned
from labelguard.outbox.effects import Effects
from labelguard.outbox.settling import Settling
from labelguard.outbox.undoing import Undoing, leaves_something
from labelguard.store import Store, records
from labelguard.store.backend import Role
from labelguard.store.core import StoreError
from labelguard.store.schema import actions

log = structlog.get_logger(__name__)

_ONLY_LOOKS = frozenset({"rework"})
"""Actions whose delivery changes nothing, so that nobody need be kept from doing it as well."""

_CLAIM = 2.0
"""For how many times :data:`IN_FLIGHT` an action is claimed: half to look, half for the effect."""

_FIRST_PAUSE = 5.0
_LONGEST_PAUSE = 3600.0
"""Seconds; each pause between attempts is twice the one before."""

MAX_ATTEMPTS = 24
"""With these pauses about eleven hours: longer than a night without Label Studio is not an outage."""

_DUE = sa.or_(actions.c.next_at.is_(None), actions.c.next_at <= sa.bindparam("now", type_=actions.c.next_at.type))

_DELIVERABLE = ("approved", "delivering")


class Outbox:
    """Delivers due actions and lets people decide about proposed ones."""

    def __init__(
        self,
        store: Store,
        engine: Engine,
        studio: Studio | None,
        notifier: Notifier | None,
        clock: Clock,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """``jitter`` gives numbers in [0, 1) that spread the pauses between attempts."""
        self._desk = Desk(store, engine, studio, notifier, clock)
        self._effects = Effects(self._desk)
        self._undoing = Undoing(self._desk)
        self._settling = Settling(self._desk, self._undoing)
        self._jitter = jitter

    # Delivery

    def deliver_due(self, stopping: threading.Event | None = None) -> int:
        """Deliver every action that is due; returns how many took effect. Nothing while the kill switch is on.

        Once ``stopping`` is set, what is not in hand is left to the next process.
        """
        count = 0
        with self._desk.store.exclusive("outbox") as role:
            with self._desk.store.read() as conn:
                enabled = records.actions_enabled(conn)
            for due in self._due() if enabled else ():
                if stopping is not None and stopping.is_set():
                    break
                if not role.held():
                    # Whoever has it now delivers the rest.
                    log.warning("outbox_lost")
                    break
                about = {"action": due["id"], "kind": due["kind"], "finding": due["finding"]}
                with structlog.contextvars.bound_contextvars(**about, delivery=self._delivery_of(due)):
                    action = self._claim(due)
                    count += action is not None and self._deliver(action, role)
        return count

    def _delivery_of(self, action: Row) -> int | None:
        """The delivery that its finding came from, for the log."""
        with self._desk.store.read() as conn:
            return (records.get_finding(conn, action["finding"]) or {}).get("delivery")

    def _claim(self, due: Row) -> Row | None:
        """Take an action in hand for a while; None where people, or another deliverer, were quicker."""
        now = self._desk.clock()

        def job(conn: sa.Connection) -> Row | None:
            row = records.get_action(conn, due["id"])
            if row is None or row["state"] not in _DELIVERABLE or not records.actions_enabled(conn):
                return None
            if row["attempts"] != due["attempts"] or (row["next_at"] is not None and row["next_at"] > now):
                return None
            finding = records.get_finding(conn, row["finding"])
            if finding is not None and finding["state"] == "dismissed":
                why = "The finding was dismissed first."
                records.update_action(conn, row["id"], self._desk.clock(), state="rejected", next_at=None, error=why)
                return None
            # The page decides about the state of its own.
            claimed = {
                "state": row["state"] if row["kind"] in IN_PAGE else "delivering",
                "attempts": row["attempts"] + 1,
                "next_at": None if row["kind"] in _ONLY_LOOKS else now + timedelta(seconds=_CLAIM * IN_FLIGHT),
            }
            # On the number of attempts: of two deliverers that read the same row, one finds it changed.
            mine = sa.update(actions).where(actions.c.id == row["id"], actions.c.attempts == row["attempts"])
            taken = conn.execute(mine.values(**claimed, updated_at=now)).rowcount
            return {**row, **claimed} if taken else None

        return self._desk.store.write(job)

    def _due(self) -> list[Row]:
        query = sa.select(actions).where(_DUE, actions.c.state.in_(_DELIVERABLE))
        with self._desk.store.read() as conn:
            rows = [dict(r) for r in conn.execute(query.order_by(actions.c.id), {"now": self._desk.clock()}).mappings()]
        return [row for row in rows if row["kind"] not in IN_PAGE or not (row["target"] or {}).get("delivered")]

    def _job(self, conn: sa.Connection, action: Row, role: Role) -> Job:
        loaded = self._desk.engine.processor.policy(conn, action["project"])
        return Job(
            action=action,
            finding=records.get_finding(conn, action["finding"]) or {},
            policy=loaded.policy if loaded else None,
            project=records.get_project(conn, action["project"]) or {},
            role=role,
        )

    def _deliver(self, action: Row, role: Role) -> bool:
        in_page = action["kind"] in IN_PAGE
        try:
            with self._desk.store.read() as conn:
                job = self._job(conn, action, role)
            known = self._effects.bring_about(job)
        except StoreError:
            raise
        except NotOurs as error:
            log.warning("action_left", reason=str(error))
            return False
        except (Impossible, Refused) as error:
            return self._failed(action, str(error))
        except Stopping:
            # No trouble of this action: it is due as it was before.
            self._desk.update(action, next_at=None)
            return False
        except ConnectorError as error:
            if error.permanent:
                return self._failed(action, str(error))
            least = IN_FLIGHT if isinstance(error, Unsure) else 0.0
            return self._postponed(action, str(error), error.retry_after, least)
        except Exception as error:
            # One action that cannot be understood (its rule is not installed any more, say) stops no other.
            log.exception("action_crashed")
            return self._postponed(action, described(error), None)
        if in_page:
            self._desk.update(action, {**known, "delivered": True}, next_at=None, error=None)
            log.info("action_in_page", task=action["task"], annotation=action["annotation"])
        else:
            self._desk.update(action, known, state="done", next_at=None, error=None)
            log.info("action_done", task=action["task"], annotation=action["annotation"])
        self._desk.store.instruments.attempted(action["kind"], "done")
        self._desk.store.instruments.took_effect(
            action["kind"], (self._desk.clock() - action["created_at"]).total_seconds()
        )
        return True

    def _postponed(self, action: Row, why: str, retry_after: float | None, least: float = 0.0) -> bool:
        if action["attempts"] >= MAX_ATTEMPTS:
            return self._failed(action, why)
        growing = min(_FIRST_PAUSE * 2 ** (action["attempts"] - 1), _LONGEST_PAUSE)
        # Label Studio's word counts where it asks for more: a second, again and again, would use up all attempts.
        pause = max(least, retry_after or 0.0, growing * (0.5 + self._jitter() / 2))
        self._desk.update(action, next_at=self._desk.clock() + timedelta(seconds=pause), error=why)
        self._desk.store.instruments.attempted(action["kind"], "postponed")
        log.warning("action_postponed", reason=why, seconds=round(pause))
        return False

    def _failed(self, action: Row, why: str) -> bool:
        self._desk.store.instruments.attempted(action["kind"], "failed")
        log.warning("action_failed", reason=why)
        if action["kind"] == "prompt":
            # The page still shows it: only what was to come on top cannot be had.
            self._desk.update(action, {"delivered": True}, next_at=None, error=why)
        else:
            self._desk.update(action, state="failed", next_at=None, error=why)
        return False

    # What people decide

    def approve(self, action: int, by: str) -> None:
        """Approve a proposed action."""
        self._decide(action, ("proposed",), "approved", by, "only a proposed action can be approved")

    def reject(self, action: int, by: str) -> None:
        """Reject a proposed action for good."""
        self._decide(
            action, ("proposed", "approved"), "rejected", by, "only an action that has not begun can be rejected"
        )

    def _decide(self, action: int, states: tuple[str, ...], state: str, by: str, otherwise: str) -> None:
        def job(conn: sa.Connection) -> None:
            row = planned(conn, action)
            if row["state"] not in states:
                raise Refused(f"Action {action} is {row['state']}; {otherwise}.")
            records.update_action(conn, action, self._desk.clock(), state=state, decided_by=by)

        self._desk.store.write(job)

    # Effects that stand

    def undo(self, action: int, by: str) -> None:
        """Take an action's effect back (now); one that is still being tried is given up."""
        self._undoing.undo(action, by)

    def undo_all(self, project: int, by: str) -> int:
        """Take back every standing effect in a project (``disconnect``); returns how many."""
        states = ("proposed", "approved", "delivering", "done", "failed")
        with self._desk.store.read() as conn:
            standing = records.list_actions(conn, project=project, states=states)
        count = 0
        for row in reversed(standing):
            in_page = row["kind"] in IN_PAGE
            if row["state"] == "proposed" or (row["state"] == "approved" and not in_page):
                self.reject(row["id"], by)
            elif leaves_something(row):
                self.undo(row["id"], by)
                count += not in_page
            elif row["state"] == "delivering":
                # A message that some have got and others have not: nothing more is sent.
                self._desk.update(row, state="failed", next_at=None, error="The project was disconnected.")
        return count

    def settle(self, project: int) -> dict[str, int]:
        """Look after effects that outlive their delivery, see :meth:`labelguard.outbox.settling.Settling.settle`."""
        return self._settling.settle(project)
