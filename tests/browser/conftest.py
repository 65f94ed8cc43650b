"""A real Label Studio with the page script in it, a real labelguard behind it, and annotators' browsers."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, expect

from annotating import POLICY, Annotator
from labelguard.store import records
from labelguard.studio.launch import StudioProcess, free_port
from live import LiveProject, Receiver, StudioServer, now, receiver, studio_python


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder needs the real server and a browser."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


# A busy machine is slow, not wrong: nothing here is about time.
expect.set_options(timeout=30_000)


@pytest.fixture(scope="session")
def labelguard_port() -> int:
    """Where Label Studio's wrapper looks for labelguard, whether it is there or not."""
    return free_port()


@pytest.fixture(scope="session")
def studio(tmp_path_factory: pytest.TempPathFactory, labelguard_port: int) -> Iterator[StudioServer]:
    """A running Label Studio with the page script, shared by the session: every test makes its own project."""
    python = studio_python()
    if python is None:
        pytest.skip("there is no Label Studio here: set LABELGUARD_STUDIO_PYTHON or run `make test`")
    folder = tmp_path_factory.mktemp("studio")
    server = StudioServer(StudioProcess(python, folder, labelguard_url=f"http://127.0.0.1:{labelguard_port}"))
    server.process.start()
    try:
        yield server
    finally:
        server.close()


@pytest.fixture
def labelguard(studio: StudioServer, tmp_path: Path, labelguard_port: int) -> Iterator[Receiver]:
    """A running labelguard with an empty store."""
    address = f"http://127.0.0.1:{labelguard_port}"
    with receiver(tmp_path, studio, port=labelguard_port, public_url=address) as running:
        yield running


@pytest.fixture
def sign_in(studio: StudioServer, chromium: Browser) -> Iterator[Callable[..., Annotator]]:
    """Signs an annotator in through Label Studio's own form."""
    contexts: list[BrowserContext] = []
    shots = os.environ.get("LABELGUARD_SCREENSHOTS")

    def sign_in(name: str, project: LiveProject, **context_options: Any) -> Annotator:
        account = studio.account(name)
        options: dict[str, Any] = {"viewport": {"width": 1280, "height": 800}, **context_options}
        context = chromium.new_context(**options)
        contexts.append(context)
        context.set_default_timeout(30_000)
        page = context.new_page()
        who = Annotator(account, project, context, page, shots=Path(shots) if shots else None)
        page.on("pageerror", lambda error: who.errors.append(f"{error}\n{error.stack}"))

        def keep(response: Any) -> None:
            if "/labelguard/page/" in response.url:
                who.traffic.append(f"{response.request.method} {response.url} {response.request.post_data or ''}")

        page.on("response", keep)
        page.goto(f"{studio.url}/user/login/")
        page.fill("input[name=email]", account.email)
        page.fill("input[name=password]", account.password)
        page.get_by_role("button", name="Log in").first.click()
        page.wait_for_url(lambda url: "/user/login" not in url)
        return who

    yield sign_in
    for context in contexts:
        context.close()


@pytest.fixture
def apply(labelguard: Receiver) -> Callable[..., None]:
    """Connects a project and gives it a policy."""

    def apply(project: LiveProject, policy: str | None = None, **values: Any) -> None:
        text = policy or POLICY.format(
            project=project.id,
            exclusive=json.dumps(values.get("exclusive", [["spam", "important"]])),
            block=json.dumps(values.get("block", False)),
            actions=json.dumps(values.get("actions", ["prompt"])),
        )
        labelguard.store.write(lambda conn: records.add_policy(conn, project.id, text, now()))
        labelguard.connect(project)

    return apply
