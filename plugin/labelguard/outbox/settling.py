"""Effects that outlive their delivery, and are looked after."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
import structlog

from labelguard.connectors import ConnectorError, NotFound, Studio
from labelguard.outbox.desk import IN_PAGE, Desk, Row, count_opinions, marker, still_held
from labelguard.outbox.undoing import Undoing
from labelguard.store import records
from labelguard.store.backend import Role
from labelguard.store.schema import actions, findings

log = structlog.get_logger(__name__)

# Asked for, and the overlap not given back yet.
_OPINIONS = sa.select(actions).where(
    actions.c.project == sa.bindparam("project"),
    actions.c.kind == "second-opinion",
    actions.c.state == "done",
    actions.c.undo["overlap"].as_string().is_not(None),
    actions.c.undo["closed"].as_string().is_(None),
)

# Answered, taken back or refused, and still written on the task.
_NOTED = sa.select(actions).where(
    actions.c.project == sa.bindparam("project"),
    actions.c.kind.in_(sorted(IN_PAGE)),
    actions.c.state.in_(("done", "undone", "rejected")),
    actions.c.target["noted"].as_string().is_not(None),
)

# The same for comments, and for those whose finding turned out to be wrong.
_COMMENTED = (
    sa.select(actions)
    .join(findings, findings.c.id == actions.c.finding)
    .where(
        actions.c.project == sa.bindparam("project"),
        actions.c.kind == "prompt",
        sa.or_(actions.c.state.in_(("done", "rejected")), findings.c.state == "dismissed"),
        actions.c.target["commented"].as_string().is_not(None),
    )
)


class Settling:
    """Looks after effects that stand."""

    def __init__(self, desk: Desk, undoing: Undoing) -> None:
        self._desk = desk
        self._undoing = undoing

    def settle(self, project: int) -> dict[str, int]:
        """Look after effects that outlive their delivery; returns what was done, by what.

        A second opinion that has come gives its overlap back (one task of another overlap would change what
        the project's own setting applies to); one that Label Studio lost (an import resets overlaps) is asked
        for again. A note on a task goes when its prompt was answered; a comment is resolved then, and when its
        finding was dismissed.

        Raises:
            ConnectorError: Label Studio did not answer.
        """
        done = {
            "second_opinions_closed": 0,
            "second_opinions_renewed": 0,
            "notes_cleared": 0,
            "comments_resolved": 0,
        }
        studio = self._desk.need_studio()
        with self._desk.store.exclusive("outbox") as role:
            with self._desk.store.read() as conn:
                if not records.actions_enabled(conn):
                    return done
                opinions = [dict(row) for row in conn.execute(_OPINIONS, {"project": project}).mappings()]
                noted = [dict(row) for row in conn.execute(_NOTED, {"project": project}).mappings()]
                commented = [dict(row) for row in conn.execute(_COMMENTED, {"project": project}).mappings()]
            for row in opinions:
                with _passing_over(row):
                    what = self._settle_opinion(studio, row, role)
                    if what is not None:
                        done[what] += 1
            for row in noted:
                with _passing_over(row):
                    self._undoing.clear_note(row, role)
                    self._desk.update(row, {"noted": None})
                    done["notes_cleared"] += 1
            for row in commented if commented and studio.server().comments else ():
                with _passing_over(row):
                    still_held(role)
                    studio.resolve_comment(row["annotation"], marker(row))
                    self._desk.update(row, {"commented": None})
                    done["comments_resolved"] += 1
        return done

    def _settle_opinion(self, studio: Studio, row: Row, role: Role) -> str | None:
        target, undo = row["target"], row["undo"]
        try:
            record = studio.task(row["task"])
        except NotFound:
            self._desk.update(row, undo={**undo, "closed": True})
            return None
        still_held(role)
        if count_opinions(record) >= target["overlap"]:
            if record.task.overlap == target["overlap"]:
                studio.set_overlap(record.task.id, undo["overlap"], True)
            self._desk.update(row, undo={**undo, "closed": True})
            return "second_opinions_closed"
        if record.task.overlap < target["overlap"] or record.task.is_labeled:
            studio.set_overlap(record.task.id, max(record.task.overlap, target["overlap"]), False)
            return "second_opinions_renewed"
        return None


@contextmanager
def _passing_over(row: Row) -> Iterator[None]:
    """What Label Studio refuses for one task stops none of the others; an outage stops all."""
    try:
        yield
    except ConnectorError as error:
        if not error.permanent:
            raise
        log.warning("effect_not_settled", action=row["id"], reason=str(error))
