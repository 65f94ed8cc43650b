"""What operating it asks for: where a finding came from, queues that are cheap to count, erased annotators."""

import sqlalchemy as sa
from alembic import op

from labelguard.store.schema import Key, UtcDateTime

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
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
