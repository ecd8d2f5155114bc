"""Intervals for calibration errors, which chance makes larger than they are.

An error is a norm of sums of residuals: probability minus label, by bin or cumulated. Noise adds to
a norm. Of a calibrated model every such error is above 0, and so is the plain bootstrap's whole
interval. Hence a test is inverted instead: the true residuals are taken to be a multiple of the
signal in those that were found. With the noise of the bootstrap added, which multiples are in
keeping with the error that was found? The interval is for the error of infinitely many rows in the
same bins. It begins at 0 if a calibrated model might well have the error that was found.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from calibcli.metrics.base import Vector
from calibcli.metrics.resampling import Interval

_STEPS, _PRECISION = 12, 1e-3
_LARGEST = 64.0


@dataclass(frozen=True)
class ErrorSample:
    """A calibration error of what was found, and the noise of the bootstrap.

    Attributes
    ----------
    norm : callable
        Residuals (R, m) -> errors (R,).
    found : array (m,)
        Sums of residuals.
    signal : array (m,)
        What of them is no noise, up to a factor.
    noise : array (R, m)
        Those of the replicates minus those that were found.
    """

    norm: Callable[[Vector], Vector]
    found: Vector
    signal: Vector
    noise: Vector

    @cached_property
    def value(self) -> float:
        """The error that was found."""
        return float(self.norm(self.found[None, :])[0])

    def error(self, times: float) -> float:
        """The error of a multiple of the signal, without noise."""
        return float(self.norm(times * self.signal[None, :])[0])

    def errors(self, times: float) -> Vector:
        """The error of a multiple of the signal with noise, in every replicate (R,)."""
        return self.norm(times * self.signal + self.noise)

    def times_at(self, quantile: float) -> float:
        """The multiple of the signal of whose errors the found one is this quantile; 0 if none."""
        found = self.value

        def excess(times: float) -> float:
            return float(np.quantile(self.errors(times), quantile)) - found

        low, at_low = 0.0, excess(0.0)
        if at_low >= 0:
            return 0.0
        high, at_high = 1.0, excess(1.0)
        while at_high < 0 and high < _LARGEST:
            low, at_low, high = high, at_high, 2 * high
            at_high = excess(high)
        return _root(excess, (low, at_low), (high, at_high), _PRECISION * found)

    def interval(self, tail: float) -> Interval:
        """The errors in keeping with the one that was found."""
        return Interval(*(self.error(self.times_at(q)) for q in (1 - tail, tail)))


def change_interval(before: ErrorSample, after: ErrorSample, tail: float) -> Interval:
    """An interval for the error after minus the error before, of the same rows.

    The intervals of both are combined as those of correlated estimates (MOVER; Zou and Donner 2008,
    doi:10.1002/sim.2895). The estimates are the errors that would have those found as their median.
    """
    times = [sample.times_at(0.5) for sample in (before, after)]
    old, new = before.error(times[0]), after.error(times[1])
    old_low, old_high = before.interval(tail)
    new_low, new_high = after.interval(tail)
    pair = before.errors(times[0]), after.errors(times[1])
    spread = float(pair[0].std() * pair[1].std())
    covariance = float(np.mean((pair[0] - pair[0].mean()) * (pair[1] - pair[1].mean())))
    correlation = covariance / spread if spread > 0 else 0.0
    if not (old_low > 0 and new_low > 0):
        # An error near 0 does not show which way the noise went, so the worst is allowed for.
        correlation = -1.0
    down = _combined(new - new_low, old_high - old, correlation)
    up = _combined(new_high - new, old - old_low, correlation)
    return Interval(new - old - down, new - old + up)


def _combined(first: float, second: float, correlation: float) -> float:
    """How far a difference may stray on one side, if its terms may stray so far."""
    square = first**2 + second**2 - 2 * correlation * first * second
    return math.sqrt(max(square, 0.0))


def _root(
    function: Callable[[float], float],
    low: tuple[float, float],
    high: tuple[float, float],
    tolerance: float,
) -> float:
    """Where an increasing function is about 0, between two points with its values there.

    The Illinois method: false position in which an end that stays counts half.
    """
    (a, at_a), (b, at_b) = low, high
    middle = b
    for _ in range(_STEPS):
        if at_b <= at_a:
            break
        middle = (a * at_b - b * at_a) / (at_b - at_a)
        value = function(middle)
        if abs(value) <= tolerance:
            break
        if value < 0:
            a, at_a, at_b = middle, value, at_b / 2
        else:
            b, at_b, at_a = middle, value, at_a / 2
    return middle
