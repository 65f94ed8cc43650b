"""What is written to the log, seen as the lines it is written in."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
import structlog

from labelguard.logs import formatter, through_logging


class Log:
    """A logger whose lines are kept."""

    def __init__(self, *, as_json: bool) -> None:
        self.stream = io.StringIO()
        handler = logging.StreamHandler(self.stream)
        handler.setFormatter(formatter(json=as_json))
        self.logger = logging.getLogger("labelguard.test")
        self.logger.setLevel(logging.DEBUG)
        self.logger.propagate = False
        self.logger.handlers = [handler]

    @property
    def text(self) -> str:
        """Everything written so far."""
        return self.stream.getvalue()

    @property
    def line(self) -> dict[str, Any]:
        """The only line, as JSON."""
        (line,) = self.text.splitlines()
        found: dict[str, Any] = json.loads(line)
        return found


@pytest.fixture
def log() -> Log:
    """A log of JSON lines."""
    return Log(as_json=True)


@pytest.fixture
def console() -> Log:
    """A log for a terminal."""
    return Log(as_json=False)


@pytest.fixture(autouse=True)
def _no_context() -> Iterator[None]:
    structlog.contextvars.clear_contextvars()
    yield
    structlog.contextvars.clear_contextvars()


def test_a_line_says_when_who_and_what(log: Log) -> None:
    """A line is a JSON object with time, level, logger and the message."""
    log.logger.warning("The rule %s raised.", "gold-check")

    assert log.line["event"] == "The rule gold-check raised."
    assert log.line["level"] == "warning"
    assert log.line["logger"] == "labelguard.test"
    assert log.line["timestamp"].endswith("Z")


def test_lines_about_a_delivery_carry_its_number(log: Log) -> None:
    """Whatever is logged while a delivery is bound names it."""
    with structlog.contextvars.bound_contextvars(delivery=17):
        log.logger.info("judged")

    assert log.line["delivery"] == 17


def test_structlog_writes_the_same_lines(log: Log) -> None:
    """What is logged with structlog's keywords ends in the same log, with its secrets removed."""
    through_logging()
    try:
        structlog.get_logger("labelguard.test").warning("store_unavailable", reason="disk full", token="hunter2")
    finally:
        structlog.reset_defaults()

    assert log.line["event"] == "store_unavailable"
    assert log.line["reason"] == "disk full"
    assert log.line["token"] == "[removed]"
    assert log.line["logger"] == "labelguard.test"


@pytest.mark.parametrize(
    ("message", "secret"),
    [
        ("401 for Authorization: Bearer abcdefghijklmnopqrstuv", "abcdefghijklmnopqrstuv"),
        ("sent Authorization: Token 0123456789abcdef0123456789abcdef01234567", "0123456789abcdef"),
        ("Set-Cookie: sessionid=s3cr3ts3cr3t; HttpOnly; Path=/", "s3cr3ts3cr3t"),
        ("{'Cookie': 'sessionid=s3cr3ts3cr3t'}", "s3cr3ts3cr3t"),
        ("jar: sessionid=s3cr3ts3cr3t, more", "s3cr3ts3cr3t"),
        ("X-Labelguard-Token: hunter2hunter2", "hunter2hunter2"),
        ('{"task_data_password": "x", "password": "hunter2"}', "hunter2"),
        ("GET https://user:hunter2@files.example.com/a.png", "hunter2"),
        ("refreshed eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOjF9.abc-def_g", "eyJhbGciOiJIUzI1NiJ9"),
        ("https://example.com/?api_key=hunter2&x=1", "hunter2"),
    ],
)
def test_a_secret_inside_a_message_is_removed(log: Log, message: str, secret: str) -> None:
    """Headers, cookies, tokens and passwords never reach the log, however they are written."""
    log.logger.error(message)

    assert secret not in log.text
    assert "[removed]" in log.text


@pytest.mark.parametrize("message", ["the token is wrong", "password too short", "a cookie banner", "3 tokens left"])
def test_an_ordinary_sentence_stays_as_it_is(log: Log, message: str) -> None:
    """Words like token or password alone hide nothing."""
    log.logger.error(message)

    assert log.line["event"] == message


def test_a_bound_secret_is_removed(log: Log) -> None:
    """A value bound under a name that says it is secret is not written."""
    with structlog.contextvars.bound_contextvars(api_token="hunter2", nested={"secret_key": "hunter2", "id": 3}):
        log.logger.info("hello")

    assert "hunter2" not in log.text
    assert log.line["nested"] == {"secret_key": "[removed]", "id": 3}


def test_a_body_that_could_not_be_stored_is_not_logged(log: Log) -> None:
    """SQLAlchemy's errors quote the parameters of the statement; the log does not."""
    # Not written out below: a traceback quotes the lines of the program.
    body = " ".join(["what", "the", "annotator", "wrote"])
    engine = sa.create_engine("sqlite://")
    try:
        with engine.connect() as conn:
            conn.execute(sa.text("insert into missing values (:body)"), {"body": body})
    except sa.exc.OperationalError:
        log.logger.exception("The store failed.")
    engine.dispose()

    assert "no such table: missing" in log.line["exception"]
    assert body not in log.text


@pytest.mark.parametrize("log_kind", ["log", "console"])
@pytest.mark.parametrize("breaker", ["\n", "\r\n", "\x1b[2K", "\x85", "\u2028", "\x00"])
def test_nobody_can_forge_a_line(breaker: str, log_kind: str, request: pytest.FixtureRequest) -> None:
    """Characters that end a line or steer a terminal are made visible."""
    log: Log = request.getfixturevalue(log_kind)
    log.logger.info("unknown action %s", f"X{breaker}2026-01-01 [error] forged")

    assert len(log.text.strip().splitlines()) == 1
    assert "\x1b" not in log.text


def test_a_forged_line_inside_an_exception_is_marked(console: Log) -> None:
    """On a terminal each line of a traceback is marked, so that none passes for a line of the log."""

    def fail() -> None:
        raise ValueError("bad\n2026-01-01 [error] forged")

    try:
        fail()
    except ValueError:
        console.logger.exception("failed")

    assert "    | 2026-01-01 [error] forged" in console.text
