"""A process that has imported labelguard and forks one running labelguard after another.

Starting Python and importing everything takes seconds, so that killing hundreds of processes would take an
hour; a fork takes milliseconds, and what runs in it is the command line as it is, only less patient: what
labelguard waits for in seconds and minutes, it waits for in tenths of seconds here.

It reads orders from its standard input, one JSON object a line, and tells on its standard output what was
started and what ended. When its input ends, it takes everything that it started with it.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import sys
import tempfile
from typing import Any

PATIENCE = {"_FIRST_PAUSE": 0.2, "_LONGEST_PAUSE": 2.0, "IN_FLIGHT": 2.5}
"""Constants of the outbox, in seconds."""

STUDIO_TIMEOUT = 1.0
"""Seconds until Label Studio's answer is not waited for any more."""


def _prepare() -> None:
    """Import what a service imports sooner or later, and shorten its patience."""
    import apprise  # noqa: F401
    import label_studio_sdk.client
    import psycopg  # noqa: F401

    import labelguard.cli
    import labelguard.demo
    import labelguard.outbox
    import labelguard.service
    import labelguard.web.app
    import labelguard.web.server
    from labelguard.registry import load_connectors, load_rules

    load_rules()
    studio: Any = load_connectors()["studio"]
    patient = studio.__init__

    def impatient(self: Any, url: str, api_key: str, timeout: float = STUDIO_TIMEOUT, **more: Any) -> None:
        patient(self, url, api_key, timeout, **more)

    studio.__init__ = impatient
    _warm_up()
    for name, seconds in PATIENCE.items():
        rooms = [room for room in (labelguard.outbox.box, labelguard.outbox.effects) if hasattr(room, name)]
        if not rooms:
            raise AttributeError(f"the outbox has no {name}")
        for room in rooms:
            setattr(room, name, seconds)
    assert label_studio_sdk.client.LabelStudio is not None


def _warm_up() -> None:
    """Put a whole service together once: much is imported on first use only."""
    from labelguard.service import opened
    from labelguard.settings import Settings
    from labelguard.web.server import make_server

    with tempfile.TemporaryDirectory() as folder:
        effective = Settings(database_url=f"sqlite:///{folder}/warm.sqlite3")
        with opened(effective) as service:
            make_server(service.app(), effective, port=0).close()


def _become(order: dict[str, Any]) -> int:
    """Be the process that was ordered; returns its exit code."""
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.environ.update(order["environ"])
    from labelguard.cli import run_command

    return run_command(order["arguments"])


def _start(order: dict[str, Any]) -> int:
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        code = _become(order)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _tell(**what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Serve orders until there are none."""
    _prepare()
    gc.freeze()
    _tell(ready=True)
    running: set[int] = set()
    waiting = b""
    while True:
        if select.select([0], [], [], 0.01)[0]:
            got = os.read(0, 65536)
            if not got:
                break
            *lines, waiting = (waiting + got).split(b"\n")
            for line in lines:
                child = _start(json.loads(line))
                running.add(child)
                _tell(started=child)
        while running:
            ended, status = os.waitpid(-1, os.WNOHANG)
            if not ended:
                break
            running.discard(ended)
            _tell(ended=ended, status=os.waitstatus_to_exitcode(status))
    for child in running:
        os.kill(child, signal.SIGKILL)


if __name__ == "__main__":
    main()
