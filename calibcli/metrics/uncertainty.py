"""How far chance moves the metrics of a panel: intervals, changes, and what a calibrated model has.

Means over rows and rankings have percentile intervals of the bootstrap, calibration errors those of
`error_intervals`. Beside a calibration error stands its range under perfect calibration: labels are
redrawn from the probabilities, cell by cell.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.metrics.bag_sums import Cells, ClassBags, ConfidenceBags, MeanBags
from calibcli.metrics.base import Metric, Statistic
from calibcli.metrics.binned import BINS, ReliabilityBins
from calibcli.metrics.class_wise import ClassWiseExcess, ThresholdedExcess
from calibcli.metrics.confidence import CollectedScores
from calibcli.metrics.diagrams import PredictedClasses
from calibcli.metrics.error_intervals import ErrorSample, blocks_of, change_interval
from calibcli.metrics.resampling import (
    LEVEL,
    Interval,
    MeanSample,
    Units,
    draws,
    percentiles,
    tail_share,
)
from calibcli.metrics.residual_norms import (
    ConfidenceCells,
    Residuals,
    absolute_residuals,
    confidence_residuals,
    thresholded_residuals,
)
from calibcli.metrics.row_mean import RowMean
from calibcli.metrics.shrinkage import pooled, shrunken, smoothed

Replicates: TypeAlias = ErrorSample | MeanSample | NumpyArray
"""A calibration error and its noise, a mean, or the values (R,) of another metric."""

Finished: TypeAlias = tuple[Mapping[Statistic, Any], Mapping[str, float]]
"""One model's finished statistics, and its metrics by name."""

_MEAN_REPLICATES, _ERROR_REPLICATES = 2000, 600
"""At least so many of means and of errors of the confidence, which cost little."""

_DEBIASED = ("l2_debiased", "l2_squared_debiased")

_OTHER_STREAM = 1 << 64
"""Added to the seed, so that labels are drawn apart from bags."""


_WITHOUT_INTERVAL = ("corp_top_miscalibration",)
"""No bootstrap is right for the distance from an isotonic fit, which has no normal limit."""


class Chance(NamedTuple):
    """An error of a perfectly calibrated model with these probabilities: mean, and 95 % range."""

    mean: float
    low: float
    high: float


class Uncertainty(NamedTuple):
    """By metric, as far as it has them: intervals, intervals of changes, and what chance gives."""

    intervals: dict[str, Interval]
    changes: dict[str, Interval]
    chances: dict[str, Chance]


@dataclass(frozen=True)
class Resampling:
    """Which statistics the intervals of some metrics need, and how they are made of them.

    Parameters
    ----------
    metrics : sequence of Metric
    units : Units
    replicates : int
    """

    metrics: Sequence[Metric]
    units: Units
    replicates: int

    @cached_property
    def sources(self) -> dict[str, Statistic]:
        """The statistic behind each metric's interval; a metric without one has no interval."""
        means = tuple(
            dict.fromkeys(m.statistic for m in self.metrics if isinstance(m.statistic, RowMean))
        )
        lattice = any(isinstance(m.statistic, CollectedScores) for m in self.metrics)
        confidence = ConfidenceBags(self.units) if lattice else ConfidenceBags(self.units, 2)
        of_kind: dict[type, Statistic] = {
            RowMean: MeanBags(self.units, means),
            ReliabilityBins: confidence,
            CollectedScores: confidence,
            ClassWiseExcess: ClassBags(self.units, "all"),
            ThresholdedExcess: ClassBags(self.units, "thresholded"),
            PredictedClasses: ClassBags(self.units, "predicted"),
        }
        kinds = {m.name: of_kind.get(type(m.statistic)) for m in self.metrics}
        return {name: kind for name, kind in kinds.items() if kind is not None}

    @property
    def statistics(self) -> tuple[Statistic, ...]:
        """All of them."""
        return tuple(dict.fromkeys(self.sources.values()))

    def judge(self, models: Sequence[Finished]) -> list[Uncertainty]:
        """The intervals of several models of the same rows, and of changes from the first.

        Metric by metric, since the replicates of many classes are large.

        Parameters
        ----------
        models : sequence of (mapping, mapping)
            Of each the finished `statistics`, and the values of the metrics by name.
        """
        samples = [_Sample(self, finished, values) for finished, values in models]
        judged = [Uncertainty({}, {}, {}) for _ in models]
        for metric in self.metrics:
            before: Replicates | None = None
            for place, (sample, found) in enumerate(zip(samples, judged, strict=True)):
                chance = sample.chance(metric)
                if chance is not None:
                    found.chances[metric.name] = chance
                made = sample.replicates(metric)
                if made is None:
                    continue
                value, tail = sample.values[metric.name], sample.tail(metric)
                found.intervals[metric.name] = _interval(metric, made, value, tail).around(value)
                if place == 0:
                    before = made
                elif before is not None:
                    change = value - samples[0].values[metric.name]
                    found.changes[metric.name] = _change(before, made, tail).around(change)
        return judged


def _interval(metric: Metric, made: Replicates, value: float, tail: float) -> Interval:
    if isinstance(made, ErrorSample):
        return made.interval
    if isinstance(made, MeanSample):
        return made.interval(tail)
    if metric.name.endswith("_discrimination"):
        return _reflected(percentiles(made, tail), value)
    return percentiles(made, tail)


def _change(before: Replicates, after: Replicates, tail: float) -> Interval:
    if isinstance(before, ErrorSample) and isinstance(after, ErrorSample):
        return change_interval(before, after)
    if isinstance(before, MeanSample) and isinstance(after, MeanSample):
        return after.minus(before).interval(tail)
    assert isinstance(before, np.ndarray)
    assert isinstance(after, np.ndarray)
    return percentiles(after - before, tail)


@dataclass(frozen=True)
class _Sample:
    """One model's metrics in all replicates.

    What several metrics need of the confidence is kept; a statistic by class serves one metric.
    """

    resampling: Resampling
    finished: Mapping[Statistic, Any]
    values: Mapping[str, float]
    _kept: dict[Any, Any] = field(default_factory=dict, repr=False)

    def replicates(self, metric: Metric) -> Replicates | None:
        """The metric in all replicates; None where it has no interval."""
        source = self._source(metric)
        if source is None or metric.name in _WITHOUT_INTERVAL:
            return None
        if isinstance(source, MeanBags):
            return self._mean(metric, source)
        if _is_error(metric):
            return self._error(metric, source)
        cells = self.finished[source]
        drawn = self._drawn(source)[: self.resampling.replicates]
        used = self._draws(source)[: self.resampling.replicates]
        mass = self._once(("mass", source), lambda: used @ cells.mass)
        geometry = self._geometry(source)
        curves = (geometry.curve(x, w) for x, w in zip(drawn, mass, strict=True))
        return np.array([metric.value(curve) for curve in curves])

    def chance(self, metric: Metric) -> Chance | None:
        """What a plug-in calibration error would be of a calibrated model."""
        source = self._source(metric)
        if source is None or not _is_error(metric) or metric.name in _DEBIASED:
            return None
        reading = self._reading(metric, self._chance_of_sum(self.finished[source]))
        blocks = (reading.norm(reading.linear(each)) for each in self._redrawn(source))
        errors = np.concatenate(list(blocks))
        low, high = percentiles(errors, (1 - LEVEL) / 2)
        return Chance(float(errors.mean()), low, high)

    def tail(self, metric: Metric) -> float:
        """The share of replicates to leave out at each end."""
        bags = self._bags(self.resampling.sources[metric.name])
        return tail_share(int(np.count_nonzero(bags > 0)))

    def _source(self, metric: Metric) -> Statistic | None:
        """The statistic behind the metric's interval, if anything can be said."""
        source = self.resampling.sources.get(metric.name)
        if source is None or self.finished[source] is None:
            return None
        enough = np.count_nonzero(self._bags(source) > 0) > 1
        return source if enough and math.isfinite(self.values[metric.name]) else None

    def _bags(self, source: Statistic) -> NumpyArray:
        finished = self.finished[source]
        bags: NumpyArray = finished[0] if isinstance(source, MeanBags) else finished.bags
        return bags

    def _draws(self, source: Statistic) -> NumpyArray:
        least = 0
        if isinstance(source, MeanBags):
            least = _MEAN_REPLICATES
        elif isinstance(source, ConfidenceBags):
            least = _ERROR_REPLICATES
        replicates = max(self.resampling.replicates, least)
        counts: NumpyArray = self._once(
            ("draws", source),
            lambda: draws(self._bags(source), replicates, self.resampling.units.seed),
        )
        return counts

    def _drawn(self, source: Statistic) -> NumpyArray:
        """Residuals (R, m) of the replicates."""
        cells: Cells = self.finished[source]
        if isinstance(source, ClassBags):
            return self._draws(source) @ cells.excess
        drawn: NumpyArray = self._once(
            ("drawn", source), lambda: self._draws(source) @ cells.excess
        )
        return drawn

    def _mean(self, metric: Metric, source: MeanBags) -> MeanSample:
        assert isinstance(metric.statistic, RowMean)
        weight, sums = self.finished[source][[0, 1 + source.means.index(metric.statistic)]]
        means = self._draws(source) @ sums / weight.sum()
        influence = sums - weight * sums.sum() / weight.sum()
        return MeanSample(np.array([metric.value(mean) for mean in means]), influence)

    def _error(self, metric: Metric, source: Statistic) -> ErrorSample:
        reading = self._reading(metric, self.values[metric.name])
        drawn = self._drawn(source)
        found = self.finished[source].excess.sum(axis=0)
        read = reading.linear(np.vstack((found, self._signals(source, found, drawn))))
        sums, signals = read[0], read[1:]
        noise = reading.linear(drawn[: self.resampling.replicates] if reading.slow else drawn)
        noise = np.subtract(noise, sums, out=noise if isinstance(source, ClassBags) else None)
        return ErrorSample(reading.norm, sums, signals, noise, self.tail(metric))

    def _signals(self, source: Statistic, found: NumpyArray, drawn: NumpyArray) -> NumpyArray:
        """What the residuals (m,) of the cells may be without noise: (S, m).

        Much as they were found, and as if all of them (of a bin) were off by the same.
        """
        cells: Cells = self.finished[source]
        if isinstance(source, ClassBags):
            alike = pooled(found, cells.weight, cells.codes % BINS)
            return np.stack((alike + shrunken(found - alike, drawn.var(axis=0)), alike))

        def shapes() -> NumpyArray:
            alike = math.copysign(1.0, found.sum()) * cells.weight
            return np.stack((smoothed(found, drawn - found, cells.weight), alike))

        signals: NumpyArray = self._once(("signals", source), shapes)
        return signals

    def _geometry(self, source: Statistic) -> ConfidenceCells:
        cells: Cells = self.finished[source]
        assert isinstance(source, ConfidenceBags)
        confidence = cells.probability / cells.weight
        return ConfidenceCells(confidence, cells.weight, source.bins_of(cells.codes))

    def _chance_of_sum(self, cells: Cells) -> float:
        """How far the mean confidence of a calibrated model is off, by chance alone."""
        mean = np.clip(cells.probability / cells.weight, 0.0, 1.0)
        variance = float((cells.squared_weight * mean * (1 - mean)).sum())
        return math.sqrt(variance) / float(cells.weight.sum())

    def _reading(self, metric: Metric, smallest: float) -> Residuals:
        source = self.resampling.sources[metric.name]
        cells: Cells = self.finished[source]
        if isinstance(source, ConfidenceBags):
            return confidence_residuals(metric, self._geometry(source), smallest)
        assert isinstance(source, ClassBags)
        if source.forecasts == "thresholded":
            return thresholded_residuals(cells.codes // BINS, cells.weight)
        classes = cells.size // BINS if source.forecasts == "all" else 1
        return absolute_residuals(cells.bags.sum() * classes)

    def _redrawn(self, source: Statistic) -> Iterable[NumpyArray]:
        """Residuals (R, m) of labels that are drawn from the probabilities, in blocks."""
        mirrored = isinstance(source, ClassBags) and source.forecasts != "predicted"
        replicates, seed = self.resampling.replicates, self.resampling.units.seed
        blocks = redraw(self.finished[source], replicates, seed, mirrored=mirrored)
        if isinstance(source, ClassBags):
            return blocks
        kept: list[NumpyArray] = self._once(("redrawn", source), lambda: list(blocks))
        return kept

    def _once(self, key: Any, make: Callable[[], Any]) -> Any:
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]


def _is_error(metric: Metric) -> bool:
    return metric.group == "calibration errors" or metric.name.endswith("_miscalibration")


def _reflected(interval: Interval, value: float) -> Interval:
    """The basic bootstrap's interval: isotonic fits to resampled rows find more than there is."""
    return Interval(max(2 * value - interval.high, 0.0), 2 * value - interval.low)


def redraw(cells: Cells, replicates: int, seed: int, *, mirrored: bool) -> Iterator[NumpyArray]:
    """Residuals (r, m) of cells whose labels are drawn anew, as many as there are rows; in blocks.

    Rows with weights are taken for fewer rows of the same weight, the effective number of them.
    Where the cells are ``mirrored``, those of two classes are one the mirror image of the other.
    """
    generator = np.random.Generator(np.random.Philox(key=seed + _OTHER_STREAM))
    rows = np.maximum(np.rint(cells.weight**2 / cells.squared_weight), 1).astype(np.int64)
    mean = np.clip(cells.probability / cells.weight, 0.0, 1.0)
    scale = cells.weight / rows
    if mirrored and cells.size == 2 * BINS:
        scale = scale * np.where(cells.codes < BINS, 0.0, 2.0)
    for block in blocks_of(replicates, len(rows)):
        drawn = generator.binomial(rows, mean, (block.stop - block.start, len(rows)))
        yield scale * (rows * mean - drawn)
