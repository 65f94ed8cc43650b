"""Erasing an annotator: nothing names them any more, and what the labels say stays."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from databases import database_url
from deliveries import ANN, BEN, NOW, PROJECT, annotation, at, created, updated
from fakestudio import FakeNotifier, FakeStudio
from guarded import Guarded, guarded, policy
from labelguard import erasure
from labelguard.cli import run_command
from labelguard.connectors import User
from labelguard.erasure import Erased, erase, find
from labelguard.outbox import Outbox
from labelguard.reconcile import reconcile
from labelguard.store import records, schema

WRONG = ("spam", "important")
NAME, EMAIL = "Annabel Quince", "annabel.quince@example.com"
PEOPLE = [User(ANN, EMAIL, NAME), User(BEN, "ben@example.com", "Ben")]
POLICY = policy(actions="[prompt, rework, {notify: lead}]", people="{lead: [ops]}", cohorts=f'{{new: ["{EMAIL}"]}}')
NEWER = policy(actions="[prompt]", people="{lead: [ops]}")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Guarded]:
    """A labelguard in which Annabel left traces everywhere."""
    with guarded(tmp_path, POLICY) as made:
        traces(made)
        made.apply(NEWER)
        yield made


def traces(world: Guarded) -> None:
    """Good and bad annotations by two people, a dispute, a note, memories and a delivery that failed."""
    world.store.write(lambda conn: records.save_annotators(conn, PEOPLE))
    for number in range(1, 9):
        who, labels = (ANN, BEN)[number % 2], WRONG if number % 3 == 0 else ("spam",)
        body = created(annotation(number, *labels, task=1 + number // 2, by=who, created=at(number)))
        body["annotation"]["created_username"] = f" {NAME if who == ANN else 'Ben'}"
        world.take(body)
    world.take(updated(annotation(3, "refund", task=2, by=BEN, created=at(3), saved=at(20))))

    def more(conn: sa.Connection) -> None:
        mine = records.list_findings(conn, annotator=ANN)[0]["id"]
        records.set_finding_state(conn, mine, "disputed", by=f"annotator {ANN}", note="I, Annabel, disagree!", now=NOW)
        theirs = records.list_findings(conn, annotator=BEN)[0]["id"]
        evidence = {"peers": [ANN, 205], "by": {"101": {str(ANN): 3}}, "n": ANN, "labels": {str(ANN): 1}}
        conn.execute(
            sa.update(schema.findings)
            .where(schema.findings.c.id == theirs)
            .values(message=f"Unlike {NAME} and annotator {ANN}, not annotator {ANN}7.", evidence=evidence)
        )
        memory = {"entered": [BEN, ANN], "totals": {str(ANN): 2, str(BEN): 1}, "seen": ANN}
        for subject in (f"annotator:{ANN}", f"annotator:{ANN}:topics", f"annotator:{ANN}7", "task:2:topics"):
            values = {"project": PROJECT, "rule": "r", "subject": subject, "state": memory, "updated_at": NOW}
            conn.execute(sa.insert(schema.rule_states).values(values))
        conn.execute(sa.update(schema.inbox).where(schema.inbox.c.id == 2).values(state="failed", error="A reason."))

    world.store.write(more)


def everything(world: Guarded) -> dict[str, list[dict[str, Any]]]:
    """Every row of every table."""
    with world.store.read() as conn:
        return {
            table.name: [dict(row) for row in conn.execute(sa.select(table).order_by(*table.primary_key)).mappings()]
            for table in schema.metadata.sorted_tables
        }


def wipe(world: Guarded, who: str = str(ANN), **how: Any) -> Erased:
    """Erase somebody."""
    with world.store.read() as conn:
        person = find(conn, who)
    return erase(world.store, person, clock=world.clock, by="Ada", **how)


def test_nothing_names_them_any_more(world: Guarded) -> None:
    """Neither name nor address nor id, in any column of any table; what is not about them stays."""
    before = everything(world)
    done = wipe(world)
    after = everything(world)
    text = json.dumps(after, default=str)

    assert done.pseudonym == -1
    assert NAME not in text
    assert EMAIL not in text
    assert "Annabel" not in text
    for table, columns in {
        "annotations": ("completed_by", "updated_by"),
        "annotation_versions": ("editor",),
        "judgments": ("annotator",),
        "findings": ("annotator",),
        "actions": ("annotator",),
        "annotators": ("id",),
    }.items():
        for column in columns:
            found = Counter(row[column] for row in after[table])
            expected = Counter(-1 if row[column] == ANN else row[column] for row in before[table])
            assert found == expected, (table, column)
    assert [row["annotator"] for row in after["erasures"]] == [ANN]
    (theirs,) = (row for row in after["findings"] if row["message"].startswith("Unlike"))
    assert theirs["message"] == f"Unlike annotator -1 and annotator -1, not annotator {ANN}7."
    assert theirs["evidence"] == {
        "peers": [-1, 205],
        "by": {"101": {"-1": 3}},
        # A number that happens to be the same, and a label that is a number.
        "n": ANN,
        "labels": {str(ANN): 1},
    }
    memories = {row["subject"]: row["state"] for row in after["rule_states"] if row["rule"] == "r"}
    assert set(memories) == {"annotator:-1", "annotator:-1:topics", f"annotator:{ANN}7", "task:2:topics"}
    assert memories["task:2:topics"] == {"entered": [BEN, -1], "totals": {"-1": 2, str(BEN): 1}, "seen": ANN}


def test_statistics_about_labels_stay_right(world: Guarded) -> None:
    """Who said what, about what, when, with which first versions: the same but for one name."""
    columns = ("task", "annotation", "control", "value", "labels", "first", "at")
    before = everything(world)["judgments"]
    wipe(world)
    after = everything(world)["judgments"]

    assert [[row[name] for name in columns] for row in after] == [[row[name] for name in columns] for row in before]


def test_without_yes_nothing_is_changed_and_all_of_it_is_said(world: Guarded) -> None:
    """The dry run counts exactly what the real one does."""
    before = everything(world)
    told = wipe(world, dry_run=True)

    assert everything(world) == before
    assert wipe(world) == told
    assert told.annotations == 4
    assert told.judgments == 4
    assert told.words == 1
    assert told.deliveries == 4
    assert told.memories >= 4
    assert told.policies == 1
    assert told.stopped > 0


def test_their_words_and_deliveries_go(world: Guarded) -> None:
    """The digest stays, so that a redelivery brings nothing back; one that waited waits no more."""
    wipe(world)
    after = everything(world)
    theirs = [row for row in after["inbox"] if not row["body"]]

    assert len(theirs) == 4
    assert {row["state"] for row in theirs} == {"done", "ignored"}
    again = created(annotation(4, "spam", task=3, by=ANN, created=at(4)))
    again["annotation"]["created_username"] = f" {NAME}"
    assert world.take(again).duplicate
    assert [row["note"] for row in after["findings"] if row["annotator"] == -1 and row["note"]] == []


def test_actions_about_them_that_did_not_happen_yet_do_not(world: Guarded) -> None:
    """Those of others go on."""
    wipe(world)
    theirs, others = world.actions(annotator=-1), world.actions(annotator=BEN)

    assert {row["state"] for row in theirs} == {"rejected"}
    assert {row["error"] for row in theirs} == {"The annotator was erased."}
    assert "approved" in {row["state"] for row in others}
    assert world.actions(annotator=ANN) == []


def test_reconciling_and_the_list_of_users_bring_nobody_back(world: Guarded) -> None:
    """Label Studio still knows who made what; labelguard does not ask."""
    studio = FakeStudio()
    for number in range(1, 9):
        who, labels = (ANN, BEN)[number % 2], WRONG if number % 3 == 0 else ("spam",)
        if number != 3:
            studio.hold(created(annotation(number, *labels, task=1 + number // 2, by=who, created=at(number))))
    studio.hold(updated(annotation(3, "refund", task=2, by=BEN, created=at(3), saved=at(20))))
    wipe(world)
    before = everything(world)
    report = reconcile(world.store, world.engine, studio, PROJECT, clock=world.clock, full=True)
    world.store.write(lambda conn: records.save_annotators(conn, PEOPLE))
    after = everything(world)

    assert (report.new, report.changed, report.deleted) == (0, 0, 0)
    for table in ("annotations", "annotation_versions", "judgments", "findings", "annotators"):
        assert after[table] == before[table], table


def test_whoever_annotates_again_is_known_anew(world: Guarded) -> None:
    """From then on, and only from then on."""
    wipe(world)
    world.clock.move(minutes=60)
    world.take(created(annotation(50, *WRONG, task=50, by=ANN, created=world.clock())))
    world.store.write(lambda conn: records.save_annotators(conn, PEOPLE))
    after = everything(world)

    assert [row["id"] for row in after["annotators"] if row["name"] == NAME] == [ANN]
    assert [row["annotation"] for row in after["judgments"] if row["annotator"] == ANN] == [50]
    assert wipe(world).pseudonym == -2
    assert NAME not in json.dumps(everything(world), default=str)


@pytest.mark.parametrize("after", [1, 4, 9, 14])
def test_a_crash_in_the_middle_is_taken_up(world: Guarded, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Erasing again goes on where it stopped, under the same number."""
    writes: list[object] = []
    write = world.store.write

    def crash(job: Any) -> Any:
        writes.append(job)
        if len(writes) > after:
            raise KeyboardInterrupt
        return write(job)

    with monkeypatch.context() as patched:
        patched.setattr(world.store, "write", crash)
        patched.setattr(erasure, "_SPAN", 3)
        with pytest.raises(KeyboardInterrupt):
            wipe(world)
    assert wipe(world).pseudonym == -1
    found = everything(world)
    text = json.dumps(found, default=str)
    assert (NAME in text, EMAIL in text) == (False, False)
    assert {row["annotator"] for row in found["judgments"]} == {-1, BEN}
    assert [row["name"] for row in found["cursors"] if "erasing" in row["name"]] == []


def test_the_engine_goes_on_with_what_was_erased(world: Guarded) -> None:
    """A colleague's edit of an erased annotator's annotation, and actions, work as ever."""
    wipe(world)
    studio = FakeStudio()
    body = updated(annotation(2, "refund", task=2, by=ANN, created=at(2), saved=at(90), updated_by=BEN))
    studio.hold(body)
    world.clock.move(minutes=100)
    world.take(body)
    Outbox(world.store, world.engine, studio, FakeNotifier(), world.clock).deliver_due()

    assert [state for _, state in world.inbox()].count("failed") == 0


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command on the world's store; gives exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LABELGUARD_DATABASE_URL", database_url(tmp_path))

    def run_it(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = run_command(arguments)
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return run_it


def test_the_command_says_first_what_it_would_do(world: Guarded, run: Run) -> None:
    """By address, whatever its letters' case; then by id it does it."""
    code, out, err = run("erase", EMAIL.upper())
    assert code == 0
    assert out.startswith(f"Annotator {ANN} would become -1 in:\n")
    assert err.endswith("Nothing was changed; repeat the command with --yes.\n")

    code, out, err = run("erase", str(ANN), "--yes")
    assert (code, out.splitlines()[0]) == (0, f"Annotator {ANN} is -1 in:")
    assert "If they annotate again, they are known anew" in err
    code, _, err = run("erase", str(ANN), "--yes")
    assert code == 1
    assert err.startswith(f"Annotator {ANN} was erased on 20")
    assert run("erase", "nobody@example.com")[2] == "No annotator nobody@example.com is known.\n"


def test_a_policy_in_use_that_names_them_is_for_a_person_to_change(world: Guarded, run: Run) -> None:
    """Policies say who applied them; ours do not change under people's hands."""
    world.apply(POLICY)
    code, out, err = run("erase", EMAIL, "--yes", "--json")

    assert (code, json.loads(out)["named_in"]) == (0, [f"version 3 of project {PROJECT}'s policy"])
    assert err == ""
    with world.store.read() as conn:
        assert EMAIL in (records.get_policy(conn, PROJECT) or {})["text"]
        assert EMAIL not in (records.get_policy(conn, PROJECT, 1) or {})["text"]


def test_an_address_of_several_is_asked_about(world: Guarded, run: Run) -> None:
    """Nobody is erased by mistake."""
    twin = replace(PEOPLE[0], id=300)
    world.store.write(lambda conn: records.save_annotators(conn, [twin]))

    assert run("erase", EMAIL, "--yes") == (
        1,
        "",
        f"{EMAIL} is the address of several annotators ({ANN}, 300); name one by id.\n",
    )
