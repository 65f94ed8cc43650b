"""What a policy would have found and done: recorded deliveries, once more, against a fresh store.

Deliveries are taken in the file's order as if each arrived the moment it happened, in a project connected
since before the first. So the same file and policy always give the same findings and actions.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa

from labelguard.engine import Engine
from labelguard.events import BadDelivery, Event, Project
from labelguard.goldfile import Answer, read_gold
from labelguard.labelconfig import LabelConfig
from labelguard.policy import Policy
from labelguard.store import Store, records
from labelguard.store.core import Writing

T = TypeVar("T")

BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
"""Before any delivery: since when the project counts as connected."""


@dataclass(slots=True)
class Replay:
    """What came of it."""

    deliveries: int = 0
    """Lines that held something, refused ones included."""
    rejected: list[dict[str, Any]] = field(default_factory=list)
    """Refused deliveries: ``line`` (from 1) and ``reason``."""
    findings: list[dict[str, Any]] = field(default_factory=list)
    actions: list[dict[str, Any]] = field(default_factory=list)
    elsewhere: int = 0
    """Deliveries of other projects than the policy's: taken, but no rule looks at them."""


class _ReplayClock:
    """Tells the time of the delivery in hand."""

    def __init__(self) -> None:
        self.now = BEGINNING

    def __call__(self) -> datetime:
        return self.now


class _ScratchStore(Store):
    """A store for one thread that is thrown away at the end: all in one transaction that is never committed.

    The service's store hands every write to another thread and commits it, which a replay would wait for
    several times for each delivery.
    """

    _one: sa.Connection | None = None

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        yield self._connection()

    def submit(
        self,
        job: Callable[[sa.Connection], T],
        then: Callable[[BaseException | None], None] | None = None,
        *,
        lazily: bool = False,
    ) -> Writing[T]:
        writing = Writing(job, lazily, then)
        connection = self._connection()
        # Straight to the driver: SQLAlchemy's own savepoints take longer than many a job.
        driver: Any = connection.connection.dbapi_connection
        driver.execute("SAVEPOINT job")
        try:
            writing.result = job(connection)
        except Exception as error:  # noqa: BLE001 - whoever waits for it is told
            driver.execute("ROLLBACK TO job")
            writing.finish(error)
        else:
            writing.finish()
        finally:
            driver.execute("RELEASE job")
        return writing

    def close(self) -> None:
        if self._one is not None:
            self._one.close()
        super().close()

    def _connection(self) -> sa.Connection:
        if self._one is None:
            self._one = self._backend.writer.connect()
            self._one.begin()
        return self._one


@dataclass(slots=True)
class _Overview:
    """What must be known before the first delivery is judged."""

    project: Project | None = None
    gold: dict[int, tuple[int, list[dict[str, Any]]]] = field(default_factory=dict)
    """By task: the annotation that is ground truth, and its result."""


def replay(
    file: Path,
    policy: Policy,
    policy_text: str,
    *,
    gold: Path | None = None,
    progress: Callable[[int], None] = lambda _lines: None,
) -> Replay:
    """Replay a file of deliveries, one JSON body a line (or ``{"headers": ..., "body": ...}``).

    Annotations that the file has as ground truth are in the gold vault before the first delivery is judged,
    wherever they stand; answers of ``gold`` replace them. ``progress`` is told the number of lines done.

    Raises:
        OSError: a file cannot be read.
        BadGold: the gold file has mistakes.
    """
    before = _look_ahead(file, policy.project)
    config = LabelConfig.parse(before.project.label_config) if before.project else None
    answers = read_gold(gold.read_text(encoding="utf-8"), str(gold), config) if gold else []
    result = Replay()
    clock = _ReplayClock()
    with tempfile.TemporaryDirectory(prefix="labelguard-replay-") as folder:
        store = _ScratchStore.open(f"sqlite:///{folder}/replay.sqlite3", durable=False)
        try:
            _prepare(store, policy, policy_text, before, answers)
            engine = Engine(store, clock)
            for number, parsed in _parsed(file):
                result.deliveries += 1
                if isinstance(parsed, Event):
                    clock.now = _time_of(parsed) or clock.now
                    project = project_of(parsed) or policy.project
                    result.elsewhere += project != policy.project
                    engine.receive(project, parsed)
                    engine.process_pending()
                else:
                    result.rejected.append({"line": number, "reason": parsed})
                progress(number)
            with store.read() as conn:
                result.findings = [_plain(row) for row in records.list_findings(conn)]
                result.actions = [_plain(row) for row in records.list_actions(conn)]
        finally:
            store.close()
    return result


def project_of(event: Event) -> int | None:
    """The project a delivery is about, or None where it does not say."""
    if event.project:
        return event.project.id
    named = (*(a.project for a in event.annotations), *(t.project for t in event.tasks))
    return next((project for project in named if project), None)


def _look_ahead(file: Path, project: int) -> _Overview:
    overview = _Overview()
    for _number, parsed in _parsed(file):
        if not isinstance(parsed, Event) or project_of(parsed) != project:
            continue
        overview.project = overview.project or parsed.project
        for annotation in parsed.annotations:
            if annotation.ground_truth and not annotation.was_cancelled and annotation.result:
                overview.gold[annotation.task] = (annotation.id, list(annotation.result))
    return overview


def _prepare(store: Store, policy: Policy, policy_text: str, before: _Overview, answers: list[Answer]) -> None:
    def prepare(conn: Any) -> None:
        project = policy.project
        records.save_project(conn, before.project or Project(id=project), BEGINNING)
        records.set_connection(
            conn, project, connected_at=BEGINNING, webhook_id=None, webhook_url=None, token_hash=None
        )
        records.add_policy(conn, project, policy_text, BEGINNING)
        for task, (annotation, right) in before.gold.items():
            records.add_gold(conn, project, task, right, f"adopt:{annotation}", BEGINNING)
        for answer in answers:
            records.add_gold(conn, project, answer.task, answer.result, "import:replay", BEGINNING)

    store.write(prepare)


def _parsed(file: Path) -> Iterator[tuple[int, Event | str]]:
    """Each line that holds something: its number, and the event or the reason why there is none."""
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                try:
                    yield number, _event(line)
                except BadDelivery as error:
                    yield number, str(error)


def _event(line: bytes) -> Event:
    try:
        body = json.loads(line)
    except (ValueError, RecursionError):
        return Event.from_delivery({}, line)  # says what is wrong, as the receiver would
    if isinstance(body, Mapping) and "body" in body and "action" not in body:
        headers = body.get("headers")
        named = {str(k): str(v) for k, v in headers.items()} if isinstance(headers, Mapping) else {}
        inner = body["body"]
        return Event.from_delivery(named, inner if isinstance(inner, (str, Mapping)) else json.dumps(inner))
    return Event.from_delivery({}, line)


def _time_of(event: Event) -> datetime | None:
    """When it happened, by Label Studio's clock."""
    times = [a.updated_at or a.created_at for a in event.annotations]
    times = times or [t.updated_at or t.created_at for t in event.tasks]
    times = times or [event.project.updated_at if event.project else None]
    return max((t for t in times if t), default=None)


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v.isoformat() if isinstance(v, datetime) else v for k, v in row.items()}
