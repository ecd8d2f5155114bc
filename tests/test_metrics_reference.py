"""Metrics against slow implementations of their definitions, row by row, and scikit-learn."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise
from typing import Any, get_args

import numpy as np
import pytest

from calibcli.arrays import log_softmax, namespace, to_numpy
from calibcli.errors import UsageError
from calibcli.metrics.base import Group
from calibcli.metrics.bins import BINS, EDGES, bin_index
from calibcli.metrics.panel import Evaluation, Panel
from calibcli.metrics.registry import DEFAULT, METRICS
from calibcli.metrics.view import Event, View

Array = np.ndarray[Any, Any]


def evaluate(
    log_probs: Any,
    labels: Any,
    weights: Any = None,
    event: Event = "auto",
    names: Iterable[str] = ("default",),
) -> Evaluation:
    panel = Panel(tuple(names))
    return panel.finish(panel.partial(View(log_probs, labels, weights, event=event)))


def make(rng: np.random.Generator, rows: int, classes: int) -> tuple[Array, Array]:
    logits = rng.standard_normal((rows, classes)) * 2.5
    return log_softmax(logits), rng.integers(0, classes, rows)


# Definitions, as one would explain them.


def slow_binned(confidence: Array, correct: Array, edges: Array) -> tuple[list[float], list[float]]:
    """Share of rows and |mean confidence - accuracy| of each bin (lower, upper]."""
    shares, gaps = [], []
    for lower, upper in pairwise(edges):
        inside = [i for i in range(len(confidence)) if lower < confidence[i] <= upper]
        shares.append(len(inside) / len(confidence))
        mean = [float(np.mean(v[inside])) if inside else 0.0 for v in (confidence, correct)]
        gaps.append(abs(mean[0] - mean[1]))
    return shares, gaps


def slow_ece(confidence: Array, correct: Array, edges: Array = EDGES) -> float:
    return math.fsum(s * g for s, g in zip(*slow_binned(confidence, correct, edges), strict=True))


def slow_ks(confidence: Array, correct: Array) -> float:
    total, largest = 0.0, 0.0
    for value in sorted(set(confidence.tolist())):
        total += sum(value - correct[i] for i in range(len(confidence)) if confidence[i] == value)
        largest = max(largest, abs(total))
    return largest / len(confidence)


def slow_adaptive_ece(confidence: Array, correct: Array, bins: int) -> float:
    """Row by row: a bin is closed with the last of the tied rows by which its share is reached."""
    order = np.argsort(confidence, kind="stable")
    rows, total, inside = len(order), 0.0, 0.0
    done = 0
    for count, i in enumerate(order, start=1):
        inside += confidence[i] - correct[i]
        is_tied = count < rows and confidence[order[count]] == confidence[i]
        reached = (count * bins) // rows
        if not is_tied and reached > done:
            total, inside, done = total + abs(inside), 0.0, reached
    return total / rows


def slow_metrics(log_probs: Array, labels: Array, event: Event = "top") -> dict[str, float]:
    probs = np.exp(log_probs.astype(np.float64))
    rows, classes = probs.shape
    confidence = probs.max(axis=1)
    right = np.array([float(probs[i].argmax() == labels[i]) for i in range(rows)])
    one_hot = np.eye(classes)[labels]
    correct = right
    if isinstance(event, int):
        confidence, correct = probs[:, event], one_hot[:, event]
    adaptive_edges = np.interp(np.linspace(0, rows, BINS + 1), np.arange(rows), np.sort(confidence))
    return {
        "accuracy": math.fsum(right) / rows,
        "nll": math.fsum(-log_probs[i, labels[i]] for i in range(rows)) / rows,
        "brier": math.fsum(((probs - one_hot) ** 2).ravel()) / rows,
        "ece": slow_ece(confidence, correct),
        "adaptive_ece": slow_adaptive_ece(confidence, correct, BINS),
        "adaptive_ece_published": slow_ece(confidence, correct, adaptive_edges),
        "adaptive_ece@7": slow_adaptive_ece(confidence, correct, 7),
        "ece@10": slow_ece(confidence, correct, np.linspace(0, 1, 11)),
        "mce@10": max(slow_binned(confidence, correct, np.linspace(0, 1, 11))[1]),
        "class_wise_ece": math.fsum(slow_ece(probs[:, k], one_hot[:, k]) for k in range(classes))
        / classes,
        "mce": max(slow_binned(confidence, correct, EDGES)[1]),
        "ks": slow_ks(confidence, correct),
    }


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(("rows", "classes"), [(1, 2), (7, 3), (40, 2), (300, 10), (60, 120)])
def test_definitions(rng: np.random.Generator, rows: int, classes: int, order: Any) -> None:
    log_probs, labels = make(rng, rows, classes)
    log_probs = np.asarray(log_probs, order=order)
    events: tuple[Event, ...] = ("top", 0, 1)
    for event in events:
        expected = slow_metrics(log_probs, labels, event)
        evaluation = evaluate(log_probs, labels, event=event, names=expected)
        assert evaluation.values == pytest.approx(expected, abs=1e-12)
        assert evaluation.event == (None if event == "top" else event)
    usual = slow_metrics(log_probs, labels, 1 if classes == 2 else "top")
    assert set(DEFAULT) <= set(usual)
    values = evaluate(log_probs, labels, names=usual).values
    assert values == pytest.approx(usual, abs=1e-12)


@pytest.mark.parametrize("order", ["C", "F"])
def test_definitions_on_ties_and_edges(order: Any) -> None:
    """Probabilities of 0 and 1, on the edges of bins, and equal within a row and across rows."""
    probs = np.array(
        [
            [1.0, 0.0, 0.0],
            [0.0, 1.0, 0.0],
            [0.4, 0.4, 0.2],
            [0.2, 0.4, 0.4],
            [0.6, 0.2, 0.2],
            [6 / 15, 8 / 15, 1 / 15],
            [14 / 15, 1 / 15, 0.0],
            [1 / 3, 1 / 3, 1 / 3],
        ]
    )
    labels = np.array([0, 1, 1, 1, 0, 2, 0, 2])
    with np.errstate(divide="ignore"):
        log_probs = np.asarray(np.log(probs), order=order)
    expected = slow_metrics(log_probs, labels)
    values = evaluate(log_probs, labels, names=expected).values
    assert values == pytest.approx(expected, abs=1e-12)


def test_scikit_learn(rng: np.random.Generator) -> None:
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    log_probs, labels = make(rng, 500, 7)
    weights = rng.random(500)
    probs = np.exp(log_probs)
    found = evaluate(log_probs, labels, weights).values
    common = {"labels": range(7), "sample_weight": weights}
    assert found["nll"] == pytest.approx(sklearn_metrics.log_loss(labels, probs, **common))
    assert found["accuracy"] == pytest.approx(
        sklearn_metrics.accuracy_score(labels, probs.argmax(axis=1), sample_weight=weights)
    )
    squares = ((probs - np.eye(7)[labels]) ** 2).sum(axis=1)
    assert found["brier"] == pytest.approx(np.average(squares, weights=weights))

    binary, two_labels = make(rng, 200, 2)
    # For two classes scikit-learn counts one of them: half of the sum.
    half = sklearn_metrics.brier_score_loss(two_labels, np.exp(binary[:, 1]))
    assert evaluate(binary, two_labels).values["brier"] == pytest.approx(2 * half)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bins_are_exact_next_to_their_edges(dtype: Any) -> None:
    """(lower, upper] holds to the last bit, and rounding above 1 stays in the last bin."""
    values = [dtype(edge) for edge in EDGES]
    for _ in range(4):
        values += [np.nextafter(v, dtype(side)) for v in values for side in (0, 2)]
    probability = np.unique(np.array(values)).astype(np.float64)
    within = probability[probability <= 1]
    np.testing.assert_array_equal(bin_index(within), np.searchsorted(EDGES, within) - 1)
    assert set(bin_index(probability[probability > 1])) == {BINS - 1}
    assert bin_index(np.array([0.0, 5e-324, 1e-300])).tolist() == [-1, 0, 0]


def test_class_wise_first_bin_is_exact_in_float32() -> None:
    """The float32 numbers around 1/15 fall on the sides of the float64 edge where they belong."""
    above = np.float32(1 / 15)
    assert float(above) > 1 / 15
    for value in (above, np.nextafter(above, np.float32(0))):
        probs = np.array([[value, 1 - value]], dtype=np.float32)
        state = METRICS["class_wise_ece"].statistic.partial(View(np.log(probs), np.array([1])))
        stored = float(np.exp(np.log(probs))[0, 0])
        touched = np.zeros(2 * BINS)
        for codes, values in state.cells.listed:
            np.add.at(touched, codes, values)
        assert (touched[1] > 0) == (stored > 1 / 15)
        assert (abs(state.first_bin[0]) > 1e-9) == (stored <= 1 / 15)


def test_impossible_label_is_infinite_nll() -> None:
    log_probs = np.array([[0.0, -np.inf], [np.log(0.5), np.log(0.5)]])
    assert evaluate(log_probs, np.array([1, 0])).values["nll"] == math.inf
    assert evaluate(log_probs, np.array([0, 0])).values["nll"] == pytest.approx(np.log(2) / 2)
    assert evaluate(log_probs, np.array([1, 0]), np.array([0.0, 1.0])).values["nll"] < 1


def test_perfect_prediction_is_zero() -> None:
    """Also in float32, where the expanded square of the Brier score may round below 0."""
    logits = np.zeros((50, 3), dtype=np.float32)
    labels = np.arange(50) % 3
    logits[np.arange(50), labels] = np.linspace(8, 200, 50, dtype=np.float32)
    values = evaluate(log_softmax(logits), labels).values
    assert 0 <= values["brier"] < 1e-6
    assert values["accuracy"] == 1.0


def test_no_rows_and_no_weight_are_nan() -> None:
    empty = evaluate(np.empty((0, 3)), np.empty(0, dtype=np.int64))
    weightless = evaluate(np.log(np.full((2, 2), 0.5)), np.array([0, 1]), np.zeros(2))
    for evaluation in (empty, weightless):
        assert all(math.isnan(value) for value in evaluation.values.values())
        assert all(part.confidence is None for part in evaluation.reliability)
    assert (empty.rows, empty.classes, weightless.rows, weightless.weight) == (0, 3, 2, 0.0)


def test_reliability_bins(rng: np.random.Generator) -> None:
    log_probs, labels = make(rng, 200, 4)
    weights = rng.random(200)
    evaluation = evaluate(log_probs, labels, weights)
    confidence = np.exp(log_probs).max(axis=1)
    correct = log_probs.argmax(axis=1) == labels
    assert [part.upper for part in evaluation.reliability] == EDGES[1:].tolist()
    for part in evaluation.reliability:
        inside = (confidence > part.lower) & (confidence <= part.upper)
        assert part.rows == inside.sum()
        if not part.rows:
            assert (part.weight, part.confidence, part.accuracy) == (0.0, None, None)
            continue
        assert part.weight == pytest.approx(weights[inside].sum())
        means = [np.average(v[inside], weights=weights[inside]) for v in (confidence, correct)]
        assert [part.confidence, part.accuracy] == pytest.approx(means)


def test_torch_gives_the_same(rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    log_probs, labels = make(rng, 400, 20)
    weights = rng.random(400)
    expected = evaluate(log_probs, labels, weights)
    tensor = torch.from_numpy(log_probs)
    found = evaluate(tensor, torch.from_numpy(labels), weights)
    assert found.values == pytest.approx(expected.values, abs=1e-14)
    for left, right in zip(found.reliability, expected.reliability, strict=True):
        assert left.rows == right.rows
        assert left.confidence == pytest.approx(right.confidence, abs=1e-14)
        assert left.accuracy == pytest.approx(right.accuracy, abs=1e-14)
    single = evaluate(tensor.float(), torch.from_numpy(labels))
    assert single.values == pytest.approx(evaluate(log_probs, labels).values, abs=1e-6)


@pytest.mark.parametrize("kind", ["C", "F", "torch"])
@pytest.mark.parametrize("classes", [6, 100])
def test_argmax_is_the_first(rng: np.random.Generator, kind: str, classes: int) -> None:
    coarse = rng.integers(-2, 3, (500, classes)).astype(np.float64)
    coarse[0, :5] = -np.inf
    matrix: Any = np.asarray(coarse, order="F" if kind == "F" else "C")
    if kind == "torch":
        matrix = pytest.importorskip("torch").from_numpy(coarse)
    prediction = View(matrix, namespace(matrix).zeros(500)).prediction
    assert to_numpy(prediction).tolist() == coarse.argmax(axis=1).tolist()


def test_panel_evaluates_what_it_is_asked_for(rng: np.random.Generator) -> None:
    log_probs, labels = make(rng, 100, 3)
    panel = Panel(["ece", "nll", "ece"])
    evaluation = panel.finish(panel.partial(View(log_probs, labels)))
    assert list(evaluation.values) == ["ece", "nll"]
    everything = evaluate(log_probs, labels)
    assert list(everything.values) == list(DEFAULT) == [m for m in METRICS if m in DEFAULT]
    assert evaluation.values.items() <= everything.values.items()
    assert evaluation.reliability == everything.reliability
    assert (evaluation.rows, evaluation.weight, evaluation.classes) == (100, 100.0, 3)
    assert Panel(("ece", "nll")) == Panel(["ece", "nll", "ece"])


@pytest.mark.parametrize(
    ("name", "close"), [("ecce-r", "ecce_r"), ("NLL", "nll"), ("top_5_accuracy", "top5_accuracy")]
)
def test_unknown_metric_is_told_what_is_close_and_what_there_is(name: str, close: str) -> None:
    with pytest.raises(UsageError, match=rf"'{name}'; did you mean {close}\?.*all.*accuracy.*ece"):
        Panel(["nll", name])


def test_names_of_sets_stand_for_their_metrics() -> None:
    assert METRICS.expand(["all"]) == tuple(METRICS)
    assert METRICS.expand(["smooth_ece", "default", "nll"]) == ("smooth_ece", *DEFAULT)
    assert METRICS.find("top12_accuracy").title == "top-12 accuracy"
    for name in ("top0_accuracy", "top_accuracy", "top05_accuracy", ""):
        with pytest.raises(UsageError):
            METRICS.find(name)


def test_metrics_describe_themselves() -> None:
    for name, metric in METRICS.items():
        assert metric.name == name
        assert name.isidentifier()
        assert name == name.lower()
        assert metric.better in ("lower", "higher", "")
        assert metric.group in get_args(Group)
        assert metric.title
        assert len(metric.convention) > 20
    groups = [metric.group for metric in METRICS.values()]
    # Those about decisions are made where there are costs, and are in no registry.
    assert {*groups, "decisions"} == {*get_args(Group)}
    assert groups == sorted(groups, key=get_args(Group).index)
