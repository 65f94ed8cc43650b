"""Searches for systematic errors and the duration model: false findings, power, real data, and time.

    python benchmarks/systematic.py [--worlds 100] [--seed 1] [--judgments 1000000]

**Honest** crews (tests/support/crews.py): unequal accuracy, learning, case mix and volumes, confusions of their own,
three sources, sorted items, hard tasks on which everybody tends to the same wrong label. Shown is the share of crews
with any finding, which should be at most the nominal 10%. **Planted**: one systematic error in such a crew; the share
found, and the share of crews in which an innocent is named besides.

**Real**: the seven crowd sets of LABELGUARD_CROWD_DATA; what is found, and the same plants in real streams.

**Time**: processor seconds for made-up judgments of 100 annotators, 20 labels, 3 for each task, and for a tenth of
them.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from labelguard_analytics import (
    Findings,
    concentrated_errors,
    copying_pairs,
    duration_model,
    label_overuse,
    order_patterns,
    prediction_copying,
    source_bias,
)

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

SEARCHES: dict[str, Callable[..., Findings]] = {
    "label_overuse": label_overuse,
    "source_bias": source_bias,
    "prediction_copying": prediction_copying,
    "order_patterns": order_patterns,
    "copying_pairs": copying_pairs,
    "concentrated_errors": concentrated_errors,
}
CREWS: dict[str, dict[str, Any]] = {
    "20 people, 3 of 4 labels each": {},
    "2 labels": {"labels": 2},
    "8 labels": {"labels": 8},
    "2 of each task": {"per_task": 2},
    "5 of each task": {"per_task": 5, "tasks": 800},
    "6 people": {"annotators": 6},
    "6,000 tasks": {"tasks": 6000},
    "items mixed": {"order": "mixed"},
}
PLANTS = {
    "label_overuse": "25% of judgments one label",
    "source_bias": "15 points in one source",
    "prediction_copying": "40% of wrong predictions",
    "order_patterns": "a cycle in 30% of the work",
    "copying_pairs": "30% of answers",
    "concentrated_errors": "70% of errors in one cell",
}
GOLD = "the same, known answers"
PLANTS[GOLD] = PLANTS["prediction_copying"]
console = Console(width=170)


def search(name: str, frame: pd.DataFrame) -> Findings:
    """Search without a column that only one search knows."""
    unknown = [] if name == "prediction_copying" else ["prediction"]
    return SEARCHES[name](frame.drop(columns=unknown, errors="ignore"))


def crews_and_plants(worlds: int, seed: int) -> None:
    """The share of honest crews with a finding, and how often plants are found."""
    import crews

    plants: dict[str, Callable[..., crews.Plant]] = {
        "label_overuse": crews.overusing,
        "source_bias": crews.biased,
        "prediction_copying": crews.copying_predictions,
        "order_patterns": crews.cycling,
        "copying_pairs": crews.copying_each_other,
        "concentrated_errors": crews.confusing,
    }
    title = f"Any finding in an honest crew / plant found / an innocent beside the plant, in % of {worlds} crews"
    columns = [*SEARCHES, GOLD]
    table = Table("crew", *(f"{name}\n{PLANTS[name]}" for name in columns), title=title)
    total = {name: np.zeros(3) for name in columns}
    for number, (label, world) in enumerate(CREWS.items()):
        counts = {name: np.zeros(3) for name in columns}
        for draw in range(worlds):
            made = crews.crew(100_000 * seed + 1000 * number + draw, **world)
            answers = {"gold": made.names[made.truth]}
            for column in columns:
                name, known = ("prediction_copying", answers) if column == GOLD else (column, {})
                planted = plants[name](made, draw)
                named = search(name, planted.frame.assign(**known)).discovered
                counts[column] += [
                    bool(search(name, made.frame.assign(**known)).discovered),
                    planted.guilty in named,
                    bool(set(named) - {planted.guilty}),
                ]
        table.add_row(label, *(" / ".join(f"{100 * part / worlds:.0f}" for part in counts[name]) for name in columns))
        for name in columns:
            total[name] += counts[name] / len(CREWS)
    table.add_section()
    table.add_row("mean", *(" / ".join(f"{100 * part / worlds:.0f}" for part in total[name]) for name in columns))
    console.print(table)


def real(seed: int) -> None:
    """What is found in the crowd sets as they are, and with plants."""
    import crews

    folder = os.environ.get("LABELGUARD_CROWD_DATA")
    root = Path(folder) if folder else Path(__file__).parents[2] / "shared" / "data"
    path = root / "active-crowd-timed" / "judgments.csv.gz"
    if not path.exists():
        console.print(f"The crowd data is not at {path}; set LABELGUARD_CROWD_DATA to the folder that has it.")
        return
    everything = pd.read_csv(path).rename(columns={"item_id": "task", "label": "value"})
    names = ["label_overuse", "order_patterns", "copying_pairs", "concentrated_errors"]
    table = Table("set", *names, "prediction_copying", title="Found as it is (of those looked at) / plants found of 10")
    for job, part in everything.groupby("job"):
        frame = part.drop_duplicates(["task", "annotator"])[["task", "annotator", "value", "gold"]]
        frame["annotator"] = pd.factorize(frame["annotator"])[0]
        labels = np.unique(frame[["value", "gold"]])
        codes = np.searchsorted(labels, frame["value"])
        truth = np.searchsorted(labels, frame["gold"])
        base = frame[["task", "annotator"]].assign(value=codes).reset_index(drop=True)
        made = crews.Crew(base, truth, codes, len(labels), np.arange(len(labels)))
        plants = {
            "label_overuse": crews.overusing,
            "order_patterns": crews.cycling,
            "copying_pairs": crews.copying_each_other,
            "concentrated_errors": crews.confusing,
            "prediction_copying": crews.copying_predictions,
        }
        rng = np.random.default_rng([seed, 9])
        tasks = base["task"].unique()
        wrong = pd.Series(rng.random(len(tasks)) < 0.25, index=tasks)[base["task"]].to_numpy()
        other = pd.Series(rng.integers(1, len(labels), len(tasks)), index=tasks)[base["task"]].to_numpy()
        guess = np.where(wrong, (truth + other) % len(labels), truth)
        cells = []
        for name, plant in plants.items():
            predicted = name == "prediction_copying"
            own = (
                crews.Crew(base.assign(prediction=guess), truth, codes, len(labels), made.names) if predicted else made
            )
            result = search(name, own.frame)
            looked = int(result.table["p"].notna().sum())
            hits = 0
            for draw in range(10):
                planted = plant(own, 100 * seed + draw)
                hits += planted.guilty in search(name, planted.frame).discovered
            cells.append(f"{len(result.discovered)} of {looked:,} / {hits}")
        table.add_row(str(job), *cells)
    console.print(table)


def made_up(judgments: int, seed: int) -> pd.DataFrame:
    """Judgments with everything the searches need."""
    rng = np.random.default_rng([seed, 20])
    tasks = judgments // 3
    truth = rng.integers(0, 20, tasks)
    who = (rng.integers(0, 100, tasks)[:, None] + np.array([0, 33, 67])) % 100
    right = rng.random((tasks, 3)) < rng.uniform(0.6, 0.95, 100)[who]
    said = np.where(right, truth[:, None], rng.integers(0, 20, (tasks, 3)))
    frame = pd.DataFrame({"task": np.repeat(np.arange(tasks), 3), "annotator": who.ravel(), "value": said.ravel()})
    place = frame.groupby("annotator").cumcount()
    minutes = place // 100 * 1440 + place % 100
    return frame.assign(
        at=pd.Timestamp("2026-01-05") + pd.to_timedelta(minutes, unit="min"),
        source=np.repeat(rng.integers(0, 5, tasks), 3),
        prediction=np.repeat(np.where(rng.random(tasks) < 0.8, truth, rng.integers(0, 20, tasks)), 3),
        duration=np.exp(3 + 0.4 * rng.standard_t(4, len(frame))),
    )


def seconds(judgments: int, seed: int) -> None:
    """Processor time, and how it grows."""
    table = Table("", f"{judgments // 10:,}", f"{judgments:,}", "growth", title="Processor seconds")
    frames = [made_up(judgments // 10, seed), made_up(judgments, seed)]
    work: dict[str, Callable[[pd.DataFrame], object]] = {
        "duration_model": lambda frame: duration_model(frame.drop(columns=["source", "prediction"])),
        **{name: partial(search, name) for name in SEARCHES},
    }
    for name, run in work.items():
        taken = []
        for frame in frames:
            start = time.process_time()
            run(frame)
            taken.append(time.process_time() - start)
        table.add_row(name, *(f"{each:.2f}" for each in taken), f"{taken[1] / taken[0]:.1f} times")
    console.print(table)


def main() -> None:
    """Measure what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--judgments", type=int, default=1_000_000)
    arguments = parser.parse_args()
    seconds(arguments.judgments, arguments.seed)
    real(arguments.seed)
    crews_and_plants(arguments.worlds, arguments.seed)


if __name__ == "__main__":
    main()
