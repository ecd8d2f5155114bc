"""Dual focal weights on the gradient of the negative log-likelihood."""

from __future__ import annotations

from dataclasses import dataclass, field

from calibcli.arrays import Array, namespace
from calibcli.objectives.checks import check_range
from calibcli.objectives.dual_focal import probs_below
from calibcli.objectives.likelihood import Likelihood
from calibcli.objectives.weighted import WeightedNll


@dataclass(frozen=True)
class DualFocalGra(WeightedNll):
    """The gradient of nll times ``(1 - p_y + p_j)^gamma``, the whole weight held fixed.

    p_j is that of `DualFocal`. The authors' code holds p_j alone fixed, their paper all of it.
    """

    gamma: float = field(default=5.0, metadata={"help": "exponent; 0 is nll"})

    name = "dual-focal-gra"
    title = "dual focal loss, uncertainty weighted gradients"
    source = "Lin et al., Uncertainty weighted gradients for model calibration, CVPR 2025"
    smooth = False
    proper = False
    link = True

    def __post_init__(self) -> None:
        check_range(self, "gamma")

    def row_weights(self, likelihood: Likelihood) -> Array:
        rival = namespace(likelihood.nll).max(probs_below(likelihood), axis=-1)
        return (likelihood.miss + rival) ** float(self.gamma)
