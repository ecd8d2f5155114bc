"""One-vs-rest curves: isotonic, centred isotonic, spline, histograms and their averages."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.interpolate import CubicSpline
from scipy.optimize import minimize
from scipy.special import betaln, expit, log_softmax, logit
from scipy.stats import spearmanr
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

import calibcli
from calibcli.calibrators.binning import BbqMap, HistogramMap, ScalingBinningMap, cuts, platt_values
from calibcli.calibrators.curves import CurveMap, OneVsRest, log_odds
from calibcli.calibrators.isotonic import CenteredIsotonicMap, IsotonicMap
from calibcli.calibrators.registry import MAPS, read_calibrator
from calibcli.calibrators.spline import SplineCurves, SplineMap, bends, roughness, spline_basis
from calibcli.engine.data import open_data
from calibcli.engine.engine import Engine
from calibcli.engine.source import ArraySource
from calibcli.errors import ParamsError, UsageError
from calibcli.fitting import class_curves as fitting
from calibcli.fitting.class_curves import pool_scores
from calibcli.params import Params, Stage, decode, encode

OWN = ("spline", "isotonic", "centered-isotonic", "histogram", "scaling-binning", "bbq")
MONOTONE = ("isotonic", "centered-isotonic")
WITH_ZERO = ("isotonic", "centered-isotonic", "histogram")
QUANTILE = {"histogram.spacing": "quantile"}

each_method = pytest.mark.parametrize("method", OWN)
few_examples = settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])


def sample(rows: int = 600, classes: int = 4, seed: int = 0):
    """Overconfident float64 logits whose labels follow another temperature and a bias."""
    rng = np.random.default_rng(seed)
    logits = 3 * rng.standard_normal((rows, classes))
    truth = logits / 3 + 0.3 * np.arange(classes)
    return logits, (truth + rng.gumbel(size=logits.shape)).argmax(axis=1)


fit = partial(calibcli.fit, folds=0)


def binary(scores) -> np.ndarray:
    """Logits (n, 2) with these log-odds of class 1."""
    scores = np.asarray(scores, float)
    return np.stack((np.zeros_like(scores), scores), axis=1)


def fit_binary(family: CurveMap, scores, labels, weights=None):
    """The calibrator of two classes, and its probabilities of class 1 at the scores."""
    scores, labels = np.asarray(scores, float), np.asarray(labels)
    weights = np.ones(len(scores)) if weights is None else np.asarray(weights, float)
    calibrator = family.calibrator([family.fit(pool_scores(scores, labels == 1, weights))])
    return calibrator, calibrator.probs(binary(scores))[:, 1]


# The log-odds that curves see


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("classes", [2, 3, 7])
def test_log_odds_are_those_of_the_probabilities(classes, dtype, rng):
    logits = (rng.standard_normal((50, classes)) * 3).astype(dtype)
    log_probs = log_softmax(logits.astype(np.float64), axis=1)
    expected = log_probs - np.log(-np.expm1(log_probs))
    found = log_odds(np.asfortranarray(logits))
    assert found.dtype == dtype
    columns = expected[:, 1:] if classes == 2 else expected
    np.testing.assert_allclose(found, columns, rtol=20 * np.finfo(dtype).eps, atol=1e-6)


def test_log_odds_of_a_nearly_certain_class_are_exact():
    logits = np.array([[60.0, 0.0, 1.0], [200.0, 0.0, -np.inf]], np.float32)
    found = log_odds(logits)
    np.testing.assert_allclose(found[0, 0], 60 - np.log(1 + np.e), rtol=1e-6)
    assert found[1, 0] == pytest.approx(87.3, abs=0.1)
    assert found[1, 2] == -np.inf


# Each method against an oracle


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("weighted", [False, True])
def test_isotonic_is_that_of_scikit_learn(classes, weighted, rng):
    logits, labels = sample(800, classes)
    # A tenth of the scores occur more than once.
    logits[100:180] = logits[:80]
    weights = rng.integers(1, 4, 800).astype(float) if weighted else None
    found = fit(
        logits,
        labels,
        method="isotonic",
        weights=weights,
        options={"isotonic.allow-zero": True},
    ).predict_proba(logits)
    odds = log_odds(logits)
    values = [
        IsotonicRegression()
        .fit(column, labels == (k if classes > 2 else 1), sample_weight=weights)
        .predict(column)
        for k, column in enumerate(odds.T)
    ]
    expected = np.stack(values, axis=1) if classes > 2 else np.stack((1 - values[0], values[0]), 1)
    np.testing.assert_allclose(found, expected / expected.sum(axis=1, keepdims=True), atol=1e-12)


class Softmax:
    """A classifier that has been fitted elsewhere, as scikit-learn sees it."""

    def __init__(self, classes: int) -> None:
        self.classes_ = np.arange(classes)

    def fit(self, logits, labels):
        return self

    def predict_proba(self, logits):
        return np.exp(log_softmax(logits, axis=1))

    def predict(self, logits):
        return logits.argmax(axis=1)

    def __sklearn_tags__(self):
        return LogisticRegression().__sklearn_tags__()

    def __sklearn_is_fitted__(self):
        return True


def test_isotonic_is_that_of_a_calibrated_classifier():
    logits, labels = sample(500, 3)
    theirs = CalibratedClassifierCV(FrozenEstimator(Softmax(3)), method="isotonic", cv=2)
    theirs.fit(logits, labels)
    # Its two folds share the frozen classifier, so that each of its curves has seen half of the
    # rows; on average they are close to a fit of all.
    ours = fit(logits, labels, method="isotonic").predict_proba(logits)
    assert np.abs(theirs.predict_proba(logits) - ours).mean() < 0.05


def test_pure_blocks_get_half_a_row_of_the_other_outcome():
    scores = np.arange(8.0)
    _, found = fit_binary(IsotonicMap(), scores, [0, 0, 0, 1, 0, 1, 1, 1])
    np.testing.assert_allclose(found, [0.125] * 3 + [0.5] * 2 + [0.875] * 3)
    # Half a row would be more than the next block has: it takes that block's value.
    _, found = fit_binary(IsotonicMap(), np.arange(12.0), [0] + [1] + [0] * 10)
    np.testing.assert_allclose(found, np.repeat([1 / 11, 1 / 11], [1, 11]))


def test_centered_isotonic_has_a_point_for_each_block():
    scores = np.array([0.0, 1.0, 2.0, 4.0, 5.0, 9.0])
    calibrator, _ = fit_binary(CenteredIsotonicMap(), scores, [0, 1, 0, 1, 0, 1])
    # Blocks: {0}: 0, {1, 2} and {4, 5}: 1/2 (one block, since their values are the same), {9}: 1.
    np.testing.assert_allclose(calibrator.scores, [0, 3, 9])
    np.testing.assert_allclose(calibrator.values, [0.25, 0.5, 0.75])
    _, found = fit_binary(CenteredIsotonicMap(), scores, [0, 1, 0, 1, 0, 1])
    assert (np.diff(found) > 0).all()


def test_a_pure_block_of_the_centered_form_stays_flat():
    scores = np.arange(6.0)
    _, found = fit_binary(CenteredIsotonicMap(allow_zero=True), scores, [0, 0, 0, 1, 0, 1])
    np.testing.assert_allclose(found[:3], 0)
    assert 0 < found[3] < found[4] < found[5] == 1


@pytest.mark.parametrize("bins", [1, 7, 10])
def test_uniform_bins_hold_their_shares(bins, rng):
    scores = rng.normal(size=500) * 2
    labels = rng.random(500) < expit(scores / 2)
    _, found = fit_binary(HistogramMap(bins), scores, labels)
    place = np.minimum((expit(scores) * bins).astype(int), bins - 1)
    for each in np.unique(place):
        inside = place == each
        share = labels[inside].mean()
        if 0 < share < 1:
            np.testing.assert_allclose(found[inside], share)
        else:
            n = inside.sum()
            np.testing.assert_allclose(found[inside], (labels[inside].sum() + 0.5) / (n + 1))


def test_an_empty_bin_says_what_its_middle_says():
    calibrator, _ = fit_binary(HistogramMap(4), logit([0.1, 0.9]), [0, 1])
    found = calibrator.probs(binary(logit(np.array([0.3, 0.6]))))[:, 1]
    np.testing.assert_allclose(found, [0.375, 0.625])


def test_quantile_bins_hold_equally_many_rows(rng):
    scores = rng.normal(size=1000)
    labels = rng.random(1000) < expit(scores)
    _, found = fit_binary(HistogramMap(8, "quantile"), scores, labels)
    order = np.argsort(scores)
    means = labels[order].reshape(8, 125).mean(axis=1)
    np.testing.assert_allclose(found[order], np.repeat(means, 125))


def test_scaling_binning_gives_the_bin_means_of_a_platt_curve(rng):
    scores = rng.normal(size=1000) * 2
    labels = rng.random(1000) < expit(scores / 2 - 0.5)
    _, found = fit_binary(ScalingBinningMap(5), scores, labels)
    values = platt_values(pool_scores(scores, labels, np.ones(1000)))
    np.testing.assert_allclose(np.sort(found), np.repeat(values.reshape(5, 200).mean(axis=1), 200))
    came = labels.sum()
    targets = np.where(labels, (came + 1) / (came + 2), 1 / (1000 - came + 2))

    def loss(theta):
        at = theta[0] * scores + theta[1]
        return np.logaddexp(0, at).sum() - targets @ at

    best = minimize(loss, [1.0, 0.0], method="BFGS", options={"gtol": 1e-8})
    np.testing.assert_allclose(values, expit(np.sort(scores) * best.x[0] + best.x[1]), atol=1e-7)


def test_bbq_weighs_histograms_by_their_marginal_likelihood(rng):
    rows = 27
    scores = np.sort(rng.normal(size=rows))
    labels = rng.random(rows) < expit(scores)
    values, evidence = [], []
    for bins in range(1, 7):  # from 27^(1/3) / 2 to 27^(1/3) * 2
        cut = np.concatenate(([0], cuts(np.arange(1.0, rows + 1), bins), [rows]))
        edges = expit((scores[cut[1:-1] - 1] + scores[cut[1:-1]]) / 2)
        bounds = np.concatenate(([0], edges, [1]))
        middles = (bounds[1:] + bounds[:-1]) / 2
        one, zero = 2 / bins * middles, 2 / bins * (1 - middles)
        counts = np.diff(cut)
        came = np.add.reduceat(labels.astype(float), cut[:-1])
        evidence.append((betaln(came + one, counts - came + zero) - betaln(one, zero)).sum())
        values.append(np.repeat((came + one) / (counts + 2 / bins), counts))
    weights = np.exp(np.array(evidence) - max(evidence))
    expected = weights @ np.array(values) / weights.sum()
    _, found = fit_binary(BbqMap(spread=2), scores, labels)
    np.testing.assert_allclose(found, expected, rtol=2e-3)


@pytest.mark.parametrize("count", [3, 4, 9])
def test_splines_are_the_natural_ones_of_scipy(count, rng):
    knots = np.cumsum(rng.random(count) + 0.1)
    values = rng.normal(size=count)
    inside = np.linspace(knots[0], knots[-1], 50)
    spline = CubicSpline(knots, values, bc_type="natural")
    np.testing.assert_allclose(spline_basis(knots, inside) @ values, spline(inside), atol=1e-10)
    np.testing.assert_allclose(bends(knots) @ values, spline(knots, 2), atol=1e-9)
    curvature = spline.derivative(2)
    fine = np.linspace(knots[0], knots[-1], 20_001)
    integral = np.trapezoid(curvature(fine) ** 2, fine)
    np.testing.assert_allclose(values @ roughness(knots) @ values, integral, rtol=1e-4)
    for end, away in ((knots[0], -2.0), (knots[-1], 2.0)):
        straight = spline(end) + away * spline(end, 1)
        np.testing.assert_allclose(spline_basis(knots, np.array([end + away])) @ values, straight)


def test_a_spline_finds_a_curve_that_bends_and_keeps_a_line_straight(rng):
    scores = rng.normal(size=20_000) * 2
    for truth in (np.arctan(2 * scores), 0.4 * scores - 1):
        labels = rng.random(len(scores)) < expit(truth)
        _, found = fit_binary(SplineMap(), scores, labels)
        inner = np.abs(scores) < 4
        assert np.abs(logit(found) - truth)[inner].max() < 0.25


# What holds of all of them


@each_method
@pytest.mark.parametrize("classes", [2, 5])
def test_probabilities_are_probabilities(method, classes):
    logits, labels = sample(400, classes)
    found = fit(logits, labels, method=method).predict_proba(logits * 3)
    assert found.min() > 0
    assert method == "spline" or found.max() < 1
    np.testing.assert_allclose(found.sum(axis=1), 1)


@each_method
@pytest.mark.parametrize("classes", [2, 4])
def test_the_order_of_rows_does_not_matter(method, classes, rng):
    logits, labels = sample(300, classes)
    order = rng.permutation(300)
    first, second = (
        fit(logits[o], labels[o], method=method).predict_proba(logits)
        for o in (np.arange(300), order)
    )
    np.testing.assert_allclose(first, second, rtol=1e-5 if method == "spline" else 1e-9)


@each_method
@pytest.mark.parametrize("classes", [2, 4])
def test_weights_are_repetitions(method, classes, rng):
    logits, labels = sample(250, classes)
    times = rng.integers(0, 4, 250)
    weighted = fit(logits, labels, method=method, weights=times)
    repeated = fit(logits.repeat(times, axis=0), labels.repeat(times), method=method)
    np.testing.assert_allclose(
        weighted.predict_proba(logits), repeated.predict_proba(logits), rtol=1e-6
    )


@pytest.mark.parametrize("method", MONOTONE)
@few_examples
@given(data=st.data())
def test_monotone_curves_rise_with_the_score(method, data):
    rows = data.draw(st.integers(1, 60))
    # Few values, so that there are ties.
    scores = data.draw(arrays(np.float64, rows, elements=st.integers(-6, 6).map(float)))
    labels = data.draw(arrays(np.int64, rows, elements=st.integers(0, 1)))
    weights = data.draw(arrays(np.float64, rows, elements=st.floats(0.01, 5)))
    calibrator, found = fit_binary(MAPS[method](), scores, labels, weights)
    assert ((found > 0) & (found < 1)).all()
    grid = calibrator.probs(binary(np.linspace(-8, 8, 161)))[:, 1]
    assert np.diff(grid).min() >= -1e-15
    if len(set(found)) > 1:
        assert spearmanr(scores, found).statistic > 0


@each_method
@few_examples
@given(data=st.data())
def test_any_rows_can_be_fitted(method, data):
    rows, classes = data.draw(st.integers(1, 12)), data.draw(st.integers(2, 4))
    element = st.floats(-50, 50, width=32)
    logits = data.draw(arrays(np.float32, (rows, classes), elements=element))
    labels = data.draw(arrays(np.int64, rows, elements=st.integers(0, classes - 1)))
    found = fit(logits, labels, method=method)
    probs = found.predict_proba(logits)
    assert probs.min() > 0
    np.testing.assert_allclose(probs.sum(axis=1), 1, rtol=1e-5)
    stage = found.stages[-1]
    again = read_calibrator(stage.kind, stage.parameters(), classes)
    np.testing.assert_array_equal(again.log_probs(logits), stage.log_probs(logits))


@each_method
@pytest.mark.parametrize("rows", [1, 2, 30])
@pytest.mark.parametrize("classes", [2, 3])
def test_constant_scores_give_the_shares_of_the_classes(method, rows, classes):
    labels = np.arange(rows) % 2
    found = fit(np.zeros((rows, classes)), labels, method=method)
    probs = found.predict_proba(np.zeros((1, classes)))[0]
    assert probs.sum() == pytest.approx(1)
    assert (probs > 0).all()
    if rows == 30 and classes == 2:
        np.testing.assert_allclose(probs, 0.5, atol=1e-6)
    if rows == 30 and classes == 3:
        assert probs[0] == pytest.approx(probs[1])
        assert probs[2] < 0.1


@each_method
def test_one_class_only(method):
    logits, _ = sample(200, 2)
    found = fit(logits, np.ones(200, int), method=method).predict_proba(logits)
    assert 0.9 < np.median(found[:, 1]) < 1


@each_method
def test_an_absent_class_becomes_improbable_but_not_impossible(method):
    logits, labels = sample(600, 4)
    kept = labels != 2
    found = fit(logits[kept], labels[kept], method=method).predict_proba(logits)
    assert 0 < found[:, 2].mean() < 0.1
    assert found[:, 2].min() > 0


@each_method
@pytest.mark.parametrize("classes", [2, 4])
def test_impossible_classes_stay_so_and_teach_nothing(method, classes, rng):
    logits, labels = sample(500, classes)
    masked = logits.copy()
    mask = rng.random(logits.shape) < 0.2
    mask[np.arange(500), labels] = False
    masked[mask] = -np.inf
    found = fit(masked, labels, method=method).predict_proba(masked)
    assert (found[mask] == 0).all()
    assert (found[~mask] > 0).all()
    np.testing.assert_allclose(found.sum(axis=1), 1)
    if classes == 2 and method != "spline":  # Laplace's rule before it counts all rows
        whole = ~mask.any(axis=1)
        alone = fit(masked[whole], labels[whole], method=method).predict_proba(logits)
        np.testing.assert_allclose(
            fit(masked, labels, method=method).predict_proba(logits), alone, rtol=1e-9
        )


def test_a_class_that_is_never_possible_gets_some_curve():
    logits, labels = sample(300, 3)
    logits[:, 2], labels = -np.inf, labels % 2
    for method in OWN:
        found = fit(logits, labels, method=method).predict_proba(logits)
        assert (found[:, 2] == 0).all()
        assert np.isfinite(found).all()


# Exact zeros


@pytest.mark.parametrize("method", WITH_ZERO)
@pytest.mark.parametrize("classes", [2, 4])
def test_zeros_come_out_where_they_are_allowed(method, classes):
    logits, labels = sample(300, classes)
    options = {f"{method}.allow-zero": True}
    if method == "histogram":
        options |= {"histogram.bins": 50}
    found = fit(logits, labels, method=method, options=options)
    probs = found.predict_proba(logits)
    assert (probs == 0).any()
    np.testing.assert_allclose(probs.sum(axis=1), 1)


def test_a_row_whose_classes_all_get_zero_keeps_its_probabilities():
    stage = OneVsRest(np.ones(3), np.zeros(3), np.zeros(3), "linear")
    logits = np.array([[1.0, 2.0, 0.0], [0.0, -np.inf, 1.0]])
    np.testing.assert_allclose(stage.log_probs(logits), log_softmax(logits, axis=1))


def test_allow_zero_of_the_command_line(calib_here, sample_data):
    file = sample_data / "digits_longtail_val.npz"
    arguments = ("fit", file, "-q", "--force", "--format", "json", "-o", "x.npz")
    for flags, allowed in (((), False), (("--allow-zero",), True)):
        code, out, _ = calib_here(*arguments, "-m", "temperature,isotonic", *flags)
        assert code == 0
        assert json.loads(out)["options"]["isotonic"]["allow_zero"] is allowed
        with np.load("x.npz") as found:
            assert (found["probs"] == 0).any() == allowed
    code, _, err = calib_here(*arguments, "-m", "spline", "--allow-zero")
    assert (code, err.count("\n")) == (2, 1)
    assert "spline never gives a probability of exactly 0 or 1" in err
    code, _, err = calib_here(*arguments, "-m", "isotonic,temperature", "--allow-zero")
    assert code == 2
    assert "it must be the last stage" in err


# Blocks, memory, folds


@each_method
@pytest.mark.parametrize("classes", [2, 6])
def test_the_result_does_not_depend_on_passes_or_threads(method, classes, monkeypatch):
    logits, labels = sample(500, classes)
    monkeypatch.setattr("calibcli.engine.engine._TILE_ELEMENTS", {"cpu": 256})
    calibrators = []
    for threads, at_once in ((1, classes), (3, 1), (2, 2)):
        share = fitting._Share(at_once, 1, threads)
        monkeypatch.setattr(fitting, "_share_out", lambda *_, share=share: share)
        data = open_data(Engine(threads=threads), ArraySource(logits, labels), folds=5)
        found = fitting.fit_curves(data, MAPS[method]())
        assert found.passes == -(-(1 if classes == 2 else classes) // at_once)
        assert found.notes == ()
        calibrators.append(found.calibrator)
    for other in calibrators[1:]:
        for name, value in other.parameters().items():
            np.testing.assert_array_equal(value, calibrators[0].parameters()[name])


def test_classes_share_the_memory_and_rows_are_thinned_out_where_that_is_not_enough():
    logits, labels = sample(20_000, 6)
    data = open_data(Engine(threads=1, memory=1 << 40), ArraySource(logits, labels))
    whole = fitting.fit_curves(data, IsotonicMap())
    assert (whole.passes, whole.notes) == (1, ())
    for memory, passes, thinned in ((4_000_000, 2, False), (1_000_000, 6, True)):
        small = open_data(Engine(threads=1, memory=memory), ArraySource(logits, labels))
        found = fitting.fit_curves(small, IsotonicMap())
        assert found.passes == passes
        assert bool(found.notes) == thinned
        if thinned:
            assert found.notes[0].startswith("isotonic: fitted to one row in 3,")
        difference = np.abs(found.calibrator.probs(logits) - whole.calibrator.probs(logits))
        assert difference.mean() < (0.05 if thinned else 1e-12)


@each_method
def test_cross_fitting_leaves_the_fold_out(method):
    logits, labels = sample(300, 3)
    data = open_data(Engine(), ArraySource(logits, labels), folds=3)
    without = fitting.fit_curves(data.without_fold(1), MAPS[method]()).calibrator
    kept = data.split.at(np.arange(300)) != 1
    rows = open_data(Engine(), ArraySource(logits[kept], labels[kept]))
    alone = fitting.fit_curves(rows, MAPS[method]()).calibrator
    np.testing.assert_allclose(without.probs(logits), alone.probs(logits), rtol=1e-9)


@each_method
def test_a_fit_for_other_class_shares_is_one_to_reweighted_rows(method):
    logits, labels = sample(400, 3)
    shares = np.bincount(labels) / 400
    target = (0.2, 0.2, 0.6)
    found = fit(logits, labels, method=method, target_prior=target)
    weights = (np.array(target) / shares)[labels]
    expected = fit(logits, labels, method=method, weights=weights)
    np.testing.assert_allclose(
        found.predict_proba(logits), expected.predict_proba(logits), rtol=1e-6
    )


def test_curves_follow_other_stages():
    logits, labels = sample(500, 4)
    found = fit(logits, labels, method="temperature,isotonic,temperature")
    assert [stage.kind for stage in found.stages] == ["temperature", "one-vs-rest", "temperature"]
    # A temperature keeps the order of two classes' rows, and so isotonic regression.
    two, labels = sample(500, 2)
    plain, after = (
        fit(two, labels, method=m).predict_proba(two) for m in ("isotonic", "temperature,isotonic")
    )
    np.testing.assert_allclose(plain, after, atol=1e-12)


def test_losses_are_refused_in_a_line():
    logits, labels = sample(50, 2)
    with pytest.raises(UsageError, match="isotonic minimises no loss"):
        fit(logits, labels, method="temperature,isotonic", loss="brier")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"histogram.bins": 0}, "histogram: bins must lie between 1 and 10,000"),
        ({"histogram.bins": "x"}, "histogram.bins must be a whole number"),
        ({"histogram.spacing": "log"}, "histogram.spacing is one of uniform, quantile"),
        ({"histogram.allow-zero": 3}, "histogram.allow-zero must be true or false"),
        ({"spline.knots": 1}, "spline.knots must be at least 2"),
        ({"spline.knots": 201}, "knots must not be more than 200"),
        ({"bbq.spread": 0.5}, "bbq.spread must be at least 1"),
    ],
)
def test_options_are_checked(options, message):
    (name,) = options
    logits, labels = sample(50, 2)
    with pytest.raises(UsageError, match=message):
        fit(logits, labels, method=name.split(".", maxsplit=1)[0], options=options)


# Parameter files


GOOD = {
    "interpolation": "linear",
    "counts": [2, 1, 2],
    "scores": [0.0, 1.0, 0.5, -1.0, 3.0],
    "values": [0.0, 1.0, 0.5, 0.25, 0.75],
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"interpolation": "cubic"}, "interpolation is 'cubic'"),
        ({"counts": [2, 3]}, "counts has shape"),
        ({"counts": [2, 0, 3]}, "counts must be whole numbers from 1"),
        ({"counts": [2, 1, 1]}, "counts must be whole numbers from 1"),
        ({"counts": [1.5, 1.5, 2]}, "counts must be whole numbers from 1"),
        ({"scores": [1.0, 1.0, 0.5, -1.0, 3.0]}, "must be in ascending order"),
        ({"scores": [0.0, 1.0, 0.5, -1.0, float("inf")]}, "is not a finite number"),
        ({"values": [0.0, 1.1, 0.5, 0.25, 0.75]}, "values must lie between 0 and 1"),
        ({"values": [0.0, 1.0]}, "values has shape"),
        ({"extra": 1}, "unknown parameter 'extra'"),
    ],
)
def test_parameters_are_checked(change, message):
    read_calibrator(OneVsRest.kind, GOOD, 3)
    with pytest.raises(ParamsError, match=message):
        read_calibrator(OneVsRest.kind, {**GOOD, **change}, 3)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("slope", [-2.0, 0.0, 2.0])
def test_a_spline_takes_what_is_certain_whatever_its_slope(classes, slope):
    curves = 1 if classes == 2 else classes
    knots, values = np.tile([0.0, 1.0], curves), np.tile([0.0, slope], curves)
    stage = SplineCurves(np.full(curves, 2.0), knots, values)
    logits = np.full((classes, classes), -np.inf)
    np.fill_diagonal(logits, 1.0)
    np.testing.assert_array_equal(stage.probs(logits), np.eye(classes))


def test_splines_have_parameters_of_their_own():
    good = {name: GOOD[name] for name in ("counts", "scores")} | {"values": [-3, 9, 0, 1, 2]}
    stage = read_calibrator(SplineCurves.kind, good, 3)
    assert np.isfinite(stage.log_probs(np.array([[1.0, 2.0, 300.0]]))).all()
    with pytest.raises(ParamsError, match="unknown parameter 'interpolation'"):
        read_calibrator(SplineCurves.kind, good | {"interpolation": "linear"}, 3)


@each_method
@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("safetensors", [False, True])
def test_files_give_back_every_bit(method, classes, safetensors):
    logits, labels = sample(300, classes)
    stage = fit(logits, labels, method=method).stages[-1]
    params = Params(classes, "logits", (Stage(stage.kind, stage.parameters()),))
    (found,) = decode(encode(params, safetensors=safetensors)).stages
    again = read_calibrator(found.kind, found.parameters, classes)
    np.testing.assert_array_equal(again.log_probs(logits), stage.log_probs(logits))


@each_method
def test_apply_gives_the_probabilities_of_the_fit(method, calib_here, sample_data):
    val = sample_data / "digits_val.parquet"
    names = ("-p", "p.json", "-o", "fit.npz")
    code, out, _ = calib_here("fit", val, "-q", "-m", method, *names, "--format", "json")
    assert code == 0
    report = json.loads(out)
    assert report["fit"]["converged"]
    nll = {part: report[part]["metrics"]["nll"]["value"] for part in ("before", "after")}
    assert nll["after"] < 2 * nll["before"]
    assert calib_here("apply", "p.json", val, "-q", "-o", "apply.npz")[0] == 0
    with np.load("fit.npz") as first, np.load("apply.npz") as second:
        np.testing.assert_array_equal(first["probs"], second["probs"])


@pytest.mark.slow
def test_the_command_fits_in_a_process_of_its_own(calib, sample_data, tmp_path: Path):
    done = calib("fit", sample_data / "digits_val.parquet", "-m", "isotonic", "-p", "p.safetensors")
    assert done.returncode == 0, done.stderr
    assert b"one-vs-rest" in done.stdout
    shown = calib("inspect", "p.safetensors").stdout
    assert b"one-vs-rest: " in shown
    assert (tmp_path / "digits_val.calibrated.parquet").is_file()
    listed = calib("methods", "isotonic").stdout
    assert b"grow with the rows" in listed
    assert b"isotonic.allow-zero=False" in listed


# Real data


@pytest.mark.parametrize("name", ["fastml_rf_adult", "fte_nba_games", "dgj_solarflare_c1_daffs"])
def test_a_spline_is_never_worse_than_platt_on_held_out_rows(name, shared_data):
    with np.load(shared_data / "data" / name / "all.npz") as stored:
        probs, labels = stored["probs"], stored["labels"]
    found = {
        method: calibcli.fit(probs, labels, method=method, input="probs").outcome.after.values[
            "nll"
        ]
        for method in ("platt", "spline", "isotonic", "centered-isotonic")
    }
    assert found["spline"] < found["platt"] + 0.002
    assert found["spline"] < found["isotonic"]
    assert found["centered-isotonic"] < found["isotonic"] + 0.001


def test_a_curve_is_described_by_what_it_makes_of_probabilities():
    scores, values = np.array([-1.0, 1.0]), np.array([0.25, 0.75])
    one = OneVsRest(np.array([2.0]), scores, values, "linear")
    assert one.summary() == "10 % becomes 25 %, 50 % 50 %, 90 % 75 %; 2 points"
    three = OneVsRest(
        np.array([2.0, 1.0, 1.0]), np.append(scores, [0, 0]), np.append(values, [0.2, 1]), "step"
    )
    assert (
        three.summary() == "10 % becomes 20 to 100 %, 50 % 20 to 100 %, 90 % 20 to 100 %; 4 points"
    )
    straight = SplineCurves(np.array([2.0]), scores, 2 * scores)
    assert straight.summary() == "10 % becomes 1.22 %, 50 % 50 %, 90 % 98.8 %; 2 points"
