"""Stacking: a log-linear mixture of candidates, its weights fitted to held-out rows.

Wolpert, Stacked generalization, Neural Networks 1992; Breiman, Stacked regressions, Machine
Learning 1996 (weights that must not be negative).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from calibcli.arrays import NumpyArray, host_weights, log_softmax, to_numpy
from calibcli.calibrators.base import Calibrator
from calibcli.calibrators.chain import LogLinear, log_probs_after
from calibcli.engine.data import Data
from calibcli.engine.engine import Tile
from calibcli.engine.folds import Folds
from calibcli.fitting.mixing import fit_weights
from calibcli.fitting.results import Fit, Solution, StageFit
from calibcli.objectives.nll import NegativeLogLikelihood
from calibcli.workflow.choosing import (
    PairedLosses,
    ahead_of_none,
    choose_place,
    expected_losses,
    plain_place,
)
from calibcli.workflow.fitted_plans import Trial
from calibcli.workflow.plans import Plan

_MOST_NUMBERS = 1 << 24
"""Log-probabilities that are held at a time; of more, every so many-th row is taken."""

_RIDGE = 30.0
"""Over rows; it draws the weights to those of the average, which need no fit."""

_LEAST_WEIGHT = 0.01
"""Members of less weight are left out, but for the one that would be chosen alone."""

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

    @property
    def label_log_probs(self) -> NumpyArray:
        """Those of the labels (M, n)."""
        chosen: NumpyArray = self.log_probs[:, np.arange(len(self.labels)), self.labels]
        return chosen

    def of(self, chosen: NumpyArray) -> _Rows:
        return _Rows(
            self.log_probs[:, chosen], self.labels[chosen], self.weights[chosen], self.folds[chosen]
        )

    def losses(self, weights: NumpyArray) -> NumpyArray:
        """The NLL (n,) of a mixture with weights (M,)."""
        logits = np.tensordot(weights, self.log_probs, 1)
        losses: NumpyArray = -log_softmax(logits)[np.arange(len(self.labels)), self.labels]
        return losses


def stack(data: Data, trials: Sequence[Trial]) -> Trial | None:
    """The log-linear mixture of trials with the lowest held-out NLL, as one more trial.

    The weights are fitted to rows that no member has seen. Those that judge the mixture fold by
    fold are fitted without the rows of that fold. They are those of lowest loss, which a ridge
    draws to the average of all by tempered evidence, and lie halfway to the trial that would be
    chosen alone unless that costs more than one standard error on rows that they were not fitted
    to. Where the rows can be separated the weights are those of the average, as none fit best.
    Where one member is left there is no mixture: None.

    Parameters
    ----------
    data : Data
    trials : sequence of Trial
    """
    rows = _collect(data, trials)
    fitted, single, _ = _weights(rows, plain_place(trials))
    kept = np.flatnonzero((fitted > _LEAST_WEIGHT) | (single > 0)).tolist()
    if len(kept) < 2:
        return None
    trials = [trials[place] for place in kept]
    rows, plain = replace(rows, log_probs=rows.log_probs[kept]), plain_place(trials)
    fitted, single, solution = _weights(rows, plain, fitted[kept])
    by_fold, losses, weights = [], [], []
    for fold in range(data.folds):
        inside = rows.folds == fold
        others = rows.of(~inside)
        pair = _weights(others, plain, fitted)[:2] if others.weights.sum() > 0 else (fitted, single)
        by_fold.append(pair)
        part = rows.of(inside)
        losses.append([part.losses(pair[0]), part.losses((pair[0] + pair[1]) / 2)])
        weights.append(part.weights)
    both = PairedLosses.of_rows(np.concatenate(losses, axis=1), np.concatenate(weights))
    cost = float(both.mean[1] - both.mean[0])
    share = 0.0 if cost > both.error_of_difference(0, 1) else 0.5
    whole = (1 - share) * fitted + share * single
    mixtures = [(1 - share) * first + share * one for first, one in by_fold]
    plan = Plan("stack", "nll", (), NegativeLogLikelihood())
    names = tuple(trial.name for trial in trials)
    # One pass more is that through all members.
    passes = sum(trial.fit.passes for trial in trials) + 1
    mixture = LogLinear(tuple(trial.fit.calibrators for trial in trials), whole, names)
    return Trial(
        plan,
        Fit((StageFit(mixture, solution, passes),)),
        tuple(
            (LogLinear(tuple(t.by_fold[fold] for t in trials), mixture),)
            for fold, mixture in enumerate(mixtures)
        ),
        sum(trial.seconds for trial in trials),
        sum(trial.parameters for trial in trials) + len(trials),
        tuple(zip(trials, whole.tolist(), strict=True)),
    )


def _weights(
    rows: _Rows, plain: int | None, start: NumpyArray | None = None
) -> tuple[NumpyArray, NumpyArray, Solution]:
    """The weights (M,) of lowest loss, and those of the trial that would be chosen alone.

    The trial at ``plain`` changes nothing.
    """
    losses = PairedLosses.of_rows(-rows.label_log_probs, rows.weights)
    average = losses.averaging_weights()
    expected = expected_losses(list(rows.log_probs), average, rows.weights)
    total = float(rows.weights.sum())
    shares, ridge = rows.weights / total, _RIDGE / total
    solution = fit_weights(rows.log_probs, rows.labels, shares, average, ridge, start)
    if solution.value * total < math.log(2):
        # The rows can be separated: the loss falls as long as the weights grow.
        solution = replace(solution, theta=average, criterion="average")
    single = np.zeros(len(average))
    single[choose_place(losses, expected, plain, ahead_of_none(rows.log_probs.shape[2]))] = 1.0
    return solution.theta, single, solution


def _collect(data: Data, trials: Sequence[Trial]) -> _Rows:
    numbers = data.rows * data.classes * len(trials)
    step = -(-numbers // _MOST_NUMBERS)
    by_fold = [trial.by_fold for trial in trials]
    parts = data.fold(partial(_held_out, by_fold, data.split, step), operator.add)
    log_probs, labels, weights, folds = zip(*parts, strict=True)
    shares = np.concatenate(weights)
    # The rows that are taken stand for all.
    shares = shares * (data.weight / max(float(shares.sum()), 1e-300))
    return _Rows(
        np.concatenate(log_probs, axis=1).astype(np.float64, copy=False),
        np.concatenate(labels),
        shares,
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
