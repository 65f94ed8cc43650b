"""Why something changed: the parts of a change, and the effect of a dated event."""

from labelguard_analytics.causes.attribution import Attribution, attribute_change
from labelguard_analytics.causes.decomposition import Decomposition, decompose_change

__all__ = ["Attribution", "Decomposition", "attribute_change", "decompose_change"]
