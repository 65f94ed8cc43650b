"""The tables of the operational store (SQLAlchemy Core). Migrations live beside, in ``migrations``.

Times are UTC and timezone-aware in Python. Ids of Label Studio things are Label Studio's own; because it
reuses the ids of deleted annotations and tasks on SQLite, an annotation's identity is its id plus
``created_at``, and everything of ours refers to ``annotations.row``.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Dialect


class UtcDateTime(sa.TypeDecorator[datetime]):
    """Timezone-aware UTC datetimes on every database; naive ones are refused."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def bind_processor(self, dialect: Dialect) -> Callable[[datetime | None], Any] | None:
        """SQLAlchemy's own for SQLite writes the same text, at several times the cost."""
        return _to_text if dialect.name == "sqlite" else super().bind_processor(dialect)

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], datetime | None] | None:
        """And reads it."""
        return _from_text if dialect.name == "sqlite" else super().result_processor(dialect, coltype)

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Store in UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no timezone; the store keeps UTC times only")
        return value.astimezone(UTC)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Give SQLite's naive values their timezone back."""
        if value is None:
            return None
        found: datetime = value
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def _to_text(value: datetime | None) -> str | None:
    if value is None:
        return None
    if value.tzinfo is None:
        raise ValueError(f"{value!r} has no timezone; the store keeps UTC times only")
    in_utc = value if value.tzinfo is UTC else value.astimezone(UTC)
    if not in_utc.microsecond:
        return in_utc.isoformat(" ", "microseconds")[:26]
    # A quarter of the time that isoformat takes, and a delivery brings ten times.
    text: str = msgspec.to_builtins(in_utc)
    return f"{text[:10]} {text[11:26]}"


def _from_text(value: str | None) -> datetime | None:
    return None if value is None else datetime.fromisoformat(value).replace(tzinfo=UTC)


metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _partial(name: str, condition: str, *columns: str) -> sa.Index:
    """An index of the rows that something waits for: small, however long the history grows."""
    return sa.Index(name, *columns, sqlite_where=sa.text(condition), postgresql_where=sa.text(condition))


# Conditions of partial indexes, which SQLite uses only for queries that say the very same words.
WAITING_FINDINGS = "state IN ('open', 'disputed')"
LIVE_ACTIONS = "state IN ('proposed', 'approved', 'delivering', 'failed')"
FAILED_DELIVERIES = "state = 'failed'"

# SQLite gives rowids to INTEGER primary keys only; BigInteger elsewhere.
Key = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

# What others decide the size of.
Number = Key

projects = sa.Table(
    "projects",
    metadata,
    sa.Column("id", Key, primary_key=True, autoincrement=False),
    sa.Column("title", sa.Text, nullable=False, default=""),
    sa.Column("label_config", sa.Text, nullable=False, default=""),
    sa.Column("guideline", sa.Text, nullable=False, default=""),
    sa.Column("maximum_annotations", Number, nullable=False, default=1),
    sa.Column("skip_queue", sa.Text, nullable=False, default="REQUEUE_FOR_OTHERS"),
    sa.Column("updated_at", UtcDateTime),
    # The connection. Times before connected_at are the past: findings, never actions.
    sa.Column("connected_at", UtcDateTime),
    sa.Column("webhook_id", Number),
    sa.Column("webhook_url", sa.Text),
    sa.Column("token_hash", sa.Text),
    sa.Column("language", sa.Text),
)

inbox = sa.Table(
    "inbox",
    metadata,
    sa.Column("id", Key, primary_key=True),
    sa.Column("project", Key, nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("origin", sa.Text, nullable=False),  # webhook | reconcile | backfill
    sa.Column("body", sa.JSON, nullable=False),
    sa.Column("received_at", UtcDateTime, nullable=False),
    sa.Column("state", sa.Text, nullable=False, default="pending"),  # pending | done | ignored | failed
    sa.Column("processed_at", UtcDateTime),
    sa.Column("error", sa.Text),
    sa.UniqueConstraint("project", "digest"),
    sa.Index(
        "ix_inbox_pending",
        "id",
        sqlite_where=sa.text("state = 'pending'"),
        postgresql_where=sa.text("state = 'pending'"),
    ),
    _partial("ix_inbox_failed", FAILED_DELIVERIES, "id"),
)

rejected = sa.Table(
    "rejected",
    metadata,
    sa.Column("id", Key, primary_key=True),
    sa.Column("project", Key),
    sa.Column("received_at", UtcDateTime, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("size", sa.Integer, nullable=False),
)

annotators = sa.Table(
    "annotators",
    metadata,
    sa.Column("id", Key, primary_key=True, autoincrement=False),
    sa.Column("email", sa.Text, nullable=False, default=""),
    sa.Column("name", sa.Text, nullable=False, default=""),
    sa.Column("active", sa.Boolean, nullable=False, default=True),
    sa.Column("language", sa.Text),
)

tasks = sa.Table(
    "tasks",
    metadata,
    sa.Column("id", Key, primary_key=True, autoincrement=False),
    sa.Column("project", Key, nullable=False, index=True),
    sa.Column("data", sa.JSON, nullable=False),
    sa.Column("meta", sa.JSON, nullable=False),
    sa.Column("overlap", Number, nullable=False, default=1),
    sa.Column("is_labeled", sa.Boolean, nullable=False, default=False),
    sa.Column("created_at", UtcDateTime),
    sa.Column("updated_at", UtcDateTime),
    sa.Column("deleted_at", UtcDateTime),
    # When Label Studio itself was first seen to have it: until then only deliveries say so.
    sa.Column("confirmed_at", UtcDateTime),
    _partial("ix_tasks_deleted", "deleted_at IS NOT NULL", "deleted_at"),
)

annotations = sa.Table(
    "annotations",
    metadata,
    sa.Column("row", Key, primary_key=True),
    sa.Column("id", Key, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("project", Key, nullable=False),
    sa.Column("task", Key, nullable=False),
    sa.Column("completed_by", Key),
    sa.Column("updated_by", Key),
    sa.Column("updated_at", UtcDateTime, nullable=False),
    sa.Column("content_hash", sa.Text, nullable=False),
    sa.Column("result", sa.JSON, nullable=False),
    sa.Column("was_cancelled", sa.Boolean, nullable=False, default=False),
    sa.Column("ground_truth", sa.Boolean, nullable=False, default=False),
    sa.Column("lead_time", sa.Float),
    sa.Column("parent_prediction", Key),
    sa.Column("versions", sa.Integer, nullable=False, default=1),
    sa.Column("deleted_at", UtcDateTime),
    sa.UniqueConstraint("id", "created_at"),
    sa.Index("ix_annotations_task", "task"),
    sa.Index("ix_annotations_project", "project", "id"),
)

annotation_versions = sa.Table(
    "annotation_versions",
    metadata,
    sa.Column("id", Key, primary_key=True),
    sa.Column("annotation_row", Key, sa.ForeignKey("annotations.row"), nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("updated_at", UtcDateTime, nullable=False),
    sa.Column("content_hash", sa.Text, nullable=False),
    sa.Column("editor", Key),
    # First submission by its own author; an edit, or a first version that somebody else saved, is not.
    sa.Column("first", sa.Boolean, nullable=False),
    sa.Column("origin", sa.Text, nullable=False),
    sa.Column("result", sa.JSON, nullable=False),
    sa.Column("was_cancelled", sa.Boolean, nullable=False),
    sa.Column("ground_truth", sa.Boolean, nullable=False),
    sa.Column("lead_time", sa.Float),
    sa.Column("recorded_at", UtcDateTime, nullable=False),
    # False while the project's policy cannot be used: kept now, looked at when the delivery is tried again.
    sa.Column("judged", sa.Boolean, nullable=False, default=True),
    # Since when it is known that Label Studio does not have what a delivery said: no evidence, no statistics.
    sa.Column("refuted_at", UtcDateTime),
    sa.UniqueConstraint("annotation_row", "number"),
    sa.UniqueConstraint("annotation_row", "updated_at", "content_hash"),
    sa.Index(
        "ix_annotation_versions_unjudged",
        "annotation_row",
        sqlite_where=sa.text("judged = 0"),
        postgresql_where=sa.text("NOT judged"),
    ),
)

judgments = sa.Table(
    "judgments",
    metadata,
    sa.Column("id", Key, primary_key=True),
    sa.Column("version_id", Key, sa.ForeignKey("annotation_versions.id"), nullable=False, index=True),
    sa.Column("annotation_row", Key, nullable=False),
    sa.Column("project", Key, nullable=False),
    sa.Column("task", Key, nullable=False),
    sa.Column("annotation", Key, nullable=False),
    sa.Column("annotator", Key),
    sa.Column("control", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("region", sa.Text, nullable=False, default=""),
    sa.Column("value", sa.JSON, nullable=False),
    sa.Column("labels", sa.JSON, nullable=False),
    sa.Column("first", sa.Boolean, nullable=False),
    sa.Column("at", UtcDateTime, nullable=False),
    sa.Index("ix_judgments_task", "task", "control"),
    sa.Index("ix_judgments_stream", "project", "control", "annotator", "at"),
)

policies = sa.Table(
    "policies",
    metadata,
    sa.Column("id", Key, primary_key=True),
    sa.Column("project", Key, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("applied_at", UtcDateTime, nullable=False),
    sa.Column("applied_by", sa.Text, nullable=False, default=""),
    sa.UniqueConstraint("project", "version"),
)

guidelines = sa.Table(
    "guidelines",
    metadata,
    sa.Column("id", Key, primary_key=True),
    sa.Column("project", Key, nullable=False, index=True),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("content_hash", sa.Text, nullable=False),
    sa.Column("guideline", sa.Text, nullable=False),
    sa.Column("label_config", sa.Text, nullable=False),
    sa.Column("seen_at", UtcDateTime, nullable=False),
    # When Label Studio itself was seen to have it; NULL where only a delivery ever said so.
    sa.Column("confirmed_at", UtcDateTime),
    sa.UniqueConstraint("project", "version"),
)

gold = sa.Table(
    "gold",
    metadata,
    sa.Column("id", Key, primary_key=True),
    sa.Column("project", Key, nullable=False),
    sa.Column("task", Key, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("result", sa.JSON, nullable=False),
    sa.Column("origin", sa.Text, nullable=False),  # import:<file name> | adopt:<annotation id>
    sa.Column("added_at", UtcDateTime, nullable=False),
    sa.Column("retired_at", UtcDateTime),
    # Which of the tasks that had this id: SQLite gives ids out again.
    sa.Column("task_created_at", UtcDateTime),
    sa.UniqueConstraint("project", "task", "version"),
)

findings = sa.Table(
    "findings",
    metadata,
    sa.Column("id", Key, primary_key=True),
    sa.Column("project", Key, nullable=False),
    sa.Column("rule", sa.Text, nullable=False),
    sa.Column("policy_version", sa.Integer),
    sa.Column("version_id", Key),  # the annotation version it was made on
    sa.Column("task", Key),
    sa.Column("annotation", Key),
    sa.Column("annotator", Key),
    sa.Column("control", sa.Text),
    sa.Column("labels", sa.JSON, nullable=False),
    sa.Column("severity", sa.Text, nullable=False),
    sa.Column("mode", sa.Text, nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("evidence", sa.JSON, nullable=False),
    sa.Column("feedback", sa.JSON, nullable=False),
    sa.Column("at", UtcDateTime, nullable=False),  # when the thing happened (Label Studio's clock)
    sa.Column("created_at", UtcDateTime, nullable=False),
    # open -> acknowledged | disputed -> upheld | dismissed
    sa.Column("state", sa.Text, nullable=False, default="open"),
    sa.Column("state_at", UtcDateTime),
    sa.Column("state_by", sa.Text),
    sa.Column("note", sa.Text, nullable=False, default=""),  # the annotator's or the admin's words
    sa.Column("delivery", Key),  # the inbox row it came from; None for a sweep's
    sa.Index("ix_findings_project", "project", "id"),
    sa.Index("ix_findings_annotator", "project", "annotator"),
    sa.Index("ix_findings_version", "version_id"),
    _partial("ix_findings_waiting", WAITING_FINDINGS, "rule", "state"),
)

actions = sa.Table(
    "actions",
    metadata,
    sa.Column("id", Key, primary_key=True),
    sa.Column("key", sa.Text, nullable=False, unique=True),  # idempotency
    sa.Column("project", Key, nullable=False),
    sa.Column("finding", Key, sa.ForeignKey("findings.id"), nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("task", Key),
    sa.Column("annotation", Key),
    sa.Column("annotator", Key),
    sa.Column("target", sa.JSON, nullable=False),  # decided up front: "overlap is 2", never "plus one"
    sa.Column("undo", sa.JSON),  # what to restore, read before the effect
    # proposed -> approved -> delivering -> done | failed | undone | rejected | waiting (prompts not yet shown)
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False, default=0),
    sa.Column("next_at", UtcDateTime),
    sa.Column("error", sa.Text),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("updated_at", UtcDateTime, nullable=False),
    sa.Column("decided_by", sa.Text),
    sa.Index("ix_actions_due", "state", "next_at"),
    sa.Index("ix_actions_annotator", "project", "annotator", "state", "updated_at"),
    sa.Index("ix_actions_finding", "finding"),
    sa.Index("ix_actions_task", "task"),
    sa.Index("ix_actions_annotation", "annotation"),
    _partial("ix_actions_live", LIVE_ACTIONS, "kind", "state", "next_at", "created_at"),
)

reviews = sa.Table(
    "reviews",
    metadata,
    sa.Column("id", Key, primary_key=True),
    sa.Column("project", Key, nullable=False),
    sa.Column("review", Key, nullable=False),  # Label Studio's id
    sa.Column("annotation", Key, nullable=False),
    sa.Column("reviewer", Key),
    sa.Column("verdict", sa.Text, nullable=False),  # accepted | fixed | rejected
    sa.Column("at", UtcDateTime, nullable=False),  # Label Studio's clock
    sa.Column("recorded_at", UtcDateTime, nullable=False),
    # None where only a delivery said so.
    sa.Column("verified_at", UtcDateTime),
    sa.Column("deleted_at", UtcDateTime),
    sa.UniqueConstraint("project", "review"),
    sa.Index("ix_reviews_annotation", "annotation"),
)

rule_states = sa.Table(
    "rule_states",
    metadata,
    sa.Column("project", Key, primary_key=True, autoincrement=False),
    sa.Column("rule", sa.Text, primary_key=True),  # ActiveRule.key
    sa.Column("subject", sa.Text, primary_key=True),
    sa.Column("state", sa.JSON, nullable=False),
    sa.Column("updated_at", UtcDateTime, nullable=False),
)

doubts = sa.Table(
    "doubts",
    metadata,
    sa.Column("project", Key, primary_key=True, autoincrement=False),
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("count", sa.Integer, nullable=False),
    sa.Column("since", UtcDateTime, nullable=False),
    sa.Column("last_at", UtcDateTime, nullable=False),
    sa.Column("example", sa.Text, nullable=False),  # the newest one, as a sentence
    sa.Column("told_at", UtcDateTime),  # when the admin heard of it last
)

job_runs = sa.Table(
    "job_runs",
    metadata,
    sa.Column("id", Key, primary_key=True),
    sa.Column("job", sa.Text, nullable=False),
    sa.Column("project", Key),
    sa.Column("started_at", UtcDateTime, nullable=False),
    sa.Column("finished_at", UtcDateTime),
    sa.Column("state", sa.Text, nullable=False),  # running | done | failed
    sa.Column("summary", sa.JSON, nullable=False),
    sa.Column("error", sa.Text),
    sa.Index("ix_job_runs_job", "job", "project", "started_at"),
)

cursors = sa.Table(
    "cursors",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),  # reconcile:<project>
    sa.Column("value", sa.JSON, nullable=False),
    sa.Column("updated_at", UtcDateTime, nullable=False),
)

switches = sa.Table(
    "switches",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),  # actions: the kill switch
    sa.Column("on", sa.Boolean, nullable=False),
    sa.Column("changed_at", UtcDateTime, nullable=False),
    sa.Column("changed_by", sa.Text, nullable=False, default=""),
)

erasures = sa.Table(
    "erasures",
    metadata,
    # Whose name and address must not be taken in again with the list of users, unless they annotate anew.
    sa.Column("annotator", Key, primary_key=True, autoincrement=False),
    sa.Column("erased_at", UtcDateTime, nullable=False),
    sa.Column("erased_by", sa.Text, nullable=False, default=""),
)
