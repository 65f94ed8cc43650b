"""Read one column: scalars as codes, numbers, sets of labels, results; and refuse what it must not hold."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from labelguard_analytics.frames.errors import BadJudgments, a_type, brief, first_of, row_of
from labelguard_analytics.frames.terms import LARGEST, SETS, Codes, Floats


def without_arrow(frame: pd.DataFrame) -> pd.DataFrame:
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


def _check_scalars(column: pd.Series[Any], name: str) -> None:
    """All values scalars of one type; missing ones pass."""
    if column.dtype.kind == "f":
        infinite = np.isinf(column.to_numpy(dtype=np.float64, na_value=np.nan))
        if infinite.any():
            raise BadJudgments(f"The column {name!r} is infinite in row {row_of(column, first_of(infinite))}.")
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
                f"The column {name!r} holds {a_type(type(value))} in row {row_of(column, position)}, "
                "where one plain value is expected."
            )
        if value is None or value is pd.NA or value is pd.NaT or value != value:
            continue
        if first is None:
            first, where = type(value), row_of(column, position)
        elif type(value) is not first:
            raise BadJudgments(
                f"The column {name!r} mixes types: row {where} holds {a_type(first)}, row {row_of(column, position)} "
                f"{a_type(type(value))} ({brief(value)})."
            )


def numbers_of(column: pd.Series[Any], name: str, *, missing: bool = False) -> Floats:
    """A column as numbers; NaN where a value is missing and may be."""
    if column.dtype.kind not in "iuf":
        for position, value in enumerate(column):
            number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
            if not number and not is_empty(value):
                raise BadJudgments(
                    f"The column {name!r} must hold numbers, but row {row_of(column, position)} holds {brief(value)}."
                )
    values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    infinite = np.isinf(values)
    if infinite.any():
        raise BadJudgments(f"The column {name!r} is infinite in row {row_of(column, first_of(infinite))}.")
    huge = np.abs(values) > LARGEST
    if huge.any():
        raise BadJudgments(
            f"The column {name!r} must hold numbers up to {LARGEST:g}, but row {row_of(column, first_of(huge))} holds "
            f"{values[first_of(huge)]:g}."
        )
    absent = np.isnan(values)
    if not missing and absent.any():
        raise BadJudgments(f"The column {name!r} is empty in row {row_of(column, first_of(absent))}.")
    return values


def is_empty(value: Any) -> bool:
    """Whether a value is none."""
    return value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and value != value)


def _check_filled(column: pd.Series[Any], position: int, value: Any) -> None:
    if is_empty(value):
        raise BadJudgments(f"The column 'value' is empty in row {row_of(column, position)}.")


def results_of(column: pd.Series[Any]) -> npt.NDArray[Any]:
    """A column of lists of Label Studio result items."""
    values = objects_of(column)
    for position, value in enumerate(values):
        if not isinstance(value, (list, tuple)) or not all(isinstance(item, dict) for item in value):
            raise BadJudgments(
                f"The column 'value' must hold lists of Label Studio result items, but row "
                f"{row_of(column, position)} holds {brief(value)}."
            )
    return values


def objects_of(column: pd.Series[Any]) -> npt.NDArray[Any]:
    """A column as it is, without missing values."""
    values = np.empty(len(column), dtype=object)
    for position, value in enumerate(column):
        _check_filled(column, position, value)
        values[position] = value
    return values


def sets_of(
    column: pd.Series[Any], answers: Iterable[Any] = ()
) -> tuple[Codes, tuple[tuple[int, ...], ...], pd.Index[Any]]:
    """Places in the distinct sets of labels, these sets, and the labels."""
    known: dict[frozenset[Any], int] = {}
    codes = np.empty(len(column), dtype=np.int32)
    kinds: set[type[Any]] = set()
    for position, value in enumerate(column):
        _check_filled(column, position, value)
        if not isinstance(value, SETS):
            raise BadJudgments(
                f"The column 'value' must hold lists of labels, but row {row_of(column, position)} holds "
                f"{brief(value)}."
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
                    f"{brief(value)}."
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


def is_ordered(column: pd.Series[Any]) -> bool:
    """Whether the order of a column's labels means something."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        return bool(column.dtype.ordered) or column.dtype.categories.dtype.kind in "iufb"
    return column.dtype.kind in "iufb" or (
        column.dtype == object and pd.api.types.infer_dtype(column) in {"integer", "boolean", "floating"}
    )
