"""Threat: somebody guesses, steals, plants or keeps a session of the status page, or a token of the API.

Guessing is slowed down by address and in all, a session is made anew at each sign-in, ends on the server when
it is signed out of and after half a day, and its cookie is out of reach of scripts and of other sites.
"""

from __future__ import annotations

from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from labelguard.store import schema
from labelguard.web.sessions import COOKIE, Throttle
from webservice import API_TOKEN, Service, service

# What is reviewed here lies above the store; the fuzzers run on both.
pytestmark = pytest.mark.store("sqlite")


def sign_in(web: Service, token: str = API_TOKEN, *, address: str = "198.51.100.1", **arguments: Any) -> Any:
    """Try to sign in from an address."""
    environ = {"REMOTE_ADDR": address}
    return web.app.test_client(use_cookies=False).post(
        "/sign-in", data={"token": token}, environ_overrides=environ, **arguments
    )


def ask(web: Service, token: str, *, address: str = "198.51.100.1") -> int:
    """Try the API from an address; returns the status."""
    headers = {"Authorization": f"Bearer {token}"}
    answer = web.app.test_client(use_cookies=False).get(
        "/api/v1/status", headers=headers, environ_overrides={"REMOTE_ADDR": address}
    )
    return int(answer.status_code)


def cookie(answer: Any) -> Any:
    """The session's cookie with its attributes."""
    return SimpleCookie(answer.headers["Set-Cookie"])[COOKIE]


def signed_in(web: Service, value: str) -> bool:
    """Whether a cookie's value opens the page."""
    page = web.app.test_client(use_cookies=False).get("/", headers={"Cookie": f"{COOKIE}={value}"})
    return "API token" not in page.get_data(as_text=True)


@pytest.mark.parametrize(
    ("base", "headers", "secure"),
    [
        ("http://guard.example", {}, False),
        ("https://guard.example", {}, True),
        # Behind a proxy with TLS that was not configured: the browser says how it reached the page.
        ("http://guard.example", {"Origin": "https://guard.example"}, True),
    ],
)
def test_the_cookie_is_out_of_reach(web: Service, base: str, headers: dict[str, str], secure: bool) -> None:
    """Of scripts, of other sites, and wherever there is TLS of plain connections."""
    made = cookie(sign_in(web, base_url=base, headers=headers))
    assert made["httponly"] is True
    assert made["samesite"] == "Strict"
    assert bool(made["secure"]) is secure
    assert made["domain"] == ""
    assert int(made["max-age"]) == 12 * 3600


def test_each_sign_in_makes_a_session_of_its_own(web: Service) -> None:
    """A session that was planted before is not the one that is signed in."""
    planted = cookie(sign_in(web)).value
    again = sign_in(web, headers={"Cookie": f"{COOKIE}={planted}"})
    assert cookie(again).value != planted


def test_signing_out_ends_a_copied_cookie_too(web: Service, tmp_path: Path) -> None:
    """On the server, for good, and for this session only; what is remembered of it is a hash."""
    one, other = cookie(sign_in(web)).value, cookie(sign_in(web)).value
    web.client.set_cookie(COOKIE, one)
    assert web.submit("/sign-out").status_code == 303
    assert not signed_in(web, one)
    assert signed_in(web, other)
    with web.store.read() as conn:
        kept = [row.name for row in conn.execute(schema.cursors.select()) if row.name.startswith("signed-out:")]
    assert len(kept) == 1
    assert len(kept[0]) == len("signed-out:") + 64


def test_sessions_that_were_signed_out_of_are_forgotten_once_they_would_have_ended(web: Service) -> None:
    """Signing in and out for ever does not fill the store."""
    for _ in range(3):
        web.sign_in()
        web.submit("/sign-out")
        web.clock.move(hours=13)
    web.sign_in()
    web.submit("/sign-out")
    with web.store.read() as conn:
        names = [row.name for row in conn.execute(schema.cursors.select())]
    assert sum(name.startswith("signed-out:") for name in names) == 1


def test_a_session_ends_by_itself(web: Service) -> None:
    """After half a day, whatever the cookie says."""
    value = cookie(sign_in(web)).value
    web.clock.move(hours=11.9)
    assert signed_in(web, value)
    web.clock.move(hours=0.2)
    assert not signed_in(web, value)


def test_a_changed_cookie_is_none(web: Service) -> None:
    """Each character is covered by the signature (but for the bits that base64 does not use)."""
    value = cookie(sign_in(web)).value
    for at in range(0, len(value) - 1, 7):
        changed = value[:at] + ("A" if value[at] != "A" else "B") + value[at + 1 :]
        assert not signed_in(web, changed)


def test_a_new_api_token_or_key_ends_all_sessions(tmp_path: Path) -> None:
    """Whoever had the old one is out."""
    with service(tmp_path) as web:
        value = cookie(sign_in(web)).value
    with service(tmp_path) as web:
        assert signed_in(web, value)
    with service(tmp_path, api_token=SecretStr("another-api-token-of-this-test")) as web:
        assert not signed_in(web, value)
    with service(tmp_path, secret_key=SecretStr("another key for this test")) as web:
        assert not signed_in(web, value)


def test_guessing_from_one_address_is_stopped_for_a_while(web: Service) -> None:
    """Ten wrong tokens in five minutes; the right one has to wait as well, or trying it would tell."""
    assert [sign_in(web, "wrong").status_code for _ in range(10)] == [403] * 10
    stopped = sign_in(web)
    assert stopped.status_code == 429
    assert 0 < int(stopped.headers["Retry-After"]) <= 300
    assert sign_in(web, address="198.51.100.2").status_code == 303
    web.clock.move(minutes=5, seconds=1)
    assert sign_in(web).status_code == 303


def test_the_api_and_the_sign_in_count_together(web: Service) -> None:
    """They take the same token, so one must not be the way around the other."""
    assert [ask(web, f"wrong-{n}") for n in range(10)] == [401] * 10
    assert ask(web, API_TOKEN) == 429
    assert sign_in(web).status_code == 429
    assert ask(web, API_TOKEN, address="198.51.100.2") == 200


def test_guessing_from_everywhere_is_stopped_and_locks_nobody_out_who_was_right_before(web: Service) -> None:
    """A hundred addresses guess; the admin at work goes on working."""
    assert ask(web, API_TOKEN, address="192.0.2.1") == 200
    for number in range(100):
        assert sign_in(web, "wrong", address=f"203.0.113.{number}").status_code == 403
    assert sign_in(web, "wrong", address="198.51.100.9").status_code == 429
    assert ask(web, API_TOKEN, address="192.0.2.1") == 200
    assert sign_in(web, address="192.0.2.1").status_code == 303


def test_one_customer_of_ipv6_is_one_address(web: Service) -> None:
    """Whoever has a network of 2^64 addresses has one try more for none of them."""
    for number in range(10):
        assert sign_in(web, "wrong", address=f"2001:db8::{number + 1:x}").status_code == 403
    assert sign_in(web, "wrong", address="2001:db8::ffff").status_code == 429
    assert sign_in(web, "wrong", address="2001:db8:0:1::1").status_code == 403


def test_a_header_that_anybody_can_send_makes_no_new_address(web: Service) -> None:
    """Without a configured proxy ``X-Forwarded-For`` and its like are nobody's word."""
    for number in range(10):
        headers = dict.fromkeys(("X-Forwarded-For", "X-Real-IP", "Forwarded"), f"192.0.2.{number}")
        assert sign_in(web, "wrong", headers=headers).status_code == 403
    assert sign_in(web, headers={"X-Forwarded-For": "192.0.2.77"}).status_code == 429


def test_a_configured_proxy_tells_who_is_behind_it(tmp_path: Path) -> None:
    """From the right: what the browser itself put into the header stays unread."""
    with service(tmp_path, trusted_proxies="10.0.0.0/8") as web:

        def behind(said: str, proxy: str = "10.0.0.1") -> int:
            answer = sign_in(web, "wrong", address=proxy, headers={"X-Forwarded-For": said})
            return int(answer.status_code)

        for number in range(10):
            assert behind(f"192.0.2.{number}, 203.0.113.5, 10.0.0.2") == 403
        assert behind("192.0.2.99, 203.0.113.5") == 429
        assert behind("203.0.113.6") == 403
        # Somebody who reaches labelguard past the proxy is not believed.
        assert behind("203.0.113.5", proxy="198.51.100.4") == 403


def test_a_configured_proxy_tells_of_tls(tmp_path: Path) -> None:
    """The cookie is for TLS then, and browsers are told to stay with it."""
    with service(tmp_path, trusted_proxies="10.0.0.1") as web:
        said = {"X-Forwarded-Proto": "https"}
        assert cookie(sign_in(web, address="10.0.0.1", headers=said))["secure"]
        assert not cookie(sign_in(web, address="10.0.0.2", headers=said))["secure"]


def test_many_addresses_do_not_fill_the_memory(web: Service) -> None:
    """The oldest are forgotten."""
    throttle = Throttle(10, 10**6, web.clock() - web.clock(), web.clock)
    for number in range(30_000):
        throttle.failed(f"{number >> 16}.{number >> 8 & 255}.{number & 255}.1")
        throttle.passed(f"x{number}")
    assert len(throttle._of) <= 10_000
    assert len(throttle._known) <= 10_000


def test_page_sessions_cannot_be_guessed(web: Service) -> None:
    """An annotator's session carries 160 bits or more of signature, and every other answer is the same 401."""
    answers = set()
    for guess in (
        "",
        "x",
        "a.b",
        "eyJ1c2VyIjoxLCJ1bnRpbCI6OTk5OTk5OTk5OX0.",
        "eyJ1c2VyIjoxLCJ1bnRpbCI6OTk5OTk5OTk5OX0.AAAA",
    ):
        answer = web.client.get("/page/v1/prompts?project=3", headers={"X-Labelguard-Session": guess})
        answers.add((answer.status_code, answer.data))
    assert len(answers) == 1
    assert answers.pop()[0] == 401
