"""labelguard's webhook in a Label Studio project: finding it, saying what is wrong, setting it right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from labelguard.connectors import NotFound, Studio, Webhook
from labelguard.store import Store, records
from labelguard.tokens import TOKEN_HEADER, hash_token, new_token


@dataclass(frozen=True, slots=True)
class Standing:
    """How labelguard's webhook stands in a project."""

    ours: Webhook | None
    """The webhook that is, or can be made, the right one."""
    surplus: tuple[Webhook, ...] = ()
    """Further webhooks of ours."""
    problems: tuple[str, ...] = ()
    """What is wrong, as sentences; empty when all is well."""


def webhook_url(public_url: str, project: int) -> str:
    """Where Label Studio sends a project's deliveries."""
    return f"{public_url.rstrip('/')}/webhook/{project}"


def standing(webhooks: Sequence[Webhook], *, url: str, actions: Sequence[str], known: int | None) -> Standing:
    """Compare a project's webhooks with what should be there.

    Ours are those at our address, and the one we made (``known``) if it still has our header: somebody else's
    webhook, and that of another labelguard, is never touched.
    """
    ours = [w for w in webhooks if w.url == url or (w.id == known and _has_token(w))]
    # The one we made comes first, then one that still works.
    ours.sort(key=lambda w: (w.id != known, w.url != url, not w.active, w.id))
    if not ours:
        return Standing(None, (), ("The webhook is gone.",))
    best, *surplus = ours
    problems = []
    if not best.active:
        problems.append("The webhook is switched off.")
    if best.url != url:
        problems.append("The webhook has another address.")
    if best.all_actions or set(best.actions) != set(actions):
        problems.append("The webhook is sent for other events.")
    if not best.payload:
        problems.append("The webhook does not carry its payload.")
    if not _has_token(best):
        problems.append(f"The webhook has lost its header {TOKEN_HEADER}.")
    if surplus:
        more = "is one more webhook" if len(surplus) == 1 else f"are {len(surplus)} more webhooks"
        problems.append(f"There {more} at the same address.")
    return Standing(best, tuple(surplus), tuple(problems))


def set_right(
    store: Store,
    studio: Studio,
    project: int,
    found: Standing,
    *,
    url: str,
    actions: Sequence[str],
    connected_at: datetime,
) -> int:
    """Leave exactly one right webhook with a fresh token, remember it, and return its id.

    The token's hash is kept before Label Studio learns the token: no delivery ever meets a receiver that does
    not know it. When Label Studio refuses, the connection is remembered as it was.

    Raises:
        ConnectorError: Label Studio refused or did not answer.
    """
    token = new_token()
    kept = hash_token(token)
    headers = {TOKEN_HEADER: token}
    with store.read() as conn:
        before = records.get_project(conn, project) or {}

    def remember(webhook: int | None) -> None:
        store.write(
            lambda conn: records.set_connection(
                conn, project, connected_at=connected_at, webhook_id=webhook, webhook_url=url, token_hash=kept
            )
        )

    remember(found.ours.id if found.ours else None)
    try:
        webhook = None
        if found.ours is not None:
            try:
                studio.update_webhook(found.ours.id, url=url, active=True, actions=actions, headers=headers)
                webhook = found.ours.id
            except NotFound:
                webhook = None  # deleted since it was listed
        if webhook is None:
            webhook = studio.create_webhook(project, url, actions, headers).id
    except Exception:
        store.write(
            lambda conn: records.set_connection(
                conn,
                project,
                connected_at=before.get("connected_at"),
                webhook_id=before.get("webhook_id"),
                webhook_url=before.get("webhook_url"),
                token_hash=before.get("token_hash"),
            )
        )
        raise
    remember(webhook)
    # Whoever had the old token has it in vain: what it is used for from now on is news.
    store.write(lambda conn: records.forget_doubts(conn, project))
    for each in found.surplus:
        studio.delete_webhook(each.id)
    return webhook


def _has_token(webhook: Webhook) -> bool:
    return TOKEN_HEADER.lower() in {name.lower() for name in webhook.headers}
