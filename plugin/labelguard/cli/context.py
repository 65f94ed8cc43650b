"""What commands work with, opened when it is first asked for and closed at the end."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from labelguard.cli.output import Failed

if TYPE_CHECKING:
    from labelguard.connectors import Notifier, Studio
    from labelguard.engine import Engine
    from labelguard.outbox import Outbox
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
    def engine(self) -> Engine:
        """An engine on the store, without its worker."""
        from labelguard.engine import Engine

        return Engine(self.store, now, keep_rejected=self.settings.keep_rejected)

    @cached_property
    def studio(self) -> Studio:
        """The connector to Label Studio."""
        key = self.settings.studio_api_key.get_secret_value()
        if not key:
            raise Failed(
                "labelguard has no token for Label Studio. Create a user of its own for it, and set "
                "LABELGUARD_STUDIO_API_KEY to that user's access token."
            )
        return cast("Studio", self._connector("studio")(self.settings.studio_url, key))

    @cached_property
    def notifier(self) -> Notifier:
        """The connector to chat, mail and pagers."""
        targets = {name: address.get_secret_value() for name, address in self.settings.notify.items()}
        return cast("Notifier", self._connector("notify")(targets))

    @cached_property
    def outbox(self) -> Outbox:
        """The outbox; it reaches Label Studio only where there is a token."""
        from labelguard.outbox import Outbox

        studio = self.studio if self.settings.studio_api_key.get_secret_value() else None
        return Outbox(self.store, self.engine, studio, self.notifier, now)

    @staticmethod
    def _connector(name: str) -> Any:
        from labelguard.registry import broken_bundles, load_connectors

        try:
            return load_connectors()[name]
        except KeyError:
            reasons = " ".join(f"{bundle}." for bundle in broken_bundles())
            raise Failed(f"The connector {name!r} is not installed. {reasons}".rstrip()) from None


@contextmanager
def tools() -> Iterator[Tools]:
    """The tools, with the store closed at the end."""
    made = Tools()
    try:
        yield made
    finally:
        if "store" in vars(made):
            made.store.close()
