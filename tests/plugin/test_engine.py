"""The engine: what becomes of deliveries, whatever order, number and shape they come in."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from bundles import install
from deliveries import (
    ADMIN,
    ANN,
    BEN,
    LABELGUARD,
    NOW,
    PROJECT,
    annotation,
    at,
    bulk,
    created,
    deleted,
    project,
    task,
    topics,
    updated,
)
from guarded import Guarded, guarded, policy
from labelguard import registry
from labelguard.events import Event
from labelguard.store import records, schema
from labelguard.store.core import StoreError

WRONG = ("spam", "important")

TEST_RULES = '''
    from dataclasses import dataclass
    from labelguard import Finding, Guardrail

    @dataclass(frozen=True)
    class Raises(Guardrail):
        """Always raises, after having remembered something."""

        name = "raises"

        def check(self, submission, context):
            context.state("all")["seen"] = submission.annotation.id
            raise KeyError(submission.annotation.id)
            yield

    @dataclass(frozen=True)
    class Unstorable(Guardrail):
        """Finds something that JSON cannot hold."""

        name = "unstorable"

        def check(self, submission, context):
            yield Finding("Never kept.", evidence={"share": float("nan")})

    @dataclass(frozen=True)
    class ForgetsJson(Guardrail):
        """Remembers something that JSON cannot hold."""

        name = "forgets-json"

        def check(self, submission, context):
            context.state("all")["seen"] = {1, 2}
            return iter(())

    @dataclass(frozen=True)
    class Counts(Guardrail):
        """Counts what it sees, and what was first."""

        name = "counts"

        def check(self, submission, context):
            memory = context.state("all")
            memory["seen"] = memory.get("seen", 0) + 1
            others = len(context.task_judgments(submission.task.id, "topics"))
            yield Finding(
                f"{memory['seen']} seen, first {submission.first}, {others} others, by {submission.author}.",
                evidence={"seen": memory["seen"]},
            )

    RULES = (Raises, Unstorable, ForgetsJson, Counts)
'''
COUNTS = "  - rule: counts\n    mode: enforce\n    actions: [prompt]\n"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Guarded]:
    """A labelguard whose policy forbids ``spam`` with ``important``."""
    with guarded(tmp_path) as made:
        yield made


@pytest.fixture
def bundle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Rules of a third party."""
    install(monkeypatch, tmp_path / "bundle", TEST_RULES, name="test-rules")
    yield
    registry.forget()


def messages(world: Guarded, rule: str) -> list[str]:
    """What a rule said."""
    return [row["message"] for row in world.findings(rule=rule)]


# The same, again


def test_a_redelivery_finds_nothing_twice(world: Guarded) -> None:
    """The same body is one delivery, and says so."""
    first = world.take(created(annotation(11, *WRONG)))
    again = world.take(created(annotation(11, *WRONG)))
    assert (again.delivery, again.duplicate, again.processed) == (first.delivery, True, True)
    assert len(world.findings()) == len(world.actions()) == 1
    assert world.inbox() == [("ANNOTATION_CREATED", "done")]


def test_the_same_version_in_another_delivery_finds_nothing_twice(world: Guarded) -> None:
    """A reconcile brings what the webhook brought too, with another body."""
    world.take(created(annotation(11, *WRONG)))
    world.take({**created(annotation(11, *WRONG)), "reconciled_at": "later"}, origin="reconcile")
    assert len(world.findings()) == 1
    assert world.versions() == [(1, True)]


def test_a_delivery_processed_again_after_a_crash_finds_nothing_twice(world: Guarded) -> None:
    """Killed after the annotation was written and before the delivery was marked done."""
    world.take(bulk([annotation(n, *WRONG, task=n) for n in (11, 12)]))
    before = world.findings(), world.actions(), world.versions()
    world.store.write(lambda conn: conn.execute(sa.update(schema.inbox).values(state="pending")))
    world.engine.process_pending()
    assert (world.findings(), world.actions(), world.versions()) == before
    assert world.inbox() == [("ANNOTATIONS_CREATED", "done")]


def test_deletions_are_never_taken_for_redeliveries(world: Guarded) -> None:
    """Label Studio gives ids out again on SQLite: two equal bodies may be two deletions."""
    world.take(created(annotation(11, "spam")))
    world.take(deleted(11))
    world.take(created(annotation(11, "refund", created=at(5))))
    assert [row["created_at"] for row in world.annotations()] == [at(5)]
    world.take(deleted(11))
    assert world.annotations() == []
    assert [state for _, state in world.inbox()] == ["done"] * 4


def test_an_unknown_action_is_kept_and_counted(world: Guarded) -> None:
    """A newer Label Studio may send more than is known here."""
    world.take({"action": "SOMETHING_NEW", "project": project()})
    assert world.inbox() == [("SOMETHING_NEW", "ignored")]


# Order


def test_a_stale_delivery_does_not_take_an_annotation_back(world: Guarded) -> None:
    """With Redis deliveries overtake each other; Label Studio's own time says which is newer."""
    world.take(updated(annotation(11, "refund", saved=at(2))))
    world.take(updated(annotation(11, *WRONG, saved=at(1))))
    (row,) = world.annotations()
    assert (row["updated_at"], row["result"]) == (at(2), topics("refund"))
    assert world.findings() == []


def test_a_first_submission_that_its_edit_overtook_still_counts(world: Guarded) -> None:
    """Otherwise whoever saves twice quickly would never be measured; but nothing is asked about it any more."""
    world.take(updated(annotation(11, "refund", saved=at(2))))
    world.take(created(annotation(11, *WRONG)))
    assert world.versions() == [(1, False), (2, True)]
    assert world.annotations()[0]["result"] == topics("refund")
    (finding,) = world.findings()
    assert finding["evidence"]["not_done"] == ["no action: the annotation was saved again since"]
    world.take({**created(annotation(11, *WRONG)), "sent": "again"})
    world.take(updated(annotation(11, "spam", saved=at(3))))
    assert world.versions() == [(1, False), (2, True), (3, False)]
    assert len(world.findings()) == 1


def test_the_same_id_made_at_another_time_is_another_annotation(world: Guarded) -> None:
    """It has versions and a first submission of its own."""
    world.take(created(annotation(11, "spam")))
    world.take(deleted(11))
    world.take(created(annotation(11, *WRONG, by=BEN, created=at(5))))
    assert world.versions() == [(1, True), (1, True)]
    (finding,) = world.findings()
    assert finding["annotator"] == BEN


def test_a_late_delivery_does_not_bring_a_deleted_task_or_annotation_back(world: Guarded) -> None:
    """Only Label Studio's own listing does."""
    body = created(annotation(11, "spam"))
    world.take(body)
    world.take({"action": "TASKS_DELETED", "tasks": [{"id": 7}], "project": project()})
    world.take({**body, "task": task(7, updated_at=at(3).isoformat())})
    assert world.annotations() == []
    with world.store.read() as conn:
        assert records.live_task_ids(conn, PROJECT) == set()
    world.take({**body, "reconciled_at": "later", "task": task(7, updated_at=at(3).isoformat())}, origin="reconcile")
    assert [row["id"] for row in world.annotations()] == [11]
    with world.store.read() as conn:
        assert records.live_task_ids(conn, PROJECT) == {7}


def test_a_task_id_given_out_again_does_not_inherit_the_vaults_answer(world: Guarded) -> None:
    """The answer belongs to the task that is gone; only Label Studio's own word takes it out of the vault."""
    world.apply(policy("  - rule: gold-check\n    mode: enforce\n    actions: [prompt]\n"))
    world.take({"action": "TASKS_CREATED", "tasks": [task(7)], "project": project()})
    world.store.write(lambda conn: records.add_gold(conn, PROJECT, 7, topics("spam"), "import:a", NOW))
    world.take({"action": "TASKS_DELETED", "tasks": [{"id": 7}], "project": project()})
    later = task(7, created_at=at(5).isoformat(), updated_at=at(5).isoformat())
    world.take({"action": "TASKS_CREATED", "tasks": [later], "project": project()})
    world.take(created(annotation(11, "refund", created=at(6)), task=later))
    with world.store.read() as conn:
        assert conn.execute(sa.select(schema.rule_states.c.state)).scalars().all() == []
        assert records.live_task_ids(conn, PROJECT) == {7}
        assert records.get_gold(conn, PROJECT, 7) is not None
    world.take({"action": "TASKS_DELETED", "tasks": [{"id": 7}], "project": project()})
    latest = task(7, created_at=at(8).isoformat(), updated_at=at(8).isoformat())
    world.take({"action": "TASKS_CREATED", "tasks": [latest], "project": project()}, origin="reconcile")
    with world.store.read() as conn:
        assert records.get_gold(conn, PROJECT, 7) is None


def test_what_a_rule_remembers_of_a_task_is_not_held_against_the_next_with_its_id(world: Guarded) -> None:
    """Ann's answer on the old task does not make her answer on the new one a second look."""
    world.apply(policy("  - rule: gold-check\n    mode: enforce\n    actions: [prompt]\n"))
    for made in (0, 5):
        about = task(7, created_at=at(made).isoformat(), updated_at=at(made).isoformat())
        world.take({"action": "TASKS_CREATED", "tasks": [about], "project": project()}, origin="reconcile")
        world.store.write(lambda conn: records.add_gold(conn, PROJECT, 7, topics("spam"), "import:a", NOW))
        world.take(created(annotation(11, "refund", created=at(made + 1)), task=about))
    with world.store.read() as conn:
        c = schema.rule_states.c
        state = conn.scalar(sa.select(c.state).where(c.subject == f"annotator:{ANN}"))
    assert state is not None
    assert [task for task, _ in state["latest"]] == [7, 7]


# Whose it is, and whether it was first


def test_edits_are_never_first_and_a_skip_is_no_submission(world: Guarded) -> None:
    """A skip that becomes a submission is a first submission then."""
    world.take(created(annotation(11, "spam")))
    world.take(updated(annotation(11, "refund", saved=at(1))))
    world.take(created(annotation(12, task=8, was_cancelled=True)))
    world.take(updated(annotation(12, "spam", task=8, saved=at(2))))
    world.take(updated(annotation(12, "refund", task=8, saved=at(3))))
    assert world.versions() == [(1, True), (2, False), (1, False), (2, True), (3, False)]


def test_an_edit_by_somebody_else_is_not_judged_and_not_held_against_the_annotator(world: Guarded) -> None:
    """Neither an admin's nor labelguard's own, and not what only claims to be by the annotator."""
    world.take(created(annotation(11, "spam")))
    world.take(updated(annotation(11, *WRONG, saved=at(1), updated_by=ADMIN)))
    world.take(updated(annotation(11, *WRONG, "refund", saved=at(2), updated_by=LABELGUARD)))
    world.take(created(annotation(12, *WRONG, task=8, updated_by=BEN)))
    world.take(created(annotation(13, *WRONG, task=9, by=LABELGUARD)))
    assert world.findings() == []
    assert world.versions() == [(1, True), (2, False), (3, False), (1, False), (1, True)]


def test_labelguards_own_annotations_are_nobodys_opinion(bundle: None, tmp_path: Path) -> None:
    """Rules see what annotators said, without forged and foreign work."""
    with guarded(tmp_path, policy(COUNTS)) as world:
        world.take(created(annotation(11, "spam", by=LABELGUARD)))
        world.take(created(annotation(12, "spam", by=BEN, updated_by=ADMIN)))
        world.take(created(annotation(13, "spam", by=BEN)))
        world.take(created(annotation(14, "spam", by=ANN)))
        assert messages(world, "counts") == [
            f"1 seen, first True, 0 others, by {BEN}.",
            f"2 seen, first True, 1 others, by {ANN}.",
        ]


def test_imported_annotations_are_kept_and_not_judged(world: Guarded) -> None:
    """They come inside TASKS_CREATED and are nobody's submission."""
    imported = annotation(11, *WRONG, by=ADMIN)
    world.take({"action": "TASKS_CREATED", "tasks": [task(7, annotations=[imported])], "project": project()})
    assert [row["id"] for row in world.annotations()] == [11]
    assert world.findings() == []


def test_a_changed_guideline_is_a_new_version(world: Guarded) -> None:
    """Every delivery carries it; an older one changes nothing."""

    def said(guideline: str, minutes: float) -> None:
        about = project(expert_instruction=guideline, updated_at=at(minutes).isoformat())
        world.take({"action": "PROJECT_UPDATED", "project": about})

    for guideline, minutes in (("Cats purr.", 1), ("Cats purr.", 2), ("Dogs bark.", 3), ("Cats purr.", 1.5)):
        said(guideline, minutes)
    with world.store.read() as conn:
        versions = records.list_guidelines(conn, PROJECT)
    assert [version["guideline"] for version in versions] == ["", "Cats purr.", "Dogs bark."]


# Rules that fail, deliveries that fail


def test_a_rule_that_raises_is_one_finding_about_the_rule_and_the_others_run(bundle: None, tmp_path: Path) -> None:
    """Nothing is concluded about the annotator, and what the rule remembered half-way is forgotten."""
    with guarded(tmp_path, policy("  - rule: raises\n    mode: enforce\n    actions: [prompt]\n", COUNTS)) as world:
        for number in (11, 12):
            world.take(created(annotation(number, "spam", task=number)))
        (said,) = messages(world, "raises")
        assert said == (
            "The rule raises failed on annotation 11 (KeyError: 11). "
            "The other rules ran; nothing was concluded about the annotation."
        )
        (crash,) = world.findings(rule="raises")
        assert (crash["annotator"], crash["severity"], crash["mode"]) == (None, "error", "observe")
        assert len(messages(world, "counts")) == 2
        assert {action["finding"] for action in world.actions()} == {row["id"] for row in world.findings(rule="counts")}
        with world.store.read() as conn:
            kept = conn.execute(sa.select(schema.rule_states.c.state)).scalars().all()
        assert kept == [{"seen": 2}]
        world.clock.move(hours=2)
        world.take(created(annotation(13, "spam", task=13)))
        assert len(messages(world, "raises")) == 2


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ("unstorable", "ValueError: Out of range float values are not JSON compliant"),
        ("forgets-json", "TypeError: Object of type set is not JSON serializable"),
    ],
)
def test_what_cannot_be_kept_is_the_rules_failure_not_the_deliverys(
    bundle: None, tmp_path: Path, rule: str, why: str
) -> None:
    """Everything else of the delivery is kept."""
    with guarded(tmp_path, policy(f"  - rule: {rule}\n", COUNTS)) as world:
        world.take(created(annotation(11, "spam")))
        (crash,) = world.findings(rule=rule)
        assert crash["evidence"]["error"].startswith(why)
        assert len(messages(world, "counts")) == 1
        assert world.inbox() == [("ANNOTATION_CREATED", "done")]


def test_a_delivery_that_cannot_be_processed_is_set_aside_and_can_be_tried_again(
    bundle: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bundle of one of the policy's rules is gone for a while; the deliveries behind it are not held up."""
    with guarded(tmp_path, policy(COUNTS)) as world:
        with monkeypatch.context() as without:
            without.setattr("sys.path", [p for p in sys.path if not p.endswith("bundle")])
            registry.forget()
            world.take(created(annotation(11, "spam")))
            world.take({"action": "SOMETHING_NEW", "project": project()})
        registry.forget()
        assert world.inbox() == [("ANNOTATION_CREATED", "failed"), ("SOMETHING_NEW", "ignored")]
        with world.store.read() as conn:
            (failed,) = records.failed_deliveries(conn)
            (kept,) = records.current_annotations(conn, PROJECT)
        assert failed["error"].startswith("Kept, but not judged, because the policy cannot be used: ")
        assert "counts" in failed["error"]
        assert kept["id"] == 11
        assert world.findings() == []
        assert world.engine.retry_failed() == 1
        world.engine.process_pending()
        assert world.inbox()[0] == ("ANNOTATION_CREATED", "done")
        assert len(world.findings()) == 1


# The past is not punished


def test_a_back_fill_makes_findings_and_no_actions(world: Guarded) -> None:
    """And the finding says why."""
    world.take(created(annotation(11, *WRONG)), origin="backfill")
    (finding,) = world.findings()
    assert finding["evidence"]["not_done"] == ["no action: it came with what was annotated before"]
    assert world.actions() == []


@pytest.mark.parametrize(
    ("made", "connected", "why"),
    [
        (at(-61), at(-60), "no action: it happened before the project was connected"),
        (at(-25 * 60), at(-30 * 60), "no action: it is older than max_action_age"),
        (at(-1), None, "no action: the project is not connected"),
    ],
)
def test_what_is_old_makes_findings_that_say_why_nothing_was_done(
    world: Guarded, made: Any, connected: Any, why: str
) -> None:
    """Labelguard was not there, or nobody would remember."""
    world.store.write(
        lambda conn: records.set_connection(
            conn, PROJECT, connected_at=connected, webhook_id=None, webhook_url=None, token_hash=None
        )
    )
    world.take(created(annotation(11, *WRONG, created=made)))
    (finding,) = world.findings()
    assert finding["evidence"]["not_done"] == [why]
    assert world.actions() == []


# Saving again


def test_a_corrected_annotation_closes_its_finding_and_what_was_asked(tmp_path: Path) -> None:
    """The annotator did what the prompt said."""
    with guarded(tmp_path, policy(actions="[prompt, rework]")) as world:
        world.take(created(annotation(11, *WRONG)))
        assert world.states() == {"prompt": "approved", "rework": "approved"}
        world.take(updated(annotation(11, "spam", saved=at(1))))
        (finding,) = world.findings()
        assert (finding["state"], finding["state_by"]) == ("acknowledged", f"annotator {ANN}")
        assert world.states() == {"prompt": "done", "rework": "done"}


def test_a_correction_that_is_still_wrong_leaves_one_finding_open(tmp_path: Path) -> None:
    """Two notes about one annotation, one of them about a version that is gone, would be one too many."""
    with guarded(tmp_path, policy(actions="[prompt]")) as world:
        world.take(created(annotation(11, *WRONG)))
        world.take(updated(annotation(11, *WRONG, "refund", saved=at(1))))
        assert [(f["state"], f["note"]) for f in world.findings()] == [
            ("acknowledged", "The annotator saved again, and the rule spoke again."),
            ("open", ""),
        ]
        assert [action["state"] for action in world.actions()] == ["done", "approved"]


def test_a_proposed_action_goes_with_what_it_was_about(tmp_path: Path) -> None:
    """Nobody should approve sending back what was corrected already."""
    with guarded(tmp_path, policy(mode="recommend", actions="[rework]")) as world:
        world.take(created(annotation(11, *WRONG)))
        assert world.states() == {"rework": "proposed"}
        world.take(updated(annotation(11, "spam", saved=at(1))))
        action = world.action("rework")
        assert (action["state"], action["error"]) == ("rejected", "The annotator corrected it first.")


def test_a_rework_ends_when_somebody_else_changes_the_annotation(tmp_path: Path) -> None:
    """There is nothing left for the annotator to do over."""
    with guarded(tmp_path, policy(actions="[rework]")) as world:
        world.take(created(annotation(11, *WRONG)))
        world.take(updated(annotation(11, "spam", saved=at(1), updated_by=ADMIN)))
        action = world.action("rework")
        assert (action["state"], action["error"]) == ("rejected", "Somebody else changed the annotation first.")


def test_an_annotation_with_an_id_given_out_again_closes_nothing_of_the_old_one(tmp_path: Path) -> None:
    """The finding is about the one that was deleted."""
    with guarded(tmp_path, policy(actions="[rework]")) as world:
        world.take(created(annotation(11, *WRONG)))
        world.take(deleted(11))
        world.take(created(annotation(11, "spam", created=at(5))))
        world.take(updated(annotation(11, "refund", created=at(5), saved=at(6))))
        assert [finding["state"] for finding in world.findings()] == ["open"]


# Odd bodies


def test_null_times_break_nothing(world: Guarded) -> None:
    """The time of arrival stands in, and processing it again finds nothing twice."""
    world.take(created(annotation(11, *WRONG, created_at=None, updated_at=None)))
    world.store.write(lambda conn: conn.execute(sa.update(schema.inbox).values(state="pending")))
    world.engine.process_pending()
    assert world.inbox() == [("ANNOTATION_CREATED", "done")]
    assert len(world.findings()) == 1


def test_non_ascii_text_comes_through_whole(world: Guarded) -> None:
    """In labels, titles and data."""
    world.take(
        created(
            annotation(11, "größe", "日本語 🐈"),
            task=task(7, data={"text": "Ωmega\u0000"}),
            project=project(title="Prüfung 🧪"),
        )
    )
    (row,) = world.annotations()
    assert row["result"] == topics("größe", "日本語 🐈")
    with world.store.read() as conn:
        known = records.get_task(conn, 7)
        assert known is not None
        assert known["data"] == {"text": "Ωmega\ufffd"}
        about = records.get_project(conn, PROJECT)
        assert about is not None
        assert about["title"] == "Prüfung 🧪"


def test_ten_thousand_regions_are_one_annotation(world: Guarded) -> None:
    """A page of small boxes is taken in whole."""
    boxes = [
        {"id": f"b{n}", "from_name": "box", "to_name": "image", "type": "rectanglelabels"}
        | {"value": {"x": 1, "y": 2, "width": 3, "height": 4, "rectanglelabels": ["cat"]}}
        for n in range(10_000)
    ]
    world.take(created(annotation(11, result=boxes)))
    assert len(world.annotations()[0]["result"]) == 10_000


def test_a_thousand_annotations_in_one_delivery_are_judged_in_order(bundle: None, tmp_path: Path) -> None:
    """Each sees those before it."""
    with guarded(tmp_path, policy(COUNTS)) as world:
        world.take(bulk([annotation(n, "spam", task=7 + n % 500, by=100 + n % 7) for n in range(1, 1001)]))
        assert [finding["evidence"]["seen"] for finding in world.findings()] == list(range(1, 1001))


def test_five_thousand_deletions_come_in_one_delivery(world: Guarded) -> None:
    """The Data Manager deletes everything that is selected at once."""
    world.take(bulk([annotation(n, "spam", task=n) for n in range(1, 51)]))
    world.take(deleted(*range(1, 5001)))
    assert world.annotations() == []


# The worker


def test_a_receiver_that_waits_gets_the_rules_answer(world: Guarded) -> None:
    """So the findings are there before the annotator's page asks."""
    world.engine.start()
    try:
        event = Event.from_delivery({}, created(annotation(11, *WRONG)))
        assert world.engine.receive(PROJECT, event, wait=10).processed
        assert len(world.findings()) == 1
    finally:
        world.engine.stop()
    assert not world.engine.running


def test_only_what_was_found_wakes_who_delivers(world: Guarded) -> None:
    """Looking for actions after every delivery would have each of them written by itself."""
    world.engine.start()
    try:
        quiet = Event.from_delivery({}, created(annotation(11, "spam")))
        assert world.engine.receive(PROJECT, quiet, wait=10).processed
        assert world.annotations()  # whoever reads has it written first
        assert not world.engine.found.is_set()
        wrong = Event.from_delivery({}, created(annotation(12, *WRONG, task=12)))
        assert world.engine.receive(PROJECT, wrong, wait=10).processed
        assert world.engine.found.wait(10)
    finally:
        world.engine.stop()


def test_without_the_store_the_sender_is_told_and_the_worker_lives_on(
    world: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full for a while: nobody waits for ever, and no restart is needed afterwards."""
    event = Event.from_delivery({}, created(annotation(11, *WRONG)))
    world.engine.start()
    try:

        def fails(conn: sa.Connection, job: Any, *, alone: bool) -> None:
            raise sa.exc.OperationalError("INSERT", {}, FullDisk("database or disk is full"))

        with monkeypatch.context() as broken:
            broken.setattr(type(world.store), "_run", staticmethod(fails))
            with pytest.raises(StoreError, match=r"cannot be written: database or disk is full$"):
                world.engine.receive(PROJECT, event, wait=10)
        assert world.engine.receive(PROJECT, event, wait=10).processed
        assert world.engine.running
        assert len(world.findings()) == 1
    finally:
        world.engine.stop()


class FullDisk(Exception):
    """The databases' own words."""

    sqlite_errorcode = 13
    sqlstate = "53100"


def test_a_body_of_another_delivery_never_stands_in(world: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit that failed gave an id out that the next delivery gets: from this process or another."""
    lost = Event.from_delivery({}, created(annotation(11, *WRONG)))
    original = world.store._run

    def runs_and_fails(conn: sa.Connection, job: Any, *, alone: bool) -> None:
        original(conn, job, alone=alone)
        raise sa.exc.OperationalError("COMMIT", {}, FullDisk("database or disk is full"))

    with monkeypatch.context() as broken:
        broken.setattr(type(world.store), "_run", staticmethod(runs_and_fails))
        with pytest.raises(StoreError):
            world.engine.receive(PROJECT, lost)
    other = Event.from_delivery({}, created(annotation(12, "spam")))
    row = {"project": PROJECT, "action": other.action, "digest": "d", "origin": "webhook", "body": other.body}
    world.store.write(
        lambda conn: conn.execute(sa.insert(schema.inbox).values(**row, received_at=NOW, state="pending"))
    )
    world.engine.process_pending()
    assert [row["id"] for row in world.annotations()] == [12]


def test_many_receivers_at_once_lose_and_double_nothing(world: Guarded) -> None:
    """Eight threads deliver two hundred submissions while the worker judges."""
    world.engine.start()
    try:

        def deliver(offset: int) -> None:
            for n in range(25):
                number = 1 + offset * 25 + n
                made = annotation(number, *WRONG, task=number, created=NOW + timedelta(seconds=n))
                world.engine.receive(PROJECT, Event.from_delivery({}, created(made)), wait=0.01)

        threads = [threading.Thread(target=deliver, args=(offset,)) for offset in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        world.engine.stop()
    world.engine.process_pending()
    assert sorted(finding["annotation"] for finding in world.findings()) == list(range(1, 201))
    assert len(world.actions()) == 200


# Before a save


def test_a_rule_that_raises_stops_no_save(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The other blocking rules still speak."""
    source = TEST_RULES.replace('name = "raises"', 'name = "raises"\n        stateless = True')
    install(monkeypatch, tmp_path / "bundle", source, name="test-rules")
    text = policy("  - rule: raises\n    mode: enforce\n    block: true\n") + (
        "  - rule: label-constraints\n    control: topics\n    mode: enforce\n    block: true\n"
        "    options: {exclusive: [[spam, important]]}\n"
    )
    with guarded(tmp_path, text) as world:
        said = world.engine.check(PROJECT, 7, ANN, topics(*WRONG))
        assert [each["rule"] for each in said] == ["label-constraints"]
        assert world.engine.check(PROJECT, 7, ANN, topics("spam")) == []
    registry.forget()
