"""Connecting a project to labelguard, and letting go of it again."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import quoteattr

from labelguard.connectors import NotFound, Server, Studio
from labelguard.engine import Clock, Engine
from labelguard.events import Project
from labelguard.labelconfig import LabelConfig
from labelguard.manifest import events_for, load_manifest
from labelguard.outbox import Outbox
from labelguard.reconcile import Progress, ReconcileReport, note_clock, reconcile
from labelguard.store import Store, records
from labelguard.webhooks import Standing, set_right, standing, webhook_url


class CannotConnect(ValueError):
    """The project cannot be connected as asked; the message is a sentence."""


@dataclass(frozen=True, slots=True)
class ConnectReport:
    """What connecting did, or with a dry run would do."""

    project: Project
    server: Server
    dry_run: bool
    steps: tuple[str, ...]
    """What was done (would be done), as sentences in order."""
    first: bool
    """Whether the project was not connected before."""
    webhook: int | None = None
    backfill: ReconcileReport | None = None


@dataclass(frozen=True, slots=True)
class DisconnectReport:
    """What disconnecting did."""

    project: int
    undone: int
    """Effects in Label Studio that were taken back."""
    webhooks: int
    """Webhooks that were deleted."""
    note_removed: bool
    """Whether the line showing the task note was taken out of the labeling interface."""
    steps: tuple[str, ...]
    """What was done, as sentences in order."""


def connect(
    store: Store,
    engine: Engine,
    studio: Studio,
    project: int,
    *,
    public_url: str,
    clock: Clock,
    events: Sequence[str] | None = None,
    task_note: str | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> ConnectReport:
    """Connect a project: its webhook, its people, and everything that was annotated before.

    Can be repeated: it leaves one webhook, with a fresh token, and feeds only what the store does not have.
    What is fed in makes findings and never actions. ``events`` are the webhook's actions, those of the
    manifest by default; ``task_note`` is the key of ``task.data`` whose text the labeling interface shall
    show. ``progress`` is told how many tasks have been looked at.

    Raises:
        ConnectorError: Label Studio refused or did not answer.
        CannotConnect: the labeling interface cannot take the task note.
    """
    server = studio.server()
    info = studio.project(project)
    manifest = load_manifest()
    if events is None:
        events = events_for(server)
    url = webhook_url(public_url, project)
    with store.read() as conn:
        row = records.get_project(conn, project) or {}
        old_note = records.get_cursor(conn, _note_cursor(project))
    found = standing(studio.webhooks(project), url=url, actions=events, known=row.get("webhook_id"))
    first = row.get("connected_at") is None
    plain = info.label_config
    if old_note and old_note != task_note:
        plain = _without_note(plain, old_note)
    noted = _with_note(plain, task_note) if task_note else plain
    steps = [_webhook_step(found, url, dry_run=dry_run)]
    if plain != info.label_config:
        steps.append(f"{_did('Remove', dry_run)} the line that shows “{old_note}” from the labeling interface.")
    if noted != plain:
        steps.append(f"{_did('Add', dry_run)} a line that shows “{task_note}” to the labeling interface.")
    if dry_run:
        steps.append("Would read every annotated task, without any action.")
        steps += _permissions(manifest, server)
        return ConnectReport(info, server, True, tuple(steps), first)

    # Before the webhook goes live: a submission that comes in while the past is read is not the past.
    connected_at = row.get("connected_at") or clock() + note_clock(store, studio, clock)
    store.write(lambda conn: records.save_project(conn, info, clock()))
    people = studio.users()
    store.write(lambda conn: records.save_annotators(conn, people))
    webhook = set_right(store, studio, project, found, url=url, actions=events, connected_at=connected_at)
    if noted != info.label_config:
        studio.set_label_config(project, noted)
        store.write(lambda conn: records.set_cursor(conn, _note_cursor(project), task_note, clock()))
    backfill = reconcile(store, engine, studio, project, clock=clock, full=True, origin="backfill", progress=progress)
    steps.append(
        f"Read {backfill.tasks} tasks: {backfill.new} annotations were new to labelguard, "
        f"{backfill.changed} had changed, {backfill.deleted} were gone."
    )
    return ConnectReport(info, server, False, tuple(steps), first, webhook, backfill)


def disconnect(
    store: Store, outbox: Outbox, studio: Studio, project: int, *, by: str, clock: Clock
) -> DisconnectReport:
    """Take back what labelguard changed in a project, delete its webhook, and forget the connection.

    Findings and history stay in the store. A project that is gone in Label Studio is simply forgotten.

    Raises:
        ConnectorError: Label Studio refused or did not answer; what was not taken back still stands, and
            disconnecting again goes on where it stopped.
    """
    with store.read() as conn:
        row = records.get_project(conn, project) or {}
        note = records.get_cursor(conn, _note_cursor(project))
    undone = outbox.undo_all(project, by)
    deleted = 0
    removed = False
    try:
        info = studio.project(project)
    except NotFound:
        info = None
    if info is not None:
        found = standing(
            studio.webhooks(project),
            url=row.get("webhook_url") or "",
            actions=(),
            known=row.get("webhook_id"),
        )
        for each in (*([found.ours] if found.ours else []), *found.surplus):
            studio.delete_webhook(each.id)
            deleted += 1
        without = _without_note(info.label_config, note) if note else info.label_config
        removed = without != info.label_config
        if removed:
            studio.set_label_config(project, without)
    if note:
        store.write(lambda conn: records.set_cursor(conn, _note_cursor(project), None, clock()))
    if row:
        store.write(
            lambda conn: records.set_connection(
                conn, project, connected_at=None, webhook_id=None, webhook_url=None, token_hash=None
            )
        )
    steps = [f"Took back {undone} effects.", f"Deleted {deleted} webhooks."]
    if removed:
        steps.append(f"Took the line that shows “{note}” out of the labeling interface.")
    return DisconnectReport(project, undone, deleted, removed, tuple(steps))


def _permissions(manifest: Mapping[str, Any], server: Server) -> list[str]:
    """What labelguard's user must be allowed on this server, for the admin who decides about it."""
    needed = manifest["permissions"][server.edition.lower()]
    lines = [f"  {each['why']}: {', '.join(each['calls'])}" for each in needed]
    return [f"From now on {server.user.email} would use, on this Label Studio {server.edition}:", *lines]


def _did(verb: str, dry_run: bool) -> str:
    return f"Would {verb.lower()}" if dry_run else f"{verb.removesuffix('e')}ed"


def _webhook_step(found: Standing, url: str, *, dry_run: bool) -> str:
    if found.ours is None:
        return f"{_did('Create', dry_run)} a webhook to {url}."
    if found.problems:
        return f"{_did('Repair', dry_run)} the webhook to {url}: {' '.join(found.problems)}"
    return f"{_did('Renew', dry_run)} the token of the webhook to {url}."


# The task note. A tag with a name would make Label Studio refuse every later import whose tasks lack the
# key; a Header without a name is shown where a task has the key and asks nothing of the others.


# Possessive throughout (`++`, `*+`): with what is tried again, blanks before a lone tag would take for ever.
_OPENING_TAG = re.compile(
    r"""(?:\s++|<\?.*?\?>|<!--.*?-->)*+<[A-Za-z](?:[^>"']|"[^"]*+"|'[^']*+')*+(?<!/)>""", re.DOTALL
)


def _note_line(key: str) -> str:
    return f'<Header value={quoteattr("$" + key)} size="5"/>'


def _with_note(label_config: str, key: str) -> str:
    """The labeling interface with a line that shows ``key`` at its top; unchanged where something shows it."""
    problem = LabelConfig.parse(label_config).problem
    if problem:
        raise CannotConnect(f"The task note cannot be added to the labeling interface: {problem}")
    if re.search(rf"""value\s*=\s*["']\${re.escape(key)}["']""", label_config):
        return label_config
    # Written into the text, not out of a parsed tree: comments and layout are the admin's.
    opening = _OPENING_TAG.match(label_config)
    if opening is None:
        raise CannotConnect(
            "The task note cannot be added to the labeling interface: it has no tag with others inside it."
        )
    end = opening.end() - 1
    return f"{label_config[: end + 1]}{_note_line(key)}{label_config[end + 1 :]}"


def _without_note(label_config: str, key: str) -> str:
    return label_config.replace(_note_line(key), "", 1)


def _note_cursor(project: int) -> str:
    return f"task-note:{project}"
