"""Read a frame of judgments into integer codes, the form in which everything here computes.

A frame has one row for each judgment and the columns ``task``, ``annotator`` and ``value``, and may have ``at``
(when; datetime), ``duration`` (seconds), ``confidence`` (0 to 1), ``source`` (where the task's data came from),
``cohort`` (the annotator's group) and ``gold`` (the task's known answer). An annotator has one judgment for each
task: where a frame has several, the latest by ``at`` counts. Without ``at`` truth inference, confusion and
calibration count all of them; agreement refuses them, because it would take people who agree with themselves for
people who agree. ``judgments.drop_duplicates(["task", "annotator"], keep="last")`` then says which one counts.

What is wrong with a frame is said in one sentence that names the column and the row (by its index label).
"""

from labelguard_analytics.frames.checks import confidences
from labelguard_analytics.frames.coded import Coded, from_codes
from labelguard_analytics.frames.columns import encode
from labelguard_analytics.frames.errors import BadJudgments, row_of, shown
from labelguard_analytics.frames.gold import gold_sets
from labelguard_analytics.frames.reading import kind_of, read
from labelguard_analytics.frames.terms import Codes, Floats, Kind

__all__ = [
    "BadJudgments",
    "Coded",
    "Codes",
    "Floats",
    "Kind",
    "confidences",
    "encode",
    "from_codes",
    "gold_sets",
    "kind_of",
    "read",
    "row_of",
    "shown",
]
