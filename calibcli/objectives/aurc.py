"""Cross-entropy weighted by the rank of the confidence, after the risk-coverage curve."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from calibcli.arrays import Array, NumpyArray, host_weights, like, namespace
from calibcli.objectives.adaptive import (
    Adaptive,
    LearntState,
    host,
    largest_change,
)
from calibcli.objectives.likelihood import Likelihood, smallest
from calibcli.objectives.weighted import WeightedNll


@dataclass(frozen=True, eq=False)
class RankWeights(LearntState):
    """Weights (m,) of rows by their confidence; different confidences (m,), ascending from 0."""

    confidence: NumpyArray
    weight: NumpyArray

    def trace(self) -> dict[str, Any]:
        shares = np.linspace(0, 1, 11)
        return {"confidence_deciles": np.quantile(self.confidence, shares).tolist()}

    def change(self, before: RankWeights) -> float:
        return largest_change(self.confidence, before.confidence)


@dataclass(frozen=True)
class Aurc(WeightedNll, Adaptive):
    """``a_r nll`` with r the rank of the row's confidence from below; the weight held fixed.

    ``a_r = 1/n + 1/(n-1) + ... + 1/(n-r+1)``: the mean over rows is then the area under the
    risk-coverage curve, with nll as the risk, and the mean weight is 1. With row weights w the
    terms are ``w_j / (sum of the weights from j upwards)``. Tied rows share their mean weight.
    Since a row's weight does not depend on its label, the estimating equation is solved by the true
    probabilities. With the gradient through the weights no finite temperature would solve it.

    The statistic collects 16 bytes for each row of the fit.
    """

    state: RankWeights | None = field(default=None, compare=False, repr=False)

    name = "aurc"
    title = "area under the risk-coverage curve, weights held fixed"
    source = "Zhou et al., A novel characterization of the population AURC, arXiv:2505.23463"
    smooth = False
    proper = True
    learns = "at every point"

    def row_weights(self, likelihood: Likelihood) -> Array:
        xp = namespace(likelihood.nll)
        confidence = likelihood.confidence
        if self.state is None:
            return xp.ones_like(confidence)
        known = like(self.state.confidence, confidence)
        weights = like(self.state.weight, confidence)
        # Between known confidences the weight is interpolated.
        above = xp.clip(xp.searchsorted(known, confidence), min=1, max=len(known) - 1)
        low, width = known[above - 1], known[above] - known[above - 1]
        share = xp.clip((confidence - low) / xp.clip(width, min=smallest(width)), min=0.0, max=1.0)
        return weights[above - 1] + share * (weights[above] - weights[above - 1])

    def statistic(
        self, logits: Array, labels: Array, weights: Array | None = None
    ) -> list[NumpyArray]:
        confidence = host(Likelihood(logits, labels).confidence)
        return [np.stack([confidence, host_weights(labels, weights)])]

    def updated(self, statistic: Any) -> Aurc:
        confidence, weights = np.concatenate(statistic, axis=-1)
        return replace(self, state=rank_weights(confidence, weights))


def rank_weights(confidence: NumpyArray, weights: NumpyArray) -> RankWeights:
    """The weights of rows with these confidences (n,) and row weights (n,)."""
    order = np.argsort(confidence, kind="stable")
    order = order[weights[order] > 0]
    mass = weights[order]
    from_here = np.cumsum(mass[::-1])[::-1]
    harmonic = np.cumsum(mass / from_here)
    levels, first = np.unique(confidence[order], return_index=True)
    shared = np.add.reduceat(harmonic * mass, first) / np.add.reduceat(mass, first)
    return RankWeights(np.concatenate(([0.0], levels)), np.concatenate(([0.0], shared)))
