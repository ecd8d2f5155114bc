"""Calibration errors over bins of equal mass: adaptive ECE, ECE sweep, debiased L2 error.

>>> import numpy as np
>>> logits = np.log([[0.9, 0.1], [0.9, 0.1], [0.7, 0.3], [0.6, 0.4]])
>>> labels = np.array([0, 1, 0, 0])
>>> round(ADAPTIVE_ECE.measure(logits, labels), 6)  # (|1.8 - 1| + |0.7 - 1| + |0.6 - 1|) / 4
0.375
>>> round(ADAPTIVE_ECE_PUBLISHED.measure(logits, labels), 6)  # without the row of 0.6
0.175
>>> round(ECE_SWEEP.measure(logits, labels), 6)
0.025
>>> round(L2_DEBIASED.measure(logits, labels), 6)
0.0
>>> round(L2_SQUARED_DEBIASED.measure(logits, labels), 6)
-0.045

References
----------
Mukhoti et al. (2020), Calibrating Deep Neural Networks using Focal Loss, arXiv:2002.09437
(adaptive ECE); Roelofs, Cain, Shlens and Mozer (2022), Mitigating Bias in Calibration Error
Estimation, arXiv:2012.08668 (sweep); Kumar, Liang and Ma (2019), Verified Uncertainty Calibration,
arXiv:1909.10155 (debiased estimator).
"""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.metrics.base import SHARE, Metric
from calibcli.metrics.bins import BINS, title_over_bins
from calibcli.metrics.confidence import COLLECTED_SCORES, ConfidenceCurve
from calibcli.metrics.confidence_cells import ConfidenceCells, ResidualNorm, cumulated
from calibcli.metrics.ece import expected_error
from calibcli.metrics.residual_cells import Residuals
from calibcli.metrics.row_mean import ratio

MOST_BINS = 1000
"""Bins of the sweep at most: where accuracy rises with confidence all the way, it would not end."""

_ROUNDING = 1e-12


def equal_mass_edges(curve: ConfidenceCurve, bins: int = BINS) -> NumpyArray:
    """Edges (bins + 1,) between which the rows are shared out equally.

    For weights of 1 these are ``np.interp(linspace(0, N, bins + 1), arange(N), sorted)``, as in
    the published code: row j of the sorted rows stands at position j, and beyond the last row is
    the largest confidence. A row of weight w stands at every position from its first to its first
    plus w - 1, as w rows would; one of weight below 1 stands at its first position only.
    """
    position = np.linspace(0.0, curve.total, bins + 1)
    last = len(curve) - 1
    at = np.minimum(np.searchsorted(curve.weight, position, side="right"), last)
    first = np.where(at > 0, curve.weight[at - 1], 0.0)
    final = np.maximum(first, curve.weight[at] - 1.0)
    value, following = curve.confidence[at], curve.confidence[np.minimum(at + 1, last)]
    slope = (following - value) / np.minimum(curve.own_weight[at], 1.0)
    edges: NumpyArray = slope * np.maximum(position - final, 0.0) + value
    return edges


class MassBins(NamedTuple):
    """Sums over the rows of bins of equal mass (b,): weight, right ones, confidence - right."""

    weight: NumpyArray
    correct: NumpyArray
    excess: NumpyArray

    @property
    def accuracy(self) -> NumpyArray:
        """Share of the rows that are right (b,)."""
        share: NumpyArray = self.correct / self.weight
        return share


def equal_mass_ends(weight: NumpyArray, bins: int) -> NumpyArray:
    """The last place (b,) of each of at most this many bins of equal mass, none of them empty.

    Bin j ends with the row at which the weight reaches j / bins of the whole, or with the last one
    that is tied with it.

    Parameters
    ----------
    weight : array (m,)
        As of a `ConfidenceCurve`: cumulated.
    bins : int
    """
    reached = weight[-1] * np.arange(1, bins + 1) / bins
    # Sums of weights round; a bin must not end a row late for that.
    ends = np.searchsorted(weight, reached * (1 - _ROUNDING))
    ends = np.minimum(ends, len(weight) - 1)
    distinct: NumpyArray = ends[np.append(ends[1:] != ends[:-1], True)]
    return distinct


def equal_mass_bins(curve: ConfidenceCurve, bins: int) -> MassBins:
    """The sums of the bins that `equal_mass_ends` makes."""
    ends = equal_mass_ends(curve.weight, bins)
    cumulated = (curve.weight, curve.correct, curve.excess)
    return MassBins(*(np.diff(values[ends], prepend=0.0) for values in cumulated))


def _adaptive_error(curve: ConfidenceCurve, bins: int = BINS) -> float:
    if not len(curve):
        return math.nan
    return float(expected_error(equal_mass_bins(curve, bins).excess, curve.total))


def _adaptive_residuals(
    cells: ConfidenceCells,
    smallest: float,  # noqa: ARG001
    bins: int = BINS,
) -> Residuals:
    ends = equal_mass_ends(np.cumsum(cells.weight), bins)

    def linear(residuals: NumpyArray) -> NumpyArray:
        return np.diff(cumulated(residuals)[:, ends], prepend=0.0)

    return Residuals(linear, lambda sums: expected_error(sums, cells.total))


def _published_error(curve: ConfidenceCurve) -> float:
    if not len(curve):
        return math.nan
    rows_below = np.searchsorted(curve.confidence, equal_mass_edges(curve), side="right")
    excess_below = np.append(0.0, curve.excess)[rows_below]
    return float(expected_error(np.diff(excess_below), curve.total))


def _published_residuals(cells: ConfidenceCells, smallest: float) -> Residuals:  # noqa: ARG001
    edges = equal_mass_edges(cells.curve(np.zeros_like(cells.weight)))
    below = np.searchsorted(cells.confidence, edges, side="right")

    def linear(residuals: NumpyArray) -> NumpyArray:
        sums = np.zeros((len(residuals), residuals.shape[1] + 1))
        np.cumsum(residuals, axis=1, out=sums[:, 1:])
        return np.diff(sums[:, below], axis=1)

    return Residuals(linear, lambda sums: expected_error(sums, cells.total))


def sweep_errors(weight: NumpyArray, expected: NumpyArray, excess: NumpyArray) -> NumpyArray:
    """The sweep's errors (R,) for several outcomes of the same confidences.

    Parameters
    ----------
    weight, expected : array (m,)
        Cumulated over the rows in order of confidence: weight, and weight x confidence.
    excess : array (R, m)
        Cumulated weight x (confidence - correct), of each outcome.
    """
    errors = np.abs(excess[:, -1])
    rising = np.arange(len(excess))
    for count in range(2, min(MOST_BINS, math.ceil(weight[-1]) - 1) + 1):
        ends = equal_mass_ends(weight, count)
        gaps = np.diff(excess[np.ix_(rising, ends)], prepend=0.0)
        bin_weight = np.diff(weight[ends], prepend=0.0)
        accuracies = (np.diff(expected[ends], prepend=0.0) - gaps) / bin_weight
        rises = (np.diff(accuracies) >= -_ROUNDING).all(axis=1)
        rising = rising[rises]
        if not len(rising):
            break
        errors[rising] = np.abs(gaps[rises]).sum(axis=1)
    relative: NumpyArray = errors / weight[-1]
    return relative


def _sweep_error(curve: ConfidenceCurve) -> float:
    if not len(curve):
        return math.nan
    expected = np.cumsum(curve.confidence * curve.own_weight)
    return float(sweep_errors(curve.weight, expected, curve.excess[None, :])[0])


def _sweep_residuals(cells: ConfidenceCells, smallest: float) -> Residuals:  # noqa: ARG001
    weight, expected = np.cumsum(cells.weight), np.cumsum(cells.weight * cells.confidence)
    return Residuals(cumulated, lambda sums: sweep_errors(weight, expected, sums), slow=True)


def _squared_error(curve: ConfidenceCurve) -> float:
    """Debiased, and hence sometimes below 0."""
    if not len(curve):
        return math.nan
    bins = equal_mass_bins(curve, BINS)
    known = bins.weight > 1
    weight, accuracy = bins.weight[known], bins.accuracy[known]
    variance = accuracy * (1 - accuracy) / (weight - 1)
    squares = (bins.excess[known] / weight) ** 2 - variance
    return ratio((weight * squares).sum(), curve.total)


def _root_error(curve: ConfidenceCurve) -> float:
    square = _squared_error(curve)
    return 0.0 if square < 0 else math.sqrt(square)


def _squared_residuals(cells: ConfidenceCells, smallest: float) -> Residuals:  # noqa: ARG001
    """The mean square without the correction: what chance adds to it is in the noise."""
    weights = np.cumsum(cells.weight)
    ends = equal_mass_ends(weights, BINS)
    weight = np.diff(weights[ends], prepend=0.0)

    def linear(residuals: NumpyArray) -> NumpyArray:
        return np.diff(cumulated(residuals)[:, ends], prepend=0.0)

    def norm(sums: NumpyArray) -> NumpyArray:
        mean: NumpyArray = (sums**2 / weight).sum(axis=1) / cells.total
        return mean

    return Residuals(linear, norm)


def _root_residuals(cells: ConfidenceCells, smallest: float) -> Residuals:
    squares = _squared_residuals(cells, smallest)
    return Residuals(squares.linear, lambda sums: np.sqrt(squares.norm(sums)))


def adaptive_ece_of_bins(bins: int, name: str) -> Metric:
    """Adaptive ECE over so many bins, by its name: ``adaptive_ece@10``."""
    return Metric(
        range=SHARE,
        name=name,
        title=title_over_bins("adaptive ECE", bins),
        convention=(
            f"{bins} equal-mass bins of the confidence, every row and rows of equal confidence in "
            "one bin; mean over rows of |mean confidence - accuracy| (after Mukhoti et al. 2020)"
        ),
        statistic=COLLECTED_SCORES,
        value=partial(_adaptive_error, bins=bins),
        resampling=ResidualNorm(partial(_adaptive_residuals, bins=bins)),
    )


ADAPTIVE_ECE = adaptive_ece_of_bins(BINS, "adaptive_ece")


ADAPTIVE_ECE_PUBLISHED = Metric(
    range=SHARE,
    name="adaptive_ece_published",
    title="adaptive ECE, published",
    convention=(
        "15 equal-mass bins (lower, upper] of the confidence with interpolated edges, "
        "the smallest confidence in no bin; mean over rows of |mean confidence - accuracy| "
        "(Mukhoti et al. 2020)"
    ),
    statistic=COLLECTED_SCORES,
    value=_published_error,
    resampling=ResidualNorm(_published_residuals),
)

ECE_SWEEP = Metric(
    range=SHARE,
    name="ece_sweep",
    title="ECE sweep",
    convention=(
        "equal-mass bins of the confidence, one more until their accuracies no longer "
        "rise with confidence, at most 1000, ties in one bin; mean over rows of "
        "|mean confidence - accuracy| (Roelofs et al. 2022, with the L1 norm)"
    ),
    statistic=COLLECTED_SCORES,
    value=_sweep_error,
    resampling=ResidualNorm(_sweep_residuals),
)

_DEBIASED = (
    "15 equal-mass bins of the confidence, ties in one bin; mean over rows of "
    "(mean confidence - accuracy)^2 - accuracy (1 - accuracy) / (rows - 1), bins of one row left "
    "out (Kumar et al. 2019)"
)

L2_DEBIASED = Metric(
    range=SHARE,
    name="l2_debiased",
    title="debiased L2",
    convention=f"square root, 0 where it is negative, of: {_DEBIASED}",
    statistic=COLLECTED_SCORES,
    value=_root_error,
    resampling=ResidualNorm(_root_residuals, debiased=True),
)

L2_SQUARED_DEBIASED = Metric(
    name="l2_squared_debiased",
    title="debiased L2, squared",
    convention=f"{_DEBIASED}; not clamped, so that it averages to 0 for a calibrated model",
    statistic=COLLECTED_SCORES,
    value=_squared_error,
    resampling=ResidualNorm(_squared_residuals, debiased=True),
)
