"""Logging: one line for each thing that happened, as JSON or for a terminal, without secrets or forged lines.

Modules log through :mod:`logging` or structlog, and both end in the same lines. What happens to a delivery is
logged with its number: code that works on one binds it with
``structlog.contextvars.bound_contextvars(delivery=...)``, and every line written inside carries it.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog
from structlog.types import EventDict, Processor

from labelguard.redact import REMOVED, is_secret_key

# Texts that carry a secret inside: headers, cookies, tokens, addresses with a password, and the parameters
# that SQLAlchemy appends to its errors (a whole delivery, when one could not be stored).
_SECRETS_IN_TEXT: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\b((?:set-)?cookie)(['\"]?\s*[:=]\s*).+", re.IGNORECASE), rf"\1\2{REMOVED}"),
    (
        re.compile(r"\b(bearer|token|basic|jwt)(['\"]?[:=]?\s+['\"]?)[\w.~+/=-]{16,}", re.IGNORECASE),
        rf"\1\2{REMOVED}",
    ),
    (
        re.compile(
            r"\b(sessionid|csrftoken|csrfmiddlewaretoken|labelguard_\w+|api_?key|access_token|refresh_token"
            r"|password|secret|x-labelguard-token)(['\"]?\s*[:=]\s*['\"]?)[^\s'\",;&]+",
            re.IGNORECASE,
        ),
        rf"\1\2{REMOVED}",
    ),
    (re.compile(r"\beyJ[\w-]{8,}+\.[\w-]++\.[\w-]*+"), REMOVED),
    (re.compile(r"(\w://)[^\s/@]*@"), rf"\1{REMOVED}@"),
    (re.compile(r"(\[parameters: ).*"), rf"\1{REMOVED}]"),
)

# Each of the patterns above needs one of these: nearly every text has none, and looking for words is cheap.
_SIGNS: tuple[str, ...] = (
    "cookie",
    "bearer",
    "token",
    "basic",
    "jwt",
    "session",
    "csrf",
    "labelguard_",
    "key",
    "password",
    "secret",
)
_SIGNS += ("eyj", "://", "[parameters: ")

# Characters of one value and of a traceback, and how many things of a list: a line about a delivery of megabytes
# must not be megabytes itself.
_LONGEST = 2_000
_LONGEST_TRACEBACK = 12_000
_MOST = 50

# Characters that could end a line, move a terminal's cursor or turn the direction of text.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_CONTROL_BUT_NEWLINE = re.compile(_CONTROL.pattern.replace(r"\x00-\x1f", r"\x00-\x09\x0b-\x1f"))


# What is added to each line before it is formatted, whichever of the two libraries it was logged through.
_BEFORE: tuple[Processor, ...] = (
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
)


def configure(level: str = "INFO", *, json: bool | None = None, stream: TextIO | None = None) -> None:
    """Send all logging of this process to ``stream`` (standard error by default).

    ``json`` chooses JSON lines; without it they are used wherever ``stream`` is not a terminal.
    """
    stream = stream or sys.stderr
    as_json = not stream.isatty() if json is None else json
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter(json=as_json))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    through_logging()
    # A line for each request a client library makes says nothing and may name an address with a secret.
    for chatty in ("urllib3", "httpx", "httpcore", "apprise", "apscheduler", "alembic"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, root.level))
    # It warns of every request that waits for a thread; the metrics tell of load better.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)


def through_logging() -> None:
    """Let what is logged with structlog go the way of :mod:`logging`, to the same lines."""
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_BEFORE,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )


def formatter(*, json: bool) -> logging.Formatter:
    """The formatter that :func:`configure` installs."""
    after: list[Processor] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        # Plain tracebacks: the pretty ones print local variables, bodies and tokens among them.
        structlog.processors.format_exc_info,
        keep_short,
        hide_secrets,
    ]
    if json:
        # ensure_ascii escapes everything that could break a line.
        after.append(structlog.processors.JSONRenderer(ensure_ascii=True, default=str))
    else:
        after += [escape_control_characters, structlog.dev.ConsoleRenderer(colors=False)]
    return structlog.stdlib.ProcessorFormatter(foreign_pre_chain=_BEFORE, processors=after)


def keep_short(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Cut long texts and lists: of a traceback the middle, where nobody looks."""
    short: MutableMapping[str, Any] = {}
    for key, value in list(event.items())[:_MOST]:
        if key == "exception" and isinstance(value, str) and len(value) > _LONGEST_TRACEBACK:
            half = _LONGEST_TRACEBACK // 2
            short[key] = f"{value[:half]}\n[{len(value) - 2 * half:,} characters left out]\n{value[-half:]}"
        else:
            short[_short(key, 0)] = value if key == "exception" else _short(value, 0)
    return short


def hide_secrets(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Replace values whose key names a secret, and secrets that stand inside texts."""
    return {key: _without_secrets(key, value) for key, value in event.items()}


def escape_control_characters(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Make control characters visible, so that nobody can write a line of the log by what they send."""
    escaped: MutableMapping[str, Any] = {}
    for key, value in event.items():
        if key == "exception":
            # A traceback has lines of its own; the mark before each tells them from the log's.
            text = _CONTROL_BUT_NEWLINE.sub(_visible, str(value))
            escaped[key] = "\n".join(f"    | {line}" for line in text.split("\n"))
        else:
            escaped[_CONTROL.sub(_visible, key)] = _CONTROL.sub(_visible, value) if isinstance(value, str) else value
    return escaped


def without_secrets(text: str) -> str:
    """A text with every secret in it that can be recognised replaced."""
    lower = text.lower()
    if any(sign in lower for sign in _SIGNS):
        for pattern, replacement in _SECRETS_IN_TEXT:
            text = pattern.sub(replacement, text)
    return text


def _without_secrets(key: str, value: Any) -> Any:
    if is_secret_key(key) and not isinstance(value, bool) and value not in (None, ""):
        return REMOVED
    if isinstance(value, str):
        return without_secrets(value)
    if isinstance(value, dict):
        return {inner: _without_secrets(str(inner), item) for inner, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_secrets("", item) for item in value]
    return value


def _short(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        left_out = len(value) - _LONGEST
        return f"{value[:_LONGEST]} [{left_out:,} characters left out]" if left_out > 0 else value
    if isinstance(value, (dict, list, tuple)) and depth > 3:
        return "[nested]"
    if isinstance(value, dict):
        return {_short(str(key), depth): _short(item, depth + 1) for key, item in list(value.items())[:_MOST]}
    if isinstance(value, (list, tuple)):
        return [_short(item, depth + 1) for item in value[:_MOST]]
    if value is None or isinstance(value, (bool, float)) or (isinstance(value, int) and abs(value) < 10**30):
        return value
    # An object of any kind, written out by the renderer: by its own words, cut like a text.
    return _short(str(value), depth) if not isinstance(value, int) else "[a very large number]"


def _visible(found: re.Match[str]) -> str:
    return found.group().encode("unicode_escape").decode()
