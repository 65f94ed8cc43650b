"""The watchdog on a real server: whatever is done to the webhook, it is put right and said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from labelguard.connectors import ConnectorError
from labelguard.manifest import EVENTS
from labelguard.store import records
from labelguard.studio.launch import Account
from labelguard.watchdog import WatchReport, watch
from live import Api, LiveProject, Receiver, StudioServer, choice, now, until


class Pager:
    """Remembers alerts; the target ``broken`` takes none."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str, str]] = []

    def notify(self, target: str, title: str, body: str) -> None:
        """Take an alert."""
        if target == "broken":
            raise ConnectorError("It does not answer.")
        self.sent.append((target, title, body))


@pytest.fixture
def project(labelguard: Receiver, studio: StudioServer) -> LiveProject:
    """A connected project with two tasks."""
    made = studio.project("Watched", tasks=2)
    labelguard.connect(made)
    return made


def look(labelguard: Receiver, project: LiveProject, **more: Any) -> WatchReport:
    """Let the watchdog look once."""
    return watch(
        labelguard.store,
        labelguard.studio,
        project.id,
        public_url=labelguard.url,
        clock=now,
        events=EVENTS,
        **more,
    )


def webhooks(project: LiveProject) -> list[dict[str, Any]]:
    """The project's webhooks as Label Studio has them."""
    found: list[dict[str, Any]] = project.api.call("GET", "/api/webhooks/", params={"project": project.id})
    return found


def as_annotator(project: LiveProject) -> Api:
    """Label Studio's API with an annotator's own token: in Community it is enough."""
    return project.server.as_(project.server.account("ana"))


def patch(project: LiveProject, **values: Any) -> None:
    """Change the webhook behind labelguard's back, keeping its actions."""
    [webhook] = webhooks(project)
    as_annotator(project).call(
        "PATCH", f"/api/webhooks/{webhook['id']}/", json={"actions": webhook["actions"], **values}
    )


def test_a_right_webhook_is_left_alone(labelguard: Receiver, project: LiveProject) -> None:
    """Not even its token changes."""
    before = webhooks(project)
    report = look(labelguard, project)
    assert (report.connected, report.problems, report.repaired) == (True, (), False)
    assert webhooks(project) == before


def _delete(project: LiveProject) -> None:
    as_annotator(project).call("DELETE", f"/api/webhooks/{webhooks(project)[0]['id']}/")


def _duplicate(project: LiveProject) -> None:
    body = {"url": webhooks(project)[0]["url"], "project": project.id}
    as_annotator(project).call("POST", "/api/webhooks/", json=body)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (_delete, "The webhook is gone."),
        (lambda p: patch(p, is_active=False), "The webhook is switched off."),
        (lambda p: patch(p, url="http://127.0.0.1:9/elsewhere"), "The webhook has another address."),
        (lambda p: patch(p, actions=["TASKS_CREATED"]), "The webhook is sent for other events."),
        (lambda p: patch(p, send_payload=False), "The webhook does not carry its payload."),
        (lambda p: patch(p, headers={}), "The webhook has lost its header X-Labelguard-Token."),
        (_duplicate, "There is one more webhook at the same address."),
    ],
    ids=["deleted", "off", "address", "events", "payload", "header", "duplicate"],
)
def test_whatever_was_done_to_it_is_said_and_deliveries_come_again(
    labelguard: Receiver, project: LiveProject, ana: Account, harm: Callable[[LiveProject], None], said: str
) -> None:
    """An annotator's own token is enough to do any of these in Community."""
    harm(project)
    pager = Pager()
    report = look(labelguard, project, notifier=pager, targets=["broken", "lead"])
    assert report.problems == (said,)
    assert report.repaired
    assert report.notified == ("lead",)
    [(_, title, body)] = pager.sent
    assert title == f"labelguard repaired its webhook in project {project.id} (Watched)"
    assert body.startswith(said)
    assert "Who did it cannot be known" in body
    assert len(webhooks(project)) == 1
    project.submit(ana, project.tasks[0], choice("cat"))
    assert until(lambda: labelguard.annotations(project.id) == project.annotations())
    assert look(labelguard, project).problems == ()


def test_a_project_that_is_not_connected_is_left_alone(labelguard: Receiver, studio: StudioServer) -> None:
    """Nothing is created for it."""
    project = studio.project("Unwatched")
    assert not look(labelguard, project).connected
    assert webhooks(project) == []


def test_the_first_connection_date_survives_a_repair(labelguard: Receiver, project: LiveProject) -> None:
    """What came before it stays the past."""
    with labelguard.store.read() as conn:
        before = records.get_project(conn, project.id)
    _delete(project)
    look(labelguard, project)
    with labelguard.store.read() as conn:
        after = records.get_project(conn, project.id)
    assert before is not None
    assert after is not None
    assert after["connected_at"] == before["connected_at"]
    assert after["webhook_id"] != before["webhook_id"]
