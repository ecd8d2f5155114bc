"""Laplace's rule on top of a calibrator: a little of the uniform distribution."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from calibcli.arrays import (
    Array,
    NumpyArray,
    log_in_place,
    log_softmax,
    restore_impossible,
    softmax,
    split_impossible,
)
from calibcli.calibrators.base import Calibrator, Preserves, SmoothMap
from calibcli.calibrators.parameters import Parameters

_LEAST_WEIGHT = 1e-30
"""A share of less, among all classes, would be 0 in float32."""


@dataclass(frozen=True)
class LaplaceMixture(Calibrator):
    """``(1 - weight) p + weight / K``: no probability is smaller than ``weight / K``.

    Parameters
    ----------
    weight : float
        Between 0 and 1.

    Examples
    --------
    >>> LaplaceMixture(0.1).probs(np.array([[0.0, -np.inf, 0.0, -99.0]])).round(3)
    array([[0.487, 0.   , 0.487, 0.026]])
    """

    weight: float
    kind = "laplace"

    def transform(self, logits: Array) -> Array:
        probs = softmax(logits)
        probs *= 1 - self.weight
        probs += self.weight / logits.shape[1]
        return log_in_place(probs)

    @property
    def keeps_ranking(self) -> bool:
        return True

    @property
    def preserves(self) -> Preserves:
        return "order"

    def log_probs(self, logits: Array) -> Array:
        finite, mask = split_impossible(logits)
        mixed = self.transform(finite)
        # A mixture of distributions is one, until some of its classes are taken out.
        return mixed if mask is None else log_softmax(restore_impossible(mixed, mask))

    def reach(self, bound: float) -> float:
        # The share of a class among e^20, which no file can hold.
        return 20 - math.log(self.weight)

    @classmethod
    def from_parameters(cls, parameters: Parameters, classes: int) -> LaplaceMixture:
        parameters.expect("weight")
        weight = parameters.number("weight", positive=True)
        if not _LEAST_WEIGHT <= weight < 1:
            raise parameters.error(
                f"weight is {weight}; it must be at least {_LEAST_WEIGHT:g} and below 1"
            )
        return cls(weight)

    def summary(self) -> str:
        return f"{self.weight:.2g} of the uniform distribution"


@dataclass(frozen=True)
class LaplaceMap(SmoothMap):
    """Laplace's rule; it has no parameters, and the weight ``1 / (n + 1)`` with n rows."""

    weight: float = 0.5

    name = "laplace"
    title = "1 / (n + 1) of the uniform distribution, for n rows"
    source = "Berta et al., Structured matrix scaling, arXiv:2511.03685"
    preserves = "order"
    cost = "nothing"

    def resolved(self, rows: float) -> LaplaceMap:
        return LaplaceMap(1 / (rows + 1))

    def size(self, classes: int) -> int:
        return 0

    def rows_needed(self, classes: int) -> int:
        return 1

    def start(self, classes: int, scale: float) -> NumpyArray:
        return np.empty(0)

    def forward(self, theta: NumpyArray, logits: Array) -> Array:
        return LaplaceMixture(self.weight).transform(logits)

    def pullback(self, theta: NumpyArray, logits: Array, gradient: Array) -> NumpyArray:
        return np.empty(0)

    def calibrator(self, theta: NumpyArray, classes: int) -> LaplaceMixture:
        return LaplaceMixture(self.weight)
