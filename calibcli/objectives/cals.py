"""Class-adaptive label smoothing, by an augmented Lagrangian (CALS-ALM) or a rule (CALS-HR).

A penalty of an augmented Lagrangian method is for a constraint ``h <= 0``. It has a multiplier
lambda >= 0 and a strength rho > 0; its slope at ``h = 0`` is lambda. Here ``h = d / margin - 1``
for distances d.

References
----------
Liu et al., Class adaptive network calibration, CVPR 2023; Birgin, Castillo and Martinez, Numerical
comparison of augmented Lagrangian algorithms, 2005 (PHR, P2 and P3).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import numpy as np

from calibcli.arrays import (
    Array,
    NumpyArray,
    dot_classes,
    like,
    namespace,
    positive_affine,
    shift,
    sum_classes,
)
from calibcli.objectives.adaptive import (
    LearntState,
    largest_change,
    sum_of_rows,
    total_weight,
)
from calibcli.objectives.base import RowTerms, check_choice, check_range
from calibcli.objectives.distances import (
    DistanceTerms,
    WithMargin,
    given_margin,
    possible_distances,
)
from calibcli.objectives.likelihood import Likelihood
from calibcli.objectives.mbls import HingeTerms


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
        """Mean over the classes (n,), and its derivative by the distances (n, K).

        The derivative may be written over the distances.
        """

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
        active = positive_affine(distance, root / self.margin, offset - root)
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


SMALLEST_MULTIPLIER, LARGEST_MULTIPLIER = 1e-6, 1e6
_LARGEST_STRENGTH = 10.0


@dataclass(frozen=True, eq=False)
class Multipliers(LearntState):
    """State of the constraints, one a class; float64 arrays (K,).

    Attributes
    ----------
    multiplier, strength : array
        lambda and rho.
    constraint : array
        Mean constraint on the validation rows at the last update.
    step : array
        Share of the way to its new value that each multiplier goes.
    direction : array
        Where each multiplier went last: -1, 0 or 1.
    updates : int
    """

    multiplier: NumpyArray
    strength: NumpyArray
    constraint: NumpyArray
    step: NumpyArray
    direction: NumpyArray
    updates: int

    def trace(self) -> dict[str, Any]:
        return {
            "lambda": self.multiplier.tolist(),
            "rho": self.strength.tolist(),
            "constraint": self.constraint.tolist(),
        }

    def change(self, before: Multipliers) -> float:
        return max(
            largest_change(self.multiplier, before.multiplier, 1 + before.multiplier),
            largest_change(self.strength, before.strength, before.strength),
        )


class _Terms(DistanceTerms):
    """The mean over classes of penalties of the distances."""

    def __init__(self, likelihood: Likelihood, penalty: Penalty) -> None:
        self._penalty = penalty
        super().__init__(likelihood)

    def penalty(self, distance: Array) -> tuple[Array, Array]:
        return self._penalty.mean_and_slope(distance)

    def curvature(self, drift: Array) -> Array:
        bend = self._penalty.bend(self.distance)
        bend *= drift
        return bend


@dataclass(frozen=True)
class Cals(WithMargin):
    """``nll + mean_k P(h_k; lambda_k, rho_k)`` with ``h_k = (max_j z_j - z_k) / margin - 1``.

    An augmented Lagrangian of the problem to minimise nll while no logit lies further below the
    largest one than the margin. After each solve, on validation rows, lambda_k becomes the mean of
    the penalty's derivative, and at every `period`-th update rho_k grows where the mean constraint
    is positive and has not fallen below `tolerance` of what it was.

    With `damped`, the step of a multiplier is halved whenever it turns around (Kesten,
    Accelerated stochastic approximation, 1958), so that it settles where the rule alone swings.
    """

    margin: float | None = field(
        default=10.0,
        metadata={
            "help": "distance that costs nothing; auto takes it from the logits of nll's fit"
        },
    )
    penalty: Literal["phr", "p2", "p3"] = field(
        default="phr", metadata={"help": "of the augmented Lagrangian: phr, p2 or p3"}
    )
    growth: float = field(default=1.2, metadata={"help": "factor by which rho grows"})
    tolerance: float = field(
        default=0.9, metadata={"help": "share of the last constraint above which rho grows"}
    )
    period: int = field(default=10, metadata={"help": "updates between those of rho; 0 keeps it"})
    damped: bool = field(
        default=True, metadata={"help": "halve the step of a multiplier that turns around"}
    )
    select: Literal["nll", "ece"] = field(
        default="nll", metadata={"help": "figure of the inner split by which a round is chosen"}
    )
    state: Multipliers | None = field(default=None, compare=False, repr=False)

    name = "cals"
    title = "class-adaptive label smoothing (CALS-ALM)"
    source = "Liu et al., Class adaptive network calibration, CVPR 2023"
    published_reduction = "mean"
    proper = False
    convex = True
    learns = "on validation rows"
    # In a fit multipliers have a point to settle at; in training they follow a changing network.
    training_defaults: ClassVar = {"damped": False}

    def __post_init__(self) -> None:
        if self.margin is not None:
            check_range(self, "margin", 1e-6)
        check_choice(self, "penalty")
        check_range(self, "growth", 1.0)
        check_range(self, "tolerance")
        check_range(self, "period")

    @property
    def label_slope(self) -> float:
        return 1.0

    def terms(self, logits: Array, labels: Array) -> RowTerms:
        return _Terms(Likelihood(logits, labels), self._penalty(logits))

    def statistic(self, logits: Array, labels: Array, weights: Array | None = None) -> NumpyArray:
        penalty = self._penalty(logits)
        distance, _ = possible_distances(-shift(logits))
        constraint = sum_of_rows(penalty.excess(distance), weights)
        _, slope = penalty.mean_and_slope(distance)
        slope *= penalty.margin * logits.shape[-1]
        # Clipped row by row, as in the authors' code, and not the mean alone.
        slope = namespace(slope).clip(slope, min=SMALLEST_MULTIPLIER, max=LARGEST_MULTIPLIER)
        weight = np.full(logits.shape[-1], total_weight(labels, weights))
        return np.stack([sum_of_rows(slope, weights), constraint, weight])

    def updated(self, statistic: Any) -> Cals:
        slope, constraint, weight = statistic
        last = self._state(len(weight))
        goal = np.clip(slope / weight, SMALLEST_MULTIPLIER, LARGEST_MULTIPLIER)
        direction = np.sign(goal - last.multiplier)
        step = last.step
        if self.damped:
            step = np.where(direction * last.direction < 0, step / 2, step)
        state = Multipliers(
            last.multiplier + step * (goal - last.multiplier),
            self._grown(last, constraint / weight),
            constraint / weight,
            step,
            direction,
            last.updates + 1,
        )
        return replace(self, state=state)

    def _grown(self, last: Multipliers, constraint: NumpyArray) -> NumpyArray:
        """The strengths after an update with these mean constraints (K,)."""
        if self.period == 0 or (last.updates + 1) % self.period or last.updates == 0:
            return last.strength
        stuck = constraint > self.tolerance * np.maximum(last.constraint, 0)
        grown = np.where(stuck, last.strength * self.growth, last.strength)
        return np.clip(grown, 1.0, _LARGEST_STRENGTH)

    def _penalty(self, logits: Array) -> Penalty:
        state = self._state(logits.shape[-1])
        multiplier, strength = like(state.multiplier, logits), like(state.strength, logits)
        return PENALTIES[self.penalty](given_margin(self.margin), multiplier, strength)

    def _state(self, classes: int) -> Multipliers:
        if self.state is not None:
            return self.state
        ones, zeros = np.ones(classes), np.zeros(classes)
        return Multipliers(ones * SMALLEST_MULTIPLIER, ones, zeros, ones, zeros, 0)


_SMALLEST, _LARGEST = 1e-6, 1e6


@dataclass(frozen=True, eq=False)
class Strengths(LearntState):
    """Strength of each class (K,), and its mean penalty (K,), as compared, at the last update."""

    strength: NumpyArray
    penalty: NumpyArray

    def trace(self) -> dict[str, Any]:
        return {"strength": self.strength.tolist(), "penalty": self.penalty.tolist()}

    def change(self, before: Strengths) -> float:
        return largest_change(self.strength, before.strength, before.strength)


@dataclass(frozen=True)
class CalsHr(WithMargin):
    """``nll + mean_k s_k relu(max_j z_j - z_k - margin)`` with a strength s_k a class.

    After each solve, on validation rows, s_k is multiplied with `growth` where the mean penalty of
    the class has grown by more than the factor `tolerance`, and divided by it where it has shrunk
    by more. Penalties are compared without their strength. In the authors' code they are compared
    with it: with growth equal to tolerance, rounding then decides whether s_k grows once more.
    """

    margin: float | None = field(
        default=10.0,
        metadata={
            "help": "distance that costs nothing; auto takes it from the logits of nll's fit"
        },
    )
    strength: float = field(default=0.1, metadata={"help": "weight of the penalty at first"})
    growth: float = field(default=1.1, metadata={"help": "factor by which a strength changes"})
    tolerance: float = field(
        default=1.1, metadata={"help": "factor of the penalty's change that is let pass"}
    )
    rule: Literal["unweighted", "official"] = field(
        default="unweighted",
        metadata={"help": "penalties compared without their strength, or official: with it"},
    )
    select: Literal["nll", "ece"] = field(
        default="nll", metadata={"help": "figure of the inner split by which a round is chosen"}
    )
    state: Strengths | None = field(default=None, compare=False, repr=False)

    name = "cals-hr"
    title = "class-adaptive label smoothing by a heuristic rule (CALS-HR)"
    source = "Liu et al., Class adaptive network calibration, CVPR 2023"
    published_reduction = "mean"
    smooth = False
    proper = False
    convex = True
    learns = "on validation rows"

    def __post_init__(self) -> None:
        if self.margin is not None:
            check_range(self, "margin")
        check_range(self, "strength", _SMALLEST, _LARGEST)
        check_range(self, "growth", 1.0)
        check_range(self, "tolerance", 1.0)
        check_choice(self, "rule")

    @property
    def label_slope(self) -> float:
        return 1.0

    def terms(self, logits: Array, labels: Array) -> RowTerms:
        likelihood, classes = Likelihood(logits, labels), logits.shape[-1]
        strength: float | Array = float(self.strength) / classes
        if self.state is not None:
            strength = like(self.state.strength / classes, likelihood.nll)
        return HingeTerms(likelihood, given_margin(self.margin), strength)

    def statistic(self, logits: Array, labels: Array, weights: Array | None = None) -> NumpyArray:
        distance, _ = possible_distances(-shift(logits))
        excess = namespace(distance).clip(distance - given_margin(self.margin), min=0.0)
        weight = np.full(logits.shape[-1], total_weight(labels, weights))
        return np.stack([sum_of_rows(excess, weights), weight])

    def updated(self, statistic: Any) -> CalsHr:
        excess, weight = statistic
        penalty = excess / weight
        if self.rule == "official":
            penalty = penalty * (self.strength if self.state is None else self.state.strength)
        if self.state is None:
            return replace(self, state=Strengths(np.full(len(weight), self.strength), penalty))
        strength, before = self.state.strength, self.state.penalty
        if before.any():
            up = penalty > self.tolerance * before
            down = penalty < before / self.tolerance
            changed = np.where(up, strength * self.growth, strength)
            changed = np.where(down, strength / self.growth, changed)
            strength = np.clip(changed, _SMALLEST, _LARGEST)
        return replace(self, state=Strengths(strength, penalty))
