"""The token that proves a webhook request comes from Label Studio.

It is random, made afresh for each connection, known to Label Studio as a webhook header, and kept here as a
hash only. A plain SHA-256 is enough: 256 random bits cannot be guessed, so there is nothing to slow down.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets

TOKEN_HEADER = "X-Labelguard-Token"  # noqa: S105 - a header's name
"""The webhook header that carries the token."""


def new_token() -> str:
    """A fresh token, safe in a header and an address."""
    return secrets.token_urlsafe(32)


def hash_token(token: str) -> str:
    """The hex digest under which a token is kept."""
    return hashlib.sha256(token.encode()).hexdigest()


def token_matches(token: str | None, kept: str | None) -> bool:
    """Whether a token is the one kept, in a time that does not depend on how much of it is right."""
    if not token or not kept:
        return False
    return hmac.compare_digest(hash_token(token), kept)
