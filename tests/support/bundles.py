"""Installing a bundle of rules for a test: a real distribution in a folder of its own, found like any other."""

from __future__ import annotations

import sys
from pathlib import Path
from textwrap import dedent

import pytest

from labelguard import registry

EXAMPLE = '''
    from dataclasses import dataclass
    from labelguard import Finding, Guardrail, Sweep, option

    @dataclass(frozen=True)
    class ShoutsTooMuch(Guardrail):
        """One label too many."""

        name = "shouts-too-much"
        stateless = True
        most: int = option(1, "Labels at most.", minimum=1, maximum=9)
        never: list[list[str]] = option([], "Labels that do not go together.")
        needs: dict[str, list[str]] = option({}, "Labels that need others.")
        share: float | None = option(None, "A share.", minimum=0, maximum=1)

        def check(self, submission, context):
            for judgment in submission.judgments:
                if self.control in (None, judgment.control) and len(judgment.labels) > self.most:
                    yield Finding(
                        message=f"{len(judgment.labels)} labels where {self.most} are allowed.",
                        evidence={"labels": list(judgment.labels)},
                        control=judgment.control,
                    )

    @dataclass(frozen=True)
    class MissesTheAnswer(Guardrail):
        """Another answer than the vault's."""

        name = "misses-the-answer"
        reveals = ("rework",)
        private = True

        def check(self, submission, context):
            answer = context.gold(submission.task.id)
            for judgment in submission.judgments if answer else ():
                right = answer.judgment(judgment.control)
                if right is not None and right.labels != judgment.labels:
                    yield Finding(message="It differs from gold.", evidence={"control": judgment.control})

    @dataclass(frozen=True)
    class LooksBack(Sweep):
        """Nothing, on a schedule."""

        name = "looks-back"

        def sweep(self, context):
            return iter(())

    RULES = (ShoutsTooMuch, MissesTheAnswer, LooksBack)
'''


def install(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    source: str = EXAMPLE,
    *,
    name: str = "example-rules",
    group: str = registry.RULES,
    attribute: str = "RULES",
) -> None:
    """Put a distribution with one entry point into ``folder`` and onto the import path, until the test ends."""
    module = name.replace("-", "_")
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / f"{module}.py").write_text(dedent(source), encoding="utf-8")
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {module}:{attribute}\n", encoding="utf-8")
    monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.syspath_prepend(str(folder))
    registry.forget()
