"""One scale for all logits, to the last digit: safeguarded Newton on log T."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from calibcli.fitting.problem import Problem
from calibcli.fitting.results import Solution

LARGEST_LOG_TEMPERATURE = 46.0
"""|log T| beyond this (T of 1e-20 or 1e20) is a sign that no temperature is best."""

SMALLEST_LOSS = 1e-9
"""A mean loss below this can only go on falling as T does: every row is right by far."""

_FIRST_LONGEST_STEP = 2.0
"""In log T. It doubles with each step, so that an optimum far off is reached all the same."""


@dataclass
class _Bracket:
    """An interval of log T whose ends slope down towards its inside."""

    low: float = -math.inf
    high: float = math.inf

    def narrow(self, point: float, slope: float) -> None:
        if slope > 0:
            self.high = min(self.high, point)
        else:
            self.low = max(self.low, point)

    def contain(self, point: float, proposed: float) -> float:
        """The proposed point if it lies strictly inside, else a point that does."""
        if self.low < proposed < self.high:
            return proposed
        if math.isinf(self.low) or math.isinf(self.high):
            return point + math.copysign(_FIRST_LONGEST_STEP, proposed - point)
        return (self.low + self.high) / 2


def solve_scale(
    problem: Problem, scale: float, tolerance: float = 1e-7, most_iterations: int = 60
) -> Solution:
    """The scale 1 / T > 0 that minimises a problem with that one parameter.

    Newton's method on u = log T, whose slope and bend follow from those by the scale s:
    ``f_u = -s f_s``, ``f_uu = s^2 f_ss + s f_s``; without a second derivative, or where the
    objective follows the parameter, the secant's. Steps that leave the bracket or climb are
    replaced by bisection. Ends when a step is shorter than the tolerance in log T.
    """
    point, bracket = -math.log(scale), _Bracket()
    previous: tuple[float, float] | None = None
    value = slope = math.nan
    longest = _FIRST_LONGEST_STEP
    for iteration in range(1, most_iterations + 1):
        scale = math.exp(-point)
        value, first, second = problem.line(np.array([scale]))
        slope = -scale * first
        bend = _secant(previous, (point, slope))
        if second is not None and (bend is None or not problem.follow):
            bend = scale * scale * second + scale * first
        bracket.narrow(point, slope)
        curved = bend is not None and bend > 0
        step = -slope / bend if bend is not None and curved else -math.copysign(0.5, slope)
        step = max(-longest, min(longest, step))
        longest *= 2
        theta = np.array([scale])
        if value <= SMALLEST_LOSS or abs(point + step) > LARGEST_LOG_TEMPERATURE:
            return Solution(theta, value, abs(slope), False, "unbounded", iteration)
        if slope == 0 or (abs(step) <= tolerance and curved):
            return Solution(theta, value, abs(slope), True, "step", iteration)
        if bracket.high - bracket.low <= tolerance:
            return Solution(theta, value, abs(slope), True, "bracket", iteration)
        previous = (point, slope)
        point = bracket.contain(point, point + step)
    return Solution(np.array([scale]), value, abs(slope), False, "iterations", most_iterations)


def newton_step(scale: float, first: float, second: float) -> float | None:
    """Newton's step in log T from the derivatives by the scale, or None where it would climb."""
    slope = -scale * first
    bend = scale * scale * second + scale * first
    return -slope / bend if bend > 0 else None


def _secant(previous: tuple[float, float] | None, current: tuple[float, float]) -> float | None:
    if previous is None or previous[0] == current[0]:
        return None
    return (current[1] - previous[1]) / (current[0] - previous[0])
