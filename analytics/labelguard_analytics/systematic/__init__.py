"""Errors with a system: who makes them, how large they are, how sure that is, and what to do."""

from labelguard_analytics.systematic.concentrated_errors import concentrated_errors
from labelguard_analytics.systematic.copying_pairs import copying_pairs
from labelguard_analytics.systematic.findings import Findings
from labelguard_analytics.systematic.label_overuse import label_overuse
from labelguard_analytics.systematic.order_patterns import order_patterns
from labelguard_analytics.systematic.prediction_copying import prediction_copying
from labelguard_analytics.systematic.source_bias import source_bias

__all__ = [
    "Findings",
    "concentrated_errors",
    "copying_pairs",
    "label_overuse",
    "order_patterns",
    "prediction_copying",
    "source_bias",
]
