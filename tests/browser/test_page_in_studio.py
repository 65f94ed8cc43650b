"""What annotators see and do in Label Studio's own page, signed in as the annotator it concerns."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from playwright.sync_api import expect

from annotating import LABEL_CONFIG, MARKUP, Annotator
from labelguard.feedback import render
from labelguard.store import records
from live import LiveProject, Receiver, StudioServer, now, until

SignIn = Callable[..., Annotator]
Apply = Callable[..., None]


@pytest.fixture
def project(studio: StudioServer) -> LiveProject:
    """A project of its own with six texts."""
    return studio.project("Topics", tasks=6, label_config=LABEL_CONFIG)


def finding_of(labelguard: Receiver, project: LiveProject) -> dict[str, Any]:
    """The only finding of a project."""
    with labelguard.store.read() as conn:
        (finding,) = records.list_findings(conn, project=project.id)
    return finding


def action_states(labelguard: Receiver, project: LiveProject) -> dict[str, str]:
    """The states of a project's actions by kind."""
    with labelguard.store.read() as conn:
        return {action["kind"]: action["state"] for action in records.list_actions(conn, project=project.id)}


def unharmed(who: Annotator) -> None:
    """Nothing of ours threw, and no planted markup ran."""
    assert [error for error in who.errors if "labelguard" in error] == []
    assert who.page.evaluate("window.planted") is None


def test_a_prompt_appears_after_submit_and_got_it_ends_it(
    labelguard: Receiver, project: LiveProject, sign_in: SignIn, apply: Apply
) -> None:
    """Its words are the annotator's message for the finding; the finding is acknowledged by them."""
    apply(project)
    ann = sign_in("ann", project)
    ann.open_stream()
    ann.choose("spam", "important")
    ann.submit()
    expect(ann.card).to_be_visible()
    finding = finding_of(labelguard, project)
    assert finding["annotator"] == ann.account.id
    expect(ann.card.locator("#text")).to_have_text(render("label-constraints", "en", finding["feedback"]))
    expect(ann.page.locator("#labelguard [role=status]")).to_contain_text("A note on your work")
    assert until(lambda: action_states(labelguard, project) == {"prompt": "delivering"})
    ann.shot("prompt")
    ann.answer("Got it")
    expect(ann.card).to_have_count(0)
    assert until(lambda: action_states(labelguard, project) == {"prompt": "done"})
    assert finding_of(labelguard, project)["state"] == "acknowledged"
    unharmed(ann)


def test_a_clean_submit_shows_nothing(project: LiveProject, sign_in: SignIn, apply: Apply) -> None:
    """No card, and nothing asked about it."""
    apply(project)
    ann = sign_in("ann", project)
    ann.open_stream()
    ann.choose("spam")
    ann.submit()
    ann.wait_for_task()
    expect(ann.card).to_have_count(0)
    unharmed(ann)


def test_a_dispute_is_stored_and_other_peoples_markup_is_text(
    labelguard: Receiver, project: LiveProject, sign_in: SignIn, apply: Apply
) -> None:
    """In a label's name, in the message, and in the annotator's own words."""
    apply(project, exclusive=[["spam", MARKUP]])
    ann = sign_in("ann", project)
    ann.open_stream()
    ann.choose("spam", "<img")
    ann.submit()
    expect(ann.card).to_be_visible()
    finding = finding_of(labelguard, project)
    expect(ann.card.locator("#text")).to_have_text(render("label-constraints", "en", finding["feedback"]))
    ann.answer("This is wrong")
    words = f"It is <b>right</b> {MARKUP}"
    ann.card.get_by_label("What is wrong with this note?").fill(words)
    ann.shot("dispute")
    ann.answer("Send")
    expect(ann.card).to_contain_text("Thank you.")
    assert until(lambda: finding_of(labelguard, project)["state"] == "disputed")
    assert finding_of(labelguard, project)["note"] == words
    assert action_states(labelguard, project) == {"prompt": "done"}
    expect(ann.page.locator("#labelguard img, #labelguard b")).to_have_count(0)
    unharmed(ann)


def test_keys_typed_in_the_card_do_not_reach_label_studio(project: LiveProject, sign_in: SignIn, apply: Apply) -> None:
    """A digit picks no label, Ctrl+Enter submits nothing."""
    apply(project)
    ann = sign_in("ann", project)
    ann.open_stream()
    ann.choose("spam", "important")
    ann.submit()
    expect(ann.card).to_be_visible()
    ann.wait_for_task()
    task = ann.shown_task()
    ann.answer("This is wrong")
    ann.page.keyboard.type("1 2 3")
    ann.page.keyboard.press("Control+Enter")
    ann.page.wait_for_timeout(800)
    expect(ann.card.get_by_label("What is wrong with this note?")).to_have_value("1 2 3")
    assert (ann.shown_task(), ann.chosen(), ann.annotations(task)) == (task, [], [])
    # The same keys in the page do what they always did.
    ann.page.keyboard.press("Escape")
    ann.page.keyboard.press("1")
    assert ann.chosen() == ["spam"]
    unharmed(ann)


def test_rework_reopens_the_annotation_and_leaves_exactly_one(
    labelguard: Receiver, project: LiveProject, sign_in: SignIn, apply: Apply
) -> None:
    """Other tasks remain in the queue; the earlier result is there; Update corrects it; the rework is done."""
    apply(project, actions=["prompt", "rework"])
    ann = sign_in("ann", project)
    ann.open_stream()
    first = ann.shown_task()
    ann.choose("spam", "important")
    ann.submit()
    expect(ann.card).to_contain_text("Please look at this one again")
    ann.wait_for_task()
    assert ann.shown_task() != first
    ann.shot("rework")
    ann.answer("Open it again")
    ann.page.wait_for_function(f"window.Htx.task.id === {first}")
    ann.wait_for_task()
    assert sorted(ann.chosen()) == ["important", "spam"]
    assert action_states(labelguard, project)["rework"] == "delivering"
    ann.choose("important")
    assert ann.chosen() == ["spam"]
    ann.submit("Update")
    assert until(lambda: action_states(labelguard, project) == {"prompt": "done", "rework": "done"})
    (annotation,) = ann.annotations(first)
    assert annotation["result"][0]["value"]["choices"] == ["spam"]
    assert project.task_ids() == sorted(project.tasks)
    expect(ann.card).to_have_count(0)
    unharmed(ann)


def test_rework_waits_for_the_annotator_who_left_and_came_back(
    labelguard: Receiver, project: LiveProject, sign_in: SignIn, apply: Apply
) -> None:
    """From the data manager, outside the stream, it opens in quick view with the earlier result."""
    apply(project, actions=["rework"])
    ann = sign_in("ann", project)
    ann.open_stream()
    first = ann.shown_task()
    ann.choose("spam", "important")
    ann.submit()
    expect(ann.card).to_be_visible()
    ann.answer("Later")
    expect(ann.card).to_have_count(0)
    ann.page.goto(f"{project.server.url}/projects/")
    ann.page.goto(f"{project.server.url}/projects/{project.id}/data?task={project.tasks[-1]}")
    expect(ann.card).to_contain_text("Please look at this one again", timeout=15_000)
    ann.answer("Open it again")
    ann.page.wait_for_url(f"**task={first}**")
    ann.wait_for_task()
    ann.page.wait_for_function(f"window.Htx?.task?.id === {first}")
    assert sorted(ann.chosen()) == ["important", "spam"]
    ann.choose("important")
    ann.submit("Update")
    assert until(lambda: action_states(labelguard, project) == {"rework": "done"})
    assert len(ann.annotations(first)) == 1
    unharmed(ann)


def test_a_blocked_submit_says_why_keeps_the_draft_and_passes_when_corrected(
    project: LiveProject, sign_in: SignIn, apply: Apply
) -> None:
    """The draft survives a reload, with what was changed after the block too."""
    apply(project, block=True)
    ann = sign_in("ann", project)
    ann.open_stream()
    task = ann.shown_task()
    ann.choose("spam", "important")
    ann.press("Submit")
    expect(ann.card).to_contain_text("Not saved yet")
    assert ann.annotations(task) == []
    ann.shot("block")
    ann.choose("refund")
    ann.page.wait_for_timeout(6500)
    ann.page.reload()
    ann.wait_for_task()
    assert ann.shown_task() == task
    assert sorted(ann.chosen()) == ["important", "refund", "spam"]
    ann.choose("important")
    ann.submit()
    (annotation,) = ann.annotations(task)
    assert sorted(annotation["result"][0]["value"]["choices"]) == ["refund", "spam"]
    expect(ann.card).to_have_count(0)
    unharmed(ann)


def test_a_corrected_submit_passes_right_after_the_block(project: LiveProject, sign_in: SignIn, apply: Apply) -> None:
    """Without a reload; no draft is left behind, and Ctrl+Enter is stopped like the button."""
    apply(project, block=True)
    ann = sign_in("ann", project)
    ann.open_stream()
    task = ann.shown_task()
    ann.choose("spam", "important")
    ann.page.keyboard.press("Control+Enter")
    expect(ann.card).to_contain_text("Not saved yet")
    ann.choose("important")
    ann.submit()
    expect(ann.card).to_have_count(0)
    assert len(ann.annotations(task)) == 1
    drafts = project.server.as_(ann.account).call("GET", f"/api/tasks/{task}/drafts")
    assert drafts == []
    unharmed(ann)


# Failing open


@contextmanager
def in_labelguards_place(port: int, kind: str) -> Iterator[None]:
    """Something else where labelguard should be."""
    if kind == "stopped":
        yield
        return
    if kind == "silent":
        with socket.create_server(("127.0.0.1", port), backlog=64):
            yield
        return

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = {"throwing": b'{"error": "Something went wrong."}', "nonsense": b'{"blocks": "yes", "prompts": 7'}
            self.send_response(500 if kind == "throwing" else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body[kind])))
            self.end_headers()
            self.wfile.write(body[kind])

        do_GET = do_POST = _answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("kind", ["stopped", "throwing", "nonsense", "silent"])
def test_submit_works_whatever_is_wrong_with_labelguard(
    labelguard: Receiver, project: LiveProject, sign_in: SignIn, apply: Apply, kind: str
) -> None:
    """The page was open, with rules that stop saves, when it happened; the next pages are opened without it."""
    apply(project, block=True)
    ann = sign_in("ann", project)
    ann.open_stream()
    labelguard.stop()
    try:
        with in_labelguards_place(labelguard.settings.port, kind):
            ann.choose("spam", "important")
            ann.submit()
            ann.open_stream()
            ann.choose("spam")
            ann.submit()
            ann.wait_for_task()
            expect(ann.card).to_have_count(0)
    finally:
        labelguard.start()
    unharmed(ann)


def test_a_script_that_answers_with_garbage_leaves_the_page_alone(
    project: LiveProject, sign_in: SignIn, apply: Apply
) -> None:
    """Every answer of the page interface is well-formed JSON of the wrong shape."""
    apply(project, block=True)
    ann = sign_in("ann", project)
    answers = iter(["[]", "7", '{"token": 1}', "null"])
    ann.page.route(
        "**/labelguard/page/v1/session",
        lambda route: route.fulfill(
            status=200, content_type="application/json", body=next(answers, '{"token": "t", "blocking": true}')
        ),
    )
    ann.page.route(
        "**/labelguard/page/v1/check",
        lambda route: route.fulfill(status=200, content_type="application/json", body='{"blocks": [{"text": 5}]}'),
    )
    ann.page.route(
        "**/labelguard/page/v1/prompts*",
        lambda route: route.fulfill(
            status=200,
            content_type="application/json",
            body='{"prompts": [null, 5, {"id": 3}, {"id": "x", "text": {"a": 1}}], "pending": "maybe"}',
        ),
    )
    for _ in range(3):
        ann.open_stream()
        ann.choose("spam", "important")
        ann.submit()
    expect(ann.card).to_have_count(0)
    unharmed(ann)


def test_leaving_to_another_page_and_coming_back_still_works(
    labelguard: Receiver, project: LiveProject, sign_in: SignIn, apply: Apply
) -> None:
    """Inside Label Studio's single-page application: a new editor, the same script."""
    apply(project, block=True)
    ann = sign_in("ann", project)
    ann.open_stream()
    ann.choose("spam")
    ann.submit()
    ann.wait_for_task()
    ann.page.get_by_role("link", name="Projects").first.click()
    ann.page.wait_for_url(lambda url: "/data" not in url)
    ann.page.locator(f'a[href*="/projects/{project.id}/"], a[href$="/projects/{project.id}"]').first.click()
    ann.page.wait_for_url(f"**/projects/{project.id}/data**")
    ann.page.get_by_role("button", name="Label All Tasks").first.click()
    ann.wait_for_task()
    ann.choose("spam", "important")
    ann.press("Submit")
    expect(ann.card).to_contain_text("Not saved yet")
    unharmed(ann)


# Everybody can use it


def test_the_card_is_usable_by_keyboard_alone_on_a_phone(
    labelguard: Receiver, project: LiveProject, sign_in: SignIn, apply: Apply
) -> None:
    """Alt+G goes in, Tab goes through, Enter presses, Escape gives the keyboard back; nothing is cut off."""
    apply(project)
    ann = sign_in("ann", project, viewport={"width": 375, "height": 700})
    ann.open_stream()
    ann.choose("spam", "important")
    assert until(lambda: sorted(ann.chosen()) == ["important", "spam"])
    ann.page.keyboard.press("Control+Enter")
    expect(ann.card).to_be_visible()
    # Label Studio takes the keyboard when it shows the next task.
    ann.wait_for_task()
    assert not ann.page.evaluate("document.activeElement?.id === 'labelguard'")
    box = ann.card.bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 375
    assert box["y"] + box["height"] <= 700
    ann.shot("phone")
    ann.page.keyboard.press("Alt+KeyG")
    expect(ann.card.get_by_role("button", name="Got it")).to_be_focused()
    ann.page.keyboard.press("Tab")
    expect(ann.card.get_by_role("button", name="This is wrong")).to_be_focused()
    ann.page.keyboard.press("Enter")
    expect(ann.card.get_by_label("What is wrong with this note?")).to_be_focused()
    ann.page.keyboard.type("The text is an important warning about spam.")
    ann.page.keyboard.press("Tab")
    expect(ann.card.get_by_role("button", name="Send")).to_be_focused()
    ann.page.keyboard.press("Enter")
    assert until(lambda: finding_of(labelguard, project)["state"] == "disputed")
    expect(ann.card).to_contain_text("Thank you.")
    ann.page.keyboard.press("Escape")
    expect(ann.card).to_have_count(0)
    assert not ann.page.evaluate("document.activeElement?.id === 'labelguard'")
    unharmed(ann)


def test_the_card_follows_the_dark_theme_and_the_policys_language(
    labelguard: Receiver, project: LiveProject, sign_in: SignIn, apply: Apply
) -> None:
    """German words, dark ground."""
    policy = f"""
project: {project.id}
language: de
rules:
  - rule: label-constraints
    mode: enforce
    options: {{exclusive: [[spam, important]]}}
    actions: [prompt]
"""
    apply(project, policy)
    ann = sign_in("ann", project)
    ann.page.evaluate("localStorage.setItem('preferred-color-scheme', 'Dark')")
    ann.open_stream()
    ann.choose("spam", "important")
    ann.submit()
    expect(ann.card).to_contain_text("Ein Hinweis zu Ihrer Arbeit")
    finding = finding_of(labelguard, project)
    expect(ann.card.locator("#text")).to_have_text(render("label-constraints", "de", finding["feedback"]))
    expect(ann.card).to_have_css("background-color", "rgb(34, 37, 45)")
    ann.shot("dark")
    unharmed(ann)


# Secrets


def test_a_gold_checks_prompt_comes_with_a_later_save_and_nothing_tells_the_answers(
    labelguard: Receiver, project: LiveProject, sign_in: SignIn, apply: Apply
) -> None:
    """The answers lie in the vault; neither the page's traffic nor what labelguard serves has them."""
    project.import_texts(16, start=100)
    secret = "only-the-vault-knows"
    answer = [{"from_name": "topics", "to_name": "text", "type": "choices", "value": {"choices": ["refund", secret]}}]
    apply(
        project,
        f"project: {project.id}\nrules:\n"
        "  - {rule: gold-check, control: topics, mode: enforce, options: {target_accuracy: 0.9}, actions: [prompt]}\n",
    )
    for task in project.tasks[:-1]:
        labelguard.store.write(
            lambda conn, task=task: records.add_gold(conn, project.id, task, answer, "import:test", now())  # type: ignore[misc]
        )
    ann = sign_in("ann", project)
    bodies: list[str] = []
    ann.page.on("response", lambda r: bodies.append(r.text()) if "/labelguard/page/" in r.url and r.ok else None)
    ann.open_stream()

    def caused_by() -> int | None:
        with labelguard.store.read() as conn:
            found = records.list_findings(conn, project=project.id)
        return found[0]["annotation"] if found else None

    for _ in project.tasks[:-2]:
        ann.choose("spam")
        saved = ann.submit()
        ann.wait_for_task()
        if caused_by() is not None:
            break
    assert saved is not None
    assert caused_by() == saved["id"]
    ann.page.wait_for_timeout(1500)
    expect(ann.card).to_have_count(0)
    ann.choose("spam")
    ann.submit()
    expect(ann.card).to_contain_text("A note on your work")
    ann.shot("gold")
    assert bodies
    everything = "\n".join(bodies) + ann.page.content()
    assert secret not in everything
    shown = [body for body in bodies if '"text"' in body][-1]
    assert f'"annotation":{saved["id"]}' not in shown.replace(" ", "")
    unharmed(ann)
