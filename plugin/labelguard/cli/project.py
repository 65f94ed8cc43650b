"""Commands about one connected project: ``connect``, ``disconnect``, ``reconcile``, ``sweep``, ``doctor``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from labelguard.cli.context import now, tools, who
from labelguard.cli.output import AnyProject, Failed, Json, ProjectOption, Yes, print_json, print_pairs

if TYPE_CHECKING:
    from labelguard.connect import ConnectReport, DisconnectReport
    from labelguard.store import Store

DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(connect)
    app.command()(disconnect)
    app.command()(reconcile)
    app.command()(sweep)
    app.command()(doctor)


def connect(project: ProjectOption, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Connect a project: set the webhook, and read what it already holds.

    What happened before is the past: it gives findings, never actions. Connecting again repairs what is
    wrong and changes nothing else.
    """
    from labelguard.connect import CannotConnect, connect as connect_project

    with tools() as tool, _progress("tasks read", quiet=as_json) as progress:
        tool.engine.own_user = tool.studio.server().user.id
        try:
            report = connect_project(
                tool.store,
                tool.engine,
                tool.studio,
                project,
                public_url=tool.settings.public_url,
                clock=now,
                task_note=_task_note(tool.store, project),
                dry_run=dry_run,
                progress=progress,
            )
        except CannotConnect as error:
            raise Failed(str(error)) from error
        if not dry_run:
            tool.engine.process_pending()
    _steps(report, as_json)


def disconnect(project: ProjectOption, yes: Yes = False, as_json: Json = False) -> None:
    """Disconnect a project: remove the webhook and restore what labelguard changed in Label Studio.

    Findings, annotations and the gold vault stay in the store.
    """
    from labelguard.connect import disconnect as disconnect_project

    if not yes:
        typer.confirm(f"Disconnect project {project} and undo what labelguard did there?", abort=True, err=True)
    with tools() as tool:
        report = disconnect_project(tool.store, tool.outbox, tool.studio, project, by=who(), clock=now)
    _steps(report, as_json)


def reconcile(
    project: ProjectOption,
    full: Annotated[bool, typer.Option("--full", help="Compare everything, as the nightly audit does.")] = False,
    as_json: Json = False,
) -> None:
    """Read from Label Studio what the webhook missed."""
    from labelguard.reconcile import reconcile as reconcile_project

    with tools() as tool, _progress("tasks compared", quiet=as_json) as progress:
        tool.engine.own_user = tool.studio.server().user.id
        report = reconcile_project(
            tool.store, tool.engine, tool.studio, project, clock=now, full=full, progress=progress
        )
        tool.engine.process_pending()
    if as_json:
        print_json(report)
    else:
        print_pairs({"project": report.project, **report.summary()})


def sweep(
    project: ProjectOption,
    rule: Annotated[str | None, typer.Option(help="Only this sweep of the policy.")] = None,
    as_json: Json = False,
) -> None:
    """Run a project's sweeps now."""
    from labelguard.schedule import UnknownSweep, run_sweeps

    with tools() as tool:
        try:
            found = run_sweeps(tool.store, tool.engine, project, now=now(), only=rule)
        except UnknownSweep as error:
            raise Failed(str(error)) from error
    if as_json:
        print_json({"project": project, "findings": found})
    elif not found:
        raise Failed(f"The policy of project {project} has no sweep.")
    else:
        for name, ids in found.items():
            listed = f": {', '.join(str(i) for i in ids)}" if ids else ""
            typer.echo(f"{name} made {len(ids)} new findings{listed}.")


def doctor(project: AnyProject = None, as_json: Json = False) -> None:
    """Say what is wrong with the installation, and how to put it right."""
    from labelguard.doctor import diagnose

    with tools() as tool:
        checks = diagnose(tool.settings, project=project, clock=now)
    if as_json:
        print_json(checks)
    else:
        for check in checks:
            mark = {True: "ok", False: "WRONG", None: "unknown"}[check.ok]
            typer.echo(f"{mark:8}{check.name}: {check.message}")
            if check.ok is not True and check.fix:
                typer.echo(f"{'':8}{check.fix}")
    wrong = [check for check in checks if check.ok is False]
    if wrong:
        raise Failed("1 check failed." if len(wrong) == 1 else f"{len(wrong)} checks failed.")


def _task_note(store: Store, project: int) -> str | None:
    """The key of ``task.data`` that the project's policy allows messages in."""
    from labelguard.policy import load_policy
    from labelguard.store import records

    with store.read() as conn:
        row = records.get_policy(conn, project)
    return load_policy(row["text"]).task_note if row else None


def _steps(report: ConnectReport | DisconnectReport, as_json: bool) -> None:
    if as_json:
        print_json(report)
        return
    for step in report.steps:
        typer.echo(step)


@contextmanager
def _progress(what: str, *, quiet: bool) -> Iterator[Callable[[int, int | None], None]]:
    """How far it is, on stderr where a person watches; silence elsewhere."""
    if quiet or not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (BarColumn(), TextColumn("{task.completed} {task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
