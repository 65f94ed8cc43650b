"""The watchdog: labelguard's webhook stays as it should be.

Any annotator may switch a Community webhook off or delete it, and Label Studio itself switches off one that
failed too often, so its state is looked at on a schedule, set right, and reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from labelguard.connectors import ConnectorError, Notifier, Studio
from labelguard.engine import Clock
from labelguard.store import Store, records
from labelguard.webhooks import set_right, standing, webhook_url

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class WatchReport:
    """What the watchdog saw in one project."""

    project: int
    connected: bool
    """Whether the project is connected at all; the watchdog leaves others alone."""
    problems: tuple[str, ...] = ()
    """What was wrong, as sentences."""
    repaired: bool = False
    webhook: int | None = None
    """The webhook's id, which is new where it had to be made again."""
    notified: tuple[str, ...] = ()
    """The alert targets that were told."""


def watch(
    store: Store,
    studio: Studio,
    project: int,
    *,
    public_url: str,
    clock: Clock,
    notifier: Notifier | None = None,
    targets: Sequence[str] = (),
    events: Sequence[str] | None = None,
) -> WatchReport:
    """Look at a project's webhook, repair it where it needs it, and tell ``targets``.

    ``events`` are the webhook's actions, those of the manifest by default. What was missed in the meantime is
    reconciliation's to find.

    Raises:
        ConnectorError: Label Studio did not let us look or repair.
    """
    with store.read() as conn:
        row = records.get_project(conn, project)
    if row is None or row["connected_at"] is None:
        return WatchReport(project, connected=False)
    if events is None:
        from labelguard.manifest import events_for

        events = events_for(studio.server())
    url = webhook_url(public_url, project)
    found = standing(studio.webhooks(project), url=url, actions=events, known=row["webhook_id"])
    problems = list(found.problems)
    if row["token_hash"] is None:
        problems.append("labelguard has no token for this project's webhook.")
    if not problems:
        return WatchReport(project, connected=True, webhook=row["webhook_id"])
    webhook = set_right(store, studio, project, found, url=url, actions=events, connected_at=row["connected_at"])
    log.warning("webhook repaired", project=project, webhook=webhook, problems=problems, at=clock().isoformat())
    title = f"labelguard repaired its webhook in project {project} ({row['title']})"
    body = (
        " ".join(problems) + " It has been set right, with a new token. "
        "Who did it cannot be known: Label Studio lets everybody who is signed in change webhooks, and keeps no "
        "record of it. What happened in between is picked up by the next reconciliation."
    )
    return WatchReport(
        project,
        connected=True,
        problems=tuple(problems),
        repaired=True,
        webhook=webhook,
        notified=tuple(target for target in targets if notifier and _told(notifier, target, title, body)),
    )


def _told(notifier: Notifier, target: str, title: str, body: str) -> bool:
    """Tell one target; an alert that does not arrive must not undo a repair that worked."""
    try:
        notifier.notify(target, title, body)
    except ConnectorError as error:
        log.warning("alert not sent", target=target, error=str(error))
        return False
    return True
