"""The seed methods as objectives of a fit: published optima, links, loops, honesty."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
from objective_oracles import oracle

import calibcli
from calibcli.calibrators.base import SmoothMap
from calibcli.calibrators.chain import calibrate
from calibcli.calibrators.registry import MAPS
from calibcli.errors import UsageError
from calibcli.fitting.estimating import solve_equations, solve_nonnegative_equations
from calibcli.objectives.dual_focal import DualFocalGra
from calibcli.objectives.registry import OBJECTIVES
from calibcli.workflow.fitting import AgainstPlain

SMOOTH = [n for n in MAPS if issubclass(MAPS[n], SmoothMap) and not MAPS[n].binary_only]
VALIDATED = [n for n, kind in OBJECTIVES.items() if kind.learns == "on validation rows"]


def fit(logits, labels, **options):
    return calibcli.fit(logits, labels, folds=0, **options)


def imbalanced(rows: int = 3000, seed: int = 0):
    """Overconfident logits of five classes; the first has ten times the rows of the last."""
    rng = np.random.default_rng(seed)
    prior = 10.0 ** -np.linspace(0, 1, 5)
    labels = rng.choice(5, rows, p=prior / prior.sum())
    logits = rng.standard_normal((rows, 5)) + 2 * np.eye(5)[labels]
    return 2.5 * (logits + 0.5 * np.log(prior)), labels


class TestClassWise:
    @pytest.mark.parametrize(
        ("norm", "key"), [("zscore", "ND"), ("centered", "CM"), ("minmax", "MM")]
    )
    def test_temperatures_are_the_exact_ones(self, vectors, synthetic, norm, key) -> None:
        found = fit(
            synthetic["fit_logits"],
            synthetic["fit_labels"],
            loss="class-wise",
            options={"class-wise.norm": norm},
        )
        known = vectors["sctl_synth"]
        exact = known["exact_float64"][f"TS_SCTL_{key}_corner(alpha=ln(C)/2,beta=1.5)_fixed_point"]
        temperature = found.stages[0].temperature
        assert temperature == pytest.approx(exact["T"], abs=1e-6)
        objective = found.outcome.fit.stages[0].objective
        assert objective.state.alpha == pytest.approx(math.log(10) / 2)
        assert objective.state.beta == pytest.approx(1.5)
        np.testing.assert_allclose(objective.state.factors, exact["factors"], atol=1e-6)
        official = known["official_code_float32_cpu"][f"TS|CL|{key}"]["params"]["t"][0]
        assert temperature == pytest.approx(official, abs=0.02 * abs(official - 1))

    @pytest.mark.parametrize(
        ("loss", "key"),
        [("nll", "CTS_micro"), ("macro", "CTS_macro"), ("class-wise", "CTS_SCTL_ND")],
    )
    def test_class_temperatures_are_the_exact_ones(self, vectors, synthetic, loss, key) -> None:
        found = fit(
            synthetic["fit_logits"], synthetic["fit_labels"], method="class-temperature", loss=loss
        )
        exact = vectors["sctl_synth"]["exact_float64"][key]["tau"]
        np.testing.assert_allclose(found.stages[0].temperatures, exact, atol=1e-4)

    def test_macro_temperature_is_the_exact_one(self, vectors, synthetic) -> None:
        found = fit(synthetic["fit_logits"], synthetic["fit_labels"], loss="macro")
        exact = vectors["sctl_synth"]["exact_float64"]["TS_macro_CE"]["T"]
        assert found.stages[0].temperature == pytest.approx(exact, abs=1e-6)

    @pytest.mark.parametrize("name", ["densenet40", "resnet110"])
    @pytest.mark.parametrize(
        ("title", "method", "options"),
        [
            ("TS", "temperature", {}),
            ("ETS", "ensemble-temperature", {"ensemble-temperature.mixture": "logits"}),
            ("CTS", "class-temperature", {}),
        ],
    )
    def test_official_results_on_long_tailed_rows(
        self, shared_data, vectors, name, title, method, options
    ) -> None:
        folder = shared_data / "data" / f"sctl_{name}_cifar10lt"
        val, test = np.load(folder / "val.npz"), np.load(folder / "test.npz")
        logs = vectors["sctl_official_logs_ece_acc_percent"][f"{name}_c10_LT"]
        for loss, key in (("nll", "CE"), ("class-wise", "CL_GN")):
            found = fit(val["logits"], val["labels"], method=method, loss=loss, options=options)
            probs = found.predict_proba(test["logits"])
            ece = 100 * calibcli.evaluate(probs, test["labels"]).values["ece"]
            assert ece == pytest.approx(logs[f"{title}|{key}"][0], abs=0.15)

    @pytest.mark.parametrize("method", [n for n in SMOOTH if MAPS[n].exact and n != "laplace"])
    def test_frozen_factors_are_those_of_the_answer(self, method: str) -> None:
        logits, labels = imbalanced()
        found = fit(logits, labels, method=method, loss="class-wise")
        assert found.outcome.fit.converged
        stage = found.outcome.fit.stages[-1]
        if len(found.stages) > 1:
            logits = calibrate(found.stages[:-1], logits)
        if stage.solution.criterion == "between jumps":
            # The map makes the losses equal, which is where factors jump.
            assert np.ptp(stage.objective.state.losses) < 1e-5
            return
        log_probs = stage.calibrator.log_probs(logits)
        again = stage.objective.updated(stage.objective.statistic(log_probs, labels))
        np.testing.assert_allclose(again.state.factors, stage.objective.state.factors, atol=1e-5)

    @pytest.mark.parametrize("method", ["temperature", "vector", "class-temperature"])
    def test_absent_classes_drop_out(self, method: str) -> None:
        logits, labels = imbalanced()
        kept = labels != 2
        found = fit(logits[kept], labels[kept], method=method, loss="class-wise")
        assert found.outcome.fit.converged
        assert np.isfinite(found.predict_proba(logits)).all()


class TestTargetPrior:
    def test_balanced_is_the_macro_loss(self) -> None:
        logits, labels = imbalanced()
        how = {"method": "vector", "options": {"vector.prior": 0}}
        macro = fit(logits, labels, loss="macro", **how)
        prior = fit(logits, labels, target_prior="balanced", **how)
        np.testing.assert_allclose(
            macro.predict_proba(logits), prior.predict_proba(logits), atol=1e-6
        )

    def test_the_own_prior_changes_nothing(self) -> None:
        logits, labels = imbalanced()
        own = tuple(np.bincount(labels) / len(labels))
        plain, prior = fit(logits, labels), fit(logits, labels, target_prior=own)
        assert prior.stages[0].temperature == pytest.approx(plain.stages[0].temperature, rel=1e-9)

    def test_both_figures_are_shown_where_the_data_is_imbalanced(self) -> None:
        logits, labels = imbalanced()
        outcome = calibcli.fit(logits, labels, method="vector", loss="macro").outcome
        assert any("imbalanced" in note for note in outcome.notes)
        before, after = outcome.balanced
        assert after.values["accuracy"] > before.values["accuracy"] + 0.02
        plain = calibcli.fit(logits, labels, method="vector").outcome
        assert plain.balanced is None
        # What is won for equal shares is lost for those of the rows.
        assert outcome.after.values["nll"] > plain.after.values["nll"]

    @pytest.mark.parametrize(
        ("prior", "message"),
        [
            ((0.5, 0.5), "has 2 shares; the data has 5 classes"),
            ((1, 1, 1, 1, -1), "a number from 0 up"),
            ((0, 0, 0, 0, 0), "gives no share"),
            ((1, 1, 1, 1, math.nan), "a number from 0 up"),
        ],
    )
    def test_what_is_no_prior_is_refused(self, prior, message) -> None:
        logits, labels = imbalanced(100)
        with pytest.raises(UsageError, match=message):
            fit(logits, labels, target_prior=prior)


STUDY = {
    "CE": ("nll", {}),
    "Brier": ("brier", {}),
    "LS.05": ("label-smoothing", {"smoothing": 0.05}),
    "FL3": ("focal", {"gamma": 3}),
    "FL3-GRA": ("focal-gra", {"gamma": 3}),
    "FLSD53": ("flsd", {}),
    "DFL5": ("dual-focal", {"gamma": 5}),
    "DFL5-GRA": ("dual-focal-gra", {"gamma": 5}),
    "BSCE n2g2": ("bsce", {}),
    "BSCE-GRA n2g2": ("bsce-gra", {}),
    "InvFocal2": ("inverse-focal", {"gamma": 2}),
    "MbLS10,.1": ("mbls", {}),
}


@pytest.mark.parametrize("name", ["densenet40", "resnet110"])
@pytest.mark.parametrize("key", STUDY)
def test_temperatures_of_the_study_of_objectives(shared_data, vectors, name, key) -> None:
    """On half of the long-tailed rows; with the link, the probabilities of the other half too."""
    val = np.load(shared_data / "data" / f"sctl_{name}_cifar10lt" / "val.npz")
    order = np.random.default_rng(0).permutation(len(val["labels"]))
    rows, others = order[:5108], order[5108:]
    loss, options = STUDY[key]
    settings = {f"{loss}.{option}": value for option, value in options.items()}
    raw = fit(val["logits"][rows], val["labels"][rows], loss=loss, options=settings, link=False)
    known = vectors["posthoc_objective_study"]["runs"][f"probs_{name}_c10_LT_logits.p|{key}"]
    # A loss with kinks or jumps has a flat or a ragged optimum.
    tolerance = {"mbls": 1e-3, "flsd": 4e-3}.get(loss, 2e-5)
    assert raw.stages[0].temperature == pytest.approx(known["T"], rel=tolerance)
    if "rescaled_holdout" in known:
        linked = fit(val["logits"][rows], val["labels"][rows], loss=loss, options=settings)
        assert [stage.kind for stage in linked.stages] == ["temperature", "link"]
        probs = linked.predict_proba(val["logits"][others])
        ece = 100 * calibcli.evaluate(probs, val["labels"][others]).values["ece"]
        assert ece == pytest.approx(known["rescaled_holdout"], abs=0.01)


@pytest.mark.parametrize(
    "loss", ["focal", "inverse-focal", "focal-gra", "bsce-gra", "label-smoothing"]
)
def test_with_its_link_a_loss_finds_the_true_probabilities(loss: str) -> None:
    """A full affine map can follow the truth here; without the link it is far from it."""
    rng = np.random.default_rng(3)
    logits = 2 * rng.standard_normal((60_000, 3))
    truth = np.exp(0.5 * logits)
    truth /= truth.sum(axis=1, keepdims=True)
    labels = (rng.random((60_000, 1)) > truth.cumsum(axis=1)).sum(axis=1).clip(max=2)
    options = {"inverse-focal.gamma": 1.0} if loss == "inverse-focal" else {}
    errors = {}
    for link in (True, False):
        found = fit(logits, labels, method="vector", loss=loss, link=link, options=options)
        errors[link] = np.abs(found.predict_proba(logits) - truth).mean()
    best = np.abs(fit(logits, labels, method="vector").predict_proba(logits) - truth).mean()
    assert errors[True] < 0.02
    assert errors[True] < 0.6 * errors[False]
    assert best < 0.01


class TestImproper:
    @pytest.mark.parametrize("loss", ["flsd", "dual-focal", "mbls", "cals"])
    def test_a_loss_without_link_is_compared_with_nll(self, loss: str) -> None:
        logits, labels = imbalanced(1500)
        outcome = calibcli.fit(logits, labels, loss=loss).outcome
        assert outcome.plain is not None
        assert any("not a proper score and no link is in use" in note for note in outcome.notes)

    def test_the_raw_behaviour_of_the_papers_is_said(self) -> None:
        logits, labels = imbalanced(1500)
        raw = calibcli.fit(logits, labels, loss="focal", link=False).outcome
        assert raw.after.values["nll"] > raw.plain.values["nll"]
        linked = calibcli.fit(logits, labels, loss="focal").outcome
        assert linked.plain.values == raw.plain.values
        assert any("its link turns" in note for note in linked.notes)

    @pytest.mark.parametrize("options", [{}, {"link": False}, {"target_prior": "balanced"}])
    def test_which_is_better_is_said_of_the_rows_that_the_fit_is_for(self, options) -> None:
        logits, labels = imbalanced(1500)
        outcome = calibcli.fit(logits, labels, loss="bsce-gra", **options).outcome
        against = outcome.against_plain
        last = (outcome.after, outcome.plain)
        if "target_prior" in options:
            last = (outcome.balanced[1], outcome.shifted_plain)
        figures = [each.values["nll"] for each in last]
        assert [against.nll, against.plain_nll] == pytest.approx(figures, rel=1e-6)
        assert against.plain_is_better == (figures[1] < figures[0])
        better = "plain nll" if against.plain_is_better else "bsce-gra"
        doubt = "" if against.clear else ", within noise"
        assert sum(note.endswith(f": {better} is better{doubt}") for note in outcome.notes) == 1

    def test_a_difference_within_its_noise_is_not_clear(self) -> None:
        assert AgainstPlain(0.5, 0.4, 0.04).said("cals").endswith(": plain nll is better")
        assert AgainstPlain(0.5, 0.4, 0.06).said("cals").endswith("is better, within noise")
        assert AgainstPlain(0.4, 0.5, 0.04).said("cals").endswith(": cals is better")
        assert AgainstPlain(0.40001, 0.40002, 0.0).said("cals").endswith(": the same")
        assert AgainstPlain(math.inf, 0.4, 0.0).said("cals").endswith(": plain nll is better")

    def test_proper_losses_need_no_word(self) -> None:
        logits, labels = imbalanced(1500)
        outcome = calibcli.fit(logits, labels, loss="brier").outcome
        assert outcome.notes == ()
        assert outcome.plain is outcome.against_plain is None


@pytest.mark.parametrize("loss", VALIDATED)
class TestSteered:
    def test_nll_is_a_candidate_and_the_best_round_is_kept(self, loss: str) -> None:
        logits, labels = imbalanced()
        outcome = fit(logits, labels, method="vector", loss=loss).outcome
        stage = outcome.fit.stages[0]
        first, *rounds = stage.trace
        assert first["loss"] == "nll"
        assert rounds
        assert all({"nll", "ece", "round"} <= set(entry) for entry in stage.trace)
        json.dumps(stage.trace)
        best = min(stage.trace, key=lambda entry: entry["nll"])
        kept = "plain nll was best" if best["round"] == 0 else f"round {best['round']} was best"
        assert any(kept in note for note in stage.notes)
        assert outcome.loss == ("nll" if best["round"] == 0 else loss)
        if best["round"] == 0:
            plain = fit(logits, labels, method="vector").stages[0]
            np.testing.assert_allclose(stage.calibrator.scale, plain.scale, rtol=1e-6)

    def test_the_figure_that_chooses_is_an_option(self, loss: str) -> None:
        logits, labels = imbalanced()
        stage = fit(logits, labels, loss=loss, options={f"{loss}.select": "ece"})
        assert any("(by ece)" in note for note in stage.outcome.notes)

    @pytest.mark.parametrize("rows", [1, 3])
    def test_hardly_any_rows(self, loss: str, rows: int) -> None:
        logits, labels = imbalanced(rows)
        assert np.isfinite(fit(logits, labels, loss=loss).predict_proba(logits)).all()


def test_the_trace_of_adafocal_shows_exponents_and_gaps() -> None:
    logits, labels = imbalanced()
    (stage,) = fit(logits, labels, loss="adafocal").outcome.fit.stages
    assert {"gamma", "gap", "edges"} <= set(stage.trace[-1])


@pytest.mark.parametrize("loss", list(OBJECTIVES))
@pytest.mark.parametrize(
    "method",
    [n for n in SMOOTH if n not in ("matrix", "sms", "parameterized-temperature")],
)
def test_every_map_takes_every_objective(method: str, loss: str) -> None:
    logits, labels = imbalanced(600)
    found = fit(logits, labels, method=method, loss=loss)
    assert found.outcome.fit.converged, found.outcome.fit.stages[0].solution
    probs = found.predict_proba(logits)
    assert np.isfinite(probs).all()
    assert calibcli.evaluate(probs, labels).values["accuracy"] > 0.6


@pytest.mark.parametrize("method", ["temperature", "vector", "class-temperature"])
def test_with_the_rival_alone_held_fixed_the_equation_of_the_official_code_is_solved(
    method: str,
) -> None:
    logits, labels = imbalanced(600)
    options = {"dual-focal-gra.hold": "rival", "dual-focal-gra.gamma": 2.0}
    if method == "vector":
        options["vector.prior"] = 0.0
    found = fit(logits, labels, method=method, loss="dual-focal-gra", options=options)
    assert found.outcome.fit.converged
    log_probs = np.log(found.predict_proba(logits))
    residuals = {}
    for hold in ("rival", "weight"):
        gradient = oracle(DualFocalGra(2.0, hold), log_probs, labels)[1] / len(labels)
        along = gradient * logits
        totals = {
            "temperature": along.sum(),
            "vector": gradient.sum(axis=0),
            "class-temperature": along.sum(axis=0),
        }
        residuals[hold] = np.abs(totals[method]).max()
    assert residuals["rival"] < 2e-3
    assert residuals["weight"] > 10 * residuals["rival"]


@pytest.mark.parametrize("smooth", [True, False])
def test_a_bounded_equation_that_jumps_over_zero_ends_at_the_jump(smooth: bool) -> None:
    class Jumping:
        """A residual that jumps from -0.01 to 0.02 at 0.5."""

        objective = SimpleNamespace(smooth=smooth)
        map = SimpleNamespace(signed=lambda _: np.zeros(1, dtype=bool))
        data = SimpleNamespace(classes=2)

        def gradient(self, theta):
            return 0.0, theta - 0.5 + np.where(theta < 0.5, -0.01, 0.02)

        def hessian(self, theta):
            return np.eye(len(theta))

        def derivatives(self, theta):
            return *self.gradient(theta), self.hessian(theta)

    solution = solve_nonnegative_equations(Jumping(), np.ones(1))
    assert solution.criterion == "least residual"
    assert solution.converged is not smooth
    assert solution.theta[0] == pytest.approx(0.5, abs=1e-4)
    assert solution.gradient_norm == pytest.approx(0.01, abs=1e-4)


@pytest.mark.parametrize(
    ("smooth", "above", "solved"),
    [(False, 0.05, True), (True, 0.05, False), (False, np.nan, False)],
)
def test_the_least_residual_is_a_solution_only_at_a_jump(
    smooth: bool, above: float, solved: bool
) -> None:
    class Jumping:
        """A residual that jumps from -0.01 at 0.5."""

        objective = SimpleNamespace(smooth=smooth)

        def gradient(self, theta):
            return 0.0, theta - 0.5 + np.where(theta < 0.5, -0.01, above)

        def diagonal(self, theta):
            return np.ones(len(theta))

    solution = solve_equations(Jumping(), np.zeros(1))
    assert solution.criterion == "least residual"
    assert solution.converged is solved


@pytest.mark.parametrize("loss", ["cals", "cals-hr"])
def test_a_margin_can_be_taken_from_the_logits(loss: str) -> None:
    logits, labels = imbalanced()
    logits = 4 * logits
    found = fit(logits, labels, method="vector", loss=loss, options={f"{loss}.margin": "auto"})
    plain = fit(logits, labels, method="vector")
    spread = np.ptp(plain.stages[0].log_probs(logits), axis=1)
    for entry in found.outcome.fit.stages[0].trace[1:]:
        assert entry["margin"] == pytest.approx(np.quantile(spread, 0.9), rel=0.1)
