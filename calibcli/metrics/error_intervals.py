"""Intervals for calibration errors, which chance makes larger than they are.

An error is a norm of sums of residuals: probability minus label, by bin or cumulated. Noise adds to
a norm. Of a calibrated model every such error is above 0, and so is the plain bootstrap's whole
interval. Hence a test is inverted instead: the residuals are taken to be ``t`` times those that
were found, and with the noise of the bootstrap added, which ``t`` are in keeping with the error
that was found? The interval is for the error of infinitely many rows in the same bins. It begins at
0 if a calibrated model might well have the error that was found.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

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
    noise : array (R, m)
        Those of the replicates minus those that were found.
    """

    norm: Callable[[Vector], Vector]
    found: Vector
    noise: Vector

    def error(self, share: float) -> float:
        """The error of a share of the residuals, without noise."""
        return float(self.norm(share * self.found[None, :])[0])

    def errors(self, share: float) -> Vector:
        """The error of a share of the residuals with noise, in every replicate (R,)."""
        return self.norm(share * self.found + self.noise)

    def share_at(self, quantile: float) -> float:
        """The share of the residuals of whose errors the found one is this quantile; 0 if none."""
        found = self.error(1.0)

        def excess(share: float) -> float:
            return float(np.quantile(self.errors(share), quantile)) - found

        low, at_low = 0.0, excess(0.0)
        if at_low >= 0:
            return 0.0
        high, at_high = 1.0, excess(1.0)
        while at_high < 0 and high < _LARGEST:
            low, at_low, high = high, at_high, 2 * high
            at_high = excess(high)
        return _root(excess, (low, at_low), (high, at_high), _PRECISION * found)

    def interval(self, tail: float) -> Interval:
        """The errors in keeping with the one that was found, which always is one of them."""
        low = self.error(self.share_at(1 - tail))
        found = self.error(1.0)
        return Interval(min(low, found), max(self.error(self.share_at(tail)), found))


def change_interval(before: ErrorSample, after: ErrorSample, tail: float) -> Interval:
    """An interval for the error after minus the error before, of the same rows.

    Both are taken to be what would have the error that was found as its median; how far their
    difference then strays from the true one is what the interval allows for.
    """
    difference = after.error(1.0) - before.error(1.0)
    shares = [sample.share_at(0.5) for sample in (before, after)]
    strayed = after.errors(shares[1]) - before.errors(shares[0])
    strayed -= after.error(shares[1]) - before.error(shares[0])
    low, high = np.quantile(strayed, [tail, 1 - tail])
    return Interval(min(difference - high, difference), max(difference - low, difference))


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
