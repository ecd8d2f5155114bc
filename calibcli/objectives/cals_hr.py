"""Class-adaptive label smoothing by a heuristic rule (CALS-HR)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from calibcli.arrays import Array, like, namespace, shift
from calibcli.objectives.adaptive import (
    Adaptive,
    State,
    Vector,
    largest_change,
    sum_of_rows,
    total_weight,
)
from calibcli.objectives.base import RowTerms
from calibcli.objectives.checks import check_range
from calibcli.objectives.distances import distances, given_margin
from calibcli.objectives.likelihood import Likelihood
from calibcli.objectives.mbls import HingeTerms

_SMALLEST, _LARGEST = 1e-6, 1e6


@dataclass(frozen=True, eq=False)
class Strengths(State):
    """Strength of each class (K,), and its mean penalty (K,) at the last update."""

    strength: Vector
    penalty: Vector

    def trace(self) -> dict[str, Any]:
        return {"strength": self.strength.tolist(), "penalty": self.penalty.tolist()}

    def change(self, before: Strengths) -> float:
        return largest_change(self.strength, before.strength, before.strength)


@dataclass(frozen=True)
class CalsHr(Adaptive):
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
    select: Literal["nll", "ece"] = field(
        default="nll", metadata={"help": "figure of the inner split by which a round is chosen"}
    )
    state: Strengths | None = field(default=None, compare=False, repr=False)

    name = "cals-hr"
    title = "class-adaptive label smoothing by a heuristic rule (CALS-HR)"
    source = "Liu et al., Class adaptive network calibration, CVPR 2023"
    smooth = False
    proper = False
    convex = True
    on_validation = True

    def __post_init__(self) -> None:
        if self.margin is not None:
            check_range(self, "margin")
        check_range(self, "strength", _SMALLEST, _LARGEST)
        check_range(self, "growth", 1.0)
        check_range(self, "tolerance", 1.0)

    def terms(self, logits: Array, labels: Array) -> RowTerms:
        likelihood, classes = Likelihood(logits, labels), logits.shape[-1]
        strength: float | Array = float(self.strength) / classes
        if self.state is not None:
            strength = like(self.state.strength / classes, likelihood.nll)
        return HingeTerms(likelihood, given_margin(self.margin), strength)

    def statistic(self, logits: Array, labels: Array, weights: Array | None = None) -> Vector:
        distance, _ = distances(shift(logits))
        excess = namespace(distance).clip(distance - given_margin(self.margin), min=0.0)
        weight = np.full(logits.shape[-1], total_weight(labels, weights))
        return np.stack([sum_of_rows(excess, weights), weight])

    def updated(self, statistic: Any) -> CalsHr:
        excess, weight = statistic
        penalty = excess / weight
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
