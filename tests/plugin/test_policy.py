"""Policies: what is read, what is refused and in which words."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from bundles import install
from labelguard import registry
from labelguard.policy import (
    ActionSpec,
    BadPolicy,
    Limits,
    Policy,
    RuleSpec,
    build_rules,
    load_policy,
    policy_schema,
    policy_yaml,
)

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(autouse=True)
def _example_rules(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """The example bundle is installed beside the built-in rules."""
    install(monkeypatch, tmp_path / "bundle")
    yield
    registry.forget()


def problems(text: str) -> list[str]:
    """What is wrong with a policy, one sentence each with its place."""
    with pytest.raises(BadPolicy) as caught:
        load_policy(text, "policy.yaml")
    assert str(caught.value) == "\n".join(str(p) for p in caught.value.problems)
    return [str(p) for p in caught.value.problems]


def with_rule(line: str) -> str:
    """A policy with one rule that has one more line."""
    return f"project: 3\npeople: {{lead: [x@example.com]}}\nrules:\n  - rule: shouts-too-much\n    {line}\n"


def test_a_whole_policy_is_read_as_written() -> None:
    """Every part arrives: actions in both forms, options, people as text and the defaults."""
    policy = load_policy(
        "project: 3\n"
        "source: data.channel\n"
        "people: {lead: [3, x@example.com]}\n"
        "rules:\n"
        "  - rule: shouts-too-much\n"
        "    control: Gefühl\n"
        "    mode: enforce\n"
        "    block: true\n"
        "    options: {most: 2, never: [[yes, no], [1, 7]], needs: {7: [odd]}}\n"
        "    actions: [prompt, {notify: lead}]\n"
    )

    (active,) = build_rules(policy)

    assert policy.people == {"lead": ["3", "x@example.com"]}
    assert policy.limits.max_overlap == 5
    assert active.spec.actions == (ActionSpec(kind="prompt"), ActionSpec(kind="notify", target="lead"))
    assert active.rule.control == "Gefühl"
    options = vars(active.rule)
    assert options["never"] == [["yes", "no"], ["1", "7"]]
    assert options["needs"] == {"7": ["odd"]}


def test_every_mistake_is_reported_at_once_in_the_files_order() -> None:
    """Mistakes of structure and of rules come together, sorted by line."""
    found = problems(
        "projct: 3\n"
        "source: channel\n"
        "limits: {max_overlap: 0}\n"
        "rules:\n"
        "  - rule: shout-too-much\n"
        "  - rule: shouts-too-much\n"
        "    mode: enforced\n"
        "    options:\n"
        "      mots: 2\n"
        "      most: 12\n"
        "    actions: [promt]\n"
    )

    assert found == [
        "policy.yaml, line 1: A policy needs `project`, the id of the Label Studio project it is for.",
        "policy.yaml, line 1: `projct` is not a key that exists; did you mean project?",
        (
            "policy.yaml, line 2: `source` must be data. and a key of the tasks' data, such as data.channel, "
            "not 'channel'."
        ),
        "policy.yaml, line 3: `limits.max_overlap` must be at least 1, not 0.",
        "policy.yaml, line 5: There is no rule 'shout-too-much'; did you mean shouts-too-much?"
        + found[4].partition("?")[2],
        "policy.yaml, line 7: `mode` of rule shouts-too-much is 'enforced'; did you mean enforce?",
        "policy.yaml, line 9: `options.mots` of rule shouts-too-much is not an option of the rule; did you mean most?",
        "policy.yaml, line 10: `options.most` of rule shouts-too-much must be from 1 to 9, not 12.",
        (
            "policy.yaml, line 11: `actions[0]` of rule shouts-too-much is 'promt', which is no action; "
            "did you mean prompt?"
        ),
    ]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("mood: good", "`mood` of rule shouts-too-much is not a key that exists; did you mean mode?"),
        ("block: maybe", "`block` of rule shouts-too-much must be true or false, not 'maybe'."),
        ("severity: worse", "`severity` of rule shouts-too-much is 'worse'; there is error, info and warning."),
        ("actions: prompt", "`actions` of rule shouts-too-much must be a list, not 'prompt'."),
        (
            "actions: [notify]",
            "`actions[0]` of rule shouts-too-much does not say whom; write {notify: <a name of people>}.",
        ),
        (
            "actions: [{notify: laed}]",
            (
                "`actions[0]` of rule shouts-too-much is for 'laed', whom `people` and `cohorts` do not name; "
                "did you mean lead?"
            ),
        ),
        (
            "actions: [{rework: lead}]",
            "`actions[0]` of rule shouts-too-much needs nobody named; write rework alone.",
        ),
        (
            "actions: [{prompt: a, notify: b}]",
            "`actions[0]` of rule shouts-too-much must be one action, such as prompt or {notify: lead}.",
        ),
        ("options: {most: true}", "`options.most` of rule shouts-too-much must be a whole number, not true."),
        ("options: {most: '2'}", "`options.most` of rule shouts-too-much must be a whole number, not '2'."),
        (
            "options: {never: [[a, 1.5]]}",
            "`options.never[0][1]` of rule shouts-too-much must be text, not 1.5. Put it in quotes.",
        ),
        ("options: {share: 2}", "`options.share` of rule shouts-too-much must be from 0 to 1, not 2."),
        (
            "options: {control: a}\n    control: b",
            "`options.control` of rule shouts-too-much is 'a', and `control` is 'b'; keep one of them.",
        ),
    ],
)
def test_each_mistake_of_a_rule_has_its_sentence(line: str, sentence: str) -> None:
    """The sentence names the key, the rule, the value and the fix."""
    assert [text.partition(": ")[2] for text in problems(with_rule(line))] == [sentence]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "policy.yaml: A policy is a list of `key: value` lines and begins with `project:`."),
        ("- 1", "policy.yaml, line 1: A policy is a list of `key: value` lines and begins with `project:`."),
        (
            "project: 3\nproject: 4",
            "policy.yaml, line 2: `project` is written twice, first in line 1; keep one of them.",
        ),
        (
            "project: &a 3\nsource: *a",
            "policy.yaml, line 2: Anchors and aliases (& and *) are not read here; write the value out again.",
        ),
        (
            "project: !!python/object:os.system 3",
            "policy.yaml, line 1: YAML tags such as !!python/object:os.system are not read here; write plain values.",
        ),
        ("[" * 3000, "policy.yaml: The lists and keys are nested too deeply."),
        ("a: b: c", "policy.yaml, line 1: This is not YAML: mapping values are not allowed here."),
    ],
)
def test_what_is_no_policy_at_all_is_refused_with_a_sentence(text: str, sentence: str) -> None:
    """Broken, dangerous and empty files never raise anything else, and never take long."""
    assert problems(text)[0] == sentence


def test_a_huge_file_is_not_parsed() -> None:
    """Size is checked before anything else looks at the text."""
    assert problems("a" * 200_001) == ["policy.yaml: The file has 200,001 characters, and at most 200,000 are read."]


def test_block_is_only_for_rules_that_need_no_history() -> None:
    """A rule with gold or history cannot judge an unsaved result."""
    assert problems("project: 3\nrules:\n  - rule: misses-the-answer\n    block: true\n") == [
        (
            "policy.yaml, line 4: `block` of rule misses-the-answer is not possible: the rule needs more than the "
            "unsaved submission (history, or gold), so it cannot speak before the save."
        )
    ]


def test_an_action_that_reveals_gold_needs_permission() -> None:
    """With ``reveal: true`` the same policy is accepted."""
    text = "project: 3\nrules:\n  - rule: misses-the-answer\n    actions: [prompt, rework]\n"

    assert problems(text) == [
        (
            "policy.yaml, line 4: `actions[1]` of rule misses-the-answer is rework, which would tell the annotator a "
            "secret (such as that the task is gold); leave it out, or allow it with `reveal: true`."
        )
    ]
    assert load_policy(text + "    reveal: true\n").rules[0].reveal


def test_two_rules_that_would_share_their_memory_are_refused() -> None:
    """Writing a default out does not make a rule another one."""
    found = problems(
        "project: 3\nrules:\n  - rule: shouts-too-much\n  - rule: shouts-too-much\n    options: {most: 1}\n"
    )

    assert found == [
        (
            "policy.yaml, line 4: `rules[1]` is the same as `rules[0]`: rule shouts-too-much with the same control and "
            "options; keep one of them."
        )
    ]


def test_a_rules_key_depends_on_name_control_and_options_alone() -> None:
    """Mode and actions may change without the rule losing its memory; options may not."""

    def key(**kwargs: object) -> str:
        spec = RuleSpec.model_validate({"rule": "shouts-too-much", **kwargs})
        return build_rules(Policy(project=3, rules=(spec,)))[0].key

    plain = key(control="digit", options={"share": 1})

    assert re.fullmatch(r"shouts-too-much:digit:[0-9a-f]{8}", plain)
    assert plain == key(options={"control": "digit", "share": 1.0}, mode="enforce", actions=["prompt"])
    assert plain != key(control="digit", options={"share": 0.5})
    assert key().startswith("shouts-too-much:*:")


def test_building_reports_bad_options_of_a_policy_made_in_python() -> None:
    """A stored policy may meet a rule that has changed since."""
    policy = Policy(project=3, rules=(RuleSpec(rule="shouts-too-much", options={"gone": 1}),))

    with pytest.raises(BadPolicy, match=r"`options\.gone` of rule shouts-too-much is not an option of the rule"):
        build_rules(policy)


def test_a_written_policy_reads_back_equal() -> None:
    """Labels that look like other things in YAML survive the way there and back."""
    labels = ["yes", "no", "true", "null", "1e3", "007", "1", "~", "", "2024-01-01", "ünï: [x]", "#a", "- b"]
    policy = Policy(
        project=3,
        source="data.channel",
        cohorts={"juniors": ["7"]},
        rules=(
            RuleSpec(rule="shouts-too-much", options={"never": [labels]}, actions=(ActionSpec(kind="prompt"),)),
            RuleSpec(rule="misses-the-answer", actions=(ActionSpec(kind="notify", target="juniors"),)),
        ),
    )

    assert load_policy(policy_yaml(policy)) == policy


def test_the_schema_knows_each_rules_own_options() -> None:
    """An editor can complete and check options; their help and limits are in the schema."""
    schema = policy_schema()

    rule = schema["$defs"]["rule:shouts-too-much"]["properties"]
    assert rule["rule"] == {"const": "shouts-too-much"}
    assert rule["options"]["properties"]["most"] == {
        "type": "integer",
        "description": "Labels at most.",
        "minimum": 1,
        "maximum": 9,
        "default": 1,
    }
    assert {"$ref": "#/$defs/rule:shouts-too-much"} in schema["properties"]["rules"]["items"]["oneOf"]
    assert json.loads(json.dumps(schema)) == schema


def test_the_documented_example_is_a_valid_policy() -> None:
    """What docs/policy.md shows can be copied and applied."""
    (example,) = re.findall(r"```yaml\n(.*?)```", (DOCS / "policy.md").read_text(encoding="utf-8"), re.DOTALL)

    policy = load_policy(example, "docs/policy.md")

    assert [active.name for active in build_rules(policy)] == [
        "single-label-overuse",
        "label-constraints",
        "gold-check",
    ]


def test_every_key_is_documented() -> None:
    """A key that docs/policy.md does not name would be found by nobody."""
    text = (DOCS / "policy.md").read_text(encoding="utf-8")
    keys = {*Policy.model_fields, *RuleSpec.model_fields} - {"limits"}

    assert {key for key in keys if f"| `{key}` |" not in text} == set()
    assert {key for key in Limits.model_fields if f"`limits.{key}`" not in text} == set()
