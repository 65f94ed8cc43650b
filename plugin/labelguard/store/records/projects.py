"""Projects, their connections and their guidelines."""

from __future__ import annotations

import hashlib
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert  # its conflict clauses are SQLite's too

from labelguard.events import Project
from labelguard.store.records.rows import Row, all_rows, first_row
from labelguard.store.schema import guidelines, projects
from labelguard.store.statements import Statement

# Asked for each delivery, so built once: putting a statement together takes longer than SQLite takes to run it.
_PROJECT = sa.select(projects).where(projects.c.id == sa.bindparam("wanted"))
_PROJECT_NOW = Statement(_PROJECT)


def save_project(conn: sa.Connection, project: Project, now: datetime, *, listed: bool = False) -> None:
    """Insert or update a project; a changed guideline or label config becomes a new guideline version.

    An older description than the one in the store (by Label Studio's ``updated_at``) changes nothing, unless
    Label Studio itself has ``listed`` it: then it is confirmed, whatever a delivery said before.
    """
    values = {
        "title": project.title,
        "label_config": project.label_config,
        "guideline": project.guideline,
        "maximum_annotations": project.maximum_annotations,
        "skip_queue": project.skip_queue,
        "updated_at": project.updated_at,
    }
    known = get_project(conn, project.id)
    if listed and known is not None and project.updated_at is None:
        values["updated_at"] = known["updated_at"]
    if known is None:
        conn.execute(insert(projects).values(id=project.id, **values))
    elif not listed and project.updated_at and known["updated_at"] and project.updated_at < known["updated_at"]:
        return
    elif any(known[key] != value for key, value in values.items()):
        conn.execute(sa.update(projects).where(projects.c.id == project.id).values(values))
    if known is None or (known["guideline"], known["label_config"]) != (
        project.guideline,
        project.label_config,
    ):
        _add_guideline(conn, project, now)
    if listed:
        _confirm_guideline(conn, project, now)


def forget_project_time(conn: sa.Connection, project: int) -> None:
    """When the project was changed last is not known: a delivery made it up."""
    conn.execute(sa.update(projects).where(projects.c.id == project).values(updated_at=None))


def _confirm_guideline(conn: sa.Connection, project: Project, now: datetime) -> None:
    """The newest version is what Label Studio itself has."""
    newest = sa.select(sa.func.max(guidelines.c.version)).where(guidelines.c.project == project.id).scalar_subquery()
    conn.execute(
        sa.update(guidelines)
        .where(
            guidelines.c.project == project.id,
            guidelines.c.version == newest,
            guidelines.c.confirmed_at.is_(None),
        )
        .values(confirmed_at=now)
    )


def _add_guideline(conn: sa.Connection, project: Project, now: datetime) -> None:
    content = hashlib.sha256(f"{project.guideline}\0{project.label_config}".encode()).hexdigest()
    newest = first_row(
        conn,
        sa.select(guidelines).where(guidelines.c.project == project.id).order_by(guidelines.c.version.desc()).limit(1),
    )
    if newest is not None and newest["content_hash"] == content:
        return
    conn.execute(
        insert(guidelines).values(
            project=project.id,
            version=newest["version"] + 1 if newest else 1,
            content_hash=content,
            guideline=project.guideline,
            label_config=project.label_config,
            seen_at=now,
        )
    )


def list_guidelines(conn: sa.Connection, project: int) -> list[Row]:
    """A project's guideline versions, oldest first."""
    return all_rows(conn, sa.select(guidelines).where(guidelines.c.project == project).order_by(guidelines.c.version))


def get_project(conn: sa.Connection, project: int) -> Row | None:
    """One project's row."""
    return first_row(conn, _PROJECT, wanted=project)


def project_now(conn: sa.Connection, project: int) -> Row | None:
    """One project's row, for what asks with every delivery."""
    found = _PROJECT_NOW.first(conn, wanted=project)
    return None if found is None else dict(zip(projects.c.keys(), found, strict=True))


def list_projects(conn: sa.Connection, *, connected: bool | None = None) -> list[Row]:
    """Projects, by id."""
    query = sa.select(projects).order_by(projects.c.id)
    if connected is not None:
        query = query.where(projects.c.connected_at.is_not(None) if connected else projects.c.connected_at.is_(None))
    return all_rows(conn, query)


def set_connection(
    conn: sa.Connection,
    project: int,
    *,
    connected_at: datetime | None,
    webhook_id: int | None,
    webhook_url: str | None,
    token_hash: str | None,
) -> None:
    """Remember (or with Nones forget) how a project is connected."""
    values = {
        "connected_at": connected_at,
        "webhook_id": webhook_id,
        "webhook_url": webhook_url,
        "token_hash": token_hash,
    }
    conn.execute(
        insert(projects).values(id=project, **values).on_conflict_do_update(index_elements=["id"], set_=values)
    )
