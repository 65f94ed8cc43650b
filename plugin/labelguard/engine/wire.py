"""What the web's process and the engine's say to each other, over sockets between the two.

A **request** is a head (:data:`HEAD`: what is wanted, the project, the salt, how many bytes follow) and the bytes; one
is on its way over a connection at a time. Its **answer** is four bytes (:data:`SIZE`) and so many of MessagePack.
A **word** goes over the control socket, which lives as long as both: :data:`WORD` to the engine, one byte back.
"""

from __future__ import annotations

import struct
from typing import Literal

import msgspec

HEAD = struct.Struct("!cIQ16s")
SIZE = struct.Struct("!I")
WORD = struct.Struct("!cq")

# Requests.
DELIVERY = b"d"
"""The bytes are a webhook's body; answered by an :class:`Answer`."""
WRITE = b"w"
"""Write everything that was looked at; answered by nothing but an answer."""
MEASURED = b"m"
"""Answered by a list of :class:`Sample`."""

# Words to the engine.
CONNECTION = b"c"
"""A new connection comes with it."""
OWN_USER = b"u"
"""Labelguard's Label Studio user; 0 while nobody knows."""
LOOK = b"l"
"""There is something in the inbox that did not come over a connection. Sent before its sender is answered: what the
same annotator saves next must not be judged before it."""

# Words from it.
UP = b"u"
"""It takes requests."""
FOUND = b"f"
"""Something was found: there may be actions to deliver."""
DOWN = b"d"
"""It ended; another will be started."""


class Answer(msgspec.Struct, array_like=True, frozen=True):
    """What became of a delivery."""

    outcome: Literal["taken", "malformed", "other_project", "store", "broken"]
    text: str = ""
    """Its action where it was taken, else what was wrong."""
    delivery: int = 0
    duplicate: bool = False
    processed: bool = False
    written: bool = True
    """Whether all that became of it is written."""


class Sample(msgspec.Struct, array_like=True, frozen=True):
    """One number of the engine's process, as Prometheus names it."""

    name: str
    labels: tuple[tuple[str, str], ...]
    """Names and values, by name."""
    value: float


Key = tuple[str, tuple[tuple[str, str], ...]]
"""A sample's name and labels."""

answer_to = msgspec.msgpack.Encoder().encode
read_answer = msgspec.msgpack.Decoder(Answer).decode
read_samples = msgspec.msgpack.Decoder(list[Sample]).decode
