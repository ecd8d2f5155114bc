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
from functools import cached_property
from typing import ClassVar, NamedTuple

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.metrics.base import Metric
from calibcli.metrics.bins import BINS, EDGES, Reliability, bin_index
from calibcli.metrics.confidence import ConfidenceCurve, cumulated_curve
from calibcli.metrics.error_intervals import ErrorSample, Pairing, smoothed
from calibcli.metrics.lattice import CellSums, lattice_cells
from calibcli.metrics.pairing import MOST_VALUES, Recorded, change_by_spread
from calibcli.metrics.resampling import (
    Bagged,
    Chance,
    Interval,
    Units,
    percentiles,
    student_quantile,
)
from calibcli.metrics.residual_cells import ResidualCells, Residuals, unchanged
from calibcli.metrics.view import View

LATTICE = 1 << 11
"""Cells of the lattice of confidences: 1e-3 wide at 1/2, and ever finer towards 1."""

SIZE = LATTICE + BINS - 1
"""Cells in all: a bin's edge inside a cell of the lattice divides it."""

_REPLICATES = 600
"""At least so many of errors of the confidence, which cost little."""


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
    apart : (array (B, SIZE), array (B, SIZE)) or None
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
    def rarer_rows(self) -> float:
        """The number of rows, or of clusters if those are fewer, with the rarer outcome.

        Rows with weights count as so many as have as much noise.
        """
        right = float((self.probability - self.residuals).sum()) / self.total
        effective = self.total**2 / float(self.squared_weight.sum())
        return min(effective * min(right, 1 - right), float(self.filled))

    @cached_property
    def drawn(self) -> NumpyArray:
        """Residuals (R, m) of the replicates."""
        drawn: NumpyArray = self.draws(_REPLICATES) @ self.excess
        return drawn

    @cached_property
    def signals(self) -> NumpyArray:
        """What the residuals may be without noise (2, m).

        Much as they are in the rows, and as if all confidences were off by the same.
        """
        alike = math.copysign(1.0, self.residuals.sum()) * self.weight
        noise = self.drawn - self.residuals
        return np.stack((smoothed(self.residuals, noise, self.weight), alike))

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
        """That of the sums of the 15 equal-width bins."""
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

    The edges of the 15 equal-width bins are edges of cells too. Memory: 16 bytes for each bag and
    cell. ``merge`` takes over its left argument.

    Parameters
    ----------
    units : Units
    top : bool
        As of `CollectedScores`.
    """

    units: Units
    top: bool = False

    def partial(self, view: View) -> ConfidenceState:
        confidence, correct = view.forecast(top=self.top)
        cells = self.cells_of(confidence)
        codes = self.units.bags_of(view) * SIZE + cells
        weights = view.weights
        residuals = weights * (confidence - correct)
        summed = (weights, weights**2, weights * confidence)
        totals = np.stack([np.bincount(cells, v, minlength=SIZE) for v in summed])
        size = self.units.bags() * SIZE
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
        starts, size = self.units.bags_of(view) * SIZE, self.units.bags() * SIZE
        return (
            CellSums.of(starts + cells, view.weights * more, size),
            CellSums.of(starts + self.cells_of(confidence_there), view.weights * more_there, size),
        )

    def cells_of(self, confidence: NumpyArray) -> NumpyArray:
        """The cell of each confidence (n,), ascending."""
        # Both grow with the confidence, so their sum does whenever one of them does.
        cells: NumpyArray = lattice_cells(confidence, LATTICE) + np.maximum(
            bin_index(confidence), 0
        )
        return cells

    def bins_of(self, codes: NumpyArray) -> NumpyArray:
        """The bin (m,) that each cell lies in."""
        bins: NumpyArray = np.searchsorted(self.cells_of(EDGES[1:-1]), codes, side="left")
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
        return ErrorSample(
            residuals.norm, read[0], read[1:], noise, cells.tail, calibrated, pairing
        )

    def chance(self, metric: Metric, cells: ConfidenceCells) -> Chance | None:
        """The error of labels that are drawn from the confidences."""
        return cells.chance(self.residuals(cells, cells.chance_of_sum))


@dataclass(frozen=True)
class BinNorm(ConfidenceNorm):
    """A norm of the residuals of the 15 equal-width bins: ``ece.py`` has examples.

    Attributes
    ----------
    norm : callable
        Sums by bin of weight x (confidence - correct) (..., b) and of weight (b,) -> errors (...).
        A bin without rows has a weight of 0. A function of a module.
    """

    norm: Callable[[NumpyArray, NumpyArray], NumpyArray]

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
    rarer : float or None
        Of a value that is a probability, the number of rows with the rarer outcome.
    """

    value: float
    values: NumpyArray
    tail: float
    reflected: bool
    rarer: float | None = None
    estimate: ClassVar[None] = None

    @property
    def interval(self) -> Interval:
        """The percentiles, reflected at the value where that is right (the basic bootstrap).

        Of a probability, Student's interval of its log-odds, in standard deviations of those of the
        replicates: near 1, and from few rows that came out the rarer way, percentiles are too
        narrow and hardly skewed enough.
        """
        if self.rarer is not None and 0 < self.value < 1 and self.rarer > 1:
            middle, nearest = _log_odds(self.value), float(_NEAREST_TO_CERTAIN)
            deviation = float(_log_odds(np.clip(self.values, nearest, 1 - nearest)).std())
            half = student_quantile(self.rarer - 1) * deviation
            low, high = 1 / (1 + np.exp(-middle + np.array([half, -half])))
            return Interval(float(low), float(high))
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
    probability : bool
        Whether the value is one: that a row of one outcome is ahead of one of the other.

    References
    ----------
    Pepe (2003), The Statistical Evaluation of Medical Tests, section 5.2.5, and Qin and Hotilovac
    (2008), doi:10.1177/0962280207087173, on intervals of log-odds for areas under ROC curves.
    """

    reflected: bool = False
    top: bool = False
    probability: bool = False

    @property
    def description(self) -> str:
        """In words, what the interval is."""
        return "Student's of log-odds" if self.probability else "percentiles of the bootstrap"

    def statistic(self, metric: Metric, units: Units) -> ConfidenceBags:
        """The weights and residuals by bag and cell."""
        return ConfidenceBags(units, self.top)

    def sample(self, metric: Metric, cells: ConfidenceCells, value: float) -> ValueSample:
        """The metric of each replicate's curve."""
        values = np.array([metric.value(curve) for curve in cells.curves])
        rarer = cells.rarer_rows if self.probability else None
        return ValueSample(value, values, cells.tail, self.reflected, rarer)

    def chance(self, metric: Metric, cells: ConfidenceCells) -> None:
        """Nothing: it is no calibration error."""
        return

    def record(self, finished: ConfidenceCells, sample: ValueSample) -> NumpyArray:
        """The values in resamples."""
        return sample.values[:MOST_VALUES]

    def change(self, metric: Metric, now: Recorded, then: Recorded, bagged: Bagged) -> Interval:
        """The percentiles of the differences, resample by resample."""
        return percentiles(now.numbers - then.numbers, bagged.tail)


_NEAREST_TO_CERTAIN = 1e-6


def _log_odds(share: NumpyArray | float) -> NumpyArray:
    """The logarithm of shares (...) over the rest."""
    odds: NumpyArray = np.log(share) - np.log1p(-np.asarray(share))
    return odds


def cumulated(residuals: NumpyArray) -> NumpyArray:
    """Sums (R, m) of residuals (R, m) up to each cell."""
    return np.cumsum(residuals, axis=1)
