"""Projected Newton for few parameters, some of which must not be negative.

Bertsekas, Projected Newton methods for optimization problems with simple constraints, SIAM J.
Control Optim. 1982. The Hessian is formed, in one fold.
"""

from __future__ import annotations

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.fitting.newton import rounded
from calibcli.fitting.problem import Problem
from calibcli.fitting.solution import Solution

_SMALLEST = 1e-12
_SHARE = 0.3
_MOST_TRIALS = 60


def solve_nonnegative(
    problem: Problem, theta: NumpyArray, tolerance: float = 1e-7, most_iterations: int = 400
) -> Solution:
    """The minimum of a convex problem over parameters (P,), those that are not signed from 0 up.

    Ends when the gradient is at most the tolerance, but for parameters at 0 that it pushes down.
    """
    low = np.where(problem.map.signed(problem.data.classes), -np.inf, 0.0)
    point = _Point(problem, np.maximum(theta, low), low)
    for iteration in range(1, most_iterations + 1):
        norm = point.norm
        if norm <= tolerance:
            return Solution(point.theta, point.value, norm, True, "gradient", iteration)
        step = _newton_step(problem, point)
        new = _equation_step if problem.objective.estimating else _descent
        found = new(problem, point, step)
        if found is None:
            return rounded(problem, point.theta, point.value, norm, tolerance, iteration)
        point = found
    return Solution(point.theta, point.value, point.norm, False, "iterations", most_iterations)


class _Point:
    """Parameters with the value and the gradient there, and which of them may move."""

    def __init__(self, problem: Problem, theta: NumpyArray, low: NumpyArray) -> None:
        self.theta, self.low = theta, low
        self.value, self.gradient = problem.gradient(theta)
        self.free = (theta > low) | (self.gradient < 0)
        self.norm = float(np.abs(self.gradient[self.free]).max(initial=0.0))


def _newton_step(problem: Problem, point: _Point) -> NumpyArray:
    free = point.free
    hessian = problem.hessian(point.theta)[np.ix_(free, free)]
    ridge = _SMALLEST * max(float(np.trace(hessian)), 1.0)
    step = np.zeros_like(point.theta)
    step[free] = np.linalg.solve(hessian + ridge * np.eye(int(free.sum())), -point.gradient[free])
    return step


def _descent(problem: Problem, point: _Point, step: NumpyArray) -> _Point | None:
    """A point that is lower, or None where rounding hides it."""
    length = 1.0
    for _ in range(_MOST_TRIALS):
        new = _Point(problem, np.maximum(point.theta + length * step, point.low), point.low)
        expected = float(point.gradient @ (new.theta - point.theta))
        if new.value <= point.value + 1e-4 * expected:
            return new
        if abs(expected) <= 1e-9 * abs(point.value):
            return None
        length /= 2
    return None


def _equation_step(problem: Problem, point: _Point, step: NumpyArray) -> _Point:
    """Part of the way: with weights held fixed, whole steps would swing."""
    return _Point(problem, np.maximum(point.theta + _SHARE * step, point.low), point.low)
