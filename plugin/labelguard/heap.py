"""How a process that runs for long keeps its memory."""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress

_ARENA_MAX = -8
"""glibc's M_ARENA_MAX."""

_MMAP_THRESHOLD = -3
"""glibc's M_MMAP_THRESHOLD."""

_LARGE = 1 << 20
"""Bytes from which something has a place of its own, that is given back as soon as it is not used any more."""

_ROUND = 20_000
"""New objects after which the collector looks for cycles among them."""


def tune_memory() -> None:
    """Let all threads allocate from two heaps, and what is large outside of them.

    glibc gives each thread one of its own and keeps in each what its largest moment needed: of 49 MiB that a
    service grew by in half an hour under load, nothing was in use. And it takes what is large for usual once one
    was freed: a table of 4 MiB that is made anew now and then left a hole among small things each time.
    https://sourceware.org/glibc/manual/html_node/Malloc-Tunable-Parameters.html
    """
    # Elsewhere (musl, macOS) there is no such setting, and no such habit.
    with suppress(OSError, AttributeError):
        glibc = ctypes.CDLL(None)
        glibc.mallopt(_ARENA_MAX, 2)
        glibc.mallopt(_MMAP_THRESHOLD, _LARGE)


def give_back() -> None:
    """Give memory that is free, and lies between what is in use, back to the system: after a job that took much.

    Cycles that lasted as long as the job are old by now, and the collector would get to them in some hours.
    """
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def keep_what_is_there() -> None:
    """Take what was loaded at the start out of the collector's rounds: it stays anyway.

    Looking through all of it again and again held every thread up for a tenth of a second, a few times a minute
    under load. Rounds are rarer, too: a delivery makes hundreds of objects and no cycles, and each round in the
    midst of many doubled the slowest answers.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_ROUND, 20, 20)
