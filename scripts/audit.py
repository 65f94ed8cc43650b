"""Ask whether anything that is locked has a known weakness, and whether its licence is one we may use.

Run by ``make audit``. Three answers: something was found (1), nothing was found (0), or the service that knows
of weaknesses could not be asked (0 with a plain sentence, or 2 with ``--strict``): silence is no clean bill.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sbom import at_run_time, licence

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ("requirements-dev.lock",)
PATIENCE = 300

PERMISSIVE = (
    "0BSD",
    "APACHE",
    "BSD",
    "CC0",
    "CNRI-PYTHON",
    "HPND",
    "ISC",
    "MIT",
    "MOZILLA PUBLIC LICENSE 2.0",
    "MPL-2.0",
    "PSF",
    "PYTHON-2.0",
    "PYTHON SOFTWARE FOUNDATION",
    "PUBLIC DOMAIN",
    "TCL",
    "UNLICENSE",
    "ZLIB",
    "ZOPE PUBLIC LICENSE",
)
"""Beginnings of licences that ask for no more than to be named, or for changes to themselves."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the service of known weaknesses said."""

    found: tuple[str, ...] = ()
    """A line for each weakness."""
    unknown: tuple[str, ...] = ()
    """Packages that it did not know or could not be asked about."""
    asked: int = 0


def read(report: dict[str, Any]) -> Verdict:
    """Read the JSON of ``pip-audit``."""
    found, unknown = [], []
    packages = report.get("dependencies", [])
    for package in packages:
        if "skip_reason" in package:
            unknown.append(package["name"])
        for weakness in package.get("vulns", []):
            fixed = ", ".join(weakness.get("fix_versions", [])) or "no version yet"
            found.append(f"{package['name']} {package['version']}: {weakness['id']}, fixed in {fixed}")
    return Verdict(tuple(found), tuple(unknown), len(packages) - len(unknown))


def ask(lock: Path) -> Verdict | None:
    """Ask about everything in a lock; None where the service did not answer."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(lock), "--no-deps", "--disable-pip"]
    try:
        done = subprocess.run(
            [*command, "--format", "json", "--progress-spinner", "off"],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        verdict = read(json.loads(done.stdout))
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    return verdict if verdict.asked else None


def forbidden_licences() -> list[str]:
    """What is needed at run time under a licence that is not on the list."""
    wrong = []
    for name, found in at_run_time().items():
        parts = licence(found).replace("(", "").replace(")", "").upper().replace(" OR ", " AND ").split(" AND ")
        if not all(part.strip().removeprefix("THE ").startswith(PERMISSIVE) for part in parts):
            wrong.append(f"{name} {found.version}: {licence(found)}")
    return wrong


def main() -> int:
    """Say what was found; returns the exit status."""
    status = 0
    for line in forbidden_licences():
        sys.stdout.write(f"A licence that is not on the list: {line}\n")
        status = 1
    for lock in LOCKS:
        verdict = ask(ROOT / lock)
        if verdict is None:
            sys.stdout.write(f"{lock}: the service of known weaknesses could not be asked. Nothing is known.\n")
            status = status or (2 if "--strict" in sys.argv else 0)
            continue
        sys.stdout.write(f"{lock}: {verdict.asked} packages asked about, {len(verdict.found)} weaknesses known.\n")
        for line in verdict.found:
            sys.stdout.write(f"  {line}\n")
            status = 1
        if verdict.unknown:
            sys.stdout.write(f"  Not known there: {', '.join(verdict.unknown)}.\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
