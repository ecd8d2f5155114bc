"""Low-rank maps: the minimum that SciPy finds, what they can learn, and what they leave alone."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax

import calibcli
from calibcli.arrays import NumpyArray
from calibcli.calibrators.low_rank import LowRank, LowRankMap
from calibcli.errors import ParamsError
from calibcli.params import Params, Stage, decode, encode
from calibcli.workflow.records import to_calibrators


def grouped(rows: int, classes: int, seed: int) -> tuple[NumpyArray, NumpyArray, NumpyArray]:
    """Logits, labels and true log-probabilities, which mix the classes through four directions."""
    rng, fixed = np.random.default_rng(seed), np.random.default_rng(0)
    left = fixed.standard_normal((classes, 4))
    right = np.repeat(np.eye(4), classes // 4, axis=1) / np.sqrt(classes)
    logits = 2 * rng.standard_normal((rows, classes)) + 6 * rng.standard_normal((rows, 4)) @ right
    log_probs = log_softmax(logits, axis=1)
    centred = log_probs - log_probs.mean(axis=1, keepdims=True)
    truth = log_softmax(log_probs + 0.4 * centred @ right.T @ left.T, axis=1)
    return logits, (truth + rng.gumbel(size=truth.shape)).argmax(axis=1), truth


def test_it_is_the_minimum_that_scipy_finds() -> None:
    logits, labels, _ = grouped(400, 4, 1)
    options = {"low-rank.rank": 2, "low-rank.penalty": 7.0}
    found = calibcli.fit(logits, labels, method="low-rank", options=options, folds=0)
    stage = found.outcome.fit.stages[-1]
    family, solution = stage.family, stage.solution
    assert isinstance(family, LowRankMap)
    assert solution is not None
    assert solution.converged
    inputs = logits
    for before in found.stages[:-1]:
        inputs = before.log_probs(inputs)
    inputs = log_softmax(inputs, axis=1)
    features = family.features(inputs)
    np.testing.assert_allclose(features.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(features.T @ features / 400, np.eye(2), atol=1e-9)

    def cost(theta: NumpyArray) -> float:
        scale, bias, left = theta[:4], theta[4:8], theta[8:].reshape(4, 2)
        new = log_softmax(inputs * scale + bias + features @ left.T, axis=1)
        pair = ((scale - 1) ** 2).sum() + (bias**2).sum()
        ridge = 4 / 400 * pair + 7 / 400 * (left**2).sum() / 2
        return float(-new[np.arange(400), labels].mean() + ridge)

    start = np.concatenate((np.ones(4), np.zeros(12)))
    best = minimize(cost, start, method="BFGS", options={"gtol": 1e-9})
    assert cost(solution.theta) == pytest.approx(best.fun, abs=1e-7)


def test_it_learns_what_scales_and_biases_cannot() -> None:
    logits, labels, _ = grouped(4000, 40, 2)
    new_logits, _, truth = grouped(2000, 40, 3)

    def excess(method: str) -> float:
        fitted = calibcli.fit(logits, labels, method=method, folds=0)
        log_probs = np.log(fitted.predict_proba(new_logits))
        return float((np.exp(truth) * (truth - log_probs)).sum(axis=1).mean())

    assert excess("low-rank") < 0.7 * min(excess("svs"), excess("sms"))


def test_few_rows_leave_it_near_to_svs() -> None:
    logits, labels, truth = grouped(120, 40, 4)
    log_probs = {
        method: np.log(calibcli.fit(logits, labels, method=method, folds=0).predict_proba(logits))
        for method in ("svs", "low-rank")
    }
    apart = np.exp(truth) * (log_probs["svs"] - log_probs["low-rank"])
    assert abs(apart.sum(axis=1).mean()) < 0.05


@pytest.mark.parametrize("classes", [2, 3])
def test_rows_without_any_variance_are_no_trouble(classes: int) -> None:
    labels = np.arange(60) % classes
    found = calibcli.fit(np.zeros((60, classes)), labels, method="low-rank", folds=0)
    np.testing.assert_allclose(found.predict_proba(np.zeros((1, classes))), 1 / classes, atol=1e-3)
    content = found.params
    assert to_calibrators(decode(encode(content)))[-1].kind == "low-rank"


def test_a_file_whose_sizes_do_not_match_is_refused() -> None:
    good = LowRank(np.ones(3), np.zeros(3), np.zeros((3, 2)), np.zeros((2, 3))).parameters()
    for name, value in (
        ("left", np.zeros((3, 1))),
        ("right", np.zeros((2, 2))),
        ("right", np.zeros(3)),
        ("right", 1.0),
    ):
        params = Params(3, "logits", (Stage("low-rank", good | {name: value}),))
        with pytest.raises(ParamsError, match=r"has shape|is not an array|must"):
            to_calibrators(params)
