"""A state as JSON text, for everything that watches a stream and goes on after a restart."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Self


class Resumable(ABC):
    """What can be kept as plain JSON values and goes on exactly where it stopped."""

    @abstractmethod
    def to_state(self) -> dict[str, Any]:
        """Everything as plain JSON values; :meth:`from_state` goes on exactly where this stopped."""

    @classmethod
    @abstractmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """What :meth:`to_state` described.

        Raises:
            ValueError: the state is of something else.
        """

    def to_json(self) -> str:
        """The state as JSON text."""
        return json.dumps(self.to_state())

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What :meth:`to_json` described."""
        return cls.from_state(json.loads(text))
