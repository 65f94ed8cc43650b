"""What trust needs: large numbers on PostgreSQL, what reviewers said."""

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


def downgrade() -> None:
    """Take back."""
    op.drop_table("reviews")
    if op.get_bind().dialect.name == "postgresql":
        for table, column in _NUMBERS:
            op.alter_column(table, column, type_=sa.Integer())
