"""Estimating equations: a gradient that belongs to no function is to vanish.

Where a loss holds its row weights fixed, ``sum gradient = 0`` is an estimating equation: there is
no value to descend, and fixed-point iteration with frozen weights need not converge (for focal
weights with exponent g its factor is -g).

For maps that are linear in their parameters Anderson acceleration (Walker and Ni, SIAM J. Numer.
Anal. 2011) takes a damped step and corrects it by the secants of the last steps. A map such as a
mixture has points where its own Jacobian vanishes, and with it any gradient; a search for a zero
would end there. Minimising with the row weights held fixed never does. Going only part of the way
to each minimum makes the iteration contract where full steps would swing.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.fitting.lbfgs import solve_lbfgs
from calibcli.fitting.newton import BoundedPoint
from calibcli.fitting.problem import Problem
from calibcli.fitting.results import Solution

_DEPTH = 20
"""Secants to remember."""

_FIRST_SHARE, _SMALLEST_SHARE = 0.3, 1e-6
"""Share of the residual that is a step; it is halved where the search goes astray."""

_WORSE = 2.0
"""A residual so many times the best one sends the search back there, with shorter steps."""

_PATIENCE, _SHORT_PATIENCE, _HARDLY = 30, 10, 0.9
"""So many steps, and shortened ones, that leave more than this share of the least residual go to
and fro at a jump."""

_SHARE = 0.3
"""Share of the way to each minimum with fixed row weights: whole steps would swing."""

_MOST_ROUNDS, FEW_ROUNDS = 100, 4
"""Minima with fixed row weights; few tell which of several starts leads somewhere."""

_SETTLED, _NEARLY_SETTLED = 1e-6, 1e-3
"""Largest move of a parameter at a fixed point; the second where gradients jump."""


def solve_equations(
    problem: Problem, theta: NumpyArray, tolerance: float = 1e-7, most_iterations: int = 500
) -> Solution:
    """Parameters (P,) at which the problem's gradient vanishes, from a starting point.

    Ends when its largest component is at most the tolerance, or, where the gradient jumps and need
    not vanish anywhere, at the least residual that was found.
    """
    value, gradient = problem.gradient(theta)
    scale = 1 / np.sqrt(problem.diagonal(theta))
    share, best = _FIRST_SHARE, (theta, value, gradient)
    secants: deque[tuple[NumpyArray, NumpyArray]] = deque(maxlen=_DEPTH)
    for iteration in range(1, most_iterations + 1):
        norm = float(np.abs(gradient).max(initial=0.0))
        if norm <= tolerance:
            return Solution(theta, value, norm, True, "equation", iteration)
        step = _step(scale * gradient, secants, share)
        old_theta, old_residual = theta, scale * gradient
        theta = theta + scale * step
        value, gradient = problem.gradient(theta)
        size = float(np.linalg.norm(scale * gradient))
        least = float(np.linalg.norm(scale * best[2]))
        if not np.isfinite(size) or size > _WORSE * least:
            share /= 2
            secants.clear()
            theta, value, gradient = best
            if share < _SMALLEST_SHARE:
                # So short a step doubles the residual: there is a jump, and larger than it is.
                jumps = not problem.objective.smooth and bool(np.isfinite(size))
                least = float(np.abs(gradient).max())
                return Solution(theta, value, least, jumps, "least residual", iteration)
            continue
        secants.append(((theta - old_theta) / scale, scale * gradient - old_residual))
        if size < least:
            best = (theta, value, gradient)
    theta, value, gradient = best
    norm = float(np.abs(gradient).max())
    return Solution(theta, value, norm, False, "iterations", most_iterations)


def _step(
    residual: NumpyArray, secants: deque[tuple[NumpyArray, NumpyArray]], share: float
) -> NumpyArray:
    """A share of minus the residual, corrected by the secants; all (P,) in scaled parameters."""
    if not secants:
        return -share * residual
    moves, changes = (np.stack(part, axis=1) for part in zip(*secants, strict=True))
    mix = np.linalg.lstsq(changes, residual, rcond=1e-12)[0]
    step: NumpyArray = -share * (residual - changes @ mix) - moves @ mix
    return step


def solve_nonnegative_equations(
    problem: Problem, theta: NumpyArray, tolerance: float = 1e-7, most_iterations: int = 400
) -> Solution:
    """Parameters as of `solve_equations`, few of them, of which some must not be negative.

    Takes part of each of Newton's steps with the row weights held fixed. Where steps go to and fro,
    shorter ones from the least residual come close to the jump that is in their way; it is a
    solution if that jump is larger than the residual.
    """
    best = point = BoundedPoint(problem, theta)
    share, steps, goal, jump = _FIRST_SHARE, 0, _HARDLY * best.norm, 0.0
    for iteration in range(1, most_iterations + 1):
        if point.norm <= tolerance:
            return Solution(point.theta, point.value, point.norm, True, "gradient", iteration)
        point = BoundedPoint(problem, point.theta + share * point.step())
        jump = max(jump, float(np.abs(point.gradient - best.gradient).max()))
        steps += 1
        if point.norm < best.norm:
            best = point
        # Whole shares may pass through larger residuals on their way.
        shortened = share < _FIRST_SHARE
        astray = shortened and not point.norm <= _WORSE * best.norm
        if best.norm <= goal:
            steps, goal = 0, _HARDLY * best.norm
        elif astray or steps >= (_SHORT_PATIENCE if shortened else _PATIENCE):
            if share / 2 < _SMALLEST_SHARE:
                solved = not problem.objective.smooth and jump > best.norm
                norm = best.norm
                return Solution(best.theta, best.value, norm, solved, "least residual", iteration)
            point, share, steps, jump = best, share / 2, 0, 0.0
    return Solution(best.theta, best.value, best.norm, False, "iterations", most_iterations)


def solve_reweighted(
    problem: Problem,
    theta: NumpyArray,
    tolerance: float = 1e-7,
    most_iterations: int = _MOST_ROUNDS,
) -> Solution:
    """Parameters (P,) that minimise the loss with row weights that are computed at them.

    Ends when the minimum is that close to the point where the weights were taken.
    """
    iterations = 0
    learns, problem.follow = problem.follow, False
    for _ in range(most_iterations):
        problem.reference = theta
        solution = solve_lbfgs(problem, theta, tolerance)
        iterations += solution.iterations
        move = solution.theta - theta
        theta = theta + _SHARE * move
        smooth = problem.map.exact and problem.objective.smooth
        if float(np.abs(move).max()) <= (_SETTLED if smooth else _NEARLY_SETTLED):
            return replace(solution, criterion="fixed point", iterations=iterations)
        if learns:
            problem.learn(theta)
    return replace(solution, converged=False, criterion="rounds", iterations=iterations)
