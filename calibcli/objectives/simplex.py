"""Probabilities as the links of losses see them: of each class, and of all others.

Where the gradient of a loss by the logits is ``u_y(q) (q - e_y)``, probabilities q that make its
expectation stationary belong to true ones ``eta_k`` proportional to ``q_k / u_k(q)``: with this map
behind it, the loss is a proper composite loss (Reid and Williamson, Composite binary losses, JMLR
2010; Charoenphakdee et al., On focal loss for class-posterior probability estimation, CVPR 2021).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from calibcli.arrays import Array, argmax, namespace, sum_classes
from calibcli.cached import cached_property
from calibcli.objectives.likelihood import smallest

LOWEST = -1e30
"""A logarithm whose exponential is 0, but which is finite in products with exponents."""

LARGEST_GAMMA = 1000.0
"""Exponents above have no link: its logarithms would lose their digits."""


class Simplex:
    """Log-probabilities (n, K) and, with all digits, those of all other classes.

    Attributes
    ----------
    log_probs, probs : array (n, K)
    log_miss, miss : array (n, K)
        Of each class, the probability of the others.
    top : int array (n,)
    """

    def __init__(self, log_probs: Array) -> None:
        xp = namespace(log_probs)
        self.log_probs = log_probs
        self.probs = xp.exp(log_probs)
        self.top = argmax(log_probs)
        self.rows = xp.arange(log_probs.shape[0], device=log_probs.device)
        self.others = log_probs * 1
        self.others[self.rows, self.top] = -xp.inf
        # The most probable class may have a probability of 1: the others are added up instead.
        largest = xp.clip(xp.max(self.others, axis=-1), min=LOWEST)
        total = sum_classes(xp.exp(self.others - largest[:, None]))
        self.top_log_miss = largest + xp.log(xp.clip(total, min=smallest(log_probs)))
        self.log_miss = xp.log1p(-xp.exp(self.others))
        self.log_miss[self.rows, self.top] = self.top_log_miss
        self.miss = xp.exp(self.log_miss)

    @cached_property
    def odds_of_nll(self) -> Array:
        """``-q ln q / (1-q)`` (n, K), which goes to 1 as q does."""
        xp = namespace(self.probs)
        miss = xp.clip(self.miss, min=smallest(self.miss))
        likely = -xp.log1p(-xp.clip(miss, max=0.75))
        nll = xp.where(self.probs > 0.5, likely, -xp.clip(self.log_probs, min=LOWEST))
        return self.probs * nll / miss


@dataclass(frozen=True)
class LossLink:
    """The link of a loss, with the options that it depends on.

    Attributes
    ----------
    options : mapping of str to float
        By name; a parameter file has them.
    log_factors : callable
        Simplex of probabilities q -> ``ln u_k(q)`` (n, K), but for a constant a row.
    keeps_order : bool
        Whether no class ever overtakes another.
    """

    options: Mapping[str, float]
    log_factors: Callable[[Simplex], Array]
    keeps_order: bool = True


def gamma_link(
    gamma: float, log_factors: Callable[[Simplex], Array], *, keeps_order: bool = True
) -> LossLink | None:
    """The link of a loss with an exponent; None for one that is too large."""
    return LossLink({"gamma": gamma}, log_factors, keeps_order) if gamma <= LARGEST_GAMMA else None
