"""The options of the similarity measures: which a tag takes, and what they may be."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, Literal, get_args, get_origin

import pandas as pd

from labelguard_analytics.options import check_choice, check_flag, check_number, short


@lru_cache
def parameters(measure: Callable[..., float]) -> Mapping[str, inspect.Parameter]:
    """What a measure takes besides two results."""
    found = inspect.signature(measure, eval_str=True).parameters
    return {name: parameter for name, parameter in found.items() if name not in ("a", "b")}


def check_options(tag: str, measure: Callable[..., float], options: Mapping[str, Any]) -> None:
    """Refuse an option that a tag does not take or that makes no sense.

    Raises:
        ValueError: there is no such option, or it is out of range.
        TypeError: it is of another type.
    """
    known = parameters(measure)
    for name, value in options.items():
        if name not in known:
            takes = f"it takes {', '.join(known)}" if known else "it takes none"
            raise ValueError(f"{tag} takes no option {name!r}; {takes}.")
        kind = known[name].annotation
        if get_origin(kind) is Literal:
            check_choice(name, value, get_args(kind))
        elif value is not None or known[name].default is not None:
            (_moment_tolerance if kind == MomentTolerance else _CHECKS[name])(name, value)


MomentTolerance = float | str | pd.Timedelta


def _moment_tolerance(name: str, value: Any) -> None:
    """Seconds, or a time span as a text."""
    if isinstance(value, (str, pd.Timedelta)):
        try:
            value = pd.Timedelta(value).total_seconds()
        except ValueError:
            raise ValueError(f"{name} must be seconds or a text such as '2h', but it is {short(value)}.") from None
    check_number(name, value, 0.0)


def _scale(name: str, value: Any) -> None:
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)) or len(value) != 2:
        raise TypeError(f"{name} must be a pair of a lower and a higher number, but it is {short(value)}.")
    for end in value:
        check_number(f"Each end of {name}", end)
    if not value[1] > value[0]:
        raise ValueError(f"{name} must name a lower and a higher number, but it is {short(value)}.")


_CHECKS: dict[str, Callable[[str, Any], None]] = {
    "ignore_case": check_flag,
    "least": partial(check_number, least=0.0, most=1.0),
    "merge": check_flag,
    "p": partial(check_number, above=0.0, most=1.0),
    "scale": _scale,
    "spread": partial(check_number, above=0.0),
    "threshold": partial(check_number, above=0.0, most=1.0),
    "tolerance": partial(check_number, least=0.0),
}
