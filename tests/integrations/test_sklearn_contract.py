"""What scikit-learn asks of every estimator, and calibrators of libraries that need much."""

from __future__ import annotations

import importlib
import warnings

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.utils.estimator_checks import parametrize_with_checks

import calibcli
from calibcli.sklearn import CalibratorEstimator, from_sklearn

EXPECTED_FAILURES = {
    "check_sample_weight_equivalence_on_dense_data": (
        "folds of repeated rows are others than those of rows with weights"
    ),
}


@parametrize_with_checks(
    [CalibratorEstimator("temperature", estimator=LogisticRegression())],
    expected_failed_checks=lambda _: EXPECTED_FAILURES,
)
def test_the_contract_of_estimators(estimator, check):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(estimator)


RNG = np.random.default_rng(0)
LOGITS = 3 * RNG.normal(size=(400, 3))
LABELS = (LOGITS / 2 + RNG.gumbel(size=LOGITS.shape)).argmax(axis=1)
PROBS = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)


@pytest.mark.parametrize("name", ["TemperatureScaling", "LogisticCalibration", "BetaCalibration"])
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.filterwarnings("ignore")
def test_netcal(name, classes):
    scaling = pytest.importorskip("netcal.scaling")
    probs = PROBS[:, :classes] / PROBS[:, :classes].sum(axis=1, keepdims=True)
    labels = np.minimum(LABELS, classes - 1)
    theirs = getattr(scaling, name)()
    theirs.fit(probs[:, 1] if classes == 2 else probs, labels)
    if (name, classes) == ("BetaCalibration", 3):
        with pytest.raises(calibcli.UsageError, match="BetaCalibration is of 3 classes; such maps"):
            from_sklearn(theirs)
        return
    expected = theirs.transform(probs[:, 1] if classes == 2 else probs)
    calibrated = from_sklearn(theirs).predict_proba(probs)
    np.testing.assert_allclose(
        calibrated[:, 1] if classes == 2 else calibrated, expected, rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("name", ["Mixture", "VectorScaling", "MatrixScaling", "SVS", "SMS"])
@pytest.mark.filterwarnings("ignore")
def test_probmetrics(name):
    calibrators = pytest.importorskip("probmetrics.calibrators")
    if name == "Mixture":
        theirs = calibrators.get_calibrator("ts-mix")
    else:
        theirs = getattr(
            importlib.import_module("probmetrics.calibrators.logistic"), f"{name}Calibrator"
        )()
    theirs.fit(PROBS, LABELS)
    calibrated = from_sklearn(theirs).predict_proba(PROBS)
    np.testing.assert_allclose(calibrated, theirs.predict_proba(PROBS), rtol=0, atol=1e-6)
