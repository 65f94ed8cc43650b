"""The application: blueprints, the headers on everything served, and errors as sentences."""

from __future__ import annotations

import logging
import secrets
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from flask import Flask, Response, render_template, request
from flask.json.provider import DefaultJSONProvider
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

import labelguard_templates
from labelguard.connectors import Studio
from labelguard.engine import Clock, Engine
from labelguard.errors import json_error
from labelguard.outbox import Outbox
from labelguard.settings import Settings
from labelguard.store import Store
from labelguard.store.core import StoreError
from labelguard.web.api import api_blueprint
from labelguard.web.forwarded import TrustedProxies
from labelguard.web.health import health_blueprint
from labelguard.web.metrics import Metrics
from labelguard.web.page import page_blueprint
from labelguard.web.protected import Protected, is_in_studio
from labelguard.web.sessions import Sessions, Throttle
from labelguard.web.status import status_blueprint
from labelguard.web.webhook import webhook_blueprint

log = logging.getLogger(__name__)

_SENTENCES = {
    400: "The request cannot be understood.",
    404: "There is nothing at this address.",
    405: "This address does not take that method.",
    413: "The request is too large.",
    415: "The request has a content type that cannot be read here.",
}

# Wrong API tokens, at the sign-in and the API together.
_FAILURES_OF_ONE_ADDRESS = 10
_FAILURES_IN_ALL = 100
_FAILURES_WITHIN = timedelta(minutes=5)


class _Json(DefaultJSONProvider):
    """Flask's JSON with times in ISO form, and keys in the order they were given."""

    sort_keys = False

    @staticmethod
    def default(value: Any) -> Any:
        """What JSON has no form for."""
        return value.isoformat() if isinstance(value, datetime) else DefaultJSONProvider.default(value)


def create_app(
    store: Store,
    engine: Engine,
    outbox: Outbox,
    studio: Studio | None,
    settings: Settings,
    clock: Clock,
    *,
    patience: float = 0.8,
) -> Flask:
    """Put the service together.

    Without ``studio`` the page answers from what the store has, and nobody can be recognised there.
    ``patience`` is how many seconds a page that asks for prompts may be kept waiting.
    """
    app = Flask("labelguard", template_folder=str(labelguard_templates.path() / "status"), static_folder=None)
    app.json = _Json(app)
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    app.jinja_env.trim_blocks = True
    app.jinja_env.lstrip_blocks = True

    metrics = Metrics(store, engine, clock)
    # Made at random for each start when not configured: people sign in again after a restart.
    secret = settings.secret_key.get_secret_value() or secrets.token_urlsafe(32)
    sessions = Sessions(secret, settings.api_token.get_secret_value(), store, clock)
    throttle = Throttle(_FAILURES_OF_ONE_ADDRESS, _FAILURES_IN_ALL, _FAILURES_WITHIN, clock)

    app.register_blueprint(webhook_blueprint(store, engine, settings, metrics))
    app.register_blueprint(health_blueprint(store, engine, metrics, clock))
    app.register_blueprint(api_blueprint(store, outbox, throttle, settings, clock))
    app.register_blueprint(page_blueprint(store, engine, studio, settings, clock, patience=patience))
    app.register_blueprint(status_blueprint(store, outbox, sessions, throttle, settings, clock))

    app.wsgi_app = TrustedProxies(Protected(app.wsgi_app), settings.trusted_proxies)  # type: ignore[method-assign]
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(StoreError, _store_error)
    app.register_error_handler(sa.exc.SQLAlchemyError, _store_error)
    app.register_error_handler(Exception, _bug)
    return app


def _http_error(error: HTTPException) -> Response:
    status = error.code or 500
    if isinstance(error, RequestEntityTooLarge):
        limit = request.max_content_length
        return _answer(413, f"The body is too large: labelguard takes {limit:,} bytes at most.")
    response = _answer(status, _SENTENCES.get(status, f"{error.name}."))
    for name, value in error.get_headers(request.environ):
        if name.lower() == "allow":
            response.headers[name] = value
    return response


def _store_error(error: Exception) -> Response:
    # SQLAlchemy's own words would repeat the statement with its values, a whole delivery among them.
    log.error("The store cannot be used: %s", getattr(error, "orig", None) or error)
    response = _answer(503, "labelguard cannot use its store right now. Nothing was taken in; try again shortly.")
    response.headers["Retry-After"] = "10"
    return response


def _bug(error: Exception) -> Response:
    log.error("An answer failed", exc_info=error)
    return _answer(500, "Something went wrong inside labelguard. Its log has the details.")


def _answer(status: int, sentence: str) -> Response:
    """An error in the language of who asks: a page for browsers, JSON for programs."""
    wants_page = request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html"
    if wants_page and request.blueprint in {"status", None} and not _in_studio():
        return Response(render_template("error.html", status=status, sentence=sentence), status)
    return json_error(status, sentence)


def _in_studio() -> bool:
    """Whether a request is for what is served on Label Studio's own address, where no page of ours may be."""
    return is_in_studio(request.path)
