"""Read a frame of judgments into integer codes, the form in which everything here computes.

A frame has one row for each judgment and the columns ``task``, ``annotator`` and ``value``, and may have ``at``
(when; datetime), ``duration`` (seconds), ``confidence`` (0 to 1), ``source`` (where the task's data came from),
``cohort`` (the annotator's group) and ``gold`` (the task's known answer). An annotator has one judgment for each
task: where a frame has several, the latest by ``at`` counts. Without ``at`` truth inference, confusion and
calibration count all of them; agreement refuses them, because it would take people who agree with themselves for
people who agree. ``judgments.drop_duplicates(["task", "annotator"], keep="last")`` then says which one counts.

What is wrong with a frame is said in one sentence that names the column and the row (by its index label).
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from scipy.sparse import coo_array

Codes: TypeAlias = npt.NDArray[np.int32]
Floats: TypeAlias = npt.NDArray[np.float64]
Kind: TypeAlias = Literal["nominal", "number", "set", "result", "any"]
"""What a value is: one label; a number; several labels; a list of Label Studio result items; anything at all."""

SETS = (list, tuple, set, frozenset)
"""What a set of labels may come as."""
LARGEST = 1e100
"""Numbers beyond it are refused: their squares are none."""
REQUIRED = ("task", "annotator", "value")
OPTIONAL = ("at", "duration", "confidence", "source", "cohort", "gold")


class BadJudgments(ValueError):
    """What is wrong with a frame of judgments, as one sentence that names the column and the row."""


@dataclass(frozen=True)
class Coded:
    """Judgments as integer codes; row ``i`` of every array is the same judgment.

    >>> frame = pd.DataFrame({"task": [7, 7, 9], "annotator": ["ann", "bob", "ann"], "value": ["x", "y", "y"]})
    >>> coded = read(frame)
    >>> coded.task.tolist(), coded.annotator.tolist(), coded.value.tolist()
    ([0, 0, 1], [0, 1, 0], [0, 1, 1])
    >>> list(coded.tasks), list(coded.annotators), list(coded.categories)
    ([7, 9], ['ann', 'bob'], ['x', 'y'])
    """

    kind: Kind
    task: Codes
    """Each judgment's place in ``tasks``."""
    annotator: Codes
    """Each judgment's place in ``annotators``."""
    value: npt.NDArray[Any]
    """``nominal``: int32 places in ``categories``; ``set``: int32 places in ``sets``; ``number``: float64;
    ``result``: an object array of lists of result items; ``any``: an object array."""
    tasks: pd.Index[Any]
    """Every task once, sorted."""
    annotators: pd.Index[Any]
    """Every annotator once, sorted."""
    categories: pd.Index[Any]
    """The labels of ``value`` and ``gold``, sorted, or in the order of a categorical column, which also names
    labels that nobody used; empty for ``number`` and ``result``."""
    sets: tuple[tuple[int, ...], ...] = ()
    """For ``set``: every distinct set of labels, as sorted places in ``categories``."""
    ordered: bool = False
    """Whether the order of ``categories`` means something: numbers, and ordered categorical columns."""
    frame: pd.DataFrame = field(default_factory=pd.DataFrame, repr=False)
    """The rows that count, in the order of the arrays; without columns when made from ready codes."""

    @property
    def n(self) -> int:
        """The number of judgments."""
        return len(self.task)

    @cached_property
    def order(self) -> Codes | None:
        """The rows sorted by task (stable); None where they are already."""
        if bool(np.all(self.task[1:] >= self.task[:-1])):
            return None
        # A sparse matrix is sorted by counting, which takes a tenth of the time of an argsort.
        rows = np.arange(self.n, dtype=np.int32)
        table = coo_array((rows, (self.task, rows)), shape=(len(self.tasks), self.n))
        return np.asarray(table.tocsr().indices, dtype=np.int32)

    @cached_property
    def in_order(self) -> tuple[Codes, npt.NDArray[Any]]:
        """Tasks and values, the judgments of a task next to each other."""
        return (self.task, self.value) if self.order is None else (self.task[self.order], self.value[self.order])

    @cached_property
    def sizes(self) -> npt.NDArray[np.intp]:
        """The number of judgments of each task."""
        return np.bincount(self.task, minlength=len(self.tasks))

    @cached_property
    def starts(self) -> npt.NDArray[np.intp]:
        """Where each task begins in ``order``; one more entry than tasks."""
        return np.concatenate([[0], np.cumsum(self.sizes)])

    def membership(self) -> npt.NDArray[np.bool_]:
        """For ``set``: which labels each distinct set holds (distinct sets x categories)."""
        table = np.zeros((len(self.sets), len(self.categories)), dtype=bool)
        for row, members in enumerate(self.sets):
            table[row, list(members)] = True
        return table

    def group(self, column: str) -> tuple[Codes, pd.Index[Any]]:
        """Codes of another column and what they stand for; -1 where a row has none."""
        return encode(self.frame[column], column, missing=True)

    def numbers(self, column: str) -> Floats:
        """Another column as numbers; NaN where a row has none."""
        return _numbers(self.frame[column], column, missing=True)

    def gold(self) -> Codes:
        """For ``nominal``: each task's known answer as its place in ``categories``, -1 where there is none.

        Raises:
            BadJudgments: two rows of a task have different gold.
        """
        return _gold(self)


def from_codes(
    task: npt.ArrayLike, annotator: npt.ArrayLike, value: npt.ArrayLike, categories: int | None = None
) -> Coded:
    """Judgments from arrays of ready integer codes, each from 0 without holes; nothing but their range is checked.

    >>> from_codes([0, 0, 1], [0, 1, 0], [1, 1, 0]).n
    3

    Args:
        task: a code for each judgment.
        annotator: a code for each judgment.
        value: a code for each judgment.
        categories: how many labels there are, where some may be unused.

    Raises:
        BadJudgments: the arrays differ in length, are no integers, or a code is negative or too large.
    """
    arrays: list[Codes] = []
    for name, codes in (("task", task), ("annotator", annotator), ("value", value)):
        array = np.asarray(codes)
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise BadJudgments(f"{name} must be a one-dimensional array of integer codes, not {array.dtype}.")
        if array.size and int(array.min()) < 0:
            raise BadJudgments(f"{name} has a negative code at position {int(array.argmin())}.")
        arrays.append(array.astype(np.int32, copy=False))
    if len({len(array) for array in arrays}) != 1:
        raise BadJudgments("task, annotator and value must have the same length.")
    tasks, annotators, labels = (int(array.max()) + 1 if array.size else 0 for array in arrays)
    if categories is not None and labels > categories:
        raise BadJudgments(f"value has the code {labels - 1}, but there are only {categories} categories.")
    return Coded(
        "nominal",
        arrays[0],
        arrays[1],
        arrays[2],
        pd.RangeIndex(tasks),
        pd.RangeIndex(annotators),
        pd.RangeIndex(labels if categories is None else categories),
        ordered=True,
    )


def read(
    judgments: pd.DataFrame | Coded,
    *,
    kind: Kind = "nominal",
    needs: Collection[str] = (),
    extra: Collection[str] = (),
    least: int = 2,
    repeats: bool = False,
) -> Coded:
    """Read a frame of judgments into integer codes.

    A million rows take some 0.03 s when task, annotator and value are integers or categoricals.

    >>> read(pd.DataFrame({"task": [1], "annotator": ["ann"], "vlaue": ["x"]}))
    Traceback (most recent call last):
    ...
    labelguard_analytics.frames.BadJudgments: The column 'value' is missing; did you mean it by 'vlaue'?

    Args:
        judgments: the frame, or what an earlier call made of it.
        kind: what the values must be.
        needs: optional columns that this use cannot do without.
        extra: further columns that are welcome; any other unknown column is taken for a mistake.
        least: how many rows there must be.
        repeats: whether an annotator may have judged a task more than once, so that all of it counts.

    Raises:
        BadJudgments: the frame is not what it must be.
    """
    if isinstance(judgments, Coded):
        if judgments.kind != kind:
            raise BadJudgments(f"These judgments were read as {judgments.kind!r}, but {kind!r} is needed.")
        _check_needs(judgments.frame, needs)
        return judgments
    _check_columns(judgments, needs, extra)
    judgments = _without_arrow(judgments)
    if len(judgments) < max(least, 1) and least:
        raise BadJudgments(_too_few(judgments, least))
    task, tasks = encode(judgments["task"], "task")
    annotator, annotators = encode(judgments["annotator"], "annotator")
    _check_optional(judgments)
    frame = judgments
    keep = None if repeats and "at" not in frame.columns else _last_of_each(frame, task, annotator, len(annotators))
    if keep is not None:
        frame = judgments.iloc[keep]
        task, annotator = task[keep], annotator[keep]
    column = frame["value"]
    empty: pd.Index[Any] = pd.Index([])
    if kind == "number":
        return Coded(kind, task, annotator, _numbers(column, "value"), tasks, annotators, empty, frame=frame)
    if kind == "result":
        return Coded(kind, task, annotator, _results(column), tasks, annotators, empty, frame=frame)
    if kind == "any":
        return Coded(kind, task, annotator, _objects(column), tasks, annotators, empty, frame=frame)
    if kind == "set":
        # Known answers may have labels that nobody gave; what gold holds is checked where it is used.
        answers = [value for value in frame.get("gold", ()) if isinstance(value, SETS)]
        codes, sets, labels = _sets(column, answers)
        return Coded(kind, task, annotator, codes, tasks, annotators, labels, sets, frame=frame)
    codes, labels = encode(column, "value", keep_unused=True)
    if "gold" in frame.columns:
        codes, labels = _with_gold(column, frame["gold"], codes, labels)
    return Coded("nominal", task, annotator, codes, tasks, annotators, labels, (), _is_ordered(column), frame)


def kind_of(judgments: pd.DataFrame) -> Kind:
    """What the values of a frame are, from their first row: lists of items, lists of labels, numbers or labels.

    Whole numbers are labels here (a class is often a number); floating ones are numbers.

    >>> kind_of(pd.DataFrame({"task": [1, 1], "annotator": [1, 2], "value": [["a"], ["a", "b"]]}))
    'set'
    """
    _check_columns(judgments, (), judgments.columns if isinstance(judgments, pd.DataFrame) else ())
    if judgments.empty:
        raise BadJudgments(_too_few(judgments, 1))
    column = _without_arrow(judgments[["value"]])["value"]
    if column.dtype != object:
        return "number" if column.dtype.kind == "f" else "nominal"
    lists = [value for value in column.head(1000) if isinstance(value, SETS)]
    if lists:
        return "result" if any(isinstance(item, dict) for value in lists for item in value) else "set"
    return "number" if pd.api.types.infer_dtype(column, skipna=True) == "floating" else "nominal"


def _without_arrow(frame: pd.DataFrame) -> pd.DataFrame:
    """Arrow's lists, dictionaries and times, which are read unlike those of pandas, as those of pandas."""
    for name, column in frame.items():
        if isinstance(column.dtype, pd.ArrowDtype):
            kind = column.dtype.pyarrow_dtype
            if pa.types.is_nested(kind):
                frame = frame.assign(**{str(name): pd.Series(column.tolist(), index=column.index, dtype=object)})
            elif pa.types.is_dictionary(kind) or pa.types.is_timestamp(kind):
                plain = pa.array(column.array).to_pandas()
                frame = frame.assign(**{str(name): plain.set_axis(column.index)})
    return frame


def encode(
    column: pd.Series[Any], name: str, *, missing: bool = False, keep_unused: bool = False
) -> tuple[Codes, pd.Index[Any]]:
    """Places in the sorted distinct values of a column, and those values; -1 where a value is missing.

    Args:
        column: scalars of one type.
        name: what to call the column in errors.
        missing: whether values may be missing.
        keep_unused: keep the categories of a categorical column that nobody used.

    Raises:
        BadJudgments: a value is missing, infinite, a list, or of another type than the others.
    """
    dtype = column.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        codes: Codes = column.cat.codes.to_numpy().astype(np.int32)
        values: pd.Index[Any] = dtype.categories
        if values.dtype.kind in "Ofc":
            used, first = np.unique(codes, return_index=True)
            first = first[used >= 0]
            _check_scalars(pd.Series(values[codes[first]], index=column.index[first]), name)
        if not keep_unused:
            codes, values = _without_unused(codes, values)
    elif isinstance(dtype, np.dtype) and dtype.kind in "iub":
        return _encode_integers(column.to_numpy())
    else:
        _check_scalars(column, name)
        found, values = pd.factorize(column, sort=True)
        codes = found.astype(np.int32)
    if not missing and codes.size and int(codes.min()) < 0:
        raise BadJudgments(f"The column {name!r} is empty in row {row_of(column, int(codes.argmin()))}.")
    return codes, values


def _encode_integers(values: npt.NDArray[Any]) -> tuple[Codes, pd.Index[Any]]:
    if not values.size:
        return values.astype(np.int32), pd.Index(values)
    low, high = int(values.min()), int(values.max())
    if high - low > 4 * values.size + 1000 or high >= 2**63:
        found, distinct = pd.factorize(values, sort=True)
        return found.astype(np.int32), pd.Index(distinct)
    # Few holes: a table of what occurs is several times quicker than hashing.
    if values.dtype == np.bool_:
        places = values.astype(np.int32) - low
    elif low >= 0 and high < 2**31:
        places = values.astype(np.int32, copy=False)
        places = places - np.int32(low) if low else places
    else:
        places = (values - values.dtype.type(low)).astype(np.int32)
    present = np.zeros(high - low + 1, dtype=bool)
    present[places] = True
    used = np.flatnonzero(present)
    index = pd.Index((used + low).astype(bool) if values.dtype == np.bool_ else used + low)
    if len(used) == len(present):
        return places, index
    renumbered = np.cumsum(present, dtype=np.int32) - np.int32(1)
    return renumbered[places], index


def _without_unused(codes: Codes, values: pd.Index[Any]) -> tuple[Codes, pd.Index[Any]]:
    used = np.flatnonzero(np.bincount(codes[codes >= 0], minlength=len(values)))
    if len(used) == len(values):
        return codes, values
    places = np.full(len(values) + 1, -1, dtype=np.int32)  # the last place stays -1, for missing ones
    places[used] = np.arange(len(used), dtype=np.int32)
    return places[codes], values[used]


def row_of(column: pd.Series[Any] | pd.DataFrame, position: int) -> str:
    """The index label of a row, as errors name it."""
    return shown(column.index[position])


def shown(value: Any) -> str:
    """A value as errors show it: as Python writes it, numpy's numbers as plain ones."""
    return repr(_plain(value))


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_plain, value))
    return value.item() if isinstance(value, np.generic) else value


def _first(mask: npt.NDArray[Any]) -> int:
    return int(np.flatnonzero(mask)[0])


def _check_scalars(column: pd.Series[Any], name: str) -> None:
    """All values scalars of one type; missing ones pass."""
    if column.dtype.kind == "f":
        infinite = np.isinf(column.to_numpy(dtype=np.float64, na_value=np.nan))
        if infinite.any():
            raise BadJudgments(f"The column {name!r} is infinite in row {row_of(column, _first(infinite))}.")
        return
    if column.dtype.kind == "c":
        raise BadJudgments(f"The column {name!r} holds complex numbers (row {row_of(column, 0)}), which have no order.")
    if column.dtype != object:
        return
    inferred = pd.api.types.infer_dtype(column, skipna=True)
    if inferred in {"string", "integer", "boolean", "empty"}:
        return
    if inferred in {"floating", "mixed-integer-float"}:
        _check_scalars(pd.to_numeric(column).astype(np.float64), name)
        return
    first: type[Any] | None = None
    for position, value in enumerate(column):
        if isinstance(value, (list, tuple, set, frozenset, dict, np.ndarray)):
            raise BadJudgments(
                f"The column {name!r} holds {_a(type(value))} in row {row_of(column, position)}, "
                "where one plain value is expected."
            )
        if value is None or value is pd.NA or value is pd.NaT or value != value:
            continue
        if first is None:
            first, where = type(value), row_of(column, position)
        elif type(value) is not first:
            raise BadJudgments(
                f"The column {name!r} mixes types: row {where} holds {_a(first)}, row {row_of(column, position)} "
                f"{_a(type(value))} ({_short(value)})."
            )


def _numbers(column: pd.Series[Any], name: str, *, missing: bool = False) -> Floats:
    if column.dtype.kind not in "iuf":
        for position, value in enumerate(column):
            number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
            if not number and not _is_empty(value):
                raise BadJudgments(
                    f"The column {name!r} must hold numbers, but row {row_of(column, position)} holds {_short(value)}."
                )
    values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    infinite = np.isinf(values)
    if infinite.any():
        raise BadJudgments(f"The column {name!r} is infinite in row {row_of(column, _first(infinite))}.")
    huge = np.abs(values) > LARGEST
    if huge.any():
        raise BadJudgments(
            f"The column {name!r} must hold numbers up to {LARGEST:g}, but row {row_of(column, _first(huge))} holds "
            f"{values[_first(huge)]:g}."
        )
    absent = np.isnan(values)
    if not missing and absent.any():
        raise BadJudgments(f"The column {name!r} is empty in row {row_of(column, _first(absent))}.")
    return values


def _is_empty(value: Any) -> bool:
    return value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and value != value)


def _check_filled(column: pd.Series[Any], position: int, value: Any) -> None:
    if _is_empty(value):
        raise BadJudgments(f"The column 'value' is empty in row {row_of(column, position)}.")


def _results(column: pd.Series[Any]) -> npt.NDArray[Any]:
    values = _objects(column)
    for position, value in enumerate(values):
        if not isinstance(value, (list, tuple)) or not all(isinstance(item, dict) for item in value):
            raise BadJudgments(
                f"The column 'value' must hold lists of Label Studio result items, but row "
                f"{row_of(column, position)} holds {_short(value)}."
            )
    return values


def _objects(column: pd.Series[Any]) -> npt.NDArray[Any]:
    values = np.empty(len(column), dtype=object)
    for position, value in enumerate(column):
        _check_filled(column, position, value)
        values[position] = value
    return values


def _a(kind: type[Any]) -> str:
    """The name of a type with its article."""
    return f"{'an' if kind.__name__[0].lower() in 'aeiou' else 'a'} {kind.__name__}"


def _short(value: Any) -> str:
    text = shown(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _sets(
    column: pd.Series[Any], answers: Iterable[Any] = ()
) -> tuple[Codes, tuple[tuple[int, ...], ...], pd.Index[Any]]:
    known: dict[frozenset[Any], int] = {}
    codes = np.empty(len(column), dtype=np.int32)
    kinds: set[type[Any]] = set()
    for position, value in enumerate(column):
        _check_filled(column, position, value)
        if not isinstance(value, SETS):
            raise BadJudgments(
                f"The column 'value' must hold lists of labels, but row {row_of(column, position)} holds "
                f"{_short(value)}."
            )
        try:
            key = frozenset(value)
        except TypeError:
            raise BadJudgments(
                f"The column 'value' must hold lists of labels, but row {row_of(column, position)} "
                f"holds a list of {type(next(iter(value))).__name__}."
            ) from None
        number = known.get(key)
        if number is None:
            kinds |= {type(label) for label in key}
            if len(kinds) > 1 or any(label != label for label in key):
                raise BadJudgments(
                    f"The column 'value' mixes types or has an empty label in row {row_of(column, position)}: "
                    f"{_short(value)}."
                )
            number = known[key] = len(known)
        codes[position] = number
    named = {label for key in known for label in key}
    # A label of another type than the rest cannot be sorted among them; gold_sets refuses it.
    kinds = {type(label) for label in named} or {str}
    named |= {label for answer in answers for label in answer if type(label) in kinds}
    labels = sorted(named)
    place = {label: number for number, label in enumerate(labels)}
    sets = [tuple(sorted(place[label] for label in key)) for key in known]
    # Sorted, so that the result does not depend on the order of the rows.
    order = sorted(range(len(sets)), key=sets.__getitem__)
    renumbered = np.empty(len(sets), dtype=np.int32)
    renumbered[order] = np.arange(len(sets), dtype=np.int32)
    return renumbered[codes], tuple(sets[number] for number in order), pd.Index(labels)


def _is_ordered(column: pd.Series[Any]) -> bool:
    if isinstance(column.dtype, pd.CategoricalDtype):
        return bool(column.dtype.ordered) or column.dtype.categories.dtype.kind in "iufb"
    return column.dtype.kind in "iufb" or (
        column.dtype == object and pd.api.types.infer_dtype(column) in {"integer", "boolean", "floating"}
    )


def _too_few(judgments: pd.DataFrame, least: int) -> str:
    if judgments.empty:
        return "There are no judgments: the columns 'task', 'annotator' and 'value' have no row."
    return (
        f"There is too little to compare: the columns 'task', 'annotator' and 'value' have {len(judgments)} row"
        f"{'s' if len(judgments) > 1 else ''} (row {row_of(judgments, 0)}), and at least {least} are needed."
    )


def _check_columns(judgments: Any, needs: Collection[str], extra: Iterable[Any]) -> None:
    if not isinstance(judgments, pd.DataFrame):
        raise BadJudgments(
            f"Judgments must be a pandas DataFrame with the columns 'task', 'annotator' and 'value', "
            f"not a {type(judgments).__name__}."
        )
    known = {*REQUIRED, *OPTIONAL, *extra}
    strange = [column for column in judgments.columns if column not in known]
    for column in REQUIRED:
        if column not in judgments.columns:
            others = [str(one) for one in judgments.columns if one not in (*REQUIRED, *OPTIONAL)]
            near = difflib.get_close_matches(column, others, 1)
            hint = f"; did you mean it by {near[0]!r}?" if near else _has(judgments.columns)
            raise BadJudgments(f"The column {column!r} is missing{hint}")
    if strange:
        raise BadJudgments(
            f"The column {strange[0]!r} is unknown: judgments have the columns {', '.join(REQUIRED)} and may have "
            f"{', '.join(OPTIONAL)}; rename it or leave it out."
        )
    twice = judgments.columns[judgments.columns.duplicated()]
    if len(twice):
        raise BadJudgments(f"There are two columns called {twice[0]!r}.")
    _check_needs(judgments, needs)


def _has(columns: Sequence[Any] | pd.Index[Any]) -> str:
    return f"; there are {', '.join(repr(column) for column in columns)}." if len(columns) else "; there are none."


def _check_needs(frame: pd.DataFrame, needs: Collection[str]) -> None:
    for column in needs:
        if column not in frame.columns:
            raise BadJudgments(f"The column {column!r} is missing, which is needed here.")


def confidences(frame: pd.DataFrame) -> Floats:
    """The confidence of each row of a frame that may lack other columns than ``annotator``; NaN where it has none.

    Raises:
        BadJudgments: a column is missing, or holds no numbers from 0 to 1.
    """
    if not isinstance(frame, pd.DataFrame):
        raise BadJudgments(f"Judgments must be a pandas DataFrame, not a {type(frame).__name__}.")
    _check_needs(frame, ("annotator", "confidence"))
    _check_range(frame, "confidence", 1.0)
    return _numbers(frame["confidence"], "confidence", missing=True)


def _check_optional(frame: pd.DataFrame) -> None:
    """The optional columns that are there hold what they must."""
    if "at" in frame.columns:
        at = frame["at"]
        if not pd.api.types.is_datetime64_any_dtype(at.dtype):
            raise BadJudgments(
                f"The column 'at' must hold datetimes, but it holds {at.dtype} (row {row_of(frame, 0)}); "
                "pandas.to_datetime makes them."
            )
    for column, high in (("duration", np.inf), ("confidence", 1.0)):
        if column in frame.columns:
            _check_range(frame, column, high)


def _check_range(frame: pd.DataFrame, column: str, high: float) -> None:
    values = _numbers(frame[column], column, missing=True)
    outside = (values < 0) | (values > high)
    if outside.any():
        where = _first(outside)
        limits = "at least 0" if np.isinf(high) else "from 0 to 1"
        raise BadJudgments(
            f"The column {column!r} must be {limits}, but row {row_of(frame, where)} holds {values[where]:g}."
        )


def _last_of_each(frame: pd.DataFrame, task: Codes, annotator: Codes, annotators: int) -> npt.NDArray[np.intp] | None:
    """The rows that count where somebody judged a task more than once; None where nobody did."""
    key = task.astype(np.int64) * annotators + annotator
    if _all_different(key):
        return None
    repeated = pd.Series(key).duplicated(keep=False).to_numpy()
    if "at" not in frame.columns:
        first, second = np.flatnonzero(key == key[_first(repeated)])[:2]
        raise BadJudgments(
            f"The columns 'task' and 'annotator' name the same judgment in rows {row_of(frame, first)} and "
            f"{row_of(frame, second)} (task {frame['task'].iloc[first]}, annotator {frame['annotator'].iloc[first]})"
            f"{_others(int(pd.Series(key).duplicated().sum()) - 1)}; keep one of them, as "
            "judgments.drop_duplicates(['task', 'annotator'], keep='last') does, or add a column 'at' so that the "
            "later one counts."
        )
    at = frame["at"]
    absent = at.isna().to_numpy() & repeated
    if absent.any():
        raise BadJudgments(
            f"The column 'at' is empty in row {row_of(frame, _first(absent))}, whose task the annotator judged more "
            "than once, so the later judgment cannot be told."
        )
    by_time = np.argsort(pd.DatetimeIndex(at).asi8, kind="stable")
    last = ~pd.Series(key[by_time]).duplicated(keep="last").to_numpy()
    return np.sort(by_time[last])


def _others(more: int) -> str:
    return f", and {more} more row{'s repeat' if more > 1 else ' repeats'} one" if more else ""


def _with_gold(
    column: pd.Series[Any], gold: pd.Series[Any], codes: Codes, labels: pd.Index[Any]
) -> tuple[Codes, pd.Index[Any]]:
    """The categories with those that only gold has."""
    known, answers = encode(gold, "gold", missing=True)
    if not len(answers):
        return codes, labels
    if _family(answers) != _family(labels):
        where = _first(known >= 0)
        raise BadJudgments(
            f"The column 'gold' holds {shown(answers[known[where]])} in row {row_of(gold, where)}, which is of another "
            "type than the values of the column 'value'."
        )
    new = answers.difference(labels, sort=False)
    if not len(new):
        return codes, labels
    if isinstance(column.dtype, pd.CategoricalDtype):
        return codes, labels.append(new)
    together = labels.append(new)
    if not together.is_unique:
        raise BadJudgments(
            "The columns 'value' and 'gold' hold whole numbers too large to be told apart beside missing ones; make "
            "both of them texts."
        )
    order = sorted(range(len(together)), key=together.__getitem__)
    places = np.empty(len(order), dtype=np.int32)
    places[order] = np.arange(len(order), dtype=np.int32)
    return places[codes], together[order]


def _family(values: pd.Index[Any]) -> str:
    """What values can be compared with: whole numbers are like other numbers, and truth values like nothing else."""
    kind = pd.api.types.infer_dtype(values)
    return "number" if kind in {"integer", "floating", "mixed-integer-float"} else kind


def _all_different(key: npt.NDArray[np.int64]) -> bool:
    if not key.size or bool(np.all(key[1:] > key[:-1])):
        return True
    cells = int(key.max()) + 1
    if cells <= 64 * key.size + 1_000_000:
        # A table of what occurs is several times quicker than sorting.
        present = np.zeros(cells, dtype=bool)
        present[key] = True
        return int(np.count_nonzero(present)) == key.size
    ordered = np.sort(key)
    return not bool(np.any(ordered[1:] == ordered[:-1]))


def gold_sets(coded: Coded) -> npt.NDArray[np.int64]:
    """For ``set``: for each task and label, 1 if gold says it belongs there, 0 if not, -1 where nothing is known.

    Raises:
        BadJudgments: gold is no list of labels like the values, or two rows of a task have different gold.
    """
    known = np.full((len(coded.tasks), len(coded.categories)), -1, dtype=np.int64)
    if "gold" not in coded.frame.columns:
        return known
    gold = coded.frame["gold"]
    told = np.zeros(len(coded.tasks), dtype=bool)
    for position, (task, answer) in enumerate(zip(coded.task, gold, strict=True)):
        if _is_empty(answer):
            continue
        places = (
            coded.categories.get_indexer(pd.Index(list(answer), dtype=object)) if isinstance(answer, SETS) else [-1]
        )
        if (np.asarray(places) < 0).any():
            raise BadJudgments(
                f"The column 'gold' must hold lists of labels like 'value', but row {row_of(gold, position)} holds "
                f"{_short(answer)}."
            )
        own = np.zeros(len(coded.categories), dtype=np.int64)
        own[places] = 1
        if told[task] and not np.array_equal(known[task], own):
            raise BadJudgments(
                f"The column 'gold' holds different answers for task {coded.tasks[task]} "
                f"(row {row_of(gold, position)})."
            )
        known[task], told[task] = own, True
    return known


def _gold(coded: Coded) -> Codes:
    answers = np.full(len(coded.tasks), -1, dtype=np.int32)
    if "gold" not in coded.frame.columns:
        return answers
    codes, values = encode(coded.frame["gold"], "gold", missing=True)
    known = codes >= 0
    if not known.any():
        return answers
    gold = coded.categories.get_indexer(values).astype(np.int32)[codes[known]]
    answers[coded.task[known]] = gold
    differs = answers[coded.task[known]] != gold
    if differs.any():
        where = int(np.flatnonzero(known)[_first(differs)])
        raise BadJudgments(
            f"The column 'gold' holds different answers for task {coded.tasks[coded.task[where]]} "
            f"(row {row_of(coded.frame, where)})."
        )
    return answers
