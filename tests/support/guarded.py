"""A labelguard without its HTTP side, for tests that hand deliveries to the engine themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from databases import database_url
from deliveries import LABEL_CONFIG, LABELGUARD, PROJECT, at
from labelguard.engine import Engine, Receipt
from labelguard.events import Event, Project
from labelguard.inbox import Origin
from labelguard.store import Store, records, schema
from labelguard.tokens import hash_token
from webservice import Clock

CONSTRAINTS = """\
  - rule: label-constraints
    control: topics
    mode: {mode}
    options: {{exclusive: [[spam, important]]}}
    actions: {actions}
"""


def policy(*rules: str, actions: str = "[prompt]", mode: str = "enforce", **more: str) -> str:
    """A policy that forbids ``spam`` with ``important``, or with these rules."""
    lines = [f"project: {PROJECT}", *(f"{key}: {value}" for key, value in more.items()), "rules:"]
    chosen = rules or (CONSTRAINTS.format(mode=mode, actions=actions),)
    return "\n".join(lines) + "\n" + "".join(chosen)


class Guarded:
    """A store and an engine with one project that has been connected for an hour."""

    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.store = Store.open(database_url(folder), durable=False)
        self.engine = Engine(self.store, self.clock, own_user=LABELGUARD)

        def connect(conn: sa.Connection) -> None:
            records.save_project(conn, Project(PROJECT, "Mail", LABEL_CONFIG, updated_at=at(-6000)), at(-6000))
            records.set_connection(conn, PROJECT, connected_at=at(-60), webhook_id=1, webhook_url=None, token_hash=None)

        self.store.write(connect)

    def apply(self, text: str) -> None:
        """Apply a policy."""
        self.store.write(lambda conn: records.add_policy(conn, PROJECT, text, self.clock()))

    def take(self, body: dict[str, Any], origin: Origin = "webhook") -> Receipt:
        """Take a delivery in and process it."""
        receipt = self.engine.receive(PROJECT, Event.from_delivery({}, body), origin)
        self.engine.process_pending()
        return receipt

    def findings(self, **wanted: Any) -> list[records.Row]:
        """The findings."""
        with self.store.read() as conn:
            return records.list_findings(conn, project=PROJECT, **wanted)

    def actions(self, **wanted: Any) -> list[records.Row]:
        """The actions."""
        with self.store.read() as conn:
            return records.list_actions(conn, project=PROJECT, **wanted)

    def action(self, kind: str) -> records.Row:
        """The only action of a kind."""
        (found,) = self.actions(kind=kind)
        return found

    def states(self) -> dict[str, str]:
        """The actions' states by kind."""
        return {action["kind"]: action["state"] for action in self.actions()}

    def annotations(self) -> list[records.Row]:
        """The live annotations."""
        with self.store.read() as conn:
            return records.current_annotations(conn, PROJECT)

    def versions(self) -> list[tuple[int, bool]]:
        """(number, first) of every version of every annotation, in the order in which they were kept."""
        table = schema.annotation_versions
        with self.store.read() as conn:
            rows = conn.execute(sa.select(table.c.number, table.c.first).order_by(table.c.id))
            return [(number, first) for number, first in rows]

    def let_in(self, token: str) -> None:
        """Have the project take deliveries with a token, from now on."""
        self.store.write(
            lambda conn: records.set_connection(
                conn,
                PROJECT,
                connected_at=self.clock(),
                webhook_id=1,
                webhook_url=None,
                token_hash=hash_token(token),
            )
        )

    def steps(self, work: Callable[[], Any]) -> int:
        """How many steps SQLite's machine takes for some work: what it costs, whatever else the machine does."""
        count = 0

        def step() -> int:
            nonlocal count
            count += 1
            return 0

        def watch(connection: Any, *_: object) -> None:
            connection.set_progress_handler(step, 1)

        def leave(connection: Any, *_: object) -> None:
            connection.set_progress_handler(None, 1)

        reader = self.store._backend.reader
        sa.event.listen(reader, "checkout", watch)
        sa.event.listen(reader, "checkin", leave)
        self.store.write(lambda conn: watch(conn.connection.driver_connection))
        try:
            work()
        finally:
            self.store.write(lambda conn: leave(conn.connection.driver_connection))
            sa.event.remove(reader, "checkout", watch)
            sa.event.remove(reader, "checkin", leave)
        return count

    def inbox(self) -> list[tuple[str, str]]:
        """(action, state) of every delivery."""
        with self.store.read() as conn:
            rows = conn.execute(sa.select(schema.inbox.c.action, schema.inbox.c.state).order_by(schema.inbox.c.id))
            return [(action, state) for action, state in rows]


@contextmanager
def guarded(folder: Path, text: str | None = None) -> Iterator[Guarded]:
    """A labelguard with a policy (by default one that forbids ``spam`` with ``important``), closed in the end."""
    made = Guarded(folder)
    made.apply(policy() if text is None else text)
    try:
        yield made
    finally:
        made.store.close()
