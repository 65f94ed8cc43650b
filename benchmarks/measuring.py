"""How benchmarks measure: processor time, and a process' own peak of memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def best(run: Callable[[], Any], times: int = 3) -> float:
    """Processor seconds of the quickest of some runs, which other work on the machine hardly changes."""
    found = []
    for _ in range(times):
        start = time.process_time()
        run()
        found.append(time.process_time() - start)
    return min(found)


def peak() -> int:
    """The most memory that this process has had, in KiB; what getrusage tells may be its parent's."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0])
