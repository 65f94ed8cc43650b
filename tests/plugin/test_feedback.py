"""What annotators and admins read: complete in every language, filled with real values, never an error."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import labelguard_templates
from labelguard.feedback import languages, render, render_notification
from labelguard.preview import run_example
from labelguard.registry import load_rules
from labelguard.rules import Finding, Guardrail

CLASH: dict[str, Any] = {
    "kind": "exclusive",
    "control": "topics",
    "labels": ["spam", "important"],
    "missing": [],
    "limit": None,
    "count": 2,
}


def example_findings() -> Iterator[tuple[str, Finding]]:
    """Every finding of every example of every installed guardrail."""
    for name, rule in load_rules().items():
        if issubclass(rule, Guardrail):
            for example in rule.examples:
                if example.says is not None:
                    for finding in run_example(rule, example):
                        yield name, finding


def texts(folder: str, language: str) -> set[str]:
    """The names of a language's templates."""
    return {path.name for path in (labelguard_templates.path() / folder / language).glob("*.txt")}


def test_english_and_german_are_there() -> None:
    """There are messages in two languages."""
    assert languages() == ("de", "en")


@pytest.mark.parametrize("folder", ["feedback", "notify"])
def test_every_language_is_complete(folder: str) -> None:
    """Each language has the same templates, so that nobody suddenly reads another language."""
    for language in languages():
        assert texts(folder, "en") == texts(folder, language), language


def test_every_rule_has_a_message_of_its_own() -> None:
    """An annotator is told what is wrong, not that something is."""
    missing = {f"{name}.txt" for name in load_rules()} - texts("feedback", "en")

    assert missing == set()


@pytest.mark.parametrize("language", ["en", "de"])
def test_every_example_s_values_fill_the_rule_s_message(language: str, caplog: pytest.LogCaptureFixture) -> None:
    """What a rule puts into ``feedback`` is what its message needs: no example falls back to the default."""
    told = 0
    with caplog.at_level(logging.WARNING, "labelguard.feedback"):
        for name, finding in example_findings():
            if finding.feedback:
                told += 1
                text = render(name, language, finding.feedback)

                assert text != render("default", language, {}), (name, finding.feedback)
                assert 20 < len(text) < 600
                assert "{" not in text
                assert "None" not in text
    assert told >= 4
    assert caplog.records == []


@pytest.mark.parametrize(
    ("language", "beginning"),
    [
        ("en", "“spam” and “important” do not go together."),
        ("de", "„spam“ und „important“ passen nicht zusammen."),
        ("de-AT", "„spam“ und „important“ passen nicht zusammen."),
        ("de_CH", "„spam“ und „important“ passen nicht zusammen."),
        ("DE", "„spam“ und „important“ passen nicht zusammen."),
        ("zh-Hant-TW", "“spam” and “important” do not go together."),
        ("", "“spam” and “important” do not go together."),
        ("../../etc", "“spam” and “important” do not go together."),
    ],
)
def test_the_nearest_language_is_used(language: str, beginning: str) -> None:
    """A regional language falls back to its base language, an unknown one to English."""
    assert render("label-constraints", language, CLASH).startswith(beginning)


@pytest.mark.parametrize("rule", ["a-rule-from-elsewhere", "", "../notify/en/finding", "GOLD"])
def test_a_rule_without_a_message_gets_the_one_that_fits_all(rule: str) -> None:
    """A third party's rule still tells the annotator something, in their language."""
    assert "ungewöhnlich" in render(rule, "de", {})


def test_a_missing_value_gets_the_message_that_fits_all_and_a_line_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A template is never shown half filled; the log names it and what it lacked."""
    assert render("gold-check", "en", {"percent": 40}) == render("default", "en", {})
    assert "feedback/en/gold-check.txt cannot be used" in caplog.text
    assert "answered" in caplog.text


def test_a_value_of_the_wrong_type_never_raises() -> None:
    """Values come from rules, also from third parties'; the annotator's page must not fail for them."""
    assert render("label-constraints", "en", {**CLASH, "labels": 7}) == render("default", "en", {})
    assert render("label-constraints", "en", {**CLASH, "labels": object()}) == render("default", "en", {})


def test_markup_in_a_label_stays_text() -> None:
    """Messages are plain text: markup is neither run nor turned into entities."""
    text = render("label-constraints", "en", {**CLASH, "labels": ["<b>spam</b>", "{{ 7 * 7 }}"]})

    assert "“<b>spam</b>” and “{{ 7 * 7 }}”" in text


def test_long_and_hostile_values_are_tamed() -> None:
    """A label cannot fill the prompt, break its lines or turn its direction around."""
    text = render("label-constraints", "en", {**CLASH, "labels": ["x" * 5000, "a\u202eb\n\nc\x00d"]})

    assert len(text) < 300
    assert "“a b c d”" in text


def test_a_long_list_is_cut() -> None:
    """Ten labels are not read out; the first are, and that there are more."""
    text = render("label-constraints", "en", {**CLASH, "labels": [f"label {n}" for n in range(10)]})

    assert "“label 4” and …" in text
    assert "label 5" not in text


def test_a_template_cannot_reach_the_program(tmp_path: Path) -> None:
    """Templates run in a sandbox: Python's internals cannot be reached through a value."""
    text = render("label-constraints", "en", {**CLASH, "labels": ["{{ ''.__class__.__mro__ }}"]})

    assert "object" not in text


def test_the_gold_message_names_no_task() -> None:
    """An annotator must not learn which tasks were known ones."""
    values = {"percent": 60, "target_percent": 85, "answered": 20, "tasks": [4711], "wrong_tasks": [4711]}
    for language in languages():
        assert "4711" not in render("gold-check", language, values)


def test_a_notification_has_a_title_and_a_body() -> None:
    """An alert's title says who and where, the body what was seen."""
    told = render_notification(
        "finding",
        "en",
        {
            "rule": "gold-check",
            "project": "Mail",
            "annotator": "Grace",
            "severity": "warning",
            "message": "The annotator answered 8 of 20 known tasks as the reference.",
            "task": 7,
            "link": "http://studio.example/projects/3/data?task=7",
        },
    )

    assert told.title == "gold-check in Mail: Grace"
    assert told.body == (
        "The annotator answered 8 of 20 known tasks as the reference.\n"
        "Task: 7\n"
        "http://studio.example/projects/3/data?task=7"
    )


def test_a_notification_needs_only_what_is_always_known() -> None:
    """A sweep's finding is about no annotator and no task."""
    values = {"rule": "label-drift", "project": "Mail", "severity": "info", "message": "It moved."}
    told = render_notification("finding", "de", values)

    assert (told.title, told.body) == ("label-drift in Mail", "It moved.")


@pytest.mark.parametrize(
    ("kind", "values", "title"),
    [
        (
            "webhook",
            {"project": "Mail", "problem": "It was switched off.", "done": "It was switched on again."},
            "Der Webhook von Mail musste repariert werden",
        ),
        (
            "job",
            {"job": "reconcile", "project": "Mail", "error": "Label Studio did not answer."},
            "Der Lauf reconcile für Mail ist fehlgeschlagen",
        ),
        ("something-new", {}, "labelguard hat etwas zu melden"),
    ],
)
def test_every_occasion_has_a_notification(kind: str, values: dict[str, str], title: str) -> None:
    """Each kind of notification, also an unknown one, has a title and a body in the asked language."""
    told = render_notification(kind, "de", values)

    assert told.title == title
    assert told.body
