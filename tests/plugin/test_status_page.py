"""The page people look at: who gets in, what it shows as text, and what can be decided on it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from labelguard.connectors import User
from labelguard.store import records, schema
from webservice import API_TOKEN, NOW, PROJECT, Service, connect, service, submission

MARKUP = "<script>alert(1)</script><img src=x onerror=alert(2)>"


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Service]:
    """A running service with one finding about Ada."""
    with service(tmp_path) as running:
        running.store.write(lambda conn: records.save_annotators(conn, [User(101, "ada@example.com", "Ada Lovelace")]))
        running.deliver(submission("spam", "important"))
        yield running


def add_finding(web: Service, **values: Any) -> int:
    """Keep a finding as a rule would have."""
    row = {
        "project": PROJECT,
        "rule": "gold-check",
        "policy_version": 1,
        "task": 7,
        "annotation": 11,
        "annotator": 101,
        "labels": [],
        "severity": "warning",
        "mode": "recommend",
        "message": "The annotator answered 9 of 20 known tasks as the reference.",
        "evidence": {},
        "feedback": {},
        "at": NOW,
        "created_at": NOW,
        **values,
    }
    insert = sa.insert(schema.findings).values(row).returning(schema.findings.c.id)
    return web.store.write(lambda conn: int(conn.execute(insert).scalar_one()))


def add_action(web: Service, finding: int, **values: Any) -> int:
    """Plan an action as the engine would have."""
    row = {
        "key": f"test-{finding}",
        "project": PROJECT,
        "finding": finding,
        "kind": "pause",
        "task": 7,
        "annotation": 11,
        "annotator": 101,
        "target": {},
        "state": "proposed",
        "created_at": NOW,
        "updated_at": NOW,
        **values,
    }
    insert = sa.insert(schema.actions).values(row).returning(schema.actions.c.id)
    return web.store.write(lambda conn: int(conn.execute(insert).scalar_one()))


class Elements(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        """Note text."""
        self.text += f" {data.strip()}" if data.strip() else ""

    def tags(self) -> set[str]:
        """Which elements there are."""
        return {tag for tag, _ in self.found}


# Getting in


def test_nothing_is_shown_before_signing_in(web: Service) -> None:
    """The page of a stranger is the sign-in form."""
    html = web.page()

    assert "API token" in html
    assert "Ada" not in html
    assert "spam" not in html


def test_signing_in_with_the_api_token_shows_the_page(web: Service) -> None:
    """Deliveries, findings and names are there."""
    text = Elements(web.sign_in()).text

    assert "Deliveries, last hour 1" in text
    assert "Ada Lovelace" in text
    assert "The labels spam and important exclude each other (control topics)." in text


def test_the_session_cookie_is_out_of_reach(web: Service) -> None:
    """No script can read it, no other site can send it, and it ends by itself."""
    answer = web.client.post("/sign-in", data={"token": API_TOKEN})
    cookie = answer.headers["Set-Cookie"]

    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert "Max-Age=43200" in cookie
    assert API_TOKEN not in cookie


@pytest.mark.parametrize("token", ["", "wrong", API_TOKEN[:-1], "ü"])
def test_a_wrong_token_stays_outside(web: Service, token: str) -> None:
    """A wrong token gets the form again, with a sentence."""
    answer = web.client.post("/sign-in", data={"token": token})

    assert answer.status_code == 403
    assert "This is not the API token." in answer.get_data(as_text=True)
    assert "Set-Cookie" not in answer.headers


def test_guessing_is_slowed_down(web: Service) -> None:
    """After ten failures nobody gets in for a while, and then again."""
    for _ in range(10):
        assert web.client.post("/sign-in", data={"token": "wrong"}).status_code == 403
    blocked = web.client.post("/sign-in", data={"token": API_TOKEN})

    assert blocked.status_code == 429
    assert blocked.headers["Retry-After"] == "300"
    assert "Too many attempts failed. Try again in 300 seconds." in blocked.get_data(as_text=True)
    web.clock.move(minutes=5)
    assert web.client.post("/sign-in", data={"token": API_TOKEN}).status_code == 303


def test_a_session_ends_after_half_a_day(web: Service) -> None:
    """An old cookie opens nothing, also one that the browser kept."""
    web.sign_in()
    web.clock.move(hours=11)
    assert "Ada Lovelace" in web.page()
    web.clock.move(hours=2)

    assert "Ada Lovelace" not in web.page()


def test_signing_out_ends_the_session(web: Service) -> None:
    """The cookie is gone."""
    web.sign_in()
    web.submit("/sign-out")

    assert "Ada Lovelace" not in web.page()


def test_a_forged_cookie_opens_nothing(web: Service) -> None:
    """Only what we signed is a session."""
    web.client.set_cookie("labelguard_session", "eyJieSI6IkEifQ.forged")

    assert "Ada Lovelace" not in web.page()


def test_without_a_configured_token_the_page_is_closed(tmp_path: Path) -> None:
    """It says how to open it, and the empty token opens nothing."""
    with service(tmp_path, api_token=SecretStr("")) as web:
        assert "Set <code>LABELGUARD_API_TOKEN</code>" in web.page()
        assert web.client.post("/sign-in", data={"token": ""}).status_code == 403


# What it shows


def test_the_page_needs_no_script_and_nothing_from_elsewhere(web: Service) -> None:
    """No scripts, no inline styles, no address but our own and links to Label Studio."""
    page = Elements(web.sign_in())

    assert "script" not in page.tags()
    assert "style" not in page.tags()
    for tag, attributes in page.found:
        assert "style" not in attributes
        assert not any(name.startswith("on") for name in attributes)
        if tag in {"img", "link", "iframe"}:
            assert str(attributes.get("href") or attributes.get("src")).startswith("/")


def test_planted_markup_shows_as_text(web: Service) -> None:
    """Names, titles, messages, errors, disputes and refusals are text, whatever is in them."""
    web.store.write(lambda conn: records.save_annotators(conn, [User(101, "", f"Ada {MARKUP}")]))
    connect(web.store, 4, "other", f"Other {MARKUP}")
    finding = add_finding(web, message=f"Saw {MARKUP}", state="disputed", note=f"No {MARKUP}", rule=f"r{MARKUP}")
    add_action(web, finding, kind=f"k{MARKUP}", decided_by=MARKUP)
    add_action(web, finding, key="failed", state="failed", error=f"Error {MARKUP}")
    web.engine.reject(4, f"Because {MARKUP}", 3)
    run = web.store.write(lambda conn: records.start_job(conn, MARKUP, None, NOW))
    web.store.write(lambda conn: records.finish_job(conn, run, NOW, error=MARKUP))
    web.store.write(lambda conn: records.set_actions_enabled(conn, False, by=MARKUP, now=NOW))
    page = Elements(web.sign_in(name=MARKUP))

    assert {"script", "img"}.isdisjoint(page.tags())
    assert page.text.count(MARKUP) >= 9


def test_an_email_or_number_stands_in_for_a_missing_name(web: Service) -> None:
    """Everybody can be told apart."""
    web.store.write(lambda conn: records.save_annotators(conn, [User(102, "grace@example.com")]))
    add_finding(web, annotator=102)
    add_finding(web, annotator=103)
    text = Elements(web.sign_in()).text

    assert "grace@example.com" in text
    assert "annotator 103" in text


def test_one_project_can_be_looked_at_alone(web: Service) -> None:
    """A project's page has its own findings only."""
    connect(web.store, 4, "other", "Other")
    add_finding(web, project=4, message="Only in the other project.")
    web.sign_in()

    assert "Only in the other project." not in web.page("/?project=3")
    assert "Only in the other project." in web.page("/?project=4")
    assert "Ada Lovelace" in web.page("/?project=not-a-number")


def test_an_empty_service_says_that_nothing_is_to_do(tmp_path: Path) -> None:
    """A fresh start is not an error."""
    with service(tmp_path) as web:
        text = Elements(web.sign_in()).text

    assert "Nothing right now." in text
    assert "No findings yet." in text


def test_a_webhook_that_needed_repair_is_told_for_a_day(web: Service) -> None:
    """Somebody switches the webhook off: the admin sees what was wrong and that it works again."""
    summary = {"problems": ["The webhook was switched off."], "repaired": True, "webhook": 7}

    def job(conn: sa.Connection) -> None:
        run = records.start_job(conn, "watchdog", 3, web.clock())
        records.finish_job(conn, run, web.clock(), summary=summary)

    web.store.write(job)
    web.sign_in()

    assert "The webhook was switched off." in Elements(web.page("/")).text


# What can be decided on it


def test_a_proposed_action_is_approved_by_name(web: Service) -> None:
    """The button approves, the page says so, and who did it is kept."""
    action = add_action(web, add_finding(web))
    web.sign_in(name="Ada")
    answer = web.submit(f"/actions/{action}/approve")

    assert answer.status_code == 303
    assert "Approved: it will be carried out now." in web.page(answer.headers["Location"])
    with web.store.read() as conn:
        decided = records.get_action(conn, action)
    assert decided is not None
    assert (decided["state"], decided["decided_by"]) == ("approved", "Ada")


def test_a_step_that_cannot_be_taken_is_explained(web: Service) -> None:
    """A second decision gets a page with the reason."""
    action = add_action(web, add_finding(web))
    web.sign_in()
    web.submit(f"/actions/{action}/reject")
    answer = web.submit(f"/actions/{action}/approve")

    assert answer.status_code == 409
    assert "Back to the status page" in answer.get_data(as_text=True)


@pytest.mark.parametrize(("step", "state"), [("uphold", "upheld"), ("dismiss", "dismissed")])
def test_a_dispute_is_decided(web: Service, step: str, state: str) -> None:
    """The annotator's words are shown, and kept beside the answer to them."""
    finding = add_finding(web, state="disputed", note="These really were spam.")
    assert "These really were spam." in web.sign_in(name="Ada")
    web.submit(f"/findings/{finding}/{step}", note="Looked at it.")

    with web.store.read() as conn:
        decided = records.get_finding(conn, finding)
    assert decided is not None
    assert (decided["state"], decided["state_by"]) == (state, "Ada")
    assert decided["note"] == "These really were spam.\nAda: Looked at it."


def test_the_kill_switch_stops_and_starts_all_actions(web: Service) -> None:
    """One button stops everything and says who pressed it."""
    web.sign_in(name="Ada")
    web.submit("/switch/stop")
    text = Elements(web.page()).text

    assert "All actions are stopped" in text
    assert "Changed by Ada" in text
    with web.store.read() as conn:
        assert not records.actions_enabled(conn)
    web.submit("/switch/start")
    with web.store.read() as conn:
        assert records.actions_enabled(conn)


@pytest.mark.parametrize("path", ["/actions/1/approve", "/actions/1/undo", "/findings/1/dismiss", "/switch/stop"])
def test_nothing_is_decided_without_a_session_or_from_another_site(web: Service, path: str) -> None:
    """A form needs the session and the session's own token; reading an address decides nothing."""
    assert web.client.post(path).status_code == 401
    web.sign_in()

    assert web.client.post(path).status_code == 403
    assert web.client.post(path, data={"csrf": "guessed"}).status_code == 403
    assert web.client.get(path).status_code == 405
    with web.store.read() as conn:
        assert records.actions_enabled(conn)
        finding = records.get_finding(conn, 1)
    assert finding is not None
    assert finding["state"] == "open"


def test_another_session_s_form_is_refused(web: Service) -> None:
    """Each session has a token of its own."""
    first = re.search(r'name="csrf" value="([^"]+)"', web.sign_in())
    web.sign_in()
    assert first is not None

    assert web.client.post("/switch/stop", data={"csrf": first.group(1)}).status_code == 403


@pytest.mark.parametrize("path", ["/actions/99/approve", "/findings/99/uphold", f"/actions/{10**30}/reject"])
def test_what_is_not_there_is_told(web: Service, path: str) -> None:
    """A decision about a missing thing is a page that says so."""
    web.sign_in()
    answer = web.submit(path)

    assert answer.status_code == 404
    assert "There is no" in answer.get_data(as_text=True)


def test_errors_are_pages_for_browsers_and_json_for_programs(web: Service) -> None:
    """An address that does not exist is told in the asker's own form."""
    browser = web.client.get("/nothing", headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    program = web.client.get("/nothing")

    assert browser.status_code == program.status_code == 404
    assert "There is nothing at this address." in browser.get_data(as_text=True)
    assert browser.content_type.startswith("text/html")
    assert program.json == {"error": "There is nothing at this address."}
