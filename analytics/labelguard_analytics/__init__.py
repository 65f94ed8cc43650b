"""Statistics for label quality on plain numbers, arrays and frames; usable alone in a notebook."""

from labelguard_analytics.drift import AnnotatorDrift, LabelShift, label_drift
from labelguard_analytics.fdr import Discoveries, ebh, fdr
from labelguard_analytics.sequential import AccuracyTest, ShareTest

__all__ = [
    "AccuracyTest",
    "AnnotatorDrift",
    "Discoveries",
    "LabelShift",
    "ShareTest",
    "ebh",
    "fdr",
    "label_drift",
]
