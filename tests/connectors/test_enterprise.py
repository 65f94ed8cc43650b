"""Label Studio Enterprise, as the SDK describes it: what labelguard does there, once and no more."""

from __future__ import annotations

import io
import json
import logging
import re
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from email.utils import format_datetime
from functools import partial
from pathlib import Path
from typing import Any, get_args

import pytest
from structlog.testing import capture_logs

from deliveries import ADMIN, ANN, BEN, LABELGUARD, PROJECT, annotation, created
from enterprise import (
    ENTERPRISE_ONLY,
    SERVERS_NOW,
    Breach,
    Enterprise,
    Failure,
    complete,
    enterprise,
    operations,
    strict,
)
from fakestudio import FakeNotifier
from guarded import Guarded, guarded, policy
from labelguard import logs
from labelguard.connectors import ConnectorError, Stopping, Studio
from labelguard.doctor import diagnose
from labelguard.events import KNOWN_ACTIONS
from labelguard.manifest import EVENTS, REVIEW_EVENTS, events_for, load_manifest
from labelguard.outbox import Outbox, Refused
from labelguard.settings import Settings
from labelguard.store import records
from labelguard_connectors import LabelStudio
from labelguard_connectors.answers import SHORTEST_WAIT

SENIOR = 103
TASK, ANNOTATION = 7, 11
MARKER = "labelguard 1"
WRONG = ("spam", "important")


class Time:
    """Seconds that pass only when told to, or when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        """The time."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def server() -> Iterator[Enterprise]:
    """An Enterprise with labelguard as a manager, two annotators, a senior, and one annotated task."""
    with enterprise() as made:
        made.person(LABELGUARD, "MA")
        made.person(ADMIN, "AD")
        for annotator in (ANN, BEN, SENIOR):
            made.person(annotator)
        made.task(TASK)
        made.annotation(ANNOTATION, TASK, by=ANN)
        yield made


@pytest.fixture
def seconds() -> Time:
    """The connector's time."""
    return Time()


@contextmanager
def connected(server: Enterprise, seconds: Time | None = None, *, timeout: float = 10.0) -> Iterator[LabelStudio]:
    """A connector as labelguard's own user."""
    time = seconds or Time()
    token = server.people[LABELGUARD].token
    with LabelStudio(server.url, token, timeout, clock=time, sleep=time.sleep) as connector:
        yield connector


@pytest.fixture
def connector(server: Enterprise, seconds: Time) -> Iterator[LabelStudio]:
    """A connector that has looked at the server."""
    with connected(server, seconds) as made:
        made.server()
        server.asked.clear()
        yield made


# The contract itself


def test_the_sdk_has_every_call_that_the_manifest_names() -> None:
    """The manifest says which calls labelguard makes on an Enterprise; the SDK says which there are."""
    there = {f"{each.method} /{re.sub(r'{[^}]+}', '{}', each.path)}" for each in operations().values()}
    named = [call for group in load_manifest()["permissions"]["enterprise"] for call in group["calls"]]
    assert {re.sub(r"{[^}]+}", "{}", call) for call in named} <= there


def test_the_sdk_has_every_webhook_action_that_labelguard_knows_and_no_other() -> None:
    """A new action in the SDK is one that labelguard should get to know."""
    from label_studio_sdk.types.actions_enum import ActionsEnum

    known = {action for each in get_args(ActionsEnum) for action in get_args(each)}
    assert known == KNOWN_ACTIONS
    assert {*EVENTS, *REVIEW_EVENTS} <= known


def test_a_request_or_an_answer_that_the_sdk_does_not_know_fails_the_test() -> None:
    """The check can fail: on paths, parameters, fields and types, of both sides."""
    from label_studio_sdk.types import Comment, Pause

    with pytest.raises(Breach, match="The SDK's Pause has no paused_until"):
        complete(Pause, paused_until=None)
    with pytest.raises(ValueError, match="Input should be a valid integer"):
        strict(Comment).model_validate_json(json.dumps({"id": "eleven"}))
    with pytest.raises(ValueError, match="Input should be 'MANUAL'"):
        strict(Pause).model_validate_json(json.dumps({"reason": "BORED"}))


@pytest.mark.parametrize(
    ("path", "params", "breach"),
    [
        ("api/comment/", {}, "The SDK knows no GET /api/comment/"),
        ("api/comments/", {"anotation": 1}, "comments.list takes no parameter 'anotation'"),
        ("api/comments/", {"annotation": "x"}, "comments.list was sent annotation='x'"),
    ],
)
def test_a_wrong_request_fails_the_test(path: str, params: dict[str, Any], breach: str) -> None:
    """Whatever the connector makes of the answer."""

    def ask() -> None:
        with enterprise() as server:
            server.person(LABELGUARD, "MA")
            with connected(server) as connector, suppress(ConnectorError):
                connector._read(path, "trying", params)

    with pytest.raises(AssertionError, match=re.escape(breach)):
        ask()


# What there is


def test_an_enterprise_offers_everything_and_the_review_events(connector: LabelStudio) -> None:
    """Told by the edition alone; the role is that in the organization."""
    server = connector.server()
    assert (server.edition, server.version, server.user.id, server.role) == ("Enterprise", "2.30.0", LABELGUARD, "MA")
    assert (server.comments, server.assignments, server.pauses, server.reviews) == (True, True, True, True)
    assert events_for(server) == [*EVENTS, *REVIEW_EVENTS]


def test_an_upgrade_and_a_downgrade_are_noticed_without_a_restart(server: Enterprise, seconds: Time) -> None:
    """What the server can do is believed for ten minutes; Community is never sent an Enterprise call."""
    server.edition = "Community"
    with connected(server, seconds) as connector:
        assert not connector.server().comments
        with pytest.raises(ConnectorError, match=r"This Label Studio \(Community 2\.30\.0\) has no comments\.") as no:
            connector.comment(ANNOTATION, "text", MARKER)
        assert no.value.permanent
        assert events_for(connector.server()) == list(EVENTS)
        assert not any(name.startswith(ENTERPRISE_ONLY) for name in server.did())
        server.edition = "Enterprise"
        assert not connector.server().comments
        seconds.now += 601
        connector.comment(ANNOTATION, "text", MARKER)
        server.edition = "Community"
        seconds.now += 601
        assert not connector.server().pauses


def test_a_feature_that_is_switched_off_is_noticed_on_first_use_and_found_again(
    server: Enterprise, connector: LabelStudio, seconds: Time
) -> None:
    """A missing endpoint answers with a page; the other features are still there, and this one may come back."""
    server.off.add("comments.")
    with capture_logs() as said, pytest.raises(ConnectorError, match=r"^This Label Studio has no comments\.$") as no:
        connector.comment(ANNOTATION, "text", MARKER)
    assert no.value.permanent
    assert said == [{"event": "capability_missing", "log_level": "warning", "capability": "comments", "seconds": 600}]
    found = connector.server()
    assert (found.comments, found.assignments, found.pauses) == (False, True, True)
    server.asked.clear()
    with pytest.raises(ConnectorError, match="has no comments"):
        connector.comment(ANNOTATION, "text", MARKER)
    assert server.did() == []
    server.off.clear()
    seconds.now += 601
    connector.comment(ANNOTATION, "text", MARKER)
    assert len(server.texts(ANNOTATION)) == 1


def test_a_page_of_what_stands_before_label_studio_is_no_missing_feature(
    server: Enterprise, connector: LabelStudio
) -> None:
    """While Label Studio is replaced, its load balancer knows no address; the effect is tried again."""
    for version in (Failure("before", 404, body="<html>Not found</html>"), Failure("before", 502), Failure("lost")):
        server.fail("comments.list", Failure("before", 404, body="<html>Not found</html>"))
        server.fail("versions.get", version)
        with pytest.raises(ConnectorError, match="is not Label Studio's API") as error:
            connector.comment(ANNOTATION, "text", MARKER)
        assert not error.value.permanent
    connector.comment(ANNOTATION, "text", MARKER)
    assert len(server.texts(ANNOTATION)) == 1


def test_what_was_known_stays_true_while_the_server_does_not_answer(
    server: Enterprise, connector: LabelStudio, seconds: Time
) -> None:
    """And is not asked for again and again; a refused token, on the other hand, is news."""
    server.fail("versions.get", Failure("before", 502))
    seconds.now += 601
    assert connector.server().pauses
    assert connector.server().pauses
    assert server.did("versions.get") == ["versions.get"]
    seconds.now += 61
    server.fail("versions.get", Failure("before", 401))
    with pytest.raises(ConnectorError, match="refused labelguard's token"):
        connector.server()


# Comments


def test_a_comment_is_made_once_and_carries_its_marker(server: Enterprise, connector: LabelStudio) -> None:
    """The second time it is found."""
    connector.comment(ANNOTATION, "Please look again.", MARKER)
    connector.comment(ANNOTATION, "Please look again.", MARKER)
    assert server.texts(ANNOTATION) == ["Please look again.\n\nlabelguard 1"]


def test_a_marker_is_told_from_longer_ones_and_from_other_peoples_words(
    server: Enterprise, connector: LabelStudio
) -> None:
    """``labelguard 1`` is not in ``labelguard 12``, and who quotes a comment has not made it."""
    server.commented(ANNOTATION, LABELGUARD, "Another.\n\nlabelguard 12")
    server.commented(ANNOTATION, ANN, "What does this mean? > labelguard 1")
    connector.comment(ANNOTATION, "Please look again.", MARKER)
    assert len(server.texts(ANNOTATION)) == 3
    connector.delete_comment(ANNOTATION, MARKER)
    assert server.texts(ANNOTATION) == ["Another.\n\nlabelguard 12", "What does this mean? > labelguard 1"]


def test_the_marker_is_found_among_hundreds_of_comments(server: Enterprise, connector: LabelStudio) -> None:
    """The whole list is read: the SDK knows no pages of comments."""
    for number in range(400):
        server.commented(ANNOTATION, ANN, f"Comment {number}.")
    connector.comment(ANNOTATION, "Please look again.", MARKER)
    for number in range(400):
        server.commented(ANNOTATION, ANN, f"Later comment {number}.")
    connector.comment(ANNOTATION, "Please look again.", MARKER)
    assert server.did("comments.create") == ["comments.create"]


def test_a_list_of_comments_in_a_shape_that_nobody_announced_leads_to_no_comment(
    server: Enterprise, connector: LabelStudio
) -> None:
    """Pages where there were none, or nonsense: a comment that cannot be looked for is not made."""
    for body in ('{"count": 400, "next": "?page=2", "results": []}', '{"detail": null}', "[1, 2]", '"no"', "[{}]x"):
        server.fail("comments.list", Failure("before", 200, body=body))
        with pytest.raises(ConnectorError, match="is not Label Studio's API"):
            connector.comment(ANNOTATION, "Please look again.", MARKER)
    assert server.writes() == []


def test_our_comment_is_resolved_or_deleted_and_one_that_is_gone_is_fine(
    server: Enterprise, connector: LabelStudio
) -> None:
    """Both can be repeated."""
    connector.comment(ANNOTATION, "Please look again.", MARKER)
    connector.resolve_comment(ANNOTATION, MARKER)
    connector.resolve_comment(ANNOTATION, MARKER)
    assert [comment["is_resolved"] for comment in server.comments.values()] == [True]
    connector.delete_comment(ANNOTATION, MARKER)
    connector.delete_comment(ANNOTATION, MARKER)
    connector.resolve_comment(ANNOTATION, MARKER)
    assert server.writes() == ["comments.create", "comments.update", "comments.delete"]


# Assignments


@pytest.mark.parametrize("replaces", [False, True], ids=["adding", "replacing"])
def test_a_task_is_assigned_to_exactly_those_whichever_way_the_server_reads_it(
    server: Enterprise, connector: LabelStudio, replaces: bool
) -> None:
    """Those who stay stay, those who must go go, reviewers are left alone, and what is so already is not written."""
    server.assign_replaces = replaces
    server.assigned(TASK, ANN)
    server.assigned(TASK, BEN)
    server.assigned(TASK, ADMIN, "RE")
    connector.assign(PROJECT, TASK, [BEN, SENIOR])
    assert connector.assignees(PROJECT, TASK) == [BEN, SENIOR]
    assert [a["assignee"] for a in server.assignments if a["type"] == "RE"] == [ADMIN]
    server.asked.clear()
    connector.assign(PROJECT, TASK, [SENIOR, BEN])
    assert server.writes() == []
    connector.assign(PROJECT, TASK, [])
    assert server.annotators_of(TASK) == []


def test_an_assignment_that_did_not_happen_is_noticed(server: Enterprise, connector: LabelStudio) -> None:
    """Accepted and not done: it is read back, and tried again later."""
    answer = json.dumps(server._made("TaskAssignment", task=TASK, assignee=SENIOR))
    server.fail("projects.assignments.assign", Failure("before", 201, body=answer))
    with pytest.raises(ConnectorError, match=r"accepted that task 7 is assigned to other .* but it is not") as e:
        connector.assign(PROJECT, TASK, [SENIOR])
    assert not e.value.permanent


# Pauses


def test_an_annotator_is_paused_once_with_a_reason_that_they_can_read(
    server: Enterprise, connector: LabelStudio
) -> None:
    """The reason Label Studio has for scripts, and labelguard's words."""
    connector.pause(PROJECT, ANN, "Let us talk about the gold tasks.", MARKER)
    connector.pause(PROJECT, ANN, "Let us talk about the gold tasks.", MARKER)
    (made,) = server.pauses.values()
    assert (made["reason"], made["verbose_reason"]) == (
        "CUSTOM_SCRIPT",
        "Let us talk about the gold tasks.\n\nlabelguard 1",
    )
    connector.unpause(PROJECT, ANN, MARKER)
    connector.unpause(PROJECT, ANN, MARKER)
    assert server.standing(ANN) == []
    assert server.writes() == ["projects.pauses.create", "projects.pauses.delete"]


def test_who_is_paused_already_is_not_paused_again_and_nobody_elses_pause_is_lifted(
    server: Enterprise, connector: LabelStudio
) -> None:
    """A manager's, another script's under our name, and that of another finding."""
    manual = server.paused(ANN, by=ADMIN)
    connector.pause(PROJECT, ANN, "Why.", MARKER)
    connector.unpause(PROJECT, ANN, MARKER)
    assert server.writes() == []
    script = server.paused(ANN, by=LABELGUARD, reason="CUSTOM_SCRIPT", words="Another script.")
    other = server.paused(ANN, by=LABELGUARD, reason="CUSTOM_SCRIPT", words="Why.\n\nlabelguard 12")
    connector.unpause(PROJECT, ANN, MARKER)
    assert server.standing(ANN) == [manual, script, other]


def test_what_a_person_has_lifted_stays_lifted(server: Enterprise, connector: LabelStudio) -> None:
    """Our pause was made, its answer was lost, and a manager lifted it before it was tried again."""
    connector.pause(PROJECT, ANN, "Why.", MARKER)
    (made,) = server.pauses.values()
    made["deleted_at"] = made["updated_at"]
    connector.pause(PROJECT, ANN, "Why.", MARKER)
    assert server.standing(ANN) == []
    connector.pause(PROJECT, ANN, "Another reason.", "labelguard 2")
    assert len(server.standing(ANN)) == 1


# Once


WRITES: dict[str, tuple[str, Callable[[LabelStudio], object]]] = {
    "create_webhook": (
        "webhooks.create",
        lambda c: c.create_webhook(PROJECT, "http://lg.example", ["TASKS_CREATED"], {"X-B": "c"}),
    ),
    "update_webhook": (
        "webhooks.update",
        lambda c: c.update_webhook(1, url="http://lg.example", active=True, actions=["TASKS_CREATED"], headers={}),
    ),
    "delete_webhook": ("webhooks.delete", lambda c: c.delete_webhook(1)),
    "set_cancelled": ("annotations.update", lambda c: c.set_cancelled(ANNOTATION, True)),
    "set_overlap": ("tasks.update", lambda c: c.set_overlap(TASK, 2, False)),
    "set_task_note": ("tasks.update", lambda c: c.set_task_note(TASK, "note", "Please look again.")),
    "set_label_config": ("projects.update", lambda c: c.set_label_config(PROJECT, "<View/>")),
    "comment": ("comments.create", lambda c: c.comment(ANNOTATION, "text", MARKER)),
    "resolve_comment": ("comments.update", lambda c: c.resolve_comment(ANNOTATION, "labelguard 9")),
    "delete_comment": ("comments.delete", lambda c: c.delete_comment(ANNOTATION, "labelguard 9")),
    "assign": ("projects.assignments.assign", lambda c: c.assign(PROJECT, TASK, [SENIOR])),
    "assign (taking away)": ("projects.assignments.delete", lambda c: c.assign(PROJECT, 8, [])),
    "pause": ("projects.pauses.create", lambda c: c.pause(PROJECT, ANN, "Why.", MARKER)),
    "unpause": ("projects.pauses.delete", lambda c: c.unpause(PROJECT, BEN, "labelguard 9")),
}  # fmt: skip
"""Every write of the protocol, with the call of the SDK that it makes."""

READS = frozenset(
    {
        "silence",
        "server",
        "refusals",
        "link",
        "whoami",
        "users",
        "project",
        "annotation",
        "task",
        "tasks_changed",
        "tasks_named",
        "webhooks",
        "time",
    }
    | {"assignees", "review"}
)


def prepared(server: Enterprise) -> None:
    """Have what the writes above change."""
    server.commented(ANNOTATION, LABELGUARD, "Look.\n\nlabelguard 9")
    server.task(8)
    server.assigned(8, BEN)
    server.paused(BEN, by=LABELGUARD, reason="CUSTOM_SCRIPT", words="Why.\n\nlabelguard 9")
    server.webhooks[1] = server._made("Webhook", id=1, project=PROJECT, url="http://lg.example", actions=[])


FAILURES = {
    "408": Failure("before", 408),
    "409": Failure("before", 409),
    "429": Failure("before", 429, {"Retry-After": "3"}),
    "500": Failure("before", 500),
    "502": Failure("before", 502),
    "503": Failure("before", 503, {"Retry-After": "3"}),
    "500 after the effect": Failure("after", 500),
    "an answer that is lost": Failure("lost"),
    "an answer that comes too late": Failure("slow"),
}


def test_every_write_of_the_protocol_is_among_those_tested() -> None:
    """So that a new one is tested too."""
    methods = {name for name in vars(Studio) if not name.startswith("_")}
    assert methods - READS == {name.split(" ")[0] for name in WRITES}


@pytest.mark.parametrize("failure", FAILURES, ids=list(FAILURES))
def test_a_write_is_sent_once_whatever_becomes_of_it(server: Enterprise, failure: str) -> None:
    """The SDK repeats POSTs by default, on 408, 409, 429 and 5xx: whoever must try again is the outbox."""
    prepared(server)
    server.delay = 1.5
    for operation, write in WRITES.values():
        # Long enough for what is read before the write on a busy machine.
        with connected(server, timeout=1.0 if failure.endswith("late") else 10.0) as connector:
            connector.server()
            server.fail(operation, FAILURES[failure])
            server.asked.clear()
            with pytest.raises(ConnectorError) as error:
                write(connector)
            assert server.writes() == [operation]
            assert error.value.permanent is (failure == "409")


ONCE = {name: WRITES[name] for name in ("comment", "assign", "pause", "resolve_comment", "delete_comment", "unpause")}


@pytest.mark.parametrize("lost", ["500 after the effect", "an answer that is lost"])
@pytest.mark.parametrize("name", ONCE)
def test_an_effect_whose_answer_was_lost_is_found_and_not_repeated(server: Enterprise, name: str, lost: str) -> None:
    """Looked for before it is made: the second attempt writes nothing."""
    prepared(server)
    operation, write = ONCE[name]
    with connected(server) as connector:
        server.fail(operation, FAILURES[lost])
        with pytest.raises(ConnectorError):
            write(connector)
        write(connector)
    assert server.writes() == [operation]


# Refused


@pytest.mark.parametrize(
    ("role", "write", "sentence"),
    [
        (
            "NO",
            "comment",
            (
                "Label Studio does not allow labelguard's user this: commenting on annotation 11. "
                "That user needs any role, with access to the project."
            ),
        ),
        (
            "AN",
            "assign",
            (
                "Label Studio does not allow labelguard's user this: reading who task 7 is assigned to. "
                "That user needs the role Reviewer or a higher one."
            ),
        ),
        (
            "RE",
            "pause",
            (
                "Label Studio does not allow labelguard's user this: reading the pauses of user 101. "
                "That user needs the role Manager or a higher one."
            ),
        ),
    ],
)
def test_a_missing_permission_is_permanent_and_names_the_role(
    server: Enterprise, connector: LabelStudio, role: str, write: str, sentence: str
) -> None:
    """Tried again only when a person asks; the feature counts as there, for another project may allow it."""
    server.people[LABELGUARD].role = role
    with pytest.raises(ConnectorError) as error:
        WRITES[write][1](connector)
    assert (str(error.value), error.value.permanent) == (sentence, True)
    assert server.writes() == (["comments.create"] if write == "comment" else [])
    server.people[LABELGUARD].role = "MA"
    WRITES[write][1](connector)


def test_the_doctor_says_what_the_user_may_not_do_and_changes_nothing(server: Enterprise, tmp_path: Path) -> None:
    """A manager may do everything; a reviewer of this project may not pause; and a feature may be off."""
    with guarded(tmp_path) as guard, connected(server) as connector:
        settings = Settings(studio_url=server.url, public_url="http://127.0.0.1:9")

        def permissions() -> tuple[bool | None, str]:
            checks = diagnose(settings, guard.store, connector, PROJECT, clock=guard.clock)
            (found,) = [check for check in checks if check.name == f"project {PROJECT}: permissions"]
            return found.ok, found.message

        assert permissions() == (True, "labelguard's user may use everything that this Label Studio offers.")
        server.project_roles[PROJECT, LABELGUARD] = "RE"
        assert permissions() == (
            False,
            (
                "Label Studio does not allow labelguard's user this: looking for pauses of project 3. "
                "That user needs the role Manager or a higher one."
            ),
        )
        server.project_roles.clear()
        server.off.add("annotation_reviews.")
        assert permissions() == (False, "This Label Studio has no reviews.")
        assert server.writes() == []


# Not too fast


def date(seconds: float) -> str:
    """An HTTP date so far from what the server calls now, which is not our now."""
    return format_datetime(SERVERS_NOW + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize(
    ("status", "value", "expected"),
    [
        (429, "17", 17),
        (503, "17", 17),
        (500, "17", None),
        (429, date(90), 90),
        (429, "", SHORTEST_WAIT),
        (429, "0", SHORTEST_WAIT),
        (429, "-5", SHORTEST_WAIT),
        (429, "soon", SHORTEST_WAIT),
        (429, "1e9", SHORTEST_WAIT),
        (429, "1.5", SHORTEST_WAIT),
        (429, "٣", SHORTEST_WAIT),
        (429, date(-90), SHORTEST_WAIT),
        (429, "Sat, 01 Jan 99999 00:00:00 GMT", SHORTEST_WAIT),
        (429, "86400", 3600),
        (429, "9" * 400, 3600),
        (429, "Fri, 31 Dec 9999 23:59:59 GMT", 3600),
        (503, "", None),
    ],
)
def test_the_pause_that_is_asked_for_is_bounded(
    server: Enterprise, connector: LabelStudio, status: int, value: str, expected: object
) -> None:
    """Seconds or a date; nonsense counts as nothing said; an hour at most."""
    headers = {"Retry-After": value.encode().decode("latin-1")} if value else {}
    server.fail("users.list", Failure("before", status, headers))
    with pytest.raises(ConnectorError) as error:
        connector.users()
    assert error.value.retry_after == expected
    assert not error.value.permanent


def test_nothing_is_sent_until_the_pause_is_over(server: Enterprise, connector: LabelStudio, seconds: Time) -> None:
    """A limit is the whole server's: the next twenty actions would all run into it."""
    server.fail("users.list", Failure("before", 429, {"Retry-After": "30"}))
    with pytest.raises(ConnectorError, match="asked labelguard to slow down while listing users"):
        connector.users()
    seconds.now += 10
    for _ in range(20):
        with pytest.raises(ConnectorError, match="commenting on annotation 11 waits for 20 seconds") as error:
            connector.comment(ANNOTATION, "text", MARKER)
        assert (error.value.retry_after, error.value.permanent) == (20, False)
    assert server.did() == ["users.list"]
    seconds.now += 20
    connector.comment(ANNOTATION, "text", MARKER)
    assert len(server.texts(ANNOTATION)) == 1


def test_a_long_listing_waits_and_goes_on_where_it_was(
    server: Enterprise, connector: LabelStudio, seconds: Time
) -> None:
    """Reconciliation of a big project must come to its end on a server with limits."""
    for number in range(20, 27):
        server.task(number)
    busy = Failure("before", 429, {"Retry-After": "40"})
    listing = connector.tasks_changed(PROJECT, None, page_size=3)
    found = [next(listing).task.id]
    server.fail("tasks.list", busy, busy, Failure("before", 429))
    found += [record.task.id for record in listing]
    assert found == [TASK, *range(20, 27)]
    assert seconds.slept == [40, 40, 5]


def test_tasks_are_asked_for_by_name_a_page_at_a_time(
    server: Enterprise, connector: LabelStudio, seconds: Time
) -> None:
    """However few the server lists at a time; a page of which nothing is there is over at once."""
    for number in range(20, 30):
        server.task(number)
    server.task(40, project=99)
    server.longest_page = 2
    server.fail("tasks.list", Failure("before", 429, {"Retry-After": "40"}))
    asked = [*range(25, 45), *range(20, 23), TASK]
    server.asked.clear()
    found = [record.task.id for record in connector.tasks_named(PROJECT, asked, page_size=8)]
    assert found == sorted([TASK, 20, 21, 22, 25, 26, 27, 28, 29])
    assert seconds.slept == [40]
    # Refused once; of eight tasks two, two, two and two; of eight the last and nothing more; of eight nothing.
    assert server.did("tasks.list") == ["tasks.list"] * (1 + 4 + 2 + 1)


def test_a_listing_does_not_wait_for_ever(server: Enterprise, connector: LabelStudio, seconds: Time) -> None:
    """Two minutes for each page; then the run fails, nothing is lost, and the next one finds the same."""
    server.fail("tasks.list", *[Failure("before", 429, {"Retry-After": "50"})] * 5)
    with pytest.raises(ConnectorError, match="slow down") as error:
        list(connector.tasks_changed(PROJECT, None))
    assert (seconds.slept, error.value.retry_after, error.value.permanent) == ([50, 50], 50, False)


def test_a_stop_ends_the_waiting_and_every_request_after_it(server: Enterprise) -> None:
    """A service that is told to stop does not wait two minutes for a server with limits."""
    server.fail("tasks.list", *[Failure("before", 429, {"Retry-After": "100"})] * 2)
    with LabelStudio(server.url, server.people[LABELGUARD].token) as connector:
        silence = ExitStack()
        ending = threading.Timer(0.5, lambda: silence.enter_context(connector.silence()))
        ending.start()
        with pytest.raises(Stopping) as error:
            list(connector.tasks_changed(PROJECT, None))
        ending.join()
        assert (error.value.permanent, error.value.retry_after) == (False, None)
        server.asked.clear()
        for ask in (connector.users, partial(connector.comment, ANNOTATION, "text", MARKER)):
            with pytest.raises(Stopping):
                ask()
        assert server.asked == []
        silence.close()
        with pytest.raises(ConnectorError, match="slow down"):
            connector.users()


# No secret


SECRETS = ("a-cookie-that-nobody-may-see", "f" * 36, "body-of-the-answer", "in-the-address")


def test_no_failure_shows_a_token_a_cookie_or_a_body(server: Enterprise, caplog: pytest.LogCaptureFixture) -> None:
    """In its words, its traceback, its arguments, or anything that is logged meanwhile."""
    stream = io.StringIO()
    root = logging.getLogger()
    before, handlers = root.level, root.handlers[:]
    body = '{"detail": "body-of-the-answer", "validation_errors": {"url": ["body-of-the-answer"]}}'
    failures = [Failure("before", status, body=text) for status in (
        200, 204, 301, 400, 401, 402, 403, 404, 408, 409, 418, 429, 500, 503,
    ) for text in (body, "<html>body-of-the-answer</html>", "")]  # fmt: skip
    seen: list[str] = []
    server.delay = 1.5
    try:
        logs.configure("DEBUG", json=True, stream=stream)
        for failure in [*failures, Failure("lost"), Failure("slow")]:
            timeout = 1.0 if failure.kind == "slow" else 10.0
            with connected(server, timeout=timeout) as connector:
                connector.server()
                server.fail("*", failure)
                try:
                    connector.comment(ANNOTATION, "text", MARKER)
                except ConnectorError as error:
                    shown = "".join(traceback.format_exception(error))
                    seen.append("\n".join([str(error), repr(error), str(error.__dict__), shown]))
                    logging.getLogger("labelguard").exception("failed")
                seen.append(repr(connector))
    finally:
        root.setLevel(before)
        root.handlers[:] = handlers
    assert len(seen) > 60
    everything = "\n".join(seen) + stream.getvalue() + caplog.text
    assert not [secret for secret in SECRETS if secret in everything]
    assert all(len(line) < 400 for line in seen if "Traceback" not in line)


# From the finding to the effect and back


@contextmanager
def guarding(
    server: Enterprise, folder: Path, actions: str, notifier: FakeNotifier | None = None, **more: str
) -> Iterator[tuple[Guarded, Outbox]]:
    """A labelguard with a policy, whose outbox speaks to the server."""
    with guarded(folder, policy(actions=actions, **more)) as guard, connected(server) as connector:
        guard.store.write(lambda conn: records.save_annotators(conn, connector.users()))
        outbox = Outbox(guard.store, guard.engine, connector, notifier, guard.clock, jitter=lambda: 0.0)
        body = created(annotation(ANNOTATION, *WRONG, task=TASK, by=ANN))
        server.hold(body)
        guard.take(body)
        server.asked.clear()
        yield guard, outbox


SENIORS = f"{{seniors: ['{SENIOR}']}}"
BOTH = f"{{seniors: ['{SENIOR}', '{ANN}']}}"


def test_escalate_adds_a_senior_and_undo_restores_who_was_there(server: Enterprise, tmp_path: Path) -> None:
    """The annotator stays assigned; what somebody else did meanwhile stays as well."""
    server.assigned(TASK, ANN)
    with guarding(server, tmp_path, "[{escalate: seniors}]", people=BOTH) as (
        g,
        outbox,
    ):
        assert outbox.deliver_due() == 1
        assert server.annotators_of(TASK) == [ANN, SENIOR]
        action = g.action("escalate")
        assert action["undo"] == {"assignees": [ANN]}
        outbox.undo(action["id"], "Ada")
        assert server.annotators_of(TASK) == [ANN]


def test_undo_of_escalate_leaves_whom_somebody_else_assigned_since(server: Enterprise, tmp_path: Path) -> None:
    """Only those that labelguard brought go."""
    with guarding(server, tmp_path, "[{escalate: seniors}]", people=SENIORS) as (g, outbox):
        assert outbox.deliver_due() == 1
        server.assigned(TASK, BEN)
        outbox.undo(g.action("escalate")["id"], "Ada")
        assert server.annotators_of(TASK) == [BEN]


def test_an_escalation_whose_answer_was_lost_still_knows_who_was_there(server: Enterprise, tmp_path: Path) -> None:
    """Who was there is kept before the effect: read after it, the senior would have been there all along."""
    server.assigned(TASK, ANN)
    with guarding(server, tmp_path, "[{escalate: seniors}]", people=SENIORS) as (g, outbox):
        server.fail("projects.assignments.assign", Failure("lost"))
        assert outbox.deliver_due() == 0
        g.clock.move(seconds=60)
        assert outbox.deliver_due() == 1
        assert server.did("projects.assignments.assign") == ["projects.assignments.assign"]
        outbox.undo(g.action("escalate")["id"], "Ada")
        assert server.annotators_of(TASK) == [ANN]


def test_where_nobody_may_be_assigned_the_others_are_told(server: Enterprise, tmp_path: Path) -> None:
    """And there is no assignment to take back."""
    server.people[LABELGUARD].role = "AN"
    people = f"{{seniors: ['{SENIOR}', chat]}}"
    notifier = FakeNotifier()
    with guarding(server, tmp_path, "[{escalate: seniors}]", notifier, people=people) as (guard, outbox):
        assert outbox.deliver_due() == 1
        assert (guard.action("escalate")["state"], notifier.told()) == ("done", ["chat"])
        with pytest.raises(Refused, match="sent a message, which cannot be taken back"):
            outbox.undo(guard.action("escalate")["id"], "Ada")


def test_a_pause_waits_for_a_person_and_undo_lifts_ours_alone(server: Enterprise, tmp_path: Path) -> None:
    """Proposed first; approved, it happens once; undone, a manager's pause stands."""
    with guarding(server, tmp_path, "[pause]") as (guard, outbox):
        assert (outbox.deliver_due(), guard.action("pause")["state"]) == (0, "proposed")
        assert server.pauses == {}
        number = guard.action("pause")["id"]
        outbox.approve(number, "Ada")
        server.fail("projects.pauses.create", Failure("lost"))
        outbox.deliver_due()
        guard.clock.move(seconds=60)
        assert outbox.deliver_due() == 1
        assert len(server.standing(ANN)) == 1
        assert "“spam”" in next(iter(server.pauses.values()))["verbose_reason"]
        manual = server.paused(ANN, by=ADMIN)
        outbox.undo(number, "Ada")
        assert server.standing(ANN) == [manual]


def test_a_prompts_comment_is_resolved_when_it_was_answered_and_deleted_when_it_is_taken_back(
    server: Enterprise, tmp_path: Path
) -> None:
    """Also where the answer to it was lost: never two."""
    with guarding(server, tmp_path, "[prompt]") as (guard, outbox):
        server.fail("comments.create", Failure("after", 502))
        outbox.deliver_due()
        guard.clock.move(seconds=60)
        assert outbox.deliver_due() == 1
        (text,) = server.texts(ANNOTATION)
        action = guard.action("prompt")
        assert text.endswith(f"\n\nlabelguard {action['finding']}")
        assert outbox.settle(PROJECT)["comments_resolved"] == 0
        guard.store.write(lambda conn: records.update_action(conn, action["id"], guard.clock(), state="done"))
        assert outbox.settle(PROJECT)["comments_resolved"] == 1
        assert [comment["is_resolved"] for comment in server.comments.values()] == [True]
        assert outbox.settle(PROJECT)["comments_resolved"] == 0


def test_the_comment_of_a_dismissed_finding_is_resolved(server: Enterprise, tmp_path: Path) -> None:
    """The annotator was right; nothing must be done about it any more."""
    with guarding(server, tmp_path, "[prompt]") as (guard, outbox):
        outbox.deliver_due()
        finding = guard.findings()[0]["id"]
        guard.store.write(
            lambda conn: records.set_finding_state(conn, finding, "dismissed", by="Ada", now=guard.clock())
        )
        assert outbox.settle(PROJECT)["comments_resolved"] == 1


def test_disconnecting_takes_the_comment_away(server: Enterprise, tmp_path: Path) -> None:
    """What labelguard wrote into Label Studio goes with it."""
    with guarding(server, tmp_path, "[prompt]") as (_, outbox):
        outbox.deliver_due()
        assert len(server.texts(ANNOTATION)) == 1
        outbox.undo_all(PROJECT, "Ada")
        assert server.texts(ANNOTATION) == []


def test_the_outbox_keeps_to_the_pause_and_never_spins(server: Enterprise, tmp_path: Path) -> None:
    """A server that asks for one second each time is still asked less and less often."""
    with guarding(server, tmp_path, "[replace]") as (guard, outbox):
        pauses = []
        for _ in range(4):
            server.fail("annotations.get", Failure("before", 429, {"Retry-After": "1"}))
            before = guard.clock()
            assert outbox.deliver_due() == 0
            assert outbox.deliver_due() == 0
            pauses.append((guard.action("replace")["next_at"] - before).total_seconds())
            guard.clock.move(seconds=pauses[-1])
            outbox._desk.studio._quiet_until = 0  # type: ignore[union-attr]
        assert pauses == [2.5, 5.0, 10.0, 20.0]
        server.fail("annotations.get", Failure("before", 429, {"Retry-After": "600"}))
        before = guard.clock()
        outbox.deliver_due()
        assert (guard.action("replace")["next_at"] - before).total_seconds() == 600
        assert len(server.did("annotations.get")) == 5


def test_where_the_user_may_not_comment_the_page_still_shows_the_prompt(server: Enterprise, tmp_path: Path) -> None:
    """And the reason stands beside the action, for the admin."""
    server.project_roles[PROJECT, LABELGUARD] = "NO"
    with guarding(server, tmp_path, "[prompt]") as (guard, outbox):
        outbox.deliver_due()
        action = guard.action("prompt")
        assert (action["state"], action["target"]["delivered"]) == ("approved", True)
        assert action["error"].endswith("That user needs any role, with access to the project.")
        outbox.undo(action["id"], "Ada")
