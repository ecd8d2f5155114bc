"""Tests of calibration: known answers, references, and how often they are wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from calibcli.engine.data import open_data
from calibcli.engine.engine import Engine
from calibcli.engine.source import ArraySource
from calibcli.metrics.drawn_labels import DRAWN_BAGS, drawn_labels, picked_sets
from calibcli.metrics.hypothesis_tests import (
    CalibrationTests,
    LogisticRecalibration,
    event_log_odds,
)
from calibcli.metrics.kernel_calibration import KernelFeatures
from calibcli.metrics.view import View
from calibcli.workflow.diagnostics import run_tests
from calibcli.workflow.refit import refit


def rows(count: int, classes: int = 4, temperature: float = 1.0, seed: int = 0):
    rng = np.random.default_rng(seed)
    logits = 2 * rng.standard_normal((count, classes))
    labels = (logits / temperature + rng.gumbel(size=logits.shape)).argmax(axis=1)
    return logits, labels


def results_of(logits, labels, role=None, **more):
    data = open_data(Engine(threads=1), ArraySource(logits, labels, **more))
    return {result.name: result for result in run_tests(data, role=role)}


def judged(*views, count=1000, **more):
    statistic = CalibrationTests(count, **more)
    return {result.name: result for result in finished(statistic, *views)}


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
    found = judged(View(logits, labels))
    assert found["spiegelhalter"].statistic == pytest.approx(z)
    assert abs(found["spiegelhalter_top"].statistic) == pytest.approx(abs(z))


def test_slope_and_intercept_are_those_of_a_logistic_regression() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    logits, labels = rows(2000, classes=2, temperature=1.7)
    odds = (logits[:, 1] - logits[:, 0])[:, None]
    fitted = linear_model.LogisticRegression(C=np.inf, tol=1e-10).fit(odds, labels)
    large, slope = finished(LogisticRecalibration(), View(logits, labels))
    assert slope.value == pytest.approx(fitted.coef_[0, 0], rel=1e-4)
    chance = fitted.predict_proba(odds)[:, 1]
    design = np.hstack((np.ones_like(odds), odds))
    information = design.T @ ((chance * (1 - chance))[:, None] * design)
    assert slope.error == pytest.approx(np.sqrt(np.linalg.inv(information)[1, 1]), rel=0.05)
    assert abs(large.value) < 4 * large.error


@pytest.mark.parametrize("clustered", [False, True])
@pytest.mark.parametrize(("level", "slope"), [(-2.0, 1.0), (1.2, 1.0), (0.0, 0.7), (-2.0, 1.4)])
def test_a_level_that_is_off_does_not_count_against_the_slope(level, slope, clustered) -> None:
    rng = np.random.default_rng(4)
    odds = 2 * rng.standard_normal(6000)
    labels = (rng.random(6000) < 1 / (1 + np.exp(-level - slope * odds))).astype(int)
    keys = {"keys": {"cluster": np.arange(6000)}} if clustered else {}
    view = View(np.stack((0 * odds, odds), axis=1), labels, **keys)
    role = "cluster" if clustered else None
    found = judged(view, count=6000, role=role)
    _, printed = finished(LogisticRecalibration(), view)
    wald = (printed.value - 1) / printed.error
    test = found["slope"]
    assert (test.p < 0.05) == (abs(wald) > 1.96) == (slope != 1)
    assert np.sign(test.statistic) == np.sign(wald)
    if slope == 1:
        assert test.statistic == pytest.approx(wald, abs=0.1)
    assert (found["level_and_slope"].p < 0.05) == ((level, slope) != (0, 1))


def test_the_score_of_the_slope_is_that_of_a_fit_of_the_intercept_alone() -> None:
    logits, labels = rows(700, classes=2, temperature=1.4)
    logits[:, 1] += 0.9
    weights = np.random.default_rng(1).exponential(size=700)
    odds = logits[:, 1] - logits[:, 0]
    from scipy.optimize import brentq

    def residual(level):
        return labels - 1 / (1 + np.exp(-odds - level))

    level = brentq(lambda a: weights @ residual(a), -9, 9)
    chance = labels - residual(level)
    information = weights * chance * (1 - chance)
    score = weights * (odds - information @ odds / information.sum())
    z = score @ residual(level) / np.sqrt(score**2 @ (chance * (1 - chance)))
    assert judged(View(logits, labels, weights))["slope"].statistic == pytest.approx(z, abs=2e-3)


def test_without_two_outcomes_or_two_log_odds_there_is_no_slope_to_test() -> None:
    odds = np.linspace(-3, 3, 300)
    found = judged(View(np.stack((0 * odds, odds), axis=1), np.ones(300, int)))
    assert "no level fits" in found["slope"].note
    assert np.isnan(found["slope"].p)
    assert found["combined"].p < 0.01
    found = judged(View(np.tile([0.0, 0.5], (300, 1)), np.arange(300) % 2))
    assert "same log-odds" in found["slope"].note
    assert "same log-odds" in found["level_and_slope"].note


def test_the_smallest_p_is_shown_as_a_p(calib, sample_data: Path) -> None:
    command = ("evaluate", sample_data / "digits_test.parquet", "--tests", "-q", "--format")
    (line,) = (
        line
        for line in calib(*command, "table").stdout.decode().splitlines()
        if line.startswith("all of them together")
    )
    assert "smallest p < 0.0001" in line
    combined = json.loads(calib(*command, "json").stdout)["tests"][-1]
    assert combined["smallest_of"] == 8
    assert 0 < combined["statistic"] < 1e-50


def test_the_log_odds_of_many_classes_keep_small_probabilities_of_being_wrong() -> None:
    logits = np.zeros((2, 3), np.float32)
    logits[:, 0] = 25
    view = View(logits, np.array([0, 0]))
    _, slope = finished(LogisticRecalibration(), view)
    assert slope is None
    assert event_log_odds(view)[0] == pytest.approx(25 - np.log(2), abs=1e-4)


def test_the_scores_are_derivatives_of_the_log_likelihood() -> None:
    torch = pytest.importorskip("torch")
    logits, labels = rows(400, classes=3, temperature=1.3)
    logs = torch.log_softmax(torch.tensor(logits), dim=1)
    parameters = {
        "temperature": torch.zeros(1, dtype=torch.float64, requires_grad=True),
        "scale": torch.ones(3, dtype=torch.float64, requires_grad=True),
        "bias": torch.zeros(3, dtype=torch.float64, requires_grad=True),
    }
    mapped = logs * parameters["scale"] * torch.exp(-parameters["temperature"]) + parameters["bias"]
    mapped = torch.log_softmax(mapped, dim=1)
    likelihood = mapped[torch.arange(400), torch.tensor(labels)].sum()
    gradient = dict(
        zip(parameters, torch.autograd.grad(likelihood, list(parameters.values())), strict=True)
    )
    sums = CalibrationTests(400).partial(View(logits, labels))
    assert -sums.single[0, :, 4].sum() == pytest.approx(float(gradient["temperature"]))
    totals = sums.classes[0].sum(axis=0)
    assert totals[:, 0] == pytest.approx(gradient["bias"].numpy())
    assert totals[:, 1] == pytest.approx(gradient["scale"].numpy())
    # The expected square of the temperature's score is the information, minus its second
    # derivative at a calibrated model.
    probs = logs.exp()
    variance = (probs * logs**2).sum(1) - (probs * logs).sum(1) ** 2
    assert sums.spread[5] == pytest.approx(float(variance.sum()))


def test_drawn_labels_follow_the_probabilities_and_not_the_blocks() -> None:
    logits, labels = rows(400, classes=5)
    sets = list(drawn_labels(View(logits, labels), seed=1, sets=200))
    shares = np.stack([np.mean([each == k for each in sets], axis=0) for k in range(5)], axis=1)
    probs = View(logits, labels).probs
    # 2,000 shares, each of 200 draws: the largest of the normal deviations is about 3.5.
    usual = (probs > 0.05) & (probs < 0.95)
    z = ((shares - probs) / np.sqrt(probs * (1 - probs) / 200))[usual]
    assert np.abs(z).max() < 5
    assert np.mean(z**2) == pytest.approx(1, abs=0.2)
    cut = [
        list(drawn_labels(View(logits[a:b], labels[a:b], start=a), seed=1, sets=200))
        for a, b in CUTS
    ]
    for index in range(2):
        assert np.concatenate([part[index] for part in cut]).tolist() == sets[index].tolist()


CUTS = ((0, 1), (1, 250), (250, 400))


def test_impossible_classes_are_never_drawn() -> None:
    logits = np.array([[-np.inf, 0, -np.inf], [0, -np.inf, 0], [-np.inf, -np.inf, 3]])
    for each in drawn_labels(View(logits, np.array([1, 0, 2])), seed=0, sets=300):
        assert each[0] == 1
        assert each[1] != 1
        assert each[2] == 2


def test_a_replicate_takes_one_set_for_each_bag() -> None:
    picked = picked_sets(8, 50, seed=3).reshape(50, 8, DRAWN_BAGS)
    assert (picked.sum(axis=1) == 1).all()
    assert len({tuple(each.ravel()) for each in picked}) == 50


def test_few_errors_and_few_clusters_have_no_p() -> None:
    logits, labels = rows(30, classes=3)
    found = results_of(logits, labels)
    assert all("too few errors" in result.note for result in found.values())
    assert all(np.isnan(result.p) for result in found.values())
    logits, labels = rows(900, classes=3)
    clusters = {"cluster": np.arange(900) % 10}
    view = View(logits, labels, keys=clusters)
    assert "too few clusters" in judged(view, role="cluster")["combined"].note


def test_weights_of_the_same_size_change_no_p() -> None:
    logits, labels = rows(500, temperature=1.2)
    found = results_of(logits, labels, weights=np.full(500, 2.0))
    plain = results_of(logits, labels)
    for name, result in plain.items():
        assert found[name].p == pytest.approx(result.p), name


def test_tests_do_not_depend_on_the_blocks() -> None:
    logits, labels = rows(900, classes=40)
    parts = [View(logits[a:b], labels[a:b], start=a) for a, b in ((0, 1), (1, 500), (500, 900))]
    one, other = judged(View(logits, labels)), judged(*parts)
    for name, result in one.items():
        assert result.statistic == pytest.approx(other[name].statistic, nan_ok=True)
        assert result.p == pytest.approx(other[name].p, abs=0.002), name


def test_the_kernel_estimate_is_the_mean_over_pairs_of_different_bags() -> None:
    logits, labels = rows(60, classes=3)
    view = View(logits, labels)
    projection, frequencies, phases = KernelFeatures(0).draw(3)
    residuals = projection[labels] - view.probs
    features = np.sqrt(2 / 32) * np.cos(view.probs @ frequencies + phases)
    products = (residuals @ residuals.T) * (features @ features.T)
    from calibcli.arrays import hashed

    bags = hashed(np.arange(60), 0, DRAWN_BAGS)
    apart = bags[:, None] != bags
    expected = products[apart].sum() / apart.sum()
    assert judged(view)["skce"].estimate == pytest.approx(expected)
    # Random features stand for a Gaussian kernel.
    distance = np.linalg.norm(view.probs[:, None] - view.probs, axis=2)
    many = np.exp(-(distance**2) / (2 * 0.5**2))
    assert np.abs(features @ features.T - many).mean() < 0.2


def sure(count: int, seed: int):
    """Calibrated rows of ten classes, 96 % of them right."""
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((count, 10))
    logits[np.arange(count), rng.integers(0, 10, count)] += 8 + 2 * rng.standard_normal(count)
    return logits, (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "draw", [lambda seed: rows(300, 2, 1.0, seed), lambda seed: sure(700, seed)]
)
def test_a_calibrated_model_is_seldom_rejected(draw) -> None:
    p = np.array([[r.p for r in judged(View(*draw(seed))).values()] for seed in range(80)])
    # 13 or more of 80 where 4 are expected happen once in 10,000.
    assert ((p < 0.05).sum(axis=0) < 13).all()
    # And p is not always large: half of them are below a half.
    assert (np.abs((p < 0.5).sum(axis=0) - 40) < 20).all()


@pytest.mark.parametrize("classes", [2, 5])
def test_an_overconfident_model_is_rejected(classes: int) -> None:
    p = np.array([[r.p for r in results_of(*rows(3000, classes, 1.6, s)).values()] for s in (0, 1)])
    # All but calibration in the large, which two classes that are alike have anyway.
    assert (p.max(axis=0) < 0.01).sum() >= 7 - (classes == 2)
    assert (p[:, -1] < 0.01).all()


def test_clusters_that_go_together_are_not_mistaken_for_miscalibration() -> None:
    rejected = {"cluster": 0, None: 0}
    for seed in range(20):
        rng = np.random.default_rng(seed)
        logits = np.repeat(2 * rng.standard_normal((60, 2)), 20, axis=0)
        labels = (logits + np.repeat(rng.gumbel(size=(60, 2)), 20, axis=0)).argmax(axis=1)
        view = View(logits, labels, keys={"cluster": np.repeat(np.arange(60), 20)})
        for role in rejected:
            rejected[role] += judged(view, count=1200, role=role)["combined"].p < 0.05
    assert rejected["cluster"] < 6
    assert rejected[None] > 10


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
    assert names[-2:] == ["skce", "combined"]
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


def test_they_are_about_the_positive_class_that_was_named() -> None:
    logits, labels = rows(400, classes=2, temperature=1.5)
    logits[:, 1] += 0.7
    data = open_data(Engine(threads=1), ArraySource(logits, labels))
    usual, other, top = (
        {result.name: result for result in run_tests(data, event=event)} for event in (1, 0, "top")
    )
    assert other["in_the_large"].statistic == pytest.approx(-usual["in_the_large"].statistic)
    assert other["in_the_large"].estimate == pytest.approx(-usual["in_the_large"].estimate)
    assert other["slope"].estimate == pytest.approx(usual["slope"].estimate)
    right = logits.argmax(axis=1) == labels
    size = np.abs(logits[:, 1] - logits[:, 0])
    expected = LogisticRecalibration().finish(
        LogisticRecalibration().partial(
            View(np.stack((np.zeros_like(size), size), axis=1), right.astype(int))
        )
    )
    assert top["in_the_large"].estimate == pytest.approx(expected[0].value, abs=1e-4)
    assert top["slope"].estimate == pytest.approx(expected[1].value, abs=1e-4)
