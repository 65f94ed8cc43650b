"""What annotators and admins are told: text templates by language, with a fallback that always speaks.

A template is ``templates/labelguard_templates/feedback/<language>/<rule>.txt``, its values are a finding's
``feedback``. Texts are plain text: whoever shows one shows it as text.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

import labelguard_templates

log = logging.getLogger(__name__)

_FALLBACK_LANGUAGE = "en"
_LAST_RESORT = "Please look at this answer again. If you think it is right, you can say that this is wrong."

# A label is the admin's and can be a whole sentence; a prompt must stay a glance.
_LONGEST_VALUE = {"feedback": 80, "notify": 600}
_MOST_LISTED = 6

_NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
# Control characters and the marks that turn the direction of text around: they could hide what is said.
_INVISIBLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]+")


@dataclass(frozen=True, slots=True)
class Notification:
    """A message to a chat, mailbox or pager."""

    title: str
    body: str


def render(rule: str, language: str, values: Mapping[str, Any]) -> str:
    """The message an annotator gets for a finding of ``rule``.

    Looks for the rule's template in ``language``, then its base language (``de`` for ``de-AT``), then
    English; where none can be used (there is none, or a value it needs is missing), the same way for the
    text that fits every rule. Never raises: what is wrong with a template is logged.
    """
    return _first("feedback", (rule, "default"), language, values) or _LAST_RESORT


def render_notification(kind: str, language: str, values: Mapping[str, Any]) -> Notification:
    """The title and body to send for an occasion, found and filled like :func:`render` does.

    Kinds and their values:

    ``finding``: ``rule``, ``message``, ``severity``, ``project`` (its title), and where known
    ``annotator`` (a name), ``task``, ``link``.
    ``webhook``: ``project``, ``problem`` and ``done`` (sentences).
    ``job``: ``job``, ``project``, ``error`` (a sentence).
    """
    text = _first("notify", (kind, "default"), language, values) or f"labelguard: {kind}"
    title, _, body = text.partition("\n")
    return Notification(title.strip(), body.strip())


def languages() -> tuple[str, ...]:
    """The languages there are messages in, sorted."""
    return tuple(sorted(_languages()))


def _first(folder: str, names: Iterable[str], language: str, values: Mapping[str, Any]) -> str | None:
    tried = tuple(_chain(language))
    for name in names:
        for code in tried:
            if (text := _filled(folder, code, name, values)) is not None:
                return text
    return None


def _chain(language: str) -> Iterator[str]:
    """The languages to try: as asked, ever less specific, English."""
    known = {code.casefold(): code for code in _languages()}
    parts = language.replace("_", "-").casefold().split("-")
    wanted = ["-".join(parts[:end]) for end in range(len(parts), 0, -1)]
    yield from dict.fromkeys([*(known[code] for code in wanted if code in known), _FALLBACK_LANGUAGE])


def _filled(folder: str, language: str, name: str, values: Mapping[str, Any]) -> str | None:
    if not _NAME.fullmatch(name):
        return None
    path = f"{folder}/{language}/{name}.txt"
    try:
        template = _environment().get_template(path)
        return template.render(_shown(values, _LONGEST_VALUE[folder])).strip() or None
    except jinja2.TemplateNotFound:
        return None
    except Exception as error:  # noqa: BLE001 - a template may do anything, and a message must still go out
        log.warning("The message template %s cannot be used: %s: %s", path, type(error).__name__, error)
        return None


def _shown(value: Any, longest: int) -> Any:
    """Values as they may stand in a sentence: text on one line, without invisible characters, cut to size."""
    if isinstance(value, str):
        text = " ".join(_INVISIBLE.sub(" ", value).split())
        return text if len(text) <= longest else text[: longest - 1].rstrip() + "…"
    if isinstance(value, Mapping):
        return {str(key): _shown(item, longest) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_shown(item, longest) for item in value]
    return value


def _listed(items: Iterable[Any], last: str) -> str:
    """``a, b and c`` with the language's own last word; a long list is cut, and says so."""
    words = [str(item) for item in items]
    if len(words) > _MOST_LISTED:
        words = [*words[: _MOST_LISTED - 1], "…"]
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {last} {words[-1]}"


def _quoted(items: Iterable[Any], opening: str, closing: str) -> list[str]:
    """Each item in the language's own quotation marks."""
    return [f"{opening}{item}{closing}" for item in items]


@cache
def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        loader=jinja2.FileSystemLoader(labelguard_templates.path()),
        undefined=jinja2.StrictUndefined,
        # Plain text: markup in a label stays as it is and is shown as text.
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["listed"] = _listed
    environment.filters["quoted"] = _quoted
    return environment


@cache
def _languages() -> frozenset[str]:
    folders = (labelguard_templates.path() / "feedback").iterdir()
    return frozenset(folder.name for folder in folders if folder.is_dir())
