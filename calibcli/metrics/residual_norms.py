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

from calibcli.metrics.base import Metric, Vector
from calibcli.metrics.binned import BINS
from calibcli.metrics.confidence import ConfidenceCurve
from calibcli.metrics.equal_mass import equal_mass_bins, equal_mass_edges

_SMOOTHING_CELLS, _SMOOTHING_STEPS = 1 << 10, 16
_SLACK = 1e-9


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

    linear: Callable[[Vector], Vector]
    norm: Callable[[Vector], Vector]
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

    confidence: Vector
    weight: Vector
    bins: Vector

    @property
    def total(self) -> float:
        """Weight of all rows."""
        return float(self.weight.sum())

    def curve(self, excess: Vector, weight: Vector | None = None) -> ConfidenceCurve:
        """The curve of the residuals (m,) of the cells; of other weights (m,) where given."""
        own = self.weight if weight is None else weight
        there = own > 0
        right = self.confidence * own - excess
        return ConfidenceCurve(
            self.confidence[there], np.cumsum(own[there]), np.cumsum(right[there])
        )


def confidence_residuals(metric: Metric, cells: ConfidenceCells) -> Residuals:
    """How a metric of the confidence reads the residuals of the cells."""
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

    def linear(residuals: Vector) -> Vector:
        cumulated = np.zeros((len(residuals), residuals.shape[1] + 1))
        np.cumsum(residuals, axis=1, out=cumulated[:, 1:])
        return np.diff(cumulated[:, below], axis=1)

    return Residuals(linear, _absolute_sum(cells.total))


def _root_mean_square(cells: ConfidenceCells) -> Residuals:
    """The debiased L2 error without the bias correction."""
    squares = _mean_square(cells)
    return Residuals(squares.linear, lambda sums: np.sqrt(squares.norm(sums)))


def _mean_square(cells: ConfidenceCells) -> Residuals:
    curve = cells.curve(np.zeros_like(cells.weight))
    weight = equal_mass_bins(curve, BINS).weight
    ends = np.searchsorted(curve.weight, np.cumsum(weight) * (1 - _SLACK))
    bins = np.searchsorted(ends, np.arange(len(curve)), side="left")

    def norm(sums: Vector) -> Vector:
        mean: Vector = (sums**2 / weight).sum(axis=1) / cells.total
        return mean

    return Residuals(_sums_within(bins), norm)


def _largest_deviation(cells: ConfidenceCells) -> Residuals:
    return Residuals(_cumulated, lambda sums: np.abs(sums).max(axis=1) / cells.total)


def _range_of_deviations(cells: ConfidenceCells) -> Residuals:
    def norm(sums: Vector) -> Vector:
        spread: Vector = sums.max(axis=1, initial=0.0) - sums.min(axis=1, initial=0.0)
        return spread / cells.total

    return Residuals(_cumulated, norm)


def _smooth(cells: ConfidenceCells) -> Residuals:
    """The fixed point of the smoothed error, all replicates bisected at the same time."""
    from scipy.fft import dct, idct

    size = _SMOOTHING_CELLS
    place = np.clip(cells.confidence * size - 0.5, 0.0, size - 1.0)
    lower = np.minimum(place.astype(np.intp), size - 2)
    share = place - lower
    squared_frequency = (math.pi * np.arange(size)) ** 2

    def linear(residuals: Vector) -> Vector:
        lattice = np.zeros((len(residuals), size))
        np.add.at(lattice.T, lower, (residuals * (1 - share)).T)
        np.add.at(lattice.T, lower + 1, (residuals * share).T)
        spectrum: Vector = dct(lattice / cells.total, norm="ortho", axis=1)
        return spectrum

    def norm(spectra: Vector) -> Vector:
        low, high = np.zeros(len(spectra)), np.full(len(spectra), 2.0)
        for _ in range(_SMOOTHING_STEPS):
            width = (low + high) / 2
            damped = spectra * np.exp(-0.5 * width[:, None] ** 2 * squared_frequency)
            above = np.abs(idct(damped, norm="ortho", axis=1)).sum(axis=1) > width
            low, high = np.where(above, width, low), np.where(above, high, width)
        return low

    return Residuals(linear, norm, slow=True)


def _any(metric: Metric, cells: ConfidenceCells) -> Residuals:
    """Any metric of the confidence curve, one replicate after the other."""

    def norm(residuals: Vector) -> Vector:
        return np.array([metric.value(cells.curve(each)) for each in residuals])

    return Residuals(lambda residuals: residuals, norm, slow=True)


_KNOWN: dict[str, Callable[[ConfidenceCells], Residuals]] = {
    "ece": _total_of_bins,
    "mce": _worst_of_bins,
    "adaptive_ece": _equal_mass,
    "l2_debiased": _root_mean_square,
    "l2_squared_debiased": _mean_square,
    "ks": _largest_deviation,
    "ecce_mad": _largest_deviation,
    "ecce_r": _range_of_deviations,
    "smooth_ece": _smooth,
}


def absolute_residuals(total: float) -> Residuals:
    """How class-wise and top-label ECE read the residuals of classes and bins."""
    return Residuals(lambda residuals: residuals, _absolute_sum(total))


def thresholded_residuals(classes: Vector, weight: Vector) -> Residuals:
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


def _sums_within(bins: Vector) -> Callable[[Vector], Vector]:
    """Sums over neighbouring columns in the same bin."""
    starts = np.flatnonzero(np.diff(bins, prepend=-1))
    return lambda residuals: np.add.reduceat(residuals, starts, axis=1)


def _cumulated(residuals: Vector) -> Vector:
    return np.cumsum(residuals, axis=1)


def _absolute_sum(total: float) -> Callable[[Vector], Vector]:
    return lambda sums: np.abs(sums).sum(axis=1) / total
