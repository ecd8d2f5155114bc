"""Limited-memory BFGS with a weak Wolfe line search, for smooth problems of any shape.

Nocedal and Wright, Numerical Optimization, algorithm 7.5; the line search by bisection is that of
Lewis and Overton, Nonsmooth optimization via quasi-Newton methods, 2013. Where the problem offers
a preconditioner, steps start from that in place of a multiple of the identity.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.calibrators.curvature import Preconditioner
from calibcli.engine.machine import one_blas_thread
from calibcli.fitting.newton import rounded
from calibcli.fitting.problem import Problem
from calibcli.fitting.results import Bends, Solution

_MEMORY, _MEMORY_ELEMENTS = 20, 1 << 27
"""Pairs of steps to remember, and numbers: fewer pairs where each is long (1 GiB in all)."""

_MOST_HANDED_ON = 1 << 22
"""Numbers of steps that are kept with a solution, for fits to nearly the same rows."""

_MOST_TRIALS = 30
_PATIENCE, _HARDLY = 10, 1e-4
"""A map with kinks is done when so many steps have lowered the value by less than this share."""

_STALE = 10
"""After so many steps a new preconditioner is made: the minimum lies farther off than the old one
could tell."""

_MOST_IDLE, _SMALLEST_DESCENT = 50, 1e-15
"""So many steps in a row that neither lower the value by this share nor halve the gradient are
moved by rounding alone: where logits are huge, the gradient cannot vanish."""

_ROUNDING = 1e-7
"""Relative error of a mean of float32 losses, below which values don't tell up from down."""

CERTIFIED_GAP = 1e-10
"""A loss certified to be so close to its least one, relatively, is as good as that: reports show
four digits, and the losses of two solvers are called the same at 1e-6."""

_LEAST_GAIN, _NEARLY = 1e-12, 10.0
"""Of single precision, what a step would gain relative to the loss when the search ends, where the
gradient is at most so many times the tolerance: rounding hides whether it gets any smaller."""

_Point = tuple[NumpyArray, float, NumpyArray]
_Pairs = deque[tuple[NumpyArray, NumpyArray]]


@one_blas_thread()
def solve_lbfgs(
    problem: Problem, theta: NumpyArray, tolerance: float = 1e-7, most_iterations: int = 500
) -> Solution:
    """A minimum of a smooth problem from a starting point (P,).

    Ends when the largest component of the gradient is at most the tolerance, when a ridge proves
    the value to be within `CERTIFIED_GAP` of the least one, when rounding in the data's precision
    hides any further descent, or would as a step is worth nothing, or, with a map whose gradient
    need not vanish, when ten steps have lowered the value by less than a ten-thousandth.
    """
    preconditioner, pairs = _known_bends(problem, len(theta))
    value, gradient = problem.gradient(theta)
    before = np.inf
    progress = _Progress()
    for iteration in range(1, most_iterations + 1):
        norm = float(np.abs(gradient).max(initial=0.0))
        criterion = _criterion(problem, value, gradient, tolerance)
        if criterion:
            bends = _bends(problem, preconditioner, pairs)
            return Solution(theta, value, norm, True, criterion, iteration, bends=bends)
        looks_back = not problem.map.exact and iteration % _PATIENCE == 0
        if looks_back and before - value <= _HARDLY * abs(value):
            return Solution(theta, value, norm, True, "loss", iteration)
        before = value if looks_back else before
        if progress.has_ended(value, norm):
            return rounded(problem, theta, value, norm, tolerance, iteration)
        if iteration % _STALE == 1 and (iteration > 1 or preconditioner is None):
            preconditioner = problem.preconditioner(theta)
        direction = _direction(gradient, pairs, preconditioner)
        informed = preconditioner is not None or len(pairs) > 0
        nearly = informed and norm <= _NEARLY * tolerance and problem.in_single_precision
        if nearly and -float(gradient @ direction) <= 2 * _LEAST_GAIN * abs(value):
            bends = _bends(problem, preconditioner, pairs)
            return Solution(theta, value, norm, True, "gain", iteration, bends=bends)
        first = 1.0 if pairs or preconditioner else min(1.0, 1 / float(np.abs(gradient).sum()))
        noise = _ROUNDING * abs(value) if preconditioner or problem.in_single_precision else 0.0
        point = _search(problem, (theta, value, gradient), direction, first, noise)
        if point is None:
            if pairs:
                pairs.clear()
                continue
            return rounded(problem, theta, value, norm, tolerance, iteration)
        change, bend = point[0] - theta, point[2] - gradient
        if float(change @ bend) > 0:
            pairs.append((change, bend))
        theta, value, gradient = point
    norm = float(np.abs(gradient).max())
    return Solution(theta, value, norm, False, "iterations", most_iterations)


def _known_bends(problem: Problem, size: int) -> tuple[Preconditioner | None, _Pairs]:
    """What is known of how a problem of so many parameters bends, from one that is nearly it."""
    pairs: _Pairs = deque(maxlen=max(min(_MEMORY, _MEMORY_ELEMENTS // (2 * size)), 3))
    known = problem.bends
    # With other penalties it bends otherwise.
    if known is None or known.map != problem.map:
        return None, pairs
    pairs.extend(known.pairs)
    return known.preconditioner, pairs


def _bends(problem: Problem, preconditioner: Preconditioner | None, pairs: _Pairs) -> Bends | None:
    """What a search has found out, for others; none if it began with what another one has."""
    numbers = sum(2 * len(change) for change, _ in pairs)
    if problem.bends is not None or preconditioner is None or numbers > _MOST_HANDED_ON:
        return None
    return Bends(problem.map, preconditioner, tuple(pairs))


def _criterion(
    problem: Problem, value: float, gradient: NumpyArray, tolerance: float
) -> str | None:
    """What proves a point to be as good as the minimum, if anything does."""
    if float(np.abs(gradient).max(initial=0.0)) <= tolerance:
        return "gradient"
    return "gap" if problem.gap(gradient) <= CERTIFIED_GAP * abs(value) else None


class _Progress:
    """The least value and gradient of a search, and how long ago one of them fell."""

    def __init__(self) -> None:
        self._value = self._norm = np.inf
        self._idle = 0

    def has_ended(self, value: float, norm: float) -> bool:
        """Whether `_MOST_IDLE` steps in a row have led nowhere, with the one that led here."""
        falls = value < self._value - _SMALLEST_DESCENT * abs(value)
        self._idle = 0 if falls or norm < self._norm / 2 else self._idle + 1
        if falls:
            self._value = value
        if norm < self._norm / 2:
            self._norm = norm
        return self._idle >= _MOST_IDLE


def _direction(
    gradient: NumpyArray, pairs: _Pairs, preconditioner: Preconditioner | None
) -> NumpyArray:
    """Minus the gradient times the approximate inverse Hessian (two-loop recursion)."""
    direction = -gradient
    shares = []
    for change, bend in reversed(pairs):
        share = float(change @ direction) / float(change @ bend)
        direction = direction - share * bend
        shares.append(share)
    if preconditioner is not None:
        direction = preconditioner(direction)
    elif pairs:
        change, bend = pairs[-1]
        direction = direction * (float(change @ bend) / float(bend @ bend))
    for (change, bend), share in zip(pairs, reversed(shares), strict=True):
        direction = direction + (share - float(bend @ direction) / float(change @ bend)) * change
    return direction


def _search(
    problem: Problem, origin: _Point, direction: NumpyArray, length: float, noise: float
) -> _Point | None:
    """A point of sufficient descent and curvature, or None where rounding hides every descent.

    Where a descent would drown in the noise of the values, slopes alone tell: the approximate
    Wolfe conditions of Hager and Zhang, A new conjugate gradient method, SIAM J. Optim. 2005.
    """
    theta, value, gradient = origin
    slope = float(gradient @ direction)
    if slope >= 0:
        return None
    low, high = 0.0, np.inf
    best: _Point | None = None
    for _ in range(_MOST_TRIALS):
        point = theta + length * direction
        new_value, new_gradient = problem.gradient(point)
        new_slope = float(new_gradient @ direction)
        if abs(new_value - value) <= noise and abs(new_slope) <= -0.9 * slope:
            return point, new_value, new_gradient
        if not np.isfinite(new_value) or new_value > value + 1e-4 * length * slope:
            high = length
        elif new_slope < 0.9 * slope:
            low, best = length, (point, new_value, new_gradient)
        else:
            return point, new_value, new_gradient
        length = (low + high) / 2 if np.isfinite(high) else 2 * low
        if abs(length * slope) <= 1e-15 * abs(value):
            break
    return best
