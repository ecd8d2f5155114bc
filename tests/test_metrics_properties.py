"""What must hold for every metric, whatever the data."""

from __future__ import annotations

import pickle
from dataclasses import replace
from functools import reduce
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibcli.arrays import log_softmax
from calibcli.metrics.panel import Evaluation, Panel
from calibcli.metrics.view import View

Array = np.ndarray[Any, Any]
PANEL = Panel(["all", "top2_accuracy"])


@st.composite
def blocks(draw: st.DrawFn) -> tuple[Array, Array]:
    """Log-probabilities (n, K) and labels (n,); often with ties and impossible classes."""
    rows = draw(st.integers(1, 60))
    classes = draw(st.sampled_from([2, 3, 5, 40]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    logits = rng.standard_normal((rows, classes)) * draw(st.sampled_from([0.3, 2.0, 8.0]))
    if draw(st.booleans()):
        logits = np.round(logits)
    labels = rng.integers(0, classes, rows)
    if draw(st.booleans()):
        logits[:, -1] = -np.inf
        labels %= classes - 1
    order: Any = draw(st.sampled_from("CF"))
    return np.asarray(log_softmax(logits), order=order), labels


def evaluate(log_probs: Array, labels: Array, weights: Array | None = None) -> Evaluation:
    return PANEL.finish(PANEL.partial(View(log_probs, labels, weights)))


def assert_same(left: Evaluation, right: Evaluation) -> None:
    assert left.values == pytest.approx(right.values, abs=1e-12, nan_ok=True)
    assert left.weight == pytest.approx(right.weight)
    for a, b in zip(left.reliability, right.reliability, strict=True):
        assert a.weight == pytest.approx(b.weight)
        assert (a.confidence is None) == (b.confidence is None)
        if a.confidence is not None:
            assert [a.confidence, a.accuracy] == pytest.approx([b.confidence, b.accuracy])


@given(blocks(), st.lists(st.integers(0, 60), max_size=5), st.randoms(), st.booleans())
def test_partition_changes_nothing(
    block: tuple[Array, Array], cuts: list[int], random: Any, weighted: bool
) -> None:
    """Any cut into blocks, merged in any tree, also with blocks of no rows."""
    log_probs, labels = block
    weights = np.random.default_rng(1).integers(0, 4, len(labels)) * 0.5 if weighted else None
    if weights is not None:
        weights[0] = 1.5
    bounds = [0, *sorted(min(cut, len(labels)) for cut in cuts), len(labels)]
    states = [
        PANEL.partial(View(log_probs[a:b], labels[a:b], None if weights is None else weights[a:b]))
        for a, b in pairwise(bounds)
    ]
    while len(states) > 1:
        at = random.randrange(len(states) - 1)
        states[at : at + 2] = [PANEL.merge(states[at], states[at + 1])]
    assert_same(PANEL.finish(states[0]), evaluate(log_probs, labels, weights))


@given(blocks(), st.data())
def test_integer_weights_are_repetition(block: tuple[Array, Array], data: st.DataObject) -> None:
    log_probs, labels = block
    count = len(labels)
    times = np.array(data.draw(st.lists(st.integers(0, 3), min_size=count, max_size=count)))
    times[0] = 2
    # In another layout sums over classes round differently, which can part tied confidences.
    rows = np.repeat(log_probs, times, axis=0)
    rows = np.asarray(rows, order="F" if np.isfortran(log_probs) else "C")
    repeated = evaluate(rows, np.repeat(labels, times))
    weighted = evaluate(log_probs, labels, times.astype(np.float64))
    assert_same(weighted, repeated)


@given(blocks())
def test_weights_of_one_are_no_weights(block: tuple[Array, Array]) -> None:
    assert_same(evaluate(*block, np.ones(len(block[1]))), evaluate(*block))


@given(blocks(), st.integers(0, 2**32 - 1), st.booleans())
def test_order_of_rows_changes_nothing(
    block: tuple[Array, Array], seed: int, weighted: bool
) -> None:
    log_probs, labels = block
    rng = np.random.default_rng(seed)
    weights = rng.integers(1, 4, len(labels)) * 1.0 if weighted else None
    order = rng.permutation(len(labels))
    # In another layout sums over classes round differently, which can part tied confidences.
    moved = np.asarray(log_probs[order], order="F" if np.isfortran(log_probs) else "C")
    shuffled = evaluate(moved, labels[order], None if weights is None else weights[order])
    assert_same(shuffled, evaluate(log_probs, labels, weights))


@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 3, 30]))
def test_names_of_classes_change_nothing(seed: int, classes: int) -> None:
    """Without ties in a row: with them the first of equals depends on the order of the classes."""
    rng = np.random.default_rng(seed)
    log_probs = log_softmax(rng.standard_normal((50, classes)) * 2)
    labels = rng.integers(0, classes, 50)
    order = rng.permutation(classes)
    panel = replace(PANEL, event="top")
    renamed = View(log_probs[:, order], np.argsort(order)[labels], event="top")
    here, there = (
        panel.finish(panel.partial(view))
        for view in (renamed, View(log_probs, labels, event="top"))
    )
    assert_same(here, there)


@given(st.integers(0, 2**32 - 1))
def test_a_class_keeps_its_figures_under_another_number(seed: int) -> None:
    rng = np.random.default_rng(seed)
    log_probs = log_softmax(rng.standard_normal((50, 2)) * 2)
    labels = rng.integers(0, 2, 50)
    here, there = (
        PANEL.finish(PANEL.partial(view))
        for view in (View(log_probs, labels), View(log_probs[:, ::-1], 1 - labels, event=0))
    )
    assert (here.event, there.event) == (1, 0)
    assert_same(replace(there, event=1), here)


@given(blocks())
def test_ranges(block: tuple[Array, Array]) -> None:
    values = evaluate(*block).values
    assert 0 <= values["accuracy"] <= 1
    assert values["nll"] >= 0
    assert 0 <= values["brier"] <= 2 + 1e-12
    for name in ("ece", "adaptive_ece", "class_wise_ece", "mce", "ks"):
        assert 0 <= values[name] <= 1 + 1e-12
    assert values["ece"] <= values["mce"] + 1e-12


def test_states_travel(rng: np.random.Generator) -> None:
    """Many blocks of many classes, with every state sent to another process on the way."""
    log_probs = log_softmax(rng.standard_normal((3000, 150)))
    labels = rng.integers(0, 150, 3000)
    pairs = [slice(i, i + 2) for i in range(0, 3000, 2)]
    states = [PANEL.partial(View(log_probs[two], labels[two])) for two in pairs]
    travelled = pickle.loads(pickle.dumps(states))  # noqa: S301 (its own bytes)
    merged = reduce(PANEL.merge, travelled)
    assert pickle.loads(pickle.dumps(merged)).rows == 3000  # noqa: S301
    assert pickle.loads(pickle.dumps(PANEL)) == PANEL  # noqa: S301
    assert_same(PANEL.finish(merged), evaluate(log_probs, labels))


def test_memory_of_many_classes_is_what_was_touched(rng: np.random.Generator) -> None:
    """The state of one block of 100,000 classes is no bigger than a few of its rows."""
    log_probs = log_softmax(rng.standard_normal((2, 100_000)) * 8)
    view = View(log_probs, rng.integers(0, 100_000, 2))
    assert len(pickle.dumps(Panel().partial(view))) < 2 * log_probs.nbytes
    assert len(pickle.dumps(PANEL.partial(view))) < 4 * log_probs.nbytes
