"""Threat: whoever may choose where alerts go has labelguard ask addresses inside its own network.

A cloud's metadata service, a database, a router: none of them expects a request from labelguard. The check is
made on the connection itself, so neither a name, a redirect nor a second look-up of a name gets around it.
"""

from __future__ import annotations

import ipaddress
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from labelguard.connectors import ConnectorError
from labelguard.settings import networks
from labelguard_connectors import Notify
from labelguard_connectors.outside import PrivateAddressError, is_public, only_outside

# One of apprise's services imports a module that Python 3.13 drops; it guards the import itself.
pytestmark = [
    pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning"),
    pytest.mark.store("sqlite"),
]

REFUSED = (
    "The alert target “lead” is at a private address, and alerts go to public ones only. "
    "If it is meant, name the address in LABELGUARD_ALLOW_PRIVATE_TARGETS."
)


class Inside(ThreadingHTTPServer):
    """A service of the inner network that must not be asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.redirect = ""
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: Inside

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked.append(self.path)
        if self.server.redirect and self.path == "/":
            self.send_response(307)
            self.send_header("Location", self.server.redirect)
        else:
            self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_POST = _answer  # noqa: N815

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def inside() -> Iterator[Inside]:
    """A running service on this machine."""
    with Inside() as service:
        thread = threading.Thread(target=service.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield service
        service.shutdown()
        thread.join()


def refused(address: str, allowed: str = "") -> ConnectorError:
    """What came of sending an alert to an address."""
    with pytest.raises(ConnectorError) as error:
        Notify({"lead": address}, allowed=networks(allowed)).notify("lead", "title", "text")
    return error.value


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]"])
@pytest.mark.parametrize("kind", ["json", "xml", "form"])
def test_this_machine_is_not_asked_under_any_of_its_names(inside: Inside, kind: str, host: str) -> None:
    """Numbers in other notations and addresses inside addresses lead to the same place."""
    error = refused(f"{kind}://{host}:{inside.server_port}/")
    assert inside.asked == []
    # Some notations are none that apprise or the system reads; the others are refused.
    assert error.permanent is (str(error) == REFUSED or "not one apprise understands" in str(error))


@pytest.mark.parametrize(
    "address",
    [
        "json://169.254.169.254/latest/",
        "json://10.0.0.1/",
        "json://[fd00::1]/",
        "json://192.168.1.1/",
        "mailto://a:b@example.com?smtp=10.9.9.9&to=c@example.com",
    ],
)
def test_private_and_metadata_addresses_are_refused_for_good(address: str) -> None:
    """Trying again would not help, so the action fails at once with what to do about it."""
    error = refused(address)
    assert str(error) == REFUSED
    assert error.permanent


def test_a_redirect_does_not_lead_inside(inside: Inside) -> None:
    """The first stop was allowed; where it sends the request on to is looked at as well."""
    inside.redirect = "http://127.0.0.2:9/"
    error = refused(f"json://127.0.0.1:{inside.server_port}/", allowed="127.0.0.1")
    assert str(error) == REFUSED
    assert inside.asked == ["/"]


def test_a_name_that_leads_elsewhere_the_second_time_is_still_refused(
    inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The owner of a name may answer with a public address first and with an inner one right after."""
    looked_up: list[str] = []

    def rebound(host: Any, port: Any, *arguments: Any, **named: Any) -> list[Any]:
        looked_up.append(host)
        address = "93.184.215.14" if len(looked_up) == 1 else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, inside.server_port))]

    monkeypatch.setattr(socket, "getaddrinfo", rebound)
    socket.getaddrinfo("rebinding.example", 80)
    error = refused("json://rebinding.example/")
    assert "rebinding.example" in looked_up[1:]
    assert str(error) == REFUSED
    assert inside.asked == []


def test_a_named_private_address_is_asked(inside: Inside) -> None:
    """A mail server or a chat of one's own is named, and only that one is open."""
    Notify({"lead": f"json://127.0.0.1:{inside.server_port}/"}, allowed=networks("127.0.0.1")).notify("lead", "t", "b")
    assert inside.asked == ["/"]
    assert str(refused(f"json://127.0.0.2:{inside.server_port}/", allowed="127.0.0.1")) == REFUSED


def test_a_path_in_the_file_system_is_not_connected_to(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A local socket belongs to a database or to the container runtime."""
    path = str(tmp_path_factory.mktemp("s") / "s")
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(path)
        server.listen()
        with only_outside(), pytest.raises(PrivateAddressError):
            client.connect(path)


def test_datagrams_and_programs_are_refused_too() -> None:
    """A target may speak UDP, or be a program of this machine."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client, only_outside():
        with pytest.raises(PrivateAddressError):
            client.sendto(b"x", ("127.0.0.1", 9))
        with pytest.raises(PrivateAddressError):
            subprocess.run([sys.executable, "-c", ""], check=True)


def test_a_thread_that_works_for_the_sender_is_held_to_the_same(inside: Inside) -> None:
    """Apprise sends from a pool of threads, in the context of who asked."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(int).result()
        with only_outside() as guard:
            asked = pool.submit(copy_context().run, socket.create_connection, ("127.0.0.1", inside.server_port))
            assert isinstance(asked.exception(), PrivateAddressError)
        assert guard.refused


def test_other_threads_connect_as_before(inside: Inside) -> None:
    """The guard is about alerts: Label Studio and the store are on private addresses, as they should be."""
    begin = threading.Event()
    reached: list[bool] = []

    def connect() -> None:
        begin.wait()
        with socket.create_connection(("127.0.0.1", inside.server_port)):
            reached.append(True)

    thread = threading.Thread(target=connect)
    thread.start()
    with only_outside():
        begin.set()
        thread.join()
    connect()
    assert reached == [True, True]


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "0.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.0.1",
        "100.64.0.1",
        "169.254.169.254",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "fd00:ec2::254",
        "ff02::1",
        "::ffff:10.0.0.1",
        "2002:a00:1::",
        "64:ff9b::a00:1",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
        "198.18.0.1",
        "192.0.2.1",
    ],
)
def test_these_addresses_are_nobodys_on_the_internet(address: str) -> None:
    """Private, shared, local, reserved, and those that wrap one of them."""
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "93.184.215.14", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]
)
def test_public_addresses_are_public(address: str) -> None:
    """What alerts are for."""
    assert is_public(ipaddress.ip_address(address))


def test_no_link_in_a_delivery_is_ever_followed(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tasks, labels and configurations are full of links; labelguard judges them without asking anybody."""
    from webservice import service, submission

    link = "http://169.254.169.254/latest/meta-data/"
    tried: list[Any] = []
    body = submission("spam", "important", url=link, unique_id=link)
    body["task"]["data"] = {"text": link, "image": link, "$undefined$": link}
    body["annotation"]["result"][0]["value"] |= {"image": link}
    config = f'<View><Text name="text" value="$text"/><Taxonomy name="t" toName="text" apiUrl="{link}"/>'
    body["project"] |= {"label_config": f'{config}<Image name="i" value="{link}"/></View>', "webhook_url": link}

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if watching and event in {"socket.connect", "socket.getaddrinfo", "socket.sendto"}:
            tried.append(arguments)

    watching = True
    sys.addaudithook(hook)
    with service(tmp_path_factory.mktemp("links")) as web:
        assert web.deliver(body).status_code == 200
        web.engine.process_pending()
        web.outbox.deliver_due()
    watching = False
    assert tried == []
