"""Truth inference beside crowd-kit's methods: how often it is right on public data, and how long Dawid-Skene takes.

    python benchmarks/truth.py [--draws 2] [--only-ours] [--judgments 1000000] [--largest 10000000]

**Right**: the seven crowd sets with known answers of LABELGUARD_CROWD_DATA, the answers hidden. Accuracy and
macro-F1 in percent, with all judgments and with 5 and 3 of each task (means over ``--draws`` random choices; 20 is
what docs/truth-and-confusion.md shows, and takes hours because of the other package). Nothing is tuned to a set.

**Fast**: made-up judgments of 100 annotators, 20 labels, 3 for each task, from integer codes, the same number of
steps for both, in one run; then how memory grows.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import f1_score

from labelguard_analytics import dawid_skene, hierarchical_dawid_skene, infer_truth, majority_vote, one_coin
from labelguard_analytics.truth import Truth

PER_TASK = (0, 5, 3)
STEPS = 20
OURS: dict[str, Callable[[pd.DataFrame], Truth]] = {
    "infer_truth": infer_truth,
    "majority_vote": majority_vote,
    "dawid_skene": dawid_skene,
    "hierarchical": hierarchical_dawid_skene,
    "one_coin": one_coin,
}


def crowd_sets() -> dict[str, pd.DataFrame]:
    """The sets by name: task, annotator, value and gold; none where the data is absent."""
    folder = os.environ.get("LABELGUARD_CROWD_DATA")
    root = Path(folder) if folder else Path(__file__).parents[2] / "shared" / "data"
    path = root / "active-crowd-timed" / "judgments.csv.gz"
    if not path.exists():
        print(f"The crowd data is not at {path}; set LABELGUARD_CROWD_DATA to the folder that has it.")
        return {}
    frame = pd.read_csv(path).rename(columns={"item_id": "task", "label": "value"})
    return {str(job): part[["task", "annotator", "value", "gold"]] for job, part in frame.groupby("job")}


def keep(frame: pd.DataFrame, per_task: int, draw: int) -> pd.DataFrame:
    """At most so many judgments of each task, chosen at random; 0 keeps all."""
    if not per_task:
        return frame
    order = np.random.default_rng([per_task, draw]).permutation(len(frame))
    shuffled = frame.iloc[order]
    return shuffled[shuffled.groupby("task").cumcount() < per_task].sort_index()


def ours(frame: pd.DataFrame) -> Iterator[tuple[str, pd.Series[Any]]]:
    """The labels each of our methods finds, without seeing gold."""
    for name, method in OURS.items():
        yield name, method(frame[["task", "annotator", "value"]]).labels


def theirs(frame: pd.DataFrame) -> Iterator[tuple[str, pd.Series[Any]]]:
    """The labels each of crowd-kit's methods finds with its defaults."""
    from crowdkit import aggregation

    renamed = frame.rename(columns={"annotator": "worker", "value": "label"})[["task", "worker", "label"]]
    methods = {
        "MajorityVote": aggregation.MajorityVote(),
        "DawidSkene": aggregation.DawidSkene(),
        "OneCoin": aggregation.OneCoinDawidSkene(),
        "GLAD": aggregation.GLAD(),
        "MACE": aggregation.MACE(random_state=0),
        "MMSR": aggregation.MMSR(random_state=0),
    }
    for name, method in methods.items():
        yield f"crowd-kit {name}", method.fit_predict(renamed)


def measure(draws: int, *, only_ours: bool) -> pd.DataFrame:
    """Accuracy and macro-F1 of every method, set, number per task and draw."""
    rows = []
    for name, frame in crowd_sets().items():
        gold = frame.drop_duplicates("task").set_index("task")["gold"]
        for per_task in PER_TASK:
            for draw in range(draws if per_task else 1):
                sample = keep(frame, per_task, draw)
                for methods in (ours,) if only_ours else (ours, theirs):
                    for method, labels in methods(sample):
                        found = labels.reindex(gold.index)
                        right = float((found == gold).mean())
                        score = float(f1_score(gold, found, average="macro"))
                        rows.append((per_task, name, draw, method, 100 * right, 100 * score))
    return pd.DataFrame(rows, columns=["per task", "set", "draw", "method", "accuracy", "F1"])


def show(measured: pd.DataFrame) -> None:
    """Print one table for each number per task."""
    for per_task in PER_TASK:
        part = measured[measured["per task"] == per_task]
        table = part.pivot_table(index="method", columns="set", values="accuracy")
        best = table[table.index.str.startswith("crowd-kit")].max()
        scores = part.pivot_table(index="method", columns="set", values="F1")
        sets = list(table.columns)
        table["mean"], table["mean F1"] = table[sets].mean(axis=1), scores.mean(axis=1)
        table["worst gap"] = (table[sets] - best).min(axis=1)
        print(f"\n{f'{per_task} judgments of each task' if per_task else 'All judgments'}: accuracy in percent")
        print(table.sort_values("mean", ascending=False).round(1).to_string())


def make(judgments: int) -> pd.DataFrame:
    """Judgments of annotators with accuracies from .6 to .95, as integers."""
    rng = np.random.default_rng(20)
    tasks = judgments // 3
    truth = rng.integers(0, 20, tasks, dtype=np.int8)
    who = ((rng.integers(0, 100, tasks)[:, None] + np.array([0, 33, 67])) % 100).astype(np.int16)
    right = rng.random((tasks, 3), dtype=np.float32) < rng.uniform(0.6, 0.95, 100).astype(np.float32)[who]
    said = np.where(right, truth[:, None], rng.integers(0, 20, (tasks, 3), dtype=np.int8))
    return pd.DataFrame(
        {
            "task": np.repeat(np.arange(tasks, dtype=np.int32), 3),
            "annotator": who.ravel(),
            "value": said.ravel(),
        }
    )


def race(judgments: int) -> None:
    """Dawid-Skene, the same steps for both."""
    from crowdkit.aggregation import DawidSkene

    frame = make(judgments)
    renamed = frame.rename(columns={"annotator": "worker", "value": "label"})
    start = time.perf_counter()
    theirs_ = DawidSkene(n_iter=STEPS, tol=-1.0).fit(renamed)
    middle = time.perf_counter()
    expected: Any = theirs_.labels_.sort_index() if theirs_.labels_ is not None else []
    quickest, same = np.inf, 0.0
    for _ in range(3):
        begin = time.perf_counter()
        found = dawid_skene(frame, iterations=STEPS, tolerance=-1e9)
        quickest = min(quickest, time.perf_counter() - begin)
        same = float((np.asarray(expected) == found.labels.to_numpy()).mean())
    print(
        f"\nDawid-Skene, {judgments:,} judgments, {STEPS} steps: crowd-kit {middle - start:.2f} s, ours with "
        f"intervals {quickest:.2f} s, {(middle - start) / quickest:.1f} times faster; {same:.2%} of the labels equal."
    )


def one_size(judgments: int) -> None:
    """In a process of its own: time and the most memory."""
    import resource

    frame = make(judgments)
    start = time.perf_counter()
    dawid_skene(frame, iterations=STEPS, tolerance=-1e9)
    seconds = time.perf_counter() - start
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{judgments:>12,} judgments: {seconds:6.2f} s, {seconds / judgments * 1e6:.2f} us each, {memory:.2f} GB")


def main() -> None:
    """Measure what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=1)
    parser.add_argument("--only-ours", action="store_true", help="leave the other package out")
    parser.add_argument("--judgments", type=int, default=1_000_000)
    parser.add_argument("--largest", type=int, default=10_000_000)
    parser.add_argument("--one-size", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    if arguments.one_size:
        one_size(arguments.one_size)
        return
    if not arguments.only_ours:
        race(arguments.judgments)
    print(f"\nDawid-Skene, {STEPS} steps, how it grows:")
    for size in (arguments.largest // 100, arguments.largest // 10, arguments.largest):
        subprocess.run([sys.executable, __file__, "--one-size", str(size)], check=True)
    measured = measure(arguments.draws, only_ours=arguments.only_ours)
    if len(measured):
        show(measured)


if __name__ == "__main__":
    main()
