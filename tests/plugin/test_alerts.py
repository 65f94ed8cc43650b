"""The alert rules that operators load: they read metrics that a running service tells, and each is explained."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from deliveries import PROJECT
from fakestudio import FakeNotifier, FakeStudio
from labelguard.connectors import ConnectorError
from labelguard.outbox import Outbox
from labelguard.schedule import Jobs
from webservice import Service, service, submission

ROOT = Path(__file__).parents[2]
RULES: list[dict[str, Any]] = yaml.safe_load((ROOT / "deploy" / "alerts.yaml").read_text("utf-8"))["groups"][0]["rules"]
every_alert = pytest.mark.parametrize("alert", RULES, ids=lambda alert: alert["alert"])

WORDS = {
    "and",
    "or",
    "unless",
    "on",
    "by",
    "sum",
    "max",
    "min",
    "min_over_time",
    "avg",
    "rate",
    "increase",
    "time",
    "histogram_quantile",
}
FROM_PROMETHEUS = {"up": {"job", "instance"}}
"""What Prometheus itself tells of what it scrapes."""


def metrics_of(expression: str) -> list[tuple[str, set[str]]]:
    """The metrics of an expression, each with the labels that are asked of it."""
    text = re.sub(r"\[[^\]]*\]", "", expression)
    found = []
    for name, selector in re.findall(r"([a-zA-Z_:][\w:]*)(\{[^}]*\})?", re.sub(r'"[^"]*"', '""', text)):
        if name not in WORDS and name not in labels_of(text):
            found.append((name, set(re.findall(r"(\w+)\s*(?:=|!)", selector))))
    return found


def labels_of(expression: str) -> set[str]:
    """The labels by which an expression sums up, and those inside selectors."""
    grouped = re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", expression)
    chosen = re.findall(r"(\w+)\s*(?:=~|!=|!~|=(?!=))", " ".join(re.findall(r"\{[^}]*\}", expression)))
    return {label.strip() for group in grouped for label in group.split(",") if label.strip()} | set(chosen)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Every series of a service to which a bit of everything has happened: its labels by its name."""
    with service(tmp_path_factory.mktemp("alerts")) as web:
        a_bit_of_everything(web)
        text = web.client.get("/metrics").get_data(as_text=True)
    found: dict[str, set[str]] = {}
    for name, labels in re.findall(r"^(\w+)(?:\{(.*)\})? ", text, re.MULTILINE):
        found.setdefault(name, set()).update(re.findall(r'(\w+)="', labels))
    return found


def a_bit_of_everything(web: Service) -> None:
    """Good and bad deliveries, an action that fails, a job that works and one that does not."""
    for number in (1, 2):
        web.deliver(submission("spam", "important", annotation=number, task=number))
    web.deliver(b"{")
    web.deliver(submission("spam"), token="wrong")
    studio = FakeStudio()
    outbox = Outbox(web.store, web.engine, studio, FakeNotifier(unreachable={"ops": ConnectorError("no")}), web.clock)
    outbox.deliver_due()
    jobs = Jobs(web.store, web.engine, outbox, studio, None, web.settings, web.clock)
    jobs.run("reconcile", PROJECT)
    web.store.instruments.attempted("replace", "failed")
    web.store.instruments.unverified("changed")


@every_alert
def test_every_metric_of_an_alert_is_told_with_its_labels(alert: dict[str, Any], told: dict[str, set[str]]) -> None:
    """A metric that was renamed would leave an alert that never speaks."""
    named = metrics_of(alert["expr"])

    assert named
    for name, labels in named:
        known = FROM_PROMETHEUS.get(name) or told.get(name)
        assert known is not None, name
        assert labels <= known, (name, labels, known)
    told_of = set().union(*(FROM_PROMETHEUS.get(name) or told[name] for name, _ in named)) | {"le"}
    assert labels_of(alert["expr"]) <= told_of
    shown = re.findall(r"\$labels\.(\w+)", str(alert["annotations"]))
    assert set(shown) <= told_of | {"instance", "job"}


@every_alert
def test_every_alert_says_why_it_is_worth_waking_for_and_the_documentation_what_to_do(alert: dict[str, Any]) -> None:
    """Nobody is woken by a name alone."""
    page = (ROOT / "docs" / "operations.md").read_text("utf-8")
    about = re.search(rf"^### {alert['alert']}\n\n(.+?)(?=\n#)", page, re.MULTILINE | re.DOTALL)

    assert alert["labels"]["severity"] in {"page", "ticket"}
    assert re.fullmatch(r"\d+[mh]", alert["for"])
    assert set(alert["annotations"]) == {"summary", "why"}
    assert all(text.endswith(".") for text in alert["annotations"].values())
    assert about is not None
    assert len(about.group(1)) > 40


def test_every_documented_alert_exists() -> None:
    """One that was dropped is not looked for."""
    page = (ROOT / "docs" / "operations.md").read_text("utf-8")

    assert re.findall(r"^### (Labelguard\w+)$", page, re.MULTILINE) == [alert["alert"] for alert in RULES]


def test_brackets_of_expressions_are_closed() -> None:
    """The slip that a parser would find first."""
    for alert in RULES:
        for opening, closing in ("()", "{}", "[]"):
            assert alert["expr"].count(opening) == alert["expr"].count(closing), alert["alert"]
