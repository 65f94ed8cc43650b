"""Judgments, findings, actions and annotators as tables that load into pandas.

With a key, people become keyed pseudonyms (HMAC-SHA-256): the same person has the same one in every export
under that key, and nobody finds their way back without it. Annotations become pseudonyms too, since Label
Studio tells everybody who made one. What people typed, and what tasks hold, is left out unless it is asked for.
"""

from __future__ import annotations

import csv
import hashlib
import hmac
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa

from labelguard.store import Store
from labelguard.store.schema import actions, annotations as annotations_table, annotators, findings, judgments, tasks

Format = Literal["parquet", "csv"]
Row = dict[str, Any]

_BATCH = 10_000
"""Rows in memory at a time."""

_SHORTEST_KEY = 16

PLAIN = frozenset({"choices", "taxonomy", "rating", "number", "pairwise", "datetime"})
"""Kinds of judgments whose value is nothing but a pick, a number or a time; others may hold what people typed or
what a task says."""

TABLES = ("judgments", "findings", "actions", "annotators")


class CannotExport(Exception):
    """Nothing was exported; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written."""

    folder: Path
    rows: Mapping[str, int]
    pseudonymised: bool


@dataclass(frozen=True, slots=True)
class Pseudonyms:
    """Keyed names for people and annotations."""

    key: bytes

    @classmethod
    def from_file(cls, file: Path) -> Pseudonyms:
        """Read the key.

        Raises:
            CannotExport: it is too short to be one.
            OSError: it cannot be read.
        """
        key = file.read_bytes().strip()
        if len(key) < _SHORTEST_KEY:
            raise CannotExport(
                f"The key in {file} has {len(key)} bytes; with fewer than {_SHORTEST_KEY} everybody could try all "
                "ids. Make one with `openssl rand -hex 32`."
            )
        return cls(key)

    def of(self, what: str, number: int | None) -> str | None:
        """The pseudonym of ``annotator`` 7, such as ``annotator-4fce1d0a9b2c7e65``."""
        if number is None:
            return None
        made = hmac.new(self.key, f"{what}:{number}".encode(), hashlib.sha256).hexdigest()[:16]
        return f"{what}-{made}"


def export(
    store: Store,
    project: int,
    folder: Path,
    *,
    pseudonyms: Pseudonyms | None = None,
    texts: bool = False,
    task_data: bool = False,
    form: Format = "parquet",
) -> Exported:
    """Write a project's tables into a new folder.

    Raises:
        CannotExport: the folder is there, or what is asked for would name people that pseudonyms are to hide.
        StoreError: the store cannot be read.
    """
    if pseudonyms is not None and (texts or task_data):
        raise CannotExport(
            "What people typed and what tasks hold may name anybody; leave --texts and --task-data away, or "
            "--pseudonymise."
        )
    if folder.exists():
        raise CannotExport(f"{folder} exists; an export is a new folder. Name another one.")
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        rows = {}
        # One snapshot, so that the tables fit each other.
        with store.read() as conn:
            for name, query, made in _tables(project, pseudonyms, texts, task_data):
                # In the order of their ids, pseudonyms would tell who came to Label Studio first.
                by = "annotator" if name == "annotators" and pseudonyms else None
                file, hidden = part / f"{name}.{form}", pseudonyms is not None
                rows[name] = _write(file, _rows(conn, query, made), form, by=by, pseudonyms=hidden)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return Exported(folder, rows, pseudonyms is not None)


Make = Callable[[Mapping[str, Any]], Row]


def _tables(
    project: int, pseudonyms: Pseudonyms | None, texts: bool, task_data: bool
) -> Iterator[tuple[str, sa.Select[Any], Make]]:
    """Name, query and shape of each table."""

    def person(number: int | None) -> Any:
        return pseudonyms.of("annotator", number) if pseudonyms else number

    def annotation(number: int | None) -> Any:
        return pseudonyms.of("annotation", number) if pseudonyms else number

    def judgment(row: Mapping[str, Any]) -> Row:
        plain = texts or row["kind"] in PLAIN
        return {
            "judgment": row["id"],
            "task": row["task"],
            "annotation": annotation(row["annotation"]),
            "annotator": person(row["annotator"]),
            "control": row["control"],
            "kind": row["kind"],
            "region": row["region"],
            "labels": list(map(str, row["labels"])),
            "value": _json(row["value"]) if plain else None,
            "first": row["first"],
            "at": row["at"],
            "lead_time": row["lead_time"],
        }

    made = sa.select(judgments, annotations_table.c.lead_time).join(
        annotations_table, annotations_table.c.row == judgments.c.annotation_row
    )
    alive = annotations_table.c.deleted_at.is_(None)
    yield "judgments", made.where(judgments.c.project == project, alive).order_by(judgments.c.id), judgment

    def finding(row: Mapping[str, Any]) -> Row:
        return {
            "finding": row["id"],
            "rule": row["rule"],
            "policy_version": row["policy_version"],
            "task": row["task"],
            "annotation": annotation(row["annotation"]),
            "annotator": person(row["annotator"]),
            "control": row["control"],
            "labels": list(map(str, row["labels"])),
            "severity": row["severity"],
            "mode": row["mode"],
            "state": row["state"],
            "at": row["at"],
            "created_at": row["created_at"],
            "state_at": row["state_at"],
            **({"message": row["message"], "evidence": _json(row["evidence"]), "note": row["note"]} if texts else {}),
        }

    yield "findings", sa.select(findings).where(findings.c.project == project).order_by(findings.c.id), finding

    def action(row: Mapping[str, Any]) -> Row:
        return {
            "action": row["id"],
            "finding": row["finding"],
            "kind": row["kind"],
            "task": row["task"],
            "annotation": annotation(row["annotation"]),
            "annotator": person(row["annotator"]),
            "state": row["state"],
            "attempts": row["attempts"],
            "created_at": row["created_at"],
            "updated_at": row["updated_at"],
            **({"error": row["error"], "decided_by": row["decided_by"]} if texts else {}),
        }

    yield "actions", sa.select(actions).where(actions.c.project == project).order_by(actions.c.id), action

    def annotator(row: Mapping[str, Any]) -> Row:
        names = {} if pseudonyms else {"name": row["name"], "email": row["email"]}
        return {"annotator": person(row["id"]), **names, "active": row["active"]}

    here = sa.select(annotations_table.c.completed_by).where(annotations_table.c.project == project)
    people = sa.select(annotators).where(annotators.c.id.in_(here)).order_by(annotators.c.id)
    yield "annotators", people, annotator

    if task_data:
        whole = sa.select(tasks.c.id, tasks.c.data).where(tasks.c.project == project, tasks.c.deleted_at.is_(None))
        yield "tasks", whole.order_by(tasks.c.id), lambda row: {"task": row["id"], "data": _json(row["data"])}


def _rows(conn: sa.Connection, query: sa.Select[Any], made: Make) -> Iterator[list[Row]]:
    """A query's rows in their shape, few at a time; first none, but with the columns."""
    yield [made({column.name: [] if column.name == "labels" else None for column in query.selected_columns})]
    found = conn.execution_options(stream_results=True, yield_per=_BATCH).execute(query).mappings()
    for some in found.partitions(_BATCH):
        yield [made(dict(row)) for row in some]


def _write(file: Path, batches: Iterator[list[Row]], form: Format, *, by: str | None, pseudonyms: bool) -> int:
    """Write a table; ``by`` is the column its rows are sorted by, few as they are."""
    (blank,) = next(batches)
    sorted_batches = (sorted(rows, key=lambda row: str(row[by])) for rows in batches) if by else batches
    if form == "csv":
        return _write_csv(file, list(blank), sorted_batches)
    return _write_parquet(file, _schema(list(blank), pseudonyms=pseudonyms), sorted_batches)


def _write_parquet(file: Path, schema: Any, batches: Iterator[list[Row]]) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    count = 0
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for rows in batches:
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
            count += len(rows)
    return count


def _schema(names: Sequence[str], *, pseudonyms: bool) -> Any:
    """The columns' types: by name, since the first rows may hold nothing in one."""
    import pyarrow as pa

    types: dict[str, Any] = {
        "labels": pa.list_(pa.string()),
        "first": pa.bool_(),
        "active": pa.bool_(),
        "lead_time": pa.float64(),
        **dict.fromkeys(("judgment", "finding", "action", "task", "policy_version", "attempts"), pa.int64()),
        **dict.fromkeys(("at", "created_at", "updated_at", "state_at"), pa.timestamp("us", tz="UTC")),
        **dict.fromkeys(("annotator", "annotation"), pa.string() if pseudonyms else pa.int64()),
    }
    return pa.schema((name, types.get(name, pa.string())) for name in names)


def _write_csv(file: Path, names: Sequence[str], batches: Iterator[list[Row]]) -> int:
    count = 0
    with file.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, names)
        writer.writeheader()
        for rows in batches:
            for row in rows:
                writer.writerow({name: _cell(value) for name, value in row.items()})
            count += len(rows)
    return count


def _cell(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return _json(value) if isinstance(value, (list, dict)) else value


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
