"""The service's tests start from no configuration, whatever the machine's environment says."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def no_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is set for running the tests (where Label Studio is, say) is no setting of the service."""
    for name in list(os.environ):
        if name.startswith("LABELGUARD_"):
            monkeypatch.delenv(name)
