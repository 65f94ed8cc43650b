"""Opening the store, reading from it, and the single group-committing writer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import sqlalchemy as sa

T = TypeVar("T")


class StoreError(Exception):
    """The store cannot be used; the message says why and what to do."""


class Store:
    """The operational store.

    All writes of a process go through one writer thread which commits several waiting jobs at once: SQLite
    does not queue its writers, and a second one ruins the slowest answers.
    """

    def __init__(self, url: str) -> None:
        raise NotImplementedError

    @classmethod
    def open(cls, url: str) -> Store:
        """Open a store and bring its schema up to date.

        Raises:
            StoreError: it cannot be opened, or was written by a newer labelguard.
        """
        raise NotImplementedError

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A connection with one consistent snapshot, read only."""
        raise NotImplementedError

    def write(self, job: Callable[[sa.Connection], T]) -> T:
        """Run a job on the writer, wait until it is committed, and return what it returned.

        A job that raises is rolled back alone; the others of its group are committed.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Finish what is waiting and let go of the file."""
        raise NotImplementedError
