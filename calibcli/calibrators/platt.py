"""Platt scaling: a logistic regression on the logit of two classes (Platt, 1999)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from calibcli.arrays import Array, namespace
from calibcli.calibrators.base import Calibrator, SmoothMap, Vector
from calibcli.calibrators.reading import check_names, read_number
from calibcli.errors import ParamsError


def binary_logit(logits: Array) -> Array:
    """The logit of class 1 against class 0: (n, 2) -> (n,)."""
    return logits[:, 1] - logits[:, 0]


def as_two(logit: Array) -> Array:
    """Logits (n, 2) of two classes from the logit (n,) of class 1."""
    xp = namespace(logit)
    return xp.stack((xp.zeros_like(logit), logit), axis=-1)


@dataclass(frozen=True)
class Platt(Calibrator):
    """``p(class 1) = sigmoid(slope * z + intercept)``, z the logit of class 1 against class 0.

    Parameters
    ----------
    slope, intercept : float
    """

    slope: float
    intercept: float
    kind = "platt"

    def transform(self, logits: Array) -> Array:
        return as_two(binary_logit(logits) * self.slope + self.intercept)

    def parameters(self) -> dict[str, Any]:
        return {"slope": self.slope, "intercept": self.intercept}

    @classmethod
    def from_parameters(cls, parameters: dict[str, Any], classes: int) -> Platt:
        check_names(cls.kind, parameters, ("slope", "intercept"))
        if classes != 2:
            raise ParamsError(f"stage 'platt' is for two classes, not {classes}")
        return cls(
            read_number(cls.kind, parameters, "slope"),
            read_number(cls.kind, parameters, "intercept"),
        )

    def summary(self) -> str:
        return f"slope {self.slope:.4f}, intercept {self.intercept:.4f}"


@dataclass(frozen=True)
class PlattMap(SmoothMap):
    """Parameters: slope and intercept."""

    name = "platt"
    title = "logistic regression on the logit, for two classes"
    source = "Platt, Probabilistic outputs for support vector machines, 1999"
    preserves = "nothing"
    cost = "about 10 passes"
    binary_only = True

    def size(self, classes: int) -> int:
        return 2

    def rows_needed(self, classes: int) -> int:
        return 100

    def start(self, classes: int, scale: float) -> Vector:
        return np.array([scale, 0.0])

    def forward(self, theta: Vector, logits: Array) -> Array:
        return as_two(binary_logit(logits) * float(theta[0]) + float(theta[1]))

    def pullback(self, theta: Vector, logits: Array, gradient: Array) -> Vector:
        xp = namespace(logits)
        slope = xp.sum(gradient[:, 1] * binary_logit(logits), dtype=xp.float64)
        return np.array([float(slope), float(xp.sum(gradient[:, 1], dtype=xp.float64))])

    def pushforward(self, theta: Vector, logits: Array, direction: Vector) -> Array:
        return self.forward(direction, logits)

    def calibrator(self, theta: Vector, classes: int) -> Platt:
        return Platt(float(theta[0]), float(theta[1]))
