"""Isotonic regression and the CORP decomposition of the Brier score.

The score is miscalibration - discrimination + uncertainty, where isotonic regression of the events
on the probabilities stands for their best monotone recalibration.

References
----------
Dimitriadis, Gneiting and Jordan (2021), Stable reliability diagrams for probabilistic classifiers,
doi:10.1073/pnas.2016191118.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from calibcli.arrays import NumpyArray
from calibcli.metrics.row_mean import ratio


@dataclass(frozen=True)
class Decomposition:
    """The parts of a mean Brier score of the probabilities of an event.

    Attributes
    ----------
    score : float
    recalibrated : float
        The score after isotonic regression.
    uncertainty : float
        The score of the base rate for all rows, a property of the labels.
    """

    score: float
    recalibrated: float
    uncertainty: float

    @property
    def miscalibration(self) -> float:
        """What recalibration would gain."""
        return _not_negative(self.score - self.recalibrated)

    @property
    def discrimination(self) -> float:
        """What is gained on the base rate by telling rows apart."""
        return _not_negative(self.uncertainty - self.recalibrated)


def _not_negative(gain: float) -> float:
    """The gain, which only rounding makes negative; NaN remains NaN."""
    return 0.0 if gain < 0 else gain


def isotonic_means(values: NumpyArray, weights: NumpyArray) -> NumpyArray:
    """The non-decreasing sequence (m,) nearest to values (m,) by weighted least squares.

    Weights (m,) are above 0.
    """
    from scipy.optimize import isotonic_regression

    means: NumpyArray = isotonic_regression(values, weights=weights).x
    return means


def isotonic(events: NumpyArray, weights: NumpyArray) -> NumpyArray:
    """Non-decreasing shares (m,) of events, nearest to those of the groups by least squares.

    They are the best non-decreasing ones for any proper score.

    Parameters
    ----------
    events, weights : float64 array (m,)
        Weight of the events and of all rows, by groups in the order of their probability; weights
        are above 0.
    """
    return isotonic_means(events / weights, weights)


def sum_of_scores(shares: NumpyArray, weights: NumpyArray) -> float:
    """Sum of weight x Brier score of groups (m,) that are given their shares of events."""
    return float((weights * shares * (1 - shares)).sum())


def decompose(probability: NumpyArray, events: NumpyArray, weights: NumpyArray) -> Decomposition:
    """The parts of the Brier score of probabilities (m,), ascending, of groups of rows.

    Parameters
    ----------
    probability : array (m,)
        Of the event, in each group.
    events, weights : array (m,)
        As `isotonic` takes them.
    """
    if not len(weights):
        return Decomposition(math.nan, math.nan, math.nan)
    total = float(weights.sum())
    errors = probability**2 * weights + (1 - 2 * probability) * events
    recalibrated = sum_of_scores(isotonic(events, weights), weights)
    rate = ratio(events.sum(), total)
    return Decomposition(errors.sum() / total, recalibrated / total, rate * (1 - rate))
