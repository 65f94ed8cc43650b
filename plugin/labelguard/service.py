"""The service's processes over one store: everything in one, or as many webs and workers as are wanted.

SQLite wants a single writing process, so on one machine everything runs together (``labelguard serve``). On
PostgreSQL any number of processes work side by side on any number of machines: ``labelguard web`` takes deliveries
in, judges them and answers the page, ``labelguard worker`` judges too, delivers actions and keeps the schedule.
Of what only one may do at a time, the store's roles decide who does it.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from types import FrameType
from typing import Any, Literal

import structlog
from flask import Flask

from labelguard.connectors import ConnectorError, Notifier, Studio
from labelguard.engine import Clock, Engine
from labelguard.engine.link import EngineProcess
from labelguard.heap import keep_what_is_there, tune_memory
from labelguard.outbox import Outbox
from labelguard.registry import broken_bundles, load_connectors
from labelguard.schedule import ElectedSchedule, Jobs
from labelguard.settings import BadSettings, Settings, networks
from labelguard.store import Store
from labelguard.store.core import StoreError

log = structlog.get_logger(__name__)

ProcessKind = Literal["serve", "web", "worker"]
"""What a process does: everything, the HTTP side, or everything but that."""


def utc_now() -> datetime:
    """The service's clock."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Service:
    """Everything that works together, wired."""

    settings: Settings
    store: Store
    engine: Engine
    outbox: Outbox
    studio: Studio | None
    notifier: Notifier | None
    clock: Clock

    def jobs(self) -> Jobs:
        """The scheduled jobs.

        Raises:
            ConnectorError: no Label Studio is configured.
        """
        if self.studio is None:
            raise ConnectorError(
                "labelguard is not configured for a Label Studio: set LABELGUARD_STUDIO_URL and "
                "LABELGUARD_STUDIO_API_KEY.",
                permanent=True,
            )
        return Jobs(self.store, self.engine, self.outbox, self.studio, self.notifier, self.settings, self.clock)

    def app(self) -> Flask:
        """The HTTP side."""
        from labelguard.web.app import create_app

        return create_app(self.store, self.engine, self.outbox, self.studio, self.settings, self.clock)

    def health_app(self) -> Flask:
        """Only what probes and monitoring ask, for a process without an HTTP side of its own."""
        from labelguard.web.health import health_blueprint
        from labelguard.web.metrics import Metrics

        app = Flask("labelguard-worker", static_folder=None)
        app.register_blueprint(
            health_blueprint(self.store, self.engine, Metrics(self.store, self.engine, self.clock), self.clock)
        )
        return app


@contextmanager
def opened(settings: Settings, clock: Clock = utc_now, apart: EngineProcess | None = None) -> Iterator[Service]:
    """Open the store and wire everything to it, with nothing running yet; closed at the end.

    ``apart`` is the process in which deliveries are judged, if not in this one.

    Raises:
        StoreError: the store cannot be opened.
    """
    store = Store.open(settings.database_url)
    try:
        yield wired(settings, store, clock, apart)
    finally:
        store.close()


def wired(settings: Settings, store: Store, clock: Clock = utc_now, apart: EngineProcess | None = None) -> Service:
    """Wire everything to an open store. Label Studio is not asked anything yet.

    Raises:
        ConnectorError: a connector is needed and not installed.
    """
    engine = Engine(store, clock, keep_rejected=settings.keep_rejected, apart=apart)
    studio: Studio | None = None
    notifier: Notifier | None = None
    if key := settings.studio_api_key.get_secret_value():
        studio = _connector("studio")(settings.studio_url, key)
    if settings.notify:
        targets = {name: url.get_secret_value() for name, url in settings.notify.items()}
        notifier = _connector("notify")(targets, allowed=networks(settings.allow_private_targets))
    return Service(settings, store, engine, Outbox(store, engine, studio, notifier, clock), studio, notifier, clock)


def _connector(name: str) -> Any:
    try:
        return load_connectors()[name]
    except KeyError:
        reasons = " ".join(f"{bundle}." for bundle in broken_bundles())
        raise ConnectorError(f"The connector {name!r} is not installed. {reasons}".rstrip(), permanent=True) from None


class Running:
    """A service with its threads: engine, deliverer and schedule."""

    def __init__(self, service: Service, *, deliver: bool = True, schedule: bool = True) -> None:
        """The engine runs in every process: who takes a delivery in, judges it if nobody else is at it."""
        self._service = service
        self._stopping = threading.Event()
        self._delivers = deliver
        self._tender = threading.Thread(target=self._tend, name="deliverer", daemon=True)
        self._schedule = ElectedSchedule(service.jobs()) if schedule and service.studio is not None else None

    def __enter__(self) -> Running:
        self._know_own_user()
        self._service.engine.processor.warm_up()
        self._service.engine.retry_failed()
        self._service.engine.start()
        self._tender.start()
        if self._schedule is not None:
            self._schedule.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._service.engine.found.set()
        with self._service.studio.silence() if self._service.studio is not None else nullcontext():
            if self._schedule is not None:
                self._schedule.stop()
            self._tender.join()
        self._service.engine.stop()

    def _know_own_user(self) -> None:
        """Ask Label Studio who we are there; until it answers, nothing of ours can come back as an event."""
        if self._service.studio is None or self._service.engine.own_user is not None:
            return
        try:
            self._service.engine.own_user = self._service.studio.server().user.id
        except ConnectorError as error:
            log.warning("studio_unavailable", reason=str(error))

    def _tend(self) -> None:
        engine = self._service.engine
        while not self._stopping.is_set():
            # Pauses between attempts end without an event: look once a second.
            engine.found.wait(1.0)
            engine.found.clear()
            if self._stopping.is_set():
                return
            try:
                self._know_own_user()
                if self._delivers:
                    self._deliver()
            except StoreError as error:
                log.error("store_unavailable", reason=str(error))  # noqa: TRY400 - the sentence says it all
                self._stopping.wait(1.0)
            except Exception:
                log.exception("deliverer_failed")
                self._stopping.wait(5.0)

    def _deliver(self) -> None:
        # Where several processes deliver, one does at a time; the others need not stand in line for it.
        with self._service.store.try_exclusive("deliverer") as mine:
            if mine is not None:
                self._service.outbox.deliver_due(self._stopping)


def run(settings: Settings, kind: ProcessKind = "serve") -> None:
    """Run a process of the service until it is told to stop.

    Raises:
        BadSettings: several processes cannot work with what is configured.
        StoreError: the store cannot be opened.
        OSError: the address cannot be listened on.
    """
    from labelguard.web.server import make_server

    if kind != "serve":
        _side_by_side(settings, kind)
    tune_memory()
    # Before anything else: it is a copy of this process, which must have no threads yet.
    apart = EngineProcess(settings.database_url, utc_now) if settings.engine_process and kind != "worker" else None
    with ExitStack() as stack:
        if apart is not None:
            stack.callback(apart.stop)
        service = stack.enter_context(opened(settings, apart=apart))
        app = service.health_app() if kind == "worker" else service.app()
        server = make_server(app, settings)

        def stop(_number: int, _frame: FrameType | None) -> None:
            # What waitress ends its loop for by itself; closing its sockets under it would be an error.
            raise KeyboardInterrupt

        signal.signal(signal.SIGTERM, stop)
        working = kind != "web"
        with Running(service, deliver=working, schedule=working):
            keep_what_is_there()
            log.info("serving", kind=kind, host=settings.host, port=server.effective_port, store=service.store.where)
            server.run()


def _side_by_side(settings: Settings, kind: ProcessKind) -> None:
    problems = []
    if settings.database_url.startswith("sqlite"):
        problems.append(
            f"`labelguard {kind}` works side by side with other processes, which a store in SQLite cannot: run "
            "`labelguard serve`, which does everything by itself, or set LABELGUARD_DATABASE_URL to a "
            "PostgreSQL database."
        )
    if kind == "web" and not settings.secret_key.get_secret_value():
        problems.append(
            "Set LABELGUARD_SECRET_KEY to the same long random text for every `labelguard web`: what one signs, "
            "the others must be able to read."
        )
    if problems:
        raise BadSettings(problems)
