"""A delivery whose processing has begun and is not committed, made durable by its impatient receiver."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from deliveries import NOW, PROJECT, annotation, created
from guarded import guarded
from labelguard import inbox
from labelguard.engine import Engine, worker
from labelguard.engine.intake import Intake
from labelguard.events import Event
from labelguard.inbox import Delivery
from labelguard.processing import Batch
from labelguard.store import schema
from labelguard.store.core import StoreError


def test_what_is_in_hand_is_kept_as_pending(tmp_path: Path) -> None:
    """As done it would be lost if the process were killed before what it led to is committed."""
    with guarded(tmp_path) as guard:
        event = Event.from_delivery({}, created(annotation(11, "spam", "important")))
        delivery = Delivery.of(PROJECT, event, "webhook", NOW)
        # As the worker leaves it between looking at it and writing what it led to.
        delivery.state = "done"
        Intake(guard.store).keep(delivery)
        assert guard.inbox() == [("ANNOTATION_CREATED", "pending")]
        guard.engine.process_pending()
        assert guard.inbox() == [("ANNOTATION_CREATED", "done")]
        assert len(guard.findings()) == 1


def test_what_was_answered_and_not_written_is_done_by_the_next_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing was found, so the sender was told at once; then the process dies with the results in its memory."""
    monkeypatch.setattr(worker, "_LINGER", 60)
    monkeypatch.setattr(worker, "_TURN", 60)
    with guarded(tmp_path) as guard:
        event = Event.from_delivery({}, created(annotation(11, "spam")))
        guard.engine.start()
        assert guard.engine.receive(PROJECT, event, wait=10).processed
        # What the disk has at that moment is what a process that was killed leaves.
        with guard.store._backend.reader.connect() as conn:
            assert conn.scalars(sa.select(schema.inbox.c.state)).all() == ["pending"]
            assert conn.scalar(sa.select(sa.func.count()).select_from(schema.judgments)) == 0
        monkeypatch.setattr(Batch, "write", Batch.close)
        guard.engine.stop()
        monkeypatch.undo()
        Engine(guard.store, guard.clock).process_pending()
        assert guard.inbox() == [("ANNOTATION_CREATED", "done")]
        assert guard.versions() == [(1, True)]


def test_who_reads_finds_what_was_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page asks right after the save: what its annotation led to is written for it there and then."""
    monkeypatch.setattr(worker, "_LINGER", 60)
    monkeypatch.setattr(worker, "_TURN", 60)
    with guarded(tmp_path) as guard:
        guard.engine.start()
        try:
            for number in range(1, 6):
                event = Event.from_delivery({}, created(annotation(number, "spam", task=number)))
                assert guard.engine.receive(PROJECT, event, wait=10).processed
                assert len(guard.annotations()) == number
        finally:
            guard.engine.stop()


def test_nothing_follows_from_a_delivery_that_was_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was judged while the disk was waited for; its sender was told that it was not taken in, so it was not."""
    monkeypatch.setattr(worker, "_LINGER", 60)
    monkeypatch.setattr(worker, "_TURN", 60)
    original = inbox.put_pending

    def fails_once(conn: sa.Connection, deliveries: list[Delivery]) -> None:
        monkeypatch.setattr(inbox, "put_pending", original)
        raise sa.exc.OperationalError("INSERT", {}, FullDisk("database or disk is full"))

    with guarded(tmp_path) as guard:
        guard.engine.start()
        try:
            first = Event.from_delivery({}, created(annotation(10, "spam", task=10)))
            assert guard.engine.receive(PROJECT, first, wait=10).processed
            monkeypatch.setattr(inbox, "put_pending", fails_once)
            lost = Event.from_delivery({}, created(annotation(11, "spam", task=11)))
            with pytest.raises(StoreError, match="database or disk is full"):
                guard.engine.receive(PROJECT, lost, wait=10)
            other = Event.from_delivery({}, created(annotation(12, "spam", task=12)))
            assert guard.engine.receive(PROJECT, other, wait=10).processed
            assert [row["id"] for row in guard.annotations()] == [10, 12]
        finally:
            guard.engine.stop()
        assert guard.inbox() == [("ANNOTATION_CREATED", "done")] * 2


def test_an_id_out_of_a_commit_that_failed_is_no_receipt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full when the worker commits what it took in and judged: the sender must be told."""
    with guarded(tmp_path) as guard:
        event = Event.from_delivery({}, created(annotation(11, "spam", "important")))
        original = guard.store._run

        def runs_and_fails(conn: sa.Connection, job: Any, **how: Any) -> None:
            original(conn, job, **how)
            raise sa.exc.OperationalError("COMMIT", {}, FullDisk("database or disk is full"))

        guard.engine.start()
        try:
            with monkeypatch.context() as broken:
                broken.setattr(type(guard.store), "_run", staticmethod(runs_and_fails))
                with pytest.raises(StoreError, match="database or disk is full"):
                    guard.engine.receive(PROJECT, event, wait=10)
            assert guard.inbox() == []
            assert guard.engine.receive(PROJECT, event, wait=10).processed
        finally:
            guard.engine.stop()
        assert guard.inbox() == [("ANNOTATION_CREATED", "done")]
        assert len(guard.findings()) == 1


def test_an_id_out_of_a_commit_that_failed_does_not_stand_in_for_the_row(tmp_path: Path) -> None:
    """The worker's commit failed a moment before the receiver makes the delivery durable by itself."""
    with guarded(tmp_path) as guard:
        event = Event.from_delivery({}, created(annotation(11, "spam", "important")))
        delivery = Delivery.of(PROJECT, event, "webhook", NOW)
        delivery.id, delivery.state = 99, "done"
        Intake(guard.store).keep(delivery)
        assert guard.inbox() == [("ANNOTATION_CREATED", "pending")]
        assert delivery.id != 99


class FullDisk(Exception):
    """The databases' own words."""

    sqlite_errorcode = 13
    sqlstate = "53100"
