"""Maps of the logit of two classes that are linear in their parameters."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import numpy as np

from calibcli.arrays import Array, NumpyArray, namespace
from calibcli.calibrators.base import Preserves, SmoothMap


def binary_logit(logits: Array) -> Array:
    """The logit of class 1 against class 0: (n, 2) -> (n,)."""
    return logits[:, 1] - logits[:, 0]


def as_two(logit: Array) -> Array:
    """Logits (n, 2) of two classes from the logit (n,) of class 1."""
    xp = namespace(logit)
    return xp.stack((xp.zeros_like(logit), logit), axis=-1)


def softplus(values: Array) -> Array:
    """``log(1 + exp(v))``, without overflow."""
    xp = namespace(values)
    return xp.logaddexp(values, xp.zeros_like(values))


class BinaryLinearMap(SmoothMap):
    """A sum of features of the logit of class 1, a parameter each."""

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
