"""The outbox: effects happen once, after a look, and can be taken back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from deliveries import ADMIN, ANN, BEN, LABELGUARD, NOW, PROJECT, annotation, at, created, task, topics
from fakestudio import FakeNotifier, FakeStudio
from guarded import Guarded, guarded, policy
from labelguard.connectors import ConnectorError, Notifier, Studio
from labelguard.outbox import IN_FLIGHT, MAX_ATTEMPTS, Outbox, Refused
from labelguard.store import records, schema
from labelguard.store.backend import Role

WRONG = ("spam", "important")
LOST = "Label Studio did not answer in time."


class Killed(BaseException):
    """The process ends here."""


@dataclass
class World:
    """A labelguard with an outbox over a Label Studio that fails on demand."""

    guard: Guarded
    studio: FakeStudio
    notifier: FakeNotifier
    jitter: float = 0.0

    def outbox(self, *, studio: bool = True, notifier: bool = True) -> Outbox:
        """An outbox as a new process has it."""
        own: Studio | None = self.studio if studio else None
        told: Notifier | None = self.notifier if notifier else None
        return Outbox(self.guard.store, self.guard.engine, own, told, self.guard.clock, jitter=lambda: self.jitter)

    def wrong(self, number: int = 11, task: int = 7, by: int = ANN, **fields: Any) -> None:
        """An annotator submits what the policy forbids, in Label Studio and to labelguard."""
        body = created(annotation(number, *WRONG, task=task, by=by, **fields))
        self.studio.hold(body)
        self.guard.take(body)

    def deliver(self) -> int:
        """Deliver what is due."""
        return self.outbox().deliver_due()

    def error(self, kind: str) -> str:
        """Why the only action of a kind was not done."""
        return str(self.guard.action(kind)["error"])


@pytest.fixture
def world(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[World]:
    """A labelguard whose policy asks for the actions a test names."""
    wanted: Any = getattr(request, "param", "[prompt]")
    text = wanted if "\n" in wanted else policy(actions=wanted)
    with guarded(tmp_path, text) as made:
        yield World(made, FakeStudio(), FakeNotifier())


def asking(*actions: str) -> pytest.MarkDecorator:
    """A policy that asks for these actions."""
    return pytest.mark.parametrize("world", [f"[{', '.join(actions)}]"], indirect=True)


def under(**more: str) -> pytest.MarkDecorator:
    """A policy with more to it."""
    return pytest.mark.parametrize("world", [policy(**more)], indirect=True)


@dataclass
class Loose:
    """A role that can be lost, and that keeps nobody out."""

    there: bool = True

    def held(self) -> bool:
        """Until it was lost."""
        return self.there

    def wanted(self) -> bool:
        """Nobody waits for it."""
        return False

    def lose(self) -> None:
        """The connection breaks."""
        self.there = False


def hold_roles(world: World, role: Role) -> None:
    """Let the store give out this role."""

    @contextmanager
    def exclusive(_name: str) -> Iterator[Role]:
        yield role

    world.guard.store.exclusive = exclusive  # type: ignore[method-assign, assignment]


def when_looking(world: World, then: Callable[[], object]) -> None:
    """Let something happen whenever an annotation has been looked at, in place of what happened before."""
    look = partial(FakeStudio.annotation, world.studio)

    def looking(annotation: int) -> Any:
        found = look(annotation)
        then()
        return found

    world.studio.annotation = looking  # type: ignore[method-assign]


# Once


@asking("replace")
def test_a_replace_gives_the_task_to_another_and_undo_gives_it_back(world: World) -> None:
    """The annotation becomes a skip, and a submission again."""
    world.wrong()
    assert world.deliver() == 1
    assert world.studio.annotations[11].was_cancelled
    assert world.deliver() == 0
    world.outbox().undo(world.guard.action("replace")["id"], "Ada")
    assert not world.studio.annotations[11].was_cancelled
    assert world.studio.effects == [("set_cancelled", 11, True), ("set_cancelled", 11, False)]
    assert world.guard.states() == {"replace": "undone"}


@asking("replace", "second-opinion")
def test_killed_after_the_effect_it_is_not_done_again(world: World) -> None:
    """The next process looks first, and still knows what an undo restores."""
    world.wrong()
    world.studio.fail_after = [Killed()]
    with pytest.raises(Killed):
        world.deliver()
    assert world.guard.action("replace")["state"] == "delivering"
    world.deliver()
    assert world.guard.states() == {"replace": "delivering", "second-opinion": "done"}
    world.guard.clock.move(seconds=2 * IN_FLIGHT)
    world.studio.fail_after = [Killed()]
    world.deliver()
    assert sorted(effect[0] for effect in world.studio.effects) == ["set_cancelled", "set_overlap"]
    assert world.guard.states() == {"replace": "done", "second-opinion": "done"}
    assert world.guard.action("replace")["undo"] == {"was_cancelled": False}


@asking("second-opinion")
def test_an_answer_that_was_lost_is_read_back(world: World) -> None:
    """The overlap is two, however often it was asked for."""
    world.wrong()
    world.studio.fail_after = [ConnectorError(LOST)]
    world.deliver()
    assert (world.guard.states(), world.error("second-opinion")) == ({"second-opinion": "delivering"}, LOST)
    world.guard.clock.move(seconds=10)
    world.deliver()
    assert world.studio.effects == [("set_overlap", 7, 2, False)]
    action = world.guard.action("second-opinion")
    assert (action["state"], action["error"], action["undo"]) == ("done", None, {"overlap": 1, "is_labeled": False})


@asking("replace")
def test_what_one_has_claimed_nobody_else_takes_in_hand(world: World) -> None:
    """Its deliverer sleeps in the middle, or has lost its role with its connection."""
    world.wrong()
    hold_roles(world, Loose())
    others: list[int] = []
    when_looking(world, lambda: others.append(world.outbox().deliver_due()))
    assert world.deliver() == 1
    assert others == [0]
    assert world.studio.effects == [("set_cancelled", 11, True)]


@asking("replace", "second-opinion")
def test_an_effect_does_not_begin_late(world: World) -> None:
    """Looking took so long that another deliverer may be about to take the action in hand."""
    world.wrong()
    pauses = [IN_FLIGHT + 1, IN_FLIGHT + 1]
    when_looking(world, lambda: world.guard.clock.move(seconds=pauses.pop() if pauses else 0))
    assert world.deliver() == 0
    assert world.studio.effects == []
    assert world.error("replace") == "Looking at what is there took too long; nothing was changed."
    world.guard.clock.move(minutes=1)
    assert world.deliver() == 2


@asking("replace", "second-opinion")
def test_who_has_lost_the_outbox_changes_nothing_more(world: World) -> None:
    """PostgreSQL gives the role to somebody else when the connection breaks."""
    world.wrong()
    role = Loose()
    hold_roles(world, role)
    when_looking(world, role.lose)
    assert world.deliver() == 0
    assert world.studio.effects == []
    assert world.guard.states() == {"replace": "delivering", "second-opinion": "approved"}


ESCALATE = policy(actions="[{escalate: seniors}]", people="{seniors: ['1']}")


@pytest.mark.parametrize("world", [ESCALATE], indirect=True)
@pytest.mark.parametrize("fault", ["before", "after", "killed"])
def test_an_assignment_that_failed_is_made_all_the_same(world: World, fault: str) -> None:
    """Whether it was not asked for, or asked for and not answered, or its asker was killed: it is there once."""
    world.studio.enterprise = True
    world.guard.store.write(lambda conn: records.save_annotators(conn, world.studio.users()))
    world.wrong()
    if fault == "before":
        world.studio.fail_before = [ConnectorError("Label Studio failed.")]
    else:
        world.studio.fail_after = [ConnectorError(LOST) if fault == "after" else Killed()]
    with suppress(Killed):
        world.outbox(notifier=False).deliver_due()
    world.guard.clock.move(seconds=2 * IN_FLIGHT)
    assert world.outbox(notifier=False).deliver_due() == 1
    assert world.studio.effects == [("assign", 7, (ADMIN,))]


def test_a_comment_whose_answer_was_lost_is_looked_for_when_it_must_have_arrived(world: World) -> None:
    """A second request at once could overtake the first, and both would find none."""
    world.studio.enterprise = True
    world.wrong()
    world.studio.fail_after = [ConnectorError(LOST)]
    world.deliver()
    assert world.guard.action("prompt")["next_at"] == world.guard.clock() + timedelta(seconds=IN_FLIGHT)
    world.guard.clock.move(seconds=IN_FLIGHT)
    assert world.deliver() == 1
    assert [effect[0] for effect in world.studio.effects] == ["comment"]


# Verify before acting


@asking("replace")
def test_an_annotation_that_changed_is_judged_again_instead(world: World) -> None:
    """What was judged is not there any more; what is there is judged as it is."""
    world.wrong()
    world.studio.save(11, by=ANN, result=tuple(topics("spam")))
    assert world.deliver() == 0
    assert world.studio.effects == []
    assert world.error("replace") == (
        "The annotation is not what was judged any more; it was judged again as it is now."
    )
    assert [row["result"] for row in world.guard.annotations()] == [topics("spam")]
    assert [finding["state"] for finding in world.guard.findings()] == ["acknowledged"]


@asking("replace")
def test_an_annotation_that_is_gone_is_left_alone(world: World) -> None:
    """With a sentence."""
    world.wrong()
    del world.studio.annotations[11]
    world.deliver()
    assert (world.guard.states(), world.error("replace")) == (
        {"replace": "failed"},
        "The annotation is gone from Label Studio.",
    )


@asking("rework")
def test_a_forged_delivery_leads_to_nothing(world: World) -> None:
    """It says that Ann saved what, by Label Studio's own word, Ben did."""
    body = created(annotation(11, *WRONG))
    world.guard.take(body)
    world.studio.hold(created(annotation(11, *WRONG, updated_by=BEN)))
    world.deliver()
    action = world.guard.action("rework")
    assert action["state"] != "done"
    assert not action["target"].get("verified")
    assert action["error"] == "Label Studio says that somebody else saved this, so nothing follows from it."


@asking("rework")
def test_a_verified_rework_is_the_pages_to_finish(world: World) -> None:
    """Nothing is touched in Label Studio."""
    world.wrong()
    assert world.deliver() == 1
    action = world.guard.action("rework")
    assert (action["state"], action["target"]["verified"]) == ("approved", True)
    assert world.studio.effects == []
    assert world.deliver() == 0


@asking("rework")
def test_the_outbox_and_the_page_do_not_overwrite_each_other(world: World) -> None:
    """The page noted when it showed the note; the annotator disputed it while it was being verified."""
    world.wrong()
    number = world.guard.action("rework")["id"]
    look = world.studio.annotation

    def disputed(annotation: int) -> Any:
        world.guard.store.write(
            lambda conn: records.update_action(conn, number, NOW, state="done", target={"shown_at": NOW.isoformat()})
        )
        return look(annotation)

    world.studio.annotation = disputed  # type: ignore[method-assign]
    world.deliver()
    action = world.guard.action("rework")
    assert action["state"] == "done"
    assert action["target"]["shown_at"] == NOW.isoformat()


@asking("replace")
def test_a_skip_setting_that_requeues_nothing_is_refused_with_the_way_out(world: World) -> None:
    """Otherwise the task would be lost to everybody."""
    world.studio.skip_queue = "IGNORE_SKIPPED"
    world.wrong()
    world.deliver()
    assert world.studio.effects == []
    assert world.error("replace") == (
        "The project's skip setting is IGNORE_SKIPPED, with which Label Studio would not give the task to another "
        "annotator. Set it to “Requeue skipped tasks for others”, or use second-opinion."
    )


# What people say


@asking("replace")
def test_what_was_rejected_or_dismissed_meanwhile_is_not_done(world: World) -> None:
    """Also when the outbox had listed it already."""
    world.wrong(11, task=7)
    world.wrong(12, task=8)
    first, second = (action["id"] for action in world.guard.actions())
    outbox = world.outbox()
    outbox.reject(first, "Ada")
    finding = world.guard.findings()[1]["id"]
    world.guard.store.write(
        lambda conn: records.set_finding_state(conn, finding, "dismissed", by="Ada", now=world.guard.clock())
    )
    assert outbox.deliver_due() == 0
    assert world.studio.effects == []
    assert [(a["id"], a["state"], a["error"]) for a in world.guard.actions()] == [
        (first, "rejected", None),
        (second, "rejected", "The finding was dismissed first."),
    ]


@pytest.mark.parametrize("world", [policy(mode="recommend", actions="[replace]")], indirect=True)
def test_a_proposed_action_waits_for_a_person(world: World) -> None:
    """And each step is taken once."""
    world.wrong()
    number = world.guard.action("replace")["id"]
    assert world.deliver() == 0
    with pytest.raises(Refused, match=f"^Action {number} is proposed; only what was done can be taken back.$"):
        world.outbox().undo(number, "Ada")
    world.outbox().approve(number, "Ada")
    assert world.deliver() == 1
    assert world.guard.action("replace")["decided_by"] == "Ada"
    with pytest.raises(Refused, match=f"^Action {number} is done; only a proposed action can be approved.$"):
        world.outbox().approve(number, "Ada")
    with pytest.raises(Refused, match=f"^Action {number} is done; only an action that has not begun can be rejected.$"):
        world.outbox().reject(number, "Ada")
    with pytest.raises(Refused, match=r"^There is no action 999.$"):
        world.outbox().undo(999, "Ada")


@asking("replace", "prompt")
def test_the_kill_switch_stops_everything_at_once(world: World) -> None:
    """And nothing is lost."""
    world.wrong()

    def switch(on: bool) -> None:
        world.guard.store.write(lambda conn: records.set_actions_enabled(conn, on, by="Ada", now=NOW))

    switch(False)
    assert world.deliver() == 0
    assert world.studio.effects == []
    switch(True)
    assert world.deliver() == 2


# Troubles


@asking("replace")
def test_pauses_between_attempts_grow_and_spread_and_end(world: World) -> None:
    """Half to a whole of 5, 10, 20 seconds and so on up to an hour: about eleven hours in all."""
    world.studio.down = True
    world.wrong()
    pauses = []
    for attempt in range(1, MAX_ATTEMPTS):
        world.jitter = 0.5
        world.deliver()
        action = world.guard.action("replace")
        assert (action["state"], action["attempts"]) == ("delivering", attempt)
        pause = (action["next_at"] - world.guard.clock()).total_seconds()
        pauses.append(pause)
        world.guard.clock.move(seconds=pause - 0.1)
        assert world.deliver() == 0
        assert world.guard.action("replace")["attempts"] == attempt
        world.guard.clock.move(seconds=0.1)
    assert pauses[:3] == [3.75, 7.5, 15.0]
    assert max(pauses) == 2700.0
    assert 10 < sum(pauses) / 3600 < 12
    world.deliver()
    assert (world.guard.states(), world.error("replace")) == ({"replace": "failed"}, "Label Studio did not answer.")


@asking("replace")
def test_label_studio_says_how_long_to_wait(world: World) -> None:
    """Its word goes before our own pauses."""
    world.wrong()
    world.studio.fail_before = [ConnectorError("Label Studio is busy.", retry_after=90.0)]
    world.deliver()
    assert world.guard.action("replace")["next_at"] == world.guard.clock() + timedelta(seconds=90)


@asking("replace")
def test_what_can_never_work_is_tried_once(world: World) -> None:
    """And shown to the admin with the reason."""
    world.wrong()
    world.studio.fail_before = [ConnectorError("labelguard's user may not do this.", permanent=True)]
    world.deliver()
    world.guard.clock.move(hours=1)
    world.deliver()
    action = world.guard.action("replace")
    assert (action["state"], action["attempts"], action["error"]) == (
        "failed",
        1,
        "labelguard's user may not do this.",
    )


@asking("replace")
def test_one_action_that_fails_unexpectedly_stops_no_other(world: World) -> None:
    """A surprise is postponed like an outage, and the next action is delivered."""
    world.wrong(11, task=7)
    world.wrong(12, task=8)
    world.studio.fail_before = [RuntimeError("surprise")]
    assert world.deliver() == 1
    assert [(a["state"], a["error"]) for a in world.guard.actions()] == [
        ("delivering", "RuntimeError: surprise"),
        ("done", None),
    ]


@asking("replace")
def test_a_stop_leaves_what_is_not_done_to_the_next_process(world: World) -> None:
    """At once: what was in hand when it came had no trouble of its own, and what was not is not begun."""
    for number in (11, 12):
        world.wrong(number, task=number)
    stopping = threading.Event()

    def stop() -> None:
        stopping.set()
        world.studio.silent = True

    when_looking(world, stop)
    assert world.outbox().deliver_due(stopping) == 0
    assert [(row["attempts"], row["next_at"], row["error"]) for row in world.guard.actions()] == [
        (1, None, None),
        (0, None, None),
    ]
    world.studio.silent = False
    when_looking(world, lambda: None)
    assert world.deliver() == 2
    assert world.studio.effects == [("set_cancelled", number, True) for number in (11, 12)]


@asking("replace")
def test_an_action_that_is_still_being_tried_can_be_given_up(world: World) -> None:
    """The admin need not wait for its last attempt."""
    world.wrong()
    world.studio.fail_before = [ConnectorError("Label Studio did not answer.")]
    world.deliver()
    world.outbox().undo(world.guard.action("replace")["id"], "Ada")
    world.guard.clock.move(hours=1)
    assert world.deliver() == 0
    assert (world.guard.states(), world.studio.effects) == ({"replace": "undone"}, [])


# Second opinions


@asking("second-opinion")
def test_a_second_opinion_gives_its_overlap_back_once_it_has_come(world: World) -> None:
    """Undo restores what was there, too."""
    world.wrong()
    world.deliver()
    outbox = world.outbox()
    assert outbox.settle(PROJECT)["second_opinions_closed"] == 0
    world.studio.hold(created(annotation(12, "spam", by=BEN, was_cancelled=True)))
    assert outbox.settle(PROJECT)["second_opinions_closed"] == 0
    world.studio.hold(created(annotation(13, "spam", by=ADMIN)))
    assert outbox.settle(PROJECT)["second_opinions_closed"] == 1
    assert (world.studio.tasks[7].overlap, world.studio.tasks[7].is_labeled) == (1, True)
    assert outbox.settle(PROJECT)["second_opinions_closed"] == 0
    outbox.undo(world.guard.action("second-opinion")["id"], "Ada")
    assert world.studio.effects == [("set_overlap", 7, 2, False), ("set_overlap", 7, 1, True)]


@asking("second-opinion")
def test_a_second_opinion_that_label_studio_lost_is_asked_for_again(world: World) -> None:
    """An import resets overlaps; a deleted task is let go."""
    world.wrong()
    world.deliver()
    world.studio.set_overlap(7, 1, True)
    assert world.outbox().settle(PROJECT)["second_opinions_renewed"] == 1
    assert (world.studio.tasks[7].overlap, world.studio.tasks[7].is_labeled) == (2, False)
    del world.studio.tasks[7]
    assert sum(world.outbox().settle(PROJECT).values()) == 0
    assert world.guard.action("second-opinion")["undo"]["closed"]


@asking("second-opinion")
def test_undo_leaves_what_somebody_else_changed_since(world: World) -> None:
    """The admin asked for four meanwhile."""
    world.wrong()
    world.deliver()
    world.studio.set_overlap(7, 4, False)
    world.outbox().undo(world.guard.action("second-opinion")["id"], "Ada")
    assert world.studio.tasks[7].overlap == 4


@asking("second-opinion")
def test_an_overlap_that_is_higher_already_is_not_lowered(world: World) -> None:
    """The admin raised it between the submission and its delivery to Label Studio."""
    world.wrong()
    world.studio.set_overlap(7, 3, False)
    world.studio.effects.clear()
    assert world.deliver() == 1
    assert world.studio.effects == []


@asking("second-opinion")
def test_one_task_that_is_refused_does_not_keep_the_others_from_being_settled(world: World) -> None:
    """An outage, though, is for the job to report."""
    world.wrong(11, task=7)
    world.wrong(12, task=8)
    world.deliver()
    for number, of in ((13, 7), (14, 8)):
        world.studio.hold(created(annotation(number, "spam", task=of, by=BEN)))
    world.studio.fail_before = [ConnectorError("No.", permanent=True)]
    assert world.outbox().settle(PROJECT)["second_opinions_closed"] == 1
    world.studio.down = True
    with pytest.raises(ConnectorError):
        world.outbox().settle(PROJECT)


# Beyond the page


def test_community_shows_a_prompt_in_the_page_alone(world: World) -> None:
    """Nothing is written into Label Studio without being asked for."""
    world.wrong()
    assert world.deliver() == 1
    action = world.guard.action("prompt")
    assert (action["state"], action["target"]["delivered"], world.studio.effects) == ("approved", True, [])


def test_enterprise_gets_a_comment_with_a_marker(world: World) -> None:
    """Once, by the finding's number; and where it is refused, the page still shows the prompt."""
    world.studio.enterprise = True
    world.wrong(11, task=7)
    world.wrong(12, task=8)
    world.studio.fail_before = [ConnectorError("Comments are switched off.", permanent=True)]
    world.deliver()
    assert world.studio.effects == [("comment", 12, f"labelguard {world.guard.findings()[1]['id']}")]
    assert [(a["state"], a["error"]) for a in world.guard.actions()] == [
        ("approved", "Comments are switched off."),
        ("approved", None),
    ]
    assert world.deliver() == 0


@under(task_note="labelguard_note")
def test_a_note_on_the_task_goes_when_its_prompt_was_answered(world: World) -> None:
    """Only where the policy wants notes."""
    world.wrong()
    world.deliver()
    assert "“spam”" in world.studio.notes[7]
    assert world.outbox().settle(PROJECT)["notes_cleared"] == 0
    number = world.guard.action("prompt")["id"]
    world.guard.store.write(lambda conn: records.update_action(conn, number, NOW, state="done"))
    assert world.outbox().settle(PROJECT)["notes_cleared"] == 1
    assert world.studio.notes[7] == ""
    assert world.outbox().settle(PROJECT)["notes_cleared"] == 0


@asking("pause")
def test_only_enterprise_can_pause_and_only_when_a_person_said_so(world: World) -> None:
    """Community says what to do instead."""
    world.wrong(11, task=7)
    world.wrong(12, task=8)
    first, second = (action["id"] for action in world.guard.actions())
    assert world.deliver() == 0
    world.outbox().approve(first, "Ada")
    world.deliver()
    world.studio.enterprise = True
    world.outbox().approve(second, "Ada")
    world.deliver()
    world.outbox().undo(second, "Ada")
    assert [(a["state"], a["error"]) for a in world.guard.actions()] == [
        ("failed", "Label Studio Community cannot pause an annotator; speak with them instead."),
        ("undone", None),
    ]
    assert world.studio.effects == [("pause", ANN), ("unpause", ANN)]


# Messages

LEADS = policy(actions="[{notify: leads}]", people="{leads: [chat, pager, boss@example.com]}")


@pytest.mark.parametrize("world", [LEADS], indirect=True)
def test_everybody_is_told_once_also_when_one_cannot_be_reached(world: World) -> None:
    """The pager is down for a while; nobody hears twice."""
    world.notifier.unreachable["chat"] = ConnectorError("The chat did not answer.")
    world.wrong()
    assert world.deliver() == 0
    assert world.notifier.told() == ["pager"]
    assert world.error("notify") == "The chat did not answer."
    world.notifier.unreachable.clear()
    world.guard.clock.move(minutes=1)
    assert world.deliver() == 1
    assert world.notifier.told() == ["pager", "chat"]
    with pytest.raises(Refused, match="sent a message, which cannot be taken back"):
        world.outbox().undo(world.guard.action("notify")["id"], "Ada")


@pytest.mark.parametrize("world", [policy(actions="[{notify: leads}]", people="{leads: ['7']}")], indirect=True)
def test_a_message_for_nobody_says_what_to_configure(world: World) -> None:
    """Label Studio users are no alert targets."""
    world.wrong()
    world.deliver()
    assert world.error("notify") == "'leads' names no alert target; name one of LABELGUARD_NOTIFY in `people`."
    world.wrong(12, task=8)
    world.outbox(notifier=False).deliver_due()
    assert world.guard.actions()[1]["error"] == "No alert targets are configured: set LABELGUARD_NOTIFY."


@pytest.mark.parametrize("world", [policy(actions="[{escalate: seniors}]", people="{seniors: ['1']}")], indirect=True)
def test_a_senior_is_assigned_where_label_studio_can(world: World) -> None:
    """Being assigned is being told."""
    world.studio.enterprise = True
    world.guard.store.write(lambda conn: records.save_annotators(conn, world.studio.users()))
    world.wrong()
    assert world.outbox(notifier=False).deliver_due() == 1
    assert world.studio.effects == [("assign", 7, (ADMIN,))]
    world.outbox().undo(world.guard.action("escalate")["id"], "Ada")
    assert world.studio.effects[1:] == [("assign", 7, ())]


# Letting go


@pytest.mark.parametrize(
    "world",
    [policy(actions="[prompt, replace, second-opinion, {notify: chat}]", people="{chat: [chat]}")],
    indirect=True,
)
def test_disconnecting_takes_back_what_stands(world: World) -> None:
    """Messages cannot be; what was only planned is not done any more; what is tried still is given up."""
    world.wrong()
    world.deliver()
    world.notifier.unreachable["chat"] = ConnectorError("The chat did not answer.")
    world.wrong(12, task=8)
    world.studio.fail_before = [ConnectorError("Label Studio did not answer.")]
    world.deliver()
    assert world.outbox().undo_all(PROJECT, "Ada") == 5
    assert not world.studio.annotations[11].was_cancelled
    assert [world.studio.tasks[n].overlap for n in (7, 8)] == [1, 1]
    states = [(action["task"], action["kind"], action["state"]) for action in world.guard.actions()]
    assert states == [
        (7, "prompt", "undone"),
        (7, "replace", "undone"),
        (7, "second-opinion", "undone"),
        (7, "notify", "done"),
        (8, "prompt", "undone"),
        (8, "replace", "undone"),
        (8, "second-opinion", "undone"),
        (8, "notify", "undone"),
    ]
    world.guard.clock.move(hours=1)
    assert world.deliver() == 0
    assert world.outbox().undo_all(PROJECT, "Ada") == 0


@asking("replace")
def test_undo_of_what_is_gone_is_done(world: World) -> None:
    """There is nothing left to restore."""
    world.wrong()
    world.deliver()
    world.studio.annotations.clear()
    world.outbox().undo(world.guard.action("replace")["id"], "Ada")
    assert world.guard.states() == {"replace": "undone"}


@asking("replace")
def test_our_own_change_comes_back_as_a_delivery_and_is_no_news(world: World) -> None:
    """It neither finds anything nor is held against the annotator."""
    world.wrong()
    world.deliver()
    ours = annotation(11, *WRONG, saved=at(61), updated_by=LABELGUARD, was_cancelled=True)
    world.guard.take({**created(ours, task=task(7)), "action": "ANNOTATION_UPDATED"})
    assert len(world.guard.findings()) == 1
    with world.guard.store.read() as conn:
        first = conn.scalars(sa.select(schema.annotation_versions.c.first)).all()
    assert first == [True, False]
