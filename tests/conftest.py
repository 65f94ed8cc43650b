"""What holds for every test: both stores, and no skipping where nothing may be skipped.

Tests that use a store run twice, once on SQLite and once on PostgreSQL. Where nothing may be skipped, a test that
would be is a failure with the reason it gave.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from types import ModuleType

import pytest

from databases import POSTGRESQL, SQLITE, chosen

_NO_SKIP = "LABELGUARD_NO_SKIP"
# Read now: a test may run with an environment of its own.
_NOTHING_SKIPPED = bool(os.environ.get(_NO_SKIP))
_SET = bool(os.environ.get(_NO_SKIP))


def _failed(report: pytest.TestReport | pytest.CollectReport) -> None:
    # An expected failure is reported as skipped too, and did run.
    if not _SET or report.outcome != "skipped" or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    report.outcome = "failed"
    report.longrepr = f"{reason}\nNothing may be skipped here, because {_NO_SKIP} is set."


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Look at each test's outcome."""
    report = yield
    _failed(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Look at each file's outcome: a whole file may be skipped."""
    report = yield
    _failed(report)
    return report


def _uses_a_store(module: ModuleType) -> bool:
    """Whether a module's tests open stores: through one of the helpers that ask for the store's address."""
    helpers = {"databases", "guarded", "webservice"}
    return any(getattr(value, "__module__", None) in helpers for value in vars(module).values())


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what uses a store on both databases; a store is in the test's folder, so who has none needs none."""
    if "tmp_path" not in metafunc.fixturenames or not _uses_a_store(metafunc.module):
        return
    if metafunc.definition.get_closest_marker("live") or metafunc.definition.get_closest_marker("browser"):
        return
    only = metafunc.definition.get_closest_marker("store")
    # First, for other fixtures open their stores on it.
    metafunc.fixturenames.insert(0, "store_on")
    metafunc.parametrize("store_on", [only.args[0]] if only else [SQLITE, POSTGRESQL], indirect=True)


@pytest.fixture
def store_on(request: pytest.FixtureRequest) -> Iterator[str]:
    """On which database the test's stores are."""
    with chosen(request.param):
        yield request.param
