"""Adaptive objectives: what they learn, from which rows, and where that ends."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq, minimize

from calibcli.objectives.adafocal import AdaFocal, BinnedGamma, edges_of_equal_mass
from calibcli.objectives.adaptive import Adaptive
from calibcli.objectives.aurc import Aurc, rank_weights
from calibcli.objectives.cals import Cals, CalsHr
from calibcli.objectives.class_wise import ClassWise, Macro, fit_shape, normalise
from calibcli.objectives.mmce import Mmce
from calibcli.objectives.nll import NegativeLogLikelihood
from calibcli.objectives.registry import OBJECTIVES

ADAPTIVE = [name for name, family in OBJECTIVES.items() if family.learns != "nothing"]

each_objective = pytest.mark.parametrize("name", ADAPTIVE)


def batch(rows: int = 600, classes: int = 5, seed: int = 0) -> tuple[Any, Any]:
    """Overconfident logits of a long-tailed set."""
    rng = np.random.default_rng(seed)
    share = 0.6 ** np.arange(classes)
    labels = rng.choice(classes, rows, p=share / share.sum())
    logits = rng.standard_normal((rows, classes))
    logits[np.arange(rows), labels] += 1.5
    return 4 * (logits + 0.4 * np.log(share)), labels


def learn(objective: Any, logits: Any, labels: Any, weights: Any = None) -> Any:
    return objective.updated(objective.statistic(logits, labels, weights))


def close(left: dict[str, Any], right: dict[str, Any], tolerance: float = 1e-10) -> None:
    assert left.keys() == right.keys()
    for key in left:
        a, b = (np.array(side[key], dtype=float) for side in (left, right))
        np.testing.assert_allclose(a, b, atol=tolerance, rtol=tolerance, err_msg=key)


def nll(logits: Any, labels: Any) -> Any:
    return NegativeLogLikelihood().terms(logits, labels).loss


# What holds for all of them


@each_objective
def test_states_of_blocks_add_up(name: str) -> None:
    logits, labels = batch()
    weights = np.random.default_rng(1).random(len(labels))
    objective = OBJECTIVES[name]()
    cuts = [slice(0, 100), slice(100, 101), slice(101, None)]
    parts = [objective.statistic(logits[c], labels[c], weights[c]) for c in cuts]
    whole = objective.updated(objective.statistic(logits, labels, weights))
    close(objective.updated(parts[0] + parts[1] + parts[2]).trace(), whole.trace())


@each_objective
def test_tensors_teach_the_same(name: str) -> None:
    logits, labels = batch()
    weights = np.random.default_rng(1).random(len(labels))
    objective = OBJECTIVES[name]()
    tensors = [torch.tensor(part) for part in (logits, labels, weights)]
    close(learn(objective, *tensors).trace(), learn(objective, logits, labels, weights).trace())


@each_objective
def test_a_state_can_be_written_down_and_is_no_option(name: str) -> None:
    objective = OBJECTIVES[name]()
    assert isinstance(objective, Adaptive)
    assert objective.trace() == {}
    learned = learn(objective, *batch())
    assert json.loads(json.dumps(learned.trace())) == learned.trace()
    assert learned.options() == objective.options()
    assert learned == objective
    assert objective.settled(objective) == math.inf
    assert learned.settled(objective) == math.inf


@each_objective
def test_the_same_logits_settle_what_does_not_integrate(name: str) -> None:
    logits, labels = batch()
    learned = OBJECTIVES[name]()
    for _ in range(3):
        before, learned = learned, learn(learned, logits, labels)
    change = learned.settled(before)
    if name in ("cals", "adafocal"):
        assert 0 < change < math.inf
    else:
        assert change == 0


@pytest.mark.parametrize("name", [name for name in ADAPTIVE if name not in ("adafocal", "aurc")])
def test_a_weight_of_two_is_a_row_twice(name: str) -> None:
    logits, labels = batch()
    weights = np.ones(len(labels))
    weights[::3] = 2
    twice = np.repeat(np.arange(len(labels)), weights.astype(int))
    weighted = learn(OBJECTIVES[name](), logits, labels, weights)
    repeated = learn(OBJECTIVES[name](), logits[twice], labels[twice])
    close(weighted.trace(), repeated.trace())
    losses = (o.terms(logits, labels).loss for o in (weighted, repeated))
    np.testing.assert_allclose(*losses, rtol=1e-10)


# Class-wise scaling


def test_the_mean_loss_is_the_mean_of_the_scaled_class_losses() -> None:
    logits, labels = batch()
    weights = np.random.default_rng(1).random(len(labels))
    losses = nll(logits, labels)
    by_class = np.array(
        [np.average(losses[labels == k], weights=weights[labels == k]) for k in range(5)]
    )
    for objective in (Macro(), ClassWise(), ClassWise("minmax", 0.3, 1.0)):
        learned = learn(objective, logits, labels, weights)
        factors = np.array(learned.trace().get("factors", np.ones(5)))
        mean = np.average(learned.terms(logits, labels).loss, weights=weights)
        assert mean == pytest.approx((factors * by_class).mean(), rel=1e-12)


def test_worse_classes_count_for_more() -> None:
    state = learn(ClassWise(), *batch()).state
    assert (np.argsort(state.factors) == np.argsort(state.losses)).all()
    assert 0.25 < state.factors.min() < 1 < state.factors.max() < 1.75
    assert learn(ClassWise("minmax"), *batch()).state.factors.min() == 1


@pytest.mark.parametrize("how", ["zscore", "centered", "minmax"])
def test_classes_that_are_equally_good_count_the_same(how: Any) -> None:
    logits, labels = np.tile(3 * np.eye(4), (10, 1)), np.tile(np.arange(4), 10)
    learned = learn(learn(ClassWise(how), logits, labels), 2 * logits, labels)
    np.testing.assert_array_equal(learned.state.factors, np.ones(4))
    np.testing.assert_allclose(learned.weights(logits, labels), 1)


@pytest.mark.parametrize("family", [Macro, ClassWise])
def test_absent_classes_drop_out(family: Any) -> None:
    logits, labels = batch()
    wide = np.insert(logits, 2, -50.0, axis=1)
    moved = labels + (labels >= 2)
    narrow, gapped = family(), family()
    for scale in (1.0, 0.9, 0.8):
        narrow = learn(narrow, scale * logits, labels)
        gapped = learn(gapped, scale * wide, moved)
    kept = [0, 1, 3, 4, 5]
    np.testing.assert_allclose(gapped.by_class[kept], narrow.by_class, rtol=1e-10)
    assert gapped.by_class[2] == 0
    assert np.isfinite(gapped.terms(wide, moved).gradient()).all()


@pytest.mark.parametrize("family", [Macro, ClassWise])
def test_one_class_alone_is_plain_cross_entropy(family: Any) -> None:
    logits, _ = batch(20)
    labels = np.full(20, 3)
    learned = learn(learn(family(), logits, labels), logits / 2, labels)
    np.testing.assert_allclose(learned.weights(logits, labels), 1)


def test_a_class_may_be_absent_from_one_batch_only() -> None:
    logits, labels = batch(200)
    first = labels != 4
    learned = learn(ClassWise(), logits[first], labels[first])
    for scale in (0.9, 0.8):
        learned = learn(learned, scale * logits, labels)
        assert np.isfinite(learned.terms(logits, labels).loss).all()
        assert np.isfinite(learned.state.factors).all()


def test_a_given_shape_is_kept() -> None:
    logits, labels = batch()
    learned = ClassWise(alpha=0.3, beta=1.9)
    for scale in (1.0, 0.9, 0.8):
        learned = learn(learned, scale * logits, labels)
        assert (learned.state.alpha, learned.state.beta) == (0.3, 1.9)


def shape_error(first: Any, losses: Any, normalised: Any, shape: Any) -> float:
    alpha, beta = shape
    weight = beta / (1 + np.exp(-normalised / alpha)) - beta / 2
    return float(np.sqrt(((first - weight * (losses - first) - losses.mean()) ** 2).sum()))


@settings(max_examples=30)
@given(
    seed=st.integers(0, 10_000),
    classes=st.sampled_from([2, 3, 5, 10, 100]),
    change=st.sampled_from([-0.5, -0.05, 0.0, 0.05, 0.5]),
)
def test_the_fitted_shape_is_at_least_as_good_as_scipys(
    seed: int, classes: int, change: float
) -> None:
    rng = np.random.default_rng(seed)
    first = 2 * rng.random(classes)
    losses = first * (1 + change) + 0.02 * rng.random(classes)
    normalised = normalise(losses, "zscore")
    bounds = [(0.1, math.log(classes) / 2), (1.5, 2.0)]
    scipys = minimize(
        lambda shape: shape_error(first, losses, normalised, shape),
        (1.0, 1.5),
        method="SLSQP",
        bounds=bounds,
    )
    ours = fit_shape(first, losses, normalised)
    for value, (low, high) in zip(ours, bounds, strict=True):
        assert low - 1e-12 <= value <= high + 1e-12
    assert shape_error(first, losses, normalised, ours) <= scipys.fun + 1e-9


def test_falling_losses_choose_the_flattest_shape() -> None:
    first = np.linspace(0.5, 2.5, 10)
    losses = 0.9 * first
    assert fit_shape(first, losses, normalise(losses, "zscore")) == (
        pytest.approx(math.log(10) / 2),
        1.5,
    )
    rising = 1.1 * first
    alpha, beta = fit_shape(first, rising, normalise(rising, "zscore"))
    assert alpha < 0.7
    assert beta == 2.0
    assert fit_shape(first, first, normalise(first, "zscore"))[1] == 1.5


@pytest.mark.parametrize(
    ("how", "key"), [("zscore", "ND"), ("centered", "CM"), ("minmax", "MM"), (None, "macro")]
)
def test_the_fixed_point_is_the_published_temperature(
    vectors: dict[str, Any], synthetic: dict[str, Any], how: Any, key: str
) -> None:
    logits, labels = synthetic["fit_logits"].astype(np.float64), synthetic["fit_labels"]
    exact = vectors["sctl_synth"]["exact_float64"]
    expected = exact.get(f"TS_SCTL_{key}_corner(alpha=ln(C)/2,beta=1.5)_fixed_point")
    objective: Any = Macro() if how is None else ClassWise(how)
    expected = exact["TS_macro_CE"] if how is None else expected

    def slope(log_temperature: float) -> float:
        terms = objective.terms(logits * math.exp(-log_temperature), labels)
        return float((terms.gradient() * logits).sum())

    temperature = 1.0
    for _ in range(12):
        objective = learn(objective, logits / temperature, labels)
        temperature = math.exp(brentq(slope, -1, 2, xtol=1e-13))
    assert temperature == pytest.approx(expected["T"], abs=1e-7)
    if how is not None:
        assert objective.state.alpha == pytest.approx(expected["alpha"], abs=1e-9)
        np.testing.assert_allclose(objective.state.factors, expected["factors"], atol=1e-7)
        np.testing.assert_allclose(objective.state.losses, expected["class_losses"], atol=1e-7)


# Class-adaptive label smoothing


def test_a_multiplier_that_turns_around_goes_half_the_way() -> None:
    logits, labels = batch()
    damped, free = Cals(8.0), Cals(8.0, damped=False)
    swings = []
    for number in range(12):
        scaled = logits * (0.1 if number % 2 else 0.8)
        before = damped, free
        damped, free = learn(damped, scaled, labels), learn(free, scaled, labels)
        moves = [
            np.abs(new.state.multiplier - (0 if old.state is None else old.state.multiplier)).max()
            for old, new in zip(before, (damped, free), strict=True)
        ]
        swings.append(moves)
    assert swings[-1][0] < 0.1 * swings[-1][1]
    assert (damped.state.step < 0.1).all()
    assert (free.state.step == 1).all()


def test_strengths_grow_only_where_constraints_are_violated_and_stuck() -> None:
    logits, labels = batch()
    tight, loose = Cals(2.0, period=2), Cals(1e3, period=2)
    for _ in range(6):
        tight, loose = learn(tight, logits, labels), learn(loose, logits, labels)
    assert (tight.state.strength > 1.7).all()
    assert (loose.state.strength == 1).all()
    for _ in range(60):
        tight = learn(tight, logits, labels)
    assert tight.state.strength.max() == 10


def test_a_wide_margin_leaves_plain_cross_entropy() -> None:
    logits, labels = batch()
    for objective in (Cals(1e4), CalsHr(1e4)):
        learned = learn(objective, logits, labels)
        np.testing.assert_allclose(
            learned.terms(logits, labels).loss, nll(logits, labels), atol=1e-9
        )


# AdaFocal


def test_small_validation_sets_have_fewer_bins() -> None:
    logits, labels = batch(170)
    assert len(learn(AdaFocal(), logits, labels).state.gamma) == 3
    assert len(learn(AdaFocal(), logits[:10], labels[:10]).state.gamma) == 1
    assert len(learn(AdaFocal(rows_per_bin=1), logits, labels).state.gamma) == 15


def test_exponents_rise_where_rows_are_overconfident() -> None:
    logits, labels = batch(3000)
    over = learn(AdaFocal(), 3 * logits, labels).state
    assert (over.gap[:10] > 0).all()
    assert (over.gamma[:10] > 1).all()
    under = learn(AdaFocal(), logits / 10, labels).state
    assert (under.gap < 0).all()
    assert (under.gamma < 1).all()


def test_the_exponent_is_that_of_the_bin_of_the_label() -> None:
    state = BinnedGamma(np.array([1.0, 2.0, 3.0]), np.array([0.2, 0.5, 0.8, 0.9]), np.zeros(3))
    exponents = AdaFocal(state=state).exponents(np.array([0.0, 0.49, 0.5, 0.79, 0.8, 1.0]))
    np.testing.assert_array_equal(exponents, [1, 1, 2, 2, 3, 3])


def test_bins_of_equal_mass_follow_the_weights() -> None:
    confidence = np.linspace(0.3, 0.9, 7)
    np.testing.assert_allclose(
        edges_of_equal_mass(confidence, np.ones(7), 3),
        np.interp(np.linspace(0, 7, 4), np.arange(7), confidence),
    )
    heavy = np.array([0, 0, 0, 1, 1, 1, 1.0])
    assert edges_of_equal_mass(confidence, heavy, 2)[0] == pytest.approx(0.6)


# Ranks and pairs


def test_rank_weights_are_harmonic_and_average_one() -> None:
    confidence = np.random.default_rng(0).random(50)
    weights = rank_weights(confidence, np.ones(50))
    harmonic = np.cumsum(1 / np.arange(50, 0, -1))
    np.testing.assert_allclose(weights.weight[1:], harmonic)
    assert weights.weight[1:].mean() == pytest.approx(1)
    np.testing.assert_array_equal(weights.confidence[1:], np.sort(confidence))


def test_tied_rows_share_their_weight() -> None:
    tied = rank_weights(np.array([0.5, 0.9, 0.5, 0.7]), np.ones(4))
    np.testing.assert_allclose(tied.weight[1:], [(1 / 4 + 7 / 12) / 2, 13 / 12, 25 / 12])


def test_aurc_is_the_area_under_the_risk_coverage_curve() -> None:
    logits, labels = batch(200)
    losses = nll(logits, labels)
    confidence = np.exp(-nll(logits, logits.argmax(axis=1)))
    most_confident_first = losses[np.argsort(-confidence)]
    risks = np.cumsum(most_confident_first) / np.arange(1, 201)
    learned = learn(Aurc(), logits, labels)
    assert learned.terms(logits, labels).loss.mean() == pytest.approx(risks.mean(), rel=1e-12)


def test_the_weight_of_aurc_does_not_depend_on_the_label() -> None:
    logits, labels = batch(100)
    learned = learn(Aurc(), logits, labels)
    others = (labels + 1) % 5
    np.testing.assert_allclose(
        learned.weights(logits, labels), learned.weights(logits, others), rtol=1e-9
    )


@pytest.mark.parametrize("weighted", [False, True])
def test_mmce_is_the_sum_over_all_pairs(weighted: bool) -> None:
    logits, labels = batch(80)
    logits[10:20] = logits[0]  # tied confidences
    weights = np.random.default_rng(1).random(80) if weighted else np.ones(80)
    confidence = np.exp(-nll(logits, logits.argmax(axis=1)))
    residual = weights * ((logits.argmax(axis=1) == labels) - confidence) / weights.sum()
    kernel = np.exp(-np.abs(confidence[:, None] - confidence) / 0.4)
    square = residual @ kernel @ residual
    learned = learn(Mmce(2.0), logits, labels, weights)
    assert learned.trace()["mmce_squared"] == pytest.approx(square, rel=1e-12)
    mean = np.average(learned.terms(logits, labels).loss, weights=weights)
    plain = np.average(nll(logits, labels), weights=weights)
    assert mean == pytest.approx(plain + 2 * square, rel=1e-12)


def test_the_gradient_of_mmce_is_that_of_the_whole() -> None:
    logits, labels = batch(60)
    direction = np.random.default_rng(1).standard_normal(logits.shape)

    def value(step: float) -> float:
        moved = logits + step * direction
        return float(learn(Mmce(5.0), moved, labels).terms(moved, labels).loss.mean())

    terms = learn(Mmce(5.0), logits, labels).terms(logits, labels)
    slope = (value(1e-6) - value(-1e-6)) / 2e-6
    assert terms.along(direction)[0].mean() == pytest.approx(slope, rel=1e-6)


def test_before_it_has_learnt_anything_an_objective_is_defined() -> None:
    logits, labels = batch(50)
    for name in ADAPTIVE:
        terms = OBJECTIVES[name]().terms(logits, labels)
        assert np.isfinite(terms.gradient()).all()
    for objective in (Macro(), ClassWise(), Aurc(), replace(Mmce(), strength=3.0)):
        np.testing.assert_allclose(objective.terms(logits, labels).loss, nll(logits, labels))
