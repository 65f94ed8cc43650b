"""What runs by the clock: reconciling, the watchdog, the nightly audit and the sweeps, and letting go of old data.

APScheduler keeps its jobs in memory; the store's ``job_runs`` say what ran when, so what was missed while the
service was down is caught up at the next start. A job that fails is recorded, reported and tried again at its
next time; it never takes the others with it. Where several processes could keep the schedule, one is elected; when
it is gone, another takes over.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, time, timedelta
from functools import partial
from typing import Any

import sqlalchemy as sa
import structlog

from labelguard import distrust
from labelguard.connectors import ConnectorError, Notifier, Stopping, Studio
from labelguard.context import StoreSweepContext
from labelguard.engine import Clock, Engine
from labelguard.feedback import render_notification
from labelguard.heap import give_back
from labelguard.keeping import described, storable
from labelguard.outbox import Outbox
from labelguard.policy import ActiveRule
from labelguard.reconcile import audit, reconcile
from labelguard.retention import prune
from labelguard.reviews import check_reviews
from labelguard.rules import Finding, Sweep
from labelguard.settings import Settings
from labelguard.store import Store, records
from labelguard.store.core import Role, StoreError
from labelguard.store.schema import findings
from labelguard.watchdog import watch

log = structlog.get_logger(__name__)

ADMIN_TARGET = "admin"
"""The alert target that hears of trouble with labelguard itself, where one of that name is configured."""

Summary = Mapping[str, Any]


class UnknownSweep(ValueError):
    """A sweep was asked for that the project's policy does not have; the message is a sentence."""


@dataclass(frozen=True, slots=True)
class Jobs:
    """The scheduled jobs, each for one project; also what the command line runs by hand."""

    store: Store
    engine: Engine
    outbox: Outbox
    studio: Studio
    notifier: Notifier | None
    settings: Settings
    clock: Clock
    stopping: threading.Event = field(default_factory=threading.Event)
    """Set when the service is told to stop: sweeps that have not begun do not begin any more."""

    def reconcile(self, project: int) -> Summary:
        """What the webhook missed lately, and standing effects that need looking after."""
        report = reconcile(self.store, self.engine, self.studio, project, clock=self.clock)
        reviewed = check_reviews(self.store, self.studio, project, clock=self.clock)
        told = self._tell_doubts(project)
        return {**report.summary(), **self.outbox.settle(project), **reviewed, "told": told}

    def watchdog(self, project: int) -> Summary:
        """The webhook: there, active and ours."""
        report = watch(
            self.store,
            self.studio,
            project,
            public_url=self.settings.public_url,
            clock=self.clock,
            notifier=self.notifier,
            targets=[ADMIN_TARGET] if ADMIN_TARGET in self.settings.notify else [],
        )
        return {"problems": list(report.problems), "repaired": report.repaired, "webhook": report.webhook}

    def audit(self, project: int) -> Summary:
        """Everything, compared; and the names of annotators."""
        users = self.studio.users()
        self.store.write(lambda conn: records.save_annotators(conn, users))
        self.engine.retry_failed()
        report = audit(self.store, self.engine, self.studio, project, clock=self.clock)
        with self.store.read() as conn:
            unknown = records.unknown_counts(conn, project)
        return {**report.summary(), "history": unknown, "told": self._tell_doubts(project)}

    def sweeps(self, project: int) -> Summary:
        """Every sweep of the project's policy."""
        found = run_sweeps(self.store, self.engine, project, now=self.clock(), stopping=self.stopping)
        return {"findings": found}

    def _tell_doubts(self, project: int) -> list[str]:
        """Tell the admin what deliveries say that Label Studio does not confirm."""
        targets = [ADMIN_TARGET] if ADMIN_TARGET in self.settings.notify else []
        return distrust.tell(self.store, self.notifier, targets, project, clock=self.clock)

    def prune(self) -> Summary:
        """What is older than the settings want it kept, in all projects."""
        return asdict(prune(self.store, self.settings.raw_days, clock=self.clock))

    def run(self, job: str, project: int | None) -> Summary | None:
        """Run a job by name and record how it went; None where it failed, or was interrupted by a stop.

        Without a project it is a job for the whole store.
        """
        each: Mapping[str, Callable[[int], Summary]] = {
            "reconcile": self.reconcile,
            "watchdog": self.watchdog,
            "audit": self.audit,
            "sweeps": self.sweeps,
        }
        work = self.prune if project is None else partial(each[job], project)
        began = self.clock()
        run = self.store.write(lambda conn: records.start_job(conn, job, project, self.clock()))
        try:
            summary = work()
        except Stopping as stopped:
            why = str(stopped)
            log.info("job_interrupted", job=job, project=project)
            self.store.write(lambda conn: records.interrupt_job(conn, run, error=why))
            return None
        except Exception as error:
            if isinstance(error, (ConnectorError, StoreError)):
                why = str(error)
                log.warning("job_failed", job=job, project=project, reason=why)
            else:
                why = described(error)
                log.exception("job_failed", job=job, project=project)
            self.store.write(lambda conn: records.finish_job(conn, run, self.clock(), error=why))
            self.store.instruments.ran(job, "failed", (self.clock() - began).total_seconds())
            self._report(job, project, why)
            return None
        self.store.write(lambda conn: records.finish_job(conn, run, self.clock(), summary=summary))
        self.store.instruments.ran(job, "done", (self.clock() - began).total_seconds())
        if job in ("reconcile", "audit"):
            self.store.instruments.repaired(summary)
        return summary

    def _report(self, job: str, project: int | None, why: str) -> None:
        """Tell the admin once, when a job begins to fail, not at each of its attempts."""
        if self.notifier is None or ADMIN_TARGET not in self.settings.notify:
            return
        with self.store.read() as conn:
            runs = records.last_runs(conn, job, project, limit=2)
            row = records.get_project(conn, project) if project is not None else None
        if len(runs) == 2 and runs[1]["state"] == "failed":
            return
        title = (row or {}).get("title") or ("the store" if project is None else f"project {project}")
        message = render_notification("job", "en", {"job": job, "project": title, "error": why})
        try:
            self.notifier.notify(ADMIN_TARGET, message.title, message.body)
        except ConnectorError as error:
            log.warning("admin_not_told", reason=str(error))


def run_sweeps(
    store: Store,
    engine: Engine,
    project: int,
    *,
    now: datetime,
    only: str | None = None,
    stopping: threading.Event | None = None,
) -> dict[str, list[int]]:
    """Run a project's sweeps over its history; returns the ids of new findings by rule.

    What a sweep already found in the last week, it does not find again, whatever people decided about it: a
    nightly sweep sees the same weeks many times.

    Raises:
        UnknownSweep: ``only`` names a sweep that the policy does not have.
        Stopping: ``stopping`` was set before the last of them began; what the others found is kept.
    """
    with store.read() as conn:
        loaded = engine.processor.policy(conn, project)
    found: dict[str, list[int]] = {}
    sweeps = [(a, a.rule) for a in loaded.rules if isinstance(a.rule, Sweep)] if loaded else []
    if only is not None:
        sweeps = [(active, rule) for active, rule in sweeps if active.name == only]
        if not sweeps:
            raise UnknownSweep(f"The policy of project {project} has no sweep named {only!r}.")
    for active, rule in sweeps:
        if loaded is None:
            break
        if stopping is not None and stopping.is_set():
            raise Stopping
        context = StoreSweepContext(store, loaded.policy, now=now, own_user=engine.own_user)
        try:
            made = [storable(finding) for finding in rule.sweep(context)]
        except StoreError:
            raise
        except Exception as error:
            log.exception("sweep_failed", rule=active.name, project=project)
            made = [_crash(active, error)]
        fresh = [finding for finding in made if not _repeats(store, project, active, finding, now)]
        ids = engine.add_sweep_findings(project, active.key, fresh, now=now)
        found.setdefault(active.name, []).extend(ids)
    return found


def _crash(active: ActiveRule, error: Exception) -> Finding:
    what = described(error)
    return Finding(
        message=f"The sweep {active.name} failed ({what}). The other sweeps ran.",
        evidence={"error": what},
        severity="error",
        observe_only=True,
    )


def _repeats(store: Store, project: int, active: ActiveRule, finding: Finding, now: datetime) -> bool:
    about = {
        "annotator": finding.annotator,
        "task": finding.task,
        "annotation": finding.annotation,
        "control": finding.control or active.spec.control,
    }
    query = sa.select(findings.c.labels, findings.c.evidence).where(
        findings.c.project == project,
        findings.c.rule == active.name,
        findings.c.created_at > now - timedelta(days=7),
        *(findings.c[column].is_not_distinct_from(value) for column, value in about.items()),
    )
    # A sweep that fails says nothing about anybody, and must not hide what it finds once it works.
    failed = finding.evidence.get("error")
    with store.read() as conn:
        return any(
            labels == list(finding.labels) and evidence.get("error") == failed
            for labels, evidence in conn.execute(query)
        )


class Schedule:
    """Runs the jobs of every connected project at their times, and first what was missed."""

    def __init__(self, jobs: Jobs) -> None:
        from apscheduler.executors.pool import ThreadPoolExecutor
        from apscheduler.schedulers.background import BackgroundScheduler

        self._jobs = jobs
        self._stopping = threading.Event()
        self._missed: dict[str, list[int]] = {}
        # One worker: the jobs of a small install must not compete with each other for its one writer.
        self._scheduler = BackgroundScheduler(
            timezone=UTC,
            executors={"default": ThreadPoolExecutor(1)},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )

    def start(self) -> None:
        """Plan everything; what is overdue runs at once."""
        now = self._jobs.clock()
        # APScheduler's own clock, which is not ours.
        at_once = datetime.now(UTC)
        often = timedelta(minutes=self._jobs.settings.reconcile_minutes)
        for job in ("reconcile", "watchdog"):
            self._scheduler.add_job(
                self._each, "interval", args=[job], id=job, seconds=often.total_seconds(), next_run_time=at_once
            )
        at = nightly_time(self._jobs.settings.nightly_at)
        for job in ("audit", "sweeps"):
            timing: dict[str, Any] = {"hour": at.hour, "minute": at.minute}
            # Not a job of its own that runs once: APScheduler stumbles over the end of one while it is stopped.
            if missed := self._overdue(job, now, at):
                self._missed[job] = missed
                timing["next_run_time"] = at_once
            # Two, so that the night is not left out where catching up takes until then.
            self._scheduler.add_job(self._nightly, "cron", args=[job], id=job, max_instances=2, **timing)
        # Not when it was missed, but soon after a start: nobody waits for it.
        self._scheduler.add_job(
            self._once, "cron", args=["prune"], id="prune", hour=at.hour, minute=at.minute, next_run_time=at_once
        )
        self._scheduler.start()
        self._jobs.store.instruments.leads(True)

    def stop(self) -> None:
        """Let the job in hand finish, and stop: what waits behind it does not begin."""
        self._stopping.set()
        if self._scheduler.running:
            self._scheduler.shutdown(wait=True)
            self._jobs.store.instruments.leads(False)

    def _nightly(self, job: str) -> None:
        """Run a nightly job for every connected project, or first where it was missed."""
        self._each(job, self._missed.pop(job, None))

    def _each(self, job: str, projects: Sequence[int] | None = None) -> None:
        """Run a job for every connected project, or for some; none of them stops the others."""
        if projects is None:
            with self._jobs.store.read() as conn:
                projects = [row["id"] for row in records.list_projects(conn, connected=True)]
        for project in projects:
            if self._stopping.is_set():
                return
            try:
                self._jobs.run(job, project)
            except StoreError as error:
                log.error("job_not_run", job=job, project=project, reason=str(error))  # noqa: TRY400 - a sentence
        give_back()

    def _once(self, job: str) -> None:
        """Run a job for the whole store."""
        if self._stopping.is_set():
            return
        try:
            self._jobs.run(job, None)
        except StoreError as error:
            log.error("job_not_run", job=job, reason=str(error))  # noqa: TRY400 - a sentence
        give_back()

    def _overdue(self, job: str, now: datetime, at: time) -> list[int]:
        """The connected projects in which a nightly job missed its last time, or did not come to its end."""
        last_time = last_occurrence(now, at)
        missed = []
        with self._jobs.store.read() as conn:
            for project in records.list_projects(conn, connected=True):
                runs = records.last_runs(conn, job, project["id"])
                late = not runs or runs[0]["started_at"] < last_time
                if late and project["connected_at"] < last_time:
                    missed.append(project["id"])
        return missed


class ElectedSchedule:
    """The schedule of the process that holds its role; the others stand by."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._every = jobs.settings.election_seconds
        self._stopping = jobs.stopping
        self._thread = threading.Thread(target=self._stand, name="election", daemon=True)

    def start(self) -> None:
        """Stand for election until stopped."""
        self._thread.start()

    def stop(self) -> None:
        """Let what is in hand (a sweep, the last question to Label Studio) finish, and give the role back."""
        self._stopping.set()
        self._thread.join()

    def _stand(self) -> None:
        while not self._stopping.is_set():
            try:
                with self._jobs.store.try_exclusive("scheduler") as role:
                    if role is not None:
                        self._lead(role)
            except StoreError as error:
                log.error("schedule_not_run", reason=str(error))  # noqa: TRY400 - the sentence says it all
            except Exception:
                # Without this thread nothing runs by the clock any more, and nobody would notice.
                log.exception("schedule_failed")
            self._stopping.wait(self._every)

    def _lead(self, role: Role) -> None:
        store = self._jobs.store
        # Whoever began them had the role before and has it no more.
        lost = store.write(records.end_lost_jobs)
        log.info("schedule_taken", lost_runs=lost)
        schedule = Schedule(self._jobs)
        schedule.start()
        try:
            while not self._stopping.wait(self._every):
                if not role.held():
                    log.warning("schedule_lost")
                    return
        finally:
            schedule.stop()


def nightly_time(text: str) -> time:
    """``03:00`` as a time of day, UTC."""
    hour, _, minute = text.partition(":")
    return time(int(hour), int(minute), tzinfo=UTC)


def last_occurrence(now: datetime, at: time) -> datetime:
    """The newest moment of that time of day that is not after ``now``."""
    today = datetime.combine(now.astimezone(UTC).date(), at)
    return today if today <= now else today - timedelta(days=1)
