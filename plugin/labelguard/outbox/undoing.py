"""Taking effects back: what somebody else changed since stays as it is."""

from __future__ import annotations

import sqlalchemy as sa
import structlog

from labelguard.connectors import NotFound
from labelguard.outbox.desk import IN_PAGE, Desk, Refused, Row, marker, planned, still_held
from labelguard.store import records
from labelguard.store.backend import Role

log = structlog.get_logger(__name__)


class Undoing:
    """Takes back what actions brought about."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def undo(self, action: int, by: str) -> None:
        """Take an action's effect back (now); one that is still being tried is given up."""
        with self._desk.store.exclusive("outbox") as role:
            with self._desk.store.read() as conn:
                row = planned(conn, action)
            began = row["state"] == "delivering" or (row["state"] == "failed" and bool(row["undo"]))
            if row["kind"] in IN_PAGE:
                if row["state"] not in ("approved", "delivering", "done"):
                    raise Refused(f"Action {action} is {row['state']}; there is nothing to take back.")
                self.clear_note(row, role)
                still_held(role)
                self._clear_comment(row)
            elif row["state"] != "done" and not began:
                raise Refused(f"Action {action} is {row['state']}; only what was done can be taken back.")
            else:
                self._take_back(row, role)

            def job(conn: sa.Connection) -> None:
                records.update_action(conn, action, self._desk.clock(), state="undone", decided_by=by, next_at=None)

            # Whatever the page did to it meanwhile.
            self._desk.store.write(job)

    def _take_back(self, row: Row, role: Role) -> None:
        """Restore, unless somebody changed the same thing since: then theirs is what counts."""
        undo = row["undo"] or {}
        target = row["target"] or {}
        told = row["kind"] == "notify" or (row["kind"] == "escalate" and not target.get("assigned"))
        if told and row["state"] == "delivering" and not target.get("sent"):
            return
        if told:
            raise Refused(f"Action {row['id']} sent a message, which cannot be taken back.")
        studio = self._desk.need_studio()
        try:
            if row["kind"] == "replace" and "was_cancelled" in undo:
                now = studio.annotation(row["annotation"])
                if now.was_cancelled and now.updated_by == studio.server().user.id:
                    still_held(role)
                    studio.set_cancelled(now.id, False)
            elif row["kind"] == "second-opinion" and not undo.get("closed"):
                task = studio.task(row["task"]).task
                if "overlap" in undo and task.overlap == target["overlap"]:
                    still_held(role)
                    studio.set_overlap(task.id, undo["overlap"], undo["is_labeled"])
            elif row["kind"] == "pause" and undo:
                still_held(role)
                studio.unpause(row["project"], row["annotator"], marker(row))
            elif row["kind"] == "escalate":
                there = set(studio.assignees(row["project"], row["task"]))
                ours = set(target["assigned"]) - set(undo.get("assignees", ()))
                if there & ours:
                    still_held(role)
                    studio.assign(row["project"], row["task"], sorted(there - ours))
        except NotFound:
            log.info("nothing_to_take_back", action=row["id"])

    def clear_note(self, row: Row, role: Role) -> None:
        """Take the note off the task, where there is one."""
        if (row["target"] or {}).get("noted") and row["task"] is not None:
            still_held(role)
            try:
                self._desk.need_studio().set_task_note(row["task"], row["target"]["noted"], "")
            except NotFound:
                log.info("nothing_to_take_back", action=row["id"])

    def _clear_comment(self, row: Row) -> None:
        if (row["target"] or {}).get("commented") and self._desk.need_studio().server().comments:
            try:
                self._desk.need_studio().delete_comment(row["annotation"], marker(row))
            except NotFound:
                log.info("nothing_to_take_back", action=row["id"])
            self._desk.update(row, {"commented": None})


def leaves_something(row: Row) -> bool:
    """Whether an action that began has anything to take back."""
    target, undo = row["target"] or {}, row["undo"] or {}
    if row["kind"] in IN_PAGE:
        left = target.get("noted") or target.get("commented")
        return row["state"] in ("approved", "delivering") or bool(left and row["state"] == "done")
    if row["kind"] in ("notify", "escalate"):
        untold = row["state"] == "delivering" and not target.get("sent")
        return untold or bool(target.get("assigned") and row["state"] != "failed")
    if row["state"] == "delivering":
        return True
    return bool(undo) and not undo.get("closed")
