"""Threat: the policy on paper is not the policy in a browser.

A real Chromium opens the status page and its errors, with texts in them that try to be code. Whatever a policy
stops is told in its console; nothing may be.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from labelguard.store import records
from labelguard.web.server import make_server
from webservice import API_TOKEN, Service, submission

EVIL = "<script>window.evil=1</script><img src=x onerror='window.evil=2'>"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.store("sqlite"),
]


@pytest.fixture
def address(web: Service) -> Iterator[str]:
    """The service behind its own server."""
    server = make_server(web.app, web.settings, host="127.0.0.1", port=0)

    def serve() -> None:
        with contextlib.suppress(OSError):  # its sockets are closed under it in the end
            server.run()

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"http://127.0.0.1:{server.effective_port}"
    server.close()
    thread.join()


def test_no_page_runs_anything_or_trips_over_its_own_policy(web: Service, address: str, chromium: Browser) -> None:
    """Signing in, the page with everything on it, a decision, an error, signing out."""
    body = submission("spam", "important")
    body["project"]["title"] = EVIL
    web.deliver(body)
    web.engine.process_pending()
    web.store.write(lambda conn: records.set_finding_state(conn, 1, "disputed", by="a", note=EVIL, now=web.clock()))
    told: list[str] = []
    with chromium.new_context() as context:
        page = context.new_page()
        page.on("console", lambda message: told.append(message.text))
        page.on("pageerror", lambda error: told.append(str(error)))
        page.goto(address)
        page.fill("[name=token]", API_TOKEN)
        page.fill("[name=name]", EVIL)
        page.click("button.primary")
        page.wait_for_selector("text=What needs a person")
        assert page.locator(f"text={EVIL}").count() > 0
        # The style sheet is there: the policy lets what is needed through.
        assert page.evaluate("document.styleSheets.length") == 1
        page.click("text=Stop all actions")
        page.wait_for_selector("text=All actions are stopped")
        assert page.evaluate("window.evil") is None
        assert stopped(told) == []
        page.goto(f"{address}/nowhere")
        page.wait_for_selector("text=There is nothing at this address")
        assert stopped(told) == []
        page.goto(address)
        page.click("text=Sign out")
        page.wait_for_selector("[name=token]")
        assert page.evaluate("window.evil") is None
        # What would run if the policy were not there: it is stopped, and the console says by what.
        page.evaluate(
            "document.body.appendChild(Object.assign(document.createElement('script'), {text: 'window.evil=3'}))"
        )
        assert page.evaluate("window.evil") is None
        assert len(stopped(told)) == 1


def stopped(told: list[str]) -> list[str]:
    """What the console says of things that a policy stopped, or of errors."""
    return [text for text in told if "Content Security Policy" in text or "Refused" in text or "Error:" in text]
