"""Secrets are cut before anything is kept; what people label is not touched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from labelguard import redact as redacting
from labelguard.events import Event
from labelguard.redact import REMOVED, is_secret_key, redact

DELIVERIES = Path(__file__).parent / "deliveries"
PLANTED = "PLANTED-SECRET"


def delivery() -> dict[str, Any]:
    """A captured body, fresh for each test to change."""
    body: dict[str, Any] = json.loads((DELIVERIES / "annotation-created.json").read_text("utf-8"))
    return body


@pytest.mark.parametrize("path", sorted(DELIVERIES.glob("*.json")), ids=lambda path: path.stem)
def test_no_secret_of_a_real_delivery_is_left_in_its_event(path: Path) -> None:
    """Label Studio sends its invitation token and the media server's password every time."""
    raw = path.read_text("utf-8")
    assert "PLANTED-TOKEN" in raw
    assert "PLANTED-" not in repr(Event.from_delivery({}, raw))


@pytest.mark.parametrize(
    "key",
    [
        "token",
        "task_data_login",
        "task_data_password",
        "secret",
        "client_secret",
        "api_key",
        "apiKey",
        "x-api-key",
        "access_token",
        "Cookie",
        "Authorization",
        "sessionid",
        "aws_access_key_id",
        "aws_secret_access_key",
        "aws_session_token",
        "account_key",
        "accountKey",
        "google_application_credentials",
        "headers",
        "SASToken",
    ],
)
@pytest.mark.parametrize("place", ["top", "object", "project", "storage", "list", "annotation", "task"])
def test_a_secret_is_cut_wherever_it_is_planted(key: str, place: str) -> None:
    """The project at every depth, objects of the webhook, tasks and annotations outside their content."""
    body = delivery()
    holders: dict[str, dict[str, Any]] = {
        "top": body,
        "object": body.setdefault("webhook", {}),
        "project": body["project"],
        "storage": body["project"].setdefault("storage", {"s3": {}})["s3"],
        "list": body["project"].setdefault("ml_backends", [{}])[0],
        "annotation": body["annotation"],
        "task": body["task"],
    }
    for planted in (PLANTED, [PLANTED], {"X-Any": PLANTED}):
        holders[place][key] = planted
        assert PLANTED not in repr(Event.from_delivery({}, json.dumps(body)))


def test_what_people_label_stays_as_it_is() -> None:
    """A column called password and a label called Token belong to the customer."""
    body = delivery()
    body["task"]["meta"] = {"token": "kept"}
    clean = redact(body)
    assert clean["task"]["data"] == body["task"]["data"]
    assert clean["task"]["data"]["password"] == "a customer's own column"
    assert clean["task"]["meta"] == {"token": "kept"}
    assert clean["annotation"]["result"] == body["annotation"]["result"]
    assert clean["project"]["parsed_label_config"] == body["project"]["parsed_label_config"]


def test_a_reader_sees_that_there_was_a_secret_and_that_there_was_none() -> None:
    """An empty value is information, not a secret."""
    clean = redact({"action": "X", "project": {"token": "a", "task_data_password": None, "secret": ""}})
    assert clean["project"] == {"token": REMOVED, "task_data_password": None, "secret": ""}


def test_keys_that_nobody_saw_before_do_not_fill_the_memory() -> None:
    """Whoever has a token may send any number of keys; what they name is found all the same."""
    for number in range(2000):
        assert redact({f"key{number}": 1, "password": "x"})["password"] == REMOVED
        long = "k" * 10_000 + str(number)
        assert redact({long: 1, "apiKey": "x"})["apiKey"] == REMOVED
    remembered = redacting._known
    assert len(remembered) <= 512
    assert sum(len(key) for keys in remembered for key in keys) < 2**21


def test_the_given_body_is_not_changed() -> None:
    """Whoever holds the original keeps the original."""
    body = delivery()
    redact(body)
    assert body == delivery()


@pytest.mark.parametrize("key", ["title", "tokenizer", "keypoint", "key", "author", "label_config_hash", "updated_by"])
def test_harmless_keys_are_no_secrets(key: str) -> None:
    """Words that merely begin alike stay."""
    assert not is_secret_key(key)
