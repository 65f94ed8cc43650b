"""The built-in guardrails and sweeps, one file each."""

from labelguard_rules.gold_check import GoldCheck
from labelguard_rules.label_constraints import LabelConstraints
from labelguard_rules.label_drift import LabelDrift
from labelguard_rules.single_label_overuse import SingleLabelOveruse

RULES = (LabelConstraints, GoldCheck, SingleLabelOveruse, LabelDrift)
