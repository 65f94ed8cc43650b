"""Additive sufficient statistics: what a shard of tasks contributes to agreement, confusion and calibration.

``Counts`` of shards are added, subtracted and kept as Arrow bytes; the statistics computed from a sum are the very
ones computed from all judgments at once, intervals included. So a nightly sweep reads again only the shards that
changed, and shards may be counted on several machines. A shard holds whole tasks: all judgments of a task must be in
the same one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from labelguard_analytics.agreement.alpha import alpha_estimate
from labelguard_analytics.agreement.coefficients import chance_estimate
from labelguard_analytics.agreement.pairwise import PairCells, Pairwise, pair_cells, pairwise_of
from labelguard_analytics.agreement.weights import Weights, category_numbers, check_ordered, credit, ratio_distance
from labelguard_analytics.estimate import Estimate, unknown
from labelguard_analytics.frames import BadJudgments, Coded, Codes, Floats, encode, read, shown
from labelguard_analytics.options import check_choice, check_whole, short
from labelguard_analytics.units import Units

Keys = npt.NDArray[np.int64]

PERIODS = {"day": "D", "week": "W", "month": "M"}
"""Periods of ``at`` that ``by`` may name."""
_VERSION = 1
_DENSE = 20_000_000


@dataclass(frozen=True)
class _Table:
    """Sums by key: rows of whole numbers that name what is summed, sorted and each once."""

    keys: Keys
    """Rows x key columns."""
    sums: Floats
    """Rows x summed columns."""

    @classmethod
    def of(cls, keys: Sequence[npt.NDArray[Any]], sums: Sequence[Floats], dims: Sequence[int]) -> _Table:
        """Add up what has the same key; ``dims`` is the number of possible values of each key column."""
        size = int(np.prod([max(dim, 1) for dim in dims], dtype=object))
        if size >= 2**62:
            stacked = np.stack([np.asarray(key, dtype=np.int64) for key in keys], axis=1)
            return cls._grouped(*np.unique(stacked, axis=0, return_inverse=True), sums)
        flat = np.zeros(len(keys[0]), dtype=np.int64)
        for key, dim in zip(keys, dims, strict=True):
            flat *= max(dim, 1)
            flat += key
        if size <= min(_DENSE, 16 * len(flat) + 1000):
            present = np.flatnonzero(np.bincount(flat, minlength=size))
            columns = [np.bincount(flat, weights=column, minlength=size)[present] for column in sums]
            return cls(_unflat(present, dims), np.stack(columns, axis=1)).without_zeros()
        found, inverse = np.unique(flat, return_inverse=True)
        return cls._grouped(_unflat(found, dims), inverse, sums)

    @classmethod
    def _grouped(cls, keys: Keys, inverse: npt.NDArray[Any], sums: Sequence[Floats]) -> _Table:
        columns = [np.bincount(inverse.ravel(), weights=column, minlength=len(keys)) for column in sums]
        return cls(keys, np.stack(columns, axis=1).astype(np.float64, copy=False)).without_zeros()

    @classmethod
    def empty(cls, keys: int, sums: int) -> _Table:
        """A table without rows."""
        return cls(np.zeros((0, keys), dtype=np.int64), np.zeros((0, sums)))

    def without_zeros(self) -> _Table:
        """Leave out what adds up to nothing, as after a subtraction."""
        kept = np.any(np.abs(self.sums) > 1e-9, axis=1)
        return self if kept.all() else _Table(self.keys[kept], self.sums[kept])

    def renumbered(self, places: Mapping[int, npt.NDArray[Any]]) -> _Table:
        """The same with other codes in some key columns; -1 stays."""
        keys = self.keys.copy()
        for column, new in places.items():
            old = keys[:, column]
            keys[:, column] = np.where(old < 0, -1, new[old]) if len(new) else old
        return _Table(keys, self.sums)

    def plus(self, other: _Table, sign: float) -> _Table:
        """The sum, or the difference for a ``sign`` of -1."""
        keys = np.concatenate([self.keys, other.keys])
        sums = np.concatenate([self.sums, sign * other.sums])
        if not len(keys):
            return self
        return self.of(list(keys.T), list(sums.T), (keys.max(axis=0) + 1).tolist())


def _unflat(flat: npt.NDArray[Any], dims: Sequence[int]) -> Keys:
    columns = []
    for dim in reversed(dims):
        flat, column = np.divmod(flat, max(dim, 1))
        columns.append(column)
    return np.stack(columns[::-1], axis=1).astype(np.int64)


@dataclass(frozen=True)
class Counts:
    """What a shard of tasks contributes, and what follows from a sum of such contributions.

    >>> frame = pd.DataFrame({"task": [1, 1, 2, 2, 3, 3], "annotator": [1, 2] * 3, "value": list("aabbab")})
    >>> first, second = Counts.of(frame[frame.task < 3]), Counts.of(frame[frame.task == 3])
    >>> both = Counts.from_bytes((first + second).to_bytes())
    >>> round(both.krippendorff_alpha().value, 3), (both - second).n_tasks
    (0.444, 2)
    """

    categories: pd.Index[Any]
    """The labels."""
    annotators: pd.Index[Any]
    by: tuple[str, ...]
    """The columns by which confusion and confidence are kept apart."""
    groups: tuple[tuple[Any, ...], ...]
    """Every combination of their values that occurs, None where a judgment has none; ``((),)`` without ``by``."""
    bins: int
    """Confidence is counted in so many bins of equal width from 0 to 1."""
    ordered: bool
    """Whether the order of the labels means something."""
    profiles: Mapping[int, _Table]
    """By number of judgments: how many tasks got which labels (key: the labels in order; sum: tasks)."""
    pairs: _Table
    """How often annotators a < b gave a task the labels k and l (key: a, b, k, l)."""
    truth: _Table
    """How often an annotator gave which label to tasks of which truth (key: group, annotator, truth, label)."""
    truths: Floats
    """How many tasks have which truth (labels)."""
    confidence: _Table
    """Judgments with a confidence and a task of known truth (key: group, annotator, label, bin): their number, how
    many are right, and the sums of confidence, its square, and its product with being right."""

    @classmethod
    def of(
        cls,
        judgments: pd.DataFrame | Coded,
        *,
        truth: pd.Series[Any] | pd.DataFrame | None = None,
        by: str | Sequence[str] | None = None,
        bins: int = 10,
    ) -> Counts:
        """Count a shard of whole tasks.

        Args:
            judgments: one label for each judgment.
            truth: the answer of each task: labels indexed by task; or a posterior with a row for each task and a
                column for each label, as truth inference gives it; None takes the column ``gold`` where there is one.
            by: columns such as ``source`` and ``cohort``, or ``day``, ``week``, ``month`` of ``at``, by which
                confusion and confidence are kept apart.
            bins: bins of equal width for the confidence.

        Raises:
            BadJudgments: the frame is not what it must be, or ``truth`` does not fit it.
            ValueError: ``bins`` is no whole number from 1, or ``by`` names something else.
        """
        check_whole("bins", bins, 1)
        by = slices(by)
        columns = ["at" if name in PERIODS else name for name in by]
        coded = read(judgments, needs=columns, least=1)
        labels, annotators = len(coded.categories), len(coded.annotators)
        group, groups = _groups(coded, by)
        posterior, truths = _posterior(coded, truth)
        return cls(
            coded.categories,
            coded.annotators,
            by,
            groups,
            int(bins),
            coded.ordered,
            _profiles(coded),
            _pairs(coded),
            _truth(coded, posterior, group, len(groups), annotators, labels),
            truths,
            _confidence(coded, posterior, group, len(groups), bins),
        )

    @property
    def n_tasks(self) -> int:
        """The number of tasks."""
        return round(sum(float(table.sums.sum()) for table in self.profiles.values()))

    @property
    def n_judgments(self) -> int:
        """The number of judgments."""
        return round(sum(size * float(table.sums.sum()) for size, table in self.profiles.items()))

    def __add__(self, other: Counts) -> Counts:
        return self._joined(other, 1.0)

    def __sub__(self, other: Counts) -> Counts:
        found = self._joined(other, -1.0)
        tables = (*found.profiles.values(), found.pairs, found.truth, found.confidence)
        if any(float(table.sums.min(initial=0.0)) < -1e-6 for table in tables):
            raise ValueError("These counts cannot be taken away: they were never part of the others.")
        return found

    def _joined(self, other: Counts, sign: float) -> Counts:
        if not isinstance(other, Counts):
            return NotImplemented
        if (self.by, self.bins) != (other.by, other.bins):
            raise ValueError(
                f"Counts by {self.by or 'nothing'} with {self.bins} bins and by {other.by or 'nothing'} with "
                f"{other.bins} bins do not add up."
            )
        categories = _union(self.categories, other.categories, "labels")
        annotators = _union(self.annotators, other.annotators, "annotators")
        groups = tuple(sorted({*self.groups, *other.groups}, key=_group_order))
        one, two = (counts.aligned(categories, annotators, groups) for counts in (self, other))
        sizes = sorted({*one.profiles, *two.profiles})
        profiles = {
            size: one.profiles.get(size, _Table.empty(size, 1)).plus(
                two.profiles.get(size, _Table.empty(size, 1)), sign
            )
            for size in sizes
        }
        return replace(
            one,
            ordered=self.ordered and other.ordered and _keeps_order(categories, self.categories, other.categories),
            profiles={size: table for size, table in profiles.items() if len(table.keys)},
            pairs=one.pairs.plus(two.pairs, sign),
            truth=one.truth.plus(two.truth, sign),
            truths=np.where(np.abs(one.truths + sign * two.truths) > 1e-9, one.truths + sign * two.truths, 0.0),
            confidence=one.confidence.plus(two.confidence, sign),
        )

    def aligned(
        self, categories: pd.Index[Any], annotators: pd.Index[Any], groups: tuple[tuple[Any, ...], ...]
    ) -> Counts:
        """The same counts with places among more labels, annotators and groups."""
        label = categories.get_indexer(self.categories)
        who = annotators.get_indexer(self.annotators)
        place = {group: number for number, group in enumerate(groups)}
        group = np.array([place[one] for one in self.groups], dtype=np.int64)
        truths = np.zeros(len(categories))
        truths[label] = self.truths
        profiles = {}
        for size, table in self.profiles.items():
            keys = np.sort(label[table.keys], axis=1)
            profiles[size] = _Table(keys, table.sums)
        return replace(
            self,
            categories=categories,
            annotators=annotators,
            groups=groups,
            profiles=profiles,
            pairs=_in_order(self.pairs.renumbered({0: who, 1: who, 2: label, 3: label})),
            truth=self.truth.renumbered({0: group, 1: who, 2: label, 3: label}),
            truths=truths,
            confidence=self.confidence.renumbered({0: group, 1: who, 2: label}),
        )

    # Agreement

    def _units(self) -> Units:
        """Every distinct task once, with its number."""
        values, sizes, weight = [], [], []
        for size, table in sorted(self.profiles.items()):
            values.append(table.keys.ravel())
            sizes.append(np.full(len(table.keys), size, dtype=np.intp))
            weight.append(table.sums[:, 0])
        if not values:
            none = np.zeros(0, dtype=np.int32)
            return Units(none, none, np.zeros(0, dtype=np.intp), np.zeros(0), len(self.categories))
        every = np.concatenate(sizes)
        return Units(
            np.concatenate(values).astype(np.int32),
            np.repeat(np.arange(len(every), dtype=np.int32), every),
            every,
            np.concatenate(weight),
            len(self.categories),
        )

    def _weights(self, weights: Weights) -> Floats | None:
        return credit(self.categories, weights, ordered=self.ordered)

    def percent_agreement(self) -> Estimate:
        """As :func:`labelguard_analytics.percent_agreement`."""
        return chance_estimate(self._units(), "percent")

    def fleiss_kappa(self, *, weights: Weights = None) -> Estimate:
        """As :func:`labelguard_analytics.fleiss_kappa`."""
        return chance_estimate(self._units(), "fleiss", self._weights(weights))

    def gwet_ac1(self) -> Estimate:
        """As :func:`labelguard_analytics.gwet_ac1`."""
        return chance_estimate(self._units(), "gwet")

    def gwet_ac2(self, *, weights: Weights = "quadratic") -> Estimate:
        """As :func:`labelguard_analytics.gwet_ac2`."""
        return chance_estimate(self._units(), "gwet", self._weights(weights))

    def krippendorff_alpha(self, metric: Literal["nominal", "ordinal", "interval", "ratio"] = "nominal") -> Estimate:
        """As :func:`labelguard_analytics.krippendorff_alpha`, for metrics of single labels and numbers."""
        check_choice("The metric", metric, ("nominal", "ordinal", "interval", "ratio"))
        units = self._units().at_least(2)
        distance = None
        if metric == "ordinal":
            check_ordered(self.categories, ordered=self.ordered, what="ranks")
        elif metric in ("interval", "ratio"):
            numbers = category_numbers(self.categories)
            if metric == "ratio":
                distance = ratio_distance(numbers)
            else:
                units = Units(numbers[units.values], units.unit, units.sizes, units.weight, 0)
        return alpha_estimate(units, metric, distance)

    def pairwise_agreement(self, *, weights: Weights = None) -> Pairwise:
        """As :func:`labelguard_analytics.pairwise_agreement`."""
        a, b, k, other = (self.pairs.keys[:, column].astype(np.int32) for column in range(4))
        cells = PairCells(a, b, k, other, self.pairs.sums[:, 0])
        return pairwise_of(cells, self.annotators, self.categories, self._weights(weights))

    def cohen_kappa(self, a: Any, b: Any, *, weights: Weights = None) -> Estimate:
        """As :func:`labelguard_analytics.cohen_kappa` of two annotators that are named.

        Raises:
            ValueError: one of them is not there.
        """
        self._places(a, b)
        rows = self.pairwise_agreement(weights=weights).pairs
        found = rows[((rows["a"] == a) & (rows["b"] == b)) | ((rows["a"] == b) & (rows["b"] == a))]
        if found.empty:
            return unknown(f"{a!r} and {b!r} share no task, so there is nothing to compare.")
        row = found.iloc[0]
        tasks = int(row["n_tasks"])
        return Estimate(
            float(row["kappa"]), float(row["low"]), float(row["high"]), tasks, 2 * tasks, str(row["reason"])
        )

    # Confusion

    def between(self, a: Any, b: Any) -> pd.DataFrame:
        """How often ``a`` gave which label (rows) where ``b`` gave which (columns), over the tasks of both.

        Raises:
            ValueError: one of them is not there.
        """
        size = len(self.categories)
        table = np.zeros((size, size))
        one, other = self._places(a, b)
        keys = self.pairs.keys
        rows = (keys[:, 0] == min(one, other)) & (keys[:, 1] == max(one, other))
        np.add.at(table, (keys[rows, 2], keys[rows, 3]), self.pairs.sums[rows, 0])
        if one > other:
            table = table.T
        return pd.DataFrame(
            table, index=pd.Index(self.categories, name=str(a)), columns=pd.Index(self.categories, name=str(b))
        )

    def _places(self, a: Any, b: Any) -> tuple[int, int]:
        for name in (a, b):
            if not pd.api.types.is_scalar(name) or name not in self.annotators:
                raise ValueError(f"There is no annotator {short(name)} in these counts.")
        one, other = self.annotators.get_indexer(pd.Index([a, b], dtype=object))
        return int(one), int(other)

    def cube(self, group: tuple[Any, ...] | None = None) -> Floats:
        """How often each annotator gave which label to tasks of which truth: annotators x truth x labels.

        ``group`` is one of ``groups``; None adds them up. Numbers are whole unless the truth was a posterior.

        Raises:
            ValueError: there is no such group.
        """
        if group is not None and (not isinstance(group, tuple) or group not in self.groups):
            raise ValueError(f"There is no group {short(group)} in these counts.")
        shape = len(self.annotators), len(self.categories), len(self.categories)
        keys, sums = self.truth.keys, self.truth.sums[:, 0]
        if group is not None:
            rows = keys[:, 0] == self.groups.index(group)
            keys, sums = keys[rows], sums[rows]
        flat = (keys[:, 1] * shape[1] + keys[:, 2]) * shape[2] + keys[:, 3]
        found = np.bincount(flat, weights=sums, minlength=int(np.prod(shape)))
        return found.astype(np.float64, copy=False).reshape(shape)

    def confusion_table(self) -> pd.DataFrame:
        """The same as rows: the columns of ``by``, ``annotator``, ``truth``, ``label`` and ``count``."""
        keys = self.truth.keys
        frame = self._group_columns(keys[:, 0])
        frame["annotator"] = self.annotators.take(keys[:, 1])
        frame["truth"] = self.categories.take(keys[:, 2])
        frame["label"] = self.categories.take(keys[:, 3])
        frame["count"] = self.truth.sums[:, 0]
        return frame

    # Confidence

    def confidence_table(self) -> pd.DataFrame:
        """Sums of the judgments with a confidence and a known truth, from which calibration follows.

        Rows by the columns of ``by``, ``annotator``, ``label`` and ``bin`` (0 to ``bins`` - 1), with the sums ``n``,
        ``correct``, ``confidence``, ``confidence_squared`` and ``confidence_correct``: the Brier score is
        ``(confidence_squared - 2 * confidence_correct + correct) / n``.
        """
        keys = self.confidence.keys
        frame = self._group_columns(keys[:, 0])
        frame["annotator"] = self.annotators.take(keys[:, 1])
        frame["label"] = self.categories.take(keys[:, 2])
        frame["bin"] = keys[:, 3]
        for column, name in enumerate(("n", "correct", "confidence", "confidence_squared", "confidence_correct")):
            frame[name] = self.confidence.sums[:, column]
        return frame

    def _group_columns(self, group: Keys) -> pd.DataFrame:
        columns = {name: [self.groups[number][at] for number in group] for at, name in enumerate(self.by)}
        return pd.DataFrame(columns, index=pd.RangeIndex(len(group)))

    # Truth inference

    def m_step(self, smoothing: float | Floats = 0.01) -> tuple[Floats, Floats]:
        """The M-step of Dawid and Skene (1979): what the truths say about labels and annotators.

        Args:
            smoothing: what is added to every count of ``cube`` first; a number, or an array that fits it.

        Returns:
            The shares of labels among tasks (labels), and for each annotator the probability of each label given
            each truth (annotators x truth x labels); rows without any count are even.

        Raises:
            ValueError: the smoothing is negative, or no number or array that fits.
        """
        try:
            added = np.broadcast_to(np.asarray(smoothing, dtype=np.float64), self.cube().shape)
        except (TypeError, ValueError):
            added = np.full(1, -1.0)
        if not ((added >= 0) & (added < np.inf)).all():
            raise ValueError(
                f"smoothing must be a number from 0, or an array of them that fits the cube, but it is "
                f"{short(smoothing)}."
            )
        total = float(self.truths.sum())
        size = len(self.categories)
        shares = self.truths / total if total else np.full(size, 1.0 / max(size, 1))
        counts = self.cube() + added
        sums = counts.sum(axis=2, keepdims=True)
        return shares, np.where(sums > 0, counts / np.where(sums > 0, sums, 1.0), 1.0 / max(size, 1))

    # Keeping

    def to_bytes(self) -> bytes:
        """The counts as an Arrow stream of one row, which any Arrow library can read.

        Raises:
            ValueError: Arrow has no form for the labels, annotators or groups.
        """
        profiles = sorted(self.profiles.items())
        columns: dict[str, pa.Array] = {
            "categories": _kept(self.categories),
            "annotators": _kept(self.annotators),
            "truths": pa.array([self.truths.tolist()], pa.list_(pa.float64())),
            "profile_sizes": pa.array([[size for size, _ in profiles]], pa.list_(pa.int64())),
            "profile_rows": pa.array([[len(table.keys) for _, table in profiles]], pa.list_(pa.int64())),
        }
        joined = _Table(
            np.concatenate([table.keys.ravel() for _, table in profiles] or [np.zeros(0, dtype=np.int64)])[:, None],
            np.concatenate([table.sums for _, table in profiles] or [np.zeros((0, 1))]),
        )
        for name, table in (
            ("profiles", joined),
            ("pairs", self.pairs),
            ("truth", self.truth),
            ("confidence", self.confidence),
        ):
            for what, array in (("keys", table.keys), ("sums", table.sums)):
                offsets = pa.array([0, array.size], pa.int32())
                columns[f"{name}_{what}"] = pa.ListArray.from_arrays(offsets, pa.array(array.ravel()))
        for at, name in enumerate(self.by):
            columns[f"by_{at}_{name}"] = _kept([group[at] for group in self.groups])
        about = {
            "version": _VERSION,
            "by": self.by,
            "groups": len(self.groups),
            "bins": self.bins,
            "ordered": self.ordered,
        }
        table = pa.table(columns).replace_schema_metadata({"labelguard_counts": json.dumps(about)})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        kept: bytes = sink.getvalue().to_pybytes()
        return kept

    @classmethod
    def from_bytes(cls, kept: bytes) -> Counts:
        """The counts that :meth:`to_bytes` wrote.

        Raises:
            ValueError: these bytes are something else, or of a version that is not known.
        """
        if not isinstance(kept, bytes):
            raise TypeError(f"Counts are read from bytes, not from a {type(kept).__name__}.")
        try:
            with pa.ipc.open_stream(kept) as reader:
                table = reader.read_all()
            about = json.loads((table.schema.metadata or {})[b"labelguard_counts"])
            version = about["version"]
        except (pa.ArrowInvalid, KeyError, TypeError, ValueError):
            raise ValueError("These bytes are no counts.") from None
        if version != _VERSION:
            raise ValueError(f"These counts are of version {version}, and only {_VERSION} can be read.")

        def column(name: str) -> npt.NDArray[Any]:
            chunk = table.column(name).combine_chunks()
            return np.asarray(chunk.values.to_numpy(zero_copy_only=False))

        def read_table(name: str, keys: int, sums: int) -> _Table:
            rows = column(f"{name}_sums").reshape(-1, sums).astype(np.float64)
            return _Table(column(f"{name}_keys").reshape(-1, keys).astype(np.int64), rows)

        profiles, key_at, row_at = {}, 0, 0
        keys, sums = column("profiles_keys").astype(np.int64), column("profiles_sums").astype(np.float64)
        for size, rows in zip(column("profile_sizes").tolist(), column("profile_rows").tolist(), strict=True):
            profiles[size] = _Table(
                keys[key_at : key_at + size * rows].reshape(rows, size), sums[row_at : row_at + rows, None]
            )
            key_at, row_at = key_at + size * rows, row_at + rows
        by = tuple(about["by"])
        parts = [table.column(f"by_{at}_{name}")[0].as_py() for at, name in enumerate(by)]
        groups = tuple(zip(*parts, strict=True)) if by else ((),) * about["groups"]
        return cls(
            _index(table, "categories"),
            _index(table, "annotators"),
            by,
            groups,
            about["bins"],
            about["ordered"],
            profiles,
            read_table("pairs", 4, 1),
            read_table("truth", 4, 1),
            column("truths").astype(np.float64),
            read_table("confidence", 4, 5),
        )


def _kept(values: Any) -> pa.Array:
    """Values as one list in one row."""
    try:
        array = pa.array([_plain(value) for value in values])
    except (pa.ArrowException, OverflowError):
        raise ValueError(
            f"Arrow cannot keep values such as {short(values[0])}; make them texts before counting."
        ) from None
    return pa.ListArray.from_arrays(pa.array([0, len(array)], pa.int32()), array)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _index(table: pa.Table, name: str) -> pd.Index[Any]:
    values: list[Any] = table.column(name)[0].as_py()
    found: pd.Index[Any] = pd.Index(values)
    return found


def _union(one: pd.Index[Any], other: pd.Index[Any], what: str) -> pd.Index[Any]:
    """Both sets of names, in the order of the longer one where it holds the other, else sorted."""
    if bool(other.isin(one).all()):
        return one
    if bool(one.isin(other).all()):
        return other
    try:
        found: pd.Index[Any] = pd.Index(sorted({*one, *other}))
    except TypeError:
        raise ValueError(f"The {what} of these counts are of different types, so they do not add up.") from None
    return found


def _keeps_order(categories: pd.Index[Any], *parts: pd.Index[Any]) -> bool:
    """Whether the labels stand as they stood before."""
    places = [categories.get_indexer(part) for part in parts]
    return all(bool(np.all(np.diff(place) > 0)) for place in places)


def _group_order(group: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple((part is None, part) for part in group)


def _in_order(pairs: _Table) -> _Table:
    """Pairs with the lower annotator first, which new places may have turned round."""
    keys = pairs.keys
    turned = keys[:, 0] > keys[:, 1]
    if not turned.any():
        return pairs
    keys = keys.copy()
    keys[turned] = keys[turned][:, [1, 0, 3, 2]]
    return _Table(keys, pairs.sums)


def slices(by: str | Sequence[str] | None, own: Sequence[str] = ()) -> tuple[str, ...]:
    """The columns by which to keep judgments apart: ``source``, ``cohort``, a period of ``at``, or one of ``own``.

    Raises:
        ValueError: it names something else, or something twice.
    """
    columns = () if by is None else (by,) if isinstance(by, str) else by
    known = (*own, "source", "cohort", *PERIODS)
    if not isinstance(columns, (list, tuple)):
        raise TypeError(f"by must be a name or a list of names, but it is {short(by)}.")
    for name in columns:
        check_choice("What by names", name, known)
    if len(set(columns)) < len(columns):
        raise ValueError(f"by names a column twice: {short(by)}.")
    return tuple(columns)


def _groups(coded: Coded, by: Sequence[str]) -> tuple[Codes, tuple[tuple[Any, ...], ...]]:
    """The group of each judgment, and the groups."""
    if not by:
        return np.zeros(coded.n, dtype=np.int32), ((),)
    columns, names = [], []
    for name in by:
        if name in PERIODS:
            at = coded.frame["at"]
            plain = at.dt.tz_convert("UTC").dt.tz_localize(None) if at.dt.tz is not None else at
            column = plain.dt.to_period(PERIODS[name]).dt.start_time.dt.strftime("%Y-%m-%d")
        else:
            column = coded.frame[name]
        codes, values = encode(column, name, missing=True)
        columns.append(codes)
        names.append([*(_plain(value) for value in values), None])
    found, inverse = np.unique(np.stack(columns, axis=1), axis=0, return_inverse=True)
    groups = [tuple(names[at][code] for at, code in enumerate(row)) for row in found.tolist()]
    order = sorted(range(len(groups)), key=lambda number: _group_order(groups[number]))
    place = np.empty(len(groups), dtype=np.int32)
    place[order] = np.arange(len(groups), dtype=np.int32)
    return place[inverse.ravel()], tuple(groups[number] for number in order)


def _posterior(coded: Coded, truth: pd.Series[Any] | pd.DataFrame | None) -> tuple[Codes | Floats | None, Floats]:
    """What is known of each task: a label's place, -1 for nothing; or probabilities (tasks x labels)."""
    size = len(coded.categories)
    if truth is None:
        codes = coded.gold()
    elif isinstance(truth, pd.DataFrame):
        _check_once(truth.index, "task")
        _check_once(truth.columns, "label")
        try:
            chances = truth.to_numpy(dtype=np.float64, na_value=0.0)
        except (TypeError, ValueError):
            chances = np.full((1, 1), -1.0)
        if not ((chances >= 0) & (chances <= 1 + 1e-9)).all():
            raise BadJudgments("A truth of tasks x labels must hold probabilities from 0 to 1.")
        strange = truth.columns[~truth.columns.isin(coded.categories) & (chances > 0).any(axis=0)]
        if len(strange):
            raise BadJudgments(f"The truth has the label {shown(strange[0])}, which the column 'value' has not.")
        table = pd.DataFrame(chances, index=truth.index, columns=truth.columns)
        posterior = table.reindex(index=coded.tasks, columns=coded.categories).fillna(0.0).to_numpy(dtype=np.float64)
        return posterior, posterior.sum(axis=0)
    elif not isinstance(truth, pd.Series):
        raise BadJudgments(
            "The truth must be labels indexed by task, a posterior (tasks x labels) or what truth inference gives, "
            f"not {type(truth).__name__}."
        )
    else:
        _check_once(truth.index, "task")
        encode(truth, "truth", missing=True)
        answers = truth.reindex(coded.tasks)
        known = answers.notna().to_numpy()
        codes = np.full(len(coded.tasks), -1, dtype=np.int32)
        codes[known] = coded.categories.get_indexer(pd.Index(answers[known]))
        if (codes[known] < 0).any():
            where = int(np.flatnonzero(known & (codes < 0))[0])
            raise BadJudgments(
                f"The truth of task {coded.tasks[where]} is {shown(answers.iloc[where])}, which the column 'value' has "
                "not; make it a categorical column that names all labels."
            )
    if not (codes >= 0).any():
        return None, np.zeros(size)
    return codes, np.bincount(codes[codes >= 0], minlength=size).astype(np.float64)


def _check_once(names: pd.Index[Any], what: str) -> None:
    twice = names[names.duplicated()]
    if len(twice):
        raise BadJudgments(f"The truth has the {what} {shown(twice[0])} twice.")


def _profiles(coded: Coded) -> dict[int, _Table]:
    task, value = coded.in_order
    sizes = coded.sizes
    labels = len(coded.categories)
    found = {}
    for size in np.unique(sizes[sizes > 0]).tolist():
        rows = (
            value[sizes[task] == size].reshape(-1, size)
            if int(sizes.min()) != size or int(sizes.max()) != size
            else (value.reshape(-1, size))
        )
        ordered = np.sort(rows, axis=1)
        found[size] = _Table.of(list(ordered.T), [np.ones(len(rows))], [labels] * size)
    return found


def _pairs(coded: Coded) -> _Table:
    cells = pair_cells(coded)
    return _Table(np.stack([cells.a, cells.b, cells.k, cells.l], axis=1).astype(np.int64), cells.count[:, None])


def _truth(
    coded: Coded, posterior: Codes | Floats | None, group: Codes, groups: int, annotators: int, labels: int
) -> _Table:
    if posterior is None:
        return _Table.empty(4, 1)
    dims = groups, annotators, labels, labels
    if posterior.ndim == 1:
        answer = posterior[coded.task]
        rows = np.flatnonzero(answer >= 0)
        keys = group[rows], coded.annotator[rows], answer[rows], coded.value[rows]
        return _Table.of(keys, [np.ones(len(rows))], dims)
    task, truth = np.nonzero(posterior)
    # Each task's possible truths, laid beside each of its judgments.
    first = np.concatenate([[0], np.cumsum(np.bincount(task, minlength=len(coded.tasks)))])
    number = np.diff(first)[coded.task]
    rows = np.repeat(np.arange(coded.n), number)
    within = np.arange(len(rows)) - np.repeat(np.cumsum(number) - number, number)
    entry = first[coded.task[rows]] + within
    keys = group[rows], coded.annotator[rows], truth[entry].astype(np.int32), coded.value[rows]
    return _Table.of(keys, [posterior[task[entry], truth[entry]]], dims)


def _confidence(coded: Coded, posterior: Codes | Floats | None, group: Codes, groups: int, bins: int) -> _Table:
    if posterior is None or "confidence" not in coded.frame.columns:
        return _Table.empty(4, 5)
    stated = coded.numbers("confidence")
    if posterior.ndim == 1:
        answer = posterior[coded.task]
        right, known = (answer == coded.value).astype(np.float64), answer >= 0
    else:
        right, known = posterior[coded.task, coded.value], posterior.sum(axis=1)[coded.task] > 0
    rows = np.flatnonzero(known & ~np.isnan(stated))
    stated, right = stated[rows], right[rows]
    place = np.minimum((stated * bins).astype(np.int64), bins - 1)
    keys = group[rows], coded.annotator[rows], coded.value[rows], place
    sums = [np.ones(len(rows)), right, stated, stated**2, stated * right]
    return _Table.of(keys, sums, (groups, len(coded.annotators), len(coded.categories), bins))
