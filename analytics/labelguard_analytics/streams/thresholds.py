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
    (0.950, 1.754, 2.600, 3.291, 3.648, 3.608, 3.457, 3.287, 2.982, 2.732, 2.441, 2.103, 1.890, 1.499),
    (2.104, 2.961, 4.076, 4.855, 5.230, 5.091, 4.983, 4.763, 4.480, 4.206, 3.875, 3.513, 3.077, 2.577),
    (3.430, 4.288, 5.382, 6.199, 6.545, 6.449, 6.321, 6.173, 5.774, 5.588, 5.234, 4.742, 4.443, 3.871),
)
LEARNT = (
    (0.950, 1.780, 2.579, 3.281, 3.623, 3.565, 3.355, 3.188, 2.867, 2.746, 2.369, 2.079, 1.747, 1.300),
    (2.300, 3.273, 4.359, 4.979, 5.453, 5.253, 5.088, 4.935, 4.674, 4.409, 4.124, 3.755, 3.372, 2.600),
    (3.600, 4.771, 6.100, 6.781, 7.050, 7.000, 6.850, 6.750, 6.453, 6.300, 6.000, 5.700, 5.300, 4.000),
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
