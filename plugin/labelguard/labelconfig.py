"""Label Studio's labeling configuration (XML), read for what rules and policies need."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Control:
    """One control tag."""

    name: str
    tag: str
    """The tag's name as written, such as ``Choices`` or ``RectangleLabels``."""
    to_name: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    """The labels it offers, in order; for a Taxonomy full paths joined by `` / ``."""
    multiple: bool = False
    """Whether several labels may be chosen at once."""
    per_region: bool = False
    required: bool = False


@dataclass(frozen=True, slots=True)
class LabelConfig:
    """The controls of one labeling configuration."""

    controls: tuple[Control, ...] = ()
    problem: str = ""
    """Why the configuration could not be read, as a sentence; empty when it could."""

    def control(self, name: str) -> Control | None:
        """The control of that name, or None."""
        raise NotImplementedError

    @classmethod
    def parse(cls, xml: str) -> LabelConfig:
        """Read a configuration; never raises and never resolves XML entities (see ``problem``)."""
        raise NotImplementedError
