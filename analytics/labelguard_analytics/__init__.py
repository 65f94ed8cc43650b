"""Statistics for label quality on plain numbers, arrays and frames; usable alone in a notebook."""

from labelguard_analytics.agreement import (
    Pairwise,
    agreement_by_label,
    agreement_by_task,
    cohen_kappa,
    fleiss_kappa,
    gwet_ac1,
    gwet_ac2,
    krippendorff_alpha,
    pairwise_agreement,
    percent_agreement,
)
from labelguard_analytics.counts import Counts
from labelguard_analytics.drift import AnnotatorDrift, LabelShift, label_drift
from labelguard_analytics.estimate import Estimate
from labelguard_analytics.fdr import Discoveries, ebh, fdr
from labelguard_analytics.frames import BadJudgments
from labelguard_analytics.sequential import AccuracyTest, ShareTest
from labelguard_analytics.similarities import BadResult, similarity

__all__ = [
    "AccuracyTest",
    "AnnotatorDrift",
    "BadJudgments",
    "BadResult",
    "Counts",
    "Discoveries",
    "Estimate",
    "LabelShift",
    "Pairwise",
    "ShareTest",
    "agreement_by_label",
    "agreement_by_task",
    "cohen_kappa",
    "ebh",
    "fdr",
    "fleiss_kappa",
    "gwet_ac1",
    "gwet_ac2",
    "krippendorff_alpha",
    "label_drift",
    "pairwise_agreement",
    "percent_agreement",
    "similarity",
]
