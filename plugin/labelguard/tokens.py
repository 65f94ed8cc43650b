"""Tokens that prove who is asking: made at random, stored as hashes, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import secrets

TOKEN_HEADER = "X-Labelguard-Token"  # noqa: S105 - the header's name, not a secret
"""The webhook header that carries a project's token."""

# Compared with where there is no stored hash, so that a missing one takes as long as a wrong one. Nothing
# hashes to it: it is not a digest of anything we could be sent.
_NO_HASH = "0" * 64


def new_token() -> str:
    """A fresh token of 256 random bits, safe in a header and an address."""
    return secrets.token_urlsafe(32)


def hash_token(token: str) -> str:
    """The hex SHA-256 that is stored in a token's place; tokens are long and random, so no salt is needed."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def token_matches(token: str, stored_hash: str | None) -> bool:
    """Whether a token is the one whose hash was stored; never where none was."""
    return hmac.compare_digest(hash_token(token), stored_hash or _NO_HASH)
