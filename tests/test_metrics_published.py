"""Metrics against published numbers: reference vectors, and the table of the stored data sets."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calibcli.arrays import log_softmax, scores_to_logits
from calibcli.metrics.panel import Evaluation, Panel
from calibcli.metrics.view import Event, View

NAMES = {
    "accuracy": "accuracy",
    "nll": "NLL",
    "brier": "Brier_sum_over_classes",
    "ece": "ECE15",
    "adaptive_ece_published": "AdaECE15",
    "class_wise_ece": "ClasswiseECE15",
    "mce": "MCE15(empty bins count as 0)",
    "ks": "KS_top1",
}


def evaluate(logits: Any, labels: Any, event: Event = "auto") -> Evaluation:
    panel = Panel(tuple(NAMES))
    return panel.finish(panel.partial(View(log_softmax(logits), labels, event=event)))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 2e-8), (np.float32, 2e-7)])
@pytest.mark.parametrize(
    ("split", "key"),
    [
        ("test", "test_T1"),
        ("fit", "fit_T1"),
        ("test", "test_T_official_CE(float64 softmax of float32 logits/T)"),
    ],
)
def test_reference_vectors(
    vectors: dict[str, Any],
    synthetic: dict[str, Any],
    split: str,
    key: str,
    dtype: type,
    tolerance: float,
    order: Any,
) -> None:
    logits = synthetic[f"{split}_logits"]
    if "official_CE" in key:
        official = vectors["sctl_synth"]["official_code_float32_cpu"]["TS|CE"]
        logits = logits / np.float32(official["params"]["t"][0])
    logits = np.asarray(logits, dtype=dtype, order=order)
    values = evaluate(logits, synthetic[f"{split}_labels"]).values
    expected = vectors["metrics_and_dynamics_on_synth"][key]
    # The published code holds the share of rows in a bin as float32: hence 2e-8 at best.
    assert values == pytest.approx({name: expected[NAMES[name]] for name in values}, abs=tolerance)


def test_stored_sets(shared_data: Path) -> None:
    """Every row of the data folder's table: accuracy, NLL and ECE to its four digits."""
    data = shared_data / "data"
    lines = (data / "README.md").read_text().splitlines()
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in lines
        if re.match(r"\| \w\S* \| (val|test|all) \|", line)
    ]
    assert len(rows) > 30
    for name, split, kind, *numbers in (row[:8] for row in rows):
        arrays = np.load(data / name / f"{split}.npz")
        logits = scores_to_logits(arrays[kind], kind)  # type: ignore[arg-type]
        values = evaluate(np.asfortranarray(logits), arrays["labels"], "top").values
        found = [values["accuracy"], values["nll"], values["ece"]]
        # Forecasts with four decimals: many stand on an edge such as 0.4 and either bin is right.
        tolerance = 1e-4 if name == "fte_soccer_spi" else 5.1e-5
        expected = [float(number) for number in numbers[2:]]
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance, err_msg=name)


def test_top1_of_imagenet(shared_data: Path) -> None:
    """50,000 rows of which only confidence and prediction are known, as two classes."""
    arrays = np.load(shared_data / "data" / "top1_imagenet_resnet101" / "top1.npz")
    confidence = arrays["conf"].astype(np.float64)
    sure = confidence > 0.5
    probs = np.stack([confidence, 1 - confidence], axis=1)[sure]
    labels = (arrays["pred"] != arrays["labels"]).astype(np.int64)[sure]
    bins = evaluate(scores_to_logits(probs, "probs"), labels, "top").reliability
    for part in bins[8:]:
        inside = (confidence > part.lower) & (confidence <= part.upper)
        assert part.rows == inside.sum()
        assert part.confidence == pytest.approx(confidence[inside].mean(), abs=1e-7)
        correct = (arrays["pred"] == arrays["labels"])[inside]
        assert part.accuracy == pytest.approx(correct.mean())
