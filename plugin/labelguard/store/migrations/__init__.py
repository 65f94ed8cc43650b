"""Bringing the schema up to date with Alembic."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa


class UnknownRevision(Exception):
    """The database has a schema that this version does not know."""

    def __init__(self, revision: str) -> None:
        super().__init__(revision)
        self.revision = revision


def upgrade(conn: sa.Connection, to: str = "head") -> None:
    """Run the migrations that a database lacks (``to`` a revision, for tests), inside the caller's transaction.

    Raises:
        UnknownRevision: the database was written by a newer version.
    """
    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    script = ScriptDirectory.from_config(config)
    current = MigrationContext.configure(conn).get_current_revision()
    if current == script.get_current_head():
        return
    if current is not None and current not in {revision.revision for revision in script.walk_revisions()}:
        raise UnknownRevision(current)

    from alembic import command

    config.attributes["connection"] = conn
    command.upgrade(config, to)
