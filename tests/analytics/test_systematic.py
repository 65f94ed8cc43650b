"""Systematic errors are found and named, and honest people who differ are left alone."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from crews import (
    LABELS,
    MONDAY,
    Crew,
    Plant,
    biased,
    confusing,
    copying_each_other,
    copying_predictions,
    crew,
    cycling,
    overusing,
)
from labelguard_analytics import (
    BadJudgments,
    Findings,
    concentrated_errors,
    copying_pairs,
    label_overuse,
    order_patterns,
    prediction_copying,
    source_bias,
)
from labelguard_analytics.frames import read
from labelguard_analytics.systematic.exchange import fit, options, references, upper_tail

Look = Callable[[pd.DataFrame], Findings]
SEARCHES: dict[str, tuple[Callable[..., Findings], Callable[..., Plant], dict[str, Any], float]] = {
    "label_overuse": (label_overuse, overusing, {}, 0.8),
    "source_bias": (source_bias, biased, {"tasks": 6000}, 0.6),
    "prediction_copying": (prediction_copying, copying_predictions, {"annotators": 6}, 0.5),
    "order_patterns": (order_patterns, cycling, {}, 0.9),
    "copying_pairs": (copying_pairs, copying_each_other, {"annotators": 6, "per_task": 4, "tasks": 2000}, 0.6),
    "concentrated_errors": (concentrated_errors, confusing, {}, 0.7),
}
"""Each search with its plant, a crew in which that can be seen, and how often it is found at least."""
every_search = pytest.mark.parametrize("name", SEARCHES)


def look(name: str, frame: pd.DataFrame, **arguments: Any) -> Findings:
    """Search without the columns that this search does not know."""
    unknown = [] if name == "prediction_copying" else ["prediction"]
    return SEARCHES[name][0](frame.drop(columns=unknown, errors="ignore"), **arguments)


@pytest.mark.slow
@every_search
def test_honest_people_are_left_alone_and_the_plant_is_found(name: str) -> None:
    """Over six kinds of honest crews at most 10% have any discovery; a stated share of plants is found."""
    worlds: list[dict[str, Any]] = [
        {},
        {"labels": 2},
        {"labels": 8},
        {"per_task": 2},
        {"annotators": 6},
        {"order": "mixed"},
    ]
    any_found = []
    for number, world in enumerate(worlds):
        for seed in range(6):
            made = crew(5000 + 10 * number + seed, **world)
            any_found.append(bool(look(name, made.frame).discovered))
    assert np.mean(any_found) <= 0.1
    _, plant, world, least = SEARCHES[name]
    found, innocent = [], []
    for seed in range(10):
        planted = plant(crew(6000 + seed, **world), seed)
        named = look(name, planted.frame).discovered
        found.append(planted.guilty in named)
        innocent.append(bool(set(named) - {planted.guilty}))
    assert np.mean(found) >= least
    assert np.mean(innocent) <= 0.2


@every_search
def test_a_finding_is_told_in_two_sentences_with_the_numbers(name: str) -> None:
    """Who it is, how much, with an interval, and what to do; the table agrees."""
    _, plant, world, _ = SEARCHES[name]
    for seed in range(5):
        planted = plant(crew(7000 + seed, **world), seed)
        result = look(name, planted.frame)
        if planted.guilty in result.discovered:
            break
    row = result.table.iloc[0]
    assert row["discovered"]
    assert row["q"] <= 0.1
    assert row["low"] <= row["high"]
    assert row["reason"] == ""
    text = result.explain()
    who = planted.guilty if isinstance(planted.guilty, tuple) else (planted.guilty,)
    if result.discovered[0] == planted.guilty:
        assert all(str(one) in text for one in who)
    assert "95% interval" in text
    assert len(re.findall(r"[.?](?: |$)", text)) == 2
    assert sum(result.table["discovered"]) == len(result.discovered)


@every_search
def test_nothing_found_and_too_little_data_are_told_with_the_numbers(name: str) -> None:
    """An honest crew gets a sentence with the number looked at; ten tasks get "too little data"."""
    made = crew(7100)
    quiet = look(name, made.frame)
    assert quiet.discovered == ()
    assert re.match(r"Of \d+ ", quiet.explain())
    few = look(name, made.frame[made.frame["task"] < 10])
    assert few.discovered == ()
    assert re.match(r"Too little data: \d+ .* are needed\.$", few.explain())
    assert few.table["p"].isna().all()
    assert few.table["reason"].str.startswith("Too little data: ").all()


@every_search
def test_the_order_of_rows_and_names_does_not_matter(name: str) -> None:
    """Times decide about order, and annotators are found whatever they are called."""
    _, plant, world, _ = SEARCHES[name]
    frame = plant(crew(7200, **world), 0).frame
    first = look(name, frame)
    mixed = look(name, frame.sample(frac=1, random_state=1))
    assert set(first.discovered) == set(mixed.discovered)
    assert first.table["p"].to_numpy() == pytest.approx(mixed.table["p"].to_numpy(), nan_ok=True, rel=1e-6)
    renamed = look(name, frame.assign(annotator="person " + frame["annotator"].astype(str)))
    assert len(renamed.discovered) == len(first.discovered)


@every_search
def test_bad_input_is_told_in_one_sentence(name: str) -> None:
    """The sentence names the column and the row, or the argument."""
    frame = crew(7300, tasks=60).frame
    with pytest.raises(BadJudgments, match="The column 'value' is empty in row 7"):
        look(name, frame.assign(value=frame["value"].where(frame.index != 7)))
    with pytest.raises(BadJudgments, match="The column 'annotator' is missing"):
        look(name, frame.drop(columns="annotator"))
    with pytest.raises(ValueError, match="level must lie between 0 and 1, but it is 2"):
        look(name, frame, level=2)
    with pytest.raises(ValueError, match="tolerance"):
        look(name, frame, tolerance=-1)


def test_further_bad_input_of_single_searches() -> None:
    """Columns and arguments that only one of them has."""
    frame = crew(7310, tasks=60).frame
    plain = frame.drop(columns="prediction")
    with pytest.raises(BadJudgments, match="The column 'source' is missing"):
        source_bias(plain.drop(columns="source"))
    with pytest.raises(BadJudgments, match="The column 'prediction' is missing"):
        prediction_copying(plain)
    with pytest.raises(BadJudgments, match="predictions has two entries for task 3"):
        prediction_copying(plain, pd.Series(["ham", "spam"], index=[3, 3]))
    with pytest.raises(BadJudgments, match="predictions must be a Series of labels indexed by task, not a list"):
        prediction_copying(plain, ["ham"])  # type: ignore[arg-type]
    with pytest.raises(BadJudgments, match="'prediction_shown' must hold True or False, but row 0 holds 'yes'"):
        prediction_copying(frame.assign(prediction_shown="yes"))
    with pytest.raises(BadJudgments, match="There is no prediction"):
        prediction_copying(plain.assign(prediction=np.full(len(plain), None, dtype=object)))
    with pytest.raises(BadJudgments, match="The column 'at' is empty in row 4"):
        order_patterns(plain.assign(at=plain["at"].where(plain.index != 4)))
    with pytest.raises(ValueError, match="min_judgments must be at least 1, but it is 0"):
        label_overuse(plain, min_judgments=0)
    with pytest.raises(ValueError, match="min_tasks must be at least 1, but it is 0"):
        copying_pairs(plain, min_tasks=0)


def test_chances_are_the_share_of_the_task_where_people_are_alike() -> None:
    """One of three deviates: each would have, with a third; no label has a chance on a task where it was not said."""
    frame = pd.DataFrame({"task": np.repeat(np.arange(40), 3), "annotator": list("abc") * 40, "value": "x"})
    frame.loc[np.arange(40) * 3 + np.arange(40) % 3, "value"] = "y"
    coded = read(frame.iloc[:117])
    fitted = fit(options(coded, references(coded)))
    chance = fitted.chance()
    assert chance[fitted.options.deviates] == pytest.approx(1 / 3)
    assert chance[~fitted.options.deviates] == pytest.approx(2 / 3)


def test_the_tail_is_that_of_a_binomial_count() -> None:
    """Skewness is allowed for: never much below the exact tail, and at most half as much above it."""
    from scipy import stats

    n, p = 200, 0.02
    for seen in (9, 11, 13):
        excess = np.array([seen - n * p - 0.5])
        found = upper_tail(excess, np.array([n * p * (1 - p)]), np.array([n * p * (1 - p) * (1 - 2 * p)]))
        assert 0.9 <= found[0] / stats.binom.sf(seen - 1, n, p) <= 1.5


def test_whoever_gets_the_spam_queue_does_not_overuse_spam() -> None:
    """A case mix is no overuse: the colleagues on the same tasks say the same."""
    made = crew(7400)
    queue = made.truth == 1
    keep = ~(made.frame["annotator"] == 3).to_numpy() | queue | (np.random.default_rng(1).random(len(queue)) < 0.1)
    result = label_overuse(made.frame[keep].drop(columns="prediction"))
    assert 3 not in result.discovered


def test_where_a_single_peer_disagrees_nobody_is_named() -> None:
    """Of two people alone with each other, either may be the one who is stuck; known answers settle it."""
    rng = np.random.default_rng(2)
    truth = rng.integers(0, 2, 400)
    said = np.where(rng.random((400, 2)) < 0.9, truth[:, None], 1 - truth[:, None])
    said[:, 1] = np.where(rng.random(400) < 0.5, 1, said[:, 1])
    frame = pd.DataFrame(
        {"task": np.repeat(np.arange(400), 2), "annotator": ["ann", "bob"] * 400, "value": LABELS[said.ravel()]}
    )
    alone = label_overuse(frame)
    assert "bob" not in alone.discovered
    known = label_overuse(frame.assign(gold=LABELS[np.repeat(truth, 2)]))
    assert known.discovered[0] == "bob"


def test_known_answers_show_what_everybody_does_in_a_source() -> None:
    """A label that the whole crew prefers in a source is told for all together; a hard source alone is not."""
    made = crew(7450, tasks=4000)
    gold = LABELS[made.truth]
    honest = source_bias(made.frame.drop(columns="prediction").assign(gold=gold))
    assert honest.discovered == ()
    assert honest.table["annotator"].isna().sum() == 3
    rng = np.random.default_rng(4)
    moved = (made.frame["source"] == "web").to_numpy() & (rng.random(len(gold)) < 0.2)
    frame = made.said(np.where(moved, 1, made.value)).drop(columns="prediction")
    found = source_bias(frame.assign(gold=gold))
    assert (None, "web") in found.discovered
    assert "All annotators together wrongly said 'spam' in 'web'" in found.explain()
    assert not source_bias(frame).table["annotator"].isna().any()


def test_predictions_shown_to_some_show_copying_by_everybody() -> None:
    """With a control group, a copying crew is found, which a comparison among themselves could not do."""
    made = crew(7500, annotators=8, tasks=3000, per_task=4)
    rng = np.random.default_rng(3)
    shown = rng.random(len(made.value)) < 0.5
    predicted = pd.Index(LABELS).get_indexer(made.frame["prediction"])
    copied = shown & (rng.random(len(shown)) < 0.5)
    frame = made.said(np.where(copied, predicted, made.value)).assign(prediction_shown=shown)
    assert len(prediction_copying(frame).discovered) >= 6
    honest = made.frame.assign(prediction_shown=shown)
    assert prediction_copying(honest).discovered == ()


def test_fast_acceptances_are_told() -> None:
    """Durations turn up in the sentence, and predictions may come as a series."""
    planted = copying_predictions(crew(7600, annotators=6), 0, share=0.7)
    by_task = planted.frame.drop_duplicates("task").set_index("task")["prediction"]
    result = prediction_copying(planted.frame.drop(columns="prediction"), by_task)
    assert planted.guilty in result.discovered
    assert re.search(r"and took \d.* s for them against \d.* s otherwise", result.explain())


def test_kinds_of_order_are_told_apart() -> None:
    """Runs, cycles and alternation, on items in any order."""
    made = crew(7700, annotators=6)
    mine = np.flatnonzero(made.of(2))[:120]
    value = made.value.copy()
    value[mine] = np.arange(120) // 12 % made.labels
    runs = order_patterns(made.said(value).drop(columns="prediction")).table.iloc[0]
    assert (runs["annotator"], runs["kind"], bool(runs["discovered"])) == (2, "runs", True)
    value[mine] = np.array([0, 2])[np.arange(120) % 2]
    swing = order_patterns(made.said(value).drop(columns="prediction")).table.iloc[0]
    assert swing["annotator"] == 2
    assert swing["pattern"] == "'ham' - 'news'" or swing["pattern"] == "'news' - 'ham'"
    assert swing["longest"] >= 100


def test_sessions_cut_the_order() -> None:
    """A label of yesterday is not the one before today's."""
    frame = crew(7710, annotators=6).frame.drop(columns="prediction")
    whole = order_patterns(frame).table["judgments"].sum()
    cut = order_patterns(frame.assign(at=MONDAY + pd.to_timedelta(np.arange(len(frame)), unit="D")), min_judgments=1)
    assert cut.table["judgments"].sum() < 0.01 * whole


def test_pairs_that_work_at_the_same_time_are_told_so() -> None:
    """Minutes between equal and unequal answers, and who came later."""
    made = crew(7800, annotators=6, per_task=4, tasks=2000)
    planted = copying_each_other(made, 1, share=0.6)
    frame = planted.frame.drop(columns="prediction")
    first, second = planted.guilty if isinstance(planted.guilty, tuple) else (0, 0)
    frame["at"] = MONDAY + pd.to_timedelta(frame["task"] * 60 + frame["annotator"] * 600, unit="min")
    answers = frame[frame["annotator"] == first].set_index("task")
    same = (frame["annotator"] == second) & (frame["value"] == frame["task"].map(answers["value"]))
    frame["at"] = frame["at"].where(~same, frame["task"].map(answers["at"]) + pd.Timedelta(minutes=5))
    result = copying_pairs(frame)
    assert result.discovered == (planted.guilty,)
    row = result.table.iloc[0]
    assert row["second_later"] == 1.0
    assert row["same_minutes"] == 5.0
    assert ", 5 minutes apart when equal and" in result.explain()


def test_people_who_get_better_have_no_systematic_error() -> None:
    """A crew that starts at chance and ends good is honest in every respect."""
    for seed in range(3):
        made: Crew = crew(7900 + seed, tasks=1200)
        done = made.frame.groupby("annotator").cumcount().to_numpy()
        rng = np.random.default_rng(seed)
        guess = rng.random(len(done)) < 0.6 * np.exp(-done / 60)
        frame = made.said(np.where(guess, rng.integers(0, made.labels, len(done)), made.value))
        for name in SEARCHES:
            assert look(name, frame).discovered == (), name
