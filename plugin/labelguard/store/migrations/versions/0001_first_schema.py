"""The first schema."""

import sqlalchemy as sa
from alembic import op

from labelguard.store.schema import Key, UtcDateTime

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "annotations",
        sa.Column("row", Key, nullable=False),
        sa.Column("id", Key, nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("project", Key, nullable=False),
        sa.Column("task", Key, nullable=False),
        sa.Column("completed_by", Key, nullable=True),
        sa.Column("updated_by", Key, nullable=True),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.Column("content_hash", sa.Text(), nullable=False),
        sa.Column("result", sa.JSON(), nullable=False),
        sa.Column("was_cancelled", sa.Boolean(), nullable=False),
        sa.Column("ground_truth", sa.Boolean(), nullable=False),
        sa.Column("lead_time", sa.Float(), nullable=True),
        sa.Column("parent_prediction", Key, nullable=True),
        sa.Column("versions", sa.Integer(), nullable=False),
        sa.Column("deleted_at", UtcDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("row", name=op.f("pk_annotations")),
        sa.UniqueConstraint("id", "created_at", name=op.f("uq_annotations_id_created_at")),
    )
    op.create_index("ix_annotations_project", "annotations", ["project", "id"], unique=False)
    op.create_index("ix_annotations_task", "annotations", ["task"], unique=False)
    op.create_table(
        "annotators",
        sa.Column("id", Key, autoincrement=False, nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("language", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_annotators")),
    )
    op.create_table(
        "cursors",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.JSON(), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_cursors")),
    )
    op.create_table(
        "findings",
        sa.Column("id", Key, nullable=False),
        sa.Column("project", Key, nullable=False),
        sa.Column("rule", sa.Text(), nullable=False),
        sa.Column("policy_version", sa.Integer(), nullable=True),
        sa.Column("version_id", Key, nullable=True),
        sa.Column("task", Key, nullable=True),
        sa.Column("annotation", Key, nullable=True),
        sa.Column("annotator", Key, nullable=True),
        sa.Column("control", sa.Text(), nullable=True),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("severity", sa.Text(), nullable=False),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("evidence", sa.JSON(), nullable=False),
        sa.Column("feedback", sa.JSON(), nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("state_at", UtcDateTime(), nullable=True),
        sa.Column("state_by", sa.Text(), nullable=True),
        sa.Column("note", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_findings")),
    )
    op.create_index("ix_findings_annotator", "findings", ["project", "annotator"], unique=False)
    op.create_index("ix_findings_project", "findings", ["project", "id"], unique=False)
    op.create_table(
        "gold",
        sa.Column("id", Key, nullable=False),
        sa.Column("project", Key, nullable=False),
        sa.Column("task", Key, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("result", sa.JSON(), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("added_at", UtcDateTime(), nullable=False),
        sa.Column("retired_at", UtcDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_gold")),
        sa.UniqueConstraint("project", "task", "version", name=op.f("uq_gold_project_task_version")),
    )
    op.create_table(
        "guidelines",
        sa.Column("id", Key, nullable=False),
        sa.Column("project", Key, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("content_hash", sa.Text(), nullable=False),
        sa.Column("guideline", sa.Text(), nullable=False),
        sa.Column("label_config", sa.Text(), nullable=False),
        sa.Column("seen_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_guidelines")),
        sa.UniqueConstraint("project", "version", name=op.f("uq_guidelines_project_version")),
    )
    op.create_index(op.f("ix_guidelines_project"), "guidelines", ["project"], unique=False)
    op.create_table(
        "inbox",
        sa.Column("id", Key, nullable=False),
        sa.Column("project", Key, nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.Column("received_at", UtcDateTime(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("processed_at", UtcDateTime(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_inbox")),
        sa.UniqueConstraint("project", "digest", name=op.f("uq_inbox_project_digest")),
    )
    op.create_index(
        "ix_inbox_pending",
        "inbox",
        ["id"],
        unique=False,
        sqlite_where=sa.text("state = 'pending'"),
        postgresql_where=sa.text("state = 'pending'"),
    )
    op.create_table(
        "job_runs",
        sa.Column("id", Key, nullable=False),
        sa.Column("job", sa.Text(), nullable=False),
        sa.Column("project", Key, nullable=True),
        sa.Column("started_at", UtcDateTime(), nullable=False),
        sa.Column("finished_at", UtcDateTime(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("summary", sa.JSON(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job_runs")),
    )
    op.create_index("ix_job_runs_job", "job_runs", ["job", "project", "started_at"], unique=False)
    op.create_table(
        "policies",
        sa.Column("id", Key, nullable=False),
        sa.Column("project", Key, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("applied_at", UtcDateTime(), nullable=False),
        sa.Column("applied_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_policies")),
        sa.UniqueConstraint("project", "version", name=op.f("uq_policies_project_version")),
    )
    op.create_table(
        "projects",
        sa.Column("id", Key, autoincrement=False, nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("label_config", sa.Text(), nullable=False),
        sa.Column("guideline", sa.Text(), nullable=False),
        sa.Column("maximum_annotations", sa.Integer(), nullable=False),
        sa.Column("skip_queue", sa.Text(), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=True),
        sa.Column("connected_at", UtcDateTime(), nullable=True),
        sa.Column("webhook_id", sa.Integer(), nullable=True),
        sa.Column("webhook_url", sa.Text(), nullable=True),
        sa.Column("token_hash", sa.Text(), nullable=True),
        sa.Column("language", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_projects")),
    )
    op.create_table(
        "rejected",
        sa.Column("id", Key, nullable=False),
        sa.Column("project", Key, nullable=True),
        sa.Column("received_at", UtcDateTime(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rejected")),
    )
    op.create_table(
        "rule_states",
        sa.Column("project", Key, autoincrement=False, nullable=False),
        sa.Column("rule", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("state", sa.JSON(), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("project", "rule", "subject", name=op.f("pk_rule_states")),
    )
    op.create_table(
        "switches",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("on", sa.Boolean(), nullable=False),
        sa.Column("changed_at", UtcDateTime(), nullable=False),
        sa.Column("changed_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_switches")),
    )
    op.create_table(
        "tasks",
        sa.Column("id", Key, autoincrement=False, nullable=False),
        sa.Column("project", Key, nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.Column("meta", sa.JSON(), nullable=False),
        sa.Column("overlap", sa.Integer(), nullable=False),
        sa.Column("is_labeled", sa.Boolean(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=True),
        sa.Column("updated_at", UtcDateTime(), nullable=True),
        sa.Column("deleted_at", UtcDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tasks")),
    )
    op.create_index(op.f("ix_tasks_project"), "tasks", ["project"], unique=False)
    op.create_table(
        "actions",
        sa.Column("id", Key, nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("project", Key, nullable=False),
        sa.Column("finding", Key, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("task", Key, nullable=True),
        sa.Column("annotation", Key, nullable=True),
        sa.Column("annotator", Key, nullable=True),
        sa.Column("target", sa.JSON(), nullable=False),
        sa.Column("undo", sa.JSON(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_at", UtcDateTime(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.Column("decided_by", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["finding"], ["findings.id"], name=op.f("fk_actions_finding_findings")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_actions")),
        sa.UniqueConstraint("key", name=op.f("uq_actions_key")),
    )
    op.create_index("ix_actions_annotator", "actions", ["project", "annotator", "kind"], unique=False)
    op.create_index("ix_actions_due", "actions", ["state", "next_at"], unique=False)
    op.create_index("ix_actions_finding", "actions", ["finding"], unique=False)
    op.create_table(
        "annotation_versions",
        sa.Column("id", Key, nullable=False),
        sa.Column("annotation_row", Key, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.Column("content_hash", sa.Text(), nullable=False),
        sa.Column("editor", Key, nullable=True),
        sa.Column("first", sa.Boolean(), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("result", sa.JSON(), nullable=False),
        sa.Column("was_cancelled", sa.Boolean(), nullable=False),
        sa.Column("ground_truth", sa.Boolean(), nullable=False),
        sa.Column("lead_time", sa.Float(), nullable=True),
        sa.Column("recorded_at", UtcDateTime(), nullable=False),
        sa.Column("judged", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["annotation_row"], ["annotations.row"], name=op.f("fk_annotation_versions_annotation_row_annotations")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_annotation_versions")),
        sa.UniqueConstraint("annotation_row", "number", name=op.f("uq_annotation_versions_annotation_row_number")),
        sa.UniqueConstraint(
            "annotation_row",
            "updated_at",
            "content_hash",
            name=op.f("uq_annotation_versions_annotation_row_updated_at_content_hash"),
        ),
    )
    op.create_table(
        "judgments",
        sa.Column("id", Key, nullable=False),
        sa.Column("version_id", Key, nullable=False),
        sa.Column("annotation_row", Key, nullable=False),
        sa.Column("project", Key, nullable=False),
        sa.Column("task", Key, nullable=False),
        sa.Column("annotation", Key, nullable=False),
        sa.Column("annotator", Key, nullable=True),
        sa.Column("control", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("region", sa.Text(), nullable=False),
        sa.Column("value", sa.JSON(), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("first", sa.Boolean(), nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["version_id"], ["annotation_versions.id"], name=op.f("fk_judgments_version_id_annotation_versions")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_judgments")),
    )
    op.create_index("ix_judgments_stream", "judgments", ["project", "control", "annotator", "at"], unique=False)
    op.create_index("ix_judgments_task", "judgments", ["task", "control"], unique=False)
    op.create_index(op.f("ix_judgments_version_id"), "judgments", ["version_id"], unique=False)


def downgrade() -> None:
    """Take back."""
    op.drop_index(op.f("ix_judgments_version_id"), table_name="judgments")
    op.drop_index("ix_judgments_task", table_name="judgments")
    op.drop_index("ix_judgments_stream", table_name="judgments")
    op.drop_table("judgments")
    op.drop_table("annotation_versions")
    op.drop_index("ix_actions_finding", table_name="actions")
    op.drop_index("ix_actions_due", table_name="actions")
    op.drop_index("ix_actions_annotator", table_name="actions")
    op.drop_table("actions")
    op.drop_index(op.f("ix_tasks_project"), table_name="tasks")
    op.drop_table("tasks")
    op.drop_table("switches")
    op.drop_table("rule_states")
    op.drop_table("rejected")
    op.drop_table("projects")
    op.drop_table("policies")
    op.drop_index("ix_job_runs_job", table_name="job_runs")
    op.drop_table("job_runs")
    op.drop_index(
        "ix_inbox_pending",
        table_name="inbox",
        sqlite_where=sa.text("state = 'pending'"),
        postgresql_where=sa.text("state = 'pending'"),
    )
    op.drop_table("inbox")
    op.drop_index(op.f("ix_guidelines_project"), table_name="guidelines")
    op.drop_table("guidelines")
    op.drop_table("gold")
    op.drop_index("ix_findings_project", table_name="findings")
    op.drop_index("ix_findings_annotator", table_name="findings")
    op.drop_table("findings")
    op.drop_table("cursors")
    op.drop_table("annotators")
    op.drop_index("ix_annotations_task", table_name="annotations")
    op.drop_index("ix_annotations_project", table_name="annotations")
    op.drop_table("annotations")
