"""Reviews on an Enterprise: told by its webhook, confirmed by its API, shown beside findings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from deliveries import ANN, LABELGUARD, PROJECT, annotation, at, created, project, updated
from enterprise import Enterprise, Failure, enterprise
from guarded import Guarded, guarded
from labelguard.connectors import ConnectorError
from labelguard.reviews import agreement, check_reviews, in_words, with_reviews
from labelguard.store import records
from labelguard.store.schema import reviews
from labelguard_connectors import LabelStudio
from webservice import PROJECT as WEB_PROJECT, service, submission

REVIEWER = 201
WRONG = ("spam", "important")


@dataclass
class World:
    """An Enterprise and a labelguard that is told by hand what its webhook would say."""

    server: Enterprise
    guard: Guarded
    studio: LabelStudio

    def wrong(self, number: int = 11) -> None:
        """An annotator submits what the policy forbids."""
        body = created(annotation(number, *WRONG, task=7))
        self.server.hold(body)
        self.guard.take(body)

    def review(self, number: int = 11, *, minutes: float = 30, **said: Any) -> dict[str, Any]:
        """A reviewer says something in Label Studio; returns the review, which labelguard has not heard of."""
        made = self.server.reviewed(number, REVIEWER, **said)
        made["created_at"] = at(minutes).isoformat()
        return made

    def tell(self, action: str, review: Any, key: str = "review", **more: Any) -> None:
        """The webhook tells."""
        self.guard.take({"action": action, key: review, "project": project(), **more})

    def check(self) -> int:
        """Ask Label Studio for what is in doubt."""
        return check_reviews(self.guard.store, self.studio, PROJECT, clock=self.guard.clock)["reviews_checked"]

    def shown(self, finding: int = 0) -> str:
        """How a finding's review reads."""
        with self.guard.store.read() as conn:
            return in_words(with_reviews(conn, self.guard.findings())[finding]["review"])

    def agreement(self) -> list[dict[str, Any]]:
        """What is counted."""
        with self.guard.store.read() as conn:
            return agreement(conn, PROJECT)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """With one finding."""
    with enterprise() as server, guarded(tmp_path) as guard:
        token = server.person(LABELGUARD, "MA").token
        server.person(REVIEWER, "RE")
        server.person(ANN)
        with LabelStudio(server.url, token) as studio:
            guard.store.write(lambda conn: records.save_annotators(conn, studio.users()))
            made = World(server, guard, studio)
            made.wrong()
            yield made


@pytest.mark.parametrize(
    ("said", "words", "counted"),
    [
        ({"accepted": False}, "rejected", {"changed": 1, "accepted": 0}),
        ({"accepted": True, "fixed": True}, "fixed", {"changed": 1, "accepted": 0}),
        ({"accepted": True}, "accepted", {"changed": 0, "accepted": 1}),
    ],
)
def test_a_verdict_is_shown_beside_the_finding_and_counts_once_confirmed(
    world: World, said: dict[str, bool], words: str, counted: dict[str, int]
) -> None:
    """A delivery is a hint; the finding itself stays as it is, for a review judges the annotation."""
    world.tell("REVIEW_CREATED", world.review(**said))
    assert world.shown() == f"{words} by user201@example.com (not confirmed yet)"
    assert world.agreement() == []
    assert world.check() == 1
    assert world.shown() == f"{words} by user201@example.com"
    assert world.agreement() == [{"rule": "label-constraints", **counted}]
    assert world.guard.findings()[0]["state"] == "open"
    assert world.check() == 0


def test_a_changed_mind_replaces_the_verdict_and_a_deleted_review_goes(world: World) -> None:
    """A deletion is a hint as well: Label Studio is asked."""
    review = world.review(accepted=False)
    world.tell("REVIEW_CREATED", review)
    world.check()
    review["accepted"] = True
    world.tell("REVIEW_UPDATED", review)
    world.check()
    assert world.shown() == "accepted by user201@example.com"
    world.tell("REVIEWS_DELETED", [{"id": review["id"]}], key="reviews")
    assert world.check() == 1
    assert world.shown() == "accepted by user201@example.com"
    del world.server.reviews[review["id"]]
    world.tell("REVIEWS_DELETED", [{"id": review["id"]}], key="reviews", reviewed_at="later")
    world.check()
    assert (world.shown(), world.agreement()) == ("", [])


def test_a_forged_review_never_counts_and_harms_no_true_one(world: World) -> None:
    """Neither one that there is not, nor a true one told wrong, nor one of another project's annotation."""
    true = world.review(accepted=False)
    world.tell("REVIEW_CREATED", true)
    world.check()
    world.tell("REVIEW_UPDATED", {**true, "accepted": True, "annotation": 12})
    world.tell("REVIEW_CREATED", {**true, "id": 999_999, "accepted": True, "created_at": at(50).isoformat()})
    world.server.task(8, project=99)
    world.server.annotation(81, 8, by=ANN)
    world.tell("REVIEW_CREATED", {**world.review(81, accepted=True), "annotation": 11})
    assert world.shown().endswith("(not confirmed yet)")
    assert world.check() == 3
    assert world.shown() == "rejected by user201@example.com"
    assert world.agreement() == [{"rule": "label-constraints", "changed": 1, "accepted": 0}]
    with world.guard.store.read() as conn:
        kept = conn.scalars(sa.select(reviews.c.review).where(reviews.c.deleted_at.is_(None)))
        assert list(kept) == [true["id"]]


def test_a_review_of_a_later_version_says_nothing_about_the_finding(world: World) -> None:
    """The annotator has followed the prompt: that the result was accepted does not make the finding wrong."""
    corrected = annotation(11, "spam", task=7, saved=at(10))
    world.server.hold(updated(corrected))
    world.guard.take(updated(corrected))
    world.tell("REVIEW_CREATED", world.review(accepted=True))
    world.check()
    assert world.shown() == "accepted by user201@example.com (a later version)"
    assert world.agreement() == []


def test_what_a_reviewer_fixed_is_the_version_before_their_own(world: World) -> None:
    """Their correction may be told before their review."""
    fixed = annotation(11, "spam", task=7, saved=at(29), updated_by=REVIEWER)
    world.server.hold(updated(fixed))
    world.guard.take(updated(fixed))
    world.tell("REVIEW_CREATED", world.review(accepted=True, fixed=True))
    world.check()
    assert world.shown() == "fixed by user201@example.com"
    assert world.agreement() == [{"rule": "label-constraints", "changed": 1, "accepted": 0}]


@pytest.mark.parametrize(
    ("review", "more"),
    [
        (None, {}),
        ("rejected", {}),
        ([], {}),
        ([None, 3, {}], {}),
        ({"id": "x", "annotation": 11, "accepted": True}, {}),
        ({"id": 5, "annotation": {"no": "id"}, "accepted": True, "created_at": at(1).isoformat()}, {}),
        ({"id": 5, "annotation": 11, "accepted": None, "created_at": at(1).isoformat()}, {}),
        ({"id": 5, "annotation": 11, "accepted": "yes", "created_at": at(1).isoformat()}, {}),
        ({"id": 5, "annotation": 11, "accepted": True, "created_at": "yesterday"}, {}),
        ({"id": 5, "annotation": 11, "accepted": True, "created_at": "2026-01-01"}, {}),
        ({"id": 2**70, "annotation": 11, "accepted": True, "created_at": at(1).isoformat()}, {}),
    ],
)
def test_a_review_event_of_another_shape_is_kept_and_leads_to_nothing(world: World, review: Any, more: Any) -> None:
    """No public description of these deliveries could be found: nothing is refused for its shape."""
    for action in ("REVIEW_CREATED", "REVIEW_UPDATED", "REVIEWS_DELETED"):
        world.tell(action, review, **more)
    assert {state for _, state in world.guard.inbox()} == {"done"}
    assert world.shown() == ""


def test_a_review_is_understood_with_ids_or_with_objects_alone_or_in_a_list(world: World) -> None:
    """As the API gives it, expanded, with its annotation beside it, and several at once."""
    review = world.review(accepted=False)
    world.tell("REVIEW_CREATED", {**review, "annotation": {"id": 11}, "created_by": {"id": REVIEWER}})
    assert world.shown().startswith("rejected by user201")
    bare = {key: value for key, value in review.items() if key != "annotation"}
    world.tell("REVIEW_CREATED", {**bare, "id": review["id"] + 1, "accepted": True}, annotation={"id": 11, "task": 7})
    assert world.shown().startswith("accepted by user201")
    world.tell("REVIEW_CREATED", [{**review, "id": review["id"] + 2}], key="reviews")
    assert world.shown().startswith("rejected by user201")


def test_where_reviews_may_not_be_read_they_stay_in_doubt_and_nothing_fails(world: World) -> None:
    """An outage, on the other hand, is told to whoever asked."""
    world.tell("REVIEW_CREATED", world.review(accepted=False))
    world.server.people[LABELGUARD].role = "AN"
    assert world.check() == 0
    world.server.people[LABELGUARD].role = "MA"
    world.server.fail("annotation_reviews.get", Failure("before", 502))
    with pytest.raises(ConnectorError):
        world.check()
    assert world.check() == 1


def test_the_service_takes_review_events_and_its_api_shows_the_verdict(tmp_path: Path) -> None:
    """Through the doors: the webhook, the findings, the status."""
    with service(tmp_path) as web:
        web.deliver(submission("spam", "important"))
        review = {"id": 5, "annotation": 11, "accepted": False, "created_by": REVIEWER, "created_at": at(9).isoformat()}
        answer = web.deliver({"action": "REVIEW_CREATED", "review": review, "project": {"id": WEB_PROJECT}})
        assert answer.status_code in {200, 202}
        web.engine.process_pending()
        (finding,) = web.api("GET", "/findings").json["findings"]
        shown = finding["review"]
        assert (shown["verdict"], shown["by"], shown["verified"]) == ("rejected", "user 201", False)
        assert web.api("GET", f"/findings/{finding['id']}").json["review"] == shown
        assert web.api("GET", "/status").json["reviews"] == []
