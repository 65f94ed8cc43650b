"""Numbers that Label Studio gives are as large on PostgreSQL as on SQLite."""

import sqlalchemy as sa
from alembic import op

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


def downgrade() -> None:
    """Take back."""
    if op.get_bind().dialect.name == "postgresql":
        for table, column in _NUMBERS:
            op.alter_column(table, column, type_=sa.Integer())
