"""Small pieces of the sentences that name a mistake and its likely fix."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any


def listed(words: Iterable[str], last: str = "or") -> str:
    """``a, b or c``."""
    items = list(words)
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} {last} {items[-1]}"


def likely(word: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant, or None where nothing is near."""
    by_folded = {k.casefold(): k for k in known}
    near = get_close_matches(word.casefold(), by_folded, n=1, cutoff=0.6)
    return by_folded[near[0]] if near else None


def instead(word: str, known: Iterable[str]) -> str:
    """The second half of a sentence about an unknown word: what was meant, or what there is."""
    known = list(known)
    meant = likely(word, known)
    if meant is not None:
        return f"did you mean {meant}?"
    return f"there is {listed(sorted(known), 'and')}." if known else "there is none."


def quoted(value: Any, longest: int = 60) -> str:
    """A value as it can stand in a sentence: on one line and not too long."""
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        text = "{" + ", ".join(f"{k}: {quoted(v, 20)}" for k, v in list(value.items())[:4]) + "}"
    elif isinstance(value, (list, tuple)):
        text = "[" + ", ".join(quoted(v, 20) for v in value[:6]) + "]"
    else:
        text = repr(value)
    return text if len(text) <= longest else text[: longest - 1] + "…"
