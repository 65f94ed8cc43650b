"""The security review, written as tests: one module for each theme, its first lines say what is feared."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from webservice import Service, service


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Service]:
    """The running service with one connected project."""
    with service(tmp_path) as running:
        yield running


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Some of these tests configure logging as the service does."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
