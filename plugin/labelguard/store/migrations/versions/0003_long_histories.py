"""Long histories: what each delivery and each look at the page asks for is found without reading them.

Findings by the version they are about; actions by task, by annotation, and by what an annotator has in the page or
was shown lately.
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_index("ix_findings_version", "findings", ["version_id"])
    op.create_index("ix_actions_task", "actions", ["task"])
    op.create_index("ix_actions_annotation", "actions", ["annotation"])
    op.drop_index("ix_actions_annotator", "actions")
    op.create_index("ix_actions_annotator", "actions", ["project", "annotator", "state", "updated_at"])
