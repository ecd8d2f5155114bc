"""Objectives against what the authors' own code gives, on the batch of the reference vectors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from objective_oracles import learnt, multipliers

from calibcli.objectives.acls import Acls
from calibcli.objectives.adafocal import AdaFocal, BinnedGamma
from calibcli.objectives.aurc import Aurc
from calibcli.objectives.base import Objective
from calibcli.objectives.brier import Brier
from calibcli.objectives.bsce import Bsce, BsceGra
from calibcli.objectives.cals import PENALTIES, Cals, CalsHr, Strengths
from calibcli.objectives.class_wise import ClassWise, factors, normalise
from calibcli.objectives.dual_focal import DualFocal, DualFocalGra
from calibcli.objectives.focal import Flsd, Focal, FocalGra, InverseFocal
from calibcli.objectives.label_smoothing import LabelSmoothing
from calibcli.objectives.mbls import Mbls
from calibcli.objectives.mmce import Mmce
from calibcli.objectives.nll import NegativeLogLikelihood

ROWS, CLASSES = 8, 4
SUM, MEAN = 1.0, 1 / ROWS
# The paper of class-wise scaling sums the class losses; here they are averaged.
OVER_CLASSES = CLASSES / ROWS

MIXED_LAMBDA, MIXED_RHO = [0.02, 0.5, 1.0, 0.1], [1.0, 1.2, 2.0, 1.0]
MIXED_STRENGTH = Strengths(np.array([0.05, 0.1, 0.2, 0.4]), np.ones(CLASSES))
MIXED_BINS = BinnedGamma(
    np.array([1.7, 0.6, -0.3, -1.5, 4.0]),
    np.array([0.0, 0.31, 0.47, 0.66, 0.9, 0.999]),
    np.zeros(5),
)

CASES: list[tuple[str, Objective, float]] = [
    ("ce_mean", NegativeLogLikelihood(), MEAN),
    ("ce_sum", NegativeLogLikelihood(), SUM),
    ("brier_mean", Brier(), MEAN),
    ("focal_g3_sum", Focal(3.0), SUM),
    ("focal_g3_mean", Focal(3.0), MEAN),
    ("flsd53_sum", Flsd(), SUM),
    ("zhou_inverse_focal_g2_mean", InverseFocal(2.0), MEAN),
    ("dual_focal_g2_sum", DualFocal(2.0), SUM),
    ("dual_focal_g5_sum", DualFocal(5.0), SUM),
    ("focal_gra_g3_sum", FocalGra(3.0), SUM),
    ("sctl_repo_focal_g3_detached_mean", FocalGra(3.0), MEAN),
    ("flsd53_gra_sum", FocalGra(3.0, adaptive_gamma=True), SUM),
    ("dual_focal_gra_g5_sum_FULLY_DETACHED", DualFocalGra(5.0), SUM),
    ("dual_focal_gra_g5_sum_AS_CODED", DualFocalGra(5.0, "rival"), SUM),
    *((f"bsce_norm{n}_g{g}_sum", Bsce(g, n), SUM) for n in (1, 2) for g in (1, 2, 3)),
    *((f"bsce_gra_norm{n}_g{g}_sum", BsceGra(g, n), SUM) for n in (1, 2) for g in (1, 2, 3)),
    ("bsce_adaptive_gra_norm2_sum", BsceGra(3.0, 2, adaptive_gamma=True), SUM),
    ("label_smoothing_0.05_mean", LabelSmoothing(0.05), MEAN),
    ("sctl_repo_label_smoothing_0.05_mean", LabelSmoothing(0.05), MEAN),
    ("mbls_m10_a0.1", Mbls(), MEAN),
    ("mbls_m2_a0.1", Mbls(2.0), MEAN),
    ("acls_m10", Acls(form="published"), MEAN),
    ("acls_m2", Acls(2.0, form="published"), MEAN),
    ("mmce_m_plus_ce_lam1", Mmce(), MEAN),
    ("zhou_aurc_msp_mean", Aurc(), MEAN),
    ("cals_hr_m2_lambda0.1", CalsHr(2.0), MEAN),
    ("cals_hr_m2_lambda_mixed", CalsHr(2.0, state=MIXED_STRENGTH), MEAN),
    ("cals_alm_init_m2_total", Cals(2.0), MEAN),
    ("cals_alm_mixed_m2_total", Cals(2.0, state=multipliers(MIXED_LAMBDA, MIXED_RHO)), MEAN),
    ("adafocal_initial_5eqwidth_bins_gamma1_sum", AdaFocal(), SUM),
    ("adafocal_mixed_bins_sum", AdaFocal(state=MIXED_BINS), SUM),
    ("sctl_step0_ND", ClassWise("zscore"), OVER_CLASSES),
    ("sctl_step0_CM", ClassWise("centered"), OVER_CLASSES),
    ("sctl_step0_MM", ClassWise("minmax"), OVER_CLASSES),
]


@pytest.fixture
def batch(vectors: dict[str, Any]) -> tuple[Any, Any]:
    return np.array(vectors["batch"]["logits"]), np.array(vectors["batch"]["labels"])


@pytest.mark.parametrize(("name", "objective", "scale"), CASES, ids=[case[0] for case in CASES])
def test_value_and_gradient(
    vectors: dict[str, Any], batch: tuple[Any, Any], name: str, objective: Objective, scale: float
) -> None:
    reference = vectors["losses"][name]
    terms = learnt(objective, *batch).terms(*batch)
    assert scale * terms.loss.sum() == pytest.approx(reference["value"], abs=1e-9)
    np.testing.assert_allclose(scale * terms.gradient(), reference["grad"], atol=1e-9)


def test_class_wise_scaling_fits_its_shape_at_the_second_call(
    vectors: dict[str, Any], batch: tuple[Any, Any]
) -> None:
    reference = vectors["losses"]["sctl_step1_ND_logits_div_1.05_after_step0_on_logits"]
    logits, labels = batch
    second = learnt(learnt(ClassWise(), logits, labels), logits / 1.05, labels)
    shape = second.state.alpha, second.state.beta
    np.testing.assert_allclose(shape, reference["alpha_beta_after"], atol=1e-9)
    terms = second.terms(logits / 1.05, labels)
    assert OVER_CLASSES * terms.loss.sum() == pytest.approx(reference["value"], abs=1e-9)
    # The reference is the derivative by the logits before they were divided.
    gradient = OVER_CLASSES * terms.gradient() / 1.05
    np.testing.assert_allclose(gradient, reference["grad"], atol=1e-9)


def test_inner_quantities_of_class_wise_scaling(
    vectors: dict[str, Any], batch: tuple[Any, Any]
) -> None:
    inner = vectors["sctl_inner"]
    losses = learnt(ClassWise(), *batch).state.losses
    np.testing.assert_allclose(losses, inner["class_losses"], atol=1e-9)
    for name, key in (("zscore", "ND"), ("centered", "CM"), ("minmax", "MM")):
        np.testing.assert_allclose(normalise(losses, name), inner[key], atol=1e-9)
    scaled = factors(normalise(losses, "zscore"), 1.0, 1.5)
    np.testing.assert_allclose(scaled, inner["factor_ND_a1_b1.5"], atol=1e-9)


@pytest.mark.parametrize("name", list(PENALTIES))
def test_penalty_functions(vectors: dict[str, Any], name: str) -> None:
    reference = vectors["penalty_functions"]
    one = np.ones(1)
    penalty = PENALTIES[name](2.0, reference["lambda"] * one, reference["rho"] * one)
    distance = 2.0 * (1 + np.array(reference["h"]))[:, None]
    np.testing.assert_allclose(penalty.excess(distance)[:, 0], reference["h"], atol=1e-12)
    value, slope = penalty.mean_and_slope(distance)
    np.testing.assert_allclose(value, reference[name]["P"], atol=1e-9)
    np.testing.assert_allclose(2.0 * slope[:, 0], reference[name]["dP_dh"], atol=1e-9)


def test_multipliers_after_one_update(vectors: dict[str, Any], batch: tuple[Any, Any]) -> None:
    reference = vectors["losses"]["cals_alm_mixed_m2_total"]
    objective = Cals(2.0, state=multipliers(MIXED_LAMBDA, MIXED_RHO))
    updated = objective.updated(objective.statistic(*batch))
    expected = reference["lambda_after_one_update_on_this_batch"]
    np.testing.assert_allclose(updated.state.multiplier, expected, atol=1e-9)


@pytest.fixture
def fit_rows(synthetic: dict[str, Any]) -> tuple[Any, Any]:
    return synthetic["fit_logits"].astype(np.float64), synthetic["fit_labels"]


@pytest.mark.parametrize(("scale", "margin"), [(1.0, 10.0), (0.5, 10.0), (1.0, 4.0)])
def test_multipliers_over_epochs(
    vectors: dict[str, Any], fit_rows: tuple[Any, Any], scale: float, margin: float
) -> None:
    dynamics = vectors["metrics_and_dynamics_on_synth"]
    epochs = dynamics[f"cals_alm_fixed_logits_scale{scale}_margin{margin:g}"]
    logits, labels = scale * fit_rows[0], fit_rows[1]
    objective = Cals(margin)
    by_number = {epoch["epoch"]: epoch for epoch in epochs}
    for number in range(max(by_number) + 1):
        terms = objective.terms(logits, labels)
        objective = objective.updated(objective.statistic(logits, labels))
        if number not in by_number:
            continue
        epoch = by_number[number]
        nll = NegativeLogLikelihood().terms(logits, labels).loss
        penalty = (terms.loss - nll).mean()
        assert penalty == pytest.approx(epoch["penalty_before_update"], rel=1e-9, abs=1e-12)
        trace = objective.trace()
        np.testing.assert_allclose(trace["lambda"], epoch["lambd"], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(trace["rho"], epoch["rho"], atol=1e-12)
        np.testing.assert_allclose(trace["constraint"], epoch["mean_constraint"], atol=1e-9)


def test_the_heuristic_rule_compares_what_is_published(
    vectors: dict[str, Any], fit_rows: tuple[Any, Any]
) -> None:
    """Penalties are the published scores, and strengths agree where rounding decides nothing."""
    epochs = vectors["metrics_and_dynamics_on_synth"]["cals_hr_margin10_alpha0.1_gamma1.1_tau1.1"]
    logits, labels = fit_rows
    objective = CalsHr(10.0)
    published = np.full(10, 0.1)
    ours = []
    for epoch in epochs:
        scaled = epoch["logit_scale"] * logits
        objective = objective.updated(objective.statistic(scaled, labels))
        np.testing.assert_allclose(
            objective.trace()["penalty"], epoch["score"] / published, atol=1e-9
        )
        published = np.array(epoch["lambd"])
        ours.append(objective.trace()["strength"])
    for number in (0, 1, 2):
        np.testing.assert_allclose(ours[number], epochs[number]["lambd"], atol=1e-12)
    # The logits are the same as before: nothing may change. The authors' rule raises some classes.
    np.testing.assert_allclose(ours[3], ours[2], atol=1e-12)
    assert len(set(epochs[3]["lambd"])) > 1
    np.testing.assert_allclose(ours[4], np.full(10, 0.1), atol=1e-12)
    np.testing.assert_allclose(ours[5], ours[4], atol=1e-12)


def test_the_official_heuristic_rule_is_followed_step_by_step(
    vectors: dict[str, Any], fit_rows: tuple[Any, Any]
) -> None:
    """Where rounding decides, each step is taken from the published strengths before it."""
    epochs = vectors["metrics_and_dynamics_on_synth"]["cals_hr_margin10_alpha0.1_gamma1.1_tau1.1"]
    logits, labels = fit_rows
    objective = CalsHr(10.0, rule="official")
    for number, epoch in enumerate(epochs):
        scaled = epoch["logit_scale"] * logits
        objective = objective.updated(objective.statistic(scaled, labels))
        assert objective.state is not None
        np.testing.assert_allclose(objective.state.penalty, epoch["score"], rtol=1e-9)
        if number in (
            3,
            5,
        ):  # The same logits: scores change by growth = tolerance, but for rounding.
            steps = objective.state.strength / epochs[number - 1]["lambd"]
            assert set(np.round(steps, 9)) <= {round(1 / 1.1, 9), 1.0, 1.1}
            published = Strengths(np.array(epoch["lambd"]), np.array(epoch["score"]))
            objective = replace(objective, state=published)
            continue
        np.testing.assert_allclose(objective.state.strength, epoch["lambd"], rtol=1e-9)


def test_bins_of_adafocal(vectors: dict[str, Any], fit_rows: tuple[Any, Any]) -> None:
    bins = vectors["metrics_and_dynamics_on_synth"]["fit_T1_adafocal_bins"]
    objective = learnt_on_validation(AdaFocal(), *fit_rows)
    trace = objective.trace()
    np.testing.assert_allclose(
        trace["edges"][:-1], [bins[str(b)]["lower_bound"] for b in range(15)], atol=1e-6
    )
    np.testing.assert_allclose(
        trace["gap"], [bins[str(b)]["calibration_gap"] for b in range(15)], atol=1e-6
    )


def learnt_on_validation(objective: Any, logits: Any, labels: Any) -> Any:
    return objective.updated(objective.statistic(logits, labels))


def test_exponents_of_adafocal_over_updates(
    vectors: dict[str, Any], fit_rows: tuple[Any, Any]
) -> None:
    name = "adafocal_gamma_after_each_of_12_updates_with_constant_bins_fit_T1"
    objective = AdaFocal()
    for expected in vectors["metrics_and_dynamics_on_synth"][name]:
        objective = learnt_on_validation(objective, *fit_rows)
        # The reference was computed in float32.
        np.testing.assert_allclose(objective.trace()["gamma"], expected, rtol=1e-5)


def test_exponents_of_adafocal_switch_and_are_clipped(
    vectors: dict[str, Any], fit_rows: tuple[Any, Any]
) -> None:
    name = "adafocal_gamma_underconfident_T3(update_no,gammas)"
    expected = {row[0]: row[1:] for row in vectors["metrics_and_dynamics_on_synth"][name]}
    logits, labels = fit_rows
    objective = AdaFocal()
    for number in range(1, max(expected) + 1):
        objective = learnt_on_validation(objective, logits / 3, labels)
        if number in expected:
            np.testing.assert_allclose(objective.trace()["gamma"], expected[number], rtol=1e-4)
