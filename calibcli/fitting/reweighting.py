"""Estimating equations of maps that are not linear in their parameters.

A map such as a mixture has points where its own Jacobian vanishes, and with it any gradient; a
search for a zero would end there. Minimising with the row weights held fixed never does. Going
only part of the way to each minimum makes the iteration contract where full steps would swing.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.fitting.lbfgs import solve_lbfgs
from calibcli.fitting.problem import Problem
from calibcli.fitting.solution import Solution

_SHARE = 0.3
_MOST_ROUNDS = 100
_SETTLED, _NEARLY_SETTLED = 1e-6, 1e-3


def solve_reweighted(problem: Problem, theta: NumpyArray, tolerance: float = 1e-7) -> Solution:
    """Parameters (P,) that minimise the loss with row weights that are taken at them.

    Ends when the minimum is that close to the point where the weights were taken.
    """
    iterations = 0
    learns, problem.follow = problem.follow, False
    for _ in range(_MOST_ROUNDS):
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
