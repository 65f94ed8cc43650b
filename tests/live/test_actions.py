"""Findings and actions on a real Label Studio: what annotators are served, and what they can find out."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from typing import Any

import pytest
import requests

from labelguard.connect import disconnect
from labelguard.store import records
from labelguard.studio.launch import Account
from live import LiveProject, Receiver, StudioServer, choice, now, until

CONFIG = """<View>
  <Text name="text" value="$text"/>
  <Choices name="topics" toName="text" choice="multiple">
    <Choice value="spam"/><Choice value="important"/><Choice value="refund"/>
  </Choices>
</View>"""
CONSTRAINTS = """
  - rule: label-constraints
    control: topics
    mode: enforce
    options: {{exclusive: [[spam, important]]}}
    actions: {actions}
"""
WRONG = ("spam", "important")


def topics(*labels: str) -> list[dict[str, Any]]:
    """The result of choosing topics."""
    return choice(*labels, control="topics")


def user_id(studio: StudioServer, account: Account) -> int:
    """Label Studio's number for an account."""
    return int(studio.as_(account).call("GET", "/api/current-user/whoami")["id"])


def connected(labelguard: Receiver, studio: StudioServer, rules: str, *, tasks: int = 3) -> LiveProject:
    """A connected project with a policy."""
    project = studio.project("Actions", tasks=tasks, label_config=CONFIG)
    labelguard.connect(project)
    text = f"project: {project.id}\nrules:{rules}"
    labelguard.store.write(lambda conn: records.add_policy(conn, project.id, text, now()))
    return project


def rules_that_spoke(labelguard: Receiver, project: LiveProject) -> set[str]:
    """The names of rules with findings."""
    with labelguard.store.read() as conn:
        return {finding["rule"] for finding in records.list_findings(conn, project=project.id)}


def action(labelguard: Receiver, project: LiveProject) -> records.Row:
    """The project's only action; it must be there."""
    with labelguard.store.read() as conn:
        (found,) = records.list_actions(conn, project=project.id)
    return found


def reaches(labelguard: Receiver, project: LiveProject, state: str) -> bool:
    """Whether the project's only action comes to a state soon."""

    def there() -> bool:
        with labelguard.store.read() as conn:
            return [a["state"] for a in records.list_actions(conn, project=project.id)] == [state]

    return until(there, 15)


def states(labelguard: Receiver, project: LiveProject, kind: str) -> list[str]:
    """The states of the project's actions of a kind."""
    with labelguard.store.read() as conn:
        return [a["state"] for a in records.list_actions(conn, project=project.id, kind=kind)]


def work_through(project: LiveProject, account: Account, tasks: Sequence[int], *labels: str) -> None:
    """Submit the same to each task."""
    for task in tasks:
        project.submit(account, task, topics(*labels))


def test_each_rule_speaks_about_real_submissions(
    labelguard: Receiver, studio: StudioServer, ana: Account, ben: Account
) -> None:
    """Constraints at once, known answers after a few mistakes, overuse once others have seen the same tasks."""
    rules = (
        CONSTRAINTS.format(actions="[prompt]")
        + "  - rule: gold-check\n    mode: enforce\n    actions: [prompt]\n"
        + "  - rule: single-label-overuse\n    control: topics\n    mode: enforce\n    actions: [prompt]\n"
    )
    project = connected(labelguard, studio, rules, tasks=56)
    known, others = project.tasks[:12], project.tasks[12:]

    def keep_answers(conn: Any) -> None:
        for task in known:
            records.add_gold(conn, project.id, task, topics("refund"), "import:test", now())

    labelguard.store.write(keep_answers)
    project.submit(ana, others[0], topics(*WRONG))
    assert until(lambda: rules_that_spoke(labelguard, project) == {"label-constraints"})
    dan, cora = studio.account("dan"), studio.account("cora")
    work_through(project, dan, known, "important")
    assert until(lambda: "gold-check" in rules_that_spoke(labelguard, project))
    work_through(project, ben, others[1:], "important")
    work_through(project, cora, others[1:], "important")
    work_through(project, ana, others[1:], "spam")
    assert until(lambda: "single-label-overuse" in rules_that_spoke(labelguard, project))
    with labelguard.store.read() as conn:
        overused = records.list_findings(conn, project=project.id, rule="single-label-overuse")
    spoken_of = {finding["annotator"] for finding in overused}
    # Dan used one label on all known tasks; Ben and Cora agree with each other.
    assert user_id(studio, ana) in spoken_of
    assert spoken_of <= {user_id(studio, ana), user_id(studio, dan)}


def test_replace_serves_another_annotator_and_undo_takes_it_back(
    labelguard: Receiver, studio: StudioServer, ana: Account, ben: Account
) -> None:
    """The author is not asked again; our own change is no news about them."""
    project = connected(labelguard, studio, CONSTRAINTS.format(actions="[replace]"), tasks=1)
    (task,) = project.tasks
    project.submit(ana, task, topics(*WRONG))
    assert reaches(labelguard, project, "done")
    assert project.next_task(ben) == task
    assert project.next_task(ana) is None
    ours = (True, studio.connector().server().user.id)
    assert until(
        lambda: [(a["was_cancelled"], a["updated_by"]) for a in labelguard.annotations(project.id).values()] == [ours]
    )
    with labelguard.store.read() as conn:
        assert len(records.list_findings(conn, project=project.id)) == 1
    labelguard.outbox.undo(action(labelguard, project)["id"], "Ada")
    assert [a["was_cancelled"] for a in project.annotations().values()] == [False]
    assert project.next_task(ben) is None


def test_a_second_opinion_is_served_to_another_and_closed_once_it_came(
    labelguard: Receiver, studio: StudioServer, ana: Account, ben: Account
) -> None:
    """The task's overlap is the project's again afterwards."""
    project = connected(labelguard, studio, CONSTRAINTS.format(actions="[second-opinion]"), tasks=1)
    (task,) = project.tasks
    project.submit(ana, task, topics(*WRONG))
    assert reaches(labelguard, project, "done")
    assert labelguard.studio.task(task).task.overlap == 2
    assert project.next_task(ana) is None
    assert project.next_task(ben) == task
    project.submit(ben, task, topics("refund"))
    assert labelguard.outbox.settle(project.id)["second_opinions_closed"] == 1
    after = labelguard.studio.task(task).task
    assert (after.overlap, after.is_labeled) == (1, True)
    assert project.next_task(studio.account("cora")) is None


def test_undoing_a_second_opinion_asks_nobody_any_more(
    labelguard: Receiver, studio: StudioServer, ana: Account, ben: Account
) -> None:
    """Disconnecting does the same."""
    project = connected(labelguard, studio, CONSTRAINTS.format(actions="[second-opinion]"), tasks=1)
    project.submit(ana, project.tasks[0], topics(*WRONG))
    assert reaches(labelguard, project, "done")
    report = disconnect(labelguard.store, labelguard.outbox, labelguard.studio, project.id, by="Ada", clock=now)
    assert report.undone == 1
    after = labelguard.studio.task(project.tasks[0]).task
    assert (after.overlap, after.is_labeled) == (1, True)
    assert project.next_task(ben) is None


def test_an_edit_by_an_admin_or_by_labelguard_is_never_held_against_the_annotator(
    labelguard: Receiver, studio: StudioServer, ana: Account
) -> None:
    """Nor is an annotation that only claims to be by them."""
    project = connected(labelguard, studio, CONSTRAINTS.format(actions="[prompt]"))
    mine = [project.submit(ana, task, topics("refund")) for task in project.tasks[:2]]
    project.update(studio.admin, mine[0], topics(*WRONG))
    project.update(studio.account("labelguard"), mine[1], topics(*WRONG))
    project.submit(studio.admin, project.tasks[2], topics(*WRONG), completed_by=user_id(studio, ana))
    assert until(lambda: labelguard.annotations(project.id) == project.annotations())
    labelguard.settled()
    assert rules_that_spoke(labelguard, project) == set()


@pytest.mark.parametrize("what", ["changed", "deleted"])
def test_nothing_is_done_about_an_annotation_that_is_not_what_was_judged(
    labelguard: Receiver, studio: StudioServer, ana: Account, what: str
) -> None:
    """A person approved it, but meanwhile it was corrected or deleted, while nobody listened."""
    rules = CONSTRAINTS.format(actions="[replace]").replace("enforce", "recommend")
    project = connected(labelguard, studio, rules, tasks=1)
    annotation = project.submit(ana, project.tasks[0], topics(*WRONG))
    assert reaches(labelguard, project, "proposed")
    labelguard.stop()
    if what == "changed":
        project.update(ana, annotation, topics("spam"))
    else:
        project.api.call("DELETE", f"/api/annotations/{annotation}/")
    before = project.annotations()
    labelguard.outbox.approve(action(labelguard, project)["id"], "Ada")
    assert labelguard.outbox.deliver_due() == 0
    found = action(labelguard, project)
    expected = "judged again as it is now" if what == "changed" else "gone from Label Studio"
    assert (found["state"], expected in found["error"]) == ("failed", True)
    assert project.annotations() == before


def test_an_annotator_finds_no_answer_of_the_vault_anywhere(
    labelguard: Receiver, studio: StudioServer, ana: Account, ben: Account
) -> None:
    """Not in Label Studio with their own token, and not at any of labelguard's addresses."""
    secret = f"vault-secret-{uuid.uuid4().hex}"
    rules = "\n  - rule: gold-check\n    mode: enforce\n    actions: [prompt, {notify: chat}]\n" + CONSTRAINTS.format(
        actions="[prompt, rework, second-opinion]"
    )
    project = connected(labelguard, studio, rules, tasks=14)

    def keep_answers(conn: Any) -> None:
        for task in project.tasks:
            records.add_gold(conn, project.id, task, topics(secret), "import:test", now())

    labelguard.store.write(keep_answers)
    work_through(project, ana, project.tasks[:12], "refund")
    last = project.submit(ana, project.tasks[12], topics(*WRONG))
    assert until(lambda: rules_that_spoke(labelguard, project) == {"gold-check", "label-constraints"})
    assert until(lambda: "done" in states(labelguard, project, "second-opinion"))

    api = studio.as_(ana)
    listings = (
        f"/api/projects/{project.id}/",
        f"/api/projects/{project.id}/next",
        f"/api/tasks/?project={project.id}&fields=all&page_size=1000",
        f"/api/tasks/{project.tasks[0]}/",
        f"/api/tasks/{project.tasks[0]}/annotations/",
        f"/api/annotations/{last}/",
        f"/api/dm/views/?project={project.id}",
        f"/api/dm/columns/?project={project.id}",
        f"/api/webhooks/?project={project.id}",
        f"/api/projects/{project.id}/export?exportType=JSON",
    )
    seen = [json.dumps(api.call("GET", path), ensure_ascii=False) for path in listings]
    with requests.Session() as browser:
        opened = browser.post(
            f"{labelguard.url}/page/v1/session",
            json={"project": project.id},
            headers={"Cookie": studio.cookie(ana), "Sec-Fetch-Site": "same-origin"},
            timeout=20,
        )
        assert opened.status_code == 200, opened.text
        headers = {"X-Labelguard-Session": opened.json()["token"]}
        prompts = browser.get(
            f"{labelguard.url}/page/v1/prompts?project={project.id}&annotation={last}", headers=headers, timeout=20
        )
        assert prompts.json()["prompts"]
        check = browser.post(
            f"{labelguard.url}/page/v1/check",
            json={"project": project.id, "task": project.tasks[13], "result": topics("refund")},
            headers=headers,
            timeout=20,
        )
        assert check.status_code == 200
        seen += [opened.text, prompts.text, check.text]
        for path in ("/", "/healthz", "/readyz", "/metrics", "/page.js", "/api/v1/findings", "/api/v1/status"):
            for extra in ({}, headers, {"Authorization": f"Token {ana.token}"}):
                answer = browser.get(f"{labelguard.url}{path}", headers=extra, timeout=20)
                seen += [answer.text, str(answer.headers)]
    assert [text for text in seen if secret in text] == []
    # The search itself would find it.
    with labelguard.store.read() as conn:
        assert secret in json.dumps(records.list_gold(conn, project.id), default=str)
