"""The 15 equal-width bins of the confidence, and the sums of the rows in each of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.metrics.base import Additive
from calibcli.metrics.view import View

BINS = 15
EDGES = np.linspace(0.0, 1.0, BINS + 1)
_ROUNDING = 1 - 2.0**-47
NUMBER_OF_BINS = "([1-9][0-9]{0,2})"
"""In the name of a metric, behind an @."""


def title_over_bins(title: str, bins: int) -> str:
    """The title of an error over so many bins; the usual number goes without saying."""
    return title if bins == BINS else f"{title}, {bins} bin{'s' if bins > 1 else ''}"


def edges_of(bins: int) -> NumpyArray:
    """The edges (bins + 1,) of bins of equal width."""
    return EDGES if bins == BINS else np.linspace(0.0, 1.0, bins + 1)


def bin_index(probability: NumpyArray, bins: int = BINS) -> NumpyArray:
    """Bin (lower, upper] of probabilities (n,), float64: from 0 on, and -1 for one of 0.

    A probability that rounding has left a little above 1 is in the last bin; and of other than 15
    bins one a little above an edge, as a stored 0.3 after a logarithm and back, in the one below.
    """
    edges = edges_of(bins)
    if bins != BINS:
        probability = probability * _ROUNDING
    index = (probability * bins).astype(np.intp)
    # On an edge, and where the product was rounded up to one, the product names the bin above.
    index -= probability <= edges[index]
    if bins != BINS:
        # An edge of other bins may lie below what the product is rounded down from.
        index += probability > edges[np.minimum(index + 1, bins)]
    within: NumpyArray = np.minimum(index, bins - 1)
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
    """Sums over the rows of each bin of equal width; float64 arrays (b,)."""

    rows: NumpyArray
    weight: NumpyArray
    confidence: NumpyArray
    correct: NumpyArray

    @property
    def excess(self) -> NumpyArray:
        """Sum of weight x (confidence - correct) of each bin (b,)."""
        excess: NumpyArray = self.confidence - self.correct
        return excess

    def bins(self) -> tuple[Bin, ...]:
        """The bins of a reliability diagram."""
        edges = edges_of(len(self.rows))
        return tuple(
            Bin(
                float(edges[b]),
                float(edges[b + 1]),
                int(self.rows[b]),
                float(self.weight[b]),
                float(self.confidence[b] / self.weight[b]) if self.weight[b] else None,
                float(self.correct[b] / self.weight[b]) if self.weight[b] else None,
            )
            for b in range(len(self.rows))
        )


@dataclass(frozen=True)
class ReliabilityBins(Additive):
    """The statistic: sums by bin of the confidence; a confidence of 0 is in the first bin.

    State: array (4, b) of rows, weight, weight x confidence, weight x correct.
    """

    count: int = BINS

    def partial(self, view: View) -> NumpyArray:
        index = np.maximum(bin_index(view.confidence, self.count), 0)

        def total(values: NumpyArray | None) -> NumpyArray:
            return np.bincount(index, values, minlength=self.count)

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
