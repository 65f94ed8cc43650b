"""Answers on tasks whose right answer is known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from labelguard.judgments import Judgment
from labelguard.preview import choices
from labelguard.rules import Context, Example, Finding, GoldAnswer, Guardrail, Submission, option
from labelguard_analytics import AccuracyTest

_SETS = frozenset({"choices", "taxonomy"})
_NUMBERS = frozenset({"rating", "number"})
_KEPT = 100
"""How many latest known tasks the evidence lists: enough to look at, and memory stays bounded."""


@dataclass(frozen=True)
class GoldCheck(Guardrail):
    """Accuracy on known tasks (the gold vault) below the target.

    Only an annotator's first submission of a task counts. One wrong answer is never a finding: a finding
    comes when the evidence says that accuracy is below the target, by a test that stays valid however often
    it is looked at. Somebody who always answers at least ``target_accuracy`` of the tasks right is **ever**
    flagged with probability at most ``false_alarm``. A long good record does not hide a later decline.
    """

    name: ClassVar[str] = "gold-check"
    private: ClassVar[bool] = True
    reveals: ClassVar[tuple[str, ...]] = ("rework",)
    examples: ClassVar[tuple[Example, ...]] = (
        Example(
            [choices("sentiment", "positive")],
            says="0 of",
            why="Twelve known tasks in a row were answered wrong.",
            gold=[choices("sentiment", "negative")],
            times=12,
        ),
        Example(
            [choices("sentiment", "positive")],
            says=None,
            why="One wrong answer says nothing about a person.",
            gold=[choices("sentiment", "negative")],
        ),
        Example(
            [choices("sentiment", "negative")],
            says=None,
            why="Every known task was answered right.",
            gold=[choices("sentiment", "negative")],
            times=50,
        ),
    )

    target_accuracy: float = option(0.85, "The share of known tasks to be answered right.", minimum=0.01, maximum=0.99)
    false_alarm: float = option(
        0.05,
        "How likely somebody at the target may ever be flagged, over all time.",
        minimum=0.0001,
        maximum=0.5,
    )
    match: Literal["exact", "jaccard"] = option(
        "exact",
        "How sets of labels are compared: exact (right or wrong) or jaccard (the overlap counts in part).",
    )
    tolerance: float = option(0.0, "How far a rating or number may be from the reference.", minimum=0)
    remind_after: int = option(
        10, "Known tasks until a further finding while accuracy stays below the target.", minimum=1
    )

    def check(self, submission: Submission, context: Context) -> Iterator[Finding]:
        """Score a first submission of a known task and yield a finding when the evidence is enough."""
        annotation, author = submission.annotation, submission.author
        if author is None or not submission.first or annotation.was_cancelled or annotation.ground_truth:
            return
        gold = context.gold(submission.task.id)
        score = None if gold is None else self._score(submission, gold)
        if score is None:
            return
        # An annotation deleted and made again is a second look at the same task, not a first submission.
        seen = context.state(f"task:{submission.task.id}").setdefault("annotators", [])
        if author in seen:
            return
        seen.append(author)

        state = context.state(f"annotator:{author}")
        test = (
            AccuracyTest.from_state(state["test"])
            if "test" in state
            else AccuracyTest(self.target_accuracy, self.false_alarm)
        )
        test.update(score)
        state["test"] = test.to_state()
        state["right"] = state.get("right", 0.0) + score
        latest = state["latest"] = [*state.get("latest", []), [submission.task.id, score]][-_KEPT:]
        if not test.detected:
            return
        reported = state.get("reported")
        if reported is not None:
            if test.n - reported < self.remind_after:
                return
            recent = [s for _, s in latest[-self.remind_after :]]
            if sum(recent) / len(recent) >= self.target_accuracy:
                return
        state["reported"] = test.n
        yield self._finding(test, state["right"], latest, again=reported is not None)

    def _score(self, submission: Submission, gold: GoldAnswer) -> float | None:
        """The mean score over the controls the vault answers, 0 to 1; None where nothing can be compared."""
        scores = [
            self._compare(submission.judgment(right.control), right)
            for right in gold.judgments
            if not right.region
            and self.control in (None, right.control)
            and (right.kind in _SETS or right.kind in _NUMBERS or right.kind == "pairwise")
        ]
        return sum(scores) / len(scores) if scores else None

    def _compare(self, own: Judgment | None, right: Judgment) -> float:
        if own is None or own.kind != right.kind:
            return 0.0
        if right.kind in _NUMBERS:
            return float(abs(own.value - right.value) <= self.tolerance)
        if right.kind in _SETS and self.match == "jaccard":
            union = set(own.labels) | set(right.labels)
            return len(set(own.labels) & set(right.labels)) / len(union) if union else 1.0
        return float(set(own.labels) == set(right.labels))

    def _finding(self, test: AccuracyTest, right: float, latest: list[list[float]], *, again: bool) -> Finding:
        since = test.since or 1
        share = right / test.n
        often = round(1 / self.false_alarm)
        still = "still " if again else ""
        # The number right since the decline, where the kept answers reach back so far.
        declined = [s for _, s in latest[-(test.n - since + 1) :]]
        lately = (
            f", {sum(declined):g} of {len(declined)} since known task {since}"
            if since > 1 and test.n - since + 1 <= len(latest)
            else ""
        )
        return Finding(
            f"The annotator answered {right:g} of {test.n} known tasks as the reference "
            f"({share:.0%}{lately}), {still}below the target of {self.target_accuracy:.0%}. "
            f"Of annotators at the target, at most 1 in {often} would ever be flagged by chance.",
            evidence={
                "answered": test.n,
                "right": round(right, 6),
                "accuracy": round(share, 4),
                "target_accuracy": self.target_accuracy,
                "since": since,
                "evidence": round(min(test.peak, 1e12), 3),
                "threshold": round(test.threshold, 3),
                "false_alarm": self.false_alarm,
                "tasks": [int(task) for task, _ in latest],
                "wrong_tasks": [int(task) for task, score in latest if score < 1],
            },
            control=self.control,
            feedback={
                "percent": round(100 * share),
                "target_percent": round(100 * self.target_accuracy),
                "answered": test.n,
            },
        )
