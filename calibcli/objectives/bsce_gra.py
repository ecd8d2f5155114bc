"""Generalised Brier weights on the gradient of the negative log-likelihood."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from calibcli.arrays import Array
from calibcli.objectives.checks import check_choice, check_range
from calibcli.objectives.flsd import scheduled_gamma
from calibcli.objectives.likelihood import Likelihood
from calibcli.objectives.weighted import WeightedNll


@dataclass(frozen=True)
class BsceGra(WeightedNll):
    """The gradient of nll times ``|p - e_y|^gamma``, the weight held fixed.

    Order 2 with gamma 2 weights with the Brier score; order 1 is ``2^gamma`` times `FocalGra`.
    """

    gamma: float = field(default=2.0, metadata={"help": "exponent; 0 is nll"})
    norm: Literal[1, 2] = field(default=2, metadata={"help": "order of the norm"})
    adaptive_gamma: bool = field(
        default=False,
        metadata={"help": "exponent 5 for p_y < 0.2, 3 for p_y < 0.5; no link"},
    )

    name = "bsce-gra"
    title = "Brier weights, uncertainty weighted gradients"
    source = "Lin et al., Uncertainty weighted gradients for model calibration, CVPR 2025"
    proper = False
    link = True

    def __post_init__(self) -> None:
        check_range(self, "gamma")
        check_choice(self, "norm")

    def row_weights(self, likelihood: Likelihood) -> Array:
        gamma: float | Array = float(self.gamma)
        if self.adaptive_gamma:
            gamma = scheduled_gamma(likelihood.true_prob, float(self.gamma))
        if self.norm == 1:
            return (2 * likelihood.miss) ** gamma
        return likelihood.squared_distance ** (gamma / 2)
