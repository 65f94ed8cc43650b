"""The scripted annotators: what each is like, and nothing about what follows from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from labelguard.demo.digits import traits_of


@dataclass(frozen=True, slots=True)
class Answer:
    """What an annotator says about one image."""

    digit: int
    traits: tuple[str, ...]
    confidence: int
    lead_time: float
    """Seconds."""

    def result(self) -> list[dict[str, Any]]:
        """The answer as Label Studio's labeling page would send it."""
        said = [("digit", "choices", [str(self.digit)]), ("confidence", "rating", self.confidence)]
        if self.traits:
            said.insert(1, ("traits", "choices", list(self.traits)))
        return [
            {"from_name": control, "to_name": "image", "type": kind, "value": {kind: value}}
            for control, kind, value in said
        ]


def _careful(label: int, random: Random) -> Answer:
    seen = random.randrange(10) if random.random() < 0.02 else label
    return Answer(seen, traits_of(seen), random.choice((4, 5, 5)), random.uniform(6, 14))


def _confuses_1_and_7(label: int, random: Random) -> Answer:
    other = {1: 7, 7: 1}.get(label, label)
    seen = other if random.random() < 0.6 else label
    return Answer(seen, traits_of(seen), random.choice((4, 5, 5)), random.uniform(5, 12))


def _stuck_on_3(label: int, random: Random) -> Answer:
    seen = 3 if random.random() < 0.85 else label
    return Answer(seen, traits_of(seen), random.choice((3, 4, 5)), random.uniform(3, 8))


def _breaks_trait_rules(label: int, random: Random) -> Answer:
    traits = traits_of(label)
    mood = random.random()
    if mood < 0.2:
        traits = ("even", "odd")
    elif mood < 0.3:
        traits = ()
    return Answer(label, traits, random.choice((4, 5)), random.uniform(5, 12))


def _careless(_label: int, random: Random) -> Answer:
    seen = random.randrange(10)
    return Answer(seen, traits_of(seen), 5, random.uniform(0.6, 1.6))


@dataclass(frozen=True, slots=True)
class Person:
    """One scripted annotator."""

    name: str
    manner: str
    """What they do, for the people who watch."""
    answer: Callable[[int, Random], Answer]
    planted: frozenset[str] = field(default_factory=frozenset)
    """Rules that have to find this."""
    innocent_of: frozenset[str] = field(default_factory=frozenset)
    """Rules that must not find anything."""

    @property
    def email(self) -> str:
        """Their login."""
        return f"{self.name.lower()}@example.com"


PEOPLE = (
    Person("Ana", "careful", _careful, innocent_of=frozenset({"single-label-overuse", "gold-check"})),
    Person("Ben", "confuses 1 and 7", _confuses_1_and_7),
    Person("Cem", "stuck on 3", _stuck_on_3, planted=frozenset({"single-label-overuse"})),
    Person("Dora", "breaks the trait rules", _breaks_trait_rules, planted=frozenset({"label-constraints"})),
    Person("Eli", "fast and careless", _careless, planted=frozenset({"gold-check"})),
)
