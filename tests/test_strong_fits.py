"""The strongest maps: structured affine ones and the shared monotone one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression

import calibcli
from calibcli.calibrators.curved import CurvedVectorMap
from calibcli.calibrators.identity import Identity
from calibcli.calibrators.laplace import LaplaceMixture
from calibcli.calibrators.monotone import Monotone
from calibcli.calibrators.piecewise import piecewise_linear
from calibcli.calibrators.registry import read_calibrator
from calibcli.engine.data import open_data
from calibcli.engine.engine import Engine
from calibcli.engine.source import ArraySource
from calibcli.errors import ParamsError
from calibcli.fitting.problem import Problem, sample_log_probs
from calibcli.objectives.nll import NegativeLogLikelihood
from calibcli.workflow.fitted_plans import fit_plan
from calibcli.workflow.plans import make_plan


def fit(logits, labels, **options):
    return calibcli.fit(logits, labels, folds=0, **options)


def nll(log_probs, labels) -> float:
    return float(-log_probs[np.arange(len(labels)), labels].mean())


def bent(rows: int, classes: int, seed: int = 0):
    """Strongly peaked logits whose true log-probabilities bend: the large ones are too large."""
    rng = np.random.default_rng(seed)
    logits = 4 * rng.standard_normal((rows, classes)).astype(np.float32)
    log_probs = log_softmax(logits.astype(np.float64), axis=1)
    truth = log_softmax(np.where(log_probs > -4, 0.3 * (log_probs + 4), log_probs + 4), axis=1)
    labels = (truth + rng.gumbel(size=truth.shape)).argmax(axis=1)
    return logits, labels, truth


@pytest.mark.parametrize(
    ("method", "expected"), [("temperature", 0.2251), ("svs", 0.2222), ("sms", 0.2206)]
)
def test_published_losses(shared_data, method: str, expected: float) -> None:
    folder = shared_data / "data" / "nncal_densenet40_cifar10"
    val, test = np.load(folder / "val.npz"), np.load(folder / "test.npz")
    found = fit(val["logits"], val["labels"], method=method)
    values = calibcli.evaluate(found.predict_proba(test["logits"]), test["labels"]).values
    assert values["nll"] == pytest.approx(expected, abs=6e-5)


@pytest.mark.parametrize("method", ["svs", "sms"])
def test_structured_maps_are_the_optimum_of_their_objective(method: str) -> None:
    logits, labels, _ = bent(300, 3)
    found = fit(logits, labels, method=method)
    temperature, laplace, last = found.stages
    assert laplace == LaplaceMixture(1 / 301)
    inputs = laplace.log_probs(temperature.log_probs(logits.astype(np.float64)))
    small, large = 3 / 300, 3 * 2 / 300

    def objective(theta):
        matrix, bias = theta[:9].reshape(3, 3), theta[9:]
        off = matrix - np.diag(np.diag(matrix))
        penalty = small * ((np.diag(matrix) - 1) ** 2).sum() + small * (bias**2).sum()
        return (
            nll(log_softmax(inputs @ matrix.T + bias, axis=1), labels)
            + penalty
            + (large * (off**2).sum() if method == "sms" else 1e6 * (off**2).sum())
        )

    best = minimize(objective, np.concatenate((np.eye(3).ravel(), np.zeros(3))), tol=1e-10)
    ours = found.outcome.fit.stages[-1].solution
    assert ours.converged
    assert ours.value == pytest.approx(best.fun, rel=1e-6)
    assert last.kind == ("matrix" if method == "sms" else "vector")


class TestMonotone:
    def test_it_follows_a_map_that_bends_at_many_classes(self) -> None:
        logits, labels, _ = bent(4000, 1000)
        monotone = fit(logits, labels, method="monotone")
        assert monotone.outcome.fit.converged
        fresh, fresh_labels, fresh_truth = bent(2000, 1000, seed=1)
        losses = {
            method: nll(np.log(found.predict_proba(fresh)), fresh_labels)
            for method, found in {
                "monotone": monotone,
                "temperature": fit(logits, labels),
            }.items()
        }
        best = nll(fresh_truth, fresh_labels)
        assert losses["monotone"] - best < 0.3 * (losses["temperature"] - best)

    def test_it_is_a_temperature_where_that_is_true(self) -> None:
        rng = np.random.default_rng(0)
        logits = 3 * rng.standard_normal((20_000, 5))
        labels = (logits / 2 + rng.gumbel(size=logits.shape)).argmax(axis=1)
        slopes = fit(logits, labels, method="monotone").stages[0].slopes
        np.testing.assert_allclose(slopes, 0.5, atol=0.12)

    def test_its_optimum_is_that_of_scipy(self) -> None:
        logits, labels, _ = bent(500, 4)
        found = fit(logits, labels, method="monotone")
        (map_,) = found.stages
        inputs = log_softmax(logits.astype(np.float64), axis=1)

        def objective(slopes):
            log_probs = log_softmax(piecewise_linear(map_.knots, slopes, inputs), axis=1)
            return nll(log_probs, labels) + 20 * (np.diff(slopes) ** 2).sum() / 500

        best = minimize(
            objective,
            np.full(len(map_.slopes), 0.5),
            bounds=[(0, None)] * len(map_.slopes),
            options={"ftol": 1e-14, "gtol": 1e-9},
        )
        assert found.outcome.fit.stages[0].solution.value <= best.fun + 1e-8

    @pytest.mark.parametrize("name", ["dfph_cifar100_densenet121_brier"])
    def test_it_wins_by_far_where_the_true_map_bends(self, shared_data, name: str) -> None:
        folder = shared_data / "data" / name
        val, test = np.load(folder / "val.npz"), np.load(folder / "test.npz")
        losses = {}
        for method in ("temperature", "monotone", "monotone,svs"):
            probs = fit(val["logits"], val["labels"], method=method).predict_proba(test["logits"])
            losses[method] = calibcli.evaluate(probs, test["labels"]).values["nll"]
        assert losses["monotone"] < losses["temperature"] - 0.04
        assert losses["monotone,svs"] < losses["monotone"]

    @pytest.mark.parametrize(
        ("name", "gain"),
        [
            ("nncal_densenet40_cifar10", -0.001),
            ("netcal_lenet5_cifar10", -0.001),
            ("eurosat_resnet18_rgb", -0.001),
            ("sctl_resnet110_cifar10lt", -0.001),
            ("fte_nba_games", -0.001),
            ("netcal_wideresnet164_cifar100", 0.01),
        ],
    )
    def test_it_is_not_worse_than_a_temperature(self, shared_data, name: str, gain: float) -> None:
        folder = shared_data / "data" / name
        if (folder / "all.npz").exists():
            rows = np.load(folder / "all.npz")
            kind = "logits" if "logits" in rows else "probs"
            half = np.random.default_rng(0).permutation(len(rows["labels"])) % 2
            parts = [(rows[kind][half == h], rows["labels"][half == h]) for h in (0, 1)]
        else:
            files = [np.load(folder / f"{part}.npz") for part in ("val", "test")]
            kind, parts = "logits", [(file["logits"], file["labels"]) for file in files]
        temperature, monotone = (
            calibcli.evaluate(
                fit(*parts[0], input=kind, method=method).predict_proba(parts[1][0]), parts[1][1]
            ).values["nll"]
            for method in ("temperature", "monotone")
        )
        assert monotone <= temperature - gain

    def test_what_is_no_increasing_function_is_refused(self) -> None:
        for knots, slopes in (([-1.0, -2.0], [1, 1, 1]), ([-1.0], [1, -1]), ([-1.0], [1])):
            with pytest.raises(ParamsError):
                read_calibrator(Monotone.kind, {"knots": knots, "slopes": slopes}, 4)


def test_laplace_mixture_keeps_the_order_and_bounds_the_loss() -> None:
    logits = np.array([[1000.0, 0, -1000], [3, 2, 1]])
    log_probs = LaplaceMixture(0.01).log_probs(logits)
    np.testing.assert_allclose(np.exp(log_probs).sum(axis=1), 1)
    assert log_probs.min() >= np.log(0.01 / 3) - 1e-12
    assert (log_probs.argmax(axis=1) == 0).all()


def two_classes(rows: int = 4000, seed: int = 0):
    """Logits of two classes whose true map is a beta map with different sides."""
    rng = np.random.default_rng(seed)
    logit = 3 * rng.standard_normal(rows)
    truth = 0.4 * np.logaddexp(0, logit) - 1.2 * np.logaddexp(0, -logit) + 0.3
    labels = (rng.random(rows) < 1 / (1 + np.exp(-truth))).astype(int)
    return logit, labels


@pytest.mark.parametrize(
    ("method", "features"),
    [
        ("beta", lambda z: (-np.logaddexp(0, -z), np.logaddexp(0, z), np.ones_like(z))),
        ("quadratic", lambda z: (z * z, z, np.ones_like(z))),
    ],
)
def test_maps_of_two_classes_are_logistic_regressions(method, features) -> None:
    logit, labels = two_classes()
    peer = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-12, max_iter=10_000)
    peer.fit(np.stack(features(logit), axis=1), labels)
    (ours,) = fit(logit, labels, method=method).stages
    np.testing.assert_allclose(list(ours.parameters().values()), peer.coef_[0], rtol=2e-4)


def test_beta_stays_monotone_where_the_data_is_not() -> None:
    rng = np.random.default_rng(0)
    logit = 3 * rng.standard_normal(2000)
    labels = (rng.random(2000) < 1 / (1 + np.exp(-np.where(logit > 0, logit, -logit)))).astype(int)
    (ours,) = fit(logit, labels, method="beta").stages
    assert ours.a == 0
    probs = ours.probs(np.stack((np.zeros(7), np.linspace(-9, 9, 7)), axis=1))[:, 1]
    assert (np.diff(probs) >= 0).all()


def test_a_bias_corrects_a_change_of_prior() -> None:
    rng = np.random.default_rng(0)
    logits = 2 * rng.standard_normal((40_000, 4))
    bias = np.array([0.5, 0.0, -0.5, -1.0])
    labels = (0.7 * logits + bias + rng.gumbel(size=logits.shape)).argmax(axis=1)
    (found,) = fit(logits, labels, method="bias-corrected-temperature").stages
    np.testing.assert_allclose(found.scale, 0.7, atol=0.02)
    np.testing.assert_allclose(found.bias, bias - bias.mean(), atol=0.05)


@pytest.mark.parametrize("classes", [6, 300])
def test_pieces_that_are_kept_give_the_same_sums(classes: int) -> None:
    rng = np.random.default_rng(4)
    logits = rng.standard_normal((4000, classes)).astype(np.float32) * 2
    labels = (logits / 1.5 + rng.gumbel(size=logits.shape)).argmax(axis=1)
    data = open_data(Engine(), ArraySource(logits, labels)).after(Identity())
    family = CurvedVectorMap().placed(*sample_log_probs(data, CurvedVectorMap(), 2000))
    theta = family.start(classes, 0.8) + 0.01 * rng.standard_normal(family.size(classes))
    objective, anchor = NegativeLogLikelihood(), family.anchor(classes, 1.0)
    kept = Problem(data, family, objective, anchor)
    first, second = kept.gradient(theta), kept.gradient(theta)
    plain = Problem(replace(data, stages=(Identity(),)), family, objective, anchor).gradient(theta)
    for value, gradient in (first, second):
        assert value == pytest.approx(plain[0], rel=1e-6)
        np.testing.assert_allclose(gradient, plain[1], atol=2e-6)
    assert first[0] == second[0]
    assert (first[1] == second[1]).all()


def test_single_precision_ends_at_the_optimum_of_double_precision() -> None:
    rng = np.random.default_rng(8)
    logits = rng.standard_normal((5000, 250)).astype(np.float32) * 2
    labels = (logits / 1.5 + rng.gumbel(size=logits.shape)).argmax(axis=1)
    plan = make_plan("curved-svs")
    fits = []
    for precision in (np.float32, np.float64):
        data = open_data(Engine(), ArraySource(logits.astype(precision), labels))
        fits.append(fit_plan(plan.rows_of(data), plan).fit.stages[-1])
    single, double = (stage.solution for stage in fits)
    assert single is not None
    assert double is not None
    assert single.converged
    assert single.value == pytest.approx(double.value, abs=1e-7)
    assert fits[0].passes <= fits[1].passes + 4
