"""How a level is learnt while it is being watched.

The first ``WARM_UP`` values give a first level and are taken as good. Later values join in blocks of ``BLOCK``
whenever the evidence for a fall is small, so that a fall is not learnt as normal before it is noticed; until then
they wait. None is left out for good: leaving out what looks bad would make the level too high. The level used is
lowered by a part of its standard error that shrinks quickly with the number of values behind it: a level taken too
high from few values is what early false alarms come from. Old values fade, so that the level follows somebody who
gets better.
"""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np

from labelguard_analytics.streams.odds import GRID, Array, Whole

WARM_UP = 200
"""Values that only teach."""
BLOCK = 50
"""Values that join together."""
MEMORY = 2000.0
"""A level rests on at most so many values: older ones fade."""
GUARD = 0.6
"""Blocks join while the evidence is below the threshold to this power."""
CAUTION = 0.4
"""The part of the standard error by which the level after the warm-up is lowered."""
FOREVER = 1 << 60
"""The end of a block where nothing is learnt."""


def waiting_blocks(n: Any) -> Any:
    """How many blocks wait in any case after ``n`` values, or after each number of an array.

    While the level rests on little, every value is needed; then it can wait for a slow slide to show.
    """
    return 4 * (n > 500)


def learnt_index(missing: float, size: float) -> int:
    """The row of the level learnt from ``size`` values that were together ``missing`` short of all 1."""
    level = 1.0 - (missing + 0.5) / (size + 1.0)
    level -= CAUTION * sqrt(level * (1.0 - level) / size) * (WARM_UP / size)
    return int(level * GRID) if level > 0.0 else 0


def learnt_indices(missing: Array, size: Array) -> Whole:
    """:func:`learnt_index` of many streams."""
    level = 1.0 - (missing + 0.5) / (size + 1.0)
    level -= CAUTION * np.sqrt(level * (1.0 - level) / size) * (WARM_UP / size)
    found: Whole = np.maximum(0, np.floor(level * GRID)).astype(np.int64)
    return found


def joined(missing: float, size: float, block: float) -> tuple[float, float]:
    """What is learnt after one more block, as ``missing`` and ``size``; old values fade beyond ``MEMORY``."""
    missing, size = missing + block, size + BLOCK
    if size > MEMORY:
        missing, size = missing * (MEMORY / size), MEMORY
    return missing, size


def joined_in_turn(missing: float, size: float, blocks: list[float]) -> tuple[list[float], Array]:
    """:func:`joined` for block after block: what is learnt after none, after the first, and so on."""
    sizes: Array = np.minimum(size + BLOCK * np.arange(len(blocks) + 1), MEMORY)
    fading = np.minimum(MEMORY / (sizes[:-1] + BLOCK), 1.0)
    found = [missing]
    for block, part in zip(blocks, fading.tolist(), strict=True):
        missing = (missing + block) * part
        found.append(missing)
    return found, sizes
