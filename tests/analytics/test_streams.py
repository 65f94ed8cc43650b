"""What every test and every detector on a stream does, whatever it looks for."""

from __future__ import annotations

import inspect
import json
import pickle
import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from labelguard_analytics import AccuracyTest, ChangeDetector, LabelShareDetector, LabelShareTest, ShareTest

SHARES = {"cat": 0.6, "dog": 0.3, "fish": 0.1}
ON_VALUES: tuple[Callable[[], Any], ...] = (
    AccuracyTest,
    lambda: AccuracyTest(0.7, 0.01, direction="both"),
    ShareTest,
    lambda: ShareTest(0.2, 0.1, direction="down"),
    ChangeDetector,
    lambda: ChangeDetector(0.8, "down", 1000),
    lambda: ChangeDetector(0.3, "up", 20_000),
    lambda: ChangeDetector(None, "up", 1000),
    lambda: ChangeDetector(0.99, "both", 1000),
    lambda: ChangeDetector(None, "both", 1000),
)
ON_LABELS: tuple[Callable[[], Any], ...] = (
    lambda: LabelShareTest(SHARES),
    lambda: LabelShareTest(SHARES, 0.01, "both"),
    lambda: LabelShareDetector(SHARES, run_length=1000),
    lambda: LabelShareDetector(tuple(SHARES), "up", 1000),
)
EVERY = (*ON_VALUES, *ON_LABELS)


def example(make: Callable[[], Any], seed: int = 1, n: int = 900) -> list[Any]:
    """Values that change in the middle, of the kind that is asked for; some scores between 0 and 1 among them."""
    rng = np.random.default_rng(seed)
    late = np.arange(n) >= n // 2
    if make in ON_LABELS:
        return [str(rng.choice(list(SHARES), p=(0.2, 0.6, 0.2) if each else (0.6, 0.3, 0.1))) for each in late]
    values = (rng.random(n) < np.where(late, 0.5, 0.8)).astype(float)
    mixed: list[Any] = np.where(rng.random(n) < 0.1, rng.random(n), values).tolist()
    return mixed


@pytest.mark.parametrize("make", EVERY)
def test_it_says_what_it_is(make: Callable[[], Any]) -> None:
    """The repr makes another one like it, every argument has a documented default or none that can be shared."""
    stream = make()

    assert type(stream).__name__ in repr(stream)
    assert eval(repr(stream)).to_state() == stream.to_state()  # noqa: S307
    for parameter in inspect.signature(type(stream)).parameters.values():
        assert isinstance(parameter.default, float | int | str | None | type(inspect.Parameter.empty))
    assert inspect.getdoc(type(stream))


@pytest.mark.parametrize("make", EVERY)
def test_it_begins_with_nothing_and_ends_with_a_detection(make: Callable[[], Any]) -> None:
    """Before the first value nothing is detected, and what is detected stays so; both are said in two sentences."""
    stream = make()
    assert (stream.n, stream.detected, stream.since) == (0, False, None)
    assert stream.evidence <= 1.0 < stream.threshold
    before = stream.explain()

    values = example(make, n=1500)
    if make in ON_VALUES:
        values = [0, 1] * 500 + [1 if stream.direction == "up" else 0] * 500
    for value in values:
        assert stream.update(value) is stream
    assert stream.detected
    assert stream.n == 1500
    assert 1 <= stream.since <= 1500
    for text in (before, stream.explain()):
        assert text.count(". ") == 1, text
        assert text.endswith(".")
    assert stream.explain() != before


@pytest.mark.parametrize("make", EVERY)
def test_it_goes_on_exactly_where_it_was_stopped(make: Callable[[], Any]) -> None:
    """Through JSON and through pickle, after any number of values; the JSON is plain."""
    stream = make()
    for i, value in enumerate(example(make), start=1):
        if i % 37 == 0:
            kept = type(stream).from_json(stream.to_json())
            assert kept.to_json() == stream.to_json()
            assert (kept.n, kept.evidence, kept.since) == (stream.n, stream.evidence, stream.since)
            assert pickle.loads(pickle.dumps(stream)).to_json() == stream.to_json()  # noqa: S301
            assert json.loads(stream.to_json()) == stream.to_state()
            stream = kept
        stream.update(value)
    whole = make()
    for value in example(make):
        whole.update(value)

    assert stream.to_json() == whole.to_json()


@pytest.mark.parametrize("make", EVERY)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1 << 30), cuts=st.lists(st.integers(0, 900), max_size=5))
def test_a_batch_is_the_same_as_its_values(make: Callable[[], Any], seed: int, cuts: list[int]) -> None:
    """To the last bit, wherever the values are cut into batches."""
    values = example(make, seed)
    one, many = make(), make()
    for value in values:
        one.update(value)
    edges = [0, *sorted(cuts), len(values)]
    for start, end in pairwise(edges):
        assert many.update_many(values[start:end]) is many

    assert many.to_json() == one.to_json()


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.sampled_from([0.0, 1.0, 1.0, 1.0, 0.5, 1e-300, 1 - 2**-53, 1 / 3]), max_size=700),
    level=st.sampled_from([None, 0.01, 0.5, 0.9, 0.99]),
    direction=st.sampled_from(["down", "up", "both"]),
)
def test_a_batch_is_the_same_as_its_values_for_awkward_numbers(
    values: list[float], level: float | None, direction: Any
) -> None:
    """Scores next to 0 and 1 and levels at the ends of what is allowed make no difference."""
    one, many = ChangeDetector(level, direction, 1000), ChangeDetector(level, direction, 1000)
    for value in values:
        one.update(value)

    assert many.update_many(np.array(values)).to_json() == one.to_json()


@pytest.mark.parametrize("level", [None, 0.9])
@pytest.mark.parametrize("direction", ["down", "up", "both"])
def test_a_long_batch_is_the_same_as_its_values(level: float | None, direction: Any) -> None:
    """Tens of thousands of values at once, with evidence that rises and falls, and the same value for ever."""
    rng = np.random.default_rng(3)
    share = np.where(np.arange(40_000) // 200 % 5 == 4, 0.88, 0.9)
    values = [(rng.random(len(share)) < share).astype(float), np.zeros(20_000), np.ones(20_000)]
    for order in (values, values[::-1]):
        one, many = (ChangeDetector(level, direction, 500_000) for _ in range(2))
        for part in order:
            for value in part.tolist():
                one.update(value)
            many.update_many(part)

            assert many.to_json() == one.to_json()
        assert one.detected


@pytest.mark.parametrize("make", EVERY)
def test_two_of_a_kind_share_nothing(make: Callable[[], Any]) -> None:
    """What one has seen does not change another, nor does a state that is kept."""
    stream, other = make(), make()
    state = stream.to_state()
    text = json.dumps(state)
    stream.update_many(example(make))

    assert other.to_state() == make().to_state()
    assert json.dumps(state) == text


@pytest.mark.parametrize("make", ON_VALUES)
@pytest.mark.parametrize("bad", [-0.1, 1.1, float("nan"), float("inf"), None, "1", [0.5], b"1"])
def test_what_is_no_value_between_0_and_1_is_refused(make: Callable[[], Any], bad: Any) -> None:
    """With a sentence that shows it, alone and in a batch, and nothing is changed by it."""
    stream = make().update(1)
    before = stream.to_json()

    with pytest.raises(ValueError, match="must lie between 0 and 1, but it is "):
        stream.update(bad)
    with pytest.raises(ValueError, match=r"between 0 and 1|one row of numbers"):
        stream.update_many([1, 0, bad])
    with pytest.raises(ValueError, match="one row of numbers"):
        stream.update_many(np.ones((2, 2)))
    assert stream.to_json() == before


def test_numbers_of_every_kind_are_values() -> None:
    """Booleans, integers, numpy's numbers and fractions count as what they are; a batch may be any iterable."""
    values: list[Any] = [True, 0, np.float32(1), np.int64(0), Fraction(1, 2)]
    one = ChangeDetector(0.9)
    for value in values:
        one.update(value)
    many = ChangeDetector(0.9).update_many(iter(values))

    assert one.n == 5
    assert many.to_json() == one.to_json()
    assert ChangeDetector(0.9).update_many(np.array([True, False])).n == 2


@pytest.mark.parametrize("make", ON_LABELS)
@pytest.mark.parametrize("bad", ["bird", None, 1, ["cat"]])
def test_what_is_no_label_is_refused(make: Callable[[], Any], bad: Any) -> None:
    """With a sentence that lists the labels, alone and in a batch, and nothing is changed by it."""
    stream = make().update("cat")
    before = stream.to_json()

    with pytest.raises(ValueError, match="A label must be one of cat, dog, fish, but it is "):
        stream.update(bad)
    with pytest.raises(ValueError, match="but at place 2 it is "):
        stream.update_many(["cat", bad])
    assert stream.to_json() == before


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: ChangeDetector(0.999), "level must lie between 0.01 and 0.99, but it is 0.999."),
        (lambda: ChangeDetector(level="high"), "level must lie between 0 and 1, but it is 'high'."),  # type: ignore[arg-type]
        (
            lambda: ChangeDetector(direction=cast(Any, "sideways")),
            "direction must be 'down', 'up' or 'both', but it is 'sideways'.",
        ),
        (lambda: ChangeDetector(run_length=10), "run_length must lie between 1,000 and 1,000,000, but it is 10."),
        (
            lambda: ChangeDetector(run_length=10**6, direction="both"),
            "run_length must lie between 1,000 and 500,000, but it is 1000000.",
        ),
        (lambda: ChangeDetector(run_length=float("nan")), "run_length must lie between 1,000 and 1,000,000"),
        (lambda: AccuracyTest(0), "target must lie between 0 and 1, but it is 0."),
        (lambda: AccuracyTest(false_alarm=1), "false_alarm must lie between 0 and 1, but it is 1."),
        (lambda: ShareTest(direction="left"), "direction must be"),  # type: ignore[arg-type]
        (lambda: LabelShareTest({"a": 0.5, "b": 0.4}), "must add up to 1, but they add up to 0.9."),
        (lambda: LabelShareTest({"a": 1.0}), "must be a mapping of at least two labels"),
        (lambda: LabelShareTest({"a": 0.5, "b": -0.5}), "The share of b must lie between 0 and 1, but it is -0.5."),
        (lambda: LabelShareDetector(["a", "a"]), "labels must be at least two different labels"),
        (lambda: LabelShareDetector("ab"), "labels must be at least two different labels"),
    ],
)
def test_arguments_out_of_range_are_refused(make: Callable[[], Any], sentence: str) -> None:
    """In one sentence with the argument, what it may be, and what it is."""
    with pytest.raises(ValueError, match=re.escape(sentence)):
        make()


def test_batches_of_different_lengths_are_refused() -> None:
    """Where each value has an expected share of its own, there must be as many."""
    with pytest.raises(ValueError, match="There are 2 values, but 1 of the expected share"):
        ShareTest().update_many([1, 0], [0.5])
    with pytest.raises(ValueError, match="There are 2 labels, but 1 mappings"):
        LabelShareTest(SHARES).update_many(["cat", "dog"], [SHARES])


@pytest.mark.parametrize("make", EVERY)
@pytest.mark.parametrize("state", [{}, {"level": 0.5}, {"target": 0.5, "false_alarm": 0.05}])
def test_a_state_of_something_else_is_refused(make: Callable[[], Any], state: dict[str, Any]) -> None:
    """States are not mixed up silently."""
    with pytest.raises(ValueError, match="does not belong to a"):
        type(make()).from_state(state)


def test_a_state_of_a_detector_with_other_odds_ratios_is_refused() -> None:
    """Its logarithms would mean something else."""
    state = ChangeDetector(0.9).to_state()
    state["sides"]["down"]["logs"] = [0.0]
    with pytest.raises(ValueError, match="does not belong to a detector with 4 odds ratios"):
        ChangeDetector.from_state(state)


def test_expected_shares_may_differ_from_item_to_item() -> None:
    """What everybody says about an item is not held against anybody; what nobody else says is."""
    labels: Sequence[str] = ["dog"] * 40
    usual = LabelShareTest(SHARES).update_many(labels, [{"cat": 0.05, "dog": 0.9, "fish": 0.05}] * 40)
    odd = LabelShareTest(SHARES).update_many(labels, [{"cat": 0.9, "dog": 0.05, "fish": 0.05}] * 40)

    assert not usual.detected
    assert odd.found == ("dog",)
    with pytest.raises(ValueError, match="The shares must be of the labels cat, dog, fish, but they are of cat, dog"):
        odd.update("cat", {"cat": 0.5, "dog": 0.5})
