"""What people read about labelguard is true: links lead somewhere, examples work, names exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from labelguard.cli.docs import cli_markdown
from labelguard.policy import load_policy
from labelguard.settings import Settings

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
FOR_TESTS = {"STUDIO_PYTHON", "CHROMIUM", "CROWD_DATA", "SCREENSHOTS", "NO_SKIP"}
"""Variables of the tests and the Makefile, which the service does not read."""

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


def names_in(file: Path) -> set[str]:
    """The names of a file's tests."""
    return set(re.findall(r"^def (test_\w+)\(", file.read_text("utf-8"), re.MULTILINE))


@every_page
def test_tests_named_in_the_documentation_exist(page: Path) -> None:
    """A promise names the test that holds it, as `tests/folder/test_file.py::test_name`; `…` ends a long name."""
    for path, name, cut in re.findall(r"`(tests/[\w/]+\.py)(?:::(test_\w+)(…?))?`", page.read_text("utf-8")):
        assert (ROOT / path).is_file(), path
        if name:
            known = names_in(ROOT / path)
            assert name in known or (cut and any(each.startswith(name) for each in known)), f"{path}::{name}"


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", _without_blocks(page.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@every_page
def test_links_lead_to_pages_and_headings_that_exist(page: Path) -> None:
    """Every relative link and picture of a page is there, and so is the heading it names."""
    for target in re.findall(r"\]\(([^)\s]+)\)", _without_blocks(page.read_text("utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file), target


@every_page
def test_policies_in_the_documentation_are_valid(page: Path) -> None:
    """Whoever copies an example gets a policy that can be applied."""
    for block in _blocks(page.read_text("utf-8"), "yaml"):
        if "rules:" in block:
            assert load_policy(block, page.name).rules


@every_page
def test_variables_named_in_the_documentation_exist(page: Path) -> None:
    """A setting that was renamed or dropped is not recommended any longer."""
    known = {name.upper() for name in Settings.model_fields} | FOR_TESTS | {"CONFIG"}
    for name in re.findall(r"\bLABELGUARD_([A-Z_]+[A-Z])\b", page.read_text("utf-8")):
        plain = name.removesuffix("_FILE")
        assert name in known or plain in known or plain.startswith("NOTIFY_"), name


@every_page
def test_commands_named_in_the_documentation_exist(page: Path) -> None:
    """Every `labelguard ...` in a page is a command, with the options it is shown with."""
    described = cli_markdown()
    commands = set(re.findall(r"^## `labelguard ([^`]+)`$", described, re.MULTILINE))
    groups = {command.split()[0] for command in commands}
    options = set(re.findall(r"(?<![\w-])--[a-z-]+", described)) | {"--help"}
    text = page.read_text("utf-8")
    shown = [line for block in _blocks(text, "sh") for line in block.splitlines()]
    shown += re.findall(r"`([^`\n]+)`", _without_blocks(text))
    for line in shown:
        found = re.match(r"(?:\$ )?labelguard ((?:[a-z]+ ?){1,2})(.*)", line.partition("#")[0].strip())
        if not found:
            continue
        words = found.group(1).split()
        assert " ".join(words) in commands or words[0] in commands | groups, line
        # What stands after -- is passed on to Label Studio.
        for option in re.findall(r"(?<![\w-])--[a-z-]+", found.group(2).partition(" -- ")[0]):
            assert option in options, line


def _blocks(text: str, language: str) -> list[str]:
    indented = re.findall(rf"^( *)```{language}\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    return [re.sub(rf"^{indent}", "", block, flags=re.MULTILINE) for indent, block in indented]


def _without_blocks(text: str) -> str:
    return re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL)
