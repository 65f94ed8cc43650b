"""A short run of what ``make fuzz`` does at length: hostile requests at every door of the whole service."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from databases import database_url
from fuzzing import Case, fuzz, make_case, world
from labelguard.judgments import Judgment

SEED = 20261124
CASES = 2000


def test_hostile_requests_get_an_answer_and_nothing_grows(tmp_path: Path) -> None:
    """No answer of 5xx, no error in the log, no delivery that could not be judged, short lines, bounded memory."""
    with world(database_url(tmp_path), at_once=True) as made:
        totals = fuzz(made, SEED, range(CASES))
    assert [(problem["number"], problem["wrong"]) for problem in totals.problems] == []
    assert totals.cases == CASES
    assert totals.deliveries["failed"] == 0
    assert totals.log_per_case < 600
    assert totals.longest_line < 20_000
    assert totals.largest_jump < 64 * 1024 * 1024
    # The requests get through to what they are about.
    assert totals.deliveries["done"] > 100
    assert totals.findings > 10
    answered = {status.rpartition(" ")[2] for status in totals.statuses}
    assert {"200", "303", "400", "401", "403", "404", "405", "409"} <= answered


def test_hostile_requests_through_the_writers_own_thread(tmp_path: Path) -> None:
    """As in the service, with every write waiting for its commit."""
    with world(database_url(tmp_path)) as made:
        totals = fuzz(made, SEED + 1, range(300))
    assert [(problem["number"], problem["wrong"]) for problem in totals.problems] == []


@pytest.mark.store("sqlite")
def test_a_defect_is_found_and_can_be_sent_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a planted defect the run fails and keeps the request, which shows it once more."""

    def broken(self: Judgment) -> Any:
        raise ZeroDivisionError("planted")

    with world(database_url(tmp_path, "one"), at_once=True) as made:
        monkeypatch.setattr(Judgment, "value_json", broken)
        totals = fuzz(made, SEED, range(300))
        (problem,) = totals.problems
        assert "planted" in problem["wrong"]
    found = json.loads(json.dumps(problem))
    with world(database_url(tmp_path, "two"), at_once=True) as made:
        assert "planted" in made.run(Case.load(found["case"]))[1]
        monkeypatch.undo()
        assert made.run(Case.load(found["case"]))[1] == ""


def test_the_same_seed_makes_the_same_requests() -> None:
    """What failed elsewhere fails here."""
    assert [make_case(7, n) for n in range(200)] == [make_case(7, n) for n in range(200)]
    assert make_case(7, 1) != make_case(8, 1)
    assert Case.load(json.loads(json.dumps(make_case(7, 3).dump()))) == make_case(7, 3)
