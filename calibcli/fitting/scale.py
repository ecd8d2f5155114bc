"""One scale for all logits, to the last digit: safeguarded Newton on log T."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from calibcli.fitting.problem import Line, Problem
from calibcli.fitting.results import Solution

LARGEST_LOG_TEMPERATURE = 46.0
"""|log T| beyond this (T of 1e-20 or 1e20) is a sign that no temperature is best."""

SMALLEST_LOSS = 1e-9
"""A mean loss below this can only go on falling as T does: every row is right by far."""

_FIRST_LONGEST_STEP = 2.0
"""In log T. It doubles with each step, so that an optimum far off is reached all the same."""


_LAST_STEP = 5e-4
"""In log T: after Halley's step of that length some 1e-10 are left, which no figure shows."""

_MOST_CURL = 0.5
"""How far Halley's step may be from Newton's: a third of it, or twice."""


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
    objective follows the parameter, the secant's. With a third derivative it is Halley's method,
    whose last step needs no further pass: what is left is about its cube, and so is the gradient
    there by its expansion. Steps that leave the bracket or climb are replaced by bisection. Ends
    when a step is shorter than the tolerance in log T.
    """
    point, bracket = -math.log(scale), _Bracket()
    previous: tuple[float, float] | None = None
    value = slope = math.nan
    longest = _FIRST_LONGEST_STEP
    for iteration in range(1, most_iterations + 1):
        scale = math.exp(-point)
        line = problem.line(np.array([scale]))
        value, slope = line.value, -scale * line.first
        bend = _secant(previous, (point, slope))
        if line.second is not None and (bend is None or not problem.follow):
            bend = scale * scale * line.second + scale * line.first
        bracket.narrow(point, slope)
        curved = bend is not None and bend > 0
        step = -slope / bend if bend is not None and curved else -math.copysign(0.5, slope)
        twist = None if problem.follow else _twist(scale, line)
        if bend is not None and curved and twist is not None:
            step = _bent(slope, bend, twist)
        step = max(-longest, min(longest, step))
        longest *= 2
        theta = np.array([scale])
        lost = value <= SMALLEST_LOSS and not problem.has_ridge
        if lost or abs(point + step) > LARGEST_LOG_TEMPERATURE:
            return Solution(theta, value, abs(slope), False, "unbounded", iteration)
        end = point + step
        is_last = curved and abs(step) <= _LAST_STEP and bracket.low < end < bracket.high
        if is_last and bend is not None and twist is not None:
            return _stepped(end, (value, slope, bend, twist), step, iteration)
        if slope == 0 or (abs(step) <= tolerance and curved):
            return Solution(theta, value, abs(slope), True, "step", iteration)
        if bracket.high - bracket.low <= tolerance:
            return Solution(theta, value, abs(slope), True, "bracket", iteration)
        previous = (point, slope)
        point = bracket.contain(point, end)
    return Solution(np.array([scale]), value, abs(slope), False, "iterations", most_iterations)


def scale_step(scale: float, line: Line) -> float | None:
    """The step in log T from derivatives by the scale, or None where it would climb.

    Halley's where the third derivative is known, and else Newton's.
    """
    if line.second is None:
        return None
    slope = -scale * line.first
    bend = scale * scale * line.second + scale * line.first
    if not bend > 0:
        return None
    twist = _twist(scale, line)
    return -slope / bend if twist is None else _bent(slope, bend, twist)


def _twist(scale: float, line: Line) -> float | None:
    """The third derivative by log T, where it is known."""
    if line.third is None or line.second is None:
        return None
    squared = 3 * scale**2 * line.second
    return -(scale**3 * line.third + squared + scale * line.first)


def _bent(slope: float, bend: float, twist: float) -> float:
    """Halley's step from derivatives of which the second is positive; Newton's, where far off."""
    curl = slope * twist / (2 * bend * bend)
    return -slope / bend / (1 - curl) if abs(curl) < _MOST_CURL else -slope / bend


def _stepped(
    point: float, expansion: tuple[float, float, float, float], step: float, iteration: int
) -> Solution:
    """The solution at log T after a short step, from the value and derivatives before it."""
    value, slope, bend, twist = expansion
    there = value + slope * step + bend * step**2 / 2 + twist * step**3 / 6
    left = slope + bend * step + twist * step**2 / 2
    theta = np.array([math.exp(-point)])
    return Solution(theta, there, abs(left), True, "step", iteration)


def _secant(previous: tuple[float, float] | None, current: tuple[float, float]) -> float | None:
    if previous is None or previous[0] == current[0]:
        return None
    return (current[1] - previous[1]) / (current[0] - previous[0])
