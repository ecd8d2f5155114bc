"""What chance makes of what is read off the confidence: its folds, and the kinds of resampling.

By cell of a lattice and by bag, residuals and weights are summed; everything else follows from the
sums. `BinNorm`, `CumulatedNorm` and `ResidualNorm` are for calibration errors, norms of residuals
whose interval inverts a test (`error_intervals`); `CurveValue` for any other value of the curve;
`CurveDistance` for what has a chance range and no interval.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.cached import cached_property
from calibcli.cell_sums import CellSums
from calibcli.metrics.base import Metric
from calibcli.metrics.bins import BINS, Reliability, bin_index, edges_of
from calibcli.metrics.confidence import ConfidenceCurve, cumulated_curve
from calibcli.metrics.error_intervals import ErrorSample, Pairing, smoothed
from calibcli.metrics.lattice import lattice_cells
from calibcli.metrics.pairing import MOST_VALUES, Recorded, change_by_spread
from calibcli.metrics.resampling import Bagged, Chance, Interval, Units, percentiles
from calibcli.metrics.residual_cells import ResidualCells, Residuals, unchanged
from calibcli.metrics.view import View

LATTICE = 1 << 11
"""Cells of the lattice of confidences: 1e-3 wide at 1/2, and ever finer towards 1. A bin's edge
inside of one divides it."""

_REPLICATES = 600
"""At least so many of errors of the confidence, which cost little."""

_NORMAL_DEVIATIONS = 1.959963984540054
"""Half the width of a 95 % interval, in standard deviations."""

_PRIOR_ROWS = 5
"""So many rows of the rarer outcome say as much of an area's variance as the formula for it."""

_HALVINGS = 50
"""Of an interval that an end lies in, after which nothing is left of it."""


@dataclass(frozen=True)
class ConfidenceCells(ResidualCells):
    """The rows by cell of the confidence, ascending, and all that metrics share of the replicates.

    Attributes
    ----------
    mass : array (B, m)
        Sums of weight by bag.
    bins : int array (m,)
        The equal-width bin of each cell.
    rows : int
    codes : int array (m,)
        The number of each cell among all that there may be.
    apart : (array (B, cells), array (B, cells)) or None
        As of `ConfidenceState`, by bag.
    """

    mass: NumpyArray
    bins: NumpyArray
    rows: int
    codes: NumpyArray
    apart: tuple[NumpyArray, NumpyArray] | None = None

    @cached_property
    def confidence(self) -> NumpyArray:
        """Mean confidence of the cells (m,)."""
        return self.probability / self.weight

    @property
    def outcomes(self) -> tuple[float, float]:
        """The numbers of rows that are right and that are wrong.

        Rows with weights count as so many as have as much noise.
        """
        right = float((self.probability - self.residuals).sum()) / self.total
        effective = self.total**2 / float(self.squared_weight.sum())
        return effective * right, effective * (1 - right)

    @cached_property
    def drawn(self) -> NumpyArray:
        """Residuals (R, m) of the replicates."""
        drawn: NumpyArray = self.draws(_REPLICATES) @ self.excess
        return drawn

    @cached_property
    def signals(self) -> NumpyArray:
        """What the residuals may be without noise (3, m).

        Much as they are in the rows, as if the log-odds of all confidences were off by the same
        (little), and as if the confidences themselves were. Where an event is rare the second is
        the likelier, and most of it is in the few rows that have most of the noise.
        """
        alike = math.copysign(1.0, self.residuals.sum()) * self.weight
        noise = self.drawn - self.residuals
        by_odds = alike * self.mean * (1 - self.mean)
        most = float(np.abs(by_odds).sum())
        if most > 0:
            by_odds *= self.total / most
        return np.stack((smoothed(self.residuals, noise, self.weight), by_odds, alike))

    @cached_property
    def curves(self) -> list[ConfidenceCurve]:
        """The curve of each replicate."""
        replicates = self.units.replicates
        mass = self.draws(_REPLICATES)[:replicates] @ self.mass
        return [self.curve(*pair) for pair in zip(self.drawn[:replicates], mass, strict=True)]

    def errors_by_chance(self, residuals: Residuals) -> NumpyArray:
        """Errors (r,) of labels that are drawn from the confidences.

        The labels of a cluster go together. How much so is taken from the bootstrap: the sums that
        matter vary more by the same factor, the design effect, or not at all.
        """
        sums = [residuals.linear(block) for block in self.redrawn()]
        factor = math.sqrt(self._design_effect(residuals.linear, sums))
        return np.concatenate([residuals.norm(block * factor) for block in sums])

    @cached_property
    def design_effect(self) -> float:
        """That of the sums of the equal-width bins."""
        starts = np.flatnonzero(np.diff(self.bins, prepend=-1))

        def linear(residuals: NumpyArray) -> NumpyArray:
            sums: NumpyArray = np.add.reduceat(residuals, starts, axis=1)
            return sums

        if self.units.role is None:
            return 1.0
        return self._design_effect(linear, [linear(block) for block in self.redrawn()])

    def _design_effect(
        self, linear: Callable[[NumpyArray], NumpyArray], by_chance: list[NumpyArray]
    ) -> float:
        if self.units.role is None or self.units.count >= self.rows:
            return 1.0
        by_cluster = float(linear(self.drawn).var(axis=0).sum())
        by_row = float(np.concatenate(by_chance).var(axis=0).sum())
        return max(by_cluster / by_row, 1.0) if by_row > 0 else 1.0

    def redrawn(self) -> list[NumpyArray]:
        """Residuals (r, m) of labels drawn from the confidences, once for all metrics."""
        return self._redrawn_once

    def curve(self, excess: NumpyArray, weight: NumpyArray | None = None) -> ConfidenceCurve:
        """The curve of residuals (m,) of the cells; of other weights (m,) where given."""
        weight = self.weight if weight is None else weight
        right = self.confidence * weight - excess
        return cumulated_curve(self.confidence, np.cumsum(weight), np.cumsum(right))

    @cached_property
    def _redrawn_once(self) -> list[NumpyArray]:
        return list(self._redrawn())


class ConfidenceState(NamedTuple):
    """The number of rows; sums by cell (3, cells) of weight, its square, and weight x confidence.

    And by bag those of weight and of residuals. ``apart`` is for other models than the first: sums
    by cell of weight x by how much more they give to the class that they predict, and, by the first
    model's cells, of how much more that one gives to its own; by bag and cell.
    """

    rows: int
    totals: NumpyArray
    mass: CellSums
    excess: CellSums
    apart: tuple[CellSums, CellSums] | None


@dataclass(frozen=True)
class ConfidenceBags:
    """The statistic: by bag, and by cell of the confidence, sums of weight and residuals.

    The edges of the equal-width bins are edges of cells too. Memory: 16 bytes for each bag and
    cell. ``merge`` takes over its left argument.

    Parameters
    ----------
    units : Units
    top : bool
        As of `CollectedScores`.
    bins : int
        Number of the equal-width bins.
    """

    units: Units
    top: bool = False
    bins: int = BINS

    @property
    def size(self) -> int:
        """Cells in all."""
        return LATTICE + self.bins - 1

    def partial(self, view: View) -> ConfidenceState:
        confidence, correct = view.forecast(top=self.top)
        cells = self.cells_of(confidence)
        codes = self.units.bags_of(view) * self.size + cells
        weights = view.weights
        residuals = weights * (confidence - correct)
        summed = (weights, weights**2, weights * confidence)
        totals = np.stack([np.bincount(cells, v, minlength=self.size) for v in summed])
        size = self.units.bags() * self.size
        mass = CellSums.of(codes, weights if view.weighted else None, size)
        excess = CellSums.of(codes, residuals, size)
        return ConfidenceState(len(view), totals, mass, excess, self._apart(view, cells))

    def _apart(self, view: View, cells: NumpyArray) -> tuple[CellSums, CellSums] | None:
        first = view.first
        if first is None:
            return None
        confidence, _ = view.forecast(top=self.top)
        confidence_there, _ = first.forecast(top=self.top)
        more = confidence - first.probability_of(view.forecast_class(top=self.top))
        more_there = confidence_there - view.probability_of(first.forecast_class(top=self.top))
        starts, size = self.units.bags_of(view) * self.size, self.units.bags() * self.size
        return (
            CellSums.of(starts + cells, view.weights * more, size),
            CellSums.of(starts + self.cells_of(confidence_there), view.weights * more_there, size),
        )

    def cells_of(self, confidence: NumpyArray) -> NumpyArray:
        """The cell of each confidence (n,), ascending."""
        # Both grow with the confidence, so their sum does whenever one of them does.
        cells: NumpyArray = lattice_cells(confidence, LATTICE) + np.maximum(
            bin_index(confidence, self.bins), 0
        )
        return cells

    def bins_of(self, codes: NumpyArray) -> NumpyArray:
        """The bin (m,) that each cell lies in."""
        bins: NumpyArray = np.searchsorted(
            self.cells_of(edges_of(self.bins)[1:-1]), codes, side="left"
        )
        return bins

    def merge(self, left: ConfidenceState, right: ConfidenceState) -> ConfidenceState:
        return ConfidenceState(
            left.rows + right.rows,
            left.totals + right.totals,
            left.mass.plus(right.mass),
            left.excess.plus(right.excess),
            None
            if left.apart is None or right.apart is None
            else (left.apart[0].plus(right.apart[0]), left.apart[1].plus(right.apart[1])),
        )

    def finish(self, state: ConfidenceState) -> ConfidenceCells:
        """The sums of the cells that are not empty."""
        (codes,) = np.nonzero(state.totals[0] > 0)
        bags = self.units.bags()
        mass = state.mass.everywhere().reshape(bags, -1)
        excess = state.excess.everywhere().reshape(bags, -1)
        weight, squares, confidence = state.totals[:, codes]
        return ConfidenceCells(
            units=self.units,
            bags=mass.sum(axis=1),
            weight=weight,
            squared_weight=squares,
            probability=confidence,
            excess=excess[:, codes],
            mass=mass[:, codes],
            bins=self.bins_of(codes),
            rows=state.rows,
            codes=codes,
            apart=None
            if state.apart is None
            else (
                state.apart[0].everywhere().reshape(bags, -1),
                state.apart[1].everywhere().reshape(bags, -1),
            ),
        )


class _ConfidenceResampling:
    """What every resampling of an error of the confidence has: the residuals, by bag and cell."""

    top: bool = False
    """Whether the confidence is that of the predicted class, whatever the event of the view."""

    def statistic(self, metric: Metric, units: Units) -> ConfidenceBags:
        """The residuals by bag and cell."""
        return ConfidenceBags(units, self.top)

    def record(self, finished: ConfidenceCells, sample: ErrorSample) -> NumpyArray:
        """The errors in resamples, if the likeliest signal is the truth."""
        return sample.simulated[:MOST_VALUES]

    def change(self, metric: Metric, now: Recorded, then: Recorded, bagged: Bagged) -> Interval:
        """The interval of the difference of two errors, by those in the same resamples."""
        return change_by_spread(now, then)


class ConfidenceNorm(_ConfidenceResampling, ABC):
    """The resampling of a calibration error that is a norm of residuals of the confidence."""

    description = "inverted test of the error; chance range by labels drawn anew"

    @abstractmethod
    def residuals(self, cells: ConfidenceCells, smallest: float) -> Residuals:
        """How the metric reads the residuals of the cells.

        Errors far below the ``smallest`` that is of interest may come out wrong, as long as they
        do not come out larger.
        """

    def sample(self, metric: Metric, cells: ConfidenceCells, value: float) -> ErrorSample | None:
        """The error, and the noise of the bootstrap."""
        residuals = self.residuals(cells, value)
        read = residuals.linear(np.vstack((cells.residuals, cells.signals)))
        drawn = cells.drawn[: cells.units.replicates] if residuals.slow else cells.drawn
        noise = residuals.linear(drawn) - read[0]
        calibrated = cells.errors_by_chance(residuals)
        apart = None
        if cells.apart is not None:
            takes = cells.draws()
            apart = takes @ cells.apart[0], takes @ cells.apart[1]
        pairing = Pairing(lambda sums: residuals.linear(sums[:, cells.codes]), apart)
        unseen = float(residuals.norm(cells.unseen_share * read[-1:])[0])
        return ErrorSample(
            residuals.norm, read[0], read[1:], noise, cells.tail, calibrated, pairing, unseen
        )

    def chance(self, metric: Metric, cells: ConfidenceCells) -> Chance | None:
        """The error of labels that are drawn from the confidences."""
        return cells.chance(self.residuals(cells, cells.chance_of_sum))


@dataclass(frozen=True)
class BinNorm(ConfidenceNorm):
    """A norm of the residuals of equal-width bins: ``ece.py`` has examples.

    Attributes
    ----------
    norm : callable
        Sums by bin of weight x (confidence - correct) (..., b) and of weight (b,) -> errors (...).
        A bin without rows has a weight of 0. A function of a module.
    bins : int
        Their number.
    """

    norm: Callable[[NumpyArray, NumpyArray], NumpyArray]
    bins: int = BINS

    def statistic(self, metric: Metric, units: Units) -> ConfidenceBags:
        """The residuals by bag and cell, which the edges of the bins divide."""
        return ConfidenceBags(units, self.top, self.bins)

    def value(self, bins: Reliability) -> float:
        """The error of the rows; NaN without rows."""
        return float(self.norm(bins.excess, bins.weight)) if bins.weight.any() else math.nan

    def of_bins(self, weight: NumpyArray) -> Callable[[NumpyArray], NumpyArray]:
        """The errors (R,) of residuals (R, b) of bins with these weights (b,)."""
        return lambda sums: self.norm(sums, weight)

    def residuals(self, cells: ConfidenceCells, smallest: float) -> Residuals:
        """Sums within the bins, and their norm."""
        starts = np.flatnonzero(np.diff(cells.bins, prepend=-1))
        weight = np.add.reduceat(cells.weight, starts)
        return Residuals(lambda r: np.add.reduceat(r, starts, axis=1), self.of_bins(weight))


@dataclass(frozen=True)
class CumulatedNorm(ConfidenceNorm):
    """A norm of the curve of cumulated residuals.

    Attributes
    ----------
    norm : callable
        Cumulated weight x (confidence - correct) (..., m) and the weight of all rows -> errors
        (...). A function of a module.
    """

    norm: Callable[[NumpyArray, float], NumpyArray]

    def value(self, curve: ConfidenceCurve) -> float:
        """The error of the rows; NaN without rows."""
        return float(self.norm(curve.excess, curve.total)) if curve.total else math.nan

    def residuals(self, cells: ConfidenceCells, smallest: float) -> Residuals:
        """Sums up to each cell, and their norm."""
        return Residuals(cumulated, lambda sums: self.norm(sums, cells.total))


@dataclass(frozen=True)
class ResidualNorm(ConfidenceNorm):
    """Any other norm of residuals.

    Attributes
    ----------
    read : callable
        As `ConfidenceNorm.residuals`; a function of a module.
    debiased : bool
        Whether chance adds nothing to the error on average, so that it needs no chance range.
    """

    read: Callable[[ConfidenceCells, float], Residuals]
    debiased: bool = False

    def residuals(self, cells: ConfidenceCells, smallest: float) -> Residuals:
        """The reading that `read` makes."""
        return self.read(cells, smallest)

    def chance(self, metric: Metric, cells: ConfidenceCells) -> Chance | None:
        """The error of labels that are drawn from the confidences; None of a debiased one."""
        return None if self.debiased else super().chance(metric, cells)


@dataclass(frozen=True)
class CurveDistance(_ConfidenceResampling):
    """A distance of the confidence curve from a fit to it: a chance range, and no interval.

    Such a distance has no normal limit, and no bootstrap is right for it.

    Attributes
    ----------
    top : bool
        As of `CollectedScores`.
    """

    top: bool = False

    description = "no interval; chance range by labels drawn anew"

    def sample(self, metric: Metric, cells: ConfidenceCells, value: float) -> None:
        """None: there is no interval, but a chance range."""
        return

    def chance(self, metric: Metric, cells: ConfidenceCells) -> Chance:
        """The metric of labels that are drawn from the confidences."""

        def norm(residuals: NumpyArray) -> NumpyArray:
            return np.array([metric.value(cells.curve(each)) for each in residuals])

        return cells.chance(Residuals(unchanged, norm))


@dataclass(frozen=True)
class ValueSample:
    """A value of one model, and of its replicates (R,).

    Attributes
    ----------
    value : float
    values : array (R,)
    tail : float
        Share of the replicates to leave out at each end.
    reflected : bool
        As of `CurveValue`.
    outcomes : (float, float) or None
        Of an area under the ROC curve, the numbers of rows with either outcome.
    deviations : float
        Of such an area, the half width of an interval in standard deviations.
    """

    value: float
    values: NumpyArray
    tail: float
    reflected: bool
    outcomes: tuple[float, float] | None = None
    deviations: float = _NORMAL_DEVIATIONS
    estimate: ClassVar[None] = None

    @property
    def interval(self) -> Interval:
        """The percentiles, reflected at the value where that is right (the basic bootstrap).

        Of an area under the ROC curve see `area_interval`.
        """
        if self.outcomes is not None and min(self.outcomes) > 0:
            variance = float(np.nanvar(self.values))
            return area_interval(self.value, variance, self.outcomes, self.deviations)
        low, high = percentiles(self.values, self.tail)
        if self.reflected:
            return Interval(max(2 * self.value - high, 0.0), 2 * self.value - low)
        return Interval(low, high)

    def change_from(self, before: ValueSample) -> Interval:
        """The percentiles of the differences, replicate by replicate."""
        return percentiles(self.values - before.values, self.tail)


@dataclass(frozen=True)
class CurveValue:
    """The resampling of any value of the confidence curve: percentiles of the bootstrap.

    Attributes
    ----------
    reflected : bool
        Whether resampled rows give more than there is, as isotonic fits to them do.
    top : bool
        As of `CollectedScores`.
    area : bool
        Whether the value is an area under the ROC curve.
    """

    reflected: bool = False
    top: bool = False
    area: bool = False

    @property
    def description(self) -> str:
        """In words, what the interval is."""
        return "inverted score test of the area" if self.area else "percentiles of the bootstrap"

    def statistic(self, metric: Metric, units: Units) -> ConfidenceBags:
        """The weights and residuals by bag and cell."""
        return ConfidenceBags(units, self.top)

    def sample(self, metric: Metric, cells: ConfidenceCells, value: float) -> ValueSample:
        """The metric of each replicate's curve."""
        values = np.array([metric.value(curve) for curve in cells.curves])
        outcomes = cells.outcomes if self.area else None
        deviations = cells.student or _NORMAL_DEVIATIONS
        return ValueSample(value, values, cells.tail, self.reflected, outcomes, deviations)

    def chance(self, metric: Metric, cells: ConfidenceCells) -> None:
        """Nothing: it is no calibration error."""
        return

    def record(self, finished: ConfidenceCells, sample: ValueSample) -> NumpyArray:
        """The values in resamples."""
        return sample.values[:MOST_VALUES]

    def change(self, metric: Metric, now: Recorded, then: Recorded, bagged: Bagged) -> Interval:
        """The percentiles of the differences, resample by resample."""
        return percentiles(now.numbers - then.numbers, bagged.tail)


def area_interval(
    area: float, variance: float, outcomes: tuple[float, float], deviations: float
) -> Interval:
    """An interval for the area under an ROC curve, by an inverted score test.

    It holds the areas that are so many standard deviations at most from the one that was found, a
    standard deviation being that of the area that is tried: by Hanley and McNeil's formula, times
    how much more or less than by it the area varies in resamples. Hence it stays within 0 and 1,
    and of few rows it is as wide as it should be where the area is near 1: percentiles are too
    narrow there, and log-odds have no end (Newcombe 2006, doi:10.1002/sim.2324, with his method 5).

    Parameters
    ----------
    area : float
        As found.
    variance : float
        Of the area in resamples.
    outcomes : (float, float)
        Numbers of rows with either outcome, above 0.
    deviations : float
        1.96 for a level of 95 %.
    """
    formula = _area_variance(area, outcomes)
    measured, rarer = (variance / formula if formula > 0 else 1.0), min(outcomes)
    # Of few rows resamples say little, and nothing where all areas are 1.
    times = max(measured, (rarer * measured + _PRIOR_ROWS) / (rarer + _PRIOR_ROWS))

    def end(furthest: float) -> float:
        within, beyond = area, furthest
        for _ in range(_HALVINGS):
            middle = (within + beyond) / 2
            near = (middle - area) ** 2 <= deviations**2 * times * _area_variance(middle, outcomes)
            within, beyond = (middle, beyond) if near else (within, middle)
        return within

    return Interval(end(0.0), 1.0 if area == 1 else end(1.0))


def _area_variance(area: float, outcomes: tuple[float, float]) -> float:
    """The variance of an area under an ROC curve (Hanley and McNeil 1982, equation 1)."""
    first, second = area / (2 - area), 2 * area**2 / (1 + area)
    events, others = outcomes
    own = (events - 1) * (first - area**2) + (others - 1) * (second - area**2)
    return max(area * (1 - area) + own, 0.0) / (events * others)


def cumulated(residuals: NumpyArray) -> NumpyArray:
    """Sums (R, m) of residuals (R, m) up to each cell."""
    return np.cumsum(residuals, axis=1)
