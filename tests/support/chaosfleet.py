"""labelguard's processes as a service manager runs them: what ends is started again, whoever ended it."""

from __future__ import annotations

import json
import os
import queue
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import psutil

_SUPPORT = Path(__file__).parent


ENGINE = "engine"
"""Why a process was killed that judges and does nothing else."""

STARTED = "@started@"
"""Stands in the environment of a process for which of all processes it is: its name, and the number of its start."""


@dataclass
class Member:
    """One process that shall always be there."""

    name: str
    arguments: tuple[str, ...]
    environ: Mapping[str, str]
    log: Path
    port: int | None = None
    pid: int | None = None
    starts: int = 0

    @property
    def started(self) -> str:
        """Which of all the processes this one is now."""
        return f"{self.name}.{self.starts}"


@dataclass(frozen=True, slots=True)
class Kill:
    """One SIGKILL."""

    started: str
    """Which of all the processes."""
    why: str
    at: float
    """``time.monotonic()``."""


@dataclass
class Fleet:
    """The processes, the one that forks them, and what happened to them."""

    folder: Path
    environ: Mapping[str, str]
    members: dict[str, Member] = field(default_factory=dict)
    kills: list[Kill] = field(default_factory=list)
    surprises: list[str] = field(default_factory=list)
    """Processes that ended by themselves."""
    rest: float = 0.0
    """Seconds until a killed process is started again."""

    def __post_init__(self) -> None:
        self._lock = threading.RLock()
        self._answers: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._stopping = False
        self._forge: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    @contextmanager
    def running(self) -> Iterator[Fleet]:
        """Have a forge; everything is gone in the end."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("LABELGUARD_")}
        paths = [
            str(_SUPPORT.parents[1] / root) for root in ("analytics", "plugin", "rules", "connectors", "templates")
        ]
        with (self.folder / "forge.log").open("a") as log:
            self._forge = subprocess.Popen(
                [sys.executable, str(_SUPPORT / "chaosforge.py")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**clean, "PYTHONPATH": os.pathsep.join(paths), "OPENBLAS_NUM_THREADS": "1"},
            )
        told = self._pipe("stdout")
        if json.loads(told.readline() or "{}").get("ready") is not True:
            raise AssertionError((self.folder / "forge.log").read_text())
        self._reader = threading.Thread(target=self._read, args=(told,), name="fleet", daemon=True)
        self._reader.start()
        try:
            yield self
        finally:
            self._stopping = True
            self._pipe("stdin").close()
            self._reader.join()
            self._forge.wait()
            told.close()

    def _pipe(self, name: str) -> IO[str]:
        found: IO[str] | None = getattr(self._forge, name)
        if found is None:
            raise RuntimeError("there is no forge")
        return found

    def _read(self, told: IO[str]) -> None:
        for line in told:
            news = json.loads(line)
            if "started" in news:
                self._answers.put(news["started"])
            else:
                threading.Thread(target=self._ended, args=(news["ended"], news["status"]), daemon=True).start()

    def add(self, name: str, *arguments: str, port: int | None = None, **environ: str) -> None:
        """Start a process, and again whenever it ends."""
        log = self.folder / f"{name}.log"
        self.members[name] = Member(name, arguments, {**self.environ, **environ}, log, port)
        self._start(self.members[name])

    def _start(self, member: Member) -> None:
        with self._lock:
            if self._stopping:
                return
            member.starts += 1
            order = {
                "arguments": list(member.arguments),
                "environ": {name: value.replace(STARTED, member.started) for name, value in member.environ.items()},
                "log": str(member.log),
            }
            forge = self._pipe("stdin")
            forge.write(json.dumps(order) + "\n")
            forge.flush()
            member.pid = self._answers.get(timeout=60)

    def _ended(self, pid: int, status: int) -> None:
        with self._lock:
            member = next((m for m in self.members.values() if m.pid == pid), None)
            if member is None or self._stopping:
                return
            member.pid = None
            if status != -signal.SIGKILL:
                tail = member.log.read_text()[-2000:]
                self.surprises.append(f"{member.name} ended by itself with {status}:\n{tail}")
        time.sleep(self.rest if status == -signal.SIGKILL else 0.5)
        if self.members.get(member.name) is member:
            self._start(member)

    def kill(self, name: str, why: str) -> bool:
        """SIGKILL now; whether there was something to kill."""
        with self._lock:
            member = self.members[name]
            if member.pid is None:
                return False
            with suppress(ProcessLookupError):
                os.kill(member.pid, signal.SIGKILL)
            self.kills.append(Kill(member.started, why, time.monotonic()))
        return True

    def kill_engine(self, name: str) -> bool:
        """SIGKILL the process that judges beside another, if there is one."""
        member = self.members[name]
        with suppress(psutil.Error):
            for beside in psutil.Process(member.pid).children(recursive=True) if member.pid is not None else ():
                # The one between the two starts it again.
                if not beside.children():
                    beside.kill()
                    with self._lock:
                        self.kills.append(Kill(member.started, ENGINE, time.monotonic()))
                    return True
        return False

    def kill_owner(self, port: int, why: str) -> bool:
        """SIGKILL the process that has a connection from a local port."""
        with self._lock:
            running = [(member.name, member.pid) for member in self.members.values() if member.pid is not None]
        for name, pid in running:
            with suppress(psutil.Error):
                for connection in psutil.Process(pid).net_connections("tcp4"):
                    if connection.laddr and connection.laddr.port == port:
                        return self.kill(name, why)
        return False

    def stop(self, *names: str) -> None:
        """Stop some (all without names) as a service manager does, and start them no more."""
        stopping = [self.members.pop(name) for name in (names or tuple(self.members))]
        for member in stopping:
            with self._lock:
                pid = member.pid
            if pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
        for member in stopping:
            if member.pid is not None and not _gone(member.pid, 30):
                os.kill(member.pid, signal.SIGKILL)
                self.surprises.append(f"{member.name} did not stop:\n{member.log.read_text()[-2000:]}")
                _gone(member.pid, 10)

    def ready(self, name: str, seconds: float = 60) -> None:
        """Wait until a process listens."""
        port = self.members[name].port
        deadline = time.monotonic() + seconds
        while port is not None:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return
            if time.monotonic() > deadline:
                raise AssertionError(f"{name} does not listen:\n{self.members[name].log.read_text()[-3000:]}")
            time.sleep(0.01)

    def tally(self) -> Counter[str]:
        """How many were killed, by why."""
        return Counter(kill.why for kill in self.kills)


def _gone(pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while psutil.pid_exists(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


class Reaper(threading.Thread):
    """Kills at random moments, drawn from a seed: some work and some milliseconds after the kill before.

    By work, so that a slow machine gets on as well; and by milliseconds, so that no moment is spared. Now and
    then it does not wait at all, and so kills what has just been started.
    """

    def __init__(
        self, fleet: Fleet, seed: int, names: Sequence[str], work: Callable[[], int], *, every: tuple[int, int]
    ) -> None:
        """``work`` counts what was done so far; ``every`` is the least and the most of it between two kills."""
        super().__init__(name="reaper", daemon=True)
        self._fleet = fleet
        self._random = random.Random(seed)
        self._names = tuple(names)
        self._work = work
        self._every = every
        self._over = threading.Event()

    def run(self) -> None:
        """Kill until told to stop."""
        while not self._over.is_set():
            hasty = self._random.random() < 0.1
            goal = self._work() + (0 if hasty else self._random.randint(*self._every))
            patience = time.monotonic() + 5
            while self._work() < goal and time.monotonic() < patience and not self._over.wait(0.002):
                pass
            if not self._over.wait(self._random.uniform(0, 0.3 if hasty else 0.05)):
                name = self._random.choice(self._names)
                if self._random.random() > 0.3 or not self._fleet.kill_engine(name):
                    self._fleet.kill(name, "random")

    def stop(self) -> None:
        """Kill no more."""
        self._over.set()
        self.join()


def settings(environ: Mapping[str, Any]) -> dict[str, str]:
    """Settings as environment variables."""
    return {
        f"LABELGUARD_{name.upper()}": value if isinstance(value, str) else json.dumps(value)
        for name, value in environ.items()
    }
