"""Temperature scaling with a fitted focal link behind it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from calibcli.arrays import (
    Array,
    NumpyArray,
    dot_classes,
    host_weights,
    log_softmax,
    namespace,
    pick,
    softmax,
    to_numpy,
)
from calibcli.calibrators.base import Calibrator, Preserves, SmoothMap
from calibcli.calibrators.curvature import Expansion
from calibcli.calibrators.parameters import Parameters

LEAST_GAMMA = -3.0
"""Below it the second of two classes that are nearly tied could overtake the first."""


@dataclass(frozen=True)
class FocalTemperature(Calibrator):
    """Probabilities proportional to ``q (1 + q)^gamma``, with ``q = softmax(z / T)``.

    That is the link of inverse focal loss, ``-(1 + q)^-gamma log q``, with its weights held fixed,
    for exponents of either sign: one above 0 makes large probabilities larger, as the link of focal
    loss does, one below 0 smaller.

    ``q (1 + q)^gamma`` rises with q up to ``1 / (-1 - gamma)``; from a gamma of -3 on that is no
    less than 1/2, and where it falls behind that a class is still ahead of all others, which share
    ``1 - q``. So no class overtakes another.

    Parameters
    ----------
    temperature : float
        T > 0.
    gamma : float
        At least -3; 0 leaves a temperature.

    Examples
    --------
    >>> FocalTemperature(1.0, -2.0).probs(np.log([[0.8, 0.15, 0.05]])).round(3)
    array([[0.609, 0.28 , 0.112]])
    """

    temperature: float
    gamma: float
    kind: ClassVar[str] = "focal-temperature"

    @property
    def preserves(self) -> Preserves:
        return "order"

    @property
    def keeps_ranking(self) -> bool:
        return True

    def transform(self, logits: Array) -> Array:
        return _mapped(1 / self.temperature, self.gamma, logits)

    def reach(self, bound: float) -> float:
        return 2 * bound / self.temperature + abs(self.gamma)

    @classmethod
    def from_parameters(cls, parameters: Parameters, classes: int) -> FocalTemperature:
        parameters.expect("temperature", "gamma")
        temperature = parameters.number("temperature", positive=True)
        gamma = parameters.number("gamma")
        if gamma < LEAST_GAMMA:
            raise parameters.error(f"gamma is {gamma}; it must be at least {LEAST_GAMMA:g}")
        return cls(temperature, gamma)

    def summary(self) -> str:
        return f"temperature {self.temperature:.4f}, gamma {self.gamma:.3f}"


@dataclass(frozen=True)
class FocalTemperatureMap(SmoothMap):
    """A temperature and gamma; the parameters are log T, and v with ``gamma = v^2 - 3``.

    A ridge draws v to that of a temperature alone, by ``penalty / n``.
    """

    penalty: float = field(
        default=1.0,
        metadata={"help": "ridge on the root of gamma + 3, over rows", "least": 0},
    )

    name = "focal-temperature"
    title = "one temperature, and a focal link of either sign behind it"
    source = (
        "idea as in Komisarenko and Kull, Improving calibration by relating focal loss, "
        "temperature scaling, and properness, ECAI 2024, arXiv:2408.11598"
    )
    preserves = "order"
    cost = "about 10 passes"
    linear = False

    def size(self, classes: int) -> int:
        return 2

    def rows_needed(self, classes: int) -> int:
        return 100

    def start(self, classes: int, scale: float) -> NumpyArray:
        return np.array([-math.log(scale), math.sqrt(-LEAST_GAMMA)])

    def forward(self, theta: NumpyArray, logits: Array) -> Array:
        return _mapped(*_scale_and_gamma(theta), logits)

    def pullback(self, theta: NumpyArray, logits: Array, gradient: Array) -> NumpyArray:
        xp = namespace(logits)
        by_scale, by_gamma = _Slopes(*_scale_and_gamma(theta), logits).first
        totals = [
            float(xp.sum(dot_classes(gradient, slope), dtype=xp.float64))
            for slope in (by_scale, by_gamma)
        ]
        gradient_by_theta: NumpyArray = _chain(theta) * np.array(totals)
        return gradient_by_theta

    def expansion(self) -> Expansion:
        return _FocalExpansion()

    def calibrator(self, theta: NumpyArray, classes: int) -> FocalTemperature:
        scale, gamma = _scale_and_gamma(theta)
        return FocalTemperature(1 / scale, gamma)

    def ridge(self, classes: int, rows: float) -> NumpyArray:
        return np.array([0.0, 2 * self.penalty / rows])


class _Slopes:
    """Derivatives of the new logits ``l = s z + gamma log(1 + q)`` by the scale s and by gamma.

    Attributes
    ----------
    first : (array (n, K), array (n, K))
        By s and by gamma; of s less what all classes of a row share.
    second : (array (n, K), array (n, K))
        Twice by s, and by s and gamma; twice by gamma it is 0.
    """

    def __init__(self, scale: float, gamma: float, logits: Array) -> None:
        xp = namespace(logits)
        self.probs = softmax(logits * scale)
        mean = dot_classes(self.probs, logits)[:, None]
        ahead = logits - mean
        variance = dot_classes(self.probs, ahead * ahead)[:, None]
        share = self.probs / (1 + self.probs)
        self.first = ahead + gamma * share * ahead, xp.log1p(self.probs)
        bend = share * ahead * ahead / (1 + self.probs) - share * variance
        self.second = gamma * bend, share * ahead
        self.logits = scale * ahead + gamma * self.first[1]


class _FocalExpansion(Expansion):
    """The expansion of a focal temperature, from six sums over the rows."""

    def start(self, theta: NumpyArray) -> NumpyArray:
        return theta

    def normalised(self, theta: NumpyArray) -> NumpyArray:
        return theta

    def partial(
        self, theta: NumpyArray, logits: Array, labels: Array, weights: Array | None
    ) -> NumpyArray:
        slopes = _Slopes(*_scale_and_gamma(theta), logits)
        log_probs = log_softmax(slopes.logits)
        probs = namespace(logits).exp(log_probs)
        (by_scale, by_gamma), (twice, mixed) = slopes.first, slopes.second
        means = [dot_classes(probs, slope) for slope in slopes.first]
        scale, gamma = by_scale - means[0][:, None], by_gamma - means[1][:, None]

        def bend(second: Array, one: Array, other: Array) -> Array:
            return dot_classes(probs, second + one * other) - pick(second, labels)

        rows = (
            -pick(log_probs, labels),
            -pick(scale, labels),
            -pick(gamma, labels),
            bend(twice, scale, scale),
            bend(mixed, scale, gamma),
            dot_classes(probs, gamma * gamma),
        )
        mass = host_weights(labels, weights)
        return np.array([mass @ to_numpy(row).astype(np.float64) for row in rows])

    def derivatives(
        self, theta: NumpyArray, mean: NumpyArray
    ) -> tuple[float, NumpyArray, NumpyArray]:
        value, first = float(mean[0]), mean[1:3]
        second = mean[[[3, 4], [4, 5]]]
        by_theta, scale = _chain(theta), math.exp(-theta[0])
        bends = np.diag([scale * first[0], 2 * first[1]])
        return value, by_theta * first, np.outer(by_theta, by_theta) * second + bends


def _scale_and_gamma(theta: NumpyArray) -> tuple[float, float]:
    return math.exp(-theta[0]), float(theta[1] ** 2) + LEAST_GAMMA


def _chain(theta: NumpyArray) -> NumpyArray:
    """Derivatives (2,) of scale and gamma by the parameters, one each."""
    return np.array([-math.exp(-theta[0]), 2 * theta[1]])


def _mapped(scale: float, gamma: float, logits: Array) -> Array:
    """New logits (n, K), by a scale 1 / T."""
    xp = namespace(logits)
    log_probs = log_softmax(logits * scale)
    return log_probs + gamma * xp.log1p(xp.exp(log_probs))
