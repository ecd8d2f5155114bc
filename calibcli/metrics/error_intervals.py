"""Intervals for calibration errors, which chance makes larger than they are.

An error is a norm of sums of residuals: probability minus label, by bin or cumulated. Noise adds to
a norm. Of a calibrated model every such error is above 0, and so is the plain bootstrap's whole
interval. Hence a test is inverted instead: the true residuals are taken to be a multiple of a
signal. With the noise of the bootstrap added, which multiples are in keeping with the error that
was found? How much noise adds depends on the signal, least where all residuals have one sign, so
several signals are tried and the interval holds what any of them gives. It is for the error of
infinitely many rows in the same bins, and begins at 0 if a calibrated model might well have the
error that was found.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.metrics.resampling import Interval, quantiles

_STEPS, _PRECISION = 12, 1e-3
_LARGEST = 64.0
_UPPER = 0.6
"""Of the tail at the upper end, since signals are guessed; from simulations of known truth."""

_AT_ONCE = 1 << 17
"""Numbers in a block of replicates, that it stay in the cache."""


def blocks_of(replicates: int, sums: int) -> Iterator[slice]:
    """Slices of replicates with so many sums each."""
    step = max(_AT_ONCE // max(sums, 1), 1)
    return (slice(at, min(at + step, replicates)) for at in range(0, replicates, step))


@dataclass(frozen=True)
class ErrorSample:
    """A calibration error of what was found, and the noise of the bootstrap.

    Attributes
    ----------
    norm : callable
        Residuals (R, m) -> errors (R,).
    found : array (m,)
        Sums of residuals.
    signals : array (S, m)
        What the residuals may be without noise, up to a factor; the likeliest first.
    noise : array (R, m)
        Those of the replicates minus those that were found.
    tail : float
        Share of the replicates to leave out at each end.
    """

    norm: Callable[[NumpyArray], NumpyArray]
    found: NumpyArray
    signals: NumpyArray
    noise: NumpyArray
    tail: float

    @cached_property
    def value(self) -> float:
        """The error that was found."""
        return float(self.norm(self.found[None, :])[0])

    def error(self, signal: NumpyArray) -> float:
        """The error of a signal (m,) without noise."""
        return float(self.norm(signal[None, :])[0])

    def errors(self, signal: NumpyArray) -> NumpyArray:
        """The error of a signal (m,) with noise, in every replicate (R,)."""
        blocks = blocks_of(*self.noise.shape)
        return np.concatenate([self.norm(signal + self.noise[block]) for block in blocks])

    def signal_at(self, quantile: float, signal: NumpyArray) -> NumpyArray:
        """The multiple of a signal (m,) of whose errors the found one is this quantile."""
        found = self.value

        def excess(times: float) -> float:
            errors = self.errors(times * signal)
            return float(quantiles(errors, np.array(quantile))) - found

        low, at_low = 0.0, excess(0.0)
        if at_low >= 0:
            return 0.0 * signal
        high, at_high = 1.0, excess(1.0)
        while at_high < 0 and high < _LARGEST:
            low, at_low, high = high, at_high, 2 * high
            at_high = excess(high)
        return _root(excess, (low, at_low), (high, at_high), _PRECISION * found) * signal

    @cached_property
    def interval(self) -> Interval:
        """The errors in keeping with the one that was found, whichever the signal is."""
        low, high = (
            [self.error(self.signal_at(share, signal)) for signal in self.signals]
            for share in (1 - self.tail, _UPPER * self.tail)
        )
        return Interval(min(low), max(high))

    @cached_property
    def likeliest(self) -> NumpyArray:
        """The signal (m,) that would have the found error as its median."""
        return self.signal_at(0.5, self.signals[0])


def change_interval(before: ErrorSample, after: ErrorSample) -> Interval:
    """An interval for the error after minus the error before, of the same rows.

    The intervals of both are combined as those of correlated estimates (MOVER; Zou and Donner 2008,
    doi:10.1002/sim.2895). The estimates are the errors that would have those found as their median.
    """
    old, new = before.error(before.likeliest), after.error(after.likeliest)
    pair = before.errors(before.likeliest), after.errors(after.likeliest)
    spread = float(pair[0].std() * pair[1].std())
    covariance = float(np.mean((pair[0] - pair[0].mean()) * (pair[1] - pair[1].mean())))
    correlation = covariance / spread if spread > 0 else 0.0
    if not (before.interval.low > 0 and after.interval.low > 0):
        # An error near 0 does not show which way the noise went, so the worst is allowed for.
        correlation = -1.0
    down = _combined(new - after.interval.low, before.interval.high - old, correlation)
    up = _combined(after.interval.high - new, old - before.interval.low, correlation)
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
