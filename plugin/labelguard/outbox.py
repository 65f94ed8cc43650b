"""The outbox: what people decide about planned actions, and their delivery.

An action's target was decided when it was planned; delivering it reads what is there, verifies that the
annotation is still the one that was judged, keeps what an undo needs, and only then changes anything. So an
action that is delivered again after a crash finds its work done.

Who delivers an action has claimed it for a while. Nobody else takes it in hand before that while is over, and an
effect begins only as long as enough of it is left: so two deliverers never work on one action, also when one of
them lost its role with its connection, or slept. And a request that was on its way when its sender was killed, or
got no answer in time, has arrived by the time that anybody looks whether it did.

A message to chat, mail or a pager cannot be looked for. It is sent again where its receiver did not take it, or
did not say so, and where its sender was killed before it could note that it was sent; never because another
receiver of the same action did not take its own.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
import structlog

from labelguard.connectors import ConnectorError, NotFound, Notifier, Studio, TaskRecord
from labelguard.engine import Clock, Engine
from labelguard.events import Annotation
from labelguard.feedback import render, render_notification
from labelguard.keeping import described
from labelguard.memory import is_suspect, rebuild
from labelguard.policy import Policy
from labelguard.processing import author_of
from labelguard.reconcile import GRACE, position_of, reconcile, refresh_task
from labelguard.store import Store, records
from labelguard.store.backend import Role
from labelguard.store.core import StoreError
from labelguard.store.schema import actions, findings

log = structlog.get_logger(__name__)

Row = dict[str, Any]

IN_PAGE = frozenset({"prompt", "rework"})
"""Actions that the page shows; their life after approval is in :mod:`labelguard.prompts`."""

_ONLY_LOOKS = frozenset({"rework"})
"""Actions whose delivery changes nothing, so that nobody need be kept from doing it as well."""

IN_FLIGHT = 30.0
"""Seconds within which an effect that was begun is over: our requests end before, and what Label Studio makes of
a request whose sender is gone, it makes by then."""

_CLAIM = 2.0
"""For how many times :data:`IN_FLIGHT` an action is claimed: half to look, half for the effect."""

_FIRST_PAUSE = 5.0
_LONGEST_PAUSE = 3600.0
"""Seconds; each pause between attempts is twice the one before."""

MAX_ATTEMPTS = 24
"""With the pauses below about eleven hours: longer than a night without Label Studio is not an outage."""

_DUE = sa.or_(actions.c.next_at.is_(None), actions.c.next_at <= sa.bindparam("now", type_=actions.c.next_at.type))


_DELIVERABLE = ("approved", "delivering")

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


class Refused(ValueError):
    """An action cannot take this step; the message is a sentence."""


class _Impossible(Exception):
    """The effect cannot be had, now or later; the message is a sentence."""


class _NotOurs(Exception):
    """The action is somebody else's to deliver by now; nothing was done."""


class _Unsure(ConnectorError):
    """An effect was asked for, and whether it happens is not known."""


@dataclass(frozen=True, slots=True)
class _Job:
    """An action with what delivering it needs."""

    action: Row
    finding: Row
    policy: Policy | None
    project: Row
    role: Role

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
        with self._store.exclusive("outbox") as role:
            with self._store.read() as conn:
                enabled = records.actions_enabled(conn)
            for due in self._due() if enabled else ():
                if not role.held():
                    # Whoever has it now delivers the rest.
                    log.warning("outbox_lost")
                    break
                about = {"action": due["id"], "kind": due["kind"], "finding": due["finding"]}
                with structlog.contextvars.bound_contextvars(**about, delivery=self._delivery_of(due)):
                    action = self._claim(due)
                    count += action is not None and self._deliver(action, role)
        return count

    def _delivery_of(self, action: Row) -> int | None:
        """The delivery that its finding came from, for the log."""
        with self._store.read() as conn:
            return (records.get_finding(conn, action["finding"]) or {}).get("delivery")

    def _claim(self, due: Row) -> Row | None:
        """Take an action in hand for a while; None where people, or another deliverer, were quicker."""
        now = self._clock()

        def job(conn: sa.Connection) -> Row | None:
            row = records.get_action(conn, due["id"])
            if row is None or row["state"] not in _DELIVERABLE or not records.actions_enabled(conn):
                return None
            if row["attempts"] != due["attempts"] or (row["next_at"] is not None and row["next_at"] > now):
                return None
            finding = records.get_finding(conn, row["finding"])
            if finding is not None and finding["state"] == "dismissed":
                why = "The finding was dismissed first."
                records.update_action(conn, row["id"], self._clock(), state="rejected", next_at=None, error=why)
                return None
            # The page decides about the state of its own.
            claimed = {
                "state": row["state"] if row["kind"] in IN_PAGE else "delivering",
                "attempts": row["attempts"] + 1,
                "next_at": None if row["kind"] in _ONLY_LOOKS else now + timedelta(seconds=_CLAIM * IN_FLIGHT),
            }
            # On the number of attempts: of two deliverers that read the same row, one finds it changed.
            mine = sa.update(actions).where(actions.c.id == row["id"], actions.c.attempts == row["attempts"])
            taken = conn.execute(mine.values(**claimed, updated_at=now)).rowcount
            return {**row, **claimed} if taken else None

        return self._store.write(job)

    def _due(self) -> list[Row]:
        query = sa.select(actions).where(_DUE, actions.c.state.in_(_DELIVERABLE))
        with self._store.read() as conn:
            rows = [dict(r) for r in conn.execute(query.order_by(actions.c.id), {"now": self._clock()}).mappings()]
        return [row for row in rows if row["kind"] not in IN_PAGE or not (row["target"] or {}).get("delivered")]

    def _job(self, conn: sa.Connection, action: Row, role: Role) -> _Job:
        loaded = self._engine.processor.policy(conn, action["project"])
        return _Job(
            action=action,
            finding=records.get_finding(conn, action["finding"]) or {},
            policy=loaded.policy if loaded else None,
            project=records.get_project(conn, action["project"]) or {},
            role=role,
        )

    def _deliver(self, action: Row, role: Role) -> bool:
        in_page = action["kind"] in IN_PAGE
        try:
            with self._store.read() as conn:
                job = self._job(conn, action, role)
            known = self._effect(job)
        except StoreError:
            raise
        except _NotOurs as error:
            log.warning("action_left", reason=str(error))
            return False
        except (_Impossible, Refused) as error:
            return self._failed(action, str(error))
        except ConnectorError as error:
            if error.permanent:
                return self._failed(action, str(error))
            least = IN_FLIGHT if isinstance(error, _Unsure) else 0.0
            return self._postponed(action, str(error), error.retry_after, least)
        except Exception as error:
            # One action that cannot be understood (its rule is not installed any more, say) stops no other.
            log.exception("action_crashed")
            return self._postponed(action, described(error), None)
        if in_page:
            self._update(action, {**known, "delivered": True}, next_at=None, error=None)
            log.info("action_in_page", task=action["task"], annotation=action["annotation"])
        else:
            self._update(action, known, state="done", next_at=None, error=None)
            log.info("action_done", task=action["task"], annotation=action["annotation"])
        self._store.instruments.attempted(action["kind"], "done")
        self._store.instruments.took_effect(action["kind"], (self._clock() - action["created_at"]).total_seconds())
        return True

    def _postponed(self, action: Row, why: str, retry_after: float | None, least: float = 0.0) -> bool:
        if action["attempts"] >= MAX_ATTEMPTS:
            return self._failed(action, why)
        growing = min(_FIRST_PAUSE * 2 ** (action["attempts"] - 1), _LONGEST_PAUSE)
        # Label Studio's word counts where it asks for more: a second, again and again, would use up all attempts.
        pause = max(least, retry_after or 0.0, growing * (0.5 + self._jitter() / 2))
        self._update(action, next_at=self._clock() + timedelta(seconds=pause), error=why)
        self._store.instruments.attempted(action["kind"], "postponed")
        log.warning("action_postponed", reason=why, seconds=round(pause))
        return False

    def _failed(self, action: Row, why: str) -> bool:
        self._store.instruments.attempted(action["kind"], "failed")
        log.warning("action_failed", reason=why)
        if action["kind"] == "prompt":
            # The page still shows it: only what was to come on top cannot be had.
            self._update(action, {"delivered": True}, next_at=None, error=why)
        else:
            self._update(action, state="failed", next_at=None, error=why)
        return False

    def _update(self, action: Row, known: Mapping[str, Any] | None = None, **values: Any) -> None:
        """Set columns and add what became known to the target, to which the page writes as well.

        What came to its end meanwhile stays as the page or a person left it, and what another deliverer
        claimed meanwhile is its to write.
        """

        def job(conn: sa.Connection) -> None:
            row = records.get_action(conn, action["id"])
            if row is None:
                return
            same = row["state"] == action["state"] and row["attempts"] == action["attempts"]
            new = {**values} if same else {}
            if known:
                new["target"] = {**(row["target"] or {}), **known}
            if new:
                records.update_action(conn, action["id"], self._clock(), **new)

        self._store.write(job)

    def _effect(self, job: _Job) -> dict[str, Any]:
        """Bring about what an action wants; returns what became known on the way."""
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

    @contextmanager
    def _touching(self, job: _Job, *, again_is_harmless: bool = False) -> Iterator[None]:
        """Around whatever is changed outside.

        It begins only while the action is still ours. Where it got no good answer, it may happen all the same, and
        may do so later: unless asking for it twice comes to the same, the next attempt waits until it would be
        there.
        """
        left = None if job.action["next_at"] is None else (job.action["next_at"] - self._clock()).total_seconds()
        if left is not None and left < IN_FLIGHT:
            raise ConnectorError("Looking at what is there took too long; nothing was changed.")
        if not job.role.held():
            raise _NotOurs("The store was lost in between; nothing was changed.")
        try:
            yield
        except ConnectorError as error:
            if error.permanent or again_is_harmless:
                raise
            raise _Unsure(str(error), retry_after=error.retry_after) from error

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
            self._store.instruments.unverified("gone")
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
            self._store.instruments.unverified("changed")
            refresh_task(self._store, self._engine, studio, action["project"], now.task, clock=self._clock)
            raise _Impossible("The annotation is not what was judged any more; it was judged again as it is now.")
        return now

    def _stands(self, job: _Job) -> None:
        """Make sure that what is told or done about a person rests on what Label Studio confirms.

        A finding about a single annotation is verified by that annotation. One that adds up over many rests on
        all of them: everything that deliveries brought before it is compared with Label Studio first, and what a
        rule remembers is made again where something of it was not so.
        """
        finding, project = job.finding, job.action["project"]
        if self._studio is None or finding.get("annotator") is None or "error" in finding["evidence"]:
            return
        if self._is_stateless(job):
            self._verified(job)
            return
        with self._store.read() as conn:
            confirmed = position_of(conn, project).at
        if confirmed is not None and confirmed < finding["created_at"]:
            report = reconcile(self._store, self._engine, self._studio, project, clock=self._clock)
            if report.young or report.unchecked:
                raise ConnectorError(
                    "Label Studio does not confirm everything yet that the finding may rest on.",
                    retry_after=GRACE.total_seconds(),
                )
        if is_suspect(self._store, project):
            rebuild(self._store, self._engine, project, clock=self._clock)
        with self._store.read() as conn:
            now = records.get_finding(conn, finding["id"])
            shaken = finding["version_id"] is None and records.refuted_since(conn, project, finding["created_at"])
        if shaken or now is None or now["state"] == "dismissed":
            raise _Impossible("The finding rests on deliveries that Label Studio does not confirm.")

    def _is_stateless(self, job: _Job) -> bool:
        from labelguard.registry import load_rules

        rule = load_rules().get(job.finding["rule"])
        return rule is not None and rule.stateless

    # Effects

    def _prompt(self, job: _Job) -> dict[str, Any]:
        """The page shows it; where there is more than the page, say it there too."""
        action, note = job.action, job.policy.task_note if job.policy else None
        if self._studio is None or self._is_private(job):
            return {}
        comments = action["annotation"] is not None and self._studio.server().comments
        if not comments and (note is None or action["task"] is None):
            return {}
        self._verified(job)
        known: dict[str, Any] = {}
        text = self._text(job)
        if comments:
            # Before the effect, as the note below.
            self._update(action, {"commented": True})
            try:
                with self._touching(job):
                    self._studio.comment(action["annotation"], text, _marker(action))
            except ConnectorError as error:
                if error.permanent:
                    self._update(action, {"commented": None})
                raise
        if note is not None and action["task"] is not None:
            # Before the effect: what a crash leaves there must be taken away some day.
            self._update(action, {"noted": note})
            with self._touching(job, again_is_harmless=True):
                self._studio.set_task_note(action["task"], note, text)
        return known

    def _text(self, job: _Job) -> str:
        language = job.policy.language if job.policy else "en"
        return render(job.finding["rule"], language, job.finding["feedback"])

    def _is_private(self, job: _Job) -> bool:
        """Whether a text on the task itself would tell that it is a gold task."""
        from labelguard.registry import load_rules

        rule = load_rules().get(job.finding["rule"])
        return rule is None or rule.private

    def _rework(self, job: _Job) -> dict[str, Any]:
        """Nothing is touched in Label Studio: once verified, the page offers to open the annotation again."""
        self._verified(job)
        return {"verified": True}

    def _replace(self, job: _Job) -> dict[str, Any]:
        now, studio = self._verified(job), self._need_studio()
        if now is None:
            raise _Impossible("There is no annotation to replace.")
        if now.was_cancelled:
            return {}
        setting = studio.project(job.action["project"]).skip_queue
        if setting != "REQUEUE_FOR_OTHERS":
            raise _Impossible(
                f"The project's skip setting is {setting}, with which Label Studio would not give the task to "
                "another annotator. Set it to “Requeue skipped tasks for others”, or use second-opinion."
            )
        self._remember(job, {"was_cancelled": False})
        with self._touching(job, again_is_harmless=True):
            studio.set_cancelled(now.id, True)
        return {}

    def _second_opinion(self, job: _Job) -> dict[str, Any]:
        self._verified(job)
        studio, action = self._need_studio(), job.action
        record = studio.task(action["task"])
        task, wanted = record.task, int(action["target"]["overlap"])
        one_more = max(task.overlap, _opinions(record), 1) + 1
        if wanted > one_more and action["undo"] is None:
            # Planned by what a delivery said of the task; one more is what Label Studio's own word makes of it.
            wanted = one_more
            self._update(action, {"overlap": wanted})
        if _opinions(record) >= wanted or (task.overlap >= wanted and not task.is_labeled):
            return {}
        self._remember(job, {"overlap": task.overlap, "is_labeled": task.is_labeled})
        # Somebody may have asked for more meanwhile; that is theirs to lower.
        with self._touching(job, again_is_harmless=True):
            studio.set_overlap(task.id, max(task.overlap, wanted), False)
        return {}

    def _escalate(self, job: _Job) -> dict[str, Any]:
        """A senior one decides: assigned where Label Studio can, and told in any case."""
        action, studio = job.action, self._need_studio()
        self._stands(job)
        # A message that is still to be sent is no reason to assign again: somebody may have decided otherwise.
        assigned = bool(action["target"].get("assigned_at"))
        if studio.server().assignments and action["task"] is not None and not assigned:
            self._verified(job)
            users = self._user_ids(job)
            if users:
                assigned = self._assigned(job, studio, users)
        return self._tell(job, enough=assigned)

    def _assigned(self, job: _Job, studio: Studio, users: list[int]) -> bool:
        """Assign the task to these users too; False where that is refused and others can be told instead."""
        action = job.action
        try:
            there = list(studio.assignees(action["project"], action["task"]))
            self._remember(job, {"assignees": there})
            # Before the effect: what a crash leaves there must be taken away where it is undone.
            self._update(action, {"assigned": users})
            with self._touching(job):
                # The annotator stays: they may be asked to look again.
                studio.assign(action["project"], action["task"], sorted({*there, *users}))
            self._update(action, {"assigned_at": self._clock().isoformat()})
        except ConnectorError as error:
            if not error.permanent or not self._told(job):
                raise
            log.warning("not_assigned", task=action["task"], reason=str(error))
            self._update(action, {"assigned": None})
            return False
        return True

    def _pause(self, job: _Job) -> dict[str, Any]:
        studio, action = self._need_studio(), job.action
        if not studio.server().pauses:
            raise _Impossible("Label Studio Community cannot pause an annotator; speak with them instead.")
        self._stands(job)
        self._remember(job, {"paused": True})
        with self._touching(job):
            studio.pause(action["project"], action["annotator"], self._text(job), _marker(action))
        return {}

    def _notify(self, job: _Job) -> dict[str, Any]:
        self._stands(job)
        return self._tell(job, enough=False)

    def _tell(self, job: _Job, *, enough: bool) -> dict[str, Any]:
        """Send to everybody the target names, each once; ``enough`` is whether it may be nobody."""
        group = str(job.target["to"])
        sent = list(job.target.get("sent", ()))
        names = self._told(job)
        if self._notifier is None and not enough:
            raise _Impossible("No alert targets are configured: set LABELGUARD_NOTIFY.")
        if not names and not enough:
            raise _Impossible(f"{group!r} names no alert target; name one of LABELGUARD_NOTIFY in `people`.")
        message = render_notification("finding", job.policy.language if job.policy else "en", self._about(job))
        trouble: list[ConnectorError] = []
        for name in names:
            if name in sent or self._notifier is None:
                continue
            try:
                with self._touching(job, again_is_harmless=True):
                    self._notifier.notify(name, message.title, message.body)
            except ConnectorError as error:
                # The others hear of it all the same.
                trouble.append(error)
                continue
            sent.append(name)
            self._update(job.action, {"sent": list(sent)})
        if trouble:
            # As long as one of them may still be reached, it is tried again.
            raise min(trouble, key=lambda error: error.permanent)
        return {}

    def _told(self, job: _Job) -> list[str]:
        """The alert targets among those a target names."""
        return [name for name in self._members(job, str(job.target["to"])) if not _is_user(name)]

    @staticmethod
    def _members(job: _Job, group: str) -> list[str]:
        policy = job.policy
        if policy is None:
            return [group]
        return list(policy.people.get(group) or policy.cohorts.get(group) or [group])

    def _user_ids(self, job: _Job) -> list[int]:
        wanted = {name.lower() for name in self._members(job, str(job.target["to"]))}
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
        """Take an action's effect back (now); one that is still being tried is given up."""
        with self._store.exclusive("outbox") as role:
            with self._store.read() as conn:
                row = _known(conn, action)
            began = row["state"] == "delivering" or (row["state"] == "failed" and bool(row["undo"]))
            if row["kind"] in IN_PAGE:
                if row["state"] not in ("approved", "delivering", "done"):
                    raise Refused(f"Action {action} is {row['state']}; there is nothing to take back.")
                self._clear_note(row, role)
                _held(role)
                self._clear_comment(row)
            elif row["state"] != "done" and not began:
                raise Refused(f"Action {action} is {row['state']}; only what was done can be taken back.")
            else:
                self._take_back(row, role)

            def job(conn: sa.Connection) -> None:
                records.update_action(conn, action, self._clock(), state="undone", decided_by=by, next_at=None)

            # Whatever the page did to it meanwhile.
            self._store.write(job)

    def _take_back(self, row: Row, role: Role) -> None:
        """Restore, unless somebody changed the same thing since: then theirs is what counts."""
        undo = row["undo"] or {}
        target = row["target"] or {}
        told = row["kind"] == "notify" or (row["kind"] == "escalate" and not target.get("assigned"))
        if told and row["state"] == "delivering" and not target.get("sent"):
            return
        if told:
            raise Refused(f"Action {row['id']} sent a message, which cannot be taken back.")
        studio = self._need_studio()
        try:
            if row["kind"] == "replace" and "was_cancelled" in undo:
                now = studio.annotation(row["annotation"])
                if now.was_cancelled and now.updated_by == studio.server().user.id:
                    _held(role)
                    studio.set_cancelled(now.id, False)
            elif row["kind"] == "second-opinion" and not undo.get("closed"):
                task = studio.task(row["task"]).task
                if "overlap" in undo and task.overlap == target["overlap"]:
                    _held(role)
                    studio.set_overlap(task.id, undo["overlap"], undo["is_labeled"])
            elif row["kind"] == "pause" and undo:
                _held(role)
                studio.unpause(row["project"], row["annotator"], _marker(row))
            elif row["kind"] == "escalate":
                there = set(studio.assignees(row["project"], row["task"]))
                ours = set(target["assigned"]) - set(undo.get("assignees", ()))
                if there & ours:
                    _held(role)
                    studio.assign(row["project"], row["task"], sorted(there - ours))
        except NotFound:
            log.info("nothing_to_take_back", action=row["id"])

    def _clear_note(self, row: Row, role: Role) -> None:
        if (row["target"] or {}).get("noted") and row["task"] is not None:
            _held(role)
            try:
                self._need_studio().set_task_note(row["task"], row["target"]["noted"], "")
            except NotFound:
                log.info("nothing_to_take_back", action=row["id"])

    def _clear_comment(self, row: Row) -> None:
        if (row["target"] or {}).get("commented") and self._need_studio().server().comments:
            try:
                self._need_studio().delete_comment(row["annotation"], _marker(row))
            except NotFound:
                log.info("nothing_to_take_back", action=row["id"])
            self._update(row, {"commented": None})

    def undo_all(self, project: int, by: str) -> int:
        """Take back every standing effect in a project (``disconnect``); returns how many."""
        states = ("proposed", "approved", "delivering", "done", "failed")
        with self._store.read() as conn:
            standing = records.list_actions(conn, project=project, states=states)
        count = 0
        for row in reversed(standing):
            in_page = row["kind"] in IN_PAGE
            if row["state"] == "proposed" or (row["state"] == "approved" and not in_page):
                self.reject(row["id"], by)
            elif _leaves_something(row):
                self.undo(row["id"], by)
                count += not in_page
            elif row["state"] == "delivering":
                # A message that some have got and others have not: nothing more is sent.
                self._update(row, state="failed", next_at=None, error="The project was disconnected.")
        return count

    # Standing effects

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
        studio = self._need_studio()
        with self._store.exclusive("outbox") as role:
            with self._store.read() as conn:
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
                    self._clear_note(row, role)
                    self._update(row, {"noted": None})
                    done["notes_cleared"] += 1
            for row in commented if commented and studio.server().comments else ():
                with _passing_over(row):
                    _held(role)
                    studio.resolve_comment(row["annotation"], _marker(row))
                    self._update(row, {"commented": None})
                    done["comments_resolved"] += 1
        return done

    def _settle_opinion(self, studio: Studio, row: Row, role: Role) -> str | None:
        target, undo = row["target"], row["undo"]
        try:
            record = studio.task(row["task"])
        except NotFound:
            self._update(row, undo={**undo, "closed": True})
            return None
        _held(role)
        if _opinions(record) >= target["overlap"]:
            if record.task.overlap == target["overlap"]:
                studio.set_overlap(record.task.id, undo["overlap"], True)
            self._update(row, undo={**undo, "closed": True})
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


def _held(role: Role) -> None:
    """Raise where the role was lost with its connection: somebody else may be at the same thing by now."""
    if not role.held():
        raise ConnectorError("The store was lost in between; nothing was changed. Try again.")


def _marker(action: Row) -> str:
    """What tells ours from everybody else's in Label Studio, by the finding's number."""
    return f"labelguard {action['finding']}"


def _opinions(record: TaskRecord) -> int:
    """How many people have said something; a skip says nothing."""
    return len({a.completed_by for a in record.annotations if not a.was_cancelled})


def _known(conn: sa.Connection, action: int) -> Row:
    row = records.get_action(conn, action)
    if row is None:
        raise Refused(f"There is no action {action}.")
    return row


def _leaves_something(row: Row) -> bool:
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


def _is_user(name: str) -> bool:
    """Whether a name of ``people`` is a Label Studio user rather than an alert target."""
    return name.isdigit() or "@" in name
