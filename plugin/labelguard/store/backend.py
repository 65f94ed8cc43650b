"""What the store asks of the database under it, and the one error that it raises."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from typing import Any, Protocol

import sqlalchemy as sa


class StoreError(Exception):
    """The store cannot be used; the message says why and what to do."""


class Role(Protocol):
    """A role while it is held."""

    def held(self) -> bool:
        """Whether it is held still: a database may let go of it when the connection breaks."""
        ...


class Backend(Protocol):
    """One kind of database: how to reach it, how to lock it, and what its errors mean."""

    where: str
    """What messages call the store; never with a password."""
    reader: sa.Engine
    """Connections with one consistent snapshot, read only."""
    writer: sa.Engine
    """A connection whose transactions begin by taking the writer's lock."""

    def upgrading(self) -> AbstractContextManager[sa.Connection]:
        """A writing transaction for migrations, which may take long."""
        ...

    def is_about_the_store(self, error: BaseException) -> bool:
        """Whether an error is about the database as a whole; the others are about the statement."""
        ...

    def exclusive(self, role: str, *, wait: bool) -> AbstractContextManager[Role | None]:
        """Hold a role; None where somebody else has it and ``wait`` is false."""
        ...

    def close(self) -> None:
        """Let go of everything."""
        ...


def as_json(value: Any) -> str:
    """JSON as the store keeps it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
