"""Stacking: a log-linear mixture of candidates, its weights fitted to held-out rows.

Wolpert, Stacked generalization, Neural Networks 1992; Breiman, Stacked regressions, Machine
Learning 1996 (weights that must not be negative).
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from calibcli.arrays import NumpyArray, host_weights, log_softmax, to_numpy
from calibcli.calibrators.base import Calibrator
from calibcli.calibrators.chain import LogLinear, log_probs_after
from calibcli.engine.data import Data
from calibcli.engine.engine import Tile
from calibcli.engine.folds import Folds
from calibcli.fitting.results import Fit, Solution, StageFit
from calibcli.objectives.nll import NegativeLogLikelihood
from calibcli.workflow.fitted_plans import Trial
from calibcli.workflow.plans import Plan

_MOST_NUMBERS = 1 << 24
"""Log-probabilities that are held at a time; of more, every so many-th row is taken."""

_RIDGE = 1.0
"""Over rows; it settles what members that say nearly the same should weigh."""

_LEAST_WEIGHT = 0.01
"""Members of less weight are left out, but for the best one."""

_IMPOSSIBLE = -1e4
"""Stands for the log-probability of an impossible class."""

Members = Sequence[Sequence[Calibrator]]


@dataclass(frozen=True)
class _Rows:
    """Held-out log-probabilities (M, n, K) of rows, with labels, weights and folds (n,)."""

    log_probs: NumpyArray
    labels: NumpyArray
    weights: NumpyArray
    folds: NumpyArray

    def of(self, chosen: NumpyArray) -> _Rows:
        return _Rows(
            self.log_probs[:, chosen], self.labels[chosen], self.weights[chosen], self.folds[chosen]
        )


def stack(data: Data, trials: Sequence[Trial]) -> Trial:
    """The log-linear mixture of trials with the lowest held-out NLL, as one more trial.

    The weights are fitted to rows that no member has seen. Those that judge the mixture fold by
    fold are fitted without the rows of that fold.

    Parameters
    ----------
    data : Data
    trials : sequence of Trial
        The penalty on the weights pulls to the best of them alone.
    """
    rows = _collect(data, trials)
    label_log_probs = rows.log_probs[:, np.arange(len(rows.labels)), rows.labels]
    start = np.eye(len(trials))[int(np.argmax(label_log_probs @ rows.weights))]
    weights, solution = _solve(rows, start, start)
    kept = np.flatnonzero((weights > _LEAST_WEIGHT) | (start > 0)).tolist()
    if len(kept) < len(trials):
        trials, start = [trials[place] for place in kept], start[kept]
        rows = _Rows(rows.log_probs[kept], rows.labels, rows.weights, rows.folds)
        weights, solution = _solve(rows, weights[kept], start)
    whole = LogLinear(tuple(trial.fit.calibrators for trial in trials), weights)
    by_fold = []
    for fold in range(data.folds):
        others = rows.of(rows.folds != fold)
        share = _solve(others, weights, start)[0] if others.weights.sum() > 0 else weights
        by_fold.append((LogLinear(tuple(trial.by_fold[fold] for trial in trials), share),))
    plan = Plan("stack", "nll", (), NegativeLogLikelihood())
    return Trial(
        plan,
        Fit((StageFit(whole, solution),)),
        tuple(by_fold),
        sum(trial.seconds for trial in trials),
        sum(trial.parameters for trial in trials) + len(trials),
        tuple(zip(trials, weights.tolist(), strict=True)),
    )


def _solve(rows: _Rows, start: NumpyArray, anchor: NumpyArray) -> tuple[NumpyArray, Solution]:
    """Weights (M,) of lowest mean NLL, none of them negative."""
    from scipy.optimize import minimize

    total = float(rows.weights.sum())
    shares = rows.weights / total
    label_log_probs = rows.log_probs[:, np.arange(len(rows.labels)), rows.labels] @ shares

    def value_and_gradient(weights: NumpyArray) -> tuple[float, NumpyArray]:
        logits = np.tensordot(weights, rows.log_probs, 1)
        largest = logits.max(axis=1, keepdims=True)
        shifted = np.exp(logits - largest)
        sums = shifted.sum(axis=1, keepdims=True)
        normaliser = (largest + np.log(sums))[:, 0] @ shares
        probs = shifted / sums * shares[:, None]
        expected = np.tensordot(rows.log_probs, probs, ((1, 2), (0, 1)))
        pull = weights - anchor
        value = normaliser - float(weights @ label_log_probs) + _RIDGE / total * float(pull @ pull)
        return value, expected - label_log_probs + 2 * _RIDGE / total * pull

    optimum = minimize(
        value_and_gradient,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=[(0.0, None)] * len(start),
        options={"maxiter": 500, "ftol": 1e-13, "gtol": 1e-8},
    )
    weights: NumpyArray = optimum.x
    gradient = np.where((weights <= 0) & (optimum.jac > 0), 0.0, optimum.jac)
    norm = float(np.abs(gradient).max(initial=0.0))
    return weights, Solution(
        weights, float(optimum.fun), norm, norm <= 1e-4, "gradient", optimum.nit
    )


def _collect(data: Data, trials: Sequence[Trial]) -> _Rows:
    numbers = data.rows * data.classes * len(trials)
    step = -(-numbers // _MOST_NUMBERS)
    by_fold = [trial.by_fold for trial in trials]
    parts = data.fold(partial(_held_out, by_fold, data.split, step), operator.add)
    log_probs, labels, weights, folds = zip(*parts, strict=True)
    return _Rows(
        np.concatenate(log_probs, axis=1),
        np.concatenate(labels),
        np.concatenate(weights),
        np.concatenate(folds),
    )


def _held_out(
    members: Sequence[Members], split: Folds, step: int, tile: Tile
) -> list[tuple[NumpyArray, NumpyArray, NumpyArray, NumpyArray]]:
    """Every so many-th row of a tile, by its number, through the members that didn't see it."""
    first = -tile.start % step
    folds = split.of(tile)[first::step]
    logits = tile.logits[first::step]
    labels = to_numpy(tile.labels)[first::step]
    weights = host_weights(tile.labels, tile.weights)
    result = np.empty((len(members), *logits.shape))
    for fold in np.unique(folds):
        rows = np.flatnonzero(folds == fold)
        part = logits[rows]
        for place, by_fold in enumerate(members):
            log_probs = log_softmax(log_probs_after(by_fold[fold], part))
            # An impossible class counts for nothing, also where a member's weight is 0.
            result[place, rows] = np.maximum(to_numpy(log_probs), _IMPOSSIBLE)
    return [(result, labels, weights[first::step], folds)]
