"""Where Label Studio delivers: authenticate, parse, make durable, answer."""

from __future__ import annotations

import logging
import threading
import time

import msgspec
import sqlalchemy as sa
import structlog
from flask import Blueprint, Response, request
from werkzeug.exceptions import RequestEntityTooLarge

from labelguard.engine import Engine
from labelguard.errors import json_error
from labelguard.events import BadDelivery
from labelguard.settings import Settings
from labelguard.store import Store, schema
from labelguard.store.core import StoreError
from labelguard.tokens import TOKEN_HEADER, token_matches
from labelguard.web.metrics import Metrics

# SQLite's and PostgreSQL's largest integer: a larger id is nobody's, and would be an error of the driver.
_LARGEST_ID = 2**63 - 1

REMEMBERED = 1.0
"""Seconds for which a project's token is not looked up again."""

log = logging.getLogger(__name__)


def webhook_blueprint(store: Store, engine: Engine, settings: Settings, metrics: Metrics) -> Blueprint:
    """``POST /webhook/<project>``."""
    blueprint = Blueprint("webhook", __name__)
    measured = metrics.instruments
    tokens = _Tokens(store)

    @blueprint.post("/webhook/<int:project>")
    def receive(project: int) -> Response:
        began = time.perf_counter()
        response = _answer(project)
        measured.answered(response.status_code, time.perf_counter() - began)
        return response

    def _answer(project: int) -> Response:
        # The token is looked at before the body, and an unknown project is answered like a wrong token:
        # who has no token learns nothing, and costs nothing.
        if not tokens.has(project, request.headers.get(TOKEN_HEADER, "")):
            measured.refused("unauthorized")
            return json_error(
                401,
                f"The {TOKEN_HEADER} header does not have this project's token. "
                "`labelguard connect` sets it on the webhook.",
            )
        try:
            body = request.get_data(cache=False)
        except RequestEntityTooLarge:
            size = request.content_length or 0
            measured.refused("too_large")
            return _refused(
                413,
                f"The body is too large: labelguard takes {settings.max_body_bytes:,} bytes at most. "
                "Set LABELGUARD_MAX_BODY_BYTES to take more.",
                project,
                size,
            )
        try:
            receipt, action = engine.take_in(project, body, wait=settings.inline_deadline)
        except BadDelivery as error:
            measured.refused(error.kind)
            return _refused(400, str(error), project, len(body))
        measured.taken(action, duplicate=receipt.duplicate, inline=receipt.processed)
        if log.isEnabledFor(logging.INFO):
            with structlog.contextvars.bound_contextvars(delivery=receipt.delivery):
                log.info("A delivery was taken in: %s of project %d", action, project)
        return Response(msgspec.json.encode(receipt), mimetype="application/json")

    def _refused(status: int, reason: str, project: int, size: int) -> Response:
        log.warning("A delivery for project %d was refused (%d): %s", project, status, reason)
        try:
            engine.reject(project, reason, size)
        except (StoreError, sa.exc.SQLAlchemyError) as error:
            # The sender's mistake stays the sender's mistake, also when it cannot be kept.
            log.error("A refused delivery could not be kept: %s", error)  # noqa: TRY400 - expected, no traceback
        return json_error(status, reason)

    return blueprint


class _Tokens:
    """Whether a project has a token, without asking the store for each of a busy project's deliveries."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[int, tuple[str, float]] = {}
        self._lock = threading.Lock()

    def has(self, project: int, token: str) -> bool:
        """Whether this is the project's token; one that was replaced may be taken for a second longer."""
        if project > _LARGEST_ID:
            return token_matches(token, None)
        now = time.monotonic()
        with self._lock:
            known, until = self._known.get(project, (None, 0.0))
            if known is not None and now >= until:
                # This one looks it up, the others go on: a busy project's all come to it at once, and so many
                # readers hold the store up for all.
                self._known[project] = (known, now + REMEMBERED)
        if known is not None and now < until and token_matches(token, known):
            return True
        # A token that does not match may be newer than what is remembered.
        with self._store.read() as conn:
            stored: str | None = conn.scalar(
                sa.select(schema.projects.c.token_hash).where(schema.projects.c.id == project)
            )
        if stored is not None:
            self._known[project] = (stored, now + REMEMBERED)
        else:
            self._known.pop(project, None)
        return token_matches(token, stored)
