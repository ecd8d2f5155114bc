"""Brier score: the quadratic score, summed over classes."""

from __future__ import annotations

from dataclasses import dataclass

from calibcli.arrays import Array, namespace, softmax, subtract_one_hot
from calibcli.objectives.base import Objective, RowTerms


class _Terms(RowTerms):
    def __init__(self, logits: Array, labels: Array) -> None:
        xp = namespace(logits)
        self.probs = softmax(logits)
        self.residual = subtract_one_hot(self.probs * 1, labels)
        self.loss = xp.sum(self.residual * self.residual, axis=-1)

    def _mean(self, values: Array) -> Array:
        return namespace(values).sum(self.probs * values, axis=-1, keepdims=True)

    def gradient(self) -> Array:
        return 2 * self.probs * (self.residual - self._mean(self.residual))

    def product(self, direction: Array) -> Array:
        # With d p = p (v - E v) and E f = sum p f, the change of p (r - E r) is
        # d p (r - E r) + p (d p - sum(d p r) - E d p).
        xp = namespace(direction)
        change = self.probs * (direction - self._mean(direction))
        centred = self.residual - self._mean(self.residual)
        shift = xp.sum(change * self.residual, axis=-1, keepdims=True) + self._mean(change)
        return 2 * (change * centred + self.probs * (change - shift))


@dataclass(frozen=True)
class Brier(Objective):
    """``sum_k (p_k - [k = y])^2``, between 0 and 2; proper, not convex in the logits."""

    name = "brier"
    title = "Brier score, summed over classes"
    source = "Brier (1950), Verification of forecasts expressed in terms of probability"
    proper = True

    def terms(self, logits: Array, labels: Array) -> RowTerms:
        return _Terms(logits, labels)
