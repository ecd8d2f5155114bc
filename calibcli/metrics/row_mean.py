"""Means over rows: the statistic behind them, and their bootstrap."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import ClassVar

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.cached import cached_property
from calibcli.metrics.base import Additive, Metric
from calibcli.metrics.pairing import Recorded
from calibcli.metrics.resampling import Bagged, Interval, Units, quantiles, tail_share
from calibcli.metrics.view import View

_ROUNDING = 1e-9
_REPLICATES = 2000
"""At least so many of a mean, which cost little."""


def ratio(numerator: float, denominator: float) -> float:
    """The quotient; NaN where there is no weight to divide by."""
    return float(numerator / denominator) if denominator else float("nan")


@dataclass(frozen=True)
class RowMean(Additive):
    """Weighted mean over rows of one value a row.

    State: (sum of weight x value, sum of weights), float64.

    Attributes
    ----------
    value : callable
        View -> values (n,), float64; a function of a module, so that equal statistics compare
        equal and travel to other processes.
    """

    value: Callable[[View], NumpyArray]

    def partial(self, view: View) -> NumpyArray:
        values = self.value(view)
        if not view.weighted:
            return np.array([values.sum(), len(values)])
        # A row of weight 0 is absent, even where its value is infinite.
        present = view.weights > 0
        weights = view.weights[present]
        return np.array([(weights * values[present]).sum(), weights.sum()])

    def finish(self, state: NumpyArray) -> float:
        """The mean; NaN without rows."""
        return ratio(*state)


@dataclass(frozen=True)
class BagSums(Bagged):
    """Sums (B,) of weight x value over the rows of each bag."""

    sums: NumpyArray


@dataclass(frozen=True)
class MeanBags(Additive):
    """The statistic: by bag, the weight and the sum of weight x value of a mean over rows.

    State: array (2, B).
    """

    units: Units
    mean: RowMean

    def partial(self, view: View) -> NumpyArray:
        bags, size = self.units.bags_of(view), self.units.bags()
        values = self.mean.value(view)
        if not view.weighted:
            return np.stack([np.bincount(bags, v, minlength=size) * 1.0 for v in (None, values)])
        present = view.weights > 0
        weights, bags = view.weights[present], bags[present]
        weighted = (weights, weights * values[present])
        return np.stack([np.bincount(bags, v, minlength=size) for v in weighted])

    def finish(self, state: NumpyArray) -> BagSums:
        """The sums by name."""
        return BagSums(self.units, *state)


@dataclass(frozen=True)
class MeanSample:
    """A mean in all replicates, and what each bag adds to it.

    Attributes
    ----------
    values : array (R,)
    influence : array (B,)
        Sum over the rows of each bag of weight x (value - mean).
    tail : float
        Share of the replicates to leave out at each end.
    student : float or None
        Of few clusters, the half width in standard deviations of the replicates.
    bounds : Interval or None
        Between which the value of any row is, where that is known.
    unseen : float
        The largest share of rows to come that may be of a kind of which none is here.
    """

    values: NumpyArray
    influence: NumpyArray
    tail: float
    student: float | None = None
    bounds: Interval | None = None
    unseen: float = 0.0
    estimate: ClassVar[None] = None

    def change_from(self, before: MeanSample) -> Interval:
        """The interval of the difference of two means of the same rows, which are paired."""
        bounds = None
        if self.bounds is not None and before.bounds is not None:
            bounds = Interval(
                self.bounds.low - before.bounds.high, self.bounds.high - before.bounds.low
            )
        values, influence = self.values - before.values, self.influence - before.influence
        return replace(self, values=values, influence=influence, bounds=bounds).interval

    @property
    def interval(self) -> Interval:
        """The percentiles, moved for skewness (BCa: Efron 1987, Better Bootstrap Intervals).

        Of few clusters, the mean and Student's quantile to either side. Where nothing varies, all
        resamples would agree that no row to come is another: as many as may not have been seen are
        taken to be at the bounds.
        """
        if self.bounds is not None:
            (low, high), mean = self.bounds, float(self.values.mean())
            if np.ptp(self.values) <= _ROUNDING * (high - low):
                most = self.unseen
                return Interval(mean - most * (mean - low), mean + most * (high - mean))
        if self.student is not None:
            middle, half = float(self.values.mean()), self.student * float(self.values.std())
            return Interval(middle - half, middle + half)
        normal = NormalDist()
        # Of two bags the tail is so small that 1 - tail would be 1.
        lowest = normal.inv_cdf(self.tail)
        shares = []
        for end in (lowest, -lowest):
            z = self._skewness / 6 + end
            shares.append(normal.cdf(self._skewness / 6 + z / (1 - self._skewness / 6 * z)))
        low, high = quantiles(self.values, np.array(shares))
        return Interval(float(low), float(high))

    @cached_property
    def _skewness(self) -> float:
        """The skewness of the mean, from what the bags add to it."""
        square = float((self.influence**2).sum())
        return float((self.influence**3).sum()) / square**1.5 if square > 0 else 0.0


@dataclass(frozen=True)
class MeanOfRows:
    """The resampling of a metric whose statistic is a `RowMean`: the bootstrap of a mean.

    Attributes
    ----------
    bounds : Interval or None
        Between which the value of any row is, where rows may have it to the last bit: the interval
        of rows of which none differs then has the width of what may not have been seen.
    """

    bounds: Interval | None = None

    description: ClassVar[str] = "BCa bootstrap of the mean"

    def statistic(self, metric: Metric, units: Units) -> MeanBags:
        """The sums of the metric's mean by bag."""
        assert isinstance(metric.statistic, RowMean)
        return MeanBags(units, metric.statistic)

    def sample(self, metric: Metric, finished: BagSums, value: float) -> MeanSample:
        """The mean in all replicates."""
        weight, sums = finished.bags, finished.sums
        means = finished.draws(_REPLICATES) @ sums / weight.sum()
        influence = sums - weight * sums.sum() / weight.sum()
        values = np.array([metric.value(m) for m in means])
        return MeanSample(
            values, influence, finished.tail, finished.student, self.bounds, finished.unseen_share
        )

    def chance(self, metric: Metric, finished: BagSums) -> None:
        """Nothing: no score of a calibrated model is known from its probabilities alone."""
        return

    def record(self, finished: BagSums, sample: MeanSample) -> NumpyArray:
        """The sums by bag, divided by the weight of all rows."""
        shares: NumpyArray = finished.sums / finished.bags.sum()
        return shares

    def change(self, metric: Metric, now: Recorded, then: Recorded, bagged: Bagged) -> Interval:
        """The interval of the difference of two means.

        Bags in which both models have the same sum add nothing, so that those in which they differ
        are what is resampled: three rows that one of them gets right are no proof.
        """
        after, before = (
            self.sample(
                metric,
                BagSums(bagged.units, *np.array([bagged.bags, each.numbers], np.float64)),
                each.figure,
            )
            for each in (now, then)
        )
        differing = int(np.count_nonzero(now.numbers != then.numbers))
        return replace(after, tail=tail_share(differing)).change_from(before)


MEAN_OF_ROWS, SHARE_OF_ROWS = MeanOfRows(), MeanOfRows(Interval(0.0, 1.0))
