"""Dual focal losses, which look at a rival of the label too."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from calibcli.arrays import Array, argmax, dot_classes, namespace, where_below
from calibcli.objectives.base import Objective, RowTerms, check_choice, check_range
from calibcli.objectives.likelihood import Likelihood, smallest
from calibcli.objectives.simplex import LOWEST, LossLink, Simplex, gamma_link
from calibcli.objectives.weighted import FrozenTerms, WeightedNll


def probs_below(likelihood: Likelihood) -> Array:
    """Probabilities (n, K) of the classes strictly less probable than the label, 0 elsewhere."""
    probs = likelihood.probs
    return where_below(probs, likelihood.at_labels(probs)[:, None]) * probs


class _Terms(RowTerms):
    """Terms whose gradient is ``a (p - e_y) + b p_j (e_j - p)``.

    Here ``u = 1 - p_y + p_j``, ``b = gamma u^(gamma - 1) nll`` and ``a = u^gamma + b p_y``;
    nll <= u keeps b finite.
    """

    def __init__(self, likelihood: Likelihood, gamma: float) -> None:
        xp = namespace(likelihood.nll)
        below = probs_below(likelihood)
        self.likelihood = likelihood
        self._rival = argmax(below)
        rival_prob = below[likelihood.rows, self._rival]
        weight = likelihood.miss + rival_prob
        power = weight**gamma
        bend = gamma * power * likelihood.nll / xp.clip(weight, min=smallest(weight))
        self.loss = power * likelihood.nll
        self._factors = power + bend * likelihood.true_prob
        self._rival_factors = bend * rival_prob

    def gradient(self) -> Array:
        likelihood, rival_factors = self.likelihood, self._rival_factors
        matrix = likelihood.probs * (self._factors - rival_factors)[:, None]
        at_label = -self._factors * likelihood.miss - rival_factors * likelihood.true_prob
        matrix[likelihood.rows, likelihood.labels] = at_label
        # Where no class is less probable the factor is 0, and its place does not matter.
        matrix[likelihood.rows, self._rival] += rival_factors
        return matrix

    def along(self, direction: Array) -> tuple[Array, Array | None]:
        likelihood = self.likelihood
        mean = dot_classes(likelihood.probs, direction)
        at_label = likelihood.at_labels(direction)
        rival = direction[likelihood.rows, self._rival]
        return self._factors * (mean - at_label) + self._rival_factors * (rival - mean), None


@dataclass(frozen=True)
class DualFocal(Objective):
    """``(1 - p_y + p_j)^gamma nll``, p_j the largest probability strictly below that of the label.

    That is not the runner-up: where the label is not the most probable class, j is the next one
    below it. Classes as probable as the label are left out; without any below, ``p_j = 0``.
    """

    gamma: float = field(default=5.0, metadata={"help": "exponent; 0 is nll"})

    name = "dual-focal"
    title = "dual focal loss"
    source = "Tao, Dong and Xu, Dual focal loss for calibration, ICML 2023"
    published_reduction = "sum"
    smooth = False
    proper = False

    def __post_init__(self) -> None:
        check_range(self, "gamma")

    def terms(self, logits: Array, labels: Array) -> RowTerms:
        return _Terms(Likelihood(logits, labels), float(self.gamma))


@dataclass(frozen=True)
class DualFocalGra(WeightedNll):
    """The gradient of nll times ``(1 - p_y + p_j)^gamma``, the whole weight held fixed.

    p_j is that of `DualFocal`. The authors' code holds p_j alone fixed (with `hold` "rival", for
    which there is no link), their paper all of it.
    """

    gamma: float = field(default=5.0, metadata={"help": "exponent; 0 is nll"})
    hold: Literal["weight", "rival"] = field(
        default="weight",
        metadata={"help": "what is held fixed: the weight, or of it the rival alone"},
    )

    name = "dual-focal-gra"
    title = "dual focal loss, uncertainty weighted gradients"
    source = "Lin et al., Uncertainty weighted gradients for model calibration, CVPR 2025"
    published_reduction = "sum"
    smooth = False
    proper = False

    def __post_init__(self) -> None:
        check_range(self, "gamma")
        check_choice(self, "hold")

    def terms(self, logits: Array, labels: Array) -> RowTerms:
        likelihood = Likelihood(logits, labels)
        terms = FrozenTerms(likelihood, self.row_weights(likelihood))
        if self.hold == "rival":
            terms.loss = self._power(likelihood)[1] * likelihood.nll
        return terms

    def row_weights(self, likelihood: Likelihood) -> Array:
        """The weights of the gradient; with the rival alone held fixed, more than the loss's."""
        base, power = self._power(likelihood)
        if self.hold == "weight":
            return power
        xp = namespace(base)
        # By the product rule; as the base goes to 0, nll goes with it, which keeps this finite.
        bend = self.gamma * power * likelihood.nll / xp.clip(base, min=smallest(base))
        return power + bend * likelihood.true_prob

    def _power(self, likelihood: Likelihood) -> tuple[Array, Array]:
        """``1 - p_y + p_j`` and its power gamma, of each row (n,)."""
        base = likelihood.miss + namespace(likelihood.nll).max(probs_below(likelihood), axis=-1)
        return base, base ** float(self.gamma)

    def link(self) -> LossLink | None:
        """The link, for the whole weight held fixed.

        It does not keep the order of classes, since the solutions of the estimating equation do not
        have that of the true probabilities: .50, .45 and .05 is one for .10, .89 and .01.
        """
        if self.hold != "weight":
            return None
        return gamma_link(self.gamma, self._log_factors, keeps_order=not self.gamma)

    def _log_factors(self, simplex: Simplex) -> Array:
        """Log of ``(1 - q + q_j)^gamma``, q_j the largest probability strictly below q."""
        xp = namespace(simplex.probs)
        order = xp.argsort(simplex.log_probs, axis=-1)
        ranked = xp.take_along_axis(simplex.log_probs, order, axis=-1)
        below = xp.full_like(ranked, LOWEST)
        for k in range(1, ranked.shape[-1]):
            tied = ranked[:, k] == ranked[:, k - 1]
            below[:, k] = xp.where(tied, below[:, k - 1], xp.clip(ranked[:, k - 1], min=LOWEST))
        place = xp.argsort(order, axis=-1)
        rival = xp.take_along_axis(below, place, axis=-1)
        return self.gamma * xp.logaddexp(simplex.log_miss, rival)
