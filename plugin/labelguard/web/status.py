"""The status page at ``/``: what is going on, and what needs a person. Works without scripts."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta

import sqlalchemy as sa
from flask import Blueprint, Response, redirect, render_template, request, send_from_directory, url_for
from werkzeug.wrappers import Response as AnyResponse

import labelguard_templates
from labelguard import __version__
from labelguard.connectors import ConnectorError
from labelguard.engine import Clock
from labelguard.outbox import Outbox, Refused
from labelguard.settings import Settings
from labelguard.store import Store, records
from labelguard.store.records import Row
from labelguard.web.bodies import storable_text
from labelguard.web.origin import from_another_page
from labelguard.web.overview import overview, with_note
from labelguard.web.sessions import Session, Sessions, Throttle, same

log = logging.getLogger(__name__)

_LARGEST_ID = 2**63 - 1
_LONGEST_NAME = 80
_LONGEST_NOTE = 1000
_FOLDER = labelguard_templates.path() / "status"
_ASSETS_LAST = 3600

# What the page says after a step; the address carries the word, so that nobody can put a text there.
_DONE = {
    "approved": "Approved: it will be carried out now.",
    "rejected": "Rejected: it will not be carried out.",
    "undone": "Undone.",
    "upheld": "Upheld: the finding stands.",
    "dismissed": "Dismissed: the finding was wrong.",
    "stopped": "All actions are stopped. Deliveries are still judged and findings kept.",
    "started": "Actions are running again.",
}


def status_blueprint(
    store: Store, outbox: Outbox, sessions: Sessions, throttle: Throttle, settings: Settings, clock: Clock
) -> Blueprint:
    """The page, its style sheet, signing in and out, and the forms on it."""
    blueprint = Blueprint("status", __name__)
    blueprint.add_app_template_filter(ago, "ago")
    blueprint.add_app_template_filter(seconds, "seconds")

    def page(template: str, status: int = 200, **values: object) -> Response:
        return Response(render_template(template, version=__version__, **values), status)

    def problem(status: int, sentence: str) -> Response:
        return Response(render_template("error.html", status=status, sentence=sentence), status)

    @blueprint.before_request
    def only_own_forms() -> Response | None:
        if request.method == "POST" and from_another_page(request):
            return problem(
                403, "This form was sent by another site's page. A proxy in front must keep the Host header."
            )
        return None

    @blueprint.get("/status.css")
    def style() -> Response:
        return send_from_directory(_FOLDER, "status.css", max_age=_ASSETS_LAST)

    @blueprint.get("/favicon.svg")
    def icon() -> Response:
        return send_from_directory(_FOLDER, "mark.svg", max_age=_ASSETS_LAST)

    @blueprint.get("/")
    def show() -> AnyResponse:
        session = sessions.current(request)
        if session is None:
            return page("signin.html", open=sessions.open, problem=None)
        project = _number(request.args.get("project"))
        with store.read() as conn:
            what = overview(conn, clock(), project)
        return page(
            "status.html",
            session=session,
            now=what["at"],
            done=_DONE.get(request.args.get("done", "")),
            studio_url=settings.studio_url.rstrip("/"),
            titles={each["id"]: each["title"] or f"project {each['id']}" for each in what["projects"]},
            **what,
        )

    @blueprint.post("/sign-in")
    def sign_in() -> AnyResponse:
        wait = round(throttle.wait(request.remote_addr).total_seconds())
        if wait > 0:
            answer = page(
                "signin.html",
                429,
                open=sessions.open,
                problem=f"Too many attempts failed. Try again in {wait} seconds.",
            )
            answer.headers["Retry-After"] = str(wait)
            return answer
        response = redirect(url_for("status.show"), 303)
        name = storable_text(" ".join(request.form.get("name", "").split())[:_LONGEST_NAME])
        if sessions.start(request, response, request.form.get("token", "").strip(), name or "status page"):
            throttle.passed(request.remote_addr)
            log.info("Somebody signed in to the status page")
            return response
        throttle.failed(request.remote_addr)
        log.warning("A sign-in to the status page failed")
        return page("signin.html", 403, open=sessions.open, problem="This is not the API token.")

    @blueprint.post("/sign-out")
    def sign_out() -> AnyResponse:
        session = _signed_in()
        response = redirect(url_for("status.show"), 303)
        if isinstance(session, Session):
            sessions.end(session, response)
        return response

    @blueprint.post("/actions/<int:action>/<any(approve, reject, undo):step>")
    def decide_action(action: int, step: str) -> AnyResponse:
        session = _signed_in()
        if not isinstance(session, Session):
            return session
        steps: dict[str, tuple[Callable[[int, str], None], str]] = {
            "approve": (outbox.approve, "approved"),
            "reject": (outbox.reject, "rejected"),
            "undo": (outbox.undo, "undone"),
        }
        decide, done = steps[step]
        if _found(records.get_action, action) is None:
            return problem(404, f"There is no action {action}.")
        try:
            decide(action, session.by)
        except Refused as error:
            return problem(409, str(error))
        except ConnectorError as error:
            return problem(502, str(error))
        return _back(done)

    @blueprint.post("/findings/<int:finding>/<any(uphold, dismiss):step>")
    def decide_finding(finding: int, step: str) -> AnyResponse:
        session = _signed_in()
        if not isinstance(session, Session):
            return session
        state = {"uphold": "upheld", "dismiss": "dismissed"}[step]
        found = _found(records.get_finding, finding)
        if found is None:
            return problem(404, f"There is no finding {finding}.")
        note = with_note(found, session.by, storable_text(request.form.get("note", "").strip()[:_LONGEST_NOTE]))
        try:
            store.write(
                lambda conn: records.set_finding_state(conn, finding, state, by=session.by, note=note, now=clock())
            )
        except ValueError as error:
            return problem(409, str(error))
        return _back(state)

    @blueprint.post("/switch/<any(stop, start):step>")
    def switch(step: str) -> AnyResponse:
        session = _signed_in()
        if not isinstance(session, Session):
            return session
        enabled = step == "start"
        store.write(lambda conn: records.set_actions_enabled(conn, enabled, by=session.by, now=clock()))
        return _back("started" if enabled else "stopped")

    def _signed_in() -> Session | Response:
        """The session a form was sent in, or the page to answer where it cannot be trusted."""
        session = sessions.current(request)
        if session is None:
            return page("signin.html", 401, open=sessions.open, problem="Please sign in first.")
        if not same(request.form.get("csrf", ""), session.csrf):
            sentence = "This form was not made for your session. Go back, reload the page and try again."
            return problem(403, sentence)
        return session

    def _found(get: Callable[[sa.Connection, int], Row | None], wanted: int) -> Row | None:
        if wanted > _LARGEST_ID:
            return None
        with store.read() as conn:
            return get(conn, wanted)

    def _back(done: str) -> AnyResponse:
        project = _number(request.args.get("project"))
        return redirect(url_for("status.show", done=done, project=project), 303)

    return blueprint


def ago(moment: datetime | None, now: datetime) -> str:
    """How long ago, in the largest fitting unit: ``3 min ago``."""
    if moment is None:
        return "never"
    if now - moment < timedelta(seconds=10):
        return "just now"
    return f"{seconds((now - moment).total_seconds())} ago"


def seconds(length: float | None) -> str:
    """A length of time in the largest fitting unit."""
    if length is None:
        return "–"
    if length < 1:
        return f"{length * 1000:.0f} ms"
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if length >= size:
            return f"{length / size:.0f} {unit}"
    return f"{length:.1f} s" if length < 10 else f"{length:.0f} s"


def _number(given: str | None) -> int | None:
    """A project's number from an address; anything else is no filter."""
    if given and given.isascii() and given.isdigit() and len(given) <= 18:
        return int(given)
    return None
