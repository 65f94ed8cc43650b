"""What the reading of frames calls things."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

Codes: TypeAlias = npt.NDArray[np.int32]

Floats: TypeAlias = npt.NDArray[np.float64]

Kind: TypeAlias = Literal["nominal", "number", "set", "result", "any"]
"""What a value is: one label; a number; several labels; a list of Label Studio result items; anything at all."""

SETS = (list, tuple, set, frozenset)
"""What a set of labels may come as."""

LARGEST = 1e100
"""Numbers beyond it are refused: their squares are none."""

REQUIRED = ("task", "annotator", "value")

OPTIONAL = ("at", "duration", "confidence", "source", "cohort", "gold")
