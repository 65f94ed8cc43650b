"""``labelguard actions``: what labelguard does, and what people decide about it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from labelguard.cli.context import now, tools, who
from labelguard.cli.output import AnyProject, Failed, Json, print_json, print_rows

if TYPE_CHECKING:
    from labelguard.outbox import Outbox

app = typer.Typer(help="Decide about actions; stop them all at once.", no_args_is_help=True)

ActionIds = Annotated[list[int], typer.Argument(help="Ids of actions.", min=1)]
Limit = Annotated[int, typer.Option(help="At most so many, the newest.", min=1)]

_COLUMNS = {
    "id": "ID", "created_at": "WHEN", "kind": "KIND", "state": "STATE", "finding": "FINDING", "task": "TASK",
    "annotator": "ANNOTATOR", "error": "ERROR",
}  # fmt: skip


@app.command()
def pending(project: AnyProject = None, limit: Limit = 50, as_json: Json = False) -> None:
    """List the actions that wait for a person's yes or no."""
    _show(project, ["proposed"], limit, as_json, "No action waits for a person.")


@app.command("list")
def list_actions(
    project: AnyProject = None,
    state: Annotated[list[str] | None, typer.Option(help="Only in this state; may be repeated.")] = None,
    limit: Limit = 50,
    as_json: Json = False,
) -> None:
    """List actions, the newest first."""
    _show(project, state, limit, as_json, "There is no such action.")


@app.command()
def approve(action: ActionIds, as_json: Json = False) -> None:
    """Let proposed actions happen; the service delivers them."""
    _decide(action, lambda outbox, one, by: outbox.approve(one, by), "approved", as_json)


@app.command()
def reject(action: ActionIds, as_json: Json = False) -> None:
    """Reject proposed actions for good."""
    _decide(action, lambda outbox, one, by: outbox.reject(one, by), "rejected", as_json)


@app.command()
def undo(action: ActionIds, as_json: Json = False) -> None:
    """Take the effect of actions back, now."""
    _decide(action, lambda outbox, one, by: outbox.undo(one, by), "undone", as_json)


@app.command()
def stop(as_json: Json = False) -> None:
    """Stop all actions in all projects at once; findings go on."""
    _switch(False, as_json)


@app.command()
def resume(as_json: Json = False) -> None:
    """Let actions happen again."""
    _switch(True, as_json)


def _show(project: int | None, states: Sequence[str] | None, limit: int, as_json: bool, empty: str) -> None:
    from labelguard.store import records

    with tools() as tool, tool.store.read() as conn:
        rows = records.list_actions(conn, project=project, states=states or None, limit=limit, newest_first=True)
    if as_json:
        print_json(rows)
    else:
        print_rows(rows, _COLUMNS, empty)


def _decide(actions: Sequence[int], step: Callable[[Outbox, int, str], None], done: str, as_json: bool) -> None:
    from labelguard.store import records

    by = who()
    with tools() as tool:
        with tool.store.read() as conn:
            missing = [one for one in actions if records.get_action(conn, one) is None]
        if missing:
            raise Failed(f"There is no action {', '.join(str(one) for one in missing)}; nothing was changed.")
        for one in actions:
            step(tool.outbox, one, by)
            if not as_json:
                typer.echo(f"Action {one} is {done}.")
    if as_json:
        print_json([{"id": one, "state": done} for one in actions])


def _switch(enabled: bool, as_json: bool) -> None:
    from labelguard.store import records

    by = who()
    with tools() as tool:
        tool.store.write(lambda conn: records.set_actions_enabled(conn, enabled, by=by, now=now()))
    if as_json:
        print_json({"actions": "on" if enabled else "off"})
    else:
        typer.echo("Actions happen again." if enabled else "All actions are stopped; findings go on.")
