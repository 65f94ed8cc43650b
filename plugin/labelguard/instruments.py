"""What one process measures of its own work: counters and histograms that start anew with it.

Each store has a set of them, because everything that works together shares its store. What the store itself
knows (queues, jobs) is read from it when somebody asks, by :mod:`labelguard.web.metrics`.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from time import perf_counter
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
)

from labelguard.events import KNOWN_ACTIONS

UNKNOWN = "unknown"
"""The label of every action Label Studio may invent: a sender must not fill the monitoring's memory."""

_ANSWERED_WITHIN = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.3, 0.5, 1.0, 2.5)
_DONE_WITHIN = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200, 43200)
_JOBS_TAKE = (0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 14400)
_GROUPS = (1, 2, 4, 8, 16, 32, 64, 128, 256)

REPAIRS = ("new", "changed", "deleted", "tasks_deleted", "project_changed")
"""What a reconciliation finds that no webhook told."""


class Instruments:
    """The instruments of one process and store."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"labelguard_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, *labels: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(f"labelguard_{name}", text, labels, buckets=buckets, registry=registry)

        self._receive = histogram(
            "receive_seconds",
            "How long the receiver took to answer a delivery, by HTTP status.",
            "status",
            buckets=_ANSWERED_WITHIN,
        )
        self._deliveries = counter("deliveries", "Deliveries that were new and kept.", "action", "judged")
        self._duplicates = counter("duplicates", "Deliveries that were known already.")
        self._refused = counter("refused", "Deliveries that were not taken in.", "reason")
        self._judgment = histogram(
            "judgment_seconds",
            "From a delivery's receipt until the rules were done with it.",
            "outcome",
            buckets=_DONE_WITHIN,
        )
        self._attempts = counter("action_attempts", "Attempts at an effect.", "kind", "outcome")
        self._effect = histogram(
            "effect_seconds", "From a finding until its action took effect.", "kind", buckets=_DONE_WITHIN
        )
        self._unverified = counter("unverified", "Actions stopped by what Label Studio itself said.", "reason")
        self._repaired = counter("repaired", "What no webhook told and reconciling found.", "what")
        self._lost = counter("lost_versions", "First versions that nobody can know any more.")
        self._job = histogram("job_seconds", "How long scheduled jobs took.", "job_name", "state", buckets=_JOBS_TAKE)
        self._write = histogram(
            "store_write_seconds", "How long one commit of waiting writes took.", buckets=_ANSWERED_WITHIN
        )
        self._group = histogram("store_write_group", "How many waiting writes one commit took.", buckets=_GROUPS)
        self._write_failures = counter("store_write_failures", "Commits that failed for the store's or disk's sake.")
        self._leader = Gauge(
            "labelguard_scheduler_leader", "1 where this process runs the scheduled jobs.", registry=registry
        )
        Info("labelguard_build", "What is running.", registry=registry).info(_versions())
        # What each delivery counts for is not looked up anew each time.
        self._answers, self._kept = cache(self._receive.labels), cache(self._deliveries.labels)
        self._judgments = cache(self._judgment.labels)
        # Series that alerts ask for are there before anything happened: an absent one is never above anything.
        for what in REPAIRS:
            self._repaired.labels(what)
        for reason in ("unauthorized", "malformed", "too_large"):
            self._refused.labels(reason)

    # The receiver

    def answered(self, status: int, seconds: float) -> None:
        """One delivery was answered."""
        self._answers(str(status)).observe(seconds)

    def taken(self, action: str, *, duplicate: bool, inline: bool) -> None:
        """One delivery was taken in; ``inline`` is whether it was judged before the answer."""
        if duplicate:
            self._duplicates.inc()
        else:
            known = action if action in KNOWN_ACTIONS else UNKNOWN
            self._kept(known, "inline" if inline else "late").inc()

    def refused(self, reason: str) -> None:
        """One delivery was not: ``unauthorized``, ``malformed``, ``too_large``, ``other_project``, ..."""
        self._refused.labels(reason).inc()

    # The engine

    def judged(self, outcome: str, seconds: float) -> None:
        """The rules are done with a delivery that came so long ago; ``outcome`` is ``done`` or ``failed``."""
        self._judgments(outcome).observe(max(0.0, seconds))

    # The outbox

    def attempted(self, kind: str, outcome: str) -> None:
        """One attempt at an effect ended: ``done``, ``postponed`` or ``failed``."""
        self._attempts.labels(kind, outcome).inc()

    def took_effect(self, kind: str, seconds: float) -> None:
        """An action of a finding that old took effect."""
        self._effect.labels(kind).observe(max(0.0, seconds))

    def unverified(self, reason: str) -> None:
        """What a delivery said is not (any more) what Label Studio says: ``changed``, ``gone``, ``forged``."""
        self._unverified.labels(reason).inc()

    # The schedule

    def repaired(self, summary: Mapping[str, Any]) -> None:
        """What a reconciliation found, by its summary."""
        for what in REPAIRS:
            self._repaired.labels(what).inc(int(summary.get(what) or 0))
        self._lost.inc(int(summary.get("lost") or 0))

    def ran(self, job: str, state: str, seconds: float) -> None:
        """A scheduled job ended, ``done`` or ``failed``."""
        self._job.labels(job, state).observe(max(0.0, seconds))

    def leads(self, leading: bool) -> None:
        """Whether this process runs the scheduled jobs now."""
        self._leader.set(leading)

    # The store

    @contextmanager
    def commit(self, group: int) -> Iterator[None]:
        """Around one commit of so many waiting writes."""
        began = perf_counter()
        try:
            yield
        except BaseException:
            self._write_failures.inc()
            raise
        self._write.observe(perf_counter() - began)
        self._group.observe(group)


def _versions() -> dict[str, str]:
    from labelguard import __version__

    return {"version": __version__, "python": platform.python_version()}
