"""Commands about what the store holds: ``backup``, ``restore``, ``restored``, ``prune``, ``erase``, ``export``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from labelguard.cli.context import now, tools, who
from labelguard.cli.output import Failed, Json, ProjectOption, Yes, print_json, print_pairs, say

if TYPE_CHECKING:
    from labelguard.backup import Contents
    from labelguard.erasure import Erased, Person
    from labelguard.settings import Settings


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(backup)
    app.command()(restore)
    app.command()(restored)
    app.command()(prune)
    app.command()(erase)
    app.command()(export)


def backup(
    file: Annotated[Path, typer.Argument(help="The new file.")],
    as_json: Json = False,
) -> None:
    """Copy the store to a file while the service goes on, and verify the copy.

    It holds everything that labelguard knows, names of annotators and the gold vault too: keep it as safe.
    """
    from labelguard.backup import CannotBackUp, back_up, described
    from labelguard.settings import load_settings

    try:
        contents = back_up(_sqlite_file(load_settings(), "pg_dump"), file)
    except CannotBackUp as error:
        raise Failed(str(error)) from error
    if as_json:
        print_json(described(contents))
    else:
        typer.echo(f"{file}: {_in_words(contents)}")


def restore(
    file: Annotated[Path, typer.Argument(help="What `labelguard backup` made.")],
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Put a backup in the store's place; the service must be stopped.

    The store that was there is kept beside. Afterwards no action happens until you say `labelguard actions
    resume`, since what was done after the backup is not known any more.
    """
    from labelguard.backup import CannotBackUp, described, restore as put_back, verify
    from labelguard.settings import load_settings

    store = _sqlite_file(load_settings(), "pg_restore")
    try:
        contents = verify(file)
        if not yes:
            typer.confirm(f"Put {file} ({_in_words(contents)}) in the place of {store}?", abort=True, err=True)
        done = put_back(file, store, now=now(), by=who())
    except CannotBackUp as error:
        raise Failed(str(error)) from error
    if as_json:
        replaced = str(done.replaced) if done.replaced else None
        about = {"replaced": replaced, "messages_to_decide": done.to_decide, "actions_forgotten": done.forgotten}
        print_json({**described(contents), **about})
        return
    typer.echo(f"{store} holds what {file} held: {_in_words(contents)}")
    if done.replaced is not None:
        typer.echo(f"The store that was there is {done.replaced}.")
    if done.forgotten:
        typer.echo(
            f"{done.forgotten} actions were done or taken back after the backup. What they changed in Label Studio "
            "stays; labelguard no longer knows of them, the store that was there does."
        )
    _say_what_is_held_back(done.to_decide)


def restored(as_json: Json = False) -> None:
    """Make a store safe to work with that was restored by other means, such as pg_restore.

    Stops all actions until you say `labelguard actions resume`, as `labelguard restore` does.
    """
    from labelguard.backup import ROLES, after_restore

    with tools() as tool:
        for role in ROLES:
            with tool.store.try_exclusive(role) as mine:
                if mine is None:
                    raise Failed(f"A service works on the store {tool.store.where}. Stop labelguard first.")
        waiting = tool.store.write(lambda conn: after_restore(conn, now=now(), by=who()))
    if as_json:
        print_json({"messages_to_decide": waiting})
    else:
        _say_what_is_held_back(waiting)


def prune(
    compact: Annotated[
        bool, typer.Option("--compact", help="Give freed space back to the disk too; the service must be stopped.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Let go of raw deliveries and other things older than LABELGUARD_RAW_DAYS; the service does so every night."""
    from labelguard.backup import CannotBackUp, compact as give_back
    from labelguard.retention import prune as let_go

    with tools() as tool:
        settings = tool.settings
        pruned = asdict(let_go(tool.store, settings.raw_days, clock=now))
    if compact:
        try:
            pruned["bytes_given_back"] = give_back(_sqlite_file(settings, "VACUUM FULL"))
        except CannotBackUp as error:
            raise Failed(str(error)) from error
    if as_json:
        print_json(pruned)
    else:
        print_pairs(pruned)


def erase(
    annotator: Annotated[str, typer.Argument(help="Their Label Studio id, or their address.")],
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do it; without, it is only said what would be done.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Erase who an annotator was; what their labels say stays, under a number that stands for nobody.

    Without --yes nothing is changed. Erasing again after a crash goes on where it stopped.
    """
    from labelguard.erasure import UnknownAnnotator, erase as erase_person, find

    with tools() as tool:
        try:
            with tool.store.read() as conn:
                person = find(conn, annotator)
        except UnknownAnnotator as error:
            raise Failed(str(error)) from error
        done = erase_person(tool.store, person, clock=now, by=who(), dry_run=not yes)
    if as_json:
        print_json({**asdict(done), "done": yes})
        return
    typer.echo(f"Annotator {person.id} {'is' if yes else 'would become'} {person.pseudonym} in:")
    print_pairs(done.counts())
    _say_what_stays(done, person, yes)


def export(
    project: ProjectOption,
    to: Annotated[Path, typer.Option("--to", help="The new folder.")],
    pseudonymise: Annotated[
        Path | None, typer.Option(help="A file with a secret key: people and annotations become pseudonyms.")
    ] = None,
    texts: Annotated[bool, typer.Option("--texts", help="Also messages, evidence, and what people typed.")] = False,
    task_data: Annotated[bool, typer.Option("--task-data", help="Also the tasks with their data.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV instead of Parquet.")] = False,
    as_json: Json = False,
) -> None:
    """Write a project's judgments, findings, actions and annotators as tables for pandas."""
    from labelguard.export import CannotExport, Pseudonyms, export as write

    with tools() as tool:
        try:
            done = write(
                tool.store,
                project,
                to,
                pseudonyms=Pseudonyms.from_file(pseudonymise) if pseudonymise else None,
                texts=texts,
                task_data=task_data,
                form="csv" if as_csv else "parquet",
            )
        except CannotExport as error:
            raise Failed(str(error)) from error
    if as_json:
        print_json(done)
    else:
        print_pairs(done.rows)


def _say_what_is_held_back(messages: int) -> None:
    if messages:
        typer.echo(
            f"{messages} messages were waiting to be sent and may have been since: see `labelguard actions pending`."
        )
    typer.echo(
        "All actions are stopped, and what was annotated before now will give findings but no actions. Start the "
        "service, run `labelguard reconcile --full` for each project, look at what it found, and let actions "
        "happen again with `labelguard actions resume`."
    )


def _say_what_stays(done: Erased, person: Person, yes: bool) -> None:
    for named in done.named_in:
        say(f"{named[0].upper()}{named[1:]} names {person.email}: apply a version without it, and erase again.")
    say(
        "What stays: what they labeled, texts typed as labels included, as everybody's who stands for nobody. Outside "
        "labelguard's reach are Label Studio itself, logs, backups, and exports. If they annotate again, they are "
        "known anew from then on."
    )
    if not yes:
        say("Nothing was changed; repeat the command with --yes.")


def _sqlite_file(settings: Settings, instead: str) -> Path:
    from sqlalchemy.engine import make_url

    url = make_url(settings.database_url)
    if url.get_backend_name() != "sqlite":
        raise Failed(f"This is for stores in SQLite; use PostgreSQL's own {instead}, see docs/operations.md.")
    return Path(url.database or "")


def _in_words(contents: Contents) -> str:
    until = f"until {contents.until:%Y-%m-%d %H:%M:%S} UTC" if contents.until else "without any delivery"
    deliveries, findings = contents.rows.get("inbox", 0), contents.rows.get("findings", 0)
    return f"{contents.total:,} rows, {deliveries:,} deliveries and {findings:,} findings, {until}."
