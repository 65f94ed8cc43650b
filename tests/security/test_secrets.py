"""Threat: a secret is found where it does not belong: in the store, a log, an answer, an error, or by timing.

Marked secrets are sent through everything that labelguard does, at its most talkative, and then looked for in
the bytes of every file and every line that came of it.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from labelguard import tokens
from labelguard.logs import configure
from labelguard.settings import Settings, shown
from labelguard.store import records
from labelguard.tokens import hash_token
from webservice import API_TOKEN, PROJECT, TOKEN, Service, service, submission

# What is reviewed here lies above the store; the fuzzers run on both.
pytestmark = pytest.mark.store("sqlite")

MARK = "swordfish"


def files(folder: Path) -> bytes:
    """Everything in a folder, and the names of it."""
    return b"".join(str(path).encode() + path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def use_everything(web: Service) -> list[bytes]:
    """Deliver, fail, sign in, decide, ask the API and the page, with marked secrets wherever one may stand."""
    body = submission("spam", "important")
    body["project"] |= {
        "token": f"{MARK}-invitation",
        "task_data_login": f"{MARK}-login",
        "task_data_password": f"{MARK}-password",
        "webhooks": [{"headers": {"X-Any": f"{MARK}-header"}}],
        "storage": {"aws_secret_access_key": f"{MARK}-key", "connection": {"account_key": f"{MARK}-account"}},
    }
    body["csrfmiddlewaretoken"] = f"{MARK}-csrf"
    headers = {
        "X-Labelguard-Token": TOKEN,
        "Cookie": f"sessionid={MARK}-cookie",
        "Authorization": f"Token {MARK}-authorization-token",
        "User-Agent": f"x password={MARK}-agent",
    }
    answers: list[Any] = [
        web.client.post(f"/webhook/{PROJECT}", json=body, headers=headers),
        web.client.post(f"/webhook/{PROJECT}", data=b"{", headers=headers),
        web.client.post(f"/webhook/{PROJECT}", json={**body, "action": 1}, headers=headers),
        web.client.post("/webhook/3", json=body, headers={"X-Labelguard-Token": f"{MARK}-wrong"}),
        web.client.post("/sign-in", data={"token": f"{MARK}-wrong-token", "name": "Ada"}),
        web.client.post("/page/v1/session", json={"project": 3}, headers={**headers, "Sec-Fetch-Site": "same-origin"}),
        web.client.get("/page/v1/prompts?project=3", headers={"X-Labelguard-Session": f"{MARK}-session"}),
        web.client.get("/api/v1/status", headers={"Authorization": f"Bearer {MARK}-bearer-of-a-token"}),
        web.api("GET", "/findings"),
        web.api("GET", "/policies"),
        web.api("PUT", "/policies/3", data="project: 3\nrules: [1"),
        web.client.get("/metrics"),
        web.client.get("/readyz"),
    ]
    web.engine.process_pending()
    pages = [web.sign_in().encode(), web.page("/?project=3").encode()]
    web.submit("/switch/stop")
    web.submit("/sign-out")
    return [*(answer.data + str(answer.headers).encode() for answer in answers), *pages]


@pytest.mark.parametrize("json", [True, False])
def test_no_secret_reaches_the_store_a_log_or_an_answer(tmp_path: Path, json: bool) -> None:
    """Invitation, media passwords, storage keys, cookies, tokens: of the project, of browsers and our own."""
    log = io.StringIO()
    configure("DEBUG", json=json, stream=log)
    folder = tmp_path / "store"
    folder.mkdir()
    with service(folder, secret_key=SecretStr(f"{MARK}-signing-key-of-this-test")) as web:
        answers = use_everything(web)
        kept = files(folder)
    kept += files(folder)
    assert b"Where is my money?" in kept, "the store was looked at"
    assert "A delivery was taken in" in log.getvalue(), "the log was looked at"
    assert re.findall(rb"(?:%s|%s|%s)[\w-]*" % tuple(s.encode() for s in (MARK, TOKEN, API_TOKEN)), kept) == []
    for secret in (MARK, TOKEN, API_TOKEN):
        assert secret not in log.getvalue()
        for answer in answers:
            assert secret.encode() not in answer


def test_a_projects_token_is_kept_as_its_hash(web: Service) -> None:
    """Whoever reads the store cannot deliver."""
    with web.store.read() as conn:
        row = records.get_project(conn, PROJECT)
    assert row is not None
    assert row["token_hash"] == hashlib.sha256(TOKEN.encode()).hexdigest()
    assert web.deliver(submission("spam"), token=row["token_hash"]).status_code == 401


def test_secrets_are_compared_in_constant_time(web: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each door compares with :func:`hmac.compare_digest`, once, also where nothing is there to compare with."""
    compared: list[tuple[int, int]] = []

    def compare(a: Any, b: Any) -> bool:
        compared.append((len(a), len(b)))
        return bool(a == b)

    # The one function that the webhook's check, the API's and the signatures of sessions all end in.
    monkeypatch.setattr(hmac, "compare_digest", compare)
    doors: list[Callable[[], Any]] = [
        lambda: web.deliver(submission("spam"), token="wrong"),
        lambda: web.deliver(submission("spam"), token=None),
        lambda: web.deliver(submission("spam"), project=999, token="wrong"),
        lambda: web.client.get("/api/v1/status", headers={"Authorization": "Bearer wrong"}),
        lambda: web.client.post("/sign-in", data={"token": "wrong"}),
        lambda: web.app.test_client(use_cookies=False).get("/", headers={"Cookie": "labelguard_session=a.bbbb"}),
        lambda: web.client.get("/page/v1/prompts", headers={"X-Labelguard-Session": "a.bbbb"}),
    ]
    for door in doors:
        before = len(compared)
        assert door().status_code in (200, 401, 403)
        assert len(compared) > before
    # Hashes of equal length at the webhook, whatever was sent and whatever is known.
    assert set(compared[:3]) == {(64, 64)}


def test_a_token_opens_its_own_door_only(web: Service) -> None:
    """The webhook's token is no API token, the API's none of a webhook or the page, and so on."""
    connect_token, api = TOKEN, API_TOKEN
    assert web.client.get("/api/v1/status", headers={"Authorization": f"Bearer {connect_token}"}).status_code == 401
    assert web.client.post("/sign-in", data={"token": connect_token}).status_code == 403
    assert web.deliver(submission("spam"), token=api).status_code == 401
    assert web.client.get("/page/v1/prompts", headers={"X-Labelguard-Session": api}).status_code == 401
    web.sign_in()
    assert web.client.get("/api/v1/status").status_code == 401, "the status page's cookie is none of the API"
    cookie = web.client.get_cookie("labelguard_session")
    assert cookie is not None
    assert web.client.get("/page/v1/prompts", headers={"X-Labelguard-Session": cookie.value}).status_code == 401


def test_another_projects_token_does_not_deliver(web: Service) -> None:
    """Nor does anything for a project that is not connected; both get the same answer."""
    wrong = web.deliver(submission("spam"), token="wrong")
    unknown = web.deliver(submission("spam", project=77), project=77, token=TOKEN)
    assert (wrong.status_code, wrong.data) == (unknown.status_code, unknown.data)


def test_tokens_have_256_random_bits() -> None:
    """Long enough that a plain hash of one cannot be turned back."""
    made = {tokens.new_token() for _ in range(100)}
    assert len(made) == 100
    assert min(len(token) for token in made) >= 43
    assert not hmac.compare_digest(hash_token("a"), hash_token("b"))


def test_an_error_inside_tells_nobody_outside(web: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer is a sentence; the log has the traceback, without the secret in it."""
    log = io.StringIO()
    configure("DEBUG", json=True, stream=log)

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError(f"cannot reach postgresql://user:{MARK}@db with Authorization: Bearer {MARK}{'a' * 20}")

    monkeypatch.setattr(web.engine, "take_in", broken)
    answer = web.deliver(submission("spam"))
    assert answer.status_code == 500
    assert answer.json == {"error": "Something went wrong inside labelguard. Its log has the details."}
    assert "RuntimeError" in log.getvalue()
    assert MARK not in log.getvalue()


def test_settings_that_are_shown_hide_every_secret() -> None:
    """``labelguard config`` and every ``repr``."""
    settings = Settings(
        database_url=f"postgresql://user:{MARK}@db/labelguard?password={MARK}",
        studio_api_key=SecretStr(MARK),
        api_token=SecretStr(MARK),
        secret_key=SecretStr(MARK),
        notify={"lead": SecretStr(f"json://{MARK}@chat.example")},
    )
    assert MARK not in str(shown(settings))
    assert MARK not in repr(settings).replace(settings.database_url, "")


def test_libraries_that_log_addresses_are_kept_quiet() -> None:
    """Also at DEBUG: they write out whole requests."""
    configure("DEBUG", json=True, stream=io.StringIO())
    for name in ("urllib3", "httpx", "httpcore", "apprise"):
        assert not logging.getLogger(name).isEnabledFor(logging.INFO)
