"""Brier score: the quadratic score, summed over classes."""

from __future__ import annotations

from dataclasses import dataclass

from calibcli.arrays import Array, dot_classes, pick, softmax, subtract_one_hot, sum_classes
from calibcli.cached import cached_property
from calibcli.objectives.base import Objective, RowTerms


class _Terms(RowTerms):
    def __init__(self, logits: Array, labels: Array) -> None:
        self.labels = labels
        self.probs = softmax(logits)
        self.square = dot_classes(self.probs, self.probs)
        self.label_prob = pick(self.probs, labels)
        self.loss = self.square - 2 * self.label_prob + 1

    @cached_property
    def residual(self) -> Array:
        """Probabilities minus one at the label (n, K)."""
        return subtract_one_hot(self.probs * 1, self.labels)

    def _mean(self, values: Array) -> Array:
        return dot_classes(self.probs, values)[:, None]

    def gradient(self) -> Array:
        matrix = self.residual - self._mean(self.residual)
        matrix *= self.probs
        matrix *= 2
        return matrix

    def product(self, direction: Array) -> Array:
        # With d p = p (v - E v) and E f = sum p f, the change of p (r - E r) is
        # d p (r - E r) + p (d p - sum(d p r) - E d p).
        change = self.probs * (direction - self._mean(direction))
        centred = self.residual - self._mean(self.residual)
        shift = dot_classes(change, self.residual)[:, None] + self._mean(change)
        return 2 * (change * centred + self.probs * (change - shift))

    def along(self, direction: Array) -> tuple[Array, Array]:
        # The residual is p - e_y, so that moments of v under p and under p squared suffice.
        weighted = self.probs * direction
        mean = sum_classes(weighted)
        variance = dot_classes(weighted, direction) - mean * mean
        moment = dot_classes(weighted, self.probs)
        spread = dot_classes(weighted, weighted)
        at_label = pick(direction, self.labels)
        # Sums over the classes of r p, r p (v - E v) and r p (v - E v)^2.
        level = self.square - self.label_prob
        slope = moment - mean * self.square - self.label_prob * (at_label - mean)
        change = spread - 2 * mean * moment + mean * mean * self.square
        bend = change - self.label_prob * (at_label - mean) ** 2
        return 2 * slope, 2 * (change + bend - variance * level)


@dataclass(frozen=True)
class Brier(Objective):
    """``sum_k (p_k - [k = y])^2``, between 0 and 2; proper, not convex in the logits."""

    name = "brier"
    title = "Brier score, summed over classes"
    source = "Brier (1950), Verification of forecasts expressed in terms of probability"
    proper = True

    def terms(self, logits: Array, labels: Array) -> RowTerms:
        return _Terms(logits, labels)
