"""Cross-entropy plus the maximum mean calibration error, a kernel statistic of pairs of rows."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from calibcli.arrays import Array, NumpyArray, like, namespace
from calibcli.objectives.adaptive import (
    Adaptive,
    LearntState,
    confidences,
)
from calibcli.objectives.base import RowTerms, check_range
from calibcli.objectives.likelihood import Likelihood


@dataclass(frozen=True, eq=False)
class ResidualField(LearntState):
    """``F(r) = mean_j (c_j - r_j) exp(-|r - r_j| / width)`` of confidences r_j and hits c_j.

    Attributes
    ----------
    confidence : float64 array (m,)
        The different r_j, in ascending order.
    left : float64 array (m + 1,)
        Mean over the rows of ``(c_j - r_j) exp(r_j / width)``, summed from below.
    right : float64 array (m + 1,)
        Mean over the rows of ``(c_j - r_j) exp(-r_j / width)``, summed from above.
    square : float
        The mean of ``(c - r) F(r)``, which is the squared error.
    """

    confidence: NumpyArray
    left: NumpyArray
    right: NumpyArray
    square: float

    def trace(self) -> dict[str, Any]:
        return {"mmce_squared": self.square}

    def change(self, before: ResidualField) -> float:
        return abs(self.square - before.square)


class _Terms(RowTerms):
    """``nll + strength (2 (c - r) F(r) - square)``, F held fixed."""

    def __init__(self, likelihood: Likelihood, objective: Mmce) -> None:
        self.likelihood = likelihood
        confidence = likelihood.confidence
        value, slope = objective.field_at(confidence)
        residual = likelihood.hits - confidence
        strength = float(objective.strength)
        self.loss = likelihood.nll
        if objective.state is not None:
            self.loss = self.loss + strength * (2 * residual * value - objective.state.square)
        self._pull = 2 * strength * (residual * slope - value) * confidence

    def gradient(self) -> Array:
        likelihood = self.likelihood
        # The confidence r has the gradient r (e_top - p).
        matrix = likelihood.probs * (1 - self._pull)[:, None]
        matrix[likelihood.rows, likelihood.labels] -= 1
        matrix[likelihood.rows, likelihood.top] += self._pull
        return matrix

    def along(self, direction: Array) -> tuple[Array, Array | None]:
        slope, mean = self.likelihood.residual_along(direction)
        top = direction[self.likelihood.rows, self.likelihood.top]
        return slope + self._pull * (top - mean), None


@dataclass(frozen=True)
class Mmce(Adaptive):
    """``nll + strength * sum_ij (c_i - r_i) (c_j - r_j) exp(-|r_i - r_j| / width) / n^2``.

    Here r is the confidence of a row and c whether its most probable class is the label. The sum
    over pairs is the mean of ``(c - r) F(r)`` with a field F that the other rows make (see
    `ResidualField`). With the field of the same logits as state, the mean loss and its gradient are
    exactly those of the whole. The kernel decays exponentially, so that two running sums over the
    sorted confidences give the field: n log n operations rather than n^2.

    The statistic collects 24 bytes for each row of the fit.
    """

    strength: float = field(default=1.0, metadata={"help": "weight of the calibration error"})
    width: float = field(default=0.4, metadata={"help": "width of the kernel of confidences"})
    state: ResidualField | None = field(default=None, compare=False, repr=False)

    name = "mmce"
    title = "cross-entropy plus maximum mean calibration error"
    source = "Kumar, Sarawagi and Jain, Trainable calibration measures, ICML 2018"
    proper = True
    smooth = False
    learns = "at every point"

    def __post_init__(self) -> None:
        check_range(self, "strength")
        check_range(self, "width", 0.05)

    def terms(self, logits: Array, labels: Array) -> RowTerms:
        return _Terms(Likelihood(logits, labels), self)

    def field_at(self, confidence: Array) -> tuple[Array, Array]:
        """The field and its derivative (n,) at confidences (n,); a row's own part is flat."""
        xp = namespace(confidence)
        if self.state is None:
            return xp.zeros_like(confidence), xp.zeros_like(confidence)
        known = like(self.state.confidence, confidence)
        below = xp.searchsorted(known, confidence, side="left")
        last = len(self.state.confidence) - 1
        upto = below + xp.astype(known[xp.clip(below, max=last)] == confidence, below.dtype)
        growth = xp.exp(confidence / float(self.width))
        left, right = like(self.state.left, confidence), like(self.state.right, confidence)
        falling, rising = left[below] / growth, right[upto] * growth
        level = (left[upto] - left[below]) / growth
        return falling + level + rising, (rising - falling) / float(self.width)

    def statistic(
        self, logits: Array, labels: Array, weights: Array | None = None
    ) -> list[NumpyArray]:
        return confidences(logits, labels, weights)

    def updated(self, statistic: Any) -> Mmce:
        confidence, correct, weights = np.concatenate(statistic, axis=-1)
        known, place = np.unique(confidence, return_inverse=True)
        residual = weights / weights.sum() * (correct - confidence)
        by_level = np.bincount(place, residual)
        growth = np.exp(known / self.width)
        left = np.concatenate(([0.0], np.cumsum(by_level * growth)))
        right = np.concatenate((np.cumsum((by_level / growth)[::-1])[::-1], [0.0]))
        unscaled = replace(self, state=ResidualField(known, left, right, 0.0))
        square = float(by_level @ unscaled.field_at(known)[0])
        return replace(self, state=ResidualField(known, left, right, square))
