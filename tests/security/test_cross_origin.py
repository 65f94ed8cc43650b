"""Threat: a page of another site makes an admin's or annotator's browser act for it, or frames our pages.

Every request that changes something is refused when the browser says that it comes from elsewhere, needs the
session's own form token besides, and nothing is answered to other origins. Addresses that are told come from no
header that a client may choose.
"""

from __future__ import annotations

import re
from typing import Any

import pytest

from webservice import API_TOKEN, Service, submission

# What is reviewed here lies above the store; the fuzzers run on both.
pytestmark = pytest.mark.store("sqlite")

ELSEWHERE: list[dict[str, str]] = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://["},
    {"Origin": "http://localhost.evil.example"},
    {"Origin": "http://localhost:8091"},
    {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"},
]


def posts(web: Service) -> list[str]:
    """Every address of the status page that takes a form."""
    found = []
    for rule in web.app.url_map.iter_rules():
        if "POST" in (rule.methods or set()) and rule.endpoint.startswith("status."):
            path = re.sub(r"<any\((\w+)[^)]*\):\w+>", r"\1", rule.rule)
            found.append(re.sub(r"<int:\w+>", "1", path))
    return sorted(found)


@pytest.mark.parametrize("headers", ELSEWHERE, ids=str)
def test_no_form_of_another_site_is_taken(web: Service, headers: dict[str, str]) -> None:
    """With the right cookie and the right form token, which a leak might have given away."""
    web.deliver(submission("spam", "important"))
    csrf = re.findall(r'name="csrf" value="([^"]+)"', web.sign_in())[0]
    assert len(posts(web)) >= 5
    for path in posts(web):
        answer = web.client.post(path, data={"csrf": csrf, "token": API_TOKEN}, headers=headers)
        assert answer.status_code == 403, path
        assert "another site" in answer.get_data(as_text=True)


@pytest.mark.parametrize("headers", [{}, {"Sec-Fetch-Site": "same-origin"}, {"Origin": "http://localhost"}], ids=str)
def test_the_pages_own_forms_are_taken(web: Service, headers: dict[str, str]) -> None:
    """As browsers send them, old ones too."""
    csrf = re.findall(r'name="csrf" value="([^"]+)"', web.sign_in())[0]
    assert web.client.post("/switch/stop", data={"csrf": csrf}, headers=headers).status_code == 303


@pytest.mark.parametrize("csrf", ["", "x", "@other@"])
def test_no_form_is_taken_without_its_own_sessions_token(web: Service, csrf: str) -> None:
    """Nor with one of another session."""
    other = re.findall(r'name="csrf" value="([^"]+)"', web.sign_in())[0]
    web.sign_in()
    given = other if csrf == "@other@" else csrf
    for path in posts(web):
        if path != "/sign-in":
            assert web.client.post(path, data={"csrf": given}).status_code in (303, 403), path
    assert "Actions are running" in web.page() or "API token" in web.page()


@pytest.mark.parametrize("headers", ELSEWHERE, ids=str)
def test_the_api_takes_nothing_from_pages_of_other_sites(web: Service, headers: dict[str, str]) -> None:
    """A page that got hold of the token still is a page."""
    answer = web.api("GET", "/status")
    assert answer.status_code == 200
    given = {"Authorization": f"Bearer {API_TOKEN}", **headers}
    for method, path in (("GET", "status"), ("PUT", "policies/3"), ("POST", "findings/1/uphold")):
        assert web.client.open(f"/api/v1/{path}", method=method, headers=given).status_code == 403


def test_nothing_is_shared_with_other_origins(web: Service) -> None:
    """No answer has a header of CORS, also when asked beforehand."""
    asked = {"Origin": "https://evil.example", "Access-Control-Request-Method": "PUT"}
    for rule in web.app.url_map.iter_rules():
        path = re.sub(r"<any\((\w+)[^)]*\):\w+>", r"\1", re.sub(r"<int:\w+>", "1", rule.rule))
        for method in ("OPTIONS", "GET", "POST"):
            answer = web.client.open(path.replace("<prompt>", "x"), method=method, headers=asked)
            answer.close()
            assert not [name for name, _ in answer.headers if name.lower().startswith("access-control")]


@pytest.mark.parametrize("host", ["evil.example", "evil.example:1@localhost", "localhost/../evil", "a\tb", "[::1", ""])
def test_the_host_header_is_in_no_address(web: Service, host: str) -> None:
    """Redirects and links are paths: a forged host sends nobody anywhere."""
    answers = [
        web.client.post("/sign-in", data={"token": API_TOKEN}, headers={"Host": host}),
        web.client.get("/", headers={"Host": host, "X-Forwarded-Host": "evil.example", "Accept": "text/html"}),
        web.client.get("/nowhere", headers={"Host": host, "Accept": "text/html"}),
    ]
    for answer in answers:
        assert answer.status_code < 500
        assert "evil" not in answer.headers.get("Location", "")
        assert "evil" not in answer.get_data(as_text=True)


@pytest.mark.parametrize(
    "where", ["//evil.example", "https://evil.example", "/\\evil.example", "1&done=//evil.example"]
)
def test_nobody_is_sent_elsewhere_after_a_step(web: Service, where: str) -> None:
    """There is no parameter that says where to go; what looks like one is no project's number."""
    web.sign_in()
    for name in ("next", "project", "done", "url", "return_to"):
        answer: Any = web.submit(f"/switch/stop?{name}={where}")
        location = answer.headers["Location"]
        assert location.startswith("/?")
        assert "evil" not in location


def test_a_page_session_needs_label_studios_own_page(web: Service) -> None:
    """Another site's page would otherwise learn who is signed in."""
    for headers in ELSEWHERE[:5]:
        answer = web.client.post("/page/v1/session", json={"project": 3}, headers={"Cookie": "sessionid=x", **headers})
        assert answer.status_code == 403
