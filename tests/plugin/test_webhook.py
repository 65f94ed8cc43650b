"""What Label Studio's deliveries are answered with, and what is kept of them."""

from __future__ import annotations

import http.client
import json
import logging
import queue
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings, strategies as st

from databases import POSTGRESQL, SQLITE, chosen, tamper
from labelguard.logs import formatter
from labelguard.store import records, schema
from labelguard.web.server import make_server
from labelguard.web.webhook import REMEMBERED
from webservice import NOW, PROJECT, TOKEN, Service, connect, service, submission


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Service]:
    """A running service."""
    with service(tmp_path) as running:
        yield running


@pytest.fixture(scope="module", params=[SQLITE, POSTGRESQL])
def shared(request: pytest.FixtureRequest) -> Iterator[Service]:
    """A service that many generated requests are sent to."""
    with (
        tempfile.TemporaryDirectory() as folder,
        chosen(request.param),
        service(Path(folder), inline_deadline=0.01) as running,
    ):
        yield running


@contextmanager
def listening(web: Service) -> Iterator[int]:
    """The service on a port, behind the server it is shipped with."""
    server = make_server(web.app, web.settings, port=0)

    def run() -> None:
        # Waitress has no other way to be stopped from outside than losing the sockets it waits for.
        with suppress(OSError):
            server.run()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield server.effective_port
    finally:
        server.close()
        thread.join(5)


def inbox(web: Service) -> list[dict[str, Any]]:
    """What was taken in."""
    with web.store.read() as conn:
        return [dict(row) for row in conn.execute(sa.select(schema.inbox)).mappings()]


def rejected(web: Service) -> list[dict[str, Any]]:
    """What was refused."""
    with web.store.read() as conn:
        return records.list_rejected(conn)


def test_a_delivery_is_on_disk_and_judged_when_it_is_answered(web: Service) -> None:
    """The answer names the delivery; the annotation is in the store, the invitation token is not."""
    answer = web.deliver(submission("spam", "refund"))

    assert answer.status_code == 200
    assert answer.json == {"delivery": 1, "duplicate": False, "processed": True}
    (kept,) = inbox(web)
    assert (kept["project"], kept["action"], kept["state"]) == (PROJECT, "ANNOTATION_CREATED", "done")
    assert "invitation" not in json.dumps(kept["body"])
    with web.store.read() as conn:
        assert [row["id"] for row in records.current_annotations(conn, PROJECT)] == [11]


def test_what_breaks_a_rule_is_a_finding_before_the_answer(web: Service) -> None:
    """The rules run within the deadline, so the page can ask for prompts as soon as it has its answer."""
    web.deliver(submission("spam", "important"))

    with web.store.read() as conn:
        (finding,) = records.list_findings(conn, project=PROJECT)
    assert finding["rule"] == "label-constraints"
    assert finding["annotator"] == 101


def test_the_same_delivery_again_changes_nothing(web: Service) -> None:
    """A repeated delivery is answered like the first and kept once."""
    web.deliver(submission("spam"))
    answer = web.deliver(submission("spam"))

    assert answer.status_code == 200
    assert answer.json["duplicate"] is True
    assert len(inbox(web)) == 1


def test_an_action_nobody_knows_yet_is_taken_in(web: Service) -> None:
    """A new Label Studio's events are kept, not refused."""
    answer = web.deliver({"action": "ANNOTATION_PRAISED", "project": {"id": PROJECT}})

    assert answer.status_code == 200
    assert [row["action"] for row in inbox(web)] == ["ANNOTATION_PRAISED"]


@pytest.mark.parametrize("token", [None, "", "wrong", TOKEN + "x", TOKEN[:-1], "ü\xff", "x" * 5000])
def test_without_the_project_s_token_nothing_is_taken_in(web: Service, token: str | None) -> None:
    """A wrong or missing token is a 401 that says which header, and leaves no trace."""
    answer = web.deliver(submission("spam"), token=token)

    assert answer.status_code == 401
    assert answer.json["error"] == (
        "The X-Labelguard-Token header does not have this project's token. `labelguard connect` sets it on the webhook."
    )
    assert inbox(web) == []
    assert rejected(web) == []


@pytest.mark.parametrize("project", [4, 0, 10**18, 10**30])
def test_an_unknown_project_is_answered_like_a_wrong_token(web: Service, project: int) -> None:
    """Nobody can find out which projects there are."""
    unknown = web.deliver(submission("spam"), project=project)
    wrong = web.deliver(submission("spam"), token="wrong")

    assert unknown.status_code == wrong.status_code == 401
    assert unknown.data == wrong.data


def test_a_project_that_was_disconnected_takes_nothing(web: Service) -> None:
    """Without a stored token no token is right, the empty one included."""
    web.store.write(
        lambda conn: records.set_connection(
            conn, PROJECT, connected_at=None, webhook_id=None, webhook_url=None, token_hash=None
        )
    )

    assert web.deliver(submission("spam")).status_code == 401
    assert web.deliver(submission("spam"), token="").status_code == 401


def test_one_project_s_token_does_not_open_another(web: Service) -> None:
    """Each project has a token of its own."""
    connect(web.store, 4, "the-token-of-project-4", "Other")

    assert web.deliver(submission("spam", project=4), project=4, token=TOKEN).status_code == 401


def test_a_token_that_was_replaced_is_refused_a_moment_later(web: Service) -> None:
    """What is remembered of a busy project's token is no second truth."""
    assert web.deliver(submission("spam")).status_code == 200
    connect(web.store, PROJECT, "the-new-token")
    time.sleep(REMEMBERED + 0.1)

    assert web.deliver(submission("spam", annotation=13)).status_code == 401


def test_a_new_token_is_taken_at_once_and_ends_the_old_one(web: Service) -> None:
    """Who sends it proves that what is remembered is out of date."""
    assert web.deliver(submission("spam")).status_code == 200
    connect(web.store, PROJECT, "the-new-token")

    assert web.deliver(submission("spam", annotation=12), token="the-new-token").status_code == 200
    assert web.deliver(submission("spam", annotation=13)).status_code == 401


def test_a_token_in_use_is_looked_up_by_one_delivery_while_the_others_are_taken_in(web: Service) -> None:
    """All of a busy project's deliveries come to its end at once: a store with many readers is slow for all."""
    assert web.deliver(submission("spam")).status_code == 200
    time.sleep(REMEMBERED + 0.1)
    looking: list[str] = []
    answers: queue.SimpleQueue[int] = queue.SimpleQueue()
    go_on = threading.Event()

    def hold_up() -> None:
        name = threading.current_thread().name
        if name.startswith("sender"):
            looking.append(name)
            go_on.wait(30)

    web.store.before_reading = hold_up
    senders = [
        threading.Thread(
            target=lambda number: answers.put(web.deliver(submission("spam", annotation=number)).status_code),
            args=(20 + number,),
            name=f"sender {number}",
        )
        for number in range(6)
    ]
    for sender in senders:
        sender.start()

    assert [answers.get(timeout=10) for _ in senders[1:]] == [200] * 5
    assert len(looking) == 1
    go_on.set()
    for sender in senders:
        sender.join()
    assert answers.get(timeout=10) == 200


def test_a_delivery_about_another_project_is_refused_and_kept_for_the_admin(web: Service) -> None:
    """A token opens its own project only, whatever the body says."""
    answer = web.deliver(submission("spam", project=4))

    assert answer.status_code == 400
    sentence = "The delivery is about project 4, but came to project 3's address."
    assert answer.json == {"error": sentence}
    assert inbox(web) == []
    (kept,) = rejected(web)
    assert (kept["project"], kept["reason"], kept["received_at"]) == (PROJECT, sentence, NOW)
    assert kept["size"] > 100


@pytest.mark.parametrize(
    ("body", "part"),
    [
        (b"", "JSON"),
        (b'{"action": "ANNOTATION_CREATED", "annotation": {"id": 1', "JSON"),
        (b"[1, 2]", "The body must be a JSON object"),
        (b'"text"', "The body must be a JSON object"),
        (b"\xff\xfe\x00", "UTF-8"),
        (b"{}", "`action`"),
        (b'{"action": 7}', "`action`"),
        (b'{"action": "ANNOTATION_CREATED"}', "`annotation`"),
        (b"[" * 100_000, "nested"),
    ],
)
def test_a_body_that_cannot_be_read_is_refused_with_the_reason(web: Service, body: bytes, part: str) -> None:
    """A malformed body is a 400 that says what is wrong with it, and the reason is kept."""
    answer = web.deliver(body)

    assert answer.status_code == 400
    assert part in answer.json["error"]
    assert inbox(web) == []
    assert [row["reason"] for row in rejected(web)] == [answer.json["error"]]


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
def test_only_post_delivers(web: Service, method: str) -> None:
    """Another method is a 405 that names the right one."""
    answer = web.client.open(f"/webhook/{PROJECT}", method=method)

    assert answer.status_code == 405
    assert answer.json == {"error": "This address does not take that method."}
    assert "POST" in answer.headers["Allow"]


@pytest.mark.parametrize("path", ["/webhook/", "/webhook/three", "/webhook/-3", "/webhook/3/4", "/webhook"])
def test_an_address_without_a_project_is_nowhere(web: Service, path: str) -> None:
    """An address of another shape is a 404."""
    assert web.client.post(path, json={}).status_code == 404


def test_a_store_that_cannot_be_written_is_said_to_label_studio(tmp_path: Path) -> None:
    """A delivery that could not be made durable is never answered with success."""
    with service(tmp_path) as web:
        tamper(tmp_path, "DROP TABLE inbox")
        answer = web.deliver(submission("spam"))

    assert answer.status_code == 503
    assert answer.json == {
        "error": "labelguard cannot use its store right now. Nothing was taken in; try again shortly."
    }
    assert answer.headers["Retry-After"] == "10"


def test_the_log_has_no_body_and_no_token(web: Service, caplog: pytest.LogCaptureFixture) -> None:
    """What annotators write and what opens the webhook stay out of the log, for good and bad deliveries."""
    caplog.set_level(logging.DEBUG)
    web.deliver(submission("spam", unique_id="something-personal"))
    web.deliver(b'{"action": "something-personal')
    web.deliver(submission("spam", unique_id="something-personal"), token="a-wrong-token")

    assert "A delivery was taken in: ANNOTATION_CREATED of project 3" in caplog.text
    assert "something-personal" not in caplog.text
    assert TOKEN not in caplog.text
    assert "a-wrong-token" not in caplog.text


def test_a_forged_action_cannot_write_a_line_of_the_log(web: Service, caplog: pytest.LogCaptureFixture) -> None:
    """The action's name is the only text of the body that is logged, and it stays on its line."""
    caplog.set_level(logging.DEBUG)
    web.deliver({"action": "X\n2026-01-01 [error] forged", "project": {"id": PROJECT}})

    lines = [formatter(json=False).format(record) for record in caplog.records]
    assert any("forged" in line for line in lines)
    assert not any("\n" in line for line in lines)


# On a real socket


def test_a_body_that_is_too_large_is_refused_without_being_read_into_memory(tmp_path: Path) -> None:
    """30 MB get a 413 with a sentence, cost next to no memory, and the refusal is kept."""
    with service(tmp_path, max_body_bytes=16 * 1024 * 1024) as web, listening(web) as port:
        body = b"x" * 30_000_000
        tracemalloc.start()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("POST", f"/webhook/{PROJECT}", body, {"X-Labelguard-Token": TOKEN})
        answer = connection.getresponse()
        said = json.loads(answer.read())
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        connection.close()

        assert answer.status == 413
        assert said == {
            "error": "The body is too large: labelguard takes 16,777,216 bytes at most. "
            "Set LABELGUARD_MAX_BODY_BYTES to take more."
        }
        assert peak < 8_000_000
        assert [(row["size"], row["project"]) for row in rejected(web)] == [(30_000_000, PROJECT)]


def test_a_body_of_untold_length_is_limited_too(tmp_path: Path) -> None:
    """A chunked body beyond the limit is a 413 as well, and one within it is taken in."""
    with service(tmp_path, max_body_bytes=100_000) as web, listening(web) as port:

        def post(chunks: list[bytes]) -> int:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            connection.request(
                "POST", f"/webhook/{PROJECT}", iter(chunks), {"X-Labelguard-Token": TOKEN}, encode_chunked=True
            )
            status = connection.getresponse().status
            connection.close()
            return status

        text = json.dumps(submission("spam")).encode()

        assert post([b"x" * 10_000] * 30) == 413
        assert post([text[:100], text[100:]]) == 200
        assert len(inbox(web)) == 1


def test_a_sender_that_stalls_holds_nobody_up(tmp_path: Path) -> None:
    """Many senders that send half a body and wait leave the service to the others."""
    with service(tmp_path) as web, listening(web) as port:
        stalled = [http.client.HTTPConnection("127.0.0.1", port, timeout=30) for _ in range(40)]
        for connection in stalled:
            connection.putrequest("POST", f"/webhook/{PROJECT}")
            connection.putheader("X-Labelguard-Token", TOKEN)
            connection.putheader("Content-Length", "1000")
            connection.endheaders(b"{")
        other = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        other.request(
            "POST", f"/webhook/{PROJECT}", json.dumps(submission("spam")).encode(), {"X-Labelguard-Token": TOKEN}
        )

        assert other.getresponse().status == 200
        for connection in [*stalled, other]:
            connection.close()


def test_an_annotation_with_ten_thousand_regions_is_taken_in(web: Service) -> None:
    """Large honest work is not a mistake."""
    regions = [
        {
            "id": f"r{n}",
            "from_name": "box",
            "to_name": "image",
            "type": "rectanglelabels",
            "value": {"x": 1.5, "y": 2, "width": 3, "height": 4, "rectanglelabels": ["cat"]},
        }
        for n in range(10_000)
    ]
    answer = web.deliver(submission(result=regions))

    assert answer.status_code == 200
    assert [row["state"] for row in inbox(web)] == ["done"]


# Whatever anybody sends

ANY_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=True)
    | st.text(st.characters(codec=None), max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from(
    ["id", "task", "project", "result", "completed_by", "updated_by", "created_at", "updated_at", "was_cancelled"]
)
ACTIONS = st.sampled_from(
    [
        "ANNOTATION_CREATED",
        "ANNOTATION_UPDATED",
        "ANNOTATIONS_CREATED",
        "ANNOTATIONS_DELETED",
        "TASKS_CREATED",
        "TASKS_DELETED",
        "PROJECT_UPDATED",
        "LABEL_LINK_CREATED",
        "NEWS",
    ]
)


def check_answer(answer: Any) -> None:
    """A clear answer: no failure of ours, and words instead of a traceback."""
    assert answer.status_code in {200, 400}, answer.data
    assert b"Traceback" not in answer.data
    if answer.status_code == 400:
        assert answer.json["error"].endswith((".", "?", '"'))


BOUNDED = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@BOUNDED
@given(body=st.binary(max_size=200))
def test_any_bytes_get_a_clear_answer(shared: Service, body: bytes) -> None:
    """Noise is refused with a sentence."""
    check_answer(shared.deliver(body))


@BOUNDED
@given(action=ACTIONS, body=st.dictionaries(st.sampled_from(["annotation", "task", "tasks", "project"]), ANY_JSON))
def test_any_json_gets_a_clear_answer(shared: Service, action: str, body: dict[str, Any]) -> None:
    """Any JSON under the names Label Studio uses is taken in or refused, never a failure."""
    check_answer(shared.deliver(json.dumps({"action": action, **body})))


@BOUNDED
@given(field=FIELDS, value=ANY_JSON, action=ACTIONS)
def test_one_wrong_field_gets_a_clear_answer(shared: Service, field: str, value: Any, action: str) -> None:
    """A real delivery with one field of another shape is taken in or refused, never a failure."""
    body = submission("spam", **{field: value})
    check_answer(shared.deliver(json.dumps({**body, "action": action})))


@BOUNDED
@given(result=st.lists(st.dictionaries(st.sampled_from(["id", "from_name", "type", "value"]), ANY_JSON), max_size=4))
def test_any_result_gets_a_clear_answer(shared: Service, result: list[Any]) -> None:
    """Result items of unknown or broken shape are kept as they are."""
    check_answer(shared.deliver(json.dumps(submission(result=result))))
    assert shared.client.get("/readyz").status_code == 200


def test_nothing_that_was_sent_broke_the_rules_engine(shared: Service) -> None:
    """None of the generated deliveries that were taken in failed later."""
    shared.engine.process_pending()
    with shared.store.read() as conn:
        assert [row["error"] for row in records.failed_deliveries(conn)] == []
