"""The guardrails beyond their examples, through the door the engine uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from labelguard.events import Annotation, Project, ResultItem, Task
from labelguard.judgments import judgments_of
from labelguard.labelconfig import LabelConfig
from labelguard.preview import MemoryContext, choices, submit
from labelguard.rules import Finding, GoldAnswer, Guardrail, Submission
from labelguard_rules.gold_check import GoldCheck
from labelguard_rules.label_constraints import LabelConstraints
from labelguard_rules.single_label_overuse import SingleLabelOveruse

AT = datetime(2026, 3, 2, 10, 0, tzinfo=UTC)
CONFIG = LabelConfig.parse(
    '<View><Text name="text" value="$text"/><Choices name="topics" toName="text" choice="multiple">'
    '<Choice value="refund"/><Choice value="billing"/><Choice value="spam"/></Choices></View>'
)


def submission(
    result: Sequence[ResultItem],
    *,
    task: int = 1,
    author: int | None = 1,
    first: bool = True,
    data: Mapping[str, Any] | None = None,
    overlap: int = 1,
    skipped: bool = False,
    prediction: Sequence[ResultItem] = (),
) -> Submission:
    """A submission of a result, by annotator 1 unless said otherwise."""
    annotation = Annotation(
        id=task * 100 + (author or 0),
        task=task,
        project=1,
        result=tuple(result),
        was_cancelled=skipped,
        prediction=tuple(prediction),
    )
    return Submission(
        annotation=annotation,
        task=Task(task, 1, data=data or {}, overlap=overlap),
        project=Project(1),
        config=CONFIG,
        judgments=judgments_of(result),
        author=author,
        first=first,
        at=AT,
    )


def said(rule: Guardrail, result: Sequence[ResultItem], **about: Any) -> list[Finding]:
    """What a rule without history says about one submission."""
    return submit(rule, submission(result, **about), MemoryContext())


def test_every_broken_constraint_is_told_at_once() -> None:
    """An annotator who fixes one thing must not be stopped by the next."""
    rule = LabelConstraints(
        control="topics", exclusive=[["spam", "refund"]], requires={"refund": ["billing"]}, max_labels=1
    )
    kinds = [f.feedback["kind"] for f in said(rule, [choices("topics", "refund", "spam")])]
    assert kinds == ["exclusive", "requires", "max_labels"]


def test_a_child_needs_its_parent() -> None:
    """With flat choices the parent must be chosen too; a taxonomy path brings its parents along."""
    rule = LabelConstraints(parent_child={"refund": "billing"})
    assert [f.message for f in said(rule, [choices("topics", "refund")])] == [
        "The label refund belongs under billing, which is missing (control topics)."
    ]
    path: ResultItem = {
        "id": "1",
        "from_name": "kind",
        "type": "taxonomy",
        "value": {"taxonomy": [["billing", "refund"]]},
    }
    assert said(LabelConstraints(requires={"billing / refund": ["billing"]}), [path]) == []


def test_region_labels_are_constrained_too() -> None:
    """Labels of boxes that exclude each other may not stand in one annotation."""
    boxes: list[ResultItem] = [
        {
            "id": label,
            "from_name": "box",
            "type": "rectanglelabels",
            "value": {"x": 1, "y": 1, "width": 5, "height": 5, "rectanglelabels": [label]},
        }
        for label in ("cat", "dog")
    ]
    found = said(LabelConstraints(control="box", exclusive=[["cat", "dog"]]), boxes)
    assert [f.labels for f in found] == [("cat", "dog")]


def test_skips_and_other_tasks_are_not_judged() -> None:
    """A skip answers nothing, and conditions keep the rule to the tasks it is for."""
    rule = LabelConstraints(control="topics", required=True, when={"data.lang": ["de", "at"]})
    assert said(rule, [], data={"lang": "de"}, skipped=True) == []
    assert said(rule, [], data={"lang": "fr"}) == []
    assert said(rule, []) == []
    assert [f.message for f in said(rule, [], data={"lang": "at"})] == ["The control topics was not answered."]


def test_misspelt_labels_are_warned_about() -> None:
    """A label that does not exist would make a rule that never speaks."""
    rule = LabelConstraints(control="topics", requires={"refnd": ["billing"]})
    assert rule.warnings(CONFIG) == ["Label 'refnd' does not exist in control topics; did you mean 'refund'?"]


def gold_stream(rule: GoldCheck, answers: Sequence[Sequence[ResultItem]], right: Sequence[ResultItem]) -> list[Finding]:
    """What gold-check says about answers to known tasks that all have the same right answer."""
    context = MemoryContext(GoldAnswer(n, judgments_of(right)) for n in range(1, len(answers) + 1))
    return [
        finding
        for n, answer in enumerate(answers, start=1)
        for finding in submit(rule, submission(answer, task=n), context)
    ]


def test_gold_counts_first_submissions_by_known_authors_once() -> None:
    """Edits, skips, unknown authors and a task done again after a deletion are not held against anybody."""
    right = judgments_of([choices("topics", "spam")])
    context = MemoryContext([GoldAnswer(1, right)])
    wrong = [choices("topics", "refund")]
    for _ in range(30):
        assert submit(GoldCheck(), submission(wrong, first=False), context) == []
        assert submit(GoldCheck(), submission(wrong, author=None), context) == []
        assert submit(GoldCheck(), submission(wrong, skipped=True), context) == []
        assert submit(GoldCheck(), submission(wrong), context) == []


def test_gold_reminds_after_further_known_tasks_only() -> None:
    """After the first finding the next one comes ten known tasks later, if it goes on."""
    found = gold_stream(GoldCheck(), [[choices("topics", "refund")]] * 24, [choices("topics", "spam")])
    assert [f.evidence["answered"] for f in found] == [4, 14, 24]
    assert "still below the target" in found[1].message


def test_gold_answers_stay_out_of_findings() -> None:
    """Neither what reaches the annotator nor the evidence holds the right answer."""
    found = gold_stream(GoldCheck(), [[choices("topics", "refund")]] * 8, [choices("topics", "spam")])
    assert "spam" not in repr(found)
    assert not {"tasks", "wrong_tasks"} & found[0].feedback.keys()


@pytest.mark.parametrize(("match", "flagged"), [("exact", True), ("jaccard", False)])
def test_gold_sets_may_count_in_part(match: Any, flagged: bool) -> None:
    """Two labels of three are wrong when exact, and two thirds right by overlap."""
    rule = GoldCheck(match=match, target_accuracy=0.6)
    right = [choices("topics", "spam", "billing", "refund")]
    assert bool(gold_stream(rule, [[choices("topics", "spam", "billing")]] * 40, right)) is flagged


@pytest.mark.parametrize(("tolerance", "flagged"), [(0.0, True), (1.0, False)])
def test_gold_ratings_have_a_tolerance(tolerance: float, flagged: bool) -> None:
    """One star off is wrong, unless the policy allows it."""

    def stars(number: int) -> list[ResultItem]:
        return [{"id": "r", "from_name": "stars", "type": "rating", "value": {"rating": number}}]

    assert bool(gold_stream(GoldCheck(tolerance=tolerance), [stars(4)] * 20, stars(5))) is flagged


def overuse_stream(
    rule: SingleLabelOveruse, people: Mapping[int, Sequence[str]], *, overlap: int, gold: Sequence[str] = ()
) -> list[Finding]:
    """Everybody's labels, task by task; ``gold`` holds the vault's answers where there are any."""
    context = MemoryContext(
        GoldAnswer(n, judgments_of([choices("topics", label)])) for n, label in enumerate(gold, start=1)
    )
    found = []
    for n in range(len(next(iter(people.values())))):
        for who, labels in people.items():
            one = submission([choices("topics", labels[n])], task=n + 1, author=who, overlap=overlap)
            found += submit(rule, one, context)
    return found


def test_a_peer_can_complete_the_evidence_about_somebody_else() -> None:
    """Findings name the annotator and the annotation they are about, whoever submitted last."""
    truth = ["billing", "spam", "billing", "billing"] * 20
    found = overuse_stream(SingleLabelOveruse(), {1: ["refund"] * 80, 2: truth, 3: truth}, overlap=3)
    assert {f.annotator for f in found} == {1}
    assert all(f.annotation == (f.task or 0) * 100 + 1 for f in found)
    assert {f.labels for f in found} == {("refund",)}


def test_a_queue_full_of_one_label_is_not_overuse() -> None:
    """Who gets the spam queue uses spam, and the peers on the same tasks agree."""
    assert overuse_stream(SingleLabelOveruse(), {1: ["spam"] * 200, 2: ["spam"] * 200}, overlap=2) == []


def test_two_people_who_disagree_cannot_be_told_apart() -> None:
    """With one single peer nobody can say who of the two is stuck."""
    truth = ["billing", "spam"] * 100
    assert overuse_stream(SingleLabelOveruse(), {1: ["refund"] * 200, 2: truth}, overlap=2) == []


def test_what_a_known_task_showed_is_told_with_the_next_submission() -> None:
    """A prompt on the very save would tell that the task is a known one."""
    gold = ["billing", "spam"] * 30
    found = overuse_stream(SingleLabelOveruse(), {1: ["refund"] * 61}, overlap=1, gold=gold)
    assert found
    stopped = (found[0].task or 0) - 1
    assert overuse_stream(SingleLabelOveruse(), {1: ["refund"] * stopped}, overlap=1, gold=gold) == []


def test_pre_annotations_are_a_reference() -> None:
    """Four people accept what was shown; one makes everything spam and is found."""
    context, found = MemoryContext(), []
    task = 0
    for round_ in range(60):
        for who in range(1, 6):
            task += 1
            shown = [choices("topics", ("billing", "refund")[round_ % 2])]
            answer = [choices("topics", "spam")] if who == 5 else shown
            found += submit(SingleLabelOveruse(), submission(answer, task=task, author=who, prediction=shown), context)
    assert {(f.annotator, f.labels) for f in found} == {(5, ("spam",))}


def test_without_any_reference_it_only_observes_once() -> None:
    """Nothing says how often a label should be used, so nobody is to be acted against."""
    found = overuse_stream(SingleLabelOveruse(), {1: ["spam"] * 150}, overlap=1)
    assert [f.observe_only for f in found] == [True]
    assert "only observed" in found[0].message


def test_judgments_of_kinds_without_labels_are_left_alone() -> None:
    """Texts and broken items are neither overused nor constrained."""
    text: ResultItem = {"id": "t", "from_name": "note", "type": "textarea", "value": {"text": ["hello"]}}
    for rule in (SingleLabelOveruse(), LabelConstraints(max_labels=0, exclusive=[["a", "b"]]), GoldCheck()):
        assert said(rule, [text]) == []
