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
    (1.203, 1.781, 2.629, 3.323, 3.673, 3.633, 3.455, 3.323, 3.013, 2.786, 2.514, 2.125, 1.887, 1.380),
    (2.152, 3.005, 4.103, 4.864, 5.243, 5.130, 4.982, 4.814, 4.520, 4.267, 3.944, 3.537, 3.137, 2.603),
    (3.316, 4.279, 5.407, 6.258, 6.540, 6.446, 6.371, 6.315, 5.803, 5.682, 5.278, 4.797, 4.517, 3.916),
)
LEARNT = (
    (0.638, 1.816, 2.583, 3.277, 3.646, 3.533, 3.334, 3.246, 2.865, 2.754, 2.368, 2.079, 1.763, 1.103),
    (2.068, 3.292, 4.397, 4.995, 5.411, 5.306, 5.207, 5.063, 4.691, 4.405, 4.290, 3.722, 3.560, 2.301),
    (3.595, 4.902, 6.391, 6.978, 7.332, 7.355, 7.022, 7.139, 6.719, 6.642, 6.239, 6.382, 6.260, 3.421),
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
