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
    (0.690, 1.845, 2.619, 3.317, 3.678, 3.589, 3.401, 3.271, 2.952, 2.798, 2.421, 2.113, 1.850, 1.097),
    (1.988, 3.266, 4.345, 5.003, 5.353, 5.307, 5.117, 4.982, 4.711, 4.370, 4.152, 3.619, 3.529, 2.287),
    (3.378, 4.692, 5.939, 6.641, 7.032, 7.010, 6.748, 6.740, 6.321, 6.294, 5.742, 5.270, 5.990, 3.356),
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
