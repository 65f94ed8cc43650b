"""Checks of options, in the words in which all functions refuse a bad one."""

from __future__ import annotations

import numbers
from typing import Any


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
        raise TypeError(f"{name} must be a whole number, but it is {value!r}.")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, but it is {value!r}.")
