"""Tokens that prove who is asking: made at random, stored as hashes, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac

# Compared with where there is no stored hash, so that a missing one takes as long as a wrong one. Nothing
# hashes to it: it is not a digest of anything we could be sent.
_NO_HASH = "0" * 64


def hash_token(token: str) -> str:
    """The hex SHA-256 that is stored in a token's place; tokens are long and random, so no salt is needed."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def token_matches(token: str, stored_hash: str | None) -> bool:
    """Whether a token is the one whose hash was stored; never where none was."""
    return hmac.compare_digest(hash_token(token), stored_hash or _NO_HASH)
