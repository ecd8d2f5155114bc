"""Quadratic logistic regression on the logit of two classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from calibcli.arrays import Array, NumpyArray, namespace
from calibcli.calibrators.base import Calibrator
from calibcli.calibrators.binary import BinaryLinearMap, as_two, binary_logit
from calibcli.calibrators.parameters import Parameters


@dataclass(frozen=True)
class Quadratic(Calibrator):
    """``p(class 1) = sigmoid(square * z^2 + slope * z + intercept)``; not monotone in general.

    Parameters
    ----------
    square, slope, intercept : float
        z is the logit of class 1 against class 0.
    """

    square: float
    slope: float
    intercept: float
    kind = "quadratic"

    def transform(self, logits: Array) -> Array:
        logit = binary_logit(logits)
        return as_two((logit * self.square + self.slope) * logit + self.intercept)

    @classmethod
    def from_parameters(cls, parameters: Parameters, classes: int) -> Quadratic:
        names = ("square", "slope", "intercept")
        parameters.expect(*names)
        parameters.for_two_classes(classes)
        return cls(*(parameters.number(name) for name in names))

    def summary(self) -> str:
        return f"square {self.square:.4f}, slope {self.slope:.4f}, intercept {self.intercept:.4f}"


@dataclass(frozen=True)
class QuadraticMap(BinaryLinearMap):
    """Parameters: of the square, the logit and the constant."""

    name = "quadratic"
    title = "quadratic logistic regression on the logit, for two classes"
    source = "Berta et al., CalArena, arXiv:2605.30188"

    @staticmethod
    def features(logit: Array) -> tuple[Array, ...]:
        return logit * logit, logit, namespace(logit).ones_like(logit)

    def start(self, classes: int, scale: float) -> NumpyArray:
        return np.array([0.0, scale, 0.0])

    def calibrator(self, theta: NumpyArray, classes: int) -> Quadratic:
        return Quadratic(*map(float, theta))
