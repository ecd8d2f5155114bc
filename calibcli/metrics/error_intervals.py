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
from typing import Any, NamedTuple

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.metrics.resampling import Interval, percentiles, quantiles

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
    def norms(self, signals: NumpyArray) -> NumpyArray:
        """The errors (R,) of signals (R, m) without noise."""

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

    @property
    @abstractmethod
    def sums(self) -> NumpyArray:
        """What the error is a norm of (m,), of the rows."""

    @property
    @abstractmethod
    def variance(self) -> NumpyArray:
        """That of the sums (m,)."""

    @abstractmethod
    def apart_from(self, first: Any) -> tuple[NumpyArray, NumpyArray]:
        """How far this model's probabilities are apart from those of the first of the same rows.

        Sums (1 + R, m) of the difference, and sums (1 + R, m) of its negative, as the first model's
        sample has them: of the rows, and of resamples of them.
        """

    @abstractmethod
    def paired_errors(self, signal: NumpyArray) -> NumpyArray:
        """The error of a signal (m,) with noise (R,), the same noise as in other models' errors."""

    @property
    @abstractmethod
    def is_paired(self) -> bool:
        """Whether the rows were seen together with those of the first model."""

    def change_from(self, before: NormSample) -> Interval | None:
        """The interval of the change from an error of the same rows; None where not paired."""
        if not self.is_paired:
            return None
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
    pairing : Pairing or None
        What is known of the first model of the same rows.
    """

    norm: Callable[[NumpyArray], NumpyArray]
    residuals: NumpyArray
    signals: NumpyArray
    noise: NumpyArray
    tail: float
    calibrated: NumpyArray | None = None
    pairing: Pairing | None = None

    @cached_property
    def value(self) -> float:
        """The error of the rows."""
        return float(self.norm(self.residuals[None, :])[0])

    @property
    def sums(self) -> NumpyArray:
        """What the error is a norm of (m,), of the rows."""
        return self.residuals

    @cached_property
    def variance(self) -> NumpyArray:
        """That of the sums (m,)."""
        variance: NumpyArray = self.noise.var(axis=0)
        return variance

    def apart_from(self, first: ErrorSample) -> tuple[NumpyArray, NumpyArray]:
        """How far this model's probabilities are apart from the first; see `NormSample`."""
        assert self.pairing is not None
        assert self.pairing.apart is not None
        assert first.pairing is not None
        here, there = self.pairing.apart
        return self.pairing.read(here), first.pairing.read(there)

    def error(self, signal: NumpyArray) -> float:
        """The error of a signal (m,) without noise."""
        return float(self.norm(signal[None, :])[0])

    @property
    def is_paired(self) -> bool:
        """Whether the rows were seen together with those of the first model."""
        return self.pairing is not None and self.pairing.apart is not None

    def norms(self, signals: NumpyArray) -> NumpyArray:
        """The errors (R,) of signals (R, m) without noise."""
        return self.norm(signals)

    def errors(self, signal: NumpyArray) -> NumpyArray:
        """The error of a signal (m,) with noise, in every replicate (R,)."""
        if self.calibrated is not None and not signal.any():
            return self.calibrated
        return self.paired_errors(signal)

    def paired_errors(self, signal: NumpyArray) -> NumpyArray:
        """The error of a signal (m,) with noise (R,), the same noise as in other models' errors."""
        blocks = blocks_of(*self.noise.shape)
        return np.concatenate([self.norm(signal + self.noise[block]) for block in blocks])


class Pairing(NamedTuple):
    """What is known of two models of the same rows, by cell.

    Attributes
    ----------
    read : callable
        Sums by cell (R, cells), of all that there may be -> what the norm is of (R, m).
    apart : (array (1 + R, cells), array (1 + R, cells)) or None
        Of this model's probabilities minus the first model's, by this model's cells, and the
        negative by the first model's cells, of the rows and of resamples. None for the first model.
    """

    read: Callable[[NumpyArray], NumpyArray]
    apart: tuple[NumpyArray, NumpyArray] | None = None


def change_interval(before: NormSample, after: NormSample) -> Interval:
    """An interval for the error after minus the error before, of the same rows.

    By how much two models are apart is known exactly; unknown is where the truth lies. It is taken
    to be on the line through both models' probabilities (at 0 the first model is right, at 1 the
    second), next to which both are off by what chance does not explain of their sums. Labels with
    the same noise, judged by both models, show how likely each place on the line makes a change
    smaller than the one that was found: a confidence distribution of the place. What is beside the
    line may be there or be noise, and the interval holds what either gives. Beyond the ends of
    the line both errors grow alike. With other rows the models would be apart by more or less, so
    each place is taken with one resample of the rows, and the interval is of the changes that all
    of these make.
    """
    differences, negatives = after.apart_from(before)
    between, back = differences[0], negatives[0]
    nearest = _place(before, after, back, between)
    change = after.value - before.value
    beside = before.sums - nearest * back, after.sums - (1 - nearest) * between
    count = len(differences) - 1
    shares = (np.random.Generator(np.random.Philox(key=count)).permutation(count) + 0.5) / count
    tail, ends = min(before.tail, after.tail), []
    for known in (False, True):
        off, off_after = (
            less_noise(sums, sample.variance) if known else np.zeros_like(sums)
            for sums, sample in zip(beside, (before, after), strict=True)
        )
        smaller = np.empty(len(_PLACES))
        for position, place in enumerate(_PLACES):
            changes = after.paired_errors((1 - place) * between + off_after)
            changes -= before.paired_errors(place * back + off)
            # Equal ones count half: models that are the same have the same errors.
            smaller[position] = (np.sign(change - changes).mean() + 1) / 2
        confidence = np.maximum.accumulate(smaller)
        places = np.interp(shares, confidence, _PLACES)[:, None]
        changes = after.norms((1 - places) * differences[1:] + off_after)
        changes -= before.norms(places * negatives[1:] + off)
        ends.append(percentiles(changes, tail))
    return Interval(min(end.low for end in ends), max(end.high for end in ends))


_PLACES = np.linspace(-2.0, 3.0, 16)
"""Places on the line; farther out their errors grow alike."""


def _place(before: NormSample, after: NormSample, back: NumpyArray, between: NumpyArray) -> float:
    """Where the truth most likely is on the line between the models, by least squares."""
    sides = ((before, back, before.sums), (after, -between, after.sums - between))
    weight = product = 0.0
    for sample, direction, target in sides:
        inverse = np.divide(
            1.0, sample.variance, out=np.zeros_like(target), where=sample.variance > 0
        )
        weight += float((inverse * direction**2).sum())
        product += float((inverse * direction * target).sum())
    return min(max(product / weight, float(_PLACES[0])), float(_PLACES[-1])) if weight > 0 else 0.5


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


def less_noise(residuals: NumpyArray, variance: NumpyArray) -> NumpyArray:
    """Residuals (m,) less the share of all of them that is noise (James and Stein)."""
    energy = float((residuals**2).sum())
    kept = max(0.0, 1 - float(variance.sum()) / energy) if energy > 0 else 0.0
    return kept * residuals


def _cosines(count: int) -> NumpyArray:
    """The orthonormal discrete cosine transform of the second kind, as a matrix."""
    place = (np.arange(count) + 0.5) / count
    matrix: NumpyArray = np.cos(math.pi * np.arange(count)[:, None] * place) * math.sqrt(2 / count)
    matrix[0] /= math.sqrt(2)
    return matrix
