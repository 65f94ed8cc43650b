"""Made-up labeling histories with a known truth: wandering case mix, people who learn or drift."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
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


@dataclass(frozen=True)
class Setting:
    """What a made-up crowd is like; every annotator has a volume, a learning curve and confusions of their own."""

    annotators: int = 100
    labels: int = 10
    weeks: int = 26
    a_day: float = 10
    """Judgments of a typical annotator on a working day."""
    unequal: float = 0.5
    """How unequal volumes are: standard deviation of their logarithm."""
    shock: float = 0.0
    """Points by which a week is harder or easier for everybody (standard deviation)."""
    cycle: float = 0.0
    """Points by which everybody is worse on Mondays and Fridays."""
    drift: float = 0.25
    """The share of judgments that those who drift give to the first label whatever the task is."""


def crowd(
    rng: np.random.Generator, setting: Setting, drifting: Mapping[int, int] | None = None, *, drift: float | None = None
) -> pd.DataFrame:
    """Judgments of tasks that three annotators each see, five days a week, as whole numbers; drawn day by day.

    Teams of three of similar volume form anew every week, and every team then has a case mix of its own (Dirichlet
    with .7 for each label). Annotators start between 55 and 75% accurate and learn towards 90%, exponentially, within
    100 to 400 judgments; their errors follow confusions of their own (uniform Dirichlet for each truth).

    Args:
        rng: where chance comes from.
        setting: what the crowd is like.
        drifting: the week from which each annotator who drifts does so.
        drift: instead of ``setting.drift``.
    """
    people, labels = setting.annotators, setting.labels
    start, pace = rng.uniform(0.55, 0.75, people), rng.uniform(100, 400, people)
    confusion = rng.dirichlet(np.ones(labels), (people, labels))
    confusion[:, np.arange(labels), np.arange(labels)] = 0
    confusion = np.cumsum(confusion / confusion.sum(axis=2, keepdims=True), axis=2)
    volume = rng.lognormal(0, setting.unequal, people)
    begins = np.full(people, setting.weeks)
    for who, week in (drifting or {}).items():
        begins[who] = week
    share = setting.drift if drift is None else drift
    teams = people // 3
    made = np.zeros(people)
    columns: list[list[npt.NDArray[Any]]] = [[], [], [], []]
    tasks = 0
    for week in range(setting.weeks):
        mixes = np.cumsum(rng.dirichlet(np.full(labels, 0.7), teams), axis=1)
        members = np.argsort(np.log(volume) + rng.normal(0, 0.2, people))[: 3 * teams].reshape(teams, 3)
        harder = rng.normal(0, setting.shock) if setting.shock else 0.0
        for weekday in range(5):
            team = np.repeat(np.arange(teams), rng.poisson(setting.a_day * volume[members].mean(axis=1)))
            truth = np.minimum((rng.random(len(team))[:, None] > mixes[team]).sum(axis=1), labels - 1)
            task = tasks + np.arange(len(team))
            tasks += len(team)
            for place in range(3):
                who = members[team, place]
                accuracy = 0.9 - (0.9 - start[who]) * np.exp(-made[who] / pace[who])
                accuracy += harder - setting.cycle * (weekday in (0, 4))
                wrong = np.minimum((rng.random(len(who))[:, None] > confusion[who, truth]).sum(axis=1), labels - 1)
                said = np.where(rng.random(len(who)) < accuracy, truth, wrong)
                said[(begins[who] <= week) & (rng.random(len(who)) < share)] = 0
                for column, values in zip(
                    columns, (task, who, said, np.full(len(who), 7 * week + weekday)), strict=True
                ):
                    column.append(values)
            made += np.bincount(members[team].ravel(), minlength=people)
    task, who, said, day = (np.concatenate(column) for column in columns)
    at = np.datetime64("2026-01-05", "s") + day.astype("timedelta64[D]")
    return pd.DataFrame({"task": task, "annotator": who, "value": said, "at": at})


def end_of(frame: pd.DataFrame) -> pd.Timestamp:
    """The moment of a sweep right after a history's last judgment."""
    return pd.Timestamp(frame["at"].max()) + pd.Timedelta(hours=1)
