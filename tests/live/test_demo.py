"""The demo, from an empty folder to its end, on a Label Studio of its own."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from labelguard.demo import run
from labelguard.demo.digits import digits, traits_of
from live import studio_python

pytestmark = pytest.mark.slow


def test_the_demo_finds_what_its_annotators_do_wrong_and_nothing_about_the_careful_one(tmp_path: Path) -> None:
    """Each planted behaviour has a finding about the right person, through nothing but public doors."""
    python = studio_python()
    if python is None:
        pytest.skip("there is no Label Studio here: set LABELGUARD_STUDIO_PYTHON or run `make test`")
    said = io.StringIO()

    status = run(True, studio_python=python, folder=tmp_path / "demo", console=Console(file=said, width=200))

    assert status == 0, said.getvalue()
    outcome = json.loads((tmp_path / "demo" / "summary.json").read_text("utf-8"))
    assert outcome["wrong"] == []
    people = {person["name"]: person for person in outcome["annotators"]}
    assert {name: person["submitted"] for name, person in people.items()} == dict.fromkeys(people, 60)
    assert people["Ana"]["findings"].keys() <= {"label-constraints"}
    assert people["Cem"]["findings"]["single-label-overuse"] >= 1
    assert people["Dora"]["findings"]["label-constraints"] >= 5
    assert people["Dora"]["actions"]["rework approved"] >= 5
    assert people["Eli"]["findings"]["gold-check"] >= 1
    assert people["Eli"]["actions"]["replace done"] >= 1
    assert "Everything planted was found" in said.getvalue()


def test_the_demo_leaves_a_folder_alone_that_is_not_its_own(tmp_path: Path) -> None:
    """A folder with somebody's files in it is refused with a sentence, and nothing is deleted."""
    mine = tmp_path / "thesis.txt"
    mine.write_text("years of work", "utf-8")
    said = io.StringIO()

    status = run(True, folder=tmp_path, console=Console(file=said, width=1000))

    assert status == 1
    assert said.getvalue() == f"{tmp_path} is not a folder of the demo's; move it away or choose another.\n"
    assert mine.read_text("utf-8") == "years of work"


def test_the_demo_says_how_to_install_label_studio_where_there_is_none(tmp_path: Path) -> None:
    """A missing interpreter is a sentence with the command that installs it."""
    said = io.StringIO()
    missing = tmp_path / "nowhere" / "python"

    status = run(True, studio_python=missing, folder=tmp_path / "demo", console=Console(file=said, width=1000))

    assert status == 1
    assert said.getvalue() == (
        f"There is no Python at {missing}. `make demo` installs Label Studio; by hand: "
        "python -m venv .venv-studio; .venv-studio/bin/pip install label-studio\n"
    )


def test_every_image_is_another_real_digit_that_a_browser_can_show() -> None:
    """Images are PNG addresses with nothing beside them, and every digit occurs."""
    from random import Random

    found = digits(200, Random(1))

    assert len({digit.image for digit in found}) == len({digit.number for digit in found}) == 200
    assert {digit.label for digit in found} == set(range(10))
    assert all(digit.image.startswith("data:image/png;base64,iVBORw0KGgo") for digit in found)
    assert traits_of(8) == ("even", "loop")
    assert traits_of(7) == ("odd",)
