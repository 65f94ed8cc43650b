"""Made-up labeling histories with a known truth: wandering case mix, people who learn or drift."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pandas as pd

LABELS = ("a", "b", "c", "d", "e")
FIRST_DAY = pd.Timestamp("2026-01-05", tz="UTC")


def history(
    seed: int,
    *,
    annotators: int = 30,
    weeks: int = 20,
    a_day: int = 10,
    drifting: Collection[int] = (),
    drift_weeks: int = 4,
    drift: float = 0.25,
) -> pd.DataFrame:
    """Judgments of tasks that three annotators each see, five days a week.

    Every annotator has a case mix of their own that changes from week to week, starts between 55 and 75%
    accurate and learns towards 90%, and confuses labels in their own way. In the last ``drift_weeks`` those
    in ``drifting`` call a share ``drift`` of everything "a".
    """
    rng = np.random.default_rng(seed)
    count = len(LABELS)
    start, pace = rng.uniform(0.55, 0.75, annotators), rng.uniform(100, 400, annotators)
    confusion = rng.dirichlet(np.ones(count), (annotators, count))
    confusion[:, np.arange(count), np.arange(count)] = 0
    confusion /= confusion.sum(axis=2, keepdims=True)
    done = np.zeros(annotators, dtype=int)
    rows: list[tuple[int, int, pd.Timestamp, tuple[str, ...]]] = []
    task = 0
    for week in range(weeks):
        mixes = rng.dirichlet(np.full(count, 0.7), annotators // 3)
        teams = rng.permutation(annotators)[: annotators // 3 * 3].reshape(-1, 3)
        for weekday in range(5):
            day = FIRST_DAY + pd.Timedelta(days=7 * week + weekday)
            for team, mix in zip(teams, mixes, strict=True):
                for number in range(a_day):
                    task += 1
                    truth = int(rng.choice(count, p=mix))
                    for who in team.tolist():
                        accuracy = 0.9 - (0.9 - start[who]) * np.exp(-done[who] / pace[who])
                        said = truth if rng.random() < accuracy else int(rng.choice(count, p=confusion[who, truth]))
                        if who + 1 in drifting and week >= weeks - drift_weeks and rng.random() < drift:
                            said = 0
                        done[who] += 1
                        at = day + pd.Timedelta(minutes=9 * 60 + 5 * number + who)
                        rows.append((task, who + 1, at, (LABELS[said],)))
    frame = pd.DataFrame(rows, columns=["task", "annotator", "at", "value"])
    return frame.sort_values("at", kind="stable", ignore_index=True)


def end_of(frame: pd.DataFrame) -> pd.Timestamp:
    """The moment of a sweep right after a history's last judgment."""
    return pd.Timestamp(frame["at"].max()) + pd.Timedelta(hours=1)
