"""Agreement equals published examples and the reference packages, with every judgment allowed to be missing."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import krippendorff
import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.inter_rater import fleiss_kappa as fleiss_of_statsmodels

from labelguard_analytics import (
    BadJudgments,
    agreement_by_label,
    agreement_by_task,
    cohen_kappa,
    fleiss_kappa,
    gwet_ac1,
    gwet_ac2,
    krippendorff_alpha,
    pairwise_agreement,
    percent_agreement,
)
from labelguard_analytics.frames import read
from labelguard_analytics.units import Alpha, Chance, NumberAlpha, Units

WRONG: Any = "exact"
METRICS = ("nominal", "ordinal", "interval", "ratio")
NAN = np.nan
KRIPPENDORFF = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, NAN, NAN, NAN],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NAN, 3],
        [NAN, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NAN],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NAN],
    ]
)
"""The example of Krippendorff (2011), part C: 4 observers, 12 units, missing data."""
FLEISS = np.array(
    [
        [0, 0, 0, 0, 14],
        [0, 2, 6, 4, 2],
        [0, 0, 3, 5, 6],
        [0, 3, 9, 2, 0],
        [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0],
        [3, 2, 6, 3, 0],
        [2, 5, 3, 2, 2],
        [6, 5, 2, 1, 0],
        [0, 2, 2, 3, 7],
    ]
)
"""A worked example of Fleiss' kappa that is found in many textbooks: 14 raters, 10 subjects, 5 categories."""


def frame(matrix: npt.NDArray[Any]) -> pd.DataFrame:
    """Judgments from annotators x tasks, NaN where there is none."""
    who, task = np.nonzero(~np.isnan(matrix))
    return pd.DataFrame({"task": task, "annotator": who, "value": matrix[who, task].astype(int)})


def noisy(seed: int, annotators: int = 5, tasks: int = 150, missing: float = 0.3, labels: int = 6) -> Any:
    """Annotators who are now and then off by one."""
    rng = np.random.default_rng(seed)
    off = rng.integers(-1, 2, (annotators, tasks)) * (rng.random((annotators, tasks)) < 0.4)
    matrix = (rng.integers(1, labels + 1, tasks) + off).clip(1, labels).astype(float)
    matrix[rng.random(matrix.shape) < missing] = NAN
    return matrix


def spread(table: npt.NDArray[Any]) -> pd.DataFrame:
    """Judgments from subjects x categories with numbers of raters."""
    rows = [
        (task, rater, label)
        for task, counts in enumerate(table)
        for rater, label in enumerate(np.repeat(np.arange(len(counts)), counts))
    ]
    return pd.DataFrame(rows, columns=["task", "annotator", "value"])


def two(table: list[list[int]]) -> pd.DataFrame:
    """Judgments of two annotators from their table."""
    cells = [(k, m) for k, row in enumerate(table) for m, count in enumerate(row) for _ in range(count)]
    return frame(np.array(cells, dtype=float).T)


@pytest.mark.parametrize(("metric", "value"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_of_krippendorffs_example(metric: str, value: float) -> None:
    """Krippendorff (2011) gives .743 for nominal, .815 for ordinal and .849 for interval data."""
    found = krippendorff_alpha(frame(KRIPPENDORFF), metric)

    assert value == round(found.value, 3)
    assert (found.n_tasks, found.n_judgments) == (11, 40)
    assert "at least 100 are needed" in found.reason


def test_alpha_of_krippendorffs_ratio_example() -> None:
    """Krippendorff (2011) gives .797 for ratio data."""
    assert round(krippendorff_alpha(frame(KRIPPENDORFF), "ratio").value, 3) == 0.797


def test_kappa_of_cohens_example() -> None:
    """Cohen (1960), table 1: 200 subjects, three categories, kappa .492."""
    found = cohen_kappa(two([[88, 14, 18], [10, 40, 10], [2, 6, 12]]))

    assert round(found.value, 3) == 0.492
    assert found.low < 0.492 < found.high


def test_kappa_of_a_fleiss_example() -> None:
    """The textbook's 10 subjects give .210."""
    assert round(fleiss_kappa(spread(FLEISS)).value, 3) == 0.210


def test_ac1_where_kappa_fails() -> None:
    """Gwet (2008): 118 of 125 subjects in one cell and 7 in disagreement give AC1 .94 and a kappa near 0."""
    judgments = two([[118, 5], [2, 0]])

    assert round(gwet_ac1(judgments).value, 2) == 0.94
    assert round(cohen_kappa(judgments).value, 2) == -0.02


@pytest.mark.parametrize(
    ("weights", "fleiss", "gwet"), [(None, 0.761, 0.775), ("linear", 0.818, 0.859), ("quadratic", 0.865, 0.914)]
)
def test_fleiss_and_gwet_of_gwets_example_with_missing_judgments(weights: Any, fleiss: float, gwet: float) -> None:
    """The same 4 observers in Gwet (2014): the values that irrCAC, his package, gives to three digits."""
    judgments = frame(KRIPPENDORFF)
    ac = gwet_ac1(judgments) if weights is None else gwet_ac2(judgments, weights=weights)

    assert round(percent_agreement(judgments).value, 3) == 0.818
    assert round(fleiss_kappa(judgments, weights=weights).value, 3) == fleiss
    assert round(ac.value, 3) == gwet


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_alpha_equals_the_reference_package(metric: Any, seed: int) -> None:
    """With missing data, for each metric."""
    matrix = noisy(seed)

    wanted = krippendorff.alpha(reliability_data=matrix, level_of_measurement=metric)
    assert wanted == pytest.approx(krippendorff_alpha(frame(matrix), metric).value, abs=1e-12)


def test_alpha_of_measurements_equals_the_reference_package() -> None:
    """Numbers with nearly as many values as judgments."""
    rng = np.random.default_rng(6)
    matrix = rng.gamma(4.0, 2.0, 60) + rng.normal(0, 0.5, (3, 60)) + 5
    judgments = frame(matrix).assign(value=matrix.ravel())

    for metric in ("interval", "ratio"):
        wanted = krippendorff.alpha(reliability_data=matrix, level_of_measurement=metric)
        assert wanted == pytest.approx(krippendorff_alpha(judgments, metric).value, abs=1e-12)


def test_fleiss_equals_statsmodels() -> None:
    """Where every task has as many judgments, which is all that statsmodels knows."""
    matrix = noisy(7, missing=0.0)
    table = np.stack([(matrix == label).sum(axis=0) for label in range(1, 7)], axis=1)

    assert fleiss_of_statsmodels(table) == pytest.approx(fleiss_kappa(frame(matrix)).value)


@pytest.mark.parametrize("weights", [None, "linear", "quadratic"])
def test_kappas_of_all_pairs_equal_scikit_learn(weights: str | None) -> None:
    """For the tasks that both annotators judged; the mean is weighted by their number."""
    matrix = noisy(8)
    found = pairwise_agreement(frame(matrix), weights=weights)

    for one in found.pairs.to_dict("records"):
        row: Any = SimpleNamespace(**{str(name): value for name, value in one.items()})
        both = ~np.isnan(matrix[row.a]) & ~np.isnan(matrix[row.b])
        wanted = cohen_kappa_score(
            matrix[row.a, both], matrix[row.b, both], weights=weights, labels=np.arange(1.0, 7.0)
        )
        assert wanted == pytest.approx(row.kappa)
        assert wanted == pytest.approx(found.kappa.loc[row.b, row.a])
        assert both.sum() == row.n_tasks
    mean = np.average(found.pairs["kappa"], weights=found.pairs["n_tasks"])
    assert mean == pytest.approx(cohen_kappa(frame(matrix), weights=weights).value)


def test_order_of_rows_does_not_matter() -> None:
    """Rows may come in any order."""
    judgments = frame(noisy(9))
    mixed = judgments.sample(frac=1.0, random_state=1)

    for function in (krippendorff_alpha, fleiss_kappa, gwet_ac1, cohen_kappa, percent_agreement):
        assert function(judgments).value == pytest.approx(function(mixed).value)
        assert function(judgments).low == pytest.approx(function(mixed).low)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", ["alpha", "interval", "percent", "fleiss", "gwet"])
def test_leaving_out_a_task_is_what_it_says(kind: Any, weighted: bool) -> None:
    """The closed form of the jackknife equals computing everything again without each task."""
    coded = read(frame(noisy(10, tasks=60)))
    units = Units.of(coded, 2 if kind in ("alpha", "interval") else 1)
    apart = np.abs(np.subtract.outer(np.arange(6.0), np.arange(6.0))) / 5
    coefficient: Any
    if kind == "alpha":
        coefficient = Alpha(units, apart if weighted else None)
    elif kind == "interval":
        coefficient = NumberAlpha(units)
    else:
        coefficient = Chance(units, kind, 1 - apart if weighted else None)

    again = [coefficient.disagreement((np.arange(len(units.sizes)) != out) * 1.0) for out in range(len(units.sizes))]
    np.testing.assert_allclose(again, coefficient.left_out(), atol=1e-12)


def test_leaving_out_a_task_moves_ranks_too() -> None:
    """For ordinal data the jackknife is exact to first order."""
    units = Units.of(read(frame(noisy(11, tasks=200))), 2)
    coefficient = NumberAlpha(units, ranked=True)

    again = [coefficient.disagreement((np.arange(len(units.sizes)) != out) * 1.0) for out in range(len(units.sizes))]
    np.testing.assert_allclose(again, coefficient.left_out(), atol=2e-4)
    assert np.std(again) == pytest.approx(np.std(coefficient.left_out()), rel=0.05)


@pytest.mark.parametrize(
    "function", [percent_agreement, fleiss_kappa, gwet_ac1, gwet_ac2, krippendorff_alpha, cohen_kappa]
)
def test_analytic_and_bootstrap_intervals_agree(function: Any) -> None:
    """On plentiful data both give nearly the same interval."""
    judgments = frame(noisy(12, tasks=800))
    analytic, bootstrap = function(judgments), function(judgments, interval="bootstrap", repetitions=400)
    width = analytic.high - analytic.low

    assert analytic.low < analytic.value < analytic.high
    assert abs(analytic.low - bootstrap.low) < 0.2 * width
    assert abs(analytic.high - bootstrap.high) < 0.2 * width


EDGES = {
    "one annotator": (np.array([[1.0, 2.0, 3.0]]), "nothing to compare"),
    "nothing overlaps": (np.array([[1.0, NAN], [NAN, 2.0]]), "nothing to compare"),
    "one label": (np.ones((3, 200)), "cannot be told from chance"),
}


@pytest.mark.parametrize("function", [fleiss_kappa, gwet_ac1, krippendorff_alpha, cohen_kappa])
@pytest.mark.parametrize(("matrix", "says"), EDGES.values(), ids=EDGES)
def test_what_cannot_be_known_has_a_reason(function: Any, matrix: npt.NDArray[Any], says: str) -> None:
    """No value is NaN without a sentence that says why."""
    found = function(frame(matrix))

    assert math.isnan(found.value)
    assert says in found.reason
    assert found.reason == str(found)


def test_full_agreement_still_has_an_interval() -> None:
    """Where nobody ever disagreed, the lower end says what may have been missed."""
    found = krippendorff_alpha(frame(np.tile(np.arange(300) % 3, (3, 1)).astype(float)))

    assert (found.value, found.high) == (1.0, 1.0)
    assert 0.97 < found.low < 1.0


def test_numbers_without_spread_have_a_reason() -> None:
    """Equal measurements tell nothing about agreement."""
    found = krippendorff_alpha(frame(np.full((2, 150), 7.0)), "interval")

    assert math.isnan(found.value)
    assert found.reason


def test_alpha_of_sets() -> None:
    """Sets of one label each give nominal alpha; MASI lies between Jaccard's and strict disagreement."""
    judgments = frame(noisy(13, labels=3))
    sets = judgments.assign(value=pd.Series([[str(value)] for value in judgments["value"]]))
    for metric in ("jaccard", "masi", "f1"):
        assert krippendorff_alpha(judgments).value == pytest.approx(krippendorff_alpha(sets, metric).value)
    rng = np.random.default_rng(2)
    several = judgments.assign(
        value=pd.Series([sorted({str(v), "b"} if rng.random() < 0.5 else {str(v)}) for v in judgments["value"]])
    )
    masi, jaccard = (krippendorff_alpha(several, metric).value for metric in ("masi", "jaccard"))
    assert masi < jaccard


def test_alpha_of_a_function_equals_the_exact_one() -> None:
    """Chance agreement from random pairs of different tasks comes close to that of all pairs."""
    judgments = frame(noisy(14, tasks=400, labels=3))
    exact = krippendorff_alpha(judgments)
    sampled = krippendorff_alpha(judgments, lambda one, other: float(one == other))

    assert exact.value == pytest.approx(sampled.value, abs=0.02)
    assert exact.high - exact.low == pytest.approx(sampled.high - sampled.low, rel=0.25)
    assert sampled == krippendorff_alpha(judgments, lambda one, other: float(one == other))


def test_alpha_of_boxes() -> None:
    """Annotators who draw the same boxes agree, those who draw anywhere do not."""
    rng = np.random.default_rng(15)

    def drawn(x: float, y: float) -> list[dict[str, Any]]:
        value = {"x": x, "y": y, "width": 20, "height": 20, "rotation": 0, "rectanglelabels": ["Car"]}
        return [{"id": "r", "type": "rectanglelabels", "value": value}]

    for shake, low, high in ((1.0, 0.7, 0.9), (9.0, 0.1, 0.3)):
        rows = [
            (task, who, drawn(x + rng.normal(0, shake), y + rng.normal(0, shake)))
            for task, (x, y) in enumerate(rng.uniform(0, 80, (120, 2)))
            for who in range(2)
        ]
        found = krippendorff_alpha(pd.DataFrame(rows, columns=["task", "annotator", "value"]), "RectangleLabels")
        assert low < found.value < high
        assert found.low < found.value < found.high


def test_a_broken_result_is_named_with_its_row() -> None:
    """What is wrong with an item, and in which row of which column."""
    good = [{"type": "rating", "value": {"rating": 3}}]
    broken = [{"type": "rating", "value": {"rating": "good"}}]
    judgments = pd.DataFrame({"task": [1, 1, 2, 2], "annotator": [1, 2, 1, 2], "value": [good, good, good, broken]})

    with pytest.raises(BadJudgments, match="column 'value' cannot be compared in row 3: A rating item must have"):
        krippendorff_alpha(judgments, "Rating")


def test_by_label_is_alpha_against_all_others() -> None:
    """Each row is alpha of one label, and lists of labels are read the same way."""
    judgments = frame(noisy(16, labels=4))
    found = agreement_by_label(judgments)
    sets = agreement_by_label(judgments.assign(value=pd.Series([[str(v)] for v in judgments["value"]])))

    for label in range(1, 5):
        binary = judgments.assign(value=(judgments["value"] == label).astype(int))
        assert krippendorff_alpha(binary).value == pytest.approx(found.loc[label, "value"])
        assert found.loc[label, "value"] == pytest.approx(sets.loc[str(label), "value"])


def test_by_task_is_the_share_of_agreeing_pairs() -> None:
    """Their mean is percent agreement."""
    judgments = frame(noisy(17))
    found = agreement_by_task(judgments)

    assert percent_agreement(judgments).value == pytest.approx(found["agreement"].mean())
    assert ((found["low"] <= found["agreement"]) & (found["agreement"] <= found["high"])).all()


def test_labels_without_order_have_no_ranks() -> None:
    """Ranks and weights need an order; the sentence says how to give one."""
    judgments = frame(noisy(18)).assign(value=lambda f: f["value"].map(lambda v: f"label {v}"))

    with pytest.raises(BadJudgments, match="ordered categorical column"):
        krippendorff_alpha(judgments, "ordinal")
    with pytest.raises(BadJudgments, match="ordered categorical column"):
        cohen_kappa(judgments, weights="linear")
    with pytest.raises(BadJudgments, match="ordered categorical column"):
        gwet_ac2(judgments)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda f: krippendorff_alpha(f, "nominall"), "no metric 'nominall'"),
        (lambda f: krippendorff_alpha(f, lambda *_: 2.0), "from 0 to 1, but the metric returned"),
        (lambda f: krippendorff_alpha(f.assign(value=-1.0 * f["value"]), "ratio"), "negative in row 0"),
        (lambda f: cohen_kappa(f, 0), "Name both"),
        (lambda f: cohen_kappa(f, 0, 99), "no annotator 99"),
        (lambda f: cohen_kappa(f, 0, 0), "both are 0"),
        (lambda f: fleiss_kappa(f, weights=np.eye(2)), "symmetric matrix of 6 x 6"),
        (lambda f: krippendorff_alpha(f, interval=WRONG), "'analytic' or 'bootstrap'"),
        (lambda f: krippendorff_alpha(f, "Choices"), "Label Studio result items"),
    ],
)
def test_what_is_asked_wrongly_is_said(call: Any, says: str) -> None:
    """One sentence, with what was asked."""
    with pytest.raises(ValueError, match=says):
        call(frame(noisy(19)))
