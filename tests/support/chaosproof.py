"""What must hold after any number of kills, looked up in the store and in what Label Studio got.

Two oracles say which findings there must be: the generator itself, which knows what each save broke; and a
labelguard that takes the same deliveries in the same order in one piece.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from chaosfleet import ENGINE, Fleet
from chaosforge import PATIENCE
from chaosload import GOLD, OWN, Load, Version
from chaosstudio import AFTER_APPLYING, Effect
from labelguard.engine import Engine
from labelguard.events import Event
from labelguard.store import Store, records, schema

Row = dict[str, Any]

CHANGED = "The annotation is not what was judged any more; it was judged again as it is now."
GONE = "The annotation is gone from Label Studio."
NO_PAUSES = "Label Studio Community cannot pause an annotator; speak with them instead."
ENDED = ("done", "failed", "undone", "rejected")


@dataclass
class Kept:
    """Everything a store holds, read at once."""

    inbox: list[Row]
    findings: list[Row]
    actions: list[Row]
    states: dict[tuple[int, str, str], Any]
    versions: dict[int, Version]
    """By version id."""
    authors: dict[int, tuple[int | None, int | None]]
    """(completed_by, editor) by version id."""

    @classmethod
    def of(cls, store: Store) -> Kept:
        """Read a store."""
        v, a, s = schema.annotation_versions, schema.annotations, schema.rule_states
        with store.read() as conn:

            def rows(query: Any) -> list[Row]:
                return [dict(row) for row in conn.execute(query).mappings()]

            joined = sa.select(v.c.id, v.c.updated_at, v.c.editor, a.c.id.label("a"), a.c.created_at, a.c.completed_by)
            versions = rows(joined.join(a, a.c.row == v.c.annotation_row))
            return cls(
                inbox=rows(sa.select(schema.inbox).order_by(schema.inbox.c.id)),
                findings=rows(sa.select(schema.findings).order_by(schema.findings.c.id)),
                actions=rows(sa.select(schema.actions).order_by(schema.actions.c.id)),
                states={(r["project"], r["rule"], r["subject"]): r["state"] for r in rows(sa.select(s))},
                versions={r["id"]: (r["a"], r["created_at"], r["updated_at"]) for r in versions},
                authors={r["id"]: (r["completed_by"], r["editor"]) for r in versions},
            )

    def overtaken(self) -> set[Version]:
        """Versions that came in after a later one of the same annotation: history never goes back."""
        newest: dict[tuple[int, datetime], datetime] = {}
        late = set()
        for row in self.inbox:
            for one in Event.from_delivery({}, row["body"]).annotations:
                if one.created_at is None or one.updated_at is None:
                    continue
                about = (one.id, one.created_at)
                if one.updated_at < newest.get(about, one.updated_at):
                    late.add((*about, one.updated_at))
                newest[about] = max(one.updated_at, newest.get(about, one.updated_at))
        return late

    def said(self, gone: Iterable[int] = ()) -> Counter[str]:
        """The findings by everything that they say, but for those about some annotations."""
        lost = set(gone)
        return Counter(
            json.dumps(
                [
                    f["project"],
                    f["rule"],
                    [str(part) for part in self.versions.get(f["version_id"], ())],
                    f["task"],
                    f["annotator"],
                    f["message"],
                    f["feedback"],
                    {key: value for key, value in f["evidence"].items() if key != "not_done"},
                ],
                sort_keys=True,
            )
            for f in self.findings
            if f["annotation"] not in lost
        )


def uninterrupted(folder: Path, kept: Kept, store: Store) -> Kept:
    """What one labelguard makes of the same deliveries in the same order, in one piece."""
    with store.read() as conn:
        copied = [
            (table, [dict(row) for row in conn.execute(sa.select(table)).mappings()])
            for table in (schema.projects, schema.policies, schema.gold)
        ]
    oracle = Store.open(f"sqlite:///{folder / 'uninterrupted.sqlite3'}", durable=False)
    try:

        def prepare(conn: sa.Connection) -> None:
            for table, rows in copied:
                if rows:
                    conn.execute(sa.insert(table), rows)

        oracle.write(prepare)
        engine = Engine(oracle, lambda: datetime.now(UTC), own_user=OWN)
        for row in kept.inbox:
            engine.receive(row["project"], Event.from_delivery({}, row["body"]), row["origin"])
        engine.process_pending()
        return Kept.of(oracle)
    finally:
        oracle.close()


@dataclass
class Proof:
    """The checks; each adds sentences to ``problems``."""

    load: Load
    fleet: Fleet
    kept: Kept
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.effects: Mapping[str, list[Effect]] = defaultdict(list)
        for effect in self.load.studio.effects:
            self.effects[effect.kind].append(effect)

    def must(self, holds: bool, problem: str) -> None:
        """Remember what does not hold."""
        if not holds:
            self.problems.append(problem)

    # Deliveries and findings

    def deliveries(self) -> None:
        """Each delivery that was answered 2xx is kept once and was processed."""
        known: dict[tuple[int, str], list[Row]] = defaultdict(list)
        for row in self.kept.inbox:
            known[(row["project"], row["digest"].split(":")[0])].append(row)
            self.must(row["state"] == "done", f"delivery {row['id']} is {row['state']}: {row['error']}")
        there = set(self.kept.versions.values())
        overtaken = self.kept.overtaken()
        sent = set()
        for delivery in self.load.deliveries:
            key = (delivery.project, delivery.digest)
            sent.add(key)
            rows = known[key]
            ids = {row["id"] for row in rows}
            self.must(not [s for s in delivery.refused if s != 503], f"{delivery.what} was refused: {delivery.refused}")
            if delivery.receipts:
                told = {receipt["delivery"] for receipt in delivery.receipts}
                self.must(told <= ids, f"{delivery.what} was answered with {told} and is kept as {ids}")
                for version in delivery.versions:
                    lost = version not in there and version not in overtaken and version[0] not in self.load.gone
                    self.must(not lost, f"version {version} was answered and is not there")
            most = delivery.attempts if delivery.what == "ANNOTATIONS_DELETED" else 1
            self.must(len(rows) <= most, f"{delivery.what} is kept {len(rows)} times")
        for (project, digest), rows in known.items():
            own = [row for row in rows if row["origin"] == "webhook"]
            self.must(not own or (project, digest) in sent, f"delivery {own} was never sent")

    def findings(self) -> None:
        """Each version has the findings that its labels ask for, and none twice."""
        found: Counter[int] = Counter()
        for finding in self.kept.findings:
            self.must(finding["severity"] != "error" or "exclu" in finding["message"], finding["message"])
            if finding["rule"] == "label-constraints":
                found[finding["version_id"]] += 1
        for number, version in self.kept.versions.items():
            wanted = self.load.expected.get(version)
            if wanted is not None and (version[0] not in self.load.gone or found[number] > wanted):
                self.must(found[number] == wanted, f"version {version} has {found[number]} findings, not {wanted}")

    def as_in_one_piece(self, other: Kept) -> None:
        """Findings, planned actions and the memory of sequential tests are those of an uninterrupted service."""
        mine, theirs = self.kept.said(self.load.gone), other.said(self.load.gone)
        for text, count in ((mine - theirs) + (theirs - mine)).items():
            self.problems.append(f"{mine[text]} instead of {theirs[text]} times ({count}): {text[:300]}")
        for key in {*self.kept.states, *other.states}:
            same = self.kept.states.get(key) == other.states.get(key)
            self.must(same or key[0] != GOLD, f"the memory {key} differs from that of an uninterrupted service")
        self.must(any(key[0] == GOLD for key in other.states), "no sequential test remembers anything")
        planned, should = _planned(self.kept), _planned(other)
        for what in (planned - should) + (should - planned):
            if what[2] not in self.load.gone:
                self.problems.append(f"planned {planned[what]} instead of {should[what]} times: {what}")

    def in_step(self) -> None:
        """Every annotation that Label Studio has is known as it is there."""
        latest: dict[tuple[int, datetime], datetime] = {}
        for number, made, saved in self.kept.versions.values():
            latest[(number, made)] = max(saved, latest.get((number, made), saved))
        for raw in self.load.studio.annotations.values():
            made, saved = (datetime.fromisoformat(raw[key]) for key in ("created_at", "updated_at"))
            self.must(latest.get((raw["id"], made)) == saved, f"annotation {raw['id']} of {saved} is not known")

    # Effects

    def actions(self) -> None:
        """Every action came to its end, and its effect happened exactly once; nothing else happened."""
        allowed = [None, CHANGED, GONE]
        if not self.load.studio.enterprise:
            allowed.append(NO_PAUSES)
        for action in self.kept.actions:
            waiting = action["kind"] in ("prompt", "rework") and (action["target"] or {}).get("delivered")
            ended = action["state"] in ENDED or action["state"] == "proposed" or waiting
            self.must(bool(ended), f"action {_about(action)} is {action['state']}: {action['error']}")
            plain = action["error"] in allowed or action["state"] == "rejected"
            self.must(plain, f"action {_about(action)} ended with {action['error']}")
        self._replaced()
        self._second_opinions()
        self._commented()
        self._noted()
        self._assigned()
        self._paused()
        self._alerts()

    def of_kind(self, kind: str, *states: str) -> list[Row]:
        """The actions of a kind in some states."""
        return [a for a in self.kept.actions if a["kind"] == kind and (not states or a["state"] in states)]

    def once(self, kind: str, wanted: Iterable[Any], possible: Iterable[Any]) -> None:
        """Each wanted effect happened exactly once, each possible one at most once, no other at all."""
        count = Counter(effect.about for effect in self.effects[kind])
        may = set(possible)
        for about in wanted:
            self.must(count[about] == 1, f"{kind} of {about} happened {count[about]} times")
        for about, times in count.items():
            self.must(about in may, f"{kind} of {about} was wanted by nobody")
            self.must(times == 1, f"{kind} of {about} happened {times} times")

    def _replaced(self) -> None:
        done = [(a["annotation"],) for a in self.of_kind("replace", "done")]
        self.once("cancel", done, [(a["annotation"],) for a in self.of_kind("replace")])
        for (number,) in done:
            raw = self.load.studio.annotations.get(number)
            self.must(raw is None or raw["updated_by"] != OWN or raw["was_cancelled"], f"{number} is not a skip")

    def _second_opinions(self) -> None:
        asked = {a["task"]: a["target"]["overlap"] for a in self.of_kind("second-opinion", "done")}
        may = {a["task"] for a in self.of_kind("second-opinion")}
        for task, overlap in asked.items():
            self.must(self.load.studio.tasks[task]["overlap"] == overlap, f"the overlap of {task} is not {overlap}")
        count = Counter((e.about[0], e.content) for e in self.effects["overlap"])
        for (task, content), times in count.items():
            self.must(task in may and times == 1, f"the overlap of {task} was set to {content} {times} times")
        self.must(len(count) >= len(asked), "an overlap was never set")

    def _commented(self) -> None:
        marked = Counter(_marker(e) for e in self.effects["comment"])
        for action in self.of_kind("prompt"):
            marker = f"labelguard {action['finding']}"
            # Said before the effect: one that was refused in between, for its annotation had changed, has none.
            if (action["target"] or {}).get("commented") and not action["error"]:
                self.must(marked[marker] == 1, f"{marker} was commented {marked[marker]} times")
            self.must(marked.pop(marker, 0) <= 1, f"{marker} was commented more than once")
        self.must(not marked, f"comments that nobody wanted: {marked}")
        over = {f["id"] for f in self.kept.findings if f["state"] == "dismissed"}
        over |= {a["finding"] for a in self.of_kind("prompt", "done", "rejected", "undone")}
        early = {_marker(e) for e in self.effects["resolve"]} - {f"labelguard {finding}" for finding in over}
        self.must(not early, f"comments that were resolved too early: {early}")

    def _noted(self) -> None:
        wanted = [a["task"] for a in self.of_kind("prompt") if (a["target"] or {}).get("noted") and not a["error"]]
        count = Counter(e.about[0] for e in self.effects["note"] if e.content)
        for task in wanted:
            self.must(count[task] == 1, f"the note of task {task} was written {count[task]} times")
        self.must(set(count) <= {a["task"] for a in self.of_kind("prompt")}, "a note that nobody wanted")

    def _assigned(self) -> None:
        if not self.load.studio.enterprise:
            self.must(not self.effects["assign"], "Community assigned somebody")
            return
        done = [(a["task"],) for a in self.of_kind("escalate", "done")]
        self.once("assign", done, [(a["task"],) for a in self.of_kind("escalate")])

    def _paused(self) -> None:
        if not self.load.studio.enterprise:
            self.must(not self.effects["pause"], "Community paused somebody")
            return
        done = {(a["project"], a["annotator"]) for a in self.of_kind("pause", "done")}
        self.once("pause", done, done)

    def _alerts(self) -> None:
        """Every message arrived; again only where its receiver or the sender was lost before it was recorded."""
        arrived: dict[tuple[str, str], list[Effect]] = defaultdict(list)
        for effect in self.effects["alert"]:
            self.must(bool(effect.sender), f"nobody knows who sent {effect.content}")
            arrived[(effect.about[0], _key(effect.content[1]))].append(effect)
        for action in [*self.of_kind("notify"), *self.of_kind("escalate")]:
            for name in (action["target"] or {}).get("sent", ()):
                finding = next(f for f in self.kept.findings if f["id"] == action["finding"])
                got = arrived.pop((name, _key(self._words(finding))), [])
                self.must(bool(got), f"{name} never heard of {_about(action)}")
                for first, again in pairwise(got):
                    # What was sent is recorded within the time that an effect may take; on a busy machine that is
                    # seconds. It may arrive after its sender was killed. Whoever judges beside it sends nothing.
                    lost = first.fault in AFTER_APPLYING or any(
                        kill.started == first.sender and kill.at <= min(again.at, first.at + PATIENCE["IN_FLIGHT"])
                        for kill in self.fleet.kills
                        if kill.why != ENGINE
                    )
                    self.must(lost, f"{name} heard twice of {_about(action)} for no reason")
            sent = (action["target"] or {}).get("sent", ())
            self.must(action["state"] != "done" or len(sent) >= 1, f"{_about(action)} is done and nobody was told")
        self.must(not arrived, f"alerts that nobody wanted: {list(arrived)[:3]}")

    def _words(self, finding: Row) -> str:
        return f"{finding['message']}\n\nTask: {finding['task']} annotation={finding['annotation']}"


def _key(words: str) -> str:
    """What tells a message from all others: its sentence, its task and its annotation."""
    sentence = words.split("\n", 1)[0]
    task = re.search(r"Task: (\d+)", words)
    annotation = re.search(r"annotation=(\d+)", words)
    return f"{sentence}|{task and task[1]}|{annotation and annotation[1]}"


def _marker(effect: Effect) -> str:
    found = re.search(r"labelguard \d+", effect.content)
    return found[0] if found else effect.content


def _planned(kept: Kept) -> Counter[tuple[Any, ...]]:
    """The planned actions that do not depend on how far others have come."""
    about = {f["id"]: f for f in kept.findings}
    return Counter(
        (a["kind"], kept.versions.get(about[a["finding"]]["version_id"]), a["annotation"], a["task"], a["annotator"])
        for a in kept.actions
        if a["kind"] != "second-opinion"
    )


def _about(action: Mapping[str, Any]) -> str:
    return f"{action['kind']} {action['id']} (task {action['task']}, annotation {action['annotation']})"


def proved(load: Load, fleet: Fleet, kept: Kept, other: Kept) -> list[str]:
    """Everything that does not hold, as sentences."""
    proof = Proof(load, fleet, kept)
    proof.deliveries()
    proof.findings()
    proof.as_in_one_piece(other)
    proof.in_step()
    proof.actions()
    return [*fleet.surprises, *proof.problems]


def settled(store: Store) -> bool:
    """Whether nothing waits any more: no delivery to be processed, no action to be delivered."""
    pending = sa.select(sa.func.count()).select_from(schema.inbox).where(schema.inbox.c.state == "pending")
    with store.read() as conn:
        if conn.scalar(pending):
            return False
        waiting = records.list_actions(conn, states=("approved", "delivering"))
    return not any(a["kind"] not in ("prompt", "rework") or not (a["target"] or {}).get("delivered") for a in waiting)


def missed(load: Load, store: Store) -> list[str]:
    """Annotations of Label Studio that a store does not know as they are."""
    proof = Proof(load, Fleet(Path(), {}), Kept.of(store))
    proof.in_step()
    return proof.problems


def figures(load: Load, fleet: Fleet, kept: Kept) -> dict[str, Any]:
    """What happened, in numbers."""
    faults = Counter(e.fault for e in load.studio.effects if e.fault)
    return {
        "deliveries answered": sum(bool(d.receipts) for d in load.deliveries),
        "answers": sum(len(d.receipts) for d in load.deliveries),
        "requests without an answer": sum(d.unanswered for d in load.deliveries),
        "inbox": dict(Counter(row["origin"] for row in kept.inbox)),
        "findings": len(kept.findings),
        "actions": dict(Counter(f"{a['kind']} {a['state']}" for a in kept.actions)),
        "effects": dict(Counter(e.kind for e in load.studio.effects)),
        "applied and not told": dict(faults),
        "kills": dict(fleet.tally()),
    }


__all__: Sequence[str] = ("Kept", "Proof", "figures", "missed", "proved", "settled", "uninterrupted")
