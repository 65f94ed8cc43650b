"""``labelguard findings``: what the rules saw, and what people say of it."""

from __future__ import annotations

from typing import Annotated

import typer

from labelguard.cli.context import now, tools, who
from labelguard.cli.output import AnyProject, Failed, Json, print_json, print_pairs, print_rows

app = typer.Typer(help="Look at findings and judge them.", invoke_without_command=True)

FindingId = Annotated[int, typer.Argument(help="The finding's id.", min=1)]
Note = Annotated[str, typer.Option(help="Why, for the record.")]

_COLUMNS = {
    "id": "ID", "at": "WHEN", "rule": "RULE", "annotator": "ANNOTATOR", "task": "TASK", "state": "STATE",
    "reviewed": "REVIEWED", "message": "MESSAGE",
}  # fmt: skip


@app.callback()
def newest(context: typer.Context, project: AnyProject = None, as_json: Json = False) -> None:
    """Look at findings and judge them; without a command, list the newest."""
    if context.invoked_subcommand is None:
        list_findings(project=project, as_json=as_json)


@app.command("list")
def list_findings(
    project: AnyProject = None,
    rule: Annotated[str | None, typer.Option(help="Only this rule's.")] = None,
    annotator: Annotated[int | None, typer.Option(help="Only about this user.", min=1)] = None,
    state: Annotated[str | None, typer.Option(help="open, acknowledged, disputed, upheld or dismissed.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many, the newest.", min=1)] = 50,
    as_json: Json = False,
) -> None:
    """List findings, the newest first."""
    from labelguard.reviews import in_words, with_reviews
    from labelguard.store import records

    with tools() as tool, tool.store.read() as conn:
        rows = records.list_findings(
            conn, project=project, rule=rule, annotator=annotator, state=state, limit=limit, newest_first=True
        )
        rows = with_reviews(conn, rows)
    if as_json:
        print_json(rows)
    else:
        rows = [{**row, "reviewed": in_words(row["review"])} for row in rows]
        print_rows(rows, _COLUMNS, "There is no such finding.")


@app.command()
def show(finding: FindingId, as_json: Json = False) -> None:
    """Show a finding with its evidence and its actions."""
    from labelguard.reviews import with_reviews
    from labelguard.store import records

    with tools() as tool, tool.store.read() as conn:
        found = records.get_finding(conn, finding)
        row = with_reviews(conn, [found])[0] if found is not None else None
        actions = records.list_actions(conn, finding=finding)
    if row is None:
        raise Failed(f"There is no finding {finding}.")
    if as_json:
        print_json({**row, "actions": actions})
        return
    print_pairs({name: value for name, value in row.items() if value not in (None, "", [], {})})
    columns = {"id": "ACTION", "kind": "KIND", "state": "STATE", "error": "ERROR"}
    print_rows(actions, columns, "It led to no action.")


@app.command()
def uphold(finding: FindingId, note: Note = "", as_json: Json = False) -> None:
    """Say that a finding is right."""
    _judge(finding, "upheld", note, as_json)


@app.command()
def dismiss(finding: FindingId, note: Note = "", as_json: Json = False) -> None:
    """Say that a finding is wrong."""
    _judge(finding, "dismissed", note, as_json)


def _judge(finding: int, state: str, note: str, as_json: bool) -> None:
    from labelguard.store import records

    with tools() as tool:
        with tool.store.read() as conn:
            if records.get_finding(conn, finding) is None:
                raise Failed(f"There is no finding {finding}.")
        by = who()
        try:
            tool.store.write(lambda conn: records.set_finding_state(conn, finding, state, by=by, note=note, now=now()))
        except ValueError as error:
            raise Failed(str(error)) from error
    if as_json:
        print_json({"id": finding, "state": state})
    else:
        typer.echo(f"Finding {finding} is {state}.")
