"""The estimator in scikit-learn's company, and its calibrators as parameter files."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

import calibcli
from calibcli.sklearn import CalibratorEstimator, from_sklearn

RNG = np.random.default_rng(0)
LOGITS = 3 * RNG.normal(size=(120, 3))
NAMES = np.array(["cat", "dog", "eel"])
NUMBERS = (LOGITS / 2 + RNG.gumbel(size=LOGITS.shape)).argmax(axis=1)
LABELS = NAMES[NUMBERS]
BINARY = np.where(NUMBERS == 2, "yes", "no")
ODDS = LOGITS[:, 2]
FEATURES = LOGITS @ RNG.normal(size=(3, 4))


def test_scores_give_what_the_function_gives():
    estimator = CalibratorEstimator("vector", options={"vector.penalty": 1e-3}).fit(LOGITS, LABELS)
    fitted = calibcli.fit(
        LOGITS, NUMBERS, method="vector", options={"vector.penalty": 1e-3}, folds=0
    )
    probs = estimator.predict_proba(LOGITS)
    assert np.array_equal(probs, fitted.predict_proba(LOGITS))
    assert estimator.classes_.tolist() == NAMES.tolist()
    assert estimator.predict(LOGITS).tolist() == NAMES[probs.argmax(axis=1)].tolist()
    assert estimator.n_features_in_ == 3
    assert 0 < estimator.score(LOGITS, LABELS) < 1


@pytest.mark.parametrize("scores", [ODDS, ODDS[:, None], np.stack([0 * ODDS, ODDS], axis=1)])
def test_two_classes(scores):
    probs = CalibratorEstimator("platt").fit(scores, BINARY).predict_proba(scores)
    expected = calibcli.fit(ODDS, BINARY == "yes", method="platt", folds=0).predict_proba(ODDS)
    np.testing.assert_allclose(probs, expected, rtol=0, atol=1e-9)


def test_weights_are_weights_and_none_leaves_a_row_out():
    weights = RNG.integers(0, 3, len(LOGITS)).astype(float)
    weighted = CalibratorEstimator("temperature").fit(LOGITS, LABELS, weights)
    times = weights.astype(int)
    repeated = CalibratorEstimator("temperature").fit(
        LOGITS.repeat(times, axis=0), LABELS.repeat(times)
    )
    np.testing.assert_allclose(
        weighted.predict_proba(LOGITS), repeated.predict_proba(LOGITS), rtol=0, atol=1e-8
    )


def test_a_class_without_a_label_has_its_column():
    rows = LABELS != "dog"
    with pytest.raises(ValueError, match="the scores have 3 columns and the labels 2 classes"):
        CalibratorEstimator().fit(LOGITS[rows], LABELS[rows])
    estimator = CalibratorEstimator("temperature", classes=NAMES).fit(LOGITS[rows], LABELS[rows])
    assert estimator.predict_proba(LOGITS).shape == (120, 3)
    with pytest.raises(ValueError, match="the label 'dog' is none of classes="):
        CalibratorEstimator(classes=["cat", "eel", "cow"]).fit(LOGITS, LABELS)


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        ([[np.nan, 0.0, 0.0]], "row 0: the score of class 0 is NaN"),
        ([[np.inf, 0.0, 0.0]], r"row 0: the score of class 0 is \+inf"),
        ([[0.0, 0.0]], "X has 2 features, but CalibratorEstimator is expecting 3"),
    ],
)
def test_what_is_no_rows_of_scores_is_a_value_error(rows, line):
    estimator = CalibratorEstimator("temperature").fit(LOGITS, LABELS)
    with pytest.raises(ValueError, match=line):
        estimator.predict_proba(rows)


def test_impossible_classes_are_taken():
    scores = np.where(RNG.random(LOGITS.shape) < 0.1, -np.inf, LOGITS)
    scores[np.arange(120), NUMBERS] = LOGITS[np.arange(120), NUMBERS]
    estimator = CalibratorEstimator("temperature").fit(scores, LABELS)
    assert (estimator.predict_proba(scores)[np.isinf(scores)] == 0).all()


@pytest.mark.parametrize("model", [LogisticRegression(), GaussianNB()])
@pytest.mark.parametrize("labels", [LABELS, BINARY])
def test_an_estimator_is_calibrated_by_held_out_scores(model, labels):
    estimator = CalibratorEstimator("temperature", estimator=model, cv=3).fit(FEATURES, labels)
    response = "decision_function" if hasattr(model, "decision_function") else "predict_proba"
    scores = cross_val_predict(clone(model), FEATURES, labels, cv=3, method=response)
    kind: Any = "logits" if response == "decision_function" else "probs"
    numbers = np.unique(labels, return_inverse=True)[1]
    fitted = calibcli.fit(scores, numbers, method="temperature", input=kind, folds=0)
    given = getattr(model.fit(FEATURES, labels), response)(FEATURES)
    expected = fitted.predict_proba(given[:, None] if given.ndim == 1 else given)
    assert np.array_equal(estimator.predict_proba(FEATURES), expected)


def test_a_pipeline_a_clone_and_a_pickle():
    steps = make_pipeline(FunctionTransformer(np.sqrt), CalibratorEstimator(input="probs"))
    probs = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)
    steps.set_params(calibratorestimator__method="svs").fit(probs**2, LABELS)
    assert steps.predict_proba(probs**2).shape == (120, 3)
    estimator = steps[-1]
    assert clone(estimator).get_params() == estimator.get_params()
    again = pickle.loads(pickle.dumps(estimator))  # noqa: S301 (its own)
    assert np.array_equal(again.predict_proba(probs), estimator.predict_proba(probs))
    held_out = cross_val_predict(clone(estimator), probs, LABELS, method="predict_proba")
    assert held_out.shape == (120, 3)


def test_the_calibrator_is_saved_as_any_other(tmp_path):
    estimator = CalibratorEstimator("svs").fit(LOGITS, LABELS)
    from_sklearn(estimator).save(tmp_path / "p.json")
    loaded = calibcli.load(tmp_path / "p.json")
    assert np.array_equal(loaded.predict_proba(LOGITS), estimator.predict_proba(LOGITS))


# Calibrators of scikit-learn


def calibrated(method: str, labels: np.ndarray, model: Any = None, **more: Any) -> Any:
    model = FrozenEstimator((model or LogisticRegression()).fit(FEATURES, labels))
    return CalibratedClassifierCV(model, method=method, **more).fit(FEATURES, labels)


@pytest.mark.parametrize(
    ("method", "labels"),
    [("sigmoid", BINARY), ("isotonic", BINARY), ("temperature", BINARY), ("temperature", LABELS)],
)
def test_a_calibrated_classifier_becomes_a_parameter_file(method, labels, tmp_path):
    try:
        theirs = calibrated(method, labels, ensemble=False)
    except ValueError as error:
        pytest.skip(f"scikit-learn has no such method: {error}")
    from_sklearn(theirs).save(tmp_path / "p.json")
    scores = theirs.calibrated_classifiers_[0].estimator.decision_function(FEATURES)
    probs = calibcli.load(tmp_path / "p.json").predict_proba(scores)
    np.testing.assert_allclose(probs, theirs.predict_proba(FEATURES), rtol=0, atol=1e-12)


def test_isotonic_regression_becomes_a_parameter_file():
    theirs = IsotonicRegression(out_of_bounds="clip").fit(ODDS, BINARY == "yes")
    probs = from_sklearn(theirs).predict_proba(2 * ODDS)
    np.testing.assert_allclose(probs[:, 1], theirs.predict(2 * ODDS), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: calibrated("sigmoid", LABELS, ensemble=False), "maps each of 3 classes by itself"),
        (
            lambda: calibrated("sigmoid", BINARY, GaussianNB(), ensemble=False),
            "no decision_function",
        ),
        (
            lambda: CalibratedClassifierCV(LogisticRegression(), cv=3).fit(FEATURES, BINARY),
            "averages 3 classifiers; ensemble=False has one",
        ),
        (lambda: IsotonicRegression().fit(ODDS, BINARY == "yes"), "has out_of_bounds='nan'"),
        (
            lambda: IsotonicRegression(out_of_bounds="clip").fit(ODDS, ODDS),
            "has values that are no probabilities",
        ),
        (
            LogisticRegression,
            "sklearn's LogisticRegression cannot be read; these can: Be",
        ),
        (CalibratedClassifierCV, "CalibratedClassifierCV is not fitted"),
    ],
)
def test_what_is_no_such_map_is_refused_in_a_line(make, line):
    with pytest.raises(calibcli.UsageError, match=line) as error:
        from_sklearn(make())
    assert "\n" not in str(error.value)


def test_an_object_that_computes_otherwise_is_refused():
    theirs = IsotonicRegression(out_of_bounds="clip").fit(ODDS, BINARY == "yes")
    theirs.y_thresholds_ = theirs.y_thresholds_ * 0.5
    with pytest.raises(calibcli.UsageError, match="IsotonicRegression computes otherwise than the"):
        from_sklearn(theirs)
