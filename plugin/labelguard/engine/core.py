"""The engine, as the rest of the service knows it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
import structlog
from sqlalchemy.dialects.postgresql import insert

from labelguard import inbox
from labelguard.context import project_from_row
from labelguard.engine.intake import Intake
from labelguard.engine.worker import Worker
from labelguard.events import Annotation, Event, Task, read_for
from labelguard.inbox import Delivery, Origin
from labelguard.judgments import judgments_of
from labelguard.keeping import Made, keep_finding, storable, subject_of
from labelguard.processing import Processor, parse_config
from labelguard.rules import Context, Finding, GoldAnswer, Guardrail, Submission, TaskJudgment
from labelguard.store import Store, records
from labelguard.store.core import StoreError, inserted_id
from labelguard.store.schema import inbox as inbox_table, rejected

if TYPE_CHECKING:
    from labelguard.engine.link import EngineProcess
    from labelguard.engine.wire import Key

log = structlog.get_logger(__name__)

Clock = Callable[[], datetime]

_HURRY = 0.25
"""Seconds that a reader waits at most for what was answered already to be written."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a delivery at the door."""

    delivery: int
    """The inbox id."""
    duplicate: bool = False
    processed: bool = False
    """Whether labelguard was done with it when the receiver answered."""


class Engine:
    """Takes deliveries, judges them, keeps what was found."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        *,
        own_user: int | None = None,
        keep_rejected: int = 1000,
        apart: EngineProcess | None = None,
    ) -> None:
        """``own_user`` is labelguard's Label Studio user: what it saves is never judged.

        With a process ``apart``, what senders wait for is judged there; without it, and whenever it is not there,
        here.
        """
        self._store = store
        self._clock = clock
        self._keep_rejected = keep_rejected
        self._apart = apart
        self.not_kept_at: datetime | None = None
        """When a webhook's request was last turned away because the store could not be written."""
        self.processor = Processor(store, clock, own_user)
        self.found = threading.Event()
        """Set after each batch of deliveries that led to findings: there may be actions to deliver.

        Not after the others: whoever looks for actions has everything written first that was answered, which a
        hundred times a second took more of the processor than the rules.
        """
        self._intake = Intake(store)
        self._worker = Worker(
            store,
            self.processor,
            self._intake,
            clock,
            among_others=store.shared or apart is not None,
            found=self.found.set,
        )
        if apart is not None:
            self._worker.elsewhere = apart.is_there
            apart.on_finding = self.found.set
        store.before_reading = self.catch_up

    @property
    def own_user(self) -> int | None:
        """labelguard's Label Studio user, once known."""
        return self.processor.own_user

    @own_user.setter
    def own_user(self, user: int | None) -> None:
        self.processor.own_user = user
        if self._apart is not None and user is not None:
            self._apart.tell_own_user(user)

    # The worker

    def start(self) -> None:
        """Start to judge what comes, in a thread or in the process apart."""
        self._worker.start()
        if self._apart is not None:
            self._apart.start(self.own_user)

    def stop(self) -> None:
        """Finish the deliveries in hand and stop."""
        if self._apart is not None:
            self._apart.stop()
        self._worker.stopping.set()
        self._intake.ring()
        self._worker.join()

    @property
    def running(self) -> bool:
        """Whether what comes is judged."""
        return self._worker.running

    @property
    def apart_is_missing(self) -> bool:
        """Whether there should be a process apart and is none: everything is judged in this one, more slowly."""
        return self._apart is not None and not self._apart.is_there()

    def measured_apart(self) -> dict[Key, float] | None:
        """What the process apart counted, by sample; None without one."""
        return self._apart.measured() if self._apart is not None else None

    # The door

    def take_in(self, project: int, body: bytes, *, wait: float = 0.0) -> tuple[Receipt, str]:
        """Take a webhook's request in, as :meth:`receive` does with what it says; the receipt and the action.

        Raises:
            BadDelivery: it cannot be understood, or is about another project.
            StoreError: nothing was kept; the sender must be told.
        """
        try:
            return self._take_in(project, body, wait)
        except (StoreError, sa.exc.SQLAlchemyError):
            self.not_kept_at = self._clock()
            raise

    def _take_in(self, project: int, body: bytes, wait: float) -> tuple[Receipt, str]:
        salt, until = inbox.new_salt(), time.monotonic() + wait
        handed_over = self._apart is not None and wait > 0 and self._apart.is_there()
        if self._apart is not None and handed_over:
            told = self._apart.hand_over(project, body, salt, wait)
            if told is not None:
                return told
        event = read_for(project, body)
        delivery = Delivery.of(project, event, "webhook", self._clock(), salt=salt)
        receipt = self._take(delivery, max(0.0, until - time.monotonic()))
        if handed_over and delivery.before == "pending":
            # It was kept by the process that did not answer in time, and is no redelivery.
            receipt = replace(receipt, duplicate=False)
        return receipt, event.action

    def receive(self, project: int, event: Event, origin: Origin = "webhook", *, wait: float = 0.0) -> Receipt:
        """Make a delivery durable, and wait at most ``wait`` seconds for the rules to have looked at it.

        With a worker at hand the rules look while the disk is waited for. What they find is committed before
        this returns; what a delivery that led to nothing says is written a moment later, with others: until then
        it is in the inbox as one to be processed.

        Raises:
            StoreError: nothing was kept; the sender must be told.
        """
        return self._take(Delivery.of(project, event, origin, self._clock()), wait)

    def _take(self, delivery: Delivery, wait: float) -> Receipt:
        if wait > 0 and self.running:
            self._intake.keep(delivery, at_hand=True, wait=wait)
        else:
            self._intake.keep(delivery)
            self._intake.leave(delivery)
        if self._apart is not None:
            self._apart.tell_to_look()
        return receipt_of(delivery)

    def catch_up(self) -> None:
        """Have everything written whose sender was answered: whoever reads now finds it."""
        if self._worker.holds:
            return
        if self._worker.unwritten:
            self._intake.ask(_HURRY)
        if self._apart is not None:
            self._apart.catch_up(_HURRY)

    def reject(self, project: int | None, reason: str, size: int) -> None:
        """Keep a refused delivery's reason for the admin; the oldest beyond ``keep_rejected`` go."""

        def job(conn: sa.Connection) -> None:
            done = conn.execute(
                insert(rejected).values(project=project, received_at=self._clock(), reason=reason[:500], size=size)
            )
            newest = inserted_id(done)
            conn.execute(sa.delete(rejected).where(rejected.c.id <= newest - self._keep_rejected))

        self._store.write(job)

    def process_pending(self) -> int:
        """Process everything there is in order, in this thread; returns how many deliveries."""
        return self._worker.process_pending()

    def retry_failed(self) -> int:
        """Put deliveries that could not be processed back in line (after an upgrade); returns how many."""

        def job(conn: sa.Connection) -> int:
            return conn.execute(
                sa.update(inbox_table).where(inbox_table.c.state == "failed").values(state="pending", error=None)
            ).rowcount

        count = self._store.write(job)
        self._intake.ring()
        return count

    # Before a save

    def check(
        self,
        project: int,
        task: int,
        annotator: int,
        result: list[dict[str, Any]],
        *,
        language: str | None = None,
    ) -> list[Mapping[str, Any]]:
        """What the policy's blocking rules say of an unsaved result: dicts with ``rule`` and ``text``."""
        from labelguard.feedback import render

        with self._store.read() as conn:
            loaded = self.processor.policy(conn, project)
            row = records.get_project(conn, project)
            task_row = records.get_task(conn, task)
        if loaded is None or row is None:
            return []
        described = project_from_row(row)
        annotation = Annotation(0, task, project, tuple(result), completed_by=annotator)
        submission = Submission(
            annotation=annotation,
            task=Task(task, project, task_row["data"] if task_row else {}),
            project=described,
            config=parse_config(described.label_config),
            judgments=judgments_of(result),
            author=annotator,
            first=True,
            at=self._clock(),
        )
        said: list[Mapping[str, Any]] = []
        for active in loaded.rules:
            if not (active.spec.block and active.spec.mode == "enforce" and isinstance(active.rule, Guardrail)):
                continue
            try:
                findings = [storable(finding) for finding in active.rule.check(submission, _NoHistory())]
            except Exception:
                # A broken rule stops nobody's save; what it raises there becomes a finding after the save.
                log.exception("rule_failed", rule=active.name, task=task)
                continue
            for finding in findings:
                text = render(active.name, language or loaded.policy.language, finding.feedback)
                said.append({"rule": active.name, "text": text})
        return said

    # Sweeps

    def add_sweep_findings(
        self, project: int, rule_key: str, findings: Sequence[Finding], *, now: datetime
    ) -> list[int]:
        """Keep a sweep's findings (with the actions its policy wants); returns their ids.

        None are kept where the project's policy has no such rule any more.

        Raises:
            TypeError, ValueError: a finding holds what cannot be kept; none of them was.
        """
        for finding in findings:
            storable(finding)

        def job(conn: sa.Connection) -> list[int]:
            loaded = self.processor.policy(conn, project)
            active = next((a for a in loaded.rules if a.key == rule_key), None) if loaded else None
            if loaded is None or active is None:
                return []
            row = records.get_project(conn, project)
            return [
                keep_finding(
                    conn,
                    Made(active, finding),
                    loaded,
                    subject_of(conn, project, finding, at=now),
                    version_id=None,
                    connected_at=row["connected_at"] if row else None,
                    now=now,
                )
                for finding in findings
            ]

        return self._store.write(job)


def receipt_of(delivery: Delivery) -> Receipt:
    """The receipt of a delivery that is in the inbox."""
    if delivery.id is None:
        raise RuntimeError("a delivery that was kept has an id")
    processed = delivery.judged if delivery.before is None else delivery.before != "pending"
    return Receipt(delivery.id, duplicate=delivery.duplicate, processed=processed)


class _NoHistory(Context):
    """The context of a rule that needs none: blocking rules see the result alone."""

    def task_judgments(self, task: int, control: str) -> Sequence[TaskJudgment]:
        return ()

    def gold(self, task: int) -> GoldAnswer | None:
        return None

    def state(self, subject: str) -> dict[str, Any]:
        return {}
