"""Newton's method for ensemble temperature scaling by log-loss, from one fold a step.

A row's loss depends on its label's probability under three members alone. So value, gradient and
Hessian by the temperature and the weights are 21 sums over the rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from calibcli.arrays import (
    NumpyArray,
    dot_classes,
    host_weights,
    namespace,
    pick,
    shift,
    sum_classes,
    to_numpy,
)
from calibcli.engine.engine import Tile
from calibcli.fitting.lbfgs import solve_lbfgs
from calibcli.fitting.newton import rounded
from calibcli.fitting.problem import Problem, Solution

_LONGEST_STEP = 0.5
_SMALLEST_SHARE = 1e-6
_LEAST_GAIN = 1e-12
_ROUNDING, _SMALLEST_DESCENT = 1e-7, 1e-14
"""Relative descents that float32 values may hide, and that any values do."""

_MOST_TRIALS = 30
_MOST_SADDLES = 4
_LEAST_FIRST_ROOTS = np.array([0.3, 0.05, 0.05])
_SADDLE_SHARE, _OFF_SADDLE = 1e-6, 0.1


def solve_mixture(
    problem: Problem, theta: NumpyArray, tolerance: float = 1e-7, most_iterations: int = 100
) -> Solution:
    """A minimum over log T and the roots of three weights (4,), from a starting point.

    The loss is not convex in them: directions that bend down are followed as if they bent up.
    Ends as `solve_newton` does, or when a step of Newton's would gain nothing worth having.
    """
    if problem.data.impossible:
        # The members share their mass anew among the classes that are possible.
        return solve_lbfgs(problem, theta, tolerance)
    # A weight of 0 is a saddle, and that of the tempered member says nothing of the temperature.
    roots = np.maximum(np.abs(theta[1:]), _LEAST_FIRST_ROOTS)
    point, iteration = _evaluate(problem, np.concatenate((theta[:1], roots))), 0
    for _ in range(_MOST_SADDLES):
        point, criterion, iteration = _settle(problem, point, tolerance, iteration, most_iterations)
        away = point.away()
        if away is None:
            break
        point = _evaluate(problem, away)
    if criterion == "rounding":
        return rounded(problem, point.theta, point.value, point.norm, tolerance, iteration)
    converged = criterion != "iterations"
    return Solution(point.theta, point.value, point.norm, converged, criterion, iteration)


def _settle(
    problem: Problem, point: _Point, tolerance: float, iteration: int, most: int
) -> tuple[_Point, str, int]:
    """A point where the gradient all but vanishes, why the search ended, and its iterations."""
    while iteration < most:
        iteration += 1
        if point.norm <= tolerance:
            return point, "gradient", iteration
        if not np.isfinite(point.hessian).all():
            break
        if point.gain <= _LEAST_GAIN * abs(point.value):
            return point, "gain", iteration
        found = _descend(problem, point)
        if found is None:
            break
        point = found
    return point, "iterations" if iteration >= most else "rounding", iteration


@dataclass(frozen=True)
class _Point:
    """Parameters whose roots are of length 1, and the derivatives there."""

    theta: NumpyArray
    value: float
    gradient: NumpyArray
    hessian: NumpyArray

    @property
    def norm(self) -> float:
        return float(np.abs(self.gradient).max())

    @property
    def gain(self) -> float:
        """By how much Newton's step would lower the value, were it quadratic."""
        return -float(self.gradient @ self.step()) / 2

    def step(self) -> NumpyArray:
        """Newton's step at the roots' length, with all curvatures taken as positive."""
        bends, basis = self._bends()
        bends = np.maximum(np.abs(bends), _SMALLEST_SHARE * np.abs(bends).max())
        step: NumpyArray = -basis @ ((basis.T @ self.gradient) / bends)
        return step * min(1.0, _LONGEST_STEP / float(np.abs(step).max()))

    def away(self) -> NumpyArray | None:
        """Parameters off a saddle, as where a weight is 0 that should not be; None at a minimum."""
        if not np.isfinite(self.hessian).all():
            return None
        bends, basis = self._bends()
        if bends[0] >= -_SADDLE_SHARE * bends[-1]:
            return None
        away: NumpyArray = self.theta + _OFF_SADDLE * basis[:, 0]
        return away

    def _bends(self) -> tuple[NumpyArray, NumpyArray]:
        tangent = np.eye(4)
        tangent[1:, 1:] -= np.outer(self.theta[1:], self.theta[1:])
        bends, basis = np.linalg.eigh(tangent @ self.hessian @ tangent)
        return bends, basis


def _descend(problem: Problem, origin: _Point) -> _Point | None:
    """A lower point along Newton's step, or None where rounding hides every descent."""
    step = origin.step()
    slope = float(origin.gradient @ step)
    for _ in range(_MOST_TRIALS):
        point = _evaluate(problem, origin.theta + step)
        if point.value <= origin.value + 1e-4 * slope:
            return point
        if abs(slope) <= _ROUNDING * abs(origin.value) and point.norm < origin.norm:
            return point
        if abs(slope) <= _SMALLEST_DESCENT * abs(origin.value):
            break
        step, slope = step / 4, slope / 4
    return None


def _evaluate(problem: Problem, theta: NumpyArray) -> _Point:
    roots = theta[1:] / np.linalg.norm(theta[1:])
    theta = np.concatenate((theta[:1], roots))
    sums = problem.fold(partial(_sums, theta))
    value, first, second = float(sums[0]), sums[1:5], sums[5:].reshape(4, 4)
    # Along the sphere the weights v^2 bend by 2 less what keeps the roots at their length.
    jacobian = np.diag(np.concatenate(([1.0], 2 * roots)))
    gradient, hessian = jacobian @ first, jacobian @ second @ jacobian
    outward = float(gradient[1:] @ roots)
    hessian[1:, 1:] += np.diag(2 * first[1:]) - outward * np.eye(3)
    gradient[1:] -= outward * roots
    return _Point(theta, value, gradient, hessian)


def _sums(theta: NumpyArray, tile: Tile) -> NumpyArray:
    """Loss, gradient (4,) and Hessian (4, 4) by log T and the three weights, summed over rows."""
    xp, labels = namespace(tile.logits), tile.labels
    weights = theta[1:] ** 2
    shifted = shift(tile.logits)
    plain = xp.exp(shifted)
    plain_prob = pick(plain, labels) / sum_classes(plain)
    scaled = shifted * float(np.exp(-theta[0]))
    tempered = xp.exp(scaled)
    total, moved = sum_classes(tempered), tempered * scaled
    mean = sum_classes(moved) / total
    square = dot_classes(moved, scaled) / total
    rows = (pick(tempered, labels) / total, plain_prob, pick(scaled, labels) - mean, mean, square)
    tempered_prob, plain_prob, ahead, mean, square = (
        to_numpy(row).astype(np.float64) for row in rows
    )
    members = np.stack((tempered_prob, plain_prob, np.full_like(mean, 1 / shifted.shape[1])))
    prob = weights @ members
    # By log T the log of the tempered probability slopes by -ahead, bending by ahead - variance.
    slope = -weights[0] * tempered_prob * ahead / prob
    bend = weights[0] * tempered_prob * (ahead * ahead + ahead - square + mean * mean) / prob
    first = np.vstack((slope, members / prob))
    mass = host_weights(labels, tile.weights)
    hessian = (first * mass) @ first.T
    hessian[0, 0] -= mass @ bend
    hessian[0, 1] -= mass @ slope / weights[0]
    hessian[1, 0] = hessian[0, 1]
    value = -float(mass @ np.log(prob))
    return np.concatenate(([value], -(first @ mass), hessian.ravel()))
