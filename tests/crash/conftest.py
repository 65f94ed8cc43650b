"""The crash tests run on both stores, too."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from databases import POSTGRESQL, SQLITE, chosen


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test on both stores, but for those that name one."""
    only = metafunc.definition.get_closest_marker("store")
    metafunc.fixturenames.insert(0, "store_on")
    metafunc.parametrize("store_on", [only.args[0]] if only else [SQLITE, POSTGRESQL], indirect=True)


@pytest.fixture
def store_on(request: pytest.FixtureRequest) -> Iterator[str]:
    """On which database the test's stores are."""
    with chosen(request.param):
        yield request.param
