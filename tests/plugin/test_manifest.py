"""The manifest: what the plugin says about itself."""

from __future__ import annotations

import json

from labelguard.events import KNOWN_ACTIONS
from labelguard.manifest import load_manifest, manifest_json, source_file
from labelguard.registry import load_connectors, load_rules


def test_the_manifest_in_the_repository_is_current() -> None:
    """Made with ``labelguard manifest --write``."""
    assert source_file().read_text(encoding="utf-8") == manifest_json()


def test_the_manifest_read_at_run_time_is_the_repositorys() -> None:
    """An editable install has no copy of its own; ``connect`` takes the events from here."""
    assert load_manifest() == json.loads(source_file().read_text(encoding="utf-8"))


def test_every_event_it_asks_for_is_one_that_labelguard_understands() -> None:
    """A webhook for anything else would bring deliveries that nothing looks at."""
    assert set(load_manifest()["events"]) <= set(KNOWN_ACTIONS)


def test_it_names_every_rule_with_its_options_and_every_connector() -> None:
    """An admin can see from the manifest alone what may look at the project."""
    manifest = load_manifest()

    assert [rule["name"] for rule in manifest["rules"]] == sorted(load_rules())
    assert [connector["name"] for connector in manifest["connectors"]] == sorted(load_connectors())
    assert all(thing["summary"] for thing in (*manifest["rules"], *manifest["connectors"]))
    assert all(option["help"] for rule in manifest["rules"] for option in rule["options"])


def test_it_says_what_each_permission_is_for() -> None:
    """Every call of each edition has a reason beside it; Enterprise needs what Community needs and more."""
    permissions = load_manifest()["permissions"]

    assert all(group["why"] and group["calls"] for group in permissions["enterprise"])
    assert all(group in permissions["enterprise"] for group in permissions["community"])
