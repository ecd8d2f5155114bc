"""A share of the uniform distribution behind each candidate, where held-out rows ask for one.

Labels that are wrong, and rows of another domain, cost a map without a floor so much that it makes
all rows less sure. What little share of the uniform distribution would have paid on rows that a fit
has not seen becomes a stage of it.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from calibcli.arrays import NumpyArray, host_weights
from calibcli.calibrators.laplace import LaplaceMixture
from calibcli.engine.data import Data
from calibcli.engine.engine import Tile
from calibcli.engine.folds import Folds
from calibcli.fitting.mixing import fit_uniform_share
from calibcli.fitting.results import Fit, StageFit
from calibcli.workflow.fitted_plans import Trial
from calibcli.workflow.measuring import CrossFitted

_MOST_NUMBERS = 1 << 24
"""Probabilities that are held at a time; of more, every so many-th row is taken."""


def with_floors(data: Data, trials: Sequence[Trial]) -> list[Trial]:
    """The trials, those that held-out rows ask for it with a share of the uniform distribution.

    That of all rows is fitted to all rows that were held out, that of a fold to those of the other
    folds. What changes nothing is left so.

    Parameters
    ----------
    data : Data
    trials : sequence of Trial
    """
    changing = [trial for trial in trials if any(trial.plan.families)]
    if not changing:
        return list(trials)
    predictors = [CrossFitted.of(trial.by_fold, data) for trial in changing]
    step = -(-data.rows * len(changing) // _MOST_NUMBERS)
    parts = data.fold(partial(_held_out, predictors, data.split, step), operator.add)
    columns = (np.concatenate(each, axis=-1) for each in zip(*parts, strict=True))
    probs, weights, folds = columns
    # The rows that are taken stand for all.
    weights = weights * (data.weight / max(float(weights.sum()), 1e-300))
    floored = {
        id(trial): _floored(trial, each, weights, folds, data.classes)
        for trial, each in zip(changing, probs, strict=True)
    }
    return [floored.get(id(trial), trial) for trial in trials]


def _floored(
    trial: Trial, probs: NumpyArray, weights: NumpyArray, folds: NumpyArray, classes: int
) -> Trial:
    share = fit_uniform_share(probs, weights, classes)
    if not share:
        return trial
    by_fold = []
    for fold, stages in enumerate(trial.by_fold):
        others = folds != fold
        of_fold = fit_uniform_share(probs[others], weights[others], classes)
        by_fold.append((*stages, LaplaceMixture(of_fold)) if of_fold else stages)
    note = f"{share:.2g} of the uniform distribution comes last, as held-out rows ask for it"
    floor = StageFit(LaplaceMixture(share), notes=(note,))
    fit = Fit((*trial.fit.stages, floor))
    parameters = trial.parameters + 1
    return replace(trial, fit=fit, by_fold=tuple(by_fold), parameters=parameters, judged=None)


def _held_out(
    predictors: Sequence[CrossFitted], split: Folds, step: int, tile: Tile
) -> list[tuple[NumpyArray, NumpyArray, NumpyArray]]:
    """Probabilities (M, m) of labels by M predictors, with weights and folds (m,)."""
    first = -tile.start % step
    log_probs = [each.label_log_probs(tile) for each in predictors]
    probs = np.exp(np.stack(log_probs)[:, first::step])
    weights = host_weights(tile.labels, tile.weights)
    return [(probs, weights[first::step], split.of(tile)[first::step])]
