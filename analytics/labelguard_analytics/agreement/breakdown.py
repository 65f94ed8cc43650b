"""Agreement task by task and label by label."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from labelguard_analytics.agreement.alpha import SET_METRICS, Metric, alpha_estimate, compare_by_tag
from labelguard_analytics.estimate import Estimate
from labelguard_analytics.frames import Coded, Floats, Kind, read
from labelguard_analytics.options import short
from labelguard_analytics.similarities import TAGS, set_similarity
from labelguard_analytics.units import (
    Interval,
    Units,
)

_COLUMNS = ["value", "low", "high", "n_tasks", "n_judgments", "reason"]


def agreement_by_task(judgments: pd.DataFrame | Coded, metric: Metric = "nominal", **options: Any) -> pd.DataFrame:
    """How well the annotators of each task agree: which tasks are hard or ambiguous.

    >>> frame = pd.DataFrame({"task": [1, 1, 2, 2, 3], "annotator": [1, 2, 1, 2, 1], "value": list("aaaba")})
    >>> agreement_by_task(frame)[["agreement", "n_judgments"]].to_dict("index")
    {1: {'agreement': 1.0, 'n_judgments': 2}, 2: {'agreement': 0.0, 'n_judgments': 2}}

    Args:
        judgments: one value for each judgment.
        metric: ``nominal``, a set metric, a tag or a function as for :func:`krippendorff_alpha`.
        options: for a tag, what :func:`~labelguard_analytics.similarities` takes.

    Returns:
        A row for each task with two judgments or more, in the order of the tasks: ``agreement`` (the mean
        similarity of its pairs, 0 to 1), ``low`` and ``high`` (Jeffreys' 95% interval for another set of annotators,
        counting only pairs that share nobody, so wide for few judgments) and ``n_judgments``.

    Raises:
        BadJudgments: the frame is not what it must be.
        ValueError: the metric cannot compare two values by themselves.
    """
    kind, compare = _pair_score(metric, options)
    coded = read(judgments, kind=kind)
    units = Units.of(coded, 2)
    tasks = coded.tasks[coded.sizes >= 2]
    if kind == "set":
        members = coded.membership()
        name = str(metric)

        def score(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> Floats:
            return set_similarity(members[one], members[other], name)

        total = units.pair_sums(score)
    elif compare is None:
        total = units.equal_pairs()
    else:
        function = compare
        total = units.pair_sums(lambda a, b: np.array([float(function(x, y)) for x, y in zip(a, b, strict=True)]))
    agreement = total / np.maximum(units.sizes * (units.sizes - 1.0), 1.0)
    trials = units.sizes // 2
    share = stats.beta(agreement * trials + 0.5, (1.0 - agreement) * trials + 0.5)
    return pd.DataFrame(
        {
            "agreement": agreement,
            "low": np.minimum(share.ppf(0.025), agreement),
            "high": np.maximum(share.ppf(0.975), agreement),
            "n_judgments": units.sizes,
        },
        index=pd.Index(tasks, name="task"),
    )


def _pair_score(metric: Metric, options: dict[str, Any]) -> tuple[Kind, Callable[[Any, Any], float] | None]:
    if not callable(metric) and not isinstance(metric, str):
        raise TypeError(f"The metric must be a name, a function or a Label Studio tag, but it is {short(metric)}.")
    if callable(metric):
        return "any", metric
    if metric in TAGS:
        return "result", compare_by_tag(metric, options)
    if metric in SET_METRICS:
        return "set", None
    if metric == "nominal":
        return "nominal", None
    raise ValueError(f"The metric {metric!r} has no similarity of two values; use 'nominal', a set metric or a tag.")


def agreement_by_label(
    judgments: pd.DataFrame | Coded,
    *,
    interval: Interval = "analytic",
    repetitions: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Krippendorff's alpha of each label against all others: which labels are understood alike.

    Values may be single labels or lists of labels.

    >>> frame = pd.DataFrame({"task": [1, 1, 2, 2, 3, 3], "annotator": [1, 2] * 3, "value": list("aabbbc")})
    >>> agreement_by_label(frame)["value"].round(2).to_dict()
    {'a': 1.0, 'b': 0.44, 'c': 0.0}

    Args:
        judgments: one label, or a list of labels, for each judgment.
        interval: ``analytic`` or ``bootstrap``, both over tasks.
        repetitions: samples of the bootstrap.
        seed: seed of the bootstrap.

    Returns:
        A row for each label: ``value``, ``low``, ``high``, ``n_tasks``, ``n_judgments``, ``used`` (judgments with
        the label) and ``reason`` as in :class:`~labelguard_analytics.Estimate`.

    Raises:
        BadJudgments: the frame is not what it must be.
    """
    coded = judgments if isinstance(judgments, Coded) else read(judgments, kind=_labels_or_sets(judgments))
    units = Units.of(coded, 2)
    table = coded.membership().T if coded.kind == "set" else np.eye(len(coded.categories), dtype=bool)
    rows = []
    for has in table:
        binary = Units(has[units.values].astype(np.int32), units.unit, units.sizes, units.weight, 2)
        found = alpha_estimate(binary, "nominal", None, interval, repetitions, seed)
        rows.append((*_row(found), int(binary.values.sum())))
    frame = pd.DataFrame(rows, index=pd.Index(coded.categories, name="label"), columns=[*_COLUMNS, "used"])
    return frame[["value", "low", "high", "n_tasks", "n_judgments", "used", "reason"]]


def _row(found: Estimate) -> tuple[Any, ...]:
    return found.value, found.low, found.high, found.n_tasks, found.n_judgments, found.reason


def _labels_or_sets(judgments: Any) -> Kind:
    """What the first value is; a frame that cannot be read is left for the reader to refuse."""
    if isinstance(judgments, pd.DataFrame) and list(judgments.columns).count("value") == 1:
        first = next(iter(judgments["value"]), None)
        if isinstance(first, (list, tuple, set, frozenset)):
            return "set"
    return "nominal"
