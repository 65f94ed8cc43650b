"""The Label Studio connector against the real server, and the facts about the server that we build on."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests

from labelguard.connectors import ConnectorError, NotFound
from labelguard.studio.launch import Account, free_port
from labelguard_connectors import LabelStudio
from live import LiveProject, StudioServer, choice


@pytest.fixture
def project(studio: StudioServer) -> LiveProject:
    """A project with three text tasks."""
    return studio.project("Connector", tasks=3)


def test_it_says_what_the_server_is_and_who_labelguard_is(studio: StudioServer) -> None:
    """Community has neither comments nor assignments nor pauses."""
    server = studio.connector().server()
    assert (server.edition, server.version[:2]) == ("Community", "1.")
    assert server.user.id == studio.account("labelguard").id
    assert server.user.name == "Labelguard"
    assert (server.comments, server.assignments, server.pauses) == (False, False, False)


@pytest.mark.filterwarnings("ignore:The `parse_obj` method is deprecated")  # the SDK's own, in its token exchange
def test_it_takes_a_personal_access_token(studio: StudioServer) -> None:
    """The SDK exchanges it for access tokens by itself."""
    someone = studio.account("pat")
    studio.api.call("POST", "/api/jwt/settings", json={"api_tokens_enabled": True, "legacy_api_tokens_enabled": True})
    made = studio.as_(someone).call("POST", "/api/token/")
    with LabelStudio(studio.url, made["token"]) as connector:
        assert connector.server().user.id == someone.id


def test_enterprise_calls_are_refused_with_a_sentence_on_community(studio: StudioServer, project: LiveProject) -> None:
    """Nothing is sent that Community answers with a page of 170 kilobytes."""
    connector = studio.connector()
    calls: list[Callable[[], None]] = [
        lambda: connector.comment(1, "text", "marker"),
        lambda: connector.assign(project.id, project.tasks[0], [1]),
        lambda: connector.pause(project.id, 1, "why", "marker"),
        lambda: connector.unpause(project.id, 1, "marker"),
    ]
    for call in calls:
        with pytest.raises(ConnectorError, match=r"This Label Studio \(Community 1\.[\d.]+\) has no ") as error:
            call()
        assert error.value.permanent


def test_whoami_names_the_annotator_of_a_browser_session(studio: StudioServer, ana: Account) -> None:
    """Other cookies do not disturb; no session, a wrong one, and a signed-out browser are nobody."""
    connector = studio.connector()
    cookie = studio.cookie(ana)
    found = connector.whoami(f"theme=dark; {cookie}; last=1")
    assert found is not None
    assert (found.id, found.email) == (ana.id, ana.email)
    assert connector.whoami("") is None
    assert connector.whoami("theme=dark") is None
    assert connector.whoami("sessionid=forged") is None
    assert connector.whoami("sessionid=a\r\nX-Evil: 1") is None


def test_users_are_listed_with_their_names(studio: StudioServer, ana: Account) -> None:
    """Names and addresses are what admins read in findings."""
    assert {user.id: (user.email, user.name) for user in studio.connector().users()}[ana.id] == (ana.email, "Ana")


def test_a_task_is_read_the_same_by_itself_and_in_the_listing(
    studio: StudioServer, project: LiveProject, ana: Account
) -> None:
    """Reconciling compares the two, so they must agree to the last byte."""
    annotation = project.submit(ana, project.tasks[0], choice("cat"))
    connector = studio.connector()
    listed = next(iter(connector.tasks_changed(project.id, None)))
    assert listed == connector.task(project.tasks[0])
    assert listed.annotations == (connector.annotation(annotation),)
    assert (listed.annotations[0].completed_by, listed.annotations[0].updated_by) == (ana.id, ana.id)


def test_what_is_gone_is_not_found(studio: StudioServer) -> None:
    """Callers tell "gone" from every other failure."""
    connector = studio.connector()
    for call in (lambda: connector.task(10**8), lambda: connector.annotation(10**8), lambda: connector.project(10**8)):
        with pytest.raises(NotFound) as error:
            call()
        assert error.value.permanent


def test_the_listing_is_paged_by_id_and_misses_nothing(studio: StudioServer) -> None:
    """Seven tasks in pages of three, with a filter on the time as well."""
    project = studio.project("Paging", tasks=7)
    connector = studio.connector()
    since = datetime.now(UTC) - timedelta(minutes=5)
    assert [r.task.id for r in connector.tasks_changed(project.id, None, page_size=3)] == project.tasks
    assert [r.task.id for r in connector.tasks_changed(project.id, since, page_size=3)] == project.tasks
    rest = connector.tasks_changed(project.id, since, after_id=project.tasks[4], page_size=3)
    assert [r.task.id for r in rest] == project.tasks[5:]
    later = datetime.now(UTC) + timedelta(hours=1)
    assert list(connector.tasks_changed(project.id, later)) == []


def test_tasks_asked_for_by_name_are_exactly_those_that_the_project_has(studio: StudioServer, ana: Account) -> None:
    """As they are by themselves, annotations and all; not those that are gone, of others, or none at all."""
    project, other = studio.project("Named", tasks=120), studio.project("Others", tasks=1)
    project.submit(ana, project.tasks[7], choice("cat"))
    gone = project.tasks[50]
    project.api.call("DELETE", f"/api/tasks/{gone}/")
    connector = studio.connector()
    asked = [gone, *other.tasks, 0, 10**8, 2**63 - 1, *reversed(project.tasks[5:110:3])]
    there = [task for task in project.tasks[5:110:3] if task != gone]
    found = list(connector.tasks_named(project.id, asked))
    assert [record.task.id for record in found] == there
    assert gone in project.tasks[5:110:3]
    few = [record for record in found if record.task.id in {*project.tasks[:12]}]
    assert few == [connector.task(record.task.id) for record in few]
    assert sum(len(record.annotations) for record in few) == 0
    (answered,) = connector.tasks_named(project.id, project.tasks[7:8])
    assert answered == connector.task(project.tasks[7])
    assert len(answered.annotations) == 1
    everything = [task for task in project.tasks if task != gone]
    assert [record.task.id for record in connector.tasks_named(project.id, project.tasks)] == everything
    assert [record.task.id for record in connector.tasks_named(project.id, everything, page_size=50)] == everything
    for nothing in ([], [gone], [*other.tasks], [2**63 - 1]):
        assert list(connector.tasks_named(project.id, nothing)) == []


def test_every_change_to_an_annotation_shows_in_the_listing(
    studio: StudioServer, project: LiveProject, ana: Account, ben: Account
) -> None:
    """Submit, edit, skip, delete, bulk delete and moved ground truth bump the task's time."""
    connector = studio.connector()
    task = project.tasks[0]
    one = project.submit(ana, task, choice("cat"))
    two = project.submit(ben, task, choice("dog"))

    def seen_after(change: object) -> bool:
        time.sleep(0.02)
        since = datetime.now(UTC)
        change()  # type: ignore[operator]
        return task in [record.task.id for record in connector.tasks_changed(project.id, since)]

    api = project.api
    assert seen_after(lambda: project.update(ana, one, choice("dog")))
    assert seen_after(lambda: api.call("PATCH", f"/api/annotations/{two}/", json={"ground_truth": True}))
    assert seen_after(lambda: connector.set_cancelled(one, True))
    assert seen_after(lambda: api.call("DELETE", f"/api/annotations/{one}/"))
    assert seen_after(
        lambda: api.call(
            "POST",
            f"/api/dm/actions?id=delete_tasks_annotations&project={project.id}",
            json={"selectedItems": {"all": False, "included": [task]}},
        )
    )


def test_ground_truth_moves_without_a_new_time_on_the_other_annotation(
    studio: StudioServer, project: LiveProject, ana: Account, ben: Account
) -> None:
    """That is why reconciling compares the flag and not only the times."""
    connector = studio.connector()
    task = project.tasks[0]
    one = project.submit(ana, task, choice("cat"), ground_truth=True)
    two = project.submit(ben, task, choice("dog"))
    before = connector.annotation(one)
    assert before.ground_truth
    project.api.call("PATCH", f"/api/annotations/{two}/", json={"ground_truth": True})
    after = connector.annotation(one)
    assert not after.ground_truth
    assert after.updated_at == before.updated_at


def test_a_replaced_annotation_is_served_to_another_annotator_and_undo_restores(
    studio: StudioServer, ana: Account, ben: Account
) -> None:
    """``replace``: the author is not asked again, overlap stays, un-cancelling takes it back."""
    project = studio.project("Replace", tasks=1)
    task = project.tasks[0]
    connector = studio.connector()
    annotation = project.submit(ana, task, choice("cat"))
    assert project.next_task(ben) is None
    connector.set_cancelled(annotation, True)
    assert connector.annotation(annotation).was_cancelled
    assert connector.annotation(annotation).updated_by == studio.account("labelguard").id
    assert connector.task(task).task.overlap == 1
    assert project.next_task(ana) is None
    assert project.next_task(ben) == task
    connector.set_cancelled(annotation, False)
    restored = connector.annotation(annotation)
    assert (restored.was_cancelled, restored.completed_by) == (False, ana.id)
    assert connector.task(task).task.is_labeled


def test_a_second_opinion_is_served_to_another_annotator_and_undo_restores(studio: StudioServer, ana: Account) -> None:
    """``second-opinion``: overlap and ``is_labeled`` in one call; never to the one who did it."""
    project = studio.project("Second opinion", tasks=1)
    task = project.tasks[0]
    cleo = studio.account("cleo")
    connector = studio.connector()
    project.submit(ana, task, choice("cat"))
    connector.set_overlap(task, 2, False)
    assert (connector.task(task).task.overlap, connector.task(task).task.is_labeled) == (2, False)
    assert project.next_task(ana) is None
    assert project.next_task(cleo) == task
    connector.set_overlap(task, 1, True)
    assert (connector.task(task).task.overlap, connector.task(task).task.is_labeled) == (1, True)
    assert project.next_task(studio.account("dora")) is None


def test_a_task_note_keeps_storage_links_and_goes_away_without_a_trace(studio: StudioServer) -> None:
    """A link that Label Studio would resolve on reading is written back as it was."""
    project = studio.project(
        "Notes", label_config='<View><Image name="i" value="$image"/><TextArea name="t" toName="i"/></View>'
    )
    _add_bucket(studio, project, "bucket")
    data = {"image": "s3://bucket/a.png", "more": {"deep": [1, None, "ü"]}}
    [task] = project.import_tasks([{"data": data}])
    resolved = project.api.call("GET", f"/api/tasks/{task}/")["data"]["image"]
    assert resolved.startswith(f"/tasks/{task}/resolve/")
    connector = studio.connector()
    connector.set_task_note(task, "labelguard_note", "Please look again.")
    assert connector.task(task).task.data == {**data, "labelguard_note": "Please look again."}
    connector.set_task_note(task, "labelguard_note", "")
    connector.set_task_note(task, "labelguard_note", "")
    assert connector.task(task).task.data == data


def _add_bucket(studio: StudioServer, project: LiveProject, bucket: str) -> None:
    """Give a project an S3 storage; through the API that needs a bucket that exists."""
    values = {
        "created_at": "2026-01-01 00:00:00",
        "bucket": bucket,
        "use_blob_urls": False,
        "presign": True,
        "presign_ttl": 1,
        "project_id": project.id,
        "recursive_scan": False,
        "status": "initialized",
        "synchronizable": False,
        "aws_access_key_id": "a",
        "aws_secret_access_key": "b",
    }
    names, marks = ", ".join(values), ", ".join("?" * len(values))
    database = sqlite3.connect(studio.process.data_dir / "label_studio.sqlite3", timeout=20)
    with database:
        database.execute(
            f"INSERT INTO io_storages_s3importstorage ({names}) VALUES ({marks})",  # noqa: S608 - names from above
            list(values.values()),
        )
    database.close()


def test_webhooks_are_made_changed_listed_and_deleted(studio: StudioServer, project: LiveProject) -> None:
    """Header values never come back, only names."""
    connector = studio.connector()
    url = "http://127.0.0.1:9/webhook/1"
    made = connector.create_webhook(project.id, url, ["ANNOTATION_CREATED", "TASKS_CREATED"], {"X-Secret": "value"})
    assert connector.webhooks(project.id) == [made]
    assert (made.url, made.active, made.payload, made.all_actions) == (url, True, True, False)
    assert made.actions == ("ANNOTATION_CREATED", "TASKS_CREATED")
    assert made.headers == ("X-Secret",)
    assert "value" not in repr(made)
    connector.update_webhook(made.id, url=url + "2", active=False, actions=["TASKS_CREATED"], headers={"X-B": "c"})
    [changed] = connector.webhooks(project.id)
    assert (changed.url, changed.active) == (url + "2", False)
    assert (changed.actions, changed.headers) == (("TASKS_CREATED",), ("X-B",))
    connector.delete_webhook(made.id)
    connector.delete_webhook(made.id)
    assert connector.webhooks(project.id) == []


def test_a_host_name_without_a_dot_is_refused_with_the_setting_to_change(
    studio: StudioServer, project: LiveProject
) -> None:
    """The name of a container is the first thing people try."""
    with pytest.raises(ConnectorError, match=r"does not accept LABELGUARD_PUBLIC_URL .* a name with a dot in it"):
        studio.connector().create_webhook(project.id, "http://labelguard:8090/webhook/1", [], {})


def test_a_wrong_token_is_permanent_and_the_sentence_holds_no_secret(studio: StudioServer) -> None:
    """Neither the token, nor a body, nor a cookie of the answer."""
    token = "0123456789abcdef0123456789abcdef01234567"
    with LabelStudio(studio.url, token) as connector, pytest.raises(ConnectorError) as error:
        connector.users()
    assert str(error.value) == (
        "Label Studio refused labelguard's token while listing users. Check LABELGUARD_STUDIO_API_KEY; "
        "a legacy token works only where Label Studio's organization settings allow legacy tokens."
    )
    assert error.value.permanent
    assert error.value.__cause__ is None
    assert error.value.__suppress_context__


def test_a_page_in_place_of_an_answer_is_not_quoted(studio: StudioServer) -> None:
    """A path that is not Label Studio's answers with a page and a session cookie; neither gets through."""
    with LabelStudio(f"{studio.url}/nowhere", studio.admin.token) as connector, pytest.raises(ConnectorError) as error:
        connector.users()
    assert "<" not in str(error.value)
    assert "sessionid" not in str(error.value)
    assert len(str(error.value)) < 300


def test_a_server_that_is_not_there_may_be_tried_again() -> None:
    """A refused connection is not permanent."""
    with (
        LabelStudio(f"http://127.0.0.1:{free_port()}", "x" * 40) as connector,
        pytest.raises(ConnectorError, match="Label Studio cannot be reached while asking for its version") as error,
    ):
        connector.server()
    assert not error.value.permanent


@contextmanager
def _answering(
    status: int, headers: dict[str, str], body: bytes, *, delay: float = 0, timeout: float = 10
) -> Iterator[tuple[LabelStudio, list[str]]]:
    """A server that gives every request one answer: what a proxy in front of Label Studio may do."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.append(f"{self.command} {self.path}")
            time.sleep(delay)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PATCH = do_POST  # noqa: N815 - the base class's names

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with LabelStudio(f"http://127.0.0.1:{server.server_port}", "t" * 40, timeout=timeout) as connector:
            yield connector, seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "permanent"),
    [(301, True), (400, True), (403, True), (408, False), (409, True), (425, False), (429, False), (500, False)],
)
def test_failures_are_tried_once_and_say_whether_again_can_help(status: int, permanent: bool) -> None:
    """The SDK's own retries would repeat a POST; the sentence quotes nothing."""
    headers = {"Set-Cookie": "sessionid=topsecret", "Location": "/elsewhere"}
    with _answering(status, headers, b'{"detail": "topsecret"}') as (connector, seen):
        with pytest.raises(ConnectorError) as error:
            connector.create_webhook(1, "http://x.example/", [], {})
        assert seen == ["POST /api/webhooks/"]
    assert error.value.permanent is permanent
    assert "topsecret" not in str(error.value)
    assert "t" * 40 not in str(error.value)


def test_the_pause_that_was_asked_for_is_handed_on() -> None:
    """Retry-After in seconds, and as a date compared with the server's own clock."""
    with _answering(429, {"Retry-After": "17"}, b"") as (connector, _), pytest.raises(ConnectorError) as error:
        connector.users()
    assert error.value.retry_after == 17
    until = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    with _answering(503, {"Retry-After": until}, b"") as (connector, _), pytest.raises(ConnectorError) as error:
        connector.users()
    assert error.value.retry_after == pytest.approx(90, abs=3)


def test_a_server_that_never_answers_is_given_up_on() -> None:
    """The timeout is the connector's, in seconds."""
    with _answering(200, {}, b"[]", delay=0.6, timeout=0.2) as (connector, _):
        with pytest.raises(ConnectorError, match=r"did not answer within 0\.2 seconds") as error:
            connector.users()
        assert not error.value.permanent


def test_a_listing_that_ignores_the_filters_stops_the_reconciling() -> None:
    """Label Studio accepts operators it does not know and answers with everything: never loop on that."""
    body = b'{"tasks": [{"id": 4, "project": 1, "data": {}, "annotations": []}]}'
    with _answering(200, {"Content-Type": "application/json"}, body) as (connector, seen):
        found = connector.tasks_changed(1, None)
        assert next(found).task.id == 4
        with pytest.raises(ConnectorError, match="ignored the filters") as error:
            next(found)
        assert len(seen) == 2
    assert error.value.permanent


def test_a_server_that_answers_more_than_was_asked_for_by_name_stops_the_reconciling() -> None:
    """One that does not know selected items answers with everything; that must not be taken for an answer."""
    body = b'{"tasks": [{"id": 4, "project": 1, "data": {}, "annotations": []}]}'
    with _answering(200, {"Content-Type": "application/json"}, body) as (connector, _):
        with pytest.raises(ConnectorError, match="ignored the filters") as error:
            list(connector.tasks_named(1, [3, 5]))
        assert error.value.permanent
        assert [record.task.id for record in connector.tasks_named(1, [4])] == [4]


def test_an_unknown_operator_is_accepted_silently(studio: StudioServer, project: LiveProject) -> None:
    """The fact behind the check above."""
    query = '{"filters": {"conjunction": "and", "items": [{"filter": "filter:tasks:id", "operator": "nonsense", '
    query += '"value": 1000000, "type": "Number"}]}}'
    answer = requests.get(
        f"{studio.url}/api/tasks/",
        params={"project": str(project.id), "query": query},
        headers={"Authorization": f"Token {studio.admin.token}"},
        timeout=20,
    )
    assert answer.status_code == 200
