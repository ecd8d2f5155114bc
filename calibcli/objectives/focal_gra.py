"""Focal weights on the gradient of the negative log-likelihood."""

from __future__ import annotations

from dataclasses import dataclass, field

from calibcli.arrays import Array
from calibcli.objectives.checks import check_range
from calibcli.objectives.flsd import scheduled_gamma
from calibcli.objectives.likelihood import Likelihood
from calibcli.objectives.weighted import WeightedNll


@dataclass(frozen=True)
class FocalGra(WeightedNll):
    """The gradient of nll times ``(1 - p_y)^gamma``, the weight held fixed."""

    gamma: float = field(default=3.0, metadata={"help": "exponent; 0 is nll"})
    adaptive_gamma: bool = field(
        default=False,
        metadata={"help": "exponent 5 for p_y < 0.2, 3 for p_y < 0.5 (FLSD-53); no link"},
    )

    name = "focal-gra"
    title = "focal loss, uncertainty weighted gradients"
    source = "Lin et al., Uncertainty weighted gradients for model calibration, CVPR 2025"
    proper = False
    link = True

    def __post_init__(self) -> None:
        check_range(self, "gamma")

    def row_weights(self, likelihood: Likelihood) -> Array:
        if not self.adaptive_gamma:
            return likelihood.miss ** float(self.gamma)
        return likelihood.miss ** scheduled_gamma(likelihood.true_prob, float(self.gamma))
