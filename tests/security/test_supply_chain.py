"""Threat: something comes in with a dependency that nobody looked at.

Every version is pinned, everything needed at run time has a licence that allows its use, what a release is made
of is written down the same way each time, and a service that cannot be asked is not taken for a clean bill.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCKS = ["requirements-dev.lock", "requirements-studio.lock"]


def script(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """One of the scripts, imported."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


def pins(lock: str) -> dict[str, str]:
    """The versions of a lock."""
    lines = [line.partition(";")[0].strip() for line in (ROOT / lock).read_text("utf-8").splitlines()]
    return {canonicalize_name(name): pin for name, _, pin in (line.partition("==") for line in lines) if pin}


@pytest.mark.parametrize("lock", LOCKS)
def test_every_version_is_pinned_and_comes_from_no_address(lock: str) -> None:
    """No range, no link, no file, no index of its own: nothing is chosen at the time of installing."""
    for line in (ROOT / lock).read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!+_-]+( *; .+)?", line), line


def test_everything_needed_at_run_time_is_in_the_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is installed is what was locked, so that what is tested is what is described."""
    locked = pins("requirements-dev.lock")
    needed = script("sbom", monkeypatch).at_run_time()
    assert len(needed) > 30
    for name, found in needed.items():
        if name != "labelguard":
            assert locked.get(name) == found.version, name


def test_nothing_at_run_time_has_a_licence_that_binds_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """The packages that statistics are compared with may be under the GPL, for they stay in the tests."""
    audit = script("audit", monkeypatch)
    assert audit.forbidden_licences() == []
    needed = script("sbom", monkeypatch).at_run_time()
    assert not {"krippendorff", "psycopg", "pytest", "mypy"} & set(needed)


def test_a_licence_that_is_not_on_the_list_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of several is enough."""
    audit = script("audit", monkeypatch)
    monkeypatch.setattr(audit, "licence", lambda _found: "MIT AND GPL-3.0-only")
    assert any("labelguard" in line for line in audit.forbidden_licences())


def test_the_bill_of_materials_is_valid_and_the_same_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """CycloneDX's own schema, no time and no random number in it, and the run-time packages only."""
    texts = []
    for _ in range(2):
        subprocess.run([sys.executable, "scripts/sbom.py"], cwd=ROOT, check=True, capture_output=True)
        texts.append((ROOT / "build" / "sbom.cdx.json").read_text("utf-8"))
    assert texts[0] == texts[1]
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(texts[0]) is None
    document: dict[str, Any] = json.loads(texts[0])
    assert document["metadata"]["component"]["version"] == version("labelguard")
    names = {component["name"] for component in document["components"]}
    assert {"flask", "waitress", "sqlalchemy", "label-studio-sdk"} <= names
    assert not {"pytest", "mypy", "krippendorff"} & names
    assert all(component["licenses"] for component in document["components"])
    assert str(ROOT) not in texts[0]


def test_an_audit_tells_found_none_and_not_asked_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that knows nothing, or does not answer, has not said that all is well."""
    audit = script("audit", monkeypatch)
    weak = {"name": "a", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}
    fine = {"name": "b", "version": "1", "vulns": []}
    unknown = {"name": "c", "skip_reason": "not found"}
    assert audit.read({"dependencies": [weak, fine]}).found == ("a 1: CVE-1, fixed in 2",)
    assert audit.read({"dependencies": [fine, unknown]}) == audit.Verdict((), ("c",), 1)
    monkeypatch.setattr(sys, "argv", ["audit.py"])
    answers: dict[str, Any] = {
        "could not be asked": (None, 0),
        "1 weaknesses known": (audit.Verdict(("a 1: CVE-1",), (), 2), 1),
        "0 weaknesses known": (audit.Verdict((), ("c",), 1), 0),
    }
    for sentence, (verdict, status) in answers.items():
        monkeypatch.setattr(audit, "ask", lambda _lock, verdict=verdict: verdict)
        said: list[str] = []
        monkeypatch.setattr(sys.stdout, "write", said.append)
        assert audit.main() == status
        monkeypatch.undo()
        audit = script("audit", monkeypatch)
        assert sentence in "".join(said)
