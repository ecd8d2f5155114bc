"""Tests of calibration: known answers, references, and how often they are wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from calibcli.engine.data import open_data
from calibcli.engine.engine import Engine
from calibcli.engine.source import ArraySource
from calibcli.metrics.hypothesis_tests import LogisticRecalibration, Spiegelhalter
from calibcli.metrics.kernel_calibration import KernelTest
from calibcli.metrics.view import View
from calibcli.workflow.refit import refit
from calibcli.workflow.testing import run_tests


def rows(count: int, classes: int = 4, temperature: float = 1.0, seed: int = 0):
    rng = np.random.default_rng(seed)
    logits = 2 * rng.standard_normal((count, classes))
    labels = (logits / temperature + rng.gumbel(size=logits.shape)).argmax(axis=1)
    return logits, labels


def results_of(logits, labels, **more):
    data = open_data(Engine(threads=1), ArraySource(logits, labels, **more))
    return {result.name: result for result in run_tests(data)}


def finished(statistic, *parts):
    states = [statistic.partial(part) for part in parts]
    merged = states[0]
    for state in states[1:]:
        merged = statistic.merge(merged, state)
    return statistic.finish(merged)


def test_spiegelhalter_is_the_published_formula_for_two_classes() -> None:
    logits, labels = rows(300, classes=2, temperature=1.5)
    p = 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))
    z = ((labels - p) * (1 - 2 * p)).sum() / np.sqrt(((1 - 2 * p) ** 2 * p * (1 - p)).sum())
    top, full = finished(Spiegelhalter(), View(logits, labels))
    assert full.statistic == pytest.approx(z)
    assert top.statistic == pytest.approx(z)
    stats = pytest.importorskip("scipy.stats")
    assert full.p == pytest.approx(2 * stats.norm.sf(abs(z)))


def test_slope_and_intercept_are_those_of_a_logistic_regression() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    logits, labels = rows(2000, classes=2, temperature=1.7)
    odds = (logits[:, 1] - logits[:, 0])[:, None]
    fitted = linear_model.LogisticRegression(C=np.inf, tol=1e-10).fit(odds, labels)
    large, slope = finished(LogisticRecalibration(), View(logits, labels))
    assert slope.estimate == pytest.approx(fitted.coef_[0, 0], rel=1e-4)
    chance = fitted.predict_proba(odds)[:, 1]
    design = np.hstack((np.ones_like(odds), odds))
    information = design.T @ ((chance * (1 - chance))[:, None] * design)
    assert slope.error == pytest.approx(np.sqrt(np.linalg.inv(information)[1, 1]), rel=0.05)
    assert slope.p < 1e-6
    assert abs(large.estimate) < 4 * large.error


def test_the_log_odds_of_many_classes_keep_small_probabilities_of_being_wrong() -> None:
    logits = np.zeros((2, 3), np.float32)
    logits[:, 0] = 25
    _, slope = finished(LogisticRecalibration(), View(logits, np.array([0, 0])))
    assert slope.note
    state = LogisticRecalibration().partial(View(logits, np.array([0, 0])))
    assert state[1].sum() / state[0].sum() == pytest.approx(25 - np.log(2), abs=1e-4)


def test_likelihood_ratios_have_their_degrees_of_freedom() -> None:
    found = results_of(*rows(2000, classes=3, temperature=1.4))
    temperature = found["likelihood_ratio_temperature"]
    vector = found["likelihood_ratio_vector"]
    assert (temperature.degrees, vector.degrees) == (1, 5)
    assert 0 < temperature.statistic < vector.statistic
    stats = pytest.importorskip("scipy.stats")
    assert vector.p == pytest.approx(stats.chi2.sf(vector.statistic, 5))
    few = results_of(*rows(40, classes=3))["likelihood_ratio_vector"]
    assert "rows" in few.note
    assert np.isnan(few.p)


def test_weights_are_refused_where_they_have_no_likelihood() -> None:
    logits, labels = rows(500)
    found = results_of(logits, labels, weights=np.full(500, 2.0))
    plain = results_of(logits, labels)
    assert "weights" in found["likelihood_ratio_temperature"].note
    for name in ("spiegelhalter", "slope", "in_the_large", "skce"):
        assert found[name].p == pytest.approx(plain[name].p), name


def test_tests_do_not_depend_on_the_blocks() -> None:
    logits, labels = rows(900, classes=70)
    parts = [View(logits[a:b], labels[a:b], start=a) for a, b in ((0, 1), (1, 500), (500, 900))]
    whole = View(logits, labels)
    for statistic in (Spiegelhalter(), LogisticRecalibration(), KernelTest(3)):
        one, other = finished(statistic, whole), finished(statistic, *parts)
        pairs = [(one, other)] if hasattr(one, "p") else zip(one, other, strict=True)
        for left, right in pairs:
            assert left.p == pytest.approx(right.p, rel=1e-6)


def test_the_kernel_estimate_is_the_mean_over_pairs_of_different_bags() -> None:
    logits, labels = rows(60, classes=3)
    view, test = View(logits, labels), KernelTest()
    projection, frequencies, phases = test._features(3)
    residuals = projection[labels] - view.probs
    features = np.sqrt(2 / 64) * np.cos(view.probs @ frequencies + phases)
    products = (residuals @ residuals.T) * (features @ features.T)
    from calibcli.arrays import hashed

    bags = hashed(np.arange(60), 0, 64)
    apart = bags[:, None] != bags
    assert finished(test, view).estimate == pytest.approx(products[apart].sum() / apart.sum())
    # Random features stand for a Gaussian kernel.
    distance = np.linalg.norm(view.probs[:, None] - view.probs, axis=2)
    many = np.exp(-(distance**2) / (2 * 0.5**2))
    assert np.abs(features @ features.T - many).mean() < 0.15


@pytest.mark.parametrize("classes", [2, 5])
def test_a_calibrated_model_is_seldom_rejected_and_another_one_is(classes: int) -> None:
    calibrated, other = [], []
    for seed in range(60):
        calibrated.append([r.p for r in results_of(*rows(500, classes, 1.0, seed)).values()])
        if seed < 5:
            other.append([r.p for r in results_of(*rows(3000, classes, 1.6, seed)).values()])
    # 12 or more of 60 where 3 are expected happen once in 40,000.
    assert ((np.array(calibrated) < 0.05).sum(axis=0) < 12).all()
    assert (np.median(other, axis=0) < 0.01).sum() >= 6 - (classes == 2)


def test_refit_divides_the_score() -> None:
    logits, labels = rows(2000, temperature=2.0)
    data = open_data(Engine(threads=1), ArraySource(logits, labels), folds=5)
    found = refit(data, "temperature", None)
    for part in found.parts.values():
        assert part.score == pytest.approx(part.calibration + part.refinement)
        assert part.calibration > 0
    calibrated = open_data(Engine(threads=1), ArraySource(logits / 2, labels), folds=5)
    again = refit(calibrated, "temperature", None).parts["nll"]
    assert abs(again.calibration) < 0.02 * found.parts["nll"].calibration
    assert again.refinement == pytest.approx(found.parts["nll"].refinement, abs=1e-3)


def test_the_command_line(calib, sample_data: Path) -> None:
    done = calib(
        "evaluate",
        sample_data / "digits_test.parquet",
        "--tests",
        "--refit",
        "temperature",
        "--format",
        "json",
        "-q",
    )
    document = json.loads(done.stdout)
    names = [test["name"] for test in document["tests"]]
    assert names[:2] == ["spiegelhalter_top", "spiegelhalter"]
    assert "skce" in names
    parts = document["refit"]["scores"]["nll"]
    calibration = parts["calibration"]
    assert parts["value"] == pytest.approx(calibration["value"] + parts["refinement"])
    assert calibration["low"] < calibration["value"] < calibration["high"]
    for how in ("table", "markdown"):
        text = calib(
            "evaluate",
            sample_data / "digits_test.parquet",
            "--tests",
            "--refit",
            "temperature",
            "--format",
            how,
            "-q",
        ).stdout.decode()
        assert "calibration slope" in text
        assert "refinement" in text
