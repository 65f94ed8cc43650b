"""Reconciliation: what the webhook missed is found by asking Label Studio, and what it invented too.

``task.updated_at`` is bumped by every annotation that is made, edited, skipped or deleted, alone or in bulk
(checked on Label Studio 1.23 by the live tests), so listing the tasks changed since the last time finds
them all. Bulk actions stamp thousands of tasks with one time and imports become visible minutes after theirs:
each listing therefore begins a margin before the newest change seen, and what is already known costs one
comparison. Deleted tasks leave no trace, only the full audit finds them.

Deliveries may be forged, so each is confirmed once: the tasks that deliveries since the last time spoke about
and that the listing did not show are asked for by name, a hundred at a time. Genuine ones are in the listing,
so this costs nothing as long as nobody lies. What Label Studio says stands, whatever times a delivery claimed:
versions that it does not have are *refuted* (kept, but no evidence and in no statistics), and noted as doubts
(:mod:`labelguard.distrust`).

What cannot be known is not guessed: a version that only looking found may have had others before it, which no
delivery brought, and counts as ``unknown``; an annotation that was made and deleted between two looks cannot be
told from one that never was.
"""

from __future__ import annotations

from labelguard.reconcile.bodies import BATCH
from labelguard.reconcile.look import ASKED, CONFIRMED, ONE_BY_ONE
from labelguard.reconcile.position import GRACE, position_of
from labelguard.reconcile.report import ReconcileReport
from labelguard.reconcile.run import MARGIN, Progress, audit, note_clock, reconcile, refresh_task

__all__ = [
    "ASKED",
    "BATCH",
    "CONFIRMED",
    "GRACE",
    "MARGIN",
    "ONE_BY_ONE",
    "Progress",
    "ReconcileReport",
    "audit",
    "note_clock",
    "position_of",
    "reconcile",
    "refresh_task",
]
