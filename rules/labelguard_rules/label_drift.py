"""The nightly look at whose use of labels has moved."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import pandas as pd

from labelguard.labelconfig import PATH_SEPARATOR
from labelguard.rules import Finding, Sweep, SweepContext, option
from labelguard_analytics import AnnotatorDrift, LabelShift, label_drift

_KINDS = ("choices", "taxonomy", "rating")
_TOLD = 3
"""How many labels a message names; the evidence has them all."""


@dataclass(frozen=True)
class LabelDrift(Sweep):
    """Annotators whose use of labels moved against their own earlier work, or differs from their peers'.

    Every judgment is compared with what the other annotators of the same task said, so a different mix of
    tasks is not drift; everybody has a learning slope of their own, so getting better is not drift either;
    and the judgments of one day count as one observation. Of the annotators named in one sweep, on average at
    most the share ``level`` is named by chance. Tasks with a single annotator have nobody to be compared with
    and are left out.

    A change of the guideline or of the tasks themselves that everybody follows cannot be seen this way.
    """

    name: ClassVar[str] = "label-drift"

    level: float = option(0.1, "The share of false names among those named in one sweep.", minimum=0.001, maximum=0.5)
    recent_days: int = option(28, "How many days count as recent.", minimum=2)
    margin: float = option(
        0.1,
        "How far a label's share may lie from the peers' before it is worth a finding.",
        minimum=0,
        maximum=1,
    )
    min_judgments: int = option(50, "Judgments that others made too, needed in each of the two periods.", minimum=10)
    min_days: int = option(5, "Days with such judgments, needed in each of the two periods.", minimum=2)

    def sweep(self, context: SweepContext) -> Iterator[Finding]:
        """Yield a finding for each annotator named."""
        frame = context.judgments(self.control)
        # One judgment for each task and annotator: those per region have no counterpart in others' work.
        frame = frame[frame["kind"].isin(_KINDS) & (frame["region"] == "")]
        for control, part in frame.groupby("control", sort=True):
            used = [_labels(kind, value) for kind, value in zip(part["kind"], part["value"], strict=True)]
            judged = part.assign(value=pd.Series(used, index=part.index, dtype=object))
            for drift in label_drift(
                judged,
                now=pd.Timestamp(context.now),
                recent_days=self.recent_days,
                level=self.level,
                margin=self.margin,
                min_judgments=self.min_judgments,
                min_days=self.min_days,
            ):
                if drift.discovered:
                    yield self._finding(drift, str(control), context)

    def _finding(self, drift: AnnotatorDrift, control: str, context: SweepContext) -> Finding:
        shifts = [s for s in drift.shifts if s.discovered]
        told = "; ".join(_said(s) for s in shifts[:_TOLD])
        more = f"; and {len(shifts) - _TOLD} more" if len(shifts) > _TOLD else ""
        return Finding(
            f"{context.annotator_name(drift.annotator)} {told}{more} (control {control}). "
            "Look at a few of these tasks together with the annotator, and check whether the guideline is "
            "clear there.",
            evidence={
                "p": drift.p,
                "q": drift.q,
                "level": self.level,
                "recent_days": self.recent_days,
                "judgments": drift.judgments,
                "shifts": [_evidence(s) for s in shifts],
            },
            annotator=drift.annotator,
            control=control,
            labels=tuple(dict.fromkeys(s.label for s in shifts)),
        )


def _labels(kind: str, value: Any) -> tuple[str, ...]:
    if kind == "rating":
        return (f"{float(value):g}",)
    if kind == "taxonomy":
        return tuple(dict.fromkeys(label.split(PATH_SEPARATOR)[0] for label in value))
    return tuple(value)


def _said(shift: LabelShift) -> str:
    interval = f"95% interval {100 * shift.low:+.0f} to {100 * shift.high:+.0f} points"
    if shift.kind == "level":
        return (
            f"uses {shift.label} on {shift.now:.0%} of {shift.judgments} tasks where peers would on about "
            f"{shift.expected:.0%} ({interval})"
        )
    since = f" since about {shift.since:%Y-%m-%d}" if shift.since is not None else ""
    return (
        f"now uses {shift.label} on {shift.now:.0%} of tasks{since}, where about {shift.expected:.0%} would "
        f"be expected from earlier work and what others say about the same tasks ({interval})"
    )


def _evidence(shift: LabelShift) -> dict[str, Any]:
    return {
        "label": shift.label,
        "kind": shift.kind,
        "direction": shift.direction,
        "before": round(shift.before, 4),
        "now": round(shift.now, 4),
        "expected": round(shift.expected, 4),
        "effect": round(shift.effect, 4),
        "interval": [round(shift.low, 4), round(shift.high, 4)],
        "p": shift.p,
        "judgments": shift.judgments,
        "days": shift.days,
        "since": None if shift.since is None else shift.since.date().isoformat(),
    }
