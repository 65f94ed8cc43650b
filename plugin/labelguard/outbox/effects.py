"""What actions bring about: verified first, kept for an undo, and only then done."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import structlog

from labelguard.connectors import ConnectorError, NotFound, Stopping, Studio
from labelguard.events import Annotation
from labelguard.feedback import render, render_notification
from labelguard.memory import is_suspect, rebuild
from labelguard.outbox.desk import IN_FLIGHT, Desk, Impossible, Job, NotOurs, Unsure, count_opinions, marker
from labelguard.processing import author_of
from labelguard.reconcile import GRACE, position_of, reconcile, refresh_task
from labelguard.store import records

log = structlog.get_logger(__name__)


class Effects:
    """Brings about what an action in hand wants."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def bring_about(self, job: Job) -> dict[str, Any]:
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
    def _touching(self, job: Job, *, again_is_harmless: bool = False) -> Iterator[None]:
        """Around whatever is changed outside.

        It begins only while the action is still ours. Where it got no good answer, it may happen all the same, and
        may do so later: unless asking for it twice comes to the same, the next attempt waits until it would be
        there.
        """
        left = None if job.action["next_at"] is None else (job.action["next_at"] - self._desk.clock()).total_seconds()
        if left is not None and left < IN_FLIGHT:
            raise ConnectorError("Looking at what is there took too long; nothing was changed.")
        if not job.role.held():
            raise NotOurs("The store was lost in between; nothing was changed.")
        try:
            yield
        except Stopping:
            raise
        except ConnectorError as error:
            if error.permanent or again_is_harmless:
                raise
            raise Unsure(str(error), retry_after=error.retry_after) from error

    # Verify before acting

    def _verified(self, job: Job) -> Annotation | None:
        """The annotation as it is now, provided that it is still what was judged; None where there is none.

        A delivery can be forged or stale; what Label Studio itself says now is what counts. An annotation
        that somebody changed meanwhile is judged again instead.
        """
        action, studio = job.action, self._desk.need_studio()
        if action["annotation"] is None:
            return None
        try:
            now = studio.annotation(action["annotation"])
        except NotFound:
            self._desk.store.instruments.unverified("gone")
            raise Impossible("The annotation is gone from Label Studio.") from None
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
            self._desk.store.instruments.unverified("changed")
            refresh_task(
                self._desk.store, self._desk.engine, studio, action["project"], now.task, clock=self._desk.clock
            )
            raise Impossible("The annotation is not what was judged any more; it was judged again as it is now.")
        return now

    def _stands(self, job: Job) -> None:
        """Make sure that what is told or done about a person rests on what Label Studio confirms.

        A finding about a single annotation is verified by that annotation. One that adds up over many rests on
        all of them: everything that deliveries brought before it is compared with Label Studio first, and what a
        rule remembers is made again where something of it was not so.
        """
        finding, project = job.finding, job.action["project"]
        if self._desk.studio is None or finding.get("annotator") is None or "error" in finding["evidence"]:
            return
        if self._is_stateless(job):
            self._verified(job)
            return
        with self._desk.store.read() as conn:
            confirmed = position_of(conn, project).at
        if confirmed is not None and confirmed < finding["created_at"]:
            report = reconcile(self._desk.store, self._desk.engine, self._desk.studio, project, clock=self._desk.clock)
            if report.young or report.unchecked:
                raise ConnectorError(
                    "Label Studio does not confirm everything yet that the finding may rest on.",
                    retry_after=GRACE.total_seconds(),
                )
        if is_suspect(self._desk.store, project):
            rebuild(self._desk.store, self._desk.engine, project, clock=self._desk.clock)
        with self._desk.store.read() as conn:
            now = records.get_finding(conn, finding["id"])
            shaken = finding["version_id"] is None and records.refuted_since(conn, project, finding["created_at"])
        if shaken or now is None or now["state"] == "dismissed":
            raise Impossible("The finding rests on deliveries that Label Studio does not confirm.")

    def _is_stateless(self, job: Job) -> bool:
        from labelguard.registry import load_rules

        rule = load_rules().get(job.finding["rule"])
        return rule is not None and rule.stateless

    # By kind

    def _prompt(self, job: Job) -> dict[str, Any]:
        """The page shows it; where there is more than the page, say it there too."""
        action, note = job.action, job.policy.task_note if job.policy else None
        if self._desk.studio is None or self._is_private(job):
            return {}
        comments = action["annotation"] is not None and self._desk.studio.server().comments
        if not comments and (note is None or action["task"] is None):
            return {}
        self._verified(job)
        known: dict[str, Any] = {}
        text = self._text(job)
        if comments:
            # Before the effect, as the note below.
            self._desk.update(action, {"commented": True})
            try:
                with self._touching(job):
                    self._desk.studio.comment(action["annotation"], text, marker(action))
            except ConnectorError as error:
                if error.permanent:
                    self._desk.update(action, {"commented": None})
                raise
        if note is not None and action["task"] is not None:
            # Before the effect: what a crash leaves there must be taken away some day.
            self._desk.update(action, {"noted": note})
            with self._touching(job, again_is_harmless=True):
                self._desk.studio.set_task_note(action["task"], note, text)
        return known

    def _text(self, job: Job) -> str:
        language = job.policy.language if job.policy else "en"
        return render(job.finding["rule"], language, job.finding["feedback"])

    def _is_private(self, job: Job) -> bool:
        """Whether a text on the task itself would tell that it is a gold task."""
        from labelguard.registry import load_rules

        rule = load_rules().get(job.finding["rule"])
        return rule is None or rule.private

    def _rework(self, job: Job) -> dict[str, Any]:
        """Nothing is touched in Label Studio: once verified, the page offers to open the annotation again."""
        self._verified(job)
        return {"verified": True}

    def _replace(self, job: Job) -> dict[str, Any]:
        now, studio = self._verified(job), self._desk.need_studio()
        if now is None:
            raise Impossible("There is no annotation to replace.")
        if now.was_cancelled:
            return {}
        setting = studio.project(job.action["project"]).skip_queue
        if setting != "REQUEUE_FOR_OTHERS":
            raise Impossible(
                f"The project's skip setting is {setting}, with which Label Studio would not give the task to "
                "another annotator. Set it to “Requeue skipped tasks for others”, or use second-opinion."
            )
        self._remember(job, {"was_cancelled": False})
        with self._touching(job, again_is_harmless=True):
            studio.set_cancelled(now.id, True)
        return {}

    def _second_opinion(self, job: Job) -> dict[str, Any]:
        self._verified(job)
        studio, action = self._desk.need_studio(), job.action
        record = studio.task(action["task"])
        task, wanted = record.task, int(action["target"]["overlap"])
        one_more = max(task.overlap, count_opinions(record), 1) + 1
        if wanted > one_more and action["undo"] is None:
            # Planned by what a delivery said of the task; one more is what Label Studio's own word makes of it.
            wanted = one_more
            self._desk.update(action, {"overlap": wanted})
        if count_opinions(record) >= wanted or (task.overlap >= wanted and not task.is_labeled):
            return {}
        self._remember(job, {"overlap": task.overlap, "is_labeled": task.is_labeled})
        # Somebody may have asked for more meanwhile; that is theirs to lower.
        with self._touching(job, again_is_harmless=True):
            studio.set_overlap(task.id, max(task.overlap, wanted), False)
        return {}

    def _escalate(self, job: Job) -> dict[str, Any]:
        """A senior one decides: assigned where Label Studio can, and told in any case."""
        action, studio = job.action, self._desk.need_studio()
        self._stands(job)
        # A message that is still to be sent is no reason to assign again: somebody may have decided otherwise.
        assigned = bool(action["target"].get("assigned_at"))
        if studio.server().assignments and action["task"] is not None and not assigned:
            self._verified(job)
            users = self._user_ids(job)
            if users:
                assigned = self._assigned(job, studio, users)
        return self._tell(job, enough=assigned)

    def _assigned(self, job: Job, studio: Studio, users: list[int]) -> bool:
        """Assign the task to these users too; False where that is refused and others can be told instead."""
        action = job.action
        try:
            there = list(studio.assignees(action["project"], action["task"]))
            self._remember(job, {"assignees": there})
            # Before the effect: what a crash leaves there must be taken away where it is undone.
            self._desk.update(action, {"assigned": users})
            with self._touching(job):
                # The annotator stays: they may be asked to look again.
                studio.assign(action["project"], action["task"], sorted({*there, *users}))
            self._desk.update(action, {"assigned_at": self._desk.clock().isoformat()})
        except ConnectorError as error:
            if not error.permanent or not self._told(job):
                raise
            log.warning("not_assigned", task=action["task"], reason=str(error))
            self._desk.update(action, {"assigned": None})
            return False
        return True

    def _pause(self, job: Job) -> dict[str, Any]:
        studio, action = self._desk.need_studio(), job.action
        if not studio.server().pauses:
            raise Impossible("Label Studio Community cannot pause an annotator; speak with them instead.")
        self._stands(job)
        self._remember(job, {"paused": True})
        with self._touching(job):
            studio.pause(action["project"], action["annotator"], self._text(job), marker(action))
        return {}

    def _notify(self, job: Job) -> dict[str, Any]:
        self._stands(job)
        return self._tell(job, enough=False)

    def _tell(self, job: Job, *, enough: bool) -> dict[str, Any]:
        """Send to everybody the target names, each once; ``enough`` is whether it may be nobody."""
        group = str(job.target["to"])
        sent = list(job.target.get("sent", ()))
        names = self._told(job)
        if self._desk.notifier is None and not enough:
            raise Impossible("No alert targets are configured: set LABELGUARD_NOTIFY.")
        if not names and not enough:
            raise Impossible(f"{group!r} names no alert target; name one of LABELGUARD_NOTIFY in `people`.")
        message = render_notification("finding", job.policy.language if job.policy else "en", self._about(job))
        trouble: list[ConnectorError] = []
        for name in names:
            if name in sent or self._desk.notifier is None:
                continue
            try:
                with self._touching(job, again_is_harmless=True):
                    self._desk.notifier.notify(name, message.title, message.body)
            except ConnectorError as error:
                # The others hear of it all the same.
                trouble.append(error)
                continue
            sent.append(name)
            self._desk.update(job.action, {"sent": list(sent)})
        if trouble:
            # As long as one of them may still be reached, it is tried again.
            raise min(trouble, key=lambda error: error.permanent)
        return {}

    def _told(self, job: Job) -> list[str]:
        """The alert targets among those a target names."""
        return [name for name in self._members(job, str(job.target["to"])) if not _is_user(name)]

    @staticmethod
    def _members(job: Job, group: str) -> list[str]:
        policy = job.policy
        if policy is None:
            return [group]
        return list(policy.people.get(group) or policy.cohorts.get(group) or [group])

    def _user_ids(self, job: Job) -> list[int]:
        wanted = {name.lower() for name in self._members(job, str(job.target["to"]))}
        with self._desk.store.read() as conn:
            people = records.list_annotators(conn)
        return [p["id"] for p in people if str(p["id"]) in wanted or p["email"].lower() in wanted]

    def _about(self, job: Job) -> Mapping[str, Any]:
        finding, studio = job.finding, self._desk.studio
        with self._desk.store.read() as conn:
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

    def _remember(self, job: Job, undo: Mapping[str, Any]) -> None:
        """Keep what an undo needs before the effect; what was kept before a crash is the truth."""
        if job.action["undo"] is None:
            self._desk.update(job.action, undo=dict(undo))
            job.action["undo"] = dict(undo)


def _is_user(name: str) -> bool:
    """Whether a name of ``people`` is a Label Studio user rather than an alert target."""
    return name.isdigit() or "@" in name
