"""What the store asks of the database under it, and the one error that it raises."""

from __future__ import annotations

import json
import math
import re
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

    def wanted(self) -> bool:
        """Whether somebody waits for it, or has it by now."""
        ...


class Backend(Protocol):
    """One kind of database: how to reach it, how to lock it, and what its errors mean."""

    where: str
    """What messages call the store; never with a password."""
    reader: sa.Engine
    """Connections with one consistent snapshot, read only."""
    writer: sa.Engine
    """A connection whose transactions begin by taking the writer's lock."""

    def exists(self) -> bool:
        """Whether there is a store already."""
        ...

    def upgrading(self) -> AbstractContextManager[sa.Connection]:
        """A writing transaction for migrations, which may take long."""
        ...

    def opened(self) -> None:
        """Begin what goes on beside while the store is open."""
        ...

    def is_about_the_store(self, error: BaseException) -> bool:
        """Whether an error is about the database as a whole; the others are about the statement."""
        ...

    def turn(self) -> AbstractContextManager[None]:
        """Around one writing transaction: waits until it is this process' turn, where the database has no line."""
        ...

    def prepare(self, conn: sa.Connection, *, lazily: bool) -> None:
        """Before a writing transaction: whether its end waits for the disk, as it does unless told otherwise."""
        ...

    def exclusive(self, role: str, *, wait: bool) -> AbstractContextManager[Role | None]:
        """Hold a role; None where somebody else has it and ``wait`` is false."""
        ...

    def close(self) -> None:
        """Let go of everything."""
        ...


# PostgreSQL's text has no NUL, and UTF-8 no lone surrogates.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def storable_text(text: str) -> str:
    """Text that every database takes: what it cannot hold is U+FFFD, as in what deliveries bring."""
    return text if text.isascii() and "\0" not in text else _UNSTORABLE.sub("\ufffd", text)


def as_json(value: Any) -> str:
    """JSON as the store keeps it, the same on every database."""
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except ValueError:  # a number that JSON does not have
        text = ""
    if not text or "\\u0000" in text or _UNSTORABLE.search(text):
        text = json.dumps(_storable(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text


def _storable(value: Any) -> Any:
    if isinstance(value, str):
        return storable_text(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {_storable(key): _storable(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_storable(inner) for inner in value]
    return value
