"""Webhook tokens: random, kept as hashes, compared whole."""

from __future__ import annotations

import pytest

from labelguard.tokens import hash_token, new_token, token_matches


def test_every_token_is_new_and_fits_a_header() -> None:
    """Label Studio keeps it as a header's value; 43 characters of base64 hold 256 bits."""
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert all(len(token) == 43 and token.isascii() and token.isprintable() and " " not in token for token in tokens)


def test_only_the_token_itself_matches_its_hash() -> None:
    """Neither a part of it, nor the hash, nor nothing."""
    token = new_token()
    kept = hash_token(token)
    assert token not in kept
    assert token_matches(token, kept)
    for wrong in (token[:-1], token + "x", kept, "", token.swapcase()):
        assert not token_matches(wrong, kept)


@pytest.mark.parametrize("sent", ["", "x", "0" * 64])
def test_nothing_matches_where_no_token_was_kept(sent: str) -> None:
    """A project that is not connected takes no deliveries."""
    assert not token_matches(sent, None)
