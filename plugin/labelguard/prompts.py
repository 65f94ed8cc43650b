"""What an annotator is told in the page: which prompts they get now, and what became of those they got.

A prompt is a finding with standing actions of the kinds ``prompt`` and ``rework``. Their life here::

    approved -> delivering (shown in the page, not confirmed) -> done

A ``rework`` is shown once the outbox has verified it (``target.verified``), a delivery being a mere hint. A
``prompt`` is compared with Label Studio when it is about to be shown, and held back where Label Studio denies it
(``target.denied``); where Label Studio does not answer, it is shown: it is only a note.
A ``prompt`` is done when the annotator acknowledges or disputes it. A ``rework`` is done when they dispute
it, or when the engine sees their new version of the annotation; acknowledging it (they open the annotation
again) is not yet doing it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
import structlog

from labelguard.connectors import NotFound, Studio
from labelguard.engine import Clock, Engine
from labelguard.feedback import render
from labelguard.policy import BadPolicy, Policy, build_rules, load_policy
from labelguard.processing import author_of
from labelguard.reconcile import refresh_task
from labelguard.store import Store, records

log = structlog.get_logger(__name__)

KINDS = ("prompt", "rework")
STANDING = ("approved", "delivering")
DISPUTE_CHARS = 2000

# More than a person reads at once; the others come with the next save.
_MOST = 5
# Labelguard asks Label Studio for an annotation at most this often on an annotator's behalf.
_FETCH_EVERY = timedelta(seconds=2)
_HOUR = timedelta(hours=1)
_VERIFIED_WITHIN = timedelta(seconds=10)


class NoSuchPromptError(LookupError):
    """There is no such prompt for this annotator."""


class NotPossibleError(ValueError):
    """The prompt cannot take this step any more; the message is a sentence for the annotator."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One note for an annotator."""

    finding: int
    kind: str
    """``rework`` where the annotation should be opened again, else ``prompt``."""
    text: str
    severity: str
    task: int | None
    """None where the annotator must not learn which task it is about."""
    annotation: int | None


class Prompts:
    """Prompts out of the store, for one annotator at a time."""

    def __init__(self, store: Store, engine: Engine, studio: Studio | None, clock: Clock) -> None:
        """``studio`` is asked for saves that labelguard was not told of; without it, they are waited for."""
        self._store = store
        self._engine = engine
        self._studio = studio
        self._clock = clock
        self._policies: dict[tuple[int, int], _PolicyFacts] = {}
        self._fetched: dict[int, datetime] = {}
        self._fetching = threading.Lock()

    def language(self, project: int, annotator: int) -> str:
        """The language for an annotator: their own, else the project's policy's."""
        with self._store.read() as conn:
            person = records.get_annotator(conn, annotator)
            facts = self._facts(conn, project, None)
        return str((person or {}).get("language") or facts.language)

    def blocking(self, project: int) -> bool:
        """Whether the project's policy has a rule that can stop a save."""
        with self._store.read() as conn:
            return self._facts(conn, project, None).blocking

    def arrived(self, annotation: int, saved: datetime | None) -> bool:
        """Whether labelguard has judged this save: the version saved at that moment, or any without it."""
        with self._store.read() as conn:
            row = records.get_annotation(conn, annotation)
        return row is not None and (saved is None or row["updated_at"] >= saved)

    def await_save(self, annotation: int, saved: datetime | None, patience: float) -> bool:
        """Wait at most ``patience`` seconds for :meth:`arrived`, and return it."""
        deadline = time.monotonic() + patience
        while not self.arrived(annotation, saved):
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.05)
        return True

    def verifying(self, annotation: int, annotator: int) -> bool:
        """Whether labelguard is about to know if an annotation goes back to its annotator."""
        with self._store.read() as conn:
            reworks = records.list_actions(
                conn, kind="rework", annotation=annotation, annotator=annotator, states=STANDING, limit=50
            )
        return any(self._being_verified(action) for action in reworks)

    def await_verified(self, annotation: int, annotator: int, patience: float) -> bool:
        """Wait at most ``patience`` seconds until nothing is :meth:`verifying`; whether that is so."""
        deadline = time.monotonic() + patience
        while self.verifying(annotation, annotator):
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.05)
        return True

    def _being_verified(self, action: Mapping[str, Any]) -> bool:
        # What takes longer, or failed, is not waited for: the note alone is shown then.
        fresh = self._clock() - action["created_at"] < _VERIFIED_WITHIN
        return not _prepared(action) and action["error"] is None and fresh

    def fetch(self, project: int, annotation: int, annotator: int) -> bool:
        """Ask Label Studio for a save that was not announced, and judge it; returns whether that was done.

        Only for an annotation that this annotator saved themself, in a connected project.

        Raises:
            ConnectorError: Label Studio said no or did not answer.
        """
        if self._studio is None or not self._may_fetch(annotator):
            return False
        with self._store.read() as conn:
            row = records.get_project(conn, project)
        if row is None or row["connected_at"] is None:
            return False
        found = self._studio.annotation(annotation)
        if found.project != project or annotator not in (found.completed_by, found.updated_by):
            return False
        refresh_task(self._store, self._engine, self._studio, project, found.task, clock=self._clock)
        return True

    def _may_fetch(self, annotator: int) -> bool:
        now = self._clock()
        with self._fetching:
            self._fetched = {who: at for who, at in self._fetched.items() if now - at < _FETCH_EVERY}
            if annotator in self._fetched:
                return False
            self._fetched[annotator] = now
            return True

    def waiting(
        self, project: int, annotator: int, annotation: int | None = None, *, confirmed: bool = False
    ) -> list[Prompt]:
        """What an annotator is shown now: after saving ``annotation`` or, without it, on opening the page.

        The annotation's own prompts come first, then others that wait, oldest first. What was shown but not
        answered comes again; new ones only as far as the policy's ``prompts_per_hour`` allows. With ``confirmed``,
        those that :meth:`confirm` did not come to wait as well.
        """
        with self._store.read() as conn:
            if not records.actions_enabled(conn):
                return []
            asked = _own(records.get_annotation(conn, annotation) if annotation else None, annotator, project)
            facts = self._facts(conn, project, None)
            person = records.get_annotator(conn, annotator)
            language = str((person or {}).get("language") or facts.language)
            budget = facts.prompts_per_hour - self._shown_lately(conn, project, annotator)
            prompts: list[Prompt] = []
            for finding_id, standing in _grouped(conn, project, annotator, asked):
                actions = [action for action in standing if _prepared(action)]
                if not actions or any(self._being_verified(action) for action in standing):
                    continue
                if confirmed and any(_unconfirmed(action) for action in actions):
                    continue
                finding = records.get_finding(conn, finding_id)
                if finding is None or not self._visible(conn, finding, asked):
                    continue
                if all(action["state"] == "approved" for action in actions):
                    if budget <= 0:
                        continue
                    budget -= 1
                prompts.append(self._prompt(conn, finding, actions, language))
                if len(prompts) == _MOST:
                    break
            return prompts

    def confirm(self, project: int, annotator: int, annotation: int | None = None) -> bool:
        """Ask Label Studio about what :meth:`waiting` would show and nobody has confirmed yet.

        Returns whether there is a Label Studio to ask. What it denies (a delivery was forged, or tells of
        somebody else) is held back from the annotator.

        Raises:
            ConnectorError: Label Studio did not answer; what it was not asked about is shown.
        """
        if self._studio is None:
            return False
        with self._store.read() as conn:
            asked = _own(records.get_annotation(conn, annotation) if annotation else None, annotator, project)
            wanted = [
                action
                for finding_id, standing in _grouped(conn, project, annotator, asked)
                if any(_unconfirmed(action) for action in standing)
                and (finding := records.get_finding(conn, finding_id)) is not None
                and self._visible(conn, finding, asked)
                for action in standing
                if action["kind"] == "prompt" and _unconfirmed(action)
            ]
        # What was denied before is asked about last: a flood of forged ones must not hold the genuine back.
        for action in sorted(wanted, key=lambda action: bool((action["target"] or {}).get("denied")))[:_MOST]:
            denied = self._denied(action)
            known = {"denied": True} if denied else {"denied": False, "confirmed": True}
            self._note(action, known)
        return True

    def _note(self, action: Mapping[str, Any], known: Mapping[str, Any]) -> None:
        """Add what became known to an action's target, to which the outbox writes as well."""

        def job(conn: sa.Connection) -> None:
            row = records.get_action(conn, action["id"])
            if row is not None:
                records.update_action(conn, row["id"], self._clock(), target={**(row["target"] or {}), **known})

        self._store.write(job)

    def _denied(self, action: Mapping[str, Any]) -> bool:
        """Whether Label Studio itself contradicts what an action says about its annotation."""
        if self._studio is None:
            return False
        try:
            now = self._studio.annotation(action["annotation"])
        except NotFound:
            return True
        target = action["target"] or {}
        if now.updated_at is None or "updated_at" not in target:
            return False
        judged = datetime.fromisoformat(target["updated_at"])
        if now.updated_at > judged:
            # Saved again since: what it was, nobody can tell any more; whose it is, is there.
            return bool(now.completed_by != action["annotator"])
        same = now.updated_at == judged and now.content_hash == target.get("content_hash")
        return not same or author_of(now) != action["annotator"]

    def _shown_lately(self, conn: sa.Connection, project: int, annotator: int) -> int:
        return records.count_shown(conn, project, annotator, KINDS, since=self._clock() - _HOUR)

    def _visible(self, conn: sa.Connection, finding: Mapping[str, Any], asked: Mapping[str, Any] | None) -> bool:
        if finding["state"] not in ("open", "acknowledged"):
            return False
        if finding["annotation"] is not None:
            about = records.get_annotation(conn, finding["annotation"])
            if about is not None and about["deleted_at"] is not None:
                return False
        if not self._private(conn, finding):
            return True
        # It would point at a gold task: so it waits for a later save, and asking about an earlier one (or
        # saving this one again) does not bring it out.
        return asked is not None and asked["id"] != finding["annotation"] and asked["updated_at"] > finding["at"]

    def _private(self, conn: sa.Connection, finding: Mapping[str, Any]) -> bool:
        facts = self._facts(conn, finding["project"], finding["policy_version"])
        # A rule that is not known (any more) may have been one that keeps secrets.
        return facts.private.get(finding["rule"], True)

    def _prompt(
        self,
        conn: sa.Connection,
        finding: Mapping[str, Any],
        actions: Sequence[Mapping[str, Any]],
        language: str,
    ) -> Prompt:
        rework = any(action["kind"] == "rework" for action in actions)
        # A policy that asks for rework allowed to tell which task it is; a prompt of a private rule does not.
        secret = not rework and self._private(conn, finding)
        return Prompt(
            finding=finding["id"],
            kind="rework" if rework else "prompt",
            text=render(finding["rule"], language, finding["feedback"]),
            severity=finding["severity"],
            task=None if secret else finding["task"],
            annotation=None if secret else finding["annotation"],
        )

    def seen(self, finding: int, annotator: int) -> None:
        """It was shown. Raises :class:`NoSuchPromptError`."""

        def job(conn: sa.Connection) -> tuple[list[int], int | None]:
            shown = [a["id"] for a in self._standing(conn, finding, annotator) if self._mark_shown(conn, a)]
            return shown, self._finding(conn, finding, annotator)["delivery"]

        shown, delivery = self._store.write(job)
        for action in shown:
            log.info("action_shown", action=action, finding=finding, delivery=delivery)

    def acknowledge(self, finding: int, annotator: int) -> None:
        """The annotator read it; a rework still waits for the work. Raises :class:`NoSuchPromptError`."""

        def job(conn: sa.Connection) -> None:
            for action in self._standing(conn, finding, annotator):
                self._mark_shown(conn, action)
                if action["kind"] == "prompt":
                    records.update_action(conn, action["id"], self._clock(), state="done")
            if self._finding(conn, finding, annotator)["state"] == "open":
                self._set_state(conn, finding, "acknowledged", annotator, "")

        self._store.write(job)

    def dispute(self, finding: int, annotator: int, words: str) -> None:
        """The annotator says that it is wrong, in their words.

        Raises:
            NoSuchPromptError: it is not theirs.
            NotPossibleError: somebody has decided about it already, or the words are missing or too long.
        """
        words = words.strip()
        if not words:
            raise NotPossibleError("Please say what is wrong with the note.")
        if len(words) > DISPUTE_CHARS:
            raise NotPossibleError(f"Please use {DISPUTE_CHARS:,} characters at most; these are {len(words):,}.")

        def job(conn: sa.Connection) -> None:
            if self._finding(conn, finding, annotator)["state"] == "disputed":
                return
            try:
                self._set_state(conn, finding, "disputed", annotator, words)
            except ValueError as error:
                raise NotPossibleError("Somebody has decided about this note already.") from error
            for action in self._standing(conn, finding, annotator):
                self._mark_shown(conn, action)
                records.update_action(conn, action["id"], self._clock(), state="done")

        self._store.write(job)

    def _finding(self, conn: sa.Connection, finding: int, annotator: int) -> Mapping[str, Any]:
        row = records.get_finding(conn, finding)
        if row is None or row["annotator"] != annotator:
            raise NoSuchPromptError("There is no such note for you.")
        return row

    def _standing(self, conn: sa.Connection, finding: int, annotator: int) -> Iterator[dict[str, Any]]:
        self._finding(conn, finding, annotator)
        for action in records.list_actions(conn, finding=finding, annotator=annotator, states=STANDING):
            if action["kind"] in KINDS:
                yield action

    def _mark_shown(self, conn: sa.Connection, action: dict[str, Any]) -> bool:
        """Note that the annotator has it before them; whether that is news."""
        shown = action["state"] == "approved" and _prepared(action)
        if shown:
            now = self._clock()
            # Kept beside the target: `updated_at` moves on with the answer, and the hour counts from here.
            target = {**(action["target"] or {}), "shown_at": now.isoformat()}
            records.update_action(conn, action["id"], now, state="delivering", target=target)
        return shown

    def _set_state(self, conn: sa.Connection, finding: int, state: str, annotator: int, note: str) -> None:
        records.set_finding_state(conn, finding, state, by=f"annotator {annotator}", note=note, now=self._clock())

    def _facts(self, conn: sa.Connection, project: int, version: int | None) -> _PolicyFacts:
        row = records.get_policy(conn, project, version)
        if row is None:
            return _PolicyFacts()
        key = (project, int(row["version"]))
        if key not in self._policies:
            if len(self._policies) >= 100:
                self._policies.clear()
            try:
                self._policies[key] = _PolicyFacts.of(load_policy(row["text"]))
            except BadPolicy:
                # One of its rules is not installed any more: nothing is known of it, so nothing is shown.
                return _PolicyFacts()
        return self._policies[key]


@dataclass(frozen=True, slots=True)
class _PolicyFacts:
    """What of a policy matters here; policies are immutable, so this is kept."""

    language: str = "en"
    blocking: bool = False
    prompts_per_hour: int = 0
    private: Mapping[str, bool] = field(default_factory=dict)

    @classmethod
    def of(cls, policy: Policy) -> _PolicyFacts:
        rules = build_rules(policy)
        return cls(
            language=policy.language,
            blocking=any(active.spec.block and active.spec.mode == "enforce" for active in rules),
            prompts_per_hour=policy.limits.prompts_per_hour,
            private={active.name: active.rule.private for active in rules},
        )


def _prepared(action: Mapping[str, Any]) -> bool:
    """Whether the page may show it: an annotation goes back only once Label Studio confirmed what it says."""
    target = action["target"] or {}
    return not target.get("denied") if action["kind"] != "rework" else bool(target.get("verified"))


def _unconfirmed(action: Mapping[str, Any]) -> bool:
    """Whether an action says something of an annotation that nobody has compared with Label Studio."""
    target = action["target"] or {}
    told = action["annotation"] is not None and "updated_at" in target
    return told and not (target.get("confirmed") or target.get("verified"))


def _own(row: dict[str, Any] | None, annotator: int, project: int) -> dict[str, Any] | None:
    """An annotation, where the annotator saved it themself."""
    if row is None or row["project"] != project or row["deleted_at"] is not None:
        return None
    return row if row["updated_by"] == annotator else None


def _grouped(
    conn: sa.Connection, project: int, annotator: int, asked: Mapping[str, Any] | None
) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Standing actions by finding: those about the asked annotation first, then the oldest."""
    found: dict[int, dict[int, dict[str, Any]]] = {}
    batches = [records.list_actions(conn, project=project, annotator=annotator, states=STANDING, limit=200)]
    if asked is not None:
        own = records.list_actions(
            conn, project=project, annotator=annotator, annotation=asked["id"], states=STANDING, limit=50
        )
        batches.insert(0, own)
    for batch in batches:
        for action in batch:
            if action["kind"] in KINDS:
                found.setdefault(action["finding"], {})[action["id"]] = action
    for finding, actions in found.items():
        yield finding, list(actions.values())
