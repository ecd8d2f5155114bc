"""Newton's method for convex problems: of any size by conjugate gradients, and under bounds.

For any size the Hessian is never formed: each conjugate-gradient step asks for one product with a
direction, which is one fold over the data (Nocedal and Wright, Numerical Optimization, section
7.1). For few parameters, some of which must not be negative, it is formed, in one fold (Bertsekas,
Projected Newton methods for optimization problems with simple constraints, SIAM J. Control Optim.
1982).
"""

from __future__ import annotations

import math

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.fitting.problem import Problem
from calibcli.fitting.results import Solution

_MOST_INNER_STEPS = 60
"""Conjugate-gradient steps for one of Newton's, each of which is a fold."""

_MOST_TRIALS = 30

_MOST_HALVINGS = 60

_NEARLY = 1e3
"""Where rounding ends a search, so many times the tolerance is small enough."""

_SMALLEST_RIDGE = 1e-12
"""A ridge on a Hessian, as a share of its trace, so that it has an inverse."""

_Point = tuple[NumpyArray, float, NumpyArray]


def solve_newton(
    problem: Problem, theta: NumpyArray, tolerance: float = 1e-7, most_iterations: int = 100
) -> Solution:
    """The minimum of a convex problem from a starting point (P,).

    Ends when the largest component of the gradient is at most the tolerance, or when rounding in
    the data's precision hides any further descent.
    """
    value, gradient = problem.gradient(theta)
    for iteration in range(1, most_iterations + 1):
        norm = float(np.abs(gradient).max(initial=0.0))
        if norm <= tolerance:
            return Solution(theta, value, norm, True, "gradient", iteration)
        step = _newton_step(problem, theta, gradient, problem.diagonal(theta))
        point = _search(problem, (theta, value, gradient), step)
        if point is None:
            return rounded(problem, theta, value, norm, tolerance, iteration)
        theta, value, gradient = point
    norm = float(np.abs(gradient).max())
    return Solution(theta, value, norm, False, "iterations", most_iterations)


def rounded(
    problem: Problem, theta: NumpyArray, value: float, norm: float, tolerance: float, iteration: int
) -> Solution:
    """The solution at a point from which no descent can be seen.

    It is one if the gradient is small, or if the loss jumps and its gradient need not vanish.
    """
    if not (np.isfinite(value) and np.isfinite(norm)):
        return Solution(theta, value, norm, False, "not finite", iteration)
    if not (problem.objective.smooth and problem.map.exact):
        return Solution(theta, value, norm, True, "no descent", iteration)
    return Solution(theta, value, norm, norm <= _NEARLY * tolerance, "rounding", iteration)


def _search(problem: Problem, origin: _Point, step: NumpyArray) -> _Point | None:
    """A point of sufficient descent along a step, or None where rounding hides every descent."""
    theta, value, gradient = origin
    slope = float(gradient @ step)
    length = 1.0
    for _ in range(_MOST_TRIALS):
        point = theta + length * step
        new_value, new_gradient = problem.gradient(point)
        if new_value <= value + 1e-4 * length * slope:
            return point, new_value, new_gradient
        if abs(length * slope) <= 1e-7 * abs(value):
            smaller = float(np.abs(new_gradient).max()) < float(np.abs(gradient).max())
            return (point, new_value, new_gradient) if smaller else None
        length /= 4
    return None


def _newton_step(
    problem: Problem, theta: NumpyArray, gradient: NumpyArray, diagonal: NumpyArray
) -> NumpyArray:
    """An approximate solution of ``H step = -gradient``, the closer the nearer the minimum is."""
    preconditioner = 1 / np.where(diagonal > 0, diagonal, 1.0)
    step = np.zeros_like(gradient)
    residual = -gradient
    direction = preconditioned = preconditioner * residual
    product = float(residual @ preconditioned)
    first = math.sqrt(product)
    # Superlinear convergence: relative accuracy 0.1 far away, better near the minimum.
    goal = first * min(0.1, math.sqrt(first))
    for _ in range(min(_MOST_INNER_STEPS, 2 * len(gradient))):
        image = problem.product(theta, direction)
        curvature = float(direction @ image)
        if curvature <= 0:
            break
        length = product / curvature
        step = step + length * direction
        residual = residual - length * image
        preconditioned = preconditioner * residual
        new_product = float(residual @ preconditioned)
        if math.sqrt(new_product) <= goal:
            break
        direction = preconditioned + (new_product / product) * direction
        product = new_product
    return step if step.any() else preconditioner * -gradient


def solve_nonnegative(
    problem: Problem, theta: NumpyArray, tolerance: float = 1e-7, most_iterations: int = 400
) -> Solution:
    """The minimum of a convex problem whose parameters (P,) must not be negative, but for some.

    Ends when the gradient is at most the tolerance, but for parameters at 0 that it pushes down.
    """
    point = BoundedPoint(problem, theta)
    for iteration in range(1, most_iterations + 1):
        norm = point.norm
        if norm <= tolerance:
            return Solution(point.theta, point.value, norm, True, "gradient", iteration)
        lower = _descent(problem, point, point.step())
        if lower is None:
            return rounded(problem, point.theta, point.value, norm, tolerance, iteration)
        point = lower
    return Solution(point.theta, point.value, point.norm, False, "iterations", most_iterations)


class BoundedPoint:
    """Parameters (P,), none below its bound, with the value and the gradient there.

    Attributes
    ----------
    norm : float
        Largest component of the gradient, but for parameters at 0 that it pushes down.
    """

    def __init__(self, problem: Problem, theta: NumpyArray) -> None:
        self._problem = problem
        low = np.where(problem.map.signed(problem.data.classes), -np.inf, 0.0)
        self.theta: NumpyArray = np.maximum(theta, low)
        self.value, self.gradient, self._hessian = problem.derivatives(self.theta)
        self._free = (self.theta > low) | (self.gradient < 0)
        self.norm = float(np.abs(self.gradient[self._free]).max(initial=0.0))

    def step(self) -> NumpyArray:
        """Newton's step (P,) of the parameters that may move; 0 for the others."""
        free, whole = self._free, self._hessian
        whole = self._problem.hessian(self.theta) if whole is None else whole
        hessian = whole[np.ix_(free, free)]
        ridge = _SMALLEST_RIDGE * max(float(np.trace(hessian)), 1.0)
        step = np.zeros_like(self.theta)
        inverted = np.linalg.solve(hessian + ridge * np.eye(int(free.sum())), -self.gradient[free])
        step[free] = inverted
        return step


def _descent(problem: Problem, point: BoundedPoint, step: NumpyArray) -> BoundedPoint | None:
    """A lower point along a step, or None where rounding hides every descent."""
    length = 1.0
    for _ in range(_MOST_HALVINGS):
        new = BoundedPoint(problem, point.theta + length * step)
        expected = float(point.gradient @ (new.theta - point.theta))
        if new.value <= point.value + 1e-4 * expected:
            return new
        if abs(expected) <= 1e-9 * abs(point.value):
            return None
        length /= 2
    return None
