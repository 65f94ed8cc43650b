"""Tests of the service begin with nothing configured."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def _nothing_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is set where the tests run, for labelguard or for other tests, does not reach these."""
    for name in os.environ:
        if name.startswith("LABELGUARD_"):
            monkeypatch.delenv(name)
