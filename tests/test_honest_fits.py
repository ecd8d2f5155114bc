"""What a fit must not do: hang, flatter, mislead, or pretend that it found something."""

from __future__ import annotations

import numpy as np
import pytest

import calibcli
from calibcli.errors import UsageError


def overconfident(rows: int, classes: int, seed: int = 0, scale: float = 3.0):
    rng = np.random.default_rng(seed)
    logits = scale * rng.standard_normal((rows, classes))
    labels = (logits / scale + rng.gumbel(size=logits.shape)).argmax(axis=1)
    return logits, labels


@pytest.mark.parametrize("scale", [0.05, 3.0, 60.0])
@pytest.mark.parametrize("rows", [3, 300])
@pytest.mark.parametrize("loss", ["nll", "adafocal"])
def test_knots_of_every_fold_are_those_of_the_whole(rows: int, scale: float, loss: str) -> None:
    logits, labels = overconfident(rows, 3, seed=2, scale=scale)
    found = calibcli.fit(logits, labels, method="monotone", loss=loss)
    assert np.isfinite(found.predict_proba(logits)).all()


def test_cross_fitting_of_a_network_starts_anew() -> None:
    """From the optimum of the whole it would carry the held-out rows over."""
    logits, labels = overconfident(300, 10, seed=1)
    found = calibcli.fit(logits, labels, method="parameterized-temperature")
    in_sample = calibcli.evaluate(found.predict_proba(logits), labels).values["nll"]
    assert found.outcome.after.values["nll"] > in_sample + 0.05


@pytest.mark.parametrize("loss", ["nll", "focal"])
def test_rows_that_are_all_right_are_not_called_worse_than_chance(loss: str) -> None:
    labels = np.arange(90) % 3
    outcome = calibcli.fit(60.0 * np.eye(3)[labels], labels, loss=loss, folds=0).outcome
    assert outcome.fit.stages[0].solution.criterion == "separable"
    assert "no temperature is too low" in outcome.notes[0]
    # Nothing was fitted that a link could belong to.
    assert [stage.calibrator.kind for stage in outcome.fit.stages] == ["temperature"]


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning", "ignore:invalid:RuntimeWarning")
@pytest.mark.parametrize("method", ["quadratic", "platt", "beta", "vector", "monotone"])
def test_absurd_logits_end_a_fit_and_certify_nothing(method: str) -> None:
    rng = np.random.default_rng(0)
    logits = (1e14 * rng.standard_normal(500)).astype(np.float32)
    found = calibcli.fit(logits, rng.integers(0, 2, 500), method=method, folds=0)
    solution = found.outcome.fit.stages[-1].solution
    assert not solution.converged or solution.gradient_norm < 1e-3


@pytest.mark.parametrize("loss", ["macro", "class-wise"])
def test_two_ways_to_set_class_shares_are_not_mixed(loss: str) -> None:
    logits, labels = overconfident(50, 3)
    with pytest.raises(UsageError, match="both set class shares"):
        calibcli.fit(logits, labels, loss=loss, target_prior="balanced")


def test_parameter_files_name_the_options_in_force_and_no_others() -> None:
    logits, labels = overconfident(500, 4)
    found = calibcli.fit(logits, labels, method="svs", options={"svs.penalty": 0.5}, folds=0)
    assert found.params.fit["options"] == {"svs": {"penalty": 0.5}}


def test_weights_that_sum_to_one_are_remarked_on() -> None:
    logits, labels = overconfident(500, 4)
    found = calibcli.fit(logits, labels, weights=np.full(500, 1 / 500), method="svs", folds=0)
    assert any("the weights sum to 1 over 500 rows" in note for note in found.outcome.notes)
    plain = calibcli.fit(logits, labels, folds=0).outcome
    tiny = calibcli.fit(logits, labels, weights=np.full(500, 1 / 500), folds=0).outcome
    assert tiny.fit.passes == plain.fit.passes
    assert tiny.fit.calibrators[0].temperature == pytest.approx(
        plain.fit.calibrators[0].temperature, rel=1e-9
    )


def test_what_a_fit_leaves_alone_is_not_called_better() -> None:
    """Folds of rows whose labels are noise end at other temperatures than all of them."""
    rng = np.random.default_rng(2)
    logits, labels = 3.0 * rng.standard_normal((500, 4)), rng.integers(0, 4, 500)
    found = calibcli.fit(logits, labels, method="temperature").outcome
    assert found.fit.left_alone
    assert found.after.values == found.before.values
    written = calibcli.evaluate(logits, labels, input="logits").values
    assert found.after.values["nll"] == pytest.approx(written["nll"], rel=1e-12)
