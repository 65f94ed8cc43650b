"""Public crowd data with known truth, replayed through a rule's public door."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from labelguard.events import Annotation, Project, Task
from labelguard.labelconfig import Control, LabelConfig
from labelguard.preview import MemoryContext, a_judgment, submit
from labelguard.rules import GoldAnswer, Guardrail, Submission

START = datetime(2026, 1, 5, tzinfo=UTC)


def crowd_data() -> pd.DataFrame:
    """The seven jobs: job, annotator, item, label and gold (texts); skips the test where there is none."""
    folder = os.environ.get("LABELGUARD_CROWD_DATA")
    root = Path(folder) if folder else Path(__file__).parents[3] / "shared" / "data"
    path = root / "active-crowd-timed" / "judgments.csv.gz"
    if not path.exists():
        pytest.skip(f"The crowd data is not at {path}; set LABELGUARD_CROWD_DATA to the folder that has it.")
    frame = pd.read_csv(path).rename(columns={"item_id": "item"})
    frame["annotator"] = pd.factorize(frame["annotator"])[0] + 1
    frame["item"] = frame.groupby("job")["item"].transform(lambda ids: pd.factorize(ids)[0] + 1)
    for column in ("label", "gold"):
        frame[column] = frame[column].astype(int).astype(str)
    return frame[["job", "annotator", "item", "label", "gold"]]


def replay(rules: Sequence[Guardrail], frame: pd.DataFrame, *, gold: bool, overlap: int = 1) -> list[dict[int, int]]:
    """For each rule, whom it flagged (more than observed) and after how many of their judgments."""
    labels = sorted({*frame["label"], *frame["gold"]})
    config = LabelConfig((Control("label", "Choices", ("text",), tuple(labels)),))
    judged = {label: (a_judgment("label", label),) for label in labels}
    answers = frame.drop_duplicates("item")
    contexts = [
        MemoryContext(
            GoldAnswer(int(item), judged[label])
            for item, label in zip(answers["item"], answers["gold"], strict=True)
            if gold
        )
        for _ in rules
    ]
    flagged: list[dict[int, int]] = [{} for _ in rules]
    made: dict[int, int] = {}
    project = Project(1)
    rows = zip(frame["annotator"].tolist(), frame["item"].tolist(), frame["label"].tolist(), strict=True)
    for number, (who, item, label) in enumerate(rows, start=1):
        made[who] = made.get(who, 0) + 1
        submission = Submission(
            annotation=Annotation(number, item, 1, completed_by=who, updated_by=who),
            task=Task(item, 1, overlap=overlap),
            project=project,
            config=config,
            judgments=judged[label],
            author=who,
            first=True,
            at=START + timedelta(seconds=number),
        )
        for rule, context, found in zip(rules, contexts, flagged, strict=True):
            for finding in submit(rule, submission, context):
                about = who if finding.annotator is None else finding.annotator
                if not finding.observe_only:
                    found.setdefault(about, made.get(about, 0))
    return flagged


def in_order(frame: pd.DataFrame, order: str, seed: int) -> pd.DataFrame:
    """A job in ``original`` order, ``shuffled``, ``sorted`` by true class, or with unequal case ``mixes``.

    For mixes everybody keeps a random half of the classes and a fifth of the others.
    """
    if order == "original":
        return frame
    rng = np.random.default_rng(seed)
    shuffled = frame.iloc[rng.permutation(len(frame))]
    if order == "shuffled":
        return shuffled
    if order == "sorted":
        return shuffled.sort_values("gold", kind="stable")
    classes = np.array(sorted(frame["gold"].unique()))
    half = max(1, len(classes) // 2)
    own = {who: set(rng.choice(classes, half, replace=False)) for who in sorted(frame["annotator"].unique())}
    kept = [
        gold in own[who] or luck < 0.2
        for who, gold, luck in zip(shuffled["annotator"], shuffled["gold"], rng.random(len(shuffled)), strict=True)
    ]
    return shuffled[kept]
