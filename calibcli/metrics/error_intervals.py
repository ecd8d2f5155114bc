"""Intervals for calibration errors, which chance makes larger than they are.

An error is a norm of sums of residuals: probability minus label, by bin or cumulated. Noise adds to
a norm. Of a calibrated model every such error is above 0, and so is the plain bootstrap's whole
interval. Hence a test is inverted instead: the true residuals are taken to be a multiple of a
signal. With the noise of the bootstrap added, which multiples are in keeping with the error that
was found? How much noise adds depends on the signal, least where all residuals have one sign, so
several signals are tried and the interval holds what any of them gives. It is for the error of
infinitely many rows in the same bins, and begins at 0 if a calibrated model might well have the
error that was found.

Signals are residuals less what chance explains of them: `smoothed`, `pooled` and `shrunken`.

References
----------
Stein (1981), Estimation of the mean of a multivariate normal distribution,
doi:10.1214/aos/1176345632; Cai (1999), Adaptive wavelet estimation: a block thresholding and oracle
inequality approach, doi:10.1214/aos/1018031262 (blocks of frequencies).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.metrics.resampling import Interval, quantiles

_STEPS, _PRECISION = 12, 1e-3
_LARGEST = 64.0
_UPPER = 0.6
"""Share of the tail at the upper end, since signals are guessed; from simulations."""

_AT_ONCE = 1 << 17
"""Numbers in a block of replicates, that it stay in the cache."""

_LEAST = float(np.finfo(np.float64).tiny)
_GROUPS = 32
_BLOCKS = (0, 1, 2, 4, 8, 16)
"""The first frequency of each block."""


def blocks_of(replicates: int, sums: int) -> Iterator[slice]:
    """Slices of replicates with so many sums each."""
    step = max(_AT_ONCE // max(sums, 1), 1)
    return (slice(at, min(at + step, replicates)) for at in range(0, replicates, step))


class NormSample(ABC):
    """A calibration error of the rows, and what noise makes of errors near it.

    Attributes
    ----------
    signals : array (S, m)
        What the residuals may be without noise, up to a factor; the likeliest first.
    tail : float
        Share of the errors to leave out at each end.
    """

    signals: NumpyArray
    tail: float

    @property
    @abstractmethod
    def value(self) -> float:
        """The error of the rows."""

    @abstractmethod
    def error(self, signal: NumpyArray) -> float:
        """The error of a signal (m,) without noise."""

    @abstractmethod
    def errors(self, signal: NumpyArray) -> NumpyArray:
        """The error of a signal (m,) with noise, in every replicate (R,)."""

    def signal_at(self, quantile: float, signal: NumpyArray) -> NumpyArray:
        """The multiple of a signal (m,) of whose errors that of the rows is this quantile."""
        value = self.value

        def excess(times: float) -> float:
            errors = self.errors(times * signal)
            return float(quantiles(errors, np.array(quantile))) - value

        low, at_low = 0.0, excess(0.0)
        if at_low >= 0:
            return 0.0 * signal
        high, at_high = 1.0, excess(1.0)
        while at_high < 0 and high < _LARGEST:
            low, at_low, high = high, at_high, 2 * high
            at_high = excess(high)
        return _root(excess, (low, at_low), (high, at_high), _PRECISION * value) * signal

    @cached_property
    def interval(self) -> Interval:
        """The errors in keeping with that of the rows, whichever the signal is."""
        low, high = (
            [self.error(self.signal_at(share, signal)) for signal in self.signals]
            for share in (1 - self.tail, _UPPER * self.tail)
        )
        return Interval(min(low), max(high)).around(self.estimate)

    @cached_property
    def likeliest(self) -> NumpyArray:
        """The signal (m,) whose errors have that of the rows as their median."""
        return self.signal_at(0.5, self.signals[0])

    @cached_property
    def estimate(self) -> float:
        """The error without what noise adds to it: that of the likeliest signal."""
        return self.error(self.likeliest)

    @cached_property
    def replicates(self) -> NumpyArray:
        """Errors (R,) of the likeliest signal, in step with those of other models of the rows."""
        return self.errors(self.likeliest)

    def change_from(self, before: NormSample) -> Interval:
        """The interval of the change from an error of the same rows."""
        return change_interval(before, self)


@dataclass(frozen=True)
class ErrorSample(NormSample):
    """A calibration error with the noise of the bootstrap.

    Attributes
    ----------
    norm : callable
        Residuals (R, m) -> errors (R,).
    residuals : array (m,)
        Sums of residuals, as they are in the rows.
    signals, tail
        As of `NormSample`.
    noise : array (R, m)
        Residuals of the replicates minus those of the rows.
    calibrated : array (r,) or None
        Errors of a calibrated model with these probabilities; without, the noise alone has them.
        Few wrong rows hardly vary in a bootstrap, so it is these that decide on 0.
    """

    norm: Callable[[NumpyArray], NumpyArray]
    residuals: NumpyArray
    signals: NumpyArray
    noise: NumpyArray
    tail: float
    calibrated: NumpyArray | None = None

    @cached_property
    def value(self) -> float:
        """The error of the rows."""
        return float(self.norm(self.residuals[None, :])[0])

    def error(self, signal: NumpyArray) -> float:
        """The error of a signal (m,) without noise."""
        return float(self.norm(signal[None, :])[0])

    def errors(self, signal: NumpyArray) -> NumpyArray:
        """The error of a signal (m,) with noise, in every replicate (R,)."""
        if self.calibrated is not None and not signal.any():
            return self.calibrated
        return self._with_noise(signal)

    @cached_property
    def replicates(self) -> NumpyArray:
        """Errors (R,) of the likeliest signal, in step with those of other models of the rows."""
        return self._with_noise(self.likeliest)

    def _with_noise(self, signal: NumpyArray) -> NumpyArray:
        blocks = blocks_of(*self.noise.shape)
        return np.concatenate([self.norm(signal + self.noise[block]) for block in blocks])


def change_interval(before: NormSample, after: NormSample) -> Interval:
    """An interval for the error after minus the error before, of the same rows.

    The intervals of both are combined as those of correlated estimates (MOVER; Zou and Donner 2008,
    doi:10.1002/sim.2895). The estimates are the errors of the likeliest signals.
    """
    old, new = before.estimate, after.estimate
    pair = before.replicates, after.replicates
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
    """The root of an increasing function, between two points with its values there.

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


def smoothed(residuals: NumpyArray, noise: NumpyArray, weight: NumpyArray) -> NumpyArray:
    """Residuals (m,) of cells in order of confidence, less what the noise explains.

    They are summed in 32 groups of equal mass and transformed to frequencies; each block of these
    is shrunk by the share of it that is noise (James and Stein), low frequencies by themselves.
    Where all of it may be noise the residuals are returned as they are.

    Parameters
    ----------
    residuals : array (m,)
    noise : array (R, m)
        Of the bootstrap.
    weight : array (m,)
    """
    middle = np.cumsum(weight) - weight / 2
    group = np.minimum((middle / weight.sum() * _GROUPS).astype(np.intp), _GROUPS - 1)
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    count = len(starts)
    frequencies = _cosines(count)
    signal = frequencies @ np.add.reduceat(residuals, starts)
    variance = (np.add.reduceat(noise, starts, axis=1) @ frequencies.T).var(axis=0)
    kept = np.zeros(count)
    for first, following in zip(_BLOCKS, (*_BLOCKS[1:], _GROUPS), strict=True):
        block = slice(first, following)
        energy = float((signal[block] ** 2).sum())
        if energy > 0:
            kept[block] = max(0.0, 1 - float(variance[block].sum()) / energy)
    if not kept.any():
        return residuals
    in_group = np.add.reduceat(weight, starts)
    lengths = np.diff(starts, append=len(weight))
    smooth: NumpyArray = weight * np.repeat(frequencies.T @ (kept * signal) / in_group, lengths)
    return smooth


def pooled(residuals: NumpyArray, weight: NumpyArray, bins: NumpyArray) -> NumpyArray:
    """Residuals (m,) of cells by class and bin, if all classes were off alike: shared by weight."""
    share = np.bincount(bins, residuals) / np.maximum(np.bincount(bins, weight), _LEAST)
    return weight * share[bins]


def shrunken(residuals: NumpyArray, variance: NumpyArray) -> NumpyArray:
    """Residuals (m,) of cells without an order, each less the share of it that is noise.

    Parameters
    ----------
    residuals, variance : array (m,)
        The variance is that of the noise.
    """
    kept = np.maximum(residuals**2 - variance, 0.0)
    signal: NumpyArray = np.divide(
        kept, residuals, out=np.zeros_like(residuals), where=residuals != 0
    )
    return signal


def _cosines(count: int) -> NumpyArray:
    """The orthonormal discrete cosine transform of the second kind, as a matrix."""
    place = (np.arange(count) + 0.5) / count
    matrix: NumpyArray = np.cos(math.pi * np.arange(count)[:, None] * place) * math.sqrt(2 / count)
    matrix[0] /= math.sqrt(2)
    return matrix
