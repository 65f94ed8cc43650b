"""The evidence at which a fall counts as detected: what keeps the promised run length.

The table is what ``scripts/calibrate_detectors.py`` found by simulation: for each level and run length the
smallest threshold at which streams of independent 0 and 1 at that level have a mean run length of at least
``run_length``, and at most ``0.95 t / run_length`` of them an alarm in the first ``t`` values, at ``t`` of 1,000
and of a fifth of the run length. Between its points the logarithm of the threshold is interpolated over the log
odds of the level and the logarithm of the run length; above the last run length it goes on as a straight line,
since the run length of a CUSUM grows in proportion to its threshold (Lorden, 1971).
"""

from __future__ import annotations

import numpy as np

SHORTEST, LONGEST = 1_000, 1_000_000
"""The run lengths that may be asked for."""
LEVELS = (0.01, 0.03, 0.1, 0.25, 0.5, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99)
RUN_LENGTHS = (1_000, 5_000, 20_000)
# Written by scripts/calibrate_detectors.py: a row for each run length, a column for each level.
KNOWN = (
    (0.997, 1.801, 2.647, 3.338, 3.695, 3.655, 3.504, 3.334, 3.029, 2.779, 2.488, 2.150, 1.937, 1.546),
    (2.151, 3.008, 4.123, 4.902, 5.277, 5.138, 5.030, 4.810, 4.527, 4.253, 3.922, 3.560, 3.174, 2.624),
    (3.477, 4.335, 5.429, 6.246, 6.592, 6.496, 6.368, 6.220, 5.821, 5.635, 5.281, 4.789, 4.490, 3.918),
)
LEARNT = (
    (0.655, 1.731, 2.547, 3.245, 3.627, 3.530, 3.308, 3.164, 2.827, 2.723, 2.319, 2.055, 1.697, 0.948),
    (2.058, 3.233, 4.346, 4.962, 5.369, 5.256, 5.153, 4.992, 4.670, 4.382, 4.198, 3.699, 3.375, 2.278),
    (3.554, 4.869, 6.303, 6.904, 7.258, 7.278, 7.018, 7.049, 6.667, 6.572, 6.247, 6.105, 5.656, 3.457),
)


def log_threshold(level: float, run_length: float, *, learnt: bool) -> float:
    """The logarithm of the threshold at a level between .01 and .99."""
    table = np.array(LEARNT if learnt else KNOWN)
    place = np.log(level / (1.0 - level))
    places = np.log(np.array(LEVELS) / (1.0 - np.array(LEVELS)))
    column = np.array([np.interp(place, places, row) for row in table])
    lengths = np.log(np.array(RUN_LENGTHS, dtype=float))
    beyond = max(0.0, np.log(run_length) - lengths[-1])
    slope = (column[-1] - column[-2]) / (lengths[-1] - lengths[-2])
    return float(np.interp(np.log(run_length), lengths, column) + beyond * slope)
