"""Negative log-likelihood: the logarithmic score, cross-entropy with the labels."""

from __future__ import annotations

from dataclasses import dataclass

from calibcli.arrays import Array, namespace, pick, shift, subtract_one_hot
from calibcli.objectives.base import Objective, RowTerms


class _Terms(RowTerms):
    def __init__(self, logits: Array, labels: Array) -> None:
        xp = namespace(logits)
        shifted = shift(logits)
        probs = xp.exp(shifted)
        total = xp.sum(probs, axis=-1)
        probs /= total[:, None]
        self.labels = labels
        self.probs = probs
        self.loss = xp.log(total) - pick(shifted, labels)

    def gradient(self) -> Array:
        return subtract_one_hot(self.probs * 1, self.labels)

    def product(self, direction: Array) -> Array:
        weighted = self.probs * direction
        weighted -= self.probs * namespace(weighted).sum(weighted, axis=-1, keepdims=True)
        return weighted

    def diagonal(self) -> Array:
        return self.probs - self.probs * self.probs

    def along(self, direction: Array) -> tuple[Array, Array]:
        xp = namespace(direction)
        weighted = self.probs * direction
        mean = xp.sum(weighted, axis=-1)
        weighted *= direction
        return mean - pick(direction, self.labels), xp.sum(weighted, axis=-1) - mean * mean


@dataclass(frozen=True)
class NegativeLogLikelihood(Objective):
    """``-log p_y``; its gradient by the logits is ``p - e_y``, its Hessian ``diag(p) - p p'``."""

    name = "nll"
    title = "negative log-likelihood (cross-entropy)"
    source = "Good (1952), Rational decisions"
    proper = True
    convex = True

    def terms(self, logits: Array, labels: Array) -> RowTerms:
        return _Terms(logits, labels)
