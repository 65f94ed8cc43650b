"""Truth inference for one label per task: majority vote, Dawid-Skene, one-coin, ability and difficulty."""

from __future__ import annotations

import pandas as pd

from labelguard_analytics.frames import Coded, read
from labelguard_analytics.options import check_choice, check_flag, check_number, check_whole
from labelguard_analytics.truth.average import fit_average
from labelguard_analytics.truth.models import COIN, AbilityModel, Fitted, Power, fit_dawid_skene
from labelguard_analytics.truth.result import Truth, make_truth
from labelguard_analytics.truth.votes import Repeats, Votes

Judgments = pd.DataFrame | Coded


def _votes(
    judgments: Judgments,
    *,
    use_gold: bool,
    repeats: Repeats,
    threads: int,
    iterations: int = 1,
    tolerance: float = 0.0,
) -> tuple[Coded, Votes]:
    check_whole("iterations", iterations, 1)
    check_number("tolerance", tolerance)
    check_whole("threads", threads, 1)
    check_flag("use_gold", use_gold)
    check_choice("repeats", repeats, ("count", "share"))
    coded = read(judgments, least=1, repeats=True)
    gold = coded.gold() if use_gold else None
    return coded, Votes(coded, gold=gold, repeats=repeats, threads=threads)


def _check_shares(class_shares: Power) -> None:
    if not (isinstance(class_shares, str) and class_shares == "majority"):
        check_number("class_shares, unless it is 'majority',", class_shares, 0, 1)


def majority_vote(judgments: Judgments, *, use_gold: bool = True, repeats: Repeats = "count") -> Truth:
    """The label that most annotators gave each task; equal counts are told, not hidden.

    The posterior is each label's share of the votes. A tie is in ``tasks["tied"]`` and ``ties``; its label is the
    one of the tied that is more common in all judgments, then the first in the order of the labels. Voting itself
    knows no accuracies; those of the annotators are :func:`one_coin`'s.

    >>> votes = pd.DataFrame(
    ...     {"task": [1, 1, 1, 2, 2], "annotator": ["a", "b", "c", "a", "b"], "value": ["x", "x", "y", "x", "y"]}
    ... )
    >>> truth = majority_vote(votes)
    >>> truth.labels.to_dict(), truth.ties.tolist()
    ({1: 'x', 2: 'x'}, [2])

    Args:
        judgments: columns ``task``, ``annotator``, ``value`` (a label), optionally ``gold``.
        use_gold: whether known answers are taken as they are.
        repeats: whether several judgments of an annotator on one task count in full or share one vote.

    Raises:
        BadJudgments: the frame is not what it must be.
    """
    coded, votes = _votes(judgments, use_gold=use_gold, repeats=repeats, threads=1)
    posterior = votes.majority
    coin = AbilityModel(votes, nodes=1, profile=False, beta=COIN).fit("majority", iterations=50, tolerance=1e-3)
    fitted = Fitted(posterior, posterior.mean(axis=0), 1, True, chances=coin.chances)
    return make_truth(coded, votes, fitted, "majority_vote")


def dawid_skene(
    judgments: Judgments,
    *,
    iterations: int = 100,
    tolerance: float = 1e-5,
    use_gold: bool = True,
    repeats: Repeats = "count",
    threads: int = 1,
) -> Truth:
    """The classical model: every annotator has a confusion matrix of their own (Dawid and Skene 1979).

    Maximum likelihood by expectation-maximisation from the majority vote. With few judgments for each annotator
    and label the matrices are mostly noise, and the result can fall below the majority vote: use
    :func:`hierarchical_dawid_skene` or :func:`infer_truth` then.

    One million judgments (100 annotators, 20 labels) take under a second for 20 iterations.

    >>> votes = pd.DataFrame({"task": [1, 1, 1, 2, 2, 2], "annotator": list("abcabc"), "value": list("xxyyyy")})
    >>> dawid_skene(votes).labels.to_dict()
    {1: 'x', 2: 'y'}

    Args:
        judgments: columns ``task``, ``annotator``, ``value`` (a label), optionally ``gold``.
        iterations: the most steps.
        tolerance: stop when the log-likelihood for each judgment rises by less than this.
        use_gold: whether known answers are taken as they are; they then also tell who is how good.
        repeats: whether several judgments of an annotator on one task count in full (as in the paper) or share
            one vote.
        threads: how many shards of tasks are worked on at the same time.

    Raises:
        BadJudgments: the frame is not what it must be.
    """
    coded, votes = _votes(
        judgments,
        use_gold=use_gold,
        repeats=repeats,
        threads=threads,
        iterations=iterations,
        tolerance=tolerance,
    )
    fitted = fit_dawid_skene(votes, iterations=iterations, tolerance=tolerance, strength=0.0, prior="estimated")
    return make_truth(coded, votes, fitted, "dawid_skene")


def hierarchical_dawid_skene(
    judgments: Judgments,
    *,
    strength: float = 60.0,
    iterations: int = 100,
    tolerance: float = 1e-6,
    use_gold: bool = True,
    repeats: Repeats = "count",
    threads: int = 1,
) -> Truth:
    """Dawid-Skene that does not fall below the majority vote where data is sparse.

    Each row of a confusion matrix has a Dirichlet prior with ``strength`` pseudo-judgments, centred on the
    annotator's overall accuracy with evenly spread errors. So somebody with ten judgments is described by one
    number, and somebody with a thousand by a whole matrix. Class shares are the majority's.

    >>> votes = pd.DataFrame({"task": [1, 1, 1, 2, 2, 2], "annotator": list("abcabc"), "value": list("xxyyyy")})
    >>> hierarchical_dawid_skene(votes).labels.to_dict()
    {1: 'x', 2: 'y'}

    Args:
        judgments: columns ``task``, ``annotator``, ``value`` (a label), optionally ``gold``.
        strength: pseudo-judgments for each true label; above 0.
        iterations: the most steps.
        tolerance: stop when the log-likelihood for each judgment rises by less than this.
        use_gold: whether known answers are taken as they are.
        repeats: whether several judgments of an annotator on one task count in full or share one vote.
        threads: how many shards of tasks are worked on at the same time.

    Raises:
        BadJudgments: the frame is not what it must be.
        ValueError: the strength is not above 0 (:func:`dawid_skene` has none).
    """
    check_number("strength", strength, above=0)
    coded, votes = _votes(
        judgments,
        use_gold=use_gold,
        repeats=repeats,
        threads=threads,
        iterations=iterations,
        tolerance=tolerance,
    )
    fitted = fit_dawid_skene(votes, iterations=iterations, tolerance=tolerance, strength=strength, prior="majority")
    return make_truth(coded, votes, fitted, "hierarchical_dawid_skene")


def one_coin(
    judgments: Judgments,
    *,
    class_shares: Power = 0.0,
    iterations: int = 100,
    tolerance: float = 1e-4,
    use_gold: bool = True,
    repeats: Repeats = "count",
    threads: int = 1,
) -> Truth:
    """One accuracy for each annotator, the same whatever the truth, errors spread evenly.

    >>> votes = pd.DataFrame({"task": [1, 1, 1, 2, 2, 2], "annotator": list("abcabc"), "value": list("xxyyyy")})
    >>> one_coin(votes).labels.to_dict()
    {1: 'x', 2: 'y'}

    Args:
        judgments: columns ``task``, ``annotator``, ``value`` (a label), optionally ``gold``.
        class_shares: how far class shares are believed: the power to which the estimated ones are raised (0: all
            labels equally likely, 1: as estimated), or ``"majority"`` for the shares among majority votes.
        iterations: the most steps.
        tolerance: stop when no annotator's log-odds of being right moves by more than this.
        use_gold: whether known answers are taken as they are.
        repeats: whether several judgments of an annotator on one task count in full or share one vote.
        threads: how many shards of tasks are worked on at the same time.

    Raises:
        BadJudgments: the frame is not what it must be.
    """
    _check_shares(class_shares)
    coded, votes = _votes(
        judgments,
        use_gold=use_gold,
        repeats=repeats,
        threads=threads,
        iterations=iterations,
        tolerance=tolerance,
    )
    model = AbilityModel(votes, nodes=1, profile=False, beta=COIN)
    fitted = model.fit(class_shares, iterations=iterations, tolerance=tolerance)
    return make_truth(coded, votes, fitted, "one_coin")


def ability_difficulty(
    judgments: Judgments,
    *,
    class_shares: Power = 0.5,
    iterations: int = 100,
    tolerance: float = 1e-3,
    use_gold: bool = True,
    repeats: Repeats = "count",
    threads: int = 1,
) -> Truth:
    """Able annotators and hard tasks: P(right) = 1 / (1 + exp(-ability x easiness)), as in GLAD.

    Unlike GLAD (Whitehill et al. 2009) a task's easiness is not estimated as one number from its few judgments but
    integrated out (log-normal), and errors follow a profile shared by all annotators: which label a true label is
    mistaken for.

    >>> votes = pd.DataFrame({"task": [1, 1, 1, 2, 2, 2], "annotator": list("abcabc"), "value": list("xxyyyy")})
    >>> truth = ability_difficulty(votes)
    >>> bool(truth.tasks.loc[1, "difficulty"] > truth.tasks.loc[2, "difficulty"])
    True

    Args:
        judgments: columns ``task``, ``annotator``, ``value`` (a label), optionally ``gold``.
        class_shares: how far class shares are believed: the power to which the estimated ones are raised (0: all
            labels equally likely, 1: as estimated), or ``"majority"`` for the shares among majority votes.
        iterations: the most steps.
        tolerance: stop when no annotator's ability moves by more than this.
        use_gold: whether known answers are taken as they are.
        repeats: whether several judgments of an annotator on one task count in full or share one vote.
        threads: how many shards of tasks are worked on at the same time.

    Raises:
        BadJudgments: the frame is not what it must be.
    """
    _check_shares(class_shares)
    coded, votes = _votes(
        judgments,
        use_gold=use_gold,
        repeats=repeats,
        threads=threads,
        iterations=iterations,
        tolerance=tolerance,
    )
    fitted = AbilityModel(votes).fit(class_shares, iterations=iterations, tolerance=tolerance)
    return make_truth(coded, votes, fitted, "ability_difficulty")


def infer_labels(
    coded: Coded, *, iterations: int = 60, use_gold: bool = True, repeats: Repeats = "count", threads: int = 1
) -> Truth:
    """The default for one label per task; see :func:`labelguard_analytics.infer_truth`."""
    coded, votes = _votes(coded, use_gold=use_gold, repeats=repeats, threads=threads, iterations=iterations)
    return make_truth(coded, votes, fit_average(votes, iterations=iterations, tolerance=1e-3), "average")
