"""What decisions cost, of probabilities that some maps make of the data."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from calibcli.engine.data import Data
from calibcli.engine.engine import Tile
from calibcli.metrics.base import Statistic
from calibcli.metrics.decisions import (
    Decisions,
    DecisionSums,
    RiskSums,
    ThresholdSums,
    best_threshold,
    best_thresholds,
    read_decisions,
    risk_limits,
)
from calibcli.metrics.panel import Panel
from calibcli.metrics.resampling import Units
from calibcli.metrics.view import Event
from calibcli.workflow.measuring import Predictor, resampled, view_of

CHOICE_FOLDS = 5
"""Folds of the choice of a threshold, where the data has none for another reason."""


def measure_decisions(data: Data, predictors: Sequence[Predictor], panel: Panel) -> list[Decisions]:
    """What the decisions of each predictor cost, in two passes over the data.

    The best threshold of two classes is chosen for each fold on the rows of the others, and its
    cost is that of all rows by the threshold that they had no part in.

    Parameters
    ----------
    data : Data
        With folds, where the best threshold is to be judged.
    predictors : sequence of callable
    panel : Panel
        Its costs, event and bootstrap.
    """
    costs = panel.costs
    assert costs is not None
    panel = resampled(panel, data)
    units = panel.units or Units(data.rows, replicates=0)
    binary, folds = costs.threshold is not None, data.folds
    first: list[Statistic] = [RiskSums(costs)]
    if binary:
        first.append(ThresholdSums(costs, folds, data.split.of))
    chosen = _fold(data, predictors, [first] * len(predictors), panel.event)
    best: list[float | None] = []
    second = []
    for risks, *thresholds in chosen:
        by_fold: tuple[float, ...] = ()
        best.append(best_threshold(thresholds[0].sum(axis=0), costs) if binary else None)
        if binary and folds > 1:
            by_fold = best_thresholds(thresholds[0], costs)
        limits = risk_limits(risks, costs)
        second.append(DecisionSums(costs, units, limits, by_fold, data.split.of))
    decided = _fold(data, predictors, [[each] for each in second], panel.event)
    return [
        read_decisions(sums, statistic, threshold)
        for (sums,), statistic, threshold in zip(decided, second, best, strict=True)
    ]


def _fold(
    data: Data,
    predictors: Sequence[Predictor],
    statistics: Sequence[Sequence[Statistic]],
    event: Event,
) -> list[list[Any]]:
    """The finished statistics of each predictor, from one pass over the data."""
    pairs = tuple(zip(predictors, map(tuple, statistics), strict=True))
    states = data.fold(partial(_states, pairs, event), partial(_merge, statistics))
    return [
        [statistic.finish(state) for statistic, state in zip(of_rule, of_predictor, strict=True)]
        for of_rule, of_predictor in zip(statistics, states, strict=True)
    ]


def _states(
    pairs: Sequence[tuple[Predictor, Sequence[Statistic]]], event: Event, tile: Tile
) -> list[list[Any]]:
    states = []
    for predictor, statistics in pairs:
        view = view_of(tile, predictor, event)
        states.append([statistic.partial(view) for statistic in statistics])
    return states


def _merge(
    statistics: Sequence[Sequence[Statistic]],
    left: Sequence[Sequence[Any]],
    right: Sequence[Sequence[Any]],
) -> list[list[Any]]:
    return [
        [each.merge(a, b) for each, a, b in zip(of_rule, *states, strict=True)]
        for of_rule, *states in zip(statistics, left, right, strict=True)
    ]
