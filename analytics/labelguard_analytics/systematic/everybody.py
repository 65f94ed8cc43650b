"""A label that everybody together prefers in one source: only known answers can show it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from labelguard_analytics.frames import Coded, Floats
from labelguard_analytics.systematic.exchange import Ints
from labelguard_analytics.systematic.findings import too_little

TASKS = 30
"""Tasks with a known answer and an error that a source and the others need."""


def by_everybody(coded: Coded, source: Ints, sources: pd.Index, tolerance: float) -> pd.DataFrame:
    """Rows like those of single annotators, with None for the annotator; none where there are no known answers.

    Items may be harder in a source, so what counts is not how many errors there are but where they go: of the errors on
    items of one truth, the share that goes to a label, against the same share in other sources. Tasks are the
    observations, because people fall for the same item together. With two labels every error goes to the other one,
    so nothing can be said.
    """
    gold = coded.gold().astype(np.int64)
    labels, number = len(coded.categories), len(sources)
    judged = (gold[coded.task] >= 0) & (source >= 0)
    wrong = judged & (coded.value != gold[coded.task])
    if number < 2 or labels < 3 or not judged.any():
        return pd.DataFrame()
    made = np.bincount(source[judged], minlength=number)
    # One row for each source and task with an error, since a task could be in two sources.
    key, place = np.unique(coded.task[wrong].astype(np.int64) * number + source[wrong], return_inverse=True)
    where, truth = key % number, gold[key // number]
    table = np.zeros((len(key), labels))
    np.add.at(table, (place, coded.value[wrong]), 1.0)
    total = table.sum(axis=1)
    rows = [
        _one(table, total, truth, where == place_of, str_of, int(made[place_of]), coded, tolerance)
        for place_of, str_of in enumerate(sources)
    ]
    return pd.DataFrame(rows)


def _one(
    table: Floats,
    total: Floats,
    truth: Ints,
    here: npt.NDArray[np.bool_],
    source: object,
    made: int,
    coded: Coded,
    tolerance: float,
) -> dict[str, object]:
    labels = len(coded.categories)
    fewest = int(min(here.sum(), (~here).sum()))
    row: dict[str, object] = {
        "annotator": None,
        "source": source,
        "label": None,
        "used": 0.0,
        **dict.fromkeys(("expected", "odds_ratio", "low", "high", "points", "p"), np.nan),
        "judgments": made,
        "disputed": int(total[here].sum()),
        "reason": too_little(fewest, "task with an error of known truth, in the source or outside it", TASKS),
    }
    if fewest < TASKS:
        return row
    elsewhere, errors = np.zeros((labels, labels)), np.bincount(truth[~here], total[~here], labels)
    np.add.at(elsewhere, truth[~here], table[~here])
    share = elsewhere / np.maximum(errors, 1.0)[:, None]
    known = here & (errors[truth] >= TASKS / 3)
    expected = total[known, None] * share[truth[known]]
    observed, hoped = table[known].sum(axis=0), expected.sum(axis=0)
    inside = ((table[known] - expected) ** 2).sum(axis=0)
    # The shares elsewhere are estimates too, from tasks of their own.
    weight = np.bincount(truth[known], total[known], labels) / np.maximum(errors, 1.0)
    spread = (table[~here] - total[~here, None] * share[truth[~here]]) * weight[truth[~here], None]
    error = np.sqrt(inside + (spread**2).sum(axis=0))
    usable = (hoped >= 1) & (error > 0)
    if not usable.any():
        return row
    df = max(1, int(known.sum()) // 2 - 1)
    beyond = np.where(usable, (observed - tolerance * hoped) / np.where(error > 0, error, 1.0), -np.inf)
    p = stats.t.sf(beyond, df)
    best = int(np.argmin(np.where(usable, p, 2.0)))
    half = float(stats.t.ppf(0.975, df)) * error[best]
    ratio, low, high = (max(0.0, float(observed[best] + side * half) / hoped[best]) for side in (0, -1, 1))
    row.update(
        label=coded.categories[best],
        used=float(observed[best]),
        expected=float(hoped[best]),
        odds_ratio=ratio,
        low=low,
        high=high,
        points=float(observed[best] - hoped[best]) / max(made, 1),
        p=float(min(1.0, p[best] * int(usable.sum()))),
        reason="",
    )
    return row
