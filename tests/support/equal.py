"""Whether a store says exactly what a Label Studio says: read from both on ways that share nothing.

The server is read through its REST API with the admin's token, task by task of the plain listing, without
labelguard's connector, events or filters. The store is read through its tables.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from labelguard.store import Store, schema
from live import LiveProject

Things = dict[Any, dict[str, Any]]

_PAGE = 500


def differences(store: Store, project: LiveProject, *, tasks: bool = True) -> list[str]:
    """Every difference between a store and Label Studio about one project, as sentences; empty where equal.

    Without ``tasks``, tasks are compared only as far as both have them.
    """
    there_tasks, there_annotations = _on_the_server(project)
    here_tasks, here_annotations = _in_the_store(store, project.id)
    if not tasks:
        here_tasks = {task: about for task, about in here_tasks.items() if task in there_tasks}
        there_tasks = {task: about for task, about in there_tasks.items() if task in here_tasks}
    return [
        *_compared("project", {project.id: _project(project)}, {project.id: _kept_project(store, project.id)}),
        *_compared("task", there_tasks, here_tasks),
        *_compared("annotation", there_annotations, here_annotations),
    ]


def _compared(what: str, there: Things, here: Things) -> Iterator[str]:
    for key in sorted(there.keys() - here.keys(), key=str):
        yield f"{what} {key} is on the server and not in the store"
    for key in sorted(here.keys() - there.keys(), key=str):
        yield f"{what} {key} is in the store and not on the server"
    for key in sorted(there.keys() & here.keys(), key=str):
        for name, value in there[key].items():
            if here[key].get(name) != value:
                yield f"{what} {key}: {name} is {value!r} on the server and {here[key].get(name)!r} in the store"


def _on_the_server(project: LiveProject) -> tuple[Things, Things]:
    tasks: Things = {}
    annotations: Things = {}
    total, page = None, 0
    while total is None or len(tasks) < total:
        page += 1
        listing = project.api.call(
            "GET",
            "/api/tasks/",
            params={
                "project": project.id,
                "page": page,
                "page_size": _PAGE,
                "fields": "all",
                "resolve_uri": "false",
            },
        )
        total = listing["total"]
        if not listing["tasks"]:
            break
        for task in listing["tasks"]:
            tasks[task["id"]] = {
                "data": task["data"],
                "meta": task["meta"] or {},
                "overlap": task["overlap"],
                "is_labeled": task["is_labeled"],
                "created_at": _time(task["created_at"]),
                "updated_at": _time(task["updated_at"]),
            }
            for each in task["annotations"]:
                annotations[(each["id"], _time(each["created_at"]))] = {
                    "task": task["id"],
                    "result": each["result"],
                    "completed_by": each["completed_by"],
                    "updated_by": each["updated_by"],
                    "was_cancelled": each["was_cancelled"],
                    "ground_truth": each["ground_truth"],
                    "updated_at": _time(each["updated_at"]),
                    "lead_time": each["lead_time"],
                    "parent_prediction": each["parent_prediction"],
                }
    return tasks, annotations


def _project(project: LiveProject) -> dict[str, Any]:
    found = project.api.call("GET", f"/api/projects/{project.id}/")
    return {
        "title": found["title"],
        "label_config": found["label_config"],
        "guideline": found["expert_instruction"] or "",
        "maximum_annotations": found["maximum_annotations"],
        "skip_queue": found["skip_queue"],
    }


def _in_the_store(store: Store, project: int) -> tuple[Things, Things]:
    tasks, annotations = schema.tasks, schema.annotations
    with store.read() as conn:
        found = conn.execute(sa.select(tasks).where(tasks.c.project == project, tasks.c.deleted_at.is_(None)))
        of_tasks: Things = {row["id"]: dict(row) for row in found.mappings()}
        query = sa.select(annotations).where(annotations.c.project == project, annotations.c.deleted_at.is_(None))
        rows = conn.execute(query).mappings()
        return of_tasks, {(row["id"], row["created_at"]): dict(row) for row in rows}


def _kept_project(store: Store, project: int) -> dict[str, Any]:
    with store.read() as conn:
        row = conn.execute(sa.select(schema.projects).where(schema.projects.c.id == project)).mappings().first()
    return dict(row) if row is not None else {}


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)
