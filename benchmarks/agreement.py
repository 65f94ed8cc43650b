"""How long agreement takes, compared in one run with the usual packages, and how processor time and memory grow.

    python benchmarks/agreement.py [--judgments 1000000] [--largest 10000000]

The data are made up: 100 annotators, 20 labels, 3 judgments for each task, from integer codes.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from labelguard_analytics import krippendorff_alpha, pairwise_agreement
from labelguard_analytics.frames import read
from measuring import best, peak

ANNOTATORS, LABELS, PER_TASK = 100, 20, 3
_FEW: dict[str, Callable[[pd.DataFrame], Any]] = {
    "krippendorff_alpha": krippendorff_alpha,
    "pairwise_agreement": pairwise_agreement,
}


def make(judgments: int, seed: int = 20) -> pd.DataFrame:
    """Judgments of annotators who are right in 70% of cases, as small integers."""
    rng = np.random.default_rng(seed)
    tasks = judgments // PER_TASK
    truth = rng.integers(0, LABELS, tasks, dtype=np.int8)
    first = rng.integers(0, ANNOTATORS, tasks, dtype=np.int16)
    steps = np.cumsum(rng.integers(1, ANNOTATORS // PER_TASK, (tasks, PER_TASK), dtype=np.int16), axis=1)
    who = (first[:, None] + steps) % ANNOTATORS
    wrong = rng.random((tasks, PER_TASK), dtype=np.float32) > 0.7
    label = np.where(wrong, rng.integers(0, LABELS, (tasks, PER_TASK), dtype=np.int8), truth[:, None])
    return pd.DataFrame(
        {
            "task": np.repeat(np.arange(tasks, dtype=np.int32), PER_TASK),
            "annotator": who.ravel().astype(np.int16),
            "value": label.ravel(),
        }
    )


def krippendorff_package(frame: pd.DataFrame) -> float:
    """The package's point estimate from a table of counts, with the counting, as its authors advise for many tasks."""
    import krippendorff

    tasks = int(frame["task"].max()) + 1
    cells = frame["task"].to_numpy() * np.int64(LABELS) + frame["value"].to_numpy()
    counts = np.bincount(cells, minlength=tasks * LABELS).reshape(tasks, LABELS)
    return float(krippendorff.alpha(value_counts=counts, level_of_measurement="nominal"))


def kappas_by_sklearn(pairs: list[tuple[npt.NDArray[Any], npt.NDArray[Any]]]) -> list[float]:
    """Scikit-learn's kappa for the labels of each pair, which are laid out beforehand."""
    from sklearn.metrics import cohen_kappa_score

    return [float(cohen_kappa_score(one, other)) for one, other in pairs]


def shared_labels(frame: pd.DataFrame) -> Iterator[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
    """The labels of every two annotators on the tasks that both judged."""
    who = frame["annotator"].to_numpy().reshape(-1, PER_TASK)
    label = frame["value"].to_numpy().reshape(-1, PER_TASK)
    keys, ones, others = [], [], []
    for i, j in combinations(range(PER_TASK), 2):
        swap = who[:, i] > who[:, j]
        keys.append(np.where(swap, who[:, j], who[:, i]) * np.int32(ANNOTATORS) + np.where(swap, who[:, i], who[:, j]))
        ones.append(np.where(swap, label[:, j], label[:, i]))
        others.append(np.where(swap, label[:, i], label[:, j]))
    key, one, other = (np.concatenate(parts) for parts in (keys, ones, others))
    order = np.argsort(key, kind="stable")
    cuts = np.flatnonzero(np.diff(key[order])) + 1
    return zip(np.split(one[order], cuts), np.split(other[order], cuts), strict=True)


def compare(judgments: int) -> None:
    """The table of ratios."""
    frame = make(judgments)
    coded = read(frame)
    pairs = list(shared_labels(frame))
    theirs = {
        "alpha": best(lambda: krippendorff_package(frame)),
        "all-pairs kappa": best(lambda: kappas_by_sklearn(pairs), 1),
    }
    rows: list[tuple[str, str, Callable[[], Any], str, int]] = [
        ("alpha", "codes", lambda: krippendorff_alpha(read_codes(coded)), "krippendorff, no interval", 15),
        ("alpha", "frame", lambda: krippendorff_alpha(frame), "krippendorff, no interval", 0),
        ("all-pairs kappa", "codes", lambda: pairwise_agreement(read_codes(coded)), "scikit-learn in a loop", 20),
        ("all-pairs kappa", "frame", lambda: pairwise_agreement(frame), "scikit-learn in a loop", 0),
    ]
    print(f"{judgments:,} judgments, {ANNOTATORS} annotators, {LABELS} labels, {PER_TASK} per task; best of 3 runs")
    print(f"{'with 95% interval, from':32}{'CPU s':>10}{'the other':>12}{'ratio':>8}{'wanted':>8}   compared with")
    for what, source, run, other, wanted in rows:
        own = best(run)
        ratio = theirs[what] / own
        print(
            f"{f'{what}, {source}':32}{own:10.3f}{theirs[what]:12.3f}{ratio:8.1f}"
            f"{f'>= {wanted}' if wanted else '':>8}   {other}"
        )
    same = krippendorff_alpha(frame).value, krippendorff_package(frame)
    print(f"alpha {same[0]:.12f}, by the package {same[1]:.12f}")


def read_codes(coded: Any) -> Any:
    """The same codes without anything that an earlier run kept."""
    from labelguard_analytics.frames import from_codes

    return from_codes(coded.task, coded.annotator, coded.value, len(coded.categories))


def grow(largest: int) -> None:
    """Time and memory of one call in a process of its own, from a hundredth of the largest size on."""
    print(f"\n{'judgments':>12}{'what':>22}{'CPU s':>10}{'us each':>10}{'peak MB':>10}   frame of integers to result")
    sizes = (largest // 20, largest // 10, largest // 5, largest // 2, largest)
    for size in sizes:
        for what in _FEW:
            command = [sys.executable, __file__, "--one", what, "--judgments", str(size)]
            seconds, memory = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
            each = float(seconds) / size * 1e6
            print(f"{size:12,}{what:>22}{float(seconds):10.3f}{each:10.4f}{float(memory):10.0f}")


def once(what: str, judgments: int) -> None:
    """Time one call and tell the process' peak memory in MB."""
    frame = make(judgments)
    seconds = best(lambda: _FEW[what](frame), 1)
    print(seconds, peak() / 1024)


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--judgments", type=int, default=1_000_000)
    parser.add_argument("--largest", type=int, default=10_000_000)
    parser.add_argument("--one", choices=sorted(_FEW), help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    if wanted.one:
        once(wanted.one, wanted.judgments)
        return
    compare(wanted.judgments)
    grow(wanted.largest)


if __name__ == "__main__":
    main()
