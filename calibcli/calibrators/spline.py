"""Logistic regression on a natural cubic spline of the log-odds, as smooth as the data asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from calibcli.arrays import Array, NumpyArray, like, namespace
from calibcli.cached import cached_property
from calibcli.calibrators.base import Calibrator
from calibcli.calibrators.binary import softplus
from calibcli.calibrators.binning import condensed
from calibcli.calibrators.curves import (
    LARGEST_LOG_ODDS,
    BinarySample,
    Curve,
    CurveMap,
    Curves,
    curves_at,
    ends_before,
    points_of,
    read_points,
)
from calibcli.calibrators.logistic import fit_logistic
from calibcli.calibrators.parameters import Parameters
from calibcli.calibrators.piecewise import spaced

_MOST_KNOTS = 200
"""Bound on an option: the time of a fit grows with the cube of the knots."""

_OUTER = 0.01
"""The share of the rows beyond the first and the last knot."""

_CLOSEST = 1e-3
"""Knots that lie closer than this are one."""

_CLOSEST_SCORES = 1e-9
"""The squares of shorter widths would lose the values in rounding."""

_FARTHEST, _LARGEST_INSIDE = 1e30, 1e300
"""Log-odds beyond the first are cut there; sums beyond the second may overflow in float64."""

_PENALTIES = 10.0 ** np.arange(4, -7, -1)
"""Strengths to choose from: the first leaves nearly straight lines, the last bends at will."""


@dataclass(frozen=True, eq=False)
class SplineCurves(Curves):
    """``q_k / sum_j q_j`` with ``q_k = sigmoid(f_k(log(p_k / (1 - p_k))))``, f natural splines.

    A natural cubic spline through its points goes on straight beyond the first and the last. With
    two classes there is one, that of class 1, and ``q_0 = 1 - q_1``.

    Parameters
    ----------
    counts : float64 array (K,)
        Number of points of each curve, at least 1; of two classes, (1).
    scores : float64 array (m,)
        Log-odds of the points, curve after curve, ascending within each.
    values : float64 array (m,)
        f there: calibrated log-odds.
    """

    kind: ClassVar[str] = "spline"

    def log_values(self, at: Array) -> Array:
        xp = namespace(at)
        odds = xp.clip(self.odds(at), min=-_FARTHEST, max=_FARTHEST)
        both = (-softplus(odds), -softplus(-odds))
        return xp.concat(both, axis=-1) if len(self.counts) == 1 else both[1]

    def odds(self, at: Array) -> Array:
        """Calibrated log-odds (n, C)."""
        xp = namespace(at)
        scores, values, bends = (like(v, at) for v in (self.scores, self.values, self._bends))
        low, last = self.cells.find(at)
        high = xp.minimum(low + 1, last)
        width = scores[high] - scores[low]
        share = (at - scores[low]) / xp.where(width > 0, width, 1.0)
        share = xp.clip(share, min=0.0, max=1.0)
        rest = 1 - share
        curved = (rest**3 - rest) * bends[low] + (share**3 - share) * bends[high]
        inner = rest * values[low] + share * values[high] + width**2 / 6 * curved
        first, last_score, falling, rising = (like(v, at) for v in self._tails)
        below, above = xp.clip(at - first, max=0.0), xp.clip(at - last_score, min=0.0)
        return inner + below * falling + above * rising

    def reach(self, bound: float) -> float:
        # Computed in float64, and cut to what float32 holds.
        first, last, *slopes = self._tails
        width = float((last - first).max())
        farthest = LARGEST_LOG_ODDS + float(np.abs(self.scores).max())
        bent = width * width * float(np.abs(self._bends).max())
        steepest = farthest * float(np.abs(slopes).max())
        inside = float(np.abs(self.values).max()) + bent + steepest
        return _FARTHEST if inside < _LARGEST_INSIDE else inside

    @cached_property
    def _parts(self) -> list[tuple[NumpyArray, NumpyArray]]:
        starts = self.cells.ends[:-1]
        return list(zip(np.split(self.scores, starts), np.split(self.values, starts), strict=True))

    @cached_property
    def _bends(self) -> NumpyArray:
        """Second derivatives at the points (m,)."""
        return np.concatenate([bends(knots) @ values for knots, values in self._parts])

    @cached_property
    def _tails(self) -> tuple[NumpyArray, NumpyArray, NumpyArray, NumpyArray]:
        """First and last scores of the curves (C,), and the slopes there."""
        tails = [end_slopes(knots) @ values for knots, values in self._parts]
        first, last = self.cells.begins, self.cells.ends - 1
        slopes = np.array(tails)
        return self.scores[first], self.scores[last], slopes[:, 0], slopes[:, 1]

    @classmethod
    def from_parameters(cls, parameters: Parameters, classes: int) -> SplineCurves:
        parameters.expect("counts", "scores", "values")
        counts, scores, values = read_points(parameters, classes)
        if (np.diff(scores)[~ends_before(counts)] < _CLOSEST_SCORES).any():
            raise parameters.error(
                f"scores of a class must not lie closer than {_CLOSEST_SCORES:g} to each other"
            )
        return cls(counts, scores, values)


@dataclass(frozen=True)
class SplineMap(CurveMap):
    """A natural spline a class; a ridge on its curvature, and one that pulls it to the identity.

    A temperature and Laplace's rule come first, so that the identity is a good guess where a class
    has few rows. Both ridges are a Gaussian prior; the strength of the first is where the marginal
    likelihood is largest, in Laplace's approximation. Knots lie at quantiles of the rows, of those
    with the event and of those without it, all three counting the same: a rare event gets its share
    of them.
    """

    knots: int = field(default=12, metadata={"help": "most knots of a curve", "least": 2})

    name: ClassVar[str] = "spline"
    title: ClassVar[str] = "temperature, then a smooth curve of each class's log-odds"
    source: ClassVar[str] = (
        "Lucena, Spline-based probability calibration, arXiv:1809.07751; smoothness as in Wood, "
        "J. R. Stat. Soc. B 73(1), 2011"
    )
    cost: ClassVar[str] = "about 5 passes, a sort of each class's scores, and 10 ms a class"
    before: ClassVar[tuple[str, ...]] = ("temperature", "laplace")

    def __post_init__(self) -> None:
        if self.knots > _MOST_KNOTS:
            raise ValueError(f"knots must not be more than {_MOST_KNOTS}")

    def size(self, classes: int) -> int:
        return self.knots * curves_at(classes)

    def rows_needed(self, classes: int) -> int:
        return 300 if classes == 2 else 200 * classes

    def fit(self, sample: BinarySample) -> Curve:
        sample = condensed(sample)
        knots = place_knots(sample, self.knots)
        features = spline_basis(knots, sample.scores)
        span = knots[-1] - knots[0]
        curvature = span**3 * roughness(knots)
        identity = np.eye(len(knots)) / len(knots)
        best: tuple[float, NumpyArray] | None = None
        for penalty in _PENALTIES:
            ridge = penalty * curvature + identity
            fit = fit_logistic(features, sample.positives, sample.weights, ridge, knots)
            evidence = fit.value + (log_determinant(fit.hessian) - log_determinant(ridge)) / 2
            if best is None or evidence < best[0]:
                best = evidence, fit.theta
        assert best is not None
        return Curve(knots, best[1])

    def constant(self, share: float) -> Curve:
        return Curve(np.zeros(1), np.array([np.log(share) - np.log1p(-share)]))

    def calibrator(self, curves: Sequence[Curve]) -> Calibrator:
        return SplineCurves(*points_of(curves))


def place_knots(sample: BinarySample, most: int) -> NumpyArray:
    """Scores (m,) where a spline bends, in ascending order; at least two."""
    negatives = sample.weights - sample.positives
    parts = (sample.weights, sample.positives, negatives)
    mass = np.cumsum(sum(part / part.sum() for part in parts if part.sum() > 0))
    shares = np.linspace(_OUTER, 1 - _OUTER, most) * mass[-1]
    knots = spaced(sample.scores[np.searchsorted(mass, shares)], _CLOSEST)
    if len(knots) < 2:
        return np.array([knots[0] - 1, knots[0] + 1])
    return np.array(knots)


def bends(knots: NumpyArray) -> NumpyArray:
    """Matrix (m, m) from a natural cubic spline's values at its knots to its second derivatives."""
    count = len(knots)
    matrix = np.zeros((count, count))
    if count < 3:
        return matrix
    width = np.diff(knots)
    inner = np.arange(count - 2)
    system = np.diag((width[:-1] + width[1:]) / 3)
    system[inner[:-1], inner[1:]] = system[inner[1:], inner[:-1]] = width[1:-1] / 6
    differences = np.zeros((count - 2, count))
    differences[inner, inner] = 1 / width[:-1]
    differences[inner, inner + 2] = 1 / width[1:]
    differences[inner, inner + 1] = -1 / width[:-1] - 1 / width[1:]
    matrix[1:-1] = np.linalg.solve(system, differences)
    return matrix


def end_slopes(knots: NumpyArray) -> NumpyArray:
    """Matrix (2, m) from a natural cubic spline's values to its slopes at its ends."""
    count = len(knots)
    matrix = np.zeros((2, count))
    if count < 2:
        return matrix
    second = bends(knots)
    first_width, last_width = knots[1] - knots[0], knots[-1] - knots[-2]
    matrix[0, :2] += np.array([-1, 1]) / first_width
    matrix[1, -2:] += np.array([-1, 1]) / last_width
    matrix[0] -= first_width / 6 * second[1]
    matrix[1] += last_width / 6 * second[-2]
    return matrix


def spline_basis(knots: NumpyArray, scores: NumpyArray) -> NumpyArray:
    """Matrix (n, m) from a natural cubic spline's values at its knots to those at scores (n,)."""
    count = len(knots)
    units = SplineCurves(np.full(count, count), np.tile(knots, count), np.eye(count).ravel())
    basis: NumpyArray = units.odds(np.repeat(scores[:, None], count, axis=1))
    return basis


def roughness(knots: NumpyArray) -> NumpyArray:
    """The integral of the squared second derivative, as a quadratic form (m, m) of the values."""
    second = bends(knots)
    width = np.diff(knots)
    left, right = second[:-1], second[1:]
    # The second derivative is linear between two knots.
    form: NumpyArray = (
        (left.T * width) @ left
        + (right.T * width) @ right
        + ((left.T * width) @ right + (right.T * width) @ left) / 2
    ) / 3
    return form


def log_determinant(matrix: NumpyArray) -> float:
    """Logarithm of the determinant of a positive definite matrix."""
    return float(np.linalg.slogdet(matrix)[1])
