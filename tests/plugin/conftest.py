"""The service's tests start from no configuration, and those that use a store run on both databases."""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import ModuleType

import pytest

from databases import POSTGRESQL, SQLITE, chosen


@pytest.fixture(autouse=True)
def no_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is set for running the tests (where Label Studio is, say) is no setting of the service."""
    for name in list(os.environ):
        if name.startswith("LABELGUARD_"):
            monkeypatch.delenv(name)


def _uses_a_store(module: ModuleType) -> bool:
    """Whether a module's tests open stores: through one of the helpers that ask for the store's address."""
    helpers = {"databases", "guarded", "webservice"}
    return any(getattr(value, "__module__", None) in helpers for value in vars(module).values())


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what uses a store on both databases; a store is in the test's folder, so who has none needs none."""
    if "tmp_path" not in metafunc.fixturenames or not _uses_a_store(metafunc.module):
        return
    only = metafunc.definition.get_closest_marker("store")
    metafunc.parametrize("store_on", [only.args[0]] if only else [SQLITE, POSTGRESQL], indirect=True)


@pytest.fixture(autouse=True)
def store_on(request: pytest.FixtureRequest) -> Iterator[str]:
    """On which database the test's stores are. At work before the test's own fixtures, which open them."""
    kind = getattr(request, "param", None)
    if kind is None:
        yield ""
        return
    with chosen(kind):
        yield kind
