"""Intervals for calibration errors, which chance makes larger than they are.

An error is a norm of sums of residuals: probability minus label, by bin or cumulated. Noise adds to
a norm. Of a calibrated model every such error is above 0, and so is the plain bootstrap's whole
interval. Hence a test is inverted instead: the true residuals are taken to be a multiple of a
signal. With noise added, which multiples are in keeping with the error that was found? How much
noise adds depends on the signal, least where all residuals have one sign, so several signals are
tried and the interval holds what any of them gives. It is for the error of infinitely many rows in
the same bins, and begins at 0 if a calibrated model might well have the error that was found.

By luck the error may be so small that a calibrated model seldom has it. Next to no multiple is in
keeping with that. So the upper end then is that of an error which one in six calibrated models is
below (the power constraint of Cowan et al. 2011, one standard deviation below the median). Nor is
it ever below an error that may leave no trace in so few rows.

The change between two models is of estimates that have the noise taken out, and its interval is a
parametric bootstrap of these: see `change_interval`.

Signals are residuals less what chance explains of them: `smoothed`, `pooled`,
`pooled_smoothly` and `less_noise`.

References
----------
Stein (1981), Estimation of the mean of a multivariate normal distribution,
doi:10.1214/aos/1176345632; Cowan, Cranmer, Gross and Vitells (2011), Power-constrained limits,
arXiv:1105.3166; Cai (1999), Adaptive wavelet estimation: a block thresholding and oracle
inequality approach, doi:10.1214/aos/1018031262 (blocks of frequencies).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.cached import cached_property
from calibcli.metrics.resampling import Interval, percentiles, quantiles

_STEPS, _PRECISION = 12, 1e-3
_LARGEST = 64.0
_UPPER = 0.6
"""Share of the tail at the upper end, since signals are guessed; from simulations."""

_AT_ONCE = 1 << 17
"""Numbers in a block of replicates, that it stay in the cache."""

_STRICT = 2.24
"""Normal deviations beyond which there is 1 in 40."""

_LUCKY = 0.16
"""Share of calibrated models with less than a usual error: a normal distribution's below -1."""

_LEAST = float(np.finfo(np.float64).tiny)
_GROUPS = 32
_BLOCKS = (0, 1, 2, 4, 8, 16)
"""The first frequency of each block."""


def blocks_of(replicates: int, sums: int) -> Iterator[slice]:
    """Slices of replicates with so many sums each."""
    step = max(_AT_ONCE // max(sums, 1), 1)
    return (slice(at, min(at + step, replicates)) for at in range(0, replicates, step))


EndOfInterval: TypeAlias = Literal["low", "middle", "high"]
"""What of an interval is asked for."""


class NormSample(ABC):
    """A calibration error of the rows, and what noise makes of errors near it.

    Attributes
    ----------
    signals : array (S, m)
        What the residuals may be without noise, up to a factor; the likeliest first.
    tail : float
        Share of the errors to leave out at each end.
    unseen : float
        An error that may well leave no trace in the rows, since they are so few.
    """

    signals: NumpyArray
    tail: float
    unseen: float

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
    def errors(self, signal: NumpyArray, end: EndOfInterval) -> NumpyArray:
        """The error of a signal (m,) with noise, in every replicate (R,).

        Where it is not known how much noise there is, as much as there may be for the ``"low"`` end
        of an interval, and as little as there may be for the ``"high"`` one.
        """

    @property
    @abstractmethod
    def sums(self) -> NumpyArray:
        """What the error is a norm of (m,), of the rows."""

    @property
    @abstractmethod
    def noise_of_sums(self) -> NumpyArray:
        """The noise (R, m) of the sums."""

    @property
    @abstractmethod
    def by_chance(self) -> NumpyArray:
        """Errors (r,) of a calibrated model with the same probabilities."""

    @abstractmethod
    def apart_from(self, first: Any) -> tuple[NumpyArray, NumpyArray]:
        """How far this model's probabilities are apart from those of the first of the same rows.

        Sums (R, m) of the difference, and sums (R, m) of its negative, as the first model's sample
        has them, of resamples of the rows.
        """

    @abstractmethod
    def simulated_with(self, before: Any) -> tuple[NumpyArray, NumpyArray]:
        """Errors (R,) of the first model of the same rows, and of this one, with the same noise.

        The residuals without it are the likeliest.
        """

    @property
    @abstractmethod
    def is_paired(self) -> bool:
        """Whether the rows were seen together with those of the first model."""

    @property
    def multiples(self) -> Multiples:
        """Those of the likeliest signal."""
        return Multiples(self, self.signals[0], "middle", self._found)

    @cached_property
    def _found(self) -> dict[float, NumpyArray]:
        """The errors of those that were looked at.

        The multiples are not kept themselves, as they hold the sample: what holds itself is freed
        late, and its replicates are large.
        """
        return {}

    @cached_property
    def may_be_chance(self) -> bool:
        """Whether a calibrated model may well have an error as large as that of the rows."""
        return self.value <= percentiles(self.by_chance, self.tail).high

    def may_lie_beyond(self, direction: NumpyArray) -> bool:
        """Whether the truth may be at the model, or beyond it in a direction (m,) of residuals.

        Of all alternatives a test in one direction has the most power against those.
        """
        noise = self.noise_of_sums
        variance = noise.var(axis=0)
        # Sums that hardly vary must not decide. The scale, which does not matter, is that of a mean
        # variance of 1, so that nothing overflows where a model is all but sure.
        mean = float(variance.mean())
        weights = direction / (1 + (variance / mean if mean > 0 else variance))
        deviation = float((noise @ weights).std())
        return float(self.sums @ weights) <= _STRICT * deviation

    @cached_property
    def interval(self) -> Interval:
        """The errors in keeping with that of the rows, whichever the signal is."""
        (low_end, low_share), (high_end, high_share) = self._ends
        lows, highs = [], [self.unseen]
        for signal in self.signals:
            lows.append(Multiples(self, signal, low_end).error_with(low_share, self.value))
            multiples = Multiples(self, signal, high_end)
            typical = multiples.no_luckier(self.value, self.tail)
            highs.append(multiples.error_with(high_share, typical))
        least = 0.0 if self.may_be_chance else max(min(lows), _LEAST)
        return Interval(least, max(highs)).around(self.estimate)

    @cached_property
    def likeliest(self) -> float:
        """The multiple of the first signal whose errors have that of the rows as their median."""
        return self.multiples.with_quantile(0.5, self.value)

    @property
    def simulated(self) -> NumpyArray:
        """The errors (R,) of the likeliest multiple with noise."""
        return self.errors(self.multiples.at(self.likeliest), "middle")

    @cached_property
    def estimate(self) -> float:
        """The error without what noise adds to it: that of the likeliest multiple."""
        estimate = self.multiples.error(self.likeliest)
        # No more of it is known than the multiple is.
        is_nothing = self.may_be_chance and estimate <= _PRECISION * self.value
        return 0.0 if is_nothing else estimate

    @property
    def _ends(self) -> tuple[tuple[EndOfInterval, float], tuple[EndOfInterval, float]]:
        return ("low", 1 - self.tail), ("high", _UPPER * self.tail)

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
    signals, tail, unseen
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
    unseen: float = 0.0

    @cached_property
    def value(self) -> float:
        """The error of the rows."""
        return float(self.norm(self.residuals[None, :])[0])

    @property
    def sums(self) -> NumpyArray:
        """What the error is a norm of (m,), of the rows."""
        return self.residuals

    @property
    def noise_of_sums(self) -> NumpyArray:
        """Their noise (R, m), of the bootstrap."""
        return self.noise

    @property
    def by_chance(self) -> NumpyArray:
        """Errors (r,) of a calibrated model with the same probabilities."""
        if self.calibrated is not None:
            return self.calibrated
        return self.errors(np.zeros_like(self.residuals))

    def apart_from(self, first: ErrorSample) -> tuple[NumpyArray, NumpyArray]:
        """How far this model's probabilities are apart from the first; see `NormSample`."""
        assert self.pairing is not None
        assert self.pairing.apart is not None
        assert first.pairing is not None
        here, there = self.pairing.apart
        return self.pairing.read(here), first.pairing.read(there)

    def simulated_with(self, before: ErrorSample) -> tuple[NumpyArray, NumpyArray]:
        """Errors (R,) of two models in the same resamples of the rows; see `NormSample`."""
        return before.simulated, self.simulated

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

    def errors(self, signal: NumpyArray, end: EndOfInterval = "middle") -> NumpyArray:
        """The error of a signal (m,) with the noise of the bootstrap, at any end (R,)."""
        blocks = blocks_of(*self.noise.shape)
        return np.concatenate([self.norm(signal + self.noise[block]) for block in blocks])


class Pairing(NamedTuple):
    """What is known of two models of the same rows, by cell.

    Attributes
    ----------
    read : callable
        Sums by cell (R, cells), of all that there may be -> what the norm is of (R, m).
    apart : (array (R, cells), array (R, cells)) or None
        Of this model's probabilities minus the first model's, by this model's cells, and the
        negative by the first model's cells, of resamples of the rows. None for the first model.
    """

    read: Callable[[NumpyArray], NumpyArray]
    apart: tuple[NumpyArray, NumpyArray] | None = None


def change_interval(before: NormSample, after: NormSample) -> Interval:
    """An interval for the error after minus the error before, of the same rows.

    The residuals of both models are taken to be the likeliest ones, and noise is added to both: the
    same resamples of the rows, the same labels. Estimates are made of the errors that this gives,
    as one was made of the error of the rows, and the interval is as far around the change of the
    estimates as the simulated ones stray from their median (the parametric bootstrap: Efron and
    Tibshirani 1993, chapter 6). An estimate of a calibrated model is 0 or above, hence too large on
    average. But if one of the models is calibrated, the error of the other is what the two are
    apart by, which is known without labels. So is the change if one of them lies between the truth
    and the other, as where both are overconfident and one is less so. By the triangle inequality no
    change is larger. The interval holds it too, unless labels speak against it.
    """
    errors_before, errors_after = after.simulated_with(before)
    changes = after.multiples.estimates(errors_after, after.likeliest)
    changes -= before.multiples.estimates(errors_before, before.likeliest)
    tail = min(before.tail, after.tail)
    low, middle, high = quantiles(changes, np.array([tail, 0.5, 1 - tail]))
    change = after.estimate - before.estimate
    ends = [Interval(float(change - middle + low), float(change - middle + high))]
    differences, negatives = after.apart_from(before)
    if before.may_lie_beyond(negatives.mean(axis=0)):
        ends.append(percentiles(after.norms(differences), tail))
    if after.may_lie_beyond(differences.mean(axis=0)):
        ends.append(percentiles(-before.norms(negatives), tail))
    return Interval(min(end.low for end in ends), max(end.high for end in ends))


class Multiples:
    """The errors of multiples of a signal, with noise; of each multiple they are found once.

    Parameters
    ----------
    sample, signal, end
        Of which errors; see `NormSample.errors`.
    found : dict, optional
        Where they are kept, sorted, by the multiple.
    """

    def __init__(
        self,
        sample: NormSample,
        signal: NumpyArray,
        end: EndOfInterval,
        found: dict[float, NumpyArray] | None = None,
    ) -> None:
        self._sample, self._signal, self._end = sample, signal, end
        self._errors: dict[float, NumpyArray] = {} if found is None else found

    def error(self, times: float) -> float:
        """The error of a multiple without noise."""
        return self._sample.error(times * self._signal)

    def at(self, times: float) -> NumpyArray:
        """The signal (m,), multiplied by a number."""
        return times * self._signal

    def no_luckier(self, value: float, tail: float) -> float:
        """An error, or a more usual one if noise alone has it or less with the share of a tail."""
        return value if value > self._quantile(tail, 0.0) else self._quantile(_LUCKY, 0.0)

    def _quantile(self, share: float, times: float) -> float:
        if times not in self._errors:
            self._errors[times] = np.sort(self._sample.errors(times * self._signal, self._end))
        return _quantile_of_sorted(self._errors[times], share)

    def with_quantile(self, share: float, value: float) -> float:
        """The multiple of whose errors with noise this quantile is a value; 0 if no other."""

        def excess(times: float) -> float:
            return self._quantile(share, times) - value

        if excess(0.0) >= 0:
            return 0.0
        top = 1.0
        while excess(top) < 0 and top < _LARGEST:
            top *= 2
        at = {times: excess(times) for times in sorted(self._errors)}
        high = min((times for times in at if at[times] >= 0), default=top)
        low = max(times for times in at if at[times] < 0 and times <= high)
        return _root(excess, (low, at[low]), (high, at[high]), _PRECISION * value)

    def error_with(self, share: float, value: float) -> float:
        """The error without noise of the multiple `with_quantile`."""
        return self.error(self.with_quantile(share, value))

    def estimates(self, errors: NumpyArray, likeliest: float) -> NumpyArray:
        """The errors without noise whose noisy errors have these (R,) as their median."""
        # Multiples that are closer together would have slopes that are noise.
        places = [around * (likeliest or 1.0) for around in _AROUND]
        medians = np.maximum.accumulate([self._quantile(0.5, times) for times in places])
        return np.interp(errors, medians, [self.error(times) for times in places])


_AROUND = 0.0, 0.5, 1.0, 1.5, 2.0, 3.0
"""Multiples of the likeliest, between which the errors of others are interpolated."""


def _quantile_of_sorted(values: NumpyArray, share: float) -> float:
    place = share * (len(values) - 1)
    low = min(int(place), len(values) - 2)
    return float(values[low] + (place - low) * (values[low + 1] - values[low]))


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


def pooled_smoothly(
    residuals: NumpyArray, weight: NumpyArray, bins: NumpyArray, variance: NumpyArray
) -> NumpyArray:
    """The same less what noise explains of the bins' sums, whose variance (m,) is that of cells.

    In units of their standard deviations the sums of the bins are transformed to frequencies, and
    each block of these is shrunk as in `smoothed`.
    """
    deviation = np.sqrt(np.maximum(np.bincount(bins, variance), _LEAST))
    frequencies = _cosines(len(deviation))
    signal = frequencies @ (np.bincount(bins, residuals) / deviation)
    for first, following in zip(_BLOCKS, (*_BLOCKS[1:], None), strict=True):
        part = signal[first:following]
        # Of a model that is sure and wrong the energy may be infinite: nothing of it is noise.
        with np.errstate(over="ignore"):
            energy = float((part**2).sum())
        part *= max(0.0, 1 - len(part) / energy) if energy > 0 else 0.0
    of_bins = deviation * (frequencies.T @ signal)
    share: NumpyArray = of_bins / np.maximum(np.bincount(bins, weight), _LEAST)
    return weight * share[bins]


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
