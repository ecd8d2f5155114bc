"""Penalties by cross-validation, averages over folds, and the maps that they are made for."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import log_softmax

import calibcli
from calibcli.api.arguments import array_source
from calibcli.calibrators.affine import MatrixMap, StructuredMatrixMap
from calibcli.calibrators.curved import CurvedMatrix, CurvedMatrixMap, CurvedVectorMap
from calibcli.calibrators.gap_temperature import GapTemperature, GapTemperatureMap
from calibcli.calibrators.monotone import MonotoneMap
from calibcli.calibrators.piecewise import GroupedRows, piecewise_linear
from calibcli.calibrators.registry import read_calibrator
from calibcli.engine.data import open_data
from calibcli.engine.engine import Engine
from calibcli.engine.kept_tiles import KeptTiles
from calibcli.engine.source import ArraySource
from calibcli.errors import ParamsError, UsageError
from calibcli.fitting import cross_fitting
from calibcli.fitting.problem import Problem, sample_log_probs
from calibcli.fitting.tuning import Trials, tune
from calibcli.objectives.nll import NegativeLogLikelihood
from calibcli.workflow.plans import make_plan


def fit(logits, labels, **options):
    return calibcli.fit(logits, labels, folds=0, **options)


def nll(log_probs, labels) -> float:
    return float(-log_probs[np.arange(len(labels)), labels].mean())


def confused(rows: int, classes: int = 8, strength: float = 0.0, seed: int = 0):
    """Logits whose true map adds to each class a share of the next one's logit."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.standard_normal((rows, classes))
    truth = logits + strength * np.roll(logits, 1, axis=1)
    labels = (truth + rng.gumbel(size=logits.shape)).argmax(axis=1)
    return logits, labels


def folded(logits, labels, weights=None):
    return open_data(Engine(threads=1), array_source(logits, labels, weights, "logits"), 5, 0)


class TestSearch:
    def test_penalties_become_weak_where_classes_are_confused(self) -> None:
        plan = make_plan("sms")
        strong, weak = (
            tune(folded(*confused(1500, strength=s)), plan.families, plan.objective).families[-1]
            for s in (0.0, 0.9)
        )
        assert isinstance(strong, StructuredMatrixMap)
        assert isinstance(weak, StructuredMatrixMap)
        assert strong.off_diagonal >= 1
        assert weak.off_diagonal <= 0.11

    def test_what_it_chooses_does_better_on_fresh_rows(self) -> None:
        logits, labels = confused(1500, strength=0.9)
        fresh, fresh_labels = confused(20_000, strength=0.9, seed=1)
        fixed, tuned = (
            nll(
                np.log(fit(logits, labels, method="sms", tune=t).predict_proba(fresh)), fresh_labels
            )
            for t in (False, True)
        )
        assert tuned < fixed - 0.01

    def test_its_losses_are_those_of_refits_without_each_fold(self) -> None:
        logits, labels = confused(300, classes=3)
        data, plan = folded(logits, labels), make_plan("svs")
        (trials,) = tune(data, plan.families, plan.objective).trials.values()
        fold_of = data.split.at(np.arange(300))
        for choice in [(1.0,), next(c for c in trials.losses if c != (1.0,))]:
            for fold in range(5):
                inside = fold_of == fold
                without = fit(
                    logits,
                    labels,
                    weights=np.where(inside, 0.0, 1.0),
                    method="svs",
                    options={"svs.penalty": choice[0]},
                )
                log_probs = np.log(without.predict_proba(logits[inside]))
                expected = nll(log_probs, labels[inside]) * inside.sum()
                assert trials.losses[choice][fold].sum() == pytest.approx(expected, rel=1e-6)

    def test_earlier_stages_are_chosen_before_later_ones(self) -> None:
        plan = make_plan("monotone,svs")
        found = tune(folded(*confused(800)), plan.families, plan.objective)
        assert list(found.trials) == [0, 3]
        assert [family.name for family in found.families] == [
            "monotone", "temperature", "laplace", "svs",
        ]  # fmt: skip

    def test_without_penalties_nothing_is_changed(self) -> None:
        plan = make_plan("temperature,none")
        found = tune(folded(*confused(200)), plan.families, plan.objective)
        assert found.families == plan.families
        assert found.notes == ()


class TestChoice:
    family = StructuredMatrixMap()

    def trials(self, losses: dict[tuple[float, float], np.ndarray]) -> Trials:
        return Trials(self.family, losses, np.ones((5, 40), bool), 1000.0)

    def losses(self, *totals: float, noise: float = 0.0):
        """Sums by fold and group that add up to these totals, the last one with noise."""
        swing = noise * np.resize([1.0, -1.0], (5, 40))
        even = [np.full((5, 40), 1 + total / 200) for total in totals]
        return [*even[:-1], even[-1] + swing]

    def test_the_best_is_taken_where_it_is_clearly_better(self) -> None:
        given, better = self.losses(10, 0)
        trials = self.trials({(1.0, 1.0): given, (0.1, 1.0): better})
        assert trials.best() == (0.1, 1.0)

    def test_the_given_one_is_kept_where_the_difference_may_be_noise(self) -> None:
        given, better = self.losses(1, 0, noise=0.1)
        trials = self.trials({(1.0, 1.0): given, (0.1, 1.0): better})
        assert trials.best() == (1.0, 1.0)

    def test_the_rows_of_a_fold_have_no_say_about_themselves(self) -> None:
        given, other = self.losses(0, 1)
        other[3] -= 1.0
        trials = self.trials({(1.0, 1.0): given, (0.1, 1.0): other})
        assert trials.best() == (0.1, 1.0)
        assert trials.best(without=3) == (1.0, 1.0)

    def test_a_fit_that_failed_is_never_chosen(self) -> None:
        given = self.losses(0)[0]
        failed = np.full((5, 40), np.inf)
        trials = self.trials({(1.0, 1.0): given, (0.1, 1.0): failed})
        assert trials.best() == (1.0, 1.0)


class TestAverage:
    def test_it_is_the_mean_of_the_fits_without_each_fold(self) -> None:
        logits, labels = confused(600, classes=4)
        # Without the prior, whose unit is the temperature of the rows that a fit begins with.
        how = {"method": "vector", "options": {"vector.prior": 0.0}}
        averaged = fit(logits, labels, average_folds=True, **how)
        fold_of = folded(logits, labels).split.at(np.arange(600))
        parts = [
            fit(logits, labels, weights=np.where(fold_of == fold, 0.0, 1.0), **how)
            for fold in range(5)
        ]
        for name in ("scale", "bias"):
            mean = np.mean([part.stages[0].parameters()[name] for part in parts], axis=0)
            np.testing.assert_allclose(averaged.stages[0].parameters()[name], mean, atol=2e-5)
        solution = averaged.outcome.fit.stages[0].solution
        assert solution.criterion == "average of 5 fits"
        assert solution.converged

    def test_the_stages_before_the_last_are_those_of_all_rows(self) -> None:
        logits, labels = confused(600)
        averaged, plain = (
            fit(logits, labels, method="sms", average_folds=average) for average in (True, False)
        )
        assert averaged.stages[:2] == plain.stages[:2]
        assert not np.allclose(averaged.stages[2].matrix, plain.stages[2].matrix, atol=1e-6)
        np.testing.assert_allclose(averaged.stages[2].matrix, plain.stages[2].matrix, atol=0.05)

    @pytest.mark.parametrize("method", ["none", "parameterized-temperature"])
    def test_maps_that_are_not_linear_are_refused(self, method: str) -> None:
        options = {} if method == "none" else {"parameterized-temperature.restarts": 1}
        with pytest.raises(UsageError, match=f"linear in their parameters; {method} is not"):
            fit(*confused(200), method=method, options=options, average_folds=True)


class TestCommand:
    def test_the_parameter_file_says_what_was_chosen(self, calib_here, sample_data) -> None:
        val = sample_data / "digits_val.parquet"
        code, out, err = calib_here("fit", val, "-m", "svs", "--tune", "--format", "json")
        assert code == 0, err
        params = json.loads(Path("digits_val.params.json").read_text())
        chosen = params["fit"]["options"]["svs"]["penalty"]
        assert json.loads(out)["options"]["svs"]["penalty"] == chosen
        assert any(note.startswith(f"svs: penalty {chosen:g}") for note in params["fit"]["notes"])
        code, _, err = calib_here(
            "fit", val, "-m", "svs", "--set", f"svs.penalty={chosen}", "-p", "again.json",
            "-o", "again.npz", "-q",
        )  # fmt: skip
        assert code == 0, err
        again = json.loads(Path("again.json").read_text())
        assert again["stages"] == params["stages"]

    def test_both_can_be_asked_for_together(self, calib_here, sample_data) -> None:
        val, test = (sample_data / f"digits_{part}.parquet" for part in ("val", "test"))
        code, out, err = calib_here(
            "fit", val, "--test", test, "-m", "dirichlet", "--tune", "--average-folds",
            "--format", "json",
        )  # fmt: skip
        assert code == 0, err
        document = json.loads(out)
        assert document["after"]["metrics"]["nll"]["value"] < 0.35
        params = json.loads(Path("digits_val.params.json").read_text())
        assert params["fit"]["criterion"] == ["average of 5 fits"]

    def test_what_can_not_be_averaged_is_said_in_one_line(self, calib_here, sample_data) -> None:
        code, _, err = calib_here(
            "fit", sample_data / "digits_val.parquet", "-m", "none", "--average-folds"
        )
        assert code == 2
        assert "linear in their parameters" in err


def test_dirichlet_is_the_optimum_of_its_objective() -> None:
    logits, labels = confused(300, classes=3, strength=0.3)
    inputs = log_softmax(logits, axis=1)
    found = fit(logits, labels, method="dirichlet", options={"dirichlet.bias": 4})

    def objective(theta):
        matrix, bias = theta[:9].reshape(3, 3), theta[9:]
        off = matrix - np.diag(np.diag(matrix))
        penalty = 3 * 2 / 300 * (off**2).sum() + 4 * 3 / 300 * (bias**2).sum()
        return nll(log_softmax(inputs @ matrix.T + bias, axis=1), labels) + penalty

    best = minimize(objective, np.concatenate((np.eye(3).ravel(), np.zeros(3))), tol=1e-10)
    assert found.outcome.fit.converged
    assert found.outcome.fit.stages[0].solution.value == pytest.approx(best.fun, rel=1e-6)


def test_matrix_has_one_penalty_unless_told_otherwise() -> None:
    np.testing.assert_allclose(MatrixMap(penalty=3).ridge(5, 100), np.full(30, 3 * 2 * 6 / 100))
    parts = MatrixMap(off_diagonal=2.0, bias=7.0).ridge(5, 100)
    assert parts[1] == pytest.approx(2 * 2 * 5 * 4 / 100)
    assert parts[-1] == pytest.approx(7 * 2 * 5 / 100)
    assert parts[0] == pytest.approx(2 * 6 / 100)


@pytest.mark.parametrize("method", ["curved-svs", "curved-sms"])
def test_curved_maps_are_the_optimum_of_their_objective(method: str) -> None:
    logits, labels = confused(400, classes=3, strength=0.3)
    options = {f"{method}.pieces": 4, f"{method}.penalty": 0.5}
    found = fit(logits, labels, method=method, options=options)
    temperature, laplace, last = found.stages
    inputs = laplace.log_probs(temperature.log_probs(logits))
    small, large = 0.5 * 3 / 400, (3 * 2 / 400 if method == "curved-sms" else 1e6)

    def objective(theta):
        slopes, matrix, bias = theta[:4], theta[4:13].reshape(3, 3), theta[13:]
        off = matrix - np.diag(np.diag(matrix))
        penalty = small * ((np.diag(matrix) ** 2).sum() + (bias**2).sum())
        penalty += large * (off**2).sum() + 20 * (np.diff(slopes) ** 2).sum() / 400
        new = piecewise_linear(last.knots, slopes, inputs) + inputs @ matrix.T + bias
        return nll(log_softmax(new, axis=1), labels) + penalty

    best = minimize(objective, np.concatenate((np.ones(4), np.zeros(12))), tol=1e-10)
    solution = found.outcome.fit.stages[-1].solution
    assert solution.converged
    assert solution.value == pytest.approx(best.fun, rel=1e-6)


@pytest.mark.parametrize("method", ["svs", "sms", "curved-svs", "curved-sms"])
def test_a_ridge_says_how_far_a_class_that_never_comes_is_believed_absent(method: str) -> None:
    logits, labels = confused(2000, classes=4)
    kept = labels < 3
    logits, labels = logits[kept], labels[kept]
    losses = {
        name: nll(np.log(fit(logits, labels, method=name).predict_proba(logits)), labels)
        for name in ("temperature", method)
    }
    assert losses[method] < losses["temperature"] - 0.1


def surer_than_right(rows: int, classes: int, seed: int = 0):
    """Logits that are right in rows with a small gap and four times too large in the others."""
    rng = np.random.default_rng(seed)
    logits = 3 * rng.standard_normal((rows, classes))
    ranked = np.sort(logits, axis=1)
    scale = np.where(ranked[:, -1] - ranked[:, -2] < 2, 1.0, 0.25)
    labels = (scale[:, None] * logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    return logits, labels


def nearly_separable(seed: int, rows: int):
    """Ten classes whose rows are nearly all right."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, rows)
    logits = 2.2 * rng.standard_normal((rows, 10))
    logits[np.arange(rows), labels] += 16 * rng.beta(5, 1.2, rows)
    return logits.astype(np.float32), labels


class TestGapTemperature:
    def test_it_finds_how_the_temperature_depends_on_the_gap(self) -> None:
        logits, labels = surer_than_right(20_000, 5)
        options = {"gap-temperature.points": 12, "gap-temperature.penalty": 1}
        (found,) = fit(logits, labels, method="gap-temperature", options=options).stages
        np.testing.assert_allclose(found.scales[found.knots < 1.2], 1, atol=0.15)
        np.testing.assert_allclose(found.scales[found.knots > 3.5], 0.25, atol=0.05)

    @pytest.mark.parametrize("feature", ["gap", "entropy", "confidence"])
    def test_its_optimum_is_that_of_scipy(self, feature: str) -> None:
        logits, labels = surer_than_right(500, 4)
        options = {"gap-temperature.feature": feature, "gap-temperature.points": 5}
        found = fit(logits, labels, method="gap-temperature", options=options)
        (map_,) = found.stages
        inputs = log_softmax(logits, axis=1)
        probs = np.exp(inputs)
        ranked = np.sort(inputs, axis=1)
        values = {
            "gap": ranked[:, -1] - ranked[:, -2],
            "entropy": -(probs * inputs).sum(axis=1),
            "confidence": probs.max(axis=1),
        }[feature]

        plain = fit(logits, labels, method="temperature").stages[0]
        unit = plain.temperature**2 / 500

        def objective(scales):
            scale = np.interp(values, map_.knots, scales)[:, None]
            bends, steps = np.diff(scales, n=2), np.diff(scales)
            penalty = unit * (100 * (bends**2).sum() + 3 * (steps**2).sum())
            return nll(log_softmax(scale * inputs, axis=1), labels) + penalty

        best = minimize(
            objective,
            np.full(5, 0.5),
            bounds=[(0, None)] * 5,
            options={"ftol": 1e-14, "gtol": 1e-9},
        )
        assert found.outcome.fit.stages[0].solution.value <= best.fun + 1e-8

    def test_it_stays_near_one_temperature_where_nearly_all_rows_are_right(self) -> None:
        """Without a ridge on first differences new rows cost .035 rather than .0198."""
        logits, labels = nearly_separable(2, 2500)
        new_logits, new_labels = nearly_separable(1002, 2500)
        plain, free, held = (
            fit(logits, labels, method=method, options=options).predict_proba(new_logits)
            for method, options in (
                ("temperature", {}),
                ("gap-temperature", {"gap-temperature.tilt": 0}),
                ("gap-temperature", {}),
            )
        )
        losses = [
            nll(np.log(np.maximum(probs, 1e-37)), new_labels) for probs in (plain, free, held)
        ]
        assert losses[2] < 1.02 * losses[0]
        assert losses[1] > 1.05 * losses[2]

    @settings(max_examples=30)
    @given(
        st.integers(0, 1000), st.sampled_from(["gap", "entropy", "confidence"]), st.integers(2, 6)
    )
    def test_it_keeps_the_order_of_a_row(self, seed: int, feature, classes: int) -> None:
        rng = np.random.default_rng(seed)
        knots = np.sort(rng.random(4)) + np.arange(4)
        map_ = GapTemperature(knots, rng.random(4) + 0.01, feature)
        logits = 3 * rng.standard_normal((20, classes))
        np.testing.assert_array_equal(
            np.argsort(map_.log_probs(logits), axis=1), np.argsort(logits, axis=1)
        )

    def test_rows_with_impossible_classes_and_a_single_kind_of_row_are_fine(self) -> None:
        logits = np.array([[1.0, 0.0, -np.inf], [0.0, 1.0, -np.inf]] * 50)
        labels = np.array([0, 1, 1, 0, *[0, 1] * 48])
        found = fit(logits, labels, method="gap-temperature")
        probs = found.predict_proba(logits)
        assert np.isfinite(probs).all()
        assert (probs[:, 2] == 0).all()
        assert len(found.stages[0].knots) == 1

    def test_what_is_no_function_is_refused(self) -> None:
        good = {"knots": [0.0, 1.0], "scales": [1.0, 2.0], "feature": "gap"}
        assert read_calibrator(GapTemperature.kind, good, 3).feature == "gap"
        for wrong in ({"knots": [1.0, 0.0]}, {"scales": [1.0, -1.0]}, {"feature": "size"}):
            with pytest.raises(ParamsError):
                read_calibrator(GapTemperature.kind, good | wrong, 3)
        with pytest.raises(ParamsError):
            read_calibrator(GapTemperature.kind, {"knots": [], "scales": [], "feature": "gap"}, 3)


each_family = pytest.mark.parametrize(
    "family",
    [
        MonotoneMap(pieces=5),
        GapTemperatureMap(points=5),
        CurvedVectorMap(pieces=5),
        CurvedMatrixMap(pieces=5),
    ],
)


@each_family
@pytest.mark.parametrize("by_class", [False, True])
def test_short_ways_to_derivatives_agree_with_the_long_ones(family, by_class: bool) -> None:
    rng = np.random.default_rng(0)
    logits = log_softmax(2 * rng.standard_normal((50, 6)), axis=1)
    logits = np.asfortranarray(logits) if by_class else logits
    labels, weights = rng.integers(0, 6, 50), rng.random(50)
    family = family.placed(logits, weights)
    theta = rng.random(family.size(6)) + 0.2
    new = family.forward(theta, logits)
    terms = NegativeLogLikelihood().terms(new, labels)
    moves = [family.pushforward(theta, logits, unit) for unit in np.eye(len(theta))]
    hessian = [[(weights[:, None] * terms.product(a) * b).sum() for b in moves] for a in moves]
    probs = np.exp(log_softmax(new, axis=1))
    short = family.likelihood_hessian(theta, logits, probs, weights)
    if short is not None:
        np.testing.assert_allclose(short, hessian, atol=1e-12)
    gradient = terms.gradient()
    slopes = [(gradient * move).sum() for move in moves]
    np.testing.assert_allclose(family.pullback(theta, logits, gradient), slopes, atol=1e-12)


@each_family
def test_tensors_give_the_derivatives_of_arrays(family) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    logits = log_softmax(2 * rng.standard_normal((50, 6)), axis=1)
    labels, weights = rng.integers(0, 6, 50), rng.random(50)
    family = family.placed(logits, weights)
    theta = rng.random(family.size(6)) + 0.2
    new = family.forward(theta, logits)
    tensor = torch.from_numpy(logits)
    np.testing.assert_allclose(family.forward(theta, tensor).numpy(), new, atol=1e-12)
    gradient = NegativeLogLikelihood().terms(new, labels).gradient()
    slopes = family.pullback(theta, logits, gradient)
    pulled = family.pullback(theta, tensor, torch.from_numpy(gradient))
    np.testing.assert_allclose(pulled, slopes, atol=1e-12)
    probs = np.exp(log_softmax(new, axis=1))
    hessian = family.likelihood_hessian(theta, logits, probs, weights)
    if isinstance(family, MonotoneMap):
        tensors = map(torch.from_numpy, (logits, probs, weights))
        np.testing.assert_allclose(family.likelihood_hessian(theta, *tensors), hessian, atol=1e-12)


def test_curved_parameters_are_checked() -> None:
    good = {
        "knots": [-2.0, -1.0],
        "slopes": [1.0, 1.0, 1.0],
        "matrix": np.zeros((3, 3)).tolist(),
        "bias": [0.0, 0.0, 0.0],
    }
    map_ = read_calibrator(CurvedMatrix.kind, good, 3)
    logits = np.log([[0.7, 0.2, 0.1]])
    np.testing.assert_allclose(map_.log_probs(logits), logits)
    wrong = [{"knots": [-1.0, -2.0]}, {"slopes": [1.0]}, {"bias": [0.0]}, {"scale": [1.0]}]
    for change in wrong:
        with pytest.raises(ParamsError):
            read_calibrator(CurvedMatrix.kind, good | change, 3)
    for name in good:
        with pytest.raises(ParamsError):
            read_calibrator(CurvedMatrix.kind, {n: v for n, v in good.items() if n != name}, 3)


def test_folds_of_rows_that_were_drawn_by_class_get_the_shares_of_all() -> None:
    labels = np.repeat(np.arange(30), 50)
    data = folded(np.zeros((1500, 30)), labels)
    for number in range(5):
        inside, outside = cross_fitting.class_factors(data, number)
        rows = data.without_fold(number)
        np.testing.assert_allclose(rows.reweighted(outside).class_weights, 40)
        own = data.class_weights - rows.class_weights
        assert np.ptp(own) > 0
        np.testing.assert_allclose(own * inside, 10)
    drawn = folded(*confused(500))
    assert cross_fitting.class_factors(drawn, 0) == (None, None)


def test_factors_of_classes_multiply() -> None:
    data = folded(*confused(500))
    factors = np.linspace(0.5, 2, 8)
    twice = data.reweighted(factors).reweighted(factors)
    np.testing.assert_allclose(twice.class_weights, data.class_weights * factors**2)


@pytest.mark.parametrize(("shares", "even"), [("exact", True), ("drawn", False), ("tail", False)])
def test_evenness_is_told_from_chance(shares: str, even: bool) -> None:
    rng = np.random.default_rng(0)
    counts = {
        "exact": np.full(20, 100.0),
        "drawn": rng.multinomial(2000, np.full(20, 0.05)).astype(float),
        "tail": np.arange(1.0, 21.0),
    }[shares]
    assert cross_fitting._is_even(counts) is even


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("impossible", [False, True])
@pytest.mark.parametrize(
    "family", [MonotoneMap(pieces=5), GapTemperatureMap(points=5)], ids=["monotone", "gap"]
)
def test_rows_prepared_once_give_all_derivatives(family, impossible: bool, dtype: type) -> None:
    rng = np.random.default_rng(0)
    logits = (2 * rng.standard_normal((40, 70))).astype(dtype)
    labels, weights = rng.integers(0, 30, 40), rng.random(40)
    if impossible:
        logits[rng.random(logits.shape) < 0.2] = -np.inf
        logits[np.arange(40), labels] = 1
    source = ArraySource(logits, labels, weights)
    data = open_data(Engine(), source).normalise()
    family = family.placed(*sample_log_probs(data, family, 40))
    theta = rng.random(family.size(70)) + 0.2
    problem = Problem(data, family, NegativeLogLikelihood(), family.anchor(70, 1.0))
    assert problem.is_prepared
    value, gradient, hessian = problem.derivatives(theta)
    long_value, long_gradient = problem.gradient(theta)
    assert value == pytest.approx(long_value, abs=1e-6)
    np.testing.assert_allclose(gradient, long_gradient, atol=1e-6)
    np.testing.assert_allclose(hessian, problem.hessian(theta), atol=1e-5)
    again = problem.derivatives(theta)
    assert again[0] == value


def test_slopes_so_steep_that_single_precision_has_no_such_number() -> None:
    rng = np.random.default_rng(0)
    logits = log_softmax((rng.standard_normal((9, 80))).astype(np.float32), axis=1)
    labels, weights, theta = logits.argmax(axis=1), np.ones(9), np.array([300.0, 200.0])
    rows = GroupedRows(np.array([-0.1]), logits, labels)
    value = rows.derivatives(theta, weights)[0]
    exact = GroupedRows(np.array([-0.1]), logits.astype(np.float64), labels)
    assert np.isfinite(value)
    assert value == pytest.approx(exact.derivatives(theta, weights)[0], rel=1e-5)


def test_what_was_made_of_tiles_is_kept_within_its_room() -> None:
    kept, made = KeptTiles(100), []

    def make(size: int):
        made.append(size)
        return np.empty(size, np.uint8)

    first = kept.of("a", 0, lambda: make(80))
    assert kept.of("a", 0, lambda: make(80)) is first
    # There is no room for another one, which is made anew each time.
    assert kept.of("a", 80, lambda: make(30)) is not kept.of("a", 80, lambda: make(30))
    kept.of("b", 0, lambda: make(90))
    assert kept.of("a", 0, lambda: make(80)) is not first
    assert made == [80, 30, 30, 90, 80]
    # What is sent elsewhere takes nothing along.
    sent = pickle.loads(pickle.dumps(kept))  # noqa: S301 (written here)
    assert sent.of("a", 0, lambda: np.ones(1)) == 1
