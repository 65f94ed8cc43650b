"""Sweeps: what drifts is found and described, what learns or has other tasks is not, and shards add up."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
from statsmodels.regression.linear_model import WLS

from histories import Setting, crowd
from labelguard_analytics import BadJudgments, Changes, Nights, Panel, detect_changes
from labelguard_analytics.changes.look import combined, look, sums_of
from labelguard_analytics.changes.measures import MEASURES
from labelguard_analytics.changes.periods import Past, Periods
from labelguard_analytics.changes.plan import Plan
from labelguard_analytics.changes.scores import Work, experience, profile, significance
from labelguard_analytics.changes.screen import batches

SMALL = Setting(annotators=24, labels=5, weeks=16, a_day=12, drift=0.4)
NUMBERS = ["size", "low", "high", "p", "q", "before", "after"]


@cache
def drifting() -> pd.DataFrame:
    """Two of 24 people call 40% of everything label 0 in the last four of 16 weeks; nobody else is named by chance."""
    return crowd(np.random.default_rng(18), SMALL, {3: 12, 8: 12})


@cache
def found() -> Changes:
    """A sweep over them."""
    return detect_changes(drifting())


def shards(frame: pd.DataFrame, count: int) -> list[pd.DataFrame]:
    """Whole tasks, some in each shard."""
    return [frame[frame["task"] % count == number] for number in range(count)]


def assert_same(one: Changes, other: Changes) -> None:
    """Two sweeps found the same."""
    pd.testing.assert_frame_equal(one.table, other.table, rtol=1e-6, atol=1e-9)
    assert (one.annotators, one.too_little, one.not_looked) == (other.annotators, other.too_little, other.not_looked)


def test_who_drifts_is_named_with_label_place_and_size() -> None:
    """Each is found for the label they overuse, from the week it began, by about the 40% planted."""
    assert set(found().annotators) == {3, 8}
    for who in (3, 8):
        share = next(one for one in found().changes if (one.annotator, one.measure, one.label) == (who, "share", 0))
        assert share.direction == "more"
        assert share.since is not None
        assert abs(share.since - pd.Timestamp("2026-03-30")) <= pd.Timedelta(days=4)
        assert share.since_low is not None
        assert share.since_high is not None
        assert share.since_low <= share.since <= share.since_high
        assert share.low < share.size < share.high
        assert 0.15 < share.size < 0.45
        assert share.expected == pytest.approx(share.after - share.size)
        agreement = [one for one in found().changes if (one.annotator, one.measure) == (who, "agreement")]
        assert {one.direction for one in agreement} <= {"decline"}


def test_the_words_have_the_numbers_and_what_to_do() -> None:
    """Two sentences of a change and of the whole, for people."""
    text = found().changes[0].explain()
    assert "more often since" in text
    assert "would be expected from earlier work on tasks that others judged alike" in text
    assert "95% interval" in text
    assert text.endswith("it is drift only if they are wrong.")
    whole = found().explain()
    assert whole.startswith("24 annotators could be judged over 80 days, and 2 changed")
    assert "of those named, on average at most 10% are named by chance. The strongest: " in whole


def test_learning_case_mix_and_a_hard_week_are_not_changes() -> None:
    """People who only learn, other tasks every week and harder weeks for all give names in 10% (by chance 4 of 12)."""
    setting = Setting(annotators=24, labels=5, weeks=16, a_day=12, cycle=0.05, shock=0.05)
    worlds = [crowd(np.random.default_rng([12, world]), setting) for world in range(12)]
    assert sum(bool(detect_changes(world).annotators) for world in worlds) <= 4


def test_an_improvement_is_told_from_a_decline() -> None:
    """Somebody who suddenly gets better is named for an improvement, and for nothing else but it."""
    frame = crowd(np.random.default_rng(13), Setting(annotators=24, labels=4, weeks=16, a_day=12), {5: 0}, drift=0.6)
    good = crowd(np.random.default_rng(13), Setting(annotators=24, labels=4, weeks=16, a_day=12), {5: 0}, drift=0.0)
    late = (frame["at"] >= pd.Timestamp("2026-03-30")) & (frame["annotator"] == 5)
    frame = frame[["task", "annotator", "value", "at"]].copy()
    assert frame["task"].equals(good["task"])
    frame.loc[late, "value"] = good.loc[late, "value"]
    changes = detect_changes(frame, measures=["agreement"])
    assert changes.annotators == (5,)
    assert {one.direction for one in changes.changes} == {"improvement"}
    assert changes.changes[0].explain().endswith("what helped here may help others too.")


@pytest.mark.slow
def test_the_share_of_false_names_is_kept_and_power_is_there() -> None:
    """At most 10% of names are false in 30 worlds; any name in at most 10% of quiet ones (by chance up to 4 of 16).

    100 annotators, 10 labels, 26 weeks: who drifts in a quarter of four weeks' judgments is found in over 55%.
    """
    rng, setting = np.random.default_rng(14), Setting(cycle=0.05, shock=0.04)
    quiet = [bool(detect_changes(crowd(rng, setting)).annotators) for _ in range(16)]
    false, power = [], []
    for _ in range(30):
        named = set(detect_changes(crowd(rng, setting, dict.fromkeys(range(1, 6), 22))).annotators)
        false.append(len(named - {1, 2, 3, 4, 5}) / max(1, len(named)))
        power.append(len(named & {1, 2, 3, 4, 5}) / 5)
    assert sum(quiet) <= 4
    assert np.mean(false) <= 0.1
    assert np.mean(power) >= 0.55


def test_a_panel_gives_what_the_frame_gives() -> None:
    """However tasks are cut into shards, and after storing the panel, the sweep is the same."""
    parts = [Panel.of(shard) for shard in shards(drifting(), 3)]
    kept = Panel.from_bytes((parts[0] + parts[1]).to_bytes()) + parts[2]
    assert kept.n_judgments == len(drifting())
    assert kept.n_tasks == drifting()["task"].nunique()
    assert_same(detect_changes(kept), found())
    assert_same(detect_changes(kept - parts[1] + parts[1]), found())


@pytest.mark.parametrize("by", [("annotator", "label"), ("annotator", "source"), ("label", "cohort"), ()])
def test_a_sweep_after_new_tasks_is_the_sweep_over_everything(by: tuple[str, ...]) -> None:
    """What earlier nights summed is used, and everybody's evidence is that of all judgments read at once.

    From night to night come new days, somebody new, a new source, a task of an earlier week; and one task goes.
    """
    rng = np.random.default_rng(16)
    frame = drifting().assign(
        source=lambda f: np.where((f["task"] % 5 == 0) & (f["at"] > pd.Timestamp("2026-04-13")), "web", "mail"),
        cohort=lambda f: np.where(f["annotator"] < 12, "first", "second"),
        duration=lambda f: rng.lognormal(3, 0.4, len(f)),
        annotator=lambda f: np.where(
            (f["annotator"] == 7) & (f["at"] > pd.Timestamp("2026-04-06")), 99, f["annotator"]
        ),
    )
    night = (frame.groupby("task")["at"].transform("min") - pd.Timestamp("2026-03-02")).dt.days // 6
    night = night.clip(lower=0).mask(frame["task"] == 4000, 6)
    panel = Panel.of(frame[night == 0])
    detect_changes(panel, by=by)
    for now in range(1, int(night.max()) + 1):
        panel += Panel.of(frame[night == now])
        fresh, read = Panel.of(frame[night <= now]), Plan.of(panel, frozenset(by), 0.1, 50, 5)
        used = Past.of(panel, read).day
        assert (used > int(read.days[0])) == (now != 6 or used > 0)
        assert_same(detect_changes(panel, by=by), detect_changes(fresh, by=by))
        assert_same_evidence(panel, fresh, by)
    less = panel - Panel.of(frame[frame["task"] == 5000])
    assert_same(detect_changes(less, by=by), detect_changes(frame[frame["task"] != 5000], by=by))


def assert_same_evidence(one: Panel, other: Panel, by: tuple[str, ...]) -> None:
    """The bounds of all series, to nine digits."""
    for name in ("agreement", "duration", *(("share",) if "label" in by else ())):
        bounds = []
        for panel in (one, other):
            plan = Plan.of(panel, frozenset(by), 0.1, 50, 5)
            periods = Periods.of(panel, plan, sums_of([MEASURES[name]]))
            bounds.append(look(panel, plan, MEASURES[name], periods).bound)
        np.testing.assert_allclose(bounds[0], bounds[1], rtol=1e-9)


def test_shards_with_other_labels_people_and_columns_add_up() -> None:
    """A shard may lack some annotators and labels, and be the larger or smaller part."""
    rng = np.random.default_rng(15)
    frame = drifting().assign(
        source=lambda f: np.where(f["task"] % 5 == 0, "web", "mail"),
        duration=lambda f: rng.lognormal(3, 0.4, len(f)),
        value=lambda f: f["value"].map("label {}".format),
    )
    first = frame["task"].isin(frame.loc[frame["annotator"] == 7, "task"]) | frame["task"].isin(
        frame.loc[frame["value"] == "label 2", "task"]
    )
    small, large = Panel.of(frame[first]), Panel.of(frame[~first])
    assert len(large.labels) < len(small.labels)
    for both in (small + large, large + small):
        assert_same(
            detect_changes(both, by=("annotator", "label", "source")),
            detect_changes(frame, by=("annotator", "label", "source")),
        )


def test_panels_that_do_not_belong_together_are_refused() -> None:
    """The same task twice, a task that was never in, and bytes of something else."""
    one, two = (Panel.of(shard) for shard in shards(drifting(), 2))
    with pytest.raises(ValueError, match="The task 0 is in both panels; take its old panel away first"):
        one + one
    with pytest.raises(ValueError, match="some of its tasks were never part of the other"):
        one - two
    again = drifting().assign(value=0)
    with pytest.raises(ValueError, match="its tasks were judged differently in the other"):
        one - Panel.of(again[again["task"] == 0])
    with pytest.raises(ValueError, match="These bytes are no panel"):
        Panel.from_bytes(b"nothing")


def test_scores_are_those_of_weighted_least_squares() -> None:
    """Size and score of a change equal a regression on strata, learning curves and a step (statsmodels)."""
    rng = np.random.default_rng(16)
    n = rng.poisson(2, (50, 6)).astype(np.float64) + (np.arange(6) == 0)
    day = np.arange(50)
    today = n.sum(axis=1)
    curves = experience(np.cumsum(today) - today, today)
    y = rng.binomial(n.astype(int), 0.4).astype(np.float64)
    weight, pace = rng.uniform(1, 5, 6), rng.uniform(0.2, 1, 6)
    upper, places = np.array([0, 1, 0, 1, 1, 0.0]), np.array([10, 30, 44])
    scored = profile(Work(day, n, curves), y, weight, upper, pace, np.full(6, 0.2), places)
    tested = significance(scored, places)
    days, strata = np.nonzero(n)
    for number, place in enumerate(places):
        design = np.zeros((len(days), 11))
        design[np.arange(len(days)), strata] = 1
        for group in (0, 1):
            for curve in (0, 1):
                design[:, 6 + 2 * group + curve] = curves[curve, days] * pace[strata] * (upper[strata] == group)
        design[:, 10] = days >= place
        fit = WLS(y[days, strata] / n[days, strata], design, weights=weight[strata] * n[days, strata]).fit()
        assert tested.size[number] == pytest.approx(fit.params[10], abs=1e-5)


@pytest.mark.parametrize("by", [("annotator", "label"), ("annotator", "source"), ("label", "source"), ()])
def test_the_bound_has_the_scores_of_the_close_look(by: tuple[str, ...]) -> None:
    """What is screened at once has the scores, information and model variance of the look at single days."""
    rng = np.random.default_rng(17)
    frame = drifting()[drifting()["annotator"] < 9].assign(duration=lambda f: rng.lognormal(3, 0.4, len(f)))
    panel = Panel.of(frame.assign(source=frame["task"] % 2))
    plan = Plan.of(panel, frozenset(by), 0.1, 50, 5)
    for name in ("agreement", "duration", *(("share",) if "label" in by else ())):
        measure = MEASURES[name]
        sight = look(panel, plan, measure, Periods.of(panel, plan, sums_of([measure])), alone=True)
        assert sight.bound.shape[0] == len(plan.units)
        unit, series = 0, sight.data.series - 1
        close = sight.profile(unit, series, plan.candidates)
        score = np.zeros(len(plan.candidates))
        info, model = score.copy(), score.copy()
        for batch in batches(sight.data):
            found = batch.scores(None)
            for number in range(batch.parts):
                if sight.data.units[batch.first + number] == unit:
                    score += found.score[number, :, series]
                    info += found.info[number, :, series]
                    model += found.model[number, :, series]
        scale = np.abs(score).max()
        np.testing.assert_allclose(close.score.sum(axis=0), score, atol=1e-2 * scale)
        # Where somebody's two curves can hardly be told apart, rounding shows.
        np.testing.assert_allclose(close.info.sum(axis=0), info, rtol=1e-2)
        np.testing.assert_allclose(close.model, model, rtol=1e-2)


def test_every_measure_is_looked_at_where_its_column_is() -> None:
    """Gold, duration, confidence, disputes and corrections: each planted change is found under its name."""
    rng = np.random.default_rng(18)
    frame = crowd(rng, Setting(annotators=15, labels=4, weeks=16, a_day=12))
    late = (frame["at"] >= pd.Timestamp("2026-03-30")).to_numpy()
    chance = rng.random(len(frame))

    def by(who: int) -> Any:
        return (frame["annotator"] == who).to_numpy() & late

    frame["gold"] = frame.groupby("task")["value"].transform("median").where(frame["task"] % 3 == 0)
    gold = frame["gold"].to_numpy(dtype=np.float64)
    wrong = by(1) & ~np.isnan(gold) & (chance < 0.6)
    frame.loc[wrong, "value"] = (gold[wrong] + 1) % 4
    frame["duration"] = rng.lognormal(3, 0.5, len(frame)) * np.where(by(2), 0.5, 1)
    frame["confidence"] = np.clip(rng.normal(0.7, 0.1, len(frame)) - 0.2 * by(3), 0, 1)
    frame["disputed"] = chance < np.where(by(4), 0.3, 0.05)
    frame["corrected"] = pd.array(rng.random(len(frame)) < np.where(by(5), 0.02, 0.3), dtype="boolean")
    changes = detect_changes(frame, by="annotator")
    told = {(one.annotator, one.measure): one for one in changes.changes}
    assert told[1, "accuracy"].direction == "decline"
    assert told[2, "duration"].direction == "faster"
    assert told[2, "duration"].size == pytest.approx(-0.5, abs=0.08)
    assert "seconds for a typical one of" in told[2, "duration"].explain()
    assert told[3, "confidence"].direction == "less"
    assert "has been less sure since" in told[3, "confidence"].explain()
    assert told[4, "disputed"].direction == "decline"
    assert told[5, "corrected"].direction == "improvement"
    assert set(changes.annotators) <= {1, 2, 3, 4, 5}
    assert changes.not_looked == {"share": "Label shares are looked at only where 'by' names 'label'."}


def test_measures_without_their_column_are_named_with_the_reason() -> None:
    """Nothing is silently left out."""
    assert (
        found().not_looked["accuracy"]
        == "There is no column 'gold', so the accuracy on known answers is not looked at."
    )
    assert set(found().not_looked) == {"accuracy", "disputed", "corrected", "duration", "confidence"}


def test_a_source_and_a_cohort_can_be_told_apart() -> None:
    """Everybody gets slower on one source; by source it is that source, and nobody in particular."""
    rng = np.random.default_rng(19)
    frame = crowd(rng, Setting(annotators=12, labels=4, weeks=16, a_day=12))
    frame["source"] = np.where(frame["task"] % 2 == 0, "web", "mail")
    frame["cohort"] = np.where(frame["annotator"] < 6, "night", "day")
    slow = (frame["source"] == "web") & (frame["at"] >= pd.Timestamp("2026-03-30"))
    frame["duration"] = rng.lognormal(3, 0.5, len(frame)) * np.where(slow, 1.5, 1)
    changes = detect_changes(frame, by="source", measures=["duration"])
    assert [(one.source, one.annotator, one.direction) for one in changes.changes] == [("web", None, "slower")]
    assert changes.changes[0].explain().startswith("Everybody, on source web, has taken more time")
    assert "1 changed" in changes.explain()
    cohorts = detect_changes(frame, by=("cohort", "source"), measures=["duration"])
    assert {(one.cohort, one.source) for one in cohorts.changes} == {("night", "web"), ("day", "web")}


def test_peers_of_somebody_who_drifts_are_not_named() -> None:
    """In a team of five, one who drifts moves the consensus of all others, who are looked at without them."""
    named = []
    for seed in range(6):
        frame = crowd(
            np.random.default_rng([20, seed]), Setting(annotators=6, labels=4, weeks=16, a_day=15), {2: 11}, drift=0.5
        )
        named += [who for who in detect_changes(frame).annotators if who != 2]
    assert len(named) <= 1


def test_too_little_data_is_said_with_the_numbers() -> None:
    """Below the minimum there is a reason instead of an answer."""
    frame = drifting()[drifting()["at"] < pd.Timestamp("2026-01-14")]
    changes = detect_changes(frame)
    assert changes.looked == ()
    reason = next(one for one in changes.too_little if (one.annotator, one.measure) == (3, "agreement"))
    assert reason.explain().startswith("Too little data on annotator 3 for agreement with the others: at best ")
    assert reason.explain().endswith("where 50 on 5 days are needed.")
    assert "for 24 there is too little data" in changes.explain()


def test_labels_may_be_sets() -> None:
    """Lists of labels are looked at label by label, agreement being whether the most frequent label is among them."""
    rows = drifting()[["value", "task"]].itertuples(index=False)
    sets = [[f"l{value}", "rare"] if task % 11 == 0 else [f"l{value}"] for value, task in rows]
    frame = drifting().assign(value=pd.Series(sets, drifting().index, dtype=object))
    changes = detect_changes(frame, measures=["share", "agreement"])
    assert changes.annotators == found().annotators
    assert {(one.annotator, one.label) for one in changes.changes} >= {(3, "l0"), (8, "l0")}


def test_nights_keep_the_share_over_all_sweeps() -> None:
    """Who was named is not named again; what is spent never exceeds the level; the state survives as JSON."""
    panel, state = Panel.of(drifting()[drifting()["at"] < pd.Timestamp("2026-04-06")]), Nights(half=3)
    named: list[Any] = []
    for day in ("2026-04-06", "2026-04-13", "2026-04-20"):
        start = pd.Timestamp(day)
        new = drifting()[(drifting()["at"] >= start) & (drifting()["at"] < start + pd.Timedelta(days=7))]
        panel += Panel.of(new)
        changes = detect_changes(panel, nights=Nights.from_json(state.to_json()))
        assert changes.nights is not None
        state = changes.nights
        named += changes.annotators
    assert sorted(named) == [3, 8]
    assert set(state.named) == {(3,), (8,)}
    assert detect_changes(panel, nights=state).annotators == ()
    assert set(detect_changes(panel, nights=state.reopened(3)).annotators) == {3}
    spent = sum(Nights(level=0.1, half=10, sweeps=sweeps).allowed for sweeps in range(10))
    assert spent == pytest.approx(0.05)


def test_states_of_nights_that_cannot_be_are_refused() -> None:
    """A level outside 0 to 1, no half, somebody who was not named, and text of something else."""
    with pytest.raises(ValueError, match=r"level must lie between 0 and 1, but it is 1\.5"):
        Nights(level=1.5)
    with pytest.raises(ValueError, match="half must be at least 1 sweep, but it is 0"):
        Nights(half=0)
    with pytest.raises(ValueError, match="'ann' was not named, so there is nothing to reopen"):
        Nights().reopened("ann")
    with pytest.raises(ValueError, match="This text is no state of nightly sweeps"):
        Nights.from_json("{}")


def test_independent_p_values_combine_to_a_uniform_one() -> None:
    """The combination of many p-values is rejected as often as it should be, together or apart."""
    rng = np.random.default_rng(21)
    p = rng.random((200_000, 5))
    kept = np.ones(p.shape, dtype=bool)
    for level in (0.05, 0.001):
        assert np.mean(combined(p, kept, axis=1) <= level) == pytest.approx(level, rel=0.12)
    alike = np.repeat(p[:, :1], 5, axis=1)
    assert np.mean(combined(alike, kept, axis=1) <= 0.01) == pytest.approx(0.01, rel=0.1)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda f: f.drop(columns="at"), "The column 'at' is missing, which is needed here."),
        (lambda f: f.assign(at=f["at"].where(f.index != 4)), "The column 'at' is empty in row 4"),
        (
            lambda f: f.assign(at=pd.Timestamp("1960-01-01")),
            "The column 'at' must lie between 1970 and 2059, but row 0",
        ),
        (lambda f: f.assign(disputed="yes"), "The column 'disputed' must be true or false, but row 0 holds 'yes'."),
        (lambda f: f.rename(columns={"value": "label"}), "The column 'value' is missing"),
        (
            lambda f: f.assign(value=[[{"type": "choices"}]] * len(f)),
            "The column 'value' holds Label Studio result items",
        ),
    ],
)
def test_a_frame_that_is_wrong_is_refused_in_a_sentence(change: Any, says: str) -> None:
    """Each mistake is named with the column and the row."""
    with pytest.raises(BadJudgments, match=f"^{re.escape(says)}"):
        detect_changes(change(drifting().head(40)))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            {"by": "anotator"},
            "by may name annotator, label, source, cohort, but not 'anotator'; did you mean 'annotator'?",
        ),
        ({"by": ("label", "label")}, "by names something twice: label, label."),
        (
            {"measures": ["speed"]},
            "measures may name agreement, accuracy, share, disputed, corrected, duration, confidence",
        ),
        ({"level": 0}, "level must lie between 0 and 1, but it is 0."),
        ({"min_days": 1}, "min_days must be at least 2, but it is 1."),
        ({"by": "cohort"}, "The column 'cohort' is missing, which is needed here."),
    ],
)
def test_options_that_cannot_be_are_refused_in_a_sentence(words: dict[str, Any], says: str) -> None:
    """Each mistake is named with what there is."""
    with pytest.raises(ValueError, match=f"^{re.escape(says)}"):
        detect_changes(drifting().head(40), **words)
