"""An annotator at work in Label Studio through a real browser, for tests."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import BrowserContext, Locator, Page, expect

from labelguard.studio.launch import Account
from live import LiveProject

MARKUP = '<img src="x" onerror="window.planted=1">'
"""Stands where people's words stand; if it were ever markup, ``window.planted`` would be set."""

LABEL_CONFIG = """<View>
  <Text name="text" value="$text"/>
  <Choices name="topics" toName="text" choice="multiple">
    <Choice value="spam"/><Choice value="important"/><Choice value="refund"/>
    <Choice value="&lt;img src=&quot;x&quot; onerror=&quot;window.planted=1&quot;&gt;"/>
  </Choices>
</View>"""

POLICY = """
project: {project}
rules:
  - rule: label-constraints
    control: topics
    mode: enforce
    options:
      exclusive: {exclusive}
    block: {block}
    actions: {actions}
"""


@dataclass
class Annotator:
    """An annotator at work in their browser, with everything the page asked labelguard and got."""

    account: Account
    project: LiveProject
    context: BrowserContext
    page: Page
    errors: list[str] = field(default_factory=list)
    traffic: list[str] = field(default_factory=list)
    shots: Path | None = None

    @property
    def card(self) -> Locator:
        """labelguard's card."""
        return self.page.locator("#labelguard .card")

    def open_stream(self) -> None:
        """Open the label stream."""
        self.page.goto(f"{self.project.server.url}/projects/{self.project.id}/data?labeling=1")
        self.wait_for_task()

    def wait_for_task(self) -> None:
        """Wait until there is something to label, and the script has looked around."""
        expect(self.page.get_by_text("refund").first).to_be_visible(timeout=20_000)
        self.page.wait_for_timeout(700)

    def choose(self, *labels: str) -> None:
        """Click labels."""
        for label in labels:
            self.page.get_by_text(label, exact=False).first.click()

    def submit(self, name: str = "Submit") -> dict[str, Any] | None:
        """Press Submit (or Update) and wait for the save; returns what Label Studio saved."""
        with self.page.expect_response(
            lambda r: "/annotations" in r.url and "/drafts" not in r.url and r.request.method in ("POST", "PATCH"),
            timeout=30_000,
        ) as saved:
            self.press(name)
        answer = saved.value
        assert answer.ok, answer.text()
        made: dict[str, Any] = answer.json()
        return made

    def press(self, name: str) -> None:
        """Press one of Label Studio's buttons, by what it shows: the arrow beside Update is named so too."""
        self.page.locator("button", has_text=re.compile(f"^{name}$")).first.click()

    def answer(self, name: str) -> None:
        """Press one of the card's buttons."""
        self.card.get_by_role("button", name=name).click()

    def shown_task(self) -> int:
        """The task in the editor."""
        return int(self.page.evaluate("window.Htx.task.id"))

    def chosen(self) -> list[str]:
        """The labels chosen in the editor."""
        chosen: list[str] = self.page.evaluate(
            "window.Htx.annotationStore.selected.serializeAnnotation().flatMap(item => item.value.choices)"
        )
        return chosen

    def shot(self, name: str) -> None:
        """Keep a picture where ``LABELGUARD_SCREENSHOTS`` names a folder."""
        if self.shots:
            self.page.screenshot(path=self.shots / f"{name}.png")

    def annotations(self, task: int) -> list[dict[str, Any]]:
        """This annotator's annotations of a task, as Label Studio has them."""
        listed = self.project.api.call("GET", f"/api/tasks/{task}/annotations/")
        return [each for each in listed if each["completed_by"] == self.account.id]
