"""Platt scaling: a logistic regression on the logit of two classes (Platt, 1999)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from calibcli.arrays import Array, NumpyArray, namespace
from calibcli.calibrators.base import Calibrator
from calibcli.calibrators.binary import BinaryLinearMap, as_two, binary_logit
from calibcli.calibrators.parameters import Parameters


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

    @classmethod
    def from_parameters(cls, parameters: Parameters, classes: int) -> Platt:
        parameters.expect("slope", "intercept")
        parameters.for_two_classes(classes)
        return cls(
            parameters.number("slope"),
            parameters.number("intercept"),
        )

    def summary(self) -> str:
        return f"slope {self.slope:.4f}, intercept {self.intercept:.4f}"


@dataclass(frozen=True)
class PlattMap(BinaryLinearMap):
    """Parameters: slope and intercept."""

    name = "platt"
    title = "logistic regression on the logit, for two classes"
    source = "Platt, Probabilistic outputs for support vector machines, 1999"

    @staticmethod
    def features(logit: Array) -> tuple[Array, ...]:
        return logit, namespace(logit).ones_like(logit)

    def start(self, classes: int, scale: float) -> NumpyArray:
        return np.array([scale, 0.0])

    def calibrator(self, theta: NumpyArray, classes: int) -> Platt:
        return Platt(float(theta[0]), float(theta[1]))
