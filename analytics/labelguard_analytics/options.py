"""Checks of options, in the words in which all functions refuse a bad one."""

from __future__ import annotations

import math
import numbers
from collections.abc import Collection
from typing import Any

import numpy as np


def short(value: Any, most: int = 60) -> str:
    """A value as errors show it: as Python writes it, in one line, cut where that is long.

    >>> short("a" * 100, 10)
    "'aaaaaa..."
    """
    text = " ".join(repr(value).split())
    return text if len(text) <= most else f"{text[: most - 3]}..."


def check_whole(name: str, value: Any, least: int) -> None:
    """Refuse what is no whole number or too small.

    >>> check_whole("iterations", 0, 1)
    Traceback (most recent call last):
    ...
    ValueError: iterations must be at least 1, but it is 0.

    Raises:
        TypeError: it is no whole number.
        ValueError: it is too small.
    """
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        raise TypeError(f"{name} must be a whole number, but it is {short(value)}.")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, but it is {short(value)}.")


def check_number(
    name: str, value: Any, least: float = -math.inf, most: float = math.inf, *, above: float = -math.inf
) -> None:
    """Refuse what is no finite number, or one below ``least``, over ``most`` or not ``above`` something.

    >>> check_number("p", 2, 0, 1)
    Traceback (most recent call last):
    ...
    ValueError: p must be from 0 to 1, but it is 2.

    Raises:
        TypeError: it is no number.
        ValueError: it is NaN, infinite or outside the limits.
    """
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number, but it is {short(value)}.")
    try:
        size = float(value)
    except OverflowError:
        size = math.inf
    if not (least <= size <= most and size > above) or abs(size) == math.inf:
        if above > -math.inf:
            limits = f"above {above:g}" + (f" and at most {most:g}" if most < math.inf else "")
        elif least > -math.inf:
            limits = f"from {least:g} to {most:g}" if most < math.inf else f"at least {least:g}"
        else:
            limits = "finite"
        raise ValueError(f"{name} must be {limits}, but it is {short(value)}.")


def check_flag(name: str, value: Any) -> None:
    """Refuse what is neither True nor False.

    >>> check_flag("use_gold", "no")
    Traceback (most recent call last):
    ...
    TypeError: use_gold must be True or False, but it is 'no'.

    Raises:
        TypeError: it is neither.
    """
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, but it is {short(value)}.")


def check_choice(name: str, value: Any, known: Collection[str]) -> None:
    """Refuse what is none of the known names.

    >>> check_choice("measure", "dise", ("iou", "dice"))
    Traceback (most recent call last):
    ...
    ValueError: measure must be 'iou' or 'dice', but it is 'dise'.

    Raises:
        ValueError: it is none of them.
    """
    if not isinstance(value, str) or value not in known:
        *most, last = map(repr, known)
        names = f"{', '.join(most)} or {last}" if most else last
        raise ValueError(f"{name} must be {names}, but it is {short(value)}.")
