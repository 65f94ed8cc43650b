"""Whether the service lives, whether it can work and who it cannot reach, and its numbers.

What stops the service from working makes it unready. What it can work without, such as a Label Studio that
does not answer, makes it degraded: deliveries are taken in and judged all the same, so no balancer and no
orchestrator should take it away.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta

import sqlalchemy as sa
from flask import Blueprint, Response, jsonify
from prometheus_client import CONTENT_TYPE_LATEST

from labelguard.engine import Clock, Engine
from labelguard.store import Store, records
from labelguard.store.core import StoreError
from labelguard.web.metrics import Metrics, pending

# Rules run within a second; a delivery that has waited this long waits for a worker that is not there.
_STUCK_AFTER = timedelta(seconds=60)

# Each look at "writable" costs a write to disk, and anybody may ask. A delivery that was turned away is a look, too.
_WRITE_CHECK_LASTS = timedelta(seconds=5)

_NOT_WRITABLE = "The store cannot be written: look at the disk's free space and the file's permissions."

# The jobs that speak with Label Studio every few minutes; asking it here would make a probe wait for it.
_ASKS_STUDIO = ("reconcile", "watchdog")


def health_blueprint(store: Store, engine: Engine, metrics: Metrics, clock: Clock) -> Blueprint:
    """``/healthz``, ``/readyz``, ``/metrics``: for probes and monitoring, open to all, about nobody."""
    blueprint = Blueprint("health", __name__)
    writable = _Remembered(lambda: _writable(store, clock), _WRITE_CHECK_LASTS, clock)

    @blueprint.get("/healthz")
    def alive() -> Response:
        return jsonify({"alive": True})

    @blueprint.get("/readyz")
    def ready() -> Response:
        checks = {
            "store_readable": _readable(store),
            "store_writable": _turned_away(engine, clock) or writable.get(),
            "worker": _worker(store, engine, clock),
        }
        problems = {name: problem for name, problem in checks.items() if problem}
        worries = {"label_studio": _studio(store), "actions": _actions(store), "engine_process": _apart(engine)}
        response = jsonify(
            {
                "ready": not problems,
                "degraded": any(worries.values()),
                "checks": {
                    name: {"ok": not problem, **({"problem": problem} if problem else {})}
                    for name, problem in (checks | worries).items()
                },
            }
        )
        response.status_code = 503 if problems else 200
        return response

    @blueprint.get("/metrics")
    def exposition() -> Response:
        return Response(metrics.exposition(), content_type=CONTENT_TYPE_LATEST)

    return blueprint


class _Remembered:
    """A check whose answer is good for a while."""

    def __init__(self, check: Callable[[], str | None], lasts: timedelta, clock: Clock) -> None:
        self._check = check
        self._lasts = lasts
        self._clock = clock
        self._lock = threading.Lock()
        self._answer: tuple[datetime, str | None] | None = None

    def get(self) -> str | None:
        with self._lock:
            now = self._clock()
            if self._answer is None or not timedelta() <= now - self._answer[0] < self._lasts:
                self._answer = (now, self._check())
            return self._answer[1]


def _readable(store: Store) -> str | None:
    try:
        with store.read() as conn:
            records.actions_enabled(conn)
    except (StoreError, sa.exc.SQLAlchemyError):
        return "The store cannot be read."
    return None


def _writable(store: Store, clock: Clock) -> str | None:
    try:
        store.write(lambda conn: records.set_cursor(conn, "readyz", True, clock()))
    except (StoreError, sa.exc.SQLAlchemyError):
        return _NOT_WRITABLE
    return None


def _turned_away(engine: Engine, clock: Clock) -> str | None:
    """What deliveries say of the store: a small write may find room where they found none."""
    at = engine.not_kept_at
    return _NOT_WRITABLE if at is not None and timedelta() <= clock() - at < _WRITE_CHECK_LASTS else None


def _worker(store: Store, engine: Engine, clock: Clock) -> str | None:
    if not engine.running:
        return "The worker that judges deliveries is not running: restart labelguard."
    try:
        with store.read() as conn:
            length, age = pending(conn, clock())
    except (StoreError, sa.exc.SQLAlchemyError):
        return "The queue cannot be read."
    if age > _STUCK_AFTER.total_seconds():
        return f"{length} deliveries are waiting, the oldest for {age:.0f} seconds: the rules do not keep up."
    return None


def _apart(engine: Engine) -> str | None:
    if engine.apart_is_missing:
        return (
            "The engine's own process is not there: deliveries are judged in the web's, more slowly. It is started "
            "again by itself; look into the log for why it ended."
        )
    return None


def _studio(store: Store) -> str | None:
    """What the last look at Label Studio said, where it failed."""
    try:
        with store.read() as conn:
            for project in records.list_projects(conn, connected=True):
                for job in _ASKS_STUDIO:
                    runs = records.last_runs(conn, job, project["id"])
                    if runs and runs[0]["state"] == "failed":
                        at = runs[0]["finished_at"]
                        return (
                            f"Label Studio could not be worked with at {at:%H:%M} UTC, for project {project['id']}: "
                            f"{runs[0]['error']} Deliveries are taken in and judged; what is missed meanwhile is "
                            "read later."
                        )
    except (StoreError, sa.exc.SQLAlchemyError):
        return "Whether Label Studio answers cannot be told without the store."
    return None


def _actions(store: Store) -> str | None:
    try:
        with store.read() as conn:
            enabled = records.actions_enabled(conn)
    except (StoreError, sa.exc.SQLAlchemyError):
        return "Whether actions happen cannot be told without the store."
    return None if enabled else "All actions are stopped; `labelguard actions resume` lets them happen again."
