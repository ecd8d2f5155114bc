"""All metrics of the default panel in process, against the fastest functions for the same ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from data import Matrix, Size, read_arrays, write_arrays
from harness import Line, Timing, elsewhere, race

SIZE = Size(50_000, 1000)
BINS = 15

Evaluate = Callable[[], dict[str, float]]
"""Measures, and returns the metrics by `calib`'s names."""

_GOAL = 1 / 5


def calib(folder: Path) -> Evaluate:
    """`calibcli.evaluate`, from logits."""
    import calibcli

    logits, labels = read_arrays(folder)
    return lambda: calibcli.evaluate(logits, labels, input="logits").values


def fastest_peers(folder: Path) -> Evaluate:
    """For each metric the fastest function that a peer has, on probabilities computed once.

    torch for softmax, accuracy and log-loss, scikit-learn for the Brier score, torchmetrics for
    ECE and MCE (of the vector of confidences, which spares it a pass over the matrix) and for each
    class's ECE, netcal for ECE with bins of equal mass. KS, which none of them has, is as in the
    published code.
    """
    import torch
    from netcal.metrics import ECE
    from sklearn.metrics import brier_score_loss
    from torch.nn import functional
    from torchmetrics.functional.classification import binary_calibration_error

    scores, classes = read_arrays(folder)
    logits, labels = torch.from_numpy(scores), torch.from_numpy(classes)
    every_class = np.arange(logits.shape[1])
    threads = torch.get_num_threads()

    def binned(confidence: torch.Tensor, true: torch.Tensor, norm: str = "l1") -> torch.Tensor:
        return binary_calibration_error(
            confidence, true.long(), n_bins=BINS, norm=norm, validate_args=False
        )

    def evaluate() -> dict[str, float]:
        probs = functional.softmax(logits, dim=1)
        confidence, prediction = probs.max(dim=1)
        correct = prediction == labels
        by_class = probs.T.contiguous()
        # Handing vectors this short to several threads costs more than it gains.
        torch.set_num_threads(1)
        class_errors = [binned(by_class[k], labels == k) for k in range(len(by_class))]
        torch.set_num_threads(threads)
        equal_mass = ECE(BINS, equal_intervals=False)
        return {
            "accuracy": float(correct.float().mean()),
            "nll": float(functional.cross_entropy(logits, labels)),
            "brier": brier_score_loss(
                classes, probs.numpy(), labels=every_class, scale_by_half=False
            ),
            "ece": float(binned(confidence, correct)),
            "adaptive_ece": equal_mass.measure(confidence.numpy(), correct.numpy().astype(int)),
            "class_wise_ece": float(torch.stack(class_errors).mean()),
            "mce": float(binned(confidence, correct, "max")),
            "ks": _kolmogorov_smirnov(confidence.numpy(), correct.numpy()),
        }

    return evaluate


def _kolmogorov_smirnov(confidence: Matrix, correct: Matrix) -> float:
    order = np.argsort(confidence)
    excess = np.cumsum(confidence[order] - correct[order], dtype=np.float64)
    return float(np.abs(excess).max() / len(confidence))


CONTENDERS = {"calib": calib, "fastest peers": fastest_peers}


def benchmark(folder: Path) -> list[Line]:
    """Both on one size, and how far apart their numbers are."""
    elsewhere(write_arrays, folder, SIZE)
    return _lines(str(SIZE), race(CONTENDERS, folder))


def _lines(case: str, timings: dict[str, Timing]) -> list[Line]:
    ours, theirs = timings["calib"], timings["fastest peers"]
    if theirs.missing:
        return [Line("evaluate", case, "time, fastest peers", note=theirs.missing)]
    apart = {name: abs(ours.answer[name] - value) for name, value in theirs.answer.items()}
    name = max(apart, key=apart.__getitem__)
    return [
        Line(
            "evaluate",
            case,
            "time, fastest peers",
            ours.median,
            theirs.median,
            at_most=_GOAL,
            note=f"{len(apart)} metrics, at most {apart[name]:.0e} apart ({name})",
        )
    ]
