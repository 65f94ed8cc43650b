"""Whether what the store has is what Label Studio says."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from labelguard.events import Annotation, Project
from labelguard.store.records import Row

SLACK = timedelta(seconds=5)
"""Label Studio stamps an annotation and its task within one save."""


def differs(row: Row, annotation: Annotation) -> bool:
    """Whether Label Studio's version is another one than the store's, and not an older one.

    A webhook may have overtaken the listing. Ground truth that moves to another annotation changes neither
    time nor content, so flags are compared as well.
    """
    if annotation.updated_at is not None and annotation.updated_at < row["updated_at"]:
        return False
    return bool(
        annotation.updated_at != row["updated_at"]
        or annotation.content_hash != row["content_hash"]
        or annotation.was_cancelled != row["was_cancelled"]
        or annotation.ground_truth != row["ground_truth"]
        or other_person(row["completed_by"], annotation.completed_by)
        or other_person(row["updated_by"], annotation.updated_by)
    )


def other_person(ours: int | None, theirs: int | None) -> bool:
    """Whether Label Studio names somebody else; whom we erased we do not know any more."""
    return ours != theirs and (ours is None or ours >= 0)


def was_never(described: Sequence[Row], info: Project) -> bool:
    """Whether a delivery described the project in a way in which Label Studio never had it.

    It was confirmed before, and is now exactly as it was then: nobody changes a guideline and changes it back
    between two looks. (Label Studio's API does not tell when a project was changed.)
    """
    if not described or described[-1]["confirmed_at"] is not None:
        return False
    confirmed = [each for each in described if each["confirmed_at"] is not None]
    return bool(
        confirmed and (confirmed[-1]["guideline"], confirmed[-1]["label_config"]) == (info.guideline, info.label_config)
    )


def contradicts(row: Row, annotation: Annotation) -> bool:
    """Whether Label Studio cannot have had what the row says, unless the row is newer than the listing."""
    if annotation.updated_at is None or row["updated_at"] < annotation.updated_at:
        return False
    if row["updated_at"] > annotation.updated_at or row["content_hash"] != annotation.content_hash:
        return True
    # Nobody's name, where the user was deleted since.
    return any(
        now is not None and row[column] is not None and other_person(row[column], now)
        for column, now in (("completed_by", annotation.completed_by), ("updated_by", annotation.updated_by))
    )


def is_false(version: Row, annotation: Annotation) -> bool:
    """Whether Label Studio, which has this version now, never had that one."""
    if annotation.updated_at is None or version["updated_at"] < annotation.updated_at:
        return False
    return bool(version["updated_at"] > annotation.updated_at or version["content_hash"] != annotation.content_hash)


def is_it(version: Row, annotation: Annotation) -> bool:
    """Whether a version says what the annotation says now, at its time."""
    return bool(version["updated_at"] == annotation.updated_at and version["content_hash"] == annotation.content_hash)


def of_version(version: Row | None, row: Row) -> Row:
    """The columns of an annotation's row as one of its versions has them; before any version, nothing."""
    if version is None:
        return {"updated_at": row["created_at"], "content_hash": "", "result": [], "was_cancelled": False}
    columns = ("updated_at", "content_hash", "result", "was_cancelled", "ground_truth", "lead_time")
    return {column: version[column] for column in columns}


def was_edited(annotation: Annotation) -> bool:
    """Whether it was saved again after it was made: how it was then, nobody can tell any more."""
    made, saved = annotation.created_at, annotation.updated_at
    return made is not None and saved is not None and saved - made > SLACK
