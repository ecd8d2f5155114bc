"""Binning: histograms, histograms of the values of a Platt curve, and averages of many (BBQ)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.calibrators.curves import (
    ALLOW_ZERO,
    BinarySample,
    Curve,
    CurveMap,
    Interpolation,
    clip_probabilities,
    curves_at,
    krichevsky_trofimov,
)
from calibcli.calibrators.logistic import fit_logistic

_MOST_BINS = 10_000
"""Bound on an option: with more bins, hardly any has rows enough to say something."""

_MOST_CELLS = 1000
"""Rows are put together to so many means of neighbouring scores, which change next to nothing."""

_PRIOR_ROWS = 2.0
"""N' of the paper: so many rows of a prior are shared out among the bins."""

_KEPT = 0.999
"""Histograms that have so much of the posterior together are kept."""


@dataclass(frozen=True)
class _BinnedMap(CurveMap):
    """A family of step functions with a given number of steps."""

    bins: int = field(default=10, metadata={"help": "number of bins"})

    interpolation: ClassVar[Interpolation] = "step"

    def __post_init__(self) -> None:
        if not 1 <= self.bins <= _MOST_BINS:
            raise ValueError(f"bins must lie between 1 and {_MOST_BINS:,}")

    def size(self, classes: int) -> int:
        return self.bins * curves_at(classes)


@dataclass(frozen=True)
class HistogramMap(_BinnedMap):
    """The share of the event in each bin of the probability.

    The share of a bin whose rows are all alike is drawn inwards by half a row; an empty bin has the
    probability at its middle.
    """

    spacing: Literal["uniform", "quantile"] = field(
        default="uniform", metadata={"help": "bins of equal width or of equally many rows"}
    )
    allow_zero: bool = field(default=False, metadata={"help": ALLOW_ZERO})

    name: ClassVar[str] = "histogram"
    title: ClassVar[str] = "the share of each class in bins of its probability"
    source: ClassVar[str] = (
        "Zadrozny and Elkan, Obtaining calibrated probability estimates from decision trees and "
        "naive Bayesian classifiers, ICML 2001"
    )

    def fit(self, sample: BinarySample) -> Curve:
        if self.spacing == "quantile":
            edges = quantile_edges(sample, self.bins)
            middles = np.zeros(len(edges) + 1)  # there is no empty bin
        else:
            bounds = np.arange(1, self.bins) / self.bins
            edges = np.log(bounds) - np.log1p(-bounds)
            middles = (np.arange(self.bins) + 0.5) / self.bins
        bin_of = np.searchsorted(edges, sample.scores, side="right")
        weights = np.bincount(bin_of, sample.weights, len(edges) + 1)
        positives = np.bincount(bin_of, sample.positives, len(edges) + 1)
        filled = np.where(weights > 0, weights, 1.0)
        shares = positives / filled if self.allow_zero else krichevsky_trofimov(positives, weights)
        return steps(edges, np.where(weights > 0, shares, middles))


@dataclass(frozen=True)
class ScalingBinningMap(_BinnedMap):
    """A Platt curve, and in place of its values their means in bins of equally many rows."""

    name: ClassVar[str] = "scaling-binning"
    title: ClassVar[str] = "Platt scaling, then the means of its values in bins"
    source: ClassVar[str] = "Kumar, Liang and Ma, Verified uncertainty calibration, NeurIPS 2019"

    def fit(self, sample: BinarySample) -> Curve:
        values = platt_values(sample)
        edges = quantile_edges(sample, self.bins)
        bin_of = np.searchsorted(edges, sample.scores, side="right")
        weights = np.bincount(bin_of, sample.weights, len(edges) + 1)
        sums = np.bincount(bin_of, sample.weights * values, len(edges) + 1)
        return steps(edges, clip_probabilities(sums / weights))


@dataclass(frozen=True)
class BbqMap(CurveMap):
    """Histograms with bins of equally many rows, weighted by their marginal likelihoods.

    Bins number from ``n^(1/3) / spread`` to ``n^(1/3) spread`` at n rows. A bin's prior is a beta
    distribution about its middle, so that no probability becomes 0 or 1.
    """

    spread: float = field(
        default=10.0, metadata={"help": "factor around n^(1/3) for the number of bins", "least": 1}
    )

    name: ClassVar[str] = "bbq"
    title: ClassVar[str] = "a Bayesian average of histograms of each class's probability"
    source: ClassVar[str] = (
        "Naeini, Cooper and Hauskrecht, Obtaining well calibrated probabilities using Bayesian "
        "binning, AAAI 2015"
    )
    interpolation: ClassVar[Interpolation] = "step"

    def fit(self, sample: BinarySample) -> Curve:
        root = float(np.cbrt(sample.weights.sum()))
        fewest = max(int(root / self.spread), 1)
        most = min(int(np.ceil(root * self.spread)), len(sample.scores))
        weights, positives = (
            np.concatenate(([0.0], np.cumsum(v))) for v in (sample.weights, sample.positives)
        )
        binnings = [
            _binned(sample.scores, weights, positives, cuts(weights[1:], bins))
            for bins in range(min(fewest, most), most + 1)
        ]
        scores = np.array([binning.log_score for binning in binnings])
        posterior = np.exp(scores - scores.max())
        posterior /= posterior.sum()
        order = np.argsort(-posterior, kind="stable")
        kept = order[: int(np.searchsorted(np.cumsum(posterior[order]), _KEPT)) + 1]
        return _average(sample.scores, [binnings[i] for i in kept], posterior[kept])


@dataclass(frozen=True, eq=False)
class _Binning:
    """A histogram: before which scores it cuts, its values in the bins, and its log-score."""

    before: NumpyArray
    values: NumpyArray
    log_score: float


def _binned(
    scores: NumpyArray, weights: NumpyArray, positives: NumpyArray, before: NumpyArray
) -> _Binning:
    """A histogram by where it cuts, from cumulative sums (m + 1,); equations 3 and 4."""
    from scipy.special import gammaln

    ends = np.concatenate(([0], before, [len(scores)]))
    total, positive = np.diff(weights[ends]), np.diff(positives[ends])
    negative = total - positive
    edges = edges_before(scores, before)
    shares = np.concatenate(([0.0], 1 / (1 + np.exp(-np.clip(edges, -700, 700))), [1.0]))
    strength = _PRIOR_ROWS / len(total)
    middles = clip_probabilities((shares[:-1] + shares[1:]) / 2)
    prior_positive, prior_negative = strength * middles, strength * (1 - middles)
    log_score = (
        gammaln(strength)
        - gammaln(total + strength)
        + gammaln(positive + prior_positive)
        - gammaln(prior_positive)
        + gammaln(negative + prior_negative)
        - gammaln(prior_negative)
    ).sum()
    return _Binning(before, (positive + prior_positive) / (total + strength), float(log_score))


def _average(scores: NumpyArray, binnings: list[_Binning], shares: NumpyArray) -> Curve:
    """The weighted mean of histograms: a step function that cuts where any of them does."""
    before = np.unique(np.concatenate([binning.before for binning in binnings]))
    values = np.zeros(len(before) + 1)
    for binning, share in zip(binnings, shares / shares.sum(), strict=True):
        # Each bin of the average lies within one bin of the histogram.
        starts = np.concatenate(([0], before))
        values += share * binning.values[np.searchsorted(binning.before, starts, side="right")]
    return steps(edges_before(scores, before), clip_probabilities(values))


def platt_values(sample: BinarySample) -> NumpyArray:
    """Probabilities (m,) by logistic regression on the scores, with Platt's targets.

    A positive counts as ``(N+ + 1) / (N+ + 2)`` and a negative as ``1 / (N- + 2)``, so that there
    is a best curve even if the scores separate them.
    """
    negatives = sample.weights - sample.positives
    positive, negative = sample.positives.sum(), negatives.sum()
    targets = sample.positives * (positive + 1) / (positive + 2) + negatives / (negative + 2)
    cells = condensed(BinarySample(sample.scores, targets, sample.weights))
    theta = np.zeros(2)
    for part in (cells, BinarySample(sample.scores, targets, sample.weights)):
        features = np.stack((part.scores, np.ones_like(part.scores)), axis=1)
        theta = fit_logistic(features, part.positives, part.weights, np.zeros((2, 2)), theta).theta
    probabilities: NumpyArray = 1 / (1 + np.exp(-np.clip(features @ theta, -700, 700)))
    return probabilities


def quantile_edges(sample: BinarySample, bins: int) -> NumpyArray:
    """Edges (at most bins - 1) between scores: bins of about equal weights, none of them empty."""
    return edges_before(sample.scores, cuts(np.cumsum(sample.weights), bins))


def edges_before(scores: NumpyArray, before: NumpyArray) -> NumpyArray:
    """Edges half way between some scores, given by their numbers from 1, and those before them."""
    lower, upper = scores[before - 1], scores[before]
    middle = (lower + upper) / 2
    # Between two neighbouring numbers there is no other.
    edges: NumpyArray = np.where(middle > lower, middle, upper)
    return edges


def cuts(reached: NumpyArray, bins: int) -> NumpyArray:
    """The places at which to cut a sorted sample into bins of about equal weights.

    Parameters
    ----------
    reached : float64 array (m,)
        Cumulative weights.
    bins : int

    Returns
    -------
    before : int64 array (at most bins - 1,)
        Numbers of the scores before which to cut, from 1 to m - 1, ascending.
    """
    shares = np.arange(1, bins) / bins * reached[-1]
    after = np.searchsorted(reached, shares)
    # Before or behind the score at which the share is reached: what is nearer to it.
    below = np.where(after > 0, reached[after - 1], 0.0)
    before = after + (shares - below > reached[after] - shares)
    distinct: NumpyArray = np.unique(before[(before > 0) & (before < len(reached))])
    return distinct


def condensed(sample: BinarySample) -> BinarySample:
    """A sample of at most `_MOST_CELLS` scores, which are means of neighbours."""
    if len(sample.scores) <= _MOST_CELLS:
        return sample
    begins = np.concatenate(([0], cuts(np.cumsum(sample.weights), _MOST_CELLS)))
    weights = np.add.reduceat(sample.weights, begins)
    moments = np.add.reduceat(sample.weights * sample.scores, begins)
    return BinarySample(moments / weights, np.add.reduceat(sample.positives, begins), weights)


def steps(edges: NumpyArray, values: NumpyArray) -> Curve:
    """The step function with some values (m + 1,) between edges (m,)."""
    # A curve is constant below its first score, wherever that is.
    first = edges[0] - 1 if len(edges) else 0.0
    return Curve(np.concatenate(([first], edges)), values)
