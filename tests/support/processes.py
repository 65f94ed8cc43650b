"""labelguard's real processes, as people run them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import requests

from labelguard.studio.launch import free_port

API_TOKEN = "the-api-token-of-this-test"


def soon(reached: Callable[[], bool], seconds: float = 60) -> bool:
    """Whether something comes to hold."""
    deadline = time.monotonic() + seconds
    while not reached():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@dataclass
class Process:
    """A running ``labelguard serve``, ``web`` or ``worker``."""

    kind: str
    port: int
    log: Path
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> int:
        """Tell it to stop; returns its exit code."""
        # One that hangs can end, too.
        self.process.send_signal(signal.SIGCONT)
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def said(self) -> str:
        """What it logged."""
        return self.log.read_text(encoding="utf-8")


def environment(**settings: object) -> dict[str, str]:
    """The variables of a process with these settings and no others of labelguard's."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith("LABELGUARD_")}
    return {
        **mine,
        "PYTHONPATH": os.pathsep.join(sys.path),
        **{f"LABELGUARD_{name.upper()}": str(value) for name, value in settings.items()},
    }


def start(kind: str, folder: Path, *, port: int | None = None, wait: bool = True, **settings: object) -> Process:
    """Start a process and wait until it answers."""
    port = port or free_port()
    values = {"host": "127.0.0.1", "port": port, "api_token": API_TOKEN, **settings}
    command = [sys.executable, "-c", "from labelguard.cli import main; main()", kind]
    path = folder / f"{kind}-{port}.log"
    with path.open("ab") as log:
        process = subprocess.Popen(command, env=environment(**values), cwd=folder, stdout=log, stderr=log)
    made = Process(kind, port, path, process)

    def up() -> bool:
        try:
            return requests.get(f"{made.url}/healthz", timeout=10).ok
        except requests.RequestException:
            return process.poll() is not None

    if wait and not (soon(up, 240) and process.poll() is None):
        process.kill()
        process.wait(10)
        raise AssertionError(f"`labelguard {kind}` did not start:\n{made.said()}")
    return made
