"""Commands about labelguard itself: ``rules``, ``config`` and ``manifest``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from labelguard.cli.output import Json, print_json, print_pairs, print_rows

Docs = Annotated[
    Path | None, typer.Option("--write-docs", help="Write the documentation into this folder.", metavar="FOLDER")
]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(rules)
    app.command()(config)
    app.command()(manifest)


def rules(write_docs: Docs = None, as_json: Json = False) -> None:
    """List the installed rules with their options."""
    from labelguard.manifest import rules_described

    if write_docs is not None:
        from labelguard.registry import load_rules
        from labelguard.rulesdoc import rules_markdown

        (write_docs / "rules.md").write_text(rules_markdown(load_rules().values()), encoding="utf-8")
        return
    found = rules_described()
    if as_json:
        print_json(found)
    else:
        print_rows(found, {"name": "RULE", "kind": "KIND", "summary": "WHAT IT LOOKS FOR"}, "No rule is installed.")


def config(write_docs: Docs = None, as_json: Json = False) -> None:
    """Show the configuration in use, with secrets hidden."""
    from labelguard.settings import load_settings, settings_markdown, shown

    if write_docs is not None:
        from labelguard.cli.docs import cli_markdown

        (write_docs / "configuration.md").write_text(settings_markdown(), encoding="utf-8")
        (write_docs / "cli.md").write_text(cli_markdown(), encoding="utf-8")
        return
    values = shown(load_settings())
    if as_json:
        print_json(values)
    else:
        print_pairs(values)


def manifest(
    write: Annotated[
        bool, typer.Option("--write", help="Write manifest.json (in labelguard's own repository).")
    ] = False,
) -> None:
    """Print what the plugin is: events, permissions, rules, templates and entry points."""
    from labelguard.manifest import build_manifest, manifest_json, source_file

    if write:
        file = source_file()
        file.write_text(manifest_json(), encoding="utf-8")
        typer.echo(f"Wrote {file}.")
    else:
        print_json(build_manifest())
