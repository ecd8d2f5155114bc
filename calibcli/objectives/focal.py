"""Focal loss, and the form that all losses of its family share."""

from __future__ import annotations

from dataclasses import dataclass, field

from calibcli.arrays import Array, namespace
from calibcli.objectives.base import Objective, RowTerms
from calibcli.objectives.checks import check_range
from calibcli.objectives.likelihood import Likelihood, smallest
from calibcli.objectives.weighted import ScaledTerms


def focal_terms(likelihood: Likelihood, gamma: float | Array) -> ScaledTerms:
    """``(1 - p_y)^gamma nll``, or ``(1 + p_y)^|gamma| nll`` where gamma is negative.

    With b the base, the gradient is ``b^|gamma| (1 + gamma p_y nll / b)`` times ``p - e_y``:
    written so, it needs no power of b lower than gamma and is finite at ``p_y = 1``, where nll / b
    goes to 1, for any gamma.

    Parameters
    ----------
    likelihood : Likelihood
    gamma : float or array (n,)
    """
    xp = namespace(likelihood.nll)
    if isinstance(gamma, float):
        base = likelihood.miss if gamma >= 0 else 1 + likelihood.true_prob
    else:
        base = xp.where(gamma >= 0, likelihood.miss, 1 + likelihood.true_prob)
    power = base ** abs(gamma)
    ratio = likelihood.nll / xp.clip(base, min=smallest(base))
    return ScaledTerms(
        likelihood, power * likelihood.nll, power * (1 + gamma * likelihood.true_prob * ratio)
    )


@dataclass(frozen=True)
class Focal(Objective):
    """``(1 - p_y)^gamma nll``: rows that are fitted well count for less."""

    gamma: float = field(default=3.0, metadata={"help": "exponent; 0 is nll"})

    name = "focal"
    title = "focal loss"
    source = (
        "Lin et al., Focal loss for dense object detection, ICCV 2017; "
        "Mukhoti et al., Calibrating deep neural networks using focal loss, NeurIPS 2020"
    )
    proper = False
    link = True

    def __post_init__(self) -> None:
        check_range(self, "gamma")

    def terms(self, logits: Array, labels: Array) -> RowTerms:
        return focal_terms(Likelihood(logits, labels), float(self.gamma))
