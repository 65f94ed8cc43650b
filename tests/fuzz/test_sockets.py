"""Bytes that are no proper HTTP, sent to the real server: each connection ends, the next request is answered."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from labelguard.web.server import make_server
from mutations import Mutator
from webservice import PROJECT, TOKEN, Service, service, submission

SEED = 20261124

pytestmark = pytest.mark.store("sqlite")


@pytest.fixture
def address(web: Service) -> Iterator[tuple[str, int]]:
    """The service behind its own server."""
    server = make_server(web.app, web.settings, host="127.0.0.1", port=0)

    def serve() -> None:
        with contextlib.suppress(OSError):  # its sockets are closed under it in the end
            server.run()

    thread = threading.Thread(target=serve)
    thread.start()
    yield "127.0.0.1", server.effective_port
    server.close()
    thread.join()


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Service]:
    """A service that takes bodies of 64 KiB."""
    with service(tmp_path, max_body_bytes=64 * 1024) as running:
        yield running


def talk(address: tuple[str, int], *parts: bytes) -> bytes:
    """Send bytes, and read until the server has no more to say."""
    with socket.create_connection(address, timeout=20) as connection:
        answer = b""
        with contextlib.suppress(OSError):
            for part in parts:
                connection.sendall(part)
            connection.shutdown(socket.SHUT_WR)
            while chunk := connection.recv(65_536):
                answer += chunk
        return answer


def request(body: bytes, *headers: str, path: str = f"/webhook/{PROJECT}", version: str = "HTTP/1.1") -> bytes:
    """A delivery as it should be, but for what is added."""
    lines = [f"POST {path} {version}", "Host: localhost", f"X-Labelguard-Token: {TOKEN}", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def statuses(answer: bytes) -> list[int]:
    """The status of every answer on a connection."""
    return [int(part[1:4]) for part in answer.replace(b"HTTP/1.0", b"HTTP/1.1").split(b"HTTP/1.1")[1:]]


BODY = json.dumps(submission("spam", "important")).encode()
LENGTH = f"Content-Length: {len(BODY)}"

CHUNKED = "Transfer-Encoding: chunked"

MALFORMED = {
    "no request line": b"\r\n\r\n\r\n",
    "noise": bytes(range(256)) * 8,
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\xaa" * 200,
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n",
    "no version": b"GET / \r\nHost: a\r\n\r\n",
    "another version": b"GET / HTTP/9.9\r\nHost: a\r\n\r\n",
    "blanks in the path": b"GET /a b c HTTP/1.1\r\nHost: a\r\n\r\n",
    "NUL in the path": b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n",
    "a header without a colon": b"GET / HTTP/1.1\r\nHost a\r\n\r\n",
    "a folded header": b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n",
    "a bare CR": b"GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
    "huge headers": b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: " + b"a" * 400_000 + b"\r\n\r\n",
    "many headers": b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: a\r\n" % n for n in range(20_000)) + b"\r\n",
    "a huge path": b"GET /" + b"a" * 400_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    "two lengths": request(BODY, LENGTH, "Content-Length: 5"),
    "a negative length": request(BODY, "Content-Length: -5"),
    "a length with a sign": request(BODY, f"Content-Length: +{len(BODY)}"),
    "a length of words": request(BODY, "Content-Length: many"),
    "a length of thousands of digits": request(BODY, "Content-Length: " + "9" * 5000),
    "length and chunks": request(b"0\r\n\r\n" + BODY, LENGTH, "Transfer-Encoding: chunked"),
    "chunks of another encoding": request(BODY, "Transfer-Encoding: gzip, chunked"),
    "chunks in disguise": request(b"5\r\nabcde\r\n0\r\n\r\n", "Transfer-Encoding: \x0bchunked"),
    "chunks of no size": request(b"zz\r\nabc\r\n0\r\n\r\n", "Transfer-Encoding: chunked"),
    "chunks of a negative size": request(b"-1\r\nabc\r\n0\r\n\r\n", "Transfer-Encoding: chunked"),
    "chunks of a huge size": request(b"ffffffffffffffffffff\r\nabc\r\n", "Transfer-Encoding: chunked"),
    "chunks without an end": request(b"5\r\nabcde\r\n", "Transfer-Encoding: chunked"),
    "chunks that lie": request(b"2\r\nabcdef\r\n0\r\n\r\n", "Transfer-Encoding: chunked"),
    "chunks with huge extensions": request(b"5;" + b"a" * 100_000 + b"\r\nabcde\r\n0\r\n\r\n", CHUNKED),
    "a body that stops": request(BODY[:50], LENGTH),
    "more than was said": request(BODY + b"x" * 5000, LENGTH),
    "expecting to go on": request(b"", LENGTH, "Expect: 100-continue"),
    "a body that is too large": request(b" " * 200_000, "Content-Length: 200000"),
    "chunks that are too large": request(b"30d40\r\n" + b" " * 200_000 + b"\r\n0\r\n\r\n", CHUNKED),
}


@pytest.mark.parametrize("sent", MALFORMED.values(), ids=MALFORMED.keys())
def test_what_is_no_http_ends_and_the_next_is_answered(web: Service, address: tuple[str, int], sent: bytes) -> None:
    """At most an error of 4xx; a proper delivery right after is taken in."""
    answer = talk(address, sent)
    assert not [status for status in statuses(answer) if status >= 500 and status != 501]
    assert b"Traceback" not in answer
    assert statuses(talk(address, request(BODY, LENGTH, "Connection: close"))) == [200]


def test_a_delivery_in_chunks_and_in_drops_is_taken_in(web: Service, address: tuple[str, int]) -> None:
    """Slow and divided is not malformed."""
    chunked = b"".join(
        b"%x\r\n%s\r\n" % (len(BODY[at : at + 100]), BODY[at : at + 100]) for at in range(0, len(BODY), 100)
    )
    whole = request(chunked + b"0\r\n\r\n", "Transfer-Encoding: chunked", "Connection: close")
    assert statuses(talk(address, *(whole[at : at + 64] for at in range(0, len(whole), 64)))) == [200]


def test_requests_in_one_go_are_answered_in_order(web: Service, address: tuple[str, int]) -> None:
    """Ten requests before the first answer; the sizes of their bodies keep them apart."""
    bodies = [json.dumps(submission("spam", annotation=100 + n, task=n + 1)).encode() for n in range(9)]
    sent = b"".join(request(body, f"Content-Length: {len(body)}") for body in [*bodies, b"{"])
    assert statuses(talk(address, sent)) == [200] * 9 + [400]


def test_no_second_request_is_smuggled_in(web: Service, address: tuple[str, int]) -> None:
    """Where length and chunks disagree, what stands behind must not be taken for a request of its own."""
    hidden = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for length in (f"Content-Length: {5 + len(hidden)}", "Content-Length: 4"):
        answer = talk(address, request(b"0\r\n\r\n" + hidden, length, "Transfer-Encoding: chunked"))
        assert b"labelguard_" not in answer


def test_many_slow_connections_hold_nobody_up(web: Service, address: tuple[str, int]) -> None:
    """More half-sent requests than there are threads: those that are whole are answered meanwhile."""
    with contextlib.ExitStack() as open_connections:
        for _ in range(40):
            slow = open_connections.enter_context(socket.create_connection(address, timeout=20))
            slow.sendall(request(BODY[:100], LENGTH))
        assert statuses(talk(address, request(BODY, LENGTH, "Connection: close"))) == [200]


def test_mutated_deliveries_over_the_wire(web: Service, address: tuple[str, int]) -> None:
    """Some hundred of what the fuzzer makes, through the whole server."""
    random = Random(SEED)
    mutator = Mutator(random)
    for _ in range(150):
        body = mutator.body(mutator.delivery(PROJECT))[:60_000]
        found = statuses(talk(address, request(body, f"Content-Length: {len(body)}", "Connection: close")))
        assert found in ([200], [400])
