"""The operational store: one door for reading, one for writing."""

from labelguard.store.core import Store

__all__ = ["Store"]
