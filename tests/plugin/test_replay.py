"""``labelguard replay``: recorded deliveries against a policy."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bundles import install
from labelguard import registry
from labelguard.cli import run_command

Run = Callable[..., tuple[int, dict[str, Any], str]]
START = datetime(2025, 1, 1, tzinfo=UTC)
CONFIG = (
    '<View><Image name="image" value="$image"/><Choices name="digit" toName="image" choice="multiple">'
    '<Choice value="1"/><Choice value="7"/></Choices></View>'
)
POLICY = """
project: 3
rules:
  - rule: shouts-too-much
    mode: enforce
    actions: [prompt]
  - rule: misses-the-answer
"""


@pytest.fixture(autouse=True)
def _rules(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """The example bundle is installed, and no configuration of the machine is read."""
    monkeypatch.chdir(tmp_path)
    install(monkeypatch, tmp_path / "bundle")
    yield
    registry.forget()


def body(annotation: int, labels: list[str], *, project: int = 3, minutes: int = 0, **more: Any) -> dict[str, Any]:
    """A delivery as Label Studio sends it, one task for each annotation unless said otherwise."""
    at = (START + timedelta(minutes=minutes or annotation)).isoformat()
    task = more.pop("task", annotation)
    result = [{"id": "r", "from_name": "digit", "to_name": "image", "type": "choices", "value": {"choices": labels}}]
    return {
        "action": "ANNOTATION_CREATED",
        "annotation": {
            "id": annotation, "task": task, "project": project, "result": result, "completed_by": 5,
            "updated_by": 5, "created_at": at, "updated_at": at, "was_cancelled": False, "ground_truth": False,
            "lead_time": 3.0,
            **more,
        },
        "task": {"id": task, "project": project, "data": {"image": "a.png"}, "created_at": at, "updated_at": at},
        "project": {"id": project, "title": "Digits", "label_config": CONFIG},
    }  # fmt: skip


@pytest.fixture
def replay(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Replay lines; gives exit code, what was printed as JSON, and standard error."""

    def run(
        lines: list[Any], *, policy: str = POLICY, gold: list[Any] | None = None
    ) -> tuple[int, dict[str, Any], str]:
        file, policy_file, gold_file = (Path(tmp_path / name) for name in ("in.jsonl", "policy.yaml", "gold.jsonl"))
        file.write_text(
            "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), encoding="utf-8"
        )
        policy_file.write_text(policy, encoding="utf-8")
        arguments = ["replay", str(file), "--policy", str(policy_file), "--json"]
        if gold is not None:
            gold_file.write_text("\n".join(json.dumps(line) for line in gold), encoding="utf-8")
            arguments += ["--gold", str(gold_file)]
        code = run_command(arguments)
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        return code, json.loads(out) if out else {}, err

    return run


def test_findings_and_actions_are_those_of_live_events(replay: Run) -> None:
    """Years-old recordings act as they would have on the day; ids are numbers."""
    code, result, err = replay([body(1, ["1"]), body(2, ["1", "7"])])

    assert (code, err, result["deliveries"], result["rejected"]) == (0, "", 2, [])
    (finding,) = result["findings"]
    assert {
        key: finding[key] for key in ("rule", "project", "task", "annotation", "annotator", "message", "evidence")
    } == {
        "rule": "shouts-too-much",
        "project": 3,
        "task": 2,
        "annotation": 2,
        "annotator": 5,
        "message": "2 labels where 1 are allowed.",
        "evidence": {"labels": ["1", "7"]},
    }
    assert finding["at"] == "2025-01-01T00:02:00+00:00"
    (action,) = result["actions"]
    assert (action["kind"], action["annotation"], action["finding"]) == ("prompt", 2, finding["id"])


def test_the_same_file_gives_the_same_answer(replay: Run) -> None:
    """Nothing depends on the wall clock or on chance."""
    lines = [body(n, ["1", "7"] if n % 3 else ["1"]) for n in range(1, 20)]

    assert replay(lines) == replay(lines)


def test_wrapped_deliveries_are_the_same_as_bare_ones(replay: Run) -> None:
    """A recorder that keeps headers writes this form."""
    bare = replay([body(2, ["1", "7"])])

    assert replay([{"headers": {"X-Labelguard-Token": "t"}, "body": body(2, ["1", "7"])}]) == bare
    assert replay([{"body": json.dumps(body(2, ["1", "7"]))}]) == bare


def test_a_delivery_repeated_is_one_event(replay: Run) -> None:
    """A redelivery finds nothing twice."""
    _code, result, _err = replay([body(2, ["1", "7"]), body(2, ["1", "7"])])

    assert result["deliveries"] == 2
    assert len(result["findings"]) == 1


def test_lines_that_are_no_delivery_are_rejected_and_the_rest_goes_on(replay: Run) -> None:
    """Each has its line and a reason; empty lines are nothing."""
    broken = body(1, ["1"])
    broken["annotation"]["id"] = "x"
    code, result, _err = replay(['{"action": "ANNOT', "[]", "", broken, body(2, ["1", "7"])])

    assert code == 0
    assert result["deliveries"] == 4
    assert [refused["line"] for refused in result["rejected"]] == [1, 2, 4]
    assert all(refused["reason"].endswith(".") for refused in result["rejected"])
    assert len(result["findings"]) == 1


def test_ground_truth_in_the_file_is_gold_wherever_it_stands(replay: Run) -> None:
    """Judgments before it in the file are compared with it too; it is not judged itself."""
    gold = body(9, ["7"], task=1, minutes=90, ground_truth=True, completed_by=1, updated_by=1)
    _code, result, _err = replay([body(1, ["1"]), gold])

    assert [(f["rule"], f["annotation"]) for f in result["findings"]] == [("misses-the-answer", 1)]


def test_answers_of_a_gold_file_are_in_the_vault(replay: Run) -> None:
    """They replace what the file itself marks as ground truth."""
    gold = body(9, ["7"], task=1, minutes=90, ground_truth=True, completed_by=1, updated_by=1)
    lines = [gold, body(1, ["1"]), body(2, ["1"])]
    answers = [{"task": 1, "control": "digit", "value": "1"}, {"task": 2, "control": "digit", "value": 7}]

    _code, result, _err = replay(lines, gold=answers)

    assert [f["annotation"] for f in result["findings"]] == [2]


def test_other_projects_find_nothing_and_it_is_said(replay: Run) -> None:
    """The policy is for one project; its number may be wrong."""
    code, result, err = replay([body(2, ["1", "7"], project=4)])

    assert (code, result["deliveries"], result["findings"]) == (0, 1, [])
    assert err == "1 of 1 deliveries are about other projects than the policy's (3); no rule looked at them.\n"


def test_a_bad_policy_ends_with_2_and_a_sentence(replay: Run) -> None:
    """Nothing is replayed then."""
    code, result, err = replay([body(1, ["1"])], policy="project: 3\nrules: [{rule: shouts-too-muhc}]\n")

    assert (code, result) == (2, {})
    assert "There is no rule 'shouts-too-muhc'; did you mean shouts-too-much?" in err


def test_a_file_that_is_not_there_ends_with_2(capfd: pytest.CaptureFixture[str]) -> None:
    """The sentence names it."""
    assert run_command(["replay", "gone.jsonl", "--policy", "gone.yaml"]) == 2
    assert "There is no file gone.jsonl." in capfd.readouterr().err
