"""Which labels are taken for which: rates with intervals, the pairs that matter, and the items behind them.

**Rates** are shares of the judgments of one truth. Judgments of the same task resemble each other, so tasks are
the observations: the interval is Wilson's with the number of judgments divided by the design effect of tasks, and a
t quantile with tasks as degrees of freedom.

**Lift** compares a confusion with chance: how many times as often is ``b`` said where the truth is ``a`` as where
it is any other label but ``b``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse, stats

from labelguard_analytics.counts import PERIODS, _groups, _posterior, slices
from labelguard_analytics.fdr import fdr
from labelguard_analytics.frames import BadJudgments, Coded, Floats, read, shown
from labelguard_analytics.options import check_whole
from labelguard_analytics.truth import Truth

Known = Truth | pd.Series | pd.DataFrame | None
_FEW = 5
"""Tasks below which no interval is given."""


@dataclass(frozen=True)
class Confusion:
    """What is said where what is true (or what others say)."""

    table: pd.DataFrame
    """A row for each group, truth and label: ``truth``, ``label``, ``count`` (judgments), ``given`` (judgments of
    that truth), ``rate`` = count / given with its 95% interval ``low`` to ``high``, ``tasks``, ``reason``."""
    pairs: pd.DataFrame
    """The confusions, most frequent first: the columns of ``table`` and ``chance`` (the rate where the truth is
    another one), ``lift`` = rate / chance with ``lift_low`` and ``lift_high``, ``q`` (the level at which the lift
    is just discovered among all pairs, Benjamini-Hochberg), ``reverse`` (the rate of the opposite confusion),
    ``direction`` (``one way`` where the interval of the difference excludes 0, else ``both ways``)."""
    matrix: pd.DataFrame
    """Counts over all groups, truth (rows) by label (columns)."""
    by: tuple[str, ...]
    reference: str
    """What judgments are compared with: ``truth`` or ``other annotators``."""
    n_tasks: int
    n_judgments: int
    reason: str = ""
    """Why nothing can be said, as a sentence; empty when something can."""

    def explain(self) -> str:
        """The result in two plain sentences."""
        if self.reason:
            return self.reason
        total = float(self.matrix.to_numpy().sum())
        wrong = total - float(np.trace(self.matrix.to_numpy()))
        compared = "are wrong" if self.reference == "truth" else "differ from another annotator's"
        first = f"Of {self.n_judgments:,} judgments on {self.n_tasks:,} tasks, {wrong / total:.1%} {compared}."
        confused = self.pairs[self.pairs["count"] > 0]
        if confused.empty:
            return f"{first} No label is taken for another."
        top = confused.iloc[0]
        verb = "is taken for" if self.reference == "truth" else "is answered with"
        was, said, times = shown(top["truth"]), shown(top["label"]), round(top["count"])
        second = f"Most often {was} {verb} {said}: {times} time{'s' * (times != 1)}, {top['rate']:.1%} of {was}"
        if not np.isnan(top["low"]):
            second += f" (95% interval {top['low']:.1%} to {top['high']:.1%})"
        if np.isfinite(top["lift"]):
            second += f", {top['lift']:.1f} times the chance rate"
        return f"{first} {second}, the other way round {top['reverse']:.1%}."


def confusion(judgments: pd.DataFrame | Coded, truth: Known = None, by: str | Sequence[str] | None = None) -> Confusion:
    """Count what is taken for what, with intervals, lift and direction.

    >>> frame = pd.DataFrame(
    ...     {"task": [1, 1, 2, 2, 3, 3], "annotator": [1, 2] * 3, "value": list("aabbab"), "gold": list("aabbbb")}
    ... )
    >>> found = confusion(frame)
    >>> found.matrix.loc["b"].to_dict()
    {'a': 1.0, 'b': 3.0}
    >>> found.explain()
    "Of 6 judgments on 3 tasks, 16.7% are wrong. Most often 'b' is taken for 'a': 1 time, 25.0% of 'b', the other \
way round 0.0%."

    Args:
        judgments: one label for each judgment.
        truth: what is compared with: a :class:`Truth`, labels indexed by task, or a posterior (tasks x labels), whose
            probabilities then count as shares of judgments. None takes the column ``gold``; where there is none,
            annotators are compared with each other: ``truth`` is then what another annotator of the task said.
        by: columns by which to keep the counts apart: ``annotator``, ``source``, ``cohort``, or ``day``, ``week``,
            ``month`` of ``at``.

    Returns:
        Counts, rates and pairs. Intervals need at least 5 tasks of the truth; ``reason`` says where there are fewer.
        They take the truth as given.

    Raises:
        BadJudgments: the frame is not what it must be, or the truth does not fit it.
    """
    columns = slices(by, ("annotator",))
    own = [name for name in columns if name != "annotator"]
    coded = read(judgments, needs=["at" if name in PERIODS else name for name in own], least=1, repeats=True)
    group, groups = group_judgments(coded, columns)
    reference, target = "truth", known_truth(coded, truth)
    if target is None:
        if truth is not None or bool((coded.gold() >= 0).any()):
            return _nothing(coded, columns, "None of these tasks has a known answer.")
        reference = "other annotators"
    labels = len(coded.categories)
    tables, matrix, tasks, judged = [], np.zeros((labels, labels)), 0, 0
    for number, name in enumerate(groups):
        rows = np.flatnonzero(group == number)
        cells = _cells(coded, rows, target)
        tables.append(_rates(cells, coded.categories).assign(**dict(zip(columns, name, strict=True)), _group=number))
        matrix += cells.count
    everything = np.arange(coded.n)
    cells = _cells(coded, everything, target)
    if not cells.given.any():
        return _nothing(coded, columns, "No task has two judgments of different annotators to compare.")
    tasks, judged = cells.tasks, cells.judged
    table = pd.concat(tables, ignore_index=True)
    order = [*columns, *(name for name in table.columns if name not in columns)]
    table = table[order]
    return Confusion(
        table.drop(columns="_group"),
        _pairs(table, columns),
        pd.DataFrame(
            matrix,
            index=pd.Index(coded.categories, name=reference),
            columns=pd.Index(coded.categories, name="label"),
        ),
        columns,
        reference,
        tasks,
        judged,
    )


def group_judgments(coded: Coded, columns: Sequence[str]) -> tuple[npt.NDArray[np.int32], tuple[tuple[Any, ...], ...]]:
    """The group of each judgment by some columns, of which ``annotator`` and ``label`` may be one."""
    if not columns:
        return np.zeros(coded.n, dtype=np.int32), ((),)
    frame = coded.frame
    if "annotator" in columns or "label" in columns:
        frame = frame.assign(annotator=coded.annotators.take(coded.annotator), label=coded.categories.take(coded.value))
    return _groups(replace(coded, frame=frame), columns)


def known_truth(coded: Coded, truth: Known) -> Floats | None:
    """Probabilities (tasks x labels), rows of zeros where nothing is known; None where nothing is known at all."""
    if isinstance(truth, Truth):
        truth = truth.posterior
    found, _ = _posterior(coded, truth)
    if found is None:
        return None
    if found.ndim == 2:
        return found.astype(np.float64)
    table = np.zeros((len(coded.tasks), len(coded.categories)))
    known = np.flatnonzero(found >= 0)
    table[known, found[known]] = 1.0
    return table


@dataclass(frozen=True)
class _Cells:
    """Sums over tasks, truth x label, from which rates and their variances follow."""

    count: Floats
    given: Floats
    squares: Floats
    products: Floats
    given_squares: Floats
    tasks: int
    judged: int


def _cells(coded: Coded, rows: npt.NDArray[np.intp], target: Floats | None) -> _Cells:
    labels = len(coded.categories)
    task, value = coded.task[rows], coded.value[rows]
    said = sparse.csr_matrix((np.ones(len(rows)), (task, value)), shape=(len(coded.tasks), labels))
    if target is None:
        return _between(coded, said)
    total = np.asarray(said.sum(axis=1)).ravel()
    count: Floats = np.asarray(said.T @ target).T
    given = target.T @ total
    square = target**2
    squares: Floats = np.asarray(said.power(2).T @ square).T
    products: Floats = np.asarray(said.T @ (square * total[:, None])).T
    used = (target.sum(axis=1) > 0) & (total > 0)
    return _Cells(
        count,
        given,
        squares,
        products,
        square.T @ total**2,
        int(used.sum()),
        int(total[used].sum()),
    )


def _between(coded: Coded, said: sparse.csr_matrix) -> _Cells:
    """Each judgment of the rows beside each of the other annotators' of its task, in all worth one."""
    everybody = sparse.csr_matrix((np.ones(coded.n), (coded.task, coded.value)), shape=said.shape)
    others = np.asarray(everybody.sum(axis=1)).ravel() - 1
    shared = others > 0
    share = np.where(shared, 1 / np.maximum(others, 1), 0.0)
    labels = said.shape[1]
    weighted = everybody.multiply(share[:, None]).tocsr()
    # What others said (rows) beside what is said here (columns), without each judgment beside itself.
    count = (weighted.T @ said).toarray()
    count -= np.diag(said.T @ share)
    given = count.sum(axis=1)
    squares, products = np.zeros((labels, labels)), np.zeros((labels, labels))
    given_squares = np.zeros(labels)
    counts = said.tocsc()
    total = np.asarray(said.sum(axis=1)).ravel()
    for truth in range(labels):
        weight = np.asarray(weighted[:, [truth]].todense()).ravel()
        here = np.asarray(counts[:, [truth]].todense()).ravel()
        # Given at a task: pairs with this label on the other side.
        pairs = weight * total - here * share
        given_squares[truth] = float((pairs**2).sum())
        for label in range(labels):
            column = counts[:, [label]]
            place = column.indices
            number = weight[place] * column.data
            if label == truth:
                number = number - column.data * share[place]
            squares[truth, label] = float((number**2).sum())
            products[truth, label] = float((number * pairs[place]).sum())
    used = shared & (total > 0)
    return _Cells(count, given, squares, products, given_squares, int(used.sum()), int(total[used].sum()))


def _rates(cells: _Cells, categories: pd.Index[Any]) -> pd.DataFrame:
    labels = len(categories)
    given = cells.given[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        rate = cells.count / given
        # Kish's number of equally large tasks.
        clusters = np.where(cells.given > 0, cells.given**2 / cells.given_squares, 0.0)
        low, high = _wilson(rate, given, clusters[:, None], cells)
    known = np.broadcast_to(given > 0, rate.shape)
    enough = np.broadcast_to(clusters[:, None] >= _FEW - 1e-9, rate.shape)
    few = np.char.add(
        np.char.add("Too few tasks for an interval: ", np.round(clusters, 1).astype(str)), f", and {_FEW} are needed."
    )
    reason = np.where(enough, "", np.repeat(few[:, None], labels, axis=1))
    reason = np.where(known, reason, "No judgment has this truth.")
    return pd.DataFrame(
        {
            "truth": categories.repeat(labels),
            "label": categories.take(np.tile(np.arange(labels), labels)),
            "count": cells.count.ravel(),
            "given": np.repeat(cells.given, labels),
            "rate": np.where(known, rate, np.nan).ravel(),
            "low": np.where(known & enough, low, np.nan).ravel(),
            "high": np.where(known & enough, high, np.nan).ravel(),
            "tasks": np.repeat(clusters, labels),
            "reason": reason.ravel(),
        }
    )


def _wilson(rate: Floats, given: Floats, clusters: Floats, cells: _Cells) -> tuple[Floats, Floats]:
    """Wilson's interval with the judgments divided by the design effect of tasks."""
    spread = cells.squares - 2 * rate * cells.products + rate**2 * cells.given_squares[:, None]
    spread = np.maximum(spread, 0) / given**2 * clusters / np.maximum(clusters - 1, 1)
    plain = rate * (1 - rate) / given
    # A cell with few events has no design effect of its own: that of all labels of the truth stands in.
    pooled = spread.sum(axis=1, keepdims=True) / np.maximum(plain.sum(axis=1, keepdims=True), 1e-300)
    own = spread / np.maximum(plain, 1e-300)
    events = np.minimum(cells.count, given - cells.count)
    effect = np.where(events >= 10, own, np.maximum(own, pooled))
    effect = np.maximum(effect, 1.0)
    size = given / effect
    z = stats.t.ppf(0.975, np.maximum(clusters - 1, 1))
    middle = (rate + z**2 / (2 * size)) / (1 + z**2 / size)
    half = z / (1 + z**2 / size) * np.sqrt(rate * (1 - rate) / size + z**2 / (4 * size**2))
    low, high = np.maximum(middle - half, 0), np.minimum(middle + half, 1)
    return np.where(rate <= 0, 0.0, low), np.where(rate >= 1, 1.0, high)


def _pairs(table: pd.DataFrame, by: tuple[str, ...]) -> pd.DataFrame:
    # By the number of the group: its names may be missing.
    keys = ["_group", "truth", "label"]
    sums = table.groupby(["_group", "label"], observed=True)[["count", "given"]].sum().reset_index()
    own = table[table["truth"] == table["label"]][["_group", "label", "count", "given"]]
    totals = sums.merge(own, on=["_group", "label"], suffixes=("", "_own"))
    totals["said"] = totals["count"] - totals["count_own"]
    totals["asked"] = totals["given"] - totals["given_own"]
    pairs = table[table["truth"] != table["label"]].merge(
        totals[["_group", "label", "said", "asked"]], on=["_group", "label"]
    )
    rest = pairs["asked"] - pairs["given"]
    with np.errstate(invalid="ignore", divide="ignore"):
        chance = np.where(rest > 0, (pairs["said"] - pairs["count"]) / rest, np.nan)
        pairs["chance"] = chance
        lift = np.where(chance > 0, pairs["rate"] / chance, np.where(pairs["rate"] > 0, np.inf, np.nan))
        lift = np.where(np.isnan(chance), np.nan, lift)
        pairs["lift"] = lift
        # The logarithm of a ratio of two rates; the design effect of the pair holds for both.
        half_width = (pairs["high"] - pairs["low"]) / 2
        plain = 1.96 * np.sqrt(pairs["rate"] * (1 - pairs["rate"]) / pairs["given"])
        effect = ((half_width / plain) ** 2).clip(lower=1.0).where(plain > 0, 1.0).fillna(1.0)
        others = pairs["said"] - pairs["count"]
        error = np.sqrt(
            effect * ((1 - pairs["rate"]) / np.maximum(pairs["count"], 0.5) + (1 - chance) / np.maximum(others, 0.5))
        )
        pairs["lift_low"] = np.where(np.isfinite(lift), lift * np.exp(-1.96 * error), np.nan)
        pairs["lift_high"] = np.where(np.isfinite(lift), lift * np.exp(1.96 * error), np.nan)
        unsure = pairs["low"].isna()
        pairs.loc[unsure, ["lift_low", "lift_high"]] = np.nan
        z = np.where(np.isfinite(lift) & (lift > 0) & ~unsure, np.log(np.maximum(lift, 1e-300)) / error, 0.0)
    pairs["q"] = fdr(stats.norm.sf(z)).adjusted if len(pairs) else []
    reverse = table[[*keys, "rate", "low", "high"]].rename(
        columns={"truth": "label", "label": "truth", "rate": "reverse", "low": "reverse_low", "high": "reverse_high"}
    )
    pairs = pairs.merge(reverse, on=keys, how="left")
    # Newcombe's interval for the difference of two rates from the intervals of each.
    gap = pairs["rate"] - pairs["reverse"]
    lower = gap - np.sqrt((pairs["rate"] - pairs["low"]) ** 2 + (pairs["reverse_high"] - pairs["reverse"]) ** 2)
    upper = gap + np.sqrt((pairs["high"] - pairs["rate"]) ** 2 + (pairs["reverse"] - pairs["reverse_low"]) ** 2)
    pairs["direction"] = np.where((lower > 0) | (upper < 0), "one way", "both ways")
    unsure = lower.isna() | upper.isna()
    pairs.loc[unsure, "direction"] = "unknown"
    two = np.isnan(pairs["chance"]) & (pairs["reason"] == "")
    pairs.loc[two, "reason"] = "There is no third label, so there is no chance rate to compare with."
    none = np.isnan(pairs["lift"]) & (pairs["reason"] == "")
    pairs.loc[none, "reason"] = "This label is never said in error, so there is no lift."
    lead = [*by, "truth", "label", "count", "given", "rate", "low", "high", "chance", "lift", "lift_low", "lift_high"]
    pairs = pairs[[*lead, "q", "reverse", "direction", "tasks", "reason"]]
    return pairs.sort_values(["count", "rate"], ascending=False, kind="stable").reset_index(drop=True)


def _nothing(coded: Coded, by: tuple[str, ...], reason: str) -> Confusion:
    empty = pd.DataFrame(columns=[*by, "truth", "label", "count", "given", "rate", "low", "high", "tasks", "reason"])
    labels = pd.Index(coded.categories)
    matrix = pd.DataFrame(np.zeros((len(labels), len(labels))), index=labels, columns=labels)
    extra = ["chance", "lift", "lift_low", "lift_high", "q", "reverse", "direction"]
    pairs = empty.reindex(columns=[*empty.columns, *extra])
    return Confusion(empty, pairs, matrix, by, "truth", 0, 0, reason)


def spread_of_errors(coded: Coded, target: Floats | None) -> Floats:
    """How confusing each task is: the share of its judgments that are wrong, or that another one contradicts.

    NaN where a task has no known answer or only one judgment to compare.
    """
    if target is None:
        labels = len(coded.categories)
        counts = np.bincount(coded.task.astype(np.int64) * labels + coded.value, minlength=len(coded.tasks) * labels)
        counts = counts.reshape(-1, labels)
        size = coded.sizes
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(size > 1, 1 - (counts * (counts - 1)).sum(axis=1) / (size * (size - 1)), np.nan)
    wrong = np.bincount(coded.task, 1 - target[coded.task, coded.value], len(coded.tasks)) / coded.sizes
    return np.where(target.sum(axis=1) > 0, wrong, np.nan)


@dataclass(frozen=True)
class ItemClusters:
    """Groups of similar items, the most confusing first."""

    clusters: pd.DataFrame
    """A row for each group: ``tasks``, ``confusion`` (mean share of contradicted judgments) with its 95% interval
    ``low`` to ``high``, ``elsewhere`` (that of all other items), ``q`` (the level at which the difference is just
    discovered, Benjamini-Hochberg), ``words`` (most telling first), ``examples`` (tasks), ``reason``."""
    assignment: pd.Series[Any]
    """The group of each task."""

    def explain(self) -> str:
        """The result in two plain sentences."""
        if self.clusters.empty:
            return "There are too few items to group."
        top = self.clusters.iloc[0]
        first = (
            f"{len(self.assignment):,} items fall into {len(self.clusters)} groups; the most confusing one has "
            f"{top['tasks']:,} items in which {top['confusion']:.1%} of the judgments are contradicted, against "
            f"{top['elsewhere']:.1%} elsewhere."
        )
        return f"{first} Its most telling words are {', '.join(map(str, top['words'][:5]))}."


def confusing_items(
    judgments: pd.DataFrame | Coded,
    *,
    text: pd.Series[Any] | None = None,
    features: pd.DataFrame | None = None,
    truth: Known = None,
    groups: int | None = None,
    seed: int = 0,
) -> ItemClusters:
    """Group items by their text or features, and say which groups confuse annotators and what is special about them.

    Texts become TF-IDF vectors of words and pairs of words, reduced to at most 50 dimensions, and are grouped by
    k-means. Words are told by their log-odds in the group against all other items, with a Dirichlet prior from all
    items (Monroe et al. 2008). Features are scaled and told by their standardised difference.

    >>> frame = pd.DataFrame({"task": [1, 1, 2, 2, 3, 3, 4, 4], "annotator": [1, 2] * 4, "value": list("aababbab")})
    >>> texts = pd.Series({1: "red bus", 2: "old boat sails", 3: "red bus stop", 4: "old boat"})
    >>> found = confusing_items(frame, text=texts, groups=2)
    >>> sorted(found.clusters.iloc[0]["examples"]), found.clusters.iloc[0]["words"][0]
    ([2, 4], 'boat')

    Args:
        judgments: one label for each judgment.
        text: a text for each task, indexed by task.
        features: numbers for each task, indexed by task; instead of ``text``.
        truth: as for :func:`confusion`.
        groups: how many; None takes the number from 2 to 10 with the best silhouette.
        seed: for k-means.

    Raises:
        BadJudgments: the frame is not what it must be, or a task has no text or features.
        ValueError: both ``text`` and ``features`` are given, or neither, or ``groups`` is no whole number from 2.
    """
    if (text is None) == (features is None):
        raise ValueError("confusing_items needs either text or features.")
    if not isinstance(text, pd.Series | None) or not isinstance(features, pd.DataFrame | None):
        raise BadJudgments("confusing_items needs text as a Series, or features as a DataFrame, indexed by task.")
    if groups is not None:
        check_whole("groups", groups, 2)
    check_whole("seed", seed, 0)
    coded = read(judgments, least=1, repeats=True)
    score = spread_of_errors(coded, known_truth(coded, truth))
    kept = np.flatnonzero(~np.isnan(score))
    tasks = coded.tasks[kept]
    given = text if text is not None else features
    assert given is not None  # noqa: S101 - one of them is there
    twice = given.index[given.index.duplicated()]
    if len(twice):
        raise BadJudgments(f"Task {shown(twice[0])} has two rows of {'text' if text is not None else 'features'}.")
    missing = tasks.difference(given.index)
    if len(missing):
        raise BadJudgments(
            f"Task {shown(missing[0])} has judgments but no {'text' if text is not None else 'features'}."
        )
    empty = tasks[text.reindex(tasks).isna().to_numpy()] if text is not None else tasks[:0]
    if len(empty):
        raise BadJudgments(f"The text of task {shown(empty[0])} is empty.")
    if len(kept) < 4:
        return ItemClusters(pd.DataFrame(), pd.Series(dtype=np.int64))
    score = score[kept]
    if text is not None:
        vectors, counts, names = _text_vectors(text.reindex(tasks).astype(str).tolist(), seed)
    else:
        assert features is not None  # noqa: S101 - as above
        vectors, counts, names = _feature_vectors(features.reindex(tasks))
    place, centres = _group_items(vectors, groups, seed)
    rows = [
        _describe(number, place, score, vectors, centres, counts, names, tasks, text is not None)
        for number in range(len(centres))
    ]
    clusters = pd.DataFrame(rows)
    clusters["q"] = fdr(clusters.pop("p").to_numpy()).adjusted
    clusters = clusters.sort_values("confusion", ascending=False, kind="stable")
    return ItemClusters(clusters, pd.Series(place, index=tasks.rename("task"), name="group"))


def _text_vectors(texts: list[str], seed: int) -> tuple[Floats, Any, list[str]]:
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer
    from sklearn.preprocessing import normalize

    try:
        counter = CountVectorizer(ngram_range=(1, 2), min_df=2, max_df=0.5, max_features=20_000, stop_words="english")
        counts = counter.fit_transform(texts)
    except ValueError:
        # Few or short texts: every word counts.
        counter = CountVectorizer(token_pattern=r"(?u)\b\w+\b")  # noqa: S106 - no password
        try:
            counts = counter.fit_transform(texts)
        except ValueError:
            raise BadJudgments("The texts have no words.") from None
    weights = TfidfTransformer(sublinear_tf=True).fit_transform(counts)
    size = min(50, min(weights.shape) - 1)
    if size < 2:
        return weights.toarray(), counts, counter.get_feature_names_out().tolist()
    reduced = TruncatedSVD(size, random_state=seed).fit_transform(weights)
    return normalize(reduced), counts, counter.get_feature_names_out().tolist()


def _feature_vectors(features: pd.DataFrame) -> tuple[Floats, Any, list[str]]:
    from sklearn.preprocessing import StandardScaler

    values = features.apply(pd.to_numeric, errors="coerce").to_numpy(dtype=np.float64)
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        raise BadJudgments(
            f"The feature {shown(features.columns[column])} of task {shown(features.index[row])} is no finite number."
        )
    scaled: Floats = StandardScaler().fit_transform(values)
    return scaled, scaled, [str(name) for name in features.columns]


def _group_items(vectors: Floats, groups: int | None, seed: int) -> tuple[npt.NDArray[np.int64], Floats]:
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_score

    # There cannot be more groups than different items.
    most = len(np.unique(vectors.round(9), axis=0))
    tried = [min(groups, most)] if groups else range(2, min(10, len(vectors) - 1, most) + 1)
    best: tuple[float, Any] | None = None
    for number in tried:
        found = KMeans(number, n_init=4, random_state=seed).fit(vectors)
        if len(np.unique(found.labels_)) < 2:
            continue
        quality = 0.0 if groups else silhouette_score(vectors, found.labels_, sample_size=2000, random_state=seed)
        if best is None or quality > best[0]:
            best = float(quality), found
    if best is None:
        return np.zeros(len(vectors), dtype=np.int64), vectors.mean(axis=0, keepdims=True)
    return best[1].labels_.astype(np.int64), best[1].cluster_centers_


def _describe(
    number: int,
    place: npt.NDArray[np.int64],
    score: Floats,
    vectors: Floats,
    centres: Floats,
    counts: Any,
    names: list[str],
    tasks: pd.Index[Any],
    words: bool,
) -> dict[str, Any]:
    inside = place == number
    here, there = score[inside], score[~inside]
    error = np.sqrt(here.var(ddof=1) / len(here)) if len(here) > 1 else np.nan
    half = stats.t.ppf(0.975, max(len(here) - 1, 1)) * error
    enough = len(here) >= _FEW
    p = 1.0
    if enough and len(there) > 1 and (here.var() > 0 or there.var() > 0):
        p = float(stats.ttest_ind(here, there, equal_var=False, alternative="greater").pvalue)
    if words:
        inner = np.asarray(counts[inside].sum(axis=0)).ravel()
        outer = np.asarray(counts[~inside].sum(axis=0)).ravel()
        prior = (inner + outer) / max(inner.sum() + outer.sum(), 1) * 500 + 1e-9
        odds = np.log((inner + prior) / (inner.sum() + prior.sum() - inner - prior))
        odds -= np.log((outer + prior) / (outer.sum() + prior.sum() - outer - prior))
        telling = odds / np.sqrt(1 / (inner + prior) + 1 / (outer + prior))
        told = [names[i] for i in np.argsort(-telling, kind="stable")[:10] if telling[i] > 0]
    else:
        apart = counts[inside].mean(axis=0) - (counts[~inside].mean(axis=0) if (~inside).any() else 0)
        told = [f"{names[i]} {apart[i]:+.1f} sd" for i in np.argsort(-np.abs(apart), kind="stable")[:10]]
    near = np.argsort(((vectors[inside] - centres[number]) ** 2).sum(axis=1), kind="stable")
    return {
        "group": number,
        "tasks": int(inside.sum()),
        "confusion": float(here.mean()),
        "low": max(float(here.mean() - half), 0.0) if enough else np.nan,
        "high": min(float(here.mean() + half), 1.0) if enough else np.nan,
        "elsewhere": float(there.mean()) if len(there) else np.nan,
        "p": p,
        "words": told,
        "examples": tasks[np.flatnonzero(inside)[near[:5]]].tolist(),
        "reason": "" if enough else f"Too few items for an interval: {len(here)}, and {_FEW} are needed.",
    }
