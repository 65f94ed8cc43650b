"""``manifest.json``: what the plugin is, for people who decide about it and for ``labelguard connect``.

It stands at the root of the repository and inside the wheel. It is generated from the code by
``labelguard manifest --write``; a test compares the two.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from inspect import isclass
from pathlib import Path
from typing import Any

from labelguard.connectors import Server
from labelguard.optiontypes import default_of, in_words, option_types, plain
from labelguard.registry import load_connectors, load_rules
from labelguard.rules import Guardrail

EVENTS = (
    "ANNOTATION_CREATED",
    "ANNOTATIONS_CREATED",
    "ANNOTATION_UPDATED",
    "ANNOTATIONS_DELETED",
    "TASKS_CREATED",
    "TASKS_DELETED",
    "PROJECT_UPDATED",
)
"""Label Studio's webhook actions that labelguard asks for."""

REVIEW_EVENTS = ("REVIEW_CREATED", "REVIEW_UPDATED", "REVIEWS_DELETED")
"""Further ones of Label Studio Enterprise; Community refuses a webhook that asks for them."""

_READ = [
    {"why": "which server this is, and what it can do", "calls": ["GET /api/version/"]},
    {"why": "who labelguard and who an annotator is", "calls": ["GET /api/current-user/whoami", "GET /api/users/"]},
    {
        "why": "verify before acting, and find what the webhook missed",
        "calls": [
            "GET /api/projects/{id}/",
            "GET /api/tasks/",
            "GET /api/tasks/{id}/",
            "GET /api/annotations/{id}/",
        ],
    },
]
_WRITE = [
    {
        "why": "receive events, and repair a webhook that was switched off",
        "calls": [
            "GET /api/webhooks/",
            "POST /api/webhooks/",
            "PATCH /api/webhooks/{id}/",
            "DELETE /api/webhooks/{id}/",
        ],
    },
    {"why": "the action replace, and its undo", "calls": ["PATCH /api/annotations/{id}/"]},
    {
        "why": "the action second-opinion and its undo",
        "calls": ["PATCH /api/tasks/{id}/"],
    },
    {
        "why": "only where a policy names a task_note: the note, and the line of the labeling interface that shows it",
        "calls": ["PATCH /api/tasks/{id}/", "PATCH /api/projects/{id}/"],
    },
]
_ENTERPRISE = [
    {
        "why": "prompts as comments, resolved when they were answered and deleted when they are taken back",
        "calls": [
            "GET /api/comments/",
            "POST /api/comments/",
            "PATCH /api/comments/{id}/",
            "DELETE /api/comments/{id}/",
        ],
    },
    {
        "why": "the action escalate and its undo",
        "calls": [
            "GET /api/projects/{id}/tasks/{task}/assignees",
            "POST /api/projects/{id}/tasks/{task}/assignees",
            "DELETE /api/projects/{id}/tasks/{task}/assignees",
        ],
    },
    {
        "why": "the action pause and its undo",
        "calls": [
            "GET /api/projects/{id}/members/{user}/pauses/",
            "POST /api/projects/{id}/members/{user}/pauses/",
            "DELETE /api/projects/{id}/members/{user}/pauses/{pause}/",
        ],
    },
    {"why": "confirm what reviewers said", "calls": ["GET /api/annotation-reviews/{id}/"]},
    {
        "why": "labelguard doctor: what labelguard's user may do",
        "calls": ["GET /api/projects/roles/", "GET /api/annotation-reviews/"],
    },
]


def build_manifest() -> dict[str, Any]:
    """The manifest of what is installed."""
    return {
        "name": "labelguard",
        "version": version("labelguard"),
        "description": "Real-time guardrails, in-tool annotator feedback and drift sweeps for Label Studio",
        "license": "Apache-2.0",
        "events": list(EVENTS),
        "events_enterprise": list(REVIEW_EVENTS),
        "permissions": {
            "account": "a Label Studio user of its own, a member of each connected project",
            "community": [*_READ, *_WRITE],
            "enterprise": [*_READ, *_WRITE, *_ENTERPRISE],
        },
        "rules": rules_described(),
        "connectors": [
            {"name": name, "summary": _first_line(connector)} for name, connector in sorted(load_connectors().items())
        ],
        "templates": _templates(),
        "ui": {
            "page_script": "/labelguard/page.js",
            "status_page": "/",
        },
    }


def events_for(server: Server) -> list[str]:
    """The webhook actions to ask a Label Studio for: those of the manifest that it has."""
    manifest = load_manifest()
    return [*manifest["events"], *(manifest["events_enterprise"] if server.reviews else ())]


def rules_described() -> list[dict[str, Any]]:
    """The installed rules by name: what each looks for, its kind and its options."""
    return [_rule(name, rule) for name, rule in sorted(load_rules().items())]


def manifest_json() -> str:
    """The manifest as it stands in the repository."""
    return json.dumps(build_manifest(), indent=2, ensure_ascii=False) + "\n"


def source_file() -> Path:
    """``manifest.json`` at the root of labelguard's repository."""
    return Path(__file__).resolve().parents[2] / "manifest.json"


@cache
def load_manifest() -> dict[str, Any]:
    """The manifest this labelguard was released with; an editable install reads the repository's.

    Raises:
        FileNotFoundError: the installation lacks its manifest.
    """
    packaged = files("labelguard").joinpath("manifest.json")
    text = (packaged if packaged.is_file() else source_file()).read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def _rule(name: str, rule: Any) -> dict[str, Any]:
    types = option_types(rule)
    options = []
    for field in rule.__dataclass_fields__.values():
        if field.name not in types:
            continue
        about = {
            "name": field.name,
            "type": in_words(types[field.name].annotation),
            "default": plain(default_of(field)),
            "help": field.metadata.get("help", ""),
        }
        options.append(about)
    return {
        "name": name,
        "kind": "guardrail" if issubclass(rule, Guardrail) else "sweep",
        "summary": _first_line(rule),
        "stateless": rule.stateless,
        "reveals": list(rule.reveals),
        "options": options,
    }


def _templates() -> list[str]:
    import labelguard_templates

    root = files(labelguard_templates)
    return sorted(_below(root, ""))


def _below(folder: Any, prefix: str) -> list[str]:
    names: list[str] = []
    for entry in folder.iterdir():
        if entry.is_dir():
            names += [] if entry.name == "__pycache__" else _below(entry, f"{prefix}{entry.name}/")
        elif not entry.name.endswith((".py", ".pyc", ".typed")):
            names.append(prefix + entry.name)
    return names


def _first_line(thing: Any) -> str:
    doc = thing.__doc__ if isclass(thing) else None
    return (doc or "").strip().split("\n", 1)[0]
