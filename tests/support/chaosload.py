"""Annotators at work on a Label Studio, and its webhooks as they reach labelguard: whatever answer they get is
remembered.

Label Studio sends each webhook once. The sender here tries again where it got no answer, most of the time, as
a proxy or a queue in front of labelguard would; and sometimes it does not, as Label Studio itself.
"""

from __future__ import annotations

import http.client
import json
import queue
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from chaosstudio import OWN, ChaosStudio, Raw, stamp
from labelguard.events import Event

MAIL, DESK, GOLD = 11, 12, 13
"""Projects: wrong labels are replaced; wrong labels get a second opinion; known answers and peers."""

VAULTED = range(700_000, 700_240)
"""Tasks of GOLD whose answer is in the vault."""

RIGHT = ("refund", "billing")
WRONG = ("spam", "important")
_WORDS = ("order", "invoice", "parcel", "refund", "meeting", "offer", "account", "password", "delivery", "thanks")

Version = tuple[int, datetime, datetime]
"""An annotation's id, when it was made, and when this version of it was saved."""


@dataclass
class Delivery:
    """One webhook request: what is in it, and what became of it."""

    project: int
    body: bytes
    what: str
    versions: tuple[Version, ...] = ()
    attempts: int = 0
    unanswered: int = 0
    refused: list[int] = field(default_factory=list)
    """Statuses other than 2xx."""
    receipts: list[Raw] = field(default_factory=list)
    """What labelguard said with each 2xx."""

    @property
    def digest(self) -> str:
        """The event's digest."""
        return Event.from_delivery({}, self.body).digest


def result(labels: Sequence[str]) -> list[Raw]:
    """The result of choosing topics."""
    item = {"id": "r1", "from_name": "topics", "to_name": "text", "type": "choices", "origin": "manual"}
    return [{**item, "value": {"choices": list(labels)}}]


def version(annotation: Raw) -> Version:
    """What tells this version of an annotation from all others."""
    return (
        annotation["id"],
        datetime.fromisoformat(annotation["created_at"]),
        datetime.fromisoformat(annotation["updated_at"]),
    )


@dataclass
class Load:
    """Annotators and the webhooks that their work sets off."""

    studio: ChaosStudio
    ports: Sequence[int]
    seed: int
    patience: float = 30.0
    """Seconds a delivery is tried again at most."""
    deliveries: list[Delivery] = field(default_factory=list)
    expected: dict[Version, int] = field(default_factory=dict)
    """How many findings of label-constraints each version must have."""
    gone: set[int] = field(default_factory=set)
    """Annotations that were deleted."""
    on_attempt: Callable[[int], None] = lambda _port: None
    """Told of the port before a request is sent to it."""

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._number = 1000
        self._echoes: queue.SimpleQueue[Raw] = queue.SimpleQueue()
        self.answers = 0
        """How many requests were answered 2xx so far."""
        self.studio.saved = self._echoes.put

    def number(self) -> int:
        """A new id, for whatever."""
        with self._lock:
            self._number += 1
            return self._number

    # Bodies

    def _body(self, action: str, project: int, **parts: Any) -> bytes:
        about = {**self.studio.projects[project], "token": "an invitation", "num_tasks_with_annotations": 1}
        return json.dumps({"action": action, **parts, "project": about}).encode()

    def saved(self, action: str, annotations: Sequence[Raw], *, bulk: bool = False) -> Delivery:
        """The delivery that tells of saved annotations."""
        project = annotations[0]["project"]
        with self.studio.lock:
            tasks = [self.studio.tasks[a["task"]] for a in annotations]
        told = [{**a, "unique_id": f"5d1f{a['id']:012d}"} for a in annotations]
        for annotation in annotations:
            if project != GOLD:
                said = annotation["result"][0]["value"]["choices"]
                own = annotation["updated_by"] == annotation["completed_by"]
                judged = own and not annotation["was_cancelled"]
                self.expected[version(annotation)] = int(judged and set(said) >= set(WRONG))
        parts = {"annotation": told, "task": tasks} if bulk else {"annotation": told[0], "task": tasks[0]}
        made = Delivery(project, self._body(action, project, **parts), action, tuple(map(version, annotations)))
        self.deliveries.append(made)
        return made

    def removed(self, project: int, annotation: int) -> Delivery:
        """The delivery that tells of a deleted annotation."""
        body = self._body("ANNOTATIONS_DELETED", project, annotations=[{"id": annotation}])
        made = Delivery(project, body, "ANNOTATIONS_DELETED")
        self.deliveries.append(made)
        return made

    def imported(self, project: int, tasks: Sequence[int]) -> Delivery:
        """The delivery that tells of imported tasks."""
        body = self._body("TASKS_CREATED", project, tasks=[self.studio.tasks[n] for n in tasks])
        made = Delivery(project, body, "TASKS_CREATED")
        self.deliveries.append(made)
        return made

    # Sending

    def send(self, delivery: Delivery, *, again: bool = True, port: int | None = None) -> bool:
        """Send a delivery, ``again`` until it is answered 2xx; whether it was."""
        deadline = time.monotonic() + self.patience
        turn = delivery.attempts
        while True:
            chosen = port or self.ports[(turn + delivery.attempts) % len(self.ports)]
            status, said = self.post(delivery, chosen)
            if 200 <= status < 300:
                delivery.receipts.append(said)
                with self._lock:
                    self.answers += 1
                return True
            if status:
                delivery.refused.append(status)
            if not again or time.monotonic() > deadline:
                return False
            time.sleep(0.02)

    def post(self, delivery: Delivery, port: int) -> tuple[int, Any]:
        """One attempt: the status and what was said; 0 where there was no answer."""
        self.on_attempt(port)
        connection = self._connection(port)
        headers = {"Content-Type": "application/json", **self._token(delivery.project)}
        delivery.attempts += 1
        try:
            connection.request("POST", f"/webhook/{delivery.project}", delivery.body, headers)
            answer = connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            delivery.unanswered += 1
            return 0, None
        with suppress(ValueError):
            return answer.status, json.loads(text)
        return answer.status, None

    _own = threading.local()

    def _connection(self, port: int) -> http.client.HTTPConnection:
        held: dict[int, http.client.HTTPConnection] = self._own.__dict__.setdefault("held", {})
        if port not in held:
            held[port] = http.client.HTTPConnection("127.0.0.1", port, timeout=15)
        return held[port]

    def hang_up(self) -> None:
        """Let go of this thread's connections."""
        for connection in self._own.__dict__.pop("held", {}).values():
            connection.close()

    def _token(self, project: int) -> dict[str, str]:
        headers: dict[str, str] = next(w for w in self.studio.webhooks.values() if w["project"] == project)["headers"]
        return headers

    def ask(self, delivery: Delivery, port: int) -> socket.socket:
        """Send a delivery and do not wait for its answer: the connection on which it would come."""
        head = {
            "Host": "127.0.0.1",
            "Content-Type": "application/json",
            "Content-Length": str(len(delivery.body)),
            **self._token(delivery.project),
        }
        lines = [f"POST /webhook/{delivery.project} HTTP/1.1", *(f"{name}: {value}" for name, value in head.items())]
        delivery.attempts += 1
        connection = socket.create_connection(("127.0.0.1", port), 15)
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + delivery.body)
        return connection

    # Work

    def pieces(self, count: int) -> Iterator[Delivery]:
        """So many pieces of work, one after the other, each made when it is asked for and not sent yet."""
        return _Group(self, random.Random(f"{self.seed}:pieces"), 0).saves(count)

    def work(self, count: int, streams: int = 4) -> None:
        """Let annotators save until ``count`` deliveries were sent, several at a time."""
        crew = [
            threading.Thread(target=self._stream, args=(number, count // streams), name=f"annotators-{number}")
            for number in range(streams)
        ]
        for member in crew:
            member.start()
        for member in crew:
            member.join()

    def _stream(self, number: int, count: int) -> None:
        """One group of annotators with tasks of their own, so that their saves come in order."""
        rng = random.Random(f"{self.seed}:{number}")
        group = _Group(self, rng, number)
        with suppress(StopIteration):
            for delivery in group.saves(count):
                self.send(delivery, again=rng.random() < 0.8)
                if delivery.receipts and rng.random() < 0.03:
                    # Answered, and sent again all the same.
                    self.send(delivery, again=False)
                self.send_echoes(rng)
        self.hang_up()

    def send_echoes(self, rng: random.Random) -> None:
        """What labelguard changed comes back as an event like any other."""
        while True:
            try:
                annotation = self._echoes.get_nowait()
            except queue.Empty:
                return
            if annotation["id"] not in self.gone:
                self.send(self.saved("ANNOTATION_UPDATED", [annotation]), again=rng.random() < 0.8)


class _Group:
    """A few annotators, what they made, and what they do next."""

    def __init__(self, load: Load, rng: random.Random, number: int) -> None:
        self._load = load
        self._studio = load.studio
        self._rng = rng
        self._people = [100 + 10 * number + n for n in range(5)]
        self._made: list[tuple[int, int]] = []
        """(annotation, annotator) in MAIL that may be saved again or deleted."""
        self._open: dict[int, set[int]] = {}
        """Tasks of GOLD, and who has yet to look at them."""
        self._vaulted = iter(VAULTED[number * 60 : (number + 1) * 60])

    def saves(self, count: int) -> Iterator[Delivery]:
        """The deliveries of so many pieces of work, each made when it is asked for."""
        for _ in range(count):
            chance = self._rng.random()
            if chance < 0.30:
                yield self._submit(MAIL)
            elif chance < 0.45:
                yield self._submit(DESK)
            elif chance < 0.75:
                yield self._known()
            elif chance < 0.93:
                yield self._again() or self._submit(MAIL)
            elif chance < 0.96:
                yield self._delete() or self._submit(MAIL)
            elif chance < 0.98:
                yield self._bulk()
            else:
                yield self._load.imported(MAIL, [self._task(MAIL) for _ in range(3)])

    def _task(self, project: int, number: int | None = None) -> int:
        number = number or self._load.number()
        words = " ".join(self._rng.choice(_WORDS) for _ in range(160))
        self._studio.add_task(number, project, {"text": words, "channel": "mail"})
        return number

    def _labels(self, wrong: float) -> tuple[str, ...]:
        return WRONG if self._rng.random() < wrong else RIGHT[: self._rng.randint(1, 2)]

    def _submit(self, project: int) -> Delivery:
        task, who = self._task(project), self._rng.choice(self._people)
        number = self._load.number()
        skipped = self._rng.random() < 0.05
        made = self._studio.save(number, task, who, result(self._labels(0.06)), was_cancelled=skipped)
        if project == MAIL and self._rng.random() < 0.5:
            self._made.append((number, who))
        return self._load.saved("ANNOTATION_CREATED", [made])

    def _again(self) -> Delivery | None:
        """Somebody saves their own annotation again."""
        if not self._made:
            return None
        number, who = self._rng.choice(self._made)
        known = self._studio.annotations[number]
        made = self._studio.save(number, known["task"], who, result(self._labels(0.1)))
        return self._load.saved("ANNOTATION_UPDATED", [made])

    def _delete(self) -> Delivery | None:
        if not self._made:
            return None
        number, _ = self._made.pop(self._rng.randrange(len(self._made)))
        self._load.gone.add(number)
        self._studio.delete(number)
        return self._load.removed(MAIL, number)

    def _bulk(self) -> Delivery:
        """Many annotations at once."""
        made = [
            self._studio.save(
                self._load.number(), self._task(MAIL), self._rng.choice(self._people), result(self._labels(0.08))
            )
            for _ in range(self._rng.randint(5, 15))
        ]
        return self._load.saved("ANNOTATIONS_CREATED", made, bulk=True)

    def _known(self) -> Delivery:
        """A task that several annotators look at; the first two of each group are often wrong, in one way."""
        if not self._open or self._rng.random() < 0.3:
            self._open[self._task(GOLD, next(self._vaulted, None))] = set(self._people)
        task = self._rng.choice(sorted(self._open))
        who = self._rng.choice(sorted(self._open[task]))
        self._open[task].discard(who)
        if not self._open[task]:
            del self._open[task]
        labels = ("spam",) if who % 10 < 2 and self._rng.random() < 0.7 else ("billing",)
        made = self._studio.save(self._load.number(), task, who, result(labels))
        return self._load.saved("ANNOTATION_CREATED", [made])


__all__ = ["DESK", "GOLD", "MAIL", "OWN", "Delivery", "Load", "result", "stamp", "version"]
