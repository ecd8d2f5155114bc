"""Class temperatures: one a column of logits, or one a predicted class."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np

from calibcli.arrays import Array, NumpyArray, argmax, dot_classes, like, sum_rows, to_numpy
from calibcli.calibrators.base import Calibrator, Preserves, SmoothMap
from calibcli.calibrators.parameters import Parameters

Grouping = Literal["column", "prediction"]


@dataclass(frozen=True, eq=False)
class ClassTemperature(Calibrator):
    """``softmax(z_k / T_k)``, or ``softmax(z / T_m)`` with m the class of the largest logit.

    By column it sees the logits as they are stored, as published: it is the one map here for which
    a constant added to a row's logits matters.

    Parameters
    ----------
    temperatures : float64 array (K,)
    by : str
        ``"column"`` or ``"prediction"``; the second never changes the prediction.
    """

    temperatures: NumpyArray
    by: Grouping = "column"
    kind = "class-temperature"

    def transform(self, logits: Array) -> Array:
        return logits * _scales(1 / self.temperatures, logits, self.by)

    @property
    def preserves(self) -> Preserves:
        return "order" if self.by == "prediction" else "nothing"

    def reach(self, bound: float) -> float:
        return bound / float(self.temperatures.min())

    @classmethod
    def from_parameters(cls, parameters: Parameters, classes: int) -> ClassTemperature:
        parameters.expect("temperatures", "by")
        temperatures = parameters.array("temperatures", (classes,))
        if temperatures.min() <= 0:
            raise parameters.error("temperatures must be greater than 0")
        return cls(temperatures, parameters.choice("by", get_args(Grouping)))

    def summary(self) -> str:
        low, high = self.temperatures.min(), self.temperatures.max()
        return f"temperatures {low:.3f} to {high:.3f} by {self.by}"


@dataclass(frozen=True)
class ClassTemperatureMap(SmoothMap):
    """A temperature a class; the parameters are minus the logarithms, so that none is negative."""

    by: Grouping = field(
        default="column",
        metadata={"help": "a temperature a column of logits, or a predicted class"},
    )

    name = "class-temperature"
    title = "a temperature a class"
    source = "by column: Jung et al., ICML 2023; by prediction: Frenkel and Goldberger, 2021"
    preserves = "nothing"
    cost = "about 30 passes"
    linear = False

    def size(self, classes: int) -> int:
        return classes

    def rows_needed(self, classes: int) -> int:
        return 100 * classes

    def start(self, classes: int, scale: float) -> NumpyArray:
        return np.full(classes, np.log(scale))

    def forward(self, theta: NumpyArray, logits: Array) -> Array:
        return logits * _scales(np.exp(theta), logits, self.by)

    def pullback(self, theta: NumpyArray, logits: Array, gradient: Array) -> NumpyArray:
        scales = np.exp(theta)
        if self.by == "column":
            return sum_rows(gradient * logits) * scales
        rows = to_numpy(dot_classes(gradient, logits)).astype(np.float64)
        return np.bincount(to_numpy(argmax(logits)), rows, len(theta)) * scales

    def calibrator(self, theta: NumpyArray, classes: int) -> ClassTemperature:
        return ClassTemperature(np.exp(-theta), self.by)

    def frozen(self, absent: NumpyArray) -> NumpyArray:
        return absent if self.by == "column" else np.zeros_like(absent)


def _scales(scales: NumpyArray, logits: Array, by: Grouping) -> Array:
    """Factors (K,) of the columns, or (n, 1) of the rows."""
    factors = like(scales, logits)
    return factors if by == "column" else factors[argmax(logits)][:, None]
