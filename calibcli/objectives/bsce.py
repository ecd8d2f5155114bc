"""Cross-entropy weighted with a generalised Brier score."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from calibcli.arrays import Array, dot_classes, namespace, sum_classes
from calibcli.objectives.base import Objective, RowTerms, check_choice, check_range
from calibcli.objectives.focal import focal_terms, scheduled_gamma
from calibcli.objectives.likelihood import Likelihood, smallest
from calibcli.objectives.simplex import LARGEST_GAMMA, LossLink, Simplex
from calibcli.objectives.weighted import ScaledTerms, WeightedNll


class _EuclideanTerms(RowTerms):
    """Terms whose gradient is ``S^(gamma/2) (r + c p (r - E r))``.

    Here ``r = p - e_y``, ``S = |r|^2``, ``c = gamma nll / S`` and ``E r = sum p r``.
    """

    def __init__(self, likelihood: Likelihood, gamma: float) -> None:
        square = likelihood.squared_distance
        square = namespace(square).clip(square, min=smallest(square))
        self.likelihood = likelihood
        self._gamma = gamma
        self._power = square ** (gamma / 2)
        self._curl = gamma * likelihood.nll / square
        self.loss = self._power * likelihood.nll

    def gradient(self) -> Array:
        likelihood, probs = self.likelihood, self.likelihood.probs
        # p (S^(gamma/2) + c S^(gamma/2) (p - E r)) for the other classes.
        matrix = probs - self._mean_residual()[:, None]
        matrix *= (self._curl * self._power)[:, None]
        matrix += self._power[:, None]
        matrix *= probs
        # At the label r - E r is -S, without the cancellation.
        at_label = likelihood.miss + self._gamma * likelihood.true_prob * likelihood.nll
        matrix[likelihood.rows, likelihood.labels] = -self._power * at_label
        return matrix

    def along(self, direction: Array) -> tuple[Array, Array | None]:
        likelihood = self.likelihood
        at_label = likelihood.at_labels(direction)
        weighted = likelihood.probs * direction
        mean = sum_classes(weighted)
        product = dot_classes(likelihood.probs, weighted) - likelihood.true_prob * at_label
        tilt = product - self._mean_residual() * mean
        return self._power * (mean - at_label + self._curl * tilt), None

    def _mean_residual(self) -> Array:
        """``E r`` (n,)."""
        likelihood = self.likelihood
        others = likelihood.squared_distance - likelihood.miss**2
        return others - likelihood.true_prob * likelihood.miss


@dataclass(frozen=True)
class Bsce(Objective):
    """``|p - e_y|^gamma nll`` in the norm of order 1 or 2.

    Order 2 with gamma 2 weights with the Brier score. Order 1 is ``2^gamma`` times focal loss.
    """

    gamma: float = field(default=2.0, metadata={"help": "exponent; 0 is nll"})
    norm: Literal[1, 2] = field(default=2, metadata={"help": "order of the norm"})

    name = "bsce"
    title = "cross-entropy weighted with the Brier score"
    source = "Lin et al., Uncertainty weighted gradients for model calibration, CVPR 2025"
    published_reduction = "sum"
    proper = False

    def __post_init__(self) -> None:
        check_range(self, "gamma")
        check_choice(self, "norm")

    def terms(self, logits: Array, labels: Array) -> RowTerms:
        likelihood, gamma = Likelihood(logits, labels), float(self.gamma)
        if self.norm == 2:
            return _EuclideanTerms(likelihood, gamma)
        focal, scale = focal_terms(likelihood, gamma), 2**gamma
        return ScaledTerms(likelihood, focal.loss * scale, focal.factors * scale)


@dataclass(frozen=True)
class BsceGra(WeightedNll):
    """The gradient of nll times ``|p - e_y|^gamma``, the weight held fixed.

    Order 2 with gamma 2 weights with the Brier score, the paper's measure of uncertainty, and is
    the default; order 1 is ``2^gamma`` times `FocalGra`. The authors' code has order 1 and gamma 1
    by default, and order 2 and gamma 4 in the one command that it documents.
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
    published_reduction = "sum"
    proper = False

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

    def link(self) -> LossLink | None:
        if self.adaptive_gamma or self.gamma > LARGEST_GAMMA:
            return None
        return LossLink({"gamma": self.gamma, "norm": self.norm}, self._log_factors)

    def _log_factors(self, simplex: Simplex) -> Array:
        """Log of ``|q - e_k|^gamma``, but for a constant."""
        if self.norm == 1:
            return self.gamma * simplex.log_miss
        xp, top = namespace(simplex.probs), (simplex.rows, simplex.top)
        square = sum_classes(simplex.probs**2)[:, None] - 2 * simplex.probs + 1
        ratios = xp.exp(2 * (simplex.others - simplex.top_log_miss[:, None]))
        log_square = xp.log(xp.clip(square, min=0.1))
        # The most probable class may be so probable that the square is lost to rounding.
        log_square[top] = 2 * simplex.top_log_miss + xp.log1p(sum_classes(ratios))
        return self.gamma / 2 * log_square
