"""Signing in to the status page: a signed cookie, a token in every form, and a limit on failed attempts."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
import threading
from collections import OrderedDict, deque
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from flask import Request
from itsdangerous import BadData, URLSafeSerializer
from werkzeug.wrappers import Response

from labelguard.engine import Clock
from labelguard.store import Store, records
from labelguard.store.schema import cursors

COOKIE = "labelguard_session"
_LIFETIME = timedelta(hours=12)
_SIGNED_OUT = "signed-out:"
_KNOWN_FOR = timedelta(days=1)
_ADDRESSES = 10_000
"""How many addresses are remembered: whoever has many more would otherwise fill the memory with them."""


@dataclass(frozen=True, slots=True)
class Session:
    """A signed-in admin."""

    csrf: str
    """What every form of this session must carry."""
    by: str
    """The name they gave, kept with what they decide."""
    id: str
    """What is remembered (as a hash) once they signed out."""


class Sessions:
    """Makes and checks sessions. The cookie holds everything: with a fixed key a restart keeps them.

    The store holds which ones were signed out of before their time, so that a copied cookie ends with the
    session.
    """

    def __init__(self, secret: str, api_token: str, store: Store, clock: Clock) -> None:
        # A changed API token ends every session made with the old one.
        self._signer = signer(secret, b"labelguard.session." + hashlib.sha256(api_token.encode()).digest())
        self._api_token = api_token
        self._store = store
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
        data = {
            "id": secrets.token_urlsafe(24),
            "csrf": secrets.token_urlsafe(24),
            "by": by,
            "until": int(until.timestamp()),
        }
        response.set_cookie(
            COOKIE,
            self._signer.dumps(data),
            max_age=_LIFETIME,
            httponly=True,
            samesite="Strict",
            secure=_is_secure(request),
        )
        return True

    def current(self, request: Request) -> Session | None:
        """The session of a request, or None."""
        if not self.open:
            return None
        try:
            data = self._signer.loads(request.cookies.get(COOKIE, ""))
        except BadData:
            return None
        if datetime.fromtimestamp(data["until"], UTC) <= self._clock():
            return None
        with self._store.read() as conn:
            if records.get_cursor(conn, _signed_out(data["id"])) is not None:
                return None
        return Session(csrf=data["csrf"], by=data["by"], id=data["id"])

    def end(self, session: Session, response: Response) -> None:
        """Sign out: here, not only in the browser."""
        now = self._clock()

        def job(conn: sa.Connection) -> None:
            # Those that would have ended by now anyway need not be remembered.
            old = cursors.c.name.startswith(_SIGNED_OUT, autoescape=True), cursors.c.updated_at < now - _LIFETIME
            conn.execute(sa.delete(cursors).where(*old))
            records.set_cursor(conn, _signed_out(session.id), True, now)

        self._store.write(job)
        response.delete_cookie(COOKIE, httponly=True, samesite="Strict")


class Throttle:
    """How soon somebody may try again after failing: by address, and all together for addresses never seen right.

    An address that proved itself lately is not held up by what others do: guessing from everywhere does not
    lock the admins out.
    """

    def __init__(self, most: int, in_all: int, within: timedelta, clock: Clock) -> None:
        """``most`` failures ``within`` a time for one address, ``in_all`` for all of them."""
        self._most = most
        self._within = within
        self._clock = clock
        self._lock = threading.Lock()
        self._of: OrderedDict[str, deque[datetime]] = OrderedDict()
        self._all: deque[datetime] = deque(maxlen=in_all)
        self._known: OrderedDict[str, datetime] = OrderedDict()

    def wait(self, address: str | None) -> timedelta:
        """How long until another attempt from this address; zero where it may be now."""
        who = _who(address)
        with self._lock:
            now = self._clock()
            own = self._left(self._of.get(who, deque(maxlen=self._most)), now)
            if who in self._known and now - self._known[who] < _KNOWN_FOR:
                return own
            return max(own, self._left(self._all, now))

    def failed(self, address: str | None) -> None:
        """Count one failure."""
        who = _who(address)
        with self._lock:
            now = self._clock()
            self._of.setdefault(who, deque(maxlen=self._most)).append(now)
            self._of.move_to_end(who)
            self._all.append(now)
            _shorten(self._of)

    def passed(self, address: str | None) -> None:
        """Remember somebody who was right, and forget their failures."""
        who = _who(address)
        with self._lock:
            self._of.pop(who, None)
            self._known[who] = self._clock()
            self._known.move_to_end(who)
            _shorten(self._known)

    def _left(self, failures: deque[datetime], now: datetime) -> timedelta:
        full = len(failures) == failures.maxlen
        return max(timedelta(), self._within - (now - failures[0])) if full else timedelta()


def same(given: str, expected: str) -> bool:
    """Compare two secrets in constant time, whatever characters the given one has."""
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), expected.encode("utf-8", "surrogatepass"))


def signer(secret: str, salt: bytes | str) -> URLSafeSerializer:
    """What signs and checks values that go to a browser and come back."""
    return URLSafeSerializer(secret, salt=salt, signer_kwargs={"digest_method": hashlib.sha256})


def _signed_out(session: str) -> str:
    return _SIGNED_OUT + hashlib.sha256(session.encode()).hexdigest()


def _is_secure(request: Request) -> bool:
    # Behind a proxy that was not configured only the browser knows: a page served with TLS says so in `Origin`.
    return request.is_secure or request.headers.get("Origin", "").startswith("https://")


def _who(address: str | None) -> str:
    """Whom an address stands for: with IPv6 a whole network is one customer's."""
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        return address or ""
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is None:
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)


def _shorten(remembered: OrderedDict[str, Any]) -> None:
    while len(remembered) > _ADDRESSES:
        remembered.popitem(last=False)
