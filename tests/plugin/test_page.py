"""The page's interface: sessions, prompts and who gets them when, answers to them, checks before a save."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient
from pydantic import SecretStr
from werkzeug.test import TestResponse

import labelguard_templates
from databases import database_url
from labelguard.connectors import ConnectorError, NotFound, TaskRecord, User
from labelguard.engine import Engine
from labelguard.events import Annotation, Project, Task
from labelguard.settings import Settings
from labelguard.store import Store, records, schema
from labelguard.web.page import page_blueprint
from labelguard.web.protected import Protected

NOW = datetime(2026, 5, 4, 9, 0, tzinfo=UTC)
ANN, BEN = User(5, "ann@example.com", "Ann"), User(6, "ben@example.com", "Ben")
PROJECT = 3
LABEL_CONFIG = (
    '<View><Text name="text" value="$text"/><Choices name="topics" toName="text" choice="multiple">'
    '<Choice value="spam"/><Choice value="important"/></Choices></View>'
)
POLICY = """
project: 3
language: {language}
limits: {{prompts_per_hour: {per_hour}}}
rules:
  - rule: label-constraints
    control: topics
    options: {{exclusive: [[spam, important]]}}
    block: {block}
    mode: enforce
    actions: [prompt]
  - rule: gold-check
    mode: enforce
    actions: [prompt]
"""
SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}


@dataclass
class FakeStudio:
    """Label Studio's side of the wire: who a cookie belongs to, and what was saved there."""

    people: dict[str, User] = field(default_factory=lambda: {"sessionid=ann": ANN, "sessionid=ben": BEN})
    saved: dict[int, Annotation] = field(default_factory=dict)
    down: bool = False
    asked: int = 0

    def whoami(self, cookie: str) -> User | None:
        """The user of a cookie."""
        self.asked += 1
        if self.down:
            raise ConnectorError("Label Studio did not answer.")
        return self.people.get(cookie)

    def annotation(self, annotation: int) -> Annotation:
        """A saved annotation."""
        self.asked += 1
        if annotation not in self.saved:
            raise NotFound("There is no such annotation.")
        return self.saved[annotation]

    def task(self, task: int) -> TaskRecord:
        """The task with the saved annotations as Label Studio lists them."""
        raw = [
            {
                "id": a.id,
                "result": list(a.result),
                "completed_by": {"id": a.completed_by, "email": "someone@example.com"},
                "updated_by": a.updated_by,
                "created_at": stamp(a.created_at),
                "updated_at": stamp(a.updated_at),
                "was_cancelled": False,
                "ground_truth": False,
                "lead_time": 3.5,
            }
            for a in self.saved.values()
            if a.task == task
        ]
        data = {"id": task, "project": PROJECT, "data": {"text": "hello"}, "meta": {}, "annotations": raw}
        return TaskRecord(Task(task, PROJECT), tuple(self.saved.values()), data)

    def project(self, project: int) -> Project:
        """The project."""
        return Project(project, "Topics", LABEL_CONFIG)


def stamp(moment: datetime | None) -> str:
    """A time as Label Studio writes it."""
    return (moment or NOW).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class World:
    """A labelguard with a project, two annotators, and a clock that is set by hand."""

    def __init__(self, folder: Path) -> None:
        self.now = NOW
        self.store = Store.open(database_url(folder))
        self.engine = Engine(self.store, lambda: self.now)
        self.studio = FakeStudio()
        app = Flask("test")
        settings = Settings(secret_key=SecretStr("k" * 40))
        page = page_blueprint(
            self.store,
            self.engine,
            self.studio,  # type: ignore[arg-type]
            settings,
            lambda: self.now,
            patience=0.1,
        )
        app.register_blueprint(page)
        app.wsgi_app = Protected(app.wsgi_app)  # type: ignore[method-assign]
        self.app = app
        self.policy()

        def connect(conn: sa.Connection) -> None:
            records.save_project(conn, Project(PROJECT, "Topics", LABEL_CONFIG), NOW)
            records.set_connection(
                conn,
                PROJECT,
                connected_at=NOW - timedelta(days=1),
                webhook_id=1,
                webhook_url="http://labelguard.example/webhook/3",
                token_hash="0",
            )
            records.save_annotators(conn, [ANN, BEN])

        self.store.write(connect)

    def policy(self, language: str = "en", per_hour: int = 12, block: str = "false") -> None:
        """Apply a version of the policy."""
        text = POLICY.format(language=language, per_hour=per_hour, block=block)
        self.store.write(lambda conn: records.add_policy(conn, PROJECT, text, NOW))

    def annotation(self, annotation: int, at: datetime | None = None, by: User = ANN) -> None:
        """An annotation that labelguard has judged."""
        values = {
            "id": annotation,
            "created_at": at or self.now,
            "updated_at": at or self.now,
            "project": PROJECT,
            "task": annotation + 100,
            "completed_by": by.id,
            "updated_by": by.id,
            "content_hash": "0",
            "result": [],
        }
        self.store.write(lambda conn: conn.execute(sa.insert(schema.annotations).values(values)) and None)

    def finding(
        self,
        annotation: int,
        kinds: tuple[str, ...] = ("prompt",),
        rule: str = "label-constraints",
        state: str = "approved",
        who: User = ANN,
        at: datetime | None = None,
        verified: bool = True,
    ) -> int:
        """A finding about an annotation with actions in a state; returns its id."""

        def job(conn: sa.Connection) -> int:
            found = conn.execute(
                sa.insert(schema.findings).values(
                    project=PROJECT,
                    rule=rule,
                    policy_version=1,
                    task=annotation + 100,
                    annotation=annotation,
                    annotator=who.id,
                    labels=[],
                    severity="warning",
                    mode="enforce",
                    message="Never shown to an annotator.",
                    evidence={},
                    feedback={},
                    at=at or self.now,
                    created_at=self.now,
                    state="open",
                    note="",
                )
            )
            key = found.inserted_primary_key
            assert key is not None
            for kind in kinds:
                conn.execute(
                    sa.insert(schema.actions).values(
                        key=f"{key[0]}:{kind}",
                        project=PROJECT,
                        finding=key[0],
                        kind=kind,
                        task=annotation + 100,
                        annotation=annotation,
                        annotator=who.id,
                        target={"verified": verified},
                        state=state,
                        created_at=self.now,
                        updated_at=self.now,
                    )
                )
            return int(key[0])

        return self.store.write(job)

    def verify(self, finding: int) -> None:
        """What the outbox does once Label Studio has confirmed the annotation."""

        def job(conn: sa.Connection) -> None:
            for action in records.list_actions(conn, finding=finding, kind="rework"):
                records.update_action(conn, action["id"], self.now, target={"verified": True})

        self.store.write(job)

    def states(self, finding: int) -> tuple[str, dict[str, str]]:
        """A finding's state and its actions' states by kind."""
        with self.store.read() as conn:
            row = records.get_finding(conn, finding)
            assert row is not None
            return row["state"], {a["kind"]: a["state"] for a in records.list_actions(conn, finding=finding)}

    def open(self, who: str = "ann") -> Browser:
        """An annotator's page with a session."""
        client = self.app.test_client(use_cookies=False)
        answer = client.post(
            "/page/v1/session",
            json={"project": PROJECT},
            headers={**SAME_ORIGIN, "Cookie": f"sessionid={who}"},
        )
        assert answer.status_code == 200, answer.json
        session: dict[str, Any] = answer.get_json()
        return Browser(client, {"X-Labelguard-Session": session["token"]}, session)


@dataclass
class Browser:
    """One annotator's page."""

    client: FlaskClient
    headers: dict[str, str]
    session: dict[str, Any]

    def ask(self, annotation: int | None = None, saved: datetime | None = None) -> dict[str, Any]:
        """Ask for prompts."""
        query = {"project": PROJECT, "annotation": annotation, "saved": stamp(saved) if saved else None}
        answer = self.client.get(
            "/page/v1/prompts", query_string={k: v for k, v in query.items() if v}, headers=self.headers
        )
        assert answer.status_code == 200, answer.json
        assert isinstance(answer.json, dict)
        return answer.json

    def abouts(self, annotation: int | None = None) -> list[int | None]:
        """The annotations that the prompts shown now are about."""
        return [prompt["annotation"] for prompt in self.ask(annotation)["prompts"]]

    def post(self, path: str, body: Any = None) -> TestResponse:
        """Post to the page's interface."""
        return self.client.post(f"/page/v1/{path}", json={} if body is None else body, headers=self.headers)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A fresh labelguard."""
    world = World(tmp_path)
    yield world
    world.store.close()


# Who it is


def test_the_session_names_the_annotator_and_brings_the_pages_words(world: World) -> None:
    """Label Studio says who the cookie belongs to; the language is the policy's."""
    world.policy(language="de", block="true")
    session = world.open().session
    assert session["user"] == {"id": 5, "name": "Ann"}
    assert (session["language"], session["blocking"]) == ("de", True)
    assert session["strings"]["got_it"] == "Verstanden"


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "http://elsewhere.example"},
        {"Origin": "null"},
        {},
    ],
)
def test_other_sites_cannot_get_a_session(world: World, headers: dict[str, str]) -> None:
    """A page elsewhere can make the browser send the cookie, but not say that it is Label Studio's."""
    answer = world.app.test_client(use_cookies=False).post(
        "/page/v1/session", json={"project": PROJECT}, headers={**headers, "Cookie": "sessionid=ann"}
    )
    assert (answer.status_code, answer.json) == (
        403,
        {"error": "Sessions are for Label Studio's own pages only."},
    )
    assert world.studio.asked == 0


def test_an_origin_that_is_the_address_asked_is_enough(world: World) -> None:
    """Browsers send no Sec-Fetch-Site to plain http addresses."""
    headers = {"Origin": "http://studio.example:8080", "Host": "studio.example:8080", "Cookie": "sessionid=ann"}
    answer = world.app.test_client(use_cookies=False).post(
        "/page/v1/session", json={"project": PROJECT}, headers=headers
    )
    assert answer.status_code == 200


@pytest.mark.parametrize(("cookie", "status"), [("", 401), ("sessionid=nobody", 401), ("sessionid=ann", 503)])
def test_without_a_login_or_without_label_studio_there_is_no_session(world: World, cookie: str, status: int) -> None:
    """Each with a sentence."""
    world.studio.down = status == 503
    answer = world.app.test_client(use_cookies=False).post(
        "/page/v1/session", json={"project": PROJECT}, headers={**SAME_ORIGIN, "Cookie": cookie}
    )
    assert answer.status_code == status
    assert answer.get_json()["error"].endswith(("in this browser.", "try again in a moment."))


def test_label_studio_is_asked_once_for_sessions_in_quick_succession(world: World) -> None:
    """A few seconds later it is asked again: people sign out."""
    world.open()
    world.open()
    assert world.studio.asked == 1
    world.now += timedelta(seconds=6)
    world.open()
    assert world.studio.asked == 2


def test_a_session_ends_after_an_hour_and_cannot_be_forged(world: World) -> None:
    """The page then exchanges anew."""
    browser = world.open()
    world.now += timedelta(minutes=61)
    answer = browser.client.get("/page/v1/prompts?project=3", headers=browser.headers)
    assert (answer.status_code, answer.json) == (401, {"error": "The session has ended; ask for a new one."})
    forged = browser.client.get("/page/v1/prompts?project=3", headers={"X-Labelguard-Session": "eyJ1c2VyIjo1fQ.x"})
    assert forged.status_code == 401


# Which prompts


def test_the_saved_annotations_prompts_come_first_then_others_that_wait(world: World) -> None:
    """Oldest first among the others; nobody else's."""
    for number in (1, 2, 3):
        world.annotation(number)
        world.finding(number)
    world.annotation(4, by=BEN)
    world.finding(4, who=BEN)
    assert world.open().abouts(3) == [3, 1, 2]
    assert world.open().abouts() == [1, 2, 3]
    assert world.open("ben").abouts() == [4]


def test_the_text_is_the_annotators_never_the_admins(world: World) -> None:
    """The finding's message is for admins."""
    world.annotation(1)
    world.finding(1)
    (prompt,) = world.open().ask(1)["prompts"]
    assert prompt["text"]
    assert "Never shown" not in json.dumps(prompt)


@pytest.mark.parametrize("state", ["proposed", "done", "undone", "rejected", "failed"])
def test_only_approved_actions_that_are_not_done_are_shown(world: World, state: str) -> None:
    """A proposed one waits for a person."""
    world.annotation(1)
    world.finding(1, state=state)
    assert world.open().abouts(1) == []


def test_the_kill_switch_stops_prompts_too(world: World) -> None:
    """They come when it is released."""
    world.annotation(1)
    world.finding(1)
    world.store.write(lambda conn: records.set_actions_enabled(conn, False, by="admin", now=NOW))
    assert world.open().abouts(1) == []
    world.store.write(lambda conn: records.set_actions_enabled(conn, True, by="admin", now=NOW))
    assert world.open().abouts(1) == [1]


def test_a_prompt_about_a_deleted_annotation_is_not_shown(world: World) -> None:
    """There is nothing left to look at."""
    world.annotation(1)
    world.finding(1)
    world.store.write(lambda conn: records.mark_deleted(conn, PROJECT, [1], NOW))
    assert world.open().abouts() == []


def test_a_prompt_and_a_rework_of_one_finding_are_one_card(world: World) -> None:
    """The one that can be done something about."""
    world.annotation(1)
    world.finding(1, kinds=("prompt", "rework"))
    (prompt,) = world.open().ask(1)["prompts"]
    assert (prompt["kind"], prompt["task"], prompt["annotation"]) == ("rework", 101, 1)


def test_no_more_new_prompts_an_hour_than_the_policy_allows(world: World) -> None:
    """What was shown and not answered comes again; the others wait until the hour is over."""
    world.policy(per_hour=2)
    for number in (1, 2, 3):
        world.annotation(number)
        world.finding(number)
    browser = world.open()
    shown = browser.ask()["prompts"]
    for prompt in shown:
        browser.post(f"prompts/{prompt['id']}/seen")
    browser.post(f"prompts/{shown[0]['id']}/acknowledge")
    assert browser.abouts() == [2]
    world.now += timedelta(minutes=60, microseconds=-1)
    assert world.open().abouts() == [2]
    world.now += timedelta(microseconds=2)
    assert world.open().abouts() == [2, 3]


# Rules that keep secrets


def test_a_gold_checks_prompt_comes_with_a_later_save_only_and_names_no_task(world: World) -> None:
    """On the very save it would point at the gold task; so would naming the task later."""
    world.annotation(1)
    world.finding(1, rule="gold-check")
    assert world.open().abouts(1) == []
    assert world.open().abouts() == []
    world.now += timedelta(minutes=1)
    world.annotation(2)
    (prompt,) = world.open().ask(2)["prompts"]
    assert (prompt["task"], prompt["annotation"]) == (None, None)


def test_asking_about_another_save_does_not_bring_a_gold_checks_prompt_out(world: World) -> None:
    """Not an earlier one, not somebody else's later one: both would tell which save it was about."""
    world.annotation(1)
    world.now += timedelta(minutes=1)
    world.annotation(2)
    world.finding(2, rule="gold-check")
    world.now += timedelta(minutes=1)
    world.annotation(3, by=BEN)
    assert [world.open().abouts(number) for number in (1, 2, 3)] == [[], [], []]


def test_a_rule_that_is_not_known_any_more_is_treated_as_one_that_keeps_secrets(world: World) -> None:
    """It may have been one."""
    world.annotation(1)
    world.finding(1, rule="removed-rule")
    assert world.open().abouts(1) == []


# Answers


def test_seen_is_not_answered(world: World) -> None:
    """It waits as shown until the annotator answers, and seeing it twice changes nothing."""
    world.annotation(1)
    finding = world.finding(1)
    browser = world.open()
    (prompt,) = browser.ask(1)["prompts"]
    for _ in range(2):
        assert browser.post(f"prompts/{prompt['id']}/seen").json == {"state": "seen"}
    assert world.states(finding) == ("open", {"prompt": "delivering"})


def test_a_rework_is_shown_once_label_studio_confirmed_the_annotation(world: World) -> None:
    """A delivery may be forged or stale: until the outbox has looked, the page asks again."""
    world.annotation(1)
    finding = world.finding(1, kinds=("prompt", "rework"), verified=False)
    browser = world.open()
    asked = browser.ask(1)
    assert (asked["prompts"], asked["pending"]) == ([], True)
    world.verify(finding)
    asked = browser.ask(1)
    assert ([prompt["kind"] for prompt in asked["prompts"]], asked["pending"]) == (["rework"], False)


def test_where_nothing_can_be_verified_the_note_comes_without_the_rework(world: World) -> None:
    """Label Studio's troubles do not keep a prompt from its annotator, and answering it leaves the rework."""
    world.annotation(1)
    finding = world.finding(1, kinds=("prompt", "rework"), verified=False)
    world.now += timedelta(seconds=11)
    browser = world.open()
    asked = browser.ask(1)
    assert ([prompt["kind"] for prompt in asked["prompts"]], asked["pending"]) == (["prompt"], False)
    browser.post(f"prompts/{asked['prompts'][0]['id']}/acknowledge")
    assert world.states(finding) == ("acknowledged", {"prompt": "done", "rework": "approved"})


def test_got_it_ends_a_prompt_and_leaves_a_rework_to_be_done(world: World) -> None:
    """Opening an annotation again is not yet correcting it."""
    world.annotation(1)
    finding = world.finding(1, kinds=("prompt", "rework"))
    browser = world.open()
    (prompt,) = browser.ask(1)["prompts"]
    assert browser.post(f"prompts/{prompt['id']}/acknowledge").status_code == 200
    assert world.states(finding) == ("acknowledged", {"prompt": "done", "rework": "delivering"})


def test_a_dispute_is_kept_in_the_annotators_words_and_ends_the_asking(world: World) -> None:
    """Markup in them is words like any other; sending it twice is sending it once."""
    world.annotation(1)
    finding = world.finding(1, kinds=("prompt", "rework"))
    browser = world.open()
    (prompt,) = browser.ask(1)["prompts"]
    words = 'It <b>is</b> spam <img src=x onerror="alert(1)">'
    for _ in range(2):
        assert browser.post(f"prompts/{prompt['id']}/dispute", {"words": words}).status_code == 200
    assert world.states(finding) == ("disputed", {"prompt": "done", "rework": "done"})
    with world.store.read() as conn:
        row = records.get_finding(conn, finding)
    assert row is not None
    assert (row["note"], row["state_by"]) == (words, "annotator 5")
    assert browser.abouts(1) == []


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        ("x" * 2001, 409, "Please use 2,000 characters at most; these are 2,001."),
        ("  ", 409, "Please say what is wrong with the note."),
        (None, 400, "A dispute needs `words`: what is wrong with the note, as text."),
        ({"a": 1}, 400, "A dispute needs `words`: what is wrong with the note, as text."),
    ],
)
def test_a_dispute_without_usable_words_is_refused(world: World, words: Any, status: int, sentence: str) -> None:
    """With a sentence for the annotator."""
    world.annotation(1)
    finding = world.finding(1)
    browser = world.open()
    (prompt,) = browser.ask(1)["prompts"]
    answer = browser.post(f"prompts/{prompt['id']}/dispute", {"words": words})
    assert (answer.status_code, answer.json) == (status, {"error": sentence})
    assert world.states(finding) == ("open", {"prompt": "approved"})


def test_what_a_person_has_decided_cannot_be_disputed_any_more(world: World) -> None:
    """The card may have stayed open meanwhile."""
    world.annotation(1)
    finding = world.finding(1)
    browser = world.open()
    (prompt,) = browser.ask(1)["prompts"]
    for state in ("disputed", "dismissed"):
        world.store.write(
            lambda conn, state=state: records.set_finding_state(conn, finding, state, by="admin", now=NOW)  # type: ignore[misc]
        )
    answer = browser.post(f"prompts/{prompt['id']}/dispute", {"words": "no"})
    assert (answer.status_code, answer.json) == (
        409,
        {"error": "Somebody has decided about this note already."},
    )


@pytest.mark.parametrize("what", ["seen", "acknowledge", "dispute"])
def test_nobody_else_can_answer_a_prompt_or_find_out_about_it(world: World, what: str) -> None:
    """Somebody else's id, a made-up one and a number are all the same 404."""
    world.annotation(1)
    finding = world.finding(1)
    (prompt,) = world.open().ask(1)["prompts"]
    ben = world.open("ben")
    for prompt_id in (prompt["id"], prompt["id"][:-2], str(finding)):
        answer = ben.post(f"prompts/{prompt_id}/{what}", {"words": "x"})
        assert (answer.status_code, answer.json) == (404, {"error": "There is no such note for you."})
    assert world.states(finding) == ("open", {"prompt": "approved"})


# Saves that labelguard has not been told of


def test_a_save_that_has_not_arrived_is_pending(world: World) -> None:
    """Label Studio knows nothing of it either: the page asks again."""
    assert world.open().ask(9)["pending"] is True


def test_an_update_is_pending_until_its_own_version_has_arrived(world: World) -> None:
    """The earlier version does not count."""
    world.annotation(1)
    assert world.open().ask(1, NOW)["pending"] is False
    assert world.open().ask(1, NOW + timedelta(seconds=2))["pending"] is True


def save_in_studio(world: World, by: User) -> None:
    """A save that breaks the policy, which no webhook announced."""
    item = {
        "id": "a",
        "from_name": "topics",
        "to_name": "text",
        "type": "choices",
        "value": {"choices": ["spam", "important"]},
    }
    world.studio.saved[9] = Annotation(
        9, 109, PROJECT, (item,), completed_by=by.id, updated_by=by.id, created_at=NOW, updated_at=NOW
    )


def test_a_save_that_was_never_announced_is_fetched_and_judged(world: World) -> None:
    """The webhook may be refused, lost or late: the annotator gets their prompt all the same."""
    save_in_studio(world, ANN)
    world.engine.start()
    try:
        answer = world.open().ask(9, NOW)
    finally:
        world.engine.stop()
    assert answer["pending"] is False
    assert [prompt["annotation"] for prompt in answer["prompts"]] == [9]


def test_only_ones_own_saves_are_fetched(world: World) -> None:
    """Nobody can make labelguard read through other people's annotations."""
    save_in_studio(world, BEN)
    assert world.open().ask(9)["pending"] is True
    with world.store.read() as conn:
        assert records.get_annotation(conn, 9) is None


# Before a save


def test_a_check_says_why_a_save_would_be_stopped(world: World) -> None:
    """Only the blocking rules speak, in the annotator's words."""
    result = [
        {
            "from_name": "topics",
            "to_name": "text",
            "type": "choices",
            "value": {"choices": ["spam", "important"]},
        }
    ]
    body = {"project": PROJECT, "task": 101, "result": result}
    assert world.open().post("check", body).json == {"blocks": []}
    world.policy(block="true")
    (block,) = world.open().post("check", body).get_json()["blocks"]
    assert block["rule"] == "label-constraints"
    assert block["text"]


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ([], "The body must be a JSON object with the content type application/json."),
        ({"project": 3, "task": 1}, "A check needs `result`: the annotation's result as a list of objects."),
        (
            {"project": 3, "task": 1, "result": [1]},
            "A check needs `result`: the annotation's result as a list of objects.",
        ),
        (
            {"project": True, "task": 1, "result": []},
            "`project` must be the id that Label Studio gave, a whole number above zero.",
        ),
        (
            {"project": 3, "task": 2**70, "result": []},
            "`task` must be the id that Label Studio gave, a whole number above zero.",
        ),
    ],
)
def test_a_check_of_another_shape_is_refused_with_a_sentence(world: World, body: Any, sentence: str) -> None:
    """The page then lets the save through."""
    answer = world.open().post("check", body)
    assert (answer.status_code, answer.json) == (400, {"error": sentence})


# The script and its words


def test_the_script_is_cached_by_its_tag(world: World) -> None:
    """A page that has it does not get it again."""
    client = world.app.test_client(use_cookies=False)
    first = client.get("/page.js")
    assert first.content_type == "text/javascript; charset=utf-8"
    again = client.get("/page.js", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")


def test_answers_are_kept_by_nobody_and_run_nothing(world: World) -> None:
    """Every answer but the script's own."""
    answer = world.app.test_client(use_cookies=False).get("/page/v1/prompts")
    assert answer.status_code == 401
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_every_language_has_every_word_that_the_script_says() -> None:
    """And no word that it does not say."""
    folder = labelguard_templates.path() / "page"
    script = (folder / "page.js").read_text("utf-8")
    words = {path.name: json.loads(path.read_text("utf-8")) for path in folder.glob("strings.*.json")}
    assert {"strings.en.json", "strings.de.json"} <= set(words)
    used = set(re.findall(r'(?:say|button)\("(\w+)"', script)) | set(re.findall(r'"(\w+_title)"', script))
    for name, strings in words.items():
        assert set(strings) == used, name


def test_nothing_in_the_script_turns_text_into_markup() -> None:
    """Labels, messages and disputes are other people's words."""
    script = (labelguard_templates.path() / "page" / "page.js").read_text("utf-8")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", script)
