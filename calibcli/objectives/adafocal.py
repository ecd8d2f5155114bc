"""AdaFocal: a focal exponent for each range of confidence, steered by its calibration error."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from calibcli.arrays import Array, NumpyArray, like, namespace
from calibcli.objectives.adaptive import (
    Adaptive,
    LearntState,
    confidences,
    largest_change,
)
from calibcli.objectives.base import RowTerms, check_range
from calibcli.objectives.focal import focal_terms
from calibcli.objectives.likelihood import Likelihood

MOST_KEPT_ROWS = 1 << 20
"""Validation rows that are kept one by one: 24 MB."""

_LEVELS = 1 << 16
"""Levels of confidence into which more rows are put."""


@dataclass(frozen=True, eq=False)
class BinnedGamma(LearntState):
    """Exponents of M bins.

    Attributes
    ----------
    gamma : float64 array (M,)
        Negative for inverse focal loss.
    edges : float64 array (M + 1,)
    gap : float64 array (M,)
        Mean confidence minus accuracy of the validation rows at the last update; 0 without rows.
    """

    gamma: NumpyArray
    edges: NumpyArray
    gap: NumpyArray

    def trace(self) -> dict[str, Any]:
        return {
            "gamma": self.gamma.tolist(),
            "edges": self.edges.tolist(),
            "gap": self.gap.tolist(),
        }

    def change(self, before: BinnedGamma) -> float:
        """About the largest gap of those bins whose exponent can still follow it."""
        return largest_change(self.gamma, before.gamma, np.abs(before.gamma))


@dataclass(frozen=True)
class AdaFocal(Adaptive):
    """Focal loss with an exponent that depends on the bin of the label's probability.

    After each solve, validation rows are put into bins of equal mass by their confidence. Where
    they are over-confident, by a gap E, the exponent of the bin grows by ``exp(rate E)``; where
    under-confident it shrinks. One that falls below `switch` changes to inverse focal loss,
    ``(1 + p_y)^|gamma| nll``, written as a negative exponent, and back. A row of the fit has the
    exponent of the bin in which the probability of its label lies.

    The statistic collects 24 bytes for each validation row. With fewer than `rows_per_bin` rows a
    bin there are fewer bins.
    """

    gamma: float = field(default=1.0, metadata={"help": "exponent of all bins at first"})
    rate: float = field(default=1.0, metadata={"help": "how fast exponents follow the gaps"})
    switch: float = field(
        default=0.2, metadata={"help": "exponent at which focal turns into inverse focal"}
    )
    gamma_min: float = field(default=-2.0, metadata={"help": "smallest exponent"})
    gamma_max: float = field(default=20.0, metadata={"help": "largest exponent"})
    bins: int = field(default=15, metadata={"help": "number of bins of equal mass, at most"})
    rows_per_bin: int = field(default=50, metadata={"help": "validation rows a bin, at least"})
    select: Literal["nll", "ece"] = field(
        default="nll", metadata={"help": "figure of the inner split by which a round is chosen"}
    )
    state: BinnedGamma | None = field(default=None, compare=False, repr=False)

    name = "adafocal"
    title = "focal loss with an exponent a bin, steered by calibration"
    source = "Ghosh et al., AdaFocal: Calibration-aware adaptive focal loss, NeurIPS 2022"
    published_reduction = "sum"
    proper = False
    smooth = False
    learns = "on validation rows"
    settles_at = 0.02

    def __post_init__(self) -> None:
        check_range(self, "switch", 1e-6)
        check_range(self, "gamma_max", self.switch)
        check_range(self, "gamma_min", -100.0, -self.switch)
        check_range(self, "gamma", self.switch, self.gamma_max)
        check_range(self, "rate")
        check_range(self, "bins", 1)
        check_range(self, "rows_per_bin", 1)

    def terms(self, logits: Array, labels: Array) -> RowTerms:
        likelihood = Likelihood(logits, labels)
        return focal_terms(likelihood, self.exponents(likelihood.true_prob))

    def exponents(self, true_prob: Array) -> float | Array:
        """The exponent (n,) for each probability of a label (n,), or that of all."""
        if self.state is None:
            return float(self.gamma)
        # The first and the last bin reach to 0 and to 1.
        inner = like(self.state.edges[1:-1], true_prob)
        place = namespace(true_prob).searchsorted(inner, true_prob, side="right")
        return like(self.state.gamma, true_prob)[place]

    def statistic(
        self, logits: Array, labels: Array, weights: Array | None = None
    ) -> list[NumpyArray]:
        return confidences(logits, labels, weights)

    def compacted(self, statistic: Any) -> list[NumpyArray]:
        """Rows as they are up to `MOST_KEPT_ROWS`; beyond, those that are as sure become one."""
        if sum(part.shape[1] for part in statistic) <= MOST_KEPT_ROWS:
            return list(statistic)
        confidence, correct, weights = np.concatenate(statistic, axis=-1)
        place = np.minimum((confidence * _LEVELS).astype(np.int64), _LEVELS - 1)
        mass = np.bincount(place, weights, minlength=_LEVELS)
        sums = [
            np.bincount(place, weights * each, minlength=_LEVELS) for each in (confidence, correct)
        ]
        some = mass > 0
        return [np.stack([sums[0][some] / mass[some], sums[1][some] / mass[some], mass[some]])]

    def updated(self, statistic: Any) -> AdaFocal:
        confidence, correct, weights = np.concatenate(statistic, axis=-1)
        if self.state is None:
            count = int(np.clip(np.sum(weights > 0) // self.rows_per_bin, 1, self.bins))
            gamma = np.full(count, float(self.gamma))
        else:
            gamma = self.state.gamma
        edges = edges_of_equal_mass(confidence, weights, len(gamma))
        gap = _gaps(edges, confidence, correct, weights)
        return replace(self, state=BinnedGamma(self._next(gamma, gap), edges, gap))

    def _next(self, gamma: NumpyArray, gap: NumpyArray) -> NumpyArray:
        """The exponents (M,) after gaps (M,)."""
        moved = gamma * np.exp(np.sign(gamma) * self.rate * gap)
        moved = np.where(np.abs(moved) < self.switch, -np.sign(moved) * self.switch, moved)
        clipped: NumpyArray = np.clip(moved, self.gamma_min, self.gamma_max)
        return clipped


def edges_of_equal_mass(confidence: NumpyArray, weights: NumpyArray, bins: int) -> NumpyArray:
    """Edges (M + 1,) of bins with about the same weight of confidences (n,), the smallest first."""
    order = np.argsort(confidence, kind="stable")
    order = order[weights[order] > 0]
    below = np.cumsum(weights[order]) - weights[order]
    total = float(weights.sum())
    edges: NumpyArray = np.interp(np.linspace(0, total, bins + 1), below, confidence[order])
    return edges


def _gaps(
    edges: NumpyArray, confidence: NumpyArray, correct: NumpyArray, weights: NumpyArray
) -> NumpyArray:
    """Mean confidence minus accuracy (M,) in bins (lower, upper]; 0 where there is no row.

    The smallest confidence of all is in no bin.
    """
    place = np.searchsorted(edges, confidence, side="left") - 1
    bins = len(edges) - 1
    inside = (place >= 0) & (place < bins)
    place, weights = place[inside], weights[inside]
    excess = (confidence - correct)[inside]
    mass = np.bincount(place, weights, minlength=bins)
    gap = np.bincount(place, weights * excess, minlength=bins)
    # An empty bin has the gap 0.
    return gap / np.where(mass > 0, mass, 1.0)
