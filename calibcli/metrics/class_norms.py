"""What chance makes of calibration errors by class, which are norms of residuals by class and bin.

`ClassNorm` is the resampling of such an error.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.cached import cached_property
from calibcli.metrics.base import Metric
from calibcli.metrics.bins import BINS
from calibcli.metrics.class_cells import ClassBags, ClassCells, Forecasts
from calibcli.metrics.error_intervals import (
    EndOfInterval,
    NormSample,
    blocks_of,
    less_noise,
    pooled,
    pooled_smoothly,
)
from calibcli.metrics.pairing import MOST_VALUES, Recorded, change_by_spread
from calibcli.metrics.resampling import Bagged, Chance, Interval, Units, percentiles


@dataclass(frozen=True)
class ClassSample(NormSample):
    r"""A calibration error by class, with the noise of labels drawn from probabilities.

    Those are the model's less what the signal says that they are off by. The noise is that of the
    model's own, each cell's scaled by its standard deviation, and centred at the exact mean of the
    \|residual\| of a binomial: cells of a few rows do not scale.

    Attributes
    ----------
    cells : ClassCells
    shares : array (m,)
        What each cell's \|residual\| counts.
    signals, tail, unseen
        As of `NormSample`.
    """

    cells: ClassCells
    shares: NumpyArray
    signals: NumpyArray
    tail: float
    unseen: float = 0.0

    @cached_property
    def value(self) -> float:
        """The error of the rows."""
        return float(np.abs(self.cells.residuals) @ self.shares)

    def error(self, signal: NumpyArray) -> float:
        """The error of a signal (m,) without noise."""
        return float(np.abs(self._possible(signal)) @ self.shares)

    def _possible(self, signals: NumpyArray) -> NumpyArray:
        """Signals (..., m) as far as labels allow them: a class comes true in 0 to all rows.

        A multiple of a faint signal would otherwise claim errors that no labels can have.
        """
        cells = self.cells
        return np.clip(signals, cells.probability - cells.weight, cells.probability)

    @cached_property
    def interval(self) -> Interval:
        """As of `NormSample`, and of a model that is all but sure at least what rows vary by.

        Labels that are drawn from its probabilities hardly vary, however often it is wrong.
        """
        interval = super().interval
        spread = self._spread_of_bags
        if spread <= _SCALES[1] * float(self.simulated.std()):
            return interval
        reach = _DEVIATIONS * spread
        low, high = min(interval.low, self.estimate - reach), max(interval.high, self.value + reach)
        return Interval(max(low, 0.0), high)

    @property
    def _spread_of_bags(self) -> float:
        """The standard deviation of the error, as far as its sums differ from bag to bag."""
        cells = self.cells
        if cells.filled < 2:
            return 0.0
        apart = cells.excess - cells.bags[:, None] / cells.bags.sum() * cells.residuals
        moves = apart @ (np.sign(cells.residuals) * self.shares)
        return math.sqrt(float((moves**2).sum()) * cells.filled / (cells.filled - 1))

    @property
    def sums(self) -> NumpyArray:
        """The residuals (m,)."""
        return self.cells.residuals

    @property
    def noise_of_sums(self) -> NumpyArray:
        """Their noise (R, m), if the model is calibrated."""
        return self.cells.noise

    @cached_property
    def by_chance(self) -> NumpyArray:
        """Errors (R,) of labels that are drawn from the model's probabilities."""
        cells = self.cells
        nothing = np.zeros_like(cells.mean)
        return self._errors(nothing, cells.noise, cells.mean, nothing)

    @property
    def is_paired(self) -> bool:
        """Whether the rows were seen together with those of the first model."""
        return self.cells.paired is not None

    def apart_from(self, first: ClassSample) -> tuple[NumpyArray, NumpyArray]:
        """How far this model's probabilities are apart from the first; see `NormSample`."""
        paired, takes = self.cells.paired, self.cells.draws()
        assert paired is not None
        return takes @ paired.here[:, self.cells.codes], takes @ paired.there[:, first.cells.codes]

    def simulated_with(self, before: ClassSample) -> tuple[NumpyArray, NumpyArray]:
        """Errors (R,) of two models with the same noise; see `NormSample`.

        Labels are drawn from the first model's probabilities. With other rows the models would be
        apart by more or less; where the truth lies between them says how much of that is whose.
        """
        cells, paired = self.cells, self.cells.paired
        assert paired is not None
        here, there = paired.here[:, cells.codes], paired.there[:, before.cells.codes]
        between, back = here.sum(axis=0), there.sum(axis=0)
        place = self._place(before, back, between)
        takes = cells.draws(len(cells.noise)) - 1.0
        of_first = np.clip((cells.probability - between) / cells.weight, 0.0, 1.0)
        one = before._errors(
            before.multiples.at(before.likeliest),
            before.cells.noise + (place * takes) @ there,
            before.cells.mean,
            before.off,
        )
        other = self._errors(
            self.multiples.at(self.likeliest),
            cells.noise_of(paired.drawn) + ((1 - place) * takes) @ here,
            of_first,
            self.off,
        )
        return one, other

    def _place(self, before: ClassSample, back: NumpyArray, between: NumpyArray) -> float:
        """Where the truth most likely is between the models (0: the first), by least squares."""
        here, there = self.cells, before.cells
        sides = ((there, back, there.residuals), (here, -between, here.residuals - between))
        weight = product = 0.0
        for cells, direction, target in sides:
            inverse = 1 / np.maximum(cells.variance, _LEAST_VARIANCE * cells.weight)
            weight += float((inverse * direction**2).sum())
            product += float((inverse * direction * target).sum())
        return min(max(product / weight, 0.0), 1.0) if weight > 0 else 0.5

    @cached_property
    def off(self) -> NumpyArray:
        """The error (m,) of each probability, as far as chance does not explain it."""
        return self._possible(explained(self.cells)) / self.cells.weight

    def norms(self, signals: NumpyArray) -> NumpyArray:
        """The errors (R,) of signals (R, m) without noise."""
        errors: NumpyArray = np.abs(signals) @ self.shares
        return errors

    def errors(self, signal: NumpyArray, end: EndOfInterval = "middle") -> NumpyArray:
        """The error of a signal (m,) with noise, in every replicate (R,); see `NormSample`.

        The noise is that of labels from the model's probabilities less what they are off by: less
        the signal itself, all that was found, or what of this chance does not explain.
        """
        off = self.off
        if end != "middle":
            off = self._possible(signal if end == "low" else self.signals[0]) / self.cells.weight
        return self._errors(signal, self.cells.noise, self.cells.mean, off)

    def _errors(
        self, signal: NumpyArray, noise: NumpyArray, drawn_from: NumpyArray, off: NumpyArray
    ) -> NumpyArray:
        """The error with noise that is scaled, of labels drawn from other probabilities (m,).

        To be that of labels drawn from the model's less what they are ``off`` by.
        """
        cells = self.cells
        signal = self._possible(signal)
        true = np.clip(cells.mean - off, 0.0, 1.0)
        # The square is for rows of a cell that are off by more than others.
        variance = true * (1 - true) + off**2
        by_model = np.maximum(drawn_from * (1 - drawn_from), _LEAST_VARIANCE)
        scale = np.clip(np.sqrt(variance / by_model), *_SCALES)
        shift, factor = signal.astype(np.float32), scale.astype(np.float32)
        shares = self.shares.astype(np.float32)
        found = []
        for block in blocks_of(*noise.shape):
            residuals = noise[block] * factor
            residuals += shift
            found.append(np.abs(residuals, out=residuals) @ shares)
        errors = np.concatenate(found).astype(np.float64)
        compared = true + signal / cells.weight
        inside = np.clip(compared, 0.0, 1.0)
        exact = mean_deviations(cells.effective_rows, inside, true, variance)
        exact += np.abs(compared - inside)
        centred: NumpyArray = errors - errors.mean() + float((exact * cells.weight) @ self.shares)
        return centred


def explained(cells: ClassCells) -> NumpyArray:
    """The residuals (m,) less what chance explains: of all classes together, and of each."""
    bins = cells.bin_of
    alike = pooled_smoothly(cells.residuals, cells.weight, bins, cells.variance)
    return alike + less_noise(cells.residuals - alike, cells.variance)


_LEAST_VARIANCE = 1e-12
_SCALES = 0.1, 4.0
_DEVIATIONS = 1.96
_FEW = 30.0
"""A binomial with fewer expected is not taken for normal."""

_TOGETHER = 256
"""Cells whose binomials are summed at once."""


def mean_deviations(
    rows: NumpyArray, mean: NumpyArray, true: NumpyArray, variance: NumpyArray
) -> NumpyArray:
    r"""The mean (m,) of \|share that comes true - mean\| over labels with true probabilities.

    Exact where fewer than 30 of the rows are expected on either side, else that of a normal
    distribution.

    Parameters
    ----------
    rows : array (m,)
        Not whole where rows have weights.
    mean, true : array (m,)
        Probabilities: those that are compared, and those of the labels.
    variance : array (m,)
        Of a row.
    """
    few = rows * np.minimum(true, 1 - true) < _FEW
    deviations = np.empty_like(mean)
    deviations[few] = _of_binomials(rows[few], mean[few], true[few])
    n, shift = rows[~few], (mean - true)[~few]
    deviation = np.sqrt(np.maximum(variance[~few], _LEAST_VARIANCE) / n)
    z = shift / deviation
    density = np.exp(-0.5 * z * z) * math.sqrt(2 / math.pi)
    # SciPy has this for arrays, and its import would take longer than a table of small data.
    inside = np.array([math.erf(each) for each in (z / math.sqrt(2)).tolist()])
    deviations[~few] = deviation * (density + z * inside)
    return deviations


def _of_binomials(rows: NumpyArray, mean: NumpyArray, true: NumpyArray) -> NumpyArray:
    r"""The mean (m,) of \|X / rows - mean\| of binomials X, of which few are expected on a side."""
    swapped = true > 0.5
    rare, compared = np.where(swapped, 1 - true, true), np.where(swapped, 1 - mean, mean)
    expected = rows * rare
    # What is above a binomial's mean by 8 standard deviations has no probability to speak of.
    last = np.floor(np.minimum(rows * compared, expected + 8 * np.sqrt(expected) + 10))
    below = np.empty_like(mean)
    # E|X - a| = E X - a + 2 E max(a - X, 0), and the last is a short sum. Cells of the same length
    # go together.
    for places in np.array_split(np.argsort(last), len(last) // _TOGETHER + 1):
        n, p, a = (values[places, None] for values in (rows, rare, compared))
        k = np.arange(last[places].max(initial=0.0) + 1)
        shares = np.empty((len(places), len(k)))
        shares[:, :1] = np.exp(n * np.log1p(-p))
        shares[:, 1:] = (n - k[:-1]) / k[1:] * (p / (1 - p))
        np.cumprod(shares, axis=1, out=shares)
        below[places] = (np.maximum(a - k / n, 0.0) * shares).sum(axis=1)
    deviations: NumpyArray = rare - compared + 2 * below
    return deviations


@dataclass(frozen=True)
class ClassNorm:
    r"""The resampling of a calibration error that is a norm of residuals by class and bin.

    Attributes
    ----------
    forecasts : str
        Which probabilities it looks at.
    shares : callable
        Cells -> what each cell's \|residual\| counts (m,); a function of a module.
    bins : int
        Their number.
    """

    forecasts: Forecasts
    shares: Callable[[ClassCells], NumpyArray]
    bins: int = BINS

    description = "inverted test of the error; noise and chance range by labels drawn anew"

    def statistic(self, metric: Metric, units: Units) -> ClassBags:
        """The residuals by bag, class and bin."""
        return ClassBags(units, self.forecasts, self.bins)

    def sample(self, metric: Metric, cells: ClassCells, value: float) -> ClassSample:
        """The error, and the noise of labels that are drawn from the probabilities.

        Without noise the residuals may be much as they are, or as if all classes were off alike, as
        far as chance explains it or not.
        """
        residuals, bins = cells.residuals, cells.bin_of
        alike = pooled(residuals, cells.weight, bins)
        signals = [alike + less_noise(residuals - alike, cells.variance), alike]
        smooth = pooled_smoothly(residuals, cells.weight, bins, cells.variance)
        if smooth.any():
            signals.append(smooth)
        shares = self.shares(cells)
        # What one class lacks another one has too much of.
        by_class = np.sort(np.bincount(cells.class_of, cells.weight * shares))
        unseen = cells.unseen_share * float(by_class[-2:].sum())
        return ClassSample(cells, shares, np.stack(signals), cells.tail, unseen)

    def chance(self, metric: Metric, cells: ClassCells) -> Chance:
        """The error of labels that are drawn from the probabilities."""
        errors = self.sample(metric, cells, math.nan).by_chance
        return Chance(float(errors.mean()), *percentiles(errors, cells.tail))

    def record(self, finished: ClassCells, sample: ClassSample) -> NumpyArray:
        """The errors with the noise of drawn labels, if the likeliest signal is the truth."""
        return sample.simulated[:MOST_VALUES]

    def change(self, metric: Metric, now: Recorded, then: Recorded, bagged: Bagged) -> Interval:
        """The interval of the difference of two errors, by those with labels of the same draws."""
        return change_by_spread(now, then)
