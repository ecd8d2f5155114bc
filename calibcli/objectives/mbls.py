"""Margin-based label smoothing."""

from __future__ import annotations

from dataclasses import dataclass, field

from calibcli.arrays import Array, dot_classes, sum_classes, where_above
from calibcli.objectives.base import Objective, RowTerms, check_range
from calibcli.objectives.distances import DistanceTerms
from calibcli.objectives.likelihood import Likelihood


class HingeTerms(DistanceTerms):
    """``nll + sum_k w_k relu(d_k - margin)``, with strengths w: a float or an array (K,).

    Its second derivative is that of nll, except where a distance equals the margin.
    """

    bends = False

    def __init__(self, likelihood: Likelihood, margin: float, strength: float | Array) -> None:
        self._margin = margin
        self._strength = strength
        super().__init__(likelihood)

    def penalty(self, distance: Array) -> tuple[Array, Array]:
        slope = where_above(distance, self._margin)
        slope *= self._strength
        return dot_classes(slope, distance) - self._margin * sum_classes(slope), slope


@dataclass(frozen=True)
class Mbls(Objective):
    """``nll + strength * mean_k relu(max_j z_j - z_k - margin)``: logits may not spread."""

    margin: float = field(default=10.0, metadata={"help": "distance that costs nothing"})
    strength: float = field(default=0.1, metadata={"help": "weight of the penalty"})

    name = "mbls"
    title = "margin-based label smoothing"
    source = "Liu et al., The devil is in the margin, CVPR 2022"
    published_reduction = "mean"
    smooth = False
    proper = False
    convex = True

    def __post_init__(self) -> None:
        check_range(self, "margin")
        check_range(self, "strength")

    @property
    def label_slope(self) -> float:
        return 1.0

    def terms(self, logits: Array, labels: Array) -> RowTerms:
        strength = float(self.strength) / logits.shape[-1]
        return HingeTerms(Likelihood(logits, labels), float(self.margin), strength)
