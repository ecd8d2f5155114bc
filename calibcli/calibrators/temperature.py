"""Temperature scaling: all logits divided by one number (Guo et al., 2017)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from calibcli.arrays import (
    Array,
    NumpyArray,
    is_numpy_array,
    largest,
    namespace,
    pick,
    sum_classes,
)
from calibcli.calibrators.base import Calibrator, Preserves, SmoothMap
from calibcli.calibrators.parameters import Parameters
from calibcli.value_counts import CountedScores

_PRIOR = 4.0
"""Over rows: a normal prior of 1 / T around 1, of standard deviation 1/2, as `vector` has.

It covers temperatures of 2/3 to 2 within one deviation and all above within two: networks are too
sure more often than not sure enough. In simulations of 12 to 500 rows 1 to 16 were nearly alike.
"""

_BLOCK = 1 << 17
"""Scores that are worked on at a time, so that two more matrices of them stay in a core's cache."""


@dataclass(frozen=True)
class Temperature(Calibrator):
    """``softmax(z / T)``.

    Parameters
    ----------
    temperature : float
        T > 0; above 1 the probabilities become less extreme.

    Examples
    --------
    >>> Temperature(2.0).probs(np.array([[4.0, 0.0]])).round(3)
    array([[0.881, 0.119]])
    """

    temperature: float
    kind = "temperature"
    by_value = True

    @property
    def changes_nothing(self) -> bool:
        return self.temperature == 1

    @property
    def keeps_ranking(self) -> bool:
        return True

    @property
    def preserves(self) -> Preserves:
        return "order"

    def transform(self, logits: Array) -> Array:
        return logits * (1 / self.temperature)

    def reach(self, bound: float) -> float:
        return bound / self.temperature

    @classmethod
    def from_parameters(cls, parameters: Parameters, classes: int) -> Temperature:
        parameters.expect("temperature")
        return cls(parameters.number("temperature", positive=True))

    def summary(self) -> str:
        return f"temperature {self.temperature:.4f}"


@dataclass(frozen=True)
class TemperatureMap(SmoothMap):
    """Temperature scaling; its parameter is 1 / T, in which it is linear."""

    name = "temperature"
    title = "one temperature for all logits"
    source = "Guo et al., On calibration of modern neural networks, ICML 2017"
    preserves = "order"
    cost = "about 4 passes"
    along_values = True

    def size(self, classes: int) -> int:
        return 1

    def rows_needed(self, classes: int) -> int:
        return 50

    def start(self, classes: int, scale: float) -> NumpyArray:
        return np.array([scale])

    def forward(self, theta: NumpyArray, logits: Array) -> Array:
        return logits * float(theta[0])

    def pullback(self, theta: NumpyArray, logits: Array, gradient: Array) -> NumpyArray:
        xp = namespace(logits)
        rows = xp.sum(gradient * logits, axis=-1)
        return np.array([float(xp.sum(rows, dtype=xp.float64))])

    def pushforward(self, theta: NumpyArray, logits: Array, direction: NumpyArray) -> Array:
        return logits if direction[0] == 1 else logits * float(direction[0])

    def likelihood_along(
        self, theta: NumpyArray, logits: Array, labels: Array
    ) -> NumpyArray | None:
        """In blocks that stay in the cache, from moments of the distance to the largest logit."""
        if not is_numpy_array(logits):
            return None
        scale, classes = float(theta[0]), logits.shape[1]
        rows = max(_BLOCK // classes, 1)
        parts = [
            _along_scale(scale, logits[begin : begin + rows], labels[begin : begin + rows])
            for begin in range(0, len(logits), rows)
        ]
        return np.concatenate(parts, axis=1)

    def likelihood_by_value(
        self, theta: NumpyArray, scores: CountedScores, labels: NumpyArray
    ) -> NumpyArray:
        result, places = np.empty((4, len(scores))), scores.places(labels)
        for rows, values, counts, _ in scores.blocks():
            result[:, rows] = _along_scale(float(theta[0]), values, places[rows], counts)
        return result

    def calibrator(self, theta: NumpyArray, classes: int) -> Calibrator:
        return Temperature(float(1 / theta[0]))


@dataclass(frozen=True)
class RidgeTemperatureMap(TemperatureMap):
    """Temperature scaling with a ridge on the deviation of 1 / T from 1.

    The mean loss gains ``prior / n (1 / T - 1)^2 / 2``: of few rows, or rows that can be separated,
    it leaves a point between no change and the best temperature; of many, that temperature.
    """

    prior: float = field(
        default=_PRIOR,
        metadata={"help": "ridge on the deviation of 1 / T from 1, over rows", "least": 0},
    )

    name = "ridge-temperature"
    title = "one temperature for all logits, drawn to 1 by a ridge"
    source = "Guo et al., ICML 2017, with a normal prior"

    def rows_needed(self, classes: int) -> int:
        # The fewer rows there are, the more the ridge holds.
        return 1

    def ridge(self, classes: int, rows: float) -> NumpyArray:
        return np.array([self.prior / rows])

    def anchor(self, classes: int, scale: float) -> NumpyArray:
        return self.start(classes, 1.0)


def _along_scale(
    scale: float, logits: NumpyArray, labels: NumpyArray, counts: NumpyArray | None = None
) -> NumpyArray:
    """The nll of each row at a scale of its logits, and three derivatives: float64 (4, n).

    The derivatives of ``log sum_k exp(s d_k)`` by s are the cumulants of d.

    Parameters
    ----------
    scale : float
    logits : array (n, K)
        All, or distinct ones with their ``counts`` (n, K).
    labels : int array (n,)
        The place of the label's logit.
    """
    # Distinct logits ascend.
    high = largest(logits) if counts is None else logits[:, -1]
    distance = logits - high[:, None]
    # A scale may be so large that what is less likely than the top class is impossible.
    with np.errstate(over="ignore"):
        mass = distance * scale
    np.exp(mass, out=mass)
    if counts is not None:
        mass *= counts
    total = sum_classes(mass).astype(np.float64)
    moments = np.empty((3, len(logits)))
    for power in range(3):
        np.multiply(mass, distance, out=mass)
        moments[power] = sum_classes(mass)
    mean, square, cube = moments / total
    at_label = pick(distance, labels).astype(np.float64)
    loss = np.log(total) - scale * at_label
    # A power would take ten times as long as all the rest.
    skew = cube - mean * (3 * square - 2 * mean * mean)
    return np.stack([loss, mean - at_label, square - mean * mean, skew])
