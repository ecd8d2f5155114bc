"""The metrics beyond the default ones against slow implementations of their definitions."""

from __future__ import annotations

import math
from itertools import pairwise, permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibcli.arrays import log_softmax
from calibcli.metrics.confidence import ConfidenceCurve, curve_of_cells
from calibcli.metrics.equal_mass import MOST_BINS, equal_mass_bins
from calibcli.metrics.event_metrics import clipped_log_odds
from calibcli.metrics.panel import Panel
from calibcli.metrics.registry import METRICS
from calibcli.metrics.smooth import Smoother, residuals_on_lattice
from calibcli.metrics.view import View

Array = np.ndarray[Any, Any]


def evaluate(log_probs: Any, labels: Any, weights: Any = None) -> dict[str, float]:
    panel = Panel(["all"])
    return panel.finish(panel.partial(View(log_probs, labels, weights))).values


def make(seed: int, rows: int, classes: int, scale: float = 2.0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((rows, classes)) * scale
    # Right more often than not, so that nothing degenerates.
    labels = np.argmax(logits / 2 + rng.gumbel(size=logits.shape), axis=1)
    return log_softmax(logits), labels


def top(log_probs: Array, labels: Array) -> tuple[Array, Array]:
    """Confidence and whether it is right, as 0 and 1, in the order of the confidence."""
    confidence = np.exp(log_probs).max(axis=1)
    correct = (log_probs.argmax(axis=1) == labels) * 1.0
    order = np.argsort(confidence, kind="stable")
    return confidence[order], correct[order]


def curve(confidence: Array, correct: Array, weights: Array | None = None) -> ConfidenceCurve:
    """The curve of rows in the order of their confidence, all of them different."""
    weights = np.ones(len(confidence)) if weights is None else weights
    return curve_of_cells(weights, weights * confidence, weights * correct)


def value(name: str, confidence: Array, correct: Array) -> float:
    return METRICS[name].value(curve(confidence, correct))


SIZES = pytest.mark.parametrize(
    ("rows", "classes"), [(1, 3), (2, 2), (14, 2), (31, 3), (200, 2), (400, 12)]
)


@SIZES
def test_proper_scores_and_top_k(rows: int, classes: int) -> None:
    log_probs, labels = make(0, rows, classes)
    found = evaluate(log_probs, labels)
    squares = (np.exp(log_probs) - np.eye(classes)[labels]) ** 2
    assert found["brier_mean"] == pytest.approx(squares.mean())
    assert found["brier_half"] == pytest.approx(squares.sum(axis=1).mean() / 2)
    ranked = np.argsort(-log_probs, axis=1, kind="stable")
    for k in (1, 2, 5, 40):
        panel = Panel([f"top{k}_accuracy"])
        (share,) = panel.finish(panel.partial(View(log_probs, labels))).values.values()
        hits = [label in row[:k] for label, row in zip(labels, ranked, strict=True)]
        assert share == pytest.approx(np.mean(hits))


def test_top_k_of_ties_counts_the_first() -> None:
    log_probs = np.log([[0.4, 0.4, 0.2], [0.25, 0.5, 0.25], [1 / 3, 1 / 3, 1 / 3]])
    ranks = View(log_probs, np.array([1, 2, 2])).label_rank
    assert ranks.tolist() == [1, 2, 2]


@SIZES
def test_smooth_ece_is_the_fixed_point_of_the_integral(rows: int, classes: int) -> None:
    confidence, correct = top(*make(1, rows, classes))
    residuals = residuals_on_lattice(curve(confidence, correct))
    middles = (np.arange(3000) + 0.5) / 3000
    for width in (0.02, 0.1, 0.4):
        images = [sign * confidence + 2 * shift for shift in range(-3, 4) for sign in (1, -1)]
        kernel = sum(np.exp(-(((middles[:, None] - image) / width) ** 2) / 2) for image in images)
        kernel = kernel / (width * math.sqrt(2 * math.pi))
        integral = np.abs(kernel @ (confidence - correct) / rows).mean()
        assert Smoother(residuals).error(width) == pytest.approx(integral, abs=1e-6)
    found = value("smooth_ece", confidence, correct)
    assert Smoother(residuals).error(found) == pytest.approx(found, abs=1e-9)


def test_smooth_ece_of_certain_predictions() -> None:
    """Confidence 1: all mass on the border, none of which may get lost."""
    for right, expected in ((1.0, 0.0), (0.75, 0.25), (0.0, 1.0)):
        one = curve_of_cells(np.array([8.0]), np.array([8.0]), np.array([8 * right]))
        assert METRICS["smooth_ece"].value(one) == pytest.approx(expected, abs=1e-9)


def published_sweep(correct: Array) -> Array:
    """Bin of each row by the published algorithm: one bin more until accuracies are not sorted."""
    rows = len(correct)
    before = np.zeros(rows, dtype=int)
    for count in range(2, rows):
        bins = np.minimum(np.floor(np.arange(rows) / rows * count), count - 1).astype(int)
        filled = np.unique(bins)
        accuracy = np.array([correct[bins == b].mean() for b in filled])
        if np.any(np.diff(accuracy) < 0):
            return before
        before = bins
    return before


@SIZES
@pytest.mark.parametrize("seed", range(3))
def test_sweep(seed: int, rows: int, classes: int) -> None:
    confidence, correct = top(*make(seed, rows, classes))
    bins = published_sweep(correct)
    gaps = [abs((confidence - correct)[bins == b].sum()) for b in np.unique(bins)]
    assert value("ece_sweep", confidence, correct) == pytest.approx(sum(gaps) / rows)


def test_sweep_ends_where_accuracy_never_falls() -> None:
    confidence = np.linspace(0.5, 1, 5 * MOST_BINS)
    correct = (confidence > 0.75) * 1.0
    bins = equal_mass_bins(curve(confidence, correct), MOST_BINS)
    expected = np.abs(bins.excess).sum() / len(confidence)
    assert value("ece_sweep", confidence, correct) == pytest.approx(expected)


@SIZES
def test_debiased_error(rows: int, classes: int) -> None:
    confidence, correct = top(*make(2, rows, classes))
    ends = [math.ceil(j * rows / 15 - 1e-9) for j in range(16)]
    squares = 0.0
    for begin, end in pairwise(ends):
        if end - begin > 1:
            accuracy = correct[begin:end].mean()
            square = (confidence[begin:end].mean() - accuracy) ** 2
            variance = accuracy * (1 - accuracy) / (end - begin - 1)
            squares += (end - begin) / rows * (square - variance)
    assert value("l2_squared_debiased", confidence, correct) == pytest.approx(squares)
    root = math.sqrt(max(squares, 0))
    assert value("l2_debiased", confidence, correct) == pytest.approx(root)


def test_ties_share_a_bin_of_equal_mass() -> None:
    weight = np.array([1.0, 5, 1, 1, 1, 1])
    bins = equal_mass_bins(curve(np.linspace(0.5, 1, 6), np.ones(6), weight), 5)
    assert bins.weight.tolist() == [6, 2, 2]


@SIZES
def test_cumulated_deviations(rows: int, classes: int) -> None:
    confidence, correct = top(*make(3, rows, classes))
    path = np.append(0.0, np.cumsum(confidence - correct)) / rows
    assert value("ecce_r", confidence, correct) == pytest.approx(path.max() - path.min())
    assert value("ecce_mad", confidence, correct) == pytest.approx(np.abs(path).max())
    assert value("ecce_mad", confidence, correct) == value("ks", confidence, correct)


@SIZES
def test_risk_and_coverage(rows: int, classes: int) -> None:
    confidence, correct = top(*make(4, rows, classes))
    risks = np.cumsum(1 - correct[::-1]) / np.arange(1, rows + 1)
    assert value("aurc", confidence, correct) == pytest.approx(risks.mean())


def test_risk_and_coverage_of_ties_is_the_mean_over_their_orders() -> None:
    correct = [1, 0, 0, 1, 1]
    means = [
        np.mean(np.cumsum(1 - np.array([0, *order, 1])) / np.arange(1, 8))
        for order in permutations(correct)
    ]
    tied = curve(np.array([0.5, 0.7, 0.9]), np.array([1, 3 / 5, 0]), np.array([1.0, 5, 1]))
    assert METRICS["aurc"].value(tied) == pytest.approx(np.mean(means))


def test_roc_is_the_share_of_pairs_in_order() -> None:
    confidence = np.array([0.5, 0.6, 0.6, 0.7, 0.9])
    correct = np.array([0, 1, 0, 0, 1])
    log_probs = np.log(np.stack([confidence, 1 - confidence], axis=1))
    pairs = [
        (c > d) + (c == d) / 2
        for c, right in zip(confidence, correct, strict=True)
        for d, wrong in zip(confidence, 1 - correct, strict=True)
        if right and wrong
    ]
    log_probs[0] = np.log([0.5, 0.5])
    assert evaluate(log_probs, 1 - correct)["auroc"] == pytest.approx(np.mean(pairs))
    assert math.isnan(evaluate(log_probs, np.zeros(5, dtype=int))["auroc"])


@SIZES
def test_top_label_and_thresholded(rows: int, classes: int) -> None:
    log_probs, labels = make(5, rows, classes)
    probs = np.exp(log_probs)
    found = evaluate(log_probs, labels)

    def gaps(probability: Array, event: Array) -> float:
        """Sum over 15 bins of equal width."""
        bins = np.ceil(probability * 15)
        return sum(abs((probability - event)[bins == b].sum()) for b in range(1, 16))

    predicted, confidence = probs.argmax(axis=1), probs.max(axis=1)
    by_prediction = [
        gaps(confidence[predicted == k], (labels == k)[predicted == k]) for k in range(classes)
    ]
    assert found["top_label_ece"] == pytest.approx(sum(by_prediction) / rows)
    errors = []
    for k in range(classes):
        above = probs[:, k] > 0.01
        if above.any():
            errors.append(gaps(probs[above, k], (labels == k)[above]) / above.sum())
    assert found["class_wise_ece_thresholded"] == pytest.approx(np.mean(errors))


@SIZES
@pytest.mark.parametrize("weighted", [False, True])
def test_decomposition_by_isotonic_regression(rows: int, classes: int, weighted: bool) -> None:
    sklearn_isotonic = pytest.importorskip("sklearn.isotonic")
    log_probs, labels = make(6, rows, classes)
    log_probs = log_softmax(np.round(log_probs, 1))
    weights = np.random.default_rng(0).random(rows) + 0.1 if weighted else np.ones(rows)

    def parts(probability: Array, event: Array) -> list[float]:
        regression = sklearn_isotonic.IsotonicRegression().fit(probability, event, weights)
        fit = regression.predict(probability)
        base = np.average(event, weights=weights)
        own, recalibrated, uncertainty = (
            np.average((guess - event) ** 2, weights=weights) for guess in (probability, fit, base)
        )
        return [own - recalibrated, uncertainty - recalibrated, uncertainty]

    def found(name: str) -> list[float]:
        ending = ("miscalibration", "discrimination", "uncertainty")
        return [values[f"{name}_{part}"] for part in ending]

    values = evaluate(log_probs, labels, weights if weighted else None)
    # As the view rounds it, so that ties stay ties.
    view = View(log_probs, labels)
    expected = parts(view.top_confidence, view.top_correct * 1.0)
    assert found("corp_top") == pytest.approx(expected, abs=1e-12)
    each = [parts(view.probs[:, k], (labels == k) * 1.0) for k in range(classes)]
    assert found("corp_class_wise") == pytest.approx(np.mean(each, axis=0), abs=1e-12)
    if classes == 2:
        assert found("corp_class_wise") == pytest.approx(each[1], abs=1e-12)
    total = values["corp_class_wise_miscalibration"] - values["corp_class_wise_discrimination"]
    total += values["corp_class_wise_uncertainty"]
    assert total == pytest.approx(values["brier_mean"])


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 7, 40]), st.sampled_from([2, 3, 9]))
def test_ranges_and_order(seed: int, rows: int, classes: int) -> None:
    """What must hold between the metrics, also where probabilities are 0 and 1."""
    log_probs, labels = make(seed, rows, classes, scale=5.0)
    if seed % 2:
        log_probs = np.where(log_probs < log_probs.max(axis=1, keepdims=True), -np.inf, 0.0)
    values = evaluate(log_probs, labels)
    known = {name: value for name, value in values.items() if not math.isnan(value)}
    view = View(log_probs, labels)
    odds, events = clipped_log_odds(view.confidence), view.correct
    undefined = set()
    if not events.any():
        undefined |= {"average_precision"}
        if view.confidence.any():
            assert values["expected_observed"] == math.inf
        else:
            undefined |= {"expected_observed"}
    if not (events.any() and (~events).any()):
        undefined |= {"auroc", "brier_skill", "in_the_large"}
    if (
        undefined
        or odds[events].min() >= odds[~events].max()
        or odds[events].max() <= odds[~events].min()
    ):
        undefined.add("slope")  # events and others can be separated
    # Where all is 0 or 1, as many events too high as too low leave the likelihood flat to rounding.
    flat = {"in_the_large"} if np.abs(odds).min() > 30 else set()
    assert undefined <= set(values) - set(known) <= undefined | flat
    assert all(-1e-12 <= v <= 2 + 1e-12 for k, v in known.items() if k not in UNBOUNDED)
    assert known.get("expected_observed", 0.0) >= 0
    assert known.get("brier_skill", 0.0) <= 1
    assert known["ks"] <= known["ecce_r"] + 1e-12
    assert known["ecce_r"] <= 2 * known["ks"] + 1e-12
    assert known["ece"] <= known["top_label_ece"] + 1e-12
    assert known["accuracy"] <= known["top5_accuracy"]
    for name in ("corp_top", "corp_class_wise"):
        assert known[f"{name}_discrimination"] <= known[f"{name}_uncertainty"] + 1e-12


UNBOUNDED = {
    *("nll", "l2_squared_debiased"),
    *("expected_observed", "in_the_large", "slope", "brier_skill"),
}


def test_one_class_missing_and_a_thousand_classes() -> None:
    log_probs, labels = make(7, 300, 1000)
    labels[:5] = log_probs[:5].argmax(axis=1)
    values = evaluate(log_probs, np.minimum(labels, 998))
    assert all(math.isfinite(value) for value in values.values())


def test_nothing_is_nan() -> None:
    empty = evaluate(np.empty((0, 3)), np.empty(0, dtype=np.int64))
    weightless = evaluate(np.log(np.full((2, 2), 0.5)), np.array([0, 1]), np.zeros(2))
    assert all(math.isnan(value) for values in (empty, weightless) for value in values.values())


def test_torch_gives_the_same() -> None:
    torch = pytest.importorskip("torch")
    log_probs, labels = make(8, 300, 20)
    weights = np.random.default_rng(1).random(300)
    expected = evaluate(log_probs, labels, weights)
    found = evaluate(torch.from_numpy(log_probs), torch.from_numpy(labels), weights)
    assert found == pytest.approx(expected, abs=1e-12)
