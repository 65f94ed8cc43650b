"""How often the intervals of decompositions and attributions hold the truth, in made-up projects where it is known.

    python benchmarks/causes.py [--repetitions 2000] [--seed 1] [--only decomposition] [--only attribution]

**Decomposition**: two periods of 300 tasks, three judgments each. What did not change must have intervals that hold
zero in 95% of the projects, whatever else changed. Per cent of projects, for agreement and for the share of a label.

**Attribution**: 8 weeks before an event and 8 after it; annotators of unequal volume who miss a tenth of the weeks,
with errors that last for weeks (AR(1), .4) and effects of their own (2 points) around a mean of zero. Per cent of
projects whose interval holds the truth, and per cent of the placebo dates at which an effect was found.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import stats

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from causeworlds import Curve, Event, TwoPeriods
from labelguard_analytics.causes.components import PARTS, Mixture
from labelguard_analytics.causes.measures import agreement_with_others, mean_of_others
from labelguard_analytics.causes.panel import Inference, Learning

CHANGES: dict[str, dict[str, Any]] = {
    "items": {"items": True},
    "annotators": {"annotators": True},
    "behaviour": {"behaviour": -0.06},
}
PANELS = 20
"""Panels with other cells, among which the worlds are shared out."""


def share(part: float, of: float) -> str:
    """Per cent, marked where they are outside 93 to 97."""
    value = 100 * part / of
    return f"{value:.1f}" if 93 <= value <= 97 else f"{value:.1f} !"


def decompositions(repetitions: int, seed: int, console: Console) -> None:
    """The table of decompositions, by the arithmetic under ``decompose_change`` alone, in a third of its time."""
    table = Table(title=f"Intervals that hold zero, % of {repetitions:,} projects (nominal 95)")
    for name in ("annotators", "what changed", "measure", *PARTS):
        table.add_column(name, justify="left" if name in ("what changed", "measure") else "right")
    for people in (6, 12, 24):
        for number, (what, options) in enumerate(CHANGES.items()):
            rng = np.random.default_rng([seed, people, number])
            held = np.zeros((2, len(PARTS)))
            for _ in range(repetitions):
                late, task, who, label, source, gold = TwoPeriods(people=people, **options).arrays(rng)
                kind = np.unique(source * 3 + gold, return_inverse=True)[1].astype(np.int32)
                here = [np.bincount(kind[late == period], minlength=kind.max() + 1) for period in (0, 1)]
                own = Mixture(late == 1, who, kind, np.minimum(*here) > 0, task)
                pairs = replace(own, others=mean_of_others(task, who, int(who.max()) + 1))
                outcomes = agreement_with_others(task, label), (label == 0).astype(np.float64)
                for row, (mixture, outcome) in enumerate(zip((pairs, own), outcomes, strict=True)):
                    values, influence = mixture.fit(outcome)
                    error, freedom = mixture.spread(influence)
                    held[row] += np.abs(values) <= stats.t.ppf(0.975, freedom) * error
            for measure, counts in zip(("agreement", "share of a label"), held.tolist(), strict=True):
                cells = [share(counts[n], repetitions) if part != what else "changed" for n, part in enumerate(PARTS)]
                table.add_row(str(people), what, measure, *cells)
    console.print(table)


@dataclass(frozen=True)
class Cell:
    """A row of the table of attributions."""

    name: str
    event: Event
    inference: Inference = "two-way"
    learning: Learning = "experience"


def cells() -> list[Cell]:
    """The projects with an event."""
    labels = [
        Cell("affected labels", Event(people, shock=shock)) for people in (6, 10, 20, 30) for shock in (0.0, 0.02, 0.04)
    ]
    few = [
        Cell("3 of 20 affected", Event(20, "annotators", shock=shock), "randomisation") for shock in (0.0, 0.02, 0.04)
    ]
    half = [Cell("10 of 20 affected", Event(20, "annotators", treated=10))]
    curves: tuple[tuple[Curve, float], ...] = (("log", 0.0), ("exponential", 0.0), ("weeks", 0.0), ("log", 0.02))
    series = [
        Cell("time series", Event(people, "series", shock=shock, learning=0.03, curve=curve), learning="both")
        for people in (6, 20)
        for curve, shock in curves
    ]
    compared = [
        Cell("affected labels", Event(6), "annotator"),
        Cell("affected labels", Event(20, shock=0.04), "annotator"),
        Cell("3 of 20 affected", Event(20, "annotators"), "two-way"),
    ]
    return labels + few + half + series + compared


def attributions(repetitions: int, seed: int, console: Console) -> None:
    """The table of attributions."""
    table = Table(title=f"Intervals that hold the effect, and placebo dates with one, % of {repetitions:,} projects")
    for name in ("event", "annotators", "shock", "learning", "inference", "held (95)", "placebo (5)", "width"):
        table.add_column(name, justify="left" if name in ("event", "learning", "inference") else "right")
    rng = np.random.default_rng(seed)
    for cell in cells():
        held, rejected, widths = [], [], []
        for _ in range(PANELS):
            panel = cell.event.draw(rng, repetitions // PANELS)
            effects = panel.effects(cell.learning, cell.inference, rng)
            if effects is None:
                raise SystemExit("The effect cannot be told from the rest of the model.")
            held.append((effects.low <= 0) & (effects.high >= 0))
            widths.append(effects.high - effects.low)
            earlier = panel.keep(panel.week < 0)
            for week in (-5, -4, -3):
                placebo = earlier.moved(week).effects(cell.learning, cell.inference, rng)
                if placebo is not None:
                    rejected.append(placebo.p < 0.05)
        learning = f"{cell.event.curve}, {cell.event.learning:.2f}" if cell.event.learning else "none"
        table.add_row(
            cell.name,
            str(cell.event.people),
            f"{cell.event.shock * 100:.0f}",
            learning,
            cell.inference,
            share(float(np.mean(held)), 1.0),
            f"{np.mean(rejected) * 100:.1f}",
            f"{np.median(widths) * 100:.1f}",
        )
    console.print(table)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=["decomposition", "attribution"])
    wanted = parser.parse_args()
    console = Console(width=120)
    if wanted.only != "decomposition":
        attributions(wanted.repetitions, wanted.seed, console)
    if wanted.only != "attribution":
        decompositions(wanted.repetitions, wanted.seed, console)


if __name__ == "__main__":
    main()
