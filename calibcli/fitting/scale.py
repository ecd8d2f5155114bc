"""One scale for all logits, to the last digit: safeguarded Newton on log T."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from calibcli.fitting.problem import Problem
from calibcli.fitting.solution import Solution

LARGEST_LOG_TEMPERATURE = 12.0
"""|log T| beyond this is a sign that the likelihood has no maximum (T of 6e-6 or 160,000)."""

_LONGEST_STEP = 2.0


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
            return point + math.copysign(_LONGEST_STEP, proposed - point)
        return (self.low + self.high) / 2


def solve_scale(
    problem: Problem, scale: float, tolerance: float = 1e-7, most_iterations: int = 60
) -> Solution:
    """The scale 1 / T > 0 that minimises a problem with that one parameter.

    Newton's method on u = log T, whose slope and bend follow from those by the scale s:
    ``f_u = -s f_s``, ``f_uu = s^2 f_ss + s f_s``; without a second derivative, the secant's. Steps
    that leave the bracket or climb are replaced by bisection. Ends when a step is shorter than
    the tolerance in log T.
    """
    point, bracket = -math.log(scale), _Bracket()
    previous: tuple[float, float] | None = None
    value = slope = math.nan
    for iteration in range(1, most_iterations + 1):
        scale = math.exp(-point)
        value, first, second = problem.line(np.array([scale]))
        slope = -scale * first
        bend = _secant(previous, (point, slope)) if second is None else None
        if second is not None:
            bend = scale * scale * second + scale * first
        bracket.narrow(point, slope)
        step = -slope / bend if bend is not None and bend > 0 else -math.copysign(0.5, slope)
        step = max(-_LONGEST_STEP, min(_LONGEST_STEP, step))
        theta = np.array([scale])
        if slope == 0 or (abs(step) <= tolerance and bend is not None and bend > 0):
            return Solution(theta, value, abs(slope), True, "step", iteration)
        if bracket.high - bracket.low <= tolerance:
            return Solution(theta, value, abs(slope), True, "bracket", iteration)
        if abs(point + step) > LARGEST_LOG_TEMPERATURE:
            return Solution(theta, value, abs(slope), False, "unbounded", iteration)
        previous = (point, slope)
        point = bracket.contain(point, point + step)
    return Solution(np.array([scale]), value, abs(slope), False, "iterations", most_iterations)


def _secant(previous: tuple[float, float] | None, current: tuple[float, float]) -> float | None:
    if previous is None or previous[0] == current[0]:
        return None
    return (current[1] - previous[1]) / (current[0] - previous[0])
