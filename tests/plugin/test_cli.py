"""The command line as a person and a script meet it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bundles import install
from databases import database_url
from labelguard import registry
from labelguard.cli import run_command
from labelguard.cli.docs import cli_markdown
from labelguard.events import Project
from labelguard.settings import load_settings
from labelguard.store import Store, records

DOCS = Path(__file__).parents[2] / "docs"
Run = Callable[..., tuple[int, str, str]]
POLICY = "project: 3\npeople: {lead: [ops]}\nrules:\n  - rule: shouts-too-much\n    actions: [{notify: lead}]\n"


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A working directory, a store and a bundle of rules of the test's own; nothing from outside."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LABELGUARD_DATABASE_URL", database_url(tmp_path))
    monkeypatch.delenv("LABELGUARD_STUDIO_API_KEY", raising=False)
    install(monkeypatch, tmp_path / "bundle")
    yield
    registry.forget()


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Run a command; gives exit code, standard output and standard error."""

    def run_it(*arguments: str) -> tuple[int, str, str]:
        code = run_command(arguments)
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return run_it


def test_help_answers_at_once() -> None:
    """Nothing heavy is imported before a command needs it."""
    done = subprocess.run(
        [sys.executable, "-c", "import labelguard.cli as c, sys; c.main(['--help'])"], capture_output=True, text=True
    )

    assert done.returncode == 0
    assert "replay" in done.stdout
    loaded = (
        "import labelguard.cli, sys;"
        "print([m for m in ('pandas', 'label_studio_sdk', 'sqlalchemy') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True).stdout == "[]\n"


def test_bad_usage_ends_with_2(run: Run) -> None:
    """A misspelt command and a missing option are usage mistakes."""
    for arguments in (["polcy"], ["policy", "export"], ["gold", "adopt", "--project", "3"]):
        code, out, err = run(*arguments)
        assert (code, out) == (2, "")
        assert err


def test_a_mistake_of_ours_ends_with_3_and_says_where_the_log_is(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The person gets a sentence; the traceback is in a file that only they can read."""

    def broken(*_args: object, **_kwargs: object) -> None:
        raise ZeroDivisionError("boom")

    monkeypatch.setattr("labelguard.policy.policy_schema", broken)
    code, _out, err = run("policy", "schema")

    log = Path(err.split()[-1].rstrip("."))
    assert code == 3
    assert err.startswith("This is a mistake in labelguard (ZeroDivisionError). What happened is written in ")
    assert "boom" in log.read_text(encoding="utf-8")
    assert log.stat().st_mode & 0o077 == 0
    log.unlink()


def test_an_interrupt_ends_with_130(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the shell expects of what Ctrl-C ended."""

    def interrupted(*_args: object, **_kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("labelguard.policy.policy_schema", interrupted)

    assert run("policy", "schema")[0] == 130


def test_bad_configuration_ends_with_2(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command that needs the configuration says the same."""
    monkeypatch.setenv("LABELGUARD_PORT", "many")

    code, _out, err = run("config")

    assert (code, err) == (2, "LABELGUARD_PORT must be a whole number, not 'many'.\n")


def test_config_shows_the_effective_values_with_secrets_hidden(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """As JSON for programs."""
    monkeypatch.setenv("LABELGUARD_API_TOKEN", "pl4nted")

    code, out, _err = run("config", "--json")

    assert code == 0
    assert json.loads(out)["api_token"] == "(hidden)"
    assert "pl4nted" not in out


def test_a_policy_is_validated_applied_and_exported(run: Run, tmp_path: Path) -> None:
    """The exported text is the applied one; applying it again adds no version."""
    file = tmp_path / "policy.yaml"
    file.write_text(POLICY, encoding="utf-8")

    assert run("policy", "validate", str(file))[1] == f"{file} is a valid policy for project 3, with 1 rule.\n"
    code, out, err = run("policy", "apply", str(file), "--json")
    assert (code, json.loads(out)) == (0, {"project": 3, "version": 1})
    assert err == (
        "ops of `people` is neither an email, a user id, nor a target of the configuration; "
        "set LABELGUARD_NOTIFY_OPS to reach it.\n"
    )
    assert json.loads(run("policy", "apply", str(file), "--json")[1])["version"] == 1
    assert run("policy", "export", "--project", "3")[1] == POLICY


@pytest.mark.parametrize("command", ["validate", "apply"])
def test_labels_that_the_project_does_not_have_are_remarked_upon(run: Run, tmp_path: Path, command: str) -> None:
    """The policy is valid all the same: the labeling interface may follow it."""
    file = tmp_path / "policy.yaml"
    file.write_text(
        "project: 3\nrules:\n  - rule: label-constraints\n    control: topics\n"
        "    options: {exclusive: [[spam, importnat]]}\n",
        encoding="utf-8",
    )
    config = (
        '<View><Text name="t" value="$t"/><Choices name="topics" toName="t">'
        '<Choice value="spam"/><Choice value="important"/></Choices></View>'
    )
    store = Store.open(load_settings().database_url)
    now = datetime(2026, 1, 1, tzinfo=UTC)
    store.write(lambda conn: records.save_project(conn, Project(3, "Mail", config), now))
    store.close()

    code, _out, err = run("policy", command, str(file))

    assert (code, err) == (
        0,
        "label-constraints: Label 'importnat' does not exist in control topics; did you mean 'important'?\n",
    )


def test_a_bad_policy_ends_with_2_and_all_its_mistakes(run: Run, tmp_path: Path) -> None:
    """With ``--json`` the mistakes are data."""
    file = tmp_path / "policy.yaml"
    file.write_text("project: x\nruls: []\n", encoding="utf-8")

    code, _out, err = run("policy", "apply", str(file))
    assert code == 2
    assert err.splitlines() == [
        f"{file}, line 1: `project` must be a whole number, not 'x'.",
        f"{file}, line 2: `ruls` is not a key that exists; did you mean rules?",
    ]
    code, out, _err = run("policy", "validate", str(file), "--json")
    assert code == 2
    assert [problem["key"] for problem in json.loads(out)["problems"]] == ["project", "ruls"]


def test_what_is_not_there_ends_with_1(run: Run) -> None:
    """The sentence says what to do where something can be done."""
    assert run("policy", "export", "-p", "3")[::2] == (
        1,
        "Project 3 has no policy; apply one with: labelguard policy apply FILE\n",
    )
    assert run("findings", "show", "7")[::2] == (1, "There is no finding 7.\n")
    assert run("actions", "approve", "7")[::2] == (1, "There is no action 7; nothing was changed.\n")
    assert run("policy", "validate", "gone.yaml")[::2] == (
        1,
        "gone.yaml cannot be used: no such file or directory.\n",
    )


def test_connecting_without_a_token_says_how_to_get_one(run: Run) -> None:
    """The first thing that a new admin forgets."""
    assert run("connect", "--project", "3")[::2] == (
        1,
        (
            "labelguard has no token for Label Studio. Create a user of its own for it, and set "
            "LABELGUARD_STUDIO_API_KEY to that user's access token.\n"
        ),
    )


def test_gold_is_imported_listed_and_retired(run: Run, tmp_path: Path) -> None:
    """From lines of either shape; a task's controls make one answer."""
    file = tmp_path / "gold.jsonl"
    file.write_text(
        '{"task": 7, "control": "digit", "value": "1"}\n'
        '{"task": 7, "control": "traits", "value": ["odd", "loop"]}\n'
        '{"task": 8, "result": [{"from_name": "digit", "type": "choices", "value": {"choices": ["3"]}}]}\n',
        encoding="utf-8",
    )

    assert json.loads(run("gold", "import", str(file), "-p", "3", "--json")[1])["tasks"] == [7, 8]
    listed = json.loads(run("gold", "list", "-p", "3", "--json")[1])
    assert [row["task"] for row in listed] == [7, 8]
    assert [item["value"]["choices"] for item in listed[0]["result"]] == [["1"], ["odd", "loop"]]
    assert "digit: 1; traits: loop, odd" in run("gold", "list", "-p", "3")[1]
    assert run("gold", "retire", "-p", "3", "7")[1] == "The vault of project 3 retired 1 answer.\n"
    assert [row["task"] for row in json.loads(run("gold", "list", "-p", "3", "--json")[1])] == [8]


def test_gold_with_mistakes_is_not_taken_at_all(run: Run, tmp_path: Path) -> None:
    """Every line's mistake is said; the vault stays as it was."""
    file = tmp_path / "gold.jsonl"
    file.write_text(
        '{"task": 7, "control": "digit", "value": "1"}\nnonsense\n{"task": "x", "result": []}\n{"task": 9}\n',
        encoding="utf-8",
    )

    code, _out, err = run("gold", "import", str(file), "-p", "3")

    assert code == 2
    lines = err.splitlines()
    assert lines[0].startswith(f"{file}, line 2: This is not JSON: ")
    assert lines[1:] == [
        f"{file}, line 3: `task` must be a task's id, not 'x'.",
        f"{file}, line 4: An answer has `result`, or `control` and `value`.",
    ]
    assert run("gold", "list", "-p", "3", "--json")[1] == "[]\n"


def test_gold_is_read_from_csv_too(run: Run, tmp_path: Path) -> None:
    """Several labels stand between semicolons."""
    file = tmp_path / "gold.csv"
    file.write_text("task,control,value\n7,digit,1\n8,traits,odd;loop\n", encoding="utf-8")

    run("gold", "import", str(file), "-p", "3")

    rows = json.loads(run("gold", "list", "-p", "3", "--json")[1])
    assert [row["result"][0]["value"] for row in rows] == [{"choices": ["1"]}, {"choices": ["odd", "loop"]}]


def test_actions_are_stopped_and_resumed(run: Run, tmp_path: Path) -> None:
    """The kill switch is in the store, where every process sees it."""

    def enabled() -> bool:
        store = Store.open(database_url(tmp_path))
        try:
            with store.read() as conn:
                return records.actions_enabled(conn)
        finally:
            store.close()

    assert enabled()
    assert run("actions", "stop")[1] == "All actions are stopped; findings go on.\n"
    assert not enabled()
    assert json.loads(run("actions", "resume", "--json")[1]) == {"actions": "on"}
    assert enabled()


def test_sweeps_run_by_hand(run: Run, tmp_path: Path) -> None:
    """All of the policy's, or the one that is named; a name that the policy does not have is said."""
    file = tmp_path / "policy.yaml"
    file.write_text("project: 3\nrules: [{rule: looks-back}]\n", encoding="utf-8")
    run("policy", "apply", str(file))

    assert json.loads(run("sweep", "-p", "3", "--json")[1]) == {"project": 3, "findings": {"looks-back": []}}
    assert run("sweep", "-p", "3")[1] == "looks-back made 0 new findings.\n"
    assert run("sweep", "-p", "3", "--rule", "label-drift")[::2] == (
        1,
        "The policy of project 3 has no sweep named 'label-drift'.\n",
    )


def test_the_doctor_says_what_is_wrong_and_the_fix(run: Run) -> None:
    """Without a token nothing else can work; the exit code tells a script."""
    code, out, err = run("doctor")

    assert code == 1
    assert err.endswith(" failed.\n")
    assert "WRONG   token: labelguard has no token for Label Studio." in out
    checks = {check["name"]: check for check in json.loads(run("doctor", "--json")[1])}
    assert checks["store"]["ok"] is True
    assert checks["token"]["fix"].startswith("Create a user of its own for it")


def test_empty_lists_are_said_in_words_and_are_lists_as_json(run: Run) -> None:
    """A script can always read the answer."""
    assert run("actions", "pending")[1] == "No action waits for a person.\n"
    assert run("findings", "list")[1] == "There is no such finding.\n"
    assert run("findings", "list", "--json")[1] == "[]\n"


def test_rules_are_listed_with_their_options(run: Run) -> None:
    """What a policy may name."""
    rules = {rule["name"]: rule for rule in json.loads(run("rules", "--json")[1])}

    assert rules["shouts-too-much"]["kind"] == "guardrail"
    assert rules["looks-back"]["kind"] == "sweep"
    assert "most" in [option["name"] for option in rules["shouts-too-much"]["options"]]


def test_the_documentation_of_commands_is_current() -> None:
    """Made with ``labelguard config --write-docs docs``."""
    assert cli_markdown() == (DOCS / "cli.md").read_text(encoding="utf-8")
