"""Commands that run something: ``serve``, ``web``, ``worker``, ``studio``, ``demo`` and ``replay``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from labelguard.cli.context import tools
from labelguard.cli.output import Json, print_json, print_rows, read_text, say

if TYPE_CHECKING:
    from labelguard.service import ProcessKind

StudioPython = Annotated[
    Path,
    typer.Option(help="The Python of Label Studio's own virtual environment.", envvar="LABELGUARD_STUDIO_PYTHON"),
]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(serve)
    app.command()(web)
    app.command()(worker)
    app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(studio)
    app.command()(demo)
    app.command()(replay)


def serve() -> None:
    """Run the whole service: webhook receiver, page, API, status page and schedule."""
    _run("serve")


def web() -> None:
    """Run the HTTP side alone: webhook receiver, page, API and status page.

    Any number may run, on PostgreSQL; what arrives is judged here too. Actions and the schedule need a worker.
    """
    _run("web")


def worker() -> None:
    """Run everything but the HTTP side: judging, actions and the schedule.

    Any number may run, on PostgreSQL; one of them keeps the schedule. Its port answers probes and monitoring.
    """
    _run("worker")


def _run(kind: ProcessKind) -> None:
    from labelguard.logs import configure
    from labelguard.service import run
    from labelguard.settings import load_settings

    settings = load_settings()
    configure(settings.log_level)
    run(settings, kind)


def studio(
    context: typer.Context,
    python: StudioPython = Path(".venv-studio/bin/python"),
    port: Annotated[int, typer.Option(help="Label Studio's port.", min=1, max=65535)] = 8080,
) -> None:
    """Run Label Studio with labelguard's page script in it.

    Further arguments are passed on to `label-studio start`.
    """
    from labelguard.studio.launch import StudioNotStarted
    from labelguard.studio.run import run

    with tools() as tool:
        try:
            status = run(tool.settings, python, port, context.args)
        except StudioNotStarted as error:
            say(str(error))
            status = 1
    raise typer.Exit(status)


def demo(
    once: Annotated[bool, typer.Option("--once", help="End when the scripted annotators are done.")] = False,
    python: StudioPython = Path(".venv-studio/bin/python"),
) -> None:
    """Show labelguard at work on a Label Studio of its own, with scripted annotators.

    Everything it makes is in the folder .demo, which the next demo empties. With --once, the exit code is 1
    where something that the scripts do wrong was not found.
    """
    from labelguard.demo import run

    raise typer.Exit(run(once, studio_python=python))


def replay(
    file: Annotated[Path, typer.Argument(help="Webhook bodies, one JSON object a line.")],
    policy: Annotated[Path, typer.Option(help="The policy's YAML file.")],
    gold: Annotated[Path | None, typer.Option(help="Answers for the gold vault.")] = None,
    as_json: Json = False,
) -> None:
    """Say what a policy would have found and done on recorded deliveries.

    Each line is a body as Label Studio sends it, or {"headers": {...}, "body": {...}}. They are taken in the
    file's order as if each arrived when it happened. Annotations marked as ground truth count as gold.
    """
    from labelguard.policy import load_policy
    from labelguard.replay import replay as replay_file

    for named in (file, policy, *([gold] if gold else [])):
        if not named.is_file():
            raise typer.BadParameter(f"There is no file {named}.")
    text = read_text(policy)
    read = load_policy(text, str(policy))
    result = replay_file(file, read, text, gold=gold)
    if result.elsewhere:
        say(
            f"{result.elsewhere} of {result.deliveries} deliveries are about other projects than the policy's "
            f"({read.project}); no rule looked at them."
        )
    if as_json:
        print_json(
            {
                "deliveries": result.deliveries,
                "rejected": result.rejected,
                "findings": result.findings,
                "actions": result.actions,
            }
        )
        return
    typer.echo(
        f"{result.deliveries} deliveries, {len(result.rejected)} refused, "
        f"{len(result.findings)} findings, {len(result.actions)} actions."
    )
    for refused in result.rejected:
        say(f"Line {refused['line']}: {refused['reason']}")
    columns = {"rule": "RULE", "annotator": "ANNOTATOR", "task": "TASK", "message": "MESSAGE"}
    print_rows(result.findings, columns, "The policy's rules found nothing.")
