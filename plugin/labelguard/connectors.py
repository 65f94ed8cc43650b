"""What a connector is: the outside world as the service sees it.

The service knows only these protocols; the implementations are found through the ``labelguard.connectors``
entry point. One exception type crosses the boundary.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from labelguard.events import Annotation, Project, Task


class ConnectorError(Exception):
    """Something outside said no or did not answer.

    The message is a short sentence for an admin, without bodies, cookies, tokens or addresses with secrets.
    """

    def __init__(self, message: str, *, permanent: bool = False, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.permanent = permanent
        """True where trying again cannot help."""
        self.retry_after = retry_after
        """Seconds the other side asked us to wait, where it did."""


class NotFound(ConnectorError):
    """The thing asked for does not exist (any more)."""

    def __init__(self, message: str) -> None:
        super().__init__(message, permanent=True)


class Stopping(ConnectorError):
    """The service is stopping: Label Studio was not asked, and nothing was changed."""

    def __init__(self) -> None:
        super().__init__("labelguard is stopping; what was in hand goes on at its next start.")


@dataclass(frozen=True, slots=True)
class User:
    """A Label Studio user."""

    id: int
    email: str = ""
    name: str = ""
    active: bool = True


@dataclass(frozen=True, slots=True)
class Server:
    """What the Label Studio server is and can do."""

    edition: str
    """``Community`` or ``Enterprise``."""
    version: str
    user: User
    """The user labelguard acts as."""
    comments: bool = False
    assignments: bool = False
    pauses: bool = False
    reviews: bool = False
    role: str = ""
    """Enterprise: the own user's role in the organization, in Label Studio's two letters (``MA``)."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """A webhook of Label Studio; header values are never read into it."""

    id: int
    project: int | None
    url: str
    active: bool
    actions: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    """Names of its headers."""
    all_actions: bool = False
    """Whether it is sent for every action, whatever ``actions`` says."""
    payload: bool = True
    """Whether it carries what happened, or only that something did."""


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """A task with all its annotations, as listed for reconciling."""

    task: Task
    annotations: tuple[Annotation, ...] = ()
    raw: dict[str, Any] = field(default_factory=dict)
    """The listing's own item: what a delivery about this task can be rebuilt from."""


@dataclass(frozen=True, slots=True)
class Review:
    """What a reviewer said of an annotation (Enterprise)."""

    id: int
    annotation: int
    reviewer: int | None
    verdict: str
    """``accepted``, ``fixed`` (changed by the reviewer, then accepted) or ``rejected``."""
    at: datetime


class Studio(Protocol):
    """Label Studio, through its public API. Every method may raise :class:`ConnectorError`."""

    def silence(self) -> AbstractContextManager[None]:
        """While it lasts, nothing is asked: whatever would raises :class:`Stopping`, and nobody waits to ask again."""
        ...

    def server(self) -> Server:
        """Edition, version, own user and capabilities (remembered for some minutes, then asked again)."""
        ...

    def refusals(self, project: int) -> Mapping[str, str]:
        """Enterprise: what labelguard's user may not do in a project, by capability, each as a sentence."""
        ...

    def time(self) -> datetime | None:
        """Label Studio's own clock now, to the second; None where it does not say."""
        ...

    def link(self, project: int, task: int, annotation: int | None = None) -> str:
        """Where a person sees a task (and annotation) in Label Studio."""
        ...

    def whoami(self, cookie: str) -> User | None:
        """The user a browser's Cookie header belongs to, or None. Set-Cookie answers are dropped."""
        ...

    def users(self) -> Sequence[User]:
        """All users that can be seen."""
        ...

    def project(self, project: int) -> Project:
        """One project."""
        ...

    def annotation(self, annotation: int) -> Annotation:
        """One annotation as it is now; raises :class:`NotFound` when it is gone."""
        ...

    def task(self, task: int) -> TaskRecord:
        """One task with its annotations as they are now."""
        ...

    def tasks_changed(
        self, project: int, since: datetime | None, *, after_id: int = 0, page_size: int = 100
    ) -> Iterator[TaskRecord]:
        """Tasks updated at or after ``since`` (all where None), by id, keyset-paged (never page 2)."""
        ...

    def tasks_named(self, project: int, tasks: Collection[int], *, page_size: int = 100) -> Iterator[TaskRecord]:
        """Those of these tasks that a project has, as they are now, by id; asked for ``page_size`` at a time."""
        ...

    def webhooks(self, project: int) -> Sequence[Webhook]:
        """The project's webhooks."""
        ...

    def create_webhook(self, project: int, url: str, actions: Sequence[str], headers: dict[str, str]) -> Webhook:
        """Create an active webhook that carries payloads."""
        ...

    def update_webhook(
        self, webhook: int, *, url: str, active: bool, actions: Sequence[str], headers: dict[str, str]
    ) -> None:
        """Set a webhook to exactly this."""
        ...

    def delete_webhook(self, webhook: int) -> None:
        """Delete a webhook; one that is already gone is fine."""
        ...

    def set_cancelled(self, annotation: int, cancelled: bool) -> None:
        """Set ``was_cancelled`` (``replace`` and its undo)."""
        ...

    def set_overlap(self, task: int, overlap: int, is_labeled: bool) -> None:
        """Set a task's overlap and ``is_labeled`` in one call (``second-opinion`` and its undo)."""
        ...

    def set_task_note(self, task: int, key: str, text: str) -> None:
        """Write one key of ``task.data``, reading with ``resolve_uri=false`` so that no link is lost.

        An empty text takes the key away again.
        """
        ...

    def set_label_config(self, project: int, label_config: str) -> None:
        """Replace a project's labeling interface (the line that shows the task note, and its removal)."""
        ...

    def comment(self, annotation: int, text: str, marker: str) -> None:
        """Enterprise: comment on an annotation unless labelguard has, with this marker."""
        ...

    def resolve_comment(self, annotation: int, marker: str) -> None:
        """Enterprise: mark our comment with this marker as resolved; one that is gone is fine."""
        ...

    def delete_comment(self, annotation: int, marker: str) -> None:
        """Enterprise: delete our comment with this marker; one that is gone is fine."""
        ...

    def review(self, review: int) -> Review | None:
        """Enterprise: a review as it is now, or None where it holds no verdict; raises :class:`NotFound`."""
        ...

    def assignees(self, project: int, task: int) -> Sequence[int]:
        """Enterprise: the annotators that a task is assigned to."""
        ...

    def assign(self, project: int, task: int, users: Sequence[int]) -> None:
        """Enterprise: assign a task to exactly these annotators."""
        ...

    def pause(self, project: int, user: int, reason: str, marker: str) -> None:
        """Enterprise: pause an annotator with a reason that they can read, unless they are paused.

        A pause with this marker that somebody has lifted is not made again.
        """
        ...

    def unpause(self, project: int, user: int, marker: str) -> None:
        """Enterprise: lift our pause with this marker; anybody else's stays."""
        ...


class Notifier(Protocol):
    """Chat, mail, pager."""

    def notify(self, target: str, title: str, body: str) -> None:
        """Send to a configured target (``settings.notify[target]``); raises :class:`ConnectorError`."""
        ...
