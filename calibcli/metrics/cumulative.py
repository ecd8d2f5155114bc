"""Calibration errors that need the rows in order of confidence: adaptive ECE and KS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from calibcli.arrays import namespace
from calibcli.metrics.base import Metric, Vector, View
from calibcli.metrics.binned import BINS
from calibcli.metrics.row_mean import ratio


class Scores(NamedTuple):
    """What is kept of the rows of a block; no weights stand for weights of 1."""

    confidence: Vector
    correct: Vector
    weights: Vector | None


@dataclass(frozen=True)
class ConfidenceCurve:
    """Sums over all rows up to each distinct confidence; float64 arrays (m,), ascending.

    Rows of equal confidence stand together, so nothing depends on the order of the rows.

    Attributes
    ----------
    confidence : array (m,)
        The distinct values.
    weight : array (m,)
        Weight of the rows with at most this confidence.
    excess : array (m,)
        Sum over the same rows of weight x (confidence - correct).
    """

    confidence: Vector
    weight: Vector
    excess: Vector


@dataclass(frozen=True)
class CollectedScores:
    """The statistic: every row's confidence, whether it is correct, and its weight.

    State: a list of `Scores`, one a block. It holds 5 bytes a row for float32 probabilities and 9
    for float64, and 8 more with weights; ``finish`` needs some 60 bytes a row for a moment.
    ``merge`` takes over its left argument, so that collecting is linear in the number of blocks.
    """

    def partial(self, view: View) -> list[Scores]:
        """The rows of one block; those of weight 0 are absent."""
        single = namespace(view.probs).finfo(view.probs.dtype).bits <= 32
        # Nothing is lost: these numbers were float32 before the view widened them.
        confidence = view.confidence.astype(np.float32) if single else view.confidence
        if not view.weighted:
            return [Scores(confidence, view.correct, None)]
        present = view.weights > 0
        return [Scores(confidence[present], view.correct[present], view.weights[present])]

    def merge(self, left: list[Scores], right: list[Scores]) -> list[Scores]:
        """The rows of two blocks."""
        left.extend(right)
        return left

    def finish(self, state: list[Scores]) -> ConfidenceCurve:
        """The cumulated sums at the ends of ties."""
        confidence = np.concatenate([scores.confidence for scores in state])
        correct = np.concatenate([scores.correct for scores in state])
        order = np.argsort(confidence)
        confidence = confidence[order].astype(np.float64)
        excess = confidence - correct[order]
        ends = np.flatnonzero(np.append(confidence[1:] != confidence[:-1], len(confidence) > 0))
        if all(scores.weights is None for scores in state):
            return ConfidenceCurve(confidence[ends], ends + 1.0, np.cumsum(excess)[ends])
        weights = np.concatenate(
            [np.ones(len(s.correct)) if s.weights is None else s.weights for s in state]
        )[order]
        return ConfidenceCurve(
            confidence[ends], np.cumsum(weights)[ends], np.cumsum(weights * excess)[ends]
        )


def equal_mass_edges(curve: ConfidenceCurve, bins: int = BINS) -> Vector:
    """Edges (bins + 1,) between which the rows are shared out equally.

    For weights of 1 these are ``np.interp(linspace(0, N, bins + 1), arange(N), sorted)``, as in
    the published code: row j of the sorted rows stands at position j, and beyond the last row is
    the largest confidence. A row of weight w stands at every position from its first to its first
    plus w - 1, as w rows would; one of weight below 1 stands at its first position only.
    """
    position = np.linspace(0.0, curve.weight[-1], bins + 1)
    last = len(curve.weight) - 1
    at = np.minimum(np.searchsorted(curve.weight, position, side="right"), last)
    first = np.where(at > 0, curve.weight[at - 1], 0.0)
    final = np.maximum(first, curve.weight[at] - 1.0)
    value, following = curve.confidence[at], curve.confidence[np.minimum(at + 1, last)]
    slope = (following - value) / (curve.weight[at] - final)
    edges: Vector = slope * np.maximum(position - final, 0.0) + value
    return edges


def _adaptive_error(curve: ConfidenceCurve) -> float:
    if not len(curve.confidence):
        return float("nan")
    edges = equal_mass_edges(curve)
    rows_below = np.searchsorted(curve.confidence, edges, side="right")
    excess_below = np.append(0.0, curve.excess)[rows_below]
    return ratio(np.abs(np.diff(excess_below)).sum(), curve.weight[-1])


def _kolmogorov_smirnov(curve: ConfidenceCurve) -> float:
    if not len(curve.confidence):
        return float("nan")
    return ratio(np.abs(curve.excess).max(), curve.weight[-1])


COLLECTED_SCORES = CollectedScores()

ADAPTIVE_ECE = Metric(
    name="adaptive_ece",
    title="adaptive ECE",
    convention=(
        "15 equal-mass bins (lower, upper] of the largest probability with interpolated edges, "
        "the smallest confidence in no bin; mean over rows of |mean confidence - accuracy| "
        "(Mukhoti et al. 2020)"
    ),
    statistic=COLLECTED_SCORES,
    value=_adaptive_error,
)

KS = Metric(
    name="ks",
    title="KS",
    convention=(
        "Kolmogorov-Smirnov calibration error: with the rows in order of their largest "
        "probability, the largest |cumulated confidence - cumulated accuracy|, at the ends of "
        "ties (Gupta et al. 2021)"
    ),
    statistic=COLLECTED_SCORES,
    value=_kolmogorov_smirnov,
)
