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
from labelguard_analytics.causes import Attribution, Decomposition, attribute_change, decompose_change
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
from labelguard_analytics.duration import DurationModel, duration_model
from labelguard_analytics.estimate import Estimate
from labelguard_analytics.fdr import Discoveries, ebh, fdr
from labelguard_analytics.frames import BadJudgments
from labelguard_analytics.sequential import AccuracyTest, ShareTest
from labelguard_analytics.similarities import BadResult, similarity
from labelguard_analytics.streams.detector import ChangeDetector
from labelguard_analytics.streams.labels import LabelShareDetector, LabelShareTest
from labelguard_analytics.systematic import (
    Findings,
    concentrated_errors,
    copying_pairs,
    label_overuse,
    order_patterns,
    prediction_copying,
    source_bias,
)
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
    "Attribution",
    "BadJudgments",
    "BadResult",
    "Calibration",
    "Change",
    "ChangeDetector",
    "Changes",
    "Confusion",
    "Counts",
    "Decomposition",
    "Discoveries",
    "DurationModel",
    "Estimate",
    "Findings",
    "ItemClusters",
    "LabelShareDetector",
    "LabelShareTest",
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
    "attribute_change",
    "calibration",
    "cohen_kappa",
    "concentrated_errors",
    "confidence_weighted",
    "confusing_items",
    "confusion",
    "consensus_regions",
    "copying_pairs",
    "dawid_skene",
    "decompose_change",
    "detect_changes",
    "duration_model",
    "ebh",
    "fdr",
    "fleiss_kappa",
    "gwet_ac1",
    "gwet_ac2",
    "hierarchical_dawid_skene",
    "infer_truth",
    "krippendorff_alpha",
    "label_drift",
    "label_overuse",
    "majority_vote",
    "multi_label_truth",
    "numeric_truth",
    "one_coin",
    "order_patterns",
    "ordinal_truth",
    "pairwise_agreement",
    "percent_agreement",
    "prediction_copying",
    "recalibrate",
    "similarity",
    "source_bias",
]
