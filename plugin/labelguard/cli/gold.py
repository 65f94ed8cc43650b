"""``labelguard gold``: the vault of right answers, which never enters Label Studio."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from labelguard.cli.context import now, tools
from labelguard.cli.output import Failed, Json, ProjectOption, Yes, print_json, print_rows, read_text

if TYPE_CHECKING:
    import sqlalchemy as sa

    from labelguard.connectors import Studio
    from labelguard.events import Annotation

app = typer.Typer(help="Keep the gold vault: right answers that annotators never see.", no_args_is_help=True)


@app.command("import")
def import_file(
    file: Annotated[Path, typer.Argument(help="JSONL, JSON or CSV; see docs/cli.md.")],
    project: ProjectOption,
    as_json: Json = False,
) -> None:
    """Put the answers of a file into the vault.

    Each line is {"task": 7, "result": [...]} or {"task": 7, "control": "digit", "value": "1"}; a CSV file has
    the columns task, control and value. Nothing is taken unless everything can be.
    """
    from labelguard.goldfile import read_gold
    from labelguard.labelconfig import LabelConfig
    from labelguard.store import records

    text = read_text(file)
    with tools() as tool:
        with tool.store.read() as conn:
            known = records.get_project(conn, project)
        config = LabelConfig.parse(known["label_config"]) if known and known["label_config"] else None
        answers = read_gold(text, str(file), config)

        def keep(conn: sa.Connection) -> None:
            for answer in answers:
                records.add_gold(conn, project, answer.task, answer.result, f"import:{file.name}", now())

        tool.store.write(keep)
    if as_json:
        print_json({"project": project, "tasks": [answer.task for answer in answers]})
    else:
        typer.echo(f"The vault of project {project} took {_answers(len(answers))} from {file}.")


@app.command()
def adopt(
    project: ProjectOption,
    annotation: Annotated[
        list[int] | None, typer.Option(help="An annotation's id; may be given several times.", min=1)
    ] = None,
    all_ground_truth: Annotated[
        bool, typer.Option("--all-ground-truth", help="Every annotation marked as ground truth.")
    ] = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Copy chosen annotations of Label Studio into the vault.

    Label Studio's ground truth is never taken by itself: importing annotated tasks marks them so, right or
    not. What would be taken is listed, and asked about.
    """
    from labelguard.store import records

    if bool(annotation) == all_ground_truth:
        raise typer.BadParameter("Give either --annotation (once or more) or --all-ground-truth.")
    with tools() as tool:
        chosen = _chosen(tool.studio, project, annotation or [])
        if not chosen:
            raise Failed(f"Project {project} has no annotation that is marked as ground truth.")
        rows = [{"task": a.task, "annotation": a.id, "by": a.completed_by, "says": _says(a)} for a in chosen]
        if not as_json:
            columns = {"task": "TASK", "annotation": "ANNOTATION", "by": "BY USER", "says": "SAYS"}
            print_rows(rows, columns, "")
        if not yes:
            typer.confirm(f"Take {_answers(len(chosen))} into the vault?", abort=True, err=True)

        def keep(conn: sa.Connection) -> None:
            for a in chosen:
                records.add_gold(conn, project, a.task, a.result, f"adopt:{a.id}", now())

        tool.store.write(keep)
    if as_json:
        print_json({"project": project, "adopted": rows})
    else:
        typer.echo(f"The vault of project {project} took {_answers(len(chosen))}.")


@app.command("list")
def list_answers(
    project: ProjectOption,
    retired: Annotated[bool, typer.Option("--retired", help="Retired answers and older versions too.")] = False,
    as_json: Json = False,
) -> None:
    """List the vault's answers."""
    from labelguard.judgments import judgments_of
    from labelguard.store import records

    with tools() as tool, tool.store.read() as conn:
        rows = records.list_gold(conn, project, retired=retired)
    if as_json:
        print_json(rows)
        return
    for row in rows:
        row["says"] = _in_words(judgments_of(row["result"]))
    columns = {"task": "TASK", "version": "VERSION", "origin": "FROM", "added_at": "ADDED", "says": "SAYS"}
    if retired:
        columns["retired_at"] = "RETIRED"
    print_rows(rows, columns, f"The vault of project {project} is empty.")


@app.command()
def retire(
    project: ProjectOption,
    task: Annotated[list[int], typer.Argument(help="Ids of tasks.", min=1)],
    as_json: Json = False,
) -> None:
    """Take answers out of use; what was judged with them stays."""
    from labelguard.store import records

    with tools() as tool:
        retired = tool.store.write(lambda conn: records.retire_gold(conn, project, task, now()))
    if as_json:
        print_json({"project": project, "retired": retired})
    elif not retired:
        raise Failed(f"The vault of project {project} has no answer in use for these tasks.")
    else:
        typer.echo(f"The vault of project {project} retired {_answers(retired)}.")


def _chosen(studio: Studio, project: int, ids: list[int]) -> list[Annotation]:
    if not ids:
        found = (a for record in studio.tasks_changed(project, None) for a in record.annotations)
        return [a for a in found if a.ground_truth and not a.was_cancelled]
    chosen = [studio.annotation(annotation) for annotation in ids]
    for a in chosen:
        if a.project and a.project != project:
            raise Failed(f"Annotation {a.id} belongs to project {a.project}, not to {project}.")
        if a.was_cancelled:
            raise Failed(f"Annotation {a.id} is a skip and holds no answer.")
    return chosen


def _says(annotation: Annotation) -> str:
    from labelguard.judgments import judgments_of

    return _in_words(judgments_of(annotation.result))


def _in_words(judgments: Any) -> str:
    return "; ".join(f"{j.control}: {', '.join(j.labels) or j.kind}" for j in judgments)


def _answers(count: int) -> str:
    return "1 answer" if count == 1 else f"{count} answers"
