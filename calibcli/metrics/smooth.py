"""Smooth ECE: the calibration error after smoothing by a kernel that chooses its own width.

>>> import numpy as np
>>> logits = np.log([[0.9, 0.1], [0.9, 0.1], [0.7, 0.3], [0.6, 0.4]])
>>> labels = np.array([0, 1, 0, 0])
>>> round(SMOOTH_ECE.measure(logits, labels), 6)
0.182991

References
----------
Błasiok and Nakkiran (2024), Smooth ECE: Principled Reliability Diagrams via Kernel Smoothing,
arXiv:2309.12236.
"""

from __future__ import annotations

import math

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.metrics.base import SHARE, Metric
from calibcli.metrics.confidence import COLLECTED_SCORES, ConfidenceCurve
from calibcli.metrics.confidence_cells import ConfidenceCells, ResidualNorm
from calibcli.metrics.residual_cells import Residuals

FINE_CELLS = 1 << 14
"""Cells of the lattice, 6e-5 wide: much finer than the kernel, unless the error is as small."""

_TOLERANCE = 1e-14
_SMOOTHING_STEPS = 8
_FEWEST_FREQUENCIES, _MOST_FREQUENCIES, _FINENESS = 1 << 5, 1 << 11, 2.0


class Smoother:
    """Residuals (cells,) on a lattice of [0, 1], to be smoothed by Gaussians of many widths.

    The kernel is reflected at 0 and 1. That is what a discrete cosine transform of the second kind
    does by itself: its cosines are the eigenfunctions of the reflected Gaussian.
    """

    def __init__(self, residuals: NumpyArray) -> None:
        from scipy.fft import dct

        self._spectrum = dct(residuals, norm="ortho")
        self._squared_frequency = (math.pi * np.arange(len(residuals))) ** 2

    def error(self, width: float) -> float:
        """``sum_j |(G * r)_j|``, G being the kernel of this width."""
        from scipy.fft import idct

        damped = self._spectrum * np.exp(-0.5 * width * width * self._squared_frequency)
        return float(np.abs(idct(damped, norm="ortho")).sum())


def residuals_on_lattice(curve: ConfidenceCurve, cells: int = FINE_CELLS) -> NumpyArray:
    """Mean over rows of (confidence - correct) by cell (cells,), split between neighbouring cells.

    A residual is shared by the two cells whose centres it lies between, the nearer one getting the
    more, so that its place is kept on average.
    """
    residuals = (curve.confidence * curve.own_weight - curve.own_correct) / curve.total
    place = np.clip(curve.confidence * cells - 0.5, 0.0, cells - 1.0)
    lower = np.minimum(place.astype(np.intp), cells - 2)
    share = place - lower
    total: NumpyArray = np.bincount(lower, residuals * (1 - share), minlength=cells)
    total += np.bincount(lower + 1, residuals * share, minlength=cells)
    return total


def _fixed_point(curve: ConfidenceCurve) -> float:
    """The width at which the smoothed error equals the width; both are monotone in it."""
    if not len(curve):
        return math.nan
    from scipy.optimize import brentq

    smoother = Smoother(residuals_on_lattice(curve))
    width: float = brentq(lambda w: smoother.error(w) - w, 0.0, 2.0, xtol=_TOLERANCE)
    return width


def _smooth_residuals(cells: ConfidenceCells, smallest: float) -> Residuals:
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


SMOOTH_ECE = Metric(
    range=SHARE,
    name="smooth_ece",
    title="smooth ECE",
    convention=(
        "integral of |confidence - correct| smoothed over the confidence by a Gaussian "
        "kernel reflected at 0 and 1, as wide as the error itself (the fixed point; Błasiok and "
        "Nakkiran 2024), on a lattice of 2^14 cells"
    ),
    statistic=COLLECTED_SCORES,
    value=_fixed_point,
    resampling=ResidualNorm(_smooth_residuals),
)
