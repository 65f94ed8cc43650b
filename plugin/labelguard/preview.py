"""Rules on made-up or remembered submissions, without a store: for examples, tests, docs and notebooks."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, MutableMapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from labelguard.events import Annotation, Project, ResultItem, Task
from labelguard.judgments import Judgment, judgments_of
from labelguard.labelconfig import LabelConfig
from labelguard.rules import Example, Finding, GoldAnswer, Guardrail, Rule, Submission, TaskJudgment

START = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
"""When examples are submitted: a fixed moment, so that they always say the same."""
AUTHOR = 1
"""The annotator whose submissions an example is about."""


class MemoryContext:
    """A rule's context kept in memory; one for each rule with its options.

    Submissions are remembered with :meth:`add`, **after** the rule has looked at them.
    """

    def __init__(self, gold: Iterable[GoldAnswer] = ()) -> None:
        self._gold = {answer.task: answer for answer in gold}
        self._judgments: dict[tuple[int, str], dict[int, TaskJudgment]] = {}
        self._states: dict[str, dict[str, Any]] = {}

    def add_gold(self, answer: GoldAnswer) -> None:
        """Put an answer into the vault, in place of an earlier one for the same task."""
        self._gold[answer.task] = answer

    def add(self, submission: Submission) -> None:
        """Remember a submission; only an annotator's first judgment of a task counts, and no skips."""
        annotation = submission.annotation
        if submission.author is None or annotation.was_cancelled or annotation.ground_truth:
            return
        for judgment in submission.judgments:
            if judgment.region:
                continue
            seen = self._judgments.setdefault((submission.task.id, judgment.control), {})
            seen.setdefault(
                submission.author,
                TaskJudgment(submission.author, annotation.id, judgment, submission.at),
            )

    def task_judgments(self, task: int, control: str) -> Sequence[TaskJudgment]:
        """First submissions of a task by annotators, oldest first."""
        return tuple(self._judgments.get((task, control), {}).values())

    def gold(self, task: int) -> GoldAnswer | None:
        """The answer for a task, or None."""
        return self._gold.get(task)

    def state(self, subject: str) -> MutableMapping[str, Any]:
        """The rule's memory about a subject."""
        return self._states.setdefault(subject, {})


def submit(rule: Guardrail, submission: Submission, context: MemoryContext) -> list[Finding]:
    """Let a rule look at a submission, then remember the submission."""
    found = list(rule.check(submission, context))
    context.add(submission)
    return found


def run_example(rule_cls: type[Rule], example: Example) -> list[Finding]:
    """What a guardrail says about one of its examples: every finding about the example's author.

    Raises:
        TypeError: the rule is a sweep (which looks at a history, not at submissions), or an option of the
            example is not an option of the rule.
    """
    if not issubclass(rule_cls, Guardrail):
        raise TypeError(f"{rule_cls.__name__} is not a guardrail, so it has no submissions to look at.")
    rule = rule_cls(**example.options)
    context = MemoryContext()
    config = LabelConfig.parse(example.label_config) if example.label_config else LabelConfig()
    project = Project(id=1, title="Example", label_config=example.label_config)
    said: list[Finding] = []
    for number in range(1, example.times + 1):
        task = Task(id=number, project=1, data=example.data, overlap=len(example.before) + 1)
        if example.gold is not None:
            context.add_gold(GoldAnswer(number, judgments_of(example.gold)))
        results: list[tuple[int, Sequence[ResultItem]]] = [(101 + i, result) for i, result in enumerate(example.before)]
        for place, (who, result) in enumerate([*results, (AUTHOR, example.result)]):
            at = START + timedelta(minutes=number, seconds=place)
            annotation = Annotation(
                id=number * 1000 + place,
                task=number,
                project=1,
                result=tuple(result),
                completed_by=who,
                updated_by=who,
                created_at=at,
                updated_at=at,
            )
            submission = Submission(
                annotation=annotation,
                task=task,
                project=project,
                config=config,
                judgments=judgments_of(result),
                author=who,
                first=True,
                at=at,
            )
            for finding in submit(rule, submission, context):
                about = who if finding.annotator is None else finding.annotator
                if about == AUTHOR:
                    said.append(dataclasses.replace(finding, annotator=about))
    return said


def choices(control: str, *labels: str) -> ResultItem:
    """A result item as Label Studio's Choices tag makes it, for examples and tests."""
    return {
        "id": f"{control}-1",
        "from_name": control,
        "to_name": "text",
        "type": "choices",
        "value": {"choices": list(labels)},
    }


def a_judgment(control: str, *labels: str) -> Judgment:
    """The judgment that :func:`choices` reads as, for tests that need no result."""
    return Judgment(control=control, kind="choices", value=labels, labels=tuple(sorted(set(labels))))
