"""Newton's method with conjugate gradients, for convex problems of any size.

The Hessian is never formed: each conjugate-gradient step asks for one product with a direction,
which is one fold over the data (Nocedal and Wright, Numerical Optimization, section 7.1).
"""

from __future__ import annotations

import math

import numpy as np

from calibcli.calibrators.base import Vector
from calibcli.fitting.problem import Problem
from calibcli.fitting.solution import Solution

_MOST_INNER_STEPS = 60


def solve_newton(
    problem: Problem, theta: Vector, tolerance: float = 1e-7, most_iterations: int = 100
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
        slope = float(gradient @ step)
        length = 1.0
        while True:
            new_value, new_gradient = problem.gradient(theta + length * step)
            if new_value <= value + 1e-4 * length * slope:
                break
            if abs(length * slope) <= 1e-7 * abs(value):
                new_norm = float(np.abs(new_gradient).max())
                if new_norm < norm:
                    break
                return Solution(theta, value, norm, True, "rounding", iteration)
            length /= 4
        theta, value, gradient = theta + length * step, new_value, new_gradient
    norm = float(np.abs(gradient).max())
    return Solution(theta, value, norm, False, "iterations", most_iterations)


def _newton_step(problem: Problem, theta: Vector, gradient: Vector, diagonal: Vector) -> Vector:
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
