"""Newton's method for few parameters of a problem that is not convex, one fold a step.

Directions along which the problem bends down are followed as if they bent up, so that a saddle is
left and not sought (Dauphin et al., Identifying and attacking the saddle point problem, NeurIPS
2014). The map gives value, gradient and Hessian of the likelihood from one fold (`Expansion`).
Quasi-Newton steps reach the same optima with two to twelve times as many folds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.calibrators.curvature import Expansion
from calibcli.fitting.lbfgs import solve_lbfgs
from calibcli.fitting.newton import rounded
from calibcli.fitting.problem import Problem
from calibcli.fitting.results import Solution

_LONGEST_STEP = 0.5
"""In any parameter: farther off, second derivatives tell little of a mixture."""

_SMALLEST_SHARE = 1e-6
"""Least curvature, as a share of the largest: along flatter directions steps would be endless."""

_LEAST_GAIN = 1e-12
"""What the next step would gain, relative to the loss, when the search ends."""

_ROUNDING, _SMALLEST_DESCENT = 1e-7, 1e-14
"""Relative descents that float32 values may hide, and that any values do."""

_MOST_TRIALS = 30
_MOST_SADDLES = 4
_SADDLE_SHARE, _OFF_SADDLE = 1e-6, 0.1
"""How far down a saddle bends, as a share of how far up; and the step that leaves it."""


def solve_saddle_free(
    problem: Problem, theta: NumpyArray, tolerance: float = 1e-7, most_iterations: int = 100
) -> Solution:
    """A minimum of the likelihood of a map with an `Expansion`, from a starting point (P,).

    Ends as `solve_newton` does, or when a step of Newton's would gain nothing worth having.
    """
    expansion = problem.map.expansion()
    if expansion is None or problem.data.impossible:
        # The sums of an expansion are those of rows in which every class is possible.
        return solve_lbfgs(problem, theta, tolerance)
    point, iteration = _evaluate(problem, expansion, expansion.start(theta)), 0
    for _ in range(_MOST_SADDLES):
        point, criterion, iteration = _settle(problem, point, tolerance, iteration, most_iterations)
        away = point.away()
        if away is None:
            break
        point = _evaluate(problem, expansion, away)
    if criterion == "rounding":
        return rounded(problem, point.theta, point.value, point.norm, tolerance, iteration)
    converged = criterion != "iterations"
    return Solution(point.theta, point.value, point.norm, converged, criterion, iteration)


@dataclass(frozen=True)
class _Point:
    """Parameters and the derivatives there."""

    expansion: Expansion
    theta: NumpyArray
    value: float
    gradient: NumpyArray
    hessian: NumpyArray

    @property
    def norm(self) -> float:
        return float(np.abs(self.gradient).max())

    @property
    def gain(self) -> float:
        """The amount by which Newton's step would lower the value, were it quadratic."""
        return -float(self.gradient @ self.step()) / 2

    def step(self) -> NumpyArray:
        """Newton's step, with all curvatures taken as positive."""
        bends, basis = np.linalg.eigh(self.hessian)
        bends = np.maximum(np.abs(bends), _SMALLEST_SHARE * np.abs(bends).max())
        step: NumpyArray = -basis @ ((basis.T @ self.gradient) / bends)
        return step * min(1.0, _LONGEST_STEP / float(np.abs(step).max()))

    def away(self) -> NumpyArray | None:
        """Parameters off a saddle, as where a weight is 0 that should not be; None at a minimum."""
        if not np.isfinite(self.hessian).all():
            return None
        bends, basis = np.linalg.eigh(self.hessian)
        if bends[0] >= -_SADDLE_SHARE * bends[-1]:
            return None
        away: NumpyArray = self.theta + _OFF_SADDLE * basis[:, 0]
        return away


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
        lower = _descend(problem, point)
        if lower is None:
            break
        point = lower
    return point, "iterations" if iteration >= most else "rounding", iteration


def _descend(problem: Problem, origin: _Point) -> _Point | None:
    """A lower point along Newton's step, or None where rounding hides every descent."""
    step = origin.step()
    slope = float(origin.gradient @ step)
    for _ in range(_MOST_TRIALS):
        point = _evaluate(problem, origin.expansion, origin.theta + step)
        if point.value <= origin.value + 1e-4 * slope:
            return point
        if abs(slope) <= _ROUNDING * abs(origin.value) and point.norm < origin.norm:
            return point
        if abs(slope) <= _SMALLEST_DESCENT * abs(origin.value):
            break
        step, slope = step / 4, slope / 4
    return None


def _evaluate(problem: Problem, expansion: Expansion, theta: NumpyArray) -> _Point:
    theta = expansion.normalised(theta)
    return _Point(expansion, theta, *problem.expand(expansion, theta))
