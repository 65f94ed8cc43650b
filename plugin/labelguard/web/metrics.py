"""Numbers for Prometheus, computed from the store when they are asked for: a restart loses none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import sqlalchemy as sa
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from labelguard import distrust
from labelguard.engine import Clock
from labelguard.events import Event
from labelguard.store import Store, records, schema

# A label of its own for each action anybody sends would let a sender fill the monitoring's memory.
UNKNOWN = "unknown"

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.3, 0.5, 1.0, 2.5)


class Metrics:
    """One application's metrics, in a registry of their own."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_StoreCollector(store, clock))
        self._receive = Histogram(
            "labelguard_receive_seconds",
            "How long the receiver took to answer a delivery, by HTTP status.",
            ["status"],
            buckets=_BUCKETS,
            registry=self._registry,
        )

    def received(self, status: int, seconds: float) -> None:
        """Note one answered delivery."""
        self._receive.labels(str(status)).observe(seconds)

    def exposition(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self._registry)


class _StoreCollector(Collector):
    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def describe(self) -> list[Metric]:
        """Nothing, so that registering does not read the store."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All numbers of one snapshot."""
        with self._store.read() as conn:
            yield from self._deliveries(conn)
            yield _counted(
                conn,
                "labelguard_findings",
                "Findings by rule and state.",
                schema.findings.c.rule,
                schema.findings.c.state,
            )
            yield _counted(
                conn,
                "labelguard_actions",
                "Actions by kind and state.",
                schema.actions.c.kind,
                schema.actions.c.state,
            )
            yield _counted(
                conn,
                "labelguard_job_runs",
                "Runs of scheduled jobs by job and state.",
                schema.job_runs.c.job,
                schema.job_runs.c.state,
            )
            unconfirmed = GaugeMetricFamily(
                "labelguard_unconfirmed",
                "What deliveries said and Label Studio does not confirm, since the webhooks' tokens are new, by kind.",
                labels=["kind"],
            )
            for kind, number in distrust.counted(conn).items():
                unconfirmed.add_metric([kind], number)
            yield unconfirmed
            enabled = GaugeMetricFamily("labelguard_actions_enabled", "0 while the kill switch stops actions.")
            enabled.add_metric([], float(records.actions_enabled(conn)))
            yield enabled

    def _deliveries(self, conn: sa.Connection) -> Iterator[Metric]:
        by_label: Counter[tuple[str, str]] = Counter()
        for (action, state), number in records.inbox_counts(conn).items():
            by_label[action if Event(action, None).known else UNKNOWN, state] += number
        deliveries = GaugeMetricFamily(
            "labelguard_deliveries", "Deliveries by action and state.", labels=["action", "state"]
        )
        for (action, state), number in sorted(by_label.items()):
            deliveries.add_metric([action, state], number)
        yield deliveries

        # Only the newest refusals are kept, but their ids go on counting.
        refused = conn.scalar(sa.select(sa.func.max(schema.rejected.c.id))) or 0
        rejected = CounterMetricFamily("labelguard_rejected", "Refused deliveries.")
        rejected.add_metric([], refused)
        yield rejected

        length, age = pending(conn, self._clock)
        queue = GaugeMetricFamily("labelguard_pending", "Deliveries that the rules have not seen yet.")
        queue.add_metric([], length)
        yield queue
        oldest = GaugeMetricFamily("labelguard_pending_oldest_seconds", "Age of the oldest pending delivery.")
        oldest.add_metric([], age)
        yield oldest


def pending(conn: sa.Connection, clock: Clock) -> tuple[int, float]:
    """How many deliveries are pending, and the age of the oldest in seconds (0 where none is)."""
    inbox = schema.inbox.c
    length, first = conn.execute(
        sa.select(sa.func.count(), sa.func.min(inbox.id)).where(inbox.state == "pending")
    ).one()
    if first is None:
        return 0, 0.0
    since = conn.scalar(sa.select(inbox.received_at).where(inbox.id == first))
    return length, max(0.0, (clock() - since).total_seconds()) if since else 0.0


def _counted(
    conn: sa.Connection, name: str, help_text: str, first: sa.Column[str], second: sa.Column[str]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, help_text, labels=[first.name, second.name])
    for a, b, number in conn.execute(sa.select(first, second, sa.func.count()).group_by(first, second)):
        family.add_metric([a, b], number)
    return family
