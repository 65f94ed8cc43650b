"""For all tests: the one browser, and where nothing may be skipped, a skip is a failure with the reason it gave."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator, Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

_NO_SKIP = "LABELGUARD_NO_SKIP"
# Read now: a test may run with an environment of its own.
_NOTHING_SKIPPED = bool(os.environ.get(_NO_SKIP))

_CHROMIUM = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def _failed(report: pytest.TestReport | pytest.CollectReport) -> None:
    # An expected failure is reported as skipped too, and did run.
    if not _NOTHING_SKIPPED or report.outcome != "skipped" or hasattr(report, "wasxfail"):
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


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """The system's Chromium: one for all tests, because Playwright allows no second one beside it in a thread."""
    path = os.environ.get("LABELGUARD_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("there is no Chromium here: install one or set LABELGUARD_CHROMIUM")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(_CHROMIUM))
        yield browser
        browser.close()
