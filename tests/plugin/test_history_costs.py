"""What a delivery or a look at the page costs does not grow with the history."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from databases import SQLITE
from deliveries import PROJECT, annotation, at, created, updated
from fakestudio import FakeNotifier, FakeStudio
from guarded import Guarded, guarded, policy
from labelguard.outbox import Outbox
from labelguard.prompts import Prompts
from labelguard.store import schema

pytestmark = pytest.mark.store(SQLITE)

ANNOTATORS = 5
WRONG = ("spam", "important")
EVERYTHING = "[prompt, rework, replace, second-opinion, {notify: ops}]"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Guarded]:
    """A labelguard whose rule asks for every kind of action."""
    with guarded(tmp_path, policy(actions=EVERYTHING, mode="enforce")) as made:
        yield made


def grow(world: Guarded, first: int, count: int) -> None:
    """So many more tasks that were annotated wrongly, with what followed, as if it were over."""
    with world.store._backend.writer.begin() as conn:
        for table, key in (
            (schema.tasks, "id"),
            (schema.annotations, "row"),
            (schema.findings, "id"),
            (schema.actions, "id"),
        ):
            row = dict(conn.execute(sa.select(table).order_by(table.c[key]).limit(1)).mappings().one())
            copies: list[dict[str, Any]] = []
            for number in range(first, first + count):
                about: dict[str, Any] = dict.fromkeys(("id", "task", "annotation", "finding"), number)
                about |= dict.fromkeys(("completed_by", "updated_by", "annotator"), 101 + number % ANNOTATORS)
                copy: dict[str, Any] = {
                    **row,
                    **{name: value for name, value in about.items() if name in row},
                    key: number,
                }
                if table is schema.actions:
                    copy |= {"key": f"prompt:{number}", "state": "done", "updated_at": at(-3000)}
                if table is schema.findings:
                    copy |= {"state": "upheld"}
                copies.append(copy)
            conn.execute(sa.insert(table), copies)


@pytest.mark.parametrize("what", ["a finding", "an update", "a page", "delivering"])
def test_it_costs_the_same_however_long_the_history(world: Guarded, what: str) -> None:
    """Twenty times the tasks, annotations, findings and actions of the same project and people."""
    studio = FakeStudio()
    outbox = Outbox(world.store, world.engine, studio, FakeNotifier(), world.clock, jitter=lambda: 0.5)
    prompts = Prompts(world.store, world.engine, None, world.clock)

    def work(number: int) -> Callable[[], Any]:
        if what == "a finding":
            return lambda: world.take(created(annotation(number, *WRONG, task=number, by=102)))
        body = created(annotation(number, *WRONG, task=number, by=102))
        studio.hold(body)
        world.take(body)
        if what == "an update":
            return lambda: world.take(updated(annotation(number, "spam", task=number, by=102, saved=at(1))))
        if what == "a page":
            return lambda: prompts.waiting(PROJECT, 102, annotation=number)
        return outbox.deliver_due

    world.take(created(annotation(1, *WRONG, task=1, by=102)))
    grow(world, 1_000, 200)
    few = world.steps(work(2))
    grow(world, 2_000, 4_000)
    many = world.steps(work(3))
    assert few > 100
    assert many < 1.3 * few
