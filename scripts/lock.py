"""Write ``requirements-dev.lock``: one version of everything the tests and linters need.

Run by ``make lock`` with pip-tools installed. The lock names no package index and no file on a disk, so that
it works with whatever index pip is configured for.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements-dev.lock"
HEADER = "# Written by `make lock` for Python 3.11 and newer; do not edit.\n"


def requirements(pyproject: dict[str, Any], group: str) -> list[str]:
    """The project's own dependencies and those of a dependency group with the groups it includes."""

    def of(name: str) -> list[str]:
        found: list[str] = []
        for item in pyproject["dependency-groups"][name]:
            found += of(item["include-group"]) if isinstance(item, dict) else [item]
        return found

    return [*pyproject["project"]["dependencies"], *of(group)]


def main() -> int:
    """Resolve and write the lock; versions already in it are kept where they still fit."""
    wanted = requirements(tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8")), "dev")
    options = ["--no-header", "--no-emit-options", "--no-emit-index-url", "--no-emit-find-links"]
    options += ["--no-emit-trusted-host", "--strip-extras", "--allow-unsafe", "--no-annotate", "--quiet"]
    command = [sys.executable, "-m", "piptools", "compile", *options, *sys.argv[1:], "-o", LOCK.name, "-"]
    status = subprocess.run(command, input="\n".join(wanted), text=True, cwd=ROOT, check=False).returncode
    if status == 0:
        lines = LOCK.read_text("utf-8").splitlines(keepends=True)
        kept = [line for line in lines if line.strip() and not line.startswith("#")]
        LOCK.write_text(HEADER + "".join(kept), "utf-8")
    return status


if __name__ == "__main__":
    sys.exit(main())
