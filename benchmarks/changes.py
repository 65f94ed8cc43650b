"""Do sweeps keep the false discovery rate they promise, what do they find, and what does a nightly one cost?

    python benchmarks/changes.py [--worlds 40] [--crowds 40] [--judgments 1000000] [--seed 5]

**One sweep**: 100 annotators, 10 labels, 26 weeks, three annotators for each task, a case mix of every team that
changes from week to week, learning, unequal volumes; then with weekly cycles (5 points worse on Mondays and Fridays)
and weeks that are harder or easier for everybody (standard deviation 4 points). Planted: 5 annotators call a share of
everything the first label in the last four weeks. The share asked for is 10%. ``label_drift``, which is told to look
at the last four weeks, sees some of the same worlds.

**26 weekly sweeps** with one state carried along, over the last 26 of 39 weeks; 5 annotators begin to drift somewhere
in them and go on. A name is false if the annotator never drifts or has not begun to.

**Cost**, in processor seconds, each the best of five: full sweeps from a frame, of the first night and of a night that
knows whom the first has named; and the sweep of that night from the panel kept and 1% new tasks.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from labelguard_analytics import Nights, Panel, detect_changes, label_drift

sys.path.append(str(Path(__file__).parents[1] / "tests" / "support"))

PLANTED = 5
SETTINGS: dict[str, dict[str, Any]] = {
    "case mix, learning, unequal volumes": {"drift": 0.25},
    "the same, smaller drift": {"drift": 0.15},
    "and cycles, common shocks": {"drift": 0.25, "cycle": 0.05, "shock": 0.04},
    "and 30 a day": {"drift": 0.15, "cycle": 0.05, "shock": 0.04, "a_day": 30},
}


def one_sweep(worlds: int, seed: int, console: Console) -> None:
    """False discoveries and power of a single sweep."""
    from histories import Setting, crowd

    table = Table(title=f"One sweep, 10% asked for, {worlds} worlds without and {worlds} with a plant")
    for column in ("world", "planted", "any false, nothing planted", "FDR", "power", "label_drift FDR", "its power"):
        table.add_column(column, justify="left" if column == "world" else "right")
    for number, (name, words) in enumerate(SETTINGS.items()):
        setting = Setting(**words)
        rng = np.random.default_rng([seed, number])
        planted = dict.fromkeys(range(1, PLANTED + 1), setting.weeks - 4)
        quiet, shares, power, their_shares, their_power = [], [], [], [], []
        for world in range(worlds):
            quiet.append(bool(detect_changes(crowd(rng, setting)).annotators))
            frame = crowd(rng, setting, planted)
            named = set(detect_changes(frame).annotators)
            shares.append(len(named - set(planted)) / max(1, len(named)))
            power.append(len(named & set(planted)) / PLANTED)
            if world < worlds // 8:
                values = pd.Series([(str(value),) for value in frame["value"]], frame.index, dtype=object)
                zoned = frame.assign(at=frame["at"].dt.tz_localize("UTC"), value=values)
                drifts = label_drift(zoned, now=zoned["at"].max() + pd.Timedelta(hours=1))
                theirs = {drift.annotator for drift in drifts if drift.discovered}
                their_shares.append(len(theirs - set(planted)) / max(1, len(theirs)))
                their_power.append(len(theirs & set(planted)) / PLANTED)
        theirs_shown = (np.mean(their_shares), np.mean(their_power)) if their_shares else (np.nan, np.nan)
        figures = (np.mean(quiet), np.mean(shares), np.mean(power), *theirs_shown)
        table.add_row(name, f"{setting.drift:.0%}", *(f"{figure:.3f}" for figure in figures))
    console.print(table)


def nights(crowds: int, seed: int, console: Console) -> None:
    """False discoveries and delay over 26 weekly sweeps."""
    from histories import Setting, crowd

    table = Table(title=f"26 weekly sweeps, 10% asked for over all of them, {crowds} crowds each")
    for column in ("planted", "crowds with a false name", "FDR", "its error", "power", "median delay, weeks"):
        table.add_column(column, justify="right")
    setting = Setting(weeks=39, cycle=0.05, shock=0.04)
    for number, count in enumerate((0, PLANTED)):
        rng = np.random.default_rng([seed, 100, number])
        false_names, shares, power, delays = [], [], [], []
        for _ in range(crowds):
            begins = {who: int(week) for who, week in enumerate(rng.integers(14, 32, count), start=1)}
            frame = crowd(rng, setting, begins)
            week = (frame["at"] - frame["at"].min()).dt.days // 7
            panel, state = Panel.of(frame[week < 13]), Nights(level=0.1)
            named: dict[int, int] = {}
            for now in range(13, 39):
                panel += Panel.of(frame[week == now])
                found = detect_changes(panel, nights=state)
                state = found.nights or state
                named |= {who: now for who in found.annotators if who not in named}
            false = [who for who, now in named.items() if begins.get(who, 99) > now]
            false_names.append(bool(false))
            shares.append(len(false) / max(1, len(named)))
            right = {who: now for who, now in named.items() if begins.get(who, 99) <= now}
            power += [who in right for who in begins]
            delays += [now - begins[who] + 1 for who, now in right.items()]
        figures = [np.mean(false_names), np.mean(shares), np.std(shares, ddof=1) / crowds**0.5]
        shown = [f"{figure:.3f}" for figure in figures]
        found_of = f"{np.mean(power):.3f}" if power else "-"
        table.add_row(str(count), *shown, found_of, f"{np.median(delays):.0f}" if delays else "-")
    console.print(table)


def million(judgments: int, seed: int) -> pd.DataFrame:
    """100 annotators, 20 labels, 5 sources, 52 weeks, three judgments of each task, and every optional column."""
    rng = np.random.default_rng([seed, 200])
    tasks = judgments // 3
    who = np.argsort(rng.random((tasks, 100), dtype=np.float32), axis=1)[:, :3].ravel()
    task = np.repeat(np.arange(tasks), 3)
    day, source, truth = np.sort(rng.integers(0, 364, tasks)), rng.integers(0, 5, tasks), rng.integers(0, 20, tasks)
    size = len(task)
    said = np.where(rng.random(size) < 0.85, truth[task], rng.integers(0, 20, size))
    said[(who < PLANTED) & (day[task] >= 336) & (rng.random(size) < 0.1)] = 0
    return pd.DataFrame(
        {
            "task": task,
            "annotator": np.char.add("annotator ", who.astype(str)),
            "value": np.char.add("label ", said.astype(str)),
            "at": np.datetime64("2026-01-05", "s") + day[task].astype("timedelta64[D]"),
            "source": np.char.add("source ", source[task].astype(str)),
            "duration": rng.lognormal(3, 0.5, size),
        }
    )


def cost(judgments: int, seed: int, console: Console) -> None:
    """Processor seconds of full sweeps, and of one after 1% new tasks."""
    frame = million(judgments, seed)
    last = frame["task"].max() * 0.99
    new = frame[frame["task"] > last]
    kept = Panel.of(frame[frame["task"] <= last])
    state = detect_changes(kept, nights=Nights()).nights

    def seconds(work: Callable[[], object]) -> float:
        started = time.process_time()
        work()
        return time.process_time() - started

    first, full, adding, nightly = (
        min(times)
        for times in zip(
            *(
                (
                    seconds(lambda: detect_changes(frame, nights=Nights())),
                    seconds(lambda: detect_changes(frame, nights=state)),
                    seconds(lambda: kept + Panel.of(new)),
                    seconds(lambda: detect_changes(kept + Panel.of(new), nights=state)),
                )
                for _ in range(5)
            ),
            strict=True,
        )
    )
    console.print(
        f"{len(frame):,} judgments: full sweep of a first night, which names {len(state.named) if state else 0}, "
        f"{first:.2f} s; full sweep that knows them {full:.2f} s; after 1% new tasks {nightly:.3f} s "
        f"({nightly / first:.1%} of the first, {nightly / full:.1%} of the other), of which {adding:.3f} s to "
        f"bring the panel up to date; kept panel {len(kept.to_bytes()) / 1e6:.1f} MB"
    )


def main() -> None:
    """Print every table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=40)
    parser.add_argument("--crowds", type=int, default=40)
    parser.add_argument("--judgments", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=5)
    arguments = parser.parse_args()
    console = Console(width=140)
    cost(arguments.judgments, arguments.seed, console)
    one_sweep(arguments.worlds, arguments.seed, console)
    nights(arguments.crowds, arguments.seed, console)


if __name__ == "__main__":
    main()
