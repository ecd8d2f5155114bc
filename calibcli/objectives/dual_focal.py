"""Dual focal loss."""

from __future__ import annotations

from dataclasses import dataclass, field

from calibcli.arrays import Array, argmax, dot_classes, namespace
from calibcli.objectives.base import Objective, RowTerms
from calibcli.objectives.checks import check_range
from calibcli.objectives.likelihood import Likelihood, smallest


def probs_below(likelihood: Likelihood) -> Array:
    """Probabilities (n, K) of the classes strictly less probable than the label, 0 elsewhere."""
    probs = likelihood.probs
    is_below = probs < likelihood.at_labels(probs)[:, None]
    return namespace(probs).astype(is_below, probs.dtype) * probs


class _Terms(RowTerms):
    """With ``u = 1 - p_y + p_j``, the gradient is ``a (p - e_y) + b p_j (e_j - p)``.

    Here ``b = gamma u^(gamma - 1) nll`` and ``a = u^gamma + b p_y``; nll <= u keeps b finite.
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
        own = -self._factors * likelihood.miss - rival_factors * likelihood.true_prob
        matrix[likelihood.rows, likelihood.labels] = own
        # Where no class is less probable the factor is 0, and its place does not matter.
        matrix[likelihood.rows, self._rival] += rival_factors
        return matrix

    def along(self, direction: Array) -> tuple[Array, Array | None]:
        likelihood = self.likelihood
        mean = dot_classes(likelihood.probs, direction)
        own = likelihood.at_labels(direction)
        rival = direction[likelihood.rows, self._rival]
        return self._factors * (mean - own) + self._rival_factors * (rival - mean), None


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
    smooth = False
    proper = False

    def __post_init__(self) -> None:
        check_range(self, "gamma")

    def terms(self, logits: Array, labels: Array) -> RowTerms:
        return _Terms(Likelihood(logits, labels), float(self.gamma))
