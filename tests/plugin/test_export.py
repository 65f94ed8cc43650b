"""Exports load into pandas, and with a key nobody is in them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from databases import database_url
from deliveries import PROJECT, annotation, at, created
from guarded import Guarded, guarded, policy
from labelguard.cli import run_command
from labelguard.connectors import User
from labelguard.store import records

# Unlike any count, id or time of the test's own.
ANN, BEN, CID = 918273645, 827364519, 736451928
PEOPLE = [
    User(ANN, "annabel.quince@example.com", "Annabel Quince"),
    User(BEN, "benedict@example.com", "Benedict Oak"),
    User(CID, "cid@example.com", "Cid Elm"),
]
WRONG = ("spam", "important")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Guarded]:
    """A labelguard with good and bad annotations by three people, who also wrote something."""
    with guarded(tmp_path, policy(actions="[prompt, {notify: lead}]", people="{lead: [ops]}")) as made:
        made.store.write(lambda conn: records.save_annotators(conn, PEOPLE))
        for number in range(1, 13):
            who, labels = PEOPLE[number % 3].id, WRONG if number % 4 == 0 else ("spam",)
            body = created(annotation(600 + number, *labels, task=1 + number // 3, by=who, created=at(number)))
            typed = {"from_name": "why", "to_name": "text", "type": "textarea", "value": {"text": ["Ask Benedict Oak"]}}
            body["annotation"]["result"].append({"id": "t1", **typed})
            body["task"]["data"]["text"] = "Dear Benedict Oak"
            made.take(body)

        def dispute(conn: Any) -> None:
            finding = records.list_findings(conn)[0]
            by = f"annotator {finding['annotator']}"
            records.set_finding_state(conn, finding["id"], "disputed", by=by, note="Cid Elm said so", now=at(60))

        made.store.write(dispute)
        yield made


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command on the world's store; gives exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LABELGUARD_DATABASE_URL", database_url(tmp_path))

    def run_it(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = run_command(("export", "--project", str(PROJECT), *arguments))
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return run_it


def key(folder: Path, text: str = "5f0c" * 16, name: str = "export.key") -> str:
    """A key's file."""
    (folder / name).write_text(text + "\n")
    return name


def cells(folder: Path) -> Iterator[str]:
    """Every value of every table, as text, with the names of columns and files."""
    for file in sorted(folder.iterdir()):
        table = pd.read_parquet(file) if file.suffix == ".parquet" else pd.read_csv(file, dtype=str)
        yield file.name
        yield from map(str, table.columns)
        for column in table.columns:
            yield from (str(list(v) if hasattr(v, "__array__") else v) for v in table[column])


def test_an_export_loads_into_pandas_with_its_types(world: Guarded, run: Run, tmp_path: Path) -> None:
    """Judgments join findings, findings join actions, and times are times."""
    code, out, _ = run("--to", "labels")
    tables = {name: pd.read_parquet(tmp_path / "labels" / f"{name}.parquet") for name in ("judgments", "findings")}
    tables |= {name: pd.read_parquet(tmp_path / "labels" / f"{name}.parquet") for name in ("actions", "annotators")}

    assert code == 0
    assert out.split() == ["judgments", "24", "findings", "3", "actions", "6", "annotators", "3"]
    judgments = tables["judgments"]
    assert str(judgments["at"].dtype) == "datetime64[us, UTC]"
    assert judgments["annotator"].dtype == "int64"
    picks = judgments[judgments["control"] == "topics"]
    assert [sorted(json.loads(value)) for value in picks["value"]] == [list(labels) for labels in picks["labels"]]
    # What people typed is left out.
    assert judgments.loc[judgments["control"] == "why", "value"].isna().all()
    joined = tables["findings"].merge(tables["actions"], on="finding", suffixes=("", "_of_action"))
    assert (joined["annotator"] == joined["annotator_of_action"]).all()
    assert len(joined) == 6
    assert set(tables["annotators"]["name"]) == {person.name for person in PEOPLE}
    assert not {"message", "evidence", "note"} & set(tables["findings"].columns)


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_with_a_key_nobody_is_in_an_export(world: Guarded, run: Run, tmp_path: Path, form: str) -> None:
    """No name, address, user id or annotation id of anybody: in no value, in no byte."""
    options = ["--csv"] if form == "csv" else []
    code, _, _ = run("--to", "shared", "--pseudonymise", key(tmp_path), *options)
    values = "\n".join(cells(tmp_path / "shared"))
    raw = b"".join(file.read_bytes() for file in (tmp_path / "shared").iterdir())

    assert code == 0
    for person in PEOPLE:
        for named in (person.name, person.email, str(person.id), *person.name.split()):
            assert named not in values, named
            assert named.encode() not in raw, named
        for order in ("little", "big"):
            assert person.id.to_bytes(8, order) not in raw
    numbers = set(re.findall(r"(?<![\w-])6(?:0[1-9]|1[0-2])(?![\w-])", values))
    assert numbers == set()
    assert {file.suffix for file in (tmp_path / "shared").iterdir()} == {f".{form}"}
    assert len(set(re.findall(r"annotator-[0-9a-f]{16}", values))) == 3


def test_pseudonyms_are_the_same_under_the_same_key_only(world: Guarded, run: Run, tmp_path: Path) -> None:
    """Exports of different days can be joined; without the key nobody can make them."""
    run("--to", "one", "--pseudonymise", key(tmp_path))
    run("--to", "two", "--pseudonymise", key(tmp_path))
    run("--to", "three", "--pseudonymise", key(tmp_path, "another key of somebody", "other.key"))
    one, two, three = (
        set(pd.read_parquet(tmp_path / name / "annotators.parquet")["annotator"]) for name in ("one", "two", "three")
    )

    assert one == two
    assert one.isdisjoint(three)


def test_pseudonyms_keep_who_did_the_same_together(world: Guarded, run: Run, tmp_path: Path) -> None:
    """Statistics by annotator come out the same."""
    run("--to", "plain")
    run("--to", "shared", "--pseudonymise", key(tmp_path))
    plain, shared = (pd.read_parquet(tmp_path / name / "judgments.parquet") for name in ("plain", "shared"))

    for column in ("annotator", "annotation"):
        pairs = set(zip(plain[column], shared[column], strict=True))
        assert len(pairs) == plain[column].nunique() == shared[column].nunique()


def test_texts_and_task_data_come_when_they_are_asked_for(world: Guarded, run: Run, tmp_path: Path) -> None:
    """For those who may see them."""
    code, _, _ = run("--to", "all", "--texts", "--task-data")
    findings = pd.read_parquet(tmp_path / "all" / "findings.parquet")
    tasks = pd.read_parquet(tmp_path / "all" / "tasks.parquet")
    judgments = pd.read_parquet(tmp_path / "all" / "judgments.parquet")

    assert code == 0
    assert "Cid Elm said so" in set(findings["note"])
    assert json.loads(tasks["data"].iloc[0])["text"] == "Dear Benedict Oak"
    assert '["Ask Benedict Oak"]' in set(judgments["value"])


@pytest.mark.parametrize("option", ["--texts", "--task-data"])
def test_texts_do_not_go_with_pseudonyms(world: Guarded, run: Run, tmp_path: Path, option: str) -> None:
    """They may name anybody."""
    code, _, err = run("--to", "shared", "--pseudonymise", key(tmp_path), option)

    assert code == 1
    assert err.startswith("What people typed and what tasks hold may name anybody")
    assert not (tmp_path / "shared").exists()


def test_what_cannot_be_exported_is_said_and_leaves_nothing(world: Guarded, run: Run, tmp_path: Path) -> None:
    """A folder that is there, a key that can be guessed, a key that is not there."""
    (tmp_path / "there").mkdir()
    assert run("--to", "there") == (1, "", "there exists; an export is a new folder. Name another one.\n")
    short = key(tmp_path, "short", "short.key")
    assert run("--to", "new", "--pseudonymise", short)[2].startswith("The key in short.key has 5 bytes; with fewer")
    assert run("--to", "new", "--pseudonymise", "no.key")[2] == "no.key cannot be used: no such file or directory.\n"
    assert list(tmp_path.glob("*new*")) == []


def test_a_project_without_anything_gives_empty_tables(tmp_path: Path, run: Run) -> None:
    """With their columns, so that a notebook runs all the same."""
    with guarded(tmp_path):
        assert run("--to", "empty")[0] == 0
    judgments = pd.read_parquet(tmp_path / "empty" / "judgments.parquet")

    assert len(judgments) == 0
    assert "labels" in judgments.columns
