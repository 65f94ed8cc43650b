"""The additive summary that a sweep reads: what was said and measured, by annotator, day and stratum.

A panel of a shard of whole tasks is made once; panels are added, subtracted and kept as Arrow bytes, and a sweep over
a sum gives what a sweep over all judgments gives. So a nightly sweep reads again only the tasks that changed.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from labelguard_analytics.changes.cells import DAYS, LABELS, WHO, Cells, Ints, Pile, stratum_of
from labelguard_analytics.changes.consensus import Votes, of_others
from labelguard_analytics.changes.measures import EXTRA, MEASURES
from labelguard_analytics.frames import BadJudgments, Coded, Floats, encode, kind_of, read

_VERSION = 1
SHORTEST, LONGEST = 1.0, 3600.0
"""Durations count from one second to one hour: what is longer is a break rather than work."""

Who = tuple[Any, Any, Any]
"""Annotator, source and cohort; None where a judgment has none."""


@dataclass(frozen=True)
class Block:
    """The votes of a shard, which the look without suspects needs: their consensus is worked out again."""

    tasks: pd.Index[Any]
    """Every task once, sorted."""
    votes: Votes
    who: Ints
    day: Ints

    def of_tasks(self, kept: npt.NDArray[np.bool_]) -> Block:
        """The votes of some of the tasks."""
        judgments = kept[self.votes.task]
        entries = judgments[self.votes.row]
        place = np.cumsum(kept) - 1
        row = np.cumsum(judgments) - 1
        votes = Votes(
            place[self.votes.task[judgments]],
            row[self.votes.row[entries]],
            self.votes.label[entries],
            int(kept.sum()),
            self.votes.labels,
        )
        return Block(self.tasks[kept], votes, self.who[judgments], self.day[judgments])

    def renumbered(self, who: Ints, label: Ints, labels: int) -> Block:
        """The same with new codes."""
        votes = replace(self.votes, label=label[self.votes.label], labels=labels)
        return Block(self.tasks, votes, who[self.who], self.day)

    def has(self, tasks: pd.Index[Any]) -> npt.NDArray[np.bool_]:
        """Which of these tasks are in this block."""
        if not len(self.tasks):
            return np.zeros(len(tasks), dtype=bool)
        at = np.minimum(self.tasks.searchsorted(tasks), len(self.tasks) - 1)
        return np.asarray(self.tasks[at] == tasks)


@dataclass(frozen=True)
class Panel:
    """What a shard of whole tasks contributes to a sweep.

    What is exact and what is not: the sums, and so every sweep over them, do not depend on how judgments are cut
    into shards. Time is kept by the day, so experience is that of a typical judgment of its day.

    >>> frame = pd.DataFrame({"task": [1, 1, 2, 2], "annotator": ["ann", "bob"] * 2, "value": list("aaab"),
    ...                       "at": pd.Timestamp("2026-01-05")})
    >>> first, second = Panel.of(frame[frame.task == 1]), Panel.of(frame[frame.task == 2])
    >>> both = Panel.from_bytes((first + second).to_bytes())
    >>> both.n_judgments, (both - second).n_judgments
    (4, 2)
    """

    labels: pd.Index[Any]
    who: tuple[Who, ...]
    """Every combination of annotator, source and cohort, sorted."""
    columns: frozenset[str]
    """The optional columns that the judgments have."""
    said: Pile
    """How often which label was given: by who, day, stratum and label."""
    measured: Mapping[str, Pile]
    """For each measure but shares: judgments, sum and sum of squares, by who, day and stratum. The stratum is that
    of the consensus of others, for accuracy that of the known answer. ``agreement`` has all judgments."""
    blocks: tuple[Block, ...]
    memory: dict[frozenset[str], tuple[Any, int]] = field(default_factory=dict, repr=False, compare=False)
    """What the last sweep summed by period, and the first day since 1970 with judgments that came or went since."""

    @classmethod
    def of(cls, judgments: pd.DataFrame | Coded) -> Panel:
        """Summarise a shard of whole tasks; all judgments of a task must be in the same shard.

        Args:
            judgments: columns ``task``, ``annotator``, ``at`` and ``value`` (a label, or a list of labels);
                optionally ``source``, ``cohort``, ``gold``, ``duration``, ``confidence``, ``disputed`` (whether the
                annotator or somebody else contests the judgment) and ``corrected`` (whether a reviewer changed it).

        Raises:
            BadJudgments: the frame is not what it must be.
        """
        coded = _read(judgments)
        votes = _votes(coded)
        who, names = _who(coded)
        day = _day(coded)
        consensus, agreed = of_others(votes)
        stratum = stratum_of(consensus, agreed)
        block = Block(coded.tasks, votes, who, day)
        measured = {"agreement": Pile.of(_agreement(block, consensus, stratum))}
        for name, measure in MEASURES.items():
            if measure.column and measure.column in coded.frame.columns:
                value, strata = _values(coded, name, votes, stratum)
                some = ~np.isnan(value)
                measured[name] = Pile.of(_sums(who[some], day[some], strata[some], value[some]))
        columns = frozenset(str(column) for column in coded.frame.columns) - {"task", "annotator", "value", "at"}
        return cls(coded.categories, names, columns, Pile.of(_said(block, stratum)), measured, (block,))

    @property
    def judged(self) -> Pile:
        """All judgments."""
        return self.measured["agreement"]

    @property
    def n_judgments(self) -> int:
        """The number of judgments."""
        return round(self.judged.number())

    @property
    def n_tasks(self) -> int:
        """The number of tasks."""
        return sum(len(block.tasks) for block in self.blocks)

    def __add__(self, other: Panel) -> Panel:
        if not isinstance(other, Panel):
            return NotImplemented
        for mine in self.blocks:
            for theirs in other.blocks:
                twice = mine.has(theirs.tasks)
                if twice.any():
                    raise ValueError(
                        f"The task {_plain(theirs.tasks[twice][0])!r} is in both panels; take its old panel away first."
                    )
        one, two = self._aligned(other)
        return one._joined(two, 1.0, (*one.blocks, *two.blocks))

    def __sub__(self, other: Panel) -> Panel:
        if not isinstance(other, Panel):
            return NotImplemented
        gone = sum(int(mine.has(theirs.tasks).sum()) for mine in self.blocks for theirs in other.blocks)
        if gone != other.n_tasks:
            raise ValueError("This panel cannot be taken away: some of its tasks were never part of the other.")
        one, two = self._aligned(other)
        blocks = []
        for mine in one.blocks:
            kept = np.ones(len(mine.tasks), dtype=bool)
            for theirs in two.blocks:
                kept &= ~theirs.has(mine.tasks)
            if kept.any():
                blocks.append(mine if kept.all() else mine.of_tasks(kept))
        found = one._joined(two, -1.0, tuple(blocks))
        if any(float(pile.base.sums[:, 0].min(initial=0.0)) < 0 for pile in (found.said, *found.measured.values())):
            raise ValueError("This panel cannot be taken away: its tasks were judged differently in the other.")
        return found

    def _joined(self, other: Panel, sign: float, blocks: tuple[Block, ...]) -> Panel:
        names = sorted({*self.measured, *other.measured}, key=list(MEASURES).index)
        nothing = Pile.of(Cells.empty(3))
        mine, theirs = (int(panel.judged.days().min(initial=DAYS)) for panel in (self, other))
        remembered = {by: (past, min(day, mine)) for by, (past, day) in other.memory.items()} if sign > 0 else {}
        remembered |= {by: (past, min(day, theirs)) for by, (past, day) in self.memory.items()}
        return replace(
            self,
            columns=self.columns | other.columns,
            said=self.said.plus(other.said, sign),
            measured={
                name: self.measured.get(name, nothing).plus(other.measured.get(name, nothing), sign) for name in names
            },
            blocks=blocks,
            memory=remembered,
        )

    def _aligned(self, other: Panel) -> tuple[Panel, Panel]:
        """Both with the same codes."""
        labels = _union(self.labels, other.labels)
        who = self.who
        if set(other.who) - set(self.who):
            who = tuple(sorted({*self.who, *other.who}, key=_order))
        return self._coded(labels, who), other._coded(labels, who)

    def _coded(self, labels: pd.Index[Any], who: tuple[Who, ...]) -> Panel:
        if labels is self.labels and who is self.who:
            return self
        place = {one: number for number, one in enumerate(who)}
        new_who = np.array([place[one] for one in self.who], dtype=np.int64)
        new_label = labels.get_indexer(self.labels).astype(np.int64)
        return replace(
            self,
            labels=labels,
            who=who,
            said=self.said.renumbered(new_who, new_label),
            measured={name: pile.renumbered(new_who, new_label) for name, pile in self.measured.items()},
            blocks=tuple(block.renumbered(new_who, new_label, len(labels)) for block in self.blocks),
        )

    def without(self, suspects: Collection[Any], others: Iterable[Any] = ()) -> Panel:
        """The suspects' sums of agreement and of what they said, where the consensus leaves out all other suspects.

        Everybody is compared with the others, so only tasks that a suspect shares with another one are worked out
        again. Nobody else's sums, and no votes, are in what is given.

        Args:
            suspects: whose sums are wanted.
            others: who is left out of the consensus as well.
        """
        named, doubted = set(suspects), {*suspects, *others}
        suspected, out = (np.array([one[0] in some for one in self.who], dtype=bool) for some in (named, doubted))
        theirs = np.flatnonzero(suspected)
        said, agreement = self.said.of_whom(theirs), self.judged.of_whom(theirs)
        for block in self.blocks:
            shared = np.bincount(block.votes.task[out[block.who]], minlength=len(block.tasks)) > 1
            shared &= np.bincount(block.votes.task[suspected[block.who]], minlength=len(block.tasks)) > 0
            if not shared.any():
                continue
            part = block.of_tasks(shared)
            again = suspected[part.who]
            for sign, trusted in ((-1.0, None), (1.0, ~out[part.who])):
                consensus, agreed = of_others(part.votes, trusted)
                stratum = stratum_of(consensus, agreed)
                said = said.plus(_said(part, stratum, again), sign)
                agreement = agreement.plus(_agreement(part, consensus, stratum, again), sign)
        return replace(self, said=Pile.of(said), measured={"agreement": Pile.of(agreement)}, blocks=(), memory={})

    # Storage

    def to_bytes(self) -> bytes:
        """Everything as an Arrow stream, compressed."""
        arrays: dict[str, npt.NDArray[Any]] = {}
        for name, pile in (("said", self.said), *self.measured.items()):
            cells = pile.whole
            arrays[f"{name}_key"] = cells.key
            for column in range(cells.sums.shape[1]):
                arrays[f"{name}_{column}"] = cells.sums[:, column]
        names: dict[str, list[Any]] = {"labels": [_plain(label) for label in self.labels]}
        for number, block in enumerate(self.blocks):
            names[f"tasks{number}"] = [_plain(task) for task in block.tasks]
            for part, values in (
                ("task", block.votes.task),
                ("row", block.votes.row),
                ("label", block.votes.label),
                ("who", block.who),
                ("day", block.day),
            ):
                arrays[f"block{number}_{part}"] = values.astype(np.int32)
        for column, name in enumerate(("annotator", "source", "cohort")):
            names[name] = [one[column] for one in self.who]
        about = {
            "version": _VERSION,
            "columns": sorted(self.columns),
            "measured": list(self.measured),
            "blocks": len(self.blocks),
        }
        columns = {name: _listed(pa.array(values)) for name, values in (arrays | names).items()}
        table = pa.table(columns).replace_schema_metadata({"labelguard_panel": json.dumps(about)})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
            writer.write_table(table)
        kept: bytes = sink.getvalue().to_pybytes()
        return kept

    @classmethod
    def from_bytes(cls, kept: bytes) -> Panel:
        """The panel that :meth:`to_bytes` wrote.

        Raises:
            ValueError: these bytes are something else, or of a version that is not known.
        """
        try:
            with pa.ipc.open_stream(kept) as reader:
                table = reader.read_all()
            about = json.loads((table.schema.metadata or {})[b"labelguard_panel"])
        except (pa.ArrowInvalid, KeyError, ValueError):
            raise ValueError("These bytes are no panel.") from None
        if about["version"] != _VERSION:
            raise ValueError(f"This panel is of version {about['version']}, and only {_VERSION} can be read.")

        def array(name: str) -> npt.NDArray[Any]:
            return np.asarray(table.column(name).combine_chunks().values.to_numpy(zero_copy_only=False))

        def pile(name: str, sums: int) -> Pile:
            columns = [array(f"{name}_{column}") for column in range(sums)]
            return Pile.of(Cells(array(f"{name}_key"), np.stack(columns, axis=1).astype(np.float64)))

        def index(name: str) -> pd.Index[Any]:
            values: list[Any] = table.column(name)[0].as_py()
            found: pd.Index[Any] = pd.Index(values)
            return found

        labels = index("labels")
        blocks = []
        for number in range(about["blocks"]):
            parts = {
                part: array(f"block{number}_{part}").astype(np.int64) for part in ("task", "row", "label", "who", "day")
            }
            tasks = index(f"tasks{number}")
            votes = Votes(parts["task"], parts["row"], parts["label"], len(tasks), len(labels))
            blocks.append(Block(tasks, votes, parts["who"], parts["day"]))
        who = zip(*(table.column(name)[0].as_py() for name in ("annotator", "source", "cohort")), strict=True)
        return cls(
            labels,
            tuple(who),
            frozenset(about["columns"]),
            pile("said", 1),
            {name: pile(name, 3) for name in about["measured"]},
            tuple(blocks),
        )


def _read(judgments: pd.DataFrame | Coded) -> Coded:
    if isinstance(judgments, Coded):
        return read(judgments, kind=judgments.kind, needs=("at",))
    kind = "nominal"
    if isinstance(judgments, pd.DataFrame) and "value" in judgments.columns and len(judgments):
        found = kind_of(judgments)
        if found == "result":
            raise BadJudgments(
                "The column 'value' holds Label Studio result items, and changes are looked for in labels: "
                "give the labels of one control, one label or a list of labels for each judgment."
            )
        kind = "set" if found == "set" else "nominal"
    coded = read(judgments, kind="set" if kind == "set" else "nominal", needs=("at",), extra=EXTRA, least=1)
    at = coded.frame["at"]
    if at.isna().any():
        row = _plain(at.index[int(np.flatnonzero(at.isna())[0])])
        raise BadJudgments(f"The column 'at' is empty in row {row!r}; without the time a judgment has no place.")
    for column in EXTRA:
        if column in coded.frame.columns:
            _check_flags(coded.frame[column], column)
    if len(coded.categories) > LABELS:
        raise BadJudgments(
            f"The column 'value' has {len(coded.categories):,} different labels, and at most {LABELS:,} can be "
            "looked at; put rare ones together first."
        )
    return coded


def _check_flags(column: pd.Series[Any], name: str) -> None:
    if column.dtype.kind == "b":
        return
    for label, value in zip(column.index, column, strict=True):
        if not (isinstance(value, (bool, np.bool_)) or value is None or value is pd.NA or value != value):
            raise BadJudgments(
                f"The column {name!r} must be true or false, but row {_plain(label)!r} holds {_plain(value)!r}."
            )


def _flags(column: pd.Series[Any]) -> Floats:
    return np.asarray(column.astype("boolean").to_numpy(dtype=np.float64, na_value=np.nan))


def _votes(coded: Coded) -> Votes:
    task = coded.task.astype(np.int64)
    if coded.kind == "nominal":
        return Votes(task, np.arange(coded.n), coded.value.astype(np.int64), len(coded.tasks), len(coded.categories))
    sizes = np.array([len(one) for one in coded.sets], dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    flat = np.array([label for one in coded.sets for label in one], dtype=np.int64)
    own = sizes[coded.value]
    row = np.repeat(np.arange(coded.n), own)
    within = np.arange(len(row)) - np.repeat(np.cumsum(own) - own, own)
    return Votes(task, row, flat[starts[coded.value][row] + within], len(coded.tasks), len(coded.categories))


def _who(coded: Coded) -> tuple[Ints, tuple[Who, ...]]:
    """Each judgment's place among the combinations of annotator, source and cohort, and those."""
    codes = coded.annotator.astype(np.int64)
    parts: list[tuple[Ints, list[Any]]] = []
    for column in ("source", "cohort"):
        if column in coded.frame.columns:
            found, values = encode(coded.frame[column], column, missing=True)
            parts.append((found.astype(np.int64) + 1, [None, *(_plain(value) for value in values)]))
        else:
            parts.append((np.zeros(coded.n, dtype=np.int64), [None]))
    for part, known in parts:
        codes = codes * len(known) + part
    present = np.zeros(len(coded.annotators) * len(parts[0][1]) * len(parts[1][1]), dtype=bool)
    present[codes] = True
    used = np.flatnonzero(present)
    if len(used) > WHO:
        raise BadJudgments(
            f"There are {len(used):,} combinations of the columns 'annotator', 'source' and 'cohort', and at most "
            f"{WHO:,} can be looked at."
        )
    rest, cohort = np.divmod(used, len(parts[1][1]))
    annotator, source = np.divmod(rest, len(parts[0][1]))
    annotators = coded.annotators.tolist()
    names = tuple(
        (_plain(annotators[a]), parts[0][1][s], parts[1][1][c])
        for a, s, c in zip(annotator.tolist(), source.tolist(), cohort.tolist(), strict=True)
    )
    place = np.cumsum(present) - 1
    order = sorted(range(len(names)), key=lambda number: _order(names[number]))
    rank = np.empty(len(names), dtype=np.int64)
    rank[order] = np.arange(len(names))
    return rank[place[codes]], tuple(names[number] for number in order)


def _order(one: Who) -> tuple[Any, ...]:
    return tuple((part is None, "" if part is None else part) for part in one)


def _day(coded: Coded) -> Ints:
    """Days since 1970, of UTC where times have a zone."""
    at = coded.frame["at"]
    plain = at.dt.tz_convert("UTC").dt.tz_localize(None) if at.dt.tz is not None else at
    day = plain.to_numpy().astype("datetime64[D]").astype(np.int64)
    outside = (day < 0) | (day >= DAYS)
    if outside.any():
        row = int(np.flatnonzero(outside)[0])
        raise BadJudgments(
            f"The column 'at' must lie between 1970 and 2059, but row {_plain(at.index[row])!r} holds {at.iloc[row]}."
        )
    return np.asarray(day)


def _values(coded: Coded, name: str, votes: Votes, stratum: Ints) -> tuple[Floats, Ints]:
    """A measure of each judgment, NaN where there is none, and the stratum it is compared in."""
    if name == "accuracy":
        return _accuracy(coded, votes)
    column = MEASURES[name].column
    if name == "duration":
        seconds = coded.numbers(column)
        return np.log(np.clip(seconds, SHORTEST, LONGEST)), stratum
    return (coded.numbers(column) if name == "confidence" else _flags(coded.frame[column])), stratum


def _accuracy(coded: Coded, votes: Votes) -> tuple[Floats, Ints]:
    """Whether a judgment holds the known answer."""
    if coded.kind == "nominal":
        gold = coded.gold()[coded.task].astype(np.int64)
        right = (gold == coded.value).astype(np.float64)
    else:
        codes, answers = encode(coded.frame["gold"], "gold", missing=True)
        place = np.append(coded.categories.get_indexer(answers), -1).astype(np.int64)
        gold = place[codes]
        held = np.zeros(coded.n)
        np.maximum.at(held, votes.row, (gold[votes.row] == votes.label).astype(np.float64))
        right = held
        gold = np.where(codes >= 0, np.maximum(gold, 0), -1)
    right[gold < 0] = np.nan
    return right, stratum_of(gold, agreed=False)


def _sums(who: Ints, day: Ints, stratum: Ints, value: Floats) -> Cells:
    return Cells.of(who, day, stratum, np.zeros(len(who), dtype=np.int64), [value, value**2])


def _said(block: Block, stratum: Ints, some: npt.NDArray[np.bool_] | None = None) -> Cells:
    row, label = block.votes.row, block.votes.label
    if some is not None:
        kept = some[row]
        row, label = row[kept], label[kept]
    return Cells.of(block.who[row], block.day[row], stratum[row], label + 1, [])


def _agreement(block: Block, consensus: Ints, stratum: Ints, some: npt.NDArray[np.bool_] | None = None) -> Cells:
    """Whether a judgment holds the label that most others gave; without one it is only counted."""
    votes = block.votes
    if votes.single:
        held = (votes.label == consensus).astype(np.float64)
    else:
        held = np.zeros(len(votes.task))
        np.maximum.at(held, votes.row, (votes.label == consensus[votes.row]).astype(np.float64))
    rows = np.arange(len(held)) if some is None else np.flatnonzero(some)
    return _sums(block.who[rows], block.day[rows], stratum[rows], held[rows])


def _union(one: pd.Index[Any], other: pd.Index[Any]) -> pd.Index[Any]:
    if one is other or bool(other.isin(one).all()):
        return one
    try:
        found: pd.Index[Any] = pd.Index(sorted({*one, *other}))
    except TypeError:
        raise ValueError("The labels of these panels are of different types, so they do not add up.") from None
    return found


def _listed(array: pa.Array) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array([0, len(array)], pa.int32()), array)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
