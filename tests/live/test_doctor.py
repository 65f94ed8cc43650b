"""What the doctor tells an admin, on a real server."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from labelguard.doctor import Check, diagnose
from labelguard.manifest import EVENTS
from labelguard.studio.launch import Account, free_port
from live import LiveProject, Receiver, StudioServer, choice, now, until


@pytest.fixture
def project(labelguard: Receiver, studio: StudioServer) -> LiveProject:
    """A connected project with four tasks."""
    made = studio.project("Doctor", tasks=4)
    labelguard.connect(made)
    return made


def examine(labelguard: Receiver, project: LiveProject | None = None, **settings: Any) -> Mapping[str, Check]:
    """All checks by name, a project's without its number."""
    checks = diagnose(
        labelguard.settings.model_copy(update=settings),
        labelguard.store,
        labelguard.studio,
        project.id if project else None,
        clock=now,
        events=EVENTS,
    )
    return {check.name.rpartition(": ")[2]: check for check in checks}


def test_a_working_installation_has_nothing_wrong(
    labelguard: Receiver, project: LiveProject, ana: Account, ben: Account
) -> None:
    """Once two people have submitted; the loopback address is only remarked upon."""
    project.submit(ana, project.tasks[0], choice("cat"))
    project.submit(ben, project.tasks[1], choice("cat"))
    assert until(lambda: len(labelguard.annotations(project.id)) == 2)
    found = examine(labelguard, project)
    assert {name: check.ok for name, check in found.items()} == {
        "store": True,
        "token": True,
        "edition": True,
        "clock": True,
        "address": True,
        "webhook address": None,
        "webhook": True,
        "deliveries": True,
        "delivery": True,
        "confirmed": True,
        "history": True,
        "own user": True,
        "annotators": True,
    }
    assert found["edition"].message.startswith("This is Label Studio Community 1.")
    assert "USE_DEFAULT_BANNED_SUBNETS=false" in found["webhook address"].fix
    assert "in order: they come while the annotator's save is answered" in found["delivery"].message


def test_before_the_first_submission_it_says_what_to_look_for(labelguard: Receiver, project: LiveProject) -> None:
    """Nothing has come in, so nothing is claimed about it."""
    found = examine(labelguard, project)
    assert found["deliveries"].ok is None
    assert found["deliveries"].message == "No delivery has come in since the project was connected."
    assert found["delivery"].ok is None
    assert found["annotators"].message == "Nobody has annotated in this project yet."


def test_a_lone_annotator_is_remarked_upon(labelguard: Receiver, project: LiveProject, ana: Account) -> None:
    """Work handed to another annotator would wait for ever."""
    project.submit(ana, project.tasks[0], choice("cat"))
    assert until(lambda: len(labelguard.annotations(project.id)) == 1)
    assert examine(labelguard, project)["annotators"] == Check(
        f"project {project.id}: annotators",
        None,
        "Only one person has annotated in this project.",
        "`second-opinion` and `replace` wait until a second annotator works in it.",
    )


def test_annotating_as_labelguards_user_is_wrong(
    labelguard: Receiver, project: LiveProject, studio: StudioServer
) -> None:
    """What that user saves is never judged, so an annotator must not share it."""
    project.submit(studio.account("labelguard"), project.tasks[0], choice("cat"))
    assert until(lambda: len(labelguard.annotations(project.id)) == 1)
    check = examine(labelguard, project)["own user"]
    assert check.ok is False
    assert check.message == (
        "The user labelguard acts as (labelguard@example.com) made 1 annotations in this project; "
        "they are never judged."
    )


def test_a_webhook_that_is_off_is_wrong(labelguard: Receiver, project: LiveProject) -> None:
    """And it is named with the command that repairs it."""
    [webhook] = project.api.call("GET", "/api/webhooks/", params={"project": project.id})
    project.api.call(
        "PATCH", f"/api/webhooks/{webhook['id']}/", json={"is_active": False, "actions": webhook["actions"]}
    )
    check = examine(labelguard, project)["webhook"]
    assert (check.ok, check.message) == (False, "The webhook is switched off.")
    assert f"labelguard connect --project {project.id}" in check.fix


def test_a_stopped_service_is_wrong(labelguard: Receiver, project: LiveProject) -> None:
    """The public address is asked from here."""
    labelguard.stop()
    check = examine(labelguard, project)["address"]
    assert check.ok is False
    assert check.message == f"{labelguard.url}/healthz did not answer, asked from this machine."


def test_a_project_that_is_not_connected_is_wrong(labelguard: Receiver, studio: StudioServer) -> None:
    """With the command that connects it; without naming a project, none being connected is worth a remark."""
    project = studio.project("Stranger")
    check = examine(labelguard, project)["webhook"]
    assert (check.ok, check.fix) == (False, f"Run `labelguard connect --project {project.id}`.")
    assert examine(labelguard)["projects"].ok is None


def test_a_clock_that_is_off_is_wrong(labelguard: Receiver) -> None:
    """Label Studio's time comes from its answer's Date header."""
    checks = diagnose(
        labelguard.settings,
        labelguard.store,
        labelguard.studio,
        clock=lambda: now() + timedelta(minutes=5),
        events=EVENTS,
    )
    [clock] = [check for check in checks if check.name == "clock"]
    assert clock.ok is False
    assert clock.message.endswith("seconds behind this machine's.")


def test_a_missing_token_and_a_silent_server_are_findings_not_crashes(labelguard: Receiver, tmp_path: Path) -> None:
    """The doctor is for installations that do not work yet."""
    settings = labelguard.settings.model_copy(
        update={
            "studio_url": f"http://127.0.0.1:{free_port()}",
            "studio_api_key": SecretStr(""),
            "database_url": f"sqlite:///{tmp_path / 'fresh.sqlite3'}",
        }
    )
    found = {check.name: check for check in diagnose(settings, clock=now, events=EVENTS)}
    assert found["store"].ok
    assert found["token"].message == "labelguard has no token for Label Studio."
    assert found["clock"].ok is None


def test_a_refused_token_is_said_without_showing_it(labelguard: Receiver, studio: StudioServer) -> None:
    """The connector's sentence is the doctor's."""
    token = "0123456789abcdef0123456789abcdef01234567"
    with_wrong = labelguard.settings.model_copy(update={"studio_api_key": SecretStr(token)})
    connector = studio.connector(Account(0, "", "", token))
    found = {c.name: c for c in diagnose(with_wrong, labelguard.store, connector, clock=now, events=EVENTS)}
    assert found["token"].ok is False
    assert found["token"].message.startswith("Label Studio refused labelguard's token")
    assert token not in repr(found)
