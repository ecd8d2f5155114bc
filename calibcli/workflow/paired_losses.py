"""Losses of candidates on the same held-out rows, with the noise of their differences."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import numpy as np

from calibcli.arrays import NumpyArray, hashed, host_weights, softmax
from calibcli.engine.data import Data
from calibcli.engine.engine import Tile
from calibcli.engine.folds import CLUSTER
from calibcli.engine.source import Keys
from calibcli.workflow.measuring import Predictor

_TEMPERING = 0.3
"""What the evidence for a candidate counts in the average that the choice is judged by.

Held-out losses of neighbouring candidates are nearly the same, and one fold's are those of one fit:
the whole evidence would put too much on one (Gruenwald, The safe Bayesian, ALT 2012).
"""

_DRAWS = 512
"""Of the noise of the evidence; the weights have a noise of at most two percent."""

_MOST_UNITS = 4096
"""Sums that a standard error is made of; more would change it by less than a percent."""


def held_out_losses(data: Data, predictors: Sequence[Predictor]) -> PairedLosses:
    """The NLL of several predictors of the same rows, paired."""
    work = partial(_label_losses, tuple(predictors), data.clusters)
    state: Any = data.fold(work, operator.add)
    losses: PairedLosses = state.total()
    return losses


def _label_losses(
    predictors: tuple[Predictor, ...], clusters: int | None, tile: Tile
) -> PairedLosses | _ClusterLosses:
    losses = np.stack([-predictor.label_log_probs(tile) for predictor in predictors])
    return _paired(losses, host_weights(tile.labels, tile.weights), tile.keys, clusters)


def _paired(
    losses: NumpyArray, weights: NumpyArray, keys: Keys | None, clusters: int | None
) -> PairedLosses | _ClusterLosses:
    """The sums of losses (M, n) of rows with weights (n,), by cluster where there are any."""
    if clusters is None:
        return PairedLosses.of_rows(losses, weights)
    assert keys is not None
    return _ClusterLosses.of(losses, weights, keys[CLUSTER], clusters)


@dataclass(frozen=True)
class PairedLosses:
    """Sums over the rows of the NLL of M candidates, and of its products.

    Attributes
    ----------
    weights : float64 array (2,)
        Sums of the weights and of their squares.
    sums : float64 array (M, 2)
        By candidate and power of the weight.
    products : float64 array (M, M)
        With squared weights.
    inflation : float
        What a variance from few units is to be multiplied by.
    """

    weights: NumpyArray
    sums: NumpyArray
    products: NumpyArray
    inflation: float = 1.0

    @classmethod
    def of_rows(cls, losses: NumpyArray, weights: NumpyArray) -> PairedLosses:
        """The sums of losses (M, n) of rows with weights (n,)."""
        powers = np.stack((weights, weights**2), axis=1)
        scaled = losses * weights
        # A loss may be infinite.
        with np.errstate(invalid="ignore"):
            return cls(powers.sum(axis=0), losses @ powers, scaled @ scaled.T)

    def __add__(self, later: PairedLosses) -> PairedLosses:
        return PairedLosses(
            self.weights + later.weights, self.sums + later.sums, self.products + later.products
        )

    def total(self) -> PairedLosses:
        """The sums over all rows."""
        return self

    def of(self, places: Sequence[int]) -> PairedLosses:
        """The sums of some of the candidates."""
        chosen = list(places)
        products = self.products[np.ix_(chosen, chosen)]
        return PairedLosses(self.weights, self.sums[chosen], products, self.inflation)

    def averaging_weights(self) -> NumpyArray:
        """The share (M,) of each candidate in their average, by tempered evidence.

        The mean, over draws of what else the sums of losses could have been, of ``exp(-t loss)``,
        normalised (Yao et al., Using stacking to average Bayesian predictive distributions,
        Bayesian Analysis 2018, pseudo-BMA+), t being `_TEMPERING`. A candidate that is infinitely
        wrong has none.
        """
        weights = np.zeros(len(self.sums))
        known = np.flatnonzero(np.isfinite(self.mean))
        losses = self.of(known.tolist())
        total, squares = losses.weights
        means = losses.mean - losses.mean.mean()
        # Losses from the mean over the candidates, row by row.
        centre = np.eye(len(known)) - 1 / len(known)
        moments = centre @ losses.sums[:, 1]
        spread = centre @ losses.products @ centre
        spread += squares * np.outer(means, means)
        spread -= np.outer(moments, means) + np.outer(means, moments)
        # Rounding may leave what is singular a little negative.
        jitter = 1e-9 * float(np.trace(spread)) / len(known) + 1e-12
        factor = np.linalg.cholesky(losses.inflation * spread + jitter * np.eye(len(known)))
        draws = np.random.default_rng(0).standard_normal((_DRAWS, len(known)))
        evidence = -_TEMPERING * (total * means + draws @ factor.T)
        weights[known] = softmax(evidence).mean(axis=0)
        return weights

    @property
    def units(self) -> float:
        """Rows, or clusters, of equal weight that would tell as much."""
        return float(self.weights[0] ** 2 / self.weights[1])

    @property
    def mean(self) -> NumpyArray:
        """The mean loss (M,) of each candidate."""
        means: NumpyArray = self.sums[:, 0] / self.weights[0]
        return means

    def error_of_difference(self, place: int, other: int) -> float:
        """Standard error of one candidate's mean minus another's, rows being paired."""
        if place == other:
            return 0.0
        pair = [place, other]
        signs = np.array([1.0, -1.0])
        mean = float(signs @ self.mean[pair])
        second = float(signs @ self.products[np.ix_(pair, pair)] @ signs)
        first = float(signs @ self.sums[pair, 1])
        spread = second - 2 * mean * first + mean**2 * float(self.weights[1])
        return math.sqrt(max(self.inflation * spread, 0.0)) / float(self.weights[0])


@dataclass(frozen=True)
class _ClusterLosses:
    """Sums by cluster of the NLL of M candidates, for errors that clusters make larger.

    Clusters are taken to be independent and rows of one to be anything (Liang and Zeger,
    Biometrika 1986). Of very many, each sum has some that are drawn together.

    Attributes
    ----------
    weights : float64 array (C,)
    sums : float64 array (M, C)
        Weighted.
    """

    weights: NumpyArray
    sums: NumpyArray

    @classmethod
    def of(
        cls, losses: NumpyArray, weights: NumpyArray, numbers: NumpyArray, clusters: int
    ) -> Self:
        """The sums of losses (M, n) of rows with weights (n,) and numbers of clusters (n,)."""
        if clusters > _MOST_UNITS:
            numbers, clusters = hashed(numbers, 0, _MOST_UNITS), _MOST_UNITS
        sums = [np.bincount(numbers, weights * each, clusters) for each in losses]
        return cls(np.bincount(numbers, weights, clusters), np.stack(sums))

    def __add__(self, later: _ClusterLosses) -> _ClusterLosses:
        return _ClusterLosses(self.weights + later.weights, self.sums + later.sums)

    def total(self) -> PairedLosses:
        """The sums over all rows, each cluster counting as one in those of squares."""
        weights, count = self.weights, int(np.count_nonzero(self.weights))
        return PairedLosses(
            np.array([weights.sum(), weights @ weights]),
            np.stack((self.sums.sum(axis=1), self.sums @ weights), axis=1),
            self.sums @ self.sums.T,
            count / max(count - 1, 1),
        )
