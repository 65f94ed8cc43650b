"""The outside world: Label Studio, and chat, mail and pagers.

``CONNECTORS`` is what the ``labelguard.connectors`` entry point names; anybody else's package offers its own
tuple the same way.
"""

from labelguard_connectors.notify import Notify
from labelguard_connectors.studio import LabelStudio

CONNECTORS = (LabelStudio, Notify)

__all__ = ["CONNECTORS", "LabelStudio", "Notify"]
