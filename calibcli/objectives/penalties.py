"""Penalties of augmented Lagrangian methods, for constraints ``h <= 0``.

A penalty has a multiplier lambda >= 0 and a strength rho > 0; its slope at ``h = 0`` is lambda.
Here ``h = d / margin - 1`` for distances d. References: Liu et al., Class adaptive network
calibration, CVPR 2023; Birgin, Castillo and Martinez, Numerical comparison of augmented Lagrangian
algorithms, 2005 (PHR, P2 and P3).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from calibcli.arrays import Array, dot_classes, namespace, sum_classes


@dataclass(frozen=True)
class Penalty(ABC):
    """A convex, increasing function of the distance of each class.

    Parameters
    ----------
    margin : float
    multiplier, strength : array (K,)
        lambda and rho, in the precision and on the device of the distances.
    """

    margin: float
    multiplier: Array
    strength: Array

    @abstractmethod
    def mean_and_slope(self, distance: Array) -> tuple[Array, Array]:
        """Mean over the classes (n,), and its derivative by the distances (n, K), a new matrix."""

    @abstractmethod
    def bend(self, distance: Array) -> Array:
        """The second derivative (n, K) of the mean by each of the distances, a new matrix."""

    def excess(self, distance: Array) -> Array:
        """The constraints h (n, K)."""
        h = distance * (1 / self.margin)
        h -= 1
        return h

    def _scale(self, distance: Array) -> float:
        return float(self.margin * distance.shape[-1])


class Phr(Penalty):
    """``(max(lambda + rho h, 0)^2 - lambda^2) / (2 rho)``, of Powell, Hestenes and Rockafellar."""

    def mean_and_slope(self, distance: Array) -> tuple[Array, Array]:
        xp = namespace(distance)
        # The square root of the first term is affine in the distance where it is not 0.
        root = xp.sqrt(self.strength / 2)
        offset = self.multiplier / (2 * root)
        active = distance * (root / (2 * self.margin))
        active += (offset - root) / 2
        active += xp.abs(active)  # twice the positive part: a maximum with 0 is four times slower
        total = dot_classes(active, active) - xp.sum(offset * offset)
        active *= 2 * root / self._scale(distance)
        return total / distance.shape[-1], active

    def bend(self, distance: Array) -> Array:
        active = self.excess(distance) > -self.multiplier / self.strength
        factor = self.strength / (self._scale(distance) * self.margin)
        return namespace(distance).astype(active, distance.dtype) * factor


class P3(Penalty):
    """``lambda h + lambda rho h^2`` for ``h >= 0`` and ``lambda h / (1 - rho h)`` below."""

    def mean_and_slope(self, distance: Array) -> tuple[Array, Array]:
        above, below = self._parts(distance)
        damping = 1 / (1 - below)
        below *= damping
        below += above
        below += above * above
        below *= self.multiplier / self.strength
        damping *= damping
        damping += above
        damping += above
        damping *= self.multiplier / self._scale(distance)
        return sum_classes(below) / distance.shape[-1], damping

    def bend(self, distance: Array) -> Array:
        damping = 1 / (1 - self._parts(distance)[1])
        factor = 2 * self.multiplier * self.strength / (self._scale(distance) * self.margin)
        return damping * damping * damping * factor

    def _parts(self, distance: Array) -> tuple[Array, Array]:
        """``rho h`` (n, K) where it is positive and where it is negative, else 0."""
        half = self.excess(distance)
        half *= self.strength / 2
        size = namespace(half).abs(half)
        return half + size, half - size


class P2(P3):
    """``lambda h + lambda rho h^2 + rho^2 h^3 / 6`` for ``h >= 0``, the same as P3 below."""

    def mean_and_slope(self, distance: Array) -> tuple[Array, Array]:
        mean, slope = super().mean_and_slope(distance)
        above, _ = self._parts(distance)
        square = above * above
        slope += square * (1 / (2 * self._scale(distance)))
        square *= above
        square *= 1 / (6 * self.strength)
        return mean + sum_classes(square) / distance.shape[-1], slope

    def bend(self, distance: Array) -> Array:
        above, _ = self._parts(distance)
        factor = self.strength / (self._scale(distance) * self.margin)
        return super().bend(distance) + above * factor


PENALTIES: dict[str, type[Penalty]] = {"phr": Phr, "p2": P2, "p3": P3}
