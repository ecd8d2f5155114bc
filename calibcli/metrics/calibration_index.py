"""ICI, E50 and E90: how far confidence is from a smooth curve of how often it comes true.

The curve is a natural cubic spline of the log-odds x = ln(p / (1 - p)): the residual p - y of a row
is modelled as ``p (1 - p) s(x)``, by least squares weighted by ``1 / (p (1 - p))``, which is what
residuals of a calibrated model vary by. That is the first step of a logistic regression on the
spline. It is linear in the outcomes, so that the interval and the chance range are those of the
other calibration errors, and it takes one pass, where the authors' loess compares all rows.

>>> import numpy as np
>>> logits = np.log([[0.9, 0.1], [0.8, 0.2]] * 10)
>>> labels = np.array([0, 1] + [0, 0] * 9)
>>> round(ICI.measure(logits, labels), 6)  # 0.1 and 0.2 are said, 0 and 1 of 10 came
0.1
>>> round(E50.measure(logits, labels), 6)
0.1
>>> round(E90.measure(logits, labels), 6)
0.1

References
----------
Austin and Steyerberg (2019), The Integrated Calibration Index (ICI) and related metrics,
doi:10.1002/sim.8281; Harrell (2015), Regression Modeling Strategies, chapter 2 (natural splines
and the places of their knots).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.metrics.base import SHARE, Metric
from calibcli.metrics.confidence import COLLECTED_SCORES, ConfidenceCurve
from calibcli.metrics.confidence_cells import ConfidenceCells, ResidualNorm
from calibcli.metrics.event_metrics import clipped_log_odds
from calibcli.metrics.residual_cells import Residuals

KNOTS = (0.05, 0.275, 0.5, 0.725, 0.95)
"""Shares of the rows below each knot."""

_NEAREST, _LEAST_VARIANCE = 1e-6, 1e-4
"""Beyond these a row's log-odds and its certainty count for no more: one row must not decide."""


_SINGULAR = 1e-6
"""Parts of the spline that are so much smaller than the largest are rounding."""


@dataclass(frozen=True)
class _Smoother:
    """The smooth curve of residuals at given confidences.

    The spline has a basis that is orthonormal under the weights, so that rounding is not enlarged.

    Attributes
    ----------
    confidence, weight : array (m,)
    curve : array (m, q)
        Coefficients of the spline -> p - share of events, at each confidence.
    solve : array (q, m)
        Sums of residuals at each confidence -> coefficients of the spline.
    """

    confidence: NumpyArray
    weight: NumpyArray
    curve: NumpyArray
    solve: NumpyArray

    @classmethod
    def of(cls, confidence: NumpyArray, weight: NumpyArray) -> _Smoother:
        basis = natural_spline(clipped_log_odds(confidence, _NEAREST), weight)
        variance = np.maximum(confidence * (1 - confidence), _LEAST_VARIANCE)
        root = np.sqrt(weight * variance)[:, None]
        left, sizes, _ = np.linalg.svd(root * basis, full_matrices=False)
        orthonormal = left[:, sizes > _SINGULAR * sizes[0]] / root
        return cls(confidence, weight, variance[:, None] * orthonormal, orthonormal.T)

    def errors(self, coefficients: NumpyArray) -> NumpyArray:
        """``|p - share of events|`` (R, m) of coefficients (R, q); shares are from 0 to 1."""
        gap = coefficients @ self.curve.T
        errors: NumpyArray = np.abs(np.clip(gap, self.confidence - 1, self.confidence))
        return errors


def natural_spline(places: NumpyArray, weight: NumpyArray) -> NumpyArray:
    """A basis (m, q) of natural cubic splines with knots at quantiles of places (m,), ascending.

    Parameters
    ----------
    places, weight : array (m,)
    """
    below = np.cumsum(weight) / weight.sum()
    at = np.minimum(np.searchsorted(below, KNOTS), len(places) - 1)
    knots = np.unique(places[at])
    if len(knots) < 3:
        return np.stack((np.ones_like(places), places), axis=1)
    span = knots[-1] - knots[0]
    x, t = (places - knots[0]) / span, (knots - knots[0]) / span

    def cubed(knot: float) -> NumpyArray:
        cube: NumpyArray = np.maximum(x - knot, 0.0) ** 3
        return cube

    *inner, last, end = t.tolist()
    bends = [
        cubed(knot) - (cubed(last) * (end - knot) - cubed(end) * (last - knot)) / (end - last)
        for knot in inner
    ]
    return np.stack([np.ones_like(x), x, *bends], axis=1)


def _mean(smoother: _Smoother, errors: NumpyArray) -> NumpyArray:
    mean: NumpyArray = errors @ smoother.weight / smoother.weight.sum()
    return mean


def _quantile(smoother: _Smoother, errors: NumpyArray, share: float) -> NumpyArray:
    """The smallest error (R,) that so large a share of the weight does not exceed."""
    order = np.argsort(errors, axis=1)
    below = np.cumsum(smoother.weight[order], axis=1)
    at = (below < share * (1 - 1e-12) * below[:, -1:]).sum(axis=1)
    places = np.take_along_axis(order, at[:, None], 1)
    quantile: NumpyArray = np.take_along_axis(errors, places, 1)[:, 0]
    return quantile


@dataclass(frozen=True)
class _Index:
    """The mean of the errors, or a quantile of them."""

    share: float | None = None

    def of(self, smoother: _Smoother, errors: NumpyArray) -> NumpyArray:
        """The index (R,) of errors (R, m)."""
        if self.share is None:
            return _mean(smoother, errors)
        return _quantile(smoother, errors, self.share)

    def __call__(self, curve: ConfidenceCurve) -> float:
        """The index of all rows; NaN without any."""
        if not len(curve):
            return math.nan
        smoother = _Smoother.of(curve.confidence, curve.own_weight)
        residuals = curve.confidence * curve.own_weight - curve.own_correct
        errors = smoother.errors((smoother.solve @ residuals)[None, :])
        return float(self.of(smoother, errors)[0])

    def residuals(self, cells: ConfidenceCells, smallest: float) -> Residuals:
        """How it reads the residuals of cells."""
        smoother = _Smoother.of(cells.confidence, cells.weight)

        def norm(coefficients: NumpyArray) -> NumpyArray:
            return self.of(smoother, smoother.errors(coefficients))

        return Residuals(lambda residuals: residuals @ smoother.solve.T, norm, slow=True)


def _metric(name: str, title: str, what: str, index: _Index) -> Metric:
    return Metric(
        range=SHARE,
        name=name,
        title=title,
        convention=(
            f"{what} of |confidence - smooth share that came true|, over rows; smooth: natural "
            "cubic spline of the log-odds with 5 knots, weighted least squares (Austin and "
            "Steyerberg 2019, who use loess)"
        ),
        statistic=COLLECTED_SCORES,
        value=index,
        resampling=ResidualNorm(index.residuals),
    )


ICI = _metric("ici", "ICI", "mean (integrated calibration index)", _Index())
E50 = _metric("e50", "E50", "median", _Index(0.5))
E90 = _metric("e90", "E90", "90 % quantile", _Index(0.9))
