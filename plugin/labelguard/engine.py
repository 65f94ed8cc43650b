"""The engine: deliveries in, findings and planned actions out."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa
import structlog
from sqlalchemy.dialects.postgresql import insert

from labelguard.context import project_from_row
from labelguard.events import Annotation, Event, Task
from labelguard.judgments import judgments_of
from labelguard.keeping import Made, described, keep_finding, storable, subject_of
from labelguard.processing import Processor, fail_delivery, parse_config
from labelguard.rules import Context, Finding, GoldAnswer, Guardrail, Submission, TaskJudgment
from labelguard.store import Store, records
from labelguard.store.core import StoreError, inserted_id
from labelguard.store.schema import inbox, rejected

log = structlog.get_logger(__name__)

Origin = Literal["webhook", "reconcile", "backfill"]
Clock = Callable[[], datetime]

_BATCH = 100
_PARSED = 64
"""How many parsed deliveries wait in memory for the worker; the others are parsed again from the store. Few,
since one may be megabytes."""


# The literal, not a parameter: SQLite uses the partial index only when it sees the same words.
_PENDING = (
    sa.select(*(column for column in inbox.c if column.name != "body"))
    .where(inbox.c.state == sa.literal_column("'pending'"))
    .order_by(inbox.c.id)
    .limit(_BATCH)
)


_KEEP = insert(inbox).on_conflict_do_nothing()


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

    def __init__(self, store: Store, clock: Clock, *, own_user: int | None = None, keep_rejected: int = 1000) -> None:
        """``own_user`` is labelguard's Label Studio user: what it saves is never judged."""
        self._store = store
        self._clock = clock
        self._keep_rejected = keep_rejected
        self.processor = Processor(store, clock, own_user)
        self._parsed: OrderedDict[int, Event] = OrderedDict()
        self._waiting: dict[int, threading.Event] = {}
        self._lock = threading.Lock()
        self._work = threading.Event()
        self._stopping = threading.Event()
        self._worker: threading.Thread | None = None
        self.processed = threading.Event()
        """Set after each delivery: there may be actions to deliver."""

    @property
    def own_user(self) -> int | None:
        """labelguard's Label Studio user, once known."""
        return self.processor.own_user

    @own_user.setter
    def own_user(self, user: int | None) -> None:
        self.processor.own_user = user

    # The worker

    def start(self) -> None:
        """Start the worker thread that processes pending deliveries."""
        self._stopping.clear()
        self._worker = threading.Thread(target=self._loop, name="engine", daemon=True)
        self._worker.start()

    def stop(self) -> None:
        """Finish the delivery in hand and stop."""
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
        """Make a delivery durable, then wait at most ``wait`` seconds for it to be processed.

        Raises:
            StoreError: nothing was kept; the sender must be told.
        """
        # Two genuine deletions can look the same, since Label Studio reuses ids on SQLite.
        digest = f"{event.digest}:{secrets.token_hex(8)}" if event.idempotent else event.digest
        values = {
            "project": project,
            "action": event.action,
            "digest": digest,
            "origin": origin,
            "body": event.body,
            "received_at": self._clock(),
            "state": "pending",
        }
        processed = threading.Event()
        taken: list[int] = []

        def job(conn: sa.Connection) -> Receipt:
            done = conn.execute(_KEEP, values)
            if done.rowcount:
                delivery = inserted_id(done)
                taken.append(delivery)
                with self._lock:
                    self._waiting[delivery] = processed
                    self._parsed[delivery] = event
                    while len(self._parsed) > _PARSED:
                        self._parsed.popitem(last=False)
                return Receipt(delivery)
            same = sa.select(inbox.c.id, inbox.c.state).where(inbox.c.project == project, inbox.c.digest == digest)
            known = conn.execute(same).one()
            return Receipt(known.id, duplicate=True, processed=known.state != "pending")

        try:
            receipt = self._store.write(job)
            if receipt.duplicate:
                return receipt
            self._work.set()
            if wait > 0 and self._worker is not None:
                processed.wait(wait)
        except StoreError:
            # The id was never given out: whoever gets it next brings another event.
            with self._lock:
                for delivery in taken:
                    self._parsed.pop(delivery, None)
            raise
        finally:
            with self._lock:
                for delivery in taken:
                    self._waiting.pop(delivery, None)
        return replace(receipt, processed=processed.is_set())

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
        """Process everything pending in order, in this thread; returns how many deliveries."""
        count = 0
        while not self._stopping.is_set() or self._worker is None:
            with self._store.exclusive("engine"):
                batch = self._pending()
                for delivery in batch:
                    self._process(delivery)
                    count += 1
                    if self._stopping.is_set() and self._worker is not None:
                        return count
            if not batch:
                break
        return count

    def _pending(self) -> list[records.Row]:
        """The next deliveries, without their bodies: a hundred large ones would fill the memory."""
        with self._store.read() as conn:
            return [dict(row) for row in conn.execute(_PENDING).mappings()]

    def _body(self, delivery: int) -> Mapping[str, Any]:
        with self._store.read() as conn:
            body: Mapping[str, Any] = conn.execute(sa.select(inbox.c.body).where(inbox.c.id == delivery)).scalar_one()
        return body

    def _process(self, delivery: records.Row) -> None:
        with self._lock:
            event = self._parsed.pop(delivery["id"], None)
        outcome = "done"
        with structlog.contextvars.bound_contextvars(delivery=delivery["id"], project=delivery["project"]):
            try:
                self.processor.process(delivery, event or Event.from_delivery({}, self._body(delivery["id"])))
            except StoreError:
                raise
            except Exception as error:
                log.exception("delivery_failed", action=delivery["action"])
                what, outcome = described(error), "failed"
                self._store.write(lambda conn: fail_delivery(conn, delivery["id"], self._clock(), what))
        age = (self._clock() - delivery["received_at"]).total_seconds()
        self._store.instruments.judged(outcome, age)
        self.processed.set()
        with self._lock:
            waiting = self._waiting.pop(delivery["id"], None)
        if waiting is not None:
            waiting.set()

    def retry_failed(self) -> int:
        """Put deliveries that could not be processed back in line (after an upgrade); returns how many."""

        def job(conn: sa.Connection) -> int:
            return conn.execute(
                sa.update(inbox).where(inbox.c.state == "failed").values(state="pending", error=None)
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
