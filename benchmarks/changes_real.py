"""Sweeps over real crowds: what they find, how soon they find what is planted, and how often they find nothing's doing.

    python benchmarks/changes_real.py [--shuffles 40] [--seed 5]

**Streams**: the seven jobs of active-crowd-timed have no dates, but ZenCrowd_us, ZenCrowd_in and SP lie session by
session in their files; their order is taken for time, a fiftieth of a file for a day. vu-sound (free keywords for
sounds, ten annotators each) has real times over five months; annotators were there on few days, so 40 judgments on 3
days before and after a change are enough there. LABELGUARD_CROWD_DATA names the folder that holds both.

**Planted**: one of the five most active annotators begins, in the middle of their work, to call 40% of everything
the rarest label (active-crowd-timed), or to take a third of the time (vu-sound). A sweep every day; told is how many
of their judgments, and days, it takes until they are named.

**Shuffled**: whole sessions of every annotator change places, so that whatever is found is found by chance.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from labelguard_analytics import Changes, Panel, detect_changes

JOBS = ("ZenCrowd_us", "ZenCrowd_in", "SP")
DAYS = 50
USUAL, FEW = (50, 5), (40, 3)
"""Judgments and days needed before and after a change."""
SHARE = 0.4


def folder() -> Path:
    """Where the public sets are."""
    named = os.environ.get("LABELGUARD_CROWD_DATA")
    return Path(named) if named else Path(__file__).parents[2] / "shared" / "data"


def crowd_job(job: str) -> pd.DataFrame:
    """A job with its place in the file as time, and the session of each judgment."""
    frame = pd.read_csv(folder() / "active-crowd-timed" / "judgments.csv.gz")
    frame = frame[frame["job"] == job].sort_values("row", ignore_index=True)
    frame["session"] = (frame["annotator"] != frame["annotator"].shift()).cumsum()
    frame["day"] = np.arange(len(frame)) * DAYS // len(frame)
    # A session that lies across the end of a day belongs to the day it began on.
    frame["day"] = frame.groupby("session")["day"].transform("first")
    frame = frame.rename(columns={"item_id": "task", "label": "value", "duration_s": "duration"})
    frame = frame[["task", "annotator", "value", "gold", "duration", "session", "day"]]
    frame = frame.drop_duplicates(["task", "annotator"], ignore_index=True)
    return frame if frame["duration"].notna().any() else frame.drop(columns="duration")


def sounds() -> pd.DataFrame:
    """Keywords for sounds, with real days; a page of sounds is a session."""
    frame = pd.read_csv(folder() / "vu-sound" / "keywords.csv.gz")
    frame["day"] = (pd.to_datetime(frame["started_at"]) - pd.Timestamp("2015-01-05")).dt.days
    frame["session"] = frame.groupby(["annotator", "started_at"]).ngroup()
    frame["value"] = pd.Series([sorted(set(str(one).split("|"))) for one in frame["labels"]], frame.index, dtype=object)
    frame = frame.rename(columns={"item_id": "task", "duration_s": "duration"})
    frame = frame[["task", "annotator", "value", "duration", "session", "day"]]
    return frame.drop_duplicates(["task", "annotator"], ignore_index=True)


def judgments(frame: pd.DataFrame) -> pd.DataFrame:
    """The columns a sweep reads."""
    at = pd.Timestamp("2015-01-05").as_unit("s") + pd.to_timedelta(frame["day"], unit="D")
    return frame.drop(columns=["session", "day"]).assign(at=at)


def shuffled(frame: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Every annotator's sessions in a random order, on the days on which the annotator worked."""
    sessions = frame.drop_duplicates("session")[["session", "annotator", "day"]].sort_values("annotator", kind="stable")
    order = np.lexsort([rng.random(len(sessions)), pd.factorize(sessions["annotator"])[0]])
    new = pd.Series(sessions["day"].to_numpy()[order], sessions["session"].to_numpy())
    return frame.assign(day=frame["session"].map(new))


def planted(frame: pd.DataFrame, who: str, rng: np.random.Generator) -> tuple[pd.DataFrame, int]:
    """The same with one annotator who changes in the middle, and the day of that."""
    mine = frame["annotator"] == who
    days = np.sort(frame.loc[mine, "day"].to_numpy())
    begins = int(days[len(days) // 2])
    late = (mine & (frame["day"] >= begins)).to_numpy()
    frame = frame.copy()
    if isinstance(frame["value"].iloc[0], list):
        frame.loc[late, "duration"] = frame.loc[late, "duration"] / 3
    else:
        frame.loc[late & (rng.random(len(frame)) < SHARE), "value"] = frame["value"].value_counts().index[-1]
    return frame, begins


def delay(frame: pd.DataFrame, who: str, begins: int, least: tuple[int, int]) -> tuple[int, int] | None:
    """After how many judgments and days of their own somebody is named; None for never."""
    days = sorted(frame.loc[(frame["annotator"] == who) & (frame["day"] >= begins), "day"].unique().tolist())
    for number, day in enumerate(days, start=1):
        # Whole tasks: what is there on a day is what a sweep of that day would have seen.
        if number < least[1]:
            continue
        panel = Panel.of(judgments(frame[frame["day"] <= day]))
        found = detect_changes(
            panel,
            measures=["agreement", "share", "duration"],
            min_judgments=least[0],
            min_days=least[1],
        )
        if who in found.annotators:
            return int(((frame["annotator"] == who) & frame["day"].between(begins, day)).sum()), number
    return None


def streams() -> dict[str, tuple[pd.DataFrame, tuple[int, int]]]:
    """Every stream by name, with the minima for it."""
    found: dict[str, tuple[pd.DataFrame, tuple[int, int]]] = {job: (crowd_job(job), USUAL) for job in JOBS}
    return {**found, "vu-sound": (sounds(), FEW)}


def sweep(frame: pd.DataFrame, least: tuple[int, int], *by: str) -> Changes:
    """A sweep of everything but gold, which no project has for every task."""
    known = judgments(frame).drop(columns="gold", errors="ignore")
    return detect_changes(known, by or ("annotator", "label"), min_judgments=least[0], min_days=least[1])


def main() -> None:
    """Print what is found as it is, planted and shuffled."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shuffles", type=int, default=40)
    parser.add_argument("--seed", type=int, default=5)
    arguments = parser.parse_args()
    if not (folder() / "vu-sound").exists():
        print(f"Skipped: the crowd data is not at {folder()}; set LABELGUARD_CROWD_DATA to the folder that has it.")
        return
    console = Console(width=150)
    late = Table(
        title=f"Planted: {SHARE:.0%} of everything the rarest label, or a third of the time; judgments until named"
    )
    chance = Table(title=f"Shuffled: share of {arguments.shuffles} shuffles in which anybody is named")
    for table in (late, chance):
        table.add_column("stream")
    for number in range(1, 6):
        late.add_column(f"annotator {number}", justify="right")
    chance.add_column("any name", justify="right")
    for number, (name, (frame, least)) in enumerate(streams().items()):
        console.print(f"[bold]{name}[/bold]: {sweep(frame, least).explain()}")
        console.print(f"  everybody together: {sweep(frame, least, 'label').explain()}")
        rng = np.random.default_rng([arguments.seed, number])
        active = frame["annotator"].value_counts().index[:5]
        if least == FEW:  # few were there on enough days
            active = frame.groupby("annotator")["day"].nunique().sort_values(ascending=False).index[:5]
        cells = []
        for who in active:
            changed, begins = planted(frame, who, rng)
            found = delay(changed, who, begins, least)
            cells.append("not" if found is None else f"{found[0]} ({found[1]})")
        late.add_row(name, *cells)
        hits = [bool(sweep(shuffled(frame, rng), least).annotators) for _ in range(arguments.shuffles)]
        chance.add_row(name, f"{np.mean(hits):.3f}")
    console.print(late)
    console.print(chance)


if __name__ == "__main__":
    main()
