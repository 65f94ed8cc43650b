"""Alerts: a real HTTP server stands in for the chat service (apprise's ``json://``)."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from labelguard.connectors import ConnectorError
from labelguard.settings import networks
from labelguard_connectors import Notify

# One of apprise's services imports a module that Python 3.13 drops; it guards the import itself.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

SECRET = "swordfish-in-the-address"


class ChatService(HTTPServer):
    """Keeps what it is sent and answers with ``status``."""

    status = 200

    def __init__(self) -> None:
        self.seen: list[dict[str, str]] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def address(self) -> str:
        """Its apprise address, with a secret in it as real ones have."""
        return f"json://user:{SECRET}@127.0.0.1:{self.server_port}/"


class _Handler(BaseHTTPRequestHandler):
    server: ChatService

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append(json.loads(body))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass


@pytest.fixture
def chat() -> Iterator[ChatService]:
    """A chat service on a free port."""
    with ChatService() as service:
        thread = threading.Thread(target=service.serve_forever)
        thread.start()
        yield service
        service.shutdown()
        thread.join()


def test_it_sends_title_and_text_as_they_are(chat: ChatService) -> None:
    """Markup in a message arrives as text, not as formatting."""
    notify = Notify({"lead": chat.address}, allowed=networks("127.0.0.1")).notify
    notify("lead", "Gold accuracy", "Ana <b>0.61</b>: 11 of 18 – bitte prüfen")
    assert [(m["title"], m["message"]) for m in chat.seen] == [
        ("Gold accuracy", "Ana <b>0.61</b>: 11 of 18 – bitte prüfen")
    ]


def test_a_refusing_service_is_an_error_that_may_be_tried_again(
    chat: ChatService, caplog: pytest.LogCaptureFixture
) -> None:
    """The sentence names the target and neither it nor any log line shows the address."""
    chat.status = 500
    with caplog.at_level(logging.DEBUG), pytest.raises(ConnectorError) as error:
        Notify({"lead": chat.address}, allowed=networks("127.0.0.1")).notify("lead", "t", "b")
    assert str(error.value) == (
        "The alert target “lead” did not take the message. "
        "Check that its address is right and that labelguard's machine can reach it."
    )
    assert not error.value.permanent
    assert SECRET not in caplog.text
    assert str(chat.server_port) not in "".join(r.getMessage() for r in caplog.records if "urllib3" not in r.name)


def test_an_unknown_target_is_named_with_the_known_ones() -> None:
    """A policy that names a target nobody configured gets an answer that says what to do."""
    with pytest.raises(ConnectorError) as error:
        Notify({"lead": "json://localhost", "ops": "json://localhost"}).notify("boss", "t", "b")
    assert str(error.value) == (
        "There is no alert target named “boss” (configured: lead, ops). Add it to LABELGUARD_NOTIFY."
    )
    assert error.value.permanent


def test_an_address_apprise_cannot_read_is_permanent_and_stays_secret() -> None:
    """Trying again cannot help, and the sentence does not repeat the address."""
    with pytest.raises(ConnectorError) as error:
        Notify({"lead": f"nosuch://{SECRET}"}).notify("lead", "t", "b")
    assert error.value.permanent
    assert "is not one apprise understands" in str(error.value)
    assert SECRET not in str(error.value)


def test_its_repr_shows_names_only() -> None:
    """A connector in a traceback or a log line gives nothing away."""
    assert repr(Notify({"lead": f"json://{SECRET}@x"})) == "Notify(lead)"
