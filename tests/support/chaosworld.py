"""A labelguard connected to the Label Studio that misbehaves, on any store."""

from __future__ import annotations

import os
import random
import select
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import requests
import sqlalchemy as sa

from chaosfleet import Fleet, settings
from chaosload import DESK, GOLD, MAIL, VAULTED, Delivery, Load, result
from chaosproof import Kept, figures, missed, proved, settled, uninterrupted
from chaosstudio import TOKEN, ChaosStudio, Plan
from databases import SQLITE
from labelguard.connect import connect
from labelguard.service import Service, opened
from labelguard.settings import Settings
from labelguard.store import Store, records
from labelguard.store.schema import inbox
from labelguard.studio.launch import free_port
from labelguard_connectors import LabelStudio

API_TOKEN = "the-api-token-of-the-crash-tests"

_CONSTRAINTS = """\
  - rule: label-constraints
    control: topics
    mode: enforce
    options: {{exclusive: [[spam, important]]}}
    actions: {actions}
"""
POLICIES = {
    MAIL: f"project: {MAIL}\nrules:\n" + _CONSTRAINTS.format(actions="[prompt, replace]"),
    DESK: f"project: {DESK}\ntask_note: note\npeople: {{leads: [chat], seniors: ['1', oncall]}}\nrules:\n"
    + _CONSTRAINTS.format(actions="[prompt, second-opinion, {notify: leads}, {escalate: seniors}]"),
    GOLD: f"""\
project: {GOLD}
people: {{leads: [chat]}}
rules:
  - rule: gold-check
    mode: enforce
    actions: [{{notify: leads}}, pause]
  - rule: single-label-overuse
    control: topics
    mode: enforce
    options: {{tolerance: 1.5, remind_after: 5}}
    actions: [{{notify: leads}}]
""",
}


@dataclass
class World:
    """Label Studio, labelguard's processes, and annotators at work."""

    folder: Path
    studio: ChaosStudio
    fleet: Fleet
    load: Load
    settings: Settings

    def api(self, method: str, path: str) -> Any:
        """Ask labelguard's API; None where there was no answer."""
        try:
            answer = requests.request(
                method,
                f"http://127.0.0.1:{self.load.ports[0]}/api/v1{path}",
                headers={"Authorization": f"Bearer {API_TOKEN}"},
                timeout=10,
            )
            return answer.json() if answer.ok else None
        except (requests.RequestException, ValueError):
            return None

    def approve(self) -> int:
        """A person approves whatever is proposed; returns how much that was."""
        found = self.api("GET", "/actions?state=proposed&limit=100") or {"actions": []}
        return sum(self.api("POST", f"/actions/{a['id']}/approve") is not None for a in found["actions"])

    def work_off(self, seconds: float) -> None:
        """Let labelguard work off what waits while all goes on going wrong, for so long at most."""
        deadline = time.monotonic() + seconds
        rng = random.Random(1)
        store = Store.open(self.settings.database_url)
        try:
            while time.monotonic() < deadline and (self.approve() or not settled(store)):
                self.load.send_echoes(rng)
                time.sleep(0.2)
        finally:
            store.close()

    def strike(self, delivery: Delivery, name: str) -> bool:
        """Send a delivery and kill its receiver when the delivery is kept and the answer has not been sent.

        The receiver runs for a moment, is stopped and looked at, over and over. False where it had answered
        before that could be seen, and was not killed.
        """
        member = self.fleet.members[name]
        pid, port = member.pid, member.port
        if pid is None or port is None:
            raise RuntimeError(f"{name} is not there")
        store = Store.open(self.settings.database_url)
        connection = self.load.ask(delivery, port)
        known = sa.select(inbox.c.id).where(inbox.c.project == delivery.project, inbox.c.digest == delivery.digest)
        try:
            while True:
                os.kill(pid, signal.SIGSTOP)
                while psutil.Process(pid).status() != psutil.STATUS_STOPPED:
                    time.sleep(0.0001)
                answered = bool(select.select([connection], [], [], 0)[0])
                with store.read() as conn:
                    kept = conn.scalar(known) is not None
                if kept and not answered:
                    self.fleet.kill(name, "between commit and answer")
                    delivery.unanswered += 1
                    return True
                os.kill(pid, signal.SIGCONT)
                if answered:
                    return False
                time.sleep(0.0002)
        finally:
            connection.close()
            store.close()

    def done(self) -> int:
        """How much was done so far: deliveries answered and effects."""
        return self.load.answers + len(self.studio.effects)

    def settle(self, seconds: float) -> None:
        """With nothing going wrong any more, wait until nothing is left to do; then look for what was missed."""
        self.studio.plan.armed = False
        deadline = time.monotonic() + seconds
        rng = random.Random(0)
        with _opened(self.settings) as service:
            for looks in range(3):
                while self.approve() or not settled(service.store):
                    self.load.send_echoes(rng)
                    if time.monotonic() > deadline:
                        with service.store.read() as conn:
                            left = records.list_actions(conn, states=("proposed", "approved", "delivering"))
                        raise AssertionError(f"after {seconds:g} seconds there is still to do: {left[-5:]}")
                    time.sleep(0.1)
                if looks < 2:
                    # What the schedule does every few minutes.
                    for project in POLICIES:
                        service.jobs().reconcile(project)
        self.load.hang_up()

    def recover(self, seconds: float) -> None:
        """Wait until labelguard, left to itself, knows all that Label Studio has and has nothing left to do."""
        deadline = time.monotonic() + seconds
        store = Store.open(self.settings.database_url)
        try:
            while not (settled(store) and not missed(self.load, store)):
                if time.monotonic() > deadline:
                    raise AssertionError(f"after {seconds:g} seconds: {missed(self.load, store)[:5]}")
                time.sleep(0.5)
        finally:
            store.close()

    def proved(self) -> tuple[list[str], dict[str, Any]]:
        """What does not hold, and the figures. Everything must have been stopped."""
        store = Store.open(self.settings.database_url)
        try:
            kept = Kept.of(store)
            other = uninterrupted(self.folder, kept, store)
        finally:
            store.close()
        return proved(self.load, self.fleet, kept, other), figures(self.load, self.fleet, kept)


@contextmanager
def _opened(effective: Settings) -> Iterator[Service]:
    """labelguard in this process, with nothing running; its connections are closed in the end."""
    with opened(effective) as service:
        try:
            yield service
        finally:
            if isinstance(service.studio, LabelStudio):
                service.studio.close()


@contextmanager
def world(
    folder: Path, database_url: str, *, seed: int, enterprise: bool, webs: int = 1, **more: Any
) -> Iterator[World]:
    """Three connected projects with policies and a vault; no process of labelguard runs yet."""
    studio = ChaosStudio(enterprise=enterprise, plan=Plan(seed))
    ports = [free_port() for _ in range(webs)]
    with studio.running():
        values: dict[str, Any] = {
            "database_url": database_url,
            "studio_url": studio.url,
            "studio_api_key": TOKEN,
            "public_url": f"http://127.0.0.1:{ports[0]}",
            "api_token": API_TOKEN,
            "secret_key": "a key for the crash tests",
            "notify": {name: studio.alerts_to(name) for name in ("chat", "oncall")},
            "allow_private_targets": "127.0.0.1",
            "inline_deadline": 0.02,
            "log_level": "WARNING",
            **more,
        }
        effective = Settings.model_validate(values)
        for project in (MAIL, DESK, GOLD):
            studio.add_project(project)
        with _opened(effective) as service:
            if service.studio is None:
                raise RuntimeError("there is no connector")
            for project in (MAIL, DESK, GOLD):
                connect(
                    service.store,
                    service.engine,
                    service.studio,
                    project,
                    public_url=effective.public_url,
                    clock=service.clock,
                )
                text = POLICIES[project]
                service.store.write(_applying(project, text, service.clock()))
            service.store.write(_vaulting(service.clock()))
        fleet = Fleet(folder, settings(values))
        studio.kill = lambda port: fleet.kill_owner(port, "between call and recording")
        with fleet.running():
            yield World(folder, studio, fleet, Load(studio, ports, seed), effective)


def start(made: World, kind: str) -> list[str]:
    """Start labelguard as it runs on a kind of store; returns the names of its processes, receivers first."""
    ports = made.load.ports
    if kind == SQLITE:
        made.fleet.add("serve", "serve", port=ports[0], LABELGUARD_PORT=str(ports[0]))
    else:
        for number, port in enumerate(ports, start=1):
            made.fleet.add(f"web-{number}", "web", port=port, LABELGUARD_PORT=str(port))
        for number in (1, 2):
            port = free_port()
            made.fleet.add(f"worker-{number}", "worker", port=port, LABELGUARD_PORT=str(port))
    names = list(made.fleet.members)
    for name in names:
        made.fleet.ready(name)
    return names


def _applying(project: int, text: str, now: datetime) -> Callable[[Any], object]:
    return lambda conn: records.add_policy(conn, project, text, now)


def _vaulting(now: datetime) -> Callable[[Any], object]:
    def job(conn: Any) -> None:
        for task in VAULTED:
            records.add_gold(conn, GOLD, task, result(["billing"]), "import:vault.csv", now)

    return job
