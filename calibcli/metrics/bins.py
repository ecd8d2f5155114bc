"""The 15 equal-width bins of the confidence, and the sums of the rows in each of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.metrics.base import Additive
from calibcli.metrics.view import View

BINS = 15
EDGES = np.linspace(0.0, 1.0, BINS + 1)


def bin_index(probability: NumpyArray) -> NumpyArray:
    """Bin (lower, upper] of probabilities (n,), float64: 0 to 14, and -1 for a probability of 0.

    A probability that rounding has left a little above 1 is in the last bin.
    """
    index = (probability * BINS).astype(np.intp)
    # On an edge, and where the product was rounded up to one, the product names the bin above.
    index -= probability <= EDGES[index]
    within: NumpyArray = np.minimum(index, BINS - 1)
    return within


@dataclass(frozen=True)
class Bin:
    """The rows whose confidence is in (lower, upper].

    Attributes
    ----------
    confidence, accuracy : float or None
        Weighted means over the rows of the bin; None where the bin has no weight.
    """

    lower: float
    upper: float
    rows: int
    weight: float
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Reliability:
    """Sums over the rows of each of the 15 bins; float64 arrays (15,)."""

    rows: NumpyArray
    weight: NumpyArray
    confidence: NumpyArray
    correct: NumpyArray

    @property
    def excess(self) -> NumpyArray:
        """Sum of weight x (confidence - correct) of each bin (15,)."""
        excess: NumpyArray = self.confidence - self.correct
        return excess

    def bins(self) -> tuple[Bin, ...]:
        """The bins of a reliability diagram."""
        return tuple(
            Bin(
                float(EDGES[b]),
                float(EDGES[b + 1]),
                int(self.rows[b]),
                float(self.weight[b]),
                float(self.confidence[b] / self.weight[b]) if self.weight[b] else None,
                float(self.correct[b] / self.weight[b]) if self.weight[b] else None,
            )
            for b in range(BINS)
        )


@dataclass(frozen=True)
class ReliabilityBins(Additive):
    """The statistic: sums by bin of the confidence; a confidence of 0 is in the first bin.

    State: array (4, 15) of rows, weight, weight x confidence, weight x correct.
    """

    def partial(self, view: View) -> NumpyArray:
        index = np.maximum(bin_index(view.confidence), 0)

        def total(values: NumpyArray | None) -> NumpyArray:
            return np.bincount(index, values, minlength=BINS)

        rows = total(None)
        if not view.weighted:
            return np.stack([rows, rows, total(view.confidence), total(view.correct)]) * 1.0
        weights = view.weights
        weighted = (weights, weights * view.confidence, weights * view.correct)
        return np.stack([rows, *map(total, weighted)])

    def finish(self, state: NumpyArray) -> Reliability:
        """The sums by name."""
        return Reliability(*state)


RELIABILITY = ReliabilityBins()
