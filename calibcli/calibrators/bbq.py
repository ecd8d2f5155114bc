"""Bayesian binning into quantiles: an average of many histograms, by how likely each is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.calibrators.curves import (
    BinarySample,
    Curve,
    CurveMap,
    Interpolation,
    clip_probabilities,
)
from calibcli.calibrators.histogram import cuts, edges_before, steps

_PRIOR_ROWS = 2.0
"""N' of the paper: so many rows of a prior are shared out among the bins."""

_KEPT = 0.999
"""Histograms that have so much of the posterior together are kept."""


@dataclass(frozen=True, eq=False)
class _Binning:
    """A histogram: before which scores it cuts, its values in the bins, and its log-score."""

    before: NumpyArray
    values: NumpyArray
    log_score: float


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
        found = [
            _binned(sample.scores, weights, positives, cuts(weights[1:], bins))
            for bins in range(min(fewest, most), most + 1)
        ]
        scores = np.array([binning.log_score for binning in found])
        posterior = np.exp(scores - scores.max())
        posterior /= posterior.sum()
        order = np.argsort(-posterior, kind="stable")
        kept = order[: int(np.searchsorted(np.cumsum(posterior[order]), _KEPT)) + 1]
        return _average(sample.scores, [found[i] for i in kept], posterior[kept])


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
