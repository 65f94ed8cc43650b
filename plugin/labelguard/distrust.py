"""What deliveries say and Label Studio does not confirm: noted, counted, and told to the admin.

Any annotator of Label Studio Community can read the webhook's token and post whatever they like with it. So a
delivery is a hint, reconciliation compares each with Label Studio itself, and what differs is noted here. A
*contradiction* cannot be explained by a delivery that was lost or late: Label Studio would show a later
version, or a newer time on the task. The rest is worth knowing, and explained by ordinary haste as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import sqlalchemy as sa
import structlog

from labelguard.connectors import ConnectorError, Notifier
from labelguard.engine import Clock
from labelguard.store import Store, records
from labelguard.store.records import Row

log = structlog.get_logger(__name__)

CONTRADICTIONS = {
    "annotation": "told of annotations that Label Studio does not have",
    "version": "told of versions of annotations that Label Studio does not have",
    "people": "named others as author or editor than Label Studio does",
    "deletion": "said that something was deleted which is still there",
    "task": "described tasks otherwise than Label Studio does",
    "project": "described the project otherwise than Label Studio does",
    "elsewhere": "were about another project's tasks",
}
"""Kinds of doubts that no lost or late delivery explains: what the deliveries did."""

REMARKS = {
    "unconfirmed": "told of annotations that were gone before Label Studio could be asked about them",
    "own-ground-truth": "brought submissions that their author marked as ground truth while submitting, which no "
    "rule judges",
}
"""Kinds of doubts that have harmless explanations as well."""

TELL_AGAIN = timedelta(days=1)
"""The admin is told of further contradictions in the same project after this."""


def contradictions(found: Sequence[Row]) -> list[Row]:
    """The doubts that no lost or late delivery explains."""
    return [row for row in found if row["kind"] in CONTRADICTIONS]


def sentence(found: Sequence[Row]) -> str:
    """What one project's deliveries said that is not so; empty where there is nothing."""
    wrong = contradictions(found)
    if not wrong:
        return ""
    count = sum(row["count"] for row in wrong)
    since = min(row["since"] for row in wrong)
    kinds = "; ".join(f"{row['count']} {CONTRADICTIONS[row['kind']]}" for row in wrong)
    newest = max(wrong, key=lambda row: row["last_at"])
    return (
        f"Deliveries that Label Studio does not confirm: {count} since {since:%Y-%m-%d %H:%M} UTC ({kinds}). "
        f"The newest: {newest['example']}"
    )


def remarks(found: Sequence[Row]) -> str:
    """What is worth knowing and has harmless explanations; empty where there is nothing."""
    return " ".join(
        f"{row['count']} deliveries {REMARKS[row['kind']]}; the newest: {row['example']}"
        for row in found
        if row["kind"] in REMARKS
    )


def advice(project: int) -> str:
    """What to do about contradictions."""
    return (
        "Somebody may have the webhook's token, which every user of Label Studio Community can read; who it is "
        f"cannot be known from the deliveries. `labelguard connect --project {project}` gives the webhook a new "
        "token and counts afresh. A Label Studio that was set back to a backup looks the same."
    )


def tell(store: Store, notifier: Notifier | None, targets: Sequence[str], project: int, *, clock: Clock) -> list[str]:
    """Tell ``targets`` of contradictions not told of in the last day; returns who heard of them."""
    with store.read() as conn:
        wrong = contradictions(records.list_doubts(conn, project))
        row = records.get_project(conn, project) or {}
    now = clock()
    told = max((doubt["told_at"] for doubt in wrong if doubt["told_at"] is not None), default=None)
    fresh = [doubt for doubt in wrong if told is None or doubt["last_at"] > told]
    if not fresh or (told is not None and now - told < TELL_AGAIN):
        return []
    body = f"{sentence(wrong)} {advice(project)}"
    log.warning("deliveries not confirmed", project=project, count=sum(doubt["count"] for doubt in wrong))
    title = f"labelguard got deliveries that Label Studio does not confirm, in project {project} ({row.get('title')})"
    heard = [target for target in targets if notifier is not None and _told(notifier, target, title, body)]
    if heard or not targets:
        store.write(lambda conn: records.doubts_told(conn, project, now))
    return heard


def counted(conn: sa.Connection) -> dict[str, int]:
    """Doubts of all projects by kind, every kind present."""
    counts = dict.fromkeys([*CONTRADICTIONS, *REMARKS], 0)
    for row in records.list_doubts(conn):
        counts[row["kind"]] = counts.get(row["kind"], 0) + row["count"]
    return counts


def _told(notifier: Notifier, target: str, title: str, body: str) -> bool:
    try:
        notifier.notify(target, title, body)
    except ConnectorError as error:
        log.warning("alert not sent", target=target, error=str(error))
        return False
    return True
