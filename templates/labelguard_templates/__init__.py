"""Every sentence and page a person reads: annotators' messages, notifications, the status page."""

from __future__ import annotations

from pathlib import Path


def path() -> Path:
    """The folder the templates are in."""
    return Path(__file__).parent
