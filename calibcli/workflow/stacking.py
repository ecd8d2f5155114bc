"""Stacking: a log-linear mixture of candidates, its weights fitted to held-out rows.

Wolpert, Stacked generalization, Neural Networks 1992; Breiman, Stacked regressions, Machine
Learning 1996 (weights that must not be negative).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import itemgetter
from typing import Any

import numpy as np

from calibcli.arrays import NumpyArray, host_weights, log_softmax, to_numpy
from calibcli.calibrators.chain import LogLinear, for_rows, log_probs_after
from calibcli.engine.data import Data
from calibcli.engine.engine import Tile
from calibcli.engine.folds import Folds
from calibcli.engine.source import each_key
from calibcli.fitting.mixing import fit_weights
from calibcli.fitting.results import Fit, Solution, StageFit
from calibcli.objectives.nll import NegativeLogLikelihood
from calibcli.workflow.choosing import (
    ahead_of_none,
    choose_place,
    expected_losses,
    of_those_that_count,
    plain_place,
)
from calibcli.workflow.fitted_plans import Trial
from calibcli.workflow.measuring import CrossFitted
from calibcli.workflow.paired_losses import PairedLosses
from calibcli.workflow.plans import Plan

_MOST_NUMBERS = 1 << 24
"""Log-probabilities that are held at a time; of more, every so many-th row is taken."""

_RIDGE = 30.0
"""Over rows; it draws the weights to those of the average, which need no fit."""

_LEAST_WEIGHT = 0.01
"""Members of less weight are left out, but for the one that would be chosen alone."""

_IMPOSSIBLE = -1e4
"""Stands for the log-probability of an impossible class."""


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
    fitted, single, _ = _weights(rows, plain_place(trials), spread=data.spread)
    kept = np.flatnonzero((fitted > _LEAST_WEIGHT) | (single > 0)).tolist()
    if len(kept) < 2:
        return None
    trials = [trials[place] for place in kept]
    rows, plain = replace(rows, log_probs=rows.log_probs[kept]), plain_place(trials)
    fitted, single, solution = _weights(rows, plain, fitted[kept], data.spread)
    of_fold = partial(_without_fold, rows, plain, (fitted, single))
    by_fold, losses, weights = zip(*data.spread(of_fold, range(data.folds)), strict=True)
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


def _without_fold(
    rows: _Rows, plain: int | None, whole: tuple[NumpyArray, NumpyArray], fold: int
) -> tuple[tuple[NumpyArray, NumpyArray], list[NumpyArray], NumpyArray]:
    """Weights without the rows of a fold, as a pair; their losses (2, m) there, and row weights.

    The losses are those of the best weights and of halfway to the trial that is chosen alone.
    """
    inside = rows.folds == fold
    others, part = rows.of(~inside), rows.of(inside)
    best, single = whole
    if others.weights.sum() > 0:
        best, single, _ = _weights(others, plain, best)
    return (best, single), [part.losses(best), part.losses((best + single) / 2)], part.weights


def _weights(
    rows: _Rows,
    plain: int | None,
    start: NumpyArray | None = None,
    spread: Callable[..., Iterator[Any]] = map,
) -> tuple[NumpyArray, NumpyArray, Solution]:
    """The weights (M,) of lowest loss, and those of the trial that would be chosen alone.

    The trial at ``plain`` changes nothing.
    """
    losses = PairedLosses.of_rows(-rows.label_log_probs, rows.weights)
    average = losses.averaging_weights()

    def expected_of(places: NumpyArray) -> NumpyArray:
        return expected_losses(list(rows.log_probs[places]), average[places], rows.weights)

    expected = of_those_that_count(average, expected_of)
    total = float(rows.weights.sum())
    shares, ridge = rows.weights / total, _RIDGE / total
    solution = fit_weights(rows.log_probs, rows.labels, shares, average, ridge, start, spread)
    if solution.value * total < math.log(2):
        # The rows can be separated: the loss falls as long as the weights grow.
        solution = replace(solution, theta=average, criterion="average")
    single = np.zeros(len(average))
    single[choose_place(losses, expected, plain, ahead_of_none(rows.log_probs.shape[2]))] = 1.0
    return solution.theta, single, solution


def _collect(data: Data, trials: Sequence[Trial]) -> _Rows:
    numbers = data.rows * data.classes * len(trials)
    step = -(-numbers // _MOST_NUMBERS)
    members = [CrossFitted.of(trial.by_fold, data) for trial in trials]
    work = partial(_every_row, data.spread) if step == 1 else _some_rows
    parts = data.fold(partial(work, members, data.split, step), operator.add)
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


_Part = tuple[NumpyArray, NumpyArray, NumpyArray, NumpyArray]


def _every_row(
    spread: Callable[..., Iterator[Any]],
    members: Sequence[CrossFitted],
    split: Folds,
    step: int,
    tile: Tile,
) -> list[_Part]:
    """The rows of a tile through the members that didn't see them, as these may be at hand."""
    del step
    result = np.empty((len(members), *tile.logits.shape))

    def fill(place: int) -> None:
        log_probs = to_numpy(log_softmax(members[place](tile)))
        # An impossible class counts for nothing, also where a member's weight is 0.
        np.maximum(log_probs, _IMPOSSIBLE, out=result[place])

    list(spread(fill, range(len(members))))
    weights = host_weights(tile.labels, tile.weights)
    return [(result, to_numpy(tile.labels), weights, split.of(tile))]


def _some_rows(members: Sequence[CrossFitted], split: Folds, step: int, tile: Tile) -> list[_Part]:
    """The same of every so many-th row, by its number."""
    first = -tile.start % step
    keys = each_key(tile.keys, lambda key: key[first::step])
    weights = host_weights(tile.labels, tile.weights)[first::step]
    folds, labels = split.of(tile)[first::step], to_numpy(tile.labels)[first::step]
    result = np.empty((len(members), len(labels), tile.logits.shape[1]))
    for fold in np.unique(folds):
        rows = np.flatnonzero(folds == fold)
        part = tile.logits[first::step][rows]
        for place, member in enumerate(members):
            stages = for_rows(member.by_fold[fold], each_key(keys, itemgetter(rows)))
            log_probs = log_softmax(log_probs_after(stages, part))
            result[place, rows] = np.maximum(to_numpy(log_probs), _IMPOSSIBLE)
    return [(result, labels, weights, folds)]
