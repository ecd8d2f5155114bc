"""Calibration errors as norms of residuals, of many replicates at once.

A metric looks at sums of residuals over bins, or cumulated over the cells: that part is linear and
done once. What remains is a norm of few numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.metrics.base import Metric
from calibcli.metrics.binned import BINS
from calibcli.metrics.confidence import ConfidenceCurve, cumulated_curve
from calibcli.metrics.equal_mass import equal_mass_edges, equal_mass_ends, sweep_errors

_SMOOTHING_STEPS = 8
_FEWEST_FREQUENCIES, _MOST_FREQUENCIES, _FINENESS = 1 << 5, 1 << 11, 2.0


class Residuals(NamedTuple):
    """How a metric reads residuals (R, m) of cells.

    Attributes
    ----------
    linear : callable
        Residuals by cell (R, m) -> the sums that matter (R, s).
    norm : callable
        Sums (R, s) -> errors (R,).
    slow : bool
        Whether the norm is.
    """

    linear: Callable[[NumpyArray], NumpyArray]
    norm: Callable[[NumpyArray], NumpyArray]
    slow: bool = False


@dataclass(frozen=True)
class ConfidenceCells:
    """What of the cells of the confidence is the same in all replicates.

    Attributes
    ----------
    confidence, weight : array (m,)
        Mean confidence and weight of the cells, ascending.
    bins : int array (m,)
        The equal-width bin of each cell.
    """

    confidence: NumpyArray
    weight: NumpyArray
    bins: NumpyArray

    @property
    def total(self) -> float:
        """Weight of all rows."""
        return float(self.weight.sum())

    def curve(self, excess: NumpyArray, weight: NumpyArray | None = None) -> ConfidenceCurve:
        """The curve of the residuals (m,) of the cells; of other weights (m,) where given."""
        own = self.weight if weight is None else weight
        right = self.confidence * own - excess
        return cumulated_curve(self.confidence, np.cumsum(own), np.cumsum(right))


def confidence_residuals(metric: Metric, cells: ConfidenceCells, smallest: float) -> Residuals:
    """How a metric of the confidence reads the residuals of the cells.

    Errors far below the ``smallest`` that is of interest may come out wrong, as long as they do not
    come out larger.
    """
    if metric.name == "smooth_ece":
        return _smooth(cells, smallest)
    known = _KNOWN.get(metric.name)
    return known(cells) if known else _any(metric, cells)


def _total_of_bins(cells: ConfidenceCells) -> Residuals:
    return Residuals(_sums_within(cells.bins), _absolute_sum(cells.total))


def _worst_of_bins(cells: ConfidenceCells) -> Residuals:
    weight = _sums_within(cells.bins)(cells.weight[None, :])[0]
    return Residuals(_sums_within(cells.bins), lambda sums: np.abs(sums / weight).max(axis=1))


def _equal_mass(cells: ConfidenceCells) -> Residuals:
    edges = equal_mass_edges(cells.curve(np.zeros_like(cells.weight)))
    below = np.searchsorted(cells.confidence, edges, side="right")

    def linear(residuals: NumpyArray) -> NumpyArray:
        cumulated = np.zeros((len(residuals), residuals.shape[1] + 1))
        np.cumsum(residuals, axis=1, out=cumulated[:, 1:])
        return np.diff(cumulated[:, below], axis=1)

    return Residuals(linear, _absolute_sum(cells.total))


def _root_mean_square(cells: ConfidenceCells) -> Residuals:
    """The debiased L2 error without the bias correction."""
    squares = _mean_square(cells)
    return Residuals(squares.linear, lambda sums: np.sqrt(squares.norm(sums)))


def _mean_square(cells: ConfidenceCells) -> Residuals:
    cumulated = np.cumsum(cells.weight)
    ends = equal_mass_ends(cumulated, BINS)
    weight = np.diff(cumulated[ends], prepend=0.0)

    def linear(residuals: NumpyArray) -> NumpyArray:
        return np.diff(_cumulated(residuals)[:, ends], prepend=0.0)

    def norm(sums: NumpyArray) -> NumpyArray:
        mean: NumpyArray = (sums**2 / weight).sum(axis=1) / cells.total
        return mean

    return Residuals(linear, norm)


def _sweep(cells: ConfidenceCells) -> Residuals:
    weight, expected = np.cumsum(cells.weight), np.cumsum(cells.weight * cells.confidence)
    return Residuals(_cumulated, lambda sums: sweep_errors(weight, expected, sums), slow=True)


def _largest_deviation(cells: ConfidenceCells) -> Residuals:
    return Residuals(_cumulated, lambda sums: np.abs(sums).max(axis=1) / cells.total)


def _range_of_deviations(cells: ConfidenceCells) -> Residuals:
    def norm(sums: NumpyArray) -> NumpyArray:
        spread: NumpyArray = sums.max(axis=1, initial=0.0) - sums.min(axis=1, initial=0.0)
        return spread / cells.total

    return Residuals(_cumulated, norm)


def _smooth(cells: ConfidenceCells, smallest: float) -> Residuals:
    """The fixed point of the smoothed error, of all replicates at the same time.

    Frequencies that a kernel as wide as the smallest error of interest leaves nothing of are left
    out.
    """
    from scipy.fft import idct

    wanted = math.log2(_FINENESS / max(smallest, _FINENESS / _MOST_FREQUENCIES))
    size = max(1 << math.ceil(wanted), _FEWEST_FREQUENCIES)
    frequency = math.pi * np.arange(size)
    cosines = np.cos(cells.confidence[:, None] * frequency) * (math.sqrt(2 / size) / cells.total)
    cosines[:, 0] /= math.sqrt(2)

    def norm(spectra: NumpyArray) -> NumpyArray:
        low, high = np.zeros(len(spectra)), np.full(len(spectra), np.inf)
        width = np.full(len(spectra), smallest)
        for _ in range(_SMOOTHING_STEPS):
            damped = spectra * np.exp(-0.5 * (width[:, None] * frequency) ** 2)
            error = np.abs(idct(damped, norm="ortho", axis=1)).sum(axis=1)
            # The error falls as the width rises: where they are equal is between the two.
            low = np.maximum(low, np.minimum(width, error))
            high = np.minimum(high, np.maximum(width, error))
            width = (low + high) / 2
        return np.where(error > 0, width, 0.0)

    return Residuals(lambda residuals: residuals @ cosines, norm, slow=True)


def _any(metric: Metric, cells: ConfidenceCells) -> Residuals:
    """Any metric of the confidence curve, one replicate after the other."""

    def norm(residuals: NumpyArray) -> NumpyArray:
        return np.array([metric.value(cells.curve(each)) for each in residuals])

    return Residuals(lambda residuals: residuals, norm, slow=True)


_KNOWN: dict[str, Callable[[ConfidenceCells], Residuals]] = {
    "ece": _total_of_bins,
    "mce": _worst_of_bins,
    "adaptive_ece": _equal_mass,
    "ece_sweep": _sweep,
    "l2_debiased": _root_mean_square,
    "l2_squared_debiased": _mean_square,
    "ks": _largest_deviation,
    "ecce_mad": _largest_deviation,
    "ecce_r": _range_of_deviations,
}


def absolute_residuals(total: float) -> Residuals:
    """How class-wise and top-label ECE read the residuals of classes and bins."""
    return Residuals(lambda residuals: residuals, _absolute_sum(total))


def thresholded_residuals(classes: NumpyArray, weight: NumpyArray) -> Residuals:
    """How the thresholded class-wise ECE reads them.

    Parameters
    ----------
    classes : int array (m,)
        The class of each cell.
    weight : array (m,)
        Weight of the probabilities in each cell.
    """
    by_class = np.bincount(classes, weight)
    share = 1 / (by_class[classes] * np.count_nonzero(by_class))
    return Residuals(lambda residuals: residuals, lambda sums: np.abs(sums) @ share)


def _sums_within(bins: NumpyArray) -> Callable[[NumpyArray], NumpyArray]:
    """Sums over neighbouring columns in the same bin."""
    starts = np.flatnonzero(np.diff(bins, prepend=-1))
    return lambda residuals: np.add.reduceat(residuals, starts, axis=1)


def _cumulated(residuals: NumpyArray) -> NumpyArray:
    return np.cumsum(residuals, axis=1)


def _absolute_sum(total: float) -> Callable[[NumpyArray], NumpyArray]:
    return lambda sums: np.abs(sums).sum(axis=1) / total
