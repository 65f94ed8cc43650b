"""What trust asks for.

Large numbers on PostgreSQL, what reviewers said, where a finding came from, queues that are cheap to count, erased
annotators, and what Label Studio itself was seen to have.
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
    _confirmed()


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


def _confirmed() -> None:
    op.add_column("tasks", sa.Column("confirmed_at", UtcDateTime(), nullable=True))
    op.add_column("annotation_versions", sa.Column("refuted_at", UtcDateTime(), nullable=True))
    op.add_column("guidelines", sa.Column("confirmed_at", UtcDateTime(), nullable=True))
    op.add_column("gold", sa.Column("task_created_at", UtcDateTime(), nullable=True))
    op.create_index(
        "ix_annotation_versions_unjudged",
        "annotation_versions",
        ["annotation_row"],
        unique=False,
        sqlite_where=sa.text("judged = 0"),
        postgresql_where=sa.text("NOT judged"),
    )
    op.create_table(
        "doubts",
        sa.Column("project", Key, autoincrement=False, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("since", UtcDateTime(), nullable=False),
        sa.Column("last_at", UtcDateTime(), nullable=False),
        sa.Column("example", sa.Text(), nullable=False),
        sa.Column("told_at", UtcDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("project", "kind", name=op.f("pk_doubts")),
    )
    _about_tasks()


def _about_tasks() -> None:
    """From now on a rule's memory of a task says which of the tasks with that id it means."""
    states = sa.table("rule_states", *(sa.column(name) for name in ("project", "rule", "subject")))
    tasks = sa.table("tasks", sa.column("id"), sa.column("project"), sa.column("created_at", UtcDateTime()))
    gold = sa.table("gold", sa.column("task"), sa.column("project"), sa.column("task_created_at", UtcDateTime()))
    connection = op.get_bind()
    created = sa.select(tasks.c.created_at).where(tasks.c.id == gold.c.task, tasks.c.project == gold.c.project)
    connection.execute(sa.update(gold).values(task_created_at=created.scalar_subquery()))
    known = connection.execute(sa.select(states).where(states.c.subject.like("task:%"))).all()
    for project, rule, subject in known:
        task, colon, rest = subject.removeprefix("task:").partition(":")
        if not task.isdigit():
            continue
        at = connection.scalar(sa.select(tasks.c.created_at).where(tasks.c.id == int(task), tasks.c.project == project))
        if at is not None:
            connection.execute(
                sa.update(states)
                .where(states.c.project == project, states.c.rule == rule, states.c.subject == subject)
                .values(subject=f"task:{task}@{at.isoformat()}{colon}{rest}")
            )
