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
from labelguard_analytics.changes import Change, Changes, Nights, Panel, TooLittle, detect_changes
from labelguard_analytics.confidence import (
    Calibration,
    Recalibration,
    calibration,
    confidence_weighted,
    recalibrate,
)
from labelguard_analytics.confusion import Confusion, ItemClusters, confusing_items, confusion
from labelguard_analytics.counts import Counts
from labelguard_analytics.drift import AnnotatorDrift, LabelShift, label_drift
from labelguard_analytics.estimate import Estimate
from labelguard_analytics.fdr import Discoveries, ebh, fdr
from labelguard_analytics.frames import BadJudgments
from labelguard_analytics.sequential import AccuracyTest, ShareTest
from labelguard_analytics.similarities import BadResult, similarity
from labelguard_analytics.truth import (
    Truth,
    ability_difficulty,
    consensus_regions,
    dawid_skene,
    hierarchical_dawid_skene,
    infer_truth,
    majority_vote,
    multi_label_truth,
    numeric_truth,
    one_coin,
    ordinal_truth,
)

__all__ = [
    "AccuracyTest",
    "AnnotatorDrift",
    "BadJudgments",
    "BadResult",
    "Calibration",
    "Change",
    "Changes",
    "Confusion",
    "Counts",
    "Discoveries",
    "Estimate",
    "ItemClusters",
    "LabelShift",
    "Nights",
    "Pairwise",
    "Panel",
    "Recalibration",
    "ShareTest",
    "TooLittle",
    "Truth",
    "ability_difficulty",
    "agreement_by_label",
    "agreement_by_task",
    "calibration",
    "cohen_kappa",
    "confidence_weighted",
    "confusing_items",
    "confusion",
    "consensus_regions",
    "dawid_skene",
    "detect_changes",
    "ebh",
    "fdr",
    "fleiss_kappa",
    "gwet_ac1",
    "gwet_ac2",
    "hierarchical_dawid_skene",
    "infer_truth",
    "krippendorff_alpha",
    "label_drift",
    "majority_vote",
    "multi_label_truth",
    "numeric_truth",
    "one_coin",
    "ordinal_truth",
    "pairwise_agreement",
    "percent_agreement",
    "recalibrate",
    "similarity",
]
