"""Erasing an annotator: who they were goes, what the labels say stays.

Their id becomes a negative one that stands for nobody, everywhere at once, so that statistics about labels stay
right; their name, address and words go. It is done in small transactions which can be begun anew at any time,
so that no delivery waits for it and a crash in the middle does no harm.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from labelguard.planning import STANDING
from labelguard.retention import GONE
from labelguard.store import Store, records
from labelguard.store.schema import (
    actions,
    annotation_versions,
    annotations as annotations_table,
    annotators,
    cursors,
    erasures,
    findings,
    inbox,
    judgments,
    policies,
    rule_states,
)

_SPAN = 20_000
"""Rows looked through at a time."""
_BATCH = 500
"""Rows of one transaction; also what one statement may name."""

_KEYS = 300
"""Keys of three columns that one statement names."""

_WORDS = re.compile(r"[a-z]+")
_PEOPLE = frozenset(
    {"annotator", "annotators", "author", "authors", "by", "editor", "entered", "excess", "members", "others", "peer"}
    | {"peers", "people", "person", "reviewer", "reviewers", "totals", "user", "users", "who"}
)
"""Words in the names of fields that hold people's ids, in deliveries, evidence and what rules remember."""

_WHOSE: tuple[tuple[sa.Table, sa.Column[Any], tuple[str, ...]], ...] = (
    (annotations_table, annotations_table.c.row, ("completed_by", "updated_by")),
    (annotation_versions, annotation_versions.c.id, ("editor",)),
    (judgments, judgments.c.id, ("annotator",)),
)
"""Tables in which nothing but ids tells whose a row is."""


class UnknownAnnotator(ValueError):
    """There is nobody to erase; the message is a sentence."""


@dataclass(frozen=True, slots=True)
class Person:
    """Whom to erase, and who they are afterwards."""

    id: int
    name: str
    email: str
    pseudonym: int

    @property
    def said(self) -> str:
        """What stands in texts in place of their name."""
        return f"annotator {self.pseudonym}"


@dataclass(slots=True)
class Erased:
    """How much was, or would be, changed."""

    annotator: int
    pseudonym: int
    annotations: int = 0
    annotation_versions: int = 0
    judgments: int = 0
    findings: int = 0
    words: int = 0
    """Notes and disputes that were emptied."""
    actions: int = 0
    stopped: int = 0
    """Actions about them that were still to happen, and now will not."""
    memories: int = 0
    deliveries: int = 0
    """Deliveries that lost their body."""
    policies: int = 0
    """Older policy versions that named them."""
    named_in: tuple[str, ...] = ()
    """Policies in use that name them: for a person to change."""

    def counts(self) -> dict[str, int]:
        """The numbers by what they count."""
        names = ("annotations", "annotation_versions", "judgments", "findings", "words", "actions", "stopped")
        return {name: getattr(self, name) for name in (*names, "memories", "deliveries", "policies")}


def find(conn: sa.Connection, who: str) -> Person:
    """The annotator of an id or address, with the id they get.

    Raises:
        UnknownAnnotator: there is none.
    """
    known = annotators.c.id == int(who) if who.isdigit() else sa.func.lower(annotators.c.email) == who.lower()
    rows = conn.execute(sa.select(annotators).where(known, annotators.c.id > 0)).mappings().all()
    if not rows:
        earlier = who.isdigit() and conn.scalar(sa.select(erasures.c.erased_at).where(erasures.c.annotator == int(who)))
        if earlier:
            raise UnknownAnnotator(f"Annotator {who} was erased on {earlier:%Y-%m-%d}; nothing is known of them.")
        raise UnknownAnnotator(f"No annotator {who} is known.")
    if len(rows) > 1:
        ids = ", ".join(str(row["id"]) for row in rows)
        raise UnknownAnnotator(f"{who} is the address of several annotators ({ids}); name one by id.")
    (row,) = rows
    begun = records.get_cursor(conn, _marker(row["id"]))
    lowest = conn.scalar(sa.select(sa.func.min(annotators.c.id))) or 0
    return Person(row["id"], row["name"], row["email"], int(begun) if begun else min(lowest, 0) - 1)


def erase(store: Store, person: Person, *, clock: Callable[[], datetime], by: str, dry_run: bool = False) -> Erased:
    """Erase an annotator, or with ``dry_run`` count what would be changed.

    Raises:
        StoreError: the store cannot be written; erasing again goes on where it stopped.
    """
    done = Erased(person.id, person.pseudonym)
    work = _Work(store, person, clock, dry_run)
    if not dry_run:
        store.write(lambda conn: _begin(conn, person, clock()))
    for table, key, columns in _WHOSE:
        setattr(done, table.name, work.swap(table, key, columns))
    work.findings(done)
    work.actions(done)
    work.memories(done)
    work.deliveries(done)
    work.policies(done)
    if not dry_run:
        store.write(lambda conn: _end(conn, person, clock(), by))
    return done


def _marker(annotator: int) -> str:
    return f"erasing:{annotator}"


def _begin(conn: sa.Connection, person: Person, now: datetime) -> None:
    records.set_cursor(conn, _marker(person.id), person.pseudonym, now)
    values = {"id": person.pseudonym, "email": "", "name": "", "active": False}
    conn.execute(insert(annotators).values(values).on_conflict_do_nothing())


def _end(conn: sa.Connection, person: Person, now: datetime, by: str) -> None:
    conn.execute(sa.delete(annotators).where(annotators.c.id == person.id))
    conn.execute(sa.delete(cursors).where(cursors.c.name == _marker(person.id)))
    values = {"erased_at": now, "erased_by": by}
    conn.execute(
        insert(erasures)
        .values(annotator=person.id, **values)
        .on_conflict_do_update(index_elements=["annotator"], set_=values)
    )


class _Work:
    """The parts of one erasure."""

    def __init__(self, store: Store, person: Person, clock: Callable[[], datetime], dry_run: bool) -> None:
        self._store = store
        self._person = person
        self._clock = clock
        self._dry_run = dry_run
        self._redact = _Redactor(person)

    def _write(self, job: Callable[[sa.Connection], Any]) -> None:
        if not self._dry_run:
            self._store.write(job)

    def swap(self, table: sa.Table, key: sa.Column[Any], columns: Sequence[str]) -> int:
        """Put the pseudonym in the id's place; returns how many rows had it."""
        person = self._person
        whose = sa.or_(*(table.c[name] == person.id for name in columns))
        count = 0
        for first, last in self._spans(key):
            with self._store.read() as conn:
                ids = list(conn.scalars(sa.select(key).where(key > first, key <= last, whose)))
            count += len(ids)
            for some in _chunks(ids):

                def job(conn: sa.Connection, some: list[int] = some) -> None:
                    for name in columns:
                        mine = sa.update(table).where(key.in_(some), table.c[name] == person.id)
                        conn.execute(mine.values({name: person.pseudonym}))

                self._write(job)
        return count

    def _spans(self, key: sa.Column[Any]) -> Iterator[tuple[int, int]]:
        with self._store.read() as conn:
            newest = conn.scalar(sa.select(sa.func.max(key))) or 0
        for first in range(0, newest, _SPAN):
            yield first, first + _SPAN

    def _rows(self, table: sa.Table, key: sa.Column[Any], *columns: sa.Column[Any]) -> Iterator[sa.Row[Any]]:
        """All rows of a table that may name them, few at a time."""
        after = 0
        while True:
            query = sa.select(key, *columns).where(key > after).order_by(key).limit(_BATCH)
            with self._store.read() as conn:
                rows = conn.execute(query).all()
            yield from rows
            if len(rows) < _BATCH:
                return
            after = rows[-1][0]

    def findings(self, done: Erased) -> None:
        """Those about them lose their words; in all of them their name and id are replaced."""
        f, person = findings.c, self._person
        columns = (f.annotator, f.message, f.evidence, f.feedback, f.note, f.state_by)
        for row in self._rows(findings, f.id, *columns):
            values = {name: self._redact(name, getattr(row, name)) for name in ("message", "evidence", "feedback")}
            values |= {"note": self._redact("note", row.note), "state_by": self._redact("state_by", row.state_by)}
            if row.annotator == person.id:
                values |= {"annotator": person.pseudonym, "note": ""}
                done.words += bool(row.note)
            changed = {name: value for name, value in values.items() if getattr(row, name) != value}
            if changed:
                done.findings += 1
                self._write(_updating(findings, f.id, row.id, changed))

    def actions(self, done: Erased) -> None:
        """Those about them that were still to happen do not."""
        a, person = actions.c, self._person
        for row in self._rows(actions, a.id, a.annotator, a.state, a.target, a.undo, a.error, a.decided_by):
            names = ("target", "undo", "error", "decided_by")
            values = {name: self._redact(name, getattr(row, name)) for name in names}
            if row.annotator == person.id:
                values["annotator"] = person.pseudonym
                if row.state in STANDING and row.state != "done":
                    values |= {"state": "rejected", "error": "The annotator was erased.", "next_at": None}
                    done.stopped += 1
            changed = {name: value for name, value in values.items() if getattr(row, name, None) != value}
            if changed:
                done.actions += 1
                self._write(_updating(actions, a.id, row.id, {**changed, "updated_at": self._clock()}))

    def memories(self, done: Erased) -> None:
        """What rules remember of them is remembered of the pseudonym."""
        r = rule_states.c
        with self._store.read() as conn:
            keys = [tuple(row) for row in conn.execute(sa.select(r.project, r.rule, r.subject))]
        for start in range(0, len(keys), _KEYS):
            # Not while the engine changes what was read here.
            with self._store.exclusive("engine"):
                done.memories += self._remember_otherwise(keys[start : start + _KEYS])

    def _remember_otherwise(self, keys: Sequence[tuple[int, str, str]]) -> int:
        r = rule_states.c
        key = sa.tuple_(r.project, r.rule, r.subject)
        with self._store.read() as conn:
            rows = conn.execute(sa.select(r.project, r.rule, r.subject, r.state).where(key.in_(keys))).all()
        changes = []
        for row in rows:
            subject, state = self._subject(row.subject), self._redact("", row.state)
            if (subject, state) != (row.subject, row.state):
                changes.append(((row.project, row.rule, row.subject), subject, state))

        def job(conn: sa.Connection) -> None:
            now = self._clock()
            for (project, rule, before), subject, state in changes:
                whose = (r.project == project, r.rule == rule)
                conn.execute(sa.delete(rule_states).where(*whose, r.subject.in_((before, subject))))
                values = {"project": project, "rule": rule, "subject": subject, "state": state, "updated_at": now}
                conn.execute(sa.insert(rule_states).values(values))

        if changes:
            self._write(job)
        return len(changes)

    def _subject(self, subject: str) -> str:
        """``annotator:7`` and ``annotator:7:topics``, about the pseudonym."""
        words = subject.split(":")
        if words[0] != "annotator" or words[1:2] != [str(self._person.id)]:
            return subject
        return ":".join(["annotator", str(self._person.pseudonym), *words[2:]])

    def deliveries(self, done: Erased) -> None:
        """Bodies that name them go; the digest stays, so that a redelivery is still known."""
        i = inbox.c
        for row in self._rows(inbox, i.id, i.body, i.state):
            if not row.body or self._redact("", row.body) == row.body:
                continue
            done.deliveries += 1
            values: dict[str, Any] = {"body": dict(GONE)}
            if row.state in ("pending", "failed"):
                # Without its body nobody can process it; what it told is read from Label Studio.
                values |= {"state": "ignored", "error": "The body was removed with its annotator."}
            self._write(_updating(inbox, i.id, row.id, values))

    def policies(self, done: Erased) -> None:
        """Older versions name the pseudonym instead; the one in use is for a person to change."""
        with self._store.read() as conn:
            rows = [dict(row) for row in conn.execute(sa.select(policies).order_by(policies.c.version)).mappings()]
        newest = {row["project"]: row["version"] for row in rows}
        named = []
        for row in rows:
            text = self._redact.address(row["text"])
            by = self._redact("applied_by", row["applied_by"])
            if row["version"] == newest[row["project"]]:
                if text != row["text"]:
                    named.append(f"version {row['version']} of project {row['project']}'s policy")
                text = row["text"]
            if (text, by) != (row["text"], row["applied_by"]):
                done.policies += 1
                self._write(_updating(policies, policies.c.id, row["id"], {"text": text, "applied_by": by}))
        done.named_in = tuple(named)


class _Redactor:
    """Replaces a person in texts and JSON values."""

    def __init__(self, person: Person) -> None:
        self._person = person
        names = [re.escape(name) for name in (person.email, person.name) if name]
        numbered = rf"annotator {person.id}(?!\d)"
        self._said = re.compile("|".join([*names, numbered]), re.IGNORECASE)
        self._address = re.compile(re.escape(person.email), re.IGNORECASE) if person.email else None

    def __call__(self, name: str, value: Any) -> Any:
        """The value of a field with that name, without the person."""
        return self._replaced(value, people=_about_people(name), below=False)

    def address(self, text: str) -> str:
        """A text without their address."""
        return self._address.sub(f"erased{self._person.pseudonym}", text) if self._address else text

    def _replaced(self, value: Any, *, people: bool, below: bool) -> Any:
        """``people``: the field's name says that it holds people; ``below``: one further out does."""
        if isinstance(value, str):
            return self._said.sub(self._person.said, value)
        if type(value) is int:
            return self._person.pseudonym if people and value == self._person.id else value
        if isinstance(value, list):
            return [self._replaced(inner, people=people, below=below) for inner in value]
        if isinstance(value, Mapping):
            below = below or people
            # Counts by person stand innermost; what stands further out may be a label that is a number.
            keyed = below and all(type(inner) in (int, float) for inner in value.values())
            return {
                self._key(str(key), keyed): self._replaced(
                    inner, people=_about_people(str(key)) or (people and key == "id"), below=below
                )
                for key, inner in value.items()
            }
        return value

    def _key(self, key: str, keyed: bool) -> str:
        if keyed and key == str(self._person.id):
            return str(self._person.pseudonym)
        return self._said.sub(self._person.said, key)


def _about_people(name: str) -> bool:
    return not _PEOPLE.isdisjoint(_WORDS.findall(name.lower()))


def _updating(table: sa.Table, key: sa.Column[Any], row: int, values: Mapping[str, Any]) -> Callable[[Any], None]:
    def job(conn: sa.Connection) -> None:
        conn.execute(sa.update(table).where(key == row).values(dict(values)))

    return job


def _chunks(ids: Sequence[int]) -> Iterator[list[int]]:
    for start in range(0, len(ids), _BATCH):
        yield list(ids[start : start + _BATCH])
