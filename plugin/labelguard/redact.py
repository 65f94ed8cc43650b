"""Cutting secrets out of webhook bodies, before anything is stored, logged or shown.

Label Studio sends the whole project with every delivery, its invitation ``token`` and the ``task_data_login``
and ``task_data_password`` of its media server included. What people label is never touched: a text about
passwords stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from itertools import pairwise
from typing import Any

REMOVED = "[removed]"
"""What stands in place of a secret, so that a reader sees that there was one."""

_WORDS = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z0-9]+(?![a-z])")
_SECRET_WORDS = frozenset(
    {"apikey", "auth", "authorization", "cookie", "cookies", "credential", "credentials", "csrf", "jwt"}
    | {"login", "passphrase", "passwd", "password", "passwords", "pwd", "sas", "secret", "secrets"}
    | {"sessionid", "signature", "token", "tokens"}
)
_SECRET_ENDINGS = ("apikey", "accesskey", "passwd", "password", "privatekey", "secret", "secretkey", "token")
"""Ends of words that were run together: Django's ``csrfmiddlewaretoken``, ``clientsecret``."""

_SECRET_PAIRS = frozenset({"access", "account", "api", "encryption", "private", "secret", "shared", "signing"})
"""Words that make a following ``key`` a secret: ``aws_access_key_id``, Azure's ``account_key``."""

_REMEMBERED = 64
"""Characters of a key up to which it is remembered whether it names a secret."""

_CONTENT = frozenset({"data", "meta", "result", "prediction", "predictions", "drafts"})
"""Fields of tasks and annotations that hold the customer's own data and labels."""

_CONTENT_OWNERS = frozenset({"task", "tasks", "annotation", "annotations"})
"""Objects whose :data:`_CONTENT` fields are kept as they are."""

_DERIVED = frozenset({"label_config", "parsed_label_config", "control_weights"})
"""Project fields keyed by the names of labels and controls, where ``token`` is a label of a text project.

Label Studio shows all of them to every annotator, so there is nothing secret in them.
"""


def redact(body: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a webhook body in which every secret is replaced by :data:`REMOVED`.

    Cut are the values of keys that name a secret (passwords, tokens, cookies, credentials, storage keys) and
    all values below ``headers``, at every depth of the project and of every other object Label Studio adds.
    Kept are a task's ``data`` and ``meta`` and everything inside results and predictions. Empty values and
    booleans are kept: they tell that something is not set, which admins need to see.
    """
    return {key: _redacted(key, value, owner=key in _CONTENT_OWNERS) for key, value in body.items()}


def is_secret_key(key: str) -> bool:
    """Whether a key names a secret: ``task_data_password``, ``apiKey``, ``X-Auth-Token``, ..."""
    # Label Studio's own names are short and come with every delivery; what else is sent must not fill the memory.
    return _names_secret(key) if len(key) <= _REMEMBERED else _names_secret.__wrapped__(key)


@lru_cache(maxsize=4096)
def _names_secret(key: str) -> bool:
    words = [word.lower() for word in _WORDS.findall(key)]
    if not _SECRET_WORDS.isdisjoint(words) or any(word.endswith(_SECRET_ENDINGS) for word in words):
        return True
    return any(second in {"key", "keys"} and first in _SECRET_PAIRS for first, second in pairwise(words))


def _redacted(key: str, value: Any, *, owner: bool) -> Any:
    if value is None or value == "" or isinstance(value, bool):
        return value
    if is_secret_key(key):
        return REMOVED
    if key == "headers":
        # A webhook's own headers carry the only authentication there is, under any name.
        return dict.fromkeys(value, REMOVED) if isinstance(value, Mapping) else REMOVED
    if isinstance(value, (str, int, float)):
        return value
    return _copied(value, owner=owner)


def _copied(value: Any, *, owner: bool) -> Any:
    if isinstance(value, Mapping):
        kept = _CONTENT if owner else _DERIVED
        return {
            key: inner
            if inner is None or key in kept
            else _redacted(key, inner, owner=owner and key in _CONTENT_OWNERS)
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return [_copied(inner, owner=owner) for inner in value]
    return value
