"""Bias-corrected temperature scaling: one temperature, and a bias a class."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from calibcli.arrays import Array, NumpyArray, like, namespace, sum_rows
from calibcli.calibrators.affine import VectorScaling
from calibcli.calibrators.base import SmoothMap


@dataclass(frozen=True)
class BiasCorrectedTemperatureMap(SmoothMap):
    """Parameters: the scale that all classes share, then the K biases."""

    penalty: float = field(
        default=1e-6,
        metadata={"help": "ridge on the deviation from no bias, a parameter", "least": 0},
    )

    name = "bias-corrected-temperature"
    title = "one temperature for all logits and a bias a class"
    source = "Alexandari, Kundaje and Shrikumar, ICML 2020"
    preserves = "nothing"
    cost = "about 30 passes"
    normalises = True
    tunable = ("penalty",)

    def size(self, classes: int) -> int:
        return classes + 1

    def rows_needed(self, classes: int) -> int:
        return 50 * classes

    def start(self, classes: int, scale: float) -> NumpyArray:
        return np.concatenate(([scale], np.zeros(classes)))

    def forward(self, theta: NumpyArray, logits: Array) -> Array:
        return logits * float(theta[0]) + like(theta[1:], logits)

    def pullback(self, theta: NumpyArray, logits: Array, gradient: Array) -> NumpyArray:
        xp = namespace(logits)
        scale = float(xp.sum(xp.sum(gradient * logits, axis=-1), dtype=xp.float64))
        return np.concatenate(([scale], sum_rows(gradient)))

    def pullback_squares(self, theta: NumpyArray, logits: Array, diagonal: Array) -> NumpyArray:
        return self.pullback(theta, logits * logits, diagonal)

    def calibrator(self, theta: NumpyArray, classes: int) -> VectorScaling:
        return VectorScaling(np.full(classes, theta[0]), theta[1:] - theta[1:].mean())

    def ridge(self, classes: int, rows: float) -> NumpyArray:
        return np.full(classes + 1, self.penalty)

    def frozen(self, absent: NumpyArray) -> NumpyArray:
        return np.concatenate(([False], absent))
