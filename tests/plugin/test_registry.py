"""Finding rules and connectors through entry points of real distributions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bundles import EXAMPLE, install
from labelguard import registry


@pytest.fixture(autouse=True)
def _look_again() -> Iterator[None]:
    """Each test sees what is installed for it."""
    registry.forget()
    yield
    registry.forget()


def broken(name: str) -> list[str]:
    """What is said about a broken bundle."""
    return [str(bundle) for bundle in registry.broken_bundles() if bundle.name == name]


def test_rules_of_another_distribution_are_found_beside_the_built_in_ones(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Built-in rules come through the same door and have no privilege."""
    install(monkeypatch, tmp_path)

    assert {"shouts-too-much", "gold-check"} <= set(registry.load_rules())
    assert registry.origin_of("shouts-too-much") == "example-rules 1.0"
    assert registry.broken_bundles() == ()


def test_the_built_in_connectors_are_found() -> None:
    """Label Studio and notifications are connectors like any other."""
    assert {"studio", "notify"} <= set(registry.load_connectors())


def test_a_bundle_that_cannot_be_imported_is_named_and_the_rest_loads(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One broken third party must not stop the service."""
    install(monkeypatch, tmp_path, "import no_such_module\nRULES = ()", name="broken-rules")

    assert "gold-check" in registry.load_rules()
    assert broken("broken-rules") == [
        (
            "broken-rules 1.0 offers labelguard.rules as 'broken-rules', which cannot be used: importing "
            "broken_rules raised ModuleNotFoundError: No module named 'no_such_module'"
        )
    ]
    assert "broken-rules 1.0" in caplog.text


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("RULES = 3", "wrong_rules:RULES is a int, and must be a tuple of classes"),
        ("RULES = (3,)", "wrong_rules:RULES contains 3, which is not a class"),
        (
            "class A:\n    name = 'a'\nRULES = (A,)",
            "A is neither a Guardrail nor a Sweep",
        ),
        (
            "from labelguard import Guardrail\nclass A(Guardrail):\n    pass\nRULES = (A,)",
            'A has no name; give it name = "..."',
        ),
        (
            "from labelguard import Guardrail\nclass A(Guardrail):\n    name = 'a'\nRULES = (A,)",
            "A is not a dataclass; put @dataclass(frozen=True) above it",
        ),
    ],
)
def test_what_is_no_rule_is_refused_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str, reason: str
) -> None:
    """The author of a bundle reads what to change."""
    install(monkeypatch, tmp_path, source, name="wrong-rules")

    assert broken("wrong-rules")[0].endswith(f"which cannot be used: {reason}")


def test_two_distributions_with_one_name_are_an_error_that_names_both(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Which of them runs must not depend on chance."""
    install(monkeypatch, tmp_path / "one", name="one-rules")
    install(monkeypatch, tmp_path / "two", EXAMPLE, name="two-rules")

    with pytest.raises(registry.BrokenRegistry) as caught:
        registry.load_rules()
    assert str(caught.value) == (
        "The rule 'shouts-too-much' is offered by both one-rules 1.0 and two-rules 1.0. "
        "Uninstall one of them, or ask its author to choose another name."
    )
