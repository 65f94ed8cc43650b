"""The API for programs: who may, what is listed, what is decided, and how mistakes are told."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings, strategies as st
from pydantic import SecretStr

from labelguard.store import records, schema
from webservice import API_TOKEN, NOW, POLICY, PROJECT, Service, connect, service, submission


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Service]:
    """A running service with five findings, two of them about annotator 102."""
    with service(tmp_path) as running:
        for number in range(5):
            running.deliver(
                submission("spam", "important", annotation=11 + number, task=7 + number, user=101 + number % 3)
            )
        yield running


def propose(web: Service, finding: int = 1, kind: str = "pause") -> int:
    """Plan an action that a person must approve."""

    def job(conn: sa.Connection) -> int:
        values = {
            "key": f"test-{finding}-{kind}",
            "project": PROJECT,
            "finding": finding,
            "kind": kind,
            "task": 7,
            "annotation": 11,
            "annotator": 101,
            "target": {},
            "state": "proposed",
            "created_at": NOW,
            "updated_at": NOW,
        }
        insert = sa.insert(schema.actions).values(values).returning(schema.actions.c.id)
        return int(conn.execute(insert).scalar_one())

    return web.store.write(job)


def ids(answer: Any, name: str) -> list[int]:
    """The ids on a page of a listing."""
    return [row["id"] for row in answer.json[name]]


@pytest.mark.parametrize(
    "header", [None, "Bearer", "Bearer ", "Bearer wrong", f"Token {API_TOKEN}", API_TOKEN, "Bearer ü"]
)
def test_without_the_token_nothing_is_told(web: Service, header: str | None) -> None:
    """A wrong or missing token is a 401 that says how to send it."""
    answer = web.client.get("/api/v1/findings", headers={"Authorization": header} if header else {})

    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert answer.json == {
        "error": "The Authorization header does not have the API token: send `Authorization: Bearer <token>` "
        "with the value of LABELGUARD_API_TOKEN."
    }


def test_without_a_configured_token_the_api_is_closed(tmp_path: Path) -> None:
    """An empty token opens nothing, and the answer says how to open it."""
    with service(tmp_path, api_token=SecretStr("")) as web:
        for header in ("Bearer ", "Bearer x", ""):
            answer = web.client.get("/api/v1/findings", headers={"Authorization": header})

            assert answer.status_code == 403
            assert answer.json == {
                "error": "The API is closed: set LABELGUARD_API_TOKEN to a long random value to open it."
            }


def test_findings_carry_what_was_seen(web: Service) -> None:
    """A finding is listed with rule, subject, message, evidence and times in ISO form."""
    finding = web.api("GET", "/findings").json["findings"][0]

    assert finding["rule"] == "label-constraints"
    assert (finding["project"], finding["task"], finding["annotation"], finding["annotator"]) == (3, 7, 11, 101)
    assert finding["message"] == "The labels spam and important exclude each other (control topics)."
    assert finding["evidence"]["labels"] == ["spam", "important"]
    assert finding["policy_version"] == 1
    assert finding["state"] == "open"
    assert finding["created_at"] == "2026-11-23T12:00:00+00:00"


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", [1, 2, 3, 4, 5]),
        ("?project=3", [1, 2, 3, 4, 5]),
        ("?project=4", []),
        ("?annotator=102", [2, 5]),
        ("?annotator=102&after=2", [5]),
        ("?annotation=13", [3]),
        ("?rule=label-constraints&state=open&limit=2", [1, 2]),
        ("?rule=gold-check", []),
        ("?state=disputed", []),
        ("?after=9223372036854775807", []),
    ],
)
def test_findings_are_filtered(web: Service, query: str, expected: list[int]) -> None:
    """Filters narrow together."""
    assert ids(web.api("GET", f"/findings{query}"), "findings") == expected


def test_pages_follow_each_other_without_gaps_or_repeats(web: Service) -> None:
    """``next`` is the ``after`` of the following page, and null on the last, also while more arrive."""
    first = web.api("GET", "/findings?limit=2")
    web.deliver(submission("spam", "important", annotation=50, task=50))
    second = web.api("GET", f"/findings?limit=2&after={first.json['next']}")
    third = web.api("GET", f"/findings?limit=2&after={second.json['next']}")

    assert [ids(page, "findings") for page in (first, second, third)] == [[1, 2], [3, 4], [5, 6]]
    assert third.json["next"] is None


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        (
            "?projct=3",
            "There is no filter 'projct' here; there is project, rule, annotator, annotation, state, after, limit.",
        ),
        ("?project=three", "'project' must be a whole number from 0 to 9223372036854775807."),
        ("?annotator=-1", "'annotator' must be a whole number from 0 to 9223372036854775807."),
        ("?after=9223372036854775808", "'after' must be a whole number from 0 to 9223372036854775807."),
        ("?after=" + "9" * 5000, "'after' must be a whole number from 0 to 9223372036854775807."),
        ("?limit=0", "'limit' must be from 1 to 1000."),
        ("?limit=1001", "'limit' must be from 1 to 1000."),
        ("?state=closed", "'state' must be one of open, acknowledged, disputed, upheld, dismissed."),
    ],
)
def test_a_wrong_filter_is_told_not_ignored(web: Service, query: str, sentence: str) -> None:
    """A misspelt filter must not look like an answer about everything."""
    answer = web.api("GET", f"/findings{query}")

    assert answer.status_code == 400
    assert answer.json == {"error": sentence}


def test_actions_are_listed_with_the_finding_behind_them(web: Service) -> None:
    """An action names its rule and repeats what was seen, so that it can be decided on."""
    number = propose(web, finding=2)
    answer = web.api("GET", "/actions?state=proposed&rule=label-constraints")

    assert ids(answer, "actions") == [number]
    (action,) = answer.json["actions"]
    assert (action["kind"], action["rule"], action["finding"]) == ("pause", "label-constraints", 2)
    assert action["message"].startswith("The labels spam and important")
    assert ids(web.api("GET", "/actions?rule=gold-check"), "actions") == []
    assert ids(web.api("GET", "/actions?kind=prompt&finding=2"), "actions") == [2]


@pytest.mark.parametrize(("step", "state"), [("approve", "approved"), ("reject", "rejected")])
def test_a_proposed_action_is_decided(web: Service, step: str, state: str) -> None:
    """Approving and rejecting answer with the action as it is then, and who decided is kept."""
    number = propose(web)
    answer = web.api("POST", f"/actions/{number}/{step}")

    assert answer.status_code == 200
    assert (answer.json["id"], answer.json["state"], answer.json["decided_by"]) == (number, state, "api")


def test_a_step_that_cannot_be_taken_is_refused_with_the_reason(web: Service) -> None:
    """What was rejected stays rejected."""
    number = propose(web)
    web.api("POST", f"/actions/{number}/reject")
    answer = web.api("POST", f"/actions/{number}/approve")

    assert answer.status_code == 409
    assert answer.json["error"].endswith(".")
    assert web.api("GET", f"/actions/{number}").json["state"] == "rejected"


@pytest.mark.parametrize(
    ("method", "path", "sentence"),
    [
        ("GET", "/findings/99", "There is no finding 99."),
        ("POST", "/findings/99/uphold", "There is no finding 99."),
        ("GET", "/actions/99", "There is no action 99."),
        ("POST", "/actions/99/approve", "There is no action 99."),
        ("POST", f"/actions/{10**30}/undo", f"There is no action {10**30}."),
        ("GET", "/policies/99", "Project 99 has no policy."),
        ("GET", "/policies/3?version=2", "Project 3 has no policy with version 2."),
        ("PUT", "/policies/99", "There is no project 99."),
        ("GET", "/nothing", "There is nothing at this address."),
        ("POST", "/actions/1/explode", "There is nothing at this address."),
    ],
)
def test_what_is_not_there_is_told(web: Service, method: str, path: str, sentence: str) -> None:
    """A missing thing is a 404 that names it."""
    answer = web.api(method, path)

    assert answer.status_code == 404
    assert answer.json == {"error": sentence}


def test_a_dispute_is_decided_with_a_reason(web: Service) -> None:
    """The decision keeps the annotator's own words beside those of who decided."""
    web.store.write(
        lambda conn: records.set_finding_state(conn, 1, "disputed", by="annotator 101", note="It is both.", now=NOW)
    )
    answer = web.api("POST", "/findings/1/dismiss", json={"note": "Indeed."})

    assert answer.status_code == 200
    assert answer.json["state"] == "dismissed"
    assert answer.json["state_by"] == "api"
    assert answer.json["note"] == "It is both.\napi: Indeed."


@pytest.mark.parametrize("body", [b"[]", b'{"note": 7}', b"{", b"\xff"])
def test_a_reason_of_another_shape_is_told(web: Service, body: bytes) -> None:
    """The body of a decision is empty or a note."""
    answer = web.api("POST", "/findings/1/uphold", data=body)

    assert answer.status_code == 400
    assert answer.json == {"error": 'The body must be empty or JSON like {"note": "why"}.'}


def test_a_policy_is_applied_and_read_back(web: Service) -> None:
    """Applying a changed text makes a version; applying it again makes none."""
    text = POLICY.replace("enforce", "observe")
    first = web.api("PUT", "/policies/3", data=text)
    again = web.api("PUT", "/policies/3", data=text)

    assert first.status_code == again.status_code == 200
    assert first.json == again.json == {"project": 3, "version": 2}
    assert web.api("GET", "/policies/3").json["text"] == text
    assert web.api("GET", "/policies/3?version=1").json["text"] == POLICY
    assert [row["version"] for row in web.api("GET", "/policies").json["policies"]] == [2]


def test_every_mistake_in_a_policy_is_told_and_nothing_changes(web: Service) -> None:
    """The answer lists all mistakes, each with its line."""
    text = POLICY.replace("label-constraints", "label-constraint").replace("enforce", "enforced")
    answer = web.api("PUT", "/policies/3", data=text)

    assert answer.status_code == 400
    assert answer.json["error"] == "The policy has 2 mistakes; nothing was changed."
    problems = answer.json["problems"]
    assert any("label-constraints" in problem["message"] for problem in problems)
    assert all(problem["where"].startswith("policy, line ") for problem in problems)
    assert web.api("GET", "/policies/3").json["version"] == 1


@pytest.mark.parametrize(
    ("body", "part"),
    [
        (
            POLICY.replace("project: 3", "project: 4"),
            "The policy is for project 4, but was sent to project 3's address.",
        ),
        (b"\xff", "The policy must be YAML in UTF-8, but byte 0 is not UTF-8."),
        ("a: [", "The policy has one mistake"),
        ("", "The policy has one mistake"),
    ],
)
def test_a_policy_that_cannot_be_meant_is_refused(web: Service, body: Any, part: str) -> None:
    """Wrong project, bytes or YAML change nothing."""
    answer = web.api("PUT", "/policies/3", data=body)

    assert answer.status_code == 400
    assert part in answer.json["error"]
    assert web.api("GET", "/policies/3").json["version"] == 1


def test_the_status_tells_what_the_page_shows(web: Service) -> None:
    """Numbers and what needs a person, for all projects or one."""
    connect(web.store, 4, "other", "Other")
    propose(web)
    status = web.api("GET", "/status").json

    assert status["deliveries"]["last_hour"] == 5
    assert status["deliveries"]["pending"] == 0
    assert status["actions_enabled"] is True
    assert [row["rule"] for row in status["findings"]["by_rule"]] == ["label-constraints"]
    assert [row["kind"] for row in status["needs_a_person"]["proposed"]] == ["pause"]
    assert [row["title"] for row in status["projects"]] == ["Mail", "Other"]
    assert web.api("GET", "/status?project=4").json["deliveries"]["last_hour"] == 0


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.sampled_from(["/findings", "/actions", "/policies", "/status", "/findings/1/uphold", "/policies/3"]),
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE"]),
    query=st.dictionaries(
        st.sampled_from(["project", "rule", "annotator", "state", "after", "limit", "kind", "x"]), st.text(max_size=25)
    ),
    body=st.binary(max_size=60),
)
def test_any_request_gets_a_clear_answer(
    web: Service, path: str, method: str, query: dict[str, str], body: bytes
) -> None:
    """Whatever a program sends is answered in JSON, and never with a failure of ours."""
    answer = web.api(method, path, query_string=query, data=body)

    assert answer.status_code < 500
    assert answer.is_json
    assert answer.status_code < 400 or "error" in answer.json


def test_every_address_and_number_is_documented(web: Service) -> None:
    """``docs/api.md`` names every address of the API, and every metric."""
    text = (Path(__file__).parents[2] / "docs" / "api.md").read_text("utf-8")
    addresses = {str(rule) for rule in web.app.url_map.iter_rules() if rule.endpoint.startswith(("api.", "health."))}
    metrics = set(re.findall(r"^# TYPE (\w+)", web.client.get("/metrics").get_data(as_text=True), re.MULTILINE))

    assert len(addresses) > 8
    for address in addresses:
        shown = re.sub(r"<any\((\w+), .*", r"\1", re.sub(r"<int:(finding|action)>", "<id>", address))
        assert re.sub(r"<int:(\w+)>", r"<\1>", shown) in text, address
    for metric in metrics:
        # Those of the process itself are named together.
        shown = re.sub(r"^(process|python)_.*", r"\1_*", metric.removesuffix("_created"))
        assert shown in text, metric
