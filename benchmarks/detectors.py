"""Detectors and tests on streams: false alarms, delays beside river's detectors, and speed.

    python benchmarks/detectors.py [--worlds 400] [--seed 5] [--only-ours] [--tune]

**Delay** follows one protocol for everybody: 200 values to warm up; a change 0, 300 or 1,000 values later; the mean
delay of the streams without an alarm before. Every detector is set so that without a change, counted from the end
of the warm-up, its mean run length is at least 5,000 *and* at most 19% of streams have an alarm in the first 1,000.
The mean run length alone would prove nothing: some detectors alarm early or never.

River's detectors (``--tune`` finds the settings in ``TUNED`` again, in half an hour) are set for each level of its
own. Where they have a second setting, the best for each cell is shown, which nobody could choose beforehand; ours
has no setting. KSWIN runs on fewer streams, because it is slow.

About four minutes of one core; ``--only-ours`` leaves river out of the delays.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import river.drift.kswin
from river import drift
from rich.console import Console
from rich.table import Table
from scipy import stats

from labelguard_analytics import ChangeDetector
from labelguard_analytics.streams.many import first_alarms, first_rejections
from labelguard_analytics.streams.odds import odds

Bools = npt.NDArray[np.bool_]
Whole = npt.NDArray[np.int64]
WARM_UP = 200
RUN_LENGTH, EARLY, EARLY_SHARE = 5_000, 1_000, 0.19
POSITIONS = (0, 300, 1_000)
LEVELS = (0.95, 0.9, 0.85)


class Change(NamedTuple):
    """A row of the table: from one level to another, at once or over so many values."""

    name: str
    before: float
    after: float
    over: int


CHANGES = (
    Change(".95 to .85", 0.95, 0.85, 0),
    Change(".9 to .75", 0.9, 0.75, 0),
    Change(".85 to .6", 0.85, 0.6, 0),
    Change("slide .9 to .75 over 1,000", 0.9, 0.75, 1_000),
)


class Peer(NamedTuple):
    """A detector of river: how it is made from its tuned and its second setting, and what it is fed."""

    make: Callable[[float, float], Any]
    errors: bool
    second: tuple[float, ...]
    bounds: tuple[float, float]
    """Where the tuned setting lies; more of it means later alarms."""
    thinner: int = 1
    """It runs on one in so many streams."""


PEERS = {
    "ADWIN, clock=1": Peer(lambda v, _: drift.ADWIN(delta=math.exp(-v), clock=1), False, (0.0,), (0.0, 8.0)),
    "PageHinkley": Peer(
        lambda v, delta: drift.PageHinkley(threshold=v, delta=delta, mode="down"), False, (0.01, 0.02, 0.03, 0.05), (3, 25)
    ),
    "HDDM_W": Peer(
        lambda v, weight: drift.binary.HDDMW(drift_confidence=math.exp(-v), lambda_val=weight),
        True,
        (0.01, 0.02, 0.05),
        (1.0, 8.0),
    ),
    "HDDM_A": Peer(lambda v, _: drift.binary.HDDMA(drift_confidence=math.exp(-v)), True, (0.0,), (1.0, 9.0)),
    "KSWIN": Peer(lambda v, _: drift.KSWIN(alpha=math.exp(-v), seed=1), False, (0.0,), (4.0, 14.0), 8),
    "DDM": Peer(lambda v, _: drift.binary.DDM(drift_threshold=v), True, (0.0,), (2.0, 12.0)),
    "EDDM": Peer(lambda v, _: drift.binary.EDDM(beta=1.0 - v, alpha=1.0), True, (0.0,), (0.05, 0.9)),
}
TUNED: dict[tuple[str, float, float], float] = {}


def streams(rng: np.random.Generator, worlds: int, change: Change, position: int, length: int) -> Bools:
    """Right and wrong answers, a stream in each row, with the change after the warm-up and ``position`` values."""
    since = np.arange(length) - WARM_UP - position
    part = (since >= 0) * 1.0 if not change.over else np.clip((since + 1) / change.over, 0.0, 1.0)
    level = change.before + (change.after - change.before) * part
    return np.array([rng.random(length, dtype=np.float32) < level for _ in range(worlds)])


def steady(rng: np.random.Generator, worlds: int, level: float, length: int) -> Bools:
    """Streams without a change."""
    return streams(rng, worlds, Change("", level, level, 0), 0, length)


class Null(NamedTuple):
    """What a detector does without a change."""

    run_length: float
    early: float

    @classmethod
    def of(cls, alarms: Whole, length: int) -> Null:
        """From the values of first alarms after the warm-up, 0 for none, watched for so long."""
        exposure = np.where(alarms == 0, length, alarms).sum()
        found = int((alarms > 0).sum())
        return cls(float(exposure / max(1, found)), float(((alarms > 0) & (alarms <= EARLY)).mean()))

    @property
    def kept(self) -> bool:
        """Whether both conditions hold."""
        return self.run_length >= RUN_LENGTH and self.early <= EARLY_SHARE


def delay(alarms: Whole, position: int) -> float:
    """The mean delay of streams without an alarm before the change; too late counts as the end."""
    late = alarms[(alarms == 0) | (alarms > position)]
    return float(np.where(late == 0, 3_000, late - position).mean())


def ours(values: Bools, level: float | None) -> Whole:
    """First alarms after the warm-up; with the level known the warm-up is not looked at."""
    if level is not None:
        return first_alarms(values[:, WARM_UP:], odds(RUN_LENGTH, learnt=False), level)
    alarms = first_alarms(values, odds(RUN_LENGTH, learnt=True))
    return np.where(alarms > 0, alarms - WARM_UP, 0)


def cusum(values: Bools, before: float, after: float, log_threshold: float) -> Whole:
    """First alarms of the CUSUM that knows both levels."""
    right, wrong = math.log(after / before), math.log((1 - after) / (1 - before))
    total, found = np.zeros(len(values)), np.zeros(len(values), dtype=np.int64)
    for at in range(WARM_UP, values.shape[1]):
        total = np.maximum(total, 0.0) + np.where(values[:, at], right, wrong)
        found[(total >= log_threshold) & (found == 0)] = at + 1 - WARM_UP
    return found


@lru_cache(maxsize=None)
def _two_samples(first: int, second: int, size: int) -> Any:
    one, two = np.repeat([0, 1], [size - first, first]), np.repeat([0, 1], [size - second, second])
    return stats.ks_2samp(one, two, method="auto")


class _Remembered:
    """scipy's two-sample test for samples of 0 and 1, each pair of counts computed once: 10 times faster."""

    @staticmethod
    def ks_2samp(one: list[int], two: list[int], method: str) -> Any:
        """The test."""
        return _two_samples(sum(one), sum(two), len(one))


river.drift.kswin.stats = _Remembered  # type: ignore[attr-defined]


def theirs(values: Bools, peer: Peer, setting: float, second: float) -> Whole:
    """First alarms of a detector of river; after an alarm in the warm-up it starts again by itself."""
    found = np.zeros(len(values), dtype=np.int64)
    fed = (~values if peer.errors else values).astype(np.int8)
    for i, row in enumerate(fed):
        detector = peer.make(setting, second)
        for at, x in enumerate(row.tolist()):
            detector.update(x)
            if detector.drift_detected and at >= WARM_UP:
                found[i] = at + 1 - WARM_UP
                break
    return found


def tune(alarms: Callable[[float], Whole], length: int, bounds: tuple[float, float], halvings: int = 9) -> float:
    """The earliest setting that keeps both conditions, by bisection; more of it means later alarms."""
    low, high = bounds
    for _ in range(halvings):
        middle = (low + high) / 2
        if Null.of(alarms(middle), length).kept:
            high = middle
        else:
            low = middle
    return high


def tune_river(seed: int, worlds: int, names: list[str]) -> None:
    """Find the settings of river's detectors and print them."""
    for name in names:
        peer = PEERS[name]
        for level in LEVELS:
            values = steady(np.random.default_rng([seed, 1]), worlds // min(peer.thinner, 4), level, 6_200)
            for second in peer.second:
                found = tune(lambda v: theirs(values, peer, v, second), 6_000, peer.bounds)  # noqa: B023
                print(f"    ({name!r}, {level}, {second}): {found:.4g},", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tune", nargs="*")
    parser.add_argument("--worlds", type=int, default=300)
    a = parser.parse_args()
    tune_river(5, a.worlds, a.tune or list(PEERS))

if __name__ == "__main__":
    main()
