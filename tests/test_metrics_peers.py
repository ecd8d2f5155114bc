"""Metrics against other people's packages: those at hand are run, of others the answers are kept.

The answers are what `PEERS` prints, with relplot 1.0.3, model-diagnostics 1.5.0,
uncertainty-calibration 0.1.4 and probmetrics 1.3.0.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calibcli.arrays import log_softmax
from calibcli.metrics.confidence import curve_of_cells
from calibcli.metrics.panel import Panel
from calibcli.metrics.registry import METRICS
from calibcli.metrics.smooth import Smoother, residuals_on_lattice
from calibcli.metrics.view import View

Array = np.ndarray[Any, Any]
DATA = Path(__file__).resolve().parents[1] / "sample_data" / "digits_longtail_test.npz"

PEERS = """
import calibration, numpy as np, relplot, torch
from model_diagnostics.scoring import SquaredError, decompose
from probmetrics.metrics import KolmogorovSmirnovCalibrationMetric, KuiperCalibrationMetric

data = np.load("sample_data/digits_longtail_test.npz")
logits, labels = data["logits"].astype(float), data["labels"]
probs = np.exp(logits - logits.max(1, keepdims=True))
probs /= probs.sum(1, keepdims=True)
confidence, correct = probs.max(1), (probs.argmax(1) == labels) * 1.0

def parts(event, probability):
    return decompose(event, probability, scoring_function=SquaredError()).row(0)[:3]

print(parts(correct, confidence))
print(np.mean([parts((labels == k) * 1.0, probs[:, k]) for k in range(10)], axis=0))

# 15 bins of exactly 29 rows, whatever the rounding.
print(calibration.lower_bound_scaling_ce(
    list(confidence[:435]), list(correct[:435].astype(int)), p=2, debias=True, num_bins=15,
    binning_scheme=calibration.get_equal_bins,
))

two = torch.tensor(np.log(np.stack([1 - confidence, confidence], 1)))
for metric in (KolmogorovSmirnovCalibrationMetric(), KuiperCalibrationMetric()):
    print(metric.compute_all_from_labels_logits(torch.tensor(correct).long(), two))

# Away from 0 and 1, where its grid counts residuals by half.
inner = np.arange(1, 2000) / 2000
event = np.arange(1, 2000) * 0.618034 % 1 < inner**1.4
print([relplot.smECE_sigma(inner, event * 1.0, width) for width in (0.02, 0.05)])
print(relplot.smECE(inner, event * 1.0))
"""

CORP_TOP = (0.01471329803828346, 0.03766692583460336, 0.10766528925619835)
CORP_CLASS_WISE = (0.00595936, 0.07715064, 0.09)
DEBIASED = 0.08202466182909088
KOLMOGOROV_SMIRNOV, KUIPER = 0.06212896108627319, 0.06356671452522278
SMOOTHED, SMOOTH = [0.08217628594652171, 0.08201597234298097], 0.08206663577668143


@pytest.fixture(scope="module")
def block() -> tuple[Array, Array]:
    """Log-probabilities and labels of the sample data."""
    data = np.load(DATA)
    return log_softmax(data["logits"].astype(np.float64)), data["labels"]


@pytest.fixture(scope="module")
def values(block: tuple[Array, Array]) -> dict[str, float]:
    panel = Panel(["all"])
    return panel.finish(panel.partial(View(*block))).values


def parts(values: dict[str, float], name: str) -> tuple[float, ...]:
    endings = ("miscalibration", "discrimination", "uncertainty")
    return tuple(values[f"{name}_{ending}"] for ending in endings)


def test_model_diagnostics(values: dict[str, float]) -> None:
    assert parts(values, "corp_top") == pytest.approx(CORP_TOP, rel=1e-12)
    assert parts(values, "corp_class_wise") == pytest.approx(CORP_CLASS_WISE, abs=5e-9)


def test_uncertainty_calibration(block: tuple[Array, Array]) -> None:
    log_probs, labels = block
    panel = Panel(["l2_debiased"])
    found = panel.finish(panel.partial(View(log_probs[:435], labels[:435]))).values
    assert found["l2_debiased"] == pytest.approx(DEBIASED, rel=1e-9)


def test_probmetrics(values: dict[str, float]) -> None:
    # In float32 there.
    assert values["ecce_mad"] == pytest.approx(KOLMOGOROV_SMIRNOV, abs=1e-7)
    assert values["ecce_r"] == pytest.approx(KUIPER, abs=1e-7)


def test_relplot() -> None:
    confidence = np.arange(1, 2000) / 2000
    event = np.arange(1, 2000) * 0.618034 % 1 < confidence**1.4
    curve = curve_of_cells(np.ones(1999), confidence, event * 1.0)
    residuals = residuals_on_lattice(curve)
    found = [Smoother(residuals).error(width) for width in (0.02, 0.05)]
    # It integrates over a grid, and looks for the width in steps of 1/1024.
    assert found == pytest.approx(SMOOTHED, rel=5e-3)
    assert METRICS["smooth_ece"].value(curve) == pytest.approx(SMOOTH, abs=1e-3)


def test_scikit_learn(block: tuple[Array, Array], values: dict[str, float]) -> None:
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    log_probs, labels = block
    probs = np.exp(log_probs)
    view = View(log_probs, labels)
    auroc = sklearn_metrics.roc_auc_score(view.correct, view.confidence)
    assert values["auroc"] == pytest.approx(auroc)
    top5 = sklearn_metrics.top_k_accuracy_score(labels, probs, k=5)
    assert values["top5_accuracy"] == pytest.approx(top5)
    half = sklearn_metrics.brier_score_loss(labels, probs, scale_by_half=True)
    assert values["brier_half"] == pytest.approx(half)


def test_torchmetrics(block: tuple[Array, Array], values: dict[str, float]) -> None:
    classification = pytest.importorskip("torchmetrics.functional.classification")
    torch = pytest.importorskip("torch")
    log_probs, labels = block
    probs, target = torch.from_numpy(np.exp(log_probs)), torch.from_numpy(labels)
    for norm, name in (("l1", "ece"), ("max", "mce")):
        error = classification.multiclass_calibration_error(probs, target, 10, n_bins=15, norm=norm)
        assert values[name] == pytest.approx(float(error), abs=1e-6)
