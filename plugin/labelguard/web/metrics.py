"""Numbers for Prometheus: what the store knows, read when it is asked for, and what this process measured.

Nothing here reads more of the store than what waits and what ran last, however long the history is: a scrape
must stay cheap exactly when the service is not well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime

import sqlalchemy as sa
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from labelguard import distrust
from labelguard.engine import Clock, Engine
from labelguard.engine.wire import Key
from labelguard.instruments import Instruments
from labelguard.outbox import IN_PAGE
from labelguard.store import Store, records, schema
from labelguard.store.core import StoreError

MOST_COUNTED = 100_000
"""A longer queue is told as this long."""

_PENDING = sa.text("state = 'pending'")
_FAILED = sa.text(schema.FAILED_DELIVERIES)
_LIVE = sa.text(schema.LIVE_ACTIONS)
_WAITING = sa.text(schema.WAITING_FINDINGS)


class Metrics:
    """One application's numbers: those of its store and those of its process."""

    def __init__(self, store: Store, engine: Engine, clock: Clock) -> None:
        self.instruments: Instruments = store.instruments
        self._registry = CollectorRegistry()
        self._registry.register(_StoreCollector(store, clock))
        self._registry.register(_Others(store.instruments.registry, engine))

    def exposition(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self._registry)


class _Others(Collector):
    """The instruments of a process, which more than one application may tell of, and of its engine's process."""

    def __init__(self, registry: CollectorRegistry, engine: Engine) -> None:
        self._others = registry
        self._engine = engine

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        apart = self._engine.measured_apart()
        for family in self._others.collect():
            if apart is not None and family.name.startswith("labelguard_"):
                _add(family, apart)
            yield family
        up = not self._engine.apart_is_missing
        yield _gauge("labelguard_engine_process_up", "0 where the engine's own process is gone.", float(up))
        if apart is not None:
            for name, text in _OF_THE_ENGINE.items():
                if (number := apart.get((name, ()))) is not None:
                    of = _total if name.endswith("_total") else _gauge
                    yield of(f"labelguard_engine_{name.removesuffix('_total')}", text, number)


_OF_THE_ENGINE = {
    "process_resident_memory_bytes": "Memory of the engine's own process.",
    "process_cpu_seconds_total": "Processor time that the engine's own process took since it began.",
    "process_open_fds": "Open files of the engine's own process.",
}


def _add(family: Metric, apart: Mapping[Key, float]) -> None:
    """Add what another process counted to what this one did."""
    own = {(sample.name, tuple(sorted(sample.labels.items()))) for sample in family.samples}
    family.samples = [
        sample._replace(value=sample.value + apart.get((sample.name, tuple(sorted(sample.labels.items()))), 0.0))
        for sample in family.samples
    ]
    names = {f"{family.name}{suffix}" for suffix in ("_total", "_bucket", "_count", "_sum")}
    for (name, labels), value in apart.items():
        if name in names and (name, labels) not in own:
            family.add_sample(name, dict(labels), value)


class _StoreCollector(Collector):
    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def describe(self) -> list[Metric]:
        """Nothing, so that registering does not read the store."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All numbers of one snapshot; without the store, the process' own are still told."""
        up = GaugeMetricFamily("labelguard_store_up", "1 where the store can be read.")
        found: list[Metric] = []
        try:
            with self._store.read() as conn:
                found = list(_of_store(conn, self._clock()))
        except (StoreError, sa.exc.SQLAlchemyError):
            up.add_metric([], 0)
        else:
            up.add_metric([], 1)
        yield up
        yield from found


def _of_store(conn: sa.Connection, now: datetime) -> Iterator[Metric]:
    yield from _deliveries(conn, now)
    yield from _findings(conn)
    yield from _outbox(conn, now)
    yield from _jobs(conn)
    unconfirmed = GaugeMetricFamily(
        "labelguard_unconfirmed",
        "What deliveries said and Label Studio does not confirm, since the webhooks' tokens are new, by kind.",
        labels=["kind"],
    )
    for kind, number in distrust.counted(conn).items():
        unconfirmed.add_metric([kind], number)
    yield unconfirmed
    size = _size(conn)
    if size is not None:
        yield _gauge("labelguard_store_bytes", "How large the store is.", size)


def _deliveries(conn: sa.Connection, now: datetime) -> Iterator[Metric]:
    inbox = schema.inbox.c
    # Only the newest refusals are kept, but their ids go on counting.
    refused = conn.scalar(sa.select(sa.func.max(schema.rejected.c.id))) or 0
    yield _total("labelguard_rejected", "Refused deliveries, over all processes.", refused)
    received = conn.scalar(sa.select(sa.func.max(inbox.id))) or 0
    yield _total("labelguard_received", "Deliveries kept, over all processes.", received)
    length, age = pending(conn, now)
    yield _gauge("labelguard_pending", "Deliveries that the rules have not seen yet.", length)
    yield _gauge("labelguard_pending_oldest_seconds", "Age of the oldest pending delivery.", age)
    failed = sa.select(inbox.id).where(_FAILED)
    yield _gauge("labelguard_deliveries_failed", "Deliveries that could not be processed.", _counted(conn, failed))
    last = conn.scalar(sa.select(inbox.received_at).order_by(inbox.id.desc()).limit(1))
    yield _gauge(
        "labelguard_last_delivery_timestamp_seconds", "When the newest delivery came.", last.timestamp() if last else 0
    )


def pending(conn: sa.Connection, now: datetime) -> tuple[int, float]:
    """How many deliveries are pending, and the age of the oldest in seconds (0 where none is)."""
    inbox = schema.inbox.c
    waiting = sa.select(inbox.id).where(_PENDING)
    first = conn.execute(sa.select(inbox.received_at).where(_PENDING).order_by(inbox.id).limit(1)).scalar_one_or_none()
    return (_counted(conn, waiting), _age(first, now)) if first is not None else (0, 0.0)


def _findings(conn: sa.Connection) -> Iterator[Metric]:
    findings = schema.findings.c
    newest = conn.scalar(sa.select(sa.func.max(findings.id))) or 0
    yield _total("labelguard_findings", "Findings made, over all processes.", newest)
    waiting = GaugeMetricFamily(
        "labelguard_findings_waiting", "Findings that nobody has decided about.", labels=["rule", "state"]
    )
    rows = sa.select(findings.rule, findings.state).where(_WAITING).limit(MOST_COUNTED).subquery()
    grouped = sa.select(rows.c.rule, rows.c.state, sa.func.count()).group_by(rows.c.rule, rows.c.state)
    for rule, state, number in conn.execute(grouped):
        waiting.add_metric([rule, state], number)
    yield waiting


def _outbox(conn: sa.Connection, now: datetime) -> Iterator[Metric]:
    actions = schema.actions.c
    live = GaugeMetricFamily(
        "labelguard_actions", "Actions that are not at their end, and failed ones.", labels=["kind", "state"]
    )
    rows = sa.select(actions.kind, actions.state).where(_LIVE).limit(MOST_COUNTED).subquery()
    grouped = sa.select(rows.c.kind, rows.c.state, sa.func.count()).group_by(rows.c.kind, rows.c.state)
    by_kind: Counter[str] = Counter()
    for kind, state, number in conn.execute(grouped):
        live.add_metric([kind, state], number)
        by_kind[kind] += number
    yield live

    due = GaugeMetricFamily("labelguard_outbox_due", "Actions whose time has come.", labels=["kind"])
    oldest = GaugeMetricFamily(
        "labelguard_outbox_oldest_seconds", "For how long the oldest of these has been due.", labels=["kind"]
    )
    for kind in sorted(by_kind):
        number, since = _due(conn, kind, now)
        due.add_metric([kind], number)
        oldest.add_metric([kind], _age(since, now))
    yield due
    yield oldest
    yield _gauge(
        "labelguard_actions_enabled", "0 while the kill switch stops actions.", float(records.actions_enabled(conn))
    )


def _due(conn: sa.Connection, kind: str, now: datetime) -> tuple[int, datetime | None]:
    """How many actions of a kind are due, and since when the first of them is."""
    actions = schema.actions.c
    timed = actions.next_at <= now
    # What the page shows waits for the annotator, not for us; only what is tried again has a time.
    when = timed if kind in IN_PAGE else sa.or_(actions.next_at.is_(None), timed)
    query = sa.select(actions.next_at, actions.created_at).where(
        _LIVE, actions.kind == kind, actions.state.in_(("approved", "delivering")), when
    )
    rows = query.limit(MOST_COUNTED).subquery()
    since = sa.func.coalesce(rows.c.next_at, rows.c.created_at, type_=schema.UtcDateTime())
    number, first = conn.execute(sa.select(sa.func.count(), sa.func.min(since, type_=schema.UtcDateTime()))).one()
    return number, first


def _jobs(conn: sa.Connection) -> Iterator[Metric]:
    runs = schema.job_runs
    # Not "job": Prometheus has a label of that name of its own, and would rename ours.
    success = GaugeMetricFamily(
        "labelguard_job_last_success_timestamp_seconds", "When a job last did its work.", labels=["job_name", "project"]
    )
    took = GaugeMetricFamily(
        "labelguard_job_last_success_seconds", "How long it took then.", labels=["job_name", "project"]
    )
    failing = GaugeMetricFamily(
        "labelguard_job_failing", "1 where a job's newest finished run failed.", labels=["job_name", "project"]
    )
    of = [row["id"] for row in records.list_projects(conn, connected=True)]
    for job in _names(conn):
        for project in (None, *of):
            ended = _newest(conn, job, project, runs.c.state.in_(("done", "failed")))
            if ended is None:
                continue
            label = [job, "" if project is None else str(project)]
            done = ended if ended["state"] == "done" else _newest(conn, job, project, runs.c.state == "done")
            failing.add_metric(label, float(ended["state"] == "failed"))
            # Never is as long ago as can be, so that an alert about its age speaks.
            success.add_metric(label, done["finished_at"].timestamp() if done else 0)
            if done:
                took.add_metric(label, (done["finished_at"] - done["started_at"]).total_seconds())
    yield success
    yield took
    yield failing


def _names(conn: sa.Connection) -> Iterator[str]:
    """The jobs that ever ran, each found by one look into the index."""
    job = schema.job_runs.c.job
    name = conn.scalar(sa.select(sa.func.min(job)))
    while name is not None:
        yield name
        name = conn.scalar(sa.select(sa.func.min(job)).where(job > name))


def _newest(conn: sa.Connection, job: str, project: int | None, how: sa.ColumnElement[bool]) -> records.Row | None:
    runs = schema.job_runs.c
    # "is not distinct from" would not use the index on either database.
    whose = runs.project.is_(None) if project is None else runs.project == project
    query = sa.select(runs.state, runs.started_at, runs.finished_at).where(runs.job == job, whose, how)
    found = conn.execute(query.order_by(runs.started_at.desc(), runs.id.desc()).limit(1)).mappings().first()
    return dict(found) if found is not None else None


def _size(conn: sa.Connection) -> int | None:
    """The store's size in bytes; None where the database does not say."""
    if conn.dialect.name == "sqlite":
        pages = conn.exec_driver_sql("PRAGMA page_count").scalar_one()
        return int(pages * conn.exec_driver_sql("PRAGMA page_size").scalar_one())
    if conn.dialect.name == "postgresql":
        return int(conn.exec_driver_sql("SELECT pg_database_size(current_database())").scalar_one())
    return None


def _counted(conn: sa.Connection, query: sa.Select[tuple[int]]) -> int:
    rows = query.limit(MOST_COUNTED).subquery()
    return conn.execute(sa.select(sa.func.count()).select_from(rows)).scalar_one()


def _age(since: datetime | None, now: datetime) -> float:
    return max(0.0, (now - since).total_seconds()) if since is not None else 0.0


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)


def _total(name: str, text: str, value: float) -> CounterMetricFamily:
    return CounterMetricFamily(name, text, value=value)
