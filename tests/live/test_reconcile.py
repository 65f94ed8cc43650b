"""What the webhook missed is found, on a real server, and once."""

from __future__ import annotations

import pytest

from labelguard.reconcile import ReconcileReport, audit, reconcile
from labelguard.store import records
from labelguard.studio.launch import Account
from live import LiveProject, Receiver, StudioServer, choice, now, until


@pytest.fixture
def project(labelguard: Receiver, studio: StudioServer) -> LiveProject:
    """A connected project with thirty tasks."""
    made = studio.project("Reconcile", tasks=30)
    labelguard.connect(made)
    return made


def run(labelguard: Receiver, project: LiveProject) -> ReconcileReport:
    """Reconcile once."""
    return reconcile(labelguard.store, labelguard.engine, labelguard.studio, project.id, clock=now)


def test_after_an_outage_the_store_equals_label_studio(
    labelguard: Receiver, project: LiveProject, ana: Account, ben: Account
) -> None:
    """Twenty made, three changed, two deleted, five tasks with annotations imported while nobody listened."""
    early = [project.submit(ana, task, choice("cat")) for task in project.tasks[:5]]
    assert until(lambda: len(labelguard.annotations(project.id)) == 5)
    labelguard.stop()
    for task in project.tasks[5:25]:
        project.submit(ben, task, choice("dog"))
    for annotation in early[:3]:
        project.update(ana, annotation, choice("dog"))
    for annotation in early[3:]:
        project.api.call("DELETE", f"/api/annotations/{annotation}/")
    project.import_tasks([{"data": {"text": f"i{i}"}, "annotations": [{"result": choice("cat")}]} for i in range(5)])
    assert labelguard.annotations(project.id) != project.annotations()
    report = run(labelguard, project)
    assert (report.new, report.changed, report.deleted) == (25, 3, 2)
    assert labelguard.annotations(project.id) == project.annotations()
    assert run(labelguard, project).missed == 0


def test_nothing_is_fed_twice_when_the_webhook_worked(labelguard: Receiver, project: LiveProject, ana: Account) -> None:
    """What a delivery brought is known, whatever the margin lists again."""
    for task in project.tasks[:3]:
        project.submit(ana, task, choice("cat"))
    assert until(lambda: len(labelguard.annotations(project.id)) == 3)
    report = run(labelguard, project)
    assert report.missed == 0
    assert report.tasks >= 3


def test_an_audit_finds_deleted_tasks(labelguard: Receiver, project: LiveProject, ana: Account) -> None:
    """A listing does not show them, but what deliveries told of is asked for; annotations of deleted tasks go too."""
    for task in project.tasks[:3]:
        project.submit(ana, task, choice("cat"))
    assert until(lambda: len(labelguard.annotations(project.id)) == 3)
    labelguard.stop()
    project.api.call("DELETE", f"/api/tasks/{project.tasks[0]}/")
    reports = [
        run(labelguard, project),
        audit(labelguard.store, labelguard.engine, labelguard.studio, project.id, clock=now),
    ]
    assert sum(report.tasks_deleted for report in reports) == 1
    assert sum(report.deleted for report in reports) == 1
    assert labelguard.annotations(project.id) == project.annotations()


def test_a_bulk_deletion_of_annotations_is_found(labelguard: Receiver, project: LiveProject, ana: Account) -> None:
    """The Data Manager's action bumps the tasks as well."""
    for task in project.tasks[:4]:
        project.submit(ana, task, choice("cat"))
    assert until(lambda: len(labelguard.annotations(project.id)) == 4)
    labelguard.stop()
    project.api.call(
        "POST",
        f"/api/dm/actions?id=delete_tasks_annotations&project={project.id}",
        json={"selectedItems": {"all": False, "included": project.tasks[:4]}},
    )
    assert run(labelguard, project).deleted == 4
    assert labelguard.annotations(project.id) == project.annotations() == {}


def test_ground_truth_that_moved_without_an_event_is_seen(
    labelguard: Receiver, project: LiveProject, ana: Account, ben: Account
) -> None:
    """The flag of the first annotation is cleared with neither an event nor a new time."""
    task = project.tasks[0]
    project.submit(ana, task, choice("cat"), ground_truth=True)
    second = project.submit(ben, task, choice("dog"))
    assert until(lambda: len(labelguard.annotations(project.id)) == 2)
    project.api.call("PATCH", f"/api/annotations/{second}/", json={"ground_truth": True})
    labelguard.settled()
    run(labelguard, project)
    assert labelguard.annotations(project.id) == project.annotations()


def test_a_changed_guideline_is_a_new_version(labelguard: Receiver, project: LiveProject) -> None:
    """Also when the webhook was not there to say so."""
    labelguard.stop()
    project.api.call("PATCH", f"/api/projects/{project.id}/", json={"expert_instruction": "Cats have whiskers."})
    assert run(labelguard, project).project_changed
    with labelguard.store.read() as conn:
        versions = records.list_guidelines(conn, project.id)
    assert [version["guideline"] for version in versions][-1] == "Cats have whiskers."
    assert not run(labelguard, project).project_changed


def test_an_edit_by_an_admin_keeps_both_names(labelguard: Receiver, project: LiveProject, ana: Account) -> None:
    """Whose it is and who saved it last are different people, and stay so."""
    labelguard.stop()
    annotation = project.submit(ana, project.tasks[0], choice("cat"))
    project.update(project.server.admin, annotation, choice("dog"))
    run(labelguard, project)
    [row] = labelguard.annotations(project.id).values()
    assert (row["completed_by"], row["updated_by"]) == (ana.id, project.server.admin.id)
