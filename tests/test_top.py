"""Top-versus-all: the confidence alone is calibrated, and the prediction never changes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import calibcli
from calibcli.arrays import softmax
from calibcli.calibrators.base import GROUP
from calibcli.calibrators.binary import Platt
from calibcli.calibrators.groups import Groups
from calibcli.calibrators.registry import read_calibrator
from calibcli.calibrators.temperature import Temperature
from calibcli.calibrators.top import Top, top_scores
from calibcli.engine.data import open_data
from calibcli.engine.engine import Engine
from calibcli.engine.folds import Subset
from calibcli.engine.source import ArraySource
from calibcli.errors import CalibError, ParamsError
from calibcli.metrics.panel import Panel
from calibcli.params import Params, Stage, decode, encode
from calibcli.workflow.fit_rows import confidence_rows
from calibcli.workflow.fitting import fit_and_measure
from calibcli.workflow.plans import make_plan
from calibcli.workflow.records import to_calibrators


def random_logits(rows: int, classes: int, scale: float = 3.0, seed: int = 0) -> np.ndarray:
    return scale * np.random.default_rng(seed).standard_normal((rows, classes))


def labelled(rows: int, classes: int = 5, seed: int = 0) -> ArraySource:
    """Rows whose confidence is too high, but whose other classes say nothing wrong."""
    rng = np.random.default_rng(seed)
    logits = 2.5 * rng.standard_normal((rows, classes))
    labels = (logits / 1.8 + rng.gumbel(size=logits.shape)).argmax(axis=1)
    return ArraySource(logits.astype(np.float32), labels)


def plan(method: str = "temperature", **options):
    return make_plan(method, reduce="top", **options)


# The calibrator.


def test_the_top_class_gets_the_confidence_and_the_others_keep_their_proportions() -> None:
    logits = random_logits(200, 6)
    probs, new = softmax(logits), Top((Temperature(1.3),)).probs(logits)
    top, rows = probs.argmax(axis=1), np.arange(200)
    odds = probs[rows, top] / (1 - probs[rows, top])
    confidence = odds ** (1 / 1.3) / (1 + odds ** (1 / 1.3))
    second = np.sort(probs, axis=1)[:, -2] * (1 - confidence) / (1 - probs[rows, top])
    plain = second < confidence
    assert plain.sum() > 150
    np.testing.assert_allclose(new[rows, top][plain], confidence[plain], rtol=1e-10)
    others = np.ones_like(probs, bool)
    others[rows, top] = False
    ratios = (new / probs)[others].reshape(200, 5)[plain]
    np.testing.assert_allclose(ratios, ratios[:, :1] * np.ones(5), rtol=1e-9)


def test_no_stage_and_temperature_one_change_nothing() -> None:
    logits = random_logits(100, 7)
    for top in (Top(()), Top((Temperature(1.0),))):
        np.testing.assert_allclose(top.probs(logits), softmax(logits), rtol=1e-12)


@settings(max_examples=150, deadline=None)
@given(
    classes=st.sampled_from([2, 3, 10, 300]),
    scale=st.sampled_from([0.0, 0.1, 3.0, 60.0]),
    temperature=st.sampled_from([0.05, 0.5, 1.0, 3.0, 1e3]),
    intercept=st.sampled_from([-30.0, -3.0, 0.0, 8.0]),
    dtype=st.sampled_from([np.float32, np.float64]),
    seed=st.integers(0, 5),
)
def test_the_prediction_never_changes(classes, scale, temperature, intercept, dtype, seed) -> None:
    logits = random_logits(300, classes, scale, seed).astype(dtype)
    probs = Top((Temperature(temperature), Platt(1.0, intercept))).probs(logits)
    assert probs.dtype == dtype
    np.testing.assert_array_equal(probs.argmax(axis=1), logits.argmax(axis=1))
    np.testing.assert_allclose(probs.sum(axis=1), 1, atol=2e-6)


def test_others_are_drawn_together_only_as_far_as_it_takes() -> None:
    logits = np.log(np.array([[0.5, 0.45, 0.04, 0.01]]))
    # Of 0.4 for the top class, 0.6 * 0.9 = 0.54 would be left for the second.
    (probs,) = Top((Platt(1.0, float(np.log(0.4 / 0.6))),)).probs(logits)
    assert probs[0] == pytest.approx(0.4)
    assert probs[1] == pytest.approx(0.4, rel=1e-4)
    assert probs[1] < probs[0]
    assert probs[2] > probs[3]
    assert probs.sum() == pytest.approx(1)


def test_a_confidence_below_that_of_equal_shares_becomes_it() -> None:
    logits = random_logits(50, 4)
    probs = Top((Platt(1.0, -20.0),)).probs(logits)
    np.testing.assert_allclose(probs.max(axis=1), 0.25, rtol=1e-4)


def test_impossible_classes_stay_so() -> None:
    logits = np.array(
        [[2.0, -np.inf, 1.0, 0.0], [2.0, -np.inf, -np.inf, -np.inf], [0.0, 1.0, -np.inf, 0.0]]
    )
    for intercept in (-9.0, 0.0):
        probs = Top((Temperature(2.0), Platt(1.0, intercept))).probs(logits)
        assert (probs[logits == -np.inf] == 0).all()
        assert probs[1, 0] == 1
        np.testing.assert_allclose(probs.sum(axis=1), 1)
        np.testing.assert_array_equal(probs.argmax(axis=1), logits.argmax(axis=1))


def test_tensors_are_mapped_as_arrays_are() -> None:
    torch = pytest.importorskip("torch")
    logits = random_logits(60, 5)
    logits[:5, 3:], logits[0, 1:] = -np.inf, -np.inf
    for intercept in (-4.0, 1.0):
        top = Top((Platt(1.0, intercept),))
        np.testing.assert_allclose(top.probs(torch.tensor(logits)), top.probs(logits), rtol=1e-12)


@pytest.mark.parametrize("safetensors", [False, True])
def test_a_parameter_file_keeps_the_stages(safetensors) -> None:
    top = Top((Temperature(1.7), Platt(0.9, 0.1)))
    stage = Stage(top.kind, top.parameters())
    params = decode(encode(Params(5, "logits", (stage,)), safetensors=safetensors))
    (again,) = to_calibrators(params)
    logits = random_logits(20, 5)
    np.testing.assert_array_equal(again.probs(logits), top.probs(logits))
    assert "temperature" in again.summary()


def test_stages_for_other_classes_are_refused() -> None:
    three = {"scale": [1.0, 1.0, 1.0], "bias": [0.0, 0.0, 0.0]}
    for stages in ([{"kind": "vector", "parameters": three}], "temperature"):
        with pytest.raises(ParamsError):
            read_calibrator(Top.kind, {"stages": stages}, 3)


# The rows of the fit.


def test_rows_are_reduced_to_whether_the_top_class_is_right() -> None:
    source = labelled(500)
    data = open_data(Engine(), source, 4, seed=3)
    reduced = confidence_rows(data)
    probs = softmax(source.scores.astype(float))
    assert (reduced.classes, reduced.folds, reduced.rows) == (2, 4, 500)
    right = probs.argmax(axis=1) == source.labels
    np.testing.assert_array_equal(reduced.class_weights, [(~right).sum(), right.sum()])
    odds = np.log(probs.max(axis=1) / (1 - probs.max(axis=1)))
    np.testing.assert_allclose(reduced.source.scores[:, 0], odds, rtol=1e-4)
    numbers = np.arange(500)
    np.testing.assert_array_equal(reduced.split.at(numbers), data.split.at(numbers))


def test_parts_weights_and_certain_rows_are_respected() -> None:
    source = labelled(400)
    scores, labels = source.scores.copy(), source.labels.copy()
    scores[:10, 1:], labels[:10] = -np.inf, 0
    data = open_data(Engine(), ArraySource(scores, labels, np.full(400, 2.0)), 4)
    reduced = confidence_rows(data)
    assert reduced.weight == 2 * 390
    part = confidence_rows(data.restricted(Subset(data.split, 1, inside=True)))
    inside = (data.split.at(np.arange(400)) == 1)[10:]
    assert part.weight == 2 * inside.sum()


def test_nothing_but_certain_rows_is_refused() -> None:
    logits = np.full((4, 3), -np.inf)
    logits[:, 1] = 0
    data = open_data(Engine(), ArraySource(logits, np.ones(4, np.int64)), 2)
    with pytest.raises(CalibError, match="nothing to calibrate"):
        confidence_rows(data)


def test_scores_are_log_odds_that_do_not_overflow() -> None:
    logits = np.array([[0.0, -800.0, -900.0], [5.0, 5.0, 5.0], [1e4, 0.0, 0.0]])
    scores = top_scores(logits).score
    np.testing.assert_allclose(scores, [800, -np.log(2), 1e4 - np.log(2)], rtol=1e-12)


# The fit.


@pytest.mark.parametrize("method", ["temperature", "platt", "isotonic", "temperature,beta"])
def test_every_method_fits_the_confidence(method) -> None:
    source = labelled(3000)
    found = fit_and_measure(open_data(Engine(), source, 5), plan(method), Panel())
    (top,) = found.fit.calibrators
    assert isinstance(top, Top)
    assert found.fit.converged
    assert found.after.values["accuracy"] == found.before.values["accuracy"]
    assert found.after.values["ece"] < 0.5 * found.before.values["ece"]
    assert found.after.values["nll"] < found.before.values["nll"]


def test_the_fit_is_that_of_a_binary_problem() -> None:
    source = labelled(1000)
    (top,) = fit_and_measure(open_data(Engine(), source, 2), plan("platt"), Panel()).fit.calibrators
    probs = softmax(source.scores.astype(float))
    odds = np.log(probs.max(axis=1) / (1 - probs.max(axis=1)))
    right = (probs.argmax(axis=1) == source.labels).astype(np.int64)
    binary = calibcli.fit(odds, right, method="platt", folds=2)
    for own, alone in zip(top.stages, binary.stages, strict=True):
        assert own.slope == pytest.approx(alone.slope, rel=1e-4)
        assert own.intercept == pytest.approx(alone.intercept, abs=1e-4)


def test_groups_have_confidences_of_their_own() -> None:
    source = labelled(4000)
    groups = np.arange(4000) % 3
    scores = source.scores * np.array([0.5, 1.0, 3.0], np.float32)[groups][:, None]
    fitted = calibcli.fit(scores, source.labels, by=groups, reduce="top")
    (top,) = fitted.stages
    assert isinstance(top, Top)
    assert isinstance(top.stages[0], Groups)
    alone = calibcli.fit(scores, source.labels, reduce="top")
    assert fitted.outcome.after.values["nll"] < alone.outcome.after.values["nll"] - 0.01
    probs = fitted.predict_proba(scores, by=groups)
    np.testing.assert_array_equal(probs.argmax(axis=1), scores.argmax(axis=1))
    pooled = fitted.predict_proba(scores)
    assert not np.allclose(probs, pooled)
    assert fitted.params.fit["by"]["column"] == "by"
    assert fitted.params.fit["reduce"] == "top"
    assert top.for_groups(groups).stages[0] is not top.stages[0]
    assert GROUP == "group"


def test_the_interval_of_the_confidence_is_that_of_two_classes() -> None:
    source = labelled(1500)
    fitted = calibcli.fit(source.scores, source.labels, method="venn-abers", reduce="top", folds=0)
    lower, upper = fitted.predict_interval(source.scores)
    confidence = fitted.predict_proba(source.scores).max(axis=1)
    assert (lower <= confidence).all()
    assert (confidence <= upper).all()
    assert (lower < upper).mean() > 0.9


@pytest.mark.parametrize("options", [{"prior": "balanced"}, {"loss": "macro"}])
def test_class_shares_are_refused(options) -> None:
    with pytest.raises(CalibError, match="sets class shares"):
        plan(**options)


def test_there_is_no_other_reduction() -> None:
    with pytest.raises(CalibError, match="there is top"):
        calibcli.fit(random_logits(20, 3), np.arange(20) % 3, reduce="bottom")


def test_the_command_line_reduces(tmp_path, calib) -> None:
    source = labelled(500)
    np.savez(tmp_path / "val.npz", logits=source.scores, labels=source.labels)
    fitted = calib(
        "fit", "val.npz", "--reduce", "top", "-m", "platt", "-p", "p.json", "-o", "o.npz"
    )
    assert fitted.returncode == 0, fitted.stderr
    assert b"top: stages platt" in fitted.stdout
    applied = calib("apply", "p.json", "val.npz", "-o", "again.npz")
    assert applied.returncode == 0, applied.stderr
    with np.load(tmp_path / "o.npz") as first, np.load(tmp_path / "again.npz") as second:
        np.testing.assert_array_equal(first["probs"], second["probs"])
        np.testing.assert_array_equal(first["prediction"], source.scores.argmax(axis=1))
