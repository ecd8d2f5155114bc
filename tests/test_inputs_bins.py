"""Bins of other numbers and of equal mass: what ties are worth, and ``ece@10``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import calibcli
from calibcli.errors import UsageError
from calibcli.metrics.bins import bin_index, edges_of
from calibcli.metrics.confidence_cells import ConfidenceBags
from calibcli.metrics.registry import METRICS
from calibcli.metrics.resampling import Units


def write(path: Path, confidence: np.ndarray, correct: np.ndarray, classes: int = 3) -> None:
    """Rows whose largest probability, of class 0, is right or not."""
    probs = np.full((len(confidence), classes), ((1 - confidence) / (classes - 1))[:, None])
    probs[:, 0] = confidence
    np.savez(path, probs=probs, labels=np.where(correct, 0, 1))


def metrics(calib_here, *arguments: str) -> dict[str, dict]:
    code, out, err = calib_here("evaluate", *arguments, "--format", "json")
    assert code == 0, err
    return json.loads(out)["metrics"]


def test_rows_that_all_say_the_same_count(calib_here, tmp_path) -> None:
    write(tmp_path / "const.npz", np.full(400, 0.8), np.arange(400) % 2 == 0)
    names = "adaptive_ece,adaptive_ece_published"
    found = metrics(calib_here, "const.npz", "--metrics", names)
    ours, published = found["adaptive_ece"], found["adaptive_ece_published"]
    assert ours["value"] == pytest.approx(0.30, abs=1e-9)
    assert published["value"] == 0
    low, high = ours["low"], ours["high"]
    assert 0.2 < low < 0.3 < high < 0.4
    # 400 rows of a calibrated model: a standard deviation of sqrt(.16 / 400) = .02.
    assert 0.02 < ours["chance"]["high"] < 0.06
    code, _, err = calib_here(
        "evaluate", "const.npz", "--metrics", names, "--fail-if", "adaptive_ece > 0.05"
    )
    assert code == 1, err


def test_levels_are_a_bin_each() -> None:
    """Of .6, .7 and .9, right 30, 90 and 50 % of the time: (.3 + .2 + .4) / 3 off."""
    confidence = np.repeat([0.6, 0.7, 0.9], 100)
    right = np.concatenate([np.arange(100) < share for share in (30, 90, 50)])
    probs = np.stack([confidence, (1 - confidence) / 2, (1 - confidence) / 2], axis=1)
    names = ("adaptive_ece", "adaptive_ece@10", "adaptive_ece@2")
    found = calibcli.evaluate(probs, np.where(right, 0, 1), metrics=names).values
    assert found["adaptive_ece"] == pytest.approx(0.3)
    assert found["adaptive_ece@10"] == pytest.approx(0.3)
    # Of two bins the first ends with the last .7: (-.3 x 100 + .2 x 100) cancel in part.
    assert found["adaptive_ece@2"] == pytest.approx((10 + 40) / 300)


def slow_gaps(confidence: np.ndarray, correct: np.ndarray, bins: int) -> tuple[float, float]:
    edges = np.linspace(0, 1, bins + 1)
    index = np.clip(np.digitize(confidence, edges, right=True), 1, bins)
    gaps, sizes = [], []
    for b in range(1, bins + 1):
        inside = index == b
        if inside.any():
            gaps.append(abs(confidence[inside].mean() - correct[inside].mean()))
            sizes.append(inside.mean())
    return float(np.dot(gaps, sizes)), max(gaps)


@pytest.mark.parametrize("bins", [1, 2, 7, 10, 15, 20, 100, 999])
@pytest.mark.parametrize("grid", [0, 10, 100])
def test_any_number_of_bins_is_that_of_numpy(rng, bins, grid) -> None:
    probs = rng.dirichlet(np.ones(4), 2000)
    if grid:
        # Confidences on the edges of bins.
        top = np.clip(np.round(probs.max(1) * grid) / grid, 0.3, 1 - 1 / grid)
        probs = np.stack([top, *[(1 - top) / 3] * 3], axis=1)
    labels = rng.integers(0, 4, 2000)
    found = calibcli.evaluate(probs, labels, metrics=(f"ece@{bins}", f"mce@{bins}")).values
    mean, largest = slow_gaps(probs.max(1), probs.argmax(1) == labels, bins)
    assert found[f"ece@{bins}"] == pytest.approx(mean, abs=1e-12)
    assert found[f"mce@{bins}"] == pytest.approx(largest, abs=1e-12)


def slow_class_errors(probs: np.ndarray, labels: np.ndarray, bins: int) -> dict[str, float]:
    classes, prediction = np.arange(probs.shape[1]), probs.argmax(1)
    all_rows, above, top = [], [], 0.0
    for k in classes:
        p, y = probs[:, k], (labels == k) * 1.0
        all_rows.append(slow_gaps(p[p > 0], y[p > 0], bins)[0] * (p > 0).mean())
        if (p > 0.01).any():
            above.append(slow_gaps(p[p > 0.01], y[p > 0.01], bins)[0])
        if (prediction == k).any():
            inside = prediction == k
            top += slow_gaps(p[inside], y[inside], bins)[0] * inside.mean()
    return {
        f"class_wise_ece@{bins}": float(np.mean(all_rows)),
        f"class_wise_ece_thresholded@{bins}": float(np.mean(above)),
        f"top_label_ece@{bins}": float(top),
    }


@pytest.mark.parametrize("bins", [1, 2, 10, 20, 100])
@pytest.mark.parametrize("grid", [0, 10, 50])
def test_errors_by_class_of_any_number_of_bins_are_those_of_numpy(rng, bins, grid) -> None:
    probs = rng.dirichlet(np.full(4, 0.7), 2000)
    if grid:
        # Probabilities on the edges of bins.
        probs = rng.multinomial(
            grid, np.maximum(probs, 1e-3) / np.maximum(probs, 1e-3).sum(1)[:, None]
        )
        probs = probs / grid
    labels = np.array([rng.choice(4, p=p) for p in probs])
    expected = slow_class_errors(probs, labels, bins)
    found = calibcli.evaluate(probs, labels, metrics=tuple(expected), bootstrap=200)
    for name, value in expected.items():
        assert found.values[name] == pytest.approx(value, abs=1e-12)
        low, high = found.intervals[name]
        assert 0 <= low <= high < 0.2
        # Of labels that are drawn from the probabilities the error is one of chance.
        assert found.chances[name].high >= value / 2


def test_a_model_that_is_always_sure_has_no_certain_error() -> None:
    """Of 300 rows that say 1, 63 % are right: errors by class vary as the share of right rows."""
    prediction = np.arange(300) % 4
    labels = np.where(np.arange(300) // 4 % 100 < 47, prediction, (prediction + 1) % 4)
    names = ("class_wise_ece", "top_label_ece")
    found = calibcli.evaluate(np.eye(4)[prediction], labels, metrics=names, bootstrap=200)
    wrong = float((prediction != labels).mean())
    reach = 1.96 * np.sqrt(wrong * (1 - wrong) / 300)
    for name, factor in (("class_wise_ece", 0.5), ("top_label_ece", 1.0)):
        low, high = found.intervals[name]
        assert found.values[name] == pytest.approx(factor * wrong, abs=1e-9)
        assert 0.5 * factor * reach < factor * wrong - low < 2 * factor * reach
        assert 0.5 * factor * reach < high - factor * wrong < 2 * factor * reach


@pytest.mark.parametrize("bins", [1, 2, 3, 10, 15, 49, 100, 107, 999])
def test_rows_at_the_edges_are_in_the_bin_below(bins) -> None:
    edges = edges_of(bins)
    np.testing.assert_array_equal(edges, np.linspace(0, 1, bins + 1))
    inner = edges[1:]
    np.testing.assert_array_equal(bin_index(inner, bins), np.arange(bins))
    np.testing.assert_array_equal(bin_index(edges[:-1] + 1e-13, bins), np.arange(bins))
    assert bin_index(np.zeros(1), bins) == -1


def test_15_bins_by_number_are_the_usual_ones(rng) -> None:
    probs = rng.dirichlet(np.ones(3), 500)
    labels = rng.integers(0, 3, 500)
    usual = ("ece", "mce", "adaptive_ece")
    by_class = ("class_wise_ece", "class_wise_ece_thresholded", "top_label_ece")
    names = [each for name in (*usual, *by_class) for each in (name, f"{name}@15")]
    found = calibcli.evaluate(probs, labels, metrics=names, bootstrap=100)
    for name in (*usual, *by_class):
        assert found.values[name] == found.values[f"{name}@15"]
        assert found.intervals[name] == found.intervals[f"{name}@15"]
        assert found.chances[name] == found.chances[f"{name}@15"]


def test_it_is_a_metric_like_others(calib_here, tmp_path) -> None:
    rng = np.random.default_rng(3)
    confidence = rng.uniform(0.5, 1, 600)
    correct = rng.uniform(size=600) < confidence - 0.2
    write(tmp_path / "t.npz", confidence, correct)
    expected, _ = slow_gaps(confidence, correct, 10)
    asked = ("t.npz", "--metrics", "nll,ece@10")
    found = metrics(calib_here, *asked)["ece@10"]
    assert found["value"] == pytest.approx(expected)
    assert found["low"] < 0.2 < found["high"]
    # What a calibrated model of 600 rows has: about sqrt(2 / pi) times the mean of the bins' noise.
    assert 0.01 < found["chance"]["mean"] < 0.06
    assert calib_here("evaluate", *asked, "--fail-if", "ece@10 > 0.05")[0] == 1
    assert calib_here("evaluate", *asked, "--fail-if", "ece@10 > 0.5")[0] == 0
    code, out, _ = calib_here("evaluate", *asked)
    assert code == 0
    assert "ECE, 10 bins" in out
    for form in ("markdown", "csv", "latex", "github", "junit", "openmetrics"):
        gated = (*asked, "--fail-if", "ece@10 > 0.5", "--format", form)
        assert calib_here("evaluate", *gated)[0] == 0
    assert calib_here("evaluate", *asked, "--format", "json", "--report", "b.html")[0] == 0
    # And a change of it, with an interval.
    code, out, err = calib_here(
        *("fit", "t.npz", "-m", "temperature", "-o", "o.npz", "-p", "p.json", "--format", "json"),
        *("--metrics", "nll,ece@10", "--fail-if", "ece@10.after > 0.5"),
    )
    assert code == 0, err
    assert "ece@10" in out


@pytest.mark.parametrize("name", ["ece@0", "ece@", "ece@1000", "ece@-3", "nll@10", "ece@ten"])
def test_what_is_no_number_of_bins_is_no_metric(name) -> None:
    with pytest.raises(UsageError, match=f"there is no metric '{name}'"):
        METRICS.find(name)


@pytest.mark.parametrize("bins", [1, 2, 7, 10, 15, 16, 50, 999])
def test_the_cells_of_an_interval_end_where_the_bins_do(bins) -> None:
    confidence = np.random.default_rng(bins).uniform(0, 1, 20_000)
    confidence = np.concatenate([confidence, edges_of(bins)[1:], [1.0]])
    bags = ConfidenceBags(Units(10), bins=bins)
    cells = bags.cells_of(confidence)
    assert cells.min() >= 0
    assert cells.max() < bags.size
    np.testing.assert_array_equal(bags.bins_of(cells), bin_index(confidence, bins))


@pytest.mark.parametrize("name", ["ece@{}", "mce@{}", "adaptive_ece@{}", "top_label_ece@{}"])
@pytest.mark.parametrize("bins", [1, 7, 10, 40])
def test_sure_models_have_an_interval_over_any_number_of_bins(name, bins) -> None:
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(600, 5)) * 9
    labels = np.where(rng.random(600) < 0.9, logits.argmax(axis=1), rng.integers(0, 5, 600))
    probs = np.exp(logits - logits.max(axis=1, keepdims=True))
    probs /= probs.sum(axis=1, keepdims=True)
    measured = calibcli.evaluate(probs, labels, metrics=[name.format(bins)], bootstrap=50)
    interval = measured.intervals[name.format(bins)]
    assert 0 <= interval.low < interval.high <= 1
