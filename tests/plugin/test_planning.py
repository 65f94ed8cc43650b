"""Which actions a finding leads to: modes, limits, and the same thing only once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bundles import install
from deliveries import ANN, BEN, PROJECT, annotation, at, created, deleted, project, task, updated
from guarded import CONSTRAINTS, Guarded, guarded, policy
from labelguard import registry
from labelguard.policy import load_policy
from labelguard.rules import Finding
from labelguard.store import records

WRONG = ("spam", "important")
ALL = "[prompt, rework, replace, second-opinion, {escalate: lead}, pause, {notify: lead}]"
PEOPLE = {"people": "{lead: [chat]}"}

POINTS = '''
    from dataclasses import dataclass
    from labelguard import Finding, Guardrail, Sweep

    @dataclass(frozen=True)
    class Points(Guardrail):
        """Points at the first annotation of the task, whoever asks."""

        name = "points"

        def check(self, submission, context):
            for other in context.task_judgments(submission.task.id, "topics")[:1]:
                yield Finding("Look at this one.", annotation=other.annotation)

    @dataclass(frozen=True)
    class Hesitates(Guardrail):
        """Knows too little to act."""

        name = "hesitates"

        def check(self, submission, context):
            yield Finding("Perhaps.", observe_only=True)

    @dataclass(frozen=True)
    class Sweeps(Sweep):
        """Nothing by itself."""

        name = "sweeps"

        def sweep(self, context):
            return iter(())

    RULES = (Points, Hesitates, Sweeps)
'''


@pytest.fixture
def bundle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Rules of a third party."""
    install(monkeypatch, tmp_path / "bundle", POINTS, name="test-rules")
    yield
    registry.forget()


def wrong(world: Guarded, number: int = 11, by: int = ANN) -> None:
    """Somebody submits what the policy forbids."""
    world.take(created(annotation(number, *WRONG, by=by)))


def not_done(world: Guarded) -> list[list[str]]:
    """Why actions were not planned, by finding."""
    return [finding["evidence"].get("not_done", []) for finding in world.findings()]


@pytest.mark.parametrize(
    ("mode", "states"),
    [
        ("observe", set()),
        ("recommend", {"proposed"}),
        ("enforce", {"approved", "proposed"}),
    ],
)
def test_the_mode_decides_what_happens(tmp_path: Path, mode: str, states: set[str]) -> None:
    """Observing plans nothing and says nothing of it; only enforcing acts without a person."""
    with guarded(tmp_path, policy(mode=mode, actions=ALL, **PEOPLE)) as world:
        wrong(world)
        assert set(world.states().values()) == states
        assert not_done(world) == [[]]
        if mode == "enforce":
            # Against a person nothing happens before a person approves.
            assert [kind for kind, state in world.states().items() if state == "proposed"] == ["pause"]


def test_the_targets_are_decided_up_front(tmp_path: Path) -> None:
    """Absolute, and with the version that was judged."""
    with guarded(tmp_path, policy(actions=ALL, **PEOPLE)) as world:
        wrong(world)
        (row,) = world.annotations()
        version = {"content_hash": row["content_hash"], "updated_at": row["updated_at"].isoformat()}
        assert {action["kind"]: action["target"] for action in world.actions()} == {
            "prompt": version,
            "rework": version,
            "replace": {**version, "was_cancelled": True},
            "second-opinion": {**version, "overlap": 2, "is_labeled": False},
            "escalate": {**version, "to": "lead"},
            "pause": version,
            "notify": {**version, "to": "lead"},
        }


def test_a_task_goes_back_to_one_annotator_so_often_and_no_more(tmp_path: Path) -> None:
    """Another annotator's reworks of the same task are theirs."""
    with guarded(tmp_path, policy(actions="[rework]", limits="{reworks_per_task: 2}")) as world:
        wrong(world)
        for minute in (1, 2):
            world.take(updated(annotation(11, *WRONG, "refund", "billing"[minute:], saved=at(minute))))
        assert [action["state"] for action in world.actions()] == ["done", "done"]
        assert not_done(world) == [[], [], ["rework: the task was already sent back 2 times"]]
        wrong(world, 12, by=BEN)
        assert len(world.actions(annotator=BEN)) == 1


def test_a_second_opinion_is_asked_for_once_and_never_above_the_limit(tmp_path: Path) -> None:
    """Skips are nobody's opinion; people who came without being asked are."""
    with guarded(tmp_path, policy(actions="[second-opinion]", limits="{max_overlap: 3}")) as world:
        world.take(created(annotation(10, "spam", by=BEN, was_cancelled=True)))
        wrong(world)
        assert world.action("second-opinion")["target"]["overlap"] == 2
        wrong(world, 12, by=BEN)
        for number in (21, 22):
            world.take(created(annotation(number, "spam", task=8, by=number)))
        world.take(created(annotation(23, *WRONG, task=8)))
        assert not_done(world) == [
            [],
            ["second-opinion: a second opinion was already asked for"],
            ["second-opinion: the task would need an overlap of 4, above max_overlap"],
        ]


def test_the_tasks_own_overlap_counts(tmp_path: Path) -> None:
    """One more than three is four."""
    with guarded(tmp_path, policy(actions="[second-opinion]")) as world:
        world.take(created(annotation(11, *WRONG), task=task(7, overlap=3)))
        assert world.action("second-opinion")["target"]["overlap"] == 4


def test_one_version_goes_back_once_and_each_reason_is_told(tmp_path: Path) -> None:
    """Two rules want it back: one rework, and a prompt with the other's reason."""
    second = CONSTRAINTS.format(mode="enforce", actions="[rework, replace]").replace(
        "{exclusive: [[spam, important]]}", "{max_labels: 1}"
    )
    with guarded(tmp_path, policy(CONSTRAINTS.format(mode="enforce", actions="[rework, replace]"), second)) as world:
        wrong(world)
        first, other = world.findings()
        assert [(action["finding"], action["kind"]) for action in world.actions()] == [
            (first["id"], "rework"),
            (first["id"], "replace"),
            (other["id"], "prompt"),
        ]
        assert not_done(world) == [
            [],
            [
                f"rework: finding {first['id']} already asks for it",
                f"replace: finding {first['id']} already asks for it",
            ],
        ]


def test_a_rule_that_only_observes_leads_to_nothing_whatever_the_mode(bundle: None, tmp_path: Path) -> None:
    """And the finding says so."""
    text = policy("  - rule: hesitates\n    mode: enforce\n    actions: [prompt]\n")
    with guarded(tmp_path, text) as world:
        wrong(world)
        assert (world.findings()[0]["mode"], world.actions()) == ("observe", [])
        assert not_done(world) == [["no action: the rule only observes here"]]


def test_a_finding_about_somebody_elses_annotation_is_about_its_annotator(bundle: None, tmp_path: Path) -> None:
    """With that annotation's version, so that it can be verified before anything is done."""
    text = policy("  - rule: points\n    mode: enforce\n    actions: [prompt, replace]\n")
    with guarded(tmp_path, text) as world:
        world.take(created(annotation(11, "refund", by=BEN)))
        world.take(created(annotation(12, "spam", by=ANN, created=at(1))))
        (finding,) = world.findings()
        assert (finding["annotator"], finding["annotation"], finding["task"]) == (BEN, 11, 7)
        first = world.annotations()[0]
        for action in world.actions():
            assert (action["annotator"], action["annotation"]) == (BEN, 11)
            assert action["target"]["content_hash"] == first["content_hash"]


def test_a_sweeps_finding_is_planned_from_what_the_store_knows(bundle: None, tmp_path: Path) -> None:
    """About an annotation, about a person, or about nobody."""
    text = policy("  - rule: sweeps\n    mode: enforce\n    actions: [prompt, rework, second-opinion]\n")
    with guarded(tmp_path, text) as world:
        world.take(created(annotation(11, "spam", by=BEN), task=task(7, overlap=3)))
        with world.store.read() as conn:
            loaded = world.engine.processor.policy(conn, PROJECT)
        assert loaded is not None
        key = loaded.rules[0].key
        found = [Finding("This one.", annotation=11), Finding("Them.", annotator=BEN), Finding("All.")]
        assert len(world.engine.add_sweep_findings(PROJECT, key, found, now=at(5))) == 3
        about, person, nobody = world.findings()
        assert (about["annotator"], about["task"], about["annotation"]) == (BEN, 7, 11)
        planned = {(a["finding"], a["kind"]): a["target"].get("overlap") for a in world.actions()}
        assert planned == {
            (about["id"], "prompt"): None,
            (about["id"], "rework"): None,
            (about["id"], "second-opinion"): 4,
            (person["id"], "prompt"): None,
        }
        assert nobody["evidence"]["not_done"] == [
            "prompt: nobody is known to tell",
            "rework: nobody is known to tell",
            "second-opinion: it is not about one task",
        ]
        assert world.engine.add_sweep_findings(PROJECT, "gone", found, now=at(5)) == []


def test_the_limits_are_the_policys_own(tmp_path: Path) -> None:
    """A policy without any has the documented ones."""
    limits = load_policy(policy()).limits
    assert (limits.reworks_per_task, limits.max_overlap, limits.max_action_age) == (2, 5, 86_400)


def test_a_deleted_annotation_made_again_may_go_back_again(tmp_path: Path) -> None:
    """The once-only key has the version's time in it, since ids are given out again."""
    with guarded(tmp_path, policy(actions="[rework]")) as world:
        wrong(world)
        world.take(deleted(11))
        world.take(created(annotation(11, *WRONG, created=at(5)), project=project()))
        assert len(world.actions(kind="rework")) == 2
        assert len({action["key"] for action in world.actions()}) == 2
        with world.store.read() as conn:
            assert len(records.list_actions(conn, annotation=11)) == 2
