"""Policies: what a project's admin writes, read with every mistake reported at once.

A policy is YAML (see docs/policy.md). Stored policies are immutable: applying a changed file makes a new
version, and every finding names the version it was made under.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from labelguard.rules import Guardrail, Sweep

Mode = Literal["observe", "recommend", "enforce"]
ActionKind = Literal["prompt", "rework", "replace", "second-opinion", "escalate", "pause", "notify"]


class ActionSpec(BaseModel):
    """One action of a rule: written as ``prompt`` or with a target as ``{notify: lead}``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: ActionKind
    target: str | None = None
    """Whom: a name of ``people`` or a cohort (notify, escalate)."""


class RuleSpec(BaseModel):
    """One rule of a policy."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rule: str
    control: str | None = None
    mode: Mode = "observe"
    options: dict[str, Any] = Field(default_factory=dict)
    block: bool = False
    """Stop the save in the page while the rule speaks; only rules that need no history can."""
    actions: tuple[ActionSpec, ...] = ()
    severity: Literal["info", "warning", "error"] | None = None


class Confidence(BaseModel):
    """Which control carries the annotator's own confidence, and its scale."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    control: str
    scale: tuple[float, float] = (1, 5)


class Limits(BaseModel):
    """What labelguard may do at most."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reworks_per_task: int = Field(2, ge=0)
    max_action_age: float = Field(86_400, gt=0)
    """Seconds; what is older gives findings, never actions."""
    prompts_per_hour: int = Field(12, ge=0)
    """Prompts an annotator sees in an hour at most; further ones wait."""
    max_overlap: int = Field(5, ge=1)
    """A task's overlap is never raised above this by a second opinion."""


class Policy(BaseModel):
    """A project's rules with their modes, options and actions."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    project: int
    source: str | None = None
    """``data.<key>``: slices everything by that key of the task's data."""
    cohorts: dict[str, list[str]] = Field(default_factory=dict)
    """Groups of annotators, by email or user id as text."""
    people: dict[str, list[str]] = Field(default_factory=dict)
    """Names for ``notify`` and ``escalate``: each a list of names of ``LABELGUARD_NOTIFY_<NAME>`` targets,
    emails or user ids. Addresses with secrets live in the configuration, never in a policy."""
    confidence: Confidence | None = None
    high_risk_labels: tuple[str, ...] = ()
    language: str = "en"
    """The language of annotators' messages."""
    limits: Limits = Limits()
    task_note: str | None = None
    """A key of ``task.data`` that labelguard may write an annotator's message to; off by default."""
    rules: tuple[RuleSpec, ...] = ()


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a policy."""

    where: str
    """File and line: ``policy.yaml, line 12``."""
    key: str
    message: str
    """A sentence with the value found and the likely fix."""

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"


class BadPolicy(ValueError):
    """A policy with mistakes; ``problems`` has all of them, ``str()`` one a line."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(p) for p in self.problems))


@dataclass(frozen=True, slots=True)
class ActiveRule:
    """A rule of a policy, built: what the engine runs."""

    key: str
    """Stable while name, control and options stay the same; rule memory hangs on it."""
    spec: RuleSpec
    rule: Guardrail | Sweep

    @property
    def name(self) -> str:
        """The rule's name."""
        return self.spec.rule


def load_policy(text: str, where: str = "policy") -> Policy:
    """Read a policy from YAML.

    Checks structure, rule names, options (types, ranges, misspelt names), actions that the rule would
    reveal secrets by, ``block`` on rules that cannot, unknown people and repeated keys.

    Raises:
        BadPolicy: with every mistake, each with line, key, value and the likely fix.
    """
    raise NotImplementedError


def build_rules(policy: Policy) -> tuple[ActiveRule, ...]:
    """The policy's rules as objects, in policy order.

    Raises:
        BadPolicy: an option that the rule does not have or cannot take.
    """
    raise NotImplementedError


def policy_schema() -> Mapping[str, Any]:
    """The JSON Schema of policies, with each rule's own options: for editors and docs."""
    raise NotImplementedError


def policy_yaml(policy: Policy) -> str:
    """The policy as YAML that :func:`load_policy` reads back to an equal policy."""
    raise NotImplementedError
