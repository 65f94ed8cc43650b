"""Threat: something that somebody wrote runs as a script in an admin's or an annotator's browser.

labelguard's pages show texts of annotators, and its page script runs on Label Studio's own address. So no
answer may allow a script, a frame or anything from elsewhere, no page may hold inline code, and what is told
stays in no cache.
"""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from werkzeug.routing import Rule

import labelguard_templates
from labelguard.store import records
from webservice import API_TOKEN, PROJECT, Service, submission

# What is reviewed here lies above the store; the fuzzers run on both.
pytestmark = pytest.mark.store("sqlite")

SCRIPT = (labelguard_templates.path() / "page" / "page.js").read_text("utf-8")
PAGES = sorted((labelguard_templates.path() / "status").glob("*.html"))


def addresses(web: Service) -> list[tuple[str, str]]:
    """Every address the service answers, with every method it takes, and some that it does not."""
    rules = list(web.app.url_map.iter_rules())
    found = [(method, _filled(rule)) for rule in rules for method in sorted((rule.methods or set()) | {"PUT"})]
    return [*found, ("GET", "/nowhere"), ("POST", "/"), ("GET", "/webhook/1"), ("GET", "/static/x"), ("TRACE", "/")]


def _filled(rule: Rule) -> str:
    path = re.sub(r"<int:\w+>", "1", rule.rule)
    path = re.sub(r"<any\((\w+)[^)]*\):\w+>", r"\1", path)
    return re.sub(r"<\w+>", "x", path)


def test_every_answer_forbids_scripts_frames_and_everything_from_elsewhere(web: Service) -> None:
    """Whatever the address, the method, the status and who asks."""
    web.deliver(submission("spam", "important"))
    web.sign_in()
    asked = 0
    for accept in ("text/html", "application/json"):
        for headers in ({}, {"Authorization": f"Bearer {API_TOKEN}"}):
            for method, path in addresses(web):
                answer = web.client.open(path, method=method, headers={"Accept": accept, **headers})
                policy = directives(answer.headers["Content-Security-Policy"])
                where = f"{method} {path} ({answer.status_code})"
                assert policy["default-src"] == "'none'", where
                assert policy["frame-ancestors"] == "'none'", where
                assert policy["base-uri"] == "'none'", where
                assert not {"script-src", "connect-src", "object-src", "frame-src"} & set(policy), where
                assert "unsafe" not in str(policy), where
                assert not [
                    source for source in " ".join(policy.values()).split() if source not in ("'none'", "'self'")
                ]
                assert answer.headers["X-Content-Type-Options"] == "nosniff", where
                assert answer.headers["Referrer-Policy"] == "no-referrer", where
                assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin", where
                assert "Server" not in answer.headers, where
                assert "Access-Control-Allow-Origin" not in answer.headers, where
                answer.close()
                asked += 1
    assert asked > 100


def directives(policy: str) -> dict[str, str]:
    """A Content-Security-Policy by directive."""
    parts = (part.strip().partition(" ") for part in policy.split(";"))
    return {name: value for name, _, value in parts}


@pytest.mark.parametrize("path", ["/", "/api/v1/findings", "/api/v1/status", "/api/v1/policies", "/page/v1/prompts"])
def test_what_is_told_stays_in_no_cache(web: Service, path: str) -> None:
    """Shared computers and proxies keep nothing of what is about people."""
    web.sign_in()
    answer = web.client.get(path, headers={"Authorization": f"Bearer {API_TOKEN}"})
    assert answer.headers["Cache-Control"] == "no-store"


def test_tls_is_remembered_only_where_there_is_tls(web: Service) -> None:
    """Said over plain HTTP the header would be ignored; on Label Studio's address it would bind Label Studio."""
    assert "Strict-Transport-Security" not in web.client.get("/").headers
    assert "max-age" in web.client.get("/", base_url="https://guard.example").headers["Strict-Transport-Security"]
    page = web.client.get("/page.js", base_url="https://studio.example")
    assert "Strict-Transport-Security" not in page.headers


class _Inline(HTMLParser):
    """Collects what a strict policy would refuse."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """One tag."""
        if tag in {"script", "style", "iframe", "object", "embed", "base", "meta"} and tag != "meta":
            self.found.append(f"<{tag}>")
        for name, value in attrs:
            text = (value or "").strip().lower()
            if name.startswith("on") or name in {"style", "srcdoc"}:
                self.found.append(f"{tag} {name}")
            if name in {"href", "src", "action", "formaction"} and not re.match(
                r"(/(?!/)|#|https?://studio\.example/)", text
            ):
                self.found.append(f"{tag} {name}={text}")

    handle_startendtag = handle_starttag


def test_no_page_holds_inline_code_whatever_it_shows(web: Service) -> None:
    """Names, titles, notes and addresses that try to be code are only text; also on the pages of errors."""
    evil = '"><script>alert(1)</script><img src=x onerror=alert(2)> javascript:alert(3) {{ 7*7 }}'
    body = submission("spam", "important")
    body["project"]["title"] = evil
    web.deliver(body)
    web.deliver(b'{"action": "' + evil.encode().replace(b'"', b'\\"') + b'"}')
    web.deliver(f'{{"action": "ANNOTATION_CREATED", "annotation": "{evil[2:40]}"}}')
    web.store.write(lambda conn: records.set_finding_state(conn, 1, "disputed", by="a", note=evil, now=web.clock()))
    pages = [web.sign_in(evil), web.page("/?project=3"), web.page("/?done=approved")]
    for path in ("/nowhere", "/findings/999/uphold"):
        answer = web.client.open(path, method="POST", data={"csrf": "x"}, headers={"Accept": "text/html"})
        pages.append(answer.get_data(as_text=True))
    web.submit("/sign-out")
    pages.append(web.page())
    assert any("alert(1)" in page for page in pages), "what was planted is shown somewhere"
    for page in pages:
        parser = _Inline()
        parser.feed(page)
        assert parser.found == []
        assert "49" not in re.findall(r"\{\{ 7\*7 \}\}|49", page)


@pytest.mark.parametrize("template", PAGES, ids=lambda path: path.name)
def test_no_template_turns_escaping_off(template: Path) -> None:
    """``|safe`` is how markup gets in."""
    text = template.read_text("utf-8")
    assert not re.search(r"\|\s*safe|autoescape|<script|<style|\son\w+=|\sstyle=", text)


@pytest.mark.parametrize(
    "danger",
    [
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|srcdoc|createContextualFragment|DOMParser",
        r"\beval\b|\bFunction\s*\(|setTimeout\(\s*[\"'`]|setInterval\(\s*[\"'`]|javascript:",
        r"\.style\b|setAttribute\(\s*[\"']style|createElement\(\s*[\"'](?:script|style|iframe|link)",
        r"localStorage|sessionStorage|indexedDB|document\.cookie",
        r"https?://|//[a-z]+\.[a-z]|import\s*\(|importScripts|new Worker|WebSocket|XMLHttpRequest|sendBeacon",
        r"postMessage|addEventListener\(\s*[\"']message",
    ],
)
def test_the_page_script_needs_no_exception_from_any_policy(danger: str) -> None:
    """It makes text nodes, keeps nothing, evaluates nothing, and talks to its own address alone."""
    code = re.sub(r"^\s*//.*$", "", SCRIPT, flags=re.MULTILINE)
    assert re.findall(danger, code) == []


def test_attributes_of_the_page_script_are_named_in_the_script(tmp_path: Path) -> None:
    """No data decides an attribute's name: ``element`` is given literal ones, and handlers are functions."""
    calls = re.findall(r"element\(\s*\"\w+\",\s*(\{[^}]*\})", SCRIPT)
    assert len(calls) > 10
    names = {name for call in calls for name in re.findall(r"[{,]\s*\"?([\w-]+)\"?\s*[:,}]", call)}
    assert not {name for name in names if name.startswith("on") or name in {"style", "href", "src", "action"}}


def test_prompts_for_annotators_are_told_as_json_never_as_a_page(web: Service) -> None:
    """Typed into the address bar, no address of the page interface shows a document."""
    for method, path in addresses(web):
        # The answer to OPTIONS names the methods and has no body.
        if path.startswith("/page/") and method != "OPTIONS":
            answer: Any = web.client.open(path, method=method, headers={"Accept": "text/html"})
            assert answer.content_type.startswith("application/json"), (method, path, PROJECT)
            assert "sandbox" in answer.headers["Content-Security-Policy"]
