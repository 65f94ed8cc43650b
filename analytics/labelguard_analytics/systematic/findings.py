"""What the searches for systematic errors hand back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from labelguard_analytics.estimate import _count
from labelguard_analytics.fdr import fdr


@dataclass(frozen=True)
class Findings:
    """Who was looked at, what was found, and how sure it is."""

    table: pd.DataFrame
    """One row for each annotator, pair, or annotator and source, strongest evidence first. Every table has the
    effect with its 95% interval ``low`` to ``high``, ``p``, ``q`` (the level at which the row is just discovered),
    ``discovered``, and ``reason`` (why nothing can be said, as a sentence; empty when something can)."""
    discovered: tuple[Any, ...]
    """The annotators (or pairs, or annotators with a source) found, strongest evidence first: on average at most the
    share ``level`` of them is innocent."""
    level: float
    """The false discovery rate."""
    words: str

    def explain(self) -> str:
        """The result in two plain sentences."""
        return self.words


def conclude(
    table: pd.DataFrame,
    keys: Sequence[str],
    level: float,
    describe: Callable[[pd.Series[Any]], str],
    *,
    what: str,
    nothing: str,
    advice: str,
    apart: Callable[[pd.DataFrame], npt.NDArray[np.bool_]] | None = None,
) -> Findings:
    """Control false discoveries over the rows about which something can be said, and put it into words.

    Args:
        table: with ``p`` (NaN where nothing can be said), ``reason`` and the columns of the effect.
        keys: the columns that name a row.
        level: the false discovery rate.
        describe: a clause about a discovered row, without a full stop.
        what: what a row is, in the plural.
        nothing: what is said where nothing is found: "Of 12 annotators, none ...".
        advice: the second sentence, about what to do.
        apart: of the discovered rows, those that are kept back all the same; it may fill in their ``reason``.
    """
    told = table["p"].notna().to_numpy()
    q = np.full(len(table), np.nan)
    found = np.zeros(len(table), dtype=bool)
    if told.any():
        result = fdr(table["p"].to_numpy(dtype=np.float64)[told], level)
        q[told], found[told] = result.adjusted, result.mask
    table = table.assign(q=q, discovered=found)
    if apart is not None and found.any():
        kept_back = apart(table)
        table["discovered"] = found & ~kept_back
    order = np.lexsort((np.arange(len(table)), table["p"].fillna(2.0).to_numpy()))
    columns = [name for name in table.columns if name != "reason"]
    table = table.iloc[order][[*columns, "reason"]].reset_index(drop=True)
    hit = table[table["discovered"]]
    names = hit[list(keys)].itertuples(index=False, name=None)
    discovered = tuple(row[0] if len(keys) == 1 else row for row in names)
    words = _words(table, hit, describe, what, nothing, advice, int(told.sum()))
    return Findings(table, discovered, level, words)


def _words(
    table: pd.DataFrame,
    hit: pd.DataFrame,
    describe: Callable[[pd.Series[Any]], str],
    what: str,
    nothing: str,
    advice: str,
    told: int,
) -> str:
    few = len(table) - told
    if not told:
        return str(table["reason"].iloc[0]) if len(table) else f"Too little data: there are no {what} to look at."
    rest = f"; about {few:,} there is too little data" if few else ""
    if not len(hit):
        return f"Of {told:,} {what}, {nothing}{rest}. There is nothing to do."
    more = len(hit) - 1
    others = f", and {more} more" if more else ""
    return f"{describe(hit.iloc[0])}{others}. {advice}"


def too_little(count: int, what: str, needed: int) -> str:
    """Why nothing can be said.

    >>> too_little(3, "judgment on which people differ", 20)
    'Too little data: 3 judgments on which people differ, where 20 are needed.'
    """
    first, _, rest = what.partition(" ")
    return f"Too little data: {_count(count, first)}{' ' if rest else ''}{rest}, where {needed} are needed."


def check_arguments(level: float, tolerance: float, least: int) -> None:
    """Raise a sentence where an argument is not what it must be."""
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, but it is {level!r}.")
    if not tolerance >= 1:
        raise ValueError(f"tolerance is an odds ratio of at least 1, but it is {tolerance!r}.")
    if least < 1:
        raise ValueError(f"min_judgments must be at least 1, but it is {least!r}.")
