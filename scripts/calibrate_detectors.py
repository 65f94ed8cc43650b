"""Find the thresholds of the change detectors by simulation, and write them where they are read.

    python scripts/calibrate_detectors.py [--worlds 3000] [--seed 1] [--tables LEARNT] [--run-lengths 5000] [--write]

For each level and run length it looks for the threshold at which streams without a change just keep what is
promised, with a few percent to spare for chance: the mean run length, and the share of streams with an alarm in
the first 1,000 values and in the first fifth of the run length. The run length of a CUSUM is nearly proportional
to its threshold, so a few steps of proportion come close enough. Where the level is learnt, the threshold in use
follows the level learnt so far, so neighbouring levels matter: after a change of what is learnt it takes two rounds.

About fifteen minutes of one core for everything; ``--write`` replaces the tables in ``streams/thresholds.py``.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

from labelguard_analytics.streams import learning, thresholds
from labelguard_analytics.streams.many import first_alarms
from labelguard_analytics.streams.odds import GRID, steps, watched

SPARE_KNOWN, SPARE_LEARNT = 1.08, 1.05
"""How much more than the promise is asked for. With the level known alarms become a little more frequent after the
part that is simulated, while a level learnt becomes better and better."""
EARLY_WORLDS = 20_000
STEPS = 3
TARGET = Path(thresholds.__file__)


def places(levels: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The log odds, over which thresholds are interpolated."""
    return np.asarray(np.log(levels / (1.0 - levels)))


def kept(alarms: npt.NDArray[np.int64], length: int, run_length: float, spare: float) -> float:
    """By what factor the promise about the mean run length is kept; below 1 it is broken."""
    exposure = np.where(alarms == 0, length, alarms).sum()
    return float(exposure / max(1, (alarms > 0).sum()) / (spare * run_length))


def kept_early(alarms: npt.NDArray[np.int64], early: float, run_length: float, spare: float) -> float:
    """By what factor the promise about alarms in the first ``early`` values is kept."""
    share = ((alarms > 0) & (alarms <= early)).sum() / len(alarms)
    return float(0.95 * early / run_length / spare / max(share, 1e-6))


class Calibration:
    """Streams without a change at every level, for one run length."""

    def __init__(self, run_length: int, learnt: bool, worlds: int, seed: int) -> None:
        self.run_length, self.learnt = run_length, learnt
        self.warm_up = learning.WARM_UP if learnt else 0
        self.spare = SPARE_LEARNT if learnt else SPARE_KNOWN
        # Long runs are costly, and their alarms come at a constant rate after the beginning.
        self.length = round(run_length * (1.2 if run_length <= 5_000 else 0.7))
        self.worlds = max(400, round(worlds * min(1.0, 5_000 / run_length)))
        self.early = [t for t in {min(1_000, run_length // 5), run_length // 5} if t <= self.length]
        self.seed = seed

    def streams(self, level: float, worlds: int, length: int, which: int) -> npt.NDArray[np.bool_]:
        """So many streams, the same for the same level."""
        rng = np.random.default_rng([self.seed, which, round(1000 * level), self.run_length])
        return np.array([rng.random(length + self.warm_up, dtype=np.float32) < level for _ in range(worlds)])

    def one_level(self, level: float, table: npt.NDArray[np.float64], column: int) -> float:
        """The logarithm of the threshold that just keeps the promises at a level."""
        long = self.streams(level, self.worlds, self.length, 0)
        # What happens early is rare where the run length is long, but short to simulate.
        first = min(self.early)
        short = self.streams(level, EARLY_WORLDS, first, 1)
        grid = places(watched(np.arange(GRID + 1) / GRID))
        offset = 0.0
        for _ in range(STEPS):
            known = None if self.learnt else level
            odds = steps(np.interp(grid, places(np.array(thresholds.LEVELS)), table) + offset)
            alarms = first_alarms(long, odds, known)
            alarms = np.where(alarms > 0, alarms - self.warm_up, 0)
            factors = [kept(alarms, self.length, self.run_length, self.spare)]
            factors += [kept_early(alarms, t, self.run_length, self.spare) for t in self.early if t > first]
            alarms = first_alarms(short, odds, known)
            factors.append(
                kept_early(np.where(alarms > 0, alarms - self.warm_up, 0), first, self.run_length, self.spare)
            )
            offset -= float(np.clip(np.log(min(factors)), -1.0, 1.0))
        return float(table[column] + offset)

    def run(self, start: npt.NDArray[np.float64], rounds: int) -> npt.NDArray[np.float64]:
        """The logarithms of the thresholds of all levels, from a first guess."""
        table = start
        for _ in range(rounds):
            table = np.array([self.one_level(level, table, i) for i, level in enumerate(thresholds.LEVELS)])
        return table


def written(rows: list[npt.NDArray[np.float64]]) -> str:
    """A table as it stands in the source."""
    lines = ["    (" + ", ".join(f"{value:.3f}" for value in row) + ")," for row in rows]
    return "(\n" + "\n".join(lines) + "\n)"


def main() -> None:
    """Calibrate and print, and write where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--tables", nargs="+", default=["KNOWN", "LEARNT"], choices=["KNOWN", "LEARNT"])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--run-lengths", type=int, nargs="+", default=list(thresholds.RUN_LENGTHS))
    parser.add_argument("--write", action="store_true", help="replace the tables in streams/thresholds.py")
    arguments = parser.parse_args()
    text = TARGET.read_text(encoding="utf-8")
    for name, learnt in (("KNOWN", False), ("LEARNT", True)):
        rows = [np.array(row) for row in getattr(thresholds, name)]
        guess = np.full(len(thresholds.LEVELS), 4.0)
        for i, run_length in enumerate(thresholds.RUN_LENGTHS):
            if name not in arguments.tables or run_length not in arguments.run_lengths:
                continue
            start = rows[i] if rows[i].any() else guess + np.log(run_length / 5_000)
            rows[i] = Calibration(run_length, learnt, arguments.worlds, arguments.seed).run(start, arguments.rounds)
            sys.stdout.write(f"{name} {run_length}: {np.round(rows[i], 3).tolist()}\n")
            sys.stdout.flush()
        text = re.sub(rf"^{name} = .*?(?=^[A-Z\n]|\Z)", f"{name} = {written(rows)}\n", text, flags=re.M | re.S)
    if arguments.write:
        TARGET.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
