"""Losses whose gradient is that of the negative log-likelihood times a factor a row."""

from __future__ import annotations

from abc import abstractmethod

from calibcli.arrays import Array, dot_classes, sum_classes
from calibcli.objectives.base import Objective, RowTerms
from calibcli.objectives.likelihood import Likelihood


class ScaledTerms(RowTerms):
    """A loss (n,) whose gradient by the logits is ``factors * (p - e_y)``, with factors (n,).

    That is the shape of every function of the label's probability alone, and of the negative
    log-likelihood with row weights.
    """

    def __init__(self, likelihood: Likelihood, loss: Array, factors: Array) -> None:
        self.likelihood = likelihood
        self.loss = loss
        self.factors = factors

    def gradient(self) -> Array:
        return self.likelihood.residual(self.factors)

    def last_gradient(self) -> Array:
        return self.likelihood.last_residual(self.factors)

    def along(self, direction: Array) -> tuple[Array, Array | None]:
        slope, _ = self.likelihood.residual_along(direction)
        return self.factors * slope, None


class FrozenTerms(ScaledTerms):
    """The negative log-likelihood with row weights (n,) that depend on the logits, held fixed.

    The second derivative is that at fixed weights. A derivative of the gradient itself, which
    `along` would have to give, is not offered.
    """

    def __init__(self, likelihood: Likelihood, weights: Array) -> None:
        super().__init__(likelihood, weights * likelihood.nll, weights)

    def product(self, direction: Array) -> Array | None:
        probs = self.likelihood.probs * self.factors[:, None]
        weighted = self.likelihood.probs * direction
        return probs * (direction - sum_classes(weighted)[:, None])

    def diagonal(self) -> Array:
        probs = self.likelihood.probs
        return (probs - probs * probs) * self.factors[:, None]


class WeightedTerms(FrozenTerms):
    """The negative log-likelihood with row weights (n,) that don't depend on the logits."""

    def along(self, direction: Array) -> tuple[Array, Array]:
        likelihood = self.likelihood
        weighted = likelihood.exponentials * direction
        mean = sum_classes(weighted) / likelihood.total
        square = dot_classes(weighted, direction) / likelihood.total
        slope = mean - likelihood.at_labels(direction)
        return self.factors * slope, self.factors * (square - mean * mean)


class WeightedNll(Objective):
    """``u * nll`` with row weights u whose own derivative is left out.

    A loss in which an uncertain row counts for more, with u as a measure of its uncertainty: the
    uncertainty weighted gradients of Lin et al. (2025). Where u depends on the logits the gradient
    is that of no function, and a fit solves an estimating equation.
    """

    estimating = True

    @abstractmethod
    def row_weights(self, likelihood: Likelihood) -> Array:
        """The weights u (n,) at the logits of a likelihood."""

    def weights(self, logits: Array, labels: Array) -> Array:
        """The weights u (n,) at logits (n, K) for labels (n,)."""
        return self.row_weights(Likelihood(logits, labels))

    def terms(self, logits: Array, labels: Array) -> RowTerms:
        likelihood = Likelihood(logits, labels)
        form = FrozenTerms if self.estimating else WeightedTerms
        return form(likelihood, self.row_weights(likelihood))
