"""Reading answers for the gold vault from files."""

from __future__ import annotations

import json

import pytest

from labelguard.goldfile import BadGold, read_gold
from labelguard.labelconfig import LabelConfig

CONFIG = LabelConfig.parse(
    '<View><Image name="image" value="$image"/>'
    '<Choices name="digit" toName="image"><Choice value="1"/><Choice value="7"/></Choices>'
    '<Rating name="sure" toName="image"/></View>'
)


def test_values_are_read_as_the_projects_controls_say() -> None:
    """The same number is a label for choices and a number for a rating; both make one answer."""
    (answer,) = read_gold(
        '{"task": 1, "control": "digit", "value": 7}\n{"task": 1, "control": "sure", "value": "4"}', "g.jsonl", CONFIG
    )

    assert [(item["type"], item["to_name"], item["value"]) for item in answer.result] == [
        ("choices", "image", {"choices": ["7"]}),
        ("rating", "image", {"rating": 4}),
    ]


def test_an_export_gives_its_ground_truth_and_nothing_else() -> None:
    """Other annotations of an exported task are somebody's opinion."""
    result = [{"from_name": "digit", "type": "choices", "value": {"choices": ["1"]}}]
    task = {"id": 4, "annotations": [{"result": result, "ground_truth": True}, {"result": [], "ground_truth": False}]}

    (answer,) = read_gold(json.dumps([task]), "export.json")

    assert (answer.task, answer.result) == (4, result)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (
            '{"task": 1, "control": "digt", "value": "1"}',
            "The labeling interface has no control 'digt'; did you mean digit?",
        ),
        ('{"task": 1, "control": "digit", "value": "8"}', "digit has no label '8'; there is 1 and 7."),
        ('{"task": 1, "control": "sure", "value": "x"}', "`value` for sure must be a number, not 'x'."),
        ('{"task": 0, "result": []}', "`task` must be a task's id, not 0."),
        ('{"task": 1, "result": []}', "`result` must be a list with at least one item, not []."),
        ("3", "An answer is an object with `task` and `result`, not 3."),
    ],
)
def test_each_mistake_has_its_line_and_its_sentence(line: str, sentence: str) -> None:
    """The person who wrote the file can go to the line."""
    with pytest.raises(BadGold) as caught:
        read_gold(f'{{"task": 9, "control": "digit", "value": "1"}}\n{line}', "gold.jsonl", CONFIG)
    assert str(caught.value) == f"gold.jsonl, line 2: {sentence}"


def test_two_answers_for_one_control_of_a_task_are_a_mistake() -> None:
    """Which of them is right only a person knows."""
    with pytest.raises(BadGold, match=r"line 2: Task 1 has another answer for digit above; keep one\."):
        read_gold(
            '{"task": 1, "control": "digit", "value": "1"}\n{"task": 1, "control": "digit", "value": "7"}', "g.jsonl"
        )
