"""How far chance moves the metrics of a panel: intervals, changes, and what a calibrated model has.

Means over rows and rankings have percentile intervals of the bootstrap, calibration errors those of
`error_intervals`. Beside a calibration error stands its range under perfect calibration: labels are
redrawn from the probabilities, cell by cell.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from calibcli.metrics.bag_sums import Cells, ClassBags, ConfidenceBags, MeanBags
from calibcli.metrics.base import Metric, Statistic, Vector
from calibcli.metrics.binned import BINS, ReliabilityBins
from calibcli.metrics.class_wise import ClassWiseExcess, ThresholdedExcess
from calibcli.metrics.confidence import CollectedScores
from calibcli.metrics.diagrams import PredictedClasses
from calibcli.metrics.error_intervals import ErrorSample, change_interval
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
from calibcli.metrics.shrinkage import smoothed

Replicates: TypeAlias = ErrorSample | MeanSample | Vector
"""A calibration error and its noise, a mean, or the values (R,) of another metric."""

_MEAN_REPLICATES, _ERROR_REPLICATES = 2000, 600
"""At least so many of means and of errors of the confidence, which cost little."""

_DEBIASED = ("l2_debiased", "l2_squared_debiased")

_OTHER_STREAM = 1 << 64
"""Added to the seed, so that labels are drawn apart from bags."""


class Chance(NamedTuple):
    """An error of a perfectly calibrated model with these probabilities: mean, and 95 % range."""

    mean: float
    low: float
    high: float


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

    def sample(self, finished: Mapping[Statistic, Any], values: Mapping[str, float]) -> Sample:
        """The replicates of one model's metrics, computed where they are asked for."""
        return Sample(self, finished, values)


@dataclass(frozen=True)
class Sample:
    """One model's metrics in all replicates.

    Parameters
    ----------
    resampling : Resampling
    finished : mapping
        The finished statistics of `Resampling.statistics`.
    values : mapping
        The metrics by name.
    """

    resampling: Resampling
    finished: Mapping[Statistic, Any]
    values: Mapping[str, float]
    _kept: dict[Any, Any] = field(default_factory=dict, repr=False)

    def intervals(self) -> dict[str, Interval]:
        """A 95 % interval for each metric that has one."""
        found = {}
        for metric, tail in self._with_intervals():
            replicates = self.replicates(metric)
            value = self.values[metric.name]
            if isinstance(replicates, ErrorSample | MeanSample):
                interval = replicates.interval(tail)
            elif metric.name.endswith("_discrimination"):
                interval = _reflected(percentiles(replicates, tail), value)
            else:
                interval = percentiles(replicates, tail)
            found[metric.name] = interval.around(value)
        return found

    def changes(self, before: Sample) -> dict[str, Interval]:
        """A 95 % interval for each metric's difference from another model's, of the same rows."""
        found = {}
        others = {metric.name for metric, _ in before._with_intervals()}
        for metric, tail in self._with_intervals():
            if metric.name not in others:
                continue
            earlier, later = before.replicates(metric), self.replicates(metric)
            if isinstance(earlier, ErrorSample) and isinstance(later, ErrorSample):
                interval = change_interval(earlier, later, tail)
            elif isinstance(earlier, MeanSample) and isinstance(later, MeanSample):
                interval = later.minus(earlier).interval(tail)
            else:
                assert isinstance(earlier, np.ndarray)
                assert isinstance(later, np.ndarray)
                interval = percentiles(later - earlier, tail)
            change = self.values[metric.name] - before.values[metric.name]
            found[metric.name] = interval.around(change)
        return found

    def chances(self) -> dict[str, Chance]:
        """What each plug-in calibration error would be of a calibrated model."""
        found = {}
        for metric, _ in self._with_intervals():
            if _is_error(metric) and metric.name not in _DEBIASED:
                reading = self._reading(metric)
                errors = reading.norm(reading.linear(self._redrawn(metric)))
                low, high = percentiles(errors, (1 - LEVEL) / 2)
                found[metric.name] = Chance(float(errors.mean()), low, high)
        return found

    def replicates(self, metric: Metric) -> Replicates:
        """The metric in all replicates."""
        made: Replicates
        made = self._once(("replicates", metric.name), lambda: self._replicates(metric))
        return made

    def _with_intervals(self) -> Iterator[tuple[Metric, float]]:
        """The metrics that have intervals, and the share of replicates to leave out at each end."""
        for metric in self.resampling.metrics:
            source = self.resampling.sources.get(metric.name)
            bags = None if source is None else self._bags(source)
            filled = 0 if bags is None else np.count_nonzero(bags > 0)
            if filled > 1 and math.isfinite(self.values[metric.name]):
                yield metric, tail_share(int(filled))

    def _bags(self, source: Statistic) -> Vector | None:
        finished = self.finished[source]
        if isinstance(source, MeanBags):
            weights: Vector = finished[0]
            return weights
        return None if finished is None else finished.bags

    def _draws(self, source: Statistic) -> Vector:
        def drawn() -> Vector:
            bags = self._bags(source)
            assert bags is not None
            replicates = self.resampling.replicates
            if isinstance(source, MeanBags):
                replicates = max(replicates, _MEAN_REPLICATES)
            elif isinstance(source, ConfidenceBags):
                replicates = max(replicates, _ERROR_REPLICATES)
            return draws(bags, replicates, self.resampling.units.seed)

        counts: Vector = self._once(("draws", source), drawn)
        return counts

    def _replicates(self, metric: Metric) -> Replicates:
        source = self.resampling.sources[metric.name]
        if isinstance(source, MeanBags):
            assert isinstance(metric.statistic, RowMean)
            weight, sums = self.finished[source][[0, 1 + source.means.index(metric.statistic)]]
            means = self._draws(source) @ sums / weight.sum()
            influence = sums - weight * sums.sum() / weight.sum()
            return MeanSample(np.array([metric.value(mean) for mean in means]), influence)
        cells = self.finished[source]
        found = cells.excess.sum(axis=0)
        drawn = self._once(("excess", source), lambda: self._draws(source) @ cells.excess)
        if _is_error(metric):
            reading = self._reading(metric)
            signal = found
            if isinstance(source, ConfidenceBags):
                signal = self._once(
                    ("signal", source), lambda: smoothed(found, drawn - found, cells.weight)
                )
            sums, signals = reading.linear(np.stack((found, signal)))
            used = drawn[: self.resampling.replicates] if reading.slow else drawn
            return ErrorSample(reading.norm, sums, signals, reading.linear(used) - sums)
        used = self._draws(source)[: self.resampling.replicates]
        mass = self._once(("mass", source), lambda: used @ cells.mass)
        geometry = self._geometry(source)
        curves = (geometry.curve(x, w) for x, w in zip(drawn, mass, strict=False))
        return np.array([metric.value(curve) for curve in curves])

    def _geometry(self, source: Statistic) -> ConfidenceCells:
        cells: Cells = self.finished[source]
        assert isinstance(source, ConfidenceBags)
        confidence = cells.probability / cells.weight
        return ConfidenceCells(confidence, cells.weight, source.bins_of(cells.codes))

    def _reading(self, metric: Metric) -> Residuals:
        source = self.resampling.sources[metric.name]
        cells: Cells = self.finished[source]
        if isinstance(source, ConfidenceBags):
            return confidence_residuals(metric, self._geometry(source))
        assert isinstance(source, ClassBags)
        if source.forecasts == "thresholded":
            return thresholded_residuals(cells.codes // BINS, cells.weight)
        classes = cells.size // BINS if source.forecasts == "all" else 1
        return absolute_residuals(cells.bags.sum() * classes)

    def _redrawn(self, metric: Metric) -> Vector:
        """Residuals (R, m) of labels that are drawn from the probabilities."""
        source = self.resampling.sources[metric.name]
        cells: Cells = self.finished[source]
        mirrored = isinstance(source, ClassBags) and source.forecasts != "predicted"
        units = self.resampling.units

        def redrawn() -> Vector:
            return redraw(cells, self.resampling.replicates, units.seed, mirrored=mirrored)

        residuals: Vector = self._once(("redrawn", source), redrawn)
        return residuals

    def _once(self, key: Any, make: Callable[[], Any]) -> Any:
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]


def _is_error(metric: Metric) -> bool:
    return metric.group == "calibration errors" or metric.name.endswith("_miscalibration")


def _reflected(interval: Interval, value: float) -> Interval:
    """The basic bootstrap's interval: isotonic fits to resampled rows find more than there is."""
    return Interval(max(2 * value - interval.high, 0.0), 2 * value - interval.low)


def redraw(cells: Cells, replicates: int, seed: int, *, mirrored: bool) -> Vector:
    """Residuals (R, m) of cells whose labels are drawn anew, as many as there are rows.

    Rows with weights are taken for fewer rows of the same weight, the effective number of them.
    Where the cells are ``mirrored``, those of two classes are one the mirror image of the other.
    """
    generator = np.random.Generator(np.random.Philox(key=seed + _OTHER_STREAM))
    rows = np.maximum(np.rint(cells.weight**2 / cells.squared_weight), 1).astype(np.int64)
    mean = np.clip(cells.probability / cells.weight, 0.0, 1.0)
    drawn = generator.binomial(rows, mean, (replicates, len(rows)))
    residuals: Vector = (cells.weight / rows) * (rows * mean - drawn)
    if mirrored and cells.size == 2 * BINS:
        residuals *= np.where(cells.codes < BINS, 0.0, 2.0)
    return residuals
