"""Write ``build/sbom.cdx.json``: what labelguard is made of at run time, as CycloneDX (https://cyclonedx.org).

Run by ``make sbom``. It lists what is installed of labelguard's own requirements and of what those require in
turn, without extras and without what only tests and linters need. The same packages give the same bytes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "build" / "sbom.cdx.json"

# Distributions whose metadata is silent, by what stands in their repositories.
_SAID_ELSEWHERE = {"label-studio-sdk": "Apache-2.0"}


def at_run_time(root: str = "labelguard", extras: Iterable[str] = ()) -> dict[str, Distribution]:
    """Every distribution that an installed one needs to run, itself included, by canonical name.

    Raises:
        PackageNotFoundError: one of them is not installed.
    """
    found: dict[str, Distribution] = {}
    waiting = [(root, frozenset(extras))]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        name, chosen = waiting.pop()
        key = (canonicalize_name(name), chosen)
        if key in seen:
            continue
        seen.add(key)
        found[key[0]] = distribution(name)
        waiting += [(needed.name, frozenset(needed.extras)) for needed in _needs(found[key[0]], chosen)]
    return dict(sorted(found.items()))


def licence(found: Distribution) -> str:
    """What a distribution says its licence is: an SPDX expression where it has one, else its own words."""
    about = found.metadata
    if expression := about.get("License-Expression"):
        return str(expression)
    names = [each.split(" :: ")[-1] for each in about.get_all("Classifier") or [] if each.startswith("License ::")]
    if names and names != ["OSI Approved"]:
        return " AND ".join(sorted(names))
    text = str(about.get("License") or "").strip()
    return text.splitlines()[0] if text else _SAID_ELSEWHERE.get(canonicalize_name(str(about["Name"])), "unknown")


def bom() -> Bom:
    """The bill of materials of what is installed."""
    needed = at_run_time()
    licences = LicenseFactory()
    made = {
        name: Component(
            name=name,
            version=found.version,
            type=ComponentType.APPLICATION if name == "labelguard" else ComponentType.LIBRARY,
            purl=PackageURL("pypi", None, name, found.version),
            bom_ref=f"{name}=={found.version}",
            licenses=[licences.make_from_string(licence(found))],
        )
        for name, found in needed.items()
    }
    bill = Bom(serial_number=None)
    # Neither a number nor a time: two bills of the same packages are equal.
    bill.metadata.timestamp = None  # type: ignore[assignment]
    bill.metadata.component = made["labelguard"]
    for name, component in made.items():
        if name != "labelguard":
            bill.components.add(component)
        requires = {canonicalize_name(each.name) for each in _needs(needed[name], frozenset())}
        bill.register_dependency(component, [made[each] for each in sorted(requires & set(made))])
    return bill


def main() -> int:
    """Write the file and say how much is in it."""
    try:
        bill = bom()
    except PackageNotFoundError as error:
        sys.stderr.write(f"{error.name} is not installed, so what it is made of cannot be told: run `make dev`.\n")
        return 1
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(written(bill), "utf-8")
    sys.stdout.write(f"{OUT.relative_to(ROOT)}: {len(bill.components)} packages at run time\n")
    return 0


def written(bill: Bom) -> str:
    """A bill of materials as JSON text."""
    document = json.loads(JsonV1Dot6(bill).output_as_string())
    document.pop("serialNumber", None)
    document["metadata"].pop("timestamp", None)
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


def _needs(found: Distribution, extras: frozenset[str]) -> list[Requirement]:
    requirements = [Requirement(text) for text in found.requires or []]
    return [
        each
        for each in requirements
        if each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in ("", *extras))
    ]


if __name__ == "__main__":
    sys.exit(main())
