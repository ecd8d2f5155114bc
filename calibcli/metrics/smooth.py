"""Smooth ECE: the calibration error after smoothing by a kernel that chooses its own width.

References
----------
Błasiok and Nakkiran (2024), Smooth ECE: Principled Reliability Diagrams via Kernel Smoothing,
arXiv:2309.12236.
"""

from __future__ import annotations

import math

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.metrics.base import Metric
from calibcli.metrics.confidence import COLLECTED_SCORES, ConfidenceCurve

CELLS = 1 << 14
"""Of the lattice, 6e-5 wide: much finer than the kernel, unless the error is as small as that."""

_TOLERANCE = 1e-14


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


def residuals_on_lattice(curve: ConfidenceCurve, cells: int = CELLS) -> NumpyArray:
    """Mean over rows of (confidence - correct) by cell (cells,), split between neighbouring cells.

    A residual is shared by the two cells whose centres it lies between, the nearer one getting the
    more, so that its place is kept on average.
    """
    own = (curve.confidence * curve.own_weight - curve.own_correct) / curve.total
    place = np.clip(curve.confidence * cells - 0.5, 0.0, cells - 1.0)
    lower = np.minimum(place.astype(np.intp), cells - 2)
    share = place - lower
    total: NumpyArray = np.bincount(lower, own * (1 - share), minlength=cells)
    total += np.bincount(lower + 1, own * share, minlength=cells)
    return total


def _fixed_point(curve: ConfidenceCurve) -> float:
    """The width at which the smoothed error equals the width; both are monotone in it."""
    if not len(curve):
        return math.nan
    from scipy.optimize import brentq

    smoother = Smoother(residuals_on_lattice(curve))
    width: float = brentq(lambda w: smoother.error(w) - w, 0.0, 2.0, xtol=_TOLERANCE)
    return width


SMOOTH_ECE = Metric(
    name="smooth_ece",
    title="smooth ECE",
    convention=(
        "integral of |confidence - correct| smoothed over the largest probability by a Gaussian "
        "kernel reflected at 0 and 1, as wide as the error itself (the fixed point; Błasiok and "
        "Nakkiran 2024), on a lattice of 2^14 cells"
    ),
    statistic=COLLECTED_SCORES,
    value=_fixed_point,
)
