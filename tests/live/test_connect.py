"""Connecting and disconnecting real projects."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from labelguard.connect import CannotConnect, connect, disconnect
from labelguard.connectors import ConnectorError
from labelguard.manifest import EVENTS
from labelguard.store import records
from labelguard.store.schema import actions, findings
from labelguard.studio.launch import Account, StudioProcess
from labelguard_connectors import LabelStudio
from live import LABEL_CONFIG, LiveProject, Receiver, StudioServer, choice, now, studio_python, until

POLICY = """\
project: {project}
rules:
  - rule: label-constraints
    control: label
    mode: enforce
    options:
      requires: {{cat: [dog]}}
    actions: [prompt, rework]
"""


def webhooks(project: LiveProject) -> list[dict[str, object]]:
    """The project's webhooks as Label Studio has them, headers included."""
    found: list[dict[str, object]] = project.api.call("GET", "/api/webhooks/", params={"project": project.id})
    return found


def test_a_connected_project_delivers_each_submission(labelguard: Receiver, studio: StudioServer, ana: Account) -> None:
    """The webhook goes to our address, for the manifest's events, with a token kept as a hash only."""
    project = studio.project("Connect", tasks=1)
    report = labelguard.connect(project)
    [webhook] = webhooks(project)
    assert webhook["url"] == f"{labelguard.url}/webhook/{project.id}"
    assert set(webhook["actions"]) == set(EVENTS)  # type: ignore[call-overload]
    assert report.webhook == webhook["id"]
    assert report.first
    token = webhook["headers"]["X-Labelguard-Token"]  # type: ignore[index]
    with labelguard.store.read() as conn:
        row = records.get_project(conn, project.id)
    assert row is not None
    assert token not in str(row)
    project.submit(ana, project.tasks[0], choice("cat"))
    assert until(lambda: labelguard.annotations(project.id) == project.annotations())
    with labelguard.store.read() as conn:
        assert records.get_annotator(conn, ana.id) == records.get_annotator(conn, ana.id) | {"name": "Ana"}  # type: ignore[operator]


def test_a_dry_run_says_what_it_would_do_and_does_nothing(labelguard: Receiver, studio: StudioServer) -> None:
    """Neither Label Studio nor the store is touched."""
    project = studio.project("Dry run", tasks=1)
    report = labelguard.connect(project, dry_run=True, task_note="labelguard_note")
    steps = report.steps
    assert steps[:4] == (
        f"Would create a webhook to {labelguard.url}/webhook/{project.id}.",
        "Would add a line that shows “labelguard_note” to the labeling interface.",
        "Would read every annotated task, without any action.",
        f"From now on {labelguard.studio.server().user.email} would use, on this Label Studio Community:",
    )
    assert any("PATCH /api/webhooks/{id}/" in step for step in steps[4:])
    assert not any("comments" in step for step in steps)
    assert webhooks(project) == []
    with labelguard.store.read() as conn:
        assert records.get_project(conn, project.id) is None


def test_connecting_again_leaves_one_webhook_and_the_first_date(
    labelguard: Receiver, studio: StudioServer, ana: Account
) -> None:
    """A second connect renews the token, removes a duplicate and feeds nothing twice."""
    project = studio.project("Again", tasks=2)
    project.submit(ana, project.tasks[0], choice("cat"))
    first = labelguard.connect(project)
    assert first.backfill is not None
    assert first.backfill.new == 1
    with labelguard.store.read() as conn:
        before = records.get_project(conn, project.id)
    project.api.call("POST", "/api/webhooks/", json={"url": webhooks(project)[0]["url"], "project": project.id})
    second = labelguard.connect(project)
    assert not second.first
    assert second.backfill is not None
    assert second.backfill.missed == 0
    assert len(webhooks(project)) == 1
    with labelguard.store.read() as conn:
        after = records.get_project(conn, project.id)
    assert before is not None
    assert after is not None
    assert after["connected_at"] == before["connected_at"]
    assert after["token_hash"] != before["token_hash"]
    project.submit(ana, project.tasks[1], choice("dog"))
    assert until(lambda: labelguard.annotations(project.id) == project.annotations())


def test_somebody_elses_webhook_is_left_alone(labelguard: Receiver, studio: StudioServer) -> None:
    """Also another labelguard's, which has the same header at another address."""
    project = studio.project("Neighbours")
    for url, headers in (
        ("http://127.0.0.1:9/hook", {}),
        (f"http://127.0.0.1:9/webhook/{project.id}", {"X-Labelguard-Token": "theirs"}),
    ):
        project.api.call("POST", "/api/webhooks/", json={"url": url, "project": project.id, "headers": headers})
    theirs = webhooks(project)
    labelguard.connect(project)
    assert [w for w in webhooks(project) if w in theirs] == theirs
    assert len(webhooks(project)) == 3


@pytest.mark.slow
def test_connecting_to_a_project_with_2000_old_annotations_makes_no_action(
    labelguard: Receiver, studio: StudioServer
) -> None:
    """Every one of them breaks the rule: findings, with progress, and not one action."""
    project = studio.project("History")
    project.import_tasks(
        [
            {
                "data": {"text": f"old {i}"},
                "annotations": [{"result": choice("cat"), "ground_truth": False, "completed_by": studio.admin.id}],
            }
            for i in range(2000)
        ]
    )
    policy = POLICY.format(project=project.id)
    labelguard.store.write(lambda conn: records.add_policy(conn, project.id, policy, now()))
    told: list[int] = []
    report = labelguard.connect(project, progress=lambda done, _total: told.append(done))
    assert report.backfill is not None
    assert report.backfill.new == 2000
    assert told == list(range(100, 2001, 100))
    assert labelguard.annotations(project.id) == project.annotations()
    with labelguard.store.read() as conn:
        found = conn.scalar(sa.select(sa.func.count()).where(findings.c.project == project.id))
        acted = conn.scalar(sa.select(sa.func.count()).where(actions.c.project == project.id))
    assert found == 2000
    assert acted == 0


def test_disconnecting_removes_the_webhook_and_the_note_line(labelguard: Receiver, studio: StudioServer) -> None:
    """The labeling interface is as it was, to the byte, and the project is forgotten as connected."""
    project = studio.project("Disconnect", tasks=1)
    labelguard.connect(project, task_note="labelguard_note")
    config = project.api.call("GET", f"/api/projects/{project.id}/")["label_config"]
    assert '<Header value="$labelguard_note" size="5"/>' in config
    project.import_texts(1, start=5)  # tasks without the key are still taken
    report = disconnect(labelguard.store, labelguard.outbox, labelguard.studio, project.id, by="test", clock=now)
    assert (report.webhooks, report.note_removed) == (1, True)
    assert webhooks(project) == []
    assert project.api.call("GET", f"/api/projects/{project.id}/")["label_config"] == LABEL_CONFIG
    with labelguard.store.read() as conn:
        row = records.get_project(conn, project.id)
    assert row is not None
    assert (row["connected_at"], row["token_hash"], row["webhook_id"]) == (None, None, None)


def test_another_note_key_replaces_the_line_and_none_takes_it_away(labelguard: Receiver, studio: StudioServer) -> None:
    """There is never a line of ours that nobody remembers."""
    project = studio.project("Other note")

    def config() -> str:
        return str(project.api.call("GET", f"/api/projects/{project.id}/")["label_config"])

    labelguard.connect(project, task_note="first")
    labelguard.connect(project, task_note="second")
    assert "$first" not in config()
    assert config().count("$second") == 1
    labelguard.connect(project)
    assert config() == LABEL_CONFIG


def test_a_labeling_interface_that_cannot_take_a_note_is_said_to_be_so(
    labelguard: Receiver, studio: StudioServer
) -> None:
    """Before anything is changed."""
    project = studio.project("No room", label_config="<View/>")
    with pytest.raises(CannotConnect, match="has no tag with others inside it"):
        labelguard.connect(project, task_note="labelguard_note")
    assert webhooks(project) == []


def test_the_ssrf_protection_is_named_with_the_settings_to_change(
    labelguard: Receiver, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The first thing that goes wrong on premises; nothing stays half connected."""
    python = studio_python()
    assert python is not None
    folder = tmp_path_factory.mktemp("protected")
    protected = StudioProcess(python, folder, env={"SSRF_PROTECTION_ENABLED": "true"})
    protected.start()
    server = StudioServer(protected)
    try:
        project = server.project("Protected")
        with LabelStudio(server.url, server.admin.token) as studio, pytest.raises(ConnectorError) as error:
            connect(
                labelguard.store,
                labelguard.engine,
                studio,
                project.id,
                public_url=labelguard.url,
                clock=lambda: datetime(2026, 1, 1, tzinfo=UTC),
                events=EVENTS,
            )
    finally:
        server.close()
    assert "SSRF_PROTECTION_ENABLED=false or USE_DEFAULT_BANNED_SUBNETS=false" in str(error.value)
    assert error.value.permanent
    with labelguard.store.read() as conn:
        row = records.get_project(conn, project.id)
    assert row is not None
    assert (row["connected_at"], row["token_hash"]) == (None, None)
