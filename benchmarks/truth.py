"""Truth inference beside crowd-kit's methods: how often it is right on public data, and how long Dawid-Skene takes.

    python benchmarks/truth.py [--draws 20] [--only-ours] [--cache FILE] [--judgments 1000000]

**Right**: the seven crowd sets with known answers of LABELGUARD_CROWD_DATA, the answers hidden. Accuracy and
macro-F1 in percent, with all judgments and with 5 and 3 of each task (means over ``--draws`` random choices; 20 is
what docs/truth-and-confusion.md shows). The other package takes hours for it, so its finished results are kept in
``benchmarks/truth_peers.csv``, and each run goes on from there; what is missing of 20 draws is computed. Ours are
always computed. Nothing is tuned to a set.

**Fast**: made-up judgments of 100 annotators, 20 labels, 3 for each task, from integer codes, the same number of
steps for both, in one run; then how memory grows.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import f1_score

from labelguard_analytics import dawid_skene, hierarchical_dawid_skene, infer_truth, majority_vote, one_coin
from labelguard_analytics.truth import Truth
from measuring import best, peak

PER_TASK = (0, 5, 3)
CACHE = Path(__file__).with_name("truth_peers.csv")
STEPS = 20
OURS: dict[str, Callable[[pd.DataFrame], Truth]] = {
    "infer_truth": infer_truth,
    "majority_vote": majority_vote,
    "dawid_skene": dawid_skene,
    "hierarchical": hierarchical_dawid_skene,
    "one_coin": one_coin,
}
THEIRS = {
    "MajorityVote": "MajorityVote",
    "DawidSkene": "DawidSkene",
    "OneCoin": "OneCoinDawidSkene",
    "GLAD": "GLAD",
    "MACE": "MACE",
    "MMSR": "MMSR",
}
"""Methods of crowd-kit by the name in the table; its defaults, and seeds where it takes them."""
SETTINGS: dict[str, dict[str, int]] = {
    # Its default seed makes each of its ten restarts the same run: one finds the same in a tenth of the time.
    "MACE": {"random_state": 0, "n_restarts": 1},
    "MMSR": {"random_state": 0},
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


def their(method: str) -> Callable[[pd.DataFrame], pd.Series[Any] | None]:
    """One of crowd-kit's methods with its defaults, as a function from judgments to labels; None where it fails."""
    from crowdkit import aggregation

    made = getattr(aggregation, THEIRS[method])
    settings = SETTINGS.get(method, {})

    def labels(frame: pd.DataFrame) -> pd.Series[Any] | None:
        renamed = frame.rename(columns={"annotator": "worker", "value": "label"})[["task", "worker", "label"]]
        # Numbers in the order of the names: the same answers, and pandas looks them up in two thirds of the time.
        tasks, task = np.unique(renamed["task"].to_numpy(object), return_inverse=True)
        worker = np.unique(renamed["worker"].to_numpy(object), return_inverse=True)[1]
        try:
            found: pd.Series[Any] = made(**settings).fit_predict(renamed.assign(task=task, worker=worker))
        except ValueError:  # MMSR finds no skills in some draws
            return None
        return found.set_axis(tasks[found.index])

    return labels


class Cache:
    """Finished results of the other package in a file of lines, so that a comparison of hours can be resumed.

    A result is known by the method, the package's version, the set, the judgments kept of each task and the draw.
    Our own methods are never kept: what is measured is the code that is there.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.version = version("crowd-kit")
        self.known: dict[tuple[str, str, str, int, int], tuple[float, float]] = {}
        for line in path.read_text().splitlines() if path and path.exists() else ():
            method, package, name, per_task, draw, right, score = line.split(",")
            self.known[method, package, name, int(per_task), int(draw)] = float(right), float(score)

    def get(self, method: str, name: str, per_task: int, draw: int) -> tuple[float, float] | None:
        """Accuracy and macro-F1 where they are known."""
        return self.known.get((method, self.version, name, per_task, draw))

    def put(self, method: str, name: str, per_task: int, draw: int, scores: tuple[float, float]) -> None:
        """Remember a result and write it down at once."""
        key = (method, self.version, name, per_task, draw)
        self.known[key] = scores
        if self.path:
            with self.path.open("a") as file:
                file.write(",".join(map(str, (*key, *scores))) + "\n")


def scores(labels: pd.Series[Any] | None, gold: pd.Series[Any]) -> tuple[float, float]:
    """Accuracy and macro-F1 in percent; a task without a label counts as wrong, no labels at all as not measured."""
    if labels is None:
        return math.nan, math.nan
    found = labels.reindex(gold.index)
    return 100 * float((found == gold).mean()), 100 * float(f1_score(gold, found, average="macro"))


def measure(draws: int, *, only_ours: bool, cache: Cache) -> pd.DataFrame:
    """Accuracy and macro-F1 of every method, set, number per task and draw."""
    rows = []
    for name, frame in crowd_sets().items():
        gold = frame.drop_duplicates("task").set_index("task")["gold"]
        for per_task in PER_TASK:
            for draw in range(draws if per_task else 1):
                sample = keep(frame, per_task, draw)[["task", "annotator", "value"]]
                at = (name, per_task, draw)
                for method, infer in OURS.items():
                    rows.append((*at, method, *scores(infer(sample).labels, gold)))
                for method in () if only_ours else THEIRS:
                    found = cache.get(method, *at)
                    if found is None:
                        found = scores(their(method)(sample), gold)
                        cache.put(method, *at, found)
                    rows.append((*at, f"crowd-kit {method}", *found))
    return pd.DataFrame(rows, columns=["set", "per task", "draw", "method", "accuracy", "F1"])


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
    peers: list[Any] = []
    theirs = best(lambda: peers.append(DawidSkene(n_iter=STEPS, tol=-1.0).fit(renamed)))
    ours: list[Truth] = []
    quickest = best(lambda: ours.append(dawid_skene(frame, iterations=STEPS, tolerance=-1e9)))
    same = float((peers[-1].labels_.sort_index().to_numpy() == ours[-1].labels.to_numpy()).mean())
    print(
        f"\nDawid-Skene, {judgments:,} judgments, {STEPS} steps, processor time, best of 3: crowd-kit {theirs:.2f} s, "
        f"ours with intervals {quickest:.2f} s, {theirs / quickest:.1f} times faster (wanted: 8); {same:.2%} of the "
        "labels equal."
    )


def one_size(judgments: int) -> None:
    """In a process of its own: processor time and the most memory."""
    frame = make(judgments)
    seconds = best(lambda: dawid_skene(frame, iterations=STEPS, tolerance=-1e9), 1)
    memory = peak() / 1024**2
    print(f"{judgments:>12,} judgments: {seconds:6.2f} s, {seconds / judgments * 1e6:.2f} us each, {memory:.2f} GB")


def main() -> None:
    """Measure what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--only-ours", action="store_true", help="leave the other package out")
    parser.add_argument(
        "--cache", type=Path, default=CACHE, help="keep the other package's finished results in this file"
    )
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
    measured = measure(arguments.draws, only_ours=arguments.only_ours, cache=Cache(arguments.cache))
    if len(measured):
        show(measured)


if __name__ == "__main__":
    main()
