"""What the page script asks: the script itself, a session, prompts, answers to them, checks before a save.

Everything here is served on Label Studio's own origin, to anybody who can reach it. An annotator is
recognised once, by Label Studio, from the browser's cookie; from then on by a signed session that lives in
the page's memory. A prompt's id is signed for its annotator, so that ids can be neither guessed nor probed.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import threading
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from flask import Blueprint, Response, jsonify, request
from itsdangerous import BadData

import labelguard_templates
from labelguard.connectors import ConnectorError, Studio, User
from labelguard.engine import Clock, Engine
from labelguard.policy import BadPolicy
from labelguard.prompts import NoSuchPromptError, NotPossibleError, Prompts
from labelguard.registry import BrokenRegistry
from labelguard.settings import Settings
from labelguard.store import Store
from labelguard.web.bodies import json_object
from labelguard.web.origin import from_own_page
from labelguard.web.sessions import signer

SESSION_HEADER = "X-Labelguard-Session"

_SESSION_LIFE = timedelta(hours=1)
# One page load makes a handful of requests; each should not ask Label Studio anew.
_WHOAMI_LIFE = timedelta(seconds=5)
# The longest id Label Studio can have; larger numbers would not fit the store.
_LARGEST_ID = 2**63 - 1


class _RefusedError(Exception):
    """End the request with an error."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def page_blueprint(
    store: Store,
    engine: Engine,
    studio: Studio | None,
    settings: Settings,
    clock: Clock,
    *,
    patience: float,
) -> Blueprint:
    """The blueprint of ``/page.js`` and ``/page/v1``.

    ``patience`` is how many seconds a request for prompts waits for Label Studio to announce the save; with
    what follows it must stay below the deadline of whatever passes the requests on.
    """
    page = Blueprint("page", __name__)
    prompts = Prompts(store, engine, studio, clock)
    # Made at random for each start when not configured: pages then fetch a new session after a restart.
    secret = settings.secret_key.get_secret_value() or secrets.token_urlsafe(32)
    sessions = signer(secret, "labelguard.page.session")
    ids = signer(secret, "labelguard.page.prompt")
    people = _People(studio, clock)
    # Waiting requests must not take every thread of the server from Label Studio's deliveries.
    may_wait = threading.Semaphore(2)
    script = (labelguard_templates.path() / "page" / "page.js").read_text("utf-8")

    def annotator() -> int:
        try:
            session = sessions.loads(request.headers.get(SESSION_HEADER, ""))
        except BadData:
            raise _RefusedError(401, "The session is missing or not valid; ask for a new one.") from None
        if session["until"] <= clock().timestamp():
            raise _RefusedError(401, "The session has ended; ask for a new one.")
        return int(session["user"])

    def finding_of(prompt: str, user: int) -> int:
        try:
            finding, owner = ids.loads(prompt)
        except (BadData, ValueError, TypeError):
            raise _RefusedError(404, "There is no such note for you.") from None
        if owner != user:
            raise _RefusedError(404, "There is no such note for you.")
        return int(finding)

    @page.get("/page.js")
    def serve_script() -> Response:
        response = Response(script, content_type="text/javascript; charset=utf-8")
        response.headers["Cache-Control"] = "public, max-age=60"
        response.add_etag()
        response.make_conditional(request)
        return response

    @page.post("/page/v1/session")
    def open_session() -> Response:
        if not from_own_page(request):
            raise _RefusedError(403, "Sessions are for Label Studio's own pages only.")
        project = _id(_json(), "project")
        user = people.of(request.headers.get("Cookie", ""))
        language = prompts.language(project, user.id)
        until = clock() + _SESSION_LIFE
        return jsonify(
            token=sessions.dumps({"user": user.id, "until": until.timestamp()}),
            user={"id": user.id, "name": user.name},
            language=_strings_language(language),
            blocking=prompts.blocking(project),
            strings=_strings(_strings_language(language)),
        )

    @page.get("/page/v1/prompts")
    def list_prompts() -> Response:
        user = annotator()
        project = _id(request.args, "project")
        annotation = _id(request.args, "annotation") if request.args.get("annotation") else None
        pending = False
        if annotation is not None:
            saved = _moment(request.args.get("saved"))
            pending = not prompts.arrived(annotation, saved)
            if pending and may_wait.acquire(blocking=False):
                try:
                    pending = not prompts.await_save(annotation, saved, patience)
                    if pending and prompts.fetch(project, annotation, user):
                        pending = not prompts.arrived(annotation, saved)
                except ConnectorError:
                    # The delivery may still come; the page asks again.
                    pending = True
                finally:
                    may_wait.release()
            if not pending and prompts.verifying(annotation, user):
                pending = True
                if may_wait.acquire(blocking=False):
                    try:
                        pending = not prompts.await_verified(annotation, user, patience)
                    finally:
                        may_wait.release()
        confirmed = False
        if may_wait.acquire(blocking=False):
            try:
                confirmed = prompts.confirm(project, user, annotation)
            except ConnectorError:
                pass  # a note is shown all the same; nothing else follows from it
            finally:
                may_wait.release()
        shown = [
            {
                "id": ids.dumps([prompt.finding, user]),
                "kind": prompt.kind,
                "text": prompt.text,
                "severity": prompt.severity,
                "task": prompt.task,
                "annotation": prompt.annotation,
            }
            for prompt in prompts.waiting(project, user, annotation, confirmed=confirmed)
        ]
        return jsonify(prompts=shown, pending=pending, blocking=prompts.blocking(project))

    @page.post("/page/v1/prompts/<prompt>/seen")
    def seen(prompt: str) -> Response:
        user = annotator()
        prompts.seen(finding_of(prompt, user), user)
        return jsonify(state="seen")

    @page.post("/page/v1/prompts/<prompt>/acknowledge")
    def acknowledge(prompt: str) -> Response:
        user = annotator()
        prompts.acknowledge(finding_of(prompt, user), user)
        return jsonify(state="acknowledged")

    @page.post("/page/v1/prompts/<prompt>/dispute")
    def dispute(prompt: str) -> Response:
        user = annotator()
        words = _json().get("words")
        if not isinstance(words, str):
            raise _RefusedError(400, "A dispute needs `words`: what is wrong with the note, as text.")
        prompts.dispute(finding_of(prompt, user), user, words)
        return jsonify(state="disputed")

    @page.post("/page/v1/check")
    def check() -> Response:
        user = annotator()
        body = _json()
        result = body.get("result")
        if not isinstance(result, list) or not all(isinstance(item, dict) for item in result):
            raise _RefusedError(400, "A check needs `result`: the annotation's result as a list of objects.")
        project = _id(body, "project")
        language = prompts.language(project, user)
        try:
            blocks = engine.check(project, _id(body, "task"), user, result, language=language)
        except (BadPolicy, BrokenRegistry):
            # A policy that cannot be used (a rule was uninstalled, say) stops nobody's save.
            blocks = []
        return jsonify(blocks=[{"rule": block["rule"], "text": block["text"]} for block in blocks])

    @page.errorhandler(_RefusedError)
    def refused(error: _RefusedError) -> tuple[Response, int]:
        return jsonify(error=str(error)), error.status

    @page.errorhandler(NoSuchPromptError)
    def no_such(error: NoSuchPromptError) -> tuple[Response, int]:
        return jsonify(error=str(error)), 404

    @page.errorhandler(NotPossibleError)
    def not_possible(error: NotPossibleError) -> tuple[Response, int]:
        return jsonify(error=str(error)), 409

    return page


class _People:
    """Whose browser it is, as Label Studio says; remembered for a few seconds."""

    def __init__(self, studio: Studio | None, clock: Clock) -> None:
        self._studio = studio
        self._clock = clock
        self._known: dict[bytes, tuple[datetime, User]] = {}
        self._lock = threading.Lock()

    def of(self, cookie: str) -> User:
        if not cookie:
            raise _RefusedError(401, "Nobody is signed in to Label Studio in this browser.")
        if self._studio is None:
            raise _RefusedError(503, "labelguard has no token for Label Studio, so it cannot recognise annotators.")
        # Cookies are secrets: only their digest stays in memory.
        key = hashlib.sha256(cookie.encode("utf-8", "surrogatepass")).digest()
        now = self._clock()
        with self._lock:
            self._known = {k: (at, who) for k, (at, who) in self._known.items() if now - at < _WHOAMI_LIFE}
            if key in self._known:
                return self._known[key][1]
        try:
            user = self._studio.whoami(cookie)
        except ConnectorError:
            raise _RefusedError(503, "Label Studio did not say who is signed in; try again in a moment.") from None
        if user is None:
            raise _RefusedError(401, "Nobody is signed in to Label Studio in this browser.")
        with self._lock:
            self._known[key] = (now, user)
        return user


def _json() -> Mapping[str, Any]:
    body = json_object(request)
    if body is None:
        raise _RefusedError(400, "The body must be a JSON object with the content type application/json.")
    return body


def _id(values: Mapping[str, Any], name: str) -> int:
    value = values.get(name)
    if isinstance(value, str) and value.isascii() and value.isdecimal():
        value = int(value) if len(value) < 20 else None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= _LARGEST_ID:
        raise _RefusedError(400, f"`{name}` must be the id that Label Studio gave, a whole number above zero.")
    return value


def _moment(text: str | None) -> datetime | None:
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise _RefusedError(400, "`saved` must be the `updated_at` of Label Studio's answer, with its timezone.")
    return moment


def _strings_language(wanted: str) -> str:
    """The language of the page's own words that fits best: as asked, its base language, English."""
    for code in (wanted, wanted.partition("-")[0]):
        if code in _all_strings():
            return code
    return "en"


def _strings(language: str) -> Mapping[str, str]:
    return _all_strings()[language]


@cache
def _all_strings() -> Mapping[str, Mapping[str, str]]:
    """The page's own words by language: ``templates/labelguard_templates/page/strings.<language>.json``."""
    folder = labelguard_templates.path() / "page"
    return {
        path.name.split(".")[1]: json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("strings.*.json"))
    }
