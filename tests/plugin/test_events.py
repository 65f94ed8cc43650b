"""Webhook bodies become events: real deliveries of Label Studio 1.23, and what must be refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from labelguard.events import MAX_DEPTH, BadDelivery, Event

DELIVERIES = Path(__file__).parent / "deliveries"
LISTINGS = Path(__file__).parent / "listings"


def delivery(name: str) -> dict[str, Any]:
    """A captured body, fresh for each test to change."""
    body: dict[str, Any] = json.loads((DELIVERIES / f"{name}.json").read_text("utf-8"))
    return body


def event(body: dict[str, Any] | bytes | str) -> Event:
    """The body as it arrives, parsed."""
    return Event.from_delivery({}, json.dumps(body).encode() if isinstance(body, dict) else body)


def refusal(body: dict[str, Any] | bytes | str) -> str:
    """The sentence a body is refused with."""
    with pytest.raises(BadDelivery) as caught:
        event(body)
    return str(caught.value)


def set_in(body: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """The body with one field changed; the path's parts are joined by dots."""
    *parents, last = path.split(".")
    place = body
    for parent in parents:
        place = place[parent]
    place[last] = value
    return body


@pytest.mark.parametrize("path", sorted(DELIVERIES.glob("*.json")), ids=lambda path: path.stem)
def test_every_captured_delivery_is_understood(path: Path) -> None:
    """Each real body is known, names its project and keeps its action."""
    raw = path.read_bytes()
    parsed = event(raw)
    assert parsed.known
    assert parsed.action == json.loads(raw)["action"]
    assert parsed.project is not None
    assert parsed.project.id == 1


def test_a_created_annotation_carries_everything_rules_need() -> None:
    """Annotation, task and project come out typed, with times in UTC."""
    parsed = event(delivery("annotation-created"))
    (annotation,) = parsed.annotations
    assert (annotation.id, annotation.task, annotation.project) == (2, 1, 1)
    assert (annotation.completed_by, annotation.updated_by) == (1, 1)
    assert annotation.lead_time == 12.5
    assert annotation.created_at == datetime.fromisoformat("2026-11-23T20:38:01.144404+00:00")
    assert not annotation.was_cancelled
    assert len(annotation.result) == 15
    assert annotation.unique_id
    task = parsed.task_of(annotation)
    assert task is not None
    assert task.data["channel"] == "mail"
    assert task.overlap == 1
    assert parsed.project is not None
    assert parsed.project.title == "Überprüfung 日本"
    assert parsed.project.guideline == "<b>Read</b> twice"
    assert parsed.project.label_config.startswith("<View>")


def test_a_skip_is_a_cancelled_annotation() -> None:
    """Label Studio has no event of its own for a skip."""
    (annotation,) = event(delivery("annotation-skipped")).annotations
    assert annotation.was_cancelled
    assert annotation.result == ()


def test_bulk_annotations_find_their_tasks() -> None:
    """`annotation` and `task` are lists in the bulk form."""
    parsed = event(delivery("annotations-created"))
    (annotation,) = parsed.annotations
    assert annotation.parent_prediction == 1
    task = parsed.task_of(annotation)
    assert task is not None
    assert task.data["text"] == "gold"


def test_the_bulk_form_of_one_annotation_says_the_same_as_the_single_form() -> None:
    """Rules see no difference between the two."""
    single = delivery("annotation-created")
    bulk = {**single, "annotation": [single["annotation"]], "task": [single["task"]]}
    assert event(bulk).annotations == event(single).annotations
    assert event(bulk).tasks == event(single).tasks


def test_deletions_name_what_is_gone() -> None:
    """Bulk deletions bring all ids and the project."""
    assert event(delivery("annotations-deleted")).deleted == (2, 1, 4)
    assert event(delivery("tasks-deleted")).deleted == (3, 4)


def test_deletions_are_not_deduplicated_but_everything_else_is() -> None:
    """Ids are given out again on SQLite, so two equal deletions may be two; they are safe to take twice."""
    for path in DELIVERIES.glob("*.json"):
        parsed = event(path.read_bytes())
        assert parsed.idempotent == parsed.action.endswith("_DELETED")


def test_a_deletion_without_ids_or_project_is_accepted() -> None:
    """Something is gone; refusing to hear it would not help."""
    assert event({"action": "ANNOTATIONS_DELETED"}).deleted == ()


def test_an_api_listing_is_read_like_imported_tasks() -> None:
    """Reconciliation feeds listings through the same door; there, a task's `updated_by` is a list."""
    tasks = json.loads((LISTINGS / "tasks.json").read_text("utf-8"))
    project = delivery("project-updated")["project"]
    parsed = event({"action": "TASKS_CREATED", "tasks": tasks, "project": project})
    assert [task.id for task in parsed.tasks] == [1, 2, 5]
    assert {annotation.task for annotation in parsed.annotations} == {1, 2, 5}
    assert any(annotation.ground_truth for annotation in parsed.annotations)


@pytest.mark.parametrize(
    ("field", "found", "expected"),
    [
        ("completed_by", {"id": 7, "email": "a@example.org"}, 7),
        ("completed_by", None, None),
        ("updated_by", [{"user_id": 3}, {"user_id": 4}], 4),
        ("updated_by", [], None),
        ("updated_by", None, None),
        ("task", {"id": 1}, 1),
        ("task", None, 1),
        ("project", None, 1),
        ("result", None, ()),
        ("lead_time", None, None),
        ("lead_time", 3, 3.0),
        ("unique_id", None, ""),
        ("created_at", "2026-01-02T03:04:05+02:00", datetime(2026, 1, 2, 1, 4, 5, tzinfo=UTC)),
        ("created_at", "2026-01-02T03:04:05", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("created_at", None, None),
        ("prediction", {"result": [{"id": "a"}]}, ({"id": "a"},)),
        ("prediction", "anything a client sends", ()),
    ],
)
def test_each_form_of_an_annotation_field_is_read(field: str, found: Any, expected: Any) -> None:
    """Deliveries, listings and exports write the same fact in several ways."""
    (annotation,) = event(set_in(delivery("annotation-created"), f"annotation.{field}", found)).annotations
    assert getattr(annotation, field) == expected


def test_an_annotation_without_task_and_project_takes_them_from_the_delivery() -> None:
    """The two fields may be missing altogether."""
    body = delivery("annotation-created")
    del body["annotation"]["task"], body["annotation"]["project"]
    (annotation,) = event(body).annotations
    assert (annotation.task, annotation.project) == (1, 1)


@pytest.mark.parametrize(
    ("path", "found", "sentence"),
    [
        ("action", None, "`action` must be the name of a Label Studio event, but is null."),
        ("action", "A" * 200, "`action` must have at most 128 characters, but has 200."),
        ("annotation", 3, "`annotation` must be an object, but is the number 3."),
        ("annotation", [3], "`annotation[0]` must be an object, but is the number 3."),
        ("annotation.id", True, "`annotation.id` must be a whole number, but is true."),
        ("annotation.id", "12", "`annotation.id` must be a whole number, but is the text '12'."),
        ("annotation.id", 1.0, "`annotation.id` must be a whole number, but is the number 1.0."),
        ("annotation.id", None, "`annotation.id` must be a whole number, but is null."),
        (
            "task.id",
            2**63,
            "`task.id` must be between 0 and 9223372036854775807, but is the number 9223372036854775808.",
        ),
        (
            "annotation.id",
            10**4000,
            "`annotation.id` must be between 0 and 9223372036854775807, but is a very large number.",
        ),
        (
            "annotation.completed_by",
            "me",
            "`annotation.completed_by` must be a whole number, but is the text 'me'.",
        ),
        (
            "annotation.completed_by",
            {},
            "`annotation.completed_by.id` must be a whole number, but is missing.",
        ),
        ("annotation.result", {}, "`annotation.result` must be a list of result items, but is an object."),
        ("annotation.result", [{}, []], "`annotation.result[1]` must be an object, but is a list."),
        (
            "annotation.was_cancelled",
            1,
            "`annotation.was_cancelled` must be true or false, but is the number 1.",
        ),
        (
            "annotation.lead_time",
            "1",
            "`annotation.lead_time` must be a number of seconds, but is the text '1'.",
        ),
        (
            "annotation.updated_at",
            "yesterday " * 9,
            (
                "`annotation.updated_at` must be an ISO 8601 date and time, "
                "but is the text 'yesterday yesterday yesterday yesterd...'."
            ),
        ),
        (
            "task.created_at",
            "0001-01-01T00:00+23:00",
            "`task.created_at` must be an ISO 8601 date and time, but is the text '0001-01-01T00:00+23:00'.",
        ),
        (
            "annotation.project",
            4,
            "`annotation.project` must be 1, the project of the delivery, but is 4.",
        ),
        ("task.data", [], "`task.data` must be an object, but is a list."),
        ("project", "1", "`project` must be an object, but is the text '1'."),
        ("project.title", ["x"], "`project.title` must be text, but is a list."),
        (
            "annotation",
            None,
            (
                "The ANNOTATION_CREATED delivery has no `annotation`. "
                'Switch on "Send payload" for the webhook in Label Studio.'
            ),
        ),
    ],
)
def test_a_wrong_shape_is_refused_with_the_field_and_what_was_found(path: str, found: Any, sentence: str) -> None:
    """The sender's admin reads the whole sentence."""
    assert refusal(set_in(delivery("annotation-created"), path, found)) == sentence


def test_the_annotation_names_the_project_where_nothing_describes_it() -> None:
    """A thinned-out body still says what it is about."""
    event = Event.from_delivery({}, set_in(delivery("annotation-created"), "project", None))

    assert event.project is not None
    assert (event.project.id, event.project.label_config) == (event.annotations[0].project, "")


def test_a_delivery_that_names_no_project_is_refused() -> None:
    """Nobody could say whose policy it falls under."""
    body = delivery("annotation-created")
    for part in ("annotation", "task"):
        body[part].pop("project", None)

    assert refusal(set_in(body, "project", None)) == (
        "The ANNOTATION_CREATED delivery does not say which project it is about. "
        'Switch on "Send payload" for the webhook in Label Studio.'
    )


def test_an_annotation_inside_another_task_is_refused() -> None:
    """Two facts that contradict each other are no fact."""
    body = delivery("tasks-created")
    body["tasks"][0]["annotations"] = [{"id": 9, "task": 77, "result": []}]
    expected = f"`tasks[0].annotations[0].task` must be {body['tasks'][0]['id']}, the task it stands in, but is 77."
    assert refusal(body) == expected


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "The body is not JSON: Expecting value at line 1, column 1."),
        (b'{"action": "X"', "The body is not JSON: Expecting ',' delimiter at line 1, column 15."),
        (b'{"action": "\xff"}', "The body is not UTF-8 text: byte 12 cannot be read."),
        (b"[]", "The body must be a JSON object, but is a list."),
        (b"null", "The body must be a JSON object, but is null."),
        (b"{}", "`action` must be the name of a Label Studio event, but is missing."),
        (b'{"action": "X", "n": NaN}', "The body holds the number 'NaN'; numbers must be finite."),
        (
            b'{"action": "X", "n": -Infinity}',
            "The body holds the number '-Infinity'; numbers must be finite.",
        ),
        (b'{"action": "X", "n": 1e999}', "The body holds the number '1e999'; numbers must be finite."),
        (
            b'{"action": "X", "n": ' + b"9" * 5000 + b"}",
            "The body holds a whole number with thousands of digits.",
        ),
        (
            b'{"action": "X", "n": ' + b"[" * 300 + b"]" * 300 + b"}",
            f"The body is nested more than {MAX_DEPTH} levels deep.",
        ),
        (b"[" * 100_000, f"The body is nested more than {MAX_DEPTH} levels deep."),
    ],
)
def test_what_is_not_plain_json_is_refused_with_a_sentence(body: bytes, sentence: str) -> None:
    """Whatever is posted, the answer says what is wrong with it."""
    assert refusal(body) == sentence


def test_an_unknown_action_is_accepted_and_kept() -> None:
    """A new release of Label Studio must not break us, whatever it puts into its bodies."""
    parsed = event({"action": "PROJECT_SNOOZED", "project": "later", "annotation": 5})
    assert not parsed.known
    assert parsed.project is None
    assert parsed.body["annotation"] == 5


@pytest.mark.parametrize(
    "action",
    [
        "LABEL_LINK_CREATED",
        "LABEL_LINK_UPDATED",
        "LABEL_LINK_DELETED",
        "REVIEW_CREATED",
        "REVIEW_UPDATED",
        "REVIEWS_DELETED",
        "PROJECT_CREATED",
        "PROJECT_DELETED",
    ],
)
def test_actions_that_only_concern_the_project_are_known(action: str) -> None:
    """Links, reviews and projects are kept with the project they belong to."""
    parsed = event({"action": action, "project": {"id": 8}})
    assert parsed.known
    assert parsed.project is not None
    assert parsed.project.id == 8


def test_text_that_databases_refuse_is_replaced() -> None:
    """NUL breaks PostgreSQL, a lone surrogate breaks UTF-8: both become U+FFFD, everywhere."""
    raw = rb'{"action": "NEW\u0000", "a\ud800": ["x\udc00", {"y": "\ud83d\ude00"}]}'
    parsed = event(raw)
    assert parsed.action == "NEW�"
    assert parsed.body["a�"] == ["x�", {"y": "😀"}]
    json.dumps(parsed.body, ensure_ascii=False).encode()


def test_the_digest_is_blind_to_key_order_and_sees_every_change() -> None:
    """The same delivery twice is one; a changed one is another."""
    body = delivery("annotation-created")
    digest = event(body).digest
    assert event(dict(reversed(body.items()))).digest == digest
    assert event(set_in(body, "annotation.lead_time", 13)).digest != digest


def test_the_content_hash_sees_only_what_the_annotation_says() -> None:
    """Saving again without a change keeps the hash; a skip or another label does not."""
    body = delivery("annotation-created")
    (first,) = event(body).annotations
    (saved_again,) = event(set_in(body, "annotation.updated_at", "2027-01-01T00:00:00Z")).annotations
    (skipped,) = event(set_in(body, "annotation.was_cancelled", True)).annotations
    assert saved_again.content_hash == first.content_hash
    assert skipped.content_hash != first.content_hash


def test_ten_thousand_regions_are_read() -> None:
    """One annotation may hold a page full of small boxes."""
    body = delivery("annotation-created")
    region = body["annotation"]["result"][-4]
    body["annotation"]["result"] = [{**region, "id": f"r{number}"} for number in range(10_000)]
    parsed = event(json.dumps(body).encode())
    assert len(parsed.annotations[0].result) == 10_000


def test_each_of_thousands_of_annotations_finds_its_task() -> None:
    """An import of 5,000 tasks is one delivery."""
    tasks = [{"id": n, "annotations": [{"id": n, "result": []}]} for n in range(5_000)]
    parsed = event({"action": "TASKS_CREATED", "project": {"id": 1}, "tasks": tasks})
    assert [parsed.task_of(annotation) for annotation in parsed.annotations] == list(parsed.tasks)


def test_a_parsed_mapping_is_the_same_as_its_bytes() -> None:
    """Reconciliation hands over objects instead of text."""
    body = delivery("annotation-created")
    assert Event.from_delivery({}, body) == event(body)
