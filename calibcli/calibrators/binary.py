"""Maps of two classes: Platt scaling, beta calibration and quadratic logistic regression.

Each is a logistic regression on a few features of the logit of class 1 against class 0, and linear
in its parameters.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

import numpy as np

from calibcli.arrays import Array, NumpyArray, is_numpy_array, namespace
from calibcli.calibrators.base import Calibrator, Preserves, SmoothMap
from calibcli.calibrators.parameters import Parameters

_FARTHEST = 1e30
"""Log-odds beyond this are cut there; every probability is 0 or 1 long before."""


class BinaryLinearMap(SmoothMap):
    """A logit that is a weighted sum of features of the logit of class 1."""

    preserves: ClassVar[Preserves] = "nothing"
    cost = "about 15 passes"
    binary_only = True

    @staticmethod
    @abstractmethod
    def features(logit: Array) -> tuple[Array, ...]:
        """The features, each (n,), of the logit (n,); P of them."""

    def size(self, classes: int) -> int:
        return len(self.features(np.zeros(1)))

    def rows_needed(self, classes: int) -> int:
        return 100 * self.size(classes)

    def forward(self, theta: NumpyArray, logits: Array) -> Array:
        features = self.features(binary_logit(logits))
        return as_two(sum(float(t) * f for t, f in zip(theta, features, strict=True)))

    def pullback(self, theta: NumpyArray, logits: Array, gradient: Array) -> NumpyArray:
        xp = namespace(logits)
        features = self.features(binary_logit(logits))
        return np.array([float(xp.sum(gradient[:, 1] * f, dtype=xp.float64)) for f in features])


class BinaryCalibrator(Calibrator):
    """A calibrator for two classes whose parameters are numbers."""

    @classmethod
    def from_parameters(cls, parameters: Parameters, classes: int) -> Self:
        # This class itself is no dataclass; each calibrator is.
        calibrator: Any = cls
        names = [entry.name for entry in fields(calibrator)]
        parameters.expect(*names)
        parameters.for_two_classes(classes)
        return cls(*(parameters.number(name) for name in names))

    def summary(self) -> str:
        return ", ".join(f"{name} {value:.4f}" for name, value in self.parameters().items())


@dataclass(frozen=True)
class Platt(BinaryCalibrator):
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

    @property
    def keeps_ranking(self) -> bool:
        return self.slope > 0

    def reach(self, bound: float) -> float:
        return 2 * bound * abs(self.slope) + abs(self.intercept)


@dataclass(frozen=True)
class PlattMap(BinaryLinearMap):
    """Platt scaling; its parameters are slope and intercept."""

    name = "platt"
    title = "logistic regression on the logit, for two classes"
    source = "Platt, Probabilistic outputs for support vector machines, 1999"

    @staticmethod
    def features(logit: Array) -> tuple[Array, ...]:
        return logit, namespace(logit).ones_like(logit)

    def start(self, classes: int, scale: float) -> NumpyArray:
        return np.array([scale, 0.0])

    def calibrator(self, theta: NumpyArray, classes: int) -> Platt:
        return Platt(*map(float, theta))


@dataclass(frozen=True)
class Beta(BinaryCalibrator):
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

    @property
    def keeps_ranking(self) -> bool:
        return min(self.a, self.b) > 0

    def reach(self, bound: float) -> float:
        return (2 * bound + 1) * (self.a + self.b) + abs(self.c)

    @classmethod
    def from_parameters(cls, parameters: Parameters, classes: int) -> Self:
        beta = super().from_parameters(parameters, classes)
        if min(beta.a, beta.b) < 0:
            raise parameters.error("a and b must be at least 0")
        return beta


@dataclass(frozen=True)
class BetaMap(BinaryLinearMap):
    """Beta calibration; its parameters are a, b and c."""

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


@dataclass(frozen=True)
class Quadratic(BinaryCalibrator):
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
        xp = namespace(logit)
        with np.errstate(over="ignore"):
            new = (logit * self.square + self.slope) * logit + self.intercept
        return as_two(xp.clip(new, min=-_FARTHEST, max=_FARTHEST))

    def reach(self, bound: float) -> float:
        # The square of a large logit may overflow, to no harm; but 0 times infinity would be NaN.
        return max(_FARTHEST, abs(self.square), abs(self.slope), abs(self.intercept))


@dataclass(frozen=True)
class QuadraticMap(BinaryLinearMap):
    """Quadratic logistic regression; its parameters are those of square, logit and constant."""

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


def binary_logit(logits: Array) -> Array:
    """The logit of class 1 against class 0: (n, 2) -> (n,)."""
    return logits[:, 1] - logits[:, 0]


def as_two(logit: Array) -> Array:
    """Logits (n, 2) of two classes from the logit (n,) of class 1."""
    if is_numpy_array(logit):
        two = np.zeros((len(logit), 2), logit.dtype, "F")
        two[:, 1] = logit
        return two
    xp = namespace(logit)
    return xp.stack((xp.zeros_like(logit), logit), axis=-1)


def softplus(values: Array) -> Array:
    """``log(1 + exp(v))``, without overflow."""
    xp = namespace(values)
    return xp.logaddexp(values, xp.zeros_like(values))
