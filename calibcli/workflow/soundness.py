"""Fits that went wrong: on rows that they have not seen a temperature, or none, has less loss.

A mean over all rows can hide it, and a standard error does: of nearly separable rows, a single one
that costs a hundred nats is as large as its own noise. Noise is told from that by the likelihood
ratio instead. Were the fit true, the probability that another, made of other rows, gives the rows
of a fold more likelihood by a factor of c would be at most 1 / c, however few they are and however
heavy the tails (Ville; Shafer, Testing by betting, J. R. Stat. Soc. A 2021).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from calibcli.arrays import NumpyArray, host_weights
from calibcli.engine.data import Data
from calibcli.engine.engine import Tile
from calibcli.engine.folds import Folds
from calibcli.errors import CalibError
from calibcli.workflow.fit_rows import TargetPrior, prior_factors
from calibcli.workflow.fitted_plans import Trial, fit_plan, seconds_of_fit
from calibcli.workflow.measuring import CrossFitted, Predictor
from calibcli.workflow.plans import Plan, make_plan

PLAIN = ("none", "temperature")
"""What no fit may be worse than."""

_NATS = float(np.log(1000))
"""By so much a fold must have less log-likelihood: a factor that chance seldom gives."""

_SHARE = 0.05
"""And by so much of the plain loss there, so that it matters."""

_MOST_SECONDS = 2.0
"""The time that plain fits may take, on one core of a common machine."""

_LEAST_LOG_PROB = -1e4
"""Stands for the log-probability of a label that was said to be impossible."""


def worse_than_plain(
    data: Data,
    plan: Plan,
    predictor: Predictor,
    test: Data | None = None,
    *,
    ahead_of_none: bool = False,
) -> tuple[str, ...]:
    """A note on a fit that is worse than none, or than a temperature, by more than noise.

    Those are fitted as the plan is: for its class shares, or to reduced classes.

    Parameters
    ----------
    data : Data
        Of the fit, with at least 2 folds if there is no test.
    plan : Plan
        That was fitted.
    predictor : callable
        What it makes of rows that it has not seen.
    test : Data or None
        Rows to judge by; None: those of the fit, fold by fold.
    ahead_of_none : bool
        Whether it is known to have no more loss in all than the scores as they are.
    """
    shares = _shares(plan)
    options: dict[str, Any] = {"prior": shares, "reduce": plan.reduce}
    no_rivals = (plan.method, "none" if ahead_of_none else "")
    plain = [make_plan(name, **options) for name in PLAIN if name not in no_rivals]
    if not plain:
        return ()
    folds = data.folds if test is None else 0
    if sum(seconds_of_fit(data, each, folds) for each in plain) > _MOST_SECONDS:
        return ()
    try:
        rivals = [fit_plan(each.rows_of(data), each).unseen(test) for each in plain]
    except CalibError:
        return ()
    judged = data if test is None else test
    if shares is not None:
        judged = judged.reweighted(prior_factors(shares, judged.class_weights))
    where = "held-out rows" if test is None else "the test rows"
    where += "" if shares is None else ", weighted to the class shares that it is for,"
    names = [each.method for each in plain]
    (warning,) = _warnings(_fold_losses(judged, [predictor, *rivals]), names, where)
    return (warning,) if warning else ()


def _shares(plan: Plan) -> TargetPrior | None:
    """The class shares that a plan is for; None: those of the rows."""
    return "balanced" if plan.prior is None and plan.objective.sets_prior else plan.prior


def with_warnings(data: Data, trials: Sequence[Trial]) -> list[Trial]:
    """The trials, with a warning in those that are worse than a plain one of them."""
    plain = [trial for trial in trials if trial.name in PLAIN]
    if not plain:
        return list(trials)
    predictors = [CrossFitted.of(trial.by_fold, data) for trial in (*trials, *plain)]
    names = [trial.name for trial in plain]
    warnings = _warnings(_fold_losses(data, predictors), names, "held-out rows")
    return [
        trial if trial.name in PLAIN else replace(trial, warning=warning)
        for trial, warning in zip(trials, warnings, strict=True)
    ]


def _warnings(sums: NumpyArray, plain: Sequence[str], where: str) -> list[str]:
    """A warning for each of M fits, empty for most, from sums by fold (F, M + plain + 1)."""
    losses, weights = sums[:, :-1], sums[:, -1]
    judged = losses.shape[1] - len(plain)
    warnings = [""] * judged
    for place in range(judged):
        for name, rival in zip(plain, losses[:, judged:].T, strict=True):
            behind = losses[:, place] - rival
            bad = (behind > _NATS) & (behind > _SHARE * rival)
            if behind.sum() > 0 and bad.any() and not warnings[place]:
                fold = int(np.where(bad, behind / np.maximum(weights, 1e-300), 0).argmax())
                mine, other = losses[fold, place] / weights[fold], rival[fold] / weights[fold]
                part = f" in fold {fold + 1} of {len(weights)}" if len(weights) > 1 else ""
                warnings[place] = (
                    f"worse on {where} than {name}, by more than noise: NLL {mine:.4g} "
                    f"against {other:.4g}{part}"
                )
    return warnings


def _fold_losses(data: Data, predictors: Sequence[Predictor]) -> NumpyArray:
    """Sums of the NLL of M predictors by fold, and of the weights in the last column.

    Where rows are weighted for other class shares no row counts more than it did: a likelihood
    ratio to a power above 1 is no fair bet.
    """
    if data.class_factors is not None:
        data = data.reweighted(np.full(data.classes, 1 / max(float(data.class_factors.max()), 1)))
    work = partial(_losses, tuple(predictors), data.split, data.spread)
    sums: NumpyArray = data.fold(work, np.add)
    return sums


def _losses(
    predictors: tuple[Predictor, ...],
    split: Folds,
    spread: Callable[..., Iterator[Any]],
    tile: Tile,
) -> NumpyArray:
    weights, fold = host_weights(tile.labels, tile.weights), split.of(tile)
    columns = [
        -weights * np.maximum(log_probs, _LEAST_LOG_PROB)
        for log_probs in spread(partial(_of_tile, tile), predictors)
    ]
    return np.stack(
        [np.bincount(fold, column, split.count) for column in (*columns, weights)], axis=1
    )


def _of_tile(tile: Tile, predictor: Predictor) -> NumpyArray:
    return predictor.label_log_probs(tile)
