"""``/api/v1``: findings, actions, policies and status for programs. Described in ``docs/api.md``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flask import Blueprint, Response, jsonify, request

from labelguard.connectors import ConnectorError
from labelguard.engine import Clock
from labelguard.errors import json_error
from labelguard.outbox import Outbox, Refused
from labelguard.policy import BadPolicy, load_policy
from labelguard.reviews import with_reviews
from labelguard.settings import Settings
from labelguard.store import Store, records
from labelguard.web.bodies import json_object
from labelguard.web.origin import from_another_page
from labelguard.web.overview import ACTION_STATES, FINDING_STATES, list_actions, overview, with_note
from labelguard.web.sessions import Throttle, same

BY = "api"
"""Who decided, in the records, where a program did."""

_PAGE = 100
_LARGEST_PAGE = 1000
_LARGEST_ID = 2**63 - 1


class _RequestError(Exception):
    """A request that cannot be answered, with the sentence to answer instead."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def api_blueprint(store: Store, outbox: Outbox, throttle: Throttle, settings: Settings, clock: Clock) -> Blueprint:
    """``/api/v1/findings|actions|policies|status``, for bearers of ``settings.api_token``."""
    blueprint = Blueprint("api", __name__, url_prefix="/api/v1")
    token = settings.api_token.get_secret_value()

    @blueprint.before_request
    def authenticate() -> Response | None:
        if not token:
            return json_error(403, "The API is closed: set LABELGUARD_API_TOKEN to a long random value to open it.")
        if from_another_page(request):
            return json_error(403, "The API is for programs; requests of other sites' pages are refused.")
        kind, _, given = request.headers.get("Authorization", "").partition(" ")
        if given and (wait := round(throttle.wait(request.remote_addr).total_seconds())) > 0:
            return json_error(
                429, f"Too many wrong tokens. Try again in {wait} seconds.", headers={"Retry-After": str(wait)}
            )
        if kind.lower() == "bearer" and same(given.strip(), token):
            throttle.passed(request.remote_addr)
            return None
        if given:
            throttle.failed(request.remote_addr)
        return json_error(
            401,
            "The Authorization header does not have the API token: send `Authorization: Bearer <token>` "
            "with the value of LABELGUARD_API_TOKEN.",
            headers={"WWW-Authenticate": "Bearer"},
        )

    @blueprint.errorhandler(_RequestError)
    def explain(error: _RequestError) -> Response:
        return json_error(error.status, str(error))

    @blueprint.get("/findings")
    def findings() -> Response:
        asked = _Query("project", "rule", "annotator", "annotation", "state", "after", "limit")
        state = asked.one_of("state", FINDING_STATES)
        limit = asked.limit()
        with store.read() as conn:
            rows = records.list_findings(
                conn,
                project=asked.number("project"),
                rule=asked.text("rule"),
                annotator=asked.number("annotator"),
                annotation=asked.number("annotation"),
                state=state,
                after=asked.number("after") or 0,
                limit=limit + 1,
            )
            rows = with_reviews(conn, rows)
        return _page("findings", rows, limit)

    @blueprint.get("/findings/<int:finding>")
    def one_finding(finding: int) -> Response:
        row = _existing(store, records.get_finding, finding, "finding")
        with store.read() as conn:
            return jsonify(with_reviews(conn, [row])[0])

    @blueprint.post("/findings/<int:finding>/<any(uphold, dismiss):step>")
    def decide_finding(finding: int, step: str) -> Response:
        note = with_note(_existing(store, records.get_finding, finding, "finding"), BY, _note())
        state = {"uphold": "upheld", "dismiss": "dismissed"}[step]
        try:
            store.write(lambda conn: records.set_finding_state(conn, finding, state, by=BY, note=note, now=clock()))
        except ValueError as error:
            return json_error(409, str(error))
        return one_finding(finding)

    @blueprint.get("/actions")
    def actions() -> Response:
        asked = _Query("project", "rule", "annotator", "kind", "finding", "state", "after", "limit")
        state = asked.one_of("state", ACTION_STATES)
        limit = asked.limit()
        with store.read() as conn:
            rows = list_actions(
                conn,
                project=asked.number("project"),
                rule=asked.text("rule"),
                annotator=asked.number("annotator"),
                kind=asked.text("kind"),
                finding=asked.number("finding"),
                states=None if state is None else [state],
                after=asked.number("after") or 0,
                limit=limit + 1,
            )
        return _page("actions", rows, limit)

    @blueprint.get("/actions/<int:action>")
    def one_action(action: int) -> Response:
        return jsonify(_existing(store, records.get_action, action, "action"))

    @blueprint.post("/actions/<int:action>/<any(approve, reject, undo):step>")
    def decide_action(action: int, step: str) -> Response:
        _existing(store, records.get_action, action, "action")
        decide = {"approve": outbox.approve, "reject": outbox.reject, "undo": outbox.undo}[step]
        try:
            decide(action, BY)
        except Refused as error:
            return json_error(409, str(error))
        except ConnectorError as error:
            return json_error(502, str(error))
        return one_action(action)

    @blueprint.get("/policies")
    def policies() -> Response:
        asked = _Query("project")
        project = asked.number("project")
        with store.read() as conn:
            known = [row["id"] for row in records.list_projects(conn)] if project is None else [project]
            newest = [records.get_policy(conn, each) for each in known]
        return jsonify({"policies": [row for row in newest if row is not None]})

    @blueprint.get("/policies/<int:project>")
    def one_policy(project: int) -> Response:
        asked = _Query("version")
        version = asked.number("version")
        found = None
        if project <= _LARGEST_ID:
            with store.read() as conn:
                found = records.get_policy(conn, project, version)
        if found is None:
            which = "" if version is None else f" with version {version}"
            return json_error(404, f"Project {project} has no policy{which}.")
        return jsonify(found)

    @blueprint.put("/policies/<int:project>")
    def apply_policy(project: int) -> Response:
        try:
            text = request.get_data(cache=False).decode()
        except UnicodeDecodeError as error:
            return json_error(400, f"The policy must be YAML in UTF-8, but byte {error.start} is not UTF-8.")
        _existing(store, records.get_project, project, "project")
        try:
            policy = load_policy(text, "policy")
        except BadPolicy as error:
            problems = [{"where": p.where, "key": p.key, "message": p.message} for p in error.problems]
            count = "one mistake" if len(problems) == 1 else f"{len(problems)} mistakes"
            return json_error(400, f"The policy has {count}; nothing was changed.", problems=problems)
        if policy.project != project:
            return json_error(
                400,
                f"The policy is for project {policy.project}, but was sent to project {project}'s address.",
            )
        version = store.write(lambda conn: records.add_policy(conn, project, text, clock(), by=BY))
        return jsonify({"project": project, "version": version})

    @blueprint.get("/status")
    def status() -> Response:
        asked = _Query("project")
        with store.read() as conn:
            return jsonify(overview(conn, clock(), asked.number("project")))

    return blueprint


class _Query:
    """The query string, in which a misspelt filter is a mistake and not everything."""

    def __init__(self, *known: str) -> None:
        for name in request.args:
            if name not in known:
                raise _RequestError(400, f"There is no filter {name!r} here; there is {', '.join(known)}.")

    def text(self, name: str) -> str | None:
        return request.args.get(name)

    def number(self, name: str) -> int | None:
        given = request.args.get(name)
        if given is None:
            return None
        # At most 19 digits: int() of a very long text is slow, and refused beyond 4,300 digits.
        if not (given.isascii() and given.isdigit() and len(given) <= 19 and int(given) <= _LARGEST_ID):
            raise _RequestError(400, f"{name!r} must be a whole number from 0 to {_LARGEST_ID}.")
        return int(given)

    def limit(self) -> int:
        limit = self.number("limit")
        if limit is None:
            return _PAGE
        if not 1 <= limit <= _LARGEST_PAGE:
            raise _RequestError(400, f"'limit' must be from 1 to {_LARGEST_PAGE}.")
        return limit

    def one_of(self, name: str, known: tuple[str, ...]) -> str | None:
        given = request.args.get(name)
        if given is not None and given not in known:
            raise _RequestError(400, f"{name!r} must be one of {', '.join(known)}.")
        return given


def _page(name: str, rows: list[dict[str, Any]], limit: int) -> Response:
    """One page; ``next`` is what to pass as ``after`` for the following one, null on the last."""
    shown = rows[:limit]
    return jsonify({name: shown, "next": shown[-1]["id"] if len(rows) > limit else None})


def _existing(
    store: Store, get: Callable[[Any, int], Mapping[str, Any] | None], wanted: int, what: str
) -> Mapping[str, Any]:
    row = None
    if wanted <= _LARGEST_ID:
        with store.read() as conn:
            row = get(conn, wanted)
    if row is None:
        raise _RequestError(404, f"There is no {what} {wanted}.")
    return row


def _note() -> str:
    if not request.content_length:
        return ""
    body = json_object(request)
    note = None if body is None else body.get("note", "")
    if not isinstance(note, str):
        raise _RequestError(400, 'The body must be empty or JSON like {"note": "why"}.')
    return note
