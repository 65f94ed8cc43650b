"""What commands work with, opened when it is first asked for and closed at the end."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING

from labelguard.cli.output import Failed

if TYPE_CHECKING:
    from labelguard.connectors import Notifier, Studio
    from labelguard.engine import Engine
    from labelguard.outbox import Outbox
    from labelguard.service import Service
    from labelguard.settings import Settings
    from labelguard.store import Store


def now() -> datetime:
    """The time, UTC: the command line is where clocks enter."""
    return datetime.now(UTC)


def who() -> str:
    """Who is at the terminal, for the record."""
    try:
        return f"{getpass.getuser()} (command line)"
    except (KeyError, OSError):  # a container's user may have no name
        return "command line"


class Tools:
    """Settings, store, engine and connectors of one command."""

    @cached_property
    def settings(self) -> Settings:
        """The configuration."""
        from labelguard.settings import load_settings

        return load_settings()

    @cached_property
    def store(self) -> Store:
        """The store, its schema brought up to date."""
        from labelguard.store import Store

        return Store.open(self.settings.database_url)

    @cached_property
    def service(self) -> Service:
        """Everything wired to the store, with nothing running."""
        from labelguard.service import wired

        return wired(self.settings, self.store, now)

    @property
    def engine(self) -> Engine:
        """The engine, without its worker."""
        return self.service.engine

    @property
    def outbox(self) -> Outbox:
        """The outbox; it reaches Label Studio only where there is a token."""
        return self.service.outbox

    @property
    def notifier(self) -> Notifier | None:
        """The connector to chat, mail and pagers, where targets are configured."""
        return self.service.notifier

    @property
    def studio(self) -> Studio:
        """The connector to Label Studio."""
        if self.service.studio is None:
            raise Failed(
                "labelguard has no token for Label Studio. Create a user of its own for it, and set "
                "LABELGUARD_STUDIO_API_KEY to that user's access token."
            )
        return self.service.studio


@contextmanager
def tools() -> Iterator[Tools]:
    """The tools, with the store closed at the end."""
    made = Tools()
    try:
        yield made
    finally:
        if "store" in vars(made):
            made.store.close()
