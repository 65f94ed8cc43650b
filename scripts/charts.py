"""Draw the charts of docs/truth-and-confusion.md from the public crowd data, which itself is never committed.

LABELGUARD_CROWD_DATA=/path/to/data python scripts/charts.py
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import altair as alt
import pandas as pd

from labelguard_analytics import calibration, confusion, infer_truth, majority_vote
from labelguard_analytics.truth import Truth

IMAGES = Path(__file__).parents[1] / "docs" / "images"
JOB = "CF_amt"
LABELS = {0: "negative", 1: "neutral", 2: "positive", 3: "not related", 4: "cannot tell"}
BLUE, ORANGE, GREY = "#2f6db3", "#d9730d", "#8a8f98"
Chart = alt.LayerChart | alt.FacetChart


def weather() -> pd.DataFrame:
    """6,030 judgments of the sentiment of 300 tweets on the weather, by 110 people."""
    root = Path(os.environ.get("LABELGUARD_CROWD_DATA", Path(__file__).parents[2] / "shared" / "data"))
    path = root / "active-crowd-timed" / "judgments.csv.gz"
    if not path.exists():
        sys.exit(f"The crowd data is not at {path}; set LABELGUARD_CROWD_DATA to the folder that has it.")
    frame = pd.read_csv(path)
    frame = frame[frame["job"] == JOB].rename(columns={"item_id": "task", "label": "value"})
    frame["value"], frame["gold"] = frame["value"].map(LABELS), frame["gold"].map(LABELS)
    return frame[["task", "annotator", "value", "gold"]].drop_duplicates(["task", "annotator"])


def annotators(truth: Truth, frame: pd.DataFrame) -> Chart:
    """What was inferred without gold, with intervals, beside what gold says."""
    right = (frame["value"] == frame["gold"]).groupby(frame["annotator"]).mean().rename("known")
    table = truth.annotators.join(right)
    table = table[table["judgments"] >= 40].sort_values("accuracy").reset_index(drop=True).reset_index(names="place")
    x = alt.X("place:Q", axis=None)
    bars = alt.Chart(table).mark_rule(color=BLUE, opacity=0.45, strokeWidth=3)
    bars = bars.encode(x=x, y=alt.Y("low:Q", title="accuracy", scale=alt.Scale(domain=[0.2, 1])), y2="high:Q")
    points = alt.Chart(table).mark_point(color=BLUE, filled=True, size=35).encode(x=x, y="accuracy:Q")
    known = alt.Chart(table).mark_tick(color=ORANGE, thickness=2, width=9, orient="horizontal")
    known = known.encode(x=x, y="known:Q")
    title = alt.Title("Annotators, from worst to best", subtitle="blue: inferred without gold, 95%; orange: by gold")
    return alt.layer(bars, points, known).properties(width=620, height=240, title=title)


def confusions(frame: pd.DataFrame) -> Chart:
    """The most frequent confusions with their intervals and chance rates."""
    pairs = confusion(frame).pairs.head(8)
    pairs = pairs.assign(pair=pairs["truth"] + " → " + pairs["label"])
    y = alt.Y("pair:N", sort=None, title=None, axis=alt.Axis(labelLimit=220))
    bars = alt.Chart(pairs).mark_bar(color=BLUE, opacity=0.75, height=12)
    bars = bars.encode(y=y, x=alt.X("rate:Q", title="share of the judgments of that truth", axis=alt.Axis(format="%")))
    whiskers = alt.Chart(pairs).mark_rule(strokeWidth=2).encode(y=y, x="low:Q", x2="high:Q")
    chance = alt.Chart(pairs).mark_tick(color=ORANGE, thickness=3, height=16).encode(y=y, x="chance:Q")
    title = alt.Title("What is taken for what", subtitle="bars: rate with 95% interval; orange: chance rate")
    return alt.layer(bars, whiskers, chance).properties(width=480, height=220, title=title)


def doubt(truth: Truth, frame: pd.DataFrame) -> Chart:
    """Are probabilities what they claim to be?"""
    gold = frame.drop_duplicates("task").set_index("task")["gold"]
    rows = []
    for name, found in (("infer_truth", truth), ("majority vote", majority_vote(frame.drop(columns="gold")))):
        claimed = pd.DataFrame({"task": found.labels.index, "annotator": name, "value": found.labels.to_numpy()})
        claimed["confidence"] = found.tasks["probability"].to_numpy().clip(0, 1)
        claimed["value"] = pd.Categorical(claimed["value"], categories=sorted(LABELS.values()))
        rows.append(calibration(claimed, gold, bins=6, repetitions=0).bins.assign(method=name))
    table = pd.concat(rows)
    line = alt.Chart(pd.DataFrame({"x": [0.3, 1.0]})).mark_line(color=GREY, strokeDash=[4, 4]).encode(x="x:Q", y="x:Q")
    base = alt.Chart(table).encode(
        x=alt.X("confidence:Q", title="claimed probability", scale=alt.Scale(domain=[0.3, 1])),
        color=alt.Color("method:N", scale=alt.Scale(range=[BLUE, ORANGE]), title=None),
    )
    bars = base.mark_rule(strokeWidth=2, opacity=0.6).encode(y=alt.Y("low:Q", title="right by gold"), y2="high:Q")
    points = base.mark_point(filled=True, size=60).encode(y="accuracy:Q")
    title = alt.Title(
        "Claimed and real probabilities of the consensus", subtitle="six bins of 50 tweets, 95% intervals"
    )
    return alt.layer(line, bars, points).properties(width=420, height=300, title=title)


def main() -> None:
    """Write the charts as SVG, and print what the page quotes."""
    frame = weather()
    hidden = frame.drop(columns="gold")
    truth = infer_truth(hidden)
    gold = frame.drop_duplicates("task").set_index("task")["gold"].reindex(truth.labels.index)
    for name, chart in (
        ("truth-annotators", annotators(truth, frame)),
        ("truth-confusion", confusions(frame)),
        ("truth-probabilities", doubt(truth, frame)),
    ):
        chart.configure_view(stroke=None).save(IMAGES / f"{name}.svg")
    sys.stdout.write(f"{truth.explain()}\n{confusion(frame).explain()}\n")
    sys.stdout.write(f"infer_truth {(truth.labels == gold).mean():.3f}, ")
    sys.stdout.write(f"majority {(majority_vote(hidden).labels == gold).mean():.3f}\n")
    wrong = truth.tasks.assign(wrong=truth.labels != gold).groupby("verdict")["wrong"].agg(["size", "mean"])
    sys.stdout.write(f"{wrong}\n{truth.tasks.sort_values('probability').head(3)}\n")
    sys.stdout.write(f"{confusion(frame).pairs.head(4).round(3).to_string()}\n")
    some = frame.assign(
        gold=gold.where(pd.Series(range(len(gold)), gold.index) % 3 == 0).reindex(frame["task"]).to_numpy()
    )
    sys.stdout.write(f"{infer_truth(some).suspicious_gold}\n")


if __name__ == "__main__":
    main()
