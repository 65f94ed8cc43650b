"""The outbox: what people decide about planned actions, and their delivery.

An action's target was decided when it was planned; delivering it reads what is there, verifies that the
annotation is still the one that was judged, keeps what an undo needs, and only then changes anything. So an
action that is delivered again after a crash finds its work done.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
import structlog

from labelguard.connectors import ConnectorError, NotFound, Notifier, Studio
from labelguard.engine import Clock, Engine
from labelguard.events import Annotation
from labelguard.feedback import render, render_notification
from labelguard.policy import Policy
from labelguard.processing import author_of
from labelguard.reconcile import refresh_task
from labelguard.store import Store, records
from labelguard.store.schema import actions

log = structlog.get_logger(__name__)

Row = dict[str, Any]

IN_PAGE = frozenset({"prompt", "rework"})
"""Actions that the page shows; their life after approval is in :mod:`labelguard.prompts`."""

MAX_ATTEMPTS = 12
"""With the pauses below about eleven hours: longer than a night without Label Studio is not an outage."""

_DUE = sa.or_(actions.c.next_at.is_(None), actions.c.next_at <= sa.bindparam("now", type_=actions.c.next_at.type))


class Refused(ValueError):
    """An action cannot take this step; the message is a sentence."""


class _Impossible(Exception):
    """The effect cannot be had, now or later; the message is a sentence."""


@dataclass(frozen=True, slots=True)
class _Job:
    """An action with what delivering it needs."""

    action: Row
    finding: Row
    policy: Policy | None
    project: Row

    @property
    def target(self) -> dict[str, Any]:
        return dict(self.action["target"])


class Outbox:
    """Delivers due actions and lets people decide about proposed ones."""

    def __init__(
        self,
        store: Store,
        engine: Engine,
        studio: Studio | None,
        notifier: Notifier | None,
        clock: Clock,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """``jitter`` gives numbers in [0, 1) that spread the pauses between attempts."""
        self._store = store
        self._engine = engine
        self._studio = studio
        self._notifier = notifier
        self._clock = clock
        self._jitter = jitter

    # Delivery

    def deliver_due(self) -> int:
        """Deliver every action that is due; returns how many took effect. Nothing while the kill switch is on."""
        count = 0
        with self._store.exclusive("outbox"):
            for action in self._due():
                with self._store.read() as conn:
                    enabled = records.actions_enabled(conn)
                    job = self._job(conn, action)
                if not enabled:
                    break
                with structlog.contextvars.bound_contextvars(action=action["id"], kind=action["kind"]):
                    count += self._deliver(job)
        return count

    def _due(self) -> list[Row]:
        query = sa.select(actions).where(_DUE, actions.c.state.in_(("approved", "delivering")))
        with self._store.read() as conn:
            rows = [dict(r) for r in conn.execute(query.order_by(actions.c.id), {"now": self._clock()}).mappings()]
        return [row for row in rows if row["kind"] not in IN_PAGE or not (row["target"] or {}).get("delivered")]

    def _job(self, conn: sa.Connection, action: Row) -> _Job:
        loaded = self._engine.processor.policy(conn, action["project"])
        return _Job(
            action=action,
            finding=records.get_finding(conn, action["finding"]) or {},
            policy=loaded.policy if loaded else None,
            project=records.get_project(conn, action["project"]) or {},
        )

    def _deliver(self, job: _Job) -> bool:
        action = job.action
        in_page = action["kind"] in IN_PAGE
        if not in_page:
            self._update(action, state="delivering", attempts=action["attempts"] + 1)
        try:
            target = self._effect(job)
        except (_Impossible, Refused) as error:
            return self._failed(action, str(error))
        except ConnectorError as error:
            if error.permanent or action["attempts"] + 1 >= MAX_ATTEMPTS:
                return self._failed(action, str(error))
            pause = error.retry_after or min(5.0 * 2 ** action["attempts"], 3600.0) * (0.5 + self._jitter() / 2)
            later = self._clock() + timedelta(seconds=pause)
            self._update(action, attempts=action["attempts"] + 1, next_at=later, error=str(error))
            log.warning("action_postponed", reason=str(error), seconds=round(pause))
            return False
        if in_page:
            self._update(action, target=target | {"delivered": True}, error=None)
        else:
            self._update(action, state="done", target=target, next_at=None, error=None)
            log.info("action_done", task=action["task"], annotation=action["annotation"])
        return True

    def _failed(self, action: Row, why: str) -> bool:
        self._update(action, state="failed", next_at=None, error=why)
        log.warning("action_failed", reason=why)
        return False

    def _update(self, action: Row, **values: Any) -> None:
        self._store.write(lambda conn: records.update_action(conn, action["id"], self._clock(), **values))

    def _effect(self, job: _Job) -> dict[str, Any]:
        """Bring about what an action wants; returns its target with what became known on the way."""
        effects = {
            "prompt": self._prompt,
            "rework": self._rework,
            "replace": self._replace,
            "second-opinion": self._second_opinion,
            "escalate": self._escalate,
            "pause": self._pause,
            "notify": self._notify,
        }
        return effects[job.action["kind"]](job)

    def _need_studio(self) -> Studio:
        if self._studio is None:
            raise ConnectorError("labelguard is not configured for a Label Studio: set LABELGUARD_STUDIO_API_KEY.")
        return self._studio

    # Verify before acting

    def _verified(self, job: _Job) -> Annotation | None:
        """The annotation as it is now, provided that it is still what was judged; None where there is none.

        A delivery can be forged or stale; what Label Studio itself says now is what counts. An annotation
        that somebody changed meanwhile is judged again instead.
        """
        action, studio = job.action, self._need_studio()
        if action["annotation"] is None:
            return None
        try:
            now = studio.annotation(action["annotation"])
        except NotFound:
            raise _Impossible("The annotation is gone from Label Studio.") from None
        own = studio.server().user.id
        if now.updated_by == own:
            # Our own change (a replace) leaves what the annotator said as it was.
            same = action["target"].get("content_hash") == replace(now, was_cancelled=False).content_hash
        else:
            same = (
                action["target"].get("content_hash") == now.content_hash
                and now.updated_at is not None
                and action["target"].get("updated_at") == now.updated_at.isoformat()
                and author_of(now) == action["annotator"]
            )
        if not same:
            refresh_task(self._store, self._engine, studio, action["project"], now.task, clock=self._clock)
            raise _Impossible("The annotation is not what was judged any more; it was judged again as it is now.")
        return now

    # Effects

    def _prompt(self, job: _Job) -> dict[str, Any]:
        """The page shows it; where there is more than the page, say it there too."""
        target = job.target
        if self._studio is None:
            return target
        language = job.policy.language if job.policy else "en"
        text = render(job.finding["rule"], language, job.finding["feedback"])
        if job.action["annotation"] is not None and self._studio.server().comments and not self._is_private(job):
            self._studio.comment(job.action["annotation"], text, f"labelguard {job.finding['id']}")
            target["commented"] = True
        if job.policy and job.policy.task_note and job.action["task"] is not None and not self._is_private(job):
            self._studio.set_task_note(job.action["task"], job.policy.task_note, text)
            target["noted"] = job.policy.task_note
        return target

    def _is_private(self, job: _Job) -> bool:
        """Whether a text on the task itself would tell that it is a gold task."""
        from labelguard.registry import load_rules

        rule = load_rules().get(job.finding["rule"])
        return rule is None or rule.private

    def _rework(self, job: _Job) -> dict[str, Any]:
        """Nothing is touched in Label Studio: once verified, the page offers to open the annotation again."""
        self._verified(job)
        return job.target | {"verified": True}

    def _replace(self, job: _Job) -> dict[str, Any]:
        now, studio = self._verified(job), self._need_studio()
        if now is None:
            raise _Impossible("There is no annotation to replace.")
        if now.was_cancelled:
            return job.target
        setting = studio.project(job.action["project"]).skip_queue
        if setting != "REQUEUE_FOR_OTHERS":
            raise _Impossible(
                f"The project's skip setting is {setting}, with which Label Studio would not give the task to "
                "another annotator. Set it to “Requeue skipped tasks for others”, or use second-opinion."
            )
        self._remember(job, {"was_cancelled": False})
        studio.set_cancelled(now.id, True)
        return job.target

    def _second_opinion(self, job: _Job) -> dict[str, Any]:
        self._verified(job)
        studio, action = self._need_studio(), job.action
        task = studio.task(action["task"]).task
        wanted = int(action["target"]["overlap"])
        if task.overlap >= wanted and not task.is_labeled:
            return job.target
        self._remember(job, {"overlap": task.overlap, "is_labeled": task.is_labeled})
        studio.set_overlap(task.id, wanted, False)
        return job.target

    def _escalate(self, job: _Job) -> dict[str, Any]:
        """A senior one decides: assigned where Label Studio can, and told in any case."""
        target = job.target
        studio = self._need_studio()
        if studio.server().assignments and job.action["task"] is not None and not target.get("assigned"):
            self._verified(job)
            users = self._user_ids(job)
            if users:
                studio.assign(job.action["project"], job.action["task"], users)
                target["assigned"] = users
                self._update(job.action, target=target)
        return self._tell(job, target)

    def _pause(self, job: _Job) -> dict[str, Any]:
        studio, action = self._need_studio(), job.action
        if not studio.server().pauses:
            raise _Impossible("Label Studio Community cannot pause an annotator; speak with them instead.")
        self._remember(job, {"paused": True})
        language = job.policy.language if job.policy else "en"
        studio.pause(
            action["project"], action["annotator"], render(job.finding["rule"], language, job.finding["feedback"])
        )
        return job.target

    def _notify(self, job: _Job) -> dict[str, Any]:
        return self._tell(job, job.target)

    def _tell(self, job: _Job, target: dict[str, Any]) -> dict[str, Any]:
        """Send to everybody the target names, each once."""
        if self._notifier is None:
            raise _Impossible("No alert targets are configured: set LABELGUARD_NOTIFY.")
        sent = list(target.get("sent", ()))
        group = str(target["to"])
        names = self._members(job, group)
        message = render_notification("finding", job.policy.language if job.policy else "en", self._about(job))
        for name in names:
            if name in sent or _is_user(name):
                continue
            self._notifier.notify(name, message.title, message.body)
            sent.append(name)
            target["sent"] = sent
            self._update(job.action, target=target)
        if not sent and not target.get("assigned"):
            raise _Impossible(f"{group!r} names no alert target; name one of LABELGUARD_NOTIFY in `people`.")
        return target

    @staticmethod
    def _members(job: _Job, group: str) -> list[str]:
        policy = job.policy
        if policy is None:
            return [group]
        return list(policy.people.get(group) or policy.cohorts.get(group) or [group])

    def _user_ids(self, job: _Job) -> list[int]:
        wanted = {name.lower() for name in self._members(job, str(job.action["target"]["to"]))}
        with self._store.read() as conn:
            people = records.list_annotators(conn)
        return [p["id"] for p in people if str(p["id"]) in wanted or p["email"].lower() in wanted]

    def _about(self, job: _Job) -> Mapping[str, Any]:
        finding, studio = job.finding, self._studio
        with self._store.read() as conn:
            person = records.get_annotator(conn, finding["annotator"]) if finding["annotator"] else None
        values: dict[str, Any] = {
            "rule": finding["rule"],
            "message": finding["message"],
            "severity": finding["severity"],
            "project": job.project.get("title") or f"project {finding['project']}",
            "annotator": (person or {}).get("name") or (person or {}).get("email") or "",
            "task": finding["task"],
            "link": "",
        }
        if studio is not None and finding["task"] is not None:
            values["link"] = studio.link(finding["project"], finding["task"], finding["annotation"])
        return values

    def _remember(self, job: _Job, undo: Mapping[str, Any]) -> None:
        """Keep what an undo needs before the effect; what was kept before a crash is the truth."""
        if job.action["undo"] is None:
            self._update(job.action, undo=dict(undo))
            job.action["undo"] = dict(undo)

    # What people decide

    def approve(self, action: int, by: str) -> None:
        """Approve a proposed action."""
        self._decide(action, ("proposed",), "approved", by, "only a proposed action can be approved")

    def reject(self, action: int, by: str) -> None:
        """Reject a proposed action for good."""
        self._decide(
            action, ("proposed", "approved"), "rejected", by, "only an action that has not begun can be rejected"
        )

    def _decide(self, action: int, states: tuple[str, ...], state: str, by: str, otherwise: str) -> None:
        def job(conn: sa.Connection) -> None:
            row = _known(conn, action)
            if row["state"] not in states:
                raise Refused(f"Action {action} is {row['state']}; {otherwise}.")
            records.update_action(conn, action, self._clock(), state=state, decided_by=by)

        self._store.write(job)

    def undo(self, action: int, by: str) -> None:
        """Take an action's effect back (now)."""
        with self._store.exclusive("outbox"):
            with self._store.read() as conn:
                row = _known(conn, action)
            if row["kind"] in IN_PAGE:
                if row["state"] not in ("approved", "delivering", "done"):
                    raise Refused(f"Action {action} is {row['state']}; there is nothing to take back.")
                self._clear_note(row)
            elif row["state"] != "done":
                raise Refused(f"Action {action} is {row['state']}; only what was done can be taken back.")
            else:
                self._take_back(row)
            self._update(row, state="undone", decided_by=by, next_at=None)

    def _take_back(self, row: Row) -> None:
        """Restore, unless somebody changed the same thing since: then theirs is what counts."""
        undo = row["undo"] or {}
        if row["kind"] == "notify" or (row["kind"] == "escalate" and not row["target"].get("assigned")):
            raise Refused(f"Action {row['id']} sent a message, which cannot be taken back.")
        studio = self._need_studio()
        try:
            if row["kind"] == "replace" and "was_cancelled" in undo:
                now = studio.annotation(row["annotation"])
                if now.was_cancelled and now.updated_by == studio.server().user.id:
                    studio.set_cancelled(now.id, False)
            elif row["kind"] == "second-opinion" and not undo.get("closed"):
                task = studio.task(row["task"]).task
                if "overlap" in undo and task.overlap == row["target"]["overlap"]:
                    studio.set_overlap(task.id, undo["overlap"], undo["is_labeled"])
            elif row["kind"] == "pause":
                studio.unpause(row["project"], row["annotator"])
            elif row["kind"] == "escalate":
                studio.assign(row["project"], row["task"], [])
        except NotFound:
            log.info("nothing_to_take_back", action=row["id"])

    def _clear_note(self, row: Row) -> None:
        if (row["target"] or {}).get("noted") and row["task"] is not None:
            self._need_studio().set_task_note(row["task"], row["target"]["noted"], "")

    def undo_all(self, project: int, by: str) -> int:
        """Take back every standing effect in a project (``disconnect``); returns how many."""
        with self._store.read() as conn:
            standing = records.list_actions(
                conn, project=project, states=("proposed", "approved", "delivering", "done")
            )
        count = 0
        for row in reversed(standing):
            in_page = row["kind"] in IN_PAGE
            if row["state"] == "proposed" or (row["state"] == "approved" and not in_page):
                self.reject(row["id"], by)
            elif _leaves_something(row):
                if row["state"] == "delivering" and not in_page:
                    # Nobody knows whether it took effect; taking back looks before it changes anything.
                    self._update(row, state="done")
                self.undo(row["id"], by)
                count += not in_page
        return count

    # Standing effects

    def settle(self, project: int) -> dict[str, int]:
        """Look after effects that outlive their delivery; returns what was done, by what.

        A second opinion that has come gives its overlap back (one task of another overlap would change what
        the project's own setting applies to); one that Label Studio lost (an import resets overlaps) is asked
        for again. A note on a task goes when its prompt was answered.
        """
        done = {"second_opinions_closed": 0, "second_opinions_renewed": 0, "notes_cleared": 0}
        studio = self._need_studio()
        with self._store.exclusive("outbox"):
            with self._store.read() as conn:
                if not records.actions_enabled(conn):
                    return done
                rows = records.list_actions(conn, project=project, states=("done", "undone", "rejected"))
            for row in rows:
                target, undo = row["target"] or {}, row["undo"] or {}
                if row["kind"] == "second-opinion" and row["state"] == "done" and undo and not undo.get("closed"):
                    try:
                        done[self._settle_opinion(studio, row, target, undo)] += 1
                    except KeyError:
                        continue
                    except NotFound:
                        self._update(row, undo={**undo, "closed": True})
                elif row["kind"] in IN_PAGE and target.get("noted"):
                    self._clear_note(row)
                    self._update(row, target={k: v for k, v in target.items() if k != "noted"})
                    done["notes_cleared"] += 1
        return done

    def _settle_opinion(self, studio: Studio, row: Row, target: Row, undo: Row) -> str:
        record = studio.task(row["task"])
        people = {a.completed_by for a in record.annotations if not a.was_cancelled}
        if len(people) >= target["overlap"]:
            if record.task.overlap == target["overlap"]:
                studio.set_overlap(record.task.id, undo["overlap"], True)
            self._update(row, undo={**undo, "closed": True})
            return "second_opinions_closed"
        if record.task.overlap < target["overlap"] or record.task.is_labeled:
            studio.set_overlap(record.task.id, target["overlap"], False)
            return "second_opinions_renewed"
        return "waiting"


def _known(conn: sa.Connection, action: int) -> Row:
    row = records.get_action(conn, action)
    if row is None:
        raise Refused(f"There is no action {action}.")
    return row


def _leaves_something(row: Row) -> bool:
    """Whether an action that began has anything to take back."""
    target = row["target"] or {}
    if row["kind"] in IN_PAGE:
        return row["state"] != "done" or bool(target.get("noted"))
    if row["kind"] == "escalate":
        return bool(target.get("assigned"))
    return bool(row["kind"] != "notify")


def _is_user(name: str) -> bool:
    """Whether a name of ``people`` is a Label Studio user rather than an alert target."""
    return name.isdigit() or "@" in name
