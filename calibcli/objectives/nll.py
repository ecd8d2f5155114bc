"""Negative log-likelihood: the logarithmic score, cross-entropy with the labels."""

from __future__ import annotations

from dataclasses import dataclass

from calibcli.arrays import (
    Array,
    dot_classes,
    namespace,
    pick,
    scaled_exponentials,
    subtract_one_hot,
    sum_classes,
)
from calibcli.cached import cached_property
from calibcli.objectives.base import Objective, RowTerms


class _Terms(RowTerms):
    def __init__(self, logits: Array, labels: Array) -> None:
        self._exponentials, top, high = scaled_exponentials(logits)
        self._total = sum_classes(self._exponentials)
        self._labels = labels
        self.loss = namespace(logits).log(self._total / top) + (high - pick(logits, labels))

    @cached_property
    def probs(self) -> Array:
        """Probabilities (n, K)."""
        return self._exponentials / self._total[:, None]

    def gradient(self) -> Array:
        return subtract_one_hot(self._exponentials / self._total[:, None], self._labels)

    def last_gradient(self) -> Array:
        self._exponentials /= self._total[:, None]
        return subtract_one_hot(self._exponentials, self._labels)

    def product(self, direction: Array) -> Array:
        weighted = self.probs * direction
        weighted -= self.probs * sum_classes(weighted)[:, None]
        return weighted

    def diagonal(self) -> Array:
        return self.probs - self.probs * self.probs

    def along(self, direction: Array) -> tuple[Array, Array]:
        weighted = self._exponentials * direction
        mean = sum_classes(weighted) / self._total
        square = dot_classes(weighted, direction) / self._total
        return mean - pick(direction, self._labels), square - mean * mean


@dataclass(frozen=True)
class NegativeLogLikelihood(Objective):
    """``-log p_y``; its gradient by the logits is ``p - e_y``, its Hessian ``diag(p) - p p'``."""

    name = "nll"
    title = "negative log-likelihood (cross-entropy)"
    source = "Good (1952), Rational decisions"
    proper = True
    convex = True
    likelihood = True

    @property
    def label_slope(self) -> float:
        return 1.0

    def terms(self, logits: Array, labels: Array) -> RowTerms:
        return _Terms(logits, labels)
