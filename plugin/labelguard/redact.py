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

_REMEMBERED_OBJECTS = 512
"""Sets of keys for which it is remembered which of them name secrets."""

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
    return _object(body, frozenset(), owners=True)


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


def _object(value: Mapping[str, Any], kept: frozenset[str], *, owners: bool) -> dict[str, Any]:
    """A copy of an object without its secrets; of what is ``kept`` nothing is looked at."""
    copied = dict(value)
    for key in _secret_keys(tuple(value)):
        if key not in kept and not _is_empty(value[key]):
            copied[key] = REMOVED
    for key, inner in value.items():
        # Of the many fields of a project nearly all are plain.
        if type(inner) in _DEEPER and key not in kept and copied[key] is not REMOVED:
            copied[key] = _copied(inner, owner=owners and key in _CONTENT_OWNERS)
    if "headers" in value and "headers" not in kept:
        # A webhook's own headers carry the only authentication there is, under any name.
        headers = value["headers"]
        if isinstance(headers, dict):
            copied["headers"] = dict.fromkeys(headers, REMOVED)
        elif not _is_empty(headers):
            copied["headers"] = REMOVED
    return copied


def _copied(value: Any, *, owner: bool) -> Any:
    if isinstance(value, list):
        return [_copied(inner, owner=owner) for inner in value]
    return _object(value, _CONTENT if owner else _DERIVED, owners=owner) if isinstance(value, dict) else value


_DEEPER = frozenset({dict, list})
"""What JSON nests in: asking for exactly these is several times faster than asking for any mapping."""


def _is_empty(value: Any) -> bool:
    return value is None or value == "" or isinstance(value, bool)


def _secret_keys(keys: tuple[str, ...]) -> tuple[str, ...]:
    """Those of an object's keys that name a secret."""
    # Label Studio's objects have the same keys in each delivery; what else is sent must not fill the memory.
    found = _known.get(keys)
    if found is None:
        found = tuple(key for key in keys if is_secret_key(key))
        if sum(map(len, keys)) <= _REMEMBERED * 64:
            if len(_known) >= _REMEMBERED_OBJECTS:
                _known.clear()
            _known[keys] = found
    return found


_known: dict[tuple[str, ...], tuple[str, ...]] = {}
"""What :func:`_secret_keys` found: a plain dictionary, since asking for the length of all keys first took longer."""
