"""The engine: deliveries in, findings and planned actions out."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from itertools import groupby
from typing import Any

import sqlalchemy as sa
import structlog
from sqlalchemy.dialects.postgresql import insert

from labelguard import inbox
from labelguard.context import project_from_row
from labelguard.events import Annotation, Event, Task
from labelguard.inbox import Delivery, Origin
from labelguard.intake import Intake
from labelguard.judgments import judgments_of
from labelguard.keeping import Made, described, keep_finding, storable, subject_of
from labelguard.processing import Batch, Processor, parse_config
from labelguard.rules import Context, Finding, GoldAnswer, Guardrail, Submission, TaskJudgment
from labelguard.store import Store, records
from labelguard.store.core import StoreError, inserted_id
from labelguard.store.schema import inbox as inbox_table, rejected

log = structlog.get_logger(__name__)

Clock = Callable[[], datetime]

_BATCH = 100
_PARSED = 64
"""How many parsed deliveries wait in memory for the worker; the others are parsed again from the store. Few,
since one may be megabytes."""

_TURN = 0.05
"""Seconds for which the engine of one process keeps its role while there is work."""

_LINGER = 0.003
"""Seconds within that time in which a further delivery is waited for before what was looked at is written."""

_TOGETHER = 16
"""Deliveries that one transaction writes at most, unless more came at once: it holds up the other writers."""

_HURRY = 0.25
"""Seconds that a reader waits at most for what was answered already to be written."""

_LOOK_EVERY = 0.5
"""Seconds within which deliveries that wait in the inbox are found, however many more arrive."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a delivery at the door."""

    delivery: int
    """The inbox id."""
    duplicate: bool = False
    processed: bool = False
    """Whether labelguard was done with it when the receiver answered."""


@dataclass(slots=True)
class _Hand:
    """What the engine has in hand of a project."""

    batch: Batch
    deliveries: list[Delivery] = field(default_factory=list)
    """Those that are not settled yet."""


class Engine:
    """Takes deliveries, judges them, keeps what was found."""

    def __init__(self, store: Store, clock: Clock, *, own_user: int | None = None, keep_rejected: int = 1000) -> None:
        """``own_user`` is labelguard's Label Studio user: what it saves is never judged."""
        self._store = store
        self._clock = clock
        self._keep_rejected = keep_rejected
        self.processor = Processor(store, clock, own_user)
        self._intake = Intake(store, clock)
        self._parsed: OrderedDict[int, Delivery] = OrderedDict()
        self._lock = threading.Lock()
        self._looked = 0.0
        # How many this process has left in the inbox for later, and how many of these were there at the last look.
        self._left, self._seen = 0, 0
        self._work = threading.Event()
        self._stopping = threading.Event()
        self._worker: threading.Thread | None = None
        # By project; only who holds the engine's role works with them.
        self._hands: dict[int, _Hand] = {}
        self._holder: threading.Thread | None = None
        self._to_look = self._to_compare = True
        # Somebody waits for what was looked at to be written, until the next time that everything is.
        self._hurry = False
        self._caught_up = threading.Event()
        store.before_reading = self.catch_up
        self.found = threading.Event()
        """Set after each batch of deliveries that led to findings: there may be actions to deliver.

        Not after the others: whoever looks for actions has everything written first that was answered, which a
        hundred times a second took more of the processor than the rules.
        """

    @property
    def own_user(self) -> int | None:
        """labelguard's Label Studio user, once known."""
        return self.processor.own_user

    @own_user.setter
    def own_user(self, user: int | None) -> None:
        self.processor.own_user = user

    # The worker

    def start(self) -> None:
        """Start the worker thread that processes deliveries."""
        self._stopping.clear()
        self._worker = threading.Thread(target=self._loop, name="engine", daemon=True)
        self._worker.start()

    def stop(self) -> None:
        """Finish the deliveries in hand and stop."""
        self._stopping.set()
        self._work.set()
        if self._worker is not None:
            self._worker.join()
            self._worker = None

    @property
    def running(self) -> bool:
        """Whether the worker thread is alive."""
        return self._worker is not None and self._worker.is_alive()

    def _loop(self) -> None:
        while not self._stopping.is_set():
            # Another process (a reconcile by hand) may have left deliveries too: look once a second.
            self._work.wait(1.0)
            self._work.clear()
            try:
                self.process_pending()
            except StoreError as error:
                log.error("store_unavailable", reason=str(error))  # noqa: TRY400 - the sentence says it all
                self._stopping.wait(1.0)
            except Exception:
                # Without this thread nothing is judged any more, and nobody would notice.
                log.exception("engine_failed")
                self._stopping.wait(1.0)

    # The door

    def receive(self, project: int, event: Event, origin: Origin = "webhook", *, wait: float = 0.0) -> Receipt:
        """Make a delivery durable, and wait at most ``wait`` seconds for the rules to have looked at it.

        With a worker at hand the rules look while the disk is waited for. What they find is committed before
        this returns; what a delivery that led to nothing says is written a moment later, with others: until then
        it is in the inbox as one to be processed.

        Raises:
            StoreError: nothing was kept; the sender must be told.
        """
        delivery = Delivery.of(project, event, origin, self._clock())
        if wait > 0 and self.running:
            self._intake.keep(delivery, at_hand=self._work.set, wait=wait)
        else:
            self._intake.keep(delivery)
            self._leave(delivery)
        if delivery.id is None:
            raise RuntimeError("a delivery that was kept has an id")
        processed = delivery.judged if delivery.before is None else delivery.before != "pending"
        return Receipt(delivery.id, duplicate=delivery.duplicate, processed=processed)

    def _leave(self, delivery: Delivery) -> None:
        """Leave a delivery that is in the inbox to whoever looks there next."""
        # After the commit: a look before it has not seen this one, and its annotator's next must not overtake it.
        with self._lock:
            if not delivery.duplicate and delivery.id is not None:
                self._parsed[delivery.id] = delivery
                while len(self._parsed) > _PARSED:
                    self._parsed.popitem(last=False)
            self._left += 1
        self._work.set()

    def catch_up(self) -> None:
        """Have everything written whose sender was answered: whoever reads now finds it."""
        if threading.current_thread() is self._holder:
            return
        if any(hand.batch.answered is not None for hand in list(self._hands.values())):
            self._caught_up.clear()
            self._hurry = True
            self._work.set()
            self._caught_up.wait(_HURRY)

    def reject(self, project: int | None, reason: str, size: int) -> None:
        """Keep a refused delivery's reason for the admin; the oldest beyond ``keep_rejected`` go."""

        def job(conn: sa.Connection) -> None:
            done = conn.execute(
                insert(rejected).values(project=project, received_at=self._clock(), reason=reason[:500], size=size)
            )
            newest = inserted_id(done)
            conn.execute(sa.delete(rejected).where(rejected.c.id <= newest - self._keep_rejected))

        self._store.write(job)

    # Processing

    def process_pending(self) -> int:
        """Process everything there is in order, in this thread; returns how many deliveries."""
        count = 0
        while not self._stopping.is_set() or self._worker is None:
            with self._store.exclusive("engine"):
                done = self._process_while_held()
            count += done
            if not done:
                break
        return count

    def _process_while_held(self) -> int:
        """Process deliveries for as long as one process may keep the others of a store waiting."""
        count, until = 0, time.monotonic() + _TURN
        self._holder = threading.current_thread()
        # Another process may have held the role meanwhile: it left some, or did what is at hand here.
        self._to_look, self._to_compare = self._store.shared, True
        try:
            while batch := self._next_batch():
                self._process(batch)
                count += len(batch)
                if time.monotonic() >= until or (self._stopping.is_set() and self._worker is not None):
                    break
            self._write()
        finally:
            self._drop()
            self._holder = None
        return count

    def _next_batch(self) -> list[Delivery]:
        """The next deliveries: those of the inbox that may have come before those at hand, then those at hand."""
        # Before looking: what arrives from here on sets it again.
        self._work.clear()
        if self._hurry:
            self._write()
        if self._must_look() or not self._has_arrivals():
            self._write()
            left = self._left
            waiting = self._intake.oldest(_BATCH)
            if len(waiting) < _BATCH:
                self._looked, self._seen, self._to_look = time.monotonic(), left, False
            if waiting:
                with self._lock:
                    return [self._parsed.pop(each.id or 0, each) if each.event is None else each for each in waiting]
        return self._still_to_do(self._intake.take(_BATCH))

    def _still_to_do(self, deliveries: list[Delivery]) -> list[Delivery]:
        """Leave out what need not be processed: redeliveries, and what another process found in the inbox."""
        done: set[int] = set()
        if self._to_compare and deliveries:
            self._to_compare = False
            with self._store.read() as conn:
                done = inbox.done_with(conn, deliveries)
        left = []
        for delivery in deliveries:
            if delivery.duplicate or delivery.failure is not None or delivery.id in done:
                delivery.judge(settled=True)
            else:
                left.append(delivery)
        return left

    def _must_look(self) -> bool:
        """Whether there may be deliveries in the inbox that came before those at hand.

        While one process takes them in one after the other there is hardly ever anything else.
        """
        return self._to_look or self._left != self._seen or time.monotonic() - self._looked >= _LOOK_EVERY

    def _has_arrivals(self) -> bool:
        """Whether there are deliveries at hand, waiting a moment for them if need be."""
        if not self._intake and self._worker is threading.current_thread():
            # Taking the role again, and looking in the store, take longer than the next one may be away.
            self._work.wait(_LINGER)
            self._work.clear()
        return bool(self._intake)

    def _process(self, deliveries: Sequence[Delivery]) -> None:
        """Let the rules look at deliveries, and write what must not wait."""
        for project, some in groupby(deliveries, key=lambda delivery: delivery.project):
            together = [delivery for delivery in some if self._is_read(delivery)]
            if project not in self._hands:
                self._hands[project] = _Hand(Batch(self.processor, project))
            hand = self._hands[project]
            hand.deliveries += together
            with structlog.contextvars.bound_contextvars(project=project):
                self._carefully(hand, partial(Batch.look, deliveries=together))
                if hand.batch.presses or len(hand.batch) >= _TOGETHER:
                    self._carefully(hand, Batch.write)

    def _write(self) -> None:
        """Write everything that was looked at."""
        for project, hand in self._hands.items():
            with structlog.contextvars.bound_contextvars(project=project):
                self._carefully(hand, Batch.write)
        if self._hurry:
            self._hurry = False
            self._caught_up.set()

    def _carefully(self, hand: _Hand, step: Callable[[Batch], None]) -> None:
        """Go a step further with what is in hand; where that fails, with each delivery by itself.

        So it is, too, where one was not kept after all: what its neighbours led to was judged knowing of it.
        """
        try:
            step(hand.batch)
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001 - one of them, or something in their meeting; told where it happens again
            log.warning("batch_failed", reason=described(error), deliveries=len(hand.deliveries))
            hand.batch.close()
            hand.batch = Batch(self.processor, hand.batch.project)
            for delivery in hand.deliveries:
                if not delivery.settled:
                    self._process_alone(delivery)
        settled = [delivery for delivery in hand.deliveries if delivery.settled]
        if settled:
            hand.deliveries = [delivery for delivery in hand.deliveries if not delivery.settled]
            self._count(settled)

    def _process_alone(self, delivery: Delivery) -> None:
        try:
            self.processor.process([delivery])
        except StoreError:
            raise
        except inbox.NotKept:
            delivery.judge(settled=True)
        except Exception as error:
            log.exception("delivery_failed", delivery=delivery.id, action=delivery.action)
            self._set_aside(delivery, described(error))

    def _count(self, settled: Sequence[Delivery]) -> None:
        now = self._clock()
        for delivery in settled:
            if not delivery.duplicate:
                self._store.instruments.judged(delivery.state, (now - delivery.received_at).total_seconds())
        if any(delivery.found for delivery in settled):
            self.found.set()

    def _drop(self) -> None:
        """Let go of what is in hand; what could not be written of it is in the inbox as before."""
        if any(hand.deliveries for hand in self._hands.values()):
            with self._lock:
                self._left += 1
        for hand in self._hands.values():
            hand.batch.close()
        self._hands.clear()

    def _is_read(self, delivery: Delivery) -> bool:
        """Whether a delivery has its event now; one whose body cannot be read any more is set aside."""
        if delivery.event is None and delivery.id is not None:
            try:
                with self._store.read() as conn:
                    body = inbox.body(conn, delivery.id)
                delivery.event = Event.from_delivery({}, body)
            except StoreError:
                raise
            except Exception as error:
                log.exception("delivery_failed", delivery=delivery.id, action=delivery.action)
                self._set_aside(delivery, described(error))
        return delivery.event is not None

    def _set_aside(self, delivery: Delivery, error: str) -> None:
        """Keep a delivery that cannot be processed for a person to look at."""
        delivery.state, delivery.error = "failed", error
        self._store.write(lambda conn: inbox.finish(conn, [delivery], self._clock()))
        delivery.judge(settled=True)

    def retry_failed(self) -> int:
        """Put deliveries that could not be processed back in line (after an upgrade); returns how many."""

        def job(conn: sa.Connection) -> int:
            return conn.execute(
                sa.update(inbox_table).where(inbox_table.c.state == "failed").values(state="pending", error=None)
            ).rowcount

        count = self._store.write(job)
        self._work.set()
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


class _NoHistory(Context):
    """The context of a rule that needs none: blocking rules see the result alone."""

    def task_judgments(self, task: int, control: str) -> Sequence[TaskJudgment]:
        return ()

    def gold(self, task: int) -> GoldAnswer | None:
        return None

    def state(self, subject: str) -> dict[str, Any]:
        return {}
