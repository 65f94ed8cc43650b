"""``labelguard policy``: check, apply and export policies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from labelguard.cli.context import now, tools, who
from labelguard.cli.output import Failed, Json, ProjectOption, print_json, read_text, say

if TYPE_CHECKING:
    from labelguard.policy import Policy
    from labelguard.settings import Settings
    from labelguard.store import Store

app = typer.Typer(help="Check, apply and export policies.", no_args_is_help=True)

PolicyFile = Annotated[Path, typer.Argument(help="The policy's YAML file, or - for standard input.")]


@app.command()
def validate(file: PolicyFile, as_json: Json = False) -> None:
    """Check a policy and report every mistake with its line."""
    from labelguard.policy import BadPolicy, load_policy

    text = read_text(file)
    try:
        policy = load_policy(text, str(file))
    except BadPolicy as error:
        if not as_json:
            raise
        problems = [{"where": p.where, "key": p.key, "message": p.message} for p in error.problems]
        print_json({"valid": False, "problems": problems})
        raise typer.Exit(2) from error
    advice = _advice(policy)
    if as_json:
        rules = [spec.rule for spec in policy.rules]
        print_json({"valid": True, "project": policy.project, "rules": rules, "warnings": advice})
    else:
        for sentence in advice:
            say(sentence)
        typer.echo(f"{file} is a valid policy for project {policy.project}, with {_rules(policy)}.")


@app.command()
def apply(file: PolicyFile, as_json: Json = False) -> None:
    """Check a policy and make it the project's newest version."""
    from labelguard.policy import load_policy
    from labelguard.store import records

    text = read_text(file)
    policy = load_policy(text, str(file))
    with tools() as tool:
        for name in unreachable(policy, tool.settings):
            say(
                f"{name} of `people` is neither an email, a user id, nor a target of the configuration; "
                f"set LABELGUARD_NOTIFY_{name.upper()} to reach it."
            )
        for sentence in misfits(policy, tool.store):
            say(sentence)
        version = tool.store.write(lambda conn: records.add_policy(conn, policy.project, text, now(), who()))
    if as_json:
        print_json({"project": policy.project, "version": version})
    else:
        typer.echo(f"Project {policy.project} has policy version {version}, with {_rules(policy)}.")


@app.command()
def export(
    project: ProjectOption,
    version: Annotated[int | None, typer.Option(help="A version; without it, the newest.", min=1)] = None,
    as_json: Json = False,
) -> None:
    """Print a project's policy as it was applied."""
    from labelguard.store import records

    with tools() as tool, tool.store.read() as conn:
        row = records.get_policy(conn, project, version)
    if row is None:
        which = f"policy version {version}" if version else "policy"
        raise Failed(f"Project {project} has no {which}; apply one with: labelguard policy apply FILE")
    if as_json:
        print_json(row)
    else:
        typer.echo(row["text"], nl=not row["text"].endswith("\n"))


@app.command()
def schema() -> None:
    """Print the JSON Schema of policies, with the options of each installed rule."""
    from labelguard.policy import policy_schema

    print_json(policy_schema())


def unreachable(policy: Policy, settings: Settings) -> list[str]:
    """Names under ``people`` that nothing can be sent to."""
    names = {name for members in policy.people.values() for name in members}
    return sorted(n for n in names if "@" not in n and not n.isdecimal() and n not in settings.notify)


def _advice(policy: Policy) -> list[str]:
    """What in a policy does not fit, where there is a store that knows the project: checking makes none."""
    from labelguard.store import Store

    with tools() as tool:
        return misfits(policy, tool.store) if Store.exists(tool.settings.database_url) else []


def misfits(policy: Policy, store: Store) -> list[str]:
    """What in a policy does not fit the project's labeling configuration, as last seen."""
    from labelguard.labelconfig import LabelConfig
    from labelguard.policy import build_rules
    from labelguard.store import records

    with store.read() as conn:
        row = records.get_project(conn, policy.project)
    if row is None or not row["label_config"]:
        return []
    config = LabelConfig.parse(row["label_config"])
    return [f"{active.name}: {said}" for active in build_rules(policy) for said in active.rule.warnings(config)]


def _rules(policy: Policy) -> str:
    return "1 rule" if len(policy.rules) == 1 else f"{len(policy.rules)} rules"
