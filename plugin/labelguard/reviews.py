"""Reviews: what Label Studio Enterprise's reviewers said of annotations that labelguard found something in.

A reviewer judges an annotation, not a finding: a verdict is shown beside the finding and counted, and changes
neither. It counts only where it is about the very version that the finding is about. What a delivery says is a
hint, since anybody with the webhook's token can send one: it is asked for in Label Studio before it counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
import structlog
from sqlalchemy.dialects.postgresql import insert

from labelguard.connectors import ConnectorError, NotFound, Review, Studio
from labelguard.events import Event
from labelguard.store import Store
from labelguard.store.records import portions
from labelguard.store.schema import annotation_versions, annotators, findings, reviews

if TYPE_CHECKING:
    from labelguard.engine import Clock

log = structlog.get_logger(__name__)

Row = dict[str, Any]

REVIEW_ACTIONS = frozenset({"REVIEW_CREATED", "REVIEW_UPDATED", "REVIEWS_DELETED"})

CHECKED_AT_ONCE = 100
"""Reviews asked for in one round; the others wait for the next."""

_LARGEST_ID = 2**63 - 1

_SAID = ("reviewer", "verdict", "at", "recorded_at", "verified_at", "deleted_at")


def _upsert(*columns: str) -> sa.Insert:
    query = insert(reviews)
    return query.on_conflict_do_update(
        index_elements=["project", "review"], set_={name: query.excluded[name] for name in columns}
    )


# A review is about one annotation for ever: a hint moves none to another.
_HINT, _FACT = _upsert(*_SAID), _upsert("annotation", *_SAID)


def _seen() -> sa.ScalarSelect[Any]:
    """The version a reviewer saw: the newest before the review that they had not saved themself."""
    found, seen = annotation_versions.alias("found"), annotation_versions.alias("seen")
    of_finding = sa.select(found.c.annotation_row).where(found.c.id == findings.c.version_id)
    query = sa.select(seen.c.id).where(
        seen.c.annotation_row == of_finding.correlate(findings).scalar_subquery(),
        seen.c.updated_at <= reviews.c.at,
        seen.c.editor.is_distinct_from(reviews.c.reviewer),
    )
    newest = query.order_by(seen.c.updated_at.desc(), seen.c.id.desc()).limit(1)
    return newest.correlate(findings, reviews).scalar_subquery()


def _last() -> sa.ScalarSelect[Any]:
    """The newest review of the same annotation."""
    other = reviews.alias("other")
    query = sa.select(other.c.id).where(
        other.c.project == reviews.c.project,
        other.c.annotation == reviews.c.annotation,
        other.c.deleted_at.is_(None),
    )
    newest = query.order_by(other.c.at.desc(), other.c.review.desc()).limit(1)
    return newest.correlate(reviews).scalar_subquery()


_OF_FINDING = sa.and_(reviews.c.project == findings.c.project, reviews.c.annotation == findings.c.annotation)

_SAME = (
    sa.select(findings.c.id)
    .join(reviews, _OF_FINDING)
    .where(findings.c.id == sa.bindparam("finding"), reviews.c.id == sa.bindparam("review"))
    .where(findings.c.version_id == _seen())
)
_COUNTED = (
    sa.select(findings.c.rule, reviews.c.verdict, sa.func.count())
    .join(reviews, _OF_FINDING)
    .where(reviews.c.verified_at.is_not(None), reviews.c.id == _last(), findings.c.version_id == _seen())
)


def review_from(raw: Any) -> Review | None:
    """A review out of a delivery or an answer of the API; None where it holds no verdict, or makes no sense."""
    if not isinstance(raw, Mapping):
        return None
    number, annotation = _id(raw.get("id")), _id(raw.get("annotation"))
    accepted, at = raw.get("accepted"), _time(raw.get("created_at"))
    if number is None or annotation is None or at is None or not isinstance(accepted, bool):
        return None
    fixed = accepted and raw.get("fixed_annotation_history") is not None
    verdict = "fixed" if fixed else "accepted" if accepted else "rejected"
    return Review(number, annotation, _id(raw.get("created_by")), verdict, at)


def keep_review(conn: sa.Connection, project: int, event: Event, now: datetime) -> None:
    """Keep what a review event says, as a hint; one that cannot be understood stays in the inbox alone.

    ``project`` is that of the webhook: what the body says may be another.
    """
    told = [raw for key in ("review", "reviews") for raw in _listed(event.body.get(key))]
    if event.action == "REVIEWS_DELETED":
        gone = [number for raw in told if (number := _id(raw)) is not None]
        # Not taken for gone before Label Studio says so, either.
        _doubt(conn, project, gone)
        return
    for raw in told:
        # Where the review names its annotation by nothing, the delivery does.
        about = raw if raw.get("annotation") is not None else {**raw, "annotation": event.body.get("annotation")}
        review = review_from(about)
        if review is None:
            log.info("review_not_understood", action=event.action, fields=sorted(map(str, raw))[:30])
        else:
            _put(conn, project, review, now, verified=None)


def check_reviews(store: Store, studio: Studio, project: int, *, clock: Clock) -> dict[str, int]:
    """Ask Label Studio for the reviews that only a delivery told of; returns how many were asked for.

    Raises:
        ConnectorError: Label Studio did not answer.
    """
    query = (
        sa.select(reviews.c.review)
        .where(reviews.c.project == project, reviews.c.verified_at.is_(None), reviews.c.deleted_at.is_(None))
        .order_by(reviews.c.id)
        .limit(CHECKED_AT_ONCE)
    )
    with store.read() as conn:
        doubtful = list(conn.scalars(query))
    done = {"reviews_checked": 0}
    if not doubtful or not studio.server().reviews:
        return done
    for number in doubtful:
        try:
            review = _confirmed(studio, project, number)
        except ConnectorError as error:
            if not error.permanent:
                raise
            log.warning("reviews_not_checked", project=project, reason=str(error))
            return done
        now = clock()

        def job(conn: sa.Connection, review: Review | None = review, number: int = number, now: datetime = now) -> None:
            if review is not None:
                _put(conn, project, review, now, verified=now)
                return
            mine = sa.and_(reviews.c.project == project, reviews.c.review == number)
            conn.execute(sa.update(reviews).where(mine).values(deleted_at=now))

        store.write(job)
        done["reviews_checked"] += 1
    return done


def _confirmed(studio: Studio, project: int, number: int) -> Review | None:
    """A review as Label Studio has it; None where it is gone, says nothing, or is of another project."""
    try:
        review = studio.review(number)
        if review is None or studio.annotation(review.annotation).project != project:
            return None
    except NotFound:
        return None
    return review


def with_reviews(conn: sa.Connection, rows: Iterable[Mapping[str, Any]]) -> list[Row]:
    """Findings, each with ``review``: the newest verdict on its annotation, or None.

    ``same_version`` is whether the reviewer saw what the finding is about; ``verified`` whether Label Studio
    confirmed it.
    """
    found = [dict(row) for row in rows]
    newest = _newest(conn, {(row["project"], row["annotation"]) for row in found if row["annotation"] is not None})
    for row in found:
        review = newest.get((row["project"], row["annotation"]))
        row["review"] = None if review is None else _shown(conn, row, review)
    return found


def in_words(review: Mapping[str, Any] | None) -> str:
    """A finding's review for a column: ``rejected by Ada``."""
    if review is None:
        return ""
    doubts = [] if review["same_version"] else ["a later version"]
    doubts += [] if review["verified"] else ["not confirmed yet"]
    return f"{review['verdict']} by {review['by']}" + (f" ({', '.join(doubts)})" if doubts else "")


def agreement(conn: sa.Connection, project: int | None = None) -> list[Row]:
    """How reviewers judged, by rule, what it had found something in.

    Only confirmed verdicts on the very version that was found fault with: ``changed`` counts those that were
    rejected or fixed, ``accepted`` those that were let through as they were.
    """
    query = _COUNTED if project is None else _COUNTED.where(findings.c.project == project)
    counted: dict[str, Row] = {}
    for rule, verdict, number in conn.execute(query.group_by(findings.c.rule, reviews.c.verdict)):
        of_rule = counted.setdefault(rule, {"rule": rule, "changed": 0, "accepted": 0})
        of_rule["accepted" if verdict == "accepted" else "changed"] += number
    return [counted[rule] for rule in sorted(counted)]


def _put(conn: sa.Connection, project: int, review: Review, now: datetime, *, verified: datetime | None) -> None:
    conn.execute(
        _HINT if verified is None else _FACT,
        {
            "project": project,
            "review": review.id,
            "annotation": review.annotation,
            "reviewer": review.reviewer,
            "verdict": review.verdict,
            "at": review.at,
            "recorded_at": now,
            "verified_at": verified,
            "deleted_at": None,
        },
    )


def _doubt(conn: sa.Connection, project: int, numbers: Sequence[int]) -> None:
    for some in portions(numbers):
        conn.execute(
            sa.update(reviews).where(reviews.c.project == project, reviews.c.review.in_(some)).values(verified_at=None)
        )


def _newest(conn: sa.Connection, wanted: set[tuple[int, int]]) -> dict[tuple[int, int], Row]:
    numbers = sorted({annotation for _, annotation in wanted})
    newest: dict[tuple[int, int], Row] = {}
    for some in portions(numbers):
        query = (
            sa.select(reviews, annotators.c.name, annotators.c.email)
            .outerjoin(annotators, annotators.c.id == reviews.c.reviewer)
            .where(reviews.c.annotation.in_(some), reviews.c.deleted_at.is_(None))
            .order_by(reviews.c.at, reviews.c.review)
        )
        newest |= {(row["project"], row["annotation"]): dict(row) for row in conn.execute(query).mappings()}
    return newest


def _shown(conn: sa.Connection, finding: Mapping[str, Any], review: Mapping[str, Any]) -> Row:
    by = (review["name"] or "").strip() or review["email"] or f"user {review['reviewer']}"
    return {
        "verdict": review["verdict"],
        "by": by,
        "reviewer": review["reviewer"],
        "at": review["at"],
        "same_version": conn.scalar(_SAME, {"review": review["id"], "finding": finding["id"]}) is not None,
        "verified": review["verified_at"] is not None,
    }


def _listed(value: Any) -> list[Mapping[str, Any]]:
    items = value if isinstance(value, list) else [value]
    return [item for item in items if isinstance(item, Mapping)]


def _id(value: Any) -> int | None:
    """An id, given as it is or with what it is the id of."""
    found = value.get("id") if isinstance(value, Mapping) else value
    return found if type(found) is int and 0 < found <= _LARGEST_ID else None


def _time(value: Any) -> datetime | None:
    try:
        at = datetime.fromisoformat(value) if isinstance(value, str) else value
        return at.astimezone(UTC) if isinstance(at, datetime) and at.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None
