"""A temperature with a fitted focal link: derivatives, order, known truth, figures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

import calibcli
from calibcli.calibrators.focal_temperature import (
    LEAST_GAMMA,
    FocalTemperature,
    FocalTemperatureMap,
)
from calibcli.calibrators.temperature import Temperature
from calibcli.errors import UsageError

each_sign = pytest.mark.parametrize("gamma", [-3.0, -1.5, 0.0, 4.0])


def rows(count: int, classes: int = 5, seed: int = 0):
    random = np.random.default_rng(seed)
    return 2 * random.standard_normal((count, classes)), random.integers(0, classes, count)


def torch_logits(theta: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """The formula, written once more."""
    probs = torch.softmax(logits * torch.exp(-theta[0]), dim=-1)
    return torch.log(probs * (1 + probs) ** (theta[1] ** 2 - 3))


@each_sign
def test_derivatives_are_those_of_autograd(gamma: float) -> None:
    logits, labels = rows(40)
    theta = np.array([0.4, np.sqrt(gamma - LEAST_GAMMA)])
    family = FocalTemperatureMap()
    expansion = family.expansion()
    weights = np.linspace(0.5, 2.0, 40)
    sums = expansion.partial(theta, logits, labels, weights)
    value, gradient, hessian = expansion.derivatives(theta, sums)

    def loss(point: torch.Tensor) -> torch.Tensor:
        log_probs = torch.log_softmax(torch_logits(point, torch.tensor(logits)), dim=-1)
        return -(torch.tensor(weights) * log_probs[torch.arange(40), torch.tensor(labels)]).sum()

    point = torch.tensor(theta, requires_grad=True)
    assert value == pytest.approx(loss(point).item(), rel=1e-12)
    (expected,) = torch.autograd.grad(loss(point), point)
    np.testing.assert_allclose(gradient, expected, atol=1e-10)
    bends = torch.autograd.functional.hessian(loss, torch.tensor(theta))
    np.testing.assert_allclose(hessian, bends, atol=1e-9)
    flow = np.random.default_rng(1).standard_normal(logits.shape)
    # What all classes of a row share is nothing to a loss.
    flow -= flow.mean(axis=1, keepdims=True)
    total = (torch_logits(point, torch.tensor(logits)) * torch.tensor(flow)).sum()
    (expected,) = torch.autograd.grad(total, point)
    np.testing.assert_allclose(family.pullback(theta, logits, flow), expected, atol=1e-9)


@pytest.mark.parametrize(
    ("gamma", "classes"), [(-2.5, 4), (-1.0, 2), (1.5, 3)], ids=["-2.5", "-1", "1.5"]
)
def test_the_truth_is_found(gamma: float, classes: int) -> None:
    truth = FocalTemperature(2.0, gamma)
    logits = 4 * np.random.default_rng(2).standard_normal((60_000, classes))
    noise = np.random.default_rng(3).gumbel(size=logits.shape)
    labels = (truth.log_probs(logits) + noise).argmax(axis=1)
    (stage,) = calibcli.fit(logits, labels, method="focal-temperature", folds=0).stages
    plain = calibcli.fit(logits, labels, method="temperature", folds=0).stages[0]
    error, other = (
        np.abs(each.probs(logits) - truth.probs(logits)).mean() for each in (stage, plain)
    )
    assert error < 0.003
    assert error < other / 2.5


@pytest.mark.parametrize("count", [60, 2000])
def test_it_is_the_optimum_of_its_objective(count: int) -> None:
    logits, _ = rows(count, classes=3)
    noise = np.random.default_rng(4).gumbel(size=logits.shape)
    labels = (FocalTemperature(1.5, -2.0).log_probs(logits) + noise).argmax(axis=1)
    fitted = calibcli.fit(logits, labels, method="focal-temperature", folds=0)

    def objective(theta) -> float:
        gamma = theta[1] ** 2 - 3
        log_probs = FocalTemperature(np.exp(theta[0]), gamma).log_probs(logits)
        nll = -log_probs[np.arange(count), labels].mean()
        return float(nll + (theta[1] - np.sqrt(3)) ** 2 / count)

    options = {"xatol": 1e-9, "fatol": 1e-14}
    best = minimize(objective, [0.0, 1.5], method="Nelder-Mead", options=options)
    (stage,) = fitted.stages
    found = [np.log(stage.temperature), np.sqrt(stage.gamma + 3)]
    assert objective(found) == pytest.approx(best.fun, abs=1e-10)
    assert fitted.outcome.fit.converged


@given(
    st.lists(st.floats(-30, 30), min_size=2, max_size=6),
    st.floats(LEAST_GAMMA, 20),
    st.floats(0.2, 5),
)
def test_no_class_overtakes_another(row: list[float], gamma: float, temperature: float) -> None:
    logits = np.array([row])
    mapped = FocalTemperature(temperature, gamma).logits(logits)
    order = np.argsort(logits, axis=1)
    assert (np.diff(np.take_along_axis(mapped, order, axis=1)) >= -1e-9).all()


def test_below_the_least_gamma_a_class_would() -> None:
    shares = np.array([0.51, 0.49])
    powered = shares * (1 + shares) ** -3.2
    assert powered[0] < powered[1]


def test_without_gamma_it_is_a_temperature() -> None:
    logits, _ = rows(20)
    probs = FocalTemperature(1.7, 0.0).probs(logits)
    np.testing.assert_allclose(probs, Temperature(1.7).probs(logits), rtol=1e-12)


@pytest.mark.parametrize("loss", ["brier", "focal", "class-wise", "cals"])
def test_every_loss_can_be_minimised(loss: str) -> None:
    logits, _ = rows(1500, classes=3)
    labels = (logits / 2 + np.random.default_rng(5).gumbel(size=logits.shape)).argmax(axis=1)
    fitted = calibcli.fit(logits, labels, method="focal-temperature", loss=loss, folds=0)
    assert np.isfinite(fitted.predict_proba(logits)).all()
    assert fitted.stages[0].temperature > 1


def test_a_penalty_holds_gamma() -> None:
    logits, labels = rows(300)
    stages = [
        calibcli.fit(logits, labels, method="focal-temperature", folds=0, options=options).stages
        for options in ({}, {"focal-temperature.penalty": 1e6})
    ]
    assert abs(stages[1][0].gamma) < 1e-3 < abs(stages[0][0].gamma)
    with pytest.raises(UsageError, match="penalty"):
        calibcli.fit(
            logits, labels, method="focal-temperature", options={"focal-temperature.penalty": -1}
        )


@pytest.mark.parametrize(
    ("name", "temperature", "expected"),
    [
        ("dfph_cifar100_wide_resnet_brier", 0.8464, 0.8019),
        ("psr_resnet50_cifar10", 0.4473, 0.4411),
    ],
)
def test_on_stored_scores_it_is_better_than_a_temperature(
    shared_data, name: str, temperature: float, expected: float
) -> None:
    folder = shared_data / "data" / name
    val, test = np.load(folder / "val.npz"), np.load(folder / "test.npz")
    for method, figure in (("temperature", temperature), ("focal-temperature", expected)):
        fitted = calibcli.fit(val["logits"], val["labels"], method=method, folds=0)
        values = calibcli.evaluate(fitted.predict_proba(test["logits"]), test["labels"]).values
        assert values["nll"] == pytest.approx(figure, abs=6e-5)
