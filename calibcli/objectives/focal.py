"""Focal losses: functions of the label's probability that weight a row by it."""

from __future__ import annotations

from dataclasses import dataclass, field

from calibcli.arrays import Array, like, namespace
from calibcli.objectives.base import Objective, RowTerms, check_range
from calibcli.objectives.likelihood import Likelihood, smallest
from calibcli.objectives.simplex import LossLink, Simplex, gamma_link
from calibcli.objectives.weighted import ScaledTerms, WeightedNll

LARGEST_INVERSE_GAMMA = 3.59
"""Up to this exponent inverse focal loss falls steadily as the label's probability grows."""

_LARGEST_ORDERED_GAMMA = 1.61
"""Beyond, expected inverse focal loss has several minima, and near ties may change places."""


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
    published_reduction = "sum"
    proper = False

    def __post_init__(self) -> None:
        check_range(self, "gamma")

    def terms(self, logits: Array, labels: Array) -> RowTerms:
        return focal_terms(Likelihood(logits, labels), float(self.gamma))

    def link(self) -> LossLink | None:
        return gamma_link(self.gamma, self._log_factors)

    def _log_factors(self, simplex: Simplex) -> Array:
        """Log of ``(1-q)^gamma (1 + gamma q nll / (1-q))``."""
        growth = namespace(simplex.probs).log1p(self.gamma * simplex.odds_of_nll)
        return self.gamma * simplex.log_miss + growth


@dataclass(frozen=True)
class InverseFocal(Objective):
    """``(1 + p_y)^gamma nll``: rows that are fitted well count for more.

    From a gamma of about 3.59 on it does not fall steadily as the label's probability grows, and
    has no link.
    """

    gamma: float = field(default=2.0, metadata={"help": "exponent; 0 is nll"})

    name = "inverse-focal"
    title = "inverse focal loss"
    source = "Wang et al., Rethinking calibration of deep neural networks, NeurIPS 2021"
    proper = False

    def __post_init__(self) -> None:
        check_range(self, "gamma")

    def terms(self, logits: Array, labels: Array) -> RowTerms:
        return focal_terms(Likelihood(logits, labels), -float(self.gamma))

    def link(self) -> LossLink | None:
        if self.gamma > LARGEST_INVERSE_GAMMA:
            return None
        ordered = self.gamma <= _LARGEST_ORDERED_GAMMA
        return gamma_link(self.gamma, self._log_factors, keeps_order=ordered)

    def _log_factors(self, simplex: Simplex) -> Array:
        """Log of ``(1+q)^gamma (1 - gamma q nll / (1+q))``."""
        xp, gamma = namespace(simplex.probs), self.gamma
        entropy = simplex.odds_of_nll * simplex.miss
        return gamma * xp.log1p(simplex.probs) + xp.log1p(-gamma * entropy / (1 + simplex.probs))


def scheduled_gamma(true_prob: Array, gamma: float) -> Array:
    """The exponent (n,): 5 for labels with a probability below 0.2, 3 below 0.5, else gamma."""
    xp = namespace(true_prob)
    five, three, rest = (like(value, true_prob) for value in (5.0, 3.0, gamma))
    return xp.where(true_prob < 0.2, five, xp.where(true_prob < 0.5, three, rest))


@dataclass(frozen=True)
class Flsd(Objective):
    """``(1 - p_y)^g nll`` with ``g = 5`` where ``p_y < 0.2`` and 3 elsewhere.

    The exponent jumps, and the loss with it: it falls by a third as p_y passes 0.2 downwards.
    """

    name = "flsd"
    title = "focal loss, sample-dependent (FLSD-53)"
    source = "Mukhoti et al., Calibrating deep neural networks using focal loss, NeurIPS 2020"
    published_reduction = "sum"
    smooth = False
    proper = False

    def terms(self, logits: Array, labels: Array) -> RowTerms:
        likelihood = Likelihood(logits, labels)
        return focal_terms(likelihood, scheduled_gamma(likelihood.true_prob, 3.0))


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
    published_reduction = "sum"
    proper = False

    def __post_init__(self) -> None:
        check_range(self, "gamma")

    def row_weights(self, likelihood: Likelihood) -> Array:
        if not self.adaptive_gamma:
            return likelihood.miss ** float(self.gamma)
        return likelihood.miss ** scheduled_gamma(likelihood.true_prob, float(self.gamma))

    def link(self) -> LossLink | None:
        return None if self.adaptive_gamma else gamma_link(self.gamma, self._log_factors)

    def _log_factors(self, simplex: Simplex) -> Array:
        """Log of ``(1-q)^gamma``."""
        return self.gamma * simplex.log_miss
