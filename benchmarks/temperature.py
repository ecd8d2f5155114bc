"""Temperature scaling in process: the time of a fit, and how far its optimum is off."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from data import Size, exact_log_temperature, read_arrays, write_arrays
from harness import Line, Timing, elsewhere, race

SIZES = (Size(10_000, 10), Size(50_000, 100), Size(50_000, 1000), Size(1_000_000, 10))

Fit = Callable[[], float]
"""Fits, and returns the logarithm of the temperature."""

_TIME_GOALS = {
    ("10k x 10", "probmetrics"): 1 / 5,
    ("50k x 1000", "probmetrics"): 1 / 20,
    ("50k x 1000", "x.sum()"): 20,
    ("1M x 10", "scikit-learn"): 1 / 15,
}
_SAME_OPTIMUM = 1e-6


def calib_fit(folder: Path) -> Fit:
    """The fit alone, with the checks of the data that come before it."""
    from calibcli.calibrators.temperature import TemperatureMap
    from calibcli.engine.data import open_data
    from calibcli.engine.engine import Engine
    from calibcli.engine.source import ArraySource
    from calibcli.fitting.stages import fit_stages
    from calibcli.objectives.nll import NegativeLogLikelihood

    logits, labels = read_arrays(folder)

    def fit() -> float:
        data = open_data(Engine(), ArraySource(logits, labels))
        fitted = fit_stages(data, [TemperatureMap()], NegativeLogLikelihood())
        return float(np.log(fitted.calibrators[0].parameters()["temperature"]))

    return fit


def calib_python_interface(folder: Path) -> Fit:
    """`calibcli.fit`, which also measures all metrics before the fit."""
    import calibcli

    logits, labels = read_arrays(folder)

    def fit() -> float:
        fitted = calibcli.fit(logits, labels, folds=0)
        return float(np.log(fitted.stages[0].parameters()["temperature"]))

    return fit


def probmetrics(folder: Path) -> Fit:
    """30 bisections of the derivative, in torch."""
    import torch
    from probmetrics.calibrators import get_calibrator
    from probmetrics.distributions import CategoricalLogits

    logits, labels = map(torch.from_numpy, read_arrays(folder))

    def fit() -> float:
        calibrator = get_calibrator("temp-scaling")
        calibrator.fit_torch(CategoricalLogits(logits), labels)
        return -float(np.log(calibrator.invtemp_))

    return fit


def scikit_learn(folder: Path) -> Fit:
    """Brent's method on the loss.

    The class behind `CalibratedClassifierCV(method="temperature")`, called by itself, since the
    public one also clones, splits and predicts.
    """
    from sklearn.calibration import _TemperatureScaling

    logits, labels = read_arrays(folder)

    def fit() -> float:
        return -float(np.log(_TemperatureScaling().fit(logits, labels).beta_))

    return fit


def netcal(folder: Path) -> Fit:
    """BFGS with numerical derivatives, on probabilities.

    They are handed over in float64: from float32 ones the derivatives are rounded to 0, and the
    fit ends where it began.
    """
    from netcal.scaling import TemperatureScaling
    from scipy.special import softmax

    logits, labels = read_arrays(folder)
    probs = softmax(logits.astype(np.float64), axis=1)

    def fit() -> float:
        calibrator = TemperatureScaling(method="mle")
        calibrator.fit(probs, labels)
        return -float(np.log(calibrator.temperature[0]))

    return fit


def published_lbfgs(folder: Path) -> Fit:
    """The script of Guo et al. (2017), github.com/gpleiss/temperature_scaling, as published."""
    import torch

    logits, labels = map(torch.from_numpy, read_arrays(folder))

    def fit() -> float:
        temperature = torch.nn.Parameter(torch.ones(1) * 1.5)
        criterion = torch.nn.CrossEntropyLoss()
        optimizer = torch.optim.LBFGS([temperature], lr=0.01, max_iter=50)

        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            scale = temperature.unsqueeze(1).expand(logits.size(0), logits.size(1))
            loss = criterion(logits / scale, labels)
            loss.backward()
            return loss

        optimizer.step(closure)
        return float(np.log(temperature.item()))

    return fit


def array_sum(folder: Path) -> Callable[[], np.float32]:
    """What it takes to look at every logit once."""
    logits, _ = read_arrays(folder)
    return logits.sum


OURS, SUM, INTERFACE = "calib", "x.sum()", "calibcli.fit"
PEERS = {
    "probmetrics": probmetrics,
    "scikit-learn": scikit_learn,
    "netcal": netcal,
    "published L-BFGS": published_lbfgs,
}
CONTENDERS = {OURS: calib_fit, SUM: array_sum, INTERFACE: calib_python_interface, **PEERS}


def benchmark(folder: Path) -> list[Line]:
    """Every contender on every size."""
    lines = []
    for size in SIZES:
        elsewhere(write_arrays, folder, size)
        exact = elsewhere(exact_log_temperature, folder)
        lines += _lines(str(size), race(CONTENDERS, folder), exact)
    return lines


def _lines(case: str, timings: dict[str, Timing], exact: float) -> list[Line]:
    ours = timings[OURS]
    line = partial(Line, "temperature", case)
    difference = partial(line, unit="", at_most=_SAME_OPTIMUM)
    lines = [difference("Δ log T, exact", abs(ours.answer - exact))]
    for name in (SUM, *PEERS):
        timing, goal = timings[name], _TIME_GOALS.get((case, name))
        measure = f"time, {name}"
        if timing.missing:
            lines.append(line(measure, note=timing.missing))
        elif name == SUM:
            if goal:
                lines.append(line(measure, ours.median, timing.median, at_most=goal))
        else:
            note = f"its Δ log T {abs(timing.answer - exact):.0e}"
            lines.append(line(measure, ours.median, timing.median, at_most=goal, note=note))
            if name == "probmetrics":
                lines.append(difference(f"Δ log T, {name}", abs(ours.answer - timing.answer)))
    with_metrics = timings[INTERFACE].median
    return [
        *lines,
        line(f"time, {INTERFACE}", with_metrics, note="with all metrics before the fit"),
    ]
