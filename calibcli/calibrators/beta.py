"""Beta calibration of two classes (Kull, Silva Filho and Flach, 2017), computed on logits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from calibcli.arrays import Array, NumpyArray, namespace
from calibcli.calibrators.base import Calibrator
from calibcli.calibrators.binary import BinaryLinearMap, as_two, binary_logit, softplus
from calibcli.calibrators.parameters import Parameters


@dataclass(frozen=True)
class Beta(Calibrator):
    """``p(class 1) = sigmoid(a ln q - b ln(1 - q) + c)``, q the probability of class 1.

    Both logarithms come from the logit z: ``ln q = -softplus(-z)``, ``ln(1 - q) = -softplus(z)``.

    Parameters
    ----------
    a, b : float
        At least 0, so that the map is monotone.
    c : float
    """

    a: float
    b: float
    c: float
    kind = "beta"

    def transform(self, logits: Array) -> Array:
        logit = binary_logit(logits)
        return as_two(self.b * softplus(logit) - self.a * softplus(-logit) + self.c)

    @classmethod
    def from_parameters(cls, parameters: Parameters, classes: int) -> Beta:
        parameters.expect("a", "b", "c")
        parameters.for_two_classes(classes)
        a, b, c = (parameters.number(name) for name in ("a", "b", "c"))
        if min(a, b) < 0:
            raise parameters.error("a and b must be at least 0")
        return cls(a, b, c)

    def summary(self) -> str:
        return f"a {self.a:.4f}, b {self.b:.4f}, c {self.c:.4f}"


@dataclass(frozen=True)
class BetaMap(BinaryLinearMap):
    """Parameters: a, b and c."""

    name = "beta"
    title = "beta calibration, for two classes"
    source = "Kull, Silva Filho and Flach, Beta calibration, AISTATS 2017"
    bounded = True

    @staticmethod
    def features(logit: Array) -> tuple[Array, ...]:
        return -softplus(-logit), softplus(logit), namespace(logit).ones_like(logit)

    def start(self, classes: int, scale: float) -> NumpyArray:
        return np.array([scale, scale, 0.0])

    def signed(self, classes: int) -> NumpyArray:
        return np.array([False, False, True])

    def calibrator(self, theta: NumpyArray, classes: int) -> Beta:
        return Beta(*map(float, theta))
