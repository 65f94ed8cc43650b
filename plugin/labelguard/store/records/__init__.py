"""Reading and writing records: plain functions on a connection, grouped by what they are about.

Functions that write are called inside :meth:`Store.write`; the caller owns the transaction. Rows come back
as plain dicts with the columns of :mod:`labelguard.store.schema`.
"""

from __future__ import annotations

from labelguard.store.records.actions import (
    actions_enabled,
    count_shown,
    get_action,
    list_actions,
    set_actions_enabled,
    update_action,
)
from labelguard.store.records.annotations import (
    annotations_about,
    current_annotations,
    get_annotation,
    mark_deleted,
    refute_versions,
    refuted_since,
    rename_author,
    set_annotation,
    unknown_counts,
    unrefute_version,
    versions_of,
)
from labelguard.store.records.annotators import get_annotator, list_annotators, note_annotators, save_annotators
from labelguard.store.records.cursors import clock_skew, get_cursor, set_clock_skew, set_cursor
from labelguard.store.records.deliveries import (
    doubt,
    doubts_told,
    failed_deliveries,
    forget_doubts,
    inbox_counts,
    list_doubts,
    list_rejected,
    newest_delivery,
    said_by_webhook,
)
from labelguard.store.records.findings import (
    FINDING_STEPS,
    dismiss_finding,
    dismiss_findings_of,
    get_finding,
    list_findings,
    set_finding_state,
)
from labelguard.store.records.gold import add_gold, get_gold, list_gold, retire_gold
from labelguard.store.records.jobs import end_lost_jobs, finish_job, last_runs, recent_jobs, start_job
from labelguard.store.records.memories import forget_rule_states, put_rule_states, suspect_memory, suspect_version
from labelguard.store.records.policies import add_policy, get_policy, newest_policy_version
from labelguard.store.records.projects import (
    forget_project_time,
    get_project,
    list_guidelines,
    list_projects,
    project_now,
    save_project,
    set_connection,
)
from labelguard.store.records.rows import LABELGUARD, Row
from labelguard.store.records.tasks import (
    TaskTimes,
    annotated_task_ids,
    get_task,
    keep_as_listed,
    live_task_ids,
    mark_tasks_deleted,
    put_tasks,
    save_task,
    task_times,
    tasks_by_id,
)

__all__ = [
    "FINDING_STEPS",
    "LABELGUARD",
    "Row",
    "TaskTimes",
    "actions_enabled",
    "add_gold",
    "add_policy",
    "annotated_task_ids",
    "annotations_about",
    "clock_skew",
    "count_shown",
    "current_annotations",
    "dismiss_finding",
    "dismiss_findings_of",
    "doubt",
    "doubts_told",
    "end_lost_jobs",
    "failed_deliveries",
    "finish_job",
    "forget_doubts",
    "forget_project_time",
    "forget_rule_states",
    "get_action",
    "get_annotation",
    "get_annotator",
    "get_cursor",
    "get_finding",
    "get_gold",
    "get_policy",
    "get_project",
    "get_task",
    "inbox_counts",
    "keep_as_listed",
    "last_runs",
    "list_actions",
    "list_annotators",
    "list_doubts",
    "list_findings",
    "list_gold",
    "list_guidelines",
    "list_projects",
    "list_rejected",
    "live_task_ids",
    "mark_deleted",
    "mark_tasks_deleted",
    "newest_delivery",
    "newest_policy_version",
    "note_annotators",
    "project_now",
    "put_rule_states",
    "put_tasks",
    "recent_jobs",
    "refute_versions",
    "refuted_since",
    "rename_author",
    "retire_gold",
    "said_by_webhook",
    "save_annotators",
    "save_project",
    "save_task",
    "set_actions_enabled",
    "set_annotation",
    "set_clock_skew",
    "set_connection",
    "set_cursor",
    "set_finding_state",
    "start_job",
    "suspect_memory",
    "suspect_version",
    "task_times",
    "tasks_by_id",
    "unknown_counts",
    "unrefute_version",
    "update_action",
    "versions_of",
]
