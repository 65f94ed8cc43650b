"""Draw the charts of docs/changes.md from the public crowd data, which itself is never committed.

LABELGUARD_CROWD_DATA=/path/to/data python scripts/change_charts.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import altair as alt
import numpy as np
import pandas as pd

from labelguard_analytics import Change, detect_changes

ROOT = Path(__file__).parents[1]
# Fonts differ: where letters are wider than here, the legend needs some room.
PADDING = {"left": 5, "top": 5, "bottom": 5, "right": 50}
IMAGES = ROOT / "docs" / "images"
BLUE, ORANGE, GREY = "#2f6db3", "#d9730d", "#8a8f98"
sys.path.append(str(ROOT / "benchmarks"))


def over_time(frame: pd.DataFrame, hit: pd.Series[bool], change: Change, title: str, subtitle: str) -> alt.LayerChart:
    """The share of ``hit`` on each day, with the place of the change, and what was expected after it."""
    days = hit.groupby(frame["at"]).agg(["mean", "size"]).reset_index(names="day")
    x = alt.X("day:T", title=None)
    points = (
        alt.Chart(days)
        .mark_point(filled=True, color=BLUE, opacity=0.7)
        .encode(
            x=x,
            y=alt.Y("mean:Q", title="share of judgments", axis=alt.Axis(format="%")),
            size=alt.Size("size:Q", legend=None),
        )
    )
    band = pd.DataFrame({"low": [change.since_low], "high": [change.since_high + pd.Timedelta(days=1)]})
    where = alt.Chart(band).mark_rect(color=ORANGE, opacity=0.2).encode(x="low:T", x2="high:T")
    levels = pd.DataFrame(
        {
            "from": [days["day"].min(), change.since, change.since],
            "to": [change.since, days["day"].max(), days["day"].max()],
            "level": [change.before, change.after, change.expected],
            "what": ["seen", "seen", "expected without the change"],
        }
    )
    lines = (
        alt.Chart(levels)
        .mark_rule(strokeWidth=2.5)
        .encode(
            x="from:T",
            x2="to:T",
            y="level:Q",
            color=alt.Color(
                "what:N",
                title=None,
                scale=alt.Scale(domain=["seen", "expected without the change"], range=[BLUE, GREY]),
            ),
        )
    )
    return alt.layer(where, points, lines).properties(width=560, height=220, title=alt.Title(title, subtitle=subtitle))


def main() -> None:
    """Write the charts as SVG, and print what the page quotes."""
    from changes_real import SHARE, crowd_job, folder, judgments, planted

    if not folder().exists():
        sys.exit(f"The crowd data is not at {folder()}; set LABELGUARD_CROWD_DATA to the folder that has it.")
    stream = crowd_job("ZenCrowd_us")
    for who in stream["annotator"].value_counts().index[:5]:
        changed, begins = planted(stream, who, np.random.default_rng(5))
        frame = judgments(changed).drop(columns="gold")
        found = detect_changes(frame, measures=["agreement", "share"])
        shares = [one for one in found.changes if one.measure == "share" and one.annotator == who]
        sys.stdout.write(f"{who}: {found.explain()}\n")
        if shares:
            break
    change = shares[0]
    mine = frame[frame["annotator"] == who]
    title = f"Use of label {change.label} by an annotator who calls {SHARE:.0%} of everything another"
    begun = pd.Timestamp("2015-01-05") + pd.Timedelta(days=begins)
    chart = over_time(
        mine, mine["value"] == change.label, change, title, f"planted on {begun:%d %B}; shaded: 95% interval"
    )
    chart.configure_view(stroke=None).properties(padding=PADDING).save(IMAGES / "changes-planted.svg")
    sys.stdout.write(f"{found.explain()}\n{change.explain()}\n{len(mine)} judgments, planted on {begun}\n")
    frame = judgments(stream).drop(columns="gold")
    everybody = detect_changes(frame, by=(), measures=["agreement", "duration"])
    sys.stdout.write(f"{everybody.explain()}\n{everybody.table.to_string()}\n")
    for one in everybody.changes:
        sys.stdout.write(f"{one.explain()}\n")
    agreement = next(one for one in everybody.changes if one.measure == "agreement")
    others = frame.groupby("task")["value"].transform(lambda values: values.mode()[0])
    chart = over_time(
        frame,
        frame["value"] == others,
        agreement,
        "Everybody in ZenCrowd_us: agreement by fiftieth of the file",
        "points: share with the most frequent label of the task; lines: leave-one-out agreement",
    )
    chart.configure_view(stroke=None).properties(padding=PADDING).save(IMAGES / "changes-everybody.svg")


if __name__ == "__main__":
    main()
