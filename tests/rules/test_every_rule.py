"""What every rule found through the entry point must keep to, built-in or not."""

from __future__ import annotations

import dataclasses
import inspect
import json
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from labelguard.preview import run_example
from labelguard.rules import Example, Guardrail, Rule, Sweep
from labelguard.rulesdoc import rules_markdown

RULES: list[type[Rule]] = [rule for entry in entry_points(group="labelguard.rules") for rule in entry.load()]
GUARDRAILS = [rule for rule in RULES if issubclass(rule, Guardrail)]
EXAMPLES = [
    pytest.param(rule, example, id=f"{rule.name}-{number}")
    for rule in GUARDRAILS
    for number, example in enumerate(rule.examples)
]
each_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)


def test_the_built_in_rules_come_through_the_entry_point() -> None:
    """The built-ins use the same door as anybody else's, and no two rules share a name."""
    names = [rule.name for rule in RULES]
    assert {"label-constraints", "gold-check", "single-label-overuse", "label-drift"} <= set(names)
    assert len(names) == len(set(names))


@each_rule
def test_it_is_a_frozen_dataclass_with_a_docstring(rule: type[Rule]) -> None:
    """A rule holds options only and says what it is for."""
    assert issubclass(rule, Guardrail | Sweep)
    assert "__dataclass_params__" in vars(rule), "decorate it with @dataclass(frozen=True)"
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(rule(), "control", "other")  # noqa: B010 - a plain assignment would not type-check
    assert inspect.cleandoc(rule.__doc__ or "").split("\n\n")[0].rstrip().endswith(".")
    assert rule.__doc__ != Rule.__doc__


@each_rule
def test_every_option_has_help_and_a_default_within_its_limits(rule: type[Rule]) -> None:
    """Options explain themselves in a sentence, and the rule works without any being set."""
    made = rule()
    for field in dataclasses.fields(rule):
        assert str(field.metadata.get("help", "")).rstrip().endswith("."), field.name
        value = getattr(made, field.name)
        if isinstance(value, int | float):
            assert field.metadata.get("minimum", value) <= value <= field.metadata.get("maximum", value)


@pytest.mark.parametrize("rule", GUARDRAILS, ids=lambda rule: rule.name)
def test_a_guardrail_has_an_example_where_it_speaks_and_one_where_it_is_quiet(rule: type[Guardrail]) -> None:
    """Nobody can judge a rule without having seen both."""
    assert any(example.says is not None for example in rule.examples)
    assert any(example.says is None for example in rule.examples)


@pytest.mark.parametrize(("rule", "example"), EXAMPLES)
def test_it_says_what_its_example_says(rule: type[Rule], example: Example) -> None:
    """Examples are true, messages are sentences, evidence and feedback are JSON."""
    found = run_example(rule, example)
    if example.says is None:
        assert found == []
        return
    assert any(example.says in finding.message for finding in found), [f.message for f in found]
    for finding in found:
        assert finding.message[0].isupper()
        assert finding.message.endswith(".")
        json.dumps(finding.evidence, allow_nan=False)
        json.dumps(finding.feedback, allow_nan=False)


def test_the_rule_catalogue_is_up_to_date() -> None:
    """docs/rules.md is what `labelguard rules --write-docs` would write for the built-in rules."""
    builtin = [rule for rule in RULES if rule.__module__.startswith("labelguard_rules.")]
    written = Path(__file__).parents[2] / "docs" / "rules.md"
    assert written.read_text(encoding="utf-8") == rules_markdown(builtin)
