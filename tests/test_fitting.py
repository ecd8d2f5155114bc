"""Fits: right answers, certified, invariant to what must not matter, honest where there is none."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize, minimize_scalar
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression

import calibcli
from calibcli.arrays import NumpyArray
from calibcli.calibrators.affine import VectorMap
from calibcli.calibrators.base import SmoothMap
from calibcli.calibrators.registry import MAPS, read_calibrator
from calibcli.engine.data import open_data
from calibcli.engine.engine import Engine
from calibcli.engine.source import ArraySource
from calibcli.errors import UsageError
from calibcli.objectives.registry import OBJECTIVES
from calibcli.workflow.fitted_plans import fit_plan
from calibcli.workflow.plans import make_plan

SMOOTH = [name for name in MAPS if issubclass(MAPS[name], SmoothMap) and not MAPS[name].binary_only]
# Random starts are compared on rows that are drawn by their number: order and repetition matter.
EXACT = [name for name in SMOOTH if MAPS[name].exact]
# A temperature a column, as published, sees the logits as they are stored.
SHIFTABLE = [name for name in EXACT if name != "class-temperature"]
LOSSES = ["nll", "brier"]


def sample(rows: int = 400, classes: int = 4, seed: int = 0, scale: float = 3.0):
    """Overconfident float64 logits whose labels follow another temperature and a bias."""
    rng = np.random.default_rng(seed)
    logits = scale * rng.standard_normal((rows, classes))
    truth = logits / scale + 0.3 * np.arange(classes)
    return logits, (truth + rng.gumbel(size=logits.shape)).argmax(axis=1)


def fit(logits, labels, **options):
    return calibcli.fit(logits, labels, folds=0, **options)


def mean_loss(loss: str, log_probs, labels) -> float:
    if loss == "nll":
        return float(-log_probs[np.arange(len(labels)), labels].mean())
    one_hot = np.eye(log_probs.shape[1])[labels]
    return float(((np.exp(log_probs) - one_hot) ** 2).sum(axis=1).mean())


@pytest.mark.parametrize("loss", LOSSES)
def test_temperature_is_the_optimum_that_scipy_finds(loss: str) -> None:
    logits, labels = sample()

    def objective(log_temperature: float) -> float:
        return mean_loss(loss, log_softmax(logits / math.exp(log_temperature), axis=1), labels)

    found = minimize_scalar(objective, bracket=(0.0, 1.0), options={"xtol": 1e-12})
    calibrator = fit(logits, labels, loss=loss)
    assert calibrator.outcome.fit.converged
    assert math.log(calibrator.stages[0].temperature) == pytest.approx(found.x, abs=1e-6)


@pytest.mark.parametrize("rows", [12, 400])
def test_ridge_temperature_is_the_optimum_that_scipy_finds_without_each_fold_too(rows: int) -> None:
    rng = np.random.default_rng(rows)
    truth = rng.standard_normal((rows, 3))
    logits, labels = 3 * truth, (truth + rng.gumbel(size=truth.shape)).argmax(axis=1)
    data = open_data(Engine(), ArraySource(logits, labels), folds=4)
    plan = make_plan("ridge-temperature", settings=["ridge-temperature.prior=2.5"])
    fitted = fit_plan(plan.rows_of(data), plan)
    inside = data.fold(data.split.of, lambda first, second: np.concatenate([first, second]))
    for fold, fit in enumerate([*fitted.without_folds, fitted.fit]):
        kept = inside != fold

        def cost(scale: float, kept: NumpyArray = kept) -> float:
            log_probs = log_softmax(scale * logits[kept], axis=1)
            nll = -log_probs[np.arange(int(kept.sum())), labels[kept]].sum()
            return float(nll + 2.5 * (scale - 1) ** 2 / 2)

        options = {"bounds": (1e-3, 10), "method": "bounded", "options": {"xatol": 1e-10}}
        best = minimize_scalar(cost, **options).x
        assert 1 / fit.calibrators[0].temperature == pytest.approx(best, rel=1e-4)


def test_ridge_temperature_of_rows_that_are_all_right_is_one_that_can_be_used() -> None:
    labels = np.arange(40) % 2
    found = calibcli.fit(4.0 * np.eye(2)[labels], labels, method="ridge-temperature", folds=0)
    assert found.outcome.fit.converged
    assert 0.5 < found.stages[0].temperature < 1
    # Of very many rows it is the temperature of them all.
    rng = np.random.default_rng(0)
    logits = 2 * rng.standard_normal((50_000, 2))
    labels = (logits / 2 + rng.gumbel(size=logits.shape)).argmax(axis=1)
    both = [
        calibcli.fit(logits, labels, method=method, folds=0).stages[0].temperature
        for method in ("temperature", "ridge-temperature")
    ]
    assert both[1] == pytest.approx(both[0], rel=1e-3)


def test_temperature_equals_the_published_exact_value(vectors, synthetic) -> None:
    exact = vectors["sctl_synth"]["exact_float64"]["TS_micro_CE"]["T"]
    found = fit(synthetic["fit_logits"], synthetic["fit_labels"]).stages[0].temperature
    assert found == pytest.approx(exact, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "nll"), [("nncal_densenet40_cifar10", 0.2251), ("psr_resnet50_cifar10", None)]
)
def test_temperature_gives_the_published_loss(shared_data, name: str, nll: float | None) -> None:
    val, test = (np.load(shared_data / "data" / name / f"{part}.npz") for part in ("val", "test"))
    calibrator = fit(val["logits"], val["labels"])
    found = calibcli.evaluate(calibrator.predict_proba(test["logits"]), test["labels"])
    before = calibcli.evaluate(test["logits"], test["labels"], input="logits")
    assert found.values["nll"] < before.values["nll"]
    if nll is not None:
        assert found.values["nll"] == pytest.approx(nll, abs=5e-5)


def test_vector_scaling_without_penalty_is_what_bfgs_finds() -> None:
    logits, labels = sample(classes=3)
    inputs = log_softmax(logits, axis=1)

    def objective(theta):
        return mean_loss("nll", log_softmax(inputs * theta[:3] + theta[3:], axis=1), labels)

    best = minimize(objective, np.concatenate((np.ones(3), np.zeros(3))), tol=1e-10).fun
    calibrator = fit(
        logits, labels, method="vector", options={"vector.penalty": 0, "vector.prior": 0}
    )
    assert calibrator.outcome.fit.converged
    log_probs = calibrator.stages[0].log_probs(logits)
    assert mean_loss("nll", log_probs, labels) == pytest.approx(best, rel=1e-8)


@pytest.mark.parametrize("method", ["vector", "bias-corrected-temperature"])
def test_few_rows_leave_a_temperature(method: str) -> None:
    rng = np.random.default_rng(4)
    logits = 3 * rng.standard_normal((2250, 5))
    labels = (logits / 2 + rng.gumbel(size=logits.shape)).argmax(axis=1)
    new, new_labels = logits[250:], labels[250:]
    losses = {prior: [] for prior in (0, 4, 1e6, None)}
    for begin in range(0, 250, 50):
        few = slice(begin, begin + 50)
        for prior, found in losses.items():
            how = {"method": method, "options": {f"{method}.prior": prior}}
            stage = fit(logits[few], labels[few], **({} if prior is None else how)).stages[0]
            found.append(mean_loss("nll", stage.log_probs(new), new_labels))
    assert np.mean(losses[4]) < np.mean(losses[0])
    # What is held fast is the temperature alone.
    np.testing.assert_allclose(losses[1e6], losses[None], rtol=1e-3)


def test_the_prior_of_a_scale_is_in_units_of_the_temperature() -> None:
    ridge = VectorMap(penalty=0.0, prior=4.0).scaled(0.5).ridge(2, rows=100)
    np.testing.assert_allclose(ridge, [0.16, 0.16, 0.04, 0.04])


def test_platt_scaling_is_the_logistic_regression_of_scikit_learn() -> None:
    logits, labels = sample(classes=2)
    margin = logits[:, 1] - logits[:, 0]
    peer = LogisticRegression(C=np.inf, tol=1e-10).fit(margin[:, None], labels)
    platt = fit(logits, labels, method="platt").stages[0]
    assert platt.slope == pytest.approx(peer.coef_[0, 0], rel=1e-5)
    assert platt.intercept == pytest.approx(peer.intercept_[0], rel=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_ensemble_beats_each_of_its_members_on_its_own_data(loss: str) -> None:
    logits, labels = sample(rows=3000)
    calibrator = fit(logits, labels, method="ensemble-temperature", loss=loss)
    single = fit(logits, labels, loss=loss)
    assert calibrator.outcome.fit.converged
    ours, theirs = (
        mean_loss(loss, c.stages[0].log_probs(logits), labels) for c in (calibrator, single)
    )
    assert ours <= theirs + 1e-9
    weights = calibrator.stages[0].weights
    assert weights.min() >= 0
    assert weights.sum() == pytest.approx(1)


@pytest.mark.parametrize("loss", LOSSES)
class TestEveryMap:
    @pytest.mark.parametrize("method", SMOOTH)
    def test_converges_and_lowers_its_loss(self, method: str, loss: str) -> None:
        logits, labels = sample(rows=1000)
        calibrator = fit(logits, labels, method=method, loss=loss)
        assert calibrator.outcome.fit.converged, calibrator.outcome.fit
        after = mean_loss(loss, calibrator.stages[0].log_probs(logits), labels)
        assert after < mean_loss(loss, log_softmax(logits, axis=1), labels)

    @pytest.mark.parametrize("method", EXACT)
    def test_a_row_twice_is_a_row_of_weight_two(self, method: str, loss: str) -> None:
        logits, labels = sample()
        weights = np.random.default_rng(1).integers(1, 4, len(labels))
        weighted = fit(logits, labels, weights=weights, method=method, loss=loss)
        repeated = fit(
            logits.repeat(weights, axis=0), labels.repeat(weights), method=method, loss=loss
        )
        probs = (c.predict_proba(logits) for c in (weighted, repeated))
        np.testing.assert_allclose(*probs, atol=2e-5)

    @pytest.mark.parametrize("method", EXACT)
    def test_order_of_rows_and_permutation_of_classes(self, method: str, loss: str) -> None:
        logits, labels = sample()
        rng = np.random.default_rng(2)
        expected = fit(logits, labels, method=method, loss=loss).predict_proba(logits)
        order = rng.permutation(len(labels))
        shuffled = fit(logits[order], labels[order], method=method, loss=loss)
        np.testing.assert_allclose(shuffled.predict_proba(logits), expected, atol=2e-5)
        classes = rng.permutation(4)
        swapped = fit(logits[:, classes], classes.argsort()[labels], method=method, loss=loss)
        probs = swapped.predict_proba(logits[:, classes])
        np.testing.assert_allclose(probs, expected[:, classes], atol=2e-5)

    @pytest.mark.parametrize("method", SHIFTABLE)
    def test_a_constant_a_row_changes_nothing(self, method: str, loss: str) -> None:
        logits, labels = sample()
        shifts = 10 * np.random.default_rng(2).standard_normal((len(labels), 1))
        expected = fit(logits, labels, method=method, loss=loss).predict_proba(logits)
        moved = fit(logits + shifts, labels, method=method, loss=loss)
        np.testing.assert_allclose(moved.predict_proba(logits + shifts), expected, atol=2e-5)

    @pytest.mark.parametrize("method", SMOOTH)
    def test_impossible_classes_keep_probability_zero(self, method: str, loss: str) -> None:
        logits, labels = sample()
        masked = np.random.default_rng(3).random(logits.shape) < 0.2
        masked[np.arange(len(labels)), labels] = False
        logits[masked] = -np.inf
        calibrator = fit(logits, labels, method=method, loss=loss)
        probs = calibrator.predict_proba(logits)
        assert calibrator.outcome.fit.converged
        assert np.isfinite(probs).all()
        assert (probs[masked] == 0).all()

    @pytest.mark.parametrize("method", SHIFTABLE)
    def test_log_probs_probs_and_logits_give_the_same_fit(self, method: str, loss: str) -> None:
        logits, labels = sample()
        log_probs = log_softmax(logits, axis=1)
        found = [
            fit(scores, labels, method=method, loss=loss, input=kind).predict_proba(scores)
            for scores, kind in (
                (logits, "logits"),
                (log_probs, "log-probs"),
                (np.exp(log_probs), "probs"),
            )
        ]
        np.testing.assert_allclose(found[1], found[0], atol=2e-5)
        np.testing.assert_allclose(found[2], found[0], atol=2e-5)

    @pytest.mark.parametrize("method", SMOOTH)
    def test_a_class_without_rows_does_no_harm(self, method: str, loss: str) -> None:
        logits, labels = sample(classes=5)
        kept = labels != 2
        calibrator = fit(logits[kept], labels[kept], method=method, loss=loss)
        assert calibrator.outcome.fit.converged
        assert np.isfinite(calibrator.predict_proba(logits)).all()


@settings(max_examples=30)
@given(
    st.integers(0, 10_000),
    st.sampled_from(["temperature", "ensemble-temperature"]),
    st.floats(0.1, 30),
)
def test_maps_that_promise_it_keep_the_order_of_every_row(seed, method, scale) -> None:
    logits, labels = sample(rows=60, seed=seed, scale=scale)
    calibrator = fit(logits, labels, method=method)
    log_probs = calibrator.stages[0].log_probs(logits)
    rows = np.arange(len(logits))[:, None]
    assert (np.diff(log_probs[rows, logits.argsort(axis=1)], axis=1) >= -1e-12).all()
    assert (log_probs.argmax(axis=1) == logits.argmax(axis=1)).all()


class TestNoAnswer:
    def test_separable_rows_are_recognised(self) -> None:
        logits = 5 * np.eye(3)[np.arange(60) % 3]
        outcome = fit(logits, np.arange(60) % 3).outcome
        assert not outcome.fit.converged
        assert outcome.fit.calibrators[0].temperature == 1
        assert outcome.fit.stages[0].solution.criterion == "separable"
        assert "no temperature is too low" in outcome.notes[0]

    def test_scores_worse_than_chance_are_recognised(self) -> None:
        logits, labels = sample()
        outcome = fit(-logits, labels).outcome
        assert outcome.fit.stages[0].solution.criterion == "worse than chance"
        assert outcome.fit.calibrators[0].temperature == 1

    @pytest.mark.parametrize("method", ["vector", "platt", "ensemble-temperature", "matrix"])
    def test_other_maps_stay_finite_on_separable_rows(self, method: str) -> None:
        labels = np.arange(60) % 2
        calibrator = fit(5.0 * np.eye(2)[labels], labels, method=method)
        assert np.isfinite(calibrator.predict_proba(5 * np.eye(2))).all()
        assert calibrator.outcome.notes

    @pytest.mark.parametrize(
        "method",
        ["platt", "beta", "ensemble-temperature", "class-temperature", "monotone"],
    )
    def test_maps_without_a_ridge_leave_separable_rows_as_they_are(self, method: str) -> None:
        labels = np.arange(60) % 2
        calibrator = fit(5.0 * np.eye(2)[labels], labels, method=method)
        np.testing.assert_allclose(calibrator.predict_proba([[5.0, 0.0]])[0, 0], 0.99331, 1e-5)
        assert any("the rows can be separated" in note for note in calibrator.outcome.notes)

    def test_rows_that_a_bias_separates_keep_their_temperature(self) -> None:
        logits = np.array([[0.0, 1.0]] * 20 + [[0.0, 3.0]] * 20)
        calibrator = fit(logits, np.repeat([0, 1], 20), method="platt")
        plain = fit(logits, np.repeat([0, 1], 20))
        assert calibrator.stages[0].intercept == 0
        assert calibrator.stages[0].slope == pytest.approx(1 / plain.stages[0].temperature)

    @pytest.mark.parametrize("rows", [1, 2])
    @pytest.mark.parametrize("method", SMOOTH)
    def test_hardly_any_rows(self, rows: int, method: str) -> None:
        logits, labels = sample(rows=rows)
        calibrator = calibcli.fit(logits, labels, method=method)
        assert np.isfinite(calibrator.predict_proba(logits)).all()


def test_extreme_logits_are_no_trouble() -> None:
    logits, labels = sample()
    for factor in (1e-6, 1e4):
        calibrator = fit(logits * factor, labels)
        assert calibrator.outcome.fit.converged
        expected = fit(logits, labels).stages[0].temperature * factor
        assert calibrator.stages[0].temperature == pytest.approx(expected, rel=1e-5)


def test_stages_are_fitted_one_after_the_other() -> None:
    logits, labels = sample(rows=2000)
    both = fit(logits, labels, method="temperature,vector")
    assert [stage.kind for stage in both.stages] == ["temperature", "vector"]
    first = fit(logits, labels)
    second = fit(first.stages[0].log_probs(logits), labels, method="vector", input="log-probs")
    np.testing.assert_allclose(
        both.predict_proba(logits),
        second.predict_proba(first.stages[0].log_probs(logits), input="log-probs"),
        atol=1e-6,
    )


def test_cross_fitting_never_flatters() -> None:
    """With as many parameters as rows can bear, in-sample figures are far better than true ones."""
    logits, labels = sample(rows=150, classes=10, seed=4)
    calibrator = calibcli.fit(logits, labels, method="matrix", options={"matrix.penalty": 1e-3})
    in_sample = calibcli.evaluate(calibrator.predict_proba(logits), labels).values["nll"]
    fresh_logits, fresh_labels = sample(rows=20_000, classes=10, seed=5)
    true = calibcli.evaluate(calibrator.predict_proba(fresh_logits), fresh_labels).values["nll"]
    reported = calibrator.outcome.after.values["nll"]
    assert in_sample < 0.6 * true
    assert reported > 0.8 * true


class TestSettings:
    def test_options_arrive(self) -> None:
        logits, labels = sample()
        loose, tight = (
            fit(logits, labels, method="vector", options={"vector.penalty": p}) for p in (1e-9, 1e6)
        )
        assert np.ptp(tight.stages[0].scale) < 1e-6 < np.ptp(loose.stages[0].scale)
        assert tight.params.fit["options"] == {"vector": {"penalty": 1e6, "prior": 4.0}}

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"method": "temprature"}, "no method 'temprature'; did you mean temperature?"),
            ({"method": "temperature,,vector"}, "no method ''"),
            ({"loss": "mse"}, "no loss 'mse'"),
            ({"options": {"vector.penalty": 1}}, "only temperature, nll are in use"),
            ({"options": {"temperature.x": 1}}, "temperature has no option 'x'; it has none"),
            (
                {"method": "vector", "options": {"vector.ridge": 1}},
                r"vector has no option 'ridge'; it has: penalty \(default 1e-06\), prior",
            ),
            (
                {"method": "vector", "options": {"vector.penalty": "big"}},
                "vector.penalty must be a finite number, not 'big'",
            ),
            ({"method": "platt"}, "platt is for two classes; the data has 4"),
        ],
    )
    def test_what_there_is_not_is_refused_with_what_there_is(self, arguments, message) -> None:
        logits, labels = sample(rows=20)
        with pytest.raises(UsageError, match=message):
            fit(logits, labels, **arguments)


def test_every_map_says_what_it_is_and_its_calibrator_can_be_stored() -> None:
    for name, family in MAPS.items():
        entry = family()
        assert entry.name == name
        assert entry.title
        assert entry.source
        assert entry.preserves in ("order", "accuracy", "nothing")
        if not isinstance(entry, SmoothMap):
            continue
        classes = 2 if entry.binary_only else 7
        theta = entry.start(classes, 0.5)
        assert theta.shape == (entry.size(classes),)
        calibrator = entry.calibrator(theta, classes)
        again = read_calibrator(calibrator.kind, calibrator.parameters(), classes)
        logits = np.random.default_rng(0).standard_normal((5, classes))
        np.testing.assert_array_equal(again.log_probs(logits), calibrator.log_probs(logits))


@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_every_objective_says_what_it_is(name: str) -> None:
    objective = OBJECTIVES[name]
    assert objective.name == name
    assert objective.title
    assert objective.source
