"""What people get from the package index: the wheel and the source archive, built as they are released."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "labelguard",
    "labelguard_analytics",
    "labelguard_connectors",
    "labelguard_rules",
    "labelguard_templates",
}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both archives, the wheel made from the source archive as an installer would."""
    folder = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> set[str]:
    """The names of the wheel's files."""
    (file,) = built.glob("*.whl")
    return set(zipfile.ZipFile(file).namelist())


def test_the_wheel_has_five_packages_and_shadows_nobody_elses(wheel: set[str]) -> None:
    """Nothing is installed under a name that another distribution uses, such as ``rules``."""
    tops = {name.split("/")[0] for name in wheel}

    assert {top for top in tops if not top.endswith(".dist-info")} == PACKAGES


def test_the_wheel_has_every_file_of_the_source_that_is_not_code(wheel: set[str]) -> None:
    """Templates, the page's script, migrations and the demo's files come with the code that reads them."""
    sources = {
        path.relative_to(root).as_posix()
        for root in (ROOT / name for name in ("analytics", "plugin", "rules", "connectors", "templates"))
        for package in root.iterdir()
        if package.name in PACKAGES
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }

    assert sources - wheel == set()
    assert {
        "labelguard/manifest.json",
        "labelguard/py.typed",
        "labelguard/store/migrations/versions/0001_first_schema.py",
        "labelguard/demo/policy.yaml",
        "labelguard_templates/page/page.js",
        "labelguard_templates/feedback/en/default.txt",
        "labelguard_templates/status/status.html",
    } <= wheel


def test_the_source_archive_has_what_the_readme_promises(built: Path) -> None:
    """Whoever downloads the source can read the documentation, run the demo and the tests."""
    (file,) = built.glob("*.tar.gz")
    with tarfile.open(file) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}

    assert {
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
        "Makefile",
        "manifest.json",
        "requirements-dev.lock",
        "requirements-studio.lock",
        "scripts/setup.sh",
        "docs/README.md",
        "docs/getting-started.md",
        "tests/plugin/test_package.py",
    } <= names


def test_the_lock_files_name_exact_versions_and_no_package_index() -> None:
    """They work with whatever index pip is configured for, and hold nothing of the machine that made them."""
    for lock in ("requirements-dev.lock", "requirements-studio.lock"):
        lines = [line for line in (ROOT / lock).read_text("utf-8").splitlines() if not line.startswith("#")]
        assert lines
        for line in lines:
            name, equals, version = line.partition("==")
            assert name, f"{lock}: {line}"
            assert equals, f"{lock}: {line}"
            assert version, f"{lock}: {line}"
            assert "/" not in line, f"{lock}: {line}"
