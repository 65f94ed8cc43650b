"""What trust asks for.

Large numbers on PostgreSQL, what reviewers said, where a finding came from, queues that are cheap to count, erased
annotators.
"""

import sqlalchemy as sa
from alembic import op

from labelguard.store.schema import Key, UtcDateTime

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_NUMBERS = (("tasks", "overlap"), ("projects", "maximum_annotations"), ("projects", "webhook_id"))


def upgrade() -> None:
    """Apply."""
    # SQLite's integers have no size, and altering a column copies the table there.
    if op.get_bind().dialect.name == "postgresql":
        for table, column in _NUMBERS:
            op.alter_column(table, column, type_=sa.BigInteger())
    _reviews()
    _operations()


def _reviews() -> None:
    op.create_table(
        "reviews",
        sa.Column("id", Key, nullable=False),
        sa.Column("project", Key, nullable=False),
        sa.Column("review", Key, nullable=False),
        sa.Column("annotation", Key, nullable=False),
        sa.Column("reviewer", Key, nullable=True),
        sa.Column("verdict", sa.Text(), nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.Column("recorded_at", UtcDateTime(), nullable=False),
        sa.Column("verified_at", UtcDateTime(), nullable=True),
        sa.Column("deleted_at", UtcDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reviews")),
        sa.UniqueConstraint("project", "review", name=op.f("uq_reviews_project_review")),
    )
    op.create_index("ix_reviews_annotation", "reviews", ["annotation"], unique=False)


def _operations() -> None:
    op.add_column("findings", sa.Column("delivery", Key, nullable=True))
    op.create_table(
        "erasures",
        sa.Column("annotator", Key, autoincrement=False, nullable=False),
        sa.Column("erased_at", UtcDateTime(), nullable=False),
        sa.Column("erased_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("annotator", name=op.f("pk_erasures")),
    )
    _partial("ix_inbox_failed", "inbox", ["id"], "state = 'failed'")
    _partial("ix_findings_waiting", "findings", ["rule", "state"], "state IN ('open', 'disputed')")
    _partial(
        "ix_actions_live",
        "actions",
        ["kind", "state", "next_at", "created_at"],
        "state IN ('proposed', 'approved', 'delivering', 'failed')",
    )
    _partial("ix_tasks_deleted", "tasks", ["deleted_at"], "deleted_at IS NOT NULL")


def _partial(name: str, table: str, columns: list[str], condition: str) -> None:
    where = sa.text(condition)
    op.create_index(name, table, columns, unique=False, sqlite_where=where, postgresql_where=where)
