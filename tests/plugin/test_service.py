"""The service in one process: its parts start, work together, survive trouble and stop."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
import sqlalchemy as sa

from databases import database_url
from deliveries import LABELGUARD, PROJECT, annotation, created
from fakestudio import FakeNotifier, FakeStudio
from guarded import Guarded, guarded, policy
from labelguard.connectors import ConnectorError, Server
from labelguard.engine import Engine
from labelguard.events import Event
from labelguard.outbox import Outbox
from labelguard.service import Running, Service, opened
from labelguard.settings import Settings
from labelguard.store import Store, records
from labelguard.store.core import StoreError
from labelguard.tokens import hash_token
from processes import soon, start

WRONG = ("spam", "important")


class LateStudio(FakeStudio):
    """A Label Studio that is still starting when labelguard asks it who we are."""

    starting = True

    def server(self) -> Server:
        """An answer, once it is up."""
        if self.starting:
            raise ConnectorError("Label Studio did not answer.")
        return super().server()


class StumblingOutbox(Outbox):
    """An outbox that fails in ways that nobody foresaw, and then works."""

    troubles: Sequence[Exception] = ()

    def deliver_due(self, stopping: threading.Event | None = None) -> int:
        """Fail, or deliver."""
        if self.troubles:
            trouble, *self.troubles = self.troubles
            raise trouble
        return super().deliver_due(stopping)


@contextmanager
def service(world: Guarded, studio: FakeStudio, outbox: type[Outbox] = Outbox) -> Iterator[Service]:
    """The service over a test's store and Label Studio."""
    notifier = FakeNotifier()
    made = outbox(world.store, world.engine, studio, notifier, world.clock)
    yield Service(Settings(), world.store, world.engine, made, studio, notifier, world.clock)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Guarded]:
    """A labelguard that gives wrong annotations to another annotator."""
    with guarded(tmp_path, policy(actions="[replace]")) as made:
        yield made


def test_what_is_received_is_judged_and_acted_on(world: Guarded) -> None:
    """Also what an earlier process left behind; and in the end no thread is left."""
    studio = FakeStudio()
    before = set(threading.enumerate())
    for number in (11, 12):
        studio.hold(created(annotation(number, *WRONG, task=number)))
    world.engine.receive(PROJECT, Event.from_delivery({}, created(annotation(11, *WRONG, task=11))))
    with service(world, studio) as made, Running(made, schedule=False):
        event = Event.from_delivery({}, created(annotation(12, *WRONG, task=12)))
        assert world.engine.receive(PROJECT, event, wait=10).processed
        assert soon(lambda: {action["state"] for action in world.actions()} == {"done"})
    assert sorted(studio.effects) == [("set_cancelled", 11, True), ("set_cancelled", 12, True)]
    # The store is open still, and looks after its roles on PostgreSQL.
    assert {thread for thread in threading.enumerate() if not thread.name.startswith("store-")} <= before


def test_who_we_are_is_learned_once_label_studio_is_up(world: Guarded) -> None:
    """labelguard starts without it."""
    studio = LateStudio()
    world.engine.own_user = None
    with service(world, studio) as made, Running(made, schedule=False):
        assert world.engine.own_user is None
        studio.starting = False
        assert soon(lambda: world.engine.own_user == LABELGUARD)


def test_the_deliverer_survives_what_nobody_foresaw(world: Guarded) -> None:
    """A store that cannot be used for a moment, and a mistake of ours."""
    studio = FakeStudio()
    studio.hold(created(annotation(11, *WRONG)))
    world.take(created(annotation(11, *WRONG)))
    with service(world, studio, StumblingOutbox) as made:
        assert isinstance(made.outbox, StumblingOutbox)
        made.outbox.troubles = [StoreError("The store cannot be written: database is locked")]
        with Running(made, schedule=False):
            assert soon(lambda: world.states() == {"replace": "done"})


def test_jobs_need_a_label_studio(tmp_path: Path) -> None:
    """Without one the command line says what to set."""
    settings = Settings(database_url=database_url(tmp_path))
    with opened(settings) as made:
        assert isinstance(made.engine, Engine)
        with pytest.raises(ConnectorError) as caught:
            made.jobs()
        with Running(made):
            assert made.engine.running
    assert str(caught.value) == (
        "labelguard is not configured for a Label Studio: set LABELGUARD_STUDIO_URL and LABELGUARD_STUDIO_API_KEY."
    )


# The real process


def test_killed_at_any_moment_it_loses_nothing_and_told_to_stop_it_stops(tmp_path: Path) -> None:
    """What was answered with 2xx is judged by the next process, once."""
    with guarded(tmp_path) as world:
        token = hash_token("a-token")
        world.store.write(
            lambda conn: records.set_connection(
                conn, PROJECT, connected_at=world.clock(), webhook_id=1, webhook_url=None, token_hash=token
            )
        )
    address = database_url(tmp_path)
    process = start("serve", tmp_path, database_url=address)
    answered: list[int] = []

    def deliver() -> None:
        number = 0
        while True:
            number += 1
            try:
                answer = requests.post(
                    f"{process.url}/webhook/{PROJECT}",
                    json=created(annotation(number, *WRONG, task=number)),
                    headers={"X-Labelguard-Token": "a-token"},
                    timeout=20,
                )
            except requests.RequestException:
                return
            if answer.ok:
                answered.append(number)

    sender = threading.Thread(target=deliver)
    sender.start()
    try:
        assert soon(lambda: len(answered) >= 20, 60)
    finally:
        process.kill()
        sender.join(30)
    process = start("serve", tmp_path, port=process.port, database_url=address)
    store = Store.open(address)

    def found() -> list[int]:
        with store.read() as conn:
            return sorted(finding["annotation"] for finding in records.list_findings(conn, project=PROJECT))

    try:
        assert soon(lambda: set(found()) >= set(answered), 60)
        # One whose answer nobody waited for may be found any moment.
        there = found()
        assert len(there) == len(set(there))
    finally:
        store.close()
        ended = process.stop()
    assert ended == 0, process.said()


def answer_once(listening: socket.socket) -> None:
    """Answer one request, as a server does that is about to go down."""
    connection, _ = listening.accept()
    with connection:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


@pytest.mark.store("sqlite")
def test_told_to_stop_it_does_not_wait_for_a_label_studio_that_hangs(tmp_path: Path) -> None:
    """It finishes the request in hand, which has its time, and asks nothing more for all that is due."""
    projects = range(PROJECT, PROJECT + 20)
    with guarded(tmp_path) as world:

        def connect(conn: sa.Connection) -> None:
            for project in projects:
                records.set_connection(
                    conn, project, connected_at=world.clock(), webhook_id=1, webhook_url=None, token_hash=None
                )

        world.store.write(connect)
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        # What it asks when it starts is answered; from then on nothing is.
        answering = threading.Thread(target=answer_once, args=[hanging])
        answering.start()
        address = f"http://127.0.0.1:{hanging.getsockname()[1]}"
        process = start(
            "serve", tmp_path, database_url=database_url(tmp_path), studio_url=address, studio_api_key="f" * 40
        )
        answering.join()
        began = time.monotonic()
        assert process.stop() == 0, process.said()
        # One request; each project alone would ask for more than one.
        assert time.monotonic() - began < 30
    assert "Traceback" not in process.said()
