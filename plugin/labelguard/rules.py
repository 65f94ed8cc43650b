"""What a rule is: the whole interface for authors of guardrails and sweeps.

A rule is a frozen dataclass: its fields (declared with :func:`option`) are the options a policy may set, so
types, defaults, help, docs and validation have one source. It yields :class:`Finding` objects and does
nothing else: it never talks to a network, a clock or a random source. Examples on the class are its tests
and its documentation.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from labelguard.events import Annotation, Project, ResultItem, Task
from labelguard.judgments import Judgment
from labelguard.labelconfig import LabelConfig

if TYPE_CHECKING:
    import pandas as pd

SEVERITIES = ("info", "warning", "error")


def option(default: Any, help: str, **metadata: Any) -> Any:  # noqa: A002 - the word an author expects
    """Declare an option of a rule: a dataclass field with a default and a help sentence.

    A list or mapping default is copied for every instance. Further ``metadata`` (``minimum``, ``maximum``)
    limits numbers and is checked when a policy is read.
    """
    about = {"help": help, **metadata}
    if isinstance(default, (list, dict, set)):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=about)
    return dataclasses.field(default=default, metadata=about)


@dataclass(frozen=True, slots=True)
class Finding:
    """What a rule saw, as the rule says it; the engine adds rule name, policy version and times."""

    message: str
    """For admins: one or two sentences with the numbers in them. Never shown to an annotator."""
    evidence: Mapping[str, Any] = field(default_factory=dict)
    """What was seen, compared with what and with which uncertainty; JSON values only."""
    severity: str = "warning"
    annotator: int | None = None
    """Whom it is about; None means the annotation's author (guardrails) or nobody (sweeps)."""
    task: int | None = None
    annotation: int | None = None
    control: str | None = None
    labels: tuple[str, ...] = ()
    feedback: Mapping[str, Any] = field(default_factory=dict)
    """Values for the annotator's message template (``templates/.../feedback/<lang>/<rule>.txt``). Whatever
    stands here may reach the annotator's browser: never an answer of the gold vault."""
    observe_only: bool = False
    """The rule has too little to act on: kept for the admin, whatever the policy's mode."""


@dataclass(frozen=True, slots=True)
class Submission:
    """One new version of an annotation, for guardrails to look at."""

    annotation: Annotation
    task: Task
    project: Project
    config: LabelConfig
    judgments: tuple[Judgment, ...]
    author: int | None
    """The annotator it is held against: who saved it, provided that is who it is said to be by."""
    first: bool
    """Whether this is the author's first submission of it; edits are False."""
    at: datetime
    """When it was saved (Label Studio's clock), timezone-aware."""

    def judgment(self, control: str, region: str = "") -> Judgment | None:
        """The judgment for a control, or None where the annotation says nothing for it."""
        return next((j for j in self.judgments if j.control == control and j.region == region), None)


@dataclass(frozen=True, slots=True)
class TaskJudgment:
    """One annotator's first judgment of a task for one control, as the context tells it."""

    annotator: int
    annotation: int
    judgment: Judgment
    at: datetime


@dataclass(frozen=True, slots=True)
class GoldAnswer:
    """An answer of the gold vault: what the right judgments of a task are, by control."""

    task: int
    judgments: tuple[Judgment, ...]
    version: int = 1

    def judgment(self, control: str) -> Judgment | None:
        """The right answer for a control, or None where the vault has none."""
        return next((j for j in self.judgments if j.control == control and not j.region), None)


class Context(Protocol):
    """What a guardrail may ask while it looks at a submission. Everything is as of before the submission."""

    def task_judgments(self, task: int, control: str) -> Sequence[TaskJudgment]:
        """First submissions of a task by annotators, oldest first, one for each annotator.

        Without skips, ground truth, deleted annotations, and without the annotation under judgment.
        """
        ...

    def gold(self, task: int) -> GoldAnswer | None:
        """The vault's active answer for a task, or None."""
        ...

    def state(self, subject: str) -> MutableMapping[str, Any]:
        """This rule's own memory about a subject (JSON values), empty at first.

        Changes are kept in the same transaction as the findings they led to. Memory belongs to the rule
        with its exact options: changing an option of the policy starts afresh. Subjects are named
        ``annotator:<id>`` or ``task:<id>``, with whatever else after a further colon: memories under such
        names are read ahead of time. A ``task:<id>`` is that very task:
        another one that was given the same id is another subject.
        """
        ...


@dataclass(frozen=True, slots=True)
class Example:
    """One submission and what the rule says about it: a test, a piece of documentation, a preview.

    ``says`` is a part of the finding's message, or None where the rule must stay quiet. ``before`` are
    earlier results on the same task by other annotators (ids 101, 102, ...); ``gold`` is the vault's answer.
    ``times`` submits the same result that many times on fresh tasks (each with ``before`` and ``gold``), for
    rules that look at a stream; ``says`` is then looked for in everything said.
    """

    result: Sequence[ResultItem]
    says: str | None
    why: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    before: Sequence[Sequence[ResultItem]] = ()
    gold: Sequence[ResultItem] | None = None
    label_config: str = ""
    times: int = 1


@dataclass(frozen=True)
class Rule:
    """What guardrails and sweeps share."""

    name: ClassVar[str]
    """Stable; what policies, findings and templates use."""
    stateless: ClassVar[bool] = False
    """Whether a submission alone (no history, no gold) decides: such rules can also run before a save."""
    reveals: ClassVar[tuple[str, ...]] = ()
    """Actions that would tell an annotator a secret (which task is gold); a policy must allow them by name."""
    private: ClassVar[bool] = False
    """Whether its prompt must not appear on the very save that caused it (it would point at a gold task)."""
    examples: ClassVar[tuple[Example, ...]] = ()

    control: str | None = option(None, "The control tag to look at; without it, every suitable one.")

    def warnings(self, config: LabelConfig) -> list[str]:
        """Sentences about options that do not fit a labeling configuration, such as misspelt labels."""
        known = [control.name for control in config.controls]
        if self.control is None or config.problem or self.control in known:
            return []
        there = ", ".join(known) or "none"
        return [f"The labeling configuration has no control named {self.control!r}; there is {there}."]


@dataclass(frozen=True)
class Guardrail(Rule):
    """A rule that looks at each submission."""

    def check(self, submission: Submission, context: Context) -> Iterator[Finding]:
        """Yield what is wrong; yield nothing when all is well."""
        raise NotImplementedError


class SweepContext(Protocol):
    """What a sweep may read."""

    @property
    def project(self) -> Project:
        """The project as last seen."""
        ...

    @property
    def now(self) -> datetime:
        """The sweep's moment, timezone-aware."""
        ...

    def judgments(self, control: str | None = None) -> pd.DataFrame:
        """First submissions by annotators, live tasks only, ordered by ``at``.

        Columns: ``task`` (int), ``annotator`` (int), ``annotation`` (int), ``control`` (str), ``kind``
        (str), ``region`` (str, empty for the whole task), ``value`` (object: tuple of labels, number or raw
        items), ``at`` (datetime64[ns, UTC]), ``duration`` (seconds, float), ``source`` (str or missing),
        ``cohort`` (str or missing).
        """
        ...

    def annotator_name(self, annotator: int) -> str:
        """A name for messages to admins."""
        ...


@dataclass(frozen=True)
class Sweep(Rule):
    """A rule that looks at a project's history on a schedule."""

    def sweep(self, context: SweepContext) -> Iterator[Finding]:
        """Yield what the history shows."""
        raise NotImplementedError
