"""The rows as a fit sees them: weighted for other class shares, or reduced to the confidence."""

from __future__ import annotations

import operator
from dataclasses import replace
from functools import partial
from typing import Literal, TypeAlias

import numpy as np

from calibcli.arrays import NumpyArray, host_weights, to_numpy
from calibcli.calibrators.base import Calibrator
from calibcli.calibrators.chain import log_probs_after
from calibcli.calibrators.top import top_scores
from calibcli.engine.data import Data, survey_source
from calibcli.engine.engine import Tile
from calibcli.engine.source import ArraySource, Keys, join_keys, names_of_keys
from calibcli.engine.survey import WEIGHTS
from calibcli.errors import DataError, UsageError

TargetPrior: TypeAlias = Literal["balanced"] | tuple[float, ...]
"""Equal shares, or a share for each class."""

IMBALANCED = 2.0
"""A class with so many times the weight of another makes data imbalanced."""

OTHER_SHARES = 1.1
"""Class shares are others if one has grown by so much more than another."""


def prior_factors(prior: TargetPrior, class_weights: NumpyArray) -> NumpyArray:
    """Factors (K,) of row weights that give the classes the shares of a prior.

    Their mean over the rows is 1. Classes without rows have the factor 0; the prior is spread over
    the others.

    Raises
    ------
    UsageError
        A prior of another length, with negative shares, or none for the classes that have rows.
    """
    classes = len(class_weights)
    shares = np.ones(classes) if prior == "balanced" else np.asarray(prior, np.float64)
    if len(shares) != classes:
        raise UsageError(f"--target-prior has {len(shares)} shares; the data has {classes} classes")
    if not np.isfinite(shares).all() or shares.min() < 0:
        raise UsageError("--target-prior: every share must be a number from 0 up")
    least, largest = WEIGHTS
    if ((shares < least) & (shares > 0)).any() or shares.max() > largest:
        raise UsageError(
            f"--target-prior: every share must be 0, or between {least:g} and {largest:g}"
        )
    present = class_weights > 0
    shares = np.where(present, shares, 0.0)
    if shares.sum() <= 0:
        raise UsageError("--target-prior gives no share to any class that has rows")
    row_shares = class_weights / class_weights.sum()
    factors: NumpyArray = np.zeros(classes)
    np.divide(shares / shares.sum(), row_shares, out=factors, where=present)
    return factors


def imbalance(class_weights: NumpyArray) -> float:
    """Weight of the largest class over that of the smallest that has rows."""
    present = class_weights[class_weights > 0]
    return float(present.max() / present.min()) if len(present) else 1.0


_Rows = tuple[NumpyArray, NumpyArray, NumpyArray, Keys | None]


def confidence_rows(data: Data) -> Data:
    """The same rows with two classes, wrong and right, and the log-odds of the top class.

    It holds a few numbers a row in memory, however many classes there are. Folds, weights and
    groups are those of the rows. Rows with a single possible class have weight 0: nothing can
    change their confidence.

    Raises
    ------
    DataError
        No row has more than one possible class.
    """
    work = partial(_reduced, data.stages)
    parts = data.engine.fold(data.source, work, operator.iadd, data.precision)
    scores, labels, weights = (np.concatenate([part[i] for part in parts]) for i in range(3))
    if not weights.any():
        raise DataError("no row has more than one possible class: there is nothing to calibrate")
    keys = join_keys([part[3] for part in parts])
    source = ArraySource(
        scores[:, None],
        labels,
        None if (weights == 1).all() else weights,
        keys=keys,
        key_names=names_of_keys(data.source, keys or {}),
    )
    engine = replace(data.engine, workers=None, on_rows=None)
    reduced = survey_source(engine, source, data.split)
    return replace(reduced, parts=data.parts)


def _reduced(stages: tuple[Calibrator, ...], tile: Tile) -> list[_Rows]:
    rows = top_scores(log_probs_after(stages, tile.logits))
    right = to_numpy(rows.top) == to_numpy(tile.labels)
    weights = host_weights(tile.labels, tile.weights)
    undecided = np.isfinite(to_numpy(rows.rest))
    return [(to_numpy(rows.score), right.astype(np.int64), weights * undecided, tile.keys)]
