"""Every public name says what it is, and the examples in its docstring give what they show."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
from types import ModuleType

import pytest

import labelguard_analytics

MODULES = sorted(
    module.name for module in pkgutil.walk_packages(labelguard_analytics.__path__, "labelguard_analytics.")
)


RESULTS = {
    "AnnotatorDrift",
    "Attribution",
    "Calibration",
    "Changes",
    "Confusion",
    "Decomposition",
    "Discoveries",
    "DurationModel",
    "Findings",
    "ItemClusters",
    "LabelShift",
    "Pairwise",
    "Recalibration",
    "TooLittle",
    "Truth",
}
"""What functions give, shown in their examples."""


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_give_what_they_show(name: str) -> None:
    """Each example is run as it stands in the docstring."""
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)

    assert result.failed == 0


def _examples(thing: object) -> int:
    found = doctest.DocTestFinder(recurse=True).find(thing, "it")
    return sum(len(one.examples) for one in found)


@pytest.mark.parametrize(
    "name",
    [
        "agreement",
        "causes",
        "changes",
        "confidence",
        "confusion",
        "counts",
        "drift",
        "duration",
        "estimate",
        "fdr",
        "frames",
        "sequential",
        "similarities",
        "streams",
        "systematic",
        "truth",
    ],
)
def test_every_public_function_of_a_module_has_an_example(name: str) -> None:
    """What a module offers to everybody is shown at work."""
    module: ModuleType = importlib.import_module(f"labelguard_analytics.{name}")
    public = [
        getattr(labelguard_analytics, one)
        for one in labelguard_analytics.__all__
        if getattr(getattr(labelguard_analytics, one), "__module__", "").startswith(module.__name__)
    ]

    assert public
    for one in public:
        assert inspect.getdoc(one), f"{one.__name__} has no docstring."
        is_error = isinstance(one, type) and issubclass(one, Exception)
        result_only = one.__name__ in RESULTS
        assert is_error or result_only or _examples(one), f"{one.__name__} has no example."
