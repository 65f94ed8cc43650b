"""Which rules and connectors are installed: found through entry points, the built-in ones included.

A distribution offers rules with an entry point in the group ``labelguard.rules`` and connectors in
``labelguard.connectors``; each names a tuple of classes. See
https://packaging.python.org/en/latest/specifications/entry-points/.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from labelguard.rules import Guardrail, Sweep

RULES = "labelguard.rules"
CONNECTORS = "labelguard.connectors"

log = logging.getLogger(__name__)


class BrokenRegistry(Exception):
    """The installed bundles contradict each other; the message names both and says what to do."""


@dataclass(frozen=True, slots=True)
class BrokenBundle:
    """An entry point that could not be used; the others are."""

    group: str
    name: str
    distribution: str
    """Name and version of the distribution it came with."""
    reason: str

    def __str__(self) -> str:
        return f"{self.distribution} offers {self.group} as {self.name!r}, which cannot be used: {self.reason}"


@dataclass(frozen=True, slots=True)
class _Found:
    classes: dict[str, type]
    owners: dict[str, str]
    broken: tuple[BrokenBundle, ...]


class _Unusable(Exception):
    """Why one bundle cannot be used, as a clause."""


def load_rules() -> dict[str, type[Guardrail] | type[Sweep]]:
    """Every installed rule by its name.

    Raises:
        BrokenRegistry: two distributions offer a rule of the same name.
    """
    return dict(_load(RULES).classes)


def load_connectors() -> dict[str, type]:
    """Every installed connector by its name; the built-in ones are ``studio`` and ``notify``.

    Raises:
        BrokenRegistry: two distributions offer a connector of the same name.
    """
    return dict(_load(CONNECTORS).classes)


def broken_bundles() -> tuple[BrokenBundle, ...]:
    """The bundles of rules and connectors that could not be used, with the reason of each."""
    return _load(RULES).broken + _load(CONNECTORS).broken


def origin_of(rule: str) -> str:
    """Name and version of the distribution that offers a rule; raises KeyError for an unknown rule."""
    return _load(RULES).owners[rule]


def forget() -> None:
    """Forget what was found, so that the next question looks at what is installed then."""
    _load.cache_clear()


@cache
def _load(group: str) -> _Found:
    classes: dict[str, type] = {}
    owners: dict[str, str] = {}
    broken: list[BrokenBundle] = []
    for point in sorted(entry_points(group=group), key=lambda p: (_distribution(p), p.name)):
        owner = _distribution(point)
        try:
            bundle = _classes(point, group)
        except _Unusable as error:
            broken.append(BrokenBundle(group, point.name, owner, str(error)))
            log.warning("%s", broken[-1])
            continue
        for cls in bundle:
            name: str = cls.name
            if name in classes:
                kind = "rule" if group == RULES else "connector"
                raise BrokenRegistry(
                    f"The {kind} {name!r} is offered by both {owners[name]} and {owner}. "
                    "Uninstall one of them, or ask its author to choose another name."
                )
            classes[name] = cls
            owners[name] = owner
    return _Found(classes, owners, tuple(broken))


def _distribution(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.value


def _classes(point: EntryPoint, group: str) -> Iterable[Any]:
    try:
        bundle = point.load()  # somebody else's code: importing it may raise anything
    except Exception as error:
        raise _Unusable(f"importing {point.module} raised {type(error).__name__}: {error}") from error
    if not isinstance(bundle, (tuple, list)):
        raise _Unusable(f"{point.value} is a {type(bundle).__name__}, and must be a tuple of classes")
    for cls in bundle:
        _check(cls, point, group)
    return bundle


def _check(cls: Any, point: EntryPoint, group: str) -> None:
    if not isinstance(cls, type):
        raise _Unusable(f"{point.value} contains {cls!r}, which is not a class")
    if not isinstance(getattr(cls, "name", None), str):
        raise _Unusable(f'{cls.__qualname__} has no name; give it name = "..."')
    if group != RULES:
        return
    if not issubclass(cls, (Guardrail, Sweep)):
        raise _Unusable(f"{cls.__qualname__} is neither a Guardrail nor a Sweep")
    # Without the decorator the options declared on the class would silently not exist.
    if "__dataclass_params__" not in vars(cls):
        raise _Unusable(f"{cls.__qualname__} is not a dataclass; put @dataclass(frozen=True) above it")
