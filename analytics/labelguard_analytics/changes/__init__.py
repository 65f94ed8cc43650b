"""Sweeps: who, which label, source or cohort changed something, since when, by how much, and how sure that is.

- :mod:`~labelguard_analytics.changes.panel`: judgments as additive sums by annotator, day and stratum;
- :mod:`~labelguard_analytics.changes.consensus`: what the others said, which everybody is compared with;
- :mod:`~labelguard_analytics.changes.periods`: sums by period, brought up to date from night to night;
- :mod:`~labelguard_analytics.changes.measures`: what is looked at;
- :mod:`~labelguard_analytics.changes.scores`: the score of a change, with levels and learning taken out, and its test;
- :mod:`~labelguard_analytics.changes.plan` and :mod:`~labelguard_analytics.changes.parts`: who is examined, and how
  judgments are weighted;
- :mod:`~labelguard_analytics.changes.look`: everybody examined for one measure;
- :mod:`~labelguard_analytics.changes.discover`: control of false discoveries;
- :mod:`~labelguard_analytics.changes.points`: place and size of a change;
- :mod:`~labelguard_analytics.changes.nights`: what is carried from sweep to sweep;
- :mod:`~labelguard_analytics.changes.results`: what comes out, in numbers and words.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import pandas as pd

from labelguard_analytics.changes.measures import MEASURES
from labelguard_analytics.changes.nights import Nights
from labelguard_analytics.changes.panel import Panel
from labelguard_analytics.changes.plan import BY
from labelguard_analytics.changes.results import Change, Changes, TooLittle
from labelguard_analytics.changes.sweep import sweep
from labelguard_analytics.frames import BadJudgments, Coded

__all__ = ["Change", "Changes", "Nights", "Panel", "TooLittle", "detect_changes"]


def detect_changes(
    judgments: pd.DataFrame | Coded | Panel,
    by: str | Sequence[str] = ("annotator", "label"),
    *,
    measures: Sequence[str] | None = None,
    level: float = 0.1,
    nights: Nights | None = None,
    min_judgments: int = 50,
    min_days: int = 5,
) -> Changes:
    """Look for changes: in agreement, accuracy, label shares, disputes, corrections, duration and confidence.

    **What is compared.** Each judgment is compared with what the *other* annotators of the task said. Within the same
    consensus (contested or not) and the same source, an annotator's work after a day is held against the work before,
    with a learning curve of the annotator's own taken out: other tasks are not a change, and getting better is not
    drift. What happens to everybody on a day is taken out too where annotators are told apart; to see it, leave
    ``annotator`` out of ``by``. All days are tried as the first day of a change, on a grid that is fine lately.

    **How sure.** The sums of a day are one observation, neighbouring days may be alike, and the p-value is that of the
    strongest of all days. Discovered are annotators: on average at most the share ``level`` of those named in a sweep
    is innocent (Benjamini and Hochberg; within an annotator, Benjamini and Bogomolov). Whoever drifts also moves the
    consensus of colleagues, so who is found is looked at again without the others who were found, and only who is
    found twice is named. With ``nights``, the share holds over all sweeps together. In benchmarks/changes.py the shares
    hold with strong case mix, learning, weekly cycles, unequal volumes and common shocks.

    **What it cannot know.** A series is given one change, the strongest. A change that all annotators make together
    cannot be told from harder tasks, unless there are known answers. Where there is too little data, it says so.

    >>> import numpy as np
    >>> rng = np.random.default_rng(1)
    >>> day = np.repeat(np.arange(60), 30)
    >>> frame = pd.DataFrame({"task": np.arange(1800) // 3, "annotator": np.tile(["ann", "bob", "cat"], 600)})
    >>> truth = np.repeat(rng.choice(["x", "y"], 600), 3)
    >>> wrong = rng.random(1800) < np.where((frame["annotator"] == "bob") & (day >= 40), 0.4, 0.1)
    >>> frame["value"] = np.where(wrong, np.where(truth == "x", "y", "x"), truth)
    >>> frame["at"] = pd.Timestamp("2026-01-05") + pd.to_timedelta(day, unit="D")
    >>> found = detect_changes(frame, by="annotator")
    >>> found.annotators, found.changes[0].direction
    (('bob',), 'decline')

    Args:
        judgments: a frame with ``task``, ``annotator``, ``at`` and ``value`` (a label, or a list of labels, of which
            agreement is whether the label that most others gave is among them); optionally ``source``, ``cohort``,
            ``gold``, ``duration`` (seconds), ``confidence``, ``disputed`` and ``corrected`` (true or false). Or a
            :class:`Panel`, the additive summary of such frames.
        by: what is told apart: any of ``annotator``, ``label``, ``source``, ``cohort``. With ``label``, every measure
            is looked at over all labels and for each of them.
        measures: some of agreement, accuracy, share, disputed, corrected, duration, confidence; None takes all whose
            columns are there.
        level: false discovery rate over annotators (without them, over groups) of this sweep; with ``nights``, theirs
            counts instead.
        nights: what the last sweep's ``Changes.nights`` was; ``Nights()`` for the first.
        min_judgments: judgments needed before and after a change.
        min_days: days with judgments needed before and after.

    Raises:
        BadJudgments: the frame is not what it must be, or lacks a column that ``by`` names.
        ValueError: ``by``, ``measures``, ``level`` or a minimum is not possible.
    """
    named = (by,) if isinstance(by, str) else tuple(by)
    _check_words(named, BY, "by")
    wanted = tuple(MEASURES) if measures is None else tuple(measures)
    _check_words(wanted, tuple(MEASURES), "measures")
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, but it is {level!r}.")
    for name, number in (("min_judgments", min_judgments), ("min_days", min_days)):
        if number < 2:
            raise ValueError(f"{name} must be at least 2, but it is {number!r}.")
    panel = judgments if isinstance(judgments, Panel) else Panel.of(judgments)
    for column in ("source", "cohort"):
        if column in named and column not in panel.columns:
            raise BadJudgments(f"The column {column!r} is missing, which is needed here.")
    return sweep(panel, named, wanted, level, nights, min_judgments, min_days)


def _check_words(given: Sequence[str], known: Sequence[str], name: str) -> None:
    for word in given:
        if word not in known:
            near = difflib.get_close_matches(str(word), known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else "."
            raise ValueError(f"{name} may name {', '.join(known)}, but not {word!r}{hint}")
    if len(set(given)) != len(given):
        raise ValueError(f"{name} names something twice: {', '.join(given)}.")
