"""Truth inference: what the answers most likely are, and how good everybody who answered is.

:func:`infer_truth` is the default for every kind of value. The other functions are the classical models, for those
who want one in particular. All take a frame of judgments and give a :class:`Truth`.
"""

from __future__ import annotations

from typing import Literal

import pandas as pd

from labelguard_analytics.frames import BadJudgments, Coded, kind_of, read
from labelguard_analytics.options import check_choice
from labelguard_analytics.truth.nominal import (
    ability_difficulty,
    dawid_skene,
    hierarchical_dawid_skene,
    infer_labels,
    majority_vote,
    one_coin,
)
from labelguard_analytics.truth.numbers import numeric_truth, ordinal_truth
from labelguard_analytics.truth.regions import consensus_regions
from labelguard_analytics.truth.result import Truth
from labelguard_analytics.truth.sets import multi_label_truth
from labelguard_analytics.truth.votes import Repeats

__all__ = [
    "Truth",
    "ability_difficulty",
    "consensus_regions",
    "dawid_skene",
    "hierarchical_dawid_skene",
    "infer_truth",
    "majority_vote",
    "multi_label_truth",
    "numeric_truth",
    "one_coin",
    "ordinal_truth",
]

Values = Literal["label", "number", "set", "ordinal"]


def infer_truth(
    judgments: pd.DataFrame | Coded,
    *,
    values: Values | None = None,
    use_gold: bool = True,
    repeats: Repeats = "count",
    threads: int = 1,
) -> Truth:
    """The most likely answer of every task, with probabilities, and the accuracy of every annotator with intervals.

    For labels an average is taken over models that err in different ways, which is safer than choosing one by how
    well it fits: the best fit is not the most often right. In three of them annotators have abilities, tasks have
    difficulties (integrated out), and errors follow a profile that all annotators share; they differ in how far the
    estimated class shares are believed: not at all, by half (their square root), fully. One that believes them fully
    gives way to the commonest label where data is sparse; one that does not believe them errs where a class is rare.
    Belief between the two is integrated by the trapezoidal rule, so the middle one has twice the weight of the ends.
    The fourth, with the weight of an end, sees what an ability does not, habits: everybody knows the answer or guesses
    in their own way (Hovy et al. 2013). Nothing is tuned to a data set.

    Lists of labels are inferred label by label (:func:`multi_label_truth`), numbers as precision-weighted means
    (:func:`numeric_truth`). Tasks with a known answer in the column ``gold`` keep it and tell who is how good.

    >>> votes = pd.DataFrame(
    ...     {
    ...         "task": [1, 1, 1, 2, 2, 2, 3, 3, 3],
    ...         "annotator": ["ann", "bob", "cas"] * 3,
    ...         "value": ["cat", "cat", "dog", "dog", "dog", "dog", "cat", "cat", "cat"],
    ...     }
    ... )
    >>> truth = infer_truth(votes)
    >>> truth.labels.to_dict()
    {1: 'cat', 2: 'dog', 3: 'cat'}
    >>> truth.annotators[["judgments", "accuracy", "low", "high"]].round(2).loc["cas"].to_dict()
    {'judgments': 3.0, 'accuracy': 0.64, 'low': 0.07, 'high': 1.0}

    Args:
        judgments: one row for each judgment: ``task``, ``annotator``, ``value`` (a label, a number or a list of
            labels), optionally ``gold`` and the other columns of a frame of judgments.
        values: what the values are, where the frame does not show it: whole numbers are taken for labels and
            other numbers for measurements; ``"ordinal"`` says that labels have an order (:func:`ordinal_truth`).
        use_gold: whether known answers are taken as they are.
        repeats: whether several judgments of an annotator on one task count in full or share one vote.
        threads: how many shards of tasks are worked on at the same time.

    Raises:
        BadJudgments: the frame is not what it must be.
    """
    if values is not None:
        check_choice("values", values, ("label", "number", "set", "ordinal"))
    else:
        kind = judgments.kind if isinstance(judgments, Coded) else kind_of(judgments)
        if kind not in ("nominal", "number", "set"):
            raise BadJudgments(
                "The column 'value' holds Label Studio results; consensus_regions finds a consensus of regions, and "
                "for other results take the labels out of them first."
            )
        values = "number" if kind == "number" else "set" if kind == "set" else "label"
    if values == "ordinal":
        return ordinal_truth(judgments, use_gold=use_gold)
    if values == "number":
        return numeric_truth(judgments, use_gold=use_gold)
    if values == "set":
        return multi_label_truth(judgments, use_gold=use_gold)
    coded = read(judgments, least=1, repeats=True)
    return infer_labels(coded, use_gold=use_gold, repeats=repeats, threads=threads)
