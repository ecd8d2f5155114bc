"""What theory says of data with a known truth, by simulation with fixed seeds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import optimize

from calibcli.metrics.confidence import ConfidenceCurve, curve_of_cells
from calibcli.metrics.equal_mass import equal_mass_bins
from calibcli.metrics.registry import METRICS

Array = np.ndarray[Any, Any]

CONFIDENCE_METRICS = [
    name
    for name, metric in METRICS.items()
    if metric.statistic == METRICS["ks"].statistic and metric.group == "calibration errors"
]


def draw(
    rng: np.random.Generator, rows: int, truth: Callable[[Array], Array] = np.asarray
) -> ConfidenceCurve:
    """Confidences spread over (0.4, 1), right with the probability that truth gives them."""
    confidence = np.sort(0.4 + 0.6 * rng.random(rows))
    correct = (rng.random(rows) < truth(confidence)) * 1.0
    return curve_of_cells(np.ones(rows), confidence, correct)


def value(name: str, curve: ConfidenceCurve) -> float:
    return METRICS[name].value(curve)


def test_debiased_error_of_calibrated_data_is_zero_on_average() -> None:
    rng = np.random.default_rng(1)
    curves = [draw(rng, 300) for _ in range(1500)]
    debiased = np.array([value("l2_squared_debiased", curve) for curve in curves])
    deviation = debiased.std() / np.sqrt(len(debiased))
    assert abs(debiased.mean()) < 3 * deviation
    # The same without the correction is far from it, so a wrong one would show.
    plain = [
        (bins.excess**2 / bins.weight).sum() / 300
        for bins in (equal_mass_bins(curve, 15) for curve in curves)
    ]
    assert np.mean(plain) > 40 * deviation


def test_debiased_error_of_miscalibrated_data_is_the_true_one() -> None:
    """Up to what 15 bins cannot see: a truth as straight as this one leaves little."""
    rng = np.random.default_rng(2)
    true = 0.6**2 * np.mean((0.4 + 0.6 * np.linspace(0, 1, 10_001) - 0.7) ** 2)
    found = [
        value("l2_squared_debiased", draw(rng, 1000, lambda c: 0.7 + 0.4 * (c - 0.7)))
        for _ in range(300)
    ]
    assert np.mean(found) == pytest.approx(true, abs=4 * np.std(found) / np.sqrt(300))


@pytest.mark.parametrize("name", CONFIDENCE_METRICS)
def test_errors_of_calibrated_data_vanish_with_the_rows(name: str) -> None:
    rng = np.random.default_rng(3)
    right = {"expected_observed": 1.0, "slope": 1.0}.get(name, 0.0)
    few, many = (abs(value(name, draw(rng, rows)) - right) for rows in (400, 400_000))
    # The standard error of the slope is larger.
    assert many < {"slope": 0.02}.get(name, 0.006)
    assert many < few


@pytest.mark.parametrize("name", CONFIDENCE_METRICS)
def test_errors_of_overconfident_data_are_the_true_ones(name: str) -> None:
    """Wrong in one direction: an error is a mean of the same gaps, their squares, or a quantile."""
    rng = np.random.default_rng(4)
    curve = draw(rng, 400_000, lambda c: c**2)
    grid = 0.4 + 0.6 * (np.arange(10_000) + 0.5) / 10_000
    gaps = grid - grid**2
    odds, truth = np.log(grid / (1 - grid)), grid**2

    def coefficients(design: Array, offset: Array) -> Array:
        """Where the likelihood of the truth is largest."""

        def score(theta: Array) -> Array:
            return design.T @ (truth - 1 / (1 + np.exp(-design @ theta - offset))) / len(grid)

        theta: Array = optimize.root(score, np.zeros(design.shape[1]), tol=1e-10).x
        return theta

    one = np.ones_like(grid)
    true = {
        "l2_debiased": np.sqrt(np.mean(gaps**2)),
        "l2_squared_debiased": np.mean(gaps**2),
        "e50": np.median(gaps),
        "e90": np.quantile(gaps, 0.9),
        "expected_observed": grid.mean() / truth.mean(),
        "in_the_large": coefficients(one[:, None], odds)[0],
        "slope": coefficients(np.stack((one, odds), axis=1), 0 * one)[1],
    }
    # Those are no means of gaps; chance moves log-odds and ratios more.
    close = {"slope": 0.015, "in_the_large": 0.012, "expected_observed": 0.006}.get(name, 0.003)
    assert value(name, curve) == pytest.approx(true.get(name, gaps.mean()), abs=close)


def test_errors_that_cancel_are_seen_by_what_looks_locally() -> None:
    """Too sure above 0.7, not sure enough below: the mean gap is 0, the range is not."""
    rng = np.random.default_rng(5)
    curve = draw(rng, 400_000, lambda c: 0.7 + 0.5 * (c - 0.7))
    gap = 0.5 * 0.15  # the mean of |confidence - truth|
    for name in ("adaptive_ece", "ece_sweep"):
        assert value(name, curve) == pytest.approx(gap, abs=0.003)
    # Each side has half of the rows.
    for name in ("ks", "ecce_r"):
        assert value(name, curve) == pytest.approx(gap / 2, abs=0.003)
    # It smooths over 0.06 either side of where the sign changes.
    assert gap * 0.85 < value("smooth_ece", curve) < gap


def test_decomposition_finds_the_truth() -> None:
    rng = np.random.default_rng(6)
    curve = draw(rng, 400_000, lambda c: c**2)
    grid = 0.4 + 0.6 * (np.arange(10_000) + 0.5) / 10_000
    truth = grid**2
    parts = [
        value(f"corp_top_{part}", curve)
        for part in ("miscalibration", "discrimination", "uncertainty")
    ]
    expected = [np.mean((grid - truth) ** 2), truth.var(), truth.mean() * (1 - truth.mean())]
    assert parts == pytest.approx(expected, abs=0.002)


def test_ranking_is_blind_to_calibration_and_right() -> None:
    rng = np.random.default_rng(7)
    curve = draw(rng, 200_000)
    squared = ConfidenceCurve(curve.confidence**2, curve.weight, curve.correct)
    for name in ("auroc", "aurc"):
        assert value(name, squared) == value(name, curve)
    grid = 0.4 + 0.6 * (np.arange(2000) + 0.5) / 2000
    above = grid[:, None] > grid
    pairs = (grid[:, None] * (1 - grid) * above).sum() / (grid.sum() * (1 - grid).sum())
    assert value("auroc", curve) == pytest.approx(pairs, abs=0.003)
    # The share of errors among the most confident: the mean of 1 - c from a confidence upwards.
    risks = np.cumsum(1 - grid[::-1]) / np.arange(1, 2001)
    assert value("aurc", curve) == pytest.approx(risks.mean(), abs=0.003)
