"""A Label Studio of few lines behind the connector's protocol, that fails on demand.

It holds what the outbox reads and changes, records every effect, and can fail before or after applying one:
the cases that a real server does not offer when a test asks for them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from deliveries import ADMIN, LABEL_CONFIG, LABELGUARD, NOW, PROJECT
from labelguard.connectors import ConnectorError, NotFound, Review, Server, Stopping, TaskRecord, User, Webhook
from labelguard.events import Annotation, Event, Project, Task

Effect = tuple[Any, ...]


@dataclass
class FakeStudio:
    """What Label Studio has, and what was done to it."""

    enterprise: bool = False
    skip_queue: str = "REQUEUE_FOR_OTHERS"
    tasks: dict[int, Task] = field(default_factory=dict)
    annotations: dict[int, Annotation] = field(default_factory=dict)
    notes: dict[int, str] = field(default_factory=dict)
    assigned: dict[int, tuple[int, ...]] = field(default_factory=dict)
    """Annotators by task."""
    effects: list[Effect] = field(default_factory=list)
    fail_before: list[Exception] = field(default_factory=list)
    """Raised one by one by the next effects, which then do not happen."""
    fail_after: list[BaseException] = field(default_factory=list)
    """Raised one by one by the next effects, which have happened: the answer was lost, or we were killed."""
    down: bool = False
    silent: bool = False
    clock: datetime = NOW + timedelta(hours=1)

    def hold(self, body: dict[str, Any]) -> None:
        """Have what a delivery told."""
        event = Event.from_delivery({}, body)
        self.tasks |= {task.id: task for task in event.tasks if task.id not in self.tasks}
        self.annotations |= {annotation.id: annotation for annotation in event.annotations}

    @contextmanager
    def silence(self) -> Iterator[None]:
        """While it lasts, nothing is asked."""
        self.silent = True
        try:
            yield
        finally:
            self.silent = False

    def _effect(self, *effect: Any) -> Iterator[None]:
        self._asked()
        if self.fail_before:
            raise self.fail_before.pop(0)
        yield
        self.effects.append(effect)
        if self.fail_after:
            raise self.fail_after.pop(0)

    def _asked(self) -> None:
        if self.silent:
            raise Stopping
        if self.down:
            raise ConnectorError("Label Studio did not answer.")

    def server(self) -> Server:
        """Community, unless told otherwise."""
        able = self.enterprise
        edition = "Enterprise" if able else "Community"
        own = User(LABELGUARD, "labelguard@example.com")
        return Server(edition, "1.23.2", own, comments=able, assignments=able, pauses=able)

    def time(self) -> datetime | None:
        """It does not say."""
        return None

    def link(self, project: int, task: int, annotation: int | None = None) -> str:
        """An address."""
        return f"http://studio.example/projects/{project}/data?task={task}"

    def whoami(self, cookie: str) -> User | None:
        """Nobody."""
        return None

    def users(self) -> Sequence[User]:
        """The admin."""
        self._asked()
        return [User(ADMIN, "ada@example.com", "Ada")]

    def project(self, project: int) -> Project:
        """The project."""
        self._asked()
        return Project(project, "Mail", LABEL_CONFIG, skip_queue=self.skip_queue, updated_at=NOW)

    def annotation(self, annotation: int) -> Annotation:
        """As it is now."""
        self._asked()
        if annotation not in self.annotations:
            raise NotFound(f"There is no annotation {annotation}.")
        return self.annotations[annotation]

    def task(self, task: int) -> TaskRecord:
        """With its annotations."""
        self._asked()
        if task not in self.tasks:
            raise NotFound(f"There is no task {task}.")
        own = tuple(a for a in self.annotations.values() if a.task == task)
        about = self.tasks[task]
        raw = {
            "id": task,
            "project": PROJECT,
            "data": dict(about.data),
            "overlap": about.overlap,
            "annotations": [
                {
                    "id": a.id,
                    "result": list(a.result),
                    "completed_by": a.completed_by,
                    "updated_by": a.updated_by,
                    "created_at": a.created_at.isoformat() if a.created_at else None,
                    "updated_at": a.updated_at.isoformat() if a.updated_at else None,
                    "was_cancelled": a.was_cancelled,
                    "ground_truth": a.ground_truth,
                }
                for a in own
            ],
        }
        return TaskRecord(about, own, raw)

    def tasks_changed(
        self, project: int, since: datetime | None, *, after_id: int = 0, page_size: int = 100
    ) -> Iterator[TaskRecord]:
        """All of them."""
        self._asked()
        for task in sorted(self.tasks):
            yield self.task(task)

    def tasks_named(self, project: int, tasks: Collection[int], *, page_size: int = 100) -> Iterator[TaskRecord]:
        """Those that are there."""
        self._asked()
        for task in sorted({*tasks} & {*self.tasks}):
            yield self.task(task)

    def webhooks(self, project: int) -> Sequence[Webhook]:
        """None."""
        self._asked()
        return []

    def create_webhook(self, project: int, url: str, actions: Sequence[str], headers: dict[str, str]) -> Webhook:
        """A webhook."""
        for _ in self._effect("create_webhook", project):
            pass
        return Webhook(1, project, url, True, tuple(actions))

    def update_webhook(
        self, webhook: int, *, url: str, active: bool, actions: Sequence[str], headers: dict[str, str]
    ) -> None:
        """Recorded."""
        for _ in self._effect("update_webhook", webhook):
            pass

    def delete_webhook(self, webhook: int) -> None:
        """Recorded."""
        for _ in self._effect("delete_webhook", webhook):
            pass

    def set_cancelled(self, annotation: int, cancelled: bool) -> None:
        """Skip, or take it back."""
        for _ in self._effect("set_cancelled", annotation, cancelled):
            self.save(annotation, by=LABELGUARD, was_cancelled=cancelled)

    def set_overlap(self, task: int, overlap: int, is_labeled: bool) -> None:
        """Ask for more opinions, or no more."""
        for _ in self._effect("set_overlap", task, overlap, is_labeled):
            self.tasks[task] = replace(self.tasks[task], overlap=overlap, is_labeled=is_labeled)

    def set_task_note(self, task: int, key: str, text: str) -> None:
        """A note on the task, or none."""
        for _ in self._effect("set_task_note", task, key, bool(text)):
            self.notes[task] = text

    def set_label_config(self, project: int, label_config: str) -> None:
        """Recorded."""
        for _ in self._effect("set_label_config", project):
            pass

    def refusals(self, project: int) -> dict[str, str]:
        """None."""
        return {}

    def comment(self, annotation: int, text: str, marker: str) -> None:
        """Recorded, unless the marker is there already: the connector looks first."""
        if ("comment", annotation, marker) in self.effects:
            return
        for _ in self._effect("comment", annotation, marker):
            pass

    def resolve_comment(self, annotation: int, marker: str) -> None:
        """Recorded."""
        for _ in self._effect("resolve_comment", annotation, marker):
            pass

    def delete_comment(self, annotation: int, marker: str) -> None:
        """Recorded."""
        for _ in self._effect("delete_comment", annotation, marker):
            pass

    def review(self, review: int) -> Review | None:
        """None."""
        self._asked()
        raise NotFound(f"There is no review {review}.")

    def assignees(self, project: int, task: int) -> Sequence[int]:
        """As they were assigned."""
        self._asked()
        return self.assigned.get(task, ())

    def assign(self, project: int, task: int, users: Sequence[int]) -> None:
        """To exactly these, unless it is so already: the connector looks first."""
        if self.assigned.get(task) == tuple(users):
            return
        for _ in self._effect("assign", task, tuple(users)):
            self.assigned[task] = tuple(users)

    def pause(self, project: int, user: int, reason: str, marker: str) -> None:
        """Recorded."""
        for _ in self._effect("pause", user):
            pass

    def unpause(self, project: int, user: int, marker: str) -> None:
        """Recorded."""
        for _ in self._effect("unpause", user):
            pass

    def save(self, annotation: int, *, by: int, **fields: Any) -> None:
        """Somebody saves an annotation."""
        self.clock += timedelta(seconds=1)
        found = self.annotations[annotation]
        self.annotations[annotation] = replace(found, updated_by=by, updated_at=self.clock.astimezone(UTC), **fields)


@dataclass
class FakeNotifier:
    """Chat, mail, pager: what was sent to whom, and whom it cannot reach."""

    sent: list[tuple[str, str, str]] = field(default_factory=list)
    unreachable: dict[str, ConnectorError] = field(default_factory=dict)

    def notify(self, target: str, title: str, body: str) -> None:
        """Send, or not."""
        if target in self.unreachable:
            raise self.unreachable[target]
        self.sent.append((target, title, body))

    def told(self) -> list[str]:
        """To whom something was sent, in order."""
        return [target for target, _, _ in self.sent]
