"""A line in which processes wait to write, first come first served."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

_LOOK_EVERY = 0.0003


class Line:
    """A turnstile of two locked files: whoever waits for the second holds the first.

    SQLite has no line: a process that writes one transaction after the other leaves others a gap of microseconds,
    which they look for a few times a second (https://www.sqlite.org/c3ref/busy_timeout.html). Here, who has just
    written and wants to again finds the turnstile taken by the one who waits. The locks end with their process.
    """

    def __init__(self, store: Path) -> None:
        """The files are beside the store's."""
        self._paths = [store.with_name(f"{store.name}-{name}.lock") for name in ("next-writer", "writer")]
        self._files: list[IO[str]] = []

    @contextmanager
    def turn(self, patience: float) -> Iterator[None]:
        """Wait for one's turn, and keep it meanwhile; for one thread of a process.

        Whoever is at it for longer than so many seconds may hang: then SQLite's own lock decides.

        Raises:
            OSError: the files cannot be had.
        """
        if not self._files:
            self._files = [path.open("a") for path in self._paths]
        until = time.monotonic() + patience
        turnstile, writer = self._files
        mine = _locked(turnstile, until) and _locked(writer, until)
        fcntl.flock(turnstile, fcntl.LOCK_UN)
        try:
            yield
        finally:
            if mine:
                fcntl.flock(writer, fcntl.LOCK_UN)

    def close(self) -> None:
        """Let go of the files."""
        while self._files:
            self._files.pop().close()


def _locked(file: IO[str], until: float) -> bool:
    """Lock a file, unless that takes too long."""
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                return False
            time.sleep(_LOOK_EVERY)
        else:
            return True
