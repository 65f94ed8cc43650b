"""What a reconciliation found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ReconcileReport:
    """What a reconciliation found."""

    project: int
    full: bool = False
    tasks: int = 0
    """Tasks looked at."""
    new: int = 0
    """Annotations the store did not have."""
    changed: int = 0
    """Annotations that differed."""
    deleted: int = 0
    """Annotations that are gone, those of deleted tasks included."""
    tasks_deleted: int = 0
    lost: int = 0
    """New annotations that were edited before anybody told of them: nobody knows what they said at first."""
    project_changed: bool = False
    """Whether the guideline, the labeling interface or a setting had changed."""
    tasks_changed: int = 0
    """Tasks that the store did not have, or had otherwise."""
    restored: int = 0
    """Annotations that are there although a delivery said that they, or their tasks, were deleted."""
    refuted: int = 0
    """Versions that deliveries told of and Label Studio does not have."""
    unknown: int = 0
    """Annotations found changed by looking: versions in between may be missing, and nobody can tell."""
    young: int = 0
    """Annotations that Label Studio does not confirm yet: they are looked at again next time."""
    unchecked: int = 0
    """Tasks that were not asked for, because there were too many, and stay as they are: the audit will."""

    @property
    def missed(self) -> int:
        """How much the webhook had missed."""
        return self.new + self.changed + self.deleted + self.tasks_deleted + self.project_changed + self.restored

    @property
    def repaired(self) -> int:
        """How much of the store was not as Label Studio has it."""
        return self.missed + self.refuted

    def summary(self) -> dict[str, Any]:
        """The report as JSON values, for the job's record."""
        return {
            "full": self.full,
            "tasks": self.tasks,
            "new": self.new,
            "changed": self.changed,
            "deleted": self.deleted,
            "tasks_deleted": self.tasks_deleted,
            "lost": self.lost,
            "project_changed": self.project_changed,
            "tasks_changed": self.tasks_changed,
            "restored": self.restored,
            "refuted": self.refuted,
            "repaired": self.repaired,
            "unknown": self.unknown,
            "young": self.young,
            "unchecked": self.unchecked,
        }
