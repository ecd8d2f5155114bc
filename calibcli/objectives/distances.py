"""Cross-entropy plus a penalty on how far a row's logits lie below the largest of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any, ClassVar, Self, cast

import numpy as np

from calibcli.arrays import Array, NumpyArray, dot_classes, is_any, like, namespace, sum_classes
from calibcli.cached import cached_property
from calibcli.errors import UsageError
from calibcli.objectives.adaptive import Adaptive
from calibcli.objectives.base import RowTerms
from calibcli.objectives.likelihood import Likelihood

LARGEST_DISTANCE = 1e10
"""Greater ones count as this, so that squares and cubes of them have a place in float32."""


def possible_distances(distance: Array) -> tuple[Array, Array | None]:
    """Distances (n, K) below the row's largest logit, and the mask of impossible classes, or None.

    The distance of an impossible class is given as 0, in the same memory.
    """
    xp = namespace(distance)
    if bool(xp.max(distance) <= LARGEST_DISTANCE):
        return distance, None
    impossible = distance == xp.inf
    distance[impossible] = 0
    distance[distance > LARGEST_DISTANCE] = LARGEST_DISTANCE
    return distance, impossible if is_any(impossible) else None


class DistanceTerms(RowTerms, ABC):
    """``nll + P(d)`` with distances ``d_k = max_j z_j - z_k`` and a penalty P of them.

    The gradient flows through the maximum: with slopes s of P by the distances it is
    ``p - e_y - s + S e_max``, ``S = sum s``. The distance of the largest class is 0 whatever the
    logits; that of an impossible class counts as 0.

    Attributes
    ----------
    bends : bool
        Whether the penalty has a second derivative other than 0.
    """

    bends: ClassVar[bool] = True

    def __init__(self, likelihood: Likelihood) -> None:
        self.likelihood = likelihood
        distance, self._impossible = possible_distances(likelihood.distances())
        penalty, self.slope = self.penalty(distance)
        if self._impossible is not None:
            self.slope[self._impossible] = 0
        self.loss = likelihood.nll + penalty

    @cached_property
    def distance(self) -> Array:
        """The distances (n, K), for those penalties that bend."""
        return possible_distances(self.likelihood.distances())[0]

    @abstractmethod
    def penalty(self, distance: Array) -> tuple[Array, Array]:
        """Penalty (n,) and its derivative by the distances (n, K), may be written over them."""

    def curvature(self, drift: Array) -> Array:
        """Second derivative of the penalty times a change of the distances (n, K); 0 by default."""
        return namespace(drift).zeros_like(drift)

    def gradient(self) -> Array:
        return self._gradient(self.likelihood.probs - self.slope)

    def last_gradient(self) -> Array:
        probs = self.likelihood.exponentials
        probs /= self.likelihood.total[:, None]
        probs -= self.slope
        return self._gradient(probs)

    def _gradient(self, matrix: Array) -> Array:
        likelihood = self.likelihood
        matrix[likelihood.rows, likelihood.labels] -= 1
        matrix[likelihood.rows, likelihood.top] += sum_classes(self.slope)
        return matrix

    def product(self, direction: Array) -> Array:
        weighted = self.likelihood.probs * direction
        weighted -= self.likelihood.probs * sum_classes(weighted)[:, None]
        if self.bends:
            top = direction[self.likelihood.rows, self.likelihood.top]
            bend = self._of_free(self.curvature(self._of_free(top[:, None] - direction)))
            weighted -= bend
            weighted[self.likelihood.rows, self.likelihood.top] += sum_classes(bend)
        return weighted

    def diagonal(self) -> Array:
        probs = self.likelihood.probs
        matrix = probs - probs * probs
        if self.bends:
            bend = self._of_free(self.curvature(namespace(probs).ones_like(probs)))
            matrix += bend
            matrix[self.likelihood.rows, self.likelihood.top] += sum_classes(bend)
        return matrix

    def along(self, direction: Array) -> tuple[Array, Array | None]:
        likelihood = self.likelihood
        weighted = likelihood.exponentials * direction
        mean = sum_classes(weighted) / likelihood.total
        top = direction[likelihood.rows, self.likelihood.top]
        pull = sum_classes(self.slope) * top - dot_classes(self.slope, direction)
        first = mean - likelihood.at_labels(direction) + pull
        if self.bends:  # Another point costs less than the second derivative would.
            return first, None
        return first, dot_classes(weighted, direction) / likelihood.total - mean * mean

    def _of_free(self, matrix: Array) -> Array:
        """The matrix (n, K), with 0 for the classes whose distance is 0 whatever the logits."""
        matrix[self.likelihood.rows, self.likelihood.top] = 0
        if self._impossible is not None:
            matrix[self._impossible] = 0
        return matrix


_MARGIN_SHARE = 0.9
"""An automatic margin leaves the spread of so many rows alone."""


class WithMargin(Adaptive):
    """An adaptive penalty on distances beyond a margin; without one, data chooses it."""

    margin: float | None

    @property
    def wants_spreads(self) -> bool:
        return self.margin is None

    def with_spreads(self, spreads: NumpyArray) -> Self:
        # A margin below the spread of most rows would do little but raise the temperature.
        margin = float(np.quantile(spreads, _MARGIN_SHARE))
        return replace(cast("Any", self), margin=margin)  # type: ignore[no-any-return]

    def trace(self) -> dict[str, Any]:
        state = super().trace()
        return state | {"margin": self.margin} if state else {}


def given_margin(margin: float | None) -> float:
    """The margin, which must have been given or chosen.

    Raises
    ------
    UsageError
        For a margin that is still to be chosen from data.
    """
    if margin is None:
        raise UsageError("margin auto is chosen in a fit; give a number here")
    return float(margin)


def spread(logits: Array) -> Array:
    """Distance (n,) of the smallest possible class from the largest, of logits (n, K)."""
    xp = namespace(logits)
    finite = xp.where(xp.isinf(logits), like(xp.inf, logits), logits)
    return xp.max(logits, axis=-1) - xp.min(finite, axis=-1)
