"""Forgery on a real server: what an annotator with their own token can try, and what comes of it.

Label Studio Community lets everybody who is signed in read the webhook's token and change nearly everything, so
an annotator can:

- post an annotation in somebody else's name, change somebody else's annotation, or mark their own as ground truth
  while submitting it, so that no rule judges it;
- read the webhook's token and post deliveries to labelguard: about annotations and tasks that never were, about
  versions that never were (also from the far future, so that nothing genuine is newer), with other people as
  author, with ground truth set, in another task, with another project's ids, in thousands; or an old one again;
- so describe tasks, the guideline and the labeling interface otherwise, and say that things were deleted;
- frame a colleague by many wrong answers on known tasks, none of which tells anything by itself;
- ask the page's API for a colleague's notes, and answer or dispute them;
- switch off, redirect or delete the webhook (tests/live/test_watchdog.py).

What must hold: no action beyond a note follows from what Label Studio does not confirm, the note does not reach
the one it names either, the store and everything that rules remember heal, and the admin is told.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
import requests
import sqlalchemy as sa
from pydantic import SecretStr

from equal import differences
from labelguard.doctor import Check, diagnose
from labelguard.manifest import EVENTS
from labelguard.outbox import Outbox
from labelguard.store import records, schema
from labelguard.studio.launch import Account
from live import API_TOKEN, LiveProject, Receiver, StudioServer, choice, now, receiver, until

LATER = timedelta(minutes=2)
"""So long after a delivery, Label Studio has committed what it tells of."""

RIGHT, WRONG = choice("cat"), choice("cat", "dog")

POLICY = """
project: {project}
people: {{leads: [lead]}}
rules:
  - rule: label-constraints
    control: label
    mode: enforce
    options: {{exclusive: [[cat, dog]]}}
    actions: [prompt, rework, replace, second-opinion, {{notify: leads}}]
"""
GOLD_CHECK = """
project: {project}
people: {{leads: [lead]}}
rules:
  - rule: gold-check
    mode: enforce
    actions: [prompt, {{notify: leads}}]
"""

Body = dict[str, Any]


@dataclass
class Pager:
    """Remembers alerts."""

    sent: list[tuple[str, str, str]] = field(default_factory=list)

    def notify(self, target: str, title: str, body: str) -> None:
        """Take an alert."""
        self.sent.append((target, title, body))

    def told(self, target: str) -> list[str]:
        """What a target was told."""
        return [body for to, _, body in self.sent if to == target]


@dataclass
class World:
    """A guarded project in which Ben works honestly, and what Ana needs to forge."""

    labelguard: Receiver
    pager: Pager
    project: LiveProject
    ana: Account
    ben: Account
    annotation: int
    genuine: Body
    """The delivery that told of Ben's annotation."""

    def forge(self, *bodies: Body, project: LiveProject | None = None) -> None:
        """Post deliveries with the token that Ana reads from Label Studio, and let the consequences come."""
        about = project or self.project
        (webhook,) = about.server.as_(self.ana).call("GET", "/api/webhooks/", params={"project": about.id})
        for body in bodies:
            answer = requests.post(webhook["url"], json=body, headers=webhook["headers"], timeout=60)
            assert answer.status_code == 200, answer.text
        self.labelguard.settled()
        self.labelguard.outbox.deliver_due()

    def altered(self, **annotation: Any) -> Body:
        """The genuine delivery with other values in its annotation."""
        body = copy.deepcopy(self.genuine)
        body["annotation"] |= annotation
        return body

    def saved(self, more: timedelta = timedelta(0)) -> str:
        """When Ben saved, or so much later."""
        return (datetime.fromisoformat(self.genuine["annotation"]["updated_at"]) + more).isoformat()

    def job(self, name: str = "reconcile") -> dict[str, Any]:
        """Run a scheduled job somewhat later."""
        summary = self.labelguard.jobs(later=LATER).run(name, self.project.id)
        assert summary is not None
        return dict(summary)

    def doubts(self) -> dict[str, int]:
        """What was noted as not confirmed, by kind."""
        with self.labelguard.store.read() as conn:
            return {row["kind"]: row["count"] for row in records.list_doubts(conn, self.project.id)}

    def notes_for(self, account: Account, annotation: int | None = None) -> list[Body]:
        """What an annotator's page is shown."""
        about = {"project": self.project.id} | ({} if annotation is None else {"annotation": annotation})
        answer = requests.get(
            f"{self.labelguard.url}/page/v1/prompts", params=about, headers=self.session(account), timeout=30
        )
        prompts: list[Body] = answer.json()["prompts"]
        return prompts

    def session(self, account: Account) -> dict[str, str]:
        """The page's session of somebody who is signed in to Label Studio."""
        answer = requests.post(
            f"{self.labelguard.url}/page/v1/session",
            json={"project": self.project.id},
            headers={"Cookie": self.project.server.cookie(account), "Origin": self.labelguard.url},
            timeout=30,
        )
        return {"X-Labelguard-Session": answer.json()["token"]}

    def check(self, name: str) -> Check:
        """What the doctor says."""
        found = diagnose(
            self.labelguard.settings,
            self.labelguard.store,
            self.labelguard.studio,
            self.project.id,
            clock=now,
            events=EVENTS,
        )
        return next(check for check in found if check.name.endswith(f": {name}"))

    def findings(self, **wanted: Any) -> list[records.Row]:
        """The project's findings."""
        with self.labelguard.store.read() as conn:
            return records.list_findings(conn, project=self.project.id, **wanted)

    def effects(self) -> list[records.Row]:
        """Actions beyond a note that were done, or may yet be."""
        with self.labelguard.store.read() as conn:
            found = records.list_actions(conn, project=self.project.id, states=("approved", "delivering", "done"))
        return [action for action in found if action["kind"] != "prompt"]

    def counted(self) -> list[tuple[int, int]]:
        """(annotation, annotator) of everything that statistics count."""
        j, a = schema.judgments.c, schema.annotations.c
        query = (
            sa.select(j.annotation, j.annotator)
            .join(schema.annotations, a.row == j.annotation_row)
            .where(j.project == self.project.id, j.first, a.deleted_at.is_(None))
            .order_by(j.annotation)
        )
        with self.labelguard.store.read() as conn:
            return [(annotation, annotator) for annotation, annotator in conn.execute(query)]


@pytest.fixture(scope="module")
def pager() -> Pager:
    """The admin's and the lead's."""
    return Pager()


@pytest.fixture(scope="module")
def guard(studio: StudioServer, pager: Pager, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    """One labelguard for all these tests: each makes its own project."""
    targets = {name: SecretStr("json://localhost") for name in ("admin", "lead")}
    with receiver(tmp_path_factory.mktemp("guard"), studio, notifier=pager, notify=targets) as running:
        yield running


@pytest.fixture
def world(guard: Receiver, pager: Pager, studio: StudioServer, ana: Account, ben: Account) -> World:
    """A connected project of four tasks, the first of which Ben has done."""
    return begun(guard, pager, studio, ana, ben)


def begun(
    guard: Receiver,
    pager: Pager,
    studio: StudioServer,
    ana: Account,
    ben: Account,
    *,
    tasks: int = 4,
    policy: str = POLICY,
) -> World:
    """A project to forge in."""
    pager.sent.clear()
    project = studio.project("Forgery", tasks=tasks)
    guard.connect(project)
    guard.store.write(lambda conn: records.add_policy(conn, project.id, policy.format(project=project.id), now()))
    if policy == GOLD_CHECK:

        def known(conn: sa.Connection) -> None:
            for task in project.tasks:
                records.add_gold(conn, project.id, task, RIGHT, "import:a", now())

        guard.store.write(known)
    annotation = project.submit(ben, project.tasks[0], RIGHT)
    assert until(lambda: len(guard.annotations(project.id)) == 1)
    query = sa.select(schema.inbox.c.body).where(
        schema.inbox.c.project == project.id, schema.inbox.c.action == "ANNOTATION_CREATED"
    )
    with guard.store.read() as conn:
        body = conn.scalars(query).one()
    return World(guard, pager, project, ana, ben, annotation, body)


# Deliveries with the stolen token


def _never_made(world: World) -> Sequence[Body]:
    at = world.saved(timedelta(minutes=1))
    return [world.altered(id=900_001, created_at=at, updated_at=at, result=WRONG)]


def _never_made_at_the_right_time(world: World) -> Sequence[Body]:
    return [world.altered(id=900_002, created_at=world.saved(), updated_at=world.saved(), result=WRONG)]


def _in_a_task_that_never_was(world: World) -> Sequence[Body]:
    body = world.altered(id=900_003, task=900_003, created_at=world.saved(), updated_at=world.saved(), result=WRONG)
    body["task"] |= {"id": 900_003}
    return [body]


def _another_result(world: World) -> Sequence[Body]:
    return [
        {**world.altered(updated_at=world.saved(timedelta(minutes=1)), result=WRONG), "action": "ANNOTATION_UPDATED"}
    ]


def _from_the_far_future(world: World) -> Sequence[Body]:
    at = "2099-01-01T00:00:00Z"
    body = {**world.altered(updated_at=at, result=WRONG), "action": "ANNOTATION_UPDATED"}
    body["task"] |= {"updated_at": at, "data": {"text": "forged"}, "overlap": 4}
    body["project"] |= {"updated_at": at, "expert_instruction": "Everything is a cat."}
    return [body]


def _by_somebody_else(world: World) -> Sequence[Body]:
    return [world.altered(completed_by=world.ana.id, updated_by=world.ana.id) | {"forged": 1}]


def _deleted(world: World) -> Sequence[Body]:
    project = world.genuine["project"]
    return [{"action": "ANNOTATIONS_DELETED", "annotations": [{"id": world.annotation}], "project": project}]


def _tasks_deleted(world: World) -> Sequence[Body]:
    tasks = [{"id": task} for task in world.project.tasks]
    return [{"action": "TASKS_DELETED", "tasks": tasks, "project": world.genuine["project"]}]


def _guideline(world: World) -> Sequence[Body]:
    project = {**world.genuine["project"], "expert_instruction": "Everything is a cat."}
    return [{"action": "PROJECT_UPDATED", "project": project}]


def _task_data(world: World) -> Sequence[Body]:
    body = world.altered() | {"forged": 1}
    body["task"] |= {"updated_at": world.saved(timedelta(minutes=1)), "data": {"text": "forged"}, "overlap": 4}
    return [body]


def _ground_truth(world: World) -> Sequence[Body]:
    return [world.altered(ground_truth=True)]


def _in_another_task(world: World) -> Sequence[Body]:
    body = world.altered(task=world.project.tasks[1], updated_at=world.saved(timedelta(minutes=1)), result=WRONG)
    body["task"] |= {"id": world.project.tasks[1]}
    return [{**body, "action": "ANNOTATION_UPDATED"}]


def _many(world: World) -> Sequence[Body]:
    at = world.saved(timedelta(minutes=1))
    made = [world.altered(id=910_000 + i, created_at=at, updated_at=at, result=WRONG)["annotation"] for i in range(50)]
    tasks = [world.genuine["task"] for _ in made]
    return [{**world.genuine, "action": "ANNOTATIONS_CREATED", "annotation": made, "task": tasks}]


@pytest.mark.parametrize(
    ("forged", "doubts"),
    [
        (_never_made, {"annotation": 1}),
        (_never_made_at_the_right_time, {"unconfirmed": 1}),
        (_in_a_task_that_never_was, {"annotation": 1}),
        (_another_result, {"version": 1}),
        (_from_the_far_future, {"version": 1, "task": 1, "project": 1}),
        (_by_somebody_else, {"people": 1}),
        (_deleted, {"deletion": 1}),
        (_tasks_deleted, {"deletion": 1}),
        (_guideline, {"project": 1}),
        (_task_data, {"task": 1}),
        # Label Studio moves it without a new time itself, so there is no contradiction in this.
        (_ground_truth, {"own-ground-truth": 1}),
        (_in_another_task, {"version": 1, "elsewhere": 1}),
        (_many, {"annotation": 50}),
    ],
)
def test_nothing_follows_from_a_forged_delivery(
    world: World, forged: Callable[[World], Sequence[Body]], doubts: dict[str, int]
) -> None:
    """No effect in Label Studio, nobody told of Ben, nothing shown to Ben; afterwards everything is as it was."""
    before = world.project.annotations()
    world.forge(*forged(world))
    assert world.notes_for(world.ben) == []
    summary = world.job()
    world.labelguard.outbox.deliver_due()
    assert differences(world.labelguard.store, world.project) == []
    assert world.project.annotations() == before
    assert world.doubts() == doubts
    assert world.effects() == []
    assert world.pager.told("lead") == []
    assert world.notes_for(world.ben) == []
    assert {finding["state"] for finding in world.findings()} <= {"dismissed"}
    assert world.counted() == [(world.annotation, world.ben.id)]
    assert len(world.pager.told("admin")) == bool(doubts.keys() - {"unconfirmed", "own-ground-truth"})
    assert bool(summary["repaired"]) == (forged not in (_task_data,))
    again = world.job()
    assert (again["repaired"], world.doubts()) == (0, doubts)


def test_an_old_delivery_that_is_posted_again_changes_nothing(world: World) -> None:
    """Byte for byte it is the same one; with anything changed, what it tells of is known to be past."""
    world.project.update(world.ben, world.annotation, choice("dog"))
    assert until(lambda: world.labelguard.annotations(world.project.id) == world.project.annotations())
    world.forge(world.genuine, {**world.genuine, "forged": 1})
    assert world.labelguard.annotations(world.project.id) == world.project.annotations()
    world.job()
    assert differences(world.labelguard.store, world.project) == []
    assert (world.doubts(), world.findings()) == ({}, [])


def test_another_projects_annotations_are_not_this_tokens_to_tell_of(
    world: World, guard: Receiver, pager: Pager, studio: StudioServer, ana: Account, ben: Account
) -> None:
    """A token is worth one project: what stands in another one stays as it is, without any repair."""
    other = begun(guard, pager, studio, ana, ben)
    stolen = other.altered(updated_at=other.saved(timedelta(minutes=1)), result=WRONG, project=world.project.id)
    stolen["project"] |= {"id": world.project.id}
    stolen["task"] |= {
        "project": world.project.id,
        "data": {"text": "forged"},
        "updated_at": other.saved(timedelta(minutes=1)),
    }
    world.forge({**stolen, "action": "ANNOTATION_UPDATED"})
    assert other.labelguard.annotations(other.project.id) == other.project.annotations()
    with guard.store.read() as conn:
        task = records.get_task(conn, other.project.tasks[0])
    assert task is not None
    assert (task["project"], task["data"]) == (other.project.id, other.genuine["task"]["data"])
    world.job()
    assert world.doubts() == {"elsewhere": 1}
    assert (world.findings(), other.findings()) == ([], [])
    assert differences(guard.store, world.project) == []


def test_who_hides_behind_another_name_is_judged_after_all(world: World) -> None:
    """Ana's forged delivery comes before the genuine one and says that it was Ben; then the genuine is no news."""
    world.labelguard.stop()
    annotation = world.project.submit(world.ana, world.project.tasks[1], WRONG)
    world.labelguard.start()
    true = world.project.server.api.call("GET", f"/api/annotations/{annotation}/")
    lie = {name: true[name] for name in ("id", "task", "created_at", "updated_at", "result")}
    body = world.altered(**lie, completed_by=world.ben.id, updated_by=world.ben.id)
    body["task"] |= {"id": true["task"]}
    world.forge(body)
    assert world.ben.id in {finding["annotator"] for finding in world.findings()}
    assert world.notes_for(world.ben) == []
    world.job()
    assert world.doubts() == {"people": 1}
    assert differences(world.labelguard.store, world.project) == []
    states = {(finding["annotator"], finding["state"]) for finding in world.findings()}
    assert states == {(world.ben.id, "dismissed"), (world.ana.id, "open")}
    assert len(world.notes_for(world.ana)) == 1


def test_a_colleague_cannot_be_framed_by_many_answers(
    guard: Receiver, pager: Pager, studio: StudioServer, ana: Account, ben: Account
) -> None:
    """No answer of them says anything alone; the lead hears nothing, and the rule remembers Ben's own one."""
    world = begun(guard, pager, studio, ana, ben, tasks=14, policy=GOLD_CHECK)
    forged = []
    for i, task in enumerate(world.project.tasks[1:]):
        body = world.altered(
            id=920_000 + i, task=task, created_at=world.saved(), updated_at=world.saved(), result=choice("dog")
        )
        body["task"] |= {"id": task, "created_at": _created(world, task)}
        forged.append(body)
    world.forge(*forged)
    assert [finding["rule"] for finding in world.findings(state="open")] == ["gold-check"]
    assert pager.told("lead") == []
    later = Outbox(guard.store, guard.engine, guard.studio, pager, lambda: now() + timedelta(hours=1))
    later.deliver_due()
    assert pager.told("lead") == []
    assert {finding["state"] for finding in world.findings()} == {"dismissed"}
    assert _remembered(world) == 1
    assert differences(guard.store, world.project) == []
    for task in world.project.tasks[1:]:
        world.project.submit(ben, task, choice("dog"))
    assert until(lambda: [finding["rule"] for finding in world.findings(state="open")] == ["gold-check"])
    world.labelguard.outbox.deliver_due()
    assert until(lambda: len(pager.told("lead")) == 1)


def _created(world: World, task: int) -> str:
    with world.labelguard.store.read() as conn:
        row = records.get_task(conn, task)
    assert row is not None
    return str(row["created_at"].isoformat())


def _remembered(world: World) -> int:
    c = schema.rule_states.c
    query = sa.select(c.state).where(c.project == world.project.id, c.subject == f"annotator:{world.ben.id}")
    with world.labelguard.store.read() as conn:
        return len(conn.scalars(query).one()["latest"])


def test_the_admin_is_told_once_and_a_new_token_ends_it(world: World) -> None:
    """In an alert, by the doctor, on the status page and in the metrics; the old token is worth nothing then."""
    world.forge(*_another_result(world))
    world.job()
    world.forge(*_never_made(world))
    world.job()
    (told,) = world.pager.told("admin")
    assert told.startswith("Deliveries that Label Studio does not confirm: 1 since ")
    assert f"`labelguard connect --project {world.project.id}` gives the webhook a new token" in told
    assert "who it is cannot be known" in told
    check = world.check("confirmed")
    assert (check.ok, "not confirm: 2 since " in check.message) == (False, True)
    as_admin = {"Authorization": f"Bearer {API_TOKEN}"}
    status = requests.get(
        f"{world.labelguard.url}/api/v1/status", params={"project": world.project.id}, headers=as_admin, timeout=30
    ).json()
    (shown,) = status["needs_a_person"]["unconfirmed"]
    assert shown["project"] == world.project.id
    metrics = requests.get(f"{world.labelguard.url}/metrics", headers=as_admin, timeout=30).text
    assert 'labelguard_unconfirmed{kind="version"}' in metrics

    (webhook,) = world.project.server.as_(world.ana).call("GET", "/api/webhooks/", params={"project": world.project.id})
    world.labelguard.connect(world.project)
    answer = requests.post(webhook["url"], json=world.genuine, headers=webhook["headers"], timeout=30)
    assert answer.status_code == 401
    assert world.doubts() == {}
    assert world.check("confirmed").ok is True


# With their own token in Label Studio


def test_what_is_posted_in_anothers_name_is_not_held_against_them(world: World) -> None:
    """``completed_by`` is whatever a client says; who saved it is not."""
    world.project.submit(world.ana, world.project.tasks[1], WRONG, completed_by=world.ben.id)
    assert until(lambda: len(world.labelguard.annotations(world.project.id)) == 2)
    world.labelguard.outbox.deliver_due()
    world.job()
    assert [finding for finding in world.findings() if finding["annotator"] == world.ben.id] == []
    assert world.notes_for(world.ben) == []
    assert world.counted()[0] == (world.annotation, world.ben.id)
    assert differences(world.labelguard.store, world.project) == []


def test_what_somebody_else_changed_is_not_held_against_its_author(world: World) -> None:
    """Any annotator can change any annotation."""
    world.project.update(world.ana, world.annotation, WRONG)
    assert until(lambda: world.labelguard.annotations(world.project.id) == world.project.annotations())
    world.labelguard.outbox.deliver_due()
    world.job()
    assert (world.findings(), world.effects(), world.notes_for(world.ben)) == ([], [], [])
    assert differences(world.labelguard.store, world.project) == []


def test_who_marks_their_own_submission_as_ground_truth_is_reported(world: World) -> None:
    """It is not judged, so it is told of, without alarm: who makes gold does the same."""
    world.project.submit(world.ana, world.project.tasks[1], WRONG, ground_truth=True)
    assert until(lambda: len(world.labelguard.annotations(world.project.id)) == 2)
    world.job()
    assert world.findings() == []
    assert world.doubts() == {"own-ground-truth": 1}
    assert world.pager.told("admin") == []
    check = world.check("confirmed")
    assert check.ok is None
    assert f"by user {world.ana.id}." in check.message


def test_the_page_tells_and_takes_from_nobody_else(world: World) -> None:
    """A colleague's note is not shown, not answered and not disputed with one's own session."""
    annotation = world.project.submit(world.ben, world.project.tasks[1], WRONG)
    assert until(lambda: len(world.notes_for(world.ben, annotation)) == 1)
    (note,) = world.notes_for(world.ben, annotation)
    assert world.notes_for(world.ana, annotation) == []
    assert world.notes_for(world.ana) == []
    session = world.session(world.ana)
    for step, body in (("seen", None), ("acknowledge", None), ("dispute", {"words": "No."})):
        address = f"{world.labelguard.url}/page/v1/prompts/{note['id']}/{step}"
        assert requests.post(address, json=body, headers=session, timeout=30).status_code == 404
        assert requests.post(address, json=body, timeout=30).status_code == 401
    (finding,) = world.findings()
    assert finding["state"] == "open"
