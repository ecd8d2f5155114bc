"""Sums by slice of the rows: how good the probabilities are in each part of the data."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import NamedTuple, TypeAlias

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.metrics.bins import BINS, bin_index
from calibcli.metrics.ece import ECE, MEAN_GAP
from calibcli.metrics.error_intervals import ErrorSample
from calibcli.metrics.resampling import BAGS, LEVEL, Interval, Units
from calibcli.metrics.row_mean import ratio
from calibcli.metrics.view import View

BY = "by"
"""Role of the key column that divides the rows."""

SLICE_METRICS = ("nll", "brier", "ece", "accuracy")
"""The metrics of `Slice`."""

_NORMAL_95 = 1.959963984540054
_BIN_SUMS, _BAG_SUMS = 4, 3
_MOST_CELLS, _FEWEST_BAGS = 1 << 16, 32
_REPLICATES = 200


SliceState: TypeAlias = tuple[NumpyArray, ...]
"""Sums by slice; by slice and bin; and, of rows in clusters, by slice and bag of clusters."""


@dataclass(frozen=True)
class Slice:
    """The rows that have one value in common.

    Attributes
    ----------
    name : str
    rows : int
    weight : float
    nll, brier, ece : float
        Of these rows alone.
    ece_estimate : float
        The ECE without what noise adds to it; NaN where nothing is known of the noise.
    nll_interval, brier_interval, ece_interval : Interval
        95 %. That of the ECE begins above 0 where p is below 0.05: no ECE is below the difference
        of confidence and accuracy.
    confidence, accuracy : float
    p : float
        Of a two-sided test of how often the prediction is wrong against how often the confidence
        says it is.
    adjusted_p : float
        The same, allowing for how many slices were looked at.
    """

    name: str
    rows: int
    weight: float
    nll: float
    nll_interval: Interval
    brier: float
    brier_interval: Interval
    ece: float
    ece_estimate: float
    ece_interval: Interval
    confidence: float
    accuracy: float
    p: float
    adjusted_p: float = math.nan


@dataclass(frozen=True)
class SliceSums:
    """The statistic: sums by slice.

    State: arrays (S, 13) and (S, 15, 4), and of rows in clusters (S, B, 18). Memory: 590 bytes a
    slice, and 144 for each of its B bags of clusters.

    Parameters
    ----------
    count : int
        Number of slices S.
    role : str or None
        Role of the key column that they come from; None: the predicted class. Slices by label would
        be no test of calibration, as labels are what is predicted.
    units : Units or None
        The clusters of rows; None: rows are independent.
    """

    count: int
    role: str | None = None
    units: Units | None = None

    def partial(self, view: View) -> SliceState:
        slices = view.prediction if self.role is None else view.keys[self.role]
        present = view.weights > 0
        slices, weights = slices[present], view.weights[present]
        confidence, correct = view.confidence[present], view.correct[present]
        nll, brier = -view.true_log_prob[present], view.squared_error[present]
        squares, excess = weights**2, confidence - correct
        summed = (
            *(None, weights, squares),
            *(weights * nll, squares * nll, squares * nll**2),
            *(weights * brier, squares * brier, squares * brier**2),
            *(weights * confidence, squares * confidence * (1 - confidence)),
            weights * confidence * (1 - confidence),
            weights * correct,
        )
        sums = np.stack([np.bincount(slices, v, minlength=self.count) for v in summed], axis=1)
        cells = slices * BINS + np.maximum(bin_index(confidence), 0)
        uncertain = squares * confidence * (1 - confidence)
        binned = (weights, weights * excess, squares * excess**2, uncertain)
        by_bin = [np.bincount(cells, v, minlength=self.count * BINS) for v in binned]
        state = sums, np.stack(by_bin, axis=1).reshape(self.count, BINS, _BIN_SUMS)
        if self.units is None:
            return state
        # Fewer bags where slices are many.
        bags = self.units.bags(max(min(BAGS, _MOST_CELLS // self.count), _FEWEST_BAGS))
        place = slices * bags + self.units.bags_of(view, bags)[present]
        means = (weights, weights * nll, weights * brier)
        by_bag = [np.bincount(place, v, self.count * bags) for v in means]
        place = place * BINS + np.maximum(bin_index(confidence), 0)
        excess_by_bag = np.bincount(place, weights * excess, self.count * bags * BINS)
        parts = (
            np.stack(by_bag, axis=1).reshape(self.count, bags, _BAG_SUMS),
            excess_by_bag.reshape(self.count, bags, BINS),
        )
        return (*state, np.concatenate(parts, axis=2))

    def merge(self, left: SliceState, right: SliceState) -> SliceState:
        return tuple(a + b for a, b in zip(left, right, strict=True))

    def finish(self, state: SliceState) -> SliceState:
        """The sums."""
        return state


def read_slices(state: SliceState, names: tuple[str, ...], seed: int) -> list[Slice]:
    """The slices that have rows, the worst first.

    Before all others come those that are clearly wrong (an adjusted p of at most 5 %), in the order
    of the lower ends of their ECE's intervals.

    Parameters
    ----------
    state : tuple of array
        Of a finished `SliceSums`.
    names : tuple of str
        Of all slices.
    seed : int
        Of the intervals of ECE, for which the noise of the bins is taken to be normal.
    """
    generator = np.random.Generator(np.random.Philox(key=seed))
    normal = generator.standard_normal((_REPLICATES, BINS))
    present = np.flatnonzero(state[0][:, 1] > 0).tolist()
    slices = [_slice(names[k], state[0][k], state[1][k], normal) for k in present]
    for by_bag in state[2:]:
        of_bags = generator.standard_normal((_REPLICATES, by_bag.shape[1]))
        slices = [
            _in_clusters(each, state[0][k], state[1][k], by_bag[k], (normal, of_bags))
            for each, k in zip(slices, present, strict=True)
        ]
    adjusted = benjamini_hochberg(np.array([each.p for each in slices]))
    corrected = [
        Slice(**{**vars(each), "adjusted_p": float(p)})
        for each, p in zip(slices, adjusted, strict=True)
    ]
    return sorted(corrected, key=_badness)


def _badness(part: Slice) -> tuple[bool, float, float, float]:
    clear = part.adjusted_p <= 1 - LEVEL
    # NaN, which is what is not known, has no place in an order.
    low, p = (
        otherwise if math.isnan(value) else value
        for value, otherwise in ((part.ece_interval.low, 0.0), (part.adjusted_p, 1.0))
    )
    return not clear, -low, p, -part.ece


def benjamini_hochberg(p: NumpyArray) -> NumpyArray:
    """Adjusted p-values (n,): calling those below 5 % leaves 5 % of the calls wrong, on average.

    Benjamini and Hochberg (1995), doi:10.1111/j.2517-6161.1995.tb02031.x. NaN stays NaN and does
    not count.
    """
    adjusted = np.full(len(p), np.nan)
    (known,) = np.nonzero(~np.isnan(p))
    order = known[np.argsort(p[known])[::-1]]
    ranks = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum.accumulate(np.minimum(p[order] * len(order) / ranks, 1.0))
    return adjusted


def _slice(name: str, sums: NumpyArray, by_bin: NumpyArray, normal: NumpyArray) -> Slice:
    rows, weight, squares = sums[:3]
    nll, nll_interval = _mean(sums[3:6], weight, squares)
    brier, brier_interval = _mean(sums[6:9], weight, squares)
    filled = by_bin[by_bin[:, 0] > 0]
    excess = filled[:, 1]
    # Where all rows of a bin are right they look more certain than they are.
    spread = np.sqrt(np.maximum(filled[:, 2], filled[:, 3]))

    noise = normal[:, : len(filled)] * spread
    signals = np.stack((excess, filled[:, 0]))
    sample = ErrorSample(MEAN_GAP.of_bins(filled[:, 0]), excess, signals, noise, (1 - LEVEL) / 2)
    ece = sample.value
    accuracy = sums[12] / weight
    # Weights are taken for so many rows of weight 1 as are as certain.
    each = ratio(sums[10], sums[11])
    p = wrong_tail((1 - accuracy) * weight / each, (weight - sums[9]) / each, sums[11] / each)
    gap = float(excess.sum()) / weight
    spread_now = math.sqrt(max(float(by_bin[:, 2].sum()) - gap**2 * squares, 0.0)) / weight
    estimate, interval = _with_gap(sample, _Gap(abs(gap), p, spread_now))
    return Slice(
        name=name,
        rows=int(rows),
        weight=float(weight),
        nll=nll,
        nll_interval=nll_interval,
        brier=brier,
        brier_interval=brier_interval,
        ece=ece,
        ece_estimate=estimate,
        ece_interval=interval,
        confidence=float(sums[9] / weight),
        accuracy=float(accuracy),
        p=p,
    )


class _Gap(NamedTuple):
    """How far confidence and accuracy are apart on average.

    ``p`` is that of no difference, ``spread`` the standard error of the difference as it is.
    """

    size: float
    p: float
    spread: float

    @property
    def low(self) -> float:
        """The smallest true difference in keeping with it, above 0 where p is below 0.05.

        By a score test, whose variance is that of a calibrated model where there is no difference,
        that of the rows where there is this one, and in between in between.
        """
        if not self.p < 1 - LEVEL or self.size == 0:
            return 0.0
        deviations = -NormalDist().inv_cdf(max(self.p / 2, 1e-300))
        square, none = _NORMAL_95**2, (self.size / deviations) ** 2
        here = self.spread**2
        slope = square * (here - none) / self.size
        return self.size - (math.sqrt(slope**2 + 4 * square * here) - slope) / 2


def _with_gap(sample: ErrorSample, gap: _Gap) -> tuple[float, Interval]:
    """The estimate of an ECE and its interval, which are not below a difference that is clear."""
    low = gap.low
    least = gap.size if low > 0 else 0.0
    estimate = min(max(sample.estimate, least), sample.value)
    interval = sample.interval
    interval = Interval(max(interval.low, low), max(interval.high, low)).within(*ECE.range)
    return estimate, interval.around(estimate).around(sample.value)


def _in_clusters(
    rowwise: Slice,
    sums: NumpyArray,
    by_bin: NumpyArray,
    by_bag: NumpyArray,
    normal: tuple[NumpyArray, NumpyArray],
) -> Slice:
    """A slice whose intervals and p are over clusters, by Student's t with their number.

    The noise of the bins is that of clusters, each with a normal factor, and at least what the
    confidences give for independent rows. Of a slice in one cluster nothing is known.
    """
    from scipy.special import stdtr, stdtrit

    by_bag = by_bag[by_bag[:, 0] > 0]
    count = len(by_bag)
    if count <= 1:
        return _without_noise(rowwise)
    student, inflation = float(stdtrit(count - 1, (1 + LEVEL) / 2)), count / (count - 1)

    def around(mean: float, of_bags: NumpyArray) -> Interval:
        variance = inflation * float(((of_bags - mean * by_bag[:, 0]) ** 2).sum())
        half = student * math.sqrt(variance) / rowwise.weight
        return Interval(max(mean - half, 0.0), mean + half)

    filled = by_bin[by_bin[:, 0] > 0]
    excess = by_bag[:, _BAG_SUMS:][:, by_bin[:, 0] > 0]
    strays = (excess - excess.mean(axis=0)) * math.sqrt(inflation)
    short = np.maximum(filled[:, 3] - (strays**2).sum(axis=0), 0.0)
    noise = normal[1][:, :count] @ strays + normal[0][:, : len(filled)] * np.sqrt(short)
    noise *= student / _NORMAL_95
    signals = np.stack((filled[:, 1], filled[:, 0]))
    norm = MEAN_GAP.of_bins(filled[:, 0])
    sample = ErrorSample(norm, filled[:, 1], signals, noise, (1 - LEVEL) / 2)
    total = strays.sum(axis=1)
    variance = max(float((total**2).sum()), float(sums[10]))
    deviate = float(excess.sum()) / math.sqrt(variance) if variance > 0 else math.nan
    p = 2 * float(stdtr(count - 1, -abs(deviate)))
    gap = abs(float(excess.sum())) / rowwise.weight
    estimate, interval = _with_gap(sample, _Gap(gap, p, math.sqrt(variance) / rowwise.weight))
    return replace(
        rowwise,
        nll_interval=around(rowwise.nll, by_bag[:, 1]),
        brier_interval=around(rowwise.brier, by_bag[:, 2]),
        ece_estimate=estimate,
        ece_interval=interval,
        p=p,
    )


def _without_noise(rowwise: Slice) -> Slice:
    """A slice of whose noise nothing is known."""
    none = Interval(math.nan, math.nan)
    return replace(
        rowwise,
        nll_interval=none,
        brier_interval=none,
        ece_estimate=math.nan,
        ece_interval=none,
        p=math.nan,
    )


_HALF_A_ROW = 0.5
"""More than rounding leaves of counts of whole rows."""


def wrong_tail(count: float, mean: float, variance: float) -> float:
    """Two-sided p-value of a number of wrong predictions, of rows with different confidences.

    It is taken for binomial with the mean and the variance that the confidences give, which holds
    for small numbers as well; cautious, as the number is whole. Of confidences that are all 1 a
    single wrong prediction says everything (0), and none says nothing (NaN).
    """
    from scipy.special import betainc

    if not (mean > 0 and variance > 0):
        return 0.0 if count > mean + _HALF_A_ROW else math.nan
    chance = min(max(1 - variance / mean, 1e-9), 1.0)
    rows = mean / chance

    def at_least(number: float) -> float:
        if number <= 0:
            return 1.0
        return float(betainc(number, max(rows - number + 1, 1e-12), chance))

    return min(1.0, 2 * min(at_least(count), 1 - at_least(count + 1)))


def _mean(sums: NumpyArray, weight: float, squares: float) -> tuple[float, Interval]:
    """A weighted mean and its interval by the standard error.

    ``sums`` has those of weight x value, weight^2 x value and weight^2 x value^2.
    """
    mean = float(sums[0] / weight)
    variance = max(float(sums[2] - 2 * mean * sums[1] + mean**2 * squares), 0.0)
    half = _NORMAL_95 * math.sqrt(variance) / weight
    return mean, Interval(max(mean - half, 0.0), mean + half)
