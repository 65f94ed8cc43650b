"""What the demo shows: a table while people work, and in the end what was found about whom."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table
from rich.text import Text

from labelguard.demo.people import Person


@dataclass(slots=True)
class Standing:
    """What is known about one annotator."""

    person: Person
    id: int
    submitted: int = 0
    findings: list[Mapping[str, Any]] = field(default_factory=list)
    actions: list[Mapping[str, Any]] = field(default_factory=list)

    def by_rule(self) -> dict[str, int]:
        """How many findings each rule made."""
        return dict(sorted(Counter(finding["rule"] for finding in self.findings).items()))

    def by_kind(self) -> dict[str, int]:
        """How many actions there are of each kind and state."""
        return dict(sorted(Counter(f"{action['kind']} {action['state']}" for action in self.actions).items()))

    def link(self, studio: str, project: int) -> str:
        """Where the newest finding's annotation is in Label Studio; empty where there is none."""
        about = [f for f in self.findings if f["task"] and f["annotation"]]
        if not about:
            return ""
        newest = max(about, key=lambda f: f["id"])
        return f"{studio}/projects/{project}/data?task={newest['task']}&annotation={newest['annotation']}"

    def wrong(self) -> list[str]:
        """What was not found though it was planted, or found though nothing was wrong: sentences."""
        found = set(self.by_rule())
        missed = [
            f"{rule} found nothing about {self.person.name}, who {_does(self.person)}."
            for rule in sorted(self.person.planted - found)
        ]
        accused = [
            f"{rule} has a finding about {self.person.name}, who {_does(self.person)}."
            for rule in sorted(self.person.innocent_of & found)
        ]
        return missed + accused


def _does(person: Person) -> str:
    manner = person.manner
    return manner if manner.split()[0].endswith("s") else f"is {manner}"


def spread(
    standings: Sequence[Standing], findings: Iterable[Mapping[str, Any]], actions: Iterable[Mapping[str, Any]]
) -> None:
    """Give everybody the findings and the actions that are about them."""
    of = {standing.id: standing for standing in standings}
    for standing in standings:
        standing.findings, standing.actions = [], []
    about: dict[int, Standing] = {}
    for finding in findings:
        if finding["annotator"] in of:
            about[finding["id"]] = of[finding["annotator"]]
            about[finding["id"]].findings.append(finding)
    for action in actions:
        if action["finding"] in about:
            about[action["finding"]].actions.append(action)


def table(standings: Sequence[Standing], studio: str, project: int) -> Table:
    """Everybody with what was found about them."""
    shown = Table(title="labelguard on a real Label Studio", title_justify="left", expand=False)
    shown.add_column("annotator")
    shown.add_column("script")
    shown.add_column("submitted", justify="right")
    shown.add_column("findings")
    shown.add_column("actions")
    shown.add_column("newest in Label Studio", overflow="fold")
    for standing in standings:
        shown.add_row(
            Text(standing.person.name),
            Text(standing.person.manner),
            str(standing.submitted),
            _lines(standing.by_rule()),
            _lines(standing.by_kind()),
            _link(standing.link(studio, project)),
        )
    return shown


def _link(address: str) -> Text:
    # A terminal that knows links follows the whole address, though it is folded.
    return Text(address, style=f"link {address}" if address else "")


def _lines(counts: Mapping[str, int]) -> Text:
    return Text("\n".join(f"{name} × {count}" for name, count in counts.items()) or "none")


def summary(standings: Sequence[Standing], studio: str, project: int, seconds: float) -> dict[str, Any]:
    """The demo's outcome for programs."""
    return {
        "project": project,
        "seconds": round(seconds, 1),
        "annotators": [
            {
                "name": each.person.name,
                "id": each.id,
                "script": each.person.manner,
                "submitted": each.submitted,
                "findings": each.by_rule(),
                "actions": each.by_kind(),
                "link": each.link(studio, project),
            }
            for each in standings
        ],
        "wrong": [sentence for each in standings for sentence in each.wrong()],
    }
