"""Fits of the stronger methods in process: their time, and the loss on the rows of the fit.

A contender of `calib` is the fit alone, with the checks of the data that come before it; one of
probmetrics gets logits and labels as tensors, and the probabilities that it may want computed
before. Only Venn-Abers predictors are timed with their predictions for the same rows, since it is
free to a library what of their work it does when.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from data import Matrix, Size, read_arrays, write_arrays
from harness import Line, Timing, elsewhere, race

_BLOCK_ROWS = 5000


@dataclass(frozen=True)
class Duel:
    """A method that both have.

    Attributes
    ----------
    method : str
        Of `calib`.
    peer : str
        Of probmetrics, as in `arena_peers.PEERS`.
    size : Size
    at_most : float
        The goal for the ratio of the times.
    convex : bool
        Whether both have the same optimum, so that the losses must agree.
    predicts : bool
        Whether predictions count.
    """

    method: str
    peer: str
    size: Size
    at_most: float
    convex: bool = True
    predicts: bool = False


_SMALL, _MIDDLE = Size(10_000, 10), Size(50_000, 100)
_BINARY = Size(50_000, 2)

DUELS = (
    Duel("svs", "svs", _SMALL, 1 / 5),
    Duel("sms", "sms", _SMALL, 1 / 5),
    Duel("svs", "svs", _MIDDLE, 1 / 5),
    Duel("sms", "sms", _MIDDLE, 1 / 4),
    Duel("isotonic", "isotonic", _MIDDLE, 1 / 2, convex=False),
    Duel("ensemble-temperature", "ets-ce", _MIDDLE, 1 / 10),
    Duel("venn-abers", "ivap-ovr", _MIDDLE, 1 / 20, convex=False, predicts=True),
    Duel("svs", "svs", Size(25_000, 1000), 1 / 5),
    Duel("svs", "svs", Size(50_000, 1000), 1 / 5),
    Duel("sms", "sms", Size(50_000, 1000), 1.0),
    Duel("platt", "affine-scaling", _BINARY, 1.0),
    Duel("quadratic", "quadratic-scaling", _BINARY, 1.0),
    Duel("beta", "beta", _BINARY, 1.0),
    Duel("spline", "spline", _BINARY, 1.0, convex=False),
    Duel("bbq", "bbq", _BINARY, 1.0, convex=False),
    Duel("scaling-binning", "scaling-binning", _BINARY, 1.0, convex=False),
    Duel("histogram", "hist-uniform", _MIDDLE, 1.0, convex=False),
    Duel("centered-isotonic", "cir", _MIDDLE, 1.0, convex=False),
    Duel("vector", "vs", _SMALL, 1.0, convex=False),
    Duel("matrix", "ms", _SMALL, 1.0, convex=False),
)
"""`vector` and `matrix` of `calib` have a ridge, which those of probmetrics do not."""

SAME_OPTIMUM = 1e-6

Predict = Callable[[Matrix], Matrix]
"""Probabilities (n, K) of logits (n, K)."""


def calib_fit(method: str, folder: Path) -> Callable[[], Predict]:
    """The fit alone."""
    from calibcli.engine.data import open_data
    from calibcli.engine.engine import Engine
    from calibcli.engine.source import ArraySource
    from calibcli.fitting.stages import fit_stages
    from calibcli.workflow.plans import make_plan

    logits, labels = read_arrays(folder)
    plan = make_plan(method)

    def fit() -> Predict:
        data = open_data(Engine(), ArraySource(logits, labels))
        stages = fit_stages(data, plan.families, plan.objective).calibrators

        def predict(rows: Matrix) -> Matrix:
            for stage in stages:
                rows = stage.log_probs(rows)
            return np.exp(rows)

        return predict

    return fit


def probmetrics_fit(peer: str, folder: Path) -> Callable[[], Predict]:
    """The fit alone."""
    import torch
    from arena_peers import PEERS
    from probmetrics.distributions import CategoricalLogits

    warnings.simplefilter("ignore")
    logits, labels = map(torch.from_numpy, read_arrays(folder))
    scores = CategoricalLogits(logits)
    scores.get_probs()
    PEERS[peer].make()

    def fit() -> Predict:
        calibrator = PEERS[peer].make()
        calibrator.fit_torch(scores, labels)

        def predict(rows: Matrix) -> Matrix:
            with torch.no_grad():
                probs = calibrator.predict_proba_torch(CategoricalLogits(torch.from_numpy(rows)))
            return np.asarray(probs.get_probs().numpy())

        return predict

    return fit


LIBRARIES = {"calib": calib_fit, "probmetrics": probmetrics_fit}


def timed(library: str, method: str, predicts: bool, folder: Path) -> Callable[[], None]:
    """What a contender does: a fit, and where that counts the prediction for the same rows."""
    fit = LIBRARIES[library](method, folder)
    logits, _ = read_arrays(folder)

    def call() -> None:
        predict = fit()
        if predicts:
            predict(logits)

    return call


def loss(library: str, method: str, folder: Path) -> float:
    """The mean negative log-likelihood of the rows of the fit, after it."""
    predict = LIBRARIES[library](method, folder)()
    logits, labels = read_arrays(folder)
    total = 0.0
    for begin in range(0, len(logits), _BLOCK_ROWS):
        probs = predict(logits[begin : begin + _BLOCK_ROWS])
        rows = labels[begin : begin + _BLOCK_ROWS]
        true = probs[np.arange(len(rows)), rows].astype(np.float64)
        total -= float(np.log(np.maximum(true, np.finfo(np.float32).tiny)).sum())
    return total / len(logits)


def benchmark(folder: Path) -> list[Line]:
    """Every duel of a method that `calib` has; data is made once a size."""
    from calibcli.calibrators.registry import MAPS

    lines: list[Line] = []
    for size in dict.fromkeys(duel.size for duel in DUELS):
        elsewhere(write_arrays, folder, size)
        for duel in DUELS:
            if duel.size == size and duel.method in MAPS:
                lines += _lines(duel, folder)
    return lines


def _lines(duel: Duel, folder: Path) -> list[Line]:
    names = {"calib": duel.method, "probmetrics": duel.peer}
    contenders = {
        library: partial(timed, library, name, duel.predicts) for library, name in names.items()
    }
    timings: dict[str, Timing] = race(contenders, folder)
    line = partial(Line, "strong", f"{duel.method}, {duel.size}")
    measure = f"time, probmetrics {duel.peer}"
    if timings["probmetrics"].missing:
        return [line(measure, timings["calib"].median, note=timings["probmetrics"].missing)]
    ours, theirs = (elsewhere(loss, library, name, folder) for library, name in names.items())
    note = "fit and prediction" if duel.predicts else ""
    return [
        line(
            measure,
            timings["calib"].median,
            timings["probmetrics"].median,
            at_most=duel.at_most,
            note=note,
        ),
        line(
            "NLL above theirs, relative",
            (ours - theirs) / theirs,
            unit="",
            at_most=SAME_OPTIMUM if duel.convex else None,
            note=f"{ours:.6f} and {theirs:.6f}",
        ),
    ]
