"""One real Label Studio for all live tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from labelguard.studio.launch import Account, StudioProcess
from live import Receiver, StudioServer, receiver, studio_python


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder needs the real server."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.live)


@pytest.fixture(scope="session")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StudioServer]:
    """A running Label Studio, shared by the whole session: every test makes its own project."""
    python = studio_python()
    if python is None:
        pytest.skip("there is no Label Studio here: set LABELGUARD_STUDIO_PYTHON or run `make test`")
    server = StudioServer(StudioProcess(python, tmp_path_factory.mktemp("studio")))
    server.process.start()
    try:
        yield server
    finally:
        server.close()


@pytest.fixture
def labelguard(studio: StudioServer, tmp_path: Path) -> Iterator[Receiver]:
    """A running labelguard with an empty store."""
    with receiver(tmp_path, studio) as running:
        yield running


@pytest.fixture(scope="session")
def ana(studio: StudioServer) -> Account:
    """An annotator."""
    return studio.account("ana")


@pytest.fixture(scope="session")
def ben(studio: StudioServer) -> Account:
    """Another annotator."""
    return studio.account("ben")
