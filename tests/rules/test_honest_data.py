"""Honest people stay unaccused, planted trouble is found: on seven public crowd sets with known truth."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from crowd import crowd_data, in_order, replay
from labelguard_rules.gold_check import GoldCheck
from labelguard_rules.single_label_overuse import SingleLabelOveruse

pytestmark = pytest.mark.slow

JOBS = ("CF", "CF_amt", "MS", "SP", "SP_amt", "ZenCrowd_in", "ZenCrowd_us")
ORDERS = ("original", "shuffled", "sorted", "mixes")
TARGET = 0.85
FALSE_ALARM = 0.05


@pytest.fixture(scope="module")
def crowd() -> pd.DataFrame:
    """All judgments of the seven jobs."""
    return crowd_data()


def honest(frame: pd.DataFrame) -> set[int]:
    """Annotators whose accuracy on these very tasks is at least the target."""
    right = (frame["label"] == frame["gold"]).groupby(frame["annotator"]).mean()
    return set(right.index[right >= TARGET])


@pytest.mark.parametrize("order", ORDERS)
def test_honest_annotators_stay_unflagged(crowd: pd.DataFrame, order: str) -> None:
    """Over the seven jobs fewer than `false_alarm` of the honest are ever flagged, whatever the reference."""
    rules = {
        "gold-check": GoldCheck(target_accuracy=TARGET, false_alarm=FALSE_ALARM),
        "overuse, gold": SingleLabelOveruse(false_alarm=FALSE_ALARM, reference="gold"),
        "overuse, peers": SingleLabelOveruse(false_alarm=FALSE_ALARM, reference="peers"),
    }
    flagged = dict.fromkeys(rules, 0)
    people = 0
    for number, job in enumerate(JOBS):
        part = in_order(crowd[crowd["job"] == job], order, seed=100 + number)
        good = honest(part)
        people += len(good)
        for name, found in zip(rules, replay(list(rules.values()), part, gold=True), strict=True):
            flagged[name] += len(good & found.keys())
    assert people > 400
    for name, count in flagged.items():
        assert count / people < FALSE_ALARM, f"{name}: {count} of {people}"


def test_annotators_like_their_peers_stay_unflagged(crowd: pd.DataFrame) -> None:
    """Where every task's labels are dealt out anew among its annotators, nobody overuses anything.

    This is exactly what the rule takes for granted, so here the guarantee holds for everybody, with no
    tolerance at all.
    """
    rule = SingleLabelOveruse(false_alarm=FALSE_ALARM, reference="peers", tolerance=1.0)
    flagged = people = 0
    for number, job in enumerate(("CF_amt", "SP_amt", "ZenCrowd_in", "MS")):
        part = in_order(crowd[crowd["job"] == job], "shuffled", seed=200 + number).copy()
        rng = np.random.default_rng(300 + number)
        part["label"] = part.groupby("item")["label"].transform(lambda x, rng=rng: rng.permutation(x.to_numpy()))
        flagged += len(replay([rule], part, gold=False)[0])
        people += part["annotator"].nunique()
    assert flagged / people < FALSE_ALARM


def test_planted_annotators_are_found(crowd: pd.DataFrame, capsys: pytest.CaptureFixture[str]) -> None:
    """Who always says one label and who guesses is found; prints after how many judgments."""
    lines, missed, planted_count = [], 0, 0
    for number, job in enumerate(("CF_amt", "SP_amt", "SP", "ZenCrowd_us")):
        part = in_order(crowd[crowd["job"] == job], "shuffled", seed=400 + number).copy()
        rng = np.random.default_rng(500 + number)
        sizes = part.groupby("annotator").size()
        planted = rng.choice(sizes.index[sizes >= 150].to_numpy(), 4, replace=False).tolist()
        constant, careless = planted[:2], planted[2:]
        labels = sorted(part["label"].unique())
        part.loc[part["annotator"].isin(constant), "label"] = part["label"].mode()[0]
        guesses = part["annotator"].isin(careless)
        part.loc[guesses, "label"] = rng.choice(labels, int(guesses.sum()))
        checks = [GoldCheck(), SingleLabelOveruse(), SingleLabelOveruse(reference="peers")]
        gold, overuse, peers = replay(checks, part, gold=True)
        lines.append(
            f"{job}: one label found by peers after {[peers.get(who) for who in constant]} judgments, "
            f"by the reference after {[overuse.get(who) for who in constant]}; "
            f"guessing found by gold after {[gold.get(who) for who in careless]}"
        )
        planted_count += 6
        missed += len(set(constant) - peers.keys()) + len(set(constant) - overuse.keys())
        missed += len(set(careless) - gold.keys())
    with capsys.disabled():
        print("\n" + "\n".join(lines))  # noqa: T201 - how many judgments it takes is what one wants to read
    assert missed == 0, f"{missed} of {planted_count} were missed"
