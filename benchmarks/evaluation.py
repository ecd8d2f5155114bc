"""Metrics in process: the default ones against the fastest functions for them, then all of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from data import Matrix, Size, read_arrays, write_arrays
from harness import Line, Timing, elsewhere, race

SIZE = Size(50_000, 1000)
SIZE_OF_ALL = Size(1_000_000, 10)
BINS = 15

Evaluate = Callable[[], dict[str, float]]
"""Measures, and returns the metrics by `calib`'s names."""

_GOAL = 1 / 5
_GOAL_OF_ALL = 1 / 3


def calib(folder: Path) -> Evaluate:
    """`calibcli.evaluate`, from logits."""
    import calibcli

    logits, labels = read_arrays(folder)
    return lambda: calibcli.evaluate(logits, labels, input="logits").values


def calib_all(folder: Path) -> Evaluate:
    """Every metric that there is, from logits."""
    import calibcli

    logits, labels = read_arrays(folder)
    return lambda: calibcli.evaluate(logits, labels, input="logits", metrics=["all"]).values


def peers_together(folder: Path) -> Evaluate:
    """What probmetrics (with relplot in it) and netcal have of them, each by their own functions.

    Kuiper and KS are for two classes there and get the confidence, as probabilities of being right.
    They have no AURC, no decompositions, no sweep, no debiased, no top-label and no thresholded
    error, so `calib` measures more here than they do.
    """
    import torch
    from netcal.metrics import ECE
    from probmetrics import metrics

    scores, classes = read_arrays(folder)
    logits, labels = torch.from_numpy(scores), torch.from_numpy(classes)
    of_rows = {
        "nll": metrics.LogLoss(),
        "brier": metrics.BrierLoss(),
        "accuracy": metrics.Accuracy(),
        "ece": metrics.CalibrationError(BINS, "l1"),
        "mce": metrics.CalibrationError(BINS, "max"),
        "smooth_ece": metrics.SmoothCalibrationError(),
    }
    of_confidence = {
        "ks": metrics.KolmogorovSmirnovCalibrationMetric(),
        "ecce_r": metrics.KuiperCalibrationMetric(),
    }

    def value(metric: metrics.Metric, true: torch.Tensor, scores: torch.Tensor) -> float:
        (found,) = metric.compute_all_from_labels_logits(true, scores).values()
        return float(found)

    def evaluate() -> dict[str, float]:
        probs = torch.softmax(logits, dim=1)
        confidence, prediction = probs.max(dim=1)
        correct = (prediction == labels).long()
        two = torch.log(torch.stack([1 - confidence, confidence], dim=1))
        by_class = probs.T.contiguous().numpy()
        errors = [ECE(BINS).measure(by_class[k], (classes == k) * 1) for k in range(len(by_class))]
        return {
            **{name: value(metric, labels, logits) for name, metric in of_rows.items()},
            **{name: value(metric, correct, two) for name, metric in of_confidence.items()},
            "adaptive_ece": ECE(BINS, equal_intervals=False).measure(
                confidence.numpy(), correct.numpy()
            ),
            "class_wise_ece": float(np.mean(errors)),
        }

    return evaluate


def fastest_peers(folder: Path) -> Evaluate:
    """For each metric the fastest function that a peer has, on probabilities computed once.

    torch for softmax, accuracy and log-loss, scikit-learn for the Brier score, torchmetrics for
    ECE (of the vector of confidences, which spares it a pass over the matrix) and for each
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

    def binned(confidence: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
        return binary_calibration_error(
            confidence, true.long(), n_bins=BINS, norm="l1", validate_args=False
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
            "ks": _kolmogorov_smirnov(confidence.numpy(), correct.numpy()),
        }

    return evaluate


def _kolmogorov_smirnov(confidence: Matrix, correct: Matrix) -> float:
    order = np.argsort(confidence)
    excess = np.cumsum(confidence[order] - correct[order], dtype=np.float64)
    return float(np.abs(excess).max() / len(confidence))


CONTENDERS = {"calib": calib, "fastest peers": fastest_peers}
CONTENDERS_OF_ALL = {"calib": calib_all, "probmetrics, relplot, netcal": peers_together}


def benchmark(folder: Path) -> list[Line]:
    """The default metrics, then all; and how far apart the numbers are."""
    elsewhere(write_arrays, folder, SIZE)
    lines = _lines(str(SIZE), race(CONTENDERS, folder), _GOAL)
    elsewhere(write_arrays, folder, SIZE_OF_ALL)
    timings = race(CONTENDERS_OF_ALL, folder, rounds=3)
    return lines + _lines(f"--metrics all, {SIZE_OF_ALL}", timings, _GOAL_OF_ALL)


def _lines(case: str, timings: dict[str, Timing], goal: float) -> list[Line]:
    (_, ours), (peers, theirs) = timings.items()
    if theirs.missing:
        return [Line("evaluate", case, f"time, {peers}", note=theirs.missing)]
    apart = {name: abs(ours.answer[name] - value) for name, value in theirs.answer.items()}
    name = max(apart, key=apart.__getitem__)
    return [
        Line(
            "evaluate",
            case,
            f"time, {peers}",
            ours.median,
            theirs.median,
            at_most=goal,
            note=f"{len(ours.answer)} metrics, theirs {len(apart)}, "
            f"at most {apart[name]:.0e} apart ({name})",
        )
    ]
