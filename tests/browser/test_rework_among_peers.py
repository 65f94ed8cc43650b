"""Work that comes back where several annotators did the same task."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import expect

from annotating import LABEL_CONFIG, Annotator
from live import StudioServer, choice


def test_rework_opens_the_annotators_own_annotation_among_those_of_others(
    studio: StudioServer, sign_in: Callable[..., Annotator], apply: Callable[..., None]
) -> None:
    """Whoever did the task before or after, it is the own answer that opens, and only that one is changed."""
    project = studio.project("Overlap", tasks=2, label_config=LABEL_CONFIG, maximum_annotations=3)
    apply(project, actions=["rework"])
    first = project.tasks[0]
    project.submit(studio.account("before"), first, choice("refund", control="topics"))
    ann = sign_in("ann", project)
    ann.open_stream()
    assert ann.shown_task() == first
    ann.choose("spam", "important")
    own = ann.submit()
    assert own is not None
    expect(ann.card).to_be_visible()
    ann.wait_for_task()
    project.submit(studio.account("after"), first, choice("important", control="topics"))

    ann.answer("Open it again")
    ann.page.wait_for_function(f"window.Htx.task.id === {first}")
    ann.wait_for_task()

    assert ann.page.evaluate("window.Htx.annotationStore.selected.pk") == str(own["id"])
    assert sorted(ann.chosen()) == ["important", "spam"]
    ann.choose("important")
    ann.submit("Update")
    now = {
        each["completed_by"]: each["result"][0]["value"]["choices"]
        for each in project.api.call("GET", f"/api/tasks/{first}/annotations/")
    }
    assert now == {
        studio.account("before").id: ["refund"],
        ann.account.id: ["spam"],
        studio.account("after").id: ["important"],
    }
