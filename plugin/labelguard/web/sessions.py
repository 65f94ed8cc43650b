"""Signing in to the status page: a signed cookie, a token in every form, and a limit on failed attempts."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from flask import Request
from itsdangerous import BadSignature, URLSafeSerializer
from werkzeug.wrappers import Response

from labelguard.engine import Clock

COOKIE = "labelguard_session"
_LIFETIME = timedelta(hours=12)


@dataclass(frozen=True, slots=True)
class Session:
    """A signed-in admin."""

    csrf: str
    """What every form of this session must carry."""
    by: str
    """The name they gave, kept with what they decide."""


class Sessions:
    """Makes and checks sessions. The cookie holds everything: with a fixed key a restart keeps them."""

    def __init__(self, secret: str, api_token: str, clock: Clock) -> None:
        # A changed API token ends every session made with the old one.
        salt = b"labelguard.session." + hashlib.sha256(api_token.encode()).digest()
        self._signer = URLSafeSerializer(secret, salt=salt)
        self._api_token = api_token
        self._clock = clock

    @property
    def open(self) -> bool:
        """Whether anybody can sign in: an API token is configured."""
        return bool(self._api_token)

    def start(self, request: Request, response: Response, token: str, by: str) -> bool:
        """Sign in with the API token; returns whether it was the right one."""
        if not self.open or not same(token, self._api_token):
            return False
        until = self._clock() + _LIFETIME
        data = {"csrf": secrets.token_urlsafe(24), "by": by, "until": int(until.timestamp())}
        response.set_cookie(
            COOKIE,
            self._signer.dumps(data),
            max_age=_LIFETIME,
            httponly=True,
            samesite="Strict",
            secure=request.is_secure,
        )
        return True

    def current(self, request: Request) -> Session | None:
        """The session of a request, or None."""
        if not self.open:
            return None
        try:
            data = self._signer.loads(request.cookies.get(COOKIE, ""))
        except BadSignature:
            return None
        if datetime.fromtimestamp(data["until"], UTC) <= self._clock():
            return None
        return Session(csrf=data["csrf"], by=data["by"])

    def end(self, response: Response) -> None:
        """Sign out."""
        response.delete_cookie(COOKIE, httponly=True, samesite="Strict")


class Throttle:
    """Counts events in a sliding window, all together: behind a proxy every address is the proxy's."""

    def __init__(self, most: int, within: timedelta, clock: Clock) -> None:
        self._most = most
        self._within = within
        self._clock = clock
        self._lock = threading.Lock()
        self._events: deque[datetime] = deque(maxlen=most)

    def wait(self) -> timedelta:
        """How long until another event is allowed; zero where it is now."""
        with self._lock:
            now = self._clock()
            while self._events and now - self._events[0] >= self._within:
                self._events.popleft()
            if len(self._events) < self._most:
                return timedelta()
            return self._within - (now - self._events[0])

    def note(self) -> None:
        """Count one event."""
        with self._lock:
            self._events.append(self._clock())


def same(given: str, expected: str) -> bool:
    """Compare two secrets in constant time, whatever characters the given one has."""
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), expected.encode("utf-8", "surrogatepass"))
